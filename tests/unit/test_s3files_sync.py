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

import pytest

from rucio.client.s3files import Downloaded, Filter, Options, Uploaded, sync

SCOPE = 'user.alice'


class Catalogue:
    def __init__(self):
        self.removed = []

    def get_did(self, scope, name):
        return {'type': 'DATASET'}

    def list_dids(self, scope, filters, did_type):
        return iter(['run/a', 'run/sub/b', 'run/c.log', 'run/kept'])

    def remove_files(self, scope, names, rse):
        self.removed += names
        return {'kept': [{'name': 'run/kept', 'found': 'a rule keeps it'}] if 'run/kept' in names else []}


@pytest.fixture
def folder(tmp_path):
    for name in ('a', 'mine', 'sub/mine', 'c.log'):
        path = tmp_path / 'data' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'')
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside' / 'precious').write_bytes(b'')
    (tmp_path / 'data' / 'link').symlink_to(tmp_path / 'outside')
    return tmp_path / 'data'


@pytest.fixture
def down(folder, monkeypatch):
    """A download that is over: these paths are in the collection."""

    def sync_from(paths, failures=(), delete=True, **options):
        class Download:
            def __init__(self, *_):
                self.paths = set(paths)

            def run(self):
                return Downloaded(failures=list(failures))

        monkeypatch.setattr(sync, 'Download', Download)
        return sync.sync_from(Catalogue(), None, SCOPE, 'run', str(folder), None, Options(**options), delete)

    return sync_from


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def test_local_files_that_the_collection_does_not_have_are_deleted(down, folder):
    synced = down(['a'], chosen=Filter(exclude=['*.log']))

    assert synced.deleted == [str(folder / name) for name in ('mine', 'sub/mine')]
    assert files(folder) == ['a', 'c.log']
    assert not (folder / 'sub').exists()
    assert (folder.parent / 'outside' / 'precious').exists()


@pytest.mark.parametrize(
    ('paths', 'options'), [(['a'], {'failures': [('user.alice:run/x', 'failed')]}), (['a'], {'dry_run': True}), (['a'], {'delete': False}), ([], {})]
)
def test_when_nothing_is_deleted(down, folder, paths, options):
    before = files(folder)
    synced = down(paths, **options)
    assert files(folder) == before
    assert bool(synced.failures) == (not paths)
    assert len(synced.deleted) == (3 if 'dry_run' in options else 0)


@pytest.mark.parametrize(('failures', 'dry_run'), [([], False), ([], True), ([('x', 'failed')], False)])
def test_registered_files_that_the_directory_does_not_have_are_deleted(folder, monkeypatch, failures, dry_run):
    monkeypatch.setattr(sync.Upload, 'run', lambda _: Uploaded(failures=failures))
    monkeypatch.setattr(sync.Upload, '__init__', lambda self, *_: setattr(self, 'files', self))
    monkeypatch.setattr(sync.Upload, 'paths', lambda _: iter(['a']), raising=False)
    catalogue = Catalogue()

    synced = sync.sync_to(catalogue, catalogue, str(folder), SCOPE, 'run', 'X', Options(chosen=Filter(exclude=['*.log']), dry_run=dry_run), delete=True)

    assert catalogue.removed == ([] if dry_run or failures else ['run/kept', 'run/sub/b'])
    kept = [('user.alice:run/kept', 'a rule keeps it')] if catalogue.removed else []
    assert synced.failures == kept
    assert synced.deleted == ([] if failures else [f'{SCOPE}:{name}' for name in ('run/kept', 'run/sub/b') if not kept or name != 'run/kept'])


def test_which_argument_is_a_did(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'odd:name').mkdir()
    assert [text for text in ('user.alice:run', 'run', './a:b', '/a:b', 'odd:name') if sync.is_did(text)] == ['user.alice:run']
