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

from dataclasses import MISSING

import pytest

from rucio.common.exception import InputValidationError
from rucio.common.s3 import api, contract

# What is sent


def test_what_is_given_is_read_and_the_rest_has_its_default():
    assert api.Reconcile.read({'scope': 'user.alice', 'dry_run': True}) == api.Reconcile(scope='user.alice', dry_run=True)
    assert api.Reconcile.read({'scope': 's', 'name': None, 'rse': '', 'after': '', 'on_changed': ''}) == api.Reconcile(scope='s')
    assert api.Reconcile.read({'scope': 's', 'after': 'a\nb\u202e'}).after == 'a\nb\u202e'  # a key


def test_what_is_at_its_limits_is_allowed():
    assert [api.GetCredentials.read({'lifetime': seconds}).lifetime for seconds in (1, 900, 604800)] == [1, 900, 604800]
    assert api.SetBucketPolicy.read({'scope': 's', 'policy': {'a': 1}}).policy == {'a': 1}
    assert len(api.Sign.read({'rse': 'X', 'requests': [{}] * 1000}).requests) == 1000
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
