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


"""``rucio s3 share``, ``unshare``, ``grants`` and ``policy``."""

import functools
import json
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, TypeVar, Union, cast

import click

from rucio.cli.s3 import did_argument, is_robot, rse_option, s3_client, say, table
from rucio.common.exception import InputValidationError
from rucio.common.s3.dates import end_from_text, to_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from rucio.common.s3 import api

__all__ = ['grants', 'list_shares', 'policy', 'share', 'unshare']

_Decorated = TypeVar('_Decorated', bound='Callable[..., Any]')

EVERYBODY = '*'
_MORE = 'There are more than 1000: only these are shown.'


class _Grantee(NamedTuple):
    """To whom something is shared, in the words of the REST interface."""

    kind: str
    account: str

    def __str__(self) -> str:
        return {
            'attribute': f'all accounts with {self.account}',
            'everybody': 'all accounts',
            'world': 'everybody',
        }.get(self.kind, self.account)


def _grantee_options(function: _Decorated) -> _Decorated:
    """Add the options by which `share` and `unshare` name the grantees; the command gets them as one list."""

    @functools.wraps(function)
    def command(
        *args: Any,
        accounts: tuple[str, ...],
        attributes: tuple[str, ...],
        all_accounts: bool,
        public: bool,
        **others: Any,
    ) -> Any:
        whom = [_Grantee('account', each) for each in accounts] + [_Grantee('attribute', each) for each in attributes]
        whom += [_Grantee('everybody', EVERYBODY)] if all_accounts else []
        whom += [_Grantee('world', EVERYBODY)] if public else []
        if not whom:
            raise click.UsageError('Missing option: --with ACCOUNT, --attribute KEY=VALUE, --all-accounts or --public.')
        return function(*args, whom=whom, **others)

    for option in reversed(
        (
            click.option(
                '--with', 'accounts', metavar='ACCOUNT', multiple=True, help='An account. Can be given several times.'
            ),
            click.option(
                '--attribute',
                'attributes',
                metavar='KEY=VALUE',
                multiple=True,
                help='All accounts with this attribute, such as experiment=atlas. Can be given several times.',
            ),
            click.option('--all-accounts', is_flag=True, help='All accounts of this Rucio.'),
            click.option('--public', is_flag=True, help='Everybody, even without a Rucio account.'),
        )
    ):
        command = option(command)
    return cast('_Decorated', command)


def _end(_ctx: click.Context, _option: click.Parameter, date: Optional[str]) -> 'Optional[datetime]':
    try:
        return end_from_text(date) if date else None
    except ValueError as error:
        raise click.BadParameter(f"'{date}': {error}.") from None


@click.command('share')
@did_argument(need_name=True)
@_grantee_options
@click.option('--write', is_flag=True, help='They may also write and delete.')
@click.option(
    '--until',
    metavar='DATE',
    callback=_end,
    help='When the access ends: the last day, such as 2026-12-31, or a time, such as 2026-12-31T12:00:00Z (UTC).',
)
@click.pass_context
def share(
    ctx: click.Context, did: tuple[str, str], whom: list[_Grantee], write: bool, until: 'Optional[datetime]'
) -> None:
    """Let others read a collection, or read and write it.

    Who has an attribute is decided when they ask for access: admins of Rucio set the attributes of accounts. The
    account of a group is an account like others: share with it by --with. Sharing again with the same account changes
    its access and its end.
    """
    for each in whom:
        if write and each.account == EVERYBODY:
            option = '--public' if each.kind == 'world' else '--all-accounts'
            raise click.UsageError(
                f'{option} grants read access only. To grant write access, use --with ACCOUNT --write.'
            )
    for each in whom:
        added = s3_client(ctx).add_grant(*did, each.account, write, kind=_kind(each), until=until)
        if not is_robot(ctx):
            end = f' until {to_text(until)}' if until else ''
            say(f'{each} can read {"and write " if write else ""}{":".join(did)}{end}.')
            for own in added.get('own_keys', ()):
                say(_described_own(own))


def _described_own(own: 'api.OwnKeys') -> str:
    if own['user']:
        return f'On {own["rse"]}, {own["user"]} can read it with keys of its own, too.'
    return f'On {own["rse"]}, only with keys and signatures of Rucio: {own["why"]}'


