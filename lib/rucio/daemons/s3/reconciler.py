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

"""The reconciler daemon: updates the catalogue to what other clients have written to buckets.

A round compares a whole bucket with the catalogue (:mod:`rucio.core.s3.reconciler.walk`). Its progress is stored in the
database (:mod:`rucio.core.s3.reconciler.progress`), so that a daemon that was killed continues where it was. All
threads of all instances are workers, which are counted by Rucio's heartbeats: each bucket, and each span of a large
one, is assigned to one of them.
"""

import argparse
import functools
import hashlib
import logging
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from rucio.common.config import config_get_bool
from rucio.common.constants import DEFAULT_VO
from rucio.common.exception import (
    ConfigurationError,
    InvalidRSEExpression,
    RSEAccessDenied,
    RSENotFound,
    RucioException,
    VONotFound,
)
from rucio.common.s3 import breaker
from rucio.common.s3.answers import line_logger
from rucio.core.rse_expression_parser import parse_expression
from rucio.core.s3 import storages
from rucio.core.s3.buckets import bucket_settings
from rucio.core.s3.reconciler import progress, usage
from rucio.core.s3.reconciler.inventory import Inventory, NamedInventory
from rucio.core.s3.reconciler.walk import Reconciler, ranges
from rucio.core.vo import list_vos
from rucio.daemons.common import HeartbeatHandler, run_daemon
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

from . import starting
from .reporting import MAX_SHOWN, Reporter, error_text, log_round, name_of, plain, problem_text, round_key
from .upkeep import Upkeep

if TYPE_CHECKING:
    from rucio.core.s3.reconciler.progress import Round, Span
    from rucio.core.s3.storages import Storage
    from rucio.core.s3.subtrees import Subtree

__all__ = ['Options', 'Worker', 'get_parser', 'main', 'run']

graceful_stop = threading.Event()
DAEMON_NAME = 's3-reconciler'
_LOGGER = line_logger(DAEMON_NAME)

SPANS_PER_WORKER = 4  # of a large bucket, so that all workers are busy until its end
MAX_SPANS = 256
MAX_SORTED = 100_000_000  # objects of a storage that does not list in order: 15 GB on disk
POLL_SECONDS = 2  # seconds between checks of the other workers, with --run-once
STALL_SECONDS = 60  # seconds in which other workers must have made progress


@dataclass(frozen=True)
class Options:
    """The options of the command line. Times are in seconds."""

    once: bool = False
    sleep_time: int = 60
    interval: float = 3600  # from the end of a round of a bucket to the start of the next one
    save_every: float = 10
    threads: int = 1
    rses: Optional[str] = None  # an RSE expression
    scopes: Sequence[str] = ()
    vos: Sequence[str] = ()
    dry_run: bool = False
    inventories: Sequence[NamedInventory] = ()  # read instead of a listing, once

    def inventory_of(self, subtree: 'Subtree') -> Optional[Inventory]:
        """Return the inventory to read for a bucket; None: the bucket is listed."""
        return next(
            (
                each.inventory
                for each in self.inventories
                if (each.rse, each.bucket) == (subtree.storage.rse, subtree.bucket)
            ),
            None,
        )


class Task(NamedTuple):
    """A span of this worker."""

    subtree: 'Subtree'
    span: 'Span'
    alone: bool  # the only span of its round


# Which buckets


def _vos(options: Options) -> list[str]:
    if not config_get_bool('common', 'multi_vo', raise_exception=False, default=False):
        return [DEFAULT_VO]
    with db_session(DatabaseOperationType.READ) as session:
        found = [each['vo'] for each in list_vos(session=session)]
    if unknown := set(options.vos) - set(found):
        raise VONotFound(f'There is no VO {", ".join(sorted(unknown))}: there are {", ".join(sorted(found))}.')
    return list(options.vos) or found


