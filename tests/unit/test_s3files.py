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

"""A directory to an S3 RSE: what is sent, what is registered, what is refused, and what it costs. The catalogue is a dictionary."""

import hashlib
import os
import signal
import threading
import zlib

import pytest

from rucio.client.s3files import Filter, Options, Upload, directory, notes, pipeline
from rucio.client.s3files.destination import Destination, Listing
from rucio.client.s3files.directory import LocalFile, walk
from rucio.client.s3files.tally import Tally
from rucio.common.exception import (
    AccessDenied,
    DataIdentifierAlreadyExists,
    FileConsistencyMismatch,
    InputValidationError,
    RSEAccessDenied,
    RSEOperationNotSupported,
    RSEWriteBlocked,
    SourceNotFound,
    UnsupportedOperation,
)
from rucio.common.s3 import deadlines
from servers.fake_s3 import error

BUCKET = SCOPE = 'user.alice'


class Catalogue:
    """What Upload asks of Rucio's client, and what it changes."""

    vo, account, auth_token, host = 'def', 'alice', None, 'https://rucio.example.org'

    def __init__(self, rse):
        self.rse = rse
        self.dids = {}
        self.replicas = {}
        self.attached = []
        self.dataset = None
        self.rules = []
        self.calls = []
        self.refuse = None
        self.has_plugin = False

    def get_rse(self, rse):
        return {'availability_write': True} | self.rse

    def add_dataset(self, scope, name, rules):
        if self.dataset:
            raise DataIdentifierAlreadyExists
        self.rules = rules
        self.dataset = {'type': 'DATASET', 'open': True}

    def get_did(self, scope, name):
        return self.dataset

    def list_did_rules(self, scope, name):
        return iter(list(self.rules))

    def list_rses(self, expression):
        return iter([{'rse': 'X'}] if expression == 'tier=1' else [])

    def add_replication_rule(self, dids, **rule):
        self.rules.append(rule)

    def list_files(self, scope, name):
        self.calls.append('members')
        return iter([{'scope': SCOPE, 'name': each, **{key: self.dids[each][key] for key in ('bytes', 'adler32')}} for each in sorted(set(self.attached))])

    def get_metadata_bulk(self, dids, plugin):
        self.calls.append('look up')
        return iter([{'name': did['name'], 'did_type': 'FILE', **self.dids[did['name']]} for did in dids if did['name'] in self.dids])

    def list_replicas(self, dids, **_):
        self.calls.append('replicas')
        return iter([{'name': did['name'], 'states': {'X': self.replicas[did['name']]} if did['name'] in self.replicas else {}} for did in dids])

    def look_up_files(self, scope, names, rse):
        self.calls.append('files')
        if not self.has_plugin:
            raise RSEOperationNotSupported
        known = [(name, self.dids[name]) for name in names if name in self.dids]
        return [{'name': name, 'did_type': 'FILE', 'lost': False, **each, 'state': self.replicas.get(name)} for name, each in known]

    def register_files(self, scope, name, files, rse):
        self.calls.append('register')
        if self.refuse:
            raise self.refuse
        if not self.has_plugin:
            raise RSEOperationNotSupported
        known = [file['name'] for file in files if file['name'] in self.dids]
        new = [file for file in files if file['name'] not in known]
        self.dids |= {file['name']: {key: file[key] for key in ('bytes', 'adler32', 'md5')} for file in new}
        self.replicas |= {file['name']: 'AVAILABLE' for file in new}
        self.attached += [file['name'] for file in new]
        return known

    def add_replicas(self, rse, files):
        self.calls.append('add')
        if self.refuse:
            raise self.refuse
        for file in files:
            self.dids[file['name']] = {key: file[key] for key in ('bytes', 'adler32', 'md5')}
            self.replicas[file['name']] = {'A': 'AVAILABLE'}[file['state']]

    def update_replicas_states(self, rse, files):
        self.calls.append('update')
        for file in files:
            self.replicas[file['name']] = {'A': 'AVAILABLE'}[file['state']]

    def attach_dids_to_dids(self, attachments, ignore_duplicate):
        self.calls.append('attach')
        assert ignore_duplicate
        for did in attachments[0]['dids']:
            registered = self.dids[did['name']]
            if any(did[key] != registered[key] for key in ('bytes', 'adler32', 'md5') if key in did):
                raise FileConsistencyMismatch(f"adler32 mismatch for '{did['name']}'")
        self.attached += [did['name'] for did in attachments[0]['dids']]


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / 'data'
    made.mkdir()
    return made


