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

"""What the STS of a storage answers, and what that means; attacks/test_hostile_sts.py has what it may send."""

import re
from datetime import datetime, timedelta, timezone

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import EndpointConnectionError

from rucio.common.exception import (
    ConfigurationError,
    InputValidationError,
    ResourceTemporaryUnavailable,
    RSEAccessDenied,
    ServiceUnavailable,
)
from rucio.common.s3 import sts
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.factory import bare_session
from servers.fake_sts import FakeSTS

ROLE = 'arn:aws:iam:::role/RucioVendor'


@pytest.fixture
def server():
    with FakeSTS() as made:
        yield made


@pytest.fixture
def endpoint(server):
    return Endpoint(rse='X', rse_id='', url=server.url, max_attempts=1)


@pytest.fixture
def client(endpoint):
    return sts.client(endpoint, bare_session(Credentials('AKID', 'secret')), 'mars')


def assume(endpoint, client, seconds=900):
    return sts.assume_role(endpoint, client, ROLE, 'rucio-alice', '{"policy": 1}', seconds)


def test_keys_are_for_the_role_the_policy_and_the_time_that_were_asked_for(server, endpoint, client):
    keys = assume(endpoint, client)
    (asked,) = server.requests
    expected = {'Action': 'AssumeRole', 'RoleArn': ROLE, 'RoleSessionName': 'rucio-alice', 'Policy': '{"policy": 1}', 'DurationSeconds': '900'}
    assert expected.items() <= asked.items()
    assert '/mars/sts/' in asked['authorization']
    assert (keys.access_key, keys.secret_key, keys.session_token) == ('KEY1', 'hidden-1', 'hidden-token-1')
    assert timedelta(seconds=880) < keys.expiration - datetime.now(timezone.utc) <= timedelta(seconds=900)
    assert keys.expiration.utcoffset() == timedelta(0)
    assert 'hidden' not in repr(keys)
    assert 'KEY1' not in repr(keys)


def test_a_token_needs_no_keys(server, endpoint):
    client = sts.client(endpoint, bare_session(None), 'mars')
    keys = sts.assume_role_with_web_identity(endpoint, client, ROLE, 'rucio-alice', 'eyJ.a.b', 1200)
    (asked,) = server.requests
    expected = {
        'Action': 'AssumeRoleWithWebIdentity',
        'RoleArn': ROLE,
        'RoleSessionName': 'rucio-alice',
        'WebIdentityToken': 'eyJ.a.b',
        'DurationSeconds': '1200',
    }
    assert expected.items() <= asked.items()
    assert 'Policy' not in asked
    assert asked['authorization'] == ''
    assert keys.access_key == 'KEY1'


@pytest.mark.parametrize(
    ('failure', 'kind', 'words'),
    [
        ((403, 'AccessDenied'), RSEAccessDenied, 'role_arn'),
        ((403, 'Unknown'), RSEAccessDenied, 'role_arn'),
        ((400, 'Unknown'), RSEAccessDenied, 'sts_endpoint'),
        ((404, 'NoSuchEntity'), RSEAccessDenied, 'no such role'),
        ((400, 'ExpiredToken'), RSEAccessDenied, 'Log in again'),
        ((400, 'ExpiredTokenException'), RSEAccessDenied, 'Log in again'),
        ((400, 'InvalidIdentityToken'), RSEAccessDenied, 'Log in again'),
        ((403, 'IDPRejectedClaim'), RSEAccessDenied, 'Log in again'),
        ((400, 'InvalidParameterValue'), RSEAccessDenied, 'Log in again'),
        ((403, 'InvalidAccessKeyId'), RSEAccessDenied, r'rse-accounts\.cfg'),
        ((403, 'InvalidClientTokenId'), RSEAccessDenied, r'rse-accounts\.cfg'),
        ((403, 'SignatureDoesNotMatch'), RSEAccessDenied, r'rse-accounts\.cfg'),
        ((400, 'ValidationError'), RSEAccessDenied, 'credentials_lifetime'),
        ((400, 'MalformedPolicyDocument'), RSEAccessDenied, 'session policy'),
        ((400, 'PackedPolicyTooLarge'), RSEAccessDenied, 'shorter name'),
        ((403, 'RegionDisabledException'), RSEAccessDenied, 'STS is enabled'),
        ((501, 'NotImplemented'), RSEAccessDenied, 'no STS at this address'),
        ((503, 'Unknown'), ResourceTemporaryUnavailable, 'busy'),
        ((429, 'Unknown'), ResourceTemporaryUnavailable, 'busy'),
        ((400, 'Throttling'), ResourceTemporaryUnavailable, 'busy'),
        ((400, 'ThrottlingException'), ResourceTemporaryUnavailable, 'busy'),
        ((400, 'SlowDown'), ResourceTemporaryUnavailable, 'busy'),
        ((500, 'InternalError'), ServiceUnavailable, 'the STS is running'),
        ((500, 'AccessDenied'), RSEAccessDenied, 'role_arn'),
    ],
)
def test_a_refusal_says_what_to_do(server, endpoint, client, failure, kind, words):
    server.failures = [failure]
    with pytest.raises(kind, match=f'{failure[1]}.*{words}') as raised:
        assume(endpoint, client)
    assert type(raised.value) is kind
    assert raised.value.__cause__ is None
    assert f"RSE X: no keys for the role '{ROLE}' from {server.url}" in str(raised.value)


