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

"""Who may do what on the server: owners, grants, admins, a policy package. A database in memory, no server."""

import re
from contextlib import nullcontext
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

import sqlalchemy
import sqlalchemy.orm
from sqlalchemy.schema import CreateTable

from rucio.common.exception import AccessDenied, AccountNotFound, DataIdentifierNotFound, InvalidObject, ScopeNotFound, UnsupportedOperation
from rucio.common.s3 import address
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import permission
from rucio.core.s3.auth import access, grantees, grants
from rucio.core.s3.auth.grantees import Grantee
from rucio.db.sqla import models, s3
from rucio.db.sqla.constants import AccountStatus, AccountType, DIDType

SCOPE = InternalScope('user.alice')
PAST = datetime(2020, 1, 2, 3, 4, 5)  # noqa: DTZ001 - as Rucio's tables have times
MADE = datetime(2021, 1, 2, 3, 4, 5)  # noqa: DTZ001 - at once: what is of another name or scope is told by these
ALICE, BOB, ROOT, OPERATOR = (InternalAccount(name) for name in ('alice', 'bob', 'root', 'operator'))


@pytest.fixture
def session():
    """Alice's scope with the dataset run1 and a file in it; an operator with the attribute admin."""
    engine = sqlalchemy.create_engine('sqlite://')
    kinds = (models.Account, models.AccountAttrAssociation, models.Scope, models.DataIdentifier)
    models.BASE.metadata.create_all(engine, tables=[kind.__table__ for kind in kinds])
    s3.S3Base.metadata.create_all(engine)
    with sqlalchemy.orm.Session(engine) as session:
        for account in (ALICE, BOB, ROOT, OPERATOR):
            session.add(models.Account(account=account, account_type=AccountType.USER, status=AccountStatus.ACTIVE))
        session.add(models.AccountAttrAssociation(account=OPERATOR, key='admin', value='true'))
        session.add(models.Scope(scope=SCOPE, account=ALICE))
        for name, kind in (('run1', DIDType.DATASET), ('run1/file', DIDType.FILE), ('run1/sub', DIDType.CONTAINER)):
            session.add(models.DataIdentifier(scope=SCOPE, name=name, account=ALICE, did_type=kind, created_at=MADE))
        session.flush()
        yield session


@pytest.fixture(autouse=True)
def policy(monkeypatch):
    """The permission module of the site: without a word about S3."""
    module = SimpleNamespace()
    monkeypatch.setattr(permission, 'permission_modules', {'def': module})
    return module


def grant(session, name='run1', account='bob', write=False):
    return grants.add_grant(SCOPE, name, account, write, 'alice', session=session)


@pytest.mark.parametrize('write', [False, True])
@pytest.mark.parametrize(('account', 'answer'), [(ALICE, True), (BOB, False), (ROOT, True), (OPERATOR, True), (InternalAccount('ghost'), False)])
@pytest.mark.parametrize('name', ['', 'run1/', 'run1/file', 'new'])
def test_without_grants(session, account, answer, name, write):
    assert access.may(account, SCOPE, name, write, session=session) is answer
    assert access.covering(account, SCOPE, name, write, session=session) == ('' if answer else None)


def test_another_vo_may_nothing(session):
    for account in ('root', 'alice', 'operator'):
        assert not access.may(InternalAccount(account, vo='abc'), SCOPE, 'run1/file', False, session=session)


@pytest.mark.parametrize(
    ('name', 'covering'),
    [
        ('run1/', 'run1/'),
        ('run1/file', 'run1/'),
        ('run1/sub/file', 'run1/'),
        ('run1//file', 'run1/'),
        ('run1', None),  # as a prefix it is that of run12, too
        ('run12/file', None),
        ('', None),
        ('/', None),
        ('/run1/file', None),
        ('other/run1/file', None),
        ('run1/../other', None),
        ('run1/./file', None),
        ('run1/..', None),
    ],
)
def test_a_grant_is_for_what_lies_below(session, name, covering):
    grant(session)
    assert access.may(BOB, SCOPE, name, False, session=session) is (covering is not None)
    assert access.covering(BOB, SCOPE, name, False, session=session) == covering
    assert not access.may(BOB, SCOPE, name, True, session=session)


