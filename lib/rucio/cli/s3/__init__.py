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


"""The commands of ``rucio s3``, each imported only when it is used, and the helpers that they share."""

import errno
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, Optional, TypeVar

import click

from rucio.common.exception import InputValidationError, RucioException
from rucio.common.s3 import UNTESTED
from rucio.common.s3.address import parse_did
from rucio.common.s3.answers import printable
from rucio.common.s3.interrupts import ending_by_exception
from rucio.common.utils import sizefmt

if TYPE_CHECKING:
    from collections.abc import Callable

    from rucio.client.s3client import S3Client

    _DIDParamType = click.ParamType[tuple[str, str]]
else:
    _DIDParamType = click.ParamType  # older versions of click have it without a type

__all__ = [
    'DIDType',
    'WithTool',
    'did_argument',
    'interruptible',
    'is_robot',
    'parse_did',
    'printable',
    'rse_option',
    's3',
    's3_client',
    'say',
    'size',
    'table',
]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
_Command = TypeVar('_Command', bound='Callable[..., Any]')

COMMANDS = {
    'cat': 'cat:cat',
    'check': 'storages:check',
    'credentials': 'access:credentials',
    'download': 'download:download',
    'du': 'buckets:du',
    'dump': 'dumps:dump',
    'exec': 'exec:exec_',
    'grants': 'sharing:grants',
    'import': 'imports:import_',
    'ls': 'buckets:ls',
    'make-bucket': 'buckets:make_bucket',
    'policy': 'sharing:policy',
    'presign': 'presign:presign',
    'reconcile': 'reconcile:reconcile',
    'remove-bucket': 'buckets:remove_bucket',
    'rm': 'rm:rm',
    'rse': 'storages:rse',
    'serve': 'serve:serve',
    'settings': 'reconcile:bucket_settings',
    'share': 'sharing:share',
    'token': 'token:token',
    'sync': 'sync:sync',
    'unshare': 'sharing:unshare',
    'upload': 'upload:upload',
    'url': 'access:url',
    'watch': 'reconcile:watch',
}


class _LazyGroup(click.Group):
    """Import the module of a command only when the command is used.

    `rucio s3 ls` then does not wait for the imports of `rucio s3 check`.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(':')
        command: click.Command = getattr(import_module(f'rucio.cli.s3.{module}'), attribute)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _usage_errors(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _usage_errors(ctx):
            return super().invoke(ctx)


@contextmanager
def _usage_errors(ctx: click.Context) -> Iterator[None]:
    """Exit with 2 for wrong usage, and with 1 for all other errors, which are logged as one message.

    Rucio logs click's usage errors and exits with 1 or 2 for them, and with 2 if access is denied. Before a message it
    puts the general one of the exception.
    """
    try:
        yield
    except click.UsageError as error:
        if ctx.resilient_parsing:
            raise
        error.show()
        ctx.exit(2)
    except RucioException as error:
        said = str(error.args[0]).strip() if error.args else ''
        ctx.obj.logger.error('%s', said or error)  # noqa: TRY400 - without a traceback
        ctx.exit(1)
    except OSError as error:
        if error.errno not in _FULL:  # that of a request has none
            raise
        ctx.obj.logger.error('The output cannot be written: %s.', error.strerror)  # noqa: TRY400
        # Python flushes the rest when it exits, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        ctx.exit(1)


@click.group(cls=_LazyGroup, context_settings={'help_option_names': ['-h', '--help']})
@click.option('-R', '--robot', is_flag=True, help='For programs: tabs instead of tables, sizes in bytes.')
@click.pass_context
def s3(ctx: click.Context, robot: bool) -> None:
    """Make, list and share S3 buckets, and get credentials for other tools."""
    # A terminal that cannot show a name, such as one in latin-1, must not end the command.
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == 'strict':
        sys.stdout.reconfigure(errors='backslashreplace')
    if robot:
        ctx.obj['robot'] = True
    if UNTESTED:
        click.echo(UNTESTED, err=True)


def s3_client(ctx: click.Context) -> 'S3Client':
    """Return the S3 client for the Rucio server and account of this command.

    It sends no request: it uses the token that the stock client already has.

    :param ctx: The context of the command.
    :returns: The client, the same one for the whole command.
    """
    from rucio.client.s3client import S3Client  # noqa: PLC0415 - boto3 takes its time
    from rucio.client.s3session import same_login  # noqa: PLC0415

    if isinstance(made := ctx.obj.get('s3_client'), S3Client):
        return made
    made = S3Client(**same_login(ctx.obj.client))
    ctx.obj['s3_client'] = made
    return made


class DIDType(_DIDParamType):
    """Convert a DID on the command line to scope and name. An invalid DID is a usage error."""

    name = 'DID'

    def __init__(self, need_name: bool = False) -> None:
        self._need_name = need_name

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> tuple[str, str]:
        """Convert a DID.

        :param value: The text, or scope and name.
        :param param: The parameter of the command.
        :param ctx: The context of the command.
        :returns: Scope and name.
        """
        if isinstance(value, tuple):
            return value
        try:
            return parse_did(value, self._need_name)
        except InputValidationError as error:
            self.fail(str(error.args[0]), param, ctx)


class WithTool(click.Command):
    """Treat everything after ``--`` as the command line of the tool.

    If there is no DID, click would otherwise take the first word of it as the DID.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the command line of the tool as ``rucio_s3_tool`` of the context's ``meta``.

        :param ctx: The context of the command.
        :param args: The arguments.
        :returns: Those that are left.
        """
        at = args.index('--') if '--' in args else len(args)
        ctx.meta['rucio_s3_tool'] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Show the command of the tool in the usage.

        :param ctx: The context of the command.
        """
        return [*super().collect_usage_pieces(ctx), '-- COMMAND...']


