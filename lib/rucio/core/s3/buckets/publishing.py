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

"""Public collections, which everybody may read, even without an account.

They consist of the grant, and the bucket policy on each storage.

A storage is updated between two transactions, and may not answer. So the table of grants always includes what may be
public: the grant is added before the first storage is updated, and deleted only after it was revoked on the last one.

A policy is read, changed and set again, and storages offer no conditional update: of two concurrent changes, one is
lost. So the reconciler checks each bucket (:func:`repair_policy`).
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from rucio.common.exception import RucioException, ServiceUnavailable
from rucio.common.s3.answers import line_logger
from rucio.core.s3 import storages
from rucio.core.s3.auth import grants, old_grants, shared_keys
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.s3 import GranteeType, is_ready
from rucio.db.sqla.session import db_session

from . import bucket_policies, named_users

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalScope
    from rucio.core.s3.auth.grants import StoredGrant
    from rucio.core.s3.storages import Storage
    from rucio.core.s3.subtrees import Subtree

__all__ = ['SweepResult', 'delete_ended', 'publish', 'repair_policy', 'withdraw']

_LOGGER = line_logger(__name__)

# Until all storages are updated, a grant expires after this time, so that delete_ended() cleans up after a server that
# was killed meanwhile.
PUBLISH_TIMEOUT = timedelta(minutes=15)


class SweepResult(NamedTuple):
    """The result of deleting expired grants."""

    deleted: int
    kept: list[str]  # grants that could not be revoked on a storage: the collection, and why


def publish(
    places: 'Sequence[Storage]', scope: 'InternalScope', name: str, by: str, until: 'Optional[datetime]' = None
) -> bool:
    """Make a collection public. Two requests per storage.

    The caller has called :func:`.grants.need_grantable`.

    :param places: The storages to publish it on.
    :param by: The account that publishes it.
    :param until: When that ends, in UTC without a time zone. Then :func:`delete_ended` updates the storages.
    :returns: Whether it was not public before.
    :raises RucioException: if a storage refuses; it is then revoked on the others.
    """
    with db_session(DatabaseOperationType.READ) as session:
        known = any(
            grant.kind == 'world' and not grant.ended and grant.until is None
            for grant in grants.list_grants(scope, name, session=session)
        )
    told = [place.rse_id for place in places]
    first = until if known else min(until or grants.FOREVER, grants.now() + PUBLISH_TIMEOUT)
    with db_session(DatabaseOperationType.WRITE) as session:
        grants.add_grant(scope, name, grants.EVERYBODY, False, by, first, told, session=session)
    try:
        for place in places:
            bucket_policies.set_public(place, str(scope), name, True)
    except RucioException:
        if not known:
            withdraw(scope, name)
        raise
    with db_session(DatabaseOperationType.WRITE) as session:
        grants.add_grant(scope, name, grants.EVERYBODY, False, by, until, told, session=session)
    return not known


def withdraw(
    scope: 'InternalScope',
    name: str,
    places: 'Collection[Storage]' = (),
    of: 'Optional[datetime]' = None,
    dead: 'Collection[str]' = (),
) -> 'dict[Storage, RucioException]':
    """Stop publishing a collection.

    One request per storage on which it is published, one more if it is in the policy; none if it was not public.

    The grant expires immediately. Its row is kept until all storages are updated, so that :func:`delete_ended`
    tries again.

    :param places: Further storages to update.
    :param of: Only the grant for the DID that was created at this time.
    :param dead: The ids of RSEs that do not answer.
    :returns: The storages that could not be updated, on which it may still be public, and why.
    """
    with db_session(DatabaseOperationType.WRITE) as session:
        told = grants.end_public_grant(scope, name, of, session=session)
        every = [] if told is None else storages.list_storages(scope.vo, session=session)
    chosen = [storage for storage in every if (storage.rse_id in told if told else storage.ways)]
    failed: dict[Storage, RucioException] = {}
    for storage in {storage.rse_id: storage for storage in (*chosen, *places)}.values():
        if storage.rse_id in dead:
            failed[storage] = ServiceUnavailable(f'RSE {storage.rse} did not answer before.')
            continue
        try:
            bucket_policies.unpublish(storage, str(scope), name)
        except RucioException as error:
            failed[storage] = error
    if told is not None and not failed:
        with db_session(DatabaseOperationType.WRITE) as session:
            grants.delete_ended_public_grant(scope, name, session=session)
    return failed


def delete_ended(vo: str) -> SweepResult:
    """Delete the expired grants of a VO; those that are set on storages after they were revoked on each.

    One query if there are none.
    """
    with db_session(DatabaseOperationType.READ) as session:
        found = grants.list_ended(vo, session=session)
    told = [ended for ended in found if ended.kind is GranteeType.WORLD or ended.published_on]
    others = [ended for ended in found if ended not in told]
    with db_session(DatabaseOperationType.WRITE) as session:
        deleted = sum(grants.delete_ended(ended, session=session) for ended in others)
    dead: set[str] = set()
    kept = []
    for ended in told:
        still = f'{ended.scope}:{ended.name} may still be '
        still += 'public' if ended.kind is GranteeType.WORLD else f'shared with the own user of {ended.grantee}'
        try:
            failed = _end(ended, dead)
        except Exception as error:  # noqa: BLE001 - the other grants have to be processed
            kept.append(f'{still}: {type(error).__name__}: {error}')
            continue
        dead |= {storage.rse_id for storage in failed}
        deleted += not failed
        kept += [f'{still} on RSE {storage.rse}: {_text(error)}' for storage, error in failed.items()]
    return SweepResult(deleted, kept)


def _end(ended: 'StoredGrant', dead: set[str]) -> 'dict[Storage, RucioException]':
    if ended.kind is GranteeType.WORLD:
        return withdraw(ended.scope, ended.name, of=ended.did_created_at, dead=dead)
    failed = named_users.revoke(ended.scope, ended.name, (ended.published_on or '').split(','), dead)
    if not failed:
        with db_session(DatabaseOperationType.WRITE) as session:
            grants.delete_ended(ended, session=session)
    return failed


def repair_policy(subtree: 'Subtree') -> list[str]:
    """Make the policy of a scope's bucket let in exactly whom the table of grants says.

    One request, a few queries, and some more for each public collection; if they differ, one more request. Nothing if
    the table of grants does not exist.

    Grants of earlier versions are kept until the operator has reviewed them (:mod:`.old_grants`).

    :param subtree: Everything that a scope has in a bucket.
    :returns: What was corrected, for the log.
    :raises RucioException: if collections are public there, and the storage does not answer or refuses.
    """
    storage, bucket = subtree.storage, subtree.bucket
    with db_session(DatabaseOperationType.READ) as session:
        if not is_ready(session=session) or shared_keys.has_other_vos(storage, bucket, session=session):
            return []
    try:
        # Read before the grants, so that the table includes all changes made meanwhile.
        policy, refused = bucket_policies.get(storage, bucket), None
    except RucioException as error:  # many storages do not support policies
        policy, refused = None, error
    with db_session(DatabaseOperationType.READ) as session:
        granted = grants.list_published(subtree.scope, session=session)
        found = bucket_policies.public_prefixes(policy, bucket)
        told = [subtree.key_of(f'{name}/') for name, rse_ids in granted.items() if storage.rse_id in rse_ids]
        users, broken = _users_to_set(subtree, policy, session)
        closed = [prefix for prefix in told if prefix not in found.values()]
        opened = {sid: prefix for sid, prefix in found.items() if _has_no_grant(subtree, prefix, granted, session)}
    if refused is not None and (closed or users):
        raise refused
    if closed or opened or users or broken:
        bucket_policies.set_public_prefixes(storage, bucket, policy, closed, {*opened, *broken}, users)
    where = f"RSE {storage.rse}: by its policy, bucket '{bucket}'"
    return [
        *(f"{where} let everybody read '{each}', which is not shared: corrected." for each in opened.values()),
        *(
            f"{where} did not let everybody read '{each}', which is shared with everybody: corrected."
            for each in closed
        ),
        *(
            f"{where} did not let exactly those users read '{each}' with whom it is shared: corrected."
            for each in (*users, *broken.values())
        ),
    ]


def _users_to_set(
    subtree: 'Subtree', policy: Any, session: 'Session'
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Compare the statements for users of the storage with the grants.

    :returns: The prefixes of this scope that others may read than the grants say, and who may; and the statements that
        somebody has changed.
    """
    bucket = subtree.bucket
    granted = named_users.list_prefixes(subtree.storage, subtree.scope, session=session)
    wanted = {subtree.key_of(f'{name}/'): users for name, users in granted.items()}
    found = bucket_policies.user_prefixes(policy, bucket)
    foreign = {each for each in found.values() if each not in wanted and _is_only_of(subtree, each, session)}
    wanted |= dict.fromkeys(foreign - {''}, ())
    users = {
        prefix: named
        for prefix, named in wanted.items()
        if bucket_policies.with_users(policy, bucket, prefix, named) != policy
    }
    return users, {sid: prefix for sid, prefix in found.items() if not prefix and prefix in foreign}


def _has_no_grant(subtree: 'Subtree', prefix: str, granted: 'Collection[str]', session: 'Session') -> bool:
    """Return whether keys of this scope are public without a grant."""
    name = subtree.name_of(prefix).removesuffix('/')
    return (
        _is_only_of(subtree, prefix, session)
        and name not in granted
        and not old_grants.is_public(subtree.scope, name, session=session)
    )


def _is_only_of(subtree: 'Subtree', prefix: str, session: 'Session') -> bool:
    return prefix.startswith(subtree.key_prefix) and not shared_keys.has_other_scopes(
        subtree.storage, subtree.scope, subtree.bucket, prefix, session=session
    )


def _text(error: RucioException) -> str:
    return str(error.args[0] if error.args else error)
