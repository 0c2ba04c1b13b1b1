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

"""Requests to the REST interface of the plugin as any HTTP client makes them: what goes over the wire."""

import http.client
import json
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from .cli import RucioCli


@dataclass
class Answer:
    status: int
    content: Any
    headers: dict[str, str] = field(repr=False)

    @property
    def error(self) -> str:
        return self.headers.get('ExceptionClass', '')

    @property
    def message(self) -> str:
        return self.content['ExceptionMessage']


class Rest:
    """Requests of one user, as any HTTP client makes them."""

    def __init__(self, user: RucioCli) -> None:
        self.user = user
        user.call('whoami')
        self.token = (user.directory / 'auth_token').read_text()

    def __call__(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, token: str | None = None, **query: str) -> Answer:
        connection = http.client.HTTPConnection('127.0.0.1', self.user.server.port, timeout=60)
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        where = f'/s3{path}' + (f'?{urllib.parse.urlencode(query)}' if query else '')
        connection.request(method, where, body=data, headers={'X-Rucio-Auth-Token': token if token is not None else self.token})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return Answer(response.status, json.loads(content) if content[:1] in (b'{', b'[') else content, dict(response.headers))

    def ok(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        answer = self(method, path, body, **query)
        assert answer.status in (200, 201), answer
        return answer.content
