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

"""What can be asked of objects without moving their bytes: stat, delete, list. Costs are in requests."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Optional

from botocore.exceptions import ClientError

from rucio.common.exception import AccessDenied, RSEAccessDenied, RucioException, ServiceUnavailable

from .answers import checked
from .errors import Target, status_of, translate, translated
from .parsing import UnreadableAnswerError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from .clients import Connection

__all__ = [
    'ObjectInfo',
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

_MD5 = re.compile(r'[0-9a-f]{32}')
_EMPTY_PAGES = 100  # of a listing, one behind the other
_DELETE_LIMIT = 1000  # keys in one DeleteObjects request
_NOT_IN_XML = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]')  # https://www.w3.org/TR/xml/#charsets
_REFUSALS = (401, 403, 405, 501)  # not allowed or not known: they say nothing of a bucket that others may ask for


@dataclass(frozen=True)
class ObjectInfo:
    """What a storage says of an object. ``md5`` (hexadecimal) and ``crc32`` (base64) only where they are of the whole
    content.
    """

    size: int
    etag: str
    md5: Optional[str] = None
    crc32: Optional[str] = None


def stat(connection: 'Connection', target: Target, operation: str = 'stat') -> ObjectInfo:
    """Size and checksums of an object: one HEAD, or with a signed URL one GET of the first byte.

    :param operation: What it is for, as error messages shall name it.
    :raises SourceNotFound: if there is no such object or bucket.
    :raises RucioException: what :mod:`.errors` makes of anything else.
    """
    with translated(operation, target):
        if connection.authorizer.whole_objects_only:
            return _first_byte(connection, target)
        extra = {'ChecksumMode': 'ENABLED'} if connection.endpoint.checksum == 'crc32' else {}
        return info(head(connection, target, **extra))


def head(connection: 'Connection', target: Target, **extra: Any) -> Any:
    """botocore's answer to HeadObject: one request, and a GET where that is refused. Errors are botocore's own."""
    try:
        return connection.client.head_object(Bucket=target.bucket, Key=target.key, **extra)
    except ClientError as error:
        if status_of(error) in (301, 400, 403):
            # The answer to a HEAD has no body, so it does not say why (keys, clock, region, ...): that to a GET does.
            connection.client.get_object(Bucket=target.bucket, Key=target.key)['Body'].close()
        raise


def _first_byte(connection: 'Connection', target: Target) -> ObjectInfo:
    """A URL that is signed for GET refuses HEAD."""
    try:
        answer = connection.client.get_object(Bucket=target.bucket, Key=target.key, Range='bytes=0-0')
    except ClientError as error:
        if status_of(error) == 416:  # no first byte
            return ObjectInfo(0, '')
        raise
    with answer['Body']:
        size = answer.get('ContentRange', '').rpartition('/')[2]
        return info({**answer, 'ContentLength': int(size)} if size.isdigit() else answer)


def info(answer: Any) -> ObjectInfo:
    """What the answer to a HEAD or GET says of the object.

    :raises UnreadableAnswerError: if that is no size.
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
        # https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html: an MD5 unless multipart or encrypted with
        # other keys
        md5=md5 if plain and _MD5.fullmatch(md5) else None,
        crc32=crc32 if crc32 and '-' not in crc32 and answer.get('ChecksumType') != 'COMPOSITE' else None,
    )


def need_version(answer: Any, etag: str) -> Any:
    """What GetObject answered with ``IfMatch``, if it is that version: `rclone serve s3` does not heed the header.

    :raises ClientError: as a storage that does (412).
    """
    came = answer.get('ETag', '')
    if etag and came and came.strip('"') != etag.strip('"'):
        answer['Body'].close()
        changed: Any = {
            'Error': {'Code': 'PreconditionFailed', 'Message': 'seen by its ETag'},
            'ResponseMetadata': {'HTTPStatusCode': 412},
        }
        raise ClientError(changed, 'GetObject')
    return answer


