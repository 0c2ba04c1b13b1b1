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

"""``rucio s3 cat``: print the content of files."""

import errno
import os
import sys
from typing import Optional

import click

from rucio.cli.s3 import DIDType, interruptible
from rucio.client.s3files.content import stream
from rucio.client.s3files.tally import Refused
from rucio.common.exception import RucioException

_BROKEN_PIPE = 141  # the exit code that shells show for it


@click.command('cat')
@click.argument('dids', nargs=-1, required=True, type=DIDType(need_name=True), metavar='SCOPE:NAME...')
@click.option('--rse', help='Only use replicas on this RSE, or on those of an RSE expression.')
@click.pass_context
def cat(ctx: click.Context, dids: tuple[tuple[str, str], ...], rse: Optional[str]) -> None:
    """Print the content of files, one after the other.

    The content is compared with the catalogue while it is printed. If it is not the same, the last part of it is not
    printed, and the exit code is 1.

    \b
    Examples: rucio s3 cat user.alice:run7/notes.txt
              rucio s3 cat user.alice:run7/a.tar | tar x
    """
    try:
        with interruptible('Stopped.'):
            for scope, name in dids:
                stream(ctx.obj.client, scope, name, sys.stdout.buffer.write, rse)
            sys.stdout.buffer.flush()
    except Refused as error:
        raise RucioException(str(error)) from None
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        # Whoever read it has enough. Python flushes the rest when it exits, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(_BROKEN_PIPE)
