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

"""``rucio s3 rse add`` and ``rucio s3 check``, for operators."""

import json
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Optional
from urllib.parse import SplitResult, urlsplit

import click

from rucio.cli.s3 import interruptible, is_robot, s3_client, say, table
from rucio.common.exception import (
    InputValidationError,
    InvalidObject,
    InvalidRSEExpression,
    RSENotFound,
    UnsupportedOperation,
)
from rucio.common.s3.address import is_bucket_name
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.settings import providers
from rucio.common.s3.storage_areas import StorageArea

IMPL, IMPL_FTS = 'rucio.rse.protocols.s3.Default', 'rucio.rse.protocols.s3.FTS'
_ALL = {'read': 1, 'write': 1, 'delete': 1}
_READING = ('read', 'third_party_copy_read')
_PROPERTIES = {'deterministic': True, 'volatile': False, 'staging_area': False}
# Each replica has its own path, and Rucio's daemons neither write nor delete there.
_READ_ONLY = {'deterministic': False, 'availability_write': False, 'availability_delete': False}
_PROVIDERS = (
    f'{", ".join(each for each in providers() if each not in ("default", "generic"))}, or generic for any other'
)
_FOREIGN_BUCKET = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{1,254}')  # by the older rules of AWS and others


@click.group('rse')
def rse() -> None:
    """Manage S3 RSEs."""


@rse.command('add')
@click.argument('name')
@click.option('--provider', help=f'{_PROVIDERS}.')
@click.option('--endpoint', required=True, help='The URL of the storage, such as https://s3.example.org.')
@click.option('--region', help='The region to sign requests for.')
@click.option('--bucket', help='Keep everything in this one bucket. Without it, each scope has its own bucket.')
@click.option('--prefix', help='With --bucket: keep everything below this prefix of the bucket.')
@click.option('--bucket-prefix', help='Prefix of all bucket names. Needed on AWS, where bucket names are global.')
@click.option('--role-arn', help='The role that the Rucio server assumes to issue keys.')
@click.option('--sts-endpoint', help='The URL of the Security Token Service, if it differs from the endpoint.')
@click.option('--setting', multiple=True, metavar='NAME=VALUE', help='Any other setting of docs/settings.md.')
@click.option(
    '--read-only',
    is_flag=True,
    help="For other people's buckets: Rucio never writes to them (rucio s3 import).",
)
@click.option('--anonymous', is_flag=True, help='With --read-only: the bucket is public, and no keys are needed.')
@click.option(
    '--fts',
    metavar='URL',
    help='Let FTS transfer files to and from the RSE (with --read-only, only from it). Separate URLs by commas. '
    'Without it, rucio-s3-copier transfers them.',
)
@click.option('--no-third-party-copy', is_flag=True, help='Do not offer the RSE for transfers by rules.')
@click.pass_context
def add(
    ctx: click.Context,
    /,
    name: str,
    provider: Optional[str],
    endpoint: str,
    bucket: Optional[str],
    prefix: Optional[str],
    setting: tuple[str, ...],
    no_third_party_copy: bool,
    **more: Any,
) -> None:
    """Create the RSE NAME with the attributes and protocols that S3 needs.

    \b
    Examples: rucio s3 rse add SITE_S3 --provider ceph --endpoint https://s3.example.org
              rucio s3 rse add LANDSAT --endpoint https://s3.example.org --bucket landsat --read-only --anonymous
    """
    read_only, anonymous, fts = more.pop('read_only'), more.pop('anonymous'), more.pop('fts')
    if not provider and not read_only:
        raise click.UsageError(f"Missing option '--provider': {_PROVIDERS}.")
    if anonymous and not read_only:
        raise click.UsageError('--anonymous requires --read-only.')
    if fts and no_third_party_copy:
        raise click.UsageError('--fts and --no-third-party-copy are mutually exclusive.')
    settings = (
        {'provider': provider or 'generic'}
        | {key: value for key, value in more.items() if value}
        | dict(_setting(each) for each in setting)
    )
    if anonymous:
        settings['auth'] = 'anonymous'
    protocol = _protocol(endpoint, _folder(bucket, prefix, read_only), settings)
    protocols = [protocol, *([] if no_third_party_copy else _offer_copies(protocol, fts))]
    properties, attributes = _PROPERTIES, {'lfn2pfn_algorithm': 's3_bucket', 'skip_upload_stat': True}
    if read_only:
        properties, attributes = _PROPERTIES | _READ_ONLY, {}
        for each in protocols:
            each['domains'] = {
                domain: {name: operations[name] for name in _READING if name in operations}
                for domain, operations in each['domains'].items()
            }
    if fts:
        attributes = attributes | {'fts': _servers(fts), 'supported_checksums': 'none'}
    # Report wrong and unknown settings before anything is created.
    checked = Endpoint.load({'rse': name}, protocol)
    for line in _make(ctx.obj.client, name, attributes, protocols, properties):
        say(line)
    if read_only:
        _tell_how_to_import(ctx.obj.client, name, checked, bucket)
    else:
        _tell_next(ctx.obj.client, name, checked, bucket, '' if no_third_party_copy else 'fts3' if fts else 's3')


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition('=')
    if not equals:
        raise InputValidationError(
            f'--setting {text}: expected NAME=VALUE with a name from docs/settings.md, such as max_concurrency=8.'
        )
    return key, value


