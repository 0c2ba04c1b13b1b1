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


"""Small objects by one request without botocore's operations: with the same guards, and left to botocore when it fails."""

import threading
import zlib

import pytest
from botocore.exceptions import ClientError
from s3transfer.exceptions import CancelledError

from rucio.common.exception import FileConsistencyMismatch, FileReplicaAlreadyExists, SourceNotFound
from rucio.common.s3 import botocore_internals, clients, credentials, direct, transfer
from rucio.common.s3.content import Checksums
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from servers.fake_s3 import Answer, Cut, Flipped, Longer, error

BUCKET, KEY = 'user.alice', 'dir/a b+c'
TARGET = Target('X', BUCKET, KEY)
KEYS = credentials.Static('AKIDOFTHETESTS', 'secret')
BODY = b'content of a small file'
KNOWN = Checksums(adler32=f'{zlib.adler32(BODY):08x}', size=len(BODY))


class Renewed(credentials.Static):
    """Keys of which another attempt has new ones."""

    def refused(self, sent, code):
        return code == 'ExpiredToken'


@pytest.fixture
def connection(s3):
    def make(authorizer=KEYS, **settings):
        usual = {'rse': 'X', 'rse_id': '1', 'url': s3.url, 'checksum': 'crc32', 'conditional_put': True, 'max_attempts': 3}
        return clients.connect(Endpoint(**usual | settings), authorizer)

    return make


@pytest.fixture
def by_client(monkeypatch):
    """What botocore's operations did in place of it, by their names."""
    asked = []
    inner = botocore_internals.before_parameters

    def before_parameters(client, operation, handler):
        inner(client, operation, handler)
        if not any(each is client for each in watched):
            watched.append(client)
            inner(client, '', lambda name, *_: asked.append(name))

    watched = []
    monkeypatch.setattr(botocore_internals, 'before_parameters', before_parameters)
    monkeypatch.setattr(clients, '_shared', {})
    return asked


@pytest.fixture
def send(tmp_path):
    def upload(made, key=KEY):
        path = tmp_path / 'source'
        path.write_bytes(BODY)
        return transfer.upload(made, str(path), TARGET._replace(key=key))

    return upload


@pytest.fixture
def fetch(tmp_path):
    def download(made, known=KNOWN, stop=None):
        path = tmp_path / 'copy'
        transfer.download(made, TARGET, str(path), expected=known, stop=stop)
        return path.read_bytes()

    return download


@pytest.mark.parametrize('checksum', ['crc32', 'md5', 'none'])
def test_a_small_file_goes_and_comes_without_botocores_operations(connection, s3, by_client, send, fetch, checksum):
    made = connection(checksum=checksum, requester_pays=True)
    send(made)
    assert fetch(made) == s3.content(BUCKET, KEY) == BODY
    assert s3.operations() == ['PutObject', 'GetObject']
    assert not by_client
    put, get = (request.headers for request in s3.requests)
    assert put['if-none-match'] == '*'
    assert put['x-amz-request-payer'] == get['x-amz-request-payer'] == 'requester'
    assert 'rucio-s3-request/' in put['user-agent']
    assert ('x-amz-checksum-crc32' in put, 'content-md5' in put) == (checksum == 'crc32', checksum == 'md5')


def test_a_storage_that_is_not_trusted_with_conditions_gets_a_head_before(connection, s3, by_client, send):
    send(connection(conditional_put=False))
    assert s3.operations() == ['HeadObject', 'PutObject']
    assert 'PutObject' in by_client


def test_an_object_that_exists_is_found_by_one_request(connection, s3, send):
    s3.store(BUCKET, KEY, b'first')
    with pytest.raises(FileReplicaAlreadyExists):
        send(connection())
    assert s3.operations() == ['PutObject']


def test_what_is_missing_is_found_by_one_request(connection, s3, fetch):
    with pytest.raises(SourceNotFound):
        fetch(connection())
    assert s3.operations() == ['GetObject']


