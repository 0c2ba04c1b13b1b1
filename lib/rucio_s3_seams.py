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
"""All changes to a stock Rucio, made in memory after Python has executed one of its modules.

Each seam is listed with what it replaces, and the versions of Rucio with which it was tested. docs/upstream.md has, for
each, the change in Rucio that would make it unnecessary. If a seam does not fit a version, Rucio is not changed, and a
line on stderr says so.

Rucio 38 and 39 have their commands in ``main.lazy_subcommands``, a dictionary. In 40 and 41, this is a set, made from
rucio.cfg [cli], beside ``LazyGroup.COMMAND_MAP``. In all of them, the script ``rucio`` passes words that it does not
know to the legacy parser.
"""

import configparser
import inspect
import logging
import os
import sys
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    import click

    from rucio.common.types import LoggerFunction
    from rucio.core.request import DirectTransfer

__all__ = ['AFTER', 'SEAMS', 'Seam', 'config_problem', 'end_of_options', 'install']

_warned: list[Exception] = []


class Seam(NamedTuple):
    """A function of Rucio that is replaced.

    :param name: Module and name.
    :param takes: The parameters that it must have first, in this order.
    """

    name: str
    takes: tuple[str, ...]


# Private names of Rucio's class, as Python mangles them.
_REWRITES = {
    '_DirectTransferImplementation__rewrite_source_url': (
        'source_url',
        'source_sign_url',
        'dest_sign_url',
        'source_scheme',
    ),
    '_DirectTransferImplementation__rewrite_dest_url': ('dest_url', 'dest_sign_url'),
}
_GENERATE = ('cls', 'src', 'dst', 'rws', 'protocol_factory', 'operation')
_FUNCTIONS = {
    'cancel_transfers': ('transfers_to_cancel', 'logger'),
    'update_transfer_priority': ('transfers_to_update', 'logger'),
    'mark_submitting': ('transfer', 'external_host', 'logger', 'session'),
}
SEAMS = (
    Seam('rucio.cli.bin_legacy.rucio.get_parser', ()),
    Seam('rucio.common.config.config_get_list', ('section', 'option')),
    *(Seam(f'rucio.core.transfer.{name}', takes) for name, takes in _FUNCTIONS.items()),
    Seam('rucio.core.transfer.DirectTransferImplementation._generate_source_url', _GENERATE),
    *(Seam(f'rucio.core.transfer.DirectTransferImplementation.{name}', takes) for name, takes in _REWRITES.items()),
)


# The command


def _warn(error: Exception) -> None:
    """Write a warning to stderr, once in a process."""
    if _warned:
        return
    _warned.append(error)
    sys.stderr.write(
        f'rucio-s3: `rucio s3` cannot be offered ({type(error).__name__}: {error}). All else of `rucio` works. '
        'Try `rucio-s3`, or: pip install --upgrade rucio-s3\n'
    )


def _execute_legacy(execute: 'Callable[[ModuleType], None]') -> 'Callable[[ModuleType], None]':
    def exec_module(module: 'ModuleType') -> None:
        execute(module)
        try:
            _take_words(module)
        except Exception as error:  # noqa: BLE001
            _warn(error)

    return exec_module


def config_problem(error: Exception) -> str:
    """Say in one line what is wrong with rucio.cfg, without its content, which may be a secret.

    :param error: What Rucio raised when it read its configuration, as it is imported.
    :returns: The line; empty if the error is another one.
    """
    if type(error).__name__ in ('ConfigNotFound', 'ConfigLoadingError'):
        looked = ', '.join(word for word in str(error).split() if '/' in word) or "''"
        return f'there is no readable rucio.cfg: looked for {looked}. See RUCIO_CONFIG and RUCIO_HOME.'
    if isinstance(error, UnicodeDecodeError):
        return 'rucio.cfg cannot be read: it is not UTF-8 text. Save it as that.'
    if not isinstance(error, configparser.Error) or not (problem := _syntax_problem(error)):
        return ''
    told = vars(error)  # the property `filename` is deprecated
    line = told['errors'][0][0] if told.get('errors') else told.get('lineno', 'unknown')
    return f"rucio.cfg cannot be read: '{told.get('source', told.get('filename'))}', line {line}: {problem}"


def _syntax_problem(error: configparser.Error) -> str:
    if isinstance(error, configparser.DuplicateSectionError):
        return f'there is a second section [{error.section}]. Merge it with the first.'
    if isinstance(error, configparser.DuplicateOptionError):
        return f"'{error.option}' is set twice in [{error.section}]. Remove one."
    if isinstance(error, configparser.MissingSectionHeaderError):
        return 'expected a section, such as [client].'
    return 'expected NAME = VALUE.' if isinstance(error, configparser.ParsingError) else ''


def _is_command() -> bool:
    return os.path.basename(sys.argv[0] if sys.argv else '') in ('rucio', 'rucio-admin', 'rucio-s3')


