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

"""Remote signing: the client has no key, the storage has no STS, and the server signs what may be signed."""

import http.client
import json
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from conformance.keyless import KeylessConformance
from conformance.rig import Backend
from rucio.common.exception import AccessDenied, InputValidationError
from servers.ceph import CephRGW
from servers.cli import RucioCli, add_user
from servers.seaweedfs import SeaweedFS
from servers.signer import Signer, asked, headers_of, send, sign, signed_by_force
from servers.site import Site

pytestmark = pytest.mark.integration

MiB = 1024**2
Storage = SeaweedFS | CephRGW
CANNOT = {
    'access_control': 'the client has no keys that could be wrong',
    'conditional_multipart': 'SeaweedFS looks before it completes an upload, without a lock',
    'dot_segments': 'not signed: some storages follow them',
    'long_segments': 'SeaweedFS answers KeyTooLongError: a path segment has 255 bytes at most',
}


# Every operation of the protocol


class _Remote(KeylessConformance):
    @pytest.fixture(scope='class')
    @classmethod
    def backend(cls, storage: SeaweedFS) -> Backend:
        ca_bundle = str(storage.ca_bundle) if storage.ca_bundle else None
        where = (storage.scheme, storage.hostname, storage.port)
        keys = {'access_key': storage.access_key, 'secret_key': storage.secret_key}
        return Backend(*where, provider='seaweedfs', **keys, region=storage.region, ca_bundle=ca_bundle, settings={'auth': 'remote'}, cannot=CANNOT)

    make_server = Signer


class TestRemote(_Remote):
    @pytest.fixture(scope='class')
    @classmethod
    def storage(cls, plain: SeaweedFS) -> SeaweedFS:
        return plain


@pytest.mark.long
class TestRemoteOverTLS(_Remote):
    @pytest.fixture(scope='class')
    @classmethod
    def storage(cls, tls: SeaweedFS) -> SeaweedFS:
        return tls


# What is refused would have worked

VICTIM = 'user.victim'
MINE = 'user.mallory'


def only_mine(bucket: str, name: str, write: bool) -> None:
    if bucket != MINE:
        raise AccessDenied('not yours')


@pytest.fixture(scope='module', params=['plain', 'ceph'])
def storage(request: pytest.FixtureRequest) -> Storage:
    made: Storage = request.getfixturevalue(request.param)
    for bucket in (VICTIM, MINE):
        made.client().create_bucket(Bucket=bucket)
    return made


@pytest.fixture
def signer(storage: Storage) -> Signer:
    """With a victim's secret in the storage."""
    storage.client().put_object(Bucket=VICTIM, Key='folder/secret', Body=b'top secret')
    storage.client().put_object(Bucket=MINE, Key='mine', Body=b'mine')
    return Signer.of(storage)


HOSTILE: dict[str, tuple[str, str, dict[str, str], bytes | None]] = {
    'get': ('GET', f'/{VICTIM}/folder/secret', {}, None),
    'put': ('PUT', f'/{VICTIM}/folder/new', {}, None),
    'delete': ('DELETE', f'/{VICTIM}/folder/secret', {}, None),
    'list': ('GET', f'/{VICTIM}?list-type=2', {}, None),
    'list_with_prefix': ('GET', f'/{VICTIM}?prefix=folder%2F', {}, None),
    'head_bucket': ('HEAD', f'/{VICTIM}', {}, None),
    'copy_source': ('PUT', f'/{MINE}/stolen', {'x-amz-copy-source': f'/{VICTIM}/folder/secret'}, None),
    'copy_to': ('PUT', f'/{VICTIM}/planted', {'x-amz-copy-source': f'/{MINE}/mine'}, None),
    'delete_objects': ('POST', f'/{VICTIM}?delete', {}, b'<Delete><Object><Key>folder/secret</Key></Object></Delete>'),
    'acl': ('GET', f'/{MINE}?acl', {}, None),
    'versions': ('GET', f'/{MINE}?versions', {}, None),
    'uploads': ('GET', f'/{VICTIM}?uploads', {}, None),
    'make_bucket': ('PUT', '/another-bucket-of-mallory', {}, None),
    'all_buckets': ('GET', '/', {}, None),
    'tagging': ('GET', f'/{MINE}/mine?tagging', {}, None),
    'public_object': ('PUT', f'/{MINE}/public', {'x-amz-acl': 'public-read'}, None),
    'tagged': ('PUT', f'/{MINE}/tagged', {'x-amz-tagging': 'a=b'}, None),
}


