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

"""A storage that accepts connections and says nothing, beside one that is well, behind the same Rucio server."""

import json
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from servers.fake_s3 import FakeS3, Stalled
from servers.process import until
from servers.rest import Rest, send
from servers.team import Team, ok

RSE = 'SILENT_S3'
REQUESTS = 6


@pytest.fixture
def silent(signed_team: Team) -> Iterator[FakeS3]:
    root = signed_team.root
    with FakeS3() as storage:  # type: ignore[no-untyped-call]
        ok(root.rucio('s3', 'rse', 'add', RSE, '--endpoint', storage.url, '--anonymous', '--read-only', '--setting', 'read_timeout=1'))
        yield storage
        root.call('delete_protocols', RSE, 'http')


def test_a_silent_storage_is_asked_once_by_each_worker_and_again_when_it_is_back(signed_team: Team, silent: FakeS3) -> None:
    root = Rest(signed_team.root)
    silent.fail('ListBuckets', *[Stalled()] * 100)  # type: ignore[no-untyped-call]
    answers = [root('GET', f'/buckets?rse={RSE}') for _ in range(REQUESTS)]
    assert {answer.status for answer in answers} == {503}
    assert all('does not answer' in json.dumps(answer.content) for answer in answers)
    # Two workers, and what each of them asks by itself.
    assert silent.operations().count('ListBuckets') < 2 * REQUESTS
    assert root('GET', f'/buckets?rse={signed_team.rse}').status == 200
    # Each worker has seen its own requests.
    server = signed_team.root.server
    until(lambda: send(server, 'GET', '/s3/health', {}).content.keys() == {'status', 'version'})
    until(lambda: send(server, 'GET', '/s3/health', {}).content['status'] == 'degraded')
    until(lambda: ('silent', ['s3'], 'silent (s3)') in [(each['state'], each['silent'], each['failure']) for each in root.ok('GET', '/health')['storages']])
    seen: dict[tuple[str, str | None], float] = {}
    for family in text_string_to_metric_families(send(server, 'GET', '/metrics/', {}).text):
        for sample in family.samples:
            if sample.labels.get('rse') == RSE:
                key = sample.name, sample.labels.get('outcome')
                seen[key] = max(sample.value, seen.get(key, 0))
    assert seen['rucio_core_s3_silent', None] == 1
    assert seen['rucio_core_s3_requests_total', 'silent'] >= 1
    assert seen['rucio_core_s3_requests_total', 'withheld'] >= 1
    silent._faults.clear()
    until(lambda: root('GET', f'/buckets?rse={RSE}').status == 200)
