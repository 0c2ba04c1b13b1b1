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

"""The RSE protocols for S3: ``rucio.rse.protocols.s3.Default``, and ``rucio.rse.protocols.s3.FTS`` for FTS.

A thin layer over :mod:`rucio.common.s3`. Importing this module registers the lfn2pfn algorithm ``s3_bucket``, so that
clients need no configuration for it.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Optional, Union
from urllib.parse import unquote, urlsplit

from rucio.common.exception import (
    ConfigNotFound,
    FileConsistencyMismatch,
    FileReplicaAlreadyExists,
    InputValidationError,
    MissingClientParameter,
    RSEAccessDenied,
    RSEFileNameNotSupported,
    RSEOperationNotSupported,
    RucioException,
    ServiceUnavailable,
    SourceAccessDenied,
    SourceNotFound,
)
from rucio.common.s3.garbage import uncollected
from rucio.rse import s3translation  # noqa: F401 - registers s3_bucket
from rucio.rse.protocols.protocol import RSEProtocol

with uncollected():  # Rucio imports this module for a single transfer, which may take less time than the import
    from botocore.exceptions import ClientError

    from rucio.common.s3 import (
        address,
        authorizer,
        clients,
        credentials,
        objects,
        own_config,
        progress,
        terse_logs,
        transfer,
    )
    from rucio.common.s3.content import Checksums, Hasher
    from rucio.common.s3.endpoint import DAEMON, PERSON, Endpoint
    from rucio.common.s3.errors import Target, is_unanswered, is_unreachable
    from rucio.common.s3.layout import main_entries
    from rucio.common.s3.rucio_internals import is_client
    from rucio.common.s3.settings import SETTINGS, of_server

if TYPE_CHECKING:
    from rucio.common.types import LFNDict, LoggerFunction, RSESettingsDict

__all__ = ['FTS', 'Default']

_servers: dict[tuple[int, Optional[str]], authorizer.RucioServer] = {}
_servers_lock = threading.Lock()
_warned: set[str] = set()  # RSEs with a protocol for FTS on a server that is not configured for it

# Rucio's uploaders append this to a PFN during an upload, even behind a signature.
TEMPORARY = '.rucio.upload'
_DEFAULT_PORTS = {'https': 443, 'http': 80}
# The seconds for which nothing more is deleted on a silent storage, and for which a bucket's refusal is remembered.
_SILENCE = 30
_OTHERS = 3  # buckets to compare with one that refuses


class _Names(RSEProtocol):
    """The PFNs of the files of an RSE."""

    def lfns2pfns(self, lfns: Union[list['LFNDict'], 'LFNDict']) -> dict[str, str]:
        """Return the PFNs of LFNs. No request.

        On a deterministic RSE, stored paths are ignored: Rucio lets the owner of a scope store any path with a replica
        (in POST /dids), and its reaper would delete what is there. The exception are the paths of Rucio's auditor, from
        which scope and name of a quarantined replica are made: its dark reaper means that path.

        :param lfns: One LFN or a list, each with scope and name, and path for a non-deterministic RSE.
        :returns: ``scope:name`` -> PFN.
        :raises RSEFileNameNotSupported: if a scope has no bucket, or such a path has ``.`` or ``..`` between slashes.
        """
        given: list[Any] = [lfns] if isinstance(lfns, dict) else list(lfns)
        if self.rse['deterministic']:
            given = [lfn if self._is_auditors(lfn) else {**lfn, 'path': self._path(lfn)} for lfn in given]
        return super().lfns2pfns(given)

    def _path(self, lfn: Mapping[str, Any]) -> str:
        """Return the path of a DID as part of a URL. Rucio removes one slash from its start."""
        translator: Any = self.translator
        return f'/{address.encode_path(translator.path(str(lfn["scope"]), lfn["name"]))}'

    def _is_auditors(self, lfn: Mapping[str, Any]) -> bool:
        """Return whether Rucio's auditor derives this scope and name from the path (``guess_replica_info``)."""
        path = (lfn.get('path') or '').lstrip('/')
        first, *others = path.split('/')
        if not others:
            return False
        scope = f'{first}.{others[0]}' if len(others) > 1 and first in ('group', 'user') else first
        if (scope, others[-1]) != (lfn.get('scope'), lfn.get('name')):
            return False
        # To the auditor, user/alice/x/file in the bucket of scope user is a file of scope user.alice.
        in_another_bucket = first != scope and self.rse.get('lfn2pfn_algorithm') == 's3_bucket'
        if in_another_bucket or address.leaves_directory(unquote(path)):
            raise RSEFileNameNotSupported(
                f"RSE {self.rse['rse']}: the path '{path}' is ambiguous, so nothing is done with it: use another S3 "
                'client.'
            )
        return True

    def parse_pfns(self, pfns: Union[Iterable[str], str]) -> dict[str, dict[str, str]]:
        """Split PFNs into their parts. No request.

        With ``s3_bucket``, path is ``/scope/`` and name is the whole key, from which Rucio's pfn2lfn makes the DID. On
        a non-deterministic RSE nothing is decoded: Rucio stores path + name, and makes the PFN of it.

        :param pfns: One PFN or several.
        :returns: PFN -> scheme, hostname, port, prefix, path, name.
        :raises RSEFileNameNotSupported: if a PFN does not belong to this RSE.
        """
        return {pfn: self._parse(pfn) for pfn in ([pfns] if isinstance(pfns, str) else pfns)}

    def _parse(self, pfn: str) -> dict[str, Any]:
        scheme, _, rest = pfn.partition('?')[0].partition('://')
        host, _, path = rest.partition('/')
        if self._protocol_of(pfn) is not self.attributes:
            raise RSEFileNameNotSupported(
                f"RSE {self.rse['rse']}: the PFN '{pfn.partition('?')[0]}' belongs to another protocol of this RSE."
            )
        prefix = f'/{self.attributes["prefix"].strip("/")}/'.replace('//', '/')
        if not f'/{path}'.startswith(prefix):
            raise RSEFileNameNotSupported(
                f"RSE {self.rse['rse']}: the PFN '{pfn.partition('?')[0]}' is not below the protocol's prefix "
                f"'{prefix}'."
            )
        path = f'/{path}'[len(prefix) :]
        if self.rse['deterministic']:
            path = unquote(path)
        if self.rse['deterministic'] and self.rse.get('lfn2pfn_algorithm') == 's3_bucket':
            scope, name = address.s3_bucket_inverse(path, self._bucket_prefix())
            folder = f'/{scope}/'
        else:
            folder, _, name = f'/{path}'.rpartition('/')
            folder += '/'
        _, hostname, port = _origin(f'{scheme}://{host}')
        return {
            'path': folder,
            'name': name,
            'scheme': scheme,
            'prefix': prefix,
            'port': port,
            'hostname': hostname,
        }

    def _bucket_prefix(self) -> str:
        return str(((self.attributes.get('extended_attributes') or {}).get('s3') or {}).get('bucket_prefix', ''))

    def _protocol_of(self, pfn: str) -> Mapping[str, Any]:
        """Return the protocol entry of a PFN, so that the PFN of another storage is not used for this one.

        It may be another entry of this RSE, as Rucio's download client ignores whether a PFN is for the LAN or the WAN.
        """
        found = self._entries.get(_origin(pfn))
        if found is None:
            scheme, host, port = next(iter(self._entries))
            raise RSEFileNameNotSupported(
                f"RSE {self.rse['rse']}: the PFN '{pfn.partition('?')[0]}' belongs to another storage: expected "
                f'{scheme}://{host}:{port}.'
            )
        return found

    @cached_property
    def _entries(self) -> dict[tuple[str, str, int], Mapping[str, Any]]:
        """The protocol entries of this class by their origins, the own one first."""
        others = [each for each in self.rse.get('protocols', []) if each['impl'] == self.attributes['impl']]
        entries: dict[tuple[str, str, int], Mapping[str, Any]] = {}
        for each in (self.attributes, *others):
            entries.setdefault(_origin('{scheme}://{hostname}:{port}'.format(**each)), each)
        return entries


