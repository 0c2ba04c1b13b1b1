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

"""`rucio s3 upload`: many files, in parallel, registered in bulk, and continued after whatever ended it."""

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from servers.cli import RucioCli
from servers.process import TIMEOUT, until
from servers.rest import Rest
from servers.site import SCOPE, Site
from servers.team import Team, ok, refused

RSE = 'PLAIN_S3'
KiB, MiB = 1024, 1024**2


def make(folder: Path, sizes: dict[str, int]) -> dict[str, bytes]:
    contents = {}
    for name, size in sizes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
        contents[name] = path.read_bytes()
    return contents


def upload(site: Site, folder: Path, name: str, *options: str) -> Any:
    return site.alice.rucio('s3', 'upload', str(folder), f'{SCOPE}:{name}', '--rse', RSE, *options)


def summary(done: Any) -> dict[str, int]:
    """What `--robot` says."""
    return dict(zip(('sent', 'bytes', 'registered', 'there', 'failed'), map(int, done.stdout.split()), strict=True))


def rows(site: Site, table: str, where: str, left_out: set[str]) -> list[dict[str, Any]]:
    """What Rucio's database has, without what differs from one upload to the next."""
    with closing(sqlite3.connect(site.root.server.directory / 'rucio.db')) as database:
        database.row_factory = sqlite3.Row
        found = [dict(row) for row in database.execute(f'SELECT * FROM {table} WHERE {where} ORDER BY 1, 2, 3')]
    return [{key: value for key, value in row.items() if key not in {'created_at', 'updated_at', 'accessed_at', *left_out}} for row in found]


@pytest.mark.smoke
def test_a_directory_goes_there_with_all_that_is_in_it(site: Site, unique: str, tmp_path: Path) -> None:
    contents = make(tmp_path / 'data', {'a': 1000, 'empty': 0, 'sub/b.root': 2000, 'sub.x': 5, '.hidden/c': 1, 'sub/deeper/large': 20 * MiB})
    (tmp_path / 'data' / 'link').symlink_to('a')
    (tmp_path / 'data' / 'folder').symlink_to('sub')
    (tmp_path / 'data' / 'broken').symlink_to('nowhere')
    os.mkfifo(tmp_path / 'data' / 'pipe')

    done = upload(site, tmp_path / 'data', unique)
    told = ok(done)
    download = site.alice.rucio('download', '--dir', str(tmp_path / 'back'), f'{SCOPE}:{unique}')

    contents['link'] = contents['a']
    assert site.objects(RSE, f'{unique}/') == {f'{unique}/{name}': len(content) for name, content in contents.items()}
    back = tmp_path / 'back' / unique
    assert {str(path.relative_to(back / unique)): path.read_bytes() for path in back.rglob('*') if path.is_file()} == contents, download.stderr
    assert '7 files uploaded' in told
    assert [word for word in ('folder is a link to a directory', 'broken is a broken link', 'pipe is not a regular file') if word not in done.stderr] == []


def test_the_catalogue_ends_as_after_the_stock_command(site: Site, unique: str, tmp_path: Path) -> None:
    make(tmp_path / 'data', {f'{unique}.{number}': number * 100 for number in range(4)})
    site.alice.rucio('upload', '--rse', RSE, '--scope', SCOPE, f'{SCOPE}:{unique}.stock', str(tmp_path / 'data'))
    ok(upload(site, tmp_path / 'data', f'{unique}.bulk'))
    site.root.server.run('rucio-judge-evaluator', '--run-once')

    names = {'stock': f"name LIKE '{unique}.%' AND name NOT LIKE '%bulk%' AND name NOT LIKE '%stock'", 'bulk': f"name LIKE '{unique}.bulk/%'"}
    of_dataset = {kind: f"name = '{unique}.{kind}'" for kind in names}
    tables: dict[str, tuple[dict[str, str], set[str]]] = {
        'dids': (names, {'name', 'guid'}),
        'replicas': (names, {'name'}),
        'locks': (names, {'name', 'rule_id'}),
        'contents': (of_dataset, {'name', 'child_name', 'guid'}),
        'rules': (of_dataset, {'id', 'name'}),
        'dataset_locks': (of_dataset, {'name', 'rule_id'}),
    }
    found = {
        table: {kind: sorted(map(repr, rows(site, table, where, left_out))) for kind, where in places.items()} for table, (places, left_out) in tables.items()
    }
    datasets = {kind: rows(site, 'dids', where, {'name'}) for kind, where in of_dataset.items()}

    assert [table for table, kinds in found.items() if kinds['stock'] != kinds['bulk']] == [], found
    assert [len(kinds['bulk']) for kinds in found.values()] == [4, 4, 4, 4, 1, 1]
    assert datasets['stock'] == datasets['bulk']
    assert all(row['guid'] for row in rows(site, 'dids', names['bulk'], set()))


