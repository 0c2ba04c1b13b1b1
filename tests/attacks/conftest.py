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

from collections.abc import Iterator
from pathlib import Path

import botocore.session
import pytest

from servers.ceph import CephRGW
from servers.cli import RucioCli
from servers.events import EVENTS_TOKEN
from servers.fixtures import empty_home, load_once, teams
from servers.granted import Granted
from servers.seaweedfs import SeaweedFS


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home directory and environment, for attacks on a client in this process."""
    monkeypatch.setattr(botocore.session, 'create_loader', load_once)
    with empty_home(tmp_path / 'home', monkeypatch, f'[client]\nauth_token_file_path = {tmp_path / "token"}\n') as folder:
        yield folder


# A Rucio server of their own: attackers make RSEs where others have one.
team_root, vended_team, signed_team = teams(
    {
        'api': {'endpoints_add': 's3, s3events'},
        's3:SIGNED_S3': {'events_token': EVENTS_TOKEN, 'on_missing': 'forget'},
        **{f's3:{rse}': {'events_token': EVENTS_TOKEN} for rse in ('TOPICS_S3', 'OPEN_TOPICS_S3')},
    },
    ('carla', 'dirk'),
    ('ernest', 'fritz'),
)


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
