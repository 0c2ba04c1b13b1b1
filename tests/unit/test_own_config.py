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

"""What looks wrong in a user's rucio.cfg is told once, in a line."""

import json
import os
from pathlib import Path

import pytest

from rucio.common import config
from rucio.common.s3 import credentials, own_config
from rucio.common.s3.endpoint import Endpoint


@pytest.fixture
def told(rucio_cfg, monkeypatch):
    """Call it with sections, a mode and the name of an RSE: what is logged."""
    monkeypatch.setattr(own_config, '_warned', set())

    def tell(sections, mode=0o600, rse='SITE_S3'):
        rucio_cfg(sections)
        Path(os.environ['RUCIO_CONFIG']).chmod(mode)
        said = []
        own_config.warn(rse, lambda _, text, *arguments: said.append(text % arguments))
        return said

    return tell


KEYS = {'access_key': 'AKID', 'secret_key': 'hidden'}


@pytest.mark.parametrize('section', ['s3', 's3:SITE_S3', 's3:OTHER_S3'])
@pytest.mark.parametrize('mode', [0o644, 0o640, 0o604])
def test_keys_that_others_can_read(told, section, mode):
    (said,) = told({section: KEYS}, mode)
    assert said.startswith(f'{os.environ["RUCIO_CONFIG"]} has secret keys, and others can read it: chmod 600 ')
    assert 'hidden' not in said


@pytest.mark.parametrize('sections', [{'s3': KEYS}, {'s3:SITE_S3': KEYS, 's3:OTHER_S3': KEYS}])
def test_a_good_configuration(told, sections):
    assert told(sections) == []


def test_a_configuration_without_keys_may_be_read_by_all(told):
    assert told({'s3': {'progress': 'off'}, 's3:SITE_S3': {'access_key': 'AKID'}}, 0o644) == []


def test_it_is_told_once(told):
    assert told({'s3': KEYS}, 0o644) != []
    assert told({'s3': KEYS}, 0o644) == []


@pytest.mark.parametrize('name', ['site_s3', 'SITE-S3', 'Site_S3', 'SITE_S3 '])
def test_a_section_that_is_nearly_that_of_the_rse(told, name):
    assert told({f's3:{name}': KEYS}) == [f'rucio.cfg [s3:{name}] is not used: the name of the RSE is SITE_S3.']


def test_sections_of_no_rse(rucio_cfg):
    rucio_cfg({'s3': {}, 's3:SITE_S3': {}, 's3:SITE_S4': {}, 's3x': {}})
    assert own_config.sections_of_no_rse(['SITE_S3', 'OTHER']) == ['s3:SITE_S4']


def test_a_client_without_a_configuration(monkeypatch, tmp_path):
    monkeypatch.setattr(own_config, '_warned', set())
    monkeypatch.setenv('RUCIO_CONFIG', str(tmp_path / 'none'))
    config.clean_cached_config()
    own_config.warn('SITE_S3', lambda *_: pytest.fail('nothing to tell'))
    assert own_config.sections_of_no_rse([]) == []


@pytest.mark.parametrize(('mode', 'told'), [(0o644, 1), (0o604, 1), (0o640, 0), (0o600, 0)])
def test_keys_of_the_server_that_everybody_can_read(home, monkeypatch, caplog, mode, told):
    """Told once, when they are used."""
    monkeypatch.setattr(own_config, '_warned', set())
    file = home / 'rucio' / 'etc' / 'rse-accounts.cfg'
    file.write_text(json.dumps({'abc': KEYS}))
    file.chmod(mode)
    for _ in range(2):
        assert credentials.choose(Endpoint(rse='X', rse_id='abc', url='http://127.0.0.1:9')).name == 'static'
    said = [record.message for record in caplog.records]
    assert said == [f'{file} has secret keys, and others can read it: chmod o= {file}'] * told
