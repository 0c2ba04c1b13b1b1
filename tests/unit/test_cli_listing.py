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

"""`rucio s3 ls` and `du`: what the storage does not tell is not left out silently."""

from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from rucio.cli.s3 import buckets
from rucio.common.exception import AccessDenied, ServiceUnavailable
from rucio.common.s3 import clients, credentials
from servers.fake_s3 import RESTORED, Answer

BROKEN_OFF = Answer(200, b'<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>run1/a</Key><Size>1</Size></Contents></ListBucketResult>')


ODD_SIZE = Answer(
    200,
    b'<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>run1/a</Key><Size>many</Size></Contents>'
    b'<Contents><Key>run1/b</Key><Size>7</Size><LastModified>2026-11-28T00:00:00Z</LastModified></Contents></ListBucketResult>',
)


class Server(SimpleNamespace):
    """The Rucio server: one place, and the replicas run1/a and run1/b of the dataset run1."""

    account = 'alice'

    def locate(self, _scope, name):
        return [{'rse': 'X', 'bucket': 'user.alice', 'key': name, 'url': ''}]

    def list_buckets(self, *_):
        return []

    def bucket_client(self, *_, **__):
        return self.connection.client

    def list_dids(self, *_, **__):
        return [{'name': 'run1', 'did_type': 'DATASET'}]

    def list_replicas(self, *_, **__):
        return [{'scope': 'user.alice', 'name': f'run1/{name}', 'bytes': 7, 'states': {'X': 'AVAILABLE'}} for name in 'ab']


class SharedServer(Server):
    """The Rucio server for bob, with whom run1 is shared, and parts of it once more."""

    account = 'bob'
    shares = (('user.alice', 'run1', 'attribute'), ('user.alice', 'run1/deep', 'account'), ('user.bob', '', 'own'), ('user.carol', 'run1', 'account'))

    def locate(self, scope, name):
        if name != 'run1':
            raise AccessDenied(f'Account bob may not read {scope}.')
        return super().locate(scope, name)

    def list_usable(self):
        return {'shares': [{'scope': scope, 'name': name, 'kind': kind} for scope, name, kind in self.shares]}


def run(monkeypatch, endpoint, command, did, kind=Server):
    server = kind(connection=clients.connect(endpoint(), credentials.Static('AKIDOFTHETESTS', 'secret')))
    monkeypatch.setattr(buckets, 's3_client', lambda _: server)
    ctx = Context(client=server)
    return CliRunner().invoke(command, [did], obj=ctx)


class Context(SimpleNamespace):
    """What Rucio hands to its commands."""

    def get(self, name):
        return {'robot': True}.get(name)


@pytest.mark.parametrize(('command', 'row'), [(buckets.du, 'user.alice:run1\t2\t3\n'), (buckets.ls, 'user.alice:run1\t2\t3\tDATASET\n')])
def test_of_a_scope_only_what_is_shared_is_shown_each_object_once(s3, endpoint, monkeypatch, command, row):
    s3.store('user.alice', 'run1/a', b'1')
    s3.store('user.alice', 'run1/deep/b', b'12')
    s3.store('user.alice', 'run2/c', b'123')
    result = run(monkeypatch, endpoint, command, 'user.alice', SharedServer)
    assert (result.stdout, result.exit_code) == (row, 0)
    assert result.stderr == 'Only what is shared with bob is shown of user.alice.\n'


def test_a_scope_of_which_nothing_is_shared_is_refused(s3, endpoint, monkeypatch):
    result = run(monkeypatch, endpoint, buckets.ls, 'user.dave', SharedServer)
    assert isinstance(result.exception, AccessDenied)


@pytest.mark.parametrize('command', [buckets.du, buckets.ls], ids=['du', 'ls'])
def test_a_listing_that_breaks_off_is_not_taken_for_the_end(s3, endpoint, monkeypatch, command):
    s3.store('user.alice', 'run1/a', b'1')
    s3.fail('ListObjectsV2', BROKEN_OFF)
    result = run(monkeypatch, endpoint, command, 'user.alice')
    assert isinstance(result.exception, ServiceUnavailable)
    assert 'an incomplete listing that cannot be continued' in str(result.exception)
    assert not result.stdout


def test_archived_objects_are_told_in_the_catalogue_s_column(s3, endpoint, monkeypatch):
    s3.store('user.alice', 'run1/a', b'1234567', storage_class='DEEP_ARCHIVE')
    s3.store('user.alice', 'run1/b', b'12', storage_class='GLACIER')
    s3.store('user.alice', 'run1/c', b'1', storage_class='GLACIER')
    s3.store('user.alice', 'run1/d', b'1', storage_class='GLACIER', restored=RESTORED)
    result = run(monkeypatch, endpoint, buckets.ls, 'user.alice:run1')
    assert [line.split('\t')[2] for line in result.stdout.splitlines()] == [
        'AVAILABLE, archived (DEEP_ARCHIVE)',
        'AVAILABLE, but 7 bytes, archived (GLACIER)',
        'no, archived (GLACIER)',
        'no',
    ]


@pytest.mark.parametrize(
    ('command', 'did', 'shown'),
    [
        (buckets.du, 'user.alice', 'user.alice:run1\t2\t7\n'),
        (buckets.ls, 'user.alice', 'user.alice:run1\t2\t7\tDATASET\n'),
        (buckets.ls, 'user.alice:run1', 'user.alice:run1/a\tunknown\tAVAILABLE\nuser.alice:run1/b\t7\tAVAILABLE\n'),
    ],
    ids=['du', 'ls of a scope', 'ls of a collection'],
)
def test_a_size_that_the_storage_does_not_tell_is_told_and_stops_nothing(s3, endpoint, monkeypatch, command, did, shown):
    s3.fail('ListObjectsV2', ODD_SIZE)
    result = run(monkeypatch, endpoint, command, did)
    assert (result.stdout, result.exit_code) == (shown, 1)
    assert result.stderr == (
        'WARNING The output is incomplete: the size of user.alice:run1/a is missing. '
        'RSE X lists no valid size or date for it: tell the operator of the storage.\n'
    )
