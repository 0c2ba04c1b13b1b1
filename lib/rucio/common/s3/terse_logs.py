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

"""Let Rucio's upload log one line about an error of the protocol.

It wraps the error in another one, and logs this with the tracebacks of both: 20 lines, in which the user has to find
the one that says what to do.
"""

import inspect
import logging
import weakref
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from rucio.common.types import LoggerFunction

__all__ = ['expect']

_ours: 'weakref.WeakSet[BaseException]' = weakref.WeakSet()


class _OneLine(logging.Filter):
    """A filter that drops no record, but shortens those about our errors. With ``rucio -v`` they stay complete."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = _ours_in(record.exc_info[1] if record.exc_info else None)
        if error is not None and not logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
            record.msg, record.args = str(error.args[0] if error.args else error), ()
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.ERROR, logging.getLevelName(logging.ERROR)
        return True


_filter = _OneLine()


def expect(error: BaseException, logger: 'LoggerFunction') -> None:
    """Have the next record about an error, which is about to be raised to Rucio, consist of its message only.

    :param error: The error; its message is one sentence or two, with everything that the user needs.
    :param logger: The protocol's logger, which Rucio's client uses as well.
    """
    _ours.add(error)
    used = getattr(inspect.unwrap(logger), '__self__', None)  # logging.log is that of the root logger
    (used if isinstance(used, logging.Logger) else logging.getLogger()).addFilter(_filter)


def _ours_in(error: Optional[BaseException]) -> Optional[BaseException]:
    while error is not None and error not in _ours:
        error = error.__cause__ or error.__context__
    return error
