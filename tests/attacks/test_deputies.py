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

"""The server, its daemons and Rucio's own interface as deputies: requests that have somebody with more rights do what the attacker may not."""

import json
from typing import Any

import pytest

from servers.cli import Keywords, s3_protocol
from servers.granted import SECRET, Granted
from servers.rest import send

Asked = tuple[str, str, Any]


@pytest.fixture
def attacked(on_seaweedfs: Granted) -> Granted:
    """What is attacked here is the server and the catalogue: one storage will do."""
    return on_seaweedfs


def what_owners_do(granted: Granted) -> list[Asked]:
    """What decides about a bucket or what the catalogue says of it."""
    place = {'scope': granted.bucket, 'rse': granted.rse}
    query = f'scope={granted.bucket}&rse={granted.rse}'
    return [
        ('POST', '/s3/reconcile', place),
        ('POST', '/s3/reconcile', {**place, 'name': 'open'}),
        ('POST', '/s3/reconcile', {**place, 'name': 'desk', 'on_missing': 'lost'}),
        ('POST', '/s3/reconcile', {**place, 'name': 'desk/mine', 'on_changed': 'bad'}),
        ('POST', '/s3/reconcile', {**place, 'name': 'desk', 'dry_run': True}),
        ('GET', f'/s3/settings?{query}', None),
        ('PUT', '/s3/settings', {**place, 'on_changed': 'bad', 'on_missing': 'lost'}),
        ('GET', f'/s3/changes?{query}&name=open', None),
        ('GET', f'/s3/policy?{query}', None),
        ('PUT', '/s3/policy', {**place, 'policy': {}}),
        ('DELETE', '/s3/policy', place),
        ('POST', '/s3/buckets', place),
        ('POST', '/s3/buckets', {**place, 'name': 'desk/sub'}),
        ('DELETE', '/s3/buckets', {**place, 'force': True}),
        ('DELETE', '/s3/buckets', {**place, 'name': 'desk', 'force': True}),
        ('GET', f'/s3/grants?scope={granted.bucket}&name=open', None),
        ('POST', '/s3/grants', {'scope': granted.bucket, 'name': 'open', 'account': granted.name, 'write': True}),
        ('POST', '/s3/grants', {'scope': granted.bucket, 'name': 'desk', 'account': '*', 'write': False}),
        ('DELETE', '/s3/grants', {'scope': granted.bucket, 'name': 'open', 'account': granted.name}),
        ('POST', '/s3/import', {**place, 'name': 'desk/import'}),
        ('POST', '/s3/import', {'scope': f'user.{granted.name}', 'rse': granted.rse, 'name': 'import', 'bucket': granted.bucket}),
        ('GET', f'/s3/locate?scope={granted.bucket}', None),
        ('GET', f'/s3/locate?scope={granted.bucket}&name=private/secret', None),
        ('POST', '/s3/credentials', place),
        ('POST', '/s3/credentials', {**place, 'name': 'private'}),
        ('POST', '/s3/credentials', {**place, 'name': 'open', 'write': True}),
        ('POST', '/s3/credentials', {'rse': granted.rse, 'bucket': granted.bucket, 'prefix': 'open'}),
        ('POST', '/s3/credentials', {'rse': granted.rse, 'bucket': granted.bucket, 'prefix': 'desk2/', 'write': True}),
    ]


def test_what_owners_do(attacked: Granted) -> None:
    """All that the owner of a bucket may have the server do, by one who may read and write a folder of it."""
    for method, path, body in what_owners_do(attacked):
        answer = attacked.attacker(method, path, body)
        assert answer.status in (403, 409), (method, path, body, answer)  # 409: an import into an RSE that takes none
        assert 'AccessDenied' in answer.text or '/s3/import' in path, (method, path, body, answer)


