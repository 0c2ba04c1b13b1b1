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

The convention is that of Iceberg's REST catalogues. What is signed is decided in :mod:`.signing_guards`, who may have
it signed by the caller. A signature is good for 15 minutes, for this one request.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rucio.common.exception import AccessDenied, InputValidationError
from rucio.common.s3.address import common_folder
from rucio.common.s3.api import MAX_REQUESTS
from rucio.common.s3.botocore_internals import signature

from . import signing_guards

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

    from rucio.core.s3.storages import Storage

__all__ = ['MAX_KEYS', 'Allowed', 'check', 'need', 'sign']

MAX_KEYS = 1000  # in all bodies of one call
MAX_SINGLE_CHECKS = 8  # so many questions are asked one by one

Allowed = Callable[[str, str, bool], None]  # bucket, name, write; raises AccessDenied


def check(storage: 'Storage', requests: Sequence[Any]) -> list[signing_guards.CheckedRequest]:
    """What requests for a storage do. No request is made, and nobody is asked whether it is allowed.

    :param storage: The storage.
    :param requests: Each as the REST interface has it: ``method``, ``uri``, ``headers`` {name: [values]}, and for
        DeleteObjects its ``body`` in base64. ``region`` is not used: the storage has its own.
    :raises InputValidationError: if a request can be read in more than one way, or there are too many.
    :raises AccessDenied: if a request is none of those that are signed.
    """
    if not isinstance(requests, (list, tuple)) or not 0 < len(requests) <= MAX_REQUESTS:
        raise InputValidationError(f'1 to {MAX_REQUESTS} requests can be signed at once.')
    checked, left = [], MAX_KEYS
    for request in requests:
        checked.append(signing_guards.check(request, storage.endpoint, left))
        left -= checked[-1].keys
    return checked


def need(
    storage: 'Storage', checked: Sequence[signing_guards.CheckedRequest], allowed: Allowed, together: bool = True
) -> None:
    """Refuse what is not allowed.

    :param allowed: Asked for all that is touched: ``allowed(bucket, name, write)``. The name is a key; with a slash at
        its end all that lies below it; empty: all of the bucket. It raises AccessDenied. Where there is much in a
        bucket, it is asked for all of it and for folders first: who may touch those may touch what is in them.
    :param together: False: it is asked for each name.
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
    """Sign requests that were checked and are allowed; the storage's keys are read here. No request is made.

    :returns: For each request ``uri`` and ``headers`` {name: [values]}, which have to be added to those of the request.
    """
    credentials = storage.credentials()
    return [_signed(each, credentials, storage.region) for each in checked]


def _need_all_of_the_bucket(storage: 'Storage', touch: signing_guards.Touch, allowed: Allowed) -> None:
    try:
        allowed(*touch)
    except AccessDenied:
        raise AccessDenied(
            f'RSE {storage.endpoint.rse}: DeleteObjects is signed only for accounts that may write to all of bucket '
            f"'{touch.bucket}', because this storage does not verify the bodies of requests (verifies_body). Delete "
            'the objects one by one (DeleteObject).'
        ) from None


def _need_names(bucket: str, names: Sequence[str], write: bool, allowed: Allowed) -> None:
    """From the folder that all names have in common downwards: about as many questions as names at most.
    They are sorted.
    """
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


def _signed(checked: signing_guards.CheckedRequest, credentials: 'ReadOnlyCredentials', region: str) -> dict[str, Any]:
    headers = {**checked.headers, **checked.guards}
    signed = signature(checked.method, checked.uri, headers, checked.payload, region, credentials)
    added = checked.guards | signed
    return {'uri': checked.uri, 'headers': {name: [value] for name, value in added.items()}}