@pytest.fixture
def catalogue(rse, s3, rucio_cfg):
    rucio_cfg({'s3:X': {'access_key': 'AKIDOFTHETESTS', 'secret_key': 'secret', 'max_attempts': '1'}})
    return Catalogue(rse(url=s3.url))


@pytest.fixture
def run(catalogue, folder):
    def upload(name='run', server=None, **options):
        return Upload(catalogue, [str(folder)], SCOPE, name, 'X', Options(**options), server).run()

    return upload


def fill(folder, **contents):
    for name, content in contents.items():
        path = folder / name.replace('__', '/')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def known(content, **changes):
    return {'bytes': len(content), 'adler32': f'{zlib.adler32(content):08x}', 'md5': hashlib.md5(content).hexdigest(), 'availability': 'AVAILABLE'} | changes


def reasons(summary):
    return {os.path.basename(path): reason for path, reason in summary.failures}


# The walk


def test_files_come_in_the_order_of_their_keys(folder):
    names = ['a.b', 'a/x', 'a/y/z', 'a0', 'A', 'b', 'é', '.x/y']
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()

    assert [name for _, name in walk(str(folder), pytest.fail)] == sorted(names, key=os.fsencode)


def test_what_is_no_file_is_told(folder):
    (folder / 'file').touch()
    (folder / 'link').symlink_to('file')
    (folder / 'circle').symlink_to('.')
    (folder / 'broken').symlink_to('nothing')
    os.mkfifo(folder / 'pipe')
    told = []

    assert [name for _, name in walk(str(folder), lambda path, reason: told.append((os.path.basename(path), reason)))] == ['file', 'link']
    assert told == [
        ('broken', 'is a broken link'),
        ('circle', 'is a link to a directory, which is not followed'),
        ('pipe', 'is not a regular file'),
    ]


def test_a_link_to_itself_is_told(folder):
    (folder / 'self').symlink_to('self')
    (folder / 'file').touch()
    told = []
    assert [name for _, name in walk(str(folder), lambda path, reason: told.append((os.path.basename(path), reason)))] == ['file']
    assert [name for name, _ in told] == ['self']
    assert 'a link that cannot be followed' in told[0][1]


def test_a_directory_that_cannot_be_read_is_a_failure(run, folder, monkeypatch):
    fill(folder, a=b'1', locked__b=b'2')
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith('locked'):
            raise PermissionError(13, 'Permission denied')
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    summary = run()

    assert summary.sent == 1
    assert reasons(summary) == {'locked': 'cannot be read: Permission denied'}


def test_the_listing_goes_along_with_the_chunks():
    listing = Listing(iter([('a', 1), ('b', 2), ('other', 9), ('z', 3)]))

    assert listing.sizes([LocalFile('', 'a', 1), LocalFile('', 'c', 1)]) == {'a': 1}
    assert listing.sizes([LocalFile('', 'd', 1), LocalFile('', 'z', 1)]) == {'z': 3}
    assert Listing(iter(())).sizes([LocalFile('', 'a', 1)]) == {}


# What is sent


def test_new_files_are_sent_and_registered_with_what_was_sent(run, folder, catalogue, s3):
    large = os.urandom(20 * 1024**2)
    fill(folder, a=b'content', sub__empty=b'', large=large)

    summary = run()

    assert (summary.sent, summary.sent_bytes, summary.failures) == (3, 7 + len(large), [])
    assert s3.content(BUCKET, 'run/large') == large
    assert catalogue.dids['run/a'] == {'bytes': 7, 'adler32': f'{zlib.adler32(b"content"):08x}', 'md5': hashlib.md5(b'content').hexdigest()}
    assert catalogue.dids['run/large'] == {key: value for key, value in known(large).items() if key != 'availability'}
    assert sorted(catalogue.attached) == ['run/a', 'run/large', 'run/sub/empty']
    assert catalogue.rules == [{'account': 'alice', 'copies': 1, 'rse_expression': 'X', 'grouping': 'DATASET', 'lifetime': None}]
    assert summary.made == ['dataset user.alice:run', 'its rule on X']


