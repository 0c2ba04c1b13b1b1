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

"""Progress bars on the terminal: one display for all transfers of a process."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Optional

from .answers import printable

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ['meter']

SHOWN_FROM = 16 * 1024**2  # bytes; smaller files are too fast for a bar

_lock = threading.Lock()
_display: 'Optional[Progress]' = None
_users = 0


def _wanted(setting: str) -> bool:
    """Return whether to show bars. auto: on a terminal, unless output is for programs (``rucio --robot``)."""
    if setting == 'auto':
        return sys.stderr.isatty() and not {'-R', '--robot'}.intersection(sys.argv)
    return setting == 'on'


@contextmanager
def meter(setting: str, name: str, size: int) -> Iterator[Optional[Callable[[int], None]]]:
    """Show a bar for a transfer while the block runs.

    :param setting: auto, on or off.
    :param name: The name to show.
    :param size: The size in bytes.
    :returns: A function to call with the number of bytes of each step, from any thread; None if nothing is shown.
    """
    if size < SHOWN_FROM or not _wanted(setting):
        yield None
        return
    from rich.markup import escape  # noqa: PLC0415 - it takes 30 ms to import rich, and most transfers show nothing

    display = _enter()
    task = display.add_task(escape(printable(name)), total=size)
    try:
        yield lambda step: display.advance(task, step)
    finally:
        display.remove_task(task)
        _leave()


def _enter() -> 'Progress':
    global _display, _users  # noqa: PLW0603 - a terminal has one display
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    with _lock:
        if _display is None:
            columns = (
                TextColumn('{task.description}'),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
            )
            _display = Progress(
                *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
            )
            _display.start()
        _users += 1
        return _display


def _leave() -> None:
    global _display, _users  # noqa: PLW0603
    with _lock:
        _users -= 1
        if not _users and _display is not None:
            _display.stop()
            _display = None
