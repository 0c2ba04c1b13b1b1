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

"""The gateway of the REST interface for files: what the catalogue has of them, their registration and their deletion.

One transaction for each step, as in :mod:`rucio.gateway.s3`.
"""

from typing import TYPE_CHECKING, Any

from rucio.common.constants import DEFAULT_VO
from rucio.common.exception import (
    InputValidationError,
    ResourceTemporaryUnavailable,
    RucioException,
    UnsupportedOperation,
)
from rucio.common.s3 import api, objects
from rucio.common.s3.address import comes_back
from rucio.common.utils import generate_uuid
from rucio.core.rse import get_rse_id
from rucio.core.s3.auth import access
from rucio.core.s3.buckets import lookup
from rucio.core.s3.catalogue import records, registration, updates
from rucio.core.s3.reconciler import listings
from rucio.core.s3.reconciler.compare import is_valid_name
from rucio.core.s3.subtrees import Subtree
from rucio.db.sqla.constants import DatabaseOperationType, DIDAvailability
from rucio.db.sqla.session import db_session
from rucio.gateway.s3names import names

if TYPE_CHECKING:
    from rucio.common.types import InternalAccount

__all__ = ['look_up_files', 'register_files', 'remove_files']

_LARGEST = 2**63 - 1  # number in the database


def look_up_files(asked: api.LookUpFiles, issuer: str, vo: str = DEFAULT_VO) -> list[dict[str, Any]]:
    """Look files up in the catalogue. One query, without an RSE two; any account may, as in stock Rucio.

    :raises InputValidationError: if a name is not a string.
    :raises RSENotFound: if there is no such RSE.
    """
    _, internal = names(issuer, asked.scope, '', vo)
    if not all(isinstance(each, str) for each in asked.names):
        raise InputValidationError("'names' must be names of files.")
    with db_session(DatabaseOperationType.READ) as session:
        rse_id = get_rse_id(asked.rse, vo=vo, session=session) if asked.rse else None
        found = records.look_up(rse_id, internal, asked.names, session=session)
        rses = {} if asked.rse else records.readable(internal, asked.names, session=session)
    return [
        {
            'name': each.name,
            'did_type': each.did_type.name,
            'lost': each.availability == DIDAvailability.LOST,
            'bytes': each.bytes,
            'adler32': each.adler32,
            'md5': each.md5,
            'state': each.state and each.state.name,
            'rses': rses.get(each.name, []),
        }
        for each in found
    ]


def register_files(asked: api.RegisterFiles, issuer: str, vo: str = DEFAULT_VO) -> api.RegisteredFiles:
    """Register uploaded files in a dataset. No request to the storage, as for an upload by the stock command.

    :raises AccessDenied: if the issuer does not own the scope.
    :raises InputValidationError: if a file is not described as the interface prescribes.
    :raises UnsupportedOperation: if the dataset is closed, or the RSE is a cache or not deterministic.
    :raises ResourceTemporaryUnavailable: if the RSE is not available for writing.
    """
    account, internal = names(issuer, asked.scope, asked.name, vo)
    files = {each.name: each for each in (_uploaded(file, asked.name, vo) for file in asked.files)}
    with db_session(DatabaseOperationType.READ) as session:
        access.need(account, internal, '', True, session=session)
        (storage,) = lookup.candidates(account, internal, asked.name, asked.rse, session=session)
    if not storage.settings['deterministic']:
        raise UnsupportedOperation(
            f'RSE {asked.rse} is not deterministic, so no uploads can be registered there: use another RSE.'
        )
    if not storage.settings['availability_write']:
        raise ResourceTemporaryUnavailable(f'RSE {asked.rse} is not available for writing: try again later.')
    lookup.need_exclusive(storage, account, asked.scope)
    subtree = Subtree.of(storage, internal)
    return {'known': registration.register_uploaded(subtree, account, asked.name, [*files.values()])}


def _uploaded(file: Any, dataset: str, vo: str) -> records.NewFile:
    """Return a file as it is registered.

    :raises InputValidationError: if it is not described as the interface prescribes.
    """
    keys = ('name', 'bytes', 'adler32', 'md5')
    name, size, adler32, md5 = (file.get(each) for each in keys) if isinstance(file, dict) else (None,) * len(keys)
    if not isinstance(name, str) or not name.startswith(f'{dataset}/') or not is_valid_name(name, vo):
        raise InputValidationError(
            f"'files' must be objects with a 'name' that Rucio accepts, and that begins with '{dataset}/'."
        )
    if type(size) is not int or not 0 <= size <= _LARGEST:
        raise InputValidationError(f"'files': 'bytes' of {name} must be the size of an object.")
    if not _is_hexadecimal(adler32, 8) or not (md5 is None or _is_hexadecimal(md5, 32)):
        raise InputValidationError(
            f"'files': 'adler32' of {name} must have 8 hexadecimal digits, and 'md5', if any, 32."
        )
    return records.NewFile(name, size, md5, adler32, guid=generate_uuid())


def _is_hexadecimal(text: Any, digits: int) -> bool:
    return isinstance(text, str) and len(text) == digits and not text.strip('0123456789abcdef')


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
