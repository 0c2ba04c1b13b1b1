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

"""Users of a storage, where accounts have one: what is shared with an account, its user may read with keys of its own.

The RSE's setting ``user_arn`` says how these users are called, and an attribute of each account, which admins set,
which one is its own. The table of grants says what is shared, and on which storages this was set; the policies of
buckets are made to say the same: after each change, when a grant has ended, and once in each round of the reconciler,
which also notices that an attribute or the site's policy has changed.

Only for reading: see :func:`.bucket_policies.with_users`.
"""

import re
from typing import TYPE_CHECKING, NamedTuple, Optional

from sqlalchemy import select

from rucio.common.exception import InvalidObject, RucioException, ServiceUnavailable
from rucio.common.types import InternalAccount
from rucio.core.s3 import storages
from rucio.core.s3.auth import access, grants
from rucio.db.sqla import models
from rucio.db.sqla.constants import AccountStatus, DatabaseOperationType
from rucio.db.sqla.s3 import GranteeType
from rucio.db.sqla.session import db_session

from . import bucket_policies, lookup

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalScope
    from rucio.core.s3.auth.grantees import Grantee
    from rucio.core.s3.storages import Storage

__all__ = ['OwnKeys', 'apply', 'list_prefixes', 'plan', 'revoke', 'user_of', 'withdraw']

# What IAM allows in the name of a user. No slash: it would be a path, as in the ARN of another user.
_NAME = re.compile(r'[A-Za-z0-9_+=,.@-]{1,64}')


class OwnKeys(NamedTuple):
    """Whether an account can read a collection on a storage with keys of its own."""

    storage: 'Storage'
    user: Optional[str]  # the ARN; None: it cannot
    why: Optional[str]  # if it cannot


def user_of(storage: 'Storage', account: InternalAccount, *, session: 'Session') -> Optional[str]:
    """Return the ARN of an account's own user at a storage, or None. Two queries; none without ``user_arn``.

    :param storage: The storage.
    :param account: The account. It has none if it is suspended, or its attribute is not the name of a user.
    """
    template = storage.endpoint.user_arn
    if not template:
        return None
    start, _, key = template.removesuffix('}').rpartition('{')
    attribute, table = models.AccountAttrAssociation, models.Account
    stmt = (
        select(attribute.account, attribute.key, attribute.value)
        .join(table, table.account == attribute.account)
        .where(attribute.account == account, attribute.key == key, table.status == AccountStatus.ACTIVE)
    )
    # Some databases take A and a for the same.
    for row in session.execute(stmt):
        if (row.account, row.key) == (account, key) and isinstance(row.value, str) and _NAME.fullmatch(row.value):
            return start + row.value
    return None


def plan(owner: InternalAccount, scope: 'InternalScope', name: str, grantee: 'Grantee') -> list[OwnKeys]:
    """Find out on which storages the own user of an account can be let in. Nothing is written.

    A few queries and one request for each storage that has ``user_arn`` and the collection.

    :param owner: The account that shares it.
    :param grantee: With whom. Only accounts have users: who has an attribute may change at any time.
    :returns: All of these storages; none if no RSE has ``user_arn``.
    :raises InvalidObject: if a policy would become too large.
    """
    with db_session(DatabaseOperationType.READ) as session:
        if not any(each.endpoint.user_arn for each in storages.list_storages(scope.vo, session=session)):
            return []
        try:
            places = lookup.storages_to_publish(owner, scope, name, session=session)
        except RucioException:  # it is nowhere yet
            return []
    return [_planned(each, owner, scope, name, grantee) for each in places if each.endpoint.user_arn and each.ways]


def _planned(
    storage: 'Storage', owner: InternalAccount, scope: 'InternalScope', name: str, grantee: 'Grantee'
) -> OwnKeys:
    if grantee.kind is not GranteeType.ACCOUNT:
        return OwnKeys(storage, None, 'only single accounts are users of the storage.')
    account = InternalAccount(grantee.name, vo=scope.vo)
    with db_session(DatabaseOperationType.READ) as session:
        user = user_of(storage, account, session=session)
        users = {*_users(storage, scope, name, session).get(name, ())}
    if user is None:
        key = str(storage.endpoint.user_arn).rpartition('{')[2].removesuffix('}')
        return OwnKeys(
            storage, None, f"{account} has no attribute '{key}' with the name of a user, which an admin sets."
        )
    try:
        lookup.need_exclusive(storage, owner, str(scope), name)
        bucket, prefix = storage.layout.place_of(str(scope), f'{name}/')
        policy = bucket_policies.get(storage, bucket)
        bucket_policies.with_users(policy, bucket, prefix, {*users, user})
    except InvalidObject:
        raise
    except RucioException as error:  # many storages do not support policies
        return OwnKeys(storage, None, _text(error))
    return OwnKeys(storage, user, None)


