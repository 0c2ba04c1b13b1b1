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

"""What storages tell of their buckets: S3 event records, and following them in the catalogue.

A record is a hint, never a fact: it says which key to look at. What is done is what the object is *now*, so it
does no harm when records come twice, late, in another order, or not at all (the reconciler's daemon finds what
they missed). Nothing depends on their sequencers either: those of Ceph 16 have the bytes of their nanoseconds
reversed and do not sort.

So whoever forges a record, even with the right token, has the server look at an object of this RSE's own buckets, and
at nothing else; how long it looks has an end for each request, each bucket and each storage. What is left over then is
found by the reconciler.

Understood are the records of AWS, MinIO and Ceph, as they are and in what SNS, SQS and EventBridge wrap around them,
and those of SeaweedFS's filer.
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
# What one request may read of new objects whose checksum nothing tells: a larger one is registered without, for the
# reconciler to read.
MAX_READ = 64 * 1024 * 1024
MAX_SECONDS = 2.0  # seconds after which a request begins nothing new
CHECK_CHUNK = 20  # objects that are looked at together, between two looks at the clock
_MAX_NESTING = 4  # wrappers
# Of objects and lists in a record: a million empty lists keep Python's garbage collector busy for a second.
_MAX_BRACKETS = 32
_TOO_MANY = f'There are more than {MAX_RECORDS} records, which is what is taken at once: send them in smaller batches.'
_MAX_BUCKET_LENGTH, _MAX_KEY_BYTES = 255, 1024  # characters, of old buckets of Ceph, and bytes
_MAX_IN_LIST = 500  # scopes that are asked for at once

# Seconds of work of this process: half of its time for the events of a storage, a quarter for those of one bucket, and
# a rush now and then.
_STORAGE_LIMITER = RateLimiter(at_once=30, per_second=0.5)
_BUCKET_LIMITER = RateLimiter(at_once=15, per_second=0.25)
# Lines in the log: a few at once for each reason, then one in a minute. Whoever is refused decides how often he asks.
_LOG_LIMITER = RateLimiter(at_once=5, per_second=1 / 60)
# Told again later, the records do what they could not do now.
RETRY_LATER = (DatabaseException, ServiceUnavailable, ResourceTemporaryUnavailable)

# Without the "s3:" that some put before them.
_EVENTS = (
    'ObjectCreated:',
    'ObjectRemoved:',
    'ObjectSynced:',
    'LifecycleExpiration:',
    'ObjectLifecycle:Expiration:',
    'Object Created',
    'Object Deleted',
)
_ENCODED = ('aws:s3', 'minio:s3')  # whose keys are surely URL-encoded


class Change(NamedTuple):
    """Something happened to this key. What else a record says of it is not asked for: what the object is counts."""

    bucket: str
    key: str


class Batch(NamedTuple):
    """What one request told.

    :param changes: Each key once.
    :param counts: ``records``, and of these ``skipped``: they tell of nothing that matters here, or are not understood.
    :param opaque: What each record brought as ``opaqueData``, empty where it brought nothing.
    :param confirmations: Where a person can confirm that SNS may send its notifications.
    """

    changes: list[Change]
    counts: 'Counter[str]'
    opaque: set[str]
    confirmations: list[str]


# Reading


def parse(body: bytes) -> Batch:
    """Read what a storage sent. Costs memory for a few times the body.

    :param body: JSON, of at most :data:`MAX_BODY` bytes.
    :raises InputValidationError: if it is no JSON, or has more than :data:`MAX_RECORDS` records.
    """
    if body.count(b'{') + body.count(b'[') > _MAX_BRACKETS * MAX_RECORDS:
        raise InputValidationError(_TOO_MANY)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise InputValidationError('The body is no JSON, or too deep: S3 event records were expected.') from None
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
    """The records inside of whatever was wrapped around them."""
    records: list[Any] = []
    seen, waiting = 0, [(document, 0)]
    while waiting:
        each, depth = waiting.pop()
        seen += 1
        inside = _wrapped(each)
        if inside is None:
            records.append(each)
        elif depth > _MAX_NESTING:
            raise InputValidationError('The body is too deep: S3 event records were expected.')
        else:
            waiting += ((one, depth + 1) for one in inside)
        if len(records) > MAX_RECORDS or seen > (_MAX_NESTING + 1) * MAX_RECORDS:
            raise InputValidationError(_TOO_MANY)
    return records


def _wrapped(document: Any) -> Optional[list[Any]]:
    """What is inside of a wrapper; None: it is a record."""
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
    """The keys that a record tells of. None where it is of another kind."""
    if not isinstance(record, dict):
        return
    if isinstance(record.get('s3'), dict):
        yield from _of_s3(record)
    elif record.get('source') == 'aws.s3' and _text(record.get('detail-type')).startswith(_EVENTS):
        yield from _of_eventbridge(record)
    elif 'event_type' in record and isinstance(record.get('message'), dict):
        yield from _of_seaweedfs(record)


def _of_s3(record: dict[str, Any]) -> Iterator[Change]:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html"""
    if not _text(record.get('eventName')).removeprefix('s3:').startswith(_EVENTS):
        return
    bucket, key = _bucket_and_key(record['s3'])
    # Ceph 16 sends the key as it is, others encode it: to look at both costs one request, and only where they differ.
    keys = {_text(unquote_plus(key))} | (set() if record.get('eventSource') in _ENCODED else {key})
    for each in sorted(keys - {''}) if bucket else ():
        yield Change(bucket, each)


