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


"""S3Client: what it asks of the server, and what it makes of the answers."""

import sys
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore import UNSIGNED
from botocore.config import Config

from rucio.client import s3client
from rucio.client.baseclient import BaseClient
from rucio.client.credentialclient import CredentialClient
from rucio.client.s3client import NO_PLUGIN, S3Client
from rucio.common.exception import (
    AccessDenied,
    ConfigurationError,
    InputValidationError,
    MissingDependency,
    ResourceTemporaryUnavailable,
    RSENotFound,
    RSEOperationNotSupported,
    ServerConnectionException,
    ServiceUnavailable,
    UnsupportedOperation,
)
from servers.fake_rucio import FakeRucio

EXPLICIT = {'endpoint_url': 'https://s3.example.org:9000', 'key_id': 'AKIDOWN', 'secret_key': 'own-secret', 'region': 'eu-south-1'}
PLACE = {'did_type': None, 'rse': 'X', 'bucket': 'user.alice', 'key': 'thesis', 'url': 'http://127.0.0.1:1/user.alice/thesis'}
STORAGE = {'rse': 'X', 'url': 'http://127.0.0.1:1', 'provider': 'ceph', 'region': 'de', 'addressing': 'path', 'bucket_prefix': '', 'auth': ['vended', 'remote']}


def keys(hours=1):
    expiration = datetime.now(timezone.utc) + timedelta(hours=hours)
    named = {'access_key': 'AKIDVENDED', 'secret_key': 'vended-secret', 'session_token': 'vended-token'}
    return {**named, 'rse': 'X', 'bucket': 'user.alice', 'prefix': 'thesis/', 'write': True, 'expiration': f'{expiration:%Y-%m-%dT%H:%M:%SZ}'}


KEYS = keys()


@pytest.fixture
def fake_rucio(rucio_cfg, home):
    rucio_cfg({'client': {'auth_token_file_path': str(home / 'token')}})
    with FakeRucio() as fake:
        yield fake


@pytest.fixture
def connect(fake_rucio):
    """Call it for a client of the server."""

    def make(**more):
        user = {'account': 'alice', 'auth_type': 'userpass', 'creds': {'username': 'alice', 'password': 'p'}}
        return S3Client(rucio_host=fake_rucio.url, auth_host=fake_rucio.url, **user, **more)

    return make


@pytest.fixture
def plugin(fake_rucio):
    """The answers of a server with the plugin: path -> body."""
    answers = {'/s3/locate': [PLACE], '/s3/place': PLACE, '/s3/rses/X': STORAGE, '/s3/credentials': keys()}
    missing = (404, None, {'ExceptionClass': 'RSENotFound', 'ExceptionMessage': 'there is no such RSE'})
    fake_rucio.answer = lambda asked: (200, answers[asked.path], {}) if asked.path in answers else missing
    return answers