def apply(scope: 'InternalScope', name: str, planned: list[OwnKeys]) -> list[OwnKeys]:
    """Set what the table of grants says on the storages that were planned. Two requests each.

    :param planned: The answer of :func:`plan`. The grant was added since.
    :returns: The same, with what failed.
    """
    return [_applied(scope, name, each) if each.user else each for each in planned]


def _applied(scope: 'InternalScope', name: str, planned: OwnKeys) -> OwnKeys:
    try:
        if planned.user in _set(planned.storage, scope, name):
            return planned
    except RucioException as error:
        return planned._replace(user=None, why=f'{_text(error)} rucio-s3-reconciler tries again.')
    return planned._replace(user=None, why='the policy of this Rucio server does not let the account read it.')


def withdraw(
    scope: 'InternalScope', name: str, account: Optional[str] = None
) -> 'tuple[bool, dict[Storage, RucioException]]':
    """Stop sharing a collection with accounts whose own users were let in. Two requests per storage; none if none were.

    The grants expire immediately. Their rows are kept until all storages are updated, for the next attempt.

    :param account: Only with this account.
    :returns: Whether there was such a grant; and the storages that could not be updated, and why.
    """
    with db_session(DatabaseOperationType.WRITE) as session:
        told = grants.end_users(scope, name, account, session=session)
    if told is None:
        return False, {}
    failed = revoke(scope, name, told)
    if not failed:
        with db_session(DatabaseOperationType.WRITE) as session:
            grants.delete_ended_users(scope, name, session=session)
    return True, failed


def revoke(
    scope: 'InternalScope', name: str, rse_ids: 'Collection[str]', dead: 'Collection[str]' = ()
) -> 'dict[Storage, RucioException]':
    """Take out of the policies on some RSEs who may no longer read a collection. Two requests each.

    :param rse_ids: The ids of the RSEs.
    :param dead: The ids of those that do not answer.
    :returns: The storages that could not be updated, and why.
    """
    with db_session(DatabaseOperationType.READ) as session:
        places = [each for each in storages.list_storages(scope.vo, session=session) if each.rse_id in rse_ids]
    failed: dict[Storage, RucioException] = {}
    for storage in places:
        if storage.rse_id in dead:
            failed[storage] = ServiceUnavailable(f'RSE {storage.rse} did not answer before.')
            continue
        try:
            with bucket_policies.nothing_to_revoke():
                _set(storage, scope, name)
        except RucioException as error:
            failed[storage] = error
    return failed


def _set(storage: 'Storage', scope: 'InternalScope', name: str) -> tuple[str, ...]:
    bucket, prefix = storage.layout.place_of(str(scope), f'{name}/')
    # Read before the grants, so that the table includes all changes made meanwhile.
    policy = bucket_policies.get(storage, bucket)
    with db_session(DatabaseOperationType.READ) as session:
        users = _users(storage, scope, name, session).get(name, ())
    bucket_policies.set_users(storage, bucket, policy, prefix, users)
    return users


def list_prefixes(storage: 'Storage', scope: 'InternalScope', *, session: 'Session') -> dict[str, tuple[str, ...]]:
    """Return the collections of a scope that users of a storage may read, and the ARNs of these. A few queries each."""
    return _users(storage, scope, None, session)


def _users(
    storage: 'Storage', scope: 'InternalScope', name: Optional[str], session: 'Session'
) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for each in grants.list_users(scope, name, session=session):
        if storage.rse_id in (each.published_on or '').split(','):
            account = InternalAccount(each.grantee, vo=scope.vo)
            user = user_of(storage, account, session=session)
            # The policy package of the site may refuse what the owner grants.
            if user and access.may(account, scope, f'{each.name}/', False, session=session):
                found.setdefault(each.name, set()).add(user)
    return {each: tuple(sorted(users)) for each, users in found.items()}


def _text(error: RucioException) -> str:
    return str(error.args[0] if error.args else error)
