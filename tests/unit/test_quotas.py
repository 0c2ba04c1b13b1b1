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

"""Account limits: what of two VOs, RSEs and accounts with the same names counts to which. By a server: attacks/test_quotas.py."""

from datetime import timedelta
from itertools import count, product
from types import SimpleNamespace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy import event
from sqlalchemy.dialects import postgresql

from rucio.common.exception import AccessDenied, InsufficientAccountLimit
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import account_limit
from rucio.core.s3.auth import pending, quotas
from rucio.core.s3.auth.pending import Stored
from rucio.core.s3.auth.signing_guards import Touch
from rucio.db.sqla import models
from rucio.db.sqla import s3 as s3_tables
from rucio.db.sqla import session as rucio_session
from rucio.db.sqla.s3 import Pending
from servers.twins import OWNERS, RSES, VOS


@pytest.fixture
def every(twins):
    """Each account on each RSE: all have another usage, other changes of it, and another amount that was signed."""
    found = [twins.of(*each) for each in product(VOS, OWNERS, RSES)]
    bits = count()
    with twins.writing() as session:
        for model in (models.AccountUsage, models.UpdatedAccountCounter):
            session.query(model).delete()
        for one in found:
            one.own = {}
            for what, model in (('usage', models.AccountUsage), ('changes', models.UpdatedAccountCounter)):
                one.own[what] = 2 ** next(bits)
                session.add(model(account=one.account, rse_id=one.rse_id, files=1, bytes=one.own[what]))
            one.own['signed'] = 2 ** next(bits)
            pending.add(one.account, one.rse_id, [Stored(one.scope, 'x', None, one.own['signed'])], session=session)
    return found


def limit(twins, one, bytes_, expression=None):
    with twins.writing() as session:
        if expression:
            account_limit.set_global_account_limit(one.account, expression, bytes_, session=session)
        else:
            account_limit.set_local_account_limit(one.account, one.rse_id, bytes_, session=session)


def room(one):
    return one.read(quotas.room, one.account, one.storage)


def test_each_account_has_its_own_limit_and_usage_on_each_rse(twins, every):
    assert [room(one) for one in every] == [None] * 8
    for number, one in enumerate(every):
        limit(twins, one, 10**9 + number)
    for number, one in enumerate(every):
        found = room(one)
        assert (found.account, found.limit, found.rows) == (one.account, 10**9 + number, 1)
        assert (found.used, found.pending) == (one.own['usage'] + one.own['changes'], one.own['signed'])
        assert found.where == f'at RSE {one.storage.rse}'
    twins.change(Pending, {}, signed_at=pending._now() - timedelta(seconds=pending.SECONDS + 60))
    assert [room(one).pending for one in every] == [0] * 8, 'the signatures have ended'


def test_a_limit_for_several_rses_counts_those_of_the_vo(twins, every):
    one, beside, *_ = every
    limit(twins, one, 10**9, 'TWIN_A|TWIN_B')
    found = room(one)
    assert found == room(beside)
    assert found.used == sum(each.own['usage'] + each.own['changes'] for each in (one, beside))
    assert found.pending == one.own['signed'] + beside.own['signed']
    assert [room(each) for each in every[2:]] == [None] * 6
    limit(twins, one, 10**8)
    assert (room(one).limit, room(beside).limit) == (10**8, 10**9), 'the one that leaves less'


def test_a_limit_of_nothing_leaves_nothing(twins, every):
    one = every[0]
    with twins.writing() as session:
        for model in (models.AccountUsage, models.UpdatedAccountCounter, Pending):
            session.query(model).delete()
    limit(twins, one, 0)
    assert room(one).left == 0
    with pytest.raises(InsufficientAccountLimit, match=r'0\.000 B of 0\.000 B allowed at RSE TWIN_A are used, 1\.000 B with this'):
        one.write(quotas.need_room, one.storage, [charge(one, 1)])


def charge(one, length, name='new'):
    request = SimpleNamespace(part=None, length=length, headers={}, operation='PutObject')
    return quotas.Charge(one.account, request, one.scope, name)


