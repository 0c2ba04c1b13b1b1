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

"""How requests of the REST interface are read, sent and described."""

import json
import pkgutil
from dataclasses import MISSING, FrozenInstanceError
from typing import Annotated, Any, Optional

import pytest

from rucio.common.exception import InputValidationError
from rucio.common.s3 import api, contract, probes

# What is sent


def test_what_is_given_is_read_and_the_rest_has_its_default():
    assert api.Reconcile.read({'scope': 'user.alice', 'dry_run': True}) == api.Reconcile(scope='user.alice', dry_run=True)
    assert api.Reconcile.read({'scope': 's', 'name': None, 'rse': '', 'after': '', 'on_changed': ''}) == api.Reconcile(scope='s')
    assert api.Reconcile.read({'scope': 's', 'after': 'a\nb\u202e'}).after == 'a\nb\u202e'  # a key


def test_what_is_at_its_limits_is_allowed():
    assert [api.GetCredentials.read({'lifetime': seconds}).lifetime for seconds in (1, 900, 604800)] == [1, 900, 604800]
    assert api.SetBucketPolicy.read({'scope': 's', 'policy': {'a': 1}}).policy == {'a': 1}
    assert [len(api.Sign.read({'rse': 'X', 'requests': [{}] * count}).requests) for count in (1, 1000)] == [1, 1000]
    assert api.Reconcile.read({'scope': 'a' * 250, 'after': 'b' * 1024}).after == 'b' * 1024


@pytest.mark.parametrize(
    ('route', 'given', 'said'),
    [
        (api.Reconcile, {}, "'scope' is missing."),
        (api.Reconcile, {'scope': None}, "'scope' is missing."),
        (api.Reconcile, {'scope': ''}, "'scope' is empty."),
        (api.Reconcile, {'scope': 7}, "'scope' is of the JSON type integer, but must be string."),
        (api.Reconcile, {'scope': 's', 'dry_run': 'true'}, "'dry_run' is of the JSON type string, but must be boolean."),
        (api.Reconcile, {'scope': 's', 'dry_run': 1}, "'dry_run' is of the JSON type integer, but must be boolean."),
        (api.Reconcile, {'scope': 's', 'rse': ['X']}, "'rse' is of the JSON type array, but must be string."),
        (api.Reconcile, {'scope': 'a' * 251}, "'scope' has 251 characters, but may have 250."),
        (api.Reconcile, {'scope': 'a\0'}, "'scope' has the character U+0000, but may have printable characters only."),
        (api.Reconcile, {'scope': 's', 'after': '€' * 342}, "'after' has 1026 bytes, but may have 1024."),
        (api.Reconcile, {'scope': 's', 'after': '\ud800'}, "'after' must be text in Unicode."),
        (api.Reconcile, {'scope': 's', 'on_missing': 'eat'}, "'on_missing' is 'eat', but must be one of report, forget, lost."),
        (api.Reconcile, {'scope': 's', 'dryrun': True}, "POST /s3/reconcile has no parameter 'dryrun'. Did you mean 'dry_run'?"),
        (api.Reconcile, {'scope': 's', '\n\u202e': 1}, "POST /s3/reconcile has no parameter '\\n\\u202e'."),
        (api.SetBucketSettings, {'scope': 's', 'on_changed': 'forget'}, "'on_changed' is 'forget', but must be one of report, replace, bad, default."),
        (api.GetCredentials, {'lifetime': 0}, "'lifetime' is not a number from 1 to 604800."),
        (api.GetCredentials, {'lifetime': 10**400}, "'lifetime' is not a number from 1 to 604800."),
        (api.GetCredentials, {'lifetime': 1.5}, "'lifetime' is of the JSON type number, but must be integer."),
        (api.GetCredentials, {'bucket': 'a' * 64}, "'bucket' has 64 characters, but may have 63."),
        (api.Sign, {'rse': 'X', 'requests': []}, "'requests' has 0 elements, but may have 1 to 1000."),
        (api.Sign, {'rse': 'X', 'requests': [{}] * 1001}, "'requests' has 1001 elements, but may have 1 to 1000."),
        (api.SetBucketPolicy, {'scope': 's', 'policy': '{}'}, "'policy' is of the JSON type string, but must be object."),
    ],
)
def test_what_is_not_allowed_is_named_with_what_was_seen(route, given, said):
    with pytest.raises(InputValidationError) as refused:
        route.read(given)
    assert str(refused.value.args[0]) == said


