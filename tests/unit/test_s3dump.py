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

"""`rucio s3 dump`: what stands in it, what does not, and that there is none rather than half of one."""

import os
from pathlib import Path
from urllib.parse import unquote

import pytest
from click.testing import CliRunner

from rucio.cli.s3 import dumps
from rucio.client.s3dump import StorageDump
from rucio.common.exception import DestinationNotAccessible, InputValidationError, RSEAccessDenied, RSENotFound, ServiceUnavailable, SourceNotFound
from servers.fake_s3 import Answer, error

KEYS = {'access_key': 'AKIDOFTHETESTS', 'secret_key': 'a-secret', 'max_attempts': '1'}
INCOMPLETE = Answer(200, b'<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>')


class Catalogue:
    """What a dump asks of Rucio's client."""

    def __init__(self, rse):
        self.rse = rse
        self.scopes = ['user.alice', 'user.bob', 'user.alice.x', 'Upper']

    def get_rse(self, rse):
        return self.rse

    def list_scopes(self):
        return self.scopes


@pytest.fixture
def catalogue(rse, s3, rucio_cfg):
    """Call it for a catalogue with the RSE X on the fake S3, of which this machine has keys."""

    def make(keys=KEYS, **arguments):
        rucio_cfg({'s3:X': keys} if keys else {})
        return Catalogue(rse(**({'url': s3.url, 's3': {'provider': 'seaweedfs'}} | arguments)))

    return make


def lines(catalogue, *scopes):
    return list(StorageDump(catalogue, 'X', scopes).lines())


# Which objects


def test_all_buckets_of_scopes(catalogue, s3):
    for bucket, keys in {'user.alice': ['run1/b', 'run1/a'], 'user.alice.x': ['c'], 'x---upper': ['d'], 'somebody.elses': ['e'], 'user.bob': []}.items():
        s3.make_bucket(bucket)
        for key in keys:
            s3.store(bucket, key, b'12345')
    made = StorageDump(catalogue(), 'X')
    assert list(made.lines()) == ['user.alice.x/c', 'user.alice/run1/a', 'user.alice/run1/b', 'x---upper/d']
    assert (made.objects, made.bytes, made.others) == (4, 20, ['somebody.elses'])
    assert made.buckets == ['user.alice.x', 'user.alice', 'user.bob', 'x---upper']


def test_buckets_with_a_prefix(catalogue, s3):
    s3.store('vo-user.alice', 'a', b'')
    s3.store('user.alice', 'not-ours', b'')
    assert lines(catalogue(s3={'bucket_prefix': 'vo-'})) == ['vo-user.alice/a']


def test_named_scopes_are_not_looked_for(catalogue, s3):
    s3.store('user.alice', 'a', b'')
    s3.store('user.bob', 'b', b'')
    assert lines(catalogue(), 'user.bob') == ['user.bob/b']
    assert set(s3.operations()) == {'ListObjectsV2'}


@pytest.mark.parametrize(('prefix', 'found'), [('/user.alice/', ['a/b', 'c/d']), ('/user.alice/a/', ['b'])])
def test_one_bucket_for_all(catalogue, s3, prefix, found):
    for key in ('a/b', 'c/d'):
        s3.store('user.alice', key, b'')
    assert lines(catalogue(prefix=prefix, lfn2pfn_algorithm='identity')) == found


def test_an_rse_that_is_not_deterministic(catalogue, s3):
    s3.store('user.alice', 'a b', b'')
    s3.store('landsat', 'scene', b'')
    assert lines(catalogue(deterministic=False)) == ['landsat/scene', 'user.alice/a%20b']  # as the paths of its replicas


def test_thousands_and_no_markers(catalogue, s3):
    s3.page = 100
    names = [f'run1/{number:04}' for number in range(1050)]
    for name in names:
        s3.store('user.alice', name, b'1')
    s3.store('user.alice', 'run1/', b'')
    s3.store('user.alice', 'run2/', b'what is in it is no marker')
    assert lines(catalogue()) == [*(f'user.alice/{name}' for name in names), 'user.alice/run2%2F']


# Lines


def read_by_the_auditor(line, url):
    """As rucio.common.dumper.consistency does it."""
    path_parsing = pytest.importorskip('rucio.common.dumper.path_parsing', reason='rucio-clients has no auditor')
    relative = path_parsing.remove_prefix(path_parsing.components(url), path_parsing.components(f'{line}\n'))
    return '/'.join(relative[1:] if relative[0] == 'rucio' else relative)


