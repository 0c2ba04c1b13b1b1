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

"""Shares: what an account may use because it is its own or others share it, and what its owner shares with others."""

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from sqlalchemy import select

from rucio.core.s3 import policy_package
from rucio.core.scope import get_scopes
from rucio.db.sqla import models, s3

from . import grants
from .grantees import AskingAccount, in_vo

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount, InternalScope

    from .grants import Grant

__all__ = ['MAX_SHARES', 'Share', 'list_shared', 'list_usable']

MAX_SHARES = 1000  # in an answer


class Share(NamedTuple):
    """A collection, or (without a name) a scope, and the grant for it. None: the scope is the account's own."""

    scope: 'InternalScope'
    name: str
    grant: 'Optional[Grant]'


def list_usable(account: 'InternalAccount', *, session: 'Session') -> tuple[list[Share], bool]:
    """List what an account may use: its own scopes, and the collections that others share with it. A few queries.

    A collection that is shared in several ways is listed several times. Access that only admins or the policy package
    give is not listed.

    :param account: The account.
    :returns: The account's own scopes, then what is shared with the account, with all accounts, with an attribute, and
        with the world; and whether there is more than :data:`MAX_SHARES`.
    """
    scopes = sorted(get_scopes(account, session=session), key=str)
    found = [Share(scope, '', None) for scope in scopes]
    if s3.is_ready(session=session):
        found += _shared_with(account, set(scopes), session)
    allowed = [
        each
        for each in found[:MAX_SHARES]
        if policy_package.decide(account, each.scope, f'{each.name}/' if each.name else '', False, session=session)
        is not False
    ]
    return allowed, len(found) > MAX_SHARES


def _shared_with(account: 'InternalAccount', own: 'set[InternalScope]', session: 'Session') -> 'Iterable[Share]':
    table, did, asking = s3.Grant, models.DataIdentifier, AskingAccount(account, session)
    stmt = (
        select(table, did.name)
        .join(did, grants.same_did())
        .where(asking.may_be_meant(narrow=True), grants.is_valid(), in_vo(table.scope, account.vo))
        .where(table.scope.not_in(own))
        .order_by(table.grantee_type, table.scope, table.name)
        .limit(MAX_SHARES + 1)
    )
    for row, _ in session.execute(stmt):
        if row.scope.vo == account.vo and asking.is_meant(row.grantee_type, row.grantee, False):
            yield Share(row.scope, row.name, grants.described(row, True))


def list_shared(account: 'InternalAccount', *, session: 'Session') -> tuple[list[Share], bool]:
    """List the grants of the scopes that an account owns, also those that ended. A few queries.

    :param account: The owner of the scopes.
    :returns: The grants by collection, and whether there are more than :data:`MAX_SHARES`.
    """
    scopes = get_scopes(account, session=session)
    if not s3.is_ready(session=session):
        return [], False
    table, did = s3.Grant, models.DataIdentifier
    stmt = (
        select(table, did.name)
        .outerjoin(did, grants.same_did())
        .where(table.scope.in_(scopes))
        .order_by(table.scope, table.name, table.grantee_type, table.grantee)
        .limit(MAX_SHARES + 1)
    )
    rows: list[Any] = list(session.execute(stmt))
    found = [Share(row.scope, row.name, grants.described(row, there is not None)) for row, there in rows]
    return list(islice(found, MAX_SHARES)), len(found) > MAX_SHARES
