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

"""The outcome of the files of an upload or a download, counted by many threads."""

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar, Union

if TYPE_CHECKING:
    from collections.abc import Callable


class Refused(Exception):
    """The reason why a file is not transferred, as shown to the user."""


@dataclass
class Outcome:
    """What both directions have. ``failures`` and ``warnings`` are (path or DID, reason).

    ``planned`` are (source, destination), if nothing was to be changed.
    """

    failures: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    planned: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Uploaded(Outcome):
    """The outcome of an upload."""

    sent: int = 0
    sent_bytes: int = 0
    there: int = 0  # object and catalogue already matched the file
    found: int = 0  # the object was there, but not in the catalogue
    made: list[str] = field(default_factory=list)


@dataclass
class Downloaded(Outcome):
    """The outcome of a download."""

    received: int = 0
    received_bytes: int = 0
    there: int = 0  # the local file already had the content


@dataclass
class Synced:
    """The outcome of a synchronisation.

    :param transferred: What was uploaded or downloaded.
    :param deleted: The DIDs or local files that the source does not have, and that were (in a dry run: would be)
        deleted.
    :param failures: (DID or path, reason) of those that were not deleted.
    """

    transferred: 'Union[Uploaded, Downloaded]'
    deleted: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)


_Outcome = TypeVar('_Outcome', bound=Outcome)


class Part(NamedTuple):
    """What one process counted: the fields of its summary, the moved bytes, and how many failed after the last success.

    ``failed_in_a_row`` is that number, and ``succeeded`` whether there was a success before them.
    """

    fields: dict[str, Any]
    moved: int
    failed_in_a_row: int
    succeeded: bool


class Tally(Generic[_Outcome]):
    """Builds the summary of an upload or a download, and stops it if every file fails.

    :param summary: An empty one.
    """

    # So many failures in a row have a common cause, which a million files need not repeat.
    hopeless: ClassVar[int] = 100

    def __init__(self, summary: _Outcome) -> None:
        self.summary = summary
        self.stop = threading.Event()
        self.step: Callable[[int], None] = lambda _: None  # moves the progress bar by a number of bytes
        self._moved: list[int] = []
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self._succeeded = False

    def begin_part(self) -> None:
        """Begin to count for another process, in a copy of its tally."""
        self.summary, self._failed_in_a_row, self._succeeded = type(self.summary)(), 0, False
        moved: list[int] = []
        self.step, self._moved = moved.append, moved

    def end_part(self) -> Part:
        """Return what was counted since :meth:`begin_part`, and begin again."""
        part = Part(vars(self.summary), sum(self._moved), self._failed_in_a_row, self._succeeded)
        self.begin_part()
        return part

    def add(self, part: Part) -> None:
        """Add what another process counted.

        :param part: What it counted.
        """
        with self._lock:
            for name, value in part.fields.items():
                if isinstance(value, list):
                    getattr(self.summary, name).extend(value)
                else:
                    setattr(self.summary, name, getattr(self.summary, name) + value)
            self._failed_in_a_row = part.failed_in_a_row + (0 if part.succeeded else self._failed_in_a_row)
            if self._failed_in_a_row >= self.hopeless:
                self.stop.set()
        self.step(part.moved)

    def warn(self, path: str, reason: str) -> None:
        """Record something that is not a file.

        :param path: Its path.
        :param reason: The rest of the sentence that begins with the path.
        """
        self.summary.warnings.append((path, reason))

    def fail(self, path: str, reason: str, *, again: bool = False) -> None:
        """Record a failure.

        :param path: The file, or its DID.
        :param reason: The rest of the sentence that begins with the path.
        :param again: Whether other files may fail for the same reason.
        """
        with self._lock:
            self.summary.failures.append((path, reason))
            self._failed_in_a_row += again
            if self._failed_in_a_row >= self.hopeless:
                self.stop.set()

    def plan(self, source: str, destination: str) -> None:
        """Record what would be transferred.

        :param source: The path or the DID.
        :param destination: The DID or the path.
        """
        with self._lock:
            self.summary.planned.append((source, destination))

    def count(self, **numbers: int) -> None:
        """Add to numbers of the summary after a success.

        :param numbers: The fields of the summary, and what to add to each.
        """
        with self._lock:
            self._failed_in_a_row, self._succeeded = 0, True
            for name, number in numbers.items():
                setattr(self.summary, name, getattr(self.summary, name) + number)
