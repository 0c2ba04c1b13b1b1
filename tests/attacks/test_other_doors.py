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

"""Other doors of a storage, and a signature for one request sent as another: forms, bearers, URLs, older signatures, administration, other hosts and times."""

import base64
import hashlib
import hmac
import json
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

import pytest

from servers.ceph import CephRGW
from servers.granted import FOREIGN, SECRET, Granted


def form(granted: Granted, bucket: str, key: str) -> tuple[int, bytes]:
    """A browser's upload (POST Object), whose policy the holder of keys signs himself."""
    made = granted.writer().generate_presigned_post(bucket, key, Conditions=[['starts-with', '$key', '']], ExpiresIn=600)
    boundary = 'a-boundary'
    fields = [*((f'"{name}"', value) for name, value in made['fields'].items()), ('"file"; filename="f"', 'planted')]
    body = ''.join(f'--{boundary}\r\nContent-Disposition: form-data; name={name}\r\n\r\n{value}\r\n' for name, value in fields) + f'--{boundary}--\r\n'
    return granted.send(None, 'POST', f'/{bucket}', body.encode(), **{'Content-Type': f'multipart/form-data; boundary={boundary}'})


def test_a_form(granted: Granted) -> None:
    """Upload by a form: storages read its policy instead of the keys' own."""
    for bucket, key in ((granted.bucket, 'private/planted'), (granted.bucket, 'open/planted'), (FOREIGN, 'planted')):
        assert form(granted, bucket, key)[0] == 403
        assert granted.content(key, bucket) is None
    assert granted.sign('POST', f'/{granted.bucket}').status == 403


def test_the_session_token_as_a_bearer(granted: Granted) -> None:
    """The session token of vended keys, alone, as an ``Authorization: Bearer``: SeaweedFS takes tokens of OIDC providers there, and its own look alike."""
    token = granted.keys('desk', write=True).session_token
    for method, key in (('GET', 'private/secret'), ('GET', 'open/a'), ('PUT', 'private/planted')):
        for headers in ({'Authorization': f'Bearer {token}'}, {'X-Amz-Security-Token': token}, {'X-Auth-Token': token}):
            status, body = granted.send(None, method, f'/{granted.bucket}/{key}', **headers)
            assert status >= 400
            assert SECRET not in body
    assert granted.content('private/planted') is None


@pytest.mark.parametrize('path', ['/admin/user?uid=rucio', '/admin/bucket', '/admin/metadata/user', '/admin/usage', '/swift/v1', '/admin/info'])
def test_administration(granted: Granted, path: str) -> None:
    """Ask Ceph's administration, whose rights belong to the user of the server, with keys of a role that this user has assumed."""
    for method in ('GET', 'PUT', 'POST', 'DELETE'):
        status, body = granted.send(granted.keys('desk', write=True), method, path)
        assert status >= 400, (method, path)
        assert granted.storage.secret_key.encode() not in body
    assert granted.sign('GET', path).status in (400, 403)


def test_a_presigned_url_is_for_what_was_granted(granted: Granted) -> None:
    """Signed URLs, which the holder of keys makes himself: for another folder, with another expiry, method or key than were signed."""
    sign = granted.reader().generate_presigned_url
    urls = {key: sign('get_object', {'Bucket': granted.bucket, 'Key': key}, 604_800) for key in ('open/a', 'private/secret')}
    paths = {key: url.removeprefix(granted.storage.url) for key, url in urls.items()}
    assert granted.send(None, 'GET', paths['open/a'])[1] == SECRET
    for method, path in (
        ('GET', paths['private/secret']),
        ('GET', paths['open/a'].replace('open/a', 'private/secret')),
        ('GET', paths['open/a'].replace('604800', '604799')),
        ('GET', paths['open/a'].replace('open/a', 'open/b')),
        ('PUT', paths['open/a']),
        ('DELETE', paths['open/a']),
        ('GET', f'{paths["open/a"]}&uploads='),
        ('GET', f'{paths["open/a"]}&X-Amz-Expires=1'),
    ):
        status, body = granted.send(None, method, path)
        assert status >= 400, (method, path)
        assert SECRET not in body