def _storages(options: Options) -> 'list[Storage]':
    """Return the S3 RSEs to reconcile.

    :raises RucioException: if the RSE expression or a VO is invalid.
    """
    found: list[Storage] = []
    reason = 'none of its RSEs has a protocol of rucio.rse.protocols.s3.'
    for vo in _vos(options):
        with db_session(DatabaseOperationType.READ) as session:
            chosen = storages.list_storages(vo, session=session)
            if options.rses:
                try:
                    ids = {
                        each['id']
                        for each in parse_expression(expression=options.rses, filter_={'vo': vo}, session=session)
                    }
                except InvalidRSEExpression as error:  # also for RSEs of another VO
                    ids, reason = set(), str(error.args[0])
                chosen = [storage for storage in chosen if storage.rse_id in ids]
        found += chosen
    if options.rses and not found:
        raise RSENotFound(f"There is no S3 RSE in '{options.rses}': {reason}")
    return found


def _lacks_keys(storage: 'Storage') -> Optional[str]:
    """Return why there are no keys for an RSE, which is then skipped; None: there are keys."""
    try:
        storage.connection()
    except (RSEAccessDenied, ConfigurationError) as error:
        return error_text(f'RSE {storage.rse}', error)
    return None


def _subtrees(options: Options, places: progress.Worklist) -> 'list[Subtree]':
    return [subtree for subtree in places.subtrees if not options.scopes or str(subtree.scope) in options.scopes]


# Working


