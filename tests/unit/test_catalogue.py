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

"""What the catalogue is told about a bucket: the same rows as Rucio's own, and all of its sums agree after each act. A database in a file."""

import json
import sqlite3
import threading
from collections import Counter, defaultdict
from contextlib import closing, contextmanager
from datetime import timedelta
from itertools import product
from types import SimpleNamespace
from unittest import mock
from uuid import uuid4

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy import event, func, select, update
from sqlalchemy.exc import OperationalError

from rucio.common.exception import DatabaseException, DataIdentifierAlreadyExists, RucioException, ScopeNotFound, UnsupportedOperation
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import account, account_limit, did, replica, rse, rule, scope
from rucio.core.s3.catalogue import records, registration, updates
from rucio.core.s3.catalogue.records import NewFile
from rucio.core.s3.reconciler import listings
from rucio.core.s3.subtrees import Subtree
from rucio.db.sqla import models
from rucio.db.sqla import session as rucio_session
from rucio.db.sqla.constants import (
    AccountType,
    BadFilesStatus,
    DatabaseOperationType,
    DIDAvailability,
    DIDType,
    LockState,
    ReplicaState,
    RequestState,
    RequestType,
    RuleGrouping,
    RuleState,
)
from servers import postgres
from servers.twins import judge

SCOPE = InternalScope('user.alice')
ALICE, BOB, ROOT = (InternalAccount(name) for name in ('alice', 'bob', 'root'))
SUM = 'd41d8cd98f00b204e9800998ecf8427e'
OTHER_SUM = '0cc175b9c0f1b6a831c399e269772661'


# A database of each kind whose statements differ.
POSTGRES = pytest.param('postgres', marks=pytest.mark.skipif(bool(postgres.missing()), reason=postgres.missing() or ''))
ON_SQLITE = pytest.mark.parametrize('database', ['sqlite'], indirect=True)
ON_BOTH = pytest.mark.parametrize('database', ['sqlite', POSTGRES], indirect=True)


class World:
    """A catalogue with alice, bob, their scopes and two RSEs, and a part of a bucket: all of alice's on the first RSE."""

    def __init__(self, other_rse, storage):
        self.storage = storage
        self.rse, self.rse_id, self.other, self.other_rse = storage.rse, storage.rse_id, *other_rse
        self.subtree = Subtree(storage, SCOPE, 'user.alice', '', '')

    def writing(self):
        return rucio_session.db_session(DatabaseOperationType.WRITE)

    def query(self, statement):
        with rucio_session.db_session(DatabaseOperationType.READ) as session:
            return session.execute(statement).all()

    def rows(self, model, **values):
        """As dictionaries."""
        with rucio_session.db_session(DatabaseOperationType.READ) as session:
            found = session.execute(select(model.__table__).filter_by(**values)).mappings().all()
        return [dict(row) for row in found]

    def row(self, model, name, **values):
        (found,) = self.rows(model, name=name, **values)
        return SimpleNamespace(**found)

    def register(self, *names, size=10, md5=SUM, subtree=None, **values):
        return registration.register(subtree or self.subtree, [NewFile(name, size, md5, **values) for name in names])

    def seen(self, name):
        (found,) = [each for each in listings.replicas(self.subtree) if each.name == name]
        return found

    def replace(self, name, size=77, md5=OTHER_SUM, **values):
        return updates.replace(self.subtree, self.seen(name), NewFile(name, size, md5, **values))

    def forget(self, *names):
        return updates.forget(self.subtree, [self.seen(name) for name in names])

    def add_rule(self, name, owner=ALICE, rse=None, **options):
        settings = {'copies': 1, 'grouping': 'DATASET', 'weight': None, 'lifetime': None, 'locked': False, 'subscription_id': None} | options
        with self.writing() as session:
            wanted = [{'scope': SCOPE, 'name': name}]
            (made,) = rule.add_rule(wanted, owner, rse_expression=rse or self.rse, ignore_account_limit=True, session=session, **settings)
        return made

    def add_dataset(self, name, kind=DIDType.DATASET, closed=False, within=None):
        with self.writing() as session:
            did.add_did(SCOPE, name, kind, ALICE, session=session)
            if within:
                did.attach_dids(SCOPE, within, [{'scope': SCOPE, 'name': name}], ALICE, session=session)
            if closed:
                did.set_status(SCOPE, name, open=False, session=session)

    def add_copy(self, name):
        """Of a file, on the other RSE."""
        row = self.row(models.DataIdentifier, name)
        with self.writing() as session:
            replica.add_replicas(self.other, [{'scope': SCOPE, 'name': name, 'bytes': row.bytes, 'md5': row.md5}], ALICE, session=session)

    def change(self, model, where, **values):
        with self.writing() as session:
            session.execute(update(model).filter_by(**where).values(**values).execution_options(synchronize_session=False))

    def judge(self):
        judge(self)

    def usage(self):
        """What is counted: by account and RSE, and by RSE."""
        counted = defaultdict(lambda: [0, 0])
        for row in self.rows(models.UpdatedAccountCounter):
            counted[row['account'].external, row['rse_id']][0] += row['files']
            counted[row['account'].external, row['rse_id']][1] += row['bytes']
        for row in self.rows(models.UpdatedRSECounter):
            counted[row['rse_id']][0] += row['files']
            counted[row['rse_id']][1] += row['bytes']
        return {key: tuple(value) for key, value in counted.items() if value != [0, 0]}

    def agree(self):
        """All sums of the catalogue are those of what they are sums of."""
        wanted = defaultdict(lambda: [0, 0])
        replicas = {(row['name'], row['rse_id']): row for row in self.rows(models.RSEFileAssociation)}
        dids = {row['name']: row for row in self.rows(models.DataIdentifier)}
        locks, states = defaultdict(int), defaultdict(int)
        accounts = {row['id']: row['account'].external for row in self.rows(models.ReplicationRule)}
        for lock in self.rows(models.ReplicaLock):
            locks[lock['name'], lock['rse_id']] += 1
            states[lock['rule_id'], lock['state']] += 1
            assert lock['bytes'] == dids[lock['name']]['bytes']
            wanted[accounts[lock['rule_id']], lock['rse_id']][0] += 1
            wanted[accounts[lock['rule_id']], lock['rse_id']][1] += lock['bytes']
        for key, row in replicas.items():
            assert row['lock_cnt'] == locks.pop(key, 0), key
            assert row['bytes'] == dids[key[0]]['bytes']
            wanted[row['rse_id']][0] += 1
            wanted[row['rse_id']][1] += row['bytes']
        assert not locks
        for row in self.rows(models.ReplicationRule):
            counts = [row['locks_ok_cnt'], row['locks_replicating_cnt'], row['locks_stuck_cnt']]
            assert counts == [states[row['id'], state] for state in (LockState.OK, LockState.REPLICATING, LockState.STUCK)]
        for row in self.rows(models.DataIdentifierAssociation, child_type=DIDType.FILE):
            assert [row[key] for key in ('bytes', 'md5', 'adler32')] == [dids[row['child_name']][key] for key in ('bytes', 'md5', 'adler32')]
        assert self.usage() == {key: tuple(value) for key, value in wanted.items() if value != [0, 0]}


@pytest.fixture
def here(database):
    # Rucio remembers RSEs by their names.
    names = [f'R{uuid4().hex[:10].upper()}' for _ in range(2)]
    with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
        session.add(models.VO(vo='def', description='', email=''))
        session.flush()
        for each in (ALICE, BOB, ROOT):
            account.add_account(each, AccountType.USER, 'nobody@localhost', session=session)
        scope.add_scope(SCOPE, ALICE, session=session)
        ids = [rse.add_rse(name, session=session) for name in names]
        account_limit.set_local_account_limit(ALICE, ids[0], -1, session=session)
    settings = {'deterministic': True, 'staging_area': False, 'volatile': False}
    return World(
        (ids[1], names[1]),
        SimpleNamespace(rse=names[0], rse_id=ids[0], vo='def', settings=settings, layout=SimpleNamespace(deterministic=settings['deterministic'])),
    )


# New files


