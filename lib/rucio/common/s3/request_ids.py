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

"""Ids by which a command, the Rucio server's log and the storage's log are compared.

A client sends one with each request to the Rucio server, which logs it. Server and client add it to the User-Agent of
their requests to storages: the access logs of storages show that header, and no signature covers it. An id from outside
proves nothing, and is only used if it has the form of one.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Optional, TypeVar

__all__ = ['HEADER', 'accepted', 'carried', 'current', 'inherit', 'mark', 'of_storage', 'told', 'use', 'without']

HEADER = 'X-Request-ID'
_PRODUCT = 'rucio-s3-request'  # in the User-Agent: rucio-s3-request/0123456789abcdef

_OURS = re.compile('[A-Za-z0-9-]{8,64}')
_OF_STORAGES = re.compile('[A-Za-z0-9+/=._:-]{1,128}')
_TOLD = re.compile(r' \[request [A-Za-z0-9-]{8,64}, of the storage [^\]]{1,128}\]')

_Result = TypeVar('_Result')
_here: ContextVar[Optional[str]] = ContextVar('rucio_s3_request_id', default=None)
_of_processes: dict[int, str] = {}  # of this one, and of those that it was forked from


def current() -> str:
    """Return the id of the request that is being served, else that of this process: of one command."""
    found = _here.get()
    if found is None:
        process = os.getpid()  # a forked one makes its own
        # Threads that ask at the same moment get the same one.
        found = _of_processes.get(process) or _of_processes.setdefault(process, secrets.token_hex(8))
    return found


def inherit(request_id: str) -> None:
    """Let this process, which was forked, have the id of its parent: both are one command.

    :param request_id: The id.
    """
    _of_processes[os.getpid()] = request_id


def accepted(text: Optional[str]) -> str:
    """Return an id that came from outside, or a new one if it is none.

    :param text: The id.
    """
    return text if text and _OURS.fullmatch(text) else secrets.token_hex(8)


@contextmanager
def use(request_id: str) -> Iterator[None]:
    """Let an id be the current one in the block.

    :param request_id: The id.
    """
    token = _here.set(request_id)
    try:
        yield
    finally:
        _here.reset(token)


def carried(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Return a function that has the current id in any thread.

    :param function: The function.
    """
    request_id = current()

    def called(*arguments: Any, **keywords: Any) -> _Result:
        with use(request_id):
            return function(*arguments, **keywords)

    return called


def mark(client: Any) -> None:
    """Add the current id to the User-Agent of each request of a boto3 client.

    :param client: The client.
    """

    def add(request: Any, **_: Any) -> None:
        agent = request.headers.get('User-Agent', b'')
        agent = agent.decode() if isinstance(agent, bytes) else str(agent)
        request.headers['User-Agent'] = f'{agent} {_PRODUCT}/{current()}'.strip()

    client.meta.events.register_first('before-send', add)


def of_storage(text: Any) -> str:
    """Return the id that a storage gave a request; empty if it is none that can be shown.

    :param text: The id, as the storage sent it.
    """
    found = text.decode('latin-1') if isinstance(text, bytes) else str(text or '')
    return found if _OF_STORAGES.fullmatch(found) else ''


def told(storage_id: Any) -> str:
    """Return what an error message says about the ids of a request; empty if the storage gave none.

    :param storage_id: The id that the storage gave it.
    """
    found = of_storage(storage_id)
    return f' [request {current()}, of the storage {found}]' if found else ''


def without(text: str) -> str:
    """Return a message without ids, to compare it with an earlier one.

    :param text: The message.
    """
    return _TOLD.sub('', text)
