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


"""What a client sees of a Rucio server, in a thread: it lets everybody in, and answers what a test wants."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from .ports import listen

TOKEN = 'token-of-the-tests'


class Asked(NamedTuple):
    """A request without those for a token."""

    method: str
    path: str
    params: dict[str, str]
    body: Any


Answer = tuple[int, Any, dict[str, str]]


class FakeRucio:
    """
    A server on a free port of 127.0.0.1; use it in a `with`.

    :param answer: what it answers to a request: status, body (None: none) and headers. By default it knows no path, as a server without a plugin.
    """

    ca_bundle = None  # it speaks http

    def __init__(self, answer: Callable[[Asked], Answer] | None = None) -> None:
        self.answer = answer or (lambda _: (404, None, {}))
        self.asked: list[Asked] = []
        self.tokens = 0
        handler = type('Handler', (_Handler,), {'fake': self})
        self._server = listen(lambda address: ThreadingHTTPServer(address, handler))
        self.url = f'http://127.0.0.1:{self._server.server_port}'

    def __enter__(self) -> 'FakeRucio':
        threading.Thread(target=self._server.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeRucio
    protocol_version = 'HTTP/1.1'

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        url = urlsplit(self.path)
        if url.path.startswith('/auth/'):
            self.fake.tokens += 1
            return self._send(200, None, {'X-Rucio-Auth-Token': TOKEN, 'X-Rucio-Auth-Token-Expires': 'Sat, 01 Jan 2050 00:00:00 UTC'})
        asked = Asked(self.command, url.path, dict(parse_qsl(url.query)), json.loads(body) if body else None)
        self.fake.asked.append(asked)
        return self._send(*self.fake.answer(asked))

    do_GET = do_POST = do_PUT = do_DELETE = _do

    def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
        content = b'' if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({'Content-Type': 'application/json'} | headers).items():
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