@pytest.mark.parametrize(
    ('request_', 'parts'),
    [
        (api.ListRSEs(), ('/rses', {}, None)),
        (api.GetRSE(rse='../x?y'), ('/rses/..%2Fx%3Fy', {}, None)),
        (api.ListChanges(scope='s', since='now'), ('/changes', {'scope': 's', 'since': 'now'}, None)),
        (api.RemoveBucket(scope='s', name='', rse=None, force=False), ('/buckets', {}, {'scope': 's'})),
        (api.TakeEvents(rse='X', vo='abc'), ('/X/events', {'vo': 'abc'}, {})),
    ],
)
def test_a_client_sends_what_differs_from_the_defaults(request_, parts):
    """An older server is not asked for what it does not know."""
    assert request_.parts() == parts


def test_what_is_not_asked_for_is_not_done():
    """Neither written, nor deleted: whoever leaves something out gets the careful way."""
    assert {each.default for route in api.ROUTES for each in route.parameters.values() if each.kind is bool} == {False}
    assert {each.default for route in api.ROUTES for each in route.parameters.values() if each.kind not in (str, bool)} <= {MISSING, None}


def test_what_is_made_is_answered_with_201():
    assert {route for route in api.ROUTES if route.status == 201} == {api.MakeBucket, api.AddGrant}
    assert {route.status for route in api.ROUTES} == {200, 201}


def test_a_choice_is_one_of_those_that_are_documented():
    parts = {module.name for module in pkgutil.iter_modules(probes.__path__)}
    assert set(api.PROBES) <= parts
    for part in api.PROBES:
        assert api.ProbeRSE.read({'rse': 'X', 'part': part}).part == part
    for kind in ('account', 'attribute', 'everybody', 'world'):
        assert api.AddGrant.parameters['kind'].read('kind', kind) == kind
    assert api.ReconcileFiles.parameters['files'].field.most == api.RemoveFiles.parameters['names'].field.most == 200
    assert api.SetBucketSettings.read({'scope': 's', 'on_changed': 'default'}).on_changed == 'default'


def test_text_that_is_not_sent_is_empty():
    """As a name, it is the bucket."""
    defaults = {each.default for route in api.ROUTES for each in route.parameters.values() if each.kind is str}
    assert defaults == {MISSING, None, ''}


@pytest.mark.parametrize('route', api.ROUTES, ids=lambda route: route.operation())
def test_each_route_says_what_it_is_for(route):
    told = contract.documentation(route)
    assert told.summary
    assert told.description
    assert all(each.field.description for each in route.parameters.values())
    assert 200 not in told.refusals


def test_a_schema_is_what_openapi_says():
    assert contract.schema(api.Change) == {
        'type': 'object',
        'properties': {
            'time': {'type': 'string'},
            'change': {'type': 'string', 'enum': ['registered', 'updated', 'bad', 'removed']},
            'scope': {'type': 'string'},
            'name': {'type': 'string'},
            'bytes': {'type': 'integer', 'nullable': True},
        },
        'required': ['bytes', 'change', 'name', 'scope', 'time'],
    }
    assert contract.schema(api.Unsigned)['required'] == ['headers', 'method', 'uri']
    assert contract.schema(api.Signed)['properties']['headers'] == {
        'type': 'object',
        'additionalProperties': {'type': 'array', 'items': {'type': 'string'}},
        'description': 'Name -> values, to add to those of the request.',
    }


