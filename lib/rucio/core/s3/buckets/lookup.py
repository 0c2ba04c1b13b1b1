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

"""Lookup of buckets: which storage and bucket a DID belongs to, and which buckets exist.

Functions that query the database take a session; those that send requests to a storage take none, and must be called
while no session is open.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, TypeVar, Union

from botocore.exceptions import BotoCoreError, ClientError
from sqlalchemy import and_, select

from rucio.common.exception import (
    AccessDenied,
    InvalidObject,
    RSENotFound,
    RSEOperationNotSupported,
    RucioException,
)
from rucio.common.s3 import address, objects, request_ids
from rucio.common.s3.answers import line_logger
from rucio.common.s3.dates import to_text
from rucio.common.s3.endpoint import SERVER
from rucio.common.s3.errors import StorageSilentError, Target, status_of, translated
from rucio.common.s3.settings import of_server
from rucio.common.types import InternalScope
from rucio.core.account_limit import get_local_account_limit
from rucio.core.rse import get_rse_id
from rucio.core.s3 import imports, recent, storages
from rucio.core.s3.auth import access, shared_keys
from rucio.core.scope import get_scopes
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, DIDType, ReplicaState
from rucio.db.sqla.session import db_session

from . import bucket_policies

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount
    from rucio.core.s3.storages import Storage

__all__ = [
    'candidates',
    'choose_storage',
    'exists',
    'has_anything',
    'has_quota',
    'imported',
    'is_file',
    'list_buckets',
    'locate',
    'may_have_buckets_of',
    'need_answer',
    'need_exclusive',
    'object_url',
    'own_bucket',
    'place_on',
    'scopes_of',
    'storages_to_publish',
]

Answer = TypeVar('Answer')

_LOGGER = line_logger(__name__)
_AT_ONCE = 16  # storages
_collections = recent.Recent(storages.CACHE_SECONDS)


class DIDLocation(NamedTuple):
    """A storage where a DID has a replica, or a collection above it a rule.

    :param path: The path of the replica, if Rucio stores one.
    :param source: Bucket and key of an import.
    """

    storage: 'Storage'
    path: Optional[str] = None
    source: Optional[tuple[str, str]] = None


# Which storage


def _known_locations(
    scope: 'InternalScope', name: str, found: 'Sequence[Storage]', session: 'Session'
) -> list[DIDLocation]:
    """Return where the catalogue has a DID, or the nearest collection above it; for a scope, anything in it.

    The best location comes first.
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
    """Return where a collection was imported from, or one that contains it."""
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
    """Return whether the catalogue has a rule, a lock or a replica of a scope on an RSE. At most three queries."""
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
    """Return the storages that a request may refer to.

    The one that is named; else those that have the DID, or its scope; else those where the account has quota.

    :param account: The account that asks.
    :param scope: The scope.
    :param name: The name; empty: the bucket.
    :param rse: The RSE's name, where the user gave it.
    :raises RSENotFound: if there are none.
    """
    if rse:
        return [storages.get_storage(rse, account.vo, session=session)]
    # On non-deterministic RSEs, the location of new files is undefined.
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
            f'Account {account} has no quota on any S3 RSE: ask for quota, or name the RSE. S3 RSEs: {_listed(found)}.'
        )
    return usable


def storages_to_publish(
    account: 'InternalAccount', scope: 'InternalScope', name: str, *, session: 'Session'
) -> 'list[Storage]':
    """Return the storages on which a public collection has to be published.

    Imported buckets are left to their owner.
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
    """Return storage, bucket and key prefix of an imported collection.

    None: it is not imported, or is also kept elsewhere.

    No query if the RSE is given and has no imports; else a few.

    :param rse: The RSE's name, where the user gave it.
    :raises RSENotFound: if there is no such S3 RSE.
    """
    found = (
        [storages.get_storage(rse, account.vo, session=session)]
        if rse
        else storages.list_storages(account.vo, session=session)
    )
    if all(storage.layout.deterministic for storage in found):
        return None
    locations = _known_locations(scope, name, found, session)
    if not locations or locations[0].source is None:
        return None
    bucket, key = locations[0].source
    return locations[0].storage, bucket, f'{key}/' if key else ''


def choose_storage(found: 'Sequence[Storage]', scope: str, preferred: Optional[str] = None) -> 'Storage':
    """Choose the storage that is meant: the only one, else the only one that has the scope's bucket, else the default.

    One request for each of them, none where there is only one. docs/behaviour.md (Which RSE) has the whole rule.

    :param found: The answer of :func:`candidates`.
    :param scope: The scope.
    :param preferred: The user's own default, which comes before that of the server.
    :raises InvalidObject: if only the user can know.
    """
    if len(found) == 1:
        return found[0]
    answers = dict(zip(found, _ask_all(found, lambda storage: _has_bucket(storage, scope)), strict=True))
    having = [storage for storage, answer in answers.items() if answer is True]
    unknown = [storage for storage, answer in answers.items() if isinstance(answer, RucioException)]
    if len(having) == 1 and not unknown:
        return having[0]
    # An RSE that cannot be asked may have the bucket: the default must not become a second place for it.
    possible = having if having or unknown else found
    for default in filter(None, (preferred, of_server('default_rse'))):
        if any(storage.rse == default for storage in unknown):
            break  # the next default must not be taken just because this one is down
        for storage in possible:
            if storage.rse == default:
                return storage
    why = f' ({_listed(unknown)} could not be asked whether the bucket is there)' if unknown else ''
    raise InvalidObject(f'There are several S3 RSEs for scope {scope}{why}: name one of {_listed(found)} (--rse).')


def _has_bucket(storage: 'Storage', scope: str) -> bool:
    if not storage.layout.common_bucket:
        bucket = storage.layout.bucket_of(scope)
        try:
            return bool(storage.ways) and exists(storage, bucket)  # without keys the server makes no bucket there
        except AccessDenied:
            # HEAD does not tell a bucket of somebody else from wrong keys or a policy. Wrong keys list no buckets.
            return bucket in objects.list_buckets(storage.connection(SERVER))
    with db_session(DatabaseOperationType.READ) as session:
        return has_anything(InternalScope(scope, vo=storage.vo), storage, session=session)


def own_bucket(account: 'InternalAccount', scope: 'InternalScope', rse: Optional[str]) -> tuple['Storage', str, bool]:
    """Return the bucket of a scope, for accounts that may manage it: its owner, or an admin if all scopes share it.

    Opens its own sessions. The requests of :func:`choose_storage`.

    :returns: Storage, bucket, and whether the account is an admin.
    :raises AccessDenied: if the account may not manage it.
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
            'may see or change the settings of the bucket.'
        )
    return storage, storage.layout.bucket_of(str(scope)), admin


