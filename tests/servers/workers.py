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

"""Commands of Rucio as processes of their own, of which none has to import Rucio: a worker has, and forks.

Unlike `forks`, the processes can be sent signals, have an exit code as the system tells it, and write into files.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .files import command_path
from .forks import FORKING

# One line of JSON for each process that is wanted; two lines are answered: its pid, and at its end the status that waitpid has.
_WORKER = (
    FORKING
    + """
import faulthandler, resource

for module in sys.argv[1:]:
    importlib.import_module(module)
from rucio.common import config

keep_imported()


def prepare(wanted):
    os.environ.clear()
    os.environ.update(wanted['environment'])
    os.chdir(wanted['directory'])
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(wanted['output'], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, descriptor)
    os.close(nothing)
    os.close(output)
    faulthandler.enable()  # SIGABRT
    if wanted['file_size']:
        resource.setrlimit(resource.RLIMIT_FSIZE, (wanted['file_size'], resource.RLIM_INFINITY))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [wanted['command'], *wanted['arguments']]
    config.clean_cached_config()


for line in iter(sys.stdin.buffer.raw.readline, b''):
    wanted = json.loads(line)
    child = os.fork()
    if not child:
        break
    os.write(1, b'%d\\n' % child)
    os.write(1, b'%d\\n' % os.waitpid(child, 0)[1])
else:
    sys.exit()

# The rest is the child, at the end of this program: it ends as a Python program does.
prepare(wanted)
module, _, function = wanted['command'].partition(':')
if function:
    become(lambda: getattr(importlib.import_module(module), function)())
else:
    become(lambda: runpy.run_path(wanted['command'], run_name='__main__'))
"""
)


@dataclass
class Ended:
    """A process that has ended, or that had to be ended.

    :param code: as subprocess has it: below 0 for a signal.
    :param late: it did not end by itself in time.
    """

    code: int
    output: str
    seconds: float
    late: bool = False


class Worker:
    """Starts one process at a time. The first takes a second or two, all others some milliseconds.

    :param environment: it is started with, and decides what kind of Rucio it imports: a client or a server.
    :param modules: it imports before its first process.
    """

    def __init__(self, environment: Mapping[str, str], directory: Path, modules: tuple[str, ...]) -> None:
        self._log = directory / 'worker.log'
        with self._log.open('ab') as log:
            self._process = subprocess.Popen(
                [sys.executable, '-c', _WORKER, *modules],
                env=dict(environment),
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                start_new_session=True,
            )

    def __enter__(self) -> 'Worker':
        return self

    def __exit__(self, *exc_info: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process.kill()
        self._process.wait()

    def start(self, command: str, *arguments: str, environment: Mapping[str, str], directory: Path, output: Path, file_size: int = 0) -> 'Running':
        """
        :param command: of this Python environment (`rucio`), or `module:function`.
        :param environment: all of it.
        :param output: the file that it writes to.
        :param file_size: no file may become larger, in bytes: as if the disk were full. 0: no limit.
        """
        assert self._process.stdin
        assert self._process.stdout
        wanted = {
            'command': command if ':' in command else command_path(command),
            'arguments': arguments,
            'environment': dict(environment),
            'directory': str(directory),
            'output': str(output),
            'file_size': file_size,
        }
        self._process.stdin.write(json.dumps(wanted).encode() + b'\n')
        pid = self._line(60)
        if not pid:
            raise RuntimeError(f'the worker has ended: {self._log.read_text()[-3000:]}')
        return Running(self, int(pid), output)

    def _line(self, timeout: float) -> bytes:
        """One line of its answers; nothing if there is none in time."""
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            return b''
        return self._process.stdout.readline()


class Running:
    """A process of a worker."""

    def __init__(self, worker: Worker, pid: int, output: Path) -> None:
        self._worker, self.pid, self._output = worker, pid, output
        self._started = time.monotonic()
        self._ended = False

    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout: float) -> Ended:
        """Wait for its end; if it takes longer, it writes its stacks to its output and is killed."""
        status, late = self._worker._line(timeout), False
        if not status:
            late = True
            self.send_signal(signal.SIGCONT)
            self.send_signal(signal.SIGABRT)
            status = self._worker._line(20)
            if not status:
                self.send_signal(signal.SIGKILL)
                status = self._worker._line(60)
        self._ended = True
        code = os.waitstatus_to_exitcode(int(status or b'9'))
        return Ended(code, self._output.read_text(errors='replace'), time.monotonic() - self._started, late)
