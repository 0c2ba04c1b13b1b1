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

"""``rucio s3 sync``: make a directory and a collection equal, one way."""

import sys
import time
from typing import Any, Optional

import click

from rucio.cli.s3 import interruptible, is_robot, parse_did, s3_client, say, table
from rucio.cli.s3.download import report_download
from rucio.cli.s3.outcome import options_of, transfer_options
from rucio.cli.s3.upload import report_upload
from rucio.client.s3files import Downloaded, Synced
from rucio.client.s3files.sync import is_did, sync_from, sync_to
from rucio.common.exception import InputValidationError


@click.command('sync')
@click.argument('source')
@click.argument('destination')
@click.option('--delete', is_flag=True, help='Delete what SOURCE does not have, in the catalogue as `rm` does.')
@click.option('--rse', help='The RSE. For downloads: only use replicas on this RSE, or on those of an RSE expression.')
@transfer_options('transfer')
@click.pass_context
def sync(ctx: click.Context, /, source: str, destination: str, delete: bool, rse: Optional[str], **given: Any) -> None:
    """Make DESTINATION equal to SOURCE: one is a directory, the other a collection (SCOPE:NAME).

    It is `rucio s3 upload` or `rucio s3 download`. With --delete, the files of DESTINATION that SOURCE does not have
    are deleted, unless --include and --exclude leave them out, or anything failed before. Files in the catalogue are
    never changed: a local file that differs is reported.

    \b
    Examples: rucio s3 sync run7/ user.alice:run7 --delete --dry-run
              rucio s3 sync user.alice:run7 run7/
    """
    if is_did(source) == is_did(destination):
        raise click.UsageError('One of SOURCE and DESTINATION must be a local directory, the other SCOPE:NAME.')
    try:
        scope, name = parse_did(source if is_did(source) else destination, need_name=True)
    except InputValidationError as error:
        raise click.UsageError(str(error.args[0])) from None
    options, start = options_of(given), time.monotonic()
    with interruptible('Stopped. Run the same command again to continue.'):
        if is_did(source):
            place = destination
            synced = sync_from(ctx.obj.client, s3_client(ctx), scope, name, destination, rse, options, delete)
        else:
            rse = rse or str(s3_client(ctx).best_place(scope, name)['rse'])
            place = f'{scope}:{name} on {rse}'
            synced = sync_to(ctx.obj.client, s3_client(ctx), source, scope, name, rse, options, delete)
    _report(ctx, synced, place, None if options.dry_run else time.monotonic() - start)


def _report(ctx: click.Context, synced: Synced, place: str, seconds: Optional[float]) -> None:
    outcome = synced.transferred
    if isinstance(outcome, Downloaded):
        report_download(ctx, outcome, place, seconds)
    else:
        report_upload(ctx, outcome, place, seconds)
    if is_robot(ctx):
        table(ctx, [['delete', what] for what in synced.deleted], [])
    else:
        for what in synced.deleted:
            say(f'{"would delete" if seconds is None else "Deleted"} {what}')
    for what, reason in synced.failures:
        say(f'ERROR {what}: {reason.rstrip(".")}.', err=True)
    if outcome.failures or synced.failures:
        sys.exit(1)
