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

"""What becomes of the files of an upload, counted by many threads."""

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable


class Refused(Exception):
    """Why a file is not uploaded, as the user reads it."""


@dataclass
class Summary:
    """What an upload did. ``failures`` and ``warnings`` are (path, reason)."""

    sent: int = 0
    sent_bytes: int = 0
    there: int = 0  # object and catalogue were right before
    found: int = 0  # the object was there, the catalogue did not have it
    made: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)


class Tally:
    """Makes the summary of an upload, and stops it when nothing succeeds any more."""

    # So many failures without a success between them have one cause, and a million files need not find it again.
    hopeless: ClassVar[int] = 100

    def __init__(self) -> None:
        self.summary = Summary()
        self.stop = threading.Event()
        self.step: Callable[[int], None] = lambda _: None  # moves the progress bar, by bytes
        self._lock = threading.Lock()
        self._failed_in_a_row = 0

    def warn(self, path: str, reason: str) -> None:
        """Note what is not a file."""
        self.summary.warnings.append((path, reason))

    def fail(self, path: str, reason: str, *, again: bool = False) -> None:
        """Note a failure.

        :param again: Whether other files may fail for the same reason.
        """
        with self._lock:
            self.summary.failures.append((path, reason))
            self._failed_in_a_row += again
            if self._failed_in_a_row >= self.hopeless:
                self.stop.set()

    def count(self, **numbers: int) -> None:
        """Add to numbers of the summary, after something succeeded."""
        with self._lock:
            self._failed_in_a_row = 0
            for name, number in numbers.items():
                setattr(self.summary, name, getattr(self.summary, name) + number)
