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

"""The REST interface of the server's plugin, on a real Rucio server and a real S3 server. Without the client: what goes over the wire."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from rucio.common.s3.dates import from_text, to_text
from servers.cli import RucioCli, add_s3_rse, add_user
from servers.rest import Rest
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS

RSE = 'REST_S3'  # the server has keys and a role
OTHER = 'REST_PLAIN_S3'  # the server has keys
KEYLESS = 'REST_KEYLESS_S3'
SCOPE, OTHER_SCOPE = 'user.carol', 'user.dave'


@dataclass
class Desk:
    """Carol and Dave have a scope each, and quota on REST_S3 only; dave is no admin, and nobody has keys."""

    server: RucioServer
    storage: SeaweedFS
    root: RucioCli
    carol: Rest
    dave: Rest
    admin: Rest

    @property
    def s3(self) -> Any:
        return self.storage.client()

    def add_file(self, *names: str, collection: str = '') -> None:
        """Files with replicas, as after an upload, and locks as of the rules on their collection."""
        dids = [{'scope': SCOPE, 'name': name} for name in names]
        for name in names:
            self.s3.put_object(Bucket=SCOPE, Key=name, Body=b'content')
        calls: list[tuple[Any, ...]] = [('add_replicas', RSE, [did | {'bytes': 7, 'adler32': '0bdf02ee'} for did in dids])]
        if collection:
            calls.append(('attach_dids', SCOPE, collection, dids))
        self.root.calls(*calls)
        if collection:
            done = self.server.run('rucio-judge-evaluator', '--run-once')
            assert done.returncode == 0, done.stderr

    def keys(self, prefix: str = '') -> list[str]:
        return [each['Key'] for each in self.s3.list_objects_v2(Bucket=SCOPE, Prefix=prefix).get('Contents', [])]

    def replicas(self, name: str) -> list[str]:
        return [rse for each in self.root.call('list_replicas', [{'scope': SCOPE, 'name': name}], all_states=True) for rse in each['rses']]


@pytest.fixture(scope='module')
def desk(tmp_path_factory: pytest.TempPathFactory, rucio_server: RucioServer, root: RucioCli, sts: SeaweedFS, plain: SeaweedFS) -> Desk:
    for rse, storage, settings in ((RSE, sts, {'role_arn': sts.role_arn}), (OTHER, plain, {'bucket_prefix': 'rest-'}), (KEYLESS, plain, {})):
        rse_id = add_s3_rse(root, rse, storage, settings=settings)
        if rse != KEYLESS:
            rucio_server.set_rse_keys(rse_id, storage.access_key, storage.secret_key)
    carol = add_user(root, tmp_path_factory.mktemp('carol'), 'carol', scopes=[SCOPE], attributes=(), rses=[RSE])
    dave = add_user(root, tmp_path_factory.mktemp('dave'), 'dave', scopes=[OTHER_SCOPE], attributes=(), rses=[RSE])
    desk = Desk(rucio_server, sts, root, Rest(carol), Rest(dave), Rest(root))
    # Only now may the workers of the server find what they will remember for some seconds.
    assert desk.carol.ok('GET', f'/rses/{RSE}')['auth'] == ['vended', 'remote']
    return desk


@pytest.fixture
def run(desk: Desk, unique: str) -> Iterator[str]:
    """A collection of carol, and her bucket."""
    desk.carol.ok('POST', '/buckets', {'scope': SCOPE, 'name': unique})
    yield unique
    desk.carol('DELETE', '/buckets', {'scope': SCOPE, 'name': unique, 'rse': RSE, 'force': True})


# RSEs


def test_rses(desk: Desk) -> None:
    tried = desk.dave.ok('GET', f'/rses/{RSE}')['role_chaining']
    assert (tried['refused'], tried['reason']) == (True, '')
    found = {each['rse']: each for each in desk.dave.ok('GET', '/rses')}
    assert found[RSE] == {
        'rse': RSE,
        'url': desk.storage.url,
        'provider': 'seaweedfs',
        'region': 'us-east-1',
        'addressing': 'path',
        'bucket_prefix': '',
        'ca': None,
        'auth': ['vended', 'remote'],
        'sts_url': desk.storage.url,
        'web_identity_role_arn': None,
        'role_chaining': tried,
        'verifies_body': False,
    }
    assert found[OTHER]['auth'] == ['remote']
    assert found[KEYLESS]['auth'] == []
    alone = desk.dave.ok('GET', f'/rses/{OTHER}/')
    assert KEYLESS in {each['rse'] for each in alone.pop('overlaps')}  # which has no bucket_prefix
    assert alone.pop('sharing') is True
    assert alone == found[OTHER]
    answer = desk.dave('GET', '/rses/NOWHERE')
    assert (answer.status, answer.error) == (404, 'RSENotFound')
    assert "'NOWHERE'" in answer.message


@pytest.mark.parametrize('token', ['', 'carol-root-unknown-0123456789'])
def test_nothing_without_a_token(desk: Desk, token: str) -> None:
    for method, path in (('GET', '/rses'), ('POST', '/credentials'), ('POST', '/sign'), ('DELETE', '/buckets')):
        assert desk.carol(method, path, {}, token=token).status in (400, 401)


def test_version_and_capabilities(desk: Desk) -> None:
    told = desk.dave.ok('GET', '/version')
    assert {'get_version', 'make_bucket', 'reconcile'} <= set(told['capabilities'])


def test_a_parameter_that_is_not_there_is_named(desk: Desk) -> None:
    answer = desk.carol('POST', '/reconcile', {'scope': SCOPE, 'dryrun': True})
    assert (answer.status, answer.message) == (400, "POST /s3/reconcile has no parameter 'dryrun'. Did you mean 'dry_run'?")


# Making buckets


def test_make_bucket_is_repeatable(desk: Desk, unique: str) -> None:
    body = {'scope': SCOPE, 'name': unique}
    first = desk.carol('POST', '/buckets', body)
    assert first.status == 201
    assert first.content['made'] | {'bucket': True, 'lifecycle': True} == {
        'bucket': True,
        'dataset': True,
        'rule': True,
        'lifecycle': True,
        'events': False,
        'cors': False,
    }
    assert first.content['url'] == f'{desk.storage.url}/{SCOPE}/{unique}/'
    again = desk.carol.ok('POST', '/buckets', body)
    assert again['made'] == {'bucket': False, 'dataset': False, 'rule': False, 'lifecycle': False, 'events': False, 'cors': False}
    rules = desk.root.call('list_did_rules', SCOPE, unique)
    assert [(rule['rse_expression'], rule['account'], rule['grouping'], rule['copies']) for rule in rules] == [(RSE, 'carol', 'DATASET', 1)]
    assert desk.root.call('get_did', SCOPE, unique)['account'] == 'carol'
    lifecycle = desk.s3.get_bucket_lifecycle_configuration(Bucket=SCOPE)['Rules']
    assert [rule['AbortIncompleteMultipartUpload']['DaysAfterInitiation'] for rule in lifecycle] == [7]
    desk.carol.ok('DELETE', '/buckets', body)


def test_make_bucket_keeps_the_lifecycle_rules_that_there_are(desk: Desk) -> None:
    desk.s3.create_bucket(Bucket=OTHER_SCOPE)
    theirs = {'ID': 'theirs', 'Status': 'Enabled', 'Filter': {'Prefix': 'tmp/'}, 'Expiration': {'Days': 3}}
    desk.s3.put_bucket_lifecycle_configuration(Bucket=OTHER_SCOPE, LifecycleConfiguration={'Rules': [theirs]})

    made = desk.dave.ok('POST', '/buckets', {'scope': OTHER_SCOPE})['made']

    assert made == {'bucket': False, 'dataset': False, 'rule': False, 'lifecycle': True, 'events': False, 'cors': False}
    rules = {rule['ID']: rule for rule in desk.s3.get_bucket_lifecycle_configuration(Bucket=OTHER_SCOPE)['Rules']}
    assert rules['theirs']['Expiration']['Days'] == 3
    assert len(rules) == 2
    assert desk.dave.ok('DELETE', '/buckets', {'scope': OTHER_SCOPE, 'rse': RSE})['removed']['bucket']


def test_without_quota_nothing_is_made(desk: Desk, unique: str) -> None:
    answer = desk.carol('POST', '/buckets', {'scope': SCOPE, 'name': unique, 'rse': OTHER})
    assert (answer.status, answer.error) == (409, 'InsufficientAccountLimit')
    assert f'no quota left on RSE {OTHER}' in answer.message
    assert SCOPE not in [each['bucket'] for each in desk.admin.ok('GET', '/buckets', rse=OTHER)['buckets']]
    assert unique not in desk.root.call('list_dids', SCOPE, [{}], did_type='all')


def test_a_scope_that_is_not_there(desk: Desk) -> None:
    """Rucio lists scopes to every account."""
    for user in (desk.admin, desk.carol):
        answer = user('POST', '/buckets', {'scope': 'user.nobody', 'rse': RSE})
        assert (answer.status, answer.error) == (404, 'ScopeNotFound')


def test_a_file_is_no_collection(desk: Desk, run: str) -> None:
    desk.add_file(f'{run}/file')
    answer = desk.carol('POST', '/buckets', {'scope': SCOPE, 'name': f'{run}/file'})
    assert (answer.status, answer.error) == (409, 'DataIdentifierAlreadyExists')


def test_where_several_rses_would_do_they_are_named(desk: Desk, unique: str) -> None:
    desk.root.call('add_scope', 'root', unique)
    answer = desk.admin('POST', '/buckets', {'scope': unique})
    assert answer.status == 400
    assert RSE in answer.message
    assert OTHER in answer.message
    # A bucket that is there answers the question.
    desk.admin.ok('POST', '/buckets', {'scope': unique, 'rse': OTHER})
    assert desk.admin.ok('POST', '/buckets', {'scope': unique})['rse'] == OTHER
    assert desk.admin.ok('DELETE', '/buckets', {'scope': unique})['removed']['bucket']


def test_without_keys_the_server_says_so(desk: Desk) -> None:
    answer = desk.admin('POST', '/buckets', {'scope': SCOPE, 'rse': KEYLESS})
    assert answer.error == 'RSEAccessDenied'
    assert 'rse-accounts.cfg' in answer.message


def test_buckets_are_listed_for_their_owners(desk: Desk, run: str) -> None:
    assert [each['bucket'] for each in desk.carol.ok('GET', '/buckets', rse=RSE)['buckets']] == [SCOPE]
    assert SCOPE not in [each['bucket'] for each in desk.dave.ok('GET', '/buckets')['buckets']]
    found = [each for each in desk.admin.ok('GET', '/buckets')['buckets'] if each['bucket'] == SCOPE]
    assert [(each['rse'], each['scope']) for each in found] == [(RSE, SCOPE)]


# Who may


def test_who_may_not_learns_nothing(desk: Desk, run: str) -> None:
    desk.add_file(f'{run}/file')
    sign = [{'method': 'GET', 'uri': f'{desk.storage.url}/{SCOPE}/@', 'headers': {}}]
    for method, path, body, query in (
        ('POST', '/buckets', {'scope': SCOPE, 'name': '@'}, {}),
        ('DELETE', '/buckets', {'scope': SCOPE, 'name': '@'}, {}),
        ('GET', '/locate', None, {'scope': SCOPE, 'name': '@'}),
        ('POST', '/credentials', {'scope': SCOPE, 'name': '@'}, {}),
        ('POST', '/credentials', {'rse': RSE, 'bucket': SCOPE, 'prefix': '@'}, {}),
        ('POST', '/sign', {'rse': RSE, 'requests': sign}, {}),
        ('GET', '/grants', None, {'scope': SCOPE, 'name': '@'}),
        ('POST', '/grants', {'scope': SCOPE, 'name': '@', 'account': 'dave'}, {}),
        ('DELETE', '/grants', {'scope': SCOPE, 'name': '@', 'account': 'dave'}, {}),
    ):
        answers = []
        for name in (f'{run}/file', f'{run}/nofi', run, f'{run[:-1]}-'):
            text = json.dumps(body).replace('@', name)
            answer = desk.dave(method, path, json.loads(text), **{key: value.replace('@', name) for key, value in query.items()})
            answers.append((answer.status, answer.error, answer.message.replace(name, '')))
        assert len(set(answers)) == 1, answers
        assert answers[0][:2] == (403, 'AccessDenied'), (path, answers)


def test_policies_are_for_owners(desk: Desk, run: str) -> None:
    assert desk.dave('GET', '/policy', scope=SCOPE).status == 403
    assert desk.dave('PUT', '/policy', {'scope': SCOPE, 'policy': {}}).status == 403
    assert desk.dave('DELETE', '/policy', {'scope': SCOPE}).status == 403


# Places


def test_locate(desk: Desk, run: str) -> None:
    name = f'{run}/sub_dir'
    desk.add_file(f'{name}/file')
    place = {'rse': RSE, 'bucket': SCOPE, 'prefix': ''}
    url = f'{desk.storage.url}/{SCOPE}'
    assert desk.carol.ok('GET', '/locate', scope=SCOPE, name=f'{name}/file') == [
        place | {'key': f'{name}/file', 'url': f'{url}/{name}/file', 'did_type': 'FILE'}
    ]
    assert desk.carol.ok('GET', '/locate', scope=SCOPE, name=f'{name}/new') == [place | {'key': f'{name}/new', 'url': f'{url}/{name}/new', 'did_type': None}]
    assert desk.carol.ok('GET', '/locate', scope=SCOPE, name=run) == [place | {'key': run, 'url': f'{url}/{run}', 'did_type': 'DATASET'}]
    assert desk.carol.ok('GET', '/locate', scope=SCOPE) == [place | {'key': '', 'url': url, 'did_type': None}]
    # Where the catalogue knows nothing, quota decides.
    assert [each['rse'] for each in desk.dave.ok('GET', '/locate', scope=OTHER_SCOPE, name='new/file')] == [RSE]


# Credentials


def client_of(keys: dict[str, Any]) -> Any:
    session = boto3.Session(botocore_session=botocore.session.Session())
    secrets = {'aws_access_key_id': keys['access_key'], 'aws_secret_access_key': keys['secret_key'], 'aws_session_token': keys['session_token']}
    config = Config(s3={'addressing_style': keys['addressing']}, proxies={})
    return session.client('s3', endpoint_url=keys['url'], region_name=keys['region'], config=config, **secrets)


def refused(function: Any, **arguments: Any) -> bool:
    try:
        function(**arguments)
    except ClientError as error:
        return error.response['ResponseMetadata']['HTTPStatusCode'] == 403
    return False


def test_credentials_of_owner_and_grantee(desk: Desk, run: str) -> None:
    desk.add_file(f'{run}/file')
    desk.s3.put_object(Bucket=SCOPE, Key=f'{run}2/file', Body=b'secret')
    wanted = {'rse': RSE, 'bucket': SCOPE, 'prefix': f'{run}/file', 'write': True}
    answer = desk.carol('POST', '/credentials', wanted)
    assert answer.headers['Cache-Control'] == 'no-store'
    assert (answer.content['prefix'], answer.content['write']) == ('', True)
    carol = client_of(answer.content)
    carol.put_object(Bucket=SCOPE, Key=f'{run}/other', Body=b'')

    desk.carol.ok('POST', '/grants', {'scope': SCOPE, 'name': run, 'account': 'dave'})
    assert desk.dave('POST', '/credentials', wanted).status == 403
    keys = desk.dave.ok('POST', '/credentials', wanted | {'write': False})
    assert (keys['bucket'], keys['prefix'], keys['write']) == (SCOPE, f'{run}/', False)
    dave = client_of(keys)
    assert dave.get_object(Bucket=SCOPE, Key=f'{run}/file')['Body'].read() == b'content'
    assert refused(dave.get_object, Bucket=SCOPE, Key=f'{run}2/file')
    assert refused(dave.put_object, Bucket=SCOPE, Key=f'{run}/file', Body=b'mine now')
    for other in (f'{run}2/file', run, '', f'{run}/../{run}2/file'):
        assert desk.dave('POST', '/credentials', wanted | {'write': False, 'prefix': other}).status == 403

    by_did = desk.dave.ok('POST', '/credentials', {'scope': SCOPE, 'name': f'{run}/file'})
    assert (by_did['rse'], by_did['prefix'], by_did['write']) == (RSE, f'{run}/', False)
    desk.carol.ok('DELETE', '/grants', {'scope': SCOPE, 'name': run, 'account': 'dave'})
    assert desk.dave('POST', '/credentials', wanted | {'write': False}).status == 403
    desk.s3.delete_object(Bucket=SCOPE, Key=f'{run}2/file')


def test_credentials_for_one_collection(desk: Desk, run: str) -> None:
    keys = desk.carol.ok('POST', '/credentials', {'scope': SCOPE, 'name': run, 'write': True, 'lifetime': 900})
    assert (keys['rse'], keys['prefix']) == (RSE, f'{run}/')
    carol = client_of(keys)
    carol.put_object(Bucket=SCOPE, Key=f'{run}/new', Body=b'')
    assert refused(carol.put_object, Bucket=SCOPE, Key=f'{run}2/new', Body=b'')
    assert desk.carol.ok('POST', '/credentials', {'scope': SCOPE})['prefix'] == ''


def test_foreign_buckets_are_for_admins(desk: Desk, unique: str) -> None:
    wanted = {'rse': RSE, 'bucket': f'x--{unique}', 'prefix': 'a/b'}
    assert desk.carol('POST', '/credentials', wanted).status == 403
    assert desk.admin.ok('POST', '/credentials', wanted)['prefix'] == 'a/b'


@pytest.mark.parametrize('rse', [OTHER, KEYLESS])
def test_no_credentials_without_a_role(desk: Desk, rse: str) -> None:
    answer = desk.carol('POST', '/credentials', {'rse': rse, 'bucket': f'rest-{SCOPE}' if rse == OTHER else SCOPE})
    assert (answer.status, answer.error) == (501, 'RSEOperationNotSupported')
    assert rse in answer.message


# Signing


def test_signed_requests(desk: Desk, run: str) -> None:
    desk.add_file(f'{run}/file')
    uri = f'{desk.storage.url}/{SCOPE}/{run}/file'
    asked = {'rse': RSE, 'requests': [{'method': 'GET', 'uri': uri, 'headers': {}}]}
    assert desk.dave('POST', '/sign', asked).status == 403
    signed = desk.carol.ok('POST', '/sign', asked)['responses'][0]
    headers = {name: values[0] for name, values in signed['headers'].items()}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(signed['uri'], headers=headers)) as response:
        assert response.read() == b'content'

    desk.carol.ok('POST', '/grants', {'scope': SCOPE, 'name': run, 'account': 'dave', 'write': True})
    assert desk.dave('POST', '/sign', asked).status == 200
    # All or none.
    asked['requests'].append({'method': 'GET', 'uri': f'{desk.storage.url}/{SCOPE}/elsewhere', 'headers': {}})
    assert desk.dave('POST', '/sign', asked).status == 403


def test_a_grant_counts_at_once(desk: Desk, run: str) -> None:
    """What the server remembers of storages must not be what it remembers of accounts."""
    body = {'rse': RSE, 'requests': [{'method': 'GET', 'uri': f'{desk.storage.url}/{SCOPE}/{run}/file', 'headers': {}}]}
    for _ in range(3):
        assert desk.dave('POST', '/sign', body).status == 403
        desk.carol.ok('POST', '/grants', {'scope': SCOPE, 'name': run, 'account': 'dave'})
        assert desk.dave('POST', '/sign', body).status == 200
        desk.carol.ok('DELETE', '/grants', {'scope': SCOPE, 'name': run, 'account': 'dave'})


# Grants


def test_grants(desk: Desk, run: str) -> None:
    body = {'scope': SCOPE, 'name': run, 'account': 'dave'}
    assert desk.carol('POST', '/grants', body).status == 201
    assert desk.carol.ok('POST', '/grants', body) == {'account': 'dave', 'write': False, 'until': None, 'changed': False, 'own_keys': []}
    assert desk.carol.ok('POST', '/grants', body | {'write': True})['changed']
    (grant,) = desk.carol.ok('GET', '/grants', scope=SCOPE, name=run)
    assert (grant['account'], grant['write'], grant['by']) == ('dave', True, 'carol')
    assert desk.admin.ok('GET', '/grants', scope=SCOPE, name=run) == [grant]
    assert desk.carol.ok('DELETE', '/grants', body) == {'removed': True}
    assert desk.carol.ok('DELETE', '/grants', body) == {'removed': False}
    assert desk.carol.ok('GET', '/grants', scope=SCOPE, name=run) == []


def test_what_is_shared_with_whom_has_an_attribute(desk: Desk, run: str) -> None:
    """The attribute is read when dave asks, not when carol shares; where it is need not be known."""
    attribute = f'experiment={run}'
    shared = {'scope': SCOPE, 'name': run, 'account': attribute, 'kind': 'attribute'}
    keys = {'scope': SCOPE, 'name': run, 'write': True}
    assert desk.carol('POST', '/grants', shared).error == 'InvalidObject'  # nobody has it
    desk.root.call('add_account_attribute', 'dave', 'experiment', run)
    desk.carol.ok('POST', '/grants', shared | {'write': True})
    assert desk.dave('POST', '/credentials', keys).status == 200
    mine = [each for each in desk.dave.ok('GET', '/usable', places='true')['shares'] if each['name'] in ('', run)]
    place = {'rse': RSE, 'bucket': SCOPE, 'key': run, 'url': f'{desk.storage.url}/{SCOPE}/{run}'}
    assert [(each['scope'], each['kind'], each['account'], each['write']) for each in mine] == [
        (OTHER_SCOPE, 'own', 'dave', True),
        (SCOPE, 'attribute', attribute, True),
    ]
    assert mine[1]['places'] == [place]
    theirs = [each for each in desk.carol.ok('GET', '/shared')['shares'] if each['name'] == run]
    assert theirs == [mine[1] | {'places': []}]

    desk.root.call('delete_account_attribute', 'dave', 'experiment')
    assert desk.dave('POST', '/credentials', keys).status == 403
    assert run not in [each['name'] for each in desk.dave.ok('GET', '/usable')['shares']]
    assert desk.carol.ok('DELETE', '/grants', shared) == {'removed': True}
    assert desk.carol.ok('DELETE', '/grants', shared) == {'removed': False}


def test_what_is_shared_with_all_accounts_is_not_public(desk: Desk, run: str) -> None:
    desk.add_file(f'{run}/file')
    shared = {'scope': SCOPE, 'name': run, 'account': '*', 'kind': 'everybody'}
    desk.carol.ok('POST', '/grants', shared)
    assert desk.dave('POST', '/credentials', {'scope': SCOPE, 'name': run}).status == 200
    assert desk.dave('POST', '/credentials', {'scope': SCOPE, 'name': run, 'write': True}).status == 403
    assert anonymous(f'{desk.storage.url}/{SCOPE}/{run}/file') == 403
    assert desk.carol.ok('GET', '/policy', scope=SCOPE)['policy'] is None
    desk.carol.ok('DELETE', '/grants', shared)
    assert desk.dave('POST', '/credentials', {'scope': SCOPE, 'name': run}).status == 403


def test_a_grant_with_an_end(desk: Desk, run: str) -> None:
    """No keys outlive it: in its last minutes the server signs, and then nothing."""
    shared, keys = {'scope': SCOPE, 'name': run, 'account': 'dave'}, {'scope': SCOPE, 'name': run}
    request = {'rse': RSE, 'requests': [{'method': 'GET', 'uri': f'{desk.storage.url}/{SCOPE}/{run}/file', 'headers': {}}]}
    now = datetime.now(timezone.utc)
    soon, later, past = (to_text(now + timedelta(minutes=minutes)) for minutes in (10, 25, -1))

    assert desk.carol.ok('POST', '/grants', shared | {'until': later}) == {'account': 'dave', 'write': False, 'until': later, 'changed': True, 'own_keys': []}
    assert desk.carol.ok('GET', '/grants', scope=SCOPE, name=run)[0]['until'] == later
    for asked in (keys, {'rse': RSE, 'bucket': SCOPE, 'prefix': f'{run}/file'}):
        assert now < from_text(desk.dave.ok('POST', '/credentials', asked)['expiration']) <= from_text(later)

    desk.carol.ok('POST', '/grants', shared | {'until': soon})
    for asked in (keys, {'rse': RSE, 'bucket': SCOPE, 'prefix': f'{run}/file'}):
        answer = desk.dave('POST', '/credentials', asked)
        assert (answer.status, soon in answer.message) == (501, True)
    assert desk.dave('POST', '/sign', request).status == 200

    for until, error in ((past, 'InvalidObject'), ('2090-02-30T00:00:00Z', 'InputValidationError'), ('2090', 'InputValidationError')):
        assert desk.carol('POST', '/grants', shared | {'until': until}).error == error
    desk.server.rows("UPDATE s3_grants SET expired_at = '2020-01-02 03:04:05' WHERE name = :name", name=run)
    assert desk.dave('POST', '/sign', request).status == 403
    assert desk.dave('POST', '/credentials', keys).status == 403
    assert run not in [each['name'] for each in desk.dave.ok('GET', '/usable')['shares']]
    assert [each['ended'] for each in desk.carol.ok('GET', '/shared')['shares'] if each['name'] == run] == [True]


def test_grants_that_cannot_be(desk: Desk, run: str) -> None:
    desk.add_file(f'{run}/file')
    for body, status, error in (
        ({'name': run, 'account': 'nobody-of-that-name'}, 404, 'AccountNotFound'),
        ({'name': f'{run}-not-there', 'account': 'dave'}, 404, 'DataIdentifierNotFound'),
        ({'name': f'{run}/file', 'account': 'dave'}, 409, 'UnsupportedOperation'),
        ({'name': run, 'account': '*', 'write': True}, 400, 'InvalidObject'),
        ({'name': '', 'account': 'dave'}, 400, 'InputValidationError'),
    ):
        answer = desk.carol('POST', '/grants', {'scope': SCOPE, **body})
        assert (answer.status, answer.error) == (status, error), body


def anonymous(url: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_everybody(desk: Desk, run: str) -> None:
    desk.add_file(f'{run}/file')
    reader = {'AWS': ['arn:aws:iam:::user/reader']}
    other = {'Sid': 'Own', 'Effect': 'Allow', 'Principal': reader, 'Action': ['s3:GetObject'], 'Resource': [f'arn:aws:s3:::{SCOPE}/open/*']}
    desk.carol.ok('PUT', '/policy', {'scope': SCOPE, 'policy': {'Version': '2012-10-17', 'Statement': [other]}})
    url = f'{desk.storage.url}/{SCOPE}/{run}/file'
    assert anonymous(url) == 403
    for _ in range(2):
        desk.carol.ok('POST', '/grants', {'scope': SCOPE, 'name': run, 'account': '*'})
        assert len(desk.carol.ok('GET', '/policy', scope=SCOPE)['policy']['Statement']) == 2
    assert anonymous(url) == 200
    assert desk.dave('POST', '/credentials', {'scope': SCOPE, 'name': run}).status == 200
    assert desk.dave('POST', '/credentials', {'scope': SCOPE, 'name': run, 'write': True}).status == 403
    desk.carol.ok('DELETE', '/grants', {'scope': SCOPE, 'name': run, 'account': '*'})
    assert anonymous(url) == 403
    assert [each['Sid'] for each in desk.carol.ok('GET', '/policy', scope=SCOPE)['policy']['Statement']] == ['Own']
    assert desk.carol.ok('DELETE', '/policy', {'scope': SCOPE})['policy'] is None
    assert desk.carol.ok('GET', '/policy', scope=SCOPE) == {'rse': RSE, 'bucket': SCOPE, 'policy': None, 'warnings': []}


def test_what_is_public_can_be_taken_back_wherever_it_is(desk: Desk, run: str) -> None:
    desk.s3.put_object(Bucket=SCOPE, Key=f'{run}/file', Body=b'')
    desk.carol.ok('POST', '/grants', {'scope': SCOPE, 'name': run, 'account': '*'})
    assert anonymous(f'{desk.storage.url}/{SCOPE}/{run}/file') == 200
    # The catalogue forgets where it was: for a new file the other RSE would be the place, and has no such bucket.
    for rule in desk.root.call('list_did_rules', SCOPE, run):
        desk.root.call('update_replication_rule', rule['id'], {'lifetime': 0})
    desk.server.run('rucio-judge-cleaner', '--run-once')
    desk.root.call('set_local_account_limit', 'carol', OTHER, 10**12)
    desk.root.call('delete_local_account_limit', 'carol', RSE)
    try:
        assert [each['rse'] for each in desk.carol.ok('GET', '/locate', scope=SCOPE, name=run)] == [OTHER]
        assert desk.carol.ok('DELETE', '/grants', {'scope': SCOPE, 'name': run, 'account': '*'}) == {'removed': True}
        assert anonymous(f'{desk.storage.url}/{SCOPE}/{run}/file') == 403
    finally:
        desk.root.call('set_local_account_limit', 'carol', RSE, 10**12)
        desk.root.call('delete_local_account_limit', 'carol', OTHER)


def test_a_policy_that_the_storage_refuses(desk: Desk, run: str) -> None:
    answer = desk.carol('PUT', '/policy', {'scope': SCOPE, 'policy': {'Statement': 'none'}})
    assert (answer.status, answer.error) == (400, 'InvalidObject')


# Removing


def test_remove_refuses_what_is_not_empty(desk: Desk, run: str) -> None:
    body = {'scope': SCOPE, 'name': run}
    desk.s3.put_object(Bucket=SCOPE, Key=f'{run}/by another client', Body=b'x')
    answer = desk.carol('DELETE', '/buckets', body)
    assert (answer.status, answer.error) == (409, 'UnsupportedOperation')
    assert 'by another client' in answer.message
    desk.s3.delete_object(Bucket=SCOPE, Key=f'{run}/by another client')
    desk.add_file(f'{run}/file', collection=run)
    assert desk.carol('DELETE', '/buckets', body).status == 409
    assert desk.carol('DELETE', '/buckets', {'scope': SCOPE}).status == 409
    assert len(desk.root.call('list_did_rules', SCOPE, run)) == 1
    assert desk.keys(f'{run}/') == [f'{run}/file']


@pytest.mark.parametrize('force', [False, True])
def test_what_the_catalogue_does_not_know_keeps_the_bucket(desk: Desk, run: str, force: bool) -> None:
    """SeaweedFS removes buckets with all that is in them."""
    desk.s3.put_object(Bucket=SCOPE, Key=f'of another client {run}', Body=b'x')
    assert desk.carol.ok('DELETE', '/buckets', {'scope': SCOPE, 'name': run, 'force': force})['removed']['bucket'] is False
    assert desk.keys('of another') == [f'of another client {run}']
    desk.s3.delete_object(Bucket=SCOPE, Key=f'of another client {run}')


def test_upper_and_lower_case_are_two_collections(desk: Desk, run: str) -> None:
    desk.add_file(f'{run}/file', f'{run.upper()}/file')
    desk.carol.ok('DELETE', '/buckets', {'scope': SCOPE, 'name': run, 'force': True})
    assert desk.replicas(f'{run}/file') == []
    assert desk.replicas(f'{run.upper()}/file') == [RSE]
    desk.carol.ok('DELETE', '/buckets', {'scope': SCOPE, 'name': run.upper(), 'rse': RSE, 'force': True})


@pytest.mark.parametrize('prefix', ['Ω/file', 'é/file'])
def test_a_refusal_of_any_name_arrives(desk: Desk, prefix: str) -> None:
    answer = desk.dave('POST', '/credentials', {'rse': RSE, 'bucket': SCOPE, 'prefix': prefix})
    assert (answer.status, answer.error) == (403, 'AccessDenied')
    assert prefix in answer.message


def test_remove_with_force_leaves_a_true_catalogue(desk: Desk, run: str) -> None:
    desk.carol.ok('POST', '/buckets', {'scope': SCOPE, 'name': f'{run}-other'})
    desk.carol.ok('POST', '/grants', {'scope': SCOPE, 'name': f'{run}-other', 'account': 'dave'})
    desk.carol.ok('POST', '/grants', {'scope': SCOPE, 'name': run, 'account': 'dave'})
    desk.add_file(*(f'{run}/{number}' for number in range(3)), collection=run)
    desk.s3.put_object(Bucket=SCOPE, Key=f'{run}/by another client', Body=b'x')
    desk.add_file(f'{run}-other/file', collection=f'{run}-other')

    answer = desk.carol.ok('DELETE', '/buckets', {'scope': SCOPE, 'name': run, 'force': True})

    assert answer['finished']
    assert answer['removed'] == {'rules': 1, 'objects': 4, 'replicas': 3, 'datasets': 1, 'bucket': False}
    assert desk.keys(f'{run}/') == []
    assert desk.replicas(f'{run}/0') == []
    assert desk.replicas(f'{run}-other/file') == [RSE]
    # Rucio's own daemon takes the dataset, and nobody else's grants.
    done = desk.server.run('rucio-undertaker', '--run-once')
    assert done.returncode == 0, done.stderr
    names = desk.root.call('list_dids', SCOPE, [{}], did_type='all')
    assert run not in names
    assert f'{run}-other' in names
    assert desk.carol.ok('GET', '/grants', scope=SCOPE, name=run) == []
    assert [each['account'] for each in desk.carol.ok('GET', '/grants', scope=SCOPE, name=f'{run}-other')] == ['dave']
    desk.carol.ok('DELETE', '/buckets', {'scope': SCOPE, 'name': f'{run}-other', 'force': True})


def test_a_second_run_repairs_the_first(desk: Desk, run: str) -> None:
    """As if the first had died when the objects were deleted and the replicas were not."""
    desk.add_file(f'{run}/file', collection=run)
    desk.s3.delete_object(Bucket=SCOPE, Key=f'{run}/file')
    removed = desk.carol.ok('DELETE', '/buckets', {'scope': SCOPE, 'name': run, 'rse': RSE, 'force': True})['removed']
    assert (removed['objects'], removed['replicas'], removed['datasets']) == (0, 1, 1)
    assert desk.replicas(f'{run}/file') == []


def test_a_removed_collection_can_be_made_again(desk: Desk, run: str) -> None:
    desk.carol.ok('DELETE', '/buckets', {'scope': SCOPE, 'name': run})
    made = desk.carol.ok('POST', '/buckets', {'scope': SCOPE, 'name': run})['made']
    assert (made['dataset'], made['rule']) == (False, True)
    desk.server.run('rucio-undertaker', '--run-once')
    assert desk.root.call('get_did', SCOPE, run)['expired_at'] is None


def test_what_others_protect_stays(desk: Desk, run: str) -> None:
    desk.add_file(f'{run}/file', collection=run)
    (rule,) = desk.root.call('add_replication_rule', [{'scope': SCOPE, 'name': f'{run}/file'}], 1, RSE)

    answer = desk.carol('DELETE', '/buckets', {'scope': SCOPE, 'name': run, 'force': True})

    assert (answer.status, answer.error) == (409, 'UnsupportedOperation')
    assert f'{SCOPE}:{run}/file' in answer.message
    assert rule in answer.message
    assert 'root' in answer.message
    assert desk.keys(f'{run}/') == [f'{run}/file']
    assert len(desk.root.call('list_did_rules', SCOPE, run)) == 1
    desk.root.call('update_replication_rule', rule, {'lifetime': 0})
    desk.server.run('rucio-judge-cleaner', '--run-once')
    assert desk.carol.ok('DELETE', '/buckets', {'scope': SCOPE, 'name': run, 'force': True})['removed']['replicas'] == 1


def test_remove_the_whole_bucket(desk: Desk, run: str) -> None:
    desk.add_file(f'{run}/file')
    for expected in (True, False):
        assert desk.carol.ok('DELETE', '/buckets', {'scope': SCOPE, 'rse': RSE, 'force': True})['removed']['bucket'] == expected
    assert SCOPE not in [each['Name'] for each in desk.s3.list_buckets()['Buckets']]
    assert desk.replicas(f'{run}/file') == []


def test_unfinished_uploads_end(desk: Desk, run: str) -> None:
    desk.s3.create_multipart_upload(Bucket=SCOPE, Key=f'{run}/half')
    desk.carol.ok('DELETE', '/buckets', {'scope': SCOPE, 'name': run, 'force': True})
    buckets = [each['Name'] for each in desk.s3.list_buckets()['Buckets']]
    assert SCOPE not in buckets or not desk.s3.list_multipart_uploads(Bucket=SCOPE).get('Uploads')


# The catalogue follows a bucket


def test_sync_settings_and_changes(desk: Desk, run: str) -> None:
    """tests/integration/test_reconcile.py has what becomes of it."""
    desk.carol.ok('POST', '/buckets', {'scope': SCOPE, 'rse': RSE})
    start = desk.carol.ok('GET', '/changes', scope=SCOPE, name=run, rse=RSE)
    assert (start['rse'], start['changes'], start['more']) == (RSE, [], False)
    desk.s3.put_object(Bucket=SCOPE, Key=f'{run}/file', Body=b'12345')
    done = desk.carol.ok('POST', '/reconcile', {'scope': SCOPE, 'name': run})
    assert {key: done[key] for key in ('rse', 'bucket', 'scope', 'name', 'after', 'problems')} == {
        'rse': RSE,
        'bucket': SCOPE,
        'scope': SCOPE,
        'name': run,
        'after': None,
        'problems': [],
    }
    assert (done['counts']['listed'], done['counts']['registered'], done['counts']['bytes']) == (1, 1, 5)
    (change,) = desk.carol.ok('GET', '/changes', scope=SCOPE, name=run, since=start['now'])['changes']
    assert {**change, 'time': ''} == {'time': '', 'change': 'registered', 'scope': SCOPE, 'name': f'{run}/file', 'bytes': 5}
    assert change['time'] >= start['now']

    # Behind the last key there is nothing to do, and nothing is missing.
    desk.s3.delete_object(Bucket=SCOPE, Key=f'{run}/file')
    assert desk.carol.ok('POST', '/reconcile', {'scope': SCOPE, 'name': run, 'after': f'{run}/z'})['counts']['missing'] == 0
    (problem,) = desk.carol.ok('POST', '/reconcile', {'scope': SCOPE, 'name': run})['problems']
    assert (problem['kind'], problem['did'], problem['key']) == ('missing', f'{SCOPE}:{run}/file', f'{run}/file')

    settings = {'rse': RSE, 'bucket': SCOPE, 'scope': SCOPE}
    assert desk.carol.ok('PUT', '/settings', {'scope': SCOPE, 'rse': RSE, 'on_missing': 'forget'}) == settings | {
        'on_changed': 'report',
        'on_missing': 'forget',
        'own': ['on_missing'],
    }
    assert desk.carol.ok('POST', '/reconcile', {'scope': SCOPE, 'name': run})['counts']['forgotten'] == 1
    desk.carol.ok('PUT', '/settings', {'scope': SCOPE, 'rse': RSE, 'on_missing': 'default'})
    assert desk.carol.ok('GET', '/settings', scope=SCOPE, rse=RSE) == settings | {'on_changed': 'report', 'on_missing': 'report', 'own': []}


def test_reconciling_is_for_those_who_own_the_scope(desk: Desk, run: str) -> None:
    for scope, refusal in ((SCOPE, (403, 'AccessDenied')), ('user.nobody', (404, 'ScopeNotFound'))):
        answers = [
            desk.dave('POST', '/reconcile', {'scope': scope, 'name': run}),
            desk.dave('GET', '/changes', scope=scope, name=run),
            desk.dave('GET', '/settings', scope=scope),
            desk.dave('PUT', '/settings', {'scope': scope, 'on_missing': 'forget'}),
        ]
        assert {(answer.status, answer.error) for answer in answers} == {refusal}
        assert len({answer.message for answer in answers}) == 1


def test_sync_of_what_is_not_there(desk: Desk, run: str) -> None:
    assert desk.carol('POST', '/reconcile', {'scope': SCOPE, 'rse': 'NOWHERE'}).error == 'RSENotFound'
    assert desk.carol('GET', '/changes', scope=SCOPE, since='yesterday').status == 400
    missing = desk.admin('POST', '/reconcile', {'scope': 'nobody', 'rse': RSE})
    assert missing.status == 404, missing


# Bounds


@pytest.mark.parametrize(
    ('method', 'path', 'body'),
    [
        ('POST', '/buckets', []),
        ('POST', '/buckets', {}),
        ('POST', '/buckets', {'scope': ''}),
        ('POST', '/buckets', {'scope': 5}),
        ('POST', '/buckets', {'scope': 'user carol'}),
        ('POST', '/buckets', {'scope': 'x' * 26}),
        ('POST', '/buckets', {'scope': SCOPE, 'name': ['a']}),
        ('POST', '/buckets', {'scope': SCOPE, 'name': 'a' * 251}),
        ('POST', '/buckets', {'scope': SCOPE, 'name': 'a?b'}),
        ('POST', '/buckets', {'scope': SCOPE, 'name': 'a\r\nb'}),
        ('DELETE', '/buckets', {'scope': SCOPE, 'force': 'yes'}),
        ('POST', '/credentials', {}),
        ('POST', '/credentials', {'rse': RSE}),
        ('POST', '/credentials', {'rse': RSE, 'bucket': 'b' * 64}),
        ('POST', '/credentials', {'rse': RSE, 'bucket': SCOPE, 'prefix': 'k' * 1025}),
        ('POST', '/credentials', {'rse': RSE, 'bucket': SCOPE, 'write': 1}),
        ('POST', '/credentials', {'rse': RSE, 'bucket': SCOPE, 'lifetime': -1}),
        ('POST', '/credentials', {'rse': RSE, 'bucket': SCOPE, 'lifetime': True}),
        ('POST', '/sign', {'rse': RSE, 'requests': {}}),
        ('POST', '/sign', {'rse': RSE, 'requests': []}),
        ('POST', '/sign', {'rse': RSE, 'requests': [{}] * 101}),
        ('POST', '/sign', {'rse': RSE, 'requests': [None]}),
        ('POST', '/reconcile', {}),
        ('POST', '/reconcile', {'scope': SCOPE, 'dry_run': 'yes'}),
        ('POST', '/reconcile', {'scope': SCOPE, 'on_changed': 'forget'}),
        ('POST', '/reconcile', {'scope': SCOPE, 'on_missing': 5}),
        ('POST', '/reconcile', {'scope': SCOPE, 'after': 5}),
        ('POST', '/reconcile', {'scope': SCOPE, 'after': 'k' * 1025}),
        ('POST', '/reconcile', {'scope': SCOPE, 'after': '\ud800'}),
        ('PUT', '/settings', {'scope': SCOPE, 'on_missing': 'vanish'}),
        ('PUT', '/settings', {'on_missing': 'forget'}),
        ('PUT', '/policy', {'scope': SCOPE}),
        ('PUT', '/policy', {'scope': SCOPE, 'policy': 'text'}),
        ('PUT', '/policy', {'scope': SCOPE, 'policy': {'Version': 'x' * 30000}}),
    ],
)
def test_what_is_no_request_is_refused(desk: Desk, method: str, path: str, body: Any) -> None:
    if path == '/policy':  # which is compared with the one that the bucket has
        desk.carol.ok('POST', '/buckets', {'scope': SCOPE})
    answer = desk.carol(method, path, body)
    assert answer.status == 400, answer
    assert answer.error in ('InputValidationError', 'InvalidObject')
    assert len(answer.message) < 500


def test_bodies_are_bounded(desk: Desk) -> None:
    assert desk.carol('POST', '/sign', announced=1024**2 + 1).status == 413
    assert desk.carol('POST', '/sign', raw=b'[' * 100_000).status == 400
    assert desk.carol('POST', '/sign', raw=b'\xff').status == 400
    assert desk.carol('POST', '/sign', raw=b'').status == 400
