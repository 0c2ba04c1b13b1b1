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

"""What uploads and downloads share: chunks that follow each other, and the text of an error."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rucio.common.exception import RucioException

__all__ = ['LARGE_AT_ONCE', 'behind', 'message']

LARGE_AT_ONCE = 2  # large files, each with many requests at once

_Item = TypeVar('_Item')


def behind(number: int, items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield each item when so many others have come after it.

    :param number: The number of others.
    :param items: The items.
    """
    waiting: deque[_Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > number:
            yield waiting.popleft()
    yield from waiting


def message(error: RucioException) -> str:
    """Return the text of an exception, without Rucio's general one for its class.

    :param error: The exception.
    """
    return str(error.args[0]) if error.args else str(error)
