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

"""Keys that the Rucio server vends, on storages that enforce what they are for: SeaweedFS, Ceph and MinIO."""

import contextlib
import http.client
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError

from conformance.keyless import KeylessConformance
from conformance.rig import Backend, Rig
from rucio.common.exception import RSEAccessDenied
from rucio.common.s3 import clients, credentials, webidentity
from rucio.common.s3.endpoint import Endpoint
from rucio.core.s3.auth import vending
from servers import documented
from servers.built import MinIO
from servers.ceph import CephRGW
from servers.cli import RucioCli, RucioError, add_s3_rse, add_user
from servers.oidc import Issuer
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS
from servers.team import s3_call

pytestmark = pytest.mark.integration

MiB = 1024**2
Storage = SeaweedFS | CephRGW | MinIO


def settings(storage: Storage) -> dict[str, Any]:
    more = documented.minio_settings() if isinstance(storage, MinIO) else {}
    return {'provider': storage.provider, 'role_arn': storage.role_arn, **more}


# Every operation of the protocol


class Vendor:
    """What vends inside the Rucio server, without the server around it: all of any bucket, for everybody."""

    identity = 'vendor of the tests'

    def __init__(self, endpoint: Endpoint, storage: Any) -> None:
        connection = clients.connect(endpoint, credentials.Static(storage.access_key, storage.secret_key))
        self.storage: Any = SimpleNamespace(rse=endpoint.rse, rse_id='x', vo='def', endpoint=endpoint, region=storage.region, connection=lambda *_: connection)

    def get_s3_rse(self, rse: str) -> dict[str, Any]:
        return {'auth': ['vended'], 'region': self.storage.region}

    def get_s3_credentials(self, rse: str, bucket: str, prefix: str, write: bool) -> dict[str, Any]:
        keys = vending.vend(self.storage, bucket, '', write, None, 'tests')
        return {**vars(keys), 'expiration': f'{keys.expiration:%Y-%m-%dT%H:%M:%SZ}'}


class _Vended(KeylessConformance):
    make_server = Vendor


def _backend(storage: Storage, cannot: dict[str, str]) -> Backend:
    where = (storage.scheme, storage.hostname, storage.port)
    keys = {'access_key': storage.access_key, 'secret_key': storage.secret_key, 'region': storage.region}
    return Backend(*where, **keys, provider=str(settings(storage)['provider']), settings={**settings(storage), 'auth': 'vended'}, cannot=cannot)


NO_KEYS = {'access_control': 'the client has no keys that could be wrong'}


class TestVendedBySeaweedFS(_Vended):
    @pytest.fixture(scope='class')
    @classmethod
    def backend(cls, sts: SeaweedFS) -> Backend:
        cannot = {
            'conditional_multipart': 'SeaweedFS looks before it completes an upload, without a lock',
            'dot_segments': 'SeaweedFS answers 400: its keys are paths',
            'long_segments': 'SeaweedFS answers KeyTooLongError: a path segment has 255 bytes at most',
        }
        return _backend(sts, {**cannot, **NO_KEYS})


@pytest.mark.long
class TestVendedByCeph(_Vended):
    @pytest.fixture(scope='class')
    @classmethod
    def backend(cls, ceph: CephRGW) -> Backend:
        return _backend(ceph, {'conditional_multipart': 'before Ceph 20, If-None-Match is ignored when an upload is completed', **NO_KEYS})

    def test_bulk_delete(self, rig: Rig, name: str, ceph: CephRGW) -> None:
        """Ceph 16 and 18 refuse DeleteObjects to the keys of any role, whatever its policies say: nothing is deleted, and that is told."""
        if ceph.release >= 20:
            super().test_bulk_delete(rig, name)
            return
        rig.store(rig.key(name))
        pfn = rig.pfn(name)
        assert isinstance(rig.protocol('delete').bulk_delete([pfn])[pfn], RSEAccessDenied)
        rig.protocol('delete').delete(pfn)
        assert rig.stored(rig.key(name)) is None

    def test_bulk_delete_tells_what_failed(self, rig: Rig, name: str, ceph: CephRGW) -> None:
        if ceph.release < 20:
            pytest.skip('it refuses DeleteObjects to these keys: see above')
        super().test_bulk_delete_tells_what_failed(rig, name)


