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

"""Twins: two VOs, two RSEs and two scopes with the same names. Whatever is done to one leaves each row and each object of the others as it was."""

from itertools import product

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy import and_, delete, select

from rucio.common.exception import DataIdentifierNotFound, RucioException
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import did, rule
from rucio.core.s3 import storages
from rucio.core.s3.auth import chaining, grants, old_grants
from rucio.core.s3.buckets import creation, lookup, publishing, removal
from rucio.core.s3.catalogue import changes, registration, updates
from rucio.core.s3.catalogue.records import NewFile
from rucio.core.s3.reconciler import listings, progress, usage
from rucio.db.sqla import models
from rucio.db.sqla import s3 as s3_tables
from rucio.db.sqla import session as rucio_session
from rucio.db.sqla.constants import DIDType, ReplicaState, RequestState, RequestType
from servers.twins import OWNERS, PAST, RSES, VOS

SUM = 'd41d8cd98f00b204e9800998ecf8427e'
OTHER_SUM = '0cc175b9c0f1b6a831c399e269772661'
NEW = {'bytes': 77, 'md5': OTHER_SUM, 'adler32': '0000000a'}


def strangers(changed, one, names):
    """The changes that are not those of one scope, RSE and VO, or of other names than these."""
    found = []
    for table, *columns in changed:
        row = dict(columns)
        for key, value in row.items():
            if isinstance(value, InternalScope):
                own = value == one.scope
            elif isinstance(value, InternalAccount):
                own = value.vo == one.storage.vo
            elif key in ('rse_id', 'dest_rse_id', 'source_rse_id', 'rse_expression'):
                own = value in (None, one.rse_id, one.storage.rse)
            elif key == 'bucket':
                own = value == one.subtree.bucket
            elif key in ('name', 'child_name', 'key') and names is not None:
                own = value in names
            else:
                continue
            if not own:
                found.append((table, key, value))
    return found


# An act, the names of rows that it may change, and what it says.
ACTS = {
    'replace': (lambda one: updates.replace(one.subtree, *one.seen('run1/file'), NewFile('run1/file', **NEW)), {'run1/file', 'run1'}, None),
    'replace what is cached': (
        lambda one: updates.replace(one.subtree, *one.seen('loose/marked'), NewFile('loose/marked', **NEW)),
        {'loose/marked', 'loose'},
        None,
    ),
    'protect': (lambda one: updates.protect_from_reaper(one.subtree, ['loose/cached', 'shared/cached']), {'loose/cached', 'shared/cached'}, None),
    'protect what is not complete': (lambda one: updates.protect_from_reaper(one.subtree, ['shared/half', 'run1/file']), set(), None),
    'forget': (lambda one: updates.forget(one.subtree, one.seen('run1/file')), {'run1/file', 'run1'}, (1, [])),
    'forget a lone one': (lambda one: updates.forget(one.subtree, one.seen('lone')), {'lone'}, (1, [])),
    'forget what is cached': (lambda one: updates.forget(one.subtree, one.seen('loose/cached')), {'loose/cached', 'loose'}, (1, [])),
    'forget one of two replicas': (lambda one: updates.forget(one.subtree, one.seen('shared/both')), {'shared/both', 'shared'}, (1, [])),
    'declare bad': (lambda one: updates.declare_bad(one.subtree, one.seen('run1/file', 'shared/both'), 'x'), {'run1/file', 'shared/both'}, (2, [])),
    'complete': (lambda one: updates.complete(one.subtree, ['shared/half', 'run1/file']), {'shared/half'}, 1),
    'note ETags': (lambda one: updates.note_etags(one.subtree, {'shared/both': 'x-3', 'lone': 'x-3'}), {'shared/both', 'lone'}, None),
    'register': (
        lambda one: registration.register(one.subtree, [NewFile(name, **NEW) for name in ('loose/new', 'new', 'new/er')]),
        {'loose/new', 'loose', 'new', 'new/er'},
        (3, []),
    ),
    'register what is elsewhere': (
        lambda one: registration.register(one.subtree, [NewFile('there/file', 10, SUM)]),
        {'there/file', 'there'},
        (1, []),
    ),
    'grant': (lambda one: one.write(grants.add_grant, one.scope, 'loose', 'bob', True, 'alice'), {'loose'}, True),
    'end a grant': (lambda one: one.write(grants.delete_grants, one.scope, 'run1'), {'run1'}, True),
    'end a grant of one': (lambda one: one.write(grants.delete_grants, one.scope, 'run1', 'bob'), {'run1'}, True),
    'end a public grant': (lambda one: len(one.write(grants.end_public_grant, one.scope, 'run1')), {'run1'}, 2),
    'remove a collection': (lambda one: remove(one, 'run1', True), {'all', 'run1', 'run1/file', 'run1/other'}, (2, 2, 2, 0, False)),
    'remove a bucket': (lambda one: remove(one, '', True), None, (5, 9, 9, 1, True)),
    'remove no bucket': (lambda one: remove(one, 'nothing', False), set(), (0, 0, 0, 0, False)),
    'publish': (lambda one: publishing.publish([one.storage], one.scope, 'loose', 'alice'), {'loose'}, True),
}  # fmt: skip


