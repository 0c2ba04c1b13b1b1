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

"""The STS of the Rucio server: the form that clients send, what they are answered, and where the token must not be."""

import base64
import json
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

import flask

from rucio.common.exception import (
    AccessDenied,
    CannotAuthenticate,
    InvalidObject,
    ResourceTemporaryUnavailable,
    RSEAccessDenied,
    RSENotFound,
    RSEOperationNotSupported,
    ServiceUnavailable,
)
from rucio.core.s3.auth import tokens
from rucio.core.s3.auth.rates import TooManyRequests
from rucio.db.sqla import models
from rucio.gateway import s3sts
from rucio.web.rest.flaskapi.v1 import s3

NS = '{https://sts.amazonaws.com/doc/2011-06-15/}'
TOKEN = 'alice-alice-unknown-0123456789abcdef0123456789abcdef'
ROLE = 'arn:aws:iam::rucio:role/SITE_S3/user.alice:run7'
GOOD = {'Action': 'AssumeRoleWithWebIdentity', 'Version': '2011-06-15', 'RoleArn': ROLE, 'RoleSessionName': 'x', 'WebIdentityToken': TOKEN}
KEYS = {'access_key': 'KEY', 'secret_key': 'hidden', 'session_token': 'hidden-token', 'expiration': '2026-01-01T00:00:00Z'}


@pytest.fixture
def vended(monkeypatch):
    """What was asked for: requests, accounts. `answer` is what comes of the next ones, or what they raise."""
    asked = SimpleNamespace(requests=[], answer=lambda _: KEYS)

    def validated(token):
        if token != TOKEN:
            raise CannotAuthenticate(token)
        return {'account': 'alice', 'vo': 'abc'}

    def get_credentials(request, issuer, vo):
        asked.requests.append((request, issuer, vo))
        return asked.answer(request)

    monkeypatch.setattr('rucio.gateway.authentication.validate_auth_token', validated)
    monkeypatch.setattr('rucio.gateway.s3.get_credentials', get_credentials)
    monkeypatch.setattr(tokens, 'has_expired', lambda token, **_: token.startswith('old'))
    monkeypatch.setattr(s3sts, 'db_session', lambda _: nullcontext())
    return asked


@pytest.fixture
def ask(vended):
    app = flask.Flask('test')
    app.register_blueprint(s3.blueprint())
    app.register_blueprint(s3.blueprint_legacy())

    def send(form, path='/s3/sts', method='POST', **more):
        data = form if isinstance(form, str) else urlencode(form)
        return app.test_client().open(path, method=method, data=data, content_type='application/x-www-form-urlencoded; charset=utf-8', **more)

    return send


def refused(answer):
    error = ET.fromstring(answer.data).find(f'{NS}Error')
    assert answer.content_type.startswith('text/xml')
    assert answer.headers['Cache-Control'] == 'no-store'
    assert TOKEN not in answer.text
    return answer.status_code, error.find(f'{NS}Code').text, error.find(f'{NS}Message').text


def test_a_token_and_a_role_give_the_keys_of_vending(ask, vended, caplog):
    with caplog.at_level('INFO'):
        answer = ask(GOOD | {'DurationSeconds': '900'})
    assert answer.status_code == 200
    keys = ET.fromstring(answer.data).find(f'{NS}AssumeRoleWithWebIdentityResult/{NS}Credentials')
    assert {each.tag.removeprefix(NS): each.text for each in keys} == {
        'AccessKeyId': 'KEY',
        'SecretAccessKey': 'hidden',
        'SessionToken': 'hidden-token',
        'Expiration': '2026-01-01T00:00:00Z',
    }
    ((request, issuer, vo),) = vended.requests
    assert (issuer, vo) == ('alice', 'abc')
    assert (request.rse, request.scope, request.name, request.write, request.lifetime) == ('SITE_S3', 'user.alice', 'run7', True, 900)
    assert (request.bucket, request.prefix) == (None, '')
    assert answer.headers['Cache-Control'] == 'no-store'
    assert 'of alice: POST /s3/sts: 200' in caplog.text
    assert TOKEN not in caplog.text


def test_who_may_not_write_gets_keys_to_read(ask, vended):
    def read_only(request):
        if request.write:
            raise AccessDenied('no')
        return KEYS

    vended.answer = read_only
    assert ask(GOOD).status_code == 200
    assert [request.write for request, *_ in vended.requests] == [True, False]


def test_a_read_only_role_is_never_asked_for_keys_to_write(ask, vended):
    assert ask(GOOD | {'RoleArn': ROLE.replace('role/', 'role/read-only/')}).status_code == 200
    assert [request.write for request, *_ in vended.requests] == [False]


@pytest.mark.parametrize(
    ('error', 'status', 'code'),
    [
        (AccessDenied('said'), 403, 'AccessDenied'),
        (RSENotFound('said'), 400, 'ValidationError'),
        (InvalidObject('said'), 400, 'ValidationError'),
        (TooManyRequests('said', 7), 400, 'Throttling'),
        (RSEOperationNotSupported('said'), 501, 'NotImplemented'),
        (ServiceUnavailable('said'), 503, 'ServiceUnavailable'),
        (ResourceTemporaryUnavailable('said'), 503, 'ServiceUnavailable'),
        (RSEAccessDenied('said'), 500, 'InternalFailure'),
    ],
)
def test_errors_have_the_codes_that_clients_know(ask, vended, error, status, code):
    def fail(_):
        raise error

    vended.answer = fail
    answer = ask(GOOD)
    seen = refused(answer)
    assert seen[:2] == (status, code)
    assert seen[2].startswith('said')
    assert answer.headers.get('Retry-After') == ('7' if code == 'Throttling' else None)


