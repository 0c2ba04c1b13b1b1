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

"""`rucio s3 download`: what `rucio s3 upload` and others have stored, back in a directory."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from servers.cli import s3_keys
from servers.process import TIMEOUT, until
from servers.site import SCOPE, Site
from servers.team import Team, ok, refused

RSE = 'PLAIN_S3'
MiB = 1024**2


def make(folder: Path, sizes: dict[str, int]) -> dict[str, bytes]:
    for name, size in sizes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    return content_of(folder)


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def summary(done: Any) -> dict[str, int]:
    """What `--robot` says."""
    return dict(zip(('received', 'bytes', 'there', 'failed'), map(int, done.stdout.split()), strict=True))


@pytest.mark.smoke
def test_a_directory_comes_back_and_goes_there_again(site: Site, unique: str, tmp_path: Path) -> None:
    data, back = tmp_path / 'data', tmp_path / 'back'
    contents = make(data, {'a': 1000, 'empty': 0, 'sub/b.root': 2000, 'sub.x': 5, '.hidden/c': 1, 'sub/deeper/large': 20 * MiB})
    contents['sub.x'] = b'hello'
    (data / 'sub.x').write_bytes(contents['sub.x'])
    ok(site.alice.rucio('s3', 'upload', str(data), f'{SCOPE}:{unique}', '--rse', RSE))

    first = ok(site.alice.rucio('s3', 'download', f'{SCOPE}:{unique}', str(back)))
    come = content_of(back)
    (back / 'a').write_bytes(b'x' * 1000)
    (back / 'sub/b.root').unlink()
    (back / 'mine').write_bytes(b'not of the dataset')
    second = site.alice.rucio('s3', '--robot', 'download', f'{SCOPE}:{unique}', str(back))
    (back / 'mine').unlink()
    again = ok(site.alice.rucio('s3', 'upload', str(back), f'{SCOPE}:{unique}', '--rse', RSE))

    assert come == contents
    assert f'{back}: 6 files downloaded' in first
    assert summary(second) == {'received': 2, 'bytes': 3000, 'there': 4, 'failed': 0}, second.stderr
    assert content_of(back) == contents
    assert '0 files uploaded' in again
    assert '6 already registered' in again
    assert ok(site.alice.rucio('s3', 'cat', f'{SCOPE}:{unique}/sub.x', f'{SCOPE}:{unique}/empty')) == 'hello'


def test_files_and_directories_and_what_is_left_out(site: Site, unique: str, tmp_path: Path) -> None:
    contents = make(tmp_path / 'data', {'run/a.root': 10, 'run/notes.txt': 20, 'b.root': 30, 'run/tmp/c.root': 40})
    sources = [str(tmp_path / 'data' / name) for name in ('run', 'b.root')]
    upload = ['s3', 'upload', *sources, f'{SCOPE}:{unique}', '--rse', RSE, '--include', '*.root', '--exclude', 'tmp/']
    left = {name: content for name, content in contents.items() if name in ('run/a.root', 'b.root')}

    planned = ok(site.alice.rucio(*upload, '--dry-run'))
    assert f'{tmp_path}/data/b.root -> {SCOPE}:{unique}/b.root' in planned
    assert '2 files would be uploaded (40.000 B).' in planned
    assert f'{SCOPE}:{unique}' not in site.alice.rucio('did', 'list', f'{SCOPE}:{unique}*').stdout
    ok(site.alice.rucio(*upload))
    assert site.objects(RSE, unique) == {f'{unique}/{name}': len(content) for name, content in left.items()}

    download = ['s3', '--robot', 'download', f'{SCOPE}:{unique}', str(tmp_path / 'to'), '--exclude', '/run/']
    assert ok(site.alice.rucio(*download, '--dry-run')).split() == [f'{SCOPE}:{unique}/b.root', f'{tmp_path}/to/b.root']
    assert content_of(tmp_path / 'to') == {}
    assert summary(site.alice.rucio(*download))['received'] == 1
    assert content_of(tmp_path / 'to') == {'b.root': contents['b.root']}


def test_a_reader_who_has_enough(site: Site, unique: str, tmp_path: Path) -> None:
    (tmp_path / 'file').write_bytes(b'line\n' * 5 * MiB)
    ok(site.alice.rucio('s3', 'upload', str(tmp_path / 'file'), f'{SCOPE}:{unique}', '--rse', RSE))
    process = site.alice.popen('rucio', 's3', 'cat', f'{SCOPE}:{unique}/file', stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(5) == 'line\n'
    process.stdout.close()

    assert process.stderr is not None
    assert process.stderr.read() == ''
    assert process.wait(TIMEOUT) == 141


def test_several_dids_have_a_directory_each(site: Site, unique: str, tmp_path: Path) -> None:
    contents = make(tmp_path / 'data', {'a': 10, 'sub/b': 20})
    for name in ('one', 'two'):
        ok(site.alice.rucio('s3', 'upload', str(tmp_path / 'data'), f'{SCOPE}:{unique}.{name}', '--rse', RSE))
    names = [f'{unique}.one', f'{unique}.two']
    site.alice.calls(('add_container', SCOPE, unique), ('attach_dids', SCOPE, unique, [{'scope': SCOPE, 'name': name} for name in names]))
    each = {f'{name}/{path}': content for name in names for path, content in contents.items()}

    def download(*dids: str, to: str) -> dict[str, bytes]:
        ok(site.alice.rucio('s3', 'download', *(f'{SCOPE}:{did}' for did in dids), str(tmp_path / to)))
        return content_of(tmp_path / to)

    assert download(*names, to='several') == each
    assert download(f'{unique}.*', to='wildcard') == each
    assert download(unique, to='container') == each
    assert download(f'{unique}.one/sub', to='folder') == {'b': contents['sub/b']}
    assert download(f'{unique}.one/sub/b', f'{unique}.two/a', to='files') == {'b': contents['sub/b'], 'a': contents['a']}


def test_sync_makes_equal_one_way(site: Site, unique: str, tmp_path: Path) -> None:
    """Alice owns the scope, and the server has the keys of this RSE: it deletes in the catalogue."""
    storage = site.storages[RSE]
    rse = site.add_rse(f'{unique}_S3'.upper(), storage)
    site.root.server.set_rse_keys(site.ids[rse], storage.access_key, storage.secret_key)
    site.alice.configure(s3_keys(rse, storage))
    data, back, did = tmp_path / 'data', tmp_path / 'back', f'{SCOPE}:{unique}'
    contents = make(data, {'a': 10, 'sub/b': 20, 'sub/c': 30, 'keep.log': 40})

    def sync(*words: str) -> str:
        return ok(site.alice.rucio('s3', 'sync', *words, '--rse', rse))

    assert '4 files uploaded' in sync(str(data), did)
    sync(did, str(back))
    assert content_of(back) == contents
    for name in ('sub/b', 'sub/c', 'keep.log'):
        (data / name).unlink()
    (data / 'new').write_bytes(b'new')
    (back / 'mine').write_bytes(b'mine')
    filters = ['--exclude', '*.log', '--delete']
    assert f'would delete {did}/sub/b' in sync(str(data), did, *filters, '--dry-run')
    told = sync(str(data), did, *filters)
    assert '1 file uploaded' in told
    assert told.count('Deleted') == 2
    assert set(site.objects(rse, f'{unique}/')) == {f'{unique}/{name}' for name in ('a', 'new', 'keep.log')}
    assert '1 file downloaded' in sync(did, str(back))
    assert (back / 'mine').exists()
    sync(did, str(back), '--delete')
    assert content_of(back) == {'a': contents['a'], 'new': b'new', 'keep.log': contents['keep.log']}
    assert not (back / 'sub').exists()


def test_another_replica_where_one_fails(site: Site, unique: str, tmp_path: Path) -> None:
    contents = make(tmp_path / 'data', {'gone': 100, 'damaged': 100, 'right': 100, 'nowhere': 100})
    for rse in (RSE, 'TLS_S3'):
        ok(site.alice.rucio('s3', 'upload', str(tmp_path / 'data'), f'{SCOPE}:{unique}', '--rse', rse))
    one, other = (site.storages[rse].client() for rse in (RSE, 'TLS_S3'))
    for storage, number in ((one, 100), (other, 100)):
        storage.put_object(Bucket=SCOPE, Key=f'{unique}/nowhere', Body=b'x' * number)
    one.delete_object(Bucket=SCOPE, Key=f'{unique}/gone')
    other.put_object(Bucket=SCOPE, Key=f'{unique}/damaged', Body=b'y' * 100)

    done = refused(site.alice.rucio('s3', 'download', f'{SCOPE}:{unique}', str(tmp_path / 'back')))

    contents.pop('nowhere')
    assert content_of(tmp_path / 'back') == contents
    assert f'{SCOPE}:{unique}/nowhere RSE' in done
    assert done.count('but the catalogue says') == 2
    assert '3 files downloaded' in done


_IN_PYTHON = """
import sys
from rucio.client.s3client import S3Client
client, (data, did, to) = S3Client(), sys.argv[1:]
steps = []
assert client.upload(data, did, exclude=['b/']).there == 2
assert client.upload([data + '/a', data + '/b'], did, dry_run=True, jobs=2).there == 2
downloaded = client.download(did, to, progress=steps.append)
assert (downloaded.received, sum(steps), downloaded.failures) == (3, downloaded.received_bytes, []), downloaded
assert client.rm(did + '/a')[0]['removed'] == 1
assert client.sync(data, did).transferred.sent == 1
assert client.sync(did, to, delete=True).transferred.there == 3
open(to + '/new', 'w').close()
assert client.sync(to, did, exclude=['a'], delete=True).transferred.sent == 1
assert client.sync(data, did, delete=True).deleted == [did + '/new']
"""


@pytest.mark.parametrize('kind', ['vended_team', pytest.param('signed_team', marks=pytest.mark.long)])
def test_an_account_without_keys(request: pytest.FixtureRequest, kind: str, unique: str, tmp_path: Path) -> None:
    team: Team = request.getfixturevalue(kind)
    ok(team.owner.rucio('s3', 'make-bucket', team.scope, '--rse', team.rse))
    contents = make(tmp_path / 'data', {'a': 10, 'b/large': 20 * MiB, 'empty': 0})
    ok(team.owner.rucio('s3', 'upload', str(tmp_path / 'data'), f'{team.scope}:{unique}', '--rse', team.rse))

    ok(team.owner.rucio('s3', 'download', f'{team.scope}:{unique}', str(tmp_path / 'back')))

    assert content_of(tmp_path / 'back') == contents
    if kind == 'vended_team':
        done = team.owner.python(_IN_PYTHON, str(tmp_path / 'data'), f'{team.scope}:{unique}', str(tmp_path / 'python'))
        assert done.returncode == 0, done.stderr
        assert content_of(tmp_path / 'python').keys() == contents.keys() | {'new'}
    assert 'may not read' in refused(team.other.rucio('s3', 'download', f'{team.scope}:{unique}', str(tmp_path / 'other')))
    assert content_of(tmp_path / 'other') == {}


@pytest.mark.long
def test_after_a_signal_the_same_command_goes_on(site: Site, unique: str, tmp_path: Path) -> None:
    make(tmp_path / 'data', {f'{number:04}': 30 * MiB for number in range(8)})
    ok(site.alice.rucio('s3', 'upload', str(tmp_path / 'data'), f'{SCOPE}:{unique}', '--rse', RSE))
    back = tmp_path / 'back'
    process = site.alice.popen('rucio', 's3', 'download', f'{SCOPE}:{unique}', str(back))
    until(lambda: back.is_dir() and any(back.iterdir()), process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 130, output
    assert 'Run the same command again' in output
    assert 'Traceback' not in output
    assert 'downloaded' in ok(site.alice.rucio('s3', 'download', f'{SCOPE}:{unique}', str(back)))
    assert content_of(back) == content_of(tmp_path / 'data')


@pytest.mark.long
def test_after_a_kill_the_same_command_goes_on(site: Site, unique: str, tmp_path: Path) -> None:
    make(tmp_path / 'data', {'f': 200 * MiB})
    ok(site.alice.rucio('s3', 'upload', str(tmp_path / 'data'), f'{SCOPE}:{unique}', '--rse', RSE))
    back = tmp_path / 'back'
    process = site.alice.popen('rucio', 's3', 'download', f'{SCOPE}:{unique}', str(back))
    # a record of ranges is behind the content: as soon as it says more than its first 32 bytes, a range is complete
    until(lambda: back.is_dir() and any(path.stat().st_size > 200 * MiB + 32 for path in back.iterdir()), process)
    process.kill()
    process.communicate(timeout=TIMEOUT)
    assert [path.name[:10] for path in back.iterdir()] == ['.rucio-s3-']

    said = ok(site.alice.rucio('s3', 'download', f'{SCOPE}:{unique}', str(back)))
    assert ': 1 file downloaded' in said
    assert content_of(back) == content_of(tmp_path / 'data')
