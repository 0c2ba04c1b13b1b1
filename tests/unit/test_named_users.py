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

"""What is shared with an account is also set in the bucket's policy, where the account has a user of its own at the storage."""

from datetime import datetime
from types import SimpleNamespace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy import delete, update

from rucio.common.exception import AccessDenied, InvalidObject, RSEOperationNotSupported, ServiceUnavailable
from rucio.common.types import InternalAccount, InternalScope
from rucio.core.s3 import policy_package, storages
from rucio.core.s3.auth import grants, shared_keys
from rucio.core.s3.auth.grantees import Grantee
from rucio.core.s3.buckets import bucket_policies, lookup, named_users, publishing
from rucio.core.s3.subtrees import Subtree
from rucio.db.sqla import models, s3
from rucio.db.sqla import session as rucio_session
from rucio.db.sqla.constants import AccountStatus, AccountType, DatabaseOperationType, DIDType

SCOPE, ALICE = InternalScope('user.alice'), InternalAccount('alice')
PAST = datetime(2020, 1, 1)  # noqa: DTZ001 - as Rucio's tables have times
ARN = 'arn:aws:iam:::user/'
OWN = {'Sid': 'own', 'Effect': 'Allow', 'Principal': {'AWS': [f'{ARN}bob']}, 'Action': ['s3:GetObject'], 'Resource': ['arn:aws:s3:::user.alice/*']}


class Storage(SimpleNamespace):
    """A storage with alice's bucket; it answers, or not."""

    __hash__ = object.__hash__

    def __init__(self, rse, template=f'{ARN}{{s3-user}}'):
        layout = SimpleNamespace(place_of=lambda scope, name: (scope, name), common_bucket='')
        super().__init__(
            rse=rse, rse_id=rse * 32, ways=['remote'], layout=layout, endpoint=SimpleNamespace(user_arn=template), policy=None, refuses=None, puts=0
        )

    def get(self):
        if self.refuses:
            raise self.refuses
        return self.policy

    def put(self, policy):
        self.get()
        self.policy, self.puts = policy, self.puts + 1

    @property
    def statements(self):
        return self.policy['Statement'] if self.policy else []

    def readers(self, name='run1'):
        """Whom the policy lets read a collection."""
        resource = f'arn:aws:s3:::user.alice/{name}/*'
        return [user for each in self.statements if each['Resource'] == [resource] for user in each['Principal']['AWS']]


class Site(SimpleNamespace):
    """Alice's collections on two storages, where bob, carol and dora have users."""

    def share(self, account='bob', write=False, name='run1', kind=None):
        planned = named_users.plan(ALICE, SCOPE, name, Grantee.of(account, kind))
        with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
            told = [each.storage.rse_id for each in planned if each.user]
            grants.add_grant(SCOPE, name, Grantee.of(account, kind), write, 'alice', rse_ids=told, session=session)
        return {each.storage.rse: each.user or each.why for each in named_users.apply(SCOPE, name, planned)}

    def change(self, statement):
        with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
            session.execute(statement)

    def call(self, account, value, key='s3-user'):
        """Give an account another attribute."""
        table = models.AccountAttrAssociation
        self.change(delete(table).where(table.account == InternalAccount(account), table.key == key))
        if value is not None:
            with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
                session.add(table(account=InternalAccount(account), key=key, value=value))

    @property
    def listed(self):
        with rucio_session.db_session(DatabaseOperationType.READ) as session:
            return [(each.account, each.ended) for each in grants.list_grants(SCOPE, 'run1', session=session)]

    def mend(self, key_prefix=''):
        return publishing.repair_policy(Subtree(self.a, SCOPE, 'user.alice', key_prefix, ''))


@pytest.fixture
def site(database, monkeypatch):
    made = Site(a=Storage('a'), b=Storage('b'))
    monkeypatch.setattr(storages, 'list_storages', lambda *_, **__: [made.a, made.b])
    monkeypatch.setattr(lookup, 'storages_to_publish', lambda *_, **__: [made.a])
    monkeypatch.setattr(lookup, 'need_exclusive', lambda *_: None)
    for name in ('has_other_scopes', 'has_other_vos'):
        monkeypatch.setattr(shared_keys, name, lambda *_, **__: False)
    monkeypatch.setattr(bucket_policies, 'get', lambda storage, _: storage.get())
    monkeypatch.setattr(bucket_policies, '_put', lambda storage, _, policy: storage.put(policy))
    with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
        session.add(models.VO(vo='def', description='', email=''))
        for name in ('alice', 'bob', 'carol', 'dora'):
            session.add(models.Account(account=InternalAccount(name), account_type=AccountType.USER, status=AccountStatus.ACTIVE))
        session.flush()
        session.add(models.Scope(scope=SCOPE, account=ALICE))
        session.flush()
        for name in ('run1', 'run10'):
            session.add(models.DataIdentifier(scope=SCOPE, name=name, account=ALICE, did_type=DIDType.DATASET))
    for name in ('bob', 'carol'):
        made.call(name, name)
    return made


