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

"""Unit tests in forked processes that have Rucio already, but nothing of lib/: to see which lines a test runs, and what it says to a mutant.

Nothing is written into lib/, or into the environment: a mutant is compiled in the process that tries it, in the place of the file. Where a function is
changed that no import runs, that process is forked from one that has collected all tests, and the function gets other code.
"""

import contextlib
import gc
import importlib
import importlib.machinery
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIB = ROOT / 'lib'
UNIT = ROOT / 'tests' / 'unit'
PASSED, FAILED, NO_TESTS, TIME_OUT, BROKEN = 0, 1, 5, 98, 99
FIRST_FAILED = '\nThe first test that failed: '

_LIST_MODULES = """
import contextlib, json, sys, pytest
with contextlib.redirect_stdout(sys.stderr):
    pytest.main(['-q', '-p', 'no:cacheprovider', '--collect-only', 'tests/unit'])
print(json.dumps({name: module.__file__ for name, module in sys.modules.items() if getattr(module, '__file__', None)}))
"""


def preload() -> None:
    """Import whatever the tests import but for the project, so that each process after a fork has it."""
    os.environ |= {'RUCIO_CLIENT_MODE': '1', 'RUCIO_CONFIG': os.devnull}
    done = subprocess.run([sys.executable, '-c', _LIST_MODULES], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    for name, file in json.loads(done.stdout.splitlines()[-1]).items():
        if ROOT / 'tests' not in Path(file).parents and LIB not in Path(file).resolve().parents and name != '__main__':
            with contextlib.suppress(Exception):  # a module that only another one can import
                importlib.import_module(name)
    _forget_ours()


def _forget_ours() -> None:
    """Rucio has imported modules of lib/, by its seams: the tests will import them again, as they may be others then."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, '__file__', None)
        if file and LIB in Path(file).resolve().parents and not name.startswith(('rucio_s3_plugin', 'rucio_s3_seams')):
            del sys.modules[name]
            parent, _, last = name.rpartition('.')
            if parent:
                vars(sys.modules.get(parent, module)).pop(last, None)


class Process:
    """A process that runs tests, to be polled."""

    def __init__(self, run: Callable[[Path], int], seconds: float) -> None:
        """Start it.

        :param run: What is done there, in a directory of its own; its result is 0 to 99.
        :param seconds: After that time it is killed.
        """
        self.folder, self.end = Path(tempfile.mkdtemp(prefix='rucio-s3-mutant-')), time.monotonic() + seconds
        self.pid = os.fork()
        if not self.pid:
            _child(run, self.folder)
        self.ends = os.pidfd_open(self.pid)  # readable when it has ended

    def poll(self) -> int | None:
        """Its result, or None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            os.close(self.ends)
            return self._ended(code if code >= 0 else BROKEN)
        if time.monotonic() < self.end:
            return None
        self.kill()
        return self._ended(TIME_OUT)

    def kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.ends)

    def _ended(self, code: int) -> int:
        self.output = self.folder.joinpath('output').read_text(errors='replace')
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)  # what the tests have left running
        shutil.rmtree(self.folder, ignore_errors=True)
        return code


def wait(running: Collection[Process]) -> None:
    """Wait until one of them has ended, or must."""
    left = min(each.end for each in running) - time.monotonic()
    select.select([each.ends for each in running], [], [], max(0, left))


