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

"""Runs of the reconciler: a fake S3, and a catalogue in a file. What the acts do to the catalogue's rows is test_catalogue.py's."""

import hashlib
import re
import threading
import time
import zlib
from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone
from itertools import pairwise
from types import SimpleNamespace
from unittest import mock
from uuid import uuid4

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy import event, select, update

from rucio.cli.s3 import reconcile
from rucio.common.exception import DatabaseException, ServiceUnavailable, SourceNotFound, UnsupportedOperation
from rucio.common.s3.settings import Secrets
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import account, account_limit, rse, scope
from rucio.core.s3 import storages
from rucio.core.s3.catalogue import registration, updates
from rucio.core.s3.catalogue.records import NewFile, Refusal
from rucio.core.s3.reconciler import budget as budget_module
from rucio.core.s3.reconciler import checksums, listings, settle, walk
from rucio.core.s3.reconciler.budget import Budget
from rucio.core.s3.reconciler.compare import Finding, Kind
from rucio.core.s3.reconciler.listings import Unsorted
from rucio.core.s3.reconciler.settle import Settler
from rucio.core.s3.reconciler.summary import COUNTS, Problem, Summary
from rucio.core.s3.reconciler.walk import Reconciler, ranges
from rucio.core.s3.subtrees import Subtree
from rucio.db.sqla import models
from rucio.db.sqla.constants import AccountType, DatabaseOperationType, DIDType, ReplicaState
from rucio.db.sqla.session import db_session
from servers import fake_s3

BUCKET = 'user.alice'
SCOPE, ALICE, ROOT = InternalScope('user.alice'), InternalAccount('alice'), InternalAccount('root')
TB = 10**12


class World:
    """Alice's bucket, and what the catalogue says of it."""

    def __init__(self, s3, storage):
        self.s3 = s3
        self.storage = storage

    def store(self, *keys, body=b'abc', **changes):
        for key in keys:
            self.s3.store(BUCKET, key, body, **changes)

    def delete(self, *keys):
        for key in keys:
            del self.s3.buckets[BUCKET][key]

    def subtree(self, name=''):
        return Subtree.of(self.storage, SCOPE, name)

    def run(self, name='', span=(), **options):
        """One run over all."""
        made = Reconciler(self.subtree(name), **options)
        assert made.run(*span) is None
        return made.summary

    def check(self, *keys, **options):
        made = Reconciler(self.subtree(), **options)
        made.check(keys)
        return made.summary

    def files(self):
        """Name -> size and MD5 of each replica that is available."""
        return {each.name: (each.bytes, each.md5) for each in listings.replicas(self.subtree()) if each.state == 'A'}

    def bucket(self):
        return {key: (len(each.body), hashlib.md5(each.body).hexdigest()) for key, each in self.s3.buckets[BUCKET].items()}

    def etags(self):
        return {each.name: each.etag for each in listings.replicas(self.subtree())}

    def change(self, name, **values):
        with db_session(DatabaseOperationType.WRITE) as session:
            session.execute(update(models.RSEFileAssociation).filter_by(name=name).values(**values))

    def dids(self):
        with db_session(DatabaseOperationType.READ) as session:
            rows = session.execute(select(models.DataIdentifier.name, models.DataIdentifier.did_type)).all()
        return {row.name for row in rows if row.did_type == DIDType.FILE}, {row.name for row in rows if row.did_type == DIDType.DATASET}


@pytest.fixture
def settings_of(rse):
    return rse


@pytest.fixture
def here(database, s3, endpoint, settings_of):
    name = f'R{uuid4().hex[:10].upper()}'  # Rucio remembers RSEs by their names
    with db_session(DatabaseOperationType.WRITE) as session:
        session.add(models.VO(vo='def', description='', email=''))
        session.flush()
        for each in (ALICE, ROOT):
            account.add_account(each, AccountType.USER, 'nobody@localhost', session=session)
        scope.add_scope(SCOPE, ALICE, session=session)
        rse_id = rse.add_rse(name, session=session)
        account_limit.set_local_account_limit(ALICE, rse_id, TB, session=session)
    described = endpoint(rse=name, rse_id=rse_id, secrets=Secrets('key', 'secret'), etag_is_md5=True, sorted_listing=True)
    settings = settings_of(s3.url, rse=name, id=rse_id, staging_area=False, volatile=False)
    return World(s3, storages.Storage(name, rse_id, 'def', described, settings, settings['protocols'][0]))


def counted(summary, *without):
    return {kind: count for kind, count in summary.counts.items() if count and kind not in ('listed', 'bytes', *without)}


def only(summary):
    (problem,) = summary.problems
    return problem


# Odd objects


@pytest.mark.parametrize('field', ['Size', 'LastModified'])
@pytest.mark.parametrize('options', [{}, {'on_missing': 'forget', 'on_changed': 'replace'}], ids=['report', 'act'])
def test_one_odd_object_is_named_and_stops_no_other(here, monkeypatch, field, options):
    """A listing that lacks a field of one object ended each run of the whole bucket."""
    here.store('run1/known')
    here.run()
    here.store('run1/a', 'run1/odd', 'run1/z')
    before, plain = here.files(), fake_s3._entry
    odd = ('run1/known', 'run1/odd')
    monkeypatch.setattr(fake_s3, '_entry', lambda key, *each: re.sub(f'<{field}>.*</{field}>', '', plain(key, *each)) if key in odd else plain(key, *each))
    summary = here.run(**options)
    assert counted(summary) == {'new': 2, 'registered': 2, 'unreadable': 2}
    assert [(each.kind, each.key) for each in summary.problems] == [('unreadable', key) for key in odd]
    assert set(here.files()) == {*before, 'run1/a', 'run1/z'}


def test_an_object_whose_head_has_no_size_is_named_and_stops_no_other(here, monkeypatch):
    monkeypatch.setattr(checksums.objects, 'head', lambda _, target, real=checksums.objects.head: {} if target.key == 'run1/odd' else real(_, target))
    here.store('run1/a', 'run1/odd', 'run1/z', etag='e-2', crc32='')
    summary = here.run()
    assert set(here.files()) == {'run1/a', 'run1/z'}
    assert (only(summary).kind, only(summary).key) == ('failed', 'run1/odd')
    assert 'the answer cannot be read' in only(summary).found
    assert 'KeyError' not in only(summary).found


# From empty, and again


def test_new_objects(here):
    here.store('run1/a', 'run1/deep/b', 'run2/c', 'd')
    here.store('run1/empty', body=b'')
    summary = here.run()
    assert counted(summary) == {'new': 5, 'registered': 5}
    assert (summary.counts['listed'], summary.counts['bytes']) == (5, 12)
    assert here.files() == here.bucket()
    assert here.dids() == ({'run1/a', 'run1/deep/b', 'run1/empty', 'run2/c', 'd'}, {'run1', 'run2'})
    assert summary.problems == []
    assert set(here.s3.operations()) == {'ListObjectsV2'}  # the ETags are MD5s
    assert counted(here.run()) == {'same': 5}


def test_only_below_a_collection(here):
    here.store('run1/a', 'run10/b', 'run0/c')
    assert counted(here.run('run1')) == {'new': 1, 'registered': 1}
    assert set(here.files()) == {'run1/a'}


def test_chunks(here, monkeypatch):
    monkeypatch.setattr(walk, 'REGISTER_CHUNK', 3)
    here.store(*(f'run1/{number}' for number in range(10)))
    with mock.patch.object(registration, 'register', wraps=registration.register) as register:
        assert here.run().counts['registered'] == 10
    assert [len(call.args[1]) for call in register.call_args_list] == [3, 3, 3, 1]


def test_what_has_to_be_looked_at_again_comes_in_chunks_as_well(here, monkeypatch):
    in_parts(here, *(f'run1/{number}' for number in range(7)), body=b'abc')
    for number in range(7):
        registered(here, f'run1/{number}', b'abc')
    monkeypatch.setattr(walk, 'REGISTER_CHUNK', 3)
    with mock.patch.object(Settler, 'note', autospec=True, side_effect=Settler.note) as note:
        here.run()
    assert [len(call.args[1]) for call in note.call_args_list] == [3, 3, 1]
    here.delete(*(f'run1/{number}' for number in range(5)))
    monkeypatch.setattr(walk, 'RECHECK_CHUNK', 2)
    with mock.patch.object(Settler, 'settle', autospec=True, side_effect=Settler.settle) as settle:
        here.run()
    assert [len(call.args[1]) for call in settle.call_args_list] == [2, 2, 1]


