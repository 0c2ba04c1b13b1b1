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

Nothing is written into lib/, or into the environment: a mutant is compiled in the process that tries it, in the place of the file.
"""

import contextlib
import importlib
import importlib.machinery
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIB = ROOT / 'lib'
UNIT = ROOT / 'tests' / 'unit'
PASSED, FAILED, NO_TESTS, TIME_OUT, BROKEN = 0, 1, 5, 98, 99

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

    def poll(self) -> int | None:
        """Its result, or None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return self._ended(code if code >= 0 else BROKEN)
        if time.monotonic() < self.end:
            return None
        self.kill()
        return self._ended(TIME_OUT)

    def kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def _ended(self, code: int) -> int:
        self.output = self.folder.joinpath('output').read_text(errors='replace')
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)  # what the tests have left running
        shutil.rmtree(self.folder, ignore_errors=True)
        return code


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


def run_tests(tests: list[str], folder: Path, *options: str, plugins: tuple[object, ...] = ()) -> int:
    """Call pytest in this process, and stop at the first failure."""
    import pytest  # noqa: PLC0415 - not in the parent, which has it from preload()

    usual = ['-x', '-q', '--no-header', '--tb=short', '-p', 'no:cacheprovider', '-p', 'no:xdist', f'--basetemp={folder / "pytest"}', f'--rootdir={ROOT}']
    return int(pytest.main([*usual, *options, *tests], plugins=list(plugins)))
