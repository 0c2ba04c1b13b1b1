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

"""Who may write in a folder wants to make what lies there public, without the owner: by an ACL that an upload brings with it."""

from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session

from rucio.common.exception import RucioException, SourceNotFound
from rucio.common.s3 import clients, credentials, objects
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from rucio.core.s3.buckets import public_acls
from servers.ceph import CephRGW
from servers.cli import RucioCli, add_s3_rse, add_user
from servers.team import s3_call

from .keys import Keys, Storage, client, filled, public

EVERYBODY = 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'
ACLS: list[dict[str, Any]] = [
    {'ACL': 'public-read'},
    {'ACL': 'public-read-write'},
    {'GrantRead': EVERYBODY},
    {'GrantFullControl': EVERYBODY},
]


def put(s3: Any, bucket: str, key: str, **acl: Any) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=b'x', **acl)


def in_parts(s3: Any, bucket: str, key: str, **acl: Any) -> None:
    upload = {'Bucket': bucket, 'Key': key, 'UploadId': s3.create_multipart_upload(Bucket=bucket, Key=key, **acl)['UploadId']}
    part = {'PartNumber': 1, 'ETag': s3.upload_part(**upload, PartNumber=1, Body=b'x')['ETag']}
    s3.complete_multipart_upload(**upload, MultipartUpload={'Parts': [part]})


def copy(s3: Any, bucket: str, key: str, **acl: Any) -> None:
    s3.copy_object(Bucket=bucket, Key=key, CopySource={'Bucket': bucket, 'Key': 'shared/file'}, **acl)


WAYS: list[Callable[..., None]] = [put, in_parts, copy]


def made_public(s3: Any, storage: Storage, bucket: str) -> set[str]:
    """The ways by which somebody without keys can read an object afterwards."""
    found = set()
    for way in WAYS:
        for number, acl in enumerate(ACLS):
            key = f'shared/{way.__name__}-{number}'
            with suppress(ClientError):
                way(s3, bucket, key, **acl)
            if anybody_gets(storage, bucket, key) == 200:
                found.add(way.__name__)
    return found


def anybody_gets(storage: Storage, bucket: str, key: str) -> int:
    request: Any = SimpleNamespace(method='GET', url=f'{storage.url}/{bucket}/{key}', headers={}, body=None, stream_output=False)
    return URLLib3Session(timeout=60).send(request).status_code


