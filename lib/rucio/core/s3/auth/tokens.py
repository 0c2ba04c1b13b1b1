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

"""Rucio's tokens, where more must be known than whether they are valid."""

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from sqlalchemy import select

from rucio.common.s3.webidentity import claims_of
from rucio.db.sqla import models

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ['has_expired']


def has_expired(token: str, *, session: 'Session') -> bool:
    """Return whether a token that Rucio refuses has only expired: its user needs a new one, and no other role.

    One query. Signatures are not verified.

    :param token: A token of Rucio, or a JSON web token.
    :param session: The database session in use.
    """
    if claims := claims_of(token):
        ends = claims.get('exp')
        return isinstance(ends, (int, float)) and ends < time.time()
    known = session.execute(select(models.Token.expired_at).where(models.Token.token == token.strip())).scalar()
    return known is not None and known < datetime.now(timezone.utc).replace(tzinfo=None)