def need_exclusive(storage: 'Storage', account: 'InternalAccount', scope: str, name: str = '') -> None:
    """Refuse access to a bucket, or a prefix of it, that another RSE also uses."""
    with suppress(RSEOperationNotSupported):  # spread over a common bucket: each key is checked
        bucket, prefix = storage.layout.place_of(scope, f'{name}/' if name else '')
        with db_session(DatabaseOperationType.READ) as session:
            shared_keys.need(storage, account, bucket, prefix, True, session=session)


def _listed(found: 'Iterable[Storage]') -> str:
    return ', '.join(storage.rse for storage in found)


def locate(
    account: 'InternalAccount', scope: 'InternalScope', name: str, *, session: 'Session'
) -> list[dict[str, Any]]:
    """Return where a DID is, or would be, stored on S3 RSEs; the best location comes first. A few queries, no request.

    :returns: For each location rse, bucket, key, url and did_type (None: the DID is not in the catalogue).
    """
    found = storages.list_storages(account.vo, session=session)
    locations = _known_locations(scope, name, found, session) or [
        DIDLocation(each) for each in candidates(account, scope, name, None, session=session)
    ]
    did_type = _did_type(scope, name, session) if name else None
    located = []
    for location in locations:
        with suppress(RucioException):  # the scope cannot be stored there
            located.append(_place(location, scope, name, did_type))
    return located


def place_on(storage: 'Storage', scope: 'InternalScope', name: str, *, session: 'Session') -> dict[str, Any]:
    """Return where a DID would lie on one RSE, in the form of :func:`locate`.

    :raises RucioException: if it has no place there.
    """
    return _place(DIDLocation(storage), scope, name, _did_type(scope, name, session) if name else None)


def _place(location: DIDLocation, scope: 'InternalScope', name: str, did_type: Optional[DIDType]) -> dict[str, Any]:
    storage = location.storage
    bucket, key = location.source or storage.layout.place_of(str(scope), name, location.path)
    return {
        'rse': storage.rse,
        'bucket': bucket,
        'key': key,
        'url': object_url(storage, bucket, key),
        'did_type': did_type.name if did_type else None,
    }


def object_url(storage: 'Storage', bucket: str, key: str) -> str:
    """Return the path-style URL of a key, a prefix or (no key) a bucket."""
    return f'{storage.endpoint.url}/{address.encode_path(f"{bucket}/{key}" if key else bucket)}'


def _did_type(scope: 'InternalScope', name: str, session: 'Session') -> Optional[DIDType]:
    did = models.DataIdentifier
    return session.execute(select(did.did_type).where(and_(did.scope == scope, did.name == name))).scalar()


def is_file(scope: 'InternalScope', name: str, *, session: 'Session') -> bool:
    """Return whether a DID is a file in the catalogue.

    One query; none if it was a collection within the last :data:`.storages.CACHE_SECONDS`, as it hardly becomes a file.
    """
    asked = recent.monotonic()
    if _collections.has((scope, name)):
        return False
    kind = _did_type(scope, name, session)
    if kind in (DIDType.DATASET, DIDType.CONTAINER):
        _collections.add((scope, name), asked)
    return kind == DIDType.FILE


def scopes_of(account: 'InternalAccount', *, session: 'Session') -> set[str]:
    """Return the scopes that an account owns. Two queries."""
    return {str(scope) for scope in get_scopes(account, session=session)}


