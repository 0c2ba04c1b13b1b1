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

"""Transfers between S3 RSEs that were submitted with the transfertool ``s3``: which there are, carrying one out, saying
what became of it.

Instances share the work by claims, which stand in the requests (as the host that carries out the transfer: what Rucio's
daemons note in ``last_processed_by`` is overwritten by each poller): each takes what it has room for, and what is not
renewed is free again after
:data:`LEASE` seconds by the clock of the database. Two that copy the same file nevertheless do no harm: no object is
ever overwritten, and whoever comes second finds that the file is there. What an instance has no keys for it leaves to
others, which may have them.
"""

import logging
import threading
import time
from collections import deque
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from botocore.exceptions import BotoCoreError, ClientError
from sqlalchemy import and_, func, not_, or_, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from rucio.common.exception import (
    ConfigurationError,
    DatabaseException,
    DestinationNotAccessible,
    FileConsistencyMismatch,
    FileReplicaAlreadyExists,
    ResourceTemporaryUnavailable,
    RSEAccessDenied,
    RSENotFound,
    RSEOperationNotSupported,
    RucioException,
    ServiceUnavailable,
    SourceNotFound,
)
from rucio.common.s3 import address, objects, transfer
from rucio.common.s3.answers import line_logger
from rucio.common.s3.content import Sums, Verified, sums_of
from rucio.common.s3.errors import Target, status_of
from rucio.core.request import get_transfer_error
from rucio.core.rse import get_rse_name
from rucio.core.s3 import storages
from rucio.core.s3.buckets import creation, lookup
from rucio.core.transfer import update_transfer_state
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, RequestState, RequestType
from rucio.db.sqla.session import db_session
from rucio.transfertool.s3 import EXTERNAL_HOST, S3Transfertool
from rucio.transfertool.transfertool import TransferStatusReport

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy.orm import Session

    from rucio.common.s3.clients import Connection
    from rucio.common.s3.objects import ObjectInfo
    from rucio.common.types import InternalScope, LoggerFunction
    from rucio.core.request import TransferStatsManager
    from rucio.core.s3.storages import Storage

__all__ = [
    'LEASE',
    'MEMORY',
    'Outcome',
    'Source',
    'Transfer',
    'carry_out',
    'left_over',
    'release',
    'renew',
    'report',
    'take',
    'tidy',
]

_LOGGER = line_logger(__name__)

LEASE = 60  # seconds that a claim holds
MEMORY = 128 * 1024**2  # bytes that one relay may hold
_MIDDLE = 3  # the priority of requests that have none
_LONGEST = 3900  # characters of an error message in the requests table
_REMEMBER = 60  # seconds until keys are looked for again
_REMIND = 600  # seconds between warnings that there are no keys for an RSE

_made: set[tuple[str, str]] = set()  # RSE ids and buckets: what this process need not make again
# By RSE id, with the time by the monotonic clock: whether there are keys (None: no S3 RSE), and who was told that there
# are none.
_answers: dict[str, tuple[float, Optional[bool]]] = {}
_warned: dict[str, float] = {}


class Source(NamedTuple):
    """Where a file is to be had. ``url`` is the PFN that the submitter made."""

    rse_id: str
    url: str
    rse: str = ''


class Transfer(NamedTuple):
    """A submitted request: one file that shall be copied to one RSE. ``sources`` are in the order in which they shall
    be tried.
    """

    id: str
    external_id: str
    scope: 'InternalScope'
    name: str
    bytes: int
    sums: Sums
    dest_rse_id: str
    dest_url: str
    sources: tuple[Source, ...]
    dest_rse: str = ''

    def __str__(self) -> str:
        return f'{self.scope}:{self.name} (request {self.id})'


class Outcome(NamedTuple):
    """What became of a transfer: ``error`` is empty if the file is there. Times are UTC, without a time zone, as in
    Rucio's tables.
    """

    started: datetime
    ended: datetime
    source: Source
    error: str = ''
    how: str = ''  # copied, relayed or found

    @property
    def state(self) -> RequestState:
        return RequestState.FAILED if self.error else RequestState.DONE


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


