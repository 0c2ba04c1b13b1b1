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

"""Random runs of the reconciler in which everything fails that can fail. A program: one run for each seed, replayed by giving it again.

    python -m faults.reconciler_runs DIRECTORY FIRST LAST

DIRECTORY is that of a `RucioServer` that was prepared (RUCIO_HOME says so, too): on SQLite or PostgreSQL, with an S3 in this process or
a real one. A run begins with the same catalogue and bucket.
Then users, faults, kill -9, Rucio's own uploads and daemons have their turn in an order that only the seed decides; at the end one
run of the reconciler without faults has to make the catalogue what the bucket is.
"""

import functools
import gc
import json
import os
import pickle
import random
import shutil
import signal
import sys
import threading
import time
import traceback
import zlib
from pathlib import Path
from types import SimpleNamespace

import boto3
from botocore.handlers import add_expect_header
from botocore.retries.standard import ExponentialBackoff
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from rucio.common.exception import RucioException
from rucio.common.s3 import clients
from rucio.db.sqla import session as rucio_session
from servers.fake_s3 import Answer, error

from . import audit, rucio_acts
from .bucket import Bucket, RealBucket

PATIENCE = 120  # seconds for one step; it is killed, and the run has failed, if it takes longer
STEPS = 400  # requests, statements and commits that a run of the reconciler has, about


# Faults of the storage: what is answered in the place of what was asked for. A text is an error of the connection.


def _status(status, code):
    return lambda *_: error(status, code)


def _left_out(keep):
    """A listing that does not know yet what was written: with each key it may be so."""

    def serve(bucket, request):
        return _as_if(bucket, {key: each for key, each in bucket.objects.items() if keep(key)}, request)

    return serve


def _as_if(bucket, objects, request):
    real, bucket.buckets[bucket.name] = bucket.objects, objects
    try:
        return bucket.serve(request)
    finally:
        bucket.buckets[bucket.name] = real


