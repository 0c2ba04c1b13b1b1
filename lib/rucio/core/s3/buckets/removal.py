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

"""Removal of buckets and of collections in them.

The catalogue stays correct if it is interrupted, and a second run completes it.

The order is that of Rucio's own reaper: delete the rules, mark the replicas as being deleted, delete the objects, then
the replicas.
"""

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError
from sqlalchemy import and_, func, select, true, update

from rucio.common.exception import DestinationNotAccessible, RucioException, SourceNotFound, UnsupportedOperation
from rucio.common.s3 import objects
from rucio.common.s3.answers import line_logger
from rucio.common.s3.errors import Target, status_of, translated
from rucio.common.s3.parsing import UnreadableAnswerError
from rucio.core.did import set_metadata
from rucio.core.replica import delete_replicas
from rucio.core.rule import delete_rule
from rucio.core.s3.auth import grants
from rucio.core.s3.references import delete_references
from rucio.core.s3.subtrees import Subtree
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, DIDType, ReplicaState
from rucio.db.sqla.session import db_session

from . import lookup, named_users, publishing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount, InternalScope
    from rucio.core.s3.storages import Storage

__all__ = ['remove']

_LOGGER = line_logger(__name__)

MAX_SECONDS = 60  # limit for deletions in one call
BATCH_SIZE = 1000  # S3's limit for DeleteObjects

# Measured: after PUT ?versionId=x, Ceph RGW 16 lists a key forever.
_UNDELETABLE = (
    "{subtree} cannot be emptied: RSE {rse} still lists '{key}' in bucket '{bucket}' after it was deleted. Ask the "
    'operator of the storage to remove the bucket (Ceph: radosgw-admin bucket rm --bucket=NAME --purge-objects).'
)


def remove(
    storage: 'Storage', account: 'InternalAccount', scope: 'InternalScope', name: str, force: bool
) -> dict[str, Any]:
    """Remove a collection and its rules from an RSE, and the bucket if it contains nothing else.

    :param storage: The RSE.
    :param account: The account whose rules are deleted.
    :param scope: The scope.
    :param name: The collection; empty: the whole bucket of the scope.
    :param force: Also delete objects and replicas; otherwise, the removal is refused if there are any.
    :returns: rse, bucket, ``removed`` (rules, objects, replicas, datasets, bucket), and ``finished``: False if there is
        more to delete after :data:`MAX_SECONDS`.
    :raises UnsupportedOperation: if it is not empty, or a file in it is protected by another rule.
    """
    subtree = Subtree.of(storage, scope, name)
    if not force:
        with db_session(DatabaseOperationType.READ) as session:
            _refuse_known(subtree, session)
        _refuse_objects(subtree)
    with db_session(DatabaseOperationType.WRITE) as session:
        rules, collections = _delete_rules(subtree, account, force, session)
    count, replicas, finished = _empty(subtree) if force else (0, 0, True)
    removed: dict[str, Any] = {'rules': rules, 'objects': count, 'replicas': replicas, 'datasets': 0, 'bucket': False}
    if finished:
        with db_session(DatabaseOperationType.READ) as session:
            states = {each: _state(subtree, each, session) for each in collections}
        going = [each for each, state in states.items() if state in ('unused', 'erased')]
        for each in going:
            # Nobody may read objects written there later. If a storage does not answer, rucio-s3-reconciler tries
            # again.
            _warn(f'{scope}:{each} may still be public', publishing.withdraw(scope, each))
            _warn(f'{scope}:{each} may still be readable for users of its own', named_users.withdraw(scope, each)[1])
        with db_session(DatabaseOperationType.WRITE) as session:
            for each in going:
                if states[each] == 'unused':
                    removed['datasets'] += 1
                    set_metadata(scope=scope, name=each, key='lifetime', value=0, session=session)
                # A new collection of this name is not shared with the same accounts.
                grants.delete_grants(scope, each, session=session)
            unused = not lookup.has_anything(scope, storage, session=session)
        removed['bucket'] = unused and _remove_bucket(subtree)
    return {'rse': storage.rse, 'bucket': subtree.bucket, 'finished': finished, 'removed': removed}


def _warn(still: str, failed: 'dict[Storage, RucioException]') -> None:
    for storage, error in failed.items():
        _LOGGER.warning('S3: %s on RSE %s: %s', still, storage.rse, error.args[0] if error.args else error)


