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

"""Which files of many are meant: ``--include`` and ``--exclude``, with the patterns of rclone.

``*`` stands for anything but a slash, ``**`` for anything, ``?`` for one character but a slash, ``[abc]`` and
``[!abc]`` for one of a set. A pattern that begins with a slash is compared with the whole path, another one with its
end, from a slash on: ``*.root`` means files in each directory, ``/*.root`` only those in the first. One that ends in a
slash means all that is below a directory.
"""

import re
from collections.abc import Iterable

from rucio.common.exception import InputValidationError

__all__ = ['Filter']

_TOKEN = re.compile(r'\*\*|\*|\?|\[!?\]?[^\]]*\]|.', re.DOTALL)


class Filter:
    """A file is taken if any ``include`` matches its path, or there is none, and no ``exclude`` does.

    :param include: Patterns.
    :param exclude: Patterns, which win.
    :raises InputValidationError: if a pattern is not valid.
    """

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
        self._include = [_compiled(each) for each in include]
        self._exclude = [_compiled(each) for each in exclude]

    @property
    def is_open(self) -> bool:
        """Whether all files are taken."""
        return not self._include and not self._exclude

    def takes(self, path: str) -> bool:
        """Return whether a file is taken.

        :param path: Its path below the directory, with slashes.
        """
        if any(each.search(path) for each in self._exclude):
            return False
        return not self._include or any(each.search(path) for each in self._include)


def _compiled(pattern: str) -> re.Pattern[str]:
    start = '^' if pattern.startswith('/') else '(?:^|/)'
    pattern = pattern.removeprefix('/') + ('**' if pattern.endswith('/') else '')
    try:
        return re.compile(start + ''.join(map(_of_token, _TOKEN.findall(pattern))) + '$', re.DOTALL)
    except re.error as error:
        raise InputValidationError(f"The pattern '{pattern}' is not valid: {error}.") from None


def _of_token(token: str) -> str:
    known = {'**': '.*', '*': '[^/]*', '?': '[^/]'}
    if token in known:
        return known[token]
    if len(token) > 2 and token.startswith('['):
        negated = token[1] == '!'
        content = token[2 if negated else 1 : -1].replace('\\', r'\\').replace('^', r'\^').replace('[', r'\[')
        return f'[{"^/" if negated else ""}{content.replace("]", chr(92) + "]")}]'
    return re.escape(token)
