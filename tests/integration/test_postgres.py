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
