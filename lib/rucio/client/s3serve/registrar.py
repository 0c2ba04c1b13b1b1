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

"""Have what a tool wrote and deleted in the catalogue at once, where the Rucio server does it for this account."""

import asyncio
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Optional

from rucio.common.exception import AccessDenied, RSEOperationNotSupported, RucioException
from rucio.common.s3.answers import line_logger
from rucio.common.s3.api import MAX_FILES

from .refusals import of_rucio

if TYPE_CHECKING:
    from rucio.client.s3client import S3Client
    from rucio.common.s3 import api

    from .places import Place
    from .sums import Sum

__all__ = ['Registrar']

_logger = line_logger('rucio.s3.serve')
_Bucket = tuple[str, str]  # scope and RSE


class _Notice(NamedTuple):
    """A file that was written or deleted; ``done`` is set when the server was told, or could not be."""

    file: 'api.WrittenFile'
    deleted: bool
    done: 'asyncio.Future[None]'


class Registrar:
    """Tells the Rucio server which objects were written and deleted: in batches, one request at a time for each bucket.

    Whatever fails here, the object is stored and the tool is told so: events of the storage or the reconciler do it
    later. To be made, used and closed in one event loop.

    :param client: The Rucio server.
    :param overwrite: Whether tools overwrite objects, so that files in the catalogue get new sizes and checksums.
    """

    PATIENCE: ClassVar[float] = 5  # seconds that the answer for an object waits for the catalogue
    CLOSING: ClassVar[float] = 20  # seconds that the end of the endpoint waits for it
    REFUSED: ClassVar[float] = 300  # seconds in which the server is not asked again about a bucket that it refused
    MOST: ClassVar[int] = 10_000  # files that wait; what comes then is left to the reconciler

    def __init__(self, client: 'S3Client', overwrite: bool) -> None:
        self._client = client
        self._on_changed = 'replace' if overwrite else None
        self._waiting: dict[_Bucket, dict[str, _Notice]] = {}
        self._workers: dict[_Bucket, asyncio.Task[None]] = {}
        self._refused: OrderedDict[_Bucket, float] = OrderedDict()
        self._is_prompt = True  # the last request was answered in time
        self._on_way = 0  # files that the server is being told of
        self._is_full = False
        self._threads = ThreadPoolExecutor(4, 'rucio-s3-registrar')

    async def written(self, place: 'Place', name: str, etag: str, content: 'Optional[Sum]') -> None:
        """Register an object. Returns when the catalogue has it, at the latest after :attr:`PATIENCE`.

        :param place: The bucket.
        :param name: The name of the file.
        :param etag: The ETag of the object, as the storage returned it.
        :param content: The size and checksum of the object, if they are known.
        """
        file: api.WrittenFile = {'name': name}
        if content is not None:
            file |= {'bytes': content.size, 'etag': etag, 'adler32': f'{content.adler32:08x}'}
        await self._note(place, file, deleted=False)

    async def deleted(self, place: 'Place', name: str) -> None:
        """Remove a file whose object was deleted from the catalogue. Returns as :meth:`written` does.

        :param place: The bucket.
        :param name: The name of the file.
        """
        await self._note(place, {'name': name}, deleted=True)

    async def close(self) -> None:
        """Tell the server what is still waiting, for at most :attr:`CLOSING` seconds."""
        if workers := list(self._workers.values()):
            await asyncio.wait(workers, timeout=self.CLOSING)
        if left := self._on_way + sum(map(len, self._waiting.values())):
            self._log_left(left, 'the Rucio server did not answer in time')
        for each in workers:
            each.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _note(self, place: 'Place', file: 'api.WrittenFile', deleted: bool) -> None:
        bucket = (place.scope, place.endpoint.rse)
        if time.monotonic() < self._refused.get(bucket, 0):
            return
        if sum(map(len, self._waiting.values())) >= self.MOST:
            if not self._is_full:
                self._log_left(1, f'{self.MOST} files wait already, and the next ones are left out as well')
            self._is_full = True
            return
        self._is_full = False
        waiting = self._waiting.setdefault(bucket, {})
        notice = _Notice(file, deleted, asyncio.get_running_loop().create_future())
        if before := waiting.pop(file['name'], None):
            before.done.set_result(None)  # what it says is outdated
        waiting[file['name']] = notice
        if bucket not in self._workers:
            self._workers[bucket] = asyncio.create_task(self._work(bucket))
        if self._is_prompt:
            await asyncio.wait([notice.done], timeout=self.PATIENCE)
            self._is_prompt = notice.done.done()

    async def _work(self, bucket: _Bucket) -> None:
        """Tell the server everything about a bucket."""
        waiting = self._waiting[bucket]
        try:
            while waiting:
                deleted = next(iter(waiting.values())).deleted
                names = [name for name, each in waiting.items() if each.deleted == deleted][:MAX_FILES]
                notices = [waiting.pop(name) for name in names]
                self._on_way += len(notices)
                try:
                    await self._tell(bucket, [each.file for each in notices], deleted)
                finally:
                    self._on_way -= len(notices)
                    for each in notices:
                        if not each.done.done():
                            each.done.set_result(None)
        finally:
            del self._waiting[bucket], self._workers[bucket]

    async def _tell(self, bucket: _Bucket, files: 'list[api.WrittenFile]', deleted: bool) -> None:
        """Send one request; what goes wrong is logged."""
        on_missing = 'forget' if deleted else None
        call = partial(self._client.reconcile_files, *bucket, files, on_changed=self._on_changed, on_missing=on_missing)
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except RucioException as error:
            if isinstance(error, (AccessDenied, RSEOperationNotSupported)):
                self._refused[bucket] = time.monotonic() + self.REFUSED
                while len(self._refused) > self.MOST:
                    self._refused.popitem(last=False)
            self._log_left(len(files), of_rucio(error).message)
            return
        except Exception as error:  # noqa: BLE001 - the object is stored, whatever happens here
            self._log_left(len(files), type(error).__name__)
            return
        self._is_prompt = True
        for each in answer['problems']:
            _logger.warning('%s: %s %s', each['did'], each['found'], each['remedy'])

    @staticmethod
    def _log_left(number: int, why: str) -> None:
        _logger.warning(
            'The catalogue does not know of %d written or deleted object(s) yet: %s '
            'Events of the storage, the reconciler or `rucio s3 reconcile` bring it up to date.',
            number,
            why if why.endswith('.') else f'{why}.',
        )
