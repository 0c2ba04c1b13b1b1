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

"""The documentation: links, recordings, the list of pages. `make docs` builds all of it, strictly."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from rucio_s3_seams import SEAMS
from servers.rest import Answer, conform

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md'), *ROOT.glob('etc/**/*.md'), *ROOT.glob('examples/**/*.md')])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
REST = ROOT.joinpath('docs', 'rest-api.md').read_text()
FENCED = re.compile(r'^```.*?^```', re.MULTILINE | re.DOTALL)
LINK = re.compile(r'(?<!`)\[[^\]]*\]\(([^)\s]+)\)')
# what messages, comments and tests call a page
NAMED = re.compile(r'(?<![\w/\'])docs/[\w/-]+\.md\b')


def script(name):
    """A script of dev/, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / 'dev' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page):
    """What a link can name in a page: the headings, as the hosting sites spell them."""
    found = set()
    for heading in re.findall(r'^#+ (.*)$', FENCED.sub('', page.read_text()), re.MULTILINE):
        text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading)
        found.add(re.sub(r'[^\w\- ]', '', text.lower()).strip().replace(' ', '-'))
    return found


@pytest.mark.parametrize('page', PAGES, ids=IDS)
def test_each_link_leads_somewhere(page):
    broken = []
    for link in LINK.findall(FENCED.sub('', page.read_text())):
        target, _, anchor = link.partition('#')
        if ':' in target:  # another site
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert broken == []


def test_code_names_pages_that_are_there():
    missing = {}
    for tree in ('lib', 'tests', 'etc', 'dev', 'demo', 'examples'):
        for file in ROOT.joinpath(tree).rglob('*'):
            if file.suffix in ('.py', '.toml', '.cfg', '.yaml', '.md') and 'egg-info' not in str(file):
                lost = {name for name in NAMED.findall(file.read_text()) if not (ROOT / name).exists()}
                missing.update({str(file.relative_to(ROOT)): lost} if lost else {})
    assert missing == {}


@pytest.mark.parametrize('page', script('reference').pages(), ids=lambda page: page.name)
def test_the_tables_of_the_reference_are_up_to_date(page):
    assert page.read_text() == script('reference').filled(page), 'write them anew: make reference'


EXAMPLES = re.findall(r'^    ([A-Z]+) (/s3/\S+)\n(?:(?!^    [A-Z]+ /s3).)*?^    (20\d) ([\[{].*?)\n(?=\n|$)', REST, re.MULTILINE | re.DOTALL)


def test_each_call_has_an_example():
    assert {(method, path.partition('?')[0]) for method, path, *_ in EXAMPLES} == set(re.findall(r'^    ([A-Z]+) (/s3/[^\s?]+)', REST, re.MULTILINE))


@pytest.mark.parametrize(('method', 'path', 'status', 'content'), EXAMPLES, ids=[f'{method} {path.partition("?")[0]}' for method, path, *_ in EXAMPLES])
def test_the_examples_are_what_the_contract_says(method, path, status, content):
    whole = content.replace(', ...', '').replace('[...]', '[]')  # they are cut short
    conform(method, path.removeprefix('/s3'), Answer(int(status), json.loads(whole), {}))


def test_readme_is_short():
    assert len(ROOT.joinpath('README.md').read_text().splitlines()) <= 150


def test_each_page_is_in_the_list():
    """Sphinx says so, too; here it costs nothing."""
    listed = {name for page in ROOT.glob('docs/*.md') for name in re.findall(r'^[a-z][\w/-]*$', page.read_text(), re.MULTILINE)}
    pages = {str(page.relative_to(ROOT / 'docs'))[:-3] for page in PAGES if ROOT / 'docs' in page.parents}
    assert {page for page in pages - {'index'} if not page.startswith('decisions/0')} - listed == set()


def test_links_of_pages_that_show_other_files_are_right_in_the_site():
    pages = script('pages')
    for page, file in pages.SHOWN.items():
        for link in LINK.findall(FENCED.sub('', pages.source(page, ''))):
            target = link.partition('#')[0]
            linked = (ROOT / 'docs' / target).resolve()
            assert ':' in target or not target or linked.exists(), (file, link)
            assert linked.suffix != '.md' or ROOT / 'docs' in linked.parents, f'{link} in {file} is no page of the site: name it in dev/pages.py'


