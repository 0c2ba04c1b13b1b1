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

"""Requests that the Rucio server signs, as the client sends them."""

import base64
import contextlib
import json
import os
import threading
from dataclasses import replace

import pytest
import requests
from botocore.auth import S3SigV4Auth
from botocore.credentials import ReadOnlyCredentials

from rucio.common.exception import (
    AccessDenied,
    CannotAuthenticate,
    InputValidationError,
    RSEAccessDenied,
    RSEOperationNotSupported,
    ServiceUnavailable,
    SourceNotFound,
)
from rucio.common.s3 import clients, objects, transfer
from rucio.common.s3.authorizer import Request
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from rucio.common.s3.remote import Remote
from servers.fake_s3 import Answer, error
from servers.signer import sign

BUCKET = 'user.alice'
KEY = Target('X', BUCKET, 'a/b c+é')
MiB = 1024**2


class Server:
    """A Rucio server that allows all, or says what a test wants. What goes there and back is JSON, as in reality."""

    identity = 'https://rucio.example.org def alice'

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.region = 'us-east-1'
        self.asked = []
        self.answers = []
        self._lock = threading.Lock()

    def credentials(self):
        return ReadOnlyCredentials('AKIDSERVER', 'secret-of-the-server', None)

    def sign_s3_requests(self, rse, asked):
        with self._lock:
            self.asked.append((rse, asked))
            answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer or json.loads(json.dumps(sign(self, json.loads(json.dumps(asked)), lambda *_: None)))


@pytest.fixture
def endpoint(s3):
    return Endpoint(
        rse='X',
        rse_id='',
        url=s3.url,
        checksum='md5',
        conditional_put=True,
        conditional_multipart=True,
        verifies_body=True,
        signature_guards=('copy', 'prefix'),
    )


@pytest.fixture
def signer(endpoint):
    return Server(endpoint)


@pytest.fixture
def connection(endpoint, signer):
    return clients.connect(endpoint, Remote(endpoint, signer, 'us-east-1'))


@pytest.fixture
def local(tmp_path):
    def make(size):
        path = tmp_path / 'local'
        path.write_bytes(os.urandom(size))
        return path

    return make


def test_every_operation_of_the_protocol_is_signed(connection, signer, s3, local, tmp_path):
    file = local(20 * MiB)
    transfer.upload(connection, str(file), KEY)
    transfer.download(connection, KEY, str(tmp_path / 'back'))
    assert (tmp_path / 'back').read_bytes() == file.read_bytes()
    transfer.copy(connection, KEY, KEY._replace(key='copy'))
    assert [each.key for each in objects.list_objects(connection.client, Target('X', BUCKET, 'a/'))] == [KEY.key]
    objects.delete(connection, KEY)
    assert objects.delete_many(connection, [KEY._replace(key='copy')]) == {KEY._replace(key='copy'): None}
    assert s3.buckets[BUCKET] == {}
    with pytest.raises(SourceNotFound):
        objects.delete(connection, KEY)
    assert all(request.headers['authorization'].startswith('AWS4-HMAC-SHA256 Credential=AKIDSERVER/') for request in s3.requests)
    assert len(signer.asked) == len(s3.requests)
    assert {'CreateMultipartUpload', 'UploadPart', 'CompleteMultipartUpload', 'CopyObject', 'DeleteObjects', 'HeadBucket'} <= set(s3.operations())


def test_what_is_sent_is_what_was_signed(connection, signer, s3):
    connection.client.put_object(Bucket=BUCKET, Key=KEY.key, Body=b'content')
    ((rse, (asked,)),) = signer.asked
    (request,) = s3.requests
    assert rse == 'X'
    assert asked['uri'] == s3.url + request.url
    assert {name: [request.headers[name.lower()]] for name in asked['headers']} == asked['headers']
    signed = request.headers['authorization'].partition('SignedHeaders=')[2].partition(',')[0].split(';')
    assert {'host', 'if-none-match', 'content-md5', 'x-amz-content-sha256', 'x-amz-date', 'x-forwarded-prefix', 'x-amz-copy-source-range'} <= set(signed)
    assert all(name in request.headers for name in signed)
    assert [name for name in request.headers if name.startswith('x-amz-') and name not in signed] == []


