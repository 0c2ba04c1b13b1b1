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

"""What real storages list: every key as it was written, in the order of bytes, from any key on."""

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.settings import Secrets
from rucio.common.types import InternalScope
from rucio.core.s3 import storages
from rucio.core.s3.reconciler import listings
from rucio.core.s3.reconciler.listings import Unsorted
from rucio.core.s3.subtrees import Subtree

pytestmark = pytest.mark.slow

ODD = [
    *('run1/a', 'run1/a b', 'run1/a+b', 'run1/a%20b', 'run1/a&b<c>"d\'', 'run1/#?;=', 'run1/[]{}|^`', 'run1/*$', 'run1/@:,!()~'),
    *('run1-', 'run1.', 'run10', 'run1_', 'RUN1/a', '0', '~', 'run1/\u00e9', 'run1/e\u0301', 'run1/\u4e2d', 'run1/\U0001f600', 'run1/\uffee'),
]


SORTED = ['ceph']  # as providers.toml says


@pytest.fixture(params=['plain', 'ceph'])
def subtree(request, unique):
    server = request.getfixturevalue(request.param)
    server.client().create_bucket(Bucket=unique)
    endpoint = Endpoint(
        'X',
        'abc123',
        sorted_listing=request.param in SORTED,
        url=f'{server.scheme}://127.0.0.1:{server.port}',
        secrets=Secrets(server.access_key, server.secret_key),
    )
    return Subtree(storages.Storage('X', 'abc123', 'def', endpoint, {}, {}), InternalScope('user.alice'), unique, '', '')


def listed(subtree, *span):
    """As the reconciler does."""
    try:
        return list(listings.entries(subtree, *span))
    except Unsorted as unsorted:
        return list(listings.sorted_entries(subtree, unsorted.everything(), *span))


def test_odd_keys(subtree):
    client = subtree.storage.connection().client
    for key in ODD:
        client.put_object(Bucket=subtree.bucket, Key=key, Body=key.encode())
    found = listed(subtree)
    ordered = sorted(ODD, key=str.encode)
    assert [entry.key for entry in found] == ordered
    for entry in found:
        assert entry.size == len(entry.key.encode())
        # A listing may know fractions of a second.
        assert listings.stat(subtree, entry.key) == entry._replace(modified=pytest.approx(entry.modified, abs=1))
    for index in (0, 3, len(ordered) // 2):
        assert [entry.key for entry in listed(subtree, ordered[index], ordered[-3])] == ordered[index + 1 : -2]


def test_pages(subtree):
    client = subtree.storage.connection().client
    names = [f'run1/{number:04}' for number in range(1005)]
    for name in names:
        client.put_object(Bucket=subtree.bucket, Key=name, Body=b'')
    assert [entry.key for entry in listed(subtree)] == names
    assert listings.stat(subtree, 'run1/none') is None


def test_a_storage_that_is_said_to_sort_does(subtree):
    """And one that is not does not: the day that it does, providers.toml can say so."""
    client = subtree.storage.connection().client
    for key in ('run1', 'run1/a', 'run1-', 'run1.', 'run1/b-', 'run1/b/x'):
        client.put_object(Bucket=subtree.bucket, Key=key, Body=b'')
    order = [entry.key for entry in listings.unordered(subtree)]
    after = [each['Key'] for each in client.list_objects_v2(Bucket=subtree.bucket, StartAfter='run1')['Contents']]
    sorts = order == sorted(order) and after == order[1:]
    assert sorts is subtree.storage.endpoint.sorted_listing
