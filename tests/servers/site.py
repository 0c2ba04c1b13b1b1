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

"""A Rucio server with a user and S3 RSEs, as a test sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .cli import RucioCli, add_s3_rse, add_user
from .seaweedfs import SeaweedFS

SCOPE = 'user.alice'  # and the name of her bucket


@dataclass
class Site:
    """Alice, and the S3 RSEs that she has keys for: PLAIN_S3 (http) and TLS_S3 (https), with one bucket for each scope."""

    root: RucioCli
    alice: RucioCli
    ids: dict[str, str]  # RSE -> its id
    storages: dict[str, SeaweedFS]  # RSE -> where it is

    def add_rse(self, rse: str, storage: SeaweedFS, **options: object) -> str:
        """One more RSE, for which alice has no keys."""
        self.ids[rse] = add_s3_rse(self.root, rse, storage, accounts=('root', 'alice'), **options)
        self.storages[rse] = storage
        return rse

    def objects(self, rse: str, prefix: str = '', bucket: str = SCOPE) -> dict[str, int]:
        """What another S3 client sees: key -> size."""
        pages = self.storages[rse].client().get_paginator('list_objects_v2').paginate(Bucket=bucket, Prefix=prefix)
        return {each['Key']: each['Size'] for page in pages for each in page.get('Contents', [])}

    def multipart_uploads(self, rse: str, prefix: str = '') -> list[str]:
        answer = self.storages[rse].client().list_multipart_uploads(Bucket=SCOPE, Prefix=prefix)
        return [each['Key'] for each in answer.get('Uploads', [])]

    def states(self, name: str) -> dict[str, str]:
        """RSE -> state of the replica of alice's file."""
        replicas = self.alice.call('list_replicas', [{'scope': SCOPE, 'name': name}], all_states=True)
        return replicas[0]['states'] if replicas else {}


@dataclass
class PostgresSite:
    """Alice and bob, ordinary accounts without keys, on a server whose catalogue is PostgreSQL; their RSE is SITE_S3."""

    root: RucioCli
    alice: RucioCli
    bob: RucioCli
    rse: str = 'SITE_S3'

    @classmethod
    def make(cls, root: RucioCli, directory: Callable[[str], Path], storage: SeaweedFS) -> 'PostgresSite':
        """The server has the keys."""
        # The S3 server is shared: other tests have the bucket user.alice.
        identifier = add_s3_rse(root, cls.rse, storage, settings={'bucket_prefix': 'postgres-'})
        root.server.set_rse_keys(identifier, storage.access_key, storage.secret_key)
        users = [add_user(root, directory(name), name, scopes=[f'user.{name}'], attributes=(), rses=[cls.rse]) for name in ('alice', 'bob')]
        return cls(root, *users)
