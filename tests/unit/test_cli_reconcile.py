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


"""`rucio s3 reconcile`, `settings` and `watch` with a server that is a stand-in: what is asked, printed and refused."""

import shlex
import signal

import pytest
from click.testing import CliRunner

from rucio.cli.s3 import reconcile
from rucio.common.exception import AccessDenied, InputValidationError, ServerConnectionException


class Context(dict):
    """What Rucio hands from command to command."""

    use_rich = False


def problem(kind, name, remedy='Do something.', found='something was seen'):
    return {'kind': kind, 'did': f'user.alice:{name}', 'key': name, 'found': found, 'remedy': remedy}


class Server:
    """An S3Client. What it says of a scope's bucket, and what changes it tells one after the other."""

    def __init__(self):
        self.asked = []
        self.counts = {'listed': 2, 'same': 2}
        self.problems = []
        self.refused = set()
        self.answers = []

    def list_s3_rses(self):
        return [{'rse': 'SITE_S3'}, {'rse': 'EMPTY_S3'}]

    def list_buckets(self, rse):
        return [{'scope': scope, 'rse': rse} for scope in ('user.alice', 'data.alice', None)] if rse == 'SITE_S3' else []

    def reconcile(self, scope, name, rse, progress=None, **wish):
        self.asked.append((scope, name, rse, {key: value for key, value in wish.items() if value}))
        if scope in self.refused:
            raise AccessDenied(f'{scope} is not yours.')
        return {'rse': 'SITE_S3', 'bucket': scope, 'scope': scope, 'name': name or '', 'counts': self.counts, 'problems': self.problems}

    def get_bucket_settings(self, scope, rse):
        return {'rse': 'SITE_S3', 'bucket': scope, 'scope': scope, 'on_changed': 'report', 'on_missing': 'forget', 'own': ['on_missing']}

    def set_bucket_settings(self, scope, rse, **settings):
        self.asked.append((scope, rse, settings))
        return self.get_bucket_settings(scope, rse) | {key: value for key, value in settings.items() if value}

    def list_changes(self, scope, name, rse, since=None):
        """Ends with Ctrl-C."""
        self.asked.append(since)
        if since is None:
            return {'rse': 'SITE_S3', 'now': time(100), 'more': False, 'changes': []}
        if not self.answers:
            signal.raise_signal(signal.SIGINT)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {'rse': 'SITE_S3', 'now': time(1000), 'more': False} | answer


def time(seconds):
    return f'2026-01-31T12:{seconds // 60:02}:{seconds % 60:02}.000000Z'


def change(name, at=120, kind='registered'):
    return {'time': time(at), 'change': kind, 'scope': 'user.alice', 'name': name, 'bytes': 5}


@pytest.fixture
def stand_in(monkeypatch):
    made = Server()
    monkeypatch.setattr(reconcile, 's3_client', lambda _: made)
    return made


@pytest.fixture
def run(stand_in):
    """Call it with a command and its arguments, as one string."""

    def invoke(line, **options):
        words = shlex.split(line)
        commands = {'reconcile': reconcile.reconcile, 'settings': reconcile.bucket_settings, 'watch': reconcile.watch}
        return CliRunner().invoke(commands[words[0]], words[1:], obj=Context(options))

    return invoke


# reconcile


@pytest.mark.parametrize(
    ('line', 'asked'),
    [
        ('reconcile user.alice', ('user.alice', None, None, {})),
        ('reconcile user.alice:run7', ('user.alice', 'run7', None, {})),
        ('reconcile user.alice/run7/ --rse X', ('user.alice', 'run7', 'X', {})),
        ('reconcile SITE_S3:', ('SITE_S3', '', None, {})),
        (
            'reconcile user.alice --dry-run --on-changed replace --on-missing forget',
            ('user.alice', None, None, {'dry_run': True, 'on_changed': 'replace', 'on_missing': 'forget'}),
        ),
    ],
)
def test_sync_asks_for_what_is_meant(stand_in, run, line, asked):
    assert run(line).exit_code == 0
    assert [(scope, name or asked[1], rse, wish) for scope, name, rse, wish in stand_in.asked] == [asked]


