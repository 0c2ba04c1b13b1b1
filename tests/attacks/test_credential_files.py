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

"""The attacker has a login on the machine where keys are written to files: he opens, plants, links and replaces what he can reach.

What needs two accounts: root gives files away; for anybody else, the account pretends to be another one.
"""

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rucio.cli.s3 import private
from rucio.common.exception import InputValidationError
from rucio.common.s3.formats import FORMATS
from servers.cli import RucioCli
from servers.fake_rucio import FakeRucio
from servers.files import command_path

KEYS = {
    'rse': 'X',
    'url': 'http://127.0.0.1:1',
    'region': 'us-east-1',
    'bucket': 'user.alice',
    'prefix': '',
    'write': True,
    'expiration': '2999-01-01T00:00:00Z',
    'access_key': 'ASIAEXAMPLE',
    'secret_key': 'secret-of-alice',
    'session_token': 'token-of-alice',
}
ANSWERS = {'/s3/credentials': KEYS, '/s3/rses/X': {'rse': 'X', 'url': 'http://127.0.0.1:1', 'auth': ['vended']}}


@pytest.fixture
def own(tmp_path):
    """A directory that nobody else reaches."""
    folder = tmp_path / 'own'
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def reached(tmp_path):
    """A directory that everybody reaches, as /tmp/x is. pytest's own is closed further up."""
    folder = Path(os.path.realpath('/tmp')) / f'rucio-s3-attack-{os.getpid()}-{tmp_path.name[-8:]}'
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    yield folder
    for each in folder.iterdir():
        each.unlink()
    folder.rmdir()


@pytest.fixture
def stranger(monkeypatch):
    """Call it with paths: they are another account's from now on. Only root can do that; for others the account changes instead."""

    def make(*paths):
        if os.geteuid():
            monkeypatch.setattr(os, 'geteuid', lambda: 4_242_424)
        else:
            for path in paths:
                os.chown(path, 4_242_424, -1, follow_symlinks=False)

    return make


@pytest.fixture(scope='module')
def alice(tmp_path_factory):
    with FakeRucio(lambda asked: (200, ANSWERS[asked.path], {}) if asked.path in ANSWERS else (404, None, {})) as server:
        yield RucioCli(tmp_path_factory.mktemp('alice'), server, 'alice', 'alice', 'p')


def written(text):
    return lambda _: text


# `rucio s3 credentials > FILE`


def redirected(alice, path, umask, *arguments):
    """As a shell does it."""
    command = f'umask {umask}; exec "$0" s3 credentials user.alice "$@" > {path}'
    return subprocess.run(
        ['/bin/sh', '-c', command, command_path('rucio'), *arguments], env=alice.environment, stderr=subprocess.PIPE, text=True, check=False, timeout=120
    )


def test_who_opened_the_output_first_reads_nothing(alice, reached):
    """Was got: the keys, by whoever opened FILE in the second before its mode was changed (README's own example)."""
    path = reached / 'config.json'
    found = []

    def attack():
        while not path.exists() and not stop.is_set():
            pass
        descriptor = os.open(path, os.O_RDONLY)
        stop.wait()
        found.append(os.read(descriptor, 10_000))
        os.close(descriptor)

    stop = threading.Event()
    thread = threading.Thread(target=attack)
    thread.start()
    done = redirected(alice, path, '022')
    stop.set()
    thread.join()
    assert found == [b'']
    assert done.returncode != 0
    assert '--write' in done.stderr
    assert 'secret-of-alice' not in done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_line_of_the_readme_works_in_a_home_that_is_closed(alice, own):
    """The line that users were promised."""
    done = redirected(alice, own / 'config.json', '022')
    assert done.returncode == 0, done.stderr
    assert 'secret-of-alice' in (own / 'config.json').read_text()
    assert stat.S_IMODE((own / 'config.json').stat().st_mode) == 0o600


def test_a_umask_is_enough(alice, reached):
    """A file that was never open to others may lie anywhere."""
    done = redirected(alice, reached / 'config.json', '077')
    assert done.returncode == 0, done.stderr
    assert 'secret-of-alice' in (reached / 'config.json').read_text()