@pytest.mark.long
class TestVendedByMinIO(_Vended):
    @pytest.fixture(scope='class')
    @classmethod
    def backend(cls, minio: MinIO) -> Backend:
        cannot = {
            'dot_segments': 'MinIO answers 400: XMinioInvalidResourceName',
            'empty_segments': 'MinIO answers 400: XMinioInvalidObjectName',
            'long_segments': 'a name in a file system has 255 bytes at most',
        }
        return _backend(minio, {**cannot, **NO_KEYS})


# A Rucio server whose accounts have no keys and no privileges


@dataclass
class VendingSite:
    """Vera and Viktor, each with a scope and its bucket, and no key; nobody of them is an admin."""

    root: RucioCli
    vera: RucioCli
    viktor: RucioCli
    rse: str
    storage: Storage

    def client(self, answer: dict[str, Any]) -> Any:
        """A boto3 client with the vended keys and nothing of ours."""
        keys = SimpleNamespace(**{name: answer[name] for name in ('access_key', 'secret_key', 'session_token')})
        endpoint = Endpoint('X', 'x', self.storage.url, max_attempts=1)
        return clients.connect(endpoint, credentials.Static(keys.access_key, keys.secret_key, keys.session_token)).client


@pytest.fixture(scope='module')
def vending_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RucioServer]:
    with RucioServer(tmp_path_factory.mktemp('rucio'), {'policy': {'package': 'rucio_s3_policy'}}) as server:
        yield server


