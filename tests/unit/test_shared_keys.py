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

"""Keys that other RSEs of the same storage mean by other DIDs. Over HTTP, on two storages: tests/attacks/test_shared_keys.py, test_other_vos.py."""

from datetime import datetime

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.exception import AccessDenied, ConfigurationError
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import did, rse, scope
from rucio.core.s3 import storages
from rucio.core.s3.auth import grants, objects, shared_keys
from rucio.core.s3.buckets import lookup
from rucio.core.s3.reconciler import progress
from rucio.db.sqla import models
from rucio.db.sqla.constants import DIDType

ROOT, ALICE, BOB = (InternalAccount(name) for name in ('root', 'alice', 'bob'))


class Ground:
    """The RSE A with a bucket for each scope, and others on its storage that overlap with it."""

    def __init__(self, twins, s3):
        self.twins, self.s3 = twins, s3

    def add_rse(self, name, prefix='/', algorithm='s3_bucket', vo='def', host='127.0.0.1', deterministic=True, port=None, **settings):
        with self.twins.writing() as session:
            rse_id = rse.add_rse(name, vo=vo, deterministic=deterministic, session=session)
            operations = {'read': 1, 'write': 1, 'delete': 1}
            domains = {'lan': operations, 'wan': operations}
            protocol = {'scheme': 'http', 'hostname': host, 'port': port or self.s3.port, 'prefix': prefix, 'impl': 'rucio.rse.protocols.s3.Default'}
            rse.add_protocol(rse_id, protocol | {'domains': domains, 'extended_attributes': {'s3': {'provider': 'seaweedfs'} | settings}}, session=session)
            rse.add_rse_attribute(rse_id, 'lfn2pfn_algorithm', algorithm, session=session)
        return self.storage(name, vo)

    def storage(self, name='TWIN_A', vo='def'):
        shared_keys._neighbours.clear()
        with self.twins.reading() as session:
            return storages.get_storage(name, vo, session=session)

    def add_scope(self, name, owner=BOB):
        with self.twins.writing() as session:
            scope.add_scope(InternalScope(name, vo=owner.vo), owner, session=session)

    def may(self, who, bucket, key='', write=False, storage=None):
        with self.twins.reading() as session:
            return shared_keys.may(storage or self.storage(), who, bucket, key, write, session=session)

    def overlaps(self, storage=None):
        with self.twins.reading() as session:
            return [(other.rse, overlap.scope) for other, overlap in shared_keys.overlaps(storage or self.storage(), session=session)]


@pytest.fixture
def ground(twins, s3):
    return Ground(twins, s3)


def test_a_key_of_two_scopes_is_for_who_may_access_both(ground):
    """The bucket `b.user.alice` of TWIN_B is also that of a scope `b.user.alice` on TWIN_A."""
    there = ground.storage('TWIN_B')
    assert ground.may(ALICE, 'b.user.alice', 'x', storage=there), 'there is no such scope'
    ground.add_scope('b.user.alice', BOB)
    assert not ground.may(ALICE, 'b.user.alice', 'x', storage=there)
    assert ground.may(BOB, 'b.user.alice', 'x', storage=there)
    assert ground.may(ROOT, 'b.user.alice', storage=there)
    assert [each.bucket for each in progress.find_work(there, ()).subtrees] == ['b.user.bob'], 'whose its objects are is not known'
    with ground.twins.writing() as session:
        did.add_did(InternalScope('b.user.alice'), 'run1', DIDType.DATASET, BOB, session=session)
        grants.add_grant(InternalScope('b.user.alice'), 'run1', 'alice', False, 'bob', session=session)
    assert ground.may(ALICE, 'b.user.alice', 'run1/x', storage=there)
    assert not ground.may(ALICE, 'b.user.alice', 'run1/x', write=True, storage=there)
    assert not ground.may(ALICE, 'b.user.alice', '', storage=there)
    assert ground.may(ALICE, 'user.alice', ''), 'nobody else means that'
    with ground.twins.reading() as session:
        assert shared_keys.has_other_scopes(there, InternalScope('user.alice'), 'b.user.alice', '', session=session)
        assert not shared_keys.has_other_scopes(there, InternalScope('b.user.alice'), 'b.user.alice', '', session=session)
        assert not shared_keys.has_other_vos(there, 'b.user.alice', session=session)
        with pytest.raises(AccessDenied, match=r"RSE TWIN_B: RSE TWIN_A has files of other scopes at the same location, bucket 'b.user.alice', key 'x', so"):
            shared_keys.need(there, ALICE, 'b.user.alice', 'x', False, session=session)
        with pytest.raises(AccessDenied, match=r"bucket 'b\.user\.alice', so"):
            shared_keys.need(there, ALICE, 'b.user.alice', '', False, session=session)
        assert shared_keys.need(there, BOB, 'b.user.alice', 'x', False, session=session) == grants.FOREVER


