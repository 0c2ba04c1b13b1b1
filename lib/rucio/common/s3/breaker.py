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
worker would be left for anything else; and a daemon would wait for it, instead of working on others. A storage that
refuses connections or returns errors at once costs no time, and still gets requests.

Clients of daemons are unattended: nobody waits for them, and their requests may be large. They may have any number of
unanswered requests, and after a time-out the storage is only taken for silent if it does not answer something simple.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Optional

from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError

from . import botocore_internals, monitoring
from .errors import StorageSilentError, status_of
from .monitoring import RSE

__all__ = ['is_silent', 'watch']

PAUSE = 5.0  # seconds between two attempts to reach a silent storage
MAX_UNANSWERED = 2  # requests of a process since the last answer: the threads that a silent storage can block
MAX_WAIT = 1.0  # seconds that further requests wait for an answer to any of them
# Seconds after which a failure is as bad as a time-out: a resolver that hangs, a gateway that waits for its servers.
SLOW_FAILURE = 3.0
SLOW_FAILURE_UNATTENDED = 30.0
MAX_DOUBT = 5.0  # seconds in which a storage must answer something simple after a time-out of an unattended client

# The operation of each service that shows whether it answers again.
_QUESTIONS = {'s3': 'list_buckets', 'sts': 'get_caller_identity', 'sns': 'list_topics'}

_SILENCE = (ConnectTimeoutError, ReadTimeoutError)
SERVER_ERROR = 500  # and more

_breakers: dict[tuple[int, str, str], '_Breaker'] = {}
_lock = threading.Lock()


def watch(client: Any, service: str, rse: Optional[RSE], unattended: bool = False) -> None:
    """Refuse requests of a boto3 client while its storage is silent.

    All clients of a process with the same service and endpoint share its state.

    :param client: The client.
    :param service: s3, sts or sns.
    :param rse: The RSE of the client, to tell that its storage is silent.
    :param unattended: Whether nobody waits for its answers.
    """
    url = str(client.meta.endpoint_url)
    with _lock:
        # A forked process does not have the thread that tries to reach the storage.
        breaker = _breakers.setdefault((os.getpid(), service, url), _Breaker(url, service))
    breaker.tell(rse)
    question = getattr(client, _QUESTIONS[service])

    def watched(send: Callable[[Any], Any], request: Any) -> Any:
        with breaker.turn(question, unattended) as failed:
            answer = send(request)
            failed[:] = [answer.status_code >= SERVER_ERROR]
            return answer

    botocore_internals.wrap_send(client, watched)


def is_silent(url: str) -> bool:
    """Return whether the S3 storage at this URL does not answer this process, as far as that is known.

    :param url: The endpoint.
    """
    breaker = _breakers.get((os.getpid(), 's3', url))
    return breaker is not None and breaker.is_silent


