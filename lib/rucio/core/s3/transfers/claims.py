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
"""Claims of transfers by instances of the copier, stored in the requests.

A claim is stored as the host that carries out the transfer, as ``last_processed_by`` is overwritten by each of Rucio's
pollers. Each instance claims as many transfers as it can run, and a claim that is not renewed expires after
:data:`LEASE` seconds by the clock of the database. If two instances copy the same file nevertheless, no harm is done:
no object is ever overwritten, and the second one finds that the file exists. Transfers that an instance has no keys for
are left to others.
"""

import time
from datetime import timezone
from typing import TYPE_CHECKING, Any, Optional

from sqlalchemy import and_, func, not_, or_, select, text, update

from rucio.common.exception import (
    ConfigurationError,
    DatabaseException,
    RSEAccessDenied,
    RSENotFound,
    RucioException,
    ServiceUnavailable,
)
from rucio.common.s3 import breaker
from rucio.common.s3.answers import line_logger
from rucio.common.s3.content import Checksums
from rucio.core.rse import get_rse_name
from rucio.core.s3 import storages
from rucio.db.sqla import models
from rucio.db.sqla.constants import RequestState, RequestType
from rucio.transfertool.s3 import EXTERNAL_HOST, S3Transfertool

from .requests import Source, Transfer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy.orm import Session

    from rucio.core.s3.storages import Storage

__all__ = ['LEASE', 'NoKeys', 'claim_transfers', 'count_submitted', 'need_keys', 'release', 'renew']

_LOGGER = line_logger(__name__)

LEASE = 60  # seconds that a claim is valid
_DEFAULT_PRIORITY = 3  # the priority of requests without one
_KEYS_CACHE_SECONDS = 60  # seconds until keys are checked again
_WARN_INTERVAL = 600  # seconds between warnings about missing keys for an RSE, or its silent storage

# By RSE id, with the time of the monotonic clock: whether there are keys (None: not an S3 RSE), and the last warning.
_answers: dict[str, tuple[float, Optional[bool]]] = {}
_warned: dict[str, float] = {}
_urls: dict[str, str] = {}  # by RSE id, of those that are known


class NoKeys(RSEAccessDenied):
    """A machine has no usable keys for an RSE. Others may have them."""


def need_keys(storage: 'Storage') -> None:
    """Check that this machine has keys for an RSE. Makes no request.

    :raises NoKeys: if it has none.
    """
    try:
        storage.connection()
    except (RSEAccessDenied, ConfigurationError) as error:
        why = f' ({error.args[0]})' if isinstance(error, ConfigurationError) else ''
        raise NoKeys(
            f'RSE {storage.rse}: this machine has no usable keys for it{why}, so this copier leaves its transfers to '
            f'others. Add them to rse-accounts.cfg on this machine, under the RSE id {storage.rse_id}, or to its '
            f'rucio.cfg [s3:{storage.rse}].'
        ) from None


def _need_answers(storage: 'Storage') -> None:
    """Check that the storage of an RSE answers this process, as far as that is known. Makes no request.

    :raises ServiceUnavailable: if it is silent: each transfer would cost a time-out, and one of its few attempts.
    """
    if breaker.is_silent(storage.endpoint.url):
        raise ServiceUnavailable(
            f'RSE {storage.rse}: the storage at {storage.endpoint.url} does not answer. Its transfers wait until it '
            'does, and this copier carries out those of other RSEs.'
        )


