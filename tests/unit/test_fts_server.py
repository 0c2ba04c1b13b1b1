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


"""
The FTS of the tests takes, answers and refuses what a real one does. The answers here are those of fts-rest-flask 3.13.4 on MariaDB 10.11 (schema
9.1.0), asked with the same requests on 2026-11-29: RUCIO_S3_TEST_FTS is the URL of a real one to be asked instead, RUCIO_S3_TEST_FTS_PROXY a file
with a certificate and its key that it knows. Its jobs there are for hosts that do not exist.
"""

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from servers.fts import FTS
from servers.fts_real import PROXY, REAL

S3, S3S, DAVS = 's3://a.test:8000/b/k', 's3s://b.test/b/k', 'davs://c.test:1/x/k?copy_mode=push'
FIELDS = 'files=file_state,dest_surl,finish_time,start_time,staging_start,staging_finished,reason,source_surl,file_metadata'
UNKNOWN = '00000000-0000-0000-0000-000000000000'
NO_JOB = {'job_id': UNKNOWN, 'http_status': '404 Not Found', 'http_message': f'No job with the id "{UNKNOWN}" has been found'}
INVALID = 'Invalid value within the request: '


class Asked(NamedTuple):
    url: str
    session: requests.Session


@pytest.fixture
def fts(tmp_path: Path) -> Iterator[Asked]:
    """It begins with none of its copies."""
    with requests.Session() as session, contextlib.ExitStack() as stack:
        session.cert = PROXY
        if REAL:
            yield Asked(REAL, session)
            return
        made = stack.enter_context(FTS(tmp_path, []))
        for _ in range(3):
            made.hold()
        yield Asked(made.url, session)


def file(*sources: str, destination: str = S3S, **changes: Any) -> dict[str, Any]:
    common = {'metadata': {'name': 'f'}, 'filesize': 5, 'checksum': None, 'selection_strategy': 'orderly', 'activity': 'User Subscriptions'}
    return {'sources': list(sources), 'destinations': [destination], **common, **changes}


def post(fts: Asked, files: list[dict[str, Any]] | None = None, path: str = '/jobs', **params: Any) -> requests.Response:
    asked = {'files': files or [file(S3)], 'params': {'overwrite': True, 'job_metadata': {'issuer': 'rucio'}, 'priority': 3, **params}}
    return fts.session.post(fts.url + path, json=asked, timeout=60)


def submit(fts: Asked, files: list[dict[str, Any]] | None = None, **params: Any) -> str:
    return post(fts, files, **params).json()['job_id']


def states(fts: Asked, job_id: str) -> list[str]:
    return [each['file_state'] for each in fts.session.get(f'{fts.url}/jobs/{job_id}?files=file_state', timeout=60).json()['files']]


@pytest.mark.parametrize(
    ('url', 'why'),
    [
        ('nothing', 'Missing scheme (nothing)'),
        ('file:///x', 'Can not transfer local files (file:///x)'),
        ('s3://host', 'Missing path (s3://host)'),
        ('s3://host/', 'Missing path (s3://host/)'),
    ],
)
def test_urls_that_are_none_are_refused(fts: Asked, url: str, why: str) -> None:
    for files in ([file(url)], [file(S3, destination=url)]):
        refused = post(fts, files)
        assert (refused.status_code, refused.json()) == (400, {'status': '400 Bad Request', 'message': INVALID + why})


def test_any_scheme_is_taken(fts: Asked) -> None:
    assert post(fts, [file('magnet://host/x')]).status_code == 200


