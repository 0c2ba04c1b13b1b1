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
"""Log messages and metrics of the workers of the reconciler daemon."""

import logging
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Optional

from rucio.common.s3 import request_ids
from rucio.core.monitor import MetricManager
from rucio.core.s3.reconciler import progress

from . import starting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rucio.common.types import LoggerFunction
    from rucio.core.s3.reconciler.progress import Round
    from rucio.core.s3.reconciler.summary import Problem, Summary
    from rucio.core.s3.storages import Storage
    from rucio.core.s3.subtrees import Subtree

__all__ = [
    'MAX_SHOWN',
    'METRICS',
    'Reporter',
    'error_text',
    'log_round',
    'name_of',
    'plain',
    'problem_text',
    'round_key',
]

METRICS = MetricManager(module='rucio.daemons.s3.reconciler')
MAX_SHOWN = 20  # problems of a bucket in the log of a round

_OUTCOMES = ('listed', 'registered', 'changed', 'missing', 'failed')
_ACTS = ('registered', 'replaced', 'bad', 'forgotten', 'lost', 'completed')
_OPEN = ('conflict', 'closed', 'unnameable', 'oversized', 'unreadable')


class Reporter:
    """The log messages and metrics of one worker.

    :param interval: Seconds until a message is repeated.
    """

    def __init__(self, interval: float) -> None:
        self.heartbeat: Any = None
        self._interval = interval
        self._warned: dict[str, float] = {}
        self._shown: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)  # problems of a bucket, in this round

    @property
    def logger(self) -> 'LoggerFunction':
        """Return the logger of the worker, with the number that it has now."""
        logger: LoggerFunction = self.heartbeat.live()[2]
        return logger

    def warn(self, text: str, error: Optional[BaseException] = None) -> None:
        """Log a warning, but not the same one again within the interval.

        :param text: The warning.
        :param error: An exception to log with its traceback.
        """
        now = time.monotonic()
        self._warned = {each: at for each, at in self._warned.items() if now - at < self._interval}
        known = request_ids.without(text)
        if known not in self._warned:
            self._warned[known] = now
            self.logger(logging.WARNING, '%s', text, exc_info=error)

    def count(self, subtree: 'Subtree', summary: 'Summary') -> None:
        """Report a slice of a bucket.

        :param summary: What was found and done.
        """
        for outcome in _OUTCOMES:
            counter = METRICS.counter(
                'objects.{outcome}.{rse}', documentation='Objects that were listed, and what was found or done'
            )
            counter.labels(outcome=outcome, rse=subtree.storage.rse).inc(summary.counts[outcome])
        place = (subtree.storage.rse_id, *round_key(subtree))
        for text in (problem_text(subtree, problem) for problem in summary.problems):
            known = request_ids.without(text)
            if known not in self._shown[place] and len(self._shown[place]) < MAX_SHOWN:
                self._shown[place].add(known)
                self.logger(logging.WARNING, '%s', text)

    def round(self, subtree: 'Subtree', ended: 'Round') -> None:
        """Report the end of a round of a bucket.

        :param ended: The round.
        """
        log_round(self.logger, subtree, ended)
        METRICS.timer(
            'round.{rse}', buckets=starting.ROUND_SECONDS, documentation='Seconds of work for a round of a bucket'
        ).labels(rse=subtree.storage.rse).observe(ended.seconds)
        self._shown.pop((subtree.storage.rse_id, *round_key(subtree)), None)

    def waiting(self, storage: 'Storage', rounds: 'Iterable[Round]') -> None:
        """Report since when a bucket of an RSE has waited for the end of a round, the longest wait of all.

        :param rounds: All rounds on the RSE.
        """
        METRICS.gauge(
            'waiting_since.{rse}',
            documentation='POSIX seconds since when a bucket waits for the end of a round, the longest of the RSE',
        ).labels(rse=storage.rse).set(min((each.since for each in rounds), default=time.time()))

    def failed(self, text: str, storage: 'Storage', error: Optional[BaseException] = None) -> None:
        """Report a slice that could not be reconciled.

        :param text: The warning.
        :param error: An exception to log with its traceback.
        """
        METRICS.counter('failures.{rse}', documentation='Slices of buckets that could not be reconciled').labels(
            rse=storage.rse
        ).inc()
        self.warn(text, error)

    def missing(self, storage: 'Storage', places: progress.Worklist) -> None:
        """Report missing buckets.

        :param places: The work on the storage.
        """
        for scope, bucket in places.missing_buckets:
            self.warn(
                f"RSE {storage.rse}: the catalogue has files of scope {scope} there, but the bucket '{bucket}' does "
                'not exist. No file was declared lost. If the bucket was deleted on purpose, remove its files from the '
                f'catalogue: rucio s3 remove-bucket {scope} --force.'
            )


def round_key(subtree: 'Subtree') -> tuple[str, str]:
    """Return the key of a subtree's rounds: bucket and round id."""
    return subtree.bucket, progress.round_id(subtree)


def name_of(subtree: 'Subtree') -> str:
    """Return the name of a subtree, for the log."""
    return f'RSE {subtree.storage.rse}, bucket {subtree.bucket}' + (
        f', keys below {subtree.key_prefix}' if subtree.key_prefix else ''
    )


def error_text(place: str, error: BaseException) -> str:
    """Return an error message in one line, with its location.

    :param place: The location, which is left out if the message begins with the RSE.
    :param error: The exception.
    """
    text = plain(str(error.args[0] if error.args else error))
    return text if text.startswith('RSE ') else f'{place}: {text}'


def problem_text(subtree: 'Subtree', problem: 'Problem') -> str:
    """Return a problem in one line.

    :param problem: The problem.
    """
    where = '' if problem.found.startswith('RSE ') else f'RSE {subtree.storage.rse}: '
    return plain(f'{problem.did.removesuffix(":")}: {where}{problem.found} {problem.remedy}')


def plain(text: str) -> str:
    """Escape text for one line of the log.

    :param text: It may have keys in it, which may contain anything, including line breaks.
    """
    return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)


def log_round(logger: 'LoggerFunction', subtree: 'Subtree', ended: 'Round') -> None:
    """Log the counts of a round.

    :param logger: Where to log.
    :param ended: The round.
    """
    counts: Counter[str] = Counter(ended.counts)
    done = ''.join(f', {counts[kind]} {kind}' for kind in (*_ACTS, *_OPEN) if counts[kind])
    logger(
        logging.INFO,
        '%s: %d objects listed, %d new, %d changed, %d missing, %d failed%s in %.1f s (%.0f objects/s)',
        name_of(subtree),
        *(counts[kind] for kind in ('listed', 'new', 'changed', 'missing', 'failed')),
        done,
        ended.seconds,
        counts['listed'] / ended.seconds if ended.seconds else counts['listed'],
    )
