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


"""The settings of an RSE: where they come from, and what is said of wrong ones."""

import sys
from pathlib import Path

import pytest

from rucio.common.exception import ConfigurationError
from rucio.common.s3 import clients
from rucio.common.s3.credentials import Static
from rucio.common.s3.endpoint import DAEMON, PERSON, SERVER, SERVER_WORK, Endpoint, Patience, wanted_progress
from rucio.common.s3.monitoring import RSE
from rucio.common.s3.settings import SERVER_SETTINGS, SETTINGS, Secrets, StorageSettings, is_host, of_server, providers

MiB = 1024**2


@pytest.fixture
def load(rse):
    """Call it to read the settings of an RSE with these `s3` attributes."""

    def call(s3=None, url='https://s3.example.org:9000', **settings):
        described = rse(url=url, s3=s3 or {}, **settings)
        return Endpoint.load(described, described['protocols'][0])

    return call


def refusal(call, *args):
    with pytest.raises(ConfigurationError) as caught:
        call(*args)
    return str(caught.value)


# Who overrides whom


def test_defaults_are_the_careful_ones(load):
    endpoint = load()
    assert (endpoint.provider, endpoint.checksum, endpoint.addressing) == ('generic', 'md5', 'path')
    assert not endpoint.conditional_put
    assert not endpoint.conditional_multipart
    assert endpoint.region is None
    assert endpoint.default_region == 'us-east-1'


def test_what_others_changed_is_only_reported_and_what_they_put_is_read_for_its_checksum(load):
    endpoint = load()
    assert (endpoint.on_changed, endpoint.on_missing, endpoint.read_checksums, endpoint.checksum_readers) == ('report', 'report', True, 4)


@pytest.mark.parametrize(
    ('provider', 'expected'),
    [
        ('aws', {'checksum': 'crc32', 'conditional_multipart': True, 'addressing': 'auto'}),
        ('ceph', {'checksum': 'md5', 'conditional_put': True, 'conditional_multipart': False}),
        ('minio', {'checksum': 'crc32', 'conditional_multipart': True}),
        ('seaweedfs', {'checksum': 'crc32', 'conditional_multipart': True, 'addressing': 'path'}),
        ('gcs', {'default_region': 'auto'}),
        ('generic', {'checksum': 'md5', 'conditional_put': False}),
        ('aws', {'etag_is_md5': False}),  # SSE-KMS and SSE-C
        ('ceph', {'etag_is_md5': True, 'sorted_listing': True}),
        ('seaweedfs', {'etag_is_md5': True, 'sorted_listing': False}),
        ('generic', {'etag_is_md5': False, 'sorted_listing': False}),
    ],
)
def test_a_provider_brings_its_defaults(load, provider, expected):
    endpoint = load({'provider': provider})
    assert {name: getattr(endpoint, name) for name in expected} == expected


def test_the_rse_overrides_its_provider(load):
    endpoint = load({'provider': 'seaweedfs', 'checksum': 'md5', 'conditional_put': False})
    assert (endpoint.checksum, endpoint.conditional_put, endpoint.conditional_multipart) == ('md5', False, True)


def test_rucio_cfg_overrides_the_rse_and_its_section_for_the_rse_overrides_all(load, rucio_cfg):
    given = {'provider': 'aws', 'region': 'attribute', 'checksum': 'none', 'max_attempts': 2}
    rucio_cfg({'s3': {'region': 'general', 'checksum': 'md5'}, 's3:X': {'region': 'special'}, 's3:Y': {'region': 'of another'}})
    endpoint = load(given)
    assert (endpoint.region, endpoint.checksum, endpoint.max_attempts) == ('special', 'md5', 2)


def test_the_provider_may_be_overridden_too(load, rucio_cfg):
    rucio_cfg({'s3:X': {'provider': 'ceph'}})
    assert load({'provider': 'aws'}).checksum == 'md5'


def test_options_of_the_default_section_are_no_settings(load, rucio_cfg):
    rucio_cfg({'DEFAULT': {'whatever': '1'}, 's3': {'region': 'r'}})
    assert load().region == 'r'


