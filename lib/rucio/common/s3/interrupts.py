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

Python's signal handlers run in the main thread only, and may raise between any two of its steps: for example, after it
has started a thread and before it has noted which one, or while it holds a lock. So the main thread starts tasks, and
waits for flags. In other threads the contexts of this module do nothing.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, Generic, NoReturn, Optional, TypeVar

__all__ = ['TICK', 'Flag', 'Task', 'cleaning_up', 'ending_by_exception', 'uninterrupted']

# Seconds. A signal that another thread receives, or that arrives just before Python starts to wait, is handled after
# the wait.
TICK = 0.2

# Batch systems end jobs with SIGTERM, closed terminals with SIGHUP.
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_Handler = Callable[..., Any] | signal.Handlers
_Result = TypeVar('_Result')


class Flag:
    """An event for which one thread waits. It can still be set after a signal handler has raised during the wait.

    A :class:`threading.Event` may stay locked forever then: it is written in Python, where a handler can run between
    taking the lock and noting that it has to be released.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._closed = threading.Lock()
        self._closed.acquire()

    def set(self) -> None:
        """End the wait."""
        self._is_set = True
        with suppress(RuntimeError):  # open already
            self._closed.release()

    def is_set(self) -> bool:
        """Return whether it was set."""
        return self._is_set

    def wait(self, seconds: float = math.inf) -> bool:
        """Wait until it is set, and return whether it is.

        :param seconds: The longest time to wait.
        """
        end = time.monotonic() + seconds
        while not self._is_set and (left := end - time.monotonic()) > 0:
            self._closed.acquire(timeout=min(TICK, left))
        return self._is_set


class Task(Generic[_Result]):
    """A call of a function in a thread of its own, where no signal handler can interrupt it.

    :param do: The function.
    :param daemon: Whether the process may end before the thread.
    """

    def __init__(self, do: Callable[[], _Result], daemon: bool = False) -> None:
        self.done = Flag()
        self._claim = threading.Lock()  # for who comes first: the thread, or the one that cancels it
        self._do = do
        self._daemon = daemon
        self._results: list[_Result] = []
        self._error: Optional[BaseException] = None

    def start(self) -> None:
        """Start the thread.

        :raises RuntimeError: if the system allows no more threads.
        """
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *_ENDING))
        try:
            threading.Thread(target=self._run, args=(mask,), name='rucio-s3-task', daemon=self._daemon).start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _run(self, mask: set[Any]) -> None:
        if not self._claim.acquire(blocking=False):
            return
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # processes that it starts inherit it
        try:
            self._results.append(self._do())
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            self._error = error
        self.done.set()

    def cancel(self) -> bool:
        """Return whether the function was not called, and will not be."""
        return self._claim.acquire(blocking=False)

    def result(self) -> _Result:
        """Return what the function returned, or raise what it raised, when it is done."""
        if self._error is not None:
            raise self._error
        return self._results[0]


def uninterrupted(do: Callable[[], _Result], stop: threading.Event) -> _Result:
    """Call a function where no signal handler can interrupt it, and wait until it has ended, or for a second signal.

    :param do: The function.
    :param stop: Set when a signal handler raises: the function should then end soon.
    """
    if threading.current_thread() is not threading.main_thread():
        return do()
    task = Task(do, daemon=True)
    try:
        task.start()
        task.done.wait()
    except BaseException:
        stop.set()
        if not task.cancel():
            task.done.wait()
        raise
    return task.result()


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