def test_who_may_not_register_what(vended_team: Team, unique: str) -> None:
    """By the call that an upload uses: nothing is registered that the stock calls would not."""
    team = vended_team
    file = {'name': f'{unique}/a', 'bytes': 1, 'adler32': '00320032', 'md5': None}
    asked = {'scope': team.scope, 'name': unique, 'rse': team.rse, 'files': [file]}
    team.owner.call('add_dataset', team.scope, unique)
    owner, other = Rest(team.owner), Rest(team.other)

    def status(rest: Rest, **changed: Any) -> int:
        return rest('PUT', '/files', asked | changed).status

    assert status(other) == 403
    assert status(owner, rse='NOSUCH') == 404
    assert status(owner, name=f'{unique}.missing', files=[file | {'name': f'{unique}.missing/a'}]) == 409
    for wrong in (
        {'name': 'elsewhere/a'},
        {'name': f'{unique}/../a'},
        {'name': f'{unique}/a\n'},
        {'name': 7},
        {'bytes': -1},
        {'bytes': 2**63},
        {'bytes': '1'},
        {'bytes': True},
        {'adler32': '0'},
        {'adler32': None},
        {'adler32': 'ABCDEFGH'},
        {'md5': 'x' * 32},
        {'md5': 1},
    ):
        assert status(owner, files=[file | wrong]) == 400, wrong
    assert status(owner, files=['text']) == status(owner, files=[]) == 400
    assert team.owner.call('list_files', team.scope, unique) == []
    assert status(owner, files=[file, file]) == 200
    assert [each['name'] for each in team.owner.call('list_files', team.scope, unique)] == [file['name']]


def test_the_second_run_sends_nothing(site: Site, unique: str, tmp_path: Path) -> None:
    make(tmp_path / 'data', {f'{number % 7}/{number}': 1000 for number in range(600)})
    ok(upload(site, tmp_path / 'data', unique))
    before = len(site.root.server.requests())

    again = upload(site, tmp_path / 'data', unique, *['--jobs', '4'])
    robot = site.alice.rucio('s3', '--robot', 'upload', str(tmp_path / 'data'), f'{SCOPE}:{unique}', '--rse', RSE)

    asked = [each.uri.partition('?')[0] for each in site.root.server.requests()[before:] if each.method == 'POST']

    assert asked.count('/s3/files') == 4
    assert not {'/replicas/list', '/dids/bulkmeta'} & set(asked)
    assert '600 already registered' in ok(again)
    assert summary(robot) == {'sent': 0, 'bytes': 0, 'registered': 0, 'there': 600, 'failed': 0}
    assert len(site.root.server.requests()) - before < 40