def test_what_is_no_file(here):
    here.store('run1/', body=b'')
    here.store('run1/a.rucio.upload', 'run1/a b', 'run1/+')
    summary = here.run()
    assert counted(summary) == {'marker': 1, 'leftover': 1, 'unnameable': 2}
    assert [problem.did for problem in summary.problems] == ['user.alice:run1/+', 'user.alice:run1/a b']
    assert 'no DID can have this name' in summary.problems[0].found
    assert summary.problems[0].remedy.startswith('Rename it')
    assert here.files() == {}
    assert counted(here.run()) == counted(summary)


def test_a_name_that_is_a_dataset(here):
    here.store('run1/a')
    here.run()
    here.store('run1')
    problem = only(here.run())
    assert (problem.kind, problem.did) == ('conflict', 'user.alice:run1')
    assert problem.remedy


def test_a_dry_run_writes_nothing(here, database):
    here.store('run1/same', 'run1/changed', 'run1/missing', 'run1/uploading', 'run1/parts')
    here.run()
    here.change('run1/uploading', state=ReplicaState.COPYING)
    here.store('run1/changed', body=b'abcd')
    here.store('run1/new')
    here.store('run1/parts', etag='x-2', modified=time.time() + 10)
    here.delete('run1/missing')
    in_parts(here, 'run1/own', 'run1/unread', modified=time.time() - 10)
    registered(here, 'run1/own', b'x' * 100)
    registered(here, 'run1/unread', b'x' * 100, md5=None)
    here.s3.requests.clear()
    writing = []
    event.listen(database, 'before_cursor_execute', lambda *arguments: writing.append(arguments[2]))
    summary = here.run(dry_run=True, on_changed='replace', on_missing='forget')
    assert counted(summary) == {'same': 2, 'new': 1, 'changed': 1, 'missing': 1, 'completed': 1, 'unproven': 1, 'no-checksum': 1}
    assert {statement.split()[0] for statement in writing} == {'SELECT'}
    assert set(here.s3.operations()) <= {'ListObjectsV2', 'HeadObject', 'HeadBucket'}


# Changed


def test_changed_is_reported(here):
    here.store('run1/a', 'run1/b')
    here.run()
    before = here.files()
    here.store('run1/a', body=b'abcd')
    here.store('run1/b', body=b'abd')
    summary = here.run()
    assert counted(summary) == {'changed': 2}
    assert here.files() == before
    first, second = summary.problems
    assert (first.kind, first.did, first.key) == ('changed', 'user.alice:run1/a', 'run1/a')
    assert first.found == f"RSE {here.storage.rse}, bucket 'user.alice', key 'run1/a': the object has 4 bytes, the catalogue says 3."
    assert 'rucio s3 reconcile user.alice:run1 --on-changed replace' in first.remedy
    assert 'different content' in second.found


def test_changed_is_replaced(here):
    here.store('run1/a', 'run1/b')
    here.run()
    here.store('run1/a', body=b'abcd')
    here.store('run1/b', body=b'x' * 7, etag='y-2')
    assert counted(here.run(on_changed='replace')) == {'changed': 2, 'replaced': 2}
    assert here.files() == here.bucket()
    assert counted(here.run(on_changed='replace')) == {'same': 2}


def test_changed_is_declared_bad(here):
    here.store('run1/a', 'run1/b')
    here.run()
    here.store('run1/a', body=b'abcd')
    assert counted(here.run(on_changed='bad')) == {'same': 1, 'changed': 1, 'bad': 1}
    assert set(here.files()) == {'run1/b'}
    assert counted(here.run(on_changed='bad')) == {'same': 1, 'busy': 1}


def test_what_is_no_longer_changed_when_it_is_looked_at(here):
    """A listing may be late."""
    here.store('run1/a')
    here.run()
    late = lambda *_: iter([listings.Entry('run1/a', 4, 'x', 0)])  # noqa: E731
    assert counted(here.run(lister=late, on_changed='replace')) == {'same': 1}


@pytest.mark.parametrize('change', ['new', 'no checksum', 'unproven', 'changed'])
def test_what_there_is_no_time_for_is_done_by_the_next_runs(here, change):
    """Each does one object, of which the next one finds nothing."""
    names = [f'run1/{number}' for number in range(4)]
    here.store('run0/a', 'run2/z')
    if change == 'changed':
        here.store(*names)
        here.run()
        in_parts(here, *names, body=b'another one')
    else:
        in_parts(here, *names, modified=time.time() + 10)
    if change == 'no checksum':
        here.run(read_checksums=False)
    elif change == 'unproven':
        for name in names:
            registered(here, name, b'x' * 100)
    made, after, reached = Reconciler(here.subtree(), on_changed='replace'), '', []
    while after is not None:
        reached.append(after)
        after = made.run(after, seconds=0)
    assert reached == ['', *names[:3]] if change != 'new' else len(reached) > 3
    assert here.files() == here.bucket()
    assert {name: bool(etag) for name, etag in here.etags().items()} == {'run0/a': False, 'run2/z': False} | dict.fromkeys(names, True)
    assert made.summary.problems == []
    kind = {'new': 'registered', 'no checksum': 'no-checksum', 'unproven': 'same', 'changed': 'replaced'}[change]
    assert made.summary.counts[kind] >= 4
    assert counted(here.run()) == {'same': 6}


def test_what_changes_under_the_eyes_is_left_for_the_next_run(here):
    here.store('run1/a')
    here.run()
    here.store('run1/a', body=b'abcd')
    real = updates.replace

    def replace(subtree, seen, new):
        here.change('run1/a', bytes=9)
        with db_session(DatabaseOperationType.WRITE) as session:
            session.execute(update(models.DataIdentifier).filter_by(name='run1/a').values(bytes=9))
        return real(subtree, seen, new)

    with mock.patch.object(updates, 'replace', replace):
        summary = here.run(on_changed='replace')
    assert summary.counts['replaced'] == 0
    assert summary.problems == []
    assert counted(here.run(on_changed='replace')) == {'changed': 1, 'replaced': 1}


@pytest.mark.parametrize(('on_changed', 'kept'), [('report', {'run1/a', 'run1/b'}), ('bad', {'run1/b'})])
def test_what_somebody_else_wrote_is_kept_from_the_reaper(here, on_changed, kept):
    """Changed, or perhaps: until somebody has decided. Cached copies of what is the same may go."""
    here.store('run1/a', 'run1/c')
    here.run()
    in_parts(here, 'run1/b', modified=time.time() + 2 * 86400)
    registered(here, 'run1/b', b'x' * 100)
    here.store('run1/a', body=b'abcd')
    for name in ('run1/a', 'run1/b', 'run1/c'):
        here.change(name, tombstone=datetime(2020, 1, 1))  # noqa: DTZ001 - as Rucio's tables have times
    summary = here.run(read_checksums=False, on_changed=on_changed)
    assert (summary.counts['unproven'], summary.counts['changed']) == (1, 1)
    with db_session(DatabaseOperationType.READ) as session:
        assert {row[0] for row in session.execute(select(models.RSEFileAssociation.name).filter_by(tombstone=None))} == kept


def test_what_another_client_wrote_to_the_place_of_an_upload_that_was_abandoned(here):
    here.store('run1/a')
    here.run()
    here.store('run1/a', body=b'another', modified=time.time() - 2 * 86400)
    here.change('run1/a', state=ReplicaState.COPYING, updated_at=datetime(2020, 1, 1))  # noqa: DTZ001
    assert here.files() == {}
    assert counted(here.run(on_changed='replace')) == {'changed': 1, 'replaced': 1}
    assert here.files() == here.bucket()


# ETags that are no MD5


def in_parts(here, *keys, body=b'x' * 100, parts='2', **changes):
    here.store(*keys, body=body, etag=f'{hashlib.md5(body).hexdigest()}-{parts}', **changes)


