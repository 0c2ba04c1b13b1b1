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


"""Recent changes in the catalogue, for clients that watch a collection.

They are derived from Rucio's own timestamps.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from sqlalchemy import and_, exists, select

from rucio.db.sqla import models
from rucio.db.sqla.constants import ReplicaState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalScope
    from rucio.core.s3.storages import Storage

__all__ = ['MAX_CHANGES', 'Change', 'list_changes']

MAX_CHANGES = 10_000  # changes in one answer
_ROUNDING = timedelta(seconds=1)  # databases may round timestamps


class Change(NamedTuple):
    """A change of a file on an RSE, with its time (UTC).

    :param change: ``registered``, ``updated`` (size or checksum), ``bad`` (declared so) or ``removed``.
    """

    time: datetime
    change: str
    name: str
    bytes: Optional[int]


def list_changes(
    storage: 'Storage', scope: 'InternalScope', name: str, since: datetime, *, session: 'Session'
) -> list[Change]:
    """List the changes on an RSE since a date, oldest first, at most :data:`MAX_CHANGES`.

    Two queries, which read all replicas below the name.

    A transaction may become visible some seconds after its timestamp: to poll, ask from a little earlier, and skip
    known changes. The removal of a file that was in no collection leaves no trace, and is not listed.

    :param storage: The RSE.
    :param scope: The scope.
    :param name: The name of a collection; empty: the whole scope.
    :param since: The date (UTC, without a time zone).
    """
    found = [*_replicas(storage, scope, name, since, session), *_removed(storage, scope, name, since, session)]
    return sorted(found, key=lambda change: (change.time, change.name))[:MAX_CHANGES]


def _below(column: Any, name: str) -> list[Any]:
    return [column.startswith(f'{name}/', autoescape=True)] if name else []


def _replicas(
    storage: 'Storage', scope: 'InternalScope', name: str, since: datetime, session: 'Session'
) -> 'Iterator[Change]':
    replica, did = models.RSEFileAssociation, models.DataIdentifier
    here = and_(
        replica.scope == scope,
        replica.rse_id == storage.rse_id,
        replica.updated_at >= since,
        *_below(replica.name, name),
    )
    columns = (replica.name, replica.bytes, replica.state, replica.created_at, replica.updated_at)
    dates = (
        did.created_at.label('did_created'),
        did.updated_at.label('did_updated'),
        did.accessed_at.label('did_accessed'),
    )
    stmt = (
        select(*columns, *dates)
        .join(did, and_(did.scope == replica.scope, did.name == replica.name))
        .where(here)
        .order_by(replica.updated_at)
        .limit(MAX_CHANGES)
    )
    for row in session.execute(stmt).all():
        if row.state == ReplicaState.BAD:
            yield Change(row.updated_at, 'bad', row.name, row.bytes)
        elif row.state in (ReplicaState.AVAILABLE, ReplicaState.COPYING):
            if row.created_at >= since:
                yield Change(row.created_at, 'registered', row.name, row.bytes)
            if row.did_updated >= since and _is_new_content(row):
                yield Change(row.did_updated, 'updated', row.name, row.bytes)


def _is_new_content(row: Any) -> bool:
    """Return whether size or checksum changed.

    Locks update only the replica, downloads also the access date, and metadata only the DID.
    """
    touched = row.did_accessed is not None and abs(row.did_updated - row.did_accessed) <= _ROUNDING
    return (
        row.did_updated - row.did_created > _ROUNDING and row.updated_at >= row.did_updated - _ROUNDING and not touched
    )


def _removed(
    storage: 'Storage', scope: 'InternalScope', name: str, since: datetime, session: 'Session'
) -> 'Iterator[Change]':
    """Return files that were removed from their collections, and are no longer on the RSE."""
    member, replica = models.DataIdentifierAssociationHistory, models.RSEFileAssociation
    left = [
        member.scope == scope,
        member.child_scope == scope,
        member.deleted_at >= since,
        *_below(member.child_name, name),
    ]
    there = exists().where(
        replica.scope == member.child_scope, replica.name == member.child_name, replica.rse_id == storage.rse_id
    )
    stmt = (
        select(member.child_name, member.bytes, member.deleted_at)
        .where(and_(*left, ~there))
        .order_by(member.deleted_at)
        .limit(MAX_CHANGES)
    )
    seen = set()
    for row in session.execute(stmt).all():
        if row.child_name not in seen:
            seen.add(row.child_name)
            yield Change(row.deleted_at, 'removed', row.child_name, row.bytes)