def test_a_user_may_read_and_list_exactly_what_is_shared(site):
    site.a.put({'Version': '2012-10-17', 'Id': 'mine', 'Statement': [OWN]})
    assert site.share() == {'a': f'{ARN}bob'}
    own, read, listing = site.a.statements
    assert (own, site.a.policy['Id']) == (OWN, 'mine')
    assert read == {**OWN, 'Sid': read['Sid'], 'Resource': ['arn:aws:s3:::user.alice/run1/*']}
    assert listing == {
        **OWN,
        'Sid': f'{read["Sid"]}List',
        'Action': ['s3:ListBucket'],
        'Resource': ['arn:aws:s3:::user.alice'],
        'Condition': {'StringLike': {'s3:prefix': ['run1/*']}},
    }
    assert read['Sid'].startswith('RucioShared')
    assert site.listed == [('bob', False)]
    assert site.b.puts == 0, 'the collection is not there'
    assert named_users.withdraw(SCOPE, 'run1', 'bob') == (True, {})
    assert (site.a.statements, site.listed) == ([OWN], [])
    assert named_users.withdraw(SCOPE, 'run1', 'bob') == (False, {})


def test_nobody_may_write_with_own_keys(site):
    site.share(write=True)
    assert {action for each in site.a.statements for action in each['Action']} == {'s3:GetObject', 's3:ListBucket'}


def test_several_users_and_collections(site):
    site.share('bob')
    site.share('carol')
    site.share('carol', name='run10')
    assert (site.a.readers(), site.a.readers('run10')) == ([f'{ARN}bob', f'{ARN}carol'], [f'{ARN}carol'])
    assert len({each['Sid'] for each in site.a.statements}) == len(site.a.statements) == 4
    puts = site.a.puts
    assert site.share('carol') == {'a': f'{ARN}carol'}
    assert site.a.puts == puts, 'it says so already'
    named_users.withdraw(SCOPE, 'run1', 'bob')
    assert (site.a.readers(), site.a.readers('run10')) == ([f'{ARN}carol'], [f'{ARN}carol'])
    named_users.withdraw(SCOPE, 'run1')
    assert (site.a.readers(), site.a.readers('run10')) == ([], [f'{ARN}carol'])


def test_two_accounts_with_one_user(site):
    site.call('carol', 'bob')
    site.share('bob')
    site.share('carol')
    named_users.withdraw(SCOPE, 'run1', 'bob')
    assert site.a.readers() == [f'{ARN}bob']


@pytest.mark.parametrize(
    'value',
    [
        None,
        '*',
        'b*b',
        'b?b',
        '',
        'true',
        'division/bob',
        '../bob',
        'bob\n',
        ' bob',
        'bob:root',
        '${aws:username}',
        f'{ARN}carol',
        'bøb',
        'b' * 65,
        '"',
        'bob,',
    ],
)
def test_what_is_not_the_name_of_a_user(site, value):
    """Whoever may set attributes gets no further than one user of the storage, and never to everybody."""
    site.call('bob', value)
    if value == 'bob,':  # IAM allows it
        assert site.share() == {'a': f'{ARN}bob,'}
    else:
        assert site.share() == {'a': "bob has no attribute 's3-user' with the name of a user, which an admin sets."}
        assert (site.a.policy, site.listed) == (None, [('bob', False)])


def test_the_attribute_of_this_account_alone(site):
    site.call('dora', 'dora', key='other')
    assert 'has no attribute' in site.share('dora')['a']
    site.call('dora', 'dora', key='S3-USER')
    assert 'has no attribute' in site.share('dora')['a']
    site.change(update(models.Account).where(models.Account.account == InternalAccount('bob')).values(status=AccountStatus.SUSPENDED))
    assert 'has no attribute' in site.share('bob')['a']
    site.a.endpoint.user_arn = 'arn:aws:iam::123456789012:user/people/{s3-user}'
    assert site.share('carol') == {'a': 'arn:aws:iam::123456789012:user/people/carol'}


@pytest.mark.parametrize(('whom', 'kind'), [('*', 'everybody'), ('s3-user=bob', 'attribute')])
def test_only_accounts_are_users(site, whom, kind):
    assert site.share(whom, kind=kind) == {'a': 'only single accounts are users of the storage.'}
    assert site.a.policy is None


def test_without_the_setting_no_storage_is_asked(site):
    site.a.endpoint.user_arn = None
    site.a.refuses = AssertionError('it was asked')
    assert site.share() == {}
    site.b.endpoint.user_arn = None
    assert site.share() == {}
    assert named_users.withdraw(SCOPE, 'run1', 'bob') == (False, {}), 'the grant is not for a storage'


