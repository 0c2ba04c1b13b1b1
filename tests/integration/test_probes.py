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


"""Real storages that lack something: what is measured of them, and that uploads, copies and renames work nevertheless."""

from collections.abc import Iterator
from io import BytesIO

import pytest

from faults.proxy import Exchange, Fault, FaultProxy, answer, forward
from rucio.common.exception import FileReplicaAlreadyExists, RSEOperationNotSupported
from rucio.common.s3 import clients, credentials, objects, probes, transfer
from rucio.common.s3.clients import Connection
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from rucio.common.s3.probes import verdicts
from servers.boto import copies_conditionally
from servers.ceph import CephRGW
from servers.seaweedfs import SeaweedFS

PART = 5 * 1024**2


def refuse_header(name: str, status: int, code: str) -> Fault:
    """Requests with this header are refused, others are forwarded."""

    def fault(exchange: Exchange) -> None:
        present = name in {each.lower() for each in exchange.request.headers}
        (answer(status, code) if present else forward)(exchange)

    return fault


def need_header(name: str, status: int, code: str) -> Fault:
    """Requests without this header are refused."""

    def fault(exchange: Exchange) -> None:
        present = name in {each.lower() for each in exchange.request.headers}
        (forward if present else answer(status, code))(exchange)

    return fault


class Lacking(FaultProxy):
    """SeaweedFS, but for what is said by :meth:`always`."""

    def __init__(self, server: SeaweedFS) -> None:
        self._lacks: dict[str, Fault] = {}
        super().__init__(server.hostname, server.port, lambda request: self._lacks.get(request.operation, forward))

    def always(self, operation: str, fault: Fault) -> None:
        self._lacks[operation] = fault


@pytest.fixture
def proxy(plain: SeaweedFS) -> Iterator[Lacking]:
    with Lacking(plain) as proxy:
        yield proxy


def connected(server: SeaweedFS | CephRGW, provider: str, port: int, **settings: object) -> Connection:
    extended = {'s3': {'provider': provider, 'addressing': 'path', 'multipart_threshold': PART, 'multipart_chunksize': PART, **settings}}
    protocol = {'scheme': 'http', 'hostname': '127.0.0.1', 'port': port, 'extended_attributes': extended}
    endpoint = Endpoint.load({'rse': 'ODD', 'id': '0' * 32}, protocol)
    return clients.connect(endpoint, credentials.Static(server.access_key, server.secret_key))


def upload(connection: Connection, target: Target, body: bytes) -> None:
    transfer.upload_stream(connection, BytesIO(body), len(body), target)


def content(connection: Connection, target: Target) -> bytes:
    with connection.client.get_object(Bucket=target.bucket, Key=target.key)['Body'] as body:
        return body.read()


@pytest.mark.parametrize('size', [10, PART + 1])
def test_a_storage_that_answers_501_to_if_none_match(plain: SeaweedFS, proxy: Lacking, unique: str, size: int) -> None:
    for operation in ('PutObject', 'CompleteMultipartUpload', 'CopyObject'):
        proxy.always(operation, refuse_header('if-none-match', 501, 'NotImplemented'))
    connection = connected(plain, 'seaweedfs', proxy.port)
    objects.make_bucket(connection, Target('ODD', unique))
    first, copied, moved = (Target('ODD', unique, name) for name in ('first', 'copied', 'moved'))

    upload(connection, first, b'a' * size)
    with pytest.raises(FileReplicaAlreadyExists):
        upload(connection, first, b'b' * size)
    transfer.copy(connection, first, copied)
    transfer.move(connection, copied, moved)

    assert content(connection, first) == content(connection, moved) == b'a' * size
    assert not objects.exists(connection, copied)


