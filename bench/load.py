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
"""Load the Rucio server: ping, a route that only looks at the token, signatures one by one and in batches of 100, keys from its
cache; at its capacity, with as many clients as keep all workers busy, and with twice as many requests as that.

    .venv/dev/bin/python bench/load.py --rounds 5 --seconds 3 --json load.json

Needs PostgreSQL, and psycopg in the environment; --sqlite does without. Clients send bare HTTP, a connection for each request, as
gunicorn's workers of one thread keep none; they use the same cores as the server, so figures are to be read as ratios to ping.
"""

import argparse
import json
import socket
import statistics
import threading
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from measuring import Failed, cpu_of, workplace  # puts the servers on the path
from silent import made, percentile

from servers.cli import RucioCli
from servers.postgres import PostgreSQL
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS
from servers.team import Team, ok

BATCH = 100  # signatures
CLIENTS = 4  # that ask again as soon as they are answered: two for each worker
WAITING = 64  # clients at most that wait for an answer, if there is too much to do
PATIENCE = 30  # seconds of a client
NO_LIMITS = {'s3': {'signatures_per_second': '0', 'vends_per_second': '0'}}


class Kind(NamedTuple):
    """A request, and how many signatures it is."""

    name: str
    wire: bytes
    worth: int = 1


class Load(NamedTuple):
    """What came of many requests: answers in each second, seconds of CPU of the workers for each, and the times of them."""

    rate: float
    cpu: float
    times: list[float]
    failed: int


def kinds(team: Team) -> list[Kind]:
    token = (team.owner.directory / 'auth_token').read_text(encoding='utf-8').strip()
    keys = {'rse': team.rse, 'bucket': team.scope, 'prefix': 'run1/'}
    return [
        Kind('ping', wire('GET', '/ping')),
        Kind('whoami', wire('GET', '/accounts/whoami', token)),
        Kind('sign', wire('POST', '/s3/sign', token, to_sign(team, 1))),
        Kind(f'sign {BATCH}', wire('POST', '/s3/sign', token, to_sign(team, BATCH)), BATCH),
        Kind('vend', wire('POST', '/s3/credentials', token, keys)),
        Kind('vend DID', wire('POST', '/s3/credentials', token, {'rse': team.rse, 'scope': team.scope, 'name': 'run1'})),
    ]


def to_sign(team: Team, number: int) -> dict[str, Any]:
    url = f'{team.storage.url}/{team.scope}/run1/file'
    return {'rse': team.rse, 'requests': [{'method': 'GET', 'uri': f'{url}{each}', 'headers': {}} for each in range(number)]}


def wire(method: str, path: str, token: str = '', body: Any = None) -> bytes:
    text = b'' if body is None else json.dumps(body).encode()
    lines = [f'{method} {path} HTTP/1.1', 'Host: 127.0.0.1', 'Connection: close']
    lines += [f'X-Rucio-Auth-Token: {token}'] if token else []
    lines += ['Content-Type: application/json', f'Content-Length: {len(text)}'] if text else []
    return '\r\n'.join([*lines, '', '']).encode() + text


