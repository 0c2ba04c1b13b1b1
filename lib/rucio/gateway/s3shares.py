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

"""The gateway of the REST interface for what is shared with an account, and by it: see :mod:`rucio.gateway.s3`."""

from typing import TYPE_CHECKING, Any, Optional

from rucio.common.constants import DEFAULT_VO
from rucio.common.s3 import api
from rucio.common.types import InternalAccount
from rucio.core.s3.auth import grants, shares
from rucio.core.s3.buckets.places import locate_all
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ['list_shared', 'list_usable']


def list_usable(asked: api.ListUsable, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """List the scopes of the issuer, and what others share with it. No request to a storage.

    Some queries; with the places, those of :func:`.places.locate_all`.
    """
    account = InternalAccount(issuer, vo=vo)
    with db_session(DatabaseOperationType.READ) as session:
        return _described(account, *shares.list_usable(account, session=session), asked.places, session)


def list_shared(asked: api.ListShared, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """List the grants of the scopes of the issuer. No request to a storage; the queries of :func:`list_usable`.

    :raises UnsupportedOperation: if the operator has not created the table of grants.
    """
    account = InternalAccount(issuer, vo=vo)
    with db_session(DatabaseOperationType.READ) as session:
        grants.need_table(session=session)
        return _described(account, *shares.list_shared(account, session=session), asked.places, session)


def _described(
    account: InternalAccount, found: list[shares.Share], more: bool, places: bool, session: 'Session'
) -> dict[str, Any]:
    where = locate_all(account, [each[:2] for each in found], session=session) if places else {}
    rows = [
        {
            'scope': str(share.scope),
            'name': share.name,
            **_grant(account, share.grant),
            'places': where.get(share[:2], []),
        }
        for share in found
    ]
    return {'shares': rows, 'more': more}


def _grant(account: InternalAccount, grant: Optional[grants.Grant]) -> dict[str, Any]:
    own = {'kind': 'own', 'account': str(account), 'write': True, 'by': None, 'at': None, 'until': None, 'ended': False}
    return own if grant is None else grant._asdict()
