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

"""The content of an object: read in order and resumed where an answer breaks off, summed, and compared with what the
catalogue says.
"""

import hashlib
import threading
import zlib
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from botocore.exceptions import HTTPClientError, IncompleteReadError, ResponseStreamingError
from s3transfer.exceptions import CancelledError
from urllib3.exceptions import HTTPError  # type: ignore[import-untyped,unused-ignore] # only urllib3 2 is typed

from rucio.common.exception import FileConsistencyMismatch, RSEOperationNotSupported

from .clients import Stoppable
from .errors import translated
from .objects import need_version

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from .clients import Connection
    from .errors import Target
    from .objects import ObjectInfo

__all__ = ['BODIES', 'BROKEN', 'Reader', 'Summing', 'Sums', 'Verified', 'sums_of']

BLOCK = 1024**2  # bytes read at once
BODIES = 3  # answers that break off in a row; each request has the client's own attempts
BROKEN = (HTTPClientError, IncompleteReadError)  # what an answer that breaks off raises


class Sums(NamedTuple):
    """What a content is known by: MD5 and Adler-32 in hexadecimal, as the catalogue has them, and the size in bytes.
    None: not known.
    """

    md5: Optional[str] = None
    adler32: Optional[str] = None
    size: Optional[int] = None

    def compare(self, other: 'Sums') -> Optional[bool]:
        """Whether two contents are the same, by all that is known of both.

        Letters may be of either case, and zeros at the beginning of an Adler-32 may be missing: Rucio compares so.

        :returns: None where nothing differs, but no checksum is known of both.
        """
        if None not in (self.size, other.size) and self.size != other.size:
            return False
        pairs = [(mine, its) for mine, its in zip(self[:2], other[:2], strict=True) if mine and its]
        return all(mine.lower().zfill(8) == its.lower().zfill(8) for mine, its in pairs) if pairs else None

    def agrees(self, other: 'Sums') -> bool:
        """Whether nothing that is known of both differs."""
        return self.compare(other) is not False


_UNKNOWN = Sums()


class Summing:
    """Makes the sums of what it is given, in order, and compares them with those that are expected.

    :param expected: What is known of the content.
    :param md5: Whether to make the MD5, too, which takes four times as long as an Adler-32.
    """

    def __init__(self, expected: Sums = _UNKNOWN, md5: bool = True) -> None:
        self.expected = expected
        self._with_md5 = md5
        self.restart()

    def restart(self) -> None:
        """Forget what was given: it comes again, from the beginning."""
        self._md5, self._adler32, self._size = hashlib.md5(usedforsecurity=False) if self._with_md5 else None, 1, 0

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._md5 is not None:
            self._md5.update(data)
        self._adler32 = zlib.adler32(data, self._adler32)
        self._size += len(data)

    @property
    def sums(self) -> Sums:
        """Of all that was given so far."""
        return Sums(self._md5.hexdigest() if self._md5 else None, f'{self._adler32:08x}', self._size)

    @property
    def is_expected(self) -> bool:
        """Whether nothing that is known of both differs."""
        return self.expected.agrees(self.sums)