def remove(one, name, force):
    removed = removal.remove(one.storage, one.account, one.scope, name, force)
    assert removed['finished']
    return tuple(removed['removed'].values())


@pytest.mark.parametrize('vo', ['def', 'two'])
@pytest.mark.parametrize('act', ACTS)
def test_an_act_changes_its_own_rows_alone(twins, act, vo):
    work, names, answer = ACTS[act]
    one = twins.of(vo)
    before = twins.everything()
    assert work(one) == answer
    changed = before ^ twins.everything()
    assert bool(changed) == (names != set()), 'nothing was done at all'
    assert strangers(changed, one, names) == []


def test_etags_are_noted_beside_what_else_is_said_of_a_file_of_this_scope(twins):
    every = [twins.of(vo, owner) for vo, owner in product(VOS, OWNERS)]
    with twins.writing() as session:
        session.add(models.DataIdentifier(scope=every[1].scope, name='only', account=every[1].account, did_type=DIDType.FILE, bytes=1))
    for number, each in enumerate(every):
        twins.change(models.DidMeta, {'scope': each.scope, 'name': 'lone'}, meta=f'{{"campaign": {number}}}')
    before = twins.everything()
    for number, each in enumerate(every):
        updates.note_etags(each.subtree, {'lone': f'x-{number}', **({} if number == 1 else {'only': 'x-9'})})
    changed = before ^ twins.everything()
    assert {dict(row)['name'] for _, *row in changed} == {'lone'}
    for number, each in enumerate(every):
        (row,) = twins.rows(models.DidMeta, scope=each.scope, name='lone')
        assert old_grants.as_dict(row.meta) == {'campaign': number, 's3_etags': {each.rse_id: f'x-{number}'}}


def test_checksums_are_set_for_one_scope_on_all_its_rses(twins):
    one = twins.of()
    for model in (models.DataIdentifier, models.RSEFileAssociation, models.DataIdentifierAssociation):
        twins.change(model, {}, md5=None, adler32=None)
    before = twins.everything()
    updates.set_checksums(one.subtree, 'shared/both', OTHER_SUM, '00000002')
    changed = before ^ twins.everything()
    assert sorted({(table, dict(row).get('child_name', dict(row).get('name'))) for table, *row in changed}) == [
        ('contents', 'shared/both'),
        ('dids', 'shared/both'),
        ('replicas', 'shared/both'),
    ]
    assert {value for _, *row in changed for value in dict(row).values() if isinstance(value, InternalScope)} == {one.scope}
    assert len(changed) == 8


def seen(one, *names):
    return [each for each in listings.replicas(one.subtree) if each.name in names]


# What is read of one of them, with some of what it says.
READS = {
    'replicas': lambda one: list(listings.replicas(one.subtree)),
    'known': lambda one: listings.known(one.subtree, ['run1/file', 'shared/both', 'there/file']),
    'changes': lambda one: one.read(changes.list_changes, one.storage, one.scope, '', PAST),
    'grants': lambda one: one.read(grants.list_grants, one.scope, 'run1'),
    'granted': lambda one: [one.read(grants.granted_until, InternalAccount(who, vo=one.storage.vo), one.scope, 'run1/x', False) for who in ('alice', 'bob')],
    'published': lambda one: one.read(grants.list_published, one.scope),
    'grantable': lambda one: one.read(grants.need_grantable, one.scope, 'run1', 'bob', False) or True,
    'old grants': lambda one: one.read(old_grants.is_public, one.scope, 'run1/file'),
    'anything': lambda one: one.read(lookup.has_anything, one.scope, one.storage),
    'replicas at all': lambda one: one.read(lambda session: progress._has_replicas(one.storage, one.scope, session)),
    'what the reconciler works on': lambda one: [
        (each.bucket, each.storage.rse_id) for each in progress.find_work(one.storage, ()).subtrees if each.scope == one.scope
    ],
    'a file': lambda one: one.read(lookup.is_file, one.scope, 'run1/file'),
    'rules': lambda one: one.read(creation.own_rules, one.account, one.scope, 'run11', one.storage),
    'what may be removed': lambda one: [one.read(lambda session, name=name: removal._state(one.subtree, name, session)) for name in ('run1', 'run11', 'gone')],
    'what is locked': lambda one: one.write(lambda session: updates._lock_and_compare(one.subtree, seen(one, 'run1/file', 'lone'), session)[0]),
    'rules to lock': lambda one: one.write(lambda session: [row.id for row in updates._lock_rules(one.subtree, ['run1/file', 'lone'], session)]),
}


