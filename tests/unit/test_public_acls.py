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

"""That public ACLs are ignored: where, how often, and what is done where a storage refuses."""

from types import SimpleNamespace
from unittest import mock

import pytest
from botocore.exceptions import ClientError

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.exception import RSEOperationNotSupported, ServiceUnavailable
from rucio.common.s3.endpoint import Endpoint
from rucio.core.s3.buckets import creation, public_acls

OFF = dict.fromkeys(('BlockPublicAcls', 'IgnorePublicAcls', 'BlockPublicPolicy', 'RestrictPublicBuckets'), False)


def refused(code, status):
    return ClientError({'Error': {'Code': code}, 'ResponseMetadata': {'HTTPStatusCode': status}}, 'PublicAccessBlock')


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setattr(public_acls, '_done', {})
    made = mock.Mock()
    made.get_public_access_block.side_effect = refused('NoSuchPublicAccessBlockConfiguration', 404)
    return made


@pytest.fixture
def storage(client):
    def make(**settings):
        endpoint = Endpoint('X', 'x', 'http://127.0.0.1:9', **{'provider': 'ceph', 'ignore_public_acls': True} | settings)
        return SimpleNamespace(rse='X', rse_id='x', endpoint=endpoint, connection=lambda _: SimpleNamespace(client=client))

    return make


def asked(client):
    return [call[0] for call in client.method_calls]


@pytest.mark.parametrize('there', [None, OFF, OFF | {'BlockPublicPolicy': True}])
def test_it_is_set_once_and_the_rest_stays(storage, client, there):
    if there:
        client.get_public_access_block.side_effect = [{'PublicAccessBlockConfiguration': there}]
    for _ in range(3):
        public_acls.ignore(storage(), 'b')
    client.put_public_access_block.assert_called_once_with(Bucket='b', PublicAccessBlockConfiguration=(there or OFF) | {'IgnorePublicAcls': True})
    assert len(client.method_calls) == 2


def test_what_is_ignored_already_takes_one_request(storage, client):
    client.get_public_access_block.side_effect = [{'PublicAccessBlockConfiguration': OFF | {'IgnorePublicAcls': True}}]
    public_acls.ignore(storage(), 'b')
    assert asked(client) == ['get_public_access_block']


def test_other_storages_are_not_asked(storage, client):
    public_acls.ignore(storage(ignore_public_acls=False), 'b')
    assert not client.method_calls


@pytest.mark.parametrize(('code', 'status'), [('AccessDenied', 403), ('NotImplemented', 501)])
def test_where_it_is_refused_nobody_gets_keys_for_writing_but_the_bucket_is_made(storage, client, code, status):
    client.put_public_access_block.side_effect = refused(code, status)
    with pytest.raises(RSEOperationNotSupported, match=r"RSE X, bucket 'b': no keys for writing.*PutBucketPublicAccessBlock"):
        public_acls.ignore(storage(), 'b')
    creation._ignore_public_acls(storage(), 'b')
    assert not public_acls._done


def test_a_bucket_that_is_not_there_is_looked_at_again(storage, client):
    client.get_public_access_block.side_effect = refused('NoSuchBucket', 404)
    public_acls.ignore(storage(), 'b')
    public_acls.ignore(storage(), 'b')
    assert asked(client) == ['get_public_access_block'] * 2


def test_each_bucket_is_looked_at_once_an_hour(storage, client, monkeypatch):
    """It may have been replaced. A forked process looks itself."""
    now = 1000
    monkeypatch.setattr(public_acls.time, 'monotonic', lambda: now)
    for later, count in ((0, 1), (3599, 1), (3600, 2)):
        now = 1000 + later
        public_acls.ignore(storage(), 'b')
        assert asked(client).count('get_public_access_block') == count
    public_acls.ignore(storage(), 'c')
    monkeypatch.setattr(public_acls.os, 'getpid', lambda: 1)
    public_acls.ignore(storage(), 'b')
    other = storage()
    other.rse_id = 'y'
    public_acls.ignore(other, 'b')
    assert asked(client).count('get_public_access_block') == 5


def test_not_more_than_some_buckets_are_remembered(storage, client, monkeypatch):
    now = 1000
    monkeypatch.setattr(public_acls, 'MAX_CACHED', 2)
    monkeypatch.setattr(public_acls.time, 'monotonic', lambda: now)
    for bucket in 'ab':
        public_acls.ignore(storage(), bucket)
    now += 3600
    public_acls.ignore(storage(), 'a')
    public_acls.ignore(storage(), 'c')
    assert [bucket for _, _, bucket in public_acls._done] == ['a', 'c'], 'the one that was looked at longest ago is forgotten'


def test_a_storage_that_does_not_answer_is_no_refusal(storage, client):
    client.get_public_access_block.side_effect = refused('InternalError', 500)
    with pytest.raises(ServiceUnavailable, match="RSE X: public_access_block of bucket 'b'"):
        public_acls.ignore(storage(), 'b')
