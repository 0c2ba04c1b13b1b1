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

"""The reconciler's daemon: rounds, sharing among workers, going on after an end. A database in a file, a fake S3, buckets compared by a fake."""

import contextlib
import itertools
import logging
import re
import signal
import threading
import time
from configparser import NoSectionError
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from unittest import mock

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy import create_engine, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from rucio.common.exception import ServiceUnavailable
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.settings import Secrets
from rucio.common.types import InternalAccount, InternalScope
from rucio.core.s3 import storages
from rucio.core.s3.buckets.publishing import SweepResult
from rucio.core.s3.reconciler import progress
from rucio.core.s3.reconciler import usage as usage_module
from rucio.core.s3.reconciler.summary import Problem, Summary
from rucio.core.s3.subtrees import Subtree
from rucio.daemons.s3 import copier, reporting, starting, upkeep
from rucio.daemons.s3 import reconciler as daemon
from rucio.db.sqla import models
from rucio.db.sqla.constants import LockState, ReplicaState
from servers.fake_s3 import Answer, FakeS3, Stalled, error

pytestmark = pytest.mark.usefixtures('alone')

RSE_ID = 'a' * 32
ALICE, BOB = InternalScope('user.alice'), InternalScope('user.bob')
KEYS = [f'run{number // 10}/file{number % 10}' for number in range(40)]


@pytest.fixture
def database(tmp_path, monkeypatch):
    """Call it for a session; Rucio's own tables that are needed, in a file."""
    engine = create_engine(f'sqlite:///{tmp_path}/rucio.db')
    tables = [models.Config, models.Scope, models.DatasetLock, models.RSEFileAssociation, models.RSEUsage, models.RSELimit]
    models.BASE.metadata.create_all(engine, tables=[each.__table__ for each in tables])

    @contextlib.contextmanager
    def session(operation=None):
        with Session(engine) as opened:
            yield opened
            opened.commit()

    for module in (progress, daemon, upkeep):
        monkeypatch.setattr(module, 'db_session', session)
    monkeypatch.setattr(upkeep.publishing, 'delete_ended', mock.Mock(return_value=SweepResult(0, [])))
    monkeypatch.setattr(upkeep.publishing, 'repair_policy', mock.Mock(return_value=[]))
    with session() as opened:
        for scope in (ALICE, BOB):
            opened.add(models.Scope(scope=scope, account=InternalAccount('root')))
    yield session
    engine.dispose()


@pytest.fixture
def storage(s3, monkeypatch):
    """Call it for a storage with the server's keys; the last one made is the only one that the daemon knows."""

    def make(prefix='/', algorithm='s3_bucket', **endpoint):
        domain = {'read': 1, 'write': 1, 'delete': 1}
        protocol = {'scheme': 'http', 'hostname': '127.0.0.1', 'port': s3.port, 'prefix': prefix, 'impl': 'rucio.rse.protocols.s3.Default'}
        protocol |= {'domains': {'wan': domain, 'lan': domain}, 'extended_attributes': {'s3': {'bucket_prefix': endpoint.get('bucket_prefix', '')}}}
        settings = {'rse': 'SITE_S3', 'id': RSE_ID, 'deterministic': True, 'lfn2pfn_algorithm': algorithm, 'protocols': [protocol]}
        made = storages.Storage(
            'SITE_S3', RSE_ID, 'def', Endpoint('SITE_S3', RSE_ID, s3.url, max_attempts=1, secrets=Secrets('AKID', 'a-secret'), **endpoint), settings, protocol
        )
        monkeypatch.setattr(daemon, '_storages', lambda _: [made])
        return made

    return make


@pytest.fixture(autouse=True)
def _not_stopped():
    yield
    daemon.graceful_stop.clear()


class Buckets:
    """Stands in for the reconciler: lists what `s3` has, a few keys in a slice, and remembers what each worker has seen."""

    def __init__(self, s3, slice_size=1000):
        self.s3, self.slice_size = s3, slice_size
        self.seen = []
        self.failures = {}  # bucket -> what to raise
        self.bounds = set()  # how much may be sorted
        self.problems = []

    def __call__(self, subtree, **options):
        self.options = options
        summary = Summary()
        made = SimpleNamespace(summary=summary, stored=0)
        made.run = lambda *arguments, **more: self.run(subtree, made, *arguments, **more)
        return made

    def run(self, subtree, made, after='', until=None, seconds=None, most_sorted=None):
        self.bounds.add(most_sorted)
        summary = made.summary
        if subtree.bucket in self.failures:
            raise self.failures[subtree.bucket]
        keys = sorted(key for key in self.s3.buckets[subtree.bucket] if key.startswith(subtree.key_prefix) and key > after and (until is None or key <= until))
        now = keys[: self.slice_size]
        self.seen += [(subtree.bucket, key) for key in now]
        summary.counts.update(listed=len(now), new=1)
        made.stored = sum(len(self.s3.buckets[subtree.bucket][key].body) for key in now)
        summary.problems += self.problems
        return now[-1] if len(keys) > len(now) else None


@pytest.fixture
def compared(s3, monkeypatch):
    """Buckets that are compared a few keys at a time."""
    made = Buckets(s3)
    monkeypatch.setattr(daemon, 'Reconciler', made)
    monkeypatch.setattr(daemon, 'ranges', lambda *_: [('', 'run0/file9'), ('run0/file9', 'run1/file9'), ('run1/file9', 'run2/file9'), ('run2/file9', None)])
    return made


class Heart:
    """Stands in for Rucio's HeartbeatHandler: worker `number` of those in `hearts`."""

    def __init__(self, hearts, log=None):
        self.hearts, self.log = hearts, log if log is not None else []
        hearts.append(self)

    def live(self, force_renew=False):
        return self.hearts.index(self), len(self.hearts), self._write

    def _write(self, level, text, *arguments, **_):
        self.log.append((level, text % arguments))

    def die(self):
        self.hearts.remove(self)

    def lines(self, level=logging.INFO):
        return [text for at, text in self.log if at >= level]


def once(**options):
    return daemon.Options(once=True, save_every=0, **options)


def work(options, hearts=None):
    """Let one worker do all there is, and give what it wrote into the log."""
    heart = Heart([] if hearts is None else hearts)
    assert daemon.Worker(options).run_once(heart) is True
    return heart


def known(database, storage):
    with database() as session:
        return progress.read_rounds(storage, session=session)


def fill(s3, bucket='user.alice', keys=KEYS):
    s3.buckets.setdefault(bucket, {})
    for key in keys:
        s3.store(bucket, key, b'0123456789')


