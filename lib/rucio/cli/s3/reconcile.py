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


"""``rucio s3 reconcile``, ``settings`` and ``watch``: keep the catalogue up to date with a bucket."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, TypeVar

import click

from rucio.cli.s3 import did_argument, interruptible, is_robot, parse_did, rse_option, s3_client, say, size, table
from rucio.common.exception import InputValidationError, RucioException, ServerConnectionException
from rucio.common.s3.dates import from_text, to_text
from rucio.common.s3.settings import ON_CHANGED, ON_MISSING

if TYPE_CHECKING:
    from rucio.common.s3 import api

__all__ = [
    'bucket_settings',
    'reconcile',
    'reconcile_options',
    'report',
    'shown_progress',
    'warn',
    'watch',
]

_Command = TypeVar('_Command', bound=Callable[..., Any])

_SHOWN = 10  # names of each kind; all of them with --verbose
_OVERLAP = 30  # seconds by which a transaction may become visible after the date that it carries

_NEVER_AGAIN = (
    'the file is LOST permanently: its name can never be used again, '
    "and Rucio's daemons delete any object under its key, whoever wrote it."
)
_BAD = (
    "bad: declare the replica bad. Rucio's daemons then overwrite the object from another replica; "
    f'if there is none, {_NEVER_AGAIN}'
)
_LOST = (
    "lost: declare the replica lost. Rucio's daemons then copy the file again from another replica; "
    f'if there is none, {_NEVER_AGAIN}'
)
# The counts, in the words of a user. `same` needs no action.
_COUNTS = {
    'listed': 'objects in the bucket',
    'same': 'as in the catalogue',
    'new': 'new: not in the catalogue',
    'registered': 'registered',
    'bytes': 'registered, size',
    'completed': "Rucio's uploads, now confirmed",
    'changed': 'different from the catalogue',
    'replaced': 'updated in the catalogue',
    'bad': 'declared bad',
    'missing': 'in the catalogue, but missing in the bucket',
    'forgotten': 'removed from the catalogue',
    'lost': 'declared lost',
    'unnameable': 'with a key that is not a valid name in Rucio',
    'oversized': 'with a size that no object can have',
    'unreadable': 'that the storage lists without a size or a date',
    'archived': 'archived: they must be restored before they can be read',
    'unproven': 'possibly changed: only reading them would tell',
    'no-checksum': 'without a checksum in the catalogue',
    'conflict': 'with a name that is taken',
    'closed': 'below a closed dataset',
    'over-limit': 'beyond the quota',
    'no-rule': 'datasets without a rule',
    'locked': 'protected by a locked rule',
    'copies': 'with other replicas',
    'empty': 'empty, so they cannot be declared bad or lost',
    'gone': 'removed from the catalogue in the meantime',
    'busy': 'being transferred or deleted by Rucio: left alone',
    'leftover': 'unfinished uploads: left alone',
    'marker': 'directory markers: left alone',
    'failed': 'FAILED',
}


def _on_changed_option(more: tuple[str, ...] = ()) -> 'Callable[[_Command], _Command]':
    """Add the option --on-changed; the default is the bucket's setting."""
    shown = (
        'What to do about objects that differ from the catalogue. '
        'replace: update size and checksum in the catalogue. ' + _BAD
    )
    return click.option('--on-changed', type=click.Choice(ON_CHANGED + more), help=shown)


def _on_missing_option(more: tuple[str, ...] = ()) -> 'Callable[[_Command], _Command]':
    """Add the option --on-missing; the default is the bucket's setting."""
    shown = (
        'What to do about files without an object. '
        'forget: remove them from the catalogue and free their names. ' + _LOST
    )
    return click.option('--on-missing', type=click.Choice(ON_MISSING + more), help=shown)


def reconcile_options(command: _Command) -> _Command:
    """Add the options of a run.

    :param command: The command to add them to.
    :returns: The command.
    """
    for option in (
        click.option('--verbose', is_flag=True, help='Show all names, not only the first ten of each kind.'),
        _on_missing_option(),
        _on_changed_option(),
        click.option('--dry-run', is_flag=True, help='Only show what would be done.'),
    ):
        command = option(command)
    return command


def warn(on_changed: Optional[str], on_missing: Optional[str]) -> None:
    """Warn that a choice lets Rucio's daemons delete or overwrite data irrevocably.

    :param on_changed: The value of --on-changed.
    :param on_missing: The value of --on-missing.
    """
    for chosen, name, text in ((on_changed, '--on-changed', _BAD), (on_missing, '--on-missing', _LOST)):
        if chosen and text.startswith(f'{chosen}:'):
            say(f'{name} {text}', err=True)


# Reconciling


