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

"""Transfer data between local files and a storage: without overwriting, verified, and cancellable.

Uploads and copies use s3transfer. Memory: an upload holds up to ``max_concurrency`` + 1 parts of
``multipart_chunksize`` bytes (parts of large files are larger, as S3 allows 10,000; then fewer are held, about 512 MiB
in total, but at least two: 1 GiB for a file of 5 TB); a download holds 1 MiB for each of ``max_concurrency`` threads.
"""

import os
import stat as stat_module
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING, Any, BinaryIO, NoReturn, Optional, TypeVar, cast

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError  # type: ignore[import-untyped,unused-ignore] # only urllib3 2 is typed

from rucio.common.exception import (
    DestinationNotAccessible,
    FileConsistencyMismatch,
    RSEFileNameNotSupported,
    RSEOperationNotSupported,
    RucioException,
    ServiceUnavailable,
    SourceNotFound,
)

from . import archives, objects, s3transfer_internals
from .checksums import base64_of, crc32_of, etag_of
from .clients import Stoppable
from .content import BLOCK, Beginning, Checksums, Hasher, Verified, begin
from .direct import Direct
from .errors import Target, TransferTimeout, describe, is_ambiguous, local_error, status_of, translate, translated
from .interrupts import TICK, Flag, Task, cleaning_up, ending_by_exception
from .multipart import LeftOver, Multipart
from .parsing import UnreadableAnswerError
from .partial_files import partial_file
from .range_record import write_at
from .ranges import Fetch

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CopySourceTypeDef
    from s3transfer.futures import TransferFuture
    from s3transfer.manager import TransferManager
    from s3transfer.subscribers import BaseSubscriber

    from .clients import Connection
    from .endpoint import Endpoint

__all__ = ['copy', 'download', 'move', 'upload', 'upload_stream']

MiB, GiB = 1024**2, 1024**3
SINGLE_PUT_LIMIT = 5 * GiB  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
COPY_THRESHOLD, COPY_PART = GiB, 256 * MiB  # larger objects are copied in parts of this size inside a storage
_MEMORY = 512 * MiB
_GRACE = 5.0  # seconds to wait for the clean-up of a cancelled transfer

Answer = TypeVar('Answer')
Progress = Callable[[int], None]
# Name, size in bytes -> a function to call after each step.
Meter = Callable[[str, int], AbstractContextManager[Optional[Progress]]]


class _Deadline:
    """The time when a transfer must be finished; None for no limit."""

    def __init__(self, seconds: Optional[float], stop: Optional[threading.Event] = None) -> None:
        self._seconds = seconds or 0
        self._end = time.monotonic() + seconds if seconds else None
        self._stop = stop

    def stop(self) -> threading.Event:
        """Return a stop for a part of the transfer."""
        return _Stop(self._stop)

    def wait(self, done: Flag) -> None:
        late = False
        try:
            while not late and not done.wait(self._tick()):
                if self._stop is not None and self._stop.is_set():
                    break
                late = self._end is not None and time.monotonic() >= self._end
        except Exception as error:
            # Only signal handlers raise here. That of Rucio's command line fails with a TypeError when it looks for
            # child processes, and the uploader would take that for a failed transfer and start again.
            raise KeyboardInterrupt from error
        if late:
            raise TransferTimeout(self._seconds)
        if not done.is_set():
            raise CancelledError

    def _tick(self) -> float:
        return TICK if self._end is None else min(TICK, self._end - time.monotonic())

    def run(self, ask: Callable[[], Answer], apart: bool = False) -> Answer:
        """Call a function that has no time-out of its own. If it is late, its thread ends by ``read_timeout``.

        :param ask: The function.
        :param apart: Let no handler of a signal interrupt it: those of the main thread may raise anything.
        """
        if self._end is None and not (apart and threading.current_thread() is threading.main_thread()):
            return ask()
        task = Task(ask)
        task.start()
        self.wait(task.done)
        return task.result()


class _Stop(threading.Event):
    """A stop for one transfer, or for all that share ``also``."""

    def __init__(self, also: Optional[threading.Event]) -> None:
        super().__init__()
        self._also = also

    @property
    def is_for_all(self) -> bool:
        """Whether all of them are to stop."""
        return self._also is not None and self._also.is_set()

    def is_set(self) -> bool:
        return super().is_set() or self.is_for_all