def tell_quota(s3):
    """As Ceph does, whether it is enabled or not."""
    s3.HeadBucket = lambda _: Answer(200, b'', (('X-RGW-Quota-user-size', '410'),))


# Grants that have ended


def test_one_worker_sweeps_grants_once_in_each_interval(storage, database):
    storage()
    sweep = upkeep.publishing.delete_ended
    sweep.return_value = SweepResult(2, ['user.alice:run1 may still be public on RSE SITE_S3: it does not\nanswer.'])
    hearts, workers = [], [daemon.Worker(daemon.Options()) for _ in range(2)]
    beating = [Heart(hearts) for _ in workers]
    for worker, heart in zip(workers * 2, beating * 2, strict=True):
        worker.run_once(heart)
    assert sweep.call_args_list == [mock.call('def')]
    assert beating[0].lines() == [
        'VO def: 2 expired grants were deleted',
        'user.alice:run1 may still be public on RSE SITE_S3: it does not\\nanswer.',
    ]
    workers[0]._upkeep._swept -= 4000
    workers[0].run_once(beating[0])
    assert sweep.call_count == 2


def test_what_everybody_may_read_is_looked_at_once_in_each_round_of_a_bucket(storage, database, s3, compared):
    storage()
    fill(s3)
    fill(s3, 'user.bob')
    compared.slice_size = 10
    mend = upkeep.publishing.repair_policy
    mend.side_effect = [['user.alice was\nopen'], ServiceUnavailable('it does not answer')]
    lines = work(once()).lines(logging.WARNING)
    assert [str(call.args[0].scope) for call in mend.call_args_list] == ['user.alice', 'user.bob']
    assert lines == [r'user.alice was\nopen', 'RSE SITE_S3, bucket user.bob: public collections: it does not answer']


@pytest.mark.parametrize('options', [{'rses': 'SITE_S3'}, {'scopes': ['user.alice']}])
def test_a_run_for_a_part_sweeps_no_grants(storage, database, options):
    storage()
    work(once(**options))
    assert not upkeep.publishing.delete_ended.called


# Rounds


def test_a_round_and_a_line_in_the_log(s3, storage, database, compared):
    made = storage()
    fill(s3)
    compared.slice_size = 15
    heart = work(once())
    assert compared.seen == [('user.alice', key) for key in KEYS]
    (line,) = heart.lines()
    assert line.startswith('RSE SITE_S3, bucket user.alice: 40 objects listed, 3 new, 0 changed, 0 missing, 0 failed in ')
    assert line.endswith('objects/s)')
    ended = known(database, made)['user.alice', 'user.alice']
    assert ended.counts == {'listed': 40, 'new': 3, 'stored': 400}
    assert ended.ended >= ended.started
    assert ended.spans == []


def test_a_bucket_of_empty_objects_has_a_size(s3, storage, database, compared):
    """Zero is another answer than none, for which the usage of the RSE would not be told."""
    made = storage()
    s3.store('user.alice', 'empty', b'')
    work(once())
    assert known(database, made)['user.alice', 'user.alice'].counts['stored'] == 0


def test_a_round_is_begun_by_one_worker(storage, database):
    made = storage()

    def begin(last, now):
        with database() as session:
            return progress.begin(Subtree.of(made, ALICE), last, now, session=session)

    assert [begin(None, 1.0), begin(None, 1.0)] == [True, False]
    last = known(database, made)['user.alice', 'user.alice']
    assert [begin(last, 2.0), begin(last, 3.0)] == [True, False]
    assert [span.round for span in known(database, made)['user.alice', 'user.alice'].spans] == [2.0]


def test_who_comes_next_goes_on_where_it_was(s3, storage, database, compared):
    storage()
    fill(s3)
    compared.slice_size = 15
    worker = daemon.Worker(daemon.Options())
    assert worker.run_once(Heart([])) is False  # not to sleep: something is left
    assert len(compared.seen) == 15
    heart = work(once())  # of another process: the first is gone
    assert compared.seen == [('user.alice', key) for key in KEYS]
    assert heart.lines()[0] == f"RSE SITE_S3, bucket user.alice: the round continues after '{KEYS[14]}'"
    assert '40 objects listed' in heart.lines()[1]
    assert len(heart.lines()) == 2


def test_a_new_round_begins_after_the_interval(s3, storage, database, compared):
    storage()
    fill(s3)
    for interval, seen in ((3600, 40), (3600, 40), (0, 80)):
        daemon.Worker(daemon.Options(interval=interval)).run_once(Heart([]))
        assert len(compared.seen) == seen
    work(once())  # always one round
    assert len(compared.seen) == 120


def test_one_slice_of_each_bucket_in_turn(s3, storage, database, compared):
    storage()
    fill(s3)
    fill(s3, 'user.bob', KEYS[:3])
    compared.slice_size = 10
    daemon.Worker(daemon.Options()).run_once(Heart([]))
    assert [bucket for bucket, _ in compared.seen] == ['user.alice'] * 10 + ['user.bob'] * 3


@pytest.mark.parametrize('dry_run', [False, True])
def test_a_listing_without_an_end_does_not_fill_the_disk(s3, storage, database, compared, dry_run):
    storage()
    fill(s3)
    if dry_run:
        daemon._preview_subtree(Subtree.of(daemon._storages(None)[0], ALICE), None)
    else:
        work(once())
    assert compared.bounds == {daemon.MAX_SORTED}


def test_stopped_between_two_buckets(s3, storage, database, compared, monkeypatch):
    storage()
    fill(s3)
    fill(s3, 'user.bob')
    run = compared.run
    monkeypatch.setattr(compared, 'run', lambda *arguments, **more: (daemon.graceful_stop.set(), run(*arguments, **more))[1])
    work(once())
    assert {bucket for bucket, _ in compared.seen} == {'user.alice'}


@pytest.mark.parametrize('key', ['\N{MUSICAL SYMBOL G CLEF}' * 256, '\x01' * 1023, '\\"' * 511, 'é' * 511])
def test_keys_of_1024_bytes_fit_into_a_row(s3, storage, database, key):
    made = storage()
    subtree = Subtree.of(made, ALICE)
    with database() as session:
        progress.begin(subtree, None, 1.0, session=session)
        (span,) = progress.read_rounds(made, session=session)['user.alice', 'user.alice'].spans
        counts = dict.fromkeys((f'a rather long kind {number}' for number in range(30)), 10**12)
        assert progress.advance(subtree, span, key, counts, 1.0, session=session)
        progress.split(
            subtree, progress.read_rounds(made, session=session)['user.alice', 'user.alice'].spans[0], [('', f'{key}~'), (f'{key}~', None)], session=session
        )
        assert max(len(value.encode()) for value in session.execute(select(models.Config.value)).scalars()) < 4000
        assert [(span.after, span.until) for span in progress.read_rounds(made, session=session)['user.alice', 'user.alice'].spans] == [
            (key, f'{key}~'),
            (f'{key}~', None),
        ]


