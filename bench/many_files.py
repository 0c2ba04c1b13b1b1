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

"""Measure many files: `rucio s3 upload`, s5cmd, and (a part of the files) the stock `rucio upload`, and all of them back, in one run.

Catalogue and checksums are part of what the two commands of Rucio do; s5cmd only moves bytes. The tools take turns.

    .venv/dev/bin/python bench/many_files.py --files 1000 --rounds 3
"""

import argparse
import secrets
import statistics
import sys
from pathlib import Path

from bench import MiB, S5cmd, seconds, workplace  # puts the servers on the path

from servers.ca import CA
from servers.cli import RucioCli, add_s3_rse, add_user, s3_keys
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS

BUCKET = SCOPE = 'user.bench'
RSE = 'BENCH_S3'
Times = dict[str, list[float]]


class Tools:
    """Each uploads a directory under a name that is new."""

    def __init__(self, server: SeaweedFS, user: RucioCli, folder: Path, data: Path, part: Path) -> None:
        self._user, self._data, self._part = user, data, part
        self._back = folder / 'back'
        self._s5cmd = S5cmd(server, folder)

    def bulk(self, name: str) -> None:
        done = self._user.rucio('s3', '--robot', 'upload', str(self._data), f'{SCOPE}:{name}', '--rse', RSE)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)

    def s5cmd(self, name: str) -> None:
        self._s5cmd._run(f'{self._data}/', f's3://{BUCKET}/{name}/')  # noqa: SLF001

    def stock(self, name: str) -> None:
        """Its names are those of the files, so they are made anew."""
        for path in list(self._part.iterdir()):
            path.rename(self._part / f'{name}-{path.name.rpartition("-")[2]}')
        self._user.rucio('upload', '--rse', RSE, '--scope', SCOPE, f'{SCOPE}:{name}', str(self._part), timeout=3600)

    def bulk_back(self, name: str) -> None:
        done = self._user.rucio('s3', '--robot', 'download', f'{SCOPE}:{name}', str(self._back / f'bulk-{name}'))
        if done.returncode:
            sys.exit(done.stdout + done.stderr)

    def s5cmd_back(self, name: str) -> None:
        self._s5cmd._run(f's3://{BUCKET}/{name}/*', f'{self._back}/s5cmd-{name}/')  # noqa: SLF001

    def stock_back(self, name: str) -> None:
        self._user.rucio('download', '--ndownloader', '8', '--dir', f'{self._back}/stock-{name}', f'{SCOPE}:{name}', timeout=3600)


def make(folder: Path, number: int, size: int) -> Path:
    """Ten directories of files."""
    for index in range(number):
        path = folder / f'{index % 10}' / f'{index:06}'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(secrets.token_bytes(size))
    return folder


def empty(server: SeaweedFS, prefix: str) -> None:
    """Make room for the next, who also finds no fuller storage than the one before."""
    client = server.client()
    for page in client.get_paginator('list_objects_v2').paginate(Bucket=BUCKET, Prefix=prefix):
        if keys := [{'Key': each['Key']} for each in page.get('Contents', [])]:
            client.delete_objects(Bucket=BUCKET, Delete={'Objects': keys, 'Quiet': True})


def measure(tools: Tools, server: SeaweedFS, rounds: int) -> Times:
    times: Times = {}

    def clock(tool: str, name: str) -> None:
        times.setdefault(tool, []).append(seconds(lambda: getattr(tools, tool.partition(' ')[0])(name)))
        print(f'{name}: {tool:12} {times[tool][-1]:7.2f} s', flush=True)

    for number in range(rounds):
        for tool in ('bulk', 's5cmd', 'stock')[number % 3 :] + ('bulk', 's5cmd', 'stock')[: number % 3]:
            name = f'r{number}-{tool}'
            clock(tool, name)
            if tool == 'bulk':
                clock('bulk again', name)
                for back in ('bulk_back', 's5cmd_back', 'stock_back')[number % 3 :] + ('bulk_back', 's5cmd_back', 'stock_back')[: number % 3]:
                    clock(back, name)
                clock('bulk_back again', name)
            empty(server, name)
    return times


def report(times: Times, arguments: argparse.Namespace, scheme: str) -> None:
    counts = {'stock': arguments.stock}
    print(f'\n{arguments.files} files of {arguments.size} KiB over {scheme}, SeaweedFS and Rucio on the same machine, medians of {arguments.rounds}')
    print(f'{"":34} {"s":>8} {"ms a file":>10} {"ratio":>7}')
    names = {
        's5cmd': 's5cmd cp',
        'bulk': 'rucio s3 upload',
        'bulk again': 'rucio s3 upload, nothing to do',
        'stock': 'rucio upload',
        's5cmd_back': 's5cmd cp, back',
        'bulk_back': 'rucio s3 download',
        'bulk_back again': 'rucio s3 download, nothing to do',
        'stock_back': 'rucio download',
    }
    each = {tool: 1000 * statistics.median(times[tool]) / counts.get(tool, arguments.files) for tool in names}
    for tool, name in names.items():
        label = f'{name} ({counts[tool]} files)' if tool in counts else name
        print(f'{label:34} {statistics.median(times[tool]):8.2f} {each[tool]:10.1f} {each[tool] / each["s5cmd_back" if "back" in tool else "s5cmd"]:7.2f}')
    print('ratio: time for a file / that of s5cmd')


def main() -> None:
    parser = argparse.ArgumentParser(description='upload and download of many files: ratios against other tools')
    parser.add_argument('--files', type=int, default=1000, help='how many (1000)')
    parser.add_argument('--size', type=int, default=MiB // 1024, help='of each, in KiB (1024)')
    parser.add_argument('--stock', type=int, default=50, help='how many of them go by the stock command, which is slow (50)')
    parser.add_argument('--rounds', type=int, default=3, help='how often each tool has its turn (3)')
    parser.add_argument('--tls', action='store_true', help='over https')
    arguments = parser.parse_args()
    with (
        workplace() as folder,
        SeaweedFS(folder / 'seaweedfs', CA(folder / 'ca') if arguments.tls else None) as server,
        RucioServer(folder / 'rucio') as rucio,
    ):
        server.client().create_bucket(Bucket=BUCKET)
        root = RucioCli.root(folder / 'root', rucio)
        user = add_user(root, folder / 'user', 'bench', scopes=[SCOPE], config=s3_keys(RSE, server))
        add_s3_rse(root, RSE, server, accounts=('root', 'bench'))
        data = make(folder / 'data', arguments.files, arguments.size * 1024)
        part = folder / 'part'
        part.mkdir()
        for index in range(arguments.stock):
            (part / f'file-{index:06}').write_bytes(secrets.token_bytes(arguments.size * 1024))
        times = measure(Tools(server, user, folder, data, part), server, arguments.rounds)
    report(times, arguments, server.scheme)


if __name__ == '__main__':
    main()
