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

"""Texts that nobody expects, at each parameter of each route: an answer below 500, whatever it is.

An account may send anything, and what others put into a bucket may be called anything: neither may make the server fail.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servers.boto import S3Server
from servers.cli import RucioCli, add_s3_rse, add_user
from servers.rest import Answer, Rest
from servers.signer import asked
from servers.team import Team

TEXTS = {
    'nul': '\0',
    'control': 'a\x01b',
    'line_feed': 'a\nb',
    'delete': '\x7f',
    'next_line': '\x85',
    'surrogate': '\ud800',
    'not_a_character': '\ufffe',
    'right_to_left': '\u202e',
    'beyond_the_plane': '\U0001fffe',
    'dots': '..',
    'dots_inside': 'a/../../b',
    'encoded_nul': '%00/..',
    'encoded_twice': '%2500%252e%252e',
    'percent': '%',
    'quotes': '\'";--',
    'markup': '<a>&b;]]>',
    'wildcards': '*?${*}_[',
    'backslash': '\\',
    'slashes': '//',
    'blank': ' ',
    'long': 'a' * 100_000,
    'deep': 'a/' * 2000,
    'dotted': '.' * 200,
    'colons': 'a:b:c',
}
VALUES: dict[str, Any] = {'null': None, 'number': 1, 'huge': 10**400, 'negative': -1, 'fraction': 1.5, 'true': True, 'list': [], 'object': {}, 'nested': [[{}]]}

# Method and path -> what is sent, with something valid in each place.
ROUTES: dict[tuple[str, str], dict[str, Any]] = {
    ('POST', '/buckets'): {'scope': 'SCOPE', 'name': 'odd', 'rse': 'RSE'},
    ('DELETE', '/buckets'): {'scope': 'SCOPE', 'name': 'odd-one', 'rse': 'RSE', 'force': False},
    ('POST', '/credentials'): {'rse': 'RSE', 'bucket': 'SCOPE', 'prefix': 'odd', 'write': False, 'lifetime': 900},
    ('POST', '/credentials?did'): {'scope': 'SCOPE', 'name': 'odd', 'rse': 'RSE'},
    ('POST', '/sign'): {'rse': 'RSE', 'requests': []},
    ('POST', '/grants'): {'scope': 'SCOPE', 'name': 'odd', 'account': 'fritz', 'write': False},
    ('DELETE', '/grants'): {'scope': 'SCOPE', 'name': 'odd', 'account': 'fritz'},
    ('PUT', '/policy'): {'scope': 'SCOPE', 'rse': 'RSE', 'policy': {'Version': '2012-10-17', 'Statement': []}},
    ('DELETE', '/policy'): {'scope': 'SCOPE', 'rse': 'RSE'},
    ('POST', '/reconcile'): {'scope': 'SCOPE', 'name': 'odd', 'rse': 'RSE', 'after': 'odd', 'dry_run': True, 'on_changed': 'report', 'on_missing': 'report'},
    ('POST', '/reconcile/files'): {'scope': 'SCOPE', 'rse': 'RSE', 'files': [], 'on_changed': 'report', 'on_missing': 'report'},
    ('POST', '/files'): {'scope': 'SCOPE', 'names': ['odd'], 'rse': 'RSE'},
    ('PUT', '/files'): {'scope': 'SCOPE', 'name': 'odd', 'rse': 'RSE', 'files': []},
    ('DELETE', '/files'): {'scope': 'SCOPE', 'names': ['odd'], 'rse': 'RSE'},
    ('POST', '/import'): {'rse': 'RSE', 'scope': 'SCOPE', 'name': 'odd', 'bucket': 'SCOPE', 'prefix': 'odd', 'dry_run': True},
    ('PUT', '/settings'): {'scope': 'SCOPE', 'rse': 'RSE', 'on_changed': 'report'},
    ('GET', '/buckets'): {'rse': 'RSE'},
    ('GET', '/locate'): {'scope': 'SCOPE', 'name': 'odd'},
    ('GET', '/place'): {'scope': 'SCOPE', 'name': 'odd', 'rse': 'RSE', 'default_rse': 'RSE'},
    ('GET', '/grants'): {'scope': 'SCOPE', 'name': 'odd'},
    ('GET', '/policy'): {'scope': 'SCOPE', 'rse': 'RSE'},
    ('GET', '/settings'): {'scope': 'SCOPE', 'rse': 'RSE'},
    ('GET', '/changes'): {'scope': 'SCOPE', 'name': 'odd', 'rse': 'RSE', 'since': '2026-11-23T01:46:27.000000Z'},
}


@pytest.fixture(scope='module')
def ernest(signed_team: Team) -> Rest:
    rest = Rest(signed_team.owner)
    assert rest('POST', '/buckets', {'scope': signed_team.scope, 'name': 'odd', 'rse': signed_team.rse}).status == 201
    return rest


def ask(team: Team, rest: Rest, route: tuple[str, str], changed: dict[str, Any]) -> Answer:
    method, path = route
    names = {'SCOPE': team.scope, 'RSE': team.rse}
    parameters = {name: names.get(value, value) if isinstance(value, str) else value for name, value in ROUTES[route].items()} | changed
    if method != 'GET':
        return rest(method, path, parameters)
    query = '&'.join(f'{name}={value if name in changed else quote(str(value))}' for name, value in parameters.items())
    return rest('GET', f'{path}?{query}')


def query_value(text: str) -> str:
    return quote(text.encode('utf-8', 'surrogatepass'), safe='')[:6000]


def not_failed(route: tuple[str, str], what: str, answer: Answer) -> None:
    assert answer.status < 500 or answer.status == 501, f'{route} {what}: {answer.status} {str(answer.content)[:300]}'
    assert 'Traceback' not in str(answer.content)


@pytest.mark.parametrize('route', ROUTES, ids=lambda route: f'{route[0]} {route[1]}')
def test_odd_texts_and_types(signed_team: Team, ernest: Rest, route: tuple[str, str]) -> None:
    """Each parameter of the owner's own request is something else: NUL, surrogates, a number, a list..."""
    values = {what: query_value(text) if route[0] == 'GET' else text for what, text in TEXTS.items()} | (VALUES if route[0] != 'GET' else {})
    cases = [(name, what) for name in ROUTES[route] for what in values]
    listed = {name for name, value in ROUTES[route].items() if value == ['odd']}
    # SQLite locks no rows: of two that write the same at once one may fail there, whatever they send.
    reads = route[0] == 'GET' or route[1] in ('/sign', '/credentials')
    with ThreadPoolExecutor(4 if reads else 1) as pool:
        answers = pool.map(lambda case: ask(signed_team, ernest, route, {case[0]: [values[case[1]]] if case[0] in listed else values[case[1]]}), cases)
        for case, answer in zip(cases, answers, strict=True):
            not_failed(route, ' '.join(case), answer)


