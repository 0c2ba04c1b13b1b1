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

"""docs/security.md and docs/licences.md against what they are about."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECURITY = (ROOT / 'docs' / 'security.md').read_text()
LICENCES = (ROOT / 'docs' / 'licences.md').read_text()


def script(name):
    """A script of dev/, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / 'dev' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_family_of_attacks_is_in_the_table_of_threats():
    families = {path.stem for path in ROOT.joinpath('tests', 'attacks').glob('test_*.py')}
    assert families - set(re.findall(r'\btest_\w+', SECURITY)) == set()


def test_each_family_of_the_table_is_there():
    named = set(re.findall(r'\btest_\w+', SECURITY))
    there = {path.stem for path in ROOT.joinpath('tests', 'attacks').glob('test_*.py')}
    assert named - there == set()


def test_each_dependency_is_in_the_list_of_licences():
    licences = script('licences')
    project = (ROOT / 'pyproject.toml').read_text()
    required = re.search(r'^dependencies = \[(.*?)^\]', project, re.DOTALL | re.MULTILINE)[1]
    assert sorted(re.findall(r'"([a-z0-9-]+)', required)) == sorted(licences.OWN)
    own = LICENCES.partition('## What Rucio brings')[0]
    missing = [name for name in (*licences.OWN, *licences.closure(licences.OWN)) if f'| {name} |' not in own]
    assert not missing, 'write it anew: make licences'


@pytest.mark.parametrize(
    ('packages', 'code', 'said'),
    [
        ([], 0, 'cannot be had'),
        ([{'name': 'a', 'skip_reason': 'not found on PyPI'}], 0, 'cannot be had here: none of 1 packages'),
        ([{'name': 'a', 'version': '1', 'vulns': []}], 0, '1 packages, 0 known'),
        ([{'name': 'a', 'version': '1', 'vulns': []}, {'name': 'b', 'skip_reason': 'x'}], 0, '1 packages, 1 could not be looked at, 0 known'),
        (
            [{'name': 'a', 'version': '1', 'vulns': [{'id': 'PYSEC-1', 'aliases': ['GHSA-1', 'CVE-1'], 'fix_versions': ['2']}]}],
            1,
            'CVE-1, fixed in 2: NOT JUDGED',
        ),
        ([{'name': 'urllib3', 'version': '1', 'vulns': [{'id': 'CVE-2025-66471'}]}], 0, 'fixed in nothing yet: urllib3: compressed'),
    ],
)
def test_audit_fails_for_what_nobody_has_judged_and_says_what_it_does_not_know(monkeypatch, capsys, packages, code, said):
    audit = script('audit')
    monkeypatch.setattr('sys.argv', ['audit', 'site-packages'])
    monkeypatch.setattr(audit, 'audited', lambda _: packages)
    assert audit.main() == code
    assert said in capsys.readouterr().out


def test_audit_without_pip_audit_says_so(monkeypatch, capsys):
    audit = script('audit')
    monkeypatch.setattr('sys.argv', ['audit', 'nowhere'])
    monkeypatch.setattr(audit.sys, 'executable', '/bin/false')
    assert audit.main() == 0
    assert 'cannot be had' in capsys.readouterr().out
