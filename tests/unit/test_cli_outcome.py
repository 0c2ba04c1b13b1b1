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

"""What the commands for many files say at their end."""

import click
import pytest

from rucio.cli.s3 import outcome as reports
from rucio.client.s3files.tally import Outcome


def said(capsys, failures=(), warnings=()):
    reports.report_problems(Outcome(failures=list(failures), warnings=list(warnings)))
    out, err = capsys.readouterr()
    assert out == ''
    return err.splitlines()


def refused(number):
    name = f'run7/f{number}.root'
    return f'user.alice:{name}', f"RSE X: Rucio issues no keys to read bucket 'user.alice', key '{name}': Account bob may not read it."


def test_failures_for_one_reason_are_summed_up(capsys):
    lines = said(capsys, [refused(number) for number in range(40)])
    assert lines[0] == "ERROR user.alice:run7/f0.root RSE X: Rucio issues no keys to read bucket 'user.alice', key 'run7/f0.root': Account bob may not read it."
    assert [line.split()[1] for line in lines[:3]] == [f'user.alice:run7/f{number}.root' for number in range(3)]
    assert lines[3:] == ['... and 37 more failures for the same reason.']


@pytest.mark.parametrize('number', [1, 3, 4])
def test_a_few_are_all_named(capsys, number):
    """A line about one more would be as long."""
    assert len(said(capsys, [refused(each) for each in range(number)])) == number
    assert said(capsys, [refused(each) for each in range(5)])[3:] == ['... and 2 more failures for the same reason.']


def test_other_reasons_are_not_hidden_by_the_most_frequent(capsys):
    some = [refused(number) for number in range(1000)]
    some[500:500] = [('user.alice:run7/b', 'has 3 bytes, not 4'), ('user.alice:run7/c', 'has 5 bytes, not 4')]
    lines = said(capsys, some, [('odd', 'is a pipe')])
    assert lines[0] == 'WARNING odd is a pipe. It was left out.'
    assert lines[4:] == [
        '... and 997 more failures for the same reason.',
        'ERROR user.alice:run7/b has 3 bytes, not 4.',
        'ERROR user.alice:run7/c has 5 bytes, not 4.',
    ]


def test_many_reasons_are_cut(capsys):
    lines = said(capsys, [(f'f{number}', f'has {number}00 bytes') for number in range(51)])
    assert (len(lines), lines[-1]) == (51, '... and 1 more failure.')
    assert said(capsys, [(f'f{number}', f'has {number}00 bytes') for number in range(60)])[-1] == '... and 10 more failures.'


@pytest.mark.parametrize(('number', 'text'), [(0, '0 files uploaded'), (1, '1 file uploaded'), (2, '2 files uploaded')])
def test_one_file_is_one_file(number, text):
    ctx = click.Context(click.Command('upload'), obj={})
    assert reports.transferred(ctx, number, 'uploaded', 0, 1).startswith(text + ' (')
    assert reports.transferred(ctx, number, 'uploaded', 0, None).startswith(text.replace('uploaded', 'would be uploaded') + ' (')
