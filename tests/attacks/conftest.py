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

"""What attacks have in common."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import botocore.session
import pytest

from rucio.common import config
from rucio.common.s3 import clients
from servers.ceph import CephRGW
from servers.cli import RucioCli
from servers.events import EVENTS_TOKEN
from servers.files import Sections
from servers.granted import Granted
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS
from servers.team import Team

# Most of the time that a client takes is for reading botocore's models: once for all tests.
_load_once = functools.cache(botocore.session.create_loader)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home directory and environment, for attacks on a client in this process. Rucio's configuration is below it, and empty."""
    for name in list(os.environ):
        if name.startswith(('AWS_', 'BOTO_', 'RUCIO_', 'X509_')) or name.lower().endswith(('_proxy', 'ca_bundle')):
            monkeypatch.delenv(name)
    etc = tmp_path / 'home' / 'etc'
    etc.mkdir(parents=True)
    (etc / 'rucio.cfg').write_text('[client]\nauth_token_file_path = %s\n' % (tmp_path / 'token'))
    monkeypatch.setenv('HOME', str(etc.parent))
    monkeypatch.setenv('AWS_EC2_METADATA_DISABLED', 'true')
    monkeypatch.setenv('RUCIO_HOME', str(etc.parent))
    monkeypatch.setenv('RUCIO_CONFIG', str(etc / 'rucio.cfg'))
    monkeypatch.setattr(botocore.session, 'create_loader', _load_once)
    monkeypatch.setattr(config, 'get_config_dirs', lambda: [str(etc)])
    config.clean_cached_config()
    with mock.patch.dict(clients._shared, clear=True):
        yield etc.parent
    config.clean_cached_config()


# A Rucio server of their own: attackers make RSEs where others have one.


@pytest.fixture(scope='session')
def team_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RucioCli]:
    config: Sections = {
        'common': {'loglevel': 'DEBUG'},
        'policy': {'package': 'rucio_s3_policy'},
        'api': {'endpoints_add': 's3, s3events'},
        's3:SIGNED_S3': {'events_token': EVENTS_TOKEN, 'on_missing': 'forget'},
        **{f's3:{rse}': {'events_token': EVENTS_TOKEN} for rse in ('TOPICS_S3', 'OPEN_TOPICS_S3')},
    }
    with RucioServer(tmp_path_factory.mktemp('rucio'), config) as server:
        yield RucioCli.root(tmp_path_factory.mktemp('root'), server)


@pytest.fixture(scope='session')
def vended_team(team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory, sts: SeaweedFS) -> Team:
    return Team.make(team_root, tmp_path_factory.mktemp, ('carla', 'dirk'), 'VENDED_S3', sts)


@pytest.fixture(scope='session')
def signed_team(team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory, plain: SeaweedFS) -> Team:
    return Team.make(team_root, tmp_path_factory.mktemp, ('ernest', 'fritz'), 'SIGNED_S3', plain)


@pytest.fixture(scope='session')
def on_seaweedfs(team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory, sts: SeaweedFS) -> Granted:
    return Granted.make(team_root, tmp_path_factory.mktemp, 'ATTACKED_S3', sts, ('judy', 'mallory'))


@pytest.fixture(scope='session')
def on_ceph(team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory, ceph: CephRGW) -> Granted:
    return Granted.make(team_root, tmp_path_factory.mktemp, 'ATTACKED_CEPH', ceph, ('peggy', 'trudy'))


@pytest.fixture(params=['on_seaweedfs', 'on_ceph'])
def granted(request: pytest.FixtureRequest) -> Granted:
    made: Granted = request.getfixturevalue(request.param)
    return made
