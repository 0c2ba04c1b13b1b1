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

A record is a hint, never a fact: it says which key to look at. What is done is what the object is *now*, so it does no harm when
records come twice, late, in another order, or not at all (the reconciler's daemon finds what they missed). Nothing depends on
their sequencers either: those of Ceph 16 have the bytes of their nanoseconds reversed and do not sort.

Understood are the records of AWS, MinIO and Ceph, as they are and in what SNS, SQS and EventBridge wrap around them, and those of
SeaweedFS's filer.
"""

import hmac
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Optional
from urllib.parse import unquote_plus

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
from rucio.common.types import InternalScope
from rucio.core.scope import check_scope
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

from . import bucket_settings, buckets, imports
from .parts import Part
from .reconciler import Reconciler, Summary

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from .storages import Storage

__all__ = ['LATER', 'MAX_BODY', 'MAX_RECORDS', 'Batch', 'Change', 'follow', 'need_token', 'parse']

_LOGGER = logging.getLogger(__name__)

MAX_BODY = 1024 * 1024  # bytes
MAX_RECORDS = 1000
# What one request may read of new objects whose checksum nothing tells: a larger one is registered without, for the reconciler to read.
MAX_READ = 64 * 1024 * 1024
_DEEPEST = 4  # wrappers
# Told again later, the records do what they could not do now.
LATER = (DatabaseException, ServiceUnavailable, ResourceTemporaryUnavailable)

# Without the "s3:" that some put before them.
_EVENTS = ('ObjectCreated:', 'ObjectRemoved:', 'ObjectSynced:', 'LifecycleExpiration:', 'ObjectLifecycle:Expiration:', 'Object Created', 'Object Deleted')
_ENCODED = ('aws:s3', 'minio:s3')  # whose keys are surely URL-encoded


class Change(NamedTuple):
    """Something happened to this key. The size is what the record says, 0 where it says nothing."""

    bucket: str
    key: str
    size: int


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
    try:
        records = list(_records(json.loads(body)))
    except (ValueError, RecursionError):
        raise InputValidationError('The body is no JSON, or too deep: S3 event records were expected.') from None
    if len(records) > MAX_RECORDS:
        raise InputValidationError(f'There are {len(records)} records, but only {MAX_RECORDS} are taken at once: send them in smaller batches.')
    batch = Batch([], Counter(records=len(records), skipped=0), set(), [])
    sizes: dict[tuple[str, str], int] = {}
    for record in records:
        batch.opaque.add(_text(record.get('opaqueData')) if isinstance(record, dict) else '')
        found = list(_changes(record))
        if not found:
            batch.counts['skipped'] += 1
            batch.confirmations.extend(_confirmation(record))
        for change in found:
            place = change.bucket, change.key
            sizes[place] = max(sizes.get(place, 0), change.size)
    batch.changes.extend(Change(*place, size) for place, size in sizes.items())
    return batch


def _records(document: Any, depth: int = 0) -> Iterator[Any]:
    """The records inside of whatever was wrapped around them."""
    if depth > _DEEPEST:
        raise RecursionError
    if isinstance(document, list):
        inside: Any = document
    elif not isinstance(document, dict):
        inside = None
    elif isinstance(document.get('Records'), list):  # S3 itself, SQS
        inside = document['Records']
    elif document.get('Type') == 'Notification' and isinstance(document.get('Message'), str):  # SNS
        inside = [_loaded(document['Message'])]
    elif isinstance(document.get('body'), str):  # SQS
        inside = [_loaded(document['body'])]
    else:
        inside = None
    if inside is None:
        yield document
        return
    for each in inside:
        yield from _records(each, depth + 1)


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _changes(record: Any) -> Iterator[Change]:
    """The keys that a record tells of. None where it is of another kind."""
    if not isinstance(record, dict):
        return
    if isinstance(record.get('s3'), dict):
        yield from _of_s3(record)
    elif record.get('source') == 'aws.s3' and str(record.get('detail-type')).startswith(_EVENTS):
        yield from _of_eventbridge(record)
    elif 'event_type' in record and isinstance(record.get('message'), dict):
        yield from _of_seaweedfs(record)


def _of_s3(record: dict[str, Any]) -> Iterator[Change]:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html"""
    if not _text(record.get('eventName')).removeprefix('s3:').startswith(_EVENTS):
        return
    bucket, key, size = _place(record['s3'])
    # Ceph 16 sends the key as it is, others encode it: to look at both costs one request, and only where they differ.
    keys = {_text(unquote_plus(key))} | (set() if record.get('eventSource') in _ENCODED else {key})
    for each in sorted(keys - {''}) if bucket else ():
        yield Change(bucket, each, size)


def _of_eventbridge(record: dict[str, Any]) -> Iterator[Change]:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html: here keys are not encoded."""
    bucket, key, size = _place(record.get('detail'))
    if bucket and key:
        yield Change(bucket, key, size)


def _of_seaweedfs(record: dict[str, Any]) -> Iterator[Change]:
    """Its filer tells of files, by their path: /buckets/BUCKET/KEY."""
    message = record['message']
    new, old = _object(message.get('new_entry')), _object(message.get('old_entry'))
    if (new or old).get('is_directory'):
        return
    paths = {_text(record.get('key'))}
    if new and old:  # perhaps a rename
        paths.add(f'{_text(message.get("new_parent_path"))}/{_text(new.get("name"))}')
    size = _size(_object(new.get('attributes')).get('file_size'))
    for path in sorted(paths):
        match = re.fullmatch(r'/buckets/([^/.][^/]*)/(.+)', path, re.DOTALL)
        if match and not match[2].startswith('.uploads/'):  # parts of an upload that is not finished
            yield Change(match[1], match[2], size)


def _place(described: Any) -> tuple[str, str, int]:
    bucket, found = _object(_object(described).get('bucket')), _object(_object(described).get('object'))
    return _text(bucket.get('name')), _text(found.get('key')), _size(found.get('size'))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    # No S3 name has a half of a surrogate pair, and no database takes one.
    return value if isinstance(value, str) and value.isprintable() else ''


def _size(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _confirmation(record: Any) -> Iterator[str]:
    """Nothing is fetched from there: that is a person's decision. Others than AWS's own host are nobody's business."""
    if isinstance(record, dict) and record.get('Type') == 'SubscriptionConfirmation':
        url = _text(record.get('SubscribeURL'))
        if re.match(r'https://sns\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/', url):
            yield url


def need_token(storage: 'Optional[Storage]', offered: 'Iterable[str]') -> None:
    """Whether who asks knows the token of the RSE.

    :param storage: The RSE; None: there is none of that name.
    :param offered: What was brought: all of them have to be the token, and at least one.
    :raises CannotAuthenticate: if not. It is the same for all reasons; the log says which.
    """
    token = storage.endpoint.events_token if storage else None
    brought = list(offered)
    # Each is compared, whatever the others are: the time that it takes tells nothing.
    equal = [hmac.compare_digest(each.encode(errors='replace'), (token or '').encode()) for each in brought]
    if token and equal and all(equal):
        return
    if storage is None:
        _LOGGER.warning('S3 events were refused: there is no S3 RSE of that name, or its settings are wrong.')
    elif not token:
        _LOGGER.warning('S3 events for RSE %s were refused: rucio.cfg [s3:%s] has no events_token.', storage.rse, storage.rse)
    else:
        _LOGGER.warning('S3 events for RSE %s were refused: %s.', storage.rse, 'the token is another one' if any(brought) else 'there was no token')
    raise CannotAuthenticate('The token is missing, or it is not that of the RSE (events_token).')


# Following


def follow(storage: 'Storage', changes: 'Iterable[Change]') -> Summary:
    """Look at the keys, and make the catalogue say what they are, as far as the settings of their bucket allow.

    Costs two or three requests and a few queries for each key; of new objects whose checksum nothing tells, :data:`MAX_READ` bytes are
    read. What cannot be done for another reason than that somebody is down is logged and counted as ``failed``: storages tell of it again
    and again, for ever, if they are not told that it is done.

    :param storage: The RSE.
    :param changes: Where something happened. What is not of a scope, or of an import, is counted as ``unknown``.
    :raises ServiceUnavailable: if the storage does not answer. What was done until then is done; it can all be told again.
    :raises DatabaseException: if the database does not.
    """
    total = Summary()
    left = MAX_READ
    for part, told in _parts(storage, changes, total):
        small: list[str] = []
        large: list[str] = []
        for change in told:
            left -= change.size
            (small if left >= 0 else large).append(change.key)
        for keys, read in ((small, storage.endpoint.read_checksums), (large, False)):
            if keys:
                total.merge(_checked(part, keys, read))
    return total


def _checked(part: Part, keys: list[str], read: bool) -> Summary:
    summary = Summary()
    try:
        with db_session(DatabaseOperationType.READ) as session:
            settings = bucket_settings.get(part.storage, part.bucket, session=session)
        reconciler = Reconciler(part, on_changed=settings.on_changed, on_missing=settings.on_missing, read_checksums=read)
        summary = reconciler.summary
        # Also here: records may say nothing of the size, and somebody may have put a larger object there since.
        reconciler.check(keys, MAX_READ)
    except LATER:
        raise
    except Exception:
        _LOGGER.exception("S3 events for RSE %s: bucket '%s'", part.storage.rse, part.bucket)
        summary.counts['failed'] += len(keys)
    for problem in summary.problems:
        if problem.kind in ('failed', 'over-limit'):
            _LOGGER.warning('S3 events: %s', problem.found)
    if summary.counts['failed']:
        _need_storage(part)
    return summary


def _need_storage(part: Part) -> None:
    """Whether it is the storage that is down, or only an object that cannot be looked at.

    :raises ServiceUnavailable: if the storage does not answer.
    """
    with suppress(AccessDenied, RSEAccessDenied):
        buckets.exists(part.storage, part.bucket)


def _parts(storage: 'Storage', changes: 'Iterable[Change]', total: Summary) -> list[tuple[Part, list[Change]]]:
    """The changes of each part of a bucket. No session is open while they are worked on."""
    parts: dict[tuple[str, str, str], tuple[Part, list[Change]]] = {}
    scopes: dict[str, bool] = {}
    with db_session(DatabaseOperationType.READ) as session:
        for change in changes:
            places = list(_places(storage, change, scopes, session))
            if not places:
                total.counts['unknown'] += 1
            for part in places:
                parts.setdefault((str(part.scope), part.name_prefix, part.key_prefix), (part, []))[1].append(change)
    return list(parts.values())


def _places(storage: 'Storage', change: Change, scopes: dict[str, bool], session: 'Session') -> Iterator[Part]:
    """The parts that a key belongs to: the scope's, or those of the imports."""
    try:
        if not storage.settings['deterministic']:
            for scope, dataset, prefix in imports.covering(storage, change.bucket, change.key, session=session):
                yield Part.imported(storage, scope, dataset, change.bucket, prefix)
            return
        owned = []
        for name, _ in storage.dids_of(change.bucket, change.key):
            if name not in scopes:
                scopes[name] = check_scope(InternalScope(name, vo=storage.vo), session=session)
            if scopes[name]:
                owned.append(name)
        if len(owned) == 1:  # of several nobody can say whose it is
            yield Part.of(storage, InternalScope(owned[0], vo=storage.vo))
    except (RSEOperationNotSupported, RSEFileNameNotSupported):
        return
