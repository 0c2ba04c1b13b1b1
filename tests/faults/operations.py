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

"""Seeded runs of everything that users do, in which everything fails that can fail. A program:

    PYTHONPATH=tests python -m faults.operations --storage seaweedfs --operations 100 SEED[-SEED]...

Each seed is a run: so many operations (stock `rucio upload` and `rucio download`, `rucio s3`, other clients, Rucio's and our own daemons) of
three accounts and an operator at once, with faults at the storage, at the Rucio server, signals and full disks. Who does what and what fails
is decided by the seed alone (`plans`); how the accounts' requests mix is not. Then nothing fails any more, the daemons run, and all that
`invariants` has must hold. A run that fails prints its seed and what happened in it.
"""

import argparse
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import plans
from .invariants import check
from .seeded_run import Run
from .seeded_site import Site


def play(site: Site, seed: int, operations: int) -> tuple[Run, dict[str, Any]]:
    """One run, and what is to be reported of it."""
    started, run = time.monotonic(), Run(site, plans.draw(seed, operations))
    site.done.clear()
    run.prepare()
    run.play()
    played = time.monotonic()
    check(run)
    codes = Counter('killed' if each.ended.code == -9 else 'signal' if each.ended.code < 0 else str(each.ended.code) for each in run.done)
    return run, {
        'seed': seed,
        'operations': sum(map(len, run.plan.operations.values())),
        'wrong': len(run.wrong),
        'seconds': [round(played - started, 1), round(time.monotonic() - played, 1)],
        'codes': dict(codes),
        'states': dict(Counter(file.state for file in run.files.values())),
        'faults': dict(site.done),
        'server': site.footprint(),
    }


def seeds(texts: list[str]) -> Iterator[int]:
    for each in texts:
        first, _, last = each.partition('-')
        yield from range(int(first), int(last or first) + 1)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog='python -m faults.operations', description=__doc__.partition('\n\n')[0])
    parser.add_argument('seeds', nargs='+', metavar='SEED[-SEED]', help='a run for each')
    parser.add_argument('--storage', choices=['seaweedfs', 'ceph'], default='seaweedfs')
    parser.add_argument('--operations', type=int, default=100, help='of each run')
    parser.add_argument('--report', type=Path, help='a file that gets a line of JSON for each run')
    parser.add_argument('--plan', action='store_true', help='only show what would happen')
    options = parser.parse_args(arguments)
    if options.plan:
        for seed in seeds(options.seeds):
            sys.stdout.writelines(f'{line}\n' for line in plans.draw(seed, options.operations).lines())
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers end with this
    failed, lines = 0, []
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='operations-')))
        site = Site.make(stack, directory, options.storage)
        for seed in seeds(options.seeds):
            run, line = play(site, seed, options.operations)
            lines.append(line)
            sys.stdout.write(json.dumps(line) + '\n')
            if options.report:
                with options.report.open('a') as report:
                    report.write(json.dumps({'storage': options.storage, **line}) + '\n')
            if run.wrong:
                failed += 1
                sys.stdout.write(failure(run, options.storage, options.operations))
            sys.stdout.flush()
    said = growth([line['server'] for line in lines])
    sys.stdout.write(said)
    return failed + bool(said)


def growth(server: list[dict[str, int]]) -> str:
    """How much more memory or files the oldest process of the Rucio server has in the second half of at least eight runs than it had in the second quarter."""
    lives = [each for each in server if each['pid'] == server[0]['pid']]
    if len(lives) < len(server):
        return 'The oldest process of the Rucio server has ended.\n'
    quarter = len(lives) // 4
    for what, much in (('KiB', 1.1), ('files', 1.3)) if quarter >= 2 else ():
        before, after = (max(each[what] for each in some) for some in (lives[quarter : 2 * quarter], lives[2 * quarter :]))
        if after > much * before:
            return f'The Rucio server grows: from {before} to {after} {what}.\n'
    return ''


def failure(run: Run, storage: str, operations: int) -> str:
    """What is to be known of a run that has failed."""
    again = f'PYTHONPATH=tests python -m faults.operations --storage {storage} --operations {operations} {run.seed}'
    return '\n'.join([*run.log, '', f'seed {run.seed}: {len(run.wrong)} things are wrong:', *run.wrong, f'To replay it: {again}', ''])


if __name__ == '__main__':
    sys.exit(min(main(sys.argv[1:]), 100))