@pytest.mark.parametrize('hostile', HOSTILE.values(), ids=HOSTILE)
def test_what_is_refused_would_have_worked(storage: Storage, signer: Signer, hostile: tuple[str, str, dict[str, str], bytes | None]) -> None:
    method, path, headers, body = hostile
    with pytest.raises((AccessDenied, InputValidationError)):
        sign(signer, [asked(storage, method, path, headers, body)], only_mine)
    status, answer = send(storage, method, path, signed_by_force(storage, method, path, headers, body or b''), body or b'')
    assert status < 300, answer


@pytest.mark.parametrize('path', [f'/{MINE}/../{VICTIM}/folder/secret', f'/{MINE}/%2e%2e/{VICTIM}/folder/secret', f'/{MINE}/%252e%252e/{VICTIM}/folder/secret'])
def test_what_leads_out_of_the_bucket_is_refused_whatever_a_storage_makes_of_it(storage: Storage, signer: Signer, path: str) -> None:
    with pytest.raises(InputValidationError):
        sign(signer, [asked(storage, 'GET', path)], only_mine)


@pytest.mark.parametrize(
    ('signed_path', 'sent_path', 'added'),
    [
        (f'/{MINE}/{VICTIM}/folder/secret', f'/{VICTIM}/folder/secret', {'X-Forwarded-Prefix': f'/{MINE}'}),
        (f'/{MINE}/mine', f'/{VICTIM}/folder/secret', {}),
        (f'/{MINE}/mine', f'/{MINE}/mine?acl', {}),
    ],
    ids=['prefix', 'path', 'query'],
)
def test_a_signature_is_good_for_nothing_else(storage: Storage, signer: Signer, signed_path: str, sent_path: str, added: dict[str, str]) -> None:
    """Also not with headers that need no signature: SeaweedFS puts X-Forwarded-Prefix before the path that it verifies."""
    request = asked(storage, 'GET', signed_path)
    (answer,) = sign(signer, [request], only_mine)
    headers = headers_of(answer)
    assert send(storage, 'GET', signed_path, headers)[0] == (200 if signed_path.endswith('mine') else 404)
    lower = {name.lower() for name in added}
    for changed in ({**headers, **added}, {**{name: value for name, value in headers.items() if name.lower() not in lower}, **added}):
        status, body = send(storage, 'GET', sent_path, changed)
        assert status == 403
        assert b'top secret' not in body


@pytest.mark.parametrize('path', [f'/{MINE}/new', f'/{MINE}/parts?partNumber=1&uploadId='])
def test_a_signed_put_does_not_become_a_copy(storage: Storage, signer: Signer, path: str) -> None:
    client = storage.client()
    upload = client.create_multipart_upload(Bucket=MINE, Key='parts')['UploadId']
    path += upload if path.endswith('=') else ''
    (answer,) = sign(signer, [asked(storage, 'PUT', path)], only_mine)
    headers = headers_of(answer)
    assert send(storage, 'PUT', path, {**headers, 'x-amz-copy-source': f'/{VICTIM}/folder/secret'})[0] >= 400
    assert send(storage, 'PUT', path, headers)[0] == 200
    client.abort_multipart_upload(Bucket=MINE, Key='parts', UploadId=upload)


# By the stock command and the server's plugin, as an account that holds no key

