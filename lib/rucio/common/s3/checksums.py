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

"""Checksums as S3 writes them: of a local file, and of what is being written to one."""

import base64
import hashlib
import os
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import BinaryIO, Optional

__all__ = ['SummedFile', 'combine_crc32', 'crc32_of', 'etag_of']

_BLOCK = 1024**2
_CRC32 = 0xEDB88320  # the polynomial, lowest power in the highest bit
_ONE = 1 << 31  # x^0 in this order


def crc32_of(file: BinaryIO) -> str:
    """The CRC-32 of a file from its beginning, in base64. Reads it once."""
    file.seek(0)
    crc = 0
    while block := file.read(_BLOCK):
        crc = zlib.crc32(block, crc)
    return _base64(crc)


def etag_of(file: BinaryIO, part: int) -> str:
    """The ETag that S3 gives a file: the MD5, or for a multipart upload that of the parts' MD5s and their number. Reads it once.

    :param part: The size of a part in bytes; 0 for a file in one piece.
    """
    file.seek(0)
    if not part:
        digest = hashlib.md5(usedforsecurity=False)
        while block := file.read(_BLOCK):
            digest.update(block)
        return digest.hexdigest()
    digests = []
    while content := file.read(part):
        digests.append(hashlib.md5(content, usedforsecurity=False).digest())
    return f'{hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}'


class SummedFile:
    """A file to which pieces are written in any order, and the CRC-32 of the whole: a download in ranges needs no second read.

    s3transfer writes from one thread, which is slower than a fast network: here several do the work, in the order that suits
    them. Memory: ``WRITERS`` pieces. Leaving the block waits for what is under way.
    """

    WRITERS = 4

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = 0
        self._begun: set[int] = set()
        self._sums: dict[int, tuple[int, int]] = {}  # offset -> CRC-32, bytes
        self._failure: Optional[OSError] = None
        self._room = threading.Semaphore(self.WRITERS)
        self._pool = ThreadPoolExecutor(self.WRITERS, 'rucio-s3-write')

    def __enter__(self) -> 'SummedFile':
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int) -> int:
        self._offset = offset
        return offset

    def write(self, data: bytes) -> int:
        """:raises OSError: if an earlier piece could not be written."""
        if self._failure:
            raise self._failure
        if self._offset in self._begun:
            self._drain()  # a range that is begun anew: its new pieces have to come after its old ones
        self._begun.add(self._offset)
        self._room.acquire()
        try:
            self._pool.submit(self._store, self._offset, data)
        except RuntimeError:  # the block was left, and s3transfer is late
            self._room.release()
            raise
        self._offset += len(data)
        return len(data)

    def _store(self, offset: int, data: bytes) -> None:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.pwrite(self._file.fileno(), rest, offset + len(data) - len(rest)) :]
            self._sums[offset] = zlib.crc32(data), len(data)
        except OSError as error:
            self._failure = error
        finally:
            self._room.release()

    def _drain(self) -> None:
        for _ in range(self.WRITERS):
            self._room.acquire()
        for _ in range(self.WRITERS):
            self._room.release()

    def finish(self) -> tuple[int, str]:
        """Wait for all writes.

        :returns: How many bytes there are from the beginning on without a gap, and their CRC-32 in base64.
        :raises OSError: if a piece could not be written.
        """
        self._drain()
        if self._failure:
            raise self._failure
        size = crc = 0
        while size in self._sums:
            piece, length = self._sums[size]
            size, crc = size + length, combine_crc32(crc, piece, length)
        return size, _base64(crc)


def combine_crc32(first: int, second: int, size: int) -> int:
    """The CRC-32 of two pieces of data from those of each. Python 3.15 has it as ``zlib.crc32_combine``.

    To append ``size`` bytes is to multiply the first by x^(8 * size), as zlib's crc32_combine does.

    :param size: Of the second, in bytes.
    """
    return _multiply(_shift(size), first) ^ second


@lru_cache(16)
def _shift(size: int) -> int:
    """x^(8 * size)."""
    shift, power = _ONE, _ONE >> 8  # x^0, x^8
    while size:
        if size & 1:
            shift = _multiply(shift, power)
        power = _multiply(power, power)
        size >>= 1
    return shift


def _multiply(a: int, b: int) -> int:
    """The product of two polynomials modulo that of CRC-32."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ _CRC32 if b & 1 else b >> 1
    return product


def _base64(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4, 'big')).decode()
