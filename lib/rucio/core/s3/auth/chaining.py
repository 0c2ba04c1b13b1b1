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

"""Tests whether vended keys can obtain more permissions (role chaining), before the server vends any.

A session policy limits what keys can do; on some storages, it does not limit which roles they can assume. There, keys
for one folder can assume the role again without a policy, if its trust policy allows it. So the server obtains keys as
it would vend them, and uses them to try what an attacker would. Only if the storage refuses all attempts are keys
vended; otherwise the server signs requests (``remote``), and reports what the operator has to change.

The verdict is stored for all workers of all servers (:mod:`rucio.core.s3.configs`), and expires.

Calls to IAM are not tested: on AWS, Ceph and SeaweedFS session policies apply to them. They do not apply to
AssumeRole, which the trust policy of a role governs, nor to AddServiceAccount of MinIO before a release that the
operator has to confirm.
"""

import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from botocore.credentials import Credentials
from sqlalchemy import select

from rucio.common.exception import RucioException
from rucio.common.s3 import factory, sts
from rucio.common.s3.answers import line_logger
from rucio.common.s3.dates import to_text
from rucio.common.s3.endpoint import SERVER
from rucio.core.s3 import configs, storages, topics
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

from . import part_copies, vending

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from rucio.common.s3.endpoint import Endpoint
    from rucio.core.s3.storages import Storage

__all__ = ['SAFE_SECONDS', 'UNSAFE_SECONDS', 'Verdict', 'last_verdict', 'verdict']

_LOGGER = line_logger(__name__)

SAFE_SECONDS = 6 * 3600  # seconds for which a verdict is valid if all attempts were refused
UNSAFE_SECONDS = 300  # ... any other verdict: a change by the operator is soon noticed
ROLES_SECONDS = 300  # seconds until the roles of other RSEs are read again
# GHSA-jjjj-jwhf-8rgr: before it, keys with a session policy can create a service account without one.
MINIO_RELEASE = 'RELEASE.2025-10-15T17-29-55Z'

_REFUSED = frozenset(('AccessDenied',))
# The call does not exist: MinIO, AWS, Ceph, others.
_UNKNOWN = frozenset(
    (
        'BadRequest',
        'InvalidAction',
        'InvalidParameterValue',
        'MethodNotAllowed',
        'NotImplemented',
        'UnknownOperation',
        'UnsupportedOperation',
    )
)
_NOT_THE_TOKEN = frozenset(('ExpiredTokenException', 'IDPRejectedClaim', 'InvalidIdentityToken'))
# {"alg":"none"} and {"iss":"https://rucio.invalid","sub":"rucio","aud":"rucio"}, not signed.
_OWN_TOKEN = 'eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL3J1Y2lvLmludmFsaWQiLCJzdWIiOiJydWNpbyIsImF1ZCI6InJ1Y2lvIn0.'  # noqa: S105 - opens nothing
_SESSION_NAME = 'chaining'
_REMEDY = 'Give the roles the policies in docs/operators.md for this storage (Roles for vending).'


@dataclass(frozen=True)
class Verdict:
    """The result of a test.

    :param safe: Whether all attempts were refused, so that keys may be vended.
    :param reason: What was not refused, and what the operator has to change; empty if ``safe``.
    :param at: The time of the test, in POSIX seconds.
    """

    safe: bool
    reason: str
    at: float

    @property
    def fresh(self) -> bool:
        """Whether it is still valid."""
        age = time.time() - self.at
        return -60 <= age < (SAFE_SECONDS if self.safe else UNSAFE_SECONDS)  # the clocks of servers may differ slightly

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict for the REST interface."""
        return {
            'refused': self.safe,
            'reason': self.reason,
            'tried_at': to_text(datetime.fromtimestamp(self.at, timezone.utc)),
        }


class _Trial(NamedTuple):
    """A call that must be refused, and the error codes that count as a refusal."""

    what: str
    call: Any
    parameters: dict[str, Any]
    refusals: frozenset[str]


class _CachedVerdict:
    """The verdict on a storage in this process. One thread tests while it holds the lock; the others wait."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.known: Optional[Verdict] = None
        self.mark = ''
        self.until = 0.0  # of time.monotonic

    def get(self, mark: str) -> Optional[Verdict]:
        return self.known if mark == self.mark and time.monotonic() < self.until else None

    def put(self, mark: str, known: Verdict) -> Verdict:
        self.known, self.mark, self.until = known, mark, time.monotonic() + storages.CACHE_SECONDS
        return known


