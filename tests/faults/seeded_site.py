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

"""Where seeded operations happen: a storage, a Rucio server, and a fault proxy in front of each.

The storage's proxy knows which operation a request belongs to by the User-Agent (AWS_EXECUTION_ENV, which botocore puts there); the Rucio
server has a proxy for each user, who does one thing at a time.
"""

import contextlib
import os
import resource
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from servers.ceph import CephRGW
from servers.cli import RucioCli, add_s3_rse, add_user
from servers.files import command_path
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS
from servers.workers import Ended, Running, Worker

from .plans import COPY, ONLY, PATIENCE, SERVER, SIGNALS, SIGNED, STORAGE, STORAGE_KILLED, USERS, VENDED, WORKERS, Operation, Plan
from .proxy import Exchange, Fault, FaultProxy, Request, forward, older
from .short_keys import is_assume_role, short_keys

TESTS = str(Path(__file__).parent.parent)
PREFIXES = {VENDED: '', SIGNED: 'signed-', COPY: 'copy-'}
SETTINGS = {'read_timeout': PATIENCE, 'connect_timeout': PATIENCE, 'max_attempts': 3, 'progress': 'off'}
PARTS = {'multipart_threshold': '5 MiB', 'multipart_chunksize': '5 MiB'}
LONGEST = 150  # seconds: what an operation may take, with all its retries, on a busy machine
# What is imported only when it is used, too.
CLIENT = (
    *('rucio.cli.command', 'rucio.cli.bin_legacy.rucio', 'rucio.client.uploadclient', 'rucio.client.downloadclient', 'rucio.client.s3client'),
    *('rucio.cli.upload', 'rucio.cli.download', 'rucio.cli.did', 'rucio.cli.rule'),
    *('rucio.rse.protocols.s3', 'rucio.client.s3files.upload', 'rucio.common.s3.remote', 'rucio.common.s3.vended'),
    *('rucio.cli.s3.upload', 'rucio.cli.s3.buckets', 'rucio.cli.s3.access', 'rucio.cli.s3.reconcile', 'rucio.cli.s3.sharing'),
    'faults.warm',
)
DAEMONS = ('faults.daemons', 'flask', 'faults.warm')


class Passed(NamedTuple):
    """A request of an operation, and what was done to it."""

    side: str
    number: int
    operation: str
    key: str
    what: str


