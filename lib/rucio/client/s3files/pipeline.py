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
from contextlib import contextmanager
from typing import Optional, TypeVar

from rucio.common.exception import RucioException

__all__ = ['LARGE_AT_ONCE', 'MOST', 'UnderWay', 'behind', 'message']

LARGE_AT_ONCE = 2  # large files, each with many requests at once
LEAST, MOST = 8, 128  # files under way
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
    """Limits the files that are under way: to a given number, or to as many as the latency of the storage asks for.

    Python needs a millisecond or two for a small file: while an answer takes a hundred, fifty others can be sent.

    :param jobs: The number; None for :data:`LEAST` to :data:`MOST`.
    :param latency: Returns the seconds in which the storage answers, as far as is known.
    :param share: The number of processes that share all of this.
    """

    def __init__(self, jobs: Optional[int], latency: 'Callable[[], float]' = lambda: 0.0, share: int = 1) -> None:
        self.most = max(1, (MOST if jobs is None else jobs) // share)
        self._least, self._memory = max(1, LEAST // share), MEMORY // share
        self._now = self._least if jobs is None else self.most
        self._latency = latency
        self._free = threading.Semaphore(self._now)
        self._held = 0
        self._room = threading.Condition()

    @contextmanager
    def one(self, size: int = 0) -> Iterator[None]:
        """Wait until there is room for one more.

        :param size: The bytes that it holds in memory.
        """
        with self._free:
            with self._room:
                self._room.wait_for(lambda: not self._held or self._held + size <= self._memory)
                self._held += size
            try:
                yield
            finally:
                with self._room:
                    self._held -= size
                    self._room.notify_all()
                    more = min(self.most, self._least + int(self._latency() / PER_JOB)) - self._now
                    self._now += max(0, more)
        if more > 0:
            self._free.release(more)


def message(error: RucioException) -> str:
    """Return the text of an exception, without Rucio's general one for its class.

    :param error: The exception.
    """
    return str(error.args[0]) if error.args else str(error)