@pytest.mark.parametrize(
    'key', ['a', 'a b', 'a,b', 'a\nb', 'a\tb ', '//a', 'a//b', 'a///', 'ä/€', 'a%2Fb', 'x+y', '.', '../a', '#?', 'rucio/a', '\x85', '\u2028']
)
def test_the_auditor_reads_the_path_of_the_pfn(catalogue, s3, key):
    s3.store('user.alice', key, b'1')
    (line,) = lines(catalogue())
    assert len(line.splitlines()) == 1
    assert line.isascii()
    path = read_by_the_auditor(line, s3.url + '/')
    assert unquote(path) == f'user.alice/{key}'
    assert ',' not in path


@pytest.mark.parametrize('prefix', ['/b1x/', '/b1x/rucio/', '/b1x/data/', '/b1x/b1x/', '/rucio/', '/rucio/rucio/', '/rucio/b1x/'])
@pytest.mark.parametrize('path', ['mc/a', 'rucio/a', 'rucio/rucio/a', 'data/a', 'b1x/a', 'b1x/b1x/rucio/a', 'mc/rucio/b1x/a', 'a'])
def test_the_auditor_reads_paths_that_look_like_the_prefix(catalogue, s3, prefix, path):
    bucket, _, folder = prefix.strip('/').partition('/')
    s3.store(bucket, f'{folder}/{path}'.strip('/'), b'1')
    (line,) = lines(catalogue(prefix=prefix, lfn2pfn_algorithm='identity'))
    assert read_by_the_auditor(line, s3.url + prefix.removesuffix('rucio/')) == path


@pytest.mark.parametrize('path', ['rucio/a', 'rucio/rucio/a'])
def test_a_scope_that_is_called_rucio(catalogue, s3, path):
    here = catalogue()
    here.scopes.append('rucio')
    s3.store('rucio', path.partition('/')[2], b'1')
    assert [read_by_the_auditor(line, s3.url + '/') for line in lines(here)] == [path]


# No dump rather than half of one


@pytest.fixture
def run(catalogue, tmp_path):
    """Call it with the arguments of `rucio s3 dump`."""

    class Context(dict):
        use_rich = False

    def invoke(*arguments, here=None, runner=None):
        context = Context()
        context.client = here or catalogue()
        return (runner or CliRunner().invoke)(dumps.dump, ['X', *arguments], obj=context)

    return invoke


def test_a_file(run, s3, tmp_path):
    s3.store('user.alice', 'run1/a', b'12345')
    s3.store('somebody.elses', 'b', b'')
    done = run('-o', str(tmp_path / 'dump_20260131'))
    assert done.exit_code == 0
    assert (tmp_path / 'dump_20260131').read_text() == 'user.alice/run1/a\n'
    assert 'of this Rucio: somebody.elses (1)' in done.output
    assert 'RSE X: 1 object, 5.000 B, in 1 bucket.' in done.output.replace('kB', 'B')
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ['dump_20260131']


def test_a_file_may_be_read_as_others_are(run, s3, tmp_path):
    s3.store('user.alice', 'run1/a', b'12345')
    before = os.umask(0o027)
    try:
        run('-o', str(tmp_path / 'dump'))
    finally:
        os.umask(before)
    assert (tmp_path / 'dump').stat().st_mode & 0o777 == 0o640


def test_what_is_no_file_is_not_replaced(run, s3, tmp_path):
    """As root, /dev/null would be a file of paths from then on."""
    s3.store('user.alice', 'run1/a', b'12345')
    os.mkfifo(tmp_path / 'pipe')
    done = run('-o', str(tmp_path / 'pipe'))
    assert isinstance(done.exception, InputValidationError)
    assert 'is not a regular file: use "-o -"' in str(done.exception)
    assert (tmp_path / 'pipe').is_fifo()


def test_a_link_stays_one(run, s3, tmp_path):
    s3.store('user.alice', 'run1/a', b'12345')
    (tmp_path / 'data').mkdir()
    (tmp_path / 'dump').symlink_to(tmp_path / 'data' / 'dump')
    assert run('-o', str(tmp_path / 'dump')).exit_code == 0
    assert (tmp_path / 'dump').is_symlink()
    assert (tmp_path / 'data' / 'dump').read_text() == 'user.alice/run1/a\n'


