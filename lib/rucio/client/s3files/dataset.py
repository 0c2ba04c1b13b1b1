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

"""The dataset that files are uploaded into, and its entries in Rucio's catalogue."""

from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from rucio.common.exception import (
    AccessDenied,
    DataIdentifierAlreadyExists,
    FileConsistencyMismatch,
    RSEOperationNotSupported,
    RucioException,
    UnsupportedOperation,
)
from rucio.common.s3.content import Checksums
from rucio.common.utils import generate_uuid

from .directory import LocalFile
from .tally import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rucio.client.client import Client
    from rucio.client.s3client import S3Client
    from rucio.common.s3 import api

    from .notes import Notes
    from .tally import Tally


class Known(NamedTuple):
    """The catalogue's entry for a name: type, size and checksums of the DID, and the state of a replica on the RSE."""

    did: str
    did_type: str
    lost: bool
    checksums: Checksums
    state: Optional[str]

    def need_same(self, checksums: Checksums) -> None:
        """Refuse a file that differs from the registered one.

        :param checksums: Size and checksums of the file.
        :raises Refused: if size or checksum differ.
        """
        if None not in (self.checksums.size, checksums.size) and self.checksums.size != checksums.size:
            raise Refused(
                f'has {checksums.size} bytes, but {self.did} is registered with {self.checksums.size}: '
                'it was not changed. Choose another name'
            )
        if not checksums.agrees(self.checksums):
            raise Refused(
                f'differs from {self.did} in Rucio (same size, different checksum): '
                'it was not changed. Choose another name'
            )


class Ready(NamedTuple):
    """A file whose object is stored and verified. ``state`` is that of its replica in the catalogue."""

    file: LocalFile
    checksums: Checksums
    state: Optional[str]