def test_without_a_rucio_cfg_the_rse_alone_decides(load, monkeypatch, home):
    monkeypatch.delenv('RUCIO_CONFIG')
    home.joinpath('rucio', 'etc', 'rucio.cfg').unlink()
    assert load({'region': 'r'}).region == 'r'


@pytest.mark.parametrize(
    ('port', 'url'),
    [(None, 'http://h'), (0, 'http://h'), (80, 'http://h'), ('9000', 'http://h:9000'), (65535, 'http://h:65535'), (1, 'http://h:1'), ('absent', 'http://h')],
)
def test_a_protocol_need_not_have_a_port(port, url):
    protocol = {'scheme': 'http', 'hostname': 'h'} | ({} if port == 'absent' else {'port': port})
    endpoint = Endpoint.load({'rse': 'X'}, protocol)
    assert (endpoint.url, endpoint.rse, endpoint.rse_id) == (url, 'X', '')
    assert Endpoint.load({'rse': 'X', 'id': 7}, protocol).rse_id == '7'


@pytest.mark.parametrize('port', [-1, 65536])
def test_a_port_that_cannot_be_is_refused(port):
    protocol = {'scheme': 'http', 'hostname': 'h', 'port': port}
    assert f'port is {port}, but must be at most 65535' in refusal(Endpoint.load, {'rse': 'X'}, protocol)


def test_the_servers_own_options_are_none_of_a_storage(load, rucio_cfg):
    rucio_cfg({'s3': {'default_rse': 'X', 'region': 'mars'}})
    assert load().region == 'mars'


@pytest.mark.parametrize(
    ('given', 'url'),
    [
        ({}, 'https://s3.example.org:9000'),
        ({'sts_endpoint': 'https://sts.example.org'}, 'https://sts.example.org'),
        ({'sts_endpoint': 'https://sts.{region}.example.org', 'region': 'mars'}, 'https://sts.mars.example.org'),
        ({'provider': 'aws'}, 'https://sts.us-east-1.amazonaws.com'),
        ({'provider': 'aws', 'region': 'eu-west-1'}, 'https://sts.eu-west-1.amazonaws.com'),
    ],
)
def test_where_the_token_service_is(load, given, url):
    assert load(given).sts_url == url


def test_the_region_is_set_or_known_or_that_of_the_provider(load):
    assert [load({'region': 'mars'}).signing_region('venus'), load().signing_region('venus'), load().signing_region()] == ['mars', 'venus', 'us-east-1']


def test_the_progress_of_several_storages_is_one(rucio_cfg):
    rucio_cfg({})
    assert wanted_progress() == 'auto'
    rucio_cfg({'s3': {'progress': 'off'}, 's3:X': {'progress': 'on'}})
    assert wanted_progress() == 'off'


@pytest.mark.parametrize(
    ('given', 'usual', 'expected'),
    [
        ({}, PERSON, PERSON),
        ({}, DAEMON, DAEMON),
        ({'connect_timeout': 1, 'read_timeout': 2, 'max_attempts': 3}, DAEMON, Patience(1, 2, 3, 900, True, True)),
        ({'read_timeout': 2}, SERVER, Patience(3, 2, 2, 10, True, False)),
        ({'read_timeout': 11}, SERVER, Patience(3, 11, 2, 11, True, False)),
        ({'connect_timeout': 7}, SERVER_WORK, Patience(7, 20, 2, 30, True, False)),
    ],
)
def test_what_is_set_replaces_what_is_usual(load, given, usual, expected):
    assert load(given).patience(usual) == expected


def test_an_endpoint_knows_its_rse(load):
    endpoint = load()
    assert (endpoint.rse, endpoint.observed, endpoint.patience()) == ('X', RSE('X', endpoint.rse_id), PERSON)
    bare = Endpoint('X', 'x', 'https://s3.example.org')
    assert (bare.default_region, bare.unlock, bare.reserved_buckets, bare.reserved_keys, bare.secrets) == ('us-east-1', '', (), (), Secrets())