def test_what_it_costs(run, folder, catalogue, s3, monkeypatch):
    monkeypatch.setattr(directory, 'CHUNK', 10)
    fill(folder, **{f'f{number:02}': b'x' for number in range(30)})

    run()
    assert sorted(s3.operations()) == ['ListObjectsV2'] + 30 * ['PutObject']
    assert sorted(catalogue.calls) == 3 * ['add'] + 3 * ['attach'] + 3 * ['look up']

    s3.requests.clear()
    catalogue.calls.clear()
    assert run().there == 30
    assert s3.operations() == ['ListObjectsV2']
    assert sorted(catalogue.calls) == 3 * ['attach'] + 3 * ['look up'] + 3 * ['replicas']


def test_an_object_of_the_same_content_is_registered(run, folder, catalogue, s3):
    fill(folder, a=b'mine', b=b'mine')
    s3.store(BUCKET, 'run/a', b'mine')
    s3.store(BUCKET, 'run/b', b'mine', etag='0123-2', crc32='')  # in parts by another client: only its content tells

    summary = run()

    assert (summary.sent, summary.found) == (0, 2)
    assert sorted(catalogue.attached) == ['run/a', 'run/b']


def test_an_object_of_another_content_stays(run, folder, catalogue, s3):
    fill(folder, a=b'mine', b=b'mine')
    s3.store(BUCKET, 'run/a', b'hers')
    s3.store(BUCKET, 'run/b', b'longer')

    summary = run()

    assert set(reasons(summary)) == {'a', 'b'}
    assert 'different content' in reasons(summary)['a']
    assert (s3.content(BUCKET, 'run/a'), s3.content(BUCKET, 'run/b')) == (b'hers', b'longer')
    assert catalogue.dids == {}


def test_one_that_comes_after_the_listing_stays_too(run, folder, catalogue, s3, monkeypatch):
    fill(folder, a=b'mine', b=b'mine')
    monkeypatch.setattr(Destination, 'listing', lambda *_: iter(()))
    s3.store(BUCKET, 'run/a', b'hers')
    s3.store(BUCKET, 'run/b', b'mine')

    summary = run()

    assert (set(reasons(summary)), summary.found) == ({'a'}, 1)
    assert s3.content(BUCKET, 'run/a') == b'hers'


def test_a_lost_object_is_sent_again(run, folder, catalogue, s3):
    fill(folder, a=b'mine')
    catalogue.dids['run/a'] = known(b'mine')
    catalogue.replicas['run/a'] = 'AVAILABLE'

    assert run().sent == 1
    assert s3.content(BUCKET, 'run/a') == b'mine'
    assert 'add' not in catalogue.calls


def test_an_upload_of_the_stock_command_that_was_killed_is_finished(run, folder, catalogue, s3):
    fill(folder, a=b'mine', b=b'mine')
    for name in ('run/a', 'run/b'):
        catalogue.dids[name] = known(b'mine')
        catalogue.replicas[name] = 'COPYING'
    s3.store(BUCKET, 'run/a', b'mine')

    summary = run()

    assert (summary.found, summary.sent) == (1, 1)
    assert catalogue.replicas == {'run/a': 'AVAILABLE', 'run/b': 'AVAILABLE'}


@pytest.mark.parametrize(
    ('did', 'state', 'told'),
    [
        (known(b'hers'), 'AVAILABLE', 'differs from'),
        (known(b'longer'), 'AVAILABLE', 'is registered with 6'),
        (known(b'mine', md5=None, adler32='12345678'), 'AVAILABLE', 'differs from'),
        (known(b'mine', did_type='DATASET', bytes=None, md5=None, adler32=None), None, 'registered as a dataset'),
        (known(b'mine', availability='LOST'), None, 'declared lost'),
        (known(b'mine'), 'BEING_DELETED', 'is BEING_DELETED'),
        (known(b'mine'), 'BAD', 'is BAD'),
    ],
)
def test_what_cannot_be_is_told_and_the_others_go(run, folder, catalogue, s3, did, state, told):
    fill(folder, a=b'mine', b=b'new')
    catalogue.dids['run/a'] = did
    if state:
        catalogue.replicas['run/a'] = state

    summary = run()

    assert told in reasons(summary)['a']
    assert list(reasons(summary)) == ['a']
    assert (summary.sent, catalogue.attached) == (1, ['run/b'])


