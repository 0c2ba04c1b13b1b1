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

import zlib

import pytest

from rucio.client.s3files import Download, Filter, Options, selection
from rucio.client.s3files.content import stream
from rucio.client.s3files.paths import Folder, base_of, relative
from rucio.client.s3files.tally import Refused, Tally
from rucio.common.exception import (
    DataIdentifierNotFound,
    FileConsistencyMismatch,
    RSEOperationNotSupported,
    ServerConnectionException,
    UnsupportedOperation,
)
from rucio.rse.protocols.s3 import Default
from servers.fake_s3 import error

BUCKET = SCOPE = 'user.alice'
PARTIAL = '.rucio-s3-0123456789abcdef'


class Catalogue:
    """What a download asks of Rucio's client: datasets of files, whose replicas are on the RSEs of `rses`."""

    vo, account, auth_token = 'def', 'alice', None

    def __init__(self, rses):
        self.rses = rses
        self.files = {}  # name -> what the catalogue says
        self.datasets = {}
        self.places = {}  # name -> RSEs
        self.refuse = None
        self.calls = []
        self.told_at = ''  # the URL of an RSE in lists of replicas; empty: its own; None: none is among those that were asked for
        self.sorted = []  # of each list of replicas: how, and the names

    def get_rse(self, rse):
        return self.rses[rse]

    def get_did(self, scope, name):
        if name in self.datasets:
            return {'type': 'DATASET'}
        if name in self.files:
            return {'type': 'FILE'}
        raise DataIdentifierNotFound(f"Data identifier '{scope}:{name}' not found")

    def list_dids(self, scope, filters, did_type, long):
        prefix = filters[0]['name'].removesuffix('*')
        files = [{'name': name, 'did_type': 'FILE'} for name in self.files if name.startswith(prefix)]
        return iter(files + [{'name': name, 'did_type': 'DATASET'} for name in self.datasets if name.startswith(prefix) and did_type == 'all'])

    def list_files(self, scope, name):
        self.calls.append('files')
        return iter([{'scope': scope, 'name': each, **self.files[each]} for each in self.datasets.get(name, [name])])

    def get_metadata_bulk(self, dids, plugin):
        return iter([{'name': did['name'], **self.files[did['name']]} for did in dids])

    def list_replicas(self, dids, sort=None, **_):
        self.calls.append('replicas')
        self.sorted.append((sort, [did['name'] for did in dids]))
        if self.refuse:
            raise self.refuse
        for number, did in enumerate(dids):
            rses = self.places[did['name']] if self.told_at is not None else ()
            places = {f'{self.told_at or self.url_of(rse)}/{BUCKET}/{did["name"]}': {'rse': rse, 'priority': number} for number, rse in enumerate(rses)}
            yield {'scope': SCOPE, 'name': did['name'], **self.files[did['name']], 'pfns': places}

    def look_up_files(self, scope, names):
        """As a server with the plugin."""
        self.calls.append('look up')
        return [{'name': name, **self.files[name], 'rses': list(self.places[name])} for name in names if name in self.files]

    def url_of(self, rse):
        return '{scheme}://{hostname}:{port}'.format(**self.rses[rse]['protocols'][0])


@pytest.fixture
def catalogue(rse, s3, rucio_cfg):
    rucio_cfg({f's3:{name}': {'access_key': 'AKIDOFTHETESTS', 'secret_key': 'secret', 'max_attempts': '1'} for name in ('X', 'DEAD')})
    return Catalogue({'X': rse(url=s3.url), 'DEAD': rse(url='http://127.0.0.1:9', rse='DEAD')})


@pytest.fixture
def add(catalogue, s3):
    """A file in the bucket, and in the catalogue."""

    def put(name, content=b'content', dataset='run', rses=('X',), **changes):
        s3.store(BUCKET, name, content)
        catalogue.files[name] = {'bytes': len(content), 'adler32': f'{zlib.adler32(content):08x}', 'md5': None} | changes
        catalogue.datasets.setdefault(dataset, []).append(name)
        catalogue.places[name] = rses

    return put


