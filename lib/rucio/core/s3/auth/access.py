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

Root and admins may everything, the owner of a scope all of its bucket, others what a grant gives them. A policy package
has the last word: its permission module may define ``perm_s3_access(issuer, kwargs, *, session)``, with ``scope``,
``name`` and ``write`` in ``kwargs``, whose answer other than None is final.
"""

from typing import TYPE_CHECKING, Any, Optional

from rucio.core import permission
from rucio.core.account import has_account_attribute
from rucio.core.scope import is_scope_owner

from . import grants

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount, InternalScope

__all__ = ['Known', 'covering', 'guards_replicas', 'is_admin', 'may']

Known = dict[tuple[Any, ...], bool]


def is_admin(issuer: 'InternalAccount', *, session: 'Session', known: 'Optional[Known]' = None) -> bool:
    """Whether an account is root or has the attribute ``admin``: one query at most."""
    return issuer.external == 'root' or _once(
        known, ('admin', issuer), lambda: bool(has_account_attribute(account=issuer, key='admin', session=session))
    )


def _once(known: 'Optional[Known]', what: tuple[Any, ...], ask: 'Callable[[], bool]') -> bool:
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
    """Whether an account may read or write a name of a scope, and all names that begin with it. Three small queries at
    most.

    :param issuer: The account.
    :param scope: The scope.
    :param name: A name, or a prefix of names; empty: all of the scope's bucket, and the bucket itself. To ask for all
        of a
                 collection, ask for its name and a slash: ``run1`` is also the prefix of ``run12/file``.
    :param write: Whether it is to make or delete objects, or else to read and list them.
    :param known: An empty dict, the same for all questions of one call: who owns a scope and who is an admin is then
        asked once.
    """
    if issuer.vo != scope.vo:
        return False
    answer = _policy(issuer, scope, name, write, session)
    if answer is not None:
        return answer
    # Some storages take dots for directories, and would step out of what is granted, or out of the bucket.
    plain = not any(part in ('.', '..') for part in name.split('/'))
    if issuer.external == 'root' or (
        plain
        and _once(
            known, ('owner', issuer, scope), lambda: bool(is_scope_owner(scope=scope, account=issuer, session=session))
        )
    ):
        return True
    return is_admin(issuer, session=session, known=known) or (
        plain and grants.allow(issuer, scope, name, write, session=session)
    )


def covering(
    issuer: 'InternalAccount', scope: 'InternalScope', name: str, write: bool, *, session: 'Session'
) -> Optional[str]:
    """The largest part of a scope's bucket around a name that an account may read or write. Queries as :func:`may` for
    each slash in the name.

    :param name: A name, or a prefix of names.
    :returns: A prefix of names: empty for all of the bucket, else with a slash at its end. None where there is no such
        part.
    """
    if not may(issuer, scope, name, write, session=session):
        return None
    prefixes = ['', *(f'{each}/' for each in grants.ancestors(name))]
    return next((each for each in prefixes if may(issuer, scope, each, write, session=session)), None)


def _policy(
    issuer: 'InternalAccount', scope: 'InternalScope', name: str, write: bool, session: 'Session'
) -> Optional[bool]:
    """What the policy package says, or None."""
    decide = getattr(_permissions(issuer.vo), 'perm_s3_access', None)
    answer = (
        decide(issuer=issuer, kwargs={'scope': scope, 'name': name, 'write': write}, session=session)
        if decide
        else None
    )
    return None if answer is None else bool(answer)


def guards_replicas(vo: str) -> bool:
    """Whether none but admins can say where a replica lies on a non-deterministic RSE, so that a path tells whose an
    object is.

    With Rucio's generic permissions the owner of any scope can, by attaching files to a dataset and naming an RSE. A
    policy package that refuses this, as ``rucio_s3_policy`` does, has ``GUARDS_REPLICAS = True`` in its permission
    module.
    """
    return getattr(_permissions(vo), 'GUARDS_REPLICAS', False) is True


def _permissions(vo: str) -> 'ModuleType':
    if vo not in permission.permission_modules:
        permission.load_permission_for_vo(vo)
    return permission.permission_modules[vo]