# Keys


def test_keys_for_the_rse_replace_a_general_profile_as_a_whole(load, rucio_cfg):
    rucio_cfg({'s3': {'profile': 'general'}, 's3:X': {'access_key': 'A', 'secret_key': 'B'}})
    secrets = load().secrets
    assert (secrets.profile, secrets.access_key, secrets.secret_key) == (None, 'A', 'B')


def test_a_profile_for_the_rse_replaces_general_keys_as_a_whole(load, rucio_cfg):
    rucio_cfg({'s3': {'access_key': 'A', 'secret_key': 'B', 'session_token': 'C'}, 's3:X': {'profile': 'special'}})
    secrets = load().secrets
    assert (secrets.profile, secrets.access_key, secrets.secret_key, secrets.session_token) == ('special', None, None, None)


def test_general_keys_hold_for_an_rse_whose_section_has_none(load, rucio_cfg):
    rucio_cfg({'s3': {'access_key': 'A', 'secret_key': 'B'}, 's3:X': {'region': 'r'}})
    assert load().secrets.secret_key == 'B'


def test_a_secret_may_hold_a_percent_sign_written_twice_as_everywhere_in_rucio_cfg(load, rucio_cfg):
    rucio_cfg({'s3:X': {'access_key': 'A', 'secret_key': 'a%b%%(c)s'}})
    assert load().secrets.secret_key == 'a%b%%(c)s'


def test_a_single_percent_sign_is_explained_without_showing_the_secret(load, home):
    from rucio.common.config import clean_cached_config  # noqa: PLC0415

    home.joinpath('rucio', 'etc', 'rucio.cfg').write_text('[s3:X]\naccess_key = A\nsecret_key = hid%den\n')
    clean_cached_config()
    said = refusal(load)
    assert '%%' in said
    assert '[s3:X]' in said
    assert 'hid%den' not in said


def test_no_secret_is_ever_shown(load, rucio_cfg):
    rucio_cfg({'s3:X': {'access_key': 'AKIDHIDDEN', 'secret_key': 'hidden1', 'session_token': 'hidden2'}})
    endpoint = load()
    assert endpoint.secrets.session_token == 'hidden2'
    for shown in (repr(endpoint), str(endpoint), f'{endpoint.secrets}', repr([endpoint.secrets])):
        assert 'hidden' not in shown.lower()


@pytest.mark.parametrize('name', ['access_key', 'secret_key', 'session_token', 'profile', 'ca_bundle', 'progress'])
def test_what_is_secret_or_of_one_machine_is_refused_in_the_attributes_that_every_client_reads(load, name):
    said = refusal(load, {name: 'hidden'})
    assert f"'{name}'" in said
    assert '[s3:X]' in said
    assert 'hidden' not in said


@pytest.mark.parametrize('section', ['s3', 's3:X'])
def test_the_bucket_prefix_is_refused_in_rucio_cfg(load, rucio_cfg, section):
    rucio_cfg({section: {'bucket_prefix': 'mine-'}})
    said = refusal(load)
    assert f'[{section}]' in said
    assert 'bucket_prefix' in said
    assert 'extended_attributes' in said


@pytest.mark.parametrize('name', ['access_key', 'secret_key', 'session_token'])
def test_an_empty_key_is_refused(load, rucio_cfg, name):
    rucio_cfg({'s3:X': {name: ' '}})
    assert f"'{name}'" in refusal(load)


# What docs/settings.md says


def documented():
    """The rows of the table: name, what is allowed, the default, where it may be set."""
    page = Path(__file__).parents[2].joinpath('docs', 'settings.md').read_text(encoding='utf-8')
    table = page.partition('<!-- settings -->')[2].partition('<!-- end -->')[0]
    return [[cell.strip() for cell in row.split('|')[1:5]] for row in table.splitlines() if row.startswith('| `')]