def test_the_body_stays_here_but_for_the_keys_of_a_deletion(connection, signer):
    connection.client.put_object(Bucket=BUCKET, Key='k', Body=b'content')
    connection.client.delete_objects(Bucket=BUCKET, Delete={'Objects': [{'Key': 'k'}]})
    assert ['body' in asked for _, (asked,) in signer.asked] == [False, True]


@pytest.fixture
def careful(endpoint, signer):
    """The same on a storage that does not verify bodies."""
    other = replace(endpoint, verifies_body=False)
    signer.endpoint = other
    return clients.connect(other, Remote(other, signer, 'us-east-1'))


def test_where_bodies_are_not_verified_objects_are_deleted_one_by_one(careful, signer, s3):
    targets = [KEY._replace(key=key) for key in ('a', 'b', 'missing')]
    assert objects.delete_many(careful, targets) == dict.fromkeys(targets)
    assert s3.operations() == ['DeleteObject'] * 3
    assert len(signer.asked) == 3


def test_of_many_objects_each_has_its_own_answer(careful, signer, s3):
    s3.fail('DeleteObject', error(403, 'AccessDenied'))
    signer.answers = [None, AccessDenied('not yours')]
    targets = [KEY._replace(key=str(number)) for number in range(4)]
    result = objects.delete_many(careful, targets)
    assert sorted(type(each).__name__ for each in result.values()) == ['NoneType', 'NoneType', 'RSEAccessDenied', 'RSEAccessDenied']
    assert any('not yours' in str(each) for each in result.values())


@pytest.mark.parametrize(
    ('said', 'code', 'message'),
    [
        (AccessDenied('not yours'), 'AccessDenied', 'RSE X: not yours'),
        (AccessDenied(), 'AccessDenied', 'RSE X: '),
        (InputValidationError(), 'InvalidURI', 'RSE X: '),
        (error(403, 'Locked', 'held'), 'Locked', 'held'),
        (Answer(500), '500', 'Internal Server Error'),
    ],
)
def test_each_failure_of_boto3_s_own_call_has_a_code_and_a_message(careful, signer, s3, said, code, message):
    if isinstance(said, Exception):
        signer.answers = [said]
    else:
        s3.fail('DeleteObject', *[said] * 9)
    (found,) = careful.client.delete_objects(Bucket=BUCKET, Delete={'Objects': [{'Key': 'k'}]})['Errors']
    assert (found['Key'], found['Code'], found['Message'][: len(message)]) == ('k', code, message)


def test_boto3_s_own_call_answers_as_the_storage_would(careful, s3):
    answer = careful.client.delete_objects(Bucket=BUCKET, Delete={'Objects': [{'Key': 'a'}, {'Key': 'b'}]})
    assert (answer['Deleted'], answer['Errors'], answer['ResponseMetadata']['HTTPStatusCode']) == ([{'Key': 'a'}, {'Key': 'b'}], [], 200)
    quiet = careful.client.delete_objects(Bucket=BUCKET, Delete={'Objects': [{'Key': 'a'}], 'Quiet': True})
    assert quiet['Deleted'] == []


def test_a_server_that_is_away_ends_the_deletion(careful, signer):
    signer.answers = [requests.ConnectionError('away')] * 2
    result = objects.delete_many(careful, [KEY, KEY._replace(key='b')])
    assert {type(each) for each in result.values()} == {ServiceUnavailable}


@pytest.mark.parametrize(('operation', 'more'), [('upload_part', {'UploadId': 'u', 'PartNumber': 1}), ('put_object', {})])
@pytest.mark.parametrize(('checksum', 'expected'), [('md5', 'Content-MD5'), ('crc32', 'x-amz-checksum-crc32')])
def test_over_https_the_length_and_the_checksum_of_a_body_are_signed_in_headers(endpoint, checksum, expected, operation, more):
    secure = Endpoint(rse='X', rse_id='', url='https://127.0.0.1:9', checksum=checksum, max_attempts=1, conditional_put=True)
    signer = Server(secure)
    connection = clients.connect(secure, Remote(secure, signer))
    with pytest.raises(Exception, match='Could not connect'):
        getattr(connection.client, operation)(Bucket=BUCKET, Key='k', Body=b'content', **more)
    (asked,) = signer.asked[-1][1]
    assert asked['headers']['X-Amz-Content-SHA256'] == ['UNSIGNED-PAYLOAD']
    assert asked['headers']['Content-Length'] == ['7']
    assert expected in asked['headers']


