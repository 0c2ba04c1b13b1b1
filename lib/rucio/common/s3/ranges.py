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


"""Download an object in ranges with several threads into a local file.

s3transfer is not used, as its design (threads that read, a queue, one thread that writes) is slower than a fast
network: docs/decisions/0006-own-downloads.md. Memory: 1 MiB for each thread.
"""

import threading
import time
import zlib
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Optional

from .checksums import base64_of, combine_crc32
from .clients import Stoppable
from .content import BODIES, BROKEN, Reader
from .interrupts import Flag
from .range_record import RangeRecord, write_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO

    from mypy_boto3_s3 import S3Client

    from .errors import Target
    from .objects import ObjectInfo

__all__ = ['Fetch']


class Fetch:
    """The download of one object into an existing file.

    Start it, wait for ``done``, end it, get its ``crc32``. All requests are for the same version of the object.

    :param client: Sends the requests.
    :param target: The object.
    :param info: The known properties of the object.
    :param path: The local file.
    :param piece: The size of a range in bytes. If it covers the whole object, the request has no range, so that
        botocore verifies the answer.
    :param progress: Called by any thread with the bytes of each step; negative if bytes have to be repeated.
    :param resume: Whether ranges that an earlier download of this version has completed are used. They are read, not
        requested, and the file has a record of them at its end until it is complete. Not for weak ETags.
    :param first: Returns the answer with the first range, if it is there already, or None.
    """

    def __init__(
        self,
        client: 'S3Client',
        target: 'Target',
        info: 'ObjectInfo',
        path: str,
        piece: int,
        progress: 'Optional[Callable[[int], None]]',
        resume: bool = False,
        first: 'Callable[[], Any]' = lambda: None,
    ) -> None:
        self.done = Flag()  # complete, or failed
        self._stop = threading.Event()
        reader = partial(Reader, Stoppable.of(client, self._stop), target, info, self._stop)

        def read(start: int, size: int, *, resumes: bool) -> Reader:
            made = reader(start, size, resumes=resumes, far=size)
            if not start:
                made.begin_with(first())
            return made

        self._read = read
        self._path = path
        self._progress = progress or (lambda _: None)
        self._lock = threading.Lock()
        self._starts = range(0, info.size, piece)
        self._next = iter(self._starts)
        self._record = RangeRecord(info, self._starts) if resume else None
        self._crcs: dict[int, int] = {}  # start of a range -> its CRC-32
        self._failure: Optional[BaseException] = None
        self._threads: list[threading.Thread] = []

    def start(self, threads: int) -> None:
        """Start the threads.

        :param threads: The maximal number of concurrent requests.
        :raises OSError: if the file cannot be written.
        """
        if self._record:
            with open(self._path, 'r+b', buffering=0) as file:
                self._record.begin(file)
        for _ in self._starts[:threads]:
            thread = threading.Thread(target=self._work, name='rucio-s3-get')
            self._threads.append(thread)  # before it starts, as a signal may end this loop
            thread.start()
        if not self._starts:
            self.done.set()

    def end(self, grace: float) -> None:
        """Stop the download.

        Requests to a storage that hangs end by ``read_timeout``: until then they continue in the background, and keep
        the process alive.

        :param grace: The seconds to wait for the threads.
        """
        self._stop.set()
        last = time.monotonic() + grace
        for thread in self._threads:
            if thread.is_alive():
                thread.join(last - time.monotonic())

    def can_continue(self) -> bool:
        """Return whether a later download can use what this one has completed.

        Not if it failed to write, or if a late thread may still write.
        """
        is_local = isinstance(self._failure, OSError) and self._failure.errno is not None
        is_late = any(thread.is_alive() for thread in self._threads)
        is_begun = 0 < len(self._crcs) < len(self._starts)
        return self._record is not None and is_begun and not is_local and not is_late

    def crc32(self) -> str:
        """Return the CRC-32 of the object in base64, once it is done.

        :raises Exception: the failure of any thread.
        """
        if self._failure is not None:
            raise self._failure
        crc = 0
        for start in self._starts:
            crc = combine_crc32(crc, self._crcs[start], self._size_of(start))
        return base64_of(crc)

    def _size_of(self, start: int) -> int:
        return min(self._starts.step, self._starts.stop - start)

    def _work(self) -> None:
        try:
            # Each thread opens the file itself. A late one then writes to a deleted file, not to another one that got
            # the same descriptor.
            with open(self._path, 'r+b', buffering=0) as file:
                while True:
                    with self._lock:
                        start = next(self._next, None)
                    if start is None:
                        return
                    self._add(file, start, self._completed(file, start))
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            with self._lock:
                self._failure = self._failure or error
            self.done.set()

    def _completed(self, file: 'FileIO', start: int) -> int:
        """Read a range that is there, or download it, and return its CRC-32."""
        size = self._size_of(start)
        found = self._record.crc(file, start, size) if self._record and not self._stop.is_set() else None
        if found is not None:
            self._progress(size)
            return found
        crc = self._get(file, start, size)
        if self._record:
            self._record.add(file, start, crc)
        return crc

    def _add(self, file: 'FileIO', start: int, crc: int) -> None:
        with self._lock:
            self._crcs[start] = crc
            if len(self._crcs) == len(self._starts):
                if self._record:
                    self._record.end(file)
                self.done.set()

    def _get(self, file: 'FileIO', start: int, size: int) -> int:
        """Download a range.

        :returns: Its CRC-32.
        """
        # A whole object starts again after an interruption: botocore only verifies answers that it reads from the
        # beginning to the end.
        whole = size == self._starts.stop
        for tries_left in reversed(range(BODIES if whole else 1)):
            done = crc = 0
            try:
                with closing(self._read(start, size, resumes=not whole)) as reader:
                    while data := reader.read():
                        write_at(file, start + done, data)
                        crc = zlib.crc32(data, crc)
                        done += len(data)
                        self._progress(len(data))
            except BROKEN:
                if not tries_left:
                    raise
                self._progress(-done)
            else:
                break
        return crc
