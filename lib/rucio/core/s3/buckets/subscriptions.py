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

"""Subscribing a bucket to its events: its storage then tells this server what happens in it (see :mod:`.events`)."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from rucio.common.exception import RucioException
from rucio.common.s3 import clients
from rucio.common.s3.answers import line_logger
from rucio.common.s3.endpoint import SERVER
from rucio.core.s3 import topics

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from rucio.core.s3.storages import Storage

__all__ = ['ID', 'subscribe']

_LOGGER = line_logger(__name__)

ID = 'rucio-s3'  # of our configuration among those of a bucket
EVENTS = ('s3:ObjectCreated:*', 's3:ObjectRemoved:*')
_EVENTBRIDGE = 'EventBridgeConfiguration'
_KINDS = {
    'sns': ('TopicConfigurations', 'TopicArn'),
    'sqs': ('QueueConfigurations', 'QueueArn'),
    'lambda': ('LambdaFunctionConfigurations', 'LambdaFunctionArn'),
}


def subscribe(storage: 'Storage', bucket: str) -> bool:
    """Have the storage tell of a bucket's events, where the settings say how. Other subscriptions of the bucket stay.

    One request where it was done before, two where not; one more where the storage makes its topics itself. A bucket
    without is as good as one with it, only that the catalogue follows later: so a storage that refuses is only written
    into the log.

    :returns: Whether it was not subscribed before, and is now.
    """
    try:
        topic = _topic(storage)
        return bool(topic) and _configure(_client(storage), bucket, topic)
    except (ClientError, BotoCoreError, RucioException) as error:
        _LOGGER.warning('RSE %s, bucket %s: it could not be subscribed to its events: %s', storage.rse, bucket, error)
        return False


def _topic(storage: 'Storage') -> str:
    """What the events go to: what the operator made, or a topic of the storage that pushes them to this server;
    empty: nothing.
    """
    endpoint = storage.endpoint
    if endpoint.events_topic:
        return endpoint.events_topic
    if not (endpoint.event_topics and endpoint.events_url):
        return ''
    if not endpoint.events_token:
        _LOGGER.warning(
            'RSE %s: buckets are not subscribed to their events, as there is no events_token for it in rucio.cfg '
            '[s3:%s].',
            storage.rse,
            storage.rse,
        )
        return ''
    # It makes what is there anew: a new URL or token takes effect.
    return topics.create(storage)


def _client(storage: 'Storage') -> 'S3Client':
    """Gateways without the API for topics take a question about notifications for one about the bucket, and
    answer that.
    """
    connection = storage.connection(SERVER)
    if topics.endpoint_url(storage) == storage.endpoint.url:
        return connection.client
    return clients.connect(
        replace(storage.endpoint, url=topics.endpoint_url(storage)), connection.authorizer, SERVER
    ).client


def _configure(client: 'S3Client', bucket: str, topic: str) -> bool:
    wanted: dict[str, Any] = dict(client.get_bucket_notification_configuration(Bucket=bucket))
    wanted.pop('ResponseMetadata', None)
    if topic == 'eventbridge':
        if _EVENTBRIDGE in wanted:
            return False
        wanted[_EVENTBRIDGE] = {}
    else:
        kind, arn = _KINDS[topic.split(':')[2]]
        if any(
            each.get(arn) == topic and set(each.get('Events', ())) >= set(EVENTS) and not each.get('Filter')
            for each in wanted.get(kind, ())
        ):
            return False
        for each in (kind for kind, _ in _KINDS.values()):
            wanted[each] = [one for one in wanted.get(each, ()) if one.get('Id') != ID]
        wanted[kind].append({'Id': ID, arn: topic, 'Events': list(EVENTS)})
    client.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=wanted)  # type: ignore[arg-type]
    return True
