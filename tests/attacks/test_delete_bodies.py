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

"""A signature is for a request, not for its body: other keys are sent with a signed DeleteObjects."""

import base64
import hashlib
from dataclasses import replace
from typing import Any

import pytest

from rucio.common.exception import AccessDenied
from rucio.common.s3 import clients, objects
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from rucio.common.s3.remote import Remote
from servers.boto import S3Server
from servers.ceph import CephRGW
from servers.rest import Rest
from servers.signer import Signer, asked, headers_of, send, sign, signed_by_force
from servers.team import Team

BUCKET = 'attack-bodies'
SHARED, VICTIM = 'shared/zz', 'private/secret'


def deletion(key: str) -> bytes:
    return f'<Delete><Object><Key>{key}</Key></Object></Delete>'.encode()


def shared_only(bucket: str, name: str, write: bool) -> None:
    """What somebody may who was granted to write below ``shared/``."""
    if bucket != BUCKET or not name.startswith('shared/'):
        raise AccessDenied('not yours')


def with_other_body(storage: S3Server, headers: dict[str, str], key: str) -> int:
    body = deletion(key)
    md5 = {'Content-MD5': base64.b64encode(hashlib.md5(body).digest()).decode()}
    return send(storage, 'POST', f'/{BUCKET}?delete', headers | md5, body)[0]


def is_there(storage: S3Server, key: str) -> bool:
    return key in [each['Key'] for each in storage.client().list_objects_v2(Bucket=BUCKET).get('Contents', [])]


@pytest.fixture(params=['plain', 'ceph'])
def storage(request: pytest.FixtureRequest) -> S3Server:
    """With an object of somebody else, and one that the attacker may delete."""
    made: S3Server = request.getfixturevalue(request.param)
    client = made.client()
    if BUCKET not in [each['Name'] for each in client.list_buckets()['Buckets']]:
        client.create_bucket(Bucket=BUCKET)
    for key in (SHARED, VICTIM):
        client.put_object(Bucket=BUCKET, Key=key, Body=b'content')
    return made


def verifies(storage: S3Server) -> bool:
    """Whether it compares the body of DeleteObjects with what was signed."""
    return isinstance(storage, CephRGW) and storage.release < 20


def test_a_signed_deletion_sent_with_other_keys(storage: S3Server) -> None:
    """Write access to one folder: have DeleteObjects signed for a key in it, and send a key of another folder. Would delete any object of the bucket."""
    request = asked(storage, 'POST', f'/{BUCKET}?delete', body=deletion(SHARED))
    with pytest.raises(AccessDenied, match='one by one'):
        sign(Signer.of(storage), [request], shared_only)
    if verifies(storage):  # and its operator says so: the signature is good for this body only
        signer = Signer(replace(Signer.of(storage).endpoint, verifies_body=True), storage)
        (answer,) = sign(signer, [request], shared_only)
        assert with_other_body(storage, headers_of(answer), VICTIM) == 400
    assert is_there(storage, VICTIM)


def test_what_is_refused_would_have_worked(storage: S3Server) -> None:
    """The same with a signature that is made by force: why the server refuses on one storage, and need not on the other."""
    signed = signed_by_force(storage, 'POST', f'/{BUCKET}?delete', {}, deletion(SHARED))
    status = with_other_body(storage, signed, VICTIM)
    assert (status, is_there(storage, VICTIM)) == ((400, True) if verifies(storage) else (200, False))


def test_an_unknown_storage_counts_as_one_that_does_not_verify(storage: S3Server) -> None:
    """The RSE says nothing of its provider: the same refusal, also where the storage would verify."""
    signer = Signer(Endpoint(rse='X', rse_id='', url=storage.url), storage)
    with pytest.raises(AccessDenied, match='verifies_body'):
        sign(signer, [asked(storage, 'POST', f'/{BUCKET}?delete', body=deletion(SHARED))], shared_only)


def test_clients_delete_what_they_may_one_by_one(storage: S3Server) -> None:
    """The other side of the guard: who may write to one folder deletes many objects of it in one call, without an error."""

    class Server(Signer):
        def sign_s3_requests(self, rse: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return sign(self, requests, shared_only)

    server = Server.of(storage)
    connection = clients.connect(server.endpoint, Remote(server.endpoint, server))
    mine, foreign = Target('X', BUCKET, SHARED), Target('X', BUCKET, VICTIM)
    assert objects.delete_many(connection, [mine]) == {mine: None}
    assert isinstance(objects.delete_many(connection, [foreign])[foreign], Exception)
    assert (is_there(storage, SHARED), is_there(storage, VICTIM)) == (False, True)


@pytest.fixture(scope='module')
def fritz(signed_team: Team) -> Rest:
    """May write below ``shared`` of ernest's bucket."""
    ernest, shared = Rest(signed_team.owner), {'scope': signed_team.scope, 'name': 'shared'}
    assert ernest('POST', '/buckets', shared).status == 201
    assert ernest('POST', '/grants', {**shared, 'account': 'fritz', 'write': True}).status == 201
    return Rest(signed_team.other)


def test_by_the_rest_interface(signed_team: Team, fritz: Rest) -> None:
    """The first attack as it was seen, on a server: a grantee deletes the owner's private object."""
    request = asked(signed_team.storage, 'POST', f'/{signed_team.scope}?delete', body=deletion('shared/zz'))
    answer = fritz('POST', '/sign', {'rse': signed_team.rse, 'requests': [request]})
    assert (answer.status, 'one by one' in str(answer.content)) == (403, True), str(answer.content)
    single = asked(signed_team.storage, 'DELETE', f'/{signed_team.scope}/shared/zz')
    assert fritz('POST', '/sign', {'rse': signed_team.rse, 'requests': [single]}).status == 200
    assert Rest(signed_team.owner)('POST', '/sign', {'rse': signed_team.rse, 'requests': [request]}).status == 200