class Dataset:
    """A dataset on an RSE. Only one thread at a time uses the Rucio client, which is not thread-safe.

    :param client: The Rucio client.
    :param rse: The RSE.
    :param scope: The scope of the dataset and its files.
    :param name: The name.
    :param server: The S3 client, by which a server with the plugin is asked.
    :param notes: Notes an earlier upload has made.
    """

    def __init__(
        self,
        client: 'Client',
        rse: str,
        scope: str,
        name: str,
        server: 'Optional[S3Client]' = None,
        notes: 'Optional[Notes]' = None,
    ) -> None:
        self._client = client
        self._server = server
        self._rse = rse
        self._scope = scope
        self._did: dict[str, Any] = {'scope': scope, 'name': name}
        self._notes = notes
        self._members: dict[str, Checksums] = {}  # those that an earlier upload has registered

    def make(self) -> list[str]:
        """Create the dataset and its rule, as far as they are missing. At most four requests.

        :returns: What was created.
        :raises UnsupportedOperation: if the DID is not a dataset, or is closed.
        """
        did = ':'.join(self._did.values())
        rule = {
            'account': self._client.account,
            'copies': 1,
            'rse_expression': self._rse,
            'grouping': 'DATASET',
            'lifetime': None,
        }
        try:
            self._client.add_dataset(**self._did, rules=[rule])
        except DataIdentifierAlreadyExists:
            made = self._check(did)
            self._members = self._settled()
            return made
        return [f'dataset {did}', f'its rule on {self._rse}']

    def _check(self, did: str) -> list[str]:
        """Check an existing dataset: files can be attached, and a rule keeps them."""
        found: Any = self._client.get_did(**self._did)
        if found['type'] != 'DATASET':
            raise UnsupportedOperation(
                f'{did} is a {found["type"].lower()}, but has to be a dataset. Choose another name.'
            )
        if not found.get('open', True):
            raise UnsupportedOperation(
                f'The dataset {did} is closed: files cannot be attached to it. Choose another name, or have it opened.'
            )
        rules: Any = self._client.list_did_rules(**self._did)
        if any(self._covers(each['rse_expression']) for each in rules):
            return []
        self._client.add_replication_rule([self._did], copies=1, rse_expression=self._rse, grouping='DATASET')
        return [f'a rule of {did} on {self._rse}']

    def _settled(self) -> dict[str, Checksums]:
        """Return the members of the dataset that an earlier upload has registered, by their names.

        Nobody has to ask for their metadata, or attach them again. One request if there are notes.
        """
        notes = self._notes
        if not notes:
            return {}
        members: Any = self._client.list_files(**self._did)
        return {
            each['name']: Checksums(adler32=each['adler32'], size=each['bytes'])
            for each in members
            if each['scope'] == self._scope and each['adler32'] and each['name'] in notes
        }

    def _covers(self, expression: str) -> bool:
        if expression == self._rse:
            return True
        try:
            return any(each['rse'] == self._rse for each in self._client.list_rses(expression))
        except RucioException:
            return False

    def look_up(self, files: 'Iterable[LocalFile]') -> dict[str, Known]:
        """Get the catalogue's entries for these files. One request.

        A server without the plugin takes two if there are any, and a hundred times as long. There, of members that an
        earlier upload has registered only the states of their replicas are asked for.

        :param files: At most 500 files.
        :returns: The entries by name.
        """
        names = [file.name for file in files]
        if self._server is not None:
            try:
                return {
                    each['name']: self._known(each)
                    for each in self._server.look_up_files(self._scope, names, self._rse)
                }
            except RSEOperationNotSupported:
                self._server = None
        states = self._states([name for name in names if name in self._members])
        found = {
            name: Known(f'{self._scope}:{name}', 'FILE', False, self._members[name], state)
            for name, state in states.items()
            if state == 'AVAILABLE'
        }
        return found | self._ask([name for name in names if name not in found])

    def _known(self, told: 'api.KnownFile') -> Known:
        checksums = Checksums(told['md5'], told['adler32'], told['bytes'])
        return Known(f'{self._scope}:{told["name"]}', told['did_type'], told['lost'], checksums, told['state'])

    def _ask(self, names: list[str]) -> dict[str, Known]:
        dids = [{'scope': self._scope, 'name': name} for name in names]
        metadata: list[Any] = list(self._client.get_metadata_bulk(dids, plugin='DID_COLUMN')) if dids else []
        # For a dataset, the states would list all of its files.
        states = self._states([each['name'] for each in metadata if each['did_type'] == 'FILE'])
        return {
            each['name']: Known(
                f'{self._scope}:{each["name"]}',
                each['did_type'],
                each.get('availability') == 'LOST',
                Checksums(each['md5'], each['adler32'], each['bytes']),
                states.get(each['name']),
            )
            for each in metadata
        }

    def _states(self, names: list[str]) -> dict[str, Optional[str]]:
        """Return the states of the replicas of files on the RSE, by their names. One request if there are any."""
        dids = [{'scope': self._scope, 'name': name} for name in names]
        replicas: Any = dids and self._client.list_replicas(
            dids, all_states=True, rse_expression=self._rse, resolve_archives=False, sort='random'
        )
        return {each['name']: (each.get('states') or {}).get(self._rse) for each in replicas}

    def register(self, ready: list[Ready], tally: 'Tally[Any]') -> list[Ready]:
        """Make replicas AVAILABLE and members of the dataset. It can be repeated. One request, if all are new.

        A server without the plugin takes two, and twenty times as long; up to three more if some are not new.

        :param ready: The files.
        :param tally: Counts them, and takes their failures.
        :returns: Those that are registered now.
        """
        ready = [each for each in ready if each.state != 'AVAILABLE' or each.file.name not in self._members]
        done: set[str] = set()
        try:
            done |= self._register_new([each for each in ready if each.state is None])
            if others := [each for each in ready if each.file.name not in done]:
                done |= self._register_others(others, tally)
        except RucioException as error:
            said = error.args[0] if error.args else error
            failed = [each for each in ready if each.file.name not in done]
            for each in failed:
                tally.fail(each.file.path, f'is on the storage, but the Rucio server did not register it: {said}')
            tally.count(there=-sum(each.state == 'AVAILABLE' for each in failed))
        return [each for each in ready if each.file.name in done]

    def _register_new(self, new: list[Ready]) -> set[str]:
        """Register files of which the catalogue has nothing, where the server has a call for that.

        :returns: The names of those that are registered now; the others are in the catalogue already.
        """
        if self._server is None or not new:
            return set()
        files: list[api.UploadedFile] = [
            {'name': each.file.name, 'bytes': sums.size, 'adler32': sums.adler32, 'md5': sums.md5}
            for each in new
            if (sums := each.checksums).size is not None and sums.adler32
        ]
        try:
            known = self._server.register_files(self._scope, self._did['name'], files, self._rse)
        except (AccessDenied, RSEOperationNotSupported):
            self._server = None  # the stock calls may be allowed, or work
            return set()
        return {file['name'] for file in files}.difference(known)

    def _register_others(self, ready: list[Ready], tally: 'Tally[Any]') -> set[str]:
        """Register files by the stock calls.

        :returns: The names of those that are registered now. Of the others, the failure is told.
        """
        if new := [self._replica(each) for each in ready if each.state is None]:
            self._client.add_replicas(rse=self._rse, files=new)
        if late := [{**self._replica(each), 'meta': {}} for each in ready if each.state not in (None, 'AVAILABLE')]:
            self._client.update_replicas_states(self._rse, files=late)
        try:
            # With the checksums the server refuses files that somebody else registered in the meantime.
            self._attach(ready, ('scope', 'name', 'bytes', 'adler32', 'md5'))
        except FileConsistencyMismatch:
            # Or those that the server itself found in the bucket: it may have only one checksum of them, or none.
            ready = self._still_agreed(ready, tally)
            self._attach(ready, ('scope', 'name', 'bytes'))
        return {each.file.name for each in ready}

    def _attach(self, ready: list[Ready], keys: tuple[str, ...]) -> None:
        dids = [{key: replica[key] for key in keys} for replica in map(self._replica, ready)]
        if dids:
            self._client.attach_dids_to_dids([{**self._did, 'dids': dids}], ignore_duplicate=True)

    def _still_agreed(self, ready: list[Ready], tally: 'Tally[Any]') -> list[Ready]:
        """Return the files that agree with the catalogue now, and report the others."""
        known = self.look_up(each.file for each in ready)
        agreed = []
        for each in ready:
            try:
                known[each.file.name].need_same(each.checksums)
                agreed.append(each)
            except Refused as refused:
                tally.fail(each.file.path, str(refused))
        return agreed

    def _replica(self, ready: Ready) -> dict[str, Any]:
        return {
            'scope': self._scope,
            'name': ready.file.name,
            'bytes': ready.checksums.size,
            'adler32': ready.checksums.adler32,
            'md5': ready.checksums.md5,
            'meta': {'guid': generate_uuid()},
            'state': 'A',
        }
