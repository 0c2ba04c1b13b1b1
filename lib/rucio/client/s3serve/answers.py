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

"""What a tool gets of a storage's answer: headers that mean something, and XML with the names that the tool knows.

Answers of storages are untrusted. Pure functions.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple, Optional
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree

from .refusals import Refusal

if TYPE_CHECKING:
    from .places import Place

__all__ = [
    'Deleted',
    'buckets',
    'copied',
    'deleted',
    'headers',
    'keys_to_delete',
    'location',
    'refusal',
    'renamed',
    'root_of',
    'shared',
]

MOST_KEYS = 1000
MOST_BUCKETS = 10_000  # in a page
_NAMESPACE = 'http://s3.amazonaws.com/doc/2006-03-01/'
_HEADERS = frozenset(
    [
        'accept-ranges',
        'cache-control',
        'content-disposition',
        'content-encoding',
        'content-language',
        'content-length',
        'content-range',
        'content-type',
        'etag',
        'expires',
        'last-modified',
    ]
)
_NOT_OURS = ('x-amz-security-token', 'x-amz-bucket-region', 'x-amz-id-2')
_CODE = re.compile(r'[A-Za-z0-9.]{1,64}')
# The tool's own keys are right: these are about those of the storage.
_OF_KEYS = frozenset(
    [
        'ExpiredToken',
        'InvalidAccessKeyId',
        'InvalidToken',
        'RequestTimeTooSkewed',
        'SignatureDoesNotMatch',
        'TokenRefreshRequired',
        'XAdminUserNotFound',
    ]
)
_BY_STATUS = {403: 'AccessDenied', 404: 'NoSuchKey', 412: 'PreconditionFailed', 416: 'InvalidRange'}
_ATTRIBUTES = frozenset(['Checksum', 'ETag', 'ObjectParts', 'ObjectSize', 'StorageClass'])
_SUMS = ('crc32', 'crc32c', 'crc64nvme', 'sha1', 'sha256')
_KEYS = ('Key', 'Prefix', 'Marker', 'NextMarker', 'StartAfter', 'KeyMarker', 'NextKeyMarker')


def headers(given: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of an answer that a tool gets: no hop-by-hop headers, cookies or redirections.

    :param given: The headers of the storage.
    """
    return {
        name: value
        for name, value in given.items()
        if name.lower() in _HEADERS or (name.lower().startswith('x-amz-') and name.lower() not in _NOT_OURS)
    }


def root_of(body: bytes) -> ElementTree.Element:
    """Parse XML from outside, without entities; the names of its elements lose their namespaces.

    :param body: The XML.
    :raises ValueError: if it is not XML, or has a document type.
    """
    if b'<!' in body or b'\0' in body:
        raise ValueError
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - without <! there are no entities
    except ElementTree.ParseError:
        raise ValueError from None
    for each in root.iter():
        each.tag = each.tag.rpartition('}')[2]
        each.attrib.clear()
    return root


def refusal(status: int, body: bytes, place: 'Place', shown: str) -> Refusal:
    """Return the error of a storage as the tool gets it.

    :param status: The HTTP status.
    :param body: The body of the answer.
    :param place: The storage.
    :param shown: The bucket and key, as the tool names them.
    """
    try:
        root = root_of(body)
        code, message = root.findtext('Code') or '', root.findtext('Message') or ''
    except ValueError:
        code, message = '', ''
    if code in _OF_KEYS:
        return Refusal('AccessDenied', f'RSE {place.endpoint.rse} refuses the keys or signatures of Rucio: {code}.')
    if 300 <= status < 400:
        return Refusal(
            'InternalError',
            f"RSE {place.endpoint.rse} redirects requests ({status}): its operator must set 'region' or the hostname.",
        )
    if not _CODE.fullmatch(code):
        code = _BY_STATUS.get(status, 'InternalError' if status != 503 else 'SlowDown')
    status = status if status >= 400 else 500
    return Refusal(code, f'{shown}: {message or status} (RSE {place.endpoint.rse})', status)


