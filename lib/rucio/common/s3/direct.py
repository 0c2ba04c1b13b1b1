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

"""Send or get a small object by one request that is built and signed without botocore's operations.

Of the 4 ms of CPU that a small object costs with boto3 and s3transfer, three go into threads, models, rules and events
that change nothing about such a request. It goes through the connections of the client all the same, with all that
watches them: time-outs, trusted CAs, limits of answers, the breaker, metrics and ids. What the storage refuses for
other reasons than the object is left to the client: redirects, new keys, headers that a storage does not know.
"""

import base64
import hashlib
import random
import threading
import time
import zlib
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Optional

from botocore.exceptions import ClientError, HTTPClientError

from . import botocore_internals, deadlines
from .address import encode_path
from .authorizer import Request
from .checksums import base64_of
from .errors import status_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from .authorizer import Authorizer
    from .endpoint import Endpoint
    from .errors import Target

__all__ = ['Direct']

_FINAL = frozenset(
    ('AccessDenied', 'BadDigest', 'InvalidObjectState', 'NoSuchBucket', 'NoSuchKey', 'PreconditionFailed')
)
_BUSY, _FAILED, _MISSING = 429, 500, 501
_STRANGE = 3  # refusals in a row, after which the storage gets no more requests of this kind
_UNSIGNED = 'UNSIGNED-PAYLOAD'


class Direct:
    """Sends requests for whole objects through the connections of a client. Thread-safe.

    :param client: The client, with all its handlers.
    :param endpoint: The storage.
    :param authorizer: The way of authorisation, which signs in headers.
    """

    def __init__(self, client: 'S3Client', endpoint: 'Endpoint', authorizer: 'Authorizer') -> None:
        self._client = client
        self._authorizer = authorizer
        self._checksum = endpoint.checksum
        self._region = endpoint.signing_region(authorizer.region)
        self._payer = {'x-amz-request-payer': 'requester'} if endpoint.requester_pays else {}
        self._roots: dict[str, str] = {}  # the URLs of buckets
        self._attempts = botocore_internals.max_attempts(client)
        # A storage without If-None-Match gets a HEAD before each PUT.
        self._conditional = endpoint.conditional_put and 'put' in endpoint.if_none_match
        self._strange = 0
        self._fastest = 0.0

    @property
    def latency(self) -> float:
        """The seconds of the fastest answer so far, which hardly waited for others; 0 before the first."""
        return self._fastest

    @property
    def can_get(self) -> bool:
        """Whether the storage understands these requests, as far as is known."""
        return self._strange < _STRANGE

    @property
    def can_put(self) -> bool:
        """The same for :meth:`put`."""
        return self.can_get and self._conditional

    def put(self, target: 'Target', body: bytes, stop: threading.Event) -> None:
        """Store an object that does not exist yet, with a checksum that the storage verifies. One request.

        :param target: The object.
        :param body: Its content.
        :param stop: Once it is set, nothing is sent any more.
        :raises botocore.exceptions.ClientError: if the storage refuses; 412 if there is an object.
        :raises botocore.exceptions.BotoCoreError: if it does not answer, or its answer cannot be read.
        :raises CancelledError: if it was stopped.
        """
        headers, url = {'If-None-Match': '*', **self._payer, **self._checksums(body)}, self._url(target)
        headers['Content-Length'] = str(len(body))
        # As botocore does: the body is covered by TLS on its way, and by the checksum until it is stored.
        is_covered = self._checksum != 'none' and url.startswith('https:')
        payload = _UNSIGNED if is_covered else hashlib.sha256(body).hexdigest()
        answer = self._send('PutObject', Request('PUT', url, headers, self._region, payload), body, stop)
        if not answer.headers.get('ETag'):
            botocore_internals.parsed(self._client, 'PutObject', answer)  # raises UnreadableAnswerError

    def _checksums(self, body: bytes) -> dict[str, str]:
        if self._checksum == 'crc32':
            return {'x-amz-sdk-checksum-algorithm': 'CRC32', 'x-amz-checksum-crc32': base64_of(zlib.crc32(body))}
        if self._checksum == 'md5':
            return {'Content-MD5': base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()}
        return {}

    def get(self, target: 'Target', stop: threading.Event) -> Any:
        """Request an object, and return botocore's answer. Its ``raw`` is the unread body, which has to be closed.

        :param target: The object.
        :param stop: Once it is set, nothing is sent any more.
        :raises botocore.exceptions.ClientError: if the storage refuses.
        :raises botocore.exceptions.BotoCoreError: if it does not answer.
        :raises CancelledError: if it was stopped.
        """
        headers = {'x-amz-checksum-mode': 'ENABLED'} if self._checksum == 'crc32' else {}
        request = Request('GET', self._url(target), headers | self._payer, self._region)
        return self._send('GetObject', request, None, stop)

    def _url(self, target: 'Target') -> str:
        root = self._roots.get(target.bucket)
        if root is None:
            root = self._roots[target.bucket] = botocore_internals.bucket_url(self._client, target.bucket)
        return f'{root}/{encode_path(target.key)}'

    def _send(self, operation: str, request: Request, body: Optional[bytes], stop: threading.Event) -> Any:
        """Send a request as often as the client would. The last error has the number of attempts, as botocore's do."""
        attempt = 0
        while True:
            if stop.is_set():
                raise CancelledError
            attempt += 1
            try:
                return self._once(operation, request, body, stop)
            except (ClientError, HTTPClientError) as error:
                if isinstance(error, ClientError):
                    error.response['ResponseMetadata']['RetryAttempts'] = attempt - 1
                if attempt >= self._attempts or not _is_transient(error):
                    raise
            stop.wait(_pause(attempt))

    def _once(self, operation: str, request: Request, body: Optional[bytes], stop: threading.Event) -> Any:
        sent, began = self._authorizer.authorise(request), time.monotonic()
        with deadlines.ended_by(stop):
            answer = botocore_internals.send(self._client, operation, sent.method, sent.url, sent.headers, body)
        took = time.monotonic() - began
        self._fastest = min(self._fastest or took, took)
        if answer.status_code < 300:
            self._strange = 0
            return answer
        said: Any = botocore_internals.parsed(self._client, operation, answer)
        error = ClientError(said, operation)
        if self.repeats(error) and not self._authorizer.refused(sent, error.response['Error'].get('Code', '')):
            self._strange += 1
        raise error

    @staticmethod
    def repeats(error: Exception) -> bool:
        """Return whether the client may know what to do about an error: to go elsewhere, or to leave out a header.

        :param error: The exception of :meth:`put` or :meth:`get`.
        """
        if not isinstance(error, ClientError) or _is_transient(error):
            return False
        return error.response['Error'].get('Code') not in _FINAL


def _is_transient(error: Exception) -> bool:
    """Return whether the request may succeed if it is sent again as it is."""
    status = status_of(error)
    return isinstance(error, HTTPClientError) or status == _BUSY or (status >= _FAILED and status != _MISSING)


def _pause(attempt: int) -> float:
    """Return the seconds to wait after an attempt: at random, so that not all come again at once."""
    return random.random() * float(2 ** (attempt - 1))  # noqa: S311
