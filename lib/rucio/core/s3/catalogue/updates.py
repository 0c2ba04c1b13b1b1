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

"""Updates of files whose objects changed or are missing, and of missing metadata.

Each function checks again, in its own transaction and with the rows locked, that the catalogue is still as it was when
it was compared with the bucket: no action is based on outdated information.
"""

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from sqlalchemy import and_, delete, func, select, update

from rucio.common.exception import DatabaseException, RucioException
from rucio.common.types import InternalAccount
from rucio.core import account_counter, rse_counter
from rucio.core.did import detach_dids
from rucio.core.replica import declare_bad_file_replicas, delete_replicas, update_replicas_states
from rucio.core.rule import (
    delete_rule,
    generate_email_for_rule_ok_notification,
    generate_rule_notifications,
    insert_rule_history,
    release_parent_rule,
)
from rucio.core.s3.references import delete_references
from rucio.db.sqla import models
from rucio.db.sqla.constants import (
    BadFilesStatus,
    DIDAvailability,
    DIDType,
    LockState,
    ReplicaState,
    RuleState,
)

from .records import (
    Collision,
    Refusal,
    batches,
    error_text,
    insert_rows,
    run_transaction,
    select_named,
    store_etags,
    stored_etag,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sqlalchemy.orm import Session

    from rucio.core.s3.reconciler.listings import Replica
    from rucio.core.s3.subtrees import Subtree

    from .records import NewFile

__all__ = [
    'complete',
    'declare_bad',
    'declare_lost',
    'find_kept',
    'forget',
    'note_etags',
    'protect_from_reaper',
    'replace',
    'set_checksums',
]

CHUNK = 200  # files in one transaction
MAX_REASON_LENGTH = 255  # characters of the column

_Result = tuple[int, list[Refusal]]


class _LockedReplica(NamedTuple):
    """A locked replica, unchanged since it was compared."""

    name: str
    bytes: int
    locks: int
    copies: bool  # it is also on other RSEs, or in an archive


# Checks before each update


def _lock_and_compare(
    subtree: 'Subtree', seen: 'Sequence[Replica]', session: 'Session'
) -> tuple[list[_LockedReplica], list[Refusal]]:
    """Lock replicas, and compare them with what was seen.

    Those that are no longer in the catalogue are in neither list.
    """
    replica, names = models.RSEFileAssociation, [each.name for each in seen]
    rows = {row.name: row for row in select_named(_select_current(subtree), replica.name, names, session)}
    elsewhere = select(replica.name).where(
        and_(replica.scope == subtree.scope, replica.rse_id != subtree.storage.rse_id)
    )
    archived = models.ConstituentAssociation
    inside = select(archived.child_name).where(archived.child_scope == subtree.scope)
    copies = {
        row[0]
        for row in [
            *select_named(elsewhere, replica.name, names, session),
            *select_named(inside, archived.child_name, names, session),
        ]
    }
    request = models.Request
    wanted = select_named(
        select(request.name, request.dest_rse_id).where(request.scope == subtree.scope), request.name, names, session
    )
    busy = {row.name for row in wanted if row.dest_rse_id == subtree.storage.rse_id or row.name not in copies}
    found, refusals = [], []
    for each in seen:
        if each.name not in rows:
            continue
        if refused := _find_refusal(subtree, each, rows[each.name], each.name in busy):
            refusals.append(refused)
        else:
            found.append(
                _LockedReplica(each.name, rows[each.name].bytes, rows[each.name].lock_cnt, each.name in copies)
            )
    return found, refusals


def _select_current(subtree: 'Subtree') -> Any:
    replica, did, meta = models.RSEFileAssociation, models.DataIdentifier, models.DidMeta
    columns = (
        replica.name,
        func.coalesce(did.bytes, replica.bytes).label('bytes'),
        func.coalesce(did.md5, replica.md5).label('md5'),
        func.coalesce(did.adler32, replica.adler32).label('adler32'),
        replica.state,
        replica.lock_cnt,
        did.availability,
        meta.meta,
    )
    joined = select(*columns).join(did, and_(did.scope == replica.scope, did.name == replica.name))
    joined = joined.outerjoin(meta, and_(meta.scope == replica.scope, meta.name == replica.name))
    return joined.where(and_(replica.scope == subtree.scope, replica.rse_id == subtree.storage.rse_id)).with_for_update(
        of=replica.scope
    )


def _find_refusal(subtree: 'Subtree', seen: 'Replica', row: Any, busy: bool) -> Optional[Refusal]:
    did = f'{subtree.scope}:{seen.name}'
    known = (row.bytes, row.md5, row.adler32, row.state.value, stored_etag(row.meta, subtree.storage.rse_id))
    if known != (seen.bytes, seen.md5, seen.adler32, seen.state, seen.etag):
        return Refusal('changed', seen.name, f'{did} was changed in the catalogue during the comparison. Run it again.')
    if row.availability == DIDAvailability.LOST:
        return Refusal(
            'conflict',
            seen.name,
            f'{did} was declared lost, and Rucio never uses such a name again. Give the object another name.',
        )
    if busy:
        return Refusal('busy', seen.name, f'{did} is being transferred by Rucio. Run it again when that is finished.')
    return None


def _in_chunks(
    subtree: 'Subtree', seen: 'Sequence[Replica]', work: 'Callable[[Sequence[Replica], Session], _Result]'
) -> _Result:
    """Process chunks; if a chunk fails, its files one by one."""
    return _merge_results(
        [_run_chunk(subtree, chunk, work) for chunk in batches(sorted(seen, key=lambda each: each.name), CHUNK)]
    )


def _run_chunk(
    subtree: 'Subtree', chunk: 'Sequence[Replica]', work: 'Callable[[Sequence[Replica], Session], _Result]'
) -> _Result:
    try:
        return run_transaction(lambda session: work(chunk, session))
    except (Collision, RucioException) as error:
        if isinstance(error, DatabaseException):
            raise
        if len(chunk) == 1:
            did = f'{subtree.scope}:{chunk[0].name}'
            return 0, [
                Refusal(
                    'failed',
                    chunk[0].name,
                    f'{did}: the catalogue could not be updated: {error_text(error)}. Try again, or contact the '
                    'operator.',
                )
            ]
    return _merge_results([_run_chunk(subtree, [each], work) for each in chunk])


def _merge_results(acted: 'Sequence[_Result]') -> _Result:
    return sum(count for count, _ in acted), [refusal for _, refusals in acted for refusal in refusals]


# Changed


def replace(subtree: 'Subtree', seen: 'Replica', new: 'NewFile') -> Optional[Refusal]:
    """Update a file to the object that is in the bucket now.

    Size, checksums and ETag of the DID, its replica, locks and datasets are updated, and the usage of accounts and the
    RSE. Unknown values of the new content are cleared.

    A replica without locks loses its tombstone. One transaction with about 15 statements.

    :param seen: The replica as it was compared.
    :param new: The object that is in the bucket now.
    :returns: None, or why nothing was changed: ``gone``, ``changed``, ``busy``, ``conflict``, ``copies``.
    :raises DatabaseException: if the database does not work.
    """
    did = f'{subtree.scope}:{seen.name}'

    def work(session: 'Session') -> Optional[Refusal]:
        found, refusals = _lock_and_compare(subtree, [seen], session)
        if refusals:
            return refusals[0]
        if not found:
            return Refusal('gone', seen.name, f'{did} is no longer in the catalogue. Run it again.')
        if found[0].copies:
            remedy = 'Give the new object another name, or delete the other replicas and run it again.'
            return Refusal('copies', seen.name, f'{did} has other replicas with the old content. {remedy}')
        _set_content(subtree, seen, new, session)
        return None

    return run_transaction(work)


def _set_content(subtree: 'Subtree', seen: 'Replica', new: 'NewFile', session: 'Session') -> None:
    did, replica, content, lock = (
        models.DataIdentifier,
        models.RSEFileAssociation,
        models.DataIdentifierAssociation,
        models.ReplicaLock,
    )
    values = {'bytes': new.bytes, 'md5': new.md5, 'adler32': new.adler32}
    counted = session.execute(select(replica.bytes).where(_row_is(replica, subtree, seen.name))).scalar_one()
    for row in session.execute(
        select(lock.account, lock.rse_id, lock.bytes).where(_row_is(lock, subtree, seen.name)).with_for_update()
    ).all():
        account_counter.increase(
            rse_id=row.rse_id, account=row.account, files=0, bytes_=new.bytes - (row.bytes or 0), session=session
        )
    _update(lock, _row_is(lock, subtree, seen.name), {'bytes': new.bytes}, session)
    rse_counter.increase(rse_id=subtree.storage.rse_id, files=0, bytes_=new.bytes - counted, session=session)
    inside = and_(content.child_scope == subtree.scope, content.child_name == seen.name)
    parents = session.execute(select(content.scope, content.name, content.bytes).where(inside)).all()
    _update(did, _row_is(did, subtree, seen.name), values, session)
    _update(replica, _row_is(replica, subtree, seen.name), values, session)
    _update(replica, and_(_row_is(replica, subtree, seen.name), replica.lock_cnt == 0), {'tombstone': None}, session)
    _update(content, inside, values, session)
    for parent in parents:
        # If Rucio stores no size for an open dataset (it is computed on demand), none is stored here.
        for model in (did, models.DatasetLock):
            difference = new.bytes - (parent.bytes or 0)
            _update(
                model,
                and_(model.scope == parent.scope, model.name == parent.name),
                {'bytes': model.bytes + difference},
                session,
            )
    sums = {'scope': [each.scope for each in parents], 'name': [each.name for each in parents]}
    insert_rows(models.UpdatedCollectionReplica, {'did_type': DIDType.DATASET}, sums, session)
    bad = models.BadReplica
    declared = and_(
        _row_is(bad, subtree, seen.name),
        bad.rse_id == subtree.storage.rse_id,
        bad.state.in_((BadFilesStatus.BAD, BadFilesStatus.SUSPICIOUS)),
    )
    _update(bad, declared, {'state': BadFilesStatus.RECOVERED}, session)
    store_etags(subtree, {seen.name: new.etag}, session=session)


def protect_from_reaper(subtree: 'Subtree', names: 'Collection[str]') -> None:
    """Protect changed objects from Rucio's reaper, by removing the tombstones of unlocked replicas.

    Such replicas are cached copies that Rucio may delete, but the objects were written by somebody else. One statement
    for each :data:`CHUNK` files.

    :param names: The names of the files.
    :raises DatabaseException: if the database does not work.
    """
    replica = models.RSEFileAssociation
    here = and_(
        replica.scope == subtree.scope,
        replica.rse_id == subtree.storage.rse_id,
        replica.state == ReplicaState.AVAILABLE,
    )
    cached = and_(here, replica.lock_cnt == 0, replica.tombstone.is_not(None))
    for chunk in batches(sorted(names), CHUNK):
        run_transaction(partial(_update, replica, and_(cached, replica.name.in_(chunk)), {'tombstone': None}))


def _row_is(model: Any, subtree: 'Subtree', name: str) -> Any:
    return and_(model.scope == subtree.scope, model.name == name)


def _update(model: Any, where: Any, values: dict[str, Any], session: 'Session') -> None:
    session.execute(update(model).where(where).values(values).execution_options(synchronize_session=False))


# Gone


def forget(subtree: 'Subtree', seen: 'Sequence[Replica]') -> _Result:
    """Delete replicas whose objects are missing from the catalogue, so that their names can be used again.

    If a file has no other replica, its locks with their usage, its own rules, its attachments, and the DID with its
    metadata are deleted as well. If it has others, the replica is only deleted if it has no locks. One transaction for
    each :data:`CHUNK` files, about ten statements per file, like Rucio's own reaper.

    :param seen: The replicas as they were compared.
    :returns: The number of deleted replicas, and the refusals: ``changed``, ``busy``, ``conflict``, ``copies``,
        ``locked``, ``failed``.
    :raises DatabaseException: if the database does not work. What was done until then stays.
    """
    return _in_chunks(subtree, seen, lambda chunk, session: _forget(subtree, chunk, session))


def find_kept(subtree: 'Subtree', seen: 'Sequence[Replica]', account: InternalAccount) -> list[Refusal]:
    """Return which files an account must not delete, and why: before it deletes their objects, and they are forgotten.

    These are the refusals of :func:`forget`, and files that a rule or a dataset of somebody else needs. Changes
    nothing. About eight queries for each 500 files.

    :param seen: The replicas as they were read.
    :param account: The account.
    """

    def judge(session: 'Session') -> list[Refusal]:
        judged = _judge(subtree, seen, _lock_rules(subtree, [each.name for each in seen], session), session)
        refusals = [
            each._replace(
                found=f'{subtree.scope}:{each.name} was not deleted: it has other replicas, and a rule keeps this one. '
                'Delete that rule first.'
            )
            if each.kind == 'copies'
            else each
            for each in judged.refusals
        ]
        return refusals + _needed_by_others(subtree, judged, account, session)

    return run_transaction(judge)


def _needed_by_others(
    subtree: 'Subtree', judged: '_Judged', account: InternalAccount, session: 'Session'
) -> list[Refusal]:
    rule, lock, content = models.ReplicationRule, models.ReplicaLock, models.DataIdentifierAssociation
    locks = select(lock.name, lock.account, lock.rule_id).where(
        and_(lock.scope == subtree.scope, lock.rse_id == subtree.storage.rse_id, lock.account != account)
    )
    kept = {
        row.name: f'the rule {row.rule_id} of account {row.account} keeps'
        for row in select_named(locks, lock.name, judged.going, session)
    }
    inside = select(content.scope, content.name, content.child_name).where(content.child_scope == subtree.scope)
    parents = select_named(inside, content.child_name, judged.last, session)
    named = {row.name for row in parents} | set(judged.last)
    theirs = select(rule.id, rule.name, rule.account).where(and_(rule.scope == subtree.scope, rule.account != account))
    # A new rule has no locks until Rucio's judge has evaluated it.
    rules = {row.name: row for row in select_named(theirs, rule.name, named, session)}
    for child, scope, name in [(row.child_name, row.scope, row.name) for row in parents] + [
        (name, subtree.scope, name) for name in judged.last
    ]:
        if scope != subtree.scope:
            kept.setdefault(child, f'the dataset {scope}:{name} contains')
        elif found := rules.get(name):
            kept.setdefault(child, f'the rule {found.id} of account {found.account} keeps')
    return [
        Refusal('locked', name, f'{subtree.scope}:{name} was not deleted: {why} it. Ask for that to be removed first.')
        for name, why in kept.items()
    ]


class _Judged(NamedTuple):
    """What can be forgotten: all replicas, those that are the last ones of their files, and what cannot."""

    going: list[str]
    last: list[str]
    refusals: list[Refusal]


def _judge(subtree: 'Subtree', seen: 'Sequence[Replica]', rules: 'Sequence[Any]', session: 'Session') -> _Judged:
    found, refusals = _lock_and_compare(subtree, seen, session)
    fixed = {
        rule.name: rule
        for rule in rules
        if rule.did_type == DIDType.FILE and (rule.locked or rule.child_rule_id is not None)
    }
    going, last = [], []
    for each in found:
        if each.copies and each.locks:
            refusals.append(Refusal('copies', each.name, _locked_copy_text(subtree, each)))
        elif not each.copies and each.name in fixed:
            found_rule = (
                f'{subtree.scope}:{each.name} has the rule {fixed[each.name].id}, which is locked or being moved.'
            )
            refusals.append(
                Refusal(
                    'locked',
                    each.name,
                    f'{found_rule} Unlock it (rucio rule update --locked False), then run it again.',
                )
            )
        else:
            going.append(each.name)
            last += [] if each.copies else [each.name]
    return _Judged(going, last, refusals)


def _forget(subtree: 'Subtree', seen: 'Sequence[Replica]', session: 'Session') -> _Result:
    rules = _lock_rules(subtree, [each.name for each in seen], session)
    going, last, refusals = _judge(subtree, seen, rules, session)
    for rule in rules:
        if rule.did_type == DIDType.FILE and rule.name in last:
            delete_rule(rule_id=rule.id, session=session)
    _remove_locks(subtree, last, [rule for rule in rules if rule.did_type != DIDType.FILE], session)
    _detach(subtree, last, session)
    delete_references(subtree, going, session=session)
    delete_replicas(
        rse_id=subtree.storage.rse_id, files=[{'scope': subtree.scope, 'name': name} for name in going], session=session
    )
    return len(going), refusals


def _locked_copy_text(subtree: 'Subtree', found: _LockedReplica) -> str:
    return (
        f'{subtree.scope}:{found.name} has other replicas, and {found.locks} lock(s) on this one. Delete the rule that '
        "keeps it here, or declare it bad (--on-missing lost): then Rucio's daemons copy it here again."
    )


def _lock_rules(subtree: 'Subtree', names: 'Collection[str]', session: 'Session') -> list[Any]:
    """Lock the rules of some files, before anything else and in the order of their ids.

    Rucio's judge also locks rules before replicas.
    """
    rule, lock = models.ReplicationRule, models.ReplicaLock
    keeping = select(lock.rule_id).where(lock.scope == subtree.scope).distinct()
    own = select(rule.id).where(rule.scope == subtree.scope)
    ids = {
        row[0]
        for row in [*select_named(keeping, lock.name, names, session), *select_named(own, rule.name, names, session)]
    }
    return [
        row[0] for row in select_named(select(rule).order_by(rule.id).with_for_update(), rule.id, sorted(ids), session)
    ]


def _remove_locks(subtree: 'Subtree', names: 'Collection[str]', rules: 'Sequence[Any]', session: 'Session') -> None:
    """Delete the locks of files, and update the counters of rules and accounts.

    Rucio's own function (for lost files) refuses empty files.
    """
    lock = models.ReplicaLock
    theirs = and_(lock.scope == subtree.scope, lock.name.in_(names))
    locks: dict[str, list[Any]] = defaultdict(list)
    for row in session.execute(
        select(lock.rule_id, lock.rse_id, lock.state, lock.bytes).where(theirs).with_for_update()
    ).all():
        locks[row.rule_id].append(row)
    session.execute(delete(lock).where(theirs).execution_options(synchronize_session=False))
    for rule in rules:
        if gone := locks.pop(rule.id, []):
            _uncount_locks(rule, gone, session)
            _update_rule_state(rule, session)
    if locks:
        raise Collision('a rule was created at the same time')


def _uncount_locks(rule: Any, gone: 'Sequence[Any]', session: 'Session') -> None:
    states = [row.state for row in gone]
    rule.locks_ok_cnt -= states.count(LockState.OK)
    rule.locks_replicating_cnt -= states.count(LockState.REPLICATING)
    rule.locks_stuck_cnt -= states.count(LockState.STUCK)
    for rse_id in {row.rse_id for row in gone}:
        sizes = [row.bytes or 0 for row in gone if row.rse_id == rse_id]
        account_counter.decrease(
            rse_id=rse_id, account=rule.account, files=len(sizes), bytes_=sum(sizes), session=session
        )


def _update_rule_state(rule: Any, session: 'Session') -> None:
    """Update the state of a rule that has fewer locks, like Rucio's own ``update_rules_for_lost_replica``."""
    before = rule.state
    if (
        before not in (RuleState.SUSPENDED, RuleState.STUCK)
        and not rule.locks_replicating_cnt
        and not rule.locks_stuck_cnt
    ):
        rule.state = RuleState.OK
        _update(models.DatasetLock, models.DatasetLock.rule_id == rule.id, {'state': LockState.OK}, session)
        if before != RuleState.OK:
            generate_rule_notifications(rule=rule, session=session)
            generate_email_for_rule_ok_notification(rule=rule, session=session)
        release_parent_rule(child_rule_id=rule.id, session=session)
    insert_rule_history(rule=rule, recent=True, longterm=False, session=session)


def _detach(subtree: 'Subtree', names: 'Collection[str]', session: 'Session') -> None:
    """Detach files from their datasets.

    Deleting their replicas would also delete a closed dataset that becomes empty.
    """
    content, collection = models.DataIdentifierAssociation, models.CollectionReplica
    parents: dict[tuple[Any, str], list[dict[str, Any]]] = defaultdict(list)
    inside = select(content.scope, content.name, content.child_name).where(content.child_scope == subtree.scope)
    for row in select_named(inside, content.child_name, names, session):
        parents[row.scope, row.name].append({'scope': subtree.scope, 'name': row.child_name})
    for (scope, name), files in parents.items():
        detach_dids(scope=scope, name=name, dids=files, session=session)
        here = and_(collection.scope == scope, collection.name == name, collection.rse_id == subtree.storage.rse_id)
        if session.execute(select(collection.name).where(here)).first():
            models.UpdatedCollectionReplica(
                scope=scope, name=name, did_type=DIDType.DATASET, rse_id=subtree.storage.rse_id
            ).save(session=session)


# Bad and lost


def declare_bad(subtree: 'Subtree', seen: 'Sequence[Replica]', reason: str) -> _Result:
    """Declare replicas bad, as root.

    Rucio's daemons then *overwrite* the object with another replica, or *delete* it if there is none, no matter who
    wrote it.

    :param seen: The replicas as they were compared.
    :param reason: Stored with the declaration, truncated to 255 characters.
    :returns: The number of declared replicas, and the refusals: ``changed``, ``busy``, ``conflict``,
        ``empty``, ``failed``.
    :raises DatabaseException: if the database does not work. What was done until then stays.
    """
    return _in_chunks(subtree, seen, lambda chunk, session: _declare(subtree, chunk, reason, session))


def declare_lost(subtree: 'Subtree', seen: 'Sequence[Replica]', reason: str) -> _Result:
    """Declare replicas bad whose objects are missing.

    If there is another replica, Rucio's daemons copy the file here again. If there is none, it becomes LOST: Rucio
    never reuses the name, and *deletes* objects that are written there in the meantime.

    :param seen: The replicas as they were compared.
    :param reason: Stored with the declaration, truncated to 255 characters.
    :returns: As :func:`declare_bad`.
    """
    return declare_bad(subtree, seen, reason)


def _declare(subtree: 'Subtree', seen: 'Sequence[Replica]', reason: str, session: 'Session') -> _Result:
    found, refusals = _lock_and_compare(subtree, seen, session)
    declared = []
    for each in found:
        if not each.bytes and not each.copies:
            said_so = (
                f"{subtree.scope}:{each.name} is empty and has no other replica: Rucio's necromancer stops at such a "
                'file forever, so it was not declared.'
            )
            refusals.append(Refusal('empty', each.name, f'{said_so} Use replace or forget.'))
        else:
            declared.append({'scope': subtree.scope, 'name': each.name, 'rse_id': subtree.storage.rse_id})
    root = InternalAccount('root', vo=subtree.scope.vo)
    # force: the replica is available now, whatever was declared before.
    declare_bad_file_replicas(declared, reason[:MAX_REASON_LENGTH], root, force=True, session=session)
    return len(declared), refusals


# Missing metadata


def complete(subtree: 'Subtree', names: 'Sequence[str]') -> int:
    """Mark replicas as available whose upload arrived but was not completed in the catalogue.

    Transfers by Rucio are not touched.

    :param names: The names of the files.
    :returns: The number of replicas.
    :raises DatabaseException: if the database fails. What was done before is kept.
    """
    return sum(run_transaction(partial(_complete, subtree, chunk)) for chunk in batches(sorted(names), CHUNK))


def _complete(subtree: 'Subtree', names: 'Sequence[str]', session: 'Session') -> int:
    replica, request, here = models.RSEFileAssociation, models.Request, subtree.storage.rse_id
    copying = and_(replica.scope == subtree.scope, replica.rse_id == here, replica.state == ReplicaState.COPYING)
    written = select_named(
        select(request.name).where(and_(request.scope == subtree.scope, request.dest_rse_id == here)),
        request.name,
        names,
        session,
    )
    found = {
        row.name
        for row in select_named(select(replica.name).where(copying).with_for_update(), replica.name, names, session)
    }
    done = sorted(found - {row.name for row in written})
    update_replicas_states(
        [{'rse_id': here, 'scope': subtree.scope, 'name': name, 'state': ReplicaState.AVAILABLE} for name in done],
        session=session,
    )
    unlocked = and_(
        replica.scope == subtree.scope, replica.rse_id == here, replica.name.in_(done), replica.lock_cnt == 0
    )
    _update(replica, unlocked, {'tombstone': None}, session)
    return len(done)


def note_etags(subtree: 'Subtree', etags: 'Mapping[str, str]') -> None:
    """Store the ETags of files on this RSE, so that the next run can verify them by the listing.

    :param etags: Name -> ETag. Names that the catalogue does not know are left out.
    :raises DatabaseException: if the database does not work. What was done until then stays.
    """
    for names in batches(sorted(etags), CHUNK):
        chunk = {name: etags[name] for name in names}
        run_transaction(partial(_store_etags, subtree, chunk))


def _store_etags(subtree: 'Subtree', etags: 'Mapping[str, str]', session: 'Session') -> None:
    store_etags(subtree, etags, session=session)


def set_checksums(subtree: 'Subtree', name: str, md5: Optional[str], adler32: Optional[str]) -> None:
    """Set the checksums of a file where the catalogue has none: of the DID, of all replicas, in datasets and requests.

    :param md5: The MD5 in hexadecimal, if known.
    :param adler32: The Adler-32 in hexadecimal, if known.
    :raises DatabaseException: if the database does not work.
    """

    def work(session: 'Session') -> None:
        content = models.DataIdentifierAssociation
        inside = and_(content.child_scope == subtree.scope, content.child_name == name)
        did = models.DataIdentifier
        places = [(model, _row_is(model, subtree, name)) for model in (did, models.RSEFileAssociation, models.Request)]
        for key, value in (('md5', md5), ('adler32', adler32)):
            known = session.execute(
                select(getattr(did, key)).where(_row_is(did, subtree, name)).with_for_update()
            ).scalar()
            if value and not known:
                for model, where in [*places, (content, inside)]:
                    _update(model, and_(where, getattr(model, key).is_(None)), {key: value}, session)

    run_transaction(work)
