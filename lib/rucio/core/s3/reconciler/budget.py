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
"""The budget of a reconciler run: time, and bytes to read for checksums."""

import threading
import time
from itertools import islice
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .listings import Entry

__all__ = ['Budget']


class Budget:
    """What a run may still use.

    :param reads: Whether objects may be read at all.
    :param stop: Set it to end a run soon, in a safe state.
    """

    def __init__(self, reads: bool, stop: threading.Event) -> None:
        self.reads = reads
        self.stop = stop
        self.renew(None, None)

    def renew(self, seconds: Optional[float], unread: Optional[int]) -> None:
        """Start another run.

        :param seconds: The time limit from now on; None: no limit.
        :param unread: The number of bytes that may be read for checksums; None: no limit.
        """
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.unread = unread

    def is_over(self) -> bool:
        """Return whether the run has to end."""
        return self.stop.is_set() or (self.deadline is not None and time.monotonic() > self.deadline)

    def may_read(self, entry: 'Entry') -> bool:
        """Return whether an object may be read; if so, count its bytes, unless it is archived and will not be read.

        :param entry: The object.
        """
        if self.reads and self.unread is not None:
            if entry.size > self.unread:
                return False
            self.unread -= 0 if entry.archived else entry.size
        return self.reads

    def in_time(self, entries: 'Iterable[Entry]') -> 'Iterator[Entry]':
        """Yield entries until the time is over; at least the first one, so that every run makes progress.

        :param entries: The entries.
        """
        entries = iter(list(entries))
        yield from islice(entries, 1)
        for entry in entries:
            if self.is_over():
                return
            yield entry
