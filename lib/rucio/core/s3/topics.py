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

"""The topic of a storage that tells this server what happens in its buckets, where the storage makes topics
itself (Ceph).

Ceph 16 and 18 ask nobody who may see, replace or delete a topic: any key of the tenant may, also a vended one, whatever
its policy says. Who deletes it makes each write to a subscribed bucket fail, who replaces it has the bucket's events
sent to himself. Ceph 16 does not ask either who may change the notifications of a bucket, so that vended keys subscribe
any bucket to a topic, whether this server uses events or not. So either users reach only gateways without that API, and
this server another one for its events (setting ``events_endpoint``); or, from Ceph 20 on, the policy of the role denies
``sns:*``. Whether it is so is tried, with keys as they are vended (:func:`find_exposure`), by :mod:`.chaining`.

Notifications are not tried: a gateway has both or neither (``notifications`` in ``rgw_enable_apis``), and nothing of
another bucket can be tried without knowing one.
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
from rucio.common.s3.endpoint import SERVER
from rucio.common.s3.errors import said, status_of
from rucio.common.s3.secrecy import need_private

if TYPE_CHECKING:
    from botocore.session import Session as BotoSession

    from .storages import Storage

__all__ = ['PREFIX', 'create', 'endpoint_url', 'find_exposure', 'repair']

_LOGGER = line_logger(__name__)

PREFIX = 'rucio-s3'  # the names of our topics begin with it
_NO_API = (405, 501)
_REFUSALS = (401, 403, *_NO_API)  # not 404: who may not see topics is not told that one is missing
_REMEDY = (
    'See "Topics and vended keys" in docs/operators.md: give users a gateway without "notifications" in '
    'rgw_enable_apis, and the server another one for its events (events_endpoint); or, from Ceph 20 on, have the '
    'policy of the role deny sns:*.'
)


def endpoint_url(storage: 'Storage') -> str:
    """Where this server speaks of topics and of notifications: a gateway that users do not reach, if there is one."""
    return storage.endpoint.events_endpoint or storage.endpoint.url


def create(storage: 'Storage') -> str:
    """Make the topic, or bring one that is there up to date: one request.

    :returns: Its ARN.
    :raises ClientError: if the storage refuses; BotoCoreError: if it does not answer.
    :raises ConfigurationError: if others could read the token on its way.
    """
    attributes = _attributes(storage)
    return str(_client(storage).create_topic(Name=_name(storage), Attributes=attributes)['TopicArn'])


def repair(storage: 'Storage') -> Optional[str]:
    """Put the topic right, if somebody deleted it, or had it push to elsewhere. Two requests at most, where this server
    makes topics, else none.

    :returns: What was wrong with it; None: nothing, or it cannot be asked.
    """
    endpoint = storage.endpoint
    if endpoint.events_topic or not (endpoint.event_topics and endpoint.events_url and endpoint.events_token):
        return None
    with suppress(ClientError, BotoCoreError, ConfigurationError):
        attributes, client = _attributes(storage), _client(storage)
        if wrong := _damage(storage, client):
            client.create_topic(Name=_name(storage), Attributes=attributes)
            return (
                f'RSE {storage.rse}: the topic {_name(storage)} {wrong}. It was made again: see who else may change '
                f'it. {_REMEDY}'
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
        found = None  # Ceph 16 lists those with subscribers also when they are gone
    if found is None:
        return 'was not there'
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
    # The first is told the token, the second is where the storage sends it.
    for url in (endpoint_url(storage), str(endpoint.events_url)):
        need_private(
            url,
            f'RSE {storage.rse}: the events_token',
            'Use https for both the storage and events_url, or have it tell its events another way.',
        )
    return {
        'push-endpoint': str(endpoint.events_url),
        'OpaqueData': str(endpoint.events_token),
        'verify-ssl': 'true',
        # Otherwise who puts an object has to wait for our answer, for ever if there is none. Ceph 16 needs up to 30 s
        # to notice a new topic of this kind, then an event takes it 0.1 s.
        'persistent': 'true',
        # Ceph 16 does not know these two: it tries again at once, for ever.
        'retry_sleep_duration': '5',
        'time_to_live': '86400',
    }


def _client(storage: 'Storage', session: 'Optional[BotoSession]' = None) -> Any:
    """A client for the storage's own SNS, with the server's keys at our place, or with others where users are. Not
    shared: it is used seldom.
    """
    endpoint = storage.endpoint
    url = endpoint.url if session else endpoint_url(storage)
    session = session or storage.connection(SERVER).authorizer.session()
    return factory.client(
        'sns', session, url, region=storage.region, ca_bundle=endpoint.ca_bundle, patience=endpoint.patience(SERVER)
    )


# Whether others can do that, too


def find_exposure(storage: 'Storage', session: 'BotoSession') -> str:
    """What keys that were vended could do with topics of the storage, and what to change; or nothing.

    Where the storage makes no topics itself, no request; where the gateway of users has no API for them, one; else six:
    a topic without a subscriber is made and deleted for it.

    :param session: With keys as they are vended.
    :raises ServiceUnavailable: if nobody can say.
    """
    if not storage.endpoint.event_topics:
        return ''
    theirs = _client(storage, session)
    if _status(theirs, 'list_topics', {}) in _NO_API:
        return ''
    with _scratch_topic(storage) as (name, arn):
        # Of a topic that is there: Ceph 20 refuses to touch others, whoever asks.
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
    return (
        f'RSE {storage.rse}: keys that this server would vend can {can} topics of the storage, and must not reach any. '
        f'{_REMEDY}'
    )


@contextmanager
def _scratch_topic(storage: 'Storage') -> Iterator[tuple[str, str]]:
    """A topic that nobody needs."""
    own, name = _client(storage), f'{PREFIX}-probe-{secrets.token_hex(8)}'
    try:
        arn = str(own.create_topic(Name=name)['TopicArn'])
    except (ClientError, BotoCoreError) as error:
        raise ServiceUnavailable(
            f"RSE {storage.rse}: nobody knows whether vended keys can change the storage's topics, as no topic could "
            f'be made to try it at {endpoint_url(storage)}: {said(error)} {_REMEDY}'
        ) from None
    try:
        yield name, arn
    finally:
        with suppress(ClientError, BotoCoreError):
            own.delete_topic(TopicArn=arn)


def _status(client: Any, call: str, parameters: dict[str, Any]) -> int:
    """The status of the answer.

    :raises ServiceUnavailable: if it is neither yes nor no.
    """
    try:
        getattr(client, call)(**parameters)
    except (ClientError, BotoCoreError) as error:
        status = status_of(error)
        if status not in _REFUSALS and (not status or status >= 500):
            raise ServiceUnavailable(
                f'The storage did not say whether vended keys may call {call}: {said(error)} It will be tried again.'
            ) from None
        return status
    return 200
