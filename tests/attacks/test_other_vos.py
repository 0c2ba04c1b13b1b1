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

"""Attacks from one VO on another of the same Rucio server: their RSEs lie on the same storage, and the server's keys reach all of it.

RSEs, scopes and accounts have the same names in both VOs. Attacked is VO abc, from VO xyz, also by xyz's own root.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from servers.cli import RucioCli, add_s3_rse, add_user
from servers.rest import Rest
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS

ADD_VO = """
import sys
from collections.abc import Iterator
from rucio.core.vo import add_vo
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
for vo in sys.argv[1:]:
    with db_session(DatabaseOperationType.WRITE) as session:
        add_vo(vo, description='', email='vo@localhost', session=session)
"""
SCOPE = 'user.alice'
# xyz's WIDE_S3 and IMPORT_S3 have a bucket_prefix with which all that abc has begins, SHARED_S3 the same as abc's.
RSES = {'abc': {'SITE_S3': 'abc-', 'SHARED_S3': 'vo-'}, 'xyz': {'SITE_S3': 'xyz-', 'SHARED_S3': 'vo-', 'WIDE_S3': '', 'IMPORT_S3': ''}}
SECRETS = ('abc-user.alice', 'vo-user.alice')  # buckets of abc's alice


@dataclass
class VO:
    root: Rest
    alice: Rest
    bob: Rest


@dataclass
class Ground:
    storage: SeaweedFS
    abc: VO
    xyz: VO

    def sign(self, who: Rest, rse: str, path: str, method: str = 'GET') -> int:
        request = {'method': method, 'uri': f'{self.storage.url}/{path}', 'headers': {}}
        return who('POST', '/sign', {'rse': rse, 'requests': [request]}).status


@pytest.fixture(scope='module')
def ground(tmp_path_factory: pytest.TempPathFactory, sts: SeaweedFS) -> Iterator['Ground']:
    policies = {f'package-{vo}': 'rucio_s3_policy' for vo in RSES}
    with RucioServer(tmp_path_factory.mktemp('rucio'), {'common': {'multi_vo': 'True'}, 'policy': policies}) as server:
        done = subprocess.run([sys.executable, '-c', ADD_VO, *RSES], env=server.environment, cwd=server.directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        vos = {}
        for vo, rses in RSES.items():
            client = {'client': {'vo': vo}}
            root = RucioCli.root(tmp_path_factory.mktemp('root'), server, client)
            for rse, prefix in rses.items():
                rse_id = add_s3_rse(root, rse, sts, settings={'bucket_prefix': prefix, 'role_arn': sts.role_arn})
                if rse == 'IMPORT_S3':
                    root.call('update_rse', rse, {'deterministic': False})
                server.set_rse_keys(rse_id, sts.access_key, sts.secret_key)
            users = [
                add_user(
                    root, tmp_path_factory.mktemp(name), name, scopes=[f'user.{name}'], attributes=(), rses=['SITE_S3'], config=client, identity=f'{name}-{vo}'
                )
                for name in ('alice', 'bob')
            ]
            vos[vo] = VO(Rest(root), *map(Rest, users))
        for bucket in SECRETS:
            sts.client().create_bucket(Bucket=bucket)
            sts.client().put_object(Bucket=bucket, Key='run1/secret', Body=b'secret')
        yield Ground(sts, **vos)


def test_places_of_their_own(ground: Ground) -> None:
    """With prefixes that are not the beginning of each other both work, also where all names are the same: no cache mixes them up."""
    for vo, prefix in ((ground.abc, 'abc-'), (ground.xyz, 'xyz-'), (ground.abc, 'abc-')):
        vo.alice.ok('POST', '/buckets', {'scope': SCOPE, 'name': 'run1', 'rse': 'SITE_S3'})
        assert vo.alice.ok('POST', '/credentials', {'scope': SCOPE, 'name': 'run1', 'rse': 'SITE_S3'})['bucket'] == f'{prefix}{SCOPE}'
        assert ground.sign(vo.alice, 'SITE_S3', f'{prefix}{SCOPE}/run1/x') == 200
        assert {each['bucket'] for each in vo.alice.ok('GET', '/locate', scope=SCOPE, name='run1')} == {f'{prefix}{SCOPE}'}
        assert [each['bucket'] for each in vo.alice.ok('GET', '/buckets', rse='SITE_S3')['buckets']] == [f'{prefix}{SCOPE}']
    ground.abc.alice.ok('PUT', '/settings', {'scope': SCOPE, 'rse': 'SITE_S3', 'on_missing': 'forget'})
    assert ground.abc.alice.ok('GET', '/settings', scope=SCOPE, rse='SITE_S3')['on_missing'] == 'forget'
    assert ground.xyz.alice.ok('GET', '/settings', scope=SCOPE, rse='SITE_S3')['on_missing'] == 'report'


def test_grants_end_at_the_vo(ground: Ground) -> None:
    """abc's alice shares with bob, and xyz's bob asks."""
    for vo in (ground.abc, ground.xyz):
        vo.alice.ok('POST', '/buckets', {'scope': SCOPE, 'name': 'run1', 'rse': 'SITE_S3'})
    ground.abc.alice.ok('POST', '/grants', {'scope': SCOPE, 'name': 'run1', 'account': 'bob'})
    body = {'scope': SCOPE, 'name': 'run1', 'rse': 'SITE_S3'}
    assert ground.abc.bob('POST', '/credentials', body).status == 200
    assert ground.xyz.bob('POST', '/credentials', body).status == 403
    for path in ('abc-user.alice/run1/secret', 'xyz-user.alice/run1/secret'):
        assert ground.sign(ground.xyz.bob, 'SITE_S3', path) == 403


def test_attributes_and_all_accounts_end_at_the_vo(ground: Ground) -> None:
    """abc's alice shares with an attribute that xyz's root gives xyz's bob, and with all accounts. Would read what is shared in abc, or list it."""
    for vo in (ground.abc, ground.xyz):
        vo.alice.ok('POST', '/buckets', {'scope': SCOPE, 'name': 'run2', 'rse': 'SITE_S3'})
    shared, body = {'scope': SCOPE, 'name': 'run2'}, {'scope': SCOPE, 'name': 'run2', 'rse': 'SITE_S3'}
    ground.xyz.root.user.call('add_account_attribute', 'bob', 'experiment', 'atlas')
    by_attribute = shared | {'account': 'experiment=atlas', 'kind': 'attribute'}
    assert ground.abc.alice('POST', '/grants', by_attribute).error == 'InvalidObject'  # nobody has it there
    ground.abc.root.user.call('add_account_attribute', 'alice', 'experiment', 'atlas')
    for grant in (by_attribute, shared | {'account': '*', 'kind': 'everybody'}):
        ground.abc.alice.ok('POST', '/grants', grant)
        assert ground.xyz.bob('POST', '/credentials', body).status == 403
        assert ground.sign(ground.xyz.bob, 'SITE_S3', 'abc-user.alice/run2/secret') == 403
        assert [each['kind'] for each in ground.xyz.bob.ok('GET', '/usable')['shares']] == ['own']
        assert (ground.abc.bob('POST', '/credentials', body).status == 200) is ('kind' in grant and grant['kind'] == 'everybody')


