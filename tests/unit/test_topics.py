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

"""The topic of a storage: made, kept, and whether vended keys could take it. No storage."""

from types import SimpleNamespace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from botocore.exceptions import EndpointConnectionError

from rucio.common.exception import ServiceUnavailable
from rucio.common.s3.endpoint import Endpoint
from rucio.core.s3 import topics
from servers.fake_sns import ARN, SNS

TOKEN = 'the-token-that-nobody-else-has'
URL = 'https://rucio.example.org/s3/X/events'


@pytest.fixture
def ceph(monkeypatch):
    """A storage X; `own` is what the server speaks to, `theirs` what users do."""
    made = SimpleNamespace(topics={}, urls=[])
    made.own, made.theirs = SNS(made.topics), SNS(made.topics, {'all': 405})

    def client(service, session, url, **_):
        assert service == 'sns'
        made.urls.append(url)
        return made.own if session == 'own' else made.theirs

    monkeypatch.setattr(topics.factory, 'client', client)
    connection = SimpleNamespace(authorizer=SimpleNamespace(session=lambda: 'own'))
    made.endpoint = {'event_topics': True, 'events_url': URL, 'events_token': TOKEN, 'events_endpoint': 'https://private.example.org'}
    made.storage = lambda **more: SimpleNamespace(
        rse='X', region='de', endpoint=Endpoint('X', 'a' * 32, 'https://s3.example.org', **made.endpoint | more), connection=lambda _: connection
    )
    made.door = lambda **more: topics.find_exposure(made.storage(**more), 'theirs')
    return made


# Whether others can have it


@pytest.mark.parametrize('status', [405, 501])
@pytest.mark.parametrize('settings', [{}, {'events_url': None, 'events_endpoint': None}])
def test_a_gateway_without_the_api_is_asked_once(ceph, status, settings):
    """Nothing is made for it, and the server needs no gateway with the API."""
    ceph.theirs.refuses = {'all': status}
    assert ceph.door(**settings) == ''
    assert ceph.theirs.asked == ['list_topics']
    assert ceph.urls == ['https://s3.example.org']


@pytest.mark.parametrize('refuses', [{'all': 403}, {'get_topic_attributes': 403, 'create_topic': 403, 'delete_topic': 403}])
def test_a_policy_that_shuts_the_door(ceph, refuses):
    ceph.theirs.refuses = refuses  # Ceph 20 lists what they may see: nothing
    assert ceph.door() == ''
    assert ceph.theirs.asked == ['list_topics', 'get_topic_attributes', 'create_topic', 'delete_topic']
    assert sorted(set(ceph.urls)) == ['https://private.example.org', 'https://s3.example.org']
    assert not ceph.topics  # what was made for it is gone


@pytest.mark.parametrize(
    ('refuses', 'may'),
    [
        ({}, 'can read, replace and delete topics'),
        ({'get_topic_attributes': 404}, 'can read, replace and delete topics'),  # it says whether there is one
        ({'get_topic_attributes': 403, 'create_topic': 403}, 'can delete topics'),
        ({'delete_topic': 403, 'create_topic': 403}, 'can read topics'),
    ],
)
@pytest.mark.parametrize('settings', [{}, {'events_url': None, 'events_endpoint': None}, {'events_url': None, 'events_topic': f'{ARN}mine'}])
def test_a_door_that_is_open(ceph, refuses, may, settings):
    """Also where this server uses no events: vended keys would reach the notifications of any bucket."""
    ceph.theirs.refuses = refuses
    said = ceph.door(**settings)
    assert may in said
    assert 'rgw_enable_apis' in said
    assert 'events_endpoint' in said
    assert not ceph.topics


@pytest.mark.parametrize('settings', [{'event_topics': False}, {'event_topics': False, 'events_topic': 'arn:minio:sqs::RUCIO:webhook'}])
def test_where_the_storage_makes_no_topics_nothing_is_tried(ceph, settings):
    ceph.theirs.refuses = {}
    assert ceph.door(**settings) == ''
    assert not ceph.urls


@pytest.mark.parametrize('error', [EndpointConnectionError(endpoint_url='https://s3.example.org'), 500, 503])
@pytest.mark.parametrize(('who', 'call'), [('own', 'create_topic'), ('theirs', 'create_topic'), ('theirs', 'list_topics')])
def test_no_answer_is_no_refusal(ceph, who, call, error):
    ceph.theirs.refuses = {}
    getattr(ceph, who).refuses = {call: error}
    with pytest.raises(ServiceUnavailable):
        ceph.door()


@pytest.mark.parametrize('status', [403, 405])
def test_what_cannot_be_tried_is_not_vended(ceph, status):
    ceph.own.refuses, ceph.theirs.refuses = {'create_topic': status}, {}
    with pytest.raises(ServiceUnavailable, match='it is unknown whether'):
        ceph.door()


# Keeping it


def test_a_topic_that_is_as_it_was_made_stays(ceph):
    assert topics.create(ceph.storage()) == f'{ARN}rucio-s3-X'
    assert topics.repair(ceph.storage()) is None
    assert ceph.own.asked == ['create_topic', 'list_topics', 'get_topic_attributes']


@pytest.mark.parametrize(
    ('found', 'said'),
    [
        (None, 'did not exist'),
        ({}, 'another address'),
        ({'push-endpoint': 'https://attacker.example.org', 'OpaqueData': TOKEN}, 'another address'),
        ({'push-endpoint': URL, 'OpaqueData': ''}, 'another token'),
    ],
)
def test_a_topic_that_somebody_changed_is_made_again(ceph, found, said):
    if found is not None:
        ceph.topics['rucio-s3-X'] = found
    told = topics.repair(ceph.storage())
    assert said in told
    assert TOKEN not in told
    assert ceph.topics['rucio-s3-X'].items() >= {'push-endpoint': URL, 'OpaqueData': TOKEN}.items()


def test_a_topic_that_is_listed_although_it_is_gone(ceph):
    ceph.topics['rucio-s3-X'] = {'push-endpoint': URL, 'OpaqueData': TOKEN}
    ceph.own.refuses = {'get_topic_attributes': 404}
    assert 'did not exist' in topics.repair(ceph.storage())
    assert ceph.own.asked[-1] == 'create_topic'


@pytest.mark.parametrize('settings', [{'events_url': None}, {'events_token': None}, {'event_topics': False}, {'events_topic': f'{ARN}mine'}])
def test_what_is_not_ours_is_not_kept(ceph, settings):
    assert topics.repair(ceph.storage(**settings)) is None
    assert not ceph.urls


def test_a_storage_that_does_not_answer_is_asked_another_time(ceph):
    ceph.own.refuses = {'all': EndpointConnectionError(endpoint_url='https://private.example.org')}
    assert topics.repair(ceph.storage()) is None
