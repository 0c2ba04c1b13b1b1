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

"""Keys that other RSEs of the same storage mean by other DIDs, in this VO or in another one.

The server's keys reach all of a storage. Where a key can be that of two scopes, nobody gets it by the server's
help who may not have it as either of them; accounts of another VO never. Without such RSEs this costs one query
in :data:`.storages.CACHE_SECONDS`.
"""

import time
from typing import TYPE_CHECKING, NamedTuple, Optional

from sqlalchemy import and_, false, select

from rucio.common.exception import AccessDenied, ConfigurationError, RSENotFound
from rucio.common.s3.storage_areas import Overlap, StorageArea
from rucio.common.types import InternalScope
from rucio.core.s3 import storages
from rucio.core.scope import check_scope
from rucio.db.sqla import models

from . import access

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount
    from rucio.core.s3.storages import Storage

__all__ = ['area_of', 'has_other_scopes', 'has_other_vos', 'may', 'need', 'neighbours', 'overlaps']


class _OtherDID(NamedTuple):
    """What a key is on another RSE. ``scope``: None where it is that of some scopes, nobody can say of which."""

    storage: 'Storage'
    scope: Optional[InternalScope]
    name: str


_neighbours: dict[str, tuple[float, 'list[Storage]']] = {}


def may(
    storage: 'Storage', account: 'InternalAccount', bucket: str, key: str, write: bool, *, session: 'Session'
) -> bool:
    """Whether an account may read or write a key as whatever it is on other RSEs. Asked beside :func:`.access.may`,
    which is for this one.

    :param key: A key; or with a slash at its end, or empty, all that lies below it.
    """
    return _find_refusal(storage, account, bucket, key, write, session) is None


def need(
    storage: 'Storage', account: 'InternalAccount', bucket: str, key: str, write: bool, *, session: 'Session'
) -> None:
    """As :func:`may`.

    :raises AccessDenied: if it may not.
    """
    refusing = _find_refusal(storage, account, bucket, key, write, session)
    if refusing is not None:
        whose = f'RSE {refusing.storage.rse} has' if refusing.storage.vo == account.vo else 'an RSE of another VO has'
        raise AccessDenied(
            f'RSE {storage.rse}: {whose} files of other scopes in the same place, bucket '
            f"'{bucket}'{f', key {key!r}' if key else ''}, so the Rucio server helps nobody to it who may not have "
            'both. The operator has to give these RSEs places of their own.'
        )


def _find_refusal(
    storage: 'Storage', account: 'InternalAccount', bucket: str, key: str, write: bool, session: 'Session'
) -> Optional[_OtherDID]:
    for each in _other_dids(storage, bucket, key, session):
        if each.storage.vo != account.vo:
            return each
        if not (
            access.may(account, each.scope, each.name, write, session=session)
            if each.scope
            else access.is_admin(account, session=session)
        ):
            return each
    return None


def _other_dids(storage: 'Storage', bucket: str, key: str, session: 'Session') -> list[_OtherDID]:
    found = []
    for other in neighbours(storage, session=session):
        # What an admin has imported on purpose is read by those who may read the import.
        if other.vo == storage.vo and not storage.layout.deterministic:
            continue
        found += _dids_on(other, bucket, key, session)
    return found


def _dids_on(other: 'Storage', bucket: str, key: str, session: 'Session') -> list[_OtherDID]:
    if other.layout.common_bucket and bucket != other.layout.common_bucket:
        return []
    below = not key or key.endswith('/')
    if below and other.layout.common_bucket and area_of(other).folder.startswith(key):
        return [_OtherDID(other, None, '')]
    dids = [(InternalScope(scope, vo=other.vo), name) for scope, name in other.layout.dids_of(bucket, key)]
    if not dids and below and other.layout.common_bucket and key.startswith(area_of(other).folder):
        return [_OtherDID(other, None, '')]
    return [_OtherDID(other, scope, name) for scope, name in dids if check_scope(scope, session=session)]


def has_other_scopes(storage: 'Storage', scope: InternalScope, bucket: str, prefix: str, *, session: 'Session') -> bool:
    """Whether there are files of other scopes in what is a scope's on this RSE: nobody can say whose a new
    object is.
    """
    return any(each.scope != scope for each in _other_dids(storage, bucket, prefix, session))


def has_other_vos(storage: 'Storage', bucket: str, *, session: 'Session') -> bool:
    """Whether a bucket holds files of another VO."""
    return any(each.storage.vo != storage.vo for each in _other_dids(storage, bucket, '', session))


def overlaps(storage: 'Storage', *, session: 'Session') -> 'list[tuple[Storage, Overlap]]':
    """The RSEs that can have the same keys for other DIDs, and why: what an operator has to change."""
    own = area_of(storage)
    found = []
    for other in neighbours(storage, session=session):
        overlap = own.overlap(area_of(other))
        if overlap and (
            not overlap.scope
            or check_scope(InternalScope(overlap.scope, vo=_owner(storage, other).vo), session=session)
        ):
            found.append((other, overlap))
    return found


def _owner(one: 'Storage', other: 'Storage') -> 'Storage':
    """Of two RSEs the one whose scopes have buckets of their own."""
    return other if one.layout.common_bucket else one


def area_of(storage: 'Storage') -> StorageArea:
    """The part of the storage that belongs to an RSE."""
    algorithm = storage.settings['lfn2pfn_algorithm'] if storage.layout.deterministic else None
    return StorageArea.of(storage.rse, storage.protocol, algorithm)


def neighbours(storage: 'Storage', *, session: 'Session') -> 'list[Storage]':
    """The other deterministic RSEs at the same storage, of all VOs. One query, and none for
    :data:`.storages.CACHE_SECONDS` after.
    """
    known = _neighbours.get(storage.rse_id)
    if known is None or time.monotonic() - known[0] > storages.CACHE_SECONDS:
        known = _neighbours[storage.rse_id] = (time.monotonic(), _find(storage, session))
    return known[1]


def _find(storage: 'Storage', session: 'Session') -> 'list[Storage]':
    protocol, own = models.RSEProtocol, area_of(storage)
    stmt = (
        select(models.RSE.rse, models.RSE.vo, protocol.hostname, protocol.port)
        .join(protocol, protocol.rse_id == models.RSE.id)
        .where(and_(models.RSE.deleted == false(), models.RSE.id != storage.rse_id, storages.speaks_s3()))
    )
    names = set()
    for row in session.execute(stmt):
        there = StorageArea.of(row.rse, {'hostname': row.hostname, 'port': row.port, 'prefix': '/'}, None)
        if own.is_same_storage(there):
            names.add((row.rse, row.vo))
    found = []
    for rse, vo in sorted(names):
        try:
            other = storages.get_storage(rse, vo, session=session)
        except (ConfigurationError, RSENotFound):
            continue
        if other.layout.deterministic and own.is_same_storage(area_of(other)):
            found.append(other)
    return found
