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

from typing import TYPE_CHECKING, Optional

from rucio.common.types import InternalScope
from rucio.core.s3 import imports
from rucio.core.scope import check_scope

from . import access, shared_keys

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount
    from rucio.core.s3.storages import Storage

__all__ = ['covering', 'may']


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
    """Return whether an account may read or write an object.

    If the key is empty or ends with a slash, everything below the prefix.

    :param known: A cache of the results of one call, see :func:`.access.may`.
    """
    if not shared_keys.may(storage, account, bucket, key, write, session=session):
        return False
    dids = _dids(storage, bucket, key, session)
    if not dids or (write and not storage.layout.deterministic):
        return storage.layout.may_have(bucket) and access.is_admin(account, session=session, known=known)
    # On a deterministic RSE, a key with several possible DIDs may be any of them; elsewhere, the object is a replica of
    # all.
    enough = all if storage.layout.deterministic else any
    return enough(access.may(account, scope, name, write, session=session, known=known) for scope, name in dids)


def covering(
    storage: 'Storage', account: 'InternalAccount', bucket: str, prefix: str, write: bool, *, session: 'Session'
) -> str:
    """Return the shortest prefix around a given one that an account may read or write.

    It counts on all RSEs that share the keys.

    :returns: A key prefix; empty: the whole bucket.
    :raises AccessDenied: if there is none.
    """
    largest = _largest(storage, account, bucket, prefix, write, session)
    # Keys for a prefix without a slash at its end would be valid for everything that begins with it.
    nearest = prefix[: prefix.rfind('/') + 1]
    if nearest.startswith(largest) and not shared_keys.may(storage, account, bucket, largest, write, session=session):
        largest = nearest
    shared_keys.need(storage, account, bucket, largest, write, session=session)
    return largest


def _largest(
    storage: 'Storage', account: 'InternalAccount', bucket: str, prefix: str, write: bool, session: 'Session'
) -> str:
    if not storage.layout.deterministic:
        for scope, dataset, part in imports.covering(storage, bucket, prefix, session=session) if not write else ():
            if access.may(account, scope, f'{dataset}/', False, session=session):
                return part
        if storage.layout.may_have(bucket) and access.is_admin(account, session=session):
            return prefix[: prefix.rfind('/') + 1]
        if may(storage, account, bucket, prefix, write, session=session):
            return prefix
        raise access.denied(account, f"bucket '{bucket}', prefix '{prefix}'", write)
    dids = _dids(storage, bucket, prefix, session)
    if len(dids) == 1:
        scope, name = dids[0]
        covering = access.covering(account, scope, name, write, session=session)
        if covering is not None:
            return storage.layout.place_of(str(scope), covering)[1]
    elif storage.layout.may_have(bucket) and access.is_admin(account, session=session):
        return prefix
    raise access.denied(account, f"bucket '{bucket}', prefix '{prefix}'", write)


def _dids(storage: 'Storage', bucket: str, key: str, session: 'Session') -> list[tuple[InternalScope, str]]:
    """Return the DIDs that are stored at a key. If there are several candidates: those whose scope exists."""
    if not storage.layout.deterministic:
        return imports.dids_of(storage, bucket, key, session=session) if storage.layout.may_have(bucket) else []
    found = [(InternalScope(scope, vo=storage.vo), name) for scope, name in storage.layout.dids_of(bucket, key)]
    return found if len(found) <= 1 else [(scope, name) for scope, name in found if check_scope(scope, session=session)]
