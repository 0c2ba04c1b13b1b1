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


"""Uploads that never overwrite, whatever the storage does with If-None-Match."""

from io import BytesIO
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from rucio.common.exception import FileReplicaAlreadyExists, RSEOperationNotSupported
from rucio.common.s3 import clients, credentials, objects, transfer
from rucio.common.s3.errors import Target, status_of, translated
from servers.boto import copies_conditionally
from servers.fake_s3 import Lost, error

BUCKET = 'user.alice'
KEYS = credentials.Static('AKIDOFTHETESTS', 'a-secret')
PART = 5 * 1024**2


def put(connection, key='k', body=b'content'):
    with translated('put', Target('X', BUCKET, key)):
        connection.client.put_object(Bucket=BUCKET, Key=key, Body=body)


def upload(connection, key, body):
    transfer.upload_stream(connection, BytesIO(body), len(body), Target('X', BUCKET, key))


def conditions(s3, operation):
    return [request.headers.get('if-none-match') for request in s3.requests if request.operation == operation]


def test_every_put_is_conditional(endpoint, s3):
    connection = clients.connect(endpoint(), KEYS)
    for key in 'abc':
        put(connection, key)
    assert s3.operations() == ['PutObject'] * 3
    assert conditions(s3, 'PutObject') == ['*'] * 3


def test_a_put_over_an_object_leaves_it(endpoint, s3):
    s3.store(BUCKET, 'k', b'first')
    with pytest.raises(FileReplicaAlreadyExists):
        put(clients.connect(endpoint(), KEYS))
    assert s3.content(BUCKET, 'k') == b'first'


def test_where_the_condition_is_ignored_a_look_before_has_to_do(endpoint, s3):
    s3.conditional_put = False
    s3.store(BUCKET, 'k', b'first')
    connection = clients.connect(endpoint(conditional_put=False), KEYS)
    with pytest.raises(FileReplicaAlreadyExists):
        put(connection)
    assert s3.content(BUCKET, 'k') == b'first'
    put(connection, 'new')
    assert s3.operations() == ['HeadObject', 'HeadObject', 'PutObject']


def test_a_look_that_is_refused_is_no_permission_to_write(endpoint, s3):
    s3.fail('HeadObject', error(403, 'AccessDenied'))
    with pytest.raises(Exception, match='403'):
        put(clients.connect(endpoint(conditional_put=False), KEYS))
    assert s3.operations() == ['HeadObject']


# A storage that does not implement the header


@pytest.mark.parametrize('can', [True, False])
def test_a_storage_that_answers_501_takes_uploads_once_it_is_known(endpoint, s3, can, caplog):
    s3.lacks['PutObject'] = 'if-none-match'
    connection = clients.connect(endpoint(conditional_put=can), KEYS)
    for key in 'ab':
        put(connection, key)
    s3.store(BUCKET, 'c', b'first')
    with pytest.raises(FileReplicaAlreadyExists):
        put(connection, 'c')
    assert [s3.content(BUCKET, key) for key in 'abc'] == [b'content', b'content', b'first']
    assert conditions(s3, 'PutObject') == ['*', None, None]
    assert s3.operations()[-3:] == ['HeadObject', 'PutObject', 'HeadObject']
    assert caplog.text.count("Leave it out of the setting 'if_none_match'.") == 1


def test_what_is_there_when_the_header_is_refused_stays(endpoint, s3):
    s3.lacks['PutObject'] = 'if-none-match'
    s3.store(BUCKET, 'k', b'first')
    with pytest.raises(FileReplicaAlreadyExists):
        put(clients.connect(endpoint(), KEYS))
    assert s3.content(BUCKET, 'k') == b'first'


def test_an_upload_in_parts_is_sent_only_once(endpoint, s3):
    s3.lacks['CompleteMultipartUpload'] = 'if-none-match'
    connection = clients.connect(endpoint(multipart_threshold=PART, multipart_chunksize=PART), KEYS)
    upload(connection, 'k', b'a' * (PART + 1))
    assert len(s3.content(BUCKET, 'k')) == PART + 1
    assert conditions(s3, 'CompleteMultipartUpload') == ['*', None]
    assert s3.operations().count('UploadPart') == 2
    with pytest.raises(FileReplicaAlreadyExists):
        upload(connection, 'k', b'b' * (PART + 1))
    assert s3.content(BUCKET, 'k')[:1] == b'a'


def test_what_is_not_implemented_for_another_reason_is_not_learnt(endpoint, s3):
    s3.fail('PutObject', error(501, 'NotImplemented'), error(501, 'NotImplemented'))
    connection = clients.connect(endpoint(), KEYS)
    with pytest.raises(RSEOperationNotSupported):
        put(connection)
    put(connection)
    assert conditions(s3, 'PutObject') == ['*', None, '*']