def _cut(bucket, request):
    """Half of the answer: the connection broke, and nobody noticed."""
    answer = bucket.serve(request)
    return Answer(answer.status, answer.body[: len(answer.body) // 2], answer.headers)


def _empty_page(bucket, request):
    return _as_if(bucket, {}, request)


def _not_truncated(bucket, request):
    """A listing that ends after its first page, and says that it was all."""
    answer = bucket.serve(request)
    return answer._replace(body=answer.body.replace(b'<IsTruncated>true', b'<IsTruncated>false'))


EVERYWHERE = {
    '500': _status(500, 'InternalError'),
    '503': _status(503, 'SlowDown'),
    '403': _status(403, 'AccessDenied'),
    '400': _status(400, 'BadRequest'),
    'reset': lambda *_: 'reset',
    'time-out': lambda *_: 'time-out',
}
LISTING = {
    'cut': _cut,
    'no bucket': _status(404, 'NoSuchBucket'),
    'left out': _left_out(lambda key: zlib.crc32(key.encode()) % 3),
    'empty page': _empty_page,
    'not truncated': _not_truncated,
}


# What a caller of the reconciler has to be ready for. Anything else is an error of the program.
EXPECTED = (RucioException, SQLAlchemyError)


class Steps:
    """Counts requests, statements and commits of this process, and does what is planned for the n-th."""

    def __init__(self):
        self.count = 0
        self.error = Exception  # what the database's driver raises
        self._plan = {}
        self._requests, self._statements = [], []
        self._lock = threading.RLock()

    def plan(self, actions):
        """:param actions: Pairs of a step and of what is called then with this object."""
        self.count, self._plan = 0, {}
        for step, action in actions:
            self._plan.setdefault(step, []).append(action)

    def fail_requests(self, fault, times):
        self._requests += [fault] * times

    def fail_statements(self, when, times):
        self._statements += [when] * times

    def before_request(self, operation, key):
        with self._lock:
            self._step()
            if not self._requests:
                return None
            fault = self._requests.pop(0)
            # A fault of listings does nothing to the answer of a HEAD.
            return EVERYWHERE.get(fault) or (LISTING[fault] if operation == 'ListObjectsV2' else None)

    def before_statement(self, *_):
        with self._lock:
            self._step()
            if self._statements and self._statements.pop(0):
                raise self.error('disk I/O error')

    def around_commit(self, commit, connection):
        """A commit may fail before it, or be done while the answer is lost."""
        with self._lock:
            self._step()
            when = self._statements.pop(0) if self._statements else None
            if when == 'before':
                raise self.error('disk I/O error')
            commit(connection)
            self._step()
            if when == 'after':
                raise self.error('the answer was lost')

    def _step(self):
        self.count += 1
        for action in self._plan.pop(self.count, ()):
            action(self)


class User:
    """Somebody with another client."""

    # What is there of Rucio's own, and would be his own fault.
    hands_off = (rucio_acts.BAD, 'closed/file')
    # What is written again and again, the same size and one of two contents: what was, is not, and is again.
    favourites = ('run1/parts0', 'run1/file0', 'run2/deep/file1', 'cached/file0', 'twin/file1')

    def __init__(self, bucket, rng, say):
        self._bucket, self._rng, self._say = bucket, rng, say

    def act(self):
        acts = {self.put: 5, self.overwrite: 4, self.delete: 4, self.rename: 2, self.restore: 2, self.delete_directory: 0.5, self.put_what_is_no_name: 1}
        self._rng.choices(list(acts), acts.values())[0]()

    def _pick(self, *, cached=True):
        keys = [key for key in sorted(self._bucket.objects) if key not in self.hands_off and (cached or not key.startswith('cached/'))]
        return self._rng.choice(keys) if keys else None

    def _write(self, key, size=None):
        size = self._rng.choice([0, 1, 9, 13, 20, 33, 64]) if size is None else size
        seed, parts = self._rng.getrandbits(30), self._rng.random() < 0.25
        self._say(f'user: put {key} ({size} bytes{", in parts" if parts else ""})')
        self._bucket.put(key, size, seed, parts=parts)

    def put(self):
        number = self._rng.randrange(30)
        self._write(self._rng.choice([f'run1/new{number}', f'run1/sub/new{number}', f'run2/deep/new{number}', f'new{number % 4}/a/b', f'solo{number}']))

    def overwrite(self):
        if self._rng.random() < 0.4:
            key = self._rng.choice(self.favourites)
            parts, seed = self._rng.random() < 0.6, self._rng.choice(['one', 'other'])
            self._say(f'user: put {key} again, the {seed}{", in parts" if parts else ""}')
            self._bucket.put(key, rucio_acts.AVAILABLE[key][0], seed, parts=parts)
        elif key := self._pick():
            self._write(key, self._rng.choice([None, len(self._bucket.objects[key].body)]))

    def delete(self):
        if key := self._pick():
            self._say(f'user: delete {key}')
            self._bucket.remove(key)

    def delete_directory(self):
        prefix = self._rng.choice(['run1/sub/', 'run2/', 'new1/', 'run2/deep/'])
        self._say(f'user: delete all of {prefix}')
        for key in sorted(self._bucket.objects):
            if key.startswith(prefix):
                self._bucket.remove(key)

    def rename(self):
        key = self._pick(cached=False)
        if key:
            other = f'{self._rng.choice(["run1", "run2/deep", "moved"])}/renamed{self._rng.randrange(20)}'
            self._say(f'user: rename {key} to {other}')
            self._bucket.rename(key, other)

    def restore(self):
        """Puts again what was there in the beginning."""
        name = self._rng.choice(sorted(name for name in rucio_acts.AVAILABLE if not name.startswith(('cached/', 'closed/', 'twin/file1'))))
        size, parts = rucio_acts.AVAILABLE[name]
        self._say(f'user: put {name} as it was')
        self._bucket.put(name, size, name, parts=parts)

    def put_what_is_no_name(self):
        self._write(
            self._rng.choice(
                [
                    'run1/a name with spaces',
                    'run1/sub/directory/',
                    'run2',
                    'run1/half.rucio.upload',
                    'closed/new',
                    f'run1/{"x" * 125}/{"y" * 125}',
                    'r\u00f6m/\u00e9',
                ]
            )
        )


class Run:
    """One seed."""

    def __init__(self, seed, directory, bucket):
        self.seed, self.directory, self.bucket = seed, directory, bucket
        self.rng = random.Random(seed)
        self.log = directory / 'steps.log'
        self.log.write_text('')

    def say(self, line):
        with self.log.open('a') as log:
            log.write(line + '\n')

    def play(self):
        """All of it. :raises AssertionError: with what is wrong."""
        for _ in range(self.rng.randint(3, 7)):
            turn = self.rng.choices([self.users_turn, self.failing_run, self.rucios_turn, self.two_runs], [5, 6, 2, 1])[0]
            turn()
        self.end()
        # What a user puts now, also where something was forgotten, outlives Rucio's daemons before the next run of the reconciler.
        self.users_turn()
        self.end(daemons_first=True)

    def end(self, *, daemons_first=False):
        """One run without a fault; Rucio's daemons; then all must agree, and another run finds nothing to do."""
        found = self.in_child("a run without faults, and Rucio's daemons", lambda: self._end(daemons_first))
        assert not found, '\n'.join(found)

    def _end(self, daemons_first):
        if daemons_first:
            rucio_acts.daemons()
        summary = self.reconcile('whole', [])
        rucio_acts.daemons()
        reported = {each['key'] for each in summary['problems']} | {each['did'].partition(':')[2] for each in summary['problems']}
        lasting = rucio_acts.AVAILABLE.keys() - self.bucket.removed
        found = audit.differences(self.bucket.objects, audit.Catalogue(), reported=reported, exempt=self.exempt, lasting=lasting)
        left = {key: each.body for key, each in self.bucket.objects.items()}
        found += [f'{key}: what a user wrote was destroyed' for key, body in self.bucket.written.items() if left.get(key) != body]
        found += self.bucket.wrong()
        again = self.reconcile('whole', [])['counts']
        acts = {name: again[name] for name in ('registered', 'replaced', 'forgotten', 'completed', 'bad', 'lost', 'failed') if again.get(name)}
        return [*found, f'an unchanged bucket is not left alone: {acts}'] if acts else found

    @property
    def exempt(self):
        """The operator's own bad file, and files with a copy elsewhere: what a user did to these is reported."""
        return {rucio_acts.BAD, 'twin/file0', 'twin/file1'}

    # Turns

    def users_turn(self):
        user = User(self.bucket, self.rng, self.say)
        for _ in range(self.rng.randint(1, 6)):
            user.act()

    def rucios_turn(self):
        if self.rng.random() < 0.5:
            self.in_child('judge', rucio_acts.judge)
            return
        name = f'{self.rng.choice(["run1/", "run2/deep/", ""])}upload{self.rng.randrange(50)}'
        size, ends = self.rng.choice([0, 8, 25]), self.rng.random() < 0.6
        if name in self.bucket.objects:
            return
        arrived = self.in_child(f'rucio upload {name}', lambda: rucio_acts.begin_upload(name, size, name), may_fail=True)
        if arrived:
            self.bucket.put(name, size, name)
            if ends:
                self.in_child(f'rucio upload {name} ends', lambda: rucio_acts.end_upload(name))

    def failing_run(self):
        plan = self._plan()
        mode = self.rng.choice(['whole', 'whole', 'resumed', 'ranges', 'part', 'keys'])
        self.in_child(f'reconciler: {mode}', lambda: self.reconcile(mode, plan), may_fail=True)

    def two_runs(self):
        """At once, in two processes. No user: what one of them does to the bucket the other would not know."""
        modes = [self.rng.choice(['whole', 'resumed', 'ranges']) for _ in range(2)]
        children = [self._fork(f'reconciler, one of two: {mode}', lambda mode=mode: self.reconcile(mode, [])) for mode in modes]
        for child in children:
            self._wait(child, may_fail=True)

    def _plan(self):
        """What happens at which step: faults, users, kill -9."""
        plan = []
        for _ in range(self.rng.choice([1, 1, 2, 3, 5])):
            what = self.rng.choices(['request', 'statement', 'user', 'kill'], [4, 3, 4, 2])[0]
            step = int(self.rng.choice([20, 100, STEPS]) * self.rng.random()) + 1
            detail = {
                'request': lambda: (self.rng.choice([*EVERYWHERE, *LISTING]), self.rng.choice([1, 1, 2, 5, 1000])),
                'statement': lambda: (self.rng.choice(['before', 'after']), self.rng.choice([1, 1, 3, 1000])),
            }.get(what, lambda: ())()
            plan.append((step, what, *detail))
        return sorted(plan)

    # In a child

    def reconcile(self, mode, plan):
        from rucio.core.s3.reconciler import walk  # noqa: PLC0415

        steps = _attach(self.bucket, self._actions(plan))
        subtree = rucio_acts.subtree('run1' if mode == 'part' else '')
        made = walk.Reconciler(subtree, on_changed='replace', on_missing='forget')
        try:
            if mode == 'keys':
                made.check([*self.rng.sample(sorted(self.bucket.objects), 3), 'run1/file0', 'run1/new1', 'solo3'])
            else:
                pieces = walk.ranges(subtree, 3) if mode == 'ranges' else [('', None)]
                for after, until in pieces:
                    while after is not None:
                        after = made.run(after, until, seconds=0 if mode == 'resumed' else None)  # noqa: PLW2901
        finally:
            counts = {name: count for name, count in made.summary.counts.items() if count}
            self.say(f'   {steps.count} steps, {counts}')
        return made.summary.as_dict()

    def _actions(self, plan):
        user = User(self.bucket, random.Random(f'{self.seed}/{plan}'), self.say)

        def kill(_):
            os.kill(os.getpid(), signal.SIGKILL)

        def request(fault, times):
            return lambda steps: steps.fail_requests(fault, times)

        def statement(when, times):
            return lambda steps: steps.fail_statements(when, times)

        makers = {'kill': lambda: kill, 'user': lambda: lambda _: user.act(), 'request': request, 'statement': statement}
        for step, what, *detail in plan:
            self.say(f'   step {step}: {what} {" ".join(map(str, detail))}'.rstrip())
        return [(step, makers[what](*detail)) for step, what, *detail in plan]

    # Processes

    def in_child(self, what, function, *, may_fail=False):
        """Call it in a process of its own.

        :param may_fail: It may be killed, or raise what Rucio's callers expect.
        :returns: What it returned, as JSON has it; None if it failed.
        """
        return self._wait(self._fork(what, function), may_fail=may_fail)

    def _fork(self, what, function):
        self.say(f'-- {what}')
        answer = self.directory / f'answer{time.monotonic_ns()}'
        child = os.fork()
        if not child:
            code = 1
            try:
                signal.alarm(PATIENCE)
                answer.write_text(json.dumps(function()) or 'null')
                code = 0
            except EXPECTED as failure:
                self.say(f'   {type(failure).__name__}: {str(failure).splitlines()[0][:200]}')
                code = 3
            except BaseException:  # noqa: BLE001 - it must not go on as its parent
                self.say(traceback.format_exc())
            finally:
                os._exit(code)
        return child, what, answer

    def _wait(self, started, *, may_fail):
        child, what, answer = started
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.bucket.replay()
        if code:
            self.say(f'   {what} ended with {code}')
        assert code in ((0, 3, -signal.SIGKILL) if may_fail else (0,)), f'{what} ended with {code}'
        if code:
            answer.unlink(missing_ok=True)
            return None
        said = json.loads(answer.read_text())
        answer.unlink()
        return True if said is None else said


def _attach(bucket, actions):
    """Count from here on, in this process, and do this."""
    _steps.plan(actions)
    bucket.before = _steps.before_request
    return _steps


_steps = Steps()


def _prepare_process(bucket, *, sockets):
    """Once, before all forks: hooks, and no time is lost for what a child would do again."""
    made = {}

    def shared(endpoint, authorizer, patience):
        # Without a socket a child may use the client of its parent; making one is half of the time of a run.
        key = (authorizer.identity, patience, os.getpid() if sockets else 0)
        if key not in made:
            made[key] = make(endpoint, authorizer, patience)
            bucket.attach(made[key])
        return made[key]

    make, clients._make = clients._make, shared
    ExponentialBackoff.delay_amount = lambda *_: 0
    engine = rucio_session.get_engine()
    if engine.dialect.name == 'sqlite':
        event.listen(engine, 'connect', lambda connection, _: connection.execute('PRAGMA synchronous = OFF'))
    _steps.error = engine.dialect.dbapi.OperationalError
    event.listen(engine, 'do_execute', _steps.before_statement)
    event.listen(engine, 'do_executemany', _steps.before_statement)
    commit, engine.dialect.do_commit = engine.dialect.do_commit, lambda connection: _steps.around_commit(commit, connection)


class SQLiteCopy:
    """The database as it was at a time."""

    def __init__(self, home):
        self._database, self._copy = home / 'rucio.db', home / 'template.db'

    def save(self):
        self._close()
        shutil.copyfile(self._database, self._copy)

    def restore(self):
        self._close()
        shutil.copyfile(self._copy, self._database)

    def _close(self):
        """No connection may live in two processes; the last one takes the write-ahead log with it."""
        rucio_session.get_engine().dispose()
        for suffix in ('-wal', '-shm'):
            self._database.with_name(self._database.name + suffix).unlink(missing_ok=True)


class PostgreSQLCopy:
    """The same there: databases are copied by the server."""

    def __init__(self):
        self._url = rucio_session.get_engine().url

    def save(self):
        self._run(f'CREATE DATABASE saved TEMPLATE {self._url.database}')

    def restore(self):
        # Connections of processes that were killed may still be there.
        self._run(f'DROP DATABASE {self._url.database} WITH (FORCE)', f'CREATE DATABASE {self._url.database} TEMPLATE saved')

    def _run(self, *statements):
        rucio_session.get_engine().dispose()
        server = create_engine(self._url.set(database='template1'), isolation_level='AUTOCOMMIT', poolclass=NullPool)
        with server.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))