def exists(storage: 'Storage', bucket: str) -> bool:
    """Return whether a bucket exists. One request.

    :raises AccessDenied: if the server may not access it.
    """
    try:
        with translated('make-bucket', Target(storage.rse, bucket)):
            storage.connection(SERVER).client.head_bucket(Bucket=bucket)
    except RucioException as error:
        status = status_of(error.__cause__ or error)
        if status == 404:
            return False
        if status == 403:
            raise AccessDenied(*bucket_policies.locked_out(storage, bucket).args) from None
        raise
    return True


def list_buckets(
    chosen: 'Sequence[Storage]', scopes: 'Optional[Collection[str]]'
) -> tuple[list[dict[str, Any]], dict[str, RucioException]]:
    """List the buckets of these scopes (None: all that the RSEs may have) on these storages.

    One request for each storage, to all of them at once. Storages that anybody may read are not asked, unless there is
    only one: they list no buckets.

    :param chosen: The storages.
    :param scopes: The scopes; None: all buckets of the RSEs.
    :returns: The buckets, and why each RSE that could not be asked was not.
    """
    asked = [each for each in chosen if each.endpoint.auth != 'anonymous' or len(chosen) == 1]
    found: list[dict[str, Any]] = []
    missing: dict[str, RucioException] = {}
    for storage, answer in zip(asked, _ask_all(asked, _buckets_on), strict=True):
        if isinstance(answer, RucioException):
            _LOGGER.warning('S3: %s', answer.args[0] if answer.args else answer)
            missing[storage.rse] = answer
        else:
            found += [_described(storage, each) for each in answer if _is_meant(storage, each['Name'], scopes)]
    return found, missing


def _ask_all(
    asked: 'Sequence[Storage]', question: 'Callable[[Storage], Answer]'
) -> 'list[Union[Answer, RucioException]]':
    """Ask each storage the same, all at once: those that are silent cost the time of one."""

    def ask(storage: 'Storage') -> 'Union[Answer, RucioException]':
        try:
            return question(storage)
        except RucioException as error:
            return error

    if len(asked) < 2:
        return [ask(storage) for storage in asked]
    with ThreadPoolExecutor(min(len(asked), _AT_ONCE)) as pool:
        return list(pool.map(request_ids.carried(ask), asked))


def need_answer(storage: 'Storage') -> None:
    """Refuse long work on a storage that does not answer something short in time. One request.

    The time-outs of long work are longer: it would hold a worker of the server four times as long to find that out.

    :raises ServiceUnavailable: if it does not answer.
    """
    with translated('ls', Target(storage.rse, '*')):
        try:
            storage.connection(SERVER).client.list_buckets()
        except StorageSilentError:
            raise
        except (BotoCoreError, ClientError):
            pass  # an answer, or a failure that the work will meet as well


def _buckets_on(storage: 'Storage') -> list[Any]:
    return list(objects.buckets(storage.connection(SERVER)))


def _scope_of(storage: 'Storage', bucket: str) -> Optional[str]:
    own = not storage.layout.common_bucket and storage.layout.deterministic
    return address.bucket_to_scope(bucket, storage.endpoint.bucket_prefix) if own else None


def _is_meant(storage: 'Storage', bucket: str, scopes: 'Optional[Collection[str]]') -> bool:
    return storage.layout.may_have(bucket) if scopes is None else _scope_of(storage, bucket) in scopes


def _described(storage: 'Storage', bucket: Any) -> dict[str, Any]:
    created = bucket.get('CreationDate')
    return {
        'rse': storage.rse,
        'bucket': bucket['Name'],
        'scope': _scope_of(storage, bucket['Name']),
        'created': to_text(created) if created else None,
    }


def may_have_buckets_of(
    account: 'InternalAccount', scopes: 'Collection[str]', found: 'Sequence[Storage]', *, session: 'Session'
) -> 'list[Storage]':
    """Return the storages on which these scopes may have buckets. A few queries for each storage and scope.

    These are the ones on which the account has a quota, or for which the catalogue has data of the scopes.

    :param account: The owner of the scopes.
    :param scopes: The scopes.
    :param found: The storages to choose from.
    """
    own = [each for each in found if each.layout.deterministic and not each.layout.common_bucket]
    limits = get_local_account_limit(account=account, rse_ids=[each.rse_id for each in own], session=session)
    return [
        each
        for each in own
        if limits.get(each.rse_id)
        or any(has_anything(InternalScope(scope, vo=each.vo), each, session=session) for scope in scopes)
    ]


def has_quota(account: 'InternalAccount', rse: str, *, session: 'Session') -> bool:
    """Return whether an account has a quota on an RSE, whose settings may be invalid. Two queries.

    :param account: The account.
    :param rse: The name of the RSE.
    """
    rse_id = get_rse_id(rse, vo=account.vo, session=session)
    return bool(get_local_account_limit(account=account, rse_ids=[rse_id], session=session).get(rse_id))