def test_grants_to_write_to_read_and_to_everybody(session):
    grant(session, 'run1', grants.EVERYBODY)
    grant(session, 'run1/sub', 'bob', write=True)
    assert access.covering(BOB, SCOPE, 'run1/sub/file', False, session=session) == 'run1/'
    assert access.covering(BOB, SCOPE, 'run1/sub/file', True, session=session) == 'run1/sub/'
    assert access.covering(BOB, SCOPE, 'run1/file', True, session=session) is None
    assert access.may(InternalAccount('ghost'), SCOPE, 'run1/file', False, session=session)


def test_dots_are_no_way_out_for_owners(session):
    for name in ('..', '../user.bob/file', 'run1/../../user.bob/file', '.'):
        assert not access.may(ALICE, SCOPE, name, False, session=session)
        assert access.may(ROOT, SCOPE, name, False, session=session)
    assert access.may(ALICE, SCOPE, 'run1/..hidden/a...b', True, session=session)


def test_the_policy_has_the_last_word(session, policy):
    grant(session)
    asked = []

    def decide(issuer, kwargs, *, session):
        asked.append((issuer, kwargs))
        return {'alice': False, 'bob': kwargs['name'].startswith('open/'), 'operator': None}[issuer.external]

    policy.perm_s3_access = decide
    assert not access.may(ALICE, SCOPE, 'run1/file', False, session=session)
    assert not access.may(BOB, SCOPE, 'run1/file', False, session=session)
    assert access.may(BOB, SCOPE, 'open/file', True, session=session)
    assert access.covering(BOB, SCOPE, 'open/deep/file', True, session=session) == 'open/'
    assert access.may(OPERATOR, SCOPE, 'run1/file', True, session=session)
    assert asked[0] == (ALICE, {'scope': SCOPE, 'name': 'run1/file', 'write': False})


# How grants are kept


def test_grants_can_be_changed_and_taken_back(session):
    assert grant(session)
    assert not grant(session)
    assert grant(session, write=True)
    (kept,) = grants.list_grants(SCOPE, 'run1', session=session)
    assert (kept.account, kept.write, kept.by, len(kept.at)) == ('bob', True, 'alice', 20)
    assert grants.delete_grants(SCOPE, 'run1', 'bob', session=session)
    assert not grants.delete_grants(SCOPE, 'run1', 'bob', session=session)
    assert grants.list_grants(SCOPE, 'run1', session=session) == []


def test_all_grants_of_accounts_can_be_taken_back(session):
    grant(session)
    grant(session, account='carol')
    grant(session, account=grants.EVERYBODY)
    assert grants.delete_grants(SCOPE, 'run1', session=session)
    # The storage knows of this one.
    assert [(each.kind, each.account) for each in grants.list_grants(SCOPE, 'run1', session=session)] == [('world', '*')]


def test_a_grant_ends(session):
    grant(session)
    session.execute(sqlalchemy.update(s3.Grant).values(expired_at=PAST))
    assert not access.may(BOB, SCOPE, 'run1/file', False, session=session)
    (ended,) = grants.list_grants(SCOPE, 'run1', session=session)
    assert (ended.until, ended.ended) == ('2020-01-02T03:04:05Z', True)
    session.execute(sqlalchemy.update(s3.Grant).values(expired_at=PAST.replace(year=2100)))
    assert access.may(BOB, SCOPE, 'run1/file', False, session=session)
    assert grants.list_ended('def', session=session) == []
    assert grant(session)
    assert grants.list_grants(SCOPE, 'run1', session=session)[0].until is None


def test_a_collection_that_is_made_again_is_shared_with_nobody(session):
    grant(session)
    grant(session, account=grants.EVERYBODY)
    did = session.execute(sqlalchemy.select(models.DataIdentifier).where(models.DataIdentifier.name == 'run1')).scalar_one()
    did.created_at += timedelta(seconds=1)
    session.flush()
    assert not access.may(BOB, SCOPE, 'run1/file', False, session=session)
    assert all(each.ended for each in grants.list_grants(SCOPE, 'run1', session=session))
    assert {ended.grantee for ended in grants.list_ended('def', session=session)} == {'bob', '*'}
    assert grants.list_ended('abc', session=session) == []
    assert grant(session)
    assert access.may(BOB, SCOPE, 'run1/file', False, session=session)
    # What was shared again in the meantime is not forgotten.
    assert [grants.delete_ended(ended, session=session) for ended in grants.list_ended('def', session=session)] == [True]
    assert access.may(BOB, SCOPE, 'run1/file', False, session=session)


