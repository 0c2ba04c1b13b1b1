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

"""Validation of requests to be signed: what they access, and whether they can be signed at all.

A signature is for bytes, which storages may interpret differently: so only requests that all storages interpret in the
same way are accepted. All lists here are allow-lists; everything else is refused. Nothing here sends a request or knows
a secret.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Optional
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from rucio.common.exception import AccessDenied, InputValidationError
from rucio.common.s3.operations import Operation, find

if TYPE_CHECKING:
    from rucio.common.s3.endpoint import Endpoint

__all__ = ['CheckedRequest', 'Touch', 'check']

MAX_URI = 8192
MAX_HEADERS = 64
MAX_HEADER_VALUE = 4096
MAX_KEY_BYTES = 1024
MAX_TOKEN_BYTES = 4096  # the position at which a listing continues
MAX_DECODINGS = 3
MAX_DELETES = 1000  # https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html

UNSIGNED, UNSIGNED_TRAILER = 'UNSIGNED-PAYLOAD', 'STREAMING-UNSIGNED-PAYLOAD-TRAILER'
NO_BODY = hashlib.sha256(b'').hexdigest()


class Touch(NamedTuple):
    """A permission that a request needs.

    ``name``: a key; ending with a slash, everything below it; empty: the whole bucket.
    """

    bucket: str
    name: str
    write: bool


class CheckedRequest(NamedTuple):
    """A valid request, which may be signed if everything that it accesses is allowed."""

    operation: str
    method: str
    uri: str
    headers: dict[str, str]  # to sign; names in lower case
    guards: dict[str, str]  # also signed; the client has to send them
    payload: str  # x-amz-content-sha256
    touches: tuple[Touch, ...]
    lockable: str  # a bucket: the sender could lock the object, if the bucket has object lock; empty: it could not
    any_body: bool  # the storage would accept another body with this signature, and access other objects
    keys: int  # in the body
    length: Optional[int]  # the bytes that it stores; None: not known
    part: Optional[str]  # which part of which upload it stores; None: an object

    @property
    def stores(self) -> bool:
        """Whether it stores bytes: an object, or a part of one."""
        return self.operation in _STORING


def _fields(names: str) -> frozenset[str]:
    return frozenset(names.split())


# An upload id may be a directory name on the storage: no slashes, and no dots that lead out of it.
_NUMBER = r'[1-9][0-9]{0,4}'
_VALUES = {
    'partNumber': _NUMBER,
    'max-keys': _NUMBER,
    'max-parts': _NUMBER,
    'max-uploads': _NUMBER,
    'upload-id-marker': r'(?!.*\.\.)[A-Za-z0-9._~=+-]{0,1024}',
    'part-number-marker': r'[0-9]{1,5}',
    'uploadId': r'(?!.*\.\.)[A-Za-z0-9_~=+-][A-Za-z0-9._~=+-]{0,1023}',
    'uploads': '',
    'delete': '',
    'location': '',
    'list-type': '2',
    'encoding-type': 'url',
    'fetch-owner': 'true|false',
}

# Headers that are signed. Others may be sent unsigned, except those that begin with x-amz-.
_HEADERS = _fields(
    'cache-control content-disposition content-encoding content-language content-length content-md5 content-type '
    'expires range if-match if-none-match if-modified-since if-unmodified-since x-amz-content-sha256 '
    'x-amz-decoded-content-length x-amz-mp-object-size x-amz-sdk-checksum-algorithm x-amz-trailer'
)
_HEADER_FAMILIES = ('x-amz-checksum-', 'x-amz-meta-')
_COPY_HEADERS = _fields(
    'x-amz-copy-source x-amz-copy-source-range x-amz-copy-source-if-match x-amz-copy-source-if-none-match '
    'x-amz-copy-source-if-modified-since x-amz-copy-source-if-unmodified-since x-amz-metadata-directive'
)
_SET_HERE = _fields('x-amz-date')
_PAYER = 'x-amz-request-payer'

_BUCKET = re.compile(r'(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]')
_URI = re.compile(
    r'(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?P<port>:[0-9]{1,5})?/(?P<path>[^?]*)(?:\?(?P<query>.+))?'
)
_TOKEN = re.compile(r'[A-Za-z0-9-]{1,128}')
_TEXT = re.compile(r'[ -~]*')
_LENGTH = re.compile(r'0|[1-9][0-9]{0,17}')
_SPAN = re.compile(r'bytes=(?P<first>[0-9]{1,18})-(?P<last>[0-9]{1,18})')
_SHA256 = re.compile(r'[0-9a-f]{64}')
_S3_XML = '{http://s3.amazonaws.com/doc/2006-03-01/}'

# Headers that some storages obey although they are not signed. With one of them, a request could access another object
# than the one that was allowed, or change its attributes, so they are signed with harmless values. Measured: without
# them, SeaweedFS 4.48 serves any object for a signed key that ends with its path (prefix), and Ceph RGW 16 copies any
# object to a signed key (copy), makes it public or unreadable even to the server (acl), and tags it (attributes). RGW
# refuses every value of x-amz-object-lock-... in most buckets: see _CREATING.
_GUARDS = {
    'prefix': {'x-forwarded-prefix': ''},
    'host': {'x-forwarded-host': ''},
    'copy': {'x-amz-copy-source-range': 'nothing', 'x-amz-copy-source-if-match': '"nothing"'},
    # RGW refuses x-amz-grant-... together with it.
    'acl': {'x-amz-acl': 'private'},
    # Equivalent to no header.
    'attributes': {'x-amz-tagging': '', 'x-amz-storage-class': ''},
}
_CREATING = ('PutObject', 'CopyObject', 'CreateMultipartUpload')
_WITH_BODY = ('PutObject', 'UploadPart')
_STORING = (*_WITH_BODY, 'CopyObject', 'UploadPartCopy')
_GUARDED_OPERATIONS = {
    'copy': ('PutObject', 'UploadPart'),
    'acl': _CREATING,
    'attributes': _CREATING,
}  # the other guards: all operations


def check(request: Any, endpoint: 'Endpoint', max_keys: int = MAX_DELETES) -> CheckedRequest:
    """Validate a request, and find out what it accesses. No request is sent.

    :param request: The request as in the REST interface: method, uri, headers {name: [values]}, and for DeleteObjects
        the body in base64.
    :param endpoint: The storage that it must be for.
    :param max_keys: The maximum number of keys in the body.
    :returns: The request, and everything that it accesses.
    :raises InputValidationError: if it is ambiguous.
    :raises AccessDenied: if it is for another host, or not an operation that is signed.
    """
    if not isinstance(request, Mapping):
        _malformed('a request must be an object with method, uri and headers')
    method, uri = request.get('method'), request.get('uri')
    headers = _read_headers(request.get('headers') or {}, endpoint)
    if not isinstance(method, str) or not isinstance(uri, str):
        _malformed('method and uri must be strings')
    bucket, key, query = _read_uri(uri, endpoint)
    if headers.pop('host', (host := uri.split('/')[2])).lower() != host.lower():
        _refuse(f"the header 'host' differs from the host of the uri, '{host}'")
    copies = 'x-amz-copy-source' in headers
    operation = _operation(method, 'key' if key else 'bucket', query, copies=copies)
    if not copies and (extra := _COPY_HEADERS & headers.keys()):
        _refuse(f"'{min(extra)}' is only for copies, but the operation is {operation.name}")
    body = _read_body(request.get('body')) if operation.name == 'DeleteObjects' else None
    if operation.name == 'DeleteObjects' and body is None:
        _malformed('DeleteObjects needs its body in the request to be signed')
    keys = [key or query.get('prefix', '')] if body is None else _keys_to_delete(body, max_keys)
    if operation.name == 'ListMultipartUploads':  # markers lead out of a prefix
        keys = ['']
    touches = _touches(operation, bucket, keys, headers)
    # The signature could be used to delete any other keys of the bucket.
    any_body = body is not None and not endpoint.verifies_body
    if any_body:
        touches = (Touch(bucket, '', operation.write),)
    payload = _payload(operation, headers.pop('x-amz-content-sha256', None), body, uri)
    length = _stored_length(operation, headers)
    part = f'{query["uploadId"]}/{query["partNumber"]}' if 'partNumber' in query and operation.write else ''
    lockable = bucket if operation.name in _CREATING and 'lock' in endpoint.signature_guards else ''
    return CheckedRequest(
        operation.name,
        method,
        uri,
        headers,
        _guards(endpoint, operation),
        payload,
        touches,
        lockable,
        any_body,
        0 if body is None else len(keys),
        length,
        hashlib.sha256(part.encode()).hexdigest() if part else None,
    )


def _guards(endpoint: 'Endpoint', operation: Operation) -> dict[str, str]:
    wanted = (
        each
        for each in endpoint.signature_guards
        if each in _GUARDS and operation.name in _GUARDED_OPERATIONS.get(each, (operation.name,))
    )
    return {name: value for each in wanted for name, value in _GUARDS[each].items()}


def _refuse(reason: str) -> NoReturn:
    raise AccessDenied(f'The request is not signed: {reason}.')


def _malformed(reason: str) -> NoReturn:
    raise InputValidationError(f'The request cannot be signed: {reason}.')


# The URI


def _read_uri(uri: str, endpoint: 'Endpoint') -> tuple[str, str, dict[str, str]]:
    """Return bucket, key (empty: the bucket itself) and query, decoded."""
    # Not by urlsplit: it drops some characters, which would change the URI.
    if len(uri) > MAX_URI or (found := _URI.fullmatch(uri)) is None:
        _malformed('its uri is not a plain scheme://host:port/bucket/key?query')
    path = _decoded(found['path'], 'path of its uri', '/')
    own_scheme, _, own_host = endpoint.url.partition('://')
    host = (found['host'] + (found['port'] or '')).lower()
    if found['scheme'] == own_scheme and host == own_host.lower():
        bucket, _, key = path.partition('/')
    elif found['scheme'] == own_scheme and endpoint.addressing == 'virtual' and host.endswith(f'.{own_host.lower()}'):
        bucket, key = host[: -len(own_host) - 1], path
    else:
        _refuse(f'its uri is not at RSE {endpoint.rse}, whose endpoint is {endpoint.url}')
    if not _BUCKET.fullmatch(bucket):
        _refuse(f"'{bucket}' is not a valid bucket name")
    return bucket, key, _read_query(found['query'])


def _decoded(text: str, what: str, safe: str = '') -> str:
    """Decode percent-encoding, which must be exactly as S3 prescribes.

    Other encodings may be interpreted differently.
    """
    try:
        decoded = unquote(text, errors='strict')
    except UnicodeDecodeError:
        _malformed(f'the {what} is not UTF-8')
    if quote(decoded, safe=f'{safe}-_.~') != text:
        _malformed(
            f'the {what} is not encoded as S3 prescribes, or encoded more than once: use '
            f'{quote(decoded, safe=f"{safe}-_.~")}'
        )
    return decoded


def _spellings(key: str, what: str = 'key', limit: int = MAX_KEY_BYTES) -> list[str]:
    """Return a key with all its possible interpretations.

    Some storages decode percent-encoding again, some treat a//b as a/b.

    :raises InputValidationError: if one of them would lead elsewhere.
    """
    if len(key.encode()) > limit:
        _malformed(f'the {what} is longer than {limit} bytes')
    spellings = [key]
    while (again := unquote(spellings[-1])) != spellings[-1]:
        if len(spellings) == MAX_DECODINGS:
            _malformed(f"the {what} '{key}' is encoded too many times")
        spellings.append(again)
    for each in spellings:
        segments = each.split('/')
        if '.' in segments or '..' in segments:
            _malformed(
                f"the {what} '{key}' contains '.' or '..' between slashes, which some storages resolve. Use another "
                'name, or vended credentials'
            )
        if '\\' in each or re.search(r'[\x00-\x1f\x7f]', each):
            _malformed(f'the {what} {key!r} contains a backslash or a control character')
    return spellings + [re.sub('//+', '/', each).removeprefix('/') for each in spellings]


def _read_query(text: Optional[str]) -> dict[str, str]:
    query: dict[str, str] = {}
    for pair in text.split('&') if text else ():
        name, _, value = pair.partition('=')
        name, value = _decoded(name, 'query of its uri'), _decoded(value, 'query of its uri')
        if name in query:
            _malformed(f"'{name}' is repeated in the query of its uri")
        query[name] = value
    return query


def _operation(method: str, on: str, query: Mapping[str, str], *, copies: bool) -> Operation:
    found = find(method, on, query, copies)
    if found is None:
        asked = f' with {", ".join(sorted(query))[:200]}' if query else ''
        target = 'an object' if on == 'key' else 'a bucket'
        copying = ' and x-amz-copy-source' if copies else ''
        _refuse(f'{method[:20]} of {target}{asked}{copying} is not among the operations that are signed')
    for name, value in query.items():
        if name in _VALUES and not re.fullmatch(_VALUES[name], value):
            _malformed(f"'{name}' in the query of its uri may not be '{value[:100]}'")
        if name in ('marker', 'key-marker', 'start-after', 'continuation-token', 'delimiter'):
            _spellings(value, name, MAX_TOKEN_BYTES)
    return found


# Headers


def _read_headers(given: Any, endpoint: 'Endpoint') -> dict[str, str]:
    """Return the headers to sign, with names in lower case. Headers that need not be signed are left out."""
    if not isinstance(given, Mapping) or len(given) > MAX_HEADERS:
        _malformed(f'headers must be an object of at most {MAX_HEADERS} names, each with a list of values')
    headers: dict[str, str] = {}
    for name, values in given.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            _malformed(f'{str(name)[:100]!r} is not a valid header name')
        lower, value = name.lower(), _one_value(name, values)
        if headers.setdefault(lower, value) != value:
            _malformed(f"the header '{name}' has several values")
        if lower.startswith('x-amz-') and not _is_signed(lower, endpoint) and lower not in _SET_HERE:
            _refuse(f"the header '{name}' is not among those that are signed")
        if lower == 'authorization':
            _refuse('it already has an Authorization header')
    return {name: value for name, value in headers.items() if _is_signed(name, endpoint) or name == 'host'}


def _is_signed(name: str, endpoint: 'Endpoint') -> bool:
    if name == _PAYER:  # the server's account pays: only if the operator enabled it
        return endpoint.requester_pays
    return name in _HEADERS or name in _COPY_HEADERS or name.startswith(_HEADER_FAMILIES)


def _one_value(name: str, values: Any) -> str:
    if isinstance(values, str):
        values = [values]
    if not isinstance(values, (list, tuple)) or not values or not all(isinstance(value, str) for value in values):
        _malformed(f"the header '{name}' needs a list of values")
    if len(set(values)) > 1:
        _malformed(f"the header '{name}' has several values")
    value: str = values[0]
    if len(value) > MAX_HEADER_VALUE or not _TEXT.fullmatch(value):
        _malformed(f"the header '{name}' is too long, or contains characters other than printable ASCII")
    return value.strip()


# Keys


def _touches(operation: Operation, bucket: str, keys: list[str], headers: Mapping[str, str]) -> tuple[Touch, ...]:
    touched = [(bucket, each, operation.write) for each in keys]
    if operation.copies:
        touched.append((*_copy_source(headers['x-amz-copy-source']), False))
    names = ((where, name, write) for where, each, write in touched for name in _spellings(each))
    if operation.on == 'bucket' and operation.name != 'DeleteObjects':
        # Keys that begin with "a/b" are below "a/"; those that begin with "a" may be anywhere.
        names = ((where, name[: name.rfind('/') + 1], write) for where, name, write in names)
    return tuple(Touch(*each) for each in dict.fromkeys(names))


def _copy_source(value: str) -> tuple[str, str]:
    bucket, _, key = _decoded(value.removeprefix('/'), 'header x-amz-copy-source', '/').partition('/')
    if not key or not _BUCKET.fullmatch(bucket):
        _malformed('x-amz-copy-source must be bucket/key')
    return bucket, key


def _keys_to_delete(body: bytes, limit: int) -> list[str]:
    """Return the keys of a DeleteObjects request.

    Only the simplest form is accepted: no document type, comment, CDATA or other encoding.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        _malformed('the body of DeleteObjects is not UTF-8')
    text = re.sub(r'\A<\?xml version="1.0"(?: encoding="(?:utf|UTF)-8")?\?>', '', text)
    if text.count('<') > 4 * limit + 4:  # tags of the keys, <Delete> and <Quiet>; checked before parsing
        _malformed(f'all DeleteObjects bodies together may contain at most {MAX_DELETES} keys')
    if '<!' in text or '<?' in text:
        _malformed('the body of DeleteObjects contains more than plain elements')
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - without <! there are no entities
    except (ElementTree.ParseError, ValueError):
        _malformed('the body of DeleteObjects is not XML')
    space = _S3_XML if root.tag.startswith(_S3_XML) else ''
    keys = []
    for each in root:
        if (
            each.tag == f'{space}Object'
            and len(each) == 1
            and each[0].tag == f'{space}Key'
            and not len(each[0])
            and each[0].text
        ):
            keys.append(each[0].text)
        elif each.tag != f'{space}Quiet' or len(each):
            _refuse(
                'the body of DeleteObjects contains something other than <Object><Key>...</Key></Object> and <Quiet>'
            )
    if root.tag != f'{space}Delete' or any(each.attrib for each in root.iter()) or not keys:
        _malformed(f'the body of DeleteObjects must be <Delete> with 1 to {MAX_DELETES} keys and no attributes')
    return keys


