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

"""Try what the server offers to clients without keys: vended keys, signed requests, and their limits."""

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
    """Ask the server whether vended keys can gain more access."""
    told = subject.described().get('role_chaining')
    if not told:
        raise skipped('the server vends no keys')
    if not told['refused']:
        raise failed(*split(told['reason']))
    return f'vended keys cannot gain more access (tried at {told["tried_at"]})'


def event_topics(subject: 'Subject') -> str:
    """Try whether vended keys can access the storage's topics, one of which may send events to the server.

    Topics that this makes are deleted.
    """
    if not subject.endpoint.event_topics:
        raise skipped('the storage has no topics')
    scratch = subject.scratch
    if 'vended' not in (subject.described().get('auth') or []):
        raise skipped('the server vends no keys')
    try:
        keys = subject.plugin.get_s3_credentials(subject.rse, scratch.bucket, scratch.folder)
    except (RSEOperationNotSupported, AccessDenied):
        raise skipped('no keys are vended for this bucket') from None
    may, own = _topic_calls(subject.endpoint, keys)
    if not may:
        return 'vended keys cannot access topics'
    found = f'vended keys may {", ".join(may)} topics'
    remedy = 'See "Topics and vended keys" in docs/operators.md.'
    raise failed(f'{found}: also {own}' if own else found, remedy)


def _topic_calls(endpoint: 'Endpoint', keys: 'api.Credentials') -> tuple[list[str], str]:
    """Return the operations on topics that keys allow, and a topic of the Rucio server that they can see, or ''.

    At most four requests.
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
    """Write and read an object with one of the ways of authorisation that the server's plugin offers.

    :param subject: The RSE.
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
            f'the server offers none: there is no role_arn in its rucio.cfg [s3:{subject.rse}], '
            'or the server or its STS is not reached by https'
        )
    scratch = subject.written
    if scratch.made_bucket:
        raise skipped('the bucket of this check belongs to no scope')
    connection = clients.connect(endpoint, credentials.choose(endpoint, subject.plugin))
    scratch.round_trip(connection, f'by-{auth}', auth.encode())
    return 'an object was written and read'
