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

"""``rucio s3 credentials``, ``url`` and ``presign``: credentials and names for other tools."""

import os
import shutil
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Optional

import click

import rucio_s3_plugin
from rucio.common.exception import (
    AccessDenied,
    AccountNotFound,
    DataIdentifierNotFound,
    InputValidationError,
    RSEOperationNotSupported,
    RucioException,
    ScopeNotFound,
    ServiceUnavailable,
)
from rucio.common.s3.answers import printable
from rucio.common.s3.dates import from_text
from rucio.common.s3.formats import (
    FORMATS,
    TOOLS,
    Access,
    alias_of,
    name_for,
)
from rucio.common.s3.roles import Role

from . import did_argument, private, rse_option, s3_client, say
from .missing import Missing

if TYPE_CHECKING:
    from rucio.client.client import Client
    from rucio.client.s3client import S3Client
    from rucio.common.s3 import api
    from rucio.common.s3.endpoint import Endpoint

_MOST_SHARED = 50  # collections of others for which keys are fetched, in three requests each
_OTHER_WAYS = '`rucio upload`, `rucio download` and `rucio s3 presign` may still work.'
_read_only = click.option('--read-only', is_flag=True, help='Get keys that can neither write nor delete.')
_lifetime = click.option(
    '--lifetime',
    type=click.IntRange(min=1),
    metavar='SECONDS',
    help='How long the keys are valid. The server sets the upper limit.',
)


@click.command('credentials')
@did_argument(required=False)
@rse_option()
@_read_only
@_lifetime
@click.option(
    '--format', 'form', type=click.Choice(list(FORMATS)), default='mc', show_default=True, help='The tool to write for.'
)
@click.option(
    '--write',
    'into_file',
    is_flag=True,
    help="Write to the tool's own configuration file, and keep everything else in it.",
)
@click.option('--file', 'path', type=click.Path(dir_okay=False), help='Write to this file instead, in any format.')
@click.pass_context
def credentials(
    ctx: click.Context,
    did: Optional[tuple[str, str]],
    rse: Optional[str],
    read_only: bool,
    lifetime: Optional[int],
    form: str,
    into_file: bool,
    path: Optional[str],
) -> None:
    """Print short-lived keys in the format of a tool.

    The keys are for the bucket of a scope or for one collection; without a DID, for the buckets of all your own scopes,
    and for the collections that others share with you.
    `rucio s3 url` prints the name that the tool uses for a DID with these keys. A file written with --write or --file
    is never readable by others. The command refuses to print keys if its output is redirected to a file that others
    could open.

    \b
    Examples: rucio s3 credentials --write
              rucio s3 credentials --format rclone --write
              rucio s3 credentials user.alice --format json --file keys.json
              eval "$(rucio s3 credentials user.alice --format env)"
    """
    formatter = FORMATS[form]
    places = [path] if path else formatter.locations(os.environ, shutil.which) if into_file else []
    if not into_file and not places:
        private.need_private_output(sys.stdout, rucio_s3_plugin.output_mode)
    elif not places:
        raise InputValidationError(f'The format {form} has no default file: choose one with --file FILE.')
    missing = Missing()
    s3 = s3_client(ctx)
    if did:
        accesses = [_access(s3, _keys(s3, did, rse, read_only, lifetime), *did)]
    else:  # what others share must not make one bucket several, where the keys of one are the default ones
        shared = [] if formatter.single or form == 'env' else _shared(s3, rse, read_only, lifetime)
        accesses = [*_own(ctx, s3, rse, read_only, lifetime, missing, alone=not shared), *shared]
    if formatter.single and len(accesses) > 1:
        raise InputValidationError(
            f'The format {form} holds the keys of one bucket, but you have {len(accesses)}. Choose one: '
            f'{_some_scopes(accesses)}.'
        )
    for place in places:
        private.replace(place, lambda old: formatter.merged(old, accesses))
        say(f'Wrote to {place}: ' + ', '.join(f'{access.alias} ({_reach(access)})' for access in accesses), err=True)
    if not places:
        click.echo(formatter.text(accesses), nl=False)
    if form != 'process':
        _tell_end(min(access.keys['expiration'] for access in accesses))
        own = {s3_client(ctx).endpoint(access.keys['rse']).ca_bundle for access in accesses} if formatter.ca else set()
        for bundle in sorted(each for each in own if each):
            say(f'The storage has a CA of its own. {formatter.ca.replace("FILE", os.path.abspath(bundle))}', err=True)
    missing.tell()


