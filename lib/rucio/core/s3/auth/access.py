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

"""Permissions on the objects of a scope. They are checked for each call.

Only who owned a scope is remembered, for :data:`OWNER_SECONDS`, and only for signatures and keys, which are valid for
longer anyway. Grants, admins and refusals are never cached.

Root and admins may do everything, the owner of a scope everything in its bucket, others what a grant allows. The policy
package can override this: see :mod:`rucio.core.s3.policy_package`.
"""

from typing import TYPE_CHECKING, Any, Optional

from rucio.common.exception import AccessDenied, RucioException, ScopeNotFound
from rucio.common.s3 import address
from rucio.core.account import has_account_attribute
from rucio.core.s3 import policy_package, recent
from rucio.core.scope import check_scope, is_scope_owner

from . import grants

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount, InternalScope

__all__ = ['OWNER_SECONDS', 'Known', 'covering', 'denied', 'denied_did', 'is_admin', 'may', 'need', 'until']

OWNER_SECONDS = 5  # for which signatures and keys are given to an account that has lost a scope

Known = dict[tuple[Any, ...], bool]

_owners = recent.Recent(OWNER_SECONDS)


def is_admin(issuer: 'InternalAccount', *, session: 'Session', known: 'Optional[Known]' = None) -> bool:
    """Return whether an account is root or has the attribute ``admin``. At most one query.

    :param known: A cache of the results of one call, see :func:`until`.
    """
    return issuer.external == 'root' or _cached(
        known, ('admin', issuer), lambda: bool(has_account_attribute(account=issuer, key='admin', session=session))
    )


def _cached(known: 'Optional[Known]', what: tuple[Any, ...], ask: 'Callable[[], bool]') -> bool:
    if known is None:
        return ask()
    if what not in known:
        known[what] = ask()
    return known[what]


def _is_owner(issuer: 'InternalAccount', scope: 'InternalScope', session: 'Session', known: 'Optional[Known]') -> bool:
    if known is None:
        return bool(is_scope_owner(scope=scope, account=issuer, session=session))
    if (issuer, scope) not in known:
        asked, found = recent.monotonic(), _owners.has((issuer, scope))
        if not found and (found := bool(is_scope_owner(scope=scope, account=issuer, session=session))):
            _owners.add((issuer, scope), asked)
        known[issuer, scope] = found
    return known[issuer, scope]


def may(
    issuer: 'InternalAccount',
    scope: 'InternalScope',
    name: str,
    write: bool,
    *,
    session: 'Session',
    known: 'Optional[Known]' = None,
) -> bool:
    """Return whether an account may read or write a name of a scope, and all names that begin with it.

    Parameters and cost are those of :func:`until`.

    :param known: A cache of the results of one call, see :func:`until`.
    """
    return until(issuer, scope, name, write, session=session, known=known) is not None


def until(
    issuer: 'InternalAccount',
    scope: 'InternalScope',
    name: str,
    write: bool,
    *,
    session: 'Session',
    known: 'Optional[Known]' = None,
) -> 'Optional[datetime]':
    """Return until when an account may read or write a name of a scope, and all names that begin with it.

    At most four small queries.

    :param issuer: The account.
    :param scope: The scope.
    :param name: A name or a prefix of names; empty: the whole bucket of the scope, and the bucket itself. For
        everything in a collection, pass its name and a slash: ``run1`` is also a prefix of ``run12/file``.
    :param write: True: create and delete objects; False: read and list them.
    :param known: A dict, empty at first, that is shared by all checks of one call to cache scope owners and admins.
        With it, who owned the scope within the last :data:`OWNER_SECONDS` counts as its owner.
    :returns: The end of a grant, in UTC without a time zone; :data:`.grants.FOREVER`; None: it may not.
    """
    if issuer.vo != scope.vo:
        return None
    answer = policy_package.decide(issuer, scope, name, write, session=session)
    if answer is not None:
        return grants.FOREVER if answer else None
    # Some storages interpret dots as directories, which would lead out of the granted prefix, or out of the bucket.
    plain = not any(part in ('.', '..') for part in name.split('/'))
    if issuer.external == 'root' or (plain and _is_owner(issuer, scope, session, known)):
        return grants.FOREVER
    if is_admin(issuer, session=session, known=known):
        return grants.FOREVER
    return grants.granted_until(issuer, scope, name, write, session=session) if plain else None


def covering(
    issuer: 'InternalAccount',
    scope: 'InternalScope',
    name: str,
    write: bool,
    *,
    session: 'Session',
    known: 'Optional[Known]' = None,
) -> Optional[str]:
    """Return the shortest prefix of a name that an account may read or write.

    The cost of :func:`may` for each slash in the name.

    :param name: A name or a prefix of names.
    :param known: A cache of the results of one call, see :func:`until`.
    :returns: A prefix of names: empty for the whole bucket, else ending with a slash. None: the account may not access
        the name.
    """
    if not may(issuer, scope, name, write, session=session, known=known):
        return None
    prefixes = ['', *(f'{each}/' for each in address.ancestors(name))]
    return next((each for each in prefixes if may(issuer, scope, each, write, session=session, known=known)), None)


def need(account: 'InternalAccount', scope: 'InternalScope', name: str, write: bool, *, session: 'Session') -> None:
    """Check what :func:`may` returns.

    :raises AccessDenied: if the account does not have the permission.
    :raises ScopeNotFound: if the scope does not exist.
    """
    if not may(account, scope, name, write, session=session):
        raise denied_did(account, scope, name, write, session=session)


def denied_did(
    account: 'InternalAccount', scope: 'InternalScope', name: str, write: bool, *, session: 'Session'
) -> RucioException:
    """Return the exception for a name. Scopes are not secret: Rucio lists them to every account."""
    if not check_scope(scope, session=session):
        return ScopeNotFound(f"There is no scope '{scope}': check its spelling (rucio scope list).")
    if name:
        return denied(account, f'{scope}:{name}', write)
    return AccessDenied(
        f'Account {account} may not {"write to" if write else "read"} the whole bucket of scope {scope}: only its '
        'owner and admins may. The owner can share collections in it (rucio s3 share SCOPE:NAME).'
    )


def denied(account: 'InternalAccount', what: str, write: bool) -> AccessDenied:
    """Return the exception for anything else: it does not reveal whether that exists.

    :param what: What access is denied to, for the message.
    """
    return AccessDenied(
        f'Account {account} may not {"write to" if write else "read"} {what}. The owner of the scope can share it '
        '(rucio s3 share).'
    )
