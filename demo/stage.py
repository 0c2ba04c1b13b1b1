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

"""What the demo is shown with: headings, commands printed before they run, a table of times."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_COLOURS = re.compile(r'\x1b\[[0-9;]*m')
# What the rucio command puts before each line that it logs.
_LOG_PREFIX = re.compile(r'^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\t')

WIDTH = 120


class DemoError(RuntimeError):
    """Something did not turn out as it should."""


class Stage:
    """The terminal, a log of all that the commands printed, and the times of the acts."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.terminal = sys.stdout.isatty()
        self._acts: list[tuple[str, float, str]] = []

    def say(self, text: str = '') -> None:
        """Print a line at once."""
        print(text, flush=True)

    def note(self, text: str) -> None:
        """Say why the next command is run."""
        self.say(self._dim(f'# {text}'))

    @contextmanager
    def act(self, title: str) -> Iterator[list[str]]:
        """Announce and time what happens inside. What is appended to the list that it gives stands beside the time in the table."""
        self.say(f'\n{self._bold(title)}')
        remarks: list[str] = []
        start = time.monotonic()
        yield remarks
        self._acts.append((title, time.monotonic() - start, ', '.join(remarks)))

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        only: str = '',
        first: int = 0,
        last: int = 0,
        live: bool = False,
        reject: str = '',
    ) -> str:
        """
        Print a command, run it, print a part of its output: all of it after a failure.

        :param only: a regular expression: lines that match it are a part.
        :param first: so many lines at the start are a part; `last`: at the end.
        :param live: on a terminal, let the command write there itself, so that its progress bar is seen; its output is not returned then.
        :param reject: text that means failure. The exit code of `rucio` says little: upload and download have 0 on every failure.
        """
        # Without a usable terminal `less`, which rucio pipes its output to, waits for a key.
        live = live and self.terminal and os.environ.get('TERM', 'dumb') != 'dumb'
        code, output = self._execute(command, env, cwd, live=live)
        if code or (reject and reject in output):
            self._print(output, first=40, last=40)
            raise DemoError(f'{shlex.join(command)} failed')
        self._print(output, only, first, last)
        return output

    def refused(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        """Print and run a command that has to fail, and print the end of what it says."""
        code, output = self._execute(command, env, cwd)
        if not code:
            raise DemoError(f'{shlex.join(command)} was not refused')
        self._print(output, last=2)

    def _execute(self, command: Sequence[str], env: Mapping[str, str], cwd: Path, *, live: bool = False) -> tuple[int, str]:
        self.say(self._bold(_shown(command)))
        # The first word is a program of this environment, which need not be activated.
        program = Path(sys.executable).parent / command[0]
        done = subprocess.run(
            [str(program if program.exists() else command[0]), *command[1:]],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=None if live else subprocess.PIPE,
            stderr=None if live else subprocess.STDOUT,
            text=True,
            check=False,
        )
        output = _COLOURS.sub('', done.stdout or '')
        with self.log.open('a', encoding='utf-8') as log:
            log.write(f'{_shown(command)}\n{output}(exit code {done.returncode})\n\n')
        return done.returncode, output

    def table(self) -> None:
        """Print what was done, and how long each took."""
        self.say(f'\n{self._bold("What was done")}')
        width = max(len(title) for title, _, _ in self._acts) + 2
        for title, seconds, remark in self._acts:
            self.say(f'  {title:<{width}}{seconds:6.1f} s   {remark}'.rstrip())

    def _print(self, output: str, only: str = '', first: int = 0, last: int = 0) -> None:
        lines = [_LOG_PREFIX.sub('', line).replace('\t', ' ') for line in output.splitlines() if line.strip()]
        end = len(lines) - last
        hidden = 0
        for number, line in enumerate(lines):
            if number < first or number >= end or (only and re.search(only, line)):
                if hidden > 9:
                    self.say(f'  ... {hidden} lines')
                hidden = 0
                self.say(f'  {line}')
            elif only or first or last:
                hidden += 1

    def _dim(self, text: str) -> str:
        return f'\x1b[2m{text}\x1b[0m' if self.terminal else text

    def _bold(self, text: str) -> str:
        return f'\x1b[1m{text}\x1b[0m' if self.terminal else text


def _shown(command: Sequence[str]) -> str:
    """A command as one types it, broken before an option where it is too long for a line."""
    lines = ['$']
    for word in command:
        quoted = shlex.quote(word)
        if word.startswith('--') and len(lines[-1]) + len(quoted) > WIDTH * 2 // 3:
            lines.append('     ')
        lines[-1] += f' {quoted}'
    return ' \\\n'.join(lines)


def terminal_environment() -> dict[str, str]:
    """What a program needs to know about the terminal."""
    return {name: os.environ[name] for name in ('TERM', 'COLUMNS', 'LINES', 'NO_COLOR') if name in os.environ}
