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

"""``rucio s3 upload``: upload many files."""

import sys
import time
from typing import Any, Optional

import click

from rucio.cli.s3 import did_argument, interruptible, is_robot, rse_option, s3_client, say, table
from rucio.cli.s3.outcome import (
    checksum_option,
    closing,
    options_of,
    report_plan,
    report_problems,
    transfer_options,
    transferred,
)
from rucio.client.s3files import Upload, Uploaded


@click.command('upload')
@click.argument('sources', nargs=-1, required=True, type=click.Path(exists=True), metavar='SOURCE...')
@did_argument(need_name=True)
@rse_option()
@transfer_options('upload')
@checksum_option
@click.pass_context
def upload(
    ctx: click.Context, /, sources: tuple[str, ...], did: tuple[str, str], rse: Optional[str], **given: Any
) -> None:
    """Upload files, and all files below directories, into a dataset.

    SOURCE/a/b of one directory becomes SCOPE:NAME/a/b; with several sources it becomes SCOPE:NAME/SOURCE/a/b. Files are
    uploaded concurrently and registered in bulk; nothing is overwritten. Run it again after a failure: it uploads only
    the missing files, and reads only those that have changed.

    \b
    Examples: rucio s3 upload run7/ user.alice:run7
              rucio s3 upload run7/ user.alice:run7 --include '*.root' --dry-run
              rucio s3 upload a.root b.root user.alice:run7
    """
    scope, name = did
    place = rse or str(s3_client(ctx).best_place(scope, name)['rse'])
    start = time.monotonic()
    made = Upload(ctx.obj.client, sources, scope, name, place, options_of(given), s3_client(ctx))
    with interruptible('Stopped. Run the same command again to continue: it uploads only the missing files.'):
        summary = made.run()
    report_upload(ctx, summary, f'{scope}:{name} on {place}', None if given['dry_run'] else time.monotonic() - start)
    if summary.failures:
        sys.exit(1)


def report_upload(ctx: click.Context, summary: Uploaded, place: str, seconds: Optional[float]) -> None:
    """Print the outcome.

    :param ctx: The context of the command.
    :param summary: The outcome.
    :param place: Where the files went.
    :param seconds: How long it took; None if nothing was done.
    """
    report_problems(summary)
    if seconds is None:
        report_plan(ctx, summary)
    if is_robot(ctx):
        if seconds is not None:
            # sent, bytes sent, registered only, there before, failed
            numbers = [summary.sent, summary.sent_bytes, summary.found, summary.there, len(summary.failures)]
            table(ctx, [numbers], [])
        return
    for made in summary.made:
        say(f'Made {made}.')
    parts = [transferred(ctx, summary.sent, 'uploaded', summary.sent_bytes, seconds)]
    if summary.found:
        parts.append(f'{summary.found} already on the storage and {"not" if seconds is None else "now"} registered')
    if summary.there:
        parts.append(f'{summary.there} already registered')
    say(f'{place}: {closing(parts, summary, seconds)}')
