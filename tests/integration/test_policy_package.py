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

"""The policy package on a real server, with one VO and with many: what accounts without the attribute `admin` may do."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from servers.cli import RucioCli, RucioError, add_s3_rse, add_user, s3_keys
from servers.rucio_server import RucioServer

ADD_VO = """
import sys
from rucio.core.vo import add_vo
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
with db_session(DatabaseOperationType.WRITE) as session:
    add_vo(sys.argv[1], description='', email='vo@localhost', session=session)
"""
ONE_VO = {'policy': {'package': 'rucio_s3_policy'}}
MANY_VOS = {'common': {'multi_vo': 'True'}, 'policy': {'package-abc': 'rucio_s3_policy'}}
POSIX = {
    'scheme': 'file',
    'hostname': 'localhost',
    'port': 0,
    'impl': 'rucio.rse.protocols.posix.Default',
    'domains': {'lan': {'read': 1, 'write': 1, 'delete': 1}, 'wan': {'read': 1, 'write': 1, 'delete': 1}},
}


@dataclass
class PolicySite:
    root: RucioCli
    alice: RucioCli
    bob: RucioCli
    bucket: str


@pytest.fixture(scope='module', params=['one VO', 'many VOs'])
def policy_site(request, tmp_path_factory, plain):
    many = request.param == 'many VOs'
    with RucioServer(tmp_path_factory.mktemp('rucio'), MANY_VOS if many else ONE_VO) as server:
        client = {}
        if many:
            done = subprocess.run(
                [sys.executable, '-c', ADD_VO, 'abc'], env=server.environment, cwd=server.directory, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            client = {'client': {'vo': 'abc'}}
        root = RucioCli.root(tmp_path_factory.mktemp('root'), server, client)
        prefix = 'vos-' if many else 'one-'
        add_s3_rse(root, 'SITE_S3', plain, settings={'bucket_prefix': prefix})
        disk = tmp_path_factory.mktemp('disk')
        root.calls(('add_rse', 'SITE_DISK'), ('add_protocol', 'SITE_DISK', {**POSIX, 'prefix': f'{disk}/'}))
        users = [
            add_user(
                root,
                tmp_path_factory.mktemp(name),
                name,
                scopes=[f'user.{name}'],
                attributes=(),
                rses=['SITE_S3', 'SITE_DISK'],
                config={**client, **s3_keys('SITE_S3', plain)},
            )
            for name in ('alice', 'bob')
        ]
        for name in ('alice', 'bob'):
            plain.client().create_bucket(Bucket=f'{prefix}user.{name}')
        yield PolicySite(root, *users, bucket=f'{prefix}user.alice')


def upload(user, tmp_path, scope, name, rse='SITE_S3', dataset=None):
    file = tmp_path / 'file'
    file.write_text(f'{scope} {name}')
    done = user.rucio('upload', '--rse', rse, '--scope', scope, '--lfn', name, *([dataset] if dataset else []), str(file))
    return done.stdout + done.stderr


def replicas(user, scope, name):
    """RSE -> state."""
    found = user.call('list_replicas', [{'scope': scope, 'name': name}], all_states=True)
    return found[0]['states'] if found else {}


def refused(user, method, *arguments, **keywords):
    with pytest.raises(RucioError) as error:
        user.call(method, *arguments, **keywords)
    assert 'AccessDenied' in str(error.value), error.value
    return str(error.value)


def file(scope, name, **more):
    return {'scope': scope, 'name': name, 'bytes': 1, 'adler32': '00000001', **more}


def test_stock_upload_and_download(policy_site, plain, tmp_path, unique):
    alice = policy_site.alice
    name = f'{unique}/file.root'
    output = upload(alice, tmp_path, 'user.alice', name, dataset=f'user.alice:{unique}')
    assert 'Successfully uploaded' in output, output
    assert replicas(alice, 'user.alice', name) == {'SITE_S3': 'AVAILABLE'}
    assert [each['name'] for each in alice.call('list_content', 'user.alice', unique)] == [name]
    assert plain.client().get_object(Bucket=policy_site.bucket, Key=name)['Body'].read().decode() == f'user.alice {name}'
    alice.rucio('download', '--dir', str(tmp_path / 'back'), f'user.alice:{unique}', check=True)
    assert next(tmp_path.joinpath('back').rglob('file.root')).read_text() == f'user.alice {name}'


@pytest.mark.parametrize(('scope', 'rse'), [('user.bob', 'SITE_S3'), ('user.nobody', 'SITE_S3'), ('user.alice', 'SITE_DISK')])
def test_stock_upload_of_what_is_not_hers_fails(policy_site, tmp_path, unique, scope, rse):
    output = upload(policy_site.alice, tmp_path, scope, unique, rse)
    assert 'Successfully uploaded' not in output
    assert replicas(policy_site.root, scope, unique) == {}
    with pytest.raises(RucioError, match='DataIdentifierNotFound'):
        policy_site.root.call('get_did', scope, unique)


def test_many_files_in_a_call(policy_site, unique):
    # SQLite cannot do with 1000.
    files = [file('user.alice', f'{unique}/{number}', state='C') for number in range(400)]
    policy_site.alice.call('add_replicas', 'SITE_S3', files)
    policy_site.alice.call('update_replicas_states', 'SITE_S3', [{**each, 'state': 'A'} for each in files])
    assert replicas(policy_site.alice, 'user.alice', f'{unique}/399') == {'SITE_S3': 'AVAILABLE'}


def test_one_foreign_file_among_many_refuses_all(policy_site, unique):
    message = refused(policy_site.alice, 'add_replicas', 'SITE_S3', [file('user.alice', unique), file('user.bob', unique)])
    assert "The scope 'user.bob' is not yours" in message
    assert replicas(policy_site.root, 'user.alice', unique) == {}


def test_a_replica_of_another_account_is_not_touched(policy_site, unique):
    policy_site.bob.call('add_replicas', 'SITE_S3', [file('user.bob', unique, state='C')])
    for state in ('A', 'B', 'D', 'U'):
        refused(policy_site.alice, 'update_replicas_states', 'SITE_S3', [file('user.bob', unique, state=state)])
    refused(policy_site.alice, 'delete_replicas', 'SITE_S3', [file('user.bob', unique)])
    assert replicas(policy_site.root, 'user.bob', unique) == {'SITE_S3': 'COPYING'}


def test_nothing_else_changes_for_the_owner(policy_site, unique):
    alice = policy_site.alice
    alice.call('add_replicas', 'SITE_S3', [file('user.alice', unique)])
    refused(alice, 'delete_replicas', 'SITE_S3', [{'scope': 'user.alice', 'name': unique}])
    refused(alice, 'update_replicas_states', 'SITE_S3', [file('user.alice', unique, state='B')])
    refused(alice, 'add_rse', 'MINE_S3')
    refused(alice, 'add_account_attribute', 'alice', 'admin', 'true')
    refused(alice, 'set_local_account_limit', 'alice', 'SITE_S3', -1)
    assert replicas(alice, 'user.alice', unique) == {'SITE_S3': 'AVAILABLE'}


def test_the_server_does_not_warn_of_the_package(policy_site):
    log = policy_site.root.server.log.read_text()
    assert 'rucio_s3_policy' not in log
