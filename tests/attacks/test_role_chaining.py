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

"""Who was vended keys for reading one folder wants to have everything.

The roles of the servers here are those of docs/operators.md, word for word, and beside each one whose trust policy lets its own keys in.
"""

from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from servers.built import MinIO
from servers.ceph import CephRGW
from servers.cli import RucioCli, RucioError, add_s3_rse, add_user
from servers.seaweedfs import SeaweedFS
from servers.team import ok, refused, s3_call

from .keys import Keys, Storage, filled, got, public


@dataclass
class Place:
    storage: Storage
    bucket: str
    other: str  # somebody else's bucket

    @property
    def other_roles(self) -> list[str]:
        name = self.storage.role_arn.rpartition('/')
        return [getattr(self.storage, 'web_identity_role_arn', f'{name[0]}/Another'), f'{name[0]}/{name[2]}2']


@pytest.fixture(scope='module', params=['sts', 'ceph', pytest.param('minio', marks=pytest.mark.long)])
def place(request: pytest.FixtureRequest) -> Place:
    storage = request.getfixturevalue(request.param)
    return Place(storage, filled(storage, f'chain-{request.param}'), filled(storage, f'chain-other-{request.param}'))


@pytest.fixture(scope='module', params=['reading', 'writing'])
def keys(request: pytest.FixtureRequest, place: Place) -> Keys:
    made = Keys(place.storage, place.bucket, 'shared/', write=request.param == 'writing')
    assert made.s3.get_object(Bucket=place.bucket, Key='shared/file')['Body'].read()
    return made


@pytest.fixture
def chainable(place: Place) -> str:
    """A role that trusts its own keys."""
    if not place.storage.chainable_role_arn:
        pytest.skip('MinIO has no roles')
    return place.storage.chainable_role_arn


# Becoming somebody else


def test_the_attack_works_where_a_role_trusts_its_own_keys(place: Place, chainable: str) -> None:
    """AssumeRole of the own role without a policy: keys for all buckets, for 12 hours, from a read-only grant of one folder."""
    keys = Keys(place.storage, place.bucket, 'shared/', role=chainable)
    assert not got(keys.s3.get_object, Bucket=place.other, Key='private/secret')
    s3 = keys.take(chainable)
    assert s3.get_object(Bucket=place.other, Key='private/secret')['Body'].read()
    assert got(s3.put_object, Bucket=place.other, Key='planted', Body=b'x')


@pytest.mark.parametrize('seconds', [900, 3600, 43200])
def test_the_own_role_again(keys: Keys, seconds: int) -> None:
    """The same with the role that operators are told to make."""
    with pytest.raises(ClientError) as refusal:
        keys.take(keys.role, seconds)
    assert refusal.value.response['ResponseMetadata']['HTTPStatusCode'] == 403


def test_the_own_role_again_under_the_servers_name(keys: Keys) -> None:
    """A session that is called as the server's user, or as its session: a trust policy must not go by what the asker calls himself."""
    for name in ('rucio', 'admin', 'rucio-mallory'):
        assert not got(keys.sts.assume_role, RoleArn=keys.role, RoleSessionName=name, DurationSeconds=900)


def test_the_own_role_from_keys_of_another_role(place: Place, chainable: str) -> None:
    """Keys of another role that the server may assume. On Ceph, who has these is also the user who assumed it: the Deny has to name each role."""
    keys = Keys(place.storage, place.bucket, 'shared/', role=chainable)
    taken = got(keys.sts.assume_role, RoleArn=place.storage.role_arn, RoleSessionName='mallory', DurationSeconds=900)
    # The documented policy names the one role that there is: with a second one the server finds this, see below.
    assert taken is isinstance(place.storage, CephRGW)


def test_other_roles(keys: Keys, place: Place) -> None:
    """The role for OIDC tokens, and one that may be there."""
    for role in place.other_roles:
        assert not got(keys.sts.assume_role, RoleArn=role, RoleSessionName='mallory', DurationSeconds=900)


