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

"""The rounds of the reconciler: which buckets to reconcile, and their progress.

A round covers a subtree of a bucket once, in one span of keys or, if several workers share a large bucket, in many. The
progress of each span is stored in Rucio's table ``configs``, in the section of its bucket (``s3-bucket:RSE:BUCKET``),
from where the next worker continues.

====================  =============================================================================================
``round:ROUND_ID``    when it began and ended, and the counts of the last one that ended
``span:ROUND_ID:N``   from where to where it goes, how far it is, and what was counted until there
====================  =============================================================================================

Rows are only updated if they have not changed since they were read. If two workers process the same span, one of them
loses, and nothing is counted twice.
"""

import base64
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from sqlalchemy import and_, select

from rucio.common.exception import RSEFileNameNotSupported, RSEOperationNotSupported
from rucio.common.s3 import address, objects
from rucio.common.s3.answers import line_logger
from rucio.common.s3.errors import Target
from rucio.common.types import InternalScope
from rucio.core.s3 import configs, imports
from rucio.core.s3.auth import shared_keys
from rucio.core.s3.buckets import lookup
from rucio.core.s3.subtrees import Subtree
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy.orm import Session

    from rucio.core.s3.storages import Storage

__all__ = [
    'STORED',
    'Round',
    'Span',
    'Worklist',
    'advance',
    'begin',
    'close',
    'delete_rounds',
    'find_work',
    'read_rounds',
    'round_id',
    'split',
]

_LOGGER = line_logger(__name__)

_ROUND, _SPAN = 'round:', 'span:'
STORED = 'stored'  # among the counts: the bytes of the objects that were listed
MAX_IN_LIST = 500  # parameters of one query
MAX_KEY_LENGTH = 1100  # characters, with those that JSON adds


@dataclass(frozen=True)
class Span:
    """A range of keys: those after ``after`` up to ``until`` (None: the end). All keys up to ``after`` are done."""

    index: int
    after: str = ''
    until: Optional[str] = None
    done: bool = False
    counts: 'Mapping[str, int]' = field(default_factory=dict)
    seconds: float = 0  # of work
    round: float = 0  # when its round began: no span is mistaken for that of another round
    stored: str = ''  # the row as it was read


@dataclass(frozen=True)
class Round:
    """A running round, with the counts of the previous one; or, if ``ended``, the last round."""

    started: float  # POSIX seconds
    ended: Optional[float] = None
    counts: 'Mapping[str, int]' = field(default_factory=dict)
    seconds: float = 0
    spans: 'Sequence[Span]' = ()
    stored: str = ''

    @property
    def since(self) -> float:
        """Since when the bucket waits for a round to end: the end of the last one, or the start of the running one."""
        return self.started if self.ended is None else self.ended


class Worklist(NamedTuple):
    """The work on a storage: subtrees to reconcile, and scopes whose bucket is missing."""

    subtrees: list[Subtree]
    missing_buckets: list[tuple[InternalScope, str]]


# Rows


def round_id(subtree: Subtree) -> str:
    """Return the id of a subtree's rounds in the names of their rows."""
    scope = str(subtree.scope.internal)
    if not subtree.name_prefix:
        return scope
    digest = hashlib.sha256(f'{subtree.name_prefix}\n{subtree.key_prefix}'.encode()).hexdigest()[:16]
    return f'{scope}#{digest}'


def read_rounds(
    storage: 'Storage', bucket: Optional[str] = None, *, session: 'Session'
) -> dict[tuple[str, str], Round]:
    """Return all rounds on a storage, or of one bucket, by bucket and round id. One query."""
    rounds: dict[tuple[str, str], Round] = {}
    spans: dict[tuple[str, str], list[Span]] = {}
    for row in configs.list_rows(storage, (_ROUND, _SPAN), bucket, session=session):
        if row.option.startswith(_ROUND):
            rounds[row.bucket, row.option[len(_ROUND) :]] = _round(row.value)
        else:
            mark, _, index = row.option[len(_SPAN) :].rpartition(':')
            if span := _span(index, row.value):
                spans.setdefault((row.bucket, mark), []).append(span)
    return {
        place: replace(found, spans=sorted(spans.get(place, ()), key=lambda span: span.index))
        for place, found in rounds.items()
    }


def _round(value: str) -> Round:
    """Parse a row of a round. One that cannot be parsed counts as a round that ended long ago."""
    try:
        said = json.loads(value)
        return Round(said['started'], said['ended'], said['counts'], said['seconds'], stored=value)
    except (ValueError, TypeError, KeyError):
        return Round(0, 0, stored=value)


