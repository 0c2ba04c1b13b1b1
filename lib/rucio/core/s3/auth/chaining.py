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

"""Whether vended keys stay what they are for: the server tries to make more of them, before it vends any.

A session policy limits what keys can do, but on some storages not whom they can become: there, keys for one folder may
take the role again without a policy, if its trust policy lets them. So the server asks for keys as it vends them, and
tries with these what a thief would. Only where all of it is refused are keys vended; else the server signs requests
(``remote``), and says what its operator has to change.

The verdict is kept for all workers of all servers (:mod:`rucio.core.s3.configs`), and ends by itself.

Calls of IAM are not tried: session policies hold for them on AWS, Ceph and SeaweedFS. What they do not hold for is
AssumeRole, which the trust policy of a role decides, and MinIO's AddServiceAccount before a release that the operator
has to name.
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
from rucio.common.s3.endpoint import SERVER
from rucio.core.s3 import configs, storages, topics
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

from . import vending

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from rucio.common.s3.endpoint import Endpoint
    from rucio.core.s3.storages import Storage

__all__ = ['SAFE_SECONDS', 'UNSAFE_SECONDS', 'Verdict', 'last_verdict', 'verdict']

_LOGGER = line_logger(__name__)

SAFE_SECONDS = 6 * 3600  # seconds for which a trial in which all was refused counts
UNSAFE_SECONDS = 300  # ... any other: an operator's change is noticed soon
ROLES_SECONDS = 300  # seconds after which the roles of other RSEs are looked for anew
# GHSA-jjjj-jwhf-8rgr: before it, keys with a session policy could make a service account without one.
MINIO_RELEASE = 'RELEASE.2025-10-15T17-29-55Z'

_REFUSED = frozenset(('AccessDenied',))
# There is no such call: MinIO, AWS, Ceph, others.
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
_REMEDY = 'Give the roles the policies that docs/operators.md has for this storage (Roles for vending).'


@dataclass(frozen=True)
class Verdict:
    """What came of the last trial.

    :param safe: Whether all was refused: then keys may be vended.
    :param reason: What was not refused, and what the operator has to change; empty where nothing has to be.
    :param at: When it was, in POSIX seconds.
    """

    safe: bool
    reason: str
    at: float

    @property
    def fresh(self) -> bool:
        age = time.time() - self.at
        return (
            -60 <= age < (SAFE_SECONDS if self.safe else UNSAFE_SECONDS)
        )  # the clocks of two servers may differ a little

    def as_dict(self) -> dict[str, Any]:
        return {
            'refused': self.safe,
            'reason': self.reason,
            'tried_at': datetime.fromtimestamp(self.at, timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ'),
        }


class _Trial(NamedTuple):
    """A call that must be refused, and the codes that are a refusal."""

    what: str
    call: Any
    parameters: dict[str, Any]
    refusals: frozenset[str]


class _CachedVerdict:
    """What this process knows of a storage. Who holds the lock finds out; the others wait for him."""

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
    """Whether keys may be vended by this storage's role. Not to be called while a transaction is open.

    Nothing for some seconds after it was asked last; one small query while the last trial of any server counts; else
    five requests to the STS, and two for each further role that this server has at the same STS, and on storages that
    make topics those of :func:`.topics.find_exposure`. Threads of one process cause one trial.

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
    """What came of the last trial, without another one: one small query at most. None if there was none that counts.

    :param storage: An RSE with a role, and keys of the server.
    """
    slot, mark = _slot(storage), _mark(storage, session)
    found = slot.get(mark) or _read(storage, mark, session)
    return found if found and found.fresh else None


def _slot(storage: 'Storage') -> _CachedVerdict:
    return _slots.setdefault((os.getpid(), storage.rse_id), _CachedVerdict())


# What the table of settings keeps


def _mark(storage: 'Storage', session: 'Optional[Session]' = None) -> str:
    """What a verdict holds for. With another role, STS or key of the server, or another role beside it, there has to be
    another one.
    """
    keys = storage.credentials()
    own = '' if keys.token else str(keys.access_key)  # keys that end are others in each process
    endpoint = storage.endpoint
    topic = [endpoint.url, topics.endpoint_url(storage)] if endpoint.event_topics else []
    parts = [
        *topic,
        endpoint.sts_url,
        endpoint.minio_release or '',
        storage.connection(SERVER).authorizer.identity,
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


# Trying


def _known_roles(storage: 'Storage', session: 'Optional[Session]' = None) -> list[str]:
    """The storage's own role first, then those that any RSE of any VO has at the same STS. A few queries in
    five minutes.
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
    # AWS has an STS in each region, all with the same roles.
    return one.sts_url == other.sts_url or one.provider == other.provider == 'aws'


def _run_trials(storage: 'Storage') -> Verdict:
    reason = _minio_problem(storage) if storage.endpoint.provider == 'minio' else ''
    if not reason:
        try:
            reason = _find_escalation(storage)
        except RucioException as error:
            reason = str(error.args[0] if error.args else error)
    if reason:
        _LOGGER.warning('S3: no keys are vended. %s', reason)
    return Verdict(not reason, reason, time.time())


def _minio_problem(storage: 'Storage') -> str:
    release = storage.endpoint.minio_release
    if release and release >= MINIO_RELEASE:
        return ''
    return (
        f'RSE {storage.rse}: with MinIO before {MINIO_RELEASE}, vended keys can make themselves keys for everything '
        '(CVE-2025-62506), and MinIO does not say which release it is. Once it is that or a later one, set '
        f"'minio_release' in rucio.cfg [s3:{storage.rse}] to its name."
    )


def _find_escalation(storage: 'Storage') -> str:
    """What the storage does not refuse, and what to do about it; or nothing.

    :raises RucioException: if there are no keys to try with.
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
    for trial in _trials(sts.client(endpoint, own, storage.region, SERVER), roles):
        code = sts.refusal(trial.call, **trial.parameters)
        if code is None:
            return (
                f'RSE {storage.rse}: keys that this server would vend can become more than they are for: {trial.what} '
                f'is not refused to them. {_REMEDY}'
            )
        if code not in trial.refusals:
            return (
                f'RSE {storage.rse}: nobody knows whether keys that this server would vend can become more than they '
                f"are for: {endpoint.sts_url} answers '{code}' to {trial.what}, not AccessDenied. {_REMEDY}"
            )
    return topics.find_exposure(storage, own)


def _trials(client: Any, roles: list[str]) -> Iterator[_Trial]:
    """No policy, and the shortest time: for more than an hour AWS answers ValidationError, which is no refusal."""
    seconds, named = {'DurationSeconds': vending.MIN_LIFETIME}, {'RoleSessionName': _SESSION_NAME}
    for role in roles:
        # A role that another RSE names, and that is not there, nobody can take.
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
