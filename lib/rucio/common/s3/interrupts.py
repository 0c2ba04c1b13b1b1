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

"""Signals that end a process, and the clean-up that comes before its end.

Python's signal handlers run in the main thread only: in other threads all of this does nothing.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, NoReturn, Optional

__all__ = ['TICK', 'cleaning_up', 'ending_by_exception']

TICK = 0.2  # seconds: a signal for another thread, or just before Python begins to wait, is only handled after the wait

# Batch systems end jobs with SIGTERM, closed terminals with SIGHUP.
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_Handler = Callable[..., Any] | signal.Handlers


@contextmanager
def ending_by_exception(ctrl_c: bool = False) -> Iterator[None]:
    """Raise SystemExit on SIGTERM and SIGHUP within a block, instead of ending the process at once.

    Handlers that the program has set are kept, and so are signals that it ignores (nohup). The exit code is 128 plus
    the number of the signal, as in shells.

    :param ctrl_c: Also raise KeyboardInterrupt on Ctrl-C, instead of calling Rucio's own handler, which fails with a
        TypeError. That handler is not set again: after the block, Ctrl-C ends a process that waits for its threads.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with ExitStack() as stack:
        for number in _ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:
                _handle(stack, number, _end)
        if ctrl_c:
            is_pythons = signal.getsignal(signal.SIGINT) is signal.default_int_handler
            _handle(stack, signal.SIGINT, signal.default_int_handler, None if is_pythons else signal.SIG_DFL)
        yield


@contextmanager
def cleaning_up() -> Iterator[None]:
    """Ignore Ctrl-C, SIGTERM and SIGHUP within a block, so that a second signal does not end the clean-up.

    The block must be short. Rucio's own handler of Ctrl-C would even raise an error in it, which Rucio's uploader takes
    for a failed attempt.
    """
    with ExitStack() as stack:
        for number in (signal.SIGINT, *_ENDING):
            _handle(stack, number, signal.SIG_IGN)
        yield


def _handle(stack: ExitStack, number: int, handler: '_Handler', after: 'Optional[_Handler]' = None) -> None:
    """Set the handler of a signal until the stack is closed, and then another one, or the previous one."""
    # None: the handler was not set by Python, and could not be restored.
    if threading.current_thread() is threading.main_thread() and signal.getsignal(number) is not None:
        before = signal.signal(number, handler)
        stack.callback(signal.signal, number, before if after is None else after)


def _end(number: int, _: Optional[FrameType]) -> NoReturn:
    raise SystemExit(128 + number)