def test_access_ends_with_the_first_of_all_that_it_needs(ground):
    there, end = ground.storage('TWIN_B'), datetime(2090, 12, 31)  # noqa: DTZ001 - as Rucio's tables have times
    ground.add_scope('b.user.alice', BOB)
    with ground.twins.writing() as session:
        did.add_did(InternalScope('b.user.alice'), 'run1', DIDType.DATASET, BOB, session=session)
        grants.add_grant(InternalScope('b.user.alice'), 'run1', 'alice', False, 'bob', end, session=session)
    with ground.twins.reading() as session:
        assert shared_keys.until(there, ALICE, 'b.user.alice', 'run1/x', False, session=session) == end
        assert objects.until(there, ALICE, 'b.user.alice', 'run1/x', False, session=session) == end
        assert objects.covering(there, ALICE, 'b.user.alice', 'run1/x', False, session=session) == ('run1/', end)
        assert objects.until(there, ALICE, 'b.user.alice', 'x', False, session=session) is None
        assert objects.until(there, ROOT, 'b.user.alice', 'x', False, session=session) == grants.FOREVER


def test_keys_of_another_vo_are_for_nobody(ground):
    """Not even for root: of that VO, somebody else is root."""
    ground.add_scope('two.user.alice', ALICE)
    there = ground.storage('TWIN_A', 'two')
    for who in ('alice', 'root'):
        assert not ground.may(InternalAccount(who, vo='two'), 'two.user.alice', 'x', storage=there)
        assert not ground.may(InternalAccount(who), 'two.user.alice', 'x')
        assert ground.may(InternalAccount(who), 'user.alice', 'x')
    ground.add_rse('INNER', '/user.bob/deep/', vo='two')
    own = ground.storage()
    with ground.twins.reading() as session:
        assert [shared_keys.has_other_vos(own, f'user.{name}', session=session) for name in ('alice', 'bob')] == [False, True]
        assert shared_keys.has_other_vos(there, 'two.user.alice', session=session)
        assert not shared_keys.has_other_vos(there, 'two.user.bob', session=session)
        with pytest.raises(AccessDenied, match='an RSE of another VO has files'):
            shared_keys.need(there, InternalAccount('root', vo='two'), 'two.user.alice', '', True, session=session)


def test_a_bucket_of_all_scopes_inside_one_of_a_scope(ground):
    """Who may read what lies between the names of scopes is not known: admins only."""
    inner = ground.add_rse('INNER', '/user.alice/deep/')
    own = ground.storage()
    for key in ('', 'de', 'deep/', 'deep', 'deep/er/'):
        expected = key in ('de', 'deep')  # keys, of which INNER has none
        assert ground.may(ALICE, 'user.alice', key, storage=own) is expected, key
        assert ground.may(ROOT, 'user.alice', key, storage=own)
    assert ground.may(ALICE, 'user.alice', 'else/', storage=own)
    assert ground.may(ALICE, 'user.alice', 'else/where', storage=own)
    assert ground.may(BOB, 'user.bob', 'deep/', storage=own), 'another bucket'
    assert ground.may(ALICE, 'user.alice', 'deep/user.alice/x', storage=own)
    assert not ground.may(ALICE, 'user.alice', 'deep/user.bob/x', storage=own)
    assert not ground.may(BOB, 'user.alice', 'deep/user.bob/x', storage=inner), "it is alice's bucket, too"
    assert ground.may(ROOT, 'user.alice', 'deep/user.bob/x', storage=inner)
    for name in ('', 'deep'):
        with pytest.raises(AccessDenied, match='RSE INNER has files of other scopes'):
            lookup.need_exclusive(own, ALICE, 'user.alice', name)
    lookup.need_exclusive(own, ALICE, 'user.alice', 'else')
    with pytest.raises(AccessDenied, match='RSE INNER has files of other scopes'):
        lookup.own_bucket(ALICE, InternalScope('user.alice'), 'TWIN_A')
    assert [each for each in ground.overlaps() if each[1]] == [('INNER', 'user.alice')]
    assert ('TWIN_A', 'user.alice') in ground.overlaps(inner)


def test_rses_that_overlap_are_those_of_the_same_storage_alone(ground):
    assert [name for name, _ in ground.overlaps()] == ['TWIN_A', 'TWIN_B', 'TWIN_B']  # by their prefixes
    ground.add_rse('NOBODYS', '/user.nobody/deep/')  # there is no such scope
    assert [name for name, _ in ground.overlaps()] == ['TWIN_A', 'TWIN_B', 'TWIN_B']
    ground.twins.change(models.RSE, {'rse': 'NOBODYS'}, deleted=True)
    ground.add_rse('SAME', host='LOCALHOST')
    ground.add_rse('ELSEWHERE', host='s3.example.org')
    ground.add_rse('OTHER_PORT', port=1)
    ground.add_rse('PATHS', deterministic=False)
    gone = ground.add_rse('GONE')
    ground.twins.change(models.RSE, {'id': gone.rse_id}, deleted=True)
    with pytest.raises(ConfigurationError):
        ground.add_rse('BROKEN', provider='nobody')
    with ground.twins.reading() as session:
        found = [(each.rse, each.vo) for each in shared_keys.neighbours(ground.storage(), session=session)]
    assert found == [('SAME', 'def'), ('TWIN_A', 'two'), ('TWIN_B', 'def'), ('TWIN_B', 'two')]
    assert [name for name, _ in ground.overlaps()] == ['SAME', 'TWIN_A', 'TWIN_B', 'TWIN_B']


