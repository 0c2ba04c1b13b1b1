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

"""The copier daemon: carries out the transfers between S3 RSEs that Rucio's submitter gave to the transfertool ``s3``.

One thread searches for work and monitors the copies; each copy runs in its own thread. Instances share the work by
claims in the database (:mod:`rucio.core.s3.transfers.claims`), so that the transfers of an instance that was killed are
delayed by at most a minute.
"""

import argparse
import logging
import re
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Optional
from uuid import uuid4

from sqlalchemy.exc import SQLAlchemyError

from rucio.common.exception import DatabaseException
from rucio.common.s3.answers import line_logger
from rucio.core.monitor import MetricManager
from rucio.core.request import TransferStatsManager
from rucio.core.s3.transfers import claims, copying, outcomes
from rucio.daemons.common import HeartbeatHandler
from rucio.db.sqla.constants import DatabaseOperationType, RequestState
from rucio.db.sqla.session import db_session

from . import starting

if TYPE_CHECKING:
    from rucio.core.s3.transfers.requests import Outcome, Transfer

__all__ = ['Copier', 'Options', 'get_parser', 'main', 'run']

graceful_stop = threading.Event()
METRICS = MetricManager(module='rucio.daemons.s3.copier')  # also where this is __main__
DAEMON_NAME = 's3-copier'
_LOGGER = line_logger(DAEMON_NAME)

WATCH_SECONDS = 3  # seconds between checks that transfers are still wanted
# Seconds until an outcome that could not be written, or an upload that could not be aborted, is tried again.
RETRY_SECONDS = 10
GRACE_SECONDS = 30  # seconds for the copies to end when the daemon is stopped
_TICK_SECONDS = 0.5  # seconds: a signal that comes just when Python begins to wait is seen only after the wait
_HEARTBEAT_SECONDS = 10  # seconds


@dataclass(frozen=True)
class Options:
    """The options of the command line. Times are in seconds."""

    once: bool = False
    sleep_time: float = 10
    copies: int = 4  # concurrent copies


class _Running(NamedTuple):
    """A running copy."""

    transfer: 'Transfer'
    stop: threading.Event
    future: 'Future[Optional[Outcome]]'


class _Ended(NamedTuple):
    """A transfer whose outcome has to be written, not before ``at`` of the monotonic clock."""

    transfer: 'Transfer'
    outcome: 'Outcome'
    at: float = 0


