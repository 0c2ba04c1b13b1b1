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

"""The summary of a reconciler run: counts, and problems that need a decision."""

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
        'unreadable',
        'conflict',
        'closed',
        'archived',
    ),
    *('leftover', 'marker', 'busy', 'unproven', 'no-checksum', 'failed', 'bytes'),
)
MAX_PROBLEMS = 100  # that are kept; all are counted


class Problem(NamedTuple):
    """A problem that somebody has to decide on or know about."""

    kind: str
    did: str
    key: str
    found: str  # what was found
    remedy: str  # what to do, in one or two sentences


def _counts() -> 'Counter[str]':
    return Counter(dict.fromkeys(COUNTS, 0))


@dataclass
class Summary:
    """What was found and done.

    :param counts: Findings and actions by kind; ``listed`` counts objects, ``bytes`` those of registered files.
    :param problems: The first :data:`MAX_PROBLEMS` problems.
    """

    counts: 'Counter[str]' = field(default_factory=_counts)
    problems: list[Problem] = field(default_factory=list)

    def add(self, problem: Problem) -> None:
        """Add a problem, up to the limit and without duplicates.

        An exceeded account limit, for example, is reported for each chunk of files.

        :param problem: The problem.
        """
        if len(self.problems) < MAX_PROBLEMS and problem not in self.problems:
            self.problems.append(problem)

    def merge(self, other: 'Summary') -> None:
        """Add the summary of another run.

        :param other: The other summary.
        """
        self.counts.update(other.counts)
        for problem in other.problems:
            self.add(problem)

    def as_dict(self) -> dict[str, Any]:
        """Return counts and problems as JSON objects."""
        return {'counts': dict(self.counts), 'problems': [problem._asdict() for problem in self.problems]}

    def found(self, subtree: 'Subtree', finding: Finding) -> None:
        """Count a finding, and add a problem if no action is taken.

        :param finding: The finding.
        """
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
        """Count an object that could not be checked.

        :param error: The reason.
        """
        self.counts['failed'] += 1
        said = (
            str(error.args[0])
            if error.args and isinstance(error, RucioException)
            else f'{type(error).__name__}: {error}'
        )
        self.add(Problem('failed', f'{subtree.scope}:{subtree.name_of(key)}', key, said, 'Run it again.'))

    def refused(self, subtree: 'Subtree', refusal: 'Refusal') -> None:
        """Count a refusal. Concurrent changes are not reported as problems.

        :param refusal: The refusal.
        """
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
        """Add, once and as the first problem, that nothing is left in a bucket.

        :param on_missing: The action that was not taken.
        """
        if any(problem.kind == 'empty-bucket' for problem in self.problems):
            return
        whose = f'{subtree.scope}:{subtree.dataset or ""}'.removesuffix(':')
        found = (
            f"RSE {subtree.storage.rse}: the bucket '{subtree.bucket}' has no objects of {whose} left, so no action "
            'was taken on the missing files.'
        )
        act = 'forget' if on_missing == 'report' else on_missing
        remedy = (
            'If everything was deleted on purpose, confirm it for each collection: rucio s3 reconcile '
            f'{subtree.scope}:COLLECTION --on-missing {act}.'
        )
        if subtree.dataset is not None:
            command = f'rucio s3 import {subtree.storage.rse} {whose} --on-missing {act}'
            remedy = f'If everything was deleted on purpose, confirm it: {command}.'
        self.problems.insert(0, Problem('empty-bucket', whose, subtree.key_prefix, found, remedy))


def _command(subtree: 'Subtree', name: str) -> str:
    if subtree.dataset is None:
        return f'rucio s3 reconcile {subtree.scope}:{name.partition("/")[0]}'
    return f'rucio s3 import {subtree.storage.rse} {subtree.scope}:{subtree.dataset}'


def _how_changed(finding: Finding) -> str:
    entry, replica = finding.entry, finding.replica
    if entry and replica and entry.size != replica.bytes:
        return f'the object has {entry.size} bytes, the catalogue says {replica.bytes}.'
    return 'the object has the same size as in the catalogue, but different content.'


def _always(text: str) -> 'Callable[[Finding], str]':
    return lambda _: text


_MESSAGES: 'dict[Kind, tuple[Callable[[Finding], str], str]]' = {
    Kind.changed: (
        _how_changed,
        'If the object is correct: RECONCILE --on-changed replace. Otherwise, write the correct content to the bucket.',
    ),
    Kind.unproven: (
        _always('the object was overwritten with the same size, and its content cannot be verified.'),
        'If the object is correct: RECONCILE --on-changed replace.',
    ),
    Kind.missing: (
        _always('the catalogue has a replica, but the object does not exist.'),
        'If it was deleted on purpose: RECONCILE --on-missing forget. Otherwise, upload it again.',
    ),
    Kind.unreadable: (
        _always('the storage lists the object without its size or its date.'),
        'Contact the operator of the storage.',
    ),
    Kind.oversized: (
        _always(f'the storage reports more than {MAX_SIZE} bytes for the object, which is not possible.'),
        'Contact the operator of the storage.',
    ),
    Kind.unnameable: (
        _always('no DID can have this name, so the object cannot be registered.'),
        (
            'Rename it: names have letters, digits, "/", ".", "-" and "_", do not begin or end with "/", have no "." '
            'or ".." alone between slashes, and are not too long (250 characters, as a rule).'
        ),
    ),
}