@ON_BOTH
def test_uploaded_files_are_registered_as_by_stock_rucio(here):
    """Column by column, but for ids and times, and for those that are registered already."""
    sums = {'bytes': 3, 'md5': SUM, 'adler32': '00000001', 'guid': 'a' * 32}
    for name in ('ours', 'stock'):
        here.add_dataset(name)
        here.add_rule(name)
    here.register('ours/known', size=99)

    files = [NewFile(f'ours/{name}', guid=sums['guid'], bytes=3, md5=SUM, adler32='00000001') for name in ('a', 'b', 'known')]
    assert registration.register_uploaded(here.subtree, BOB, 'ours', files) == ['ours/known']
    assert registration.register_uploaded(here.subtree, BOB, 'ours', files) == ['ours/a', 'ours/b', 'ours/known']
    with here.writing() as session:
        stock = [{'scope': SCOPE, 'name': f'stock/{name}', **sums, 'meta': {'guid': sums['guid']}} for name in ('a', 'b')]
        replica.add_replicas(here.rse_id, stock, BOB, session=session)
        did.attach_dids(SCOPE, 'stock', [{key: each[key] for key in ('scope', 'name', 'bytes')} for each in stock], BOB, session=session)
    here.judge()

    def described(model, dataset, name='name'):
        own = {'created_at', 'updated_at', 'accessed_at', 'rule_id', 'name', 'child_name', 'path'}
        found = [row for row in here.rows(model) if row[name].startswith(f'{dataset}/') and not row[name].endswith('known')]
        return [{key: value for key, value in row.items() if key not in own} for row in sorted(found, key=lambda row: row[name])]

    for model, name in (
        (models.DataIdentifier, 'name'),
        (models.RSEFileAssociation, 'name'),
        (models.ReplicaLock, 'name'),
        (models.DataIdentifierAssociation, 'child_name'),
    ):
        assert described(model, 'ours', name) == described(model, 'stock', name) != []
    assert here.row(models.DataIdentifier, 'ours/known').bytes == 99
    here.agree()


@ON_SQLITE
@pytest.mark.parametrize('dataset', ['missing', 'closed', 'box', 'file/a'])
def test_nothing_is_registered_in_what_is_no_open_dataset(here, dataset):
    here.add_dataset('closed', closed=True)
    here.add_dataset('box', DIDType.CONTAINER)
    here.register('file/a')
    with pytest.raises(UnsupportedOperation, match=f'user.alice:{dataset} is not an open dataset'):
        registration.register_uploaded(here.subtree, ALICE, dataset, [NewFile(f'{dataset}/x', 1, SUM)])
    assert here.rows(models.DataIdentifier, name=f'{dataset}/x') == []


@ON_BOTH
def test_rows_are_those_of_rucio(here):
    """Column by column, but for ids and times."""
    here.add_dataset('ours')
    here.add_dataset('stock')
    assert here.register('ours/file', adler32='00000001') == (1, [])
    with here.writing() as session:
        file = {'scope': SCOPE, 'name': 'stock/file', 'bytes': 10, 'md5': SUM, 'adler32': '00000001'}
        replica.add_replicas(here.rse_id, [file], ALICE, session=session)
        did.attach_dids(SCOPE, 'stock', [file], ALICE, session=session)
    for model in (models.DataIdentifier, models.RSEFileAssociation, models.DataIdentifierAssociation, models.UpdatedDID, models.UpdatedRSECounter):
        ours, stock = sorted(here.rows(model), key=lambda row: row['created_at'])[-2:]
        for row in (ours, stock):
            assert abs(row.pop('created_at') - records.utcnow()) < timedelta(minutes=1)
            assert abs(row.pop('updated_at') - records.utcnow()) < timedelta(minutes=1)
            row.pop('id', None)
        if model is models.DataIdentifier:
            # add_replicas says None, too, but SQLAlchemy leaves that out where the table has a default. Rucio's transmogrifier makes it None later.
            assert (ours.pop('is_new'), stock.pop('is_new')) == (None, True)
        assert {key: value.replace('ours', 'stock') if isinstance(value, str) else value for key, value in ours.items()} == stock
    here.agree()


def by_rucio(here, sizes):
    """Register files of several datasets as with Rucio's own calls, each call for all of them."""
    with here.writing() as session:
        for name in sizes:
            did.add_did(SCOPE, name, DIDType.DATASET, ALICE, session=session)
    for name in sizes:
        here.add_rule(name, ignore_availability=True)
    files = {name: [{'scope': SCOPE, 'name': f'{name}/{number}', 'bytes': 10, 'md5': SUM} for number in range(size)] for name, size in sizes.items()}
    with here.writing() as session:
        replica.add_replicas(here.rse_id, [file for some in files.values() for file in some], ALICE, session=session)
        attachments = [{'scope': SCOPE, 'name': name, 'dids': some} for name, some in files.items()]
        did.attach_dids_to_dids(attachments, ALICE, session=session)


def all_rows(here):
    """Of all tables, in an order of their own, without what differs from each time to the next; rules by the name of their dataset."""
    rules = {row['id']: row['name'] for row in here.rows(models.ReplicationRule)}
    found = {}
    for table in models.BASE.metadata.sorted_tables:
        made = {'created_at', 'updated_at'} | {column.name for column in table.primary_key if column.default is not None and column.name == 'id'}
        rows = here.query(select(table))
        found[table.name] = sorted(
            [{column: rules.get(value, value) for column, value in row._mapping.items() if column not in made} for row in rows], key=repr
        )
    return {name: rows for name, rows in found.items() if rows}


@ON_BOTH
def test_all_tables_have_the_rows_of_rucio(here, database):
    """Of many files in several new datasets: which Rucio makes one by one, with their rules; and then what its judge makes of them."""
    sizes = {'run1': registration.MANY, 'run2': 1, 'run3': 20}
    empty = all_rows(here)
    here.register(*(f'{name}/{number}' for name, size in sizes.items() for number in range(size)))
    ours = [all_rows(here)]
    here.judge()
    ours.append(all_rows(here))
    with database.begin() as connection:
        for table in reversed(models.BASE.metadata.sorted_tables):
            if table.name not in empty or len(ours[0][table.name]) > len(empty[table.name]):
                connection.execute(table.delete())
    assert all_rows(here) == empty
    by_rucio(here, sizes)
    stock = [all_rows(here)]
    here.judge()
    stock.append(all_rows(here))
    for each, theirs in zip(ours, stock, strict=True):
        assert {row.pop('is_new') for row in each['dids'] if row['did_type'] == DIDType.FILE} == {None}  # see above
        assert {row.pop('is_new') for row in theirs['dids'] if row['did_type'] == DIDType.FILE} == {True}
        assert each == theirs
    here.agree()


@ON_BOTH
def test_many_of_which_some_are_known(here):
    """They are taken for new ones at first."""
    names = [f'run{number % 3}/{number:03}' for number in range(2 * registration.MANY)]
    here.register(names[0])
    with here.writing() as session:
        replica.add_replicas(here.other, [{'scope': SCOPE, 'name': names[1], 'bytes': 11, 'md5': SUM}], ALICE, session=session)
    count, (refused,) = here.register(*names)
    assert (count, refused.kind, refused.name) == (len(names) - 2, 'conflict', names[1])
    assert here.register(*names) == (0, [refused])
    here.judge()
    here.agree()


@ON_BOTH
def test_any_text_is_written_as_it_is(here):
    """PostgreSQL gets texts in arrays, in which some characters have a meaning."""
    names, etag = sorted(['NULL', 'run1/NULL', 'run1/"a"', 'run1/\\', 'run1/{b,c}', "run1/d' --", 'run1/ é %s :e']), 'a"\\b-2'
    assert here.register(*names, etag=etag) == (len(names), [])
    assert sorted(row['name'] for row in here.rows(models.DataIdentifier, did_type=DIDType.FILE)) == names
    assert [here.seen(name).etag for name in names] == [etag] * len(names)
    assert here.register(*names) == (0, [])


@pytest.mark.parametrize('database', [POSTGRES], indirect=True)
def test_what_is_too_long_is_not_cut(here):
    """By PostgreSQL, which cuts what is too long where it is told the type."""
    with pytest.raises(DatabaseException, match='value too long'):
        here.register(*(f'run1/{"x" * 250}{number}' for number in range(2)))
    assert here.rows(models.DataIdentifier, did_type=DIDType.FILE) == []


def test_a_dataset_is_made_with_a_rule_of_the_owner(here):
    assert here.register('run1/a', 'run1/deep/b', 'run2/c') == (3, [])
    assert here.row(models.DataIdentifier, 'run1').did_type == DIDType.DATASET
    made = here.row(models.ReplicationRule, 'run1')
    assert (made.account, made.rse_expression, made.copies, made.ignore_account_limit, made.expires_at) == (ALICE, here.rse, 1, True, None)
    assert (made.locked, made.grouping, made.weight, made.did_type) == (False, RuleGrouping.DATASET, None, DIDType.DATASET)
    members = {(row['name'], row['child_name']) for row in here.rows(models.DataIdentifierAssociation)}
    assert members == {('run1', 'run1/a'), ('run1', 'run1/deep/b'), ('run2', 'run2/c')}
    here.judge()
    assert here.usage() == {('alice', here.rse_id): (3, 30), here.rse_id: (3, 30)}
    assert {row['state'] for row in here.rows(models.ReplicaLock)} == {LockState.OK}
    assert here.row(models.CollectionReplica, 'run1').available_replicas_cnt == 2
    here.agree()


