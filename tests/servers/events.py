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

"""Events, as a storage tells them to a Rucio server."""

import http.client
import json
from typing import Any
from urllib.parse import quote_plus

from .rucio_server import RucioServer

EVENTS_TOKEN = 'a-token-of-the-tests-0123456789'


def tell(
    server: RucioServer,
    rse: str,
    document: Any,
    *,
    token: str | None = EVENTS_TOKEN,
    raw: bytes | None = None,
    authorization: str = '',
    vo: str = '',
    announced: int = 0,
) -> tuple[int, Any]:
    """
    POST to the server's endpoint for events; status and answer.

    :param document: the body, as JSON.
    :param raw: the body, in the place of a document.
    :param authorization: the header, in the place of one with the token.
    :param announced: the length of a body that is not sent: while one is on its way, the answer of a server that does not read it may be lost.
    """
    connection = http.client.HTTPConnection('127.0.0.1', server.port, timeout=60)
    headers = {'Content-Type': 'application/json'}
    if token or authorization:
        headers['Authorization'] = authorization or f'Bearer {token}'
    if announced:
        headers['Content-Length'] = str(announced)
    path = f'/s3/{rse}/events' + (f'?vo={vo}' if vo else '')
    body = None if announced else json.dumps(document).encode() if raw is None else raw
    connection.request('POST', path, body=body, headers=headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, json.loads(content)


def record(bucket: str, key: str, name: str = 'ObjectCreated:Put', *, sequencer: str = '0055AED6DCD90281E5', size: int = 5) -> dict[str, Any]:
    """A record as AWS sends it."""
    described = {'key': quote_plus(key, safe='/'), 'size': size, 'eTag': 'd41d8cd98f00b204e9800998ecf8427e', 'sequencer': sequencer}
    return {
        'eventVersion': '2.1',
        'eventSource': 'aws:s3',
        'awsRegion': 'us-west-2',
        'eventTime': '1970-01-01T00:00:00.000Z',
        'eventName': name,
        's3': {'s3SchemaVersion': '1.0', 'configurationId': 'rucio-s3', 'bucket': {'name': bucket, 'arn': f'arn:aws:s3:::{bucket}'}, 'object': described},
    }
