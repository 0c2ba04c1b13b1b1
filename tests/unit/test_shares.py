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

"""What an account may use, and what it shares: a database in memory, no server."""

import re
from types import SimpleNamespace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

import sqlalchemy
import sqlalchemy.orm
from sqlalchemy.schema import CreateTable

from rucio.common.types import InternalAccount, InternalScope
from rucio.core import permission
from rucio.core.s3.auth import access, grants, shares
from rucio.core.s3.auth.grantees import Grantee
from rucio.db.sqla import models, s3
from rucio.db.sqla.constants import AccountStatus, AccountType, DIDType

ALICE, BOB, CAROL = (InternalAccount(name) for name in ('alice', 'bob', 'carol'))
ELSEWHERE = InternalAccount('bob', vo='abc')


@pytest.fixture
def session():
    """Alice, bob and carol have a scope with a few datasets each; bob is of atlas. Another VO has another bob."""
    engine = sqlalchemy.create_engine('sqlite://')
    kinds = (models.Account, models.AccountAttrAssociation, models.Scope, models.DataIdentifier)
    models.BASE.metadata.create_all(engine, tables=[kind.__table__ for kind in kinds])
    s3.S3Base.metadata.create_all(engine)
    with sqlalchemy.orm.Session(engine) as session:
        for account in (ALICE, BOB, CAROL, ELSEWHERE):
            session.add(models.Account(account=account, account_type=AccountType.USER, status=AccountStatus.ACTIVE))
            scope = InternalScope(f'user.{account.external}', vo=account.vo)
            session.add(models.Scope(scope=scope, account=account))
            for name in ('run1', 'run2', 'run3', 'run4'):
                session.add(models.DataIdentifier(scope=scope, name=name, account=account, did_type=DIDType.DATASET))
        session.add(models.AccountAttrAssociation(account=BOB, key='experiment', value='atlas'))
        session.flush()
        yield session


@pytest.fixture(autouse=True)
def policy(monkeypatch):
    """The permission modules of the VOs: without a word about S3."""
    module = SimpleNamespace()
    monkeypatch.setattr(permission, 'permission_modules', {'def': module, 'abc': module})
    return module


def share(session, account, name, whom, kind=None, write=False):
    scope = InternalScope(f'user.{account.external}', vo=account.vo)
    grants.add_grant(scope, name, Grantee.of(whom, kind), write, str(account), session=session)


def shown(found):
    return [(f'{each.scope}:{each.name}', *(each.grant[:3] if each.grant else ('own',))) for each in found[0]]


def test_what_an_account_may_use(session):
    share(session, ALICE, 'run1', 'bob', write=True)
    share(session, ALICE, 'run1', '*')
    share(session, ALICE, 'run2', 'experiment=atlas', 'attribute')
    share(session, CAROL, 'run3', '*', 'everybody')
    share(session, BOB, 'run1', '*')
    for whom, kind in (('carol', None), ('experiment=cms', 'attribute')):
        share(session, ALICE, 'run3', whom, kind)
    share(session, ELSEWHERE, 'run4', '*')
    assert shown(shares.list_usable(BOB, session=session)) == [
        ('user.bob:', 'own'),
        ('user.alice:run1', 'account', 'bob', True),
        ('user.carol:run3', 'everybody', '*', False),
        ('user.alice:run2', 'attribute', 'experiment=atlas', False),
        ('user.alice:run1', 'world', '*', False),
    ]
    assert shown(shares.list_usable(ELSEWHERE, session=session)) == [('user.bob:', 'own')]


def test_all_that_is_listed_may_be_used(session):
    """The list and the decision agree, whatever is shared with whom."""
    whom = (('bob', None), ('carol', None), ('experiment=atlas', 'attribute'), ('Experiment=atlas', 'attribute'), ('*', 'everybody'), ('*', 'world'))
    for number, name in enumerate(('run1', 'run2', 'run3', 'run4')):
        for each in whom[number : number + 2]:
            share(session, ALICE, name, *each)
            share(session, ELSEWHERE, name, *each)
    session.execute(sqlalchemy.update(s3.Grant).where(s3.Grant.name == 'run1').values(did_created_at=sqlalchemy.func.datetime('2020-01-02')))
    session.execute(sqlalchemy.update(s3.Grant).where(s3.Grant.name == 'run3').values(expired_at=sqlalchemy.func.datetime('2020-01-02')))
    for account in (ALICE, BOB, CAROL, ELSEWHERE):
        listed = {(each.scope, each.name) for each in shares.list_usable(account, session=session)[0]}
        for owner in (ALICE, BOB, CAROL, ELSEWHERE):
            scope = InternalScope(f'user.{owner.external}', vo=owner.vo)
            for name in ('run1', 'run2', 'run3', 'run4'):
                usable = access.may(account, scope, f'{name}/', False, session=session)
                assert usable is ((scope, name) in listed or (scope, '') in listed), (account, scope, name)


