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

"""The table of errors: which Rucio exception an error of a storage or of botocore becomes, and how to solve it."""

import re
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import NamedTuple, Optional

import botocore.exceptions as boto

from rucio.common.exception import (
    DestinationNotAccessible,
    FileConsistencyMismatch,
    FileReplicaAlreadyExists,
    ResourceTemporaryUnavailable,
    RSEAccessDenied,
    RSEFileNameNotSupported,
    RSEOperationNotSupported,
    RSEOverQuota,
    RucioException,
    ServiceUnavailable,
    SourceAccessDenied,
    SourceNotFound,
)

from . import request_ids
from .answers import printable
from .parsing import UnreadableAnswerError

__all__ = [
    'StorageSilentError',
    'Target',
    'TransferTimeout',
    'describe',
    'ids_of',
    'is_ambiguous',
    'is_unanswered',
    'is_unreachable',
    'local_error',
    'status_of',
    'translate',
    'translated',
]


class Target(NamedTuple):
    """The subject of an operation, for messages."""

    rse: str
    bucket: str
    key: str = ''

    def __str__(self) -> str:
        return f"bucket '{printable(self.bucket)}'" + (f", key '{printable(self.key)}'" if self.key else '')


class TransferTimeout(Exception):
    """A transfer took longer than its ``transfer_timeout``. ``seconds`` is that limit."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f'not finished after {seconds:g} s')
        self.seconds = seconds


class StorageSilentError(boto.BotoCoreError):
    """A storage did not answer in time, and gets no request until it does: see :mod:`.breaker`.

    It is not a ConnectionError, on which botocore would retry.
    """

    fmt = 'the storage at {url} does not answer, and gets no requests until it does'


class _Row(NamedTuple):
    exception: type[RucioException]
    remedy: str


_KEYS = _Row(
    RSEAccessDenied,
    'Check the access key and secret key of this RSE (rucio.cfg [s3:RSE], AWS profile or rse-accounts.cfg).',
)
_EXPIRED = _Row(RSEAccessDenied, 'The credentials or the signed URL have expired: get new ones and try again.')
_DENIED = _Row(
    RSEAccessDenied,
    'These credentials are not allowed to do this: ask the owner of the bucket or the operator of the RSE.',
)
_REGION = _Row(RSEAccessDenied, "Set the RSE's 's3' setting 'region' to the region of the bucket.")
_DAMAGED = _Row(FileConsistencyMismatch, 'The data was changed in transit, and nothing was stored: try again.')
_ARCHIVED = _Row(
    ResourceTemporaryUnavailable,
    'The object is archived: restore it first (for example with `aws s3api restore-object`, and keys of the owner '
    'of the bucket), and try again when that is done, after minutes to days.',
)
_BUSY = _Row(ResourceTemporaryUnavailable, 'The storage is busy: try again later.')
_DOWN = _Row(ServiceUnavailable, 'Try again later; if the problem persists, tell the operator of the storage.')
_CHUNKED = _Row(
    RSEOperationNotSupported,
    "The storage does not support this kind of integrity check: set 'checksum' to md5, or the right 'provider'.",
)

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and the codes of Ceph, MinIO and SeaweedFS.
_CODES = {
    'NoSuchKey': _Row(SourceNotFound, 'There is no such object.'),
    'NoSuchBucket': _Row(
        DestinationNotAccessible, 'The bucket does not exist. Make it first: rucio s3 make-bucket SCOPE --rse RSE'
    ),
    'NoSuchUpload': _Row(ServiceUnavailable, 'The multipart upload was aborted by somebody else: try again.'),
    'InvalidAccessKeyId': _KEYS,
    'SignatureDoesNotMatch': _KEYS,
    'XAdminUserNotFound': _KEYS,  # versitygw, with 404: nobody has this access key
    'InvalidToken': _EXPIRED,
    'ExpiredToken': _EXPIRED,
    'TokenRefreshRequired': _EXPIRED,
    'AccessDenied': _DENIED,
    'AllAccessDisabled': _DENIED,
    'AccountProblem': _DENIED,
    'InvalidObjectState': _ARCHIVED,
    'ObjectNotInActiveTierError': _ARCHIVED,  # of copies
    'RestoreAlreadyInProgress': _Row(
        ResourceTemporaryUnavailable,
        'The object is archived, and is being restored: try again when that is done, after minutes to days.',
    ),
    'RequestTimeTooSkewed': _Row(
        RSEAccessDenied, "This machine's clock and the storage's differ too much: synchronise them (NTP)."
    ),
    'PermanentRedirect': _REGION,
    'AuthorizationHeaderMalformed': _REGION,
    'IllegalLocationConstraintException': _REGION,
    'PreconditionFailed': _Row(
        FileReplicaAlreadyExists,
        'There is already an object, and it was not changed. If Rucio does not know it: rucio s3 reconcile.',
    ),
    'ConditionalRequestConflict': _Row(
        ResourceTemporaryUnavailable, 'Somebody else is writing the same object: try again.'
    ),
    'BadDigest': _DAMAGED,
    'InvalidDigest': _DAMAGED,
    'XAmzContentChecksumMismatch': _DAMAGED,
    'XAmzContentSHA256Mismatch': _DAMAGED,
    'MissingContentLength': _CHUNKED,
    'NotImplemented': _Row(
        RSEOperationNotSupported, "The storage does not support this operation: check the setting 'provider'."
    ),
    'EntityTooLarge': _Row(
        RSEOperationNotSupported,
        'The object is larger than the storage accepts: split it, or use keys instead of signed URLs, which are for '
        'one request.',
    ),
    'EntityTooSmall': _Row(
        RSEOperationNotSupported,
        "The storage requires larger parts: set 'multipart_chunksize' of the RSE to what it documents.",
    ),
    'KeyTooLongError': _Row(RSEFileNameNotSupported, 'Use a shorter name.'),
    'InvalidObjectName': _Row(RSEFileNameNotSupported, 'The storage does not accept this name: use another one.'),
    'InvalidBucketName': _Row(RSEFileNameNotSupported, 'The storage does not accept this bucket name.'),
    'InvalidURI': _Row(RSEFileNameNotSupported, 'The storage does not accept this name: use another one.'),
    'QuotaExceeded': _Row(RSEOverQuota, 'Delete files, or ask for more space.'),
    'XMinioStorageFull': _Row(RSEOverQuota, 'The storage is full: tell its operator.'),
    'InsufficientStorage': _Row(RSEOverQuota, 'The storage is full: tell its operator.'),
    'SlowDown': _BUSY,
    'ServiceUnavailable': _BUSY,
    'RequestTimeout': _BUSY,
    'TooManyRequests': _BUSY,
}

# For errors without a known code (a HEAD has no body).
_STATUSES = {
    301: _REGION,
    401: _DENIED,
    403: _Row(
        RSEAccessDenied,
        'These credentials are not allowed to do this; or the object does not exist, and they cannot list the bucket.',
    ),
    404: _CODES['NoSuchKey'],
    409: _CODES['ConditionalRequestConflict'],
    411: _CHUNKED,
    412: _CODES['PreconditionFailed'],
    429: _BUSY,
    501: _CODES['NotImplemented'],
    503: _BUSY,
    507: _CODES['InsufficientStorage'],
}

_NO_BUCKET = _Row(
    ServiceUnavailable,
    "The bucket does not exist: check the RSE's prefix and bucket_prefix. "
    'If it was removed on purpose, make an empty one, and Rucio removes its files from the catalogue.',
)
_BUCKET_IS_GONE = _Row(
    SourceNotFound,
    "The bucket does not exist: it was removed, or the RSE's prefix or bucket_prefix is wrong. Tell its operator.",
)
_CHANGED = _Row(ServiceUnavailable, 'The object was changed while it was read: try again.')
_TLS = _Row(
    ServiceUnavailable,
    "The storage's certificate is not trusted: set 'ca_bundle' in rucio.cfg [s3] to the PEM file of the CA, "
    'or check the host name.',
)
_CREDENTIALS = _Row(RSEAccessDenied, 'Check the AWS profile or the keys in rucio.cfg.')

# The first match counts: subclasses come before their bases.
_EXCEPTIONS: tuple[tuple[type[BaseException], _Row], ...] = (
    (
        TransferTimeout,
        _Row(
            ServiceUnavailable,
            'Allow more time (--transfer-timeout, or transfer_timeout in rucio.cfg [upload] or [download]), '
            'or check the network.',
        ),
    ),
    (boto.SSLError, _TLS),
    (
        boto.ProxyConnectionError,
        _Row(ServiceUnavailable, 'Check the proxy settings of the environment (https_proxy, no_proxy).'),
    ),
    (
        boto.EndpointConnectionError,
        _Row(ServiceUnavailable, "Check the RSE's host name and port, and that the storage is running."),
    ),
    (boto.HTTPClientError, _DOWN),
    (boto.IncompleteReadError, _DOWN),
    (
        boto.FlexibleChecksumError,
        _Row(
            FileConsistencyMismatch,
            'The object differs from what was stored: tell the operator, and use another replica.',
        ),
    ),
    (boto.NoCredentialsError, _CREDENTIALS),
    (boto.PartialCredentialsError, _CREDENTIALS),
    (boto.ProfileNotFound, _CREDENTIALS),
    (boto.CredentialRetrievalError, _CREDENTIALS),
    (boto.SSOError, _CREDENTIALS),
    (boto.TokenRetrievalError, _CREDENTIALS),
    (boto.ParamValidationError, _Row(RSEFileNameNotSupported, 'Use a name that S3 allows.')),
    (boto.BotoCoreError, _DOWN),
    (CancelledError, _Row(ServiceUnavailable, 'The transfer was stopped.')),
)


_LONGEST_CODE, _LONGEST_TEXT = 64, 500  # characters of a storage's message to show
_FOREIGN = (
    boto.BotoCoreError,
    boto.ClientError,
    TransferTimeout,
    CancelledError,
)


def status_of(error: BaseException) -> int:
    """Return the HTTP status of a ClientError, or 0.

    :param error: Any exception.
    """
    response = getattr(error, 'response', None) or {}
    return int(response.get('ResponseMetadata', {}).get('HTTPStatusCode') or 0)


def is_ambiguous(error: BaseException) -> bool:
    """Return whether the storage may have done what was requested although there was an error.

    The answer, or that of an earlier attempt, may have been lost.

    :param error: Any exception.
    """
    if isinstance(error, boto.ClientError):
        return status_of(error) >= 500 or int(error.response.get('ResponseMetadata', {}).get('RetryAttempts', 0)) > 0
    return isinstance(error, (TransferTimeout, boto.HTTPClientError, UnreadableAnswerError, CancelledError))


def is_unreachable(error: Optional[BaseException]) -> bool:
    """Return whether there was no (trusted) connection, which concerns all objects.

    :param error: Any exception.
    """
    return isinstance(error, (boto.ConnectionError, StorageSilentError))


def is_unanswered(error: Optional[BaseException]) -> bool:
    """Return whether the answer is missing or incomplete, for this object or for all.

    :param error: Any exception.
    """
    return isinstance(error, boto.HTTPClientError)


def translate(error: BaseException, operation: str, target: Target) -> RucioException:
    """Return the Rucio exception for an error of botocore or s3transfer.

    :param error: The error.
    :param operation: The operation: put, get, stat, delete, ...
    :param target: RSE, bucket and key.
    :returns: An exception whose message names the operation and the object, and has the error of the storage, how to
        solve it, and by which ids the request is found in the logs. Query strings (signatures) are removed.
    """
    row = _row(error, operation)
    remedy = row.remedy.replace('[s3:RSE]', f'[s3:{target.rse}]').replace('--rse RSE', f'--rse {target.rse}')
    return row.exception(f'RSE {target.rse}: {operation} of {target}: {describe(error)} {remedy}{ids_of(error)}')


def _row(error: BaseException, operation: str) -> _Row:
    if isinstance(error, boto.ClientError):
        code, status = str(error.response.get('Error', {}).get('Code', '')), status_of(error)
        row = _CODES.get(code) or _STATUSES.get(status) or _DOWN
        if row is _CODES['PreconditionFailed'] and operation == 'get':
            return _CHANGED
        if row is _CODES['NoSuchBucket'] and operation in ('get', 'stat'):
            return _BUCKET_IS_GONE
        if row is _CODES['NoSuchBucket'] and operation == 'ls':
            return _Row(SourceNotFound, row.remedy)
        if row is _CODES['NoSuchBucket'] and operation == 'delete':
            return _NO_BUCKET
        return row
    return next((row for kind, row in _EXCEPTIONS if isinstance(error, kind)), _DOWN)


def describe(error: BaseException) -> str:
    """Describe an error of a storage, or of the way to it, in a sentence without signatures.

    It is short and one line, as a storage may try to write to somebody's terminal, or to add a line to a log.

    :param error: The error.
    """
    if isinstance(error, boto.ClientError):
        answer = error.response.get('Error', {})
        code, message, status = answer.get('Code', ''), answer.get('Message', ''), status_of(error)
        words = ' '.join(
            printable(str(word), _LONGEST_CODE) for word in (status, '' if code == str(status) else code) if word
        )
        return f'the storage answered {words}' + (f' ({_shown(message)}).' if message and message != code else '.')
    return f'{type(error).__name__}: {_shown(error) or "no details"}.'.replace('..', '.')


def ids_of(error: BaseException) -> str:
    """Return the ids of a request that a storage refused, to add them to a message; empty if it gave none.

    :param error: The error.
    """
    about = (getattr(error, 'response', None) or {}).get('ResponseMetadata', {})
    return request_ids.told(about.get('RequestId') or about.get('HTTPHeaders', {}).get('x-amz-request-id'))


def _shown(text: object) -> str:
    return printable(' '.join(without_query(str(text)).split()), _LONGEST_TEXT)


def without_query(text: str) -> str:
    return re.sub(r'\?[^\s"\'<>]*', '', text).strip()


@contextmanager
def translated(operation: str, target: Target) -> Iterator[None]:
    """Translate errors of botocore and s3transfer inside a block, see :func:`translate`.

    :param operation: The operation.
    :param target: RSE, bucket and key.
    :raises RucioException: for any of these errors.
    """
    try:
        yield
    except _FOREIGN as error:
        raise translate(error, operation, target) from _harmless(error)


def _harmless(error: BaseException) -> Optional[BaseException]:
    """Return an error as a cause in printable characters, or None if it or its own cause contains a signature.

    Rucio logs causes.
    """
    cause: Optional[BaseException] = error
    while cause is not None:
        if 'signature=' in str(cause).lower():
            return None
        if len(cause.args) == 1 and isinstance(cause.args[0], str):
            cause.args = (printable(cause.args[0]),)
        cause = cause.__cause__ or cause.__context__
    return error


def local_error(error: OSError, path: str, reading: bool) -> RucioException:
    """Return the Rucio exception for a local file that cannot be read or written.

    :param error: The error of the operating system.
    :param path: The file.
    :param reading: Whether it was opened for reading.
    """
    what = (
        f"The local file '{printable(path)}' cannot be {'read' if reading else 'written'}: {error.strerror or error}."
    )
    if not reading:
        return DestinationNotAccessible(f'{what} Check the path, the permissions and the free space.')
    if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
        return SourceNotFound(f'{what} Check the path.')
    return SourceAccessDenied(f'{what} Check its permissions.')
