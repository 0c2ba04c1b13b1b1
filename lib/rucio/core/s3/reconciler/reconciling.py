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

"""The reconciler: makes the catalogue say what is in a bucket, as far as its settings allow.

What the merge finds is collected: new objects, and those that are in doubt, as they are changed, missing, ... Each of
these is looked at once more, in the bucket and in the catalogue, before anything is said or done about it.
"""

import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Optional

from rucio.common.exception import RucioException, SourceNotFound, UnsupportedOperation
from rucio.common.s3 import objects
from rucio.common.s3.content import Sums
from rucio.common.s3.endpoint import ON_CHANGED, ON_MISSING
from rucio.core.s3.catalogue import registration, updates

from . import checksums, listings
from .compare import DAY, Finding, Kind, compare
from .listings import Unsorted
from .summary import COUNTS, Problem, Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rucio.core.s3.catalogue.records import NewFile, Refusal
    from rucio.core.s3.parts import Part

    from .listings import Entry, Lister, Replica

__all__ = ['COUNTS', 'Problem', 'Reconciler', 'Summary', 'ranges']

CHUNK = 2000  # new files registered at once
DOUBTS = 200  # others dealt with at once: it shall not take long from the look at an object to what is done about it
OLD = 60  # seconds after which what a listing of everything had may be gone, and is looked at before it is registered
LOOK = 256  # objects after which the clock is read
MOST_NAMES = 20_000  # looked at to find ranges
# Counted by the comparison itself, before anything is done.
_ONLY_TOLD = (Kind.marker, Kind.leftover, Kind.busy, Kind.unnameable, Kind.oversized)
_COMPARED = ('listed', 'same', *(kind.value for kind in _ONLY_TOLD), 'unsummed')
AGAIN = 5  # times that an object is dealt with which changes meanwhile


class _Pause(Exception):
    """The merge ends before the end of the listing."""