class _Watcher:
    """Tell s3transfer the size, pass progress on, and wait with a time-out, which its futures do not have."""

    def __init__(
        self, size: int, etag: str = '', progress: Optional[Progress] = None, stop: Optional[threading.Event] = None
    ) -> None:
        self.done = Flag()
        self.stop = _Stop(stop)
        self._size = size
        self._etag = etag
        self._progress = progress

    def on_queued(self, future: 'TransferFuture', **_: Any) -> None:
        s3transfer_internals.tell_of_source(future, self._size, self._etag)

    def on_progress(self, future: 'TransferFuture', bytes_transferred: int, **_: Any) -> None:
        self.tell(bytes_transferred)

    def tell(self, number: int) -> None:
        """Show that so many bytes were sent."""
        if self._progress is not None:
            self._progress(number)

    def on_done(self, future: 'TransferFuture', **_: Any) -> None:
        self.done.set()


class _OnePass:
    """A file that can only be read forward: s3transfer then sends its parts from memory, and reads each byte only once.

    If the file is changed, the upload fails before its last bytes are sent: what would be stored is not what Rucio
    registers.
    """

    def __init__(self, file: BinaryIO, size: int, stop: threading.Event, hasher: Optional[Hasher] = None) -> None:
        self.failure: Optional[RucioException] = None
        self.is_ambiguous = False  # whether an earlier attempt may have succeeded
        self._file = file
        self._size = size
        self._stop = stop
        self._hasher = hasher

    def read(self, amount: int = -1) -> bytes:
        data = self._file.read(amount)
        if os.fstat(self._file.fileno()).st_size != self._size:
            self._fail(
                SourceNotFound(
                    f"The local file '{self._file.name}' changed while it was read: "
                    f'it had {self._size} bytes before. Try again when it is no longer being written.'
                )
            )
        if self._hasher is not None:
            self._hasher.add(data)
            if self._hasher.checksums.size == self._size and not self._hasher.is_expected:
                self._fail(
                    FileConsistencyMismatch(
                        f"The local file '{self._file.name}' changed after its checksums were computed, "
                        'and differs from what was registered. '
                        'Nothing was stored. Upload it under another name when it is no longer being written.'
                    )
                )
        return data

    def whole(self) -> bytes:
        """Read the file at once."""
        return self.read(self._size)

    def restart(self, ambiguous: bool) -> None:
        """Begin again, after an attempt that may have succeeded although it failed."""
        self.is_ambiguous = self.is_ambiguous or ambiguous
        self._file.seek(0)
        if self._hasher is not None:
            self._hasher.restart()

    def _fail(self, failure: RucioException) -> NoReturn:
        """Raise a failure that is not retried: botocore takes exceptions while it sends for a broken connection."""
        self.failure = failure
        self._stop.set()
        raise failure