def _refuse_known(subtree: Subtree, session: 'Session') -> None:
    content, replica, lock = models.DataIdentifierAssociation, models.RSEFileAssociation, models.DatasetLock
    if name := _collection(subtree):
        question = select(content.child_name).where(and_(content.scope == subtree.scope, content.name == name))
        if child := session.execute(question.limit(1)).scalar():
            raise _not_empty(subtree, f"'{child}' belongs to it. Remove what is in it first")
    question = select(replica.name).where(
        and_(replica.scope == subtree.scope, replica.rse_id == subtree.storage.rse_id, _below(subtree, replica.name))
    )
    if file := session.execute(question.limit(1)).scalar():
        raise _not_empty(
            subtree, f'there is the file {subtree.scope}:{file} on RSE {subtree.storage.rse}. Remove it first'
        )
    question = select(lock.name).where(
        and_(lock.scope == subtree.scope, lock.rse_id == subtree.storage.rse_id, _below(subtree, lock.name))
    )
    if dataset := session.execute(question.limit(1)).scalar():
        raise _not_empty(subtree, f'a rule keeps {subtree.scope}:{dataset} there. Remove that first')


def _refuse_objects(subtree: Subtree) -> None:
    """Refuse if there are objects that are not in the catalogue."""
    try:
        first = next(
            objects.list_objects(subtree.storage.connection().client, subtree.target(subtree.name_prefix)), None
        )
    except (SourceNotFound, DestinationNotAccessible):  # no such bucket
        return
    if first:
        raise _not_empty(subtree, f"there is the object '{first[0]}' in bucket '{subtree.bucket}'. Remove it first")


def _not_empty(subtree: Subtree, found: str) -> UnsupportedOperation:
    return UnsupportedOperation(f'{_title(subtree)} is not empty: {found}, or use --force.')


def _delete_rules(
    subtree: Subtree, account: 'InternalAccount', force: bool, session: 'Session'
) -> tuple[int, list[str]]:
    """Delete the rules of the account, unless a file would remain protected by another rule.

    :returns: The number of rules, and the collections to delete if they are empty.
    """
    rule, dataset_lock = models.ReplicationRule, models.DatasetLock
    name = _collection(subtree)
    wanted = rule.name == name
    if force:
        wanted = wanted | _below(subtree, rule.name) if name else true()
    locked = select(dataset_lock.rule_id).where(
        and_(dataset_lock.scope == subtree.scope, dataset_lock.rse_id == subtree.storage.rse_id)
    )
    here = (rule.rse_expression == subtree.storage.rse) | rule.id.in_(locked)
    rows = session.execute(
        select(rule.id, rule.name, rule.rse_expression).where(
            and_(rule.account == account, rule.scope == subtree.scope, wanted, here)
        )
    ).all()
    for row in rows:
        if row.rse_expression != subtree.storage.rse and _is_elsewhere(row.id, subtree.storage, session):
            raise UnsupportedOperation(
                f'The rule {row.id} ({row.rse_expression}) also keeps {subtree.scope}:{row.name} on other RSEs: delete '
                'it (rucio rule remove), then try again.'
            )
    if force:
        _refuse_protected(subtree, [row.id for row in rows], session)
    for row in rows:
        delete_rule(rule_id=row.id, session=session)
    return len(rows), sorted({name} - {''} | {row.name for row in rows})


def _is_elsewhere(rule_id: str, storage: 'Storage', session: 'Session') -> bool:
    return any(
        session.execute(
            select(lock.name).where(and_(lock.rule_id == rule_id, lock.rse_id != storage.rse_id)).limit(1)
        ).first()
        for lock in (models.ReplicaLock, models.DatasetLock)
    )


def _refuse_protected(subtree: Subtree, going: list[str], session: 'Session') -> None:
    lock = models.ReplicaLock
    stays = lock.rule_id.notin_(going) if going else true()
    question = select(lock.name, lock.account, lock.rule_id).where(
        and_(lock.scope == subtree.scope, lock.rse_id == subtree.storage.rse_id, _below(subtree, lock.name), stays)
    )
    if found := session.execute(question.limit(1)).first():
        raise UnsupportedOperation(
            f'{subtree.scope}:{found.name} is protected by the rule {found.rule_id} of account {found.account}, so '
            'nothing was removed. Ask for that rule to be deleted first.'
        )


