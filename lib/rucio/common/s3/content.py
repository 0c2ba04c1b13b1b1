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

"""Read the content of objects: in order, resumed after interruptions, and verified by checksums."""

import hashlib
import threading
import zlib
from concurrent.futures import CancelledError
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError, ResponseStreamingError
from urllib3.exceptions import HTTPError  # type: ignore[import-untyped,unused-ignore] # only urllib3 2 is typed

from rucio.common.exception import FileConsistencyMismatch, RSEOperationNotSupported

from . import archives, deadlines
from .clients import Stoppable
from .errors import status_of, translated
from .objects import info, need_version, stat

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from .clients import Connection
    from .errors import Target
    from .objects import ObjectInfo

__all__ = ['BODIES', 'BROKEN', 'Beginning', 'Checksums', 'Hasher', 'Reader', 'Verified', 'begin', 'hash_object']

BLOCK = 1024**2  # bytes read at once
BODIES = 3  # interrupted answers in a row; each request has the client's own retries
BROKEN = (HTTPClientError, IncompleteReadError)  # raised for an interrupted answer


class Checksums(NamedTuple):
    """Checksums and size of a content: MD5 and Adler-32 in hexadecimal, as in the catalogue, and the size in bytes.

    None means unknown.
    """

    md5: Optional[str] = None
    adler32: Optional[str] = None
    size: Optional[int] = None

    def compare(self, other: 'Checksums') -> Optional[bool]:
        """Compare two contents by everything that is known of both.

        Case is ignored, and leading zeros of an Adler-32 may be missing, as in Rucio.

        :param other: The other content.
        :returns: None if nothing differs, but no checksum is known of both.
        """
        if None not in (self.size, other.size) and self.size != other.size:
            return False
        pairs = [(mine, its) for mine, its in zip(self[:2], other[:2], strict=True) if mine and its]
        return all(mine.lower().zfill(8) == its.lower().zfill(8) for mine, its in pairs) if pairs else None

    def agrees(self, other: 'Checksums') -> bool:
        """Return whether nothing that is known of both differs.

        :param other: The other content.
        """
        return self.compare(other) is not False


_UNKNOWN = Checksums()


class Hasher:
    """Computes the checksums of data that is added in order, and compares them with the expected ones.

    :param expected: What is known of the content.
    :param md5: Whether to compute the MD5 as well, which takes four times as long as an Adler-32.
    """

    def __init__(self, expected: Checksums = _UNKNOWN, md5: bool = True) -> None:
        self.expected = expected
        self._with_md5 = md5
        self.restart()

    def restart(self) -> None:
        """Start again from the beginning."""
        self._md5, self._adler32, self._size = hashlib.md5(usedforsecurity=False) if self._with_md5 else None, 1, 0

    def add(self, data: bytes) -> None:
        """Process the next bytes.

        :param data: The bytes.
        """
        if self._md5 is not None:
            self._md5.update(data)
        self._adler32 = zlib.adler32(data, self._adler32)
        self._size += len(data)

    @property
    def checksums(self) -> Checksums:
        """Return the checksums and the size of all data so far."""
        return Checksums(self._md5.hexdigest() if self._md5 else None, f'{self._adler32:08x}', self._size)

    @property
    def is_expected(self) -> bool:
        """Return whether nothing that is known of both differs."""
        return self.expected.agrees(self.checksums)


class Beginning:
    """The properties of an object, and the answer with its first bytes until somebody takes it.

    :param info: The properties.
    :param body: The answer, or None.
    """

    def __init__(self, info: 'ObjectInfo', body: Any = None) -> None:
        self.info = info
        self._body = body

    def take(self) -> Any:
        """Return the answer, or None. Whoever takes it closes it."""
        body, self._body = self._body, None
        return body

    def close(self) -> None:
        """End the answer, unless it was taken."""
        if (body := self.take()) is not None:
            body.close()