def what_admins_do(granted: Granted) -> list[Asked]:
    """Rucio's own: what has a daemon delete an object, or changes who may do what. The security of the plugin stands on each of these."""
    file = {'scope': granted.bucket, 'name': 'open/a'}
    pfn, did = f'{granted.storage.url}/{granted.bucket}/open/a', f'{granted.bucket}/open/a'
    here = {'rse': granted.rse}
    return [
        ('POST', '/replicas', {**here, 'files': [{**file, 'bytes': 1, 'adler32': '00000001'}]}),
        ('PUT', '/replicas', {**here, 'files': [{**file, 'state': 'B'}]}),
        ('DELETE', '/replicas', {**here, 'files': [file]}),
        ('POST', '/replicas/bad', {'pfns': [pfn], 'reason': 'x'}),
        ('POST', '/replicas/bad', {'replicas': [{**file, **here}], 'reason': 'x'}),
        ('POST', '/replicas/bad/pfns', {'pfns': [pfn], 'reason': 'x', 'state': 'BAD'}),
        ('POST', '/replicas/bad/dids', {**here, 'dids': [file], 'reason': 'x', 'expires_at': None}),
        ('POST', '/replicas/tombstone', {'replicas': [{**file, **here}]}),
        ('POST', '/replicas/quarantine', {**here, 'replicas': [{'path': f'{granted.bucket}/open/a'}]}),
        ('POST', '/dirac/addfiles', {'lfns': [{'lfn': f'/{did}', **here, 'bytes': 1, 'adler32': '00000001', 'pfn': pfn}], 'ignore_availability': True}),
        ('PUT', f'/dids/{granted.bucket}/open/status', {'open': False}),
        ('POST', f'/dids/{granted.bucket}/open/meta', {'meta': {'lifetime': 1}}),
        ('POST', f'/dids/{granted.bucket}/open/meta/lifetime', {'value': 1}),
        ('POST', f'/dids/{granted.bucket}/new', {'type': 'DATASET'}),
        ('POST', f'/dids/{granted.bucket}/open/dids', {'dids': [{'scope': f'user.{granted.name}', 'name': 'x'}]}),
        ('PUT', f'/config/s3-bucket:{granted.rse}:{granted.bucket}/on_missing/lost', None),
        ('POST', '/config', {f's3-bucket:{granted.rse}:x': {'import': '[]'}}),
        ('POST', f'/accounts/{granted.name}/attr/admin', {'key': 'admin', 'value': 'true'}),
        ('POST', f'/accounts/{granted.name}/scopes/foreign-bucket', None),
        ('PUT', f'/scopes/{granted.bucket}/{granted.name}', None),
        ('POST', f'/accountlimits/local/{granted.name}/{granted.rse}', {'bytes': -1}),
        ('POST', '/rses/ATTACKERS', {'deterministic': False}),
        ('POST', f'/rses/{granted.rse}/attr/sign_url', {'value': 's3'}),
        ('POST', f'/rses/{granted.rse}/protocols/http', s3_protocol(granted.storage)),
        (
            'PUT',
            f'/rses/{granted.rse}/protocols/http/127.0.0.1/{granted.storage.port}',
            {'extended_attributes': {'s3': {'sts_endpoint': 'http://127.0.0.1:1'}}},
        ),
        ('POST', '/import', {'rses': {}}),
    ]


def test_what_admins_do(attacked: Granted) -> None:
    """Rucio's own requests by which daemons delete objects, or others get rights, by an ordinary account."""
    for method, path, body in what_admins_do(attacked):
        answer = attacked.attacker(method, path, body)
        # Stock Rucio answers 401, and for some of them 500 or (no such route in this release) 404 and 405.
        assert answer.status >= 400, (method, path, answer)
        # Or it finds several RSEs at that place, those of other attacks.
        assert 'AccessDenied' in answer.text or 'multiple matches' in answer.text or answer.status in (404, 405), (method, path, answer)
    assert attacked.content('open/a') == SECRET
    assert 'sts_endpoint' not in attacked.owner('GET', f'/rses/{attacked.rse}').text


def test_signed_urls_for_the_account_of_a_header(attacked: Granted) -> None:
    """Rucio 39 and 40 believe the header, which its clients send with each request."""
    path = f'/credentials/signurl?rse={attacked.rse}&svc=s3&op=read&url={attacked.storage.url}/{attacked.bucket}/private/a'
    for account in ('root', attacked.attacker.user.account, attacked.owner.user.account):
        answer = send(attacked.owner.user.server, 'GET', path, {'X-Rucio-Auth-Token': attacked.attacker.token, 'X-Rucio-Account': account})
        assert answer.status >= 400, answer
        assert 'AccessDenied' in answer.text, answer
    answer = attacked.attacker('GET', path)  # without the header, which Rucio 39 and 40 then miss
    assert answer.status >= 400, answer
    assert 'AccessDenied' in answer.text or 'Parameter "account" not found' in str(answer.content), answer