# The body


def _stored_length(operation: Operation, headers: dict[str, str]) -> Optional[int]:
    """Return how many bytes are stored, at most; None: that is not known.

    Content-Length is signed for these alone, so that the storage refuses any other length. Measured: SeaweedFS 4.48
    does not compare x-amz-decoded-content-length with the body; of a body in chunks, Content-Length is the larger one.
    """
    given = headers.pop('content-length', None)
    if operation.name in _WITH_BODY and given is not None:
        if not _LENGTH.fullmatch(given):
            _malformed(f"the header 'content-length' may not be '{given[:100]}'")
        headers['content-length'] = given
        return int(given)
    span = _SPAN.fullmatch(headers.get('x-amz-copy-source-range', '')) if operation.copies else None
    return int(span['last']) - int(span['first']) + 1 if span and int(span['first']) <= int(span['last']) else None


def _read_body(body: Any) -> Optional[bytes]:
    try:
        return None if body is None else base64.b64decode(body, validate=True)
    except (binascii.Error, TypeError, ValueError):
        _malformed('its body is not base64')


def _payload(operation: Operation, given: Optional[str], body: Optional[bytes], uri: str) -> str:
    """Return the value of x-amz-content-sha256.

    For DeleteObjects, it is always the digest of the body in the request.
    """
    if body is not None:
        return hashlib.sha256(body).hexdigest()
    if given is None and operation.method in ('GET', 'HEAD', 'DELETE'):
        return NO_BODY
    if given is None or not (_SHA256.fullmatch(given) or given in (UNSIGNED, UNSIGNED_TRAILER)):
        _malformed(f'x-amz-content-sha256 must be a hexadecimal SHA-256, {UNSIGNED} or {UNSIGNED_TRAILER}')
    if given in (UNSIGNED, UNSIGNED_TRAILER) and not uri.startswith('https:'):
        _refuse('a body without a checksum is signed for https only')
    return given