@pytest.mark.parametrize('changes', [{}, {'md5': None}, {'md5': None, 'adler32': None}, {'md5': None, 'adler32': f'{zlib.adler32(b"mine"):x}'}])
def test_the_same_file_is_known_by_what_rucio_has_of_it(run, folder, catalogue, s3, changes):
    content = b'mine'
    fill(folder, a=content)
    catalogue.dids['run/a'] = known(content, **changes)
    catalogue.replicas['run/a'] = 'AVAILABLE'
    s3.store(BUCKET, 'run/a', content)

    assert run().there == 1


@pytest.mark.parametrize('changes', [{'adler32': None}, {'md5': None, 'adler32': None}])
def test_what_the_server_found_in_the_bucket_before_we_told_it(run, folder, catalogue, changes):
    """By an event, or as a reconciler came along: with the MD5 that the listing has, or without."""
    fill(folder, a=b'mine', b=b'ours')
    add_replicas = catalogue.add_replicas

    def too_late(rse, files):
        add_replicas(rse, files)
        catalogue.dids['run/a'] |= changes

    catalogue.add_replicas = too_late
    summary = run()
    assert (summary.failures, summary.sent, catalogue.attached) == ([], 2, ['run/a', 'run/b'])


def test_what_somebody_else_registered_before_us_is_told(run, folder, catalogue):
    fill(folder, a=b'mine', b=b'ours')
    add_replicas = catalogue.add_replicas

    def too_late(rse, files):
        add_replicas(rse, files)
        catalogue.dids['run/a'] = known(b'your')

    catalogue.add_replicas = too_late
    summary = run()
    assert 'different checksum' in reasons(summary)['a']
    assert (list(reasons(summary)), catalogue.attached) == (['a'], ['run/b'])


def test_an_object_that_is_not_as_registered_is_told(run, folder, catalogue, s3):
    fill(folder, a=b'mine')
    catalogue.dids['run/a'] = known(b'mine')
    catalogue.replicas['run/a'] = 'AVAILABLE'
    s3.store(BUCKET, 'run/a', b'short'[:3])

    assert 'its object has 3' in reasons(run())['a']
    assert s3.content(BUCKET, 'run/a') == b'sho'


# Failures


def test_what_the_server_refuses_is_told_for_each_file(run, folder, catalogue):
    fill(folder, a=b'1', b=b'2')
    catalogue.refuse = UnsupportedOperation('no such thing')

    summary = run()

    assert set(reasons(summary)) == {'a', 'b'}
    assert 'is on the storage, but the Rucio server did not register it: no such thing' in reasons(summary)['a']


def test_a_storage_that_refuses_everything_is_not_asked_a_million_times(run, folder, s3, monkeypatch):
    monkeypatch.setattr(Tally, 'hopeless', 5)
    fill(folder, **{f'f{number:03}': b'x' for number in range(100)})
    s3.fail('PutObject', *(error(403, 'AccessDenied') for _ in range(100)))

    summary = run(jobs=1)

    assert s3.operations().count('PutObject') == 5
    assert '5 files in a row failed' in summary.failures[-1][1]


def test_an_error_of_the_server_stops_it(run, folder, catalogue, s3, monkeypatch):
    fill(folder, a=b'1')

    def refuse(*_, **__):
        raise RSEAccessDenied('not you')

    monkeypatch.setattr(catalogue, 'get_metadata_bulk', refuse)
    with pytest.raises(RSEAccessDenied, match='not you'):
        run()
    assert 'PutObject' not in s3.operations()


@pytest.mark.parametrize('name', ['a b', 'x:y', 'n' * 300, b'not-utf8-\xff'])
def test_a_bad_name_is_told_before_anything_is_done(run, folder, catalogue, s3, name):
    fill(folder, good=b'1')
    (folder / os.fsdecode(name)[:200]).touch()
    longest = {'name': 'n' * 100} if len(name) == 300 else {}

    with pytest.raises(InputValidationError, match='Nothing was uploaded'):
        run(**longest)
    assert (s3.operations(), catalogue.dataset) == ([], None)


