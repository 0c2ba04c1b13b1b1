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

"""Convert between DIDs, buckets and keys, and URLs.

Pure functions, without requests and configuration. Names are encoded and decoded only here.

With buckets for scopes, a DID is ``scope:name``: the scope is the bucket, the name is the key, byte for byte. Scopes
that S3 refuses as bucket names (upper case, ``_``, too short, like an IP address, reserved) are encoded, so that two
scopes never share a bucket and the scope can be decoded from the bucket's name.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional
from urllib.parse import parse_qsl, quote, unquote

from rucio.common.exception import InputValidationError, RSEFileNameNotSupported

from .answers import printable

__all__ = [
    'ENCODED_MARK',
    'ObjectURL',
    'ancestors',
    'bucket_to_scope',
    'comes_back',
    'common_folder',
    'encode_path',
    'is_bucket_name',
    'is_request_to',
    'leaves_directory',
    'parse_did',
    'parse_request',
    'parse_url',
    's3_bucket',
    's3_bucket_inverse',
    'scope_to_bucket',
    'split_prefix',
]

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; MinIO and older rules also refuse "-."
# and ".-".
_BUCKET = re.compile(r'(?!.*(\.\.|\.-|-\.))[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]')
_IP_LIKE = re.compile(r'\d+\.\d+\.\d+\.\d+')
_RESERVED_PREFIXES = ('xn--', 'sthree-', 'amzn-s3-demo-')
_RESERVED_SUFFIXES = ('-s3alias', '--ol-s3', '.mrap', '--x-s3', '--table-s3', '-an')

# An encoded scope starts with this mark. A scope that starts with it is encoded as well, so the two never clash.
ENCODED_MARK = 'x--'
_ESCAPES = {'_': '-0', '-': '-1', '.': '-2'}
_UNESCAPES = {code[1]: char for char, code in _ESCAPES.items()}
_BYTE = '-3'  # followed by two hexadecimal digits: one byte of another character in UTF-8
_NOTHING = '-9'  # at the end of an encoded name that would otherwise end in a reserved suffix

MAX_KEY_BYTES = 1024


class ObjectURL(NamedTuple):
    """The parts of a PFN.

    ``endpoint`` is ``scheme://host[:port]``, ``key`` is decoded, ``query`` is a signature or empty.
    """

    endpoint: str
    bucket: str
    key: str
    query: str


def parse_did(did: str, need_name: bool = False) -> tuple[str, str]:
    """Split ``scope:name``, ``scope/name`` or ``scope``.

    :param did: What the user typed.
    :param need_name: Whether a scope alone is refused.
    :returns: Scope and name; the name is empty if only a scope was given.
    :raises InputValidationError: if it is not a DID, or has no name although one is needed.
    """
    try:
        did.encode()
    except UnicodeEncodeError:
        raise InputValidationError(
            f"'{printable(did)}' cannot be read in this terminal's encoding: set LC_ALL=C.UTF-8, or type it in UTF-8."
        ) from None
    mark = min((each for each in (did.find(':'), did.find('/')) if each >= 0), default=len(did))
    scope, name = did[:mark], did[mark + 1 :].strip('/')
    if not scope or (need_name and not name):
        wanted = (
            'scope:name, such as user.jdoe:thesis'
            if need_name
            else 'scope or scope:name, such as user.jdoe or user.jdoe:thesis'
        )
        raise InputValidationError(f"'{did}' is not a valid DID here: expected {wanted}.")
    return scope, name


def is_bucket_name(name: str) -> bool:
    """Return whether ``name`` is a valid name of a general purpose bucket, by the strictest rules known.

    :param name: The name.
    """
    return (
        _BUCKET.fullmatch(name) is not None
        and _IP_LIKE.fullmatch(name) is None
        and not name.startswith(_RESERVED_PREFIXES)
        and not name.endswith(_RESERVED_SUFFIXES)
    )


def leaves_directory(name: str) -> bool:
    """Return whether Rucio cannot safely download a file of this name, which it joins to its directory as it is.

    Such names have ``.`` or ``..`` between slashes, start with two slashes (it removes one), or contain a NUL.

    :param name: The name of a DID, or a key.
    """
    return name.startswith('//') or '\0' in name or not {'.', '..'}.isdisjoint(name.split('/'))


def comes_back(name: str) -> bool:
    """Return whether stock Rucio can download a file of this name as what it is.

    It takes names for paths: besides those of :func:`leaves_directory`, ``a//b`` is then ``a/b``, and of two such files
    in one download the second replaces the first, without a word. A single slash at the beginning is dropped, which is
    left to those whose names all have it.

    :param name: The name of a DID, or a key.
    """
    return not leaves_directory(name) and '//' not in name and not name.endswith('/')


def scope_to_bucket(scope: str, prefix: str = '') -> str:
    """Return the name of a scope's bucket.

    :param scope: The scope, without a VO.
    :param prefix: The endpoint's bucket prefix: AWS bucket names are global, and VOs that share an endpoint need
        different ones.
    :returns: ``prefix + scope`` if S3 allows that name, else ``prefix`` and an encoding of the scope.
    :raises RSEFileNameNotSupported: if the name would be longer than S3's 63 characters, or the scope is empty.
    """
    if not scope.startswith(ENCODED_MARK) and is_bucket_name(scope) and is_bucket_name(prefix + scope):
        return prefix + scope
    bucket = prefix + _encode(scope)
    if not is_bucket_name(bucket):
        raise RSEFileNameNotSupported(
            f"The scope '{scope}' has no bucket: '{bucket}' is not a valid bucket name (3 to 63 characters). "
            'Use a shorter scope or bucket_prefix.'
        )
    return bucket


def bucket_to_scope(bucket: str, prefix: str = '') -> Optional[str]:
    """Return the scope of a bucket, or None if it does not belong to a scope.

    :param bucket: The bucket's name.
    :param prefix: The endpoint's bucket prefix.
    """
    if not bucket.startswith(prefix):
        return None
    name = bucket[len(prefix) :]
    try:
        scope = _decode(name[len(ENCODED_MARK) :]) if name.startswith(ENCODED_MARK) else name
        # Names that only look encoded (a foreign bucket, another spelling) belong to no scope: one scope, one bucket.
        return scope if scope_to_bucket(scope, prefix) == bucket else None
    except (ValueError, RSEFileNameNotSupported):
        return None


def _encode(scope: str) -> str:
    encoded = ENCODED_MARK
    for char in scope:
        if char in _ESCAPES:
            encoded += _ESCAPES[char]
        elif char.isascii() and char.isalnum():
            encoded += f'-{char.lower()}' if char.isupper() else char
        else:
            encoded += ''.join(f'{_BYTE}{byte:02x}' for byte in char.encode())
    return encoded + _NOTHING if encoded.endswith(_RESERVED_SUFFIXES) else encoded


def _decode(encoded: str) -> str:
    """Decode a scope.

    :raises ValueError: if its bytes are not UTF-8 in hexadecimal digits.
    """
    scope, rest = bytearray(), encoded
    while rest:
        if rest[0] != '-':
            scope += rest[0].encode()
            rest = rest[1:]
        elif rest.startswith(_BYTE):
            scope.append(int(rest[2:4], 16))
            rest = rest[4:]
        else:
            code = rest[1:2]
            if code.isalpha():
                scope += code.upper().encode()
            else:  # _NOTHING; another name with such a code differs from that of the scope
                scope += _UNESCAPES.get(code, '').encode()
            rest = rest[2:]
    return scope.decode()


def s3_bucket(
    scope: str, name: str, rse: Optional[str], rse_attrs: dict[str, Any], protocol_attrs: dict[str, Any]
) -> str:
    """Return the path of a DID by the lfn2pfn algorithm ``s3_bucket``: a bucket for each scope, names as keys.

    :param scope: The scope of the DID.
    :param name: The name of the DID.
    :param rse: The RSE's name (not used).
    :param rse_attrs: The RSE's attributes (not used).
    :param protocol_attrs: The protocol, whose ``extended_attributes`` may hold ``{"s3": {"bucket_prefix": ...}}``.
    :returns: ``bucket/key``, not percent-encoded.
    :raises RSEFileNameNotSupported: if the scope has no bucket.
    """
    settings = (protocol_attrs.get('extended_attributes') or {}).get('s3') or {}
    return f'{scope_to_bucket(scope, settings.get("bucket_prefix", ""))}/{name}'


def s3_bucket_inverse(path: str, prefix: str = '') -> tuple[str, str]:
    """Return the DID for which :func:`s3_bucket` makes ``path``.

    :param path: ``bucket/key``, decoded, with or without a leading slash.
    :param prefix: The endpoint's bucket prefix.
    :returns: Scope and name.
    :raises RSEFileNameNotSupported: if the bucket belongs to no scope.
    """
    bucket, _, name = path.removeprefix('/').partition('/')
    scope = bucket_to_scope(bucket, prefix)
    if scope is None:
        raise RSEFileNameNotSupported(
            f"The bucket '{bucket}' belongs to no scope (bucket prefix '{prefix}'): there is no DID for '{path}'."
        )
    return scope, name


def encode_path(path: str) -> str:
    """Percent-encode ``bucket/key`` as in S3's signatures: all but RFC 3986's unreserved characters and the slash.

    :param path: ``bucket/key``.
    """
    return quote(path, safe='/-_.~')


def split_prefix(prefix: str) -> tuple[str, str]:
    """Split the prefix of an RSE's protocol into bucket and folder.

    :param prefix: The prefix.
    :returns: The bucket that all scopes share, empty if each has its own, and the folder in it: empty, or with a slash
        at its end.
    """
    bucket, _, folder = unquote(prefix.strip('/')).partition('/')
    return bucket, f'{folder}/' if folder else ''


def parse_url(url: str, key_required: bool = True) -> ObjectURL:
    """Split a path-style PFN ``scheme://host[:port]/bucket/key``, which is percent-encoded.

    ``//``, a leading ``/`` and ``..`` in the key are part of the key. Only a query (a signature) is removed.

    :param url: The PFN.
    :param key_required: Whether a URL without a key is refused.
    :raises RSEFileNameNotSupported: if bucket or key are missing, it is not UTF-8, or the key is longer than S3's 1024
        bytes.
    """
    # Not with urlsplit: it would take a "#" as the start of a fragment, which PFNs do not have.
    rest, _, query = url.partition('?')
    scheme, _, rest = rest.partition('://')
    host, _, path = rest.partition('/')
    bucket, _, key = path.partition('/')
    try:
        bucket, key = unquote(bucket, errors='strict'), unquote(key, errors='strict')
    except UnicodeDecodeError:
        raise RSEFileNameNotSupported(
            f"'{url.partition('?')[0]}' is not a valid S3 URL: its percent-encoding is not UTF-8."
        ) from None
    if not scheme or not host or not bucket or (key_required and not key):
        raise RSEFileNameNotSupported(
            f"'{url.partition('?')[0]}' is not a valid S3 URL: expected scheme://host:port/bucket/key."
        )
    if len(key.encode()) > MAX_KEY_BYTES:
        raise RSEFileNameNotSupported(
            f"The key '{key[:40]}...' has {len(key.encode())} bytes: S3 allows {MAX_KEY_BYTES}. Use a shorter name."
        )
    return ObjectURL(f'{scheme}://{host}', bucket, key, query)


def is_request_to(url: str, endpoint: str) -> bool:
    """Tell whether a URL is one of a storage, with its host or with a bucket before it, for all who may read it.

    :param url: The URL.
    :param endpoint: The storage: ``scheme://host[:port]``.
    """
    scheme, _, own = endpoint.lower().partition('://')
    return bool(re.fullmatch(rf'{scheme}://([a-z0-9._-]+\.)?{re.escape(own)}([/?].*)?', url, re.IGNORECASE))


def parse_request(url: str, endpoint: str) -> tuple[str, str, dict[str, str]]:
    """Return bucket, key and query of a request to a storage, decoded; missing ones are empty.

    :param url: The URL, path-style or with the bucket before the storage's host.
    :param endpoint: The storage: ``scheme://host[:port]``; empty if all URLs are path-style.
    """
    rest, _, query = url.partition('?')
    host, _, path = rest.partition('://')[2].partition('/')
    own = endpoint.partition('://')[2].lower()
    if own and host.lower().endswith(f'.{own}'):
        bucket, key = host[: -len(own) - 1], path
    else:
        bucket, _, key = path.partition('/')
    return unquote(bucket), unquote(key), dict(parse_qsl(query, keep_blank_values=True))


def common_folder(keys: Sequence[str]) -> str:
    """Return the longest common prefix of keys that ends in a slash, or the key if there is only one.

    :param keys: The keys.
    """
    if len(keys) < 2:
        return ''.join(keys)
    first, last = min(keys), max(keys)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: first.rfind('/', 0, same) + 1]


def ancestors(name: str) -> list[str]:
    """Return the collections above a name, by its slashes, the largest first: ``a/b/c`` -> ``a``, ``a/b``.

    :param name: The name.
    """
    parts = name.split('/')
    return [ancestor for count in range(1, len(parts)) if (ancestor := '/'.join(parts[:count]))]
