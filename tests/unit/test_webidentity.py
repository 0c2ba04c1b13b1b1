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


"""The user's own token at the storage's STS."""

import base64
import json
import time

import pytest

from rucio.common.exception import ConfigurationError, InputValidationError, RSEAccessDenied
from rucio.common.s3 import clients, objects
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from rucio.common.s3.webidentity import WebIdentity, claims_of
from servers.fake_sts import FakeSTS

ROLE = 'arn:aws:iam:::role/RucioWebIdentity'
BUCKET = 'user.alice'


def token(subject='alice', seconds=3600, serial=0, issuer='https://issuer', **more):
    """As an issuer makes them, but for the signature."""
    claims = {'iss': issuer, 'sub': subject, 'exp': int(time.time()) + seconds, 'jti': serial} | more
    parts = ({'alg': 'RS256'}, claims)
    return '.'.join([*(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b'=').decode() for part in parts), 'hidden'])


@pytest.fixture
def sts(monkeypatch):
    monkeypatch.setattr(WebIdentity, '_newest', {})
    with FakeSTS() as server:
        yield server


@pytest.fixture
def endpoint(s3, sts):
    def make(**settings):
        usual = {'rse': 'X', 'rse_id': 'abc', 'url': s3.url, 'sts_endpoint': sts.url, 'web_identity_role_arn': ROLE, 'max_attempts': 1}
        return Endpoint(**usual | settings)

    s3.store(BUCKET, 'k', b'x')
    return make


def stat(endpoint, text):
    return objects.stat(clients.connect(endpoint, WebIdentity(endpoint, text)), Target('X', BUCKET, 'k'))


def test_the_token_is_exchanged_once_and_the_keys_sign(endpoint, sts, s3):
    for _ in range(3):
        stat(endpoint(credentials_lifetime=1800), token())
    (asked,) = sts.requests
    assert (asked['Action'], asked['RoleArn'], asked['RoleSessionName']) == ('AssumeRoleWithWebIdentity', ROLE, 'rucio-alice')
    assert asked['DurationSeconds'] == '1800'
    assert asked['authorization'] == ''  # no keys are needed, and none are sent
    assert 'Credential=KEY1/' in s3.requests[-1].headers['authorization']
    assert s3.requests[-1].headers['x-amz-security-token'] == 'hidden-token-1'


def test_keys_for_the_shortest_time_are_not_renewed_with_each_request(endpoint, sts):
    for _ in range(3):
        stat(endpoint(credentials_lifetime=900), token())
    assert len(sts.requests) == 1


def test_keys_are_renewed_before_they_end_with_the_newest_token(endpoint, sts, s3):
    sts.lifetime = 60
    old, new = token(serial=1), token(seconds=7200, serial=2)
    stat(endpoint(), old)
    stat(endpoint(), new)
    assert [asked['WebIdentityToken'] for asked in sts.requests[:1]] == [old]
    assert sts.requests[-1]['WebIdentityToken'] == new
    stat(endpoint(), old)  # an older one does not take its place
    assert sts.requests[-1]['WebIdentityToken'] == new


def test_users_have_keys_of_their_own_and_a_renewed_token_is_the_same_user(endpoint):
    ways = [WebIdentity(endpoint(), each) for each in (token('alice'), token('bob'), token('alice', 100))]
    assert len({way.identity for way in ways}) == 2
    assert 'hidden' not in f'{ways} {ways[0].identity}'


def test_keys_are_of_one_user_of_one_issuer_for_one_role_of_one_storage(endpoint):
    ways = [
        WebIdentity(endpoint(), token()),
        WebIdentity(endpoint(), token('bob')),
        WebIdentity(endpoint(), token(issuer='https://another')),
        WebIdentity(endpoint(web_identity_role_arn=f'{ROLE}2'), token()),
        WebIdentity(endpoint(sts_endpoint='https://sts.example.org'), token()),
    ]
    assert len({way.identity for way in ways}) == len(ways)
    assert WebIdentity(endpoint(), token(serial=9)).identity == ways[0].identity


def test_of_tokens_that_end_together_the_last_is_used(endpoint, sts):
    end = int(time.time()) + 3600
    first, last = token(exp=end, serial=1), token(exp=end, serial=2)
    way = WebIdentity(endpoint(), first)
    WebIdentity(endpoint(), last)
    way.credentials().get_frozen_credentials()
    assert sts.requests[0]['WebIdentityToken'] == last


@pytest.mark.parametrize('end', [None, 0])
def test_a_token_need_not_say_when_it_ends(endpoint, sts, end):
    text = token(exp=end)
    WebIdentity(endpoint(), text).credentials().get_frozen_credentials()
    assert sts.requests[0]['WebIdentityToken'] == text
    longer = token(serial=1)
    WebIdentity(endpoint(), longer)
    assert WebIdentity._newest.popitem()[1][1] == longer


@pytest.mark.parametrize(
    ('subject', 'name'), [('a b/c:é', 'rucio-a-b-c--'), ('x' * 99, f'rucio-{"x" * 58}'), ('a=b,c.d@e-f+g_h', 'rucio-a=b,c.d@e-f+g_h'), ('', 'rucio-')]
)
def test_the_session_has_the_name_of_the_user_as_far_as_sts_takes_it(endpoint, sts, subject, name):
    WebIdentity(endpoint(), token(subject)).credentials().get_frozen_credentials()
    assert sts.requests[0]['RoleSessionName'] == name


@pytest.mark.parametrize('subject', ['', 'a', 'ab', 'abc', 'é?>'])
def test_claims_are_read_whatever_their_length(subject):
    assert claims_of(token(subject))['sub'] == subject


@pytest.mark.parametrize('code', ['ExpiredTokenException', 'InvalidIdentityToken', 'IDPRejectedClaim'])
def test_a_refused_token_says_so_without_showing_it(endpoint, sts, code):
    sts.failures = [(400, code)]
    with pytest.raises(RSEAccessDenied, match=f'{ROLE}.*{code}.*Log in again') as caught:
        stat(endpoint(), token())
    assert 'hidden' not in str(caught.value)
    assert token().split('.')[1] not in str(caught.value)


def test_a_token_is_sent_by_https_only(endpoint):
    with pytest.raises(ConfigurationError, match=r'RSE X: the OIDC token would be sent over the network unencrypted.*sts_endpoint'):
        WebIdentity(endpoint(sts_endpoint='http://sts.example.org'), token())


@pytest.mark.parametrize('text', ['', 'hidden', 'a.hidden.c', 'eyJ.bnVsbA.hidden', 'alice-hidden.x.y'])
def test_what_is_no_json_web_token_is_refused(endpoint, text):
    with pytest.raises(InputValidationError, match='RSE X') as caught:
        WebIdentity(endpoint(), text)
    assert 'hidden' not in str(caught.value)