class _KeyAvailability:
    """For which RSEs this machine has keys and gets answers, during one search for work.

    ``known`` has the answer by RSE id: True, False, or None if it is not an S3 RSE.
    """

    def __init__(self, session: 'Session') -> None:
        now = time.monotonic()
        self._session = session
        self.known = {
            rse_id: has
            for rse_id, (asked, has) in _answers.items()
            if now - asked < _KEYS_CACHE_SECONDS and not (has and breaker.is_silent(_urls.get(rse_id, '')))
        }

    def of(self, answer: Optional[bool]) -> list[str]:
        """Return the ids of the RSEs with this answer."""
        return [rse_id for rse_id, has in self.known.items() if has is answer]

    def are_enough_for(self, wanted: Transfer) -> bool:
        """Return whether this machine has the keys for a transfer.

        Also true for transfers between other RSEs: nobody can carry these out, so they have to fail here.
        """
        destination = self._has(wanted.dest_rse_id, wanted.scope.vo)
        sources = [self._has(each.rse_id, wanted.scope.vo) for each in wanted.sources]
        return destination is not False and (True in sources or False not in sources)

    def _has(self, rse_id: str, vo: str) -> Optional[bool]:
        if rse_id not in self.known:
            self.known[rse_id] = self._ask(rse_id, vo)
            _answers[rse_id] = time.monotonic(), self.known[rse_id]
        return self.known[rse_id]

    def _ask(self, rse_id: str, vo: str) -> Optional[bool]:
        try:
            storage = storages.get_storage(get_rse_name(rse_id, session=self._session), vo, session=self._session)
            _urls[rse_id] = storage.endpoint.url
            need_keys(storage)
            _need_answers(storage)
        except DatabaseException:
            raise
        except (NoKeys, ServiceUnavailable) as error:
            now = time.monotonic()
            if now - _warned.get(rse_id, -_WARN_INTERVAL) >= _WARN_INTERVAL:
                _warned[rse_id] = now
                _LOGGER.warning('%s', error.args[0])
            return False
        except RucioException:  # reported for the transfer
            return None
        return True


def claim_transfers(
    instance: str, limit: int, without: 'Collection[str]' = (), *, session: 'Session'
) -> list[Transfer]:
    """Claim unclaimed transfers: those of the highest priority first, then the oldest.

    Transfers for whose destination, or all of whose sources, this machine has no keys are skipped: a failure would cost
    one of their few attempts, and another machine may have the keys. So are those of storages that do not answer, for
    a minute at a time. A warning is logged for each RSE every ten minutes.

    Two queries, and for each transfer one update, one query, and those for RSE names that are not in Rucio's cache. At
    most one more query per minute for each RSE, when its keys are checked.

    :param instance: The unique name of the instance, without slashes.
    :param limit: The maximum number of transfers.
    :param without: Ids of requests to skip.
    :returns: The claimed transfers. The claims are valid for :data:`LEASE` seconds.
    """
    now, keys = _clock(session), _KeyAvailability(session)
    taken: list[Transfer] = []
    while True:
        known = len(keys.known)
        for row in _waiting(now, keys, 2 * limit + len(without), session):  # other instances may claim some first
            if row.id not in without and len(taken) < limit:
                found = _transfer(row, session)
                if keys.are_enough_for(found) and _claim(instance, row.id, now, session):
                    taken.append(found)
        if len(keys.known) == known:
            return taken


def _waiting(now: int, keys: _KeyAvailability, limit: int, session: 'Session') -> 'Sequence[Any]':
    """Return unclaimed requests, in the order in which to claim them.

    Requests that are known to lack keys are left out: there may be so many that they would block the others.
    """
    request = models.Request
    stmt = select(request).where(*_submitted(), _is_free(now))
    if lacking := keys.of(False):
        stmt = stmt.where(not_(_waits_for_keys(lacking, keys.of(None))))
    return (
        session.execute(
            stmt.order_by(
                func.coalesce(request.priority, _DEFAULT_PRIORITY).desc(), request.submitted_at, request.id
            ).limit(limit)
        )
        .scalars()
        .all()
    )


def _waits_for_keys(lacking: list[str], others: list[str]) -> Any:
    """Return the SQL condition for requests that :meth:`_KeyAvailability.are_enough_for` rejects."""
    request, source = models.Request, models.Source
    sources = select(source.request_id).where(source.request_id == request.id, *_usable(request)).correlate(request)
    return or_(
        request.dest_rse_id.in_(lacking),
        and_(
            sources.where(source.rse_id.in_(lacking)).exists(),
            not_(sources.where(source.rse_id.not_in(lacking + others)).exists()),
        ),
        and_(request.source_rse_id.in_(lacking), not_(sources.exists())),
    )


def count_submitted(*, session: 'Session') -> int:
    """Count the transfers that only a copier will carry out. One query."""
    return session.execute(select(func.count()).select_from(models.Request).where(*_submitted())).scalar_one()


def _submitted() -> list[Any]:
    request = models.Request
    return [
        request.state == RequestState.SUBMITTED,
        request.request_type == RequestType.TRANSFER,
        request.transfertool == S3Transfertool.external_name,
        request.external_id.is_not(None),
    ]


