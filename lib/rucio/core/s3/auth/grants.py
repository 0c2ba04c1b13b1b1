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

"""Grants: access to collections that scope owners give to other accounts.

They are stored in a table of the plugin's own, ``s3_grants``, which only the server writes: metadata of a DID can be
deleted, and in some scopes written, by others. Without the table, nothing is granted. A grant belongs to the DID that
it was given for: it does not apply to another DID that is created with the same name.
"""

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Union

from sqlalchemy import and_, delete, or_, select, update

from rucio.common.exception import DataIdentifierNotFound, InvalidObject, UnsupportedOperation
from rucio.common.s3 import address
from rucio.common.s3.dates import to_text
from rucio.common.types import InternalAccount
from rucio.db.sqla import models, s3
from rucio.db.sqla.constants import DIDType
from rucio.db.sqla.s3 import GranteeType

from . import grantees
from .grantees import EVERYBODY, Grantee

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalScope

__all__ = [
    'EVERYBODY',
    'FOREVER',
    'Grant',
    'StoredGrant',
    'add_grant',
    'delete_ended',
    'delete_ended_public_grant',
    'delete_ended_users',
    'delete_grants',
    'described',
    'end_public_grant',
    'end_users',
    'granted_until',
    'has_table',
    'is_valid',
    'list_ended',
    'list_grants',
    'list_public',
    'list_published',
    'list_users',
    'need_grantable',
    'need_table',
    'now',
    'same_did',
]

FOREVER = datetime.max  # noqa: DTZ901 - as Rucio's tables have times: UTC, without a time zone
MAX_GRANTS = 200  # per collection
MAX_RSE_IDS_LENGTH = 1000  # characters of RSE ids, 32 each


class Grant(NamedTuple):
    """The access of a grantee to a collection."""

    kind: str  # one of grantees.KINDS
    account: str  # the name of an account; an attribute, as KEY=VALUE; *: everybody, read-only
    write: bool
    by: str
    at: str  # ISO 8601, UTC
    until: Optional[str]  # ISO 8601, UTC; None: no end
    ended: bool  # expired, or the collection was erased; a public grant is kept until the storage was updated


class StoredGrant(NamedTuple):
    """A grant as stored in the table."""

    scope: 'InternalScope'
    name: str
    kind: GranteeType
    grantee: str
    did_created_at: datetime
    expired_at: Optional[datetime]
    published_on: Optional[str] = None  # ids of RSEs, separated by commas


def has_table(*, session: 'Session') -> bool:
    """Return whether collections can be shared, that is, the table exists. No query if it does."""
    return s3.is_ready(session=session)


def need_table(*, session: 'Session') -> None:
    """Check that the table exists. No query if it does.

    :raises UnsupportedOperation: if the operator has not created it.
    """
    if not has_table(session=session):
        raise UnsupportedOperation(
            'Collections cannot be shared on this Rucio server yet: the table of grants is missing in its database. '
            f'The operator has to run {s3.COMMAND}.'
        )


def granted_until(
    issuer: 'InternalAccount', scope: 'InternalScope', name: str, write: bool, *, session: 'Session'
) -> Optional[datetime]:
    """Return until when an account was granted access to a collection above a name.

    One query; none if the name has no slash; one more for the attributes of the account if a grant is for one.

    :returns: The end of the grant that lasts longest, :data:`FOREVER` if it has none; None: there is no valid grant.
    """
    above = address.ancestors(name)
    if not above or not s3.is_ready(session=session):
        return None
    table, asking = s3.Grant, grantees.AskingAccount(issuer, session)
    stmt = (
        select(table.name, table.grantee_type, table.grantee, table.can_write, table.expired_at)
        .join(models.DataIdentifier, same_did())
        .where(table.scope == scope, table.name.in_(above), asking.may_be_meant(), is_valid())
    )
    # Some databases take A and a for the same.
    meant = (
        row
        for row in session.execute(stmt)
        if row.name in above and (row.can_write or not write) and asking.is_meant(row.grantee_type, row.grantee, write)
    )
    return max((row.expired_at or FOREVER for row in meant), default=None)


