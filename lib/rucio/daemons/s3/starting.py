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

"""The start of the daemons: common parts of their command lines, and errors at the start."""

import argparse
import configparser
import logging
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from rucio.common.exception import DatabaseException, RucioException
from rucio.common.logging import setup_logging
from rucio.common.s3 import UNTESTED
from rucio.common.s3.answers import one_line
from rucio.db.sqla.util import is_old_db

__all__ = ['ROUND_SECONDS', 'need_database', 'positive_int', 'seconds', 'started', 'stop_on_signals']

ROUND_SECONDS = (0.1, 1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600)  # buckets of histograms of long durations


def positive_int(most: int = sys.maxsize) -> Callable[[str], int]:
    """Return an argparse type for integers from 1 to a maximum.

    :param most: The maximum.
    """

    def parse(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(
                f"'{text}' is not 1 or more." if most == sys.maxsize else f"'{text}' is not a number from 1 to {most}."
            )
        return int(text)

    return parse


def seconds(text: str) -> float:
    """Parse a duration for argparse.

    :param text: The argument.
    :raises ArgumentTypeError: if it is not a number, or is negative or infinite.
    """
    try:
        found = float(text)
    except ValueError:
        found = -1
    if not 0 <= found < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds.")
    return found


def stop_on_signals(event: threading.Event) -> None:
    """Set an event on SIGTERM and SIGINT.

    :param event: The event.
    """

    def stop(*_: Any) -> None:
        # Not in this thread, which may be in a wait for the event, and have its lock.
        threading.Thread(target=event.set, name='stop').start()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)


def need_database(name: str) -> None:
    """Set up the log of a daemon, and check the schema of the database. One query.

    :param name: The name of the daemon in the log.
    :raises DatabaseException: if the schema is not that of this version of Rucio.
    """
    setup_logging(process_name=name)
    for handler in logging.getLogger().handlers:  # heartbeats use the root logger
        handler.addFilter(one_line)
    if UNTESTED:
        logging.getLogger(name).warning(UNTESTED)
    if is_old_db():
        raise DatabaseException("The database was not updated to this version of Rucio: the daemon won't start.")


@contextmanager
def started(program: str, failure: str = 'The daemon cannot start') -> Iterator[None]:
    """Exit with 1 and a message in one line if the daemon or command cannot run.

    :param program: The command.
    :param failure: The beginning of the message.
    """
    try:
        yield
    except (RucioException, SQLAlchemyError) as error:
        found = str(error.args[0] if error.args else error)
        sys.exit(f'{program}: {found if found.startswith("RSE ") else f"{failure}: {found}"}')
    except (configparser.NoSectionError, configparser.NoOptionError) as error:
        sys.exit(
            f'{program}: {failure}: rucio.cfg: {error}. It needs the rucio.cfg of the Rucio server: see RUCIO_HOME and '
            'RUCIO_CONFIG.'
        )
