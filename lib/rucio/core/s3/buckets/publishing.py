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

"""Collections that everybody may read, also without an account: the grant, and the policy of the bucket on
each storage.

A storage is told between two transactions, and may not answer. So the table of grants says at each moment what may be
public: the grant is there before the first storage is told to let everybody in, and gone only when the last one was
told not to.

A policy is read, changed and set again, and storages have no way to set it only if it is still the one that was read:
of two changes in the same moment one gets lost. So the reconciler has each bucket looked at (:func:`repair_policy`).
"""

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, Optional

from rucio.common.exception import RucioException, ServiceUnavailable
from rucio.common.s3.answers import line_logger
from rucio.core.s3 import storages
from rucio.core.s3.auth import grants, old_grants, shared_keys
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.s3 import GranteeType, is_ready
from rucio.db.sqla.session import db_session

from . import bucket_policies

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalScope
    from rucio.core.s3.storages import Storage
    from rucio.core.s3.subtrees import Subtree

__all__ = ['SweepResult', 'delete_ended', 'publish', 'repair_policy', 'withdraw']

_LOGGER = line_logger(__name__)

# A grant lasts that long until all storages are told: what a server leaves behind that was killed meanwhile is taken
# back by sweep().
PUBLISH_TIMEOUT = timedelta(minutes=15)


class SweepResult(NamedTuple):
    """What came of grants that have ended."""

    deleted: int
    kept: list[str]  # for each public one of which a storage could not be told: the collection, and why


def publish(places: 'Sequence[Storage]', scope: 'InternalScope', name: str, by: str) -> bool:
    """Let everybody read a collection. Two requests for each storage; what :func:`.grants.need_grantable` asks
    has been asked.

    :param places: The storages that have to be told.
    :returns: Whether it was not public before.
    :raises RucioException: if a storage does not take it; it is taken back on the others.
    """
    with db_session(DatabaseOperationType.READ) as session:
        known = any(
            grant.kind == 'world' and not grant.ended and grant.until is None
            for grant in grants.list_grants(scope, name, session=session)
        )
    told = [place.rse_id for place in places]
    with db_session(DatabaseOperationType.WRITE) as session:
        grants.add_grant(
            scope, name, grants.EVERYBODY, False, by, None if known else PUBLISH_TIMEOUT, told, session=session
        )
    try:
        for place in places:
            bucket_policies.set_public(place, str(scope), name, True)
    except RucioException:
        if not known:
            withdraw(scope, name)
        raise
    with db_session(DatabaseOperationType.WRITE) as session:
        grants.add_grant(scope, name, grants.EVERYBODY, False, by, None, told, session=session)
    return not known


def withdraw(
    scope: 'InternalScope',
    name: str,
    places: 'Collection[Storage]' = (),
    of: 'Optional[datetime]' = None,
    dead: 'Collection[str]' = (),
) -> 'dict[Storage, RucioException]':
    """Let everybody read a collection no longer.

    One request for each storage that was told to, one more where its policy says so; none where it was not public.

    The grant ends at once. Its row stays until every storage was told, so that :func:`delete_ended` tries again.

    :param places: More storages to tell.
    :param of: Only the grant of the DID that was created then.
    :param dead: The ids of RSEs that do not answer.
    :returns: The storages that could not be told, on which it may still be public, and why.
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
    """Delete the grants of a VO that have ended; of those that let everybody read, after each storage was told.

    One query where there are none.
    """
    with db_session(DatabaseOperationType.READ) as session:
        found = grants.list_ended(vo, session=session)
    others = [ended for ended in found if ended.kind is not GranteeType.WORLD]
    with db_session(DatabaseOperationType.WRITE) as session:
        deleted = sum(grants.delete_ended(ended, session=session) for ended in others)
    dead: set[str] = set()
    kept = []
    for ended in (each for each in found if each.kind is GranteeType.WORLD):
        try:
            failed = withdraw(ended.scope, ended.name, of=ended.did_created_at, dead=dead)
        except Exception as error:  # noqa: BLE001 - whatever a storage answered, the others have to be told
            kept.append(f'{ended.scope}:{ended.name} may still be public: {type(error).__name__}: {error}')
            continue
        dead |= {storage.rse_id for storage in failed}
        deleted += not failed
        kept += [
            f'{ended.scope}:{ended.name} may still be public on RSE {storage.rse}: {_text(error)}'
            for storage, error in failed.items()
        ]
    return SweepResult(deleted, kept)


def repair_policy(subtree: 'Subtree') -> list[str]:
    """Have the policy of a scope's bucket let everybody read what the table of grants says, and nothing else.

    One request, a few queries and some for each public collection; where they differ, one more request. Nothing of this
    where the table of grants is missing.

    What earlier versions published stays as long as the operator has not reviewed it (:mod:`.old_grants`).

    :param subtree: All that a scope has in a bucket.
    :returns: What was not as it should be, for the log.
    :raises RucioException: if collections are public there and the storage does not answer, or refuses.
    """
    storage, bucket = subtree.storage, subtree.bucket
    with db_session(DatabaseOperationType.READ) as session:
        if not is_ready(session=session) or shared_keys.has_other_vos(storage, bucket, session=session):
            return []
    try:
        # Before the grants: of what is shared, or ends, from now on the table says so already.
        policy, refused = bucket_policies.get(storage, bucket), None
    except RucioException as error:  # many storages have no policies
        policy, refused = None, error
    with db_session(DatabaseOperationType.READ) as session:
        granted = grants.list_published(subtree.scope, session=session)
        found = bucket_policies.public_prefixes(policy, bucket)
        told = [subtree.key_of(f'{name}/') for name, rse_ids in granted.items() if storage.rse_id in rse_ids]
        closed = [prefix for prefix in told if prefix not in found.values()]
        opened = {sid: prefix for sid, prefix in found.items() if _has_no_grant(subtree, prefix, granted, session)}
    if refused is not None and closed:
        raise refused
    if closed or opened:
        bucket_policies.set_public_prefixes(storage, bucket, policy, closed, opened)
    where = f"RSE {storage.rse}: by its policy, bucket '{bucket}'"
    return [
        *(f"{where} let everybody read '{each}', which is not shared: no longer." for each in opened.values()),
        *(
            f"{where} did not let everybody read '{each}', which is shared with everybody: now it does."
            for each in closed
        ),
    ]


def _has_no_grant(subtree: 'Subtree', prefix: str, granted: 'Collection[str]', session: 'Session') -> bool:
    """Whether keys of this scope are public, and no grant says so."""
    name = subtree.name_of(prefix).rstrip('/')
    return (
        prefix.startswith(subtree.key_prefix)
        and name not in granted
        and not old_grants.is_public(subtree.scope, name, session=session)
        and not shared_keys.has_other_scopes(subtree.storage, subtree.scope, subtree.bucket, prefix, session=session)
    )


def _text(error: RucioException) -> str:
    return str(error.args[0] if error.args else error)