PLACES = {
    'anywhere': 'any',
    'rucio.cfg': 'rucio.cfg only',
    'RSE': 'RSE only',
    'server': "the server's rucio.cfg, `[s3]`",
    'server or user': 'rucio.cfg, `[s3]`',
}
DEPENDS = ('region', 'connect_timeout', 'read_timeout', 'max_attempts')  # on who asks


@pytest.mark.parametrize(('name', 'allowed', 'default', 'where'), [(row[0].strip('`'), *row[1:]) for row in documented()], ids=lambda text: text[:30])
def test_a_setting_is_as_documented(load, name, allowed, default, where):
    setting = (SETTINGS | SERVER_SETTINGS)[name]
    assert (setting.allowed, PLACES[setting.where]) == (allowed, where)
    assert setting.secret is (name in ('access_key', 'secret_key', 'session_token', 'events_token'))
    if allowed.startswith('one of '):
        for value in allowed.removeprefix('one of ').split(', '):
            assert setting.read('here', name, value) == value
    if allowed.startswith('any of '):
        values = allowed.removeprefix('any of ').removesuffix(', or nothing')
        assert setting.read('here', name, values) == tuple(values.split(', '))
    if name in DEPENDS:
        return
    usual, _, others = default.partition(' (')
    expected = others.rpartition(': ')[2].rstrip(')') if others.startswith(('`generic`', '`aws`, `generic`')) else usual
    if name in SERVER_SETTINGS:
        assert written(of_server(name)) == expected
    else:
        found = load()
        assert written(getattr(found, name, getattr(found.secrets, name, None))) == expected
        if name in StorageSettings.__dataclass_fields__ and name not in providers()['default']:
            assert written(getattr(StorageSettings(), name)) == expected


def written(value):
    if isinstance(value, tuple):
        return ', '.join(value) or 'none'
    if isinstance(value, int) and not isinstance(value, bool) and value >= MiB:
        return f'{value // MiB} MiB'
    return str(value).lower() if isinstance(value, bool) else str(value or 'none')


def test_the_table_has_all_settings():
    assert {row[0].strip('`') for row in documented()} == {*SETTINGS, *SERVER_SETTINGS}


# Wrong settings


def test_a_typo_in_the_attributes_names_place_and_setting_and_suggests_another(load):
    said = refusal(load, {'adressing': 'path'})
    assert 'RSE X' in said
    assert 'extended_attributes' in said
    assert "'adressing'" in said
    assert "'addressing'" in said


def test_a_typo_in_rucio_cfg_names_its_section(load, rucio_cfg):
    rucio_cfg({'s3:X': {'acces_key': 'hidden'}})
    said = refusal(load)
    assert '[s3:X]' in said
    assert "Did you mean 'access_key'?" in said
    assert 'hidden' not in said


def test_a_setting_like_no_other_is_answered_with_all_that_there_are(load):
    said = refusal(load, {'zzz': 1})
    assert all(name in said for name in SETTINGS)
    assert said.endswith(f"there is no setting 'zzz'. Allowed are {', '.join(sorted(SETTINGS))}.")


@pytest.mark.parametrize('name', ['verify', 'verify_ssl', 'insecure', 'ssl_verify', 'no_verify'])
@pytest.mark.parametrize('value', [False, 'false'])
def test_there_is_no_setting_that_switches_verification_off(load, rucio_cfg, name, value):
    assert f"no setting '{name}'" in refusal(load, {name: value})
    rucio_cfg({'s3': {name: 'false'}})
    assert f"no setting '{name}'" in refusal(load)


@pytest.mark.parametrize('value', ['false', 'no', '', '/nonexistent.pem'])
def test_a_ca_bundle_that_cannot_be_read_is_an_error_and_never_means_no_verification(load, rucio_cfg, value):
    rucio_cfg({'s3': {'ca_bundle': value}})
    assert 'ca_bundle' in refusal(load)


def test_a_ca_bundle_may_begin_with_a_tilde(load, rucio_cfg, home):
    home.joinpath('ca.pem').write_text('a certificate')
    rucio_cfg({'s3': {'ca_bundle': '~/ca.pem'}})
    assert load().ca_bundle == str(home / 'ca.pem')