@click.command('url')
@did_argument()
@rse_option()
@click.option(
    '--for',
    'tool',
    type=click.Choice([*TOOLS, 'role']),
    default='https',
    show_default=True,
    help='The tool to name it for; role: the ARN for AWS_ROLE_ARN, see `rucio s3 token`.',
)
@click.pass_context
def url(ctx: click.Context, did: tuple[str, str], rse: Optional[str], tool: str) -> None:
    """Print the name that a tool uses for a DID.

    For mc and rclone it begins with the alias under which `rucio s3 credentials` provides the keys for this DID. Under
    `rucio s3 exec`, write the DID itself. The name of a collection ends in "/", as a common prefix of its files.

    \b
    Example: mc ls "$(rucio s3 url user.alice:run7 --for mc)"
    """
    scope, name = did
    s3 = s3_client(ctx)
    place = s3.best_place(scope, name, rse)
    if tool == 'role':
        click.echo(Role(place['rse'], scope, name).arn)
        return
    key = place['key']
    if key and not key.endswith('/') and is_collection(ctx.obj.client, scope, name):
        key += '/'
    alias = _alias(s3, scope, name, place['rse'], place['bucket']) if '{alias}' in TOOLS[tool] else ''
    storage = s3.get_s3_rse(place['rse'])['url'] if '{url}' in TOOLS[tool] else ''
    name_there = name_for(tool, alias, storage, place['bucket'], key)
    if not name_there.isprintable() or not _is_shown(name_there):
        raise InputValidationError(
            f'The name of {printable(_written(did))} cannot be printed, because its key contains control characters, '
            f'or others that are not in {sys.stdout.encoding}. Use --for https.'
        )
    click.echo(name_there)


def _is_shown(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or 'utf-8')
    except UnicodeEncodeError:
        return False
    return True


def _alias(s3: 'S3Client', scope: str, name: str, rse: str, bucket: str) -> str:
    """Return the alias of a DID for mc and rclone.

    In somebody else's bucket it names the part that was shared, so that all keys under one alias belong to one grant,
    even if they are for less than it covers. Without an STS there are no keys to belong to, and it may be an alias that
    the user made.
    """
    prefix = '' if scope == f'user.{s3.account}' else s3.best_place(scope, name, rse)['prefix'] or ''
    return alias_of(rse, scope, bucket, prefix, str(s3.account))


# Keys


def _own(
    ctx: click.Context,
    s3: 'S3Client',
    rse: Optional[str],
    read_only: bool,
    lifetime: Optional[int],
    missing: Missing,
    *,
    alone: bool,
) -> list[Access]:
    """Get the keys for the buckets of the account's own scopes. If there are none, that is an error if it is alone."""
    found: dict[str, Access] = {}
    refused: Optional[RucioException] = None
    for scope, there in _own_buckets(ctx, s3, rse, missing, needed=alone):
        try:
            access = _access(s3, _keys(s3, (scope, ''), there, read_only, lifetime), scope, '')
        except RucioException as error:
            refused = error
            missing.add(f'{scope} on {there}', error)
            continue
        if (first := found.setdefault(access.alias, access)) is not access:
            missing.add(
                f'{scope} on {there}',
                f"Its alias '{access.alias}' is already used for {first.keys['bucket']} on {first.keys['rse']}. "
                f'To get its keys, give it explicitly: {scope} --rse {there}',
            )
    if alone and not found and refused:
        raise refused
    return list(found.values())


def _shared(s3: 'S3Client', rse: Optional[str], read_only: bool, lifetime: Optional[int]) -> list[Access]:
    """Get the keys for what others share with the account. Others decide what this is: no failure ends the command."""
    try:
        shares = s3.list_usable(places=True)['shares']
    except RSEOperationNotSupported:  # an older server
        return []
    wanted: dict[tuple[str, str, str], bool] = {}
    for each in shares:
        for place in each['places'] if each['kind'] in ('account', 'attribute') else ():
            if rse in (None, place['rse']):
                what = (each['scope'], each['name'], place['rse'])
                wanted[what] = wanted.get(what, False) or each['write']
    found: dict[str, Access] = {}
    for (scope, name, there), write in list(wanted.items())[:_MOST_SHARED]:
        try:
            keys = s3.get_did_credentials(scope, name, there, write and not read_only, lifetime)
            access = _access(s3, keys, scope, name)
            found.setdefault(access.alias, access)
        except RucioException as error:
            _warn(f'There are no keys for {scope}:{name} on {there}, which is shared with you: {error.args[0]}')
    if len(wanted) > _MOST_SHARED:
        _warn(f'Others share more than {_MOST_SHARED} collections with you: give a DID to get keys for another one.')
    return list(found.values())


