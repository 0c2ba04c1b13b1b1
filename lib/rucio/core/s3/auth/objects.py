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
"""Permissions for objects and key prefixes.

:mod:`.access` is asked for the names that they have, on this RSE and on others at the same storage.
"""

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Optional

from rucio.common.types import InternalScope
from rucio.core.s3 import imports
from rucio.core.scope import check_scope

from . import access, shared_keys
from .grants import FOREVER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount
    from rucio.core.s3.storages import Storage

__all__ = ['Covered', 'covering', 'may', 'until']


class Covered(NamedTuple):
    """A part of a bucket that an account may access."""

    prefix: str  # of the keys; empty: the whole bucket
    until: datetime  # as of access.until


def may(
    storage: 'Storage',
    account: 'InternalAccount',
    bucket: str,
    key: str,
    write: bool,
    *,
    session: 'Session',
    known: Optional[access.Known] = None,
) -> bool:
    """Return whether an account may read or write an object: see :func:`until`.

    :param known: A cache of the results of one call, see :func:`.access.until`.
    """
    return until(storage, account, bucket, key, write, session=session, known=known) is not None


def until(
    storage: 'Storage',
    account: 'InternalAccount',
    bucket: str,
    key: str,
    write: bool,
    *,
    session: 'Session',
    known: Optional[access.Known] = None,
) -> Optional[datetime]:
    """Return until when an account may read or write an object, as :func:`.access.until` does.

    If the key is empty or ends with a slash, everything below the prefix.

    :param known: A cache of the results of one call, see :func:`.access.until`.
    """
    end = shared_keys.until(storage, account, bucket, key, write, session=session)
    if end is None:
        return None
    dids = _dids(storage, bucket, key, session)
    if not dids or (write and not storage.layout.deterministic):
        admin = storage.layout.may_have(bucket) and access.is_admin(account, session=session, known=known)
        return end if admin else None
    found = (access.until(account, scope, name, write, session=session, known=known) for scope, name in dids)
    # On a deterministic RSE, a key with several possible DIDs may be any of them; elsewhere, the object is a replica of
    # all.
    own = _first(found) if storage.layout.deterministic else _last(found)
    return None if own is None else min(end, own)


def _first(ends: 'Iterable[Optional[datetime]]') -> Optional[datetime]:
    """Return the end of access that needs all of these."""
    first = FOREVER
    for end in ends:
        if end is None:
            return None
        first = min(first, end)
    return first


def _last(ends: 'Iterable[Optional[datetime]]') -> Optional[datetime]:
    """Return the end of access that needs one of these."""
    last: Optional[datetime] = None
    for end in ends:
        if end == FOREVER:
            return end
        last = max(filter(None, (last, end)), default=None)
    return last


def covering(
    storage: 'Storage',
    account: 'InternalAccount',
    bucket: str,
    prefix: str,
    write: bool,
    *,
    session: 'Session',
    known: Optional[access.Known] = None,
) -> Covered:
    """Return the largest part of a bucket around a prefix of keys that an account may read or write.

    It counts on all RSEs that share the keys.

    :param known: A cache of the results of one call, see :func:`.access.until`.
    :raises AccessDenied: if there is none.
    """
    largest, end = _largest(storage, account, bucket, prefix, write, session, known)
    # Keys for a prefix without a slash at its end would be valid for everything that begins with it.
    nearest = prefix[: prefix.rfind('/') + 1]
    if nearest.startswith(largest) and not shared_keys.may(storage, account, bucket, largest, write, session=session):
        largest = nearest
    return Covered(largest, min(end, shared_keys.need(storage, account, bucket, largest, write, session=session)))


def _largest(
    storage: 'Storage',
    account: 'InternalAccount',
    bucket: str,
    prefix: str,
    write: bool,
    session: 'Session',
    known: Optional[access.Known],
) -> Covered:
    if not storage.layout.deterministic:
        for scope, dataset, part in imports.covering(storage, bucket, prefix, session=session) if not write else ():
            if end := access.until(account, scope, f'{dataset}/', False, session=session, known=known):
                return Covered(part, end)
        if storage.layout.may_have(bucket) and access.is_admin(account, session=session, known=known):
            return Covered(prefix[: prefix.rfind('/') + 1], FOREVER)
        if end := until(storage, account, bucket, prefix, write, session=session, known=known):
            return Covered(prefix, end)
        raise access.denied(account, f"bucket '{bucket}', prefix '{prefix}'", write)
    dids = _dids(storage, bucket, prefix, session)
    if len(dids) == 1:
        scope, name = dids[0]
        covering = access.covering(account, scope, name, write, session=session, known=known)
        if covering is not None and (
            end := access.until(account, scope, covering, write, session=session, known=known)
        ):
            return Covered(storage.layout.place_of(str(scope), covering)[1], end)
    elif storage.layout.may_have(bucket) and access.is_admin(account, session=session, known=known):
        return Covered(prefix, FOREVER)
    raise access.denied(account, f"bucket '{bucket}', prefix '{prefix}'", write)


def _dids(storage: 'Storage', bucket: str, key: str, session: 'Session') -> list[tuple[InternalScope, str]]:
    """Return the DIDs that are stored at a key. If there are several candidates: those whose scope exists."""
    if not storage.layout.deterministic:
        return imports.dids_of(storage, bucket, key, session=session) if storage.layout.may_have(bucket) else []
    found = [(InternalScope(scope, vo=storage.vo), name) for scope, name in storage.layout.dids_of(bucket, key)]
    return found if len(found) <= 1 else [(scope, name) for scope, name in found if check_scope(scope, session=session)]