def answer(read, one):
    try:
        return READS[read](one)
    except RucioException as error:
        return type(error)


@pytest.mark.parametrize('read', READS)
def test_what_is_read_of_one_does_not_depend_on_the_others(twins, read):
    one = twins.of()
    twins.change(models.DidMeta, {'name': 'run1/file'}, meta='{"s3_grants": {"*": {}}}')
    before = answer(read, one)
    drop_rows(lambda row: strangers([('x', *row.items())], one, None))
    assert answer(read, one) == before


@pytest.mark.parametrize('read', READS)
def test_what_is_read_of_one_that_is_gone_is_not_that_of_another(twins, read):
    one = twins.of()
    twins.change(models.DidMeta, {'name': 'run1/file'}, meta='{"s3_grants": {"*": {}}}')
    before = answer(read, one)
    drop_rows(lambda row: one.scope in row.values())
    without = answer(read, one)
    assert without != before
    drop_rows(lambda row: any(isinstance(value, InternalScope) for value in row.values()))
    assert answer(read, one) == without


def test_the_object_of_another_scope_is_not_the_same_one(twins):
    """Where two RSEs use the same buckets, an object is the replica of one of them. Of a scope, not of all that have the name."""
    one, there = twins.of(), twins.of(rse='TWIN_B')
    twins.change(models.RSEProtocol, {'rse_id': there.rse_id}, extended_attributes='{"s3": {"provider": "seaweedfs"}}')
    storages._storages.clear()
    for each in (twins.of(owner='bob', rse='TWIN_B'), one):
        assert registration.register(each.subtree, [NewFile('new/file', 10, SUM)]) == (1, [])
    with twins.writing() as session:  # the file of alice has no replica any more, and gets one again
        replica = models.RSEFileAssociation
        session.execute(delete(replica).where(replica.scope == one.scope, replica.name == 'new/file', replica.rse_id == one.rse_id))
    assert registration.register(one.subtree, [NewFile('new/file', 10, SUM)]) == (1, [])
    count, (refusal,) = registration.register(one.subtree, [NewFile('there/file', 10, SUM)])
    assert (count, refusal.kind) == (0, 'conflict')
    assert 'is already the replica of user.alice:there/file on RSE TWIN_B' in refusal.found


def test_the_replica_of_another_scope_is_not_that_of_this_file(twins):
    """What lost its replica gets one again; what is new is the same in each column for each of them, but for whose it is."""
    every = [twins.of(vo, owner) for vo, owner in product(VOS, OWNERS)]
    one = every[0]
    drop_rows(lambda row: row.get('name') == 'loose/cached' and 'tombstone' in row and row['rse_id'] == one.rse_id and row['scope'] == one.scope)
    assert registration.register(one.subtree, [NewFile('loose/cached', 10, SUM)]) == (1, [])
    for each in every:
        assert registration.register(each.subtree, [NewFile('loose/new', 77, SUM, '0000000a', 'x-2')]) == (1, [])
        (made,) = twins.rows(models.DataIdentifier, scope=each.scope, name='loose/new')
        assert (made.account, made.did_type, made.bytes, made.md5, made.adler32) == (each.account, DIDType.FILE, 77, SUM, '0000000a')
        assert made.is_new is None, 'subscriptions are for datasets'
        (made,) = twins.rows(models.DataIdentifierAssociation, child_scope=each.scope, child_name='loose/new')
        assert (made.scope, made.name, made.did_type, made.child_type) == (each.scope, 'loose', DIDType.DATASET, DIDType.FILE)
        assert (made.bytes, made.md5, made.adler32, made.rule_evaluation) == (77, SUM, '0000000a', True)
        (made,) = twins.rows(models.RSEFileAssociation, scope=each.scope, name='loose/new')
        assert (made.rse_id, made.state, made.lock_cnt, made.bytes, made.md5, made.adler32) == (each.rse_id, ReplicaState.AVAILABLE, 0, 77, SUM, '0000000a')
        assert made.created_at
        assert made.updated_at
        assert [row.rule_evaluation_action.value for row in twins.rows(models.UpdatedDID, scope=each.scope, name='loose')] == ['A']


