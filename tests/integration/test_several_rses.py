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

"""Two storages behind one Rucio server: which one is meant, and what is said when one of them hangs, is dead or has no keys.

All by the stock command of a user, on real S3 servers.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from servers.cli import RucioCli, RucioError, add_s3_rse, add_user
from servers.process import until
from servers.seaweedfs import SeaweedFS
from servers.team import ok, refused, rows, s3_call

pytestmark = pytest.mark.long

FIRST, SECOND = 'FIRST_S3', 'SECOND_S3'
HERE = ('user.ludmila', 'run1')


@pytest.fixture(scope='module')
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with SeaweedFS(tmp_path_factory.mktemp('second'), sts=True) as server:
        yield server


@pytest.fixture(scope='module')
def ludmila(team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory, sts: SeaweedFS, second: SeaweedFS) -> RucioCli:
    """She has a quota on both RSEs: her scope's bucket with `run1` (2 files) on the second only, `run2` on both."""
    user = add_user(team_root, tmp_path_factory.mktemp('ludmila'), 'ludmila', scopes=['user.ludmila'], attributes=())
    for rse, storage in ((FIRST, sts), (SECOND, second)):
        rse_id = add_s3_rse(team_root, rse, storage, accounts=['ludmila'], settings={'role_arn': storage.role_arn})
        team_root.server.set_rse_keys(rse_id, storage.access_key, storage.secret_key)
    ok(user.rucio('s3', 'make-bucket', 'user.ludmila:run1', '--rse', SECOND))
    for name in ('a', 'b'):
        second.client().put_object(Bucket='user.ludmila', Key=f'run1/{name}', Body=b'12')
    return user


@pytest.fixture(scope='module')
def preferring(ludmila: RucioCli, tmp_path_factory: pytest.TempPathFactory) -> RucioCli:
    """Gina with `default_rse` in her rucio.cfg: the first RSE."""
    password = ludmila._config['client']['password']
    return RucioCli(tmp_path_factory.mktemp('preferring'), ludmila.server, 'ludmila', 'ludmila', password, {'s3': {'default_rse': FIRST}})