PLAIN, TLS = 'REMOTE_S3', 'REMOTE_TLS_S3'
REMOTE_SCOPE = 'user.remote'


@pytest.fixture(scope='module')
def remote(site: Site, plain: SeaweedFS, tls: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> RucioCli:
    """An account whose rucio.cfg has no key."""
    for rse, storage in ((PLAIN, plain), (TLS, tls)):
        site.add_rse(rse, storage)
        site.root.server.set_rse_keys(site.ids[rse], storage.access_key, storage.secret_key)
        storage.client().create_bucket(Bucket=REMOTE_SCOPE)
    ca = {'s3': {'ca_bundle': str(tls.ca_bundle)}}
    return add_user(site.root, tmp_path_factory.mktemp('remote'), 'remote', scopes=[REMOTE_SCOPE], rses=[PLAIN, TLS], config=ca)


@pytest.mark.parametrize('rse', [PLAIN, TLS])
@pytest.mark.parametrize('size', [0, 1024, 64 * MiB])
def test_upload_and_download_without_a_key(remote: RucioCli, site: Site, unique: str, tmp_path: Path, rse: str, size: int) -> None:
    file = tmp_path / 'file'
    file.write_bytes(os.urandom(size))
    up = remote.rucio('upload', '--rse', rse, '--scope', REMOTE_SCOPE, '--lfn', f'run1/{unique}', str(file))
    assert site.objects(rse, f'run1/{unique}', bucket=REMOTE_SCOPE) == {f'run1/{unique}': size}, up.stderr
    down = remote.rucio('download', '--dir', str(tmp_path / 'back'), f'{REMOTE_SCOPE}:run1/{unique}')
    assert (tmp_path / 'back' / REMOTE_SCOPE / 'run1' / unique).read_bytes() == file.read_bytes(), down.stderr
    for text in (up.stderr, down.stderr, remote.config_file.read_text()):
        assert site.storages[rse].secret_key not in text


def ask(user: RucioCli, token: str | None, body: dict[str, Any]) -> tuple[int, Any, Mapping[str, str]]:
    """What the server answers to a request for signatures."""
    headers = {'Content-Type': 'application/json'} | ({'X-Rucio-Auth-Token': token} if token is not None else {})
    request = urllib.request.Request(f'{user.server.url}/s3/sign', json.dumps(body).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, json.load(answer), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


@pytest.fixture(scope='module')
def outsider(site: Site, remote: RucioCli, tmp_path_factory: pytest.TempPathFactory) -> RucioCli:
    """An account to which nobody gave anything."""
    return add_user(site.root, tmp_path_factory.mktemp('outsider'), 'outsider', scopes=['user.outsider'], attributes=())


def logged_in(user: RucioCli) -> str:
    """A new token. The server remembers only those that were used."""
    options = user._config['client']
    headers = {'X-Rucio-Account': user.account, 'X-Rucio-Username': options['username'], 'X-Rucio-Password': options['password']}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(f'{user.server.url}/auth/userpass', headers=headers), timeout=30) as answer:
        return str(answer.headers['X-Rucio-Auth-Token'])


def a_request(storage: SeaweedFS, path: str = f'/{REMOTE_SCOPE}/run1/any', **more: Any) -> dict[str, Any]:
    return {'rse': PLAIN, 'requests': [asked(storage, 'GET', path)], **more}


def test_the_server_signs_for_the_owner(remote: RucioCli, plain: SeaweedFS) -> None:
    status, answer, headers = ask(remote, logged_in(remote), a_request(plain))
    assert status == 200, answer
    (signed,) = answer['responses']
    assert signed['uri'] == f'{plain.url}/{REMOTE_SCOPE}/run1/any'
    assert {'Authorization', 'X-Amz-Date', 'X-Amz-Content-SHA256'} <= signed['headers'].keys()
    assert 'no-store' in headers['Cache-Control'] or 'private' in headers['Cache-Control']
    assert plain.secret_key not in json.dumps(answer)


def test_an_account_to_which_nothing_was_given_gets_403_and_learns_nothing(remote: RucioCli, outsider: RucioCli, plain: SeaweedFS) -> None:
    token = logged_in(outsider)
    plain.client().put_object(Bucket=REMOTE_SCOPE, Key='there', Body=b'')
    said = {path: ask(outsider, token, a_request(plain, f'/{REMOTE_SCOPE}/{path}'))[:2] for path in ('there', 'nowhere')}
    assert [status for status, _ in said.values()] == [403, 403]
    assert len({text.replace(path, '') for path, (_, text) in said.items()}) == 1


@pytest.mark.parametrize(('token', 'status'), [(None, 400), ('', 400), ('nonsense', 401), ('outsider-remote-0123456789abcdef', 401)])
def test_no_token_or_a_made_up_one_is_refused(remote: RucioCli, plain: SeaweedFS, token: str | None, status: int) -> None:
    """As by all of Rucio's server."""
    assert ask(remote, token, a_request(plain))[0] == status


def test_a_token_of_somebody_else_is_good_for_their_own_only(outsider: RucioCli, remote: RucioCli, plain: SeaweedFS) -> None:
    token = logged_in(outsider)
    assert ask(remote, token, a_request(plain))[0] == 403
    assert ask(remote, token, a_request(plain, '/user.outsider/x'))[0] == 200


def test_an_expired_token_is_refused_and_the_client_gets_a_new_one(remote: RucioCli, site: Site, plain: SeaweedFS, unique: str, tmp_path: Path) -> None:
    token = logged_in(remote)
    with closing(sqlite3.connect(remote.server.directory / 'rucio.db', timeout=60)) as database, database:
        changed = database.execute("UPDATE tokens SET expired_at = '2001-01-01 00:00:00.000000' WHERE token = ?", [token])
        assert changed.rowcount == 1
    assert ask(remote, token, a_request(plain))[0] == 401
    (remote.directory / 'auth_token').write_text(token)
    (tmp_path / 'file').write_bytes(b'content')
    up = remote.rucio('upload', '--rse', PLAIN, '--scope', REMOTE_SCOPE, '--lfn', unique, str(tmp_path / 'file'))
    assert site.objects(PLAIN, unique, bucket=REMOTE_SCOPE) == {unique: 7}, up.stderr


@pytest.mark.parametrize(
    'body',
    [
        {},
        {'rse': PLAIN},
        {'rse': PLAIN, 'requests': []},
        {'rse': PLAIN, 'requests': 'GET'},
        {'rse': PLAIN, 'requests': [{}] * 1001},
        {'rse': PLAIN, 'requests': [{'method': 'GET', 'uri': 'https://evil.example.org/a/b', 'headers': {}}]},
        {'rse': 'NO_SUCH_RSE', 'requests': [{'method': 'GET', 'uri': 'https://evil.example.org/a/b', 'headers': {}}]},
    ],
    ids=['nothing', 'no_requests', 'none', 'text', 'too_many', 'foreign_host', 'no_rse'],
)
def test_what_is_no_request_is_an_error_of_the_client(remote: RucioCli, body: dict[str, Any]) -> None:
    status, answer, _ = ask(remote, logged_in(remote), body)
    assert 400 <= status < 500, answer
    assert 'Traceback' not in answer


def test_a_body_that_is_too_long_is_refused_before_it_is_read(remote: RucioCli) -> None:
    """Only its length is sent: while a body is on its way, the server's answer may be lost with the connection."""
    server = urlsplit(remote.server.url)
    headers = {'X-Rucio-Auth-Token': logged_in(remote), 'Content-Type': 'application/json', 'Content-Length': str(2 * MiB)}
    with closing(http.client.HTTPConnection(str(server.hostname), server.port, timeout=30)) as connection:
        connection.request('POST', '/s3/sign', headers=headers)
        assert connection.getresponse().status == 413