def exists(connection: 'Connection', target: Target) -> bool:
    """Whether there is such an object: one request as :func:`stat`. A missing bucket has no objects.

    :raises RucioException: if the storage does not say: refused, not reachable, ...
    """
    try:
        with translated('exists', target):
            if connection.authorizer.whole_objects_only:
                _first_byte(connection, target)
            else:
                head(connection, target)
    except RucioException as error:
        if isinstance(error.__cause__, ClientError) and status_of(error.__cause__) == 404:
            return False
        raise
    return True


def delete(connection: 'Connection', target: Target) -> None:
    """Delete an object: a HEAD and a DELETE, as S3's DELETE does not say that there was nothing. With a signed URL only
    the DELETE.

    Where the bucket keeps versions they stay: what is written is a delete marker, and from then on there is no such
    object.

    :raises SourceNotFound: if there is no such object (not with a signed URL), by a HEAD of its bucket, too.
    :raises ServiceUnavailable: if there is no such bucket.
    """
    with translated('delete', target):
        if not connection.authorizer.whole_objects_only:
            try:
                head(connection, target)
            except ClientError as error:
                if status_of(error) == 404:
                    _need_bucket(connection, target)
                # Who wrote it may have hidden it, by an access list or a key of his own: what cannot be read can still
                # be deleted.
                if status_of(error) not in (400, 403):
                    raise
        connection.client.delete_object(Bucket=target.bucket, Key=target.key)


def _need_bucket(connection: 'Connection', target: Target) -> None:
    """Were the RSE's prefix mistyped, or its storage half down, Rucio's reaper would take all of its files for
    deleted.
    """
    try:
        connection.client.head_bucket(Bucket=target.bucket)
    except ClientError as error:
        if status_of(error) == 404:
            answer: Any = {'Error': {'Code': 'NoSuchBucket'}, 'ResponseMetadata': {'HTTPStatusCode': 404}}
            raise ClientError(answer, 'HeadBucket') from error
        if status_of(error) not in _REFUSALS:
            raise
    except RSEAccessDenied:  # keys that are for one part of the bucket
        return