@pytest.mark.parametrize(
    ('method', 'arguments', 'asked', 'answer', 'result'),
    [
        ('get_s3_health', {}, ('GET', '/s3/health', {}, None), {'status': 'ok'}, {'status': 'ok'}),
        ('list_s3_rses', {}, ('GET', '/s3/rses', {}, None), [STORAGE], [STORAGE]),
        ('get_s3_rse', {'rse': 'X'}, ('GET', '/s3/rses/X', {}, None), STORAGE, STORAGE),
        ('list_buckets', {}, ('GET', '/s3/buckets', {}, None), {'buckets': [], 'missing': []}, []),
        ('list_buckets', {'rse': 'X'}, ('GET', '/s3/buckets', {'rse': 'X'}, None), {'buckets': [], 'missing': []}, []),
        ('make_bucket', {'scope': 's'}, ('POST', '/s3/buckets', {}, {'scope': 's'}), {'rse': 'X'}, {'rse': 'X'}),
        (
            'make_bucket',
            {'scope': 's', 'name': 'n', 'rse': 'X'},
            ('POST', '/s3/buckets', {}, {'scope': 's', 'name': 'n', 'rse': 'X'}),
            {'rse': 'X'},
            {'rse': 'X'},
        ),
        ('remove_bucket', {'scope': 's'}, ('DELETE', '/s3/buckets', {}, {'scope': 's'}), {}, {}),
        ('remove_bucket', {'scope': 's', 'name': 'n', 'force': True}, ('DELETE', '/s3/buckets', {}, {'scope': 's', 'name': 'n', 'force': True}), {}, {}),
        (
            'look_up_files',
            {'scope': 's', 'names': iter(['a', 'b']), 'rse': 'X'},
            ('POST', '/s3/files', {}, {'scope': 's', 'names': ['a', 'b'], 'rse': 'X'}),
            [{'name': 'a', 'state': None}],
            [{'name': 'a', 'state': None}],
        ),
        (
            'register_files',
            {'scope': 's', 'name': 'n', 'files': iter([{'name': 'n/a', 'bytes': 1, 'adler32': '0' * 8}]), 'rse': 'X'},
            ('PUT', '/s3/files', {}, {'scope': 's', 'name': 'n', 'rse': 'X', 'files': [{'name': 'n/a', 'bytes': 1, 'adler32': '0' * 8}]}),
            {'known': ['n/a']},
            ['n/a'],
        ),
        (
            'remove_files',
            {'scope': 's', 'names': ['a', 'b', 'a']},
            ('DELETE', '/s3/files', {}, {'scope': 's', 'names': ['a', 'b']}),
            {'rse': 'X', 'bucket': 's', 'removed': 2, 'kept': []},
            {'rse': 'X', 'bucket': 's', 'removed': 2, 'kept': []},
        ),
        ('locate', {'scope': 's', 'name': 'a b/c&d'}, ('GET', '/s3/locate', {'scope': 's', 'name': 'a b/c&d'}, None), [PLACE], [PLACE]),
        (
            'get_s3_credentials',
            {'rse': 'X', 'bucket': 'b', 'prefix': 'p', 'write': True, 'lifetime': 900},
            ('POST', '/s3/credentials', {}, {'rse': 'X', 'bucket': 'b', 'prefix': 'p', 'write': True, 'lifetime': 900}),
            KEYS,
            KEYS,
        ),
        ('get_did_credentials', {'scope': 's'}, ('POST', '/s3/credentials', {}, {'scope': 's'}), KEYS, KEYS),
        (
            'sign_s3_requests',
            {'rse': 'X', 'requests': [{'uri': 'u'}]},
            ('POST', '/s3/sign', {}, {'rse': 'X', 'requests': [{'uri': 'u'}]}),
            {'responses': [{'uri': 'u', 'headers': {'Authorization': ['a']}}]},
            [{'uri': 'u', 'headers': {'Authorization': ['a']}}],
        ),
        ('list_grants', {'scope': 's', 'name': 'n'}, ('GET', '/s3/grants', {'scope': 's', 'name': 'n'}, None), [], []),
        (
            'add_grant',
            {'scope': 's', 'name': 'n', 'account': 'bob', 'write': True},
            ('POST', '/s3/grants', {}, {'scope': 's', 'name': 'n', 'account': 'bob', 'write': True}),
            {},
            {},
        ),
        (
            'add_grant',
            {'scope': 's', 'name': 'n', 'account': 'a=b', 'kind': 'attribute', 'until': datetime(2090, 12, 31, 1, tzinfo=timezone(timedelta(hours=1)))},
            ('POST', '/s3/grants', {}, {'scope': 's', 'name': 'n', 'account': 'a=b', 'kind': 'attribute', 'until': '2090-12-31T00:00:00Z'}),
            {},
            {},
        ),
        (
            'delete_grant',
            {'scope': 's', 'name': 'n', 'account': '*'},
            ('DELETE', '/s3/grants', {}, {'scope': 's', 'name': 'n', 'account': '*'}),
            None,
            None,
        ),
        ('list_usable', {}, ('GET', '/s3/usable', {}, None), {'shares': [], 'more': False}, {'shares': [], 'more': False}),
        ('list_shared', {'places': True}, ('GET', '/s3/shared', {'places': 'true'}, None), {'shares': []}, {'shares': []}),
        ('get_bucket_policy', {'scope': 's'}, ('GET', '/s3/policy', {'scope': 's'}, None), {'policy': {'Statement': []}}, {'Statement': []}),
        ('get_bucket_policy', {'scope': 's'}, ('GET', '/s3/policy', {'scope': 's'}, None), {'policy': None}, None),
        (
            'set_bucket_policy',
            {'scope': 's', 'policy': {'Statement': []}},
            ('PUT', '/s3/policy', {}, {'scope': 's', 'policy': {'Statement': []}}),
            {},
            None,
        ),
        ('delete_bucket_policy', {'scope': 's', 'rse': 'X'}, ('DELETE', '/s3/policy', {}, {'scope': 's', 'rse': 'X'}), None, None),
        ('get_bucket_settings', {'scope': 's'}, ('GET', '/s3/settings', {'scope': 's'}, None), {'own': []}, {'own': []}),
        (
            'set_bucket_settings',
            {'scope': 's', 'rse': 'X', 'on_missing': 'forget'},
            ('PUT', '/s3/settings', {}, {'scope': 's', 'rse': 'X', 'on_missing': 'forget'}),
            {'own': ['on_missing']},
            {'own': ['on_missing']},
        ),
        ('list_changes', {'scope': 's'}, ('GET', '/s3/changes', {'scope': 's'}, None), {'changes': []}, {'changes': []}),
        (
            'list_changes',
            {'scope': 's', 'name': 'n', 'rse': 'X', 'since': '2026-01-31T12:00:00.000000Z'},
            ('GET', '/s3/changes', {'scope': 's', 'name': 'n', 'rse': 'X', 'since': '2026-01-31T12:00:00.000000Z'}, None),
            {'changes': []},
            {'changes': []},
        ),
    ],
)
def test_each_method_is_one_request(fake_rucio, connect, method, arguments, asked, answer, result):
    fake_rucio.answer = lambda asked: (201 if asked.method == 'POST' else 200, answer, {})
    assert getattr(connect(), method)(**arguments) == result
    assert [tuple(each) for each in fake_rucio.asked] == [asked]


