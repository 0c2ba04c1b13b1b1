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

"""Checksums in the formats of S3, of a local file and of parts of it."""

import base64
import hashlib
import zlib
from functools import lru_cache
from typing import BinaryIO

__all__ = ['base64_of', 'combine_adler32', 'combine_crc32', 'crc32_of', 'etag_of']

_BLOCK = 1024**2
_ADLER32 = 65521  # the largest prime below 2^16
_CRC32 = 0xEDB88320  # the polynomial, lowest power in the highest bit
_ONE = 1 << 31  # x^0 in this order


def crc32_of(file: BinaryIO) -> str:
    """Return the CRC-32 of a file in base64. Reads it once, from its beginning.

    :param file: The file.
    """
    file.seek(0)
    crc = 0
    while block := file.read(_BLOCK):
        crc = zlib.crc32(block, crc)
    return base64_of(crc)


def etag_of(file: BinaryIO, part: int) -> str:
    """Return the ETag that S3 gives a file: its MD5, or for a multipart upload a hash of the parts' MD5s.

    Reads the file once.

    :param file: The file.
    :param part: The size of a part in bytes; 0 for an upload in one piece.
    """
    file.seek(0)
    if not part:
        digest = hashlib.md5(usedforsecurity=False)
        while block := file.read(_BLOCK):
            digest.update(block)
        return digest.hexdigest()
    digests = []
    while found := _md5_of_part(file, part):
        digests.append(found)
    return f'{hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}'


def _md5_of_part(file: BinaryIO, size: int) -> bytes:
    """Return the MD5 of the next bytes, which may be too many for the memory; nothing at the end of the file."""
    digest, left = hashlib.md5(usedforsecurity=False), size
    while left and (block := file.read(min(_BLOCK, left))):
        digest.update(block)
        left -= len(block)
    return digest.digest() if left < size else b''


def combine_crc32(first: int, second: int, size: int) -> int:
    """Return the CRC-32 of two consecutive pieces of data from the CRC-32 of each.

    Appending ``size`` bytes multiplies the first by x^(8 * size), as in zlib's crc32_combine. Python 3.15 has
    ``zlib.crc32_combine``.

    :param first: The CRC-32 of the first piece.
    :param second: The CRC-32 of the second piece.
    :param size: The size of the second piece in bytes.
    """
    return _multiply(_shift(size), first) ^ second


@lru_cache(16)
def _shift(size: int) -> int:
    """Return x^(8 * size)."""
    shift, power = _ONE, _ONE >> 8  # x^0, x^8
    while size:
        if size & 1:
            shift = _multiply(shift, power)
        power = _multiply(power, power)
        size >>= 1
    return shift


def _multiply(a: int, b: int) -> int:
    """Multiply two polynomials modulo that of CRC-32."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ _CRC32 if b & 1 else b >> 1
    return product


def base64_of(crc: int) -> str:
    """Encode a CRC-32 as S3 does.

    :param crc: The CRC-32.
    """
    return base64.b64encode(crc.to_bytes(4, 'big')).decode()


def combine_adler32(first: int, second: int, length: int) -> int:
    """Return the Adler-32 of two pieces one after the other: https://www.rfc-editor.org/rfc/rfc1950#section-9.

    :param first: The Adler-32 of the first piece.
    :param second: The Adler-32 of the second one.
    :param length: The length of the second piece in bytes.
    """
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + length * ((first & 0xFFFF) - 1)
    return high % _ADLER32 << 16 | low % _ADLER32
