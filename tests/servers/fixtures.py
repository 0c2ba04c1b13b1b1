# Copyright European Organization for Nuclear Research (CERN) since 2012
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#    http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Fixtures of which several conftest.py have one of their own."""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import botocore.session
import pytest

from rucio.common import config as rucio_config
from rucio.common.s3 import clients

from .cli import RucioCli
from .files import Sections
from .rucio_server import RucioServer
from .seaweedfs import SeaweedFS
from .team import Team

FOREIGN = ('AWS_', 'BOTO_', 'RUCIO_', 'X509_')
ELSEWHERE = ('requests_ca_bundle', 'curl_ca_bundle', 'http_proxy', 'https_proxy', 'all_proxy', 'no_proxy', 'virtual_env', 'conda_prefix')
# Most of the time that a client takes is for reading botocore's models: once for all tests.
load_once = functools.cache(botocore.session.create_loader)


def teams(config: Sections, vended: tuple[str, str], signed: tuple[str, str]) -> tuple[Any, Any, Any]:
    """``team_root``, ``vended_team`` and ``signed_team``: a Rucio server with this configuration on which the owner of a scope may
    upload; two users who get short-lived keys of it; and two whose requests it signs. The names are those of the accounts.
    """

    @pytest.fixture(scope='session')
    def team_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RucioCli]:
        """The operator of the server."""
        usual: Sections = {'common': {'loglevel': 'DEBUG'}, 'policy': {'package': 'rucio_s3_policy'}}
        with RucioServer(tmp_path_factory.mktemp('rucio'), {**usual, **config}) as server:
            yield RucioCli.root(tmp_path_factory.mktemp('root'), server)

    @pytest.fixture(scope='session')
    def vended_team(team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory, sts: SeaweedFS) -> Team:
        return Team.make(team_root, tmp_path_factory.mktemp, vended, 'VENDED_S3', sts)

    @pytest.fixture(scope='session')
    def signed_team(team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory, plain: SeaweedFS) -> Team:
        return Team.make(team_root, tmp_path_factory.mktemp, signed, 'SIGNED_S3', plain)

    return team_root, vended_team, signed_team


@contextmanager
def empty_home(folder: Path, monkeypatch: pytest.MonkeyPatch, rucio_cfg: str = '[client]\n') -> Iterator[Path]:
    """An empty home directory and nothing of the developer's environment. Rucio's configuration is in ``rucio/etc`` below it."""
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name.lower() in ELSEWHERE:
            monkeypatch.delenv(name)
    etc = folder / 'rucio' / 'etc'
    etc.mkdir(parents=True)
    (etc / 'rucio.cfg').write_text(rucio_cfg)
    monkeypatch.setenv('HOME', str(folder))
    monkeypatch.setenv('AWS_EC2_METADATA_DISABLED', 'true')
    monkeypatch.setenv('RUCIO_HOME', str(etc.parent))
    monkeypatch.setenv('RUCIO_CONFIG', str(etc / 'rucio.cfg'))
    # The last directory is /opt/rucio/etc, whatever the environment says.
    monkeypatch.setattr(rucio_config, 'get_config_dirs', lambda: [str(etc)])
    rucio_config.clean_cached_config()
    with mock.patch.dict(clients._shared, clear=True):
        yield folder
    rucio_config.clean_cached_config()
