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

"""What a command costs: wall clock, CPU and memory of all its processes. Puts the servers of tests/ on the path."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tests'))

TIMEOUT = 7200  # seconds
_LAUNCHER = Path(__file__).with_name('launcher.py')


class Failed(RuntimeError):
    """A contestant did not do what it had to do."""


@dataclass(frozen=True)
class Command:
    """What is run, with the whole of its environment."""

    words: Sequence[str]
    environment: Mapping[str, str]
    directory: Path


@dataclass(frozen=True)
class Cost:
    """Of a command and all processes that it started and waited for.

    :param wall: In seconds.
    :param cpu: In seconds.
    :param memory: Peak of its largest process, in MiB.
    """

    wall: float
    cpu: float
    memory: float


def run(command: Command) -> tuple[Cost, str]:
    """Run a command: what it cost, and what it wrote.

    :raises Failed: with what it wrote, if its exit code is not 0 or it takes too long.
    """
    # A process begins with the peak of the one that started it, so the one that starts it has to be a small one.
    launcher = [sys.executable, '-I', '-S', str(_LAUNCHER), *command.words]
    try:
        done = subprocess.run(
            launcher,
            env=command.environment,
            cwd=command.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors='replace',
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f'{command.words[0]} takes longer than {TIMEOUT} s') from None
    said, _, usage = done.stderr.rpartition('\n\0')
    if done.returncode:
        raise Failed(f'{Path(command.words[0]).name}: exit code {done.returncode}\n{done.stdout[-2000:]}{said[-2000:]}')
    return Cost(**json.loads(usage)), done.stdout + said


def cpu_of(pid: int) -> float:
    """The CPU time that a running process has used so far, in seconds; 0 if it has ended."""
    try:
        fields = Path(f'/proc/{pid}/stat').read_text(encoding='utf-8').rpartition(')')[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100  # of Linux, on all machines


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


@contextmanager
def workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix='rucio-s3-bench-') as folder:
        yield Path(folder)