_slots: dict[tuple[int, str], _CachedVerdict] = {}
_roles: dict[tuple[Optional[str], str], tuple[float, list[str]]] = {}


def verdict(storage: 'Storage') -> Verdict:
    """Return whether keys may be vended with the role of a storage. Do not call it in a transaction.

    No cost within some seconds of the last call; one small query while the last verdict of any server is valid; else
    five requests to the STS, two more for each further role of this server at the same STS, and those of
    :func:`.topics.find_exposure` and :func:`.part_copies.find_exposure`. Threads of one process share a test.

    :param storage: An RSE with a role, and keys of the server.
    """
    slot, mark = _slot(storage), _mark(storage)
    if known := slot.get(mark):
        return known
    with slot.lock:
        if known := slot.get(mark):
            return known
        with db_session(DatabaseOperationType.READ) as session:
            found = _read(storage, mark, session)
        if found is None or not found.fresh:
            found = _run_trials(storage)
            with db_session(DatabaseOperationType.WRITE) as session:
                _write(storage, mark, found, session)
        return slot.put(mark, found)


def last_verdict(storage: 'Storage', *, session: 'Session') -> Optional[Verdict]:
    """Return the last verdict without testing; None: there is no valid one. At most one small query.

    :param storage: An RSE with a role, and keys of the server.
    """
    slot, mark = _slot(storage), _mark(storage, session)
    found = slot.get(mark) or _read(storage, mark, session)
    return found if found and found.fresh else None


def _slot(storage: 'Storage') -> _CachedVerdict:
    return _slots.setdefault((os.getpid(), storage.rse_id), _CachedVerdict())


# Stored verdicts


def _mark(storage: 'Storage', session: 'Optional[Session]' = None) -> str:
    """Return a digest of what a verdict depends on: the STS, the key of the server, and all roles at the same STS."""
    keys = storage.credentials()
    own = '' if keys.token else str(keys.access_key)  # temporary keys differ between processes
    endpoint = storage.endpoint
    topic = [endpoint.url, topics.endpoint_url(storage)] if endpoint.event_topics else []
    parts = [
        *topic,
        *(['part copies', endpoint.url] if part_copies.is_tried(storage) else []),
        endpoint.sts_url,
        endpoint.minio_release or '',
        storage.identity,
        own,
        *_known_roles(storage, session),
    ]
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:32]


def _option(storage: 'Storage') -> str:
    return hashlib.sha256(str(storage.endpoint.role_arn).encode()).hexdigest()[:32]


def _read(storage: 'Storage', mark: str, session: 'Session') -> Optional[Verdict]:
    value = configs.get(configs.vending_section(storage), _option(storage), session=session)
    try:
        stored = json.loads(value or '')
        if stored['of'] != mark:
            return None
        return Verdict(stored['safe'] is True, str(stored['reason']), float(stored['at']))
    except (ValueError, TypeError, KeyError):
        return None


def _write(storage: 'Storage', mark: str, found: Verdict, session: 'Session') -> None:
    verdict = {'of': mark, 'safe': found.safe, 'reason': found.reason[:2000], 'at': found.at}
    value = json.dumps({'role': str(storage.endpoint.role_arn)[:500], **verdict})
    configs.put(configs.vending_section(storage), _option(storage), value, session=session)


# Tests


def _known_roles(storage: 'Storage', session: 'Optional[Session]' = None) -> list[str]:
    """Return the storage's own role, then those of any RSE of any VO at the same STS.

    A few queries every five minutes.
    """
    own, now = str(storage.endpoint.role_arn), time.monotonic()
    until, found = _roles.get(place := (storage.endpoint.sts_url, own), (0.0, []))
    if now >= until:
        if session is None:
            with db_session(DatabaseOperationType.READ) as own_session:
                found = _roles_beside(storage, own_session)
        else:
            found = _roles_beside(storage, session)
        _roles[place] = (now + ROLES_SECONDS, found)
    return [own, *(each for each in found if each != own)]


