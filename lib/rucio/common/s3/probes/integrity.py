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

"""Behaviours: whether the storage verifies what it receives, and which checksums it wants and keeps."""

import hashlib
from typing import Any

from botocore.exceptions import ClientError

from .behaviour import KEPT, behaviour, crc32, md5, said, yes
from .place import ProbeBucket

PART = 5 * 1024**2
_CHECKSUMS = ('content-md5', 'x-amz-checksum-', 'x-amz-sdk-checksum-', 'x-amz-trailer')


@behaviour(
    'What was received', 'PUT with a wrong `x-amz-checksum-crc32`', '`checksum = crc32` only where it is refused'
)
def wrong_crc32(place: ProbeBucket) -> str:
    return said(lambda: place.put(b'content', ChecksumCRC32=crc32(b'another')), 'accepted')


@behaviour(
    'What was received',
    'UploadPart with a wrong `x-amz-checksum-crc32`',
    'as above, for files of `multipart_threshold` and more',
)
def wrong_crc32_of_a_part(place: ProbeBucket) -> str:
    return _part(place, 'accepted', {'ChecksumAlgorithm': 'CRC32'}, ChecksumCRC32=crc32(b'another'))


def _part(place: ProbeBucket, ok: str, kind: dict[str, Any], **checksum: str) -> str:
    """Upload one part of an upload that is not completed."""
    key = place.key()
    upload, _ = place.begin(key, **kind)
    part = {'Bucket': place.bucket, 'Key': key, 'UploadId': upload, 'PartNumber': 1, 'Body': b'content'}
    return said(lambda: place.s3.upload_part(**part, **checksum), ok)


@behaviour(
    'What was received',
    'PUT and UploadPart with the CRC32 that boto3 adds',
    '`checksum = crc32` sends it: over http in a header, over https after the body',
)
def crc32_as_sent(place: ProbeBucket) -> str:
    key = place.put(b'content', ChecksumAlgorithm='CRC32')
    answer = _part(place, 'yes', {'ChecksumAlgorithm': 'CRC32'}, ChecksumAlgorithm='CRC32')
    return answer if answer != 'yes' else yes(place.get(key) == b'content')


@behaviour(
    'What was received',
    'HEAD tells the CRC32 that a PUT brought',
    'where `checksum = crc32`, downloads are compared with it',
)
def crc32_is_told(place: ProbeBucket) -> str:

    def told(content: bytes) -> bool:
        key = place.put(b'content', ChecksumCRC32=crc32(content))
        answer = place.s3.head_object(Bucket=place.bucket, Key=key, ChecksumMode='ENABLED')
        return bool(answer.get('ChecksumCRC32') == crc32(content))

    if not told(b'content'):
        return 'no'
    try:
        return 'yes, and a wrong one' if told(b'another') else KEPT
    except ClientError:
        return KEPT


@behaviour('What was received', 'PUT with a wrong `Content-MD5`', '`checksum = md5` where CRC32 is not verified')
def wrong_md5(place: ProbeBucket) -> str:
    return said(lambda: place.put(b'content', ContentMD5=md5(b'another')), 'accepted')


@behaviour(
    'What was received',
    'UploadPart with a wrong `Content-MD5`',
    'as above, for files of `multipart_threshold` and more',
)
def wrong_md5_of_a_part(place: ProbeBucket) -> str:
    return _part(place, 'accepted', {}, ContentMD5=md5(b'another'))


@behaviour(
    'What was received',
    'DeleteObjects with a CRC32 and no `Content-MD5`',
    'as boto3 sends it since 1.36; rucio-s3 always adds the MD5',
    needs=['signed'],
)
def without_md5(place: ProbeBucket) -> str:
    return _deleted(place, 'content-md5')


@behaviour(
    'What was received',
    'DeleteObjects with `Content-MD5` and no CRC32',
    'as rucio-s3 sends it where `checksum` is not crc32',
    needs=['signed'],
)
def without_crc32(place: ProbeBucket) -> str:
    return _deleted(place, *_CHECKSUMS[1:])