@pytest.mark.parametrize(
    ('said', 'learnt'),
    [
        (error(400, 'NotImplemented'), True),
        (error(405, 'InvalidArgument', 'If-None-Match is not supported'), True),
        (error(400, 'InvalidArgument'), False),
        (error(403, 'AccessDenied', 'If-None-Match'), False),
        (error(412, 'PreconditionFailed', 'If-None-Match'), False),
    ],
)
def test_only_an_explicit_answer_is_one(endpoint, s3, said, learnt):
    s3.fail('PutObject', said)
    connection = clients.connect(endpoint(), KEYS)
    if learnt:
        put(connection)
    else:
        with pytest.raises(Exception, match='the storage answered'):
            put(connection)
    put(connection, 'other')
    assert conditions(s3, 'PutObject') == (['*', None, None] if learnt else ['*', '*'])


def test_a_signed_url_is_not_used_for_a_look(endpoint, s3):
    s3.lacks['PutObject'] = 'if-none-match'
    connection = clients.connect(endpoint(), None)
    connection.authorizer.offer('write', Target('X', BUCKET, 'k'), f'{s3.url}/{BUCKET}/k?X-Amz-Signature=1')
    put(connection)
    assert s3.operations() == ['PutObject', 'PutObject']


@pytest.mark.parametrize('sent', [(), ('put', 'copy'), ('multipart',)])
def test_the_header_is_sent_where_the_setting_says_so(endpoint, s3, sent):
    connection = clients.connect(endpoint(if_none_match=sent, multipart_threshold=PART, multipart_chunksize=PART), KEYS)
    put(connection)
    upload(connection, 'parts', b'a' * (PART + 1))
    connection.client.copy_object(Bucket=BUCKET, Key='copy', CopySource={'Bucket': BUCKET, 'Key': 'k'})
    seen = {'put': 'PutObject', 'multipart': 'CompleteMultipartUpload', 'copy': 'CopyObject'}
    for name, operation in seen.items():
        known = name != 'copy' or copies_conditionally()
        assert conditions(s3, operation) == ['*' if name in sent and known else None]
    assert s3.operations().count('HeadObject') == 3 - len({'put', 'multipart'} & set(sent))


# A storage that compares it with the source of a copy


@pytest.mark.skipif(not copies_conditionally(), reason='this boto3 has no If-None-Match of CopyObject')
def test_a_copy_that_is_refused_because_of_its_source_says_so(endpoint, s3):
    s3.copy_condition_of_source = True
    s3.store(BUCKET, 'k', b'content')
    connection = clients.connect(endpoint(), KEYS)
    source, target = Target('X', BUCKET, 'k'), Target('X', BUCKET, 'new')
    with pytest.raises(RSEOperationNotSupported, match="Leave 'copy' out of the setting 'if_none_match'"):
        transfer.copy(connection, source, target)
    transfer.copy(clients.connect(endpoint(if_none_match=('put', 'multipart')), KEYS), source, target)
    with pytest.raises(FileReplicaAlreadyExists):
        transfer.copy(connection, source, target)
    assert s3.content(BUCKET, 'new') == b'content'


def test_an_object_is_renamed_nevertheless(endpoint, s3):
    s3.copy_condition_of_source = True
    s3.store(BUCKET, 'k', b'content')
    s3.store(BUCKET, 'there', b'other')
    connection, source = clients.connect(endpoint(), KEYS), Target('X', BUCKET, 'k')
    with pytest.raises(FileReplicaAlreadyExists):
        transfer.move(connection, source, Target('X', BUCKET, 'there'))
    transfer.move(connection, source, Target('X', BUCKET, 'new'))
    assert {key: each.body for key, each in s3.buckets[BUCKET].items()} == {'new': b'content', 'there': b'other'}


# Headers of downloads


@pytest.mark.parametrize(('header', 'operation'), [('x-amz-checksum-mode', 'HeadObject'), ('x-amz-checksum-mode', 'GetObject'), ('if-match', 'GetObject')])
def test_a_storage_without_a_header_of_downloads_is_read_nevertheless(endpoint, s3, tmp_path, header, operation):
    s3.lacks[operation] = header
    body = b'content' * PART
    s3.store(BUCKET, 'k', body)
    connection = clients.connect(endpoint(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=1), KEYS)
    for name in 'ab':
        transfer.download(connection, Target('X', BUCKET, 'k'), str(tmp_path / name))
        assert (tmp_path / name).read_bytes() == body
    refused = [request for request in s3.requests if request.operation == operation and header in request.headers]
    assert len(refused) == 1  # then it is known


