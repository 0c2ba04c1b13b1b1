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


"""The stock command `rucio` with our `s3` in it, and `rucio-s3`."""

import os
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

import rucio_s3_plugin
from rucio.cli import command
from servers.fake_rucio import FakeRucio

RUCIO = Path(sys.executable).with_name('rucio')
NO_PLUGIN = 'This Rucio server has no S3 plugin: ask the operator to set `[api] endpoints_add = s3`'


@pytest.fixture
def fake_rucio():
    with FakeRucio() as fake:
        yield fake


@pytest.fixture
def run(fake_rucio, tmp_path):
    """Run Python with these arguments as a user of the server: exit code, standard output, standard error."""

    def run(*arguments, cli='', **env):
        config = tmp_path / 'rucio.cfg'
        client = f'rucio_host = {fake_rucio.url}\nauth_host = {fake_rucio.url}\nauth_type = userpass\nusername = u\npassword = p\naccount = alice\n'
        config.write_text(f'[client]\n{client}auth_token_file_path = {tmp_path}/token\n\n[cli]\n{cli}\n')
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            env={'PATH': '/usr/bin:/bin', 'LANG': 'C.UTF-8', 'HOME': str(tmp_path), 'RUCIO_CONFIG': str(config), 'RUCIO_CLIENT_MODE': '1', **env},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def commands(help_text):
    """The names of the commands in a help text."""
    return [line.split()[0] for line in help_text.partition('Commands:')[2].splitlines() if line.strip() and not line.startswith('    ')]


def test_python_starts_with_the_plugin_and_nothing_more(run):
    code = (
        'import sys; print("rucio_s3_plugin" in sys.modules, [name for name in sys.modules if name.split(".")[0] in ("rucio", "click", "typing", "inspect")])'
    )
    assert run('-c', code) == (0, 'True []\n', '')


# The group of commands, with the helpers that its commands share.
_GROUP = {'rucio.cli.s3', *(f'rucio.common.s3{name}' for name in ('', '.address', '.answers', '.dates', '.interrupts'))}


@pytest.mark.parametrize(('words', 'more'), [(['--version'], set()), (['upload', '--help'], set()), (['-h'], _GROUP)], ids=['version', 'upload', 'help'])
def test_rucio_starts_with_no_more_of_the_plugin_than_it_shows(run, words, more):
    code, _, err = run('-X', 'importtime', RUCIO, *words)
    assert code == 0
    imported = {line.rpartition('|')[2].strip() for line in err.splitlines() if line.startswith('import time:')}
    assert 'click' in imported
    ours = {name for name in imported if name.startswith(('rucio_s3', 'boto', 's3transfer')) or ('s3' in name and name.startswith('rucio.'))}
    assert ours == {'rucio_s3_plugin', 'rucio_s3_seams', *more}


def test_the_plugin_costs_less_than_a_millisecond():
    source = compile(Path(rucio_s3_plugin.__file__).read_text(), 'plugin', 'exec')

    def seconds():
        start = time.thread_time()  # of others on the machine nothing counts
        exec(source, {'__name__': 'again'})
        return time.thread_time() - start

    assert min(seconds() for _ in range(20)) < 0.001


def test_rucio_lists_s3(run):
    code, out, err = run(RUCIO, '-h')
    assert (code, err) == (0, '')
    assert {'account', 'did', 's3', 'upload'} <= set(commands(out))


@pytest.mark.parametrize(
    'words',
    [
        ('s3', '-h'),
        ('s3', 'ls', '--help'),
        ('--account', 'alice', 's3', 'make-bucket', '-h'),
        ('-u', 'u', '--password=p', '-Suserpass', '-v', 's3', 'rse', '-h'),
    ],
)
def test_words_for_s3_reach_it(run, words):
    code, out, err = run(RUCIO, *words)
    assert code == 0, err
    assert 'Usage: rucio s3' in out
    assert 'deprecated' not in out + err


def test_each_command_has_a_help(run):
    _, out, _ = run(RUCIO, 's3', '-h')
    assert len(commands(out)) >= 15
    for line in out.partition('Commands:')[2].strip().splitlines():
        assert len(line.split()) > 2