@pytest.mark.parametrize('answer', [error(503, 'SlowDown'), error(429, 'TooManyRequests'), error(500, 'InternalError')], ids=['503', '429', '500'])
def test_a_busy_storage_is_asked_as_often_as_botocore_would(connection, s3, send, answer):
    s3.fail('PutObject', *[answer] * 2)
    send(connection())
    assert s3.operations() == ['PutObject'] * 3
    s3.fail('PutObject', *[answer] * 3)
    with pytest.raises(Exception, match='bucket'):
        send(connection(), 'other')
    assert s3.operations().count('PutObject') == 6


def test_new_keys_are_taken_by_botocores_client(connection, s3, by_client, send):
    made = connection(Renewed('AKIDOFTHETESTS', 'secret'))
    for number in range(9):
        s3.fail('PutObject', error(403, 'ExpiredToken'))
        send(made, f'{number}')
    send(made)
    assert by_client == ['PutObject'] * 9
    assert made.direct.can_put


def test_a_storage_that_refuses_such_requests_gets_no_more_of_them(connection, s3, by_client, send, fetch):
    s3.lacks = {'PutObject': 'if-none-match'}
    made = connection()
    for number in range(5):
        send(made, f'{number}')
    assert not made.direct.can_put
    assert by_client.count('PutObject') == 5
    assert [request.operation for request in s3.requests[-2:]] == ['HeadObject', 'PutObject']


@pytest.mark.parametrize('refusals', [2, 3])
def test_a_success_in_between_counts(connection, s3, send, refusals):
    made = connection()
    for number in range(refusals):
        s3.fail('PutObject', error(400, 'InvalidArgument'))
        send(made, f'{number}')
    assert made.direct.can_put == (refusals == 2)


@pytest.mark.parametrize('fault', [Cut(), Flipped(), Longer()], ids=['cut', 'flipped', 'longer'])
def test_an_answer_that_is_not_the_object_is_asked_for_again(connection, s3, by_client, fetch, fault):
    s3.store(BUCKET, KEY, BODY)
    s3.fail('GetObject', fault)
    assert fetch(connection()) == BODY
    assert by_client == ['GetObject']


def test_a_content_that_is_not_what_was_stored_is_not_taken(connection, s3, by_client, fetch):
    """An Adler-32 that agrees is not enough where the storage says that the CRC-32 was another one."""
    s3.store(BUCKET, KEY, BODY, crc32='AAAAAA==')
    with pytest.raises(FileConsistencyMismatch, match='but AAAAAA== was stored with it'):
        fetch(connection())


@pytest.mark.parametrize('operation', ['put', 'get'])
def test_nothing_is_sent_after_a_stop(connection, s3, operation):
    stop, made = threading.Event(), connection().direct
    stop.set()
    with pytest.raises(CancelledError):
        made.put(TARGET, BODY, stop) if operation == 'put' else made.get(TARGET, stop)
    assert not s3.requests


def test_a_stop_ends_the_pause_before_another_attempt(connection, s3, monkeypatch):
    stop = threading.Event()
    monkeypatch.setattr(direct, '_pause', lambda _: stop.set() or 3600)
    s3.fail('PutObject', error(503, 'SlowDown'))
    with pytest.raises(CancelledError):
        connection().direct.put(TARGET, BODY, stop)
    assert s3.operations() == ['PutObject']


def test_the_last_error_says_how_often_it_was_tried(connection, s3):
    s3.fail('PutObject', error(500, 'InternalError'), error(412, 'PreconditionFailed'))
    with pytest.raises(ClientError) as failed:
        connection().direct.put(TARGET, BODY, threading.Event())
    assert failed.value.response['ResponseMetadata']['RetryAttempts'] == 1


def test_a_200_without_an_etag_is_no_success(connection, s3):
    s3.fail('PutObject', Answer(200, b'<html/>'))
    with pytest.raises(Exception, match='it has no ETag'):
        connection().direct.put(TARGET, BODY, threading.Event())


@pytest.mark.parametrize(('addressing', 'expected'), [('path', 'https://s3.example.org/alice'), ('virtual', 'https://alice.s3.example.org')])
def test_the_url_of_a_bucket_is_botocores(connection, addressing, expected):
    made = connection(url='https://s3.example.org', addressing=addressing)
    assert botocore_internals.bucket_url(made.client, 'alice') == expected


def test_there_is_no_short_way_with_signed_urls(connection):
    assert connection(None).direct is None