@pytest.mark.parametrize('error', [RSEOperationNotSupported('RSE a: no policies.'), ServiceUnavailable('RSE a: it does not answer.')])
def test_a_storage_that_takes_no_policy(site, error):
    site.a.refuses = error
    assert site.share() == {'a': error.args[0]}
    assert site.listed == [('bob', False)], 'in Rucio, it is shared'
    site.a.refuses = None
    assert site.mend() == []


def test_keys_that_another_rse_means_otherwise(site, monkeypatch):
    def refuse(*_):
        raise AccessDenied('RSE b has the same keys.')

    monkeypatch.setattr(lookup, 'need_exclusive', refuse)
    assert site.share() == {'a': 'RSE b has the same keys.'}
    assert site.a.policy is None


def test_a_policy_that_is_full_is_refused_before_anything_is_written(site):
    site.a.put({'Version': '2012-10-17', 'Statement': [{**OWN, 'Sid': 'x' * (bucket_policies.MAX_BYTES - 500)}]})
    with pytest.raises(InvalidObject, match=r'no room left: .* 20480 bytes\. Revoke what is no longer needed'):
        site.share()
    assert (len(site.a.statements), site.listed) == (1, [])
    named_users.withdraw(SCOPE, 'run1')


def test_the_sites_policy_comes_first(site, monkeypatch):
    monkeypatch.setattr(policy_package, 'decide', lambda account, *_, **__: False if account.external == 'bob' else None)
    assert site.share() == {'a': 'the policy of this Rucio server does not let the account read it.'}
    assert site.a.policy is None


def test_a_storage_that_fails_is_told_later(site, monkeypatch):
    put, failing = bucket_policies._put, [ServiceUnavailable('RSE a: it does not answer.')]

    def fail(*given):
        if failing:
            raise failing.pop()
        put(*given)

    monkeypatch.setattr(bucket_policies, '_put', fail)
    assert site.share() == {'a': 'RSE a: it does not answer. rucio-s3-reconciler tries again.'}
    (told,) = site.mend()
    assert "did not let exactly those users read 'run1/' with whom it is shared: corrected" in told
    assert site.a.readers() == [f'{ARN}bob']
    assert site.mend() == []


def test_what_could_not_be_revoked_is_tried_again(site):
    site.share()
    site.a.refuses = ServiceUnavailable('RSE a: it does not answer.')
    known, failed = named_users.withdraw(SCOPE, 'run1', 'bob')
    assert (known, [*failed]) == (True, [site.a])
    assert site.listed == [('bob', True)], 'in Rucio, it is not shared'
    still = 'user.alice:run1 may still be shared with the own user of bob on RSE a: RSE a: it does not answer.'
    assert publishing.delete_ended('def') == (0, [still])
    site.a.refuses = None
    assert publishing.delete_ended('def') == (1, [])
    assert (site.a.policy, site.listed) == (None, [])


def test_the_end_of_a_grant(site):
    site.share('bob')
    site.share('carol')
    site.change(update(s3.Grant).where(s3.Grant.grantee == 'bob').values(expired_at=PAST))
    assert publishing.delete_ended('def') == (1, [])
    assert (site.a.readers(), site.listed) == ([f'{ARN}carol'], [('carol', False)])


def test_a_collection_that_was_erased(site):
    """Another one of the same name is not shared."""
    site.share()
    site.change(delete(models.DataIdentifier).where(models.DataIdentifier.name == 'run1'))
    with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
        session.add(models.DataIdentifier(scope=SCOPE, name='run1', account=ALICE, did_type=DIDType.DATASET, created_at=PAST))
    assert publishing.delete_ended('def') == (1, [])
    assert (site.a.policy, site.listed) == (None, [])


def test_shared_again_while_it_is_swept(site, monkeypatch):
    site.share()
    site.change(update(s3.Grant).values(expired_at=PAST))
    revoke = named_users.revoke

    def renew(*given):
        site.share()
        return revoke(*given)

    monkeypatch.setattr(named_users, 'revoke', renew)
    publishing.delete_ended('def')
    assert (site.a.readers(), site.listed) == ([f'{ARN}bob'], [('bob', False)])


def test_a_grant_without_a_user_gets_one_later(site):
    site.call('bob', None)
    site.share()
    assert site.a.policy is None
    site.call('bob', 'bob')
    assert site.share() == {'a': f'{ARN}bob'}


