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

"""Who may do what with the objects of a scope. Asked for each call: nothing is remembered.

Root and admins may do everything, the owner of a scope everything in its bucket, others what a grant gives them. The
policy package has the last word: see :mod:`rucio.core.s3.policy_package`.
"""

from typing import TYPE_CHECKING, Any, Optional

from rucio.common.exception import AccessDenied, RucioException, ScopeNotFound
from rucio.common.s3 import address
from rucio.core.account import has_account_attribute
from rucio.core.s3 import policy_package
from rucio.core.scope import check_scope, is_scope_owner

from . import grants

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount, InternalScope

__all__ = ['Known', 'covering', 'denied', 'denied_did', 'is_admin', 'may', 'need']

Known = dict[tuple[Any, ...], bool]


def is_admin(issuer: 'InternalAccount', *, session: 'Session', known: 'Optional[Known]' = None) -> bool:
    """Whether an account is root or has the attribute ``admin``: one query at most."""
    return issuer.external == 'root' or _cached(
        known, ('admin', issuer), lambda: bool(has_account_attribute(account=issuer, key='admin', session=session))
    )


def _cached(known: 'Optional[Known]', what: tuple[Any, ...], ask: 'Callable[[], bool]') -> bool:
    if known is None:
        return ask()
    if what not in known:
        known[what] = ask()
    return known[what]


def may(
    issuer: 'InternalAccount',
    scope: 'InternalScope',
    name: str,
    write: bool,
    *,
    session: 'Session',
    known: 'Optional[Known]' = None,
) -> bool:
    """Whether an account may read or write a name of a scope, and all names that begin with it. Three small
    queries at most.

    :param issuer: The account.
    :param scope: The scope.
    :param name: A name, or a prefix of names; empty: all of the scope's bucket, and the bucket itself. To ask for all
        of a collection, ask for its name and a slash: ``run1`` is also the prefix of ``run12/file``.
    :param write: Whether it is to make or delete objects, or else to read and list them.
    :param known: An empty dict, the same for all questions of one call: who owns a scope and who is an admin is then
        asked once.
    """
    if issuer.vo != scope.vo:
        return False
    answer = policy_package.decide(issuer, scope, name, write, session=session)
    if answer is not None:
        return answer
    # Some storages take dots for directories, and would step out of what is granted, or out of the bucket.
    plain = not any(part in ('.', '..') for part in name.split('/'))
    if issuer.external == 'root' or (
        plain
        and _cached(
            known, ('owner', issuer, scope), lambda: bool(is_scope_owner(scope=scope, account=issuer, session=session))
        )
    ):
        return True
    return is_admin(issuer, session=session, known=known) or (
        plain and grants.is_granted(issuer, scope, name, write, session=session)
    )


def covering(
    issuer: 'InternalAccount', scope: 'InternalScope', name: str, write: bool, *, session: 'Session'
) -> Optional[str]:
    """The largest part of a scope's bucket around a name that an account may read or write. Queries as :func:`may` for
    each slash in the name.

    :param name: A name, or a prefix of names.
    :returns: A prefix of names: empty for all of the bucket, else with a slash at its end. None where there is no
        such part.
    """
    if not may(issuer, scope, name, write, session=session):
        return None
    prefixes = ['', *(f'{each}/' for each in address.ancestors(name))]
    return next((each for each in prefixes if may(issuer, scope, each, write, session=session)), None)


def need(account: 'InternalAccount', scope: 'InternalScope', name: str, write: bool, *, session: 'Session') -> None:
    """As :func:`may`.

    :raises AccessDenied: if it may not.
    :raises ScopeNotFound: if it may not, as there is no such scope.
    """
    if not may(account, scope, name, write, session=session):
        raise denied_did(account, scope, name, write, session=session)


def denied_did(
    account: 'InternalAccount', scope: 'InternalScope', name: str, write: bool, *, session: 'Session'
) -> RucioException:
    """What to raise for a name. Which scopes there are is no secret: Rucio lists them to every account."""
    if not check_scope(scope, session=session):
        return ScopeNotFound(f"There is no scope '{scope}': check its spelling (rucio scope list).")
    if name:
        return denied(account, f'{scope}:{name}', write)
    return AccessDenied(
        f'Account {account} may not {"write to" if write else "read"} all of the bucket of scope {scope}: only its '
        'owner and admins may. The owner can share collections of it (rucio s3 share SCOPE:NAME).'
    )


def denied(account: 'InternalAccount', what: str, write: bool) -> AccessDenied:
    """What to raise for something else: the same whether there is such a thing or not."""
    return AccessDenied(
        f'Account {account} may not {"write to" if write else "read"} {what}. The owner of the scope can share it '
        '(rucio s3 share).'
    )
