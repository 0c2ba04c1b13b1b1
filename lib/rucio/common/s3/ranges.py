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

Not by s3transfer: threads that read, a queue and one thread that writes are slower than a fast network (docs/design.md).
Memory: 1 MiB for each thread.
"""

import threading
import time
import zlib
from contextlib import closing
from typing import TYPE_CHECKING, Any, Optional

from botocore.exceptions import HTTPClientError, IncompleteReadError, ResponseStreamingError
from s3transfer.exceptions import CancelledError
from urllib3.exceptions import HTTPError  # type: ignore[import-untyped,unused-ignore] # only urllib3 2 is typed

from rucio.common.exception import FileConsistencyMismatch, RSEOperationNotSupported

from .checksums import base64_of, combine_crc32
from .clients import Stoppable
from .objects import need_version

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO

    from mypy_boto3_s3 import S3Client

    from .errors import Target
    from .objects import ObjectInfo

__all__ = ['Fetch']

_READ = 1024**2
_WRITE = 32 * 1024  # for more at once Linux takes larger pages, and in a virtual machine these may have to be got from the host
_BODIES = 3  # so often a range is asked for when bodies break off; each request has max_attempts of its own


class Fetch:
    """One object on its way into a file that is there already.

    Start it, wait for ``done``, end it, ask for its ``crc32``. All requests are for the same version of the object.

    :param client: Makes the requests.
    :param target: The object, ...
    :param info: ... and what is known of it.
    :param path: The local file.
    :param piece: Bytes of a range. For all of the object there is one request without a range, so that botocore verifies it.
    :param progress: Told of each step in bytes, by any thread. Negative where bytes have to come again.
    """

    def __init__(self, client: 'S3Client', target: 'Target', info: 'ObjectInfo', path: str, piece: int, progress: 'Optional[Callable[[int], None]]') -> None:
        self.done = threading.Event()  # all is there, or something failed
        self._stop = threading.Event()
        self._client = Stoppable.of(client, self._stop)
        self._target = target
        self._info = info
        self._path = path
        self._piece = piece
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

        Who waits for a storage that hangs ends by ``read_timeout``: until then it goes on behind the caller's back, and the
        process lives as long.

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
        return min(self._piece, self._info.size - start)

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
        """Get a range. Where its body breaks off, the next one goes on from there.

        :returns: Its CRC-32.
        """
        done = crc = 0
        whole = size == self._info.size
        broken: Exception
        for _ in range(_BODIES):
            if whole and done:  # botocore verifies only what it sees from the beginning to the end
                self._progress(-done)
                done = crc = 0
            with closing(self._ask(start + done, size - done)) as body:
                try:
                    while (whole or done < size) and (data := self._read(body, size - done)):
                        _write(file, start + done, data)
                        crc = zlib.crc32(data, crc)
                        done += len(data)
                        self._progress(len(data))
                    if done == size:
                        return crc
                    broken = IncompleteReadError(actual_bytes=done, expected_bytes=size)
                except (HTTPClientError, IncompleteReadError) as error:
                    broken = error
        raise broken

    def _ask(self, start: int, size: int) -> Any:
        """:returns: The body of the answer."""
        asked = f'bytes {start}-{start + size - 1}/'
        extra: Any = {} if size == self._info.size else {'Range': asked.replace(' ', '=')[:-1]}
        if self._info.etag:
            extra['IfMatch'] = self._info.etag
        answer = need_version(self._client.get_object(Bucket=self._target.bucket, Key=self._target.key, **extra), self._info.etag)
        came = answer.get('ContentRange', '')
        if 'Range' in extra and came not in (f'{asked}{self._info.size}', f'{asked}*'):
            answer['Body'].close()
            raise RSEOperationNotSupported(
                f'RSE {self._target.rse}: get of {self._target}: {asked}{self._info.size} were asked for, but {came or "the whole object"} came. '
                'Tell the operator of the storage, and use another replica.'
            )
        return answer['Body']

    def _read(self, body: Any, left: int) -> bytes:
        """:param left: So many bytes may still come."""
        if self._stop.is_set():
            raise CancelledError
        try:
            data: bytes = body.read(_READ)
        except HTTPError as error:  # botocore does not know all of them
            raise ResponseStreamingError(error=error) from error
        if len(data) > left:
            raise FileConsistencyMismatch(f'RSE {self._target.rse}: get of {self._target}: more bytes came than were asked for. Try again.')
        return data


def _write(file: 'FileIO', offset: int, data: bytes) -> None:
    file.seek(offset)
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest[:_WRITE]) :]
