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

"""``rucio s3 serve``: an S3 endpoint on this machine, for tools, as long as the command runs."""

import asyncio
import os
import shutil
import sys
from typing import TYPE_CHECKING, Optional

import click

import rucio_s3_plugin
from rucio.common.s3.formats import ALIAS, FORMATS

from . import private, s3_client, say
from .local_endpoint import access_to, on_signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from rucio.client.s3client import S3Client
    from rucio.client.s3serve.exchange import Options
    from rucio.client.s3serve.server import Listening

    from .installed import Installed


_EXAMPLES = {
    'mc': f'mc ls {ALIAS}/',
    'aws': f'aws --profile {ALIAS} s3 ls',
    'rclone': f'rclone lsd {ALIAS}:',
}


@click.command('serve')
@click.option(
    '--install', type=click.Choice(list(_EXAMPLES)), help='Set the tool up, once: add the alias "rucio", and end.'
)
@click.option('--port', type=click.IntRange(1024, 65535), help='The port for --install. By default, a free one.')
@click.option('--rse', help='Use this RSE for all buckets. By default, Rucio chooses one for each scope.')
@click.option('--read-only', is_flag=True, help='Refuse to write and to delete.')
@click.option('--overwrite', is_flag=True, help='Let tools overwrite objects. By default, they get an error (412).')
@click.option(
    '--format', 'form', type=click.Choice(list(FORMATS)), help='Print keys in this format, which end with the command.'
)
@click.option('--file', 'path', type=click.Path(dir_okay=False), help='Write these keys to a file.')
@click.pass_context
def serve(
    ctx: click.Context,
    install: Optional[str],
    port: Optional[int],
    rse: Optional[str],
    read_only: bool,
    overwrite: bool,
    form: Optional[str],
    path: Optional[str],
) -> None:
    """Serve your buckets to S3 tools in other terminals of this machine, until Ctrl-C.

    Buckets are scopes, keys are names, wherever they are; no tool needs the address, the CA or the keys of a storage.
    Set your tools up once with --install: they then have the alias "rucio" whenever this command runs. For tools that
    it does not know, --format makes an endpoint with keys and a port of its own. For one command, use `rucio s3 exec`.

    \b
    Examples: rucio s3 serve --install mc
              rucio s3 serve
    """
    if (port and not install) or (path and not form) or (install and form):
        raise click.UsageError(
            '--port is for --install, --file is for --format, and only one of these two can be used.'
        )
    from rucio.client.s3serve.exchange import Options  # noqa: PLC0415 - aiohttp takes its time

    from . import installed  # noqa: PLC0415 - likewise

    if install:
        _install(install, installed.install(port or 0))
        return
    options = Options(read_only=read_only, overwrite=overwrite)
    if form:
        if not path:
            private.need_private_output(sys.stdout, rucio_s3_plugin.output_mode)
        sys.exit(asyncio.run(_serve(s3_client(ctx), rse, options, lambda here: _tell(here, form, path, options))))
    known = installed.load()
    if known is None:
        raise click.UsageError('No tool is set up yet: rucio s3 serve --install mc (or aws, rclone). Or use --format.')
    sys.exit(asyncio.run(_serve(s3_client(ctx), rse, options, lambda _: None, known)))


def _install(tool: str, known: 'Installed') -> None:
    """Add the endpoint to the configuration of a tool."""
    from rucio.client.s3serve.server import HOST  # noqa: PLC0415

    from . import installed  # noqa: PLC0415

    trusted = installed.certificate()
    access = access_to(f'https://{HOST}:{known.port}', known.keys, True, trusted)
    formatter = FORMATS[tool]
    for place in formatter.locations(os.environ, shutil.which):
        private.replace(place, lambda old: formatter.merged(old, [access]))
        say(f'Wrote to {place}: {ALIAS}')
        if tool == 'mc':
            authorities = os.path.join(os.path.dirname(place), 'certs', 'CAs', 'rucio-s3-serve.crt')
            private.replace(authorities, lambda _: private.read(trusted))
            say(f'Wrote to {authorities}: the certificate of the endpoint')
    if tool == 'rclone':
        say(formatter.ca.replace('FILE', trusted))
    say(f'Run `rucio s3 serve`, and in another terminal: {_EXAMPLES[tool]}')


async def _serve(
    client: 'S3Client',
    rse: Optional[str],
    options: 'Options',
    tell: 'Callable[[Listening], None]',
    known: 'Optional[Installed]' = None,
) -> int:
    from rucio.client.s3serve.server import listening  # noqa: PLC0415

    fixed = (known.port, known.keys, known.context()) if known else ()
    async with listening(client, rse, options, *fixed) as here:
        tell(here)
        say(f'Serving {client.account} at {here.url}. Stop with Ctrl-C.', err=True)
        ended = asyncio.Event()
        with on_signals(lambda _: ended.set()):
            await ended.wait()
    say('Stopped.' if known else 'Stopped: the keys are of no use any more.', err=True)
    return 0


def _tell(here: 'Listening', form: str, path: Optional[str], options: 'Options') -> None:
    """Print the keys of an endpoint, or write them to a file."""
    access, formatter = access_to(here.url, here.keys, not options.read_only), FORMATS[form]
    if path:
        private.replace(path, lambda old: formatter.merged(old, [access]))
        say(f'Wrote to {path}: {ALIAS}', err=True)
    else:
        click.echo(formatter.text([access]), nl=False)
        sys.stdout.flush()
