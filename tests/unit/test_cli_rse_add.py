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

"""`rucio s3 rse add`: what it makes, for each way in which files may move."""

import json
import re
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from rucio.cli.s3 import storages
from rucio.common.exception import ConfigurationError, InputValidationError, InvalidObject, InvalidRSEExpression, RSENotFound, UnsupportedOperation

RWD = {'read': 1, 'write': 1, 'delete': 1}
TPC = {'third_party_copy_read': 1, 'third_party_copy_write': 1}
URL = 'https://fts.example.org:8446'


class Catalogue:
    """Of one RSE at most that is made, and others that were there."""

    def __init__(self):
        self.rse = None
        self.attributes = {}
        self.others = {}
        self.scopes = ['user.alice']
        self.asked = set()

    def get_rse(self, name):
        if name in self.others:
            return self.others[name][1]
        if self.rse is None:
            raise RSENotFound
        return json.loads(json.dumps(self.rse))

    def list_rses(self, expression):
        """As Rucio does it: what was asked for once is answered from its cache, and no answer is an error."""
        algorithm = re.fullmatch(r'lfn2pfn_algorithm=(\w+)(\\[A-Za-z0-9]+([_-][A-Za-z0-9]+)*)?', expression)[1]
        found = [name for name, (has, _) in self.others.items() if has == algorithm]
        if not found or expression in self.asked:
            raise InvalidRSEExpression('RSE Expression resulted in an empty set.')
        self.asked.add(expression)
        yield from ({'rse': name} for name in found)

    def add_other(self, name, algorithm='s3_bucket', url='https://s3.example.org:443/', s3=None, impl=storages.IMPL):
        parts = urlsplit(url)
        place = {'scheme': parts.scheme, 'hostname': parts.hostname, 'port': parts.port or 0, 'prefix': parts.path}
        self.others[name] = (algorithm, {'protocols': [{**place, 'impl': impl, 'extended_attributes': {'s3': s3} if s3 else None}]})

    def list_scopes(self):
        return self.scopes

    def add_rse(self, name, **properties):
        self.rse = {'id': 'abc', 'protocols': [], **properties}

    def list_rse_attributes(self, name):
        return dict(self.attributes)

    def add_rse_attribute(self, name, key, value):
        self.attributes[key] = value

    def add_protocol(self, name, protocol):
        made = json.loads(json.dumps(protocol))
        made['domains'] = {'lan': {}, 'wan': {}} | made['domains']
        self.rse['protocols'].append(made)


@pytest.fixture
def catalogue():
    return Catalogue()


@pytest.fixture
def add(catalogue):
    def run(*options):
        words = [
            'SITE_S3',
            *([] if '--endpoint' in options else ['--endpoint', 'https://s3.example.org']),
            *([] if '--read-only' in options else ['--provider', 'ceph']),
            *options,
        ]
        return CliRunner().invoke(storages.add, words, obj=SimpleNamespace(client=catalogue))

    return run


def entries(catalogue):
    return [(each['scheme'], each['impl'].rpartition('.')[2], each['domains']) for each in catalogue.rse['protocols']]


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ([], [('https', 'Default', {'lan': RWD, 'wan': RWD | TPC})]),
        (
            ['--endpoint', 'http://s3.example.org'],
            [
                ('http', 'Default', {'lan': RWD, 'wan': RWD | {'third_party_copy_read': 2, 'third_party_copy_write': 2}}),
                ('davs', 'FTS', {'lan': {}, 'wan': TPC}),
            ],
        ),
        (['--endpoint', 'http://s3.example.org', '--fts', URL], [('http', 'Default', {'lan': RWD, 'wan': RWD}), ('davs', 'FTS', {'lan': {}, 'wan': TPC})]),
        (['--no-third-party-copy'], [('https', 'Default', {'lan': RWD, 'wan': RWD})]),
        (['--fts', URL], [('https', 'Default', {'lan': RWD, 'wan': RWD}), ('davs', 'FTS', {'lan': {}, 'wan': TPC})]),
        (['--read-only'], [('https', 'Default', {'lan': {'read': 1}, 'wan': {'read': 1, 'third_party_copy_read': 1}})]),
        (
            ['--read-only', '--fts', URL],
            [('https', 'Default', {'lan': {'read': 1}, 'wan': {'read': 1}}), ('davs', 'FTS', {'lan': {}, 'wan': {'third_party_copy_read': 1}})],
        ),
    ],
)
def test_what_is_not_offered_is_left_out(catalogue, add, options, expected):
    """From Rucio 39 on, 0 would offer it before all else."""
    done = add(*options)
    assert done.exit_code == 0, done.output
    assert entries(catalogue) == expected
    assert {key: catalogue.attributes.get(key) for key in ('fts', 'supported_checksums')} == (
        {'fts': URL, 'supported_checksums': 'none'} if '--fts' in options else {'fts': None, 'supported_checksums': None}
    )

    again = add(*options)
    assert 'with these settings. Nothing was done' in again.output, again.output
    assert entries(catalogue) == expected