@pytest.mark.parametrize(
    ('before', 'after', 'same'),
    [
        ('5 files uploaded (6.100 kB, 2.159 kB/s), 2.8 s.', '5 files uploaded (6.100 kB, 31.0 kB/s), 0.4 s.', True),
        ('5 files uploaded (6.100 kB, 2.159 kB/s), 2.8 s.', '4 files uploaded (6.100 kB, 2.159 kB/s), 2.8 s.', False),
        ('2026-11-28 12:09:38        100 a.root', '2027-01-02 02:09:08        100 a.root', True),
        ('2026-11-28 12:09:38        100 a.root', '2027-01-02 02:09:08        101 a.root', False),
        ('| carol | 2026-11-23T03:00:54Z |', '| carol | 2027-11-23T03:00:54Z |', True),
    ],
)
def test_recordings_change_only_where_something_else_is_printed(before, after, same):
    record = script('record')
    assert (record.settled([before]) == record.settled([after])) is same


def test_recordings_are_read_as_they_are_written():
    record = script('record')
    block = '    $ rucio s3 ls\n    one\n\n    bob$ rucio s3 ls x    # refused\n    ERROR no\n'
    assert list(record.sessions(block)) == [('', 'rucio s3 ls', ['    one', '']), ('bob', 'rucio s3 ls x    # refused', ['    ERROR no'])]


def test_each_recording_has_an_end():
    record = script('record')
    for page in PAGES:
        text = page.read_text()
        begun = sum(text.count(f'\n<!-- {kind}: ') for kind in ('recorded', 'tried', 'file'))
        assert begun == len(record._BLOCK.findall(text)), page


def test_each_seam_has_a_patch_and_each_patch_a_seam():
    added = 'rucio.core.transfer.TRANSFERTOOL_CLASSES_BY_NAME'  # not replaced, but gets an entry more
    assert set(script('upstream').named()) == {seam.name for seam in SEAMS} | {added}


def test_each_patch_is_described():
    text = ROOT.joinpath('docs', 'upstream.md').read_text()
    assert [path.name for path in ROOT.glob('docs/upstream/*.patch') if path.name not in text] == []


def test_the_map_names_what_is_there_and_nothing_else():
    design = ROOT.joinpath('docs', 'design.md').read_text()
    named = set(re.findall(r'\b[\w/-]+\.(?:py|toml|cfg|pth)\b', design)) - {'rucio.cfg'}
    there = {path.name for path in ROOT.joinpath('lib').rglob('*') if path.is_file()}
    assert {name for name in named if name.rpartition('/')[2] not in there} == set()
    for tree in ('common', 'core'):
        rooms = {path.name for path in ROOT.joinpath('lib', 'rucio', tree, 's3').rglob('*.py') if path.name != '__init__.py'}
        assert {room for room in rooms if room not in design} == set()


def test_change_notes_have_names_that_the_changelog_takes():
    notes = [path.name for path in ROOT.joinpath('changes').iterdir() if path.name != 'README.md']
    assert [name for name in notes if not re.fullmatch(r'\+[a-z0-9-]+\.(security|added|changed|removed|fixed)\.md', name)] == []


def test_the_tour_leads_to_rooms_and_tests_that_are_there():
    named = re.findall(r'`([\w/]+\.(?:py|toml))`', ROOT.joinpath('CONTRIBUTING.md').read_text())
    trees = (ROOT, ROOT / 'lib', ROOT / 'lib' / 'rucio', ROOT / 'tests', ROOT / 'lib' / 'rucio' / 'common' / 's3', ROOT / 'lib/rucio/core/s3/reconciler')
    assert [name for name in named if not any((tree / name).exists() for tree in trees)] == []
    functions = re.findall(r'`([\w/]+\.py)`: `(\w+)`', ROOT.joinpath('CONTRIBUTING.md').read_text())
    files = {(name, function): next(tree / name for tree in trees if (tree / name).exists()) for name, function in functions}
    assert [each for each, file in files.items() if f'def {each[1]}(' not in file.read_text()] == []
