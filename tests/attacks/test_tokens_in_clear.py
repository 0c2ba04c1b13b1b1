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

"""Somebody listens on the network, or an answer sends clients elsewhere: tokens and keys must not come by.

What is signed may go by http, as sites with storages in a closed network have it: a signature shows no key. A token does show itself, and
so does the answer of an STS.
"""

import json
import socket
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from rucio.client.s3client import S3Client
from rucio.common.exception import ConfigurationError, RucioException
from rucio.common.s3 import clients, credentials, factory, objects, sts
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from rucio.common.s3.webidentity import WebIdentity
from servers.thief import Thief, name_this_machine

pytestmark = pytest.mark.usefixtures('home')

ROLE = 'arn:aws:iam:::role/rucio'
TOKEN = '.'.join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip('=') for part in ({'alg': 'RS256'}, {'sub': 'alice'}, {}))
KEYS = credentials.Static('AKID', 'the-secret-key', 'the-session-token')
ELSEWHERE = 'storage.example.org'
TARGET = Target('X', 'bucket', 'key')


@pytest.fixture
def thief(monkeypatch: pytest.MonkeyPatch) -> Iterator[Thief]:
    """Listens, by http, at what is another machine by its name."""
    name_this_machine(monkeypatch, ELSEWHERE)
    with Thief() as server:
        yield server


def url_of(thief: Thief) -> str:
    return f'http://{ELSEWHERE}:{thief.port}'


def endpoint(url: str, sts_url: str) -> Endpoint:
    return Endpoint('X', 'x', url, max_attempts=1, sts_endpoint=sts_url, role_arn=ROLE, web_identity_role_arn=ROLE)


def user_of(rucio: str, monkeypatch: pytest.MonkeyPatch) -> S3Client:
    """A client with a token already."""
    monkeypatch.setattr(S3Client, '_BaseClient__authenticate', lambda self: setattr(self, 'auth_token', 'token-of-alice'))
    password = {'username': 'alice', 'password': 'password-of-alice'}
    return S3Client(rucio_host=rucio, auth_host=rucio, account='alice', auth_type='userpass', creds=password)


# Tokens and keys by http


def test_an_oidc_token_is_not_sent_to_an_sts_by_http(thief: Thief) -> None:
    """Got: the user's OIDC token, good for all that he may do anywhere."""
    with pytest.raises(ConfigurationError, match=r"RSE X: the OIDC token would be sent over the network unencrypted.*'sts_endpoint'"):
        WebIdentity(endpoint(url_of(thief), url_of(thief)), TOKEN)
    assert thief.seen == []


def test_the_server_gets_no_keys_from_an_sts_by_http(thief: Thief) -> None:
    """The request is only signed, but the answer has keys. Got: keys for an hour, for each one that the server vends."""
    storage = endpoint(url_of(thief), url_of(thief))
    with pytest.raises(ConfigurationError, match='keys from its STS'):
        sts.client(storage, KEYS.session(), 'us-east-1')
    assert thief.seen == []


def test_a_profile_with_a_role_does_not_send_its_token_by_http(home: Path, thief: Thief) -> None:
    """An AWS_ENDPOINT_URL for a MinIO holds for AWS's STS, too: botocore then asks there by itself. Got: the token in web_identity_token_file."""
    (home / '.aws').mkdir()
    (home / 'id').write_text(TOKEN)
    (home / '.aws' / 'config').write_text(f'[profile p]\nrole_arn = {ROLE}\nweb_identity_token_file = {home / "id"}\nendpoint_url = {url_of(thief)}\n')
    with pytest.raises(ConfigurationError, match='unencrypted'):
        clients.connect(endpoint('http://127.0.0.1:9', ''), credentials.Profile('p')).client.list_buckets()
    assert thief.seen == []


def test_the_token_for_events_is_not_told_to_a_storage_by_http(thief: Thief) -> None:
    """Got: what the Rucio server believes events for."""
    sns = factory.client('sns', KEYS.session(), url_of(thief), region='us-east-1')
    with pytest.raises(ConfigurationError, match='unencrypted'):
        sns.create_topic(Name='t', Attributes={'OpaqueData': 'the-token-for-events'})
    assert thief.seen == []


def test_the_rucio_server_is_asked_for_no_keys_by_http(thief: Thief, monkeypatch: pytest.MonkeyPatch) -> None:
    """Got: each key that the server vends to this user. He is told to use https; his requests are signed by the server as before."""
    s3 = user_of(url_of(thief), monkeypatch)
    for ask in (lambda: s3.get_s3_credentials('X', 'bucket'), lambda: s3.get_did_credentials('user.alice')):
        with pytest.raises(ConfigurationError, match='rucio_host'):
            ask()
    assert thief.seen == []


def test_what_is_signed_may_go_by_http(thief: Thief) -> None:
    """No attack: a storage in a closed network. No key is in what is sent."""
    assert not objects.exists(clients.connect(endpoint(url_of(thief), ''), KEYS), TARGET)
    (seen,) = thief.seen
    assert 'the-secret-key' not in seen


# Sent elsewhere