# Which there are


def take(instance: str, limit: int, without: 'Collection[str]' = (), *, session: 'Session') -> list[Transfer]:
    """Claim transfers that nobody works on: those of the highest priority first, then those that wait longest.

    Not those whose destination, or all of whose sources, this machine has no keys for: to fail here would cost a
    transfer one of its few tries, and another machine may have them. The log says so, for each RSE every ten minutes.

    Two queries, and for each transfer one update, one query, and those for the names of RSEs that are not in Rucio's
    cache. Once a minute at most one query more for each RSE without keys.

    :param instance: The name of the instance, which no other one has; without a slash.
    :param limit: How many at most.
    :param without: Ids of requests that are not wanted now.
    """
    now, keys = _clock(session), _Keys(session)
    taken: list[Transfer] = []
    while True:
        known = len(keys.known)
        for row in _waiting(now, keys, 2 * limit + len(without), session):  # others may be faster
            if row.id not in without and len(taken) < limit:
                found = _transfer(row, session)
                if keys.are_enough_for(found) and _claim(instance, row.id, now, session):
                    taken.append(found)
        if len(taken) == limit or len(keys.known) == known:
            return taken


class _Keys:
    """Which RSEs this machine has keys for: True, False, or None for what is no S3 RSE, by id. For one look for
    work.
    """

    def __init__(self, session: 'Session') -> None:
        now = time.monotonic()
        self._session = session
        self.known = {rse_id: has for rse_id, (asked, has) in _answers.items() if now - asked < _REMEMBER}

    def of(self, answer: Optional[bool]) -> list[str]:
        """:returns: The RSEs of which that is known."""
        return [rse_id for rse_id, has in self.known.items() if has is answer]

    def are_enough_for(self, wanted: Transfer) -> bool:
        """Whether it can be carried out; or nobody can, as no end of it is on S3: then it shall fail."""
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
            _need_keys(storages.get_storage(get_rse_name(rse_id, session=self._session), vo, session=self._session))
        except DatabaseException:
            raise
        except _NoKeys as error:
            now = time.monotonic()
            if now - _warned.get(rse_id, -_REMIND) >= _REMIND:
                _warned[rse_id] = now
                _LOGGER.warning('%s', error.args[0])
            return False
        except RucioException:  # to be said of the transfer
            return None
        return True


class _NoKeys(RSEAccessDenied):
    """This machine has none, or none that are fit for use. Others may have them."""


def _need_keys(storage: 'Storage') -> None:
    """Makes no request."""
    try:
        storage.connection()
    except (RSEAccessDenied, ConfigurationError) as error:
        why = f' ({error.args[0]})' if isinstance(error, ConfigurationError) else ''
        raise _NoKeys(
            f'RSE {storage.rse}: this machine has no keys for it that can be used{why}, so this copier leaves its transfers to others. '
            f"Put them into this machine's rse-accounts.cfg, by the RSE id {storage.rse_id}, or into its rucio.cfg [s3:{storage.rse}]."
        ) from None


def _waiting(now: int, keys: _Keys, limit: int, session: 'Session') -> 'Sequence[Any]':
    """Requests that nobody works on, without those that are known to wait for keys: these may be many, and shall not be
    in the way of others.
    """
    request = models.Request
    stmt = select(request).where(*_submitted(), _is_free(now))
    if lacking := keys.of(False):
        stmt = stmt.where(not_(_waits_for_keys(lacking, keys.of(None))))
    return (
        session.execute(
            stmt.order_by(func.coalesce(request.priority, _MIDDLE).desc(), request.submitted_at, request.id).limit(
                limit
            )
        )
        .scalars()
        .all()
    )


def _waits_for_keys(lacking: list[str], others: list[str]) -> Any:
    """What :meth:`_Keys.are_enough_for` says, for the database."""
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


