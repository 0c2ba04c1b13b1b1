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

"""The attacker owns a scope, or writes to a bucket: names that Rucio's download joins to a directory as they are, so that others write elsewhere.

The schema of the policy package and the protocol's `get` are tried by tests/unit/test_policy_package.py and test_protocols_s3.py.
"""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from rucio.common.s3 import address, clients, transfer
from rucio.common.s3.credentials import Anonymous
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from servers.cli import RucioCli, RucioError, add_s3_rse
from servers.fake_s3 import FakeS3
from servers.team import Team, refused

ESCAPES = [
    *('../x', '../../x', 'ds/../../../../x', 'a/..', 'a/../b', '..', '.', './x', 'a/./b', 'a/.', '//etc/x', '///x', 'a/b/../../../c', '..//x'),
    *('a\0', '\0', 'a/\0/b'),
]
HARMLESS = [
    'a',
    'a/b',
    '...',
    'a/...',
    '.hidden',
    'a/.hidden/b',
    '..a',
    'a..',
    'a/..b',
    'a/b..',
    'a.b/c',
    '/a',
    'a//b',
    'a\\..\\b',
    'a/\u2025/b',
    'a/\uff0e\uff0e/b',
]


@pytest.mark.parametrize('name', ESCAPES)
def test_names_that_leave_the_directory_are_known(name):
    """What os.path.join makes of them lies outside, or is the directory itself, or no path at all."""
    assert address.leaves_directory(name)


@pytest.mark.parametrize('name', HARMLESS)
def test_names_that_stay_inside_are_left_alone(tmp_path, name):
    """Dots at other places, backslashes and characters that only look like dots are names like others on POSIX. Rucio takes one slash off."""
    assert not address.leaves_directory(name)
    assert Path(os.path.normpath(tmp_path / name.removeprefix('/'))).is_relative_to(tmp_path)


def test_a_download_writes_nothing_outside(root: RucioCli, tmp_path: Path, unique: str):
    """Was got: a file of the attacker's, with his content, anywhere where the admin who downloads may write (Ceph, and any storage that has such
    keys). The name is in the catalogue here as it may be from before: root of a server without the policy package registers it."""
    name = f'{unique}/../../../outside'
    with FakeS3() as storage:
        storage.store(unique, name, b'x')
        place = SimpleNamespace(scheme='http', hostname='127.0.0.1', port=storage.port, region='us-east-1')
        add_s3_rse(root, f'{unique.upper()}_S3', place, settings={'auth': 'anonymous'})
        file = {'scope': unique, 'name': name, 'bytes': 1, 'adler32': '00790079'}
        root.calls(('add_scope', 'root', unique), ('add_replicas', f'{unique.upper()}_S3', [file]))
        done = root.rucio('download', '--dir', str(tmp_path / 'a' / 'b'), f'{unique}:{name}')
        bulk = [root.rucio('s3', 'download', f'{unique}:{each}', str(tmp_path / 'a' / 'b')) for each in (f'{unique}/*', unique)]
    assert 'leave the directory' in done.stdout + done.stderr
    assert ['has a name that cannot be a path' in refused(each) for each in bulk] == [True, True]
    assert [path for path in tmp_path.rglob('*') if path.is_file()] == []


def test_an_owner_cannot_register_such_names(signed_team: Team, unique: str):
    """Was got: the replica and its DID, by `POST /replicas` with the policy package (the RSE's storage does not matter)."""
    owner, scope, name = signed_team.owner, signed_team.scope, f'{unique}/../../../../x'
    file = {'scope': scope, 'name': name, 'bytes': 1, 'adler32': '00000001'}
    for call in (
        ('add_replicas', signed_team.rse, [file]),
        ('add_did', scope, name, 'DATASET'),
        ('add_replicas', signed_team.rse, [file | {'name': f'{unique}/.'}]),
    ):
        with pytest.raises(RucioError, match='Problem validating'):
            owner.calls(call)
    assert 'leave the directory' in refused(owner.rucio('s3', 'make-bucket', f'{scope}:{name}'))


def test_a_link_in_the_download_directory_is_replaced_not_followed(tmp_path: Path):
    """Would be got: the attacker shares the download directory, and plants `X` as a link to a file of the victim's."""
    victim = tmp_path / 'authorized_keys'
    victim.write_text('ssh')
    dest = tmp_path / 'shared' / 'file'
    dest.parent.mkdir()
    dest.symlink_to(victim)
    with FakeS3() as storage:
        storage.store('user.eve', 'file', b'evil')
        connection = clients.connect(Endpoint(rse='X', rse_id='', url=storage.url, max_attempts=1), Anonymous())
        transfer.download(connection, Target('X', 'user.eve', 'file'), str(dest))
    assert victim.read_text() == 'ssh'
    assert not dest.is_symlink()
    assert dest.read_text() == 'evil'
    assert [each.name for each in dest.parent.iterdir()] == ['file']