def test_an_object_in_parts_is_read_once(here):
    in_parts(here, 'run1/a')
    assert counted(here.run()) == {'new': 1, 'registered': 1}
    assert here.s3.operations().count('GetObject') == 1
    assert here.files() == here.bucket()
    here.s3.requests.clear()
    assert counted(here.run()) == {'same': 1}
    assert here.s3.operations() == ['ListObjectsV2']


def test_the_same_content_in_other_parts_is_only_noted(here):
    in_parts(here, 'run1/a')
    here.run()
    in_parts(here, 'run1/a', parts='3')
    assert counted(here.run(on_changed='bad')) == {'same': 1}
    assert here.s3.operations().count('GetObject') == 2
    assert here.etags()['run1/a'].endswith('-3')
    here.s3.requests.clear()
    assert counted(here.run()) == {'same': 1}
    assert here.s3.operations() == ['ListObjectsV2']


@pytest.mark.parametrize('spelled', [str.upper, lambda sum_: sum_.lstrip('0')], ids=['capitals', 'without zeros'])
def test_a_checksum_that_is_only_spelled_differently_is_the_same(here, spelled):
    """Rucio compares so: an intact file must not be declared bad, as the reaper would delete it then."""
    body = next(each for number in range(10_000) if zlib.adler32(each := b'%d' % number) < 0x05000000)
    in_parts(here, 'run1/a', body=body, modified=time.time() + 10)
    registered(here, 'run1/a', body, md5=spelled(hashlib.md5(body).hexdigest()), adler32=spelled(f'{zlib.adler32(body):08x}'))
    assert counted(here.run(on_changed='bad')) == {'same': 1}


def test_another_content_with_as_many_bytes(here):
    in_parts(here, 'run1/a')
    here.run()
    in_parts(here, 'run1/a', body=b'y' * 100)
    assert counted(here.run()) == {'changed': 1}
    assert counted(here.run(on_changed='replace')) == {'changed': 1, 'replaced': 1}
    assert here.files() == here.bucket()


def registered(here, name, body, **values):
    """As `rucio upload` leaves it: nothing noted."""
    file = NewFile(name, len(body), values.pop('md5', hashlib.md5(body).hexdigest()), values.pop('adler32', None))
    assert registration.register(here.subtree(), [file]) == (1, [])
    if values:
        here.change(name, **values)


def test_what_rucio_uploaded_in_parts_is_trusted(here):
    in_parts(here, 'run1/a', modified=time.time() - 10)
    registered(here, 'run1/a', b'x' * 100)
    here.s3.requests.clear()
    assert counted(here.run()) == {'same': 1}
    assert here.s3.operations() == ['ListObjectsV2']
    assert here.etags()['run1/a'] == here.s3.buckets[BUCKET]['run1/a'].etag


@pytest.mark.parametrize(('later', 'kind'), [(86400, 'same'), (86401, 'unproven')])
def test_clocks_may_differ_by_a_day(here, later, kind):
    written = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
    in_parts(here, 'run1/a', modified=written.timestamp() + later)
    registered(here, 'run1/a', b'x' * 100)
    here.change('run1/a', created_at=written.replace(tzinfo=None), updated_at=written.replace(tzinfo=None))
    assert counted(here.run(read_checksums=False)) == {kind: 1}
    assert (here.etags()['run1/a'] is None) is (kind == 'unproven')


def test_what_was_written_after_rucio_is_read(here):
    in_parts(here, 'run1/a', 'run1/b', modified=time.time() + 600)
    registered(here, 'run1/a', b'x' * 100)
    registered(here, 'run1/b', b'y' * 100)
    assert counted(here.run()) == {'same': 1, 'changed': 1}
    assert here.s3.operations().count('GetObject') == 2


def test_nothing_can_be_proven(here):
    in_parts(here, 'run1/a', modified=time.time() + 2 * 86400)
    registered(here, 'run1/a', b'x' * 100)
    summary = here.run(read_checksums=False, on_changed='bad')
    assert counted(summary) == {'unproven': 1}
    assert '--on-changed replace' in only(summary).remedy
    assert counted(here.run(read_checksums=False, on_changed='replace')) == {'changed': 1, 'replaced': 1}
    assert counted(here.run(read_checksums=False, on_changed='replace'), 'no-checksum') == {}


def test_what_may_be_rucios_own_keeps_its_checksums(here):
    """Where nothing is read: the clock of the storage may be ahead."""
    in_parts(here, 'run1/a', modified=time.time() + 10)
    registered(here, 'run1/a', b'x' * 100)
    before = here.files()
    assert counted(here.run(read_checksums=False, on_changed='replace')) == {'same': 1}
    assert here.files() == before


def test_only_so_much_is_read(here):
    in_parts(here, 'run1/a', 'run1/c')
    in_parts(here, 'run1/b', body=b'x' * 150)
    Reconciler(here.subtree()).check(['run1/a', 'run1/b', 'run1/c'], 201)
    files = here.files()
    assert {name for name, (_, md5) in files.items() if md5} == {'run1/a', 'run1/c'}
    assert files['run1/b'] == (150, None)
    assert here.s3.operations().count('GetObject') == 2
    here.run()
    assert here.files() == here.bucket()


def test_what_is_not_read_now_keeps_its_checksums(here):
    in_parts(here, 'run1/a', modified=time.time() + 10)
    registered(here, 'run1/a', b'x' * 100)
    before = here.files()
    looking = Reconciler(here.subtree(), on_changed='replace')
    looking.check(['run1/a'], 99)
    assert looking.summary.counts['unproven'] == 1
    assert looking.summary.counts['changed'] == 0
    assert here.files() == before
    assert counted(here.run(on_changed='replace')) == {'same': 1}


def test_what_was_verified_before_is_not_taken_for_an_upload_of_rucio(here):
    in_parts(here, 'run1/a')
    here.run()
    in_parts(here, 'run1/a', parts='3')
    before = here.etags()
    assert counted(here.run(read_checksums=False)) == {'unproven': 1}
    assert here.etags() == before


@pytest.mark.parametrize('known', [{'md5': '0' * 32}, {'adler32': '00000001'}])
def test_one_checksum_is_better_than_none(here, monkeypatch, known):
    in_parts(here, 'run1/a', modified=time.time() - 10)
    registered(here, 'run1/a', b'x' * 100, md5=None)
    found = lambda _, entries, *__: ((entry, NewFile(entry.key, entry.size, **known)) for entry in entries)  # noqa: E731
    monkeypatch.setattr(checksums, 'compute_checksums', found)
    assert counted(here.run()) == {'no-checksum': 1}
    (replica,) = listings.replicas(here.subtree())
    assert {'md5': replica.md5, 'adler32': replica.adler32} == {'md5': None, 'adler32': None} | known


def test_a_file_without_checksums_gets_them_with_its_etag(here):
    in_parts(here, 'run1/parts', modified=time.time() - 10)
    here.store('run1/plain', body=b'x' * 100)
    for name in ('run1/parts', 'run1/plain'):
        registered(here, name, b'x' * 100, md5=None)
    assert counted(here.run()) == {'no-checksum': 2}
    assert here.files() == here.bucket()
    assert {name: bool(etag) for name, etag in here.etags().items()} == {'run1/parts': True, 'run1/plain': False}


def test_a_checksum_that_cannot_be_compared_replaces_the_one_of_the_catalogue(here, monkeypatch):
    """It is all that is known of the object, whatever may be read in this run."""
    in_parts(here, 'run1/a', modified=time.time() + 10)
    registered(here, 'run1/a', b'x' * 100)
    found = lambda _, entries, *__: ((entry, NewFile(entry.key, entry.size, adler32='00000001')) for entry in entries)  # noqa: E731
    monkeypatch.setattr(checksums, 'compute_checksums', found)
    looking = Reconciler(here.subtree(), on_changed='replace')
    looking.check(['run1/a'], 99)
    assert looking.summary.counts['replaced'] == 1


