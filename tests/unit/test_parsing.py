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

"""Answers that a storage must not send: read in bounds, and with botocore's exceptions. Over HTTP: tests/attacks/test_hostile_storages.py."""

import io
from http.client import LineTooLong
from types import SimpleNamespace

import pytest
from botocore.exceptions import ConnectionClosedError, HTTPClientError, ReadTimeoutError
from urllib3.exceptions import ProtocolError
from urllib3.exceptions import ReadTimeoutError as URLLib3ReadTimeoutError

from rucio.common.s3 import parsing
from rucio.common.s3.parsing import UnreadableAnswerError

REQUEST = SimpleNamespace(url='http://s3/b')


class Raw:
    """A response of urllib3 that yields these, or raises."""

    def __init__(self, *pieces):
        self.pieces, self.closed = pieces, False

    def stream(self):
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def close(self):
        self.closed = True


def test_a_body_is_all_of_its_pieces_up_to_a_length(monkeypatch):
    monkeypatch.setattr(parsing, 'LONGEST_ANSWER', 3 * 1024**2)
    piece = b'x' * 1024**2
    raw = Raw(piece, piece, piece)
    assert (parsing._content(REQUEST, raw), raw.closed) == (piece * 3, False)
    raw = Raw(piece, piece, piece, b'y')
    with pytest.raises(UnreadableAnswerError, match='it is longer than 3 MiB'):
        parsing._content(REQUEST, raw)
    assert raw.closed


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (URLLib3ReadTimeoutError(None, 'u', 'm'), ReadTimeoutError),
        (ProtocolError('m'), ConnectionClosedError),
        (LineTooLong('m'), HTTPClientError),
        (OSError('m'), HTTPClientError),
    ],
)
def test_what_breaks_is_botocores(error, expected):
    with pytest.raises(expected) as raised:
        parsing._content(REQUEST, Raw(b'x', error))
    assert (type(raised.value), raised.value.__cause__) == (expected, error)


@pytest.mark.parametrize(
    ('status', 'is_object', 'read'), [(200, False, True), (200, True, False), (299, True, False), (300, True, True), (404, True, True), (500, False, True)]
)
def test_all_but_objects_is_read_in_bounds(monkeypatch, status, is_object, read):
    limited, contents, seen = [], [], []
    monkeypatch.setattr(parsing.botocore_internals, 'limit_reads', lambda *given: limited.append(given))
    monkeypatch.setattr(parsing.botocore_internals, 'set_content', lambda _, content: contents.append(content))
    answer = SimpleNamespace(status_code=status, raw=Raw(b'a', b'b'))

    def send(request):
        seen.append((request.stream_output, parsing.deadlines.seconds_left()))
        return answer

    client = SimpleNamespace(_endpoint=SimpleNamespace(http_session=SimpleNamespace(send=send)))
    parsing.bound(client, 60)
    request = SimpleNamespace(url='http://s3/b', stream_output=is_object)
    assert client._endpoint.http_session.send(request) is answer
    assert (contents, request.stream_output) == ([b'ab'] if read else [], is_object)
    assert limited == [(client, parsing.deadlines.seconds_left, parsing.deadlines.is_stopped)]
    ((unread, left),) = seen
    assert unread  # by botocore, which would read all
    assert 0 < left <= 60
    assert parsing.deadlines.seconds_left() is None


def test_lines_between_chunks_are_bounded(monkeypatch):
    monkeypatch.setattr(parsing, 'LONGEST_LINE', 4)
    lines = parsing._Lines(io.BytesIO(b'abc\nabcd\n123456789'))
    assert lines.readline() == b'abc\n'
    with pytest.raises(LineTooLong):
        lines.readline()
    assert lines.readline(0) == b''
    assert lines.readline(9) == b'123456789'[-9:]
    assert lines.tell() == 18


@pytest.mark.parametrize(
    'body',
    [
        b'<!DOCTYPE x>',
        b'<a><!ENTITY b "c"></a>',
        b'<a>\0</a>',
        b'<?xml version="1.0" encoding="utf-16"?>',
        b" \n<?xml version='1.0' ENCODING = 'utf-7'?>",
    ],
)
def test_tricks(body):
    with pytest.raises(UnreadableAnswerError, match='entities or an unusual encoding'):
        parsing._refuse_tricks(body)


