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

"""``rucio s3 token``: the Rucio token in a file, for tools that get their keys from the server's STS."""

import re
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Optional

import click
from requests.exceptions import RequestException  # type: ignore[import-untyped]

from rucio.common.exception import CannotAuthenticate, InputValidationError, RucioException
from rucio.common.s3 import rucio_internals
from rucio.common.s3.secrecy import need_private
from rucio.common.s3.webidentity import claims_of

from . import interruptible, private, s3_client, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from rucio.client.s3client import S3Client

LIFETIME = 3600  # seconds; of every token that Rucio issues
RENEWED_AFTER = 1200  # seconds; twice more before it expires
PAUSE = 60  # seconds between attempts, and between looks at a token that others renew
_ENDED = (
    'The OIDC token has expired, and there is no new one. Log in to Rucio again; it renews tokens with '
    'auth_oidc_refresh_active = True in [client] of rucio.cfg.'
)

# A token of Rucio ends in a UUID, and may contain the name of a certificate.
_TOKEN = re.compile(r'[^\n]*[0-9a-f]{32}\n?|[\w-]+\.[\w-]+\.[\w-]*\n?', re.ASCII)


@click.command('token')
@click.option('--write', 'into', type=click.Path(dir_okay=False), metavar='FILE', help='Write the token once.')
@click.option(
    '--keep',
    type=click.Path(dir_okay=False),
    metavar='FILE',
    help='Write it, and renew it until this command is ended.',
)
@click.pass_context
def token(ctx: click.Context, into: Optional[str], keep: Optional[str]) -> None:
    """Write your Rucio token to a file, with which tools get keys by themselves.

    Tools that know AssumeRoleWithWebIdentity need three variables: AWS_WEB_IDENTITY_TOKEN_FILE is the file,
    AWS_ENDPOINT_URL_STS the URL of the Rucio server and /s3/sts, and AWS_ROLE_ARN the name of a role, which
    `rucio s3 url DID --for role` prints. The file is never readable by others: the token allows everything that you may
    do in Rucio.

    \b
    Examples: rucio s3 token --keep ~/.rucio-token &
              rucio s3 token --write ~/.rucio-token
    """
    if bool(into) == bool(keep):
        raise click.UsageError('Give either --write FILE or --keep FILE.')
    path = str(into or keep)
    s3 = s3_client(ctx)
    need_private(s3.host, 'A Rucio token', 'Set rucio_host in rucio.cfg to its https URL.')
    first = True
    with interruptible('Stopped: the token in the file is not renewed any more.', code=0):
        for current, ends in tokens(s3):
            private.replace(path, partial(_replaced, new=current))
            if into:
                say(f'Wrote the token to {path}. It is valid until {_shown(ends)}.', err=True)
                return
            if first:
                say(f'Wrote the token to {path}. It is renewed until this command is ended.', err=True)
            first = False


def tokens(
    client: 'S3Client', wait: 'Callable[[float], object]' = time.sleep, now: 'Callable[[], float]' = time.time
) -> Iterator[tuple[str, float]]:
    """Yield each new token, and when it expires: the first at once, the next long before the end of the last.

    A failed renewal is repeated for as long as the last token is valid. OIDC tokens are renewed by Rucio's client
    (auth_oidc_refresh_active), or by others (BEARER_TOKEN_FILE): it looks for a new one every minute.

    :param client: The client, whose own token is renewed as well.
    :param wait: Waits for some seconds.
    :param now: Returns the time.
    :raises CannotAuthenticate: if the last token has expired.
    """
    others = client.auth_type == 'oidc'
    last, ends = '', 0.0
    while True:
        try:
            rucio_internals.renew_token(client)
        except (RucioException, RequestException) as error:
            if now() >= ends:
                raise
            say(f'WARNING The token could not be renewed, and will be tried again: {error.args[0]}', err=True)
            wait(PAUSE)
            continue
        if client.auth_token != last:
            last = client.auth_token
            ends = float((claims_of(last) or {}).get('exp') or now() + LIFETIME)
            if now() < ends:
                yield last, ends
        if now() >= ends:
            raise CannotAuthenticate(_ENDED)
        wait(PAUSE if others else RENEWED_AFTER)


def _replaced(old: str, new: str) -> str:
    if old and not _TOKEN.fullmatch(old):
        raise InputValidationError('It exists, and contains something else than a token. Choose another file.')
    return new


def _shown(ends: float) -> str:
    return f'{datetime.fromtimestamp(ends, timezone.utc):%Y-%m-%d %H:%M:%S} UTC'
