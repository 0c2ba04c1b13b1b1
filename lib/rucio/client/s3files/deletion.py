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
from rucio.common.s3.address import comes_back
from rucio.common.s3.answers import counted

from .paths import WILDCARD
from .stored import find_stored

if TYPE_CHECKING:
    from rucio.client.client import Client
    from rucio.client.s3client import S3Client
    from rucio.common.s3 import api

__all__ = ['Deletion']


class Deletion:
    """Files to delete. Only their names are held in memory.

    Of collections, folders and wildcards it takes the files in the catalogue and the objects in the bucket.

    :param client: The Rucio client.
    :param server: The S3 client.
    :param dids: Scope and name of each; the name may have ``*`` in it.
    :param rse: The RSE. Only needed if there are several.
    :param recursive: Whether collections and folders of names are allowed: all files below ``name/`` are meant.
    :raises InputValidationError: if one is a collection or folder, and that is not allowed; or nothing matches.
    """

    def __init__(
        self,
        client: 'Client',
        server: 'S3Client',
        dids: Iterable[tuple[str, str]],
        rse: Optional[str] = None,
        recursive: bool = False,
    ) -> None:
        self._client = client
        self._server = server
        self._rse = rse
        self._recursive = recursive
        self._buckets: dict[str, tuple[str, str]] = {}  # RSE and bucket of each scope that was listed
        self.names: dict[str, list[str]] = defaultdict(list)  # by scope
        self.unregistered: set[tuple[str, str]] = set()  # objects that are not in the catalogue
        self._refused: dict[str, list[api.KeptFile]] = defaultdict(list)
        for scope, name in dids:
            self.names[scope] += self._find(scope, name)

    @property
    def number(self) -> int:
        """The number of files."""
        return sum(map(len, self.names.values()))

    def _find(self, scope: str, name: str) -> list[str]:
        """Return the names of files. Two requests to the Rucio server at most, and perhaps a listing of the bucket."""
        if WILDCARD in name:
            found = self._search(scope, name)
            if not found and not self._refused[scope]:
                raise InputValidationError(f'{scope}:{name} matches no file. Nothing was deleted.')
            return found
        try:
            if self._client.get_did(scope, name)['type'] == 'FILE':
                return [name]
            kind = 'a collection'
        except DataIdentifierNotFound:
            kind = 'a folder'
        below = (self._search if self._recursive else self._known)(scope, f'{name}/{WILDCARD}')
        if kind == 'a folder' and not below and not self._refused[scope]:
            return [name]  # an object that is not in the catalogue
        if not self._recursive:
            number, them = counted(len(below), 'file'), 'it' if len(below) == 1 else 'them'
            raise InputValidationError(
                f'{scope}:{name} is {kind} of {number}: use --recursive to delete {them}. Nothing was deleted.'
            )
        return below

    def _known(self, scope: str, pattern: str) -> list[str]:
        found: Any = self._client.list_dids(scope, [{'name': pattern}], did_type='file')  # names
        return list(found)

    def _search(self, scope: str, pattern: str) -> list[str]:
        """Return the files in the catalogue, and then the objects that it lacks."""
        known = self._known(scope, pattern)
        rse, _ = self._buckets.get(scope, (self._rse, ''))
        stored = find_stored(self._server, scope, pattern, rse, known[0] if known else None)
        self._buckets[scope] = (stored.rse, stored.bucket)
        registered = set(known)
        others = [name for name in stored.names if name not in registered]
        self._refused[scope] += [
            {'name': name, 'found': _strange(scope, name)} for name in others if not comes_back(name)
        ]
        others = [name for name in others if comes_back(name)]
        self.unregistered |= {(scope, name) for name in others}
        return known + others

    def run(self) -> 'list[api.RemovedFiles]':
        """Delete the files. One request to the Rucio server for each 200 of a scope.

        :returns: The answer of the server for each scope.
        """
        answers = []
        for scope, names in self.names.items():
            rse, bucket = self._buckets.get(scope, (self._rse, ''))
            refused = self._refused[scope]
            if names:
                answer = self._server.remove_files(scope, names, rse)
                answer['kept'] += refused
                answers.append(answer)
            elif refused and rse:
                answers.append({'rse': rse, 'bucket': bucket, 'removed': 0, 'kept': refused})
        return answers


def _strange(scope: str, name: str) -> str:
    return f'{scope}:{name} has a name that Rucio takes for another one: delete it with another S3 client.'