def test_fts_comes_to_an_rse_that_offers_no_copies(catalogue, add):
    add('--no-third-party-copy')
    assert add('--fts', URL).exit_code == 0
    assert entries(catalogue) == [('https', 'Default', {'lan': RWD, 'wan': RWD}), ('davs', 'FTS', {'lan': {}, 'wan': TPC})]


def test_fts_does_not_come_to_an_rse_whose_https_offers_copies(catalogue, add):
    add()
    refused = add('--fts', URL)
    assert 'its protocol https offers third-party copies' in str(refused.exception)
    assert len(catalogue.rse['protocols']) == 1
    assert 'fts' not in catalogue.attributes


def test_fts_and_no_copies_at_all(catalogue, add):
    refused = add('--fts', URL, '--no-third-party-copy')
    assert refused.exit_code == 2
    assert 'mutually exclusive' in refused.output
    assert catalogue.rse is None


def test_fts_by_several_urls(catalogue, add):
    add('--fts', f'{URL}, https://other.example.org:8446')
    assert catalogue.attributes['fts'] == f'{URL},https://other.example.org:8446'


@pytest.mark.parametrize('url', ['fts.example.org', 'fts.example.org:8446', f'{URL},other.example.org', f'{URL},', 'https://user:secret@fts.example.org'])
def test_fts_without_a_url(catalogue, add, url):
    refused = add('--fts', url)
    assert isinstance(refused.exception, InputValidationError)
    assert "--fts '" in str(refused.exception)
    assert 'expected https://HOST or https://HOST:PORT' in str(refused.exception)
    assert catalogue.rse is None


@pytest.mark.parametrize(
    ('setting', 'said'), [('adressing=path', "no setting 'adressing'. Did you mean 'addressing'?"), ('nope=1', "no setting 'nope'. Allowed are")]
)
def test_a_setting_that_does_not_exist(catalogue, add, setting, said):
    refused = add('--setting', setting)
    assert isinstance(refused.exception, ConfigurationError)
    assert said in str(refused.exception)
    assert catalogue.rse is None


# Places


@pytest.mark.parametrize(
    ('other', 'options'),
    [
        ({}, []),
        ({'url': 'https://S3.example.org./'}, []),
        ({'url': 'http://s3.example.org:80/'}, []),
        ({'url': 'davs://s3.example.org:443/', 'impl': 'rucio.rse.protocols.gfal.NoRename'}, []),
        ({'s3': {'provider': 'minio', 'bucket_prefix': 'vo-'}}, ['--bucket-prefix', 'vo-']),
        ({'s3': {'bucket_prefix': 'vo-'}}, ['--setting', 'bucket_prefix=vo-']),
        ({'url': 'https://s3.example.org:443/all/of/it/'}, ['--bucket', 'all', '--prefix', 'of/it']),
    ],
)
def test_the_place_of_another_rse(catalogue, add, other, options):
    catalogue.add_other('ELSEWHERE', url='https://elsewhere.example.org/')
    catalogue.add_other('OTHER_S3', **other)
    for _ in range(2):  # not by what Rucio has in its cache
        refused = add(*options)
        assert isinstance(refused.exception, UnsupportedOperation)
        assert 'The RSE SITE_S3 was not created: OTHER_S3 uses the same keys for all files' in str(refused.exception)
        assert ('another --bucket or --prefix' if '--bucket' in options else '--bucket-prefix') in str(refused.exception)
    assert catalogue.rse is None


@pytest.mark.parametrize(
    ('other', 'options'),
    [
        # Scope x of the one has the bucket of scope user.x of the other.
        ({}, ['--bucket-prefix', 'user.']),
        ({'s3': {'bucket_prefix': 'user.'}}, []),
        ({'s3': {'bucket_prefix': 'vo'}}, ['--bucket-prefix', 'vo1']),
        # A folder inside of the other's, of whatever algorithm.
        ({'url': 'https://s3.example.org/all/'}, ['--bucket', 'all', '--prefix', 'x']),
        ({'url': 'https://s3.example.org/all/x/y/'}, ['--bucket', 'all', '--prefix', 'x']),
        ({'url': 'https://s3.example.org/all/', 'algorithm': 'hash'}, ['--bucket', 'all']),
        ({'url': 'https://s3.example.org/all/', 'algorithm': 'identity'}, ['--bucket', 'all']),
        # The one bucket of all is that of a scope that exists.
        ({}, ['--bucket', 'user.alice']),
        ({'url': 'https://s3.example.org/user.alice/x/'}, []),
        ({'url': 'https://s3.example.org/vo-user.alice/'}, ['--bucket-prefix', 'vo-']),
    ],
)
def test_a_place_that_overlaps_with_that_of_another_rse(catalogue, add, other, options):
    catalogue.add_other('OTHER_S3', **other)
    refused = add(*options)
    assert isinstance(refused.exception, UnsupportedOperation)
    assert 'a file deleted on one would be gone on both' in str(refused.exception)
    assert catalogue.rse is None


