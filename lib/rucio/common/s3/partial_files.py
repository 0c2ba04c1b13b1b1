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

"""Files of unfinished downloads: next to their destination, to be renamed to it."""

import atexit
import fcntl
import hashlib
import os
import re
import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Optional

__all__ = ['is_partial', 'partial_file']

_PREFIX = '.rucio-s3-'
_open: dict[tuple[int, str], int] = {}  # (process, path) -> descriptor, of the files that are being downloaded


def is_partial(name: str) -> bool:
    """Return whether this may be the name of the file of an unfinished download, without its folder.

    :param name: The name.
    """
    return re.fullmatch(f'{re.escape(_PREFIX)}[0-9a-f]{{16}}', name) is not None


@contextmanager
def partial_file(folder: str, name: str, keep: Optional[threading.Event] = None) -> Iterator[str]:
    """Open a file in a folder, to be renamed to ``name``. At the end it is removed, unless it was renamed.

    Its path is always the same, so that the next download replaces the file of a killed one. It is different if
    somebody else is writing to that file, or it belongs to another user.

    :param folder: The folder.
    :param name: The name of the destination.
    :param keep: The file has the content that an earlier download has kept; set this to keep it at the end. Without it,
        the file is empty.
    :returns: The path of the file.
    :raises OSError: if it cannot be created.
    """
    # A digest, as names may be as long as the file system allows.
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    path = os.path.join(folder, f'{_PREFIX}{digest}')
    descriptor = _take(path, empty=keep is None)
    if descriptor is None:
        keep = None  # nobody will look for a file of this name
        path = os.path.join(folder, f'{_PREFIX}{secrets.token_hex(8)}')
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    mine = os.getpid(), path
    if keep is None:
        _open[mine] = descriptor
    try:
        yield path
    finally:
        is_kept = keep is not None and keep.is_set()
        if not is_kept and _is_same(path, descriptor):  # while it is locked: afterwards it may be somebody else's
            os.unlink(path)
        _open.pop(mine, None)
        os.close(descriptor)


@atexit.register
def _remove_open() -> None:
    """Remove the files that other threads are writing: after a second Ctrl-C, Python does not wait for its threads."""
    for (process, path), descriptor in list(_open.items()):
        if process == os.getpid():  # a child may have been forked during a download
            with suppress(OSError):
                if _is_same(path, descriptor):
                    os.unlink(path)


def _take(path: str, empty: bool) -> Optional[int]:
    """Open a file, lock it, and empty it if required. The lock ends with the process.

    :returns: The descriptor, or None if the file cannot be used.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had the lock may have renamed the file in the meantime: then it is complete.
        if _is_own(os.fstat(descriptor)) and _is_same(path, descriptor):
            if empty:
                os.truncate(descriptor, 0)
            return descriptor
    except BlockingIOError:  # somebody is writing to it
        pass
    except OSError:  # the file system has no locks
        if _is_same(path, descriptor) and _is_own(os.fstat(descriptor)):
            os.unlink(path)
    os.close(descriptor)
    return None


def _is_own(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1


def _is_same(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False
