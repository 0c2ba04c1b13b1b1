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
"""Further tasks of the reconciler daemon: grants that expired, public collections, topics of events, usage of RSEs."""

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

SWEEP = 300  # seconds between two looks for expired grants


class Upkeep:
    """The tasks of one worker.

    :param report: The reporter of the worker.
    :param interval: Seconds between two runs of a task.
    """

    def __init__(self, report: Reporter, interval: float) -> None:
        self._report = report
        self._interval = interval
        self._swept: Optional[float] = None  # when expired grants were last deleted
        self._kept: dict[str, float] = {}  # RSE id -> when its topic was last checked
        self._closed: set[str] = set()  # RSEs with a finished round whose usage is not updated yet

    def sweep_grants(self, vos: 'Callable[[], Iterable[str]]', once: bool) -> None:
        """Delete grants that have expired, or whose collection was erased: by one worker, every few minutes.

        A storage lets the world read until then.

        :param vos: Returns the VOs.
        :param once: Do not repeat it.
        """
        number, _, logger = self._report.heartbeat.live()
        due = self._swept is None or (not once and time.monotonic() - self._swept > min(self._interval, SWEEP))
        if number != 0 or not due:
            return
        self._swept = time.monotonic()
        for vo in vos():
            deleted, kept = publishing.delete_ended(vo)
            if deleted:
                logger(logging.INFO, 'VO %s: %d expired grants were deleted', vo, deleted)
            for text in kept:
                self._report.warn(plain(text))

    def close(self, subtree: 'Subtree') -> None:
        """Check the public prefixes of a bucket whose round has ended, and note that the usage can be updated."""
        self._closed.add(subtree.storage.rse_id)
        self._repair_policy(subtree)

    def _repair_policy(self, subtree: 'Subtree') -> None:
        """Check the public prefixes of a bucket, once per round."""
        if subtree.dataset is not None:  # an import: the bucket belongs to another account
            return
        try:
            for mended in publishing.repair_policy(subtree):
                self._report.warn(plain(mended))
        except RucioException as error:
            self._report.warn(error_text(f'{name_of(subtree)}: public collections', error))

    def update_usage(self, storage: 'Storage', subtrees: 'list[Subtree]') -> None:
        """Update the usage of an RSE, when each of its buckets has had a round, and one of them a new one.

        :param subtrees: All subtrees of the RSE.
        :raises RucioException: if it cannot be determined.
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
                f'RSE {storage.rse}: its usage is not reported to Rucio: the RSE has the limit '
                f'{usage.FREE_SPACE_LIMIT}, by which the reaper deletes, but its free space is not certain; or it is '
                "reported by another program. Set 'capacity' in the 's3' settings of the RSE."
            )

    def repair_topic(self, storage: 'Storage') -> None:
        """Restore the topic of an RSE, once per interval: without it, a storage may refuse all writes."""
        now = time.monotonic()
        if (
            now - self._kept.get(storage.rse_id, -self._interval) >= self._interval
            and self._report.heartbeat.live()[0] == 0
        ):
            self._kept[storage.rse_id] = now
            if wrong := topics.repair(storage):
                self._report.warn(wrong)