def renamed(root: ElementTree.Element, place: 'Place', bucket: str, url: str) -> bytes:
    """Return XML of a storage with the bucket and the keys as the tool knows them.

    :param root: The answer.
    :param place: Where the bucket is.
    :param bucket: The bucket, as the tool names it.
    :param url: The URL of the object at this endpoint.
    :raises ValueError: if it has a key that is not in this place.
    """
    is_encoded = root.findtext('EncodingType') == 'url'
    for parent in list(root.iter()):
        for owner in [each for each in parent if each.tag in ('Owner', 'Initiator')]:
            parent.remove(owner)  # users of the storage, who mean nothing to users of Rucio
    for each in root.iter():
        if each.tag in ('Name', 'Bucket'):
            each.text = bucket
        elif each.tag == 'Location':
            each.text = url
        elif each.tag in _KEYS and each.text and place.base and not len(each):
            each.text = _name(each.text, place.base, is_encoded)
    root.set('xmlns', _NAMESPACE)
    return bytes(ElementTree.tostring(root, 'utf-8', xml_declaration=True))


def _name(text: str, base: str, is_encoded: bool) -> str:
    key = unquote_plus(text) if is_encoded else text
    if not key.startswith(base):
        raise ValueError
    name = key[len(base) :]
    return quote(name) if is_encoded else name


def buckets(named: Iterable[tuple[str, Optional[str]]], account: str, query: Mapping[str, str]) -> bytes:
    """Return the answer of ListBuckets.

    :param named: The names of the buckets in their order, and when they were created.
    :param account: The account.
    :param query: The query: ``prefix``, ``max-buckets`` and ``continuation-token``, the last bucket of the page before.
    :raises Refusal: if ``max-buckets`` is not possible.
    """
    prefix, after = query.get('prefix', ''), query.get('continuation-token', '')
    most = query.get('max-buckets', str(MOST_BUCKETS))
    if not re.fullmatch('[0-9]{1,5}', most) or not 0 < int(most) <= MOST_BUCKETS:
        raise Refusal('InvalidArgument', f'max-buckets must be 1 to {MOST_BUCKETS}.')
    left = [each for each in named if each[0].startswith(prefix) and each[0] > after]
    page = left[: int(most)]
    root = ElementTree.Element('ListAllMyBucketsResult', xmlns=_NAMESPACE)
    owner = ElementTree.SubElement(root, 'Owner')
    _text(owner, 'ID', account)
    _text(owner, 'DisplayName', account)
    listed = ElementTree.SubElement(root, 'Buckets')
    for name, created in page:
        bucket = ElementTree.SubElement(listed, 'Bucket')
        _text(bucket, 'Name', name)
        _text(bucket, 'CreationDate', (created or '1970-01-01T00:00:00Z').replace('Z', '.000Z'))
    if prefix:
        _text(root, 'Prefix', prefix)
    if len(page) < len(left):
        _text(root, 'ContinuationToken', page[-1][0])
    return bytes(ElementTree.tostring(root, 'utf-8', xml_declaration=True))


def shared(bucket: str, query: Mapping[str, str], names: Iterable[str]) -> bytes:
    """Return a listing of the collections in a bucket that are shared with the account, as folders.

    :param bucket: The bucket.
    :param query: The query of a ListObjects or ListObjectsV2.
    :param names: The names of the collections.
    """
    prefix, second = query.get('prefix', ''), query.get('list-type') == '2'
    after = query.get('continuation-token') or query.get('start-after') or query.get('marker') or ''
    most = int(number) if (number := query.get('max-keys', '')).isdecimal() else MOST_KEYS
    folders = {prefix + f'{name}/'[len(prefix) :].partition('/')[0] + '/' for name in names}
    left = sorted(each for each in folders if each > after)
    found, is_encoded = left[: min(most, MOST_KEYS)], query.get('encoding-type') == 'url'
    root = ElementTree.Element('ListBucketResult', xmlns=_NAMESPACE)
    told = {'Name': bucket, 'Prefix': quote(prefix) if is_encoded else prefix, 'Delimiter': '/', 'MaxKeys': str(most)}
    told |= {'EncodingType': 'url'} if is_encoded else {}
    told |= {'KeyCount': str(len(found))} if second else {}
    told['IsTruncated'] = str(len(found) < len(left)).lower()
    if found and len(found) < len(left):
        told |= (
            {'NextContinuationToken': found[-1]}
            if second
            else {'NextMarker': quote(found[-1]) if is_encoded else found[-1]}
        )
    for name, text in told.items():
        _text(root, name, text)
    for each in found:
        _text(ElementTree.SubElement(root, 'CommonPrefixes'), 'Prefix', quote(each) if is_encoded else each)
    return bytes(ElementTree.tostring(root, 'utf-8', xml_declaration=True))


