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

"""A token that Rucio has in its cache is valid without a query; what is valid, and for how long, is decided by Rucio."""

import inspect
from datetime import datetime, timedelta, timezone

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

import flask
from sqlalchemy import event
from sqlalchemy.orm import Session

from rucio.common.types import InternalAccount
from rucio.core import authentication
from rucio.core.s3.auth import tokens
from rucio.db.sqla import models
from rucio.db.sqla.constants import AccountStatus, AccountType
from rucio.gateway.authentication import validate_auth_token
from rucio.web.rest.flaskapi.authenticated_bp import AuthenticatedBlueprint
from rucio.web.rest.flaskapi.v1.common import request_auth_env
from rucio.web.rest.flaskapi.v1.s3base import authenticate

# Rucio 39 (39.4.2) lacks a fix that 38.6, 40 and 41 have: it accepts an SSH challenge as a token.
CHALLENGE = pytest.param(
    'challenge-0123',
    marks=pytest.mark.skipif(
        'challenge-' not in inspect.getsource(authentication.validate_auth_token), reason='this Rucio accepts an SSH challenge as a token'
    ),
)
TOKEN = 'alice-alice-unknown-0123456789abcdef0123456789abcdef'


@pytest.fixture
def queries(database):
    seen = []
    event.listen(database, 'before_cursor_execute', lambda *given: seen.append(given[2]))
    return seen


@pytest.fixture
def token(database, monkeypatch):
    """Call it for a token of alice that ends in so many seconds."""
    monkeypatch.setattr(authentication.TOKENREGION.backend, '_cache', {})
    end = datetime.now(timezone.utc).replace(tzinfo=None)

    def make(seconds, text=TOKEN):
        with Session(database) as session:
            session.merge(models.Account(account=InternalAccount('alice'), account_type=AccountType.USER, status=AccountStatus.ACTIVE))
            session.flush()
            session.add(models.Token(token=text, account=InternalAccount('alice'), identity='an identity', expired_at=end + timedelta(seconds=seconds)))
            session.commit()
        return text

    return make


def environment(check, given):
    """What a request has after the check, and the answer if there is one."""
    headers = {} if given is None else {'X-Rucio-Auth-Token': given}
    with flask.Flask('test').test_request_context('/s3/sign', method='POST', headers=headers):
        answer = check()
        added = {name: flask.request.environ.get(name) for name in ('issuer', 'vo', 'identity')}
        assert answer or {'request_id', 'start_time'} <= flask.request.environ.keys()
        return added, answer and answer.status_code


def test_the_second_request_of_a_token_needs_no_database(token, queries):
    assert tokens.remembered(token(3600)) is None
    asked = environment(authenticate, TOKEN)
    assert queries
    del queries[:]
    assert environment(authenticate, TOKEN) == asked == ({'issuer': 'alice', 'vo': 'def', 'identity': 'an identity'}, None)
    assert not queries
    assert asked == environment(request_auth_env, TOKEN)


@pytest.mark.parametrize('given', [None, '', 'unknown', CHALLENGE, 'a.b.c'])
def test_what_is_no_token_is_refused_as_by_rucio(token, given):
    token(3600, 'challenge-0123')
    for _ in range(2):
        answer = environment(authenticate, given)
        assert answer == environment(request_auth_env, given)
        assert answer[1] in (400, 401)
    assert not given or tokens.remembered(given) is None


def test_a_token_ends_although_it_is_cached(token, monkeypatch):
    validate_auth_token(token(3600))
    assert tokens.remembered(TOKEN) == ('alice', 'def', 'an identity')

    class Later(datetime):
        @classmethod
        def utcnow(cls):
            return datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(seconds=3601)

    monkeypatch.setattr(authentication.datetime, 'datetime', Later)
    assert tokens.remembered(TOKEN) is None
    assert environment(authenticate, TOKEN)[1] == 401


def test_blueprints_of_rucio_check_the_token_and_nothing_else():
    """Ours calls that function for what is not remembered, and does for the others what it does."""
    assert AuthenticatedBlueprint('x', 'x').before_request_funcs == {None: [request_auth_env]}
