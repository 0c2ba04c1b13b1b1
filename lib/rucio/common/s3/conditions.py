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

"""Headers of requests that not all storages implement.

No upload overwrites an object: ``If-None-Match: *``, or a HEAD before if a storage does not support the header.
"""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Optional

from botocore.exceptions import ClientError

from . import botocore_internals
from .answers import line_logger
from .errors import status_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from .endpoint import Endpoint

__all__ = ['NeverOverwrite', 'OptionalHeaders']

_LOGGER = line_logger(__name__)
_OPERATIONS = {'put': 'PutObject', 'multipart': 'CompleteMultipartUpload', 'copy': 'CopyObject'}
_SENT, _LEFT_OUT = 'rucio_s3_condition', 'rucio_s3_no_condition'  # in the context of a call


class NeverOverwrite:
    """Makes every upload of a client conditional, so that it fails with 412 if the object already exists.

    If the storage does not support ``If-None-Match``, a HEAD is sent before. It finds existing objects, but none that
    are written at the same moment.

    A storage that says that it does not implement the header gets the request once more, after a HEAD and without the
    header. If that succeeds, further requests of this client do not have the header.

    :param client: The client.
    :param endpoint: The storage.
    :param can_look: Whether the client can send a HEAD; one with signed URLs cannot.
    """

    def __init__(self, client: 'S3Client', endpoint: 'Endpoint', can_look: bool) -> None:
        self._client = client
        self._rse = endpoint.rse
        self._can_look = can_look
        sent = {_OPERATIONS[name] for name in endpoint.if_none_match}
        # Older versions of boto3 lack the header for CopyObject.
        self._conditional = {name for name in sent if _has_condition(client, name)}
        self._trusted = {'PutObject'} if endpoint.conditional_put else set()
        self._trusted |= {'CompleteMultipartUpload'} if endpoint.conditional_multipart else set()
        for operation in _OPERATIONS.values():
            botocore_internals.before_parameters(client, operation, self._before)
            botocore_internals.after_call(client, operation, partial(self._after, operation))
        botocore_internals.before_retry(client, self._again)

    def _before(self, operation: str, params: dict[str, Any], context: dict[str, Any]) -> None:
        if operation in self._conditional:
            params.setdefault('IfNoneMatch', '*')
            context[_SENT] = params['Bucket'], params['Key']
        if operation not in self._trusted & self._conditional:
            self._look(operation, params['Bucket'], params['Key'])

    def _look(self, operation: str, bucket: str, key: str) -> None:
        """Check that there is no object.

        :raises ClientError: 412 if there is one, or the storage's error.
        """
        if not self._can_look:
            return
        try:
            self._client.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if status_of(error) == 404:
                return
            raise
        answer = {
            'Error': {'Code': 'PreconditionFailed', 'Message': 'found by a HEAD'},
            'ResponseMetadata': {'HTTPStatusCode': 412},
        }
        raise ClientError(answer, operation)  # type: ignore[arg-type]

    def _again(self, operation: str, _attempts: int, answer: Any, request: dict[str, Any]) -> Optional[float]:
        """Retry once without the header if the storage does not implement it."""
        context = request.get('context', {})
        if not answer or _SENT not in context or not _is_not_implemented(answer, ('if-none-match',)):
            return None
        self._look(operation, *context.pop(_SENT))
        del request['headers']['If-None-Match']
        context[_LEFT_OUT] = True
        return 0

    def _after(self, operation: str, status: int, _answer: dict[str, Any], context: dict[str, Any]) -> None:
        if context.get(_LEFT_OUT) and status < 300 and operation in self._conditional:
            self._conditional = self._conditional - {operation}
            _LOGGER.warning(
                'RSE %s: the storage does not implement If-None-Match of %s. A HEAD is sent instead, which does not '
                "find an object that is written at the same moment. Leave it out of the setting 'if_none_match'.",
                self._rse,
                operation,
            )


# Without them, answers are not verified by botocore (a download is by the catalogue's checksum), and the version of an
# object is told by the ETag of the answer.
_OPTIONAL = {'HeadObject': ('x-amz-checksum-mode',), 'GetObject': ('x-amz-checksum-mode', 'if-match')}


class OptionalHeaders:
    """Lets a client read without headers that the storage does not implement, once it has said so.

    :param client: The client.
    """

    def __init__(self, client: 'S3Client') -> None:
        self._unknown: dict[str, tuple[str, ...]] = {}  # operation -> headers to leave out
        for operation in _OPTIONAL:
            botocore_internals.before_call(client, operation, partial(self._before, operation))
            botocore_internals.after_call(client, operation, partial(self._after, operation))
        botocore_internals.before_retry(client, self._again)

    def _before(self, operation: str, request: dict[str, Any], _context: dict[str, Any]) -> None:
        for name in _present(request, self._unknown.get(operation, ())):
            del request['headers'][name]

    def _again(self, operation: str, _attempts: int, answer: Any, request: dict[str, Any]) -> Optional[float]:
        context, optional = request.get('context', {}), _OPTIONAL.get(operation, ())
        sent = _present(request, optional)
        if not answer or not sent or not _is_not_implemented(answer, optional):
            return None
        for name in sent:
            del request['headers'][name]
        context[_LEFT_OUT] = True
        return 0

    def _after(self, operation: str, status: int, _answer: dict[str, Any], context: dict[str, Any]) -> None:
        if context.get(_LEFT_OUT) and status < 300:
            self._unknown[operation] = _OPTIONAL[operation]


def _present(request: dict[str, Any], names: Iterable[str]) -> list[str]:
    return [name for name in request['headers'] if name.lower() in names]


def _has_condition(client: 'S3Client', operation: str) -> bool:
    shape = client.meta.service_model.operation_model(operation).input_shape
    return shape is not None and 'IfNoneMatch' in shape.members


def _is_not_implemented(answer: Any, headers: Iterable[str]) -> bool:
    """Return whether an answer says explicitly that the request has something that the storage does not implement."""
    error, status = answer.get('Error', {}), answer.get('ResponseMetadata', {}).get('HTTPStatusCode')
    named = any(name in str(error.get('Message', '')).lower() for name in headers)
    return status == 501 or error.get('Code') == 'NotImplemented' or (status in (400, 405) and named)