@pytest.fixture(scope='module', params=['sts', 'ceph'])
def storage(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
def bucket(storage: Storage) -> str:
    return filled(storage, f'acls-{uuid4().hex[:8]}')


def guard(storage: Storage, bucket: str) -> clients.Connection:
    """What the server does before it vends keys for writing, without the server around it.

    :returns: With the server's own keys.
    """
    settings = {'provider': storage.provider}
    protocol = {'scheme': storage.scheme, 'hostname': storage.hostname, 'port': storage.port, 'extended_attributes': {'s3': settings}}
    endpoint = Endpoint.load({'rse': 'X', 'id': 'x'}, protocol)
    connection = clients.connect(endpoint, credentials.Static(storage.access_key, storage.secret_key))
    public_acls.ignore(SimpleNamespace(rse='X', rse_id='x', endpoint=endpoint, connection=lambda *_: connection), bucket)  # type: ignore[arg-type]
    return connection


HIDDEN: list[dict[str, Any]] = [
    {'GrantReadACP': EVERYBODY},  # and nothing else, for nobody: Ceph answers 403 to the owner
    {'GrantWriteACP': 'id="rucio"'},
    {'SSECustomerAlgorithm': 'AES256', 'SSECustomerKey': '0' * 32},  # SeaweedFS answers 400 to whoever has not got the key
]


def test_what_is_hidden_from_the_server_is_deleted_all_the_same(storage: Storage, bucket: str) -> None:
    """A few such objects, and Rucio's reaper would take the storage for one that refuses everything, and leave all of its RSE alone."""
    connection, keys = guard(storage, bucket), Keys(storage, bucket, 'shared/', write=True)
    hidden = 0
    for number, how in enumerate(HIDDEN):
        target = Target('X', bucket, f'shared/hidden-{number}')
        with suppress(ClientError):  # Ceph takes keys by https only
            keys.s3.put_object(Bucket=bucket, Key=target.key, Body=b'x', **how)
            with suppress(RucioException):
                objects.stat(connection, target)
                hidden -= 1
            hidden += 1
            objects.delete(connection, target)
        with pytest.raises(SourceNotFound):
            objects.delete(connection, target)
    assert hidden == (2 if isinstance(storage, CephRGW) else 1)


def test_the_attack_works_on_ceph_as_a_bucket_is_made(storage: Storage, bucket: str) -> None:
    """Keys for writing are good for this, whatever their policy says: SeaweedFS heeds no ACL."""
    keys = Keys(storage, bucket, 'shared/', write=True)
    assert made_public(keys.s3, storage, bucket) == ({'put', 'in_parts', 'copy'} if isinstance(storage, CephRGW) else set())


def test_no_acl_makes_anything_public(storage: Storage, bucket: str) -> None:
    """Neither a canned one nor a grant, by any way to write; all of these work otherwise."""
    guard(storage, bucket)
    keys = Keys(storage, bucket, 'shared/', write=True)
    assert made_public(keys.s3, storage, bucket) == set()
    for way in WAYS:
        way(keys.s3, bucket, f'shared/{way.__name__}')
        assert keys.s3.get_object(Bucket=bucket, Key=f'shared/{way.__name__}')['Body'].read()


def test_what_was_public_by_an_acl_is_no_longer(storage: Storage, bucket: str) -> None:
    """Made so before the server was updated."""
    put(storage.client(), bucket, 'shared/old', ACL='public-read')
    guard(storage, bucket)
    assert anybody_gets(storage, bucket, 'shared/old') == 403


def test_the_guard_cannot_be_taken_away(storage: Storage, bucket: str) -> None:
    """With keys for writing."""
    guard(storage, bucket)
    keys = Keys(storage, bucket, '', write=True)
    off = dict.fromkeys(('BlockPublicAcls', 'IgnorePublicAcls', 'BlockPublicPolicy', 'RestrictPublicBuckets'), False)
    for operation, more in (('delete_public_access_block', {}), ('put_public_access_block', {'PublicAccessBlockConfiguration': off})):
        with pytest.raises(ClientError):
            getattr(keys.s3, operation)(Bucket=bucket, **more)


def test_an_owner_can_still_make_a_folder_public(storage: Storage, bucket: str) -> None:
    """`rucio s3 share --public` is a policy of the bucket."""
    guard(storage, bucket)
    storage.client().put_bucket_policy(Bucket=bucket, Policy=public(bucket))
    assert anybody_gets(storage, bucket, 'shared/file') == 200


def test_an_acl_for_a_named_user_is_what_remains(storage: Storage, bucket: str) -> None:
    """Vended keys let a user of the same Ceph read what their holder wrote: no block of ACLs is for that, and of conditions of a session policy
    (``s3:x-amz-grant-read``) Ceph 16 asks PutObject alone, not uploads in parts nor copies. Those without keys get no such signature.
    """
    guard(storage, bucket)
    keys, on_ceph = Keys(storage, bucket, 'shared/', write=True), isinstance(storage, CephRGW)
    user = f'u{uuid4().hex[:8]}'
    if isinstance(storage, CephRGW):
        storage.admin('user', 'create', f'--uid={user}', f'--display-name={user}', f'--access-key={user}', f'--secret={user}')
    somebody = client(storage, Credentials(user, user), 's3')
    readable = set()
    for way in WAYS:
        key = f'shared/{way.__name__}'
        way(keys.s3, bucket, key, GrantRead=f'id="{user}"')
        with suppress(ClientError):
            somebody.get_object(Bucket=bucket, Key=key)
            readable.add(way.__name__)
    assert readable == ({'put', 'in_parts', 'copy'} if on_ceph else set())
    with pytest.raises(ClientError):
        keys.s3.put_object_acl(Bucket=bucket, Key='shared/file', GrantRead=f'id="{user}"')


def test_the_server_sees_to_it_before_it_vends(team_root: RucioCli, ceph: CephRGW, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In a bucket that is there already: nobody has to make it again."""
    owner = add_user(team_root, tmp_path_factory.mktemp('acls'), 'acls', scopes=['user.acls'], attributes=())
    rse_id = add_s3_rse(team_root, 'ACLS_S3', ceph, settings={'provider': 'ceph', 'role_arn': ceph.role_arn}, accounts=('acls',))
    team_root.server.set_rse_keys(rse_id, ceph.access_key, ceph.secret_key)
    bucket = filled(ceph, 'user.acls')
    answer = s3_call(owner, 'get_s3_credentials', 'ACLS_S3', bucket, 'shared/', True)
    keys = Credentials(answer['access_key'], answer['secret_key'], answer['session_token'])
    assert made_public(client(ceph, keys, 's3'), ceph, bucket) == set()
