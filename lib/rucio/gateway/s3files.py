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

"""The gateway of the REST interface for files: what the catalogue has of them, and their deletion from it and a bucket.

One transaction for each step, as in :mod:`rucio.gateway.s3`.
"""

from typing import TYPE_CHECKING, Any

from rucio.common.constants import DEFAULT_VO
from rucio.common.exception import InputValidationError, RucioException
from rucio.common.s3 import api, objects
from rucio.common.s3.address import comes_back
from rucio.core.rse import get_rse_id
from rucio.core.s3.auth import access
from rucio.core.s3.buckets import lookup
from rucio.core.s3.catalogue import records, updates
from rucio.core.s3.reconciler import listings
from rucio.core.s3.subtrees import Subtree
from rucio.db.sqla.constants import DatabaseOperationType, DIDAvailability
from rucio.db.sqla.session import db_session
from rucio.gateway.s3names import names

if TYPE_CHECKING:
    from rucio.common.types import InternalAccount

__all__ = ['look_up_files', 'remove_files']


def look_up_files(asked: api.LookUpFiles, issuer: str, vo: str = DEFAULT_VO) -> list[dict[str, Any]]:
    """Look files up in the catalogue. One query; any account may, as in stock Rucio.

    :raises InputValidationError: if a name is not a string.
    :raises RSENotFound: if there is no such RSE.
    """
    _, internal = names(issuer, asked.scope, '', vo)
    if not all(isinstance(each, str) for each in asked.names):
        raise InputValidationError("'names' must be names of files.")
    with db_session(DatabaseOperationType.READ) as session:
        rse_id = get_rse_id(asked.rse, vo=vo, session=session)
        found = records.look_up(rse_id, internal, asked.names, session=session)
    return [
        {
            'name': each.name,
            'did_type': each.did_type.name,
            'lost': each.availability == DIDAvailability.LOST,
            'bytes': each.bytes,
            'adler32': each.adler32,
            'md5': each.md5,
            'state': each.state and each.state.name,
        }
        for each in found
    ]


def remove_files(asked: api.RemoveFiles, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Delete the objects of files on one RSE, and then their replicas.

    If it is interrupted between the two, the catalogue has replicas whose objects are missing: repeating it completes
    it.

    :raises AccessDenied: if the issuer does not own the scope.
    :raises InputValidationError: if a name cannot be that of a file.
    """
    account, internal = names(issuer, asked.scope, '', vo)
    if not all(isinstance(each, str) and each and comes_back(each) for each in asked.names):
        raise InputValidationError("'names' must be names of files, without '.' or '..' between slashes.")
    with db_session(DatabaseOperationType.READ) as session:
        access.need(account, internal, '', True, session=session)
        found = lookup.candidates(account, internal, asked.names[0], asked.rse, session=session)
    storage = lookup.choose_storage(found, asked.scope)
    lookup.need_exclusive(storage, account, asked.scope)
    subtree = Subtree.of(storage.with_short_timeouts, internal)
    lookup.need_answer(storage)
    removed, kept = _remove(subtree, account, sorted(set(asked.names)))
    listed = [{'name': name, 'found': found} for name, found in sorted(kept.items())]
    return {'rse': storage.rse, 'bucket': subtree.bucket, 'removed': removed, 'kept': listed}


def _remove(subtree: Subtree, account: 'InternalAccount', wanted: list[str]) -> tuple[int, dict[str, str]]:
    """Delete files.

    :returns: The number of deleted objects, and why files were kept, by name.
    """
    known = listings.known(subtree, wanted)
    kept = {each.name: each.found for each in updates.find_kept(subtree, list(known.values()), account)}
    connection = subtree.storage.connection()
    for name in wanted:
        if name not in known and not objects.exists(connection, subtree.target(name)):
            kept[name] = (
                f'{subtree.scope}:{name} does not exist: RSE {subtree.storage.rse} has no such object, and the '
                'catalogue no such replica.'
            )
    targets = {subtree.target(name): name for name in wanted if name not in kept}
    results = objects.delete_many(connection, targets)
    failures = {targets[each]: error for each, error in results.items() if error is not None}
    kept |= {name: _said(error) for name, error in failures.items()}
    gone = [name for name in targets.values() if name not in failures]
    # Their locks are those of the account: somebody else's are not deleted before their object is.
    _, refusals = updates.forget(subtree, [known[name] for name in gone if name in known])
    kept |= {each.name: f'The object was deleted, but: {each.found}' for each in refusals}
    return len(gone), kept


def _said(error: RucioException) -> str:
    return str(error.args[0] if error.args else error)