URIS = st.one_of(
    st.text(max_size=60).map(lambda text: f'/SCOPE/{text}'),
    st.text('/.%20aAeEfF5c\\?&=~+;', max_size=40).map(lambda text: f'/SCOPE/{text}'),
    st.sampled_from(list(TEXTS.values())).map(lambda text: f'/SCOPE/{text[:9000]}'),
    st.sampled_from(list(TEXTS.values())).map(lambda text: f'/SCOPE?prefix={text[:9000]}'),
    st.sampled_from(
        [
            '/SCOPE/%00/..',
            '/SCOPE/a%0A/..',
            '/SCOPE/a%0D/..',
            '/SCOPE/%C2%85/..',
            '/SCOPE/%E2%80%AE/..',
            '/SCOPE/a%00/../b',
            '/SCOPE/..%00',
            '/%00/k',
            '/SCOPE/k?uploadId=%00',
            '/SCOPE?list-type=2&prefix=%00..',
        ]
    ),
)
HEADERS = st.dictionaries(
    st.one_of(st.text(max_size=20), st.sampled_from(['x-amz-copy-source', 'x-amz-meta-a', 'range', 'host'])),
    st.one_of(st.text(max_size=20), st.none(), st.lists(st.text(max_size=20), max_size=2)),
    max_size=3,
)
REQUESTS = st.one_of(
    st.fixed_dictionaries(
        {'method': st.sampled_from(['GET', 'PUT', 'POST', 'DELETE', 'HEAD', '', '\0']), 'uri': URIS, 'headers': HEADERS},
        optional={'body': st.one_of(st.text(max_size=30), st.none(), st.binary(max_size=60).map(lambda raw: raw.hex()))},
    ),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.text(max_size=5)),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=5,
    ),
)