def _roles_beside(storage: 'Storage', session: 'Session') -> list[str]:
    endpoints = [
        each.endpoint
        for vo in _vos(session)
        for each in storages.list_storages(vo, session=session)
        if _is_same_sts(each.endpoint, storage.endpoint)
    ]
    return sorted(
        {
            role
            for each in [storage.endpoint, *endpoints]
            for role in (each.role_arn, each.web_identity_role_arn)
            if role
        }
    )


def _vos(session: 'Session') -> list[str]:
    return list(session.execute(select(models.RSE.vo).distinct()).scalars())


def _is_same_sts(one: 'Endpoint', other: 'Endpoint') -> bool:
    # AWS has an STS in each region, with the same roles.
    return one.sts_url == other.sts_url or one.provider == other.provider == 'aws'


def _run_trials(storage: 'Storage') -> Verdict:
    reason = _minio_problem(storage) if storage.endpoint.provider == 'minio' else ''
    if not reason:
        try:
            reason = _find_escalation(storage)
        except RucioException as error:
            reason = str((error.args and error.args[0]) or error)  # never empty: that would be safe
    if reason:
        _LOGGER.warning('S3: no keys are vended. %s', reason)
    return Verdict(not reason, reason, time.time())


def _minio_problem(storage: 'Storage') -> str:
    release = storage.endpoint.minio_release
    if release and release >= MINIO_RELEASE:
        return ''
    return (
        f'RSE {storage.rse}: before {MINIO_RELEASE}, vended keys can create unrestricted keys on MinIO '
        "(CVE-2025-62506), and MinIO does not report its release. Once it is updated, set 'minio_release' in rucio.cfg "
        f'[s3:{storage.rse}] to the name of the release.'
    )


def _find_escalation(storage: 'Storage') -> str:
    """Return what the storage does not refuse and what to do about it; empty if it refuses everything.

    :raises RucioException: if there are no keys to test with.
    """
    endpoint, roles = storage.endpoint, _known_roles(storage)
    bucket = storage.layout.common_bucket or f'{endpoint.bucket_prefix}rucio-s3-{secrets.token_hex(4)}'
    keys = vending.assume(
        storage,
        vending.session_policy(storage.rse, bucket, f'{_SESSION_NAME}/', False),
        vending.MIN_LIFETIME,
        _SESSION_NAME,
    )
    own = factory.bare_session(Credentials(keys.access_key, keys.secret_key, keys.session_token))
    for trial in _trials(sts.client(endpoint, own, storage.region, SERVER, counted=False), roles):
        code = sts.refusal(trial.call, **trial.parameters)
        if code is None:
            return (
                f'RSE {storage.rse}: vended keys could obtain more permissions: the storage does not refuse '
                f'{trial.what}. {_REMEDY}'
            )
        if code not in trial.refusals:
            return (
                f'RSE {storage.rse}: it is unknown whether vended keys could obtain more permissions: '
                f"{endpoint.sts_url} answers '{code}' to {trial.what}, not AccessDenied. {_REMEDY}"
            )
    return topics.find_exposure(storage, own) or part_copies.find_exposure(storage)


def _trials(client: Any, roles: list[str]) -> Iterator[_Trial]:
    """Yield the calls, without a policy and with the shortest lifetime.

    Above one hour, AWS answers ValidationError, which is not a refusal.
    """
    seconds, named = {'DurationSeconds': vending.MIN_LIFETIME}, {'RoleSessionName': _SESSION_NAME}
    for role in roles:
        # A role of another RSE that does not exist cannot be assumed.
        refusals = _REFUSED if role == roles[0] else _REFUSED | {'NoSuchEntity'}
        yield _Trial(
            f"AssumeRole of '{role}' without a session policy",
            client.assume_role,
            {'RoleArn': role, **named, **seconds},
            refusals,
        )
    for role in roles:
        token = {'RoleArn': role, 'WebIdentityToken': _OWN_TOKEN, **named, **seconds}
        refusals = _REFUSED | _UNKNOWN | _NOT_THE_TOKEN | {'NoSuchEntity'}
        yield _Trial(
            f"AssumeRoleWithWebIdentity of '{role}' with a token that nobody signed",
            client.assume_role_with_web_identity,
            token,
            refusals,
        )
    yield _Trial(
        'GetFederationToken', client.get_federation_token, {'Name': _SESSION_NAME, **seconds}, _REFUSED | _UNKNOWN
    )
    yield _Trial('GetSessionToken', client.get_session_token, seconds, _REFUSED | _UNKNOWN)
