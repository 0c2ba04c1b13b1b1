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


"""`rucio s3 reconcile`, `settings` and `watch`: other tools put, change and delete objects, and the stock commands see it."""

import hashlib
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from servers.cli import RucioCli
from servers.files import command_path
from servers.process import TIMEOUT
from servers.rest import Rest
from servers.team import Team, ok, refused, rows


@pytest.fixture
def team(vended_team: Team) -> Team:
    """How the clients are authorised is all the same to the server that reconciles. Where it signs, see test_where_the_server_signs."""
    return vended_team


@pytest.fixture
def put(team: Team, unique: str) -> Callable[..., str]:
    """Call it with what is below the test's folder and its content: another S3 client puts it there. Its key is returned."""
    ok(team.owner.rucio('s3', 'make-bucket', team.scope))

    def call(name: str, content: bytes) -> str:
        key = f'{unique}/{name}'
        team.storage.client().put_object(Bucket=team.scope, Key=key, Body=content)
        return key

    return call


class Report:
    """What `rucio s3 --robot reconcile` printed."""

    def __init__(self, done: 'subprocess.CompletedProcess[str]') -> None:
        assert 'Traceback' not in done.stdout + done.stderr
        self.code = done.returncode
        lines = [line.split('\t') for line in done.stdout.splitlines()]
        self.counts = {row[3]: int(row[4]) for row in lines if row[0] == 'count' and int(row[4])}
        self.problems = {row[4]: row[3:] for row in lines if row[0] == 'problem'}
        self.said = done.stdout + done.stderr


def reconcile(team: Team, *arguments: str) -> Report:
    return Report(team.owner.rucio('s3', '--robot', 'reconcile', *arguments))


def download(user: RucioCli, did: str, directory: Path) -> dict[str, bytes]:
    """What the stock command gets: below the scope's directory, or the dataset's."""
    user.rucio('download', '--dir', str(directory), did)
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob('*') if path.is_file()}


def listed(team: Team, name: str) -> set[str]:
    """By the stock command."""
    done = team.owner.rucio('ls', '--short', '--filter', 'type=ALL', f'{team.scope}:{name}*')
    return {line.strip() for line in done.stdout.splitlines() if line.strip()}


def file_of(team: Team, name: str) -> dict[str, Any]:
    return dict(team.owner.call('get_metadata', team.scope, name))


# What others put


@pytest.mark.smoke
def test_what_others_put_is_there_for_the_stock_commands(team: Team, put: Callable[..., str], unique: str, tmp_path: Path) -> None:
    contents = {'a.root': b'12345', 'deep/er/b.root': bytes(range(256)) * 100, 'empty': b''}
    for name, content in contents.items():
        put(name, content)
    did = f'{team.scope}:{unique}'

    first = ok(team.owner.rucio('s3', 'reconcile', did))
    again = ok(team.owner.rucio('s3', 'reconcile', did))

    assert f'{did} on {team.rse}:' in first
    assert 'new: not in the catalogue' in first
    assert 'FAILED' not in first
    assert 'there was nothing to do' in again
    assert did in team.owner.rucio('ls', did).stdout
    assert {row.split()[1] for row in team.owner.rucio('list-files', did).stdout.splitlines() if f'{did}/' in row} == {f'{did}/{name}' for name in contents}
    assert download(team.owner, f'{did}/a.root', tmp_path / 'one') == {f'{team.scope}/{unique}/a.root': b'12345'}
    whole = download(team.owner, did, tmp_path / 'all')
    assert {name.partition(f'{unique}/{unique}/')[2]: content for name, content in whole.items()} == contents
    known = file_of(team, f'{unique}/a.root')
    assert (known['bytes'], known['md5'], known['account']) == (5, hashlib.md5(b'12345').hexdigest(), team.owner.account)
    assert [rule['rse_expression'] for rule in team.owner.call('list_did_rules', team.scope, unique)] == [team.rse]


def test_where_the_server_signs(signed_team: Team, unique: str, tmp_path: Path) -> None:
    ok(signed_team.owner.rucio('s3', 'make-bucket', signed_team.scope))
    signed_team.storage.client().put_object(Bucket=signed_team.scope, Key=f'{unique}/a', Body=b'12345')
    ok(signed_team.owner.rucio('s3', 'reconcile', signed_team.scope))
    assert download(signed_team.owner, f'{signed_team.scope}:{unique}', tmp_path) == {f'{unique}/{unique}/a': b'12345'}


