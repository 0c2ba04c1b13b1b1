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

"""Measure what it costs to hold no key: stock `rucio upload` and `rucio download` of one file, in one run, with static keys,
with keys vended by the Rucio server, and with requests that it signs. The ways take turns.

    .venv/dev/bin/python bench/ways.py --size 1024 --rounds 5
"""

import argparse
import shutil
import statistics
import sys
from pathlib import Path

from bench import random_file, seconds, workplace  # puts the servers on the path

from servers.ca import CA
from servers.cli import RucioCli, add_s3_rse, add_user, s3_keys
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS

SCOPE = 'user.bench'
RSES = {'static': 'STATIC_S3', 'vended': 'VENDED_S3', 'signed': 'SIGNED_S3'}


class Way:
    """One user, and one RSE of three that lie on the same storage."""

    def __init__(self, user: RucioCli, name: str, source: Path, folder: Path) -> None:
        self.name, self._user, self._source, self._folder = name, user, source, folder
        self._number = 0

    def up(self) -> None:
        self._number += 1
        words = ('--transfer-timeout', '3600', '--rse', RSES[self.name], '--scope', SCOPE, '--lfn', self._lfn, str(self._source))
        done = self._user.rucio('upload', *words, timeout=3600)
        if 'Successfully uploaded file' not in done.stdout + done.stderr:
            sys.exit(done.stdout + done.stderr)

    def down(self) -> None:
        done = self._user.rucio('download', '--dir', str(self._folder), f'{SCOPE}:{self._lfn}', timeout=3600)
        file = self._folder / SCOPE / self._lfn
        if not file.is_file() or file.stat().st_size != self._source.stat().st_size:
            sys.exit(done.stdout + done.stderr)

    @property
    def _lfn(self) -> str:
        return f'{self.name}-{self._number}'

    def clean(self, storage: SeaweedFS) -> None:
        shutil.rmtree(self._folder)
        storage.client().delete_object(Bucket=SCOPE, Key=self._lfn)


def measure(root: RucioCli, storage: SeaweedFS, folder: Path, size: int, rounds: int) -> dict[tuple[str, str], list[float]]:
    trust = {'s3': {'ca_bundle': str(storage.ca_bundle)}} if storage.ca_bundle else {}
    for name, rse in RSES.items():
        rse_id = add_s3_rse(root, rse, storage, settings={'role_arn': storage.role_arn} if name == 'vended' else {})
        root.server.set_rse_keys(rse_id, storage.access_key, storage.secret_key)
    # Only the section of STATIC_S3 has keys.
    user = add_user(root, folder / 'user', 'bench', scopes=[SCOPE], attributes=(), rses=RSES.values(), config={**trust, **s3_keys(RSES['static'], storage)})
    storage.client().create_bucket(Bucket=SCOPE)
    source = random_file(folder / 'source', size)
    ways = [Way(user, name, source, folder / 'back') for name in RSES]
    times: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            for verb, action in (('up', way.up), ('down', way.down)):
                times.setdefault((way.name, verb), []).append(seconds(action))
            print(f'round {number + 1}: {way.name:7} up {times[way.name, "up"][-1]:6.2f} s, down {times[way.name, "down"][-1]:6.2f} s', flush=True)
            way.clean(storage)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description='stock rucio upload and download with and without keys: ratios')
    parser.add_argument('--size', type=int, default=1024, help='of the file, in MiB (1024)')
    parser.add_argument('--rounds', type=int, default=5, help='how often each way has its turn (5)')
    parser.add_argument('--tls', action='store_true', help='https instead of http')
    arguments = parser.parse_args()
    with workplace() as folder:
        tls = CA(folder / 'ca') if arguments.tls else None
        config = {'policy': {'package': 'rucio_s3_policy'}, **({'s3': {'ca_bundle': tls.bundle}} if tls else {})}
        with SeaweedFS(folder / 'seaweedfs', tls=tls, sts=True) as storage, RucioServer(folder / 'rucio', config) as server:
            times = measure(RucioCli.root(folder / 'root', server), storage, folder, arguments.size, arguments.rounds)
    print(f'\n{arguments.size} MiB by stock commands over {"https" if arguments.tls else "http"}, medians')
    medians = {each: statistics.median(values) for each, values in times.items()}
    for name in RSES:
        ratios = [medians[name, verb] / medians['static', verb] for verb in ('up', 'down')]
        print(f'{name:7} up {medians[name, "up"]:6.2f} s ({ratios[0]:.2f} of static), down {medians[name, "down"]:6.2f} s ({ratios[1]:.2f})')


if __name__ == '__main__':
    main()
