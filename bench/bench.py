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

"""Measure this project against stock Rucio and other people's S3 clients, on one server, in one run: ``make bench``.

What counts is the ratio: seconds are this machine's. The contestants take turns, several rounds, and medians are compared.

    .venv/dev/bin/python bench/bench.py --workloads 1000x1MiB --contestants 'rucio-s3:*' s5cmd --delay 0 100
    .venv/dev/bin/python bench/bench.py --json bench.json --write
"""

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from contestants import NAMES, missing
from measuring import workplace  # puts the servers on the path
from plot import plot
from report import PAGE, Circumstances, as_json, as_text, tables, write_page
from rounds import Results, Rounds, failures
from sink import SCHEME, Sink
from sink import missing as missing_sink
from stage import Stage
from workloads import DEFAULT, SMOKE, Workload

# Each kind, and each way at least once.
SMOKE_CONTESTANTS = (
    'rucio-s3:static',
    'rucio-s3:signed',
    'rucio:vended',
    'rucio:gfal2',
    'class',
    's5cmd',
    'rclone',
    'mc',
    'aws',
    's5cmd:serve-signed',
    'boto3',
)


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='this project against others: ratios', formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--workloads', nargs='+', type=workload, metavar='COUNTxSIZE', help=f'files to be moved ({" ".join(DEFAULT)}); also 1x6GiB')
    parser.add_argument('--rounds', type=int, default=5, help='how often each contestant has its turn (5)')
    parser.add_argument('--contestants', nargs='+', metavar='NAME', help=f'or a pattern: {" ".join(NAMES)}')
    parser.add_argument('--schemes', nargs='+', choices=('https', 'http', SCHEME), help=f'to the storage, or to a sink that costs nothing (https {SCHEME})')
    parser.add_argument('--delay', nargs='+', type=int, metavar='MS', help='round trip to the storage, by a proxy, in milliseconds (0)')
    parser.add_argument('--smoke', action='store_true', help='a minute, to see that it works: a few small files, one round')
    parser.add_argument('--no-requests', action='store_true', help='do not count requests, which takes one more round')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all figures to a file')
    parser.add_argument('--write', type=Path, nargs='?', const=PAGE, metavar='PAGE', help='write the tables and the plot of docs/performance.md')
    chosen = parser.parse_args(words)
    chosen.workloads = chosen.workloads or [Workload.parse(name) for name in (SMOKE if chosen.smoke else DEFAULT)]
    chosen.contestants = chosen.contestants or (SMOKE_CONTESTANTS if chosen.smoke else ['*'])
    chosen.schemes = chosen.schemes or ['https', SCHEME]
    chosen.delay = chosen.delay or ([5] if chosen.smoke else [0])
    chosen.rounds = 1 if chosen.smoke else chosen.rounds
    if unknown := [pattern for pattern in chosen.contestants if not any(fnmatchcase(name, pattern) for name in NAMES)]:
        parser.error(f'unknown contestants: {", ".join(unknown)} (choose from {", ".join(NAMES)})')
    return chosen


def workload(name: str) -> Workload:
    try:
        return Workload.parse(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def present(patterns: Sequence[str], scheme: str) -> list[str]:
    """The chosen contestants that are here; why the others are not is told."""
    chosen = [name for name in NAMES if any(fnmatchcase(name, pattern) for pattern in patterns)]
    for name in chosen:
        if reason := missing(name, scheme):
            say(f'without {name}: {reason}')
    return [name for name in chosen if not missing(name, scheme)]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    chosen = options()
    circumstances, results = Circumstances(chosen.rounds), Results()
    with workplace() as folder:
        for scheme in chosen.schemes:
            if scheme == SCHEME and missing_sink():
                say(f'without the sink: {missing_sink()}')
                continue
            with Sink(folder) if scheme == SCHEME else Stage(folder, scheme) as stage:
                rounds = Rounds(stage, present(chosen.contestants, scheme), folder, results, say)
                for delay in [0] if scheme == SCHEME else chosen.delay:
                    rounds.time(delay, chosen.workloads, chosen.rounds)
                if not chosen.no_requests:
                    rounds.count(chosen.workloads)
    print(as_text(results, circumstances))
    if chosen.json:
        chosen.json.write_text(as_json(results, circumstances), encoding='utf-8')
    if chosen.write:
        write_page(results, circumstances, plot(tables(results)), chosen.write)
    for failure in failures(results):
        say(failure)
    return 1 if failures(results) else 0


if __name__ == '__main__':
    sys.exit(main())