def test_imports_are_for_who_may_read_the_import(ground):
    """An admin has made them on purpose; but none of another VO's buckets."""
    paths = ground.add_rse('PATHS', deterministic=False)
    assert ground.may(BOB, 'user.alice', 'x', storage=paths)
    assert not ground.may(BOB, 'two.user.alice', 'x', storage=paths)
    assert ground.may(BOB, 'open-data', 'x', storage=paths)


def test_neighbours_are_looked_up_again_after_some_seconds(ground, monkeypatch):
    asked, now = [], 1000.0
    monkeypatch.setattr(shared_keys, '_find', lambda *_: asked.append(1) or [])
    monkeypatch.setattr(shared_keys.time, 'monotonic', lambda: now)
    own = ground.storage()
    for later, count in ((0, 1), (1, 1), (storages.CACHE_SECONDS, 1), (storages.CACHE_SECONDS + 1, 2)):
        now = 1000.0 + later
        shared_keys.neighbours(own, session=None)
        assert len(asked) == count
    assert 1 <= storages.CACHE_SECONDS <= 60


def test_keys_are_vended_for_what_no_other_rse_means(ground):
    """The folder of what was asked for, where the whole bucket would be too much."""
    ground.add_rse('INNER', '/user.alice/deep/')
    own = ground.storage()

    def covering(who, prefix, bucket='user.alice'):
        with ground.twins.reading() as session:
            return objects.covering(own, who, bucket, prefix, True, session=session)

    assert covering(ALICE, 'else/where') == ('else/', grants.FOREVER)
    assert covering(ROOT, 'else/where') == ('', grants.FOREVER)
    assert covering(BOB, 'else/where', 'user.bob') == ('', grants.FOREVER)
    for prefix in ('else', 'deep/x', 'deep/user.bob/'):
        with pytest.raises(AccessDenied, match='RSE INNER has files of other scopes'):
            covering(ALICE, prefix)
    for who in (BOB, InternalAccount('alice', vo='two')):
        with pytest.raises(AccessDenied, match=r"may not write to bucket 'user\.alice', prefix 'else/'"):
            covering(who, 'else/')


def test_keys_for_a_part_of_what_is_shared(ground):
    ground.add_rse('DEEP', '/user.alice/run1/deep/')
    own = ground.storage()
    with ground.twins.reading() as session:
        assert objects.covering(own, BOB, 'user.alice', 'run1/else/x', False, session=session) == ('run1/else/', grants.FOREVER)
        assert objects.covering(own, InternalAccount('root'), 'user.alice', 'run1/else/x', False, session=session) == ('', grants.FOREVER)


def test_which_vo_has_the_scope_is_that_of_the_rse_with_a_bucket_for_each(ground):
    ground.add_scope('lone', BOB)
    ground.add_scope('lonely', InternalAccount('bob', vo='two'))
    inner, foreign = ground.add_rse('INNER', '/lone/deep/', vo='two'), ground.add_rse('FOREIGN', '/lonely/deep/', vo='two')
    found = [name for name, _ in ground.overlaps()]
    assert ('INNER' in found, 'FOREIGN' in found) == (True, False)
    assert ('TWIN_A', 'lone') in ground.overlaps(inner)
    assert not [each for each in ground.overlaps(foreign) if each == ('TWIN_A', 'lonely')]


def test_an_rse_is_where_its_first_protocol_is(ground):
    moved = ground.add_rse('MOVED', host='s3.example.org')
    domains = {name: {'read': 2, 'write': 2, 'delete': 2} for name in ('lan', 'wan')}
    old = {'scheme': 'http', 'hostname': '127.0.0.1', 'port': ground.s3.port, 'prefix': '/', 'impl': 'rucio.rse.protocols.s3.Default', 'domains': domains}
    with ground.twins.writing() as session:
        rse.add_protocol(moved.rse_id, old | {'extended_attributes': {'s3': {'provider': 'seaweedfs'}}}, session=session)
    with ground.twins.reading() as session:
        assert 'MOVED' not in [each.rse for each in shared_keys.neighbours(ground.storage(), session=session)]


def test_a_bucket_of_all_scopes_deep_inside_one_of_a_scope(ground):
    """What is above it is as much for admins only as what is in it; what only looks like a part of it is not."""
    ground.add_rse('DEEP', '/user.alice/data/more/')
    own = ground.storage()
    for key, expected in (
        ('', False),
        ('data/', False),
        ('data/more/', False),
        ('more/', True),
        ('data/mo', True),
        ('data/more/ab', True),  # a key of no scope
        ('data/more/user.alice/', True),
        ('data/more/user.bob/', False),
    ):
        assert ground.may(ALICE, 'user.alice', key, storage=own) is expected, key
        assert ground.may(ROOT, 'user.alice', key, storage=own), key