class Reader:
    """The bytes of an object, or a range of them, in order. All requests are for the same version of the object.

    Where an answer breaks off, the next one goes on from there, until three in a row bring nothing new (or less than
    ``far``). botocore verifies an answer only if it is read from the beginning of the object to its end. One request,
    and one for each answer that breaks off. Errors are botocore's own.

    :param client: Makes the requests.
    :param target: The object, ...
    :param info: ... and what is known of it.
    :param stop: Once it is set, the next read raises CancelledError.
    :param start: The first byte.
    :param size: The number of bytes; None: all that follow.
    :param resumes: Whether an answer that breaks off is resumed. Otherwise one of :data:`BROKEN` is raised.
    :param far: The number of bytes after which a broken answer is not in a row with the one before it.
    """

    def __init__(
        self,
        client: 'S3Client',
        target: 'Target',
        info: 'ObjectInfo',
        stop: threading.Event,
        start: int = 0,
        size: Optional[int] = None,
        resumes: bool = True,
        far: int = 1,
    ) -> None:
        self._client = client
        self._target = target
        self._info = info
        self._stop = stop
        self._position = start
        self._end = info.size if size is None else start + size
        self._bodies = BODIES if resumes else 1
        self._far = far
        # Answers that broke off in a row, and where the next one is not in that row.
        self._broken, self._out_of_row = 0, start
        self._body: Any = None

    @property
    def left(self) -> int:
        """The number of bytes that are still to come."""
        return self._end - self._position

    def read(self, most: int = BLOCK) -> bytes:
        """The next bytes, at most a MiB; none at the end.

        :raises CancelledError: if it was stopped.
        :raises FileConsistencyMismatch: if the object has more bytes than it should.
        :raises RSEOperationNotSupported: if the storage sends other bytes than it was asked for.
        """
        while self.left:
            if self._stop.is_set():
                raise CancelledError
            try:
                return self._next(min(BLOCK, most, self.left))
            except BROKEN:
                self.close()
                self._broken = 1 if self._position >= self._out_of_row else self._broken + 1
                self._out_of_row = self._position + self._far
                if self._broken >= self._bodies:
                    raise
        return b''

    def _next(self, most: int) -> bytes:
        if self._body is None:
            self._body = self._ask()
        try:
            block: bytes = self._body.read(most)
            # botocore compares a checksum when it is asked for more than there is.
            more = len(block) == self.left and self._body.read(1)
        except HTTPError as error:  # botocore does not know all of them
            raise ResponseStreamingError(error=error) from error
        if more or len(block) > self.left:
            raise FileConsistencyMismatch(
                f'RSE {self._target.rse}: get of {self._target}: more bytes came than were asked for. Try again.'
            )
        if not block:
            raise IncompleteReadError(actual_bytes=self._position, expected_bytes=self._end)
        self._position += len(block)
        return block

    def _ask(self) -> Any:
        """:returns: The body of the answer, from the position on."""
        extra: Any = {'IfMatch': self._info.etag} if self._info.etag else {}
        asked = f'{self._position}-{self._end - 1}'
        if self.left != self._info.size:
            extra['Range'] = f'bytes={asked}'
        answer = need_version(
            self._client.get_object(Bucket=self._target.bucket, Key=self._target.key, **extra), self._info.etag
        )
        came = answer.get('ContentRange', '')
        if 'Range' in extra and came not in (f'bytes {asked}/{self._info.size}', f'bytes {asked}/*'):
            answer['Body'].close()
            raise RSEOperationNotSupported(
                f'RSE {self._target.rse}: get of {self._target}: '
                f'bytes {asked}/{self._info.size} were asked for, but {came or "the whole object"} came. '
                'Tell the operator of the storage, and use another replica.'
            )
        return answer['Body']

    def close(self) -> None:
        """End the request under way."""
        if self._body is not None:
            self._body.close()
            self._body = None


class Verified:
    """An object that is read once from its beginning to its end, which is not reached if the content is not the right
    one.

    Memory: what is asked for at once, twice. Requests: as :class:`Reader`.

    :param connection: The storage.
    :param target: The object, ...
    :param info: ... and what is known of it.
    :param expected: What its checksums shall be.
    :param stop: Once it is set, the next read is refused.
    """

    def __init__(
        self,
        connection: 'Connection',
        target: 'Target',
        info: 'ObjectInfo',
        expected: Sums,
        stop: Optional[threading.Event] = None,
    ) -> None:
        stop = stop or threading.Event()
        self._target = target
        self._reader = Reader(Stoppable.of(connection.client, stop), target, info, stop)
        self._summing = Summing(expected)

    @property
    def sums(self) -> Sums:
        """The sums of what was read so far."""
        return self._summing.sums

    def read(self, amount: int = -1) -> bytes:
        """As many bytes, fewer only at the end.

        :raises FileConsistencyMismatch: instead of the last of them, if the checksums are not the expected ones.
        :raises RucioException: what :mod:`.errors` makes of what the storage says.
        """
        wanted = self._reader.left if amount < 0 else amount
        blocks = []
        with translated('get', self._target):
            while wanted and (block := self._reader.read(wanted)):
                self._summing.add(block)
                wanted -= len(block)
                blocks.append(block)
        if not self._reader.left:
            self.close()
            self._verify()
        return b''.join(blocks)

    def close(self) -> None:
        """End the request under way."""
        self._reader.close()

    def _verify(self) -> None:
        sums, expected = self.sums, self._summing.expected
        if not self._summing.is_expected:
            raise FileConsistencyMismatch(
                f'RSE {self._target.rse}: get of {self._target}: '
                f'its MD5 is {sums.md5} and its Adler-32 {sums.adler32}, but the catalogue says '
                f'{expected.md5} and {expected.adler32}. The object is damaged or was changed: '
                'use another replica, or declare it bad.'
            )


def sums_of(
    connection: 'Connection', target: 'Target', info: 'ObjectInfo', stop: Optional[threading.Event] = None
) -> Sums:
    """Read an object for its checksums: one GET, a MiB of memory.

    :param stop: Once it is set, the next read is refused.
    :raises RucioException: what :mod:`.errors` makes of what the storage says.
    """
    with closing(Verified(connection, target, info, Sums(), stop)) as stream:
        while stream.read(BLOCK):
            pass
        return stream.sums
