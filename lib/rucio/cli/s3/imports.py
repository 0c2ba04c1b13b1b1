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

"""``rucio s3 import``: what others keep in a bucket, as files in Rucio."""

import sys
from typing import Optional

import click

from rucio.cli.s3 import did_argument, interruptible, is_robot, s3_client, say
from rucio.cli.s3.reconcile import reconcile_options, report, shown_progress, warn

__all__ = ['import_']


@click.command('import')
@click.argument('rse')
@did_argument(need_name=True)
@click.option('--bucket', help='The bucket, where the RSE is not for one bucket only.')
@click.option('--prefix', help='Only this folder of it.')
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
    """Register what others keep in a bucket as files of the dataset SCOPE:NAME, so that `rucio download` gets them.

    The object PREFIX/a/b becomes the file SCOPE:NAME/a/b. Nothing is copied, and nothing is ever written there: the RSE
    is one that `rucio s3 rse add --read-only` made. The dataset has no rule. Run it again for what is new; the server's
    daemon does, too.

    \b
    Example: rucio s3 import LANDSAT archive:landsat --prefix scenes/2026
    """
    scope, name = did
    if not dry_run:
        warn(how['on_changed'], how['on_missing'])
    with (
        interruptible('Stopped. What was done so far stays. Run the same command again to go on.'),
        shown_progress(ctx, f'{scope}:{name}') as progress,
    ):
        answer = s3_client(ctx).import_bucket(rse, scope, name, dry_run=dry_run, progress=progress, **how)
    failed = report(ctx, answer, dry_run, verbose)
    if answer['counts'].get('registered') and not is_robot(ctx):
        say(f'Get them: rucio download {scope}:{name}')
    if failed:
        sys.exit(1)
