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

"""The S3 storages that this server knows, and where the DIDs of an RSE lie on them.

What is known of an RSE is kept for some seconds: signing asks for it with every request.
"""

import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import unquote

from botocore.credentials import Credentials, ReadOnlyCredentials
from sqlalchemy import and_, false, or_, select

from rucio.common.exception import (
    ConfigurationError,
    RSEAccessDenied,
    RSEFileNameNotSupported,
    RSENotFound,
    RSEOperationNotSupported,
    RucioException,
)
from rucio.common.s3 import address, authorizer, clients, credentials
from rucio.common.s3.endpoint import PERSON, SERVER, Endpoint, Patience
from rucio.common.s3.secrecy import is_private
from rucio.core.rse import get_rse_protocols
from rucio.db.sqla import models
from rucio.rse.protocols.s3 import Default

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

__all__ = ['SECONDS', 'Storage', 'get_storage', 'list_storages', 'speaks_s3']

# How long a new RSE, setting or key may take to be noticed.
SECONDS = 10
# Classes of Rucio's own and of this project whose URLs are https://host:port/bucket/key, but only ours speak S3.
_IMPL = 'rucio.rse.protocols.s3.'
_MOST_DOTS = 30  # in a scope


@dataclass(frozen=True, eq=False)
class Storage:
    """One S3 RSE.

    :param settings: The RSE, as ``get_rse_info`` describes it.
    :param protocol: The entry of its protocols that speaks S3.
    """

    rse: str
    rse_id: str
    vo: str
    endpoint: Endpoint
    settings: dict[str, Any]
    protocol: dict[str, Any]

    @cached_property
    def _authorizer(self) -> Optional[authorizer.Authorizer]:
        """The server's own keys, whatever way the clients are told to take; none at a storage that anybody may read."""
        if self.endpoint.auth == 'anonymous':
            return credentials.Anonymous()
        try:
            return credentials.choose(replace(self.endpoint, auth='static'))
        except RSEAccessDenied:
            return None

    @property
    def ways(self) -> list[str]:
        """How clients may be authorised with the server's help: ``vended``, ``remote``, both or nothing. Makes no
        request.
        """
        if self._authorizer is None or not self._authorizer.signed:
            return []
        vends = self.endpoint.role_arn and is_private(self.endpoint.sts_url)
        return ['vended', 'remote'] if vends and (self._together or not self.settings['deterministic']) else ['remote']

    @property
    def region(self) -> str:
        """The region that signatures name."""
        return (
            self.endpoint.region
            or (self._authorizer.region if self._authorizer else None)
            or self.endpoint.default_region
        )

    def _keys(self) -> authorizer.Authorizer:
        if self._authorizer is None:
            raise RSEAccessDenied(
                f'RSE {self.rse}: the Rucio server has no keys for it. Its operator has to put them into rse-accounts.cfg, by the RSE id {self.rse_id}.'
            )
        return self._authorizer

    def connection(self, patience: Patience = PERSON) -> clients.Connection:
        """The client that uses the server's own keys, shared by all of this process. Makes no request.

        :param patience: How long it waits and how often it tries, where the settings do not say: ``SERVER`` for what a
            request to the Rucio server waits for, ``PERSON`` for work that lasts, such as to list and to read.
        :raises RSEAccessDenied: if the server has no keys for this RSE.
        """
        return clients.connect(self.endpoint, self._keys(), patience)

    @cached_property
    def hurried(self) -> 'Storage':
        """The same for all that a request to the Rucio server waits for, whatever patience it would have otherwise."""
        return replace(self, endpoint=replace(self.endpoint, **self.endpoint.patience(SERVER)._asdict()))

    @cached_property
    def _session(self) -> Any:
        return self._keys().session()

    def credentials(self) -> ReadOnlyCredentials:
        """The server's own keys, as they are now. To sign with: they never leave the server.

        :raises RSEAccessDenied: if the server has no keys for this RSE.
        """
        if not self._keys().signed:
            raise RSEAccessDenied(
                f'RSE {self.rse} is read without keys (auth = anonymous), so there is nothing to sign with: send the request as it is.'
            )
        found: Optional[Credentials] = self._session.get_credentials()
        if found is None:
            raise RSEAccessDenied(f'RSE {self.rse}: the AWS profile that the Rucio server shall use has no keys.')
        frozen: ReadOnlyCredentials = found.get_frozen_credentials()
        return frozen

    @cached_property
    def _class(self) -> Default:
        return Default({**self.protocol, 'auth_token': None}, self.settings)  # type: ignore[arg-type]

    @property
    def common_bucket(self) -> str:
        """The bucket that all scopes share, where the protocol's prefix names one; empty: each scope has its own."""
        return unquote(self.protocol['prefix'].strip('/').partition('/')[0])

    @property
    def _together(self) -> bool:
        """Whether the names of a scope that begin alike are keys that begin alike."""
        return bool(self.settings['deterministic']) and self.settings['lfn2pfn_algorithm'] in ('s3_bucket', 'identity')

    def _is_apart(self, scope: str) -> bool:
        """Whether all keys below the scope's own are its own: with ``identity`` those of ``user.alice.x`` lie below
        those of ``user.alice``.
        """
        return self._together and not (
            self.settings['lfn2pfn_algorithm'] == 'identity' and scope.startswith(('user', 'group'))
        )

    def bucket_of(self, scope: str) -> str:
        """The bucket of a scope, or the one that all share.

        :raises RSEFileNameNotSupported: if the scope can have none.
        """
        return self.common_bucket or self.place_of(scope, '')[0]

    def place_of(self, scope: str, name: str, path: Optional[str] = None) -> tuple[str, str]:
        """Bucket and key of a DID, by the RSE's own lfn2pfn algorithm. Whether there is such an object is not asked.

        :param scope: The scope, without a VO.
        :param name: The name, or with a slash at its end the place of all that lies below it (the key is a prefix
            then); empty: that of
                     all of the scope.
        :param path: The path that Rucio has stored with the replica, if any.
        :raises RSEFileNameNotSupported: if the DID has no place on this RSE.
        :raises RSEOperationNotSupported: if the RSE's algorithm scatters what lies below a name, or it has none.
        """
        if not self.settings['deterministic'] and path is None:
            raise RSEOperationNotSupported(
                f'RSE {self.rse} is not deterministic: nobody can say where a new file of it lies.'
            )
        if path is None and (not name or name.endswith('/')) and not self._is_apart(scope):
            raise RSEOperationNotSupported(
                f"RSE {self.rse}: its lfn2pfn algorithm '{self.settings['lfn2pfn_algorithm']}' has no place of its own for all names of scope {scope} "
                'that begin alike.'
            )
        lfn: Any = {'scope': scope, 'name': name, 'path': path}
        url = address.parse_url(next(iter(self._class.lfns2pfns(lfn).values())), key_required=bool(name))
        return url.bucket, url.key

    def path_of(self, bucket: str, key: str) -> str:
        """What Rucio stores with the replica of this object on a non-deterministic RSE: the path below the protocol's
        prefix, percent-encoded.

        :raises RSEFileNameNotSupported: if the object does not lie below the prefix: it could have no PFN.
        """
        prefix = unquote(self.protocol['prefix'].strip('/'))
        path = f'{bucket}/{key}'
        if prefix and not path.startswith(f'{prefix}/'):
            raise RSEFileNameNotSupported(
                f"RSE {self.rse}: bucket '{bucket}', key '{key}' does not lie below the protocol's prefix '/{prefix}/'."
            )
        return '/' + address.encode_path(path[len(prefix) + 1 :] if prefix else path)

    def dids_of(self, bucket: str, key: str) -> list[tuple[str, str]]:
        """The DIDs whose place this is: one or none with ``s3_bucket``; of the others some make the same key of several
        DIDs. No look-up.

        :param bucket: The bucket.
        :param key: A key, or a prefix of keys where the algorithm keeps names together (``s3_bucket``, ``identity``).
        :returns: Scope and name of each. The name is empty for the bucket (or the part of it) of a scope.
        """
        prefix = unquote(self.protocol['prefix'].strip('/'))
        path = f'{bucket}/{key}'
        if not self.settings['deterministic'] or (prefix and not path.startswith(f'{prefix}/')):
            return []
        candidates = self._candidates(path[len(prefix) + 1 :] if prefix else path)
        # What only looks like the DID's place is nobody's.
        return [(scope, name) for scope, name in candidates if self._fits(scope, name, bucket, key)]

    def may_have(self, bucket: str) -> bool:
        """Whether a bucket is the one that all scopes share, or begins with the ``bucket_prefix``. Others may be those
        of other VOs.
        """
        return bucket == self.common_bucket if self.common_bucket else bucket.startswith(self.endpoint.bucket_prefix)

    def need_name(self, bucket: str, key: str = '') -> None:
        """Refuse what the storage keeps for itself: with the server's signature, Ceph's ``/admin/...`` would be its
        administration.

        :raises RSEFileNameNotSupported: if it does.
        """
        if bucket in self.endpoint.reserved_buckets:
            raise RSEFileNameNotSupported(
                f"RSE {self.rse}: a storage of provider {self.endpoint.provider} may keep the name '{bucket}' for itself, so the Rucio server neither makes "
                "such a bucket nor signs for it. Use another scope, or another 'provider' if that is not the right one."
            )
        if key.startswith(self.endpoint.reserved_keys):
            raise RSEFileNameNotSupported(
                f"RSE {self.rse}: the storage keeps the key '{key}' for itself. Use another name."
            )

    def did_of(self, bucket: str, key: str) -> tuple[str, str]:
        """The DID whose place this is, as :meth:`dids_of`.

        :raises RSEFileNameNotSupported: if it is the place of no DID, or could be that of several.
        """
        found = self.dids_of(bucket, key)
        if len(found) != 1:
            raise RSEFileNameNotSupported(
                f"RSE {self.rse}: bucket '{bucket}', key '{key}' is the place of {'several DIDs' if found else 'no DID'}."
            )
        return found[0]

    def _candidates(self, path: str) -> list[tuple[str, str]]:
        algorithm = self.settings['lfn2pfn_algorithm']
        if algorithm == 's3_bucket':
            bucket, _, name = path.partition('/')
            scope = address.bucket_to_scope(bucket, self.endpoint.bucket_prefix)
            return [] if scope is None else [(scope, name)]
        if algorithm not in ('identity', 'hash', 'def'):
            return []
        # Rucio makes slashes of the dots in scopes that begin with user or group; hash has two directories before the
        # name.
        parts, skipped = path.split('/'), 0 if algorithm == 'identity' else 2
        return [
            ('.'.join(parts[:count]), '/'.join(parts[count + skipped :]))
            for count in range(1, min(len(parts) - skipped, _MOST_DOTS))
        ]

    def _fits(self, scope: str, name: str, bucket: str, key: str) -> bool:
        try:
            return self.place_of(scope, name) == (bucket, key)
        except RucioException:
            return False