def delete_many(connection: 'Connection', targets: Iterable[Target]) -> dict[Target, Optional[RucioException]]:
    """Delete many objects, one request for each 1000 keys of a bucket, and one for each key that XML cannot hold.

    What is missing counts as deleted: S3 does not tell.

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
    # Twice the same key in one request is an error for some storages.
    by_key = {target.key: target for target in batch}
    result: dict[Target, Optional[RucioException]] = dict.fromkeys(batch)
    try:
        with translated('delete', batch[0]._replace(key='')):
            answer = connection.client.delete_objects(
                Bucket=batch[0].bucket, Delete={'Objects': [{'Key': key} for key in by_key], 'Quiet': True}
            )
    except RucioException as error:
        return dict.fromkeys(batch, error)
    for failure in answer.get('Errors', []):
        code = failure.get('Code', '')
        if code != 'NoSuchKey':
            said: Any = {'Error': {'Code': code, 'Message': failure.get('Message', '')}}
            # What was not asked for says nothing good of the others.
            for target in [by_key[failure['Key']]] if failure.get('Key') in by_key else batch:
                result[target] = translate(ClientError(said, 'DeleteObjects'), 'delete', target)
    return result


def list_objects(client: 'S3Client', place: Target) -> Iterator[tuple[str, int]]:
    """Key and size of each object whose key starts with that of ``place``: one request for each 1000, constant memory.

    :raises ServiceUnavailable: if the storage breaks off the listing, as :func:`list_pages`.
    """
    for page in list_pages(client, place):
        for each in page.get('Contents', []):
            yield each['Key'], each['Size']


def list_buckets(connection: 'Connection') -> list[str]:
    """The names of the buckets that the credentials in use may list: one request."""
    with translated('ls', Target(connection.endpoint.rse, '*')):
        answer = connection.client.list_buckets()
    who = f'RSE {connection.endpoint.rse}: the storage'
    return [checked(who, 'bucket', each.get('Name')) for each in answer.get('Buckets', [])]


def closes_itself(client: 'S3Client', rse: str, bucket: str, others: Iterable[str]) -> bool:
    """Whether the policy of a bucket denies something, or hides itself where the keys may read those of other buckets.
    A request for each bucket.

    :param bucket: A bucket that refused something.
    :param others: Some others, for keys that may read no policy.
    """
    denies = _denies(client, rse, bucket)
    return any(_denies(client, rse, each) is not None for each in others) if denies is None else denies


def _denies(client: 'S3Client', rse: str, bucket: str) -> Optional[bool]:
    """Whether there is a Deny in the policy of a bucket; None where the keys may not read it."""
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
    """What lies directly below the key of ``place``: keys, and common prefixes that end in a slash. One request for
    each 1000.
    """
    for page in list_pages(client, place, Delimiter='/'):
        for common in page.get('CommonPrefixes', []):
            yield common['Prefix']
        for each in page.get('Contents', []):
            yield each['Key']


def list_pages(client: 'S3Client', place: Target, **options: Any) -> Iterator[Any]:
    """botocore's answers to ListObjectsV2, one request for each. By hand: its paginator takes an answer that says
    nothing, or does not say how to go on, for the end, and all that is behind it for deleted.

    :param options: More of the first request: Delimiter, StartAfter. Only a Delimiter is said again in the next ones.
    :raises ServiceUnavailable: if the storage says that there is more, but not how to go on: what was yielded before is
        not all that there is.
    """
    last: Optional[str] = None
    first, empty = None, 0
    while True:
        with translated('ls', place):
            answer = client.list_objects_v2(Bucket=place.bucket, Prefix=place.key, **options)
        token = answer.get('NextContinuationToken')
        if 'IsTruncated' not in answer or (answer['IsTruncated'] and token in (None, '', last)):
            raise _no_listing(place, 'a listing that is not complete and cannot be continued')
        start = _first_name(place, answer)
        empty = 0 if start else empty + 1
        if answer['IsTruncated'] and (empty > _EMPTY_PAGES or (start and start == first)):
            raise _no_listing(place, 'a listing that does not go on')
        first = start or first
        yield answer
        if not answer['IsTruncated']:
            return
        last = token
        options = {name: value for name, value in options.items() if name == 'Delimiter'} | {'ContinuationToken': token}


def _first_name(place: Target, answer: Any) -> Optional[str]:
    """The first key or prefix of a page, all of which is what was asked for.

    :raises ServiceUnavailable: if it is not: to keys elsewhere, others' for instance, would be done what is meant for
        these.
    """
    found, folders = answer.get('Contents', []), [each.get('Prefix') for each in answer.get('CommonPrefixes', [])]
    for each in found:
        if (
            not isinstance(each.get('Size'), int)
            or each['Size'] < 0
            or not isinstance(each.get('LastModified'), datetime)
        ):
            raise _no_listing(place, 'a listing with an object without a size or a date')
    names = [each.get('Key') for each in found] + folders
    if not all(isinstance(name, str) and name.startswith(place.key) for name in names):
        raise _no_listing(place, 'a listing with keys that do not begin as they should')
    return names[0] if names else None


def _no_listing(place: Target, what: str) -> ServiceUnavailable:
    return ServiceUnavailable(
        f'RSE {place.rse}: ls of {place}: the storage answered with {what}. Try again later; '
        'if it stays so, tell the operator of the storage.'
    )


def make_bucket(connection: 'Connection', target: Target) -> bool:
    """Make a bucket: one request, or two where the storage wants its region to be named.

    :param target: Its ``bucket``.
    :returns: False if there is one already that belongs to the owner of the keys.
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
                    'Use another scope, or have the operator set a bucket_prefix for the RSE.'
                ) from None
            if code not in ('BucketAlreadyOwnedByYou', 'BucketAlreadyExists'):
                raise
            return False
    return True


def _is_mine(connection: 'Connection', bucket: str) -> bool:
    """Whether a bucket is among those of the keys' owner: `rclone serve s3` does not say so when it is made again."""
    try:
        return bucket in [each['Name'] for each in connection.client.list_buckets().get('Buckets', [])]
    except ClientError:
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
        # AWS wants the region to be said where it is not us-east-1; others refuse it.
        region: Any = connection.client.meta.region_name
        connection.client.create_bucket(Bucket=bucket, CreateBucketConfiguration={'LocationConstraint': region})