@settings(max_examples=150, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests=st.lists(REQUESTS, min_size=1, max_size=3))
def test_odd_requests_to_be_signed(signed_team: Team, ernest: Rest, requests: list[Any]) -> None:
    """%00 with .. in a key made the server fail: nothing does."""
    for each in requests:
        if isinstance(each, dict) and isinstance(each.get('uri'), str):
            each['uri'] = signed_team.storage.url + each['uri'].replace('SCOPE', signed_team.scope)
    not_failed(('POST', '/sign'), repr(requests), ernest('POST', '/sign', {'rse': signed_team.rse, 'requests': requests}))


@pytest.mark.parametrize(
    'body',
    [
        b'',
        b'null',
        b'[]',
        b'"x"',
        b'{',
        b'\xff\xfe',
        b'\0',
        b'[' * 100_000,
        b'{"a":' * 50_000 + b'1' + b'}' * 50_000,
        b'NaN',
        b'1e999',
        b'{"scope": NaN}',
        b'{"scope": 1, "scope": 2}',
    ],
    ids=['empty', 'null', 'list', 'text', 'open', 'not_utf8', 'nul', 'deep_list', 'deep_object', 'nan', 'infinity', 'nan_inside', 'twice'],
)
@pytest.mark.parametrize('route', ['/sign', '/credentials', '/buckets', '/reconcile', '/grants', '/import'])
def test_bodies_that_are_no_json_objects(ernest: Rest, route: str, body: bytes) -> None:
    """Nesting that overflows a parser's stack, other encodings, nothing at all."""
    answer = ernest('POST', route, raw=body)
    assert 400 <= answer.status < 500, str(answer.content)


# What others call their objects

KEYS = ['odd/a\x01b', 'odd/a\x1f', 'odd/\x7f', 'odd/a\nb', 'odd/a\rb', 'odd/\ufffe', 'odd/\u202eb', 'odd/\x85', 'odd/<&>"\'', 'odd/%00', 'odd/ ', 'odd/a\tb']


@pytest.fixture(scope='module', params=['plain', 'ceph'])
def written(request: pytest.FixtureRequest, team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Rest, S3Server, str, str]:
    """An owner into whose bucket another client put objects with such names."""
    storage: Any = request.getfixturevalue(request.param)
    name = f'odd{request.param}'
    rse, scope = f'{name.upper()}_S3', f'user.{name}'
    user = add_user(team_root, tmp_path_factory.mktemp(name), name, scopes=[scope], attributes=())
    rse_id = add_s3_rse(team_root, rse, storage, accounts=[name], settings={'provider': 'ceph' if request.param == 'ceph' else 'seaweedfs'})
    team_root.server.set_rse_keys(rse_id, storage.access_key, storage.secret_key)
    rest, client = Rest(user), storage.client()
    made = rest('POST', '/buckets', {'scope': scope, 'name': 'odd', 'rse': rse})
    assert made.status == 201, str(made.content)
    for key in KEYS:
        client.put_object(Bucket=scope, Key=key, Body=b'content')
    return rest, storage, rse, scope


def test_a_bucket_with_odd_keys(written: tuple[Rest, S3Server, str, str]) -> None:
    """Control characters in keys made remove-bucket fail (500), as DeleteObjects is XML: it is compared, registered and removed."""
    rest, storage, rse, scope = written
    for name in ('odd', ''):
        for more in ({'dry_run': True}, {}):
            not_failed(('POST', '/reconcile'), name, rest('POST', '/reconcile', {'scope': scope, 'name': name, 'rse': rse, **more}))
    not_failed(('GET', '/changes'), '', rest('GET', f'/changes?scope={scope}&rse={rse}&since=2026-01-01T00:00:00.000000Z'))
    refused = rest('DELETE', '/buckets', {'scope': scope, 'rse': rse})
    assert refused.status == 409, str(refused.content)
    removed = rest('DELETE', '/buckets', {'scope': scope, 'rse': rse, 'force': True})
    assert (removed.status, removed.content['finished']) == (200, True), str(removed.content)
    assert scope not in [each['Name'] for each in storage.client().list_buckets()['Buckets']], json.dumps(removed.content)


def test_odd_keys_to_be_signed(written: tuple[Rest, S3Server, str, str]) -> None:
    """Signed, or refused as what storages read in two ways."""
    rest, storage, rse, scope = written
    for key in KEYS:
        for method in ('GET', 'DELETE'):
            request = asked(storage, method, f'/{scope}/{quote(key)}')
            not_failed(('POST', '/sign'), repr(key), rest('POST', '/sign', {'rse': rse, 'requests': [request]}))
