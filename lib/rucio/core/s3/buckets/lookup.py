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

"""Looking up buckets on the storages: which one a DID belongs to, and which there are.

What asks the database takes a session; what makes requests to a storage takes none, and is called without one
being open.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from sqlalchemy import and_, select

from rucio.common.exception import (
    AccessDenied,
    InvalidObject,
    RSENotFound,
    RSEOperationNotSupported,
    RucioException,
)
from rucio.common.s3 import address
from rucio.common.s3.answers import line_logger
from rucio.common.s3.endpoint import SERVER
from rucio.common.s3.errors import Target, status_of, translated
from rucio.common.s3.settings import of_server
from rucio.core.account_limit import get_local_account_limit
from rucio.core.s3 import imports, storages
from rucio.core.s3.auth import access, shared_keys
from rucio.core.scope import get_scopes
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, DIDType, ReplicaState
from rucio.db.sqla.session import db_session

from . import bucket_policies

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount, InternalScope
    from rucio.core.s3.storages import Storage

__all__ = [
    'candidates',
    'choose_storage',
    'exists',
    'has_anything',
    'imported',
    'is_file',
    'list_buckets',
    'locate',
    'need_exclusive',
    'object_url',
    'own_bucket',
    'scopes_of',
    'storages_to_publish',
]

_LOGGER = line_logger(__name__)


class DIDLocation(NamedTuple):
    """A storage on which a DID has a replica (or what is above it a rule).

    :param path: The path of the replica, where Rucio stores one.
    :param source: Bucket and key of what is imported.
    """

    storage: 'Storage'
    path: Optional[str] = None
    source: Optional[tuple[str, str]] = None


# Which storage


def _known_locations(
    scope: 'InternalScope', name: str, found: 'Sequence[Storage]', session: 'Session'
) -> list[DIDLocation]:
    """Where the catalogue has this DID, or the nearest collection above it; of a whole scope: anything of it. The
    best first.
    """
    by_id = {storage.rse_id: storage for storage in found}
    if not name:
        return [
            DIDLocation(storage)
            for storage in found
            if storage.layout.deterministic and has_anything(scope, storage, session=session)
        ]
    replica = models.RSEFileAssociation
    rows = session.execute(
        select(replica.rse_id, replica.path, replica.state).where(
            and_(replica.scope == scope, replica.name == name, replica.rse_id.in_(by_id))
        )
    ).all()
    if rows:
        return [
            DIDLocation(by_id[row.rse_id], row.path)
            for row in sorted(rows, key=lambda row: row.state != ReplicaState.AVAILABLE)
        ]
    imported = _imported_locations(scope, name, found, session)
    for collection in reversed([*address.ancestors(name), name]):
        if rses := _rses_of_rules(scope, collection, by_id, session):
            return [*(DIDLocation(storage) for storage in found if storage.rse_id in rses), *imported]
    return imported


def _imported_locations(
    scope: 'InternalScope', name: str, found: 'Sequence[Storage]', session: 'Session'
) -> list[DIDLocation]:
    """Where a collection comes from that was imported, or lies in one that was."""
    apart = [storage for storage in found if not storage.layout.deterministic]
    return [
        DIDLocation(storage, source=source)
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
    """Whether the catalogue has a rule, a lock or a replica of a scope on an RSE: three queries at most."""
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
    found = [storage for storage in storages.list_storages(account.vo, session=session) if storage.layout.deterministic]
    if known := _known_locations(scope, name, found, session) or (
        _known_locations(scope, '', found, session) if name else []
    ):
        return [location.storage for location in known]
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


def storages_to_publish(
    account: 'InternalAccount', scope: 'InternalScope', name: str, *, session: 'Session'
) -> 'list[Storage]':
    """The storages that have to be told when everybody may read a collection. What is imported is its owner's
    to open.
    """
    found = storages.list_storages(account.vo, session=session)
    if not _imported_locations(scope, name, found, session):
        return candidates(account, scope, name, None, session=session)
    return [
        location.storage
        for location in _known_locations(scope, name, found, session)
        if location.storage.layout.deterministic
    ]


def imported(
    account: 'InternalAccount', scope: 'InternalScope', name: str, rse: Optional[str], *, session: 'Session'
) -> 'Optional[tuple[Storage, str, str]]':
    """Storage, bucket and prefix of the keys of a collection that is imported; None: it is not, or it is kept
    elsewhere, too.

    :param rse: The RSE's name, where the user gave it.
    """
    found = [storage for storage in storages.list_storages(account.vo, session=session) if rse in (None, storage.rse)]
    locations = _known_locations(scope, name, found, session)
    if not locations or locations[0].source is None:
        return None
    bucket, key = locations[0].source
    return locations[0].storage, bucket, f'{key}/' if key else ''


def choose_storage(found: 'Sequence[Storage]', scope: str) -> 'Storage':
    """The one storage of several that is meant: `[s3] default_rse` of the server's rucio.cfg, else where the scope's
    bucket is.

    One request for each of them, none where there is only one.

    :raises InvalidObject: if only the user can know.
    """
    if len(found) == 1:
        return found[0]
    default = of_server('default_rse')
    for storage in found:
        if storage.rse == default:
            return storage
    having = [storage for storage in found if _has_bucket(storage, scope)]
    if len(having) == 1:
        return having[0]
    raise InvalidObject(f'There are several S3 RSEs for scope {scope}: name one of {_listed(found)}.')


def _has_bucket(storage: 'Storage', scope: str) -> bool:
    try:
        return not storage.layout.common_bucket and exists(storage, storage.layout.bucket_of(scope))
    except RucioException:
        return False


def own_bucket(account: 'InternalAccount', scope: 'InternalScope', rse: Optional[str]) -> tuple['Storage', str, bool]:
    """The bucket of a scope, for those who may decide about it: its owner; the operator, where all scopes share one.

    Opens sessions of its own. Requests as :func:`choose_storage`.

    :returns: Storage, bucket, and whether an admin asks.
    :raises AccessDenied: if the account may not decide about it.
    """
    with db_session(DatabaseOperationType.READ) as session:
        access.need(account, scope, '', True, session=session)
        found = candidates(account, scope, '', rse, session=session)
        admin = access.is_admin(account, session=session)
    storage = choose_storage(found, str(scope))
    need_exclusive(storage, account, str(scope))
    if storage.layout.common_bucket and not admin:
        raise AccessDenied(
            f"RSE {storage.rse} keeps all scopes in one bucket, '{storage.layout.common_bucket}': only its operator "
            'may see or set what holds for it.'
        )
    return storage, storage.layout.bucket_of(str(scope)), admin


def need_exclusive(storage: 'Storage', account: 'InternalAccount', scope: str, name: str = '') -> None:
    """Refuse to do something with a bucket, or a part of it, that is another RSE's, too."""
    with suppress(RSEOperationNotSupported):  # scattered over a common bucket: it is asked for each key
        bucket, prefix = storage.layout.place_of(scope, f'{name}/' if name else '')
        with db_session(DatabaseOperationType.READ) as session:
            shared_keys.need(storage, account, bucket, prefix, True, session=session)


