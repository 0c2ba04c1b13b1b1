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

import json
from typing import TYPE_CHECKING, Any, Optional

import click

from rucio.cli.s3 import did_argument, is_robot, rse_option, s3_client, say, table
from rucio.common.exception import InputValidationError

if TYPE_CHECKING:
    from rucio.common.s3 import api

__all__ = ['grants', 'policy', 'share', 'unshare']

EVERYBODY = '*'


def _whom(accounts: tuple[str, ...], public: bool) -> list[str]:
    if not accounts and not public:
        raise click.UsageError('Missing option: --with ACCOUNT or --public.')
    return [*accounts, *([EVERYBODY] if public else [])]


def _named(account: str) -> str:
    return 'everybody' if account == EVERYBODY else account


@click.command('share')
@did_argument(need_name=True)
@click.option(
    '--with',
    'accounts',
    metavar='ACCOUNT',
    multiple=True,
    help='Who shall be able to read it. Can be given several times.',
)
@click.option('--write', is_flag=True, help='They can also write and delete there.')
@click.option('--public', is_flag=True, help='Everybody can read it, also without Rucio.')
@click.pass_context
def share(ctx: click.Context, did: tuple[str, str], accounts: tuple[str, ...], write: bool, public: bool) -> None:
    """Let others read a collection, or write to it."""
    whom = _whom(accounts, public)
    if write and public:
        raise click.UsageError('--public grants read access only. To grant write access, use --with ACCOUNT --write.')
    for account in whom:
        s3_client(ctx).add_grant(*did, account, write)
        if not is_robot(ctx):
            say(f'{_named(account)} can read {"and write " if write else ""}{":".join(did)}.')


@click.command('unshare')
@did_argument(need_name=True)
@click.option(
    '--with',
    'accounts',
    metavar='ACCOUNT',
    multiple=True,
    help='An account whose access is revoked. Can be given several times.',
)
@click.option('--public', is_flag=True, help='Stop sharing with everybody.')
@click.pass_context
def unshare(ctx: click.Context, did: tuple[str, str], accounts: tuple[str, ...], public: bool) -> None:
    """Take back what `share` gave."""
    whom = _whom(accounts, public)
    shared = {each['account'] for each in s3_client(ctx).list_grants(*did) if not each.get('ended')}
    for account in whom:
        # Also what is not there: public access is taken back on the storage as well.
        s3_client(ctx).delete_grant(*did, account)
        if not is_robot(ctx):
            # Who mistypes a name must not think that access has ended.
            say(f'{":".join(did)} {"is no longer" if account in shared else "was not"} shared with {_named(account)}.')
    if accounts and not is_robot(ctx):
        say(
            'Keys that were given out before work until they end: '
            'an hour at most, unless your operator set another lifetime.'
        )


@click.command('grants')
@did_argument(need_name=True)
@click.pass_context
def grants(ctx: click.Context, did: tuple[str, str]) -> None:
    """With whom a collection is shared."""
    found = s3_client(ctx).list_grants(*did)
    rows = [[each['account'], _access(each), each['by'], each['at'], each['until'] or '-'] for each in found]
    table(ctx, rows, ['ACCOUNT', 'ACCESS', 'BY', 'AT', 'UNTIL'])


def _access(grant: 'api.Grant') -> str:
    if not grant['ended']:
        return 'read, write' if grant['write'] else 'read'
    # It is listed until the storage was told.
    return 'ended, but may still be public' if grant['account'] == EVERYBODY else 'ended'


@click.command('policy')
@did_argument()
@rse_option()
@click.option(
    '--set', 'file', type=click.File('r'), metavar='FILE', help='Set it: a JSON file, or - for the standard input.'
)
@click.option('--remove', is_flag=True, help='Remove it.')
@click.pass_context
def policy(ctx: click.Context, did: tuple[str, str], rse: Optional[str], file: Any, remove: bool) -> None:
    """
    Show or set the storage's own policy of the bucket of SCOPE.

    It is for those who come to the storage without Rucio, and holds beside what `rucio s3 share` gave: the owner of a
    scope can allow named users and roles of the storage to read its bucket.
    """
    if file and remove:
        raise click.UsageError('--set and --remove exclude each other.')
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
            f'{file.name} is no JSON ({error}). A bucket policy is an object with "Version" and "Statement".'
        ) from None
    if not isinstance(found, dict):
        raise InputValidationError(
            f'{file.name} holds no JSON object. A bucket policy is one with "Version" and "Statement".'
        )
    return found
