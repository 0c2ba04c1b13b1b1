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

"""Where DIDs and buckets are, of each of two VOs, RSEs and scopes with the same names. Which RSE is meant: see test_core_storages.py."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.exception import AccessDenied, ResourceTemporaryUnavailable, RSENotFound
from rucio.common.s3.endpoint import SERVER
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import account, account_limit, did, rse
from rucio.core import scope as rucio_scope
from rucio.core.s3 import imports, storages
from rucio.core.s3.auth import access, grants
from rucio.core.s3.buckets import lookup, places
from rucio.db.sqla import models
from rucio.db.sqla.constants import AccountType, DIDType, ReplicaState
from servers.fake_s3 import error


@pytest.fixture
def one(twins):
    return twins.of()


@pytest.fixture
def newcomer(one, twins):
    """An account with a scope in which there is nothing, and quota on TWIN_B."""
    zoe = InternalAccount('zoe')
    with twins.writing() as session:
        account.add_account(zoe, AccountType.USER, 'nobody@localhost', session=session)
        rucio_scope.add_scope(InternalScope('user.zoe'), zoe, session=session)
        account_limit.set_local_account_limit(zoe, twins.of(rse='TWIN_B').rse_id, 1000, session=session)
        for name in ('TWIN_A', 'TWIN_B'):
            account_limit.set_local_account_limit(InternalAccount('bob'), twins.of(rse=name).rse_id, 0, session=session)
    return zoe


def names(found):
    return [(each.vo, each.rse) for each in found]


def candidates(one, name='', rse=None, of=None, scope=None):
    return names(one.read(lookup.candidates, of or one.account, scope or one.scope, name, rse))


def erase(twins, one, *kept):
    """All of a scope, but for rows of these models."""
    for model in (models.ReplicaLock, models.DatasetLock, models.ReplicationRule, models.RSEFileAssociation):
        if model not in kept:
            with twins.writing() as session:
                session.query(model).filter_by(scope=one.scope).delete()


@pytest.mark.parametrize('kept', [models.RSEFileAssociation, models.ReplicationRule, models.DatasetLock, None])
def test_has_anything(twins, one, kept):
    """A rule, a lock or a replica: each alone is something. Nothing of another scope, RSE or VO is."""
    with twins.writing() as session:
        session.connection().exec_driver_sql('PRAGMA foreign_keys=OFF')
    erase(twins, one, models.ReplicationRule, *([kept] if kept else []))
    if kept is not models.ReplicationRule:
        twins.change(models.ReplicationRule, {'scope': one.scope}, rse_expression='elsewhere')
    assert one.read(lookup.has_anything, one.scope, one.storage) is bool(kept)
    there = twins.of(rse='TWIN_B')
    assert one.read(lookup.has_anything, there.scope, there.storage) is bool(kept)
    bob = twins.of(owner='bob')
    assert one.read(lookup.has_anything, bob.scope, bob.storage) is True
    with twins.writing() as session:
        for model in (models.DatasetLock, models.RSEFileAssociation):
            session.query(model).filter_by(scope=one.scope, rse_id=there.rse_id).delete()
    twins.change(models.ReplicationRule, {'scope': one.scope, 'rse_expression': 'TWIN_B'}, rse_expression='TWIN_A')
    assert one.read(lookup.has_anything, one.scope, one.storage) is bool(kept)
    assert one.read(lookup.has_anything, there.scope, there.storage) is False


@pytest.mark.parametrize('vo', ['def', 'two'])
def test_candidates_are_where_the_did_is(twins, vo):
    one = twins.of(vo)
    assert candidates(one, 'run1/file') == [(vo, 'TWIN_A')]
    assert candidates(one, 'there/file') == [(vo, 'TWIN_B')]
    assert sorted(candidates(one, 'shared/both')) == [(vo, 'TWIN_A'), (vo, 'TWIN_B')]
    assert sorted(candidates(one, 'shared/half')) == [(vo, 'TWIN_A'), (vo, 'TWIN_B')]
    twins.change(
        models.RSEFileAssociation, {'scope': one.scope, 'name': 'shared/half', 'rse_id': twins.of(vo, rse='TWIN_B').rse_id}, state=ReplicaState.AVAILABLE
    )
    assert candidates(one, 'shared/half') == [(vo, 'TWIN_B'), (vo, 'TWIN_A')], 'what can be read comes first'
    assert candidates(one, 'run1') == [(vo, 'TWIN_A')]
    assert candidates(one, 'run1/new') == [(vo, 'TWIN_A')], 'a rule of the collection above'
    assert candidates(one, 'there/new/er') == [(vo, 'TWIN_B')]
    assert candidates(one, 'new') == candidates(one) == [(vo, 'TWIN_A'), (vo, 'TWIN_B')], 'where the scope has anything'
    assert candidates(one, 'run1', 'TWIN_B') == [(vo, 'TWIN_B')], 'as it was named'
    with pytest.raises(RSENotFound):
        candidates(one, 'run1', 'TWIN_C')


def test_a_rule_or_a_lock_is_enough(twins, one):
    with twins.writing() as session:
        for name in ('d', 'e'):
            did.add_did(one.scope, name, DIDType.DATASET, one.account, session=session)
    known = {'rule_id': twins.rows(models.ReplicationRule, scope=one.scope, name='there')[0].id, 'account': one.account, 'state': 'O'}
    with twins.writing() as session:
        session.add(models.DatasetLock(scope=one.scope, name='d', rse_id=twins.of(rse='TWIN_B').rse_id, **known))
    assert candidates(one, 'd/new') == [('def', 'TWIN_B')]
    twins.change(models.ReplicationRule, {'scope': one.scope, 'name': 'run11'}, name='e', rse_expression='TWIN_B')
    assert candidates(one, 'e/new') == [('def', 'TWIN_B')]
    with twins.writing() as session:
        tape = rse.add_rse('TAPE', session=session)
        did.add_did(one.scope, 'd/sub', DIDType.DATASET, one.account, session=session)
        session.add(models.DatasetLock(scope=one.scope, name='d/sub', rse_id=tape, **known))
    assert candidates(one, 'd/sub/new') == [('def', 'TWIN_B')]
    twins.change(models.ReplicationRule, {'scope': one.scope, 'name': 'run1/file'}, name='e', rse_expression='TAPE')
    assert candidates(one, 'e/new') == [('def', 'TWIN_B')], 'a rule for an RSE without S3 is for none of these'
    bob = twins.of(owner='bob')
    assert candidates(bob, 'e/new') == candidates(bob, 'd/new') == [('def', 'TWIN_A'), ('def', 'TWIN_B')]


def test_candidates_of_a_newcomer_are_where_there_is_quota(one, twins, newcomer):
    scope = InternalScope('user.zoe')
    assert candidates(one, '', of=newcomer, scope=scope) == candidates(one, 'x', of=newcomer, scope=scope) == [('def', 'TWIN_B')]
    for name in ('', 'x'):
        assert [each['rse'] for each in one.read(lookup.locate, newcomer, scope, name)] == ['TWIN_B']
    assert candidates(one, '', of=InternalAccount('root'), scope=scope) == [('def', 'TWIN_A'), ('def', 'TWIN_B')]
    bob = twins.of(owner='bob')
    assert candidates(bob) == candidates(bob, 'x') == [('def', 'TWIN_A'), ('def', 'TWIN_B')], 'where his scope is already'
    with pytest.raises(RSENotFound, match=r'Account bob has no quota on any S3 RSE: ask for quota, or name the RSE. S3 RSEs: TWIN_A, TWIN_B.'):
        candidates(one, '', of=InternalAccount('bob'), scope=scope)


def test_replicas_on_rses_without_s3_are_elsewhere(twins, one):
    with twins.writing() as session:
        rse_id = rse.add_rse('TAPE', session=session)
    twins.change(models.RSEFileAssociation, {'name': 'shared/both', 'scope': one.scope, 'rse_id': twins.of(rse='TWIN_B').rse_id}, rse_id=rse_id)
    assert candidates(one, 'shared/both') == [('def', 'TWIN_A')]


def test_without_an_rse(one, twins):
    twins.change(models.RSE, {}, deleted=True)
    with pytest.raises(RSENotFound, match='There is no S3 RSE'):
        candidates(one)


@pytest.mark.parametrize(('vo', 'prefix'), [('def', ''), ('two', 'two.')])
def test_locate(twins, s3, vo, prefix):
    one = twins.of(vo)

    def locate(name):
        return [
            (each['rse'], each['bucket'], each['key'], each['url'].removeprefix(s3.url), each['did_type'])
            for each in one.read(lookup.locate, one.account, one.scope, name)
        ]

    bucket = f'{prefix}user.alice'
    assert locate('run1/file') == [('TWIN_A', bucket, 'run1/file', f'/{bucket}/run1/file', 'FILE')]
    assert locate('run1') == [('TWIN_A', bucket, 'run1', f'/{bucket}/run1', 'DATASET')]
    assert locate('there/new x') == [('TWIN_B', f'{prefix}b.user.alice', 'there/new x', f'/{prefix}b.user.alice/there/new%20x', None)]
    assert locate('') == [('TWIN_A', bucket, '', f'/{bucket}', None), ('TWIN_B', f'{prefix}b.user.alice', '', f'/{prefix}b.user.alice', None)]
    assert one.read(lookup.place_on, one.storage, one.scope, 'there/file')['did_type'] == 'FILE'
    assert one.read(lookup.place_on, one.storage, one.scope, '')['did_type'] is None


def test_is_file(twins, one):
    assert one.read(lookup.is_file, one.scope, 'run1/file')
    assert not one.read(lookup.is_file, one.scope, 'run1')
    assert not one.read(lookup.is_file, one.scope, 'nothing')
    with twins.writing() as session:
        for name, kinds in (('x', (DIDType.DATASET, DIDType.FILE)), ('y', (DIDType.FILE, DIDType.DATASET)), ('only', (DIDType.FILE,))):
            for owner, kind in zip(('bob', 'alice'), kinds, strict=False):
                session.add(models.DataIdentifier(scope=InternalScope(f'user.{owner}'), name=name, account=one.account, did_type=kind))
                session.flush()
    for owner, files in (('alice', ['x']), ('bob', ['y', 'only'])):
        assert [name for name in ('x', 'y', 'only') if one.read(lookup.is_file, twins.of(owner=owner).scope, name)] == files


def test_scopes_and_quota(twins, one, newcomer):
    assert one.read(lookup.scopes_of, one.account) == {'user.alice'}
    assert one.read(lookup.has_quota, newcomer, 'TWIN_B') is True
    assert one.read(lookup.has_quota, newcomer, 'TWIN_A') is False
    assert one.read(lookup.has_quota, InternalAccount('alice', vo='two'), 'TWIN_A') is True
    found = one.read(lambda session: storages.list_storages('def', session=session))

    def listed(who, *scopes):
        return names(one.read(lookup.may_have_buckets_of, who, scopes, found))

    assert listed(newcomer, 'user.zoe') == [('def', 'TWIN_B')]
    assert listed(InternalAccount('bob')) == []
    assert listed(InternalAccount('bob'), 'user.bob') == [('def', 'TWIN_A'), ('def', 'TWIN_B')], 'what is there already'
    assert listed(InternalAccount('bob'), 'user.zoe') == []
    assert listed(InternalAccount('bob'), 'user.zoe', 'user.bob') == [('def', 'TWIN_A'), ('def', 'TWIN_B')], 'one of the scopes is enough'


def test_the_bucket_of_an_import_and_one_of_all_scopes_are_no_scopes(one, twins, imported, monkeypatch):
    listed = one.read(lambda session: storages.list_storages('def', session=session))
    assert imported in listed
    twins.change(models.RSEFileAssociation, {'scope': one.scope, 'name': 'lone'}, rse_id=imported.rse_id)
    assert names(one.read(lookup.may_have_buckets_of, one.account, ['user.alice'], listed)) == [('def', 'TWIN_A'), ('def', 'TWIN_B')]
    public = replace(imported, endpoint=replace(imported.endpoint, auth='anonymous'))
    assert lookup.list_buckets([public], {'user.alice'}) == ([], {})
    assert {each['scope'] for each in lookup.list_buckets([public], None)[0]} == {None}
    monkeypatch.setattr(type(one.storage.layout), 'common_bucket', 'user.alice')
    assert one.read(lookup.may_have_buckets_of, one.account, ['user.alice'], listed) == []
    assert lookup.list_buckets([one.storage], {'user.alice'}) == ([], {})
    assert [(each['bucket'], each['scope']) for each in lookup.list_buckets([one.storage], None)[0]] == [('user.alice', None)]


# Buckets


def test_own_bucket(one, twins):
    storage, bucket, admin = lookup.own_bucket(one.account, one.scope, 'TWIN_B')
    assert (storage.rse, bucket, admin) == ('TWIN_B', 'b.user.alice', False)
    assert lookup.own_bucket(InternalAccount('root'), one.scope, 'TWIN_A')[1:] == ('user.alice', True)
    with pytest.raises(AccessDenied):
        lookup.own_bucket(InternalAccount('bob'), one.scope, 'TWIN_A')


def test_who_may_read_a_bucket_or_write_a_part_of_it_does_not_manage_it(one, monkeypatch):
    monkeypatch.setattr(access.policy_package, 'decide', lambda _issuer, _scope, name, write, **_: not write or name != '')
    with pytest.raises(AccessDenied):
        lookup.own_bucket(InternalAccount('bob'), one.scope, 'TWIN_A')


def test_a_bucket_of_all_scopes_is_its_operators(one, monkeypatch):
    monkeypatch.setattr(lookup, 'need_exclusive', lambda *_: None)
    monkeypatch.setattr(type(one.storage.layout), 'common_bucket', 'user.alice')
    assert lookup.own_bucket(InternalAccount('root'), one.scope, 'TWIN_A')[1:] == ('user.alice', True)
    with pytest.raises(AccessDenied, match=r"RSE TWIN_A keeps all scopes in one bucket, 'user.alice'"):
        lookup.own_bucket(one.account, one.scope, 'TWIN_A')


def test_whether_the_bucket_of_a_scope_is_there(one, twins, s3, monkeypatch):
    there = twins.of(rse='TWIN_B').storage
    del s3.buckets['b.user.alice']
    assert [lookup._has_bucket(each, 'user.alice') for each in (one.storage, there)] == [True, False]
    assert lookup.choose_storage([one.storage, there], 'user.alice') is one.storage
    s3.fail('HeadBucket', error(403, 'AccessDenied'), error(403, 'AccessDenied'))
    assert [lookup._has_bucket(each, 'user.alice') for each in (one.storage, there)] == [True, False]
    monkeypatch.setattr(type(one.storage), 'ways', ())
    assert not lookup._has_bucket(one.storage, 'user.alice')
    monkeypatch.setattr(type(one.storage.layout), 'common_bucket', 'user.alice')
    assert [lookup._has_bucket(one.storage, scope) for scope in ('user.alice', 'user.zoe')] == [True, False]
    assert [lookup._has_bucket(twins.of('two').storage, scope) for scope in ('user.alice', 'user.zoe')] == [True, False]


def test_exists(one, s3):
    assert lookup.exists(one.storage, 'user.alice') is True
    assert lookup.exists(one.storage, 'user.nobody') is False
    s3.fail('HeadBucket', error(403, 'AccessDenied'))
    with pytest.raises(AccessDenied):
        lookup.exists(one.storage, 'user.alice')
    s3.fail('HeadBucket', *[error(503, 'SlowDown')] * SERVER.max_attempts * 3)
    with pytest.raises(ResourceTemporaryUnavailable, match=r"RSE TWIN_A: make-bucket of bucket 'user\.alice'"):
        lookup.exists(one.storage, 'user.alice')


def test_who_may_only_read_what_another_rse_has_there_does_not_change_it(twins):
    """The bucket of alice's scope on TWIN_B is also that of a scope b.user.alice on TWIN_A, which is bob's."""
    there, theirs = twins.of(rse='TWIN_B'), InternalScope('b.user.alice')
    with twins.writing() as session:
        rucio_scope.add_scope(theirs, InternalAccount('bob'), session=session)
        did.add_did(theirs, 'run1', DIDType.DATASET, InternalAccount('bob'), session=session)
        grants.add_grant(theirs, 'run1', 'alice', False, 'bob', session=session)
    with pytest.raises(AccessDenied, match='RSE TWIN_A has files of other scopes'):
        lookup.need_exclusive(there.storage, there.account, 'user.alice', 'run1')
    there.write(grants.add_grant, theirs, 'run1', 'alice', True, 'bob')
    lookup.need_exclusive(there.storage, there.account, 'user.alice', 'run1')


def test_buckets_are_those_of_the_rse_and_of_the_scopes(one, twins, s3):
    found = [twins.of(vo, rse=rse).storage for vo in ('def', 'two') for rse in ('TWIN_A', 'TWIN_B')]
    listed, missing = lookup.list_buckets(found, {'user.alice'})
    assert [(each['rse'], each['bucket'], each['scope'], each['created']) for each in listed] == [
        ('TWIN_A', 'user.alice', 'user.alice', None),
        ('TWIN_B', 'b.user.alice', 'user.alice', None),
        ('TWIN_A', 'two.user.alice', 'user.alice', None),
        ('TWIN_B', 'two.b.user.alice', 'user.alice', None),
    ]
    assert missing == {}
    assert [each['bucket'] for each in lookup.list_buckets(found[1:2], None)[0]] == ['b.user.alice', 'b.user.bob']
    assert len(lookup.list_buckets(found[:1], None)[0]) == len(s3.buckets)
    assert lookup.list_buckets(found, set())[0] == []


def test_since_when_a_bucket_is_there(one, monkeypatch):
    listed = [{'Name': 'user.alice', 'CreationDate': datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)}]
    monkeypatch.setattr(lookup.objects, 'buckets', lambda _: listed)
    assert [each['created'] for each in lookup.list_buckets([one.storage], None)[0]] == ['2026-01-02T03:04:05Z']


def test_storages_that_anybody_may_read_are_asked_for_their_buckets_alone(one, twins):
    """They list none."""
    there = twins.of(rse='TWIN_B').storage
    public = replace(one.storage, endpoint=replace(one.storage.endpoint, auth='anonymous'))

    def listed(*asked):
        return {each['rse'] for each in lookup.list_buckets(asked, {'user.alice'})[0]}

    assert (listed(public), listed(public, there), listed(there, public, public)) == ({'TWIN_A'}, {'TWIN_B'}, {'TWIN_B'})


@pytest.mark.parametrize('count', [2, 3])
def test_storages_are_asked_at_the_same_time_but_not_too_many(monkeypatch, count):
    monkeypatch.setattr(lookup, '_AT_ONCE', 2)
    sizes, all_there = [], threading.Barrier(2, timeout=10)

    class Pool(ThreadPoolExecutor):
        def __init__(self, size):
            sizes.append(size)
            super().__init__(size)

    monkeypatch.setattr(lookup, 'ThreadPoolExecutor', Pool)
    assert lookup._ask_all(range(count), lambda each: each < 2 and all_there.wait() >= 0) == [each < 2 for each in range(count)]
    assert sizes == [2]


# Imports


@pytest.fixture
def imported(one, twins):
    """Of alice's, on a third RSE, which has a path for each replica."""
    with twins.writing() as session:
        rse_id = rse.add_rse('TWIN_I', deterministic=False, session=session)
        protocol = rse.get_rse_protocols(one.rse_id, session=session)['protocols'][0]
        rse.add_protocol(
            rse_id, {key: protocol[key] for key in protocol if key != 'extended_attributes'} | {'extended_attributes': {'s3': {}}}, session=session
        )
        did.add_did(one.scope, 'pub', DIDType.DATASET, one.account, session=session)
        storage = storages.get_storage('TWIN_I', 'def', session=session)
        imports.save(storage, imports.Import('open-data', 'x/', 'user.alice', 'pub'), 'root', False, session=session)
    return storage