def _deleted(place: ProbeBucket, *without: str) -> str:
    key = place.put()

    def change(request: Any) -> None:
        request.headers['Content-MD5'] = md5(request.body)
        for name in [each for each in request.headers if each.lower().startswith(without)]:
            del request.headers[name]

    with place.before_signing('DeleteObjects', change):
        answer = said(lambda: place.s3.delete_objects(Bucket=place.bucket, Delete={'Objects': [{'Key': key}]}))
    return answer if answer != 'yes' or key not in place.listed(Prefix=key) else 'not deleted'


@behaviour(
    'What was received',
    'a multipart object with one CRC32 for all of it (`FULL_OBJECT`)',
    '`full_object_checksum`: downloads of large files are compared with it',
)
def full_object(place: ProbeBucket) -> str:
    key, parts = place.key(), [b'a' * PART, b'b']
    whole = crc32(b''.join(parts))
    answer = said(lambda: _upload_whole(place, key, parts, ''))  # as uploads do, which learn it as they send
    if answer != 'yes':
        return answer
    told = place.s3.head_object(Bucket=place.bucket, Key=key, ChecksumMode='ENABLED')
    if told.get('ChecksumCRC32') != whole:
        return 'no'
    refused = said(lambda: _upload_whole(place, key, parts, crc32(b'another')))
    return KEPT if refused != 'yes' else 'kept, not verified'


def _upload_whole(place: ProbeBucket, key: str, parts: list[bytes], total: str) -> None:
    upload, _ = place.begin(key, ChecksumAlgorithm='CRC32', ChecksumType='FULL_OBJECT')
    done = []
    for number, part in enumerate(parts, 1):
        named = {'Bucket': place.bucket, 'Key': key, 'UploadId': upload, 'PartNumber': number}
        sent = place.s3.upload_part(**named, Body=part, ChecksumCRC32=crc32(part))
        done.append({'PartNumber': number, 'ETag': sent['ETag'], 'ChecksumCRC32': crc32(part)})
    more = {'ChecksumCRC32': total} if total else {}
    place.complete(key, (upload, done), ChecksumType='FULL_OBJECT', **more)


@behaviour(
    'ETags',
    'the ETag of a PUT is the MD5 of the object',
    '`etag_is_md5`: the reconciler then compares without a request for each object',
)
def etag_is_md5(place: ProbeBucket) -> str:
    return yes(place.etag(place.put(b'content')) == hashlib.md5(b'content', usedforsecurity=False).hexdigest())


@behaviour('ETags', 'CopyObject gives the copy of a PUT its MD5 as ETag', '`etag_is_md5` holds for copies, too')
def etag_of_a_copy(place: ProbeBucket) -> str:
    source, key = place.put(), place.key()
    place.copy(source, key)
    return yes(place.etag(key) == hashlib.md5(b'content', usedforsecurity=False).hexdigest())


@behaviour(
    'Deleting',
    'DeleteObjects with another body than the one that was signed',
    '`verifies_body`: where it is deleted, the server signs DeleteObjects only for who may write all of the bucket',
    needs=['signed'],
)
def other_body(place: ProbeBucket) -> str:
    mine, other = place.put(), place.put()
    body = f'<Delete><Object><Key>{other}</Key></Object></Delete>'.encode()

    def strip(request: Any) -> None:
        for name in [each for each in request.headers if each.lower().startswith(_CHECKSUMS)]:
            del request.headers[name]

    def swap(request: Any) -> None:
        request.body = body
        request.headers['Content-Length'] = str(len(body))
        request.headers['Content-MD5'] = md5(body)

    with place.before_signing('DeleteObjects', strip), place.after_signing('DeleteObjects', swap):
        answer = said(lambda: place.s3.delete_objects(Bucket=place.bucket, Delete={'Objects': [{'Key': mine}]}))
    return 'deleted' if other not in place.listed(Prefix=other) else answer
