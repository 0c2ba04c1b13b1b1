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


"""What was signed and is not in the catalogue: the table stays small, and what counts is right all the same."""

from datetime import datetime, timedelta, timezone

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy import func, select

from rucio.common.types import InternalAccount, InternalScope
from rucio.core.s3.auth import pending
from rucio.core.s3.auth.pending import Stored
from rucio.db.sqla import session as rucio_session
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.s3 import Pending

ALICE, SCOPE, RSE = InternalAccount('alice'), InternalScope('user.alice'), 'ab' * 16


@pytest.fixture
def session(database):
    with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
        yield session


@pytest.fixture
def clock(monkeypatch):
    """The time: ``clock[0]``."""
    now = [datetime(2026, 1, 1, 12, tzinfo=timezone.utc).replace(tzinfo=None)]
    monkeypatch.setattr(pending, '_now', lambda: now[0])
    return now


def counted(session):
    found = pending.unregistered(ALICE, pending.recent(ALICE, [RSE]), session=session)
    return sum(each.bytes for each in found.values())


def rows(session):
    return session.execute(select(func.count()).select_from(Pending)).scalar_one()


def add(session, name, size, part=None):
    pending.add(ALICE, RSE, [Stored(SCOPE, name, part, size)], session=session)
    if rows(session) > pending.MAX_ROWS:
        pending.join_rows(ALICE, RSE, session=session)


def test_a_name_counts_once_and_its_parts_together(session, clock):
    for name, size, part in [('a', 10, None), ('a', 30, None), ('a', 20, None), ('b', 5, 'p1'), ('b', 5, 'p1'), ('b', 6, 'p2'), ('b', 9, None)]:
        add(session, name, size, part)
    assert counted(session) == 30 + 11


def test_signatures_end(session, clock):
    add(session, 'a', 10)
    clock[0] += timedelta(seconds=pending.SECONDS)
    assert counted(session) == 10
    clock[0] += timedelta(seconds=1)
    assert counted(session) == 0
    add(session, 'b', 1)
    assert rows(session) == 1


def test_the_table_stays_small(session, clock, monkeypatch):
    """Nothing is forgotten before its time when rows are joined, however often."""
    monkeypatch.setattr(pending, 'MAX_ROWS', 20)
    monkeypatch.setattr(pending, 'MAX_NAMES', 5)
    for number in range(100):
        clock[0] += timedelta(seconds=1)
        add(session, f'file{number}', 10)
        assert rows(session) <= 21
    assert counted(session) == 1000
    for number in range(60):
        add(session, 'large', 10, f'part{number}')
    assert counted(session) == 1600
    clock[0] += timedelta(seconds=pending.SECONDS + 61)
    assert counted(session) == 0


def test_other_accounts_and_rses_are_apart(session, clock):
    add(session, 'a', 10)
    pending.add(InternalAccount('bob'), RSE, [Stored(SCOPE, 'a', None, 20)], session=session)
    pending.add(ALICE, 'cd' * 16, [Stored(SCOPE, 'a', None, 40)], session=session)
    assert counted(session) == 10


def test_what_has_ended_is_deleted_of_the_account_and_the_rse_alone(session, clock):
    others = [(InternalAccount('bob'), RSE), (ALICE, 'cd' * 16)]
    for account, rse_id in [*others, (ALICE, RSE)]:
        pending.add(account, rse_id, [Stored(SCOPE, 'a', None, 20)], session=session)
    clock[0] += timedelta(days=1)
    add(session, 'b', 10)
    found = session.execute(select(Pending.account, Pending.rse_id, Pending.name)).all()
    assert sorted(found, key=str) == sorted([*((*each, 'a') for each in others), (ALICE, RSE, 'b')], key=str)


def test_objects_that_are_joined_count_to_the_end_of_their_minute(session, clock, monkeypatch):
    monkeypatch.setattr(pending, 'MAX_NAMES', 0)
    start = clock[0]
    for number, (seconds, microseconds) in enumerate([(0, 0), (0, 1), (30, 500), (60, 0)]):
        clock[0] = start + timedelta(seconds=seconds, microseconds=microseconds)
        add(session, f'file{number}', 10**number)
    pending.join_rows(ALICE, RSE, session=session)
    found = session.execute(select(Pending.signed_at, Pending.bytes).order_by(Pending.signed_at)).all()
    assert found == [(start, 1), (start + timedelta(minutes=1), 1110)]


def test_joining_the_rows_of_one_leaves_those_of_others(session, clock):
    others = [(InternalAccount('bob'), RSE), (ALICE, 'cd' * 16)]
    for account, rse_id in others:
        pending.add(account, rse_id, [Stored(SCOPE, 'a', None, 20)], session=session)
    before = session.execute(select(Pending.id).order_by(Pending.id)).scalars().all()
    add(session, 'a', 10)
    pending.join_rows(ALICE, RSE, session=session)
    assert session.execute(select(Pending.id).where(~pending.recent(ALICE, [RSE])).order_by(Pending.id)).scalars().all() == before
    assert counted(session) == 10


def test_an_upload_counts_until_its_last_signature_ends(session, clock):
    add(session, 'a', 5, 'part1')
    clock[0] += timedelta(minutes=20)
    add(session, 'a', 6, 'part2')
    pending.join_rows(ALICE, RSE, session=session)
    clock[0] += timedelta(minutes=29)
    assert counted(session) == 11
    clock[0] += timedelta(minutes=2)
    assert counted(session) == 0


def test_of_many_names_the_latest_are_kept(session, clock, monkeypatch):
    """A file of these that is signed again does not count twice."""
    monkeypatch.setattr(pending, 'MAX_NAMES', 2)
    for name in 'abcd':
        clock[0] += timedelta(minutes=2)
        add(session, name, 10)
    pending.join_rows(ALICE, RSE, session=session)
    assert rows(session) == 4
    for name, total in (('d', 40), ('c', 40), ('a', 50)):
        add(session, name, 10)
        assert counted(session) == total