def test_a_signature_of_the_server_sent_otherwise(granted: Granted) -> None:
    """One signed GET: with a query, another method, another key, another time or host, its parts moved to the query, or a method in a header."""
    path = f'/{granted.bucket}/open/a'
    answer = granted.sign('GET', path)
    headers = {name: value for name, (value,) in answer.content['responses'][0]['headers'].items()}
    assert granted.send(None, 'GET', path, **headers)[1] == SECRET
    other = (datetime.now(timezone.utc) + timedelta(hours=1)).strftime('%Y%m%dT%H%M%SZ')
    moved = f'X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature={headers["Authorization"].rpartition("=")[2]}&X-Amz-Date={headers["X-Amz-Date"]}'
    for method, where, more in (
        ('GET', f'{path}?acl=', {}),
        ('GET', f'{path}?versionId=null', {}),
        ('HEAD', path, {}),
        ('DELETE', path, {}),
        ('GET', path.replace('open/a', 'private/secret'), {}),
        ('GET', path, {'X-Amz-Date': other}),
        ('GET', path, {'Host': f'{FOREIGN}.{granted.storage.hostname}'}),
        ('GET', path, {'x-amz-content-sha256': hashlib.sha256(b'x').hexdigest()}),
        ('GET', f'{path}?{moved}', {'Authorization': ''}),
    ):
        status, body = granted.send(None, method, where, **{**headers, **more})
        assert status >= 400, (method, where, more)
        assert SECRET not in body
    for name in ('X-HTTP-Method-Override', 'X-HTTP-Method', 'X-Method-Override', 'X-Original-URL', 'X-Rewrite-URL'):
        value = f'/{granted.bucket}/private/secret' if name.endswith('URL') else 'DELETE'
        assert granted.send(None, 'GET', path, **headers, **{name: value}) == (200, SECRET)
    assert granted.content('open/a') == SECRET


def test_what_is_asked_to_be_signed_is_read_in_one_way_only(granted: Granted) -> None:
    """Other hosts, ports, schemes and spellings: what the server and the storage could read in two ways."""
    host, path = granted.storage.url.partition('://')[2], f'{granted.bucket}/private/secret'
    for uri in (
        f'http://127.0.0.1:1/{path}',
        f'http://{host}@evil.example.org/{path}',
        f'http://evil.example.org#@{host}/{path}',
        f'https://{host}/{path}',
        f'ftp://{host}/{path}',
        f'http://{granted.bucket}.{host}/open/a',
        f'http://{host}//{path}',
        f'http://{host}/{granted.bucket}/open/a?x=1&x=2',
        f'http://{host}/{granted.bucket}/open/a?X-Amz-Signature=x',
        f'http://{host}/{granted.bucket}/open/a;x',
        f'http://{host}/{granted.bucket}/open/%61',
        f'http://{host}/{granted.bucket}%2Fopen%2Fa',
        f'http://{host}/{granted.bucket}/open/../private/secret',
        f'http://{host}/{granted.bucket}/open/..%2fprivate/secret',
        f'http://{host}/{granted.bucket}/open\\..\\private/secret',
        f'http://{host}/{quote(path)}\r\nx: y',
        f'file:///{path}',
        '',
    ):
        answer = granted.attacker('POST', '/s3/sign', {'rse': granted.rse, 'requests': [{'method': 'GET', 'uri': uri, 'headers': {}}]})
        assert answer.status in (400, 403), (uri, answer)
    for headers in ({'host': 'evil.example.org'}, {'authorization': 'x'}, {'x-amz-date': '20200101T000000Z', 'host': f'{FOREIGN}.{host}'}):
        assert granted.sign('GET', f'/{granted.bucket}/open/a', **headers).status in (400, 403)


def test_an_older_signature(granted: Granted) -> None:
    """Signature version 2 by vended keys: it covers less of a request."""
    keys, path = granted.keys('open'), f'/{granted.bucket}/private/secret'
    date = datetime.now(timezone.utc).strftime('%a, %d %b %Y %H:%M:%S GMT')
    text = f'GET\n\n\n{date}\nx-amz-security-token:{keys.session_token}\n{path}'
    signature = base64.b64encode(hmac.new(keys.secret_key.encode(), text.encode(), hashlib.sha1).digest()).decode()
    headers = {'Date': date, 'x-amz-security-token': keys.session_token, 'Authorization': f'AWS {keys.access_key}:{signature}'}
    status, body = granted.send(None, 'GET', path, **headers)
    assert status in (400, 403)
    assert SECRET not in body


def test_keys_without_their_token(granted: Granted) -> None:
    """The keys without the session token, with another's, or with a changed one: the token says what they are for."""
    keys, others = granted.keys('open'), granted.keys('desk', write=True)
    tokens = [None, '', others.session_token, keys.session_token[:-4] + 'AAAA', json.dumps({'policy': 'all'})]
    for token in tokens:
        changed = type('Keys', (), {**vars(keys), 'session_token': token})
        for key in ('private/secret', 'open/a'):
            status, body = granted.send(changed, 'GET', f'/{granted.bucket}/{key}')
            if isinstance(granted.storage, CephRGW) and key == 'open/a' and status == 200:
                continue
            assert status >= 400, (token, key)
            assert SECRET not in body