@pytest.mark.parametrize(('kind', 'reads'), [('EVERYBODY', True), ('WORLD', True), ('GROUP', False), ('ATTRIBUTE', False)])
def test_kinds_of_grantees(session, kind, reads):
    """Nobody can write by another kind than an account's, whatever the table says."""
    created = session.execute(sqlalchemy.select(models.DataIdentifier.created_at).where(models.DataIdentifier.name == 'run1')).scalar_one()
    row = {'scope': SCOPE, 'name': 'run1', 'grantee_type': s3.GranteeType[kind], 'grantee': 'bob', 'can_write': True}
    session.add(s3.Grant(**row, granted_by=ALICE, did_created_at=created))
    session.flush()
    assert access.may(BOB, SCOPE, 'run1/file', False, session=session) is reads
    assert not access.may(BOB, SCOPE, 'run1/file', True, session=session)
    asking = grantees.AskingAccount(BOB, session)
    assert [asking.is_meant(s3.GranteeType[kind], 'bob', write) for write in (False, True)] == [reads, False]


def test_names_are_what_they_are(session):
    takes_capitals_for_small_letters(session, s3.Grant)
    grant(session)
    assert access.may(BOB, SCOPE, 'run1/file', False, session=session)
    assert not access.may(BOB, SCOPE, 'RUN1/file', False, session=session)
    assert grants.list_grants(SCOPE, 'RUN1', session=session) == []
    assert not access.may(InternalAccount('BOB'), SCOPE, 'run1/file', False, session=session)


def test_without_the_table_nothing_is_granted(session, caplog):
    grant(session)
    s3.S3Base.metadata.drop_all(session.connection())
    s3._looked.clear()
    asked = []
    sqlalchemy.event.listen(session.get_bind(), 'before_cursor_execute', lambda *arguments: asked.append(arguments[2]))
    for _ in range(3):
        assert not access.may(BOB, SCOPE, 'run1/file', False, session=session)
    assert asked.count('PRAGMA main.table_info("s3_grants")') == 1  # looked for once
    assert access.may(ALICE, SCOPE, 'run1/file', True, session=session)
    assert access.may(OPERATOR, SCOPE, 'run1/file', True, session=session)
    assert grants.list_grants(SCOPE, 'run1', session=session) == []
    assert not grants.delete_grants(SCOPE, 'run1', 'bob', session=session)
    assert grants.end_public_grant(SCOPE, 'run1', session=session) is None
    assert grants.list_ended('def', session=session) == []
    with pytest.raises(UnsupportedOperation, match='has to run rucio-s3-database'):
        grants.need_grantable(SCOPE, 'run1', 'bob', False, session=session)
    assert [record.message for record in caplog.records] == [
        'S3: nothing can be shared, and no grant is valid: the database lacks the table s3_grants. Run rucio-s3-database on the Rucio server.'
    ]
    # It is noticed when the operator has made it.
    s3.S3Base.metadata.create_all(session.connection())
    s3._looked[session.get_bind()].clear()
    grant(session)
    assert access.may(BOB, SCOPE, 'run1/file', False, session=session)


def test_a_grant_costs_one_query(session):
    grant(session)
    asked = []
    sqlalchemy.event.listen(session.get_bind(), 'before_cursor_execute', lambda *arguments: asked.append(arguments[2]))
    assert grants.granted_until(BOB, SCOPE, 'run1/a/b/c/file', False, session=session)
    assert not grants.granted_until(BOB, SCOPE, 'file', False, session=session)
    assert len(asked) == 1


def test_what_cannot_be_granted(session):
    for name, account, write, error in (
        ('run1', 'ghost', False, AccountNotFound),
        ('run1', '*', True, InvalidObject),
        ('run2', 'bob', False, DataIdentifierNotFound),
        ('run1/file', 'bob', False, UnsupportedOperation),
    ):
        with pytest.raises(error):
            grants.need_grantable(SCOPE, name, account, write, session=session)
    grants.need_grantable(SCOPE, 'run1/sub', 'bob', True, session=session)


