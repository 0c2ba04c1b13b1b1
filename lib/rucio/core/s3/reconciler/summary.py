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

"""What a run of the reconciler found and did, in figures, and in words where a person has to decide something."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from rucio.common.exception import RucioException

from .compare import MAX_SIZE, Finding, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from rucio.core.s3.catalogue.records import Refusal
    from rucio.core.s3.subtrees import Subtree

__all__ = ['COUNTS', 'Problem', 'Summary']

COUNTS = (
    *(
        'listed',
        'same',
        'new',
        'registered',
        'changed',
        'replaced',
        'bad',
        'missing',
        'forgotten',
        'lost',
        'completed',
        'unnameable',
        'oversized',
        'conflict',
        'closed',
    ),
    *('leftover', 'marker', 'busy', 'unproven', 'unsummed', 'failed', 'bytes'),
)
MAX_PROBLEMS = 100  # that are kept; all are counted


class Problem(NamedTuple):
    """What a person has to decide or to know."""

    kind: str
    did: str
    key: str
    found: str  # what was seen
    remedy: str  # what to do, one sentence or two


def _counts() -> 'Counter[str]':
    return Counter(dict.fromkeys(COUNTS, 0))


@dataclass
class Summary:
    """What was found and done. ``counts`` has each kind of finding and act, ``listed`` (objects) and ``bytes`` (of what
    was registered).

    The first :data:`MAX_PROBLEMS` problems are kept.
    """

    counts: 'Counter[str]' = field(default_factory=_counts)
    problems: list[Problem] = field(default_factory=list)

    def add(self, problem: Problem) -> None:
        """Keep a problem, if there are not too many. That an account is over its limit is said of each chunk of
        its files.
        """
        if len(self.problems) < MAX_PROBLEMS and problem not in self.problems:
            self.problems.append(problem)

    def merge(self, other: 'Summary') -> None:
        """Add what another run found."""
        self.counts.update(other.counts)
        for problem in other.problems:
            self.add(problem)

    def as_dict(self) -> dict[str, Any]:
        """As JSON: counts, and problems as objects."""
        return {'counts': dict(self.counts), 'problems': [problem._asdict() for problem in self.problems]}

    def found(self, subtree: 'Subtree', finding: Finding) -> None:
        """Count a finding, and say what it means where nothing is done about it."""
        self.counts[finding.kind.value] += 1
        if finding.kind in _MESSAGES:
            describe, remedy = _MESSAGES[finding.kind]
            where = subtree.target(finding.name)
            did = f'{subtree.scope}:{finding.name}'
            said = f'RSE {where.rse}, {where}: {describe(finding)}'
            self.add(
                Problem(
                    finding.kind.value,
                    did,
                    where.key,
                    said,
                    remedy.replace('RECONCILE', _command(subtree, finding.name)),
                )
            )

    def failed(self, subtree: 'Subtree', key: str, error: Exception) -> None:
        """Count an object about which nothing could be found out."""
        self.counts['failed'] += 1
        said = (
            str(error.args[0])
            if error.args and isinstance(error, RucioException)
            else f'{type(error).__name__}: {error}'
        )
        self.add(
            Problem(
                'failed', f'{subtree.scope}:{subtree.name_of(key)}', key, said, 'Run it again: what is done is done.'
            )
        )

    def refused(self, subtree: 'Subtree', refusal: 'Refusal') -> None:
        """Count what was not done. That somebody else was faster is no problem."""
        self.counts[refusal.kind] += 1
        if refusal.kind not in ('gone', 'changed'):
            found, _, remedy = refusal.found.partition('. ')
            self.add(
                Problem(
                    refusal.kind,
                    f'{subtree.scope}:{refusal.name}',
                    subtree.key_of(refusal.name),
                    found.removesuffix('.') + '.',
                    remedy,
                )
            )

    def empty(self, subtree: 'Subtree', on_missing: str) -> None:
        """Say, once and first, that a bucket has nothing left."""
        if any(problem.kind == 'empty-bucket' for problem in self.problems):
            return
        whose = f'{subtree.scope}:{subtree.dataset or ""}'.removesuffix(':')
        found = (
            f"RSE {subtree.storage.rse}: the bucket '{subtree.bucket}' has nothing left of {whose}, so nothing was "
            'done about the files that are missing.'
        )
        act = 'forget' if on_missing == 'report' else on_missing
        remedy = (
            f'If all was deleted on purpose, say so for each collection: rucio s3 reconcile {subtree.scope}:COLLECTION '
            f'--on-missing {act}.'
        )
        if subtree.dataset is not None:
            command = f'rucio s3 import {subtree.storage.rse} {whose} --on-missing {act}'
            remedy = f'If all of it was deleted on purpose, say so: {command}.'
        self.problems.insert(0, Problem('empty-bucket', whose, subtree.key_prefix, found, remedy))


def _command(subtree: 'Subtree', name: str) -> str:
    if subtree.dataset is None:
        return f'rucio s3 reconcile {subtree.scope}:{name.partition("/")[0]}'
    return f'rucio s3 import {subtree.storage.rse} {subtree.scope}:{subtree.dataset}'


def _how_changed(finding: Finding) -> str:
    entry, replica = finding.entry, finding.replica
    if entry and replica and entry.size != replica.bytes:
        return f'the object has {entry.size} bytes, the catalogue says {replica.bytes}.'
    return 'the object is as large as the catalogue says, but has another content.'


def _always(text: str) -> 'Callable[[Finding], str]':
    return lambda _: text


_MESSAGES: 'dict[Kind, tuple[Callable[[Finding], str], str]]' = {
    Kind.changed: (
        _how_changed,
        'If what is there is right: RECONCILE --on-changed replace. Else write the right content there.',
    ),
    Kind.unproven: (
        _always('the object was written again with as many bytes, and nothing tells whether it is the same.'),
        'If what is there is right: RECONCILE --on-changed replace.',
    ),
    Kind.missing: (
        _always('the catalogue has a replica, but there is no object.'),
        'If it was deleted on purpose: RECONCILE --on-missing forget. Else upload it again.',
    ),
    Kind.oversized: (
        _always(f'the storage says that the object has more than {MAX_SIZE} bytes, and no object is that large.'),
        'Tell the operator of the storage.',
    ),
    Kind.unnameable: (
        _always('no DID can have this name, so the catalogue cannot know the object.'),
        (
            'Rename it: names have letters, digits, "/", ".", "-" and "_", do not begin or end with "/", have no "." '
            'or ".." alone between slashes, and are not too long (250 characters, as a rule).'
        ),
    ),
}
