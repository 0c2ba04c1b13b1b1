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

"""What the commands for many files have in common: options, and how they report what failed."""

from typing import TYPE_CHECKING, Any, Optional, TypeVar

import click

from rucio.cli.s3 import is_robot, say, size, table
from rucio.client.s3files import Filter, Options

if TYPE_CHECKING:
    from collections.abc import Callable

    from rucio.client.s3files.tally import Outcome

__all__ = ['closing', 'options_of', 'report_plan', 'report_problems', 'transfer_options', 'transferred']

_Command = TypeVar('_Command', bound='Callable[..., Any]')

_SHOWN = 50  # failures; more would drive the summary off the screen


def report_problems(outcome: 'Outcome') -> None:
    """Print the warnings and failures of a command on standard error.

    :param outcome: The outcome.
    """
    for path, reason in outcome.warnings[:_SHOWN]:
        say(f'WARNING {path} {reason}. It was left out.', err=True)
    for path, reason in outcome.failures[:_SHOWN]:
        say(f'ERROR {path} {reason.rstrip(".")}.', err=True)
    for kind, told in (('warnings', outcome.warnings), ('failures', outcome.failures)):
        if len(told) > _SHOWN:
            say(f'... and {len(told) - _SHOWN} more {kind}.', err=True)


def transfer_options(verb: str) -> 'Callable[[_Command], _Command]':
    """Add the options that uploads and downloads share. The command receives them as keywords: see :func:`options_of`.

    :param verb: What is done with the files.
    :returns: The decorator.
    """
    added = (
        click.option(
            '--include',
            multiple=True,
            metavar='PATTERN',
            help=f"Only {verb} files that match. Patterns are rclone's: *.root in any directory, /*.root only "
            'in the first, ** across directories, sub/ for all below it. Can be repeated.',
        ),
        click.option(
            '--exclude', multiple=True, metavar='PATTERN', help=f'Do not {verb} files that match. Can be repeated.'
        ),
        click.option('--dry-run', is_flag=True, help=f'Only print what it would {verb}.'),
        click.option(
            '--jobs',
            '-j',
            type=click.IntRange(1, 256),
            show_default='8 to 128, by the latency of the storage',
            help=f'Files to {verb} at once.',
        ),
    )

    def decorate(command: _Command) -> _Command:
        for option in reversed(added):
            command = option(command)
        return command

    return decorate


def options_of(given: dict[str, Any]) -> Options:
    """Return the options of :func:`transfer_options`.

    :param given: The keywords of the command.
    """
    chosen = Filter(given['include'], given['exclude'])
    return Options(jobs=given['jobs'], chosen=chosen, dry_run=given['dry_run'])


def report_plan(ctx: click.Context, outcome: 'Outcome') -> None:
    """Print what would be transferred: source and destination.

    :param ctx: The context of the command.
    :param outcome: The outcome.
    """
    if is_robot(ctx):
        table(ctx, outcome.planned, [])
        return
    for source, destination in outcome.planned:
        say(f'{source} -> {destination}')


def transferred(ctx: click.Context, number: int, verb: str, size_: int, seconds: Optional[float]) -> str:
    """Return how much was transferred.

    :param ctx: The context of the command.
    :param number: The number of files.
    :param verb: What was done with them.
    :param size_: Their size in bytes.
    :param seconds: How long it took; None if nothing was done.
    """
    if seconds is None:
        return f'{number} files would be {verb} ({size(ctx, size_)})'
    return f'{number} files {verb} ({size(ctx, size_)}, {size(ctx, int(size_ / max(seconds, 0.001)))}/s)'


def closing(parts: list[str], outcome: 'Outcome', seconds: Optional[float]) -> str:
    """Return the end of the report.

    :param parts: What to report.
    :param outcome: The outcome.
    :param seconds: How long it took; None if nothing was done.
    """
    failed = [f'{len(outcome.failures)} {"would fail" if seconds is None else "FAILED"}'] if outcome.failures else []
    return ', '.join([*parts, *failed, *([] if seconds is None else [f'{seconds:.1f} s'])]) + '.'