@pytest.mark.parametrize('words', [('s3', '--help'), ('s3', 'ls', '-h'), ('s3', 'rse', 'add', '--help'), ('s3', 'exec', '--help')])
def test_help_needs_no_server(run, fake_rucio, words):
    code, out, err = run(RUCIO, *words)
    assert (code, err) == (0, '')
    own = words[words.index('s3') :]
    assert out.startswith(f'Usage: rucio {" ".join(word for word in own if not word.startswith("-"))} ')
    assert (fake_rucio.tokens, fake_rucio.asked) == (0, [])


def test_the_help_of_a_tool_is_the_tools(run, fake_rucio):
    run(RUCIO, 's3', 'exec', 'user.alice', '--', 'mc', '--help')
    assert fake_rucio.tokens


@pytest.mark.parametrize('words', [('list-dids', '-h'), ('ls', 's3:x'), ('did', 'list', '-h')])
def test_other_words_do_not(run, words):
    _, out, err = run(RUCIO, *words)
    assert 'rucio s3' not in out + err
    assert NO_PLUGIN not in out + err


def test_a_server_without_the_plugin_is_named(run):
    code, out, err = run(RUCIO, 's3', 'ls')
    assert code == 1
    assert NO_PLUGIN in err + out
    assert 'Traceback' not in err + out


@pytest.mark.parametrize('words', [('s3', 'make-bucket'), ('s3', 'share', 'user.alice:x'), ('s3', 'nonsense'), ('s3', 'ls', '--nonsense'), ('s3', 'ls', ':x')])
def test_wrong_usage_ends_with_2(run, words):
    code, out, err = run(RUCIO, *words)
    assert code == 2
    assert 'Error: ' in err
    assert 'Traceback' not in err + out


def test_wrong_usage_of_rucio_itself_is_as_before(run):
    assert run(RUCIO, 's3', 'ls', '--short', 'a', 'b')[0] == 2
    assert run(RUCIO, 'did', 'nonsense')[0] == 1


def test_refused_ends_with_1(run, fake_rucio):
    fake_rucio.answer = lambda _: (403, None, {'ExceptionClass': 'AccessDenied', 'ExceptionMessage': 'not yours'})
    code, out, err = run(RUCIO, 's3', 'make-bucket', 'user.bob')
    assert code == 1
    assert 'not yours' in err + out


@pytest.mark.parametrize('robot', [True, False])
def test_output_for_programs(run, fake_rucio, robot):
    bucket = {'rse': 'X', 'bucket': 'user.alice', 'scope': 'user.alice', 'created': '2026-01-01T00:00:00Z'}
    fake_rucio.answer = lambda _: (200, {'buckets': [bucket], 'missing': []}, {})
    code, out, _ = run(RUCIO, 's3', *(['-R'] if robot else []), 'ls')
    assert code == 0
    assert (out == 'user.alice\tuser.alice\tX\t2026-01-01T00:00:00Z\n') == robot
    assert ('| user.alice | user.alice | X     |' in out) == (not robot)


def has_settings():
    """Rucio 38 and 39 do not read rucio.cfg [cli]."""
    return hasattr(command.LazyGroup, 'COMMAND_MAP')


@pytest.mark.parametrize(
    ('cli', 'shown', 'hidden'),
    [
        ('endpoints = did, rule', {'did', 'rule'}, {'s3', 'rse'}),
        ('endpoints = did, s3', {'did', 's3'}, {'rse'}),
        ('endpoints = s3', {'s3', 'ping'}, {'did', 'rse'}),
        ('endpoints_add = s3', {'did', 's3'}, set()),
        ('endpoints_add = lifetime-exception', {'lifetime-exception', 's3'}, set()),
        ('endpoints_remove = s3, did', {'rse'}, {'s3', 'did'}),
        ('endpoints_remove = did', {'rse', 's3'}, {'did'}),
    ],
)
def test_the_operators_choice_of_commands_holds(run, cli, shown, hidden):
    if not has_settings():
        pytest.skip('this Rucio has no such settings')
    code, out, err = run(RUCIO, '-h', cli=cli)
    assert (code, err) == (0, '')
    assert shown <= set(commands(out))
    assert not hidden & set(commands(out))


def test_a_wrong_choice_of_commands_is_refused_as_before(run):
    if not has_settings():
        pytest.skip('this Rucio has no such settings')
    code, _, err = run(RUCIO, '-h', cli='endpoints = nonsense, s3')
    assert code != 0
    assert "{'nonsense'} must be a subset of" in err


