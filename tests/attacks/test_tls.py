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

"""A server with a certificate of its own making, where a storage, its STS or the Rucio server should be: nobody may speak to it.

Anybody on the way can be such a server. What each client would tell it: signed requests and data, an OIDC token, the token that events are
believed for, a password. The environment is not hostile but sloppy: `export REQUESTS_CA_BUNDLE=` is what many do to unset it.
"""

import json
import os
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rucio.client.s3check import network
from rucio.client.s3client import S3Client
from rucio.common.exception import RucioException
from rucio.common.s3 import clients, credentials, factory, objects, sts
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from rucio.common.s3.webidentity import WebIdentity
from servers.ca import CA
from servers.thief import Thief

pytestmark = pytest.mark.usefixtures('home')

ROLE = 'arn:aws:iam:::role/rucio'
TOKEN = '.'.join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip('=') for part in ({'alg': 'RS256'}, {'sub': 'alice'}, {}))
KEYS = credentials.Static('AKID', 'secret', 'session-token')
USER = {'account': 'alice', 'auth_type': 'userpass', 'creds': {'username': 'alice', 'password': 'password-of-alice'}}


@pytest.fixture
def thief(tmp_path: Path) -> Iterator[Thief]:
    with Thief(CA(tmp_path / 'thief')) as server:
        yield server


def endpoint(url: str, **settings: object) -> Endpoint:
    return Endpoint('X', 'x', url, max_attempts=1, web_identity_role_arn=ROLE, **settings)  # type: ignore[arg-type]


def by_keys(url: str) -> None:
    clients.connect(endpoint(url), KEYS).client.list_buckets()


def by_a_signed_url(url: str) -> None:
    connection = clients.connect(endpoint(url), None)
    assert isinstance(connection.authorizer, credentials.Presigned)
    connection.authorizer.offer('read', Target('X', 'bucket', 'key'), f'{url}/bucket/key?X-Amz-Signature=1')
    connection.client.get_object(Bucket='bucket', Key='key')


def by_an_oidc_token(url: str) -> None:
    objects.exists(clients.connect(endpoint(url), WebIdentity(endpoint(url), TOKEN)), Target('X', 'bucket', 'key'))


def by_the_servers_keys_at_the_sts(url: str) -> None:
    sts.assume_role(endpoint(url), sts.client(endpoint(url), KEYS.session(), 'us-east-1'), ROLE, 'rucio-alice', '{}', 900)


def by_a_topic(url: str) -> None:
    sns = factory.client('sns', KEYS.session(), url, region='us-east-1', patience=endpoint(url).patience())
    sns.create_topic(Name='rucio', Attributes={'OpaqueData': 'events-token'})


def by_a_profile(url: str) -> None:
    write_profile('[profile p]\naws_access_key_id = AKID\naws_secret_access_key = secret\n')
    clients.connect(endpoint(url), credentials.Profile('p')).client.list_buckets()


def by_a_profile_whose_ca_is_empty(url: str) -> None:
    write_profile('[profile p]\naws_access_key_id = AKID\naws_secret_access_key = secret\nca_bundle =\n')
    clients.connect(endpoint(url), credentials.Profile('p')).client.list_buckets()


def by_a_profile_with_a_role(url: str) -> None:
    """Botocore makes the STS client by itself."""
    write_profile(f'[profile p]\nrole_arn = {ROLE}\nweb_identity_token_file = {write("token", TOKEN)}\nendpoint_url = {url}\n')
    clients.connect(endpoint('http://127.0.0.1:9'), credentials.Profile('p')).client.list_buckets()


def by_the_check(url: str) -> None:
    network.http_get(endpoint(url), url)


WAYS = [
    by_keys,
    by_a_signed_url,
    by_an_oidc_token,
    by_the_servers_keys_at_the_sts,
    by_a_topic,
    by_a_profile,
    by_a_profile_whose_ca_is_empty,
    by_a_profile_with_a_role,
    by_the_check,
]


def write(name: str, text: str) -> Path:
    path = Path(os.environ['HOME']) / '.aws' / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def write_profile(text: str) -> None:
    write('config', text)