def _listed(found: 'Iterable[Storage]') -> str:
    return ', '.join(storage.rse for storage in found)


def locate(
    account: 'InternalAccount', scope: 'InternalScope', name: str, *, session: 'Session'
) -> list[dict[str, Any]]:
    """Where a DID lies on S3 RSEs, or would lie, the best first. A few queries, no request.

    :returns: For each place rse, bucket, key, url and did_type (None: the catalogue does not know the DID).
    """
    found = storages.list_storages(account.vo, session=session)
    locations = _known_locations(scope, name, found, session) or [
        DIDLocation(each) for each in candidates(account, scope, name, None, session=session)
    ]
    did_type = _did_type(scope, name, session) if name else None
    located = []
    for location in locations:
        with suppress(RucioException):  # a scope that has no place there
            bucket, key = location.source or location.storage.layout.place_of(str(scope), name, location.path)
            located.append(
                {
                    'rse': location.storage.rse,
                    'bucket': bucket,
                    'key': key,
                    'object_url': object_url(location.storage, bucket, key),
                    'did_type': did_type.name if did_type else None,
                }
            )
    return located


def object_url(storage: 'Storage', bucket: str, key: str) -> str:
    """The path-style URL of a key, a prefix or (no key) a bucket."""
    return f'{storage.endpoint.url}/{address.encode_path(f"{bucket}/{key}" if key else bucket)}'


def _did_type(scope: 'InternalScope', name: str, session: 'Session') -> Optional[DIDType]:
    did = models.DataIdentifier
    return session.execute(select(did.did_type).where(and_(did.scope == scope, did.name == name))).scalar()


def is_file(scope: 'InternalScope', name: str, *, session: 'Session') -> bool:
    """Whether the catalogue knows a DID as a file: one query."""
    return _did_type(scope, name, session) == DIDType.FILE


def scopes_of(account: 'InternalAccount', *, session: 'Session') -> set[str]:
    """The scopes that an account owns: two queries."""
    return {str(scope) for scope in get_scopes(account, session=session)}


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
            own = not storage.layout.common_bucket and storage.layout.deterministic
            scope = address.bucket_to_scope(each['Name'], storage.endpoint.bucket_prefix) if own else None
            if storage.layout.may_have(each['Name']) if scopes is None else scope in scopes:
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
