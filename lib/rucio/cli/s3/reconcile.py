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


"""``rucio s3 reconcile``, ``settings`` and ``watch``: the catalogue follows a bucket."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, TypeVar

import click

from rucio.cli.s3 import did_argument, interruptible, is_robot, parse_did, rse_option, s3_client, say, size, table
from rucio.common.exception import InputValidationError, RucioException, ServerConnectionException
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
_OVERLAP = 30  # seconds; a transaction may become visible so much later than the date that it carries
_DATE = '%Y-%m-%dT%H:%M:%S.%fZ'

_NEVER_AGAIN = (
    "the file is LOST for ever: its name is never used again, and Rucio's daemons delete what lies under its key, "
    'whoever wrote it.'
)
_BAD = (
    "bad: declared bad. Rucio's daemons then write the file anew from another replica, over the object; "
    f'without one {_NEVER_AGAIN}'
)
_LOST = (
    "lost: declared lost. Rucio's daemons then copy the file here again from another replica; "
    f'without one {_NEVER_AGAIN}'
)
# What is counted, as a person wants to read it. `same` is what need not be told.
_COUNTS = {
    'listed': 'objects in the bucket',
    'same': 'as in the catalogue',
    'new': 'new: not in the catalogue',
    'registered': 'registered',
    'bytes': 'registered, size',
    'completed': 'uploads of Rucio that are confirmed now',
    'changed': 'not what the catalogue says',
    'replaced': 'changed in the catalogue, too',
    'bad': 'declared bad',
    'missing': 'gone, but in the catalogue',
    'forgotten': 'forgotten by the catalogue',
    'lost': 'declared lost',
    'unnameable': 'with a key that is no name in Rucio',
    'oversized': 'with a size that no object has',
    'unproven': 'perhaps changed: only reading them tells',
    'unsummed': 'without a checksum in the catalogue',
    'conflict': 'with a name that is taken',
    'closed': 'below a closed dataset',
    'over-limit': 'more than the quota',
    'no-rule': 'datasets without a rule',
    'locked': 'protected by a locked rule',
    'copies': 'with other replicas',
    'empty': 'empty, and cannot be declared',
    'gone': 'removed from the catalogue meanwhile',
    'busy': 'under way by Rucio: left alone',
    'leftover': 'unfinished uploads: left alone',
    'marker': 'directory markers: left alone',
    'failed': 'FAILED',
}


def _on_changed_option(more: tuple[str, ...] = ()) -> 'Callable[[_Command], _Command]':
    """The option --on-changed. Left out, what is set for the bucket holds."""
    shown = (
        'About objects that are not what the catalogue says. '
        'replace: the catalogue takes over the new size and checksum. ' + _BAD
    )
    return click.option('--on-changed', type=click.Choice(ON_CHANGED + more), help=shown)


def _on_missing_option(more: tuple[str, ...] = ()) -> 'Callable[[_Command], _Command]':
    """The option --on-missing. Left out, what is set for the bucket holds."""
    shown = 'About files whose object is gone. forget: the catalogue forgets them, and the names are free. ' + _LOST
    return click.option('--on-missing', type=click.Choice(ON_MISSING + more), help=shown)


def reconcile_options(command: _Command) -> _Command:
    """What can be chosen for a run."""
    for option in (
        click.option('--verbose', is_flag=True, help='All names, not the first ten of each kind.'),
        _on_missing_option(),
        _on_changed_option(),
        click.option('--dry-run', is_flag=True, help='Only say what would be done.'),
    ):
        command = option(command)
    return command


def warn(on_changed: Optional[str], on_missing: Optional[str]) -> None:
    """Say what Rucio's daemons will do, of what cannot be taken back."""
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
    """Register what other tools put into a bucket, and tell what they changed or removed.

    All of the bucket of a SCOPE, what is below SCOPE:NAME, or all your buckets on an RSE. New objects become files of
    the collection that they lie below, and the stock commands list and download them. Without --on-changed and
    --on-missing, what is set for the bucket is done (rucio s3 settings); at first that is: report. Can be run again at
    any time. The exit code is 1 if something failed.

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
                interruptible('Stopped. What was done so far stays. Run the same command again to go on.'),
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
    """A DID, or the buckets of an RSE. Who has a scope with the name of an RSE writes a colon behind it."""
    scope, name = parse_did(text)
    if name or text != scope or text not in {each['rse'] for each in s3_client(ctx).list_s3_rses()}:
        return [_Target(scope, name, rse)]
    if rse not in (None, text):
        raise InputValidationError(f'{text} is an RSE, and so is {rse}: name one of them.')
    found = [_Target(each['scope'], '', text) for each in s3_client(ctx).list_buckets(text) if each['scope']]
    if not found:
        raise InputValidationError(
            f'You have no bucket on RSE {text}, or it keeps all scopes in one. Name a scope: '
            f'rucio s3 reconcile SCOPE --rse {text}'
        )
    return found


@contextmanager
def shown_progress(ctx: click.Context, shown: str) -> Iterator[Optional[Callable[[dict[str, int]], None]]]:
    """A line on the terminal that tells how far it is; nothing for programs."""
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
    """Print what was found and done.

    :param answer: What the server said: rse, scope, name, counts, problems.
    :param dry_run: Whether nothing was written.
    :param verbose: All names.
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
    say(f'{did} on {answer["rse"]}:' + (' (nothing is written)' if dry_run else ''))
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
    elif set(kinds) <= {'listed', 'same', 'marker'}:
        say('The catalogue says what is there: there was nothing to do.')
    return bool(counts.get('failed'))