def location() -> bytes:
    """Return the answer of GetBucketLocation: any region will do here, and this one is written as nothing."""
    root = ElementTree.Element('LocationConstraint', xmlns=_NAMESPACE)
    return bytes(ElementTree.tostring(root, 'utf-8', xml_declaration=True))


def attributes_asked(header: str) -> frozenset[str]:
    """Return the attributes that a GetObjectAttributes asks for.

    :param header: The value of ``x-amz-object-attributes``.
    :raises Refusal: if it is missing, or one of them does not exist.
    """
    asked = frozenset(each.strip() for each in header.split(',') if each.strip())
    if not asked or asked - _ATTRIBUTES:
        raise Refusal('InvalidArgument', f'x-amz-object-attributes must be some of {", ".join(sorted(_ATTRIBUTES))}.')
    return asked


def attributes(given: Mapping[str, str], asked: Collection[str]) -> bytes:
    """Return the answer of GetObjectAttributes, without the parts of multipart uploads.

    :param given: The headers of the answer of a HeadObject.
    :param asked: The attributes.
    """
    found = {name.lower(): value for name, value in given.items()}
    root = ElementTree.Element('GetObjectAttributesResponse', xmlns=_NAMESPACE)
    if 'ETag' in asked and 'etag' in found:
        _text(root, 'ETag', found['etag'].strip('"'))
    sums = {
        f'Checksum{name.upper()}': found[f'x-amz-checksum-{name}']
        for name in _SUMS
        if f'x-amz-checksum-{name}' in found
    }
    if 'Checksum' in asked and sums:
        parent = ElementTree.SubElement(root, 'Checksum')
        for name, value in sums.items():
            _text(parent, name, value)
        if 'x-amz-checksum-type' in found:
            _text(parent, 'ChecksumType', found['x-amz-checksum-type'])
    if 'StorageClass' in asked:
        _text(root, 'StorageClass', found.get('x-amz-storage-class', 'STANDARD'))
    if 'ObjectSize' in asked:
        _text(root, 'ObjectSize', found.get('content-length', '0'))
    return bytes(ElementTree.tostring(root, 'utf-8', xml_declaration=True))


def keys_to_delete(body: bytes) -> tuple[list[str], bool]:
    """Return the keys of a DeleteObjects, and whether only errors are to be answered.

    :param body: The body of the request.
    :raises Refusal: if it is anything else, or has versions.
    """
    try:
        root = root_of(body)
    except ValueError:
        raise Refusal('MalformedXML', 'The body of DeleteObjects is not plain XML.') from None
    objects = root.findall('Object')
    if root.tag != 'Delete' or not 0 < len(objects) <= MOST_KEYS:
        raise Refusal('MalformedXML', f'The body of DeleteObjects must be <Delete> with 1 to {MOST_KEYS} keys.')
    keys = []
    for each in objects:
        if {child.tag for child in each if child.text} != {'Key'}:
            raise Refusal('NotImplemented', 'DeleteObjects only takes keys here: no versions and no conditions.')
        keys.append(each.findtext('Key') or '')
    return keys, (root.findtext('Quiet') or '').strip() == 'true'


def copied(name: str, etag: str) -> bytes:
    """Return the answer of CopyObject or UploadPartCopy.

    :param name: The name of its element.
    :param etag: The ETag of the copy.
    """
    root = ElementTree.Element(name, xmlns=_NAMESPACE)
    _text(root, 'LastModified', f'{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%S.000Z}')
    _text(root, 'ETag', etag)
    return bytes(ElementTree.tostring(root, 'utf-8', xml_declaration=True))


class Deleted(NamedTuple):
    """What became of one key of a DeleteObjects."""

    key: str
    refusal: Optional[Refusal]


def deleted(results: Iterable[Deleted], quiet: bool) -> bytes:
    """Return the answer of DeleteObjects.

    :param results: The result of each key.
    :param quiet: Whether only errors are to be answered.
    """
    root = ElementTree.Element('DeleteResult', xmlns=_NAMESPACE)
    for result in results:
        if result.refusal is None and not quiet:
            _text(ElementTree.SubElement(root, 'Deleted'), 'Key', result.key)
        elif result.refusal is not None:
            error = ElementTree.SubElement(root, 'Error')
            _text(error, 'Key', result.key)
            _text(error, 'Code', result.refusal.code)
            _text(error, 'Message', result.refusal.message)
    return bytes(ElementTree.tostring(root, 'utf-8', xml_declaration=True))


def _text(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, name).text = text