@pytest.mark.parametrize(
    ('typed', 'offered'),
    [
        ('rucio s3 ', {'ls', 'make-bucket', 'credentials', 'rse'}),
        ('rucio s3 ma', {'make-bucket'}),
        ('rucio s3 ls --', {'--rse', '--short'}),
        ('rucio --account alice s3 sh', {'share'}),
        ('rucio s', {'s3', 'scope'}),
    ],
)
def test_the_shell_completes(run, typed, offered):
    words = typed.split()
    at = len(words) if typed.endswith(' ') else len(words) - 1
    code, out, err = run(RUCIO, _RUCIO_COMPLETE='bash_complete', COMP_WORDS=typed, COMP_CWORD=str(at))
    assert (code, err) == (0, '')
    assert offered <= {line.partition(',')[2] for line in out.splitlines()}


def test_the_shell_gets_its_script(run):
    code, out, _ = run(RUCIO, _RUCIO_COMPLETE='zsh_source')
    assert code == 0
    assert '#compdef rucio' in out


BROKEN = """
import sys, runpy
sys.modules['rucio.cli.s3'] = None
sys.argv = [{script!r}, *{words!r}]
runpy.run_path({script!r}, run_name='__main__')
"""


@pytest.mark.parametrize('words', [('-h',), ('s3', 'ls'), ('did', 'list', '-h')])
def test_rucio_works_where_our_commands_cannot_be_imported(run, words):
    code, out, err = run('-c', BROKEN.format(script=str(RUCIO), words=list(words)))
    assert 'Traceback' not in out + err
    if words == ('s3', 'ls'):
        assert code == 1
        assert 'Reinstall it: pip install --force-reinstall --no-deps rucio-s3' in err
    else:
        assert code == 0
        assert 'Usage: ' in out


WITH_RUCIO = """
import sys, runpy, rucio.version
rucio.version.version_string = lambda: {version!r}
sys.argv = [{script!r}, *{words!r}]
runpy.run_path({script!r}, run_name='__main__')
"""


OLD_ALONE = """
import sys, rucio.version
rucio.version.version_string = lambda: '37.7.1'
sys.argv = ['rucio-s3', 'ls']
import rucio_s3_plugin
rucio_s3_plugin.main()
"""


@pytest.mark.parametrize('code', [WITH_RUCIO.format(version='37.7.1', script=str(RUCIO), words=['s3', 'ls']), OLD_ALONE], ids=['rucio', 'rucio-s3'])
def test_a_rucio_that_is_too_old_is_one_line(run, code):
    assert run('-c', code) == (1, '', 'rucio-s3 needs Rucio 38 or newer, but Rucio 37.7.1 is installed: upgrade it, or uninstall rucio-s3.\n')


def test_a_rucio_that_is_newer_than_the_tests_is_warned_about_in_one_line(run, fake_rucio):
    fake_rucio.answer = lambda _: (200, {'buckets': [], 'missing': []}, {})
    code, out, err = run('-c', WITH_RUCIO.format(version='42.0.0', script=str(RUCIO), words=['s3', 'ls']))
    assert code == 0, err
    assert err.splitlines()[0] == 'This rucio-s3 was tested with Rucio 38 to 41, not with 42.0.0. If something fails: pip install --upgrade rucio-s3'
    assert 'Traceback' not in out + err
    assert 'rucio-s3' not in run('-c', WITH_RUCIO.format(version='42.0.0', script=str(RUCIO), words=['did', '-h']))[2]


STRANGE = """
import sys, runpy, rucio_s3_seams
def fail(*_): raise LookupError('another Rucio')
rucio_s3_seams._add_command = rucio_s3_seams._take_words = fail
sys.argv = [{script!r}, *{words!r}]
runpy.run_path({script!r}, run_name='__main__')
"""


def test_rucio_works_where_the_hook_does_not_fit(run):
    code, out, err = run('-c', STRANGE.format(script=str(RUCIO), words=['-h']))
    assert code == 0
    assert {'did', 'upload'} <= set(commands(out))
    warning = 'rucio-s3: `rucio s3` cannot be offered (LookupError: another Rucio). All else of `rucio` works.'
    assert err.splitlines() == [f'{warning} Try `rucio-s3`, or: pip install --upgrade rucio-s3']


