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

"""The RSE definitions in etc/rse_configs, through the stock ``rucio-admin data import``."""

import json
from pathlib import Path

import pytest

from servers.cli import RucioCli

CONFIGS = sorted(Path(__file__).resolve().parents[2].joinpath('etc', 'rse_configs').glob('*.json'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_import_makes_the_rse_that_the_file_describes(root: RucioCli, unique: str, path: Path) -> None:
    ((rse, definition),) = json.loads(path.read_text())['rses'].items()
    attributes = {rse: True, 'lfn2pfn_algorithm': definition['lfn2pfn_algorithm'], **definition.pop('attributes')}
    bystander = f'{unique}_BYSTANDER'.upper()
    root.call('add_rse', bystander)

    for _ in range(2):  # the second import finds the RSE there
        root.admin('data', 'import', str(path))

        found, found_attributes = root.calls(('get_rse', rse), ('list_rse_attributes', rse))
        assert {key: found[key] for key in definition} == definition
        assert found_attributes == attributes
    assert root.call('get_rse', bystander)['availability_write']