def test_no_token_goes_to_a_proxy_that_is_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An STS on the machine itself may be asked by http, unless http_proxy makes that a way over the network. Got: the OIDC token."""
    with Thief() as honest, Thief() as proxy:
        monkeypatch.setenv('http_proxy', proxy.url)
        storage = endpoint('http://127.0.0.1:9', honest.url)
        made = sts.client(storage, factory.bare_session(None), 'us-east-1')
        sts.assume_role_with_web_identity(storage, made, ROLE, 'rucio-alice', TOKEN, 3600)
        assert proxy.seen == []
        assert len(honest.seen) == 1


def test_an_sts_that_redirects_is_not_followed(thief: Thief) -> None:
    """An STS that was taken over, or a proxy before it, answers 307. Got: the OIDC token."""
    with Thief(redirect=url_of(thief)) as honest:
        storage = endpoint('http://127.0.0.1:9', honest.url)
        made = sts.client(storage, factory.bare_session(None), 'us-east-1')
        with pytest.raises(RucioException):
            sts.assume_role_with_web_identity(storage, made, ROLE, 'rucio-alice', TOKEN, 3600)
    assert thief.seen == []


def test_a_storage_that_redirects_is_not_followed(thief: Thief) -> None:
    """Got: a session token, and a signature."""
    with Thief(redirect=url_of(thief)) as honest:
        connection = clients.connect(endpoint(honest.url, ''), KEYS)
        for ask in (objects.stat, objects.delete):
            with pytest.raises(RucioException, match='307'):
                ask(connection, TARGET)
        with pytest.raises(ClientError, match='ListBuckets'):
            connection.client.list_buckets()
        assert len(honest.seen) < 10  # botocore asked it until Python's stack was full
    assert thief.seen == []


def test_a_rucio_server_that_redirects_is_told_nothing_elsewhere(thief: Thief, monkeypatch: pytest.MonkeyPatch) -> None:
    """The requests are repeated there, without what proves who asks. Got: the Rucio token, good for all that the account may do."""
    with Thief(redirect=url_of(thief)) as rucio:
        s3 = user_of(rucio.url, monkeypatch)
        for ask in (s3.list_s3_rses, lambda: s3.sign_s3_requests('X', [])):
            with pytest.raises(Exception, match=r'.'):
                ask()
        assert 'token-of-alice' in rucio.seen[0]
    assert [seen for seen in thief.seen if 'token-of-alice' in seen or 'x-rucio-' in seen.lower()] == []


# Where the environment sends clients

STRAY = {
    'AWS_ENDPOINT_URL': 'URL',
    'AWS_ENDPOINT_URL_S3': 'URL',
    'AWS_ENDPOINT_URL_STS': 'URL',
    'AWS_ENDPOINT_URL_SNS': 'URL',
    'AWS_USE_FIPS_ENDPOINT': 'true',
    'AWS_USE_DUALSTACK_ENDPOINT': 'true',
    'AWS_STS_REGIONAL_ENDPOINTS': 'legacy',
    'AWS_ACCESS_KEY_ID': 'AKIDOFSOMEBODYELSE',
    'AWS_SECRET_ACCESS_KEY': 'x',
    'AWS_PROFILE': 'missing',
    'AWS_CONFIG_FILE': '/dev/null/missing',
    'AWS_DATA_PATH': '/dev/null/missing',
    'AWS_MAX_ATTEMPTS': 'many',
    'AWS_RETRY_MODE': 'no such mode',
    'AWS_DEFAULTS_MODE': 'no such mode',
    'AWS_REQUEST_CHECKSUM_CALCULATION': 'never',
    'AWS_RESPONSE_CHECKSUM_VALIDATION': 'never',
    'AWS_AUTH_SCHEME_PREFERENCE': 'noAuth',
    'AWS_ACCOUNT_ID_ENDPOINT_MODE': 'required',
    'AWS_CONTAINER_CREDENTIALS_FULL_URI': 'URL',
    'AWS_WEB_IDENTITY_TOKEN_FILE': '/dev/null/missing',
    'AWS_ROLE_ARN': 'arn:aws:iam:::role/other',
}


def test_the_environment_turns_no_client_elsewhere(thief: Thief, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user has set for another storage. Got: signed requests, or the OIDC token, at an address of that."""
    for name, value in STRAY.items():
        monkeypatch.setenv(name, url_of(thief) if value == 'URL' else value)
    with Thief() as honest:
        storage = endpoint(honest.url, honest.url)
        assert not objects.exists(clients.connect(storage, KEYS), TARGET)
        assert not objects.exists(clients.connect(storage, WebIdentity(storage, TOKEN)), TARGET)
        factory.client('sns', KEYS.session(), honest.url, region='us-east-1').create_topic(Name='t')
        assert 'Credential=AKID/' in honest.seen[0]
        assert len(honest.seen) == 4
    assert thief.seen == []


def test_no_session_token_goes_to_who_counts_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_CSM_ENABLED makes botocore send a datagram about each request. Got: access key and session token, unencrypted."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as counter, Thief() as honest:
        counter.bind(('127.0.0.1', 0))
        counter.setblocking(False)
        monkeypatch.setenv('AWS_CSM_ENABLED', 'true')
        monkeypatch.setenv('AWS_CSM_PORT', str(counter.getsockname()[1]))
        objects.exists(clients.connect(endpoint(honest.url, ''), KEYS), TARGET)
        with pytest.raises(BlockingIOError):
            counter.recv(65536)