@pytest.fixture
def run(catalogue, tmp_path):
    def download(*names, server=None, **options):
        dids = [(SCOPE, name) for name in names or ('run',)]
        return Download(catalogue, dids, str(tmp_path / 'to'), options=Options(**options), server=server).run()

    return download


def there(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize(
    ('name', 'is_file', 'alone', 'base'),
    [
        ('run', False, True, 'run'),
        ('a/run', False, True, 'a/run'),
        ('run', False, False, ''),
        ('a/run', False, False, 'a'),
        ('run/x', True, True, 'run'),
        ('x', True, True, ''),
        ('run*', False, True, ''),
        ('a/b*', False, True, 'a'),
        ('a/b*/c', False, False, 'a'),
        ('a/*', False, True, 'a'),
    ],
)
def test_the_folder_that_paths_are_relative_to(name, is_file, alone, base):
    assert base_of(name, is_file, alone) == base


@pytest.mark.parametrize(
    ('name', 'base', 'collection', 'path'),
    [
        ('run/sub/x', 'run', 'run', 'sub/x'),
        ('run/x', '', 'run', 'run/x'),
        ('a/run/x', 'a', 'a/run', 'run/x'),
        ('other', 'run', 'run', 'other'),
        ('other', '', 'run', 'run/other'),
        ('runner/x', 'run', 'run', 'runner/x'),
        ('runner/x', '', 'run', 'run/runner/x'),
        ('/belle/run/x', '/belle/run', '/belle/run', 'x'),
        ('/belle/run/x', '', '/belle/run', 'belle/run/x'),
        ('x', '', '', 'x'),
    ],
)
def test_the_path_of_a_file(name, base, collection, path):
    assert relative(name, base, collection) == path


@pytest.mark.parametrize(
    'name', ['run/../x', 'run/..', '../x', 'run//etc/passwd', '//etc/passwd', 'run/./x', 'run/x/', 'run/', 'run/a\0b', f'run/{PARTIAL}', f'run/sub/{PARTIAL}']
)
def test_a_name_that_leaves_the_directory_is_refused(name):
    with pytest.raises(Refused):
        relative(name, 'run', 'run')
    with pytest.raises(Refused):
        relative(name, '', 'run')


def test_links_in_the_directory_are_not_followed(tmp_path):
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside' / 'victim').write_bytes(b'')
    (tmp_path / 'to').mkdir()
    (tmp_path / 'to' / 'link').symlink_to(tmp_path / 'outside')
    (tmp_path / 'to' / 'file').write_bytes(b'')
    folder = Folder(str(tmp_path / 'to'))

    for path, told in (('link/victim', 'is a link'), ('link/new', 'is a link'), ('link/a/b', 'is a link'), ('file/x', 'is a file')):
        for ask in (folder.find, folder.make):
            with pytest.raises(Refused, match=told):
                ask(path)
    assert folder.find('missing/x') is None
    assert not (tmp_path / 'to' / 'missing').exists()
    assert folder.make('missing/x') == str(tmp_path / 'to' / 'missing' / 'x')
    assert sorted(path.name for path in (tmp_path / 'outside').iterdir()) == ['victim']


def test_hostile_names_stay_in_the_directory_and_the_others_come(run, add, tmp_path):
    for name in ('run/../../escaped', '../escaped', 'run/good'):
        add(name)

    outcome = run()

    assert {path: content for path, content in there(tmp_path).items() if not path.startswith('home')} == {'to/good': b'content'}
    assert [did for did, _ in outcome.failures] == [f'{SCOPE}:run/../../escaped', f'{SCOPE}:../escaped']
    assert outcome.received == 1


def test_a_link_in_place_of_a_file_is_replaced_and_its_file_stays(run, add, tmp_path):
    add('run/x')
    (tmp_path / 'victim').write_bytes(b'precious')
    (tmp_path / 'to').mkdir()
    (tmp_path / 'to' / 'x').symlink_to(tmp_path / 'victim')

    assert run().received == 1
    assert (tmp_path / 'victim').read_bytes() == b'precious'
    assert not (tmp_path / 'to' / 'x').is_symlink()


def test_only_what_is_missing_or_differs_comes(run, add, catalogue, s3, tmp_path):
    for name in ('same', 'changed', 'longer', 'missing'):
        add(f'run/{name}')
    (tmp_path / 'to').mkdir()
    for name, content in (('same', b'content'), ('changed', b'CONTENT'), ('longer', b'content and more'), ('mine', b'x')):
        (tmp_path / 'to' / name).write_bytes(content)

    outcome = run()

    assert (outcome.received, outcome.received_bytes, outcome.there, outcome.failures) == (3, 21, 1, [])
    assert there(tmp_path / 'to') == dict.fromkeys(('same', 'changed', 'longer', 'missing'), b'content') | {'mine': b'x'}
    assert catalogue.calls == ['files', 'replicas']
    assert s3.operations() == ['GetObject'] * 3
    assert run().there == 4
    assert catalogue.calls[2:] == ['files']


def test_a_dry_run_changes_nothing_and_says_what_would_come(run, add, tmp_path):
    add('run/x')
    add('run/left/out')
    add('run/nowhere', rses=())

    outcome = run(dry_run=True, chosen=Filter(exclude=['left/']))

    assert outcome.planned == [(f'{SCOPE}:run/x', str(tmp_path / 'to' / 'x'))]
    assert outcome.failures == [(f'{SCOPE}:run/nowhere', 'has no available replica')]
    assert not (tmp_path / 'to').exists()


def test_what_the_catalogue_has_of_a_file(run, add):
    """The MD5 of files without an Adler-32 is only known with the replicas; without both a file comes again."""
    add('run/md5', adler32=None, md5='9a0364b9e99bb480dd25e1f0284c8555')
    add('run/none', adler32=None)

    assert (run().received, run().there) == (2, 1)


def test_an_object_that_is_not_as_registered_does_not_come(run, add, s3, tmp_path):
    for name in ('content', 'size'):
        add(f'run/{name}')
    s3.store(BUCKET, 'run/content', b'CONTENT')
    s3.store(BUCKET, 'run/size', b'content and more')

    outcome = run()

    assert sorted(did for did, reason in outcome.failures if 'but the catalogue says' in reason) == [f'{SCOPE}:run/content', f'{SCOPE}:run/size']
    assert there(tmp_path / 'to') == {}


def test_a_storage_that_does_not_answer_is_tried_last(run, add, monkeypatch):
    asked, locate = [], Default.locate
    monkeypatch.setattr(Default, 'locate', lambda self, *arguments: asked.append(self.rse['rse']) or locate(self, *arguments))
    for number in range(5):
        add(f'run/{number}', rses=('DEAD', 'X'))

    assert run(jobs=1).received == 5
    assert asked == ['DEAD'] + ['X'] * 5


def test_only_replicas_that_are_several_are_sorted(catalogue, add, run):
    """Without a GeoIP database, that takes the Rucio server milliseconds for each."""
    add('run/one', b'1')
    add('run/two', b'2', rses=('X', 'DEAD'))
    assert run().received == 2
    assert catalogue.sorted == [('random', ['run/one', 'run/two']), (None, ['run/two'])]


def test_a_server_with_the_plugin_tells_where_files_are(catalogue, add, run, monkeypatch):
    """Stock Rucio is asked for one file of each RSE, and for those with several replicas."""
    monkeypatch.setattr(selection, 'CHUNK', 4)
    for number in range(8):
        add(f'run/{number}', rses=('X', 'DEAD') if number == 5 else ('X',))

    assert (run(server=catalogue).received, catalogue.calls.count('look up')) == (8, 2)
    assert [(how, len(names)) for how, names in catalogue.sorted if names] == [('random', 1), ('random', 1), (None, 1)]
    assert ['run/5'] in [names for _, names in catalogue.sorted]


@pytest.mark.parametrize(('elsewhere', 'told'), [('http://proxy.example.org', 'belongs to another storage'), (None, 'has no available replica')])
def test_where_rucio_gives_another_pfn_it_is_asked_for_all(catalogue, add, run, elsewhere, told):
    """By a proxy for clients of this place, for instance; or none, as the RSE is not among those of an RSE expression."""
    for number in range(3):
        add(f'run/{number}')
    catalogue.told_at = elsewhere

    outcome = run(server=catalogue)

    assert [len(names) for _, names in catalogue.sorted if names] == [1, 2]
    assert {told in reason for _, reason in outcome.failures} == {True}


def test_a_server_without_the_plugin_is_asked_as_before(catalogue, add, run, monkeypatch):
    add('run/a')

    def refuse(*_):
        raise RSEOperationNotSupported

    monkeypatch.setattr(catalogue, 'look_up_files', refuse)
    assert (run(server=catalogue).received, catalogue.calls) == (1, ['files', 'replicas'])


def test_files_without_a_replica_and_dids_that_are_not_there_are_told(run, add):
    add('run/x')
    add('run/nowhere', rses=())

    outcome = run('run/x', 'missing', 'missing/*', 'run/nowhere')

    assert outcome.received == 1
    assert dict(outcome.failures) == {
        f'{SCOPE}:missing': 'does not exist: there is no DID of this name, and no file below it. If it is in the bucket, register it (rucio s3 reconcile).',
        f'{SCOPE}:missing/*': 'matches nothing.',
        f'{SCOPE}:run/nowhere': 'has no available replica',
    }


def test_files_of_one_path_are_told(run, add):
    add('run/x', b'first')
    add('x', b'second')

    outcome = run()

    assert outcome.received == 1
    assert [did for did, reason in outcome.failures if 'has the same local path as user.alice:run/x' in reason] == [f'{SCOPE}:x']


def test_a_server_that_fails_does_not_end_it(run, add, catalogue):
    for number in range(3):
        add(f'run/{number}')
    catalogue.refuse = ServerConnectionException('it does not answer.')

    assert [reason for _, reason in run().failures] == ['is not downloaded: it does not answer.'] * 3


def test_a_storage_that_refuses_everything_is_not_asked_a_million_times(run, add, s3, monkeypatch):
    monkeypatch.setattr(Tally, 'hopeless', 5)
    for number in range(50):
        add(f'run/{number:02}')
    s3.fail('GetObject', *[error(403, 'AccessDenied')] * 50)

    failures = run(jobs=1).failures

    assert len(failures) == 6
    assert '5 files in a row' in failures[-1][1]


def read(catalogue, name):
    got = []
    stream(catalogue, SCOPE, name, got.append)
    return b''.join(got)


def test_the_content_comes_from_a_replica_that_works(add, catalogue):
    add('run/x', b'content', rses=('DEAD', 'X'))
    assert read(catalogue, 'run/x') == b'content'
    with pytest.raises(UnsupportedOperation, match='is a dataset'):
        read(catalogue, 'run')
    with pytest.raises(DataIdentifierNotFound):
        read(catalogue, 'missing')


@pytest.mark.parametrize('content', [b'CONTENT', b'content and more'])
def test_the_end_of_a_wrong_content_does_not_come(add, catalogue, s3, content):
    add('run/x', b'content')
    s3.store(BUCKET, 'run/x', content)
    with pytest.raises(FileConsistencyMismatch, match='but the catalogue says'):
        read(catalogue, 'run/x')
    large = b'x' * 3 * 1024**2
    add('run/large', large)
    s3.store(BUCKET, 'run/large', large[:-1] + b'y')
    got = []
    with pytest.raises(Refused, match='was not read completely'):
        stream(catalogue, SCOPE, 'run/large', got.append)
    assert 0 < sum(map(len, got)) < len(large)


def test_steps_add_up_also_after_a_failure(run, add, s3):
    steps = []
    for name in ('a', 'b'):
        add(f'run/{name}', b'x' * 1000)
    s3.store(BUCKET, 'run/a', b'y' * 1000)

    run(on_progress=steps.append)

    assert sum(steps) == 1000