def _url(option: str, text: str) -> tuple[SplitResult, int]:
    """Split and validate a URL.

    :returns: Its parts, and the port.
    """
    try:
        url = urlsplit(text)
        port = url.port or {'https': 443, 'http': 80}.get(url.scheme)
    except ValueError:
        url, port = urlsplit(''), None
    if port is None or not url.hostname or url.path.strip('/') or url.query or url.username:
        raise InputValidationError(
            f"{option} '{text}': expected https://HOST or https://HOST:PORT, without a bucket or path."
        )
    return url, port


def _servers(fts: str) -> str:
    urls = [each.strip() for each in fts.split(',')]
    for each in urls:
        _url('--fts', each)
    return ','.join(urls)


def _folder(bucket: Optional[str], prefix: Optional[str], read_only: bool) -> str:
    if not bucket:
        if prefix:
            raise InputValidationError(
                '--prefix is a prefix in the one bucket of an RSE: give --bucket as well. For a prefix of all bucket '
                'names use --bucket-prefix.'
            )
        return '/'
    if not (_FOREIGN_BUCKET.fullmatch(bucket) if read_only else is_bucket_name(bucket)):
        raise InputValidationError(
            f"--bucket '{bucket}' is not a valid bucket name: use 3 to 63 of a-z, 0-9, '.' and '-'."
        )
    folder = (prefix or '').strip('/')
    return f'/{bucket}/{folder}/' if folder else f'/{bucket}/'