# Sharing


def test_each_bucket_is_for_one_worker(s3, storage, database, compared):
    storage()
    names = [f'user.u{number}' for number in range(30)]
    with database() as session:
        session.add_all(models.Scope(scope=InternalScope(name), account=InternalAccount('root')) for name in names)
    for name in names:
        fill(s3, name, ['file'])
    hearts = []
    pair = [(daemon.Worker(daemon.Options()), Heart(hearts)) for _ in range(2)]
    done = []
    for worker, heart in pair:
        before = len(compared.seen)
        worker.run_once(heart)
        done.append({bucket for bucket, _ in compared.seen[before:]})
    assert done[0] | done[1] == set(names)
    assert not done[0] & done[1]
    assert min(map(len, done)) > 5


def test_all_workers_share_a_large_bucket(s3, storage, database, compared):
    made = storage()
    fill(s3)
    compared.slice_size = 2
    hearts = []
    workers = [(daemon.Worker(daemon.Options()), Heart(hearts)) for _ in range(3)]
    done = [0, 0, 0]
    for number in itertools.islice(itertools.cycle(range(3)), 90):
        before = len(compared.seen)
        workers[number][0].run_once(workers[number][1])
        done[number] += len(compared.seen) - before
    assert sorted(compared.seen) == [('user.alice', key) for key in sorted(KEYS)]  # each key once
    assert sum(count > 0 for count in done) > 1
    assert sum('40 objects listed' in line for _, heart in workers for line in heart.lines()) == 1
    assert known(database, made)['user.alice', 'user.alice'].ended


def test_what_a_dead_worker_leaves_becomes_that_of_the_others(s3, storage, database, compared, monkeypatch):
    storage()
    fill(s3)
    compared.slice_size = 2
    hearts = []
    pair = [(daemon.Worker(daemon.Options()), Heart(hearts)) for _ in range(2)]
    for worker, heart in pair * 2:
        worker.run_once(heart)
    assert len(compared.seen) < 40
    dead = pair[0][1]
    monkeypatch.setattr(daemon.graceful_stop, 'wait', lambda _: dead in hearts and dead.die())  # its heartbeat becomes old
    daemon.Worker(once()).run_once(pair[1][1])
    assert sorted(compared.seen) == [('user.alice', key) for key in sorted(KEYS)]


def test_a_run_does_all_where_others_come_no_further(s3, storage, database, compared, monkeypatch):
    storage()
    fill(s3)
    compared.slice_size = 2
    hearts = []
    pair = [(daemon.Worker(daemon.Options()), Heart(hearts)) for _ in range(2)]
    for worker, heart in pair * 2:
        worker.run_once(heart)
    monkeypatch.setattr(daemon, 'STALL_SECONDS', -1)
    assert len(compared.seen) < 40
    daemon.Worker(once()).run_once(pair[1][1])  # the other one lives, and does nothing
    assert sorted(compared.seen) == [('user.alice', key) for key in sorted(KEYS)]


def test_a_run_waits_for_rounds_that_others_have_to_begin(s3, storage, database, compared, monkeypatch):
    subtree = Subtree.of(storage(), ALICE)
    fill(s3)
    hearts = []
    pair = [(daemon.Worker(once()), Heart(hearts)) for _ in range(2)]
    for worker, heart in pair:
        worker._heartbeat = heart
    idle, busy = sorted(pair, key=lambda each: each[0]._is_mine(subtree))
    monkeypatch.setattr(daemon.graceful_stop, 'wait', lambda _: busy[0].run_once(busy[1]))
    idle[0].run_once(idle[1])
    assert len(compared.seen) == 40


def test_two_workers_on_one_span_count_nothing_twice(s3, storage, database):
    """Each of them takes the other for gone."""
    made = storage()
    subtree = Subtree.of(made, ALICE)
    with database() as session:
        assert progress.begin(subtree, None, 1.0, session=session)
    with database() as session:
        assert not progress.begin(subtree, None, 2.0, session=session)
    (span,) = known(database, made)['user.alice', 'user.alice'].spans
    with database() as session:
        assert progress.advance(subtree, span, 'm', {'listed': 5}, 1.0, session=session)
        assert not progress.advance(subtree, span, 'b', {'listed': 3}, 1.0, session=session)
        assert progress.split(subtree, span, [('', 'c'), ('c', None)], session=session) == 1
    (span,) = known(database, made)['user.alice', 'user.alice'].spans
    assert (span.after, span.counts) == ('m', {'listed': 5})


def options(database):
    """The rows of rounds and spans."""
    with database() as session:
        return {row.opt: row.value for row in session.execute(select(models.Config.opt, models.Config.value)).all()}


def test_a_round_is_split_into_what_is_left_of_it(s3, storage, database):
    made = storage()
    subtree, place = Subtree.of(made, ALICE), ('user.alice', 'user.alice')
    with database() as session:
        progress.begin(subtree, None, 1.0, session=session)
    (span,) = known(database, made)[place].spans
    with database() as session:
        progress.advance(subtree, span, 'c', {'listed': 5}, 1.0, session=session)
    (span,) = known(database, made)[place].spans
    before = options(database)
    with database() as session:
        assert progress.split(subtree, span, [('', 'b'), ('b', 'c'), ('c', None)], session=session) == 1
    assert options(database) == before
    with database() as session:  # another worker has done it
        session.add(models.Config(section='s3-bucket:SITE_S3:user.alice', opt='span:user.alice:1', value='{}'))
    with database() as session:
        assert progress.split(subtree, span, [('', 'f'), ('f', None)], session=session) == 1
    assert options(database) == before | {'span:user.alice:1': '{}'}
    with database() as session:
        session.query(models.Config).filter_by(opt='span:user.alice:1').delete()
    with database() as session:
        assert progress.split(subtree, span, [('', 'c'), ('c', 'f'), ('f', None)], session=session) == 2
    first, second = known(database, made)[place].spans
    assert (first.index, first.after, first.until, first.counts, first.round) == (0, 'c', 'f', {'listed': 5}, 1.0)
    assert (second.index, second.after, second.until, second.counts, second.done, second.seconds, second.round) == (1, 'f', None, {}, False, 0, 1.0)
    for span, over in ((second, False), (first, True)):
        with database() as session:
            progress.advance(subtree, span, None, {'listed': 1}, 1.0, session=session)
            assert (progress.close(subtree, 2.0, session=session) is not None) is over
    assert list(options(database)) == ['round:user.alice']
    assert known(database, made)[place].counts == {'listed': 7}