class Template:
    """The catalogue and the bucket that each run begins with. A file `s3.json` in `home` says where a real S3 is."""

    def __init__(self, home):
        self._objects = home / 'template.objects'
        self.directory = home / 'runs'
        self.directory.mkdir(exist_ok=True)
        journal, real = self.directory / 'journal', home / 's3.json'
        nowhere = {'scheme': 'http', 'hostname': '127.0.0.1', 'port': 9, 'region': 'us-east-1'}
        storage = json.loads(real.read_text()) if real.exists() else nowhere
        settings = storage.pop('settings', {})
        name = settings.get('bucket_prefix', '') + str(rucio_acts.SCOPE)
        self.bucket = RealBucket(name, journal, functools.partial(_client, storage)) if real.exists() else Bucket(name, journal)
        _prepare_process(self.bucket, sockets=real.exists())
        self._database = SQLiteCopy(home) if rucio_session.get_engine().dialect.name == 'sqlite' else PostgreSQLCopy()
        if not self._objects.exists():
            rucio_acts.make(self.bucket, SimpleNamespace(**storage), **settings)
            rucio_acts.judge()
            rucio_acts.count()
            self._database.save()
            self._objects.write_bytes(pickle.dumps(self.bucket.objects))
        self._warm_up()

    def _warm_up(self):
        """Much of the time of a short process is for the first of everything (statements are compiled, modules are read): a child inherits it."""
        self.begin()
        run = Run(0, self.directory, self.bucket)
        for act in (lambda: None, run.users_turn, lambda: self.bucket.put('solo1', 4, 1), lambda: self.bucket.remove('run1/file7')):
            act()
            run.reconcile('whole', [])
        run.reconcile('ranges', [])
        rucio_acts.daemons()
        audit.Catalogue()
        gc.collect()
        gc.freeze()

    def begin(self):
        """Everything as in the beginning."""
        self._database.restore()
        self.bucket.begin(pickle.loads(self._objects.read_bytes()))
        unlocked = (rucio_acts.BAD, 'twin/file1')
        self.bucket.written = {key: each.body for key, each in self.bucket.objects.items() if key not in unlocked and not key.startswith('cached/')}


def _client(storage):
    """Another client than Rucio's."""
    keys = {'aws_access_key_id': storage['access_key'], 'aws_secret_access_key': storage['secret_key']}
    made = boto3.Session(region_name=storage['region'], **keys).client('s3', endpoint_url=f'{storage["scheme"]}://{storage["hostname"]}:{storage["port"]}')
    # As for Rucio's own: an early answer would be taken for that to the next request.
    made.meta.events.unregister('before-call.s3', add_expect_header)
    return made


def main(directory, first, last):
    template = Template(Path(directory))
    failed = 0
    for seed in range(int(first), int(last)):
        template.begin()
        run = Run(seed, template.directory, template.bucket)
        started = time.monotonic()
        try:
            run.play()
        except AssertionError as failure:
            failed += 1
            sys.stdout.write(f'seed {seed}:\n{run.log.read_text()}{failure}\n\n')
        else:
            sys.stdout.write(f'seed {seed}: {time.monotonic() - started:.2f} s\n')
        sys.stdout.flush()
    return failed


if __name__ == '__main__':
    sys.exit(min(main(*sys.argv[1:]), 100))
