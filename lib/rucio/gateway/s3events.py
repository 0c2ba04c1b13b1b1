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

"""The gateway of the event notifications of storages: validates the token, and updates the catalogue.

The client is a storage, not an account.
"""

from typing import TYPE_CHECKING, Any, Optional

from rucio.common.constants import DEFAULT_VO
from rucio.common.exception import CannotAuthenticate, ConfigurationError, RSENotFound
from rucio.common.s3.answers import line_logger
from rucio.core.s3 import storages
from rucio.core.s3.events import events
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

if TYPE_CHECKING:
    from rucio.core.s3.storages import Storage

__all__ = ['MAX_BODY', 'RETRY_LATER', 'complain', 'take_events']

_LOGGER = line_logger(__name__)

MAX_BODY = events.MAX_BODY
RETRY_LATER = events.RETRY_LATER
complain = events.warn_limited
_LONGEST_NAME = 255  # of an RSE


def take_events(rse: str, body: bytes, token: Optional[str] = None, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Process the S3 event records of a storage.

    :param rse: The RSE.
    :param body: The body of the request.
    :param token: The token in the request; None: each record must have it as its ``opaqueData``.
    :param vo: The VO of the RSE.
    :returns: ``records``, of which ``skipped`` were ignored, and ``counts``: what was found and done, if not 0.
    :raises CannotAuthenticate: if the token is not that of the RSE.
    :raises InputValidationError: if the body is not an event notification.
    :raises ServiceUnavailable: or another one of :data:`RETRY_LATER`, if the storage or the database does not answer:
        the notification can be sent again.
    """
    storage = _storage(rse, vo)
    events.need_token(storage, events.find_token(body) if token is None else [token])
    batch = events.parse(body)
    if token is None:
        events.need_token(storage, batch.opaque)
    if storage is None:  # for mypy: need_token has refused it
        raise CannotAuthenticate
    for url in batch.confirmations[:1]:
        asked = f'SNS asks whether it may send its notifications. If you have subscribed this server, open {url}'
        events.warn_limited((storage.rse_id, 'SNS'), f'S3 events for RSE {rse}: {asked}')
    summary = events.process(storage, batch.changes)
    answer = {**batch.counts, 'counts': {kind: count for kind, count in summary.counts.items() if count}}
    _LOGGER.debug('S3 events for RSE %s: %s', rse, answer)
    return answer


def _storage(rse: str, vo: str) -> 'Optional[Storage]':
    if not f'{rse}{vo}'.isprintable() or max(len(rse), len(vo)) > _LONGEST_NAME:  # it would be logged
        return None
    with db_session(DatabaseOperationType.READ) as session:
        try:
            return storages.get_storage(rse, vo, session=session)
        except (RSENotFound, ConfigurationError) as error:
            events.warn_limited('no such RSE', f'S3 events were refused: {error.args[0] if error.args else error}')
            return None
