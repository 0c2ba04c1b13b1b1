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


"""What the REST interface asks for where the catalogue shall follow a bucket: reconciling, its settings, and what
changed of late.

A transaction for each step, as in :mod:`rucio.gateway.s3`.
"""

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from rucio.common.constants import DEFAULT_VO
from rucio.common.exception import InputValidationError, UnsupportedOperation
from rucio.core.s3.buckets import bucket_settings, buckets, imports
from rucio.core.s3.catalogue import changes
from rucio.core.s3.parts import Part
from rucio.core.s3.reconciler.reconciling import Reconciler
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
from rucio.gateway import s3

if TYPE_CHECKING:
    from rucio.core.s3.buckets.bucket_settings import BucketSettings
    from rucio.core.s3.storages import Storage

__all__ = ['SECONDS', 'Wish', 'get_settings', 'list_changes', 'reconcile', 'set_settings', 'sync']

SECONDS = 20  # that one request works; what is left is for the next one
MOST_READ = 4 * 1024**3  # bytes for checksums in one request: the daemon reads what is larger
MOST_SORTED = 200_000  # objects, on storages that list them out of order, so that all are listed for each request
_DATE = '%Y-%m-%dT%H:%M:%S.%fZ'


class Wish(NamedTuple):
    """How a bucket shall be reconciled.

    :param dry_run: Write nothing.
    :param on_changed: What is done about objects that are not what the catalogue says; None: what is set for the
        bucket.
    :param on_missing: The same about replicas without an object.
    :param after: Where to go on: what the answer before said. Empty: from the beginning.
    """

    dry_run: bool = False
    on_changed: Optional[str] = None
    on_missing: Optional[str] = None
    after: str = ''


def sync(
    scope: str,
    issuer: str,
    name: str = '',
    rse: Optional[str] = None,
    wish: 'Optional[Wish]' = None,
    vo: str = DEFAULT_VO,
) -> dict[str, Any]:
    """Compare a bucket, or a part of it, with the catalogue, and bring the catalogue in line as far as the settings
    say: :data:`SECONDS` at most.

    :param scope: The scope.
    :param issuer: The issuing account. What is registered belongs to the owner of the scope, whoever asks.
    :param name: What is below this collection, or one file; empty: all of the bucket.
    :param rse: The RSE; None: where it is.
    :param wish: How.
    :param vo: The VO to act on.
    :returns: rse, bucket, scope, name, counts, problems, and ``after``: None where the end was reached.
    :raises AccessDenied: if the issuer does not own the scope.
    :raises InputValidationError: if there is no such way to act.
    :raises UnsupportedOperation: if it was imported.
    """
    wish = wish or Wish()
    bucket_settings.check(wish.on_changed, wish.on_missing)
    account, internal = s3.names(issuer, scope, name, vo)
    with db_session(DatabaseOperationType.READ) as session:
        s3.need(account, internal, '', True, session)
        if name and (source := buckets.imported(account, internal, name, rse, session=session)):
            storage, bucket, prefix = source
            datasets = [
                each
                for _, each, _ in imports.covering(storage, bucket, prefix, session=session)
                if f'{name}/'.startswith(f'{each}/')
            ]
            raise UnsupportedOperation(
                f'{scope}:{name} was imported from RSE {storage.rse}: for what is new there, rucio s3 import {storage.rse} {scope}:{max(datasets, default=name)}.'
            )
        found = buckets.candidates(account, internal, name, rse, session=session)
        file = bool(name) and buckets.is_file(internal, name, session=session)
    storage = buckets.pick(found, scope)
    s3.need_apart(storage, account, scope, '' if file else name)
    part = Part.of(storage, internal, '' if file else name)
    answer = reconcile(part, wish, file=name if file else None)
    return {'rse': part.storage.rse, 'bucket': part.bucket, 'scope': scope, 'name': name} | answer


def reconcile(part: Part, wish: Wish, file: Optional[str] = None) -> dict[str, Any]:
    """Reconcile a part of a bucket for :data:`SECONDS`, or one file of it.

    :param part: The part.
    :param wish: How.
    :param file: The name of a file; None: all of the part.
    :returns: after, counts, problems.
    """
    with db_session(DatabaseOperationType.READ) as session:
        settings = bucket_settings.get(part.storage, part.bucket, session=session)
    reconciler = Reconciler(
        part,
        on_changed=wish.on_changed or settings.on_changed,
        on_missing=wish.on_missing or settings.on_missing,
        dry_run=wish.dry_run,
        read_checksums=part.storage.endpoint.read_checksums,
        # An import has nothing to lose: what comes back is imported again. Still somebody has to want it.
        even_if_empty=part.dataset is not None and wish.on_missing is not None,
    )
    reached = None
    if file is None:
        reached = reconciler.run(after=wish.after, seconds=SECONDS, most_read=MOST_READ, most_sorted=MOST_SORTED)
    else:
        reconciler.check([part.key_of(file)], MOST_READ)
    return {'after': reached, **reconciler.summary.as_dict()}