def test_no_role_at_all(keys: Keys) -> None:
    """Some storages take AssumeRole without a role for a session of oneself, which would have no policy."""
    for more in ({}, {'RoleArn': ''}, {'RoleArn': 'arn:aws:iam::000000000000:user/rucio'}, {'RoleArn': 'arn:aws:iam:::user/rucio'}):
        assert keys.ask('sts', Action='AssumeRole', RoleSessionName='mallory', **more)[0] in (400, 403, 404)


@pytest.mark.parametrize('action', ['GetFederationToken', 'GetSessionToken', 'AssumeRoleWithSAML', 'AssumeRoleWithLDAPIdentity', 'AssumeRoleWithCertificate'])
def test_other_calls_for_keys(keys: Keys, action: str) -> None:
    """Each makes keys without the policy of those that ask."""
    more = {'Name': 'mallory', 'RoleArn': keys.role, 'RoleSessionName': 'mallory', 'DurationSeconds': '900', 'LDAPUsername': 'rucio', 'LDAPPassword': 'x'}
    status, body = keys.ask('sts', Action=action, **more)
    assert status >= 400
    assert 'SecretAccessKey' not in body


def test_a_token_of_ones_own(keys: Keys, place: Place) -> None:
    """AssumeRoleWithWebIdentity with a token that nobody signed, and with the session token, which is a signed JWT on SeaweedFS."""
    unsigned = 'eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL3J1Y2lvLmludmFsaWQiLCJzdWIiOiJydWNpbyIsImF1ZCI6InJ1Y2lvIn0.'
    for token in (unsigned, keys.credentials.token):
        for role in (keys.role, *place.other_roles):
            status, body = keys.ask('sts', Action='AssumeRoleWithWebIdentity', RoleArn=role, RoleSessionName='mallory', WebIdentityToken=token)
            assert status >= 400
            assert 'SecretAccessKey' not in body


def test_the_session_token_as_a_password(keys: Keys, place: Place) -> None:
    """The token without the policy that came with it."""
    for path in (f'/{place.bucket}/private/secret', f'/{place.other}/private/secret'):
        status, body = keys.send('GET', path, headers={'Authorization': f'Bearer {keys.credentials.token}'})
        assert status >= 400
        assert 'private/secret' not in body or '<Error>' in body


_IAM: list[dict[str, str]] = [
    {'Action': 'CreateAccessKey'},
    {'Action': 'CreateAccessKey', 'UserName': 'rucio'},
    {'Action': 'CreateUser', 'UserName': 'mallory'},
    {'Action': 'CreateServiceAccount', 'ParentUser': 'rucio'},
    {'Action': 'PutUserPolicy', 'UserName': 'rucio', 'PolicyName': 'x', 'PolicyDocument': public('b')},
    {'Action': 'PutRolePolicy', 'RoleName': 'RucioVending', 'PolicyName': 'x', 'PolicyDocument': public('b')},
    {'Action': 'AttachRolePolicy', 'RoleName': 'RucioVending', 'PolicyArn': 'arn:aws:iam::aws:policy/AdministratorAccess'},
    {'Action': 'CreateRole', 'RoleName': 'mallory', 'AssumeRolePolicyDocument': public('b')},
    {'Action': 'DeleteRole', 'RoleName': 'RucioVending'},
    {'Action': 'CreateOpenIDConnectProvider', 'Url': 'http://127.0.0.1:9', 'ThumbprintList.member.1': 'a' * 40},
    {'Action': 'ListUsers'},
    {'Action': 'GetRole', 'RoleName': 'RucioVending'},
]


@pytest.mark.parametrize('call', _IAM, ids=lambda call: call['Action'] + '-' + call.get('UserName', ''))
def test_identities_and_roles(keys: Keys, call: dict[str, str]) -> None:
    """A user, a key, a role or an issuer of one's own would outlive the keys. (UpdateAssumeRolePolicy makes Ceph 16 crash for its admin; these keys are refused it.)"""
    assert keys.ask('iam', **call)[0] in (400, 403, 404, 405)


