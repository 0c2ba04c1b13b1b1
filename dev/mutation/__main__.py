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

"""Change the code in small ways, and see whether a unit test notices: ``make mutants`` (SEED=1 N=400 MODULES='core/s3/auth common/s3').

A seed chooses N mutants. Each one is tried by the unit tests that run its line, the fastest and those of the module's own test first, until one fails. What survives
is printed as a diff: either a test is missing, or the mutant does the same as the original, and gets a line with the reason in dev/mutation/equivalent.toml.
"""

import argparse
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import lines
import processes
from mutants import Mutant, is_valid, mutants_of
from trials import NOTICED, Result, Trials, in_parallel, progress

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCOPE = (
    'rucio/core/s3/auth',
    'rucio/core/s3/buckets',
    'rucio/core/s3/catalogue',
    'rucio/core/s3/reconciler',
    'rucio/core/s3/transfers',
    'rucio/common/s3',
    'rucio/rse/protocols/s3.py',
    'rucio_s3_policy',
)
EQUIVALENT = Path(__file__).with_name('equivalent.toml')


def main() -> int:
    """Print the score of each module, and what survived; 1: too much did."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--number', type=int, default=400, help='of mutants; 0: all')
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--least', type=float, default=97, help='percent of the mutants to be noticed')
    parser.add_argument('--lines', default='', help='a regular expression: only mutants that change a line with it, as scope|rse_id')
    parser.add_argument('modules', nargs='*', default=SCOPE, help='files and folders, by the end or the start of their path in lib/')
    wanted = parser.parse_args()
    chosen, equivalent = choose(wanted)
    sys.stdout.write(f'{len(chosen)} mutants, and {len(equivalent)} that are listed as equivalent\n')
    processes.preload()
    measure(wanted.jobs)
    results: list[Result] = []

    def shown(result: Result) -> None:
        results.append(result)
        if result.outcome != NOTICED:
            sys.stdout.write(f'\n{result.mutant.key}: {result.outcome} ({result.seconds:.0f} s)\n{result.mutant.diff}\n')
            sys.stdout.flush()

    Trials(lines.Map(), wanted.jobs, shown).run(chosen)
    return report(results, len(equivalent), wanted)


def files(modules: Iterable[str]) -> list[str]:
    """The files that are meant, relative to lib/."""
    every = sorted(str(path.relative_to(processes.LIB)) for path in processes.LIB.rglob('*.py'))
    found = [name for name in every if any(f'/{name}'.endswith(f'/{each}') or f'/{each}/' in f'/{name}' for each in modules)]
    return found or sys.exit(f'There is no {" or ".join(modules)} in lib/.')


def choose(wanted: argparse.Namespace) -> tuple[list[Mutant], list[Mutant]]:
    """The mutants to try, in the order of the text, and those among them that are equivalent."""
    every = [each for name in files(wanted.modules or SCOPE) for each in mutants_of(processes.LIB / name, name)]
    if wanted.lines:
        every = [each for each in every if re.search(wanted.lines, each.removed)]
    drawn = random.Random(wanted.seed).sample(every, min(wanted.number or len(every), len(every)))  # noqa: S311 - no secret
    drawn = [each for each in drawn if is_valid(each)]
    known = set(tomllib.loads(EQUIVALENT.read_text())) if EQUIVALENT.is_file() else set()
    drawn.sort(key=lambda each: (each.path, each.start))
    return [each for each in drawn if each.key not in known], [each for each in drawn if each.key in known]


def measure(jobs: int) -> None:
    """Find out which tests run which lines, where that is not known yet."""
    stale = lines.stale()
    for place, (file, code, output) in enumerate(in_parallel(stale, lines.record, jobs), 1):
        progress(f'which lines do tests run: {place} of {len(stale)} files')
        if code in (processes.BROKEN, processes.TIME_OUT):
            sys.exit(f'{file} cannot be run:\n{output[-4000:]}')
        if code == processes.FAILED:
            sys.stdout.write(output.splitlines()[-1] + '\n')


def report(results: list[Result], equivalent: int, wanted: argparse.Namespace) -> int:
    """Print the score of each module, and of all; 1: it is too low."""
    counts: dict[str, Counter[bool]] = defaultdict(Counter)
    for each in results:
        counts[each.mutant.path][each.outcome == NOTICED] += 1
    sys.stdout.write('\n')
    for path, count in sorted(counts.items()):
        sys.stdout.write(f'{count[True]:5} of {count.total():5} noticed: {path}\n')
    noticed = sum(count[True] for count in counts.values())
    score = 100 * noticed / max(len(results), 1)
    sys.stdout.write(f'\nSeed {wanted.seed}: {noticed} of {len(results)} mutants were noticed: {score:.1f} %. ')
    sys.stdout.write(f'{equivalent} more are listed as equivalent.\n')
    return int(score < wanted.least)


if __name__ == '__main__':
    sys.exit(main())