def test_an_empty_directory_and_a_file_are_refused(run, folder, catalogue):
    with pytest.raises(InputValidationError, match='no files below'):
        run()
    fill(folder, a=b'1')
    with pytest.raises(InputValidationError, match='is chosen by --include'):
        run(chosen=Filter(exclude=['a']))
    with pytest.raises(InputValidationError, match='neither a file nor a directory'):
        Upload(catalogue, [str(folder / 'b')], SCOPE, 'run', 'X')
    assert catalogue.dataset is None


def test_several_sources(catalogue, folder, s3, tmp_path):
    """Files by their names, directories below theirs, in the order of the keys; no name twice."""
    fill(folder, **{'b__x': b'1', 'a': b'2', 'b.x': b'3'})
    fill(tmp_path, b=b'4')
    sources = [str(folder / name) for name in ('b', 'b.x', 'a', 'b/')]

    assert Upload(catalogue, sources, SCOPE, 'run', 'X').run().sent == 3
    assert catalogue.attached == ['run/a', 'run/b.x', 'run/b/x']
    assert Upload(catalogue, sources, SCOPE, 'run', 'X').run().there == 3
    assert Upload(catalogue, [str(folder / 'a')], SCOPE, 'alone', 'X').run().sent == 1
    assert catalogue.attached[-1] == 'alone/a'
    with pytest.raises(InputValidationError, match="would both be named 'b'"):
        Upload(catalogue, [*sources, str(tmp_path / 'b')], SCOPE, 'run', 'X')


def test_a_dry_run_changes_nothing_and_says_what_would_be(run, folder, catalogue, s3):
    fill(folder, new=b'1', there=b'2', mine=b'3', foreign=b'4', left__out=b'5')
    catalogue.dids['run/there'], catalogue.replicas['run/there'] = known(b'2'), 'AVAILABLE'
    for name, content in (('there', b'2'), ('mine', b'3'), ('foreign', b'x')):
        s3.store(BUCKET, f'run/{name}', content)

    summary = run(dry_run=True, chosen=Filter(exclude=['/left/']))

    assert summary.planned == [(str(folder / 'new'), f'{SCOPE}:run/new')]
    assert (summary.sent, summary.sent_bytes, summary.there, summary.found, len(summary.failures)) == (1, 1, 1, 1, 1)
    assert (catalogue.dataset, catalogue.attached) == (None, [])
    assert set(s3.operations()) <= {'ListObjectsV2', 'HeadObject', 'GetObject'}


def test_a_missing_bucket_is_told_with_the_command_that_makes_it(folder, catalogue):
    fill(folder, a=b'1')
    with pytest.raises(SourceNotFound, match=r'rucio s3 make-bucket user\.bob --rse X'):
        Upload(catalogue, [str(folder)], 'user.bob', 'run', 'X').run()
    assert catalogue.dataset is None


@pytest.mark.parametrize(
    ('changes', 'exception', 'told'),
    [
        ({'availability_write': False}, RSEWriteBlocked, 'not available'),
        ({'deterministic': False}, RSEOperationNotSupported, 'not deterministic'),
        ({'protocols': []}, RSEOperationNotSupported, 'no protocol'),
    ],
)
def test_an_rse_that_does_not_fit_is_refused(run, folder, catalogue, changes, exception, told):
    fill(folder, a=b'1')
    catalogue.rse = catalogue.rse | changes
    with pytest.raises(exception, match=told):
        run()


@pytest.mark.parametrize(('found', 'told'), [({'type': 'CONTAINER'}, 'is a container'), ({'type': 'DATASET', 'open': False}, 'is closed')])
def test_a_did_that_takes_no_files_is_refused(run, folder, catalogue, found, told):
    fill(folder, a=b'1')
    catalogue.dataset = found
    with pytest.raises(UnsupportedOperation, match=told):
        run()


@pytest.mark.parametrize(('expression', 'made'), [('X', 0), ('tier=1', 0), ('Y', 1)])
def test_a_rule_is_made_where_none_covers_the_rse(run, folder, catalogue, expression, made):
    fill(folder, a=b'1')
    catalogue.dataset = {'type': 'DATASET', 'open': True}
    catalogue.rules = [{'rse_expression': expression}]

    run()

    assert len(catalogue.rules) == 1 + made


# Ctrl-C