class Default(_Names):
    """The protocol of an S3 storage. PFNs are ``https://host:port/bucket/key`` (or http), percent-encoded.

    An S3 PUT is atomic, so objects are never written under a temporary name. The class still claims that it renames, as
    Rucio's uploaders then leave the check whether the file exists to ``put``, which never overwrites: ``put`` to
    ``X.rucio.upload`` stores X at once, and the rename that follows does nothing.
    """

    def __init__(
        self, protocol_attr: dict[str, Any], rse_settings: 'RSESettingsDict', logger: 'LoggerFunction' = logging.log
    ) -> None:
        super().__init__(protocol_attr, rse_settings, logger=logger)
        self.renaming = True
        self.overwrite = True  # only this keeps Rucio from calling `exists` first; put itself refuses to overwrite
        self._endpoint: Optional[Endpoint] = None
        self._authorizer: Optional[authorizer.Authorizer] = None
        self._expected: Optional[str] = None  # the last PFN that was made, ...
        self._registered = Checksums()  # ... and the checksums in its LFN
        self._stored: dict[str, int] = {}  # PFN -> bytes of each file that this object has put
        self._unsure: set[Target] = set()  # objects that a failed put may have stored
        self._unanswered = False  # whether the last deletion got no answer
        self._silent_until = float('-inf')
        # Buckets that refused a deletion: until when that is remembered, and whether others accept the keys.
        self._closed: dict[str, tuple[float, bool]] = {}

    def lfns2pfns(self, lfns: Union[list['LFNDict'], 'LFNDict']) -> dict[str, str]:
        """Return the PFNs of LFNs. No request.

        For a single LFN, its checksums are remembered, with which ``put`` compares the content.

        :param lfns: As in :class:`_Names`.
        :returns: ``scope:name`` -> PFN.
        """
        pfns = super().lfns2pfns(lfns)
        if len(pfns) == 1:
            last = lfns if isinstance(lfns, dict) else list(lfns)[-1]
            self._expected = next(iter(pfns.values()))
            self._registered = Checksums(last.get('md5'), last.get('adler32'))
        return pfns

    # Connection

    def connect(self) -> None:
        """Read the settings and choose the way of authorisation. Sends no request; the client is shared by the process.

        :raises ConfigurationError: if a setting is wrong.
        :raises RSEAccessDenied: if there are no credentials.
        """
        try:
            self._connected()
        except RucioException as error:
            if is_client():  # Rucio's download would only say that it failed to create a protocol
                self.logger(logging.ERROR, '%s', error.args[0] if error.args else error)
            raise

    def _connected(self) -> Endpoint:
        if self._endpoint is None:
            endpoint = Endpoint.load(self.rse, self.attributes)
            if is_client():
                own_config.warn(endpoint.rse, self.logger)
            self._authorizer = credentials.choose(
                endpoint, lambda: _server(self.auth_token), self.auth_token, bool(self.rse.get('sign_url'))
            )
            self._endpoint = endpoint
        return self._endpoint

    def close(self) -> None:
        """Do nothing: the client is shared."""

    def connection(self) -> clients.Connection:
        """Return the storage with its settings, its authorisation and the client. As :meth:`connect`."""
        return self._connect(self._connected())

    def _connect(self, endpoint: Endpoint) -> clients.Connection:
        return clients.connect(endpoint, self._authorizer, PERSON if is_client() else DAEMON)

    def locate(self, operation: str, pfn: str) -> tuple[clients.Connection, Target]:
        """Return the connection and the object for an operation on a PFN.

        One request to the Rucio server if a signed URL is needed.

        :param operation: read, write or delete.
        :param pfn: The PFN.
        :raises RSEFileNameNotSupported: if the PFN does not belong to this RSE.
        :raises RSEAccessDenied: if there are no credentials.
        """
        endpoint = self._connected()
        signed = 'signature=' in pfn.partition('?')[2].lower()
        url = _path_style(pfn) if signed else address.parse_url(pfn)
        target = Target(self.rse['rse'], url.bucket, url.key)
        if not signed or self._authorizer:
            protocol = self._protocol_of(pfn)
            endpoint = endpoint if protocol is self.attributes else Endpoint.load(self.rse, protocol)
        connection = self._connect(endpoint)
        if isinstance(connection.authorizer, credentials.Presigned):
            connection.authorizer.offer(operation, target, pfn if signed else self._sign(operation, pfn))
        return connection, target

    def _sign(self, operation: str, pfn: str) -> str:
        """Have the Rucio server sign a PFN. One request."""
        service = self.rse.get('sign_url')
        if not service or not is_client() or not pfn.startswith('https:'):
            raise RSEAccessDenied(
                f'RSE {self.rse["rse"]}: there are no credentials. Set access_key and secret_key, or profile, '
                f'in rucio.cfg [s3:{self.rse["rse"]}], '
                'or put keys into rse-accounts.cfg, or set auth = anonymous for a public bucket.'
            )
        from rucio.client.credentialclient import CredentialClient  # noqa: PLC0415 - servers have no clients

        return str(CredentialClient().get_signed_url(self.rse['rse'], service, operation, pfn))

    # Operations

    def exists(self, path: Optional[str]) -> bool:
        """Return whether an object exists. One HEAD, or with a signed URL one GET of the first byte.

        :param path: The PFN.
        :raises RSEAccessDenied, ServiceUnavailable: if it cannot be determined.
        """
        if not path or self._is_own_temporary(path):
            return False
        connection, target = self.locate('read', path)
        try:
            return objects.exists(connection, target)
        except RucioException:
            _need_name(target)  # some storages refuse requests for such keys, with errors that do not tell why
            raise

    def stat(self, path: str) -> dict[str, Any]:
        """Return size and checksum of an object. One HEAD, or with a signed URL one GET of the first byte.

        After a put with a signed URL, which does not allow reading, it is what the storage confirmed.

        :param path: The PFN.
        :returns: ``filesize`` in bytes; ``md5`` if the storage has it for the whole content.
        :raises SourceNotFound: if there is no such object.
        """
        pfn = self._final(path)
        if '?' in pfn and pfn in self._stored:
            return {'filesize': self._stored[pfn]}
        connection, target = self.locate('read', pfn)
        info = objects.stat(connection, target)
        return {'filesize': info.size} | ({'md5': info.md5} if info.md5 else {})

    def put(
        self,
        source: str,
        target: str,
        source_dir: Optional[str] = None,
        transfer_timeout: Union[float, str, None] = None,
    ) -> None:
        """Upload a local file without overwriting. One PUT, or a multipart upload for large files.

        The storage verifies what it receives.

        :param source: The local file.
        :param target: The PFN; ``.rucio.upload`` at its end is not part of it.
        :param source_dir: The local directory.
        :param transfer_timeout: The limit of the whole transfer in seconds.
        :raises SourceNotFound, SourceAccessDenied: if the local file is missing or cannot be read.
        :raises FileConsistencyMismatch: if its content differs from ``adler32`` or ``md5`` in the LFN of this PFN.
        :raises FileReplicaAlreadyExists: if there is already an object, which is not changed; also if there is no local
            file.
        :raises RSEFileNameNotSupported: if stock Rucio could not download a file of this name.
        :raises DestinationNotAccessible: if there is no such bucket.
        :raises RSEAccessDenied, ServiceUnavailable: and others, see :mod:`rucio.common.s3.errors`.
        """
        path = os.path.join(source_dir, source) if source_dir else source
        try:
            self._put(path, target.removesuffix(TEMPORARY), _seconds(transfer_timeout))
        except RucioException as error:
            if is_client():  # Rucio's upload prints the whole traceback, and those of all causes
                terse_logs.expect(error, self.logger)
                raise error.with_traceback(None) from None
            raise

    def _put(self, path: str, pfn: str, timeout: Optional[float]) -> None:
        connection, where = self.locate('write', pfn)
        _need_name(where)
        if connection.authorizer.whole_objects_only and not connection.endpoint.conditional_put:
            self._look_before(pfn)
        try:
            registered = self._registered if '?' in pfn or pfn == self._expected else Checksums()
            # The cheaper of the two checksums is enough.
            hasher = Hasher(registered, md5=not registered.adler32) if any(registered) else None
            size = transfer.upload(connection, path, where, timeout, self._meter, where in self._unsure, hasher)
        except (FileConsistencyMismatch, FileReplicaAlreadyExists):
            raise
        except SourceNotFound as error:
            self._look_anyway(connection, where, error)
            raise
        except RucioException:
            self._unsure.add(where)
            raise
        self._stored[pfn] = size

    def _look_anyway(self, connection: clients.Connection, target: Target, error: SourceNotFound) -> None:
        """Report an object for which there is no local file, as Rucio expects of a protocol. One HEAD.

        :raises FileReplicaAlreadyExists: if there is one.
        """
        if connection.authorizer.whole_objects_only:
            return
        try:
            there = objects.exists(connection, target)
        except RucioException:
            return  # the missing file is what to report
        if there:
            raise FileReplicaAlreadyExists(
                f'RSE {target.rse}: put of {target}: there is already an object, and it was not changed. '
                f'{error.args[0]}'
            ) from None

    def _look_before(self, pfn: str) -> None:
        """Check whether the object exists with a URL for GET, as one for PUT cannot tell."""
        plain = pfn.partition('?')[0]
        if self.rse.get('sign_url') and is_client() and self.exists(self._sign('read', plain)):
            raise FileReplicaAlreadyExists(
                f"RSE {self.rse['rse']}: put of '{plain}': there is already an object, and it was not changed."
            )

    def get(self, path: str, dest: str, transfer_timeout: Union[float, str, None] = None) -> None:
        """Download an object to ``dest``, creating its parent directories. One request, or more for large objects.

        :param path: The PFN.
        :param dest: The local file.
        :param transfer_timeout: The limit of the whole transfer in seconds.
        :raises RSEFileNameNotSupported: if the key, of which Rucio made the local path, has ``.`` or ``..`` between
            slashes.
        :raises SourceNotFound: if there is no such object.
        :raises DestinationNotAccessible: if the local file cannot be written.
        :raises FileConsistencyMismatch: if the content differs from what was stored.
        :raises RSEAccessDenied, ServiceUnavailable: and others, see :mod:`rucio.common.s3.errors`.
        """
        try:
            connection, target = self.locate('read', path)
            if address.leaves_directory(target.key):
                raise RSEFileNameNotSupported(
                    f'RSE {target.rse}: get of {target}: Rucio uses names as paths, and this one would leave the '
                    'directory of the download. '
                    'Download it with another S3 client, and tell the owner of the file.'
                )
            transfer.download(connection, target, dest, _seconds(transfer_timeout), self._meter)
        except RucioException as error:
            # Rucio's download only logs at level DEBUG why an attempt failed.
            self.logger(logging.WARNING, '%s', error.args[0] if error.args else error)
            raise

    def _meter(self, name: str, size: int) -> AbstractContextManager[Optional[transfer.Progress]]:
        """Show a progress bar to users, not in daemons."""
        return progress.meter(self._connected().progress if is_client() else 'off', name, size)

    def delete(self, path: str) -> None:
        """Delete an object. A HEAD and a DELETE; with a signed URL one DELETE, which does not report missing objects.

        If there is no connection, or two deletions in a row get no answer, further ones fail without a request for half
        a minute: Rucio's reaper may have thousands to do, would wait for all attempts of each, and only then stop
        deleting on the RSE.

        If one bucket of many refuses keys that the storage accepts, the reaper must not stop deleting in others, as it
        does after some RSEAccessDenied. A few more requests find that out, once in half a minute.

        :param path: The PFN.
        :raises SourceNotFound: if there is no such object.
        :raises SourceAccessDenied: if only this bucket refuses; the reaper continues with others.
        :raises RSEAccessDenied, ServiceUnavailable: and others, see :mod:`rucio.common.s3.errors`.
        """
        connection, target = self.locate('delete', path)
        if time.monotonic() < self._silent_until:
            raise ServiceUnavailable(
                f'RSE {target.rse}: delete of {target}: not tried, as the storage did not answer recently.'
            )
        again, self._unanswered = self._unanswered, False
        try:
            objects.delete(connection, target)
        except ServiceUnavailable as error:
            self._unanswered = is_unanswered(error.__cause__)
            if is_unreachable(error.__cause__) or (again and self._unanswered):
                self._silent_until = time.monotonic() + _SILENCE
            raise
        except RSEAccessDenied as error:
            if not self._refuses_alone(connection, target.bucket, error):
                raise
            raise SourceAccessDenied(
                f'{error.args[0]} The storage accepts the keys, so the policy of this bucket refuses them: an admin '
                'of Rucio can remove it '
                '(rucio s3 policy SCOPE --remove).'
            ) from error.__cause__

    def _refuses_alone(self, connection: clients.Connection, bucket: str, error: RSEAccessDenied) -> bool:
        """Return whether only one bucket refuses, by its policy, and not the storage.

        At most a few requests, once in a while.
        """
        cause = error.__cause__
        code = cause.response.get('Error', {}).get('Code') if isinstance(cause, ClientError) else None
        # The error code of a refused HEAD is only its status.
        if (
            code not in ('AccessDenied', '403')
            or connection.authorizer.name != 'static'
            or self.attributes['prefix'].strip('/')
        ):
            return False
        until, alone = self._closed.get(bucket, (float('-inf'), False))
        if time.monotonic() >= until:
            prefix = self._bucket_prefix()
            try:
                others = [
                    each for each in objects.list_buckets(connection) if each != bucket and each.startswith(prefix)
                ]
                alone = objects.closes_itself(
                    connection.client, connection.endpoint.rse, bucket, random.sample(others, min(len(others), _OTHERS))
                )
            except RucioException:
                return False
            self._closed[bucket] = time.monotonic() + _SILENCE, alone
        return alone

    def bulk_delete(self, pfns: Iterable[str]) -> dict[str, Optional[RucioException]]:
        """Delete many objects. One request per 1000 objects of a bucket. Needs keys. Missing objects count as deleted.

        :param pfns: The PFNs.
        :returns: PFN -> None, or why it was not deleted.
        """
        connection = self.connection()
        self._need_keys(connection, 'bulk_delete')
        result: dict[str, Optional[RucioException]] = {}
        targets: dict[str, Target] = {}
        for pfn in pfns:
            try:
                targets[pfn] = self.locate('delete', pfn)[1]
            except RucioException as error:
                result[pfn] = error
        deleted = objects.delete_many(connection, targets.values())
        return result | {pfn: deleted[target] for pfn, target in targets.items()}

    def rename(self, path: str, new_path: str) -> None:
        """Rename an object without overwriting: copy it inside the storage, and delete it. At least four requests.

        Needs keys. After a ``put`` to a temporary name there is nothing to do.

        :param path: The PFN.
        :param new_path: The new PFN.
        :raises SourceNotFound: if there is no such object.
        :raises FileReplicaAlreadyExists: if there is an object at ``new_path``.
        """
        pfn = self._final(path)
        if pfn == new_path:
            return
        self._need_keys(self.connection(), 'rename')
        connection, source = self.locate('write', pfn)
        _, target = self.locate('write', new_path)
        transfer.move(connection, source, target)

    def ls(self, path: str) -> list[str]:
        """List what is directly below a PFN (a bucket, or a key as a folder). One request per 1000 objects. Needs keys.

        :param path: The PFN.
        :returns: PFNs; those of folders end in a slash.
        :raises SourceNotFound: if there is no such bucket.
        """
        self._need_keys(self.connection(), 'ls')
        url = address.parse_url(path, key_required=False)
        connection, target = self.locate('read', path if url.key else f'{path.rstrip("/")}/-')
        prefix = url.key if not url.key or url.key.endswith('/') else f'{url.key}/'
        return [
            f'{url.endpoint}/{address.encode_path(f"{target.bucket}/{each}")}'
            for each in objects.list_prefix(connection.client, target._replace(key=prefix))
        ]

    def get_space_usage(self) -> tuple[int, int]:
        """Return total and free space in bytes. One request per 1000 objects.

        S3 knows neither: the total is the setting ``capacity``, and the used space is the sum of a listing.

        :returns: Total and unused bytes.
        :raises RSEOperationNotSupported: if there is no ``capacity``, or no keys.
        """
        endpoint = self._connected()
        if endpoint.capacity is None:
            raise RSEOperationNotSupported(
                f"RSE {self.rse['rse']}: S3 does not report the size of a storage. Set 'capacity' in the RSE's 's3' "
                'settings.'
            )
        connection = self.connection()
        self._need_keys(connection, 'get_space_usage')
        used = unknown = 0
        for bucket, prefix in self._places(connection):
            for each in objects.list_objects(connection.client, Target(connection.endpoint.rse, bucket, prefix)):
                used += each.size or 0
                unknown += each.size is None
        if unknown:
            self.logger(
                logging.WARNING,
                'RSE %s: the storage lists %d objects without size or date, which count as empty. Tell its operator.',
                self.rse['rse'],
                unknown,
            )
        return endpoint.capacity, max(0, endpoint.capacity - used)

    def _places(self, connection: clients.Connection) -> list[tuple[str, str]]:
        """Return the buckets and key prefixes that belong to this RSE."""
        bucket, folder = address.split_prefix(self.attributes['prefix'])
        if bucket:
            return [(bucket, folder)]
        return [
            (name, '')
            for name in objects.list_buckets(connection)
            if address.bucket_to_scope(name, self._bucket_prefix()) is not None
        ]

    def _need_keys(self, connection: clients.Connection, operation: str) -> None:
        if connection.authorizer.whole_objects_only:
            raise RSEOperationNotSupported(
                f'RSE {self.rse["rse"]}: {operation} needs keys instead of signed URLs. Set them in rucio.cfg '
                f'[s3:{self.rse["rse"]}].'
            )

    # Temporary names

    def _final(self, path: str) -> str:
        """Return the PFN for a temporary name under which this object has put something."""
        pfn = path.removesuffix(TEMPORARY)
        return pfn if pfn in self._stored else path

    def _is_own_temporary(self, path: str) -> bool:
        """Return whether this is the temporary name of the upload that is about to begin, which is never written.

        Other names with this suffix are checked: they may be files, or left by another protocol class.
        """
        if not path.endswith(TEMPORARY):
            return False
        # Behind a signature it must be one: no object has such a name.
        return '?' in path or path.removesuffix(TEMPORARY) == self._expected