class Copier:
    """One instance: it claims as many transfers as it can run, and stops those that were cancelled."""

    def __init__(self, options: Options, stats: TransferStatsManager, heartbeat: HeartbeatHandler) -> None:
        self._options = options
        self._stats = stats
        self._heartbeat = heartbeat
        self._name = re.sub(r'[^A-Za-z0-9.-]', '-', socket.gethostname())[:64] + f'-{uuid4().hex[:16]}'
        self._running: list[_Running] = []
        self._ended: list[_Ended] = []
        self._away = -float('inf')  # until when the database is not queried
        self._changed = threading.Event()  # a copy has ended
        self._pool = ThreadPoolExecutor(options.copies, DAEMON_NAME)
        self._tidier = ThreadPoolExecutor(1, f'{DAEMON_NAME}-tidy')
        self._tidying: Optional[Future[None]] = None

    def run(self) -> None:
        """Run until the daemon is stopped; with ``once``, until there is nothing left to claim."""
        try:
            watched = looked = tidied = -float('inf')
            while not graceful_stop.is_set():
                self._guarded(self._heartbeat.live)
                self._changed.clear()
                ended = self._collect()
                self._write()
                now = time.monotonic()
                if (self._running or self._ended) and now - watched >= WATCH_SECONDS:
                    watched = now
                    self._guarded(self._watch)
                if now - tidied >= RETRY_SECONDS:
                    tidied = now
                    self._tidy()
                room = self._options.copies - len(self._running)
                if room and (ended or now - looked >= self._options.sleep_time):
                    looked = now
                    self._guarded(self._claim, room)
                if self._options.once and not self._running:
                    return
                (self._changed if self._running else graceful_stop).wait(_TICK_SECONDS)
        finally:
            self._end()

    @property
    def _transfers(self) -> list['Transfer']:
        """Return the transfers that this instance has claimed."""
        return [each.transfer for each in self._running] + [each.transfer for each in self._ended]

    def _guarded(self, act: Any, *arguments: Any) -> None:
        """Call a function that uses the database, and log an outage.

        An outage ends neither the daemon nor its copies. The next query is delayed by :data:`WATCH_SECONDS`.
        """
        if time.monotonic() < self._away:
            return
        try:
            act(*arguments)
        except (DatabaseException, SQLAlchemyError) as error:
            if self._options.once:
                raise
            self._away = time.monotonic() + WATCH_SECONDS
            self._logger(logging.ERROR, 'The database does not answer: %s', error)

    def _claim(self, room: int) -> None:
        busy = {each.id for each in self._transfers}
        with db_session(DatabaseOperationType.WRITE) as session:
            taken = claims.claim_transfers(self._name, room, busy, session=session)
        for transfer in taken:
            stop = threading.Event()
            future = self._pool.submit(copying.carry_out, transfer, stop)
            future.add_done_callback(lambda _: self._changed.set())
            self._running.append(_Running(transfer, stop, future))
            self._logger(logging.DEBUG, '%s: started', transfer)

    def _watch(self) -> None:
        with db_session(DatabaseOperationType.WRITE) as session:
            wanted = claims.renew(self._name, self._transfers, session=session)
        for each in self._running:
            if each.transfer.id not in wanted and not each.stop.is_set():
                self._logger(
                    logging.INFO,
                    '%s: cancelled, or claimed by another instance, so the copy is stopped',
                    each.transfer,
                )
                each.stop.set()

    def _collect(self) -> bool:
        """Collect the copies that have ended.

        :returns: Whether there were any.
        """
        done = [each for each in self._running if each.future.done()]
        for each in done:
            self._running.remove(each)
            outcome = each.future.result()
            if outcome is not None:
                self._log_outcome(each.transfer, outcome)
                self._ended.append(_Ended(each.transfer, outcome))
        return bool(done)

    def _log_outcome(self, transfer: 'Transfer', outcome: 'Outcome') -> None:
        seconds = (outcome.ended - outcome.started).total_seconds()
        way = f'{transfer} {outcome.source.rse} -> {transfer.dest_rse}'
        METRICS.counter('transfers.{outcome}', documentation='Transfers that were carried out').labels(
            outcome=outcome.how or 'failed'
        ).inc()
        METRICS.timer('transfer', buckets=starting.ROUND_SECONDS, documentation='Seconds that a transfer took').observe(
            seconds
        )
        if outcome.state == RequestState.DONE:
            METRICS.counter('bytes.{outcome}', documentation='Bytes of files').labels(outcome=outcome.how).inc(
                transfer.bytes
            )
            self._logger(logging.INFO, '%s: %s, %d bytes in %.1f s', way, outcome.how, transfer.bytes, seconds)
        else:
            self._logger(logging.WARNING, '%s: failed. %s', way, outcome.error)

    def _write(self) -> None:
        """Write the outcomes of ended transfers.

        Those that cannot be written are kept for later: their copies are done, and must not be repeated.
        """
        now = time.monotonic()
        for each in [each for each in self._ended if each.at <= now]:
            self._ended.remove(each)
            if not self._is_written(each) and not self._options.once:
                self._ended.append(each._replace(at=now + RETRY_SECONDS))

    def _is_written(self, each: _Ended) -> bool:
        try:
            return outcomes.report(self._name, each.transfer, each.outcome, self._stats, logger=self._logger)
        except (DatabaseException, SQLAlchemyError) as error:
            self._logger(logging.ERROR, '%s: its outcome could not be written: %s', each.transfer, error)
            return False

    def _tidy(self) -> None:
        """Abort left-over uploads in the background, as this takes long if a storage is down."""
        if copying.count_leftovers() and (self._tidying is None or self._tidying.done()):
            self._logger(
                logging.INFO,
                'Multipart uploads that could not be aborted: %d. Trying again',
                copying.count_leftovers(),
            )
            self._tidying = self._tidier.submit(copying.abort_leftovers)

    def _end(self) -> None:
        """Stop all copies: uploads are aborted, and the requests are released for other instances."""
        for each in self._running:
            each.stop.set()
        last = time.monotonic() + GRACE_SECONDS
        while self._running and time.monotonic() < last:
            self._changed.clear()
            self._collect()
            if self._running:
                self._changed.wait(_TICK_SECONDS)
        self._ended = [each._replace(at=0) for each in self._ended]
        self._write()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._tidier.shutdown(wait=False, cancel_futures=True)
        with db_session(DatabaseOperationType.WRITE) as session:
            claims.release(self._name, session=session)

    @property
    def _logger(self) -> Any:
        return self._heartbeat.logger


# Starting and stopping


def run(options: Options) -> None:
    """Carry out transfers until there are none left (``once``) or the daemon is stopped.

    :param options: The options.
    :raises DatabaseException: if the schema of the database is not that of this version of Rucio.
    """
    starting.need_database(DAEMON_NAME)
    with (
        HeartbeatHandler(executable=DAEMON_NAME, renewal_interval=_HEARTBEAT_SECONDS) as heartbeat,
        TransferStatsManager() as stats,
    ):
        heartbeat.logger(logging.INFO, 'Daemon started')
        Copier(options, stats, heartbeat).run()
        if not options.once:
            heartbeat.logger(logging.INFO, 'Graceful stop requested')


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    usual = Options()
    parser = argparse.ArgumentParser(
        prog='rucio-s3-copier',
        allow_abbrev=False,  # rucio_s3_plugin looks for --run-once before this
        description="Carries out the transfers between S3 RSEs that Rucio's submitter gave to the transfertool 's3' "
        '(rucio.cfg [conveyor] transfertool). Files are copied by the storage if both RSEs are on it; otherwise, they '
        'are relayed through this machine.',
    )
    parser.add_argument('--run-once', action='store_true', help='carry out what was submitted, then end')
    parser.add_argument(
        '--copies',
        type=starting.positive_int(500),
        default=usual.copies,
        help='number of concurrent copies, with up to 128 MiB of memory each (%(default)s)',
    )
    parser.add_argument(
        '--sleep-time',
        type=starting.seconds,
        default=usual.sleep_time,
        help='seconds between searches for work (%(default)s)',
    )
    return parser


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run the command ``rucio-s3-copier``.

    Exits with 1 if it cannot start; the outcomes of transfers are in their requests.

    :param arguments: The arguments of the command line; None: those of the process.
    """
    starting.stop_on_signals(graceful_stop)
    given = vars(get_parser().parse_args(arguments))
    with starting.started('rucio-s3-copier'):
        run(Options(once=given.pop('run_once'), **given))


if __name__ == '__main__':
    main()
