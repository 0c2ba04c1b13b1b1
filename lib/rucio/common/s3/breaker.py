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

"""A circuit breaker for each storage: a storage that stopped answering gets no requests until it answers again.

Otherwise each request to the Rucio server that needs the storage would block a worker until its time-out, and soon no
worker would be left for anything else. A storage that refuses connections or returns errors costs no time, and still
gets requests.
"""

import os
import threading
from typing import Any, Optional

from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError

from . import botocore_internals
from .errors import StorageSilentError

__all__ = ['watch']

PAUSE = 5.0  # seconds between two attempts to reach a silent storage

# The operation of each service that shows whether it answers again.
_QUESTIONS = {'s3': 'list_buckets', 'sts': 'get_caller_identity', 'sns': 'list_topics'}

_breakers: dict[tuple[int, str, str], '_Breaker'] = {}
_lock = threading.Lock()


def watch(client: Any, service: str) -> None:
    """Refuse requests of a boto3 client while its storage is silent.

    All clients of a process with the same service and endpoint share its state.

    :param client: The client.
    :param service: s3, sts or sns.
    """
    url = str(client.meta.endpoint_url)
    with _lock:
        # A forked process does not have the thread that tries to reach the storage.
        breaker = _breakers.setdefault((os.getpid(), service, url), _Breaker(url))

    def note(exception: Optional[BaseException]) -> None:
        if isinstance(exception, (ConnectTimeoutError, ReadTimeoutError)):
            breaker.open(getattr(client, _QUESTIONS[service]), exception)

    client.meta.events.register_first('before-send', breaker.refuse)
    botocore_internals.after_attempt(client, note)


class _Breaker:
    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._asking: Optional[threading.Thread] = None  # while the storage is silent

    def refuse(self, **_: Any) -> None:
        """Refuse a request at once and without a retry, while the storage is silent.

        :raises StorageSilentError: while the storage does not answer.
        """
        if self._asking is not None and self._asking is not threading.current_thread():
            raise StorageSilentError(url=self._url)

    def open(self, question: Any, reason: BaseException) -> None:
        """Refuse all requests from now on, but send one every few seconds in a thread of its own.

        No request of a user is spent on finding out whether the storage answers again, and none waits for it.

        :raises StorageSilentError: always, as a retry would only wait once more.
        """
        with self._lock:
            if self._asking is None:
                self._asking = threading.Thread(
                    target=self._ask, args=(question,), name='rucio-s3-breaker', daemon=True
                )
                try:
                    self._asking.start()
                except RuntimeError:  # no room for a thread: the next request finds out
                    self._asking = None
        raise StorageSilentError(url=self._url) from reason

    def _ask(self, question: Any) -> None:
        pause = threading.Event()
        try:
            while not _answers(question):
                pause.wait(PAUSE)
        finally:
            self._asking = None


def _answers(question: Any) -> bool:
    """Return whether the storage answers at all, or refuses connections: neither takes time."""
    try:
        question()
    except (ConnectTimeoutError, ReadTimeoutError, StorageSilentError):
        return False
    except (BotoCoreError, ClientError):
        pass  # an answer, or a refused connection
    return True
