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

"""Somebody reads the logs of a client or of the server, where DEBUG was switched on: no token, key or signature may stand there.

At DEBUG botocore writes each request before and after it is signed, and each answer, also that of an STS; urllib3 writes signed URLs.
"""

import json
import logging
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import pytest
from botocore.config import Config

from rucio.client.s3client import S3Client
from rucio.common.s3 import clients, credentials, factory, objects, sts
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from rucio.common.s3.webidentity import WebIdentity
from servers.thief import KEYS, Thief

pytestmark = pytest.mark.usefixtures('home')

ROLE = 'arn:aws:iam:::role/rucio'
TOKEN = '.'.join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip('=') for part in ({'alg': 'RS256'}, {'sub': 'alice'}, {'n': 1}))
STATIC = credentials.Static('AKID', 'the-secret-key', 'the-session-token')
SECRETS = ['the-secret-key', 'the-session-token', 'the-events-token', TOKEN, KEYS['SecretAccessKey'], KEYS['SessionToken']]
SIGNATURE = re.compile(r'signature[=:\s\\n"\']*[0-9a-f]{64}', re.IGNORECASE)
DEEP = ('botocore.auth', 'botocore.endpoint', 'botocore.parsers', 'botocore.hooks', 'botocore.awsrequest', 'urllib3.connectionpool', 's3transfer.tasks')


class Log(logging.Handler):
    """All that any logger says, as a file would have it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter('%(name)s %(message)s'))
        self.text = ''

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + '\n'


@pytest.fixture
def log() -> Iterator[Log]:
    """The root logger is at DEBUG, as with `rucio -v`. All levels are afterwards as they were."""
    before = {name: logging.getLogger(name).level for name in ('', *logging.root.manager.loggerDict)}
    handler = Log()
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.DEBUG)
    yield handler
    logging.root.removeHandler(handler)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def endpoint(url: str) -> Endpoint:
    return Endpoint('X', 'x', url, max_attempts=1, role_arn=ROLE, web_identity_role_arn=ROLE)


def by_keys(url: str) -> None:
    client = clients.connect(endpoint(url), STATIC).client
    client.list_buckets()
    client.put_object(Bucket='bucket', Key='key', Body=b'content')


def by_a_signed_url(url: str) -> None:
    connection = clients.connect(endpoint(url), None)
    assert isinstance(connection.authorizer, credentials.Presigned)
    connection.authorizer.offer('read', Target('X', 'bucket', 'key'), f'{url}/bucket/key?X-Amz-Signature={"ab" * 32}&X-Amz-Security-Token=the-session-token')
    connection.client.get_object(Bucket='bucket', Key='key')


def by_an_oidc_token(url: str) -> None:
    objects.exists(clients.connect(endpoint(url), WebIdentity(endpoint(url), TOKEN)), Target('X', 'bucket', 'key'))


def by_the_servers_keys_at_the_sts(url: str) -> None:
    sts.assume_role(endpoint(url), sts.client(endpoint(url), STATIC.session(), 'us-east-1'), ROLE, 'rucio-alice', '{}', 900)


def by_a_topic(url: str) -> None:
    sns = factory.client('sns', STATIC.session(), url, region='us-east-1')
    sns.create_topic(Name='rucio', Attributes={'OpaqueData': 'the-events-token'})


def by_a_client_for_notebooks(url: str) -> None:
    """`S3Client.boto3_client`, with keys that the server vends; and a URL that is signed with them."""
    ends = datetime.now(timezone.utc) + timedelta(hours=1)
    keys = {'access_key': 'AKID', 'secret_key': 'the-secret-key', 'session_token': 'the-session-token', 'expiration': f'{ends:%Y-%m-%dT%H:%M:%SZ}'}
    s3 = S3Client.__new__(S3Client)
    vars(s3).update(_config=Config(), _region=None)
    client = s3._client(endpoint(url), ('vended',), lambda: keys)
    client.get_object(Bucket='bucket', Key='key')
    client.generate_presigned_url('get_object', Params={'Bucket': 'bucket', 'Key': 'key'})


WAYS = [by_keys, by_a_signed_url, by_an_oidc_token, by_the_servers_keys_at_the_sts, by_a_topic, by_a_client_for_notebooks]


@pytest.mark.parametrize('way', WAYS, ids=lambda way: way.__name__)
def test_no_secret_is_in_a_log_whatever_level_was_set_for_whom(way: Callable[[str], None], log: Log) -> None:
    """Got: keys and tokens that are good for up to 12 hours, by each who reads logs: of a batch system, of a helpdesk's ticket."""
    with Thief() as storage:
        way(storage.url)
        # Those who look for a fault set it before, or when they have a client already; for all of it, or for what they are curious about.
        for name in ('botocore', 'boto3', 's3transfer', 'urllib3', *DEEP):
            logging.getLogger(name).setLevel(logging.DEBUG)
        way(storage.url)
        clients._shared.clear()
        way(storage.url)
        assert storage.seen
    assert [secret for secret in SECRETS if secret in log.text] == []
    assert SIGNATURE.search(log.text) is None


def test_what_was_asked_can_still_be_seen(log: Log) -> None:
    """No attack: a request that fails has to be found in a log."""
    with Thief() as storage:
        by_a_signed_url(storage.url)
        logging.getLogger('urllib3').setLevel(logging.DEBUG)
        by_a_signed_url(storage.url)
    assert 'GET /bucket/key HTTP/1.1" 200' in log.text


def test_a_warning_shows_no_signed_url(log: Log) -> None:
    """An answer with broken headers: urllib3 warns, and names the URL. Got: what the URL is good for."""
    clients.connect(endpoint('http://127.0.0.1:9'), None)
    logging.getLogger('urllib3.connectionpool').warning('Failed to parse headers (url=%s): %s', 'http://s/b/k?X-Amz-Signature=' + 'ab' * 32, 'x')
    assert 'url=http://s/b/k' in log.text
    assert SIGNATURE.search(log.text) is None
