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

"""``rucio s3 upload``: upload a directory of many files."""

import sys
import time
from typing import Optional

import click

from rucio.cli.s3 import did_argument, interruptible, is_robot, rse_option, s3_client, say, size, table
from rucio.cli.s3.outcome import report_problems
from rucio.client.s3files import DirectoryUpload, Summary


@click.command('upload')
@click.argument('directory', type=click.Path(exists=True, file_okay=False))
@did_argument(need_name=True)
@rse_option()
@click.option(
    '--jobs', '-j', type=click.IntRange(1, 256), default=8, show_default=True, help='Files to upload concurrently.'
)
@click.pass_context
def upload(ctx: click.Context, directory: str, did: tuple[str, str], rse: Optional[str], jobs: int) -> None:
    """Upload all files below DIRECTORY into a dataset.

    DIRECTORY/a/b becomes SCOPE:NAME/a/b. Files are uploaded concurrently and registered in bulk; nothing is
    overwritten. Run it again after a failure: it uploads only the missing files.

    \b
    Example: rucio s3 upload run7/ user.alice:run7
    """
    scope, name = did
    place = rse or str(s3_client(ctx).best_place(scope, name)['rse'])
    start = time.monotonic()
    made = DirectoryUpload(ctx.obj.client, directory, scope, name, place, jobs)
    with interruptible('Stopped. Run the same command again to continue: it uploads only the missing files.'):
        summary = made.run()
    _report(ctx, summary, f'{scope}:{name} on {place}', time.monotonic() - start)
    if summary.failures:
        sys.exit(1)


def _report(ctx: click.Context, summary: Summary, place: str, seconds: float) -> None:
    report_problems(summary)
    if is_robot(ctx):
        # sent, bytes sent, registered only, there before, failed
        table(ctx, [[summary.sent, summary.sent_bytes, summary.found, summary.there, len(summary.failures)]], [])
        return
    for made in summary.made:
        say(f'Made {made}.')
    speed = size(ctx, int(summary.sent_bytes / max(seconds, 0.001)))
    parts = [f'{summary.sent} files uploaded ({size(ctx, summary.sent_bytes)}, {speed}/s)']
    if summary.found:
        parts.append(f'{summary.found} already on the storage and now registered')
    if summary.there:
        parts.append(f'{summary.there} already registered')
    if summary.failures:
        parts.append(f'{len(summary.failures)} FAILED')
    say(f'{place}: {", ".join(parts)}, {seconds:.1f} s.')