def test_a_transfer_of_another_scope_or_to_another_rse_is_not_of_this_file(twins):
    one, bob, there = twins.of(), twins.of(owner='bob'), twins.of(rse='TWIN_B')
    with twins.writing() as session:
        for each in (bob, there):
            values = {'request_type': RequestType.TRANSFER, 'state': RequestState.QUEUED, 'did_type': DIDType.FILE}
            session.add(models.Request(scope=each.scope, name='shared/half', dest_rse_id=each.rse_id, **values))
    assert updates.complete(one.subtree, ['shared/half']) == 1
    assert updates.complete(bob.subtree, ['shared/half']) == updates.complete(there.subtree, ['shared/half']) == 0


def test_a_transfer_or_an_archive_of_another_scope_does_not_keep_a_file(twins):
    one, bob, there = twins.of(), twins.of(owner='bob'), twins.of(rse='TWIN_B')
    with twins.writing() as session:
        session.add(models.RSEFileAssociation(scope=bob.scope, name='lone', rse_id=there.rse_id, bytes=10, state=ReplicaState.AVAILABLE))
        values = {'request_type': RequestType.TRANSFER, 'state': RequestState.QUEUED, 'did_type': DIDType.FILE}
        session.add(models.Request(scope=bob.scope, name='lone', dest_rse_id=one.rse_id, **values))
        session.add(models.ConstituentAssociation(scope=bob.scope, name='run1/file', child_scope=bob.scope, child_name='lone', bytes=10))
    assert updates.forget(one.subtree, one.seen('lone')) == (1, [])
    assert twins.rows(models.DataIdentifier, scope=one.scope, name='lone') == []
    (refused,) = updates.forget(bob.subtree, bob.seen('lone'))[1]
    assert refused.kind == 'busy'


def test_rules_locks_and_datasets_of_others_keep_what_they_are_of_alone(twins):
    """Before `rucio s3 rm` deletes objects: bob has the same names in his own scope, and rules for all of them."""
    one, bob, there = twins.of(), twins.of(owner='bob'), twins.of(rse='TWIN_B')
    every = [each.name for each in listings.replicas(one.subtree)]
    assert updates.find_kept(one.subtree, one.seen(*every), one.account) == []
    settings = {'copies': 1, 'grouping': 'DATASET', 'weight': None, 'lifetime': None, 'locked': False, 'subscription_id': None}
    wanted = [{'scope': one.scope, 'name': 'shared/both'}]
    one.write(rule.add_rule, wanted, bob.account, rse_expression='TWIN_B', ignore_account_limit=True, **settings)
    assert updates.find_kept(one.subtree, one.seen(*every), one.account) == [], 'the lock is on the other RSE'
    assert [each.name for each in updates.find_kept(there.subtree, there.seen('shared/both', 'there/file'), one.account)] == ['shared/both']
    assert {each.name for each in updates.find_kept(one.subtree, one.seen(*every), bob.account)} == {'run1/file', 'run1/other', 'run11/file', 'lone'}


def test_what_the_catalogue_says_of_a_file_of_another_scope_does_not_refuse_this_one(twins):
    """Nor does what a replica of the same file is on another RSE."""
    one, there = twins.of(), twins.of(rse='TWIN_B')
    for other in (twins.of(owner='bob'), twins.of('two'), twins.of('two', 'bob')):
        twins.change(models.DataIdentifier, {'scope': other.scope}, bytes=11, md5=OTHER_SUM, adler32='00000003')
    twins.change(models.RSEFileAssociation, {'rse_id': there.rse_id}, state=ReplicaState.BAD)
    for name in ('run1/file', 'shared/both', 'lone'):
        assert updates.forget(one.subtree, one.seen(name)) == (1, [])
    twins.change(models.DataIdentifier, {'scope': one.scope}, bytes=11)
    twins.change(models.DataIdentifier, {'scope': one.scope, 'name': 'loose/cached'}, bytes=10)
    assert updates.forget(one.subtree, one.seen('loose/cached')) == (1, []), 'nor what it says of another name'