def begin(connection: 'Connection', target: 'Target', most: int, *, verified: bool = False) -> Beginning:
    """Ask for the first bytes of an object.

    One GET of a range: of a small object with an MD5 or CRC-32 that is the whole download. Otherwise one HEAD more, as
    answers with a range have no checksums of the whole object, and botocore does not verify them. The answer is not
    used if the object changed meanwhile, or if only botocore can verify it, by an answer without a range. Errors are
    botocore's own.

    :param connection: The storage.
    :param target: The object.
    :param most: The number of bytes to ask for.
    :param verified: The caller verifies the content: a HEAD would tell nothing that is needed.
    """
    try:
        answer = _first_bytes(connection, target, most)
    except ClientError as error:
        if archives.is_refusal(error) and stat(connection, target, 'get').restoring:
            raise archives.restoring() from error
        if status_of(error) != 416:  # there is no first byte
            raise
        return Beginning(stat(connection, target, 'get'))
    size = _whole_size(answer, most)
    if size is None:
        answer['Body'].close()
        return Beginning(stat(connection, target, 'get'))
    first = Beginning(info({**answer, 'ContentLength': size}), answer['Body'])
    found, is_signed = first.info, connection.authorizer.whole_objects_only
    if verified or is_signed or (size <= most and (found.crc32 or found.md5)):
        return first
    told = stat(connection, target, 'get')
    if (told.size, told.etag) != (size, found.etag) or (size <= most and not told.crc32):
        first.close()
    return Beginning(told, first.take())


def _first_bytes(connection: 'Connection', target: 'Target', most: int) -> Any:
    has_checksums = connection.endpoint.checksum == 'crc32' and not connection.authorizer.whole_objects_only
    extra: Any = {'ChecksumMode': 'ENABLED'} if has_checksums else {}
    return connection.client.get_object(Bucket=target.bucket, Key=target.key, Range=f'bytes=0-{most - 1}', **extra)


def _whole_size(answer: Any, most: int) -> Optional[int]:
    """Return the size of an object from the answer to a GET of its first bytes; None if it is not what was asked for.

    Some storages ignore the range of a small object.
    """
    came, size = answer.get('ContentRange'), answer.get('ContentLength')
    if not came:
        return size if isinstance(size, int) and 0 <= size <= most else None
    total = came.rpartition('/')[2]
    if not (total.isascii() and total.isdigit()):
        return None
    return int(total) if came == f'bytes 0-{min(most, int(total)) - 1}/{total}' else None


class Reader:
    """Reads the bytes of an object, or a range of them, in order. All requests are for the same version of the object.

    An interrupted answer is resumed, until three in a row bring no data (or less than ``far``). botocore only verifies
    an answer that is read from the beginning of the object to its end. One request, and one for each interruption.
    Errors are botocore's own.

    :param client: Sends the requests.
    :param target: The object.
    :param info: The known properties of the object.
    :param stop: Once it is set, the next read raises CancelledError.
    :param start: The first byte.
    :param size: The number of bytes; None for all that follow.
    :param resumes: Whether to resume an interrupted answer. Otherwise one of :data:`BROKEN` is raised.
    :param far: The number of bytes after which an interruption is no longer counted as in a row with the one before.
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
        # The interruptions in a row, and the position from which on the next one starts a new row.
        self._broken, self._out_of_row = 0, start
        self._body: Any = None

    def begin_with(self, body: Any) -> None:
        """Read an answer that has begun already, instead of sending the first request.

        :param body: The answer, with exactly these bytes; None to send it.
        """
        self._body = body

    @property
    def left(self) -> int:
        """The number of bytes that are still to be read."""
        return self._end - self._position

    def read(self, most: int = BLOCK) -> bytes:
        """Read the next bytes: at most a MiB, none at the end.

        :param most: The maximal number of bytes.
        :raises CancelledError: if it was stopped.
        :raises FileConsistencyMismatch: if the object has more bytes than it should.
        :raises RSEOperationNotSupported: if the storage sends other bytes than requested.
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
                if self._broken >= self._bodies or deadlines.is_over():
                    raise
        return b''

    def _next(self, most: int) -> bytes:
        if self._body is None:
            self._body = self._ask()
        try:
            block: bytes = self._body.read(most)
            # botocore compares the checksum when more bytes are requested than there are.
            more = len(block) == self.left and self._body.read(1)
        except HTTPError as error:  # botocore does not handle all of them
            raise ResponseStreamingError(error=error) from error
        if more or len(block) > self.left:
            raise FileConsistencyMismatch(
                f'RSE {self._target.rse}: get of {self._target}: the storage sent more bytes than requested. Try again.'
            )
        if not block:
            raise IncompleteReadError(actual_bytes=self._position, expected_bytes=self._end)
        self._position += len(block)
        return block

    def _ask(self) -> Any:
        """Return the body of an answer that starts at the current position."""
        if self._info.restoring:
            raise archives.restoring()
        extra: Any = {'IfMatch': self._info.condition} if self._info.condition else {}
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
                f'requested bytes {asked}/{self._info.size}, but got {came or "the whole object"}. '
                'Tell the operator of the storage, and use another replica.'
            )
        return answer['Body']

    def close(self) -> None:
        """End the current request."""
        if self._body is not None:
            self._body.close()
            self._body = None