@click.command('unshare')
@did_argument(need_name=True)
@_grantee_options
@click.pass_context
def unshare(ctx: click.Context, did: tuple[str, str], whom: list[_Grantee]) -> None:
    """Revoke access that was given with `share`."""
    grants = s3_client(ctx).list_grants(*did)
    shared = {(each['kind'], each['account']) for each in grants if not each['ended']}
    for each in whom:
        # Also if there is no grant: this removes public access from the storage as well.
        s3_client(ctx).delete_grant(*did, each.account, kind=_kind(each))
        if not is_robot(ctx):
            # A mistyped name must not look as if access had ended.
            say(f'{":".join(did)} {"is no longer" if each in shared else "was not"} shared with {each}.')
    if any(each.kind != 'world' for each in whom) and not is_robot(ctx):
        say(
            'Keys that were issued before remain valid until they expire: '
            'after at most an hour, unless the operator set another lifetime.'
        )


def _kind(grantee: _Grantee) -> Optional[str]:
    """Return the kind as it is sent: an older server knows accounts and the world, and no parameter for them."""
    return None if grantee.kind in ('account', 'world') else grantee.kind


@click.command('grants')
@did_argument(need_name=True)
@click.pass_context
def grants(ctx: click.Context, did: tuple[str, str]) -> None:
    """List with whom a collection is shared."""
    found = s3_client(ctx).list_grants(*did)
    rows = [[_name(each), _access(each), each['by'], each['at'], each['until'] or '-'] for each in found]
    table(ctx, rows, ['ACCOUNT', 'ACCESS', 'BY', 'AT', 'UNTIL'])


def _name(grant: 'Union[api.Grant, api.Share]') -> str:
    return 'all accounts' if grant['kind'] == 'everybody' else grant['account']


def _access(grant: 'Union[api.Grant, api.Share]') -> str:
    if not grant['ended']:
        return 'read, write' if grant['write'] else 'read'
    # A grant is listed until the storage has revoked it.
    return 'ended, but may still be public' if grant['kind'] == 'world' else 'ended'


def list_shares(ctx: click.Context, rse: Optional[str], short: bool) -> None:
    """Print what others share with the account, and what it shares.

    :param ctx: The context of the command.
    :param rse: Only what is on this RSE.
    :param short: Print only the names.
    """
    usable, shared = s3_client(ctx).list_usable(places=True), s3_client(ctx).list_shared(places=True)
    rows = []
    for each in (*(each for each in usable['shares'] if each['kind'] != 'own'), *shared['shares']):
        rses = [place['rse'] for place in each['places']]
        if rse is None or rse in rses:
            did = f'{each["scope"]}:{each["name"]}'
            rows.append([did, _access(each), each['by'], _name(each), each['until'] or '-', ', '.join(rses)])
    if short:
        for name in dict.fromkeys(str(row[0]) for row in rows):
            say(name)
    else:
        table(ctx, rows, ['SCOPE:NAME', 'ACCESS', 'SHARED BY', 'WITH', 'UNTIL', 'RSE'])
    if usable['more'] or shared['more']:
        say(_MORE, err=True)


@click.command('policy')
@did_argument()
@rse_option()
@click.option(
    '--set', 'file', type=click.File('r'), metavar='FILE', help='Set the policy from a JSON file, or - for stdin.'
)
@click.option('--remove', is_flag=True, help='Remove the policy.')
@click.pass_context
def policy(ctx: click.Context, did: tuple[str, str], rse: Optional[str], file: Any, remove: bool) -> None:
    """Show or set the bucket policy of the bucket of SCOPE.

    With it, the owner of a scope can let users and roles of the storage read the bucket without Rucio. It applies in
    addition to the access that `rucio s3 share` gives.
    """
    if file and remove:
        raise click.UsageError('--set and --remove are mutually exclusive.')
    scope, s3 = did[0], s3_client(ctx)
    if remove:
        s3.delete_bucket_policy(scope, rse)
    elif file:
        s3.set_bucket_policy(scope, _read(file), rse)
    else:
        found = s3.get_bucket_policy(scope, rse)
        click.echo(
            json.dumps(found, indent=None if is_robot(ctx) else 2)
            if found
            else '{}'
            if is_robot(ctx)
            else f'The bucket of {scope} has no policy.'
        )
        return
    if not is_robot(ctx):
        say(f'The policy of the bucket of {scope} is {"removed" if remove else "set"}.')


def _read(file: Any) -> dict[str, Any]:
    try:
        found = json.load(file)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputValidationError(
            f'{file.name} is not valid JSON ({error}). A bucket policy is an object with "Version" and "Statement".'
        ) from None
    if not isinstance(found, dict):
        raise InputValidationError(
            f'{file.name} does not contain a JSON object. A bucket policy is one with "Version" and "Statement".'
        )
    return found
