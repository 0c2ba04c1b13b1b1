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

"""Measure the protocol class against other tools, on one S3 server, in one run: ``make bench``.

What counts is the ratio: seconds are this machine's. The tools take turns, several rounds, and medians are compared.

    .venv/dev/bin/python bench/bench.py --size 256 --rounds 5
"""

import argparse
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tests'))

from servers.ca import CA
from servers.seaweedfs import SeaweedFS

BUCKET, KEY = 'user.bench', 'file'
MiB = 1024**2


class RucioS3:
    """rucio.rse.protocols.s3.Default, as Rucio's clients use it: a new protocol object for each transfer."""

    name = 'rucio-s3'

    def __init__(self, server: SeaweedFS, folder: Path) -> None:
        config = folder / 'rucio.cfg'
        config.touch(0o600)
        trust = f'ca_bundle = {server.ca_bundle}\n' if server.ca_bundle else ''
        config.write_text(
            f'[client]\nrucio_host = http://127.0.0.1:9\n[s3]\naccess_key = {server.access_key}\nsecret_key = {server.secret_key}\nprogress = off\n{trust}'
        )
        os.environ['RUCIO_CONFIG'] = str(config)
        every = {'read': 1, 'write': 1, 'delete': 1}
        self._protocol = {
            'scheme': server.scheme,
            'hostname': server.hostname,
            'port': server.port,
            'prefix': '/',
            'impl': 'rucio.rse.protocols.s3.Default',
            'domains': {'lan': every, 'wan': every},
            'extended_attributes': {'s3': {'provider': 'seaweedfs'}},
        }
        self._pfn = f'{server.url}/{BUCKET}/{KEY}'

    def _connected(self, operation: str) -> object:
        from rucio.rse import rsemanager  # noqa: PLC0415 - reads the configuration when it is imported

        rse = {'rse': 'BENCH', 'id': 'bench', 'deterministic': True, 'lfn2pfn_algorithm': 's3_bucket', 'sign_url': None, 'protocols': [dict(self._protocol)]}
        protocol = rsemanager.create_protocol(rse, operation)
        protocol.connect()
        return protocol

    def put(self, source: Path) -> None:
        self._connected('write').put(str(source), self._pfn)

    def get(self, target: Path) -> None:
        self._connected('read').get(self._pfn, str(target))


class S5cmd:
    name = 's5cmd'

    def __init__(self, server: SeaweedFS, folder: Path) -> None:
        self._command = [str(Path(sys.executable).with_name('s5cmd')), '--endpoint-url', server.url, 'cp']
        self._env = {'PATH': os.environ['PATH'], 'HOME': str(folder), 'AWS_ACCESS_KEY_ID': server.access_key, 'AWS_SECRET_ACCESS_KEY': server.secret_key}
        if server.ca_bundle:
            self._env['SSL_CERT_FILE'] = str(server.ca_bundle)

    def _run(self, *words: str) -> None:
        subprocess.run([*self._command, *words], env=self._env, check=True, stdout=subprocess.DEVNULL)

    def put(self, source: Path) -> None:
        self._run(str(source), f's3://{BUCKET}/{KEY}')

    def get(self, target: Path) -> None:
        self._run(f's3://{BUCKET}/{KEY}', str(target))


class Boto3:
    name = 'boto3'

    def __init__(self, server: SeaweedFS, folder: Path) -> None:
        self._client = server.client()

    def put(self, source: Path) -> None:
        self._client.upload_file(str(source), BUCKET, KEY)

    def get(self, target: Path) -> None:
        self._client.download_file(BUCKET, KEY, str(target))


def random_file(path: Path, size: int) -> Path:
    """:param size: In MiB."""
    with path.open('wb') as file:
        for _ in range(size):
            file.write(secrets.token_bytes(MiB))
    return path


def seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


@contextmanager
def workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix='rucio-s3-bench-') as folder:
        yield Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description='put and get of one file: ratios against other tools')
    parser.add_argument('--size', type=int, default=1024, help='of the file, in MiB (1024)')
    parser.add_argument('--rounds', type=int, default=5, help='how often each tool has its turn (5)')
    parser.add_argument('--tls', action='store_true', help='over https')
    arguments = parser.parse_args()
    with workplace() as folder, SeaweedFS(folder / 'seaweedfs', CA(folder / 'ca') if arguments.tls else None) as server:
        source, target = random_file(folder / 'source', arguments.size), folder / 'target'
        client = server.client()
        client.create_bucket(Bucket=BUCKET)
        tools = [RucioS3(server, folder), S5cmd(server, folder), Boto3(server, folder)]
        times: dict[tuple[str, str], list[float]] = {}
        for number in range(arguments.rounds):
            # The first of a round may find colder caches: each has its turn at it.
            for tool in tools[number % len(tools) :] + tools[: number % len(tools)]:
                client.delete_object(Bucket=BUCKET, Key=KEY)
                times.setdefault((tool.name, 'put'), []).append(seconds(lambda tool=tool: tool.put(source)))
                times.setdefault((tool.name, 'get'), []).append(seconds(lambda tool=tool: tool.get(target)))
                target.unlink()
                print(f'round {number + 1}: {tool.name:9} put {times[tool.name, "put"][-1]:6.2f} s, get {times[tool.name, "get"][-1]:6.2f} s', flush=True)
    report(times, arguments.size, server.scheme)


def report(times: dict[tuple[str, str], list[float]], size: int, scheme: str) -> None:
    print(f'\n{size} MiB over {scheme}, SeaweedFS on the same machine, medians')
    print(f'{"tool":9} {"put, s":>8} {"get, s":>8} {"put, ratio":>11} {"get, ratio":>11}')
    ours = {verb: statistics.median(times['rucio-s3', verb]) for verb in ('put', 'get')}
    for tool in dict.fromkeys(tool for tool, _ in times):
        put, get = (statistics.median(times[tool, verb]) for verb in ('put', 'get'))
        print(f'{tool:9} {put:8.2f} {get:8.2f} {ours["put"] / put:11.2f} {ours["get"] / get:11.2f}')
    print('ratio: time of rucio-s3 / time of the tool')


if __name__ == '__main__':
    main()
