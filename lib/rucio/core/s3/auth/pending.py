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

"""What accounts may store by signatures and what may not be in the catalogue yet: the table ``s3_pending``.

Rows are only added: a signature for a smaller object does not end an earlier one for a larger one. They end some time
after the signature. The processes of all servers share the table.
"""

from collections import defaultdict
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple, Optional

from sqlalchemy import and_, delete, func, insert, select

from rucio.common.utils import generate_uuid
from rucio.db.sqla import models
from rucio.db.sqla.s3 import Pending, is_ready

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount, InternalScope

__all__ = ['MAX_ROWS', 'SECONDS', 'Stored', 'add', 'has_table', 'join_rows', 'recent', 'unregistered']

# A signature is valid for 15 minutes, and a request that was sent at their end may take as long again.
SECONDS = 1800
MAX_ROWS = 1000  # of an account on an RSE; beyond that they are joined
MAX_NAMES = 500  # that are kept apart then, the latest
_TICK = timedelta(microseconds=1)


class Stored(NamedTuple):
    """What a request stores: an object (``part`` is None) or a part of an upload, and its size in bytes."""

    scope: 'InternalScope'
    name: Optional[str]
    part: Optional[str]
    bytes: int


class _Object(NamedTuple):
    rse_id: str
    scope: 'InternalScope'
    name: Optional[str]  # None: of several objects
    row: Optional[str]  # which of these rows; None: there is a name


class _Left(NamedTuple):
    bytes: int
    at: datetime


def has_table(*, session: 'Session') -> bool:
    """Return whether the operator has created the table. No query if it exists.

    :param session: The session of the database.
    """
    return is_ready(Pending, session=session)


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


def _of(account: 'InternalAccount', rse_ids: 'Sequence[str]') -> 'ColumnElement[bool]':
    return and_(Pending.account == account, Pending.rse_id.in_(rse_ids))


def recent(account: 'InternalAccount', rse_ids: 'Sequence[str]') -> 'ColumnElement[bool]':
    """Return the condition for the rows that count.

    :param account: The account, to which the files belong.
    :param rse_ids: The RSEs.
    """
    return and_(_of(account, rse_ids), Pending.signed_at >= _now() - timedelta(seconds=SECONDS))


def add(account: 'InternalAccount', rse_id: str, stored: 'Iterable[Stored]', *, session: 'Session') -> None:
    """Remember what an account may store, and forget what it could. Two queries.

    SQLite has no locks of rows: there, this makes other transactions wait.

    :param account: The account, to which the files belong.
    :param rse_id: The RSE.
    :param stored: What it may store.
    """
    ended = and_(_of(account, [rse_id]), ~recent(account, [rse_id]))
    session.execute(delete(Pending).where(ended).execution_options(synchronize_session=False))
    _insert(account, rse_id, [(each, _now()) for each in stored], session)


def _insert(
    account: 'InternalAccount', rse_id: str, rows: 'Iterable[tuple[Stored, datetime]]', session: 'Session'
) -> None:
    values = [{'account': account, 'rse_id': rse_id, 'signed_at': at, **each._asdict()} for each, at in rows]
    if values:
        session.execute(insert(Pending), values)


def unregistered(
    account: 'InternalAccount', rows: 'ColumnElement[bool]', *, session: 'Session'
) -> dict[_Object, _Left]:
    """Return what the usage of an account does not include yet, and when it was last signed. Two queries.

    A request that is signed again stores nothing more, and an upload becomes one object. What the rules of the account
    already count for a name is subtracted, as it will be replaced.

    :param account: The account.
    :param rows: The rows to look at, such as :func:`recent`.
    """
    what = (Pending.rse_id, Pending.scope, Pending.name, Pending.part)
    objects: defaultdict[_Object, int] = defaultdict(int)
    parts: defaultdict[_Object, int] = defaultdict(int)
    last: dict[_Object, datetime] = {}
    for row in session.execute(
        select(*what, func.max(Pending.bytes).label('most'), func.max(Pending.signed_at).label('last'))
        .where(rows)
        .group_by(*what)
    ):
        key = _Object(row.rse_id, row.scope, row.name, row.part if row.name is None else None)
        (objects if row.part is None else parts)[key] += int(row.most)
        last[key] = max(row.last, last.get(key, row.last))
    counted = _counted(account, rows, session)
    left = {key: max(objects[key], parts[key]) - counted.get(key, 0) for key in last}
    return {key: _Left(bytes_, last[key]) for key, bytes_ in left.items() if bytes_ > 0}


def _counted(account: 'InternalAccount', rows: 'ColumnElement[bool]', session: 'Session') -> dict[_Object, int]:
    lock, what = models.ReplicaLock, (Pending.rse_id, Pending.scope, Pending.name)
    same = and_(lock.scope == Pending.scope, lock.name == Pending.name, lock.rse_id == Pending.rse_id)
    found = session.execute(
        select(*what, func.max(lock.bytes).label('most'))
        .join(lock, and_(same, lock.account == account))
        .where(rows)
        .group_by(*what)
    )
    return {_Object(row.rse_id, row.scope, row.name, None): int(row.most or 0) for row in found}


def join_rows(account: 'InternalAccount', rse_id: str, *, session: 'Session') -> None:
    """Keep the table small: to be called if an account has more than :data:`MAX_ROWS` on an RSE. Four queries.

    What is in the catalogue is dropped, the parts of an object become a row, and so do the objects of a minute, except
    the latest.

    :param account: The account.
    :param rse_id: The RSE.
    """
    mine = _of(account, [rse_id])
    found = sorted(unregistered(account, mine, session=session).items(), key=lambda item: item[1].at, reverse=True)
    session.execute(delete(Pending).where(mine).execution_options(synchronize_session=False))
    # As parts of their objects: further parts add to them.
    rows = [
        (Stored(key.scope, key.name, generate_uuid(), left.bytes), left.at)
        for key, left in found[:MAX_NAMES]
        if key.name
    ]
    together: defaultdict[datetime, list[Stored]] = defaultdict(list)
    for number, (key, left) in enumerate(found):
        if number >= MAX_NAMES or not key.name:
            minute = (left.at - _TICK).replace(second=0, microsecond=0) + timedelta(minutes=1)  # the end of it
            together[minute].append(Stored(key.scope, None, None, left.bytes))
    for at, some in together.items():
        rows.append((Stored(some[0].scope, None, generate_uuid(), sum(each.bytes for each in some)), at))
    _insert(account, rse_id, rows, session)
