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

"""Where the files of DIDs go below a local directory: the inverse of an upload.

``rucio s3 upload DIR user.alice:run7`` makes ``run7/a`` of ``DIR/a``, so a download of ``user.alice:run7`` alone makes
``DIR/a`` of ``run7/a``. One of several DIDs, or of those that a wildcard matches, keeps its own name (like ``cp -r``):
``DIR/run7/a``.
"""

import os
import stat
from typing import NamedTuple, Optional

from rucio.common.s3 import address
from rucio.common.s3.content import Checksums
from rucio.common.s3.partial_files import is_partial

from .tally import Refused

WILDCARD = '*'  # the only one of Rucio


class RemoteFile(NamedTuple):
    """A file to download: its DID, what the catalogue knows of its content, and its path below the directory."""

    scope: str
    name: str
    checksums: Checksums
    path: str

    @property
    def did(self) -> str:
        """The DID as text."""
        return f'{self.scope}:{self.name}'


def base_of(name: str, is_file: bool, alone: bool) -> str:
    """Return the folder that local paths are relative to, without a slash at the end.

    :param name: The name that was asked for: of a file or a collection, or with a wildcard.
    :param is_file: Whether it is that of a file.
    :param alone: Whether nothing else was asked for.
    """
    if WILDCARD in name:
        return name[: name.index(WILDCARD)].rpartition('/')[0]
    return name.rpartition('/')[0] if is_file or not alone else name


def relative(name: str, base: str, collection: str = '') -> str:
    """Return the path of a file below the directory.

    :param name: The name of the file.
    :param base: See :func:`base_of`.
    :param collection: The name of the collection that it is a member of. Names of members may have nothing in common
        with it: such a file keeps its whole name, in the folder of the collection.
    :raises Refused: if the name cannot be a path, or would be one outside of the directory.
    """
    # Some sites let all names begin with a slash.
    name, base, collection = (each.removeprefix('/') for each in (name, base, collection))
    path = _below(name, base)
    if collection and collection != base and not name.startswith(f'{collection}/'):
        path = f'{_below(collection, base)}/{name}'
    if not path or not address.comes_back(path) or os.path.isabs(path):
        raise Refused(
            "has a name that cannot be a path, where '//', '.', '..' and '/' at the end have another meaning. Download "
            'it with another S3 client, and tell the owner of the file'
        )
    if is_partial(path.rpartition('/')[2]):
        raise Refused('has the name of an unfinished download: choose another one for it (rucio s3 exec)')
    return path


def _below(name: str, base: str) -> str:
    return name.removeprefix(f'{base}/') if base else name


class Folder:
    """The local directory of a download. No link below it is followed: it may lead to somewhere else.

    :param path: The directory, which may be a link itself, and need not exist.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def find(self, path: str) -> Optional[str]:
        """Return the whole path of a file that is there; None if nothing is.

        :param path: The path below the directory.
        :raises Refused: if a link or a file is in the way, or it is not a file.
        :raises OSError: if that cannot be found out.
        """
        whole = self._parent(path, make=False)
        if whole is None:
            return None
        try:
            mode = os.stat(whole).st_mode
        except FileNotFoundError:  # or a broken link, which will be replaced
            return None
        if not stat.S_ISREG(mode):
            raise Refused(f"cannot be stored: '{whole}' is not a file. Remove it, or choose another directory")
        return whole

    def make(self, path: str) -> str:
        """Return the whole path of a file, whose parents are made if they are missing.

        :param path: The path below the directory.
        :raises Refused: if a link or a file is in the way.
        :raises OSError: if a directory cannot be made.
        """
        whole = self._parent(path, make=True)
        assert whole is not None  # noqa: S101 - for mypy
        return whole

    def _parent(self, path: str, make: bool) -> Optional[str]:
        current = self.path
        if make:
            os.makedirs(current, exist_ok=True)
        *folders, last = path.split('/')
        for folder in folders:
            current = os.path.join(current, folder)
            if make and not os.path.lexists(current):
                os.makedirs(current, exist_ok=True)
            try:
                mode = os.lstat(current).st_mode
            except FileNotFoundError:
                return None
            if stat.S_ISLNK(mode):
                raise Refused(
                    f"is not stored below '{current}', which is a link and may lead out of the directory. Remove it, "
                    'or choose another directory'
                )
            if not stat.S_ISDIR(mode):
                raise Refused(f"cannot be stored: '{current}' is a file. Remove it, or choose another directory")
        return os.path.join(current, last)
