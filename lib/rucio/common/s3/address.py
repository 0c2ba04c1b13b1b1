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

"""Where a DID lies on an S3 storage: DID <-> bucket and key <-> URL.

Pure functions: no request, no configuration. The one place where names are encoded and decoded.

A bucket-style DID is ``scope:name``: the scope is the bucket, the name is the key, byte for byte. Scopes that S3
refuses as bucket names (upper case, ``_``, too short, like an IP address, reserved) are encoded so that two scopes
never share a bucket and the scope can be read back from the bucket without a look-up.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional
from urllib.parse import quote, unquote

from rucio.common.exception import RSEFileNameNotSupported

__all__ = [
    'ENCODED_MARK',
    'ObjectURL',
    'ancestors',
    'bucket_to_scope',
    'common_folder',
    'encode_path',
    'is_bucket_name',
    'leaves_directory',
    'parse_url',
    's3_bucket',
    's3_bucket_inverse',
    'scope_to_bucket',
    'split_prefix',
]

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; "-." and ".-" are MinIO's and older
# rules.
_BUCKET = re.compile(r'(?!.*(\.\.|\.-|-\.))[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]')
_IP_LIKE = re.compile(r'\d+\.\d+\.\d+\.\d+')
_RESERVED_PREFIXES = ('xn--', 'sthree-', 'amzn-s3-demo-')
_RESERVED_SUFFIXES = ('-s3alias', '--ol-s3', '.mrap', '--x-s3', '--table-s3', '-an')

# An encoded scope starts with this; a scope that itself starts so is encoded too, which keeps the two apart.
ENCODED_MARK = 'x--'
_ESCAPES = {'_': '-0', '-': '-1', '.': '-2'}
_UNESCAPES = {code[1]: char for char, code in _ESCAPES.items()}
_BYTE = '-3'  # followed by two hexadecimal digits: a byte of any other character in UTF-8
_NOTHING = '-9'  # ends an encoded name that would otherwise end in one of the reserved suffixes

MAX_KEY_BYTES = 1024


class ObjectURL(NamedTuple):
    """A PFN taken apart: ``endpoint`` is ``scheme://host[:port]``, ``key`` is decoded, ``query`` is a signature or
    empty.
    """

    endpoint: str
    bucket: str
    key: str
    query: str


def is_bucket_name(name: str) -> bool:
    """Whether S3, by the strictest rules known, takes ``name`` for a general purpose bucket."""
    return (
        _BUCKET.fullmatch(name) is not None
        and _IP_LIKE.fullmatch(name) is None
        and not name.startswith(_RESERVED_PREFIXES)
        and not name.endswith(_RESERVED_SUFFIXES)
    )


def leaves_directory(name: str) -> bool:
    """Whether Rucio's download, which joins a name to its directory as it is, may write a file of this name outside of
    that directory, or cannot write it at all: ``.`` or ``..`` between slashes, two slashes at the beginning (it takes
    off one), or a NUL.

    :param name: The name of a DID, or a key.
    """
    return name.startswith('//') or '\0' in name or not {'.', '..'}.isdisjoint(name.split('/'))


def scope_to_bucket(scope: str, prefix: str = '') -> str:
    """The bucket of a scope.

    :param scope: The scope, without a VO.
    :param prefix: The endpoint's bucket prefix: AWS bucket names are global, and VOs that share an endpoint need
        different ones.
    :returns: ``prefix + scope`` where S3 allows that name, else ``prefix`` + an encoding of the scope.
    :raises RSEFileNameNotSupported: if the bucket's name would be longer than S3's 63 characters, or the scope is
        empty.
    """
    if scope and not scope.startswith(ENCODED_MARK) and is_bucket_name(scope) and is_bucket_name(prefix + scope):
        return prefix + scope
    bucket = prefix + _encode(scope)
    if not scope or not is_bucket_name(bucket):
        raise RSEFileNameNotSupported(
            f"The scope '{scope}' has no bucket: '{bucket}' is no valid S3 bucket name (3 to 63 characters). "
            'Use a shorter scope or bucket_prefix.'
        )
    return bucket


def bucket_to_scope(bucket: str, prefix: str = '') -> Optional[str]:
    """The scope whose bucket this is, or None where it is the bucket of no scope.

    :param bucket: The bucket's name.
    :param prefix: The endpoint's bucket prefix.
    """
    if not bucket.startswith(prefix):
        return None
    name = bucket[len(prefix) :]
    try:
        scope = _decode(name[len(ENCODED_MARK) :]) if name.startswith(ENCODED_MARK) else name
        # What only looks like ours (a foreign bucket, another spelling) is nobody's: one scope, one bucket.
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
    """:raises ValueError: if it is no encoded scope."""
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
            elif code in _UNESCAPES:
                scope += _UNESCAPES[code].encode()
            elif rest != _NOTHING:
                raise ValueError(f'no such code: -{code}')
            rest = rest[2:]
    return scope.decode()


def s3_bucket(
    scope: str, name: str, rse: Optional[str], rse_attrs: dict[str, Any], protocol_attrs: dict[str, Any]
) -> str:
    """The lfn2pfn algorithm ``s3_bucket``: one bucket for each scope, keys are names. Not yet percent-encoded.

    :param scope: The scope of the DID.
    :param name: The name of the DID.
    :param rse: The RSE's name (not used).
    :param rse_attrs: The RSE's attributes (not used).
    :param protocol_attrs: The protocol, whose ``extended_attributes`` may hold ``{"s3": {"bucket_prefix": ...}}``.
    :returns: ``bucket/key``.
    :raises RSEFileNameNotSupported: if the scope has no bucket.
    """
    settings = (protocol_attrs.get('extended_attributes') or {}).get('s3') or {}
    return f'{scope_to_bucket(scope, settings.get("bucket_prefix", ""))}/{name}'


def s3_bucket_inverse(path: str, prefix: str = '') -> tuple[str, str]:
    """What :func:`s3_bucket` made ``path`` of.

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
    """Percent-encode ``bucket/key`` as S3 signs it: all but RFC 3986's unreserved characters and the slash."""
    return quote(path, safe='/-_.~')


