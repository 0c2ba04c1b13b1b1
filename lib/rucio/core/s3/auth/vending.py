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

"""Vending: the server's own keys are exchanged at the storage's STS for keys that end, for one bucket or one part
of it.

Who may have them is not decided here: see :mod:`.access`.
"""

import json
import os
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any, Optional

from rucio.common.exception import (
    DestinationNotAccessible,
    InputValidationError,
    RSEOperationNotSupported,
    RucioException,
    SourceNotFound,
)
from rucio.common.s3 import objects, sts
from rucio.common.s3.endpoint import SERVER
from rucio.common.s3.errors import Target
from rucio.common.s3.secrecy import is_private

from . import rates

if TYPE_CHECKING:
    from rucio.core.s3.storages import Storage

__all__ = ['MIN_LIFETIME', 'VendedKeys', 'assume', 'need_unique_case', 'session_policy', 'vend']

MIN_LIFETIME = 900  # seconds; no STS gives less
# What is asked for is cut to one of these, so that each lifetime does not need keys of its own.
LIFETIMES = (MIN_LIFETIME, 1800, 3600, 7200, 14400, 28800, 43200)
MAX_POLICY_LENGTH = 2048  # characters, of AWS
MAX_CACHED_KEYS = 10_000  # keys
MAX_NAMES = 10_000  # of a folder, among which one in other capitals is looked for

_WRITE_ACTIONS = ('s3:PutObject', 's3:DeleteObject', 's3:AbortMultipartUpload', 's3:ListMultipartUploadParts')
# Names of old Ceph buckets, too; nothing that a policy would expand.
_BUCKET = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{1,254}')
_SPECIAL = re.compile(r'[$*?]')


@dataclass(frozen=True)
class VendedKeys(sts.TemporaryKeys):
    """Keys for ``prefix`` (all of the bucket if empty) of a bucket."""

    bucket: str
    prefix: str
    write: bool


