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


import contextlib
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError

pytest.importorskip('prometheus_client', reason='rucio-clients has no server')

from prometheus_client import REGISTRY

import rucio.core.monitor  # noqa: F401 - as on a server
from rucio.common.s3 import breaker, clients, monitoring
from rucio.common.s3.credentials import Static
from rucio.common.s3.endpoint import SERVER, Endpoint
from rucio.common.s3.parsing import UnreadableAnswerError
from servers.fake_s3 import Answer, FakeS3, Lost, Stalled
from servers.process import until

KEYS = Static('AKID', 'secret')
BUCKET = 'user.alice'


@pytest.fixture
def s3():
    with FakeS3() as fake:
        fake.make_bucket(BUCKET)
        yield fake


@pytest.fixture
def rse(request):
    """The name of an RSE of this test alone: metrics are of the process."""
    return request.node.name.replace('[', '_').rstrip(']').upper()[-60:]


@pytest.fixture
def client(s3, rse):
    return client_of(s3, rse)


def client_of(s3, rse, seconds=60):
    """Of who waits so long, which is more than an answer takes on the busiest machine."""
    return clients.connect(
        Endpoint(rse, f'id of {rse}', s3.url, max_attempts=1), KEYS, SERVER._replace(read_timeout=seconds, answer_timeout=2 * seconds)
    ).client


def value(name, rse, **labels):
    return REGISTRY.get_sample_value(f'rucio_core_s3_{name}', {'rse': rse, **labels}) or 0


def ask(client):
    with contextlib.suppress(BotoCoreError, ClientError):
        client.head_object(Bucket=BUCKET, Key='k')


@pytest.mark.parametrize(
    ('fault', 'outcome'),
    [
        (None, 'ok'),
        (Answer(304), 'ok'),
        (Answer(404), 'missing'),
        (Answer(409), 'conflict'),
        (Answer(412), 'conflict'),
        (Answer(403), 'refused'),
        (Answer(429), 'busy'),
        (Answer(503), 'busy'),
        (Answer(500), 'failed'),
        (Lost(), 'unreachable'),
        (Stalled(), 'silent'),
    ],
)
def test_a_request_is_counted_by_rse_and_outcome(s3, rse, monkeypatch, fault, outcome):
    monkeypatch.setattr(breaker, '_answers', lambda _: False)  # which would be a request of its own
    s3.store(BUCKET, 'k', b'x')
    if fault:
        s3.fail('HeadObject', fault)
    ask(client_of(s3, rse, 0.2 if outcome == 'silent' else 60))
    assert value('requests_total', rse, service='s3', outcome=outcome) == 1
    assert value('request_seconds_count', rse, service='s3') == 1
    seen = monitoring.observed(f'id of {rse}')
    failed = outcome in ('refused', 'busy', 'failed', 'unreachable', 'silent')
    status = f', {fault.status}' if isinstance(fault, Answer) else ''
    assert (seen.answered is None, seen.failed is not None, seen.failure) == (failed, failed, f'{outcome} (s3{status})' if failed else '')
    assert seen.failure_id == ''


def test_labels_are_few(client, s3, rse):
    """Whatever a storage answers, and whatever the keys are called: a metric with a label for each would fill the memory of the server."""
    for number in range(30):
        s3.fail('HeadObject', Answer(400 + number, headers=(('x-amz-request-id', f'a\x1b[31m{number}'),)))
        ask(client)
        client.put_object(Bucket=BUCKET, Key=f'key{number}', Body=b'x')
    found = [
        sample
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.labels.get('rse') == rse and not sample.name.endswith(('_bucket', '_created'))
    ]
    assert {name for sample in found for name in sample.labels} == {'rse', 'service', 'outcome', 'way'}
    assert len(found) < 15
    assert not monitoring.observed(f'id of {rse}').failure_id
    s3.fail('HeadObject', Answer(403, headers=(('x-amz-request-id', 'tx0001'),)))
    ask(client)
    assert monitoring.observed(f'id of {rse}').failure_id == 'tx0001'


def test_the_buckets_of_a_histogram_are_those_that_dashboards_are_made_for(client, rse):
    ask(client)
    found = [
        sample for metric in REGISTRY.collect() for sample in metric.samples if sample.labels.get('rse') == rse and sample.name.endswith('_seconds_bucket')
    ]
    assert [float(sample.labels['le']) for sample in found] == [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, float('inf')]


def observed(rse, send, service='s3'):
    """What sends requests, and is observed."""
    client = SimpleNamespace(_endpoint=SimpleNamespace(http_session=SimpleNamespace(send=send)))
    monitoring.observe(client, service, monitoring.RSE(rse, f'id of {rse}'))
    return client._endpoint.http_session.send


@pytest.mark.parametrize(('status', 'outcome'), [(399, 'ok'), (400, 'refused'), (499, 'refused'), (500, 'failed')])
def test_other_statuses_are_counted_by_their_class(rse, status, outcome):
    observed(rse, lambda _: SimpleNamespace(status_code=status, headers={}))(SimpleNamespace(method='GET', headers={}))
    assert value('requests_total', rse, service='s3', outcome=outcome) == 1


@pytest.mark.parametrize(
    ('raised', 'outcome'),
    [
        (ConnectTimeoutError(endpoint_url='http://s3'), 'silent'),
        (ReadTimeoutError(endpoint_url='http://s3'), 'silent'),
        (EndpointConnectionError(endpoint_url='http://s3'), 'unreachable'),
        (UnreadableAnswerError(reason='no XML'), 'unreadable'),
    ],
)
def test_without_an_answer_it_is_counted_why(rse, raised, outcome):
    def fails(_):
        raise raised

    with pytest.raises(type(raised)):
        observed(rse, fails, 'sts')(None)
    assert value('requests_total', rse, service='sts', outcome=outcome) == 1
    assert monitoring.observed(f'id of {rse}').failure == f'{outcome} (sts)'


