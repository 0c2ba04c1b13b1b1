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
"""`make bench` still works: each kind of contestant moves some files, and the report has all of it. No figure is looked at."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_smoke(tmp_path):
    page, figures = tmp_path / 'performance.md', tmp_path / 'bench.json'
    page.write_text('before\n<!-- bench -->\nold\n<!-- end -->\nafter\n')
    command = [sys.executable, str(ROOT / 'bench' / 'bench.py'), '--smoke', '--json', str(figures), '--write', str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={'PATH': os.environ['PATH'], 'HOME': str(tmp_path)})
    assert done.returncode == 0, done.stderr
    results = json.loads(figures.read_text())['results']
    assert {each['verb'] for each in results} == {'idle', 'up', 'up again', 'down', 'down again', 'delete'}
    assert {each['contestant'] for each in results} >= {'rucio-s3:static', 'rucio-s3:signed', 'rucio:vended', 'class', 's5cmd:serve-signed', 'boto3'}
    timed = [each for each in results if each['costs']]
    assert all(cost['cpu'] > 0 and cost['memory'] > 1 for each in timed for cost in each['costs'])
    counted = {(each['contestant'], each['verb']): each['requests'] for each in results if each['requests']}
    assert counted['class', 'up']['storage'] == {'PutObject': 12}
    assert counted['rucio-s3:static', 'up']['Rucio']
    text = page.read_text()
    assert text.startswith('before\n<!-- bench -->\n')
    assert 'old' not in text
    assert '| rucio-s3:static | 12 |' in text
    assert ET.fromstring(page.with_suffix('.svg').read_text()).tag.endswith('svg')
