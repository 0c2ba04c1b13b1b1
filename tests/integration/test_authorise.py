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
"""Requests that an authoriser answers, sent with urllib3 and nothing else: what a program does that only forwards requests."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from xml.etree import ElementTree

import pytest
import urllib3

from rucio.common.s3.authorizer import Authorizer, Request
from rucio.common.s3.credentials import Static
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.remote import Remote
from rucio.common.s3.vended import Vended
from servers.boto import S3Server
from servers.seaweedfs import SeaweedFS
from servers.signer import Signer

SCOPE = 'user.authorised'  # Ceph 16 crashes at DeleteObjects in a bucket with notifications, which other tests have set

S3 = '{http://s3.amazonaws.com/doc/2006-03-01/}'


def endpoint_of(storage: S3Server) -> Endpoint:
    return Endpoint(rse='X', rse_id='', url=f'{storage.scheme}://{storage.hostname}:{storage.port}', region=storage.region)


class Vendor:
    """A Rucio server's part in it: keys of the storage's own STS."""

    identity = 'the tests'

    def __init__(self, storage: SeaweedFS) -> None:
        self._storage = storage
        self.given: list[str] = []

    def get_s3_credentials(self, rse: str, bucket: str, prefix: str, write: bool) -> dict[str, Any]:
        answer = self._storage.client('sts').assume_role(RoleArn=self._storage.role_arn, RoleSessionName='tests', DurationSeconds=900)
        keys = answer['Credentials']
        self.given.append(keys['AccessKeyId'])
        ends = (datetime.now(timezone.utc) + timedelta(seconds=900)).strftime('%Y-%m-%dT%H:%M:%SZ')
        made = {'access_key': keys['AccessKeyId'], 'secret_key': keys['SecretAccessKey'], 'session_token': keys['SessionToken']}
        return {'bucket': bucket, 'prefix': '', 'write': write, 'expiration': ends, **made}


def own_keys(storage: S3Server) -> Authorizer:
    return Static(storage.access_key, storage.secret_key)


def signatures(storage: SeaweedFS) -> Authorizer:
    return Remote(endpoint_of(storage), Signer.of(storage))


def vended(storage: SeaweedFS) -> Authorizer:
    return Vended(endpoint_of(storage), Vendor(storage))


WAYS = {'own keys': ('plain', own_keys), 'own keys, Ceph': ('ceph', own_keys), "the server's signatures": ('plain', signatures), 'vended keys': ('sts', vended)}


class Sender:
    """Sends what an authoriser answers."""

    def __init__(self, storage: S3Server, way: Authorizer) -> None:
        self.way = way
        self.url = endpoint_of(storage).url
        self._region = storage.region
        self._pool = urllib3.PoolManager()

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        named = {name.replace('_', '-'): value for name, value in headers.items()}
        asked = Request(method, f'{self.url}/{path}', named, self._region, body=body or b'')
        sent = self.way.authorise(asked)
        answer = self._pool.request(sent.method, sent.url, headers=dict(sent.headers), body=body)
        return answer.status, answer.data


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def sender(request: pytest.FixtureRequest) -> Sender:
    fixture, make = request.param
    storage: S3Server = request.getfixturevalue(fixture)
    if SCOPE not in [bucket['Name'] for bucket in storage.client().list_buckets()['Buckets']]:
        storage.client().create_bucket(Bucket=SCOPE)
    return Sender(storage, make(storage))


def test_put_get_of_a_part_list_and_delete(sender: Sender, unique: str) -> None:
    path = f'{SCOPE}/{unique}/a%20b%2B%C3%A9'
    assert sender.send('PUT', path, b'0123456789', content_type='text/plain', host='localhost:1', authorization='local') == (200, b'')
    assert sender.send('GET', path, range='bytes=2-4') == (206, b'234')
    assert sender.send('HEAD', path)[0] == 200
    status, listing = sender.send('GET', f'{SCOPE}?list-type=2&prefix={unique}%2F')
    keys = [each.findtext(f'{S3}Key') for each in ElementTree.fromstring(listing).iter(f'{S3}Contents')]
    assert (status, keys) == (200, [f'{unique}/a b+é'])
    body = f'<Delete><Object><Key>{unique}/b</Key></Object></Delete>'.encode()
    assert sender.send('POST', f'{SCOPE}?delete', body)[0] == 200
    assert sender.send('DELETE', path)[0] == 204
    assert sender.send('HEAD', path)[0] == 404


def test_what_was_signed_cannot_be_changed(sender: Sender, unique: str) -> None:
    path = f'{SCOPE}/{unique}'
    assert sender.send('PUT', path, b'x')[0] == 200
    authorise: Callable[[Request], Request] = sender.way.authorise
    sender.way.authorise = lambda asked: authorise(asked)._replace(url=f'{asked.url}2')  # type: ignore[method-assign]
    assert sender.send('GET', path)[0] == 403
