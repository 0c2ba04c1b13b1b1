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
"""Everything that is used of Rucio's private API, or is set at run time. Replacements are in ``rucio_s3_seams``.

tests/unit/test_rucio_internals.py fails if it changes. Checked with Rucio 38.6, 39.4, 40.4 and 41.5. Modules of Rucio's
server and command line are only imported when they are needed, as this module is imported everywhere.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Optional

from rucio.common.constants import HTTPMethod  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from requests import Response  # type: ignore[import-untyped]

    from rucio.client.baseclient import BaseClient

__all__ = ['exception_of', 'is_client', 'metric_manager', 'permission_module', 'print_table', 'renew_token', 'send']


def is_client() -> bool:
    """Return whether this process is a client of Rucio, not a server or daemon.

    Reads ``rsemanager.CLIENT_MODE``, which ``rucio.rse`` sets on the module by what is installed and RUCIO_CLIENT_MODE.
    """
    return bool(getattr(import_module('rucio.rse.rsemanager'), 'CLIENT_MODE', False))


def metric_manager(prefix: str) -> Any:
    """Return Rucio's ``MetricManager``, or None where Rucio has not loaded it, as on clients.

    Reads ``sys.modules``: all servers and daemons of Rucio import ``rucio.core.monitor``, which may open a port then.

    :param prefix: What the names of metrics begin with.
    """
    monitor = sys.modules.get('rucio.core.monitor')
    return monitor.MetricManager(prefix=prefix) if monitor is not None else None


def permission_module(vo: str) -> 'ModuleType':
    """Return the module that decides about permissions in a VO: that of its policy package, or Rucio's own.

    Uses ``permission_modules`` and ``load_permission_for_vo`` of ``rucio.core.permission``. Its public
    ``has_permission`` only calls functions for actions that it knows, and does not tell whether there is one.

    :param vo: The VO.
    """
    permission: Any = import_module('rucio.core.permission')
    if vo not in permission.permission_modules:
        permission.load_permission_for_vo(vo)
    module: ModuleType = permission.permission_modules[vo]
    return module


def send(client: 'BaseClient', url: str, method: str, data: Optional[str]) -> 'Response':
    """Send a request of a client to its Rucio server, with the client's token.

    Uses ``BaseClient._send_request``, as Rucio's own clients do: it renews tokens and retries.

    :param client: The client.
    :param url: The URL.
    :param method: The HTTP method.
    :param data: The body.
    """
    response: Response = client._send_request(url, method=HTTPMethod(method), data=data)  # noqa: SLF001
    return response


def renew_token(client: 'BaseClient') -> None:
    """Log in again, and set the client's token: a new one, but with OIDC the newest that is there.

    Uses ``BaseClient.__get_token``, and ``__read_token`` for OIDC, which would ask the user to log in: as Rucio's own
    clients do it when they start or are refused. One or two requests.

    :param client: The client.
    """
    name = 'read' if client.auth_type == 'oidc' else 'get'
    getattr(client, f'_BaseClient__{name}_token')()


def exception_of(client: 'BaseClient', response: 'Response') -> tuple[type[Exception], str]:
    """Return the exception, and its message, for an error of a Rucio server.

    Uses ``BaseClient._get_exception``, as Rucio's own clients do.

    :param client: The client.
    :param response: The answer.
    """
    kind, message = client._get_exception(  # noqa: SLF001
        headers=response.headers, status_code=response.status_code, data=response.content
    )
    return kind, str(message)


def print_table(context: Any, rows: list[list[str]], headers: 'Sequence[str]', alignments: list[str]) -> None:
    """Print a table as Rucio's commands do with [client] cli_rich: in colour, with a pager.

    Uses ``generate_table`` and ``print_output`` of ``rucio.cli.utils.RichUtils``, in Rucio 38 of
    ``rucio.client.richclient``, and ``console``, ``no_pager`` and ``spinner`` of the click context's object.

    :param context: The context of the command; its ``obj`` is a ``rucio.cli.utils.Arguments``.
    :param rows: The rows.
    :param headers: The names of the columns.
    :param alignments: left or right for each column.
    """
    rich: Any = getattr(import_module('rucio.cli.utils'), 'RichUtils', None)
    rich = rich or import_module('rucio.client.richclient')
    made = rich.generate_table(rows, headers=list(headers), col_alignments=alignments)
    context.spinner.stop()
    rich.print_output(made, console=context.console, no_pager=context.no_pager)