def _tell(problems: list[dict[str, str]], counts: Mapping[str, int], verbose: bool) -> None:
    """Problems by kind: each with its remedy once, and its names."""
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
    """Show or set what is done in the bucket of a SCOPE about objects that others changed or removed.

    `rucio s3 reconcile` and the server's daemons do it. `default` takes a setting back: what the operator chose for the
    RSE holds again.
    """
    bucket, name = parse_did(scope)
    if name:
        raise InputValidationError(f'These settings are for all of a bucket: give the scope alone, {bucket}.')
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
    '--interval', type=click.FloatRange(0.1, 3600), default=2, show_default=True, help='Seconds between two looks.'
)
@click.pass_context
def watch(ctx: click.Context, did: tuple[str, str], rse: Optional[str], interval: float) -> None:
    """Show what happens in the catalogue below SCOPE:NAME, or to all files of a SCOPE, as it happens. Ctrl-C ends it.

    Files are registered, updated (a new size or checksum), declared bad, or removed. For programs (--robot): time,
    what, DID and bytes.
    """
    with interruptible('', 0):
        _watch(ctx, did[0], did[1] or None, rse, interval)


def _watch(ctx: click.Context, scope: str, name: Optional[str], rse: Optional[str], interval: float) -> None:
    client, seen, waiting = s3_client(ctx), _Seen(), threading.Event()
    since, place = _first(client.list_changes(scope, name, rse))
    say(f'Watching {scope}{f":{name}" if name else ""} on {place}. Ctrl-C ends it.', err=True)
    lost = False
    while True:
        started = time.monotonic()
        try:
            answer = client.list_changes(scope, name, place, since)
            lost = False
        except ServerConnectionException as error:
            if not lost:
                say(f'{error.args[0] if error.args else error} Retrying until it answers.', err=True)
            lost = True
        else:
            for change in seen.new(answer['changes']):
                _show(ctx, change)
            if answer['more']:
                since = answer['now']
                continue
            since = max(since, _earlier(answer['now']))
        # A large collection takes the server time: most of its time shall be for others.
        waiting.wait(max(interval, 4 * (time.monotonic() - started)))


def _first(answer: Mapping[str, Any]) -> tuple[str, str]:
    return answer['now'], answer['rse']


def _earlier(date: str) -> str:
    return (datetime.strptime(date, _DATE).replace(tzinfo=timezone.utc) - timedelta(seconds=_OVERLAP)).strftime(_DATE)


class _Seen:
    """What was told already, for as long as it may be told again."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str, str]] = set()

    def new(self, changes: 'list[api.Change]') -> 'list[api.Change]':
        """Those that were not told yet."""
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
        local = datetime.strptime(change['time'], _DATE).replace(tzinfo=timezone.utc).astimezone()
        say(f'{local:%H:%M:%S}  {change["change"]:10}  {did}' + ('' if number is None else f'  {size(ctx, number)}'))
    sys.stdout.flush()
