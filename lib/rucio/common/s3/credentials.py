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

"""The ways of being authorised by a storage that need no server, and the choice between all ways.

A new way is a subclass of :class:`.authorizer.Authorizer` and a line in :func:`choose`. This module sends no requests
to storages; if there are no keys, it asks the Rucio server what it offers.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Optional, Union

import botocore.session
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError

from rucio.common.config import get_rse_credentials
from rucio.common.exception import (
    ConfigurationError,
    ErrorLoadingCredentials,
    RSEAccessDenied,
    RSENotFound,
    RSEOperationNotSupported,
)

from . import address, own_config
from .answers import line_logger
from .authorizer import Authorizer, Request, RucioServer, WithKeys, payload_of, without_signature
from .errors import Target
from .factory import bare_session, user_session

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ['Anonymous', 'Presigned', 'Profile', 'RSEAccounts', 'Static', 'choose']

_LOGGER = line_logger(__name__)


class Static(WithKeys):
    """Keys from rucio.cfg."""

    name = 'static'

    def __init__(self, access_key: str, secret_key: str, session_token: Optional[str] = None) -> None:
        self._credentials = Credentials(access_key, secret_key, session_token, method='rucio.cfg')
        digest = hashlib.sha256('\0'.join((access_key, secret_key, session_token or '')).encode()).hexdigest()
        self.identity = f'static:{digest[:16]}'

    def credentials(self) -> Credentials:
        """Return the keys."""
        return self._credentials


class Profile(WithKeys):
    """A profile of ~/.aws, used as AWS tools do (assumed roles, credential_process, renewal)."""

    name = 'static'

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self.identity = f'profile:{profile}'

    def session(self) -> botocore.session.Session:
        """Make a botocore session with the profile."""
        return user_session(self._profile)

    @cached_property
    def _session(self) -> botocore.session.Session:
        return self.session()

    @property
    def region(self) -> Optional[str]:  # type: ignore[override]
        """The region of the profile. Reads ``~/.aws``."""
        with suppress(BotoCoreError):  # of a profile that is missing, session() says so
            region: Optional[str] = self._session.get_config_variable('region')
            return region
        return None

    def credentials(self) -> Credentials:
        """Return the keys of the profile.

        :raises RSEAccessDenied: if it has none.
        """
        found: Optional[Credentials] = self._session.get_credentials()
        if found is None:
            raise RSEAccessDenied(
                f"The AWS profile '{self._profile}' has no keys. Set aws_access_key_id and aws_secret_access_key in "
                'it, or another profile in rucio.cfg.'
            )
        return found


class _RotatingCredentials(Credentials):
    """The keys of an RSE from rse-accounts.cfg, read again once a minute: daemons need no restart for new keys."""

    SECONDS = 60

    def __init__(self, rse_id: str, account: dict[str, Any]) -> None:
        super().__init__(account['access_key'], account['secret_key'], method='rse-accounts.cfg')
        self._rse_id = rse_id
        self._read = time.monotonic()
        self._current = ReadOnlyCredentials(account['access_key'], account['secret_key'], None)

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        if time.monotonic() - self._read > self.SECONDS:
            self._read = time.monotonic()
            with suppress(ConfigurationError):  # being written: the old keys may still be valid
                if account := _rse_account(self._rse_id):
                    self._current = ReadOnlyCredentials(account['access_key'], account['secret_key'], None)
        return self._current


def _rse_account(rse_id: str) -> Optional[dict[str, Any]]:
    try:
        account = get_rse_credentials().get(rse_id)
    except ErrorLoadingCredentials as error:
        if isinstance(error.args[0], FileNotFoundError):
            return None  # the usual case on a client
        raise ConfigurationError(
            f'rse-accounts.cfg cannot be read: {error.args[0]}. It must be a JSON object of RSE ids.'
        ) from None
    if not isinstance(account, dict) or ('access_key' not in account and 'secret_key' not in account):
        return None  # other kinds of storage have entries as well
    if not account.get('access_key') or not account.get('secret_key'):
        raise ConfigurationError(
            f'rse-accounts.cfg has only one of access_key and secret_key for the RSE id {rse_id}. Set both.'
        )
    return account


class RSEAccounts(WithKeys):
    """Keys from Rucio's rse-accounts.cfg, by RSE id, as used by servers and daemons."""

    name = 'static'

    def __init__(self, rse_id: str, account: dict[str, Any]) -> None:
        self._credentials = _RotatingCredentials(rse_id, account)
        self.region = account.get('region') or None
        self.identity = f'rse-accounts:{rse_id}'
        own_config.warn_of_accounts(_LOGGER.log)

    def credentials(self) -> Credentials:
        """Return the keys."""
        return self._credentials


