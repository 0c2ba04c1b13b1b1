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

"""Measure deletion by the stock reaper: files of 1 byte on one storage over https, with rucio.rse.protocols.s3.Default and
with rucio.rse.protocols.gfal.NoRename and sign_url, which is how Rucio deletes from S3 without rucio-s3. They take turns.

The time of a file is what the reaper itself says in its message ``deletion-done``: for gfal with the signature, for s3 with the
HEAD by which it tells missing files. The time of a run has also what the reaper does in its database for each file.

gfal2 is Debian's, for Debian's own version of Python: apt-get install --no-install-recommends python3-gfal2 gfal2-plugin-http

    .venv/dev/bin/python bench/reaper.py --files 5000 --rounds 3
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from measuring import workplace  # puts the servers on the path

from servers.ca import CA
from servers.files import command_path
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS

IMPLS = {'s3': 'rucio.rse.protocols.s3.Default', 'gfal': 'rucio.rse.protocols.gfal.NoRename'}
PACKAGES = 'python3-gfal2 gfal2-plugin-http'
_ABI = f'{sys.version_info.major}{sys.version_info.minor}'


class Turn(NamedTuple):
    """What one run of the reaper took, for each file, in milliseconds."""

    storage: float  # the median of what it said of each file
    mean: float
    all: float  # until it had the next one in hand


class Bench:
    """A storage, a catalogue, and one RSE for each class, with a bucket of its own."""

    def __init__(self, folder: Path, storage: SeaweedFS, rucio: RucioServer, impls: Iterable[str]) -> None:
        self._storage, self._rucio, self._client = storage, rucio, storage.client(max_pool_connections=16)
        self._environment = {**rucio.environment, **trust(folder, storage)}
        if 'gfal' in impls:
            self._environment['PYTHONPATH'] = str(private_gfal2(folder, gfal2()))
        ids = self._task('set_up', rses={rse(name): self._definition(name) for name in impls})
        for name in impls:
            self._client.create_bucket(Bucket=bucket(name))
            rucio.set_rse_keys(ids[rse(name)], storage.access_key, storage.secret_key, storage.region)

    def _definition(self, name: str) -> dict[str, Any]:
        every = {'read': 1, 'write': 1, 'delete': 1}
        protocol = {
            'scheme': 'https',
            'hostname': self._storage.hostname,
            'port': self._storage.port,
            'prefix': f'/{bucket(name)}/',
            'impl': IMPLS[name],
            'domains': {'lan': every, 'wan': every},
            'extended_attributes': {'s3': {'provider': 'seaweedfs'}},
        }
        return {'attributes': {'lfn2pfn_algorithm': 'identity', **({'sign_url': 's3'} if name == 'gfal' else {})}, 'protocol': protocol}

    def _task(self, name: str, **arguments: Any) -> Any:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name('reaper_tasks.py')), name],
            input=json.dumps(arguments),
            env=self._environment,
            cwd=self._rucio.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def turn(self, name: str, label: str, files: int) -> Turn:
        """Put files there and have them deleted."""
        names = [f'{label}-{number % 10}/{number:06}' for number in range(files)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda each: self._client.put_object(Bucket=bucket(name), Key=f'bench/{each}', Body=b'x'), names))
        self._task('register', rse=rse(name), names=names)
        command = [command_path('rucio-reaper'), '--run-once', '--greedy', '--rses', rse(name), '--chunk-size', str(files)]
        done = subprocess.run(command, env=self._environment, cwd=self._rucio.directory, capture_output=True, text=True, check=False)
        outcome = self._task('outcome', rse=rse(name))
        there = self._client.list_objects_v2(Bucket=bucket(name))['KeyCount']
        processed = re.search(r'(\d+) files processed in ([\d.]+) seconds', done.stdout + done.stderr)
        if done.returncode or len(outcome['durations']) != files or outcome['left'] or there or not processed:
            sys.exit(f'{done.stdout[-3000:]}{done.stderr[-3000:]}\n{name}: {len(outcome["durations"])} deleted, {outcome["others"][:3]}, {there} objects left')
        durations = [1000 * each for each in outcome['durations']]
        return Turn(statistics.median(durations), statistics.mean(durations), 1000 * float(processed[2]) / files)


def rse(name: str) -> str:
    return f'BENCH_{name.upper()}'


def bucket(name: str) -> str:
    return f'bench-{name}'


def trust(folder: Path, storage: SeaweedFS) -> dict[str, str]:
    """gfal2 looks for a certificate by the hash of its subject."""
    hashed = folder / 'certificates'
    hashed.mkdir()
    done = subprocess.run(['openssl', 'x509', '-subject_hash', '-noout', '-in', str(storage.ca_bundle)], capture_output=True, text=True, check=True)
    (hashed / f'{done.stdout.strip()}.0').symlink_to(str(storage.ca_bundle))
    return {'X509_CERT_DIR': str(hashed)}


def gfal2() -> list[Path]:
    """Debian's, where it is for this version of Python."""
    return sorted(Path('/usr/lib/python3/dist-packages').glob(f'gfal2.cpython-{_ABI}-*.so'))


