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

"""Bytes between local files and a storage: never overwriting, verified, cancellable. Uploads and copies are on
s3transfer.

Memory: an upload holds up to ``max_concurrency`` + 1 parts of ``multipart_chunksize`` bytes (parts grow with the file,
as S3 takes 10,000 of them; then fewer are held, so that it stays near 512 MiB); a download 1 MiB for each of
``max_concurrency``.
"""

import os
import stat as stat_module
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import IO, TYPE_CHECKING, Any, BinaryIO, NoReturn, Optional, TypeVar, cast

from botocore.exceptions import BotoCoreError, ClientError
from s3transfer.exceptions import CancelledError
from s3transfer.futures import TransferFuture
from s3transfer.manager import TransferConfig, TransferManager
from s3transfer.subscribers import BaseSubscriber

from rucio.common.exception import (
    DestinationNotAccessible,
    FileConsistencyMismatch,
    RSEFileNameNotSupported,
    RSEOperationNotSupported,
    RucioException,
    SourceNotFound,
)

from . import objects, s3transfer_internals
from .checksums import crc32_of, etag_of
from .clients import Stoppable
from .content import Summing
from .errors import Target, TransferTimeout, is_ambiguous, local_error, status_of, translated
from .interrupts import cleaning_up, ending_by_exception
from .partial_files import partial_file
from .ranges import Fetch

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from .clients import Connection
    from .endpoint import Endpoint

__all__ = ['copy', 'download', 'upload', 'upload_stream']

MiB, GiB = 1024**2, 1024**3
SINGLE_PUT_LIMIT = 5 * GiB  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
COPY_THRESHOLD, COPY_PART = GiB, 256 * MiB  # inside a storage: what is as large is copied in parts, of this size
_MEMORY = 512 * MiB
_TICK = 0.2  # seconds
_GRACE = 5.0  # seconds that a cancelled transfer has for its clean-up before the caller goes on

Answer = TypeVar('Answer')
Progress = Callable[[int], None]
LeftOver = Callable[[str, str, str], None]  # bucket, key and upload id
# Name, size in bytes -> what is called after each step.
Meter = Callable[[str, int], AbstractContextManager[Optional[Progress]]]


class _Deadline:
    """When a transfer has to be over. None: whenever it is."""

    def __init__(self, seconds: Optional[float]) -> None:
        self._seconds = seconds or 0
        self._end = time.monotonic() + seconds if seconds else None

    def wait(self, done: threading.Event) -> None:
        late = False
        try:
            while not late and not done.wait(self._tick()):
                late = self._end is not None and time.monotonic() >= self._end
        except Exception as error:
            # Only a signal handler raises here. That of Rucio's command line fails with a TypeError when it looks for
            # child processes, and the uploader, which takes that for a failed transfer, would begin anew.
            raise KeyboardInterrupt from error
        if late:
            raise TransferTimeout(self._seconds)

    def _tick(self) -> float:
        """A signal that another thread gets, or that comes just when Python begins to wait, is seen only after the
        wait.
        """
        return _TICK if self._end is None else max(0, min(_TICK, self._end - time.monotonic()))

    def run(self, ask: Callable[[], Answer]) -> Answer:
        """Ask something of the storage that has no time-out of its own. If it is late, its thread ends by
        ``read_timeout``.
        """
        if self._end is None:
            return ask()
        executor = ThreadPoolExecutor(1, 'rucio-s3')
        future = executor.submit(ask)
        executor.shutdown(wait=False)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        self.wait(done)
        return future.result()


class _Stop(threading.Event):
    """Set for one transfer, or for all that share ``also``."""

    def __init__(self, also: Optional[threading.Event]) -> None:
        super().__init__()
        self._also = also

    def is_set(self) -> bool:
        return super().is_set() or (self._also is not None and self._also.is_set())


class _Watcher(BaseSubscriber):
    """Tells s3transfer the size, passes on progress, and lets us wait with a time-out, which its futures do not."""

    def __init__(
        self, size: int, etag: str = '', progress: Optional[Progress] = None, stop: Optional[threading.Event] = None
    ) -> None:
        super().__init__()
        self.done = threading.Event()
        self.stop = _Stop(stop)
        self._size = size
        self._etag = etag
        self._progress = progress

    def on_queued(self, future: TransferFuture, **_: Any) -> None:
        s3transfer_internals.tell_of_source(future, self._size, self._etag)

    def on_progress(self, future: TransferFuture, bytes_transferred: int, **_: Any) -> None:
        if self._progress is not None:
            self._progress(bytes_transferred)

    def on_done(self, future: TransferFuture, **_: Any) -> None:
        self.done.set()


