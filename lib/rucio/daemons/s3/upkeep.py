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
"""What the reconciler's daemon keeps in order beside the buckets: grants that have ended, what everybody may read, the
topics of events, and what Rucio is told of an RSE's space.
"""

import logging
import time
from typing import TYPE_CHECKING, Optional

from rucio.common.exception import RucioException
from rucio.core.s3 import topics
from rucio.core.s3.buckets import publishing
from rucio.core.s3.reconciler import progress, usage
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

from .reporting import Reporter, error_text, name_of, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rucio.core.s3.storages import Storage
    from rucio.core.s3.subtrees import Subtree

__all__ = ['Upkeep']


class Upkeep:
    """One worker's.

    :param report: Where it says what it did.
    :param interval: Seconds between two times.
    """

    def __init__(self, report: Reporter, interval: float) -> None:
        self._report = report
        self._interval = interval
        self._swept: Optional[float] = None  # when grants that have ended were deleted
        self._kept: dict[str, float] = {}  # RSE id -> when the topic of its events was looked at
        self._closed: set[str] = set()  # RSEs of which a round has ended, and not yet said how much is there

    def sweep_grants(self, vos: 'Callable[[], Iterable[str]]', once: bool) -> None:
        """Delete grants that have ended, or whose collection was erased: once in each interval, by one worker.

        :param vos: Tells of which VOs.
        :param once: Not a second time.
        """
        number, _, logger = self._report.heartbeat.live()
        due = self._swept is None or (not once and time.monotonic() - self._swept > self._interval)
        if number != 0 or not due:
            return
        self._swept = time.monotonic()
        for vo in vos():
            deleted, kept = publishing.delete_ended(vo)
            if deleted:
                logger(logging.INFO, 'VO %s: %d grants that had ended were deleted', vo, deleted)
            for text in kept:
                self._report.warn(plain(text))

    def close(self, subtree: 'Subtree') -> None:
        """A round of a bucket has ended."""
        self._closed.add(subtree.storage.rse_id)
        self._repair_policy(subtree)

    def _repair_policy(self, subtree: 'Subtree') -> None:
        """What everybody may read of a bucket, once in each round."""
        if subtree.dataset is not None:  # an import: its bucket is somebody else's
            return
        try:
            for mended in publishing.repair_policy(subtree):
                self._report.warn(plain(mended))
        except RucioException as error:
            self._report.warn(error_text(f'{name_of(subtree)}: what everybody may read', error))

    def update_usage(self, storage: 'Storage', subtrees: 'list[Subtree]') -> None:
        """Tell how much lies on a storage, when each of its buckets has had a round, and one of them has ended another.

        :raises RucioException: if that cannot be found out.
        """
        if storage.rse_id in self._closed:
            self._store_usage(storage, subtrees)
            self._closed.discard(storage.rse_id)
        else:
            with db_session(DatabaseOperationType.WRITE) as session:
                usage.withdraw(storage, session=session)

    def _store_usage(self, storage: 'Storage', subtrees: 'list[Subtree]') -> None:
        with db_session(DatabaseOperationType.READ) as session:
            found = usage.sum_usage(subtrees, progress.read_rounds(storage, session=session))
        if found is None:
            return
        free = usage.free_space(storage, found.used, subtrees[0].bucket)
        with db_session(DatabaseOperationType.WRITE) as session:
            stored = usage.store(storage, found, free, session=session)
        self._report.logger(
            logging.DEBUG,
            'RSE %s: %d objects, %d bytes, free: %s',
            storage.rse,
            *found,
            'not known' if free is None else f'{free} bytes',
        )
        if not stored:
            self._report.warn(
                f'RSE {storage.rse}: Rucio is not told how much lies there: it has the limit {usage.FREE_SPACE_LIMIT}, '
                'by which the reaper deletes, and how much is free is not certain; or somebody else tells it. Set '
                "'capacity' in the RSE's 's3' settings."
            )

    def repair_topic(self, storage: 'Storage') -> None:
        """Once for each interval: where somebody has deleted the topic of its events, a storage may refuse all
        that is written.
        """
        now = time.monotonic()
        if (
            now - self._kept.get(storage.rse_id, -self._interval) >= self._interval
            and self._report.heartbeat.live()[0] == 0
        ):
            self._kept[storage.rse_id] = now
            if wrong := topics.repair(storage):
                self._report.warn(wrong)
