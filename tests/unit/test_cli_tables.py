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

"""What `rucio s3` prints of names that others chose, and to those who mistype one."""

from datetime import datetime, timezone
from io import StringIO
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from rucio.cli.s3 import parse_did, s3, sharing, table
from rucio.common.exception import InputValidationError

ROWS = [['user.bob:a\x1b]0;b\tc\nd', 1, None], ['user.bob:[red]é ü', 2, 'no']]


class Context(dict):
    """What Rucio hands from command to command."""

    def __init__(self, use_rich, **options):
        super().__init__(options)
        self.use_rich = use_rich
        self.spinner = SimpleNamespace(stop=lambda: None)
        self.console = Console(file=StringIO(), width=200)
        self.no_pager = True


def shown(capsys, use_rich=False, **options):
    context = Context(use_rich, **options)
    with click.Context(click.Command('ls'), obj=context) as ctx:
        table(ctx, ROWS, ['NAME', 'SIZE', 'CATALOGUE'], [1])
    return context.console.file.getvalue() + capsys.readouterr().out


@pytest.mark.parametrize('use_rich', [False, True])
def test_no_name_speaks_to_the_terminal(capsys, use_rich):
    said = shown(capsys, use_rich)
    assert r'user.bob:a\x1b]0;b\tc\nd' in said
    assert '\x1b]' not in said
    assert 'user.bob:[red]é ü' in said


def test_no_name_adds_a_line_or_column_for_programs(capsys):
    assert [line.split('\t') for line in shown(capsys, robot=True).splitlines()] == [
        [r'user.bob:a\x1b]0;b\tc\nd', '1', ''],
        ['user.bob:[red]é ü', '2', 'no'],
    ]


@pytest.mark.parametrize(('charset', 'told'), [('utf-8', 'é Ω'), ('latin-1', r'é \u03a9'), ('ascii', 'é Ω')])
def test_a_terminal_that_cannot_show_a_name_ends_no_command(monkeypatch, charset, told):
    """`rucio s3 -R ls` ended with the traceback of a UnicodeEncodeError and Rucio's "unknown error". (click writes UTF-8 in place of ASCII.)"""
    monkeypatch.setitem(s3.commands, 'show', click.Command('show', callback=lambda: click.echo('é Ω'), params=[]))
    monkeypatch.setattr(type(s3), 'get_command', lambda group, _, name: group.commands[name])
    done = CliRunner(charset=charset).invoke(s3, ['show'], obj={})
    assert done.exit_code == 0, done.output
    assert done.stdout_bytes.decode('utf-8' if charset == 'ascii' else charset) == f'{told}\n'


def test_a_name_that_the_terminal_mangled_is_refused():
    """With LC_ALL=C Python reads other characters as surrogates, which no request can hold."""
    with pytest.raises(InputValidationError, match=r"'user.alice:\\udcce.* set LC_ALL=C.UTF-8"):
        parse_did('user.alice:\udcce\udca9')


def test_who_mistypes_an_account_is_not_told_that_access_has_ended(monkeypatch):
    class Server:
        def __init__(self):
            self.removed = []

        def list_grants(self, scope, name):
            return [{'kind': kind, 'account': account, 'ended': False} for kind, account in (('account', 'bob'), ('everybody', '*'))]

        def delete_grant(self, scope, name, account, *, kind):
            self.removed.append((account, kind))

    server = Server()
    monkeypatch.setattr(sharing, 's3_client', lambda _: server)
    words = ['--with', 'bbo', '--with', 'bob', '--attribute', 'bob=*', '--all-accounts', '--public']
    said = CliRunner().invoke(sharing.unshare, ['user.alice:run7', *words], obj={}).output
    assert 'user.alice:run7 was not shared with bbo.' in said
    assert 'user.alice:run7 is no longer shared with bob.' in said
    assert 'user.alice:run7 was not shared with all accounts with bob=*.' in said
    assert 'user.alice:run7 is no longer shared with all accounts.' in said
    assert 'user.alice:run7 was not shared with everybody.' in said
    # A server that does not know kinds is not told those that it knows by the name.
    assert server.removed == [('bbo', None), ('bob', None), ('bob=*', 'attribute'), ('*', 'everybody'), ('*', None)]


def test_kinds_of_grantees_are_told_to_the_server(monkeypatch):
    asked = []
    server = SimpleNamespace(add_grant=lambda *what, **more: asked.append((*what[2:], *more.values())) or {})
    monkeypatch.setattr(sharing, 's3_client', lambda _: server)

    def share(*words):
        return CliRunner().invoke(sharing.share, ['user.alice:run7', *words], obj={}).output

    assert share('--with', 'bob', '--attribute', 'a=b', '--write') == (
        'bob can read and write user.alice:run7.\nall accounts with a=b can read and write user.alice:run7.\n'
    )
    assert share('--all-accounts', '--public') == 'all accounts can read user.alice:run7.\neverybody can read user.alice:run7.\n'
    assert asked == [('bob', True, None, None), ('a=b', True, 'attribute', None), ('*', False, 'everybody', None), ('*', False, None, None)]
    assert '--all-accounts grants read access only' in share('--with', 'bob', '--all-accounts', '--write')
    assert "'31.12.2090': the date is not in the format 2026-01-31 or" in share('--with', 'bob', '--until', '31.12.2090')
    assert len(asked) == 4
    assert share('--with', 'bob', '--until', '2090-12-31') == 'bob can read user.alice:run7 until 2090-12-31T23:59:59Z.\n'
    assert asked[4] == ('bob', False, None, datetime(2090, 12, 31, 23, 59, 59, tzinfo=timezone.utc))
