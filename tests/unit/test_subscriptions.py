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

"""Subscribing buckets to their events: what the storage is asked for, and what is left as it was."""

from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from botocore.exceptions import EndpointConnectionError
from botocore.stub import Stubber

from rucio.common.exception import ConfigurationError, RSEAccessDenied
from rucio.common.s3.endpoint import SERVER_WORK, Endpoint
from rucio.common.s3.factory import bare_session
from rucio.core.s3 import topics
from rucio.core.s3.buckets import subscriptions

BUCKET = 'user.alice'
TOKEN = 'the-token-that-nobody-else-has'
URL = 'https://rucio.example.org/s3/X/events'
CEPH = {'event_topics': True, 'events_url': URL, 'events_token': TOKEN}
MINIO = 'arn:minio:sqs::RUCIO:webhook'
EVENTS = ['s3:ObjectCreated:*', 's3:ObjectRemoved:*']


class Clients:
    """The storage's S3 and its SNS, which answer what a test says and nothing else."""

    def __init__(self):
        session = bare_session(None)
        self._clients = {name: session.create_client(name, region_name='us-east-1', endpoint_url='http://127.0.0.1:9') for name in ('s3', 'sns')}
        self.s3, self.sns = (Stubber(client) for client in self._clients.values())
        self.made = []
        self.s3.activate()
        self.sns.activate()

    def storage(self, **settings):
        connection = SimpleNamespace(client=self._clients['s3'], authorizer=SimpleNamespace(session=lambda: None))
        endpoint = Endpoint('X', 'a' * 32, 'https://s3.example.org', **settings)
        return SimpleNamespace(rse='X', region='de', endpoint=endpoint, connection=lambda _: connection)

    def make(self, service, _, url, **options):
        self.made.append((service, url, options['region'], options['ca_bundle'], options['patience']))
        return self._clients[service]

    def has(self, **configurations):
        answer = configurations | {'ResponseMetadata': {'HTTPStatusCode': 200}}
        self.s3.add_response('get_bucket_notification_configuration', answer, {'Bucket': BUCKET})

    def takes(self, **configurations):
        nothing = {'TopicConfigurations': [], 'QueueConfigurations': [], 'LambdaFunctionConfigurations': []}
        wanted = configurations if configurations.pop('only', False) else nothing | configurations
        self.s3.add_response('put_bucket_notification_configuration', {}, {'Bucket': BUCKET, 'NotificationConfiguration': wanted})

    def makes_topic(self, arn):
        attributes = {'push-endpoint': URL, 'OpaqueData': TOKEN, 'verify-ssl': 'true', 'persistent': 'true'}
        attributes |= {'retry_sleep_duration': '5', 'time_to_live': '86400'}
        self.sns.add_response('create_topic', {'TopicArn': arn}, {'Name': 'rucio-s3-X', 'Attributes': attributes})


@pytest.fixture
def clients(monkeypatch):
    made = Clients()
    monkeypatch.setattr(topics.factory, 'client', made.make)
    yield made
    made.s3.assert_no_pending_responses()
    made.sns.assert_no_pending_responses()


@pytest.mark.parametrize('settings', [{}, {'events_url': URL, 'events_token': TOKEN}, {'event_topics': True, 'events_token': TOKEN}])
def test_nothing_is_asked_for_where_nothing_is_configured(clients, settings, caplog):
    assert subscriptions.subscribe(clients.storage(**settings), BUCKET) is False
    assert not caplog.records, 'a request that this test does not expect'


def test_without_a_token_nobody_could_tell_anything(clients, caplog):
    assert subscriptions.subscribe(clients.storage(event_topics=True, events_url=URL), BUCKET) is False
    (said,) = caplog.messages
    assert '[s3:X]' in said


def test_a_storage_that_makes_topics_pushes_to_this_server(clients):
    arn = 'arn:aws:sns:default::rucio-s3-X'
    clients.makes_topic(arn)
    clients.has()
    clients.takes(TopicConfigurations=[{'Id': 'rucio-s3', 'TopicArn': arn, 'Events': EVENTS}])
    assert subscriptions.subscribe(clients.storage(**CEPH, ca_bundle='ca.pem'), BUCKET) is True
    assert clients.made == [('sns', 'https://s3.example.org', 'de', 'ca.pem', SERVER_WORK)]


