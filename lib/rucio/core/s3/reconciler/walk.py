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
"""The reconciler: update the catalogue to what is in a bucket, as far as the settings of the bucket allow.

The differences between listing and catalogue are collected: new objects, and those to recheck, such as changed or
missing ones. These are checked again, in the bucket and in the catalogue, before they are reported or acted on.
"""

import threading
import time
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Optional

from rucio.common.exception import UnsupportedOperation
from rucio.common.s3 import objects
from rucio.common.s3.settings import ON_CHANGED, ON_MISSING

from . import listings
from .budget import Budget
from .compare import REPORT_ONLY, Finding, Kind, compare
from .listings import Unsorted
from .settle import Settler
from .summary import Summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rucio.core.s3.subtrees import Subtree

    from .checksums import Told
    from .listings import Entry, Lister, Replica

__all__ = ['Reconciler', 'ranges']

REGISTER_CHUNK = 5000  # new files registered at once
RECHECK_CHUNK = 200  # others processed at once, so that an action follows soon after its check
STALE_SECONDS = 60  # seconds after which a new object of a complete listing is checked before it is registered
CLOCK_INTERVAL = 256  # objects after which the clock is read
MAX_NAMES = 20_000  # names that are listed to find ranges
# Counted by the comparison itself, before anything is done.
_COMPARISON_COUNTS = ('listed', 'same', *(kind.value for kind in REPORT_ONLY), 'no-checksum')
MAX_RECHECKS = 5  # of an object that changes meanwhile


class _Pause(Exception):
    """Stop the comparison before the end of the listing."""


class _Total(NamedTuple):
    """The number of objects up to a key, and their bytes."""

    objects: int = 0
    bytes: int = 0
    archived: int = 0  # of these objects


class _Position:
    """The position of a run."""

    def __init__(self, after: str) -> None:
        self.reached = after  # everything up to this key is done
        self.compared = after  # everything up to this key is compared
        self.done = _Total()  # totals of what is done
        self.count = self.bytes = self.archived = 0  # listed
        self._latest: Optional[Entry] = None
        self._marks: dict[str, _Total] = {}

    def list(self, entry: 'Entry') -> None:
        self.count += 1
        self.bytes += max(0, entry.size)
        self.archived += entry.archived
        self._latest = entry

    def stop(self) -> None:
        """End the listing."""
        if self._latest is not None:
            self.compared = self._latest.key

    def mark(self, key: str) -> None:
        """Store the totals up to a key that is pending.

        A missing object is noticed at the next object, which is not counted.
        """
        total = self._total()
        if self._latest and self._latest.key > key:
            total = _Total(
                total.objects - 1, total.bytes - max(0, self._latest.size), total.archived - self._latest.archived
            )
        self._marks[key] = total

    def _total(self) -> _Total:
        return _Total(self.count, self.bytes, self.archived)

    def settle(self, keys: 'Iterable[str]', left: 'Iterable[str]', reached: str) -> None:
        """Advance to the key up to which everything is done. The next run lists what comes after it again.

        :param keys: The pending keys.
        :param left: The keys for which there was no time.
        :param reached: The key up to which there is nothing else pending.
        """
        first_left = min(left, default=None)
        if first_left is None:
            self.reached = reached
            self.done = self._marks.get(reached, self._total())
        else:
            self.reached = max([self.reached, *(key for key in keys if key < first_left)])
            self.done = self._marks.get(self.reached, self.done)
        self._marks.clear()


class _Pending:
    """Differences that are collected, to be processed in chunks."""

    def __init__(self) -> None:
        self.new: list[Entry] = []
        self.to_recheck: list[str] = []  # keys
        self.etags: dict[str, str] = {}  # name -> ETag

    def is_enough(self) -> bool:
        return (
            max(len(self.new) / REGISTER_CHUNK, len(self.etags) / REGISTER_CHUNK, len(self.to_recheck) / RECHECK_CHUNK)
            >= 1
        )


