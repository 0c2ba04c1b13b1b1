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
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from rucio.cli.s3 import storages
from rucio.common.exception import RSENotFound

RWD = {'read': 1, 'write': 1, 'delete': 1}
TPC = {'third_party_copy_read': 1, 'third_party_copy_write': 1}
URL = 'https://fts.example.org:8446'


class Catalogue:
    """Of one RSE at most."""

    def __init__(self):
        self.rse = None
        self.attributes = {}

    def get_rse(self, name):
        if self.rse is None:
            raise RSENotFound
        return json.loads(json.dumps(self.rse))

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
    assert 'just so. Nothing was done' in again.output, again.output
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
    assert 'exclude each other' in refused.output
    assert catalogue.rse is None