def _submitted() -> list[Any]:
    request = models.Request
    return [
        request.state == RequestState.SUBMITTED,
        request.request_type == RequestType.TRANSFER,
        request.transfertool == S3Transfertool.external_name,
        request.external_id.is_not(None),
    ]


def _clock(session: 'Session') -> int:
    """Seconds since 1970 as the database counts them: the clocks of the instances' machines may differ. One query."""
    clocks: dict[str, Any] = {'mysql': func.utc_timestamp(), 'oracle': func.sys_extract_utc(text('SYSTIMESTAMP'))}
    now = session.execute(select(clocks.get(session.get_bind().dialect.name, func.current_timestamp()))).scalar_one()
    return int((now if now.tzinfo else now.replace(tzinfo=timezone.utc)).timestamp())


def _claim_of(instance: str, now: int) -> str:
    """What stands in a claimed request as its host. Of the same length up to the instance, so that the order of text is
    that of time.
    """
    return f'{EXTERNAL_HOST}/{now:010d}/{instance}'


def _is_free(now: int) -> Any:
    host = models.Request.external_host
    return or_(host.is_(None), host == EXTERNAL_HOST, host < _claim_of('', now - LEASE))


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
    """Which of the sources of a request can be used. Of a path over other RSEs, the last request has the sources of all
    hops.
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
    sums, dest_rse = Sums(row.md5 or None, row.adler32 or None), _name_of(row.dest_rse_id, session)
    return Transfer(
        row.id,
        row.external_id,
        row.scope,
        row.name,
        row.bytes or 0,
        sums,
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
    """Keep the claims, and see which transfers are still to be carried out here: others were cancelled, or another
    instance has them, as this one was away for too long. An update and two queries.

    :returns: The ids of the requests that are to be gone on with.
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
    """Give up all claims of an instance: one update."""
    stmt = update(models.Request).where(*_submitted(), _is_of(instance)).values(external_host=EXTERNAL_HOST)
    session.execute(stmt.execution_options(synchronize_session=False))


# Carrying one out


def carry_out(wanted: Transfer, stop: threading.Event) -> Optional[Outcome]:
    """Copy a file, unless it is there already.

    Inside the storage, in parts if it is large, where one endpoint and one identity hold both buckets; else its bytes
    come through here once, and are compared with the catalogue's checksums before the object appears. An object that is
    there already is never overwritten: if it is the file, all is well, and if it is another one, the transfer has
    failed.

    Requests: a HEAD of the destination, those of :func:`rucio.core.s3.buckets.creation.make` for the first file of a bucket, and
    four for a copy; or a HEAD and a GET of the source and those of the upload. Memory: :data:`MEMORY` for a relay,
    nothing for a copy.

    :param stop: Set it to end the transfer soon.
    :returns: None if it was stopped, or the catalogue could not be asked, or the keys are gone: it is to be tried
        again. Whatever else goes wrong is an outcome, too.
    """
    started = _now()
    try:
        source, how = _Copy(wanted, stop).run()
        return Outcome(started, _now(), source, how=how)
    except (DatabaseException, SQLAlchemyError) as error:
        _LOGGER.warning('%s: not begun, as the database does not answer: %s', wanted, error)
        return None
    except _NoKeys as error:  # the next who claims it may have them; that is not at once, as the claim still holds
        _LOGGER.warning('%s: not begun. %s', wanted, error.args[0])
        return None
    except Exception as error:  # a transfer that is not finished would be tried again for ever
        if stop.is_set():
            return None
        text = str(
            error.args[0] if isinstance(error, RucioException) and error.args else f'{type(error).__name__}: {error}'
        )
        if not isinstance(error, RucioException):
            _LOGGER.exception('%s', wanted)
        return Outcome(started, _now(), wanted.sources[0], error=text[:_LONGEST])


class _Place(NamedTuple):
    """An object, or where one shall be."""

    storage: 'Storage'
    target: Target

    @property
    def connection(self) -> 'Connection':
        return self.storage.connection()