@pytest.mark.parametrize(('sent', 'read'), [(True, True), (False, False)])
def test_a_switch_in_a_query_arrives_as_one(sent, read):
    _, query, _ = api.Choose(scope='user.alice', reading=sent).parts()
    assert all(isinstance(value, str) for value in query.values())
    assert api.Choose.read(query).reading is read
    with pytest.raises(InputValidationError, match='must be boolean'):
        api.Choose.read({'scope': 'user.alice', 'reading': 'True'})


# A route, with everything that one can have


class Paint(contract.Request[dict[str, int]], route='POST /walls/{wall}', status=201, query=('vo',)):
    """Paint a wall.

    Uses the colour.

    And a second coat.

    404: There is no such wall
    409: It is wet: wait
    """

    wall: Annotated[str, contract.Field('The wall.')]
    vo: Annotated[str, contract.Field('The VO.', most=3)] = ''
    colour: Annotated[str, contract.Field('The colour.', choices=('red', 'blue'))]
    coats: Annotated[Optional[int], contract.Field('How often.', most=5, least=2)] = None
    on_top: Annotated[bool, contract.Field('Over the old colour.')] = True


class Look(contract.Request[list[str]], route='GET /walls/{wall}'):
    """Look at wall X."""

    wall: Annotated[str, contract.Field('The wall.')]
    twice: Annotated[bool, contract.Field('Look again.')] = False


def test_a_route_is_what_was_stated():
    assert (Paint.method, Paint.path, Paint.status, Paint.query, Paint.answer) == ('POST', '/walls/{wall}', 201, ('vo',), dict[str, int])
    assert (Look.method, Look.status, Look.query, Look.answer) == ('GET', 200, (), list[str])
    assert list(Paint.parameters) == ['wall', 'vo', 'colour', 'coats', 'on_top']
    assert {name: each.kind for name, each in Paint.parameters.items()} == {'wall': str, 'vo': str, 'colour': str, 'coats': int, 'on_top': bool}
    assert Paint.parameters['coats'].field == ('How often.', 5, 2, (), False)
    assert contract.Field('x') == ('x', 250, 1, (), False)
    assert api.SetBucketPolicy.operation() == 'set_bucket_policy'
    with pytest.raises(TypeError):
        Paint('wall', 'red')
    with pytest.raises(FrozenInstanceError):
        Paint(wall='a', colour='red').wall = 'b'


@pytest.mark.parametrize(
    ('given', 'parts'),
    [
        ({}, ('/walls/north%20side', {}, {'colour': 'red'})),
        ({'vo': 'abc', 'coats': 2, 'on_top': False}, ('/walls/north%20side', {'vo': 'abc'}, {'colour': 'red', 'coats': 2, 'on_top': False})),
    ],
)
def test_what_is_sent_is_what_is_read(given, parts):
    sent = Paint(wall='north side', colour='red', **given)
    assert sent.parts() == parts
    assert Paint.read({'wall': 'north side'} | parts[1] | parts[2]) == sent
    assert Look(wall='a/b', twice=True).parts() == ('/walls/a%2Fb', {'twice': 'true'}, None)
    assert Look.read({'wall': 'true', 'twice': 'true'}) == Look(wall='true', twice=True)


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        ({'coats': 1}, "'coats' is not a number from 2 to 5."),
        ({'coats': 6}, "'coats' is not a number from 2 to 5."),
        ({'coats': True}, "'coats' is of the JSON type boolean, but must be integer."),
        ({'coats': ()}, "'coats' is of the JSON type another, but must be integer."),
        ({'vo': 'abcd'}, "'vo' has 4 characters, but may have 3."),
        ({'colour': 'green'}, "'colour' is 'green', but must be one of red, blue."),
        ({'x' * 70: 1}, f"POST /s3/walls/{{wall}} has no parameter '{'x' * 64}'."),
        ({'coat': 1, 'zzz': 1}, "POST /s3/walls/{wall} has no parameter 'coat'. Did you mean 'coats'?"),
    ],
)
def test_what_a_route_refuses(given, said):
    with pytest.raises(InputValidationError) as refused:
        Paint.read({'wall': 'north', 'colour': 'red'} | given)
    assert refused.value.args[0] == said
    assert [Paint.read({'wall': 'n', 'colour': 'blue', 'coats': number}).coats for number in (2, 5)] == [2, 5]