def test_sync_asks_until_all_is_done_and_adds_up(fake_rucio, connect):
    answers = [
        {'rse': 'X', 'after': 'b\n', 'counts': {'listed': 2, 'new': 1}, 'problems': [{'kind': 'missing'}]},
        {'rse': 'X', 'after': 'c', 'counts': {'listed': 1}, 'problems': []},
        {'rse': 'X', 'after': None, 'counts': {'listed': 3, 'failed': 1}, 'problems': [{'kind': 'failed'}]},
    ]
    fake_rucio.answer = lambda _: (200, answers[len(fake_rucio.asked) - 1], {})
    seen = []
    done = connect().reconcile('s', 'n', 'X', dry_run=True, on_changed='replace', on_missing='forget', progress=lambda counts: seen.append(counts['listed']))
    assert done == {'rse': 'X', 'after': None, 'counts': {'listed': 6, 'new': 1, 'failed': 1}, 'problems': [{'kind': 'missing'}, {'kind': 'failed'}]}
    asked = {'scope': 's', 'name': 'n', 'rse': 'X', 'dry_run': True, 'on_changed': 'replace', 'on_missing': 'forget'}
    assert [each.body for each in fake_rucio.asked] == [asked, asked | {'after': 'b\n'}, asked | {'after': 'c'}]
    assert {each.path for each in fake_rucio.asked} == {'/s3/reconcile'}
    assert seen == [2, 3, 6]


# Servers that are older or newer


OTHER = {'version': '9.8.7', 'capabilities': ['list_rses']}


@pytest.mark.parametrize('status', [404, 405])
def test_a_server_that_does_not_know_a_request_is_told_by_its_version(fake_rucio, connect, status):
    fake_rucio.answer = lambda asked: (200, OTHER, {}) if asked.path == '/s3/version' else (status, None, {})
    with pytest.raises(RSEOperationNotSupported, match=r'has version 9\.8\.7 of the S3 plugin, which does not know POST /s3/import; this client has version'):
        connect().import_bucket('X', 's', 'n')
    assert connect().get_s3_version() == OTHER