class FTS(_Names):
    """The protocol of the same storage for FTS: URLs are ``s3s://host:port/bucket/key``, or ``s3://`` for http.

    It is a separate entry of the RSE's protocols, with scheme davs (which Rucio pairs with https and davs) and only for
    third-party copies. The RSE's other entry of this module determines where files are; this one determines how FTS
    reaches the storage.
    """

    def __init__(
        self, protocol_attr: dict[str, Any], rse_settings: 'RSESettingsDict', logger: 'LoggerFunction' = logging.log
    ) -> None:
        own = dict(protocol_attr)
        protocol_attr.pop('auth_token', None)  # as in any protocol: Rucio keeps the entry
        ours = main_entries(rse_settings.get('protocols', []))
        main = ours[0] if ours else own
        super().__init__(
            {**own, 'prefix': main['prefix'], 'extended_attributes': main.get('extended_attributes')},
            rse_settings,
            logger=logger,
        )
        # Another entry may have the host and port by which FTS reaches the storage: then this has its scheme.
        same = [each for each in ours if (each['hostname'], each['port']) == (own['hostname'], own['port'])]
        self._fts_scheme = 's3' if (same or [main])[0]['scheme'] == 'http' else 's3s'
        rse = str(self.rse['rse'])
        if rse not in _warned and not is_client() and not of_server('fts'):
            _warned.add(rse)
            logger(
                logging.WARNING,
                'RSE %s has a protocol for FTS, but rucio.cfg lacks [s3] fts = True: no buckets are made for '
                'FTS, and Rucio may change its URLs.',
                rse,
            )

    @property
    def wants_push(self) -> bool:
        """Whether WebDAV storages have to push their files here, as S3 cannot pull: the setting ``fts_push``."""
        try:
            given = self.attributes['extended_attributes']['s3']['fts_push']
            return bool(SETTINGS['fts_push'].parse(given))
        except (KeyError, TypeError, ValueError):  # not set; or wrong, which is reported elsewhere
            return True

    def lfns2pfns(self, lfns: Union[list['LFNDict'], 'LFNDict']) -> dict[str, str]:
        """Return the URLs of LFNs for FTS. No request.

        :param lfns: As in :class:`_Names`.
        :returns: ``scope:name`` -> URL.
        """
        return {did: self._for_fts(pfn) for did, pfn in super().lfns2pfns(lfns).items()}

    def _for_fts(self, pfn: str) -> str:
        return f'{self._fts_scheme}://{pfn.partition("://")[2]}'

    def _parse(self, pfn: str) -> dict[str, Any]:
        """Split a URL of FTS, with which Rucio asks where a file has been written to."""
        scheme, _, rest = pfn.partition('://')
        own = self.attributes['scheme'] if scheme in ('s3s', 's3') else scheme
        return {**super()._parse(f'{own}://{rest}'), 'scheme': scheme}

    def _refuse(self, *_: Any, **__: Any) -> Any:
        """Refuse every operation: this protocol only makes URLs."""
        raise RSEOperationNotSupported(
            f'RSE {self.rse["rse"]}: its {self.attributes["scheme"]} protocol, {self.attributes["impl"]}, only makes '
            'URLs for FTS. Its domains must not offer read, write and delete: leave these to the https protocol.'
        )

    connect = exists = stat = get = put = delete = rename = _refuse

    def close(self) -> None:
        """Do nothing: there is no connection."""