@pytest.mark.parametrize(
    ('name', 'value', 'allowed'),
    [
        ('provider', 'cef', 'aws, ceph, garage, gcs, generic, minio, rclone, seaweedfs'),
        ('provider', 'default', 'seaweedfs'),
        ('provider', ['aws'], 'seaweedfs'),
        ('addressing', 'host', 'path, virtual, auto'),
        ('auth', 'magic', 'auto, static, presigned, vended, remote, web-identity, anonymous'),
        ('checksum', 'sha256', 'crc32, md5, none'),
        ('checksum', None, 'crc32, md5, none'),
        ('conditional_put', 'maybe', 'true or false'),
        ('on_changed', 'forget', 'report, replace, bad'),
        ('on_missing', 'replace', 'report, forget, lost'),
        ('read_checksums', 'some', 'true or false'),
        ('etag_is_md5', 'sometimes', 'true or false'),
        ('checksum_readers', 0, '1 to 1000'),
        ('multipart_threshold', '4 MiB', '5 MiB to 1 GiB'),
        ('multipart_chunksize', '5 PiB', '5 MiB to 1 GiB'),
        ('multipart_chunksize', '16 MiB!', '5 MiB to 1 GiB'),
        ('multipart_chunksize', -1, '5 MiB to 1 GiB'),
        ('max_concurrency', 0, '1 to 1000'),
        ('max_concurrency', 'many', '1 to 1000'),
        ('connect_timeout', 0, 'seconds'),
        ('read_timeout', 'nan', 'seconds'),
        ('read_timeout', 'inf', 'seconds'),
        ('max_attempts', 0, '1 to 1000'),
        ('bucket_prefix', 'CMS-', 'a-z'),
        ('bucket_prefix', 'a/b', 'a-z'),
        ('capacity', 'large', '100 TiB'),
        ('region', '', 'us-east-1'),
        ('region', 7, 'us-east-1'),
        ('if_none_match', 'put delete', 'put, multipart, copy'),
        ('if_none_match', ['all'], 'put, multipart, copy'),
        ('signature_guards', 'copy everything', 'any of'),
    ],
)
def test_a_wrong_value_is_answered_with_the_setting_the_value_and_what_is_allowed(load, name, value, allowed):
    said = refusal(load, {name: value})
    assert f"'{name}'" in said
    assert f"'{value}'" in said
    assert allowed in said


@pytest.mark.parametrize(
    ('name', 'taken', 'refused'),
    [
        ('multipart_threshold', ['5 MiB', '1 GiB', 5 * MiB, '1024M'], [5 * MiB - 1, 1024 * MiB + 1, '1 TiB', '', '5 MiB more']),
        ('capacity', ['0', '1 KiB', '1T', '10 TiB'], ['1 PiB', '-1', '1.5 T', 'T']),
        ('credentials_lifetime', [900, 43200, '900'], [899, 43201, '15 min']),
        ('max_concurrency', [1, 1000], [0, 1001, -1]),
        ('checksum_readers', [1, 1000], [0, 1001]),
        ('connect_timeout', [0.001, 1e6, '2.5'], [0, 0.0009, 1e6 + 1, -1, 'inf']),
        ('bucket_prefix', ['', 'a', 'vo-', 'a' * 31, '1.x'], ['a' * 32, '-a', '.a', 'A', 'a_', 'a/']),
        ('region', ['us-east-1', 'a', '1a', 'US'], ['123', 'a_b', '-a', 'a b', 'a/b', '']),
        (
            'events_url',
            ['https://rucio/s3/X/events', 'http://rucio:1/x'],
            ['https://rucio', 'https://rucio/', 'https://user@rucio/x', 'ftp://rucio/x', 'https://rucio/a b', 'https://rucio/x#y'],
        ),
        (
            'events_topic',
            ['arn:minio:sqs::RUCIO:webhook', 'arn:aws:sns:eu-1:1:t', 'arn:aws:lambda:eu-1:1:f', 'eventbridge'],
            ['arn:aws:s3:::b', 'eventbridges', 'sns', 'arn:aws:sns:a b'],
        ),
        (
            'sts_endpoint',
            ['https://sts', 'https://sts.{region}.example.org', 'http://127.0.0.1:8333', 'https://sts/'],
            ['https://sts/path', 'https://u:p@sts', 'https://sts:123456', 'sts', 'ftp://sts', 'https://s_ts', 'https://sts?x', ''],
        ),
        ('minio_release', ['RELEASE.2025-10-15T17-29-55Z'], ['2025-10-15', 'RELEASE.2025-10-15T17-29-55', 'xRELEASE.2025-10-15T17-29-55Z']),
        ('role_arn', ['arn:aws:iam:::role/X'], ['', ' ', 7]),
        (
            'cors_origins',
            ['*', 'https://h', ['https://*.example.org', 'http://localhost:8888'], 'https://a, https://b'],
            ['https://h/', 'h', 'https://*', 'https://h:123456', ['https://h', 'x']],
        ),
        ('if_none_match', ['', 'put', 'put,copy', ['multipart'], 'put multipart copy'], ['all', 'put delete']),
        ('signature_guards', ['', 'copy, host', ['lock', 'attributes', 'acl', 'prefix']], ['copies']),
        ('verifies_body', [True, 'on', 'NO '], ['', 2, 'y', None]),
    ],
)
def test_what_a_value_may_be(load, name, taken, refused):
    for value in taken:
        assert getattr(load({name: value}), name) is not None
    for value in refused:
        assert f"'{name}' is '{value}'" in refusal(load, {name: value})


