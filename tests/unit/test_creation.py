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

"""Buckets that are made, with their lifecycle rule, and datasets in them with room for a rule."""

from dataclasses import replace
from unittest import mock

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.exception import (
    DataIdentifierAlreadyExists,
    DestinationNotAccessible,
    InsufficientAccountLimit,
    RSEAccessDenied,
    RSEFileNameNotSupported,
)
from rucio.common.types import InternalAccount
from rucio.core import account_limit, did
from rucio.core.s3.buckets import creation
from rucio.db.sqla import models
from rucio.db.sqla.constants import LockState
from servers.fake_s3 import error
from servers.twins import PAST

MADE = {'bucket': False, 'dataset': False, 'rule': False, 'lifecycle': False, 'events': False, 'cors': False}
OURS = b'<ID>rucio-s3-abort-incomplete-uploads</ID>'


def rule(
    identity='theirs',
    status='Enabled',
    days='<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>',
    where='<Prefix/>',
):
    return f'<Rule><ID>{identity}</ID><Status>{status}</Status><Filter>{where}</Filter>{days}</Rule>'


def configuration(*rules):
    return f'<LifecycleConfiguration>{"".join(rules)}</LifecycleConfiguration>'.encode()


@pytest.fixture
def one(twins):
    return twins.of()


def test_a_bucket_is_made_once(one, s3):
    del s3.buckets['user.alice']
    assert creation.make_bucket(one.storage, 'user.alice') == MADE | {'bucket': True, 'lifecycle': True}
    assert 'user.alice' in s3.buckets
    assert OURS in s3.lifecycles['user.alice']
    assert b'<Prefix></Prefix>' in s3.lifecycles['user.alice'].replace(b'<Prefix/>', b'<Prefix></Prefix>').replace(b'<Prefix />', b'<Prefix></Prefix>')
    assert b'<Status>Enabled</Status>' in s3.lifecycles['user.alice']
    assert b'<DaysAfterInitiation>7<' in s3.lifecycles['user.alice']
    assert set(s3.lifecycles) == {'user.alice'}
    assert creation.make_bucket(one.storage, 'user.alice') == MADE
    assert s3.operations().count('CreateBucket') == 1


@pytest.mark.parametrize(
    ('there', 'added'),
    [
        ([], True),
        ([rule()], False),
        ([rule(status='Disabled')], True),
        ([rule(days='<Expiration><Days>9</Days></Expiration>')], True),
        ([rule(where='<Prefix>tmp/</Prefix>')], True),
        ([rule(where='<Tag><Key>a</Key><Value>b</Value></Tag>')], True),
        ([rule('rucio-s3-abort-incomplete-uploads', 'Disabled')], True),
        ([rule(where='<Prefix>tmp/</Prefix>'), rule()], False),
    ],
)
def test_lifecycle_rules_of_others_are_kept(one, s3, there, added):
    if there:
        s3.lifecycles['user.alice'] = configuration(*there)
    before = s3.lifecycles.get('user.alice', b'')
    assert creation.make_bucket(one.storage, 'user.alice') == MADE | {'lifecycle': added}
    after = s3.lifecycles['user.alice']
    assert (after != before) is added
    assert after.count(b'theirs') == before.count(b'theirs')
    assert after.count(OURS) == int(added)


def test_a_rule_with_a_prefix_of_the_old_kind_is_partial():
    assert creation._is_partial({'Prefix': 'tmp/'})
    assert not creation._is_partial({'Prefix': ''})
    assert not creation._is_partial({})


@pytest.mark.parametrize('answer', [error(403, 'AccessDenied'), error(501, 'NotImplemented')])
def test_a_bucket_works_without_a_lifecycle_rule(one, s3, caplog, answer):
    s3.fail('GetBucketLifecycle', answer)
    assert creation.make_bucket(one.storage, 'user.alice') == MADE
    assert 'no lifecycle rule could be set' in caplog.text
    assert 'PutBucketLifecycle' not in s3.operations()


def test_an_operator_may_want_no_lifecycle_rule(one, s3, monkeypatch):
    monkeypatch.setattr(type(one.storage.layout), 'common_bucket', 'user.alice')
    assert creation.make_bucket(one.storage, 'user.alice') == MADE
    del s3.buckets['user.alice']
    with pytest.raises(DestinationNotAccessible, match=r"keeps all scopes in one bucket, 'user.alice', which does not exist"):
        creation.make_bucket(one.storage, 'user.alice')
    assert 'CreateBucket' not in s3.operations()
    assert s3.lifecycles == {}