@pytest.fixture
def ctrl_c():
    """Python's handler of it, also where the tests run in the background of a shell, which ignores it there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.timeout(60)
@pytest.mark.parametrize('nth', [1, 5])
@pytest.mark.usefixtures('ctrl_c')
def test_ctrl_c_ends_a_thread_that_has_just_been_started(run, folder, monkeypatch, nth):
    """It was not in the list of those to be ended, and the upload waited for it forever."""
    fill(folder, **{f'f{number}': b'x' for number in range(20)})
    start, started = threading.Thread.start, []

    def interrupted(thread):
        start(thread)
        if thread.name == 'rucio-s3-files':
            started.append(thread)
            if len(started) == nth:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(threading.Thread, 'start', interrupted)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(started) >= nth
    assert not any(thread.is_alive() for thread in started)


def test_a_stop_ends_the_listing_too(run, folder, monkeypatch):
    """A storage that does not go on with it held who pressed Ctrl-C."""
    fill(folder, a=b'x', z=b'x')
    seen = []

    def listing(*_):
        for name in 'bcd':
            seen.append(deadlines.is_stopped())
            yield f'run/{name}', 1

    monkeypatch.setattr(Destination, 'listing', listing)
    run()
    assert seen[-1] is False  # None: what reads asks nobody


# How much is under way


def together(under_way, number, size=0):
    """Twice so many threads, of which so many have to be in at the same time before they go on: the most that were."""
    met, lock, inside = threading.Barrier(number), threading.Lock(), [0]

    def pass_through():
        with under_way.room(size):
            with lock:
                inside.append(inside[-1] + 1)
            met.wait(30)
            with lock:
                inside.append(inside[-1] - 1)

    for future in [under_way.submit(pass_through) for _ in range(2 * number)]:
        future.result()
    under_way.end()
    return max(inside)


@pytest.mark.parametrize(('jobs', 'latency', 'expected'), [(None, 0.0, 16), (None, 0.01, 21), (None, 0.1, 66), (None, 9.0, 128), (3, 0.1, 3)])
def test_more_files_are_under_way_where_answers_take_long(jobs, latency, expected):
    under_way = pipeline.UnderWay(jobs, lambda: latency)
    for _ in range(17):
        under_way.submit(int).result()  # only answers tell the latency, and the first ones by new connections do not
    assert together(under_way, expected) == expected


def test_files_in_memory_are_limited_by_their_size():
    assert together(pipeline.UnderWay(8), 4, pipeline.MEMORY // 4) == 4
    assert together(pipeline.UnderWay(8), 1, pipeline.MEMORY * 2) == 1
    assert together(pipeline.UnderWay(8), 8) == 8


def test_processes_share_what_may_be_under_way():
    assert together(pipeline.UnderWay(None, share=2), 8) == 8
    assert together(pipeline.UnderWay(None, share=3), 6) == 6
    assert together(pipeline.UnderWay(6, share=3), 2) == 2
    assert together(pipeline.UnderWay(8, share=2), 2, pipeline.MEMORY // 4) == 2


def test_it_goes_on_with_the_threads_that_the_system_allows(monkeypatch):
    started, start = [], threading.Thread.start

    def refuse(thread):
        if len(started) == 3:
            raise RuntimeError("can't start new thread")
        start(thread)
        started.append(thread)

    monkeypatch.setattr(threading.Thread, 'start', refuse)
    under_way = pipeline.UnderWay(None, lambda: 0.1)
    assert [future.result(30) for future in [under_way.submit(int, number) for number in range(100)]] == [*range(100)]
    under_way.end()
    assert len(started) == 3


def test_nothing_begins_after_the_end():
    under_way, running, go_on = pipeline.UnderWay(1), threading.Event(), threading.Event()

    def wait():
        running.set()
        go_on.wait(30)
        return 'done'

    first, second = under_way.submit(wait), under_way.submit(wait)
    running.wait(30)
    threading.Timer(0.01, go_on.set).start()
    under_way.end()
    assert first.result(0) == 'done'
    assert second.cancelled()


# The rules for names


def test_the_generic_rules_for_names_are_rucios():
    """They are written down here, as Rucio's module for them loads SQLAlchemy."""
    pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')
    from rucio.common.schema import generic  # noqa: PLC0415 - reads the configuration when it is imported

    ours = directory.GENERIC_NAMES
    assert (ours['scope']['pattern'], ours['name']['pattern']) == (generic.SCOPE['pattern'], generic.NAME['pattern'])
    assert (ours['scope']['maxLength'], ours['name']['maxLength']) == (generic.SCOPE_LENGTH, generic.NAME_LENGTH)