def test_what_an_older_server_does_not_say_is_named_where_it_is_needed(fake_rucio, connect):
    fake_rucio.answer = lambda _: (200, [{'account': 'bob', 'write': False}], {})
    (grant,) = connect().list_grants('s', 'n')
    assert grant == {'account': 'bob', 'write': False}
    with pytest.raises(RSEOperationNotSupported, match="did not return 'until': its S3 plugin is older than this client"):
        grant['until']
    fake_rucio.answer = lambda _: (200, {'rse': 'X'}, {})
    with pytest.raises(RSEOperationNotSupported, match="did not return 'counts'"):
        connect().reconcile('s')


def test_what_a_newer_server_says_more_is_left_as_it_is(fake_rucio, connect):
    place = PLACE | {'did_type': 'ARCHIVE', 'version_id': {'latest': 'x'}}
    fake_rucio.answer = lambda _: (200, [place], {})
    assert connect().locate('user.alice', 'thesis') == [place]


def test_what_an_older_server_would_have_to_ignore_it_refuses(fake_rucio, connect):
    message = "POST /s3/reconcile has no parameter 'dry_run'."
    fake_rucio.answer = lambda asked: (
        (400, None, {'ExceptionClass': 'InputValidationError', 'ExceptionMessage': message}) if 'dry_run' in asked.body else (200, {}, {})
    )
    with pytest.raises(InputValidationError, match="no parameter 'dry_run'"):
        connect().reconcile('s', dry_run=True)


def test_sync_leaves_to_the_server_what_was_not_said(fake_rucio, connect):
    fake_rucio.answer = lambda _: (200, {'after': None, 'counts': {}, 'problems': []}, {})
    connect().reconcile('s')
    assert fake_rucio.asked[0].body == {'scope': 's'}


def test_a_name_cannot_leave_its_place_in_the_url(fake_rucio, connect):
    fake_rucio.answer = lambda _: (200, STORAGE, {})
    connect().get_s3_rse('../x?y')
    assert fake_rucio.asked[0].path == '/s3/rses/..%2Fx%3Fy'


def test_it_is_a_client_as_the_others():
    assert issubclass(S3Client, BaseClient)
    assert issubclass(S3Client, CredentialClient)


@pytest.mark.parametrize(
    ('status', 'name', 'kind'),
    [(403, 'AccessDenied', AccessDenied), (404, 'RSENotFound', RSENotFound), (409, 'UnsupportedOperation', UnsupportedOperation)],
)
def test_refusals_are_exceptions_of_rucio(fake_rucio, connect, status, name, kind):
    fake_rucio.answer = lambda _: (status, {'ExceptionClass': name, 'ExceptionMessage': 'because'}, {'ExceptionClass': name, 'ExceptionMessage': 'because'})
    with pytest.raises(kind, match='because'):
        connect().make_bucket('user.alice')


NO_BUCKETS = {'buckets': [], 'missing': []}
TOO_MANY = {'ExceptionClass': 'ResourceTemporaryUnavailable', 'ExceptionMessage': 'asked too often'}


@pytest.fixture
def pauses(monkeypatch):
    """How long the client waited."""
    waited = []

    def sleep(seconds):
        assert len(waited) < 100, 'it would wait for ever'
        waited.append(seconds)

    monkeypatch.setattr(s3client, 'time', SimpleNamespace(sleep=sleep))
    return waited


def test_a_call_waits_as_long_as_the_server_says(fake_rucio, connect, pauses):
    answers = [
        (429, TOO_MANY, {**TOO_MANY, 'Retry-After': '7'}),
        (429, TOO_MANY, {**TOO_MANY, 'Retry-After': 'Sat, 01 Jan 2050 00:00:00 GMT'}),
        (200, NO_BUCKETS, {}),
    ]
    fake_rucio.answer = lambda _: answers.pop(0)
    assert connect().list_buckets() == []
    assert pauses == [7, 5]
    assert [(each.method, each.path) for each in fake_rucio.asked] == [('GET', '/s3/buckets')] * 3


