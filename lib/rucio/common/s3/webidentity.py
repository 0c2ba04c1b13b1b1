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

"""Authorisation by the user's own OIDC token at the storage's STS.

No Rucio server takes part; the storage decides what the user may do.
"""

import base64
import hashlib
import json
import re
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from rucio.common.exception import InputValidationError

from . import botocore_internals, sts
from .authorizer import WithKeys
from .dates import to_text
from .factory import bare_session
from .secrecy import need_private

if TYPE_CHECKING:
    from botocore.credentials import Credentials

    from .endpoint import Endpoint

__all__ = ['WebIdentity', 'claims_of']


class WebIdentity(WithKeys):
    """Keys of the role ``web_identity_role_arn``, for an OIDC token (AssumeRoleWithWebIdentity).

    Cost: one request to the STS when keys are first needed, and one before they expire. The token may be renewed in the
    meantime: the newest of the same user in this process is used.

    :param endpoint: The storage; keys are requested for its ``credentials_lifetime``, in seconds.
    :param token: A JSON web token.
    :raises InputValidationError: if it is not one.
    :raises ConfigurationError: if the STS is not reached by https.
    """

    name = 'web-identity'
    RENEWED = (300, 120)  # seconds before they expire: their lifetime may not be much longer

    _newest: ClassVar[dict[str, tuple[float, str]]] = {}  # identity -> when the token expires, the token
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, endpoint: 'Endpoint', token: str) -> None:
        need_private(endpoint.sts_url, f'RSE {endpoint.rse}: the OIDC token', sts.STS_BY_HTTPS)
        self._endpoint = endpoint
        self._keys = botocore_internals.renewed_keys(self._refreshed, *self.RENEWED)
        self._role = endpoint.web_identity_role_arn or ''
        claims = _claims(endpoint, token)
        who = '\0'.join(str(part) for part in (claims.get('iss'), claims.get('sub'), endpoint.sts_url, self._role))
        self.identity = f'web-identity:{hashlib.sha256(who.encode()).hexdigest()[:16]}'
        self._name = re.sub(r'[^\w+=,.@-]', '-', f'rucio-{claims.get("sub", "")}', flags=re.ASCII)[:64]
        with self._lock:
            ends = float(claims.get('exp') or time.time())
            if ends >= self._newest.get(self.identity, (0.0, ''))[0]:
                self._newest[self.identity] = (ends, token)

    def credentials(self) -> 'Credentials':
        """Return the keys, which renew themselves."""
        return self._keys

    def _refreshed(self) -> dict[str, str]:
        """Get new keys in the format of botocore, which asks for them from one thread at a time."""
        region = self._endpoint.signing_region()
        client = sts.client(self._endpoint, bare_session(None), region)
        token = self._newest[self.identity][1]
        keys = sts.assume_role_with_web_identity(
            self._endpoint, client, self._role, self._name, token, self._endpoint.credentials_lifetime
        )
        return {
            'access_key': keys.access_key,
            'secret_key': keys.secret_key,
            'token': keys.session_token,
            'expiry_time': to_text(keys.expiration),
        }


def _claims(endpoint: 'Endpoint', token: str) -> dict[str, Any]:
    """Return the claims of a token. They are not verified here, but by the storage."""
    claims = claims_of(token)
    if claims is None:
        raise InputValidationError(
            f'RSE {endpoint.rse}: the token is not a JSON web token. Log in to Rucio with auth_type = oidc.'
        )
    return claims


def claims_of(token: str) -> Optional[dict[str, Any]]:
    """Return the claims of a JSON web token, which are not verified; None if it is another token.

    :param token: The token.
    """
    claims: Optional[Any] = None
    with suppress(IndexError, ValueError, RecursionError):
        part = token.split('.')[1]
        claims = json.loads(base64.urlsafe_b64decode(part + '=' * (-len(part) % 4)))
    return claims if isinstance(claims, dict) else None
