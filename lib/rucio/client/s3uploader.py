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

"""A directory of files to an S3 RSE: in parallel, registered in bulk, and continued where an earlier run ended.

The order is that of a list without lies: a file is stored, verified by the storage, then registered as AVAILABLE and
attached, a chunk of files at once. Whatever ends a run, even kill -9, leaves objects that are not registered yet, and
the next run finds them. It sends what is missing and nothing else.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from jsonschema import Draft7Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import best_match  # type: ignore[import-untyped]

from rucio.common.exception import (
    DataIdentifierAlreadyExists,
    FileConsistencyMismatch,
    FileReplicaAlreadyExists,
    InputValidationError,
    RSEOperationNotSupported,
    RSEProtocolNotSupported,
    RSEWriteBlocked,
    RucioException,
    SourceNotFound,
    UnsupportedOperation,
)
from rucio.common.s3 import address, checksums, objects, progress, transfer
from rucio.common.s3.content import Summing, Sums, sums_of
from rucio.common.s3.errors import Target, local_error
from rucio.common.utils import generate_uuid
from rucio.rse import rsemanager
from rucio.rse.protocols.s3 import Default

if TYPE_CHECKING:
    from rucio.client.client import Client
    from rucio.common.s3.clients import Connection

__all__ = ['DirectoryUpload', 'LocalFile', 'Summary', 'walk']

GiB = 1024**3
CHUNK = 500  # files: Rucio's schema takes 1000
_CHUNK_BYTES = 16 * GiB  # large files are registered sooner
_BLOCK = 1024**2
# Large files go in parts of their own, each of which is in memory: only so many of them at once.
_LARGE_AT_ONCE = 2
# So many failures without a success between them have one cause, and a million files need not find it again.
_HOPELESS = 100

Warn = Callable[[str, str], None]  # path, what is wrong with it


class LocalFile(NamedTuple):
    """A file to be uploaded: where it is, the name of its DID, its size in bytes."""

    path: str
    name: str
    size: int


class _Known(NamedTuple):
    """What the catalogue has under a name: the type and sums of the DID, and the state of its replica on the RSE, if
    there is one.
    """

    did_type: str
    lost: bool
    size: Optional[int]
    adler32: Optional[str]
    md5: Optional[str]
    state: Optional[str]


class _Ready(NamedTuple):
    """A file whose object is there and right. ``state`` is that of the replica which the catalogue has now."""

    file: LocalFile
    sums: Sums
    state: Optional[str]


class _Place(NamedTuple):
    connection: 'Connection'
    target: Target


class _Refused(Exception):
    """Why a file is not uploaded, as the user reads it."""


@dataclass
class Summary:
    """What an upload did. ``failures`` and ``warnings`` are (path, reason)."""

    sent: int = 0
    sent_bytes: int = 0
    there: int = 0  # object and catalogue were right before
    found: int = 0  # the object was there, the catalogue did not have it
    made: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)


def walk(directory: str, warn: Warn) -> Iterator[tuple[str, str]]:
    """The regular files below a directory, in the order in which S3 lists their keys: path, and path relative to it.

    Links to files are followed, unless another user made them to what is not theirs. Links to directories are not (they
    may lead out of it, or in circles). These are told to ``warn`` like all else that is no file. Holds one directory's
    entries for each level.
    """
    # Bytes as in a key, where a directory's name goes on with a slash: 'a.b' < 'a/b' < 'a0'.
    try:
        with os.scandir(directory) as listing:
            entries = sorted(
                listing,
                key=lambda entry: os.fsencode(entry.name) + (b'/' if entry.is_dir(follow_symlinks=False) else b''),
            )
    except OSError as error:
        warn(directory, f'cannot be read: {error.strerror}')
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            for path, name in walk(entry.path, warn):
                yield path, f'{entry.name}/{name}'
            continue
        try:
            is_file, is_dir = entry.is_file(), entry.is_dir()
            planted = is_file and entry.is_symlink() and _is_planted(entry)
        except OSError as error:  # a link to itself, or to where this user may not look
            warn(entry.path, f'is a link that leads nowhere ({error.strerror})')
            continue
        if planted:
            warn(
                entry.path,
                'is a link to a file of another user than the one who made the link: to upload it, make the link yourself',
            )
        elif is_file:
            yield entry.path, entry.name
        elif is_dir:
            warn(entry.path, 'is a link to a directory: those are not followed')
        else:
            warn(entry.path, 'is a broken link' if entry.is_symlink() else 'is no regular file')


def _is_planted(link: 'os.DirEntry[str]') -> bool:
    """Whether somebody may have made a link to have a file read that they cannot read: by the rule of Linux for
    directories that all may write to.
    """
    maker = link.stat(follow_symlinks=False).st_uid
    return maker not in (os.geteuid(), 0, link.stat().st_uid)


class DirectoryUpload:
    """One upload of a directory into a dataset: ``DirectoryUpload(client, directory, scope, name, rse).run()``.

    The file ``directory/a/b`` becomes the DID ``scope:name/a/b``, a member of the dataset ``scope:name``. The catalogue
    ends as after the stock ``rucio upload``, except that no traces are sent (that would be a request for each file).

    :param client: The Rucio client.
    :param directory: The local directory.
    :param scope: The scope of the dataset and the files.
    :param name: The dataset's name, and the prefix of the files' names.
    :param rse: The RSE, which must be deterministic, with :class:`rucio.rse.protocols.s3.Default`.
    :param jobs: Files under way at once. Memory: up to ``multipart_threshold`` bytes for each, and two large uploads.
    """

    def __init__(
        self,
        client: 'Client',
        directory: str,
        scope: str,
        name: str,
        rse: str,
        jobs: int = 8,
    ) -> None:
        self._client = client
        self._directory = directory
        self._scope = scope
        self._name = name.rstrip('/')
        self._rse = rse
        self._jobs = max(1, jobs)
        self._stop = threading.Event()
        self._large = threading.Semaphore(_LARGE_AT_ONCE)
        self._lock = threading.Lock()
        self._step: Callable[[int], None] = lambda _: None
        self._failed_in_a_row = 0
        self.summary = Summary()
        self._protocol: Default
        self._signed = False  # there are only URLs that the server signs: for one object each, no listing
        self._schema = Draft7Validator({'type': 'object', 'properties': _schema_of_names(client.vo)})

    def run(self) -> Summary:
        """Upload what is missing. Files that cannot be uploaded are in the summary's failures; the others are uploaded
        all the same.

        Costs, for each 500 files: four requests to the Rucio server (two where all is there), one or two listings, and
        one request for each file that is missing.

        :raises InputValidationError: if there is nothing to upload, or a name is one that Rucio refuses: nothing is
            sent then.
        :raises RSEOperationNotSupported: if the RSE is none that this can upload to.
        :raises RucioException: what the storage or the Rucio server refuse for all files alike.
        """
        total, size = self._look_ahead()
        self._protocol = self._connect()
        listing = self._listing()
        self._make_dataset()
        endpoint = self._protocol.connection().endpoint
        with progress.meter(endpoint.progress, f'{total} files', size) as step:
            self._step = step or self._step
            self._upload(_Listing(listing))
        return self.summary

    # What there is

    def _look_ahead(self) -> tuple[int, int]:
        """Number and bytes of the files, all of whose names are right: nothing is sent where one is not."""
        if not os.path.isdir(self._directory):
            raise InputValidationError(f"'{self._directory}' is no directory. For a single file use: rucio upload")
        self._check_name(self._name)
        number, size, wrong = 0, 0, list[str]()
        for path, name in walk(self._directory, self._warn):
            number += 1
            try:
                self._check_name(f'{self._name}/{name}')
                size += os.stat(path).st_size
            except InputValidationError as error:
                wrong.append(str(error.args[0]))
            except OSError as error:
                self._fail(path, f'cannot be read: {error.strerror}')
        if wrong:
            more = f'\n... and {len(wrong) - 20} more' if len(wrong) > 20 else ''
            raise InputValidationError('\n'.join(wrong[:20]) + f'{more}\nNothing was uploaded. Rename the files.')
        if not number:
            raise InputValidationError(f"There is no file below '{self._directory}'.")
        return number, size

    def _check_name(self, name: str) -> None:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputValidationError(f'{name!r} is no name for Rucio: it is not UTF-8.') from None
        if address.leaves_directory(name):
            raise InputValidationError(
                f"'{self._scope}:{name}' is no name for Rucio: it would leave the directory into which it is downloaded."
            )
        if error := best_match(self._schema.iter_errors({'scope': self._scope, 'name': name})):
            raise InputValidationError(f"'{self._scope}:{name}' is no name for Rucio: {error.message}.")

    def _files(self) -> Iterator[LocalFile]:
        # What is wrong with the directory was told when it was looked at first.
        for path, name in walk(self._directory, lambda *_: None):
            with suppress(OSError):
                yield LocalFile(path, f'{self._name}/{name}', os.stat(path).st_size)

    def _warn(self, path: str, reason: str) -> None:
        """About what is no file. A directory that cannot be read is a failure: there may be files in it."""
        (self.summary.failures if reason.startswith('cannot') else self.summary.warnings).append((path, reason))

    def _fail(self, path: str, reason: str) -> None:
        with self._lock:
            self.summary.failures.append((path, reason))

    # The RSE

    def _connect(self) -> Default:
        rse: Any = self._client.get_rse(self._rse)
        if not rse['availability_write']:
            raise RSEWriteBlocked(f'RSE {self._rse} is not available for writing. Nothing was uploaded.')
        if not rse['deterministic']:
            raise RSEOperationNotSupported(
                f'RSE {self._rse} is not deterministic: where its files go cannot be derived from their names. Use: rucio upload'
            )
        token = self._client.auth_token if self._client.auth_token and self._client.auth_token.count('.') == 2 else None
        with suppress(RSEProtocolNotSupported):  # it has none at all
            for each in rsemanager.get_protocols_ordered(rse, 'write'):
                protocol = rsemanager.create_protocol(rse, 'write', protocol_attr=each, auth_token=token)
                if isinstance(protocol, Default):
                    protocol.connect()
                    self._signed = protocol.connection().authorizer.whole_objects_only
                    return protocol
        raise RSEOperationNotSupported(
            f'RSE {self._rse} has no protocol of rucio.rse.protocols.s3 for writing. Use: rucio upload'
        )

    def _place(self, operation: str, name: str) -> _Place:
        return _Place(*self._protocol.locate(operation, self._pfn(name)))

    def _listing(self) -> Optional[Iterator[tuple[str, int]]]:
        """Name and size of what lies below ``name/`` on the storage; None where that cannot be listed.

        It begins with the first request, so that a missing bucket is told before anything else is done.
        """
        if self._signed:
            return None
        probes = ['x', 'y', 'z']
        places = [self._place('read', f'{self._name}/{probe}') for probe in probes]
        prefixes = {place.target.key.removesuffix(probe) for place, probe in zip(places, probes, strict=True)}
        connection, target = places[0]
        if len(prefixes) > 1:  # an algorithm that scatters the files (hash)
            return None
        prefix = prefixes.pop()
        pages = objects.list_objects(connection.client, target._replace(key=prefix))
        try:
            first = next(pages, None)
        except SourceNotFound:
            raise SourceNotFound(
                f"RSE {self._rse}: there is no bucket '{target.bucket}'. Make it first: rucio s3 make-bucket {self._scope} --rse {self._rse}"
            ) from None

        def names() -> Iterator[tuple[str, int]]:
            for key, size in [first] if first else []:
                yield f'{self._name}/{key.removeprefix(prefix)}', size
            for key, size in pages:
                yield f'{self._name}/{key.removeprefix(prefix)}', size

        return names()

    # The catalogue

    def _make_dataset(self) -> None:
        rule = {
            'account': self._client.account,
            'copies': 1,
            'rse_expression': self._rse,
            'grouping': 'DATASET',
            'lifetime': None,
        }
        did = f'{self._scope}:{self._name}'
        try:
            self._client.add_dataset(scope=self._scope, name=self._name, rules=[rule])
        except DataIdentifierAlreadyExists:
            self._check_dataset(did)
        else:
            self.summary.made += [f'dataset {did}', f'its rule on {self._rse}']

    def _check_dataset(self, did: str) -> None:
        """One that was there before: files can be attached, and a rule keeps them."""
        found: Any = self._client.get_did(self._scope, self._name)
        if found['type'] != 'DATASET':
            raise UnsupportedOperation(
                f'{did} is a {found["type"].lower()}, but has to be a dataset. Choose another name.'
            )
        if not found.get('open', True):
            raise UnsupportedOperation(
                f'The dataset {did} is closed: files cannot be attached to it. Choose another name, or have it opened.'
            )
        rules: Any = self._client.list_did_rules(self._scope, self._name)
        if not any(self._covers(each['rse_expression']) for each in rules):
            self._client.add_replication_rule(
                [{'scope': self._scope, 'name': self._name}], copies=1, rse_expression=self._rse, grouping='DATASET'
            )
            self.summary.made.append(f'a rule of {did} on {self._rse}')

    def _covers(self, expression: str) -> bool:
        if expression == self._rse:
            return True
        try:
            return any(each['rse'] == self._rse for each in self._client.list_rses(expression))
        except RucioException:
            return False

    def _look_up(self, chunk: list[LocalFile]) -> dict[str, _Known]:
        """What the catalogue has of these files: one request, and another one if it has some."""
        dids = [{'scope': self._scope, 'name': file.name} for file in chunk]
        metadata: Any = self._client.get_metadata_bulk(dids, plugin='DID_COLUMN')
        known = {each['name']: each for each in metadata}
        states: dict[str, str] = {}
        # That of a dataset would be a list of its files.
        files = [did for did in dids if did['name'] in known and known[did['name']]['did_type'] == 'FILE']
        if files:
            replicas = self._client.list_replicas(
                files, all_states=True, rse_expression=self._rse, resolve_archives=False, sort='random'
            )
            states = {
                each['name']: each['states'][self._rse] for each in replicas if self._rse in (each.get('states') or {})
            }
        return {
            name: _Known(
                each['did_type'],
                each.get('availability') == 'LOST',
                each['bytes'],
                each['adler32'],
                each['md5'],
                states.get(name),
            )
            for name, each in known.items()
        }

    def _register(self, ready: list[_Ready]) -> None:
        """Make replicas AVAILABLE and members of the dataset: three requests at most. Does no harm twice."""
        if not ready:
            return
        try:
            if new := [self._replica(each) for each in ready if each.state is None]:
                self._client.add_replicas(rse=self._rse, files=new)
            if late := [{**self._replica(each), 'meta': {}} for each in ready if each.state not in (None, 'AVAILABLE')]:
                self._client.update_replicas_states(self._rse, files=late)
            try:
                # With the sums the server refuses what somebody else registered since we asked.
                self._attach(ready, ('scope', 'name', 'bytes', 'adler32', 'md5'))
            except FileConsistencyMismatch:
                # Or what the server itself found in the bucket: of that it may have one sum only, or none.
                self._attach(self._still_agreed(ready), ('scope', 'name', 'bytes'))
        except RucioException as error:
            said = _said(error)
            for each in ready:
                self._fail(each.file.path, f'is on the storage, but the Rucio server did not register it: {said}')
            with self._lock:
                self.summary.there -= sum(1 for each in ready if each.state == 'AVAILABLE')

    def _attach(self, ready: list[_Ready], keys: tuple[str, ...]) -> None:
        dids = [{key: replica[key] for key in keys} for replica in map(self._replica, ready)]
        if dids:
            self._client.attach_dids_to_dids(
                [{'scope': self._scope, 'name': self._name, 'dids': dids}], ignore_duplicate=True
            )

    def _still_agreed(self, ready: list[_Ready]) -> list[_Ready]:
        """Those that are what the catalogue has now, as far as it says; the others are told."""
        known = self._look_up([each.file for each in ready])
        agreed = []
        for each in ready:
            try:
                self._need_same(each.file, each.sums, known[each.file.name])
                agreed.append(each)
            except _Refused as refused:
                self._fail(each.file.path, str(refused))
        return agreed

    def _replica(self, ready: _Ready) -> dict[str, Any]:
        sums = ready.sums
        return {
            'scope': self._scope,
            'name': ready.file.name,
            'bytes': sums.size,
            'adler32': sums.adler32,
            'md5': sums.md5,
            'meta': {'guid': generate_uuid()},
            'state': 'A',
        }

    # Uploading

    def _upload(self, listing: '_Listing') -> None:
        """Chunk by chunk: while one is uploaded, the next is looked up and the one before is registered.

        One thread speaks to the Rucio server, as its client is not made for several.
        """
        catalogue = ThreadPoolExecutor(1, 'rucio-s3-catalogue')
        pool = ThreadPoolExecutor(self._jobs, 'rucio-s3-upload')
        under_way: deque[list[Future[Optional[_Ready]]]] = deque()
        registrations: deque[Future[None]] = deque()

        def finish() -> None:
            ready = [each for each in (future.result() for future in under_way.popleft()) if each is not None]
            registrations.append(catalogue.submit(self._register, ready))
            while len(registrations) > 2:
                registrations.popleft().result()

        try:
            for chunk, known in self._looked_up(catalogue):
                if self._stop.is_set():
                    break
                seen = listing.sizes(chunk)
                under_way.append([pool.submit(self._safely, file, known.get(file.name), seen) for file in chunk])
                if len(under_way) > 1:
                    finish()
            while under_way:
                finish()
            while registrations:
                registrations.popleft().result()
            if self._stop.is_set():
                self.summary.failures.append((self._directory, f'was given up: {_HOPELESS} files in a row failed'))
        except BaseException:
            # Also Ctrl-C. What is stored and not registered is found by the next run.
            self._stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            catalogue.shutdown(cancel_futures=True)

    def _looked_up(self, catalogue: ThreadPoolExecutor) -> Iterator[tuple[list[LocalFile], dict[str, _Known]]]:
        """The chunks with what the catalogue has of them, which is asked for one chunk ahead."""
        ahead: deque[tuple[list[LocalFile], Future[dict[str, _Known]]]] = deque()
        for chunk in _chunks(self._files()):
            ahead.append((chunk, catalogue.submit(self._look_up, chunk)))
            if len(ahead) > 1:
                files, known = ahead.popleft()
                yield files, known.result()
        while ahead:
            files, known = ahead.popleft()
            yield files, known.result()

    def _safely(self, file: LocalFile, known: Optional[_Known], seen: Optional[dict[str, int]]) -> Optional[_Ready]:
        """Bring one file to the storage. None if it failed, which is in the summary then."""
        if self._stop.is_set():
            return None
        try:
            return self._one(file, known, seen)
        except _Refused as error:
            self._fail(file.path, str(error))
        except RucioException as error:
            self._fail(file.path, _said(error))
            with self._lock:
                self._failed_in_a_row += 1
                if self._failed_in_a_row >= _HOPELESS:
                    self._stop.set()
        except OSError as error:
            self._fail(file.path, _said(local_error(error, file.path, reading=True)))
        return None

    def _one(self, file: LocalFile, known: Optional[_Known], seen: Optional[dict[str, int]]) -> _Ready:
        """:param seen: What the storage's listing has of this chunk; None where there is no listing."""
        if known is None:
            if seen is not None and file.name in seen:
                return self._adopt(file, self._summed(file), None)
            return self._send(file, None, None)
        sums = self._agreed(file, known)
        if seen is not None and file.name in seen:
            if seen[file.name] != sums.size:
                raise _Refused(
                    f'is registered with {sums.size} bytes, but its object has {seen[file.name]}: tell the operator of {self._rse}'
                )
            if known.state != 'AVAILABLE':
                return self._adopt(file, sums, known.state)
        # Not every storage lists in S3's order, so "not in the listing" is no proof.
        elif not objects.exists(*self._place('read', file.name)):
            return self._send(file, sums, known.state)
        elif known.state != 'AVAILABLE':
            return self._adopt(file, sums, known.state)
        self._count('there', file)
        return _Ready(file, sums, known.state)

    def _agreed(self, file: LocalFile, known: _Known) -> Sums:
        """The sums of a file that the catalogue knows, if it is the same.

        :raises _Refused: if not, or if there is no use for it.
        """
        did = f'{self._scope}:{file.name}'
        if known.did_type != 'FILE':
            raise _Refused(f'{did} is registered as a {known.did_type.lower()}: rename the file')
        if known.lost:
            raise _Refused(f'{did} was declared lost, and Rucio does not take it again: rename the file')
        if known.state not in (None, 'AVAILABLE', 'COPYING'):
            raise _Refused(
                f'the replica of {did} on {self._rse} is {known.state}: try again when that has been dealt with'
            )
        if known.size is not None and known.size != file.size:
            raise _Refused(
                f'has {file.size} bytes, but {did} is registered with {known.size}: it was left as it is. Choose another name'
            )
        sums = self._summed(file)
        self._need_same(file, sums, known)
        return sums

    def _need_same(self, file: LocalFile, sums: Sums, known: _Known) -> None:
        """:raises _Refused: if the catalogue has another size or checksum."""
        if known.size is not None and known.size != sums.size:
            raise _Refused(
                f'has {sums.size} bytes, but {self._scope}:{file.name} is registered with {known.size}: it was left as it is. Choose another name'
            )
        if not sums.agrees(Sums(known.md5, known.adler32)):
            raise _Refused(
                f'is not what {self._scope}:{file.name} is registered with (same size, other checksum): it was left as it is. Choose another name'
            )

    def _summed(self, file: LocalFile) -> Sums:
        summing = Summing()
        with open(file.path, 'rb') as content:
            while block := content.read(_BLOCK):
                if self._stop.is_set():
                    raise _Refused('was not read to its end: the upload was stopped')
                summing.add(block)
        return summing.sums

    def _send(self, file: LocalFile, sums: Optional[Sums], state: Optional[str]) -> _Ready:
        """Store a file that is not there yet, as far as is known.

        :param sums: Its sums where they were made before.
        """
        try:
            sent = self._put_signed(file, sums) if self._signed else self._put(file, sums)
        except FileReplicaAlreadyExists:
            return self._adopt(file, sums or self._summed(file), state)
        with self._lock:
            self._failed_in_a_row = 0
            self.summary.sent += 1
            self.summary.sent_bytes += sent.size or 0
        return _Ready(file, sent, state)

    def _put(self, file: LocalFile, expected: Optional[Sums]) -> Sums:
        """The sums are those of what was sent, which is what was expected."""
        place, summing = self._place('write', file.name), Summing(expected or Sums())
        with self._large if file.size >= place.connection.endpoint.multipart_threshold else nullcontext():
            transfer.upload(
                place.connection, file.path, place.target, meter=self._meter, summing=summing, stop=self._stop
            )
        return summing.sums

    def _put_signed(self, file: LocalFile, sums: Optional[Sums]) -> Sums:
        """With URLs that the server signs, of which the protocol knows how many it needs."""
        sums = sums or self._summed(file)
        lfn: Any = {'scope': self._scope, 'name': file.name, 'adler32': sums.adler32, 'md5': sums.md5}
        self._protocol.put(file.path, next(iter(self._protocol.lfns2pfns(lfn).values())))
        self._step(file.size)
        return sums

    def _pfn(self, name: str) -> str:
        return next(iter(self._protocol.lfns2pfns({'scope': self._scope, 'name': name}).values()))

    def _meter(self, _: str, size: int) -> AbstractContextManager[Callable[[int], None]]:
        """All files move the one bar."""
        return nullcontext(self._step)

    def _adopt(self, file: LocalFile, sums: Sums, state: Optional[str]) -> _Ready:
        """An object that the catalogue does not have: an upload that was interrupted, or somebody else's."""
        if not self._same(self._place('read', file.name), file, sums):
            raise _Refused(
                f"{self._rse} has an object of this name with another content: it was left as it is. Rename the file, or 'rucio s3 ls' shows it"
            )
        self._count('found', file)
        return _Ready(file, sums, state)

    def _same(self, place: _Place, file: LocalFile, sums: Sums) -> bool:
        """Whether the object is this file: one HEAD; its content is read only where it carries no checksum of all of
        it.
        """
        connection, target = place
        info = objects.stat(connection, target)
        if info.size != sums.size:
            return False
        if info.md5:
            return sums.agrees(Sums(info.md5))
        if info.crc32:
            with open(file.path, 'rb') as content:
                return info.crc32 == checksums.crc32_of(content)
        return sums.agrees(sums_of(connection, target, info, self._stop))

    def _count(self, what: str, file: LocalFile) -> None:
        with self._lock:
            self._failed_in_a_row = 0
            setattr(self.summary, what, getattr(self.summary, what) + 1)
        self._step(file.size)


