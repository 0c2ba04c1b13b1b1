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

"""The files of a local directory, and the names of their DIDs."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, Optional

from jsonschema import Draft7Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import best_match  # type: ignore[import-untyped]

from rucio.common.exception import InputValidationError
from rucio.common.s3 import address
from rucio.common.s3.content import BLOCK, Summing, Sums

from .tally import Refused, Tally

GiB = 1024**3
CHUNK = 500  # files: Rucio's schema takes 1000
_CHUNK_BYTES = 16 * GiB  # large files are registered sooner

Tell = Callable[[str, str], None]  # path, what is wrong with it


class LocalFile(NamedTuple):
    """A file to be uploaded: where it is, the name of its DID, its size in bytes."""

    path: str
    name: str
    size: int

    def sums(self, stop: threading.Event) -> Sums:
        """Read it for its checksums, until it is stopped."""
        summing = Summing()
        with open(self.path, 'rb') as content:
            while block := content.read(BLOCK):
                if stop.is_set():
                    raise Refused('was not read to its end: the upload was stopped')
                summing.add(block)
        return summing.sums


def walk(directory: str, warn: Tell, fail: Optional[Tell] = None) -> Iterator[tuple[str, str]]:
    """The regular files below a directory, in the order in which S3 lists their keys: path, and path relative to it.

    Links to files are followed, unless another user made them to what is not theirs. Links to directories are not (they
    may lead out of it, or in circles).

    Holds the entries of one directory for each level.

    :param warn: Called with the path of whatever is not a file, and what it is.
    :param fail: The same for a directory that cannot be read: there may be files in it. None: ``warn`` is called.
    """
    # Bytes as in a key, where a directory's name goes on with a slash: 'a.b' < 'a/b' < 'a0'.
    try:
        with os.scandir(directory) as listing:
            entries = sorted(
                listing,
                key=lambda entry: os.fsencode(entry.name) + (b'/' if entry.is_dir(follow_symlinks=False) else b''),
            )
    except OSError as error:
        (fail or warn)(directory, f'cannot be read: {error.strerror}')
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            for path, name in walk(entry.path, warn, fail):
                yield path, f'{entry.name}/{name}'
            continue
        try:
            is_file, is_dir = entry.is_file(), entry.is_dir()
            planted = is_file and entry.is_symlink() and _is_planted(entry)
        except OSError as error:  # a link to itself, or to where this user may not look
            warn(entry.path, f'is a link that leads nowhere ({error.strerror})')
            continue
        if planted:
            warn(
                entry.path,
                'is a link to a file of another user than the one who made the link: '
                'to upload it, make the link yourself',
            )
        elif is_file:
            yield entry.path, entry.name
        elif is_dir:
            warn(entry.path, 'is a link to a directory: those are not followed')
        else:
            warn(entry.path, 'is a broken link' if entry.is_symlink() else 'is no regular file')


def _is_planted(link: 'os.DirEntry[str]') -> bool:
    """Whether somebody may have made a link to have a file read that they cannot read: by the rule of Linux for
    directories that all may write to.
    """
    maker = link.stat(follow_symlinks=False).st_uid
    return maker not in (os.geteuid(), 0, link.stat().st_uid)


class Directory:
    """A local directory: the file ``path/a/b`` becomes the DID ``scope:name/a/b``.

    :param vo: The VO, whose schema says what names may be.
    """

    def __init__(self, path: str, scope: str, name: str, vo: str) -> None:
        self.path = path
        self._scope = scope
        self._name = name
        self._schema = Draft7Validator({'type': 'object', 'properties': _schema_of_names(vo)})

    def look_ahead(self, tally: Tally) -> tuple[int, int]:
        """Number and bytes of the files.

        :raises InputValidationError: if there are none, or one has a name that Rucio refuses.
        """
        if not os.path.isdir(self.path):
            raise InputValidationError(f"'{self.path}' is no directory. For a single file use: rucio upload")
        self._check_name(self._name)
        number, size, wrong = 0, 0, list[str]()
        for path, name in walk(self.path, tally.warn, tally.fail):
            number += 1
            try:
                self._check_name(f'{self._name}/{name}')
                size += os.stat(path).st_size
            except InputValidationError as error:
                wrong.append(str(error.args[0]))
            except OSError as error:
                tally.fail(path, f'cannot be read: {error.strerror}')
        if wrong:
            more = f'\n... and {len(wrong) - 20} more' if len(wrong) > 20 else ''
            raise InputValidationError('\n'.join(wrong[:20]) + f'{more}\nNothing was uploaded. Rename the files.')
        if not number:
            raise InputValidationError(f"There is no file below '{self.path}'.")
        return number, size

    def _check_name(self, name: str) -> None:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputValidationError(f'{name!r} is no name for Rucio: it is not UTF-8.') from None
        did = f'{self._scope}:{name}'
        if address.leaves_directory(name):
            raise InputValidationError(
                f"'{did}' is no name for Rucio: it would leave the directory into which it is downloaded."
            )
        if error := best_match(self._schema.iter_errors({'scope': self._scope, 'name': name})):
            raise InputValidationError(f"'{did}' is no name for Rucio: {error.message}.")

    def chunks(self) -> Iterator[list[LocalFile]]:
        """The files, in the order of their keys, as many at once as are registered at once."""
        chunk, size = list[LocalFile](), 0
        # What is wrong with the directory was told when it was looked at first.
        for path, name in walk(self.path, lambda *_: None):
            with suppress(OSError):
                chunk.append(LocalFile(path, f'{self._name}/{name}', os.stat(path).st_size))
                size += chunk[-1].size
            if len(chunk) >= CHUNK or size >= _CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk


def _schema_of_names(vo: str) -> dict[str, Any]:
    """What scopes and names may be. Not validate_schema, which takes 10 ms for each name: it puts the schema together
    every time.
    """
    try:
        from rucio.common.schema import get_schema_value  # noqa: PLC0415 - reads the configuration when it is imported
    # rucio-clients 41 has the module, but not what it imports: the generic rule then, and the server has the last word
    except ModuleNotFoundError:
        return {'name': {'type': 'string', 'maxLength': 250, 'pattern': r'^[/A-Za-z0-9][/A-Za-z0-9._-]*$'}}
    return {each: get_schema_value(each.upper(), vo) for each in ('scope', 'name')}
