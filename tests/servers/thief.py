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

"""A server that takes what it is sent: it answers as an S3, an STS or a Rucio server would, and writes down each request that it could read."""

import socket
import ssl
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from servers.ca import CA

from .ports import listen

KEYS = {'AccessKeyId': 'AKIDOFTHETHIEF', 'SecretAccessKey': 'secret-of-the-thief', 'SessionToken': 'token-of-the-thief'}


class Thief:
    """A server on a free port of 127.0.0.1; use it in a `with`.

    :param ca: Whose certificate it shows, by https; without, it speaks http.
    :param redirect: Where it sends everybody on to, with status 307.
    """

    def __init__(self, ca: CA | None = None, redirect: str = '') -> None:
        self.seen: list[str] = []
        handler = type('Handler', (_Handler,), {'thief': self})
        self._server = listen(lambda address: _Server(address, handler))
        self.redirect = redirect
        if ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(ca.certificate, ca.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self.url = f'{"https" if ca else "http"}://127.0.0.1:{self.port}'

    def __enter__(self) -> 'Thief':
        threading.Thread(target=self._server.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing of those who hang up."""


class _Handler(BaseHTTPRequestHandler):
    thief: Thief
    protocol_version = 'HTTP/1.1'

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0)).decode(errors='replace')
        self.thief.seen.append(f'{self.requestline}\n{self.headers}{body}')
        answer = _keys(body) if 'Action=' in body else '<?xml version="1.0"?><ListAllMyBucketsResult/>'
        self.send_response(307 if self.thief.redirect else 200)
        if self.thief.redirect:
            self.send_header('Location', self.thief.redirect + self.path)
        self.send_header('Content-Type', 'text/xml')
        self.send_header('ETag', '"etag"')  # what is put has one
        self.send_header('Content-Length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    do_GET = do_POST = do_PUT = do_DELETE = _do

    def do_HEAD(self) -> None:
        self.thief.seen.append(f'{self.requestline}\n{self.headers}')
        self.send_response(307 if self.thief.redirect else 404)
        if self.thief.redirect:
            self.send_header('Location', self.thief.redirect + self.path)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _keys(body: str) -> str:
    """What an STS answers."""
    action = body.partition('Action=')[2].partition('&')[0]
    ends = datetime.now(timezone.utc) + timedelta(hours=1)
    inner = ''.join(f'<{name}>{value}</{name}>' for name, value in {**KEYS, 'Expiration': f'{ends:%Y-%m-%dT%H:%M:%SZ}'}.items())
    topic = '<TopicArn>arn:aws:sns:default::t</TopicArn>'
    return f'<{action}Response><{action}Result><Credentials>{inner}</Credentials>{topic}</{action}Result></{action}Response>'


def name_this_machine(monkeypatch: Any, host: str) -> None:
    """Let a name mean this machine, for this process: a server on 127.0.0.1 is elsewhere then, to all who go by its name."""
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, 'getaddrinfo', lambda name, *rest, **more: resolve('127.0.0.1' if name == host else name, *rest, **more))