def list_grants(scope: 'InternalScope', name: str, *, session: 'Session') -> list[Grant]:
    """List the grants of a collection, sorted by account. One query; none if the table is missing."""
    if not s3.is_ready(session=session):
        return []
    table, did = s3.Grant, models.DataIdentifier
    stmt = select(table, did.name).outerjoin(did, same_did()).where(table.scope == scope, table.name == name)
    return sorted(described(row, there is not None) for row, there in session.execute(stmt) if row.name == name)


def need_grantable(
    scope: 'InternalScope',
    name: str,
    whom: Union[str, Grantee],
    write: bool,
    *,
    session: 'Session',
) -> None:
    """Check that access can be granted. Three queries.

    :param whom: The grantee; or the name of an account, or :data:`EVERYBODY` for the world.
    :raises AccountNotFound: if there is no such account.
    :raises DataIdentifierNotFound: if there is no such DID.
    :raises UnsupportedOperation: if it is a file, or the table of grants is missing.
    :raises InvalidObject: if write access is for everybody, no account has the attribute, or the collection has too
        many grants.
    """
    need_table(session=session)
    grantee = _grantee(whom)
    grantees.check(grantee, write, scope.vo, session=session)
    did = models.DataIdentifier
    kind = session.execute(select(did.did_type).where(and_(did.scope == scope, did.name == name))).scalar()
    if kind is None:
        raise _no_collection(scope, name)
    if kind == DIDType.FILE:
        raise UnsupportedOperation(
            f'{scope}:{name} is a file. Only collections can be shared: share the collection above it.'
        )
    _need_room(scope, name, grantee, session)


def _grantee(whom: Union[str, Grantee]) -> Grantee:
    return Grantee.of(whom) if isinstance(whom, str) else whom


def _no_collection(scope: 'InternalScope', name: str) -> DataIdentifierNotFound:
    return DataIdentifierNotFound(
        f'The collection {scope}:{name} does not exist: create it first (rucio s3 make-bucket {scope}:{name}).'
    )


def _need_room(scope: 'InternalScope', name: str, grantee: Grantee, session: 'Session') -> None:
    valid = [each[:2] for each in list_grants(scope, name, session=session) if not each.ended]
    if len(valid) >= MAX_GRANTS and (grantee.kind.name.lower(), grantee.name) not in valid:
        raise InvalidObject(f'{scope}:{name} already has {MAX_GRANTS} grants: revoke some, or share it with everybody.')


def add_grant(
    scope: 'InternalScope',
    name: str,
    whom: Union[str, Grantee],
    write: bool,
    by: str,
    until: Optional[datetime] = None,
    rse_ids: 'Collection[str]' = (),
    *,
    session: 'Session',
) -> bool:
    """Grant somebody access to a collection, or change the grant. A few queries.

    The caller has called :func:`need_grantable`.

    :param whom: The grantee; or the name of an account, or :data:`EVERYBODY` for the world.
    :param until: When the grant expires, in UTC without a time zone; None: never.
    :param rse_ids: The RSEs on whose storage everybody, or the account's own user, is let in as well.
    :param by: The account that grants access.
    :returns: Whether anything changed.
    :raises DataIdentifierNotFound: if the collection is gone.
    :raises InvalidObject: if the collection has too many grants, or is published on too many RSEs.
    """
    did = models.DataIdentifier
    # Locked, so that concurrent grants of a collection are serialised.
    made_at = session.execute(
        select(did.created_at).where(and_(did.scope == scope, did.name == name)).with_for_update()
    ).scalar()
    if made_at is None:
        raise _no_collection(scope, name)
    grantee = _grantee(whom)
    row = session.execute(select(s3.Grant).where(_grant_is(scope, name, *grantee))).scalar_one_or_none()
    told = _merge_published(row, rse_ids)
    valid = row is not None and row.did_created_at == made_at and not _is_past(row.expired_at)
    if row is not None and valid and (row.can_write, row.expired_at, row.published_on) == (write, until, told):
        return False
    if not valid:
        _need_room(scope, name, grantee, session)
    row = row or s3.Grant(scope=scope, name=name, grantee_type=grantee.kind, grantee=grantee.name)
    row.can_write, row.granted_by, row.did_created_at = write, InternalAccount(by, vo=scope.vo), made_at
    row.expired_at, row.published_on = until, told
    row.save(session=session, flush=True)
    return True