@pytest.mark.parametrize(('seconds', 'expected'), [('25', [25, 25]), ('3600', []), ('0', [1] * 60)])
def test_it_does_not_wait_for_ever(fake_rucio, connect, pauses, seconds, expected):
    fake_rucio.answer = lambda _: (429, TOO_MANY, {**TOO_MANY, 'Retry-After': seconds})
    with pytest.raises(ResourceTemporaryUnavailable, match='asked too often'):
        connect().sign_s3_requests('X', [{}])
    assert pauses == expected


def test_a_server_without_the_plugin_is_named(fake_rucio, connect):
    with pytest.raises(RSEOperationNotSupported) as error:
        connect().list_buckets()
    assert error.value.args[0] == f'{NO_PLUGIN} ({fake_rucio.url}).'


def test_a_server_that_does_not_answer_is_named(fake_rucio, connect, monkeypatch):
    client = connect()
    client.host = 'http://127.0.0.1:9'
    client.list_hosts = [client.host]
    with pytest.raises(ServerConnectionException, match='did not answer'):
        client.list_buckets()


def test_an_expired_token_is_renewed(fake_rucio, connect):
    answers = [(401, None, {'ExceptionClass': 'CannotAuthenticate', 'ExceptionMessage': 'expired'}), (200, NO_BUCKETS, {})]
    client = connect()
    logins = fake_rucio.tokens
    fake_rucio.answer = lambda _: answers.pop(0)
    assert client.list_buckets() == []
    assert fake_rucio.tokens == logins + 1


def test_identity_has_no_secret(fake_rucio, connect):
    assert connect().identity == f'{fake_rucio.url} def alice'


def test_a_server_by_http_gives_no_keys_over_the_network_and_signs(fake_rucio, connect, plugin):
    client = connect()
    client.host = 'http://rucio.example.org'
    client.list_hosts = [fake_rucio.url]
    assert client.get_s3_rse('X')['auth'] == ['remote']
    with pytest.raises(ConfigurationError, match='rucio_host'):
        client.get_did_credentials('user.alice')
    assert '/s3/credentials' not in [asked.path for asked in fake_rucio.asked]


# Explicit endpoint and keys


def test_explicit_keys_ask_no_server(fake_rucio, connect):
    client = connect(**EXPLICIT).boto3_client()
    assert client.meta.endpoint_url == 'https://s3.example.org:9000'
    assert client.meta.region_name == 'eu-south-1'
    assert client.meta.config.signature_version == 's3v4'
    assert client._get_credentials().access_key == 'AKIDOWN'
    assert fake_rucio.asked == []
    assert callable(client.upload_file)  # it is boto3's


def test_the_configuration_of_the_draft(connect):
    client = connect(config=Config(signature_version=UNSIGNED, read_timeout=7), **EXPLICIT).boto3_client()
    assert client.meta.config.signature_version is UNSIGNED
    assert client.meta.config.read_timeout == 7


@pytest.mark.parametrize('half', [{'key_id': 'AKIDOWN'}, {'secret_key': 'own-secret'}])
def test_half_of_a_key_is_refused(half):
    with pytest.raises(InputValidationError, match='only one of key_id and secret_key') as error:
        S3Client(**half)
    assert 'own-secret' not in str(error.value)


def test_explicit_keys_for_fsspec(fake_rucio, connect):
    options = connect(**EXPLICIT).storage_options()
    assert options['endpoint_url'] == 'https://s3.example.org:9000'
    assert (options['key'], options['secret'], 'token' in options) == ('AKIDOWN', 'own-secret', False)
    assert fake_rucio.asked == []


@pytest.mark.parametrize('auth', [['vended'], ['remote']])
def test_the_settings_of_time_outs_hold_here_too(connect, plugin, rucio_cfg, home, auth):
    rucio_cfg({'client': {'auth_token_file_path': str(home / 'token')}, 's3': {'connect_timeout': '3', 'read_timeout': '7', 'max_attempts': '2'}})
    plugin['/s3/rses/X'] = STORAGE | {'auth': auth}
    config = connect().boto3_client('user.alice').meta.config
    assert (config.connect_timeout, config.read_timeout, config.retries) == (3, 7, {'mode': 'standard', 'total_max_attempts': 2})
    own = connect(config=Config(read_timeout=9)).boto3_client('user.alice').meta.config
    assert (own.connect_timeout, own.read_timeout) == (3, 9)


