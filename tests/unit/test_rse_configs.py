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

"""The RSE definitions in etc/rse_configs: complete, and free of settings that do not exist. What sites do with them: test_site_configs.py."""

import json
from pathlib import Path

import pytest

from rucio.common.s3.endpoint import Endpoint

ETC = Path(__file__).resolve().parents[2] / 'etc'
CONFIGS = sorted(ETC.joinpath('rse_configs').glob('*.json'))
STORAGES = ['aws', 'ceph-rgw', 'generic', 'minio', 'seaweedfs']
SITES = ['site-mixed', 'site-with-fts', 'site-without-fts']
DEFAULT, FTS = 'rucio.rse.protocols.s3.Default', 'rucio.rse.protocols.s3.FTS'

# Rucio's importer passes None for each that is missing, and the database refuses that.
PROPERTIES = {
    'deterministic': True,
    'volatile': False,
    'staging_area': False,
    'rse_type': 'DISK',
    'availability_read': True,
    'availability_write': True,
    'availability_delete': True,
}


def definitions(name):
    """The RSEs of a file."""
    return json.loads(ETC.joinpath('rse_configs', f'{name}.json').read_text())['rses']


RSES = [(rse, definition) for name in STORAGES + SITES for rse, definition in definitions(name).items()]
S3_RSES = [(rse, definition) for rse, definition in RSES if not rse.endswith('_DISK')]


@pytest.fixture(params=RSES, ids=lambda each: each[0])
def rse(request):
    """The name and the definition of each RSE of each file."""
    return request.param


@pytest.fixture(params=S3_RSES, ids=lambda each: each[0])
def s3_rse(request):
    """The same, of the S3 RSEs."""
    return request.param


def test_all_files_are_looked_at():
    assert [path.stem for path in CONFIGS] == sorted(STORAGES + SITES)


@pytest.mark.parametrize('name', STORAGES + SITES)
def test_nothing_but_rses_and_distances(name):
    content = json.loads(ETC.joinpath('rse_configs', f'{name}.json').read_text())
    assert list(content) == ['rses', 'distances'][: 1 + (name in SITES)]  # 'accounts' would delete accounts
    assert name in SITES or len(content['rses']) == 1


def test_properties_are_complete(rse):
    _, definition = rse
    assert {key: definition.get(key) for key in PROPERTIES} == PROPERTIES


def test_priorities_begin_at_1(rse):
    """0 means 'not offered' up to Rucio 38, and 'before all others' from 39 on; null cannot be stored up to 38."""
    _, definition = rse
    priorities = [priority for protocol in definition['protocols'] for operations in protocol['domains'].values() for priority in operations.values()]
    assert priorities
    assert all(type(priority) is int and priority > 0 for priority in priorities)


def test_attributes_are_where_the_importer_looks(s3_rse):
    _, definition = s3_rse
    attributes = dict(definition['attributes'])
    assert attributes.pop('skip_upload_stat') is True
    if len(definition['protocols']) == 2:
        assert attributes == {'fts': 'https://fts.example.org:8446', 'supported_checksums': 'none'}
    else:
        assert attributes == {}


def test_protocols(s3_rse):
    _, definition = s3_rse
    main, *more = definition['protocols']
    assert (main['scheme'], main['prefix'], main['impl']) == ('https', '/', DEFAULT)
    assert isinstance(main['port'], int)
    assert all(main['domains'][domain][operation] == 1 for domain in ('lan', 'wan') for operation in ('read', 'write', 'delete'))
    for fts in more:
        assert (fts['scheme'], fts['impl']) == ('davs', FTS)
        assert [fts[key] for key in ('hostname', 'port', 'prefix')] == [main[key] for key in ('hostname', 'port', 'prefix')]
        assert fts['domains'] == {'wan': {'third_party_copy_read': 1, 'third_party_copy_write': 1}}


def test_settings_are_known(s3_rse, monkeypatch, tmp_path):
    config = tmp_path / 'rucio.cfg'
    config.write_text('[client]\n')
    monkeypatch.setenv('RUCIO_CONFIG', str(config))
    name, definition = s3_rse
    protocol = definition['protocols'][0]
    settings = protocol['extended_attributes']['s3']
    endpoint = Endpoint.load({'rse': name, 'id': '0' * 32}, protocol)
    assert {key: getattr(endpoint, key) for key in settings} == settings
