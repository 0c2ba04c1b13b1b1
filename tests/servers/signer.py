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

"""Requests that the server signs, sent as nobody's library would send them."""

import base64
import hashlib
import http.client
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from rucio.common.s3.endpoint import Endpoint
from rucio.core.s3.auth import signing

from .boto import S3Server
from .ceph import CephRGW


class Signer:
    """What signs inside the Rucio server, without the server around it: for who may do all."""

    identity = 'signer of the tests'

    def __init__(self, endpoint: Endpoint, storage: Any) -> None:
        self.endpoint, self.region = endpoint, storage.region
        self._keys = ReadOnlyCredentials(storage.access_key, storage.secret_key, None)

    @classmethod
    def of(cls, storage: S3Server) -> 'Signer':
        """With what providers.toml says of the storage."""
        settings = {'s3': {'provider': 'ceph' if isinstance(storage, CephRGW) else 'seaweedfs'}}
        protocol = {'scheme': storage.scheme, 'hostname': storage.hostname, 'port': storage.port, 'extended_attributes': settings}
        return cls(Endpoint.load({'rse': 'X', 'id': ''}, protocol), storage)

    def credentials(self) -> ReadOnlyCredentials:
        return self._keys

    def get_s3_rse(self, rse: str) -> dict[str, Any]:
        return {'auth': ['remote'], 'region': self.region}

    def sign_s3_requests(self, rse: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sign(self, json.loads(json.dumps(requests)), lambda *_: None)


def sign(storage: Any, requests: Sequence[Any], allowed: Callable[[str, str, bool], None]) -> list[dict[str, Any]]:
    """What the server answers to an account that may do what is ``allowed``."""
    checked = signing.check(storage, requests)
    signing.need(storage, checked, allowed)
    return signing.sign(storage, checked)


def asked(storage: S3Server, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> dict[str, Any]:
    """A request to be signed, as POST /s3/sign takes it."""
    values = {'x-amz-content-sha256': hashlib.sha256(body or b'').hexdigest(), **(headers or {})}
    request: dict[str, Any] = {'method': method, 'uri': storage.url + path, 'region': storage.region, 'headers': {k: [v] for k, v in values.items()}}
    return request if body is None else request | {'body': base64.b64encode(body).decode()}


def headers_of(answer: Mapping[str, Any]) -> dict[str, str]:
    """The headers of an answer, as they are sent."""
    return {name: value for name, (value,) in answer['headers'].items()}


def send(storage: S3Server, method: str, path: str, headers: Mapping[str, str], body: bytes = b'') -> tuple[int, bytes]:
    """Send exactly this: no library that makes another request of it."""
    with closing(http.client.HTTPConnection(storage.hostname, storage.port, timeout=30)) as connection:
        connection.putrequest(method, path, skip_host='Host' in headers, skip_accept_encoding=True)
        for name, value in {**headers, 'Content-Length': str(len(body))}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()


def signed_by_force(storage: S3Server, method: str, path: str, headers: Mapping[str, str], body: bytes = b'') -> dict[str, str]:
    """The headers with the signature that the server's keys give to whatever is asked."""
    request = AWSRequest(method, storage.url + path, dict(headers), data=body)
    S3SigV4Auth(ReadOnlyCredentials(storage.access_key, storage.secret_key, None), 's3', storage.region).add_auth(request)
    return dict(request.headers.items())