class Anonymous(Authorizer):
    """No authorisation, for public buckets."""

    name = 'anonymous'
    signed = False
    covers_bodies = False
    identity = 'anonymous'

    def authorise(self, request: Request) -> Request:
        """Remove the signature of a request.

        :param request: The request.
        :returns: The request without a signature.
        """
        headers, payload = without_signature(request.headers), payload_of(request)
        if payload.startswith('STREAMING-'):  # tells how the body is written, also where nobody signs it
            headers['X-Amz-Content-SHA256'] = payload
        return request._replace(headers=headers)

    def session(self) -> botocore.session.Session:
        """Make a botocore session without keys."""
        return bare_session(None)


class Presigned(Authorizer):
    """URLs that somebody else signed, each for one object and GET, PUT or DELETE.

    The client builds its requests as usual, but they are sent to the signed URL. Headers that S3 wants signed
    (``x-amz-...``) are not added, so the storage gets no checksum.
    """

    name = 'presigned'
    signed = False
    covers_bodies = False
    whole_objects_only = True
    identity = 'presigned'

    OPERATIONS: ClassVar[dict[str, str]] = {'GET': 'read', 'PUT': 'write', 'DELETE': 'delete'}
    REMEMBERED = 10_000  # URLs; a transfer needs its URL as long as it runs

    def __init__(self) -> None:
        self._urls: OrderedDict[tuple[str, str, str], str] = OrderedDict()
        self._lock = threading.Lock()

    def offer(self, operation: str, target: Target, url: str) -> None:
        """Use a signed URL for an operation on an object from now on.

        :param operation: read, write or delete.
        :param target: The object.
        :param url: The signed URL.
        """
        with self._lock:
            self._urls[operation, target.bucket, target.key] = url
            self._urls.move_to_end((operation, target.bucket, target.key))
            while len(self._urls) > self.REMEMBERED:
                self._urls.popitem(last=False)

    def session(self) -> botocore.session.Session:
        """Make a botocore session without keys."""
        return bare_session(None)

    def authorise(self, request: Request) -> Request:
        """Replace the URL of a request by the signed one.

        :param request: The request.
        :returns: The request to the signed URL.
        :raises RSEOperationNotSupported: if there is no signed URL for it.
        """
        bucket, key, query = address.parse_request(request.url, '')
        operation = '' if query else self.OPERATIONS.get(request.method, '')
        with self._lock:
            url = self._urls.get((operation, bucket, key))
        if url is None:
            raise RSEOperationNotSupported(
                f"There is no signed URL for {request.method} of bucket '{bucket}', key '{key}': "
                'signed URLs are for GET, PUT and DELETE of one object. '
                'Configure keys for this RSE (rucio.cfg [s3:RSE]).'
            )
        return request._replace(url=url, headers=without_signature(request.headers))


class _Offer(NamedTuple):
    until: float  # of time.monotonic
    ways: tuple[str, ...]
    region: Optional[str]


_offers: dict[tuple[str, str], _Offer] = {}
_offers_lock = threading.Lock()
_OFFER_SECONDS = 600  # the offer of a server only changes with its configuration


def _offered(endpoint: 'Endpoint', server: RucioServer) -> _Offer:
    """Return what the server offers for an RSE. It is asked once, even by many threads."""
    key = (server.identity, endpoint.rse)
    with _offers_lock:
        offer = _offers.get(key)
        if offer is None or time.monotonic() > offer.until:
            try:
                answer: Mapping[str, Any] = server.get_s3_rse(endpoint.rse)
            except (RSENotFound, RSEOperationNotSupported):  # it has no plugin, or does not serve this RSE
                answer = {}
            offer = _Offer(
                time.monotonic() + _OFFER_SECONDS, tuple(answer.get('auth') or ()), answer.get('region') or None
            )
            _offers[key] = offer
        return offer


# A server, or a function that makes it when it is needed, as that reads files and may log in.
Server = Union[RucioServer, Callable[[], Optional[RucioServer]], None]