def test_checksums_later(here):
    in_parts(here, 'run1/a')
    assert counted(here.run(read_checksums=False)) == {'new': 1, 'registered': 1}
    assert here.files() == {'run1/a': (100, None)}
    here.s3.requests.clear()
    assert counted(here.run(read_checksums=False)) == {'no-checksum': 1}
    assert here.s3.operations() == ['ListObjectsV2']
    assert counted(here.run()) == {'no-checksum': 1}
    assert here.files() == here.bucket()
    assert counted(here.run()) == {'same': 1}


# Missing


def test_missing_is_reported(here):
    here.store('run1/a', 'run1/b', 'run1/c')
    here.run()
    here.delete('run1/a', 'run1/c')
    summary = here.run()
    assert counted(summary) == {'same': 1, 'missing': 2}
    assert set(here.files()) == {'run1/a', 'run1/b', 'run1/c'}
    assert [problem.key for problem in summary.problems] == ['run1/a', 'run1/c']
    assert 'rucio s3 reconcile user.alice:run1 --on-missing forget' in summary.problems[0].remedy


def test_missing_is_forgotten(here):
    here.store('run1/a', 'run1/b')
    here.run()
    here.delete('run1/a')
    assert counted(here.run(on_missing='forget')) == {'same': 1, 'missing': 1, 'forgotten': 1}
    assert here.dids()[0] == {'run1/b'}
    here.store('run1/a', body=b'again')
    assert counted(here.run(on_missing='forget')) == {'same': 1, 'new': 1, 'registered': 1}
    assert here.files() == here.bucket()


def test_a_listing_tells_that_the_bucket_is_not_empty(here):
    here.store('run1/a', 'run1/b')
    here.run()
    here.delete('run1/b')
    here.s3.requests.clear()
    assert here.run(on_missing='forget').counts['forgotten'] == 1
    assert here.s3.operations().count('ListObjectsV2') == 1


def test_missing_is_declared_lost(here):
    here.store('run1/a', 'run1/b')
    here.run()
    here.delete('run1/a')
    assert counted(here.run(on_missing='lost')) == {'same': 1, 'missing': 1, 'lost': 1}
    assert set(here.files()) == {'run1/b'}


def test_a_directory_is_deleted(here):
    here.store('run1/a', 'run1/b', 'run2/c')
    here.run()
    here.delete('run1/a', 'run1/b')
    assert here.run('run1', on_missing='forget').counts['forgotten'] == 2
    assert set(here.files()) == {'run2/c'}


def test_what_a_listing_left_out_is_not_missing(here):
    """An eventually consistent one."""
    here.store('run1/a', 'run1/b', 'run1/c')
    here.run()
    left_out = lambda subtree, after, until: (entry for entry in listings.entries(subtree, after, until) if entry.key != 'run1/b')  # noqa: E731
    assert counted(here.run(lister=left_out, on_missing='forget')) == {'same': 3}
    assert set(here.files()) == {'run1/a', 'run1/b', 'run1/c'}


def test_a_bucket_that_does_not_exist(here):
    here.store('run1/a')
    here.run()
    del here.s3.buckets[BUCKET]
    with pytest.raises(SourceNotFound, match='Make it first: rucio s3 make-bucket'):
        here.run(on_missing='forget')
    assert set(here.files()) == {'run1/a'}


def test_an_empty_bucket(here):
    """Another storage at this address, a bucket that was made anew: not everything was deleted one by one."""
    here.store('run1/a', 'run1/b')
    here.run()
    here.delete('run1/a', 'run1/b')
    for options in ({}, {'on_missing': 'forget'}, {'on_missing': 'lost'}, {'on_missing': 'forget', 'span': ('run1/a',)}):
        summary = here.run(**options)
        assert counted(summary) == {'missing': 1 if 'span' in options else 2}
        problem = only(summary)
        assert problem.kind == 'empty-bucket'
        assert 'rucio s3 reconcile user.alice:COLLECTION --on-missing' in problem.remedy
    assert len(here.files()) == 2
    assert here.run(on_missing='forget', even_if_empty=True).counts['forgotten'] == 2
    assert here.files() == {}


def test_a_collection_that_is_all_of_the_bucket_can_be_forgotten(here):
    here.store('run1/a')
    here.run()
    here.delete('run1/a')
    assert here.run('run1', on_missing='forget').counts['forgotten'] == 1


def test_a_range_in_which_there_is_nothing_left(here):
    """The bucket has more, so it is the right one."""
    here.store('run1/a', 'run2/b')
    here.run()
    here.delete('run1/a')
    assert here.run(on_missing='forget', span=('', 'run1/z')).counts['forgotten'] == 1


@pytest.mark.parametrize(
    'fault', [fake_s3.error(500, 'InternalError'), fake_s3.error(403, 'AccessDenied'), fake_s3.Lost(None), fake_s3.Answer(200), fake_s3.Cut()]
)
def test_a_listing_that_fails_in_the_middle(here, monkeypatch, fault):
    """What was before is dealt with; behind it nothing is missing."""
    here.s3.page = 3
    here.store(*(f'run1/{number}' for number in range(9)))
    here.run()
    here.delete('run1/1', 'run1/7')
    here.store('run1/2x')
    serve, calls = here.s3.ListObjectsV2, []

    def page(request):
        calls.append(request)
        return fault if len(calls) > 1 and isinstance(fault, fake_s3.Answer) else serve(request)

    monkeypatch.setattr(here.s3, 'ListObjectsV2', page)
    if not isinstance(fault, fake_s3.Answer):
        real = here.s3.fault_for
        monkeypatch.setattr(here.s3, 'fault_for', lambda operation: fault if operation == 'ListObjectsV2' and calls else real(operation))
    made = Reconciler(here.subtree(), on_missing='forget')
    with pytest.raises(Exception, match='ls of bucket') as caught:
        made.run()
    assert type(caught.value).__module__ == 'rucio.common.exception'
    assert made.summary.counts['forgotten'] == 1
    assert set(here.files()) == {f'run1/{number}' for number in range(9) if number != 1} | ({'run1/2x'} if made.summary.counts['registered'] else set())


def test_a_bucket_that_goes_away_in_the_middle(here):
    here.store('run1/a', 'run1/b')
    here.run()

    def going(subtree, after, until):
        yield from listings.entries(subtree, after, until)
        del here.s3.buckets[BUCKET]

    here.delete('run1/a')
    summary = here.run(lister=going, on_missing='forget')
    assert counted(summary) == {'same': 1, 'failed': 1}
    assert 'Make it first: rucio s3 make-bucket' in only(summary).found
    assert set(here.files()) == {'run1/a', 'run1/b'}


def test_the_storage_does_not_say_whether_it_is_missing(here):
    here.store('run1/a', 'run1/b')
    here.run()
    here.delete('run1/a')
    here.s3.fail('HeadObject', fake_s3.error(503, 'SlowDown'))
    summary = here.run(on_missing='forget')
    assert counted(summary) == {'same': 1, 'failed': 1}
    assert set(here.files()) == {'run1/a', 'run1/b'}


# Rucio at work


def test_an_upload_that_was_never_confirmed(here):
    here.store('run1/a', 'run1/b', 'run1/c')
    here.run()
    for name in ('run1/a', 'run1/b', 'run1/c'):
        here.change(name, state=ReplicaState.COPYING)
    in_parts(here, 'run1/b', body=b'abc')
    here.delete('run1/c')
    assert counted(here.run(on_missing='forget', on_changed='replace')) == {'completed': 1, 'busy': 2}
    assert set(here.files()) == {'run1/a'}
    in_parts(here, 'run1/b', body=b'abc', modified=time.time() - 90_000)
    assert counted(here.run()) == {'same': 1, 'completed': 1, 'busy': 1}


@pytest.mark.parametrize('state', [ReplicaState.BEING_DELETED, ReplicaState.BAD, ReplicaState.UNAVAILABLE, ReplicaState.TEMPORARY_UNAVAILABLE])
def test_what_rucio_deletes_or_repairs_is_left_alone(here, state):
    here.store('run1/a', 'run1/b', 'run1/c')
    here.run()
    for name in ('run1/a', 'run1/b'):
        here.change(name, state=state)
    here.delete('run1/a')
    here.store('run1/b', body=b'another')
    assert counted(here.run(on_missing='forget', on_changed='replace')) == {'same': 1, 'busy': 2}


# In pieces