def test_a_file_below_nothing_has_a_rule_of_its_own(here):
    assert here.register('a', 'b', size=7) == (2, [])
    assert {row['name'] for row in here.rows(models.ReplicationRule)} == {'a', 'b'}
    assert here.usage() == {('alice', here.rse_id): (2, 14), here.rse_id: (2, 14)}
    here.agree()


def test_a_dataset_is_made_once_for_all_of_its_folders(here):
    with mock.patch.object(registration, 'add_dids', wraps=registration.add_dids) as made:
        assert here.register('run1/a/file', 'run1/b/file', 'run1/c/file') == (3, [])
    assert [each['name'] for call in made.call_args_list for each in call.args[0]] == ['run1']


@pytest.mark.parametrize(
    ('there', 'name', 'dataset'),
    [
        ([], 'a/b/c/file', 'a'),
        ([('a/b', DIDType.DATASET)], 'a/b/c/file', 'a/b'),
        ([('a', DIDType.DATASET), ('a/b', DIDType.DATASET)], 'a/b/c/file', 'a/b'),
        ([('a', DIDType.CONTAINER)], 'a/b/c/file', 'a/b'),
        ([('a', DIDType.CONTAINER), ('a/b/c', DIDType.DATASET)], 'a/b/file', 'a/b'),
        ([('a', DIDType.CONTAINER)], 'a/file', None),
        ([('a', DIDType.DATASET)], 'ab/file', 'ab'),
        ([], 'a//file', 'a'),
        ([], '/file', None),
        ([('run', DIDType.DATASET)], 'RUN/file', 'RUN'),
    ],
)
def test_which_dataset(here, there, name, dataset):
    for each, kind in there:
        here.add_dataset(each, kind)
    assert here.register(name) == (1, [])
    parents = [row['name'] for row in here.rows(models.DataIdentifierAssociation, child_name=name)]
    assert parents == ([dataset] if dataset else [])
    assert len(here.rows(models.ReplicationRule)) == (0 if (dataset, DIDType.DATASET) in there else 1)


def test_a_closed_dataset_gets_nothing(here):
    here.add_dataset('run1', closed=True)
    count, (refused,) = here.register('run1/file', 'run2/file')
    assert (count, refused.kind, refused.name) == (1, 'closed', 'run1/file')
    assert 'user.alice:run1 is closed' in refused.found
    assert not here.rows(models.DataIdentifier, name='run1/file')
    here.add_dataset('run1/sub')
    assert here.register('run1/sub/file') == (1, [])


def test_a_dataset_that_was_removed_comes_back_with_a_rule(here):
    """Else Rucio's undertaker would delete it, and then the reaper what is in it."""
    here.add_dataset('run1')
    here.change(models.DataIdentifier, {'name': 'run1'}, expired_at=records.utcnow() - timedelta(seconds=1))
    assert here.register('run1/file') == (1, [])
    assert here.row(models.DataIdentifier, 'run1').expired_at is None
    assert here.row(models.ReplicationRule, 'run1').account == ALICE


def test_a_removed_dataset_comes_back_only_where_no_other_one_is_open(here, monkeypatch):
    now = records.utcnow()
    monkeypatch.setattr(registration, 'utcnow', lambda: now)
    for name in ('run1', 'run1/sub', 'run2'):
        here.add_dataset(name)
    for name in ('run1/sub', 'run2'):
        here.change(models.DataIdentifier, {'name': name}, expired_at=now)
    assert here.register('run1/sub/file', 'run2/file') == (2, [])
    assert {(row['name'], row['child_name']) for row in here.rows(models.DataIdentifierAssociation)} == {('run1', 'run1/sub/file'), ('run2', 'run2/file')}
    assert (here.row(models.DataIdentifier, 'run1/sub').expired_at, here.row(models.DataIdentifier, 'run2').expired_at) == (now, None)


def test_a_removed_dataset_that_is_closed_is_told_as_closed(here):
    here.add_dataset('run1', closed=True)
    here.change(models.DataIdentifier, {'name': 'run1'}, expired_at=records.utcnow() - timedelta(seconds=1))
    count, (refused,) = here.register('run1/file')
    assert (count, refused.kind, refused.name) == (0, 'closed', 'run1/file')


def test_a_dataset_that_somebody_else_makes_at_the_same_time(here, monkeypatch):
    """It keeps what it was given, and has one rule."""
    ends = records.utcnow() + timedelta(days=1)
    known, add, stale = registration._collections, registration.add_dids, [True]

    monkeypatch.setattr(registration, '_collections', lambda *arguments: {} if stale and stale.pop() else known(*arguments))
    here.add_dataset('run1')
    here.change(models.DataIdentifier, {'name': 'run1'}, expired_at=ends)
    assert here.register('run1/file') == (1, [])
    assert here.row(models.DataIdentifier, 'run1').expired_at == ends
    monkeypatch.setattr(registration, 'add_dids', mock.Mock(side_effect=[DataIdentifierAlreadyExists('run2 exists'), mock.DEFAULT], wraps=add))
    assert here.register('run2/file') == (1, [])
    assert [row['name'] for row in here.rows(models.ReplicationRule)] == ['run1', 'run2']


def test_an_object_and_a_prefix_of_one_name(here):
    assert here.register('run1/file', 'run1') == (2, [])
    assert here.row(models.DataIdentifier, 'run1').did_type == DIDType.FILE
    here.add_dataset('run2')
    count, (refused,) = here.register('run2')
    assert (count, refused.kind) == (0, 'conflict')
    assert 'user.alice:run2 is a dataset in the catalogue' in refused.found


def test_imports_have_one_dataset(here):
    subtree = Subtree(here.storage, SCOPE, 'public', 'eo/', 'archive/', dataset='archive')
    assert here.register('archive/deep/er/file', 'archive/b', subtree=subtree, path='/public/eo/x') == (2, [])
    assert {row['name'] for row in here.rows(models.DataIdentifierAssociation)} == {'archive'}
    assert here.row(models.RSEFileAssociation, 'archive/b').path == '/public/eo/x'
    with pytest.raises(UnsupportedOperation, match='is not a dataset'):
        here.register('archive/b/file', subtree=Subtree(here.storage, SCOPE, 'public', '', 'archive/b/', dataset='archive/b'))


def test_twice_is_as_good_as_once(here):
    here.register('run1/a', 'lone')
    before = [here.rows(model) for model in (models.DataIdentifier, models.RSEFileAssociation, models.UpdatedDID, models.UpdatedRSECounter)]
    assert here.register('run1/a', 'lone') == (0, [])
    assert here.register('run1/a', size=99, md5=OTHER_SUM) == (0, [])
    assert before == [here.rows(model) for model in (models.DataIdentifier, models.RSEFileAssociation, models.UpdatedDID, models.UpdatedRSECounter)]
    assert here.register('run1/a', 'run1/new', 'run1/new') == (1, [])
    here.judge()
    here.agree()


def test_somebody_else_was_faster(here, monkeypatch):
    """What is read before another one commits is not what is there when it is written."""
    here.register(*(f'run1/{number}' for number in range(10)))
    known, stale = registration._existing_dids, [1]
    monkeypatch.setattr(registration, '_existing_dids', lambda *arguments: {} if stale and stale.pop() else known(*arguments))
    assert here.register(*(f'run1/{number}' for number in range(15))) == (5, [])
    here.judge()
    here.agree()


@pytest.mark.parametrize('url', ['https://s3.example.org', 'https://elsewhere.example.org'])
def test_the_same_object_on_two_rses_is_not_two_replicas(here, monkeypatch, url):
    """Else Rucio would think that there is another one when it deletes one of them."""
    here.register('run1/file')
    here.add_copy('run1/file')
    here.forget('run1/file')
    here.storage.endpoint = SimpleNamespace(url='https://s3.example.org')
    layout = SimpleNamespace(place_of=lambda scope, name, _: (scope, name))
    twin = SimpleNamespace(rse='TWIN', rse_id=here.other, endpoint=SimpleNamespace(url=url), layout=layout)
    monkeypatch.setattr(registration.storages, 'list_storages', mock.Mock(return_value=[here.storage, twin]))
    count, refusals = here.register('run1/file')
    if url == here.storage.endpoint.url:
        assert count == 0
        assert [(each.kind, each.name) for each in refusals] == [('conflict', 'run1/file')]
        assert 'on RSE TWIN' in refusals[0].found
    else:
        assert (count, refusals) == (1, [])