def test_a_scope_into_which_all_was_imported_has_its_bucket_where_there_is_quota(one, twins, newcomer, imported):
    scope = InternalScope('user.zoe')
    with twins.writing() as session:
        session.add(models.DataIdentifier(scope=scope, name='x', account=newcomer, did_type=DIDType.FILE, bytes=1))
        session.flush()
        session.add(models.RSEFileAssociation(scope=scope, name='x', rse_id=imported.rse_id, bytes=1, state=ReplicaState.AVAILABLE))
    assert [each['rse'] for each in one.read(lookup.locate, newcomer, scope, '')] == ['TWIN_B']


def test_an_imported_collection_is_in_the_bucket_that_it_is_imported_from(one, twins, imported):
    storage, bucket, key = one.read(lookup.imported, one.account, one.scope, 'pub', None)
    assert (storage.rse, bucket, key) == ('TWIN_I', 'open-data', 'x/')
    assert one.read(lookup.imported, one.account, one.scope, 'pub/deep', 'TWIN_I')[1:] == ('open-data', 'x/deep/')
    assert one.read(lookup.imported, one.account, one.scope, 'pub', 'TWIN_A') is None
    assert one.read(lookup.imported, one.account, one.scope, 'run1', None) is None
    assert one.read(lookup.imported, one.account, InternalScope('user.bob'), 'pub', None) is None
    theirs = twins.of('two')
    assert one.read(lookup.imported, theirs.account, theirs.scope, 'pub', None) is None
    (found,) = one.read(lookup.locate, one.account, one.scope, 'pub')
    assert (found['rse'], found['bucket'], found['key'], found['did_type']) == ('TWIN_I', 'open-data', 'x', 'DATASET')
    # It is public on no storage of others; what is not imported, wherever it is.
    assert names(one.read(lookup.storages_to_publish, one.account, one.scope, 'pub')) == []
    # Nor is the bucket of a scope there, whatever was imported into the scope.
    with twins.writing() as session:
        session.add(models.DataIdentifier(scope=one.scope, name='pub/x', account=one.account, did_type=DIDType.FILE, bytes=1))
        session.flush()
        session.add(models.RSEFileAssociation(scope=one.scope, name='pub/x', rse_id=imported.rse_id, bytes=1, state=ReplicaState.AVAILABLE))
    assert [each['rse'] for each in one.read(lookup.locate, one.account, one.scope, '')] == ['TWIN_A', 'TWIN_B']
    assert names(one.read(lookup.storages_to_publish, one.account, one.scope, 'run1')) == [('def', 'TWIN_A')]
    assert candidates(one, 'pub/new') == [('def', 'TWIN_A'), ('def', 'TWIN_B')], 'new files have no place in an import'


