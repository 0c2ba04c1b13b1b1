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

"""Operations on objects that do not transfer their content: stat, delete, list. Costs are given in requests."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from botocore.exceptions import ClientError, ParamValidationError

from rucio.common.exception import (
    AccessDenied,
    RSEAccessDenied,
    RSEFileNameNotSupported,
    RSEOperationNotSupported,
    RucioException,
    ServiceUnavailable,
)

from . import archives
from .answers import checked, is_valid, line_logger
from .errors import Target, status_of, translate, translated
from .parsing import UnreadableAnswerError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import BucketTypeDef

    from .clients import Connection

__all__ = [
    'Listed',
    'ObjectInfo',
    'bare_etag',
    'buckets',
    'delete',
    'delete_many',
    'exists',
    'head',
    'info',
    'list_buckets',
    'list_objects',
    'list_pages',
    'list_prefix',
    'make_bucket',
    'need_version',
    'stat',
]

_LOGGER = line_logger(__name__)
_MD5 = re.compile(r'[0-9a-f]{32}')
UNKNOWN_SIZE = -1  # of an object in a listing that has no size or no date
_WEAK = 'W/'  # prefix of a weak ETag, as some proxies send
_RESTORES = {'OptionalObjectAttributes': ['RestoreStatus']}
_EMPTY_PAGES = 100  # consecutive ones of a listing
_DELETE_LIMIT = 1000  # keys in one DeleteObjects request
_NOT_IN_XML = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]')  # https://www.w3.org/TR/xml/#charsets
_REFUSALS = (401, 403, 405, 501)  # not allowed or not supported: does not tell whether others may


@dataclass(frozen=True)
class ObjectInfo:
    """The properties of an object.

    ``md5`` (hexadecimal) and ``crc32`` (base64) are only set if they are of the whole content. ``restoring``: it is
    archived, and its restore has begun.
    """

    size: int
    etag: str
    md5: Optional[str] = None
    crc32: Optional[str] = None
    restoring: bool = False

    @property
    def condition(self) -> str:
        """The ETag for ``If-Match``; empty for a weak one (``W/"..."``), which never matches (RFC 9110)."""
        return '' if self.etag.startswith(_WEAK) else self.etag


class Listed(NamedTuple):
    """An object in a listing.

    The size in bytes is None if the storage does not tell the size or the date. ``archive`` is the storage class of an
    object that must be restored before it can be read.
    """

    key: str
    size: Optional[int]
    archive: str = ''


def stat(connection: 'Connection', target: Target, operation: str = 'stat') -> ObjectInfo:
    """Return size and checksums of an object. One HEAD, or with a signed URL one GET of the first byte.

    :param connection: The storage.
    :param target: The object.
    :param operation: The operation to name in error messages.
    :raises SourceNotFound: if there is no such object or bucket.
    :raises RucioException: the translation by :mod:`.errors` of any other error.
    """
    with translated(operation, target):
        if connection.authorizer.whole_objects_only:
            return _first_byte(connection, target)
        extra = {'ChecksumMode': 'ENABLED'} if connection.endpoint.checksum == 'crc32' else {}
        return info(head(connection, target, **extra))


def head(connection: 'Connection', target: Target, **extra: Any) -> Any:
    """Send a HeadObject, and return botocore's answer. A second request (GET) if it is refused.

    :param connection: The storage.
    :param target: The object.
    :param extra: More parameters of HeadObject.
    :raises botocore.exceptions.ClientError: and other errors of botocore.
    """
    try:
        return connection.client.head_object(Bucket=target.bucket, Key=target.key, **extra)
    except ClientError as error:
        if status_of(error) in (301, 400, 403):
            # The answer to a HEAD has no body, and so no reason (keys, clock, region, ...): that to a GET does.
            connection.client.get_object(Bucket=target.bucket, Key=target.key)['Body'].close()
        raise


def _first_byte(connection: 'Connection', target: Target) -> ObjectInfo:
    """Get the first byte of an object, as a URL that is signed for GET does not allow HEAD."""
    try:
        answer = connection.client.get_object(Bucket=target.bucket, Key=target.key, Range='bytes=0-0')
    except ClientError as error:
        if status_of(error) == 416:  # there is no first byte
            return ObjectInfo(0, '')
        raise
    with answer['Body']:
        size = answer.get('ContentRange', '').rpartition('/')[2]
        return info({**answer, 'ContentLength': int(size)} if size.isdigit() else answer)


def info(answer: Any) -> ObjectInfo:
    """Return the properties of an object from the answer to a HEAD or GET.

    :param answer: botocore's answer.
    :raises UnreadableAnswerError: if the size is invalid.
    """
    etag, crc32 = answer.get('ETag', ''), answer.get('ChecksumCRC32', '')
    plain = answer.get('ServerSideEncryption') in (None, 'AES256') and not answer.get('SSECustomerAlgorithm')
    md5 = etag.strip('"')
    size = answer.get('ContentLength')
    if not isinstance(size, int) or size < 0:
        raise UnreadableAnswerError(reason=f'the size of the object is {size}')
    return ObjectInfo(
        size=size,
        etag=etag,
        # https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html: an MD5, unless it is multipart or encrypted
        # with other keys
        md5=md5 if plain and _MD5.fullmatch(md5) else None,
        crc32=crc32 if crc32 and '-' not in crc32 and answer.get('ChecksumType') != 'COMPOSITE' else None,
        restoring=archives.is_being_restored(answer),
    )


def bare_etag(header: str) -> str:
    """Return an ETag without its quotes and without the prefix of a weak one.

    :param header: The ETag as in the header.
    """
    return header.removeprefix(_WEAK).strip('"')


def need_version(answer: Any, etag: str) -> Any:
    """Return the answer of GetObject with ``IfMatch`` if it is that version: `rclone serve s3` ignores the header.

    :param answer: botocore's answer.
    :param etag: The ETag of the version.
    :raises ClientError: 412, as from a storage that checks the header.
    """
    came = answer.get('ETag', '')
    if etag and came and bare_etag(came) != bare_etag(etag):
        answer['Body'].close()
        changed: Any = {
            'Error': {'Code': 'PreconditionFailed', 'Message': 'found by its ETag'},
            'ResponseMetadata': {'HTTPStatusCode': 412},
        }
        raise ClientError(changed, 'GetObject')
    return answer


def exists(connection: 'Connection', target: Target) -> bool:
    """Return whether an object exists. One request, as in :func:`stat`. A missing bucket has no objects.

    :param connection: The storage.
    :param target: The object.
    :raises RucioException: if it cannot be determined: not allowed, not reachable, ...
    """
    try:
        with translated('exists', target):
            if connection.authorizer.whole_objects_only:
                _first_byte(connection, target)
            else:
                head(connection, target)
    except RucioException as error:
        if isinstance(error.__cause__, ClientError) and status_of(error.__cause__) == 404:
            if isinstance(error, RSEAccessDenied):  # the keys are wrong
                raise
            return False
        if not archives.is_refusal(error.__cause__):  # of a GET: archived objects exist
            raise
    return True


def delete(connection: 'Connection', target: Target) -> None:
    """Delete an object.

    A HEAD and a DELETE, as S3's DELETE does not report missing objects; with a signed URL only the DELETE.
    If the bucket has versions, they are kept: a delete marker is written, and the object no longer exists.

    :param connection: The storage.
    :param target: The object.
    :raises SourceNotFound: if there is no such object (not with a signed URL). One more HEAD, of the bucket.
    :raises ServiceUnavailable: if there is no such bucket.
    """
    with translated('delete', target):
        if not connection.authorizer.whole_objects_only:
            try:
                head(connection, target)
            except ClientError as error:
                if status_of(error) == 404:
                    _need_bucket(connection, target)
                # Its owner may have hidden it with an access list or an encryption key: objects that cannot be read
                # can still be deleted.
                if status_of(error) not in (400, 403):
                    raise
        connection.client.delete_object(Bucket=target.bucket, Key=target.key)


def _need_bucket(connection: 'Connection', target: Target) -> None:
    """Refuse a missing bucket: if a prefix is wrong or a storage is half down, the reaper must not drop its files."""
    try:
        connection.client.head_bucket(Bucket=target.bucket)
    except ClientError as error:
        if status_of(error) == 404:
            answer: Any = {'Error': {'Code': 'NoSuchBucket'}, 'ResponseMetadata': {'HTTPStatusCode': 404}}
            raise ClientError(answer, 'HeadBucket') from error
        if status_of(error) not in _REFUSALS:
            raise
    except RSEAccessDenied:  # the keys are for a part of the bucket
        return


def delete_many(connection: 'Connection', targets: Iterable[Target]) -> dict[Target, Optional[RucioException]]:
    """Delete many objects. One request per 1000 keys of a bucket, and one per key that XML cannot contain.

    Missing objects count as deleted, as S3 does not report them. If a storage refuses a request because of one key, it
    is halved until that key is alone: about 20 more requests. If it does not know DeleteObjects, one request per key.

    :param connection: The storage.
    :param targets: The objects.
    :returns: For each target None, or why it was not deleted.
    """
    result: dict[Target, Optional[RucioException]] = {}
    several: list[Target] = []
    for target in targets:
        if _NOT_IN_XML.search(target.key):
            result[target] = _delete_one(connection, target)
        else:
            several.append(target)
    for batch in _batches(several):
        result |= _delete_batch(connection, batch)
    return result


def _delete_one(connection: 'Connection', target: Target) -> Optional[RucioException]:
    try:
        with translated('delete', target):
            connection.client.delete_object(Bucket=target.bucket, Key=target.key)
    except RucioException as error:
        return error
    return None


def _batches(targets: Iterable[Target]) -> Iterator[list[Target]]:
    buckets: dict[str, list[Target]] = {}
    for target in targets:
        batch = buckets.setdefault(target.bucket, [])
        batch.append(target)
        if len(batch) == _DELETE_LIMIT:
            yield buckets.pop(target.bucket)
    yield from buckets.values()


def _delete_batch(connection: 'Connection', batch: list[Target]) -> dict[Target, Optional[RucioException]]:
    # Some storages report an error if a request has the same key twice.
    by_key = {target.key: target for target in batch}
    result: dict[Target, Optional[RucioException]] = dict.fromkeys(batch)
    try:
        with translated('delete', batch[0]._replace(key='')):
            answer = connection.client.delete_objects(
                Bucket=batch[0].bucket, Delete={'Objects': [{'Key': key} for key in by_key], 'Quiet': True}
            )
    except RucioException as error:
        if _is_unknown(error):
            return {target: _delete_one(connection, target) for target in by_key.values()}
        return (
            _delete_halves(connection, list(by_key.values())) if _may_be_one_key(error) else dict.fromkeys(batch, error)
        )
    for failure in answer.get('Errors', []):
        code = failure.get('Code') or 'an error without a code'
        if code != 'NoSuchKey':
            said: Any = {'Error': {'Code': code, 'Message': failure.get('Message', '')}}
            # An error for another key may concern all of them.
            for target in [by_key[failure['Key']]] if failure.get('Key') in by_key else batch:
                result[target] = translate(ClientError(said, 'DeleteObjects'), 'delete', target)
    return result


def _is_unknown(error: RucioException) -> bool:
    """Return whether the storage does not know DeleteObjects."""
    return isinstance(error, RSEOperationNotSupported) or (
        isinstance(error.__cause__, ClientError) and status_of(error.__cause__) == 405
    )


def _may_be_one_key(error: RucioException) -> bool:
    """Return whether a storage, or botocore, may have refused a request with many keys because of one of them."""
    cause = error.__cause__
    if isinstance(cause, ClientError):
        code = cause.response.get('Error', {}).get('Code')
        # What is known to concern a whole request (expired keys, a wrong region) is another exception.
        known = not isinstance(error, (ServiceUnavailable, RSEFileNameNotSupported)) or code == 'InvalidBucketName'
        return status_of(cause) == 400 and not known
    return isinstance(cause, ParamValidationError)


def _delete_halves(connection: 'Connection', batch: list[Target]) -> dict[Target, Optional[RucioException]]:
    if len(batch) == 1:
        return {batch[0]: _delete_one(connection, batch[0])}
    middle = len(batch) // 2
    return _delete_batch(connection, batch[:middle]) | _delete_batch(connection, batch[middle:])


def list_objects(client: 'S3Client', place: Target) -> Iterator[Listed]:
    """Yield each object below a prefix. One request per 1000 objects, constant memory.

    :param client: The client.
    :param place: The bucket, and the prefix as its key.
    :raises ServiceUnavailable: if the listing is interrupted, as in :func:`list_pages`.
    """
    for page in list_pages(client, place, restores=True):
        for each in page.get('Contents', []):
            size = None if each['Size'] == UNKNOWN_SIZE else each['Size']
            yield Listed(each['Key'], size, archives.listed_class(each))


def buckets(connection: 'Connection') -> 'list[BucketTypeDef]':
    """Return the buckets that the credentials can list, with Name and perhaps CreationDate. One request.

    Those without a valid name are left out, and logged: no request could name them.

    :param connection: The storage.
    """
    found = _all_buckets(connection)
    usable = [each for each in found if is_valid('bucket', each.get('Name'))]
    if len(usable) < len(found):
        _LOGGER.warning(
            'RSE %s: the storage listed %d buckets without a valid name, which are left out. Tell its operator.',
            connection.endpoint.rse,
            len(found) - len(usable),
        )
    return usable


def list_buckets(connection: 'Connection') -> list[str]:
    """Return the names of all buckets that the credentials can list. One request.

    :param connection: The storage.
    :raises ServiceUnavailable: if one has no valid name.
    """
    who = f'RSE {connection.endpoint.rse}: the storage'
    return [checked(who, 'bucket', each.get('Name')) for each in _all_buckets(connection)]


def _all_buckets(connection: 'Connection') -> 'list[BucketTypeDef]':
    with translated('ls', Target(connection.endpoint.rse, '*')):
        return connection.client.list_buckets().get('Buckets', [])


def closes_itself(client: 'S3Client', rse: str, bucket: str, others: Iterable[str]) -> bool:
    """Return whether a bucket's policy denies something, or cannot be read though those of other buckets can.

    One request for each bucket.

    :param client: The client.
    :param rse: The name of the RSE.
    :param bucket: A bucket that refused a request.
    :param others: Other buckets, to find out whether the keys can read policies at all.
    """
    denies = _denies(client, rse, bucket)
    return any(_denies(client, rse, each) is not None for each in others) if denies is None else denies


def _denies(client: 'S3Client', rse: str, bucket: str) -> Optional[bool]:
    """Return whether a bucket's policy contains a Deny, or None if the keys cannot read it."""
    with translated('policy', Target(rse, bucket)):
        try:
            policy = json.loads(client.get_bucket_policy(Bucket=bucket)['Policy'])
        except ClientError as error:
            if status_of(error) == 403:
                return None
            if status_of(error) == 404:
                return False
            raise
        except ValueError:
            return False
    statements = policy.get('Statement') if isinstance(policy, dict) else None
    return any(
        isinstance(each, dict) and each.get('Effect') != 'Allow'
        for each in (statements if isinstance(statements, list) else [statements])
    )


