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

"""Transfers between S3 RSEs without FTS: a Rucio server with the transfertool `s3`, a user, and RSEs on several storages."""

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from .cli import RucioCli, add_s3_rse, add_user, s3_keys
from .postgres import PostgreSQL
from .rucio_server import COPIER, RucioServer

SCOPE = 'user.mia'
MiB = 1024**2

# `weed` and Ceph say nothing of what they are in a common type.
Storage = Any


class Place(NamedTuple):
    """Where an RSE is.

    :param storage: what speaks S3 in the end.
    :param proxy: what is in front of it, if anything.
    :param settings: the RSE's, over its provider.
    :param attributes: of the RSE, over those of `add_s3_rse`.
    """

    storage: Storage
    proxy: Any = None
    settings: Mapping[str, Any] = {}
    attributes: Mapping[str, Any] = {}

    @property
    def bucket(self) -> str:
        return f'{self.settings.get("bucket_prefix", "")}{SCOPE}'


@dataclass
class Conveyor:
    """Mia has a bucket on the first of these RSEs, and keys for it."""

    server: RucioServer
    root: RucioCli
    mia: RucioCli
    places: dict[str, Place]
    ids: dict[str, str]

    @classmethod
    def make(
        cls,
        stack: contextlib.ExitStack,
        directory: Callable[[str], Path],
        places: Mapping[str, Place],
        database: PostgreSQL | None = None,
        far: tuple[tuple[str, str], ...] = (),
    ) -> 'Conveyor':
        """
        :param directory: makes one of that name.
        :param far: pairs of RSEs that have no distance: nothing is sent from the first to the second directly.
        """
        config = {'conveyor': {'transfertool': 's3'}, 'common': {'loglevel': 'DEBUG'}}
        server = stack.enter_context(RucioServer(directory('rucio'), config, database))
        root = RucioCli.root(directory('root'), server)
        home = next(iter(places))
        mia = add_user(root, directory('mia'), 'mia', scopes=[SCOPE], config=s3_keys(home, places[home].storage))
        client = places[home].storage.client()
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=places[home].bucket)
        made = cls(server, root, mia, dict(places), {})
        for rse, place in places.items():
            made._add(rse, place)
        root.calls(
            *(('add_distance', source, target, {'distance': 1}) for source in places for target in places if source != target and (source, target) not in far)
        )
        return made

    def _add(self, rse: str, place: Place) -> None:
        storage = place.storage
        seen = SimpleNamespace(scheme='http', hostname='127.0.0.1', port=(place.proxy or storage).port, region=storage.region)
        self.ids[rse] = add_s3_rse(self.root, rse, seen, accounts=('root', 'mia'), settings=place.settings, attributes=place.attributes)
        self.server.set_rse_keys(self.ids[rse], storage.access_key, storage.secret_key)

    @property
    def proxies(self) -> dict[str, Any]:
        """Those in front of RSEs."""
        return {rse: place.proxy for rse, place in self.places.items() if place.proxy}

    def upload(self, name: str, *sizes: int) -> list[str]:
        """A dataset of random files on the first RSE; their names."""
        folder = self.mia.directory / name
        folder.mkdir()
        files = []
        for number, size in enumerate(sizes):
            files.append(folder / f'{name}.{number}')
            with files[-1].open('wb') as file:
                for _ in range(0, size, MiB):
                    file.write(os.urandom(min(size, MiB)))
        done = self.mia.rucio('upload', '--rse', next(iter(self.places)), '--scope', SCOPE, f'{SCOPE}:{name}', *map(str, files))
        assert (done.stdout + done.stderr).count('Successfully uploaded file') == len(sizes), done.stdout + done.stderr
        for file in files:
            file.unlink()
        return [file.name for file in files]

    def add_rule(self, name: str, rse: str, **options: Any) -> str:
        return self.mia.call('add_replication_rule', [{'scope': SCOPE, 'name': name}], 1, rse, **options)[0]

    def rule_state(self, rule: str) -> str:
        return self.mia.call('get_replication_rule', rule)['state']

    def daemon(self, command: str, *options: str) -> str:
        """Run one of Rucio's daemons to its end; what it said."""
        return self.server.run_daemon(command, *options)

    def submit(self) -> str:
        return self.daemon('rucio-conveyor-submitter', '--run-once')

    def copy(self, *options: str) -> str:
        return self.daemon(*COPIER, '--run-once', *options)

    def poll(self) -> str:
        return self.daemon('rucio-conveyor-poller', '--run-once', '--older-than', '0')

    def finish(self) -> None:
        self.daemon('rucio-conveyor-finisher', '--run-once')

    def bring(self) -> str:
        """All that is to be moved, by one run of each daemon; what the copier said."""
        self.submit()
        said = self.copy()
        self.finish()
        return said

    def copier(self, log: Path, *options: str) -> 'contextlib.AbstractContextManager[subprocess.Popen[bytes]]':
        return self.server.running(log, *COPIER, '--sleep-time', '1', *options)

    def rows(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        """What is in Rucio's database."""
        return self.server.rows(query, **values)

    def requests(self, name: str) -> list[tuple[Any, ...]]:
        """State, transfertool and host of the requests of a dataset's files."""
        return self.rows('SELECT state, transfertool, external_host FROM requests WHERE name LIKE :names', names=f'{name}.%')

    def errors(self, name: str) -> list[str]:
        """Of requests that have failed."""
        found = self.rows(
            'SELECT err_msg FROM requests WHERE name LIKE :names UNION ALL SELECT err_msg FROM requests_history WHERE name LIKE :names', names=f'{name}.%'
        )
        return [row[0] for row in found if row[0]]

    def client(self, rse: str) -> Any:
        """Of the storage itself, past any proxy."""
        return self.places[rse].storage.client()

    def md5(self, rse: str, key: str) -> str:
        """Of what is really there."""
        digest = hashlib.md5()
        with self.client(rse).get_object(Bucket=self.places[rse].bucket, Key=key)['Body'] as body:
            while block := body.read(MiB):
                digest.update(block)
        return digest.hexdigest()

    def has_bucket(self, rse: str) -> bool:
        return self.places[rse].bucket in {each['Name'] for each in self.client(rse).list_buckets()['Buckets']}

    def keys(self, rse: str) -> set[str]:
        if not self.has_bucket(rse):
            return set()
        return {each['Key'] for each in self.client(rse).list_objects_v2(Bucket=self.places[rse].bucket).get('Contents', [])}

    def uploads(self, rse: str, name: str) -> list[tuple[str, str]]:
        """Key and id of multipart uploads of files of a dataset that were begun and not ended."""
        if not self.has_bucket(rse):
            return []
        found = self.client(rse).list_multipart_uploads(Bucket=self.places[rse].bucket).get('Uploads', [])
        return [(each['Key'], each['UploadId']) for each in found if each['Key'].startswith(name)]

    def parts(self, rse: str, name: str) -> int:
        """How many parts of such uploads have arrived."""
        client, bucket = self.client(rse), self.places[rse].bucket
        return sum(len(client.list_parts(Bucket=bucket, Key=key, UploadId=upload).get('Parts', [])) for key, upload in self.uploads(rse, name))

    def replicas(self, names: list[str]) -> dict[str, dict[str, str]]:
        """Name -> RSE -> state."""
        found = self.mia.call('list_replicas', [{'scope': SCOPE, 'name': name} for name in names], all_states=True)
        return {each['name']: each['states'] for each in found}

    def is_complete(self, rse: str, names: list[str]) -> bool:
        """Whether the catalogue says that the files are there, and they are, byte for byte."""
        home, replicas = next(iter(self.places)), self.replicas(names)
        if [replicas[name].get(rse) for name in names] != ['AVAILABLE'] * len(names):
            return False
        return all(self.md5(rse, name) == self.md5(home, name) for name in names)