def test_a_folder_that_is_not_there(run, s3, tmp_path):
    s3.store('user.alice', 'run1/a', b'12345')
    done = run('-o', str(tmp_path / 'none' / 'dump'))
    assert isinstance(done.exception, DestinationNotAccessible)
    assert f"The local file '{tmp_path}/none/dump' cannot be written: No such file or directory." in str(done.exception)
    assert not s3.requests


def test_to_stdout(run, s3):
    s3.store('user.alice', 'run1/a', b'12345')
    assert run().output.splitlines()[0] == 'user.alice/run1/a'


@pytest.fixture
def to(run, s3, monkeypatch):
    """Call it with a file that is stdout then."""
    s3.store('user.alice', 'run1/a', b'12345')

    def dump(file):
        monkeypatch.setattr('sys.stdout', file)
        with file:
            run(runner=lambda command, words, obj: command.main(words, obj=obj, standalone_mode=False))

    return dump


def test_a_stdout_that_cannot_be_written(to):
    with pytest.raises(DestinationNotAccessible, match=r'Standard output cannot be written: No space left on device\. '):
        to(Path('/dev/full').open('w'))  # noqa: SIM115 - it is closed there


def test_a_reader_that_has_seen_enough(to, capsys):
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(SystemExit) as ended:
        to(os.fdopen(writing, 'w'))
    assert ended.value.code == 1
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize(
    ('fault', 'kind'),
    [
        (error(503, 'SlowDown'), Exception),
        (error(403, 'AccessDenied'), RSEAccessDenied),
        (Answer(200), ServiceUnavailable),
        (INCOMPLETE, ServiceUnavailable),
        (error(404, 'NoSuchBucket'), SourceNotFound),
    ],
)
def test_a_bucket_that_cannot_be_listed_to_its_end(run, s3, tmp_path, fault, kind):
    s3.page = 2
    for name in 'abcdef':
        s3.store('user.alice', name, b'1')
    (tmp_path / 'dump').write_text('of yesterday')
    serve, count = s3.ListObjectsV2, iter(range(10))
    s3.ListObjectsV2 = lambda request: serve(request) if next(count) < 2 else fault
    done = run('-o', str(tmp_path / 'dump'))
    assert done.exit_code == 1
    assert isinstance(done.exception, kind)
    assert (tmp_path / 'dump').read_text() == 'of yesterday'
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ['dump']


def test_nothing_is_no_dump(run, s3, tmp_path):
    """A storage that lists nothing is more often misunderstood than empty."""
    for said in ('there are no objects in user.alice', 'cannot list the bucket of any scope'):
        done = run('-o', str(tmp_path / 'dump'))
        assert isinstance(done.exception, SourceNotFound)
        assert said in str(done.exception)
        assert not (tmp_path / 'dump').exists()
        s3.buckets = {'somebody.elses': {}}


def test_a_scope_without_a_bucket(catalogue):
    with pytest.raises(SourceNotFound, match=r"RSE X: the storage has no bucket 'user\.bob', so no dump was written\. Check the scope's name"):
        lines(catalogue(), 'user.bob')


@pytest.mark.parametrize('arguments', [{'prefix': '/user.alice/', 'lfn2pfn_algorithm': 'identity'}, {'deterministic': False}, {'lfn2pfn_algorithm': 'hash'}])
def test_scopes_that_have_no_buckets_of_their_own(catalogue, arguments):
    with pytest.raises(InputValidationError, match='without --scope'):
        lines(catalogue(**arguments), 'user.alice')


# Keys


def test_without_keys(catalogue):
    with pytest.raises(RSEAccessDenied, match=r'rucio\.cfg \[s3:X\]'):
        lines(catalogue(keys=None))


def test_keys_of_this_machine_whatever_others_are_told_to_take(catalogue, s3):
    s3.store('user.alice', 'a', b'')
    assert lines(catalogue(s3={'auth': 'vended'})) == ['user.alice/a']


def test_a_storage_that_anybody_may_read(catalogue, s3):
    s3.store('user.alice', 'a', b'')
    assert lines(catalogue(keys=None, s3={'auth': 'anonymous'}, deterministic=False, prefix='/user.alice/')) == ['a']
    assert 'authorization' not in s3.requests[0].headers


def test_no_s3(catalogue):
    here = catalogue()
    here.rse['protocols'][0]['impl'] = 'rucio.rse.protocols.posix.Default'
    with pytest.raises(RSENotFound, match='not an S3 RSE'):
        lines(here)
