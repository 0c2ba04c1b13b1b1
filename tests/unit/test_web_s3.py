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

"""The views of the REST interface: made of the contract, done by the gateways, documented for Rucio's tools."""

import inspect
import json
import re

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

import flask

from rucio.common.exception import CannotAuthenticate, RSENotFound
from rucio.common.s3 import api, contract, request_ids
from rucio.web.rest.flaskapi.v1 import s3, s3events
from rucio.web.rest.flaskapi.v1.s3base import MAX_BODY, add_routes, view

# The server


@pytest.mark.parametrize('route', s3.HANDLERS, ids=lambda route: route.operation())
def test_each_gateway_takes_what_its_route_takes(route):
    if route is not api.GetVersion:
        assert [each.annotation for each in inspect.signature(s3.HANDLERS[route]).parameters.values()] == [route, str, str]


def test_every_route_is_served():
    assert {*s3.HANDLERS, api.TakeEvents} == set(api.ROUTES)


@pytest.fixture
def ask():
    """A server with some routes that answers with what it was given."""
    app = flask.Flask('test')
    bp = flask.Blueprint('s3', __name__, url_prefix='/s3')
    for route in (api.GetRSE, api.MakeBucket, api.ListChanges):
        add_routes(bp, route.path, view({route: lambda asked, issuer, vo: vars(asked) | {'issuer': issuer, 'vo': vo}}), with_doc=False)
    app.register_blueprint(bp)
    client = app.test_client()
    return lambda method, path, **more: client.open(path, method=method, environ_base={'issuer': 'alice', 'vo': 'def'}, **more)


def test_a_view_answers_with_what_the_gateway_says(ask):
    made = ask('POST', '/s3/buckets', json={'scope': 's', 'name': 'n'})
    assert (made.status_code, made.json) == (201, {'scope': 's', 'name': 'n', 'rse': None, 'issuer': 'alice', 'vo': 'def'})
    assert made.headers['Cache-Control'] == 'no-store'
    assert ask('GET', '/s3/rses/X/').json['rse'] == 'X'
    assert ask('GET', '/s3/changes?scope=a%20b&name=').json == {'scope': 'a b', 'name': '', 'rse': None, 'since': None, 'issuer': 'alice', 'vo': 'def'}


@pytest.mark.parametrize(
    ('method', 'path', 'more', 'status', 'said'),
    [
        ('POST', '/s3/buckets', {'json': {'name': 'n'}}, 400, "'scope' is missing."),
        ('POST', '/s3/buckets', {'json': {'scope': 's', 'force': True}}, 400, "POST /s3/buckets has no parameter 'force'."),
        ('POST', '/s3/buckets', {'json': ['s']}, 400, 'The body must be a JSON object, in which no name is given twice.'),
        ('POST', '/s3/buckets', {'data': '{"scope": "a", "scope": "b"}'}, 400, 'The body must be a JSON object, in which no name is given twice.'),
        ('POST', '/s3/buckets', {'data': ' ' * (MAX_BODY + 1)}, 413, f'The body of a request may have {MAX_BODY} bytes, not {MAX_BODY + 1}.'),
        ('GET', '/s3/changes', {}, 400, "'scope' is missing."),
        ('GET', '/s3/changes?scope=s&sience=x', {}, 400, "GET /s3/changes has no parameter 'sience'. Did you mean 'since'?"),
        ('GET', '/s3/rses/%0a', {}, 400, "'rse' has the character U+000A, but may have printable characters only."),
    ],
)
def test_a_view_refuses_what_the_contract_does_not_have(ask, method, path, more, status, said):
    answer = ask(method, path, **more)
    assert (answer.status_code, json.loads(answer.text)['ExceptionMessage']) == (status, said)
    assert answer.headers['ExceptionClass'] == 'InputValidationError'


def test_a_request_has_the_id_that_the_client_gave_it(ask, caplog):
    """In the answer and in the log; also where it is refused."""
    for path, status in (('/s3/rses/X', 200), ('/s3/rses/%0a', 400), ('/s3/buckets', 413)):
        with caplog.at_level('INFO'):
            method, data = ('POST', ' ' * (MAX_BODY + 1)) if status == 413 else ('GET', None)
            answer = ask(method, path, data=data, headers={'X-Request-ID': f'0123456789abc{status}'})
        assert (answer.status_code, answer.headers['X-Request-ID']) == (status, f'0123456789abc{status}')
        assert f'S3: request 0123456789abc{status} of alice: {method} ' in caplog.messages[-1]
        assert f': {status} in ' in caplog.messages[-1]
        assert caplog.messages[-1].isprintable()


