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

"""Requests of others, signed with the server's own keys: no key ever leaves the server.

The convention is that of Iceberg's REST catalogues. What is signed is decided in :mod:`.signing_guards`, who may have it
signed by the caller. A signature is good for 15 minutes, for this one request.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest

from rucio.common.exception import InputValidationError

from . import signing_guards

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

    from .storages import Storage

__all__ = ['MAX_REQUESTS', 'Allowed', 'sign']

MAX_REQUESTS = 100

Allowed = Callable[[str, str, bool], None]  # bucket, name, write; raises AccessDenied

_ADDED = ('Authorization', 'X-Amz-Date', 'X-Amz-Content-SHA256', 'X-Amz-Security-Token')


def sign(storage: 'Storage', requests: Sequence[Any], allowed: Allowed) -> list[dict[str, Any]]:
    """Sign requests for a storage. All of them or none; no request is made.

    :param storage: The storage; its keys are read when everything is checked and allowed.
    :param requests: Each as the REST interface has it: ``method``, ``uri``, ``headers`` {name: [values]}, and for
                     DeleteObjects its ``body`` in base64. ``region`` is not used: the storage has its own.
    :param allowed: Asked for all that is touched: ``allowed(bucket, name, write)``. The name is a key; with a slash at its end
                    all that lies below it; empty: all of the bucket. It raises AccessDenied.
    :returns: For each request ``uri`` and ``headers`` {name: [values]}, which have to be added to those of the request.
    :raises InputValidationError: if a request can be read in more than one way, or there are too many.
    :raises AccessDenied: if a request is none of those that are signed, or not allowed.
    """
    if not isinstance(requests, (list, tuple)) or not 0 < len(requests) <= MAX_REQUESTS:
        raise InputValidationError(f'1 to {MAX_REQUESTS} requests can be signed at once.')
    checked = [signing_guards.check(request, storage.endpoint) for request in requests]
    for touch in dict.fromkeys(touch for each in checked for touch in each.touches):
        allowed(*touch)
    credentials = storage.credentials()
    return [_signed(each, credentials, storage.region) for each in checked]


class _Auth(S3SigV4Auth):
    """Signs what it is told of a body that it does not have."""

    def payload(self, request: AWSRequest) -> str:
        return str(request.context['payload'])


def _signed(checked: signing_guards.Checked, credentials: 'ReadOnlyCredentials', region: str) -> dict[str, Any]:
    request = AWSRequest(method=checked.method, url=checked.uri, headers={**checked.headers, **checked.guards})
    request.context['payload'] = checked.payload
    _Auth(credentials, 's3', region).add_auth(request)
    added = checked.guards | {name: request.headers[name] for name in _ADDED if name in request.headers}
    return {'uri': checked.uri, 'headers': {name: [value] for name, value in added.items()}}
