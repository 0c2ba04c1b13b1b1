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

"""An STS whose keys end after seconds: real ones give no less than 900, and nobody waits for that.

Ceph has a setting for it (`rgw_sts_min_session_duration`), so the request is signed once more, with fewer seconds. SeaweedFS has none: its session token is
signed once more, with another end. Both tell that end, and both refuse the keys by themselves after it.
"""

import base64
import hashlib
import hmac
import json
import re
import time
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qs, urlencode

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from servers.seaweedfs import SeaweedFS

from .proxy import Exchange, Fault, Request


def is_assume_role(request: Request) -> bool:
    return request.method == 'POST' and b'Action=AssumeRole&' in request.body


def short_keys(storage: Any, seconds: int) -> Fault:
    """The keys that are asked for end after so many seconds."""
    return _of_seaweedfs(storage, seconds) if isinstance(storage, SeaweedFS) else _of_ceph(storage, seconds)


def _of_ceph(storage: Any, seconds: int) -> Fault:
    def act(exchange: Exchange) -> None:
        form = {name: values[0] for name, values in parse_qs(exchange.request.body.decode()).items()}
        body = urlencode({**form, 'DurationSeconds': seconds})
        again = AWSRequest('POST', storage.url + '/', headers={'Content-Type': 'application/x-www-form-urlencoded'}, data=body)
        SigV4Auth(Credentials(storage.access_key, storage.secret_key), 'sts', storage.region).add_auth(again)
        sent = again.prepare()
        exchange.request.body = body.encode()
        exchange.request.headers = {**dict(sent.headers.items()), 'Host': f'{storage.hostname}:{storage.port}'}
        exchange.respond(exchange.forward())

    return act


def _of_seaweedfs(storage: SeaweedFS, seconds: int) -> Fault:
    key = base64.b64decode(json.loads((storage.directory / 'iam.json').read_text())['sts']['signingKey'])

    def act(exchange: Exchange) -> None:
        response, end = exchange.forward(), int(time.time()) + seconds
        told = datetime.fromtimestamp(end, timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ')
        body = re.sub(rb'(?<=<SessionToken>)[^<]+', lambda found: _ending(found[0], key, end), response.body)
        response.body = re.sub(rb'(?<=<Expiration>)[^<]+', told.encode(), body)
        exchange.respond(response)

    return act


def _ending(token: bytes, key: bytes, end: int) -> bytes:
    """A JSON Web Token with another `exp`."""
    head, payload, _ = token.split(b'.')
    claims = json.loads(base64.urlsafe_b64decode(payload + b'=' * (-len(payload) % 4)))
    signed = head + b'.' + _base64(json.dumps({**claims, 'exp': end}).encode())
    return signed + b'.' + _base64(hmac.digest(key, signed, hashlib.sha256))


def _base64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b'=')
