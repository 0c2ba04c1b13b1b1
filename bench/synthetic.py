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

"""Buckets that are nowhere: a lister for the reconciler, in this process, of as many objects as wanted.

No server on one machine holds a million objects and lists them faster than what is measured reads them, so these are made of
numbers, in the order of their keys' bytes. All of an object follows from the seed, its collection and its number in it: nothing
is kept but the collection at hand. Collections have sizes as real datasets do: most some hundred files, a few many thousands.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucio.core.s3.reconciler.listings import Entry

if TYPE_CHECKING:
    from rucio.core.s3.subtrees import Subtree

__all__ = ['Bucket']

MEDIAN, SIGMA, LARGEST = 300, 1.4, 50_000  # files in a collection, log-normal: 800 on average
BELOW = 1000  # files in a directory of a collection
MB = 10**6
WRITTEN = 1_750_000_000.0  # POSIX seconds, all objects
PRIME, MASK = 0x9E3779B97F4A7C15F39CC0605CEDC835, 2**128 - 1


@dataclass
class Bucket:
    """A lister: ``Reconciler(part, lister=Bucket(1_000_000))``. Its ``stat`` stands in for a HEAD of the storage.

    :param objects: How many there are, before any change.
    :param changes: One object of so many was changed, vanished or is new since (in turn); 0: none.
    :param seed: Another one makes another bucket.
    :param collection: The size of each collection; 0: as real ones are.
    """

    objects: int
    changes: int = 0
    seed: int = 4
    collection: int = 0
    name: str = 'run'

    def size_of(self, collection: int) -> int:
        """How many files a collection has."""
        if self.collection:
            return self.collection
        drawn = random.Random(self.seed * 10**9 + collection).lognormvariate(0, SIGMA)  # noqa: S311 - no secret
        return min(LARGEST, 1 + int(MEDIAN * drawn))

    def collections(self) -> Iterator[tuple[int, int]]:
        """Number and size of each."""
        number, left = 0, self.objects
        while left > 0:
            size = min(left, self.size_of(number))
            yield number, size
            number, left = number + 1, left - size

    def spans(self, count: int) -> list[tuple[str, str | None]]:
        """So many ranges of keys, with about as many objects each: after which key, and up to which."""
        cuts, total = [''], 0
        for number, size in self.collections():
            total += size
            if total >= self.objects * len(cuts) / count and total < self.objects:
                cuts.append(self._key(number, size))
        return list(zip(cuts, [*cuts[1:], None], strict=True))

    def change_of(self, collection: int, file: int) -> str | None:
        """``changed``, ``missing``, ``new`` (one more behind this one) or nothing."""
        if not self.changes:
            return None
        place = collection * 7919 + file
        return ('changed', 'missing', 'new')[place // self.changes % 3] if place % self.changes == 0 else None

    def __call__(self, subtree: 'Subtree', after: str = '', until: str | None = None) -> Iterator[Entry]:
        """The entries, in the order of their keys' bytes."""
        for number, size in self.collections():
            last = self._key(number, size)
            if last <= after:
                continue
            for entry in self._entries(number, size):
                if until is not None and entry.key > until:
                    return
                if entry.key > after:
                    yield entry

    def stat(self, subtree: 'Subtree', key: str) -> Entry | None:
        """What a HEAD of the object says."""
        collection, _, rest = key.removeprefix(self.name).partition('/')
        file = rest.rpartition('/')[2].removesuffix('.root')
        number, extra = int(file.removesuffix('-new')), file.endswith('-new')
        change = self.change_of(int(collection), number)
        if change == 'missing' or (extra and change != 'new'):
            return None
        return self._entry(int(collection), number, 'new' if extra else change)

    def _entries(self, collection: int, size: int) -> Iterator[Entry]:
        for file in range(size):
            change = self.change_of(collection, file) if self.changes else None
            if change == 'new':  # its key has a '-' where the other has a '.'
                yield self._entry(collection, file, 'new')
            if change != 'missing':
                yield self._entry(collection, file, None if change == 'new' else change)

    def _key(self, collection: int, file: int, extra: str = '') -> str:
        return f'{self.name}{collection:07}/{file // BELOW:03}/{file:07}{extra}.root'

    def _entry(self, collection: int, file: int, change: str | None) -> Entry:
        key = self._key(collection, file, '-new' if change == 'new' else '')
        unique = (((self.seed << 64) + (collection << 32) + file) * PRIME + (change is not None)) & MASK
        return Entry(key, unique % (4000 * MB), f'{unique:032x}', WRITTEN)
