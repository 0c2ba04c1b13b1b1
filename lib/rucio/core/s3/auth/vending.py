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

"""Vending: temporary keys for a bucket or a prefix of it, from the STS of the storage.

Permissions are not checked here: see :mod:`.access`.
"""

import json
import os
import re
import threading
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any, Optional

from rucio.common.exception import (
    DestinationNotAccessible,
    InputValidationError,
    ResourceTemporaryUnavailable,
    RSEAccessDenied,
    RSEOperationNotSupported,
    RucioException,
    ServiceUnavailable,
    SourceNotFound,
)
from rucio.common.s3 import monitoring, objects, sts
from rucio.common.s3.dates import to_text
from rucio.common.s3.endpoint import SERVER
from rucio.common.s3.errors import Target
from rucio.common.s3.secrecy import is_private

from . import rates
from .grants import FOREVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio.core.s3.storages import Storage

__all__ = ['MIN_LIFETIME', 'VendedKeys', 'assume', 'need_unique_case', 'session_policy', 'vend']

MIN_LIFETIME = 900  # seconds; the minimum of every STS
CLOCK_MARGIN = 60  # seconds by which the clock of a storage may be ahead, and its answer late
# Lifetimes are rounded down to one of these, so that keys can be shared.
LIFETIMES = (MIN_LIFETIME, 1800, 3600, 7200, 14400, 28800, 43200)
MAX_POLICY_LENGTH = 2048  # characters, of AWS
MAX_CACHED_KEYS = 10_000  # keys
MAX_NAMES = 10_000  # in a folder, among which a name that differs only in case is searched

_FAILURES = (RSEAccessDenied, ServiceUnavailable, ResourceTemporaryUnavailable)  # of the storage
# `aws s3 cp` of more than 8 MB between buckets reads the tags of the source.
# No tags are written: policies and lifecycle rules may depend on them.
_READ_ACTIONS = ('s3:GetObject', 's3:GetObjectTagging')
_WRITE_ACTIONS = ('s3:PutObject', 's3:DeleteObject', 's3:AbortMultipartUpload', 's3:ListMultipartUploadParts')
# Also names of old Ceph buckets; without characters that a policy expands.
_BUCKET = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{1,254}')
_SPECIAL = re.compile(r'[$*?]')


@dataclass(frozen=True)
class VendedKeys(sts.TemporaryKeys):
    """Keys for a prefix of a bucket (empty: the whole bucket)."""

    bucket: str
    prefix: str
    write: bool


class _CachedKeys:
    """The cached keys for one purpose.

    One thread fetches them while it holds the lock; the others wait, and share its failure.
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
    storage: 'Storage',
    bucket: str,
    prefix: str,
    write: bool,
    lifetime: Optional[int],
    who: str,
    exact: bool = False,
    until: datetime = FOREVER,
) -> VendedKeys:
    """Return keys for a bucket or a prefix of it, which expire before the access of the account ends.

    One request to the STS; none while cached keys have more than half of their lifetime left.

    :param storage: The RSE; its setting ``role_arn`` is the role that is assumed.
    :param bucket: The bucket.
    :param prefix: The prefix of the keys that may be accessed; empty: the whole bucket.
    :param write: Whether objects may also be written and deleted.
    :param lifetime: Seconds, rounded down to one of :data:`LIFETIMES`. The setting ``credentials_lifetime`` is the
        maximum and the default.
    :param who: The account, as it appears in the logs of the storage.
    :param exact: Only for the object whose key is ``prefix``.
    :param until: When the access ends, as :func:`.access.until` returns it.
    :raises RSEOperationNotSupported: if there is no role, the STS is not reached by https, the keys would also be
        valid for names that differ in case, or they would outlive the access.
    :raises TooManyRequests: if the account exceeded its rate limit.
    :raises InputValidationError: if a name cannot be part of a policy.
    :raises RSEAccessDenied: if the storage refuses.
    :raises ServiceUnavailable, ResourceTemporaryUnavailable: if it does not answer.
    """
    if not storage.endpoint.role_arn:
        raise RSEOperationNotSupported(
            f"RSE {storage.rse}: the server does not vend keys, as there is no 'role_arn' in the 's3' settings of the "
            'RSE. Requests can still be signed.'
        )
    if not is_private(storage.endpoint.sts_url):
        raise RSEOperationNotSupported(
            f'RSE {storage.rse}: the server does not vend keys, as they would be sent unencrypted from '
            f'{storage.endpoint.sts_url}. Requests can still be signed. {sts.STS_BY_HTTPS}'
        )
    seconds = _lifetime(storage, lifetime, until)
    # Includes the address, role and key, so that changes of the configuration take effect without a restart.
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
    with slot.lock, _counted(storage) as outcome:
        if slot.keys is None or slot.renew_at is None or datetime.now(timezone.utc) >= slot.renew_at:
            outcome[:] = ['new']
            if slot.failure is not None and slot.failures > failures:
                # It failed while this thread waited. If each tried again, the last would wait for the time-outs of all.
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
    if keys.expiration > until.replace(tzinfo=timezone.utc):  # the storage's clock, or its own idea of a lifetime
        raise _too_late(storage, until)
    return VendedKeys(keys.access_key, keys.secret_key, keys.session_token, keys.expiration, bucket, prefix, write)


def _lifetime(storage: 'Storage', wanted: Optional[int], until: datetime) -> int:
    """Return the seconds that keys live: none outlive the access."""
    longest = storage.endpoint.credentials_lifetime
    left = (until - datetime.now(timezone.utc).replace(tzinfo=None)).total_seconds() - CLOCK_MARGIN
    if left < MIN_LIFETIME:
        raise _too_late(storage, until)
    most = min(wanted or longest, longest, left)
    return max((each for each in (*LIFETIMES, longest) if each <= most), default=MIN_LIFETIME)


def _too_late(storage: 'Storage', until: datetime) -> RSEOperationNotSupported:
    return RSEOperationNotSupported(
        f'RSE {storage.rse}: no keys are vended, as the access ends at {to_text(until)}, and keys live for at least '
        f'{MIN_LIFETIME // 60} minutes. Until then requests can still be signed.'
    )


@contextmanager
def _counted(storage: 'Storage') -> 'Iterator[list[str]]':
    """Count a vend: failed if the block raises, else as the list in it says."""
    outcome = ['cached']
    try:
        yield outcome
    except RucioException as error:
        limited = isinstance(error, rates.TooManyRequests)
        outcome[:] = ['limited' if limited else 'failed' if isinstance(error, _FAILURES) else 'impossible']
        raise
    finally:
        monitoring.vended(storage.endpoint.observed, outcome[0])


def need_unique_case(storage: 'Storage', bucket: str, prefix: str) -> None:
    """Refuse keys for ``run1/`` if there is also a ``RUN1/``, on storages with case-insensitive policies.

    No request if policies are case-sensitive (``policy_capitals``); else one for each slash in the prefix, more in a
    folder of more than 1000 names.

    :raises RSEOperationNotSupported: if there is such a name, or a folder has too many names to check.
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
        found = f"there is '{above}{other}', too" if other else f'there are more than {MAX_NAMES} names beside it'
        raise RSEOperationNotSupported(
            f"RSE {storage.rse}: no keys are vended for '{above}{part}' of bucket '{bucket}', as {found}, and the "
            'policies of this storage are case-insensitive. Requests can still be signed.'
        )


