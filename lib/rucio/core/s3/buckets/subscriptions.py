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

"""Subscription of buckets to event notifications, which the storage sends to this server (see :mod:`.events`)."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from rucio.common.exception import RucioException
from rucio.common.s3 import clients
from rucio.common.s3.answers import line_logger
from rucio.common.s3.endpoint import SERVER_WORK
from rucio.core.s3 import topics

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from rucio.core.s3.storages import Storage

__all__ = ['ID', 'subscribe']

_LOGGER = line_logger(__name__)

ID = 'rucio-s3'  # id of this configuration among those of a bucket
EVENTS = ('s3:ObjectCreated:*', 's3:ObjectRemoved:*')
_EVENTBRIDGE = 'EventBridgeConfiguration'
_KINDS = {
    'sns': ('TopicConfigurations', 'TopicArn'),
    'sqs': ('QueueConfigurations', 'QueueArn'),
    'lambda': ('LambdaFunctionConfigurations', 'LambdaFunctionArn'),
}


def subscribe(storage: 'Storage', bucket: str) -> bool:
    """Subscribe a bucket to event notifications, if the settings define how. Its other subscriptions are kept.

    One request if it is already subscribed, else two; one more if the storage creates topics. Without events, the
    catalogue is updated later by the reconciler: so a refusal is only logged.

    :returns: Whether it was newly subscribed.
    """
    try:
        topic = _topic(storage)
        return bool(topic) and _configure(_client(storage), bucket, topic)
    except (ClientError, BotoCoreError, RucioException) as error:
        _LOGGER.warning('RSE %s, bucket %s: could not be subscribed to events: %s', storage.rse, bucket, error)
        return False


def _topic(storage: 'Storage') -> str:
    """Return the ARN that the events are sent to; empty if events are not used.

    It is that of the operator, or a topic of the storage that pushes them to this server.
    """
    endpoint = storage.endpoint
    if endpoint.events_topic:
        return endpoint.events_topic
    if not (endpoint.event_topics and endpoint.events_url):
        return ''
    if not endpoint.events_token:
        _LOGGER.warning(
            'RSE %s: buckets are not subscribed to events, as there is no events_token in rucio.cfg [s3:%s].',
            storage.rse,
            storage.rse,
        )
        return ''
    # This updates an existing topic, so that a new URL or token takes effect.
    return topics.create(storage)


def _client(storage: 'Storage') -> 'S3Client':
    """Return the client for notifications.

    Gateways without the API interpret such requests as requests about the bucket.
    """
    connection = storage.connection(SERVER_WORK)
    if topics.endpoint_url(storage) == storage.endpoint.url:
        return connection.client
    return clients.connect(
        replace(storage.endpoint, url=topics.endpoint_url(storage)), connection.authorizer, SERVER_WORK
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