def test_a_process_that_has_seen_nothing_of_an_rse():
    seen = monitoring.observed('nobody has this id')
    assert (seen.answered, seen.failed, seen.failure, seen.failure_id, seen.vended, seen.silent) == (None, None, '', '', None, frozenset())


@pytest.mark.parametrize(('outcome', 'known'), [('new', True), ('cached', True), ('failed', False), ('limited', False), ('impossible', False)])
def test_the_last_keys_that_were_vended(rse, outcome, known):
    monitoring.vended(monitoring.RSE(rse, f'id of {rse}'), outcome)
    assert value('vended_total', rse, outcome=outcome) == 1
    assert (monitoring.observed(f'id of {rse}').vended is not None) is known


def test_each_service_of_a_storage_is_silent_for_itself(rse, monkeypatch):
    monkeypatch.setattr(monitoring, '_observed', {})
    one, other = monitoring.RSE(rse, f'id of {rse}'), monitoring.RSE('OTHER', 'id of another')
    monitoring.silence(other, 's3', False)
    assert not monitoring.any_silent()
    monitoring.silence(one, 's3', True)
    monitoring.silence(one, 'sts', True)
    assert monitoring.observed(one.id).silent == {'s3', 'sts'}
    assert monitoring.any_silent()
    monitoring.silence(one, 's3', False)
    assert monitoring.observed(one.id).silent == {'sts'}
    assert (value('silent', rse, service='s3'), value('silent', rse, service='sts')) == (0, 1)
    monitoring.silence(one, 'sts', False)
    assert not monitoring.any_silent()


def test_bytes_are_those_of_bodies(client, s3, rse):
    client.put_object(Bucket=BUCKET, Key='k', Body=b'x' * 1000)
    client.head_object(Bucket=BUCKET, Key='k')
    client.get_object(Bucket=BUCKET, Key='k')['Body'].read()
    assert (value('bytes_total', rse, way='sent'), value('bytes_total', rse, way='received')) == (1000, 1000)


@pytest.mark.parametrize(
    ('length', 'counted'), [(None, None), ('', None), ('0', None), ('-5', None), ('many', None), ('9' * 40, None), ('1', 1), (str(2**50), 2**50)]
)
def test_a_length_that_is_none_counts_nothing(rse, length, counted):
    headers = {} if length is None else {'Content-Length': length}
    answer = SimpleNamespace(status_code=200, headers=headers)
    assert observed(rse, lambda _: answer)(SimpleNamespace(method='GET', headers={})) is answer
    assert REGISTRY.get_sample_value('rucio_core_s3_bytes_total', {'rse': rse, 'way': 'received'}) == counted
    assert REGISTRY.get_sample_value('rucio_core_s3_bytes_total', {'rse': rse, 'way': 'sent'}) is None
    assert value('requests_total', rse, service='s3', outcome='ok') == 1


def test_the_state_of_a_breaker_is_seen(s3, rse, monkeypatch):
    back = threading.Event()
    monkeypatch.setattr(breaker, 'PAUSE', 0.01)
    monkeypatch.setattr(breaker, '_answers', lambda _: back.is_set())
    client = client_of(s3, rse, 0.2)
    s3.fail('HeadObject', Stalled())
    ask(client)
    assert value('silent', rse, service='s3') == 1
    assert monitoring.observed(f'id of {rse}').silent == {'s3'}
    ask(client)
    assert value('requests_total', rse, service='s3', outcome='withheld') == 1
    assert value('request_seconds_count', rse, service='s3') == 1  # what is withheld takes no time, and is no failure of the storage
    assert monitoring.observed(f'id of {rse}').failure == 'silent (s3)'
    back.set()
    until(lambda: not value('silent', rse, service='s3'))
    assert not monitoring.observed(f'id of {rse}').silent


def test_rses_of_one_storage_are_counted_apart(client, s3, rse):
    other = client_of(s3, 'OTHER')
    assert other is not client
    ask(other)
    assert value('requests_total', rse, service='s3', outcome='missing') == 0


def test_clients_count_nothing(s3, monkeypatch):
    """rucio-clients has no library for metrics, and nobody would read them."""
    monkeypatch.delitem(sys.modules, 'rucio.core.monitor')
    assert not monitoring.is_on()
    monitoring.count('nothing', '')
    monitoring.gauge('nothing', '', 1)
    monitoring.time_of('nothing', '', 1)
    connections = [clients.connect(Endpoint(name, name, s3.url), KEYS) for name in ('ONE', 'TWO')]
    assert connections[0].client is connections[1].client
    ask(connections[0].client)
    assert monitoring.observed('ONE') == monitoring.Observed()


def test_the_runbook_knows_each_metric():
    root = Path(__file__).parents[2]
    made = {
        name
        for path in root.joinpath('lib').rglob('*.py')
        for name in re.findall(r"\b(?:count|gauge|time_of)\(\s*'(\w+)',\s*'", path.read_text())
        if path.name != 'rate_limiter.py'
    }
    told = {name.removesuffix('_total').removesuffix('_bucket') for name in re.findall(r'rucio_core_s3_(\w+)', root.joinpath('docs', 'runbook.md').read_text())}
    assert len(made) > 5
    assert {name.removesuffix('_count') for name in told} == made
