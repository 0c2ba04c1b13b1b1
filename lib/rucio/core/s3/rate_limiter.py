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

"""Rate limits for accounts, storages and others, counted in the memory of one process."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

__all__ = ['RateLimiter']


class RateLimiter:
    """Limit the use of something by each of many users, with bursts (a token bucket).

    A user may go on while anything is available, whatever it costs: using more than that creates a debt, and a longer
    wait. Each process of a server counts by itself.

    :param at_once: The size of a burst: what a user can have at most, and has at the start.
    :param per_second: The amount that is added per second.
    :param remembered: The number of users that are tracked: those who used something last.
    :param clock: Returns seconds, like time.monotonic.
    """

    def __init__(
        self, at_once: float, per_second: float, remembered: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._at_once = at_once
        self._per_second = per_second
        self._remembered = remembered
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # user -> what was left, and when

    def available(self, who: Hashable) -> float:
        """Return the amount that a user may use now; 0 or less: the user has to wait.

        :param who: The user.
        """
        with self._lock:
            return self._available(who)

    def take(self, who: Hashable, amount: float) -> float:
        """Use an amount.

        :param who: The user.
        :param amount: The amount.
        :returns: What was available before.
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