def test_a_run_in_pieces(here, monkeypatch):
    """Each call does at least something, and all calls together all of it."""
    monkeypatch.setattr(walk, 'CLOCK_INTERVAL', 2)
    monkeypatch.setattr(walk, 'REGISTER_CHUNK', 2)
    here.store(*(f'run1/{number:02}' for number in range(20)))
    here.run()
    here.delete('run1/03', 'run1/11')
    here.store('run1/07', 'run1/16', body=b'abcd')
    here.store(*(f'run1/{number:02}x' for number in range(0, 20, 3)))
    made, after, calls = Reconciler(here.subtree(), on_changed='replace', on_missing='forget'), '', [0]
    while after is not None:
        calls.append(after)
        after = made.run(after=after, seconds=0)
    assert len(calls) > 8
    assert all(first < second for first, second in pairwise(calls[2:]))
    assert here.files() == here.bucket()
    assert made.summary.counts['replaced'] == made.summary.counts['forgotten'] == 2
    assert made.summary.counts['registered'] == 7


def test_objects_to_be_read_in_pieces(here, monkeypatch):
    in_parts(here, *(f'run1/{number}' for number in range(6)))
    made, after, calls = Reconciler(here.subtree()), '', 0
    while after is not None and calls < 20:
        after = made.run(after=after, seconds=0)
        calls += 1
    assert 2 < calls < 20
    assert here.files() == here.bucket()
    assert made.summary.counts['registered'] == 6


def test_many_missing_files_take_no_longer_than_they_may(here, monkeypatch):
    """Of these the listing says nothing, so the clock is read in between, too."""
    monkeypatch.setattr(walk, 'RECHECK_CHUNK', 2)
    here.store(*(f'run1/{number}' for number in range(8)), 'z/z')
    here.run()
    here.delete(*(f'run1/{number}' for number in range(8)))
    made = Reconciler(here.subtree(), on_missing='forget')
    assert made.run(seconds=0) == 'run1/1'
    assert made.summary.counts['forgotten'] == 2
    assert made.run(after='run1/1', seconds=60) is None
    assert here.files() == here.bucket()


def test_a_stop_is_no_end_of_the_listing(here, monkeypatch):
    monkeypatch.setattr(walk, 'CLOCK_INTERVAL', 1)
    here.store('run1/a', 'run1/b', 'run1/c')
    here.run()
    here.delete('run1/c')
    stop = threading.Event()
    stop.set()
    made = Reconciler(here.subtree(), on_missing='forget', stop=stop)
    assert made.run() == 'run1/a'
    assert set(here.files()) == {'run1/a', 'run1/b', 'run1/c'}


def test_ranges_touch_nothing_else(here):
    here.store('run1/a', 'run2/b', 'run3/c')
    here.run()
    here.delete('run1/a', 'run2/b', 'run3/c')
    here.store('run0/new', 'run2/new', 'run4/new')
    assert counted(here.run(span=('run1/z', 'run2/z'), on_missing='forget')) == {'new': 1, 'registered': 1, 'missing': 1, 'forgotten': 1}
    assert set(here.files()) == {'run1/a', 'run2/new', 'run3/c'}


@pytest.mark.parametrize('span', [('s',), ('run2/x',), ('', 'run1'), ('run1/x', 'run1/b'), ('', 'run1/')])
def test_a_range_outside_of_the_part(here, span):
    here.store('run1/a')
    assert counted(here.run('run1', span=span)) == {}
    assert here.s3.operations() == []


def test_the_marker_of_the_part_is_in_it(here):
    here.store('run1/', body=b'')
    assert counted(here.run('run1')) == {'marker': 1}


@pytest.mark.parametrize('span', [(), ('r',), ('', 'run2'), ('run0/x', 'zzz')])
def test_a_range_around_the_part(here, span):
    here.store('run1/a')
    assert counted(here.run('run1', span=span)) == {'new': 1, 'registered': 1}


@pytest.mark.parametrize('count', [1, 2, 3, 5, 100])
def test_cutting_into_ranges(here, count):
    keys = [f'run{number}/{name}' for number in range(7) for name in 'ab'] + ['0', 'zzz']
    here.store(*keys)
    cut = ranges(here.subtree(), count)
    assert len(cut) == min(count, 9)
    assert (cut[0][0], cut[-1][1]) == ('', None)
    assert all(first[1] == second[0] for first, second in pairwise(cut))
    assert sorted(key for span in cut for key in [entry.key for entry in listings.entries(here.subtree(), *span)]) == sorted(keys)


def test_ranges_have_as_many_names(here):
    here.store(*(f'run{number}/a' for number in range(9)))
    assert ranges(here.subtree(), 2) == [('', 'run4/'), ('run4/', None)]
    assert ranges(here.subtree(), 3) == [('', 'run3/'), ('run3/', 'run6/'), ('run6/', None)]


def test_a_collection_begins_with_its_first_name(here):
    here.store('0/a', '0/b')
    assert counted(here.run('0')) == {'new': 2, 'registered': 2}


def test_each_count_has_words_for_the_user():
    assert set(COUNTS) <= set(reconcile._COUNTS)


def test_cutting_where_there_is_one_directory(here):
    here.store('data/2025/a', 'data/2026/b')
    assert ranges(here.subtree(), 2) == [('', 'data/2026/'), ('data/2026/', None)]
    assert ranges(here.subtree('data'), 2) == [('', 'data/2026/'), ('data/2026/', None)]
    assert ranges(here.subtree('nothing'), 2) == [('', None)]


def test_cutting_asks_no_more_than_it_has_to(here):
    here.store('file')
    assert ranges(here.subtree(), 1) == ranges(here.subtree(), 2) == [('', None)]
    here.store('data/', body=b'')
    assert ranges(here.subtree('data'), 2) == [('', None)]
    assert here.s3.operations() == ['ListObjectsV2'] * 2


@pytest.mark.parametrize('look', [1, 2, 256])
def test_what_all_slices_count_is_what_lies_there(here, monkeypatch, look):
    """However a round is cut into slices, each object counts once."""
    for name, value in {'CLOCK_INTERVAL': look, 'REGISTER_CHUNK': 3, 'RECHECK_CHUNK': 2}.items():
        monkeypatch.setattr(walk, name, value)
    keys = [f'run1/{number:02}' for number in range(30)]
    for number, key in enumerate(keys):
        here.store(key, body=b'x' * (number + 1))
    here.run()
    here.delete(*keys[3:6], keys[10], *keys[26:])
    here.store(*keys[11:13], body=b'changed')
    here.store('run1/07a', 'run1/07b', 'run1/20a', 'run1/25 no name', 'run2/', body=b'')
    here.store('run1/08a', body=b'new' * 100)
    for number in (2, 6, 11, 20, 25):  # beside what is missing, too
        here.store(keys[number], body=here.s3.content(BUCKET, keys[number]), storage_class='GLACIER')
    there = [size for size, _ in here.bucket().values()]
    for _ in range(2):
        after, listed, stored, archived, slices = '', 0, 0, 0, 0
        while after is not None:
            made = Reconciler(here.subtree())
            after = made.run(after, seconds=0)
            listed, stored, slices = listed + made.summary.counts['listed'], stored + made.stored, slices + 1
            archived += made.summary.counts['archived']
        assert (listed, stored, archived) == (len(there), sum(there), 5)
        assert slices > 3 or look > 2


# A storage that does not sort


def test_an_unsorted_listing(here):
    here.s3.unsorted, here.s3.page = True, 4
    names = [f'run1/{number}' for number in range(20)]
    here.store(*names)
    summary = here.run()
    assert counted(summary) == {'new': 20, 'registered': 20}
    assert summary.counts['listed'] == 20
    here.delete('run1/3')
    assert counted(here.run(on_missing='forget')) == {'same': 19, 'missing': 1, 'forgotten': 1}
    assert counted(here.run(span=('run1/15', 'run1/5'))) == {'same': 7}


