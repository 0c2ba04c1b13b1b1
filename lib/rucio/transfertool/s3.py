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

# the external_host of requests, where FTS has its URL; followed by a claim once an instance has one
EXTERNAL_HOST = 'rucio-s3-copier'


class S3Transfertool(Transfertool):
    """Copies between two S3 RSEs. No method makes a request or a query."""

    external_name = 's3'
    required_rse_attrs = ()
    supported_schemes = {'https', 'http', 'davs', 's3', 's3s'}  # noqa: RUF012 - as in Rucio

    def __init__(self, external_host: str = EXTERNAL_HOST, logger: 'LoggerFunction' = logging.log) -> None:
        super().__init__(external_host=external_host, logger=logger)

    @classmethod
    def can_perform_transfer(cls, source_rse: 'RseData', dest_rse: 'RseData') -> bool:
        """Whether both are S3 RSEs: Rucio's preparer asks. No query where their protocols were read before."""
        return all(
            any(speaks_s3(each) for each in rse.ensure_loaded(load_info=True).info['protocols'])
            for rse in (source_rse, dest_rse)
        )

    @classmethod
    def submission_builder_for_path(
        cls, transfer_path: 'list[DirectTransfer]', logger: 'LoggerFunction' = logging.log
    ) -> 'tuple[list[DirectTransfer], Optional[TransferToolBuilder]]':
        """Take the first hop of a path, if both of its ends are S3 RSEs."""
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

    def group_into_submit_jobs(self, transfer_paths: 'Iterable[list[DirectTransfer]]') -> list[dict[str, Any]]:
        """One job for each file: each has an outcome of its own."""
        return [{'transfers': [hop], 'job_params': {}} for path in transfer_paths for hop in path]

    def submit(
        self, transfers: 'Iterable[DirectTransfer]', job_params: dict[str, str], timeout: Optional[int] = None
    ) -> str:
        """:returns: A new id. Nothing moves yet: the daemon finds the request when its state is SUBMITTED."""
        return str(generate_uuid())

    def bulk_query(
        self, requests_by_eid: 'Mapping[str, Mapping[str, Any]]', timeout: Optional[int] = None
    ) -> 'dict[str, dict[str, TransferStatusReport]]':
        """Nothing new, of any: the daemon writes what becomes of a request by itself."""
        return {external_id: {} for external_id in requests_by_eid}

    def query(self, transfer_ids: 'Sequence[str]', details: bool = False, timeout: Optional[int] = None) -> None:
        """Nothing, as with :meth:`bulk_query`."""

    def cancel(self, transfer_ids: 'Sequence[str]', timeout: Optional[int] = None) -> None:
        """Nothing: the daemon sees that the request is gone."""

    def update_priority(self, transfer_id: str, priority: int, timeout: Optional[int] = None) -> None:
        """Nothing: the daemon goes by the priority in the request."""


def is_s3(protocol: 'RSEProtocol') -> bool:
    """Whether a protocol is a class of this project."""
    return speaks_s3(protocol.attributes)
