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

"""Attacks by keys that two scopes can mean, or that a storage keeps for itself: RSEs of one storage whose places overlap.

Got before: whoever owned one of the scopes read, overwrote and deleted what was the other's, by signatures and vended keys. What `rucio s3 rse add`
refuses is in tests/unit/test_cli_rse_add.py; between VOs it is in test_other_vos.py.
"""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from servers.ceph import CephRGW
from servers.cli import RucioCli, add_user, s3_protocol
from servers.rest import Rest
from servers.seaweedfs import SeaweedFS


@dataclass
class Ground:
    """Mallory and a victim with a scope each, RSEs that overlap, and an object of the victim."""

    root: RucioCli
    admin: Rest
    mallory: Rest
    victim: Rest
    storage: Any
    bucket: str  # that many share
    rses: dict[str, str]  # by what they are

    @property
    def rse(self) -> str:
        """That has a bucket for each scope, without a prefix."""
        return self.rses['plain']

    def add_scope(self, scope: str, owner: Rest) -> str:
        self.root.call('add_scope', owner.user.account, scope)
        return scope

    def put(self, bucket: str, key: str) -> str:
        client = self.storage.client()
        if bucket not in [each['Name'] for each in client.list_buckets()['Buckets']]:
            client.create_bucket(Bucket=bucket)
        client.put_object(Bucket=bucket, Key=key, Body=b'secret')
        return f'{bucket}/{key}'

    def statuses(self, who: Rest, rse: str, scope: str, path: str) -> dict[str, int]:
        """What becomes of each way to an object, by an RSE and a scope."""
        bucket, _, key = path.partition('/')
        url = f'{self.storage.url}/{bucket}'
        if rse == self.rses['over']:
            url = url.replace('127.0.0.1', 'localhost')

        def sign(method: str, uri: str) -> int:
            return who('POST', '/sign', {'rse': rse, 'requests': [{'method': method, 'uri': uri, 'headers': {}}]}).status

        place = {'rse': rse, 'scope': scope}
        return {
            'get': sign('GET', f'{url}/{key}'),
            'delete': sign('DELETE', f'{url}/{key}'),
            'list': sign('GET', f'{url}?list-type=2'),
            'keys of the scope': who('POST', '/credentials', place).status,
            'keys of the key': who('POST', '/credentials', {'rse': rse, 'bucket': bucket, 'prefix': key}).status,
            'keys of the bucket': who('POST', '/credentials', {'rse': rse, 'bucket': bucket, 'prefix': ''}).status,
            'policy': who('PUT', '/policy', place | {'policy': {}}).status,
            'settings': who('PUT', '/settings', place | {'on_missing': 'forget'}).status,
            'reconcile': who('POST', '/reconcile', place | {'dry_run': True}).status,
            'share': who('POST', '/grants', {'scope': scope, 'name': 'x', 'account': '*'}).status,
            'remove': who('DELETE', '/buckets', place | {'force': True}).status,
        }