def test_a_bucket_that_was_imported_as_a_whole(one, twins, imported):
    with twins.writing() as session:
        did.add_did(one.scope, 'whole', DIDType.DATASET, one.account, session=session)
        imports.save(imported, imports.Import('more-data', '', 'user.alice', 'whole'), 'root', False, session=session)
    assert one.read(lookup.imported, one.account, one.scope, 'whole', None)[1:] == ('more-data', '')
    assert one.read(lookup.imported, one.account, one.scope, 'whole/deep', None)[1:] == ('more-data', 'deep/')


# Many collections


@pytest.mark.parametrize('vo', ['def', 'two'])
def test_many_collections_are_where_each_of_them_is(twins, imported, vo):
    theirs = twins.of(vo)
    wanted = [(theirs.scope, name) for name in ('', 'run1', 'run11', 'all', 'shared', 'loose', 'pub', 'nowhere', 'run1/deep')]
    found = theirs.read(places.locate_all, theirs.account, wanted)
    assert list(found) == wanted
    for collection, located in found.items():
        alone = [{key: each[key] for key in ('rse', 'bucket', 'key', 'url')} for each in theirs.read(lookup.locate, theirs.account, *collection)]
        assert located == alone, collection
    assert [each['rse'] for each in found[theirs.scope, 'pub']] == (['TWIN_I'] if vo == 'def' else ['TWIN_A', 'TWIN_B'])