def test_a_storage_that_is_not_known_to_sort(here, endpoint, monkeypatch):
    """Each call lists all of it, and has its time after that."""
    monkeypatch.setattr(walk, 'CLOCK_INTERVAL', 2)
    names = [f'run1/{number}' for number in range(9)]
    here.store(*names)
    object.__setattr__(here.storage, 'endpoint', replace(here.storage.endpoint, sorted_listing=False))
    assert ranges(here.subtree(), 3) == [('', None)]
    listed = listings.sorted_entries

    def slow(*arguments):
        found = list(listed(*arguments))
        now = time.monotonic() + 60
        monkeypatch.setattr(walk.time, 'monotonic', lambda: now)
        return found

    monkeypatch.setattr(listings, 'sorted_entries', slow)
    assert Reconciler(here.subtree()).run(seconds=30) is None
    assert sorted(here.files()) == names


def test_what_was_listed_long_ago_and_is_gone_is_not_registered(here, monkeypatch):
    monkeypatch.setattr(walk, 'STALE_SECONDS', -1)
    here.store('run1/a', 'run1/b')
    object.__setattr__(here.storage, 'endpoint', replace(here.storage.endpoint, sorted_listing=False))
    listed = listings.sorted_entries

    def slow(*arguments):
        found = list(listed(*arguments))
        here.delete('run1/a')
        return found

    monkeypatch.setattr(listings, 'sorted_entries', slow)
    assert counted(here.run(on_missing='forget')) == {'new': 1, 'registered': 1}
    assert sorted(here.files()) == ['run1/b']


def test_a_listing_that_turns_out_to_be_unsorted(here):
    here.store('run1/a', 'run1/b', 'run1/c', 'run1/+')
    here.run()

    def disordered(subtree, after, until):
        found = {entry.key: entry for entry in listings.entries(subtree)}
        yield from (found['run1/+'], found['run1/c'])
        raise Unsorted(lambda: iter([found['run1/c'], found['run1/b'], found['run1/+'], found['run1/a']]))

    made = Reconciler(here.subtree(), lister=disordered, on_missing='forget')
    assert made.run() is None
    summary = made.summary
    assert counted(summary) == {'same': 3, 'unnameable': 1}
    assert (summary.counts['listed'], made.stored) == (4, 12)
    assert len(summary.problems) == 1


def test_what_an_unsorted_listing_told_too_soon_is_taken_back(here):
    """The complete one has it no more, or tells it again."""
    in_parts(here, 'run1/b')
    here.store('run1/z')
    here.run(read_checksums=False)

    def disordered(subtree, after, until):
        listed = list(listings.entries(subtree))
        yield listings.Entry('run1/+', 3, 'e', 0)
        yield from listed
        raise Unsorted(lambda: iter(listed[::-1]))

    summary = here.run(lister=disordered, read_checksums=False)
    assert counted(summary) == {'same': 1, 'no-checksum': 1}
    assert summary.problems == []


@pytest.fixture
def slow_listing(here, monkeypatch):
    """Call it with what the listing of a storage that does not sort does with its entries and the clock; gives the clock."""

    def make(listing):
        clock = SimpleNamespace(now=1000.0)
        listed = listings.sorted_entries
        object.__setattr__(here.storage, 'endpoint', replace(here.storage.endpoint, sorted_listing=False))
        monkeypatch.setattr(walk.time, 'monotonic', lambda: clock.now)
        monkeypatch.setattr(listings, 'sorted_entries', lambda *arguments: listing(list(listed(*arguments)), clock))
        return clock

    return make


def test_sorting_has_the_time_that_listing_took(here, monkeypatch, slow_listing):
    """Otherwise no run would get on; but it has no more than that."""
    here.store('run1/a', 'run1/b', 'run1/c')
    here.run()
    monkeypatch.setattr(walk, 'CLOCK_INTERVAL', 1)

    def slow(found, clock):
        for entry, seconds in zip(found, (100, 99, 2), strict=True):
            clock.now += seconds
            yield entry

    clock = slow_listing(slow)
    monkeypatch.setattr(walk, 'STALE_SECONDS', 10_000)
    assert Reconciler(here.subtree()).run(seconds=30) == 'run1/c'
    clock.now = 1000.0
    assert Reconciler(here.subtree()).run(seconds=150) is None


@pytest.mark.parametrize(('seconds', 'registered'), [(60, {'run1/a', 'run1/gone'}), (61, {'run1/a'})])
def test_a_listing_that_took_a_minute_is_old(here, slow_listing, seconds, registered):
    here.store('run1/a', 'run1/gone')

    def slow(found, clock):
        here.delete('run1/gone')
        clock.now += seconds
        return found

    slow_listing(slow)
    here.run()
    assert set(here.files()) == registered


def test_a_listing_that_has_to_be_sorted_can_be_stopped(here, monkeypatch):
    monkeypatch.setattr(walk, 'CLOCK_INTERVAL', 2)
    here.store('run1/a', 'run1/b', 'run1/c')
    here.run()
    here.delete('run1/a')
    object.__setattr__(here.storage, 'endpoint', replace(here.storage.endpoint, sorted_listing=False))
    stop = threading.Event()
    stop.set()
    assert Reconciler(here.subtree(), on_missing='forget', stop=stop).run() == ''
    assert set(here.files()) == {'run1/a', 'run1/b', 'run1/c'}


def test_a_storage_that_does_not_sort_is_not_listed_without_end(here):
    """A request to the server is bounded; nothing is taken for missing."""
    here.store('run1/a', 'run1/b', 'run1/c')
    here.run()
    here.delete('run1/a')
    here.store('run1/d')
    object.__setattr__(here.storage, 'endpoint', replace(here.storage.endpoint, sorted_listing=False))
    one = Reconciler(here.subtree(), on_missing='forget')
    with pytest.raises(UnsupportedOperation, match=r"bucket 'user\.alice': there are more than 2 objects.*rucio-s3-reconciler sorts more"):
        one.run(most_sorted=2)
    assert sorted(here.files()) == ['run1/a', 'run1/b', 'run1/c']
    assert Reconciler(here.subtree(), on_missing='forget').run(most_sorted=3) is None
    assert sorted(here.files()) == ['run1/b', 'run1/c', 'run1/d']


def test_what_is_too_large_to_be_read_now_is_registered_and_read_later(here):
    here.store('run1/small', body=b'x' * 10, etag='no-md5-1')
    here.store('run1/large', body=b'x' * 1000, etag='no-md5-2')
    assert Reconciler(here.subtree()).run(most_read=100) is None
    assert {name: bool(md5) for name, (_, md5) in here.files().items()} == {'run1/large': False, 'run1/small': True}
    here.run()
    assert here.files() == here.bucket()


def sized(size, archived=False):
    return listings.Entry('a', size, 'e', 0, archived)


def test_a_budget_of_bytes():
    budget = Budget(True, threading.Event())
    assert budget.may_read(sized(10**15)), 'without a limit'
    budget.renew(None, 100)
    assert [budget.may_read(sized(size)) for size in (101, 60, 41, 40, 1, 0)] == [False, True, False, True, False, True]
    budget.renew(None, 100)
    assert budget.may_read(sized(100, archived=True))
    assert budget.unread == 100
    closed = Budget(False, threading.Event())
    closed.renew(None, 100)
    assert not closed.may_read(sized(1))
    assert closed.unread == 100


def test_a_budget_of_seconds(monkeypatch):
    now = 1000
    monkeypatch.setattr(budget_module.time, 'monotonic', lambda: now)
    stop = threading.Event()
    budget = Budget(True, stop)
    budget.renew(5, None)
    for later, over in ((1005, False), (1006, True)):
        now = later
        assert budget.is_over() is over
    assert list(budget.in_time('abc')) == ['a'], 'each run makes progress'
    budget.renew(None, None)
    assert not budget.is_over()
    assert list(budget.in_time('abc')) == ['a', 'b', 'c']
    assert list(budget.in_time('')) == []
    stop.set()
    assert budget.is_over()


# Failures


def test_one_object_that_cannot_be_read(here):
    in_parts(here, 'run1/a', 'run1/b')
    here.s3.fail('GetObject', fake_s3.error(403, 'AccessDenied'))
    summary = here.run()
    assert counted(summary) == {'new': 2, 'registered': 1, 'failed': 1}
    problem = only(summary)
    assert (problem.kind, 'AccessDenied' in problem.found) == ('failed', True)
    assert counted(here.run()) == {'new': 1, 'registered': 1, 'same': 1}


