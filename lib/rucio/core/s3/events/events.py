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

"""S3 event notifications of storages, and their processing.

A record is a hint, never a fact: it says which key to check. The catalogue is updated to what the object is *now*, so
that records may be repeated, late, out of order, or missing (the reconciler daemon finds what they missed). Sequencers
are not used: those of Ceph 16 have the bytes of their nanoseconds reversed, and do not sort.

So somebody who forges a record, even with the right token, only makes the server check an object in the buckets of this
RSE; the time for this is limited per request, bucket and storage. The reconciler finds what is left.

Supported are the records of AWS, MinIO and Ceph, plain or wrapped by SNS, SQS and EventBridge, and those of
SeaweedFS's filer.
"""

import hmac
import json
import re
import time
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Optional
from urllib.parse import unquote_plus

from sqlalchemy import select

from rucio.common.exception import (
    AccessDenied,
    CannotAuthenticate,
    DatabaseException,
    InputValidationError,
    ResourceTemporaryUnavailable,
    RSEAccessDenied,
    RSEFileNameNotSupported,
    RSEOperationNotSupported,
    ServiceUnavailable,
)
from rucio.common.s3.answers import line_logger
from rucio.common.types import InternalScope
from rucio.core.s3 import imports
from rucio.core.s3.auth import shared_keys
from rucio.core.s3.buckets import bucket_settings, lookup
from rucio.core.s3.rate_limiter import RateLimiter
from rucio.core.s3.reconciler.compare import is_valid_name
from rucio.core.s3.reconciler.summary import Summary
from rucio.core.s3.reconciler.walk import Reconciler
from rucio.core.s3.subtrees import Subtree
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from rucio.core.s3.storages import Storage

__all__ = [
    'MAX_BODY',
    'MAX_RECORDS',
    'RETRY_LATER',
    'Batch',
    'Change',
    'find_token',
    'need_token',
    'parse',
    'process',
    'warn_limited',
]

_LOGGER = line_logger(__name__)

MAX_BODY = 1024 * 1024  # bytes
MAX_RECORDS = 1000
# Bytes that one request may read of new objects without a checksum: larger ones are registered without, and read by the
# reconciler.
MAX_READ = 64 * 1024 * 1024
MAX_SECONDS = 2.0  # seconds after which a request starts nothing new
CHECK_CHUNK = 20  # objects that are checked together, between two checks of the time
_MAX_NESTING = 4  # wrappers
# Objects and lists per record: a million empty lists keep Python's garbage collector busy for a second.
_MAX_BRACKETS = 32
_TOO_MANY = f'There are more than {MAX_RECORDS} records, the limit of a request: send them in smaller batches.'
_MAX_BUCKET_LENGTH, _MAX_KEY_BYTES = 255, 1024  # characters (old buckets of Ceph), and bytes
_MAX_IN_LIST = 500  # scopes per query

# Seconds of work of this process: half of its time for the events of a storage, a quarter for those of one bucket, plus
# bursts.
_STORAGE_LIMITER = RateLimiter(at_once=30, per_second=0.5)
_BUCKET_LIMITER = RateLimiter(at_once=15, per_second=0.25)
# Lines in the log: a few for each reason, then one per minute, as clients decide how often they send refused requests.
_LOG_LIMITER = RateLimiter(at_once=5, per_second=1 / 60)
# Errors after which the storage should send the records again.
RETRY_LATER = (DatabaseException, ServiceUnavailable, ResourceTemporaryUnavailable)

# Without the prefix "s3:" that some storages add.
_EVENTS = (
    'ObjectCreated:',
    'ObjectRemoved:',
    'ObjectSynced:',
    'ObjectRestore:Completed',
    'LifecycleExpiration:',
    'ObjectLifecycle:Expiration:',
    'Object Created',
    'Object Deleted',
    'Object Restore Completed',
)
_ENCODED = ('aws:s3', 'minio:s3')  # whose keys are always URL-encoded


class Change(NamedTuple):
    """A change of a key. Other fields of the record are ignored: only the current object counts."""

    bucket: str
    key: str


class Batch(NamedTuple):
    """The content of a request.

    :param changes: Each key once.
    :param counts: ``records``, and of these ``skipped``: irrelevant or not understood.
    :param opaque: The ``opaqueData`` of the records; empty if a record has none.
    :param confirmations: URLs at which a person can confirm an SNS subscription.
    """

    changes: list[Change]
    counts: 'Counter[str]'
    opaque: set[str]
    confirmations: list[str]


# Reading