@pytest.mark.long
def test_what_kill_9_interrupted_is_continued(site: Site, unique: str, tmp_path: Path) -> None:
    contents = make(tmp_path / 'data', {f'{number:04}': 100 * KiB for number in range(1200)})
    process = site.alice.popen('rucio', 's3', 'upload', str(tmp_path / 'data'), f'{SCOPE}:{unique}', '--rse', RSE, '--jobs', '8')
    until(lambda: len(site.objects(RSE, f'{unique}/')) >= 700, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stored = len(site.objects(RSE, f'{unique}/'))

    done = site.alice.rucio('s3', '--robot', 'upload', str(tmp_path / 'data'), f'{SCOPE}:{unique}', '--rse', RSE)

    ok(done)
    assert summary(done)['sent'] <= len(contents) - stored + 8, 'what was under way may have arrived meanwhile'
    assert sum(summary(done)[word] for word in ('sent', 'registered', 'there')) == len(contents)
    assert site.objects(RSE, f'{unique}/') == {f'{unique}/{name}': len(content) for name, content in contents.items()}
    attached = site.alice.call('list_content', SCOPE, unique)
    assert {each['name'] for each in attached} == {f'{unique}/{name}' for name in contents}
    replicas = site.alice.call('list_replicas', [{'scope': SCOPE, 'name': unique}], all_states=True)
    assert {each['states'][RSE] for each in replicas} == {'AVAILABLE'}
    assert len(replicas) == len(contents)


@pytest.mark.parametrize(
    ('number', 'code', 'told'), [(signal.SIGINT, 130, 'Run the same command again'), pytest.param(signal.SIGTERM, 143, '', marks=pytest.mark.long)]
)
def test_a_signal_stops_it_and_leaves_no_parts(site: Site, unique: str, tmp_path: Path, number: signal.Signals, code: int, told: str) -> None:
    make(tmp_path / 'data', {f'{number:04}': 30 * MiB for number in range(30)})
    process = site.alice.popen('rucio', 's3', 'upload', str(tmp_path / 'data'), f'{SCOPE}:{unique}', '--rse', RSE)
    until(lambda: site.multipart_uploads(RSE, f'{unique}/'), process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=TIMEOUT)

    assert process.returncode == code, output
    assert told in output
    assert 'Traceback' not in output
    assert site.multipart_uploads(RSE, f'{unique}/') == []


def test_what_differs_is_told_and_left_as_it_is(site: Site, unique: str, tmp_path: Path) -> None:
    folder, storage = tmp_path / 'data', site.storages[RSE].client()
    contents = make(folder, {'same': 10, 'changed': 10, 'longer': 10, 'foreign': 10, 'mine': 10, 'new': 10})
    for name in ('foreign', 'mine', 'new'):
        (folder / name).unlink()
    ok(upload(site, folder, unique))
    (folder / 'changed').write_bytes(b'0123456789')
    (folder / 'longer').write_bytes(b'0123456789 and more')
    for name in ('foreign', 'mine', 'new'):
        (folder / name).write_bytes(contents[name])
    storage.put_object(Bucket=SCOPE, Key=f'{unique}/foreign', Body=b'not theirs')
    storage.put_object(Bucket=SCOPE, Key=f'{unique}/mine', Body=contents['mine'])

    told = refused(upload(site, folder, unique))

    assert 'data/changed differs from' in told
    assert 'data/longer has 19 bytes' in told
    assert f'data/foreign {RSE} has an object of this name with different content' in told
    assert '1 file uploaded' in told
    assert '1 already on the storage and now registered' in told
    assert '3 FAILED' in told
    stored = {name: storage.get_object(Bucket=SCOPE, Key=f'{unique}/{name}')['Body'].read() for name in contents}
    assert stored == {**contents, 'foreign': b'not theirs'}
    registered = {each['name'].rpartition('/')[2] for each in site.alice.call('list_content', SCOPE, unique)}
    assert registered == set(contents) - {'foreign'}


def test_what_is_missing_on_either_side_is_mended(site: Site, unique: str, tmp_path: Path) -> None:
    contents = make(tmp_path / 'data', {'lost': 100, 'copying': 100, 'detached': 100, 'elsewhere': 100, 'right': 100})
    elsewhere = tmp_path / 'data' / 'elsewhere'
    site.alice.rucio('upload', '--rse', 'TLS_S3', '--scope', SCOPE, '--lfn', f'{unique}/elsewhere', str(elsewhere))
    elsewhere.rename(tmp_path / 'elsewhere')
    ok(upload(site, tmp_path / 'data', unique))
    (tmp_path / 'elsewhere').rename(elsewhere)
    site.storages[RSE].client().delete_object(Bucket=SCOPE, Key=f'{unique}/lost')
    site.alice.calls(
        ('update_replicas_states', RSE, [{'scope': SCOPE, 'name': f'{unique}/copying', 'state': 'C'}]),
        ('detach_dids', SCOPE, unique, [{'scope': SCOPE, 'name': f'{unique}/detached'}]),
    )

    told = ok(upload(site, tmp_path / 'data', unique))

    assert '2 files uploaded' in told
    assert set(site.objects(RSE, f'{unique}/')) == {f'{unique}/{name}' for name in contents}
    replicas = site.alice.call('list_replicas', [{'scope': SCOPE, 'name': unique}], all_states=True)
    assert {each['name'].rpartition('/')[2]: each['states'].get(RSE) for each in replicas} == dict.fromkeys(contents, 'AVAILABLE')


@pytest.mark.parametrize('name', ['with a blank', 'ümlaut', 'sub/a:b'])
def test_a_name_that_rucio_refuses_is_told_before_anything_is_sent(site: Site, unique: str, tmp_path: Path, name: str) -> None:
    make(tmp_path / 'data', {'good': 10, name: 10})

    told = refused(upload(site, tmp_path / 'data', unique))

    assert f'{unique}/{name}' in told
    assert 'Nothing was uploaded' in told
    assert site.objects(RSE, unique) == {}
    assert f'{SCOPE}:{unique}' not in site.alice.rucio('did', 'list', f'{SCOPE}:{unique}*').stdout


def test_a_missing_bucket_is_told_before_anything_is_registered(site: Site, unique: str, tmp_path: Path) -> None:
    scope = f'user.{unique}'
    site.root.call('add_scope', 'alice', scope)
    make(tmp_path / 'data', {'file': 10})

    told = refused(site.alice.rucio('s3', 'upload', str(tmp_path / 'data'), f'{scope}:x', '--rse', RSE))

    assert f'rucio s3 make-bucket {scope}' in told
    assert site.alice.rucio('did', 'list', f'{scope}:*').stdout.count(scope) == 0


def test_a_closed_dataset_is_refused(site: Site, unique: str, tmp_path: Path) -> None:
    make(tmp_path / 'data', {'file': 10})
    site.alice.calls(('add_dataset', SCOPE, unique), ('close', SCOPE, unique))

    assert 'is closed' in refused(upload(site, tmp_path / 'data', unique))
    assert site.objects(RSE, unique) == {}


def test_a_dataset_without_a_rule_there_gets_one(site: Site, unique: str, tmp_path: Path) -> None:
    make(tmp_path / 'data', {'file': 10})
    site.alice.call('add_dataset', SCOPE, unique)

    assert 'Made a rule' in ok(upload(site, tmp_path / 'data', unique))
    assert [rule['rse_expression'] for rule in site.alice.call('list_did_rules', SCOPE, unique)] == [RSE]


def test_one_bucket_for_an_rse(site: Site, unique: str, tmp_path: Path) -> None:
    storage = site.storages[RSE]
    storage.client().create_bucket(Bucket=unique)
    rse = site.add_rse(f'{unique}_S3'.upper(), storage, prefix=f'/{unique}/some/path/', attributes={'lfn2pfn_algorithm': 'hash'})
    site.alice.configure({f's3:{rse}': {'access_key': storage.access_key, 'secret_key': storage.secret_key}})
    make(tmp_path / 'data', {'a': 10, 'b/c': 20})

    for sent in (2, 0):
        done = site.alice.rucio('s3', '--robot', 'upload', str(tmp_path / 'data'), f'{SCOPE}:{unique}', '--rse', rse)
        assert summary(done) == {'sent': sent, 'bytes': 15 * sent, 'registered': 0, 'there': 2 - sent, 'failed': 0}, done.stderr
    assert sorted(site.objects(rse, bucket=unique).values()) == [10, 20]


@pytest.mark.parametrize('kind', ['vended_team', pytest.param('signed_team', marks=pytest.mark.long)])
def test_an_account_without_keys_and_an_rse_that_rucio_knows(request: pytest.FixtureRequest, kind: str, unique: str, tmp_path: Path) -> None:
    team: Team = request.getfixturevalue(kind)
    ok(team.owner.rucio('s3', 'make-bucket', team.scope, '--rse', team.rse))
    contents = make(tmp_path / 'data', {'a': 10, 'b/large': 20 * MiB, 'empty': 0})

    def run() -> Any:
        """For some seconds each process of the server may not have heard of a new RSE."""
        done = team.owner.rucio('s3', 'upload', str(tmp_path / 'data'), f'{team.scope}:{unique}')
        return None if 'no quota on any S3 RSE' in done.stderr else done

    told = ok(until(run))

    assert f'{team.scope}:{unique} on {team.rse}: 3 files uploaded' in told
    assert {key: size for key, size in team.objects().items() if key.startswith(unique)} == {f'{unique}/{name}': len(each) for name, each in contents.items()}
    assert '3 already registered' in ok(until(run))


def test_urls_that_a_stock_server_signs(site: Site, unique: str, tmp_path: Path) -> None:
    """In Rucio 38 the generic policy lets nobody but root have URLs signed."""
    rse, storage = f'{unique}_S3'.upper(), site.storages['TLS_S3']
    site.add_rse(rse, storage, attributes={'sign_url': 's3'}, settings={'auth': 'presigned'})
    site.root.server.set_rse_keys(site.ids[rse], storage.access_key, storage.secret_key)
    user = RucioCli.root(tmp_path / 'user', site.root.server, {'s3': {'ca_bundle': str(storage.ca_bundle)}})
    contents = make(tmp_path / 'data', {'a': 10, 'b/large': 20 * MiB, 'there': 10, 'foreign': 10})
    storage.client().put_object(Bucket=SCOPE, Key=f'{unique}/there', Body=contents['there'])
    storage.client().put_object(Bucket=SCOPE, Key=f'{unique}/foreign', Body=b'not theirs')

    first, second = (user.rucio('s3', '--robot', 'upload', str(tmp_path / 'data'), f'{SCOPE}:{unique}', '--rse', rse) for _ in range(2))

    assert summary(first) == {'sent': 2, 'bytes': 20 * MiB + 10, 'registered': 1, 'there': 0, 'failed': 1}, first.stderr
    assert summary(second) == {'sent': 0, 'bytes': 0, 'registered': 0, 'there': 3, 'failed': 1}, second.stderr
    assert site.objects(rse, f'{unique}/') == {f'{unique}/{name}': len(content) for name, content in contents.items()}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason='this machine has one processor: nothing is shared')
