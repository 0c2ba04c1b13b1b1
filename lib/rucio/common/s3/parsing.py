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

"""Read the answers of storages safely: limit their size, and refuse invalid ones.

botocore reads listings and errors of any length, expands entities of XML, and raises a ValueError or KeyError if a
number is invalid. A storage may be broken, or controlled by somebody who wants to exhaust a server's memory.
"""

import re
from http.client import LineTooLong
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ConnectionClosedError, HTTPClientError, ReadTimeoutError
from urllib3.exceptions import ProtocolError  # type: ignore[import-untyped,unused-ignore] # only urllib3 2 is typed
from urllib3.exceptions import ReadTimeoutError as URLLib3ReadTimeoutError

from . import botocore_internals, deadlines, urllib3_internals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from botocore.awsrequest import AWSPreparedRequest
    from botocore.session import Session

__all__ = ['LONGEST_ANSWER', 'UnreadableAnswerError', 'bound', 'strict']

LONGEST_ANSWER = 32 * 1024**2  # bytes of anything but an object: 1000 of the longest keys are 4 MiB
LONGEST_LINE = 65536  # bytes, for the size of a chunk; as in http.client

_ENCODING = re.compile(rb'\s*<\?xml[^>]*encoding\s*=\s*["\'](?!(?:utf-8|us-ascii|iso-8859-1)["\'])', re.IGNORECASE)

# A successful answer has at least one of these fields, by its name in botocore's model. A proxy, a login page or a
# broken server also answers 200, but has stored nothing.
_NEEDED: 'Mapping[str, tuple[str, ...]]' = {
    'PutObjectOutput': ('ETag',),
    'CreateMultipartUploadOutput': ('UploadId',),
    'UploadPartOutput': ('ETag',),
    'UploadPartCopyOutput': ('CopyPartResult.ETag',),
    'CompleteMultipartUploadOutput': ('ETag', 'Key', 'Location'),  # Ceph 16 sends an empty ETag
    'CopyObjectOutput': ('CopyObjectResult.ETag', 'CopyObjectResult.LastModified'),
}
# These have at least this element: nothing failed, or there are no buckets, rules, versions, uploads or objects.
_ELEMENTS = {
    'DeleteObjectsOutput': 'DeleteResult',
    'GetBucketLifecycleConfigurationOutput': 'LifecycleConfiguration',
    'ListBucketsOutput': 'ListAllMyBucketsResult',
    'ListMultipartUploadsOutput': 'ListMultipartUploadsResult',
    'ListObjectVersionsOutput': 'ListVersionsResult',
    'ListObjectsV2Output': 'ListBucketResult',
}
# Settings that are read, completed and written back: without any body they were not read. Storages without such a
# setting answer with an error, or (rclone, Ceph 16) as to a request about the bucket.
_NOT_EMPTY = ('NotificationConfiguration', 'GetObjectLockConfigurationOutput', 'GetPublicAccessBlockOutput')


class UnreadableAnswerError(BotoCoreError):
    """A storage sent an invalid answer."""

    fmt = 'the answer cannot be read ({reason})'


def strict(session: 'Session') -> 'Session':
    """Let the clients of a session raise :exc:`UnreadableAnswerError` if botocore cannot parse an answer.

    :param session: The session.
    :returns: The session.
    """
    botocore_internals.check_answers(session, _parsed)
    return session


def bound(client: Any, seconds: float) -> None:
    """Limit the answers that a client reads to :data:`LONGEST_ANSWER` bytes, and to some seconds.

    A storage that sends a byte now and then would otherwise never run into the time-out for a read. The content of
    objects is not limited.

    :param client: The client.
    :param seconds: The time for an answer, from the request to its last byte.
    """
    botocore_internals.limit_reads(client, deadlines.seconds_left, deadlines.is_stopped)

    def bounded(send: 'Callable[[Any], Any]', request: 'AWSPreparedRequest') -> Any:
        with deadlines.within(seconds):
            with botocore_internals.unread(request):
                answer = send(request)
            if answer.status_code >= 300 or not request.stream_output:  # an object has the latter
                botocore_internals.set_content(answer, _content(request, answer.raw))
        return answer

    botocore_internals.wrap_send(client, bounded)


def _parsed(read: 'Callable[[], Any]', response: 'Mapping[str, Any]', name: str) -> Any:
    try:
        _refuse_tricks(response['body'])
        answer = _with_plain_error(read())
        _need_fields(answer, response, name)
        return answer  # noqa: TRY300 - what is raised above is caught below
    except UnreadableAnswerError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the answer is invalid
        # Without its cause, which contains the whole answer.
        raise UnreadableAnswerError(reason=type(error).__name__) from None


def _with_plain_error(answer: Any) -> Any:
    """Return an answer with the error's code as text: it may contain elements, or be missing."""
    error = answer.get('Error') if isinstance(answer, dict) else None
    if isinstance(error, dict):
        error.update({name: '' for name in ('Code', 'Message') if not isinstance(error.get(name), str)})
    return answer


def _need_fields(answer: Any, response: 'Mapping[str, Any]', name: str) -> None:
    """Refuse a successful answer that lacks what S3 always sends with it."""
    body = response['body']
    if response['status_code'] >= 300 or (isinstance(body, bytes) and b'<Error' in body):
        return  # S3 also sends errors with the status 200
    if name in _ELEMENTS and _ELEMENTS[name].encode() not in body:
        raise UnreadableAnswerError(reason=f'it has no {_ELEMENTS[name]}')
    if name in _NOT_EMPTY and not body.strip():
        raise UnreadableAnswerError(reason='it is empty')
    fields = _NEEDED.get(name)
    if fields and not any(_field(answer, each) for each in fields):
        raise UnreadableAnswerError(reason=f'it has no {" or ".join(fields)}')


def _field(answer: Any, path: str) -> Any:
    for name in path.split('.'):
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer


def _refuse_tricks(body: Any) -> None:
    """Refuse entities, which expand to gigabytes, and encodings, which can hide them: S3 uses neither."""
    if isinstance(body, bytes) and (
        b'<!DOCTYPE' in body or b'<!ENTITY' in body or b'\0' in body or _ENCODING.match(body)
    ):
        raise UnreadableAnswerError(reason='its XML has entities or an unusual encoding')


def _content(request: 'AWSPreparedRequest', raw: Any) -> bytes:
    """Read the body as botocore's session does, and with its exceptions."""
    try:
        return _body(raw)
    except UnreadableAnswerError:
        raise
    except URLLib3ReadTimeoutError as error:
        raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
    except ProtocolError as error:
        raise ConnectionClosedError(endpoint_url=request.url, error=error, request=request) from error
    except Exception as error:
        raise HTTPClientError(error=error) from error


def _body(raw: Any) -> bytes:
    body = bytearray()
    urllib3_internals.replace_file(raw, _Lines)
    for piece in raw.stream():
        body += piece
        if len(body) > LONGEST_ANSWER:
            raw.close()
            raise UnreadableAnswerError(reason=f'it is longer than {LONGEST_ANSWER >> 20} MiB')
    return bytes(body)


class _Lines:
    """The file of a connection, which limits the length of lines.

    Before 2.8, urllib3 reads the size of a chunk to the next line feed, and keeps it in memory (CVE-2026-97689).
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._file.readline(LONGEST_LINE + 1 if size < 0 else size)
        if size < 0 and len(line) > LONGEST_LINE:
            raise LineTooLong('size of a chunk')
        return line