class Worker:
    """One thread of an instance, with its state between passes."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._began = time.time()
        self._heartbeat: Any = None
        self.failed: set[tuple[str, ...]] = set()  # not tried again in this run
        self._takes_all = False  # also the spans of other workers
        self._begun: dict[tuple[str, ...], float] = {}  # spans, and the start of their round
        self._there: dict[str, list[Subtree]] = {}  # RSE id -> all subtrees, of all workers
        self._report = Reporter(options.interval)
        self._upkeep = Upkeep(self._report, options.interval)

    def run_once(self, heartbeat_handler: HeartbeatHandler, **_: Any) -> bool:
        """Process one slice of each span of this worker; with ``once``, repeat until each bucket has had its round.

        :param heartbeat_handler: The heartbeat of this worker.
        :param _: Other arguments of Rucio's ``run_daemon``.
        :returns: Whether to sleep, as nothing is left to continue.
        """
        self._heartbeat = self._report.heartbeat = heartbeat_handler
        self.failed.clear()
        changed, seen = time.monotonic(), frozenset[str]()
        while not graceful_stop.is_set():
            mine, others = self._pass()
            if not self.options.once:
                return not mine
            if mine:
                continue
            if not others:
                break
            # A round is over when all workers have done their spans. Workers without progress are ignored.
            if others != seen:
                changed, seen = time.monotonic(), others
            self._takes_all = time.monotonic() - changed > STALL_SECONDS + self.options.save_every
            if not self._takes_all:
                graceful_stop.wait(POLL_SECONDS)
        return True

    def _pass(self) -> tuple[int, frozenset[str]]:
        """Process one slice of each span of this worker.

        :returns: The number of its unfinished spans, and the rows of those of other workers.
        """
        self._heartbeat.live(force_renew=True)  # notice new and stopped workers
        mine, others = 0, set[str]()
        if not self.options.rses and not self.options.scopes:
            self._upkeep.sweep_grants(lambda: _vos(self.options), self.options.once)
        for storage in _storages(self.options):
            if why := _lacks_keys(storage):
                self._report.warn(why)
                continue
            try:
                tasks, foreign = self._tasks(storage)
            except RucioException as error:
                self._fail((storage.rse_id,), error_text(f'RSE {storage.rse}', error), storage)
                continue
            mine += sum(self._work(task) for task in tasks)
            others |= foreign
            if (storage.rse_id,) not in self.failed:
                self._store_usage(storage)
                self._upkeep.repair_topic(storage)
        return mine, frozenset(others)

    def _is_mine(self, subtree: 'Subtree', index: int = 0) -> bool:
        number, total, _ = self._heartbeat.live()
        if self._takes_all:
            return True
        # Not crc32: for names that differ in the last digit, it often assigns all to one of two workers.
        digest = hashlib.sha256('/'.join((subtree.storage.rse_id, *round_key(subtree))).encode()).digest()
        return bool((int.from_bytes(digest[:8], 'big') + index) % total == number)

    def _is_due(self, last: 'Optional[Round]') -> bool:
        before = self._began if self.options.once else time.time() - self.options.interval
        return last is None or (last.ended is not None and last.ended <= before)

    def _tasks(self, storage: 'Storage') -> tuple[list[Task], set[str]]:
        """Start rounds that are due on a storage, and return its unfinished spans.

        :returns: The spans of this worker, and the rows of those of other workers.
        """
        if graceful_stop.is_set() or (storage.rse_id,) in self.failed:
            return [], set()
        with db_session(DatabaseOperationType.READ) as session:
            known = progress.read_rounds(storage, session=session)
        places = progress.find_work(storage, known)
        self._report.missing(storage, places)
        self._delete_gone_rounds(storage, places, known)
        self._there[storage.rse_id] = places.subtrees
        subtrees = _subtrees(self.options, places)
        if self._open_rounds([subtree for subtree in subtrees if self._is_mine(subtree)], known):
            with db_session(DatabaseOperationType.READ) as session:
                known = progress.read_rounds(storage, session=session)
        self._report.waiting(storage, known.values())
        tasks, others = [], set()
        for subtree in subtrees:
            last = known.get(round_key(subtree))
            if self._is_due(last):
                others.add('/'.join(round_key(subtree)))  # not started yet
            spans = last.spans if last else ()
            for span in spans:
                if not span.done and self._is_mine(subtree, span.index):
                    tasks.append(Task(subtree, span, len(spans) == 1))
                elif not span.done:
                    others.add(span.stored)
        return tasks, others

    def _open_rounds(self, subtrees: 'list[Subtree]', known: 'dict[tuple[str, str], Round]') -> int:
        """Start the rounds that are due.

        :returns: The number of rounds.
        """
        count = 0
        for subtree in subtrees:
            last = known.get(round_key(subtree))
            if last and last.ended is None and all(span.done for span in last.spans):
                self._close(subtree)  # the worker of the last span ended before it closed the round
            elif self._is_due(last):
                count += 1
                with db_session(DatabaseOperationType.WRITE) as session:
                    progress.begin(subtree, last, time.time(), session=session)
        return count

    def _delete_gone_rounds(
        self, storage: 'Storage', places: progress.Worklist, known: 'dict[tuple[str, str], Round]'
    ) -> None:
        """Delete the rounds of buckets and imports that no longer exist, and are not missing."""
        there = {round_key(subtree) for subtree in places.subtrees} | {
            (bucket, str(scope.internal)) for scope, bucket in places.missing_buckets
        }
        if gone := known.keys() - there:
            with db_session(DatabaseOperationType.WRITE) as session:
                progress.delete_rounds(storage, gone, session=session)

    def _work(self, task: Task) -> bool:
        """Process one slice of a span.

        :returns: Whether the span is unfinished.
        """
        subtree = task.subtree
        place = (subtree.storage.rse_id, *round_key(subtree))
        if graceful_stop.is_set() or not self._is_mine(subtree, task.span.index):
            return False
        if not self.failed.isdisjoint({place, (subtree.storage.rse_id,)}):
            return False
        try:
            return self._slice(task)
        except RucioException as error:
            self._fail(place, error_text(name_of(subtree), error), subtree.storage)
        except Exception as error:  # noqa: BLE001 - it must not stop the other buckets
            self._fail(place, f'{name_of(subtree)}: {type(error).__name__}: {error}', subtree.storage, error)
        return False

    def _slice(self, task: Task) -> bool:
        subtree, span, inventory = task.subtree, task.span, self.options.inventory_of(task.subtree)
        if task.alone and span.after and not inventory and self._split(subtree, span):
            return True
        reconciler = _reconciler_of(subtree, inventory)
        place = (subtree.storage.rse_id, *round_key(subtree))
        if span.counts and self._begun.get((*place, str(span.index))) != span.round:
            self._report.logger(logging.INFO, "%s: the round continues after '%s'", name_of(subtree), plain(span.after))
        self._begun[(*place, str(span.index))] = span.round
        start = time.monotonic()
        # An inventory is read completely before anything is compared.
        seconds = None if inventory else self.options.save_every
        try:
            after = reconciler.run(span.after, span.until, seconds, most_sorted=MAX_SORTED)
        finally:
            self._report.count(subtree, reconciler.summary)
        counts = reconciler.summary.counts | {progress.STORED: reconciler.stored}
        with db_session(DatabaseOperationType.WRITE) as session:
            progress.advance(subtree, span, after, counts, time.monotonic() - start, session=session)
        if after is None:
            self._begun.pop((*place, str(span.index)), None)
            self._close(subtree)
        return after is not None

    def _split(self, subtree: 'Subtree', span: 'Span') -> bool:
        """Split what one worker has not finished in a slice, if there are other workers."""
        _, total, logger = self._heartbeat.live()
        if total < 2:
            return False
        found = ranges(subtree, min(SPANS_PER_WORKER * total, MAX_SPANS))
        with db_session(DatabaseOperationType.WRITE) as session:
            count = progress.split(subtree, span, found, session=session)
        logger(logging.DEBUG, '%s: the round continues in %d spans for %d workers', name_of(subtree), count, total)
        return count > 1

    def _close(self, subtree: 'Subtree') -> None:
        with db_session(DatabaseOperationType.WRITE) as session:
            ended = progress.close(subtree, time.time(), session=session)
        if ended is None:  # other workers have not finished
            return
        self._report.round(subtree, ended)
        self._upkeep.close(subtree)

    def _store_usage(self, storage: 'Storage') -> None:
        place = (storage.rse_id, usage.SOURCE)  # not of a bucket: buckets continue
        if place in self.failed:
            return
        try:
            self._upkeep.update_usage(storage, self._there.get(storage.rse_id, []))
        except RucioException as error:
            self._fail(place, error_text(f'RSE {storage.rse}', error), storage)

    def _fail(
        self, place: tuple[str, ...], text: str, storage: 'Storage', error: Optional[BaseException] = None
    ) -> None:
        if breaker.is_silent(storage.endpoint.url):
            place, error = (storage.rse_id,), None  # none of its buckets
            text = (
                f'RSE {storage.rse}: the storage at {storage.endpoint.url} does not answer. It is left alone until it '
                'does, and the other RSEs are reconciled.'
            )
        self.failed.add(place)
        self._report.failed(text, storage, error)


def _reconciler_of(subtree: 'Subtree', inventory: Optional[Inventory], dry_run: bool = False) -> Reconciler:
    """Return a reconciler with the settings of the bucket."""
    with db_session(DatabaseOperationType.READ) as session:
        settings = bucket_settings.get(subtree.storage, subtree.bucket, session=session)
    return Reconciler(
        subtree,
        on_changed=settings.on_changed,
        on_missing=settings.on_missing,
        dry_run=dry_run,
        read_checksums=subtree.storage.endpoint.read_checksums,
        stop=graceful_stop,
        lister=inventory,
    )


# Starting and stopping


def _preview(options: Options) -> bool:
    """Compare all buckets once without any changes.

    :returns: Whether all of them could be compared.
    """
    well = True
    for storage in _storages(options):
        if why := _lacks_keys(storage):
            _LOGGER.warning('%s', why)
            continue
        try:
            with db_session(DatabaseOperationType.READ) as session:
                known = progress.read_rounds(storage, session=session)
            subtrees = _subtrees(options, progress.find_work(storage, known))
        except RucioException as error:
            _LOGGER.warning('%s', error_text(f'RSE {storage.rse}', error))
            well = False
            continue
        for subtree in subtrees:
            well = (graceful_stop.is_set() or _preview_subtree(subtree, options.inventory_of(subtree))) and well
    return well


def _preview_subtree(subtree: 'Subtree', inventory: Optional[Inventory]) -> bool:
    start = time.time()
    try:
        reconciler = _reconciler_of(subtree, inventory, dry_run=True)
        reconciler.run(most_sorted=MAX_SORTED)
    except RucioException as error:
        _LOGGER.warning('%s', error_text(name_of(subtree), error))
        return False
    for problem in reconciler.summary.problems[:MAX_SHOWN]:
        _LOGGER.warning('%s', problem_text(subtree, problem))
    log_round(_LOGGER.log, subtree, progress.Round(start, time.time(), reconciler.summary.counts, time.time() - start))
    return True


def reconciler(options: Options, worker: Worker) -> None:
    """Run one worker until the daemon is stopped.

    :param options: The options.
    :param worker: The worker.
    """
    run_daemon(
        once=options.once,
        graceful_stop=graceful_stop,
        executable=DAEMON_NAME,
        partition_wait_time=(1 if options.threads > 1 else 0) if options.once else 10,
        sleep_time=options.sleep_time,
        run_once_fnc=functools.partial(Worker.run_once, worker),
    )


def run(options: Options) -> bool:
    """Start the workers, and wait for their end.

    :param options: The options.
    :returns: Whether all buckets could be reconciled; without ``once``, always True.
    :raises DatabaseException: if the schema of the database is not that of this version of Rucio.
    :raises RSENotFound: if the RSE expression matches no S3 RSE, or an inventory is of another RSE.
    :raises VONotFound: if a VO does not exist.
    """
    starting.need_database(DAEMON_NAME)
    known = {storage.rse for storage in _storages(options)}
    if unknown := {each.rse for each in options.inventories} - known:
        raise RSENotFound(
            f'--inventory: {", ".join(sorted(unknown))} is not one of the S3 RSEs of this run: '
            f'{", ".join(sorted(known))}.'
        )
    if options.dry_run:
        return _preview(options)
    workers = [Worker(options) for _ in range(options.threads)]
    if options.once and len(workers) == 1:
        reconciler(options, workers[0])
    else:
        _LOGGER.info('Starting %d threads', len(workers))
        threads = [threading.Thread(target=reconciler, args=(options, worker)) for worker in workers]
        for thread in threads:
            thread.start()
        # Interruptible joins require a timeout.
        while threads:
            for thread in threads:
                thread.join(timeout=3.14)
            threads = [thread for thread in threads if thread.is_alive()]
    return not options.once or not any(worker.failed for worker in workers)


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    usual = Options()
    parser = argparse.ArgumentParser(
        prog='rucio-s3-reconciler',
        allow_abbrev=False,  # rucio_s3_plugin looks for --run-once before this
        description='Updates the catalogue to what other clients have written to the buckets of S3 RSEs. '
        'The settings of each bucket define what is done about changed and missing objects (rucio s3 settings).',
    )
    parser.add_argument(
        '--run-once', action='store_true', help='do one round of each bucket, then exit; with 1 if one of them failed'
    )
    parser.add_argument(
        '--threads', type=starting.positive_int(), default=usual.threads, help='workers of this instance (%(default)s)'
    )
    parser.add_argument(
        '--sleep-time',
        type=starting.positive_int(),
        default=usual.sleep_time,
        help='seconds between searches for work (%(default)s)',
    )
    parser.add_argument(
        '--interval',
        type=starting.seconds,
        default=usual.interval,
        help='seconds from the end of a round of a bucket to the start of the next one (%(default)s)',
    )
    parser.add_argument(
        '--save-every',
        type=starting.seconds,
        default=usual.save_every,
        help='seconds after which progress is saved (%(default)s)',
    )
    parser.add_argument('--rses', help='only these RSEs: an RSE expression')
    parser.add_argument('--scopes', nargs='+', default=[], help='only the buckets of these scopes')
    parser.add_argument('--vos', nargs='+', default=[], help='only these VOs, if there are several')
    parser.add_argument('--dry-run', action='store_true', help='compare each bucket once, without changes')
    parser.add_argument(
        '--inventory',
        dest='inventories',
        nargs='+',
        type=_inventory,
        default=(),
        metavar='RSE/BUCKET=s3://.../manifest.json',
        help='read this S3 Inventory (CSV) instead of listing the bucket; with --run-once or --dry-run',
    )
    return parser


def _inventory(text: str) -> NamedInventory:
    try:
        return NamedInventory.parse(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error.args[0])) from None


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run the command ``rucio-s3-reconciler``.

    Exits with 1 if it cannot start, or with ``--run-once`` if a bucket failed.

    :param arguments: The arguments of the command line; None: those of the process.
    """
    starting.stop_on_signals(graceful_stop)
    given = vars(get_parser().parse_args(arguments))
    if given['inventories'] and not given['run_once'] and not given['dry_run']:
        get_parser().error('--inventory is read once: add --run-once.')
    with starting.started('rucio-s3-reconciler'):
        if not run(Options(once=given.pop('run_once'), **given)):
            sys.exit(1)  # the log says why


if __name__ == '__main__':
    main()