# Without boto3


def test_a_request_is_sent_as_the_server_signed_it(endpoint, signer, s3):
    way = Remote(endpoint, signer)
    given = {'x-amz-date': '20000101T000000Z', 'Authorization': 'local', 'Host': 'localhost', 'Range': 'bytes=0-1', 'Accept': '*/*', 'Content-Length': '0'}
    sent = way.authorise(Request('GET', f'{s3.url}/{BUCKET}/a', given, 'us-east-1'))
    ((_, (asked,)),) = signer.asked
    assert (asked['method'], asked['uri'], asked['region']) == ('GET', f'{s3.url}/{BUCKET}/a', 'us-east-1')
    assert set(asked['headers']) == {'Range', 'X-Amz-Content-SHA256'}
    assert 'body' not in asked
    assert sent.headers['Authorization'].startswith('AWS4-HMAC-SHA256 Credential=AKIDSERVER/')
    assert (sent.headers['Range'], sent.headers['Accept'], 'Host' in sent.headers) == ('bytes=0-1', '*/*', False)
    assert len({name.lower() for name in sent.headers}) == len(sent.headers)


def test_the_server_sees_the_body_of_a_deletion_alone(endpoint, signer, s3):
    way = Remote(endpoint, signer)
    body = b'<Delete><Object><Key>a</Key></Object></Delete>'
    way.authorise(Request('POST', f'{s3.url}/{BUCKET}?delete', {}, 'us-east-1', body=body))
    way.authorise(Request('PUT', f'{s3.url}/{BUCKET}/delete', {}, 'us-east-1', body=b'x'))
    for method, path in (('POST', f'{BUCKET}/a?uploads'), ('PUT', f'{BUCKET}?delete')):
        with contextlib.suppress(RSEAccessDenied):  # what it says does not matter here
            way.authorise(Request(method, f'{s3.url}/{path}', {}, 'us-east-1', body=b'x'))
    assert [asked.get('body') and base64.b64decode(asked['body']) for _, (asked,) in signer.asked] == [body, None, None, None]


@pytest.mark.parametrize(
    ('said', 'raised', 'words'),
    [
        (AccessDenied('not yours'), RSEAccessDenied, 'RSE X: not yours'),
        (InputValidationError('two keys in one'), InputValidationError, 'RSE X: two keys in one'),
        (AccessDenied(), RSEAccessDenied, 'RSE X: '),
        (InputValidationError(), InputValidationError, 'RSE X: '),
    ],
)
def test_the_server_s_refusal_is_raised(endpoint, signer, s3, said, raised, words):
    signer.answers = [said]
    with pytest.raises(raised, match=words):
        Remote(endpoint, signer).authorise(Request('GET', f'{s3.url}/{BUCKET}/a'))


@pytest.mark.parametrize(('method', 'counts'), [('PUT', True), ('GET', False)])
def test_how_much_is_stored_counts_towards_a_limit(endpoint, signer, s3, method, counts):
    Remote(endpoint, signer).authorise(Request(method, f'{s3.url}/{BUCKET}/a', {'content-length': '7'}, 'us-east-1', body=b'content'))
    ((_, (asked,)),) = signer.asked
    assert ('content-length' in asked['headers']) is counts


def test_the_region_is_what_the_server_says(endpoint, signer):
    connection = clients.connect(endpoint, Remote(endpoint, signer, 'mars'))
    connection.client.put_object(Bucket=BUCKET, Key='k', Body=b'')
    assert [asked['region'] for _, (asked,) in signer.asked] == ['mars']


def test_it_has_no_keys(connection, signer):
    assert connection.client._request_signer._credentials is None
    assert 'secret-of-the-server' not in repr(connection.authorizer) + connection.authorizer.identity


def test_each_attempt_has_a_signature_of_its_own(connection, signer, s3):
    s3.store(BUCKET, 'k', b'content')
    s3.fail('GetObject', error(503, 'SlowDown'), error(500, 'InternalError'))
    assert connection.client.get_object(Bucket=BUCKET, Key='k')['Body'].read() == b'content'
    assert len(signer.asked) == len(s3.requests) == 3