class Command:
    """Something that an operation runs: a process that can be sent signals, and whose requests are counted."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.process: Running | None = None
        self.killed = False
        self.passed: list[Passed] = []
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def next(self, side: str) -> list[str]:
        """What happens to the next request on this side."""
        with self._lock:
            self._counts[side] += 1
            number = self._counts[side]
        return [fault.what for fault in self.operation.faults if (fault.side, fault.number) == (side, number)]

    def remember(self, side: str, request: Request, what: str) -> None:
        self.passed.append(Passed(side, self._counts[side], request.operation if side == 'storage' else request.method, request.key, what))

    def signal(self, name: str) -> None:
        self.killed = self.killed or name == 'SIGKILL'
        for number in SIGNALS[name]:
            if self.process:
                self.process.send_signal(number)
                threading.Event().wait(0.1)


@dataclass
class User:
    """An account of one run, and its worker."""

    name: str
    cli: RucioCli
    worker: Worker

    @property
    def account(self) -> str:
        return self.cli.account

    @property
    def scope(self) -> str:
        return f'user.{self.cli.account}'


@dataclass
class Lane:
    """Who does one thing at a time: a user, or the operator. `command` is what is under way."""

    worker: Worker
    proxy: FaultProxy
    command: Command | None = None


@dataclass
class Site:
    """The servers of all runs."""

    directory: Path
    storage: Any
    server: RucioServer
    root: RucioCli
    front: FaultProxy
    lanes: dict[str, Lane] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)
    faulty: bool = False
    age: timedelta = timedelta()  # what else than objects was made older by
    plan: Plan | None = None
    storage_up: threading.Lock = field(default_factory=threading.Lock)  # held by who needs it, and by who kills it until it is up again
    done: Counter[str] = field(default_factory=Counter)  # the faults that came to pass
    _requests_of_server: int = 0
    _assumed: int = 0

    @classmethod
    def make(cls, stack: contextlib.ExitStack, directory: Path, storage: str) -> 'Site':
        """:param storage: seaweedfs or ceph."""
        for name in ('storage', 'rucio', 'root', *USERS):
            (directory / name).mkdir(parents=True, exist_ok=True)
        real = stack.enter_context(CephRGW(directory / 'storage') if storage == 'ceph' else SeaweedFS(directory / 'storage', sts=True))
        config = {'policy': {'package': 'rucio_s3_policy'}, 'conveyor': {'transfertool': 's3'}, 's3': {k: v for k, v in SETTINGS.items() if k != 'progress'}}
        server = stack.enter_context(RucioServer(directory / 'rucio', config))
        site = cls(
            directory,
            real,
            server,
            RucioCli.root(directory / 'root', server),
            FaultProxy(real.hostname, real.port, lambda request: site._at_storage(request)),  # noqa: PLW0108 - it is made below
        )
        stack.enter_context(site.front)
        site._add_rses(storage)
        for who in USERS:
            lane = site._add_lane(stack, who)
            site.lanes[who] = lane
        environment = {**server.environment, 'PYTHONPATH': TESTS}
        operators = Worker(environment, directory / 'rucio', DAEMONS)
        site.lanes['operator'] = Lane(stack.enter_context(operators), site.front)
        return site

    def _add_lane(self, stack: contextlib.ExitStack, who: str) -> Lane:
        proxy = stack.enter_context(FaultProxy('127.0.0.1', self.server.port, lambda request: self._at_server(who, request)))
        nobody = RucioCli(self.directory / who, self.server, who, who, 'none')
        environment = {**nobody.environment, 'PYTHONPATH': TESTS}
        return Lane(stack.enter_context(Worker(environment, self.directory / who, CLIENT)), proxy)

    def _add_rses(self, storage: str) -> None:
        seen = SimpleNamespace(scheme='http', hostname='127.0.0.1', port=self.front.port, region=self.storage.region)
        for rse, prefix in PREFIXES.items():
            settings = {
                'provider': storage,
                **PARTS,
                **({'bucket_prefix': prefix} if prefix else {}),
                **({'role_arn': self.storage.role_arn} if rse == VENDED else {}),
            }
            self.ids[rse] = add_s3_rse(self.root, rse, seen, settings=settings)
            self.server.set_rse_keys(self.ids[rse], self.storage.access_key, self.storage.secret_key)
        self.root.calls(*(('add_distance', a, b, {'distance': 1}) for a in PREFIXES for b in PREFIXES if a != b))

    def add_user(self, who: str, seed: int) -> User:
        """The account of a run. It holds no keys, and is no admin."""
        lane, account = self.lanes[who], f'{who}{seed}'
        url = f'http://127.0.0.1:{lane.proxy.port}'
        config = {'client': {'rucio_host': url, 'auth_host': url, 'request_retries': 2}, 's3': SETTINGS}
        folder = self.directory / who / str(seed)
        folder.mkdir()
        return User(who, add_user(self.root, folder, account, scopes=[f'user.{account}'], attributes=(), rses=PREFIXES, config=config), lane.worker)

    def begin(self, plan: Plan) -> None:
        """From now on things fail."""
        self.plan, self._requests_of_server, self._assumed, self.age, self.faulty = plan, 0, 0, timedelta(), True

    def end(self) -> None:
        """Nothing fails any more."""
        with self.storage_up:
            self.faulty = False

    # Commands

    def run(self, operation: Operation, words: tuple[str, ...], environment: dict[str, str], directory: Path) -> tuple[Ended, Command]:
        """Run one command of an operation to its end."""
        lane, command = self.lanes[operation.who], Command(operation)
        output = self.directory / 'output' / f'{operation.identifier}.{operation.who}'
        output.parent.mkdir(exist_ok=True)
        output.unlink(missing_ok=True)
        options: dict[str, Any] = {'environment': {**environment, 'AWS_EXECUTION_ENV': operation.identifier}, 'directory': directory, 'output': output}
        self.commands[operation.identifier] = lane.command = command
        try:
            start = _alone if operation.subprocess else lane.worker.start
            command.process = start(*words, **options, file_size=operation.file_size)  # type: ignore[operator]
            return command.process.wait(LONGEST), command
        finally:
            lane.command = None
            output.unlink(missing_ok=True)

    # Proxies

    def _at_storage(self, request: Request) -> Fault:
        agent = next((value for name, value in request.headers.items() if name.lower() == 'user-agent'), '')
        command = self.commands.get(agent.partition('exec-env/')[2].partition(' ')[0])
        if not self.faulty or not self.plan:
            return older(self.age)
        if command:
            return self._chosen(command, 'storage', request)
        return self._of_server(request, self.plan)

    def _of_server(self, request: Request, plan: Plan) -> Fault:
        self._requests_of_server += 1
        self._assumed += is_assume_role(request)
        what = plan.of_server.get(self._requests_of_server)
        if is_assume_role(request) and not what and (seconds := plan.of_sts.get(self._assumed)):
            self.done['keys that end after seconds'] += 1
            return short_keys(self.storage, seconds)
        if not what or request.operation not in ONLY.get(what, (request.operation,)):
            return forward
        self.done[f'{what} at {request.operation} of the Rucio server'] += 1
        return STORAGE[what]

    def _at_server(self, who: str, request: Request) -> Fault:
        command = self.lanes[who].command
        return self._chosen(command, 'server', request) if self.faulty and command else forward

    def _chosen(self, command: Command, side: str, request: Request) -> Fault:
        wanted = command.next(side)
        command.remember(side, request, ', '.join(wanted))
        chosen, where = forward, request.operation if side == 'storage' else 'Rucio server'
        for what in wanted:
            if where not in ONLY.get(what, (where,)):
                continue
            self.done[f'{what} at {where}'] += 1
            if what in SIGNALS:
                chosen = self._signal(command, what)
            elif what in WORKERS:
                chosen = self._worker(what)
            elif what == STORAGE_KILLED:
                chosen = self._kill_storage
            else:
                chosen = (STORAGE if side == 'storage' else SERVER)[what]
        return chosen

    @staticmethod
    def _signal(command: Command, what: str) -> Fault:
        def send(exchange: Exchange) -> None:
            command.signal(what)
            forward(exchange)

        return send

    def _kill_storage(self, exchange: Exchange) -> None:
        """While it does what it is asked for. It has the same data at the same address when it is up again."""
        if self.storage_up.acquire(blocking=False):
            threading.Thread(target=self._restart_storage).start()
        forward(exchange)

    def _restart_storage(self) -> None:
        try:
            self.storage.restart()
        finally:
            self.storage_up.release()

    def _worker(self, what: str) -> Fault:
        """To the youngest of the Rucio server's processes: the oldest lives as long as the site, so that its memory can be looked at."""

        def act(exchange: Exchange) -> None:
            worker = self.workers()[-1]
            if what.endswith('full disk'):
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(worker, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
                try:
                    forward(exchange)
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, SIGNALS[what.removeprefix('worker ')][0])
                forward(exchange)

        return act

    # What there is

    def workers(self) -> list[int]:
        """The processes of the Rucio server, the oldest first."""
        parent = self.server.pid
        children = Path(f'/proc/{parent}/task/{parent}/children').read_text().split()
        return sorted(map(int, children), key=_started)

    def footprint(self) -> dict[str, int]:
        """Of the oldest process of the Rucio server: resident memory in KiB, and open files."""
        worker = self.workers()[0]
        pages = int(Path(f'/proc/{worker}/statm').read_text().split()[1])
        return {'pid': worker, 'KiB': pages * resource.getpagesize() // 1024, 'files': len(os.listdir(f'/proc/{worker}/fd'))}

    def rows(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        """What is in Rucio's database."""
        return self.server.rows(query, **values)


def _started(pid: int) -> int:
    try:
        return int(Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19])
    except OSError:
        return 0


class _Alone(Running):
    """A process without a worker, as a user starts it."""

    def __init__(self, process: 'subprocess.Popen[bytes]', output: Path) -> None:
        self._process = process
        super().__init__(self, process.pid, output)  # type: ignore[arg-type]

    def _line(self, timeout: float) -> bytes:
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return b''
        return b'%d' % (-code if code < 0 else code << 8)


def _alone(command: str, *arguments: str, environment: dict[str, str], directory: Path, output: Path, file_size: int) -> Running:
    assert not file_size
    words = [sys.executable, '-m', command.partition(':')[0]] if ':' in command else [command_path(command)]
    with output.open('ab') as log:
        process = subprocess.Popen([*words, *arguments], env=environment, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    return _Alone(process, output)