def test_an_unexpected_error_is_not_shown(ask, vended):
    def fail(_):
        raise RuntimeError('secret')

    vended.answer = fail
    status, code, message = refused(ask(GOOD))
    assert (status, code) == (500, 'InternalFailure')
    assert 'secret' not in message


@pytest.mark.parametrize(('token', 'code'), [('new', 'InvalidIdentityToken'), ('old', 'ExpiredTokenException')])
def test_a_token_that_is_not_valid(ask, vended, token, code):
    assert refused(ask(GOOD | {'WebIdentityToken': token}))[:2] == (400, code)
    assert not vended.requests


@pytest.mark.parametrize(
    ('form', 'said'),
    [
        (GOOD | {'Policy': '{}'}, "'Policy' is not supported"),
        (GOOD | {'PolicyArns.member.1.arn': 'arn:aws:iam::aws:policy/ReadOnlyAccess'}, "'PolicyArns.member.1.arn' is not supported"),
        (GOOD | {'Action': 'AssumeRole'}, 'The Action must be'),
        (GOOD | {'Version': '2012-01-01'}, 'The Action must be'),
        (GOOD | {'WebIdentityToken': ''}, "'WebIdentityToken' is missing."),
        (GOOD | {'RoleArn': ''}, "'RoleArn' is missing."),
        (GOOD | {'RoleArn': 'arn:aws:iam::123456789012:user/x'}, 'names no RSE and DID'),
        (GOOD | {'RoleArn': 'arn:aws:iam::rucio:role/<b>&\x00/'}, 'names no RSE and DID'),
        (GOOD | {'RoleArn': ROLE + '\n'}, 'names no RSE and DID'),
        (GOOD | {'DurationSeconds': '1e9'}, "'DurationSeconds' is not a number of seconds."),
        (GOOD | {'DurationSeconds': '0'}, "'lifetime' is not a number from 1 to 604800."),
        (f'{urlencode(GOOD)}&RoleArn={ROLE}', 'A parameter stands twice in the body.'),
        ('', 'The request must have a body of at most 65536 bytes'),
        ('\x00\xff', 'The body is not a form.'),
        ('&'.join(f'a{number}=b' for number in range(100)), 'The body is not a form.'),
        (GOOD | {'RoleSessionName': 'x' * 70_000}, 'The request must have a body of at most 65536 bytes'),
    ],
)
def test_what_is_not_understood_is_refused_and_nothing_vended(ask, vended, form, said):
    """A session policy that was ignored would give more than the client asked for."""
    status, code, message = refused(ask(form))
    assert (status, code) == (400, 'ValidationError')
    assert said in message
    assert not vended.requests


@pytest.mark.parametrize('method', ['GET', 'POST'])
def test_a_token_in_a_url_is_refused(ask, vended, method):
    """Whoever reads the access log of the server, or of a proxy, would have it. Nobody gets used to it, as it never works."""
    for form in ('', GOOD):
        status, code, message = refused(ask(form, f'/s3/sts?{urlencode(GOOD)}', method))
        assert (status, code) == (400, 'ValidationError')
        assert 'URLs are logged' in message
    assert not vended.requests


def test_nobody_is_somebody_else_by_a_header(ask, vended):
    answer = ask(GOOD, headers={'Issuer': 'root', 'X-Rucio-Account': 'root'}, environ_base={'issuer': 'root'})
    assert answer.status_code == 200
    assert vended.requests[0][1] == 'alice'


# Which tokens have expired


def jwt(**claims):
    return 'e30.' + base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=') + '.c2ln'


@pytest.mark.parametrize(
    ('token', 'ends', 'expired'),
    [
        (TOKEN, None, False),
        (TOKEN, timedelta(hours=-1), True),
        (TOKEN, timedelta(hours=1), False),
        (jwt(exp=1_000_000_000), None, True),
        (jwt(exp=10_000_000_000), None, False),
        (jwt(exp='never'), None, False),
    ],
)
def test_a_token_that_has_expired_is_told_from_others(token, ends, expired):
    found = None if ends is None else datetime.now(timezone.utc).replace(tzinfo=None) + ends
    session = SimpleNamespace(execute=lambda _: SimpleNamespace(scalar=lambda: found))
    assert tokens.has_expired(token, session=session) is expired


def test_a_token_is_told_by_its_own_row(twins):
    """Not by that of another one."""
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    with twins.writing() as session:
        for token, ends in (('old', -1), ('new', 1)):
            session.add(models.Token(token=token, account=twins.of().account, expired_at=now + timedelta(hours=ends), refresh=False))
    with twins.reading() as session:
        assert [tokens.has_expired(token, session=session) for token in ('old', ' old\n', 'new', 'none')] == [True, True, False, False]