class _CachedKeys:
    """Where the keys for one purpose are. Who holds the lock gets them; the others wait for him, and
    share his failure.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.keys: Optional[sts.TemporaryKeys] = None
        self.renew_at: Optional[datetime] = None
        self.failures = 0
        self.failure: Optional[RucioException] = None


_slots: OrderedDict[tuple[Any, ...], _CachedKeys] = OrderedDict()
_clients: dict[tuple[Any, ...], Any] = {}
_lock = threading.Lock()


def vend(
    storage: 'Storage', bucket: str, prefix: str, write: bool, lifetime: Optional[int], who: str, exact: bool = False
) -> VendedKeys:
    """Keys for one bucket or one part of it. One request to the STS, none while more than half of the life of earlier
    ones is left.

    :param storage: The RSE; its setting ``role_arn`` names the role that is assumed.
    :param bucket: The bucket.
    :param prefix: What the keys begin with that may be touched; empty: the whole bucket.
    :param write: Whether objects may be written and deleted, too.
    :param lifetime: Seconds, cut to one of :data:`LIFETIMES` or the setting ``credentials_lifetime``, which is the most
        and the default.
    :param who: The account; the storage's logs show it.
    :param exact: Only for the object whose key ``prefix`` is.
    :raises RSEOperationNotSupported: if there is no role, the STS is not reached by https, or the keys would be for
        names in other capitals, too.
    :raises TooManyRequests: if the account got too many new keys of late.
    :raises InputValidationError: if a name cannot be part of a policy.
    :raises RSEAccessDenied: if the storage refuses.
    :raises ServiceUnavailable, ResourceTemporaryUnavailable: if it does not answer.
    """
    if not storage.endpoint.role_arn:
        raise RSEOperationNotSupported(
            f"RSE {storage.rse}: this server vends no keys for it, as the RSE has no 'role_arn' in its 's3' settings. "
            'Requests can still be signed.'
        )
    if not is_private(storage.endpoint.sts_url):
        raise RSEOperationNotSupported(
            f'RSE {storage.rse}: this server vends no keys for it, as they would come from {storage.endpoint.sts_url} '
            f'unencrypted. Requests can still be signed. {sts.STS_BY_HTTPS}'
        )
    longest = storage.endpoint.credentials_lifetime
    seconds = max(
        (each for each in (*LIFETIMES, longest) if each <= min(lifetime or longest, longest)), default=MIN_LIFETIME
    )
    # Another address, role or key is another purpose: a server need not be restarted when its configuration changes.
    purpose = (
        storage.rse_id,
        storage.endpoint.sts_url,
        storage.endpoint.role_arn,
        bucket,
        prefix,
        write,
        seconds,
        who,
        exact,
    )
    slot = _slot(purpose)
    failures = slot.failures
    with slot.lock:
        if slot.keys is None or slot.renew_at is None or datetime.now(timezone.utc) >= slot.renew_at:
            if slot.failure is not None and slot.failures > failures:
                # While this one waited. Were each to ask again, the last would wait for the time-outs of all.
                raise type(slot.failure)(*slot.failure.args)
            rates.spend('vends_per_second', who, storage.vo)
            try:
                need_unique_case(storage, bucket, prefix)
                slot.keys = assume(storage, session_policy(storage.rse, bucket, prefix, write, exact), seconds, who)
            except RucioException as error:
                slot.failure, slot.failures = type(error)(*error.args), slot.failures + 1
                raise
            slot.renew_at = slot.keys.expiration - (slot.keys.expiration - datetime.now(timezone.utc)) / 2
        keys = slot.keys
    return VendedKeys(keys.access_key, keys.secret_key, keys.session_token, keys.expiration, bucket, prefix, write)


def need_unique_case(storage: 'Storage', bucket: str, prefix: str) -> None:
    """Refuse keys for ``run1/`` where there is a ``RUN1/`` as well, and the storage's policies take one for the other.

    No request where they tell capitals (``policy_capitals``); else one for each slash in the prefix, more in a folder
    of more than 1000 names.

    :raises RSEOperationNotSupported: if there is such a name, or a folder has more names than are looked at.
    """
    if storage.endpoint.policy_capitals:
        return
    parts = prefix.split('/')
    for number, part in enumerate(parts if parts[-1] else parts[:-1]):
        above = ''.join(f'{each}/' for each in parts[:number])
        names = _names(storage, Target(storage.rse, bucket, above))
        other = next((name for name in names if name != part and name.casefold() == part.casefold()), None)
        if other is None and len(names) < MAX_NAMES:
            continue
        found = f"there is '{above}{other}', too" if other else f'more than {MAX_NAMES} names lie beside it'
        raise RSEOperationNotSupported(
            f"RSE {storage.rse}: no keys are vended for '{above}{part}' of bucket '{bucket}', as {found}, and this "
            "storage's policies do not tell capitals. Requests can still be signed."
        )


def _names(storage: 'Storage', folder: Target) -> list[str]:
    """What lies in a folder, at most :data:`MAX_NAMES`; nothing where there is no such bucket yet."""
    try:
        found = islice(objects.list_prefix(storage.connection(SERVER).client, folder), MAX_NAMES)
        return [name[len(folder.key) :].removesuffix('/') for name in found]
    except (SourceNotFound, DestinationNotAccessible):
        return []


def _slot(purpose: tuple[Any, ...]) -> _CachedKeys:
    with _lock:
        slot = _slots.setdefault(purpose, _CachedKeys())
        _slots.move_to_end(purpose)
        while len(_slots) > MAX_CACHED_KEYS:
            _slots.popitem(last=False)
        return slot


def assume(storage: 'Storage', policy: str, seconds: int, who: str) -> sts.TemporaryKeys:
    """Keys of the storage's role with this session policy, for so many seconds: one request to the STS.
    Raises as :func:`vend`.
    """
    endpoint = storage.endpoint
    # AWS wants 2 to 64 of these characters.
    name = re.sub(r'[^\w+=,.@-]', '-', f'rucio-{who}', flags=re.ASCII)[:64]
    return sts.assume_role(endpoint, _client(storage), str(endpoint.role_arn), name, policy, seconds)


def _client(storage: 'Storage') -> Any:
    """The STS client of a storage. Its keys are those of the storage's connection, also when they are changed."""
    connection = storage.connection(SERVER)
    key = (os.getpid(), connection.authorizer.identity, storage.endpoint)
    with _lock:
        if key not in _clients:
            _clients[key] = sts.client(storage.endpoint, connection.authorizer.session(), storage.region, SERVER)
        return _clients[key]


def session_policy(rse: str, bucket: str, prefix: str, write: bool, exact: bool = False) -> str:
    """The smallest session policy for one bucket or one part of it, as compact JSON (Ceph takes no other).

    Keys can be listed below ``prefix`` only.

    :param exact: For the one object whose key ``prefix`` is; nothing can be listed then, as others may begin like that.
    :raises InputValidationError: if the bucket's name could stand for others, or the policy would be too long.
    """
    if not _BUCKET.fullmatch(bucket):
        raise InputValidationError(f"RSE {rse}: '{bucket}' is no name of a bucket. Give the name of one bucket.")
    actions = ['s3:GetObject', *(_WRITE_ACTIONS if write else ())]
    arn = f'arn:aws:s3:::{bucket}'
    part = _SPECIAL.sub(lambda special: f'${{{special[0]}}}', prefix)
    listing = _allow(['s3:ListBucket'], arn)
    if prefix:
        listing['Condition'] = {'StringLike': {'s3:prefix': [f'{part}*']}}
    statements = [
        _allow(actions, f'{arn}/{part}' + ('' if exact else '*')),
        *([] if exact else [listing]),
        _allow(['s3:GetBucketLocation'], arn),
    ]
    policy = json.dumps({'Version': '2012-10-17', 'Statement': statements}, separators=(',', ':'))
    if len(policy) > MAX_POLICY_LENGTH:
        raise InputValidationError(
            f"RSE {rse}: '{prefix[:50]}...' is too long a name for a policy of {MAX_POLICY_LENGTH} characters. Use a "
            'shorter one.'
        )
    return policy


def _allow(actions: list[str], resource: str) -> dict[str, Any]:
    return {'Effect': 'Allow', 'Action': actions, 'Resource': [resource]}
