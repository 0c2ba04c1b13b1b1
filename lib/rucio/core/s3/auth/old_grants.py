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

"""Grants of earlier versions, which stored them in the metadata of collections, where they are no longer valid.

It is unknown who wrote them: in some scopes, any account can write metadata. So an operator reviews them, and migrates
the correct ones.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, select

from rucio.common.exception import UnsupportedOperation
from rucio.common.types import InternalAccount
from rucio.core.account import account_exists
from rucio.core.s3.metadata import as_column, as_dict, as_text
from rucio.core.scope import is_scope_owner
from rucio.db.sqla import models
from rucio.db.sqla.constants import DIDType

from . import access, grants

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from rucio.common.types import InternalScope

__all__ = ['OldGrant', 'drop', 'is_public', 'list_old', 'take_over']

KEY = 's3_grants'
OPEN_SCOPES = ('mock',)  # Rucio's generic permissions let every account create collections, with metadata, in them


class OldGrant(NamedTuple):
    """A grant in the metadata of a collection."""

    scope: 'InternalScope'
    name: str
    account: str
    write: bool
    by: str
    at: str
    doubt: str  # why it may be forged, or cannot be migrated; empty: no objection

    @property
    def did(self) -> str:
        """The collection; with its VO unless that is the default one."""
        return f'{self.scope.internal}:{self.name}'


def list_old(*, session: 'Session') -> list[OldGrant]:
    """List all grants in metadata: one query over all metadata, and a few for each grant."""
    table = models.DidMeta
    stmt = select(table.scope, table.name, table.meta)
    rows = session.execute(stmt.where(as_text(session).like(f'%"{KEY}"%'))).all()
    return sorted(
        (each for row in rows for each in _read(row.scope, row.name, as_dict(row.meta), session)),
        key=lambda each: (each.did, each.account),
    )


def is_public(scope: 'InternalScope', name: str, *, session: 'Session') -> bool:
    """Return whether the metadata of a collection have a grant for everybody that was not reviewed yet. One query."""
    table = models.DidMeta
    meta = session.execute(select(table.meta).where(and_(table.scope == scope, table.name == name))).scalar()
    written = as_dict(meta).get(KEY)
    return isinstance(written, dict) and grants.EVERYBODY in written


def take_over(old: OldGrant, *, session: 'Session') -> None:
    """Move a grant to the table, unless the table has a newer one. A few queries.

    Policies on storages are not changed.

    :param old: The grant, from :func:`list_old`.
    :raises RucioException: if the grant is not possible, for example because the account does not exist.
    """
    if not _is_known(old, session):
        vo = old.scope.vo
        grants.need_grantable(old.scope, old.name, old.account, old.write, session=session)
        by = old.by if account_exists(InternalAccount(old.by, vo=vo), session=session) else 'root'
        grants.add_grant(old.scope, old.name, old.account, old.write, by, session=session)
    _clear(old, session)


def drop(old: OldGrant, *, session: 'Session') -> None:
    """Remove a grant. If it was for everybody, rucio-s3-reconciler revokes it on the storages. A few queries.

    :param old: The grant, from :func:`list_old`.
    """
    if old.account == grants.EVERYBODY and not _is_known(old, session):
        with suppress(UnsupportedOperation):  # a file: it was never public
            take_over(old, session=session)
            grants.end_public_grant(old.scope, old.name, session=session)
    _clear(old, session)


def _is_known(old: OldGrant, session: 'Session') -> bool:
    return any(
        grant.account == old.account and not grant.ended
        for grant in grants.list_grants(old.scope, old.name, session=session)
    )


def _clear(old: OldGrant, session: 'Session') -> None:
    """Remove a grant from the metadata of its collection; other metadata are kept."""
    table = models.DidMeta
    row = session.execute(
        select(table).where(and_(table.scope == old.scope, table.name == old.name)).with_for_update()
    ).scalar_one_or_none()
    meta = as_dict(row.meta) if row else {}
    if row is None or not isinstance(meta.get(KEY), dict):
        return
    left = {account: grant for account, grant in meta[KEY].items() if account != old.account}
    meta = {key: value for key, value in meta.items() if key != KEY} | ({KEY: left} if left else {})
    row.meta = as_column(meta, session)
    row.save(session=session, flush=True)


def _read(scope: 'InternalScope', name: str, meta: dict[str, Any], session: 'Session') -> list[OldGrant]:
    """Parse metadata; anything but grants is ignored."""
    written = meta.get(KEY)
    found = []
    for account, grant in written.items() if isinstance(written, dict) else ():
        if account and isinstance(grant, dict) and isinstance(grant.get('write'), bool):
            by, write = str(grant.get('by', '')), grant['write'] and account != grants.EVERYBODY
            found.append(
                OldGrant(
                    scope, name, account, write, by, str(grant.get('at', '')), _doubt(scope, name, account, by, session)
                )
            )
    return found


def _doubt(scope: 'InternalScope', name: str, account: str, by: str, session: 'Session') -> str:
    if scope.external in OPEN_SCOPES:
        return f'every account may write metadata in the scope {scope}'
    giver, did = InternalAccount(by, vo=scope.vo), models.DataIdentifier
    if not is_scope_owner(scope=scope, account=giver, session=session) and not access.is_admin(giver, session=session):
        return f"'{by}' neither owns the scope nor is an admin"
    if account != grants.EVERYBODY and not account_exists(InternalAccount(account, vo=scope.vo), session=session):
        return f"there is no account '{account}'"
    kind = session.execute(select(did.did_type).where(and_(did.scope == scope, did.name == name))).scalar()
    return 'it is a file' if kind == DIDType.FILE else ''