def test_what_is_signed_counts_to_its_owner_alone(twins, every):
    one = every[0]
    for each in every:
        limit(twins, each, room_for(each, 100))
    before = twins.everything()
    one.write(quotas.need_room, one.storage, [charge(one, 60)])
    changed = before ^ twins.everything()
    assert {(table, dict(row)['account'], dict(row)['rse_id'], dict(row)['bytes']) for table, *row in changed} == {('s3_pending', one.account, one.rse_id, 60)}
    assert [room(each).left for each in every] == [40] + [100] * 7
    with pytest.raises(InsufficientAccountLimit, match='Account alice: '):
        one.write(quotas.need_room, one.storage, [charge(one, 41, 'newer')])
    one.write(quotas.need_room, one.storage, [charge(one, 40, 'newer')])
    assert [room(each).left for each in every] == [0] + [100] * 7
    with pytest.raises(AccessDenied, match='Content-Length'):
        every[1].write(quotas.need_room, every[1].storage, [charge(every[1], None)])


def room_for(one, more):
    return sum(one.own.values()) + more


def test_whose_limit_a_part_of_a_bucket_counts_to(twins, every):
    for each in every[:2]:
        limit(twins, each, room_for(each, 100))
    for one in every:
        bucket = one.subtree.bucket
        found = one.read(quotas.room_of_place, one.storage, one.account, bucket, 'run1/')
        assert (found and (found.account, found.left)) == ((one.account, 100) if one in every[:2] else None)
    alice, bob = every[0], twins.of(owner='bob')
    found = alice.read(quotas.room_of_place, alice.storage, bob.account, alice.subtree.bucket, 'run1/')
    assert found.account == alice.account, 'whoever stores it'
    limit(twins, bob, room_for(next(each for each in every if each.account == bob.account and each.rse_id == bob.rse_id), 30))
    several = SimpleNamespace(dids_of=lambda *_: [('user.alice', 'x'), ('user.bob', 'x'), ('user.nobody', 'x')])
    place = SimpleNamespace(rse=alice.storage.rse, rse_id=alice.rse_id, vo='def', layout=several)
    found = alice.read(quotas.room_of_place, place, alice.account, 'shared', 'x')
    assert (found.account, found.left) == (bob.account, 30), 'whose room is the least, where it may be of several'


def test_keys_live_as_long_as_it_takes_to_fill_the_room(twins, every):
    one = every[0]
    assert quotas.lifetime(None, 900) == 900
    for left, seconds in ((10**12, 900), (250_000_000, 3), (1, 1)):
        limit(twins, one, room_for(one, left))
        assert quotas.lifetime(room(one), 900) == seconds
    limit(twins, one, room_for(one, 0))
    with pytest.raises(InsufficientAccountLimit, match='ask the operator for a higher limit'):
        quotas.lifetime(room(one), 900)


# Whose limit it is


def stored(one, name='run1/new', stores=True):
    """A request that was validated."""
    return SimpleNamespace(stores=stores, touches=(Touch(one.subtree.bucket, name, True),), part=None, length=1, headers={}, operation='PutObject')


def owners(one, *requests, by=None):
    """To whom requests count that an account sends."""
    return [(str(each.owner), each.name) for each in one.read(quotas.charged, one.storage, by or one.account, requests)]


def root_of(one):
    return InternalAccount('root', vo=one.storage.vo)


def test_what_is_stored_counts_to_the_owner_of_the_scope(twins, every):
    one, bob = every[0], twins.of(owner='bob')
    assert [owners(each, stored(each)) for each in every] == [[]] * 8, 'there is no limit'
    limit(twins, one, 10**9)
    assert [bool(owners(each, stored(each))) for each in every] == [True] + [False] * 7
    mixed = (stored(one), stored(one, 'run1/read', stores=False), stored(bob))
    found = one.read(quotas.charged, one.storage, bob.account, mixed)
    assert found == [(one.account, mixed[0], one.scope, 'run1/new')]
    assert owners(one, *mixed, by=root_of(one)) == [], 'admins store without a limit'
    assert owners(one, stored(one, stores=False)) == []


