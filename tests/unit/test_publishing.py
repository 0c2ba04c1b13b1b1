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

"""Collections that everybody may read: what the table of grants and the policies on the storages say, also where a storage does not answer."""

from datetime import datetime, timedelta
from types import SimpleNamespace
from unittest import mock

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy import delete, update

from rucio.common.exception import InvalidObject, ServiceUnavailable
from rucio.common.s3.dates import to_text
from rucio.common.types import InternalAccount, InternalScope
from rucio.core.s3 import storages
from rucio.core.s3.auth import grants, old_grants, shared_keys
from rucio.core.s3.buckets import bucket_policies, publishing
from rucio.core.s3.subtrees import Subtree
from rucio.db.sqla import models, s3
from rucio.db.sqla import session as rucio_session
from rucio.db.sqla.constants import AccountStatus, AccountType, DatabaseOperationType, DIDType

SCOPE, ALICE = InternalScope('user.alice'), InternalAccount('alice')
PAST = datetime(2020, 1, 1)  # noqa: DTZ001 - as Rucio's tables have times
SET_PUBLIC = bucket_policies.set_public


class Storage(SimpleNamespace):
    """Answers, or not."""

    __hash__ = object.__hash__


class World:
    """Alice's collection run1, and two storages with what they let everybody read."""

    def __init__(self):
        self.storages = [Storage(rse=name, rse_id=name * 32, ways=['remote'], answers=True, public=set()) for name in 'ab']
        self.a, self.b = self.storages
        self.during = lambda: None

    def set_public(self, storage, scope, name, public):
        self.during()
        if not storage.answers:
            raise ServiceUnavailable(f'RSE {storage.rse}: it does not answer.')
        (storage.public.add if public else storage.public.discard)(f'{scope}:{name}')

    @property
    def public(self):
        return [storage.rse for storage in self.storages if storage.public]

    @property
    def listed(self):
        return [(each.account, each.ended) for each in self.grants()]

    @staticmethod
    def grants():
        with rucio_session.db_session(DatabaseOperationType.READ) as session:
            return grants.list_grants(SCOPE, 'run1', session=session)

    def publish(self, *places):
        return publishing.publish(places or [self.a], SCOPE, 'run1', 'alice')

    def withdraw(self, **options):
        return sorted(storage.rse for storage in publishing.withdraw(SCOPE, 'run1', **options))

    def change(self, statement):
        with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
            session.execute(statement)


def make_collection(session, **values):
    session.add(models.DataIdentifier(scope=SCOPE, name='run1', account=ALICE, did_type=DIDType.DATASET, **values))


@pytest.fixture
def shared(database, monkeypatch):
    made = World()
    monkeypatch.setattr(storages, 'list_storages', lambda *_, **__: made.storages)
    monkeypatch.setattr(bucket_policies, 'set_public', made.set_public)
    with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
        session.add(models.VO(vo='def', description='', email=''))
        session.add(models.Account(account=ALICE, account_type=AccountType.USER, status=AccountStatus.ACTIVE))
        session.flush()
        session.add(models.Scope(scope=SCOPE, account=ALICE))
        session.flush()
        make_collection(session)
    return made


def test_public_and_no_longer(shared):
    written = []
    shared.during = lambda: written.append([(grant.account, grant.write) for grant in shared.grants()])
    assert shared.publish()
    assert [*written, [(grant.account, grant.write) for grant in shared.grants()]] == [[('*', False)]] * 2, 'to read, at no time to write'
    assert not shared.publish()
    assert (shared.public, shared.listed) == (['a'], [('*', False)])
    shared.b.answers = False  # it was never told, and is not asked
    assert shared.withdraw() == []
    assert (shared.public, shared.listed) == ([], [])
    assert publishing.delete_ended('def') == (0, [])


def test_what_a_storage_was_not_told_is_kept_and_tried_again(shared):
    shared.publish(shared.a, shared.b)
    shared.b.answers = False
    assert shared.withdraw() == ['b']
    assert shared.public == ['b']
    assert shared.listed == [('*', True)]
    assert publishing.delete_ended('def') == (0, ['user.alice:run1 may still be public on RSE b: RSE b: it does not answer.'])
    shared.b.answers = True
    assert publishing.delete_ended('def') == (1, [])
    assert (shared.public, shared.listed) == ([], [])


def test_a_storage_that_moved_on_is_told_of_each_place(shared):
    shared.publish(shared.a)
    shared.publish(shared.b)
    assert shared.public == ['a', 'b']
    shared.withdraw()
    assert shared.public == []


