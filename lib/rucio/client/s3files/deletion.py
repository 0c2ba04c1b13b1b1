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

"""Which files ``rucio s3 rm`` means, and their deletion by the Rucio server."""

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Optional

from rucio.common.exception import DataIdentifierNotFound, InputValidationError

from .paths import WILDCARD

if TYPE_CHECKING:
    from rucio.client.client import Client
    from rucio.client.s3client import S3Client
    from rucio.common.s3 import api

__all__ = ['Deletion']


class Deletion:
    """Files to delete. Only their names are held in memory.

    :param client: The Rucio client.
    :param dids: Scope and name of each; the name may have ``*`` in it.
    :param recursive: Whether collections and folders of names are allowed: all files below ``name/`` are meant.
    :raises InputValidationError: if one is a collection or folder, and that is not allowed; or nothing matches.
    """

    def __init__(self, client: 'Client', dids: Iterable[tuple[str, str]], recursive: bool = False) -> None:
        self._client = client
        self._recursive = recursive
        self.names: dict[str, list[str]] = defaultdict(list)  # by scope
        for scope, name in dids:
            self.names[scope] += self._find(scope, name)

    @property
    def number(self) -> int:
        """The number of files."""
        return sum(map(len, self.names.values()))

    def _find(self, scope: str, name: str) -> list[str]:
        """Return the names of files. Two requests at most."""
        if WILDCARD in name:
            found = self._search(scope, name)
            if not found:
                raise InputValidationError(f'{scope}:{name} matches no file. Nothing was deleted.')
            return found
        try:
            if self._client.get_did(scope, name)['type'] == 'FILE':
                return [name]
            kind = 'a collection'
        except DataIdentifierNotFound:
            kind = 'a folder'
        below = self._search(scope, f'{name}/{WILDCARD}')
        if kind == 'a folder' and not below:
            return [name]  # an object that is not in the catalogue
        if not self._recursive:
            raise InputValidationError(
                f'{scope}:{name} is {kind} of {len(below)} files: use --recursive to delete them. Nothing was deleted.'
            )
        return below

    def _search(self, scope: str, pattern: str) -> list[str]:
        found: Any = self._client.list_dids(scope, [{'name': pattern}], did_type='file')  # names
        return list(found)

    def run(self, server: 'S3Client', rse: Optional[str] = None) -> 'list[api.RemovedFiles]':
        """Delete the files. One request to the Rucio server for each 200 of a scope.

        :param server: The S3 client.
        :param rse: The RSE. Only needed if there are several.
        :returns: The answer of the server for each scope.
        """
        return [server.remove_files(scope, names, rse) for scope, names in self.names.items() if names]