def test_no_limit_is_set_for_an_account_without_a_row(twins, every):
    """It may store nothing then."""
    one = every[0]
    with twins.writing() as session:
        session.query(models.AccountLimit).filter_by(account=one.account, rse_id=one.rse_id).delete()
        session.query(models.AccountUsage).delete()
        session.query(models.UpdatedAccountCounter).delete()
        session.query(Pending).delete()
    assert [bool(owners(each, stored(each))) for each in every] == [True] + [False] * 7
    with pytest.raises(InsufficientAccountLimit, match=r'no limit is set at RSE TWIN_A, so nothing can be stored there\. Ask the operator'):
        one.write(quotas.need_room, one.storage, [charge(one, 0)])
    assert twins.rows(Pending) == []
    with pytest.raises(InsufficientAccountLimit, match='no limit is set at RSE TWIN_A'):
        quotas.lifetime(room(one), 900)


def test_a_limit_for_several_rses_is_one_of_this_account(twins, every):
    one, beside, *_ = every
    limit(twins, one, 10**9, 'TWIN_B')
    assert [room(each) and room(each).where for each in every] == [None, "at the RSEs 'TWIN_B'", *[None] * 6]
    assert one.read(quotas.room_of_place, one.storage, one.account, one.subtree.bucket, 'run1/') is None
    assert [bool(owners(each, stored(each))) for each in every] == [True, True] + [False] * 6
    limit(twins, one, -1, 'TWIN_B')
    assert room(beside) is None


@pytest.mark.parametrize(('key', 'value', 'is_admin'), [('admin', True, True), ('admin', None, False), ('country', 'ch', False)])
def test_admins_have_no_limit(twins, every, key, value, is_admin):
    one = every[0]
    limit(twins, one, 10**9)
    with twins.writing() as session:
        session.add(models.AccountAttrAssociation(account=one.account, key=key, value=value))
    assert (room(one) is None) == is_admin
    assert (owners(one, stored(one)) == []) == is_admin
    assert (one.read(quotas.room_of_place, one.storage, one.account, one.subtree.bucket, 'run1/') is None) == is_admin


def test_an_admin_among_others_has_no_limit(twins, every):
    one, bob = every[0], twins.of(owner='bob')
    limit(twins, bob, 10**9)
    limit(twins, one, 10**9)
    with twins.writing() as session:
        session.add(models.AccountAttrAssociation(account=bob.account, key='admin', value=True))
    assert owners(one, stored(one), stored(bob)) == [('alice', 'run1/new')]
    assert owners(one, stored(one), stored(bob), by=bob.account) == []
    assert one.read(quotas.room_of_place, one.storage, bob.account, one.subtree.bucket, 'run1/') is None


def test_without_the_table_what_is_stored_at_once_has_to_fit(twins, every):
    one = every[0]
    limit(twins, one, one.own['usage'] + one.own['changes'] + 100)
    with rucio_session._ENGINE.begin() as connection:
        Pending.__table__.drop(connection)
    s3_tables._looked.clear()
    assert (room(one).left, room(one).rows) == (100, 0)
    one.write(quotas.need_room, one.storage, [charge(one, 60), charge(one, 40, 'newer')])
    with pytest.raises(InsufficientAccountLimit, match=r'3\.000 B of 103\.000 B allowed at RSE TWIN_A are used, 104\.000 B with this\. Delete files'):
        one.write(quotas.need_room, one.storage, [charge(one, 101)])


def test_a_refusal_adds_up_what_was_signed_before_and_what_is_asked_for(twins, every):
    one = every[0]
    limit(twins, one, 107)
    one.write(quotas.need_room, one.storage, [charge(one, 60)])
    used = r'67\.000 B of 107\.000 B allowed at RSE TWIN_A are used \(64\.000 B of them signed in the last half hour\)'
    with pytest.raises(InsufficientAccountLimit, match=used + r', 108\.000 B with this\. '):
        one.write(quotas.need_room, one.storage, [charge(one, 41, 'newer')])
    limit(twins, one, 50)
    with pytest.raises(InsufficientAccountLimit, match=r'last half hour\)\. Delete'):
        quotas.lifetime(room(one), 900)


def test_what_is_signed_twice_counts_once_where_it_matters(twins, every):
    one = every[0]
    limit(twins, one, room_for(one, 100))
    for _ in range(2):
        one.write(quotas.need_room, one.storage, [charge(one, 50)])
    for more, left in ((200, 100), (101, 1), (100, 50)):
        limit(twins, one, room_for(one, more))
        assert room(one).left == left, 'where there is room, that is not looked at'
    for _ in range(2):
        one.write(quotas.need_room, one.storage, [charge(one, 100)])
    assert room(one).left == 0


