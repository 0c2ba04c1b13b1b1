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

"""Keys that an account has at the storage itself, and what `rucio s3 share` lets them read.

Petra owns the scope. Quentin has an account in Rucio, and keys of the user `own` at the storage, which nobody named as his.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError

from servers.boto import plain_client
from servers.cli import RucioCli, RucioError, add_s3_rse, add_user
from servers.rest import Rest
from servers.seaweedfs import SeaweedFS

RSE = 'USERS_S3'


class Target(NamedTuple):
    root: RucioCli
    petra: Rest
    quentin: RucioCli
    own: Any  # a boto3 client with the keys of `own`
    storage: SeaweedFS

    def share(self, name: str) -> Any:
        answer = self.petra('POST', '/s3/grants', {'scope': 'user.petra', 'name': name, 'account': 'quentin'})
        assert answer.status == 201, answer
        return answer.content['own_keys']

    def reads(self, key: str) -> bool:
        try:
            self.own.get_object(Bucket='user.petra', Key=key)
        except ClientError:
            return False
        return True


@pytest.fixture(scope='module')
def target(team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory, plain: SeaweedFS) -> Target:
    directory: Callable[[str], Path] = tmp_path_factory.mktemp
    petra, quentin = (add_user(team_root, directory(name), name, scopes=[f'user.{name}'], attributes=()) for name in ('petra', 'quentin'))
    rse_id = add_s3_rse(team_root, RSE, plain, accounts=['petra'], settings={'provider': 'seaweedfs', 'user_arn': plain.user_arn})
    team_root.server.set_rse_keys(rse_id, plain.access_key, plain.secret_key)
    keys = SimpleNamespace(access_key=plain.user_keys[0], secret_key=plain.user_keys[1], url=plain.url, region=plain.region, ca_bundle=None)
    return Target(team_root, Rest(petra, ''), quentin, plain_client(keys, retries={'total_max_attempts': 1}), plain)


@pytest.fixture
def shared(target: Target, unique: str) -> str:
    """A collection of Petra's with a file in it; Quentin may read it, in Rucio."""
    assert target.petra('POST', '/s3/buckets', {'rse': RSE, 'scope': 'user.petra', 'name': unique}).status == 201
    target.storage.client().put_object(Bucket='user.petra', Key=f'{unique}/file', Body=b'content')
    return unique


def test_nobody_names_a_user_as_his_own(target: Target, shared: str) -> None:
    """He would read with keys that outlive his account; or let somebody else's user in, who never asked for it."""
    for call in (('add_account_attribute', 'quentin', 's3-user', 'own'), ('add_account_attribute', 'petra', 's3-user', 'own')):
        with pytest.raises(RucioError, match='can not add'):
            target.quentin.calls(call)
    assert [each['user'] for each in target.share(shared)] == [None]
    assert not target.reads(f'{shared}/file')


@pytest.mark.parametrize('name', ['people/own', '../own', '.\\own'])
def test_names_that_lead_to_another_user(target: Target, shared: str, name: str) -> None:
    """By whoever may set attributes: also these must name one user below the operator's ARN. Rucio refuses `*`, `:` and `$` itself."""
    for refused in ('*', 'own*', 'arn:aws:iam::1:user/own', '${aws:username}'):
        with pytest.raises(RucioError):
            target.root.call('add_account_attribute', 'quentin', 's3-user', refused)
    target.root.call('add_account_attribute', 'quentin', 's3-user', name)
    try:
        assert [each['user'] for each in target.share(shared)] == [None]
    finally:
        target.root.call('delete_account_attribute', 'quentin', 's3-user')
    assert not target.reads(f'{shared}/file')


def test_no_statement_of_an_owner_passes_for_ours(target: Target, shared: str) -> None:
    """It would be taken for the server's own, and stay or go with what is shared."""
    statement = {'Effect': 'Allow', 'Principal': {'AWS': ['arn:aws:iam:::user/else']}, 'Action': ['s3:GetObject'], 'Resource': ['arn:aws:s3:::user.petra/*']}
    for sid in ('RucioShared0123456789abcdef', 'ruciosharedX', 'RucioPublicX'):
        policy = {'Version': '2012-10-17', 'Statement': [{'Sid': sid, **statement}]}
        assert target.petra('PUT', '/s3/policy', {'scope': 'user.petra', 'policy': policy, 'rse': RSE}).status == 400, sid
    assert 'user/else' not in json.dumps(target.petra.ok('GET', f'/s3/policy?scope=user.petra&rse={RSE}'))
