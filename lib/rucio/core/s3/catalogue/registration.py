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

"""Bulk registration of new files: DIDs, replicas and attachments to datasets.

Rucio's own ``add_replicas`` creates an ORM object and a query condition for each file. Here, the same rows are
inserted with a few statements per chunk. Replicas get no tombstone: without a lock and a tombstone, the reaper
never deletes them.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from sqlalchemy import and_, select

from rucio.common.exception import (
    DatabaseException,
    DataIdentifierAlreadyExists,
    InsufficientAccountLimit,
    RucioException,
    ScopeNotFound,
    UnsupportedOperation,
)
from rucio.common.s3 import address
from rucio.common.s3.content import Checksums
from rucio.common.utils import generate_uuid
from rucio.core import rse_counter
from rucio.core.did import add_dids
from rucio.core.rse_selector import RSESelector
from rucio.core.rule import add_rule
from rucio.core.s3 import storages
from rucio.core.s3.buckets import creation
from rucio.core.s3.metadata import as_column
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, DIDAvailability, DIDReEvaluation, DIDType, ReplicaState
from rucio.db.sqla.session import db_session

from .records import (
    ETAGS_KEY,
    Collision,
    NewFile,
    Refusal,
    batches,
    error_text,
    insert_rows,
    look_up,
    run_transaction,
    select_named,
    store_etags,
    utcnow,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount
    from rucio.core.s3.subtrees import Subtree

__all__ = ['register', 'register_uploaded']

CHUNK = 5000  # files in one transaction
MANY = 100  # files that are probably all new
MAX_RULES = 100  # files in one transaction if each gets its own rule
# What Rucio writes for a rule of an empty dataset: the tables, and their columns of the id of the rule.
_ROWS_OF_A_RULE = {
    models.ReplicationRule: 'id',
    models.DatasetLock: 'rule_id',
    models.CollectionReplica: None,
    models.UpdatedCollectionReplica: None,
    models.ReplicationRuleHistoryRecent: 'id',
    models.ReplicationRuleHistory: 'id',
}


# New files


def register(subtree: 'Subtree', files: 'Sequence[NewFile]') -> tuple[int, list[Refusal]]:
    """Register objects that are not in the catalogue: DIDs, replicas and attachments, owned by the owner of the scope.

    A file is attached to the open dataset with the longest name that is a prefix of its own. If there is none, a
    dataset is created from the first part of its name, with a rule of the owner on the RSE; a file without slashes gets
    such a rule itself. Registered files are not changed: calls can be repeated, also concurrently. For each
    :data:`CHUNK` files, two transactions and about 20 statements; 30 more and three for each dataset if some are
    created, and 20 for each file without a dataset.

    :param files: The objects.
    :returns: The number of registered files, and the refusals.
    :raises ScopeNotFound: if the scope does not exist.
    :raises UnsupportedOperation: if the RSE is volatile, that is, a cache.
    :raises DatabaseException: if the database fails. What was registered before is kept.
    """
    _need_lasting(subtree)
    owner = _owner(subtree)
    ordered = sorted({file.name: file for file in files}.values())
    count, size, refusals = 0, 0, []
    for chunk in batches(ordered, CHUNK):
        dataset_of, refused = _choose_datasets(subtree, owner, chunk)
        refusals += refused
        placed = [file for file in chunk if file.name in dataset_of]
        members = [file for file in placed if dataset_of[file.name] is not None]
        lone = [file for file in placed if dataset_of[file.name] is None]
        for some in [members, *batches(lone, MAX_RULES)]:
            done, refused = _registered(subtree, owner, some, dataset_of) if some else ([], [])
            count, size = count + len(done), size + sum(file.bytes for file in done)
            refusals += refused
    if count and subtree.dataset is None:
        refusals += _over_limit(subtree, owner, size)
    return count, refusals


def register_uploaded(
    subtree: 'Subtree', account: 'InternalAccount', dataset: str, files: 'Sequence[NewFile]'
) -> list[str]:
    """Register what an account has uploaded into a dataset, with the rows of ``add_replicas`` and ``attach_dids``.

    One transaction of some ten statements: all files that are new, or none.

    :param account: The account that gets the files.
    :param dataset: The name of the dataset.
    :param files: The files.
    :returns: The names that the catalogue has already. They are left as they are.
    :raises UnsupportedOperation: if the dataset does not exist or is closed, or the RSE is volatile.
    :raises Collision: if others register the same files all the time.
    """
    _need_lasting(subtree)

    def work(session: 'Session') -> list[str]:
        found = _collections(subtree, [dataset], session).get(dataset)
        if found is None or found.did_type != DIDType.DATASET or not found.is_open:
            raise UnsupportedOperation(
                f'{subtree.scope}:{dataset} is not an open dataset, so no files can be attached: choose another name.'
            )
        did, names = models.DataIdentifier, [file.name for file in files]
        here = select(did.name).where(did.scope == subtree.scope)
        known = {row.name for row in select_named(here, did.name, names, session)}
        if new := [file for file in files if file.name not in known]:
            # Rucio's transmogrifier looks at them, as at those of the stock calls.
            _insert_files(subtree, account, new, dict.fromkeys(names, dataset), session, is_new=True)
            _insert_replicas(subtree, new, session)
        return sorted(known)

    return run_transaction(work)


def _need_lasting(subtree: 'Subtree') -> None:
    if subtree.storage.settings.get('volatile'):
        raise UnsupportedOperation(
            f'RSE {subtree.storage.rse} is volatile, so no files can be registered there: use another RSE.'
        )


def _owner(subtree: 'Subtree') -> 'InternalAccount':
    with db_session(DatabaseOperationType.READ) as session:
        owner: Optional[InternalAccount] = session.execute(
            select(models.Scope.account).where(models.Scope.scope == subtree.scope)
        ).scalar()
    if owner is None:
        raise ScopeNotFound(
            f"There is no scope '{subtree.scope}', so its files have no owner: create it first (rucio scope add)."
        )
    return owner


def _registered(
    subtree: 'Subtree', owner: 'InternalAccount', files: 'Sequence[NewFile]', dataset_of: 'Mapping[str, Optional[str]]'
) -> tuple[list[NewFile], list[Refusal]]:
    """All at once; in halves where that does not work.

    Many files are usually all new: only if the database refuses them, it is asked which of them it knows.
    """
    looks = iter([False] if len(files) >= MANY else [])

    def work(session: 'Session') -> tuple[list[NewFile], list[Refusal]]:
        return _insert(subtree, owner, files, dataset_of, session, look=next(looks, True))

    try:
        return run_transaction(work)
    except (Collision, RucioException) as error:
        if isinstance(error, DatabaseException):
            raise
        if len(files) == 1:
            return [], [
                Refusal(
                    'failed',
                    files[0].name,
                    f'{subtree.scope}:{files[0].name} could not be registered: {error_text(error)}. Try again; if the '
                    'problem persists, contact the operator.',
                )
            ]
    done: list[NewFile] = []
    refusals: list[Refusal] = []
    for half in batches(files, (len(files) + 1) // 2):
        some, refused = _registered(subtree, owner, half, dataset_of)
        done, refusals = done + some, refusals + refused
    return done, refusals


def _insert(
    subtree: 'Subtree',
    owner: 'InternalAccount',
    files: 'Sequence[NewFile]',
    dataset_of: 'Mapping[str, Optional[str]]',
    session: 'Session',
    *,
    look: bool,
) -> tuple[list[NewFile], list[Refusal]]:
    """Insert files that are new.

    :param look: Whether some may not be: else the keys of the tables refuse all.
    """
    datasets = {name for file in files if (name := dataset_of[file.name])}
    if any(
        not each.is_open or each.did_type != DIDType.DATASET
        for each in _collections(subtree, datasets, session).values()
    ):
        raise Collision('a dataset was closed at the same time')
    known = _existing_dids(subtree, files, session) if look else {}
    new = [file for file in files if file.name not in known]
    second, refusals = [], []
    for file in files:
        if file.name in known:
            refused = _conflict(subtree, file, known[file.name])
            if refused:
                refusals.append(refused)
            elif not known[file.name].here:
                second.append(file)
    same = _same_objects(subtree, second, session) if second else {}
    refusals += [_same_object_refusal(subtree, file, same[file.name]) for file in second if file.name in same]
    second = [file for file in second if file.name not in same]
    if new:
        _insert_files(subtree, owner, new, dataset_of, session)
    if new or second:
        _insert_replicas(subtree, [*new, *second], session)
        store_etags(subtree, {file.name: file.etag for file in second}, session=session)
    if lone := [file.name for file in new if dataset_of[file.name] is None]:
        _add_rules(subtree, owner, lone, session)
    return [*new, *second], refusals


class _ExistingDID(NamedTuple):
    """A DID in the catalogue, and its replica."""

    name: str
    did_type: DIDType
    bytes: Optional[int]
    md5: Optional[str]
    adler32: Optional[str]
    availability: DIDAvailability
    here: bool
    path: Optional[str]


def _existing_dids(subtree: 'Subtree', files: 'Sequence[NewFile]', session: 'Session') -> dict[str, _ExistingDID]:
    rows = look_up(subtree.storage.rse_id, subtree.scope, [file.name for file in files], session=session)
    return {
        row.name: _ExistingDID(
            row.name, row.did_type, row.bytes, row.md5, row.adler32, row.availability, row.rse_id is not None, row.path
        )
        for row in rows
    }


def _conflict(subtree: 'Subtree', file: NewFile, known: _ExistingDID) -> Optional[Refusal]:
    did = f'{subtree.scope}:{file.name}'
    if known.did_type != DIDType.FILE:
        return Refusal(
            'conflict',
            file.name,
            f'{did} is a {known.did_type.name.lower()} in the catalogue, but an object in the bucket. Rename one of '
            'them.',
        )
    if known.here:
        if known.path == file.path:
            return None
        return Refusal(
            'conflict',
            file.name,
            f'{did} is already registered with another path on RSE {subtree.storage.rse} ({known.path}). Import it '
            'under another name.',
        )
    if known.availability == DIDAvailability.LOST:
        return Refusal(
            'conflict',
            file.name,
            f'{did} was declared lost, and Rucio never uses such a name again. Give the object another name.',
        )
    same = Checksums(file.md5, file.adler32, file.bytes).compare(Checksums(known.md5, known.adler32, known.bytes))
    if same:
        return None
    what = 'of which only the size can be compared' if same is None else 'with different content'
    return Refusal(
        'conflict', file.name, f'{did} is a file on other RSEs already, {what}. Give the object another name.'
    )


def _same_objects(subtree: 'Subtree', files: 'Sequence[NewFile]', session: 'Session') -> dict[str, str]:
    """Return the files whose object is also the replica on another RSE, with the name of that RSE.

    Registered twice, it would be lost when one replica is deleted.
    """
    replica = models.RSEFileAssociation
    elsewhere = {
        each.rse_id: each
        for each in storages.list_storages(subtree.storage.vo, session=session)
        if each.endpoint.url == subtree.storage.endpoint.url
    }
    rows = select_named(
        select(replica.name, replica.rse_id, replica.path).where(replica.scope == subtree.scope),
        replica.name,
        [file.name for file in files],
        session,
    )
    same = {}
    for row in rows:
        with suppress(RucioException):  # cannot be stored there
            if row.rse_id in elsewhere and elsewhere[row.rse_id].layout.place_of(
                str(subtree.scope), row.name, row.path
            ) == (
                subtree.bucket,
                subtree.key_of(row.name),
            ):
                same[row.name] = elsewhere[row.rse_id].rse
    return same


def _same_object_refusal(subtree: 'Subtree', file: NewFile, rse: str) -> Refusal:
    found = (
        f'The same object is already the replica of {subtree.scope}:{file.name} on RSE {rse}: RSE '
        f'{subtree.storage.rse} uses the same buckets.'
    )
    return Refusal(
        'conflict', file.name, f'{found} The operator has to delete one of the RSEs, or give it a bucket_prefix.'
    )


def _insert_files(
    subtree: 'Subtree',
    owner: 'InternalAccount',
    files: 'Sequence[NewFile]',
    dataset_of: 'Mapping[str, Optional[str]]',
    session: 'Session',
    *,
    is_new: Optional[bool] = None,
) -> None:
    content: dict[str, list[Any]] = {
        'name': [file.name for file in files],
        'bytes': [file.bytes for file in files],
        'md5': [file.md5 for file in files],
        'adler32': [file.adler32 for file in files],
        'guid': [file.guid for file in files],
    }
    common: dict[str, Any] = {'scope': subtree.scope, 'account': owner, 'did_type': DIDType.FILE, 'is_new': is_new}
    insert_rows(models.DataIdentifier, common, content, session)
    _attach(subtree, [file for file in files if dataset_of[file.name] is not None], dataset_of, session)
    etags = {
        file.name: as_column({ETAGS_KEY: {subtree.storage.rse_id: file.etag}}, session) for file in files if file.etag
    }
    columns = {'name': [*etags], 'meta': [*etags.values()]}
    insert_rows(models.DidMeta, {'scope': subtree.scope}, columns, session)


def _attach(
    subtree: 'Subtree', files: 'Sequence[NewFile]', dataset_of: 'Mapping[str, Optional[str]]', session: 'Session'
) -> None:
    common = {
        'scope': subtree.scope,
        'child_scope': subtree.scope,
        'did_type': DIDType.DATASET,
        'child_type': DIDType.FILE,
        'rule_evaluation': True,
    }
    columns: dict[str, list[Any]] = {
        'name': [dataset_of[file.name] for file in files],
        'child_name': [file.name for file in files],
        'bytes': [file.bytes for file in files],
        'md5': [file.md5 for file in files],
        'adler32': [file.adler32 for file in files],
        'guid': [file.guid for file in files],
    }
    insert_rows(models.DataIdentifierAssociation, common, columns, session)
    evaluated = {'scope': subtree.scope, 'rule_evaluation_action': DIDReEvaluation.ATTACH}
    insert_rows(models.UpdatedDID, evaluated, {'name': sorted(set(columns['name']))}, session)


def _insert_replicas(subtree: 'Subtree', files: 'Sequence[NewFile]', session: 'Session') -> None:
    common = {
        'rse_id': subtree.storage.rse_id,
        'scope': subtree.scope,
        'state': ReplicaState.AVAILABLE,
        'lock_cnt': 0,
    }
    columns: dict[str, list[Any]] = {
        'name': [file.name for file in files],
        'bytes': [file.bytes for file in files],
        'md5': [file.md5 for file in files],
        'adler32': [file.adler32 for file in files],
        'path': [file.path for file in files],
    }
    insert_rows(models.RSEFileAssociation, common, columns, session)
    rse_counter.increase(
        rse_id=subtree.storage.rse_id, files=len(files), bytes_=sum(file.bytes for file in files), session=session
    )


# Datasets


class _Collection(NamedTuple):
    did_type: DIDType
    is_open: bool
    ended: bool  # expired: Rucio's undertaker is about to delete it with its rules


def _collections(subtree: 'Subtree', names: 'Collection[str]', session: 'Session') -> dict[str, _Collection]:
    """Return the existing DIDs of some names."""
    did = models.DataIdentifier
    rows = select_named(
        select(did.name, did.did_type, did.is_open, did.expired_at).where(did.scope == subtree.scope),
        did.name,
        names,
        session,
    )
    return {
        row.name: _Collection(
            row.did_type, bool(row.is_open), row.expired_at is not None and row.expired_at <= utcnow()
        )
        for row in rows
    }


def _choose_datasets(
    subtree: 'Subtree', owner: 'InternalAccount', files: 'Sequence[NewFile]'
) -> tuple[dict[str, Optional[str]], list[Refusal]]:
    """Choose the dataset of each file; missing ones are created.

    :returns: The dataset by file name (None: no dataset; missing: refused), and the refusals.
    """
    above = {
        folder: [subtree.dataset] if subtree.dataset else address.ancestors(f'{folder}/')
        for folder in {_folder(file) for file in files}
    }
    with db_session(DatabaseOperationType.READ) as session:
        known = _collections(subtree, {name for names in above.values() for name in names}, session)
    # If an object and a prefix have the same name, it is given to the object.
    known |= dict.fromkeys({file.name for file in files} - known.keys(), _Collection(DIDType.FILE, False, False))
    chosen: dict[str, Optional[str]] = {}
    wanted = []
    for folder, names in sorted(above.items()):
        name = chosen[folder] = _choose_dataset(names, known)
        if name is None and subtree.dataset:
            raise UnsupportedOperation(
                f'{subtree.scope}:{subtree.dataset} is not a dataset, so no files can be attached: use another name.'
            )
        if name is not None and (name not in known or known[name].ended):
            wanted.append(name)
            known[name] = known.get(name, _Collection(DIDType.DATASET, True, False))._replace(ended=False)
    refusals = _make_datasets(subtree, owner, wanted) if wanted else []
    shut = {folder for folder, name in chosen.items() if name is not None and not known[name].is_open}
    refusals += [_closed(subtree, file, str(chosen[_folder(file)])) for file in files if _folder(file) in shut]
    return {file.name: chosen[_folder(file)] for file in files if _folder(file) not in shut}, refusals


def _folder(file: NewFile) -> str:
    return file.name.rpartition('/')[0]


def _choose_dataset(names: list[str], known: dict[str, _Collection]) -> Optional[str]:
    """Choose among the names above a file, shortest first: an open dataset, a closed one, or a name to create."""
    datasets = [name for name in names if name in known and known[name].did_type == DIDType.DATASET]
    if open_ones := [name for name in datasets if known[name].is_open and not known[name].ended]:
        return open_ones[-1]
    if closed := [name for name in datasets if not known[name].is_open]:
        return closed[-1]
    return next((name for name in names if name not in known or name in datasets), None)


def _closed(subtree: 'Subtree', file: NewFile, dataset: str) -> Refusal:
    found = (
        f'The dataset {subtree.scope}:{dataset} is closed, so {file.name} was not registered. Open it (rucio did '
        f'update --open {subtree.scope}:{dataset}).'
    )
    return Refusal('closed', file.name, found)


def _make_datasets(subtree: 'Subtree', owner: 'InternalAccount', names: 'Sequence[str]') -> list[Refusal]:
    """Create datasets and their rules, unless they exist: all at once; one by one where that does not work.

    Imports get no rule: nothing can be written or deleted there.
    """

    def work(session: 'Session') -> None:
        new = _create_datasets(subtree, owner, names, session)
        if subtree.dataset is not None:
            return
        for name in sorted(set(names) - set(new)):
            if not creation.own_rules(owner, subtree.scope, name, subtree.storage, session=session):
                _add_rules(subtree, owner, [name], session)
        if new:
            _add_equal_rules(subtree, owner, new, session)

    try:
        run_transaction(work)
    except DatabaseException:
        raise
    except (Collision, RucioException) as error:
        if len(names) > 1:
            return [refusal for name in names for refusal in _make_datasets(subtree, owner, [name])]
        if isinstance(error, Collision) or subtree.dataset is not None:
            raise
        run_transaction(lambda session: _create_datasets(subtree, owner, names, session))
        return [_no_rule(subtree, names[0], error)]
    return []


def _no_rule(subtree: 'Subtree', name: str, error: Exception) -> Refusal:
    remedy = (
        f'so its files are neither accounted nor protected. Add a rule (rucio rule add {subtree.scope}:{name} '
        f'--copies 1 --rses {subtree.storage.rse}).'
    )
    return Refusal(
        'no-rule',
        name,
        f'No rule could be made for the dataset {subtree.scope}:{name} ({error_text(error)}), {remedy}',
    )


def _create_datasets(
    subtree: 'Subtree', owner: 'InternalAccount', names: 'Sequence[str]', session: 'Session'
) -> list[str]:
    """Create datasets without rules.

    :returns: Those that did not exist.
    """
    found = _collections(subtree, names, session)
    for name, collection in found.items():
        if collection.ended:
            creation.cancel_expiry(subtree.scope, name, session=session)
    new = [name for name in names if name not in found]
    try:
        wanted = [{'scope': subtree.scope, 'name': name, 'type': DIDType.DATASET} for name in new]
        add_dids(wanted, owner, session=session)
    except DataIdentifierAlreadyExists as error:
        raise Collision(str(error)) from error
    return new


def _add_equal_rules(subtree: 'Subtree', owner: 'InternalAccount', names: 'Sequence[str]', session: 'Session') -> None:
    """Add a rule for each of several datasets that have just been created.

    Rucio needs some twenty queries for a rule. For datasets that are all empty, it writes the same rows but for their
    names and ids, so those of the first one are copied.
    """
    first, *others = names
    (rule_id,) = _add_rules(subtree, owner, [first], session)
    if not others:
        return
    session.flush()
    ids = [generate_uuid() for _ in others]
    for model, key in _ROWS_OF_A_RULE.items():
        table = model.__table__
        which = and_(table.c.scope == subtree.scope, table.c.name == first)
        if key is not None:
            which = and_(which, table.c[key] == rule_id)
        own = {'name', key, *(each.name for each in table.primary_key if each.default is not None)}
        for row in session.execute(select(table).where(which)).mappings():
            common = {column: value for column, value in row.items() if column not in own}
            insert_rows(model, common, {'name': others, **({key: ids} if key else {})}, session)


def _add_rules(subtree: 'Subtree', owner: 'InternalAccount', names: 'Iterable[str]', session: 'Session') -> list[str]:
    """Add a rule for each name, regardless of the account limit: the bytes are already stored.

    :returns: The ids of the rules.
    """
    ids: list[str] = add_rule(
        dids=[{'scope': subtree.scope, 'name': name} for name in names],
        account=owner,
        copies=1,
        rse_expression=subtree.storage.rse,
        grouping='DATASET',
        weight=None,
        lifetime=None,
        locked=False,
        subscription_id=None,
        ignore_availability=True,
        ignore_account_limit=True,
        session=session,
    )
    return ids


def _over_limit(subtree: 'Subtree', owner: 'InternalAccount', size: int) -> list[Refusal]:
    """Check the owner's limit for what was registered, as Rucio does for an upload."""
    rse = {
        'id': subtree.storage.rse_id,
        'rse': subtree.storage.rse,
        'staging_area': subtree.storage.settings['staging_area'],
    }
    try:
        with db_session(DatabaseOperationType.READ) as session:
            RSESelector(owner, [rse], None, 1, session=session).select_rse(size, [])
    except InsufficientAccountLimit:
        found = (
            f'Account {owner} is over its limit on RSE {subtree.storage.rse}; the objects in the bucket were '
            'registered anyway, but Rucio refuses uploads. Delete files, or ask for a higher limit (rucio account '
            'limit).'
        )
        return [Refusal('over-limit', '', found)]
    except RucioException:
        pass  # the RSE is full: its operator's concern
    return []
