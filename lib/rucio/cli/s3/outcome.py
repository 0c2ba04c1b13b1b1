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
from rucio.common.s3.answers import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from rucio.client.s3files.tally import Outcome

__all__ = ['closing', 'options_of', 'report_plan', 'report_problems', 'transfer_options', 'transferred']

_Command = TypeVar('_Command', bound='Callable[..., Any]')

_SHOWN = 50  # failures; more would drive the summary off the screen
_OF_A_KIND = 3  # ... that have one reason


def report_problems(outcome: 'Outcome') -> None:
    """Print the warnings and failures of a command on standard error.

    :param outcome: The outcome.
    """
    _report(outcome.warnings, 'warning', lambda path, reason: f'WARNING {path} {reason}. It was left out.')
    _report(outcome.failures, 'failure', lambda path, reason: f'ERROR {path} {reason.rstrip(".")}.')


def _report(problems: list[tuple[str, str]], noun: str, line: 'Callable[[str, str], str]') -> None:
    """Print problems; of those with the same reason, the first few."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for path, reason in problems:
        alike.setdefault(_without_names(path, reason), []).append((path, reason))
    room, rest = _SHOWN, 0
    for some in alike.values():
        few = len(some) if len(some) <= _OF_A_KIND + 1 else _OF_A_KIND  # no line for one that is left out
        shown = some[: min(few, room)]
        room -= len(shown)
        for path, reason in shown:
            say(line(path, reason), err=True)
        if not shown:
            rest += len(some)
        elif len(some) > len(shown):
            say(f'... and {len(some) - len(shown)} more {noun}s for the same reason.', err=True)
    if rest:
        say(f'... and {rest} more {noun}{"" if rest == 1 else "s"}.', err=True)


def _without_names(path: str, reason: str) -> str:
    """Return a reason without the file that it names: two files are refused in the same words but for that."""
    for name in (path, path.partition(':')[2], path.rpartition('/')[2]):
        if name:
            reason = reason.replace(name, '')
    return reason


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
            show_default='16 to 128, by the latency of the storage',
            help=f'Files to {verb} at once.',
        ),
    )

    def decorate(command: _Command) -> _Command:
        for option in reversed(added):
            command = option(command)
        return command

    return decorate


checksum_option = click.option(
    '--checksum',
    is_flag=True,
    help='Read all files to compare them, also those that have not changed since an earlier upload.',
)


def options_of(given: dict[str, Any]) -> Options:
    """Return the options of :func:`transfer_options`.

    :param given: The keywords of the command.
    """
    chosen = Filter(given['include'], given['exclude'])
    return Options(jobs=given['jobs'], chosen=chosen, dry_run=given['dry_run'], checksum=given.get('checksum', False))


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
        return f'{counted(number, "file")} would be {verb} ({size(ctx, size_)})'
    return f'{counted(number, "file")} {verb} ({size(ctx, size_)}, {size(ctx, int(size_ / max(seconds, 0.001)))}/s)'


def closing(parts: list[str], outcome: 'Outcome', seconds: Optional[float]) -> str:
    """Return the end of the report.

    :param parts: What to report.
    :param outcome: The outcome.
    :param seconds: How long it took; None if nothing was done.
    """
    failed = [f'{len(outcome.failures)} {"would fail" if seconds is None else "FAILED"}'] if outcome.failures else []
    return ', '.join([*parts, *failed, *([] if seconds is None else [f'{seconds:.1f} s'])]) + '.'