def test_a_round_that_another_worker_begins_or_ends_is_left_alone(s3, storage, database, monkeypatch):
    made = storage()
    subtree, place = Subtree.of(made, ALICE), ('user.alice', 'user.alice')
    with database() as session:
        progress.begin(subtree, None, 1.0, session=session)
    stale = {place: replace(known(database, made)[place], stored='{}', spans=())}
    before = options(database)
    with database() as session:
        assert not progress.begin(subtree, stale[place], 2.0, session=session)
        monkeypatch.setattr(progress, 'read_rounds', lambda *_, **__: stale)
        assert progress.close(subtree, 2.0, session=session) is None
    assert options(database) == before


def test_how_rounds_stand_in_the_table(s3, storage, database):
    made = storage()
    imported = Subtree(made, ALICE, 'user.alice', 'scenes/', 'set/', 'set')
    mark = progress.round_id(imported)
    assert re.fullmatch(r'user\.alice#[0-9a-f]{16}', mark)
    assert progress.round_id(replace(imported, key_prefix='maps/')) != mark
    with database() as session:
        progress.begin(imported, None, 1.0, session=session)
    (span,) = known(database, made)['user.alice', mark].spans
    longest = 'é' * (progress.MAX_KEY_LENGTH - 2)
    for key in (longest, longest + 'é'):
        with database() as session:
            assert progress.advance(imported, span, key, {}, 1.0, session=session)
        (span,) = known(database, made)['user.alice', mark].spans
        assert span.after == key
        assert (f'"after":"{key}"' in span.stored) is (key == longest)
    with database() as session:
        session.query(models.Config).filter_by(opt=f'round:{mark}').update({'value': '[]'})
    broken = known(database, made)['user.alice', mark]
    assert (broken.started, broken.ended, broken.counts, broken.since) == (0, 0, {}, 0)


def test_late_news_of_a_round_that_is_over(s3, storage, database):
    made = storage()
    subtree = Subtree.of(made, ALICE)
    place = ('user.alice', 'user.alice')
    with database() as session:
        progress.begin(subtree, None, 1.0, session=session)
        (late,) = progress.read_rounds(made, session=session)[place].spans
        progress.advance(subtree, late, None, {}, 1.0, session=session)
        assert progress.close(subtree, 2.0, session=session)
        assert progress.close(subtree, 2.0, session=session) is None
        progress.begin(subtree, progress.read_rounds(made, session=session)[place], 3.0, session=session)
        assert not progress.advance(subtree, late, 'x', {}, 1.0, session=session)
        assert progress.read_rounds(made, session=session)[place].spans[0].after == ''


def test_a_round_that_nobody_ended(s3, storage, database, compared):
    made = storage()
    fill(s3)
    subtree = Subtree.of(made, ALICE)
    with database() as session:
        progress.begin(subtree, None, 1.0, session=session)
        progress.advance(subtree, progress.read_rounds(made, session=session)['user.alice', 'user.alice'].spans[0], None, {'listed': 7}, 1.0, session=session)
    assert '7 objects listed' in work(once()).lines()[0]
    assert known(database, made)['user.alice', 'user.alice'].ended
    assert compared.seen == []


# What there is to do


def places(storage, known=()):
    found = progress.find_work(storage, known)
    return [(subtree.bucket, subtree.key_prefix, str(subtree.scope)) for subtree in found.subtrees], [
        (str(scope), bucket) for scope, bucket in found.missing_buckets
    ]


def test_buckets_of_scopes(s3, storage, database):
    for bucket in ('user.bob', 'somebody', 'x--'):
        s3.make_bucket(bucket)
    assert places(storage()) == ([('user.alice', '', 'user.alice'), ('user.bob', '', 'user.bob')], [])
    s3.make_bucket('vo1.user.alice')
    assert places(storage(bucket_prefix='vo1.')) == ([('vo1.user.alice', '', 'user.alice')], [])


def test_a_scope_that_cannot_be_worked_on_does_not_stop_the_next_ones(s3, storage, database, monkeypatch, caplog):
    """One that shares its keys with an RSE of another scope, or whose bucket would have a name that is too long."""
    odd, prefix = InternalScope('A' * 25), 'a' * 31
    with database() as session:
        session.add(models.Scope(scope=odd, account=InternalAccount('root')))
        session.add(models.DatasetLock(scope=odd, name='run1', rule_id='b' * 32, rse_id=RSE_ID, account=InternalAccount('root'), state=LockState.OK))
    for bucket in ('user.alice', 'user.bob', f'{prefix}user.bob'):
        s3.make_bucket(bucket)
    assert places(storage(bucket_prefix=prefix)) == ([(f'{prefix}user.bob', '', 'user.bob')], [])
    monkeypatch.setattr(progress.shared_keys, 'has_other_scopes', lambda _, scope, *__, **___: scope == ALICE)
    assert ('user.bob', '', 'user.bob') in places(storage())[0]
    assert "bucket 'user.alice' of scope user.alice is left alone" in caplog.text


def test_the_work_of_a_round_is_summed_up(s3, storage, database):
    made = storage()
    subtree, place = Subtree.of(made, ALICE), ('user.alice', 'user.alice')
    with database() as session:
        progress.begin(subtree, None, 1.0, session=session)
    for after, seconds in (('a', 1.00049), (None, 2.5)):
        (span,) = known(database, made)[place].spans
        with database() as session:
            assert progress.advance(subtree, span, after, {'listed': 2}, seconds, session=session)
        assert known(database, made)[place].spans[0].seconds in (1.0, 3.5)
    with database() as session:
        ended = progress.close(subtree, 9.0, session=session)
    assert (ended.started, ended.ended, ended.seconds, ended.counts) == (1.0, 9.0, 3.5, {'listed': 4})
    assert (ended.since, replace(ended, ended=None).since) == (9.0, 1.0)


