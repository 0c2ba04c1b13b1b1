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

"""Download the files of DIDs into a directory: what is missing or differs, in many threads and chunk by chunk."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Optional

from rucio.common.exception import RucioException
from rucio.common.s3.content import BLOCK, Checksums, Hasher
from rucio.common.s3.endpoint import wanted_progress
from rucio.common.s3.errors import local_error
from rucio.common.s3.interrupts import uninterrupted

from .options import Options
from .paths import Folder, RemoteFile
from .pipeline import UnderWay, behind, message
from .selection import Selection, chunks
from .sources import Replicas, Sources
from .tally import Downloaded, Refused, Tally
from .workers import MANY, Workers, processes

if TYPE_CHECKING:
    from rucio.client.client import Client
    from rucio.client.s3client import S3Client

__all__ = ['Download']

_DEFAULT = Options()
_Found = dict[str, Replicas]
_Task = tuple[RemoteFile, Replicas]


class Download:
    """One download of DIDs into a directory: ``Download(client, dids, directory).run()``.

    Of a collection alone, the file ``scope:name/a/b`` becomes ``directory/a/b``, as an upload of the directory would
    name it; else see :mod:`.paths`. Local files that differ are replaced; others are left alone.

    :param client: The Rucio client.
    :param dids: Scope and name of files and collections; ``*`` in a name matches anything.
    :param directory: The local directory; it is made if it is missing.
    :param rse_expression: Only use replicas on these RSEs.
    :param options: How to go about it.
    :param server: The S3 client, by which a server with the plugin is asked.
    """

    def __init__(
        self,
        client: 'Client',
        dids: Iterable[tuple[str, str]],
        directory: str,
        rse_expression: Optional[str] = None,
        options: Options = _DEFAULT,
        server: 'Optional[S3Client]' = None,
    ) -> None:
        self._client = client
        self._dids = list(dids)
        self._folder = Folder(directory)
        self._sources = Sources(client, rse_expression, server)
        self._options = options
        self._tally = Tally(Downloaded())
        self._under_way = UnderWay(options.jobs, lambda: self._sources.latency)
        self.paths: set[str] = set()  # of all files below the directory, after the download

    def run(self) -> Downloaded:
        """Download what is missing or differs. Files that fail are in the summary's failures; the others still come.

        Cost: those of :meth:`.Selection.of`, one request to the Rucio server for each 500 files that are missing, and
        one to a storage for each of them (more for large ones). Local files of the right size are read to compare them;
        one for which the catalogue has no checksum is downloaded again.
        """
        tally = self._tally
        files = Selection(self._client, tally, self._options.chosen).of(self._dids)
        self.paths = {each.path for each in files}
        size = sum(each.checksums.size or 0 for each in files)
        with ExitStack() as stack:
            if workers := self._workers(files):
                stack.enter_context(closing(workers))
            step = stack.enter_context(self._options.meter(wanted_progress(), len(files), size))
            tally.step = step or tally.step
            uninterrupted(lambda: self._download(files, workers), tally.stop)
        if tally.stop.is_set():
            tally.summary.failures.append(
                (self._folder.path, f'was not completed: {tally.hopeless} files in a row failed')
            )
        return tally.summary

    def _workers(self, files: list[RemoteFile]) -> 'Optional[Workers[_Task, bool]]':
        """Return processes for the small files, if many are missing, before there are threads. One look-up."""
        share = 0 if self._options.dry_run or len(files) < MANY else processes(self._options.jobs)
        missing = list(islice((each for each in files if self._is_new(each)), MANY)) if share else []
        if len(missing) < MANY:
            return None
        with suppress(RucioException):  # who asks again sees it
            self._sources.look_up(missing[:1])
        if not self._sources.share():
            return None

        def begin() -> None:
            self._sources.renew()
            self._under_way = UnderWay(self._options.jobs, lambda: self._sources.latency, share)

        def do(tasks: Sequence[_Task]) -> list[bool]:
            futures = [self._under_way.submit(self._safely, self._get, *each) for each in tasks]
            return [future.result() for future in futures]

        return Workers.start(share, self._tally, begin, do, lambda task: task[0].did)

    def _is_new(self, file: RemoteFile) -> bool:
        """Return whether nothing is in the place of a file."""
        with suppress(Refused, OSError):
            return self._folder.find(file.path) is None
        return False

    def _download(self, files: list[RemoteFile], workers: 'Optional[Workers[_Task, bool]]') -> None:
        """Work in chunks: while one is downloaded, compare the next with the local files, and look up its replicas."""
        catalogue = ThreadPoolExecutor(1, 'rucio-s3-catalogue')

        def compare(chunk: list[RemoteFile]) -> list[tuple[RemoteFile, Future[bool]]]:
            return [(file, self._under_way.submit(self._safely, self._is_missing, file)) for file in chunk]

        def look_up(compared: list[tuple[RemoteFile, Future[bool]]]) -> tuple[list[RemoteFile], Future[_Found]]:
            missing = [file for file, needed in compared if needed.result()]
            return missing, catalogue.submit(self._look_up, missing)

        def get(found: tuple[list[RemoteFile], Future[_Found]]) -> list[Future[Any]]:
            replicas = found[1].result()
            tasks = [(file, replicas[file.did]) for file in found[0] if file.did in replicas]
            shared = [each for each in tasks if workers and self._sources.is_shared(each[1])]
            alone = [each for each in tasks if not workers or not self._sources.is_shared(each[1])]
            return (workers.submit(shared) if workers else []) + [
                self._under_way.submit(self._safely, self._get, *each) for each in alone
            ]

        try:
            compared = behind(1, map(compare, chunks(files)))
            for futures in behind(1, map(get, behind(1, map(look_up, compared)))):
                for future in futures:
                    future.result()
        except BaseException:
            self._tally.stop.set()
            raise
        finally:
            self._under_way.end()
            catalogue.shutdown(cancel_futures=True)

    def _look_up(self, files: list[RemoteFile]) -> _Found:
        """Return the replicas of files. Those without any become failures."""
        if not files or self._tally.stop.is_set():
            return {}
        try:
            found = self._sources.look_up(files)
        except RucioException as error:
            for file in files:
                self._tally.fail(file.did, f'is not downloaded: {message(error)}')
            return {}
        for file in files:
            if file.did not in found:
                self._tally.fail(file.did, 'is no longer in the catalogue')
        return found

    def _safely(self, do: Callable[..., bool], file: RemoteFile, *arguments: object) -> bool:
        """Do something with one file. If it fails, add it to the summary and return False."""
        if self._tally.stop.is_set():
            return False
        try:
            return do(file, *arguments)
        except Refused as error:
            self._tally.fail(file.did, str(error))
        except RucioException as error:
            self._tally.fail(file.did, message(error), again=True)
        except OSError as error:
            self._tally.fail(file.did, message(local_error(error, self._folder.path, reading=False)))
        return False

    def _is_missing(self, file: RemoteFile) -> bool:
        if not self._is_there(file, file.checksums):
            return True
        self._tally.count(there=1)
        self._tally.step(file.checksums.size or 0)
        return False

    def _is_there(self, file: RemoteFile, known: Checksums) -> bool:
        path = self._folder.find(file.path)
        if path is None or not (known.adler32 or known.md5):
            return False
        hasher = Hasher(known, md5=not known.adler32)
        with suppress(PermissionError), open(path, 'rb') as content:
            if not known.agrees(Checksums(size=os.fstat(content.fileno()).st_size)):
                return False
            while block := content.read(BLOCK):
                if self._tally.stop.is_set():
                    return False
                hasher.add(block)
            return hasher.is_expected
        return False

    def _get(self, file: RemoteFile, replicas: Replicas) -> bool:
        # Only now is the MD5 of files known that have no Adler-32.
        if not (file.checksums.adler32 or file.checksums.md5) and self._is_there(file, replicas.checksums):
            self._tally.count(there=1)
            self._tally.step(file.checksums.size or 0)
            return True
        if self._options.dry_run:
            self._sources.usable(replicas)
            self._tally.plan(file.did, os.path.join(self._folder.path, file.path))
            self._tally.step(file.checksums.size or 0)
        else:
            path = self._folder.make(file.path)
            self._sources.get(replicas, path, self._tally)
        self._tally.count(received=1, received_bytes=replicas.checksums.size or 0)
        return True
