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

"""As much of a memcached as Rucio's cache needs: daemons note there what the next run shall know."""

import socketserver
import threading
from types import TracebackType


class Memcached:
    """On a free port of 127.0.0.1; use it in a `with`. Nothing expires, as Rucio looks at the age of what it finds."""

    def __init__(self) -> None:
        self.values: dict[bytes, tuple[bytes, bytes]] = {}  # key -> flags, value
        self._server = _Server(('127.0.0.1', 0), _Handler)
        self._server.values = self.values
        self.url = f'127.0.0.1:{self._server.server_address[1]}'

    def __enter__(self) -> 'Memcached':
        threading.Thread(target=self._server.serve_forever, kwargs={'poll_interval': 0.05}, name='memcached', daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    values: dict[bytes, tuple[bytes, bytes]]


class _Handler(socketserver.StreamRequestHandler):
    """https://github.com/memcached/memcached/blob/master/doc/protocol.txt"""

    server: _Server

    def handle(self) -> None:
        for line in self.rfile:
            command, *words = line.split()
            if answer := getattr(self, f'_{command.decode()}', self._unknown)(*words):
                self.wfile.write(answer + b'\r\n')

    def _version(self) -> bytes:
        return b'VERSION 1.6.0'

    def _set(self, key: bytes, flags: bytes, expires: bytes, size: bytes, noreply: bytes = b'') -> bytes:
        self.server.values[key] = (flags, self.rfile.read(int(size)))
        self.rfile.readline()
        return b'' if noreply else b'STORED'

    def _get(self, *keys: bytes) -> bytes:
        found = [(key, *self.server.values[key]) for key in keys if key in self.server.values]
        return b''.join(b'VALUE %b %b %d\r\n%b\r\n' % (key, flags, len(value), value) for key, flags, value in found) + b'END'

    def _unknown(self, *_: bytes) -> bytes:
        return b'ERROR'
