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

"""Keys that XML cannot hold, among others, on real storages: one of them made DeleteObjects fail for all."""

from contextlib import suppress

import pytest
from botocore.exceptions import ClientError

from rucio.common.s3 import clients, objects
from rucio.common.s3.credentials import Static
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from servers.team import Team, ok

ODD = ['a\x07b', 'a\ufffeb', 'a\uffffb', 'a\x0bb', 'a\tb', 'a\rb', 'a\nb', 'a\x7fb', 'a\x85b', 'a\U0010ffffb']


def put(client, bucket, prefix):
    """Each odd key that the storage takes, among 20 others."""
    stored = []
    for key in [*ODD, *map(str, range(20))]:
        with suppress(ClientError):
            client.put_object(Bucket=bucket, Key=f'{prefix}/{key}', Body=b'')
            stored.append(f'{prefix}/{key}')
    assert len(stored) > 20
    return stored


@pytest.mark.parametrize('provider', ['seaweedfs', 'ceph'])
def test_odd_keys_stop_no_other_from_being_deleted(request, provider, unique):
    storage = request.getfixturevalue({'seaweedfs': 'plain', 'ceph': 'ceph'}[provider])
    client = storage.client()
    client.create_bucket(Bucket=unique)
    stored = put(client, unique, 'x')
    endpoint = Endpoint('X', '', storage.url, provider=provider, checksum='md5', region=storage.region)
    connection = clients.connect(endpoint, Static(storage.access_key, storage.secret_key))
    found = objects.delete_many(connection, [Target('X', unique, key) for key in stored])
    assert set(found.values()) == {None}
    for key in stored:
        with pytest.raises(ClientError, match='404'):
            client.head_object(Bucket=unique, Key=key)


def test_odd_keys_do_not_hold_a_bucket(signed_team: Team, unique):
    ok(signed_team.owner.rucio('s3', 'make-bucket', signed_team.scope))
    client = signed_team.storage.client()
    client.put_object(Bucket=signed_team.scope, Key='kept', Body=b'')
    put(client, signed_team.scope, unique)
    ok(signed_team.owner.rucio('s3', 'remove-bucket', f'{signed_team.scope}:{unique}', '--force'))
    assert not client.list_objects_v2(Bucket=signed_team.scope, Prefix=f'{unique}/').get('Contents')
