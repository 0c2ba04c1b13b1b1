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

"""What this process observes of the storages: metrics, and the last events for the health of the server.

Metrics are those of Rucio's MetricManager, so that they appear where Rucio's own do. On clients, which do not load it,
nothing is counted. The labels are the name of an RSE and words of a fixed list, never a bucket, a key or an account.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Optional

from botocore.exceptions import BotoCoreError, ConnectTimeoutError, ReadTimeoutError

from . import botocore_internals, request_ids, rucio_internals
from .errors import StorageSilentError
from .parsing import UnreadableAnswerError

__all__ = [
    'ERRORS',
    'RSE',
    'Observed',
    'count',
    'gauge',
    'is_on',
    'observe',
    'observed',
    'silence',
    'time_of',
    'vended',
]

PREFIX = 'rucio.core.s3'
SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)  # buckets of the histograms
MAX_BYTES = 2**50  # what a storage says that it sends

# Outcomes of requests to storages that an operator should look at; the others are ok, missing (404) and conflict
# (409, 412), which are answers of a storage that is well.
ERRORS = ('refused', 'busy', 'failed', 'silent', 'withheld', 'unreachable', 'unreadable')
_STATUSES = {404: 'missing', 409: 'conflict', 412: 'conflict', 429: 'busy', 503: 'busy'}


class RSE(NamedTuple):
    """The RSE whose requests a client sends."""

    name: str
    id: str


@dataclass(frozen=True)
class Observed:
    """The last events of an RSE in this process. Times are POSIX seconds, None: none yet."""

    answered: Optional[float] = None
    failed: Optional[float] = None
    failure: str = ''  # one of ERRORS, and the status
    failure_id: str = ''  # the storage's request id of that
    vended: Optional[float] = None
    silent: frozenset[str] = frozenset()  # services whose breaker is open


_observed: dict[str, Observed] = {}  # by RSE id
_lock = threading.Lock()


def is_on() -> bool:
    """Return whether this process counts: whether it is a server or daemon of Rucio."""
    return rucio_internals.metric_manager(PREFIX) is not None


def count(name: str, documentation: str, amount: int = 1, **labels: str) -> None:
    """Add to a counter.

    :param name: The name.
    :param documentation: What is counted.
    :param amount: How much to add.
    :param labels: The labels and their values.
    """
    if metrics := rucio_internals.metric_manager(PREFIX):
        metrics.counter(_with_labels(name, labels), documentation=documentation).labels(**labels).inc(amount)


def gauge(name: str, documentation: str, value: float, **labels: str) -> None:
    """Set a gauge.

    :param name: The name.
    :param documentation: What it shows.
    :param value: The value.
    :param labels: The labels and their values.
    """
    if metrics := rucio_internals.metric_manager(PREFIX):
        metrics.gauge(_with_labels(name, labels), documentation=documentation).labels(**labels).set(value)


def time_of(name: str, documentation: str, seconds: float, **labels: str) -> None:
    """Add a duration to a histogram.

    :param name: The name.
    :param documentation: What is measured.
    :param seconds: The duration.
    :param labels: The labels and their values.
    """
    if metrics := rucio_internals.metric_manager(PREFIX):
        timer = metrics.timer(_with_labels(name, labels), buckets=SECONDS, documentation=documentation)
        timer.labels(**labels).observe(seconds)


def _with_labels(name: str, labels: dict[str, str]) -> str:
    """Return a name as Rucio wants it, from which it takes the labels: requests.{rse}.{outcome}."""
    return '.'.join((name, *(f'{{{label}}}' for label in labels)))


def observe(client: Any, service: str, rse: Optional[RSE]) -> None:
    """Count the requests of a boto3 client, with their bytes, errors and duration.

    :param client: The client.
    :param service: s3, sts or sns.
    :param rse: The RSE; None counts nothing.
    """
    if rse is not None and is_on():
        botocore_internals.wrap_send(client, _Counted(service, rse).send)


def observed(rse_id: str) -> Observed:
    """Return the last events of an RSE in this process.

    :param rse_id: The id of the RSE.
    """
    return _observed.get(rse_id) or Observed()


def any_silent() -> bool:
    """Return whether this process sends no requests to some storage, because it did not answer."""
    return any(each.silent for each in list(_observed.values()))


def vended(rse: RSE, outcome: str) -> None:
    """Count a vend of keys.

    :param rse: The RSE.
    :param outcome: new, cached, failed, limited (the account has to wait), or impossible (by what was asked for).
    """
    count('vended', 'Keys that were asked for', rse=rse.name, outcome=outcome)
    if outcome in ('new', 'cached'):
        _change(rse, vended=time.time())


def silence(rse: RSE, service: str, silent: bool) -> None:
    """Note that a breaker was opened or closed.

    :param rse: An RSE whose requests it refuses.
    :param service: s3, sts or sns.
    :param silent: Whether it is open.
    """
    gauge(
        'silent',
        '1 while the storage gets no requests because it did not answer',
        silent,
        rse=rse.name,
        service=service,
    )
    _change(rse, silent=observed(rse.id).silent | {service} if silent else observed(rse.id).silent - {service})


def _change(rse: RSE, **changes: Any) -> None:
    with _lock:
        _observed[rse.id] = replace(observed(rse.id), **changes)


class _Counted:
    """Counts the requests of a client."""

    def __init__(self, service: str, rse: RSE) -> None:
        self._service = service
        self._rse = rse

    def send(self, send: Callable[[Any], Any], request: Any) -> Any:
        """Send a request, and count it."""
        began = time.monotonic()
        try:
            answer = send(request)
        except BotoCoreError as error:
            self._count(_kind_of(error), began)
            raise
        self._count(_STATUSES.get(answer.status_code) or _class_of(answer.status_code), began, answer)
        self._count_bytes('sent', request.headers)
        if request.method != 'HEAD':
            self._count_bytes('received', answer.headers)
        return answer

    def _count(self, outcome: str, began: float, answer: Any = None) -> None:
        rse, now = self._rse, time.time()
        count('requests', 'Requests to storages', rse=rse.name, service=self._service, outcome=outcome)
        if outcome != 'withheld':
            time_of(
                'request_seconds',
                'Seconds until a storage answered',
                time.monotonic() - began,
                rse=rse.name,
                service=self._service,
            )
        if outcome not in ERRORS:
            _change(rse, answered=now)
        elif outcome != 'withheld':
            shown = f'{outcome} ({self._service}' + (f', {answer.status_code})' if answer is not None else ')')
            _change(
                rse,
                failed=now,
                failure=shown,
                failure_id=request_ids.of_storage(answer.headers.get('x-amz-request-id')) if answer is not None else '',
            )

    def _count_bytes(self, way: str, headers: Any) -> None:
        try:
            size = int(headers.get('Content-Length') or 0)
        except ValueError:
            size = 0
        if 0 < size <= MAX_BYTES:
            count('bytes', 'Bytes of the bodies of requests and answers', size, rse=self._rse.name, way=way)


def _class_of(status: int) -> str:
    return 'ok' if status < 400 else 'refused' if status < 500 else 'failed'


def _kind_of(error: BotoCoreError) -> str:
    if isinstance(error, StorageSilentError):
        return 'silent' if error.__cause__ else 'withheld'
    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError)):
        return 'silent'
    return 'unreadable' if isinstance(error, UnreadableAnswerError) else 'unreachable'
