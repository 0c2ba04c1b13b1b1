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

"""How many signatures and new keys an account may have a second, in each process of the server.

What an account did not use of five seconds it may use at once. A request that asks for more than is left is served as
long as anything is left; what it took too much has to come back before the next one.
"""

import math
import threading
from time import monotonic

from rucio.common.exception import ResourceTemporaryUnavailable
from rucio.common.s3.settings import of_server
from rucio.core.s3.rate_limiter import RateLimiter

__all__ = ['BURST', 'TooManyRequests', 'reset', 'spend']

BURST = 5  # seconds

_limiters: dict[tuple[str, float], RateLimiter] = {}
_lock = threading.Lock()


class TooManyRequests(ResourceTemporaryUnavailable):
    """An account asked too often. ``seconds``: when it may again, at least 1."""

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]
        self.seconds = seconds


def spend(option: str, account: str, vo: str, count: int = 1) -> None:
    """Take this many of what an account may have. No request, no query.

    :param option: signatures_per_second or vends_per_second, as ``ServerSettings`` has them; 0: as many as they like.
    :param account: Who asks.
    :param vo: The VO of the account.
    :param count: How many.
    :raises TooManyRequests: if nothing is left; nothing is taken then.
    :raises ConfigurationError: if the option is not a number.
    """
    if not (rate := of_server(option)):
        return
    with _lock:
        if (option, rate) not in _limiters:
            _limiters[option, rate] = RateLimiter(rate * BURST, rate, clock=monotonic)
        limiter = _limiters[option, rate]
        if (left := limiter.available((vo, account))) > 0:
            limiter.take((vo, account), count)
            return
    raise TooManyRequests(
        f'Account {account} asked too often: {_NAMES[option]} is {rate:g} a second. Try again later.',
        max(1, math.ceil(-left / rate)),
    )


_NAMES = {'signatures_per_second': 'the limit of signatures', 'vends_per_second': 'the limit of new credentials'}


def reset() -> None:
    """Begin anew, as another process does."""
    with _lock:
        _limiters.clear()
