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


"""One request in three logs: what `rucio s3` sends is found in that of the Rucio server and in that of the storage."""

import re

import pytest

from rucio.common.exception import RSEAccessDenied
from rucio.common.s3 import clients, credentials, request_ids
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target, translated
from servers.ceph import CephRGW
from servers.fake_s3 import FakeS3
from servers.process import until
from servers.team import Team, ok

pytestmark = pytest.mark.integration


def test_a_command_is_found_in_the_log_of_the_server_and_at_the_storage(signed_team: Team, unique: str) -> None:
    rse = unique.upper()
    root = signed_team.root
    with FakeS3() as storage:  # type: ignore[no-untyped-call]
        ok(root.rucio('s3', 'rse', 'add', rse, '--endpoint', storage.url, '--anonymous', '--read-only'))
        storage.requests.clear()
        ok(root.rucio('s3', 'ls', '--rse', rse))
        ids = {found[1] for each in storage.requests if (found := re.search('rucio-s3-request/([0-9a-f]{16})$', each.headers['user-agent']))}
        root.call('delete_protocols', rse, 'http')
    assert len(ids) == 1
    log = root.server.log.read_text(errors='replace')
    assert re.search(f'S3: request {ids.pop()} of root: GET /s3/buckets: 200 in ', log)


def test_a_refusal_is_found_in_the_log_of_ceph(ceph: CephRGW) -> None:
    endpoint = Endpoint('CEPH', 'ceph', ceph.url, provider='ceph')
    connection = clients.connect(endpoint, credentials.Static(ceph.access_key, 'wrong'))
    with pytest.raises(RSEAccessDenied) as caught, translated('ls', Target('CEPH', 'b')):
        connection.client.list_buckets()
    told = re.search(r'\[request ([0-9a-f]{16}), of the storage (tx[\w-]+)\]$', str(caught.value))
    assert told is not None
    assert told[1] == request_ids.current()
    log = ceph.directory / 'rgw.log'
    until(lambda: f'rucio-s3-request/{told[1]}' in log.read_text(errors='replace'))
