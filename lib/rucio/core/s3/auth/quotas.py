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

"""Account limits for what is stored by signatures and vended keys, before it is in the catalogue.

The limits are Rucio's: the bytes of an account on an RSE, and on the RSEs of an expression. As for rules, an account
without a limit on an RSE has no room there, and admins have no limit. An object is charged to the owner of its scope,
whoever stores it, as it is by the reconciler. What counts is the usage in the catalogue, including the changes that
Rucio's abacus daemon has not added yet, and what was signed of late (:mod:`.pending`).
"""

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from sqlalchemy import and_, func, or_, select

from rucio.common.exception import AccessDenied, InsufficientAccountLimit
from rucio.common.types import InternalScope
from rucio.common.utils import sizefmt
from rucio.core.account import has_account_attribute
from rucio.core.rse_expression_parser import parse_expression
from rucio.db.sqla import models
from rucio.db.sqla.s3 import Pending

from . import access, pending
from .pending import Stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount
    from rucio.core.s3.storages import Storage

    from .signing_guards import CheckedRequest

__all__ = ['Charge', 'Room', 'charged', 'lifetime', 'need_room', 'room', 'room_of_place']

FILLED_PER_SECOND = 100_000_000  # bytes, by keys that are vended: about a Gbit/s


class Charge(NamedTuple):
    """A request that stores something, and to whose limit it counts."""

    owner: 'InternalAccount'
    request: 'CheckedRequest'
    scope: InternalScope
    name: str


class _Limit(NamedTuple):
    where: str  # for messages
    rse_ids: tuple[str, ...]
    bytes: Optional[int]  # None: not set


# The limit on an RSE, and those on the RSEs of expressions.
_Rows = tuple[Optional[int], 'Sequence[Any]']


class Room(NamedTuple):
    """How much of a limit an account uses: ``used`` in the catalogue, ``pending`` beside it. All in bytes."""

    account: 'InternalAccount'
    where: str
    limit: Optional[int]
    used: int
    pending: int
    rows: int  # of the table of what is pending

    @property
    def left(self) -> int:
        """The bytes that the account may still store; 0 or less: none."""
        return (self.limit or 0) - self.used - self.pending

    @property
    def state(self) -> str:
        """How much is used of what, as part of a sentence."""
        if self.limit is None:
            return f'no limit is set {self.where}, so nothing can be stored there'
        signed = f' ({sizefmt(self.pending)} of them signed in the last half hour)' if self.pending else ''
        return f'{sizefmt(self.used + self.pending)} of {sizefmt(self.limit)} allowed {self.where} are used{signed}'

    def refusal(self, more: int = 0) -> InsufficientAccountLimit:
        """Return the exception for an account without enough room.

        :param more: The bytes that it asked for, which are not in ``pending``.
        """
        if self.limit is None:
            remedy = 'Ask the operator for quota (rucio account limit).'
            return InsufficientAccountLimit(f'Account {self.account}: {self.state}. {remedy}')
        wanted = f', {sizefmt(self.used + self.pending + more)} with this' if more else ''
        remedy = 'Delete files or rules, or ask the operator for a higher limit (rucio account limit).'
        return InsufficientAccountLimit(f'Account {self.account}: {self.state}{wanted}. {remedy}')


def room(account: 'InternalAccount', storage: 'Storage', *, session: 'Session') -> Optional[Room]:
    """Return how much room an account has on an RSE, by the limit of which the least is left; None: there is no limit.

    Three to six queries.

    :param account: The account, to which the files belong.
    :param storage: The RSE.
    """
    if has_account_attribute(account=account, key='admin', session=session):
        return None
    rows = _rows(account, storage, session)
    found = [_room(account, limit, session) for limit in _limits(account, storage, rows, session)]
    return min(found, key=lambda each: each.left, default=None)


