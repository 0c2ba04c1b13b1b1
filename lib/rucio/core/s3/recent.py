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

"""What a process found out within the last seconds, so that the next request need not ask the database again."""

import threading
from collections.abc import Hashable
from time import monotonic

__all__ = ['Recent', 'forget_all', 'monotonic']

MAX_KEPT = 10_000

_ALL: 'list[Recent]' = []


class Recent(dict[Hashable, float]):
    """Facts, each with the time until which it counts; the oldest are forgotten first. Thread-safe.

    To be created once, with a module.

    :param seconds: For how long a fact counts after it was asked for.
    :param most: How many are kept.
    """

    def __init__(self, seconds: float, most: int = MAX_KEPT) -> None:
        super().__init__()
        self._seconds, self._most = seconds, most
        self._lock = threading.Lock()
        _ALL.append(self)

    def has(self, fact: Hashable) -> bool:
        """Return whether a fact was found out of late.

        :param fact: The fact.
        """
        return monotonic() < self.get(fact, 0.0)

    def add(self, fact: Hashable, asked: float) -> None:
        """Remember a fact.

        :param fact: The fact.
        :param asked: When it was asked for, not when the answer came, by :func:`monotonic`.
        """
        with self._lock:
            self.pop(fact, None)
            self[fact] = asked + self._seconds
            while len(self) > self._most:
                del self[next(iter(self))]


def forget_all() -> None:
    """Forget all facts, as a new process does."""
    for each in _ALL:
        each.clear()
