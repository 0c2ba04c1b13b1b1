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

"""
A WebDAV server (https) over a directory, in this process: a disk site, as FTS sees it.

As the grid's storages do, it copies from and to other servers when asked (COPY with Source or Destination: third-party copy, pull or push),
and tells checksums (Want-Digest: adler32).
"""

import contextlib
import http.client
import os
import shutil
import ssl
import threading
import zlib
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from .ca import CA

MiB = 1024**2
PATIENCE = 600

_PROPERTIES = """<?xml version="1.0" encoding="utf-8"?>
<D:multistatus xmlns:D="DAV:"><D:response><D:href>{href}</D:href><D:propstat><D:prop>
<D:resourcetype>{kind}</D:resourcetype><D:getcontentlength>{size}</D:getcontentlength><D:getlastmodified>{modified}</D:getlastmodified>
</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>
"""


class WebDAV:
    """``with WebDAV(directory, tls) as disk``: serves what is in ``disk.data`` until the end of the block, to everybody."""

    hostname = '127.0.0.1'

    def __init__(self, directory: 'str | os.PathLike[str]', tls: CA) -> None:
        self.data = Path(directory).absolute() / 'data'
        self.trust = ssl.create_default_context(cafile=str(tls.bundle))
        self.copies: list[tuple[str, str]] = []  # pull or push, and the other server's URL without its query
        self._tls = tls

    def __enter__(self) -> 'WebDAV':
        self.data.mkdir(parents=True, exist_ok=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._tls.certificate, self._tls.key)
        self._server = ThreadingHTTPServer((self.hostname, 0), type('Handler', (_Handler,), {'disk': self, 'context': context}))
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name='webdav', daemon=True).start()
        return self

    def path(self, url_path: str) -> Path:
        """Where a file is."""
        path = Path(os.path.normpath(f'{self.data}/{unquote(url_path)}'))
        if not path.is_relative_to(self.data):
            raise PermissionError(f'{path} is not below {self.data}')
        return path

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    disk: WebDAV
    context: ssl.SSLContext
    protocol_version = 'HTTP/1.1'
    timeout = PATIENCE

    def setup(self):
        # Here, as the server's own thread must not wait for a client's handshake.
        self.request = self.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self):
        with contextlib.suppress(OSError):  # the client has gone
            super().handle()

    def do_HEAD(self):
        self._get(body=False)

    def do_GET(self):
        self._get(body=True)

    def do_PROPFIND(self):
        self.rfile.read(int(self.headers.get('Content-Length', 0)))
        path = self._path()
        if not path.exists():
            return self._answer(404)
        about = path.stat()
        kind, size = ('<D:collection/>', 0) if path.is_dir() else ('', about.st_size)
        href = escape(self.path.partition('?')[0])
        return self._answer(207, _PROPERTIES.format(href=href, kind=kind, size=size, modified=formatdate(about.st_mtime, usegmt=True)))

    def do_PUT(self):
        with self._new_file() as file:
            left = int(self.headers['Content-Length'])
            while left:
                block = self.rfile.read(min(left, MiB))
                if not block:
                    raise ConnectionResetError('the client has gone')
                file.write(block)
                left -= len(block)
        self._answer(201)

    def do_MKCOL(self):
        path = self._path()
        if path.exists():
            return self._answer(405)
        if not path.parent.exists():
            return self._answer(409)
        path.mkdir(exist_ok=True)
        return self._answer(201)

    def do_DELETE(self):
        path = self._path()
        if not path.is_file():
            return self._answer(404)
        path.unlink()
        return self._answer(204)

    def do_COPY(self):
        """Third-party copy. The answer is 202 at once; how it went is in its body."""
        source, destination = self.headers.get('Source'), self.headers.get('Destination')
        other = source or destination or ''
        self.disk.copies.append(('pull' if source else 'push', other.partition('?')[0]))
        try:
            status = self._pull(source) if source else self._push(destination)
            said = 'success: Created' if status in (200, 201) else f'failure: {other.partition("?")[0]} answered {status}'
        except OSError as error:
            said = f'failure: {error}'
        self._answer(202, f'{said}\n')

    def do_POST(self):
        self.rfile.read(int(self.headers.get('Content-Length', 0)))
        self._answer(405)

    def _pull(self, source: str) -> int:
        with contextlib.closing(self._connect(source)) as connection:
            connection.request('GET', _target(source))
            answer = connection.getresponse()
            if answer.status == 200:
                with self._new_file() as file:
                    shutil.copyfileobj(answer, file, MiB)
            return answer.status

    def _push(self, destination: str) -> int:
        path = self._path()
        with contextlib.closing(self._connect(destination)) as connection, path.open('rb') as file:
            connection.request('PUT', _target(destination), file, {'Content-Length': str(path.stat().st_size)})
            return connection.getresponse().status

    def _connect(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        if parts.scheme == 'http':
            return http.client.HTTPConnection(parts.netloc, timeout=PATIENCE, blocksize=MiB)
        return http.client.HTTPSConnection(parts.netloc, timeout=PATIENCE, blocksize=MiB, context=self.disk.trust)

    def _get(self, *, body: bool) -> None:
        path = self._path()
        if not path.is_file():
            self._answer(404)
            return
        self.send_response(200)
        self.send_header('Content-Length', str(path.stat().st_size))
        if 'adler32' in self.headers.get('Want-Digest', '').lower():
            self.send_header('Digest', f'adler32={_adler32(path)}')
        self.end_headers()
        if body:
            with path.open('rb') as file:
                shutil.copyfileobj(file, self.wfile, MiB)

    @contextlib.contextmanager
    def _new_file(self):
        """The file at this URL, which is there when it is complete."""
        path = self._path()
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f'.{path.name}.{threading.get_ident()}')
        try:
            with new.open('wb') as file:
                yield file
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)

    def _path(self) -> Path:
        return self.disk.path(self.path.partition('?')[0])

    def _answer(self, status: int, text: str = '') -> None:
        body = text.encode()
        self.send_response(status)
        if status != 204:
            self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _target(url: str) -> str:
    """What is asked for, as it stands in the URL: it is signed."""
    return '/' + url.partition('://')[2].partition('/')[2]


def _adler32(path: Path) -> str:
    checksum = 1
    with path.open('rb') as file:
        while block := file.read(MiB):
            checksum = zlib.adler32(block, checksum)
    return f'{checksum:08x}'