def test_it_does_not_depend_on_the_clock_of_this_machine(connection, s3, monkeypatch):
    """Were the client to sign, the storage would refuse it for its clock. The date is that of the server's answer."""
    monkeypatch.setattr(S3SigV4Auth, 'add_auth', lambda *_: pytest.fail('the client signs'))
    answer = {'Authorization': ['AWS4-HMAC-SHA256 Credential=A'], 'X-Amz-Date': ['20300101T000000Z'], 'X-Amz-Content-SHA256': ['0' * 64]}
    connection.authorizer._server.answers.append([{'uri': f'{s3.url}/{BUCKET}/k', 'headers': answer}])
    connection.client.put_object(Bucket=BUCKET, Key='k', Body=b'')
    assert s3.requests[-1].headers['x-amz-date'] == '20300101T000000Z'


@pytest.mark.parametrize(
    'case',
    [
        (AccessDenied('The request is not signed: not yours.'), RSEAccessDenied, 'RSE X: The request is not signed: not yours.'),
        (CannotAuthenticate('The token has expired.'), CannotAuthenticate, 'The token has expired.'),
        (requests.ConnectionError('refused'), ServiceUnavailable, 'RSE X: the Rucio server, which has to sign the requests, cannot be reached: refused'),
    ],
)
@pytest.mark.parametrize('operation', ['put', 'multipart', 'get', 'stat', 'exists', 'delete', 'list'])
def test_a_refusal_of_the_server_reaches_the_user_in_its_words_and_nothing_is_sent(connection, signer, s3, local, tmp_path, case, operation):
    said, raised, words = case
    signer.answers = [said] * 10
    run = {
        'put': lambda: transfer.upload(connection, str(local(10)), KEY),
        'multipart': lambda: transfer.upload(connection, str(local(20 * MiB)), KEY),
        'get': lambda: transfer.download(connection, KEY, str(tmp_path / 'back')),
        'stat': lambda: objects.stat(connection, KEY),
        'exists': lambda: objects.exists(connection, KEY),
        'delete': lambda: objects.delete(connection, KEY),
        'list': lambda: list(objects.list_objects(connection.client, Target('X', BUCKET))),
    }
    with pytest.raises(raised, match=words):
        run[operation]()
    assert s3.requests == []


def test_who_may_not_see_the_bucket_still_learns_that_a_file_is_missing(connection, signer):
    """The second question, whether there is such a bucket, is refused to those who were given a part of it."""
    signer.answers = [None, AccessDenied('not yours')]
    with pytest.raises(SourceNotFound):
        objects.delete(connection, KEY)
    assert len(signer.asked) == 2


def test_a_signature_for_something_else_is_not_used(connection, signer, s3):
    signer.answers.append([{'uri': f'{s3.url}/user.bob/k', 'headers': {}}])
    with pytest.raises(RSEOperationNotSupported, match='a different request'):
        connection.client.head_object(Bucket=BUCKET, Key='k')
    assert s3.requests == []


def test_clients_are_shared_by_server_and_rse(endpoint, signer):
    other = Server(endpoint)
    other.identity = 'https://rucio.example.org def bob'
    same = [clients.connect(endpoint, Remote(endpoint, signer)).client for _ in range(2)]
    assert same[0] is same[1]
    assert clients.connect(endpoint, Remote(endpoint, other)).client is not same[0]


def test_a_key_that_the_server_does_not_sign_for_stops_no_other(careful, signer, s3):
    """A key with /../ in it, among others."""
    for key in ('a', 'b', 'c'):
        s3.store(BUCKET, key, b'')
    signer.answers = [InputValidationError('the key has /../ in it')]
    answer = careful.client.delete_objects(Bucket=BUCKET, Delete={'Objects': [{'Key': key} for key in 'abc']})
    (failure,) = answer['Errors']
    assert (failure['Code'], failure['Message']) == ('InvalidURI', 'RSE X: the key has /../ in it')
    assert list(s3.buckets[BUCKET]) == [failure['Key']]
    assert sorted(each['Key'] for each in answer['Deleted']) == sorted({'a', 'b', 'c'} - {failure['Key']})
