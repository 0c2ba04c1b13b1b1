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

"""How much each of many may use of something, in the memory of one process."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

__all__ = ['RateLimiter']


class RateLimiter:
    """So much at once, and so much more in each second, for each of many who are told apart by a name.

    Whoever has something left may go on, however much it takes: what he used beyond it is a debt, and he waits longer.
    Each process of a server counts for itself.

    :param at_once: What each has at the beginning, and at most.
    :param per_second: What is added in each second.
    :param remembered: How many are remembered: those who used something last.
    :param clock: Seconds, such as time.monotonic.
    """

    def __init__(
        self, at_once: float, per_second: float, remembered: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._at_once = at_once
        self._per_second = per_second
        self._remembered = remembered
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # what was left, and when

    def available(self, who: Hashable) -> float:
        """What he may use now; nothing or less: he has to wait."""
        with self._lock:
            return self._available(who)

    def take(self, who: Hashable, amount: float) -> float:
        """Take something off.

        :returns: What was left before.
        """
        with self._lock:
            before = self._available(who)
            self._known[who] = before - amount, self._clock()
            self._known.move_to_end(who)
            while len(self._known) > self._remembered:
                self._known.popitem(last=False)
            return before

    def _available(self, who: Hashable) -> float:
        left, at = self._known.get(who, (self._at_once, 0.0))
        return min(self._at_once, left + (self._clock() - at) * self._per_second)