class _OnePass:
    """A file that can only be read on: s3transfer then takes its parts from memory, and no byte is read twice.

    A file that changes meanwhile fails the upload before its last bytes are sent: what Rucio has registered is not what
    would be stored.
    """

    def __init__(self, file: BinaryIO, size: int, stop: threading.Event, summing: Optional[Summing] = None) -> None:
        self.failure: Optional[RucioException] = None
        self._file = file
        self._size = size
        self._stop = stop
        self._summing = summing

    def read(self, amount: int = -1) -> bytes:
        data = self._file.read(amount)
        if os.fstat(self._file.fileno()).st_size != self._size:
            self._fail(
                SourceNotFound(
                    f"The local file '{self._file.name}' changed while it was read: "
                    f'it had {self._size} bytes at first. Try again when nobody writes to it.'
                )
            )
        if self._summing is not None:
            self._summing.add(data)
            if self._summing.sums.size == self._size and not self._summing.is_expected:
                self._fail(
                    FileConsistencyMismatch(
                        f"The local file '{self._file.name}' changed after its checksums were made: "
                        'it is not what was registered. '
                        'Nothing was stored. Upload it under another name when nobody writes to it.'
                    )
                )
        return data

    def _fail(self, failure: RucioException) -> NoReturn:
        """What is raised while botocore sends looks to it like a broken connection: that must not be tried again."""
        self.failure = failure
        self._stop.set()
        raise failure


