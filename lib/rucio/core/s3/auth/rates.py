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

"""Rate limits for signatures and vended keys, per account and server process.

An account can save up five seconds of its rate and use them at once. A request is served while anything is left; if it
takes more than that, the difference has to be refilled before the next one.
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
    """An account exceeded its rate limit. ``seconds``: when to retry, at least 1."""

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]
        self.seconds = seconds


def spend(option: str, account: str, vo: str, count: int = 1) -> None:
    """Count requests against the rate limit of an account. No request, no query.

    :param option: ``signatures_per_second`` or ``vends_per_second`` of ``ServerSettings``; 0: no limit.
    :param account: The account.
    :param vo: The VO of the account.
    :param count: The number of signatures or keys.
    :raises TooManyRequests: if nothing is left; nothing is counted then.
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
        f'Account {account} exceeded its rate limit: {_NAMES[option]} is {rate:g} per second. Try again later.',
        max(1, math.ceil(-left / rate)),
    )


_NAMES = {'signatures_per_second': 'the limit of signatures', 'vends_per_second': 'the limit of new credentials'}


def reset() -> None:
    """Forget all that was counted, as a new process does."""
    with _lock:
        _limiters.clear()
