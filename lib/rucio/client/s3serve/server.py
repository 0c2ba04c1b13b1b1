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

"""Listen on this machine, until the end of a block."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, Optional

from aiohttp import web

from rucio.common.exception import InputValidationError

from .exchange import Options
from .gateway import Gateway
from .places import Places
from .registrar import Registrar
from .signatures import LocalKeys
from .upstream import PIECE, Upstream

if TYPE_CHECKING:
    from rucio.client.s3client import S3Client

__all__ = ['HOST', 'Listening', 'listening']

HOST = '127.0.0.1'


class Listening(NamedTuple):
    """An endpoint that listens.

    :param url: Its URL.
    :param keys: The keys for it.
    :param missing: The RSEs whose buckets some list of buckets did not have, as they could not be asked.
    """

    url: str
    keys: LocalKeys
    missing: set[str]


@asynccontextmanager
async def listening(
    client: 'S3Client',
    rse: Optional[str] = None,
    options: Optional[Options] = None,
    port: int = 0,
    keys: Optional[LocalKeys] = None,
    tls: Optional[ssl.SSLContext] = None,
) -> AsyncIterator[Listening]:
    """Listen on this machine until the end of the block. The port is bound before the block begins.

    :param client: The Rucio server.
    :param rse: The RSE; None for the one that Rucio chooses for each scope.
    :param options: What is allowed; None for everything but overwriting.
    :param port: The port; 0 for a free one.
    :param keys: The keys that tools sign with; None for random ones.
    :param tls: The certificate; None for plain http, which is for a port that nobody could expect.
    :raises InputValidationError: if the port is not free.
    :raises RSENotFound: if there is no such RSE, or it cannot be used.
    """
    try:
        sock = socket.create_server((HOST, port))
    except OSError as error:
        raise InputValidationError(
            f'Port {port} of {HOST} cannot be used: {error.strerror}. Is there another `rucio s3 serve`?'
        ) from None
    bound = sock.getsockname()[1]
    hosts = (f'{HOST}:{bound}', f'localhost:{bound}')
    keys, upstream, options = keys or LocalKeys.make(), Upstream(), options or Options()
    registrar = Registrar(client, options.overwrite)
    places = Places(client, rse, options.only)
    gateway = Gateway(keys, places, upstream, hosts, str(client.account), options, registrar)
    # Bytes that are not HTTP are answered with 400; a traceback would tell nobody anything.
    quiet = logging.getLogger('rucio.s3.serve.http')
    quiet.setLevel(logging.CRITICAL)
    server = web.Server(gateway.handle, logger=quiet, access_log=None, auto_decompress=False, read_bufsize=PIECE)
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=1)
    try:
        await asyncio.to_thread(places.need_rse)
        await runner.setup()
        await web.SockSite(runner, sock, ssl_context=tls).start()
        yield Listening(f'{"https" if tls else "http"}://{hosts[0]}', keys, places.missing)
    finally:
        await runner.cleanup()
        await registrar.close()
        await upstream.close()
        sock.close()
