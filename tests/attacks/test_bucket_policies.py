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

"""Attacks by the policy of one's own bucket: to lock out the Rucio server, to stop deletion on a whole RSE, to let in the world.

Every other spelling of what is refused here is in tests/unit/test_bucket_policies.py.
"""

import json
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from servers.ceph import CephRGW
from servers.cli import RucioCli, add_s3_rse, add_user
from servers.rest import Rest
from servers.seaweedfs import SeaweedFS

BOB = 'arn:aws:iam:::user/bob'


@dataclass
class Ground:
    """Mallory owns a scope with a bucket on an RSE, and is no admin."""

    root: RucioCli
    mallory: Rest
    admin: Rest
    rse: str
    storage: Any
    scope: str = ''

    def set(self, statement: dict[str, Any], *, by: Rest | None = None, scope: str = '') -> int:
        statement = {'Effect': 'Allow', 'Principal': {'AWS': [BOB]}, 'Action': ['s3:GetObject'], 'Resource': [f'arn:aws:s3:::{self.scope}/*']} | statement
        policy = {'Version': '2012-10-17', 'Statement': [statement]}
        return (by or self.mallory)('PUT', '/policy', {'scope': scope or self.scope, 'rse': self.rse, 'policy': policy}).status

    def set_beside_rucio(self, *statements: dict[str, Any], bucket: str) -> None:
        """With the storage's own tools, or before Rucio looked at policies."""
        policy = {'Version': '2012-10-17', 'Statement': list(statements)}
        self.storage.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy, separators=(',', ':')))

    def new_bucket(self, account: str = '') -> str:
        scope = f't{uuid4().hex[:12]}'
        self.root.call('add_scope', account or self.mallory.user.account, scope)
        self.admin.ok('POST', '/buckets', {'scope': scope, 'rse': self.rse})
        return scope


def denial(bucket: str, *actions: str) -> dict[str, Any]:
    return {
        'Effect': 'Deny',
        'Principal': {'AWS': ['*']},
        'Action': list(actions or ('s3:*',)),
        'Resource': [f'arn:aws:s3:::{bucket}', f'arn:aws:s3:::{bucket}/*'],
    }


