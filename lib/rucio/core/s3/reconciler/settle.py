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
"""Actions on objects that differ from the catalogue, as far as the settings of their bucket allow.

Before an action, the object and the catalogue are checked again.
"""

from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Optional

from rucio.common.exception import RucioException, SourceNotFound
from rucio.common.s3 import request_ids
from rucio.common.s3.content import Checksums
from rucio.core.s3.catalogue import registration, updates

from . import checksums, listings
from .compare import DAY, REPORT_ONLY, Finding, Kind, compare
from .listings import Unsorted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rucio.core.s3.catalogue.records import NewFile, Refusal
    from rucio.core.s3.subtrees import Subtree

    from .budget import Budget
    from .listings import Entry, Lister, Replica
    from .summary import Summary

__all__ = ['Settler']


class Settler:
    """Act on differences between a subtree of a bucket and the catalogue.

    :param subtree: The subtree.
    :param summary: Counts and problems are added to it.
    :param budget: The budget of the run.
    :param on_changed: The action for objects that differ from the catalogue: ``report``, ``replace`` or ``bad``.
    :param on_missing: The action for missing objects: ``report``, ``forget`` or ``lost``.
    :param dry_run: Only count and report.
    :param lister: Lists the current objects of the subtree.
    :param even_if_empty: Also act on missing objects if nothing is left of the subtree.
    """

    def __init__(
        self,
        subtree: 'Subtree',
        summary: 'Summary',
        budget: 'Budget',
        *,
        on_changed: str,
        on_missing: str,
        dry_run: bool,
        lister: 'Lister',
        even_if_empty: bool,
    ) -> None:
        self._subtree = subtree
        self.summary = summary
        self._budget = budget
        self._on_changed = on_changed
        self._on_missing = on_missing
        self._dry_run = dry_run
        self._lister = lister
        # Whether nothing is left of the part, which is a reason to doubt the bucket; None: not known yet.
        self.empty: Optional[bool] = None if subtree.is_whole and not even_if_empty else False
        self.told: Mapping[str, checksums.Told] = {}  # key -> what whoever wrote the object says

    def settle(self, keys: 'Sequence[str]', certain: bool = False) -> 'tuple[list[str], dict[str, Optional[Entry]]]':
        """Check objects in the order of their keys, compare them with the current catalogue, and act.

        :param keys: The keys.
        :param certain: Whether missing objects are known to have been deleted: an event said so.
        :returns: The keys for which there was no time, and the current objects.
        """
        if not keys:
            return [], {}
        seen = self.stat_all(keys)
        known = listings.known(self._subtree, [self._subtree.name_of(key) for key in seen])
        counted: Counter[str] = Counter()
        groups: dict[Kind, list[Finding]] = defaultdict(list)
        for finding in compare(
            self._subtree, (entry for entry in seen.values() if entry), (known[name] for name in sorted(known)), counted
        ):
            groups[finding.kind].append(finding)
        self.summary.counts['same'] += counted['same']
        for kind in REPORT_ONLY:
            for finding in groups[kind]:
                self.summary.found(self._subtree, finding)
        self.note({self._subtree.name_of(entry.key): entry.etag for entry in _entries(groups[Kind.unnoted])})
        left = self.register(_entries(groups[Kind.new]))
        left += self._add_checksums(groups[Kind.no_checksum])
        unlike, more = self._compare_content(groups[Kind.unproven])
        left += more + self._changed(groups[Kind.changed], unlike)
        self._missing(groups[Kind.missing], certain)
        self._completed(groups[Kind.completed])
        return left, seen

    def stat_all(self, keys: 'Sequence[str]', quiet: bool = False) -> 'dict[str, Optional[Entry]]':
        """Return the current objects by key, with None for those that do not exist.

        One or two HEADs each, in parallel. Objects that cannot be checked are left out.

        :param keys: The keys.
        :param quiet: Do not count those that cannot be checked as ``failed``.
        """

        def stat_all(key: str) -> 'Entry | RucioException | None':
            try:
                return listings.stat(self._subtree, key)
            except RucioException as error:
                return error

        found: dict[str, Optional[Entry]] = {}
        with ThreadPoolExecutor(min(self._subtree.storage.endpoint.checksum_readers, len(keys) or 1)) as pool:
            for key, entry in zip(keys, pool.map(request_ids.carried(stat_all), keys), strict=True):
                if not isinstance(entry, RucioException):
                    found[key] = entry
                elif not quiet:
                    self.summary.failed(self._subtree, key, entry)
        return found

    def _compute_checksums(self, entries: 'Iterable[Entry]', left: list[str]) -> 'Iterator[tuple[Entry, NewFile]]':
        """Yield the files to register for objects.

        Those that cannot be read are counted as ``failed``; those for which there is no time are added to ``left``.
        """
        wanted = {entry.key: entry for entry in entries}
        if not wanted:
            return
        begun = self._budget.in_time(wanted.values())
        for entry, file in checksums.compute_checksums(
            self._subtree,
            begun,
            self._subtree.storage.endpoint.checksum_readers,
            self._budget.may_read,
            self._budget.stop,
            self.told,
        ):
            del wanted[entry.key]
            if not isinstance(file, Exception):
                yield entry, file
            elif not isinstance(file, SourceNotFound):  # deleted meanwhile
                self.summary.failed(self._subtree, entry.key, file)
        left += wanted

    def register(self, entries: 'Sequence[Entry]') -> list[str]:
        """Register new objects.

        :param entries: The objects.
        :returns: The keys for which there was no time.
        """
        left: list[str] = []
        files = [] if self._dry_run else [file for _, file in self._compute_checksums(entries, left)]
        self.summary.counts['new'] += len(entries) - len(left)
        if files:
            count, refusals = registration.register(self._subtree, files)
            refused = {refusal.name for refusal in refusals}
            self.summary.counts['registered'] += count
            self.summary.counts['bytes'] += sum(file.bytes for file in files if file.name not in refused)
            for refusal in refusals:
                self.summary.refused(self._subtree, refusal)
        return left

    def note(self, etags: dict[str, str]) -> None:
        """Store the ETags of objects that agree with the catalogue.

        :param etags: Name -> ETag.
        """
        self.summary.counts['same'] += len(etags)
        if not self._dry_run:
            updates.note_etags(self._subtree, etags)

    def _add_checksums(self, findings: 'Sequence[Finding]') -> list[str]:
        """Add checksums that are missing in the catalogue."""
        left: list[str] = []
        entries = [] if self._dry_run else _entries(findings)
        etags = {}
        for _, file in self._compute_checksums(entries, left):
            if file.md5 or file.adler32:
                updates.set_checksums(self._subtree, file.name, file.md5, file.adler32)
            if file.etag:
                etags[file.name] = file.etag
        self.summary.counts['no-checksum'] += len(findings) - len(left)
        updates.note_etags(self._subtree, etags)
        return left

    def _compare_content(self, findings: 'Sequence[Finding]') -> 'tuple[dict[str, tuple[Finding, NewFile]], list[str]]':
        """Compare the contents of objects that can only be verified by reading.

        :returns: By key the objects that differ, and the keys for which there was no time.
        """
        left: list[str] = []
        unlike: dict[str, tuple[Finding, NewFile]] = {}
        etags = {}
        found, known = {each.name: each for each in findings}, {each.name: each for each in _replicas(findings)}
        if self._dry_run:
            self.summary.counts['unproven'] += len(found)
            found = {}
        for entry, file in self._compute_checksums(_entries(found.values()), left):
            finding, replica = found[file.name], known[file.name]
            same = Checksums(file.md5, file.adler32).compare(Checksums(replica.md5, replica.adler32))
            if same or (same is None and not self._budget.reads and _may_be_own_upload(entry, replica)):
                etags[finding.name] = file.etag or entry.etag
            elif same is False or (self._on_changed == 'replace' and (file.adler32 or self._budget.unread is None)):
                # An object that was too large to read in this run may be verified by the next one: keep its checksums.
                unlike[entry.key] = finding, file
            else:
                updates.protect_from_reaper(self._subtree, [finding.name])
                self.summary.found(self._subtree, finding)
        self.note(etags)
        return unlike, left

    def _changed(self, findings: 'Sequence[Finding]', unlike: 'dict[str, tuple[Finding, NewFile]]') -> list[str]:
        left: list[str] = []
        changed = [*findings, *(finding for finding, _ in unlike.values())]
        if changed and not self._dry_run and self._on_changed != 'bad':
            updates.protect_from_reaper(self._subtree, [finding.name for finding in changed])
        if self._dry_run or self._on_changed == 'report':
            for each in changed:
                self.summary.found(self._subtree, each._replace(kind=Kind.changed))
            return left
        if self._on_changed == 'bad':
            self.summary.counts['changed'] += len(changed)
            bad = partial(updates.declare_bad, reason='rucio-s3: the object in the bucket differs from the catalogue')
            self._act('bad', bad, _replicas(changed))
            return left
        known = {replica.name: replica for replica in _replicas(changed)}
        read = (file for _, file in self._compute_checksums(_entries(findings), left))
        for file in chain((file for _, file in unlike.values()), read):
            self.summary.counts['changed'] += 1
            refusal = updates.replace(self._subtree, known[file.name], file)
            self.summary.counts['replaced'] += refusal is None
            if refusal:
                self.summary.refused(self._subtree, refusal)
            elif known[file.name].state == 'C':
                updates.complete(self._subtree, [file.name])
        return left

    def _missing(self, findings: 'Sequence[Finding]', certain: bool) -> None:
        if not findings:
            return
        # A forgotten file is registered again with its object. A lost one never is: for that, an event is not enough.
        if (not certain or self._on_missing == 'lost') and self._is_empty():
            self.summary.empty(self._subtree, self._on_missing)
            self.summary.counts['missing'] += len(findings)
            return
        if self._dry_run or self._on_missing == 'report':
            for each in findings:
                self.summary.found(self._subtree, each)
            return
        self.summary.counts['missing'] += len(findings)
        if self._on_missing == 'forget':
            self._act('forgotten', updates.forget, _replicas(findings))
        else:
            lost = partial(updates.declare_lost, reason='rucio-s3: the object is no longer in the bucket')
            self._act('lost', lost, _replicas(findings))

    def _is_empty(self) -> bool:
        """Return whether nothing is left of the subtree. One request, if nothing was listed yet."""
        if self.empty is None:
            try:
                self.empty = next(self._lister(self._subtree, '', None), None) is None
            except Unsorted as unsorted:
                self.empty = next(unsorted.everything(), None) is None
        return self.empty

    def _completed(self, findings: 'Sequence[Finding]') -> None:
        if self._dry_run:
            self.summary.counts['completed'] += len(findings)
        else:
            self.summary.counts['completed'] += updates.complete(self._subtree, [each.name for each in findings])

    def _act(
        self,
        kind: str,
        act: 'Callable[[Subtree, Sequence[Replica]], tuple[int, list[Refusal]]]',
        seen: 'Sequence[Replica]',
    ) -> None:
        count, refusals = act(self._subtree, seen)
        self.summary.counts[kind] += count
        for refusal in refusals:
            self.summary.refused(self._subtree, refusal)


def _entries(findings: 'Iterable[Finding]') -> 'list[Entry]':
    return [each.entry for each in findings if each.entry]


def _replicas(findings: 'Iterable[Finding]') -> 'list[Replica]':
    return [each.replica for each in findings if each.replica]


def _may_be_own_upload(entry: 'Entry', replica: 'Replica') -> bool:
    """Return whether the object may be Rucio's own upload; the clocks of storage and server may differ by a day."""
    return replica.etag is None and entry.modified <= replica.updated + DAY