def test_somebody_else_by_a_header(attacked: Granted) -> None:
    """One's own token beside other headers, cookies and parameters that name an account, a VO or a token."""
    token = attacked.attacker.token
    body = json.dumps({'rse': attacked.rse, 'scope': attacked.bucket, 'name': 'private'}).encode()
    server = attacked.owner.user.server
    for headers in (
        {'X-Rucio-Auth-Token': token, 'X-Rucio-Account': 'root'},
        {'X-Rucio-Auth-Token': token, 'X-Rucio-VO': 'abc'},
        {'X-Rucio-Auth-Token': token, 'X-Forwarded-User': 'root', 'REMOTE_USER': 'root', 'X-Remote-User': 'root', 'Issuer': 'root'},
        {'Cookie': f'x-rucio-auth-token={attacked.owner.token}; rucio-auth-token={attacked.owner.token}'},
        {'Authorization': f'Bearer {attacked.owner.token}'},
        {'X_Rucio_Auth_Token': attacked.owner.token},
        {'X-Rucio-Auth-Token': f'{token},{attacked.owner.token}'},
        {'X-Rucio-Auth-Token': f'root-root-unknown-{"0" * 32}'},
    ):
        assert send(server, 'POST', '/s3/credentials', headers, body).status in (400, 401, 403), headers
        query = '&'.join(f'{name}={value}' for name, value in headers.items()).replace(' ', '%20').replace(';', '%3B')
        assert send(server, 'POST', f'/s3/credentials?{query}', {}, body).status in (400, 401), headers
    assert send(server, 'POST', '/s3/credentials', {'X-Rucio-Auth-Token': attacked.owner.token}, body).status == 200


def test_a_web_page_of_somebody_else(attacked: Granted) -> None:
    """A page that the user visits has the browser send requests (CSRF). It cannot: the token is in a header, and the browser keeps none of it."""
    headers = {'Origin': 'https://evil.example.org', 'Content-Type': 'text/plain'}
    answer = send(attacked.owner.user.server, 'POST', '/s3/grants', headers, json.dumps({'scope': attacked.bucket, 'name': 'private', 'account': '*'}).encode())
    assert (answer.status, 'Token must be set' in answer.text) == (400, True)
    assert 'Set-Cookie' not in answer.headers


def test_nothing_is_cached(attacked: Granted) -> None:
    """A proxy between client and server that keeps answers: the next user would get the first one's keys."""
    for method, path, body in (
        ('POST', '/s3/credentials', {'rse': attacked.rse, 'scope': attacked.bucket, 'name': 'open'}),
        ('GET', '/s3/rses', None),
        ('GET', f'/s3/locate?scope={attacked.bucket}&name=open', None),
        ('GET', '/s3/buckets', None),
        ('POST', '/s3/credentials', {'rse': attacked.rse, 'scope': attacked.bucket, 'name': 'private'}),
    ):
        answer = attacked.attacker(method, path, body)
        assert answer.headers['Cache-Control'] == 'no-store', (method, path, answer.status)
    assert attacked.sign('GET', f'/{attacked.bucket}/open/a').headers['Cache-Control'] == 'no-store'


def test_whether_something_is_there(attacked: Granted) -> None:
    """Names of scopes, buckets, collections and files by what a refusal says: the same for what is there and what is not."""
    for method, path, body in what_owners_do(attacked):
        if '/s3/import' in path or (body and body.get('name') in ('open', 'desk')):
            continue

        def ask(scope: str, asked: Asked = (method, path, body)) -> tuple[int, str]:
            changed = {key: value.replace(attacked.bucket, scope) if isinstance(value, str) else value for key, value in (asked[2] or {}).items()}
            answer = attacked.attacker(asked[0], asked[1].replace(attacked.bucket, scope), changed or None)
            return answer.status, answer.text.replace(scope, 'SCOPE')

        assert ask('user.nobodyatall') == ask('user.carla'), (method, path)
    for name in ('private/secret', 'private/none', 'none'):
        answer = attacked.attacker('GET', f'/s3/locate?scope={attacked.bucket}&name={name}')
        assert (answer.status, answer.text.replace(name, 'NAME')) == (403, attacked.attacker('GET', f'/s3/locate?scope={attacked.bucket}&name=NAME').text)