@pytest.fixture(scope='module', params=['seaweedfs', 'ceph'])
def ground(request: pytest.FixtureRequest, team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    storage: SeaweedFS | CephRGW = request.getfixturevalue('sts' if request.param == 'seaweedfs' else 'ceph')
    rse, account = f'POLICIES_{request.param.upper()}', f'mallory{request.param[0]}'
    settings = {'provider': request.param, 'role_arn': storage.role_arn}
    rse_id = add_s3_rse(team_root, rse, storage, attributes={'tombstone_delay': '-1'}, settings=settings)
    team_root.server.set_rse_keys(rse_id, storage.access_key, storage.secret_key)
    mallory = add_user(team_root, tmp_path_factory.mktemp(account), account, attributes=(), rses=[rse])
    made = Ground(team_root, Rest(mallory), Rest(team_root), rse, storage)
    made.scope = made.new_bucket()
    return made


def test_denying_everybody(ground: Ground) -> None:
    """Mallory denies everybody everything in her own bucket. Got before: also the server and its reaper are locked out, for ever."""
    assert ground.set(denial(ground.scope)) == 400
    assert ground.set(denial(ground.scope, 's3:DeleteObject')) == 400
    assert ground.set({'Effect': 'Deny', 'NotPrincipal': {'AWS': [BOB]}, 'Principal': None}) == 400
    ground.storage.client().list_objects_v2(Bucket=ground.scope)


def test_an_admins_mistake(ground: Ground) -> None:
    """An admin copies a Deny for everybody from a web page. Got before: nobody could take it back."""
    assert ground.set(denial(ground.scope), by=ground.admin) == 400
    assert ground.set({'Effect': 'Deny'}, by=ground.admin) == 200
    assert ground.mallory('DELETE', '/policy', {'scope': ground.scope, 'rse': ground.rse}).status == 403
    assert ground.set({}) == 403  # it would get lost
    ground.admin.ok('DELETE', '/policy', {'scope': ground.scope, 'rse': ground.rse})


def test_letting_in_the_world(ground: Ground) -> None:
    """Mallory lets everybody write, also those without an account. Got before: an anonymous file store in the site's name."""
    for changed in ({'Principal': '*'}, {'Principal': {'AWS': ['*']}}, {'Action': ['s3:*']}, {'Action': ['s3:PutObject']}):
        assert ground.set(changed) == 400
    body = urllib.request.Request(f'{ground.storage.url}/{ground.scope}/dropped', data=b'x', method='PUT')
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(body, timeout=30)
    assert refused.value.code == 403


def test_letting_the_servers_role_in(ground: Ground) -> None:
    """Mallory names the role of all vended keys. Got before: on storages that do not intersect, any vended key reads her bucket."""
    assert ground.set({'Principal': {'AWS': [ground.storage.role_arn]}}) == 400
    assert ground.set({'Principal': {'AWS': ['arn:aws:iam:::user/rucio', 'arn:aws:iam:::user/admin']}}) == 400


def test_other_buckets(ground: Ground) -> None:
    """Mallory sets a policy of somebody else's bucket, or one about it in hers."""
    other = ground.new_bucket('root')
    assert ground.set({}, scope=other) == 403
    assert ground.set({'Resource': [f'arn:aws:s3:::{other}/*']}) == 400


def test_a_bucket_that_all_scopes_share(ground: Ground) -> None:
    """The operator keeps all scopes in one bucket. Mallory, who owns one of them, sees or sets what holds for all."""
    provider = ground.storage.provider
    rse, bucket = f'COMMON_{provider.upper()}', f'common{uuid4().hex[:8]}'
    rse_id = add_s3_rse(ground.root, rse, ground.storage, prefix=f'/{bucket}', settings={'provider': provider})
    ground.root.server.set_rse_keys(rse_id, ground.storage.access_key, ground.storage.secret_key)
    ground.storage.client().create_bucket(Bucket=bucket)
    statement = {'Effect': 'Allow', 'Principal': {'AWS': [BOB]}, 'Action': ['s3:GetObject'], 'Resource': [f'arn:aws:s3:::{bucket}/*']}
    place = {'scope': ground.scope, 'rse': rse}
    policy = place | {'policy': {'Version': '2012-10-17', 'Statement': [statement]}}
    assert ground.mallory('PUT', '/policy', policy).status == 403
    assert ground.mallory('DELETE', '/policy', place).status == 403
    refused = ground.mallory('GET', '/policy', **place)
    assert (refused.status, 'only its operator' in refused.message) == (403, True)
    assert len(ground.admin.ok('PUT', '/policy', policy)['policy']['Statement']) == 1


def test_two_policies_in_one(ground: Ground) -> None:
    """Mallory gives a name twice in JSON, for one reader to see the one and another the other."""
    statement = f'"Effect":"Allow","Principal":{{"AWS":["{BOB}"]}},"Action":["s3:GetObject"],"Resource":["arn:aws:s3:::{ground.scope}/*"]'
    for first, status in (('', 200), ('"Effect":"Deny",', 400), ('"\\u0045ffect":"Deny",', 400)):
        raw = f'{{"scope":"{ground.scope}","rse":"{ground.rse}","policy":{{"Version":"2012-10-17","Statement":[{{{first}{statement}}}]}}}}'
        assert ground.mallory('PUT', '/policy', raw=raw.encode()).status == status


def test_what_is_allowed(ground: Ground) -> None:
    """It is still good for something: a reader of the storage's own, beside what is shared with everybody."""
    ground.storage.client().put_object(Bucket=ground.scope, Key='open/x', Body=b'x')
    ground.mallory.ok('POST', '/buckets', {'scope': ground.scope, 'name': 'open', 'rse': ground.rse})
    ground.mallory.ok('POST', '/grants', {'scope': ground.scope, 'name': 'open', 'account': '*'})
    assert ground.set({}) == 200
    found = ground.mallory.ok('GET', '/policy', scope=ground.scope, rse=ground.rse)
    assert len(found['policy']['Statement']) == 2
    assert found['warnings'] == []
    again = {'scope': ground.scope, 'rse': ground.rse, 'policy': found['policy']}
    assert len(ground.mallory.ok('PUT', '/policy', again)['policy']['Statement']) == 2
    left = ground.mallory.ok('DELETE', '/policy', {'scope': ground.scope, 'rse': ground.rse})['policy']
    assert len(left['Statement']) == 1
    assert urllib.request.urlopen(f'{ground.storage.url}/{ground.scope}/open/x', timeout=30).read() == b'x'


def test_two_changes_in_the_same_moment(ground: Ground) -> None:
    """Mallory sets the policy that she read before a collection was closed. Got before: it is public for ever, and Rucio says that it is not.

    Another one that was shared in that moment is not public. No storage sets a policy on condition: the reconciler puts it right.
    """
    scope = ground.new_bucket()
    shares = {name: {'scope': scope, 'name': name, 'account': '*'} for name in ('closed', 'opened')}
    for name, share in shares.items():
        ground.storage.client().put_object(Bucket=scope, Key=f'{name}/x', Body=b'x')
        ground.mallory.ok('POST', '/buckets', {'scope': scope, 'name': name, 'rse': ground.rse})
        if name == 'closed':
            ground.mallory.ok('POST', '/grants', share)
    (public,) = ground.mallory.ok('GET', '/policy', scope=scope, rse=ground.rse)['policy']['Statement']
    ground.mallory.ok('DELETE', '/grants', shares['closed'])
    ground.mallory.ok('POST', '/grants', shares['opened'])
    ground.set_beside_rucio(public, public | {'Sid': 'own', 'Principal': {'AWS': [BOB]}}, bucket=scope)
    assert [anonymous(ground, f'{scope}/{name}/x') for name in shares] == [200, 403]

    warned = ground.root.server.run_daemon('python', '-m', 'rucio.daemons.s3.reconciler', '--run-once', '--rses', ground.rse, '--scopes', scope)
    assert f"bucket '{scope}' let everybody read 'closed/', which is not shared: corrected" in warned
    assert f"bucket '{scope}' did not let everybody read 'opened/'" in warned
    assert [anonymous(ground, f'{scope}/{name}/x') for name in shares] == [403, 200]
    assert 'own' in [each['Sid'] for each in ground.mallory.ok('GET', '/policy', scope=scope, rse=ground.rse)['policy']['Statement']]


def anonymous(ground: Ground, path: str) -> int:
    try:
        return int(urllib.request.urlopen(f'{ground.storage.url}/{path}', timeout=30).status)
    except urllib.error.HTTPError as refused:
        return refused.code


def test_a_policy_that_was_there_before(ground: Ground) -> None:
    """Another tool denies deletion. It is told, and an admin can take it off, and remove the bucket in spite of it."""
    scope = ground.new_bucket()
    place = {'scope': scope, 'rse': ground.rse}
    ground.storage.client().put_object(Bucket=scope, Key='x', Body=b'x')
    ground.set_beside_rucio(denial(scope, 's3:DeleteObject', 's3:DeleteBucket'), bucket=scope)
    assert 'denies' in ground.mallory.ok('GET', '/policy', scope=scope, rse=ground.rse)['warnings'][0]
    assert 'denies' in ground.mallory.ok('POST', '/buckets', place)['warnings'][0]
    assert ground.mallory('DELETE', '/policy', place).status == 403
    assert ground.admin.ok('DELETE', '/policy', place)['policy'] is None
    ground.set_beside_rucio(denial(scope, 's3:DeleteObject', 's3:DeleteBucket'), bucket=scope)
    assert ground.admin.ok('DELETE', '/buckets', place | {'force': True})['removed']['bucket']


def test_a_policy_that_denies_all(ground: Ground) -> None:
    """Set beside Rucio: neither storage (but Ceph 20) lets its owner take it off. What its operator can do is said, and does it. Got before: 500."""
    scope = ground.new_bucket()
    place = {'scope': scope, 'rse': ground.rse}
    ground.set_beside_rucio(denial(scope), bucket=scope)
    if isinstance(ground.storage, CephRGW) and ground.storage.release >= 20:
        assert ground.admin.ok('DELETE', '/policy', place)['policy'] is None
        ground.admin.ok('DELETE', '/buckets', place)
        return
    for method, path, more in (('DELETE', '/policy', {}), ('PUT', '/policy', {'policy': {}}), ('DELETE', '/buckets', {'force': True})):
        for who in (ground.admin, ground.mallory):
            answer = who(method, path, place | more)
            assert answer.status == 409, answer
            assert 'denies the Rucio server' in answer.message
            assert ('--admin' if isinstance(ground.storage, CephRGW) else f's3.bucket.delete -name {scope}') in answer.message
    assert 'denies the Rucio server' in ground.admin('POST', '/buckets', place).message
    if isinstance(ground.storage, CephRGW):
        ground.storage.admin('user', 'modify', '--uid=rucio', '--admin')
        assert ground.admin.ok('DELETE', '/policy', place)['policy'] is None
        ground.storage.admin('user', 'modify', '--uid=rucio', '--admin=0')
    else:
        ground.storage.shell('lock', f's3.bucket.delete -name {scope}')
    ground.admin('DELETE', '/buckets', place)
    assert scope not in [each['Name'] for each in ground.storage.client().list_buckets()['Buckets']]


@pytest.mark.slow
def test_the_reaper_and_a_bucket_that_refuses(ground: Ground) -> None:
    """Many replicas in a bucket that denies all, with a rule that ends. Got before: the reaper excluded the RSE for everybody.

    That keys which are wrong are still the RSE's matter: tests/integration/test_reaper.py.
    """
    closed, other = ground.new_bucket(), ground.new_bucket('root')
    names = [f'f{number}' for number in range(3)]
    for scope in (closed, other):
        for name in names:
            ground.storage.client().put_object(Bucket=scope, Key=name, Body=b'x')
        files = [{'scope': scope, 'name': name, 'bytes': 1, 'adler32': '00790079'} for name in names]
        ground.root.call('add_replicas', ground.rse, files)
    ground.set_beside_rucio(denial(closed), bucket=closed)
    done = reap(ground)
    assert 'temporarily excluded' not in done.stdout + done.stderr
    left = ground.storage.client().list_objects_v2(Bucket=other).get('Contents', [])
    assert left == []
    kept = list(ground.root.call('list_replicas', [{'scope': closed, 'name': name} for name in names], all_states=True))
    assert len(kept) == len(names)  # the catalogue keeps what was not deleted


def reap(ground: Ground, *options: str) -> 'subprocess.CompletedProcess[str]':
    done = ground.root.server.run(
        'rucio-reaper', '--run-once', '--greedy', '--rses', ground.rse, '--delay-seconds', '0', *(options or ('--auto-exclude-threshold', '2'))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