class _Breaker:
    """The state of one storage in one process."""

    def __init__(self, url: str, service: str) -> None:
        self._url = url
        self._service = service
        self._rses: set[RSE] = set()  # who is told
        self._changed = threading.Condition()
        self._silent = False
        self._unanswered = 0  # requests that were sent since the last answer
        self._answers = 0  # so far
        self._asking: Optional[threading.Thread] = None  # sends a request every few seconds

    def tell(self, rse: Optional[RSE]) -> None:
        """Tell the metrics of an RSE whether the storage is silent, from now on."""
        with self._changed:
            if rse is not None and rse not in self._rses:
                self._rses.add(rse)
                monitoring.silence(rse, self._service, self._silent)

    def _set_silent(self, silent: bool) -> None:
        if silent != self._silent:
            self._silent = silent
            for rse in self._rses:
                monitoring.silence(rse, self._service, silent)

    @property
    def is_silent(self) -> bool:
        """Whether requests are refused."""
        return self._silent

    @contextmanager
    def turn(self, question: Any, unattended: bool) -> Iterator[list[bool]]:
        """Wait until a request may be sent, send it in the block, and learn from its outcome.

        :param question: A function that sends another request, to find out whether the storage answers.
        :param unattended: Whether nobody waits for the request.
        :returns: A list, to be filled in the block: whether the storage answered that it failed.
        :raises StorageSilentError: while the storage does not answer.
        """
        failed: list[bool] = []
        if threading.current_thread() is self._asking:
            yield failed
            return
        self._enter(question, unattended)
        answers, began = self._answers, time.monotonic()
        try:
            yield failed
        except _SILENCE as error:
            if unattended and self._answers_soon(question):
                raise  # only this request is slow: botocore sends it again
            self._open(question)
            raise StorageSilentError(url=self._url) from error
        except Exception:  # a refused connection, or an answer that cannot be read
            self._hear(question, unattended, began, failed=True)
            raise
        except BaseException:  # an interrupted request says nothing
            with self._changed:
                self._unanswered -= self._answers == answers
            raise
        self._hear(question, unattended, began, failed=any(failed))

    def _enter(self, question: Any, unattended: bool) -> None:
        """Refuse all requests while the storage is silent; until then, attended ones after :data:`MAX_UNANSWERED`.

        It answers most requests within milliseconds, so that these hardly wait.
        """
        last = time.monotonic() + MAX_WAIT
        with self._changed:
            while not self._silent:
                if unattended or self._unanswered < MAX_UNANSWERED:
                    self._unanswered += 1
                    return
                # Those that were sent may be slow because they are large: ask something simple.
                self._ask(question)
                if not self._changed.wait(last - time.monotonic()):
                    break
        raise StorageSilentError(url=self._url)

    def _hear(self, question: Any, unattended: bool, began: float, failed: bool) -> None:
        """Note an answer, or the error of a request that began at this time of the monotonic clock."""
        slow = SLOW_FAILURE_UNATTENDED if unattended else SLOW_FAILURE
        if failed and time.monotonic() - began > slow and not (unattended and self._answers_soon(question)):
            self._open(question)
            return
        with self._changed:
            self._unanswered = 0
            self._answers += 1
            self._changed.notify_all()

    def _answers_soon(self, question: Any) -> bool:
        """Return whether the storage answers something simple, or anybody else, within :data:`MAX_DOUBT`."""
        with self._changed:
            answers = self._answers
            self._ask(question)
            self._changed.wait_for(lambda: self._answers > answers or self._silent, MAX_DOUBT)
            return self._answers > answers and not self._silent

    def _open(self, question: Any) -> None:
        """Refuse all requests from now on, but send one every few seconds in a thread of its own.

        No request of a user is spent on finding out whether the storage answers again, and none waits for it.
        """
        with self._changed:
            self._set_silent(self._ask(question))
            self._unanswered = 0
            self._changed.notify_all()

    def _ask(self, question: Any) -> bool:
        """Start the thread that asks, and return whether there is one."""
        if self._asking is None:
            self._asking = threading.Thread(
                target=self._ask_until_answered, args=(question,), name='rucio-s3-breaker', daemon=True
            )
            try:
                self._asking.start()
            except RuntimeError:  # no room for a thread: the next request finds out
                self._asking = None
        return self._asking is not None

    def _ask_until_answered(self, question: Any) -> None:
        pause = threading.Event()
        try:
            while not _answers(question):
                with self._changed:
                    self._set_silent(True)
                    self._changed.notify_all()
                pause.wait(PAUSE)
        finally:
            with self._changed:
                self._set_silent(False)
                self._asking, self._unanswered = None, 0
                self._answers += 1
                self._changed.notify_all()


def _answers(question: Any) -> bool:
    """Return whether the storage answers at all, or refuses connections, in little time."""
    began = time.monotonic()
    try:
        question()
    except (*_SILENCE, StorageSilentError):
        return False
    except ClientError as error:
        failed = status_of(error) >= SERVER_ERROR
    except Exception:  # noqa: BLE001 - a refused connection, an answer that cannot be read; or no keys to ask with
        failed = True
    else:
        return True
    return not failed or time.monotonic() - began <= SLOW_FAILURE