@ON_BOTH
def test_many_at_once(here):
    """Several processes register the same names: each is there once, and counted once."""
    names = [f'run{number % 3}/{number:03}' for number in range(300)]
    start, counts = threading.Barrier(3), []

    def register():
        start.wait()
        counts.append(here.register(*names))

    threads = [threading.Thread(target=register) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [refused for _, refused in counts] == [[], [], []]
    assert sum(count for count, _ in counts) == 300
    assert len(here.rows(models.ReplicationRule)) == 3
    here.judge()
    here.agree()
    assert here.usage()['alice', here.rse_id] == (300, 3000)


def test_chunks(here, monkeypatch):
    monkeypatch.setattr(registration, 'CHUNK', 4)
    monkeypatch.setattr(registration, 'MAX_RULES', 2)
    monkeypatch.setattr(records, 'MAX_IN_LIST', 3)
    assert here.register(*(f'run1/{number}' for number in range(10)), *(f'lone{number}' for number in range(5))) == (15, [])
    here.judge()
    here.agree()


@pytest.mark.parametrize(
    ('size', 'md5', 'adler32', 'registered'),
    [(10, SUM, None, True), (10, SUM, '00000001', True), (10, OTHER_SUM, None, False), (11, SUM, None, False), (10, None, '00000001', False)],
)
def test_a_file_that_is_elsewhere(here, size, md5, adler32, registered):
    here.register('run1/other')
    with here.writing() as session:
        replica.add_replicas(here.other, [{'scope': SCOPE, 'name': 'run1/file', 'bytes': 10, 'md5': SUM}], ALICE, session=session)
    count, refusals = here.register('run1/file', size=size, md5=md5, adler32=adler32, etag='"multi-2"' if registered else None)
    assert (count, [each.kind for each in refusals]) == ((1, []) if registered else (0, ['conflict']))
    assert all(('of which only the size can be compared' if md5 is None else 'with different content') in each.found for each in refusals)
    assert len(here.rows(models.RSEFileAssociation, name='run1/file')) == count + 1
    if registered:
        assert here.seen('run1/file').etag == '"multi-2"'
        assert here.row(models.RSEFileAssociation, 'run1/file', rse_id=here.rse_id).tombstone is None
    here.judge()
    here.agree()


def test_the_same_name_with_another_path(here):
    """Of an import: the replica stays where it is."""
    subtree = Subtree(here.storage, SCOPE, 'public', 'eo/', 'archive/', dataset='archive')
    assert here.register('archive/b', subtree=subtree, path='/public/eo/x') == (1, [])
    assert here.register('archive/b', subtree=subtree, path='/public/eo/x') == (0, [])
    count, (refused,) = here.register('archive/b', subtree=subtree, path='/public/eo/y')
    assert (count, refused.kind) == (0, 'conflict')
    assert f'with another path on RSE {here.rse} (/public/eo/x)' in refused.found
    assert here.row(models.RSEFileAssociation, 'archive/b').path == '/public/eo/x'


@pytest.mark.parametrize('values', [{'is_open': False}, {'did_type': DIDType.CONTAINER}])
def test_a_dataset_that_is_another_one_when_it_is_written_to(here, monkeypatch, values):
    here.register('run1/a')
    choose = registration._choose_datasets

    def slow(*arguments):
        chosen = choose(*arguments)
        here.change(models.DataIdentifier, {'name': 'run1'}, **values)
        return chosen

    monkeypatch.setattr(registration, '_choose_datasets', slow)
    count, refusals = here.register('run0/a', 'run1/b', 'run1/c', 'run2/d')
    assert (count, [(each.kind, each.name) for each in refusals]) == (2, [('failed', 'run1/b'), ('failed', 'run1/c')])
    assert 'could not be registered: a dataset was closed at the same time. Try again' in refusals[0].found
    assert {row['name'] for row in here.rows(models.DataIdentifier, did_type=DIDType.FILE)} == {'run0/a', 'run1/a', 'run2/d'}


def test_a_dataset_that_ends_later_is_none_to_be_made_again(here):
    here.add_dataset('run1')
    ends = records.utcnow() + timedelta(days=1)
    here.change(models.DataIdentifier, {'name': 'run1'}, expired_at=ends)
    assert here.register('run1/file') == (1, [])
    assert here.row(models.DataIdentifier, 'run1').expired_at == ends
    assert here.rows(models.ReplicationRule) == []


def test_what_is_in_the_bucket_already_gets_a_rule_though_nothing_may_be_written(here):
    here.change(models.RSE, {'id': here.rse_id}, availability_write=False)
    assert here.register('run1/file', 'lone') == (2, [])
    assert {row['name'] for row in here.rows(models.ReplicationRule)} == {'run1', 'lone'}


def test_an_import_counts_for_no_limit(here):
    """It has no rule, so it is nobody's usage."""
    with here.writing() as session:
        account_limit.set_local_account_limit(ALICE, here.rse_id, 5, session=session)
    subtree = Subtree(here.storage, SCOPE, 'public', 'eo/', 'archive/', dataset='archive')
    assert here.register('archive/b', subtree=subtree, path='/public/eo/x') == (1, [])


def test_a_name_that_was_lost(here):
    here.register('run1/file')
    here.forget('run1/file')
    here.register('run1/file')
    with here.writing() as session:
        session.execute(models.RSEFileAssociation.__table__.delete())
    here.change(models.DataIdentifier, {'name': 'run1/file'}, availability=DIDAvailability.LOST)
    count, (refused,) = here.register('run1/file')
    assert (count, refused.kind) == (0, 'conflict')
    assert 'declared lost' in refused.found


def test_no_tombstone_whatever_the_rse_says(here):
    with here.writing() as session:
        rse.add_rse_attribute(here.rse_id, 'tombstone_delay', -1, session=session)
    here.add_dataset('run1')
    here.register('run1/file')
    assert here.row(models.RSEFileAssociation, 'run1/file').tombstone is None
    with here.writing() as session:
        assert replica.list_and_mark_unlocked_replicas(10, rse_id=here.rse_id, session=session) == []


def test_an_account_over_its_limit_is_told(here):
    with here.writing() as session:
        account_limit.set_local_account_limit(ALICE, here.rse_id, 25, session=session)
    assert here.register('run1/a', 'run1/b') == (2, [])
    count, (refused,) = here.register('run1/c', 'run1/d', 'run1/e')
    assert (count, refused.kind, refused.name) == (3, 'over-limit', '')
    assert 'Account alice is over its limit' in refused.found
    with here.writing() as session:
        account_limit.set_local_account_limit(ALICE, here.rse_id, 0, session=session)
    assert here.register('run1/c') == (0, []), 'nothing is new'
    here.judge()
    assert here.row(models.ReplicationRule, 'run1').state == RuleState.OK
    assert here.usage()['alice', here.rse_id] == (5, 50)


@pytest.mark.parametrize(('limit', 'over'), [(71, []), (70, ['over-limit'])])
def test_all_that_is_new_counts_for_the_limit(here, limit, over):
    """Rucio wants some of it to be left."""
    with here.writing() as session:
        account_limit.set_local_account_limit(ALICE, here.rse_id, limit, session=session)
    count, refusals = here.register('run1/a', 'run1/b', 'lone1', 'lone2', 'run1/c', 'run1/d', 'lone3')
    assert (count, [each.kind for each in refusals]) == (7, over)


def test_a_rule_that_cannot_be(here, monkeypatch):
    monkeypatch.setattr(registration, 'add_rule', mock.Mock(side_effect=UnsupportedOperation('Staging areas need a lifetime.')))
    count, (refused,) = here.register('run1/file')
    assert (count, refused.kind, refused.name) == (1, 'no-rule', 'run1')
    assert '(Staging areas need a lifetime)' in refused.found
    count, (refused,) = here.register('lone')
    assert (count, refused.kind) == (0, 'failed')
    here.agree()


def test_where_nothing_can_be_registered(here):
    with pytest.raises(ScopeNotFound, match='no scope'):
        here.register('a', subtree=Subtree(here.storage, InternalScope('user.nobody'), 'b', '', ''))
    volatile = SimpleNamespace(**vars(here.storage) | {'settings': {**here.storage.settings, 'volatile': True}})
    with pytest.raises(UnsupportedOperation, match='is volatile'):
        here.register('a', subtree=Subtree(volatile, SCOPE, 'b', '', ''))


@ON_BOTH
def test_another_vo(here):
    """Its accounts and scopes may have the same names."""
    theirs = InternalScope('user.alice', vo='abc')
    owner, root = (InternalAccount(name, vo='abc') for name in ('zoe', 'root'))
    name = f'R{uuid4().hex[:10].upper()}'
    with here.writing() as session:
        session.add(models.VO(vo='abc', description='', email=''))
        session.flush()
        for each in (owner, root):
            account.add_account(each, AccountType.USER, 'nobody@localhost', session=session)
        scope.add_scope(theirs, owner, session=session)
        rse_id = rse.add_rse(name, vo='abc', session=session)
        account_limit.set_local_account_limit(owner, rse_id, -1, session=session)
    here.register('run1/file')
    there = World((here.other, here.other_rse), SimpleNamespace(**vars(here.storage) | {'rse': name, 'rse_id': rse_id, 'vo': 'abc'}))
    there.subtree = Subtree(there.storage, theirs, 'user.alice', '', '')
    assert there.register('run1/file', 'lone') == (2, [])
    assert {row['account'] for row in there.rows(models.DataIdentifier, scope=theirs)} == {owner}
    assert {row['account'] for row in there.rows(models.ReplicationRule, scope=theirs)} == {owner}
    to_sum_up = Counter(row['scope'].internal for row in here.rows(models.UpdatedCollectionReplica))
    assert there.replace('run1/file') is None
    assert Counter(row['scope'].internal for row in here.rows(models.UpdatedCollectionReplica)) - to_sum_up == {'user.alice@abc': 1}
    assert updates.declare_bad(there.subtree, [there.seen('run1/file')], '') == (1, [])
    assert there.row(models.BadReplica, 'run1/file').account == root
    assert there.forget('lone') == (1, [])
    assert here.seen('run1/file').bytes == 10


# ETags and checksums


@ON_SQLITE
def test_etags_stand_in_the_metadata(here):
    here.register('run1/file', etag='abc-2')
    assert json.loads(here.row(models.DidMeta, 'run1/file').meta) == {'s3_etags': {here.rse_id: 'abc-2'}}
    here.change(models.DidMeta, {'name': 'run1/file'}, meta=json.dumps({'campaign': 'mc23', 's3_etags': {here.rse_id: 'abc-2', 'other': 'x'}}))
    updates.note_etags(here.subtree, {'run1/file': 'def-3', 'run1/unknown': 'x'})
    assert json.loads(here.row(models.DidMeta, 'run1/file').meta) == {'campaign': 'mc23', 's3_etags': {here.rse_id: 'def-3', 'other': 'x'}}
    assert here.replace('run1/file') is None
    assert json.loads(here.row(models.DidMeta, 'run1/file').meta) == {'campaign': 'mc23', 's3_etags': {'other': 'x'}}


@ON_SQLITE
def test_etags_are_changed_where_they_are_others(here):
    here.register('run1/a', 'run1/b', etag='abc-2')
    updates.note_etags(here.subtree, {'run1/a': 'abc-2', 'run1/b': 'def-3'})
    assert [here.seen(name).etag for name in ('run1/a', 'run1/b')] == ['abc-2', 'def-3']
    assert here.replace('run1/a') is None
    assert json.loads(here.row(models.DidMeta, 'run1/a').meta) == {}


def test_a_file_that_is_registered_anew_has_the_etag_of_now(here):
    here.add_dataset('run1')
    here.register('run1/file', etag='abc-2')
    here.add_copy('run1/file')
    here.forget('run1/file')
    assert here.register('run1/file') == (1, [])
    assert here.seen('run1/file').etag is None


@pytest.mark.parametrize('meta', ['no JSON', '[]', '{"s3_etags": 1}', '{"s3_etags": {"RSE": 1}}', None])
def test_metadata_that_somebody_else_wrote(here, meta):
    here.register('run1/file', etag='abc-2')
    here.change(models.DidMeta, {'name': 'run1/file'}, meta=meta and meta.replace('RSE', here.rse_id))
    assert here.seen('run1/file').etag is None
    assert here.replace('run1/file', etag='def-3') is None
    assert here.seen('run1/file').etag == 'def-3'


def test_checksums_are_set_where_there_are_none(here):
    here.register('run1/file', md5=None)
    here.register('run1/known')
    updates.set_checksums(here.subtree, 'run1/file', OTHER_SUM, '00000002')
    updates.set_checksums(here.subtree, 'run1/known', OTHER_SUM, '00000002')
    assert (here.seen('run1/file').md5, here.seen('run1/file').adler32) == (OTHER_SUM, '00000002')
    assert (here.seen('run1/known').md5, here.seen('run1/known').adler32) == (SUM, '00000002')
    for name, md5 in (('run1/file', OTHER_SUM), ('run1/known', SUM)):
        assert here.row(models.RSEFileAssociation, name).md5 == md5
    here.agree()


def test_checksums_are_set_of_transfers_as_well(here):
    here.register('run1/file', md5=None)
    add_request(here, 'run1/file', here.other)
    tables = (models.DataIdentifier, models.RSEFileAssociation, models.DataIdentifierAssociation, models.Request)
    before = [here.rows(model) for model in tables]
    updates.set_checksums(here.subtree, 'run1/file', None, None)
    assert [here.rows(model) for model in tables] == before
    updates.set_checksums(here.subtree, 'run1/file', None, '00000002')
    assert (here.row(models.Request, 'run1/file').md5, here.row(models.Request, 'run1/file').adler32) == (None, '00000002')


def test_complete(here):
    here.register('run1/file', 'run1/transfer', 'run1/available')
    for name in ('run1/file', 'run1/transfer'):
        here.change(models.RSEFileAssociation, {'name': name}, state=ReplicaState.COPYING, tombstone=records.utcnow())
    add_request(here, 'run1/transfer', here.rse_id)
    assert updates.complete(here.subtree, ['run1/file', 'run1/transfer', 'run1/available', 'run1/unknown']) == 1
    states = {row['name']: (row['state'], row['tombstone'] is None) for row in here.rows(models.RSEFileAssociation)}
    assert states['run1/file'] == (ReplicaState.AVAILABLE, True)
    assert states['run1/transfer'] == (ReplicaState.COPYING, False)


def test_complete_leaves_the_tombstone_of_what_is_locked(here):
    here.register('run1/file')
    here.judge()
    here.change(models.RSEFileAssociation, {}, state=ReplicaState.COPYING, tombstone=records.utcnow())
    assert updates.complete(here.subtree, ['run1/file']) == 1
    assert here.row(models.RSEFileAssociation, 'run1/file').tombstone is not None


def test_checksums_that_a_replica_has_already_stay(here):
    here.register('run1/file', md5=None)
    here.change(models.RSEFileAssociation, {}, md5=SUM)
    updates.set_checksums(here.subtree, 'run1/file', OTHER_SUM, None)
    assert here.row(models.RSEFileAssociation, 'run1/file').md5 == SUM
    assert here.row(models.DataIdentifier, 'run1/file').md5 == OTHER_SUM
    assert here.row(models.DataIdentifier, 'run1/file').adler32 is None


def add_request(here, name, destination):
    with here.writing() as session:
        request = models.Request(
            scope=SCOPE, name=name, dest_rse_id=destination, request_type=RequestType.TRANSFER, state=RequestState.QUEUED, did_type=DIDType.FILE
        )
        session.add(request)


# Changed objects


@pytest.fixture
def kept(here):
    """A file of 10 bytes with three rules of two accounts: on its dataset, on the container above that, and on itself; and another one beside it."""
    here.add_dataset('all', DIDType.CONTAINER)
    here.add_dataset('run1', within='all')
    here.register('run1/file', 'run1/other')
    here.add_rule('run1', BOB)
    here.add_rule('all', ALICE)
    here.add_rule('run1/file', BOB)
    here.judge()
    here.agree()
    assert here.row(models.RSEFileAssociation, 'run1/file').lock_cnt == 3
    assert here.usage()['bob', here.rse_id] == (3, 30)
    return here


@pytest.mark.parametrize('size', [0, 5, 10, 2**40])
def test_replace(kept, size):
    assert kept.replace('run1/file', size, None, adler32='0000000a') is None
    now = kept.seen('run1/file')
    assert (now.bytes, now.md5, now.adler32, now.state) == (size, None, '0000000a', 'A')
    assert kept.usage() == {('alice', kept.rse_id): (2, 10 + size), ('bob', kept.rse_id): (3, 10 + 2 * size), kept.rse_id: (2, 10 + size)}
    kept.agree()
    kept.judge()
    assert kept.row(models.CollectionReplica, 'run1').available_bytes == 10 + size
    assert kept.row(models.CollectionReplica, 'run1').bytes == 10 + size
    assert kept.replace('run1/file', 10) is None  # also from nothing
    kept.agree()


def test_replace_adds_up_closed_datasets(kept):
    with kept.writing() as session:
        did.set_status(SCOPE, 'run1', open=False, session=session)
    assert kept.row(models.DataIdentifier, 'run1').bytes == 20
    assert kept.replace('run1/file', 15) is None
    assert kept.row(models.DataIdentifier, 'run1').bytes == 25
    assert {row['bytes'] for row in kept.rows(models.DatasetLock, name='run1') if row['bytes'] is not None} <= {25}
    assert kept.row(models.DataIdentifier, 'run1').length == 2


def test_replace_keeps_what_nobody_locks(here):
    here.add_dataset('run1')
    here.register('run1/file')
    here.change(models.RSEFileAssociation, {'name': 'run1/file'}, tombstone=records.utcnow() - timedelta(days=1))
    with here.writing() as session:
        replica.declare_bad_file_replicas([{'scope': SCOPE, 'name': 'run1/file', 'rse_id': here.rse_id}], '', ROOT, BadFilesStatus.SUSPICIOUS, session=session)
    assert here.replace('run1/file') is None
    assert here.row(models.RSEFileAssociation, 'run1/file').tombstone is None
    assert here.row(models.BadReplica, 'run1/file').state == BadFilesStatus.RECOVERED
    here.agree()


def test_replace_leaves_the_tombstone_of_what_is_locked(kept):
    kept.change(models.RSEFileAssociation, {'name': 'run1/file'}, tombstone=records.utcnow())
    assert kept.replace('run1/file') is None
    assert kept.row(models.RSEFileAssociation, 'run1/file').tombstone is not None


def test_replace_is_for_the_only_replica(kept):
    kept.add_copy('run1/file')
    assert kept.replace('run1/file').kind == 'copies'
    assert kept.row(models.DataIdentifier, 'run1/file').bytes == 10
    kept.agree()


def test_replace_makes_good_what_was_declared_bad_here(here):
    """What was declared elsewhere, and what was lost or deleted, is as it was."""
    here.register('run1/file', 'run1/other')
    places = [('run1/file', here.rse_id), ('run1/other', here.rse_id), ('run1/file', here.other)]
    with here.writing() as session:
        for number, ((name, rse_id), state) in enumerate(product(places, BadFilesStatus)):
            declared = records.utcnow() - timedelta(days=number)
            session.add(models.BadReplica(scope=SCOPE, name=name, rse_id=rse_id, state=state, account=ROOT, created_at=declared))
    before = {row['state'] for row in here.rows(models.BadReplica)}
    assert here.replace('run1/file') is None
    for name, rse_id in places:
        states = [row['state'] for row in here.rows(models.BadReplica, name=name, rse_id=rse_id)]
        assert len(states) == len(before)
        assert set(states) == before - ({BadFilesStatus.BAD, BadFilesStatus.SUSPICIOUS} if (name, rse_id) == places[0] else set())


@pytest.mark.parametrize('act', ['replace', 'forget', 'declare_bad', 'declare_lost'])
@pytest.mark.parametrize(
    ('model', 'values'),
    [
        (models.DataIdentifier, {'bytes': 11}),
        (models.DataIdentifier, {'md5': OTHER_SUM}),
        (models.DataIdentifier, {'adler32': '00000001'}),
        (models.RSEFileAssociation, {'state': ReplicaState.BEING_DELETED}),
        (models.RSEFileAssociation, {'state': ReplicaState.BAD}),
        (models.DidMeta, {'meta': '{}'}),
    ],
)
def test_what_was_seen_is_not_true_any_more(here, act, model, values):
    here.register('run1/file', etag='abc-2')
    here.judge()
    seen = here.seen('run1/file')
    here.change(model, {'name': 'run1/file'}, **values)
    before = [here.rows(each) for each in (models.DataIdentifier, models.RSEFileAssociation, models.ReplicaLock, models.DidMeta)]
    assert acted(here, act, seen) == ['changed']
    assert before == [here.rows(each) for each in (models.DataIdentifier, models.RSEFileAssociation, models.ReplicaLock, models.DidMeta)]


def acted(here, act, seen):
    """The kinds of what was refused."""
    if act == 'replace':
        refused = updates.replace(here.subtree, seen, NewFile(seen.name, 77))
        return [refused.kind] if refused else []
    reason = ('for a test',) if act.startswith('declare') else ()
    count, refusals = getattr(updates, act)(here.subtree, [seen], *reason)
    assert count + len(refusals) in (0, 1)
    return [each.kind for each in refusals]


@pytest.mark.parametrize(('act', 'kinds'), [('replace', ['gone']), ('forget', []), ('declare_bad', [])])
def test_what_is_gone_already(here, act, kinds):
    here.register('run1/file')
    seen = here.seen('run1/file')
    here.forget('run1/file')
    assert acted(here, act, seen) == kinds


@pytest.mark.parametrize('act', ['replace', 'forget', 'declare_bad'])
def test_what_rucio_is_transferring(here, act):
    here.register('run1/file')
    add_request(here, 'run1/file', here.rse_id)
    assert acted(here, act, here.seen('run1/file')) == ['busy']
    assert here.rows(models.RSEFileAssociation)
    here.add_copy('run1/file')
    assert acted(here, act, here.seen('run1/file')) == ['busy']


@pytest.mark.parametrize('act', ['forget', 'declare_bad'])
def test_what_rucio_is_copying_to_another_rse(here, act):
    """It may be read from here, unless there is another replica."""
    here.register('run1/file')
    add_request(here, 'run1/file', here.other)
    assert acted(here, act, here.seen('run1/file')) == ['busy']
    here.add_copy('run1/file')
    assert acted(here, act, here.seen('run1/file')) == []


@pytest.mark.parametrize('act', ['replace', 'forget', 'declare_bad'])
def test_what_is_lost(here, act):
    here.register('run1/file')
    here.change(models.DataIdentifier, {'name': 'run1/file'}, availability=DIDAvailability.LOST)
    assert acted(here, act, here.seen('run1/file')) == ['conflict']


# Objects that are gone


@pytest.mark.parametrize('size', [10, 0])
def test_forget(here, size):
    here.add_dataset('all', DIDType.CONTAINER)
    here.add_dataset('run1', within='all')
    here.register('run1/file', size=size, etag='abc-2')
    here.register('run1/other')
    for name, owner in (('run1', BOB), ('all', ALICE), ('run1/file', BOB)):
        here.add_rule(name, owner)
    with here.writing() as session:
        did.add_dids_to_followed([{'scope': SCOPE, 'name': 'run1/file'}], BOB, session=session)
    here.judge()
    assert here.forget('run1/file') == (1, [])
    for model in (models.DataIdentifier, models.RSEFileAssociation, models.ReplicaLock, models.ReplicationRule, models.DidMeta):
        assert not here.rows(model, name='run1/file')
    assert here.usage() == {('alice', here.rse_id): (1, 10), ('bob', here.rse_id): (1, 10), here.rse_id: (1, 10)}
    here.agree()
    (history,) = here.rows(models.DataIdentifierAssociationHistory)
    assert (history['child_name'], history['deleted_at'] is not None) == ('run1/file', True)
    here.judge()
    here.agree()
    assert here.row(models.CollectionReplica, 'run1').length == 1
    # The name is free.
    assert here.register('run1/file', size=3, md5=OTHER_SUM) == (1, [])
    here.judge()
    here.agree()
    assert here.usage()['bob', here.rse_id] == (2, 13)


@pytest.mark.parametrize('closed', [False, True])
def test_forget_all_of_a_dataset(here, closed):
    here.register(*(f'run1/{number}' for number in range(5)))
    here.judge()
    if closed:
        with here.writing() as session:
            did.set_status(SCOPE, 'run1', open=False, session=session)
    assert here.forget(*(f'run1/{number}' for number in range(5))) == (5, [])
    assert here.row(models.DataIdentifier, 'run1').is_open is not closed
    assert here.row(models.ReplicationRule, 'run1').locks_ok_cnt == 0
    here.judge()
    here.agree()
    assert here.usage() == {}
    if not closed:
        here.register('run1/0')
        here.judge()
        assert here.row(models.CollectionReplica, 'run1').available_replicas_cnt == 1


@pytest.mark.parametrize('state', [LockState.REPLICATING, LockState.STUCK])
@pytest.mark.parametrize('before', [RuleState.REPLICATING, RuleState.STUCK, RuleState.SUSPENDED, RuleState.OK])
def test_forget_in_all_states_of_a_rule(here, state, before):
    here.register('run1/file', 'run1/other')
    here.judge()
    here.change(models.ReplicaLock, {'name': 'run1/file'}, state=state)
    counts = {'locks_ok_cnt': 1, 'locks_replicating_cnt': int(state == LockState.REPLICATING), 'locks_stuck_cnt': int(state == LockState.STUCK)}
    here.change(models.ReplicationRule, {'name': 'run1'}, state=before, **counts)
    assert here.forget('run1/file') == (1, [])
    after = before if before in (RuleState.STUCK, RuleState.SUSPENDED) else RuleState.OK
    assert here.row(models.ReplicationRule, 'run1').state == after
    here.agree()


def test_a_rule_that_has_all_of_its_locks_tells_of_it(here, rucio_cfg, tmp_path):
    """As Rucio does: by messages, a mail, its history, and to the rule that waits for it. Once."""
    tmp_path.joinpath('rule_ok_notification.tmpl').write_text('$scope:$name')
    rucio_cfg({'policy': {'permission': 'generic', 'schema': 'generic'}, 'common': {'mailtemplatedir': str(tmp_path)}})
    here.register('run1/file', 'run1/other', 'run2/file')
    here.judge()
    moved, made = here.row(models.ReplicationRule, 'run2'), here.row(models.ReplicationRule, 'run1')
    here.change(models.ReplicationRule, {'id': moved.id}, child_rule_id=made.id)
    here.change(models.ReplicaLock, {'name': 'run1/file'}, state=LockState.STUCK)
    here.change(models.DatasetLock, {'name': 'run1'}, state=LockState.STUCK)
    here.change(models.ReplicationRule, {'id': made.id}, state=RuleState.REPLICATING, notification='Y', locks_ok_cnt=1, locks_stuck_cnt=1)
    known, longterm = len(here.rows(models.ReplicationRuleHistoryRecent, id=made.id)), here.rows(models.ReplicationRuleHistory)
    assert here.forget('run1/file') == (1, [])
    told = sorted(row['event_type'] for row in here.rows(models.Message) if row['event_type'].endswith(('_OK', 'email')))
    assert told == ['DATASETLOCK_OK', 'RULE_OK', 'email']
    assert here.row(models.DatasetLock, 'run1').state == LockState.OK
    assert here.row(models.ReplicationRule, 'run2').child_rule_id is None
    assert len(here.rows(models.ReplicationRuleHistoryRecent, id=made.id)) == known + 1
    assert here.rows(models.ReplicationRuleHistory) == longterm
    assert here.forget('run1/other') == (1, [])
    assert len(here.rows(models.Message, event_type='RULE_OK')) == 1, 'it was OK before'


def test_a_rule_that_still_waits_for_others_is_not_ok(here):
    here.register('run1/file', 'run1/second', 'run1/third')
    here.judge()
    for state, key in ((LockState.REPLICATING, 'locks_replicating_cnt'), (LockState.STUCK, 'locks_stuck_cnt')):
        here.change(models.ReplicaLock, {}, state=state)
        counts = {'locks_ok_cnt': 0, 'locks_replicating_cnt': 0, 'locks_stuck_cnt': 0} | {key: len(here.rows(models.ReplicaLock))}
        here.change(models.ReplicationRule, {'name': 'run1'}, state=RuleState.REPLICATING, **counts)
        assert here.forget(here.rows(models.ReplicaLock)[0]['name']) == (1, [])
        assert here.row(models.ReplicationRule, 'run1').state == RuleState.REPLICATING
        here.agree()


def test_a_rule_of_somebody_else_for_a_dataset_with_the_name_of_the_file_stays(here):
    """Whether it is locked or not: it is no rule of the file."""
    here.register('file', 'other')
    theirs = InternalScope('user.bob')
    with here.writing() as session:
        scope.add_scope(theirs, BOB, session=session)
        did.add_did(theirs, 'file', DIDType.DATASET, BOB, session=session)
        did.attach_dids(theirs, 'file', [{'scope': SCOPE, 'name': name} for name in ('file', 'other')], BOB, session=session)
        wanted = [{'scope': theirs, 'name': 'file'}]
        settings = {'copies': 1, 'grouping': 'DATASET', 'weight': None, 'lifetime': None, 'locked': True, 'subscription_id': None}
        made = rule.add_rule(wanted, BOB, rse_expression=here.rse, ignore_account_limit=True, session=session, **settings)
    here.judge()
    assert here.forget('file') == (1, [])
    assert [(row['id'], row['locks_ok_cnt']) for row in here.rows(models.ReplicationRule, scope=theirs)] == [(made[0], 1)]


def test_a_rule_for_a_file_that_stays_on_another_rse_stays(here):
    here.add_dataset('run1')
    here.register('run1/file')
    here.add_copy('run1/file')
    made = here.add_rule('run1/file', BOB, rse=here.other_rse)
    assert here.forget('run1/file') == (1, [])
    assert [row['id'] for row in here.rows(models.ReplicationRule)] == [made]
    assert [row['rse_id'] for row in here.rows(models.ReplicaLock)] == [here.other]
    here.agree()


@ON_SQLITE
def test_rules_are_locked_in_the_order_of_their_ids(here, database):
    """Else two that lock the same ones may wait for each other."""
    here.register('run1/file')
    here.judge()
    statements = []
    event.listen(database, 'before_cursor_execute', lambda *arguments: statements.append(arguments[2]))
    assert here.forget('run1/file') == (1, [])
    assert next(text for text in statements if 'FROM rules' in text and 'WHERE rules.id IN' in text).rstrip().endswith('ORDER BY rules.id')


@ON_SQLITE
@pytest.mark.parametrize('rse', ['none', 'one'])
def test_files_are_looked_up_by_their_names(here, database, rse):
    """And no other rows are read, however many there are: SQLite knows nothing of their number."""
    here.register('run1/a', 'run1/b', 'run1/c')
    statements, names = [], ['run1/a', 'run1/b']
    event.listen(database, 'before_cursor_execute', lambda *arguments: statements.append(arguments[2:4]))
    with rucio_session.db_session(DatabaseOperationType.READ) as session:
        found = records.look_up(here.rse_id if rse == 'one' else None, SCOPE, names, session=session)
        assert [(each.name, each.state, each.rse_id) for each in found] == [
            (name, *((ReplicaState.AVAILABLE, here.rse_id) if rse == 'one' else (None, None))) for name in names
        ]
        assert [*records.readable(SCOPE, names, session=session)] == names
    with database.connect() as connection:
        plans = [row[-1] for statement in [*statements] for row in connection.exec_driver_sql(f'EXPLAIN QUERY PLAN {statement[0]}', statement[1])]
    files = [each for each in plans if 'dids' in each or 'replicas' in each]
    assert len(files) == (3 if rse == 'one' else 2)
    assert all('name=?' in each for each in files)


def test_what_is_gone_already_stops_no_other(here):
    here.register(*(f'run1/{number}' for number in range(3)))
    every = [here.seen(f'run1/{number}') for number in range(3)]
    here.forget('run1/0')
    assert updates.forget(here.subtree, every) == (2, [])


def test_sizes_that_were_never_written_count_as_nothing(here):
    here.register('run1/file', 'run1/gone', size=0)
    here.judge()
    for model in (models.ReplicaLock, models.DataIdentifierAssociation):
        here.change(model, {}, bytes=None)
    here.change(models.DataIdentifier, {'name': 'run1'}, bytes=0)
    assert here.replace('run1/file', 77) is None
    assert here.row(models.DataIdentifier, 'run1').bytes == 77
    assert here.forget('run1/gone') == (1, [])
    assert here.usage() == {('alice', here.rse_id): (1, 77), here.rse_id: (1, 77)}


def test_forget_what_nobody_locks(here):
    here.add_dataset('run1')
    here.register('run1/file')
    assert here.forget('run1/file') == (1, [])
    here.agree()


def test_forget_one_of_several_replicas(here):
    here.register('run1/locked')
    here.judge()
    here.add_dataset('run2')
    here.register('run2/free')
    for name in ('run1/locked', 'run2/free'):
        here.add_copy(name)
    count, (refused,) = here.forget('run1/locked', 'run2/free')
    assert (count, refused.kind, refused.name) == (1, 'copies', 'run1/locked')
    assert [row['rse_id'] for row in here.rows(models.RSEFileAssociation, name='run2/free')] == [here.other]
    assert here.row(models.DataIdentifier, 'run2/free').bytes == 10
    assert here.rows(models.DataIdentifierAssociation, child_name='run2/free')
    here.agree()


@pytest.mark.parametrize('locked', [True, False])
def test_forget_does_not_break_a_rule_that_is_locked_or_being_moved(here, locked):
    here.register('run1/a', 'run1/b', 'run1/c')
    here.judge()
    made, other = here.add_rule('run1/a', BOB, locked=locked), here.add_rule('run1/b', BOB)
    if not locked:
        here.change(models.ReplicationRule, {'id': made}, child_rule_id=other)
    count, (refused,) = here.forget('run1/a', 'run1/c')
    assert (count, refused.kind, refused.name) == (1, 'locked', 'run1/a')
    here.agree()


def test_forget_one_by_one_where_one_cannot_go(here, monkeypatch):
    here.register('run1/a', 'run1/b', 'run1/c')
    here.judge()
    delete = updates.delete_replicas

    def refuse(rse_id, files, *, session):
        if 'run1/b' in [file['name'] for file in files]:
            raise UnsupportedOperation('Not this one.\nBecause.')
        delete(rse_id=rse_id, files=files, session=session)

    monkeypatch.setattr(updates, 'delete_replicas', refuse)
    count, (refused,) = here.forget('run1/a', 'run1/b', 'run1/c')
    assert (count, refused.kind, refused.name) == (2, 'failed', 'run1/b')
    assert 'Not this one. Try again' in refused.found
    here.agree()


def test_forget_an_archive_and_what_is_in_it(here):
    here.register('run1/a.zip', 'run1/inside')
    with here.writing() as session:
        did.attach_dids(SCOPE, 'run1/a.zip', [{'scope': SCOPE, 'name': 'run1/inside', 'bytes': 10}], ALICE, session=session)
    here.judge()
    assert here.forget('run1/inside')[1][0].kind == 'copies'  # it is in the archive, too
    assert here.forget('run1/a.zip') == (1, [])
    assert not here.rows(models.ConstituentAssociation)
    here.agree()


# Files that their owner wants to delete


def test_an_owner_may_delete_what_only_the_owner_needs(here):
    here.add_dataset('all', DIDType.CONTAINER)
    here.add_dataset('run1', within='all')
    here.register('run1/file', 'run1/other', 'alone')
    here.add_rule('all', ALICE)
    here.add_rule('run1/file', ALICE)
    here.judge()
    before = here.rows(models.RSEFileAssociation)
    seen = [here.seen(name) for name in ('run1/file', 'run1/other', 'alone')]

    assert updates.find_kept(here.subtree, seen, ALICE) == []
    assert here.rows(models.RSEFileAssociation) == before
    assert here.forget('run1/file', 'run1/other', 'alone') == (3, [])
    here.agree()


@pytest.mark.parametrize('judged', [True, False])
@pytest.mark.parametrize('of', ['run1', 'run1/file', 'all'])
def test_nobody_deletes_what_a_rule_of_somebody_else_keeps(here, of, judged):
    here.add_dataset('all', DIDType.CONTAINER)
    here.add_dataset('run1', within='all')
    here.register('run1/file', 'alone')
    made = here.add_rule(of, BOB, asynchronous=not judged and of != 'all')  # such a rule has no locks before Rucio's judge has seen it
    assert bool(here.rows(models.ReplicaLock, rule_id=made)) == (judged or of == 'all')

    (refused,) = updates.find_kept(here.subtree, [here.seen('run1/file'), here.seen('alone')], ALICE)

    assert (refused.kind, refused.name) == ('locked', 'run1/file')
    assert f'the rule {made} of account bob keeps it' in refused.found
    assert updates.find_kept(here.subtree, [here.seen('run1/file')], BOB) == []


def test_nobody_deletes_what_a_dataset_of_somebody_else_contains(here):
    here.register('file', 'other')
    theirs = InternalScope('user.bob')
    with here.writing() as session:
        scope.add_scope(theirs, BOB, session=session)
        did.add_did(theirs, 'run1', DIDType.DATASET, BOB, session=session)
        did.attach_dids(theirs, 'run1', [{'scope': SCOPE, 'name': 'file'}], BOB, session=session)

    (refused,) = updates.find_kept(here.subtree, [here.seen('file'), here.seen('other')], ALICE)

    assert refused.name == 'file'
    assert 'the dataset user.bob:run1 contains it' in refused.found


def test_one_of_several_replicas_is_deleted_unless_a_rule_keeps_it(here):
    here.register('locked')
    here.judge()
    here.add_dataset('run1')
    here.register('run1/free')
    for name in ('locked', 'run1/free'):
        here.add_copy(name)

    (refused,) = updates.find_kept(here.subtree, [here.seen('locked'), here.seen('run1/free')], ALICE)

    assert (refused.name, 'a rule keeps this one' in refused.found) == ('locked', True)


# Bad and lost


def test_declare_bad(here):
    here.register('run1/file', 'run1/empty')
    here.change(models.DataIdentifier, {'name': 'run1/empty'}, bytes=0)
    here.change(models.RSEFileAssociation, {'name': 'run1/empty'}, bytes=0)
    count, (refused,) = updates.declare_bad(here.subtree, [here.seen('run1/file'), here.seen('run1/empty')], 'x' * 300)
    assert (count, refused.kind, refused.name) == (1, 'empty', 'run1/empty')
    assert here.row(models.RSEFileAssociation, 'run1/file').state == ReplicaState.BAD
    row = here.row(models.BadReplica, 'run1/file')
    assert (row.state, row.account, len(row.reason)) == (BadFilesStatus.BAD, ROOT, 255)


def test_an_empty_file_with_another_replica_is_declared(here):
    here.register('run1/empty', size=0)
    here.add_copy('run1/empty')
    assert updates.declare_bad(here.subtree, [here.seen('run1/empty')], '') == (1, [])


def test_declare_what_was_declared_before(here):
    here.register('run1/file')
    updates.declare_lost(here.subtree, [here.seen('run1/file')], 'first')
    here.change(models.RSEFileAssociation, {'name': 'run1/file'}, state=ReplicaState.AVAILABLE)
    assert updates.declare_lost(here.subtree, [here.seen('run1/file')], 'second') == (1, [])
    assert here.row(models.RSEFileAssociation, 'run1/file').state == ReplicaState.BAD


# The database


@contextmanager
def broken(engine, times, *, after=0):
    """The next statements that write, but the first few, meet a database that does not work."""
    met = []

    def refuse(_connection, _cursor, statement, *_):
        if statement.startswith(('INSERT', 'DELETE')):
            met.append(statement)
            if after < len(met) <= after + times:
                raise OperationalError(statement, None, Exception('database is locked'))

    event.listen(engine, 'before_cursor_execute', refuse)
    try:
        yield met
    finally:
        event.remove(engine, 'before_cursor_execute', refuse)


def test_a_dataset_has_its_rule_whichever_statement_fails(here, database):
    """Rucio tells of some errors of the database as of any other: they are none of the dataset."""
    with broken(database, 0) as statements:
        here.register('run/file')
    for number in range(len(statements)):
        with broken(database, 1, after=number):
            assert here.register(f'run{number}/file') == (1, []), statements[number]
    here.judge()
    here.agree()


def test_a_dataset_is_not_made_without_its_rule_where_the_database_fails(here, database):
    with broken(database, records.MAX_TRIES), pytest.raises(DatabaseException, match='database is locked'):
        here.register('run1/file')
    assert here.rows(models.DataIdentifier) == []


@pytest.mark.parametrize('failure', [records.Collision, DatabaseException])
def test_a_transaction_is_tried_three_times(here, failure):
    tried = []

    def work(_):
        tried.append(1)
        if len(tried) < 3:
            raise failure('again')
        return 'done'

    assert records.run_transaction(work) == 'done'
    work = mock.Mock(side_effect=failure('again'))
    with pytest.raises(failure):
        records.run_transaction(work)
    assert work.call_count == 3
    work = mock.Mock(side_effect=UnsupportedOperation('never'))
    with pytest.raises(UnsupportedOperation):
        records.run_transaction(work)
    assert work.call_count == 1


@pytest.mark.parametrize(
    ('error', 'text'),
    [(Exception('It fails.\nBecause.'), 'It fails'), (KeyError(), ''), (ValueError(3, 4), '3'), (RucioException('No RSE X.'), 'No RSE X')],
)
def test_an_error_in_a_sentence(error, text):
    assert records.error_text(error) == text


@ON_SQLITE
def test_nobody_else_writes_from_the_beginning_of_a_transaction(here, database):
    """What it reads stays true until it has written."""

    def work(_):
        with closing(sqlite3.connect(database.url.database, timeout=0)) as other, pytest.raises(sqlite3.OperationalError, match='locked'):
            other.execute('BEGIN IMMEDIATE')
        return 'done'

    assert records.run_transaction(work) == 'done'


@ON_SQLITE
def test_a_conflict_that_only_the_end_of_a_transaction_shows(here):
    tried = []

    def work(session):
        tried.append(session.add(models.Scope(scope=SCOPE, account=ALICE)))

    with pytest.raises(records.Collision, match='UNIQUE'):
        records.run_transaction(work)
    assert len(tried) == 3


def test_a_database_that_recovers(here, database):
    here.register('run1/file', 'run1/gone')
    here.judge()
    with broken(database, 1):
        assert here.register('run1/second') == (1, [])
    with broken(database, 1):
        assert here.replace('run1/file') is None
    with broken(database, 2):
        assert here.forget('run1/gone') == (1, [])
    here.judge()
    here.agree()


def test_all_or_nothing(here, database):
    here.register('run1/file', 'run1/gone')
    here.judge()
    seen = here.seen('run1/gone')
    count = len(here.query(select(func.count()).select_from(models.RSEFileAssociation)))
    for act in (lambda: here.register('run1/second', 'lone'), lambda: here.replace('run1/file'), lambda: updates.forget(here.subtree, [seen])):
        with broken(database, 1000), pytest.raises(Exception, match='database is locked'):
            act()
    assert len(here.query(select(func.count()).select_from(models.RSEFileAssociation))) == count
    here.agree()