@pytest.fixture(scope='module')
def people(vending_server: RucioServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[RucioCli, RucioCli, RucioCli]:
    root = RucioCli.root(tmp_path_factory.mktemp('root'), vending_server)
    users = [add_user(root, tmp_path_factory.mktemp(name), name, scopes=[f'user.{name}'], attributes=()) for name in ('vera', 'viktor')]
    return root, *users


@pytest.fixture(scope='module', params=['sts', 'ceph', pytest.param('minio', marks=pytest.mark.long)])
def site(request: pytest.FixtureRequest, people: tuple[RucioCli, RucioCli, RucioCli]) -> VendingSite:
    storage = request.getfixturevalue(request.param)
    root, vera, viktor = people
    rse = f'{request.param}_S3'.upper()
    rse_id = add_s3_rse(root, rse, storage, settings=settings(storage), accounts=('vera', 'viktor'))
    root.server.set_rse_keys(rse_id, storage.access_key, storage.secret_key)
    for name in ('vera', 'viktor'):
        with contextlib.suppress(ClientError):
            storage.client().create_bucket(Bucket=f'user.{name}')
    return VendingSite(root, vera, viktor, rse, storage)


def get_keys(user: RucioCli, rse: str, bucket: str, prefix: str = '', write: bool = False, lifetime: int | None = None) -> dict[str, Any]:
    """What the server answers when it is asked for keys, by its REST interface."""
    return s3_call(user, 'get_s3_credentials', rse, bucket, prefix, write, **({'lifetime': lifetime} if lifetime else {}))


def refused(operation: Any, **arguments: Any) -> int:
    with pytest.raises(ClientError) as error:
        operation(**arguments)
    return int(error.value.response['ResponseMetadata']['HTTPStatusCode'])


@pytest.mark.parametrize('write', [False, True], ids=['reading', 'writing'])
def test_nobody_can_touch_the_bucket_of_another_with_what_was_vended(site: VendingSite, unique: str, write: bool) -> None:
    admin = site.storage.client()
    for owner in ('vera', 'viktor'):
        admin.put_object(Bucket=f'user.{owner}', Key=f'{unique}/file', Body=owner.encode())
    for user, own, other in ((site.vera, 'user.vera', 'user.viktor'), (site.viktor, 'user.viktor', 'user.vera')):
        client = site.client(get_keys(user, site.rse, own, f'{unique}/file', write))
        assert client.get_object(Bucket=own, Key=f'{unique}/file')['Body'].read().decode() == user.account
        assert client.list_objects_v2(Bucket=own, Prefix=unique)['KeyCount'] == 1
        there = {'Bucket': other, 'Key': f'{unique}/file'}
        assert refused(client.get_object, **there) == 403
        assert refused(client.head_object, **there) == 403
        assert refused(client.list_objects_v2, Bucket=other) == 403
        assert refused(client.list_objects_v2, Bucket=other, Prefix=f'{unique}/') == 403
        assert refused(client.list_object_versions, Bucket=other) == 403
        assert refused(client.list_multipart_uploads, Bucket=other) == 403
        assert refused(client.put_object, Bucket=other, Key=f'{unique}/new', Body=b'x') == 403
        assert refused(client.create_multipart_upload, Bucket=other, Key=f'{unique}/new') == 403
        assert refused(client.delete_object, **there) == 403
        assert refused(client.copy_object, Bucket=own, Key=f'{unique}/stolen', CopySource=there) == 403
        assert refused(client.get_bucket_policy, Bucket=other) == 403
        assert refused(client.put_bucket_acl, Bucket=other, ACL='public-read') == 403
        assert refused(client.create_bucket, Bucket=f'{unique}-{user.account}') == 403
        assert refused(client.put_bucket_policy, Bucket=own, Policy='{}') == 403
    assert {key: admin.get_object(Bucket=f'user.{key}', Key=f'{unique}/file')['Body'].read() for key in ('vera', 'viktor')} == {
        'vera': b'vera',
        'viktor': b'viktor',
    }


def test_the_server_vends_no_keys_for_the_bucket_of_another(site: VendingSite, unique: str) -> None:
    site.storage.client().put_object(Bucket='user.vera', Key=f'{unique}/there', Body=b'x')
    said = []
    for prefix in (f'{unique}/there', f'{unique}/nope.', ''):
        with pytest.raises(RucioError, match='AccessDenied') as error:
            get_keys(site.viktor, site.rse, 'user.vera', prefix)
        said.append(str(error.value).splitlines()[-1].replace(prefix or '\0', ''))
    assert said[0] == said[1]  # whether there is such an object is nobody's business


def test_keys_for_reading_do_not_write(site: VendingSite, unique: str) -> None:
    site.storage.client().put_object(Bucket='user.vera', Key=unique, Body=b'x')
    client = site.client(get_keys(site.vera, site.rse, 'user.vera'))
    assert refused(client.put_object, Bucket='user.vera', Key=f'{unique}.new', Body=b'x') == 403
    assert refused(client.create_multipart_upload, Bucket='user.vera', Key=f'{unique}.new') == 403
    assert refused(client.delete_object, Bucket='user.vera', Key=unique) == 403


def test_what_is_shared_can_be_read_and_nothing_beside_it(site: VendingSite, unique: str) -> None:
    admin = site.storage.client()
    for key in (f'{unique}/a', f'{unique}2/a', 'own'):
        admin.put_object(Bucket='user.vera', Key=key, Body=b'x')
    site.vera.call('add_dataset', 'user.vera', unique)
    s3_call(site.vera, 'add_grant', 'user.vera', unique, 'viktor')
    keys = get_keys(site.viktor, site.rse, 'user.vera', f'{unique}/a')
    assert keys['prefix'] == f'{unique}/'
    client = site.client(keys)
    assert client.get_object(Bucket='user.vera', Key=f'{unique}/a')['ContentLength'] == 1
    assert [each['Key'] for each in client.list_objects_v2(Bucket='user.vera', Prefix=f'{unique}/')['Contents']] == [f'{unique}/a']
    for key in (f'{unique}2/a', 'own'):
        assert refused(client.get_object, Bucket='user.vera', Key=key) == 403
    for prefix in ('', unique, f'{unique}2/'):
        assert refused(client.list_objects_v2, Bucket='user.vera', Prefix=prefix) == 403
    # Not 403, which would be a failure to who looks before an upload.
    assert refused(client.head_object, Bucket='user.vera', Key=f'{unique}/missing') == 404
    assert refused(client.put_object, Bucket='user.vera', Key=f'{unique}/b', Body=b'x') == 403
    with pytest.raises(RucioError, match='AccessDenied'):
        get_keys(site.viktor, site.rse, 'user.vera', f'{unique}/a', write=True)
    s3_call(site.vera, 'delete_grant', 'user.vera', unique, 'viktor')
    with pytest.raises(RucioError, match='AccessDenied'):
        get_keys(site.viktor, site.rse, 'user.vera', f'{unique}/a')


TRICKS = [
    '/user.vera/{part}/../../user.viktor/secret',
    '/user.vera/{part}/%2e%2e/%2e%2e/user.viktor/secret',
    '/user.vera/{part}/..%2f..%2fuser.viktor%2fsecret',
    '/user.vera//../user.viktor/secret',
    '/user.vera%2f..%2fuser.viktor/secret',
    '/user.vera/{part}/../secret',
    '/user.vera/{part}/%2e%2e/secret',
    '/user.vera/{part}//../secret',
]


@pytest.mark.parametrize('path', TRICKS)
def test_no_path_leads_out_of_what_the_keys_are_for(site: VendingSite, unique: str, path: str) -> None:
    for bucket in ('user.vera', 'user.viktor'):
        site.storage.client().put_object(Bucket=bucket, Key='secret', Body=b'top secret')
    answer = s3_call(site.vera, 'get_did_credentials', 'user.vera', unique, site.rse)
    assert answer['prefix'] == f'{unique}/'
    keys = ReadOnlyCredentials(answer['access_key'], answer['secret_key'], answer['session_token'])
    # Sent as it stands: a library would make another path of it.
    path = path.format(part=unique)
    request = AWSRequest('GET', site.storage.url + path)
    S3SigV4Auth(keys, 's3', site.storage.region).add_auth(request)
    with contextlib.closing(http.client.HTTPConnection(site.storage.hostname, site.storage.port, timeout=30)) as connection:
        connection.request('GET', path, headers=dict(request.headers.items()))
        got = connection.getresponse()
        assert got.status >= 400
        assert b'top secret' not in got.read()


@pytest.mark.parametrize(('asked', 'given'), [(None, 3600), (900, 900), (1, 900), (50_000, 3600)])
def test_the_lifetime_is_bounded(site: VendingSite, asked: int | None, given: int) -> None:
    keys = get_keys(site.vera, site.rse, 'user.vera', lifetime=asked)
    left = datetime.strptime(keys['expiration'], '%Y-%m-%dT%H:%M:%SZ').replace(tzinfo=timezone.utc) - datetime.now(timezone.utc)
    assert timedelta(seconds=given / 2) < left <= timedelta(seconds=given)


def test_the_server_asks_the_sts_once_for_the_same_keys(site: VendingSite, unique: str) -> None:
    keys = {get_keys(site.vera, site.rse, 'user.vera', f'{unique}/{number}')['access_key'] for number in range(4)}
    assert len(keys) <= 2  # it has two processes


# The stock command


@pytest.mark.parametrize('size', [0, 1024, 64 * MiB])
def test_stock_upload_and_download_by_an_account_without_keys(site: VendingSite, unique: str, tmp_path: Path, size: int) -> None:
    file = tmp_path / 'file'
    file.write_bytes(random.randbytes(size))
    name = f'{unique}/file'
    up = site.vera.rucio('upload', '--rse', site.rse, '--scope', 'user.vera', '--lfn', name, str(file))
    assert site.storage.client().head_object(Bucket='user.vera', Key=name)['ContentLength'] == size, up.stderr
    down = site.vera.rucio('download', '--dir', str(tmp_path / 'back'), f'user.vera:{name}')
    assert (tmp_path / 'back' / 'user.vera' / name).read_bytes() == file.read_bytes(), down.stderr
    for text in (up.stdout, up.stderr, down.stdout, down.stderr):
        assert site.storage.secret_key not in text


def test_what_is_shared_comes_by_stock_download_and_the_rest_does_not(site: VendingSite, unique: str, tmp_path: Path) -> None:
    file = tmp_path / 'file'
    file.write_bytes(os.urandom(100))
    site.vera.rucio('upload', '--rse', site.rse, '--scope', 'user.vera', '--lfn', f'{unique}/file', f'user.vera:{unique}', str(file))
    refusal = site.viktor.rucio('download', '--dir', str(tmp_path / 'no'), f'user.vera:{unique}')
    assert not list((tmp_path / 'no').rglob('file'))
    assert 'Rucio issues no keys to read' in refusal.stdout + refusal.stderr
    s3_call(site.vera, 'add_grant', 'user.vera', unique, 'viktor')
    done = site.viktor.rucio('download', '--dir', str(tmp_path / 'yes'), f'user.vera:{unique}')
    (found,) = [path for path in (tmp_path / 'yes').rglob('file') if path.is_file()]
    assert found.read_bytes() == file.read_bytes(), done.stderr


def test_vending_costs_one_request_for_each_rse_and_one_for_each_bucket_and_way(site: VendingSite, unique: str, tmp_path: Path) -> None:
    files = [tmp_path / f'{unique}.{number}' for number in range(10)]
    for file in files:
        file.write_bytes(b'content')
    site.vera.call('whoami')
    before = len(site.root.server.requests())
    up = site.vera.rucio('upload', '--rse', site.rse, '--scope', 'user.vera', *map(str, files))
    after = len(site.root.server.requests())
    assert 'ERROR' not in up.stderr, up.stderr
    asked = Counter(request.uri.partition('?')[0] for request in site.root.server.requests()[before:after])
    assert {uri: number for uri, number in asked.items() if uri.startswith('/s3/')} == {f'/s3/rses/{site.rse}': 1, '/s3/credentials': 2}


# The user's own token


@pytest.fixture(scope='module')
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture(scope='module')
def federated(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """An S3 server whose STS trusts the tokens of an OIDC provider."""
    with SeaweedFS(tmp_path_factory.mktemp('federated'), sts=True, issuer=issuer.url) as server:
        server.client().create_bucket(Bucket='user.vera')
        yield server


def listing(storage: SeaweedFS, token: str) -> Any:
    endpoint = Endpoint('X', 'x', storage.url, provider='seaweedfs', web_identity_role_arn=storage.web_identity_role_arn)
    client = clients.connect(endpoint, webidentity.WebIdentity(endpoint, token)).client
    client.put_object(Bucket='user.vera', Key='by-token', Body=b'x')
    return client.list_objects_v2(Bucket='user.vera')


def test_an_oidc_token_opens_the_storage(federated: SeaweedFS, issuer: Issuer) -> None:
    assert listing(federated, issuer.token('vera'))['KeyCount'] == 1
    federated.client().delete_object(Bucket='user.vera', Key='by-token')


def test_tokens_that_the_storage_does_not_trust_are_refused_without_being_shown(federated: SeaweedFS, issuer: Issuer) -> None:
    with Issuer() as other:
        forged = other.token('b', iss=issuer.url)
    tokens = [issuer.token('a', -10), forged, issuer.token('c')[:-8] + 'AAAAAAAA', issuer.token('d', aud='other')]
    for token in tokens:
        with pytest.raises(RSEAccessDenied, match=r'RucioWebIdentity.*Log in again') as error:
            listing(federated, token)
        assert token.rpartition('.')[2] not in str(error.value)