def room_of_place(
    storage: 'Storage', issuer: 'InternalAccount', bucket: str, prefix: str, *, session: 'Session'
) -> Optional[Room]:
    """Return how much room the owner of a part of a bucket has; None: there is no limit. One query, up to eight if so.

    :param storage: The RSE.
    :param issuer: The account that wants to store there; admins do without a limit.
    :param bucket: The bucket.
    :param prefix: A prefix of keys.
    """
    scopes = [InternalScope(scope, vo=storage.vo) for scope, _ in storage.layout.dids_of(bucket, prefix)]
    owners = set(_limited_owners(storage, scopes, session).values()) if scopes else set()
    if not owners or access.is_admin(issuer, session=session):
        return None
    rooms = [each for each in (room(owner, storage, session=session) for owner in owners) if each]
    return min(rooms, key=lambda each: each.left, default=None)


def lifetime(room: Optional[Room], wanted: int) -> int:
    """Return for how long keys to write may be valid: as long as it takes to fill the room. No query.

    :param room: The room; None: there is no limit.
    :param wanted: The seconds that were asked for.
    :returns: Seconds; the storage's STS may have a minimum.
    :raises InsufficientAccountLimit: if there is no room.
    """
    if room is None:
        return wanted
    if room.left <= 0:
        raise room.refusal()
    return min(wanted, room.left // FILLED_PER_SECOND + 1)


def charged(
    storage: 'Storage',
    issuer: 'InternalAccount',
    checked: 'Iterable[CheckedRequest]',
    *,
    session: 'Session',
    known: Optional[access.Known] = None,
) -> list[Charge]:
    """Return which requests count towards whose limit.

    No query if they store nothing; one if no limit applies; else up to three.

    :param storage: The RSE.
    :param issuer: The account that sends the requests; admins store without a limit.
    :param checked: The validated requests.
    :param known: A cache of the results of one call, see :func:`.access.may`.
    """
    names: defaultdict[InternalScope, list[tuple[CheckedRequest, str]]] = defaultdict(list)
    for each in checked:
        if each.stores:  # on RSEs that are not deterministic, only admins do, and no key has DIDs
            for scope, name in storage.layout.dids_of(each.touches[0].bucket, each.touches[0].name):
                names[InternalScope(scope, vo=storage.vo)].append((each, name))
    owners = _limited_owners(storage, list(names), session) if names else {}
    if not owners or (issuer not in owners.values() and access.is_admin(issuer, session=session, known=known)):
        return []
    return [Charge(owner, each, scope, name) for scope, owner in owners.items() for each, name in names[scope]]


def _limited_owners(
    storage: 'Storage', scopes: 'Sequence[InternalScope]', session: 'Session'
) -> 'dict[InternalScope, InternalAccount]':
    scope, local, everywhere = models.Scope, models.AccountLimit, models.AccountGlobalLimit
    attribute = models.AccountAttrAssociation
    own = and_(local.account == scope.account, local.rse_id == storage.rse_id)
    has_more = select(everywhere.account).where(everywhere.account == scope.account).exists()
    is_admin = select(attribute.account).where(
        and_(attribute.account == scope.account, attribute.key == 'admin', attribute.value.is_not(None))
    )
    rows = session.execute(
        select(scope.scope, scope.account)
        .outerjoin(local, own)
        .where(scope.scope.in_(scopes), or_(local.bytes.is_(None), local.bytes != -1, has_more), ~is_admin.exists())
    ).all()
    return {row.scope: row.account for row in rows}


def need_room(storage: 'Storage', charges: 'Sequence[Charge]', *, session: 'Session') -> None:
    """Check that what is to be signed fits into the limits, and remember it. Up to nine queries for each owner.

    The transaction must be one to write. Others for the same limit wait until it ends.

    :param storage: The RSE.
    :param charges: What is stored.
    :raises InsufficientAccountLimit: if there is not enough room. The transaction must not be committed then.
    :raises AccessDenied: if it is not known how much is stored.
    """
    stored: defaultdict[InternalAccount, list[Stored]] = defaultdict(list)
    for each in charges:
        stored[each.owner].append(Stored(each.scope, each.name, each.request.part, each.request.length or 0))
    # All are locked before anything else is read: MySQL reads what there was when a transaction first read something.
    locked = {owner: _rows(owner, storage, session, lock=True) for owner in sorted(stored, key=str)}
    for owner, rows in locked.items():
        _need_room_of(owner, storage, _limits(owner, storage, rows, session), stored[owner], session)
    for each in charges:
        if each.request.length is None:
            raise _of_unknown_length(storage, each.request)


def _of_unknown_length(storage: 'Storage', request: 'CheckedRequest') -> AccessDenied:
    if 'x-amz-copy-source' in request.headers:
        return AccessDenied(
            f'RSE {storage.rse}: {request.operation} is signed for accounts with a limit only as UploadPartCopy with '
            'x-amz-copy-source-range, as most storages would copy whatever is there by then. Download the object and '
            'upload it, or copy ranges.'
        )
    return AccessDenied(
        f'RSE {storage.rse}: {request.operation} is signed for accounts with a limit only together with its '
        'Content-Length. Update rucio-s3, or name that header in the request to be signed.'
    )


def _need_room_of(
    owner: 'InternalAccount',
    storage: 'Storage',
    limits: list[_Limit],
    stored: 'Sequence[Stored]',
    session: 'Session',
) -> None:
    more = sum(each.bytes for each in stored)
    if pending.has_table(session=session):
        pending.add(owner, storage.rse_id, stored, session=session)
        beside = 0
    else:
        beside = more
    rows = 0
    for limit in limits:
        found = _room(owner, limit, session)
        rows = max(rows, found.rows)
        if limit.bytes is None or found.left < beside:
            raise found._replace(pending=max(0, found.pending - more)).refusal(more)
    if rows > pending.MAX_ROWS:
        pending.join_rows(owner, storage.rse_id, session=session)


def _rows(account: 'InternalAccount', storage: 'Storage', session: 'Session', lock: bool = False) -> _Rows:
    """Return the limits of an account as stored. With ``lock``, other transactions that want them so wait."""
    local, everywhere = models.AccountLimit, models.AccountGlobalLimit
    own = select(local.bytes).where(and_(local.account == account, local.rse_id == storage.rse_id))
    more = select(everywhere.rse_expression, everywhere.bytes).where(everywhere.account == account)
    more = more.order_by(everywhere.rse_expression)
    bytes_ = session.execute(own.with_for_update() if lock else own).scalar()
    return bytes_, session.execute(more.with_for_update() if lock else more).all()


def _limits(account: 'InternalAccount', storage: 'Storage', rows: _Rows, session: 'Session') -> list[_Limit]:
    """Return the limits that apply on an RSE."""
    bytes_, more = rows
    found = [_Limit(f'at RSE {storage.rse}', (storage.rse_id,), bytes_)] if bytes_ != -1 else []
    for row in more:
        rses = parse_expression(row.rse_expression, filter_={'vo': account.vo}, session=session)
        ids = tuple(sorted(rse['id'] for rse in rses))
        if row.bytes != -1 and storage.rse_id in ids:
            found.append(_Limit(f"at the RSEs '{row.rse_expression}'", ids, row.bytes))
    return found


def _room(account: 'InternalAccount', limit: _Limit, session: 'Session') -> Room:
    """Add up what counts towards a limit. One query; if that is too much, two more to see what was counted twice."""
    sums = [
        select(func.coalesce(func.sum(table.bytes), 0)).where(
            and_(table.account == account, table.rse_id.in_(limit.rse_ids))
        )
        for table in (models.AccountUsage, models.UpdatedAccountCounter)
    ]
    recent = pending.recent(account, limit.rse_ids)
    if pending.has_table(session=session):
        sums += [select(func.coalesce(func.sum(Pending.bytes), 0)).where(recent), select(func.count()).where(recent)]
    row = session.execute(select(*(each.scalar_subquery() for each in sums))).one()
    usage, changes, signed, rows = [*(int(each) for each in row), 0, 0][:4]  # some databases answer with decimals
    found = Room(account, limit.where, limit.bytes, usage + changes, signed, rows)
    if found.pending and found.left <= 0:
        left = pending.unregistered(account, recent, session=session).values()
        found = found._replace(pending=sum(each.bytes for each in left))
    return found
