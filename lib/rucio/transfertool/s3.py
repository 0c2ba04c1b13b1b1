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

"""The transfertool ``s3``: transfers between S3 RSEs that the daemon ``rucio-s3-copier`` carries out, without FTS.

Rucio's submitter only marks the requests in the database, and so this class moves no bytes. The daemon finds them
(:mod:`rucio.core.s3.transfers.claims`), copies the files, and reports the outcome to Rucio's finisher.
"""

import logging
from typing import TYPE_CHECKING, Any, Optional

from typing_extensions import override

from rucio.common.s3.layout import IMPL, speaks_s3
from rucio.common.utils import generate_uuid
from rucio.db.sqla.constants import RequestType
from rucio.transfertool.transfertool import Transfertool, TransferToolBuilder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rucio.common.types import LoggerFunction
    from rucio.core.request import DirectTransfer
    from rucio.core.rse import RseData
    from rucio.rse.protocols.protocol import RSEProtocol
    from rucio.transfertool.transfertool import TransferStatusReport

__all__ = ['EXTERNAL_HOST', 'S3Transfertool', 'is_s3']

# The external_host of requests, where FTS has its URL; followed by a claim once an instance has one.
EXTERNAL_HOST = 'rucio-s3-copier'


class S3Transfertool(Transfertool):
    """Rucio's interface to the copier. No method sends a request or queries the database.

    What each method takes and returns is documented in :class:`rucio.transfertool.transfertool.Transfertool`.
    """

    external_name = 's3'
    required_rse_attrs = ()
    supported_schemes = {'https', 'http', 'davs', 's3', 's3s'}  # noqa: RUF012 - as in Rucio

    def __init__(self, external_host: str = EXTERNAL_HOST, logger: 'LoggerFunction' = logging.log) -> None:
        super().__init__(external_host=external_host, logger=logger)

    @classmethod
    @override
    def can_perform_transfer(cls, source_rse: 'RseData', dest_rse: 'RseData') -> bool:
        """Return whether both are S3 RSEs, for Rucio's preparer. No query if their protocols were read before."""
        return all(
            any(speaks_s3(each) for each in rse.ensure_loaded(load_info=True).info['protocols'])
            for rse in (source_rse, dest_rse)
        )

    @classmethod
    @override
    def submission_builder_for_path(
        cls, transfer_path: 'list[DirectTransfer]', logger: 'LoggerFunction' = logging.log
    ) -> 'tuple[list[DirectTransfer], Optional[TransferToolBuilder]]':
        """Accept the first hop of a path, if both of its ends are S3 RSEs."""
        hop = transfer_path[0]
        if hop.rws.request_type != RequestType.TRANSFER:
            return [], None
        if not is_s3(hop.source_protocol(hop.src)) or not is_s3(hop.dest_protocol()):
            logger(
                logging.INFO,
                '%s: the transfertool s3 needs the protocol class %sDefault at both ends. Skipping %s',
                hop.rws.request_id,
                IMPL,
                hop,
            )
            return [], None
        return [hop], TransferToolBuilder(cls, external_host=EXTERNAL_HOST)

    @override
    def group_into_submit_jobs(self, transfer_paths: 'Iterable[list[DirectTransfer]]') -> list[dict[str, Any]]:
        """Make one job for each file, as each has its own outcome."""
        return [{'transfers': [hop], 'job_params': {}} for path in transfer_paths for hop in path]

    @override
    def submit(
        self, transfers: 'Iterable[DirectTransfer]', job_params: dict[str, str], timeout: Optional[int] = None
    ) -> str:
        """Return a new id. The copier finds the requests when their state is SUBMITTED."""
        return str(generate_uuid())

    @override
    def bulk_query(
        self, requests_by_eid: 'Mapping[str, Mapping[str, Any]]', timeout: Optional[int] = None
    ) -> 'dict[str, dict[str, TransferStatusReport]]':
        """Report no changes, as the copier reports the outcome of a request itself."""
        return {external_id: {} for external_id in requests_by_eid}

    @override
    def cancel(self, transfer_ids: 'Sequence[str]', timeout: Optional[int] = None) -> None:
        """Do nothing, as the copier notices that a request was deleted."""

    @override
    def update_priority(self, transfer_id: str, priority: int, timeout: Optional[int] = None) -> None:
        """Do nothing, as the copier reads the priority of the request."""


def is_s3(protocol: 'RSEProtocol') -> bool:
    """Return whether the class of a protocol is one of this project.

    :param protocol: The protocol.
    """
    return speaks_s3(protocol.attributes)
