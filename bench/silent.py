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
"""Measure what the Rucio server answers while all of its storages but one hang: ping, and a vend for the storage that is well,
against the same server before. Of the storages that hang, some accept connections and say nothing, the others send a byte now and
then; meanwhile users keep asking for them.

    .venv/dev/bin/python bench/silent.py --requests 3600 --users 4
"""

import argparse
import contextlib
import socket
import socketserver
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from measuring import seconds, workplace  # puts the servers on the path

from servers.cli import RucioCli
from servers.rest import Rest
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS
from servers.team import Team, ok

EACH = 10  # one vend for so many pings: accounts may have ten new keys a second


class Bench:
    """A Rucio server with a storage that vends keys, and others that hang."""

    def __init__(self, root: RucioCli, team: Team) -> None:
        self._rest, self._plain, self._owner = Rest(root), Rest(root, ''), Rest(team.owner)
        self._root, self._team, self._vends = root, team, 0
        ok(team.owner.rucio('s3', 'make-bucket', team.scope))

    def add_rse(self, name: str, port: int) -> None:
        url = f'http://127.0.0.1:{port}'
        ok(self._root.rucio('s3', 'rse', 'add', name, '--endpoint', url, '--anonymous', '--read-only'))

    def ask(self, rse: str) -> int:
        return self._rest('GET', f'/buckets?rse={rse}').status

    def ping(self) -> None:
        self._plain.ok('GET', '/ping')

    def vend(self) -> None:
        """For a collection of its own, so that the storage's STS is asked."""
        self._vends += 1
        asked = {'rse': self._team.rse, 'scope': self._team.scope, 'name': f'run{self._vends}'}
        self._owner.ok('POST', '/credentials', asked)

    def times(self, requests: int, pause: float) -> dict[str, list[float]]:
        """In seconds."""
        done: dict[str, list[float]] = {'ping': [], 'vend': []}
        for number in range(requests):
            time.sleep(pause)
            done['ping'].append(seconds(self.ping))
            if number % EACH == 0:
                done['vend'].append(seconds(self.vend))
        return done


def silent(stack: ExitStack) -> int:
    """A storage that says nothing; its port."""
    listener = stack.enter_context(socket.create_server(('127.0.0.1', 0), backlog=1000))
    port: int = listener.getsockname()[1]
    return port


def trickling(stack: ExitStack) -> int:
    """A storage that says one byte each second; its port."""
    over = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n')
                while not over.wait(1):
                    self.request.sendall(b' ')

    server = socketserver.ThreadingTCPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for end in (server.server_close, server.shutdown, over.set):
        stack.callback(end)
    return int(server.server_address[1])


@contextmanager
def users(count: int, ask: Callable[[int], int]) -> Iterator[list[int]]:
    """So many users, each of whom asks again as soon as there is an answer; the answers so far."""
    answers: list[int] = []
    over = threading.Event()

    def work(number: int) -> None:
        while not over.is_set():
            answers.append(ask(number))
            over.wait(0.1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


def percentile(values: list[float], part: int) -> float:
    return statistics.quantiles(values, n=100)[part - 1]


def report(before: dict[str, list[float]], during: dict[str, list[float]]) -> None:
    print(f'{"":6} {"":4} {"idle":>9} {"hanging":>9} {"ratio":>6}')
    for name, idle in before.items():
        for part in (50, 99):
            one, other = percentile(idle, part), percentile(during[name], part)
            print(f'{name:6} p{part:<3} {1000 * one:6.1f} ms {1000 * other:6.1f} ms {other / one:6.2f}')
        print(f'{name:6} {"max":4} {1000 * max(idle):6.1f} ms {1000 * max(during[name]):6.1f} ms')


def main() -> None:
    parser = argparse.ArgumentParser(description='the Rucio server while storages hang')
    parser.add_argument('--requests', type=int, default=2000, help='pings, before and while they hang (2000)')
    parser.add_argument('--users', type=int, default=4, help='who keep asking for what hangs (4)')
    parser.add_argument('--storages', type=int, default=2, help='that say nothing (2)')
    parser.add_argument('--trickling', type=int, default=1, help='that say a byte each second (1)')
    parser.add_argument('--pause', type=float, default=0, help='seconds before each ping (0)')
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(workplace())
        storage = stack.enter_context(SeaweedFS(folder / 'seaweedfs', sts=True))
        rucio = stack.enter_context(RucioServer(folder / 'rucio'))
        root = RucioCli.root(made(folder / 'root'), rucio)
        bench = Bench(root, Team.make(root, lambda name: made(folder / name), ('carol', 'dave'), 'WELL_S3', storage))
        kinds = [silent] * arguments.storages + [trickling] * arguments.trickling
        names = [f'{kind.__name__.upper()}_{number}' for number, kind in enumerate(kinds)]
        for name, kind in zip(names, kinds, strict=True):
            bench.add_rse(name, kind(stack))
        before = bench.times(arguments.requests, arguments.pause)
        with users(arguments.users, lambda number: bench.ask(names[number % len(names)])) as answers:
            during = bench.times(arguments.requests, arguments.pause)
        statuses = {status: answers.count(status) for status in set(answers)}
    hang = f'{arguments.storages} storages say nothing and {arguments.trickling} a byte each second'
    print(f'2 workers of one thread; {hang}, {arguments.users} users ask for them ({statuses}); {arguments.requests} pings')
    report(before, during)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == '__main__':
    main()
