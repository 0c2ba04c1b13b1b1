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

"""The bytes of an object as a stream, on their way to another storage: read once, in order, and compared with what they shall be."""

import hashlib
import threading
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from botocore.exceptions import HTTPClientError, IncompleteReadError, ResponseStreamingError
from s3transfer.exceptions import CancelledError
from urllib3.exceptions import HTTPError  # type: ignore[import-untyped,unused-ignore] # only urllib3 2 is typed

from rucio.common.exception import FileConsistencyMismatch, RSEOperationNotSupported

from .clients import Stoppable
from .errors import translated
from .objects import need_version

if TYPE_CHECKING:
    from .clients import Connection
    from .errors import Target
    from .objects import ObjectInfo

__all__ = ['Sums', 'Verified', 'sums_of']

_READ = 1024**2
_BODIES = 3  # so often in a row an answer may break off without a byte; each request has max_attempts of its own


class Sums(NamedTuple):
    """Checksums in hexadecimal, as the catalogue has them; None: not known."""

    md5: Optional[str] = None
    adler32: Optional[str] = None

    def agrees(self, other: 'Sums') -> bool:
        """Whether no checksum that both have differs. Some catalogues leave out the zeros at the beginning of an Adler-32."""
        return all(mine is None or its is None or mine.lower().zfill(8) == its.lower().zfill(8) for mine, its in zip(self, other, strict=True))

    def __bool__(self) -> bool:
        return any(self)


class Verified:
    """An object that is read once from its beginning to its end, which is not reached if the content is not the right one.

    All requests are for the same version of the object. Where an answer breaks off, the next one goes on from there.
    Memory: what is asked for at once, twice.

    :param connection: The storage.
    :param target: The object, ...
    :param info: ... and what is known of it.
    :param expected: What its checksums shall be.
    :param stop: Once it is set, the next read raises CancelledError.
    """

    def __init__(self, connection: 'Connection', target: 'Target', info: 'ObjectInfo', expected: Sums, stop: Optional[threading.Event] = None) -> None:
        self._stop = stop or threading.Event()
        self._client = Stoppable.of(connection.client, self._stop)
        self._target = target
        self._info = info
        self._expected = expected
        self._position = 0
        self._body: Any = None
        self._md5, self._adler32 = hashlib.md5(usedforsecurity=False), 1

    @property
    def sums(self) -> Sums:
        """The checksums of what was read so far."""
        return Sums(self._md5.hexdigest(), f'{self._adler32:08x}')

    def read(self, amount: int = -1) -> bytes:
        """As many bytes, fewer only at the end.

        :raises FileConsistencyMismatch: instead of the last of them, if the checksums are not the expected ones.
        :raises RucioException: what :mod:`.errors` makes of what the storage says.
        """
        left = self._info.size - self._position
        wanted = left if amount < 0 else min(amount, left)
        blocks = []
        with translated('get', self._target):
            while wanted:
                block = self._block(wanted)
                wanted -= len(block)
                blocks.append(block)
        if self._position == self._info.size:
            self.close()
            self._verify()
        return b''.join(blocks)

    def close(self) -> None:
        """End the request under way."""
        if self._body is not None:
            self._body.close()
            self._body = None

    def _verify(self) -> None:
        if not self._expected.agrees(self.sums):
            raise FileConsistencyMismatch(
                f'RSE {self._target.rse}: get of {self._target}: its MD5 is {self.sums.md5} and its Adler-32 {self.sums.adler32}, but the catalogue says '
                f'{self._expected.md5} and {self._expected.adler32}. The object is damaged or was changed: use another replica, or declare it bad.'
            )

    def _block(self, most: int) -> bytes:
        """The next bytes, one at least."""
        broken: Exception
        for _ in range(_BODIES):
            if self._stop.is_set():
                raise CancelledError
            try:
                if self._body is None:
                    self._body = self._ask()
                block: bytes = self._body.read(min(_READ, most))
                # botocore compares the checksum of what it read, if any, when it is asked for more than there is.
                if block and self._position + len(block) == self._info.size and self._body.read(1):
                    raise FileConsistencyMismatch(f'RSE {self._target.rse}: get of {self._target}: more bytes came than it has. Try again.')
                if block:
                    self._count(block)
                    return block
                broken = IncompleteReadError(actual_bytes=self._position, expected_bytes=self._info.size)
            except (HTTPClientError, IncompleteReadError) as error:
                broken = error
            except HTTPError as error:  # botocore does not know all of them
                broken = ResponseStreamingError(error=error)
            self.close()
        raise broken

    def _count(self, block: bytes) -> None:
        self._md5.update(block)
        self._adler32 = zlib.adler32(block, self._adler32)
        self._position += len(block)

    def _ask(self) -> Any:
        """:returns: The body of the answer, from the position on."""
        extra: Any = {'IfMatch': self._info.etag} if self._info.etag else {}
        if self._position:
            extra['Range'] = f'bytes={self._position}-'
        answer = need_version(self._client.get_object(Bucket=self._target.bucket, Key=self._target.key, **extra), self._info.etag)
        if self._position and not answer.get('ContentRange', '').startswith(f'bytes {self._position}-'):
            answer['Body'].close()
            raise RSEOperationNotSupported(
                f'RSE {self._target.rse}: get of {self._target}: the storage does not go on from byte {self._position}, where the connection broke off. '
                'Try again.'
            )
        return answer['Body']


def sums_of(connection: 'Connection', target: 'Target', info: 'ObjectInfo', stop: Optional[threading.Event] = None) -> Sums:
    """Read an object for its checksums: one GET, a MiB of memory.

    :raises RucioException: what :mod:`.errors` makes of what the storage says.
    """
    stream = Verified(connection, target, info, Sums(), stop)
    try:
        while stream.read(_READ):
            pass
        return stream.sums
    finally:
        stream.close()
