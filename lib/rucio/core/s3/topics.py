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

"""Topics for the event notifications of buckets, on storages that create topics themselves (Ceph).

Ceph 16 and 18 do not check who may see, replace or delete a topic: any key of the tenant may, including vended keys,
whatever their policy says. If a topic is deleted, each write to a subscribed bucket fails; if it is replaced, the
events of the bucket go to somebody else. Ceph 16 does not check either who may change the notifications of a bucket, so
that vended keys can subscribe any bucket to a topic, whether or not this server uses events. So either users can only
reach gateways without that API, and this server uses another gateway for its events (setting ``events_endpoint``); or,
from Ceph 20 on, the policy of the role denies ``sns:*``. :mod:`.chaining` tests this with keys like those that are
vended (:func:`find_exposure`).

Notifications are not tested: a gateway has both APIs or neither (``notifications`` in ``rgw_enable_apis``), and a test
would need a bucket of another account.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Optional

from botocore.exceptions import BotoCoreError, ClientError

from rucio.common.exception import ConfigurationError, ServiceUnavailable
from rucio.common.s3 import factory
from rucio.common.s3.answers import line_logger
from rucio.common.s3.endpoint import SERVER_WORK
from rucio.common.s3.errors import describe, status_of
from rucio.common.s3.secrecy import need_private

if TYPE_CHECKING:
    from botocore.session import Session as BotoSession

    from .storages import Storage

__all__ = ['PREFIX', 'create', 'endpoint_url', 'find_exposure', 'repair']

_LOGGER = line_logger(__name__)

PREFIX = 'rucio-s3'  # topic names begin with it
_NO_API = (405, 501)
_REFUSALS = (
    401,
    403,
    *_NO_API,
)  # not 404: without permission to see topics, the answer is never that a topic is missing
_REMEDY = (
    'See "Topics and vended keys" in docs/operators.md: provide a gateway without "notifications" in rgw_enable_apis '
    'to users, and another one for events to the server (events_endpoint); or, from Ceph 20 on, deny sns:* in the '
    'policy of the role.'
)


def endpoint_url(storage: 'Storage') -> str:
    """Return the endpoint for topics and notifications: a gateway that users cannot reach, if there is one."""
    return storage.endpoint.events_endpoint or storage.endpoint.url


def create(storage: 'Storage') -> str:
    """Create the topic, or update the existing one. One request.

    :returns: The ARN of the topic.
    :raises ClientError: if the storage refuses; BotoCoreError: if it does not answer.
    :raises ConfigurationError: if the token would be sent unencrypted.
    """
    attributes = _attributes(storage)
    return str(_client(storage).create_topic(Name=_name(storage), Attributes=attributes)['TopicArn'])


def repair(storage: 'Storage') -> Optional[str]:
    """Restore the topic if it was deleted or changed. At most two requests, if this server creates topics, else none.

    :returns: What was wrong; None: nothing, or the storage did not answer.
    """
    endpoint = storage.endpoint
    if endpoint.events_topic or not (endpoint.event_topics and endpoint.events_url and endpoint.events_token):
        return None
    with suppress(ClientError, BotoCoreError, ConfigurationError):
        attributes, client = _attributes(storage), _client(storage)
        if wrong := _damage(storage, client):
            client.create_topic(Name=_name(storage), Attributes=attributes)
            return (
                f'RSE {storage.rse}: the topic {_name(storage)} {wrong}. It was created again: find out who else can '
                f'change it. {_REMEDY}'
            )
    return None


def _damage(storage: 'Storage', client: Any) -> str:
    arns = [each['TopicArn'] for each in client.list_topics().get('Topics', [])]
    arn = next((each for each in arns if each.rpartition(':')[2] == _name(storage)), None)
    try:
        found = client.get_topic_attributes(TopicArn=arn)['Attributes'] if arn else None
    except ClientError as error:
        if status_of(error) != 404:
            raise
        found = None  # Ceph 16 still lists deleted topics that have subscribers
    if found is None:
        return 'did not exist'
    try:
        address = json.loads(found.get('EndPoint') or '{}').get('EndpointAddress')
    except ValueError:
        address = None
    if address != storage.endpoint.events_url:
        return 'pushed to another address'
    return '' if found.get('OpaqueData') == storage.endpoint.events_token else 'had another token'


def _name(storage: 'Storage') -> str:
    return f'{PREFIX}-{storage.rse}'


def _attributes(storage: 'Storage') -> dict[str, str]:
    endpoint = storage.endpoint
    # The token is sent to the first, and by the storage to the second.
    for url in (endpoint_url(storage), str(endpoint.events_url)):
        need_private(
            url,
            f'RSE {storage.rse}: the events_token',
            'Use https for both the storage and events_url, or deliver the events another way.',
        )
    return {
        'push-endpoint': str(endpoint.events_url),
        'OpaqueData': str(endpoint.events_token),
        'verify-ssl': 'true',
        # Otherwise each PUT waits for the answer of this server, forever if there is none. Ceph 16 needs up to 30 s to
        # notice a new persistent topic; then an event takes 0.1 s.
        'persistent': 'true',
        # Ceph 16 does not know these two: it retries immediately, forever.
        'retry_sleep_duration': '5',
        'time_to_live': '86400',
    }


def _client(storage: 'Storage', session: 'Optional[BotoSession]' = None) -> Any:
    """Return a client for the SNS API of the storage.

    It has the server's keys at its endpoint for topics, or other keys at the endpoint of users. It is rarely used, so
    it is not shared.
    """
    endpoint = storage.endpoint
    url = endpoint.url if session else endpoint_url(storage)
    return factory.client(
        'sns',
        session or storage.connection(SERVER_WORK).authorizer.session(),
        url,
        region=storage.region,
        ca_bundle=endpoint.ca_bundle,
        patience=endpoint.patience(SERVER_WORK),
        rse=None if session else endpoint.observed,  # requests with keys of users should be refused
    )


# Whether users can change topics


def find_exposure(storage: 'Storage', session: 'BotoSession') -> str:
    """Return what vended keys could do to topics of the storage, and what to change; empty if nothing.

    No request if the storage does not create topics; one if the gateway of users has no API for them; else six: a topic
    without subscribers is created and deleted.

    :param session: A session with keys like those that are vended.
    :raises ServiceUnavailable: if it cannot be determined.
    """
    if not storage.endpoint.event_topics:
        return ''
    theirs = _client(storage, session)
    if _status(theirs, 'list_topics', {}) in _NO_API:
        return ''
    with _scratch_topic(storage) as (name, arn):
        # With an existing topic: for others, Ceph 20 refuses everybody.
        trials = {
            'read': ('get_topic_attributes', {'TopicArn': arn}),
            'replace': ('create_topic', {'Name': name}),
            'delete': ('delete_topic', {'TopicArn': arn}),
        }
        may = [
            what for what, (call, parameters) in trials.items() if _status(theirs, call, parameters) not in _REFUSALS
        ]
    if not may:
        return ''
    can = ' and '.join(filter(None, [', '.join(may[:-1]), may[-1]]))
    return f'RSE {storage.rse}: vended keys can {can} topics of the storage, but must not. {_REMEDY}'


@contextmanager
def _scratch_topic(storage: 'Storage') -> Iterator[tuple[str, str]]:
    """Create a temporary topic."""
    own, name = _client(storage), f'{PREFIX}-probe-{secrets.token_hex(8)}'
    try:
        arn = str(own.create_topic(Name=name)['TopicArn'])
    except (ClientError, BotoCoreError) as error:
        raise ServiceUnavailable(
            f'RSE {storage.rse}: it is unknown whether vended keys can change topics of the storage, as no topic could '
            f'be created for a test at {endpoint_url(storage)}: {describe(error)} {_REMEDY}'
        ) from None
    try:
        yield name, arn
    finally:
        with suppress(ClientError, BotoCoreError):
            own.delete_topic(TopicArn=arn)


def _status(client: Any, call: str, parameters: dict[str, Any]) -> int:
    """Return the HTTP status of the answer to a call.

    :raises ServiceUnavailable: if it is neither a success nor a refusal.
    """
    try:
        getattr(client, call)(**parameters)
    except (ClientError, BotoCoreError) as error:
        status = status_of(error)
        if status not in _REFUSALS and (not status or status >= 500):
            raise ServiceUnavailable(
                f'It is unknown whether vended keys may call {call}: {describe(error)} The server will test it again.'
            ) from None
        return status
    return 200