@pytest.mark.skipif(not copies_conditionally(), reason='this boto3 has no If-None-Match of CopyObject')
def test_a_storage_that_compares_if_none_match_with_the_source_of_a_copy(plain: SeaweedFS, proxy: Lacking, unique: str) -> None:
    proxy.always('CopyObject', refuse_header('if-none-match', 412, 'PreconditionFailed'))
    connection = connected(plain, 'seaweedfs', proxy.port)
    objects.make_bucket(connection, Target('ODD', unique))
    first, copied, moved = (Target('ODD', unique, name) for name in ('first', 'copied', 'moved'))
    upload(connection, first, b'content')

    with pytest.raises(RSEOperationNotSupported, match='compares If-None-Match with the source'):
        transfer.copy(connection, first, copied)
    transfer.copy(connected(plain, 'seaweedfs', proxy.port, if_none_match='put multipart'), first, copied)
    with pytest.raises(FileReplicaAlreadyExists):
        transfer.move(connection, copied, first)
    transfer.move(connection, copied, moved)

    assert content(connection, first) == content(connection, moved) == b'content'


def test_a_storage_that_wants_content_md5(plain: SeaweedFS, proxy: Lacking, unique: str) -> None:
    for operation in ('POST bucket', 'PUT bucket'):
        proxy.always(operation, need_header('content-md5', 400, 'InvalidRequest'))
    connection = connected(plain, 'seaweedfs', proxy.port)
    bucket, key = Target('ODD', unique), Target('ODD', unique, 'k')
    plain.client().create_bucket(Bucket=unique)
    upload(connection, key, b'content')

    assert objects.delete_many(connection, [key]) == {key: None}
    rule = {'ID': 'x', 'Status': 'Enabled', 'Filter': {'Prefix': ''}, 'AbortIncompleteMultipartUpload': {'DaysAfterInitiation': 7}}
    connection.client.put_bucket_lifecycle_configuration(Bucket=bucket.bucket, LifecycleConfiguration={'Rules': [rule]})
    connection.client.put_bucket_tagging(Bucket=bucket.bucket, Tagging={'TagSet': [{'Key': 'a', 'Value': 'b'}]})
    assert not objects.exists(connection, key)


def test_all_of_it_is_measured(plain: SeaweedFS, proxy: Lacking) -> None:
    proxy.always('PutObject', refuse_header('if-none-match', 501, 'NotImplemented'))
    proxy.always('CopyObject', refuse_header('if-none-match', 412, 'PreconditionFailed'))
    proxy.always('POST bucket', need_header('content-md5', 400, 'InvalidRequest'))
    connection = connected(plain, 'seaweedfs', proxy.port)
    with probes.in_bucket_of_its_own(connection) as place:
        place.races = 1
        found = {part: probes.measure(place, part) for part in ('writing', 'integrity')}

    assert found['integrity']['without_md5'] == '400 InvalidRequest'
    assert found['integrity']['without_crc32'] == 'yes'
    differ = verdicts.differences(connection.endpoint, found['writing'] | found['integrity'])
    assert {each.setting: (each.measured, each.tightens) for each in differ} == {
        'conditional_put': (False, True),
        'if_none_match': (('multipart',), False),
    }


@pytest.mark.long  # test_check.py sees the same in the last row of a check
@pytest.mark.parametrize('kind', ['plain', 'ceph'])
def test_the_settings_of_a_provider_say_what_the_storage_does(request: pytest.FixtureRequest, kind: str) -> None:
    better = {'ceph': ('verifies_body',)}  # until version 20: what a provider promises, all its versions keep
    server = request.getfixturevalue(kind)
    connection = connected(server, {'plain': 'seaweedfs', 'ceph': 'ceph'}[kind], server.port)
    before = {each['Name'] for each in server.client().list_buckets()['Buckets']}
    with probes.in_bucket_of_its_own(connection) as place:
        place.races = 1
        answers = probes.measure(place)

    differ = verdicts.differences(connection.endpoint, answers)
    assert [each for each in differ if each.setting not in better.get(kind, ())] == []
    assert all(each.measured and not each.tightens for each in differ)
    assert len(verdicts.earned(answers)) == 10
    assert {each['Name'] for each in server.client().list_buckets()['Buckets'] if 'rucio-s3-check' in each['Name']} <= before
