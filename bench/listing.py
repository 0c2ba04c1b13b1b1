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

"""Measure what a listing costs, which is what limits the reconciler: of small objects on a real S3 server, by boto3's paginator and as
the reconciler lists, in turns, one at a time and several prefixes in parallel.

    .venv/dev/bin/python bench/listing.py --objects 50000 --rounds 5
"""

import argparse
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from measuring import seconds, workplace  # puts the servers on the path
from reconcile import Catalogue

from servers.ca import CA
from servers.seaweedfs import SeaweedFS

BUCKET = 'user.bench'
DIRECTORIES = 20


def fill(storage: SeaweedFS, objects: int) -> None:
    """Objects of 1 byte, in some directories."""
    client = storage.client(max_pool_connections=16)
    client.create_bucket(Bucket=BUCKET)
    each = objects // DIRECTORIES

    def put(number: int) -> None:
        client.put_object(Bucket=BUCKET, Key=f'run{number // each:02}/{number % each:07}.root', Body=b'x')

    with ThreadPoolExecutor(16) as threads:
        for _ in threads.map(put, range(each * DIRECTORIES)):
            pass


def count(client: Any, prefix: str = '') -> int:
    """How many keys boto3's paginator finds."""
    return sum(len(page.get('Contents', [])) for page in client.get_paginator('list_objects_v2').paginate(Bucket=BUCKET, Prefix=prefix))


def in_parallel(client: Any, threads: int) -> int:
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(lambda number: count(client, f'run{number:02}/'), range(DIRECTORIES)))


def main() -> None:
    parser = argparse.ArgumentParser(description='how fast a real storage lists')
    parser.add_argument('--objects', type=int, default=50_000, help='in the bucket (50000)')
    parser.add_argument('--rounds', type=int, default=5, help='how often each way has its turn (5)')
    parser.add_argument('--threads', type=int, default=4, help='that list prefixes in parallel (4)')
    parser.add_argument('--tls', action='store_true', help='over https')
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {}
    with workplace() as folder, SeaweedFS(folder / 'seaweedfs', CA(folder / 'ca') if arguments.tls else None) as storage:
        taken = seconds(lambda: fill(storage, arguments.objects))
        print(f'{arguments.objects} objects of 1 byte were put in {taken:.0f} s; load of the machine {os.getloadavg()[0]:.1f}', flush=True)
        client = storage.client(max_pool_connections=16)
        where = Catalogue(folder / 'rucio', None, storage)
        for number in range(arguments.rounds):
            ours = {f'reconciler{", sorted on disk" if sort else ""}': where.run('listing', sort=sort) for sort in (False, True)}
            now = {'boto3': seconds(lambda: count(client)), f'boto3, {arguments.threads} threads': seconds(lambda: in_parallel(client, arguments.threads))}
            now |= {way: measured['seconds'] for way, measured in ours.items()}
            for way, taken in now.items():
                times.setdefault(way, []).append(taken)
            print(f'round {number + 1}: ' + ', '.join(f'{way} {taken:.2f} s' for way, taken in now.items()), flush=True)
    print(f'\n{arguments.objects} objects, medians of {arguments.rounds}')
    for way, each in times.items():
        print(f'{way:28} {statistics.median(each):6.2f} s {arguments.objects / statistics.median(each):8,.0f} objects/s')
    for way, measured in ours.items():
        print(f'{way:28} {measured["cpu"]:6.2f} s of CPU, {measured["memory"]:.0f} MiB')


if __name__ == '__main__':
    main()