def test_one_bucket_for_all(s3, storage, database):
    with database() as session:
        session.add(models.Scope(scope=InternalScope('data.x'), account=InternalAccount('root')))
    s3.make_bucket('common')
    for key in ('rucio/data.x/run1/file', 'rucio/user/alice/run1/file', 'rucio/nobody/file', 'elsewhere/data.x/file', 'rucio/file'):
        s3.store('common', key, b'')
    # What begins with user lies inside that of others there.
    assert places(storage('/common/rucio', 'identity')) == ([('common', 'rucio/data.x/', 'data.x')], [])
    assert places(storage('/common/rucio', 'hash')) == ([], [])


def miss(database, replicas=True):
    """A rule keeps something of bob's there, and no bucket is his."""
    with database() as session:
        session.add(models.DatasetLock(scope=BOB, name='run1', rule_id='b' * 32, rse_id=RSE_ID, account=InternalAccount('root'), state=LockState.OK))
        if replicas:
            session.add(models.RSEFileAssociation(scope=BOB, name='run1/file', rse_id=RSE_ID, bytes=1, state=ReplicaState.AVAILABLE, lock_cnt=1))


def test_a_bucket_that_is_missing(s3, storage, database, compared):
    made = storage()
    miss(database)
    assert places(made) == ([('user.alice', '', 'user.alice')], [('user.bob', 'user.bob')])
    heart = work(once())
    (warning,) = heart.lines(logging.WARNING)
    assert "the bucket 'user.bob' does not exist. No file was declared lost." in warning
    assert {bucket for bucket, _ in compared.seen} <= {'user.alice'}


def test_a_bucket_that_is_gone_since_the_last_round(s3, storage, database, compared):
    made = storage()
    s3.make_bucket('user.bob')
    work(once())
    del s3.buckets['user.bob']
    with database() as session:
        session.add(models.RSEFileAssociation(scope=BOB, name='run1/file', rse_id=RSE_ID, bytes=1, state=ReplicaState.AVAILABLE, lock_cnt=0))
    assert 'user.bob' in work(once()).lines(logging.WARNING)[0]
    with database() as session:
        session.query(models.RSEFileAssociation).delete()
    assert work(once()).lines(logging.WARNING) == []
    assert set(known(database, made)) == {('user.alice', 'user.alice')}  # nobody misses it


def test_a_bucket_is_missed_where_its_files_should_be(s3, storage, database, monkeypatch):
    """Not where another scope has files, or on another RSE."""
    monkeypatch.setattr(progress, 'MAX_IN_LIST', 1)
    made = storage()
    miss(database, replicas=False)
    with database() as session:
        for scope, rse_id in ((ALICE, RSE_ID), (BOB, 'c' * 32)):
            session.add(models.RSEFileAssociation(scope=scope, name='run1/file', rse_id=rse_id, bytes=1, state=ReplicaState.AVAILABLE, lock_cnt=1))
        session.add(models.DatasetLock(scope=ALICE, name='run1', rule_id='b' * 32, rse_id='c' * 32, account=InternalAccount('root'), state=LockState.OK))
    assert places(made) == ([('user.alice', '', 'user.alice')], [])
    with database() as session:
        session.query(models.RSEFileAssociation).filter_by(rse_id='c' * 32).update({'rse_id': RSE_ID})
    assert places(made) == ([('user.alice', '', 'user.alice')], [('user.bob', 'user.bob')])
    del s3.buckets['user.alice']
    assert places(made) == ([], [('user.bob', 'user.bob')])
    assert places(made, {('user.alice', 'user.alice'), ('user.alice', 'user.alice#0123456789abcdef')}) == (
        [],
        [('user.alice', 'user.alice'), ('user.bob', 'user.bob')],
    )


def test_a_bucket_of_others_that_is_not_listed(s3, storage, database):
    """A storage lists what belongs to the keys; others may let them in."""
    made = storage()
    miss(database)
    s3.make_bucket('user.bob')
    with mock.patch.object(progress.objects, 'list_buckets', return_value=['user.alice']):
        assert places(made) == ([('user.alice', '', 'user.alice'), ('user.bob', '', 'user.bob')], [])


def test_only_some_scopes(s3, storage, database, compared):
    storage()
    fill(s3)
    fill(s3, 'user.bob')
    work(once(scopes=['user.bob']))
    assert {bucket for bucket, _ in compared.seen} == {'user.bob'}


# Failures


def test_a_bucket_that_fails_does_not_stop_the_others(s3, storage, database, compared):
    storage()
    fill(s3)
    fill(s3, 'user.bob')
    for failure in (ServiceUnavailable("RSE SITE_S3: ls of bucket 'user.alice': nobody answers."), KeyError('a mistake')):
        compared.failures = {'user.alice': failure}
        compared.seen.clear()
        (warning,) = work(once()).lines(logging.WARNING)
        assert warning.count('user.alice') == 1
        assert {bucket for bucket, _ in compared.seen} == {'user.bob'}
    compared.failures = {}
    work(once())
    assert ('user.alice', KEYS[0]) in compared.seen


def test_a_storage_that_is_away(s3, storage, database, compared):
    made = storage()
    fill(s3)
    work(once())
    s3.fail('ListBuckets', error(503, 'SlowDown'))
    (warning,) = work(once()).lines(logging.WARNING)
    assert 'SITE_S3' in warning
    assert known(database, made)['user.alice', 'user.alice'].ended


def test_the_same_failure_is_told_once_in_an_interval(s3, storage, database, compared):
    storage()
    compared.failures = {'user.alice': ServiceUnavailable('nobody answers.')}
    worker, heart = daemon.Worker(daemon.Options()), Heart([])
    for _ in range(3):
        assert worker.run_once(heart) is True  # and sleep before the next try
    assert heart.lines(logging.WARNING) == ['RSE SITE_S3, bucket user.alice: nobody answers.']


def test_a_silent_storage_is_left_alone_and_the_others_go_on(s3, storage, database, compared, monkeypatch):
    """Each pass took four time-outs of a minute before it came to the next RSE."""
    monkeypatch.setattr('rucio.common.s3.breaker.MAX_DOUBT', 0.05)
    well = storage()
    fill(s3)
    with FakeS3() as silent:
        silent.fail('ListBuckets', *[Stalled()] * 9)
        endpoint = replace(well.endpoint, rse='SILENT_S3', rse_id='b' * 32, url=silent.url, read_timeout=0.2)
        hanging = replace(well, rse='SILENT_S3', rse_id='b' * 32, endpoint=endpoint)
        monkeypatch.setattr(daemon, '_storages', lambda _: [hanging, well])
        worker, heart = daemon.Worker(daemon.Options()), Heart([])
        for _ in range(3):
            assert worker.run_once(heart) is True
        assert silent.operations() == ['ListBuckets'] * 2  # one of the breaker's
    (warning,) = heart.lines(logging.WARNING)
    assert f'the storage at {silent.url} does not answer. It is left alone' in warning
    assert compared.seen == [('user.alice', key) for key in KEYS]