def test_grants_are_bounded(session, monkeypatch):
    monkeypatch.setattr(grants, 'MAX_GRANTS', 3)
    for number in range(grants.MAX_GRANTS):
        grant(session, account=f'account{number}')
    assert grant(session, account='account0', write=True)
    with pytest.raises(InvalidObject, match='3 grants'):
        grant(session)
    # Asked before the storage is told to let everybody in.
    with pytest.raises(InvalidObject, match='3 grants'):
        grants.need_grantable(SCOPE, 'run1', '*', False, session=session)
    session.execute(sqlalchemy.update(s3.Grant).where(s3.Grant.grantee == 'account1').values(grantee='bob'))
    grants.need_grantable(SCOPE, 'run1', 'bob', True, session=session)  # has one of them
    session.execute(sqlalchemy.update(s3.Grant).where(s3.Grant.grantee == 'bob').values(expired_at=PAST))
    grants.need_grantable(SCOPE, 'run1', '*', False, session=session)
    assert grant(session, account='carol')
    with pytest.raises(InvalidObject, match='3 grants'):
        grant(session)  # it has ended, and would be one more


def test_ancestors():
    assert address.ancestors('a/b/c') == ['a', 'a/b']
    assert address.ancestors('a/b/') == ['a', 'a/b']
    assert address.ancestors('a') == []
    assert address.ancestors('/a') == []
    assert address.ancestors('/a/b') == ['/a']
    assert address.ancestors('') == []


@pytest.mark.parametrize(('scope', 'error', 'said'), [('user.alice', AccessDenied, 'bob may not read'), ('user.alcie', ScopeNotFound, "no scope 'user.alcie'")])
def test_a_scope_that_does_not_exist_is_no_matter_of_permission(session, scope, error, said):
    with pytest.raises(error, match=said):
        access.need(BOB, InternalScope(scope), 'run1/', False, session=session)


@pytest.mark.parametrize(
    ('write', 'said'), [(False, 'bob may not read the whole bucket of scope user.alice: only its owner'), (True, 'bob may not write to the whole bucket')]
)
def test_who_may_use_the_whole_bucket_is_said(session, write, said):
    with pytest.raises(AccessDenied, match=said):
        access.need(BOB, SCOPE, '', write, session=session)


def test_owners_and_admins_are_looked_up_once_in_a_call(session):
    known, asked = {}, []
    sqlalchemy.event.listen(session.get_bind(), 'before_cursor_execute', lambda *arguments: asked.append(arguments[2]))

    def ask(account, name, scope=SCOPE):
        asked.clear()
        return access.may(account, scope, name, True, session=session, known=known), len(asked)

    assert [ask(ALICE, 'a'), ask(ALICE, 'b')] == [(True, 1), (True, 0)]
    assert [ask(OPERATOR, 'a'), ask(OPERATOR, 'b')] == [(True, 2), (True, 0)]
    assert [ask(BOB, 'a'), ask(BOB, 'b')] == [(False, 2), (False, 0)]
    assert [ask(ALICE, 'a', InternalScope('user.bob')), ask(BOB, 'a', InternalScope('user.bob'))] == [(False, 2), (False, 1)]


def attribute(session, account, key='experiment', value='atlas'):
    session.merge(models.AccountAttrAssociation(account=account, key=key, value=value))
    session.flush()


def share(session, name, kind, write=False, to='run1'):
    grants.add_grant(SCOPE, to, Grantee.of(name, kind), write, 'alice', session=session)


@pytest.mark.parametrize('write', [False, True])
def test_an_attribute_is_read_when_access_is_decided(session, write):
    attribute(session, BOB)
    share(session, 'experiment=atlas', 'attribute', write)
    assert access.may(BOB, SCOPE, 'run1/file', False, session=session)
    assert access.may(BOB, SCOPE, 'run1/file', True, session=session) is write
    session.execute(sqlalchemy.delete(models.AccountAttrAssociation).where(models.AccountAttrAssociation.account == BOB))
    assert not access.may(BOB, SCOPE, 'run1/file', False, session=session)
    assert not access.may(InternalAccount('ghost'), SCOPE, 'run1/file', False, session=session)
    attribute(session, BOB)
    assert access.may(BOB, SCOPE, 'run1/file', False, session=session)


