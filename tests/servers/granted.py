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

"""What most attacks begin with: a bucket of somebody else, of which one folder may be read and one may be written."""

import hashlib
import http.client
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from .boto import plain_client
from .ceph import CephRGW
from .cli import RucioCli, add_s3_rse, add_user
from .rest import Answer, Rest
from .seaweedfs import SeaweedFS

SECRET = b'top secret'
OBJECTS = ('open/a', 'open/b', 'open2/neighbour', 'desk/mine', 'desk2/neighbour', 'private/secret', 'private/deep/er', 'aaa/first', 'zzz/last')
NOTHING = hashlib.sha256(b'').hexdigest()
FOREIGN = 'foreign-bucket'  # of no scope; the keys of the server reach it


@dataclass
class Granted:
    """An owner's bucket. Somebody else, the attacker, may read ``open`` and write ``desk``."""

    rse: str
    storage: SeaweedFS | CephRGW
    owner: Rest
    attacker: Rest
    bucket: str
    name: str  # the attacker's
    _keys: dict[tuple[str, bool], Any] = field(default_factory=dict)
    _clients: dict[tuple[str, bool], Any] = field(default_factory=dict)

    def keys(self, name: str, *, write: bool = False) -> Any:
        """Vended keys of the attacker."""
        if (name, write) not in self._keys:
            answer = self.attacker('POST', '/s3/credentials', {'rse': self.rse, 'scope': self.bucket, 'name': name, 'write': write})
            assert answer.status == 200, answer
            more = {'url': self.storage.url, 'region': self.storage.region, 'ca_bundle': None}
            self._keys[name, write] = SimpleNamespace(**{each: answer.content[each] for each in ('access_key', 'secret_key', 'session_token')}, **more)
        return self._keys[name, write]

    def client(self, name: str, *, write: bool = False) -> Any:
        """A boto3 client of the attacker."""
        if (name, write) not in self._clients:
            once: dict[str, Any] = {'request_checksum_calculation': 'when_required', 'signature_version': 's3v4', 'retries': {'total_max_attempts': 1}}
            self._clients[name, write] = plain_client(self.keys(name, write=write), **once)
        return self._clients[name, write]

    def reader(self) -> Any:
        return self.client('open')

    def writer(self) -> Any:
        return self.client('desk', write=True)

    @cached_property
    def operator(self) -> Any:
        """A boto3 client that may do all."""
        return self.storage.client()

    def send(self, keys: Any, method: str, path: str, body: bytes = b'', **headers: str) -> tuple[int, bytes]:
        """A request as no library makes it, signed with vended keys (None: not at all)."""
        sent: dict[str, str] = headers
        if keys is not None:
            request = AWSRequest(method, self.storage.url + path, headers, data=body)
            S3SigV4Auth(ReadOnlyCredentials(keys.access_key, keys.secret_key, keys.session_token), 's3', keys.region).add_auth(request)
            sent = dict(request.headers.items())
        with closing(http.client.HTTPConnection(self.storage.hostname, self.storage.port, timeout=30)) as connection:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def sign(self, method: str, path: str, **headers: str) -> Answer:
        """Ask the server to sign a request of the attacker."""
        sent = {'x-amz-content-sha256': NOTHING, **headers}
        request = {'method': method, 'uri': self.storage.url + path, 'headers': {name: [value] for name, value in sent.items()}}
        return self.attacker('POST', '/s3/sign', {'rse': self.rse, 'requests': [request]})

    def content(self, key: str, bucket: str = '') -> bytes | None:
        """What the operator of the storage sees."""
        client = self.operator
        try:
            body: bytes = client.get_object(Bucket=bucket or self.bucket, Key=key)['Body'].read()
        except client.exceptions.NoSuchKey:
            return None
        return body

    @classmethod
    def make(cls, root: RucioCli, directory: Any, rse: str, storage: SeaweedFS | CephRGW, names: tuple[str, str]) -> 'Granted':
        """With accounts and an RSE of its own."""
        users = [add_user(root, directory(name), name, scopes=[f'user.{name}'], attributes=()) for name in names]
        settings = {'role_arn': storage.role_arn, 'provider': storage.provider}
        rse_id = add_s3_rse(root, rse, storage, accounts=names, settings=settings)
        root.server.set_rse_keys(rse_id, storage.access_key, storage.secret_key)
        made = cls(rse, storage, Rest(users[0], ''), Rest(users[1], ''), f'user.{names[0]}', names[1])
        for name, write in (('open', False), ('desk', True)):
            assert made.owner('POST', '/s3/buckets', {'rse': rse, 'scope': made.bucket, 'name': name}).status == 201
            assert made.owner('POST', '/s3/grants', {'scope': made.bucket, 'name': name, 'account': names[1], 'write': write}).status == 201
        client = made.operator
        for key in OBJECTS:
            client.put_object(Bucket=made.bucket, Key=key, Body=SECRET)
        client.create_bucket(Bucket=FOREIGN)
        client.put_object(Bucket=FOREIGN, Key='private/secret', Body=SECRET)
        return made
