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

"""Local files and those of directories, and the names of their DIDs."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, Optional

from rucio.common.config import config_get, config_get_bool
from rucio.common.exception import InputValidationError
from rucio.common.s3 import address, schemas
from rucio.common.s3.content import BLOCK, Checksums, Hasher
from rucio.common.s3.partial_files import is_partial

from .filters import Filter
from .notes import stamp_of
from .tally import Refused, Tally

GiB = 1024**3
# Of the module rucio.common.schema.generic.
GENERIC_NAMES: dict[str, Any] = {
    'scope': {'type': 'string', 'maxLength': 25, 'pattern': r'^[a-zA-Z_\-.0-9]+$'},
    'name': {'type': 'string', 'maxLength': 250, 'pattern': r'^[/A-Za-z0-9][/A-Za-z0-9\.\-_]*$'},
}
CHUNK = 500  # files; Rucio's schema allows 1000
_CHUNK_BYTES = 16 * GiB  # large files are registered sooner

Tell = Callable[[str, str], None]  # path, problem


class LocalFile(NamedTuple):
    """A file to upload: its path, the name of its DID, its size in bytes, and what changes with it."""

    path: str
    name: str
    size: int
    stamp: tuple[int, ...] = ()

    def checksums(self, stop: threading.Event) -> Checksums:
        """Read the file to compute its checksums.

        :param stop: Ends reading when it is set.
        :raises Refused: if it was stopped.
        """
        hasher = Hasher()
        with open(self.path, 'rb') as content:
            while block := content.read(BLOCK):
                if stop.is_set():
                    raise Refused('was not read completely: the upload was stopped')
                hasher.add(block)
        return hasher.checksums


def walk(directory: str, warn: Tell, fail: Optional[Tell] = None) -> Iterator[tuple[str, str]]:
    """Yield the regular files below a directory in the order in which S3 lists their keys.

    Links to files are followed, unless they were made by another user and lead to a file that is not theirs. Links to
    directories are not: they may lead out of the directory, or in circles.

    Holds the entries of one directory for each level in memory.

    :param directory: The directory.
    :param warn: Called with the path of everything that is not a file, and the problem.
    :param fail: The same for a directory that cannot be read and may contain files. By default ``warn`` is called.
    :returns: The path of each file, and its path relative to the directory.
    """
    # Sort by the bytes of the key, in which a slash follows a directory's name: 'a.b' < 'a/b' < 'a0'.
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
        if is_partial(entry.name):
            warn(entry.path, 'is the rest of an unfinished download')
            continue
        try:
            is_file, is_dir = entry.is_file(), entry.is_dir()
            planted = is_file and entry.is_symlink() and _is_planted(entry)
        except OSError as error:  # a link to itself, or into a directory that this user cannot access
            warn(entry.path, f'is a link that cannot be followed ({error.strerror})')
            continue
        if planted:
            warn(
                entry.path,
                'is a link to a file of another user than the one who made the link. '
                'To upload it, make the link yourself',
            )
        elif is_file:
            yield entry.path, entry.name
        elif is_dir:
            warn(entry.path, 'is a link to a directory, which is not followed')
        else:
            warn(entry.path, 'is a broken link' if entry.is_symlink() else 'is not a regular file')


def _is_planted(link: 'os.DirEntry[str]') -> bool:
    """Return whether a link may have been made to have somebody read a file that its maker cannot read.

    This is the rule of Linux for links in directories that everybody can write to.
    """
    maker = link.stat(follow_symlinks=False).st_uid
    return maker not in (os.geteuid(), 0, link.stat().st_uid)


class LocalFiles:
    """Local files and directories. Of a directory alone, ``path/a/b`` becomes the DID ``scope:name/a/b``.

    One of several directories keeps its own name: ``scope:name/path/a/b``. A file becomes ``scope:name/file``.

    :param paths: The files and directories.
    :param scope: The scope of the DIDs.
    :param name: The name of the dataset.
    :param vo: The VO, whose schema defines valid names.
    :param chosen: Which files are meant, by what follows ``scope:name/``.
    :raises InputValidationError: if one does not exist, or two of them would have the same name.
    """

    def __init__(self, paths: Iterable[str], scope: str, name: str, vo: str, chosen: Filter) -> None:
        self.sources = _sources(list(paths))
        self._scope = scope
        self._name = name
        self._chosen = chosen
        self._schemas = _schemas_of_names(vo)
        self._is_valid = {kind: schemas.matcher(schema) for kind, schema in self._schemas.items()}

    def look_ahead(self, tally: Tally[Any]) -> tuple[int, int]:
        """Count the files and check their names.

        :param tally: Takes the warnings and failures.
        :returns: The number of files, and their size in bytes.
        :raises InputValidationError: if there are none, or one has a name that Rucio refuses.
        """
        self._check_name(self._name)
        number, size, wrong = 0, 0, list[str]()
        for path, name in self._walk(tally.warn, tally.fail):
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
            shown = "', '".join(path for _, path in self.sources)
            raise InputValidationError(
                f"There are no files below '{shown}'."
                if self._chosen.is_open
                else f"No file below '{shown}' is chosen by --include and --exclude."
            )
        return number, size

    def _walk(self, warn: Tell, fail: Optional[Tell] = None) -> Iterator[tuple[str, str]]:
        """Yield path, and name without that of the dataset, in the order of the keys."""
        for prefix, source in self.sources:
            if not os.path.isdir(source):
                found: Iterable[tuple[str, str]] = [(source, prefix)]
            else:
                found = ((path, prefix + name) for path, name in walk(source, warn, fail))
            yield from (each for each in found if self._chosen.takes(each[1]))

    def paths(self) -> Iterator[str]:
        """Yield what the names of the files have behind that of the dataset. Problems are not reported again."""
        yield from (name for _, name in self._walk(lambda *_: None))

    def _check_name(self, name: str) -> None:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputValidationError(f'{name!r} is not a valid name in Rucio: it is not UTF-8.') from None
        did = f'{self._scope}:{name}'
        if not address.comes_back(name):
            raise InputValidationError(
                f"'{did}' is not a valid name in Rucio: its download takes names for paths, in which '//', '.' and "
                "'..' do not come back as they are."
            )
        for kind, text in (('scope', self._scope), ('name', name)):
            if not self._is_valid[kind](text):
                found = schemas.explain(self._schemas[kind], text)
                raise InputValidationError(f"'{did}' is not a valid name in Rucio: {found}.")

    def chunks(self) -> Iterator[list[LocalFile]]:
        """Yield the files in the order of their keys, in chunks that are registered together."""
        chunk, size = list[LocalFile](), 0
        # Problems with the directory were reported when it was read for the first time.
        for path, name in self._walk(lambda *_: None):
            with suppress(OSError):
                found = os.stat(path)
                chunk.append(LocalFile(path, f'{self._name}/{name}', found.st_size, stamp_of(found)))
                size += chunk[-1].size
            if len(chunk) >= CHUNK or size >= _CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk


def _sources(paths: list[str]) -> list[tuple[str, str]]:
    """Return the sources in the order of their keys: the name, with a slash behind that of a directory, and the path.

    A directory alone has no name.
    """
    if len(paths) == 1 and os.path.isdir(paths[0]):
        return [('', paths[0])]
    found = dict[str, str]()
    for path in paths:
        if not os.path.isfile(path) and not os.path.isdir(path):
            raise InputValidationError(f"'{path}' is neither a file nor a directory.")
        name = os.path.basename(os.path.abspath(path))
        first = found.setdefault(name, path)
        if os.path.abspath(first) != os.path.abspath(path):
            raise InputValidationError(
                f"'{first}' and '{path}' would both be named '{name}'. Upload one after the other."
            )
    named = [(f'{name}/' if os.path.isdir(path) else name, path) for name, path in found.items()]
    return sorted(named, key=lambda each: os.fsencode(each[0]))


def _schemas_of_names(vo: str) -> dict[str, Any]:
    """Return the schemas of scopes and names.

    validate_schema builds it again for each name, which takes 10 ms. Rucio's module loads SQLAlchemy, which takes half
    a second, even if the site has no schema of its own.
    """
    if not _has_own_schema():
        return GENERIC_NAMES
    try:
        from rucio.common.schema import get_schema_value  # noqa: PLC0415 - reads the configuration when it is imported
    # rucio-clients 41 has the module, but lacks its imports: use the generic rule, as the server checks names as well
    except ModuleNotFoundError:
        return GENERIC_NAMES
    return {each: get_schema_value(each.upper(), vo) for each in ('scope', 'name')}


def _has_own_schema() -> bool:
    """Return whether this site may have other rules for names than the generic ones."""
    package = config_get('policy', 'package', raise_exception=False, default='', check_config_table=False)
    several = config_get_bool('common', 'multi_vo', raise_exception=False, default=False, check_config_table=False)
    return bool(package or several or os.environ.get('RUCIO_POLICY_PACKAGE'))