class _Copy:
    """One file on its way."""

    def __init__(self, wanted: Transfer, stop: threading.Event) -> None:
        self._wanted = wanted
        self._stop = stop

    def run(self) -> tuple[Source, str]:
        """:returns: Where the file came from, and how."""
        wanted = self._wanted
        with db_session(DatabaseOperationType.READ) as session:
            destination = self._place(wanted.dest_rse_id, wanted.dest_url, session)
            sources = self._sources(session)
        _need_two_places(sources, destination)
        sources.sort(key=lambda each: not _together(each[1], destination))  # what the storage can do alone comes first
        if self._is_there(destination, [place for _, place in sources]):
            return wanted.sources[0], 'found'
        self._make_bucket(destination)
        failure: Optional[RucioException] = None
        for source, place in sources:
            try:
                return source, self._copy(place, destination)
            except RucioException as error:
                _made.discard((destination.storage.rse_id, destination.target.bucket))  # it may be gone
                if self._stop.is_set():
                    raise
                # The answer may have been lost, or another instance was faster. If the destination does not answer, no
                # other source helps.
                if self._is_there(destination, [place], error):
                    return source, 'found'
                failure = failure or _explained(error, destination)
        raise failure or SourceNotFound(f'There is no source for {wanted}.')

    def _sources(self, session: 'Session') -> list[tuple[Source, _Place]]:
        """:returns: Those that are on S3 storages for which there are keys.

        :raises RucioException: what is wrong with one, if there are none.
        """
        found, failure = [], None
        for source in self._wanted.sources:
            try:
                found.append((source, self._place(source.rse_id, source.url, session)))
            except RucioException as error:
                failure = error if failure is None or isinstance(error, _NoKeys) else failure
        if failure and not found:
            raise failure
        return found

    def _place(self, rse_id: str, url: str, session: 'Session') -> _Place:
        """By the name where the RSE has a place for each: what stock Rucio makes of URLs with `sign_url` set may be no
        URL of the object any more.
        """
        wanted = self._wanted
        storage = storages.get_storage(get_rse_name(rse_id, session=session), wanted.scope.vo, session=session)
        _need_keys(storage)
        if storage.settings['deterministic']:
            bucket, key = storage.place_of(str(wanted.scope), wanted.name)
        else:
            _, bucket, key, _ = address.parse_url(url)
        return _Place(storage, Target(storage.rse, bucket, key))

    def _make_bucket(self, destination: _Place) -> None:
        storage, scope = destination.storage, str(self._wanted.scope)
        key = storage.rse_id, destination.target.bucket
        for_each_scope = (
            storage.settings['deterministic']
            and storage.settings['lfn2pfn_algorithm'] == 's3_bucket'
            and not storage.common_bucket
        )
        if for_each_scope and key not in _made:  # all others are the operator's to make
            creation.make(storage, scope)
            _made.add(key)

    def _is_there(
        self, destination: _Place, sources: 'Sequence[_Place]', reason: Optional[RucioException] = None
    ) -> bool:
        """Whether the destination has the file: one HEAD, and where its ETag is no MD5 the object is read.

        :param reason: What is raised if the storage does not say.
        :raises FileReplicaAlreadyExists: if there is another object in its place.
        """
        try:
            info = objects.stat(destination.connection, destination.target)
        except SourceNotFound:
            return False
        except RucioException:
            if reason is not None:
                raise reason from None
            raise
        if info.size == self._wanted.bytes and self._has_content(destination, info, sources):
            return True
        raise FileReplicaAlreadyExists(
            f'RSE {destination.target.rse}: {destination.target}: there is an object of {info.size} bytes already, and it is not the file '
            f"({self._wanted.bytes} bytes). Move it away (or remove it), and do not delete the rule before: Rucio's reaper then deletes what lies there."
        )

    def _has_content(self, place: _Place, info: 'ObjectInfo', sources: 'Sequence[_Place]') -> bool:
        expected = self._wanted.sums
        if not any(expected) and info.size:  # the catalogue does not know: what the source has is right
            source = sources[0]
            expected = sums_of(
                source.connection, source.target, objects.stat(source.connection, source.target), self._stop
            )
        if not info.size or Sums(info.md5).compare(expected):
            return True
        return expected.agrees(sums_of(place.connection, place.target, info, self._stop))

    def _copy(self, source: _Place, destination: _Place) -> str:
        wanted = self._wanted
        info = objects.stat(source.connection, source.target, 'get')
        if info.size != wanted.bytes:
            raise FileConsistencyMismatch(
                f'RSE {source.target.rse}: get of {source.target}: it has {info.size} bytes, but the catalogue says {wanted.bytes}. '
                'The object was changed: use another replica, or declare it bad.'
            )
        if _together(source, destination) and self._is_copied(source, info, destination):
            return 'copied'
        stream = Verified(source.connection, source.target, info, wanted.sums, self._stop)
        try:
            transfer.upload_stream(
                destination.connection,
                stream,
                info.size,
                destination.target,
                MEMORY,
                self._stop,
                self._left_over(destination),
            )
        finally:
            stream.close()
        return 'relayed'

    def _is_copied(self, source: _Place, info: 'ObjectInfo', destination: _Place) -> bool:
        """Have the storage copy the object.

        :returns: False if it does not know how.
        """
        self._need_md5(source, info)
        try:
            transfer.copy(
                destination.connection,
                source.target,
                destination.target,
                stop=self._stop,
                info=info,
                left_over=self._left_over(destination),
            )
            return objects.stat(destination.connection, destination.target).size == info.size
        except RSEOperationNotSupported as error:
            _LOGGER.info('%s: %s It goes through this machine.', self._wanted, error.args[0])
        except SourceNotFound:  # all it did was to answer
            objects.stat(source.connection, source.target, 'get')
        return False

    @staticmethod
    def _left_over(destination: _Place) -> transfer.LeftOver:
        return lambda bucket, key, upload: _left.append(_Left(destination.connection, bucket, key, upload))

    def _need_md5(self, source: _Place, info: 'ObjectInfo') -> None:
        """What stays inside a storage is not read: its ETag has to do, where that is an MD5."""
        md5 = self._wanted.sums.md5
        if info.size and not Sums(info.md5).agrees(Sums(md5)) and source.storage.endpoint.etag_is_md5:
            raise FileConsistencyMismatch(
                f'RSE {source.target.rse}: copy of {source.target}: its MD5 is {info.md5}, but the catalogue says {md5}. '
                'The object was changed: use another replica, or declare it bad.'
            )