def get_settings(scope: str, issuer: str, rse: Optional[str] = None, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """What is done in the bucket of a scope about objects that others changed or removed.

    :param scope: The scope.
    :param issuer: The issuing account.
    :param rse: The RSE; None: where it is.
    :param vo: The VO to act on.
    :returns: rse, bucket, scope, on_changed, on_missing, and ``own``: which of these were set for this bucket.
    :raises AccessDenied: if the issuer does not own the scope.
    """
    storage, bucket, _ = s3.own_bucket(scope, issuer, rse, vo)
    with db_session(DatabaseOperationType.READ) as session:
        return _described(storage, bucket, scope, bucket_settings.get(storage, bucket, session=session))


def set_settings(
    scope: str,
    issuer: str,
    rse: Optional[str] = None,
    on_changed: Optional[str] = None,
    on_missing: Optional[str] = None,
    vo: str = DEFAULT_VO,
) -> dict[str, Any]:
    """Set what is done in the bucket of a scope about objects that others changed or removed.

    :param scope: The scope.
    :param issuer: The issuing account.
    :param rse: The RSE; None: where it is.
    :param on_changed: What is done about objects that are not what the catalogue says; ``default``: what holds on the
        RSE; None: as it is.
    :param on_missing: The same about replicas without an object.
    :param vo: The VO to act on.
    :returns: As :func:`get_settings`.
    :raises AccessDenied: if the issuer does not own the scope.
    :raises InputValidationError: if there is no such way to act.
    """
    storage, bucket, _ = s3.own_bucket(scope, issuer, rse, vo)
    with db_session(DatabaseOperationType.WRITE) as session:
        return _described(
            storage, bucket, scope, bucket_settings.set_(storage, bucket, on_changed, on_missing, session=session)
        )


def _described(storage: 'Storage', bucket: str, scope: str, settings: 'BucketSettings') -> dict[str, Any]:
    return {'rse': storage.rse, 'bucket': bucket, 'scope': scope} | settings._asdict()


def list_changes(
    scope: str, name: str, issuer: str, rse: Optional[str] = None, since: Optional[str] = None, vo: str = DEFAULT_VO
) -> dict[str, Any]:
    """What changed in the catalogue below a collection since then. Makes no request to the storage.

    :param scope: The scope.
    :param name: The name of the collection; empty: all of the scope.
    :param issuer: The issuing account.
    :param rse: The RSE; None: where it is.
    :param since: A date as the answer has it; None: from now on.
    :param vo: The VO to act on.
    :returns: rse, ``now`` (to be asked with next), changes: time, change, scope, name, bytes; and ``more``: whether
        there were so many
              that the last ones are missing, and ``now`` is the time of the last one that is told.
    :raises AccessDenied: if the issuer does not own the scope.
    :raises InputValidationError: if it is no date.
    """
    account, internal = s3.names(issuer, scope, name, vo)
    start = _date(since) if since else None
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    with db_session(DatabaseOperationType.READ) as session:
        s3.need(account, internal, '', True, session)
        found = buckets.candidates(account, internal, name, rse, session=session)
    storage = buckets.pick(found, scope)
    seen: list[changes.Change] = []
    if start is not None:
        with db_session(DatabaseOperationType.READ) as session:
            seen = changes.list_changes(storage, internal, name, start, session=session)
    more = len(seen) == changes.MOST
    told = [each._asdict() | {'time': each.time.strftime(_DATE), 'scope': scope} for each in seen]
    return {'rse': storage.rse, 'now': (seen[-1].time if more else now).strftime(_DATE), 'more': more, 'changes': told}


def _date(text: str) -> datetime:
    try:
        return datetime.strptime(text, _DATE)  # noqa: DTZ007 - UTC, as Rucio keeps its dates
    except ValueError:
        raise InputValidationError(
            f"'since' is '{text}', but must be a date such as 2026-01-31T12:00:00.000000Z: the 'now' of an answer."
        ) from None
