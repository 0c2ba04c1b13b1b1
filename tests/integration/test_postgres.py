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

"""The same server on PostgreSQL: what an account without keys and without the attribute `admin` does in its first minutes."""

import pytest

from servers import postgres
from servers.cli import RucioError

REASON = postgres.missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=REASON or '')]


@pytest.fixture(scope='module')
def bucket(postgres_site):
    """Made by alice, with the dataset `run1`."""
    postgres_site.alice.rucio('s3', 'make-bucket', 'user.alice:run1', check=True)
    return 'postgres-user.alice'


def upload(user, tmp_path, name, dataset):
    file = tmp_path / 'file'
    file.write_text(name)
    done = user.rucio('upload', '--rse', 'SITE_S3', '--scope', 'user.alice', '--lfn', name, dataset, str(file))
    assert 'Successfully uploaded' in done.stdout + done.stderr, done.stdout + done.stderr


def downloaded(user, tmp_path, did):
    """The contents of what `rucio download` got."""
    folder = tmp_path / user.account
    user.rucio('download', '--dir', str(folder), did)
    return sorted(path.read_text() for path in folder.rglob('*') if path.is_file())


def test_make_bucket_twice(postgres_site, bucket, plain):
    postgres_site.alice.rucio('s3', 'make-bucket', 'user.alice:run1', check=True)
    assert bucket in [each['Name'] for each in plain.client().list_buckets()['Buckets']]
    assert postgres_site.alice.call('get_did', 'user.alice', 'run1')['type'] == 'DATASET'
    assert len(postgres_site.alice.call('list_did_rules', 'user.alice', 'run1')) == 1


def test_upload_and_download(postgres_site, bucket, plain, tmp_path):
    upload(postgres_site.alice, tmp_path, 'run1/a.txt', 'user.alice:run1')
    assert plain.client().get_object(Bucket=bucket, Key='run1/a.txt')['Body'].read() == b'run1/a.txt'
    assert downloaded(postgres_site.alice, tmp_path, 'user.alice:run1/a.txt') == ['run1/a.txt']


def test_share_and_unshare(postgres_site, bucket, tmp_path):
    alice, bob = postgres_site.alice, postgres_site.bob
    alice.rucio('s3', 'make-bucket', 'user.alice:shared', check=True)
    upload(alice, tmp_path, 'shared/b.txt', 'user.alice:shared')
    assert downloaded(bob, tmp_path / 'before', 'user.alice:shared/b.txt') == []
    alice.rucio('s3', 'share', 'user.alice:shared', '--with', 'bob', check=True)
    assert 'bob' in alice.rucio('s3', 'grants', 'user.alice:shared', check=True).stdout
    assert downloaded(bob, tmp_path / 'shared', 'user.alice:shared/b.txt') == ['shared/b.txt']
    alice.rucio('s3', 'unshare', 'user.alice:shared', '--with', 'bob', check=True)
    assert downloaded(bob, tmp_path / 'after', 'user.alice:shared/b.txt') == []


def test_a_foreign_scope_is_refused(postgres_site, tmp_path):
    replica = {'scope': 'user.alice', 'name': 'run1/x', 'bytes': 1, 'adler32': '00000001'}
    with pytest.raises(RucioError, match='AccessDenied'):
        postgres_site.bob.call('add_replicas', 'SITE_S3', [replica])


# Each thread has a connection of its own to the database, as the processes of several servers have.
SIGNERS = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from rucio.common.exception import InsufficientAccountLimit
from rucio.common.types import InternalAccount, InternalScope
from rucio.core.s3 import storages
from rucio.core.s3.auth import quotas
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

scopes, size, times = sys.argv[1].split(','), int(sys.argv[2]), int(sys.argv[3])
request = SimpleNamespace(length=size, part=None, operation='PutObject', headers={})
barrier = threading.Barrier(8, timeout=60)
with db_session(DatabaseOperationType.READ) as session:
    storage = storages.get_storage('SITE_S3', 'def', session=session)


def sign(number):
    signed = 0
    with db_session(DatabaseOperationType.READ) as session:
        session.connection()
        barrier.wait()
    for each in range(times):
        charges = [quotas.Charge(InternalAccount(scope[5:]), request, InternalScope(scope), f'{number}/{each}') for scope in scopes]
        try:
            with db_session(DatabaseOperationType.WRITE) as session:
                quotas.need_room(storage, charges, session=session)
            signed += 1
        except InsufficientAccountLimit:
            pass
    return signed


with ThreadPoolExecutor(8) as pool:
    print(*pool.map(sign, range(8)))
"""


def sign_at_once(site, scopes, size, times=1):
    """How many signatures each of eight workers gets."""
    done = site.root.server.run('python', '-c', SIGNERS, scopes, str(size), str(times), timeout=100)
    assert done.returncode == 0, done.stderr
    return [int(each) for each in done.stdout.split()]


@pytest.fixture
def limits(postgres_site):
    """Set the limits of alice and bob on the RSE, in bytes; they have none afterwards."""

    def change(number):
        postgres_site.root.server.rows('DELETE FROM s3_pending')
        postgres_site.root.calls(*(('set_local_account_limit', account, 'SITE_S3', number) for account in ('alice', 'bob')))

    yield change
    change(-1)


def pending(site):
    return dict(site.root.server.rows('SELECT account, SUM(bytes) FROM s3_pending GROUP BY account'))


@pytest.mark.parametrize('scopes', ['user.alice', 'user.alice,user.bob'])
def test_eight_servers_sign_together_no_more_than_the_limit(postgres_site, limits, scopes):
    """Each one fits alone, and three do: the row of the limit is locked until what is signed is in the table."""
    limits(3500)
    assert sorted(sign_at_once(postgres_site, scopes, 1000)) == [0] * 5 + [1] * 3
    assert pending(postgres_site) == {scope[5:]: 3000 for scope in scopes.split(',')}


def test_eight_servers_fill_a_limit_exactly(postgres_site, limits):
    limits(100_000)
    assert sum(sign_at_once(postgres_site, 'user.alice', 1000, times=20)) == 100
    assert pending(postgres_site) == {'alice': 100_000}


def test_a_limit_on_several_rses_holds_for_eight_servers(postgres_site, limits):
    limits(-1)
    postgres_site.root.call('set_global_account_limit', 'alice', 'SITE_S3', 3500)
    try:
        assert sum(sign_at_once(postgres_site, 'user.alice', 1000)) == 3
    finally:
        postgres_site.root.call('delete_global_account_limit', 'alice', 'SITE_S3')
