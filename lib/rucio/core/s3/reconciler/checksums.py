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

"""Checksums of objects: from the ETag, from metadata of the uploading client, or by reading the object once."""

import base64
import re
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Optional, Union

from rucio.common.exception import ResourceTemporaryUnavailable, RucioException, ServiceUnavailable
from rucio.common.s3 import archives, objects, request_ids
from rucio.common.s3.content import Checksums, hash_object
from rucio.common.s3.errors import translated
from rucio.core.s3.catalogue.records import NewFile

from .listings import etag_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from rucio.core.s3.subtrees import Subtree

    from .listings import Entry

__all__ = ['Told', 'compute_checksums']

MAX_READ_SECONDS = 60  # for an object, while a request to the Rucio server waits
# Daemons give up an object that comes more slowly: one that never ends would stop all others.
MIN_READ_SECONDS, MIN_RATE = 600, 1024**2  # for any object; more than so many bytes a second

_MD5 = re.compile(r'[0-9a-f]{32}')
_EMPTY = ('d41d8cd98f00b204e9800998ecf8427e', '00000001')  # MD5 and Adler-32 of nothing

Result = tuple['Entry', Union[NewFile, Exception]]


class Stopped(ServiceUnavailable):
    """Reading was stopped."""


class Told(NamedTuple):
    """The Adler-32 of an object, as whoever wrote it says. It counts as long as the object has this size and ETag."""

    size: int
    etag: str
    adler32: str


def compute_checksums(
    subtree: 'Subtree',
    entries: 'Iterable[Entry]',
    readers: int,
    read: 'Union[bool, Callable[[Entry], bool]]',
    stop: threading.Event,
    told: 'Optional[Mapping[str, Told]]' = None,
) -> 'Iterator[Result]':
    """Yield the files to register for objects, in the order in which they are ready.

    No cost if the ETag in the listing is an MD5, or the object is empty; else one HEAD, and if that has no checksum
    either (multipart uploads, some encryptions) one GET, which reads the content once. Archived objects cannot be
    read, and get no checksum. ``readers`` threads, with 1 MiB of memory each.

    :param entries: Consumed as they are processed, at most two per reader ahead, in the thread of the caller.
    :param readers: The number of concurrent requests.
    :param read: Whether to read objects, or a function that decides it in the thread of the caller; others may
        have no checksum.
    :param stop: Once it is set, no more objects are started, and those being read are neither finished nor yielded.
    :param told: Key -> what the owner of the scope said: an object of the same size and ETag is not read.
    :returns: Each entry with its file, or with an exception: the storage refused, or the object was changed.
    """
    ended = _StopOrDone(stop)
    pool = ThreadPoolExecutor(readers, 'rucio-s3-checksums')
    going: dict[Future[NewFile], Entry] = {}
    try:
        for entry in entries:
            if stop.is_set():
                break
            known = _from_listing(subtree, entry, (told or {}).get(entry.key))
            if known:
                yield entry, _file(subtree, entry, known)
                continue
            may_read = read if isinstance(read, bool) else read(entry)
            going[pool.submit(request_ids.carried(_from_object), subtree, entry, may_read, ended)] = entry
            while len(going) >= 2 * readers:
                yield from _finished(going)
        while going:
            yield from _finished(going)
    finally:
        ended.set()
        pool.shutdown(cancel_futures=True)


class _StopOrDone(threading.Event):
    """Whether the caller wants no more: it says so, or it has gone."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self._stop = stop

    def is_set(self) -> bool:
        return super().is_set() or self._stop.is_set()


def _finished(going: 'dict[Future[NewFile], Entry]') -> 'Iterator[Result]':
    """Wait until at least one object is finished, and yield those that are, in the order in which they were started."""
    done, _ = wait(going, return_when=FIRST_COMPLETED)
    for future in [each for each in going if each in done]:  # in the order in which they were asked for
        entry, error = going.pop(future), future.exception()
        if error is None:
            yield entry, future.result()
        elif not isinstance(error, Exception):
            raise error
        elif not isinstance(error, Stopped):
            yield entry, error


def _from_listing(subtree: 'Subtree', entry: 'Entry', told: 'Optional[Told]') -> Optional[Checksums]:
    if entry.size == 0:
        return Checksums(*_EMPTY)
    md5 = entry.etag if _is_md5(subtree, entry.etag) else None
    adler32 = told.adler32 if told and (told.size, etag_of(told.etag)) == (entry.size, entry.etag) else None
    return Checksums(md5, adler32) if md5 or adler32 else None


def _is_md5(subtree: 'Subtree', etag: str) -> bool:
    return subtree.storage.endpoint.etag_is_md5 and bool(_MD5.fullmatch(etag))


def _file(subtree: 'Subtree', entry: 'Entry', known: Checksums) -> NewFile:
    """Return the file to register, with the ETag for comparison with later listings if it is not an MD5."""
    etag = None if _is_md5(subtree, entry.etag) else entry.etag or None
    return NewFile(subtree.name_of(entry.key), entry.size, known.md5, known.adler32, etag, subtree.path_of(entry.key))


def _from_object(subtree: 'Subtree', entry: 'Entry', read: bool, ended: _StopOrDone) -> NewFile:
    if ended.is_set():
        raise Stopped
    target, connection = subtree.target(subtree.name_of(entry.key)), subtree.storage.connection()
    with translated('stat', target):
        answer = objects.head(connection, target)
        info = objects.info(answer)
    if (info.size, etag_of(info.etag)) != (entry.size, entry.etag):
        raise _changed(subtree, entry)
    md5 = info.md5 or _md5_of_client(answer.get('Metadata', {}))
    if md5 or not read:
        return _file(subtree, entry, Checksums(md5))
    try:
        is_request = not subtree.storage.patience.unattended
        seconds = MAX_READ_SECONDS if is_request else MIN_READ_SECONDS + entry.size / MIN_RATE
        return _file(subtree, entry, hash_object(connection, target, info, ended, seconds))
    except ServiceUnavailable:
        if ended.is_set():
            raise Stopped from None
        raise
    except ResourceTemporaryUnavailable as error:
        if archives.is_refusal(error.__cause__):
            return _file(subtree, entry, Checksums())
        raise


def _changed(subtree: 'Subtree', entry: 'Entry') -> RucioException:
    target = subtree.target(subtree.name_of(entry.key))
    return ServiceUnavailable(f'RSE {target.rse}: {target}: the object was changed while it was read. Run it again.')


def _md5_of_client(metadata: 'Mapping[str, str]') -> Optional[str]:
    """Return the MD5 that rclone and s3cmd store in the metadata of multipart uploads.

    Some servers capitalise the names of metadata.
    """
    metadata = {name.lower(): value for name, value in metadata.items()}
    found = []
    with suppress(KeyError, ValueError):
        found.append(base64.b64decode(metadata['md5chksum'], validate=True).hex())
    pairs = (pair.partition(':') for pair in metadata.get('s3cmd-attrs', '').split('/'))
    found += [value for name, _, value in pairs if name == 'md5']
    return next((each for each in found if _MD5.fullmatch(each)), None)