def test_again_only_the_topic_is_brought_up_to_date(clients, caplog):
    arn = 'arn:aws:sns:default::rucio-s3-X'
    clients.makes_topic(arn)
    clients.has(TopicConfigurations=[{'Id': 'rucio-s3', 'TopicArn': arn, 'Events': EVENTS}])
    assert subscriptions.subscribe(clients.storage(**CEPH), BUCKET) is False
    assert not caplog.records


def test_a_gateway_of_our_own_is_asked_in_the_place_of_the_users(clients, monkeypatch):
    """Those of users take a question about notifications for one about objects, if they have no API for it."""
    arn, private = 'arn:aws:sns:default::rucio-s3-X', 'https://private.example.org'
    asked = []
    storage = clients.storage(**CEPH, events_endpoint=private)
    connection = storage.connection(SERVER_WORK)
    monkeypatch.setattr(subscriptions.clients, 'connect', lambda endpoint, *_: asked.append(endpoint.url) or connection)
    clients.makes_topic(arn)
    clients.has()
    clients.takes(TopicConfigurations=[{'Id': 'rucio-s3', 'TopicArn': arn, 'Events': EVENTS}])
    assert subscriptions.subscribe(storage, BUCKET) is True
    assert asked == [private]
    assert [url for _, url, *_ in clients.made] == [private]


@pytest.mark.parametrize(
    ('arn', 'kind', 'name'),
    [
        (MINIO, 'QueueConfigurations', 'QueueArn'),
        ('arn:aws:sqs:us-west-2:111122223333:rucio', 'QueueConfigurations', 'QueueArn'),
        ('arn:aws:sns:us-west-2:111122223333:rucio', 'TopicConfigurations', 'TopicArn'),
        ('arn:aws:lambda:us-west-2:111122223333:function:rucio', 'LambdaFunctionConfigurations', 'LambdaFunctionArn'),
    ],
)
def test_what_the_operator_made_is_taken(clients, arn, kind, name):
    clients.has()
    clients.takes(**{kind: [{'Id': 'rucio-s3', name: arn, 'Events': EVENTS}]})
    # Before a topic of the storage's own.
    assert subscriptions.subscribe(clients.storage(**CEPH, events_topic=arn), BUCKET) is True


def test_other_subscriptions_stay_and_an_older_one_of_ours_goes(clients):
    topic = {'Id': 'mine', 'TopicArn': 'arn:aws:sns:us-west-2:1:other', 'Events': ['s3:ObjectCreated:Put']}
    queue = {'Id': 'mine too', 'QueueArn': MINIO, 'Events': EVENTS, 'Filter': {'Key': {'FilterRules': [{'Name': 'prefix', 'Value': 'a'}]}}}
    old = {'Id': 'rucio-s3', 'TopicArn': 'arn:aws:sns:us-west-2:1:old', 'Events': EVENTS}
    other = {'Id': 'mine as well', 'QueueArn': 'arn:minio:sqs::OTHER:webhook', 'Events': EVENTS}
    less = {'Id': 'rucio-s3', 'QueueArn': MINIO, 'Events': EVENTS[:1]}
    clients.has(TopicConfigurations=[topic, old], QueueConfigurations=[queue, other, less], EventBridgeConfiguration={})
    new = {'Id': 'rucio-s3', 'QueueArn': MINIO, 'Events': EVENTS}
    clients.takes(TopicConfigurations=[topic], QueueConfigurations=[queue, other, new], EventBridgeConfiguration={})
    assert subscriptions.subscribe(clients.storage(events_topic=MINIO), BUCKET) is True


def test_a_subscription_of_somebody_else_to_the_same_is_enough(clients, caplog):
    clients.has(QueueConfigurations=[{'Id': 'mine', 'QueueArn': MINIO, 'Events': [*EVENTS, 's3:ObjectAccessed:Get']}])
    assert subscriptions.subscribe(clients.storage(events_topic=MINIO), BUCKET) is False
    assert not caplog.records