def parse(body: bytes) -> Batch:
    """Parse the body of a request. Uses a few times its size in memory.

    :param body: JSON of at most :data:`MAX_BODY` bytes.
    :returns: The changes, and what was counted.
    :raises InputValidationError: if it is not JSON, or has more than :data:`MAX_RECORDS` records.
    """
    if body.count(b'{') + body.count(b'[') > _MAX_BRACKETS * MAX_RECORDS:
        raise InputValidationError(_TOO_MANY)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise InputValidationError(
            'The body is not JSON, or nested too deeply: S3 event records were expected.'
        ) from None
    records = _records(document)
    batch = Batch([], Counter(records=len(records), skipped=0), set(), [])
    changes: set[Change] = set()
    for record in records:
        batch.opaque.add(_text(record.get('opaqueData')) if isinstance(record, dict) else '')
        found = list(_changes(record))
        if not found:
            batch.counts['skipped'] += 1
            batch.confirmations.extend(_confirmation(record))
        changes.update(found)
    batch.changes.extend(sorted(changes))
    return batch


def _records(document: Any) -> list[Any]:
    """Return the records without wrappers."""
    records: list[Any] = []
    seen, waiting = 0, [(document, 0)]
    while waiting:
        each, depth = waiting.pop()
        seen += 1
        inside = _wrapped(each)
        if inside is None:
            records.append(each)
        elif depth > _MAX_NESTING:
            raise InputValidationError('The body is nested too deeply: S3 event records were expected.')
        else:
            waiting += ((one, depth + 1) for one in inside)
        if len(records) > MAX_RECORDS or seen > (_MAX_NESTING + 1) * MAX_RECORDS:
            raise InputValidationError(_TOO_MANY)
    return records


def _wrapped(document: Any) -> Optional[list[Any]]:
    """Return the content of a wrapper; None: it is a record."""
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        return None
    if isinstance(document.get('Records'), list):  # S3 itself, SQS
        return list(document['Records'])
    if document.get('Type') == 'Notification' and isinstance(document.get('Message'), str):  # SNS
        return [_loaded(document['Message'])]
    if isinstance(document.get('body'), str):  # SQS
        return [_loaded(document['body'])]
    return None


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _changes(record: Any) -> Iterator[Change]:
    """Yield the keys that a record is about; nothing for other kinds of records."""
    if not isinstance(record, dict):
        return
    if isinstance(record.get('s3'), dict):
        yield from _of_s3(record)
    elif record.get('source') == 'aws.s3' and _text(record.get('detail-type')).startswith(_EVENTS):
        yield from _of_eventbridge(record)
    elif 'event_type' in record and isinstance(record.get('message'), dict):
        yield from _of_seaweedfs(record)


def _of_s3(record: dict[str, Any]) -> Iterator[Change]:
    """Yield the keys in a record of S3, MinIO or Ceph.

    Its format: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    """
    if not _text(record.get('eventName')).removeprefix('s3:').startswith(_EVENTS):
        return
    bucket, key = _bucket_and_key(record['s3'])
    # Ceph 16 sends keys unencoded, others encode them: checking both costs one more request if they differ.
    keys = {_text(unquote_plus(key))} | (set() if record.get('eventSource') in _ENCODED else {key})
    for each in sorted(keys - {''}) if bucket else ():
        yield Change(bucket, each)


def _of_eventbridge(record: dict[str, Any]) -> Iterator[Change]:
    """Yield the key in a record of EventBridge, where it is not encoded.

    Its format: https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
    """
    bucket, key = _bucket_and_key(record.get('detail'))
    if bucket and key:
        yield Change(bucket, key)


def _of_seaweedfs(record: dict[str, Any]) -> Iterator[Change]:
    """Yield the keys in a record of SeaweedFS's filer, which has paths: /buckets/BUCKET/KEY."""
    message = record['message']
    new, old = _object(message.get('new_entry')), _object(message.get('old_entry'))
    if (new or old).get('is_directory'):
        return
    paths = {_text(record.get('key'))}
    if new and old:  # perhaps a rename
        paths.add(f'{_text(message.get("new_parent_path"))}/{_text(new.get("name"))}')
    for path in sorted(paths):
        match = re.fullmatch(r'/buckets/([^/.][^/]*)/(.+)', path, re.DOTALL)
        if match and not match[2].startswith('.uploads/'):  # parts of unfinished uploads
            yield Change(match[1], match[2])


def _bucket_and_key(described: Any) -> tuple[str, str]:
    bucket, found = _object(_object(described).get('bucket')), _object(_object(described).get('object'))
    return _text(bucket.get('name')), _text(found.get('key'))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    # S3 names have no surrogates, and databases do not accept them.
    return value if isinstance(value, str) and value.isprintable() else ''


def _confirmation(record: Any) -> Iterator[str]:
    """Yield the URL at which a person can confirm an SNS subscription, if it is one of AWS. It is not fetched."""
    if isinstance(record, dict) and record.get('Type') == 'SubscriptionConfirmation':
        url = _text(record.get('SubscribeURL'))
        if re.match(r'https://sns\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/', url):
            yield url