def _empty(subtree: Subtree) -> tuple[int, int, bool]:
    """Delete all objects, registered or not, and their replicas.

    :returns: The number of objects and replicas, and whether all were deleted.
    """
    end = time.monotonic() + MAX_SECONDS
    deleted, forgotten = 0, 0
    before: list[str] = []
    refused: dict[str, RucioException] = {}
    _abort_uploads(subtree)
    while listed := _first_keys(subtree):
        keys = [key for key in listed if key not in refused]
        if not keys:
            raise refused[listed[0]]
        if time.monotonic() > end:
            return deleted, forgotten, False
        if set(keys) <= set(before):
            raise UnsupportedOperation(
                _UNDELETABLE.format(
                    subtree=_title(subtree), key=keys[0], rse=subtree.storage.rse, bucket=subtree.bucket
                )
            )
        before = keys
        failures, replicas = _delete_known(subtree, keys)
        refused |= failures
        deleted += len(keys) - len(failures)
        forgotten += replicas
    while time.monotonic() <= end:
        # Replicas without an object, of interrupted removals or uploads.
        with db_session(DatabaseOperationType.WRITE) as session:
            count = _delete_replicas(subtree, _below(subtree, models.RSEFileAssociation.name), session)
        forgotten += count
        if count < BATCH_SIZE:
            return deleted, forgotten, True
    return deleted, forgotten, False


def _delete_known(subtree: Subtree, keys: list[str]) -> tuple[dict[str, RucioException], int]:
    """Delete objects and their replicas.

    :returns: Why some objects were not deleted, by key, and how many replicas were.
    :raises RucioException: if none was deleted.
    """
    with db_session(DatabaseOperationType.WRITE) as session:
        _mark(subtree, [subtree.name_of(key) for key in keys], session)
    failures = _delete_objects(subtree, keys)
    names = [subtree.name_of(key) for key in keys if key not in failures]
    with db_session(DatabaseOperationType.WRITE) as session:
        return failures, _delete_replicas(subtree, models.RSEFileAssociation.name.in_(names), session)


def _first_keys(subtree: Subtree) -> list[str]:
    """Return the first keys: deleted ones are not listed again."""
    place = subtree.target(subtree.name_prefix)
    try:
        page = next(objects.list_pages(subtree.storage.connection().client, place, MaxKeys=BATCH_SIZE))
        return [each['Key'] for each in page.get('Contents', [])]
    except (SourceNotFound, DestinationNotAccessible):  # no such bucket
        return []


def _abort_uploads(subtree: Subtree) -> None:
    """Abort multipart uploads, which would keep the bucket from being removed, or create objects again."""
    client = subtree.storage.connection().client
    try:
        with translated('remove-bucket', subtree.target(subtree.name_prefix)):
            for key, upload in _uploads(client, subtree):
                with suppress(client.exceptions.NoSuchUpload):  # it has ended meanwhile
                    client.abort_multipart_upload(Bucket=subtree.bucket, Key=key, UploadId=upload)
    except (SourceNotFound, DestinationNotAccessible):
        return


def _uploads(client: Any, subtree: Subtree) -> 'Iterator[tuple[str, str]]':
    """Yield key and upload id of the unfinished multipart uploads. One request for each 1000."""
    marker: dict[str, Any] = {}
    while True:
        try:
            answer = client.list_multipart_uploads(Bucket=subtree.bucket, Prefix=subtree.key_prefix, **marker)
        except client.exceptions.NoSuchUpload:  # the answer of `rclone serve s3` if there are none
            return
        except ClientError as error:
            if status_of(error) in (405, 501):  # it has no multipart uploads, or keeps them to itself
                return
            raise
        for each in answer.get('Uploads', []):
            key, upload = each.get('Key'), each.get('UploadId')
            if key and upload:
                if key.startswith(subtree.key_prefix):  # a storage may ignore Prefix
                    yield key, upload
            else:
                _LOGGER.warning(
                    "RSE %s, bucket '%s': the storage lists a multipart upload without its key or id, which cannot be "
                    'aborted. Tell its operator.',
                    subtree.storage.rse,
                    subtree.bucket,
                )
        markers = {'KeyMarker': answer.get('NextKeyMarker'), 'UploadIdMarker': answer.get('NextUploadIdMarker')}
        before, marker = marker, {name: value for name, value in markers.items() if value}
        if not answer.get('IsTruncated') or marker in ({}, before):
            return


def _mark(subtree: Subtree, names: list[str], session: 'Session') -> None:
    """Mark replicas as being deleted, so that they are neither read nor locked."""
    replica = models.RSEFileAssociation
    these = and_(replica.scope == subtree.scope, replica.rse_id == subtree.storage.rse_id, replica.name.in_(names))
    if locked := session.execute(select(replica.name).where(and_(these, replica.lock_cnt > 0)).limit(1)).scalar():
        raise UnsupportedOperation(
            f'{subtree.scope}:{locked} was protected by a new rule in the meantime. Ask for that rule to be deleted, '
            'then try again.'
        )
    stmt = (
        update(replica)
        .where(and_(these, replica.lock_cnt == 0))
        .values(state=ReplicaState.BEING_DELETED)
        .execution_options(synchronize_session=False)
    )
    session.execute(stmt)


