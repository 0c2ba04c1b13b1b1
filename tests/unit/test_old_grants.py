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

"""Grants that an earlier version kept in metadata, of each of two VOs and scopes with the same names. The command: test_s3_database.py."""

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.exception import AccountNotFound
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import account, did, scope
from rucio.core.s3.auth import grants, old_grants
from rucio.db.sqla import models
from rucio.db.sqla.constants import AccountType, DIDType
from servers.twins import OWNERS, PAST, VOS


@pytest.fixture
def every(twins):
    """Alice and bob of each VO share `run1` and `odd`, which is a file of alice's and a dataset of bob's, as root has noted."""
    found = [twins.of(vo, owner) for vo in VOS for owner in OWNERS]
    with twins.writing() as session:
        for one in found:
            kind = DIDType.FILE if one.account.external == 'alice' else DIDType.DATASET
            session.add(models.DataIdentifier(scope=one.scope, name='odd', account=one.account, did_type=kind))
            session.flush()
            for name in ('run1', 'odd'):
                notes = {'campaign': 'mc23', 's3_grants': {grantee: {'write': False, 'by': 'root'} for grantee in ('alice', 'bob')}}
                session.add(models.DidMeta(scope=one.scope, name=name, meta=old_grants.as_column(notes, session)))
    return found


def test_each_is_one_of_its_scope(every):
    listed = every[0].read(old_grants.list_old)
    assert len(listed) == 16
    assert {(old.name, old.doubt) for old in listed if 'alice' in str(old.scope)} == {('run1', ''), ('odd', 'it is a file')}
    assert {(old.name, old.doubt) for old in listed if 'bob' in str(old.scope)} == {('run1', ''), ('odd', '')}
    assert {(old.write, old.by, old.at) for old in listed} == {(False, 'root', '')}


@pytest.mark.parametrize('act', [old_grants.take_over, old_grants.drop])
def test_one_is_moved_or_dropped(twins, every, act):
    one = every[0]
    before, (old,) = twins.everything(), [old for old in one.read(old_grants.list_old) if (old.scope, old.name, old.account) == (one.scope, 'run1', 'bob')]
    one.write(grants.delete_grants, one.scope, 'run1', 'bob')
    one.write(act, old)
    changed = before ^ twins.everything()
    assert {(dict(row)['scope'], dict(row)['name']) for _, *row in changed} == {(one.scope, 'run1')}
    assert [each for each in one.read(old_grants.list_old) if each.scope == one.scope and each.name == 'run1'] == [old._replace(account='alice')]
    assert {grant.by for grant in one.read(grants.list_grants, one.scope, 'run1') if grant.account == 'bob'} == (
        {'root'} if act is old_grants.take_over else set()
    )


# One collection, with what is written in its metadata


def note(twins, one, *written, name='loose', **beside):
    with twins.writing() as session:
        session.query(models.DidMeta).delete()
        notes = {'s3_grants': written[0], **beside} if written else beside
        session.add(models.DidMeta(scope=one.scope, name=name, meta=old_grants.as_column(notes, session)))


def listed(one):
    return one.read(old_grants.list_old)


def kept(twins, one, name='loose'):
    (row,) = twins.rows(models.DidMeta, scope=one.scope, name=name)
    return old_grants.as_dict(row.meta)


def given(one, name='loose'):
    return [(each.account, each.write, each.by, each.ended) for each in one.read(grants.list_grants, one.scope, name)]


@pytest.fixture
def one(twins):
    with twins.writing() as session:
        account.add_account(InternalAccount('carol', vo='two'), AccountType.USER, 'nobody@localhost', session=session)
    return twins.of()


@pytest.mark.parametrize(
    ('grantee', 'written', 'read'),
    [
        ('bob', {'write': True, 'by': 'alice', 'at': '2020-01-01'}, (True, 'alice', '2020-01-01', '')),
        ('bob', {'write': False, 'by': 'root'}, (False, 'root', '', '')),
        ('*', {'write': True, 'by': 'alice'}, (False, 'alice', '', '')),
        ('bob', {'write': True, 'by': 'bob'}, (True, 'bob', '', "'bob' neither owns the scope nor is an admin")),
        ('bob', {'write': True}, (True, '', '', "'' neither owns the scope nor is an admin")),
        ('carol', {'write': True, 'by': 'alice'}, (True, 'alice', '', "there is no account 'carol'")),  # in this VO
    ],
)
def test_what_is_read_and_what_is_doubted(twins, one, grantee, written, read):
    note(twins, one, {grantee: written})
    (old,) = listed(one)
    assert (old.write, old.by, old.at, old.doubt) == read
    assert (old.scope, old.name, old.account, old.did) == (one.scope, 'loose', grantee, 'user.alice:loose')


@pytest.mark.parametrize('written', [None, 'bob', ['bob'], {'bob': 'write'}, {'bob': {}}, {'bob': {'write': 'yes'}}, {'': {'write': True}}])
def test_anything_else_is_no_grant(twins, one, written):
    note(twins, one, written)
    assert listed(one) == []
    assert not one.read(old_grants.is_public, one.scope, 'loose')


