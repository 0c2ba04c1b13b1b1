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

"""What the server offers to those who have no keys: keys that it vends, requests that it signs, and their bounds."""

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from rucio.common.exception import AccessDenied, RSEOperationNotSupported
from rucio.common.s3 import clients, credentials, factory
from rucio.common.s3.errors import status_of

from .trial import failed, skipped, split

if TYPE_CHECKING:
    from rucio.common.s3 import api
    from rucio.common.s3.endpoint import Endpoint

    from .subject import Subject


def role_chaining(subject: 'Subject') -> str:
    """What the server found when it tried to make more of the keys that it vends."""
    told = subject.described().get('role_chaining')
    if not told:
        raise skipped('the server vends no keys')
    if not told['refused']:
        raise failed(*split(told['said']))
    return f'vended keys cannot become more than they are for (tried at {told["tried_at"]})'


def event_topics(subject: 'Subject') -> str:
    """Whether vended keys reach the topics of the storage, of which one may tell the server of events. What is made for
    it is deleted.
    """
    if not subject.endpoint.event_topics:
        raise skipped('the storage makes no topics')
    scratch = subject.scratch
    if 'vended' not in (subject.described().get('auth') or []):
        raise skipped('the server vends no keys')
    try:
        keys = subject.plugin.get_s3_credentials(subject.rse, scratch.bucket, scratch.folder)
    except (RSEOperationNotSupported, AccessDenied):
        raise skipped('no keys are vended for this bucket') from None
    may, own = _topic_calls(subject.endpoint, keys)
    if not may:
        return 'vended keys cannot reach the topics'
    found = f'vended keys may {", ".join(may)} topics'
    remedy = 'See "Topics and vended keys" in docs/operators.md.'
    raise failed(f'{found}: also {own}' if own else found, remedy)


def _topic_calls(endpoint: 'Endpoint', keys: 'api.Credentials') -> tuple[list[str], str]:
    """The calls for topics that keys may make, and a topic of the Rucio server that they see, or nothing. Four requests
    at most.
    """
    session = factory.bare_session(Credentials(keys['access_key'], keys['secret_key'], keys['session_token']))
    client = factory.client(
        'sns', session, endpoint.url, region=keys['region'], ca_bundle=endpoint.ca_bundle, patience=endpoint.patience()
    )
    name, may = f'rucio-s3-check-{secrets.token_hex(8)}', []

    def granted(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except ClientError as error:
            if status_of(error) in (401, 403, 405, 501):
                return None
            raise

    if granted(lambda: client.delete_topic(TopicArn=f'arn:aws:sns:default::{name}')):
        may.append('delete')
    if made := granted(lambda: client.create_topic(Name=name)):
        may.append('make')
        client.delete_topic(TopicArn=made['TopicArn'])
    if seen := (granted(client.list_topics) or {}).get('Topics', []):
        may.append('see')
    names = sorted(each['TopicArn'].rpartition(':')[2] for each in seen)
    return may, next((each for each in names if each.startswith('rucio-s3-')), '')


def offered(subject: 'Subject', auth: str) -> str:
    """A way of being authorised that the server's plugin offers, from its answer to an object that was written and read
    with it.

    :param auth: vended or remote.
    """
    endpoint = replace(subject.endpoint, auth=auth)
    told = subject.described()
    if auth not in (told.get('auth') or []):
        if auth == 'remote':
            raise skipped('the server does not offer it')
        if told.get('role_chaining'):
            raise skipped('the server vends none: see role chaining')
        raise skipped(
            f'the server offers none: no role_arn in its rucio.cfg [s3:{subject.rse}], '
            'or the way to it or to its STS is not https'
        )
    scratch = subject.written
    if scratch.made_bucket:
        raise skipped('the bucket of this check is of no scope')
    connection = clients.connect(endpoint, credentials.choose(endpoint, subject.plugin))
    scratch.round_trip(connection, f'by-{auth}', auth.encode())
    return 'an object was written and read'