class _Listing:
    """A storage's listing beside sorted chunks of files: both go forward only, so neither is held in memory."""

    def __init__(self, listing: Optional[Iterator[tuple[str, int]]]) -> None:
        self._listing = listing
        self._next = next(listing, None) if listing is not None else None

    def sizes(self, chunk: list[LocalFile]) -> Optional[dict[str, int]]:
        """The sizes of those files of a chunk that are in the listing; None without one."""
        if self._listing is None:
            return None
        wanted = {file.name for file in chunk}
        end = os.fsencode(chunk[-1].name)
        sizes = {}
        while self._next is not None and os.fsencode(self._next[0]) <= end:
            name, size = self._next
            if name in wanted:
                sizes[name] = size
            self._next = next(self._listing, None)
        return sizes


def _chunks(files: Iterable[LocalFile]) -> Iterator[list[LocalFile]]:
    chunk: list[LocalFile] = []
    size = 0
    for file in files:
        chunk.append(file)
        size += file.size
        if len(chunk) >= CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _said(error: RucioException) -> str:
    return str(error.args[0]) if error.args else str(error)


def _schema_of_names(vo: str) -> dict[str, Any]:
    """What scopes and names may be. Not validate_schema, which takes 10 ms for each name: it puts the schema together
    every time.
    """
    try:
        from rucio.common.schema import get_schema_value  # noqa: PLC0415 - reads the configuration when it is imported
    # rucio-clients 41 has the module, but not what it imports: the generic rule then, and the server has the last word
    except ModuleNotFoundError:
        return {'name': {'type': 'string', 'maxLength': 250, 'pattern': r'^[/A-Za-z0-9][/A-Za-z0-9._-]*$'}}
    return {each: get_schema_value(each.upper(), vo) for each in ('scope', 'name')}