def test_without_if_match_another_version_is_still_noticed(endpoint, s3):
    s3.lacks['GetObject'] = 'if-match'
    s3.store(BUCKET, 'k', b'second')
    client = clients.connect(endpoint(), KEYS).client
    answer = client.get_object(Bucket=BUCKET, Key='k', IfMatch='"first"')
    with pytest.raises(ClientError, match='found by its ETag'):
        objects.need_version(answer, '"first"')


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that botocore waited before it sent a request again."""
    made = []
    monkeypatch.setattr('botocore.endpoint.time', SimpleNamespace(sleep=made.append))
    return made


def test_what_is_sent_without_a_header_is_sent_at_once(endpoint, s3, pauses):
    s3.lacks |= {'PutObject': 'if-none-match', 'GetObject': 'if-match', 'HeadObject': 'x-amz-checksum-mode'}
    client = clients.connect(endpoint(), KEYS).client
    client.put_object(Bucket=BUCKET, Key='k', Body=b'content')
    client.get_object(Bucket=BUCKET, Key='k', IfMatch=s3.buckets[BUCKET]['k'].etag)
    client.head_object(Bucket=BUCKET, Key='k', ChecksumMode='ENABLED')
    assert pauses == [0, 0, 0]


@pytest.mark.parametrize('second', [error(404, 'NoSuchKey'), error(403, 'AccessDenied'), error(300, 'X'), error(501, 'NotImplemented')])
def test_a_header_is_only_left_out_for_good_if_that_helped(endpoint, s3, second):
    s3.store(BUCKET, 'k', b'content')
    client = clients.connect(endpoint(), KEYS).client
    for call, operation, header, more in (
        (client.get_object, 'GetObject', 'if-match', {'IfMatch': s3.buckets[BUCKET]['k'].etag}),
        (client.head_object, 'HeadObject', 'x-amz-checksum-mode', {'ChecksumMode': 'ENABLED'}),
        (client.put_object, 'PutObject', 'if-none-match', {'Body': b''}),
    ):
        s3.requests.clear()
        s3.fail(operation, error(501, 'NotImplemented'), second)
        keys = ['new', 'new', 'another'] if operation == 'PutObject' else ['k'] * 3
        with pytest.raises(ClientError):
            call(Bucket=BUCKET, Key=keys[0], **more)
        for key in keys[1:]:
            call(Bucket=BUCKET, Key=key, **more)
        assert [header in each.headers for each in s3.requests if each.operation == operation] == [True, False, True, True]


@pytest.mark.parametrize(
    ('said', 'again'),
    [
        (error(400, 'InvalidArgument', 'The header If-Match is not supported'), True),
        (error(405, 'MethodNotAllowed', 'x-amz-checksum-mode?'), True),
        (error(404, 'NoSuchKey', 'if-match'), False),
        (error(400, 'InvalidArgument', 'If-None-Match'), False),
        (error(400, 'InvalidArgument'), False),
        (error(416, 'NotImplemented'), True),
    ],
)
def test_a_read_is_sent_again_if_the_storage_names_a_header(endpoint, s3, said, again):
    s3.store(BUCKET, 'k', b'content')
    client = clients.connect(endpoint(), KEYS).client
    s3.fail('GetObject', said)
    if again:
        assert client.get_object(Bucket=BUCKET, Key='k', IfMatch=s3.buckets[BUCKET]['k'].etag)['Body'].read() == b'content'
    else:
        with pytest.raises(ClientError):
            client.get_object(Bucket=BUCKET, Key='k', IfMatch=s3.buckets[BUCKET]['k'].etag)
    assert len(s3.requests) == 1 + again
    assert all('x-amz-checksum-mode' not in each.headers and 'if-match' not in each.headers for each in s3.requests[1:])


def test_an_existing_object_is_told_as_by_the_storage(endpoint, s3):
    s3.store(BUCKET, 'k', b'first')
    with pytest.raises(ClientError, match='found by a HEAD') as refused:
        clients.connect(endpoint(conditional_put=False), KEYS).client.put_object(Bucket=BUCKET, Key='k', Body=b'')
    assert (status_of(refused.value), refused.value.response['Error']['Code'], refused.value.operation_name) == (412, 'PreconditionFailed', 'PutObject')


def test_a_lost_answer_says_nothing_of_headers(endpoint, s3):
    s3.fail('PutObject', Lost())
    with pytest.raises(FileReplicaAlreadyExists):  # by the first attempt
        put(clients.connect(endpoint(max_attempts=2), KEYS))
    assert conditions(s3, 'PutObject') == ['*', '*']


def test_what_has_no_optional_header_is_not_sent_again(endpoint, s3):
    client = clients.connect(endpoint(), KEYS).client
    s3.fail('ListObjectsV2', error(501, 'NotImplemented'))
    with pytest.raises(ClientError, match='NotImplemented'):
        client.list_objects_v2(Bucket=BUCKET)
    assert s3.operations() == ['ListObjectsV2']


def test_a_read_whose_answer_is_lost_is_sent_again_as_it_was(endpoint, s3):
    s3.store(BUCKET, 'k', b'content')
    s3.fail('GetObject', Lost())
    client = clients.connect(endpoint(max_attempts=2), KEYS).client
    assert client.get_object(Bucket=BUCKET, Key='k', IfMatch=s3.buckets[BUCKET]['k'].etag)['Body'].read() == b'content'
    assert ['if-match' in each.headers for each in s3.requests] == [True, True]
