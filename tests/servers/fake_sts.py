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

"""A small Security Token Service in this process: it counts what it is asked, and fails when told to. It checks no signature."""

import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

from .ports import listen

_NS = 'https://sts.amazonaws.com/doc/2011-06-15/'


class FakeSTS:
    """``with FakeSTS() as sts``: serves at ``sts.url`` until the end of the block."""

    def __init__(self):
        self.requests: list[dict[str, str]] = []  # the parameters of each, and `authorization`
        self.lifetime = None  # seconds, instead of what is asked for
        self.failures: list[tuple[int, str]] = []  # status and code of the next answers
        self.hostile: dict[str, str] = {}  # members of the keys, as XML, instead of good ones
        # What who brings keys of this STS is answered, or a token that nobody signed, by action, or action and role; None: what he asks for.
        self.chained: dict[str, tuple[int, str] | None] = {}
        self.gate = threading.Event()  # no answer while it is not set
        self.gate.set()
        self.reached = threading.Event()  # a request is here

    def __enter__(self):
        self._server = listen(lambda address: ThreadingHTTPServer(address, self._handler()))
        self._server.daemon_threads = True
        self.url = f'http://127.0.0.1:{self._server.server_port}'
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, asked):
        self.requests.append(asked)
        number = len(self.requests)
        self.reached.set()
        self.gate.wait(30)
        if self.failures:
            status, code = self.failures.pop(0)
            return status, f'<ErrorResponse xmlns="{_NS}"><Error><Code>{code}</Code><Message>as the test wants</Message></Error></ErrorResponse>'
        if refusal := self._to_its_own_keys(asked):
            status, code = refusal
            return status, f'<?xml version="1.0"?><Error><Code>{code}</Code><Message></Message></Error>'  # as Ceph and S3 have it
        ends = datetime.now(timezone.utc) + timedelta(seconds=self.lifetime or int(asked['DurationSeconds']))
        keys = {'AccessKeyId': f'KEY{number}', 'SecretAccessKey': f'hidden-{number}', 'SessionToken': f'hidden-token-{number}'}
        inner = ''.join(f'<{name}>{value}</{name}>' for name, value in {**keys, 'Expiration': f'{ends:%Y-%m-%dT%H:%M:%SZ}', **self.hostile}.items())
        action = asked['Action']
        return 200, f'<{action}Response xmlns="{_NS}"><{action}Result><Credentials>{inner}</Credentials></{action}Result></{action}Response>'

    def _to_its_own_keys(self, asked):
        action, role = asked['Action'], asked.get('RoleArn', '')
        if 'Credential=KEY' not in asked['authorization'] and not asked.get('WebIdentityToken', '').endswith('.'):
            return None
        return self.chained.get(f'{action} {role}', self.chained.get(action, (403, 'AccessDenied')))

    def _handler(self):
        sts = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_POST(self):
                asked = dict(parse_qsl(self.rfile.read(int(self.headers['content-length'])).decode()))
                status, text = sts.answer({**asked, 'authorization': self.headers.get('authorization', '')})
                self.send_response(status)
                self.send_header('Content-Type', 'text/xml')
                self.send_header('Content-Length', str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                """Quiet."""

        return Handler