def list_prefix(client: 'S3Client', place: Target) -> Iterator[str]:
    """Yield the keys directly below a prefix, and common prefixes that end in a slash. One request per 1000.

    :param client: The client.
    :param place: The bucket, and the prefix as its key.
    """
    for page in list_pages(client, place, Delimiter='/'):
        for common in page.get('CommonPrefixes', []):
            yield common['Prefix']
        for each in page.get('Contents', []):
            yield each['Key']


def list_pages(client: 'S3Client', place: Target, restores: bool = False, **options: Any) -> Iterator[Any]:
    """Yield botocore's answers to ListObjectsV2, one request each.

    botocore's paginator takes an answer that is incomplete, or has no continuation token, for the end of the listing,
    and everything after it would look deleted.

    :param client: The client.
    :param place: The bucket, and the prefix as its key.
    :param restores: Ask which archived objects were restored. One more request, if there are archived objects.
    :param options: More parameters of the first request: Delimiter, StartAfter. Only Delimiter is repeated.
    :returns: The answers. An object without a size or a date has the size :data:`UNKNOWN_SIZE`, and stops no other.
    :raises ServiceUnavailable: if there is more, but the listing cannot be continued: the pages so far are not
        complete.
    """
    last: Optional[str] = None
    first, empty = None, 0
    kept: dict[str, Any] = {name: value for name, value in options.items() if name == 'Delimiter'}
    while True:
        answer = _page(client, place, options)
        if restores and any(map(archives.listed_class, answer.get('Contents', []))):
            restores = False
            with suppress(RucioException):  # not every storage, and no signature, has it
                answer = _page(client, place, options | _RESTORES)
                kept |= _RESTORES
        token = answer.get('NextContinuationToken')
        if 'IsTruncated' not in answer or (answer['IsTruncated'] and token in (None, '', last)):
            raise _no_listing(place, 'an incomplete listing that cannot be continued')
        start = _first_name(place, answer)
        empty = 0 if start else empty + 1
        if answer['IsTruncated'] and (empty > _EMPTY_PAGES or (start and start == first)):
            raise _no_listing(place, 'a listing that makes no progress')
        first = start or first
        yield answer
        if not answer['IsTruncated']:
            return
        last = token
        options = kept | {'ContinuationToken': token}


