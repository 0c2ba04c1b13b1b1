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
"""Transfers between S3 RSEs that were submitted to the transfertool ``s3``, and their outcomes."""

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from rucio.common.s3.content import Sums
from rucio.db.sqla.constants import RequestState

if TYPE_CHECKING:
    from rucio.common.types import InternalScope

__all__ = ['Outcome', 'Source', 'Transfer']


class Source(NamedTuple):
    """A source of a file. ``url`` is the PFN from the submitter."""

    rse_id: str
    url: str
    rse: str = ''


class Transfer(NamedTuple):
    """A submitted request: one file to copy to one RSE. ``sources`` are in the order in which to try them."""

    id: str
    external_id: str
    scope: 'InternalScope'
    name: str
    bytes: int
    sums: Sums
    dest_rse_id: str
    dest_url: str
    sources: tuple[Source, ...]
    dest_rse: str = ''

    def __str__(self) -> str:
        return f'{self.scope}:{self.name} (request {self.id})'


class Outcome(NamedTuple):
    """The outcome of a transfer: ``error`` is empty if it succeeded. Times are UTC, without a time zone, as in
    Rucio's tables.
    """

    started: datetime
    ended: datetime
    source: Source
    error: str = ''
    how: str = ''  # copied, relayed or found

    @property
    def state(self) -> RequestState:
        return RequestState.FAILED if self.error else RequestState.DONE
