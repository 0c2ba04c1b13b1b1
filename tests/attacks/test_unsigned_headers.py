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

"""A signature covers the headers that were signed: others are added to a signed request, and the storage obeys them.

Ceph RGW 16 obeys every x-amz- header that nobody signed. SeaweedFS 4.48 refuses them, but trusts X-Forwarded-Prefix.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from rucio.core.s3.buckets import object_lock
from servers.boto import S3Server
from servers.ceph import CephRGW
from servers.cli import RucioCli, add_s3_rse, add_user
from servers.rest import Rest
from servers.signer import Signer, asked, headers_of, send, sign

BUCKET, SOURCE = 'attack-headers', 'source'
EVERYBODY = 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'


@cache
def client_of(storage: S3Server) -> Any:
    return storage.client()


def is_public(storage: S3Server, key: str) -> bool:
    return send(storage, 'GET', f'/{BUCKET}/{key}', {})[0] == 200


def is_unreadable(storage: S3Server, key: str) -> bool:
    """To its bucket's owner: the server's own keys."""
    try:
        client_of(storage).head_object(Bucket=BUCKET, Key=key)
    except ClientError as error:
        return error.response['ResponseMetadata']['HTTPStatusCode'] == 403
    return False


def is_tagged(storage: S3Server, key: str) -> bool:
    return bool(client_of(storage).get_object_tagging(Bucket=BUCKET, Key=key).get('TagSet'))


# What is added -> what it would do.
ADDED: dict[str, tuple[dict[str, str], Callable[[S3Server, str], bool]]] = {
    'canned_acl': ({'x-amz-acl': 'public-read'}, is_public),
    'underscores': ({'x_amz_acl': 'public-read'}, is_public),
    'grant_to_all': ({'x-amz-grant-read': EVERYBODY}, is_public),
    'full_control_to_all': ({'x-amz-grant-full-control': EVERYBODY}, is_public),
    'grant_that_leaves_out_the_owner': ({'x-amz-grant-read-acp': EVERYBODY}, is_unreadable),
    'tags': ({'x-amz-tagging': 'public=yes'}, is_tagged),
}
OPERATIONS = ('PutObject', 'CreateMultipartUpload', 'CopyObject')


@pytest.fixture(params=['plain', 'ceph'])
def storage(request: pytest.FixtureRequest) -> S3Server:
    made: S3Server = request.getfixturevalue(request.param)
    client = client_of(made)
    if BUCKET not in [each['Name'] for each in client.list_buckets()['Buckets']]:
        client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key=SOURCE, Body=b'content')
    return made


def written(storage: S3Server, signer: Signer, operation: str, added: dict[str, str]) -> tuple[int, str]:
    """An object that is written by a signed request with something added: the status, and its key."""
    key = f'k{uuid4().hex}'
    path, body = f'/{BUCKET}/{key}', b'content' if operation == 'PutObject' else b''
    method, query = ('POST', '?uploads') if operation == 'CreateMultipartUpload' else ('PUT', '')
    given = {'x-amz-copy-source': f'/{BUCKET}/{SOURCE}'} if operation == 'CopyObject' else {}
    request = asked(storage, method, path + query, given)
    request['headers']['x-amz-content-sha256'] = asked(storage, 'PUT', '', body=body)['headers']['x-amz-content-sha256']
    (answer,) = sign(signer, [request], lambda *_: None)
    signed = given | headers_of(answer)
    # In the place of what is signed, or beside it.
    lower = {name.lower() for name in added}
    status, said = send(storage, method, path + query, {name: value for name, value in signed.items() if name.lower() not in lower} | added, body)
    if query and status == 200:
        upload = said.partition(b'<UploadId>')[2].partition(b'<')[0].decode()
        client, part = client_of(storage), {'Bucket': BUCKET, 'Key': key, 'UploadId': upload}
        etag = client.upload_part(**part, PartNumber=1, Body=b'content')['ETag']
        client.complete_multipart_upload(**part, MultipartUpload={'Parts': [{'PartNumber': 1, 'ETag': etag}]})
    return status, key


@pytest.mark.parametrize('operation', OPERATIONS)
@pytest.mark.parametrize('attack', ADDED)
def test_headers_that_are_added_to_a_signed_write(storage: S3Server, attack: str, operation: str) -> None:
    """Write access to one folder: make an object public, unreadable to the server (whose reaper then stops), or tagged for another policy."""
    added, succeeded = ADDED[attack]
    status, key = written(storage, Signer.of(storage), operation, added)
    assert status >= 400 or not succeeded(storage, key)


@pytest.mark.parametrize('attack', ADDED)
def test_without_its_guard_each_of_them_works_on_ceph(ceph: CephRGW, storage: S3Server, attack: str) -> None:
    """Why the guards are there. Ceph 20 refuses x-amz- headers that are not signed, too."""
    if storage is not ceph:
        pytest.skip('SeaweedFS refuses x-amz- headers that are not signed')
    signer = Signer.of(storage)
    signer.endpoint = replace(signer.endpoint, signature_guards=())
    added, succeeded = ADDED[attack]
    status, key = written(storage, signer, 'PutObject', added)
    if ceph.release < 20:
        assert (status, succeeded(storage, key)) == (200, attack != 'underscores' or ceph.release < 18)
    else:
        assert status == 403 or not succeeded(storage, key)


def test_a_signed_write_still_works(storage: S3Server) -> None:
    """The other side of the guards."""
    for operation in OPERATIONS:
        status, key = written(storage, Signer.of(storage), operation, {})
        assert status == 200
        assert [succeeded for _, succeeded in ADDED.values() if succeeded(storage, key)] == []


# Object lock: no harmless value could be signed, so the server does not sign at all


LOCKED = 'user.locker'


@pytest.fixture(scope='module')
def locker(ceph: CephRGW, team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory) -> RucioCli:
    """The owner of a scope whose bucket the operator made with object lock, on Ceph."""
    user = add_user(team_root, tmp_path_factory.mktemp('locker'), 'locker', scopes=[LOCKED], attributes=())
    storage: Any = ceph
    rse_id = add_s3_rse(team_root, 'LOCKED_S3', storage, accounts=['locker'], settings={'provider': 'ceph'})
    team_root.server.set_rse_keys(rse_id, ceph.access_key, ceph.secret_key)
    ceph.client().create_bucket(Bucket=LOCKED, ObjectLockEnabledForBucket=True)
    return user


def test_an_object_that_nobody_can_delete(ceph: CephRGW, locker: RucioCli) -> None:
    """Add x-amz-object-lock-mode: COMPLIANCE and a date in a hundred years to a signed PutObject: not even the operator gets rid of it."""
    until = (datetime.now(timezone.utc) + timedelta(minutes=30)).strftime('%Y-%m-%dT%H:%M:%SZ')
    lock = {'x-amz-object-lock-mode': 'GOVERNANCE', 'x-amz-object-lock-retain-until-date': until}
    signer = Signer.of(ceph)
    (answer,) = sign(signer, [asked(ceph, 'PUT', f'/{LOCKED}/forced')], lambda *_: None)
    assert send(ceph, 'PUT', f'/{LOCKED}/forced', headers_of(answer) | lock)[0] == 200, 'what the guard is for'
    assert ceph.client().get_object_retention(Bucket=LOCKED, Key='forced')['Retention']['Mode'] == 'GOVERNANCE'

    rest = Rest(locker)
    refused = rest('POST', '/sign', {'rse': 'LOCKED_S3', 'requests': [asked(ceph, 'PUT', f'/{LOCKED}/locked')]})
    assert (refused.status, 'object lock' in str(refused.content)) == (403, True), str(refused.content)
    read = rest('POST', '/sign', {'rse': 'LOCKED_S3', 'requests': [asked(ceph, 'GET', f'/{LOCKED}/forced')]})
    assert read.status == 200, str(read.content)


def test_a_bucket_without_object_lock_is_asked_once(storage: S3Server) -> None:
    """What the guard costs: one request for each bucket in ten minutes."""
    calls = []

    class Known:
        rse, rse_id = 'X', 'x'

        def connection(self, patience: Any) -> Any:
            calls.append(1)
            return type('Connection', (), {'client': client_of(storage)})

    object_lock.forget()
    known: Any = Known()
    assert [object_lock.is_enabled(known, BUCKET) for _ in range(3)] == [False] * 3
    assert len(calls) == 1
    object_lock.forget()