@pytest.mark.parametrize(
    ('name', 'value', 'read'),
    [
        ('capacity', '1K', 1024),
        ('capacity', '2 MiB', 2 * MiB),
        ('capacity', '3GB', 3 * 1024 * MiB),
        ('capacity', '7', 7),
        ('sts_endpoint', ' https://sts/ ', 'https://sts'),
        ('if_none_match', 'put, copy', ('put', 'copy')),
        ('cors_origins', 'https://a,https://b', ('https://a', 'https://b')),
        ('connect_timeout', '2.5', 2.5),
        ('role_arn', ' arn ', 'arn'),
        ('verifies_body', 'on', True),
        ('verifies_body', 'NO ', False),
    ],
)
def test_a_value_is_read(load, name, value, read):
    assert getattr(load({name: value}), name) == read


@pytest.mark.parametrize(
    ('text', 'is_one'),
    [
        ('localhost', True),
        ('s3.example.org.', True),
        ('a' * 63, True),
        ('a' * 64, False),
        (f'{"a" * 63}.' * 3 + 'a' * 63, True),
        (f'{"a" * 63}.' * 3 + f'{"a" * 61}.b', True),
        (f'{"a" * 63}.' * 4 + 'b', False),
        ('[::1]', True),
        ('[2001:db8::1]', True),
        ('[fe80::1%eth0]', False),
        ('[::g]', False),
        ('::1', False),
        ('[::1', False),
        ('a..b', False),
        ('-a', False),
        ('a_b', False),
        ('', False),
    ],
)
def test_what_is_a_host(text, is_one):
    assert is_host(text) is is_one


@pytest.mark.parametrize(
    ('token', 'taken'),
    [('x' * 16, True), ('x' * 256, True), ('aA0._~-xxxxxxxxx', True), ('x' * 15, False), ('x' * 257, False), ('x' * 16 + ' y', False), ('x' * 16 + '/', False)],
)
def test_a_token_for_events_needs_no_encoding(load, rucio_cfg, token, taken):
    rucio_cfg({'s3:X': {'events_token': token}})
    if taken:
        assert load().events_token == token
    else:
        said = refusal(load)
        assert "'events_token'" in said
        assert token not in said


