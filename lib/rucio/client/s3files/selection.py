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

"""The files of the DIDs that a user names: files, datasets, containers, folders of names, and wildcards."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from rucio.common.exception import DataIdentifierNotFound, RucioException
from rucio.common.s3.content import Checksums

from .directory import CHUNK
from .paths import WILDCARD, RemoteFile, base_of, relative
from .tally import Refused

if TYPE_CHECKING:
    from rucio.client.client import Client

    from .filters import Filter
    from .tally import Tally

__all__ = ['Selection']


class Selection:
    """The files of DIDs, each once. DIDs and files that cannot be downloaded become failures.

    :param client: The Rucio client.
    :param tally: Takes the failures.
    :param chosen: Which files are meant, by their paths.
    """

    def __init__(self, client: 'Client', tally: 'Tally[Any]', chosen: 'Filter') -> None:
        self._chosen = chosen
        self._client = client
        self._tally = tally
        self._files: dict[str, RemoteFile] = {}  # by path

    def of(self, dids: Iterable[tuple[str, str]]) -> list[RemoteFile]:
        """Return the files of DIDs. Two requests for each DID; for a wildcard one, and one for each collection.

        Memory: about 500 bytes for each file.

        :param dids: Scope and name of each; the name may have ``*`` in it.
        """
        wanted = list(dict.fromkeys(dids))
        for scope, name in wanted:
            try:
                if WILDCARD in name:
                    self._add_matches(scope, name)
                else:
                    self._add_did(scope, name, alone=len(wanted) == 1)
            except RucioException as error:
                self._tally.fail(f'{scope}:{name}', str(error.args[0] if error.args else error))
        return list(self._files.values())

    def _add_did(self, scope: str, name: str, alone: bool) -> None:
        try:
            is_file = self._client.get_did(scope, name)['type'] == 'FILE'
        except DataIdentifierNotFound:
            files = self._search(scope, f'{name}/{WILDCARD}', 'file')
            if not files:
                raise DataIdentifierNotFound(
                    'does not exist: there is no DID of this name, and no file below it. If it is in the bucket, '
                    'register it (rucio s3 reconcile).'
                ) from None
            self._add_files(scope, [each['name'] for each in files], base_of(name, is_file=False, alone=alone))
            return
        self._add_members(scope, name, base_of(name, is_file, alone), is_file)

    def _add_matches(self, scope: str, pattern: str) -> None:
        found = self._search(scope, pattern, 'all')
        if not found:
            raise DataIdentifierNotFound('matches nothing.')
        base = base_of(pattern, is_file=False, alone=False)
        for each in found:
            if each['did_type'] != 'FILE':
                self._add_members(scope, each['name'], base)
        self._add_files(scope, [each['name'] for each in found if each['did_type'] == 'FILE'], base)

    def _search(self, scope: str, pattern: str, did_type: Literal['all', 'file']) -> list[dict[str, Any]]:
        return list(self._client.list_dids(scope, [{'name': pattern}], did_type=did_type, long=True))

    def _add_members(self, scope: str, name: str, base: str, is_file: bool = False) -> None:
        for each in self._client.list_files(scope, name):
            checksums = Checksums(adler32=each['adler32'], size=each['bytes'])
            self._add(each['scope'], each['name'], checksums, base, '' if is_file else name)

    def _add_files(self, scope: str, names: Iterable[str], base: str) -> None:
        """Add files of which only the names are known. One request for each 500."""
        left = iter(names)
        while chunk := list(islice(left, CHUNK)):
            dids = [{'scope': scope, 'name': name} for name in chunk]
            for each in self._client.get_metadata_bulk(dids, plugin='DID_COLUMN'):
                self._add(scope, each['name'], Checksums(each['md5'], each['adler32'], each['bytes']), base)

    def _add(self, scope: str, name: str, checksums: Checksums, base: str, collection: str = '') -> None:
        try:
            file = RemoteFile(scope, name, checksums, relative(name, base, collection))
        except Refused as refused:
            self._tally.fail(f'{scope}:{name}', str(refused))
            return
        if not self._chosen.takes(file.path):
            return
        first = self._files.setdefault(file.path, file)
        if first.did != file.did:
            self._tally.fail(
                file.did, f"has the same local path as {first.did}, '{file.path}': download it into another directory"
            )


def chunks(files: Iterable[RemoteFile]) -> Iterator[list[RemoteFile]]:
    """Yield files in chunks for which the server is asked together.

    :param files: The files.
    """
    left = iter(files)
    while chunk := list(islice(left, CHUNK)):
        yield chunk
