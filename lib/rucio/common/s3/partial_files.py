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

"""Files that are being downloaded: beside their destination, so that they can be renamed to it."""

import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

__all__ = ['partial_file']


@contextmanager
def partial_file(folder: str, name: str) -> Iterator[str]:
    """An empty file in a folder for what becomes ``name`` there. It is removed at the end, unless it was renamed.

    Its path is the same each time, so that the next download replaces what a killed one left; another path where
    somebody is writing to that at the moment, or the file is not our own.

    :raises OSError: if it cannot be made.
    """
    # A digest, as names may already have all the length that a file system takes.
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    path = os.path.join(folder, f'.rucio-s3-{digest}')
    descriptor = _take(path)
    if descriptor is None:
        path = os.path.join(folder, f'.rucio-s3-{secrets.token_hex(8)}')
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        yield path
    finally:
        if _is_same(path, descriptor):  # before the lock ends: afterwards it may be somebody else's
            os.unlink(path)
        os.close(descriptor)


def _take(path: str) -> Optional[int]:
    """Open a file, lock it and empty it. The lock ends with its process.

    :returns: The descriptor; None: it is not to be had.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(descriptor)
        ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1
        # Whoever had the lock may have renamed the file meanwhile: it is complete, and has another name.
        if ours and _is_same(path, descriptor):
            os.truncate(descriptor, 0)
            return descriptor
    except OSError:  # somebody else's, or a file system without locks
        pass
    os.close(descriptor)
    return None


def _is_same(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False