def choose(
    endpoint: 'Endpoint', server: Server = None, token: Optional[str] = None, sign_url: bool = False
) -> Optional[Authorizer]:
    """Choose how to be authorised at a storage, by the setting ``auth``.

    ``auto`` takes the first of: keys, signed URLs if the RSE has the attribute ``sign_url``, the server's offer (vended
    keys, signed requests), the user's OIDC token.

    :param endpoint: The storage.
    :param server: The Rucio server, or a function that makes it. It is asked once for each RSE, and only if there are
        no keys.
    :param token: The user's OIDC token.
    :param sign_url: Whether the RSE has the attribute ``sign_url``.
    :returns: The first way that is available, or None if only signed URLs are.
    :raises ConfigurationError: if only one half of a key is set.
    :raises RSEAccessDenied: if the setting names a way that is not configured.
    """
    if endpoint.auth in ('auto', 'static'):
        if static := _static(endpoint):
            return static
        if endpoint.auth == 'static':
            raise RSEAccessDenied(
                f"RSE {endpoint.rse}: 'auth' is static, but there are no keys. "
                f'Set access_key and secret_key, or profile, in rucio.cfg [s3:{endpoint.rse}].'
            )
        return None if sign_url else _without_keys(endpoint, _made(server), token)
    if endpoint.auth == 'presigned':
        return None
    if endpoint.auth == 'anonymous':
        return Anonymous()
    return _named(endpoint, _made(server), token)


def _made(server: Server) -> Optional[RucioServer]:
    return server() if callable(server) else server


def _without_keys(endpoint: 'Endpoint', server: Optional[RucioServer], token: Optional[str]) -> Optional[Authorizer]:
    offer = _offered(endpoint, server) if server else None
    if server and offer and 'vended' in offer.ways:
        return _vended(endpoint, server, offer.region)
    if server and offer and 'remote' in offer.ways:
        return _remote(endpoint, server, offer.region)
    if token and token.startswith('eyJ') and endpoint.web_identity_role_arn:  # a JSON web token, not a Rucio token
        return _web_identity(endpoint, token)
    return None


def _named(endpoint: 'Endpoint', server: Optional[RucioServer], token: Optional[str]) -> Authorizer:
    """Return the way that the setting names."""
    if endpoint.auth == 'web-identity':
        if not token:
            raise RSEAccessDenied(
                f"RSE {endpoint.rse}: 'auth' is web-identity, but there is no OIDC token. "
                'Log in to Rucio with auth_type = oidc.'
            )
        if not endpoint.web_identity_role_arn:
            raise RSEAccessDenied(
                f"RSE {endpoint.rse}: 'auth' is web-identity, but no role is known. "
                "Set 'web_identity_role_arn' in the RSE's 's3' settings."
            )
        return _web_identity(endpoint, token)
    if server is None:
        raise RSEAccessDenied(
            f"RSE {endpoint.rse}: 'auth' is {endpoint.auth}, which is only for clients of a Rucio server. "
            'On a server or daemon, put keys into rse-accounts.cfg.'
        )
    region = None if endpoint.region else _offered(endpoint, server).region
    return _vended(endpoint, server, region) if endpoint.auth == 'vended' else _remote(endpoint, server, region)


# Most processes do not need these modules.


def _vended(endpoint: 'Endpoint', server: RucioServer, region: Optional[str]) -> Authorizer:
    from .vended import Vended  # noqa: PLC0415

    return Vended(endpoint, server, region)


def _remote(endpoint: 'Endpoint', server: RucioServer, region: Optional[str]) -> Authorizer:
    from .remote import Remote  # noqa: PLC0415

    return Remote(endpoint, server, region)


def _web_identity(endpoint: 'Endpoint', token: str) -> Authorizer:
    from .webidentity import WebIdentity  # noqa: PLC0415

    return WebIdentity(endpoint, token)


def _static(endpoint: 'Endpoint') -> Optional[Authorizer]:
    secrets = endpoint.secrets
    if bool(secrets.access_key) != bool(secrets.secret_key):
        raise ConfigurationError(f'RSE {endpoint.rse}: rucio.cfg has only one of access_key and secret_key. Set both.')
    if secrets.access_key and secrets.secret_key:
        return Static(secrets.access_key, secrets.secret_key, secrets.session_token)
    if secrets.profile:
        return Profile(secrets.profile)
    account = _rse_account(endpoint.rse_id)
    return RSEAccounts(endpoint.rse_id, account) if account else None