def test_the_policy_of_the_site_hides(session, policy):
    share(session, ALICE, 'run1', 'bob')
    share(session, ALICE, 'run2', 'bob')
    policy.perm_s3_access = lambda kwargs, **_: False if kwargs['name'] == 'run1/' else None
    assert [each[0] for each in shown(shares.list_usable(BOB, session=session))] == ['user.bob:', 'user.alice:run2']


def test_what_an_account_shares(session):
    share(session, ALICE, 'run2', '*')
    share(session, ALICE, 'run1', 'bob')
    share(session, CAROL, 'run1', 'alice')
    session.execute(sqlalchemy.update(s3.Grant).where(s3.Grant.name == 'run2').values(expired_at=sqlalchemy.func.datetime('2020-01-02')))
    found, more = shares.list_shared(ALICE, session=session)
    assert [(each.name, each.grant.account, each.grant.ended) for each in found] == [('run1', 'bob', False), ('run2', '*', True)]
    assert not more
    assert shares.list_shared(BOB, session=session) == ([], False)


def test_lists_are_bounded(session, monkeypatch):
    monkeypatch.setattr(shares, 'MAX_SHARES', 2)
    for name in ('run1', 'run2', 'run3'):
        share(session, ALICE, name, '*')
    share(session, ALICE, 'run4', 'bob')
    assert (*shown(shares.list_usable(BOB, session=session)), shares.list_usable(BOB, session=session)[1]) == (
        ('user.bob:', 'own'),
        ('user.alice:run4', 'account', 'bob', False),
        True,
    )
    assert [len(shares.list_shared(ALICE, session=session)[0]), shares.list_shared(ALICE, session=session)[1]] == [2, True]


def test_without_the_table_scopes_are_listed(session):
    s3.S3Base.metadata.drop_all(session.connection())
    s3._looked.clear()
    assert shown(shares.list_usable(BOB, session=session)) == [('user.bob:', 'own')]
    assert shares.list_shared(BOB, session=session) == ([], False)


def test_what_others_share_with_others_leaves_room_for_what_is_shared_with_this_one(session, monkeypatch):
    """However much that is."""
    monkeypatch.setattr(shares, 'MAX_SHARES', 2)
    for name in ('run1', 'run2', 'run3'):
        share(session, ALICE, name, 'carol')
        share(session, ALICE, name, 'experiment=cms', 'attribute')
        share(session, ELSEWHERE, name, '*', 'everybody')
    share(session, CAROL, 'run4', '*')
    assert shown(shares.list_usable(BOB, session=session)) == [('user.bob:', 'own'), ('user.carol:run4', 'world', '*', False)]
    assert not shares.list_usable(BOB, session=session)[1]


def test_as_much_as_fits_is_all_there_is(session, monkeypatch):
    monkeypatch.setattr(shares, 'MAX_SHARES', 2)
    share(session, ALICE, 'run1', 'bob')
    share(session, ALICE, 'run2', 'carol')
    assert shares.list_usable(BOB, session=session)[1] is False
    assert shares.list_shared(ALICE, session=session)[1] is False


def test_the_policy_of_the_site_is_asked_for_what_is_read(session, policy):
    """All of the account's own scope, and what lies in the collections of others."""
    share(session, ALICE, 'run1', 'bob')
    asked = []
    policy.perm_s3_access = lambda kwargs, **_: asked.append((str(kwargs['scope']), kwargs['name'], kwargs['write']))
    assert shown(shares.list_usable(BOB, session=session)) == [('user.bob:', 'own'), ('user.alice:run1', 'account', 'bob', False)]
    assert asked == [('user.bob', '', False), ('user.alice', 'run1/', False)]


def test_names_that_differ_in_capitals_are_others(session):
    """Also in a database that takes A and a for the same; in this one, LIKE does."""
    statement = str(CreateTable(s3.Grant.__table__).compile(session.get_bind()))
    s3.Grant.__table__.drop(session.connection())
    session.connection().exec_driver_sql(re.sub(r'(VARCHAR\(\d+\))', r'\1 COLLATE NOCASE', statement))
    far = InternalAccount('dave', vo='ABC')
    session.add(models.Account(account=far, account_type=AccountType.USER, status=AccountStatus.ACTIVE))
    session.add(models.Scope(scope=InternalScope('user.dave', vo='ABC'), account=far))
    session.add(models.DataIdentifier(scope=InternalScope('user.dave', vo='ABC'), name='run1', account=far, did_type=DIDType.DATASET))
    session.flush()
    share(session, far, 'run1', '*', 'everybody')
    share(session, ALICE, 'run1', 'BOB')
    share(session, ALICE, 'run2', 'bob')
    assert shown(shares.list_usable(ELSEWHERE, session=session)) == [('user.bob:', 'own')]
    assert shown(shares.list_usable(BOB, session=session)) == [('user.bob:', 'own'), ('user.alice:run2', 'account', 'bob', False)]
    assert [each.grant.ended for each in shares.list_usable(BOB, session=session)[0] if each.grant] == [False]