def _own_buckets(
    ctx: click.Context, s3: 'S3Client', rse: Optional[str], missing: Missing, *, needed: bool
) -> list[tuple[str, str]]:
    """Return scope and RSE of each. An admin sees everybody's buckets, but gets keys for those only by name."""
    account = s3.account
    try:
        own = set(ctx.obj.client.list_scopes_for_account(account))
    except (ScopeNotFound, AccountNotFound):  # how Rucio reports an empty list
        own = set()
    unasked: list[api.MissingRSE] = []
    listed = s3.list_buckets(rse, unasked)
    missing.add_all(unasked)
    buckets = sorted({(each['scope'], each['rse']) for each in listed if each['scope'] and each['scope'] in own})
    if needed and not buckets and unasked:
        raise ServiceUnavailable(
            ' '.join(f'{each["rse"]} could not be asked for buckets: {each["why"]}' for each in unasked)
        )
    if needed and not buckets:
        where = f' on {rse}' if rse else ''
        raise InputValidationError(
            f'The account {account} has no bucket of its own{where}. '
            f'Make one (rucio s3 make-bucket user.{account}:NAME), or give a DID that somebody shares with you.'
        )
    return buckets


def _keys(
    s3: 'S3Client', did: tuple[str, str], rse: Optional[str], read_only: bool, lifetime: Optional[int]
) -> 'api.Credentials':
    scope, name = did
    try:
        if read_only:
            return s3.get_did_credentials(scope, name or None, rse, False, lifetime)
        try:
            return s3.get_did_credentials(scope, name or None, rse, True, lifetime)
        except AccessDenied:
            keys = s3.get_did_credentials(scope, name or None, rse, False, lifetime)
            _warn(f'You may read {_written(did)}, but not write to it: these keys are read-only.')
            return keys
    except RSEOperationNotSupported as error:
        raise RSEOperationNotSupported(f'{_written(did)}: {error.args[0]} {_OTHER_WAYS}') from None


def _access(s3: 'S3Client', keys: 'api.Credentials', scope: str, name: str) -> Access:
    endpoint = s3.endpoint(keys['rse'])
    return Access(
        _alias(s3, scope, name, keys['rse'], keys['bucket']),
        keys,
        endpoint.url,
        keys['region'] or endpoint.region or endpoint.default_region,
        endpoint.addressing,
        _own_ca(endpoint),
        only_md5=endpoint.checksum != 'crc32',
    )


def _own_ca(endpoint: 'Endpoint') -> Optional[str]:
    """Return the PEM file by which this client trusts the storage, for the tools: each has a variable of its own."""
    found = endpoint.ca_bundle or os.environ.get('AWS_CA_BUNDLE') or os.environ.get('REQUESTS_CA_BUNDLE')
    return os.path.abspath(found) if found and os.path.isfile(found) else None


def is_collection(client: 'Client', scope: str, name: str) -> bool:
    """Return whether a DID is a dataset or container; not if it is not registered. One request.

    :param client: The Rucio client.
    :param scope: The scope.
    :param name: The name.
    """
    try:
        return str(client.get_did(scope, name)['type']) != 'FILE'
    except DataIdentifierNotFound:  # not registered, but a valid name
        return False


# Messages


def _warn(text: str) -> None:
    say(f'WARNING {text}', err=True)


def _tell_end(expiration: str) -> None:
    say(
        f'The keys expire at {shown_time(expiration)}, in {max(0, round(seconds_until(expiration) / 60))} minutes.',
        err=True,
    )


def seconds_until(expiration: str) -> float:
    """Return how long keys are valid.

    :param expiration: When they expire, as the server says it.
    """
    return (from_text(expiration) - datetime.now(timezone.utc)).total_seconds()


def shown_time(expiration: str) -> str:
    """Return a time as commands print it.

    :param expiration: The time, as the server says it.
    """
    return expiration.replace('T', ' ').replace('Z', ' UTC')


def _written(did: tuple[str, str]) -> str:
    return f'{did[0]}:{did[1]}' if did[1] else did[0]


def _reach(access: Access) -> str:
    return '{bucket}/{prefix}'.format(**access.keys) + ('' if access.keys['write'] else ', read-only')


def _some_scopes(accesses: list[Access]) -> str:
    names = ['{bucket} --rse {rse}'.format(**access.keys) for access in accesses]
    return ' or '.join(names[:3]) + (' ...' if len(names) > 3 else '')