def test_of_a_storage_that_falls_silent_no_other_bucket_is_tried(s3, storage, database, compared, monkeypatch):
    storage()
    fill(s3)
    fill(s3, 'user.bob')
    monkeypatch.setattr(daemon.breaker, 'is_silent', lambda _: True)
    compared.failures = {'user.alice': ServiceUnavailable('nobody answers.')}
    (warning,) = work(once()).lines(logging.WARNING)
    assert 'SITE_S3' in warning
    assert not compared.seen


def test_no_keys(s3, storage, database, compared):
    made = storage()
    made.endpoint.__dict__['secrets'] = Secrets()
    worker, heart = daemon.Worker(once()), Heart([])
    worker.run_once(heart)
    (warning,) = heart.lines(logging.WARNING)
    assert 'has no keys' in warning
    assert not worker.failed  # users may hold keys that the server does not


def test_rows_that_somebody_broke(s3, storage, database, compared):
    made = storage()
    fill(s3)
    with database() as session:
        for option in ('round:user.alice', 'span:user.alice:0', 'span:user.alice:x'):
            session.add(models.Config(section='s3-bucket:SITE_S3:user.alice', opt=option, value='{'))
    work(once())
    assert len(compared.seen) == 40
    assert known(database, made)['user.alice', 'user.alice'].ended


# How much lies there


@pytest.fixture
def usage(database):
    """Call it for what the catalogue says of the storage: files, used, free; or give it what a probe of the site, or the operator, says."""

    def ask(limit=None, **told):
        with database() as session:
            if limit is not None:
                session.merge(models.RSELimit(rse_id=RSE_ID, name='MinFreeSpace', value=limit))
            if told:
                session.merge(models.RSEUsage(rse_id=RSE_ID, source='storage', **told))
            rows = session.execute(select(models.RSEUsage.files, models.RSEUsage.used, models.RSEUsage.free, models.RSEUsage.source)).all()
        assert all(row.source == 'storage' for row in rows)
        return [tuple(row[:3]) for row in rows]

    return ask


def test_usage_is_told_when_each_bucket_has_had_a_round(s3, storage, database, compared, usage):
    storage()
    fill(s3)
    fill(s3, 'user.bob', KEYS[:3])
    compared.failures['user.bob'] = ServiceUnavailable('nobody answers.')
    work(once())
    assert usage() == []
    compared.failures.clear()
    work(once())
    assert usage() == [(43, 430, None)]


def test_usage_with_an_empty_bucket(s3, storage, database, compared, usage):
    storage()
    fill(s3)
    s3.make_bucket('user.bob')
    work(once())
    assert usage() == [(40, 400, None)]


def test_usage_of_the_last_rounds_while_others_are_under_way(s3, storage, database, compared, usage):
    storage(capacity=1000)
    fill(s3)
    fill(s3, 'user.bob', KEYS[:3])
    work(once())
    fill(s3, 'user.bob', KEYS[:5])
    compared.slice_size = 5  # enough for the one, not for the other
    daemon.Worker(daemon.Options(interval=0)).run_once(Heart([]))
    assert usage() == [(45, 450, 550)]


def test_usage_of_a_bucket_of_empty_objects_and_of_one_that_is_gone(s3, storage, database, compared, usage):
    storage()
    for key in KEYS[:3]:
        s3.store('user.alice', key, b'')
    fill(s3, 'user.bob')
    work(once())
    assert usage() == [(43, 400, None)]
    del s3.buckets['user.bob']
    work(once())
    assert usage() == [(3, 0, None)]


def test_usage_of_a_bucket_that_several_did(s3, storage, database, compared, usage):
    made = storage(sorted_listing=True, etag_is_md5=True)
    fill(s3)
    compared.slice_size = 4
    hearts = []
    workers = [(daemon.Worker(daemon.Options()), Heart(hearts)) for _ in range(3)]
    while not (rows := known(database, made)) or not rows['user.alice', 'user.alice'].ended:
        for worker, heart in workers:
            worker.run_once(heart)
    assert usage() == [(40, 400, None)]


@pytest.mark.parametrize(
    ('endpoint', 'headers', 'free'),
    [
        ({'capacity': 1000}, {}, 600),
        ({'capacity': 100}, {}, 0),
        ({}, {'user-size': '5000', 'bucket-size': '700'}, 4600),  # of each bucket: they are many
        ({'prefix': '/user.alice/', 'algorithm': 'identity'}, {'user-size': '5000', 'bucket-size': '700'}, 300),
        ({'prefix': '/user.alice/', 'algorithm': 'identity'}, {'user-size': '-1', 'bucket-size': '700'}, 300),
        ({}, {'user-size': '-1', 'bucket-size': '-1'}, None),
        ({'capacity': 1000}, {'user-size': '5000'}, 600),
        ({}, {'user-size': '300'}, 0),
    ],
)
def test_free_space(s3, storage, database, compared, usage, endpoint, headers, free):
    storage(**endpoint)
    where = 'mc/' if 'prefix' in endpoint else ''
    with database() as session:
        session.add(models.Scope(scope=InternalScope('mc'), account=InternalAccount('root')))
    fill(s3, keys=[where + key for key in KEYS])
    answer = Answer(200, b'', tuple((f'X-RGW-Quota-{name}', value) for name, value in headers.items()))
    s3.HeadBucket = lambda _: answer
    work(once())
    assert usage() == [(40, 400, free)]


def test_a_storage_that_does_not_tell_its_quota_now(s3, storage, database, compared, usage):
    storage()
    fill(s3)
    s3.HeadBucket = lambda _: error(503, 'SlowDown')
    worker, heart = daemon.Worker(once()), Heart([])
    worker.run_once(heart)
    assert usage() == []
    assert 'busy' in heart.lines(logging.WARNING)[0]
    assert worker.failed
    del s3.HeadBucket
    worker.run_once(heart)  # tried again, without a round
    assert usage() == [(40, 400, None)]