@pytest.mark.parametrize(
    ('key', 'value'),
    [('Experiment', 'atlas'), ('experiment', 'ATLAS'), ('experiment', 'atla'), ('experiment', 'atlas2'), ('experimen_', 'atlas'), ('experiment', '%')],
)
def test_attributes_are_compared_exactly(session, key, value):
    """Also by a database that takes A and a for the same; and neither is a pattern for the other."""
    share(session, 'experiment=atlas', 'attribute')
    attribute(session, BOB, key, value)
    assert not access.may(BOB, SCOPE, 'run1/file', False, session=session)
    with pytest.raises(InvalidObject, match="No account has the attribute 'experiment=atlas'"):
        grants.need_grantable(SCOPE, 'run1', Grantee.of('experiment=atlas', 'attribute'), False, session=session)
    for pattern in ('%=%', '_xperiment=atlas', 'experiment=*'):
        with pytest.raises(InvalidObject):
            grants.need_grantable(SCOPE, 'run1', Grantee.of(pattern, 'attribute'), False, session=session)


def takes_capitals_for_small_letters(session, *models):
    """As MySQL does."""
    for table in [model.__table__ for model in models]:
        statement = str(CreateTable(table).compile(session.get_bind()))
        table.drop(session.connection())
        session.connection().exec_driver_sql(re.sub(r'(VARCHAR\(\d+\))', r'\1 COLLATE NOCASE', statement))


def test_attributes_are_compared_exactly_by_any_database(session):
    takes_capitals_for_small_letters(session, s3.Grant, models.AccountAttrAssociation)
    attribute(session, BOB, 'Experiment')
    share(session, 'experiment=atlas', 'attribute')
    assert not access.may(BOB, SCOPE, 'run1/file', False, session=session)
    with pytest.raises(InvalidObject, match='No account has the attribute'):
        grants.need_grantable(SCOPE, 'run1', Grantee.of('experiment=atlas', 'attribute'), False, session=session)
    grants.need_grantable(SCOPE, 'run1', Grantee.of('Experiment=atlas', 'attribute'), False, session=session)
    attribute(session, ALICE)
    for key in ('experiment', 'Experiment'):
        grants.need_grantable(SCOPE, 'run1', Grantee.of(f'{key}=atlas', 'attribute'), False, session=session)
    assert not access.may(InternalAccount('Alice'), SCOPE, 'run1/file', False, session=session)


def test_an_attribute_of_another_vo_is_another(session):
    other = InternalAccount('bob', vo='abc')
    session.add(models.Account(account=other, account_type=AccountType.USER, status=AccountStatus.ACTIVE))
    attribute(session, other)
    for vo, there in (('def', False), ('abc', True), ('a_c', False), ('bc', False)):
        with nullcontext() if there else pytest.raises(InvalidObject, match='No account has the attribute'):
            grantees.check(Grantee.of('experiment=atlas', 'attribute'), False, vo, session=session)
    with pytest.raises(InvalidObject, match='No account has the attribute'):
        grants.need_grantable(SCOPE, 'run1', Grantee.of('experiment=atlas', 'attribute'), False, session=session)
    share(session, 'experiment=atlas', 'attribute')
    for account in (other, BOB):
        assert not access.may(account, SCOPE, 'run1/file', False, session=session)


def test_attributes_that_are_true(session):
    """Rucio stores them in lower case, and reads them as booleans."""
    assert Grantee.of('atlas=FALSE', 'attribute').name == 'atlas=false'
    attribute(session, BOB, 'atlas', True)
    share(session, 'atlas=True', 'attribute')
    grants.need_grantable(SCOPE, 'run1', Grantee.of('atlas=TRUE', 'attribute'), False, session=session)
    assert access.may(BOB, SCOPE, 'run1/file', False, session=session)
    assert [each.account for each in grants.list_grants(SCOPE, 'run1', session=session)] == ['atlas=true']