def test_collections_with_rules_are_not_looked_for_one_by_one(one, monkeypatch):
    """However many others are asked for with them."""
    asked = []
    monkeypatch.setattr(lookup, 'locate', lambda *arguments, **_: asked.append(arguments[2]) or [])
    new = [f'new{number}' for number in range(200)]
    names = ['run1', *new[:100], 'run11', 'run11', *new[100:], 'there']
    found = one.read(places.locate_all, one.account, [(one.scope, name) for name in names])
    assert asked == new[:100]
    assert [name for _, name in found if found[one.scope, name]] == ['run1', 'run11', 'there']


def test_rules_for_other_rses_keep_no_collection_here(one, twins):
    twins.change(models.ReplicationRule, {'scope': one.scope, 'name': 'run11'}, rse_expression='TAPE')
    (located,) = one.read(places.locate_all, one.account, [(one.scope, 'run11')]).values()
    assert [each['rse'] for each in located] == ['TWIN_A'], 'as its lock has it'


def test_few_collections_are_looked_for_one_by_one(one, monkeypatch):
    """Others decide how much they share with an account."""
    asked = []
    alone = lookup.locate
    monkeypatch.setattr(lookup, 'locate', lambda *arguments, **session: asked.append(arguments[2]) or alone(*arguments, **session))
    found = one.read(places.locate_all, one.account, [(one.scope, f'new{number}') for number in range(300)])
    assert (len(found), len(asked)) == (300, places.MAX_ALONE)
    assert found[one.scope, 'new99']
    assert not found[one.scope, 'new100']