def find_token(body: bytes) -> list[str]:
    """Return the first ``opaqueData`` token of a body, if any: without a token, the body is not parsed at all.

    :param body: The body, not yet validated.
    """
    found = re.search(rb'opaqueData\\*"\s*:\s*\\*"([A-Za-z0-9._~-]{1,256})', body)
    return [found[1].decode()] if found else []


def need_token(storage: 'Optional[Storage]', offered: 'Iterable[str]') -> None:
    """Check the token of a request.

    :param storage: The RSE; None: it does not exist, which was logged.
    :param offered: The tokens in the request: there must be at least one, and all must be correct.
    :raises CannotAuthenticate: if not. The exception is the same for all reasons; the log has the reason.
    """
    token = storage.endpoint.events_token if storage else None
    brought = list(offered)
    # All are compared, so that the time does not reveal anything.
    equal = [hmac.compare_digest(each.encode(errors='replace'), (token or '').encode()) for each in brought]
    if token and equal and all(equal):
        return
    if storage and not token:
        warn_limited(
            (storage.rse_id, 'no token here'),
            f'S3 events for RSE {storage.rse} were refused: rucio.cfg [s3:{storage.rse}] has no events_token.',
        )
    elif storage:
        why = 'the token is wrong' if any(brought) else 'there was no token'
        warn_limited((storage.rse_id, why), f'S3 events for RSE {storage.rse} were refused: {why}.')
    raise CannotAuthenticate('The token is missing, or is not the events_token of the RSE.')


def warn_limited(reason: Hashable, text: str, trace: bool = False) -> None:
    """Log a warning; after several for the same reason, one per minute.

    :param reason: The key of the limit. It must not depend on input of clients.
    :param text: The warning.
    :param trace: Log the exception that is being handled.
    """
    if _LOG_LIMITER.available(reason) >= 1:
        last = _LOG_LIMITER.take(reason, 1) < 2
        _LOGGER.warning(
            '%s%s', text, ' (Further messages are limited to one per minute.)' if last else '', exc_info=trace
        )


# Processing


class _WorkLimit:
    """The limits of one request: the time left for its storage and buckets in this process, and bytes to read."""

    def __init__(self, storage: 'Storage') -> None:
        self._storage = storage.rse_id
        self._end = time.monotonic() + min(MAX_SECONDS, _STORAGE_LIMITER.available(self._storage))
        self.unread: Optional[int] = MAX_READ

    def is_over(self, bucket: str) -> bool:
        return time.monotonic() >= self._end or _BUCKET_LIMITER.available((self._storage, bucket)) <= 0

    @contextmanager
    def working(self, bucket: str = '') -> Iterator[None]:
        """Count the time of the enclosed work."""
        start = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - start
            _STORAGE_LIMITER.take(self._storage, spent)
            if bucket:
                _BUCKET_LIMITER.take((self._storage, bucket), spent)


def process(storage: 'Storage', changes: 'Iterable[Change]') -> Summary:
    """Check the keys, and update the catalogue, as far as the settings of the buckets allow.

    Costs two or three requests and a few queries per key; of new objects without a checksum, at most :data:`MAX_READ`
    bytes are read. After :data:`MAX_SECONDS` seconds, or if the limit of the storage or bucket is reached, the rest is
    only counted. Errors other than an outage are logged and counted as ``failed``: otherwise, storages would send the
    records forever.

    :param changes: The changes. Keys outside of scopes and imports are counted as ``unknown``, those left to the
        reconciler as ``left``.
    :raises ServiceUnavailable: if the storage does not answer. What was done is kept; all changes can be sent again.
    :raises DatabaseException: if the database fails.
    """
    storage, total = storage.with_shortest_timeouts, Summary()
    turn = _WorkLimit(storage)
    with turn.working():
        subtrees = _subtrees(storage, changes, total)
    for subtree, keys in subtrees:
        for first in range(0, len(keys), CHECK_CHUNK):
            if turn.is_over(subtree.bucket):
                total.counts['left'] += len(keys) - first
                break
            with turn.working(subtree.bucket):
                total.merge(_check(subtree, keys[first : first + CHECK_CHUNK], turn))
    if total.counts['left']:
        warn_limited(
            (storage.rse_id, 'left'),
            f'S3 events for RSE {storage.rse}: too many to process at once: {total.counts["left"]} are left to the '
            'reconciler.',
        )
    return total