def test_kinds_of_grantees_have_names_of_their_own(session):
    """An account is not let in because it is called like an attribute, or the other way around."""
    odd = InternalAccount('experiment=atlas')
    session.add(models.Account(account=odd, account_type=AccountType.USER, status=AccountStatus.ACTIVE))
    share(session, 'experiment=atlas', 'attribute')
    assert not access.may(odd, SCOPE, 'run1/file', False, session=session)
    grants.delete_grants(SCOPE, 'run1', Grantee.of('experiment=atlas'), session=session)  # of the account, which has none
    assert [each.kind for each in grants.list_grants(SCOPE, 'run1', session=session)] == ['attribute']
    assert grants.delete_grants(SCOPE, 'run1', Grantee.of('experiment=atlas', 'attribute'), session=session)
    for name, kind in (('*', 'account'), ('*', 'attribute'), ('bob', 'everybody'), ('bob', 'world'), ('experiment', 'attribute'), ('=x', 'attribute')):
        with pytest.raises(InvalidObject):
            Grantee.of(name, kind)


def test_all_accounts_may_read_but_the_storage_is_not_opened(session):
    share(session, '*', 'everybody')
    assert access.may(BOB, SCOPE, 'run1/file', False, session=session)
    assert not access.may(BOB, SCOPE, 'run1/file', True, session=session)
    assert not access.may(InternalAccount('bob', vo='abc'), SCOPE, 'run1/file', False, session=session)
    assert grants.list_public(session=session) == []
    assert grants.list_published(SCOPE, session=session) == {}
    with pytest.raises(InvalidObject, match='read access only'):
        grants.need_grantable(SCOPE, 'run1', Grantee.of('*', 'everybody'), True, session=session)
    assert grants.delete_grants(SCOPE, 'run1', Grantee.of('*', 'everybody'), session=session)
    assert not access.may(BOB, SCOPE, 'run1/file', False, session=session)


SOON, LATER, LAST = (datetime(year, 12, 31, 23, 59, 59) for year in (2090, 2095, 9999))  # noqa: DTZ001 - as Rucio's tables have times


def test_access_ends_with_the_grant_that_lasts_longest(session):
    """Of those that give it: for writing, grants to read do not count."""
    attribute(session, BOB)
    for to, name, kind, write, until in (
        ('run1', 'bob', 'account', True, SOON),
        ('run1', 'experiment=atlas', 'attribute', False, LATER),
        ('run1/sub', 'bob', 'account', False, LAST),
        ('run1', '*', 'everybody', False, PAST),
    ):
        grants.add_grant(SCOPE, to, Grantee.of(name, kind), write, 'alice', until, session=session)

    def until(account, name, write=False):
        return access.until(account, SCOPE, name, write, session=session)

    assert until(BOB, 'run1/file', write=True) == SOON
    assert until(BOB, 'run1/file') == LATER
    assert until(BOB, 'run1/sub/file') == LAST
    assert until(InternalAccount('ghost'), 'run1/file') is None
    assert [until(account, 'run1/file') for account in (ALICE, ROOT, OPERATOR)] == [grants.FOREVER] * 3
    assert grants.add_grant(SCOPE, 'run1', 'bob', True, 'alice', session=session)
    assert until(BOB, 'run1/file', write=True) == grants.FOREVER


def test_the_end_of_a_grant_can_be_changed(session):
    for until, changed in ((SOON, True), (SOON, False), (LATER, True), (None, True), (PAST, True)):
        assert grants.add_grant(SCOPE, 'run1', 'bob', False, 'alice', until, session=session) is changed
    assert not access.may(BOB, SCOPE, 'run1/file', False, session=session)


def test_a_grant_is_over_when_its_last_second_begins(session, monkeypatch):
    """By whichever function it is asked."""
    for whom in ('bob', grants.EVERYBODY):
        grants.add_grant(SCOPE, 'run1', whom, False, 'alice', SOON, session=session)
    for now, over in ((SOON - timedelta(seconds=1), False), (SOON, True)):
        monkeypatch.setattr(grants, 'now', lambda now=now: now)
        assert access.may(BOB, SCOPE, 'run1/file', False, session=session) is not over
        assert [each.ended for each in grants.list_grants(SCOPE, 'run1', session=session)] == [over] * 2
        assert len(grants.list_ended('def', session=session)) == 2 * over
        assert (grants.list_published(SCOPE, session=session) == {}) is over
        assert grants.delete_ended_public_grant(SCOPE, 'run1', session=session) is over
    assert [each.account for each in grants.list_grants(SCOPE, 'run1', session=session)] == ['bob']


