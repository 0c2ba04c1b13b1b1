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

"""The command ``rucio-s3-database``: create and remove what the plugin has in the server's database."""

import argparse
import sys
from typing import TYPE_CHECKING, Optional

from sqlalchemy import inspect

from rucio.common.exception import ConfigurationError, RucioException, UnsupportedOperation
from rucio.core.s3.auth import grants, old_grants
from rucio.core.s3.transfers import claims
from rucio.daemons.s3 import leftovers, starting
from rucio.db.sqla import s3
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session, get_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.orm import Session

    from rucio.core.s3.auth.old_grants import OldGrant

__all__ = ['main']

_TABLES = s3.tables()


def _say(text: str) -> None:
    sys.stdout.write(f'{text}\n')


def _make(dry_run: bool) -> bool:
    """Create missing tables unless it is a dry run.

    :returns: Whether the tables exist.
    :raises ConfigurationError: if the database is not that of a Rucio server.
    """
    with get_engine().connect() as connection:
        schema = s3.S3Base.metadata.schema
        if not inspect(connection).has_table('dids', schema=schema):
            raise ConfigurationError(
                "rucio.cfg [database] names a database without Rucio's tables"
                f'{f" in the schema {schema}" if schema else ""}: this command needs the rucio.cfg of the server, '
                "and Rucio's own tables must be created first."
            )
        lacking = s3.missing(connection)
    if not lacking:
        _say(f'The {_TABLES} exist.')
    elif dry_run:
        _say(f'The database lacks {lacking}: they would be created.')
    else:
        s3.make()
        _say(f'Created {lacking}.')
    return not (lacking and dry_run)


def _listed(found: 'Sequence[OldGrant]') -> None:
    for old in found:
        whom = 'everybody' if old.account == grants.EVERYBODY else old.account
        doubt = f'   doubtful: {old.doubt}' if old.doubt else ''
        _say(_plain(f'  {old.did}   {whom}   {"read, write" if old.write else "read"}   by {old.by}, {old.at}{doubt}'))


def _plain(text: str) -> str:
    """Escape a text that strangers may have written to one line."""
    return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)


def _chosen(found: 'Sequence[OldGrant]', dids: 'Sequence[str]', doubtful: bool) -> 'list[OldGrant]':
    """Choose the grants of the given collections; without names all, or all that are not doubtful.

    :raises RucioException: if a given collection has none.
    """
    if unknown := set(dids) - {old.did for old in found}:
        raise RucioException(f'There are no old grants of {", ".join(sorted(unknown))}.')
    return [old for old in found if (old.did in dids if dids else doubtful or not old.doubt)]


def _settle(chosen: 'Sequence[OldGrant]', move: bool) -> bool:
    """Move or drop the grants.

    :returns: Whether all of them could be moved or dropped.
    """
    well, count = True, 0
    for old in chosen:
        try:
            with db_session(DatabaseOperationType.WRITE) as session:
                (old_grants.take_over if move else old_grants.drop)(old, session=session)
            count += 1
        except RucioException as error:
            well = False
            _say(_plain(f'  {old.did}, {old.account}: {error.args[0] if error.args else error}'))
    _say(f'{count} of {len(chosen)} grants were {"moved into the table" if move else "dropped"}.')
    return well


def _old(options: argparse.Namespace, ready: bool) -> bool:
    """Handle grants of earlier versions.

    :returns: Whether it succeeded.
    """
    with db_session(DatabaseOperationType.READ) as session:
        found = old_grants.list_old(session=session)
    move, dids = (
        options.move_grants is not None,
        options.move_grants if options.move_grants is not None else options.drop_grants,
    )
    chosen = _chosen(found, dids, not move) if dids is not None else []
    if chosen and ready:
        return _settle(chosen, move)
    shown = chosen or found
    if shown:
        _say(
            'Grants of an earlier version in the metadata of collections, which are not valid'
            f'{" and would be handled" if chosen else ""}:'
        )
        _listed(shown)
        _say(
            'Review them, as strangers may have written them. Take them over with --move-grants '
            '(doubtful ones only by name: --move-grants SCOPE:NAME), or remove them with --drop-grants.'
        )
    return True


def _remove(dry_run: bool, force: bool) -> None:
    """Remove the tables, and the plugin's rows in those of Rucio."""
    with get_engine().connect() as connection:
        there = not s3.missing(connection, ['s3_grants'])
    with db_session(DatabaseOperationType.READ) as session:
        reasons = [*_reasons(session), *(_public(session) if there else ())]
        rses = leftovers.list_rses(session=session)
    if reasons and not dry_run and not force:
        raise UnsupportedOperation(f'{" ".join(reasons)} Or use --force.')
    for reason in reasons:
        _say(reason)
    were = 'would be' if dry_run else 'were'
    for each in leftovers.remove(dry_run):
        _say(f"Of Rucio's table {each.table} {were} removed: {each.number} ({each.content}).")
    if there and not dry_run:
        s3.drop()
    _say(f'The {_TABLES} {were} removed, with all grants.' if there else 'There is no table s3_grants.')
    if rses:
        _say(f'Before `pip uninstall rucio-s3`, change the impl of the protocols of {", ".join(rses)}.')


def _reasons(session: 'Session') -> 'Iterator[str]':
    """Say what ought to be done before the rows are removed."""
    if count := claims.count_submitted(session=session):
        yield f'{count} transfers wait for rucio-s3-copier, and nothing else will carry them out: let it finish.'
    if found := old_grants.list_old(session=session):
        yield f'{len(found)} grants of an earlier version are in metadata: remove them with --drop-grants.'


def _public(session: 'Session') -> 'Iterator[str]':
    if not (public := grants.list_public(session=session)):
        return
    _say(
        'These are public on their storages, or shared with users of these (rucio s3 unshare DID --with ACCOUNT), '
        'and will stay so without a way to revoke it with Rucio (rucio s3 unshare DID --public):'
    )
    for did in public:
        _say(f'  {did}')
    yield 'Revoke the public access, and that of users.'


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=s3.COMMAND,
        description=f'Create or update the {_TABLES} of rucio-s3 in the database of the Rucio server, and list '
        'grants of earlier versions. Run it where the rucio.cfg of the server is, after each upgrade of rucio-s3. '
        'It can be repeated.',
    )
    parser.add_argument('--dry-run', action='store_true', help='only show what would be done')
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        '--move-grants',
        nargs='*',
        metavar='SCOPE:NAME',
        help='move old grants of these collections from metadata into the table; without names, all but the doubtful '
        'ones',
    )
    what.add_argument(
        '--drop-grants',
        nargs='*',
        metavar='SCOPE:NAME',
        help='remove old grants of these collections from metadata; without names, all',
    )
    what.add_argument(
        '--remove',
        action='store_true',
        help="remove the tables with all grants, and the plugin's rows in Rucio's tables, before rucio-s3 is "
        'uninstalled for good; with --dry-run, count them',
    )
    parser.add_argument(
        '--force',
        action='store_true',
        help='with --remove: even if some collections are public, and stay so, or transfers wait for rucio-s3-copier',
    )
    return parser


def main(arguments: 'Optional[Sequence[str]]' = None) -> None:
    """Run the command. If something fails, it prints a sentence and exits with 1.

    :param arguments: The command line; by default that of the process.
    """
    options = get_parser().parse_args(arguments)
    with starting.started(s3.COMMAND, 'The database was not changed'):
        if options.remove:
            _remove(options.dry_run, options.force)
        elif not _old(options, _make(options.dry_run) and not options.dry_run):
            sys.exit(1)


if __name__ == '__main__':
    main()