def _take_words(module: Any) -> None:
    """Let the legacy parser run the new command if it is asked about `s3 ls`."""
    get_parser = module.get_parser

    def get_parser_or_s3(*arguments: Any, **keywords: Any) -> Any:
        if _is_for_s3():
            from rucio.cli.command import main  # noqa: PLC0415

            sys.exit(main())
        return get_parser(*arguments, **keywords)

    module.get_parser = get_parser_or_s3


def _is_for_s3(command: Any = None) -> bool:
    try:
        if command is None:
            from rucio.cli.command import main as command  # noqa: PLC0415

        words = sys.argv[1:]
        at = end_of_options(command, words)
        # Completion runs without words, for which the stock script prints the help of the legacy parser.
        return words[at : at + 1] == ['s3'] or (not words and '_RUCIO_COMPLETE' in os.environ)
    except Exception as error:  # noqa: BLE001
        _warn(error)
        return False


def end_of_options(rucio: 'click.Command', words: list[str]) -> int:
    """Return how many words are options of `rucio` itself, with their values.

    :param rucio: The command `rucio`.
    :param words: The words of the command line.
    """
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
        except Exception as error:
            if (said := config_problem(error)) and _is_command():
                sys.exit(f'rucio: {said}')
            raise
        finally:
            settings.restore(module)
        try:
            _add_command(module, settings)
            # Rucio's script would take an empty argument for one of its multi_host_commands, and fail.
            at_once = _is_command() and '' in sys.argv[1:] and _is_for_s3(module.main)
        except Exception as error:  # noqa: BLE001
            _warn(error)
            return
        if at_once:
            sys.exit(module.main())

    return exec_module


class _CliSettings:
    """The settings in rucio.cfg [cli], without s3: Rucio does not know it, and would refuse to start."""

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

    def _without_s3(self, section: str, option: str, *arguments: Any, **keywords: Any) -> Any:
        values = self._original(section, option, *arguments, **keywords)
        if section != 'cli' or not values:
            return values
        self._asked[option] = list(values)
        return [value for value in values if value != 's3']

    def restore(self, module: Any) -> None:
        if self._config is not None:
            self._config.config_get_list = self._original
            if hasattr(module, 'config_get_list'):
                module.config_get_list = self._original

    @property
    def wanted(self) -> bool:
        """Return whether rucio.cfg allows `s3`: unless only other commands are listed, or it is removed."""
        if 'endpoints' in self._asked:
            return 's3' in self._asked['endpoints']
        return 's3' not in self._asked.get('endpoints_remove', [])

    @property
    def alone(self) -> bool:
        return set(self._asked.get('endpoints', [])) == {'s3'}


def _add_command(module: Any, settings: _CliSettings) -> None:
    _help_without_login(module.main)
    commands = module.main.lazy_subcommands
    if isinstance(commands, dict):  # Rucio 38 and 39
        commands['s3'] = 'rucio_s3_plugin.s3'
        return
    module.LazyGroup.COMMAND_MAP['s3'] = 'rucio_s3_plugin.s3'
    if settings.alone:
        commands.clear()
    if settings.wanted:
        commands.add('s3')


def _help_without_login(rucio: 'click.Group') -> None:
    """Let ``rucio s3 ls --help`` work without a Rucio server: stock Rucio logs in before it shows any help."""
    log_in = rucio.callback

    def log_in_unless_help(*arguments: Any, **keywords: Any) -> Any:
        words = sys.argv[1:]
        if log_in is not None and not wants_help(words[end_of_options(rucio, words) :]):
            return log_in(*arguments, **keywords)
        return None

    rucio.callback = log_in_unless_help


def wants_help(words: list[str]) -> bool:
    """Return whether a command line, without Rucio's own options, asks for help about ``rucio s3``.

    ``rucio s3 exec SCOPE TOOL --help`` asks the tool.

    :param words: The words of the command line.
    """
    own = words[: words.index('--')] if '--' in words else words
    return words[:1] == ['s3'] and not {'-h', '--help'}.isdisjoint(own[:3] if own[1:2] == ['exec'] else own)


# The conveyor


def _execute_transfers(execute: 'Callable[[ModuleType], None]') -> 'Callable[[ModuleType], None]':
    def exec_module(module: 'ModuleType') -> None:
        execute(module)
        try:
            from rucio.common.config import config_get_list  # noqa: PLC0415
            from rucio.common.s3.settings import of_server  # noqa: PLC0415

            tools = config_get_list('conveyor', 'transfertool', False, [], check_config_table=False)
            install(module, copier='s3' in tools, fts=of_server('fts'))
        except Exception as error:  # noqa: BLE001 - FTS must not be affected
            sys.stderr.write(
                f"rucio-s3: the transfertool 's3' cannot be offered ({type(error).__name__}: {error}). All else of "
                'Rucio works. '
                'Try: pip install --upgrade rucio-s3\n'
            )

    return exec_module