def _check(subtree: Subtree, keys: list[str], turn: _WorkLimit) -> Summary:
    summary = Summary()
    try:
        with db_session(DatabaseOperationType.READ) as session:
            settings = bucket_settings.get(subtree.storage, subtree.bucket, session=session)
        reconciler = Reconciler(
            subtree,
            on_changed=settings.on_changed,
            on_missing=settings.on_missing,
            read_checksums=subtree.storage.endpoint.read_checksums,
        )
        summary = reconciler.summary
        turn.unread = reconciler.check(keys, turn.unread)
    except RETRY_LATER:
        raise
    except Exception:  # noqa: BLE001 - the storage cannot help, and sending it again would not either
        warn_limited(
            (subtree.storage.rse_id, 'error'),
            f"S3 events for RSE {subtree.storage.rse}: bucket '{subtree.bucket}'",
            trace=True,
        )
        summary.counts['failed'] += len(keys)
    for problem in summary.problems:
        if problem.kind in ('failed', 'over-limit'):
            warn_limited((subtree.storage.rse_id, problem.kind), f'S3 events: {problem.found}')
    if summary.counts['failed']:
        _need_storage(subtree)
    return summary


def _need_storage(subtree: Subtree) -> None:
    """Check that the storage is up if an object could not be checked.

    :raises ServiceUnavailable: if the storage does not answer.
    """
    with suppress(AccessDenied, RSEAccessDenied):
        lookup.exists(subtree.storage, subtree.bucket)


# Owners of keys


def _subtrees(storage: 'Storage', changes: 'Iterable[Change]', total: Summary) -> list[tuple[Subtree, list[str]]]:
    """Return the keys of each subtree.

    No session is open while they are processed, and no request is sent for unknown keys.
    """
    subtrees: dict[tuple[str, str, str], tuple[Subtree, list[str]]] = {}
    given = list(changes)
    possible = [
        each for each in given if len(each.bucket) <= _MAX_BUCKET_LENGTH and len(each.key.encode()) <= _MAX_KEY_BYTES
    ]
    find = _of_scopes if storage.layout.deterministic else _of_imports
    known = set()
    with db_session(DatabaseOperationType.READ) as session:
        for change, subtree in find(storage, possible, session):
            known.add(change)
            if is_valid_name(subtree.name_of(change.key), storage.vo):
                subtrees.setdefault((str(subtree.scope), subtree.name_prefix, subtree.key_prefix), (subtree, []))[
                    1
                ].append(change.key)
            else:  # with `..` in it, some servers would access another bucket
                total.counts['unnameable'] += 1
    total.counts['unknown'] += len(given) - len(known)
    return list(subtrees.values())


def _of_scopes(storage: 'Storage', changes: list[Change], session: 'Session') -> Iterator[tuple[Change, Subtree]]:
    """Yield the subtree of each change by its scope. One query for all."""
    mine = {each.bucket for each in changes if storage.layout.may_have(each.bucket)}
    names = {each: [name for name, _ in storage.layout.dids_of(*each)] for each in changes if each.bucket in mine}
    scopes = _existing(storage, {name for found in names.values() for name in found}, session)
    subtrees: dict[str, Subtree] = {}
    for change, found in names.items():
        owned = scopes.intersection(found)
        if len(owned) != 1:  # ambiguous
            continue
        (name,) = owned
        with suppress(RSEOperationNotSupported, RSEFileNameNotSupported):
            if name not in subtrees:
                subtrees[name] = Subtree.of(storage, InternalScope(name, vo=storage.vo))
            if not shared_keys.has_other_scopes(
                storage, subtrees[name].scope, change.bucket, change.key, session=session
            ):
                yield change, subtrees[name]


def _existing(storage: 'Storage', names: set[str], session: 'Session') -> set[str]:
    found: set[str] = set()
    wanted = iter(InternalScope(name, vo=storage.vo) for name in names)
    while some := list(islice(wanted, _MAX_IN_LIST)):
        found.update(
            str(scope)
            for scope in session.execute(select(models.Scope.scope).where(models.Scope.scope.in_(some))).scalars()
        )
    return found


def _of_imports(storage: 'Storage', changes: list[Change], session: 'Session') -> Iterator[tuple[Change, Subtree]]:
    """Yield the subtree of each change by the imports. One query."""
    told = {each.bucket for each in changes}
    known: dict[str, list[imports.Import]] = {}
    for each in imports.list_imports(storage, next(iter(told)) if len(told) == 1 else None, session=session):
        known.setdefault(each.bucket, []).append(each)
    for change in changes:
        for each in known.get(change.bucket, ()):
            if change.key.startswith(each.prefix):
                with suppress(RSEOperationNotSupported, RSEFileNameNotSupported):
                    yield (
                        change,
                        Subtree.imported(
                            storage, InternalScope(each.scope, vo=storage.vo), each.dataset, change.bucket, each.prefix
                        ),
                    )