def test_a_storage_that_refuses(shared):
    shared.b.answers = False
    with pytest.raises(ServiceUnavailable):
        shared.publish(shared.a, shared.b)
    assert shared.public == []  # the first one was told, and told again
    assert shared.listed == [('*', True)]  # whether the second one took it is not known
    shared.b.answers = True
    assert publishing.delete_ended('def').deleted == 1


def test_a_server_that_is_killed_leaves_nothing_public_behind(shared):
    shared.during = mock.Mock(side_effect=[None, KeyboardInterrupt])
    with pytest.raises(KeyboardInterrupt):
        shared.publish(shared.a, shared.b)
    shared.during = lambda: None
    assert shared.public == ['a']
    assert shared.listed == [('*', False)]
    shared.change(update(s3.Grant).values(expired_at=PAST))
    assert publishing.delete_ended('def').deleted == 1
    assert (shared.public, shared.listed) == ([], [])


def test_until_a_storage_has_taken_it_a_grant_has_an_end(shared):
    """So that a server that dies leaves nothing public; what is public already has none."""
    ends = []

    def look():
        with rucio_session.db_session(DatabaseOperationType.READ) as session:
            ends.append([each.until is None for each in grants.list_grants(SCOPE, 'run1', session=session)])

    shared.during = look
    shared.publish()
    shared.publish()
    look()
    assert ends == [[False], [True], [True]]
    publishing.publish([shared.a], SCOPE, 'run1', 'alice', PAST.replace(year=2090))
    shared.publish()
    assert ends[3:] == [[False], [False]], 'what had one keeps it until the storage has taken the other'
    assert 60 <= publishing.PUBLISH_TIMEOUT.total_seconds() <= 3600


def test_what_is_public_for_a_minute_ends_then_whatever_becomes_of_the_server(shared):
    ends, until = [], grants.now() + timedelta(minutes=1)
    shared.during = lambda: ends.append([each.until for each in shared.grants()])
    publishing.publish([shared.a], SCOPE, 'run1', 'alice', until)
    assert ends == [[to_text(until)]]


def test_what_is_public_until_a_date_is_closed_by_the_daemon(shared):
    def end():
        with rucio_session.db_session(DatabaseOperationType.READ) as session:
            return [each.until for each in grants.list_grants(SCOPE, 'run1', session=session)]

    shared.publish()
    publishing.publish([shared.a], SCOPE, 'run1', 'alice', PAST.replace(year=2090))
    assert end() == ['2090-01-01T00:00:00Z']
    assert publishing.delete_ended('def') == (0, [])
    assert shared.public == ['a']
    shared.change(update(s3.Grant).values(expired_at=PAST))
    assert publishing.delete_ended('def') == (1, [])
    assert shared.public == []


@pytest.mark.parametrize('again', [False, True])
def test_the_collection_was_erased(shared, again):
    """Also where another one of the same name is there by now: it is nobody's."""
    shared.publish()
    with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
        grants.add_grant(SCOPE, 'run1', 'bob', True, 'alice', session=session)
    shared.change(delete(models.DataIdentifier))
    if again:
        with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
            make_collection(session, created_at=PAST)
    assert shared.listed == [('bob', True), ('*', True)]
    assert publishing.delete_ended('def').deleted == 2
    assert (shared.public, shared.listed) == ([], [])


def test_the_end_of_a_grant(shared):
    shared.publish()
    shared.change(update(s3.Grant).values(expired_at=PAST))
    assert publishing.delete_ended('other') == (0, [])
    assert publishing.delete_ended('def') == (1, [])
    assert shared.public == []


def test_shared_again_while_it_is_swept(shared):
    shared.publish()
    shared.change(update(s3.Grant).values(expired_at=PAST))
    with rucio_session.db_session(DatabaseOperationType.READ) as session:
        (ended,) = grants.list_ended('def', session=session)

    def share():
        shared.during = lambda: None
        shared.publish()

    shared.during = share
    assert shared.withdraw(of=ended.did_created_at) == []
    assert shared.listed == [('*', False)]  # Rucio's own grant stays; the storage lets nobody in until it is shared once more


def test_one_that_fails_does_not_stop_the_others(shared):
    shared.publish()
    with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
        session.add(models.DataIdentifier(scope=SCOPE, name='run2', account=ALICE, did_type=DIDType.DATASET))
    publishing.publish([shared.a], SCOPE, 'run2', 'alice')
    shared.change(update(s3.Grant).values(expired_at=PAST))
    shared.during = mock.Mock(side_effect=[ValueError('no JSON'), None])
    deleted, kept = publishing.delete_ended('def')
    assert (deleted, len(kept)) == (1, 1)
    assert 'ValueError: no JSON' in kept[0]