def test_a_bucket_gets_all_that_its_rse_wants(one, s3, monkeypatch):
    asked = []

    def done(what):
        return lambda *given: asked.append((what, *given)) or True

    for module, name in ((creation.public_acls, 'ignore'), (creation.subscriptions, 'subscribe'), (creation.cors, 'allow_origins')):
        monkeypatch.setattr(module, name, done(name))
    storage = replace(one.storage, endpoint=replace(one.storage.endpoint, lifecycle=False))
    assert creation.make_bucket(storage, 'user.alice') == MADE | {'events': True, 'cors': True}
    assert asked == [(name, storage, 'user.alice') for name in ('ignore', 'subscribe', 'allow_origins')]
    assert 'GetBucketLifecycle' not in s3.operations()


def test_a_bucket_works_without_what_a_storage_refuses(one, monkeypatch):
    refused = mock.Mock(side_effect=RSEAccessDenied('It is refused.'))
    monkeypatch.setattr(creation.public_acls, 'ignore', refused)
    monkeypatch.setattr(creation.cors, 'allow_origins', refused)
    assert creation.make_bucket(one.storage, 'user.alice')['cors'] is False
    warnings = []
    assert creation.make_bucket(one.storage, 'user.alice', warnings)['cors'] is False
    assert warnings == ['Pages in browsers cannot use the bucket: no CORS rule could be set. It is refused.']


def test_a_name_that_the_storage_keeps_for_itself_is_refused(one, s3):
    storage = replace(one.storage, endpoint=replace(one.storage.endpoint, reserved_buckets=('user.alice',)))
    with pytest.raises(RSEFileNameNotSupported):
        creation.make_bucket(storage, 'user.alice')
    assert not s3.operations()


# Datasets


@pytest.mark.parametrize('vo', ['def', 'two'])
def test_own_rules_are_those_on_this_rse(twins, vo):
    one, there, bob = twins.of(vo), twins.of(vo, rse='TWIN_B'), twins.of(vo, 'bob')

    def rules(who, name, where):
        return who.read(creation.own_rules, who.account, who.scope, name, where.storage)

    (own,) = rules(one, 'run11', one)
    (known,) = twins.rows(models.ReplicationRule, name='run11', scope=one.scope)
    assert own == known.id
    assert rules(bob, 'run11', one) != [own]
    assert rules(one, 'run11', there) == rules(one, 'nothing', one) == []
    twins.change(models.ReplicationRule, {'name': 'run11', 'scope': bob.scope}, account=one.account)
    assert rules(one, 'run11', one) == [own], 'not her rule for what is another scope'
    twins.change(models.ReplicationRule, {'name': 'run11', 'scope': bob.scope}, account=bob.account)
    for owner in (one, bob):
        twins.change(models.DatasetLock, {'scope': owner.scope, 'name': 'run11'}, rse_id=there.rse_id)
    assert rules(one, 'run11', one) == [own], 'by its RSE expression'
    twins.change(models.DatasetLock, {'scope': one.scope, 'name': 'run11'}, rse_id=one.rse_id)
    assert one.read(creation.own_rules, bob.account, one.scope, 'run11', one.storage) == []
    twins.change(models.ReplicationRule, {'id': own}, rse_expression='TWIN_A|TWIN_B')
    assert rules(one, 'run11', one) == [own], 'by its lock'
    assert rules(one, 'run11', there) == []
    with twins.writing() as session:  # of a container of alice's that has a dataset of bob's
        session.add(models.DatasetLock(scope=bob.scope, name='run11', rule_id=own, rse_id=there.rse_id, account=one.account, state=LockState.OK))
    assert rules(one, 'run11', there) == []


def test_room_for_a_dataset(twins, one):
    def need(name, who=one.account):
        one.read(creation.need_room, who, one.scope, name, one.storage)

    need('new')
    with pytest.raises(DataIdentifierAlreadyExists, match=r'user.alice:run1/file is a file'):
        need('run1/file')
    one.write(account_limit.set_local_account_limit, one.account, one.rse_id, 0)
    need('run11')  # a rule is there
    with pytest.raises(InsufficientAccountLimit, match=r'Account alice has no quota left on RSE TWIN_A, so no rule can keep user.alice:new there'):
        need('new')
    with pytest.raises(InsufficientAccountLimit):
        need('run11', InternalAccount('bob', vo='two'))


def test_what_was_removed_before_is_wanted_again(twins, one):
    twins.change(models.DataIdentifier, {'name': 'loose'}, expired_at=PAST)
    one.write(creation.cancel_expiry, one.scope, 'loose')
    assert {row.scope for row in twins.rows(models.DataIdentifier, name='loose', expired_at=None)} == {one.scope}
    before = twins.everything()
    one.write(creation.cancel_expiry, one.scope, 'shared')
    one.write(creation.cancel_expiry, one.scope, 'nothing')
    assert before == twins.everything()
    assert one.read(did.get_did, one.scope, 'loose')['expired_at'] is None
    for each in (twins.of(owner='bob'), twins.of('two')):
        each.write(creation.cancel_expiry, each.scope, 'loose')
        assert each.read(did.get_did, each.scope, 'loose')['expired_at'] is None