_storages: dict[tuple[str, str], tuple[float, Storage]] = {}


def list_storages(vo: str, *, session: 'Session') -> list[Storage]:
    """All S3 RSEs of a VO, by name. Those whose settings are wrong are left out.

    Costs one query, and more for each RSE of which what is known is older than :data:`SECONDS`.
    """
    stmt = (
        select(models.RSE.rse)
        .distinct()
        .join(models.RSEProtocol, models.RSEProtocol.rse_id == models.RSE.id)
        .where(_of(vo))
    )
    found = []
    for rse in sorted(session.execute(stmt).scalars()):
        try:
            found.append(get_storage(rse, vo, session=session))
        except (ConfigurationError, RSENotFound):
            continue
    return found


def get_storage(rse: str, vo: str, *, session: 'Session') -> Storage:
    """One S3 RSE. Costs queries only where what is known is older than :data:`SECONDS`.

    :param rse: The RSE's name.
    :raises RSENotFound: if there is no such RSE, or none that speaks S3.
    :raises ConfigurationError: if its settings are wrong.
    """
    known = _storages.get((vo, rse))
    if known is None or time.monotonic() - known[0] > SECONDS:
        storage = _load(rse, vo, session)
        if storage is None:
            raise RSENotFound(
                f"There is no S3 RSE '{rse}': no RSE of that name has a protocol of {_IMPL[:-1]}. See: rucio rse list."
            )
        known = _storages[vo, rse] = (time.monotonic(), storage)
    return known[1]