@pytest.mark.parametrize('lost', ['attribute', 'setting', 'policy'])
def test_the_reconciler_notices(site, monkeypatch, lost):
    site.a.put({'Version': '2012-10-17', 'Statement': [OWN]})
    site.share()
    assert site.mend() == []
    if lost == 'attribute':
        site.call('bob', 'bert')
    elif lost == 'setting':
        site.a.endpoint.user_arn = None
    else:
        monkeypatch.setattr(policy_package, 'decide', lambda account, *_, **__: False if account.external == 'bob' else None)
    assert len(site.mend()) == 1
    assert site.a.readers() == ([f'{ARN}bert'] if lost == 'attribute' else [])
    assert OWN in site.a.statements
    assert site.mend() == []


@pytest.mark.parametrize(
    'changed',
    [{'Principal': {'AWS': ['*']}}, {'Principal': '*'}, {'Resource': ['arn:aws:s3:::user.alice/*']}, {'Condition': {'StringLike': {'s3:prefix': ['*']}}}],
)
def test_a_statement_that_somebody_changed(site, changed):
    """Somebody with keys of the storage; its name says that it is Rucio's."""
    site.share()
    good = [dict(each) for each in site.a.statements]
    for number in range(2):
        site.a.policy['Statement'] = [{**each, **changed} if place == number else each for place, each in enumerate(good)]
        assert site.mend()
        assert sorted(site.a.statements, key=lambda each: each['Sid']) == good
    site.a.policy['Statement'] = [*good, {**good[0], **changed, 'Sid': 'RucioSharedByMe'}]
    assert site.mend()
    assert site.a.statements == good


def test_only_what_is_below_the_prefix_of_the_scope_is_repaired(site, monkeypatch):
    """In a bucket of all scopes."""
    site.share()
    monkeypatch.setattr(grants, 'list_users', lambda *_, **__: [])
    assert site.mend('user.carol/') == []
    assert site.a.readers() == [f'{ARN}bob']
    monkeypatch.setattr(shared_keys, 'has_other_scopes', lambda *_, **__: True)
    assert site.mend() == []
    assert site.a.readers() == [f'{ARN}bob']


def test_owners_and_admins_keep_what_is_shared(site):
    """`rucio s3 policy` neither sets nor removes these statements."""
    site.share()
    ours = list(site.a.statements)
    for admin in (False, True):
        assert bucket_policies.check({'Version': '2012-10-17', 'Statement': [*ours, OWN]}, 'user.alice', admin, kept=ours) == [OWN]
        with pytest.raises(InvalidObject, match="does not begin with 'RucioPublic' or 'RucioShared'"):
            bucket_policies.check({'Version': '2012-10-17', 'Statement': [{**OWN, 'Sid': 'rucioshared'}]}, 'user.alice', admin)
    site.a.policy['Statement'].append(OWN)
    assert bucket_policies.remove(site.a, 'user.alice', False)['Statement'] == site.a.statements == ours


def test_patterns_in_names_are_none():
    policy = bucket_policies.with_users(None, 'b', 'a*b$c?/', [f'{ARN}bob'])
    assert policy['Statement'][0]['Resource'] == ['arn:aws:s3:::b/a${*}b${$}c${?}/*']
    assert policy['Statement'][1]['Condition'] == {'StringLike': {'s3:prefix': ['a${*}b${$}c${?}/*']}}
    assert {*bucket_policies.user_prefixes(policy, 'b').values()} == {'a*b$c?/'}
    assert bucket_policies.with_users(policy, 'b', 'a*b$c?/', []) is None
    # As storages return it.
    plain = [{key: value[0] if isinstance(value, list) else value for key, value in each.items()} for each in policy['Statement']]
    plain = [{**each, 'Principal': {'AWS': f'{ARN}bob'}} for each in plain]
    assert {*bucket_policies.user_prefixes({'Statement': plain}, 'b').values()} == {'a*b$c?/'}


def test_the_table_is_not_removed_while_users_are_let_in(site):
    def listed():
        with rucio_session.db_session(DatabaseOperationType.READ) as session:
            return grants.list_public(session=session)

    site.share('dora')
    assert listed() == []
    site.share('bob')
    assert listed() == ['user.alice:run1']


def test_only_where_it_was_set(site):
    """The collection is on one of the storages."""
    site.share()
    with rucio_session.db_session(DatabaseOperationType.READ) as session:
        assert [named_users.list_prefixes(each, SCOPE, session=session) for each in (site.a, site.b)] == [{'run1': (f'{ARN}bob',)}, {}]


def test_a_database_that_takes_capitals_for_the_same(site):
    rows = [
        SimpleNamespace(account=InternalAccount('Bob'), key='s3-user', value='x'),
        SimpleNamespace(account=InternalAccount('bob'), key='S3-USER', value='x'),
    ]
    session = SimpleNamespace(execute=lambda _: rows)
    assert named_users.user_of(site.a, InternalAccount('bob'), session=session) is None
    rows.append(SimpleNamespace(account=InternalAccount('bob'), key='s3-user', value='bob'))
    assert named_users.user_of(site.a, InternalAccount('bob'), session=session) == f'{ARN}bob'