@pytest.mark.long
def test_an_access_key_of_minio(minio: MinIO) -> None:
    """Before October 2025 MinIO made vended keys an access key for all buckets and without an end (CVE-2025-62506): see `minio_release`."""
    bucket = filled(minio, 'svcacct')
    vended = Keys(minio, bucket, 'shared/', write=True).credentials
    for words in (['user', 'svcacct', 'add', 'site', vended.access_key], ['user', 'svcacct', 'add', 'site', 'rucio'], ['accesskey', 'create', 'site']):
        done = minio.mc('admin', *words, keys=f'{vended.access_key}:{vended.secret_key}:{vended.token}')
        assert (done.returncode, 'Access Denied' in done.stderr) == (1, True), done
        assert minio.mc('admin', *words[:-1], words[-1].replace(vended.access_key, 'rucio'), keys=f'{minio.access_key}:{minio.secret_key}').returncode == 0


# Doing more than they are for


def _operations(place: Place) -> list[tuple[str, dict[str, Any]]]:
    mine, other = {'Bucket': place.bucket}, {'Bucket': place.other}
    secret = {**mine, 'Key': 'private/secret'}
    everything = {'Rules': [{'ID': 'x', 'Status': 'Enabled', 'Filter': {'Prefix': ''}, 'Expiration': {'Days': 1}}]}
    return [
        ('get_object', secret),
        ('get_object', {**mine, 'Key': 'shared2/file'}),
        ('get_object', {**mine, 'Key': 'shared/../private/secret'}),
        ('get_object', {**other, 'Key': 'shared/file'}),
        ('get_object_acl', secret),
        ('get_object_tagging', secret),
        ('put_object', {**secret, 'Body': b'x'}),
        ('put_object_acl', {**secret, 'ACL': 'public-read'}),
        ('delete_object', {**mine, 'Key': 'private/another'}),
        ('delete_objects', {**mine, 'Delete': {'Objects': [{'Key': 'private/secret'}]}}),
        ('copy_object', {**mine, 'Key': 'shared/stolen', 'CopySource': {'Bucket': place.bucket, 'Key': 'private/secret'}}),
        ('copy_object', {**mine, 'Key': 'shared/stolen', 'CopySource': {'Bucket': place.other, 'Key': 'private/secret'}}),
        ('list_objects_v2', mine),
        ('list_objects_v2', {**mine, 'Prefix': 'shared'}),
        ('list_objects_v2', {**mine, 'Prefix': 'private/'}),
        ('list_objects', mine),
        ('list_objects_v2', {**other, 'Prefix': 'shared/'}),
        ('list_object_versions', mine),
        ('list_multipart_uploads', mine),
        ('get_bucket_policy', mine),
        ('put_bucket_policy', {**mine, 'Policy': public(place.bucket)}),
        ('delete_bucket_policy', mine),
        ('put_bucket_acl', {**mine, 'ACL': 'public-read-write'}),
        ('put_bucket_versioning', {**mine, 'VersioningConfiguration': {'Status': 'Suspended'}}),
        ('put_bucket_cors', {**mine, 'CORSConfiguration': {'CORSRules': [{'AllowedMethods': ['GET'], 'AllowedOrigins': ['*']}]}}),
        ('put_bucket_lifecycle_configuration', {**mine, 'LifecycleConfiguration': everything}),
        ('put_bucket_tagging', {**mine, 'Tagging': {'TagSet': [{'Key': 'a', 'Value': 'b'}]}}),
        ('delete_public_access_block', mine),
        ('create_bucket', {'Bucket': f'{place.bucket}-mallory'}),
        ('delete_bucket', other),
    ]


def test_what_a_grant_of_a_folder_does_not_give(keys: Keys, place: Place) -> None:
    """Reading, writing and listing beside the folder, and the bucket's own settings: a policy or an ACL would open it for everybody."""
    assert [(name, parameters) for name, parameters in _operations(place) if got(getattr(keys.s3, name), **parameters)] == []