class Clients:
    """Of a server.

    :param seconds: How long each load is.
    """

    def __init__(self, server: RucioServer, seconds: float) -> None:
        self._server, self._seconds = server, seconds

    def _workers(self) -> list[int]:
        pid = self._server.pid
        return [int(each) for each in Path(f'/proc/{pid}/task/{pid}/children').read_text(encoding='utf-8').split()]

    def ask(self, wire: bytes) -> bool:
        """Whether the answer was a good one."""
        try:
            with socket.create_connection(('127.0.0.1', self._server.port), timeout=PATIENCE) as connection:
                connection.sendall(wire)
                pieces = list(iter(lambda: connection.recv(1 << 16), b''))
        except OSError:
            return False
        return pieces[:1] != [] and pieces[0][9:10] in b'23'

    def load(self, kind: Kind, rate: float | None = None) -> Load:
        """
        :param rate: Requests in each second, whenever they are answered; without, each client asks when it was answered.
        """
        times: list[float] = []
        failures: list[float] = []
        numbers, began, used = count(), time.perf_counter(), self._cpu()

        def client() -> None:
            while True:
                due = began + next(numbers) / rate if rate else time.perf_counter()
                if due >= began + self._seconds:
                    return
                time.sleep(max(0.0, due - time.perf_counter()))
                right = self.ask(kind.wire)
                (times if right else failures).append(time.perf_counter() - due)

        threads = [threading.Thread(target=client) for _ in range(WAITING if rate else CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        answered = max(1, len(times))
        return Load(answered / (time.perf_counter() - began), (self._cpu() - used) / answered, sorted(times), len(failures))

    def _cpu(self) -> float:
        return sum(map(cpu_of, self._workers()))

    def warm(self, kind: Kind) -> None:
        for _ in range(20):
            if not self.ask(kind.wire):
                raise Failed(f'{kind.name} is refused:\n{self._server.log.read_text(encoding="utf-8")[-2000:]}')


def measured(clients: Clients, every: list[Kind], rounds: int) -> dict[str, dict[str, Any]]:
    """In turns; medians of all rounds."""
    for kind in every:
        clients.warm(kind)
    at_capacity: dict[str, list[Load]] = {kind.name: [] for kind in every}
    beyond: dict[str, list[Load]] = {kind.name: [] for kind in every}
    for _ in range(rounds):
        for kind in every:
            at_capacity[kind.name].append(clients.load(kind))
        for kind in every:
            beyond[kind.name].append(clients.load(kind, 2 * statistics.median(each.rate for each in at_capacity[kind.name])))
    return {kind.name: {'capacity': told(at_capacity[kind.name], kind), 'twice': told(beyond[kind.name], kind)} for kind in every}


def told(loads: list[Load], kind: Kind) -> dict[str, float]:
    times = [each for load in loads for each in load.times]
    return {
        'rate': statistics.median(load.rate for load in loads) * kind.worth,
        'cpu_us': statistics.median(load.cpu for load in loads) * 1e6 / kind.worth,
        'p50_ms': 1000 * percentile(times, 50),
        'p99_ms': 1000 * percentile(times, 99),
        'failed': sum(load.failed for load in loads),
    }


def report(found: dict[str, dict[str, Any]]) -> None:
    print(f'{"":10} {"rate":>8} {"/ ping":>7} {"CPU":>8} {"p50":>9} {"p99":>9}   {"at twice":>9} {"p50":>9} {"p99":>9} {"failed":>6}')
    ping = found['ping']['capacity']['rate']
    for name, each in found.items():
        here, beyond = each['capacity'], each['twice']
        print(
            f'{name:10} {here["rate"]:6.0f}/s {here["rate"] / ping:7.2f} {here["cpu_us"]:5.0f} us {here["p50_ms"]:6.1f} ms {here["p99_ms"]:6.1f} ms   '
            f'{beyond["rate"]:7.0f}/s {beyond["p50_ms"]:6.0f} ms {beyond["p99_ms"]:6.0f} ms {here["failed"] + beyond["failed"]:6.0f}'
        )


def main() -> None:
    parser = argparse.ArgumentParser(description='signatures and keys of the Rucio server, against its ping')
    parser.add_argument('--rounds', type=int, default=5, help='of all kinds of requests (5)')
    parser.add_argument('--seconds', type=float, default=3, help='of each kind in each round (3)')
    parser.add_argument('--sqlite', action='store_true', help="Rucio's catalogue in SQLite, not in PostgreSQL")
    parser.add_argument('--json', type=Path, help='a file for the figures')
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(workplace())
        storage = stack.enter_context(SeaweedFS(folder / 'seaweedfs', sts=True))
        postgres = None if arguments.sqlite else stack.enter_context(PostgreSQL(folder / 'postgres'))
        server = stack.enter_context(RucioServer(folder / 'rucio', NO_LIMITS, postgres))
        root = RucioCli.root(made(folder / 'root'), server)
        team = Team.make(root, lambda name: made(folder / name), ('carol', 'dave'), 'LOADED_S3', storage)
        ok(team.owner.rucio('s3', 'make-bucket', f'{team.scope}:run1'))
        found = measured(Clients(server, arguments.seconds), kinds(team), arguments.rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding='utf-8')
    where = 'SQLite' if arguments.sqlite else 'PostgreSQL'
    print(f'2 workers of one thread, {where}; {CLIENTS} clients, then twice as many requests; medians of {arguments.rounds} rounds of {arguments.seconds:g} s')
    report(found)


if __name__ == '__main__':
    main()
