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

"""Keys that belong to other DIDs on other RSEs of the same storage, in this VO or another one.

The server's keys can access the whole storage. If a key can belong to two scopes, the server gives access
only to accounts that may access both; accounts of another VO never get it. Without such RSEs, this costs
one query per :data:`.storages.CACHE_SECONDS`.
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
from .grants import FOREVER

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount
    from rucio.core.s3.storages import Storage

__all__ = ['area_of', 'has_other_scopes', 'has_other_vos', 'may', 'need', 'neighbours', 'overlaps', 'until']


class _OtherDID(NamedTuple):
    """The DID of a key on another RSE. ``scope`` None: it belongs to several scopes, or to an unknown one."""

    storage: 'Storage'
    scope: Optional[InternalScope]
    name: str


_neighbours: dict[str, tuple[float, 'list[Storage]']] = {}


def until(
    storage: 'Storage', account: 'InternalAccount', bucket: str, key: str, write: bool, *, session: 'Session'
) -> 'Optional[datetime]':
    """Return until when an account may read or write a key as what it is on other RSEs.

    :func:`.access.until` checks this RSE, and has the same values.

    :param key: A key; or (empty, or ending with a slash) a key prefix.
    """
    refusing, end = _ask(storage, account, bucket, key, write, session)
    return None if refusing else end


def may(
    storage: 'Storage', account: 'InternalAccount', bucket: str, key: str, write: bool, *, session: 'Session'
) -> bool:
    """Return whether an account may read or write a key as what it is on other RSEs: see :func:`until`."""
    return until(storage, account, bucket, key, write, session=session) is not None


def need(
    storage: 'Storage', account: 'InternalAccount', bucket: str, key: str, write: bool, *, session: 'Session'
) -> 'datetime':
    """Check what :func:`may` returns.

    :returns: Until when the account may: see :func:`until`.
    :raises AccessDenied: if the account does not have the permission.
    """
    refusing, end = _ask(storage, account, bucket, key, write, session)
    if refusing is not None:
        whose = f'RSE {refusing.storage.rse} has' if refusing.storage.vo == account.vo else 'an RSE of another VO has'
        raise AccessDenied(
            f'RSE {storage.rse}: {whose} files of other scopes at the same location, bucket '
            f"'{bucket}'{f', key {key!r}' if key else ''}, so the Rucio server gives access only to accounts that may "
            'access both. The operator has to separate these RSEs.'
        )
    return end


def _ask(
    storage: 'Storage', account: 'InternalAccount', bucket: str, key: str, write: bool, session: 'Session'
) -> 'tuple[Optional[_OtherDID], datetime]':
    """Return the other DID for which access is refused, or until when it is given for all of them."""
    first = FOREVER
    for each in _other_dids(storage, bucket, key, session):
        end = _until(each, account, write, session)
        if end is None:
            return each, first
        first = min(first, end)
    return None, first


def _until(each: _OtherDID, account: 'InternalAccount', write: bool, session: 'Session') -> 'Optional[datetime]':
    if each.storage.vo != account.vo:
        return None
    if each.scope:
        return access.until(account, each.scope, each.name, write, session=session)
    return FOREVER if access.is_admin(account, session=session) else None


def _other_dids(storage: 'Storage', bucket: str, key: str, session: 'Session') -> list[_OtherDID]:
    found = []
    for other in neighbours(storage, session=session):
        # An admin has imported it on purpose: who may read the import may read it.
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
    """Return whether other scopes have files below a prefix of a scope on this RSE.

    The owner of a new object is then ambiguous.
    """
    return any(each.scope != scope for each in _other_dids(storage, bucket, prefix, session))


def has_other_vos(storage: 'Storage', bucket: str, *, session: 'Session') -> bool:
    """Return whether a bucket has files of another VO."""
    return any(each.storage.vo != storage.vo for each in _other_dids(storage, bucket, '', session))


def overlaps(storage: 'Storage', *, session: 'Session') -> 'list[tuple[Storage, Overlap]]':
    """Return the RSEs that can have the same keys for other DIDs, and why: the operator has to change this."""
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
    """Of two RSEs, return the one that has a bucket for each scope."""
    return other if one.layout.common_bucket else one


def area_of(storage: 'Storage') -> StorageArea:
    """Return the part of the storage that belongs to an RSE."""
    algorithm = storage.settings['lfn2pfn_algorithm'] if storage.layout.deterministic else None
    return StorageArea.of(storage.rse, storage.protocol, algorithm)


def neighbours(storage: 'Storage', *, session: 'Session') -> 'list[Storage]':
    """Return the other deterministic RSEs at the same storage, of all VOs.

    One query per :data:`.storages.CACHE_SECONDS`.
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
