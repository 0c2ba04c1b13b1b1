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

"""RSEs whose endpoints botocore refuses stand in Rucio's database, beside a good one: `rucio rse protocol add` asks nobody."""

from collections.abc import Iterator

import pytest

from servers.cli import s3_protocol
from servers.rest import Rest
from servers.rucio_server import COPIER, RECONCILER
from servers.team import Team, ok

pytestmark = pytest.mark.long

BAD = {
    'BAD_UNDERSCORE': {'hostname': 's3_storage'},
    'BAD_IPV6': {'hostname': '::1'},
    'BAD_LABEL': {'hostname': f'{"a" * 64}.example'},
    'BAD_REGION': {'extended_attributes': {'s3': {'region': 'eu central 1'}}},
    'BAD_SETTINGS': {'extended_attributes': {'s3': ['provider']}},
}


@pytest.fixture
def team(signed_team: Team) -> Iterator[Team]:
    root, storage = signed_team.root, signed_team.storage
    root.calls(*(('add_rse', rse) for rse in BAD))
    root.calls(*(('add_protocol', rse, {**s3_protocol(storage), **changes}) for rse, changes in BAD.items()))
    for made in root.calls(*(('get_rse', rse) for rse in BAD)):
        root.server.set_rse_keys(made['id'], storage.access_key, storage.secret_key)
    yield signed_team
    root.calls(*(('delete_rse', rse) for rse in BAD))


def test_one_rse_that_botocore_refuses_stops_no_other(team: Team, unique: str) -> None:
    ok(team.owner.rucio('s3', 'make-bucket', team.scope))
    team.storage.client().put_object(Bucket=team.scope, Key=f'{unique}/new', Body=b'22')
    assert team.rse in ok(team.owner.rucio('s3', 'ls'))
    assert unique in ok(team.owner.rucio('s3', 'ls', team.scope))
    done = Rest(team.root)('GET', '/buckets?rse=BAD_UNDERSCORE')
    assert (done.status, "'s3_storage'" in str(done.content)) == (500, True)

    said = team.root.server.run_daemon(*RECONCILER, '--run-once', '--rses', '|'.join((team.rse, *BAD)))
    assert all(f'RSE {rse}' in said for rse in BAD)
    assert team.owner.call('get_metadata', team.scope, f'{unique}/new')['bytes'] == 2
    ok(team.owner.rucio('s3', 'reconcile', f'{team.scope}:{unique}'))
    ok(team.owner.rucio('s3', 'url', f'{team.scope}:{unique}/new'))
    team.root.server.run_daemon(*COPIER, '--run-once')
