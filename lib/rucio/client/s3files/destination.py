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

"""The RSE that files are uploaded to."""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Optional

from rucio.common.exception import (
    RSEOperationNotSupported,
    RSEWriteBlocked,
    SourceNotFound,
)
from rucio.common.s3 import objects, transfer
from rucio.common.s3.checksums import crc32_of
from rucio.common.s3.content import Checksums, Hasher, hash_object

from .pipeline import LARGE_AT_ONCE
from .sources import connect, renewed

if TYPE_CHECKING:
    from rucio.client.client import Client
    from rucio.common.s3.clients import Connection
    from rucio.common.s3.errors import Target
    from rucio.rse.protocols.s3 import Default

    from .directory import LocalFile
    from .tally import Tally

# Each part of a large file is in memory: upload only so many of them concurrently.


class Destination:
    """A deterministic RSE with :class:`rucio.rse.protocols.s3.Default`, and the objects of one scope on it.

    :param client: The Rucio client.
    :param rse: The RSE.
    :param scope: The scope.
    :raises RSEWriteBlocked: if the RSE is not available for writing.
    :raises RSEOperationNotSupported: if it is another kind of RSE.
    """

    def __init__(self, client: 'Client', rse: str, scope: str) -> None:
        self.rse = rse
        self._scope = scope
        self._large = threading.Semaphore(LARGE_AT_ONCE)
        self._use(_connected(client, rse))

    def _use(self, protocol: 'Default') -> None:
        self._protocol = protocol
        self._connection = protocol.connection()
        self.endpoint = self._connection.endpoint
        # Clients only get URLs that the server signs: each is for one object, and none for listing.
        self._signed = self._connection.authorizer.whole_objects_only

    def renew(self) -> None:
        """Connect anew, in a forked process: it must not use the connections of its parent."""
        self._use(renewed(self._protocol))

    def is_small(self, file: 'LocalFile') -> bool:
        """Return whether a file is stored by one request that needs nothing else.

        :param file: The file.
        """
        return self._connection.direct is not None and file.size < self.endpoint.multipart_threshold

    @property
    def latency(self) -> float:
        """The seconds in which the storage answers, as far as is known."""
        return self._connection.latency

    def memory(self, file: 'LocalFile') -> int:
        """Return how many bytes of a file are in memory while it is sent; of large ones :meth:`put` limits the number.

        :param file: The file.
        """
        return file.size if file.size < self.endpoint.multipart_threshold else 0

    def _pfn(self, name: str, **checksums: Optional[str]) -> str:
        lfn: Any = {'scope': self._scope, 'name': name, **checksums}
        return next(iter(self._protocol.lfns2pfns(lfn).values()))

    def _locate(self, operation: str, name: str) -> 'tuple[Connection, Target]':
        return self._protocol.locate(operation, self._pfn(name))

    def listing(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield name and size, if known, of the objects below ``folder/``; nothing if they cannot be listed.

        One request per 1000 objects.

        :param folder: The name of the dataset.
        :raises SourceNotFound: if there is no bucket.
        """
        if self._signed:
            return
        probes = ['x', 'y', 'z']
        located = [self._locate('read', f'{folder}/{probe}') for probe in probes]
        prefixes = {target.key.removesuffix(probe) for (_, target), probe in zip(located, probes, strict=True)}
        if len(prefixes) > 1:  # the algorithm scatters the files (hash)
            return
        prefix, (connection, target) = prefixes.pop(), located[0]
        try:
            for key, size, _ in objects.list_objects(connection.client, target._replace(key=prefix)):
                if size is not None:  # each of the others is asked for
                    yield f'{folder}/{key.removeprefix(prefix)}', size
        except SourceNotFound:
            raise SourceNotFound(
                f"RSE {self.rse}: there is no bucket '{target.bucket}'. "
                f'Make it with: rucio s3 make-bucket {self._scope} --rse {self.rse}'
            ) from None

    def exists(self, file: 'LocalFile') -> bool:
        """Return whether there is an object with this name. One HEAD.

        :param file: The file.
        """
        return objects.exists(*self._locate('read', file.name))

    def holds(self, file: 'LocalFile', checksums: Checksums, stop: threading.Event) -> bool:
        """Return whether the object has the content of this file.

        One HEAD; the object is read only if it has no checksum of its whole content.

        :param file: The file.
        :param checksums: Its checksums.
        :param stop: Ends reading when it is set.
        """
        connection, target = self._locate('read', file.name)
        info = objects.stat(connection, target)
        if info.size != checksums.size:
            return False
        if info.md5:
            return checksums.agrees(Checksums(info.md5))
        if info.crc32:
            with open(file.path, 'rb') as content:
                return info.crc32 == crc32_of(content)
        return checksums.agrees(hash_object(connection, target, info, stop))

    def put(self, file: 'LocalFile', checksums: Optional[Checksums], tally: 'Tally[Any]') -> Checksums:
        """Store a file.

        :param file: The file.
        :param checksums: Its checksums if they are known. Different content is not stored.
        :param tally: Moves the progress bar, and stops the upload.
        :returns: The checksums of what was uploaded.
        :raises FileReplicaAlreadyExists: if there is an object already.
        """
        if self._signed:  # the protocol knows how many of these URLs it needs
            checksums = checksums or file.checksums(tally.stop)
            self._protocol.put(file.path, self._pfn(file.name, adler32=checksums.adler32, md5=checksums.md5))
            tally.step(file.size)
            return checksums
        (connection, target), hasher = self._locate('write', file.name), Hasher(checksums or Checksums())
        with self._large if file.size >= connection.endpoint.multipart_threshold else nullcontext():
            transfer.upload(
                connection,
                file.path,
                target,
                meter=lambda *_: nullcontext(tally.step),  # one progress bar for all files
                hasher=hasher,
                stop=tally.stop,
            )
        return hasher.checksums


def _connected(client: 'Client', name: str) -> 'Default':
    rse: Any = client.get_rse(name)
    if not rse['availability_write']:
        raise RSEWriteBlocked(f'RSE {name} is not available for writing. Nothing was uploaded.')
    if not rse['deterministic']:
        raise RSEOperationNotSupported(
            f'RSE {name} is not deterministic: paths cannot be derived from the names of files. Use: rucio upload'
        )
    protocol = connect(client, rse, 'write')
    if protocol is None:
        raise RSEOperationNotSupported(
            f'RSE {name} has no protocol of rucio.rse.protocols.s3 for writing. Use: rucio upload'
        )
    return protocol


class Listing:
    """The listing of a storage, read in step with sorted chunks of files, so that neither is held in memory.

    The first request is sent at once.
    """

    def __init__(self, listing: Iterator[tuple[str, int]]) -> None:
        self._listing = listing
        self._next = next(listing, None)

    def sizes(self, chunk: 'Iterable[LocalFile]') -> dict[str, int]:
        """Return the sizes of those files of a chunk that are in the listing, by name.

        :param chunk: The next files, in the order of their keys.
        """
        names = [file.name for file in chunk]
        wanted, end = set(names), os.fsencode(names[-1])
        sizes = {}
        while self._next is not None and os.fsencode(self._next[0]) <= end:
            name, size = self._next
            if name in wanted:
                sizes[name] = size
            self._next = next(self._listing, None)
        return sizes