def test_a_grant_is_over_at_once(attacked: Granted, unique: str) -> None:
    """Go on after the owner took a grant back: no new keys, though the server still has some, and no signature."""
    collection = {'scope': attacked.bucket, 'name': unique}
    place = {**collection, 'rse': attacked.rse}
    assert attacked.owner('POST', '/s3/buckets', place).status == 201
    assert attacked.owner('POST', '/s3/grants', {**collection, 'account': attacked.name, 'write': True}).status == 201
    assert attacked.attacker('POST', '/s3/credentials', {**place, 'write': True}).status == 200
    assert attacked.sign('GET', f'/{attacked.bucket}/{unique}/x').status == 200
    assert attacked.owner('DELETE', '/s3/grants', {**collection, 'account': attacked.name}).status == 200
    assert attacked.attacker('POST', '/s3/credentials', {**place, 'write': True}).status == 403
    assert attacked.sign('GET', f'/{attacked.bucket}/{unique}/x').status == 403


def test_somebody_elses_file_in_ones_own_dataset(attacked: Granted, unique: str) -> None:
    """Attach a private file of the owner's to a dataset of one's own, which Rucio allows, and ask for keys of that dataset, or share it."""
    mine = f'user.{attacked.name}'
    assert attacked.owner('POST', '/s3/reconcile', {'rse': attacked.rse, 'scope': attacked.bucket, 'name': 'private'}).status == 200
    dataset = {'rse': attacked.rse, 'scope': mine, 'name': unique}
    assert attacked.attacker('POST', '/s3/buckets', dataset).status == 201
    attached = attacked.attacker('POST', f'/dids/{mine}/{unique}/dids', {'dids': [{'scope': attacked.bucket, 'name': 'private/secret'}]})
    assert attached.status == 201, attached
    keys = attacked.attacker('POST', '/s3/credentials', dataset).content
    assert (keys['bucket'], keys['prefix']) == (mine, f'{unique}/')
    made = type('Keys', (), {**keys, 'region': attacked.storage.region})
    assert attacked.send(made, 'GET', f'/{attacked.bucket}/private/secret')[0] == 403
    assert attacked.sign('GET', f'/{attacked.bucket}/private/secret').status == 403


def test_an_endpoint_inside_the_site(attacked: Granted) -> None:
    """SSRF: only who may make RSEs says where the server connects to; a bucket's name, a key or an ARN does not."""
    assert attacked.attacker('POST', '/rses/METADATA', {'deterministic': False}).status == 401
    for bucket in (
        '169.254.169.254/latest', 'arn:aws:s3:us-east-1:123456789012:accesspoint/evil', '127.0.0.1:1/x', '..', '.', 'x@evil.example.org', 'a\\b',
        'arn:aws:s3-object-lambda:us-east-1:123456789012:accesspoint/x', 'x--usw2-az1--x-s3/../..', 'a?b', 'a#b', '%2e%2e',
    ):  # fmt: skip
        asked = {'rse': attacked.rse, 'bucket': bucket, 'prefix': ''}
        for user in (attacked.attacker, attacked.owner):
            answer = user('POST', '/s3/credentials', asked)
            assert answer.status in (400, 403), (bucket, answer)
        imported = {'rse': 'ANYWHERE_S3', 'scope': f'user.{attacked.name}', 'name': 'x', 'bucket': bucket}
        assert attacked.attacker('POST', '/s3/import', imported).status in (400, 403, 404)


@pytest.fixture(scope='module')
def anywhere(on_seaweedfs: Granted, team_root: Any) -> str:
    """An RSE that anybody may read, for imports; nothing listens there."""
    protocol = {**s3_protocol(on_seaweedfs.storage, settings={'auth': 'anonymous'}), 'port': 1}
    team_root.calls(('add_rse', 'ANYWHERE_S3', Keywords(deterministic=False)), ('add_protocol', 'ANYWHERE_S3', protocol))
    return 'ANYWHERE_S3'


def test_an_import_from_elsewhere(attacked: Granted, anywhere: str) -> None:
    """Import a bucket with a name that leads to another host or path, where anybody may import."""
    for bucket in ('arn:aws:s3:us-east-1:123456789012:accesspoint/evil', '../user.carla', 'a/b', 'a?b', '..', 'x' * 200):
        answer = attacked.attacker('POST', '/s3/import', {'rse': anywhere, 'scope': f'user.{attacked.name}', 'name': 'x', 'bucket': bucket})
        assert answer.status == 400, (bucket, answer)
    other = attacked.attacker('POST', '/s3/import', {'rse': anywhere, 'scope': attacked.bucket, 'name': 'desk/x', 'bucket': 'open-data'})
    assert other.status == 403