def _span(index: str, value: str) -> Optional[Span]:
    try:
        said = json.loads(value)
        return Span(
            int(index),
            _unpacked(said['after']),
            _unpacked(said['until']),
            said['done'],
            said['counts'],
            said['seconds'],
            said['round'],
            value,
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _packed(key: Any) -> Any:
    """Return a key in a form that fits into a row: as it is, or in base64 if that is shorter.

    A key has up to 1024 bytes, and a value of the table 4000 characters, but JSON escapes a control character with six.
    """
    return (
        [base64.b64encode(key.encode()).decode()]
        if isinstance(key, str) and len(_to_json(key)) > MAX_KEY_LENGTH
        else key
    )


def _unpacked(key: Any) -> Any:
    return base64.b64decode(key[0]).decode() if isinstance(key, list) else key


def _to_json(said: Any) -> str:
    return json.dumps(said, separators=(',', ':'), ensure_ascii=False)


def _serialize(kind: 'Round | Span') -> str:
    said = {name: value for name, value in vars(kind).items() if name not in ('index', 'spans', 'stored')}
    return _to_json(said | {name: _packed(said[name]) for name in ('after', 'until') if name in said})


def _change(subtree: Subtree, option: str, old: str, new: str, session: 'Session') -> bool:
    """Change a row, unless it changed since it was read."""
    return configs.change(configs.bucket_section(subtree.storage, subtree.bucket), option, old, new, session=session)


def _add(subtree: Subtree, rows: 'Mapping[str, str]', session: 'Session') -> bool:
    return configs.add(configs.bucket_section(subtree.storage, subtree.bucket), rows, session=session)


def _drop_spans(storage: 'Storage', bucket: str, mark: str, session: 'Session') -> None:
    configs.drop(configs.bucket_section(storage, bucket), f'{_SPAN}{mark}:', below=True, session=session)


def delete_rounds(storage: 'Storage', places: 'Iterable[tuple[str, str]]', *, session: 'Session') -> None:
    """Delete the rounds of buckets that no longer exist. Two statements for each.

    :param places: The bucket and the round id of each.
    """
    for bucket, mark in places:
        _drop_spans(storage, bucket, mark, session)
        configs.drop(configs.bucket_section(storage, bucket), f'{_ROUND}{mark}', session=session)


# Rounds


def begin(subtree: Subtree, last: Optional[Round], now: float, *, session: 'Session') -> bool:
    """Start a round with one span. Three statements.

    :param last: The last round as it was read, if any.
    :param now: POSIX seconds.
    :returns: False if another worker was faster.
    """
    mark, value = round_id(subtree), _serialize(Round(now, counts=last.counts if last else {}))
    option = f'{_ROUND}{mark}'
    if last and not _change(subtree, option, last.stored, value, session):
        return False
    _drop_spans(subtree.storage, subtree.bucket, round_id(subtree), session)
    rows = {f'{_SPAN}{mark}:0': _serialize(Span(0, round=now))}
    return _add(subtree, rows if last else rows | {option: value}, session)


def advance(
    subtree: Subtree,
    span: Span,
    after: Optional[str],
    counts: 'Mapping[str, int]',
    seconds: float,
    *,
    session: 'Session',
) -> bool:
    """Store the progress of a span. One statement.

    :param span: The span as it was read.
    :param after: The key after which to continue; None: the span is done.
    :param counts: What was counted since it was read.
    :param seconds: How long that took.
    :returns: False if another worker processes it, or the round is over.
    """
    total = dict(Counter(span.counts) + Counter(counts))
    if STORED in counts:
        total.setdefault(STORED, 0)  # 0 differs from unknown
    new = replace(
        span,
        after=span.after if after is None else after,
        done=after is None,
        counts=total,
        seconds=round(span.seconds + seconds, 3),
    )
    return _change(subtree, f'{_SPAN}{round_id(subtree)}:{span.index}', span.stored, _serialize(new), session)


def split(subtree: Subtree, span: Span, ranges: 'Iterable[tuple[str, Optional[str]]]', *, session: 'Session') -> int:
    """Split the rest of a round's only span. Two statements.

    :param span: The span 0 as it was read.
    :param ranges: Ranges into which the whole subtree can be split, as ``after`` and ``until``.
    :returns: The number of spans that there are now.
    """
    left = [(max(after, span.after), until) for after, until in ranges if until is None or until > span.after]
    if len(left) < 2:
        return 1
    option = f'{_SPAN}{round_id(subtree)}'
    if not _change(subtree, f'{option}:0', span.stored, _serialize(replace(span, until=left[0][1])), session):
        return 1
    rows = {
        f'{option}:{index}': _serialize(Span(index, *each, round=span.round))
        for index, each in enumerate(left)
        if index
    }
    return len(left) if _add(subtree, rows, session) else 1


def close(subtree: Subtree, now: float, *, session: 'Session') -> Optional[Round]:
    """End a round if all of its spans are done. Three statements.

    :param now: POSIX seconds.
    :returns: The round with all counts; None if something is left to do, or another worker has ended it.
    """
    found = read_rounds(subtree.storage, subtree.bucket, session=session).get((subtree.bucket, round_id(subtree)))
    if found is None or found.ended is not None or not all(span.done for span in found.spans):
        return None
    counts: Counter[str] = Counter()
    for span in found.spans:
        counts.update(span.counts)
    ended = Round(found.started, now, dict(counts), round(sum(span.seconds for span in found.spans), 3))
    if not _change(subtree, f'{_ROUND}{round_id(subtree)}', found.stored, _serialize(ended), session):
        return None
    _drop_spans(subtree.storage, subtree.bucket, round_id(subtree), session)
    return ended


# Work


def find_work(storage: 'Storage', known: 'Collection[tuple[str, str]]') -> Worklist:
    """Find the subtrees on a storage that belong to scopes or imports, sorted by bucket. Opens its own sessions.

    One request to list the buckets (or the top level of the common bucket), one more for each expected bucket that is
    not listed; some queries.

    :param known: The buckets and round ids of existing rounds: if such a bucket is missing, it is reported.
    :raises RucioException: if the storage does not answer.
    """
    if not storage.layout.deterministic:
        with db_session(DatabaseOperationType.READ) as session:
            return Worklist(_imported(storage, session), [])
    listed = _listed(storage)
    with db_session(DatabaseOperationType.READ) as session:
        expected = _locked(storage, session) | {
            InternalScope(mark, from_external=False) for _, mark in known if '#' not in mark
        }
        scopes = _existing({InternalScope(each, vo=storage.vo) for each in listed} | expected, session)
    subtrees, missing_buckets = [], []
    for scope in sorted(scopes, key=str):
        try:
            subtree = Subtree.of(storage, scope)
        except (RSEOperationNotSupported, RSEFileNameNotSupported):
            continue  # none of its files can be there
        with db_session(DatabaseOperationType.READ) as session:
            if shared_keys.has_other_scopes(storage, scope, subtree.bucket, subtree.key_prefix, session=session):
                _LOGGER.warning(
                    "RSE %s: bucket '%s' of scope %s is left alone, as another RSE has its files in it: rucio s3 check "
                    'tells',
                    storage.rse,
                    subtree.bucket,
                    scope,
                )
                continue
        # The keys may be allowed to use a bucket, but not to list it.
        if str(scope) in listed or lookup.exists(storage, subtree.bucket):
            subtrees.append(subtree)
        else:
            missing_buckets.append((scope, subtree.bucket))
    if missing_buckets:
        with db_session(DatabaseOperationType.READ) as session:
            missing_buckets = [
                (scope, bucket) for scope, bucket in missing_buckets if _has_replicas(storage, scope, session)
            ]
    return Worklist(sorted(subtrees, key=lambda subtree: (subtree.bucket, subtree.key_prefix)), missing_buckets)


def _listed(storage: 'Storage') -> set[str]:
    """Return the external scopes that the buckets, or the folders of the common bucket, could belong to."""
    if not storage.layout.common_bucket:
        found = objects.list_buckets(storage.connection())
        return {scope for bucket in found if (scope := address.bucket_to_scope(bucket, storage.endpoint.bucket_prefix))}
    bucket, folder = address.split_prefix(storage.protocol['prefix'])
    below = objects.list_prefix(storage.connection().client, Target(storage.rse, bucket, folder))
    return {
        scope for key in below if key.endswith('/') for scope, name in storage.layout.dids_of(bucket, key) if not name
    }


def _locked(storage: 'Storage', session: 'Session') -> set[InternalScope]:
    """Return the scopes of the datasets that rules keep on the RSE.

    These are nearly all scopes with replicas there; the table of replicas is too large for this query.
    """
    lock = models.DatasetLock
    return set(session.execute(select(lock.scope).distinct().where(lock.rse_id == storage.rse_id)).scalars())


def _existing(scopes: set[InternalScope], session: 'Session') -> set[InternalScope]:
    wanted, found = sorted(scopes, key=str), set()
    for start in range(0, len(wanted), MAX_IN_LIST):
        stmt = select(models.Scope.scope).where(models.Scope.scope.in_(wanted[start : start + MAX_IN_LIST]))
        found |= set(session.execute(stmt).scalars())
    return found


def _has_replicas(storage: 'Storage', scope: InternalScope, session: 'Session') -> bool:
    replica = models.RSEFileAssociation
    stmt = select(replica.name).where(and_(replica.scope == scope, replica.rse_id == storage.rse_id)).limit(1)
    return session.execute(stmt).first() is not None


def _imported(storage: 'Storage', session: 'Session') -> list[Subtree]:
    return [imports.subtree_of(storage, each) for each in imports.list_imports(storage, session=session)]