@pytest.mark.parametrize('section', [{'policy': {'package': 'no_such_package'}}, {'common': {'multi_vo': 'True'}}], ids=['package', 'VOs'])
def test_a_site_may_have_other_rules_for_names(rucio_cfg, section):
    rucio_cfg(section)
    assert directory._has_own_schema()


def test_most_have_not(rucio_cfg, monkeypatch):
    rucio_cfg({})
    assert not directory._has_own_schema()
    monkeypatch.setenv('RUCIO_POLICY_PACKAGE', 'own')
    assert directory._has_own_schema()


# What is noted for the next upload


@pytest.fixture
def noting(monkeypatch):
    """Also files that were just made."""
    monkeypatch.setattr(notes, '_YOUNG', -60)


@pytest.fixture
def read(monkeypatch):
    """The names of the files that are read to compare them."""
    names = []
    inner = LocalFile.checksums
    monkeypatch.setattr(LocalFile, 'checksums', lambda self, stop: names.append(self.name) or inner(self, stop))
    return names


@pytest.mark.usefixtures('noting')
def test_the_next_upload_reads_nothing_and_asks_for_the_members(catalogue, folder, run, s3, read):
    fill(folder, a=b'one', b__c=b'two')
    run()
    catalogue.calls.clear()
    s3.requests.clear()
    assert (run().there, run(checksum=True).there) == (2, 2)
    assert catalogue.calls == ['members', 'replicas', 'look up', 'replicas', 'attach']
    assert read == ['run/a', 'run/b/c']
    assert s3.operations() == ['ListObjectsV2'] * 2


@pytest.mark.usefixtures('noting')
@pytest.mark.parametrize('has_plugin', [True, False])
def test_a_server_with_the_plugin_is_asked_once_for_each_chunk(catalogue, folder, run, monkeypatch, has_plugin):
    monkeypatch.setattr(directory, 'CHUNK', 2)
    fill(folder, a=b'one', b=b'two', c=b'three')
    catalogue.has_plugin = has_plugin
    asked = []
    for _ in range(2):
        catalogue.calls.clear()
        summary = run(server=catalogue)
        asked.append([each for each in catalogue.calls if each in ('files', 'look up', 'replicas')])
    assert (summary.there, summary.sent, summary.failures) == (3, 0, [])
    assert asked == ([['files'] * 2] * 2 if has_plugin else [['files', 'look up', 'look up'], ['files', 'replicas', 'replicas']])


@pytest.mark.usefixtures('noting')
def test_a_server_with_the_plugin_registers_what_is_new_in_one_call(catalogue, folder, run):
    fill(folder, a=b'one', b=b'two')
    catalogue.has_plugin = True
    run(server=catalogue)
    fill(folder, a=b'one', c=b'three')
    catalogue.dids['run/late'] = known(b'late')
    catalogue.calls.clear()
    fill(folder, late=b'late')

    summary = run(server=catalogue)

    assert (summary.sent, summary.there, summary.failures) == (2, 2, [])
    assert catalogue.calls == ['members', 'files', 'register', 'add', 'attach'], 'the stock calls for what has no replica here'
    assert sorted(catalogue.attached) == ['run/a', 'run/b', 'run/c', 'run/late']
    assert catalogue.replicas['run/c'] == 'AVAILABLE'


@pytest.mark.parametrize('refusal', [RSEOperationNotSupported, AccessDenied])
def test_the_stock_calls_are_for_servers_that_cannot_or_will_not(catalogue, folder, run, monkeypatch, refusal):
    fill(folder, a=b'one')
    catalogue.has_plugin = True

    def refuse(*_):
        raise refusal

    monkeypatch.setattr(catalogue, 'register_files', refuse)
    assert (run(server=catalogue).failures, catalogue.calls) == ([], ['files', 'add', 'attach'])