def test_eventbridge(clients, caplog):
    topic = {'Id': 'mine', 'TopicArn': 'arn:aws:sns:us-west-2:1:other', 'Events': ['s3:ObjectCreated:Put']}
    clients.has(TopicConfigurations=[topic])
    clients.takes(TopicConfigurations=[topic], EventBridgeConfiguration={}, only=True)
    assert subscriptions.subscribe(clients.storage(events_topic='eventbridge'), BUCKET) is True
    clients.has(EventBridgeConfiguration={})
    assert subscriptions.subscribe(clients.storage(events_topic='eventbridge'), BUCKET) is False
    assert not caplog.records


@pytest.mark.parametrize(('service', 'operation'), [('sns', 'create_topic'), ('s3', 'get_bucket_notification_configuration')])
def test_a_storage_that_refuses_is_only_logged(clients, caplog, service, operation):
    if service == 's3':
        clients.makes_topic('arn:aws:sns:default::rucio-s3-X')
    getattr(clients, service).add_client_error(operation, 'MethodNotAllowed', 'not here', 405)
    assert subscriptions.subscribe(clients.storage(**CEPH), BUCKET) is False
    assert 'MethodNotAllowed' in caplog.text
    assert BUCKET in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize('error', [EndpointConnectionError(endpoint_url='https://s3.example.org'), RSEAccessDenied('no keys')])
def test_so_is_one_that_is_down(clients, caplog, error):
    storage = clients.storage(**CEPH)
    storage.connection = mock.Mock(side_effect=error)
    assert subscriptions.subscribe(storage, BUCKET) is False
    assert str(error).replace('\n', r'\n') in caplog.text


@pytest.mark.parametrize('change', [{'url': 'http://s3.example.org'}, {'events_url': 'http://rucio.example.org/s3/X/events'}])
def test_the_token_goes_by_https_only(clients, caplog, change):
    storage = clients.storage(**CEPH)
    storage.endpoint = replace(storage.endpoint, **change)
    assert subscriptions.subscribe(storage, BUCKET) is False
    assert 'events_token would be sent over the network unencrypted' in caplog.text
    assert clients.made == []


# Settings


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('events_url', 'rucio.example.org/s3/X/events'),
        ('events_url', 'https://rucio.example.org'),
        ('events_url', 'https://rucio:password@rucio.example.org/s3/X/events'),
        ('events_topic', 'rucio'),
        ('events_topic', 'arn:aws:s3:::bucket'),
        ('event_topics', 'maybe'),
    ],
)
def test_wrong_settings(rse, name, value):
    settings = rse(s3={'provider': 'ceph', name: value})
    with pytest.raises(ConfigurationError, match=name):
        Endpoint.load(settings, settings['protocols'][0])


@pytest.mark.parametrize('token', ['short', 'a token with blanks in it', 'x' * 257, 'sixteen+characters/'])
def test_a_wrong_token_is_not_shown(rse, rucio_cfg, token):
    rucio_cfg({'s3:X': {'events_token': token}})
    settings = rse()
    with pytest.raises(ConfigurationError, match='openssl rand -hex 32') as refused:
        Endpoint.load(settings, settings['protocols'][0])
    assert token not in str(refused.value)


def test_the_token_stands_in_rucio_cfg_only_and_leaves_the_keys_alone(rse, rucio_cfg):
    settings = rse(s3={'provider': 'ceph', 'events_url': URL, 'events_token': TOKEN})
    with pytest.raises(ConfigurationError, match=r'only allowed in rucio\.cfg'):
        Endpoint.load(settings, settings['protocols'][0])
    rucio_cfg({'s3': {'access_key': 'KEY', 'secret_key': 'hidden'}, 's3:X': {'events_token': TOKEN}})
    settings = rse(s3={'provider': 'ceph', 'events_url': URL})
    endpoint = Endpoint.load(settings, settings['protocols'][0])
    assert (endpoint.event_topics, endpoint.events_url, endpoint.events_token) == (True, URL, TOKEN)
    assert endpoint.secrets.access_key == 'KEY'
