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

"""The RSE definitions in etc/rse_configs: complete, and free of settings that do not exist."""

import json
from pathlib import Path

import pytest

from rucio.common.s3.endpoint import Endpoint

CONFIGS = sorted(Path(__file__).resolve().parents[2].joinpath('etc', 'rse_configs').glob('*.json'))

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


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def rse(request):
    """The name and the definition of the one RSE of a file."""
    content = json.loads(request.param.read_text())
    assert list(content) == ['rses']  # 'accounts' would delete accounts
    ((name, definition),) = content['rses'].items()
    return name, definition


def test_one_file_for_each_storage():
    assert [path.stem for path in CONFIGS] == ['aws', 'ceph-rgw', 'generic', 'minio', 'seaweedfs']


def test_properties_are_complete(rse):
    _, definition = rse
    assert {key: definition.get(key) for key in PROPERTIES} == PROPERTIES


def test_attributes_are_where_the_importer_looks(rse):
    _, definition = rse
    assert definition['lfn2pfn_algorithm'] == 's3_bucket'
    assert definition['attributes'] == {'skip_upload_stat': True}


def test_protocol(rse):
    _, definition = rse
    (protocol,) = definition['protocols']
    assert protocol['impl'] == 'rucio.rse.protocols.s3.Default'
    assert protocol['scheme'] == 'https'
    assert protocol['prefix'] == '/'
    assert isinstance(protocol['port'], int)
    assert all(protocol['domains'][domain][operation] == 1 for domain in ('lan', 'wan') for operation in ('read', 'write', 'delete'))


def test_settings_are_known(rse, monkeypatch, tmp_path):
    config = tmp_path / 'rucio.cfg'
    config.write_text('[client]\n')
    monkeypatch.setenv('RUCIO_CONFIG', str(config))
    name, definition = rse
    (protocol,) = definition['protocols']
    settings = protocol['extended_attributes']['s3']
    endpoint = Endpoint.load({'rse': name, 'id': '0' * 32}, protocol)
    assert {key: getattr(endpoint, key) for key in settings} == settings
