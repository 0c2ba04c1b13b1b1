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

"""The gateway of the health of the S3 plugin."""

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Optional

from rucio.common.constants import DEFAULT_VO
from rucio.common.s3 import api, monitoring
from rucio.common.s3.dates import to_text
from rucio.common.types import InternalAccount
from rucio.core.s3 import storages
from rucio.core.s3.auth import access
from rucio.core.s3.reconciler import progress
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from rucio.common.exception import ConfigurationError
    from rucio.core.s3.storages import Storage

__all__ = ['get_health', 'list_health']


def get_health(asked: api.GetHealth, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Return whether this process can reach the storages; for admins, the state of each. No request to a storage.

    :param asked: The request.
    :param issuer: The account; empty if there was no token. Then the database is not asked.
    :param vo: The VO of the account.
    """
    found: dict[str, Any] = {'status': 'degraded' if monitoring.any_silent() else 'ok', 'version': api.version()}
    if issuer:
        with db_session(DatabaseOperationType.READ) as session:
            if access.is_admin(InternalAccount(issuer, vo=vo), session=session):
                found['storages'] = list_health(vo, session=session)
    return found


def list_health(vo: str, *, session: 'Session') -> list[dict[str, Any]]:
    """List the health of each S3 RSE of a VO. The queries of :func:`.storages.list_storages`, and one for each RSE.

    :param vo: The VO.
    :param session: The database session.
    :returns: The fields of :class:`rucio.common.s3.api.StorageHealth`, sorted by RSE.
    """
    invalid: dict[str, ConfigurationError] = {}
    found = [_health(each, session) for each in storages.list_storages(vo, session=session, invalid=invalid)]
    found += [_described(rse, 'invalid') | {'failure': str(error.args[0])} for rse, error in invalid.items()]
    return sorted(found, key=lambda each: str(each['rse']))


def _health(storage: 'Storage', session: 'Session') -> dict[str, Any]:
    seen = monitoring.observed(storage.rse_id)
    rounds = progress.read_rounds(storage, session=session).values()
    return _described(storage.rse, _state(seen), seen) | {
        'waiting_since': _shown(min((each.since for each in rounds), default=None))
    }


def _described(rse: str, state: str, seen: Optional[monitoring.Observed] = None) -> dict[str, Any]:
    seen = seen or monitoring.Observed()
    return {
        'rse': rse,
        'state': state,
        'silent': sorted(seen.silent),
        'answered': _shown(seen.answered),
        'failed': _shown(seen.failed),
        'failure': seen.failure,
        'failure_id': seen.failure_id,
        'vended': _shown(seen.vended),
        'waiting_since': None,
    }


def _state(seen: monitoring.Observed) -> str:
    if seen.silent:
        return 'silent'
    if seen.answered is None and seen.failed is None:
        return 'unknown'
    return 'failing' if (seen.failed or 0) > (seen.answered or 0) else 'ok'


def _shown(moment: Optional[float]) -> Optional[str]:
    return None if moment is None else to_text(datetime.fromtimestamp(moment, timezone.utc))
