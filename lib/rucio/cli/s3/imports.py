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

"""``rucio s3 import``: register the objects of other people's buckets as files in Rucio."""

import sys
from typing import Optional

import click

from rucio.cli.s3 import did_argument, interruptible, is_robot, s3_client, say
from rucio.cli.s3.reconcile import reconcile_options, report, shown_progress, warn

__all__ = ['import_']


@click.command('import')
@click.argument('rse')
@did_argument(need_name=True)
@click.option('--bucket', help='The bucket, if the RSE does not name one.')
@click.option('--prefix', help='Import only the objects below this prefix.')
@reconcile_options
@click.pass_context
def import_(
    ctx: click.Context,
    /,
    rse: str,
    did: tuple[str, str],
    dry_run: bool,
    verbose: bool,
    **how: Optional[str],
) -> None:
    """Register the objects of a foreign bucket as files of a dataset.

    The object PREFIX/a/b becomes the file SCOPE:NAME/a/b, and `rucio download` gets it. Nothing is copied or written:
    the RSE must have been made with `rucio s3 rse add --read-only`. The dataset has no rule. To add new objects, run it
    again, or leave that to the server's daemon.

    \b
    Example: rucio s3 import LANDSAT archive:landsat --prefix scenes/2026
    """
    scope, name = did
    if not dry_run:
        warn(how['on_changed'], how['on_missing'])
    with (
        interruptible('Stopped. Everything done so far is kept. Run the same command again to continue.'),
        shown_progress(ctx, f'{scope}:{name}') as progress,
    ):
        answer = s3_client(ctx).import_bucket(rse, scope, name, dry_run=dry_run, progress=progress, **how)
    failed = report(ctx, answer, dry_run, verbose)
    if answer['counts'].get('registered') and not is_robot(ctx):
        say(f'Download them with: rucio download {scope}:{name}')
    if failed:
        sys.exit(1)
