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

"""Measure the reconciler: a bucket of a million objects (made up, see synthetic.py) from empty, unchanged, and with changes; and
how fast new files are registered, against Rucio's own calls on the same database, in turns.

    .venv/dev/bin/python bench/reconcile.py --objects 1000000 --database postgres
    .venv/dev/bin/python bench/reconcile.py --objects 200000 --database postgres --workers 2
    .venv/dev/bin/python bench/reconcile.py --objects 200000 --database postgres --collation en-US

The listing costs next to nothing here: bench/listing.py measures a real one. PostgreSQL has to be installed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measuring import workplace  # puts the servers on the path

from servers.postgres import PostgreSQL
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS

TASKS = Path(__file__).with_name('reconcile_tasks.py')
# Rucio's add_replicas has an OR of as many conditions: SQLite takes no more than this.
CHUNK = {'sqlite': 400, 'postgres': 500}
INDEX = 'CREATE INDEX replicas_byte_order_idx ON replicas (scope, rse_id, name COLLATE "C")'


class Catalogue:
    """A database of Rucio's with an S3 RSE, and processes that use it.

    :param storage: What the RSE lies on; without, on nothing.
    """

    def __init__(self, folder: Path, database: PostgreSQL | None, storage: SeaweedFS | None = None) -> None:
        trust = {'s3': {'ca_bundle': storage.ca_bundle}} if storage and storage.ca_bundle else {}
        self._server, self._database = RucioServer(folder, trust, database), database
        self._server.prepare()
        made = self.run('set_up', **({'scheme': storage.scheme, 'port': storage.port} if storage else {}))
        if storage:
            self._server.set_rse_keys(made['rse_id'], storage.access_key, storage.secret_key)

    def run(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Do it in a process of its own, and return what it measured."""
        before = self._database_seconds()
        done = subprocess.run(
            [sys.executable, str(TASKS), task, json.dumps(arguments)], env=self._server.environment, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            sys.exit(f'{task} failed: {done.stdout[-2000:]}')
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {'database': self._database_seconds() - before, **result}

    def _database_seconds(self) -> float:
        """CPU that PostgreSQL took so far for clients that have gone; SQLite works in the client."""
        if self._database is None:
            return 0
        values = Path('/proc', str(self._database.pid), 'stat').read_text().rpartition(')')[2].split()
        return sum(int(value) for value in values[11:15]) / os.sysconf('SC_CLK_TCK')


@contextmanager
def catalogue(folder: Path, name: str, collation: str | None) -> Iterator[Catalogue]:
    """An empty one."""
    if name == 'sqlite':
        yield Catalogue(folder / 'sqlite', None)
        return
    with PostgreSQL(folder / 'postgres', collation) as database:
        yield Catalogue(folder / 'rucio', database)


def whole_bucket(where: Catalogue, objects: int, changes: int, judge: bool, workers: int) -> None:
    """From empty, twice unchanged, and changed."""
    bucket, changed = {'objects': objects}, {'objects': objects, 'changes': changes}
    acting = {'on_changed': 'replace', 'on_missing': 'forget', 'workers': workers}
    empty = where.run('size')['bytes']
    print(f'{"":22} {"s":>8} {"objects/s":>10} {"CPU s":>7} {"database":>8} {"queries/1000":>13} {"peak MiB":>9}   counts')
    show('from empty', objects, where.run('reconcile', bucket=bucket, workers=workers))
    print(f'the database grew by {(where.run("size")["bytes"] - empty) / objects:,.0f} bytes for each object', flush=True)
    where.run('execute', statement='ANALYZE')
    show('unchanged', objects, where.run('reconcile', bucket=bucket, workers=workers))
    show('unchanged, again', objects, where.run('reconcile', bucket=bucket, workers=workers))
    if judge:
        show("Rucio's judge", objects, where.run('judge'))
        where.run('execute', statement='ANALYZE')
    show(f'one in {changes} changed', objects, where.run('reconcile', bucket=changed, **acting))
    show('unchanged after that', objects, where.run('reconcile', bucket=changed, **acting))


def show(what: str, objects: int, measured: dict[str, Any]) -> None:
    per_second, per_thousand = objects / measured['seconds'], measured['queries'] / objects * 1000
    counts = ', '.join(f'{key} {value:,}' for key, value in measured.get('counts', {}).items() if value and key not in ('bytes', 'listed'))
    row = f'{what:22} {measured["seconds"]:8.1f} {per_second:10,.0f} {measured["cpu"]:7.1f} {measured["database"]:8.1f} {per_thousand:13.2f}'
    print(f'{row} {measured["memory"]:9.0f}   {counts}', flush=True)
    for problem in measured.get('problems', []):
        print(f'    {problem}')


def against_stock(where: Catalogue, database: str, files: int, rounds: int) -> None:
    """Both register files that nobody knows: ours in one run, Rucio's calls in chunks. They take turns."""
    times: dict[str, list[float]] = {'ours': [], 'add': [], 'attach': []}
    for number in range(rounds):
        for who in ('ours', 'stock')[:: 1 if number % 2 else -1]:
            bucket = {'objects': files, 'seed': number, 'collection': files, 'name': f'{who}{number}-'}
            if who == 'stock':
                measured = where.run('stock', bucket=bucket, dataset=f'stock{number}', chunk=CHUNK[database])
                times['add'].append(measured['add'])
                times['attach'].append(measured['attach'])
            else:
                measured = where.run('reconcile', bucket=bucket, name=f'ours{number}-0000000')
                times['ours'].append(measured['seconds'])
                if measured['counts'].get('registered') != files:
                    sys.exit(f'not all were registered: {measured}')
        print(f'round {number + 1}: ours {times["ours"][-1]:.2f} s, add_replicas {times["add"][-1]:.2f} s, attach_dids {times["attach"][-1]:.2f} s', flush=True)
    ours, add, attach = (statistics.median(times[each]) for each in ('ours', 'add', 'attach'))
    print(f'{files} new files, medians of {rounds}: ours {files / ours:,.0f}/s; add_replicas in chunks of {CHUNK[database]} {files / add:,.0f}/s,')
    alone = statistics.median(add / ours for add, ours in zip(times['add'], times['ours'], strict=True))
    both = statistics.median((add + attach) / ours for add, attach, ours in zip(times['add'], times['attach'], times['ours'], strict=True))
    print(f'with attach_dids {files / (add + attach):,.0f}/s. ratio in a round: {alone:.1f} of add_replicas alone, {both:.1f} with attach_dids')


def main() -> None:
    parser = argparse.ArgumentParser(description='the reconciler: objects a second, memory, queries')
    parser.add_argument('--objects', type=int, default=1_000_000, help='in the bucket; 0: only the comparison with stock calls (1000000)')
    parser.add_argument('--changes', type=int, default=1000, help='one object of so many changes (1000)')
    parser.add_argument('--workers', type=int, default=1, help='threads that share the bucket, as those of rucio-s3-reconciler (1)')
    parser.add_argument('--database', choices=('sqlite', 'postgres', 'both'), default='both', help='(both)')
    parser.add_argument('--files', type=int, default=20_000, help='to register in a round against stock calls; 0: no comparison (20000)')
    parser.add_argument('--rounds', type=int, default=5, help='against stock calls (5)')
    parser.add_argument('--judge', action='store_true', help="also Rucio's judge, which makes the locks afterwards")
    parser.add_argument('--collation', help='of PostgreSQL, an ICU locale such as en-US: measured without and with the index in byte order')
    arguments = parser.parse_args()
    for database in ('sqlite', 'postgres') if arguments.database == 'both' else (arguments.database,):
        with workplace() as folder, catalogue(folder, database, arguments.collation) as where:
            print(f'\n{database}{f", order of {arguments.collation}" if arguments.collation else ""}; load of the machine {os.getloadavg()[0]:.1f}')
            if arguments.objects:
                whole_bucket(where, arguments.objects, arguments.changes, arguments.judge, arguments.workers)
            if arguments.collation and database == 'postgres':
                where.run('execute', statement=INDEX)
                where.run('execute', statement='ANALYZE')
                show('unchanged, with index', arguments.objects, where.run('reconcile', bucket={'objects': arguments.objects, 'changes': arguments.changes}))
            if arguments.files:
                against_stock(where, database, arguments.files, arguments.rounds)


if __name__ == '__main__':
    main()