def _need_two_places(sources: 'Iterable[tuple[Source, _Place]]', destination: _Place) -> None:
    """Otherwise one object would be taken for two replicas, and the deletion of one would be the end of both."""
    here, target = destination.storage.endpoint.url, destination.target
    for _, place in sources:
        if (place.storage.endpoint.url, place.target.bucket, place.target.key) == (here, target.bucket, target.key):
            raise ConfigurationError(
                f'RSE {target.rse} and RSE {place.target.rse} have the same place for it, {target}: it cannot have a replica on each of them. '
                f'Switch off deletion before any rule ends (rucio rse update {target.rse} --key availability_delete --value False), or the reaper of '
                f'RSE {target.rse} deletes the only one; then give it another bucket_prefix, or another prefix of its protocol.'
            )


def _explained(error: RucioException, destination: _Place) -> RucioException:
    """What a transfer failed for. Where it shall copy into a bucket that is missing, SeaweedFS only says InternalError:
    one HEAD of the bucket tells.
    """
    if not isinstance(error, (ServiceUnavailable, ResourceTemporaryUnavailable)):
        return error
    target = destination.target
    try:
        if lookup.exists(destination.storage, target.bucket):
            return error
    except RucioException:
        return error
    return DestinationNotAccessible(
        f"RSE {target.rse}: copy of {target}: the bucket does not exist. The RSE's operator has to make it, or to mend the prefix of its protocol."
    )