def test_the_servers_own_options_have_limits(rucio_cfg):
    rucio_cfg({})
    assert [of_server(name) for name in ('default_rse', 'fts', 'signatures_per_second', 'vends_per_second')] == ['', False, 2000, 10]
    rucio_cfg({'s3': {'default_rse': 'X', 'fts': 'yes', 'signatures_per_second': '0', 'vends_per_second': '0.5'}})
    assert [of_server(name) for name in ('default_rse', 'fts', 'signatures_per_second', 'vends_per_second')] == ['X', True, 0, 0.5]
    rucio_cfg({'s3': {'vends_per_second': '-1', 'fts': 'perhaps', 'default_rse': ' '}})
    for name in ('vends_per_second', 'fts', 'default_rse'):
        assert f"rucio.cfg [s3]: '{name}'" in refusal(of_server, name)


@pytest.mark.parametrize('settings', ['aws', ['aws'], 7])
def test_settings_that_are_no_object_are_refused_with_an_example(rse, settings):
    described = rse(s3=settings)
    assert 'must be an object' in refusal(Endpoint.load, described, described['protocols'][0])


@pytest.mark.parametrize('attributes', [None, {}, {'s3': None}, {'s3': {}}, {'other': 1}])
def test_a_protocol_need_not_have_settings(rse, attributes):
    described = rse()
    described['protocols'][0]['extended_attributes'] = attributes
    assert Endpoint.load(described, described['protocols'][0]).provider == 'generic'


# Values


@pytest.mark.parametrize(
    ('text', 'size'),
    [
        ('8 MiB', 8 * MiB),
        ('8MiB', 8 * MiB),
        ('8M', 8 * MiB),
        ('8MB', 8 * MiB),
        ('8 mib', 8 * MiB),
        ('1GiB', 1024 * MiB),
        (8 * MiB, 8 * MiB),
        ('8388608', 8 * MiB),
    ],
)
def test_sizes_are_written_as_people_do(load, text, size):
    assert load({'multipart_chunksize': text}).multipart_chunksize == size


def test_a_capacity_may_be_large(load):
    assert load({'capacity': '100 TiB'}).capacity == 100 * 1024**4


@pytest.mark.parametrize(('value', 'expected'), [(True, True), ('true', True), ('Yes', True), ('1', True), (False, False), ('off', False), ('0', False)])
def test_switches_are_written_as_people_do(load, value, expected):
    assert load({'conditional_put': value}).conditional_put is expected


def test_numbers_of_rucio_cfg_are_numbers(load, rucio_cfg):
    rucio_cfg({'s3': {'max_concurrency': '7', 'read_timeout': '1.5'}})
    endpoint = load()
    assert (endpoint.max_concurrency, endpoint.read_timeout) == (7, 1.5)


# URL


@pytest.mark.parametrize(
    ('url', 'expected'),
    [
        ('https://h:443', 'https://h'),
        ('http://h:80', 'http://h'),
        ('https://h', 'https://h'),
        ('https://h:9000', 'https://h:9000'),
        ('https://h:80', 'https://h:80'),
        ('http://h:443', 'http://h:443'),
    ],
)
def test_a_default_port_is_left_out_as_http_clients_leave_it_out_of_what_is_signed(load, url, expected):
    assert load(url=url).url == expected


@pytest.mark.parametrize('scheme', ['s3', 's3s', 'davs'])
def test_other_schemes_are_refused_as_rucio_offers_them_to_nobody(load, scheme):
    said = refusal(lambda: load(url=f'{scheme}://h:9000'))
    assert f"'{scheme}'" in said
    assert 'https and http' in said


HOSTS = ['s3', 's3.example.org', 'S3.Example.org.', 'a' * 63, 'xn--gre-6ka8k.example', '10.0.0.1', '[::1]', '[2001:db8::9000]', '[::ffff:10.0.0.1]']
NO_HOSTS = [
    's3_storage',
    '::1',
    '2001:db8::1',
    '[::1',
    '[]',
    '[10.0.0.1]',
    '[zz]',
    '[fe80::1%eth0]',
    'größe.example',
    'a' * 64,
    f'{"a" * 64}.example',
    '.'.join(['abc'] * 70),
    '-a.example',
    'a-.example',
    'a..b',
    '.a',
    '',
    ' ',
    'a b',
    'a/b',
    'user@host',
    'host:9000',
    'a\n',
    's3.{region}.example.org',
]
REGIONS = ['us-east-1', 'EU', 'default', 'a' * 63, '1a']
NO_REGIONS = ['eu central 1', 'eu_central_1', 'eu.central', '-eu', 'eu-', 'a' * 64, '1234', 'größe']


