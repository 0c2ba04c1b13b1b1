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


"""The entry points of this project: the start of Python, the command ``rucio-s3``, and the commands of the server.

``rucio-s3.pth`` imports this module whenever Python starts in its environment, so it imports nothing. It waits for the
two modules of the command ``rucio``, and for the one that knows the transfertools. ``rucio_s3_seams`` changes these in
memory after they are executed.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Optional

    import click

_WATCHED = ('rucio.cli.command', 'rucio.cli.bin_legacy.rucio', 'rucio.core.transfer')
output_mode: 'Optional[int]' = None  # the mode of the file for redirected output, before access was restricted


class _Finder:
    """A finder that finds nothing, but takes part in the execution of the three modules that others find."""

    rucio_s3_plugin = True

    def find_spec(
        self, name: str, path: 'Optional[Sequence[str]]' = None, target: 'Optional[ModuleType]' = None
    ) -> 'Optional[ModuleSpec]':
        if name not in _WATCHED:
            return None
        for finder in sys.meta_path:
            if (
                not hasattr(finder, 'rucio_s3_plugin')
                and hasattr(finder, 'find_spec')
                and (spec := finder.find_spec(name, path, target))
            ):
                try:
                    import rucio_s3_seams  # noqa: PLC0415

                    loader: Any = spec.loader
                    loader.exec_module = rucio_s3_seams.AFTER[name](loader.exec_module)
                except Exception as error:  # noqa: BLE001 - whatever it is, `rucio` must work
                    sys.stderr.write(f'rucio-s3: it is not active in {name} ({type(error).__name__}: {error}).\n')
                return spec
        return None


def _install() -> None:
    if not any(hasattr(finder, 'rucio_s3_plugin') for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _close_output() -> None:
    """Restrict access to FILE in `rucio s3 credentials > FILE` before doing anything else: shells make it readable."""
    global output_mode  # noqa: PLW0603 - there is one output
    words = getattr(sys, 'argv', [])
    writes_keys = {'credentials', 'presign'}.intersection(words) or ('serve' in words and '--' not in words)
    if not words or not words[0].endswith(('rucio', 'rucio-s3')) or not writes_keys:
        return
    import os  # noqa: PLC0415 - it is imported already
    import stat  # noqa: PLC0415

    try:
        status = os.fstat(1)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_mode & 0o077:
            os.fchmod(1, 0o600)
            output_mode = status.st_mode
    except (OSError, AttributeError):  # no output; or no POSIX
        return


def __getattr__(name: str) -> 'Any':
    """Return the group ``s3``, which Rucio imports when it is needed, also for `rucio -h`."""
    if name != 's3':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    try:
        from rucio.cli.s3 import s3  # noqa: PLC0415
    except Exception as error:  # noqa: BLE001
        return _broken(error)
    return s3


def _said(error: Exception, otherwise: str) -> str:
    """Return what ``rucio.common.s3`` says about the version of Rucio, or another text."""
    return str(error) if str(error).startswith('rucio-s3 needs Rucio ') else otherwise


def _broken(error: Exception) -> 'click.Command':
    import click  # noqa: PLC0415

    said = _said(
        error,
        f'`rucio s3` does not work ({type(error).__name__}: {error}). Reinstall it: pip install --force-reinstall '
        '--no-deps rucio-s3',
    )

    @click.command(
        's3',
        context_settings={'ignore_unknown_options': True},
        help=said,
        short_help='Not available: see `rucio s3 -h`',
    )
    @click.argument('words', nargs=-1)
    def s3(words: tuple[str, ...]) -> None:
        sys.exit(said)  # Rucio would add four lines to a click.ClickException

    return s3


def main() -> None:
    """Run ``rucio-s3 ...``, the same as ``rucio s3 ...``, for environments without the .pth file."""
    import os  # noqa: PLC0415

    try:
        from rucio.cli.command import main as rucio  # noqa: PLC0415
        from rucio.cli.s3 import s3  # noqa: PLC0415
        from rucio_s3_seams import end_of_options  # noqa: PLC0415
    except ImportError as error:
        sys.exit(_said(error, f"rucio-s3 needs Rucio's clients, 38 or newer ({error}): pip install 'rucio-s3[client]'"))
    if instruction := os.environ.get('_RUCIO_S3_COMPLETE'):
        from click.shell_completion import shell_complete  # noqa: PLC0415

        sys.exit(shell_complete(s3, {}, 'rucio-s3', '_RUCIO_S3_COMPLETE', instruction))
    rucio.add_command(s3, 's3')  # independent of rucio.cfg [cli]
    words = sys.argv[1:]
    at = 0 if {'-h', '--help'} & set(words[:1]) else end_of_options(rucio, words)
    rucio([*words[:at], 's3', *words[at:]], prog_name='rucio')


def _server_command(module: str, once: bool = False) -> None:
    """Run a command of the server. Rucio reads its configuration, and opens a port for metrics, when it is imported.

    :param once: Whether the command ends by itself. It needs no such port, which a daemon on this machine may have.
    """
    import errno  # noqa: PLC0415
    import os  # noqa: PLC0415
    from importlib import import_module  # noqa: PLC0415

    program = os.path.basename(sys.argv[0])
    try:
        if once or {'--run-once', '--dry-run', '--help', '-h'} & set(sys.argv[1:]):
            _open_no_port()
        command = import_module(module)
    except ImportError as error:
        sys.exit(
            _said(error, f"{program} needs the Rucio server, 38 or newer ({error}): pip install 'rucio-s3[server]'")
        )
    except Exception as error:
        from rucio_s3_seams import config_problem  # noqa: PLC0415

        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            sys.exit(
                f'{program}: Another program has the port of [monitor] metrics_port in rucio.cfg. '
                'Each daemon on a machine needs a port of its own, so a rucio.cfg of its own (RUCIO_CONFIG).'
            )
        if not (said := config_problem(error)):
            raise
        sys.exit(f"{program}: {said} It needs the Rucio server's rucio.cfg.")
    command.main()


def _open_no_port() -> None:
    """Turn Prometheus' metrics off for this process. A problem with rucio.cfg is for the command to report."""
    from contextlib import suppress  # noqa: PLC0415

    from rucio.common.config import config_has_section, config_set  # noqa: PLC0415

    with suppress(Exception):
        if config_has_section('monitor'):
            config_set('monitor', 'enable_metrics', 'False')


def copier() -> None:
    """Run ``rucio-s3-copier``."""
    _server_command('rucio.daemons.s3.copier')


def database() -> None:
    """Run ``rucio-s3-database``."""
    _server_command('rucio_s3_database', once=True)


def reconciler() -> None:
    """Run ``rucio-s3-reconciler``."""
    _server_command('rucio.daemons.s3.reconciler')


_close_output()
_install()