def split_prefix(prefix: str) -> tuple[str, str]:
    """Take the prefix of an RSE's protocol apart.

    :returns: The bucket that all scopes share, empty if each has its own, and the folder in it: empty, or with a slash
        at its end.
    """
    bucket, _, folder = unquote(prefix.strip('/')).partition('/')
    return bucket, f'{folder}/' if folder else ''


def parse_url(url: str, key_required: bool = True) -> ObjectURL:
    """Take a path-style PFN apart: ``scheme://host[:port]/bucket/key``, percent-encoded.

    ``//``, a leading ``/`` and ``..`` in the key are part of the key. Only a query (a signature) is cut off.

    :raises RSEFileNameNotSupported: if there is no bucket or no key in it, it is not UTF-8, or the key is longer than
        S3's 1024 bytes.
    """
    # By hand: urlsplit would take a "#" out of the key, and a PFN has no fragment.
    rest, _, query = url.partition('?')
    scheme, _, rest = rest.partition('://')
    host, _, path = rest.partition('/')
    bucket, _, key = path.partition('/')
    try:
        bucket, key = unquote(bucket, errors='strict'), unquote(key, errors='strict')
    except UnicodeDecodeError:
        raise RSEFileNameNotSupported(
            f"'{url.partition('?')[0]}' is no S3 URL: its percent-encoding is not UTF-8."
        ) from None
    if not scheme or not host or not bucket or (key_required and not key):
        raise RSEFileNameNotSupported(
            f"'{url.partition('?')[0]}' is no S3 URL: expected scheme://host:port/bucket/key."
        )
    if len(key.encode()) > MAX_KEY_BYTES:
        raise RSEFileNameNotSupported(
            f"The key '{key[:40]}...' has {len(key.encode())} bytes: S3 takes {MAX_KEY_BYTES}. Use a shorter name."
        )
    return ObjectURL(f'{scheme}://{host}', bucket, key, query)


def common_folder(keys: Sequence[str]) -> str:
    """What keys begin with in common, up to a slash: that is what is shared. One key is itself."""
    if len(keys) < 2:
        return ''.join(keys)
    first, last = min(keys), max(keys)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind('/', 0, same) + 1]


def ancestors(name: str) -> list[str]:
    """The collections that a name lies below, by its slashes, the largest first: ``a/b/c`` -> ``a``, ``a/b``."""
    parts = name.split('/')
    return [ancestor for count in range(1, len(parts)) if (ancestor := '/'.join(parts[:count]))]
