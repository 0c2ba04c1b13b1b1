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


"""The gateway of the REST interface for reconciliation: runs, settings of buckets, and recent changes.

One transaction for each step, as in :mod:`rucio.gateway.s3`.
"""

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rucio.common.constants import DEFAULT_VO
from rucio.common.exception import InputValidationError, UnsupportedOperation
from rucio.common.s3 import api
from rucio.common.s3.dates import from_text, to_text
from rucio.core.s3 import imports
from rucio.core.s3.auth import access
from rucio.core.s3.buckets import bucket_settings, lookup
from rucio.core.s3.catalogue import changes
from rucio.core.s3.reconciler import requested
from rucio.core.s3.subtrees import Subtree
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
from rucio.gateway.s3names import names

if TYPE_CHECKING:
    from rucio.core.s3.buckets.bucket_settings import BucketSettings
    from rucio.core.s3.storages import Storage

__all__ = ['get_settings', 'list_changes', 'reconcile', 'reconcile_files', 'set_settings']


def reconcile(asked: api.Reconcile, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Compare a bucket, or a part of it, with the catalogue, and update the catalogue as far as the settings allow.

    Takes :data:`.requested.MAX_SECONDS` at most. New files belong to the owner of the scope, whoever asks.

    :raises AccessDenied: if the issuer does not own the scope.
    :raises UnsupportedOperation: if the collection was imported.
    """
    scope, name = asked.scope, asked.name
    account, internal = names(issuer, scope, name, vo)
    with db_session(DatabaseOperationType.READ) as session:
        access.need(account, internal, '', True, session=session)
        if name and (source := lookup.imported(account, internal, name, asked.rse, session=session)):
            storage, bucket, prefix = source
            datasets = [
                each
                for _, each, _ in imports.covering(storage, bucket, prefix, session=session)
                if f'{name}/'.startswith(f'{each}/')
            ]
            raise UnsupportedOperation(
                f'{scope}:{name} was imported from RSE {storage.rse}: for what is new there, rucio s3 import '
                f'{storage.rse} {scope}:{max(datasets, default=name)}.'
            )
        found = lookup.candidates(account, internal, name, asked.rse, session=session)
        file = bool(name) and lookup.is_file(internal, name, session=session)
    storage = lookup.choose_storage(found, scope)
    lookup.need_exclusive(storage, account, scope, '' if file else name)
    subtree = Subtree.of(storage.with_short_timeouts, internal, '' if file else name)
    lookup.need_answer(storage)
    answer = requested.reconcile(subtree, asked, file=name if file else None)
    return {'rse': subtree.storage.rse, 'bucket': subtree.bucket, 'scope': scope, 'name': name} | answer


def reconcile_files(asked: api.ReconcileFiles, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Compare the objects of some files with the catalogue, and update it as :func:`reconcile` does.

    :raises AccessDenied: if the issuer does not own the scope.
    :raises InputValidationError: if a file is not described as the interface prescribes.
    """
    account, internal = names(issuer, asked.scope, '', vo)
    with db_session(DatabaseOperationType.READ) as session:
        access.need(account, internal, '', True, session=session)
        (storage,) = lookup.candidates(account, internal, '', asked.rse, session=session)
    lookup.need_exclusive(storage, account, asked.scope)
    subtree = Subtree.of(storage.with_short_timeouts, internal)
    lookup.need_answer(storage)
    answer = requested.reconcile_files(subtree, asked)
    return {'rse': storage.rse, 'bucket': subtree.bucket, 'scope': asked.scope, 'name': ''} | answer


def get_settings(asked: api.GetBucketSettings, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Return the settings of a scope's bucket: what is done about objects that others changed or removed.

    :raises AccessDenied: if the issuer does not own the scope.
    """
    storage, bucket, _ = lookup.own_bucket(*names(issuer, asked.scope, '', vo), asked.rse)
    with db_session(DatabaseOperationType.READ) as session:
        return _described(storage, bucket, asked.scope, bucket_settings.get(storage, bucket, session=session))


def set_settings(asked: api.SetBucketSettings, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Set what is done in a scope's bucket about objects that others changed or removed.

    :raises AccessDenied: if the issuer does not own the scope.
    """
    storage, bucket, _ = lookup.own_bucket(*names(issuer, asked.scope, '', vo), asked.rse)
    with db_session(DatabaseOperationType.WRITE) as session:
        settings = bucket_settings.set_(storage, bucket, asked.on_changed, asked.on_missing, session=session)
    return _described(storage, bucket, asked.scope, settings)


def _described(storage: 'Storage', bucket: str, scope: str, settings: 'BucketSettings') -> dict[str, Any]:
    return {'rse': storage.rse, 'bucket': bucket, 'scope': scope} | settings._asdict()


def list_changes(asked: api.ListChanges, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """List what changed in the catalogue below a collection since a given time. No request to the storage.

    :raises AccessDenied: if the issuer does not own the scope.
    :raises InputValidationError: if the time is not a date.
    """
    scope, name = asked.scope, asked.name
    account, internal = names(issuer, scope, name, vo)
    start = _date(asked.since) if asked.since else None
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    with db_session(DatabaseOperationType.READ) as session:
        access.need(account, internal, '', True, session=session)
        found = lookup.candidates(account, internal, name, asked.rse, session=session)
    storage = lookup.choose_storage(found, scope)
    seen: list[changes.Change] = []
    if start is not None:
        with db_session(DatabaseOperationType.READ) as session:
            seen = changes.list_changes(storage, internal, name, start, session=session)
    more = len(seen) == changes.MAX_CHANGES
    told = [each._asdict() | {'time': to_text(each.time, fraction=True), 'scope': scope} for each in seen]
    return {
        'rse': storage.rse,
        'now': to_text(seen[-1].time if more else now, fraction=True),
        'more': more,
        'changes': told,
    }


def _date(text: str) -> datetime:
    try:
        return from_text(text).replace(tzinfo=None)  # as Rucio stores them
    except ValueError:
        raise InputValidationError(
            f"'since' is '{text}', but must be a date such as 2026-01-31T12:00:00.000000Z: the 'now' of an answer."
        ) from None
