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

"""The Adler-32 of objects that are written: of a whole body, and of the parts of a multipart upload. No requests."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import ClassVar, NamedTuple, Optional

from rucio.common.s3.checksums import combine_adler32

from .answers import root_of

__all__ = ['Parts', 'Sum', 'listed_parts']

_MOST_PARTS = 10_000  # of an upload, as S3 allows


class Sum(NamedTuple):
    """Size in bytes and Adler-32 of a content."""

    size: int = 0
    adler32: int = 1

    def then(self, other: 'Sum') -> 'Sum':
        """Return the sum of two contents one after the other.

        :param other: The second one.
        """
        return Sum(self.size + other.size, combine_adler32(self.adler32, other.adler32, other.size))


class Parts:
    """The sums of the parts of uploads that are under way. If there are too many parts, the oldest upload is forgotten.

    About 200 bytes for each part.
    """

    MOST: ClassVar[int] = 100_000

    def __init__(self) -> None:
        self._uploads: OrderedDict[str, dict[str, tuple[str, Sum]]] = OrderedDict()
        self._number = 0

    def note(self, upload: str, number: str, etag: str, content: Sum) -> None:
        """Remember the sum of a part.

        :param upload: The id of the upload.
        :param number: The number of the part.
        :param etag: The ETag of the part.
        :param content: Its sum.
        """
        parts = self._uploads.setdefault(upload, {})
        self._number += number not in parts
        parts[number] = (etag.strip('"'), content)
        while self._number > self.MOST:
            self.forget(next(iter(self._uploads)))

    def whole(self, upload: str, listed: Iterable[tuple[str, str]]) -> Optional[Sum]:
        """Return the sum of the object, or None if that of a part is not known.

        :param upload: The id of the upload.
        :param listed: The numbers and ETags of the parts of the object.
        """
        parts, found = self._uploads.get(upload, {}), Sum()
        for number, etag in listed:
            known, content = parts.get(number, ('', Sum()))
            if known != etag.strip('"') or not known:
                return None
            found = found.then(content)
        return found if found.size else None

    def forget(self, upload: str) -> None:
        """Forget an upload that has ended.

        :param upload: Its id.
        """
        self._number -= len(self._uploads.pop(upload, {}))


def listed_parts(body: bytes) -> list[tuple[str, str]]:
    """Return the parts in the body of a CompleteMultipartUpload; none if it is not right.

    :param body: The body.
    """
    try:
        parts = root_of(body).findall('Part')
    except ValueError:
        return []
    found = [((each.findtext('PartNumber') or '').strip(), (each.findtext('ETag') or '').strip()) for each in parts]
    return found if len(found) <= _MOST_PARTS else []
