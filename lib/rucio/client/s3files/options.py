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

"""What an upload and a download can be told alike."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Optional

from rucio.common.s3 import progress
from rucio.common.s3.answers import counted

from .filters import Filter

__all__ = ['Options', 'Progress']

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Options:
    """How to transfer many files.

    :param jobs: Files to transfer concurrently, of large ones two at once; None for as many as the latency of the
        storage asks for.
    :param chosen: Which files are meant, by their paths below the directory.
    :param dry_run: Change nothing: the summary has what would be transferred in ``planned``.
    :param checksum: Read all local files, also those that an earlier upload has noted and that have not changed since.
    :param on_progress: Called by any thread with the number of bytes of each step, negative ones if bytes have to be
        repeated. Without it, a terminal shows a progress bar.
    """

    jobs: Optional[int] = None
    chosen: Filter = field(default_factory=Filter)
    dry_run: bool = False
    checksum: bool = False
    on_progress: Optional[Progress] = None

    @contextmanager
    def meter(self, setting: str, number: int, size: int) -> Iterator[Optional[Progress]]:
        """Return a function to call with the number of bytes of each step; None if nobody wants to know.

        :param setting: The setting ``progress``.
        :param number: The number of files.
        :param size: Their size in bytes.
        """
        if self.on_progress is not None:
            yield self.on_progress
            return
        with progress.meter('off' if self.dry_run else setting, counted(number, 'file'), size) as step:
            yield step
