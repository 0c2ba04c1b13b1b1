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

import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from queue import SimpleQueue
from traceback import format_exc
from typing import Any, Generic, Optional, TypeVar, Union

from rucio.common.exception import RucioException
from rucio.common.s3.request_ids import current, inherit

from .tally import Tally

__all__ = ['MANY', 'Workers', 'processes']

MANY = 300  # files for which processes are started: each one needs a tenth of a second to begin
BATCH = 64  # files that a process gets at once
MOST = 8  # processes
_GRACE = 5.0  # seconds for a process to end after it was stopped
_GARBAGE = 10_000  # new objects after which Python looks for cycles
_TICK = 0.5  # seconds after which a process looks whether it was stopped
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_Mask = set[Union[int, signal.Signals]]
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

    :param number: The number of processes; there are fewer, or none, if the system does not allow so many.
    :param tally: Counts what they do. When it stops, so do they.
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
        self._processes: list[ForkProcess] = []
        # A handler that raises in the middle of a fork would leave locks closed.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            with suppress(OSError):  # too many processes or files
                for _ in range(number):
                    self._fork(before, begin, do)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._living = len(self._processes)
        self._lock = threading.Lock()  # protects the number above
        self._ending = threading.Lock()  # one thread at a time waits for their end
        self._pool = ThreadPoolExecutor(max(1, self._living), 'rucio-s3-workers')

    @classmethod
    def start(cls, *arguments: Any) -> 'Optional[Workers[_Task, _Done]]':
        """Return the processes, or None if the system allows none.

        :param arguments: Those of the class.
        """
        workers = cls(*arguments)
        return workers if workers._processes else None

    def _fork(self, mask: _Mask, begin: Callable[[], None], do: Callable[[Sequence[_Task]], list[_Done]]) -> None:
        mine, its = multiprocessing.Pipe()
        arguments = (its, [*self._ends, mine], mask, current(), self._tally, begin, do)
        try:
            process = ForkProcess(target=_serve, args=arguments, daemon=True)
            process.start()
        except OSError:
            mine.close()
            raise
        finally:
            its.close()
        self._ends.append(mine)
        self._processes.append(process)
        self._idle.put(mine)

    def submit(self, tasks: Sequence[_Task]) -> list[Future[list[_Done]]]:
        """Let the processes work.

        :param tasks: The tasks.
        :returns: For each batch of them what ``do`` returns; nothing if its process was killed, or if all was
            stopped before.
        """
        size = min(BATCH, -(-len(tasks) // len(self._processes)))
        return [self._pool.submit(self._ask, tasks[at : at + size]) for at in range(0, len(tasks), max(1, size))]

    def _ask(self, batch: Sequence[_Task]) -> list[_Done]:
        if self._tally.stop.is_set():
            return []
        end = self._idle.get()
        try:
            end.send(batch)
            while not end.poll(_TICK):
                if self._tally.stop.is_set():
                    self._stop()
            answer = end.recv()
        except (EOFError, OSError):
            self._lose(end, batch)
            return []
        self._idle.put(end)
        if isinstance(answer, BaseException):
            raise answer
        done, part = answer
        self._tally.add(part)
        if self._tally.stop.is_set():
            self._stop()
        found: list[_Done] = done
        return found

    def _lose(self, end: Connection, batch: Sequence[_Task]) -> None:
        """Go on without a process that is gone. Only the last one stays: who waits for one hears the same."""
        with self._lock:
            self._living -= 1
            if self._living <= 0:
                self._idle.put(end)
        for task in batch if not self._tally.stop.is_set() else ():
            self._tally.fail(
                self._name(task),
                'was not transferred: its process of this command was killed. Is there enough memory? Try again',
                again=True,
            )

    def _stop(self) -> None:
        with self._ending:
            for process in self._processes:
                process.terminate()
            self._end()

    def close(self) -> None:
        """End the processes: after their batches, or if the tally has stopped, during them."""
        if self._tally.stop.is_set():
            self._stop()
        self._pool.shutdown(cancel_futures=True)
        for end in self._ends:
            end.close()
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            process.join(_GRACE)
            if process.is_alive():
                process.kill()
                process.join()


def _serve(
    end: Connection,
    others: Sequence[Connection],
    mask: _Mask,
    request_id: str,
    tally: Tally[Any],
    begin: Callable[[], None],
    do: Callable[[Any], list[Any]],
) -> None:
    """Do what comes, until the parent closes its end or is gone, or this process is to end."""
    for other in others:
        other.close()
    # The parent gets them as well, and says what happens.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: tally.stop.set())
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    inherit(request_id)
    # What exists now is kept until the end, and a file leaves few cycles: Python's defaults cost 4 % of the time.
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    tally.begin_part()
    is_ready = False
    with suppress(EOFError, OSError):
        while not tally.stop.is_set():
            if not end.poll(_TICK):
                continue
            batch = end.recv()
            answer: Any
            try:
                if not is_ready:  # not before there is work: there may be none, as all is there already
                    begin()
                    is_ready = True
                answer = do(batch), tally.end_part()
            except Exception as error:  # noqa: BLE001 - it is raised in the parent
                answer = _portable(error)
            if not tally.stop.is_set():  # else not all was done: the parent knows, or says so
                end.send(answer)


def _portable(error: Exception) -> Exception:
    """Return an exception that can be sent to another process: this one, or else its text."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - it is ours
    except Exception:  # noqa: BLE001 - whatever its class does
        return RucioException(str(error)) if isinstance(error, RucioException) else RuntimeError(format_exc())
    return error
