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

"""A behaviour of a storage: a function that asks it, and answers in a word or two."""

import base64
import hashlib
import threading
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from rucio.common.exception import RucioException

__all__ = ['KEPT', 'Behaviour', 'behaviour', 'code_of', 'crc32', 'md5', 'race', 'said', 'yes']

KEPT = 'yes'


@dataclass(frozen=True)
class Behaviour:
    """A behaviour, which is a row of docs/backends.md.

    :param section: The section of the document.
    :param text: The first cell of the row.
    :param meaning: The last cell: what it means to rucio-s3.
    :param run: Asks the storage at a :class:`.place.ProbeBucket`. Its answer must be the same each time.
    :param lucky: The answers that prove nothing, where luck has a part in it.
    :param needs: What the place must have: an own bucket (``own``), or keys to sign with (``signed``).
    """

    section: str
    text: str
    meaning: str
    run: Callable[[Any], str]
    lucky: Collection[str] = ()
    needs: Collection[str] = ()

    def __str__(self) -> str:
        return self.run.__name__

    def measure(self, place: Any) -> str:
        """Return what the storage answers; refusals, nonsense and silence are answers, too.

        :param place: Where to try it.
        """
        try:
            return self.run(place)
        except ClientError as error:
            return code_of(error)
        except HTTPClientError:
            return 'breaks off'
        except RucioException:
            return 'not allowed'
        except BotoCoreError as error:
            return f'unreadable ({type(error).__name__})'


def behaviour(
    section: str, text: str, meaning: str, lucky: Collection[str] = (), needs: Collection[str] = ()
) -> Callable[[Callable[[Any], str]], Behaviour]:
    """Make a :class:`Behaviour` of a function.

    :param section: The section of the document.
    :param text: The first cell of the row.
    :param meaning: The last cell.
    :param lucky: The answers that prove nothing.
    :param needs: What the place must have.
    """

    def made(run: Callable[[Any], str]) -> Behaviour:
        return Behaviour(section, text, meaning, run, lucky, needs)

    return made


def yes(condition: bool) -> str:
    """Return yes or no.

    :param condition: Which one.
    """
    return 'yes' if condition else 'no'


def said(call: Callable[[], Any], ok: str = 'yes') -> str:
    """Return ``ok`` if a call succeeds, or status and error code of the storage.

    :param call: The call.
    :param ok: The answer if it succeeds.
    """
    try:
        call()
    except ClientError as error:
        return code_of(error)
    return ok


def code_of(error: ClientError) -> str:
    """Return status and error code, such as ``412 PreconditionFailed``.

    :param error: The error.
    """
    status = error.response.get('ResponseMetadata', {}).get('HTTPStatusCode', '')
    code = error.response.get('Error', {}).get('Code', '')
    return f'{status} {code}'.strip() if code != str(status) else str(status)


def race(writers: int, write: Callable[[int], Any]) -> int:
    """Call a function in several threads at the same moment, and return how many succeeded.

    :param writers: The number of threads.
    :param write: The function, which gets the number of its thread.
    """
    start, won = threading.Barrier(writers), []

    def run(number: int) -> None:
        try:
            start.wait()
            write(number)
        except (ClientError, BotoCoreError, RucioException, KeyError, threading.BrokenBarrierError):
            return
        won.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(writers)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:  # Ctrl-C: those that wait for the others would do so forever
        start.abort()
        raise
    return len(won)


def crc32(content: bytes) -> str:
    """Return the CRC32 of some bytes as in ``x-amz-checksum-crc32``.

    :param content: The bytes.
    """
    return base64.b64encode(zlib.crc32(content).to_bytes(4, 'big')).decode()


def md5(content: bytes) -> str:
    """Return the MD5 of some bytes as in ``Content-MD5``.

    :param content: The bytes.
    """
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