class Verified:
    """Reads an object once from its beginning to its end, and fails before the end if the content is wrong.

    Memory: twice the bytes of one read. Requests: as :class:`Reader`.

    :param connection: The storage.
    :param target: The object.
    :param info: The known properties of the object.
    :param expected: The expected checksums.
    :param stop: Once it is set, the next read is refused.
    """

    def __init__(
        self,
        connection: 'Connection',
        target: 'Target',
        info: 'ObjectInfo',
        expected: Checksums,
        stop: Optional[threading.Event] = None,
    ) -> None:
        stop = stop or threading.Event()
        self._target = target
        self._reader = Reader(Stoppable.of(connection.client, stop), target, info, stop)
        self._hasher = Hasher(expected)

    @property
    def checksums(self) -> Checksums:
        """Return the checksums and the size of all data read so far."""
        return self._hasher.checksums

    def read(self, amount: int = -1) -> bytes:
        """Read this number of bytes; fewer only at the end.

        :param amount: The number of bytes; -1 for all.
        :raises FileConsistencyMismatch: instead of returning the last bytes, if the checksums differ.
        :raises RucioException: the translation by :mod:`.errors` of an error of the storage.
        """
        wanted = self._reader.left if amount < 0 else amount
        blocks = []
        with translated('get', self._target):
            while wanted and (block := self._reader.read(wanted)):
                self._hasher.add(block)
                wanted -= len(block)
                blocks.append(block)
        if not self._reader.left:
            self.close()
            self._verify()
        return b''.join(blocks)

    def close(self) -> None:
        """End the current request."""
        self._reader.close()

    def _verify(self) -> None:
        checksums, expected = self.checksums, self._hasher.expected
        if not self._hasher.is_expected:
            raise FileConsistencyMismatch(
                f'RSE {self._target.rse}: get of {self._target}: '
                f'its MD5 is {checksums.md5} and its Adler-32 {checksums.adler32}, but the catalogue says '
                f'{expected.md5} and {expected.adler32}. The object is damaged or was changed: '
                'use another replica, or declare it bad.'
            )


def hash_object(
    connection: 'Connection',
    target: 'Target',
    info: 'ObjectInfo',
    stop: Optional[threading.Event] = None,
    seconds: Optional[float] = None,
) -> Checksums:
    """Read an object to compute its checksums. One GET, one MiB of memory.

    :param connection: The storage.
    :param target: The object.
    :param info: The known properties of the object.
    :param stop: Once it is set, the next read is refused.
    :param seconds: The time limit; None for no limit.
    :raises RucioException: the translation by :mod:`.errors` of an error of the storage.
    """
    with deadlines.within(seconds), closing(Verified(connection, target, info, Checksums(), stop)) as stream:
        while stream.read(BLOCK):
            pass
        return stream.checksums