TRANSFERS = """
import sys
{before}
import rucio.core.transfer as transfers
print('s3' in transfers.TRANSFERTOOL_CLASSES_BY_NAME, 'fts3' in transfers.TRANSFERTOOL_CLASSES_BY_NAME)
"""


CONVEYOR, ON_FTS = '[conveyor]\ntransfertool = fts3, s3\n', '[s3]\nfts = True\n'


@pytest.mark.parametrize(
    ('config', 'before', 'known', 'said'),
    [
        ('', '', 'False True', ''),
        (CONVEYOR, '', 'True True', ''),
        (CONVEYOR + ON_FTS, '', 'True True', ''),
        (CONVEYOR, "sys.modules['rucio.transfertool.s3'] = None", 'False True', 'ModuleNotFoundError'),
        (CONVEYOR, "sys.modules['rucio_s3_seams'] = None", 'False True', 'ModuleNotFoundError'),
        (CONVEYOR, "import rucio_s3_plugin, rucio.transfertool; sys.modules['rucio.transfertool.s3'] = sys", 'False True', 'ImportError'),
    ],
)
def test_the_transfertool_is_known_and_keeps_no_other_from_its_work(run, config, before, known, said):
    pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')
    code, out, err = run('-c', TRANSFERS.format(before=before), cli=config)
    assert (code, out) == (0, f'{known}\n'), err
    lines = [line for line in err.splitlines() if line.startswith('rucio-s3: ')]
    assert bool(lines) == bool(said)
    if said:
        assert len(lines) == 1
        assert f'({said}: ' in lines[0]


def test_the_hook_is_installed_once():
    def installed():
        return sum(hasattr(finder, 'rucio_s3_plugin') for finder in sys.meta_path)

    before = installed()
    exec(Path(rucio_s3_plugin.__file__).read_text(), {'__name__': 'again'})
    assert before == installed() == 1


def test_modules_stay_what_they_are(run):
    code = 'import inspect, rucio.cli.command as m; print(type(m.__loader__).__name__, len(inspect.getsource(m)) > 1000, m.__spec__.name)'
    assert run('-c', code) == (0, 'SourceFileLoader True rucio.cli.command\n', '')


def test_a_pth_without_the_plugin_is_silent(tmp_path):
    line = Path(rucio_s3_plugin.__file__).with_name('rucio-s3.pth').read_text()
    code = f'import sys; sys.modules["rucio_s3_plugin"] = None\n{line}'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False, cwd=tmp_path, env={})
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    assert line.startswith('import ')  # what site executes
    assert len(line.splitlines()) == 1


ALONE = 'import sys; sys.argv = ["rucio-s3", *{words!r}]; import rucio_s3_plugin; rucio_s3_plugin.main()'


@pytest.mark.parametrize('cli', ['', 'endpoints_remove = s3'])
@pytest.mark.parametrize(('words', 'said'), [(['-h'], 'make-bucket'), (['--account', 'alice', 'ls', '-h'], 'Usage: rucio s3 ls'), (['--version'], 'rucio ')])
def test_rucio_s3_is_the_same_alone(run, words, said, cli):
    # -S: no .pth file is read.
    path = os.pathsep.join(each for each in sys.path if each)
    code, out, err = run('-S', '-c', ALONE.format(words=words), cli=cli, PYTHONPATH=path)
    assert code == 0, err
    assert said in out


def test_rucio_s3_completes(run):
    code, out, _ = run('-c', ALONE.format(words=[]), _RUCIO_S3_COMPLETE='bash_complete', COMP_WORDS='rucio-s3 ma', COMP_CWORD='1')
    assert (code, out) == (0, 'plain,make-bucket\n')


def test_rucio_s3_without_rucio(run):
    lone = types.ModuleType('rucio')
    code, _, err = run('-c', f'import sys; sys.modules[{lone.__name__!r}] = None; import rucio_s3_plugin; rucio_s3_plugin.main()')
    assert code == 1
    assert err.startswith("rucio-s3 needs Rucio's clients, 38 or newer")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize('words', [['copier', '--help'], ['database']], ids=' '.join)