class Reconciler:
    """Reconcile a subtree of a bucket, in one or several runs.

    Cost of a run: one request for each 1000 objects, one query for each 20,000 files that are known; for new ones the
    cost of :func:`.checksums.compute_checksums` and :func:`.registration.register`; for each object to recheck one or
    two HEADs and, if it is acted on, a transaction. Memory: a page of each stream and :data:`REGISTER_CHUNK` new
    objects, however large the bucket is.

    :param subtree: The subtree.
    :param on_changed: The action for objects that differ from the catalogue: ``report``, ``replace`` or ``bad``.
    :param on_missing: The action for missing objects: ``report``, ``forget`` or ``lost``.
    :param dry_run: Only count and report: nothing is written, and no object is read.
    :param read_checksums: Read an object once if its checksum is not available otherwise.
    :param even_if_empty: Also act on missing objects if nothing is left of the scope or the import.
    :param stop: Set it to end a run soon, in a safe state.
    :param lister: Lists the bucket, instead of the storage.
    """

    def __init__(
        self,
        subtree: 'Subtree',
        *,
        on_changed: str = 'report',
        on_missing: str = 'report',
        dry_run: bool = False,
        read_checksums: bool = True,
        even_if_empty: bool = False,
        stop: Optional[threading.Event] = None,
        lister: 'Optional[Lister]' = None,
    ) -> None:
        if on_changed not in ON_CHANGED or on_missing not in ON_MISSING:
            raise ValueError(
                f'on_changed is one of {", ".join(ON_CHANGED)}; on_missing is one of {", ".join(ON_MISSING)}'
            )
        self.summary = Summary()
        self.stored = 0  # bytes of the objects that were listed and are done
        self._subtree = subtree
        self._dry_run = dry_run
        self._list: Lister = lister or listings.entries
        self._list_is_old = getattr(lister, 'old', False)  # an inventory: what is new in it may be gone
        self._budget = Budget(read_checksums, stop or threading.Event())
        self._settler = Settler(
            subtree,
            self.summary,
            self._budget,
            on_changed=on_changed,
            on_missing=on_missing,
            dry_run=dry_run,
            lister=listings.entries if self._list_is_old else self._list,
            even_if_empty=even_if_empty,
        )
        self._reset('')

    def _reset(self, after: str) -> None:
        self._found = _Pending()
        self._position = _Position(after)
        self._failure: Optional[Exception] = None
        self._listed_at: Optional[float] = None  # when a complete listing was started

    def run(
        self,
        after: str = '',
        until: Optional[str] = None,
        seconds: Optional[float] = None,
        most_read: Optional[int] = None,
        most_sorted: Optional[int] = None,
    ) -> Optional[str]:
        """Compare a range of keys, and act on the differences.

        :param after: Only keys after this one.
        :param until: Only keys up to this one.
        :param seconds: The time limit; if the storage does not sort, it starts when everything is listed, and is at
            least as long as that took. No object is started after that; one that is being read is finished.
        :param most_read: The number of bytes that may be read for checksums, as for :meth:`check`.
        :param most_sorted: The number of objects that may be listed on a storage that does not sort, where each run
            lists the whole subtree; None: no limit.
        :returns: None if everything is done; else the key after which to continue: the next ``after``.
        :raises SourceNotFound: if the bucket does not exist.
        :raises UnsupportedOperation: if there are more objects than may be listed.
        :raises RucioException: if the storage fails during the run. Everything before that is done; nothing after it is
            reported as missing.
        """
        prefix = self._subtree.key_prefix
        if (after > prefix and not after.startswith(prefix)) or (until is not None and until <= max(prefix, after)):
            return None
        after, until = max(after, prefix), until if until and until.startswith(prefix) else None
        counts, problems = Counter(self.summary.counts), len(self.summary.problems)
        self._reset(after)
        self._budget.renew(seconds, most_read)
        try:
            finished = self._merge(self._list(self._subtree, after if after > prefix else '', until), after, until)
        except Unsorted as unsorted:
            # The comparison so far is void. The actions were right, as each object had been checked before.
            self._reset(after)
            self._budget.deadline = None
            self.summary.counts.update({kind: counts[kind] - self.summary.counts[kind] for kind in _COMPARISON_COUNTS})
            del self.summary.problems[problems:]
            everything = self._limit_listing(unsorted.everything(), most_sorted)
            finished = self._merge(self._sorted(everything, after, until, seconds), after, until)
        self.summary.counts['listed'] += self._position.done.objects - self._position.count
        self.summary.counts['archived'] += self._position.done.archived
        self.stored += self._position.done.bytes
        return None if finished else self._position.reached

    def _merge(self, entries: 'Iterator[Entry]', after: str, until: Optional[str]) -> bool:
        name = self._subtree.name_of
        known = listings.replicas(self._subtree, name(after), None if until is None else name(until))
        finished = True
        try:
            for finding in compare(self._subtree, self._until_deadline(entries), known, self.summary.counts):
                if not self._collect(finding):
                    return False
        except _Pause:
            finished = False
        finished = self._flush(self._position.compared) and finished
        if self._failure is not None:
            raise self._failure
        return finished

    def _limit_listing(self, everything: 'Iterator[Entry]', most: Optional[int]) -> 'Iterator[Entry]':
        for count, entry in enumerate(everything, 1):
            if most is not None and count > most:
                raise UnsupportedOperation(
                    f"RSE {self._subtree.storage.rse}, bucket '{self._subtree.bucket}': there are more than {most} "
                    'objects, too many to sort, and the storage does not list them in order. Reconcile a collection in '
                    'it; rucio-s3-reconciler sorts more, and an inventory is not limited.'
                )
            if not count % CLOCK_INTERVAL and self._budget.stop.is_set():
                raise _Pause
            yield entry

    def _sorted(
        self, everything: 'Iterator[Entry]', after: str, until: Optional[str], seconds: Optional[float]
    ) -> 'Iterator[Entry]':
        """Yield a sorted listing, and start the clock of the run when everything is listed.

        If listing took longer than the run may, the run gets as much time again: otherwise, no run would make progress.
        """
        self._listed_at = time.monotonic()
        for entry in listings.sorted_entries(self._subtree, everything, after, until):
            if self._budget.deadline is None and seconds is not None:
                now = time.monotonic()
                self._budget.deadline = now + max(seconds, now - self._listed_at)
            yield entry

    def _until_deadline(self, entries: 'Iterator[Entry]') -> 'Iterator[Entry]':
        """Yield entries until the time is over or the listing fails, and raise :class:`_Pause` then.

        If the iteration just ended there, all later objects would count as missing.
        """
        position = self._position
        try:
            for entry in entries:
                position.list(entry)
                if not self._list_is_old:
                    self._settler.empty = False
                yield entry
                if not position.count % CLOCK_INTERVAL and self._budget.is_over():
                    break
            else:
                return
        except (Unsorted, _Pause):
            raise
        except Exception as error:  # noqa: BLE001 - raised again when all findings are processed
            self._failure = error
        finally:
            position.stop()
        raise _Pause

    def _collect(self, finding: Finding) -> bool:
        """Collect a finding, and process what was collected once it is enough.

        :returns: False if the time is over.
        """
        kind, name, entry, replica = finding
        if kind is Kind.new and entry and not self._is_old():
            self._found.new.append(entry)
            self._position.mark(entry.key)
        elif kind is Kind.unnoted and entry:
            self._found.etags[name] = entry.etag
        elif kind in REPORT_ONLY or (kind is Kind.no_checksum and not self._can_sum(entry, replica)):
            self.summary.found(self._subtree, finding)
        else:
            self._found.to_recheck.append(self._subtree.key_of(name))
            self._position.mark(self._found.to_recheck[-1])
        if not self._found.is_enough():
            return True
        return self._flush(self._subtree.key_of(name)) and not self._budget.is_over()

    def _is_old(self) -> bool:
        return self._list_is_old or (self._listed_at is not None and time.monotonic() - self._listed_at > STALE_SECONDS)

    def _can_sum(self, entry: 'Optional[Entry]', replica: 'Optional[Replica]') -> bool:
        """Return whether to look for a checksum: not again in each run if there is none without reading."""
        if self._dry_run or entry is None:
            return False
        readable = self._budget.reads and not entry.archived
        return readable or replica is None or entry.etag != replica.etag

    def _flush(self, reached: str) -> bool:
        """Process what was collected.

        :param reached: The key up to which nothing else was found.
        :returns: Whether there was time for all of it. The next run finds the rest again.
        """
        found, self._found = self._found, _Pending()
        self._settler.note(found.etags)
        left = self._settler.register(found.new)
        for first in range(0, len(found.to_recheck), RECHECK_CHUNK):
            left += self._settler.settle(found.to_recheck[first : first + RECHECK_CHUNK])[0]
        self._position.settle([*(entry.key for entry in found.new), *found.to_recheck], left, reached)
        return not left

    def check(
        self,
        keys: 'Iterable[str]',
        most_read: Optional[int] = None,
        told: 'Optional[Mapping[str, Told]]' = None,
    ) -> Optional[int]:
        """Check single objects, and act; repeat it if they change meanwhile. For events.

        Costs two or three HEADs per object, a query for each :data:`RECHECK_CHUNK`, and the cost of the actions.

        :param keys: The keys; those outside of the subtree are ignored.
        :param most_read: The number of bytes that may be read for checksums: a larger object is registered without one;
            None: no limit.
        :param told: Key -> the checksum of an object, as whoever wrote it says.
        :returns: The number of bytes left.
        """
        self._reset('')
        self._budget.renew(None, most_read)
        self._settler.told = told or {}
        wanted = sorted({key for key in keys if key.startswith(self._subtree.key_prefix)})
        for first in range(0, len(wanted), RECHECK_CHUNK):
            some = wanted[first : first + RECHECK_CHUNK]
            for _ in range(MAX_RECHECKS):
                _, before = self._settler.settle(some, certain=True)
                now = self._settler.stat_all(some, quiet=True)
                some = [
                    key for key in some if key in before and key in now and _version(before[key]) != _version(now[key])
                ]
                if not some or self._budget.is_over():
                    break
        return self._budget.unread


def _version(entry: 'Optional[Entry]') -> Optional[tuple[int, str]]:
    return (entry.size, entry.etag) if entry else None


def ranges(subtree: 'Subtree', count: int) -> list[tuple[str, Optional[str]]]:
    """Split a subtree into ranges of keys for several reconcilers, by the names directly below it.

    The sizes of the ranges are unknown. One request for each 1000 of these names, at most 20; if there is only one
    directory, the same again in it. A storage that does not sort has one range, as listing any range lists everything.

    :param count: The maximum number of ranges.
    :returns: ``after`` and ``until`` of each.
    """
    names: list[str] = []
    place = subtree.target(subtree.name_prefix)
    if count > 1 and listings.is_sorted(subtree):
        client = subtree.storage.connection().client
        names = sorted(islice(objects.list_prefix(client, place), MAX_NAMES))
        if len(names) == 1 and names[0].endswith('/') and names[0] != place.key:
            names = sorted(islice(objects.list_prefix(client, place._replace(key=names[0])), MAX_NAMES))
    step = max(1, len(names) / count)
    cuts = [names[int(step * number)] for number in range(1, min(count, len(names)))]
    return list(zip(['', *cuts], [*cuts, None], strict=True))