def _child(run: Callable[[Path], int], folder: Path) -> None:
    code = BROKEN
    try:
        os.setsid()
        output = os.open(folder / 'output', os.O_WRONLY | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(ROOT)
        code = run(folder)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def put_in_place(path: str, source: str) -> None:
    """From now on, in this process, a file of lib/ is another one."""
    loader: Any = importlib.machinery.SourceFileLoader
    original, target = loader.get_code, str((LIB / path).resolve())

    def get_code(self: Any, name: str) -> Any:
        if os.path.realpath(self.path) == target:
            return compile(source, self.path, 'exec', dont_inherit=True)
        return original(self, name)

    loader.get_code = get_code


class Collected:
    """A plugin of pytest for this process: it collects the unit tests, and calls what will fork processes that run some of them."""

    def __init__(self, then: Callable[['Collected'], None]) -> None:
        self._then = then

    def collect(self, folder: Path) -> None:
        """Begin. ``then`` is called when all is imported, and the catalogues that tests copy have been made.

        :param folder: For files of the tests.
        """
        options = ['-s', '-o', 'addopts=--import-mode=importlib', '-p', 'no:terminal', '-p', 'no:cacheprovider', '-p', 'no:xdist']
        folders = f'--basetemp={folder / "pytest"}', f'--rootdir={ROOT}'
        code = pytest.main([*options, *folders, str(UNIT)], plugins=[self])
        if code != PASSED:
            sys.exit(f'The tests cannot be collected: run pytest --collect-only {UNIT} ({code}).')

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            return False
        self._items = {item.nodeid: item for item in session.items}
        self._other = session.items[0]
        self._factory = session.config._tmp_path_factory  # type: ignore[attr-defined]  # noqa: SLF001 - each process has its own
        self._passes(next(item for item in session.items if 'twins' in getattr(item, 'fixturenames', ())), self._other)
        self._functions: dict[str, list[FunctionType]] = defaultdict(list)
        for each in gc.get_objects():
            if isinstance(each, FunctionType):
                self._functions[each.__code__.co_filename].append(each)
        gc.freeze()
        self._then(self)
        return True

    def _passes(self, item: pytest.Item, following: pytest.Item) -> bool:
        from _pytest.runner import runtestprotocol  # noqa: PLC0415 - there is no other way to run one test

        return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))

    def run(self, tests: list[tuple[str, float]], folder: Path) -> int:
        """Run tests until one fails, whose name is the output then.

        :param tests: With the seconds that they usually take.
        """
        self._factory._basetemp = folder / 'pytest'  # noqa: SLF001
        folder.joinpath('pytest').mkdir()
        chosen = [self._items[test] for test, _ in tests]
        signal.signal(signal.SIGALRM, lambda *_: os._exit(TIME_OUT))
        for item, following, (test, seconds) in zip(chosen, [*chosen[1:], self._other], tests, strict=True):
            signal.setitimer(signal.ITIMER_REAL, 20 + 5 * seconds)
            if not self._passes(item, following):
                sys.stdout.write(f'{FIRST_FAILED}{test}')
                return FAILED
        return PASSED

    def exchange(self, path: str, original: str, changed: str) -> None:
        """Give the functions of a file of lib/ the code of another text."""
        target = str((LIB / path).resolve())
        for name, functions in self._functions.items():
            if os.path.realpath(name) == target:
                codes = dict(_pairs(*(compile(text, name, 'exec', dont_inherit=True) for text in (original, changed))))
                for each in functions:
                    each.__code__ = codes.get(each.__code__, each.__code__)


def are_exchangeable(original: str, changed: str) -> bool:
    """Whether functions can be given the code of another text: they must be closures over the same variables."""
    pairs = _pairs(*(compile(text, 'code', 'exec', dont_inherit=True) for text in (original, changed)))
    return all(before.co_freevars == after.co_freevars for before, after in pairs)


def _pairs(original: CodeType, changed: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """Functions before and after, by their names; one name may be used several times (a property and its setter)."""
    left = [each for each in changed.co_consts if isinstance(each, CodeType)]
    for each in original.co_consts:
        if isinstance(each, CodeType):
            other = next((other for other in left if other.co_name == each.co_name), None)
            if other:
                left.remove(other)
                yield each, other
                yield from _pairs(each, other)


def run_tests(tests: list[str], folder: Path, *options: str, plugins: tuple[object, ...] = ()) -> int:
    """Call pytest in this process, and stop at the first failure."""
    usual = ['-x', '-q', '--no-header', '--tb=short', '-p', 'no:cacheprovider', '-p', 'no:xdist', f'--basetemp={folder / "pytest"}', f'--rootdir={ROOT}']
    return int(pytest.main([*usual, *options, *tests], plugins=list(plugins)))