def test_a_storage_that_does_not_tell_its_quota_is_reconciled(s3, storage, database, compared, usage):
    made = storage()
    fill(s3, keys=KEYS[:3])
    fill(s3, 'user.bob')
    work(once())
    s3.HeadBucket = lambda _: error(503, 'SlowDown')
    compared.slice_size = 10  # enough for the one, not for the other
    worker, heart = daemon.Worker(once()), Heart([])
    worker.run_once(heart)
    assert worker.failed
    assert len([line for line in heart.lines(logging.WARNING) if 'busy' in line]) == 1
    assert all(each.ended for each in known(database, made).values())


@pytest.mark.parametrize('answer', [error(403, 'AccessDenied'), error(501, 'NotImplemented'), error(404, 'NoSuchBucket')])
def test_keys_that_may_not_ask_for_the_quota(s3, storage, database, compared, usage, answer):
    storage()
    fill(s3)
    s3.HeadBucket = lambda _: answer
    work(once())
    assert usage() == [(40, 400, None)]


def test_two_workers_that_tell_it_at_once(s3, storage, database, compared, usage, monkeypatch):
    storage()
    fill(s3)
    others = usage_module.set_rse_usage

    def slower(*arguments, session, **keywords):
        session.rollback()
        with database() as opened:
            others(*arguments, session=opened, **keywords)
        raise IntegrityError('INSERT', {}, Exception())

    monkeypatch.setattr(usage_module, 'set_rse_usage', slower)
    assert work(once()).lines(logging.WARNING) == []
    assert usage() == [(40, 400, None)]


def test_an_unknown_free_space_is_not_taken_for_none_by_the_reaper(s3, storage, database, compared, usage):
    storage()
    fill(s3)
    usage(limit=100)
    (warning,) = work(once()).lines(logging.WARNING)
    assert "Set 'capacity'" in warning
    assert usage() == []
    usage(limit=0)
    work(once())
    assert usage() == [(40, 400, None)]
    usage(limit=100)  # set later, between two rounds
    daemon.Worker(daemon.Options()).run_once(Heart([]))
    assert usage() == []
    storage(capacity=1000)
    work(once())
    assert usage() == [(40, 400, 600)]


def test_what_a_probe_of_the_site_knows_is_not_overwritten_with_less(s3, storage, database, compared, usage):
    storage()
    fill(s3)
    usage(files=1, used=2, free=3)
    work(once())
    assert usage() == [(1, 2, 3)]
    storage(capacity=1000)
    work(once())
    assert usage() == [(40, 400, 600)]


def test_a_quota_is_not_what_the_reaper_goes_by(s3, storage, database, compared, usage):
    """Ceph tells a quota that is not enabled as it tells one that is: by it the reaper could delete all that no rule needs."""
    storage()
    fill(s3)
    tell_quota(s3)
    usage(limit=100)
    (warning,) = work(once()).lines(logging.WARNING)
    assert "Set 'capacity'" in warning
    assert usage() == []
    usage(limit=0)
    work(once())
    assert usage() == [(40, 400, 10)]
    usage(limit=100)  # set later, between two rounds
    daemon.Worker(daemon.Options()).run_once(Heart([]))
    assert usage() == []


def test_a_quota_is_not_told_over_what_a_probe_of_the_site_knows(s3, storage, database, compared, usage):
    storage()
    fill(s3)
    tell_quota(s3)
    usage(files=1, used=2, free=3)
    work(once())
    assert usage() == [(1, 2, 3)]
    usage(limit=100)
    work(once())
    assert usage() == [(1, 2, 3)]


@pytest.mark.parametrize('theirs', [{'files': 41}, {'used': 401}, {'free': 11}])
def test_what_another_program_has_written_since_is_not_overwritten(s3, storage, database, compared, usage, theirs):
    storage()
    fill(s3)
    tell_quota(s3)
    work(once())
    assert usage() == [(40, 400, 10)]
    wanted = {'files': 40, 'used': 400, 'free': 10} | theirs
    usage(**wanted)
    work(once())
    assert usage() == [tuple(wanted.values())]


@pytest.mark.parametrize('stored', ['no JSON', '[1]', '["x", 400, 10, null]', '{}', '1'])
def test_who_has_written_the_usage_is_doubtful(s3, storage, database, compared, usage, stored):
    """Where what was stored last cannot be read, it was another program."""
    storage()
    fill(s3)
    tell_quota(s3)
    work(once())
    with database() as session:
        session.query(models.Config).filter_by(section='s3-bucket:SITE_S3:', opt='usage').update({'value': stored})
    fill(s3, keys=['more'])
    work(once())
    assert usage() == [(40, 400, 10)]


def test_a_free_space_that_is_no_longer_known(s3, storage, database, compared, usage):
    storage(capacity=1000)
    fill(s3)
    work(once())
    assert usage() == [(40, 400, 600)]
    storage()
    tell_quota(s3)
    work(once())
    assert usage() == [(40, 400, 10)]
    del s3.HeadBucket
    work(once())
    assert usage() == [(40, 400, None)]


@pytest.mark.parametrize('quota', [(), (('X-RGW-Quota-user-size', '410'),)])
def test_a_capacity_and_a_limit_between_two_rounds(s3, storage, database, compared, usage, quota):
    storage()
    fill(s3)
    s3.HeadBucket = lambda _: Answer(200, b'', quota)
    work(once())
    assert len(usage()) == 1
    storage(capacity=1000)
    usage(limit=100)
    daemon.Worker(daemon.Options()).run_once(Heart([]))
    assert usage() == []
    work(once())
    assert usage() == [(40, 400, 600)]
    daemon.Worker(daemon.Options()).run_once(Heart([]))
    assert usage() == [(40, 400, 600)]


def test_a_usage_that_is_as_it_was_is_dated_anew(s3, storage, database, compared, usage):
    storage()
    fill(s3)
    work(once())
    with database() as session:
        session.execute(update(models.RSEUsage).values(updated_at=datetime(2020, 1, 1)))  # noqa: DTZ001 - as Rucio's are
    work(once())
    with database() as session:
        assert session.execute(select(models.RSEUsage.updated_at)).scalar_one().year > 2020


def test_imports_that_lie_in_each_other_count_once(storage):
    made = storage()

    def subtree(bucket, prefix, name):
        return Subtree(made, ALICE, bucket, prefix, f'{name}/', name)

    subtrees = [
        subtree('b', 'scenes/', 'all'),
        subtree('b', 'scenes/2026/', 'new'),
        subtree('b', 'scenes/', 'again'),
        subtree('a', 'scenes/2026/', 'else'),
        subtree('b', 'maps/', 'more'),
    ]
    last = {(each.bucket, progress.round_id(each)): progress.Round(0, 1, {'listed': 10, 'stored': 7}) for each in subtrees}
    assert usage_module.sum_usage(subtrees, last) == (30, 21)
    assert usage_module.sum_usage(subtrees, {key: value for key, value in last.items() if key[0] == 'b'}) is None
    assert usage_module.sum_usage([], {}) is None