@pytest.mark.parametrize(
    ('files', 'params', 'why'),
    [
        ([file()], {}, 'No valid pairs available'),
        ([{'destinations': [S3]}], {}, "Missing parameter: 'sources'"),
        ([file(S3, DAVS), file(S3)], {}, 'Multiple replica jobs must only have one unique file'),
        (
            [file(S3, DAVS)],
            {'multihop': True},
            'Can not request multiple replica job together with multihop or session reuse at the same time',
        ),
        ([file(S3, DAVS, selection_strategy='nearest')], {}, 'nearest algorithm is not supported by Scheduler'),
        ([file(S3)], {'overwrite_hop': True}, 'Incompatible overwrite flags used at the same time'),
        ([file(S3)], {'overwrite': False, 'overwrite_hop': True}, "'overwrite-hop' requires multihop job submission"),
        ([file(S3, metadata={'x': 'y' * 5000})], {}, f'{INVALID}Job Submission Refused, metadata exceeds size limit of 4096'),
        ([file(S3)], {'job_metadata': {'x': 'y' * 3000}}, f'{INVALID}Job Submission Refused, metadata exceeds size limit of 2048'),
        ([file(S3)], {'id_generator': 'deterministic'}, 'Need sid for deterministic job id generation'),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else '',
)
def test_jobs_are_refused(fts: Asked, files: list[dict[str, Any]], params: dict[str, Any], why: str) -> None:
    refused = post(fts, files, **params)
    assert (refused.status_code, refused.json()['message']) == (400, why)


@pytest.mark.parametrize(('length', 'status'), [(1100, 200), (1101, 500)])
def test_urls_have_a_limit(fts: Asked, length: int, status: int) -> None:
    """That of a column of its database. One long name is enough for the whole job."""
    long = S3S + 'k' * (length - len(S3S))
    assert post(fts, [file(S3), file(S3, destination=long)]).status_code == status


def test_only_json_is_taken(fts: Asked) -> None:
    for body, headers, why in (
        ('{', {'Content-Type': 'application/json'}, 'Badly formatted JSON request'),
        ('{}', {'Content-Type': 'application/json'}, 'No transfers operations specified'),
        ('{}', {}, 'Expecting application/json or application/x-www-form-urlencoded'),
    ):
        refused = fts.session.post(f'{fts.url}/jobs', data=body, headers=headers, timeout=60)
        assert (refused.status_code, refused.json()['message']) == (400, why)


def test_the_same_sid_is_the_same_job_and_refused(fts: Asked) -> None:
    """Rucio works out the id itself (`[conveyor] use_deterministic_id`), from what FTS says of itself."""
    who = fts.session.get(f'{fts.url}/whoami', timeout=60).json()
    sid = uuid.uuid4().hex
    expected = uuid.uuid5(uuid.uuid5(uuid.UUID(who['base_id']), who['vos'][0]), sid)
    assert submit(fts, id_generator='deterministic', sid=sid) == str(expected)
    again = post(fts, id_generator='deterministic', sid=sid)
    assert (again.status_code, again.json()['message']) == (409, 'The sid provided by the user is duplicated')


@pytest.mark.parametrize(
    ('files', 'params', 'kind', 'expected'),
    [
        ([file(S3), file(S3)], {}, 'N', {'SUBMITTED', 'ACTIVE'}),
        ([file(S3, DAVS)], {}, 'R', {'NOT_USED'}),
        ([file(DAVS, destination=S3), file(S3)], {'multihop': True}, 'H', {'NOT_USED'}),
    ],
)
def test_what_waits_for_others_is_not_used_yet(fts: Asked, files: list[dict[str, Any]], params: dict[str, Any], kind: str, expected: set[str]) -> None:
    job_id = submit(fts, files, **params)
    first, second = states(fts, job_id)
    assert first in {'SUBMITTED', 'ACTIVE'}
    assert second in expected
    job = fts.session.get(f'{fts.url}/jobs/{job_id}', timeout=60).json()
    assert (job['job_type'], job['job_state'] in {'SUBMITTED', 'ACTIVE'}) == (kind, True)
    assert job['job_metadata'] == {'issuer': 'rucio', 'auth_method': 'certificate'}
    assert 'files' not in job


def test_only_what_was_asked_for_is_said_of_files(fts: Asked) -> None:
    job = fts.session.get(f'{fts.url}/jobs/{submit(fts)}?{FIELDS}', timeout=60).json()
    assert {name for each in job['files'] for name in each} == set(FIELDS.partition('=')[2].split(','))


def test_what_is_not_known_is_said_of_each(fts: Asked) -> None:
    job_id = submit(fts)
    alone = fts.session.get(f'{fts.url}/jobs/{UNKNOWN}?{FIELDS}', timeout=60)
    assert (alone.status_code, alone.json()) == (404, NO_JOB)
    both = fts.session.get(f'{fts.url}/jobs/{UNKNOWN},{job_id}?{FIELDS}', timeout=60)
    assert (both.status_code, [each['http_status'] for each in both.json()]) == (207, ['404 Not Found', '200 Ok'])
    for answer in (fts.session.delete(f'{fts.url}/jobs/{UNKNOWN}', timeout=60), post(fts, path=f'/jobs/{UNKNOWN}', priority=5)):
        assert (answer.status_code, answer.json()) == (404, NO_JOB)


def test_what_has_ended_stays_as_it_is(fts: Asked) -> None:
    job_id = submit(fts, [file(S3, DAVS)])
    cancelled = fts.session.delete(f'{fts.url}/jobs/{job_id}', timeout=60)
    assert (cancelled.status_code, cancelled.json()['job_state'], cancelled.json()['http_status']) == (200, 'CANCELED', '200 Ok')
    assert states(fts, job_id) == ['CANCELED', 'NOT_USED']
    for again in (fts.session.delete(f'{fts.url}/jobs/{job_id}', timeout=60), post(fts, path=f'/jobs/{job_id}', priority=5)):
        assert again.status_code == 200
        assert (again.json()['http_status'], again.json()['http_message']) == ('304 Not Modified', 'The job is in a terminal state')
        assert again.json()['priority'] == 3


def test_a_priority_is_a_number(fts: Asked) -> None:
    job_id = submit(fts)
    assert post(fts, path=f'/jobs/{job_id}', priority='5').json()['priority'] == 5
    refused = fts.session.post(
        f'{fts.url}/jobs/{job_id}', data=json.dumps({'params': {'priority': 'x'}}), headers={'Content-Type': 'application/json'}, timeout=60
    )
    assert (refused.status_code, refused.json()['message']) == (400, 'Invalid priority value')
