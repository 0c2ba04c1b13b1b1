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
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Optional

import click

import rucio_s3_plugin
from rucio.common.exception import InputValidationError, MissingDependency
from rucio.common.s3.dates import to_text
from rucio.common.s3.formats import FORMATS, Access, tool_environment

from . import WithTool, private, s3_client, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from rucio.client.s3client import S3Client
    from rucio.client.s3serve.exchange import Options
    from rucio.client.s3serve.server import Listening

ALIAS = 'rucio'
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The keys are of no use when the command has ended; tools that want to know get a date that they do not reach.
_FOR_EVER = timedelta(days=3650)


@click.command('serve', cls=WithTool)
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
    """Serve your buckets to S3 tools on this machine (needs rucio-s3[serve]).

    Buckets are scopes, keys are names, wherever they are; no tool needs the address, the CA or the keys of a storage.
    With a command after "--", only that gets the keys of this endpoint, and the exit code is that of the command.
    Without one, the command runs until Ctrl-C, and prints the keys in the format of a tool, under the alias "rucio".

    \b
    Examples: rucio s3 serve -- mc cp file.root rucio/user.alice/run7/
              rucio s3 serve -- aws s3 ls s3://user.alice/
              rucio s3 serve --write
    """
    written = path or (FORMATS[form].location(os.environ) if into_file else None)
    tool: list[str] = ctx.meta['rucio_s3_tool']
    if tool and (written is not None or into_file):
        raise click.UsageError('--write and --file are for an endpoint without a command.')
    if not tool and written is None:
        private.need_private_output(sys.stdout, rucio_s3_plugin.output_mode)
    elif not tool and not written:
        raise InputValidationError(f'The format {form} has no default file: choose one with --file FILE.')
    try:
        from rucio.client.s3serve.exchange import Options  # noqa: PLC0415 - only this command needs aiohttp
    except ImportError:
        raise MissingDependency(
            "aiohttp is not installed, which `rucio s3 serve` needs. Install it with: pip install 'rucio-s3[serve]'"
        ) from None
    options = Options(read_only=read_only, overwrite=overwrite)
    sys.exit(asyncio.run(_serve(s3_client(ctx), rse, port, options, tool, form, written)))


async def _serve(
    client: 'S3Client',
    rse: Optional[str],
    port: int,
    options: 'Options',
    tool: list[str],
    form: str,
    written: Optional[str],
) -> int:
    from rucio.client.s3serve.server import listening  # noqa: PLC0415

    async with listening(client, rse, port, options) as here:
        access = _access(here, not options.read_only)
        if tool:
            return await _run(tool, _environment(access))
        formatter = FORMATS[form]
        if written is not None:
            private.replace(written, lambda old: formatter.merged(old, [access]))
            say(f'Wrote to {written}: {ALIAS}', err=True)
        else:
            click.echo(formatter.text([access]), nl=False)
            sys.stdout.flush()
        say(f'Serving {client.account} at {here.url}. Stop with Ctrl-C.', err=True)
        ended = asyncio.Event()
        with _on_signals(lambda _: ended.set()):
            await ended.wait()
    say('Stopped: the keys are of no use any more.', err=True)
    return 0


async def _run(tool: list[str], environment: Mapping[str, str]) -> int:
    """Run the tool, and return its exit code as a shell does."""
    try:
        child = await asyncio.create_subprocess_exec(*tool, env=environment)
    except FileNotFoundError:
        say(f"rucio s3 serve: command not found: '{tool[0]}'.", err=True)
        return 127
    except OSError as error:
        say(f"rucio s3 serve: '{tool[0]}' cannot be run: {error.strerror}.", err=True)
        return 126

    def pass_on(number: int) -> None:
        # The terminal sends Ctrl-C to the tool as well, which decides what to do about it.
        if number != signal.SIGINT:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)

    with _on_signals(pass_on):
        code = await child.wait()
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _on_signals(call: 'Callable[[int], None]') -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for each in _SIGNALS:
        loop.add_signal_handler(each, call, each)
    try:
        yield
    finally:
        for each in _SIGNALS:
            loop.remove_signal_handler(each)


def _access(here: 'Listening', write: bool) -> Access:
    expiration = to_text(datetime.now(timezone.utc) + _FOR_EVER)
    return Access(
        ALIAS,
        {
            'rse': ALIAS,
            'url': here.url,
            'region': 'us-east-1',
            'addressing': 'path',
            'bucket': '',
            'prefix': '',
            'write': write,
            'expiration': expiration,
            'access_key': here.keys.access_key,
            'secret_key': here.keys.secret_key,
            'session_token': here.keys.session_token,
        },
        here.url,
        'us-east-1',
        'path',
    )


def _environment(access: Access) -> dict[str, str]:
    """Return the environment of the tool, which must not send requests for this machine to a proxy."""
    environment = tool_environment(os.environ, [access])
    for name in ('no_proxy', 'NO_PROXY'):
        environment[name] = ','.join(filter(None, (environment.get(name), '127.0.0.1')))
    return environment