# Keys of the server


def test_a_client_with_short_lived_keys(fake_rucio, plugin, connect):
    client = connect().boto3_client('user.alice:thesis')
    assert callable(client.upload_file)  # it is boto3's
    frozen = client._get_credentials().get_frozen_credentials()
    assert (frozen.access_key, frozen.token) == ('AKIDVENDED', 'vended-token')
    assert client.meta.endpoint_url == 'http://127.0.0.1:1'
    assert client.meta.region_name == 'de'
    assert client.meta.config.s3['addressing_style'] == 'path'
    assert [asked.path for asked in fake_rucio.asked] == ['/s3/place', '/s3/rses/X', '/s3/credentials']
    assert fake_rucio.asked[-1].body == {'scope': 'user.alice', 'name': 'thesis', 'rse': 'X'}


def test_keys_are_renewed_before_they_end(fake_rucio, plugin, connect, monkeypatch):
    held = connect().boto3_client('user.alice:thesis', write=True)._get_credentials()
    asked = len(fake_rucio.asked)
    held.get_frozen_credentials()
    assert len(fake_rucio.asked) == asked
    monkeypatch.setattr(held, '_time_fetcher', lambda: datetime.now(timezone.utc) + timedelta(minutes=55))
    plugin['/s3/credentials'] = {**keys(hours=2), 'access_key': 'AKIDNEW'}
    assert held.get_frozen_credentials().access_key == 'AKIDNEW'
    assert [each.body['write'] for each in fake_rucio.asked[asked:]] == [True]


def test_keys_of_rucio_cfg_come_first(fake_rucio, plugin, connect, rucio_cfg, home):
    rucio_cfg({'client': {'auth_token_file_path': str(home / 'token')}, 's3:X': {'access_key': 'AKIDCFG', 'secret_key': 'x'}})
    assert connect().boto3_client('user.alice')._get_credentials().access_key == 'AKIDCFG'
    assert connect().storage_options('user.alice')['key'] == 'AKIDCFG'
    assert '/s3/credentials' not in {asked.path for asked in fake_rucio.asked}


def test_where_the_server_only_signs(fake_rucio, plugin, connect):
    plugin['/s3/rses/X'] = {**STORAGE, 'auth': ['remote']}
    client = connect().boto3_client('user.alice:thesis')
    assert client.meta.config.signature_version is UNSIGNED
    with pytest.raises(RSEOperationNotSupported, match='issues none for this storage'):
        connect().storage_options('user.alice:thesis')


def test_a_client_for_a_part_of_a_bucket(fake_rucio, plugin, connect):
    connect().bucket_client('X', 'user.alice', 'thesis/')
    assert fake_rucio.asked[-1].body == {'rse': 'X', 'bucket': 'user.alice', 'prefix': 'thesis/'}


def test_the_users_own_default_is_named_to_the_server_which_knows_the_rule(fake_rucio, plugin, connect, rucio_cfg, home):
    rucio_cfg({'client': {'auth_token_file_path': str(home / 'token')}, 's3': {'default_rse': 'X'}})
    plugin['/s3/buckets'] = {'rse': 'X'}
    connect().make_bucket('user.alice', 'thesis')
    connect().get_did_credentials('user.alice', rse='Y')
    chosen, made, keys = fake_rucio.asked
    assert (chosen.path, chosen.params) == ('/s3/place', {'scope': 'user.alice', 'name': 'thesis', 'default_rse': 'X'})
    assert (made.body['rse'], keys.body['rse']) == ('X', 'Y')