def _page(client: 'S3Client', place: Target, options: dict[str, Any]) -> Any:
    with translated('ls', place):
        return client.list_objects_v2(Bucket=place.bucket, Prefix=place.key, **options)


def _first_name(place: Target, answer: Any) -> Optional[str]:
    """Return the first key or prefix of a page, after checking that all of them begin with the prefix.

    :raises ServiceUnavailable: if not: operations for these keys would affect others.
    """
    found, folders = answer.get('Contents', []), [each.get('Prefix') for each in answer.get('CommonPrefixes', [])]
    for each in found:
        size, date = each.get('Size'), each.get('LastModified')
        if not isinstance(size, int) or size < 0 or not isinstance(date, datetime):
            each['Size'] = UNKNOWN_SIZE
    names = [each.get('Key') for each in found] + folders
    if not all(isinstance(name, str) and name.startswith(place.key) for name in names):
        raise _no_listing(place, 'a listing with keys that do not begin with the prefix')
    return names[0] if names else None


def _no_listing(place: Target, what: str) -> ServiceUnavailable:
    return ServiceUnavailable(
        f'RSE {place.rse}: ls of {place}: the storage returned {what}. Try again later; '
        'if the problem persists, tell the operator of the storage.'
    )


def make_bucket(connection: 'Connection', target: Target) -> bool:
    """Make a bucket. One request, or two if the storage requires the region.

    :param connection: The storage.
    :param target: Its ``bucket``.
    :returns: False if it already exists and belongs to the owner of the keys.
    :raises AccessDenied: if it belongs to somebody else.
    """
    with translated('make-bucket', target):
        try:
            _create(connection, target.bucket)
        except ClientError as error:
            code = error.response.get('Error', {}).get('Code')
            if code == 'BucketAlreadyExists' and not _is_mine(connection, target.bucket):
                raise AccessDenied(
                    f"RSE {target.rse}: the bucket '{target.bucket}' belongs to somebody else on this storage. "
                    'Use another scope, or ask the operator to set a bucket_prefix for the RSE.'
                ) from None
            if code not in ('BucketAlreadyOwnedByYou', 'BucketAlreadyExists'):
                raise
            return False
    return True


def _is_mine(connection: 'Connection', bucket: str) -> bool:
    """Return whether a bucket belongs to the keys' owner: `rclone serve s3` does not say so if it is made again."""
    try:
        return bucket in [each['Name'] for each in buckets(connection)]
    except RucioException:
        return False


def _create(connection: 'Connection', bucket: str) -> None:
    try:
        connection.client.create_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response.get('Error', {}).get('Code') not in (
            'IllegalLocationConstraintException',
            'InvalidLocationConstraint',
        ):
            raise
        # AWS requires the region unless it is us-east-1; others refuse it.
        region: Any = connection.client.meta.region_name
        connection.client.create_bucket(Bucket=bucket, CreateBucketConfiguration={'LocationConstraint': region})