def test_times_have_whole_seconds(session):
    """As some databases keep no others: a grant that was just ended would not be over."""
    assert grants.now().microsecond == 0
    grant(session, account=grants.EVERYBODY)
    grants.end_public_grant(SCOPE, 'run1', session=session)
    assert grants.list_published(SCOPE, session=session) == {}


def test_only_what_has_ended_is_deleted_and_of_it_only_what_was_listed(session):
    """What was renewed, or given for another collection of the name, stays."""
    for name in ('bob', 'carol'):
        grants.add_grant(SCOPE, 'run1', name, False, 'alice', PAST, session=session)
    bob, carol = sorted(grants.list_ended('def', session=session), key=lambda each: each.grantee)
    assert (bob.scope, bob.name, bob.kind, bob.grantee, bob.expired_at) == (SCOPE, 'run1', s3.GranteeType.ACCOUNT, 'bob', PAST)
    grants.add_grant(SCOPE, 'run1', 'bob', False, 'alice', SOON, session=session)
    assert not grants.delete_ended(bob, session=session)
    assert not grants.delete_ended(bob._replace(expired_at=None), session=session)
    assert not grants.delete_ended(bob._replace(expired_at=SOON, did_created_at=PAST), session=session)
    assert not grants.delete_ended(carol._replace(grantee='dave'), session=session)
    assert grants.delete_ended(carol, session=session)
    assert [each.account for each in grants.list_grants(SCOPE, 'run1', session=session)] == ['bob']


def test_the_public_grant_of_a_collection_that_is_gone_is_ended_alone(session):
    grant(session, 'run1', grants.EVERYBODY)
    grants.add_grant(SCOPE, 'run1/sub', grants.EVERYBODY, False, 'alice', None, ['rse1', 'rse2'], session=session)
    made = session.execute(sqlalchemy.select(s3.Grant.did_created_at).where(s3.Grant.name == 'run1')).scalar_one()
    assert grants.end_public_grant(SCOPE, 'run1', PAST, session=session) is None
    assert sorted(grants.list_published(SCOPE, session=session)) == ['run1', 'run1/sub']
    assert grants.end_public_grant(SCOPE, 'run1', made, session=session) == []
    assert grants.list_published(SCOPE, session=session) == {'run1/sub': ['rse1', 'rse2']}
    session.execute(sqlalchemy.update(s3.Grant).where(s3.Grant.name == 'run1').values(expired_at=PAST))
    assert grants.end_public_grant(SCOPE, 'run1', session=session) == []
    assert grants.list_grants(SCOPE, 'run1', session=session)[0].until == '2020-01-02T03:04:05Z', 'it has ended before'
    assert grants.end_public_grant(SCOPE, 'run1/sub', session=session) == ['rse1', 'rse2']
    assert grants.end_public_grant(SCOPE, 'run1/file', session=session) is None


def test_the_rses_of_a_public_grant_are_added_up(session):
    """And fit into the column."""

    def publish(*rse_ids):
        return grants.add_grant(SCOPE, 'run1', grants.EVERYBODY, False, 'alice', None, rse_ids, session=session)

    assert [publish('b'), publish('b', 'a'), publish('a')] == [True, True, False]
    assert grants.list_published(SCOPE, session=session) == {'run1': ['b', 'a']}
    assert publish('x' * (grants.MAX_RSE_IDS_LENGTH - 4))
    with pytest.raises(InvalidObject, match='on 30 RSEs at most'):
        publish('c')
    grant(session, 'run1/sub', grants.EVERYBODY)
    assert not grants.add_grant(SCOPE, 'run1/sub', grants.EVERYBODY, False, 'alice', None, ['a'], session=session)
    assert grants.list_published(SCOPE, session=session)['run1/sub'] == [], 'where else it is public is not known'


def test_an_attribute_has_to_fit_into_the_column(session):
    for length, fits in ((s3.GRANTEE_LENGTH, True), (s3.GRANTEE_LENGTH + 1, False)):
        value = 'v' * (length - len('key='))
        attribute(session, BOB, 'key', value)
        with nullcontext() if fits else pytest.raises(InvalidObject, match='200 characters at most'):
            grants.need_grantable(SCOPE, 'run1', Grantee.of(f'key={value}', 'attribute'), False, session=session)


# Beside grants of other scopes, collections and accounts

OTHER = InternalScope('user.operator')
GRANTEES = ('bob', 'carol', grants.EVERYBODY)


