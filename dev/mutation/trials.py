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

"""Try mutants: is there a test that fails?"""

import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lines
import processes
from mutants import Mutant

MAX_SECONDS = 30  # of tests for one mutant: what takes longer is left out, the slowest first
NOTICED, SURVIVED, UNREACHED, NOT_RUN = 'noticed', 'survived', 'no test runs it', 'the process of the tests broke off'
_OUTCOMES = {processes.PASSED: SURVIVED, processes.BROKEN: NOT_RUN, processes.NO_TESTS: NOT_RUN}


@dataclass
class Result:
    mutant: Mutant
    outcome: str
    seconds: float


class Trials:
    """First of what runs at import, each in a process that imports it; then of the others, in processes that have imported everything.

    :param shown: Called with each result.
    """

    def __init__(self, known: lines.Map, jobs: int, shown: Callable[[Result], None]) -> None:
        self._known, self._jobs, self._shown = known, jobs, shown
        self._killers: dict[tuple[str, str], list[str]] = defaultdict(list)  # tests that noticed another mutant of the function

    def run(self, mutants: list[Mutant]) -> None:
        tests = {each: tests_for(each, self._known) for each in mutants}
        for each in mutants:
            if not tests[each]:
                self._shown(Result(each, UNREACHED, 0))
        tests = {each: names for each, names in tests.items() if names}
        cold = {each: names for each, names in tests.items() if self._needs_import(each)}
        self._import_and_try(cold)
        if warm := {each: names for each, names in tests.items() if each not in cold}:
            with tempfile.TemporaryDirectory(prefix='rucio-s3-mutants-') as folder:
                processes.Collected(partial(self._exchange_and_try, warm)).collect(Path(folder))

    def _needs_import(self, mutant: Mutant) -> bool:
        return (
            not mutant.function
            or self._known.at_import(mutant.path, mutant.start, mutant.end)
            or not processes.are_exchangeable(mutant.original, mutant.source)
        )

    def _import_and_try(self, tests: dict[Mutant, list[str]]) -> None:
        def start(mutant: Mutant) -> processes.Process:
            limit = 30 + 5 * sum(self._known.seconds[test] for test in tests[mutant])
            return processes.Process(partial(_import_and_try, mutant, tests[mutant]), limit)

        for result, _ in _tried(list(tests), start, self._jobs):
            self._shown(result)

    def _exchange_and_try(self, tests: dict[Mutant, list[str]], collected: processes.Collected) -> None:
        def start(mutant: Mutant) -> processes.Process:
            chosen = [(test, self._known.seconds[test]) for test in self._ordered(mutant, tests[mutant])]
            return processes.Process(partial(_exchange_and_try, collected, mutant, chosen), 30 + sum(20 + 5 * seconds for _, seconds in chosen))

        for result, failed in _tried(list(tests), start, self._jobs):
            killers = self._killers[result.mutant.path, result.mutant.function]
            if failed and failed not in killers:
                killers.insert(0, failed)
            self._shown(result)
        self._tell_untrue(collected)

    def _ordered(self, mutant: Mutant, tests: list[str]) -> list[str]:
        first = self._killers[mutant.path, mutant.function]
        return sorted(tests, key=lambda test: first.index(test) if test in first else len(first))

    def _tell_untrue(self, collected: processes.Collected) -> None:
        """Name tests that fail without any mutant."""

        def start(test: str) -> processes.Process:
            return processes.Process(partial(collected.run, [(test, self._known.seconds[test])]), 600)

        for test, code, _ in in_parallel(sorted({test for tests in self._killers.values() for test in tests}), start, self._jobs):
            if code != processes.PASSED:
                sys.stdout.write(f'This run is worth nothing: {test} fails without a mutant.\n')


def tests_for(mutant: Mutant, known: lines.Map) -> list[str]:
    """The tests that run what is changed, in the order in which they are to be run."""
    chosen, total = [], 0.0
    for test in known.of(mutant.path, mutant.start, mutant.end):
        total += known.seconds[test]
        if chosen and total > MAX_SECONDS:
            break
        chosen.append(test)
    return chosen


def _tried(mutants: list[Mutant], start: Callable[[Mutant], processes.Process], jobs: int) -> Iterator[tuple[Result, str]]:
    """Try mutants, and yield the results with the test that failed, where that is known."""
    begun: dict[Mutant, float] = {}

    def noted(mutant: Mutant) -> processes.Process:
        begun[mutant] = time.monotonic()
        return start(mutant)

    counted: Counter[str] = Counter()
    for mutant, code, output in in_parallel(mutants, noted, jobs):
        outcome = _OUTCOMES.get(code, NOTICED)
        counted[outcome] += 1
        progress(f'{counted[NOTICED]} noticed, {counted.total() - counted[NOTICED]} not, of {len(mutants)}')
        yield Result(mutant, outcome, time.monotonic() - begun[mutant]), output.rpartition(processes.FIRST_FAILED)[2] if code == processes.FAILED else ''


def _import_and_try(mutant: Mutant, tests: list[str], folder: Path) -> int:
    processes.put_in_place(mutant.path, mutant.source)
    return processes.run_tests(tests, folder)


def _exchange_and_try(collected: processes.Collected, mutant: Mutant, tests: list[tuple[str, float]], folder: Path) -> int:
    processes.put_in_place(mutant.path, mutant.source)
    collected.exchange(mutant.path, mutant.original, mutant.source)
    return collected.run(tests, folder)


def in_parallel(items: Iterable, start: Callable[..., processes.Process], jobs: int) -> Iterator[tuple]:
    """Run a process for each item, and yield the item, the result and the output."""
    left, running = list(items)[::-1], {}
    try:
        while left or running:
            while left and len(running) < jobs:
                item = left.pop()
                running[start(item)] = item
            processes.wait(running)
            for process in list(running):
                if (code := process.poll()) is not None:
                    yield running.pop(process), code, process.output
    finally:
        for process in running:
            process.kill()


def progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f'\r{text}\033[K')