@pytest.mark.parametrize(
    ('other', 'options'),
    [
        ({'s3': {'bucket_prefix': 'vo1-'}}, ['--bucket-prefix', 'vo2-']),
        ({'url': 'https://s3.example.org:8443/'}, []),
        ({'url': 'https://elsewhere.example.org/'}, ['--bucket-prefix', 'user.']),
        ({'url': 'davs://s3.example.org:443/', 'impl': storages.IMPL_FTS}, []),
        ({'url': 'https://s3.example.org:443/all/y/', 'algorithm': 'identity'}, ['--bucket', 'all', '--prefix', 'x']),
        ({'url': 'https://s3.example.org:443/all/x/'}, ['--bucket', 'all', '--prefix', 'xy']),
        ({}, ['--bucket', 'rucio-data']),
        ({'s3': {'bucket_prefix': 'vo-'}}, ['--bucket', 'user.alice']),
        ({}, ['--read-only']),
    ],
)
def test_a_place_beside_that_of_another_rse(catalogue, add, other, options):
    catalogue.add_other('OTHER_S3', **other)
    assert add(*options).exit_code == 0
    assert catalogue.rse['protocols']


def test_the_scopes_of_a_common_bucket_are_apart(catalogue, add):
    """With identity, group.p:higgs/x and group.p.higgs:x would be one key."""
    add('--bucket', 'all')
    assert catalogue.attributes['lfn2pfn_algorithm'] == 's3_bucket'


def test_an_interrupted_rse_does_not_get_the_place_of_another(catalogue, add):
    catalogue.add_rse('SITE_S3')
    catalogue.add_other('OTHER_S3')
    assert 'OTHER_S3 uses the same keys' in str(add().exception)
    assert not catalogue.rse['protocols']


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ([], 'transfertool = s3, rucio-s3-copier; see docs/transfers.md'),
        (['--fts', URL], "transfertool = fts3, FTS's own keys; see docs/transfers.md"),
        (['--no-third-party-copy'], None),
    ],
)
def test_what_rules_need_is_told(add, options, said):
    told = add(*options).output
    assert said in told if said else 'transfertool' not in told


def test_who_needs_the_storages_own_ca_is_told(add, rucio_cfg, tmp_path):
    assert 'a CA of its own' not in add().output
    (tmp_path / 'site.pem').write_text('')
    rucio_cfg({'s3': {'ca_bundle': str(tmp_path / 'site.pem')}})
    told = add().output
    assert "The storage has a CA of its own: the server, its daemons and each user need it as 'ca_bundle' in rucio.cfg [s3]" in told
    assert str(tmp_path / 'site.pem') in told


def test_a_wrong_name_of_an_rse_is_told_in_two_sentences(add, catalogue, monkeypatch):
    def refuse(name, **_):
        raise InvalidObject("Problem validating rse: 'SITE_S3' does not match '^[A-Z]+$'\n\nFailed validating 'pattern' in schema:\n    {...}")

    monkeypatch.setattr(catalogue, 'add_rse', refuse)
    error = add().exception
    assert isinstance(error, InvalidObject)
    assert error.args[0] == "Problem validating rse: 'SITE_S3' does not match '^[A-Z]+$'. Choose another name, such as SITE_S3."


@pytest.mark.parametrize(
    'endpoint', ['http://s3_storage:9000', 'http://::1:9000', 'https://größe.example', f'https://{"a" * 64}.example', 'https://s3.{region}.example']
)
def test_an_endpoint_that_botocore_refuses_is_refused_and_nothing_is_created(catalogue, add, endpoint):
    done = add('--endpoint', endpoint)
    assert isinstance(done.exception, (ConfigurationError, InputValidationError))
    assert catalogue.rse is None


def test_a_region_that_botocore_refuses_is_refused_and_nothing_is_created(catalogue, add):
    done = add('--region', 'eu central 1')
    assert isinstance(done.exception, ConfigurationError)
    assert "'eu central 1'" in str(done.exception)
    assert catalogue.rse is None


def test_an_ipv6_literal_keeps_its_brackets(catalogue, add):
    assert add('--endpoint', 'http://[::1]:9000').exit_code == 0
    assert {each['hostname'] for each in catalogue.rse['protocols']} == {'[::1]'}