def _of_eventbridge(record: dict[str, Any]) -> Iterator[Change]:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html: here keys are not encoded."""
    bucket, key = _bucket_and_key(record.get('detail'))
    if bucket and key:
        yield Change(bucket, key)


def _of_seaweedfs(record: dict[str, Any]) -> Iterator[Change]:
    """Its filer tells of files, by their path: /buckets/BUCKET/KEY."""
    message = record['message']
    new, old = _object(message.get('new_entry')), _object(message.get('old_entry'))
    if (new or old).get('is_directory'):
        return
    paths = {_text(record.get('key'))}
    if new and old:  # perhaps a rename
        paths.add(f'{_text(message.get("new_parent_path"))}/{_text(new.get("name"))}')
    for path in sorted(paths):
        match = re.fullmatch(r'/buckets/([^/.][^/]*)/(.+)', path, re.DOTALL)
        if match and not match[2].startswith('.uploads/'):  # parts of an upload that is not finished
            yield Change(match[1], match[2])


def _bucket_and_key(described: Any) -> tuple[str, str]:
    bucket, found = _object(_object(described).get('bucket')), _object(_object(described).get('object'))
    return _text(bucket.get('name')), _text(found.get('key'))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    # No S3 name has a half of a surrogate pair, and no database takes one.
    return value if isinstance(value, str) and value.isprintable() else ''


def _confirmation(record: Any) -> Iterator[str]:
    """Nothing is fetched from there: that is a person's decision. Others than AWS's own host are nobody's business."""
    if isinstance(record, dict) and record.get('Type') == 'SubscriptionConfirmation':
        url = _text(record.get('SubscribeURL'))
        if re.match(r'https://sns\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/', url):
            yield url


def find_token(body: bytes) -> list[str]:
    """The first token of a body that brings its own (``opaqueData``), or nothing. Who has not even that need not have
    his JSON read.
    """
    found = re.search(rb'opaqueData\\*"\s*:\s*\\*"([A-Za-z0-9._~-]{1,256})', body)
    return [found[1].decode()] if found else []


def need_token(storage: 'Optional[Storage]', offered: 'Iterable[str]') -> None:
    """Whether who asks knows the token of the RSE.

    :param storage: The RSE; None: there is none of that name, which was logged.
    :param offered: What was brought: all of them have to be the token, and at least one.
    :raises CannotAuthenticate: if not. It is the same for all reasons; the log says which.
    """
    token = storage.endpoint.events_token if storage else None
    brought = list(offered)
    # Each is compared, whatever the others are: the time that it takes tells nothing.
    equal = [hmac.compare_digest(each.encode(errors='replace'), (token or '').encode()) for each in brought]
    if token and equal and all(equal):
        return
    if storage and not token:
        warn_limited(
            (storage.rse_id, 'no token here'),
            f'S3 events for RSE {storage.rse} were refused: rucio.cfg [s3:{storage.rse}] has no events_token.',
        )
    elif storage:
        why = 'the token is another one' if any(brought) else 'there was no token'
        warn_limited((storage.rse_id, why), f'S3 events for RSE {storage.rse} were refused: {why}.')
    raise CannotAuthenticate('The token is missing, or it is not that of the RSE (events_token).')