# What is told


def test_problems_with_their_remedy_and_not_too_many(s3, storage, database, compared):
    storage()
    fill(s3, keys=['file'])
    compared.problems = [Problem('over-limit', f'user.alice:run{number}', '', 'The account alice is over its limit.', 'Ask for more.') for number in range(50)]
    lines = work(once()).lines(logging.WARNING)
    assert len(lines) == reporting.MAX_SHOWN
    assert lines[0] == 'user.alice:run0: RSE SITE_S3: The account alice is over its limit. Ask for more.'
    assert len(work(once()).lines(logging.WARNING)) == reporting.MAX_SHOWN  # in each round


def test_a_key_forges_no_line_of_the_log(s3, storage, database, compared):
    storage()
    fill(s3, keys=['file'])
    compared.problems = [Problem('unnameable', 'user.alice:a\nCRITICAL é', 'a\nCRITICAL é', "No DID can be called 'a\nCRITICAL é'.", 'Rename it.')]
    line = "user.alice:a\\nCRITICAL é: RSE SITE_S3: No DID can be called 'a\\nCRITICAL é'. Rename it."
    assert work(once()).lines(logging.WARNING) == [line]
    compared.failures['user.alice'] = ServiceUnavailable('a\nCRITICAL: down')
    assert work(once()).lines(logging.WARNING) == ['RSE SITE_S3, bucket user.alice: a\\nCRITICAL: down']


def test_metrics(s3, storage, database, compared):
    storage()
    fill(s3)

    def value(name, **labels):
        return reporting.METRICS.get_registry().get_sample_value(f'rucio_daemons_s3_reconciler_{name}', {'rse': 'SITE_S3', **labels}) or 0

    before = value('objects_total', outcome='listed'), value('round_count'), value('failures_total')
    work(once())
    compared.failures = {'user.alice': ServiceUnavailable('nobody answers.')}
    work(once())
    after = value('objects_total', outcome='listed'), value('round_count'), value('failures_total')
    assert [new - old for new, old in zip(after, before, strict=True)] == [40, 1, 1]


def test_the_bucket_that_waits_longest_is_a_metric(s3, storage, database, compared, monkeypatch):
    """While its storage does not answer, the time goes on: an alert compares it with the clock."""
    storage()
    fill(s3)

    def since():
        return reporting.METRICS.get_registry().get_sample_value('rucio_daemons_s3_reconciler_waiting_since', {'rse': 'SITE_S3'})

    began = time.time()
    work(once())
    work(once())
    ended = since()
    assert began < ended <= time.time()
    monkeypatch.setattr(daemon.progress, 'find_work', mock.Mock(side_effect=ServiceUnavailable('nobody answers.')))
    work(once())
    assert since() == ended


def test_a_dry_run_notes_nothing(s3, storage, database, compared, caplog):
    made = storage()
    fill(s3)
    with caplog.at_level(logging.INFO):
        daemon._preview(once(dry_run=True))
    assert '40 objects listed' in caplog.text
    assert compared.options['dry_run'] is True
    assert known(database, made) == {}


def test_command_line():
    given = vars(daemon.get_parser().parse_args(['--run-once', '--rses', 'tier=1', '--threads', '3']))
    options = daemon.Options(once=given.pop('run_once'), **given)
    assert options == daemon.Options(once=True, rses='tier=1', threads=3, scopes=[], vos=[])


@pytest.mark.timeout(60)
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_daemon_that_is_beginning_or_ending_to_wait(number):
    """It has the lock of the event then: the handler waited for it, in the same thread."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    event = threading.Event()
    starting.stop_on_signals(event)
    try:
        with event._cond:
            signal.raise_signal(number)
        assert event.wait(30)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@pytest.mark.parametrize('program', [daemon, copier])
def test_options_are_not_abbreviated(program, capsys):
    """The port for metrics is opened before they are parsed, unless there is --run-once."""
    with pytest.raises(SystemExit):
        program.get_parser().parse_args(['--run'])
    assert 'unrecognized arguments: --run' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('argument', 'said'),
    [
        ('--threads=0', "'0' is not 1 or more"),
        ('--sleep-time=-1', "'-1' is not"),
        ('--interval=-1', 'not a number of seconds'),
        ('--save-every=nan', "'nan' is no"),
    ],
)
def test_numbers_that_make_no_sense(argument, said, capsys):
    with pytest.raises(SystemExit):
        daemon.main(['--run-once', argument])
    assert said in capsys.readouterr().err


def test_a_configuration_without_a_database_is_named(monkeypatch):
    def no_database():
        raise NoSectionError('database')

    monkeypatch.setattr(starting, 'setup_logging', lambda **_: None)
    monkeypatch.setattr(starting, 'is_old_db', no_database)
    with pytest.raises(SystemExit, match=r"cannot start: rucio.cfg: No section: 'database'. .* RUCIO_HOME"):
        daemon.main(['--run-once'])


def test_an_inventory_in_the_place_of_a_listing(s3, storage, database, compared):
    storage()
    fill(s3)
    fill(s3, 'user.bob')
    (named,) = vars(daemon.get_parser().parse_args(['--inventory', 'SITE_S3/user.bob=s3://reports/2026/manifest.json']))['inventories']
    used = {}
    compared.run = lambda subtree, *_, **__: used.update({subtree.bucket: compared.options['lister']})
    work(once(inventories=[named]))
    assert used == {'user.alice': None, 'user.bob': named.inventory}


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--inventory', 'SITE_S3/user.bob=s3://reports/manifest.json'], '--inventory is read once: add --run-once'),
        (['--run-once', '--inventory', 's3://reports/manifest.json'], "'s3://reports/manifest.json' is not an inventory: use RSE/BUCKET=s3://"),
        (['--run-once', '--inventory', 'SITE_S3/user.bob=/tmp/manifest.json'], 'is not a manifest: use s3://bucket/path/manifest.json'),
    ],
)
def test_an_inventory_that_is_none(arguments, said, capsys):
    with pytest.raises(SystemExit):
        daemon.main(arguments)
    assert said in capsys.readouterr().err
