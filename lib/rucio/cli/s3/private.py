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

"""Write keys to files and outputs that nobody else can read or replace, at any time.

On POSIX, a process that has a file open can go on reading it after its mode has changed. A file that keys are written
to is therefore new, or has never been open to others.
"""

import errno
import grp
import os
import pwd
import secrets
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Optional, TextIO

from rucio.common.exception import InputValidationError
from rucio.common.s3.answers import printable

__all__ = ['need_private_output', 'read', 'replace']

_OTHER_FILE = 'Choose another file.'
_MOST_LINKS = 40  # as in Linux
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


# Files


def replace(path: str, make: Callable[[str], str]) -> None:
    """Replace a file atomically by one that only this account can read, with mode 600 from its first byte.

    If it fails, the file is unchanged. Files of other accounts are neither read nor replaced, and symbolic links are
    followed only if they belong to this account.

    :param path: The file; its directory is created if necessary. ``~`` is the home directory.
    :param make: Returns the new content for the old one, which is empty if there is no file.
    :raises InputValidationError: if it cannot be written, or would not be safe there.
    """
    try:
        folder, name = os.path.split(_followed(os.path.abspath(os.path.expanduser(path))))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _need_own_folder(folder, os.fstat(place))
            _write(place, name, make(_read(place, name)))
        finally:
            os.close(place)
    except UnicodeDecodeError:
        raise InputValidationError(f'{printable(path)}: The file is not UTF-8 text. {_OTHER_FILE}') from None
    except InputValidationError as error:
        raise InputValidationError(f'{printable(path)}: {error.args[0]} Nothing was changed.') from None
    except OSError as error:
        raise InputValidationError(f'{printable(path)} cannot be written: {error.strerror}. {_OTHER_FILE}') from None


def read(path: str) -> str:
    """Return the content of a file that only this account can read; empty if there is none.

    :param path: The file. ``~`` is the home directory.
    :raises InputValidationError: if others can read or replace it.
    """
    try:
        folder, name = os.path.split(_followed(os.path.abspath(os.path.expanduser(path))))
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _need_own_folder(folder, os.fstat(place))
            text = _read(place, name)
            if text and _lets_others(status := os.stat(name, dir_fd=place), status.st_mode, 0o066):
                raise InputValidationError(f'Other accounts can read it: its mode is {stat.S_IMODE(status.st_mode):o}.')
        finally:
            os.close(place)
    except FileNotFoundError:
        return ''
    except UnicodeDecodeError:
        raise InputValidationError(f'{printable(path)}: The file is not UTF-8 text.') from None
    except InputValidationError as error:
        raise InputValidationError(f'{printable(path)}: {error.args[0]}') from None
    except OSError as error:
        raise InputValidationError(f'{printable(path)} cannot be read: {error.strerror}.') from None
    return text


def _followed(path: str) -> str:
    for _ in range(_MOST_LINKS):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return path
        if not stat.S_ISLNK(status.st_mode):
            return path
        if status.st_uid not in (os.geteuid(), 0):
            raise InputValidationError(f'It is a symbolic link of another account. {_OTHER_FILE}')
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _need_own_folder(folder: str, status: os.stat_result) -> None:
    """Refuse a directory in which others can replace the file: some tools execute what their configuration says."""
    if status.st_uid not in (os.geteuid(), 0):
        raise InputValidationError(
            f"The directory '{printable(folder)}' belongs to another account, who could replace the file. {_OTHER_FILE}"
        )
    if not status.st_mode & stat.S_ISVTX and _lets_others(status, status.st_mode, 0o022):
        raise InputValidationError(
            f"Other accounts can write to the directory '{printable(folder)}' and replace the file. {_OTHER_FILE}"
        )


def _read(place: int, name: str) -> str:
    try:
        descriptor = os.open(name, _OLD, dir_fd=place)
    except FileNotFoundError:
        return ''
    with open(descriptor, encoding='utf-8') as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            # A file would take the place of a device or pipe: for root even of /dev/null.
            raise InputValidationError('It is not a regular file. Choose another one (--file), or redirect the output.')
        if status.st_uid != os.geteuid():
            raise InputValidationError(f'It belongs to another account. {_OTHER_FILE}')
        if status.st_nlink > 1:
            raise InputValidationError(
                f'It has hard links under other names, which would keep the old keys. {_OTHER_FILE}'
            )
        return file.read()


def _write(place: int, name: str, text: str) -> None:
    new = f'.rucio-s3-{secrets.token_hex(8)}'
    descriptor = os.open(new, _NEW, 0o600, dir_fd=place)
    try:
        with open(descriptor, 'w', encoding='utf-8') as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.replace(new, name, src_dir_fd=place, dst_dir_fd=place)
    except BaseException:
        with suppress(OSError):
            os.unlink(new, dir_fd=place)
        raise


# The output


def need_private_output(stream: TextIO, first_mode: Optional[int] = None) -> None:
    """Restrict the file that the output is redirected to, which shells create readable for everybody.

    :param stream: The output. Terminals and pipes need nothing.
    :param first_mode: The file's mode before this command changed it, if it did.
    :raises InputValidationError: if others may already have the file open: they could read what is written later.
    """
    try:
        descriptor = stream.fileno()
        status = os.fstat(descriptor)
    except (OSError, ValueError):
        return
    path = _path_of(descriptor, status)
    if not stat.S_ISREG(status.st_mode) and not (stat.S_ISFIFO(status.st_mode) and path):
        return
    if status.st_uid != os.geteuid():
        _refuse_output(path, 'which belongs to another account')
    mode = status.st_mode if first_mode is None else first_mode
    if status.st_mode & 0o077:
        os.fchmod(descriptor, 0o600)
    if _lets_others(status, mode, 0o066) and (path is None or status.st_nlink != 1 or _is_reached(path)):
        _refuse_output(
            path, f'which other accounts could open before access was restricted (its mode was {stat.S_IMODE(mode):o})'
        )


def _refuse_output(path: Optional[str], why: str) -> None:
    shown = f"'{printable(path)}'" if path else 'a file'
    raise InputValidationError(
        f'The output goes to {shown}, {why}. No keys were written. Use --write or --file FILE, '
        'which make files that nobody else can open; or set `umask 077` in the shell and remove the file first.'
    )


def _path_of(descriptor: int, status: os.stat_result) -> Optional[str]:
    """Return the path of an open file if the system knows it; None for an unnamed pipe."""
    with suppress(OSError):
        if sys.platform == 'darwin':
            import fcntl  # noqa: PLC0415

            path = os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, b'\0' * 1024).partition(b'\0')[0])
        else:
            path = os.readlink(f'/proc/self/fd/{descriptor}')
        if os.path.samestat(os.stat(path), status):
            return path
    return None


def _is_reached(path: str) -> bool:
    """Return whether others may traverse all directories on the way to a file."""
    folder = os.path.dirname(path)
    while _lets_others(status := os.stat(folder), status.st_mode, 0o011):
        if folder == os.path.dirname(folder):
            return True
        folder = os.path.dirname(folder)
    return False


def _lets_others(status: os.stat_result, mode: int, what: int) -> bool:
    """Return whether a mode gives anybody but the owner a permission.

    A group with the name of the account and without other members counts as the owner.
    """
    if mode & what & 0o007:
        return True
    return bool(mode & what & 0o070) and not _is_own_group(status.st_gid)


def _is_own_group(gid: int) -> bool:
    try:
        name, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}
