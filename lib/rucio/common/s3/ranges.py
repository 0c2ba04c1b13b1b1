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


"""The bytes of an object, in ranges and by several threads, into a local file.

Not by s3transfer: threads that read, a queue and one thread that writes are slower than a fast network
(docs/decisions/0006-own-downloads.md). Memory: 1 MiB for each thread.
"""

import threading
import time
import zlib
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Optional

from .checksums import base64_of, combine_crc32
from .clients import Stoppable
from .content import BODIES, BROKEN, Reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO

    from mypy_boto3_s3 import S3Client

    from .errors import Target
    from .objects import ObjectInfo

__all__ = ['Fetch']

# For more at once Linux takes larger pages, and in a virtual machine these may have to be got from the host.
_WRITE = 32 * 1024


class Fetch:
    """One object on its way into a file that is there already.

    Start it, wait for ``done``, end it, ask for its ``crc32``. All requests are for the same version of the object.

    :param client: Makes the requests.
    :param target: The object, ...
    :param info: ... and what is known of it.
    :param path: The local file.
    :param piece: Bytes of a range. For all of the object there is one request without a range, so that botocore
        verifies it.
    :param progress: Told of each step in bytes, by any thread. Negative where bytes have to come again.
    """

    def __init__(
        self,
        client: 'S3Client',
        target: 'Target',
        info: 'ObjectInfo',
        path: str,
        piece: int,
        progress: 'Optional[Callable[[int], None]]',
    ) -> None:
        self.done = threading.Event()  # all is there, or something failed
        self._stop = threading.Event()
        self._read = partial(Reader, Stoppable.of(client, self._stop), target, info, self._stop)
        self._path = path
        self._progress = progress or (lambda _: None)
        self._lock = threading.Lock()
        self._starts = range(0, info.size, piece)
        self._next = iter(self._starts)
        self._sums: dict[int, int] = {}  # where a range starts -> its CRC-32
        self._failure: Optional[BaseException] = None
        self._threads: list[threading.Thread] = []

    def start(self, threads: int) -> None:
        """:param threads: As many requests at the same time, at most."""
        for _ in self._starts[:threads]:
            thread = threading.Thread(target=self._work, name='rucio-s3-get')
            thread.start()
            self._threads.append(thread)
        if not self._starts:
            self.done.set()

    def end(self, grace: float) -> None:
        """Stop what is under way.

        Who waits for a storage that hangs ends by ``read_timeout``: until then it goes on behind the caller's back, and
        the process lives as long.

        :param grace: Wait for the threads for so many seconds.
        """
        self._stop.set()
        last = time.monotonic() + grace
        for thread in self._threads:
            thread.join(max(0, last - time.monotonic()))

    def crc32(self) -> str:
        """The CRC-32 of the object in base64, once it is done.

        :raises Exception: whatever ended a thread.
        """
        if self._failure is not None:
            raise self._failure
        crc = 0
        for start in self._starts:
            crc = combine_crc32(crc, self._sums[start], self._size_of(start))
        return base64_of(crc)

    def _size_of(self, start: int) -> int:
        return min(self._starts.step, self._starts.stop - start)

    def _work(self) -> None:
        try:
            # Each thread has it open by itself. One that is late then writes into a file that is gone already, not into
            # another one that got the same number.
            with open(self._path, 'r+b', buffering=0) as file:
                while True:
                    with self._lock:
                        start = next(self._next, None)
                    if start is None:
                        return
                    self._add(start, self._get(file, start, self._size_of(start)))
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            with self._lock:
                self._failure = self._failure or error
            self._stop.set()
            self.done.set()

    def _add(self, start: int, crc: int) -> None:
        with self._lock:
            self._sums[start] = crc
            if len(self._sums) == len(self._starts):
                self.done.set()

    def _get(self, file: 'FileIO', start: int, size: int) -> int:
        """Get a range.

        :returns: Its CRC-32.
        """
        # All of the object is begun anew where its body breaks off: botocore verifies only what it sees from the
        # beginning to the end.
        whole = size == self._starts.stop
        for tries_left in reversed(range(BODIES if whole else 1)):
            done = crc = 0
            try:
                with closing(self._read(start, size, resumes=not whole, far=size)) as reader:
                    while data := reader.read():
                        _write(file, start + done, data)
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


def _write(file: 'FileIO', offset: int, data: bytes) -> None:
    file.seek(offset)
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest[:_WRITE]) :]