ONE_OR_BOTH = [(by_keys, ['AWS_CA_BUNDLE']), (by_keys, ['REQUESTS_CA_BUNDLE']), *((way, ['AWS_CA_BUNDLE', 'REQUESTS_CA_BUNDLE']) for way in WAYS)]


@pytest.mark.parametrize(('way', 'variables'), ONE_OR_BOTH)
def test_an_empty_variable_does_not_make_a_client_believe_everybody(
    way: Callable[[str], None], variables: list[str], thief: Thief, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Got: a signed request or an OIDC token, which the server can use for itself at the real storage."""
    monkeypatch.setenv('AWS_MAX_ATTEMPTS', '1')
    for variable in variables:
        monkeypatch.setenv(variable, '')
    with pytest.raises(Exception, match=r'(?i)certificate verify failed'):
        way(thief.url)
    assert thief.seen == []


def test_clients_of_notebooks_believe_no_more_than_the_others(thief: Thief, monkeypatch: pytest.MonkeyPatch) -> None:
    """`S3Client.boto3_client` with an address of the user's own, and what is given to s3fs, which asks the same botocore."""
    with Thief() as rucio:  # to log in to
        client = login(rucio, monkeypatch, endpoint_url=thief.url, key_id='AKID', secret_key='secret', region='us-east-1')
        monkeypatch.setenv('AWS_MAX_ATTEMPTS', '1')
        monkeypatch.setenv('AWS_CA_BUNDLE', '')
        monkeypatch.setenv('REQUESTS_CA_BUNDLE', '')
        with pytest.raises(Exception, match=r'(?i)certificate verify failed'):
            client.boto3_client().list_buckets()
        assert client.storage_options()['client_kwargs']['verify'] is True
    assert thief.seen == []


def login(rucio: Thief, monkeypatch: pytest.MonkeyPatch, **options: str) -> S3Client:
    """A client with a token: nothing is asked of the server."""
    monkeypatch.setattr(S3Client, '_BaseClient__authenticate', lambda self: setattr(self, 'auth_token', 'token-of-alice'))
    return S3Client(rucio_host=rucio.url, auth_host=rucio.url, **USER, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize('careless', ['X509_CERT_DIR', 'ca_cert', 'REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE'])
def test_a_password_is_not_told_to_a_false_rucio_server(careless: str, home: Path, thief: Thief, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock Rucio verifies nothing where the path of its CA is empty. Got: the password."""
    if careless == 'ca_cert':
        with (home / 'rucio' / 'etc' / 'rucio.cfg').open('a') as file:
            file.write('ca_cert =\n')
    else:
        monkeypatch.setenv(careless, '')
    with pytest.raises(Exception, match=r'(?i)certificate verify failed|did not answer|Cannot auth|Rucio'):
        S3Client(rucio_host=thief.url, auth_host=thief.url, **USER)  # type: ignore[arg-type]
    assert thief.seen == []


@pytest.mark.parametrize('kind', ['file', 'directory'])
@pytest.mark.parametrize('variable', ['AWS_CA_BUNDLE', 'REQUESTS_CA_BUNDLE'])
def test_the_site_may_still_name_its_own_ca(variable: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No attack: what the guards must leave."""
    ca = CA(tmp_path / 'site')
    (tmp_path / 'certificates').mkdir()
    (tmp_path / 'certificates' / 'README').write_text('not a certificate')
    (tmp_path / 'certificates' / '511e1fa5.0').write_bytes(ca.bundle.read_bytes())
    monkeypatch.setenv(variable, str(ca.bundle if kind == 'file' else tmp_path / 'certificates'))
    with Thief(ca) as honest:
        by_keys(honest.url)
        by_the_servers_keys_at_the_sts(honest.url)
        assert len(honest.seen) == 2


def test_a_ca_that_is_missing_or_no_ca_is_no_reason_to_believe_everybody(tmp_path: Path, thief: Thief, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text').write_text('text')
    for path in ('empty', 'text', 'missing'):
        monkeypatch.setenv('AWS_CA_BUNDLE', str(tmp_path / path))
        clients._shared.clear()
        with pytest.raises((RucioException, Exception)):
            by_keys(thief.url)
    assert thief.seen == []