def warn_limited(reason: Hashable, text: str, trace: bool = False) -> None:
    """A warning in the log, unless there were several for the same reason: then one in a minute.

    :param reason: Nothing that whoever asks can make up: each has lines of its own.
    :param trace: With the exception that is being handled.
    """
    if _LOG_LIMITER.available(reason) >= 1:
        last = _LOG_LIMITER.take(reason, 1) < 2
        _LOGGER.warning('%s%s', text, ' (From now on one such line in a minute.)' if last else '', exc_info=trace)


# Following


class _WorkLimit:
    """What one request may take: of the time that its storage, and each bucket of it, has of this process, and of bytes
    to read.
    """

    def __init__(self, storage: 'Storage') -> None:
        self._storage = storage.rse_id
        self._end = time.monotonic() + min(MAX_SECONDS, _STORAGE_LIMITER.available(self._storage))
        self.unread: Optional[int] = MAX_READ

    def is_over(self, bucket: str) -> bool:
        return time.monotonic() >= self._end or _BUCKET_LIMITER.available((self._storage, bucket)) <= 0

    @contextmanager
    def working(self, bucket: str = '') -> Iterator[None]:
        """What takes time goes here."""
        start = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - start
            _STORAGE_LIMITER.take(self._storage, spent)
            if bucket:
                _BUCKET_LIMITER.take((self._storage, bucket), spent)


def process(storage: 'Storage', changes: 'Iterable[Change]') -> Summary:
    """Look at the keys, and make the catalogue say what they are, as far as the settings of their bucket allow.

    Costs two or three requests and a few queries for each key; of new objects whose checksum nothing tells,
    :data:`MAX_READ` bytes are read. After :data:`MAX_SECONDS` seconds, or where storage or bucket had their share
    of this process, what is left is only counted. What cannot be done for another reason than that somebody is
    down is logged and counted as ``failed``: storages tell of it again and again, for ever, if they are not told
    that it is done.

    :param storage: The RSE.
    :param changes: Where something happened. What is not of a scope, or of an import, is counted as ``unknown``, what
        is left to the reconciler as ``left``.
    :raises ServiceUnavailable: if the storage does not answer. What was done until then is done; it can all be
        told again.
    :raises DatabaseException: if the database does not.
    """
    storage, total = storage.hurried, Summary()
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
            f'S3 events for RSE {storage.rse}: too many to follow at once: {total.counts["left"]} are left to the '
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
    except Exception:  # noqa: BLE001 - none of the storage's business, and the same again if it were told
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
    """Whether it is the storage that is down, or only an object that cannot be looked at.

    :raises ServiceUnavailable: if the storage does not answer.
    """
    with suppress(AccessDenied, RSEAccessDenied):
        lookup.exists(subtree.storage, subtree.bucket)


# Whose a key is


def _subtrees(storage: 'Storage', changes: 'Iterable[Change]', total: Summary) -> list[tuple[Subtree, list[str]]]:
    """The keys of each part of a bucket. No session is open while they are worked on, and no request is made for what
    belongs to nobody.
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
            else:  # `..` in it would be another bucket to some servers
                total.counts['unnameable'] += 1
    total.counts['unknown'] += len(given) - len(known)
    return list(subtrees.values())


def _of_scopes(storage: 'Storage', changes: list[Change], session: 'Session') -> Iterator[tuple[Change, Subtree]]:
    """The scope's bucket, or its part of the one that all share. One query for all."""
    mine = {each.bucket for each in changes if storage.layout.may_have(each.bucket)}
    names = {each: [name for name, _ in storage.layout.dids_of(*each)] for each in changes if each.bucket in mine}
    scopes = _existing(storage, {name for found in names.values() for name in found}, session)
    subtrees: dict[str, Subtree] = {}
    for change, found in names.items():
        owned = scopes.intersection(found)
        if len(owned) != 1:  # of several nobody can say whose it is
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
    """The imports of the buckets. One query."""
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
