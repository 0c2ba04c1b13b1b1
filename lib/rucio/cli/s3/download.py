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

"""``rucio s3 download``: download many files."""

import sys
import time
from typing import Any, Optional

import click

from rucio.cli.s3 import DIDType, interruptible, is_robot, s3_client, say, table
from rucio.cli.s3.outcome import closing, options_of, report_plan, report_problems, transfer_options, transferred
from rucio.client.s3files import Download, Downloaded
from rucio.client.s3files.sync import is_did


@click.command('download')
@click.argument('dids', nargs=-1, required=True, type=DIDType(need_name=True), metavar='SCOPE:NAME...')
@click.argument('directory', type=click.Path(file_okay=False))
@click.option('--rse', help='Only use replicas on this RSE, or on those of an RSE expression.')
@transfer_options('download')
@click.pass_context
def download(
    ctx: click.Context, /, dids: tuple[tuple[str, str], ...], directory: str, rse: Optional[str], **given: Any
) -> None:
    """Download files, datasets and containers into DIRECTORY.

    Only what is missing or differs is downloaded, and compared with the catalogue; local files that differ are
    replaced. Run it again after a failure. If a replica fails, another one is used.

    SCOPE:NAME/a/b of one collection becomes DIRECTORY/a/b: an upload of the directory to the same name has nothing to
    do. Several collections, or those that match a wildcard (*), get a directory each. If there is no DID SCOPE:NAME,
    it means all files whose names begin with NAME/.

    \b
    Examples: rucio s3 download user.alice:run7 run7/
              rucio s3 download 'user.alice:run*' data/
    """
    if is_did(directory):
        raise click.UsageError(f"The last argument must be the local directory, but '{directory}' looks like a DID.")
    start = time.monotonic()
    made = Download(ctx.obj.client, dids, directory, rse, options_of(given), s3_client(ctx))
    with interruptible('Stopped. Run the same command again to continue: it downloads only the missing files.'):
        outcome = made.run()
    report_download(ctx, outcome, directory, None if given['dry_run'] else time.monotonic() - start)
    if outcome.failures:
        sys.exit(1)


def report_download(ctx: click.Context, outcome: Downloaded, directory: str, seconds: Optional[float]) -> None:
    """Print the outcome.

    :param ctx: The context of the command.
    :param outcome: The outcome.
    :param directory: Where the files went.
    :param seconds: How long it took; None if nothing was done.
    """
    report_problems(outcome)
    if seconds is None:
        report_plan(ctx, outcome)
    if is_robot(ctx):
        if seconds is not None:
            # received, bytes received, there before, failed
            table(ctx, [[outcome.received, outcome.received_bytes, outcome.there, len(outcome.failures)]], [])
        return
    parts = [transferred(ctx, outcome.received, 'downloaded', outcome.received_bytes, seconds)]
    if outcome.there:
        parts.append(f'{outcome.there} already there')
    say(f'{directory}: {closing(parts, outcome, seconds)}')
