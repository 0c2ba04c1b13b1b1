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

"""``rucio s3 presign``: URLs with which anybody can read or write objects."""

import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

import click

import rucio_s3_plugin
from rucio.common.exception import (
    InputValidationError,
    RSEOperationNotSupported,
    RucioException,
)
from rucio.common.s3.address import comes_back, parse_url
from rucio.common.s3.answers import printable

from . import did_argument, private, rse_option, s3_client, say
from .access import is_collection, seconds_until, shown_time
from .missing import Missing

if TYPE_CHECKING:
    from rucio.client.client import Client
    from rucio.client.s3client import S3Client
    from rucio.common.s3 import api

CHUNK = 500  # files whose replicas are asked for at once


@click.command('presign')
@did_argument(need_name=True)
@rse_option()
@click.option('--put', is_flag=True, help='Make a URL for uploading instead of downloading.')
@click.option(
    '--expires',
    type=click.IntRange(1, 604800),
    metavar='SECONDS',
    help='How long the URL is valid. The default is one hour.',
)
@click.pass_context
def presign(ctx: click.Context, did: tuple[str, str], rse: Optional[str], put: bool, expires: Optional[int]) -> None:
    """Print a URL with which anybody can read one object, or write it with --put; for a collection, one for each file.

    No account is needed to use it. It expires earlier if the keys that signed it do. An object written with it is not
    added to Rucio's catalogue.

    \b
    Examples: curl -o file.root "$(rucio s3 presign user.alice:run7/file.root)"
              curl -T file.root "$(rucio s3 presign --put user.alice:run7/file.root)"
              rucio s3 presign user.alice:run7 | xargs -n 1 curl -O
    """
    private.need_private_output(sys.stdout, rucio_s3_plugin.output_mode)
    scope, name = did
    s3, missing = s3_client(ctx), Missing()
    signer = _Signer(s3, put, expires)
    if not is_collection(ctx.obj.client, scope, name):
        if put and not comes_back(name):
            raise InputValidationError(
                f"'{printable(name)}' would be another name when it is downloaded: use one without //."
            )
        place = s3.best_place(scope, name, rse, read=not put)
        say(signer.url(_Object(place['rse'], place['bucket'], place['key'], place['url'])))
        return
    if put:
        raise InputValidationError(f'{scope}:{name} is a collection: --put needs the name of a file.')
    for each in _objects(s3, ctx.obj.client, scope, name, rse, missing):
        say(signer.url(each))
    missing.tell()


class _Object(NamedTuple):
    rse: str
    bucket: str
    key: str
    url: str


def _objects(
    s3: 'S3Client', client: 'Client', scope: str, name: str, rse: Optional[str], missing: Missing
) -> Iterator[_Object]:
    """Yield an object of each file. Two requests, and one for each :data:`CHUNK` files."""
    known = {each['rse'] for each in s3.list_s3_rses()}
    files = ({'scope': each['scope'], 'name': each['name']} for each in client.list_files(scope, name))
    while chunk := list(islice(files, CHUNK)):
        found = {}
        for each in client.list_replicas(chunk, rse_expression=rse, sort='random'):
            pfns: dict[str, Any] = each['pfns']
            places = sorted((pfns[pfn]['priority'], pfn) for pfn in pfns if pfns[pfn]['rse'] in known)
            if places:
                found[each['scope'], each['name']] = places[0][1], pfns[places[0][1]]['rse']
        for each in chunk:
            if (did := (each['scope'], each['name'])) not in found:
                missing.add(':'.join(did), f'It has no available replica on {rse or "an S3 RSE"}.')
                continue
            pfn, there = found[did]
            place = parse_url(pfn)
            yield _Object(there, place.bucket, place.key, pfn.partition('?')[0])


class _Signer:
    """Signs URLs with keys that the server vends, for all objects that they are for, or lets the server sign.

    :param s3: The client.
    :param put: Whether the URLs are for uploading.
    :param expires: The lifetime in seconds; None: an hour, and no warning if it is less.
    """

    def __init__(self, s3: 'S3Client', put: bool, expires: Optional[int]) -> None:
        self._s3, self._put, self._expires = s3, put, expires
        self._wanted = expires or 3600
        self._vended: list[tuple[api.Credentials, Any]] = []  # with their clients
        self._keyless: set[str] = set()  # RSEs
        self._warned = False

    def url(self, what: _Object) -> str:
        """Sign a URL. Two requests, or none with keys that are there."""
        if what.rse not in self._keyless:
            try:
                return self._signed(what, *self._keys_for(what))
            except RSEOperationNotSupported:
                self._keyless.add(what.rse)
        return self._signed_by_server(what)

    def _keys_for(self, what: _Object) -> 'tuple[api.Credentials, Any]':
        for keys, client in self._vended:
            if (keys['rse'], keys['bucket']) == what[:2] and what.key.startswith(keys['prefix']):
                return keys, client
        # Keys for the key, not for the DID: the server takes a name that is not registered yet for a collection.
        keys = self._s3.get_s3_credentials(what.rse, what.bucket, what.key, self._put, self._wanted)
        self._vended.append((keys, _client(self._s3, keys)))
        return self._vended[-1]

    def _signed(self, what: _Object, keys: 'api.Credentials', client: Any) -> str:
        left = seconds_until(keys['expiration'])
        if self._expires and left < self._expires and not self._warned:
            self._warned = True
            ends = shown_time(keys['expiration'])
            say(f'WARNING The server issues no keys with a longer lifetime: the URL expires at {ends}.', err=True)
        operation = 'put_object' if self._put else 'get_object'
        seconds = max(1, int(min(self._wanted, left)))
        place = {'Bucket': what.bucket, 'Key': what.key}
        return str(client.generate_presigned_url(operation, Params=place, ExpiresIn=seconds))

    def _signed_by_server(self, what: _Object) -> str:
        """Ask the server to sign with its own keys, as stock servers do if an operator allows it to the account.

        One request.
        """
        try:
            return self._s3.get_signed_url(what.rse, 's3', 'write' if self._put else 'read', what.url, self._wanted)
        except RucioException as error:
            raise RSEOperationNotSupported(
                f'RSE {what.rse}: the server issues no short-lived keys for it (`rucio s3 check` says why), '
                f'and did not sign a URL: {str(error.args[0]).strip()} '
                'Ask the operator to enable either; signing needs keys in the rse-accounts.cfg of the server '
                "and the account attribute 'sign-url'."
            ) from None


def _client(s3: 'S3Client', keys: 'api.Credentials') -> Any:
    from botocore.config import Config  # noqa: PLC0415 - takes its time
    from botocore.credentials import Credentials  # noqa: PLC0415

    from rucio.common.s3 import factory  # noqa: PLC0415

    endpoint = s3.endpoint(keys['rse'])
    session = factory.bare_session(Credentials(keys['access_key'], keys['secret_key'], keys['session_token']))
    config = Config(signature_version='s3v4', s3={'addressing_style': endpoint.addressing})  # type: ignore[arg-type]
    return factory.client('s3', session, endpoint.url, region=keys['region'] or endpoint.default_region, config=config)
