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

"""Upload files: decide what to do with each file, in many threads and chunk by chunk."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import takewhile
from typing import TYPE_CHECKING, Optional

from rucio.common.exception import FileReplicaAlreadyExists, RucioException
from rucio.common.s3.content import Checksums
from rucio.common.s3.deadlines import ended_by
from rucio.common.s3.errors import local_error
from rucio.common.s3.interrupts import uninterrupted

from .dataset import Dataset, Known, Ready
from .destination import Destination, Listing
from .directory import LocalFile, LocalFiles
from .notes import Notes
from .options import Options
from .pipeline import UnderWay, behind, message
from .tally import Refused, Tally, Uploaded
from .workers import MANY, Workers, processes

if TYPE_CHECKING:
    from rucio.client.client import Client
    from rucio.client.s3client import S3Client

_DEFAULT = Options()


class Upload:
    """One upload of files and directories into a dataset: ``Upload(client, ['directory'], scope, name, rse).run()``.

    The file ``directory/a/b`` becomes the DID ``scope:name/a/b``, a member of the dataset ``scope:name``; of several
    sources see :class:`.LocalFiles`. The catalogue is the same as after the stock ``rucio upload``, but no traces are
    sent (that would be a request for each file).

    :param client: The Rucio client.
    :param sources: The local files and directories.
    :param scope: The scope of the dataset and the files.
    :param name: The dataset's name, and the prefix of the files' names.
    :param rse: The RSE, which must be deterministic, with :class:`rucio.rse.protocols.s3.Default`.
    :param options: How to go about it.
    :param server: The S3 client, by which a server with the plugin is asked what it knows.
    :raises InputValidationError: if a source does not exist.
    """

    def __init__(
        self,
        client: 'Client',
        sources: Iterable[str],
        scope: str,
        name: str,
        rse: str,
        options: Options = _DEFAULT,
        server: 'Optional[S3Client]' = None,
    ) -> None:
        self._client = client
        self._scope = scope
        self._name = name.rstrip('/')
        self._rse = rse
        self._options = options
        self._tally = Tally(Uploaded())
        self.files = LocalFiles(sources, scope, self._name, client.vo, options.chosen)
        told = (str(client.host), str(client.account), client.vo, rse, scope, self._name)
        self._notes = None if options.checksum or options.dry_run else Notes(*told)
        self._dataset = Dataset(client, rse, scope, self._name, server, self._notes)
        self._destination: Destination
        self._under_way = UnderWay(options.jobs, lambda: self._destination.latency)

    def run(self) -> Uploaded:
        """Upload what is missing. Files that fail are in the summary's failures; the others are still uploaded.

        Cost per 500 files: two requests to the Rucio server (one if nothing is missing; three of a server without the
        plugin), one or two listings, and one request for each missing file.

        :raises InputValidationError: if there is nothing to upload, or Rucio refuses a name. Nothing is uploaded then.
        :raises RSEOperationNotSupported: if this kind of RSE is not supported.
        :raises RucioException: if the storage or the Rucio server refuse all files.
        """
        tally = self._tally
        total, size = self.files.look_ahead(tally)
        self._destination = Destination(self._client, self._rse, self._scope)
        # Report a missing bucket before doing anything else.
        listing = Listing(self._destination.listing(self._name))
        if not self._options.dry_run:
            tally.summary.made += self._dataset.make()
        with ExitStack() as stack:
            if workers := self._workers(total):
                stack.enter_context(closing(workers))
            step = stack.enter_context(self._options.meter(self._destination.endpoint.progress, total, size))
            tally.step = step or tally.step
            uninterrupted(lambda: self._upload(listing, workers), tally.stop)
        if tally.stop.is_set():
            tally.summary.failures.append(
                (f'{self._scope}:{self._name}', f'was stopped: {tally.hopeless} files in a row failed')
            )
        return tally.summary

    def _workers(self, number: int) -> 'Optional[Workers[LocalFile, Ready]]':
        """Return processes for the small files, if there are many, before there are threads."""
        share = 0 if self._options.dry_run or number < MANY else processes(self._options.jobs)
        if not share:
            return None

        def begin() -> None:
            self._destination.renew()
            self._under_way = UnderWay(self._options.jobs, lambda: self._destination.latency, share)

        def do(files: Sequence[LocalFile]) -> list[Ready]:
            futures = [self._under_way.submit(self._safely, each) for each in files]
            return [ready for future in futures for ready in future.result()]

        return Workers.start(share, self._tally, begin, do, lambda file: file.path)

    def _upload(self, listing: Listing, workers: 'Optional[Workers[LocalFile, Ready]]') -> None:
        """Work in chunks: while one is uploaded, look up the next and register the previous one."""
        catalogue = ThreadPoolExecutor(1, 'rucio-s3-catalogue')

        def start(chunk: list[LocalFile], known: dict[str, Known]) -> list[Future[list[Ready]]]:
            with ended_by(self._tally.stop):
                sizes = listing.sizes(chunk)
            new = [
                each
                for each in chunk
                if each.name not in known and each.name not in sizes and self._destination.is_small(each)
            ]
            shared, names = (workers.submit(new), {each.name for each in new}) if workers else ([], set[str]())
            return shared + [
                self._under_way.submit(self._safely, file, known.get(file.name), sizes.get(file.name))
                for file in chunk
                if file.name not in names
            ]

        def register(futures: list[Future[list[Ready]]]) -> Future[None]:
            done = [each for future in futures for each in future.result()]
            return catalogue.submit(self._register, [] if self._options.dry_run else done)

        try:
            lookups = ((chunk, catalogue.submit(self._dataset.look_up, chunk)) for chunk in self.files.chunks())
            uploads = (
                start(chunk, known.result())
                for chunk, known in takewhile(lambda _: not self._tally.stop.is_set(), behind(1, lookups))
            )
            for registration in behind(2, map(register, behind(1, uploads))):
                registration.result()
        except BaseException:
            # The next run finds what is stored and not registered.
            self._tally.stop.set()
            raise
        finally:
            self._under_way.end()
            catalogue.shutdown(cancel_futures=True)
            if self._notes is not None:
                self._notes.save()

    def _register(self, ready: list[Ready]) -> None:
        """Register files, and note those that are registered."""
        for each in self._dataset.register(ready, self._tally):
            if self._notes is not None:
                self._notes.add(each.file, each.checksums)

    def _safely(self, file: LocalFile, known: Optional[Known] = None, listed: Optional[int] = None) -> list[Ready]:
        """Upload one file. If it fails, add it to the summary and return nothing."""
        if self._tally.stop.is_set():
            return []
        try:
            with self._under_way.room(self._destination.memory(file)):
                return [self._one(file, known, listed)]
        except Refused as error:
            self._tally.fail(file.path, str(error))
        except RucioException as error:
            self._tally.fail(file.path, message(error), again=True)
        except OSError as error:
            self._tally.fail(file.path, message(local_error(error, file.path, reading=True)))
        return []

    def _one(self, file: LocalFile, known: Optional[Known], listed: Optional[int]) -> Ready:
        """Bring one file to the storage and verify it.

        :param listed: The size of the object in the storage's listing, if it has one.
        """
        if known is None:
            return self._send(file) if listed is None else self._adopt(file, file.checksums(self._tally.stop), None)
        checksums = self._agreed(file, known)
        if listed is None:
            # Not every storage lists in S3's order: a file that is not in the listing may still be there.
            if not self._destination.exists(file):
                return self._send(file, checksums, known.state)
        elif listed != checksums.size:
            raise Refused(
                f'is registered with {checksums.size} bytes, but its object has {listed}. Tell the operator of '
                f'{self._rse}'
            )
        if known.state != 'AVAILABLE':
            return self._adopt(file, checksums, known.state)
        return self._there(file, checksums, known.state, 'there')

    def _agreed(self, file: LocalFile, known: Known) -> Checksums:
        """Return the checksums of a file that the catalogue knows, if they agree.

        :raises Refused: if they differ, or the file cannot be used.
        """
        if known.did_type != 'FILE':
            raise Refused(f'{known.did} is registered as a {known.did_type.lower()}: rename the file')
        if known.lost:
            raise Refused(f'{known.did} was declared lost, and Rucio does not accept it again: rename the file')
        if known.state not in (None, 'AVAILABLE', 'COPYING'):
            raise Refused(
                f'the replica of {known.did} on {self._rse} is {known.state}: try again when that has been resolved'
            )
        known.need_same(known.checksums._replace(size=file.size))  # before reading it
        noted = self._notes.find(file) if self._notes is not None else None
        checksums = noted or file.checksums(self._tally.stop)
        known.need_same(checksums)
        return checksums

    def _send(self, file: LocalFile, checksums: Optional[Checksums] = None, state: Optional[str] = None) -> Ready:
        """Store a file that is not there yet, as far as is known."""
        if self._options.dry_run:
            return self._plan(file, checksums, state)
        try:
            sent = self._destination.put(file, checksums, self._tally)
        except FileReplicaAlreadyExists:
            return self._adopt(file, checksums or file.checksums(self._tally.stop), state)
        self._tally.count(sent=1, sent_bytes=sent.size or 0)
        return Ready(file, sent, state)

    def _adopt(self, file: LocalFile, checksums: Checksums, state: Optional[str]) -> Ready:
        """Take over an object that is not in the catalogue: from an interrupted upload, or from somebody else."""
        if not self._destination.holds(file, checksums, self._tally.stop):
            raise Refused(
                f'{self._rse} has an object of this name with different content: it was not changed. '
                "Rename the file, or see 'rucio s3 ls'"
            )
        return self._there(file, checksums, state, 'found')

    def _plan(self, file: LocalFile, checksums: Optional[Checksums], state: Optional[str]) -> Ready:
        """Note what :meth:`_send` would do."""
        if self._destination.exists(file):
            return self._adopt(file, checksums or file.checksums(self._tally.stop), state)
        self._tally.plan(file.path, f'{self._scope}:{file.name}')
        self._tally.count(sent=1, sent_bytes=file.size)
        self._tally.step(file.size)
        return Ready(file, checksums or Checksums(size=file.size), state)

    def _there(self, file: LocalFile, checksums: Checksums, state: Optional[str], what: str) -> Ready:
        self._tally.count(**{what: 1})
        self._tally.step(file.size)
        return Ready(file, checksums, state)
