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

"""``rucio s3 exec``: run a tool with an S3 endpoint of its own on this machine."""

import asyncio
import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Optional

import click

from rucio.common.exception import (
    AccessDenied,
    DataIdentifierNotFound,
    InputValidationError,
    RucioException,
    ScopeNotFound,
)
from rucio.common.s3.arguments import PROGRAMS, Word, translated
from rucio.common.s3.formats import Access, alias_in, aliases_of_user, is_alias_on, tool_environment

from . import WithTool, did_argument, s3_client, say
from .local_endpoint import access_to, on_signals

if TYPE_CHECKING:
    from rucio.client.s3client import S3Client
    from rucio.client.s3serve.exchange import Options


@click.command('exec', cls=WithTool)
@did_argument(required=False)
@click.option('--rse', help='Use this RSE for all buckets. By default, Rucio chooses one for each scope.')
@click.option('--read-only', is_flag=True, help='Refuse to write and to delete.')
@click.option('--overwrite', is_flag=True, help='Let the tool overwrite objects. By default, it gets an error (412).')
@click.option('-v', '--verbose', is_flag=True, help='Print the command that is run.')
@click.pass_context
def exec_(
    ctx: click.Context,
    did: Optional[tuple[str, str]],
    rse: Optional[str],
    read_only: bool,
    overwrite: bool,
    verbose: bool,
) -> None:
    """Run a tool that sees your scopes as buckets, wherever they are, for as long as it runs.

    A DID in the command of aws, mc, rclone, s3cmd or s5cmd is put into the tool's own form. In scripts, the buckets are
    scopes and the keys are names; for mc and rclone they are below the alias "rucio". The tool does not see your own
    AWS profiles and keys. With a DID before the "--" it sees nothing else. The exit code is that of the tool, or
    1 if it listed the buckets and an RSE could not be asked.

    \b
    Examples: rucio s3 exec -- mc cp file.root user.alice:run7/file.root
              rucio s3 exec -- aws s3 ls s3://user.alice/run7/
              rucio s3 exec user.bob:run7 --read-only -- ./analysis.sh
    """
    tool: list[str] = ctx.meta['rucio_s3_tool']
    if not tool:
        raise click.UsageError('Missing command. Give it after "--": rucio s3 exec -- aws s3 ls s3://user.alice/')
    from rucio.client.s3serve.exchange import Options  # noqa: PLC0415 - aiohttp takes its time

    s3 = s3_client(ctx)
    if did:
        s3.best_place(*did, rse)
    try:
        command = translated(tool, os.environ, lambda word: _is_collection(ctx, s3, rse, word))
        _need_known_alias(s3, command)
    except RucioException as error:
        error.args = (f'{tool[0]} was not run. {error.args[0]}',)
        raise
    if verbose or getattr(ctx.obj, 'verbose', False):
        say(f'+ {shlex.join(command)}', err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(asyncio.run(_run(s3, rse, Options(read_only, overwrite, did), command)))


def _is_collection(ctx: click.Context, s3: 'S3Client', rse: Optional[str], word: Word) -> Optional[bool]:
    """Return whether a DID is a collection; None if there is no such scope. Two requests."""
    name = re.split(r'[*?\[{]', word.name)[0]  # s5cmd and others expand wildcards themselves
    try:
        s3.best_place(word.scope, name.rstrip('/'), rse)
        return bool(name) and name == word.name and str(ctx.obj.client.get_did(word.scope, name)['type']) != 'FILE'
    except DataIdentifierNotFound:  # not registered, but a valid name
        return False
    except AccessDenied:
        if name:
            raise
        return False  # the endpoint shows what is shared of it
    except (ScopeNotFound, InputValidationError):
        if word.sure:
            raise
        return None


def _need_known_alias(s3: 'S3Client', command: list[str]) -> None:
    """Refuse the aliases of `rucio s3 credentials`, unless mc has them. One request if a name begins like one.

    :raises InputValidationError: if there is one: mc would take it for a local directory.
    """
    if PROGRAMS.get(os.path.basename(command[0])) != 'mc':
        return
    known = aliases_of_user(os.environ)
    for word in command[1:]:
        alias = alias_in(word)
        if not alias or alias in known or os.path.lexists(alias):
            continue
        if any(is_alias_on(alias, each['rse']) for each in s3.list_s3_rses()):
            raise InputValidationError(
                f"The alias of '{word}' is for the keys of `rucio s3 credentials`: write SCOPE:NAME instead."
            )


async def _run(s3: 'S3Client', rse: Optional[str], options: 'Options', command: list[str]) -> int:
    from rucio.client.s3serve.server import listening  # noqa: PLC0415

    async with listening(s3, rse, options) as here:
        code = await _wait(command, _environment(access_to(here.url, here.keys, not options.read_only)))
    return code or int(bool(here.missing))  # what lacks something does not look complete


async def _wait(command: list[str], environment: Mapping[str, str]) -> int:
    """Run the tool, and return its exit code as a shell does."""
    child: Optional[asyncio.subprocess.Process] = None
    early: list[int] = []  # signals before there is a tool

    def pass_on(number: int) -> None:
        if child is None:
            early.append(number)
        # The terminal sends Ctrl-C to the tool as well, which decides what to do about it.
        elif number != signal.SIGINT:
            _send(child, number)

    with on_signals(pass_on):
        try:
            child = await asyncio.create_subprocess_exec(*command, env=environment)
        except FileNotFoundError:
            say(f"rucio s3 exec: command not found: '{command[0]}'.", err=True)
            return 127
        except OSError as error:
            say(f"rucio s3 exec: '{command[0]}' cannot be run: {error.strerror}.", err=True)
            return 126
        for number in early:
            _send(child, number)
        code = await child.wait()
    return code if code >= 0 else 128 - code


def _send(child: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(number)


def _environment(access: Access) -> dict[str, str]:
    """Return the environment of the tool, which must not send requests for this machine to a proxy."""
    environment = tool_environment(os.environ, [access])
    for name in ('no_proxy', 'NO_PROXY'):
        environment[name] = ','.join(filter(None, (environment.get(name), '127.0.0.1')))
    return environment