def test_an_object_that_vanishes_before_it_is_read(here):
    in_parts(here, 'run1/a')
    here.s3.fail('HeadObject', fake_s3.error(404, 'NoSuchKey'))
    summary = here.run()
    assert counted(summary) == {'new': 1}
    assert summary.problems == []


def test_the_database_fails(here):
    here.store('run1/a')
    with mock.patch.object(registration, 'register', side_effect=DatabaseException('gone')), pytest.raises(DatabaseException):
        here.run()
    assert here.files() == {}


# Single objects


def test_check(here):
    here.store('run1/a', 'run1/b', 'run1/c', 'run1/d')
    here.run()
    here.store('run1/a', body=b'abcd')
    here.store('run1/new')
    here.delete('run1/b', 'run1/d')
    summary = here.check('run1/new', 'run1/b', 'run1/a', 'run1/c', 'run1/never', 'run1/', on_changed='replace', on_missing='forget')
    assert counted(summary) == {'same': 1, 'new': 1, 'registered': 1, 'changed': 1, 'replaced': 1, 'missing': 1, 'forgotten': 1}
    assert set(here.files()) == {'run1/a', 'run1/c', 'run1/d', 'run1/new'}


def test_check_of_what_is_no_file(here):
    here.store('run1/', body=b'')
    here.store('run1/a.rucio.upload', 'run1/+', 'run1/busy')
    here.run()
    here.change('run1/busy', state=ReplicaState.BEING_DELETED)
    summary = here.check('run1/', 'run1/a.rucio.upload', 'run1/+', 'run1/busy')
    assert counted(summary) == {'marker': 1, 'leftover': 1, 'unnameable': 1, 'busy': 1}
    assert [problem.key for problem in summary.problems] == ['run1/+']


def test_check_of_what_rucio_uploaded_in_parts(here):
    in_parts(here, 'run1/a', modified=time.time() - 10)
    registered(here, 'run1/a', b'x' * 100)
    assert counted(here.check('run1/a')) == {'same': 1}
    assert here.etags()['run1/a'] == here.s3.buckets[BUCKET]['run1/a'].etag


def test_check_tells_once_of_an_object_that_it_cannot_look_at(here):
    """The second look, for what changed meanwhile, is for nobody to know."""
    here.store('run1/a')
    here.run()
    answers = [None, ServiceUnavailable('It is busy.')]
    real = listings.stat

    def stat(subtree, key):
        if failure := answers.pop(0):
            raise failure
        return real(subtree, key)

    with mock.patch.object(listings, 'stat', stat):
        assert counted(here.check('run1/a')) == {'same': 1}
    with mock.patch.object(listings, 'stat', side_effect=ServiceUnavailable('It is busy.')):
        summary = here.check('run1/a')
    assert counted(summary) == {'failed': 1}
    assert only(summary).found == 'It is busy.'


def test_check_goes_on_where_the_first_look_failed(here):
    here.store('run1/a', 'run1/b')
    here.s3.fail('HeadObject', fake_s3.error(503, 'SlowDown'))
    summary = here.check('run1/a', 'run1/b')
    assert (summary.counts['failed'], summary.counts['registered']) == (1, 1)


def test_check_that_is_stopped_looks_once(here):
    here.store('run1/a')
    stop = threading.Event()
    register = registration.register

    def slow(subtree, files):
        done = register(subtree, files)
        here.store('run1/a', body=b'abcd')
        stop.set()
        return done

    with mock.patch.object(registration, 'register', slow):
        assert counted(here.check('run1/a', on_changed='replace', stop=stop)) == {'new': 1, 'registered': 1}


def test_check_of_the_last_object(here):
    """That the bucket is empty now is what somebody wanted."""
    here.store('run1/a')
    here.run()
    here.delete('run1/a')
    assert counted(here.check('run1/a', on_missing='forget')) == {'missing': 1, 'forgotten': 1}


@pytest.mark.parametrize('sorts', [True, False])
def test_check_of_the_last_object_declares_nothing_lost(here, sorts):
    """A name that was lost is never used again: for that, an event is not enough where the bucket is empty."""
    here.store('run1/a', 'run1/b')
    here.run()
    here.delete('run1/a')
    object.__setattr__(here.storage, 'endpoint', replace(here.storage.endpoint, sorted_listing=sorts))
    assert counted(here.check('run1/a', on_missing='lost')) == {'missing': 1, 'lost': 1}
    here.delete('run1/b')
    assert counted(here.check('run1/b', on_missing='lost')) == {'missing': 1}
    assert set(here.files()) == {'run1/b'}


def test_objects_are_asked_about_side_by_side(here, monkeypatch):
    """As many at once as the settings say."""
    readers = here.storage.endpoint.checksum_readers
    together, lock, now, most = threading.Barrier(readers, timeout=20), threading.Lock(), [], []

    def stat(_, key):
        with lock:
            now.append(key)
            most.append(len(now))
        together.wait()
        with lock:
            now.remove(key)

    monkeypatch.setattr(listings, 'stat', stat)
    options = {'on_changed': 'report', 'on_missing': 'report', 'dry_run': False, 'lister': listings.entries, 'even_if_empty': False}
    made = settle.Settler(here.subtree(), Summary(), Budget(True, threading.Event()), **options)
    keys = [f'run1/{number}' for number in range(3 * readers)]
    assert made.stat_all(keys) == dict.fromkeys(keys)
    assert max(most) == readers
    assert made.stat_all([]) == {}
    assert made.settle([]) == ([], {})


def test_check_of_what_does_not_belong_to_the_part(here):
    here.store('run2/a')
    made = Reconciler(here.subtree('run1'))
    made.check(['run2/a', 'run1'])
    assert counted(made.summary) == {}
    assert here.s3.operations() == []


def test_check_again_if_it_changes_meanwhile(here):
    here.store('run1/a')
    register = registration.register

    def slow(subtree, files):
        done = register(subtree, files)
        here.store('run1/a', body=b'abcd')
        return done

    with mock.patch.object(registration, 'register', slow):
        summary = here.check('run1/a', on_changed='replace')
    assert counted(summary) == {'new': 1, 'registered': 1, 'changed': 1, 'replaced': 1}
    assert here.files() == here.bucket()


def test_check_does_not_go_on_for_ever(here):
    replace, count = updates.replace, iter(range(100))

    def changing(subtree, seen, new):
        done = replace(subtree, seen, new)
        here.store('run1/a', body=b'x' * next(count))
        return done

    here.store('run1/a')
    here.run()
    here.store('run1/a', body=b'abcd')
    with mock.patch.object(updates, 'replace', changing):
        assert here.check('run1/a', on_changed='replace').counts['replaced'] == walk.MAX_RECHECKS


# What is said


def test_only_some_problems_are_kept():
    first, second = Summary(Counter(changed=70)), Summary(Counter(changed=70, missing=1))
    for number in range(140):
        summary = first if number < 70 else second
        summary.add(Problem('changed', f'user.alice:{number}', str(number), 'found', 'remedy'))
    first.merge(second)
    assert first.counts == {'changed': 140, 'missing': 1}
    assert len(first.problems) == 100
    assert first.as_dict()['problems'][0] == {'kind': 'changed', 'did': 'user.alice:0', 'key': '0', 'found': 'found', 'remedy': 'remedy'}


def test_the_same_problem_is_kept_once(here):
    summary = Summary()
    for _ in range(3):
        summary.refused(here.subtree(), Refusal('over-limit', '', 'The account is over its limit. Delete files.'))
    assert summary.counts['over-limit'] == 3
    assert [problem.kind for problem in summary.problems] == ['over-limit']