@pytest.mark.parametrize('body', [b'', b'<a/>', b'<?xml version="1.0" encoding="UTF-8"?><a/>', b"<?xml encoding='us-ascii'?>", None, io.BytesIO(b'<!DOCTYPE')])
def test_no_tricks(body):
    parsing._refuse_tricks(body)


@pytest.mark.parametrize(
    ('name', 'answer', 'body', 'status', 'reason'),
    [
        ('PutObjectOutput', {'ETag': 'x'}, b'', 200, None),
        ('PutObjectOutput', {}, b'', 200, 'it has no ETag'),
        ('PutObjectOutput', {}, b'', 500, None),
        ('PutObjectOutput', {}, b'', 300, None),
        ('PutObjectOutput', {}, b'<Error>', 200, None),
        ('UploadPartOutput', {'ETag': 'x'}, b'', 200, None),
        ('UploadPartOutput', {}, b'', 200, 'it has no ETag'),
        ('UploadPartCopyOutput', {'CopyPartResult': {'ETag': 'x'}}, b'', 200, None),
        ('UploadPartCopyOutput', {'CopyPartResult': 'x'}, b'', 200, 'it has no CopyPartResult.ETag'),
        ('CopyObjectOutput', {'CopyObjectResult': {'LastModified': 'x'}}, b'', 200, None),
        ('CopyObjectOutput', {'CopyObjectResult': {'ETag': 'x'}}, b'', 200, None),
        ('CopyObjectOutput', {}, b'', 200, 'it has no CopyObjectResult.ETag or CopyObjectResult.LastModified'),
        ('CompleteMultipartUploadOutput', {'Key': 'x'}, b'', 200, None),
        ('CompleteMultipartUploadOutput', {'ETag': 'x'}, b'', 200, None),
        ('CompleteMultipartUploadOutput', {'Location': 'x'}, b'', 200, None),
        ('CompleteMultipartUploadOutput', {}, b'', 200, 'it has no ETag or Key or Location'),
        ('CreateMultipartUploadOutput', {'UploadId': 'x'}, b'', 200, None),
        ('CreateMultipartUploadOutput', {}, b'', 200, 'it has no UploadId'),
        ('DeleteObjectsOutput', {}, b'<DeleteResult/>', 200, None),
        ('DeleteObjectsOutput', {}, b'<html/>', 200, 'it has no DeleteResult'),
        ('ListObjectsV2Output', {}, b'', 200, 'it has no ListBucketResult'),
        ('ListBucketsOutput', {}, b'', 200, 'it has no ListAllMyBucketsResult'),
        ('ListMultipartUploadsOutput', {}, b'', 200, 'it has no ListMultipartUploadsResult'),
        ('ListObjectVersionsOutput', {}, b'', 200, 'it has no ListVersionsResult'),
        ('GetBucketLifecycleConfigurationOutput', {}, b'', 200, 'it has no LifecycleConfiguration'),
        ('NotificationConfiguration', {}, b' \n', 200, 'it is empty'),
        ('GetObjectLockConfigurationOutput', {}, b'', 200, 'it is empty'),
        ('GetPublicAccessBlockOutput', {}, b'', 200, 'it is empty'),
        ('GetPublicAccessBlockOutput', {}, b'<x/>', 200, None),
        ('HeadObjectOutput', {}, b'', 200, None),
    ],
)
def test_what_an_answer_needs(name, answer, body, status, reason):
    response = {'body': body, 'status_code': status}
    if reason is None:
        assert parsing._parsed(lambda: answer, response, name) == answer
    else:
        with pytest.raises(UnreadableAnswerError) as error:
            parsing._parsed(lambda: answer, response, name)
        assert str(error.value) == f'the answer cannot be read ({reason})'


def test_an_error_has_a_code_and_a_message_that_are_text():
    answer = parsing._parsed(lambda: {'Error': {'Code': {'a': 1}, 'Message': 'm'}}, {'body': b'', 'status_code': 400}, 'x')
    assert answer == {'Error': {'Code': '', 'Message': 'm'}}
    assert parsing._parsed(lambda: {'Error': {}}, {'body': b'', 'status_code': 400}, 'x') == {'Error': {'Code': '', 'Message': ''}}


def test_what_botocore_cannot_parse_is_named_without_its_content():
    def read():
        raise KeyError('a secret')

    with pytest.raises(UnreadableAnswerError, match=r'\(KeyError\)') as error:
        parsing._parsed(read, {'body': b'', 'status_code': 200}, 'x')
    assert error.value.__suppress_context__