@contextmanager
def hanging(storage: SeaweedFS) -> Iterator[None]:
    """Accept connections, and say nothing."""
    assert storage._process
    os.kill(storage._process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(storage._process.pid, signal.SIGCONT)


# Which one


def test_where_the_bucket_is_comes_before_a_default(preferring: RucioCli) -> None:
    """make-bucket named the second RSE: everything that follows means it, whatever the default says."""
    assert SECOND in ok(preferring.rucio('s3', 'make-bucket', 'user.ludmila:run3'))
    assert s3_call(preferring, 'get_did_credentials', *HERE)['rse'] == SECOND
    assert ok(preferring.rucio('s3', 'url', 'user.ludmila:run1', '--for', 'mc')) == 'second_s3/user.ludmila/run1/\n'
    assert ['user.ludmila:run1', '2', '4'] in rows(preferring.rucio('s3', '-R', 'du', 'user.ludmila'))


def test_a_refusal_names_the_choices_and_a_default_chooses(ludmila: RucioCli, preferring: RucioCli, team_root: RucioCli) -> None:
    team_root.call('add_scope', 'ludmila', 'data.ludmila')
    message = refused(ludmila.rucio('s3', 'make-bucket', 'data.ludmila'))
    assert f'There are several S3 RSEs for scope data.ludmila: name one of {FIRST}, {SECOND}' in message
    assert f'name one of {FIRST}, {SECOND}' in refused(ludmila.rucio('s3', 'url', 'data.ludmila:new'))
    assert f'on {FIRST}' in ok(preferring.rucio('s3', 'make-bucket', 'data.ludmila'))
    # A default does not make a second bucket of a scope that has one, of which the catalogue does not know.
    team_root.call('add_scope', 'ludmila', 'more.ludmila')
    ok(ludmila.rucio('s3', 'make-bucket', 'more.ludmila', '--rse', SECOND))
    assert f'on {SECOND}' in ok(preferring.rucio('s3', 'make-bucket', 'more.ludmila:new'))
    (ludmila.directory / 'files').mkdir()
    (ludmila.directory / 'files' / 'x').write_bytes(b'123')
    assert f'data.ludmila:new on {FIRST}' in ok(ludmila.rucio('s3', 'upload', 'files', 'data.ludmila:new'))


def test_ls_and_du_show_what_is_on_all_of_them(ludmila: RucioCli, sts: SeaweedFS) -> None:
    """Objects on the RSE that the catalogue does not know of were not counted."""
    sts.client().create_bucket(Bucket='user.ludmila')
    sts.client().put_object(Bucket='user.ludmila', Key='run1/c', Body=b'1')
    try:
        listed = rows(ludmila.rucio('s3', '-R', 'ls', 'user.ludmila'))
        assert ['user.ludmila:run1', '1', '1', 'DATASET', FIRST] in listed
        assert ['user.ludmila:run1', '2', '4', 'DATASET', SECOND] in listed
        assert f'total of {FIRST}, {SECOND}' in ok(ludmila.rucio('s3', 'du', 'user.ludmila'))
    finally:
        sts.client().delete_object(Bucket='user.ludmila', Key='run1/c')
        sts.client().delete_bucket(Bucket='user.ludmila')


# One that cannot be asked


def _all_say_what_is_missing(ludmila: RucioCli, rse: str, why: str) -> None:
    began = time.monotonic()
    for command in (['ls'], ['du'], ['credentials', '--file', 'keys'], ['exec', '--', sys.executable, '-c', 'import boto3; boto3.client("s3").list_buckets()']):
        done = ludmila.rucio('s3', *command)
        assert done.returncode == 1, (command, done.stdout, done.stderr)
        assert 'Traceback' not in done.stderr
        assert rse in done.stderr, (command, done.stderr)
        assert why in done.stderr, (command, done.stderr)
        assert command[0] != 'du' or f'without {rse}' in done.stdout
    assert not (ludmila.directory / 'run').exists()
    with pytest.raises(RucioError, match=f'incomplete.*{rse}'):
        s3_call(ludmila, 'list_buckets')
    assert time.monotonic() - began < 90


def test_one_that_hangs(ludmila: RucioCli, sts: SeaweedFS) -> None:
    """A storage that is stopped: `ls` and `du` showed the other's buckets as if they were all, exit code 0."""
    with hanging(sts):
        _all_say_what_is_missing(ludmila, FIRST, 'does not answer')
    # Each of the server's processes looks by itself whether it is back.
    until(lambda: all(ludmila.rucio('s3', 'ls').returncode == 0 for _ in range(6)))


def test_one_without_keys(ludmila: RucioCli, team_root: RucioCli, second: SeaweedFS) -> None:
    add_s3_rse(team_root, 'KEYLESS_S3', second, accounts=['ludmila'], settings={'bucket_prefix': 'keyless-'})
    try:
        _all_say_what_is_missing(ludmila, 'KEYLESS_S3', 'has no keys for this RSE')
    finally:
        team_root.call('delete_local_account_limit', 'ludmila', 'KEYLESS_S3')
    ok(ludmila.rucio('s3', 'ls'))  # where she has no quota, it is nothing to her


def test_one_whose_settings_are_invalid(ludmila: RucioCli, team_root: RucioCli, second: SeaweedFS) -> None:
    add_s3_rse(team_root, 'INVALID_S3', second, accounts=['ludmila'], settings={'bucket_prefix': 'invalid-', 'region': 'eu central 1'})
    try:
        _all_say_what_is_missing(ludmila, 'INVALID_S3', 'eu central 1')
    finally:
        team_root.call('delete_local_account_limit', 'ludmila', 'INVALID_S3')
        team_root.call('delete_protocols', 'INVALID_S3', second.scheme)
    ok(ludmila.rucio('s3', 'ls'))


def test_one_that_is_dead(ludmila: RucioCli, team_root: RucioCli, second: SeaweedFS) -> None:
    second.stop()
    _all_say_what_is_missing(ludmila, SECOND, 'Check the RSE')
    # Whether the bucket of a new scope is on it cannot be known: no second one is made elsewhere.
    team_root.call('add_scope', 'ludmila', 'late.ludmila')
    message = refused(ludmila.rucio('s3', 'make-bucket', 'late.ludmila'))
    assert f'({SECOND} could not be asked whether the bucket is there): name one of {FIRST}, {SECOND}' in message
