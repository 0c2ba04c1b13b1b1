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

"""DIDs in the command lines of other S3 tools: what is one, and how each tool names it. Without requests.

The names are those at `rucio s3 serve`, where a bucket is a scope and a key is a name.
"""

import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Optional

from rucio.common.exception import InputValidationError

from .address import scope_to_bucket
from .formats import ALIAS, Rclone, aliases_of_user, headings, name_for

__all__ = ['PROGRAMS', 'Word', 'remotes_of_user', 'translated']

PROGRAMS = {  # the names of the tools' programs, and in which form of `TOOLS` they want a name
    'aws': 'aws',
    'mc': 'mc',
    'mcli': 'mc',
    'minio-client': 'mc',
    'rclone': 'rclone',
    's3cmd': 's3cmd',
    's5cmd': 's5cmd',
}

# One letter is a drive of Windows. No DID has a blank, a backslash or a second colon.
_DID = re.compile(r'([A-Za-z0-9][A-Za-z0-9._-]+):(?!//)([^:\s\\]*)')
_PORT = re.compile('[0-9]{1,5}(/.*)?')
_OF_SOMEBODY = ('user.', 'group.')  # what the scopes of accounts and groups begin with
_SCOPE_AS_FOLDER = re.compile(r'((?:user|group)\.[A-Za-z0-9._-]+)(?:/(.*))?')


class Word(NamedTuple):
    """A word that looks like a DID.

    :param text: The word.
    :param scope: The scope.
    :param name: The name, without slashes at its ends; empty for the whole scope.
    :param sure: Whether it cannot be anything else, such as the value of an option or a host with its port.
    """

    text: str
    scope: str
    name: str
    sure: bool


def translated(command: Sequence[str], environ: Mapping[str, str], find: Callable[[Word], Optional[bool]]) -> list[str]:
    """Return the command of a tool, with each DID in the tool's form. Other programs get theirs unchanged.

    Options, URLs, paths and what the tool knows by itself are left alone.

    :param command: The program and its arguments.
    :param environ: The environment, which says where mc and rclone have their own names.
    :param find: Returns whether a DID is a collection; None if there is no such scope, and it may be something else.
    :raises InputValidationError: if a name would be taken for a local one: mc copies to it with success.
    """
    tool = PROGRAMS.get(os.path.basename(command[0]))
    if tool is None:
        return list(command)
    words = [command[0]]
    known = remotes_of_user(environ) if tool == 'rclone' else set()
    for before, text in itertools.pairwise(command):
        word = _word(text, before)
        if tool in ('mc', 'rclone'):
            _need_not_local(tool, command, text, environ)
        if word is None or word.scope in known:
            words.append(text)
            continue
        words.append(_name(tool, word, find))
    return words


def _word(text: str, before: str) -> Optional[Word]:
    found = _DID.fullmatch(text)
    if found is None or found[1] == ALIAS:
        return None
    scope, name = found[1], found[2].strip('/')
    sure = scope.startswith(_OF_SOMEBODY) or not (before.startswith('-') or _PORT.fullmatch(name))
    return Word(text, scope, name, sure)


def _name(tool: str, word: Word, find: Callable[[Word], Optional[bool]]) -> str:
    is_here = os.path.lexists(word.text)
    is_collection = find(word._replace(sure=word.sure and not is_here and tool != 'rclone'))
    if is_collection is None:
        return word.text
    if is_here:
        raise InputValidationError(
            f"'{word.text}' is a DID and a local file: write './{word.text}' for the file, or run it elsewhere."
        )
    key = word.name + ('/' if word.name and (is_collection or word.text.endswith('/')) else '')
    return name_for(tool, ALIAS, '', scope_to_bucket(word.scope), key)


def _need_not_local(tool: str, command: Sequence[str], text: str, environ: Mapping[str, str]) -> None:
    """Refuse what mc would take for a local name, and rclone too if it is empty."""
    if not text.strip():
        raise InputValidationError('An argument is empty. If it came from a command in `$(...)`, that failed.')
    if tool == 'rclone' or os.path.lexists(text) or 'alias' in command:
        return
    if '://' in text and not text.startswith('-'):
        raise InputValidationError(f"'{text}' is not a name of {command[0]}, but a local one: write SCOPE:NAME.")
    if text.startswith(f'{ALIAS}:'):
        raise InputValidationError(
            f"'{text}' is a local name for {command[0]}: write '{ALIAS}/{text[len(ALIAS) + 1 :]}'."
        )
    found = _SCOPE_AS_FOLDER.fullmatch(text)
    if found and not os.path.lexists(found[1]) and found[1] not in aliases_of_user(environ):
        raise InputValidationError(
            f"'{text}' is a local name for {command[0]}: write '{found[1]}:{found[2] or ''}' for the DID, "
            f"or './{text}' for the file."
        )


def remotes_of_user(environ: Mapping[str, str]) -> set[str]:
    """Return the remotes that rclone knows by itself: from variables and its configuration.

    :param environ: The environment.
    """
    found = (re.fullmatch('RCLONE_CONFIG_(.+)_TYPE', name) for name in environ)
    known = {match[1].lower() for match in found if match}
    with suppress(OSError, ValueError):
        known |= headings(Path(Rclone().location(environ)).expanduser().read_text(encoding='utf-8'))
    return known