def _names(storage: 'Storage', folder: Target) -> list[str]:
    """List the names in a folder, at most :data:`MAX_NAMES`; none if the bucket does not exist yet."""
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
    """Return keys of the storage's role with a session policy, for some seconds.

    One request to the STS. Raises like :func:`vend`.

    :param policy: The session policy, compact JSON.
    :param seconds: The lifetime of the keys in seconds.
    :param who: The name of the session, which the storage's logs show.
    """
    endpoint = storage.endpoint
    # AWS requires 2 to 64 of these characters.
    name = re.sub(r'[^\w+=,.@-]', '-', f'rucio-{who}', flags=re.ASCII)[:64]
    return sts.assume_role(endpoint, _client(storage), str(endpoint.role_arn), name, policy, seconds)


def _client(storage: 'Storage') -> Any:
    """Return the STS client of a storage, which uses the current keys of its connection."""
    connection = storage.connection(SERVER)
    key = (os.getpid(), connection.authorizer.identity, storage.endpoint)
    with _lock:
        if key not in _clients:
            _clients[key] = sts.client(storage.endpoint, connection.authorizer.session(), storage.region, SERVER)
        return _clients[key]


def session_policy(rse: str, bucket: str, prefix: str, write: bool, exact: bool = False) -> str:
    """Return the smallest session policy for a bucket or a prefix of it, as compact JSON (which Ceph requires).

    Only keys below ``prefix`` can be listed. There is no condition for unfinished uploads: only who may write to all of
    the bucket can list these.

    :param exact: Only for the object whose key is ``prefix``; nothing can be listed then, as other keys may begin
        with it.
    :raises InputValidationError: if the bucket name is not valid in a policy, or the policy would be too long.
    """
    if not _BUCKET.fullmatch(bucket):
        raise InputValidationError(f"RSE {rse}: '{bucket}' is not a valid bucket name. Give the name of one bucket.")
    actions = [*_READ_ACTIONS, *(_WRITE_ACTIONS if write else ())]
    arn = f'arn:aws:s3:::{bucket}'
    part = _SPECIAL.sub(lambda special: f'${{{special[0]}}}', prefix)
    listing = _allow(['s3:ListBucket'], arn)
    if prefix:
        listing['Condition'] = {'StringLike': {'s3:prefix': [f'{part}*']}}
    statements = [
        _allow(actions, f'{arn}/{part}' + ('' if exact else '*')),
        *([] if exact else [listing]),
        _allow(['s3:GetBucketLocation', *(['s3:ListBucketMultipartUploads'] if write and not prefix else [])], arn),
    ]
    policy = json.dumps({'Version': '2012-10-17', 'Statement': statements}, separators=(',', ':'))
    if len(policy) > MAX_POLICY_LENGTH:
        raise InputValidationError(
            f"RSE {rse}: '{prefix[:50]}...' is too long for a policy of {MAX_POLICY_LENGTH} characters. Use a shorter "
            'name.'
        )
    return policy


def _allow(actions: list[str], resource: str) -> dict[str, Any]:
    return {'Effect': 'Allow', 'Action': actions, 'Resource': [resource]}