def test_a_dead_storage_is_asked_once(shared):
    for name in ('run2', 'run3'):
        with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
            session.add(models.DataIdentifier(scope=SCOPE, name=name, account=ALICE, did_type=DIDType.DATASET))
        publishing.publish([shared.a], SCOPE, name, 'alice')
    shared.change(update(s3.Grant).values(expired_at=PAST))
    shared.a.answers, shared.during = False, mock.Mock()
    assert len(publishing.delete_ended('def').kept) == 2
    assert shared.during.call_count == 1


def test_a_dead_storage_keeps_nothing_public_on_another(shared):
    for name in ('run2', 'run3'):
        with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
            session.add(models.DataIdentifier(scope=SCOPE, name=name, account=ALICE, did_type=DIDType.DATASET))
        publishing.publish([shared.a, shared.b], SCOPE, name, 'alice')
    shared.change(update(s3.Grant).values(expired_at=PAST))
    shared.a.answers = False
    assert [each.partition(':')[2] for each in publishing.delete_ended('def').kept] == [
        'run2 may still be public on RSE a: RSE a: it does not answer.',
        'run3 may still be public on RSE a: RSE a did not answer before.',
    ]
    assert (shared.a.public, shared.b.public) == ({'user.alice:run2', 'user.alice:run3'}, set())


def test_what_was_not_asked_about_is_not_forgotten(shared):
    """It is of another collection of the same name, and still public on its storages."""
    shared.publish()
    shared.change(update(s3.Grant).values(expired_at=PAST))
    assert shared.withdraw(of=PAST) == []
    assert (shared.public, shared.listed) == (['a'], [('*', True)])


def test_where_it_was_published_is_not_known(shared):
    """What was taken over from an earlier version."""
    shared.publish(shared.a, shared.b)
    shared.change(update(s3.Grant).values(published_on=None))
    shared.publish()
    shared.storages.append(Storage(rse='c', rse_id='c' * 32, ways=[], answers=False, public=set()))  # the server has no keys for it
    assert shared.withdraw() == []
    assert (shared.public, shared.listed) == ([], [])


def test_an_rse_that_is_gone(shared):
    shared.publish()
    shared.storages.remove(shared.a)
    assert shared.withdraw() == []
    assert shared.listed == []


def test_too_many_storages(shared):
    many = [Storage(rse=str(number), rse_id=f'{number:032}', answers=True, public=set()) for number in range(31)]
    with pytest.raises(InvalidObject, match='public on 30 RSEs'):
        shared.publish(*many)
    assert shared.listed == []


# Two changes of a policy in the same moment: one is lost


class Bucket(Storage):
    """A storage with alice's bucket, and its policy."""

    def __init__(self, statements=(), **values):
        super().__init__(rse='a', rse_id='a' * 32, policy=None, requests=0, refuses=None, **values)
        self.set(*statements)

    def set(self, *statements):
        self.policy = {'Version': '2012-10-17', 'Statement': list(statements)} if statements else None

    @property
    def sids(self):
        return [each['Sid'] for each in self.policy['Statement']] if self.policy else []

    @property
    def layout(self):
        return SimpleNamespace(place_of=lambda scope, name: (scope, name), common_bucket='')


OWN = {'Sid': 'own', 'Effect': 'Allow', 'Principal': {'AWS': ['arn:aws:iam:::user/bob']}, 'Action': ['s3:GetObject'], 'Resource': ['arn:aws:s3:::user.alice/*']}


@pytest.fixture
def bucket(shared, monkeypatch):
    """Alice's bucket on the storage a; the real functions change its policy."""
    monkeypatch.setattr(bucket_policies, 'set_public', SET_PUBLIC)  # in place of that of `shared`
    made = Bucket()
    monkeypatch.setattr(storages, 'list_storages', lambda *_, **__: [made])
    for name in ('has_other_scopes', 'has_other_vos'):
        monkeypatch.setattr(shared_keys, name, mock.Mock(return_value=False))

    def get(storage, _):
        storage.requests += 1
        if storage.refuses:
            raise storage.refuses
        return storage.policy

    def put(storage, _, policy):
        storage.requests += 1
        storage.policy = policy

    monkeypatch.setattr(bucket_policies, 'get', get)
    monkeypatch.setattr(bucket_policies, '_put', put)
    return made


def mend(storage, key_prefix=''):
    storage.requests = 0
    return publishing.repair_policy(Subtree(storage, SCOPE, 'user.alice', key_prefix, ''))