class Reconciler:
    """One run, or several after each other, over one part of a bucket.

    Costs of a run: one request for each 1000 objects, one query for each 20,000 files that are known; for new ones what
    :func:`.summing.sums` and :func:`.registration.register` say; for each object in doubt one HEAD or two and, where
    something is done about it, a transaction. Memory: a page of each stream and :data:`CHUNK` new objects, however
    large the bucket is.

    :param part: What is compared.
    :param on_changed: What to do about objects that are not what the catalogue says: ``report``, ``replace`` or
        ``bad``.
    :param on_missing: What to do about those that are gone: ``report``, ``forget`` or ``lost``.
    :param dry_run: Only count and report: nothing is written, no object is read.
    :param read_checksums: Read an object once where nothing else tells its checksum.
    :param even_if_empty: Also do something about missing objects where the bucket has nothing at all left of the scope
        or the import.
    :param stop: Ends a run soon, at a safe place.
    :param lister: Lists the bucket, where it is not the storage that shall be asked.
    """

    def __init__(
        self,
        part: 'Part',
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
        self.stored = 0  # bytes of the objects that were listed and dealt with
        self._part = part
        self._on_changed = on_changed
        self._on_missing = on_missing
        self._dry_run = dry_run
        self._read = read_checksums
        self._unread: Optional[int] = None  # bytes that may still be read
        self._empty: Optional[bool] = None if part.is_whole and not even_if_empty else False  # None: not known yet
        self._stop = stop or threading.Event()
        self._list: Lister = lister or listings.entries
        self._list_is_old = getattr(lister, 'old', False)  # an inventory: what is new in it may be gone
        self._begin('', None)

    def _begin(self, after: str, seconds: Optional[float]) -> None:
        self._new: list[Entry] = []
        self._doubts: list[str] = []  # keys
        self._notes: dict[str, str] = {}  # name -> ETag
        self._done = self._seen = after  # all up to this key is dealt with; all up to this one was compared
        self._listed = self._counted = 0  # objects up to _seen, and up to _done
        self._size = self._counted_size = 0  # their bytes
        self._latest: Optional[Entry] = None  # the last one that was listed
        self._places: dict[str, tuple[int, int]] = {}  # key -> how many objects were listed up to it, and their bytes
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._failure: Optional[Exception] = None
        self._listed_at: Optional[float] = None  # when all was begun to be listed at once

    def _is_over(self) -> bool:
        return self._stop.is_set() or (self._deadline is not None and time.monotonic() > self._deadline)

    # The merge

    def run(
        self,
        after: str = '',
        until: Optional[str] = None,
        seconds: Optional[float] = None,
        most_read: Optional[int] = None,
        most_sorted: Optional[int] = None,
    ) -> Optional[str]:
        """Compare a range of keys and act.

        :param after: Only keys behind this one.
        :param until: Only keys up to this one.
        :param seconds: How long to work; where the storage does not sort, from when all is listed, and at least as long
            as that took. No object is begun after that; one that is being read is read to its end.
        :param most_read: How many bytes may be read for checksums, as for :meth:`check`.
        :param most_sorted: How many objects may be listed of a storage that does not sort, where each run lists all of
            the part; None: all.
        :returns: None if all is done, else the key behind which there is more to do: the next ``after``.
        :raises SourceNotFound: if there is no such bucket.
        :raises UnsupportedOperation: if there is more than may be listed.
        :raises RucioException: if the storage fails in the middle. All before that was dealt with; nothing behind it is
            taken for missing.
        """
        prefix = self._part.key_prefix
        if (after > prefix and not after.startswith(prefix)) or (until is not None and until <= max(prefix, after)):
            return None
        after, until = max(after, prefix), until if until and until.startswith(prefix) else None
        counts, problems = Counter(self.summary.counts), len(self.summary.problems)
        self._begin(after, seconds)
        self._unread = most_read
        try:
            finished = self._merge(self._list(self._part, after if after > prefix else '', until), after, until)
        except Unsorted as unsorted:
            # What was found so far says nothing. What was done about it was right: each object had been looked at.
            self._begin(after, None)
            self.summary.counts.update({kind: counts[kind] - self.summary.counts[kind] for kind in _COMPARED})
            del self.summary.problems[problems:]
            everything = self._bounded(unsorted.everything(), most_sorted)
            finished = self._merge(self._sorted(everything, after, until, seconds), after, until)
        self.summary.counts['listed'] += self._counted - self._listed
        self.stored += self._counted_size
        return None if finished else self._done

    def _merge(self, entries: 'Iterator[Entry]', after: str, until: Optional[str]) -> bool:
        name = self._part.name_of
        known = listings.replicas(self._part, name(after), None if until is None else name(until))
        finished = True
        try:
            for finding in compare(self._part, self._watched(entries), known, self.summary.counts):
                if not self._take(finding):
                    return False
        except _Pause:
            finished = False
        finished = self._flush(self._seen) and finished
        if self._failure is not None:
            raise self._failure
        return finished

    def _bounded(self, everything: 'Iterator[Entry]', most: Optional[int]) -> 'Iterator[Entry]':
        for count, entry in enumerate(everything, 1):
            if most is not None and count > most:
                raise UnsupportedOperation(
                    f"RSE {self._part.storage.rse}, bucket '{self._part.bucket}': there are more than {most} objects, which the storage does not list "
                    'in order: too many to be sorted here. Ask for a collection in it; rucio-s3-reconciler sorts more, and an inventory needs not be sorted.'
                )
            if not count % LOOK and self._stop.is_set():
                raise _Pause
            yield entry

    def _sorted(
        self, everything: 'Iterator[Entry]', after: str, until: Optional[str], seconds: Optional[float]
    ) -> 'Iterator[Entry]':
        """A listing that takes longer than a run may take would let no run get anywhere: there is as much time again,
        so that half of it is work.
        """
        self._listed_at = time.monotonic()
        for entry in listings.sorted_entries(self._part, everything, after, until):
            if self._deadline is None and seconds is not None:
                now = time.monotonic()
                self._deadline = now + max(seconds, now - self._listed_at)
            yield entry

    def _watched(self, entries: 'Iterator[Entry]') -> 'Iterator[Entry]':
        """The same, until it is time to end. That is no end, which would say that there is nothing more in the
        bucket.
        """
        entry = None
        try:
            for self._listed, entry in enumerate(entries, 1):
                if not self._list_is_old:
                    self._empty = False
                self._size += entry.size
                self._latest = entry
                yield entry
                if not self._listed % LOOK and self._is_over():
                    break
            else:
                return
        except (Unsorted, _Pause):
            raise
        except Exception as error:  # noqa: BLE001 - raised again when all that was found is dealt with
            self._failure = error
        finally:
            if entry is not None:
                self._seen = entry.key
        raise _Pause

    def _take(self, finding: Finding) -> bool:
        """:returns: False when it is time to end."""
        kind, name, entry, replica = finding
        if kind is Kind.new and entry and not self._is_old():
            self._new.append(entry)
            self._places[entry.key] = self._up_to(entry.key)
        elif kind is Kind.unnoted and entry:
            self._notes[name] = entry.etag
        elif kind in _ONLY_TOLD or (kind is Kind.unsummed and not self._can_sum(entry, replica)):
            self.summary.found(self._part, finding)
        else:
            self._doubts.append(self._part.key_of(name))
            self._places[self._doubts[-1]] = self._up_to(self._doubts[-1])
        if max(len(self._new) / CHUNK, len(self._notes) / CHUNK, len(self._doubts) / DOUBTS) < 1:
            return True
        return self._flush(self._part.key_of(name)) and not self._is_over()

    def _up_to(self, key: str) -> tuple[int, int]:
        """How many objects were listed up to a key, and their bytes. That something is missing is noticed at the next
        object, which does not count.
        """
        if self._latest and self._latest.key > key:
            return self._listed - 1, self._size - self._latest.size
        return self._listed, self._size

    def _is_old(self) -> bool:
        return self._list_is_old or (self._listed_at is not None and time.monotonic() - self._listed_at > OLD)

    def _can_sum(self, entry: 'Optional[Entry]', replica: 'Optional[Replica]') -> bool:
        """Whether to look for a checksum: not in each run again where it cannot be had without reading."""
        return not self._dry_run and (self._read or not (entry and replica and entry.etag == replica.etag))

    def _flush(self, reached: str) -> bool:
        """Deal with what was collected.

        :param reached: The key up to which that is all that was found.
        :returns: Whether there was time for it. What is left then is found again.
        """
        new, doubts, notes = self._new, self._doubts, self._notes
        self._new, self._doubts, self._notes = [], [], {}
        self._note(notes)
        left = self._register(new)
        for first in range(0, len(doubts), DOUBTS):
            left += self._settle(doubts[first : first + DOUBTS])[0]
        if left:
            first_left = min(left)
            self._done = max(
                [self._done, *(key for key in [*(entry.key for entry in new), *doubts] if key < first_left)]
            )
        else:
            self._done = reached
        # What is behind it is listed again by the next run.
        self._counted, self._counted_size = self._places.get(
            self._done, (self._counted, self._counted_size) if left else (self._listed, self._size)
        )
        self._places.clear()
        return not left

    # Single objects

    def check(self, keys: 'Iterable[str]', most_read: Optional[int] = None) -> Optional[int]:
        """Look at single objects and act, again if they change meanwhile. For events; keys that do not belong to the
        part are left out.

        Costs two or three HEADs for each, a query for each :data:`DOUBTS`, and what is done about them.

        :param most_read: How many bytes may be read for checksums: an object that is larger than what is left of them
            has none; None: all.
        :returns: What is left of them.
        """
        self._begin('', None)
        self._unread = most_read
        wanted = sorted({key for key in keys if key.startswith(self._part.key_prefix)})
        for first in range(0, len(wanted), DOUBTS):
            some = wanted[first : first + DOUBTS]
            for _ in range(AGAIN):
                _, before = self._settle(some, certain=True)
                now = self._look(some, quiet=True)
                some = [
                    key for key in some if key in before and key in now and _version(before[key]) != _version(now[key])
                ]
                if not some or self._is_over():
                    break
        return self._unread

    def _look(self, keys: 'Sequence[str]', quiet: bool = False) -> 'dict[str, Optional[Entry]]':
        """What is there now. Those of which the storage does not say are left out."""

        def look(key: str) -> 'Entry | RucioException | None':
            try:
                return listings.stat(self._part, key)
            except RucioException as error:
                return error

        found: dict[str, Optional[Entry]] = {}
        with ThreadPoolExecutor(min(self._part.storage.endpoint.checksum_readers, len(keys) or 1)) as pool:
            for key, entry in zip(keys, pool.map(look, keys), strict=True):
                if not isinstance(entry, RucioException):
                    found[key] = entry
                elif not quiet:
                    self.summary.failed(self._part, key, entry)
        return found

    def _settle(self, keys: 'Sequence[str]', certain: bool = False) -> 'tuple[list[str], dict[str, Optional[Entry]]]':
        """Look at objects, in order of their keys, compare each with what the catalogue says now, and act.

        :param certain: What is missing was deleted: somebody who knows has said so.
        :returns: The keys for which there was no time, and what was seen.
        """
        if not keys:
            return [], {}
        seen = self._look(keys)
        known = listings.known(self._part, [self._part.name_of(key) for key in seen])
        counted: Counter[str] = Counter()
        groups: dict[Kind, list[Finding]] = defaultdict(list)
        for finding in compare(
            self._part, (entry for entry in seen.values() if entry), (known[name] for name in sorted(known)), counted
        ):
            groups[finding.kind].append(finding)
        self.summary.counts['same'] += counted['same']
        for kind in _ONLY_TOLD:
            for finding in groups[kind]:
                self.summary.found(self._part, finding)
        self._note({each.name: each.entry.etag for each in groups[Kind.unnoted] if each.entry})
        left = self._register([each.entry for each in groups[Kind.new] if each.entry])
        left += self._sum(groups[Kind.unsummed])
        unlike, more = self._prove(groups[Kind.unproven])
        left += more + self._changed(groups[Kind.changed], unlike)
        self._missing(groups[Kind.missing], certain)
        self._completed(groups[Kind.completed])
        return left, seen

    def _sums(self, entries: 'Iterable[Entry]', left: list[str]) -> 'Iterator[tuple[Entry, NewFile]]':
        """What the catalogue shall know of objects. Those that cannot be read are counted; those for which there is no
        time are ``left``.
        """
        wanted = {entry.key: entry for entry in entries}
        if not wanted:
            return
        begun = self._in_time(wanted.values())
        for entry, file in checksums.sums(
            self._part, begun, self._part.storage.endpoint.checksum_readers, self._may_read, self._stop
        ):
            del wanted[entry.key]
            if not isinstance(file, Exception):
                yield entry, file
            elif not isinstance(file, SourceNotFound):  # deleted meanwhile
                self.summary.failed(self._part, entry.key, file)
        left += wanted

    def _may_read(self, entry: 'Entry') -> bool:
        if self._read and self._unread is not None:
            if entry.size > self._unread:
                return False
            self._unread -= entry.size
        return self._read

    def _in_time(self, entries: 'Iterable[Entry]') -> 'Iterator[Entry]':
        """At least the first, or a run that has little time would never get anywhere."""
        entries = iter(list(entries))
        yield from islice(entries, 1)
        for entry in entries:
            if self._is_over():
                return
            yield entry

    # What is done

    def _register(self, entries: 'Sequence[Entry]') -> list[str]:
        left: list[str] = []
        files = [] if self._dry_run else [file for _, file in self._sums(entries, left)]
        self.summary.counts['new'] += len(entries) - len(left)
        if files:
            count, refusals = registration.register(self._part, files)
            refused = {refusal.name for refusal in refusals}
            self.summary.counts['registered'] += count
            self.summary.counts['bytes'] += sum(file.bytes for file in files if file.name not in refused)
            for refusal in refusals:
                self.summary.refused(self._part, refusal)
        return left

    def _note(self, etags: dict[str, str]) -> None:
        self.summary.counts['same'] += len(etags)
        if etags and not self._dry_run:
            updates.note_etags(self._part, etags)

    def _sum(self, findings: 'Sequence[Finding]') -> list[str]:
        """Files that the catalogue has no checksum of."""
        left: list[str] = []
        names = {each.entry.key: each.name for each in findings if each.entry}
        if self._dry_run:
            self.summary.counts['unsummed'] += len(names)
            return left
        etags = {}
        for entry, file in self._sums((each.entry for each in findings if each.entry), left):
            name = names[entry.key]
            if file.md5 or file.adler32:
                updates.set_checksums(self._part, name, file.md5, file.adler32)
            if file.etag:
                etags[name] = file.etag
        self.summary.counts['unsummed'] += len(names) - len(left)
        if etags:
            updates.note_etags(self._part, etags)
        return left

    def _prove(self, findings: 'Sequence[Finding]') -> 'tuple[dict[str, tuple[Finding, NewFile]], list[str]]':
        """Those of which only the content tells whether they are the same.

        :returns: By key those that are not, and the keys for which there was no time.
        """
        left: list[str] = []
        unlike: dict[str, tuple[Finding, NewFile]] = {}
        etags = {}
        by_key = {each.entry.key: each for each in findings if each.entry}
        if self._dry_run:
            self.summary.counts['unproven'] += len(by_key)
            by_key = {}
        for entry, file in self._sums((each.entry for each in by_key.values() if each.entry), left):
            finding = by_key[entry.key]
            same = _is_same(file, finding.replica)
            if same or (same is None and not self._read and _may_be_rucios(finding)):
                etags[finding.name] = file.etag or entry.etag
            elif same is False or (self._on_changed == 'replace' and self._unread is None):
                # What was not read because it is too large for now may be proven by the next run: its checksums are not
                # thrown away.
                unlike[entry.key] = finding, file
            else:
                updates.shield(self._part, [finding.name])
                self.summary.found(self._part, finding)
        self._note(etags)
        return unlike, left

    def _changed(self, findings: 'Sequence[Finding]', unlike: 'dict[str, tuple[Finding, NewFile]]') -> list[str]:
        left: list[str] = []
        if not self._dry_run and self._on_changed != 'bad' and (findings or unlike):
            updates.shield(
                self._part, [finding.name for finding in [*findings, *(finding for finding, _ in unlike.values())]]
            )
        if self._dry_run or self._on_changed == 'report':
            for each in [*findings, *(finding for finding, _ in unlike.values())]:
                self.summary.found(self._part, each._replace(kind=Kind.changed))
            return left
        if self._on_changed == 'bad':
            every = [each.replica for each in [*findings, *(finding for finding, _ in unlike.values())] if each.replica]
            self.summary.counts['changed'] += len(every)
            self._act(
                'bad',
                updates.declare_bad,
                every,
                'rucio-s3: the object in the bucket is another one than the catalogue describes',
            )
            return left
        by_key = {each.entry.key: each for each in findings if each.entry}
        read = (
            (by_key[entry.key], file)
            for entry, file in self._sums((each.entry for each in by_key.values() if each.entry), left)
        )
        for each, file in (pair for pairs in (unlike.values(), read) for pair in pairs):
            self.summary.counts['changed'] += 1
            if each.replica:
                refusal = updates.replace(self._part, each.replica, file)
                self.summary.counts['replaced'] += refusal is None
                if refusal:
                    self.summary.refused(self._part, refusal)
                elif each.replica.state == 'C':
                    updates.complete(self._part, [each.name])
        return left

    def _missing(self, findings: 'Sequence[Finding]', certain: bool) -> None:
        if not findings:
            return
        # What is forgotten comes back with the object. A lost file never does: what an event says does not do for that.
        if (not certain or self._on_missing == 'lost') and self._is_empty():
            self.summary.empty(self._part, self._on_missing)
            self.summary.counts['missing'] += len(findings)
            return
        if self._dry_run or self._on_missing == 'report':
            for each in findings:
                self.summary.found(self._part, each)
            return
        self.summary.counts['missing'] += len(findings)
        seen = [each.replica for each in findings if each.replica]
        if self._on_missing == 'forget':
            self._act('forgotten', lambda part, replicas, _: updates.forget(part, replicas), seen, '')
        else:
            self._act('lost', updates.declare_lost, seen, 'rucio-s3: the object is no longer in the bucket')

    def _is_empty(self) -> bool:
        """Whether the bucket has nothing at all of the part: one request, if nothing was listed yet."""
        if self._empty is None:
            try:
                lister = listings.entries if self._list_is_old else self._list
                self._empty = next(lister(self._part, '', None), None) is None
            except Unsorted as unsorted:
                self._empty = next(unsorted.everything(), None) is None
        return self._empty

    def _completed(self, findings: 'Sequence[Finding]') -> None:
        if findings and self._dry_run:
            self.summary.counts['completed'] += len(findings)
        elif findings:
            self.summary.counts['completed'] += updates.complete(self._part, [each.name for each in findings])

    def _act(
        self,
        kind: str,
        act: 'Callable[[Part, Sequence[Replica], str], tuple[int, list[Refusal]]]',
        seen: 'Sequence[Replica]',
        reason: str,
    ) -> None:
        if seen:
            count, refusals = act(self._part, seen, reason)
            self.summary.counts[kind] += count
            for refusal in refusals:
                self.summary.refused(self._part, refusal)


def _version(entry: 'Optional[Entry]') -> Optional[tuple[int, str]]:
    return (entry.size, entry.etag) if entry else None


def _may_be_rucios(finding: Finding) -> bool:
    """Whether Rucio itself may have written the object: the clocks of storage and server differ, and nobody is allowed
    to read it.
    """
    entry, replica = finding.entry, finding.replica
    return bool(entry and replica and replica.etag is None and entry.modified <= replica.updated + DAY)


def _is_same(file: 'NewFile', replica: 'Optional[Replica]') -> Optional[bool]:
    """Whether an object is what the catalogue describes; None: nothing that can be compared."""
    if replica is None:
        return None
    return Sums(file.md5, file.adler32).compare(Sums(replica.md5, replica.adler32))


def ranges(part: 'Part', count: int) -> list[tuple[str, Optional[str]]]:
    """Cut a part into ranges of keys for several reconcilers, by the names that lie directly below it. How much each
    holds is not known.

    One request for each 1000 of those names, 20 at most; where there is only one directory, the same again for that. A
    storage that does not sort has one range: each would list all of it.

    :param count: How many at most.
    :returns: ``after`` and ``until`` of each.
    """
    names: list[str] = []
    place = part.target(part.name_prefix)
    if count > 1 and listings.is_sorted(part):
        client = part.storage.connection().client
        names = sorted(islice(objects.list_prefix(client, place), MOST_NAMES))
        if len(names) == 1 and names[0].endswith('/') and names[0] != place.key:
            names = sorted(islice(objects.list_prefix(client, place._replace(key=names[0])), MOST_NAMES))
    step = max(1, len(names) / count)
    cuts = [names[int(step * number)] for number in range(1, min(count, len(names)))]
    return list(zip(['', *cuts], [*cuts, None], strict=True))
