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

from rucio.common.s3.content import Checksums
from rucio.db.sqla.constants import RequestState

if TYPE_CHECKING:
    from rucio.common.types import InternalScope

__all__ = ['Outcome', 'Source', 'Transfer']


class Source(NamedTuple):
    """A source of a file.

    :param url: The PFN from the submitter.
    :param rse: The name of the RSE, for messages.
    """

    rse_id: str
    url: str
    rse: str = ''


class Transfer(NamedTuple):
    """A submitted request: one file to copy to one RSE.

    :param id: The id of Rucio's request.
    :param external_id: The id that the transfertool gave it: it changes when the request is submitted again.
    :param bytes: The size in the catalogue.
    :param checksums: The checksums in the catalogue.
    :param dest_url: The PFN from the submitter.
    :param sources: In the order in which to try them.
    :param dest_rse: The name of the RSE, for messages.
    """

    id: str
    external_id: str
    scope: 'InternalScope'
    name: str
    bytes: int
    checksums: Checksums
    dest_rse_id: str
    dest_url: str
    sources: tuple[Source, ...]
    dest_rse: str = ''

    def __str__(self) -> str:
        return f'{self.scope}:{self.name} (request {self.id})'


class Outcome(NamedTuple):
    """The outcome of a transfer.

    :param started: UTC, without a time zone, as in Rucio's tables; ``ended`` as well.
    :param source: The source that was used; after a failure, the first one.
    :param error: Why it failed; empty if it succeeded.
    :param how: ``copied`` inside the storage, ``relayed``, or ``found`` at the destination.
    """

    started: datetime
    ended: datetime
    source: Source
    error: str = ''
    how: str = ''

    @property
    def state(self) -> RequestState:
        """Return the state of the request after this outcome."""
        return RequestState.FAILED if self.error else RequestState.DONE