def test_only_what_is_below_the_prefix_of_the_scope_is_closed(bucket, monkeypatch):
    """In a bucket of all scopes."""
    monkeypatch.setattr(Bucket, 'layout', SimpleNamespace(place_of=lambda scope, name: ('all', f'{scope}/{name}'), common_bucket='all'))
    for scope in (SCOPE, InternalScope('user.bob')):
        bucket_policies.set_public(bucket, str(scope), 'run1', True)
    assert len(bucket.sids) == 2
    (told,) = publishing.repair_policy(Subtree(bucket, SCOPE, 'all', 'user.alice/', ''))
    assert "bucket 'all' let everybody read 'user.alice/run1/', which is not shared: corrected" in told
    assert 'user.bob/run1/' in repr(bucket.policy)
    assert len(bucket.sids) == 1


def test_where_policy_and_grants_agree_it_costs_one_request(bucket):
    publishing.publish([bucket], SCOPE, 'run1', 'alice')
    bucket.policy['Statement'].append(OWN)
    assert mend(bucket) == []
    assert (bucket.requests, bucket.sids[1:]) == (1, ['own'])
    publishing.withdraw(SCOPE, 'run1')
    assert mend(bucket) == []
    assert (bucket.requests, bucket.sids) == (1, ['own'])


def test_what_was_closed_while_another_policy_was_set(bucket):
    publishing.publish([bucket], SCOPE, 'run1', 'alice')
    read = dict(bucket.policy)  # by whoever sets a policy
    publishing.withdraw(SCOPE, 'run1')
    bucket.set(*read['Statement'], OWN)
    (told,) = mend(bucket)
    assert (bucket.requests, bucket.sids) == (2, ['own'])
    assert "let everybody read 'run1/', which is not shared: corrected" in told
    assert mend(bucket) == []


def test_what_was_opened_while_another_policy_was_set(bucket):
    publishing.publish([bucket], SCOPE, 'run1', 'alice')
    open_ = bucket.sids
    bucket.set(OWN)
    (told,) = mend(bucket)
    assert (bucket.requests, bucket.sids) == (2, ['own', *open_])
    assert "did not let everybody read 'run1/'" in told


def test_a_statement_that_opens_something_else(bucket):
    """Somebody with keys of the storage has set it: its name says that it is Rucio's."""
    publishing.publish([bucket], SCOPE, 'run1', 'alice')
    good = dict(bucket.policy['Statement'][0])
    bucket.set({**good, 'Resource': ['arn:aws:s3:::user.alice/*']})
    assert len(mend(bucket)) == 2
    assert bucket.policy['Statement'] == [good]


def test_what_ends_or_is_not_known_to_be_there(bucket, shared):
    publishing.publish([bucket], SCOPE, 'run1', 'alice')
    shared.change(update(s3.Grant).values(published_on=None))
    assert mend(bucket) == []
    bucket.set()
    assert mend(bucket) == []  # it may never have been here
    shared.change(update(s3.Grant).values(expired_at=PAST))
    publishing.publish([bucket], SCOPE, 'run1', 'alice')
    shared.change(update(s3.Grant).values(expired_at=PAST))
    assert len(mend(bucket)) == 1
    assert bucket.policy is None


@pytest.mark.parametrize('keeps', ['other scope', 'another VO', 'not reviewed', 'no table', 'the same keys'])
def test_what_is_not_this_scopes_to_close(bucket, monkeypatch, keeps):
    publishing.publish([bucket], SCOPE, 'run1', 'alice')
    before = bucket.sids
    monkeypatch.setattr(grants, 'list_published', lambda *_, **__: {})
    if keeps == 'another VO':
        shared_keys.has_other_vos.return_value = True
    if keeps == 'the same keys':
        shared_keys.has_other_scopes.return_value = True
    if keeps == 'not reviewed':
        monkeypatch.setattr(old_grants, 'is_public', lambda *_, **__: True)
    if keeps == 'no table':
        monkeypatch.setattr(publishing, 'is_ready', lambda **_: False)
    assert mend(bucket, 'user.alice/' if keeps == 'other scope' else '') == []
    assert bucket.sids == before


def test_a_storage_without_policies(bucket):
    bucket.refuses = ServiceUnavailable('a')
    assert mend(bucket) == []
    bucket.refuses = None
    publishing.publish([bucket], SCOPE, 'run1', 'alice')
    bucket.refuses = ServiceUnavailable('a')
    with pytest.raises(ServiceUnavailable):
        mend(bucket)


def test_what_an_account_has_or_another_collection_had_is_not_public_yet(shared):
    """A grant to an account, or to everybody of a collection of the same name that was erased, has no end; this one has."""
    ends = []

    def look():
        ends.append([each.until is not None for each in shared.grants() if each.account == '*'])

    with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
        grants.add_grant(SCOPE, 'run1', 'bob', False, 'alice', session=session)
    shared.during = look
    assert shared.publish()
    shared.change(delete(models.DataIdentifier))
    with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
        make_collection(session, created_at=PAST)
    assert shared.publish()
    assert ends == [[True], [True]]