class _Seekable(_OnePass):
    """The same for one large PUT, which is sent from the file after its MD5 was computed."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if self._hasher is not None and (offset, whence) == (0, os.SEEK_SET):
            self._hasher.restart()
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        """Do nothing: s3transfer closes what it sends, but the file belongs to its opener."""


def upload(
    connection: 'Connection',
    path: str,
    target: Target,
    timeout: Optional[float] = None,
    meter: Optional[Meter] = None,
    tried_before: bool = False,
    hasher: Optional[Hasher] = None,
    stop: Optional[threading.Event] = None,
) -> int:
    """Upload a local file to an object that does not exist yet.

    One PUT, or from ``multipart_threshold`` bytes on a multipart upload, which is aborted on any failure. The storage
    verifies what it receives. With a signed URL it is one PUT of at most 5 GiB, and the file is read twice.

    :param connection: The storage.
    :param path: The local file.
    :param target: The object.
    :param timeout: The limit of the whole transfer in seconds.
    :param meter: Shows the progress, see :func:`rucio.common.s3.progress.meter`.
    :param tried_before: Whether an earlier attempt may have succeeded: an object with the same content is then a
        success.
    :param hasher: Computes the checksums of everything that is sent. A file with unexpected checksums is not stored.
    :param stop: Set it to stop this upload, and all others with the same event, at their next request.
    :returns: The size in bytes.
    :raises SourceNotFound, SourceAccessDenied: if the local file is missing, changes its size, or cannot be read.
    :raises FileConsistencyMismatch: if its checksums are not the expected ones.
    :raises FileReplicaAlreadyExists: if there is already an object, which is not changed.
    :raises RSEFileNameNotSupported: if the key ends in a slash.
    :raises RucioException: the translation by :mod:`.errors` of any other error.
    """
    if target.key.endswith('/'):
        raise RSEFileNameNotSupported(
            f"RSE {target.rse}: put of {target}: a key that ends in '/' is a folder, "
            'whose content some storages do not keep. Use a name without it.'
        )
    try:
        if not stat_module.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
            raise SourceNotFound(
                f"The local file '{path}' cannot be uploaded: it is not a regular file. Choose another one."
            )
        with ending_by_exception(), open(path, 'rb') as file:
            size = os.fstat(file.fileno()).st_size
            with meter(os.path.basename(path), size) if meter else nullcontext() as progress:
                watcher = _Watcher(size, progress=progress, stop=stop)
                body = (_Seekable if connection.authorizer.whole_objects_only else _OnePass)(
                    file, size, watcher.stop, hasher
                )
                _upload(connection, file, body, size, target, _Deadline(timeout), watcher, tried_before)
            return size
    except OSError as error:
        raise local_error(error, path, reading=True) from error


def _upload(
    connection: 'Connection',
    file: BinaryIO,
    body: _OnePass,
    size: int,
    target: Target,
    deadline: _Deadline,
    watcher: _Watcher,
    tried_before: bool,
) -> None:
    endpoint, signed = connection.endpoint, connection.authorizer.whole_objects_only
    if signed and size > SINGLE_PUT_LIMIT:
        raise RSEOperationNotSupported(
            f"RSE {target.rse}: '{file.name}' has {size} bytes, but S3 allows at most 5 GiB with a signed URL. "
            f'Configure keys for this RSE (rucio.cfg [s3:{target.rse}]) to upload larger files.'
        )
    _need_possible(size, 'put', target)
    chunksize = s3transfer_internals.part_size(endpoint.multipart_chunksize, size)
    extra = {} if signed else _integrity(endpoint)
    client = Multipart(connection, watcher.stop, target, size)
    with translated('put', target):
        try:
            if size < endpoint.multipart_threshold and _put(connection.direct, body, target, deadline, watcher):
                return
            manager = _uploader(client, endpoint, chunksize, single=size if signed else 0)
            _run(
                manager,
                lambda subscribers: manager.upload(
                    cast('IO[Any]', body), target.bucket, target.key, extra, subscribers
                ),
                watcher,
                deadline,
            )
        except (ClientError, BotoCoreError, CancelledError) as error:
            if body.failure is not None:
                raise body.failure from None
            if watcher.stop.is_for_all:  # and not wait for a storage that may hang: who comes next looks what is there
                raise
            again = tried_before or body.is_ambiguous
            if not (is_ambiguous(error) or client.is_gone or (again and status_of(error) == 412)):
                raise
            if not _arrived(
                connection, target, file, size, 0 if size < endpoint.multipart_threshold else chunksize, deadline
            ):
                raise


def _put(direct: Optional[Direct], body: _OnePass, target: Target, deadline: _Deadline, watcher: _Watcher) -> bool:
    """Try to store a small file by one request without s3transfer.

    :returns: Whether it is stored. Otherwise s3transfer has to try.
    """
    if direct is None or not direct.can_put:
        return False
    data = body.whole()
    try:
        deadline.run(partial(direct.put, target, data, watcher.stop), apart=True)
    except ClientError as error:
        if not direct.repeats(error):
            raise
        body.restart(is_ambiguous(error))
        return False
    except BaseException:
        watcher.stop.set()
        raise
    watcher.tell(len(data))
    return True


def upload_stream(
    connection: 'Connection',
    body: Any,
    size: int,
    target: Target,
    memory: int = _MEMORY,
    stop: Optional[threading.Event] = None,
    left_over: Optional[LeftOver] = None,
) -> None:
    """Upload a stream to an object that does not exist yet.

    One PUT, or a multipart upload, which is aborted on any failure.

    Exceptions of ``body.read`` end it, and are raised here. If ``read`` raises instead of returning the last byte,
    nothing is stored: so it can refuse the whole content.

    :param connection: The storage.
    :param body: Has ``read(amount)``, which returns less than the amount only at the end. It is called by one other
        thread.
    :param size: The total number of bytes.
    :param target: The object.
    :param memory: The approximate number of bytes to hold, but at least three parts; parts have at most an eighth of
        it, if 10,000 of those are enough.
    :param stop: Set it to stop this upload at its next request.
    :param left_over: Called for a multipart upload that could not be aborted.
    :raises FileReplicaAlreadyExists: if there is already an object, which is not changed.
    :raises RucioException: the translation by :mod:`.errors` of any other error. If only the answer was lost, the
        object may exist nevertheless.
    """
    _need_possible(size, 'put', target)
    chunksize = s3transfer_internals.part_size(min(connection.endpoint.multipart_chunksize, memory // 8), size)
    watcher = _Watcher(size, stop=stop)
    with translated('put', target):
        client = Multipart(connection, watcher.stop, target, size, left_over)
        manager = _uploader(client, connection.endpoint, chunksize, memory=memory - 2 * chunksize)
        extra = _integrity(connection.endpoint)
        _run(
            manager,
            lambda subscribers: manager.upload(cast('IO[Any]', body), target.bucket, target.key, extra, subscribers),
            watcher,
            _Deadline(None),
        )


def _need_possible(size: int, operation: str, target: Target) -> None:
    """Refuse what no storage takes, before terabytes of it are sent."""
    if size > s3transfer_internals.MAX_SIZE:
        raise RSEOperationNotSupported(
            f'RSE {target.rse}: {operation} of {target}: {size} bytes are more than S3 allows for an object, '
            '10,000 parts of 5 GiB. Split the file.'
        )


def _integrity(endpoint: 'Endpoint') -> dict[str, str]:
    return {'ChecksumType': 'FULL_OBJECT'} if endpoint.full_object_checksum and endpoint.checksum == 'crc32' else {}


def _uploader(
    client: Multipart, endpoint: 'Endpoint', chunksize: int, single: int = 0, memory: int = _MEMORY
) -> 'TransferManager':
    """Return the manager of an upload.

    :param single: If not 0, send up to this number of bytes in one PUT.
    :param memory: The maximum for the parts that are being sent; there is at least one.
    """
    parts = max(1, min(endpoint.max_concurrency, memory // chunksize))
    return s3transfer_internals.manager(
        client,
        multipart_threshold=max(endpoint.multipart_threshold, single + 1),
        multipart_chunksize=chunksize,
        max_request_concurrency=parts,
        max_in_memory_upload_chunks=parts,
        max_submission_concurrency=1,
    )


def _run(
    manager: 'TransferManager',
    begin: 'Callable[[list[BaseSubscriber]], TransferFuture]',
    watcher: _Watcher,
    deadline: _Deadline,
) -> None:
    """Run one transfer. Anything that ends the wait (such as Ctrl-C, or sys.exit in a signal handler) cancels it.

    The clean-up of a cancelled transfer aborts a multipart upload, after its current requests have ended. On a storage
    that hangs they end by ``read_timeout``: until then it continues in the background, and keeps the process alive. No
    request is retried.
    """
    try:
        future = deadline.run(partial(begin, [s3transfer_internals.subscriber(watcher)]), apart=True)
        deadline.wait(watcher.done)
        future.result()
    except BaseException:
        with cleaning_up():
            watcher.stop.set()
            s3transfer_internals.begin_to_stop(manager).join(_GRACE)
        raise
    manager.shutdown()


def _arrived(
    connection: 'Connection', target: Target, file: BinaryIO, size: int, chunksize: int, deadline: _Deadline
) -> bool:
    """Return whether the object exists and is this file, because the answer to an earlier attempt was lost.

    One HEAD, and the file is read again.
    """
    if connection.authorizer.whole_objects_only:
        return False  # a URL that is signed for PUT cannot tell
    try:
        info = deadline.run(lambda: objects.stat(connection, target))
    except RucioException:
        return False
    if info.size != size:
        return False
    if info.crc32:
        return info.crc32 == crc32_of(file)
    # Some storages use the MD5 of the whole object even for multipart uploads.
    return objects.bare_etag(info.etag) == etag_of(file, 0 if info.md5 else chunksize)


def download(
    connection: 'Connection',
    target: Target,
    path: str,
    timeout: Optional[float] = None,
    meter: Optional[Meter] = None,
    expected: Optional[Checksums] = None,
    stop: Optional[threading.Event] = None,
    *,
    resume: bool = False,
) -> int:
    """Download an object to a local file; missing parent directories are created.

    One GET tells the size. From ``multipart_threshold`` bytes on it is one for each ``multipart_chunksize``,
    concurrently and all for the same version of the object. One HEAD more for a large object, or one without MD5 and
    CRC-32, unless the catalogue has a checksum. The content is verified if the object has a checksum. The file appears
    when it is complete; an existing file is kept on any failure.

    :param connection: The storage.
    :param target: The object.
    :param path: The local file.
    :param timeout: The limit of the whole transfer in seconds.
    :param meter: Shows the progress, see :func:`rucio.common.s3.progress.meter`.
    :param expected: What the catalogue knows of the content. The file is then read once to compare it.
    :param stop: Set it to stop this download, and all others with the same event.
    :param resume: Whether to keep the complete ranges of a large object if the download is interrupted, next to the
        file, and to continue what was interrupted before: the ranges are read and verified.
    :returns: The size in bytes.
    :raises SourceNotFound: if there is no such object.
    :raises DestinationNotAccessible: if the local file cannot be written.
    :raises FileConsistencyMismatch: if the content differs from what was stored, or from what was expected.
    :raises RucioException: the translation by :mod:`.errors` of any other error.
    """
    if os.path.lexists(path) and not os.path.isfile(path):
        raise DestinationNotAccessible(f"'{path}' is not a regular file: choose another destination.")
    deadline = _Deadline(timeout, stop)
    if expected and _get(connection, target, path, expected, deadline):
        with meter(os.path.basename(path), expected.size or 0) if meter else nullcontext() as progress:
            if progress is not None:
                progress(expected.size or 0)
        return expected.size or 0
    first = _begin(connection, target, deadline, expected, _Stop(stop))
    info = first.info
    folder = os.path.dirname(os.path.abspath(path))
    # A weak ETag does not tell versions apart.
    can_continue = resume and info.condition and _range_size(connection.endpoint, info.size) < info.size
    keep = threading.Event() if can_continue else None
    try:
        os.makedirs(folder, exist_ok=True)
        with (
            closing(first),
            ending_by_exception(),
            partial_file(folder, os.path.basename(path), keep) as partial,
            meter(os.path.basename(path), info.size) if meter else nullcontext() as progress,
        ):
            _download(connection, target, partial, first, deadline, progress, keep)
            # botocore does not verify ranges.
            _need_content(target, partial, expected or Checksums(None if info.crc32 else info.md5))
            os.replace(partial, path)
    except OSError as error:
        raise local_error(error, path, reading=False) from error
    return info.size


def _get(connection: 'Connection', target: Target, path: str, expected: Checksums, deadline: _Deadline) -> bool:
    """Try to get a small object, whose size and checksum are known, by one request without other threads.

    :returns: Whether the file is there. Otherwise, the usual way has to try, or to find out why not.
    """
    direct, size = connection.direct, expected.size or 0  # nobody would see whether there is an empty object
    is_known = 0 < size < connection.endpoint.multipart_threshold and (expected.md5 or expected.adler32)
    if direct is None or not direct.can_get or not is_known:
        return False
    stop, folder = deadline.stop(), os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, exist_ok=True)
        with (
            translated('get', target),
            ending_by_exception(),
            partial_file(folder, os.path.basename(path)) as unfinished,
        ):
            if deadline.run(partial(_stream, direct, target, unfinished, expected, stop), apart=True):
                os.replace(unfinished, path)
                return True
    except RucioException as error:
        if not isinstance(error.__cause__, ClientError) or not direct.repeats(error.__cause__):
            raise
    except HTTPError:  # interrupted
        pass
    except OSError as error:
        raise local_error(error, path, reading=False) from error
    finally:
        stop.set()
    return False


def _stream(direct: Direct, target: Target, path: str, expected: Checksums, stop: threading.Event) -> bool:
    """Write an object to an empty file, but no more bytes than expected, and return whether it is what was expected."""
    answer, hasher, crc = direct.get(target, stop), Hasher(expected, md5=not expected.adler32), 0
    stored = str(answer.headers.get('x-amz-checksum-crc32') or '')
    with closing(answer.raw) as body, open(path, 'r+b', buffering=0) as file:
        while block := body.read(BLOCK):
            if stop.is_set():
                raise CancelledError
            start = hasher.checksums.size or 0
            hasher.add(block)
            if start + len(block) > (expected.size or 0):
                return False
            write_at(file, start, block)
            crc = zlib.crc32(block, crc) if stored else 0
    if not hasher.is_expected or hasher.checksums.size != expected.size:
        return False
    if stored and '-' not in stored:  # that of a multipart upload is of its parts
        _need_stored(target, stored, base64_of(crc))
    return True


def _download(
    connection: 'Connection',
    target: Target,
    path: str,
    first: Beginning,
    deadline: _Deadline,
    progress: Optional[Progress],
    keep: Optional[threading.Event],
) -> None:
    endpoint, info = connection.endpoint, first.info
    piece = max(1, _range_size(endpoint, info.size))
    with translated('get', target):
        fetch = Fetch(connection.client, target, info, path, piece, progress, keep is not None, first.take)
        try:
            fetch.start(endpoint.max_concurrency)
            deadline.wait(fetch.done)
        finally:
            with cleaning_up():
                fetch.end(_GRACE)
                if keep is not None and fetch.can_continue():
                    keep.set()
        crc32 = fetch.crc32()
    # botocore verifies answers with the whole object, but ranges have no checksums of their own.
    if info.crc32:
        _need_stored(target, info.crc32, crc32)


def _need_stored(target: Target, stored: str, found: str) -> None:
    if stored != found:
        raise FileConsistencyMismatch(
            f'RSE {target.rse}: get of {target}: its CRC32 is {found}, but {stored} was stored with it. '
            'The object is damaged: tell the operator, and use another replica.'
        )


def _range_size(endpoint: 'Endpoint', size: int) -> int:
    """Return the bytes of each request for an object: a range for each part, as each has an entry in memory."""
    return (
        size
        if size < endpoint.multipart_threshold
        else s3transfer_internals.part_size(endpoint.multipart_chunksize, size)
    )


def _begin(
    connection: 'Connection', target: Target, deadline: _Deadline, expected: Optional[Checksums], stop: _Stop
) -> Beginning:
    """Ask for the first bytes of an object, and compare its size with the catalogue.

    :raises FileConsistencyMismatch: if it differs, before its bytes fill the disk.
    """
    most = connection.endpoint.multipart_threshold
    verified = expected is not None and bool(expected.md5 or expected.adler32)
    stoppable = replace(connection, client=Stoppable.of(connection.client, stop))
    try:
        with translated('get', target):
            first = deadline.run(lambda: begin(stoppable, target, most, verified=verified))
    except BaseException:
        stop.set()  # it may still be waiting in its thread
        raise
    size = first.info.size
    if size >= most != _range_size(connection.endpoint, size):
        first.close()  # it is not the first range
    if expected and expected.size not in (None, size):
        first.close()
        raise FileConsistencyMismatch(
            f'RSE {target.rse}: get of {target}: it has {size} bytes, but the catalogue says {expected.size}. The '
            'object is damaged or was changed: use another replica, or declare it bad.'
        )
    return first


def _need_content(target: Target, path: str, expected: Checksums) -> None:
    """Compare a downloaded file with the catalogue.

    :raises FileConsistencyMismatch: if it differs.
    """
    if not expected.md5 and not expected.adler32:
        return
    hasher = Hasher(expected, md5=not expected.adler32)  # the cheaper of the two checksums is enough
    with open(path, 'rb') as file:
        while block := file.read(BLOCK):
            hasher.add(block)
    if not hasher.is_expected:
        name, found = ('Adler-32', hasher.checksums.adler32) if expected.adler32 else ('MD5', hasher.checksums.md5)
        raise FileConsistencyMismatch(
            f'RSE {target.rse}: get of {target}: its {name} is {found}, but the catalogue says '
            f'{expected.adler32 or expected.md5}. The object is damaged or was changed: use another replica, or '
            'declare it bad.'
        )


def copy(
    connection: 'Connection',
    source: Target,
    target: Target,
    timeout: Optional[float] = None,
    stop: Optional[threading.Event] = None,
    info: Optional[objects.ObjectInfo] = None,
    left_over: Optional[LeftOver] = None,
) -> None:
    """Copy an object inside the storage, in parts if it is large, without overwriting.

    Three requests, or more for objects of more than 1 GiB.

    :param connection: The storage.
    :param source: The object to copy.
    :param target: The new object.
    :param timeout: The limit of the whole copy in seconds.
    :param stop: Set it to stop the copy at its next request.
    :param info: The known properties of the source, if any: no other version of it is copied.
    :param left_over: Called for a multipart upload that could not be aborted.
    :raises SourceNotFound: if there is no such object.
    :raises FileReplicaAlreadyExists: if ``target`` exists (a check before the copy, if CopyObject does not support
        If-None-Match).
    :raises RSEOperationNotSupported: if the storage cannot copy, or not without overwriting. Two more requests.
    """
    deadline = _Deadline(timeout)
    if info is None:
        with translated('copy', source):
            info = deadline.run(lambda: objects.stat(connection, source, 'copy'))
    _need_possible(info.size, 'copy', target)
    watcher = _Watcher(info.size, info.condition, stop=stop)
    extra = {'CopySourceIfMatch': info.condition} if info.condition else {}
    with translated('copy', target):
        if info.restoring:
            raise archives.restoring()
        manager = s3transfer_internals.manager(
            Multipart(connection, watcher.stop, target, info.size, left_over),
            multipart_threshold=COPY_THRESHOLD,
            multipart_chunksize=s3transfer_internals.part_size(COPY_PART, info.size),
            max_submission_concurrency=1,
        )
        copy_source: CopySourceTypeDef = {'Bucket': source.bucket, 'Key': source.key}
        try:
            _run(
                manager,
                lambda subscribers: manager.copy(copy_source, target.bucket, target.key, extra, subscribers),
                watcher,
                deadline,
            )
        except ClientError as error:
            if reason := deadline.run(partial(_why_not_copied, connection, source, target, info, error)):
                raise RSEOperationNotSupported(f'RSE {target.rse}: copy to {target}: {reason}') from error
            raise
        except UnreadableAnswerError as error:
            raise RSEOperationNotSupported(
                f'RSE {target.rse}: copy to {target}: the storage did not confirm that it copied anything: {error}. '
                "It may not support CopyObject or UploadPartCopy: check 'provider'."
            ) from error


def _why_not_copied(
    connection: 'Connection', source: Target, target: Target, info: objects.ObjectInfo, error: ClientError
) -> str:
    """Return why the storage cannot copy, or an empty string if it can and the copy failed for another reason."""
    status = status_of(error)
    if status in (304, 412) and _is_copyable(connection, source, target, info):
        remedy = (
            " Leave 'copy' out of the setting 'if_none_match'." if 'copy' in connection.endpoint.if_none_match else ''
        )
        return (
            'the storage says that there is an object already, but there is none: it compares If-None-Match with the '
            f'source.{remedy}'
        )
    # An error with a known meaning, such as expired keys, is another exception.
    if status in (400, 405) and type(translate(error, 'copy', target)) is ServiceUnavailable:
        return f'{describe(error)} It may not support CopyObject or UploadPartCopy.'
    return ''


def _is_copyable(connection: 'Connection', source: Target, target: Target, info: objects.ObjectInfo) -> bool:
    """Return whether there is no target, and the source has not changed. Two requests."""
    try:
        return not objects.exists(connection, target) and objects.stat(connection, source, 'copy') == info
    except RucioException:
        return False


def move(connection: 'Connection', source: Target, target: Target) -> None:
    """Rename an object without overwriting: copy it, and delete it.

    At least four requests. If the storage cannot copy, the content passes this machine.

    :param connection: The storage.
    :param source: The object.
    :param target: The new object.
    :raises SourceNotFound: if there is no such object.
    :raises FileReplicaAlreadyExists: if ``target`` exists.
    """
    info = objects.stat(connection, source, 'copy')
    try:
        copy(connection, source, target, info=info)
    except RSEOperationNotSupported:
        content = Verified(connection, source, info, Checksums(info.md5))
        try:
            upload_stream(connection, content, info.size, target)
        finally:
            content.close()
    with translated('delete', source):
        connection.client.delete_object(Bucket=source.bucket, Key=source.key)