def install(module: Any, *, copier: bool, fts: bool) -> None:
    """Change ``rucio.core.transfer`` as far as rucio.cfg asks for it.

    With ``copier``, the transfertool ``s3`` becomes known. Rucio passes each cancellation and change of priority of a
    SUBMITTED request to FTS, whichever transfertool it was submitted to, where a change of priority would fail:
    requests of the copier are left out.

    With ``fts``, transfers between S3 and other storages work with FTS. If an RSE has the attribute ``sign_url``, Rucio
    rewrites the URLs for FTS, even inside the names of files: URLs of S3 are left unchanged, as FTS accepts them.
    Without ``sign_url``, Rucio does not ask WebDAV storages to push their files to an S3 storage: here they are asked.
    And the destination's bucket is created before a transfer is submitted.

    :param module: ``rucio.core.transfer``, executed.
    :param copier: Whether ``s3`` is in [conveyor] transfertool.
    :param fts: Whether [s3] fts is on.
    :raises AttributeError, KeyError, TypeError: if this Rucio has these functions elsewhere, or with other parameters;
        then nothing was changed.
    """
    new: list[tuple[Any, str, Any]] = []
    if copier:
        to_fts = ('cancel_transfers', 'update_transfer_priority')
        new += [(module, name, _without_ours(_taking(module, name))) for name in to_fts]
    if fts:
        direct = module.DirectTransferImplementation
        new += [(direct, name, staticmethod(_but_s3(_taking(direct, name)))) for name in _REWRITES]
        generate = vars(direct)['_generate_source_url'].__func__
        new.append((direct, '_generate_source_url', classmethod(_with_push(_checked(generate, _GENERATE)))))
        new.append((module, 'mark_submitting', _with_bucket(_taking(module, 'mark_submitting'))))
    if copier:
        from rucio.transfertool.s3 import S3Transfertool  # noqa: PLC0415 - it imports the module that has been executed

        module.TRANSFERTOOL_CLASSES_BY_NAME[S3Transfertool.external_name] = S3Transfertool
    for where, name, value in new:
        setattr(where, name, value)


def _taking(where: Any, name: str) -> 'Callable[..., Any]':
    return _checked(getattr(where, name), {**_FUNCTIONS, **_REWRITES}[name])


def _checked(function: 'Callable[..., Any]', takes: tuple[str, ...]) -> 'Callable[..., Any]':
    found = tuple(inspect.signature(function).parameters)
    if found[: len(takes)] != takes:
        raise TypeError(f'{function.__qualname__} takes {", ".join(found)}, not {", ".join(takes)}')
    return function


def _without_ours(to_fts: 'Callable[..., None]') -> 'Callable[..., None]':
    @wraps(to_fts)
    def only_fts(by_host: 'Mapping[str, Any]', *arguments: Any, **keywords: Any) -> None:
        from rucio.transfertool.s3 import EXTERNAL_HOST  # noqa: PLC0415

        to_fts(
            {host: transfers for host, transfers in by_host.items() if str(host).partition('/')[0] != EXTERNAL_HOST},
            *arguments,
            **keywords,
        )

    return only_fts


def _but_s3(rewrite: 'Callable[..., str]') -> 'Callable[..., str]':
    @wraps(rewrite)
    def rewrite_others(url: str, *arguments: Any, **keywords: Any) -> str:
        return url if url.startswith(('s3s://', 's3://')) else rewrite(url, *arguments, **keywords)

    return rewrite_others


def _with_push(generate: 'Callable[..., str]') -> 'Callable[..., str]':
    @wraps(generate)
    def generate_with_push(cls: type, src: Any, dst: Any, rws: Any, protocol_factory: Any, operation: str) -> str:
        from rucio.db.sqla.constants import RequestType  # noqa: PLC0415

        url = generate(cls, src, dst, rws, protocol_factory, operation)
        plain, _, query = url.partition('?')
        # Another query may be the site's setting for transfers between WebDAV storages (webdav_transfer_mode).
        if (
            rws.request_type != RequestType.TRANSFER
            or not url.startswith(('davs://', 'https://'))
            or (query and not query.startswith('copy_mode='))
        ):
            return url
        destination = protocol_factory.protocol(dst.rse, dst.scheme, 'third_party_copy_write')
        return f'{plain}?copy_mode=push' if getattr(destination, 'wants_push', False) else url

    return generate_with_push


def _with_bucket(mark: 'Callable[..., None]') -> 'Callable[..., None]':
    @wraps(mark)
    def make_bucket_and_mark(
        transfer: 'DirectTransfer',
        external_host: str,
        *arguments: Any,
        logger: 'LoggerFunction' = logging.log,
        **keywords: Any,
    ) -> None:
        from rucio.transfertool.s3 import EXTERNAL_HOST, is_s3  # noqa: PLC0415

        # The copier creates buckets itself.
        if external_host != EXTERNAL_HOST and is_s3(transfer.dest_protocol()):
            from rucio.core.s3.transfers.destinations import prepare_bucket  # noqa: PLC0415

            prepare_bucket(transfer.dst.rse.id, transfer.rws.scope, logger=logger)
        mark(transfer, external_host, *arguments, logger=logger, **keywords)

    return make_bucket_and_mark


AFTER = {
    'rucio.cli.command': _execute_commands,
    'rucio.cli.bin_legacy.rucio': _execute_legacy,
    'rucio.core.transfer': _execute_transfers,
}