def speaks_s3() -> 'ColumnElement[bool]':
    """The condition for an entry of the table of protocols to be one of these."""
    protocol = models.RSEProtocol
    return and_(protocol.impl.like(f'{_IMPL}%'), or_(protocol.scheme == 'https', protocol.scheme == 'http'))


def _of(vo: str) -> 'ColumnElement[bool]':
    return and_(models.RSE.vo == vo, models.RSE.deleted == false(), speaks_s3())


def _load(rse: str, vo: str, session: 'Session') -> Optional[Storage]:
    stmt = (
        select(models.RSE.id)
        .join(models.RSEProtocol, models.RSEProtocol.rse_id == models.RSE.id)
        .where(models.RSE.rse == rse, _of(vo))
        .limit(1)
    )
    rse_id = session.execute(stmt).scalar()
    if rse_id is None:
        return None
    settings: dict[str, Any] = dict(get_rse_protocols(rse_id, session=session))
    protocols = [
        each for each in settings['protocols'] if each['impl'].startswith(_IMPL) and each['scheme'] in ('https', 'http')
    ]
    protocol = min(protocols, key=_rank)
    return Storage(rse, rse_id, vo, Endpoint.load(settings, protocol), settings, protocol)


def _rank(protocol: dict[str, Any]) -> tuple[int, int]:
    """Rucio's own preference for reading over the WAN; https where that says nothing."""
    return protocol['domains']['wan']['read'] or 1000, 0 if protocol['scheme'] == 'https' else 1
