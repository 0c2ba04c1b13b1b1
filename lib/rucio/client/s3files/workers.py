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

"""Processes that transfer small files.

Python runs one thread of a process at a time, and most of the time that a small file takes is Python's: one process
gets no faster by more threads or a faster network.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Generic, Optional, TypeVar

from .tally import Tally

__all__ = ['MANY', 'Workers', 'processes']

MANY = 300  # files for which processes are started: each one needs a tenth of a second to begin
BATCH = 64  # files that a process gets at once
MOST = 8  # processes
_GRACE = 5.0  # seconds for a process to end after it was stopped

_Task = TypeVar('_Task')
_Done = TypeVar('_Done')


def processes(jobs: Optional[int]) -> int:
    """Return how many processes can share the work: one for each processor. 0: this process does it alone.

    Only on Linux, and only while this process has one thread: in a copy of it, the locks of others would stay closed.

    :param jobs: How many files may be under way; None for any number.
    """
    if sys.platform != 'linux' or threading.active_count() > 1:
        return 0
    number = min(len(os.sched_getaffinity(0)), MOST, jobs or MOST)
    return number if number > 1 else 0


class Workers(Generic[_Task, _Done]):
    """Processes that do batches of work, each one batch at a time. They are copies of this one, with all its objects.

    They end when they are closed, or this process ends. Memory: what each one changes, tens of MiB.

    :param number: The number of processes.
    :param tally: Counts what they do. When it stops, they are to be closed.
    :param begin: Called in each process before its first batch. It must not use the connections of this one.
    :param do: Does a batch, in a process: returns what was done. Its exceptions are raised here.
    :param name: Returns what a task is about, for the message if a process is killed.
    """

    def __init__(
        self,
        number: int,
        tally: Tally[Any],
        begin: Callable[[], None],
        do: Callable[[Sequence[_Task]], list[_Done]],
        name: Callable[[_Task], str],
    ) -> None:
        self._tally = tally
        self._name = name
        self._idle: SimpleQueue[Connection] = SimpleQueue()
        self._ends: list[Connection] = []
        self._processes = []
        context = multiprocessing.get_context('fork')
        for _ in range(number):
            mine, its = context.Pipe()
            self._ends.append(mine)
            process = context.Process(target=_serve, args=(its, self._ends, tally, begin, do), daemon=True)
            process.start()
            its.close()
            self._processes.append(process)
            self._idle.put(mine)
        self._pool = ThreadPoolExecutor(number, 'rucio-s3-workers')

    def submit(self, tasks: Sequence[_Task]) -> list[Future[list[_Done]]]:
        """Let the processes work.

        :param tasks: The tasks.
        :returns: For each batch of them what ``do`` returns; nothing if its process was killed, or it was not begun.
        """
        size = min(BATCH, -(-len(tasks) // len(self._processes)))
        return [self._pool.submit(self._ask, tasks[at : at + size]) for at in range(0, len(tasks), max(1, size))]

    def _ask(self, batch: Sequence[_Task]) -> list[_Done]:
        if self._tally.stop.is_set():
            return []
        end = self._idle.get()
        try:
            end.send(batch)
            answer = end.recv()
        except (EOFError, OSError):
            for task in batch:
                self._tally.fail(
                    self._name(task),
                    'was not transferred: its process of this command was killed. Is there enough memory? Try again',
                    again=True,
                )
            return []
        finally:
            self._idle.put(end)
        if isinstance(answer, BaseException):
            raise answer
        done, part = answer
        self._tally.add(part)
        found: list[_Done] = done
        return found

    def close(self) -> None:
        """End the processes: after their batches, or as soon as the tally stops, during them."""
        if self._tally.stop.is_set():
            for process in self._processes:
                process.terminate()
        self._pool.shutdown(cancel_futures=True)
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.join(_GRACE)
            if process.is_alive():
                process.kill()


def _serve(
    end: Connection,
    others: Sequence[Connection],
    tally: Tally[Any],
    begin: Callable[[], None],
    do: Callable[[Any], list[Any]],
) -> None:
    """Do what comes, until the parent closes its end, or is gone."""
    for other in others:
        other.close()
    # The parent gets them as well, and says what happens.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: tally.stop.set())
    tally.begin_part()
    has_begun = False
    with suppress(EOFError, OSError):
        while not tally.stop.is_set():
            batch = end.recv()
            try:
                if not has_begun:  # not before there is work: there may be none, as all is there already
                    begin()
                    has_begun = True
                end.send((do(batch), tally.end_part()))
            except OSError:
                raise
            except Exception as error:  # noqa: BLE001 - it is raised in the parent
                end.send(error)
