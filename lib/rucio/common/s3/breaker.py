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

"""A circuit breaker for each storage: one that stopped answering is left alone until it answers again.

Otherwise each request to the Rucio server that needs the storage would hold a worker until its time-out, and soon there
would be no worker left for anything else. A storage that refuses connections or answers with errors costs no time, and
is asked as before.
"""

import os
import threading
from typing import Any, Optional

from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError

from . import botocore_internals
from .errors import StorageSilentError

__all__ = ['watch']

PAUSE = 5.0  # seconds between two looks at a storage that is silent

# What each service is asked to see whether it is back.
_QUESTIONS = {'s3': 'list_buckets', 'sts': 'get_caller_identity', 'sns': 'list_topics'}

_breakers: dict[tuple[int, str], '_Breaker'] = {}
_lock = threading.Lock()


def watch(client: Any, service: str) -> None:
    """Refuse requests of a boto3 client while its storage is silent. All clients of a process with the same endpoint
    share what they know of it.

    :param client: The client.
    :param service: s3, sts or sns.
    """
    url = str(client.meta.endpoint_url)
    with _lock:
        # A forked process does not have the thread that looks whether the storage is back.
        breaker = _breakers.setdefault((os.getpid(), url), _Breaker(url))

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
        """Costs nothing, and no attempt follows it.

        :raises StorageSilentError: while the storage does not answer.
        """
        if self._asking is not None and self._asking is not threading.current_thread():
            raise StorageSilentError(url=self._url)

    def open(self, question: Any, reason: BaseException) -> None:
        """Ask nothing from now on, but one question every few seconds, in a thread of its own: no request of a user is
        spent on finding out whether the storage is back, and none waits for it.

        :raises StorageSilentError: always: to try again would be to wait once more.
        """
        with self._lock:
            if self._asking is None:
                self._asking = threading.Thread(
                    target=self._ask, args=(question,), name='rucio-s3-breaker', daemon=True
                )
                self._asking.start()
        raise StorageSilentError(url=self._url) from reason

    def _ask(self, question: Any) -> None:
        pause = threading.Event()
        while not _answers(question):
            pause.wait(PAUSE)
        self._asking = None


def _answers(question: Any) -> bool:
    """Whether the storage says anything at all."""
    try:
        question()
    except ClientError:
        return True
    except BotoCoreError:
        return False
    return True
