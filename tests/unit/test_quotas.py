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

from rucio.common.exception import AccessDenied, InsufficientAccountLimit
from rucio.core import account_limit
from rucio.core.s3.auth import pending, quotas
from rucio.core.s3.auth.pending import Stored
from rucio.db.sqla import models
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


def test_keys_live_as_long_as_it_takes_to_fill_the_room(twins, every):
    one = every[0]
    assert quotas.lifetime(None, 900) == 900
    for left, seconds in ((10**12, 900), (250_000_000, 3), (1, 1)):
        limit(twins, one, room_for(one, left))
        assert quotas.lifetime(room(one), 900) == seconds
    limit(twins, one, room_for(one, 0))
    with pytest.raises(InsufficientAccountLimit, match='ask the operator for a higher limit'):
        quotas.lifetime(room(one), 900)