@pytest.mark.parametrize('forged', ['', 'x' * 65, 'a b c d e f', 'abcdefgh\x1b[2J', 'S3: request 1 of root'])
def test_a_forged_id_is_in_neither(ask, caplog, forged):
    """An account that writes lines of its choice into the log, and headers into requests with the server's keys."""
    with caplog.at_level('INFO'):
        answer = ask('GET', '/s3/rses/X', headers={'X-Request-ID': forged})
    assert re.fullmatch('[0-9a-f]{16}', answer.headers['X-Request-ID'])
    assert not forged or forged not in caplog.text


def test_a_gateway_asks_storages_under_the_id_of_its_request():
    app = flask.Flask('test')
    app.add_url_rule('/x', view_func=view({api.ListRSEs: lambda *_: [request_ids.current()]}).as_view('x'))
    answer = app.test_client().get('/x', environ_base={'issuer': 'alice', 'vo': 'def'}, headers={'X-Request-ID': '0123456789abcdef'})
    assert answer.json == ['0123456789abcdef']
    assert request_ids.current() != '0123456789abcdef'


def test_refusals_of_the_gateway_have_their_own_status():
    def refuse(*_):
        raise RSENotFound('There is no such RSE.')

    app = flask.Flask('test')
    app.add_url_rule('/x', view_func=view({api.ListRSEs: refuse}).as_view('x'))
    assert app.test_client().get('/x', environ_base={'issuer': 'alice', 'vo': 'def'}).status_code == 404


@pytest.mark.parametrize(('token', 'status', 'issuer'), [(None, 200, ''), ('', 200, ''), ('right', 200, 'alice'), ('wrong', 401, None)])
def test_the_health_needs_no_token_and_refuses_a_wrong_one(monkeypatch, token, status, issuer):
    """And nobody becomes somebody else by a header."""

    def validated(given):
        if given != 'right':
            raise CannotAuthenticate
        return {'account': 'alice', 'vo': 'def'}

    monkeypatch.setattr('rucio.web.rest.flaskapi.v1.common.validate_auth_token', validated)
    monkeypatch.setitem(s3.HANDLERS, api.GetHealth, lambda _, issuer, vo: {'issuer': issuer, 'vo': vo})
    app = flask.Flask('test')
    app.register_blueprint(s3.blueprint())
    app.register_blueprint(s3.blueprint_legacy())
    headers = {'Issuer': 'root', 'X-Rucio-Account': 'root'} | ({} if token is None else {'X-Rucio-Auth-Token': token})
    answer = app.test_client().get('/s3/health', headers=headers, environ_base={'issuer': 'root'})
    assert (answer.status_code, (answer.json or {}).get('issuer')) == (status, issuer)
    for route in s3.HANDLERS:
        if route is not api.GetHealth:
            assert app.test_client().open(f'/s3{route.path}', method=route.method, headers=headers).status_code in (400, 401) or token == 'right'


def test_the_server_says_its_version_and_what_it_can_do():
    told = s3.HANDLERS[api.GetVersion](api.GetVersion(), 'alice', 'def')
    assert told['version'] == api.version()
    assert {'make_bucket', 'get_version', 'reconcile'} <= set(told['capabilities'])


# Its documentation


@pytest.mark.parametrize('module', [s3, s3events])
def test_rucios_tools_read_the_documentation(module):
    """As tools/generate_rest_api_doc.py of Rucio does it."""
    apispec = pytest.importorskip('apispec')
    plugin = pytest.importorskip('apispec_webframeworks.flask')
    validator = pytest.importorskip('openapi_spec_validator')
    spec = apispec.APISpec(title='Rucio', version='1', openapi_version='3.0.2', plugins=[plugin.FlaskPlugin()])
    doc_app = module.make_doc()
    with doc_app.test_request_context():
        for name, function in doc_app.view_functions.items():
            if name != 'static':
                spec.path(view=function)
    document = spec.to_dict()
    routes = [each for each in api.ROUTES if (each is api.TakeEvents) == (module is s3events)]
    told = {(method.upper(), path): each for path, methods in document['paths'].items() for method, each in methods.items() if method != 'parameters'}
    assert {key: each['summary'] for key, each in told.items()} == {
        (route.method, f'/s3{route.path}'): contract.documentation(route).summary for route in routes
    }
    validator.validate(document)