def test_the_buckets_of_others(keys: Keys, place: Place) -> None:
    """ListBuckets tells who is there. MinIO answers with the bucket that the keys are for."""
    seen: list[str] = []
    with suppress(ClientError):  # refused
        seen = [each['Name'] for each in keys.s3.list_buckets()['Buckets']]
    assert seen == ([place.bucket] if isinstance(place.storage, MinIO) else [])


@pytest.mark.parametrize('prefix', ['*', '*/', '?hared/', 'shared*/', '${*}/', '${aws:username}/', '${$}/', 'shared/${*}'])
def test_a_name_that_a_policy_would_expand(place: Place, prefix: str) -> None:
    """Who may choose the name of a collection calls it `*`: the policy must not mean all of the bucket."""
    try:
        keys = Keys(place.storage, place.bucket, prefix)
    except ClientError:
        return  # Ceph takes no policy with some of these
    for key in ('private/secret', 'shared/file', 'shared2/file'):
        assert not got(keys.s3.get_object, Bucket=place.bucket, Key=key)
    assert not got(keys.s3.list_objects_v2, Bucket=place.bucket)
    assert not got(keys.s3.list_objects_v2, Bucket=place.bucket, Prefix='private/')


# What the server does about it


@dataclass
class Site:
    """An RSE whose role trusts its own keys, and an account with a scope there."""

    owner: RucioCli
    rse: str
    scope: str


@pytest.fixture(scope='module')
def site(team_root: RucioCli, sts: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> Site:
    name, rse = 'chained', 'CHAINED_S3'
    owner = add_user(team_root, tmp_path_factory.mktemp(name), name, scopes=[f'user.{name}'], attributes=())
    # By another name, as the server tries the roles of all RSEs with the same URL: those of other tests are on this storage, too.
    storage: Any = SimpleNamespace(scheme='http', hostname='localhost', port=sts.port, region=sts.region)
    rse_id = add_s3_rse(team_root, rse, storage, settings={'role_arn': sts.chainable_role_arn}, accounts=(name,))
    team_root.server.set_rse_keys(rse_id, sts.access_key, sts.secret_key)
    ok(owner.rucio('s3', 'make-bucket', f'user.{name}', '--rse', rse))
    return Site(owner, rse, f'user.{name}')


def test_the_server_vends_no_keys_that_can_become_more(site: Site) -> None:
    """Who asks for keys is told what the operator has to change."""
    said = refused(site.owner.rucio('s3', 'credentials', site.scope, '--rse', site.rse))
    assert 'RucioChainable' in said
    assert 'docs/operators.md' in said
    with pytest.raises(RucioError, match='could obtain more permissions'):
        s3_call(site.owner, 'get_s3_credentials', site.rse, site.scope)
    assert s3_call(site.owner, 'get_s3_rse', site.rse)['auth'] == ['remote']


def test_users_notice_nothing_as_the_server_signs(site: Site) -> None:
    """The stock commands work as they did."""
    (site.owner.directory / 'file').write_text('content')
    done = site.owner.rucio('upload', '--rse', site.rse, '--scope', site.scope, '--lfn', 'file', 'file')
    assert 'Successfully uploaded' in done.stdout + done.stderr
    ok(site.owner.rucio('download', '--dir', 'got', f'{site.scope}:file'))
    assert [each.read_text() for each in (site.owner.directory / 'got').rglob('file')] == ['content']


def test_check_shows_it(site: Site) -> None:
    told = refused(site.owner.rucio('s3', '--robot', 'check', site.rse))
    results = {line.split('\t')[0]: line.split('\t')[1:] for line in told.splitlines()}
    assert results['role chaining'][0] == 'FAILED'
    assert 'RucioChainable' in results['role chaining'][1]
    assert results['vended keys (STS)'][0] == 'skipped'
    assert results['remote signing'][0] == 'ok'