def test_a_command_of_the_server_on_a_machine_of_a_client(run, tmp_path, words):
    start = f'import sys; sys.argv = ["rucio-s3-{words[0]}", *{words[1:]}]; sys.modules["sqlalchemy"] = None; import rucio_s3_plugin; '
    code, _, err = run('-c', f'{start}rucio_s3_plugin.{words[0]}()', RUCIO_CONFIG='', RUCIO_HOME=str(tmp_path / 'nowhere'))
    assert code == 1
    assert err.startswith(f'rucio-s3-{words[0]} needs the Rucio server, 38 or newer ('), err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize('command', ['copier', 'database', 'reconciler'])
def test_a_command_of_the_server_without_a_configuration(run, tmp_path, command):
    pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')
    words = f'import sys; sys.argv = ["rucio-s3-{command}"]; import rucio_s3_plugin; rucio_s3_plugin.{command}()'
    code, _, err = run('-c', words, RUCIO_CONFIG='', RUCIO_HOME=str(tmp_path / 'nowhere'), RUCIO_CLIENT_MODE='')
    assert code == 1
    assert err.startswith(f'rucio-s3-{command}: there is no readable rucio.cfg: looked for ')
    assert err.endswith("See RUCIO_CONFIG and RUCIO_HOME. It needs the Rucio server's rucio.cfg.\n")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ('words', 'code', 'said'),
    [
        (['copier'], 1, 'rucio-s3-copier: Another program has the port of [monitor] metrics_port in rucio.cfg.'),
        (['reconciler', '--help'], 0, 'usage: rucio-s3-reconciler'),
        (['reconciler', '--run-once'], 1, 'rucio-s3-reconciler: The daemon cannot start: '),  # the database is empty
        (['database'], 1, 'rucio-s3-database: The database was not changed: rucio.cfg [database] names a database without'),
    ],
)
def test_the_port_for_metrics_is_that_of_another_daemon(run, tmp_path, words, code, said):
    pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')
    config = tmp_path / 'server.cfg'
    with socket.create_server(('127.0.0.1', 0)) as daemon:
        port = daemon.getsockname()[1]
        config.write_text(f'[database]\ndefault = sqlite:///{tmp_path}/rucio.db\n[monitor]\nenable_metrics = True\nmetrics_port = {port}\n')
        start = f'import sys; sys.argv = ["rucio-s3-{words[0]}", *{words[1:]}]; import rucio_s3_plugin; rucio_s3_plugin.{words[0]}()'
        found, out, err = run('-c', start, RUCIO_CONFIG=str(config), RUCIO_CLIENT_MODE='')
    assert found == code, err
    assert said in out + err
    assert 'Traceback' not in err


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('[s3]\n[client]\n[s3]\nsecret_key = HIDDEN\n', 'line 3: there is a second section [s3]. Merge it with the first.'),
        ('[s3]\nsecret_key = HIDDEN\nsecret_key = HIDDEN\n', "line 3: 'secret_key' is set twice in [s3]. Remove one."),
        ('secret_key = HIDDEN\n', 'line 1: expected a section, such as [client].'),
        ('[s3]\nHIDDEN\n', 'line 2: expected NAME = VALUE.'),
        ('[s3\nsecret_key = HIDDEN\n', 'line 1: expected a section, such as [client].'),
        ('[s3]\nsecret_key = HIDDEN\xff\n', 'it is not UTF-8 text. Save it as that.'),
        (None, 'See RUCIO_CONFIG and RUCIO_HOME.'),
    ],
)
def test_a_configuration_that_cannot_be_read_is_one_line_without_its_secrets(run, tmp_path, text, said):
    """It was 50 lines of a traceback, from the stock script."""
    file = tmp_path / 'odd.cfg'
    if text is not None:
        file.write_bytes(text.encode('latin-1'))
    code, out, err = run('-c', 'import sys; sys.argv = ["/bin/rucio", "s3", "ls"]; import rucio.cli.command', RUCIO_CONFIG=str(file))
    assert (code, out) == (1, '')
    assert err.startswith('rucio: ')
    assert err.endswith(f'{said}\n')
    assert len(err.splitlines()) == 1
    assert 'HIDDEN' not in err


def test_other_programs_get_the_exception(run, tmp_path):
    (tmp_path / 'odd.cfg').write_text('[s3]\n[s3]\n')
    code, _, err = run('-c', 'import sys; sys.argv = ["/bin/mine"]; import rucio.cli.command', RUCIO_CONFIG=str(tmp_path / 'odd.cfg'))
    assert code == 1
    assert 'DuplicateSectionError' in err