def _together(source: _Place, destination: _Place) -> bool:
    """Whether the destination's keys can read the source at the same endpoint."""
    here, there = source.storage, destination.storage
    return (
        here.endpoint.url == there.endpoint.url
        and _access_key(here) is not None
        and _access_key(here) == _access_key(there)
    )


def _access_key(storage: 'Storage') -> Optional[str]:
    try:
        return str(storage.credentials().access_key)
    except RSEAccessDenied:  # anybody may read there
        return None


# Multipart uploads that could not be aborted


class _Left(NamedTuple):
    connection: 'Connection'
    bucket: str
    key: str
    upload: str


_left: deque[_Left] = deque(maxlen=10_000)


def left_over() -> int:
    """How many multipart uploads of this process could not be aborted, as the storage was away or busy. Their parts
    take space.
    """
    return len(_left)


def tidy() -> None:
    """Abort them, one request each: those that cannot be aborted now either stay for the next time. Where the storage
    is away this takes its time.
    """
    for _ in range(len(_left)):
        each = _left.popleft()
        try:
            each.connection.client.abort_multipart_upload(Bucket=each.bucket, Key=each.key, UploadId=each.upload)
        except (ClientError, BotoCoreError) as error:
            if status_of(error) != 404:
                _left.append(each)


# Saying what became of it


class _Report(TransferStatusReport):
    """An outcome, as Rucio's own transfertools tell one."""

    supported_db_fields = ['state', 'external_id', 'started_at', 'transferred_at', 'source_rse_id', 'err_msg']  # noqa: RUF012 - as in Rucio

    def __init__(self, instance: str, transfer: Transfer, outcome: Outcome) -> None:
        super().__init__(transfer.id)
        self._instance = instance
        self._transfer = transfer
        self._outcome = outcome
        self.external_id: Optional[str] = None
        self.started_at: Optional[datetime] = None
        self.transferred_at: Optional[datetime] = None
        self.source_rse_id: Optional[str] = None
        self.err_msg: Optional[str] = None

    def __str__(self) -> str:
        return f'Transfer {self._transfer.external_id} of {S3Transfertool.external_name}'

    def initialize(self, session: 'Session', logger: 'LoggerFunction' = logging.log) -> None:
        """Nothing is to be changed if the request was cancelled, or submitted anew, or if it failed here but another
        instance is at it.
        """
        request, outcome = self.request(session), self._outcome
        if (
            not request
            or request['state'] != RequestState.SUBMITTED
            or request['external_id'] != self._transfer.external_id
        ):
            return
        if outcome.error and not str(request['external_host']).endswith(f'/{self._instance}'):
            return
        self.state: Any = outcome.state
        self.external_id = self._transfer.external_id
        self.started_at, self.transferred_at = outcome.started, outcome.ended
        self.source_rse_id = outcome.source.rse_id
        self.err_msg = get_transfer_error(outcome.state, outcome.error)

    def get_monitor_msg_fields(self, session: 'Session', logger: 'LoggerFunction' = logging.log) -> dict[str, Any]:
        """What Rucio tells others of the transfer, beside what stands in the request."""
        self.ensure_initialized(session, logger)
        transfer, outcome = self._transfer, self._outcome
        return {
            'src-rse': get_rse_name(outcome.source.rse_id, session=session),
            'src-url': outcome.source.url or None,
            'dst-url': transfer.dest_url,
            'reason': outcome.error or None,
            'started_at': self.started_at,
            'transferred_at': self.transferred_at,
        }


def report(
    instance: str,
    transfer: Transfer,
    outcome: Outcome,
    stats: 'TransferStatsManager',
    *,
    logger: 'LoggerFunction' = logging.log,
) -> bool:
    """Write the outcome of a transfer where Rucio's finisher looks for it: a few queries, in a session of its own.

    :returns: False if that did not work (the log says why), and is to be tried again. A request that is gone needs no
        outcome.
    """
    written: Optional[int] = update_transfer_state(
        tt_status_report=_Report(instance, transfer, outcome), stats_manager=stats, logger=logger
    )
    return written is not None
