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

import os
import subprocess
import sys
import threading

import pytest

from rucio.common.s3 import partial_files
from rucio.common.s3.partial_files import is_partial, partial_file


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / 'folder'
    made.mkdir()
    return made


def write(path, content=b'new'):
    with open(path, 'r+b') as file:
        file.write(content)


def test_it_is_gone_at_the_end(folder):
    with pytest.raises(FileNotFoundError), partial_file(str(folder), 'f'):
        open(folder / 'missing')  # noqa: SIM115
    assert os.listdir(folder) == []


# A thread downloads while the process ends: as a daemon, it is not waited for.
_ENDS = """
import os, sys, threading
from rucio.common.s3.partial_files import partial_file
def download():
    with partial_file(sys.argv[1], 'f'):
        begun.set()
        threading.Event().wait()
begun = threading.Event()
threading.Thread(target=download, daemon=True).start()
begun.wait()
child = os.fork()
if child:
    os.waitpid(child, 0)
    print(len(os.listdir(sys.argv[1])))
"""


def test_it_is_gone_when_python_does_not_wait_for_its_thread(folder):
    """As after a second Ctrl-C in `rucio download` of several files. A child that was forked meanwhile leaves it alone."""
    done = subprocess.run([sys.executable, '-c', _ENDS, str(folder)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == '1\n'
    assert os.listdir(folder) == []


def test_at_the_end_of_the_process_only_its_own_unfinished_files_are_removed(folder, monkeypatch):
    monkeypatch.setattr(partial_files, '_open', {})
    with partial_file(str(folder), 'mine') as mine, partial_file(str(folder), 'child') as child, partial_file(str(folder), 'done') as done:
        partial_files._open[os.getpid() + 1, child] = partial_files._open.pop((os.getpid(), child))
        os.rename(done, folder / 'done')
        open(done, 'x').close()  # of somebody else
        partial_files._remove_open()
        assert not os.path.exists(mine)
        assert sorted(os.listdir(folder)) == sorted([os.path.basename(child), os.path.basename(done), 'done'])


def test_it_can_be_renamed(folder):
    with partial_file(str(folder), 'f') as path:
        write(path)
        os.replace(path, folder / 'f')
    assert os.listdir(folder) == ['f']
    assert (folder / 'f').read_bytes() == b'new'


def test_what_a_killed_download_left_is_replaced(folder):
    with partial_file(str(folder), 'f') as path:
        pass
    with open(path, 'wb') as left:
        left.write(b'much longer than what comes')
    with partial_file(str(folder), 'f') as again:
        assert again == path
        assert os.path.getsize(again) == 0
    assert os.listdir(folder) == []


def test_two_at_a_time_have_a_file_each(folder):
    with partial_file(str(folder), 'f') as one:
        write(one, b'one')
        with partial_file(str(folder), 'f') as other:
            assert other != one
            assert os.path.getsize(one) == 3
            os.replace(one, folder / 'f')
        assert os.listdir(folder) == ['f']


def test_who_waited_for_a_complete_file_does_not_empty_it(folder, monkeypatch):
    """It is renamed between the opening of its old name and the lock."""
    with partial_file(str(folder), 'f') as path:
        pass
    with open(path, 'xb') as file:
        file.write(b'complete')
    lock = partial_files.fcntl.flock

    def renamed(descriptor, how):
        os.replace(path, folder / 'f')
        lock(descriptor, how)

    monkeypatch.setattr(partial_files.fcntl, 'flock', renamed)
    with partial_file(str(folder), 'f') as other:
        assert other != path
    assert (folder / 'f').read_bytes() == b'complete'


def test_such_a_file_is_known_by_its_name(folder):
    with partial_file(str(folder), 'f') as path, partial_file(str(folder), 'f') as other:
        assert os.path.dirname(path) == os.path.dirname(other) == str(folder)
        assert is_partial(os.path.basename(path))
        assert is_partial(os.path.basename(other))
    assert not any(
        map(
            is_partial,
            ('f', '.rucio-s3-', '.rucio-s3-0123456789abcde', '.rucio-s3-0123456789abcdef0', 'x.rucio-s3-0123456789abcdef', '.rucio-s3-0123456789abcdeg'),
        )
    )


def test_it_may_be_read_by_whom_the_user_lets(folder):
    mask = os.umask(0o027)
    try:
        with partial_file(str(folder), 'f') as path, partial_file(str(folder), 'f') as other:
            assert [os.stat(each).st_mode & 0o7777 for each in (path, other)] == [0o640, 0o640]
    finally:
        os.umask(mask)


def test_nothing_is_left_open(folder):
    def opened():
        return len(os.listdir('/proc/self/fd'))

    before = opened()
    with partial_file(str(folder), 'f') as path, partial_file(str(folder), 'f'):
        assert opened() == before + 2
    folder.joinpath('victim').write_bytes(b'')
    os.link(folder / 'victim', path)
    with partial_file(str(folder), 'f'):
        assert opened() == before + 1
    assert opened() == before
    assert partial_files._open == {}


def test_the_file_of_another_user_is_left_alone(folder, monkeypatch):
    with partial_file(str(folder), 'f') as path:
        pass
    with open(path, 'xb') as file:
        file.write(b'theirs')
    user = os.geteuid()
    monkeypatch.setattr(os, 'geteuid', lambda: user + 1)
    with partial_file(str(folder), 'f') as other:
        assert other != path
    assert os.listdir(folder) == [os.path.basename(path)]


def test_no_file_is_made_where_a_link_leads_to(folder):
    with partial_file(str(folder), 'f') as path:
        pass
    os.symlink(folder / 'elsewhere', path)
    with partial_file(str(folder), 'f') as other:
        assert other != path
    assert os.listdir(folder) == [os.path.basename(path)]


@pytest.mark.parametrize('kind', ['symlink', 'hard link', 'directory', 'pipe'])
def test_what_somebody_planted_is_left_alone(folder, kind):
    victim = folder / 'victim'
    victim.write_bytes(b'precious')
    with partial_file(str(folder), 'f') as path:
        pass
    {
        'symlink': lambda: os.symlink(victim, path),
        'hard link': lambda: os.link(victim, path),
        'directory': lambda: os.mkdir(path),
        'pipe': lambda: os.mkfifo(path),
    }[kind]()
    with partial_file(str(folder), 'f') as other:
        assert other != path
        write(other)
    assert victim.read_bytes() == b'precious'
    assert sorted(os.listdir(folder)) == sorted(['victim', os.path.basename(path)])


def test_a_file_system_without_locks(folder, monkeypatch):
    def refuse(*_):
        raise OSError(37, 'No locks available')

    monkeypatch.setattr(partial_files.fcntl, 'flock', refuse)
    with partial_file(str(folder), 'f') as path:
        write(path)
    assert os.listdir(folder) == []
    digest = partial_files.hashlib.sha256(b'f').hexdigest()[:16]
    folder.joinpath('victim').write_bytes(b'precious')
    os.link(folder / 'victim', folder / f'.rucio-s3-{digest}')
    with partial_file(str(folder), 'f'):
        pass
    assert sorted(os.listdir(folder)) == sorted([f'.rucio-s3-{digest}', 'victim'])


def test_without_locks_the_file_of_another_download_stays(folder, monkeypatch):
    """Which began when the one that was there was complete."""
    with partial_file(str(folder), 'f') as path:
        pass

    def refuse(*_):
        os.rename(path, folder / 'f')
        with open(path, 'xb') as file:
            file.write(b'of another')
        raise OSError(37, 'No locks available')

    monkeypatch.setattr(partial_files.fcntl, 'flock', refuse)
    with partial_file(str(folder), 'f') as other:
        assert other != path
    assert sorted(os.listdir(folder)) == sorted([os.path.basename(path), 'f'])


def test_long_names_and_bytes_that_are_no_text(folder):
    for name in ('x' * 255, os.fsdecode(b'\xff\xfe')):
        with partial_file(str(folder), name) as path:
            write(path)


def test_a_file_that_is_kept_has_its_content_the_next_time(folder):
    keep = threading.Event()
    with partial_file(str(folder), 'f', keep) as path:
        write(path)
        keep.set()
    with partial_file(str(folder), 'f', threading.Event()) as again:
        assert again == path
        assert open(again, 'rb').read() == b'new'  # noqa: SIM115
    assert os.listdir(folder) == []


def test_who_keeps_nothing_finds_nothing(folder):
    keep = threading.Event()
    with partial_file(str(folder), 'f', keep) as path:
        write(path)
        keep.set()
    with partial_file(str(folder), 'f') as again:
        assert os.path.getsize(again) == 0
    assert os.listdir(folder) == []


def test_a_file_that_nobody_would_look_for_is_not_kept(folder):
    keep = threading.Event()
    with partial_file(str(folder), 'f'), partial_file(str(folder), 'f', keep):
        keep.set()
    assert os.listdir(folder) == []


def test_a_file_that_may_be_kept_stays_when_python_does_not_wait_for_its_thread(folder):
    code = _ENDS.replace("partial_file(sys.argv[1], 'f')", "partial_file(sys.argv[1], 'f', threading.Event())")
    subprocess.run([sys.executable, '-c', code, str(folder)], capture_output=True, timeout=60, check=True)
    assert len(os.listdir(folder)) == 1