@click.command('reconcile')
@click.argument('target', metavar='SCOPE[:NAME]|RSE')
@rse_option()
@reconcile_options
@click.pass_context
def reconcile(
    ctx: click.Context,
    target: str,
    rse: Optional[str],
    dry_run: bool,
    on_changed: Optional[str],
    on_missing: Optional[str],
    verbose: bool,
) -> None:
    """Register and report what other tools did in a bucket.

    New objects are registered, changed and missing ones are reported. The target is the whole bucket of a SCOPE, the
    part below SCOPE:NAME, or all your buckets on an RSE. New objects become files of the collection that they lie
    below; the stock commands list and download them. Without --on-changed and --on-missing the settings of the bucket
    apply (rucio s3 settings), which by default only report. It can be run again at any time. The exit code is 1 if
    something failed.

    \b
    Example: rucio s3 reconcile user.alice:run7
    """
    client = s3_client(ctx)
    if not dry_run:
        warn(on_changed, on_missing)
    wish: dict[str, Any] = {'dry_run': dry_run, 'on_changed': on_changed, 'on_missing': on_missing}
    failed = False
    targets = _targets(ctx, target, rse)
    for each in targets:
        try:
            with (
                interruptible('Stopped. Everything done so far is kept. Run the same command again to continue.'),
                shown_progress(ctx, each.shown) as progress,
            ):
                answer = client.reconcile(each.scope, each.name or None, each.rse, progress=progress, **wish)
        except RucioException as error:
            if len(targets) == 1:
                raise
            failed = True
            say(f'ERROR {each.shown}: {error.args[0] if error.args else error}', err=True)
        else:
            failed = report(ctx, answer, dry_run, verbose) or failed
    if failed:
        sys.exit(1)


class _Target(NamedTuple):
    scope: str
    name: str
    rse: Optional[str]

    @property
    def shown(self) -> str:
        return f'{self.scope}:{self.name}' if self.name else self.scope


def _targets(ctx: click.Context, text: str, rse: Optional[str]) -> list[_Target]:
    """Resolve a DID or the name of an RSE. For a scope with the name of an RSE, the user appends a colon."""
    scope, name = parse_did(text)
    if name or text != scope or text not in {each['rse'] for each in s3_client(ctx).list_s3_rses()}:
        return [_Target(scope, name, rse)]
    if rse not in (None, text):
        raise InputValidationError(f'{text} and {rse} are both RSEs: give one of them.')
    found = [_Target(each['scope'], '', text) for each in s3_client(ctx).list_buckets(text) if each['scope']]
    if not found:
        raise InputValidationError(
            f'You have no bucket of your own on RSE {text}, or it keeps all scopes in one bucket. Give a scope: '
            f'rucio s3 reconcile SCOPE --rse {text}'
        )
    return found


@contextmanager
def shown_progress(ctx: click.Context, shown: str) -> Iterator[Optional[Callable[[dict[str, int]], None]]]:
    """Show the progress in a line on the terminal; show nothing to programs.

    :param ctx: The context of the command.
    :param shown: The DID to show.
    """
    if is_robot(ctx) or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415

    with Console(stderr=True).status(escape(f'{shown}: comparing the bucket with the catalogue')) as line:
        yield lambda counts: line.update(
            escape(f'{shown}: {counts.get("listed", 0):,} objects, {counts.get("new", 0):,} of them new')
        )


def report(ctx: click.Context, answer: Mapping[str, Any], dry_run: bool, verbose: bool) -> bool:
    """Print the result of a run.

    :param ctx: The context of the command.
    :param answer: The server's answer: rse, scope, name, counts, problems.
    :param dry_run: Whether it was a dry run.
    :param verbose: Whether to print all names.
    :returns: Whether something failed.
    """
    counts, problems = answer['counts'], answer['problems']
    did = f'{answer["scope"]}:{answer["name"]}' if answer.get('name') else answer['scope']
    if is_robot(ctx):
        rows = [['count', did, answer['rse'], kind, number] for kind, number in counts.items()]
        rows += [
            ['problem', did, answer['rse'], *(each[field] for field in ('kind', 'did', 'key', 'found', 'remedy'))]
            for each in problems
        ]
        table(ctx, rows, [])
        return bool(counts.get('failed'))
    say(f'{did} on {answer["rse"]}:' + (' (dry run: nothing is changed)' if dry_run else ''))
    kinds = [
        *(kind for kind in _COUNTS if counts.get(kind)),
        *(kind for kind in counts if counts[kind] and kind not in _COUNTS),
    ]
    rows = [[_COUNTS.get(kind, kind), size(ctx, counts[kind]) if kind == 'bytes' else counts[kind]] for kind in kinds]
    table(ctx, rows or [[_COUNTS['listed'], 0]], ['WHAT', 'NUMBER'], [1])
    _tell(problems, counts, verbose)
    if not kinds and 'prefix' in answer:
        where = f"bucket '{answer['bucket']}'" + (f", below '{answer['prefix']}'" if answer['prefix'] else '')
        say(f'There is nothing in {where}. Check --bucket and --prefix.')
    elif set(kinds) <= {'listed', 'same', 'marker', 'archived'}:
        say('The catalogue matches the bucket: there was nothing to do.')
    return bool(counts.get('failed'))