def test_a_docstring_has_a_summary_a_description_and_the_refusals():
    assert contract.documentation(Paint) == (
        'Paint a wall',
        'Uses the colour.\n\nAnd a second coat.',
        {404: 'There is no such wall', 409: 'It is wet: wait'},
    )
    assert contract.documentation(Look) == ('Look at wall X', '', {})


def test_a_route_is_described_for_openapi():
    summary, hyphens, document = contract.openapi(Paint).split('\n', 2)
    assert (summary, hyphens) == ('Paint a wall', '---')
    assert document.startswith('{\n "summary"')
    assert document.endswith('}\n')
    assert json.loads(document) == {
        'summary': 'Paint a wall',
        'description': 'Uses the colour.\n\nAnd a second coat.',
        'operationId': 's3_paint',
        'tags': ['S3'],
        'parameters': [
            {'name': 'wall', 'in': 'path', 'required': True, 'description': 'The wall.', 'schema': {'type': 'string'}},
            {'name': 'vo', 'in': 'query', 'required': False, 'description': 'The VO.', 'schema': {'type': 'string'}},
        ],
        'responses': {
            '201': {
                'description': 'OK',
                'content': {'application/json': {'schema': {'type': 'object', 'additionalProperties': {'type': 'integer'}}}},
            },
            '401': {'description': 'Invalid Auth Token'},
            '404': {'description': 'There is no such wall'},
            '409': {'description': 'It is wet: wait'},
        },
        'requestBody': {
            'content': {
                'application/json': {
                    'schema': {
                        'type': 'object',
                        'properties': {
                            'colour': {'type': 'string', 'enum': ['red', 'blue'], 'description': 'The colour.'},
                            'coats': {'type': 'integer', 'nullable': True, 'description': 'How often.'},
                            'on_top': {'type': 'boolean', 'description': 'Over the old colour.'},
                        },
                        'required': ['colour'],
                    }
                }
            }
        },
    }


def test_a_route_without_a_body_has_none_in_openapi():
    document = json.loads(contract.openapi(Look).partition('---\n')[2])
    assert document['description'] == 'Look at wall X'
    assert [(each['name'], each['in'], each['required']) for each in document['parameters']] == [('wall', 'path', True), ('twice', 'query', False)]
    assert 'requestBody' not in document
    body = json.loads(contract.openapi(api.SetBucketSettings).partition('---\n')[2])['requestBody']['content']['application/json']['schema']
    assert body['required'] == ['scope']


@pytest.mark.parametrize(
    ('hint', 'found'),
    [
        (Any, {}),
        (float, {'type': 'number'}),
        (type(None), {'type': 'null'}),
        (Optional[int], {'type': 'integer', 'nullable': True}),
        (Annotated[str, 'Words.'], {'type': 'string', 'description': 'Words.'}),
        (list[dict[str, bool]], {'type': 'array', 'items': {'type': 'object', 'additionalProperties': {'type': 'boolean'}}}),
        (list[Any], {'type': 'array', 'items': {}}),
    ],
)
def test_the_schema_of_a_type(hint, found):
    assert contract.schema(hint) == found


def test_the_version_is_that_of_the_installed_package(monkeypatch):
    monkeypatch.setattr(api.metadata, 'version', {'rucio-s3': '1.2'}.__getitem__)
    assert api.version() == '1.2'

    def refuse(name):
        raise api.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(api.metadata, 'version', refuse)
    assert api.version() == 'unknown'