@pytest.fixture
def crowd(session):
    """Two scopes, in each two collections, and each of these shared with the same three."""
    session.add(models.Scope(scope=OTHER, account=OPERATOR))
    for name in ('run1', 'run1/sub'):
        session.add(models.DataIdentifier(scope=OTHER, name=name, account=OPERATOR, did_type=DIDType.DATASET, created_at=MADE))
    session.flush()
    for scope in (SCOPE, OTHER):
        for name in ('run1', 'run1/sub'):
            for whom in GRANTEES:
                grants.add_grant(scope, name, whom, False, 'alice', None, ['rse1'] if whom == '*' else (), session=session)
    return session


def rows_of(session):
    session.expire_all()
    return {
        (row.scope, row.name, row.grantee): (row.can_write, row.expired_at, row.published_on) for row in session.execute(sqlalchemy.select(s3.Grant)).scalars()
    }


def delete_ended(session):
    for each in grants.list_ended('def', session=session):
        if (each.scope, each.name, each.grantee) == (SCOPE, 'run1', 'bob'):
            grants.delete_ended(each, session=session)


@pytest.mark.parametrize('ended', [False, True])
@pytest.mark.parametrize(
    ('act', 'whose'),
    [
        (lambda session: grants.add_grant(SCOPE, 'run1', 'bob', True, 'alice', SOON, session=session), {'bob'}),
        (lambda session: grants.add_grant(SCOPE, 'run1', '*', False, 'alice', SOON, ['rse2'], session=session), {'*'}),
        (lambda session: grants.delete_grants(SCOPE, 'run1', 'bob', session=session), {'bob'}),
        (lambda session: grants.delete_grants(SCOPE, 'run1', session=session), {'bob', 'carol'}),
        (lambda session: grants.end_public_grant(SCOPE, 'run1', session=session), {'*'}),
        (delete_ended, {'bob'}),
        (lambda session: grants.delete_ended_public_grant(SCOPE, 'run1', session=session), {'*'}),
    ],
    ids=['share', 'publish', 'revoke', 'revoke_all', 'end_public', 'delete_ended', 'delete_ended_public'],
)
def test_grants_of_others_stay_as_they_are(crowd, request, act, whose, ended):
    if ended:
        crowd.execute(sqlalchemy.update(s3.Grant).values(expired_at=PAST))
    before = rows_of(crowd)
    act(crowd)
    after = rows_of(crowd)
    kind = request.node.callspec.id.partition('-')[0]
    nothing = (not ended and kind.startswith('delete_ended')) or (ended and kind == 'end_public')
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed == (set() if nothing else {(SCOPE, 'run1', each) for each in whose})


def test_grants_of_others_are_not_those_of_a_collection(crowd):
    crowd.execute(sqlalchemy.delete(s3.Grant).where(s3.Grant.scope == SCOPE, s3.Grant.name == 'run1'))
    assert not access.may(BOB, SCOPE, 'run1/file', False, session=crowd)
    assert access.may(BOB, OTHER, 'run1/file', False, session=crowd)
    assert access.may(BOB, SCOPE, 'run1/sub/file', False, session=crowd)
    assert grants.list_grants(SCOPE, 'run1', session=crowd) == []
    assert grants.list_published(SCOPE, session=crowd) == {'run1/sub': ['rse1']}
    assert grants.end_public_grant(SCOPE, 'run1', session=crowd) is None
    grants.add_grant(SCOPE, 'run1', 'bob', False, 'alice', session=crowd)
    assert [each.account for each in grants.list_grants(SCOPE, 'run1', session=crowd)] == ['bob']
    crowd.execute(sqlalchemy.delete(models.DataIdentifier).where(models.DataIdentifier.scope == SCOPE, models.DataIdentifier.name == 'run1'))
    assert not access.may(BOB, SCOPE, 'run1/file', False, session=crowd)
    for function, arguments in ((grants.need_grantable, ('bob', False)), (grants.add_grant, ('bob', False, 'alice'))):
        with pytest.raises(DataIdentifierNotFound):
            function(SCOPE, 'run1', *arguments, session=crowd)
    assert {(each.scope, each.name) for each in grants.list_ended('def', session=crowd)} == {(SCOPE, 'run1')}
