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

"""What uploads and downloads share: chunks that follow each other, how much is under way, the text of an error."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, Optional, TypeVar

from rucio.common.exception import RucioException

__all__ = ['LARGE_AT_ONCE', 'MOST', 'UnderWay', 'behind', 'message']

LARGE_AT_ONCE = 2  # large files, each with many requests at once
LEAST, MOST = 16, 128  # files under way; with fewer, a storage in Go takes twice the CPU time for each request
PER_JOB = 0.002  # seconds: another file is sent for each of them that the storage takes to answer
MEMORY = 64 * 1024**2  # bytes of files that are sent from memory

_Item = TypeVar('_Item')


def behind(number: int, items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield each item when so many others have come after it.

    :param number: The number of others.
    :param items: The items.
    """
    waiting: deque[_Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > number:
            yield waiting.popleft()
    yield from waiting


class UnderWay:
    """Threads that transfer files: a given number, or as many as the latency of the storage asks for.

    Python needs a millisecond or two for a small file: while an answer takes a hundred, fifty others can be sent. More
    threads than that only make each other wait, unless they are very few. An executor of Python starts a thread for
    each task, up to a number that cannot grow when the latency is known.

    :param jobs: The number; None for :data:`LEAST` to :data:`MOST`.
    :param latency: Returns the seconds in which the storage answers, as far as is known.
    :param share: The number of processes that share all of this.
    """

    def __init__(self, jobs: Optional[int], latency: 'Callable[[], float]' = lambda: 0.0, share: int = 1) -> None:
        self._most = max(1, (MOST if jobs is None else jobs) // share)
        self._least, self._memory = -(-LEAST // share), MEMORY // share
        self._now = self._least if jobs is None else self._most
        self._latency = latency
        self._todo: SimpleQueue[Optional[tuple[Callable[[], None], Future[Any]]]] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()
        self._ended = False
        self._done = 0  # about so many
        self._held = 0
        self._room = threading.Condition()

    def submit(self, do: Callable[..., _Item], *arguments: Any) -> 'Future[_Item]':
        """Let a thread call a function.

        :param do: The function.
        :param arguments: Its arguments.
        """
        future: Future[_Item] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(do(*arguments))
            except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
                future.set_exception(error)

        self._todo.put((run, future))
        self._start_one()
        return future

    def _start_one(self) -> None:
        with self._starting:
            if len(self._threads) < self._now and not self._ended:
                # A daemon: a forked process ends without ending them.
                thread = threading.Thread(target=self._work, name='rucio-s3-files', daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the system allows no more
                    if not self._threads:
                        raise
                    self._now = self._most = len(self._threads)
                else:
                    self._threads.append(thread)

    def _work(self) -> None:
        while (task := self._todo.get()) is not None:
            task[0]()
            del task
            self._done += 1
            if self._done > self._least:  # the first ones opened their connections
                self._now = max(self._now, min(self._most, self._least + int(self._latency() / PER_JOB)))
            for _ in range(min(self._now - len(self._threads), self._todo.qsize())):
                self._start_one()

    def end(self) -> None:
        """Start nothing more, and wait for what is running."""
        with self._starting:
            self._ended = True
        with suppress(Empty):
            while task := self._todo.get_nowait():
                task[1].cancel()
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Wait until there is room in memory.

        :param size: The bytes that are held there.
        """
        if not size:
            yield
            return
        with self._room:
            self._room.wait_for(lambda: not self._held or self._held + size <= self._memory)
            self._held += size
        try:
            yield
        finally:
            with self._room:
                self._held -= size
                self._room.notify_all()


def message(error: RucioException) -> str:
    """Return the text of an exception, without Rucio's general one for its class.

    :param error: The exception.
    """
    return str(error.args[0]) if error.args else str(error)