@pytest.mark.parametrize('mode', [0o644, 0o604, 0o602, 0o666])
def test_an_output_that_others_could_have_opened_is_refused(reached, mode):
    """Would be got: the keys, through a descriptor from before."""
    path = reached / 'file'
    path.touch()
    path.chmod(mode)
    with path.open('w') as file, pytest.raises(InputValidationError, match='--write'):
        private.need_private_output(file)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_output_of_another_account_is_refused(own, stranger):
    """Would be got: the attacker makes /tmp/keys with mode 666 before the user writes there. It is his, and he reads it."""
    with (own / 'file').open('w') as file:
        stranger(own / 'file')
        with pytest.raises(InputValidationError, match='belongs to another account'):
            private.need_private_output(file)


def test_a_pipe_that_somebody_planted_is_refused(reached, stranger):
    """Would be got: /tmp/keys is a named pipe, and at its other end reads who made it."""
    path = reached / 'pipe'
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    with open(descriptor, 'w') as file:
        stranger(path)
        with pytest.raises(InputValidationError, match='belongs to another account'):
            private.need_private_output(file)


def test_an_output_with_another_name_is_refused(own, reached):
    """Would be got: the file has a second name where others reach it."""
    path = own / 'file'
    path.touch(mode=0o644)
    path.chmod(0o644)
    os.link(path, own / 'other')
    with path.open('w') as file, pytest.raises(InputValidationError):
        private.need_private_output(file)


def test_a_file_that_was_removed_is_refused(own):
    """Would be got: the attacker opened the file and removed it, so that nothing tells where it was."""
    path = own / 'file'
    path.touch(mode=0o644)
    path.chmod(0o644)
    with path.open('w') as file:
        path.unlink()
        with pytest.raises(InputValidationError):
            private.need_private_output(file)


def test_pipes_and_terminals_are_left_alone(own):
    """`rucio s3 credentials --format process` is read through a pipe, and eval "$(...)" as well."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, 'w') as file:
        private.need_private_output(file)
    with open(os.devnull, 'w') as file:
        private.need_private_output(file)


def test_the_output_is_closed_before_anything_else(own):
    """The window that is left is that of the shell: the mode changes before Rucio is imported, which takes a second."""
    (own / 'rucio').write_text('import sys; assert "rucio" not in sys.modules')
    for words, mode in (('s3 credentials', 0o600), ('s3 presign a:b', 0o600), ('s3 ls', 0o644)):
        path = own / words.replace(' ', '-')
        command = f'umask 022; exec "$0" {own}/rucio {words} > {path}'
        subprocess.run(['/bin/sh', '-c', command, sys.executable], check=True, env={})
        assert stat.S_IMODE(path.stat().st_mode) == mode


# `--write` and `--file`


def test_a_file_is_closed_from_its_first_byte(own, monkeypatch):
    """Would be got: what is written before the mode is changed."""
    seen = []
    fsync = os.fsync
    monkeypatch.setattr(os, 'fsync', lambda descriptor: (seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode)), fsync(descriptor)))
    before = os.umask(0)
    try:
        private.replace(str(own / 'new' / 'file'), written('x'))
    finally:
        os.umask(before)
    assert seen == [0o600]
    assert stat.S_IMODE((own / 'new').stat().st_mode) == 0o700


def test_who_has_the_old_file_open_reads_the_old_one(own):
    """Would be got: the keys, by who opened a file of mode 644 long before."""
    path = own / 'file'
    path.write_text('old')
    path.chmod(0o644)
    with path.open() as opened:
        private.replace(str(path), written('new'))
        assert opened.read() == 'old'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_planted_link_is_not_followed(own, stranger):
    """Was got: --file /tmp/keys wrote to where a link of somebody else pointed, and took over what was in it."""
    target = own / 'target'
    target.write_text('old')
    (own / 'link').symlink_to(target)
    (own / 'dangling').symlink_to(own / 'nothing')
    stranger(own / 'link', own / 'dangling')
    for name in ('link', 'dangling'):
        with pytest.raises(InputValidationError):
            private.replace(str(own / name), written('new'))
    assert target.read_text() == 'old'
    assert not (own / 'nothing').exists()


def test_a_link_of_ones_own_is_followed(own):
    """~/.aws/credentials may well be a link into a directory of dotfiles."""
    (own / 'dotfiles').mkdir(mode=0o700)
    (own / 'link').symlink_to('dotfiles/credentials')
    private.replace(str(own / 'link'), written('new'))
    assert (own / 'link').is_symlink()
    assert (own / 'dotfiles' / 'credentials').read_text() == 'new'


def test_links_in_a_circle_end(own):
    (own / 'a').symlink_to('b')
    (own / 'b').symlink_to('a')
    with pytest.raises(InputValidationError, match='cannot be written'):
        private.replace(str(own / 'a'), written('new'))


def test_a_link_that_is_planted_in_the_last_moment_is_replaced(own):
    """Would be got: the link is put there after it was looked for, and the victim's own file is overwritten through it."""
    victim = own / 'authorized_keys'
    victim.write_text('ssh')

    def race(_):
        (own / 'file').symlink_to(victim)
        return 'new'

    private.replace(str(own / 'file'), race)
    assert victim.read_text() == 'ssh'
    assert not (own / 'file').is_symlink()