@pytest.fixture
def of_host():
    def call(hostname, port=9000, **s3):
        return Endpoint.load({'rse': 'X'}, {'scheme': 'http', 'hostname': hostname, 'port': port, 'extended_attributes': {'s3': s3}})

    return call


@pytest.mark.parametrize('host', HOSTS)
def test_a_host_that_is_taken_is_one_for_botocore(of_host, host):
    endpoint = of_host(host)
    assert endpoint.url == f'http://{host}:9000'
    assert clients.connect(endpoint, Static('A', 'b')).client.meta.endpoint_url == endpoint.url


@pytest.mark.parametrize('host', NO_HOSTS)
def test_a_host_that_botocore_refuses_is_refused_and_named(of_host, host):
    """One such RSE made each listing of all RSEs end with 500, and the reconciler's daemon do nothing."""
    said = refusal(of_host, host)
    assert ascii(host)[:200] in said
    assert 'RSE X' in said
    assert 'IPv6 in brackets' in said


# Python 3.10 has no opinion about what is in brackets.
ODD = '/ @\n:%' if sys.version_info >= (3, 11) else '/ @\n:%['


@pytest.mark.parametrize('host', [each for each in NO_HOSTS if each and not set(each) & set(ODD) and '{' not in each])
def test_botocore_does_refuse_it(endpoint, host):
    """Were it to take more one day, we should, too. Whatever else it refuses is named as well, and ends nothing."""
    with pytest.raises(ConfigurationError, match='RSE X: botocore does not accept'):
        clients.connect(endpoint(url=f'http://{host}'), Static('A', 'b'))


@pytest.mark.parametrize('port', [-1, 65536, 99999])
def test_a_port_that_is_none(of_host, port):
    assert str(port) in refusal(lambda: of_host('s3', port))


@pytest.mark.parametrize('region', REGIONS)
def test_a_region_that_is_taken_is_one_for_botocore(of_host, region):
    clients.connect(of_host('s3', region=region), Static('A', 'b'))


@pytest.mark.parametrize('region', NO_REGIONS)
def test_a_region_that_botocore_refuses_is_refused(of_host, endpoint, region):
    assert region in refusal(lambda: of_host('s3', region=region))
    with pytest.raises(ConfigurationError, match='botocore does not accept'):
        clients.connect(endpoint(region=region), Static('A', 'b'))


@pytest.mark.parametrize('url', ['https://sts_1.example.org', 'https://::1', 'https://größe.example', f'https://{"a" * 64}', 'https://s3.{zone}.example.org'])
@pytest.mark.parametrize('name', ['sts_endpoint', 'events_endpoint'])
def test_other_endpoints_have_such_hosts_too(of_host, name, url):
    assert url in refusal(lambda: of_host('s3', **{name: url}))
    assert getattr(of_host('s3', **{name: 'https://s.{region}.example.org:443/'}), name) == 'https://s.{region}.example.org:443'
    assert getattr(of_host('s3', **{name: 'https://[::1]:9000'}), name) == 'https://[::1]:9000'


@pytest.mark.parametrize('attributes', ['text', ['s3'], 7, {'s3': 'text'}, {'s3': ['provider']}])
def test_attributes_that_are_none_are_refused(attributes):
    protocol = {'scheme': 'https', 'hostname': 's3', 'port': 443, 'extended_attributes': attributes}
    assert 'must be an object' in refusal(Endpoint.load, {'rse': 'X'}, protocol)


def test_the_endpoint_knows_whose_it_is(load):
    endpoint = load(rse='SITE_S3', id='0f')
    assert (endpoint.rse, endpoint.rse_id) == ('SITE_S3', '0f')
