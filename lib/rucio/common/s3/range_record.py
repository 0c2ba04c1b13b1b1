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

"""Which ranges of an unfinished download are complete, so that the next one continues.

The record is in the file of the download itself, behind the content: whatever ends the process, both fit together.
"""

import hashlib
import struct
import zlib
from typing import TYPE_CHECKING, Optional

from .content import BLOCK

if TYPE_CHECKING:
    from io import FileIO

    from .objects import ObjectInfo

__all__ = ['RangeRecord', 'write_at']

_HEAD = 32
_ENTRY = struct.Struct('>?I')  # of each range: whether it is complete, and its CRC-32
# For larger writes Linux uses larger pages, which a virtual machine may have to request from its host.
_WRITE = 32 * 1024


class RangeRecord:
    """The record of the ranges of one version of an object.

    :param info: The known properties of the object, whose ETag must not be weak.
    :param starts: The first byte of each range; the step is their size.
    """

    def __init__(self, info: 'ObjectInfo', starts: range) -> None:
        self._starts = starts
        self._head = hashlib.sha256(f'1 {info.size} {starts.step} {info.etag}'.encode()).digest()

    def begin(self, file: 'FileIO') -> None:
        """Empty the file, unless it has a record of the same ranges of the same version.

        :param file: The file, open for reading and writing.
        :raises OSError: if it cannot be written.
        """
        file.seek(self._starts.stop)
        if file.read(_HEAD) != self._head:
            file.truncate(0)
            write_at(file, self._starts.stop, self._head)

    def add(self, file: 'FileIO', start: int, crc: int) -> None:
        """Note that a range is complete.

        :param file: The file.
        :param start: The first byte of the range.
        :param crc: Its CRC-32.
        :raises OSError: if it cannot be written.
        """
        write_at(file, self._place(start), _ENTRY.pack(True, crc))

    def crc(self, file: 'FileIO', start: int, size: int) -> Optional[int]:
        """Return the CRC-32 of a range that an earlier download has completed, or None. It reads the range.

        :param file: The file.
        :param start: The first byte of the range.
        :param size: Its size in bytes.
        """
        file.seek(self._place(start))
        entry = file.read(_ENTRY.size)
        if len(entry) < _ENTRY.size or not entry[0]:
            return None
        file.seek(start)
        crc, left = 0, size
        while left and (data := file.read(min(left, BLOCK))):
            crc = zlib.crc32(data, crc)
            left -= len(data)
        return crc if not left and crc == _ENTRY.unpack(entry)[1] else None

    def end(self, file: 'FileIO') -> None:
        """Remove the record: the content is complete.

        :param file: The file.
        """
        file.truncate(self._starts.stop)

    def _place(self, start: int) -> int:
        return self._starts.stop + _HEAD + self._starts.index(start) * _ENTRY.size


def write_at(file: 'FileIO', offset: int, data: bytes) -> None:
    """Write all of some bytes at a place of a file.

    :param file: The file.
    :param offset: The first byte.
    :param data: The bytes.
    :raises OSError: if they cannot be written.
    """
    file.seek(offset)
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest[:_WRITE]) :]
