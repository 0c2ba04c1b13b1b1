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


"""Adds ``s3`` to the stock command ``rucio`` and to Rucio's transfertools, and is the command ``rucio-s3`` and where
those of the server begin.

``rucio-s3.pth`` imports this module whenever Python starts in an environment that has it, so it imports nothing. It
waits for the two modules that ``rucio`` is made of, and for the one that knows the transfertools, and changes them
after they are executed, in memory only.

Rucio 38 and 39 have their commands in ``main.lazy_subcommands``, a dictionary. In 40 and 41 that is a set, made from
rucio.cfg [cli], next to ``LazyGroup.COMMAND_MAP``. In all of them the script ``rucio`` sends the words that it does not
know to the legacy parser.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Optional

    import click

_COMMANDS = 'rucio.cli.command'
_LEGACY = 'rucio.cli.bin_legacy.rucio'
_TRANSFERS = 'rucio.core.transfer'
_warned: list[Exception] = []
output_mode: 'Optional[int]' = None  # of the file that the output was redirected to, before it was closed to others


class _Finder:
    """Finds nothing itself: it takes part in the execution of the three modules that others find."""

    rucio_s3_plugin = True

    def find_spec(
        self, name: str, path: 'Optional[Sequence[str]]' = None, target: 'Optional[ModuleType]' = None
    ) -> 'Optional[ModuleSpec]':
        if name not in (_COMMANDS, _LEGACY, _TRANSFERS):
            return None
        hook = {_COMMANDS: _execute_commands, _LEGACY: _execute_legacy, _TRANSFERS: _execute_transfers}[name]
        for finder in sys.meta_path:
            if (
                not hasattr(finder, 'rucio_s3_plugin')
                and hasattr(finder, 'find_spec')
                and (spec := finder.find_spec(name, path, target))
            ):
                try:
                    loader: Any = spec.loader
                    loader.exec_module = hook(loader.exec_module)
                except Exception as error:  # noqa: BLE001 - whatever it is, `rucio` shall work
                    _warn(error)
                return spec
        return None


def _install() -> None:
    if not any(hasattr(finder, 'rucio_s3_plugin') for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _close_output() -> None:
    """`rucio s3 credentials > FILE`: a shell makes FILE readable for all. It is closed to others before anything else
    is done.
    """
    global output_mode  # noqa: PLW0603 - there is one output
    words = getattr(sys, 'argv', [])
    if not words or not words[0].endswith(('rucio', 'rucio-s3')) or not {'credentials', 'presign'}.intersection(words):
        return
    import os  # noqa: PLC0415 - Python has it already
    import stat  # noqa: PLC0415

    try:
        status = os.fstat(1)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_mode & 0o077:
            os.fchmod(1, 0o600)
            output_mode = status.st_mode
    except (OSError, AttributeError):  # no output; or no POSIX
        return


def _warn(error: Exception) -> None:
    """One line, however much does not fit."""
    if _warned:
        return
    _warned.append(error)
    sys.stderr.write(
        f'rucio-s3: `rucio s3` cannot be offered ({type(error).__name__}: {error}). All else of `rucio` works. '
        'Try `rucio-s3`, or: pip install --upgrade rucio-s3\n'
    )


def _execute_transfers(execute: 'Callable[[ModuleType], None]') -> 'Callable[[ModuleType], None]':
    def exec_module(module: 'ModuleType') -> None:
        execute(module)
        try:
            from rucio.transfertool.s3 import install  # noqa: PLC0415

            install(module)
        except Exception as error:  # noqa: BLE001 - FTS shall go on
            sys.stderr.write(
                f"rucio-s3: the transfertool 's3' cannot be offered ({type(error).__name__}: {error}). All else of Rucio works. "
                'Try: pip install --upgrade rucio-s3\n'
            )

    return exec_module


def _execute_legacy(execute: 'Callable[[ModuleType], None]') -> 'Callable[[ModuleType], None]':
    def exec_module(module: 'ModuleType') -> None:
        execute(module)
        try:
            _take_words(module)
        except Exception as error:  # noqa: BLE001
            _warn(error)

    return exec_module


def _take_words(module: 'Any') -> None:
    """`rucio` asks the legacy parser about `s3 ls`: instead of an answer it gets the new command."""
    get_parser = module.get_parser

    def get_parser_or_s3(*arguments: 'Any', **keywords: 'Any') -> 'Any':
        if _is_for_s3():
            from rucio.cli.command import main  # noqa: PLC0415

            sys.exit(main())
        return get_parser(*arguments, **keywords)

    module.get_parser = get_parser_or_s3


def _is_for_s3() -> bool:
    import os  # noqa: PLC0415

    try:
        from rucio.cli.command import main as rucio  # noqa: PLC0415

        words = sys.argv[1:]
        at = _end_of_options(rucio, words)
        # Completion comes without words. The stock script then prints the legacy parser's help.
        return words[at : at + 1] == ['s3'] or (not words and '_RUCIO_COMPLETE' in os.environ)
    except Exception as error:  # noqa: BLE001
        _warn(error)
        return False


def _end_of_options(rucio: 'click.Command', words: list[str]) -> int:
    """How many of the words are options of `rucio` itself, with their values."""
    takes_value = {name: not getattr(option, 'is_flag', False) for option in rucio.params for name in option.opts}
    at = 0
    while at < len(words):
        name, equals, _ = words[at].partition('=')
        if name not in takes_value and not name.startswith('--') and words[at][:2] in takes_value:
            name, equals = words[at][:2], 'joined'  # -Suserpass
        if name not in takes_value:
            break
        at += 2 if takes_value[name] and not equals else 1
    return at


def _execute_commands(execute: 'Callable[[ModuleType], None]') -> 'Callable[[ModuleType], None]':
    def exec_module(module: 'ModuleType') -> None:
        settings = _CliSettings()
        try:
            settings.hide_s3()
            execute(module)
        finally:
            settings.restore(module)
        try:
            _add_command(module, settings)
        except Exception as error:  # noqa: BLE001
            _warn(error)

    return exec_module


class _CliSettings:
    """rucio.cfg [cli] may name s3, too; Rucio itself does not know it, and would refuse to start."""

    def __init__(self) -> None:
        self._config: Any = None
        self._original: Any = None
        self._asked: dict[str, list[str]] = {}

    def hide_s3(self) -> None:
        try:
            from rucio.common import config  # noqa: PLC0415

            self._original = config.config_get_list
            config.config_get_list = self._without_s3
            self._config = config
        except Exception as error:  # noqa: BLE001
            _warn(error)

    def _without_s3(self, section: str, option: str, *arguments: 'Any', **keywords: 'Any') -> 'Any':
        values = self._original(section, option, *arguments, **keywords)
        if section != 'cli' or not values:
            return values
        self._asked[option] = list(values)
        return [value for value in values if value != 's3']

    def restore(self, module: 'Any') -> None:
        if self._config is not None:
            self._config.config_get_list = self._original
            if hasattr(module, 'config_get_list'):
                module.config_get_list = self._original

    @property
    def wanted(self) -> bool:
        """Whether rucio.cfg lets `s3` be there: it is, unless other commands are named or it is taken out."""
        if 'endpoints' in self._asked:
            return 's3' in self._asked['endpoints']
        return 's3' not in self._asked.get('endpoints_remove', [])

    @property
    def alone(self) -> bool:
        return set(self._asked.get('endpoints', [])) == {'s3'}


def _add_command(module: 'Any', settings: _CliSettings) -> None:
    commands = module.main.lazy_subcommands
    if isinstance(commands, dict):  # Rucio 38 and 39
        commands['s3'] = 'rucio_s3_plugin.s3'
        return
    module.LazyGroup.COMMAND_MAP['s3'] = 'rucio_s3_plugin.s3'
    if settings.alone:
        commands.clear()
    if settings.wanted:
        commands.add('s3')


def __getattr__(name: str) -> 'Any':
    """The group ``s3``, which Rucio imports when it is needed, also for `rucio -h`."""
    if name != 's3':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    try:
        from rucio.cli.s3 import s3  # noqa: PLC0415
    except Exception as error:  # noqa: BLE001
        return _broken(error)
    return s3


def _broken(error: Exception) -> 'click.Command':
    import click  # noqa: PLC0415

    said = f'`rucio s3` does not work ({type(error).__name__}: {error}). Reinstall it: pip install --force-reinstall --no-deps rucio-s3'

    @click.command(
        's3',
        context_settings={'ignore_unknown_options': True},
        help=said,
        short_help='Not available: see `rucio s3 -h`',
    )
    @click.argument('words', nargs=-1)
    def s3(words: tuple[str, ...]) -> None:
        raise click.ClickException(said)

    return s3


def main() -> None:
    """``rucio-s3 ...``: the same as ``rucio s3 ...``, where a .pth file is not wanted."""
    import os  # noqa: PLC0415

    try:
        from rucio.cli.command import main as rucio  # noqa: PLC0415
        from rucio.cli.s3 import s3  # noqa: PLC0415
    except ImportError as error:
        sys.exit(f"rucio-s3 needs Rucio's clients, 38 or newer ({error}): pip install 'rucio-s3[client]'")
    if instruction := os.environ.get('_RUCIO_S3_COMPLETE'):
        from click.shell_completion import shell_complete  # noqa: PLC0415

        sys.exit(shell_complete(s3, {}, 'rucio-s3', '_RUCIO_S3_COMPLETE', instruction))
    rucio.add_command(s3, 's3')  # whatever rucio.cfg [cli] says
    words = sys.argv[1:]
    at = 0 if {'-h', '--help'} & set(words[:1]) else _end_of_options(rucio, words)
    rucio([*words[:at], 's3', *words[at:]], prog_name='rucio')


def _server_command(module: str) -> None:
    """Run a command of the server. Rucio reads its configuration while it is imported."""
    import os  # noqa: PLC0415
    from importlib import import_module  # noqa: PLC0415

    program = os.path.basename(sys.argv[0])
    try:
        command = import_module(module)
    except ImportError as error:
        sys.exit(f"{program} needs the Rucio server, 38 or newer ({error}): pip install 'rucio-s3[server]'")
    except Exception as error:
        if type(error).__name__ not in ('ConfigNotFound', 'ConfigLoadingError'):
            raise
        sys.exit(
            f"{program}: rucio.cfg is missing, or cannot be read. It needs the Rucio server's: see RUCIO_HOME and RUCIO_CONFIG."
        )
    command.main()


def copier() -> None:
    """``rucio-s3-copier``."""
    _server_command('rucio.daemons.s3.copier')


def database() -> None:
    """``rucio-s3-database``."""
    _server_command('rucio_s3_database')


def reconciler() -> None:
    """``rucio-s3-reconciler``."""
    _server_command('rucio.daemons.s3.reconciler')


_close_output()
_install()