def test_what_is_no_file_is_not_replaced(own):
    """Would be got: /dev/null or a socket of root replaced by a file; a named pipe that is never written to, and hangs the command."""
    os.mkfifo(own / 'pipe')
    (own / 'folder').mkdir()
    listening = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(own)  # the name of a socket is short
    try:
        listening.bind('socket')
    finally:
        os.chdir(here)
    with listening:
        for name in (str(own / 'pipe'), str(own / 'folder'), str(own / 'socket'), '/dev/null'):
            with pytest.raises(InputValidationError, match=r'regular file|cannot be written'):
                private.replace(name, written('new'))
    assert stat.S_ISFIFO((own / 'pipe').stat().st_mode)


def test_a_file_with_a_second_name_is_left_alone(own):
    """Would be got: the old keys, through a hard link from elsewhere that nobody cleans up."""
    (own / 'file').write_text('old')
    os.link(own / 'file', own / 'other')
    with pytest.raises(InputValidationError, match='hard link'):
        private.replace(str(own / 'file'), written('new'))


def test_a_file_of_somebody_else_is_not_read(own, stranger, monkeypatch):
    """Would be got: /tmp/credentials, made by the attacker with a credential_process in [default], is merged into, and used from then on."""
    (own / 'file').write_text('[default]\ncredential_process = evil\n')
    monkeypatch.setattr(private, '_need_own_folder', lambda *_: None)
    stranger(own / 'file')
    with pytest.raises(InputValidationError, match='belongs to another account'):
        private.replace(str(own / 'file'), lambda old: old + 'keys')


@pytest.mark.parametrize('mode', [0o777, 0o722, 0o1777])
def test_a_directory_that_others_may_write_to(own, mode):
    """Would be got: the file is replaced by the attacker's, whose credential_process the tool then runs. /tmp is sticky, and does."""
    folder = own / 'shared'
    folder.mkdir()
    folder.chmod(mode)
    if mode & stat.S_ISVTX:
        private.replace(str(folder / 'file'), written('new'))
        assert stat.S_IMODE((folder / 'file').stat().st_mode) == 0o600
    else:
        with pytest.raises(InputValidationError, match='ther accounts can write'):
            private.replace(str(folder / 'file'), written('new'))
        assert list(folder.iterdir()) == []


def test_a_directory_of_somebody_else(own, stranger):
    """Would be got: who owns the directory replaces the file when he likes."""
    stranger(own)
    with pytest.raises(InputValidationError, match='belongs to another account'):
        private.replace(str(own / 'file'), written('new'))


def test_every_format_has_a_way_into_a_closed_file(alice, own):
    """Would be got: a user redirects because there is no other way."""
    done = alice.rucio('s3', 'credentials', 'user.alice', '--format', 'json', '--file', str(own / 'file'))
    assert (done.returncode, done.stdout) == (0, ''), done.stderr
    assert stat.S_IMODE((own / 'file').stat().st_mode) == 0o600
    assert 'secret-of-alice' not in done.stderr
    for each in FORMATS.values():
        if not each.location({}):
            with pytest.raises(InputValidationError, match='would be lost'):
                each.merged('mine', [])