def _delete_objects(subtree: Subtree, keys: list[str]) -> dict[str, RucioException]:
    """Delete objects.

    :returns: Why some were not deleted, by key.
    :raises RucioException: if none was deleted.
    """
    targets = [Target(subtree.storage.rse, subtree.bucket, key) for key in keys]
    result = objects.delete_many(subtree.storage.connection(), targets)
    failures = {target.key: error for target, error in result.items() if error is not None}
    if len(failures) == len(result):
        raise next(iter(failures.values()))
    return failures


def _delete_replicas(subtree: Subtree, which: Any, session: 'Session') -> int:
    """Delete at most :data:`BATCH_SIZE` replicas from the catalogue, with the files that have no others."""
    replica = models.RSEFileAssociation
    stmt = select(replica.scope, replica.name).where(
        and_(replica.scope == subtree.scope, replica.rse_id == subtree.storage.rse_id, replica.lock_cnt == 0, which)
    )
    files = [{'scope': row.scope, 'name': row.name} for row in session.execute(stmt.limit(BATCH_SIZE))]
    delete_references(subtree, [file['name'] for file in files], session=session)
    delete_replicas(rse_id=subtree.storage.rse_id, files=files, session=session)
    return len(files)


def _collection(subtree: Subtree) -> str:
    """Return the name of the collection to remove; empty: the whole bucket."""
    return subtree.name_prefix.removesuffix('/')


def _title(subtree: Subtree) -> str:
    return f'{subtree.scope}:{_collection(subtree)}' if subtree.name_prefix else f"The bucket '{subtree.bucket}'"


def _below(subtree: Subtree, column: Any) -> Any:
    """Return the SQL condition for names below the collection."""
    below = subtree.name_prefix
    if not below:
        return true()
    # On some databases, LIKE is case-insensitive.
    return column.startswith(below, autoescape=True) & (func.substr(column, 1, len(below)) == below)


def _state(subtree: Subtree, name: str, session: 'Session') -> Literal['unused', 'used', 'erased']:
    """Return whether a collection is empty and has no rule, so that it can go; or whether it is already gone.

    Rucio's undertaker deletes it when its lifetime has ended. A closed dataset was deleted with its last replica.
    """
    did, content, rule = models.DataIdentifier, models.DataIdentifierAssociation, models.ReplicationRule
    known = select(did.did_type, did.expired_at).where(and_(did.scope == subtree.scope, did.name == name))
    row = session.execute(known).first()
    if row is None:
        return 'erased'
    if row.did_type == DIDType.FILE or row.expired_at is not None:
        return 'used'
    questions = (
        select(content.child_name).where(and_(content.scope == subtree.scope, content.name == name)),
        select(rule.id).where(and_(rule.scope == subtree.scope, rule.name == name)),
    )
    empty = all(session.execute(question.limit(1)).first() is None for question in questions)
    return 'unused' if empty else 'used'


def _remove_bucket(subtree: Subtree) -> bool:
    """Remove the bucket if it is empty.

    This is checked here, as not every storage refuses otherwise (by default, SeaweedFS deletes everything).

    :returns: Whether it was removed.
    """
    if subtree.storage.layout.common_bucket:
        return False
    client = subtree.storage.connection().client
    with translated('remove-bucket', Target(subtree.storage.rse, subtree.bucket)):
        try:
            holds_something = _holds_something(client, subtree.bucket)
            if not holds_something:
                client.delete_bucket(Bucket=subtree.bucket)
        except ClientError as error:
            code = error.response.get('Error', {}).get('Code')
            if code == 'NoSuchBucket':
                return False
            if code != 'BucketNotEmpty':
                raise
            holds_something = True
    if holds_something and not subtree.name_prefix:
        raise UnsupportedOperation(
            f"RSE {subtree.storage.rse}: the bucket '{subtree.bucket}' was not removed, as it is not empty: another "
            'client has just written to it, or it keeps old versions of objects.'
        )
    return not holds_something


def _holds_something(client: Any, bucket: str) -> bool:
    """Return whether a bucket contains an object or an old version. Two requests."""
    answer = client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    if 'IsTruncated' not in answer:  # half of an answer: some storages delete buckets with what they contain
        raise UnreadableAnswerError(reason='it does not say whether it is complete')
    if answer.get('Contents'):
        return True
    with suppress(ClientError):  # the storage does not support versions, or the keys may not list them
        versions = client.list_object_versions(Bucket=bucket, MaxKeys=1)
        return bool(versions.get('Versions') or versions.get('DeleteMarkers'))
    return False