def _protocol(endpoint: str, prefix: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Build the protocol for everything but third-party copies.

    Operations that are not offered are left out: 0 disables one up to Rucio 38, but is the highest priority since 39.
    """
    url, port = _url('--endpoint', endpoint)
    return {
        'scheme': url.scheme,
        'hostname': f'[{url.hostname}]' if ':' in str(url.hostname) else url.hostname,
        'port': port,
        'prefix': prefix,
        'impl': IMPL,
        'domains': {'lan': dict(_ALL), 'wan': dict(_ALL)},
        'extended_attributes': {'s3': settings},
    }


def _offer_copies(main: dict[str, Any], fts: Optional[str]) -> list[dict[str, Any]]:
    """Let the main protocol offer third-party copies, or add one with its prefix that only makes URLs for FTS.

    Rucio pairs http only with http, but davs with https as well; so a storage that speaks http gets both.
    """
    if not fts:
        main['domains']['wan'] |= _copies(2 if main['scheme'] == 'http' else 1)
    if not fts and main['scheme'] == 'https':
        return []
    place = {key: main[key] for key in ('hostname', 'port', 'prefix')}
    return [{'scheme': 'davs', **place, 'impl': IMPL_FTS, 'domains': {'wan': _copies(1)}}]


def _copies(priority: int) -> dict[str, int]:
    return {'third_party_copy_read': priority, 'third_party_copy_write': priority}


def _make(
    client: Any,
    name: str,
    attributes: dict[str, Any],
    protocols: list[dict[str, Any]],
    properties: dict[str, Any] = _PROPERTIES,
) -> list[str]:
    """Create what is missing. The protocols come last: an RSE without any was left by an interrupted run.

    :returns: What was done.
    :raises UnsupportedOperation: if the RSE exists with other settings, or another RSE would use the same keys.
    """
    done = []
    try:
        there, present = client.get_rse(name), client.list_rse_attributes(name)
    except RSENotFound:
        there, present = {}, {}
    differences = _differences(there, present, properties, attributes, protocols) if there else []
    if differences:
        raise UnsupportedOperation(
            f'The RSE {name} already exists, and was not changed: {"; ".join(differences)}. Choose another name, or '
            'change the RSE by hand.'
        )
    if not there or not there['protocols']:
        _need_a_place_of_its_own(client, name, attributes.get('lfn2pfn_algorithm'), protocols[0])
    if not there:
        try:
            client.add_rse(name, **properties)
        except InvalidObject as error:  # the rest of the message is the schema
            raise InvalidObject(
                f'{str(error.args[0]).partition(chr(10))[0]}. Choose another name, such as SITE_S3.'
            ) from None
        there, present = {'protocols': []}, client.list_rse_attributes(name)
        done.append(f'Created the RSE {name}.')
    for key, value in attributes.items():
        if key not in present:
            client.add_rse_attribute(name, key, value)
            done.append(f'Set the attribute {key} = {value}.')
    for protocol in protocols:
        if not any(_same(each, protocol) for each in there['protocols']):
            client.add_protocol(name, protocol)
            done.append('Added the protocol {scheme}://{hostname}:{port}{prefix} ({impl}).'.format(**protocol))
    return done or [f'The RSE {name} already exists with these settings. Nothing was done.']


def _need_a_place_of_its_own(client: Any, name: str, algorithm: Optional[str], protocol: dict[str, Any]) -> None:
    """Refuse an RSE whose keys overlap with another's: deleting a file on one would delete a file of the other.

    One request for each algorithm, one for each RSE that uses it, and one for the scopes if they decide. RSEs for
    imports have no algorithm and never delete anything.
    """
    if algorithm is None:
        return
    place = StorageArea.of(name, protocol, algorithm)
    for other, theirs in _others(client, name):
        for each in client.get_rse(other)['protocols']:
            overlap = place.overlap(StorageArea.of(other, each, theirs)) if each['impl'] != IMPL_FTS else None
            if overlap and (not overlap.scope or overlap.scope in client.list_scopes()):
                remedy = (
                    'another --bucket or --prefix' if place.bucket else 'different bucket names with --bucket-prefix'
                )
                raise UnsupportedOperation(
                    f'The RSE {name} was not created: {overlap.why}, so a file deleted on one would be gone on both. '
                    f'Give {name} {remedy}.'
                )


def _others(client: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield the RSEs with each algorithm that determines paths, and the algorithm."""
    for algorithm in ('s3_bucket', 'identity', 'hash'):
        # Rucio caches the answer to an expression for ten minutes: use one that was never asked before.
        with suppress(InvalidRSEExpression):  # there are none
            found = [
                each['rse'] for each in client.list_rses(f'lfn2pfn_algorithm={algorithm}\\none-{secrets.token_hex(8)}')
            ]
            yield from ((each, algorithm) for each in found if each != name)


def _differences(
    there: dict[str, Any],
    present: dict[str, Any],
    properties: dict[str, Any],
    attributes: dict[str, Any],
    protocols: list[dict[str, Any]],
) -> list[str]:
    """Describe how an existing RSE differs from what this command would create."""
    found = [f'{key} is {there[key]}' for key, value in properties.items() if there.get(key, value) != value]
    found += [
        f'its attribute {key} is {present[key]}'
        for key, value in attributes.items()
        if key in present and str(present[key]) != str(value)
    ]
    main = protocols[0]
    same = [each for each in there['protocols'] if _same(each, main)]
    if there['protocols'] and not same:
        found += [
            'its protocol is {scheme}://{hostname}:{port}{prefix} with {impl}, '.format(**each)
            + f'{each.get("extended_attributes")}'
            for each in there['protocols']
        ]
    if 'fts' in attributes and any(each['domains']['wan'].get('third_party_copy_read') for each in same):
        found.append(
            f'its protocol {main["scheme"]} offers third-party copies, and FTS would be given its URLs (set them to '
            'null; 0 in Rucio 38)'
        )
    return found


def _same(there: dict[str, Any], protocol: dict[str, Any]) -> bool:
    """Compare a protocol with one that Rucio returned, which has more fields, and nulls."""
    keys = ('scheme', 'hostname', 'port', 'prefix', 'impl')
    return all(there[key] == protocol[key] for key in keys) and _s3_settings(there) == _s3_settings(protocol)


def _s3_settings(protocol: dict[str, Any]) -> dict[str, Any]:
    return dict((protocol.get('extended_attributes') or {}).get('s3') or {})


def _entry(client: Any, name: str, endpoint: Endpoint) -> str:
    """Return the entry for the server's keys in rse-accounts.cfg."""
    keys = {
        'access_key': '...',
        'secret_key': '...',
        'signature_version': 's3v4',
        'region': endpoint.signing_region(),
    }
    return json.dumps({client.get_rse(name)['id']: keys})


def _tell_how_to_import(client: Any, name: str, endpoint: Endpoint, bucket: Optional[str]) -> None:
    command = f'rucio s3 import {name} SCOPE:DATASET' + ('' if bucket else ' --bucket BUCKET')
    if endpoint.auth == 'anonymous':
        say()
        say(f'Next step: {command}')
        return
    say()
    say('Next steps:')
    say("1. Put keys that can read and list the bucket into the server's rse-accounts.cfg (mode 600):")
    say(f'   {_entry(client, name, endpoint)}')
    say(f'2. {command}')


def _tell_next(client: Any, name: str, endpoint: Endpoint, bucket: Optional[str], tool: str) -> None:
    """Print the steps that only the operator can do."""
    say()
    say('Next steps:')
    say("1. Put the keys of the Rucio server and its daemons into the server's rse-accounts.cfg (mode 600):")
    say(f'   {_entry(client, name, endpoint)}')
    say(f'2. Set the quota of accounts: rucio-admin account set-limits ACCOUNT {name} infinity')
    made = (
        f"the bucket '{bucket}', with any S3 client"
        if bucket
        else f'a bucket for each scope: rucio s3 make-bucket SCOPE --rse {name}'
    )
    say(f'3. Make {made}')
    say(f'4. Check that everything works: rucio s3 check {name}')
    if endpoint.ca_bundle:
        say(
            f"   The storage has a CA of its own: the server, its daemons and each user need it as 'ca_bundle' in "
            f'rucio.cfg [s3], as you have it ({endpoint.ca_bundle}). With `rucio s3 exec`, tools need none.'
        )
    if tool:
        more = "FTS's own keys" if tool == 'fts3' else 'rucio-s3-copier'
        say(f'5. For transfers by rules: distances, [conveyor] transfertool = {tool}, {more}; see docs/transfers.md')


@click.command('check')
@click.argument('name', metavar='RSE')
@click.option('--bucket', help='The bucket for test objects. The default is the bucket of one of your scopes.')
@click.option('--tighten', 'write', flag_value='tighten', help='Write settings that the storage does not keep.')
@click.option('--loosen', 'write', flag_value='loosen', help='Also write settings that promise less than it does.')
@click.pass_context
def check(ctx: click.Context, name: str, bucket: Optional[str], write: Optional[str]) -> None:
    """Check everything that a working S3 RSE needs.

    What the storage does is tried and compared with the settings of the RSE: for an admin of Rucio by the server, with
    the keys that it and its daemons use, in a bucket that is made and removed. For each failure it says what to change.
    Test objects are removed again. The exit code is 1 if a required check fails.
    """
    from rucio.client import s3check  # noqa: PLC0415 - boto3 takes its time

    with interruptible('Stopped.'):
        results = list(s3check.check(ctx.obj.client, s3_client(ctx), name, bucket, write or ''))
    if is_robot(ctx):
        table(ctx, results, s3check.Result._fields)
    else:
        table(ctx, [[each.name, each.status, each.found] for each in results], ['CHECK', 'RESULT', 'FOUND'])
        for each in results:
            if each.status in (s3check.FAILED, s3check.HINT) and each.remedy:
                say(f'{each.status}: {each.name}: {each.remedy}')
    if any(each.status == s3check.FAILED for each in results):
        sys.exit(1)
