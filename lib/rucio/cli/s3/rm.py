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

"""``rucio s3 rm``: delete files, from the bucket and from the catalogue."""

import sys
from typing import TYPE_CHECKING, Optional

import click

from rucio.cli.s3 import DIDType, is_robot, rse_option, s3_client, say, table
from rucio.client.s3files.deletion import Deletion
from rucio.common.s3.answers import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rucio.common.s3 import api

_SHOWN = 50  # files that were kept
_UNREGISTERED = ' (not in the catalogue)'


@click.command('rm')
@click.argument('dids', nargs=-1, required=True, type=DIDType(need_name=True), metavar='SCOPE:NAME...')
@click.option('--recursive', '-r', is_flag=True, help='Also delete all files below SCOPE:NAME/.')
@click.option('--yes', '-y', is_flag=True, help='Do not ask before --recursive and wildcards delete several files.')
@click.option('--dry-run', is_flag=True, help='Only print which files it would delete.')
@rse_option()
@click.pass_context
def rm(
    ctx: click.Context, dids: tuple[tuple[str, str], ...], recursive: bool, yes: bool, dry_run: bool, rse: Optional[str]
) -> None:
    """Delete files: their objects, and what the catalogue has of them.

    Unlike after `rucio did remove`, a file is gone at once, and its name can be used again. Your own rules do not
    protect it; files that a rule or a dataset of somebody else needs are kept. Objects in the bucket that are not in
    the catalogue are deleted as well. Datasets stay, without the files: `rucio s3 remove-bucket SCOPE:NAME` removes
    them.

    \b
    Examples: rucio s3 rm user.alice:run7/a.root
              rucio s3 rm --recursive user.alice:run7
              rucio s3 rm 'user.alice:run7/*.tmp' --dry-run
    """
    deletion = Deletion(ctx.obj.client, s3_client(ctx), dids, rse, recursive)
    if dry_run:
        for scope, names in deletion.names.items():
            for name in names:
                say(f'{scope}:{name}' + (_UNREGISTERED if (scope, name) in deletion.unregistered else ''))
        return
    if deletion.number > len(dids) and not yes:
        _confirm(deletion.number, len(deletion.unregistered))
    report_removed(ctx, deletion.run())


def _confirm(number: int, unregistered: int) -> None:
    what = counted(number, 'file') + (f', {unregistered} of them not in the catalogue' if unregistered else '')
    if not sys.stdin.isatty():
        raise click.UsageError(f'This deletes {what}: confirm it with --yes.')
    click.confirm(f'Delete {what}?', abort=True)


def report_removed(ctx: click.Context, answers: 'Sequence[api.RemovedFiles]') -> None:
    """Print what was deleted. Exits with 1 if files were kept.

    :param ctx: The context of the command.
    :param answers: The answers of the server.
    """
    kept = [each for answer in answers for each in answer['kept']]
    for each in kept[:_SHOWN]:
        say(f'ERROR {each["found"]}', err=True)
    if len(kept) > _SHOWN:
        say(f'... and {len(kept) - _SHOWN} more.', err=True)
    if is_robot(ctx):
        table(ctx, [[each['rse'], each['bucket'], each['removed'], len(each['kept'])] for each in answers], [])
    else:
        for answer in answers:
            failed = f', {len(answer["kept"])} FAILED' if answer['kept'] else ''
            files = counted(answer['removed'], 'file')
            say(f'{files} deleted from bucket {answer["bucket"]} on {answer["rse"]}{failed}.')
    if kept:
        sys.exit(1)
