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

"""Grants: what the owner of a scope lets others do below a collection.

They stand in the collection's own metadata, under the key ``s3_grants``, in Rucio's stock table and in the format of its own
plugin for JSON metadata: only the scope's owner and admins can write there, and they go when the collection goes. That plugin
refuses SQLite, so the table is used directly.
"""

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, select

from rucio.common.exception import AccountNotFound, DataIdentifierNotFound, InvalidObject, UnsupportedOperation
from rucio.core.account import account_exists
from rucio.db.sqla import models
from rucio.db.sqla.constants import DIDType

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount, InternalScope

__all__ = ['EVERYBODY', 'KEY', 'Grant', 'add_grant', 'allow', 'ancestors', 'check', 'delete_all_grants', 'delete_grant', 'list_grants']

KEY = 's3_grants'
EVERYBODY = '*'
MAX_GRANTS = 200  # of one collection


class Grant(NamedTuple):
    """What an account may do below a collection. ``account`` is an account's name, or ``*``: everybody who has one, reading."""

    account: str
    write: bool
    by: str
    at: str  # ISO 8601, UTC

    def allows(self, account: str, write: bool) -> bool:
        """Whether this grant lets an account read, or write."""
        return self.account in (account, EVERYBODY) and (self.write or not write)


def ancestors(name: str) -> list[str]:
    """The collections that a name lies below, by its slashes, the largest first: ``a/b/c`` -> ``a``, ``a/b``."""
    parts = name.split('/')
    return [ancestor for count in range(1, len(parts)) if (ancestor := '/'.join(parts[:count]))]


def allow(issuer: 'InternalAccount', scope: 'InternalScope', name: str, write: bool, *, session: 'Session') -> bool:
    """Whether a grant of a collection that a name lies below lets an account read or write. One query, none where the name has no slash."""
    found = _read(scope, ancestors(name), session) if '/' in name else {}
    return any(grant.allows(issuer.external or '', write) for grants in found.values() for grant in grants)


def list_grants(scope: 'InternalScope', name: str, *, session: 'Session') -> list[Grant]:
    """The grants of one collection, by account: one query."""
    return _read(scope, [name], session).get(name, [])


def check(scope: 'InternalScope', name: str, account: 'InternalAccount', write: bool, *, session: 'Session') -> None:
    """Whether there can be such a grant. Three queries.

    :param account: An account, or :data:`EVERYBODY`.
    :raises AccountNotFound: if there is no such account.
    :raises DataIdentifierNotFound: if there is no such DID.
    :raises UnsupportedOperation: if it is a file.
    :raises InvalidObject: if everybody shall write, or the collection has too many grants.
    """
    if account.external == EVERYBODY:
        if write:
            raise InvalidObject('Everybody may be granted to read, not to write: name the accounts that shall write.')
    elif not account_exists(account, session=session):
        raise AccountNotFound(f"There is no account '{account}'.")
    did = models.DataIdentifier
    kind = session.execute(select(did.did_type).where(and_(did.scope == scope, did.name == name))).scalar()
    if kind is None:
        raise DataIdentifierNotFound(f'There is no collection {scope}:{name} that could be shared: make it first (rucio s3 make-bucket {scope}:{name}).')
    if kind == DIDType.FILE:
        raise UnsupportedOperation(f'{scope}:{name} is a file, and grants are of collections: share the collection above it.')
    _need_room(scope, name, account.external or '', list_grants(scope, name, session=session))


def _need_room(scope: 'InternalScope', name: str, account: str, grants: 'Collection[Grant]') -> None:
    if len(grants) >= MAX_GRANTS and account not in [grant.account for grant in grants]:
        raise InvalidObject(f'{scope}:{name} has {MAX_GRANTS} grants already: take some back, or share it with everybody.')


def add_grant(scope: 'InternalScope', name: str, account: str, write: bool, by: str, *, session: 'Session') -> bool:
    """Grant an account access below a collection, or change what it was granted. What :func:`check` asks has been asked.

    :param account: An account, or :data:`EVERYBODY`.
    :returns: Whether anything changed.
    :raises InvalidObject: if the collection has too many grants.
    """
    row = _locked(scope, name, session)
    grants = {grant.account: grant for grant in _grants(_as_dict(row.meta))}
    if account in grants and grants[account].write == write:
        return False
    _need_room(scope, name, account, grants.values())
    grants[account] = Grant(account, write, by, datetime.now(timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ'))
    _write(row, grants.values(), session)
    return True


def delete_grant(scope: 'InternalScope', name: str, account: str, *, session: 'Session') -> bool:
    """Take an account's grant back.

    :returns: Whether there was one.
    """
    if not any(grant.account == account for grant in list_grants(scope, name, session=session)):
        return False
    row = _locked(scope, name, session)
    _write(row, [grant for grant in _grants(_as_dict(row.meta)) if grant.account != account], session)
    return True


def delete_all_grants(scope: 'InternalScope', name: str, *, session: 'Session') -> None:
    """Take all grants of a collection back, which is to go."""
    if list_grants(scope, name, session=session):
        _write(_locked(scope, name, session), [], session)


def _read(scope: 'InternalScope', names: 'Iterable[str]', session: 'Session') -> dict[str, list[Grant]]:
    table = models.DidMeta
    stmt = select(table.name, table.meta).where(and_(table.scope == scope, table.name.in_(list(names))))
    return {row.name: _grants(_as_dict(row.meta)) for row in session.execute(stmt)}


def _as_dict(meta: Any) -> dict[str, Any]:
    """Oracle and SQLite keep JSON as text."""
    try:
        found = json.loads(meta) if isinstance(meta, str) else meta
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _grants(meta: dict[str, Any]) -> list[Grant]:
    """What is not a grant (the owner may write any metadata) gives nothing."""
    written = meta.get(KEY)
    if not isinstance(written, dict):
        return []
    return sorted(
        Grant(account, grant['write'] and account != EVERYBODY, str(grant.get('by', '')), str(grant.get('at', '')))
        for account, grant in written.items()
        if account and isinstance(grant, dict) and isinstance(grant.get('write'), bool)
    )


def _locked(scope: 'InternalScope', name: str, session: 'Session') -> Any:
    """The row of a DID, locked against others who write grants in the same moment."""
    table = models.DidMeta
    row = session.execute(select(table).where(and_(table.scope == scope, table.name == name)).with_for_update()).scalar_one_or_none()
    if row is None:
        row = table(scope=scope, name=name)
        row.save(session=session, flush=False)
    return row


def _write(row: Any, grants: 'Iterable[Grant]', session: 'Session') -> None:
    meta = {key: value for key, value in _as_dict(row.meta).items() if key != KEY}
    if written := {grant.account: {'write': grant.write, 'by': grant.by, 'at': grant.at} for grant in grants}:
        meta[KEY] = written
    row.meta = json.dumps(meta) if session.get_bind().dialect.name in ('oracle', 'sqlite') else meta
    row.save(session=session, flush=True)