@pytest.mark.parametrize('bucket', SECRETS)
@pytest.mark.parametrize('who', ['alice', 'root'])
def test_signatures_and_keys(ground: Ground, who: str, bucket: str) -> None:
    """xyz's alice, whose scope has the same name, and its root ask for what abc's alice has, by each of their RSEs. Got before: all of it."""
    attacker: Rest = getattr(ground.xyz, who)
    for rse in RSES['xyz']:
        for method in ('GET', 'DELETE'):
            assert ground.sign(attacker, rse, f'{bucket}/run1/secret', method) == 403, rse
        assert ground.sign(attacker, rse, f'{bucket}?list-type=2&prefix=run1%2F') == 403, rse
        for prefix in ('', 'run1/', 'run1/secret'):
            for write in (False, True):
                body = {'rse': rse, 'bucket': bucket, 'prefix': prefix, 'write': write}
                assert attacker('POST', '/credentials', body).status == 403, (rse, body)


def test_the_bucket_of_a_scope_of_the_same_name(ground: Ground) -> None:
    """xyz's alice does with `her` bucket on SHARED_S3 what an owner may: it is that of abc's alice, too. Got before: all of it."""
    place = {'scope': SCOPE, 'rse': 'SHARED_S3'}
    for who in (ground.xyz.alice, ground.xyz.root):
        for method, path, more in (
            ('POST', '/buckets', {}),
            ('POST', '/credentials', {}),
            ('POST', '/reconcile', {}),
            ('PUT', '/settings', {'on_missing': 'forget'}),
            ('PUT', '/policy', {'policy': {}}),
            ('DELETE', '/policy', {}),
            ('DELETE', '/buckets', {'force': True}),
            ('DELETE', '/buckets', {'force': True, 'name': 'run1'}),
        ):
            answer = who(method, path, place | more)
            assert answer.status == 403, (path, answer)
            assert 'another VO' in answer.message
            assert 'SITE_S3' not in answer.message
        assert who('GET', '/policy', **place).status == 403
    assert ground.storage.client().get_object(Bucket='vo-user.alice', Key='run1/secret')['Body'].read() == b'secret'


