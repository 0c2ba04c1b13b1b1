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
from typing import Any

import pytest

from servers.cli import RucioCli

CONFIGS = sorted(Path(__file__).resolve().parents[2].joinpath('etc', 'rse_configs').glob('*.json'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_import_makes_the_rses_that_the_file_describes(root: RucioCli, unique: str, path: Path) -> None:
    content = json.loads(path.read_text())
    bystander = f'{unique}_BYSTANDER'.upper()
    root.call('add_rse', bystander)

    for _ in range(2):  # the second import finds the RSEs there
        root.admin('data', 'import', str(path))

        for rse, definition in content['rses'].items():
            found, found_attributes = root.calls(('get_rse', rse), ('list_rse_attributes', rse))
            properties = {key: value for key, value in definition.items() if key not in ('attributes', 'protocols')}
            assert {key: found[key] for key in properties} == properties
            assert [offered(each) for each in found['protocols']] == sorted(map(offered, definition['protocols']), key=lambda each: each['scheme'])
            assert found_attributes == {rse: True, 'lfn2pfn_algorithm': definition['lfn2pfn_algorithm'], **definition['attributes']}
        for source, others in content.get('distances', {}).items():
            for destination, described in others.items():
                ((distance),) = root.call('get_distance', source, destination)
                assert distance['distance'] == described['distance']
    assert root.call('get_rse', bystander)['availability_write']


def offered(protocol: dict[str, Any]) -> dict[str, Any]:
    """A protocol entry, without what Rucio adds to it: null (0 up to Rucio 38) for what is not offered."""
    found = {key: value for key, value in protocol.items() if value is not None}
    domains = {domain: {name: priority for name, priority in operations.items() if priority} for domain, operations in found.pop('domains').items()}
    return {**found, 'domains': {domain: operations for domain, operations in domains.items() if operations}}
