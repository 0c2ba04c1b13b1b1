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
import re
import urllib.parse
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import jsonschema

from rucio.common.s3.api import ROUTES
from rucio.common.s3.contract import schema

from .cli import RucioCli
from .rucio_server import RucioServer


@dataclass
class Answer:
    status: int
    content: Any
    headers: dict[str, str] = field(repr=False)
    text: str = field(default='', repr=False)

    @property
    def error(self) -> str:
        return self.headers.get('ExceptionClass', '')

    @property
    def message(self) -> str:
        return self.content['ExceptionMessage']


def send(server: RucioServer, method: str, path: str, headers: Mapping[str, str], data: bytes | None = None) -> Answer:
    """One request, with these headers and no others."""
    with closing(http.client.HTTPConnection('127.0.0.1', server.port, timeout=60)) as connection:
        connection.request(method, path, body=data, headers=dict(headers))
        response = connection.getresponse()
        content = response.read()
    return Answer(response.status, _parsed(content), dict(response.headers), content.decode(errors='replace'))


def _parsed(content: bytes) -> Any:
    """JSON, or the bytes: some of Rucio's routes answer a JSON document in each line."""
    try:
        return json.loads(content) if content[:1] in (b'{', b'[') else content
    except ValueError:
        return content


def conform(method: str, path: str, answer: Answer) -> None:
    """Each answer of the plugin is what the contract says: status, fields and their types."""
    where = urllib.parse.urlsplit(path).path.rstrip('/')
    (route,) = [each for each in ROUTES if each.method == method and re.fullmatch(re.sub(r'\{\w+\}', '[^/]+', each.path), where)]
    assert answer.status == route.status, answer
    jsonschema.validate(answer.content, _strict(schema(route.answer)))


def _strict(said: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI's schema as JSON Schema, without room for other fields."""
    strict = {
        key: _strict(value)
        if key in ('items', 'additionalProperties')
        else {name: _strict(each) for name, each in value.items()}
        if key == 'properties'
        else value
        for key, value in said.items()
        if key != 'nullable'
    }
    if 'properties' in strict:
        strict['additionalProperties'] = False
    return {'anyOf': [{'type': 'null'}, strict]} if said.get('nullable') else strict


class Rest:
    """Requests of one user, as any HTTP client makes them.

    :param base: what each path begins with; empty for Rucio's own routes.
    """

    def __init__(self, user: RucioCli, base: str = '/s3') -> None:
        self.user = user
        self.base = base
        user.call('whoami')
        self.token = (user.directory / 'auth_token').read_text()

    def __call__(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, announced: int = 0, token: str | None = None, **query: str
    ) -> Answer:
        """
        :param raw: the body as it is, in the place of one that becomes JSON.
        :param announced: the length of a body that is not sent: while one is on its way, the answer of a server that does not read it may be lost.
        """
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        where = f'{self.base}{path}' + (f'?{urllib.parse.urlencode(query)}' if query else '')
        headers = {'X-Rucio-Auth-Token': token if token is not None else self.token, **({'Content-Length': str(announced)} if announced else {})}
        answer = send(self.user.server, method, where, headers, data)
        if self.base and answer.status < 300:
            conform(method, path, answer)
        return answer

    def ok(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        answer = self(method, path, body, **query)
        assert answer.status in (200, 201), answer
        return answer.content
