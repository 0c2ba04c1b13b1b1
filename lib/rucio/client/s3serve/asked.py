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

"""Read the request of a tool, which is hostile until it is verified. Pure functions, without requests."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote, unquote_plus

from rucio.common.s3 import address

from .refusals import Refusal

__all__ = ['Asked', 'encoded', 'read']

_TARGET = re.compile(r'/[!-"$-~]{0,8000}')  # ASCII without blanks and "#"
_BUCKET = re.compile(r'(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{1,62}')
_METHODS = ('GET', 'HEAD', 'PUT', 'POST', 'DELETE')
_VALUE = re.compile(r'[ -~\t]{0,8190}')
_NO_MEANING = ('x-id',)  # newer AWS SDKs name the operation in the query, for logs


class Asked(NamedTuple):
    """A request of a tool, decoded.

    :param method: The HTTP method.
    :param bucket: The bucket, as the tool names it; empty for the list of buckets.
    :param key: The key; empty for the bucket itself.
    :param query: The query, each name once, without the parameters of a signature and those that mean nothing.
    :param headers: The headers, with names in lower case, each once.
    :param signed_path: The path as S3 prescribes for signatures.
    :param signed_query: The whole query, decoded.
    """

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    signed_path: str
    signed_query: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f'<Asked {self.method} {self.signed_path}>'  # the rest has signatures

    @property
    def shown(self) -> str:
        """The bucket and key, for messages."""
        return f'{self.bucket}/{self.key}' if self.key else self.bucket


def read(method: str, target: str, headers: Iterable[tuple[str, str]]) -> Asked:
    """Read a request.

    :param method: The HTTP method.
    :param target: The request target as it was sent: path and query.
    :param headers: The headers as they were sent.
    :raises Refusal: if it is ambiguous, or not a request to S3 by path.
    """
    if method not in _METHODS:
        raise Refusal('NotImplemented', f'{method[:20]} is not a method of S3.')
    if not _TARGET.fullmatch(target):
        raise Refusal('InvalidURI', 'The target of the request is not a path in printable ASCII.')
    path, _, query = target.partition('?')
    try:
        bucket, _, key = unquote(path[1:], errors='strict').partition('/')
        pairs = tuple(_pair(each) for each in query.split('&') if each)
    except UnicodeDecodeError:
        raise Refusal('InvalidURI', 'The path or the query is not UTF-8.') from None
    _check_names(bucket, key)
    named = _once(headers)
    if len(pairs) != len(dict(pairs)):
        raise Refusal('InvalidArgument', 'A parameter of the query is repeated.')
    kept = {name: value for name, value in pairs if not name.lower().startswith('x-amz-') and name not in _NO_MEANING}
    return Asked(method, bucket, key, kept, named, encoded(unquote(path), '/'), pairs)


def encoded(text: str, safe: str = '') -> str:
    """Percent-encode as in S3's signatures: all but RFC 3986's unreserved characters.

    :param text: The text.
    :param safe: More characters that are kept.
    """
    return quote(text, safe=f'{safe}-_.~')


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition('=')
    return unquote_plus(name, errors='strict'), unquote_plus(value, errors='strict')


def _check_names(bucket: str, key: str) -> None:
    if bucket and not _BUCKET.fullmatch(bucket):
        raise Refusal('NoSuchBucket', f"There is no bucket '{bucket[:100]}'.")
    if key and not bucket:
        raise Refusal('InvalidURI', 'The path has a key, but no bucket.')
    if len(key.encode()) > address.MAX_KEY_BYTES:
        raise Refusal('InvalidArgument', f'The key is longer than {address.MAX_KEY_BYTES} bytes.')
    if key and address.leaves_directory(key):
        raise Refusal('InvalidArgument', f"'{key}' has '.' or '..' between slashes, or begins with two slashes.")


def _once(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    named: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        if lower in named:
            raise Refusal('InvalidRequest', f"The header '{name[:100]}' is repeated.")
        if not _VALUE.fullmatch(value):
            raise Refusal('InvalidRequest', f"The header '{name[:100]}' is too long, or not in ASCII.")
        named[lower] = value.strip()
    if 'content-length' in named and 'transfer-encoding' in named:
        raise Refusal('InvalidRequest', 'The request has Content-Length and Transfer-Encoding.')
    return named
