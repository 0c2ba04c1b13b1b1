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

"""`rucio s3 share --with` an account that has a user of its own at the storage: the user's own keys read what is shared, and no more."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError

from servers.boto import plain_client
from servers.ceph import CephRGW
from servers.cli import RucioCli, add_s3_rse, add_user
from servers.seaweedfs import SeaweedFS
from servers.team import ok, rows


class Lab(NamedTuple):
    """Nora owns a scope, and Nils has a user at the storage."""

    storage: CephRGW | SeaweedFS
    rse: str
    nora: RucioCli
    nils: RucioCli
    root: RucioCli
    own: Any  # a boto3 client with the keys of Nils's user

    def may(self, operation: str, **arguments: str) -> bool:
        """Whether the storage lets Nils's user do this in Nora's bucket."""
        try:
            getattr(self.own, operation)(Bucket=f'user.{self.nora.account}', **arguments)
        except ClientError as error:
            if error.response['ResponseMetadata']['HTTPStatusCode'] != 403:
                raise
            return False
        return True

    def reads(self, name: str) -> tuple[bool, bool]:
        """Whether it may get a file of a collection, and list it."""
        return self.may('get_object', Key=f'{name}/file'), self.may('list_objects_v2', Prefix=f'{name}/')


def make(kind: str, storage: CephRGW | SeaweedFS, root: RucioCli, directory: Callable[[str], Path]) -> Lab:
    nora, nils = f'nora-{kind}', f'nils-{kind}'
    users = [add_user(root, directory(name), name, scopes=[f'user.{name}'], attributes=()) for name in (nora, nils)]
    rse = f'{kind.upper()}_OF_USERS'
    rse_id = add_s3_rse(root, rse, storage, accounts=[nora], settings={'provider': kind, 'user_arn': storage.user_arn})
    root.server.set_rse_keys(rse_id, storage.access_key, storage.secret_key)
    root.call('add_account_attribute', nils, 's3-user', 'own')
    access_key, secret_key = storage.user_keys
    keys = SimpleNamespace(access_key=access_key, secret_key=secret_key, session_token=None, url=storage.url, region=storage.region, ca_bundle=None)
    client = plain_client(keys, request_checksum_calculation='when_required', retries={'total_max_attempts': 1})
    return Lab(storage, rse, users[0], users[1], root, client)


@pytest.fixture(scope='module', params=['ceph', 'seaweedfs'])
def lab(request: pytest.FixtureRequest, team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    storage = request.getfixturevalue({'ceph': 'ceph', 'seaweedfs': 'plain'}[request.param])
    return make(request.param, storage, team_root, tmp_path_factory.mktemp)


def test_own_keys_read_what_is_shared_and_no_more(lab: Lab, unique: str) -> None:
    bucket, did = f'user.{lab.nora.account}', f'user.{lab.nora.account}:{unique}'
    theirs = {'Sid': 'mine', 'Effect': 'Allow', 'Principal': {'AWS': [lab.storage.user_arn.replace('{s3-user}', 'else')]}}
    theirs |= {'Action': ['s3:GetObject'], 'Resource': [f'arn:aws:s3:::{bucket}/published/*']}
    admin = lab.storage.client()
    ok(lab.nora.rucio('s3', 'make-bucket', did))
    admin.put_bucket_policy(Bucket=bucket, Policy=json.dumps({'Version': '2012-10-17', 'Statement': [theirs]}, separators=(',', ':')))
    for key in (f'{unique}/file', f'{unique}-beside/file', f'{unique}0/file'):
        admin.put_object(Bucket=bucket, Key=key, Body=b'content')
    assert lab.reads(unique) == (False, False)

    said = ok(lab.nora.rucio('s3', 'share', did, '--with', lab.nils.account, '--write'))
    assert said == (
        f'{lab.nils.account} can read and write {did}.\n'
        f'On {lab.rse}, {lab.storage.user_arn.replace("{s3-user}", "own")} can read it with keys of its own, too.\n'
    )
    assert lab.reads(unique) == (True, True)
    for beside in (f'{unique}-beside', f'{unique}0', unique.upper()):
        assert lab.reads(beside) == (False, False)
    assert not lab.may('list_objects_v2', Prefix=unique)
    assert not lab.may('list_objects_v2')
    for write in ('put_object', 'delete_object', 'create_multipart_upload', 'put_object_acl'):
        assert not lab.may(write, Key=f'{unique}/file')
    assert not lab.may('get_bucket_policy')
    assert not lab.may('delete_bucket_policy')
    assert rows(lab.nils.rucio('s3', '-R', 'ls', '--shared'))[0][:4] == [did, 'read, write', lab.nora.account, lab.nils.account]

    assert f'{did} is no longer shared with {lab.nils.account}.' in ok(lab.nora.rucio('s3', 'unshare', did, '--with', lab.nils.account))
    assert lab.reads(unique) == (False, False)
    (left,) = json.loads(admin.get_bucket_policy(Bucket=bucket)['Policy'])['Statement']
    assert left['Sid'] == 'mine', "the site's own statement stays"
    admin.delete_bucket_policy(Bucket=bucket)


def test_a_collection_that_is_removed_is_shared_no_more(lab: Lab, unique: str) -> None:
    did = f'user.{lab.nora.account}:{unique}'
    ok(lab.nora.rucio('s3', 'make-bucket', did))
    ok(lab.nora.rucio('s3', 'make-bucket', f'{did}-stays'))
    ok(lab.nora.rucio('s3', 'share', did, '--with', lab.nils.account))
    lab.storage.client().put_object(Bucket=f'user.{lab.nora.account}', Key=f'{unique}/file', Body=b'content')
    assert lab.reads(unique) == (True, True)
    ok(lab.nora.rucio('s3', 'remove-bucket', did, '--force'))
    assert lab.reads(unique) == (False, False)


def test_it_is_said_where_own_keys_do_not_read(lab: Lab, unique: str) -> None:
    did = f'user.{lab.nora.account}:{unique}'
    ok(lab.nora.rucio('s3', 'make-bucket', did))
    only = f'On {lab.rse}, only with keys and signatures of Rucio: '
    assert f"{only}root has no attribute 's3-user' with the name of a user, which an admin sets." in ok(
        lab.nora.rucio('s3', 'share', did, '--with', 'root', '--all-accounts')
    )
    assert f'{only}only single accounts are users of the storage.' in ok(lab.nora.rucio('s3', 'share', did, '--all-accounts'))