class _Seekable(_OnePass):
    """The same for one large PUT, which is sent from the file; its MD5 is made before."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if self._summing is not None and (offset, whence) == (0, os.SEEK_SET):
            self._summing.restart()
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        """s3transfer closes what it sends, but the file belongs to who opened it."""


class _Aborting(Stoppable):
    """A client for one transfer that does not forget a multipart upload which the storage would not abort."""

    def __init__(self, client: 'S3Client', stop: threading.Event, left_over: Optional[LeftOver] = None) -> None:
        super().__init__(client, stop)
        self._left_over = left_over

    def abort_multipart_upload(self, **arguments: Any) -> Any:
        try:
            return self._client.abort_multipart_upload(**arguments)
        except (ClientError, BotoCoreError) as error:
            if self._left_over is not None and status_of(error) != 404:
                self._left_over(arguments['Bucket'], arguments['Key'], arguments['UploadId'])
            raise


def upload(
    connection: 'Connection',
    path: str,
    target: Target,
    timeout: Optional[float] = None,
    meter: Optional[Meter] = None,
    tried_before: bool = False,
    summing: Optional[Summing] = None,
    stop: Optional[threading.Event] = None,
) -> int:
    """Store a local file as an object that is not there yet.

    One PUT, or a multipart upload of ``multipart_threshold`` bytes and more, which is aborted on any failure. The
    storage verifies what it received. With a signed URL it is one PUT of at most 5 GiB, and the file is read twice.

    :param path: The local file.
    :param target: Where to.
    :param timeout: Bound of the whole transfer in seconds.
    :param meter: Shows the progress, see :func:`rucio.common.s3.progress.meter`.
    :param tried_before: Whether an earlier try may have arrived: an object of the same content is then a success.
    :param summing: Sums all that is sent. A file that is not what it expects is not stored.
    :param stop: Set it to stop this upload, and all others that were given it, at their next request.
    :returns: The size in bytes.
    :raises SourceNotFound, SourceAccessDenied: if the local file is missing, changes its size, or cannot be read.
    :raises FileConsistencyMismatch: if its content is not the expected one.
    :raises FileReplicaAlreadyExists: if there is an object already. It is left as it is.
    :raises RSEFileNameNotSupported: if the key ends in a slash.
    :raises RucioException: what :mod:`.errors` makes of anything else.
    """
    if target.key.endswith('/'):
        raise RSEFileNameNotSupported(
            f"RSE {target.rse}: put of {target}: a key that ends in '/' is a folder, "
            'of which some storages keep no content. Use a name without it.'
        )
    try:
        if not stat_module.S_ISREG(os.stat(path).st_mode):  # to open a pipe would be to wait for its writer
            raise SourceNotFound(
                f"The local file '{path}' cannot be uploaded: it is no regular file. Choose another one."
            )
        with ending_by_exception(), open(path, 'rb') as file:
            size = os.fstat(file.fileno()).st_size
            with meter(os.path.basename(path), size) if meter else nullcontext() as progress:
                watcher = _Watcher(size, progress=progress, stop=stop)
                body = (_Seekable if connection.authorizer.whole_objects_only else _OnePass)(
                    file, size, watcher.stop, summing
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
            f"RSE {target.rse}: '{file.name}' has {size} bytes, but with a signed URL S3 takes 5 GiB at most. "
            f'Configure keys for this RSE (rucio.cfg [s3:{target.rse}]) to upload larger files.'
        )
    chunksize = s3transfer_internals.part_size(endpoint.multipart_chunksize, size)
    extra = {} if signed else _integrity(endpoint)
    with translated('put', target):
        try:
            config = _upload_config(endpoint, chunksize, single=size if signed else 0)
            manager = TransferManager(Stoppable.of(connection.client, watcher.stop), config)
            _finish(
                manager,
                manager.upload(cast('IO[Any]', body), target.bucket, target.key, extra, [watcher]),
                watcher,
                deadline,
            )
        except (ClientError, BotoCoreError, CancelledError) as error:
            if body.failure is not None:
                raise body.failure from None
            if not (is_ambiguous(error) or (tried_before and status_of(error) == 412)):
                raise
            if not _arrived(
                connection, target, file, size, 0 if size < endpoint.multipart_threshold else chunksize, deadline
            ):
                raise


def upload_stream(
    connection: 'Connection',
    body: Any,
    size: int,
    target: Target,
    memory: int = _MEMORY,
    stop: Optional[threading.Event] = None,
    left_over: Optional[LeftOver] = None,
) -> None:
    """Store what a stream yields as an object that is not there yet: one PUT, or a multipart upload that is aborted on
    any failure.

    What ``body.read`` raises ends it, and is raised here. If it raises when it is asked for the last byte, nothing was
    stored: so it can say that what it read is not what was meant.

    :param body: Has ``read(amount)``, which gives less than the amount only at the end. It is called by one other
        thread.
    :param size: How many bytes there will be.
    :param target: Where to.
    :param memory: About so many bytes are held, but three parts at least; parts are of an eighth of it at most, where
        10,000 of those are enough.
    :param stop: Set it to stop this upload at its next request.
    :param left_over: Is told of a multipart upload that could not be aborted.
    :raises FileReplicaAlreadyExists: if there is an object already. It is left as it is.
    :raises RucioException: what :mod:`.errors` makes of anything else. The object may be there nevertheless, where only
        the answer was lost.
    """
    chunksize = s3transfer_internals.part_size(min(connection.endpoint.multipart_chunksize, memory // 8), size)
    watcher = _Watcher(size, stop=stop)
    config = _upload_config(connection.endpoint, chunksize, memory=memory - 2 * chunksize)
    with translated('put', target):
        manager = TransferManager(_Aborting.of(connection.client, watcher.stop, left_over), config)
        future = manager.upload(
            cast('IO[Any]', body), target.bucket, target.key, _integrity(connection.endpoint), [watcher]
        )
        _finish(manager, future, watcher, _Deadline(None))


def _integrity(endpoint: 'Endpoint') -> dict[str, str]:
    return {'ChecksumType': 'FULL_OBJECT'} if endpoint.full_object_checksum and endpoint.checksum == 'crc32' else {}


def _upload_config(endpoint: 'Endpoint', chunksize: int, single: int = 0, memory: int = _MEMORY) -> TransferConfig:
    """
    :param single: If not 0, up to so many bytes are one PUT.
    :param memory: Of the parts that are being sent, at most; but one there is.
    """
    parts = max(1, min(endpoint.max_concurrency, memory // chunksize))
    return TransferConfig(
        multipart_threshold=max(endpoint.multipart_threshold, single + 1),
        multipart_chunksize=chunksize,
        max_request_concurrency=parts,
        max_in_memory_upload_chunks=parts,
        max_submission_concurrency=1,
    )


def _finish(manager: TransferManager, future: TransferFuture, watcher: _Watcher, deadline: _Deadline) -> None:
    """Wait for a transfer. Whatever ends the wait (also Ctrl-C, also sys.exit in a signal handler) ends the transfer.

    The clean-up of a cancelled transfer, which aborts a multipart upload, waits for requests under way. On a storage
    that hangs they end by ``read_timeout``: until then it goes on behind the caller's back, and the process lives as
    long. No further attempt is made.
    """
    try:
        deadline.wait(watcher.done)
        future.result()
    except BaseException:
        with cleaning_up():
            watcher.stop.set()
            s3transfer_internals.begin_to_stop(manager, future).join(_GRACE)
        raise
    manager.shutdown()


def _arrived(
    connection: 'Connection', target: Target, file: BinaryIO, size: int, chunksize: int, deadline: _Deadline
) -> bool:
    """Whether the object is there and is this file: an attempt whose answer was lost. One HEAD, and the file is read
    again.
    """
    if connection.authorizer.whole_objects_only:
        return False  # a URL that is signed for PUT tells nothing
    try:
        info = deadline.run(lambda: objects.stat(connection, target))
    except RucioException:
        return False
    if info.size != size:
        return False
    if info.crc32:
        return info.crc32 == crc32_of(file)
    # Some storages have the MD5 of all of it also for what came in parts.
    return info.etag.strip('"') == etag_of(file, 0 if info.md5 else chunksize)


def download(
    connection: 'Connection',
    target: Target,
    path: str,
    timeout: Optional[float] = None,
    meter: Optional[Meter] = None,
) -> int:
    """Get an object into exactly this local file; missing parent directories are made.

    One request for its size, then one GET, or from ``multipart_threshold`` bytes on one for each
    ``multipart_chunksize``, in parallel and all of the same version of the object. Verified where the object carries a
    checksum. The file appears when it is complete; one that was there before stays on any failure.

    :param path: The local file.
    :param timeout: Bound of the whole transfer in seconds.
    :param meter: Shows the progress, see :func:`rucio.common.s3.progress.meter`.
    :returns: The size in bytes.
    :raises SourceNotFound: if there is no such object.
    :raises DestinationNotAccessible: if the local file cannot be written.
    :raises FileConsistencyMismatch: if what came is not what was stored.
    :raises RucioException: what :mod:`.errors` makes of anything else.
    """
    if os.path.lexists(path) and not os.path.isfile(path):
        raise DestinationNotAccessible(f"'{path}' is no regular file: choose another destination.")
    deadline = _Deadline(timeout)
    with translated('get', target):
        info = deadline.run(lambda: objects.stat(connection, target, 'get'))
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, exist_ok=True)
        with (
            ending_by_exception(),
            partial_file(folder, os.path.basename(path)) as partial,
            meter(os.path.basename(path), info.size) if meter else nullcontext() as progress,
        ):
            _download(connection, target, partial, info, deadline, progress)
            os.replace(partial, path)
    except OSError as error:
        raise local_error(error, path, reading=False) from error
    return info.size


def _download(
    connection: 'Connection',
    target: Target,
    path: str,
    info: objects.ObjectInfo,
    deadline: _Deadline,
    progress: Optional[Progress],
) -> None:
    endpoint = connection.endpoint
    piece = endpoint.multipart_chunksize if info.size >= endpoint.multipart_threshold else info.size
    with translated('get', target):
        fetch = Fetch(connection.client, target, info, path, max(1, piece), progress)
        try:
            fetch.start(endpoint.max_concurrency)
            deadline.wait(fetch.done)
        finally:
            with cleaning_up():
                fetch.end(_GRACE)
        crc32 = fetch.crc32()
    # botocore verifies what comes in one piece, but of ranges only the whole has a checksum.
    if info.crc32 and info.crc32 != crc32:
        raise FileConsistencyMismatch(
            f'RSE {target.rse}: get of {target}: its CRC32 is {crc32}, but {info.crc32} was stored with it. '
            'The object is damaged: tell the operator, and use another replica.'
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
    """Copy an object inside the storage, in parts where it is large; no byte comes here. Never overwrites.

    Three requests, or some more for objects of more than 1 GiB.

    :param timeout: Bound of the whole copy in seconds.
    :param stop: Set it to stop the copy at its next request.
    :param info: What is known of the source, which is then not asked for: no other version of it is copied.
    :param left_over: Is told of a multipart upload that could not be aborted.
    :raises SourceNotFound: if there is no such object.
    :raises FileReplicaAlreadyExists: if there is one at ``target`` (without CopyObject's If-None-Match this is a check
        before).
    :raises RSEOperationNotSupported: if the storage does not copy.
    """
    deadline = _Deadline(timeout)
    if info is None:
        with translated('copy', source):
            info = deadline.run(lambda: objects.stat(connection, source, 'copy'))
    config = TransferConfig(
        multipart_threshold=COPY_THRESHOLD, multipart_chunksize=COPY_PART, max_submission_concurrency=1
    )
    watcher = _Watcher(info.size, info.etag, stop=stop)
    extra = {'CopySourceIfMatch': info.etag} if info.etag else {}
    with translated('copy', target):
        manager = TransferManager(_Aborting.of(connection.client, watcher.stop, left_over), config)
        future = manager.copy({'Bucket': source.bucket, 'Key': source.key}, target.bucket, target.key, extra, [watcher])
        try:
            _finish(manager, future, watcher, deadline)
        except KeyError as error:
            if not s3transfer_internals.is_missing_etag(error):
                raise
            raise RSEOperationNotSupported(
                f'RSE {target.rse}: copy to {target}: the storage did not say that it copied a part. '
                "It may not know UploadPartCopy: check 'provider'."
            ) from error