def _tell(problems: list[dict[str, str]], counts: Mapping[str, int], verbose: bool) -> None:
    """Print the problems of each kind: the remedy once, then the names."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for each in problems:
        groups.setdefault((each['kind'], each['remedy']), []).append(each)
    for (kind, remedy), members in groups.items():
        say()
        say(f'{kind}: {remedy}')
        shown = members if verbose else members[:_SHOWN]
        for each in shown:
            say(f'  {each["did"].rstrip(":")}: {each["found"]}')
        alone = sum(other == kind for other, _ in groups) == 1
        more = (max(counts.get(kind, 0), len(members)) if alone else len(members)) - len(shown)
        if more:
            say(f'  ... and {more} more' + ('.' if verbose else ' (--verbose).'))


# Settings


@click.command('settings')
@click.argument('scope')
@rse_option()
@_on_changed_option(('default',))
@_on_missing_option(('default',))
@click.pass_context
def bucket_settings(
    ctx: click.Context, scope: str, rse: Optional[str], on_changed: Optional[str], on_missing: Optional[str]
) -> None:
    """Show or set what is done about changed and missing objects.

    These settings of the bucket of a SCOPE apply to `rucio s3 reconcile` and to the daemons of the server. `default`
    restores the operator's setting of the RSE.
    """
    bucket, name = parse_did(scope)
    if name:
        raise InputValidationError(f'These settings apply to the whole bucket: give only the scope, {bucket}.')
    warn(on_changed, on_missing)
    client = s3_client(ctx)
    if on_changed or on_missing:
        found = client.set_bucket_settings(bucket, rse, on_changed=on_changed, on_missing=on_missing)
    else:
        found = client.get_bucket_settings(bucket, rse)
    rows = [
        [each.replace('_', '-'), found[each], 'bucket' if each in found['own'] else 'RSE']
        for each in ('on_changed', 'on_missing')
    ]
    if not is_robot(ctx):
        say(f'The bucket {found["bucket"]} on {found["rse"]}:')
    table(ctx, rows, ['SETTING', 'VALUE', 'SET FOR THE'])


# Watching


@click.command('watch')
@did_argument()
@rse_option()
@click.option(
    '--interval', type=click.FloatRange(0.1, 3600), default=2, show_default=True, help='Seconds between two queries.'
)
@click.pass_context
def watch(ctx: click.Context, did: tuple[str, str], rse: Optional[str], interval: float) -> None:
    """Show changes in the catalogue as they happen. Stop with Ctrl-C.

    Shows the changes below SCOPE:NAME, or of all files of a SCOPE: files are registered, updated (with a new size or
    checksum), declared bad or removed. With --robot, each line has time, change, DID and size in bytes.
    """
    with interruptible('', 0):
        _watch(ctx, did[0], did[1] or None, rse, interval)


def _watch(ctx: click.Context, scope: str, name: Optional[str], rse: Optional[str], interval: float) -> None:
    client, seen, waiting = s3_client(ctx), _Seen(), threading.Event()
    since, place = _first(client.list_changes(scope, name, rse))
    say(f'Watching {scope}{f":{name}" if name else ""} on {place}. Press Ctrl-C to stop.', err=True)
    lost = False
    while True:
        started = time.monotonic()
        try:
            answer = client.list_changes(scope, name, place, since)
            lost = False
        except ServerConnectionException as error:
            if not lost:
                say(f'{error.args[0] if error.args else error} Retrying until the server answers.', err=True)
            lost = True
        else:
            for change in seen.new(answer['changes']):
                _show(ctx, change)
            if answer['more']:
                since = answer['now']
                continue
            since = max(since, _earlier(answer['now']))
        # Queries about a large collection take long: leave most of the server's time to others.
        waiting.wait(max(interval, 4 * (time.monotonic() - started)))


def _first(answer: Mapping[str, Any]) -> tuple[str, str]:
    return answer['now'], answer['rse']


def _earlier(date: str) -> str:
    return to_text(from_text(date) - timedelta(seconds=_OVERLAP), fraction=True)


class _Seen:
    """Remember the changes that were shown, for as long as the server may send them again."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str, str]] = set()

    def new(self, changes: 'list[api.Change]') -> 'list[api.Change]':
        """Return those that were not shown yet."""
        keys = [(each['time'], each['change'], each['name']) for each in changes]
        fresh = [change for change, key in zip(changes, keys, strict=True) if key not in self._known]
        self._known = set(keys)
        return fresh


def _show(ctx: click.Context, change: 'api.Change') -> None:
    did = f'{change["scope"]}:{change["name"]}'
    number = change['bytes']
    if is_robot(ctx):
        table(ctx, [[change['time'], change['change'], did, number]], [])
    else:
        local = from_text(change['time']).astimezone()
        say(f'{local:%H:%M:%S}  {change["change"]:10}  {did}' + ('' if number is None else f'  {size(ctx, number)}'))
    sys.stdout.flush()
