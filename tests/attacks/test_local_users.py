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

"""Somebody with a login on the same machine, or with names in the catalogue: links, directories and options that a user's commands come across."""

import os
from pathlib import Path

import pytest

from rucio.client.s3files.directory import walk
from servers.cli import RucioCli
from servers.rest import Rest
from servers.team import Team, ok


@pytest.fixture
def shared_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which another user (4242) may write, too. Who reads it is nobody whose files are here."""
    folder = tmp_path / 'run7'
    folder.mkdir()
    folder.joinpath('data').write_bytes(b'data')
    monkeypatch.setattr(os, 'geteuid', lambda: 99_999)
    return folder


def link(folder: Path, name: str, to: str) -> None:
    """A link that a user makes who is neither root nor the owner of what it leads to."""
    (folder / name).symlink_to(to)
    if os.getuid() == 0:
        os.lchown(folder / name, 4242, -1)


def test_a_link_to_a_secret_in_a_folder_that_is_uploaded(shared_folder: Path) -> None:
    """``run7/notes -> /etc/shadow`` in a folder that a group fills: who has it uploaded (root's cron job) stores the secret where the group reads it."""
    link(shared_folder, 'notes', '/etc/hosts')
    told = []
    assert [name for _, name in walk(str(shared_folder), lambda path, reason: told.append((os.path.basename(path), reason)))] == ['data']
    assert told == [('notes', 'is a link to a file of another user than the one who made the link. To upload it, make the link yourself')]


def test_a_link_to_a_directory_in_a_folder_that_is_uploaded(shared_folder: Path) -> None:
    """The same with a directory: ``run7/home -> /home/alice``."""
    link(shared_folder, 'home', '/etc')
    told = []
    assert [name for _, name in walk(str(shared_folder), lambda path, _: told.append(os.path.basename(path)))] == ['data']
    assert told == ['home']


def test_ones_own_links_are_followed(shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side of the guard."""
    monkeypatch.undo()
    (shared_folder / 'hosts').symlink_to('/etc/hosts')
    assert [name for _, name in walk(str(shared_folder), pytest.fail)] == ['data', 'hosts']


def test_code_in_the_current_directory(tmp_path: Path, team_root: RucioCli) -> None:
    """A folder with a ``rucio/`` of its own in which a user types `rucio s3`: the plugin runs at each start of Python, and must load nothing from there."""
    for package in ('rucio', 'boto3', 'rucio_s3_plugin', 'rucio_s3_policy'):
        (tmp_path / package).mkdir()
        (tmp_path / package / '__init__.py').write_text(f'open({str(tmp_path / "ran")!r}, "w").close()\n')
    assert 'make-bucket' in team_root.rucio('s3', '--help', cwd=tmp_path).stdout
    assert not (tmp_path / 'ran').exists()


def test_names_that_are_options_or_commands(signed_team: Team) -> None:
    """A collection whose name a shell or another client would take for something else. There can be none, so none reaches `rucio s3 exec` or `url`."""
    owner = Rest(signed_team.owner, '')
    for name in (
        '--help',
        '-rf',
        '--rse=X',
        '--endpoint-url=http://127.0.0.1:1',
        '@file',
        '$(id)',
        '`id`',
        'a;id',
        'a b',
        '%s',
        'a\nb',
        '../x',
        '~/x',
        'a|b',
        "a'b",
    ):
        rse, account = {'rse': signed_team.rse}, {'account': signed_team.other.account}
        for path, more in (('/s3/buckets', rse), ('/s3/grants', account), ('/s3/credentials', rse), ('/s3/reconcile', rse)):
            answer = owner('POST', path, {'scope': signed_team.scope, 'name': name, **more})
            assert (answer.status, 'has no parameter' in answer.text) == (400, False), (path, name)


def test_exec_runs_what_was_asked_for_and_no_shell(vended_team: Team, tmp_path: Path) -> None:
    """Arguments of `rucio s3 exec` with the signs of a shell in them: they reach the command as they are."""
    words = (f'; touch {tmp_path}/ran', '$(id)', '--version')
    assert ok(vended_team.owner.rucio('s3', 'exec', vended_team.scope, '--rse', vended_team.rse, '--', '/bin/printf', '%s|', *words)) == '|'.join([*words, ''])
    assert not (tmp_path / 'ran').exists()
