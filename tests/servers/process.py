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

"""A server as a child process: started, waited for, stopped, and never left behind."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Blocks until our end of the pipe closes, which the kernel does however we end; then kills the server's process group.
_GUARD = 'trap "" INT TERM HUP; read -r _; kill -s KILL -- "-$1" 2>/dev/null; shift; rm -f -- "$@"'


TIMEOUT = 240  # seconds: many times what anything takes here, so that a busy machine is no failure


class ServerError(RuntimeError):
    """A server did not start; the message ends with the last lines of its log."""


class Process:
    """
    A child process that logs to a file.

    It is the leader of a process group of its own: a Ctrl-C in the terminal is not sent to it, and its children end with it.
    Should we be killed, a guard kills the group (the kernel's parent-death signal would also come when only the starting
    thread ends).

    :param leftovers: files that it makes outside of its directory; they are removed when it has ended.
    """

    def __init__(self, name: str, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path, leftovers: Sequence[Path] = ()) -> None:
        self.name = name
        self.command = list(command)
        self.env = dict(env)
        self.cwd = cwd
        self.log = log
        self.leftovers = list(leftovers)
        self._child: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._child is None:
            raise ServerError(f'{self.name} is not running')
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it; `wait` tells when it answers."""
        if self.running:
            raise ServerError(f'{self.name} is running already, with pid {self.pid}')
        with self.log.open('ab') as log:
            self._child = subprocess.Popen(self.command, env=self.env, cwd=self.cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._guard = subprocess.Popen(
            ['/bin/sh', '-c', _GUARD, 'guard', str(self._child.pid), *map(str, self.leftovers)],
            env={},
            cwd='/',
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self, ready: Callable[[], bool], timeout: float) -> None:
        """Return when `ready` does; stop the server and raise ServerError when it ends or the time is up."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running:
                code = self._child.returncode if self._child else None
                self._fail(f'{self.name} ended with exit code {code} before it answered')
            if time.monotonic() > deadline:
                self._fail(f'{self.name} did not answer within {timeout:.0f} s')
            time.sleep(0.05)

    def stop(self, grace: float = 10) -> None:
        """SIGTERM, and SIGKILL for what is left of it after `grace` seconds (0: at once). To stop it twice does no harm."""
        child, self._child = self._child, None
        if child is None:
            return
        if grace and child.poll() is None:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(grace)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for file in self.leftovers:
            file.unlink(missing_ok=True)
        if self._guard:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None

    def kill(self) -> None:
        """SIGKILL at once, as when the machine fails."""
        self.stop(grace=0)

    def _fail(self, message: str) -> None:
        self.stop(grace=2)
        raise ServerError(f'{message}. The end of its log, {self.log}:\n{tail(self.log)}')


def until(condition: Callable[[], Any], *processes: 'subprocess.Popen[Any]') -> Any:
    """
    Look again and again, as nobody says when another process has come so far.

    :param processes: which must not end meanwhile.
    :returns: what the condition found at last.
    """
    deadline = time.monotonic() + TIMEOUT
    while not (found := condition()):
        assert time.monotonic() < deadline, 'it took too long'
        assert [process.poll() for process in processes] == [None] * len(processes), 'a process has ended'
        time.sleep(0.02)
    return found


def tail(path: Path, lines: int = 25) -> str:
    """The last lines of a file."""
    try:
        with path.open('rb') as file:
            file.seek(max(0, path.stat().st_size - 64 * 1024))
            text = file.read().decode(errors='replace')
    except OSError as error:
        return f'({error})'
    return '\n'.join('    ' + line for line in text.splitlines()[-lines:]) or '    (empty)'
