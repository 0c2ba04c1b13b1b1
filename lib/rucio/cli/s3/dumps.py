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

"""``rucio s3 dump``: list the objects on an RSE for consistency checks."""

import os
import sys
from collections.abc import Iterable
from io import TextIOWrapper

import click

from rucio.cli.s3 import interruptible, s3_client, say, size
from rucio.client.s3dump import StorageDump
from rucio.common.exception import DestinationNotAccessible
from rucio.common.s3.answers import counted

__all__ = ['dump']

_SHOWN = 5  # buckets


@click.command('dump')
@click.argument('rse')
@click.option('--scope', 'scopes', multiple=True, help='Only the bucket of this scope. Can be given several times.')
@click.option(
    '--output',
    '-o',
    default='-',
    type=click.Path(dir_okay=False, allow_dash=True),
    help='The file to write, which appears when it is complete; - for stdout.',
)
@click.pass_context
def dump(ctx: click.Context, /, rse: str, scopes: tuple[str, ...], output: str) -> None:
    """List the objects on RSE, for Rucio's auditor and other consistency tools.

    Each line is the path of one object below the RSE's prefix, percent-encoded. For operators: it needs keys on this
    machine that can list all buckets (rucio.cfg, or the server's rse-accounts.cfg). If something cannot be listed, the
    exit code is 1 and no file is written.

    \b
    Example: rucio s3 dump SITE_S3 -o /var/www/dumps/SITE_S3/dump_$(date +%Y%m%d)
    """
    made = StorageDump(ctx.obj.client, rse, scopes, lambda: s3_client(ctx))
    with interruptible('Stopped. No dump was written.'):
        if output == '-':
            _print(made.lines())
        else:
            made.write(output)
    if made.others:
        shown = ', '.join(made.others[:_SHOWN]) + (', ...' if len(made.others) > _SHOWN else '')
        say(f'Left out buckets that belong to no scope of this Rucio: {shown} ({len(made.others)}).', err=True)
    found = f'{counted(made.objects, "object")}, {size(ctx, made.bytes)}, in {counted(len(made.buckets), "bucket")}'
    say(f'RSE {rse}: {found}.', err=True)


def _print(lines: Iterable[str]) -> None:
    """Print the lines; a reader that stops early (`| head`) ends the command silently.

    :raises DestinationNotAccessible: if they cannot be written.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding='utf-8')  # as the files of -o
    try:
        sys.stdout.writelines(f'{line}\n' for line in lines)
        sys.stdout.flush()
    except OSError as error:
        if error.errno is None:  # it is from the Rucio client
            raise
        # Python flushes the rest when it exits, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        raise DestinationNotAccessible(
            f'Standard output cannot be written: {error.strerror}. The dump is incomplete: '
            'repeat it with -o FILE, or where there is enough space.'
        ) from error
