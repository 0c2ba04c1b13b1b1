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

"""The contestants take turns, several rounds, and each must have done what it says."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import NamedTuple

from contestants import Contestant, alone, contestant
from measuring import Cost, Failed, cpu_of, run
from sink import Sink
from stage import Door, Stage, empty, stored
from workloads import Task, Workload

COUNTED = 2 * 1024**3  # bytes: more is not sent through the counting proxy, which would take minutes
SLOW = 100  # files: what the stock commands take of many
_numbers = count()


class Event(NamedTuple):
    """What is measured: a verb of a contestant.

    :param delay: Of a round trip to the storage, in milliseconds.
    """

    scheme: str
    delay: int
    workload: str
    verb: str
    contestant: str


@dataclass
class Result:
    """:param requests: To the storage and to the Rucio server; empty if they were not counted."""

    files: int
    costs: list[Cost] = field(default_factory=list)
    requests: dict[str, Counter[str]] = field(default_factory=dict)
    failed: str = ''


Results = dict[Event, Result]
Turn = Callable[[Contestant, str, Task], str]  # it answers what was written


class Rounds:
    """Of some contestants on one stage."""

    def __init__(self, stage: Stage | Sink, names: Sequence[str], folder: Path, results: Results, say: Callable[[str], None]) -> None:
        self._stage, self._names, self._results, self._say = stage, names, results, say
        self._folder = folder / f'work-{stage.scheme}'
        self._folder.mkdir()

    def time(self, delay: int, workloads: Sequence[Workload], rounds: int) -> None:
        """:param delay: Of a round trip to the storage, in milliseconds."""

        def turn(each: Contestant, verb: str, task: Task) -> str:
            before = cpu_of(each.beside)
            took, said = run(each.command(verb, task))
            took = replace(took, cpu=took.cpu + cpu_of(each.beside) - before)
            self._result(delay, each, verb, task).costs.append(took)
            self._say(f'{self._stage.scheme} {delay} ms {task.workload.name:12} {each.name:18} {verb:10} {took.wall:8.2f} s {took.cpu:8.2f} s CPU')
            return said

        with ExitStack() as stack:
            contestants = self._meet(self._stage.door(delay), stack)
            for number, workload in enumerate(workloads):
                data = self._data(workload)
                for first in range(rounds):
                    # The first of a round may find colder caches: each has its turn at it.
                    shift = first % len(contestants) if contestants else 0
                    for each in contestants[shift:] + contestants[:shift]:
                        self._take(each, delay, workload, data, turn, idle=number == 0)

    def count(self, workloads: Sequence[Workload]) -> None:
        """Once more through a proxy, for the number of requests; not those to the sink, which are the same."""
        stage = self._stage
        if isinstance(stage, Sink):
            return
        door = stage.door(counting=True)

        def turn(each: Contestant, verb: str, task: Task) -> str:
            before = door.requests(), len(stage.server.requests())
            _, said = run(each.command(verb, task))
            asked = stage.server.requests()[before[1] :]
            rucio = Counter(f'{request.method} {request.uri.partition("?")[0].split("/")[1]}' for request in asked)
            self._result(0, each, verb, task).requests = {'storage': door.requests() - before[0], 'Rucio': rucio}
            return said

        with ExitStack() as stack:
            for each in self._meet(door, stack):
                for workload in workloads:
                    if workload.bytes <= COUNTED:
                        self._take(each, 0, workload, self._data(workload), turn, idle=False)
        self._say(f'{stage.scheme} requests are counted')

    def _meet(self, door: Door, stack: ExitStack) -> list[Contestant]:
        stage = self._stage
        if isinstance(stage, Sink):
            return [alone(name, stage.folder, door) for name in self._names]
        ways = {name.partition(':serve-')[2] for name in self._names if ':serve-' in name}
        rses = [stage.rse(door, way) for way in sorted(ways)]
        served = {rse: stack.enter_context(stage.serving(rse)) for rse in rses}
        return [contestant(name, stage, door, served) for name in self._names]

    def _data(self, workload: Workload) -> Path:
        """The files of a workload, and beside their directory the list of their names."""
        data = self._folder / workload.name / 'data'
        if not data.exists():
            workload.make(data)
            names = sorted(str(path.relative_to(data)) for path in _files(data))
            data.with_name('names').write_text('\n'.join(names), encoding='utf-8')
        return data

    def _take(self, each: Contestant, delay: int, workload: Workload, data: Path, turn: Turn, *, idle: bool) -> None:
        """One turn of a contestant: all that it can do, in order. What fails is told in the report, and ends the turn."""
        part = workload.at_most(SLOW if each.slow else None)
        if part != workload:
            data = self._data(replace(part, name=f'{workload.name}-part'))
        name = f't{next(_numbers):06}'
        task = Task(replace(part, name=workload.name), data, name, data.parent / f'back-{name}')
        for verb in [verb for verb in each.verbs if idle or verb != 'idle']:
            if self._result(delay, each, verb, task).failed:
                break
            try:
                self._check(each, verb, task, turn(each, verb, task))
            except Failed as error:
                self._result(delay, each, verb, task).failed = str(error)
                self._say(f'{each.name} {verb}: {error}')
                break
        self._clean(each, task)

    def _check(self, each: Contestant, verb: str, task: Task, said: str) -> None:
        """:raises Failed: with what was said, if the files are not where they have to be."""
        sizes = [task.workload.size] * task.workload.files
        if verb in ('up', 'delete'):
            there, wanted = [size for _, size in stored(self._stage.door(), *each.place(task))], [] if verb == 'delete' else sizes
        elif verb == 'down':
            there, wanted = [path.stat().st_size for path in _files(task.target)], sizes
        else:
            return
        if there != wanted:
            raise Failed(f'{verb} left {len(there)} files with {sum(there)} bytes, not {len(wanted)} with {sum(wanted)}\n{said[-2000:]}')

    def _clean(self, each: Contestant, task: Task) -> None:
        empty(self._stage.door(), *each.place(task))
        for folder in (task.target, task.data.with_name(f'flat-{task.name}')):
            shutil.rmtree(folder, ignore_errors=True)

    def _result(self, delay: int, each: Contestant, verb: str, task: Task) -> Result:
        workload = 'start' if verb == 'idle' else task.workload.name
        event = Event(self._stage.scheme, delay, workload, verb, each.name)
        return self._results.setdefault(event, Result(0 if verb == 'idle' else task.workload.files))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob('*') if path.is_file())


def failures(results: Results) -> Iterable[str]:
    return [f'{event.contestant} {event.verb} of {event.workload}: {result.failed}' for event, result in results.items() if result.failed]