def test_a_scope_of_the_name_of_the_bucket(ground: Ground) -> None:
    """xyz's root makes a scope of the name of abc's bucket, which an RSE without a bucket_prefix then takes for its own."""
    ground.xyz.root.user.call('add_scope', 'alice', 'abc-user.alice')
    place = {'scope': 'abc-user.alice', 'rse': 'WIDE_S3'}
    for method, path, more in (('POST', '/credentials', {}), ('POST', '/reconcile', {}), ('DELETE', '/buckets', {'force': True}), ('POST', '/buckets', {})):
        for who in (ground.xyz.alice, ground.xyz.root):
            assert who(method, path, place | more).status == 403
    assert ground.storage.client().get_object(Bucket='abc-user.alice', Key='run1/secret')['Body'].read() == b'secret'


@pytest.mark.parametrize('bucket', SECRETS)
def test_imports(ground: Ground, bucket: str) -> None:
    """xyz's root imports abc's bucket into a scope of its own, whose owner may then read it."""
    answer = ground.xyz.root('POST', '/import', {'rse': 'IMPORT_S3', 'scope': SCOPE, 'name': 'stolen', 'bucket': bucket})
    assert answer.status == 403, answer
    assert ground.xyz.alice('POST', '/import', {'rse': 'IMPORT_S3', 'scope': SCOPE, 'name': 'stolen', 'bucket': bucket}).status == 403


def test_lists(ground: Ground) -> None:
    """xyz's root looks what is there. Got before: the buckets of abc, and with them its scopes."""
    for rse in RSES['xyz']:
        found = {each['bucket'] for each in ground.xyz.root.ok('GET', '/buckets', rse=rse)['buckets']}
        assert not found & set(SECRETS), rse
    assert {each['rse'] for each in ground.abc.root.ok('GET', '/rses')} == set(RSES['abc'])
    for rse in ('WIDE_S3', 'IMPORT_S3'):
        assert ground.abc.root('GET', f'/rses/{rse}').status == 404
        assert ground.sign(ground.abc.root, rse, 'xyz-user.alice/x') == 404
    # An operator is told, but not of what.
    assert {each['rse'] for each in ground.xyz.root.ok('GET', '/rses/SHARED_S3')['overlaps']} >= {None}
