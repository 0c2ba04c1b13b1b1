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
import sys
from typing import TYPE_CHECKING, Optional

import click

import rucio_s3_plugin
from rucio.common.exception import InputValidationError
from rucio.common.s3.arguments import ALIAS
from rucio.common.s3.formats import FORMATS

from . import private, s3_client, say
from .local_endpoint import access_to, on_signals

if TYPE_CHECKING:
    from rucio.client.s3client import S3Client
    from rucio.client.s3serve.exchange import Options


@click.command('serve')
@click.option('--port', type=click.IntRange(0, 65535), default=0, help='The port. By default, a free one.')
@click.option('--rse', help='Use this RSE for all buckets. By default, Rucio chooses one for each scope.')
@click.option('--read-only', is_flag=True, help='Refuse to write and to delete.')
@click.option('--overwrite', is_flag=True, help='Let tools overwrite objects. By default, they get an error (412).')
@click.option(
    '--format', 'form', type=click.Choice(list(FORMATS)), default='mc', show_default=True, help='The tool to write for.'
)
@click.option(
    '--write', 'into_file', is_flag=True, help="Write to the tool's own configuration file, and keep the rest of it."
)
@click.option('--file', 'path', type=click.Path(dir_okay=False), help='Write to this file instead, in any format.')
@click.pass_context
def serve(
    ctx: click.Context,
    port: int,
    rse: Optional[str],
    read_only: bool,
    overwrite: bool,
    form: str,
    into_file: bool,
    path: Optional[str],
) -> None:
    """Serve your buckets to S3 tools in other terminals of this machine, until Ctrl-C.

    Buckets are scopes, keys are names, wherever they are; no tool needs the address, the CA or the keys of a storage.
    The keys of this endpoint are printed in the format of a tool, under the alias "rucio". For one command, use
    `rucio s3 exec`.

    \b
    Example: rucio s3 serve --write
    """
    written = path or (FORMATS[form].location(os.environ) if into_file else None)
    if written is None:
        private.need_private_output(sys.stdout, rucio_s3_plugin.output_mode)
    elif not written:
        raise InputValidationError(f'The format {form} has no default file: choose one with --file FILE.')
    from rucio.client.s3serve.exchange import Options  # noqa: PLC0415 - aiohttp takes its time

    options = Options(read_only=read_only, overwrite=overwrite)
    sys.exit(asyncio.run(_serve(s3_client(ctx), rse, port, options, form, written)))


async def _serve(
    client: 'S3Client',
    rse: Optional[str],
    port: int,
    options: 'Options',
    form: str,
    written: Optional[str],
) -> int:
    from rucio.client.s3serve.server import listening  # noqa: PLC0415

    async with listening(client, rse, port, options) as here:
        access = access_to(here, not options.read_only)
        formatter = FORMATS[form]
        if written is not None:
            private.replace(written, lambda old: formatter.merged(old, [access]))
            say(f'Wrote to {written}: {ALIAS}', err=True)
        else:
            click.echo(formatter.text([access]), nl=False)
            sys.stdout.flush()
        say(f'Serving {client.account} at {here.url}. Stop with Ctrl-C.', err=True)
        ended = asyncio.Event()
        with on_signals(lambda _: ended.set()):
            await ended.wait()
    say('Stopped: the keys are of no use any more.', err=True)
    return 0