def _need_name(target: Target) -> None:
    """Refuse names that stock Rucio could upload, but not download.

    :raises RSEFileNameNotSupported: if it is one.
    """
    if not address.comes_back(target.key):
        raise RSEFileNameNotSupported(
            f"RSE {target.rse}: put of {target}: Rucio's download takes names for paths, in which '//', '.', '..' and "
            "a '/' at the end do not come back as they are. Nothing was stored: choose another name (--lfn)."
        )


def _server(token: Optional[str]) -> Optional[authorizer.RucioServer]:
    """Return the client of the Rucio server, one for each login; None on a server or daemon, or without a server."""
    if not is_client():
        return None
    try:
        from rucio.client.s3client import S3Client  # noqa: PLC0415 - servers have no clients
    except ImportError:
        return None
    with _servers_lock:
        key = (os.getpid(), token)  # a forked process must not use our sockets
        if key not in _servers:
            try:
                _servers[key] = S3Client()
            except (ConfigNotFound, MissingClientParameter):  # the client was only configured by its arguments
                return None
        return _servers[key]


def _origin(pfn: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(pfn)
        return parts.scheme, parts.hostname or '', parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        raise RSEFileNameNotSupported(
            f"'{pfn.partition('?')[0]}' is not a valid URL: its host or port cannot be read."
        ) from None


def _path_style(pfn: str) -> address.ObjectURL:
    """Split a signed URL. It may be host-style with a short key: it is used unchanged, and only shown in messages."""
    if pfn.partition('?')[0].count('/') == 3:
        scheme, _, rest = pfn.partition('://')
        return address.parse_url(
            f'{scheme}://{rest.partition("/")[0]}/{rest.partition(".")[0]}/{rest.partition("/")[2]}'
        )
    return address.parse_url(pfn)


def _seconds(timeout: Union[float, str, None]) -> Optional[float]:
    """Convert a time-out: Rucio passes numbers and strings; 0 and nothing mean no limit."""
    try:
        return float(timeout or 0) or None
    except ValueError:
        raise InputValidationError(f"transfer_timeout is '{timeout}', but must be a number of seconds.") from None