def test_grants_are_listed_by_collection_and_account(twins, one):
    with twins.writing() as session:
        session.query(models.DidMeta).delete()
        for name in ('run1', 'loose'):
            notes = {'s3_grants': {grantee: {'write': True, 'by': 'alice'} for grantee in ('bob', '*')}}
            session.add(models.DidMeta(scope=one.scope, name=name, meta=old_grants.as_column(notes, session)))
    assert [(old.name, old.account) for old in listed(one)] == [('loose', '*'), ('loose', 'bob'), ('run1', '*'), ('run1', 'bob')]


def test_in_a_scope_in_which_everybody_writes_all_is_doubted(twins, one):
    mock = InternalScope('mock')
    with twins.writing() as session:
        scope.add_scope(mock, one.account, session=session)
        did.add_did(mock, 'loose', DIDType.DATASET, one.account, session=session)
    one.scope = mock
    note(twins, one, {'bob': {'write': True, 'by': 'alice'}})
    assert [old.doubt for old in listed(one)] == ['every account may write metadata in the scope mock']


def test_only_a_grant_for_everybody_is_public(twins, one):
    for grantee, public in (('bob', False), ('*', True)):
        note(twins, one, {grantee: {'write': False, 'by': 'alice'}})
        assert one.read(old_grants.is_public, one.scope, 'loose') is public
        assert not one.read(old_grants.is_public, one.scope, 'run1')
        assert not one.read(old_grants.is_public, twins.of(owner='bob').scope, 'loose')


@pytest.mark.parametrize('act', [old_grants.take_over, old_grants.drop])
def test_other_metadata_stay_and_the_last_grant_leaves_nothing(twins, one, act):
    note(twins, one, {'bob': {'write': True, 'by': 'alice'}, '*': {'write': False, 'by': 'alice'}}, campaign='mc23')
    everybody, bob = listed(one)
    one.write(act, bob)
    assert kept(twins, one) == {'campaign': 'mc23', 's3_grants': {'*': {'write': False, 'by': 'alice'}}}
    one.write(act, everybody)
    assert kept(twins, one) == {'campaign': 'mc23'}
    one.write(act, everybody)  # again, by another operator
    with twins.writing() as session:
        session.query(models.DidMeta).delete()
    one.write(act, everybody)
    assert twins.rows(models.DidMeta) == []


@pytest.mark.parametrize(('by', 'granted_by'), [('alice', 'alice'), ('carol', 'root')])
def test_a_grant_moves_as_it_is(twins, one, by, granted_by):
    """In the name of root if its giver is gone."""
    note(twins, one, {'bob': {'write': True, 'by': by}})
    one.write(old_grants.take_over, *listed(one))
    assert given(one) == [('bob', True, granted_by, False)]


def test_what_was_granted_since_is_newer(twins, one):
    """But for what has ended since."""
    note(twins, one, {'bob': {'write': True, 'by': 'root'}})
    (old,) = listed(one)
    one.write(grants.add_grant, one.scope, 'loose', 'bob', False, 'alice')
    one.write(grants.add_grant, one.scope, 'loose', 'alice', False, 'alice')
    one.write(old_grants.take_over, old)
    assert ('bob', False, 'alice', False) in given(one)
    assert kept(twins, one) == {}
    note(twins, one, {'bob': {'write': True, 'by': 'root'}})
    one.write(grants.add_grant, one.scope, 'loose', 'bob', False, 'alice', PAST)
    one.write(old_grants.take_over, old)
    assert ('bob', True, 'root', False) in given(one)


def test_what_cannot_be_granted_is_not_moved(twins, one):
    note(twins, one, {'carol': {'write': True, 'by': 'alice'}})
    with pytest.raises(AccountNotFound):
        one.write(old_grants.take_over, *listed(one))
    assert given(one) == []
    assert [old.account for old in listed(one)] == ['carol']


def test_what_was_public_ends_on_the_storages_when_it_is_dropped(twins, one):
    """By the reconciler, which looks for public grants that have ended; a grant of an account is on no storage."""
    note(twins, one, {grantee: {'write': False, 'by': 'alice'} for grantee in ('*', 'bob')})
    for old in listed(one):
        one.write(old_grants.drop, old)
    assert given(one) == [('*', False, 'alice', True)]
    note(twins, one, {'*': {'write': False, 'by': 'alice'}}, name='lone')
    one.write(old_grants.drop, *listed(one))
    assert (given(one, 'lone'), kept(twins, one, 'lone')) == ([], {}), 'a file was never public'


def test_what_is_public_by_a_newer_grant_stays_so(twins, one):
    one.write(grants.add_grant, one.scope, 'loose', '*', False, 'root')
    note(twins, one, {'*': {'write': False, 'by': 'alice'}})
    one.write(old_grants.drop, *listed(one))
    assert given(one) == [('*', False, 'root', False)]
    assert listed(one) == []