def test_an_rse_stands_for_all_own_buckets_and_one_that_fails_does_not_stop_the_others(stand_in, run):
    stand_in.refused.add('user.alice')
    done = run('reconcile SITE_S3')
    assert [each[:3] for each in stand_in.asked] == [('user.alice', None, 'SITE_S3'), ('data.alice', None, 'SITE_S3')]
    assert 'ERROR user.alice: user.alice is not yours.' in done.output
    assert 'data.alice on SITE_S3:' in done.output
    assert done.exit_code == 1


def test_an_rse_without_buckets_and_two_rses_are_refused(run):
    assert 'rucio s3 reconcile SCOPE --rse EMPTY_S3' in str(run('reconcile EMPTY_S3').exception)
    assert isinstance(run('reconcile SITE_S3 --rse EMPTY_S3').exception, InputValidationError)


def test_where_all_is_the_same_that_is_said(run):
    said = run('reconcile user.alice').output
    assert 'there was nothing to do' in said
    assert 'FAILED' not in said
    assert 'gone' not in said


def test_counts_that_are_nothing_are_not_shown_and_sizes_are_readable(stand_in, run):
    stand_in.counts = {'listed': 12, 'same': 0, 'new': 3, 'registered': 3, 'bytes': 5_000_000, 'missing': 0, 'unheard': 1}
    said = run('reconcile user.alice').output
    assert '5.000 MB' in said
    assert 'new: not in the catalogue' in said
    assert 'unheard' in said
    assert 'gone' not in said
    assert 'as in the catalogue' not in said
    assert 'nothing to do' not in said


def test_problems_are_told_by_kind_with_the_remedy_once_and_ten_names(stand_in, run):
    stand_in.counts = {'listed': 30, 'missing': 25, 'changed': 1}
    stand_in.problems = [problem('missing', f'run7/{number}', 'Use --on-missing forget.') for number in range(20)] + [problem('changed', 'run7/x')]
    few, all_of_them = run('reconcile user.alice'), run('reconcile user.alice --verbose')
    assert few.output.count('Use --on-missing forget.') == 1
    assert 'user.alice:run7/9: something was seen' in few.output
    assert 'run7/10' not in few.output
    assert '... and 15 more (--verbose).' in few.output
    assert 'changed: Do something.' in few.output
    assert 'run7/19' in all_of_them.output
    assert '... and 5 more.' in all_of_them.output
    assert few.exit_code == 0


def test_what_failed_is_an_exit_code(stand_in, run):
    stand_in.counts = {'listed': 2, 'failed': 1}
    assert run('reconcile user.alice').exit_code == 1
    assert run('reconcile user.alice', robot=True).exit_code == 1


def test_programs_get_all_counts_and_problems_in_columns(stand_in, run):
    stand_in.counts = {'listed': 2, 'missing': 1, 'new': 0}
    stand_in.problems = [problem('missing', 'a\tb\x1b', 'Do.', 'seen')]
    rows = [line.split('\t') for line in run('reconcile user.alice:run7', robot=True).output.splitlines()]
    assert rows == [
        ['count', 'user.alice:run7', 'SITE_S3', 'listed', '2'],
        ['count', 'user.alice:run7', 'SITE_S3', 'missing', '1'],
        ['count', 'user.alice:run7', 'SITE_S3', 'new', '0'],
        ['problem', 'user.alice:run7', 'SITE_S3', 'missing', r'user.alice:a\tb\x1b', r'a\tb\x1b', 'seen', 'Do.'],
    ]


@pytest.mark.parametrize(('option', 'allowed'), [('--on-changed forget', ('report', 'replace', 'bad')), ('--on-missing replace', ('report', 'forget', 'lost'))])
@pytest.mark.parametrize('command', ['reconcile', 'settings'])
def test_what_cannot_be_done_is_answered_with_what_can(stand_in, run, command, option, allowed):
    done = run(f'{command} user.alice {option}')
    assert done.exit_code == 2
    assert all(f"'{each}'" in done.output for each in allowed)
    assert stand_in.asked == []


