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

"""The S3 RSEs of this server, with their settings, credentials and layout.

The settings of an RSE are cached for some seconds, as signing needs them for every request.
"""

import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Optional

from botocore.credentials import ReadOnlyCredentials
from sqlalchemy import and_, false, or_, select

from rucio.common.exception import (
    ConfigurationError,
    RSEAccessDenied,
    RSEFileNameNotSupported,
    RSENotFound,
)
from rucio.common.s3 import authorizer, clients, credentials
from rucio.common.s3.answers import line_logger
from rucio.common.s3.endpoint import DAEMON, SERVER, SERVER_WORK, Endpoint, Patience
from rucio.common.s3.layout import IMPL, Layout, main_entries
from rucio.common.s3.secrecy import is_private
from rucio.core.rse import get_rse_protocols
from rucio.db.sqla import models
from rucio.rse.protocols.s3 import Default

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

__all__ = ['CACHE_SECONDS', 'Storage', 'get_storage', 'list_storages', 'speaks_s3']

# How long it may take until a new RSE, setting or key is noticed.
CACHE_SECONDS = 10
WARN_SECONDS = 600  # between warnings of the same RSE

_LOGGER = line_logger(__name__)


@dataclass(frozen=True, eq=False)
class Storage:
    """An S3 RSE.

    :param settings: The RSE as described by ``get_rse_info``.
    :param protocol: Its protocol entry for S3.
    :param patience: How long its connections wait and how often they try, where the settings do not say.
    """

    rse: str
    rse_id: str
    vo: str
    endpoint: Endpoint
    settings: dict[str, Any]
    protocol: dict[str, Any]
    patience: Patience = DAEMON

    @cached_property
    def _authorizer(self) -> Optional[authorizer.Authorizer]:
        """The server's own keys, whichever way clients are to use; anonymous if anybody can read the storage."""
        if self.endpoint.auth == 'anonymous':
            return credentials.Anonymous()
        try:
            return credentials.choose(replace(self.endpoint, auth='static'))
        except RSEAccessDenied:
            return None

    @property
    def ways(self) -> list[str]:
        """How the server can authorise clients: ``vended``, ``remote``, both or neither. Makes no request."""
        if self._authorizer is None or not self._authorizer.signed:
            return []
        vends = self.endpoint.role_arn and is_private(self.endpoint.sts_url)
        return (
            ['vended', 'remote']
            if vends and (self.layout.keeps_together or not self.layout.deterministic)
            else ['remote']
        )

    @property
    def region(self) -> str:
        """The region that is used in signatures."""
        return self.endpoint.signing_region(self._authorizer.region if self._authorizer else None)

    def _keys(self) -> authorizer.Authorizer:
        if self._authorizer is None:
            raise RSEAccessDenied(
                f'RSE {self.rse}: the Rucio server has no keys for this RSE. The operator has to add them to '
                f'rse-accounts.cfg, under the RSE id {self.rse_id}.'
            )
        return self._authorizer

    @property
    def identity(self) -> str:
        """Whose keys the server has for this RSE; contains no secret. Makes no request.

        :raises RSEAccessDenied: if it has none.
        """
        return self._keys().identity

    def connection(self, patience: Optional[Patience] = None) -> clients.Connection:
        """Return the client that uses the server's own keys, shared within this process. Makes no request.

        :param patience: Time-outs and number of attempts, unless the settings define them: ``SERVER`` while a REST
            request waits for the answer, ``DAEMON`` for long work such as listing and reading.
        :raises RSEAccessDenied: if the server has no keys for this RSE.
        """
        return clients.connect(self.endpoint, self._keys(), patience or self.patience)

    @cached_property
    def with_short_timeouts(self) -> 'Storage':
        """Return this storage with the time-outs of the Rucio server, for long work that a REST request waits for."""
        return replace(self, patience=SERVER_WORK)

    @cached_property
    def with_shortest_timeouts(self) -> 'Storage':
        """Return this storage with the time-outs of the Rucio server for small requests, such as a HEAD."""
        return replace(self, patience=SERVER)

    def credentials(self) -> ReadOnlyCredentials:
        """Return the current keys of the server, to sign requests with. They never leave the server.

        :raises RSEAccessDenied: if the server has no keys for this RSE.
        """
        keys = self._keys()
        if not isinstance(keys, authorizer.WithKeys):
            raise RSEAccessDenied(
                f'RSE {self.rse} is read without keys (auth = anonymous), so there is nothing to sign with: send the '
                'request unsigned.'
            )
        frozen: ReadOnlyCredentials = keys.credentials().get_frozen_credentials()
        return frozen

    @cached_property
    def _class(self) -> Default:
        return Default({**self.protocol, 'auth_token': None}, self.settings)  # type: ignore[arg-type]

    @cached_property
    def layout(self) -> Layout:
        """Where the DIDs of the RSE are stored."""
        return Layout(
            self.rse,
            self.protocol['prefix'],
            self.endpoint.bucket_prefix,
            self.settings['lfn2pfn_algorithm'],
            bool(self.settings['deterministic']),
            lambda lfn: self._class.lfns2pfns(lfn),  # noqa: PLW0108 - the class is created on first use
        )

    def need_name(self, bucket: str, key: str = '') -> None:
        """Refuse names that are reserved by the storage.

        Signed by the server, a request to ``/admin/...`` would reach the admin API of Ceph.

        :raises RSEFileNameNotSupported: if the name is reserved.
        """
        if bucket in self.endpoint.reserved_buckets:
            raise RSEFileNameNotSupported(
                f'RSE {self.rse}: storages of provider {self.endpoint.provider} may reserve the bucket name '
                f"'{bucket}', so the Rucio server neither creates such a bucket nor signs requests for it. Use another "
                "scope, or correct the setting 'provider'."
            )
        if key.startswith(self.endpoint.reserved_keys):
            raise RSEFileNameNotSupported(
                f"RSE {self.rse}: the key '{key}' is reserved by the storage. Use another name."
            )


