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
    help='An account that may read it. Can be given several times.',
)
@click.option('--write', is_flag=True, help='The accounts may also write and delete.')
@click.option('--public', is_flag=True, help='Let everybody read it, even without a Rucio account.')
@click.pass_context
def share(ctx: click.Context, did: tuple[str, str], accounts: tuple[str, ...], write: bool, public: bool) -> None:
    """Give other accounts access to a collection."""
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
    """Revoke access that was given with `share`."""
    whom = _whom(accounts, public)
    shared = {each['account'] for each in s3_client(ctx).list_grants(*did) if not each.get('ended')}
    for account in whom:
        # Also if there is no grant: this removes public access from the storage as well.
        s3_client(ctx).delete_grant(*did, account)
        if not is_robot(ctx):
            # A mistyped name must not look as if access had ended.
            say(f'{":".join(did)} {"is no longer" if account in shared else "was not"} shared with {_named(account)}.')
    if accounts and not is_robot(ctx):
        say(
            'Keys that were issued before remain valid until they expire: '
            'after at most an hour, unless the operator set another lifetime.'
        )


@click.command('grants')
@did_argument(need_name=True)
@click.pass_context
def grants(ctx: click.Context, did: tuple[str, str]) -> None:
    """List the accounts that a collection is shared with."""
    found = s3_client(ctx).list_grants(*did)
    rows = [[each['account'], _access(each), each['by'], each['at'], each['until'] or '-'] for each in found]
    table(ctx, rows, ['ACCOUNT', 'ACCESS', 'BY', 'AT', 'UNTIL'])


def _access(grant: 'api.Grant') -> str:
    if not grant['ended']:
        return 'read, write' if grant['write'] else 'read'
    # A grant is listed until the storage has revoked it.
    return 'ended, but may still be public' if grant['account'] == EVERYBODY else 'ended'


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
