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

"""Rucio's tokens: whose they are, and where more must be known than whether they are valid."""

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Optional, cast

from sqlalchemy import select

from rucio.common.exception import CannotAuthenticate
from rucio.common.s3.webidentity import claims_of
from rucio.core import authentication
from rucio.db.sqla import models

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ['Owner', 'has_expired', 'remembered']


class Owner(NamedTuple):
    """Who has a token."""

    account: str
    vo: str
    identity: Optional[str]


class _DatabaseNeededError(Exception):
    pass


class _NoDatabase:
    def __getattr__(self, name: str) -> NoReturn:
        raise _DatabaseNeededError


def remembered(token: str) -> Optional[Owner]:
    """Return who has a token that Rucio has in its cache of tokens. None: Rucio has to be asked.

    What makes a token valid, and for how long it is cached, is Rucio's: this calls its function, but without a session
    of the database, which costs as much as a signature. No query.

    :param token: A token of Rucio, or a JSON web token.
    """
    try:
        found: Any = authentication.validate_auth_token(token, session=cast('Session', _NoDatabase()))
    except (_DatabaseNeededError, CannotAuthenticate):
        return None
    return Owner(found['account'].external, found['account'].vo, found.get('identity'))


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
