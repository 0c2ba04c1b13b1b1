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

"""The gateway of the Security Token Service: vends keys to clients that only know AWS's way of asking for them.

Who may, for what and how often is decided as for :func:`.s3.get_credentials`, which does it.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Optional

from rucio.common.constants import DEFAULT_VO
from rucio.common.exception import (
    AccessDenied,
    CannotAuthenticate,
    InsufficientAccountLimit,
    RSEOperationNotSupported,
)
from rucio.common.s3 import api
from rucio.common.s3.roles import Role
from rucio.core.s3.auth import tokens
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
from rucio.gateway import authentication, s3

if TYPE_CHECKING:
    from typing import Any

__all__ = ['ExpiredToken', 'assume_role', 'authenticate']


class ExpiredToken(CannotAuthenticate):
    """The token was valid."""


def authenticate(token: str) -> tuple[str, str]:
    """Return the account of a token, and its VO.

    :param token: A token of Rucio, or a JSON web token that it accepts.
    :raises ExpiredToken: if it was valid.
    :raises CannotAuthenticate: if it is not valid.
    """
    try:
        auth = authentication.validate_auth_token(token)
    except CannotAuthenticate:
        with db_session(DatabaseOperationType.READ) as session:
            expired = tokens.has_expired(token, session=session)
        if expired:
            raise ExpiredToken('The Rucio token has expired: `rucio s3 token --keep FILE` renews it.') from None
        raise CannotAuthenticate(
            'Rucio does not know this token: write it to the file with `rucio s3 token --keep FILE`, and check that '
            'AWS_ENDPOINT_URL_STS names the server that issued it.'
        ) from None
    return str(auth['account']), str(auth.get('vo') or DEFAULT_VO)


def assume_role(arn: str, lifetime: Optional[int], issuer: str, vo: str = DEFAULT_VO) -> 'dict[str, Any]':
    """Vend keys for a role: to write if the issuer may and has room, unless it is a read-only one.

    The requests of :func:`.s3.get_credentials`, and its exceptions.

    :param arn: The ARN of the role: see :mod:`rucio.common.s3.roles`.
    :param lifetime: Seconds; None: as long as the RSE allows.
    :param issuer: The account.
    :param vo: Its VO.
    :raises InputValidationError: if the role names no RSE and DID.
    :raises RSEOperationNotSupported: if the server cannot vend keys for the RSE.
    """
    role = Role.parse(arn)
    wanted = {'rse': role.rse, 'scope': role.scope, 'name': role.name, 'lifetime': lifetime}
    try:
        if not role.read_only:
            with suppress(AccessDenied, InsufficientAccountLimit):
                return s3.get_credentials(api.GetCredentials.read(wanted | {'write': True}), issuer, vo)
        return s3.get_credentials(api.GetCredentials.read(wanted), issuer, vo)
    except RSEOperationNotSupported as error:
        raise RSEOperationNotSupported(f'{error.args[0]} `rucio s3 serve` works without keys.') from None
