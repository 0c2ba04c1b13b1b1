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


"""Progress bars: when there are any."""

import io
import re
import sys
import threading

import pytest

from rucio.common.s3 import progress

LARGE = progress.SHOWN_FROM


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stderr(monkeypatch):
    """Call it for a new stderr; not in a fixture, as pytest has its own back before the test begins."""

    def replace(kind, *options):
        shown = kind()
        monkeypatch.setattr(sys, 'stderr', shown)
        monkeypatch.setattr(sys, 'argv', ['rucio', *options, 'upload'])
        return shown

    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('COLUMNS', '120')
    return replace


def test_a_person_at_a_terminal_sees_name_and_progress(stderr):
    terminal = stderr(Terminal)
    with progress.meter('auto', 'file.root', LARGE) as step:
        step(LARGE // 2)
        progress._display.refresh()
        assert 'file.root' in terminal.getvalue()
        assert '8.4/16.8 MB' in terminal.getvalue()
        assert re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', terminal.getvalue()).rpartition('\r')[2].startswith('file.root ')


def test_nothing_is_shown_where_nobody_looks_on(stderr):
    shown = stderr(io.StringIO)
    with progress.meter('auto', 'file.root', LARGE) as step:
        assert step is None
    assert shown.getvalue() == ''


@pytest.mark.parametrize('option', ['-R', '--robot'])
def test_nothing_is_shown_in_robot_use(stderr, option):
    terminal = stderr(Terminal, option)
    with progress.meter('auto', 'file.root', LARGE) as step:
        assert step is None
    assert terminal.getvalue() == ''


def test_nothing_is_shown_of_small_files(stderr):
    terminal = stderr(Terminal)
    with progress.meter('auto', 'file.root', LARGE - 1) as step:
        assert step is None
    assert terminal.getvalue() == ''


def test_off_is_off_even_at_a_terminal(stderr):
    stderr(Terminal)
    with progress.meter('off', 'file.root', LARGE) as step:
        assert step is None


def test_on_is_on_even_without_a_terminal(stderr):
    stderr(io.StringIO)
    with progress.meter('on', 'file.root', LARGE) as step:
        assert step is not None


def test_transfers_of_several_threads_share_one_display_that_ends_with_the_last(stderr):
    stderr(Terminal)
    inside, displays = threading.Barrier(4), []

    def transfer():
        with progress.meter('on', 'f', LARGE) as step:
            step(1)
            displays.append(progress._display)
            inside.wait(60)

    threads = [threading.Thread(target=transfer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(display) for display in displays}) == 1
    assert progress._display is None
    assert not displays[0].live.is_started


def test_the_display_stays_until_the_last_transfer_has_ended(stderr):
    stderr(Terminal)
    with progress.meter('on', 'long', LARGE) as step:
        display = progress._display
        with progress.meter('on', 'short', LARGE):
            assert [task.description for task in display.tasks] == ['long', 'short']
        assert display.live.is_started
        step(1)
        assert [(task.description, task.completed) for task in display.tasks] == [('long', 1)]
    assert not display.live.is_started


def test_a_name_is_shown_as_it_is_and_nothing_else_goes_through_the_display(stderr):
    terminal = stderr(Terminal)
    stdout = sys.stdout
    with progress.meter('on', '[bold]a\x1b[31m', LARGE):
        assert (sys.stdout, sys.stderr) == (stdout, terminal)
        progress._display.refresh()
        assert '[bold]a' in terminal.getvalue()
        assert 'a\x1b[31m' not in terminal.getvalue()
    assert '[bold]a' not in terminal.getvalue().rpartition('\x1b[2K')[2]


def test_a_failed_transfer_takes_its_bar_away(stderr):
    terminal = stderr(Terminal)
    with pytest.raises(KeyboardInterrupt), progress.meter('on', 'f', LARGE):
        raise KeyboardInterrupt
    assert progress._display is None
    # The line is empty, and the cursor is there again.
    assert terminal.getvalue().rpartition('\x1b[2K')[2].strip() == '\x1b[?25h'
