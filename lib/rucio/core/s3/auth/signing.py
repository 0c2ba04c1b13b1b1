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

"""Remote signing: requests of clients are signed with the server's own keys, which never leave the server.

The REST interface follows Iceberg's REST catalogs. :mod:`.signing_guards` decides what can be signed, the caller for
whom. A signature is valid for 15 minutes, for one request.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rucio.common.exception import AccessDenied, InputValidationError
from rucio.common.s3 import monitoring
from rucio.common.s3.address import common_folder
from rucio.common.s3.api import MAX_REQUESTS
from rucio.common.s3.sigv4 import Signer

from . import signing_guards

if TYPE_CHECKING:
    from rucio.core.s3.storages import Storage

__all__ = ['MAX_KEYS', 'Allowed', 'check', 'need', 'sign']

MAX_KEYS = 1000  # in all DeleteObjects bodies of one call
MAX_SINGLE_CHECKS = 8  # up to this many permissions are checked one by one

Allowed = Callable[[str, str, bool], None]  # bucket, name, write; raises AccessDenied


def check(storage: 'Storage', requests: Sequence[Any]) -> list[signing_guards.CheckedRequest]:
    """Validate requests to a storage, and find out what they access. No request is sent, and no permission is checked.

    :param storage: The storage.
    :param requests: The requests as in the REST interface: ``method``, ``uri``, ``headers`` {name: [values]}, and for
        DeleteObjects the ``body`` in base64. ``region`` is ignored: that of the storage is used.
    :raises InputValidationError: if a request is ambiguous, or there are too many.
    :raises AccessDenied: if a request is not of a kind that is signed.
    """
    if not isinstance(requests, (list, tuple)) or not 0 < len(requests) <= MAX_REQUESTS:
        raise InputValidationError(f'1 to {MAX_REQUESTS} requests can be signed in one call.')
    checked, left = [], MAX_KEYS
    for request in requests:
        checked.append(signing_guards.check(request, storage.endpoint, left))
        left -= checked[-1].keys
    return checked


def need(
    storage: 'Storage', checked: Sequence[signing_guards.CheckedRequest], allowed: Allowed, together: bool = True
) -> None:
    """Check the permissions for everything that the requests access.

    :param allowed: Called as ``allowed(bucket, name, write)``; raises AccessDenied. The name is a key; ending with a
        slash, everything below it; empty: the whole bucket. For many names in a bucket, it is called for the bucket and
        for folders first: a permission for these includes what is in them.
    :param together: False: call it for each name.
    :param checked: The validated requests.
    :raises AccessDenied: as ``allowed`` does.
    """
    for each in checked:
        if each.any_body:
            _need_all_of_the_bucket(storage, each.touches[0], allowed)
    parts: defaultdict[tuple[str, bool], list[str]] = defaultdict(list)
    for bucket, name, write in dict.fromkeys(touch for each in checked if not each.any_body for touch in each.touches):
        parts[bucket, write].append(name)
    for (bucket, write), names in parts.items():
        if not together or len(names) <= MAX_SINGLE_CHECKS:
            for name in names:
                allowed(bucket, name, write)
        elif not _is_allowed(bucket, '', write, allowed):
            _need_names(bucket, sorted(names), write, allowed)


def sign(storage: 'Storage', checked: Sequence[signing_guards.CheckedRequest]) -> list[dict[str, Any]]:
    """Sign requests that were validated and are allowed. The server's keys are read here. No request is sent.

    :param checked: The validated requests.
    :returns: For each request ``uri``, and ``headers`` {name: [values]} to add to the request.
    """
    signer = Signer(storage.credentials(), storage.region)
    signed = [_signed(each, signer) for each in checked]
    monitoring.count('signatures', 'Requests that were signed for accounts', len(signed), rse=storage.endpoint.rse)
    return signed


def _need_all_of_the_bucket(storage: 'Storage', touch: signing_guards.Touch, allowed: Allowed) -> None:
    try:
        allowed(*touch)
    except AccessDenied:
        raise AccessDenied(
            f'RSE {storage.endpoint.rse}: DeleteObjects is signed only for accounts that may write to the whole bucket '
            f"'{touch.bucket}', because this storage does not verify request bodies (verifies_body). Delete the "
            'objects one by one (DeleteObject).'
        ) from None


def _need_names(bucket: str, names: Sequence[str], write: bool, allowed: Allowed) -> None:
    """Check the permissions for sorted names, from their common folder downwards: at most about one check per name."""
    todo = [names]
    while todo:
        some = todo.pop()
        if len(some) == 1:
            allowed(bucket, some[0], write)
            continue
        folder = common_folder((some[0], some[-1]))
        if not (folder and _is_allowed(bucket, folder, write, allowed)):
            todo += _split_by_subfolder(folder, some)


def _split_by_subfolder(folder: str, names: Sequence[str]) -> list[list[str]]:
    return [list(group) for _, group in itertools.groupby(names, lambda name: name[len(folder) :].partition('/')[:2])]


def _is_allowed(bucket: str, name: str, write: bool, allowed: Allowed) -> bool:
    try:
        allowed(bucket, name, write)
    except AccessDenied:
        return False
    return True


def _signed(checked: signing_guards.CheckedRequest, signer: Signer) -> dict[str, Any]:
    headers = checked.headers | checked.guards
    added = checked.guards | signer.added(checked.method, checked.uri, headers, checked.payload)
    return {'uri': checked.uri, 'headers': {name: [value] for name, value in added.items()}}
