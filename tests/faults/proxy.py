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

"""An HTTP proxy that fails on demand, in front of a real S3 server::

    with FaultProxy(server.hostname, server.port) as proxy:
        proxy.on('PutObject', break_after)            # the next PutObject arrives, but its answer is lost
        proxy.on('GetObject', answer(503, 'SlowDown'), times=3)
        stall = proxy.on('UploadPart', Stall())       # stall.reached.wait(), stall.release()

A fault is a function of an :class:`Exchange`. Signatures stay valid: the Host header is passed on as it came.

It may stand in front of a Rucio server as well. With `choose` somebody else decides about each request, as the seeded runs of
`operations` do.
"""

import http.client
import http.server
import os
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime, formatdate, parsedate_to_datetime
from time import time
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from servers.ports import BACKLOG, is_new

PATIENCE = 240  # seconds: no test waits so long for an event unless it fails
_HOP_BY_HOP = ('connection', 'keep-alive', 'transfer-encoding', 'content-length')


@dataclass
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        return unquote(self.path.partition('?')[0].removeprefix('/').partition('/')[2])

    @property
    def operation(self) -> str:
        """The name that S3 has for it; the method of what is not S3, such as the PROPFIND of gfal2."""
        query = dict(parse_qsl(self.path.partition('?')[2], keep_blank_values=True))
        if not self.key:
            return f'{self.method} bucket' if urlsplit(self.path).path.strip('/') else 'ListBuckets'
        if self.method == 'POST':
            return 'CreateMultipartUpload' if 'uploads' in query else 'CompleteMultipartUpload'
        copied = self.method == 'PUT' and 'x-amz-copy-source' in {name.lower() for name in self.headers}
        if 'uploadId' in query:
            put = 'UploadPartCopy' if copied else 'UploadPart'
            return {'PUT': put, 'DELETE': 'AbortMultipartUpload', 'GET': 'ListParts'}[self.method]
        if copied:
            return 'CopyObject'
        return {'PUT': 'PutObject', 'GET': 'GetObject', 'HEAD': 'HeadObject', 'DELETE': 'DeleteObject'}.get(self.method, self.method)


@dataclass
class Response:
    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b''


