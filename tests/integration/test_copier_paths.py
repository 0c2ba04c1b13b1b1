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

"""Rules between S3 RSEs without FTS: Ceph as source, as destination and as both, a third RSE on the way, RSEs that are not deterministic."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from faults.proxy import FaultProxy
from rucio.common.s3 import transfer
from rucio.common.s3.address import parse_url
from rucio.common.s3.clients import connect
from rucio.common.s3.credentials import choose
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from rucio.common.s3.settings import Secrets
from servers.ceph import CephRGW
from servers.cli import add_s3_rse
from servers.conveyor import SCOPE, Conveyor, MiB, Place
from servers.seaweedfs import SeaweedFS

A, CEPH, CEPH2, FAR = 'PATH_A', 'PATH_CEPH', 'PATH_CEPH2', 'PATH_FAR'
SMALL, LARGE = 1024, 40 * MiB
pytestmark = pytest.mark.long


@pytest.fixture(scope='module')
def conveyor(tmp_path_factory: pytest.TempPathFactory, plain: SeaweedFS, ceph: CephRGW) -> Iterator[Conveyor]:
    """From PATH_A to PATH_FAR, and the other way round, all goes over PATH_CEPH."""
    with contextlib.ExitStack() as stack:
        places = {
            A: Place(plain, settings={'bucket_prefix': 'path-'}),
            CEPH: Place(ceph, settings={'provider': 'ceph'}, attributes={'available_for_multihop': True}),
            CEPH2: Place(ceph, settings={'provider': 'ceph', 'bucket_prefix': 'second-'}),
            FAR: Place(plain, settings={'bucket_prefix': 'far-'}),
        }
        yield Conveyor.make(stack, tmp_path_factory.mktemp, places, far=((A, FAR), (FAR, A)))


def test_ceph(conveyor: Conveyor, unique: str) -> None:
    names = conveyor.upload(unique, SMALL, 0, LARGE)
    there = conveyor.add_rule(unique, CEPH)
    assert conveyor.bring().count(': relayed, ') == 3
    assert conveyor.rule_state(there) == 'OK'
    assert conveyor.is_complete(CEPH, names)
    beside = conveyor.add_rule(unique, CEPH2, source_replica_expression=CEPH)
    assert conveyor.bring().count(': copied, ') == 3
    assert conveyor.rule_state(beside) == 'OK'
    assert conveyor.is_complete(CEPH2, names)
    back = conveyor.add_rule(unique, FAR, source_replica_expression=CEPH)
    assert conveyor.bring().count(': relayed, ') == 3
    assert conveyor.rule_state(back) == 'OK'
    assert conveyor.is_complete(FAR, names)
    assert not any(conveyor.uploads(rse, unique) for rse in (CEPH, CEPH2, FAR))


@pytest.mark.parametrize('where', ['plain', 'ceph'])
def test_what_is_large_is_copied_in_parts_by_the_storage(where: str, request: pytest.FixtureRequest, unique: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 1 GiB, and so also beyond the 5 GiB that CopyObject takes; here both numbers are smaller."""
    storage = request.getfixturevalue(where)
    content, bucket = os.urandom(23 * MiB + 1), f'{where}-{unique}'
    storage.client().create_bucket(Bucket=bucket)
    storage.client().put_object(Bucket=bucket, Key='source', Body=content)
    monkeypatch.setattr(transfer, 'COPY_THRESHOLD', 10 * MiB)
    monkeypatch.setattr(transfer, 'COPY_PART', 5 * MiB)
    with FaultProxy(storage.hostname, storage.port) as proxy:
        endpoint = Endpoint('LARGE', unique, f'http://127.0.0.1:{proxy.port}', secrets=Secrets(storage.access_key, storage.secret_key))
        connection = connect(endpoint, choose(replace(endpoint, auth='static')))
        transfer.copy(connection, Target('LARGE', bucket, 'source'), Target('LARGE', bucket, 'copy'))
        asked = proxy.operations()
        bodies = sum(len(each.body) for each in proxy.seen if each.operation == 'UploadPartCopy')
    assert (asked.count('UploadPartCopy'), bodies) == (5, 0)
    assert not {'GetObject', 'PutObject', 'UploadPart'} & set(asked)
    assert storage.client().get_object(Bucket=bucket, Key='copy')['Body'].read() == content
    assert not storage.client().list_multipart_uploads(Bucket=bucket).get('Uploads')


def test_a_third_rse_on_the_way(conveyor: Conveyor, unique: str) -> None:
    names = conveyor.upload(unique, SMALL, 0)
    rule = conveyor.add_rule(unique, FAR)
    assert 'Best path is multihop' in conveyor.submit()
    hops = 'SELECT name, dest_rse_id, state FROM requests WHERE name LIKE :names'
    assert len(conveyor.rows(hops, names=f'{unique}.%')) == 2 * len(names)
    said = conveyor.copy()
    conveyor.finish()
    assert said.count(': relayed, ') == len(names)
    assert conveyor.is_complete(CEPH, names)
    assert conveyor.rule_state(rule) == 'REPLICATING'
    said = conveyor.bring()
    assert said.count(': relayed, ') == len(names)
    assert conveyor.is_complete(FAR, names)
    assert conveyor.rule_state(rule) == 'OK'
    assert not conveyor.requests(unique)


@pytest.mark.parametrize('sign_url', [None, 's3'])
def test_an_rse_that_is_not_deterministic(conveyor: Conveyor, plain: SeaweedFS, unique: str, sign_url: str | None) -> None:
    """Where its files lie, the submitter decides, and the finisher notes it: both with and without URLs that Rucio rewrites for FTS."""
    rse, bucket = f'ANYWHERE_{unique}'.upper(), f'anywhere-{unique}'
    plain.client().create_bucket(Bucket=bucket)
    add_s3_rse(conveyor.root, rse, plain, accounts=('mia',), prefix=f'/{bucket}/', attributes={'lfn2pfn_algorithm': None, 'sign_url': sign_url})
    conveyor.root.calls(('update_rse', rse, {'deterministic': False}), ('add_distance', A, rse, {'distance': 1}))
    conveyor.server.set_rse_keys(conveyor.root.call('get_rse', rse)['id'], plain.access_key, plain.secret_key)
    names = conveyor.upload(unique, SMALL, 0)
    rule = conveyor.add_rule(unique, rse)
    conveyor.bring()
    assert conveyor.rule_state(rule) == 'OK', conveyor.errors(unique)
    for name in names:
        [replica] = conveyor.mia.call('list_replicas', [{'scope': SCOPE, 'name': name}], rse_expression=rse)
        [pfn] = replica['rses'][rse]
        url = parse_url(pfn)
        assert url.bucket == bucket
        content = [
            storage.get_object(Bucket=where, Key=key)['Body'].read()
            for storage, where, key in ((plain.client(), url.bucket, url.key), (conveyor.client(A), conveyor.places[A].bucket, name))
        ]
        assert content[0] == content[1]
