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

"""What looks wrong in rucio.cfg or rse-accounts.cfg, but is no error: told once, in a line of the log."""

import logging
import os
import stat
from typing import TYPE_CHECKING

from rucio.common.config import Config, get_config, get_config_dirs
from rucio.common.exception import RucioException

from .answers import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rucio.common.types import LoggerFunction

__all__ = ['sections_of_no_rse', 'warn', 'warn_of_accounts']

_SECRETS = ('secret_key', 'session_token')
_PREFIX = 's3:'
_warned: set[str] = set()  # RSEs, and rse-accounts.cfg
_OPEN = '%s has secret keys, and others can read it: chmod %s %s'


def warn(rse: str, logger: 'LoggerFunction') -> None:
    """Log what looks wrong for an RSE, once. No request.

    :param rse: The name of the RSE.
    :param logger: The logger of the client.
    """
    if rse in _warned:
        return
    _warned.add(rse)
    sections = _sections()
    if path := _open_to_others(sections):
        logger(logging.WARNING, _OPEN, path, '600', path)
    if f'{_PREFIX}{rse}' not in sections:
        for each in sections:
            if each.startswith(_PREFIX) and _alike(each.removeprefix(_PREFIX), rse):
                logger(
                    logging.WARNING,
                    'rucio.cfg [%s] is not used: the name of the RSE is %s.',
                    printable(each),
                    printable(rse),
                )


def warn_of_accounts(logger: 'LoggerFunction') -> None:
    """Log once if everybody on the machine can read rse-accounts.cfg. No request.

    Its group may: the processes of a server can be of another user than the owner of its configuration.

    :param logger: The logger of the server, daemon or client.
    """
    paths = [os.path.join(folder, 'rse-accounts.cfg') for folder in get_config_dirs()]
    path = next((each for each in reversed(paths) if os.path.exists(each)), '')  # Rucio reads the last
    if path and path not in _warned and stat.S_IMODE(os.stat(path).st_mode) & 0o007:
        _warned.add(path)
        logger(logging.WARNING, _OPEN, path, 'o=', path)


def sections_of_no_rse(rses: 'Iterable[str]') -> list[str]:
    """Return the sections ``s3:NAME`` of rucio.cfg for which there is no RSE. No request.

    :param rses: The names of all RSEs.
    """
    known = set(rses)
    return [each for each in _sections() if each.startswith(_PREFIX) and each.removeprefix(_PREFIX) not in known]


def _sections() -> list[str]:
    try:
        return [each for each in get_config().sections() if each == 's3' or each.startswith(_PREFIX)]
    except (RucioException, RuntimeError):  # a client may be configured by its arguments only
        return []


def _open_to_others(sections: list[str]) -> str:
    """Return the path of rucio.cfg if it has secret keys and a mode that lets others read it."""
    config = get_config() if sections else {}
    if not any(name in config[section] for section in sections for name in _SECRETS):
        return ''
    path = str(Config().configfile)
    return path if stat.S_IMODE(os.stat(path).st_mode) & 0o077 else ''


def _alike(name: str, other: str) -> bool:
    return name.strip().lower().replace('-', '_') == other.lower().replace('-', '_')