def test_what_is_written_elsewhere_is_not_complete_here(twins):
    """Of the same name, in another scope or on another RSE: a replica that was declared bad here stays so."""
    one, bob, there = twins.of(), twins.of(owner='bob'), twins.of(rse='TWIN_B')
    for each in (one, there):
        twins.change(models.RSEFileAssociation, {'scope': each.scope, 'name': 'shared/half', 'rse_id': each.rse_id}, state=ReplicaState.BAD)
    twins.change(models.RSEFileAssociation, {'scope': one.scope, 'name': 'shared/both', 'rse_id': there.rse_id}, state=ReplicaState.COPYING)
    twins.change(models.RSEFileAssociation, {'scope': one.scope, 'name': 'shared/both', 'rse_id': one.rse_id}, state=ReplicaState.BAD)
    before = twins.everything()
    assert updates.complete(one.subtree, ['shared/half', 'shared/both']) == 0
    assert before == twins.everything()
    assert updates.complete(bob.subtree, ['shared/half', 'shared/both']) == 1


def test_what_is_removed_from_one_is_not_removed_from_another(twins):
    one, bob, there = twins.of(), twins.of(owner='bob'), twins.of(rse='TWIN_B')

    def removed(each):
        return [change.name for change in each.read(changes.list_changes, each.storage, each.scope, '', PAST) if change.change == 'removed']

    updates.forget(one.subtree, one.seen('loose/cached'))
    assert [removed(each) for each in (one, bob, twins.of('two'))] == [['loose/cached'], [], []]
    registration.register(there.subtree, [NewFile('loose/cached', 10, SUM)])
    assert (removed(one), removed(there)) == (['loose/cached'], [])
    # Of a collection of alice's with a file of bob's: no file of hers was removed, and no collection of his lost one.
    with twins.writing() as session:
        did.attach_dids(one.scope, 'loose', [{'scope': bob.scope, 'name': 'lone'}], one.account, session=session)
    assert updates.forget(bob.subtree, bob.seen('lone')) == (1, [])
    assert (removed(one), removed(bob)) == (['loose/cached'], [])


def test_only_collections_that_are_counted_here_are_counted_again(twins):
    """Not those of another scope, name or RSE."""
    one, there = twins.of(), twins.of(rse='TWIN_B')
    drop_rows(lambda row: row.get('available_replicas_cnt') is not None and (row['scope'], row['name']) == (one.scope, 'run1'))
    with twins.writing() as session:
        values = {'did_type': DIDType.DATASET, 'state': ReplicaState.AVAILABLE, 'bytes': 10, 'length': 1}
        session.add(models.CollectionReplica(scope=one.scope, name='run1', rse_id=there.rse_id, **values))
    updates.forget(one.subtree, one.seen('run1/file'))
    assert twins.rows(models.UpdatedCollectionReplica, scope=one.scope) == []
    updates.forget(one.subtree, one.seen('run11/file'))
    assert [(row.name, row.rse_id) for row in twins.rows(models.UpdatedCollectionReplica, scope=one.scope)] == [('run11', one.rse_id)]


def test_a_grant_is_of_one_account(twins):
    """Of several that the owner has given access to the same collection."""
    one = twins.of()
    names = ('bob', 'carol', 'dave')
    for name in names:
        one.write(grants.add_grant, one.scope, 'loose', name, False, 'alice')

    def listed():
        return {grant.account: grant.write for grant in one.read(grants.list_grants, one.scope, 'loose')}

    assert listed() == dict.fromkeys(names, False)
    one.write(grants.add_grant, one.scope, 'loose', 'carol', True, 'alice')
    assert listed() == {'bob': False, 'carol': True, 'dave': False}
    one.write(grants.delete_grants, one.scope, 'loose', 'carol')
    assert listed() == {'bob': False, 'dave': False}
    one.write(grants.add_grant, one.scope, 'loose', grants.EVERYBODY, False, 'alice')
    one.write(grants.delete_grants, one.scope, 'loose')
    assert listed() == {'*': False}
    one.write(grants.add_grant, one.scope, 'all', 'bob', False, 'alice')
    assert sorted(one.read(grants.list_published, one.scope)) == ['loose', 'run1', 'shared']
    assert one.read(grants.list_public) == sorted(
        [f'user.{owner}{vo}:{name}' for owner, vo, name in product(OWNERS, ('', '@two'), ('run1', 'shared'))] + ['user.alice:loose']
    )
    with pytest.raises(DataIdentifierNotFound, match=r'user\.alice:gone'):
        one.write(grants.add_grant, one.scope, 'gone', 'bob', False, 'alice')


