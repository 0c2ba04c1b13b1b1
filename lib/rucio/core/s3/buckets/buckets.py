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

"""Buckets on the storages: which one a DID belongs to, making and listing them, and their lifecycle rules.

What asks the database takes a session; what makes requests to a storage takes none, and is called without one being
open.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from botocore.exceptions import ClientError
from sqlalchemy import and_, or_, select

from rucio.common.config import config_get
from rucio.common.exception import (
    AccessDenied,
    DataIdentifierAlreadyExists,
    DestinationNotAccessible,
    InsufficientAccountLimit,
    InvalidObject,
    RSENotFound,
    RucioException,
)
from rucio.common.s3 import address, objects
from rucio.common.s3.answers import line_logger
from rucio.common.s3.endpoint import SERVER
from rucio.common.s3.errors import Target, status_of, translated
from rucio.core.account_limit import get_local_account_limit
from rucio.core.did import set_metadata
from rucio.core.rse_selector import RSESelector
from rucio.core.s3 import storages
from rucio.core.s3.auth import access, grants
from rucio.core.scope import get_scopes
from rucio.db.sqla import models
from rucio.db.sqla.constants import DIDType, ReplicaState

from . import bucket_policies, imports, public_acls, subscriptions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount, InternalScope
    from rucio.core.s3.storages import Storage

__all__ = [
    'candidates',
    'exists',
    'imported',
    'is_file',
    'list_buckets',
    'locate',
    'make',
    'need_room',
    'own_rules',
    'pick',
    'publishing',
    'revive',
    'scopes_of',
    'url',
]

_LOGGER = line_logger(__name__)

ABORT_DAYS = 7  # after which a forgotten multipart upload is ended
RULE_ID = 'rucio-s3-abort-incomplete-uploads'


class Place(NamedTuple):
    """A storage on which a DID has a replica (or what is above it a rule).

    :param path: The path of the replica, where Rucio stores one.
    :param source: Bucket and key of what is imported.
    """

    storage: 'Storage'
    path: Optional[str] = None
    source: Optional[tuple[str, str]] = None


# Which storage


def _known_places(scope: 'InternalScope', name: str, found: 'Sequence[Storage]', session: 'Session') -> list[Place]:
    """Where the catalogue has this DID, or the nearest collection above it; of a whole scope: anything of it. The best
    first.
    """
    by_id = {storage.rse_id: storage for storage in found}
    if not name:
        return [
            Place(storage)
            for storage in found
            if storage.settings['deterministic'] and has_anything(scope, storage, session=session)
        ]
    replica = models.RSEFileAssociation
    rows = session.execute(
        select(replica.rse_id, replica.path, replica.state).where(
            and_(replica.scope == scope, replica.name == name, replica.rse_id.in_(by_id))
        )
    ).all()
    if rows:
        return [
            Place(by_id[row.rse_id], row.path)
            for row in sorted(rows, key=lambda row: row.state != ReplicaState.AVAILABLE)
        ]
    imported = _imported_places(scope, name, found, session)
    for collection in reversed([*grants.ancestors(name), name]):
        if rses := _rses_of_rules(scope, collection, by_id, session):
            return [*(Place(storage) for storage in found if storage.rse_id in rses), *imported]
    return imported


def _imported_places(scope: 'InternalScope', name: str, found: 'Sequence[Storage]', session: 'Session') -> list[Place]:
    """Where a collection comes from that was imported, or lies in one that was."""
    apart = [storage for storage in found if not storage.settings['deterministic']]
    return [
        Place(storage, source=source)
        for storage in apart
        if (source := imports.source_of(storage, scope, name, session=session))
    ]


def _rses_of_rules(scope: 'InternalScope', name: str, by_id: 'dict[str, Storage]', session: 'Session') -> set[str]:
    lock, rule = models.DatasetLock, models.ReplicationRule
    locked = session.execute(
        select(lock.rse_id).where(and_(lock.scope == scope, lock.name == name, lock.rse_id.in_(by_id)))
    ).scalars()
    names = {storage.rse: rse_id for rse_id, storage in by_id.items()}
    ruled = session.execute(
        select(rule.rse_expression).where(and_(rule.scope == scope, rule.name == name, rule.rse_expression.in_(names)))
    ).scalars()
    return set(locked) | {names[expression] for expression in ruled}


def has_anything(scope: 'InternalScope', storage: 'Storage', *, session: 'Session') -> bool:
    lock, replica, rule = models.DatasetLock, models.RSEFileAssociation, models.ReplicationRule
    questions = (
        select(lock.name).where(and_(lock.scope == scope, lock.rse_id == storage.rse_id)),
        select(replica.name).where(and_(replica.scope == scope, replica.rse_id == storage.rse_id)),
        select(rule.name).where(and_(rule.scope == scope, rule.rse_expression == storage.rse)),
    )
    return any(session.execute(question.limit(1)).first() is not None for question in questions)


def candidates(
    account: 'InternalAccount', scope: 'InternalScope', name: str, rse: Optional[str], *, session: 'Session'
) -> 'list[Storage]':
    """The storages that may be meant: the one that is named; else where the DID is, or its scope; else where the
    account may put something.

    :param account: The account that asks.
    :param scope: The scope.
    :param name: The name; empty: the bucket.
    :param rse: The RSE's name, where the user gave it.
    :raises RSENotFound: if there are none.
    """
    if rse:
        return [storages.get_storage(rse, account.vo, session=session)]
    # On the others nobody can say where something new would lie.
    found = [
        storage for storage in storages.list_storages(account.vo, session=session) if storage.settings['deterministic']
    ]
    if known := _known_places(scope, name, found, session) or (
        _known_places(scope, '', found, session) if name else []
    ):
        return [place.storage for place in known]
    if not found:
        raise RSENotFound('There is no S3 RSE.')
    if access.is_admin(account, session=session):
        return found
    limits = get_local_account_limit(account=account, rse_ids=[storage.rse_id for storage in found], session=session)
    usable = [storage for storage in found if limits.get(storage.rse_id)]
    if not usable:
        raise RSENotFound(
            f'Account {account} has no quota on any S3 RSE: ask for one, or name the RSE. There are {_listed(found)}.'
        )
    return usable


def publishing(account: 'InternalAccount', scope: 'InternalScope', name: str, *, session: 'Session') -> 'list[Storage]':
    """The storages that have to be told when everybody may read a collection. What is imported is its owner's to
    open.
    """
    found = storages.list_storages(account.vo, session=session)
    if not _imported_places(scope, name, found, session):
        return candidates(account, scope, name, None, session=session)
    return [
        place.storage for place in _known_places(scope, name, found, session) if place.storage.settings['deterministic']
    ]


def imported(
    account: 'InternalAccount', scope: 'InternalScope', name: str, rse: Optional[str], *, session: 'Session'
) -> 'Optional[tuple[Storage, str, str]]':
    """Storage, bucket and prefix of the keys of a collection that is imported; None: it is not, or it is kept
    elsewhere, too.

    :param rse: The RSE's name, where the user gave it.
    """
    found = [storage for storage in storages.list_storages(account.vo, session=session) if rse in (None, storage.rse)]
    places = _known_places(scope, name, found, session)
    if not places or places[0].source is None:
        return None
    bucket, key = places[0].source
    return places[0].storage, bucket, f'{key}/' if key else ''


def pick(found: 'Sequence[Storage]', scope: str) -> 'Storage':
    """The one storage of several that is meant: `[s3] default_rse` of the server's rucio.cfg, else where the scope's
    bucket is.

    One request for each of them, none where there is only one.

    :raises InvalidObject: if only the user can know.
    """
    if len(found) == 1:
        return found[0]
    default = config_get('s3', 'default_rse', raise_exception=False, default='', check_config_table=False)
    for storage in found:
        if storage.rse == default:
            return storage
    having = [storage for storage in found if _has_bucket(storage, scope)]
    if len(having) == 1:
        return having[0]
    raise InvalidObject(f'There are several S3 RSEs for scope {scope}: name one of {_listed(found)}.')


def _has_bucket(storage: 'Storage', scope: str) -> bool:
    try:
        return not storage.common_bucket and exists(storage, storage.bucket_of(scope))
    except RucioException:
        return False


def _listed(found: 'Iterable[Storage]') -> str:
    return ', '.join(storage.rse for storage in found)


def locate(
    account: 'InternalAccount', scope: 'InternalScope', name: str, *, session: 'Session'
) -> list[dict[str, Any]]:
    """Where a DID lies on S3 RSEs, or would lie, the best first. A few queries, no request.

    :returns: For each place rse, bucket, key, url and did_type (None: the catalogue does not know the DID).
    """
    found = storages.list_storages(account.vo, session=session)
    places = _known_places(scope, name, found, session) or [
        Place(each) for each in candidates(account, scope, name, None, session=session)
    ]
    did_type = _did_type(scope, name, session) if name else None
    located = []
    for place in places:
        with suppress(RucioException):  # a scope that has no place there
            bucket, key = place.source or place.storage.place_of(str(scope), name, place.path)
            located.append(
                {
                    'rse': place.storage.rse,
                    'bucket': bucket,
                    'key': key,
                    'url': url(place.storage, bucket, key),
                    'did_type': did_type.name if did_type else None,
                }
            )
    return located


def url(storage: 'Storage', bucket: str, key: str) -> str:
    """The path-style URL of a key, a prefix or (no key) a bucket."""
    return f'{storage.endpoint.url}/{address.encode_path(f"{bucket}/{key}" if key else bucket)}'


def _did_type(scope: 'InternalScope', name: str, session: 'Session') -> Optional[DIDType]:
    did = models.DataIdentifier
    return session.execute(select(did.did_type).where(and_(did.scope == scope, did.name == name))).scalar()


def is_file(scope: 'InternalScope', name: str, *, session: 'Session') -> bool:
    """Whether the catalogue knows a DID as a file: one query."""
    return _did_type(scope, name, session) == DIDType.FILE


# Making


def scopes_of(account: 'InternalAccount', *, session: 'Session') -> set[str]:
    """The scopes that an account owns: two queries."""
    return {str(scope) for scope in get_scopes(account, session=session)}


def own_rules(
    account: 'InternalAccount', scope: 'InternalScope', name: str, storage: 'Storage', *, session: 'Session'
) -> list[str]:
    """The ids of the rules of an account that keep a DID on this RSE: one query."""
    rule, lock = models.ReplicationRule, models.DatasetLock
    here = or_(
        rule.rse_expression == storage.rse,
        rule.id.in_(select(lock.rule_id).where(and_(lock.scope == scope, lock.rse_id == storage.rse_id))),
    )
    return list(
        session.execute(
            select(rule.id).where(and_(rule.account == account, rule.scope == scope, rule.name == name, here))
        ).scalars()
    )


def need_room(
    account: 'InternalAccount', scope: 'InternalScope', name: str, storage: 'Storage', *, session: 'Session'
) -> None:
    """Whether a dataset can be made and kept there, before anything is made.

    :raises DataIdentifierAlreadyExists: if the name is that of a file.
    :raises InsufficientAccountLimit: if the account has no quota for the rule.
    """
    if is_file(scope, name, session=session):
        raise DataIdentifierAlreadyExists(
            f'{scope}:{name} is a file, so it cannot be a collection: choose another name.'
        )
    if own_rules(account, scope, name, storage, session=session):
        return
    rse = {'id': storage.rse_id, 'rse': storage.rse, 'staging_area': storage.settings['staging_area']}
    try:
        RSESelector(account, [rse], None, 1, session=session)
    except InsufficientAccountLimit:
        raise InsufficientAccountLimit(
            f'Account {account} has no quota left on RSE {storage.rse}, so no rule can keep {scope}:{name} there. '
            'Ask its operator for one (rucio account limit), or use another RSE.'
        ) from None


def revive(scope: 'InternalScope', name: str, *, session: 'Session') -> None:
    """Take back the end of the lifetime of a collection, if it was removed before: one query, seldom two."""
    did = models.DataIdentifier
    if session.execute(select(did.expired_at).where(and_(did.scope == scope, did.name == name))).scalar() is not None:
        set_metadata(scope=scope, name=name, key='lifetime', value=None, session=session)


def exists(storage: 'Storage', bucket: str) -> bool:
    """Whether there is such a bucket: one request.

    :raises AccessDenied: if it belongs to somebody who does not let the server in.
    """
    try:
        with translated('make-bucket', Target(storage.rse, bucket)):
            storage.connection(SERVER).client.head_bucket(Bucket=bucket)
    except RucioException as error:
        if status_of(error.__cause__ or error) == 404:
            return False
        if status_of(error.__cause__ or error) == 403:
            raise AccessDenied(*bucket_policies.locked_out(storage, bucket).args) from None
        raise
    return True


def make(storage: 'Storage', scope: str) -> dict[str, bool]:
    """Make the bucket of a scope, with a rule that ends forgotten multipart uploads. What is there stays as it is.

    One request where there is nothing to do and the storage has no lifecycles; four for a new bucket; and those of
    :func:`.public_acls.ignore` and :func:`.subscriptions.subscribe`.

    :returns: What was not there before: ``bucket``, ``lifecycle``, ``events``; and ``dataset``, ``rule``: false.
    :raises AccessDenied: if the bucket belongs to somebody else.
    :raises DestinationNotAccessible: if the RSE has one bucket for all scopes, and that is missing.
    :raises RSEFileNameNotSupported: if the storage keeps the name for itself.
    """
    bucket = storage.bucket_of(scope)
    storage.need_name(bucket)
    made = {'bucket': False, 'dataset': False, 'rule': False, 'lifecycle': False, 'events': False}
    if not exists(storage, bucket):
        if storage.common_bucket:
            raise DestinationNotAccessible(
                f"RSE {storage.rse} keeps all scopes in one bucket, '{bucket}', but there is none: its operator has to make it."
            )
        made['bucket'] = _create(storage, bucket)
    _ignore_public_acls(storage, bucket)
    if storage.endpoint.lifecycle and not storage.common_bucket:
        made['lifecycle'] = _end_forgotten_uploads(storage, bucket)
    made['events'] = subscriptions.subscribe(storage, bucket)
    return made


def _create(storage: 'Storage', bucket: str) -> bool:
    """:returns: False if somebody else made it for us in the same moment."""
    return objects.make_bucket(storage.connection(SERVER), Target(storage.rse, bucket))


def _ignore_public_acls(storage: 'Storage', bucket: str) -> None:
    """Whoever gets keys for writing there needs it, and is refused them where it fails; the bucket is good for the
    rest.
    """
    try:
        public_acls.ignore(storage, bucket)
    except RucioException as error:
        _LOGGER.warning('S3: %s', error.args[0] if error.args else error)


def _end_forgotten_uploads(storage: 'Storage', bucket: str) -> bool:
    """A bucket without this rule is as good as one with it, so a storage that refuses is only written into the log."""
    client = storage.connection(SERVER).client
    try:
        try:
            rules: list[Any] = list(client.get_bucket_lifecycle_configuration(Bucket=bucket).get('Rules', []))
        except ClientError as error:
            if error.response.get('Error', {}).get('Code') != 'NoSuchLifecycleConfiguration':
                raise
            rules = []
        if any(
            rule.get('Status') == 'Enabled' and rule.get('AbortIncompleteMultipartUpload') and not _limited(rule)
            for rule in rules
        ):
            return False
        ours: Any = {
            'ID': RULE_ID,
            'Status': 'Enabled',
            'Filter': {'Prefix': ''},
            'AbortIncompleteMultipartUpload': {'DaysAfterInitiation': ABORT_DAYS},
        }
        kept = [rule for rule in rules if rule.get('ID') != RULE_ID]
        client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={'Rules': [*kept, ours]})
    except ClientError as error:
        _LOGGER.warning('RSE %s, bucket %s: no lifecycle rule could be set: %s', storage.rse, bucket, error)
        return False
    return True


def _limited(rule: dict[str, Any]) -> bool:
    """Whether a lifecycle rule is for a part of the bucket only."""
    where = rule.get('Filter') or {}
    return bool(rule.get('Prefix') or where.get('Prefix') or any(name != 'Prefix' for name in where))


def list_buckets(chosen: 'Sequence[Storage]', scopes: 'Optional[Collection[str]]') -> list[dict[str, Any]]:
    """The buckets of these scopes (None: all that the RSEs may have) on these storages: one request for each storage.

    :raises RucioException: if a storage cannot be asked, and the others have nothing: that there is no bucket must not
        be said then.
    """
    result: list[dict[str, Any]] = []
    failure: Optional[RucioException] = None
    for storage in chosen:
        if not storage.ways and len(chosen) > 1:
            continue
        try:
            with translated('ls', Target(storage.rse, '*')):
                found = storage.connection(SERVER).client.list_buckets().get('Buckets', [])
        except RucioException as error:
            _LOGGER.warning('S3: %s', error.args[0] if error.args else error)
            failure = error
            continue
        for each in found:
            own = not storage.common_bucket and storage.settings['deterministic']
            scope = address.bucket_to_scope(each['Name'], storage.endpoint.bucket_prefix) if own else None
            if storage.may_have(each['Name']) if scopes is None else scope in scopes:
                created = each.get('CreationDate')
                result.append(
                    {
                        'rse': storage.rse,
                        'bucket': each['Name'],
                        'scope': scope,
                        'created': created.strftime('%Y-%m-%dT%H:%M:%SZ') if created else None,
                    }
                )
    if failure is not None and not result:
        raise failure
    return result