@pytest.mark.parametrize('verb', ['upload', 'download'])
def test_files_of_a_killed_process_fail_and_come_with_the_next_run(site: Site, unique: str, tmp_path: Path, verb: str) -> None:
    """Many small files are shared by several processes, one of which the system may end when memory is short."""
    data, back = tmp_path / 'data', tmp_path / 'back'
    contents = make(data, {f'{number:04}': KiB for number in range(1000)})
    if verb == 'download':
        ok(upload(site, data, unique))
    arguments = {'upload': [str(data), f'{SCOPE}:{unique}', '--rse', RSE], 'download': [f'{SCOPE}:{unique}', str(back)]}[verb]
    process = site.alice.popen('rucio', 's3', verb, *arguments)
    children = Path(f'/proc/{process.pid}/task/{process.pid}/children')
    until(lambda: len(children.read_text().split()) >= 2, process)
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    said, _ = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 1, said
    assert 'was killed' in said
    assert 'Traceback' not in said
    ok(site.alice.rucio('s3', verb, *arguments))
    if verb == 'upload':
        assert set(site.objects(RSE, f'{unique}/')) == {f'{unique}/{name}' for name in contents}
    else:
        assert {path.name: path.read_bytes() for path in back.iterdir()} == contents


@pytest.mark.long
@pytest.mark.parametrize('verb', ['upload', 'download'])
def test_a_storage_that_hangs_does_not_hold_who_stops_it(site: Site, unique: str, tmp_path: Path, verb: str) -> None:
    """A request may wait for a minute, and the next one as well."""
    data, back = tmp_path / 'data', tmp_path / 'back'
    make(data, {f'{number:04}': KiB for number in range(2000)})
    if verb == 'download':
        ok(upload(site, data, unique))
    arguments = {'upload': [str(data), f'{SCOPE}:{unique}', '--rse', RSE], 'download': [f'{SCOPE}:{unique}', str(back)]}[verb]
    process = site.alice.popen('rucio', 's3', verb, *arguments)
    until(lambda: len(site.objects(RSE, f'{unique}/') if verb == 'upload' else [*back.glob('*')]) >= 50, process)
    server = site.storages[RSE]._process
    assert server is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=45) == 130
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert [*tmp_path.rglob('.rucio-s3-*')] == []