class Exchange:
    """A request that waits for its answer."""

    def __init__(self, request: Request, handler: '_Handler') -> None:
        self.request = request
        self._handler = handler
        self._ended = False

    def end(self) -> None:
        """Note the request, before the client can know how it ends: whoever counts requests then finds it."""
        if not self._ended:
            self._ended = True
            self._handler.server.proxy._remember(self.request)

    def forward(self) -> Response:
        """Let the server do it."""
        proxy = self._handler.server.proxy
        connection = http.client.HTTPConnection(*proxy.upstream, timeout=PATIENCE)
        try:
            connection.putrequest(self.request.method, self.request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.request.headers.items():
                if name.lower() not in (*_HOP_BY_HOP, 'expect'):
                    connection.putheader(name, value)
            connection.putheader('Content-Length', str(len(self.request.body)))
            connection.endheaders(self.request.body)
            answer = connection.getresponse()
            return Response(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    def respond(self, response: Response, keep: int | None = None) -> None:
        """Answer the client.

        :param keep: So many bytes of the body; then the connection breaks.
        """
        self.end()
        handler = self._handler
        handler.send_response_only(response.status)
        for name, value in response.headers:
            # The answer to HEAD says how long the body would be.
            if name.lower() not in _HOP_BY_HOP or (name.lower() == 'content-length' and self.request.method == 'HEAD'):
                handler.send_header(name, value)
        if self.request.method != 'HEAD' and response.status != http.client.NO_CONTENT:
            handler.send_header('Content-Length', str(len(response.body)))
        handler.end_headers()
        if self.request.method != 'HEAD':
            handler.wfile.write(response.body[:keep])
        handler.wfile.flush()
        if keep is not None:
            self.drop()

    def drop(self) -> None:
        """Break the connection."""
        self.end()
        self._handler.close_connection = True
        self._handler.connection.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Break it as a machine does that knows nothing of it: RST, where `drop` sends FIN."""
        self.end()
        connection = self._handler.connection
        self._handler.close_connection = True
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        os.close(connection.detach())  # close() would wait for the files that the handler has made of it

    def refuse(self, seconds: float) -> None:
        """Break it, and refuse all new connections for so long."""
        self._handler.server.proxy.refuse(seconds)
        self.drop()

    def respond_slowly(self, response: Response, seconds: float, pieces: int = 20) -> None:
        """Answer the client in small pieces."""
        self.end()
        body, response.body = response.body, response.body[:0]
        handler = self._handler
        handler.send_response_only(response.status)
        for name, value in response.headers:
            if name.lower() not in _HOP_BY_HOP:
                handler.send_header(name, value)
        handler.send_header('Content-Length', str(len(body)))
        handler.end_headers()
        step = len(body) // pieces + 1
        for start in range(0, len(body), step):
            threading.Event().wait(seconds / pieces)
            handler.wfile.write(body[start : start + step])


Fault = Callable[[Exchange], None]


def forward(exchange: Exchange) -> None:
    """No fault."""
    exchange.respond(exchange.forward())


def break_before(exchange: Exchange) -> None:
    """The connection breaks; the request never reaches the server."""
    exchange.drop()


def break_after(exchange: Exchange) -> None:
    """The server does what it was asked for, but its answer is lost."""
    exchange.forward()
    exchange.drop()


def corrupt_request(exchange: Exchange) -> None:
    """One bit of what is sent changes on its way."""
    exchange.request.body = _flipped(exchange.request.body)
    exchange.respond(exchange.forward())


def corrupt_response(exchange: Exchange) -> None:
    """One bit of what is received changes on its way."""
    response = exchange.forward()
    response.body = _flipped(response.body)
    exchange.respond(response)


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] if content else content


def reset(exchange: Exchange) -> None:
    """The connection is reset; the request never reaches the server."""
    exchange.reset()


def refuse(seconds: float) -> Fault:
    """Nobody listens for a while."""
    return lambda exchange: exchange.refuse(seconds)


def hang(seconds: float) -> Fault:
    """Nothing happens for a while, then the connection breaks."""

    def silent(exchange: Exchange) -> None:
        threading.Event().wait(seconds)
        exchange.drop()

    return silent


def trickle(seconds: float) -> Fault:
    """The answer comes in small pieces."""

    def slow(exchange: Exchange) -> None:
        response = exchange.forward()
        if exchange.request.method == 'HEAD' or not response.body:
            exchange.respond(response)
        else:
            exchange.respond_slowly(response, seconds)

    return slow


def cut(exchange: Exchange) -> None:
    """Half of the body of the answer, and the connection breaks."""
    response = exchange.forward()
    exchange.respond(response, len(response.body) // 2)


def answer_twice(exchange: Exchange) -> None:
    """The same answer comes once more on the same connection, and nobody asked for it."""
    response = exchange.forward()
    exchange.respond(response)
    exchange.respond(response)


def carry_out_twice(exchange: Exchange) -> None:
    """The server gets the request twice; the second answer is passed on."""
    exchange.forward()
    exchange.respond(exchange.forward())


def other_time(seconds: float) -> Fault:
    """The clock of the server has jumped: it refuses the signature, and says what time it has."""
    return answer(403, 'RequestTimeTooSkewed', lambda: {'Date': formatdate(time() + seconds, usegmt=True)})


def older(age: timedelta) -> Fault:
    """Time has gone by: the objects in the answer, be it a listing or one of them, were written so much earlier than they were."""

    def listed(found: 're.Match[bytes]') -> bytes:
        return (datetime.fromisoformat(found[0].decode()) - age).isoformat().encode()

    def aged(exchange: Exchange) -> None:
        response = exchange.forward()
        response.headers = [
            (name, format_datetime(parsedate_to_datetime(value) - age, usegmt=True) if name.lower() == 'last-modified' else value)
            for name, value in response.headers
        ]
        if exchange.request.operation == 'GET bucket':
            response.body = re.sub(rb'(?<=<LastModified>)[0-9-]{10}T[0-9:]{8}', listed, response.body)
        exchange.respond(response)

    return aged


def truncate(keep: int) -> Fault:
    """After so many bytes of the body the connection breaks."""
    return lambda exchange: exchange.respond(exchange.forward(), keep)


def answer(status: int, code: str = '', headers: Callable[[], dict[str, str]] = dict) -> Fault:
    """The server does nothing, and this is the answer.

    :param headers: Makes more headers when the request comes.
    """
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>on demand</Message></Error>' if code else ''
    return lambda exchange: exchange.respond(Response(status, [('Content-Type', 'application/xml'), *headers().items()], body.encode()))


def after(action: Callable[[], Any], fault: Fault) -> Fault:
    """Something happens when the request comes, and then the fault."""

    def both(exchange: Exchange) -> None:
        action()
        fault(exchange)

    return both


def delay(seconds: float) -> Fault:
    """The answer comes late."""

    def late(exchange: Exchange) -> None:
        threading.Event().wait(seconds)
        exchange.respond(exchange.forward())

    return late


class Stall:
    """No answer until release().

    :param then: What happens then; the request has not reached the server before.
    """

    def __init__(self, then: Fault = lambda exchange: exchange.respond(exchange.forward())) -> None:
        self.reached = threading.Event()
        self._released = threading.Event()
        self._then = then

    def __call__(self, exchange: Exchange) -> None:
        self.reached.set()
        self._released.wait(PATIENCE)
        self._then(exchange)

    def wait(self) -> None:
        assert self.reached.wait(PATIENCE), 'no request came'

    def release(self) -> None:
        self._released.set()


class FaultProxy:
    """Listens on a free port of 127.0.0.1; use it in a `with`.

    :param choose: What happens to a request; None: what :meth:`on` says. With it no requests are kept in `seen`: there may be any number.
    """

    def __init__(self, hostname: str, port: int, choose: 'Callable[[Request], Fault] | None' = None) -> None:
        self.upstream = (hostname, port)
        self.seen: list[Request] = []  # answered, or failed on demand
        self._choose = choose
        self._stopped = self._refusing = False
        self._faults: list[tuple[str, Fault]] = []
        self._early: list[tuple[str, int, str]] = []
        self._connections: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._server = _listener()
        self._server.proxy = self
        self.port = self._server.server_address[1]

    def __enter__(self) -> 'FaultProxy':
        self._listen()
        return self

    def _listen(self) -> None:
        threading.Thread(target=self._server.serve_forever, kwargs={'poll_interval': 0.05}, name='fault-proxy', daemon=True).start()

    def refuse(self, seconds: float) -> None:
        """Refuse all connections for so long. What is open stays open."""
        with self._changed:
            if self._stopped or self._refusing:
                return
            self._refusing = True
        self._server.shutdown()
        self._server.socket.shutdown(socket.SHUT_RDWR)  # Linux: nobody listens, and the port is kept
        threading.Timer(seconds, self._listen_again).start()

    def _listen_again(self) -> None:
        with self._changed:
            self._refusing = False
            if not self._stopped:
                self._server.socket.listen(self._server.request_queue_size)
                self._listen()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Listen no more, and break all connections. To stop it twice does no harm."""
        with self._changed:
            self._stopped = True
            listens = not self._refusing
        if listens:
            self._server.shutdown()
        self._server.server_close()
        with self._changed:
            for connection in self._connections:
                _shut(connection)

    def early(self, operation: str, status: int, code: str = '') -> None:
        """The next request of this kind is answered before its body is read, if it has ``Expect: 100-continue``; the connection stays open."""
        with self._changed:
            self._early.append((operation, status, code))

    def on(self, operation: str, fault: Any, times: int = 1) -> Any:
        """The next requests of this kind fail in this way, one after the other with what was said before. Returns the fault."""
        with self._changed:
            self._faults += [(operation, fault)] * times
        return fault

    def forget(self) -> None:
        """No request fails any more."""
        with self._changed:
            self._faults.clear()

    def operations(self) -> list[str]:
        """What was asked for, in the order of the answers."""
        with self._changed:
            return [request.operation for request in self.seen]

    def wait_for(self, operation: str, times: int = 1) -> None:
        """Return when so many requests of this kind were answered."""
        with self._changed:
            done = self._changed.wait_for(lambda: [request.operation for request in self.seen].count(operation) >= times, PATIENCE)
        assert done, f'no {operation} came, but {self.operations()}'

    def _handle(self, exchange: Exchange) -> None:
        try:
            self._fault(exchange.request)(exchange)
        except (OSError, http.client.HTTPException):  # the client, or the server, is gone
            exchange._handler.close_connection = True
        finally:
            exchange.end()

    def _fault(self, request: Request) -> Fault:
        if self._choose:
            return self._choose(request)
        with self._changed:
            fault = next((each for each in self._faults if each[0] == request.operation), None)
            if fault:
                self._faults.remove(fault)
        return fault[1] if fault else forward

    def _remember(self, request: Request) -> None:
        if not self._choose:
            with self._changed:
                self.seen.append(request)
                self._changed.notify_all()

    def _refuse(self, exchange: Exchange) -> bool:
        with self._changed:
            early = next((each for each in self._early if each[0] == exchange.request.operation), None)
            if early is None:
                return False
            self._early.remove(early)
        answer(*early[1:])(exchange)
        return True

    def _track(self, connection: socket.socket, opened: bool) -> None:
        with self._changed:
            (self._connections.add if opened else self._connections.discard)(connection)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed already


def _listener() -> '_Server':
    """On a port that was asked for: one that the system chose would be lost with the first refusal."""
    while True:
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            address = probe.getsockname()
        if not is_new(address[1]):
            continue
        try:
            return _Server(address, _Handler)
        except OSError:  # somebody else was faster
            continue


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = BACKLOG
    proxy: FaultProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what these tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.proxy._track(self.connection, opened=True)

    def finish(self) -> None:
        self.server.proxy._track(self.connection, opened=False)
        super().finish()

    def handle_expect_100(self) -> bool:
        exchange = Exchange(Request(self.command, self.path, dict(self.headers.items()), b''), self)
        return not self.server.proxy._refuse(exchange) and super().handle_expect_100()

    def _exchange(self) -> None:
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        self.server.proxy._handle(Exchange(Request(self.command, self.path, dict(self.headers.items()), body), self))

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _exchange

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: pytest shows what matters."""