def test_what_was_registered_before_a_failure_stays_so(catalogue, folder, run):
    """The second of two calls fails: only its files are not registered."""
    fill(folder, a=b'one', late=b'late')
    catalogue.has_plugin = True
    catalogue.dids['run/late'] = known(b'late')

    def refuse(*_, **__):
        raise UnsupportedOperation('The dataset is closed.')

    catalogue.attach_dids_to_dids = refuse
    summary = run(server=catalogue)
    assert reasons(summary) == {'late': 'is on the storage, but the Rucio server did not register it: The dataset is closed.'}
    assert catalogue.attached == ['run/a']


def test_what_a_server_with_the_plugin_knows_is_compared(catalogue, folder, run):
    fill(folder, a=b'one', b=b'two', c=b'three')
    run()
    catalogue.has_plugin = True
    fill(folder, a=b'ONE')
    catalogue.replicas['run/b'] = 'BAD'
    assert reasons(run(server=catalogue)) == {
        'a': 'differs from user.alice:run/a in Rucio (same size, different checksum): it was not changed. Choose another name',
        'b': 'the replica of user.alice:run/b on X is BAD: try again when that has been resolved',
    }


@pytest.mark.usefixtures('noting')
def test_a_file_that_changed_is_read(folder, run, read):
    fill(folder, a=b'one', b=b'two')
    run()
    times = os.stat(folder / 'a')
    fill(folder, a=b'ONE')
    os.utime(folder / 'a', ns=(times.st_atime_ns, times.st_mtime_ns))  # nobody can set the third time
    assert reasons(run()) == {'a': 'differs from user.alice:run/a in Rucio (same size, different checksum): it was not changed. Choose another name'}
    assert read == ['run/a']


@pytest.mark.usefixtures('noting')
def test_what_is_gone_is_uploaded_and_registered_though_it_is_noted(catalogue, folder, run, s3):
    fill(folder, a=b'one', b=b'two', c=b'three')
    run()
    del s3.buckets[BUCKET]['run/a']
    catalogue.attached.remove('run/b')
    summary = run()
    assert (summary.sent, summary.there, summary.failures) == (1, 2, [])
    assert s3.content(BUCKET, 'run/a') == b'one'
    assert 'run/b' in catalogue.attached


@pytest.mark.usefixtures('noting')
def test_a_replica_that_is_no_longer_available_is_seen_though_it_is_noted(catalogue, folder, run):
    fill(folder, a=b'one', b=b'two', c=b'three')
    run()
    catalogue.replicas |= {'run/a': 'COPYING', 'run/b': 'BAD'}
    catalogue.dids['run/c']['availability'] = 'LOST'
    del catalogue.replicas['run/c']
    summary = run()
    assert (summary.found, catalogue.replicas['run/a']) == (1, 'AVAILABLE')
    assert 'is BAD' in reasons(summary)['b']
    assert 'was declared lost' in reasons(summary)['c']


@pytest.mark.usefixtures('noting')
def test_another_content_in_the_catalogue_is_found_by_its_checksum(catalogue, folder, run):
    fill(folder, a=b'one')
    run()
    catalogue.dids['run/a'] |= {'adler32': '00000001'}
    assert 'differs from user.alice:run/a' in reasons(run())['a']


@pytest.mark.usefixtures('noting')
def test_what_was_not_registered_is_not_noted(catalogue, folder, run, read):
    fill(folder, a=b'one')
    catalogue.refuse = RSEAccessDenied('no')
    assert run().failures
    catalogue.refuse = None
    assert run().found == 1
    assert read == ['run/a']


def test_a_file_that_may_yet_change_within_its_time_is_not_noted(folder, run, read):
    fill(folder, a=b'one')
    run()
    run()
    assert read == ['run/a']


@pytest.mark.usefixtures('noting')
@pytest.mark.parametrize('content', ['', '{"run/a": 1}', '[]', '{"run/a": ["p", ["x"], "a", "m"]}', '[' * 99999])
def test_notes_that_cannot_be_read_are_none(folder, run, read, home, content):
    fill(folder, a=b'one')
    run()
    (file,) = home.joinpath('.cache', 'rucio-s3').iterdir()
    assert file.stat().st_mode & 0o77 == 0
    file.write_text(content)
    assert run().there == 1
    assert read == ['run/a']


@pytest.mark.usefixtures('noting')
def test_without_a_place_for_notes_there_are_none(folder, run, read, home):
    home.joinpath('.cache').write_text('no directory')
    fill(folder, a=b'one')
    assert (run().sent, run().there) == (1, 1)
    assert read == ['run/a']