def _clock(session: 'Session') -> int:
    """Return the POSIX time by the clock of the database: the clocks of the instances may differ. One query."""
    clocks: dict[str, Any] = {'mysql': func.utc_timestamp(), 'oracle': func.sys_extract_utc(text('SYSTIMESTAMP'))}
    now = session.execute(select(clocks.get(session.get_bind().dialect.name, func.current_timestamp()))).scalar_one()
    return int((now if now.tzinfo else now.replace(tzinfo=timezone.utc)).timestamp())


def _claim_of(instance: str, now: int) -> str:
    """Return the host in a claimed request. The time has a fixed length, so that the text sorts by time."""
    return f'{EXTERNAL_HOST}/{now:010d}/{instance}'


def _is_free(now: int) -> Any:
    host = models.Request.external_host
    return or_(host.is_(None), host < _claim_of('', now - LEASE))  # EXTERNAL_HOST alone sorts before all claims


def _claim(instance: str, request_id: str, now: int, session: 'Session') -> bool:
    request = models.Request
    stmt = (
        update(request)
        .where(request.id == request_id, *_submitted(), _is_free(now))
        .values(external_host=_claim_of(instance, now))
    )
    result: Any = session.execute(stmt.execution_options(synchronize_session=False))
    return bool(result.rowcount)


def _usable(request: Any) -> list[Any]:
    """Return the SQL conditions for usable sources of a request.

    On a multihop path, the last request has the sources of all hops.
    """
    source, distance = models.Source, models.Distance
    linked = (
        select(distance.src_rse_id)
        .where(distance.dest_rse_id == request.dest_rse_id, distance.distance.is_not(None))
        .correlate(models.Request)
    )
    return [
        source.is_using,
        source.rse_id != request.dest_rse_id,
        or_(source.rse_id == request.source_rse_id, source.rse_id.in_(linked)),
    ]


def _transfer(row: Any, session: 'Session') -> Transfer:
    source = models.Source
    stmt = select(source.rse_id, source.url, source.ranking).where(source.request_id == row.id, *_usable(row))
    found = [
        (each.rse_id != row.source_rse_id, -(each.ranking or 0), each.rse_id, each.url or '')
        for each in session.execute(stmt)
    ]
    ends = [(rse_id, url) for _, _, rse_id, url in sorted(found)] or [(row.source_rse_id, '')]
    sources = tuple(Source(rse_id, url, _name_of(rse_id, session)) for rse_id, url in ends)
    checksums, dest_rse = Checksums(row.md5 or None, row.adler32 or None), _name_of(row.dest_rse_id, session)
    return Transfer(
        row.id,
        row.external_id,
        row.scope,
        row.name,
        row.bytes or 0,
        checksums,
        row.dest_rse_id,
        row.dest_url or '',
        sources,
        dest_rse,
    )


def _name_of(rse_id: str, session: 'Session') -> str:
    try:
        return str(get_rse_name(rse_id, session=session))
    except RSENotFound:
        return rse_id


def renew(instance: str, transfers: 'Iterable[Transfer]', *, session: 'Session') -> set[str]:
    """Renew claims, and find out which transfers this instance still holds.

    The others were cancelled, or another instance took them over because their claims had expired. One update and two
    queries.

    :param instance: The name of the instance.
    :param transfers: The transfers that the instance is working on.
    :returns: The ids of the requests to continue.
    """
    request = models.Request
    external_ids = {each.id: each.external_id for each in transfers}
    mine = and_(request.id.in_(external_ids), *_submitted(), _is_of(instance))
    stmt = update(request).where(mine).values(external_host=_claim_of(instance, _clock(session)))
    session.execute(stmt.execution_options(synchronize_session=False))
    rows = session.execute(select(request.id, request.external_id).where(mine))
    return {row.id for row in rows if external_ids[row.id] == row.external_id}


def _is_of(instance: str) -> Any:
    return models.Request.external_host.endswith(f'/{instance}', autoescape=True)


def release(instance: str, *, session: 'Session') -> None:
    """Release all claims of an instance. One update.

    :param instance: The name of the instance.
    """
    stmt = update(models.Request).where(*_submitted(), _is_of(instance)).values(external_host=EXTERNAL_HOST)
    session.execute(stmt.execution_options(synchronize_session=False))
