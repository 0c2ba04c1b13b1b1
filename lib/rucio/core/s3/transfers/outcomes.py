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
"""Reports the outcome of transfers to Rucio's finisher."""

import logging
from typing import TYPE_CHECKING, Any, Optional

from rucio.core.request import get_transfer_error
from rucio.core.rse import get_rse_name
from rucio.core.transfer import update_transfer_state
from rucio.db.sqla.constants import RequestState
from rucio.transfertool.s3 import S3Transfertool
from rucio.transfertool.transfertool import TransferStatusReport

from .requests import Outcome, Transfer

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from rucio.common.types import LoggerFunction
    from rucio.core.request import TransferStatsManager

__all__ = ['report']


class _Report(TransferStatusReport):
    """An outcome, in the form of Rucio's own transfertools."""

    supported_db_fields = ['state', 'external_id', 'started_at', 'transferred_at', 'source_rse_id', 'err_msg']  # noqa: RUF012 - as in Rucio

    def __init__(self, instance: str, transfer: Transfer, outcome: Outcome) -> None:
        super().__init__(transfer.id)
        self._instance = instance
        self._transfer = transfer
        self._outcome = outcome
        self.external_id: Optional[str] = None
        self.started_at: Optional[datetime] = None
        self.transferred_at: Optional[datetime] = None
        self.source_rse_id: Optional[str] = None
        self.err_msg: Optional[str] = None

    def __str__(self) -> str:
        return f'Transfer {self._transfer.external_id} of {S3Transfertool.external_name}'

    def initialize(self, session: 'Session', logger: 'LoggerFunction' = logging.log) -> None:
        """Fill the fields, unless the outcome no longer counts.

        That is the case if the request was cancelled or resubmitted, or if the transfer failed here while another
        instance has the claim.
        """
        request, outcome = self.request(session), self._outcome
        if (
            not request
            or request['state'] != RequestState.SUBMITTED
            or request['external_id'] != self._transfer.external_id
        ):
            return
        if outcome.error and not str(request['external_host']).endswith(f'/{self._instance}'):
            return
        self.state: Any = outcome.state
        self.external_id = self._transfer.external_id
        self.started_at, self.transferred_at = outcome.started, outcome.ended
        self.source_rse_id = outcome.source.rse_id
        self.err_msg = get_transfer_error(outcome.state, outcome.error)

    def get_monitor_msg_fields(self, session: 'Session', logger: 'LoggerFunction' = logging.log) -> dict[str, Any]:
        """Return the fields of monitoring messages that are not in the request."""
        self.ensure_initialized(session, logger)
        transfer, outcome = self._transfer, self._outcome
        return {
            'src-rse': get_rse_name(outcome.source.rse_id, session=session),
            'src-url': outcome.source.url or None,
            'dst-url': transfer.dest_url,
            'reason': outcome.error or None,
            'started_at': self.started_at,
            'transferred_at': self.transferred_at,
        }


def report(
    instance: str,
    transfer: Transfer,
    outcome: Outcome,
    stats: 'TransferStatsManager',
    *,
    logger: 'LoggerFunction' = logging.log,
) -> bool:
    """Report the outcome of a transfer to Rucio's finisher. A few queries, in its own session.

    :param instance: The name of the copier that carried it out.
    :param transfer: The transfer.
    :param outcome: Its outcome.
    :param stats: Rucio's statistics of transfers, to which it is added.
    :param logger: Where Rucio logs.
    :returns: False if the report failed (see the log), and has to be repeated. True also if the request was deleted: it
        needs no outcome.
    """
    written: Optional[int] = update_transfer_state(
        tt_status_report=_Report(instance, transfer, outcome), stats_manager=stats, logger=logger
    )
    return written is not None