@pytest.mark.parametrize('command', ['reconcile', 'settings'])
@pytest.mark.parametrize(
    ('option', 'told'),
    [('--on-missing lost', 'copy the file again'), ('--on-changed bad', 'overwrite the object'), ('--on-changed replace', None), ('--on-missing forget', None)],
)
def test_what_cannot_be_taken_back_is_said(run, command, option, told):
    said = run(f'{command} user.alice {option}').stderr
    assert (told in said and option in said) if told else said == ''


@pytest.mark.parametrize('command', ['reconcile', 'settings'])
def test_the_help_says_what_the_daemons_do(run, command):
    said = ' '.join(run(f'{command} --help').output.split())
    assert said.count('LOST permanently') == 2
    assert 'overwrite the object' in said


def test_nothing_is_warned_of_where_nothing_is_written(run):
    done = run('reconcile user.alice --dry-run --on-missing lost')
    assert done.stderr == ''
    assert '(dry run: nothing is changed)' in done.stdout


def test_ctrl_c_ends_it_and_says_how_to_go_on(stand_in, run, monkeypatch):
    monkeypatch.setattr(stand_in, 'reconcile', lambda *_, **__: signal.raise_signal(signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    done = run('reconcile user.alice')
    assert done.exit_code == 130
    assert 'Run the same command again to continue.' in done.stderr
    assert signal.getsignal(signal.SIGINT) is before


# settings


def test_settings_are_shown_and_where_they_come_from(stand_in, run):
    rows = [line.split('\t') for line in run('settings user.alice', robot=True).output.splitlines()]
    assert rows == [['on-changed', 'report', 'RSE'], ['on-missing', 'forget', 'bucket']]
    assert stand_in.asked == []
    assert 'The bucket user.alice on SITE_S3:' in run('settings user.alice').output


def test_settings_are_set(stand_in, run):
    assert 'replace' in run('settings user.alice --on-changed replace --on-missing default').output
    assert stand_in.asked == [('user.alice', None, {'on_changed': 'replace', 'on_missing': 'default'})]


def test_a_collection_has_no_settings_of_its_own(run):
    assert 'give only the scope, user.alice' in str(run('settings user.alice:run7').exception)


# watch


def test_watch_tells_each_change_once_and_ends_well(stand_in, run):
    stand_in.answers = [{'changes': [change('run7/1')]}, {'changes': [change('run7/1'), change('run7/2', 121)]}, {'changes': [change('run7/2', 121)]}]
    done = run('watch user.alice:run7 --interval 0.1', robot=True)
    assert done.exit_code == 0
    assert [line.split('\t') for line in done.stdout.splitlines()] == [
        [time(120), 'registered', 'user.alice:run7/1', '5'],
        [time(121), 'registered', 'user.alice:run7/2', '5'],
    ]
    assert 'Watching user.alice:run7 on SITE_S3' in done.stderr
    # It asks for what it may have missed, too, but not for what was before it began.
    assert stand_in.asked == [None, time(100), time(970), time(970), time(970)]


def test_watch_for_people(stand_in, run):
    stand_in.answers = [{'changes': [change('run7/1', kind='removed')]}]
    said = run('watch user.alice --interval 0.1').stdout
    assert 'removed     user.alice:run7/1  5.000 B' in said


def test_watch_goes_on_where_there_is_too_much_for_one_answer(stand_in, run):
    stand_in.answers = [{'changes': [change('a'), change('b')], 'more': True, 'now': time(120)}, {'changes': [change('b'), change('c')]}]
    done = run('watch user.alice --interval 0.1', robot=True)
    assert stand_in.asked[:3] == [None, time(100), time(120)]
    assert [line.split('\t')[2] for line in done.stdout.splitlines()] == ['user.alice:a', 'user.alice:b', 'user.alice:c']


def test_watch_outlives_a_server_that_is_started_again(stand_in, run):
    gone = ServerConnectionException('rucio.example.org did not answer.')
    stand_in.answers = [gone, gone, {'changes': [change('run7/1')]}]
    done = run('watch user.alice --interval 0.1')
    assert done.stderr.count('did not answer') == 1
    assert 'run7/1' in done.stdout
