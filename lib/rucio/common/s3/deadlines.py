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

"""What ends the reading of an answer in the current thread: a deadline, or a stop.

The time-outs of HTTP clients are for each read: a storage that sends a byte now and then never runs into them, and one
that hangs keeps a thread for a minute after Ctrl-C.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

__all__ = ['ended_by', 'is_over', 'is_stopped', 'seconds_left', 'within']

_current = threading.local()


@contextmanager
def within(seconds: Optional[float]) -> Iterator[None]:
    """Let reads inside the block, by this thread, fail with a time-out when so much time is over.

    An earlier deadline around the block remains.

    :param seconds: The time in seconds; None for no limit.
    """
    before: Optional[float] = getattr(_current, 'at', None)
    at = None if seconds is None else time.monotonic() + seconds
    _current.at = min((each for each in (before, at) if each is not None), default=None)
    try:
        yield
    finally:
        _current.at = before


def seconds_left() -> Optional[float]:
    """Return the seconds until the deadline of this thread; None: there is none."""
    at: Optional[float] = getattr(_current, 'at', None)
    return None if at is None else at - time.monotonic()


def is_over() -> bool:
    """Return whether this thread has a deadline that is over."""
    left = seconds_left()
    return left is not None and left <= 0


@contextmanager
def ended_by(stop: threading.Event) -> Iterator[None]:
    """Let reads inside the block, by this thread, fail soon after an event is set.

    :param stop: The event.
    """
    before: Optional[threading.Event] = getattr(_current, 'stop', None)
    _current.stop = stop
    try:
        yield
    finally:
        _current.stop = before


def is_stopped() -> Optional[bool]:
    """Return whether the event of this thread is set; None: it has none."""
    stop: Optional[threading.Event] = getattr(_current, 'stop', None)
    return None if stop is None else stop.is_set()