_storages: dict[tuple[str, str], tuple[float, Storage]] = {}
_told: dict[tuple[str, str], float] = {}  # when it was logged that an RSE is left out


def list_storages(
    vo: str, *, session: 'Session', invalid: Optional[dict[str, ConfigurationError]] = None
) -> list[Storage]:
    """List the S3 RSEs of a VO, sorted by name, without those whose settings are invalid, which the log names.

    Costs one query, and a few more for each RSE that has not been loaded within :data:`CACHE_SECONDS`.

    :param vo: The VO.
    :param invalid: A dictionary to which the RSEs that are left out are added, with the reason.
    """
    stmt = (
        select(models.RSE.rse)
        .distinct()
        .join(models.RSEProtocol, models.RSEProtocol.rse_id == models.RSE.id)
        .where(_s3_rses_of(vo))
    )
    found = []
    for rse in sorted(session.execute(stmt).scalars()):
        try:
            found.append(get_storage(rse, vo, session=session))
        except RSENotFound:
            continue
        except ConfigurationError as error:
            _tell(rse, vo, error)
            if invalid is not None:
                invalid[rse] = error
    return found


def _tell(rse: str, vo: str, error: ConfigurationError) -> None:
    """Log why an RSE is left out, once in a while."""
    now = time.monotonic()
    if now - _told.get((vo, rse), -WARN_SECONDS) >= WARN_SECONDS:
        _told[vo, rse] = now
        _LOGGER.warning('S3: %s The RSE is skipped.', error.args[0])


def get_storage(rse: str, vo: str, *, session: 'Session') -> Storage:
    """Return an S3 RSE. Costs a few queries, unless it was loaded within :data:`CACHE_SECONDS`.

    :param rse: The RSE's name.
    :raises RSENotFound: if there is no such RSE, or it has no S3 protocol.
    :raises ConfigurationError: if its settings are invalid.
    """
    known = _storages.get((vo, rse))
    if known is None or time.monotonic() - known[0] > CACHE_SECONDS:
        storage = _load(rse, vo, session)
        if storage is None:
            raise RSENotFound(
                f"There is no S3 RSE '{rse}': no RSE of that name has a protocol of {IMPL[:-1]}. See: rucio rse list."
            )
        known = _storages[vo, rse] = (time.monotonic(), storage)
    return known[1]


def speaks_s3() -> 'ColumnElement[bool]':
    """Return the SQL condition for S3 entries in the table of protocols."""
    protocol = models.RSEProtocol
    return and_(protocol.impl.like(f'{IMPL}%'), or_(protocol.scheme == 'https', protocol.scheme == 'http'))


def _s3_rses_of(vo: str) -> 'ColumnElement[bool]':
    return and_(models.RSE.vo == vo, models.RSE.deleted == false(), speaks_s3())


def _load(rse: str, vo: str, session: 'Session') -> Optional[Storage]:
    stmt = (
        select(models.RSE.id)
        .join(models.RSEProtocol, models.RSEProtocol.rse_id == models.RSE.id)
        .where(models.RSE.rse == rse, _s3_rses_of(vo))
        .limit(1)
    )
    rse_id = session.execute(stmt).scalar()
    if rse_id is None:
        return None
    settings: dict[str, Any] = dict(get_rse_protocols(rse_id, session=session))
    protocol: Any = main_entries(settings['protocols'])[0]
    return Storage(rse, rse_id, vo, Endpoint.load(settings, protocol), settings, protocol)
