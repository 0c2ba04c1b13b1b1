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

"""What an upload notes of its files, so that the next one reads only those that changed: in ``~/.cache/rucio-s3``.

A note says that a file with this size and these times was stored and registered on an RSE, and its checksums. It is
only used for a file that the catalogue and the storage still list with the same size and checksum.
"""

import hashlib
import json
import os
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Optional

from rucio.common.s3.content import Checksums

if TYPE_CHECKING:
    from .directory import LocalFile

__all__ = ['Notes', 'stamp_of']

_MOST = 200_000  # notes of a dataset, about 100 MB of memory
_LARGEST = 64 * 1024**2  # bytes of their file
_YOUNG = 2.0  # seconds in which a file may change again without another time


class _Note(NamedTuple):
    path: str
    stamp: tuple[int, ...]
    adler32: str
    md5: str


class Notes:
    """The notes on one dataset on one RSE.

    :param subject: What tells it from all others: the Rucio server, the account, the RSE, scope and name.
    """

    def __init__(self, *subject: str) -> None:
        home = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
        digest = hashlib.sha256('\0'.join(subject).encode()).hexdigest()[:32]
        self._file = os.path.join(home, 'rucio-s3', f'{digest}.json')
        self._notes = _read(self._file)
        self._changed = False

    def __len__(self) -> int:
        return len(self._notes)

    def __contains__(self, name: str) -> bool:
        return name in self._notes

    def find(self, file: 'LocalFile') -> Optional[Checksums]:
        """Return the checksums of a file that has not changed; None if that is not known.

        :param file: The file.
        """
        note = self._notes.get(file.name)
        if note is None or not file.stamp or (note.path, note.stamp) != (os.path.abspath(file.path), file.stamp):
            return None
        return Checksums(note.md5, note.adler32, file.size)

    def add(self, file: 'LocalFile', checksums: Checksums) -> None:
        """Note a file that is stored and registered, unless it changed meanwhile, or so lately that it may yet do so.

        :param file: The file, as it was before it was read.
        :param checksums: Its checksums.
        """
        if len(self._notes) >= _MOST or not (checksums.md5 and checksums.adler32) or not file.stamp:
            return
        with suppress(OSError):
            found = os.stat(file.path)
            is_old = time.time() - max(found.st_mtime, found.st_ctime) > _YOUNG
            if stamp_of(found) == file.stamp and is_old:
                path = os.path.abspath(file.path)
                self._notes[file.name] = _Note(path, file.stamp, checksums.adler32, checksums.md5)
                self._changed = True

    def save(self) -> None:
        """Write the notes. Without a place for them the next upload reads the files again."""
        if not self._changed:
            return
        unfinished = f'{self._file}.{secrets.token_hex(4)}'
        with suppress(OSError):
            os.makedirs(os.path.dirname(self._file), 0o700, exist_ok=True)
            try:
                descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, 'w', encoding='utf-8') as file:
                    file.write(json.dumps(self._notes))  # json.dump is ten times as slow
                os.replace(unfinished, self._file)
            except BaseException:
                with suppress(OSError):
                    os.unlink(unfinished)
                raise


def stamp_of(found: os.stat_result) -> tuple[int, ...]:
    """Return what changes when a file does: size, times, and which file it is.

    :param found: What the system says of the file.
    """
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


def _read(path: str) -> dict[str, _Note]:
    """Return the notes of a file, or none if it is not there, or is none of this version."""
    with suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
        with open(path, encoding='utf-8') as file:
            if os.fstat(file.fileno()).st_size > _LARGEST:
                return {}
            said = json.load(file)
        return {
            name: _Note(str(path), tuple(map(int, stamp)), str(adler32), str(md5))
            for name, (path, stamp, adler32, md5) in said.items()
        }
    return {}