def test_a_grant_ends_with_its_collection(twins):
    """No other collection takes it over, though all were created at the same moment."""
    one, bob = twins.of(), InternalAccount('bob')
    twins.change(models.DataIdentifier, {}, created_at=PAST)
    twins.change(s3_tables.Grant, {}, did_created_at=PAST)
    assert one.read(grants.granted_until, bob, one.scope, 'run1/x', False)
    drop_rows(lambda row: row.get('name') == 'run1' and row['scope'] == one.scope and 'is_open' in row)
    assert not one.read(grants.granted_until, bob, one.scope, 'run1/x', False)
    assert one.read(grants.granted_until, bob, one.scope, 'shared/x', False)
    assert {(ended.scope, ended.name) for ended in one.read(grants.list_ended, 'def')} == {(one.scope, 'run1')}
    assert list(one.read(grants.list_published, one.scope)) == ['shared']
    assert one.read(grants.list_ended, 'two') == []


def test_the_rses_of_all_vos_are_asked_for_their_roles(twins):
    """Before keys are vended, which must not take another role."""
    with twins.reading() as session:
        assert sorted(chaining._vos(session)) == ['def', 'two']


def test_the_usage_of_one_rse(twins, monkeypatch):
    """Its row of this source alone is stored, counted and withdrawn."""
    every = [twins.of(vo, rse=rse) for vo, rse in product(VOS, RSES)]
    one = every[0]
    with twins.writing() as session:
        for each in every:  # beside a row of the source 'rucio'
            session.add(models.RSEUsage(rse_id=each.rse_id, source=usage.SOURCE, used=1, free=1, files=1))
    assert one.write(usage.store, one.storage, usage.Usage(1, 1), None) is False, 'another program says what is free'
    twins.change(models.RSEUsage, {'rse_id': one.rse_id, 'source': usage.SOURCE}, free=None)
    before = twins.everything()
    assert one.write(usage.store, one.storage, usage.Usage(3, 50), 7) is True
    assert one.write(usage.store, one.storage, usage.Usage(4, 50), 7) is True
    changed = before ^ twins.everything()
    assert strangers(changed, one, None) == []
    assert {dict(row)['source'] for table, *row in changed if table == 'rse_usage'} == {usage.SOURCE}
    (row,) = twins.rows(models.RSEUsage, rse_id=one.rse_id, source=usage.SOURCE)
    assert (row.files, row.used, row.free) == (4, 50, 7)
    monkeypatch.setattr(usage.configs, 'put', lambda *_, **__: False)
    assert one.write(usage.store, one.storage, usage.Usage(5, 60), 7) is True, 'another worker has just done it'
    assert twins.rows(models.RSEUsage, rse_id=one.rse_id, source=usage.SOURCE) == [row]
    with twins.writing() as session:
        session.add(models.RSELimit(rse_id=one.rse_id, name=usage.FREE_SPACE_LIMIT, value=1))
        for each, value in ((one, 'MaxSpace'), (every[1], 'MaxSpace')):
            session.add(models.RSELimit(rse_id=each.rse_id, name=value, value=1))
        session.add(models.RSELimit(rse_id=every[2].rse_id, name=usage.FREE_SPACE_LIMIT, value=0))
    assert [each.write(usage.withdraw, each.storage) for each in every] == [True, False, False, False]
    assert [len(twins.rows(models.RSEUsage, rse_id=each.rse_id)) for each in every] == [1, 2, 2, 2]


def drop_rows(which):
    """Without a look at what refers to them."""
    with rucio_session._ENGINE.connect() as connection:
        connection.exec_driver_sql('PRAGMA foreign_keys=OFF')
        for table in [*models.BASE.metadata.sorted_tables, *s3_tables.S3Base.metadata.sorted_tables]:
            keys = list(table.primary_key.columns)
            for row in connection.execute(select(table)).mappings().all():
                if keys and which(row):
                    connection.execute(delete(table).where(and_(*(key == row[key.name] for key in keys))))
        connection.commit()