@pytest.fixture(scope='module', params=['seaweedfs', 'ceph'])
def ground(request: pytest.FixtureRequest, team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    storage: SeaweedFS | CephRGW = request.getfixturevalue('sts' if request.param == 'seaweedfs' else 'ceph')
    mark = request.param[0]

    bucket = f'b{uuid4().hex[:10]}'
    layouts: dict[str, tuple[str, str, dict[str, str]]] = {
        'plain': ('/', 's3_bucket', {}),
        'over': ('/', 's3_bucket', {'bucket_prefix': 'user.'}),
        'common': (f'/{bucket}/data/', 's3_bucket', {}),
        'inner': (f'/{bucket}/outer/x{bucket}/', 's3_bucket', {}),
        'outer': (f'/{bucket}/outer/', 's3_bucket', {}),
        'identity': (f'/{bucket}/identity/', 'identity', {}),
        'parts': (f'/{bucket}-parts/', 'identity', {}),
    }
    rses = {}
    # All of them before the first request: what the server knows of them is up to 10 s old.
    for name, (prefix, algorithm, settings) in layouts.items():
        rses[name] = f'PLACES_{name}_{mark}'.upper()
        protocol = s3_protocol(storage, prefix=prefix, settings={'provider': request.param, 'role_arn': storage.role_arn, **settings})
        made = team_root.calls(
            ('add_rse', rses[name]),
            ('add_rse_attribute', rses[name], 'lfn2pfn_algorithm', algorithm),
            # The same host in another spelling.
            ('add_protocol', rses[name], protocol | {'hostname': 'localhost' if name == 'over' else protocol['hostname']}),
            ('get_rse', rses[name]),
        )
        team_root.server.set_rse_keys(made[-1]['id'], storage.access_key, storage.secret_key)
    users = [add_user(team_root, tmp_path_factory.mktemp(name), f'{name}{mark}', attributes=()) for name in ('shadow', 'victim')]
    return Ground(team_root, Rest(team_root), Rest(users[0]), Rest(users[1]), storage, bucket, rses)


def assert_nothing_got(ground: Ground, statuses: dict[str, int], path: str) -> None:
    assert set(statuses.values()) <= {400, 403, 404, 409, 501}, statuses
    bucket, _, key = path.partition('/')
    assert ground.storage.client().get_object(Bucket=bucket, Key=key)['Body'].read() == b'secret'


def test_a_bucket_prefix_that_is_the_beginning_of_a_scope(ground: Ground, unique: str) -> None:
    """An RSE has the bucket_prefix `user.`, and its host spelled otherwise: there, Mallory's scope x has the bucket of the victim's scope user.x."""
    over = ground.rses['over']
    ground.add_scope(f'user.{unique}', ground.victim)
    path = ground.put(f'user.{unique}', 'file')
    assert ground.statuses(ground.victim, ground.rse, f'user.{unique}', path)['get'] == 200
    ground.put(f'user.{unique}', 'file')
    ground.add_scope(unique, ground.mallory)
    # Nor make the bucket and so subscribe it to events.
    assert ground.mallory('POST', '/buckets', {'scope': unique, 'rse': over}).status == 403
    assert_nothing_got(ground, ground.statuses(ground.mallory, over, unique, path), path)
    # Nobody can say whose it is: the victim has to have keys of the storage, and an admin sees to it.
    assert ground.statuses(ground.victim, ground.rse, f'user.{unique}', path)['get'] == 403
    assert ground.admin.ok('GET', f'/rses/{over}')['overlaps']


def test_a_scope_of_the_name_of_the_common_bucket(ground: Ground, unique: str) -> None:
    """An RSE keeps all scopes in one bucket. On another RSE, Mallory's scope of that bucket's name has it for its own."""
    common, bucket = ground.rses['common'], ground.bucket
    scope = ground.add_scope(f'v.{unique}', ground.victim)
    path = ground.put(bucket, f'data/{scope}/file')
    assert ground.statuses(ground.victim, common, scope, path)['get'] == 200
    ground.put(bucket, f'data/{scope}/file')
    ground.add_scope(bucket, ground.mallory)
    assert_nothing_got(ground, ground.statuses(ground.mallory, ground.rse, bucket, path), path)
    for prefix in ('data/', f'data/{scope}/', 'dat'):
        body = {'rse': ground.rse, 'bucket': bucket, 'prefix': prefix}
        assert ground.mallory('POST', '/credentials', body).status == 403
    # What is beside the RSE's folder is hers.
    body = {'rse': ground.rse, 'bucket': bucket, 'prefix': 'mine/'}
    answer = ground.mallory.ok('POST', '/credentials', body)
    assert answer['prefix'] == 'mine/'


def test_an_rse_inside_of_another(ground: Ground, unique: str) -> None:
    """An RSE's folder lies in that of another: there, Mallory's scope of the folder's name has all of it."""
    inner, outer, folder = ground.rses['inner'], ground.rses['outer'], f'x{ground.bucket}'
    scope = ground.add_scope(f'w.{unique}', ground.victim)
    path = ground.put(ground.bucket, f'outer/{folder}/{scope}/file')
    ground.add_scope(folder, ground.mallory)
    assert_nothing_got(ground, ground.statuses(ground.mallory, outer, folder, path), path)
    assert ground.admin.ok('GET', f'/rses/{inner}')['overlaps']


def test_dots_that_become_folders(ground: Ground, unique: str) -> None:
    """With the algorithm identity, Mallory's user.m:higgs/x is the victim's user.m.higgs:x."""
    rse = ground.rses['identity']
    mine = ground.add_scope(f'user.{unique}', ground.mallory)
    ground.add_scope(f'user.{unique}.higgs', ground.victim)
    path = ground.put(ground.bucket, f'identity/user/{unique}/higgs/x')
    assert_nothing_got(ground, ground.statuses(ground.mallory, rse, mine, path), path)
    for prefix in ('identity/user/', f'identity/user/{unique}/'):
        assert ground.mallory('POST', '/credentials', {'rse': rse, 'bucket': ground.bucket, 'prefix': prefix}).status in (403, 501)


def test_what_a_storage_keeps_for_itself(ground: Ground) -> None:
    """Mallory owns a scope `admin`: with a signature of the server's, GET /admin/... is the administration of a Ceph, and lists its users."""
    if not isinstance(ground.storage, CephRGW):
        pytest.skip('SeaweedFS has buckets of any name')
    place = {'scope': ground.add_scope('admin', ground.mallory), 'rse': ground.rse}
    for who in (ground.mallory, ground.admin):
        assert who('POST', '/buckets', place).status == 400
        assert who('POST', '/credentials', place).status == 400
        for path in ('admin/metadata/user', 'admin/user', 'admin', 'swift/v1', 'auth/v1.0'):
            request = {'method': 'GET', 'uri': f'{ground.storage.url}/{path}', 'headers': {}}
            assert who('POST', '/sign', {'rse': ground.rse, 'requests': [request]}).status in (400, 403)


def test_the_parts_of_others_uploads(ground: Ground) -> None:
    """In a common bucket of SeaweedFS the parts of everybody's multipart uploads lie below .uploads/, which is a scope's name, too."""
    if isinstance(ground.storage, CephRGW):
        pytest.skip('Ceph keeps them elsewhere')
    rse, bucket = ground.rses['parts'], f'{ground.bucket}-parts'
    ground.put(bucket, 'file')
    place = {'scope': ground.add_scope('.uploads', ground.mallory), 'rse': rse}
    request = {'method': 'PUT', 'uri': f'{ground.storage.url}/{bucket}/.uploads/x', 'headers': {'x-amz-content-sha256': ['0' * 64]}}
    assert ground.mallory('POST', '/sign', {'rse': rse, 'requests': [request]}).status == 400
    assert ground.mallory('POST', '/credentials', place | {'write': True}).status == 400