def private_gfal2(folder: Path, found: list[Path]) -> Path:
    """A directory with nothing but it: the others of Debian's modules are not those of this environment."""
    private = folder / 'gfal2'
    private.mkdir()
    (private / found[0].name).symlink_to(found[0])
    return private


def report(turns: dict[str, list[Turn]], files: int) -> None:
    print(f'\n{files} files of 1 byte, deleted by the stock reaper over https, SeaweedFS on the same machine: ms a file, medians of {len(turns["s3"])}')
    print(f'{"":34} {"median":>8} {"mean":>8} {"whole run":>10}')
    medians = {name: Turn(*(statistics.median(values) for values in zip(*each, strict=True))) for name, each in turns.items()}
    for name, each in medians.items():
        print(f'{IMPLS[name]:34} {each.storage:8.2f} {each.mean:8.2f} {each.all:10.2f}')
    if len(medians) == 2:
        ratios = [ours / theirs for ours, theirs in zip(medians['s3'], medians['gfal'], strict=True)]
        print(f'{"ratio":34} {ratios[0]:8.2f} {ratios[1]:8.2f} {ratios[2]:10.2f}')


def main() -> None:
    parser = argparse.ArgumentParser(description='deletion by the stock reaper: ratio against gfal.NoRename with sign_url')
    parser.add_argument('--files', type=int, default=5000, help='for each turn (5000)')
    parser.add_argument('--rounds', type=int, default=3, help='how often each class has its turn (3)')
    arguments = parser.parse_args()
    impls = ['s3', 'gfal']
    if not gfal2():
        impls.remove('gfal')
        print(f'No gfal2 for Python {sys.version_info.major}.{sys.version_info.minor}, nothing to compare with (Debian: apt-get install {PACKAGES}).')
    turns: dict[str, list[Turn]] = {name: [] for name in impls}
    with workplace() as folder:
        ca = CA(folder / 'ca')
        rucio = RucioServer(folder / 'rucio', {'s3': {'ca_bundle': ca.bundle}})
        rucio.prepare()
        with SeaweedFS(folder / 'seaweedfs', ca) as storage:
            bench = Bench(folder, storage, rucio, impls)
            for number in range(arguments.rounds):
                for name in impls if number % 2 else reversed(impls):
                    turns[name].append(bench.turn(name, f'r{number}', arguments.files))
                    each = turns[name][-1]
                    print(f'round {number + 1}: {name:5} {each.storage:6.2f} ms a file, mean {each.mean:6.2f}, whole run {each.all:6.2f}', flush=True)
    report(turns, arguments.files)


if __name__ == '__main__':
    main()
