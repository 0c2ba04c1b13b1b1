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

"""Which unit tests run which lines of lib/, and how long they take: measured once, and again for what has changed."""

import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import coverage
import processes
import pytest

FOLDER = processes.ROOT / '.venv' / 'mutants'
SECONDS = 900  # for the tests of one file
IMPORT = ''  # in the place of a test: what runs when a module is imported
LIMITS = 'tests/unit/test_limits.py::'  # they read constants of all modules, and run none
LEFT_OUT = ('test_docs.py', 'test_packaging.py', 'test_layers.py', 'test_docstrings.py', 'test_where_tests_are.py', 'test_class_sizes.py')


class _Recorder:
    """A plugin of pytest: each test in a context of its own."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.measured, self.seconds, self.failed = measured, {}, set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.measured.switch_context(item.nodeid)
        start = time.monotonic()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.monotonic() - start
            self.measured.switch_context(IMPORT)


def _record(file: Path, folder: Path) -> int:
    measured = coverage.Coverage(data_file=str(folder / 'coverage'), include=[f'{processes.LIB}/*'], config_file=False)
    measured.start()
    recorder = _Recorder(measured)
    processes.run_tests([str(file)], folder, '--maxfail=1000', plugins=(recorder,))
    measured.stop()
    measured.save()
    data = measured.get_data()
    lines: dict[str, dict[str, list[int]]] = {}
    for path in data.measured_files():
        name = str(Path(path).relative_to(processes.LIB))
        for line, tests in data.contexts_by_lineno(path).items():
            for test in set(tests) - recorder.failed:
                lines.setdefault(test, {}).setdefault(name, []).append(line)
    known = {'key': _hash(file), 'files': {name: _hash(processes.LIB / name) for each in lines.values() for name in each}}
    seconds = {test: value for test, value in recorder.seconds.items() if test not in recorder.failed}
    _path(file).write_text(json.dumps(known | {'seconds': seconds, 'lines': lines}))
    sys.stdout.write(f'Left out, as they fail without a mutant: {", ".join(sorted(recorder.failed))}\n')
    return processes.FAILED if recorder.failed else processes.PASSED


def _path(file: Path) -> Path:
    return FOLDER / f'{file.stem}.json'


@cache
def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes() if path.is_file() else b'').hexdigest()


def test_files() -> list[Path]:
    return [path for path in sorted(processes.UNIT.glob('test_*.py')) if path.name not in LEFT_OUT]


def stale() -> list[Path]:
    """The test files to measure: they or what they run has changed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    return [path for path in test_files() if not _is_fresh(path)]


def _is_fresh(file: Path) -> bool:
    try:
        known = json.loads(_path(file).read_text())
        return known['key'] == _hash(file) and all(_hash(processes.LIB / name) == value for name, value in known['files'].items())
    except (OSError, ValueError, KeyError):
        return False


def record(file: Path) -> processes.Process:
    """Measure the tests of a file."""
    return processes.Process(partial(_record, file), SECONDS)


class Map:
    """Which tests run a line, and their durations in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lines: dict[str, dict[int, set[str]]] = {}
        self._importing: dict[str, set[str]] = {}
        self._texts: dict[str, str] = {}
        for file in test_files():
            self._texts[file.name] = file.read_text(encoding='utf-8')
            self._add(json.loads(_path(file).read_text()))

    def _add(self, known: dict[str, Any]) -> None:
        self.seconds |= known['seconds']
        for test, files in known['lines'].items():
            for name, lines in files.items():
                for line in lines:
                    self._lines.setdefault(name, {}).setdefault(line, set()).add(test)
        for name in known['lines'].get(IMPORT, {}):
            self._importing.setdefault(name, set()).update(known['seconds'])

    def of(self, name: str, start: int, end: int) -> list[str]:
        """The tests that run one of these lines of a module: those with its name in theirs first, then those that mention it, then the fastest.

        Where an import runs the lines, which may be constants, those that run or mention the module; or at least import it.
        """
        lines = self._lines.get(name, {})
        found = {test for line in range(start, end + 1) for test in lines.get(line, ())}
        if IMPORT in found:
            found = {test for tests in lines.values() for test in tests} | {test for test in self.seconds if test.startswith(LIMITS)}
            found |= {test for test in self._importing[name] if self._distance(name, test) < 2}
            found = found - {IMPORT} or self._importing[name]
        return sorted(found, key=lambda test: (self._distance(name, test), self.seconds[test]))

    @cache  # noqa: B019 - there is one
    def _distance(self, name: str, test: str) -> int:
        file, stem = Path(test.partition('::')[0]).name, Path(name).stem
        if stem in file:
            return 0
        return 1 if re.search(rf'\b{stem}\b', self._texts[file]) else 2

    def at_import(self, name: str, start: int, end: int) -> bool:
        """Whether an import runs one of these lines."""
        lines = self._lines.get(name, {})
        return any(IMPORT in lines.get(line, ()) for line in range(start, end + 1))