def test_a_dry_run_writes_nothing(team: Team, put: Callable[..., str], unique: str) -> None:
    put('a', b'1')
    done = team.owner.rucio('s3', 'reconcile', f'{team.scope}:{unique}', '--dry-run')
    assert '(dry run: nothing is changed)' in ok(done)
    report = reconcile(team, f'{team.scope}:{unique}', '--dry-run')
    assert report.counts == {'listed': 1, 'new': 1}
    assert listed(team, unique) == set()


def test_files_of_many_parts_have_a_checksum(team: Team, put: Callable[..., str], unique: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096 * 12
    put('small', b'1')
    file = tmp_path / 'large'
    file.write_bytes(content)
    team.storage.client().upload_file(str(file), team.scope, f'{unique}/large')  # boto3 sends more than 8 MiB in parts
    assert '-' in team.storage.client().head_object(Bucket=team.scope, Key=f'{unique}/large')['ETag']

    assert reconcile(team, f'{team.scope}:{unique}').counts['registered'] == 2
    assert file_of(team, f'{unique}/large')['md5'] == hashlib.md5(content).hexdigest()
    assert download(team.owner, f'{team.scope}:{unique}/large', tmp_path / 'got') == {f'{team.scope}/{unique}/large': content}
    assert reconcile(team, f'{team.scope}:{unique}').counts == {'listed': 2, 'same': 2}


def test_what_rucio_uploaded_is_nothing_new(team: Team, put: Callable[..., str], unique: str) -> None:
    ok(team.owner.rucio('s3', 'make-bucket', f'{team.scope}:{unique}'))
    team.upload(f'{unique}/by-rucio', b'12345', dataset=unique)
    put('by-others', b'12')
    assert reconcile(team, f'{team.scope}:{unique}').counts == {'listed': 2, 'same': 1, 'new': 1, 'registered': 1, 'bytes': 2}
    assert listed(team, f'{unique}/') == {f'{team.scope}:{unique}/by-rucio', f'{team.scope}:{unique}/by-others'}
    assert [rule['name'] for rule in team.owner.call('list_did_rules', team.scope, unique)] == [unique]


def test_keys_that_no_did_can_have_are_told(team: Team, put: Callable[..., str], unique: str) -> None:
    put('good', b'1')
    put('with space', b'1')
    put('tab\tand é', b'1')
    report = reconcile(team, f'{team.scope}:{unique}')
    assert report.counts['unnameable'] == 2
    assert report.counts['registered'] == 1
    assert f'{team.scope}:{unique}/with space' in report.problems
    assert 'Rename it' in report.problems[f'{team.scope}:{unique}/with space'][-1]
    assert rf'{team.scope}:{unique}/tab\tand é' in report.problems
    assert report.code == 0
    human = ok(team.owner.rucio('s3', 'reconcile', f'{team.scope}:{unique}'))
    assert human.count('Rename it') == 1
    assert f'{unique}/with space' in human


def test_one_file(team: Team, put: Callable[..., str], unique: str) -> None:
    put('a', b'1')
    put('b', b'1')
    reconcile(team, f'{team.scope}:{unique}')
    for name in ('a', 'b'):
        put(name, b'22')
    assert reconcile(team, f'{team.scope}:{unique}/a', '--on-changed', 'replace').counts['replaced'] == 1
    assert (file_of(team, f'{unique}/a')['bytes'], file_of(team, f'{unique}/b')['bytes']) == (2, 1)


def test_all_own_buckets_of_an_rse(team: Team, put: Callable[..., str], unique: str) -> None:
    second = f'user.{unique}'
    team.root.call('add_scope', team.owner.account, second)
    ok(team.owner.rucio('s3', 'make-bucket', second))
    put('a', b'1')
    team.storage.client().put_object(Bucket=second, Key='there/b', Body=b'2')
    done = team.owner.rucio('s3', '--robot', 'reconcile', team.rse)
    assert {row[1] for row in rows(done) if row[0] == 'count'} >= {team.scope, second}
    assert file_of(team, f'{unique}/a')['bytes'] == 1
    assert team.owner.call('get_metadata', second, 'there/b')['bytes'] == 1
    ok(team.owner.rucio('s3', 'remove-bucket', second, '--force'))


def test_others_may_not(team: Team, put: Callable[..., str], unique: str) -> None:
    put('a', b'1')
    for words in (('reconcile', team.scope), ('reconcile', f'{team.scope}:{unique}'), ('settings', team.scope), ('watch', team.scope)):
        assert 'may not' in refused(team.other.rucio('s3', *words))
    assert 'may not' in refused(team.other.rucio('s3', 'settings', team.scope, '--on-missing', 'forget'))
    files = {'scope': team.scope, 'rse': team.rse, 'files': [{'name': f'{unique}/a', 'bytes': 1, 'etag': hashlib.md5(b'1').hexdigest(), 'adler32': '00320032'}]}
    assert Rest(team.other)('POST', '/reconcile/files', files).status == 403
    assert listed(team, unique) == set()


def test_an_admin_syncs_for_the_owner(team: Team, put: Callable[..., str], unique: str) -> None:
    put('a', b'1')
    ok(team.root.rucio('s3', 'reconcile', f'{team.scope}:{unique}'))
    assert file_of(team, f'{unique}/a')['account'] == team.owner.account
    assert [rule['account'] for rule in team.owner.call('list_did_rules', team.scope, unique)] == [team.owner.account]


# What others changed


def test_what_others_changed_is_reported_and_then_replaced(team: Team, put: Callable[..., str], unique: str, tmp_path: Path) -> None:
    put('same', b'12345')
    put('changed', b'12345')
    put('rewritten', b'12345')
    did = f'{team.scope}:{unique}'
    reconcile(team, did)
    put('changed', b'1234567')
    put('rewritten', b'54321')

    human = ok(team.owner.rucio('s3', 'reconcile', did))
    report = reconcile(team, did)
    before = file_of(team, f'{unique}/changed')
    acted = reconcile(team, did, '--on-changed', 'replace')

    assert f'rucio s3 reconcile {did} --on-changed replace' in human
    assert 'the object has 7 bytes, the catalogue says 5' in human
    assert report.counts == {'listed': 3, 'same': 1, 'changed': 2}
    assert set(report.problems) == {f'{did}/changed', f'{did}/rewritten'}
    assert before['bytes'] == 5
    assert acted.counts == {'listed': 3, 'same': 1, 'changed': 2, 'replaced': 2}
    assert file_of(team, f'{unique}/changed')['bytes'] == 7
    assert reconcile(team, did).counts == {'listed': 3, 'same': 3}
    got = download(team.owner, did, tmp_path)
    assert sorted(got.values()) == [b'12345', b'1234567', b'54321']
    assert [each['bytes'] for each in team.owner.call('list_files', team.scope, f'{unique}/changed')] == [7]


# What others deleted


def test_what_others_deleted_is_reported_and_then_forgotten(team: Team, put: Callable[..., str], unique: str, tmp_path: Path) -> None:
    key = put('gone', b'12345')
    put('stays', b'12345')
    did = f'{team.scope}:{unique}'
    reconcile(team, did)
    team.storage.client().delete_object(Bucket=team.scope, Key=key)

    human = ok(team.owner.rucio('s3', 'reconcile', did))
    assert f'rucio s3 reconcile {did} --on-missing forget' in human
    assert f'{did}/gone' in listed(team, f'{unique}/')
    assert reconcile(team, did, '--on-missing', 'forget').counts == {'listed': 1, 'same': 1, 'missing': 1, 'forgotten': 1}

    assert listed(team, f'{unique}/') == {f'{did}/stays'}
    assert f'{did}/gone' not in team.owner.rucio('list-files', did).stdout
    assert reconcile(team, did).counts == {'listed': 1, 'same': 1}
    # The name is free.
    team.upload(f'{unique}/gone', b'anew', dataset=unique)
    assert download(team.owner, f'{did}/gone', tmp_path) == {f'{team.scope}/{unique}/gone': b'anew'}


# Settings


def test_settings_hold_for_later_runs(team: Team, put: Callable[..., str], unique: str) -> None:
    scope = f'user.{unique}'
    team.root.call('add_scope', team.owner.account, scope)
    ok(team.owner.rucio('s3', 'make-bucket', scope))
    client = team.storage.client()
    client.put_object(Bucket=scope, Key='run/a', Body=b'1')
    client.put_object(Bucket=scope, Key='run/b', Body=b'1')
    ok(team.owner.rucio('s3', 'reconcile', scope))
    client.put_object(Bucket=scope, Key='run/a', Body=b'22')
    client.delete_object(Bucket=scope, Key='run/b')

    assert rows(team.owner.rucio('s3', '-R', 'settings', scope)) == [['on-changed', 'report', 'RSE'], ['on-missing', 'report', 'RSE']]
    said = ok(team.owner.rucio('s3', 'settings', scope, '--on-changed', 'replace', '--on-missing', 'forget'))
    assert f'The bucket {scope} on {team.rse}:' in said
    assert rows(team.owner.rucio('s3', '-R', 'settings', scope)) == [['on-changed', 'replace', 'bucket'], ['on-missing', 'forget', 'bucket']]
    assert rows(team.owner.rucio('s3', '-R', 'settings', team.scope))[0] == ['on-changed', 'report', 'RSE']
    counts = reconcile(team, scope).counts
    assert (counts['replaced'], counts['forgotten']) == (1, 1)

    back = rows(team.owner.rucio('s3', '-R', 'settings', scope, '--on-missing', 'default'))
    assert back == [['on-changed', 'replace', 'bucket'], ['on-missing', 'report', 'RSE']]
    assert "'forget'" in refused(team.owner.rucio('s3', 'settings', scope, '--on-missing', 'vanish'), 2)
    assert 'give only the scope' in refused(team.owner.rucio('s3', 'settings', f'{scope}:run', '--on-missing', 'forget'))
    ok(team.owner.rucio('s3', 'remove-bucket', scope, '--force'))


# Watching


@contextmanager
def watching(team: Team, *arguments: str) -> 'Iterator[subprocess.Popen[str]]':
    """`rucio s3 watch`, when it has said that it began. It is ended if it takes too long."""
    words = [command_path('rucio'), 's3', *arguments]
    process = subprocess.Popen(
        words, env=team.owner.environment, cwd=team.owner.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    timer = threading.Timer(TIMEOUT, process.kill)
    timer.start()
    try:
        assert process.stderr is not None
        assert 'Watching' in process.stderr.readline()
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.communicate()


def test_watch_shows_what_happens(team: Team, put: Callable[..., str], unique: str) -> None:
    did = f'{team.scope}:{unique}'
    put('before', b'1')
    reconcile(team, did)
    with closing(sqlite3.connect(team.owner.server.directory / 'rucio.db', timeout=60)) as database, database:  # another content is news after a second
        database.execute("UPDATE dids SET created_at = '2001-01-01 00:00:00.000000' WHERE name = ?", [f'{unique}/before'])
    with watching(team, '--robot', 'watch', did, '--interval', '0.2') as process:
        assert process.stdout is not None

        def line() -> list[str]:
            return process.stdout.readline().rstrip('\n').split('\t')[1:]

        put('a', b'12345')
        put('other/b', b'12')
        reconcile(team, did)
        assert sorted([line(), line()]) == [['registered', f'{did}/a', '5'], ['registered', f'{did}/other/b', '2']]
        put('before', b'1234')
        reconcile(team, did, '--on-changed', 'replace')
        assert line() == ['updated', f'{did}/before', '4']
        team.storage.client().delete_object(Bucket=team.scope, Key=f'{unique}/a')
        reconcile(team, did, '--on-missing', 'forget')
        assert line() == ['removed', f'{did}/a', '5']
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, rest, said.strip()) == (0, '', '')


def test_watch_for_people(team: Team, unique: str) -> None:
    ok(team.owner.rucio('s3', 'make-bucket', team.scope))
    with watching(team, 'watch', team.scope, '--interval', '0.2') as process:
        team.upload(f'{unique}-file', b'12345')
        assert process.stdout is not None
        said = process.stdout.readline()
        while unique not in said:  # others may do something in this bucket, too
            said = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT)
    assert said.split()[1:] == ['registered', f'{team.scope}:{unique}-file', '5.000', 'B']
    assert time.strptime(said.split()[0], '%H:%M:%S')
    assert process.returncode == 0
