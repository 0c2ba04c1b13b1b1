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

"""An OIDC provider for tests: it signs tokens, and serves the key that they are verified with."""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .ports import listen


class Issuer:
    """An OIDC provider on a free port of 127.0.0.1; use it in a `with`."""

    audience = 'rucio'

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._server = listen(lambda address: ThreadingHTTPServer(address, self._handler()))
        self.url = f'http://127.0.0.1:{self._server.server_port}'

    def __enter__(self) -> 'Issuer':
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def token(self, subject: str, seconds: int = 3600, **claims: Any) -> str:
        """A token for a user, signed by this provider."""
        now = int(time.time())
        head = {'alg': 'RS256', 'typ': 'JWT', 'kid': 'tests'}
        body = {'iss': self.url, 'sub': subject, 'aud': self.audience, 'iat': now, 'exp': now + seconds, **claims}
        text = f'{_encoded(json.dumps(head).encode())}.{_encoded(json.dumps(body).encode())}'
        return f'{text}.{_encoded(self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}'

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pages = {'/jwks': issuer._keys, '/.well-known/openid-configuration': issuer._configuration}
                page = pages.get(self.path)
                self.send_response(200 if page else 404)
                self.send_header('Content-Type', 'application/json')
                self.end_headers()
                if page:
                    self.wfile.write(json.dumps(page()).encode())

            def log_message(self, *_: object) -> None:
                """Nothing of it is worth a line."""

        return Handler

    def _keys(self) -> dict[str, Any]:
        numbers = self._key.public_key().public_numbers()
        n, e = (_encoded(number.to_bytes((number.bit_length() + 7) // 8, 'big')) for number in (numbers.n, numbers.e))
        return {'keys': [{'kty': 'RSA', 'use': 'sig', 'alg': 'RS256', 'kid': 'tests', 'n': n, 'e': e}]}

    def _configuration(self) -> dict[str, Any]:
        return {'issuer': self.url, 'jwks_uri': f'{self.url}/jwks', 'id_token_signing_alg_values_supported': ['RS256']}


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b'=').decode()
