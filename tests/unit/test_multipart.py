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

"""A multipart upload that is completed twice, or cannot be aborted: what is asked, and what is said. With a storage: test_transfer.py."""

import hashlib
import threading
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from rucio.common.exception import ServiceUnavailable
from rucio.common.s3 import deadlines, multipart
from rucio.common.s3.errors import Target
from rucio.common.s3.objects import ObjectInfo

TARGET = Target('X', 'bucket', 'key')
ETAGS = [hashlib.md5(part).hexdigest() for part in (b'1', b'2')]
WHOLE = hashlib.md5(b''.join(map(bytes.fromhex, ETAGS))).hexdigest() + '-2'
COMPLETE = {'UploadId': 'u', 'MultipartUpload': {'Parts': [{'ETag': f'"{ETAGS[0]}"'}, {'ETag': ETAGS[1]}]}}
SIZE = 7


def refusal(status):
    return ClientError({'ResponseMetadata': {'HTTPStatusCode': status}}, 'whatever')


class Client:
    """Notes what it is asked for, and raises or returns what a test wants."""

    def __init__(self, **answers):
        self.answers, self.asked, self.stops = answers, [], []
        self.meta = 'of the client'

    def __getattr__(self, name):
        def call(**arguments):
            self.asked.append((name, arguments))
            self.stops.append(getattr(deadlines._current, 'stop', None))
            answer = self.answers.get(name, {'done': name})
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


@pytest.fixture
def upload(monkeypatch):
    """Call it with the answers of the storage, and with what HEAD tells (None: nothing)."""

    def make(head=None, left_over=None, stop=None, **answers):
        client = Client(**answers)
        connection = SimpleNamespace(client=client)

        def stat(asked, target):
            assert (asked is connection, target) == (True, TARGET)
            client.asked.append(('stat', {}))
            if head is None:
                raise ServiceUnavailable('no')
            return head

        monkeypatch.setattr(multipart.objects, 'stat', stat)
        return multipart.Multipart(connection, stop or threading.Event(), TARGET, SIZE, left_over), client.asked

    return make


def test_what_succeeds_is_passed_on(upload):
    made, asked = upload()
    assert made.complete_multipart_upload(**COMPLETE) == {'done': 'complete_multipart_upload'}
    assert made.upload_part_copy(CopySourceIfMatch='"e"', PartNumber=1) == {'done': 'upload_part_copy'}
    made.upload_part_copy(CopySourceIfMatch='', PartNumber=2)
    made.upload_part_copy(PartNumber=3)
    made.abort_multipart_upload(UploadId='u')
    assert asked == [
        ('complete_multipart_upload', COMPLETE),
        ('upload_part_copy', {'CopySourceIfMatch': '"e"', 'PartNumber': 1}),
        ('upload_part_copy', {'PartNumber': 2}),
        ('upload_part_copy', {'PartNumber': 3}),
        ('abort_multipart_upload', {'UploadId': 'u'}),
    ]
    assert made.is_gone is False


@pytest.mark.parametrize(
    ('status', 'parts', 'head', 'is_done', 'is_gone'),
    [
        (404, None, ObjectInfo(SIZE, f'"{WHOLE}"'), True, True),
        (404, None, ObjectInfo(SIZE, f'W/"{WHOLE}"'), True, True),
        (404, None, ObjectInfo(SIZE + 1, f'"{WHOLE}"'), False, True),
        (404, None, ObjectInfo(SIZE, '"another"'), False, True),
        (404, None, None, False, True),
        (412, refusal(404), ObjectInfo(SIZE, f'"{WHOLE}"'), True, True),
        (412, refusal(403), ObjectInfo(SIZE, f'"{WHOLE}"'), False, False),
        (412, ReadTimeoutError(endpoint_url='http://s3'), ObjectInfo(SIZE, f'"{WHOLE}"'), False, False),
        (412, {}, ObjectInfo(SIZE, f'"{WHOLE}"'), False, False),  # it is still there: the object is somebody else's
        (403, refusal(404), ObjectInfo(SIZE, f'"{WHOLE}"'), False, False),
        (500, refusal(404), ObjectInfo(SIZE, f'"{WHOLE}"'), False, False),
    ],
)
def test_whether_an_upload_was_complete_already(upload, caplog, status, parts, head, is_done, is_gone):
    caplog.set_level('INFO')
    made, asked = upload(head, complete_multipart_upload=refusal(status), list_parts=parts)
    if is_done:
        assert made.complete_multipart_upload(**COMPLETE) == {}
        assert "RSE X: bucket 'bucket', key 'key' was complete already" in caplog.text
    else:
        with pytest.raises(ClientError):
            made.complete_multipart_upload(**COMPLETE)
    assert made.is_gone is is_gone
    expected = ['complete_multipart_upload', *(['list_parts'] if status == 412 else []), *(['stat'] if is_gone else [])]
    assert [name for name, _ in asked] == expected
    for name, arguments in asked:
        assert name != 'list_parts' or arguments == {'Bucket': 'bucket', 'Key': 'key', 'UploadId': 'u', 'MaxParts': 1}


def test_without_etags_that_are_md5s_nothing_is_recognised(upload):
    made, _ = upload(ObjectInfo(SIZE, '"None"'), complete_multipart_upload=refusal(404))
    with pytest.raises(ClientError):
        made.complete_multipart_upload(UploadId='u', MultipartUpload={'Parts': [{'ETag': '"no-md5"'}]})


@pytest.mark.parametrize(('failure', 'told'), [(refusal(404), False), (refusal(403), True), (ReadTimeoutError(endpoint_url='http://s3'), True)])
def test_what_could_not_be_aborted_is_told(upload, failure, told):
    left = []
    for left_over in (lambda *of: left.append(of), None):
        made, _ = upload(left_over=left_over, abort_multipart_upload=failure)
        with pytest.raises(type(failure)):
            made.abort_multipart_upload(Bucket='b', Key='k', UploadId='u')
    assert left == ([('b', 'k', 'u')] if told else [])


def test_all_but_the_abort_can_be_stopped(upload):
    stop = threading.Event()
    made, _ = upload(stop=stop, complete_multipart_upload=refusal(412), list_parts={})
    with pytest.raises(ClientError):
        made.complete_multipart_upload(**COMPLETE)
    made.upload_part_copy(PartNumber=1)
    made.abort_multipart_upload(UploadId='u')
    assert made._client.stops == [stop, stop, stop, None]
    assert made.meta == 'of the client'