@pytest.mark.parametrize(('status', 'code'), [(403, 'InvalidAccessKeyId'), (404, 'NoSuchEntity')])
def test_an_error_as_s3_has_it_is_read_too(server, endpoint, client, status, code):
    """As Ceph sends it, and SeaweedFS for wrong keys."""
    server.chained['AssumeRole'] = (status, code)
    client = sts.client(endpoint, bare_session(Credentials('KEY1', 'secret')), 'mars')
    with pytest.raises(RSEAccessDenied, match=code):
        assume(endpoint, client)


def test_a_role_that_is_none_is_refused_before_it_is_sent(server, endpoint, client):
    with pytest.raises(InputValidationError, match='Check the setting role_arn'):
        sts.assume_role(endpoint, client, 'short', 'rucio-alice', '{}', 900)
    assert server.requests == []


def test_nobody_is_there(endpoint, client, server):
    server.__exit__()
    with pytest.raises(ServiceUnavailable, match='the STS is running'):
        assume(endpoint, client)
    server.__enter__()


def test_keys_without_their_end_are_not_used(server, endpoint, client):
    answer = server.answer
    server.answer = lambda asked: (200, re.sub('<Expiration>.*</Expiration>', '', answer(asked)[1]))
    with pytest.raises(ServiceUnavailable, match=r'RSE X: the STS at .*without their expiration'):
        assume(endpoint, client)


def test_an_answer_without_keys_is_none(endpoint):
    for answer in ({}, {'Credentials': None}, {'Credentials': {'Expiration': '2026-11-22T00:00:00Z'}}):
        with pytest.raises(ServiceUnavailable, match='without their expiration'):
            sts._keys(endpoint, answer)
    ends = datetime(2026, 11, 22, 12, tzinfo=timezone(timedelta(hours=2)))
    whole = {'AccessKeyId': 'A', 'SecretAccessKey': 'b', 'SessionToken': 'c', 'Expiration': ends}
    assert sts._keys(endpoint, {'Credentials': whole}).expiration.hour == 10
    for name in ('AccessKeyId', 'SecretAccessKey', 'SessionToken'):
        with pytest.raises(ServiceUnavailable, match='returned an invalid'):
            sts._keys(endpoint, {'Credentials': {**whole, name: None}})


@pytest.mark.parametrize(
    ('status', 'body', 'read'),
    [
        (400, b'<Error><Code>c</Code></Error>', b'<ErrorResponse><Error><Code>c</Code></Error></ErrorResponse>'),
        (300, b' <?xml version="1.0"?>\n<Error>\n</Error>\n', b'<ErrorResponse><Error>\n</Error></ErrorResponse>'),
        (200, b'<Error></Error>', None),
        (403, b'<ErrorResponse><Error/></ErrorResponse>', None),
        (403, b'', None),
    ],
)
def test_which_answers_are_errors_as_s3_has_them(status, body, read):
    response = {'status_code': status, 'body': body}
    sts._as_an_sts_error(response)
    assert response['body'] == (body if read is None else read)


@pytest.mark.parametrize('counted', [True, False])
def test_requests_that_should_be_refused_are_not_counted(endpoint, monkeypatch, counted):
    made, make = [], sts.factory.client
    monkeypatch.setattr(sts.factory, 'client', lambda *arguments, **given: made.append(given) or make(*arguments, **given))
    sts.client(endpoint, bare_session(None), 'mars', counted=counted)
    assert made[0]['rse'] == (endpoint.observed if counted else None)
    assert made[0]['config'].signature_version == 'v4'


@pytest.mark.parametrize('member', ['AccessKeyId', 'SecretAccessKey', 'SessionToken'])
def test_a_key_that_no_tool_can_hold_is_not_used(server, endpoint, client, member):
    server.hostile = {member: 'a b'}
    with pytest.raises(ServiceUnavailable, match=r'RSE X: the STS at .* returned an invalid'):
        assume(endpoint, client)


def test_keys_come_by_https_only():
    endpoint = Endpoint(rse='X', rse_id='', url='https://s3.example.org', sts_endpoint='http://sts.example.org')
    with pytest.raises(ConfigurationError, match=r'RSE X: the keys from its STS would be sent over the network unencrypted.*sts_endpoint'):
        sts.client(endpoint, bare_session(None), 'mars')


def test_the_code_of_a_refusal_is_told_and_all_else_is_a_refusal_too(server, client):
    server.failures = [(403, 'AccessDenied'), (403, '')]
    arguments = {'RoleArn': ROLE, 'RoleSessionName': 'rucio', 'DurationSeconds': 900}
    assert sts.refusal(client.assume_role, **arguments) == 'AccessDenied'
    assert sts.refusal(client.assume_role, **arguments) == '403'
    assert sts.refusal(client.assume_role, **arguments) is None

    def away(**_):
        raise EndpointConnectionError(endpoint_url='http://sts')

    assert sts.refusal(away) == 'EndpointConnectionError'