def _merge_published(row: Optional[s3.Grant], rse_ids: 'Collection[str]') -> Optional[str]:
    """Return the RSEs of a grant, including earlier ones, on which it may not have been revoked yet."""
    before: list[str] = []
    if row is not None:
        if row.published_on is None and row.grantee_type is GranteeType.WORLD:  # not known
            return None
        before = row.published_on.split(',') if row.published_on else []
    told = ','.join(dict.fromkeys([*before, *rse_ids])) or None
    if told and len(told) > MAX_RSE_IDS_LENGTH:
        raise InvalidObject(f'A collection can be public on {MAX_RSE_IDS_LENGTH // 33} RSEs at most.')
    return told


def delete_grants(
    scope: 'InternalScope',
    name: str,
    whom: Union[str, Grantee, None] = None,
    *,
    session: 'Session',
) -> bool:
    """Revoke the grant of a grantee, or all grants. One query.

    Those that are also set on a storage are kept: see :mod:`.publishing` and :mod:`.named_users`.

    :param whom: The grantee, or the name of an account; None: all.
    :returns: Whether there was one.
    """
    table = s3.Grant
    if not s3.is_ready(session=session):
        return False
    where = [
        table.scope == scope,
        table.name == name,
        table.grantee_type != GranteeType.WORLD,
        table.published_on.is_(None),
    ]
    if whom is not None:
        where.append(_grant_is(scope, name, *_grantee(whom)))
    return _delete(where, session)


# Public and expired grants


def end_public_grant(
    scope: 'InternalScope', name: str, of: Optional[datetime] = None, *, session: 'Session'
) -> Optional[list[str]]:
    """Expire the grant for everybody: from now on, the server does not apply it. Two queries.

    The row is kept until :func:`delete_ended_public_grant`.

    :param of: Only the grant for the DID that was created at this time.
    :returns: The ids of the RSEs on which it was published; empty: not known; None: there is no such grant.
    """
    table = s3.Grant
    if not s3.is_ready(session=session):
        return None
    where = [_grant_is(scope, name, GranteeType.WORLD, EVERYBODY)] + (
        [] if of is None else [table.did_created_at == of]
    )
    session.execute(
        update(table).where(*where, is_valid()).values(expired_at=now()).execution_options(synchronize_session=False)
    )
    row = session.execute(select(table.published_on).where(*where)).first()
    return None if row is None else row.published_on.split(',') if row.published_on else []


def list_public(*, session: 'Session') -> list[str]:
    """List the collections of all VOs that a storage lets everybody, or a user of its own, read. One query."""
    table = s3.Grant
    rows = session.execute(
        select(table.scope, table.name).where(or_(table.grantee_type == GranteeType.WORLD, _is_for_user()))
    )
    return sorted({f'{row.scope.internal}:{row.name}' for row in rows})


def list_published(scope: 'InternalScope', *, session: 'Session') -> dict[str, list[str]]:
    """Return the collections of a scope that everybody may read now. One query.

    Each has the ids of the RSEs on which it is published, if they are known.
    """
    table = s3.Grant
    stmt = (
        select(table.name, table.published_on)
        .join(models.DataIdentifier, same_did())
        .where(
            table.scope == scope,
            table.grantee_type == GranteeType.WORLD,
            is_valid(),
        )
    )
    return {row.name: row.published_on.split(',') if row.published_on else [] for row in session.execute(stmt)}


def list_ended(vo: str, *, session: 'Session') -> list[StoredGrant]:
    """List the grants of a VO that have expired, or whose collection was erased. One query over all grants."""
    if not s3.is_ready(session=session):
        return []
    table, did = s3.Grant, models.DataIdentifier
    rows = session.execute(
        _stored().outerjoin(did, same_did()).where(or_(did.name.is_(None), table.expired_at <= now()))
    )
    return [ended for row in rows if (ended := StoredGrant(*row)).scope.vo == vo]


def _stored() -> Any:
    table = s3.Grant
    return select(
        table.scope,
        table.name,
        table.grantee_type,
        table.grantee,
        table.did_created_at,
        table.expired_at,
        table.published_on,
    )


