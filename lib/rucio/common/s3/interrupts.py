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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import NoReturn, Optional

__all__ = ['cleaning_up', 'ending_by_exception']

# SIGTERM is how batch systems end a job, SIGHUP how a closed terminal does.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ending_by_exception() -> Iterator[None]:
    """Raise SystemExit on SIGTERM and SIGHUP within this block, where they would end the process at once.

    A handler that the program has set stays, and so does a signal that it ignores (nohup). The exit code is 128 and the
    number of the signal, as shells report it.
    """
    with ExitStack() as stack:
        for number in _ENDING:
            if _is_main() and signal.getsignal(number) is signal.SIG_DFL:
                stack.callback(signal.signal, number, signal.signal(number, _end))
        yield


@contextmanager
def cleaning_up() -> Iterator[None]:
    """Ignore Ctrl-C, SIGTERM and SIGHUP within this block, which has to be short: a second signal would end the
    clean-up of the first one.

    Rucio's own handler of Ctrl-C would even raise an error there, which its uploader takes for a failed attempt.
    """
    with ExitStack() as stack:
        for number in (signal.SIGINT, *_ENDING):
            # None: a handler that was not set by Python, and could not be set again.
            if _is_main() and signal.getsignal(number) is not None:
                stack.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
        yield


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _end(number: int, _: Optional[FrameType]) -> NoReturn:
    raise SystemExit(128 + number)