def test_what_is_asked_for_twice_at_once_is_not_taken_off_what_was_signed_before(twins, every):
    one = every[0]
    limit(twins, one, 50)
    used = r': 7\.000 B of 50\.000 B allowed at RSE TWIN_A are used \(4\.000 B of them signed in the last half hour\), 67\.000 B with this\. '
    with pytest.raises(InsufficientAccountLimit, match=used):
        one.write(quotas.need_room, one.storage, [charge(one, 60)])
    with pytest.raises(InsufficientAccountLimit, match=r': 3\.000 B of 50\.000 B allowed at RSE TWIN_A are used, 123\.000 B with this\. '):
        one.write(quotas.need_room, one.storage, [charge(one, 60), charge(one, 60)])


def test_what_cannot_be_measured_is_not_signed(twins, every):
    one = every[0]
    unknown = charge(one, None)
    unknown.request.headers = {'x-amz-copy-source': 'user.alice/x'}
    with pytest.raises(AccessDenied, match='signed for accounts with a limit only as UploadPartCopy'):
        one.write(quotas.need_room, one.storage, [charge(one, 1), unknown])


def test_many_rows_are_joined(twins, every, monkeypatch):
    one = every[0]
    monkeypatch.setattr(pending, 'MAX_ROWS', 3)
    limit(twins, one, 10**9)
    for number, joined in enumerate((False, False, True)):
        one.write(quotas.need_room, one.storage, [charge(one, 1, f'new{number}')])
        parts = [row.part for row in twins.rows(Pending, account=one.account, rse_id=one.rse_id)]
        assert len(parts) == number + 2
        assert all(parts) is joined


def test_what_the_rules_of_the_account_count_for_a_file_is_not_counted_again(twins, every):
    """Of the account, the file and the RSE alone."""
    with twins.writing() as session:
        session.query(Pending).delete()
    one, beside, bob = every[0], every[1], twins.of(owner='bob')

    def left(where, file, size, by=None):
        who = by or one.account
        with twins.writing() as session:
            session.query(Pending).delete()
            pending.add(who, where.rse_id, [Stored(file.scope, 'run1/file', None, size)], session=session)
            found = pending.unregistered(who, pending.recent(who, [where.rse_id]), session=session)
        return [each.bytes for each in found.values()]

    assert [left(one, one, size) for size in (9, 10, 11, 30)] == [[], [], [1], [20]]
    assert left(beside, one, 30) == [30], 'another RSE'
    assert left(one, bob, 30) == [30], 'the file of another scope'
    assert left(one, bob, 30, twins.of('two', 'bob').account) == [30], 'another account'
    assert left(one, bob, 30, bob.account) == [20]
    twins.change(models.ReplicaLock, {'scope': bob.scope, 'name': 'run1/file'}, bytes=None)
    assert left(one, bob, 30, bob.account) == [30], 'a lock without a size'
    twins.change(models.ReplicaLock, {'scope': one.scope, 'name': 'run1/file'}, name='run1/renamed')
    assert left(one, one, 30) == [30], 'another name'


def test_limits_are_locked_in_one_order(twins, every):
    """Who signs at the same time waits, and not for each other."""
    one, seen = every[0], []
    limit(twins, one, 10**9)

    def note(connection, statement, *_):
        seen.append(str(statement.compile(dialect=postgresql.dialect())) if hasattr(statement, 'compile') else '')

    event.listen(rucio_session._ENGINE, 'before_execute', note)
    room(one)
    assert not any('FOR UPDATE' in each for each in seen)
    one.write(quotas.need_room, one.storage, [charge(one, 1)])
    locking = [each for each in seen if 'FOR UPDATE' in each]
    assert ['account_limits' in each for each in locking] == [True, False]
    assert 'ORDER BY account_glob_limits.rse_expression FOR UPDATE' in locking[1]


def test_root_has_limits_in_scopes_of_its_own(twins, every):
    """As Rucio has them for its rules, where it is no admin by its attributes."""
    one, own = every[0], InternalScope('root')
    with twins.writing() as session:
        session.add(models.Scope(scope=own, account=root_of(one)))
    request = stored(one)
    request.touches = (Touch('root', 'new', True),)
    assert owners(one, request, by=root_of(one)) == [('root', 'new')]
    assert owners(one, request, by=one.account) == [('root', 'new')]