def delete_ended(ended: StoredGrant, *, session: 'Session') -> bool:
    """Delete an expired grant, unless it was renewed in the meantime. One query.

    :param ended: The grant, from :func:`list_ended`.
    :returns: Whether it was deleted.
    """
    table = s3.Grant
    end = table.expired_at.is_(None) if ended.expired_at is None else table.expired_at == ended.expired_at
    return _delete([_grant_is(*ended[:4]), table.did_created_at == ended.did_created_at, end], session)


def delete_ended_public_grant(scope: 'InternalScope', name: str, *, session: 'Session') -> bool:
    """Delete an expired grant for everybody, after it was revoked on all storages. One query.

    :returns: Whether it was deleted: False also if it was renewed in the meantime.
    """
    return _delete([_grant_is(scope, name, GranteeType.WORLD, EVERYBODY), s3.Grant.expired_at <= now()], session)


def list_users(scope: 'InternalScope', name: Optional[str] = None, *, session: 'Session') -> list[StoredGrant]:
    """List the valid grants for accounts that are also set on storages. One query.

    :param name: Only of this collection.
    """
    table = s3.Grant
    if not s3.is_ready(session=session):
        return []
    stmt = (
        _stored()
        .join(models.DataIdentifier, same_did())
        .where(table.scope == scope, _is_for_user(), is_valid(), *([] if name is None else [table.name == name]))
    )
    return [found for row in session.execute(stmt) if name in (None, (found := StoredGrant(*row)).name)]


def end_users(
    scope: 'InternalScope', name: str, account: Optional[str] = None, *, session: 'Session'
) -> Optional[list[str]]:
    """Expire the grants for accounts that are also set on storages. Two queries.

    The rows are kept until :func:`delete_ended_users`.

    :param account: Only of this account.
    :returns: The ids of the RSEs on which they are set; None: there is no such grant.
    """
    table = s3.Grant
    if not s3.is_ready(session=session):
        return None
    where = [table.scope == scope, table.name == name, _is_for_user()]
    where += [] if account is None else [table.grantee == account]
    session.execute(
        update(table).where(*where, is_valid()).values(expired_at=now()).execution_options(synchronize_session=False)
    )
    rows = session.execute(select(table.published_on).where(*where)).scalars().all()
    return sorted({rse_id for row in rows for rse_id in (row or '').split(',')}) if rows else None


def delete_ended_users(scope: 'InternalScope', name: str, *, session: 'Session') -> bool:
    """Delete expired grants for accounts, after they were revoked on all storages. One query.

    :returns: Whether there was one.
    """
    table = s3.Grant
    return _delete([table.scope == scope, table.name == name, _is_for_user(), table.expired_at <= now()], session)


def _is_for_user() -> Any:
    """Return the condition that a grant is also set on a storage, for the account's own user there."""
    return and_(s3.Grant.grantee_type == GranteeType.ACCOUNT, s3.Grant.published_on.is_not(None))


def _delete(where: 'list[Any]', session: 'Session') -> bool:
    found: Any = session.execute(delete(s3.Grant).where(*where).execution_options(synchronize_session=False))
    return bool(found.rowcount)


def now() -> datetime:
    """Return the time as Rucio's tables store it: UTC, without a time zone. Some databases store whole seconds only."""
    return datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0)


def _is_past(end: Optional[datetime]) -> bool:
    return end is not None and end <= now()


def is_valid() -> Any:
    """Return the condition that a grant has not expired."""
    return or_(s3.Grant.expired_at.is_(None), s3.Grant.expired_at > now())


def _grant_is(scope: 'InternalScope', name: str, kind: GranteeType, grantee: str) -> Any:
    table = s3.Grant
    return and_(table.scope == scope, table.name == name, table.grantee_type == kind, table.grantee == grantee)


def same_did() -> Any:
    """Return the join condition: the DID exists, and is the one that was shared."""
    table, did = s3.Grant, models.DataIdentifier
    return and_(did.scope == table.scope, did.name == table.name, did.created_at == table.did_created_at)


def described(row: s3.Grant, there: bool) -> Grant:
    """Describe a row of the table.

    :param row: The row.
    :param there: Whether the DID that was shared exists.
    """
    end = to_text(row.expired_at) if row.expired_at else None
    by = row.granted_by.external or ''
    return Grant(
        row.grantee_type.name.lower(),
        row.grantee,
        bool(row.can_write),
        by,
        to_text(row.updated_at),
        end,
        not there or _is_past(row.expired_at),
    )