def test_buckets_that_are_missing_from_a_list_are_an_error_unless_the_caller_takes_them(plugin, connect):
    bucket, missing = {'rse': 'X', 'bucket': 'b', 'scope': 'b', 'created': None}, {'rse': 'Y', 'why': 'It does not answer.'}
    plugin['/s3/buckets'] = {'buckets': [bucket], 'missing': [missing]}
    with pytest.raises(ServiceUnavailable, match=r'incomplete.*Y: It does not answer'):
        connect().list_buckets()
    told = []
    assert connect().list_buckets(missing=told) == [bucket]
    assert told == [missing]


def test_the_rse_that_is_asked_for(plugin, connect):
    plugin['/s3/locate'] = [{**PLACE, 'rse': 'Y'}, PLACE]
    assert connect().locate('user.alice', 'thesis', 'X') == [PLACE]
    with pytest.raises(RSENotFound, match=r"user.alice:thesis is not on RSE 'Z', but on: X, Y"):
        connect().locate('user.alice', 'thesis', 'Z')


def test_without_a_did(connect):
    with pytest.raises(InputValidationError, match='No DID was given'):
        connect().boto3_client()


def test_fsspec(plugin, connect, monkeypatch):
    """With s3fs, they have a session in place of keys: see tests/unit/test_aiosession.py."""
    monkeypatch.setitem(sys.modules, 'aiobotocore.session', None)
    options = connect().storage_options('user.alice:thesis')
    assert options == {
        'key': 'AKIDVENDED',
        'secret': 'vended-secret',
        'token': 'vended-token',
        'endpoint_url': 'http://127.0.0.1:1',
        'client_kwargs': {'region_name': 'de', 'verify': True},
        'config_kwargs': {'signature_version': 's3v4', 's3': {'addressing_style': 'path'}},
    }


def test_fsspec_with_aiobotocore_has_a_session(plugin, connect, monkeypatch):
    asked = []
    monkeypatch.setattr(s3client.aiosession, 'renewing', lambda given: asked.append(given.get_frozen_credentials().access_key) or 'session')
    options = connect().storage_options('user.alice:thesis')
    assert (options['session'], asked) == ('session', ['AKIDVENDED'])
    assert options.keys().isdisjoint({'key', 'secret', 'token'})


def test_obstore_has_to_be_installed(plugin, connect, monkeypatch):
    monkeypatch.setitem(sys.modules, 'obstore.store', None)
    with pytest.raises(MissingDependency, match='pip install obstore'):
        connect().obstore_store('user.alice:thesis')


# Signed URLs


def test_a_url_signed_with_vended_keys(fake_rucio, plugin, connect):
    url = connect().get_signed_url('X', 's3', 'write', 'http://127.0.0.1:1/user.alice/a%20b/c%2Bd', 600)
    parts, query = urlsplit(url), parse_qs(urlsplit(url).query)
    assert (parts.netloc, parts.path) == ('127.0.0.1:1', '/user.alice/a%20b/c%2Bd')
    assert query['X-Amz-Expires'] == ['600']
    assert query['X-Amz-Security-Token'] == ['vended-token']
    assert fake_rucio.asked[-1].body == {'rse': 'X', 'bucket': 'user.alice', 'prefix': 'a b/c+d', 'write': True}


def test_a_url_signed_with_explicit_keys(fake_rucio, connect):
    url = connect(**EXPLICIT).get_signed_url('X', 's3', 'read', 'https://s3.example.org:9000/user.alice/a')
    assert parse_qs(urlsplit(url).query)['X-Amz-Credential'][0].startswith('AKIDOWN/')
    assert fake_rucio.asked == []


@pytest.mark.parametrize('service', ['s3', 'gcs'])
def test_a_stock_server_signs_urls(fake_rucio, connect, service):
    fake_rucio.answer = lambda asked: (200, 'signed', {}) if asked.path == '/credentials/signurl' else (404, None, {})
    assert connect().get_signed_url('X', service, 'read', 'https://h/b/k') == '"signed"'
    assert fake_rucio.asked[-1].params == {'rse': 'X', 'svc': service, 'op': 'read', 'url': 'https://h/b/k', 'lifetime': '3600'}


def test_an_operation_that_no_url_can_do(connect):
    with pytest.raises(InputValidationError, match="cannot be signed for 'list'"):
        connect().get_signed_url('X', 's3', 'list', 'https://h/b/k')