def did_argument(need_name: bool = False, required: bool = True) -> 'Callable[[_Command], _Command]':
    """Add the argument DID, which the command receives as ``did``: (scope, name).

    :param need_name: Whether a scope alone is refused.
    :param required: Whether the argument must be given; ``did`` is None without it.
    :returns: The decorator.
    """
    shown = 'SCOPE:NAME' if need_name else 'SCOPE[:NAME]'
    return click.argument(
        'did', type=DIDType(need_name), required=required, metavar=shown if required else f'[{shown}]'
    )


def rse_option() -> 'Callable[[_Command], _Command]':
    """Add the optional option --rse."""
    return click.option('--rse', help='The RSE. Only needed if there is more than one choice.')


@contextmanager
def interruptible(message: str, code: int = 130) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP end the block in order: Ctrl-C with a message instead of a traceback.

    :param message: The message for the user.
    :param code: The exit code of the command.
    """
    try:
        with ending_by_exception(ctrl_c=True):
            yield
    except KeyboardInterrupt:
        click.echo(message, err=True)
        sys.exit(code)


def size(ctx: click.Context, number: int) -> str:
    """Format a size as Rucio does, or in bytes with --robot.

    :param ctx: The context of the command.
    :param number: The size in bytes.
    """
    return str(sizefmt(number, human=not is_robot(ctx)))


def is_robot(ctx: click.Context) -> bool:
    """Return whether a program reads the output: `rucio --robot s3` (not in Rucio 38) or `rucio s3 --robot`.

    :param ctx: The context of the command.
    """
    return bool(ctx.obj.get('robot'))


def say(text: str = '', err: bool = False) -> None:
    """Print one line. Control characters are escaped, because keys and names may come from other people.

    :param text: The line.
    :param err: Whether it goes to standard error.
    """
    click.echo(printable(text), err=err)


def _cell(value: Any, robot: bool) -> str:
    """Escape a cell. With --robot, backslashes are doubled, so that programs can undo the escaping."""
    text = '' if value is None else str(value)
    return printable(text.replace('\\', '\\\\') if robot else text)


def table(
    ctx: click.Context, rows: Iterable[Sequence[Any]], headers: Sequence[str], numbers: Sequence[int] = ()
) -> None:
    """Print a table in Rucio's style: psql, rich if rucio.cfg enables it, or tab-separated values with --robot.

    :param ctx: The context of the command.
    :param rows: The rows.
    :param headers: The names of the columns.
    :param numbers: The columns that are aligned to the right.
    """
    cells = [[_cell(each, is_robot(ctx)) for each in row] for row in rows]
    if is_robot(ctx):
        for row in cells:
            click.echo('\t'.join(row))
        return
    alignments = ['right' if index in numbers else 'left' for index in range(len(headers))]
    if ctx.obj.use_rich:
        _rich_table(ctx, cells, headers, alignments)
        return
    from tabulate import tabulate  # type: ignore[import-untyped] # noqa: PLC0415

    click.echo(
        tabulate(
            cells,
            tablefmt=ctx.obj.get('tablefmt') or 'psql',
            headers=list(headers),
            colalign=alignments if cells else None,
            disable_numparse=True,
        )
    )


def _rich_table(ctx: click.Context, rows: list[list[str]], headers: Sequence[str], alignments: list[str]) -> None:
    from rich.markup import escape  # noqa: PLC0415

    from rucio.common.s3.rucio_internals import print_table  # noqa: PLC0415

    print_table(ctx.obj, [[escape(cell) for cell in row] for row in rows], headers, alignments)