@pytest.mark.parametrize(
    ('dataset', 'on_missing', 'did', 'command'),
    [
        (None, 'report', 'user.alice', 'for each collection: rucio s3 reconcile user.alice:COLLECTION --on-missing forget.'),
        (None, 'lost', 'user.alice', 'for each collection: rucio s3 reconcile user.alice:COLLECTION --on-missing lost.'),
        ('set', 'forget', 'user.alice:set', 'confirm it: rucio s3 import {rse} user.alice:set --on-missing forget.'),
    ],
)
def test_that_nothing_is_left_is_told_first_and_once(here, dataset, on_missing, did, command):
    subtree = replace(here.subtree('run1'), dataset=dataset)
    summary = Summary()
    summary.add(Problem('changed', 'user.alice:x', 'x', 'found', 'remedy'))
    for _ in range(2):
        summary.empty(subtree, on_missing)
    first, _ = summary.problems
    assert (first.kind, first.did, first.key) == ('empty-bucket', did, 'run1/')
    assert f"the bucket 'user.alice' has no objects of {did} left, so no action" in first.found
    assert first.remedy.endswith(command.format(rse=here.storage.rse))


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        (ServiceUnavailable('It is down.'), 'It is down.'),
        (ServiceUnavailable(), f'ServiceUnavailable: {ServiceUnavailable()}'),
        (ValueError('odd'), 'ValueError: odd'),
        (OSError(), 'OSError: '),
    ],
)
def test_why_an_object_could_not_be_looked_at(here, error, said):
    summary = Summary()
    summary.failed(here.subtree(), 'run1/a', error)
    assert only(summary) == ('failed', 'user.alice:run1/a', 'run1/a', said, 'Run it again.')
    assert summary.counts['failed'] == 1


@pytest.mark.parametrize('kind', ['gone', 'changed'])
def test_what_others_did_meanwhile_is_no_problem(here, kind):
    summary = Summary()
    summary.refused(here.subtree(), Refusal(kind, 'run1/a', 'It is gone.'))
    assert (summary.problems, summary.counts[kind]) == ([], 1)


def test_a_refusal_without_a_remedy(here):
    summary = Summary()
    summary.refused(here.subtree(), Refusal('closed', 'run1', 'The dataset is closed.'))
    assert (only(summary).found, only(summary).remedy) == ('The dataset is closed.', '')


def test_the_remedy_for_an_import_names_it(here):
    summary = Summary()
    subtree = replace(here.subtree('set'), dataset='set')
    summary.found(subtree, Finding(Kind.missing, 'set/a', None, None))
    assert f'RSE {here.storage.rse}, ' in only(summary).found
    assert f': rucio s3 import {here.storage.rse} user.alice:set --on-missing forget.' in only(summary).remedy


def test_every_count_is_there_from_the_beginning():
    assert Summary().as_dict() == {'counts': dict.fromkeys(COUNTS, 0), 'problems': []}


def test_a_refusal_is_what_was_found_and_what_to_do(here):
    here.store('run1/a')
    here.store('run1/b', body=b'abcd')
    refused = Refusal('closed', 'run1/a', 'The dataset is closed. Open it, or use another one.')
    with mock.patch.object(registration, 'register', return_value=(1, [refused])):
        summary = here.run()
    assert (summary.counts['registered'], summary.counts['bytes']) == (1, 4)
    problem = only(summary)
    assert (problem.kind, problem.found, problem.remedy) == ('closed', 'The dataset is closed.', 'Open it, or use another one.')
    assert summary.counts['closed'] == 1


@pytest.mark.parametrize('options', [{'on_changed': 'delete'}, {'on_missing': 'bad'}])
def test_a_way_to_act_that_there_is_not(here, options):
    with pytest.raises(ValueError, match='is one of'):
        Reconciler(here.subtree(), **options)


def test_checksums_are_not_looked_for_when_there_is_nothing_to_do(here):
    with mock.patch.object(checksums, 'compute_checksums', side_effect=ServiceUnavailable('not asked')):
        assert counted(here.run()) == {}


# Archived objects


def test_archived_objects_are_counted_apart_and_not_read_in_each_run(here):
    in_parts(here, 'run1/a', storage_class='DEEP_ARCHIVE')
    here.store('run1/b', storage_class='GLACIER')
    here.store('run1/c')
    summary = here.run()
    assert counted(summary) == {'new': 3, 'registered': 3, 'archived': 2}
    assert summary.problems == []
    here.s3.requests.clear()
    assert counted(here.run()) == {'same': 2, 'no-checksum': 1, 'archived': 2}
    assert set(here.s3.operations()) == {'ListObjectsV2'}


@pytest.mark.parametrize('told_by', ['listing', 'event'])
def test_a_restored_object_gets_its_checksum(here, told_by):
    in_parts(here, 'run1/a', storage_class='GLACIER')
    here.run()
    assert here.files()['run1/a'] == (100, None)
    in_parts(here, 'run1/a', storage_class='GLACIER', restored=fake_s3.RESTORED)
    summary = here.check('run1/a') if told_by == 'event' else here.run()
    assert counted(summary) == {'no-checksum': 1}
    assert here.files() == here.bucket()


def test_a_class_that_only_sounds_like_an_archive_is_read(here, monkeypatch):
    """SeaweedFS keeps any name, and means nothing by it."""
    monkeypatch.setattr(fake_s3.Object, 'archived', False)
    in_parts(here, 'run1/a', storage_class='GLACIER')
    assert counted(here.run()) == {'new': 1, 'registered': 1, 'archived': 1}
    assert here.files() == here.bucket()


@pytest.mark.parametrize('on_changed', ['report', 'replace'])
def test_an_archived_object_that_changed(here, on_changed):
    in_parts(here, 'run1/a', body=b'x' * 100)
    here.run()
    in_parts(here, 'run1/a', body=b'y' * 101, parts='3', storage_class='GLACIER')
    assert counted(here.run(on_changed=on_changed), 'replaced') == {'changed': 1, 'archived': 1}
    assert counted(here.run(on_changed=on_changed)) == {'report': {'changed': 1, 'archived': 1}, 'replace': {'no-checksum': 1, 'archived': 1}}[on_changed]


def test_archived_objects_leave_the_bytes_that_may_be_read_to_others(here):
    in_parts(here, 'run1/a', 'run1/b', storage_class='GLACIER')
    in_parts(here, 'run1/c', 'run1/d')
    made = Reconciler(here.subtree())
    assert made.run(most_read=150) is None
    assert [name for name, (_, md5) in sorted(here.files().items()) if md5] == ['run1/c']


def test_a_run_in_steps_counts_each_archived_object_once(here):
    here.store('run1/a', 'run1/b', 'run1/c', storage_class='GLACIER')
    made, after = Reconciler(here.subtree()), ''
    while after is not None:
        after = made.run(after, seconds=0)
    assert (made.summary.counts['archived'], made.summary.counts['listed']) == (3, 3)


# An inventory, which is a listing of yesterday


class Yesterday:
    """What the bucket had when it was made, as an inventory says it."""

    old = True

    def __init__(self, here):
        self._entries = list(listings.entries(here.subtree()))

    def __call__(self, subtree, after='', until=None):
        return iter(self._entries)


def test_what_happened_since_the_inventory_is_seen(here):
    here.store('run/a', 'run/b', 'run/gone')
    here.run()
    here.store('run/new', 'run/new-and-gone')
    inventory = Yesterday(here)
    here.store('run/later')
    here.check('run/later')  # an event told
    here.store('run/a', body=b'changed since')
    here.check('run/a', on_changed='replace')
    here.delete('run/gone', 'run/new-and-gone')
    here.check('run/gone', on_missing='forget')
    summary = here.run(lister=inventory, on_changed='replace', on_missing='forget')
    assert summary.problems == []
    assert here.files() == here.bucket()
    assert (summary.counts['registered'], summary.counts['forgotten'], summary.counts['replaced']) == (1, 0, 0)


def test_an_inventory_of_a_bucket_that_is_empty_now(here):
    here.store('run/a', 'run/b')
    inventory = Yesterday(here)
    here.run()
    here.delete('run/a')
    assert here.run(lister=inventory, on_missing='forget').counts['forgotten'] == 0  # the inventory still has it
    here.store('run/c')
    here.run()
    here.delete('run/b', 'run/c')
    summary = here.run(lister=inventory, on_missing='forget')
    assert [problem.kind for problem in summary.problems] == ['empty-bucket'], 'what it lists may be gone'
    inventory._entries.clear()
    summary = here.run(lister=inventory, on_missing='forget')
    assert [problem.kind for problem in summary.problems] == ['empty-bucket']
    assert set(here.files()) == {'run/a', 'run/b', 'run/c'}
