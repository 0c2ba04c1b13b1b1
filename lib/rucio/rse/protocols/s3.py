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

"""S3 as Rucio storage: the RSE protocols ``rucio.rse.protocols.s3.Default``, and ``rucio.rse.protocols.s3.FTS`` for
third-party copy by FTS.

Thin: all that S3 is lies in :mod:`rucio.common.s3`. Importing this module registers the lfn2pfn algorithm
``s3_bucket``, so that a client needs no configuration for it.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Optional, Union
from urllib.parse import unquote, urlsplit

from botocore.exceptions import ClientError

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
)
from rucio.common.s3 import address, authorizer, clients, credentials, objects, progress, transfer
from rucio.common.s3.content import Summing, Sums
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target, is_unanswered, is_unreachable, translated
from rucio.common.s3.layout import main_entries
from rucio.common.s3.rucio_internals import is_client
from rucio.common.s3.settings import SETTINGS, of_server
from rucio.rse import s3translation  # noqa: F401 - registers s3_bucket
from rucio.rse.protocols.protocol import RSEProtocol

if TYPE_CHECKING:
    from rucio.common.types import LFNDict, LoggerFunction, RSESettingsDict

__all__ = ['FTS', 'Default']

_servers: dict[tuple[int, Optional[str]], authorizer.RucioServer] = {}
_servers_lock = threading.Lock()
_warned: set[str] = set()  # RSEs for FTS at a server that was not told so

# What Rucio's uploaders append to a PFN for the time of an upload, also behind a signature.
TEMPORARY = '.rucio.upload'
_DEFAULT_PORTS = {'https': 443, 'http': 80}
# Seconds for which a storage that did not answer is not asked to delete more, and for which it is known that a bucket
# refused.
_SILENCE = 30
_OTHERS = 3  # buckets that are compared with one that refuses


class _Names(RSEProtocol):
    """What files of an RSE are called: their PFNs, and back."""

    def lfns2pfns(self, lfns: Union[list['LFNDict'], 'LFNDict']) -> dict[str, str]:
        """The PFNs of LFNs. No request.

        On a deterministic RSE a path is not heeded: Rucio lets the owner of a scope store one with a replica (in POST
        /dids), and would have its reaper delete what is there. But what Rucio's auditor quarantines has scope and name
        of its path, and there its dark reaper means the path.

        :param lfns: One LFN or a list, each with scope and name, and path for a non-deterministic RSE.
        :returns: ``scope:name`` -> PFN.
        :raises RSEFileNameNotSupported: if a scope has no bucket, or such a path has ``.`` or ``..`` between slashes.
        """
        given: list[Any] = [lfns] if isinstance(lfns, dict) else list(lfns)
        if self.rse['deterministic']:
            given = [lfn if self._is_auditors(lfn) else {**lfn, 'path': self._path(lfn)} for lfn in given]
        return super().lfns2pfns(given)

    def _path(self, lfn: Mapping[str, Any]) -> str:
        """The path of a DID as part of a URL. Rucio takes one slash off its start."""
        translator: Any = self.translator
        return f'/{address.encode_path(translator.path(str(lfn["scope"]), lfn["name"]))}'

    def _is_auditors(self, lfn: Mapping[str, Any]) -> bool:
        """Whether scope and name are what Rucio's auditor guesses from the path (``guess_replica_info``)."""
        path = (lfn.get('path') or '').lstrip('/')
        first, *others = path.split('/')
        if not others:
            return False
        scope = f'{first}.{others[0]}' if len(others) > 1 and first in ('group', 'user') else first
        if (scope, others[-1]) != (lfn.get('scope'), lfn.get('name')):
            return False
        if address.leaves_directory(unquote(path)):
            raise RSEFileNameNotSupported(
                f"RSE {self.rse['rse']}: storages may read '{path}' in two ways, so nothing is done with it: "
                'use another S3 client.'
            )
        return True

    def parse_pfns(self, pfns: Union[Iterable[str], str]) -> dict[str, dict[str, str]]:
        """Take PFNs apart. No request.

        With ``s3_bucket``, path is ``/scope/`` and name all of the key: what Rucio's pfn2lfn makes a DID of. On a
        non-deterministic RSE nothing is decoded: path + name is what Rucio stores and makes the PFN of.

        :param pfns: One PFN or several.
        :returns: PFN -> scheme, hostname, port, prefix, path, name.
        :raises RSEFileNameNotSupported: if a PFN is not one of this RSE.
        """
        return {pfn: self._parse(pfn) for pfn in ([pfns] if isinstance(pfns, str) else pfns)}

    def _parse(self, pfn: str) -> dict[str, Any]:
        scheme, _, rest = pfn.partition('?')[0].partition('://')
        host, _, path = rest.partition('/')
        if self._protocol_of(pfn) is not self.attributes:
            raise RSEFileNameNotSupported(
                f"RSE {self.rse['rse']}: the PFN '{pfn.partition('?')[0]}' is one of another protocol of this RSE."
            )
        prefix = f'/{self.attributes["prefix"].strip("/")}/'.replace('//', '/')
        if not f'/{path}'.startswith(prefix):
            raise RSEFileNameNotSupported(
                f"RSE {self.rse['rse']}: the PFN '{pfn.partition('?')[0]}' does not lie below the protocol's prefix "
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
        parts = urlsplit(f'{scheme}://{host}')
        return {
            'path': folder,
            'name': name,
            'scheme': scheme,
            'prefix': prefix,
            'port': parts.port or _DEFAULT_PORTS.get(scheme, 0),
            'hostname': parts.hostname or '',
        }

    def _bucket_prefix(self) -> str:
        return str(((self.attributes.get('extended_attributes') or {}).get('s3') or {}).get('bucket_prefix', ''))

    def _protocol_of(self, pfn: str) -> Mapping[str, Any]:
        """The protocol entry of this RSE that a PFN belongs to: a PFN of another storage must not become an object of
        this one.

        It need not be the own one: Rucio's download client does not ask whether a PFN is for the LAN or the WAN.
        """
        own = [
            self.attributes,
            *(each for each in self.rse.get('protocols', []) if each['impl'] == self.attributes['impl']),
        ]
        origins = [_origin('{scheme}://{hostname}:{port}'.format(**each)) for each in own]
        found = _origin(pfn)
        if found not in origins:
            raise RSEFileNameNotSupported(
                f"RSE {self.rse['rse']}: the PFN '{pfn.partition('?')[0]}' is of another storage: expected "
                f'{origins[0][0]}://{origins[0][1]}:{origins[0][2]}.'
            )
        return own[origins.index(found)]


class Default(_Names):
    """An S3 storage. PFNs are ``https://host:port/bucket/key`` (or http), percent-encoded.

    An S3 PUT is atomic, so no object is ever written under a temporary name. To Rucio's uploaders the class says that
    it renames, as they then leave the question whether the file exists to ``put``, which never overwrites: ``put`` to
    ``X.rucio.upload`` stores X at once, and the rename that follows has nothing to do.
    """

    def __init__(
        self, protocol_attr: dict[str, Any], rse_settings: 'RSESettingsDict', logger: 'LoggerFunction' = logging.log
    ) -> None:
        super().__init__(protocol_attr, rse_settings, logger=logger)
        self.renaming = True
        self.overwrite = True  # only this keeps Rucio from asking `exists` first; put itself refuses to overwrite
        self._endpoint: Optional[Endpoint] = None
        self._authorizer: Optional[authorizer.Authorizer] = None
        self._expected: Optional[str] = None  # the PFN that was asked for last, ...
        self._registered = Sums()  # ... and what its LFN said of the content
        self._stored: dict[str, int] = {}  # PFN -> bytes, of what this object put
        self._unsure: set[Target] = set()  # what a failed put may have stored
        self._unanswered = False  # the last deletion
        self._silent_until = float('-inf')
        # Of buckets that refused a deletion: until when we know, and whether it is they alone.
        self._closed: dict[str, tuple[float, bool]] = {}

    def lfns2pfns(self, lfns: Union[list['LFNDict'], 'LFNDict']) -> dict[str, str]:
        """The PFNs of LFNs, as :class:`_Names`. Of a single one ``put`` compares the content with its checksums."""
        pfns = super().lfns2pfns(lfns)
        if len(pfns) == 1:
            last = lfns if isinstance(lfns, dict) else list(lfns)[-1]
            self._expected = next(iter(pfns.values()))
            self._registered = Sums(last.get('md5'), last.get('adler32'))
        return pfns

    # Being connected

    def connect(self) -> None:
        """Read the settings and find out how to be authorised. Makes no request; the client is shared by all of the
        process.

        :raises ConfigurationError: if a setting is wrong.
        :raises RSEAccessDenied: if there is no way to be authorised.
        """
        self._connected()

    def _connected(self) -> Endpoint:
        if self._endpoint is None:
            endpoint = Endpoint.load(self.rse, self.attributes)
            self._authorizer = credentials.choose(
                endpoint, lambda: _server(self.auth_token), self.auth_token, bool(self.rse.get('sign_url'))
            )
            self._endpoint = endpoint
        return self._endpoint

    def close(self) -> None:
        """Nothing to do: the client is shared."""

    def connection(self) -> clients.Connection:
        """The storage with its settings, the way of being authorised and the client. As :meth:`connect`."""
        return clients.connect(self._connected(), self._authorizer)

    def locate(self, operation: str, pfn: str) -> tuple[clients.Connection, Target]:
        """The connection and the object for one operation on one PFN. Where only a signed URL will do, one request to
        the Rucio server.

        :param operation: read, write or delete.
        :raises RSEFileNameNotSupported: if the PFN is not one of this RSE.
        :raises RSEAccessDenied: if there are no credentials.
        """
        endpoint = self._connected()
        signed = 'signature=' in pfn.partition('?')[2].lower()
        url = _path_style(pfn) if signed else address.parse_url(pfn)
        target = Target(self.rse['rse'], url.bucket, url.key)
        if not signed or self._authorizer:
            protocol = self._protocol_of(pfn)
            endpoint = endpoint if protocol is self.attributes else Endpoint.load(self.rse, protocol)
        connection = clients.connect(endpoint, self._authorizer)
        if isinstance(connection.authorizer, credentials.Presigned):
            connection.authorizer.offer(operation, target, pfn if signed else self._sign(operation, pfn))
        return connection, target

    def _sign(self, operation: str, pfn: str) -> str:
        """Have the Rucio server sign a PFN: one request to it."""
        service = self.rse.get('sign_url')
        if not service or not is_client() or not pfn.startswith('https:'):
            raise RSEAccessDenied(
                f'RSE {self.rse["rse"]}: there are no credentials for it. Set access_key and secret_key, or profile, '
                f'in rucio.cfg [s3:{self.rse["rse"]}], '
                'its keys in rse-accounts.cfg, or auth = anonymous for a public bucket.'
            )
        from rucio.client.credentialclient import CredentialClient  # noqa: PLC0415 - servers have no clients

        return str(CredentialClient().get_signed_url(self.rse['rse'], service, operation, pfn))

    # Operations

    def exists(self, path: Optional[str]) -> bool:
        """Whether there is such an object: one HEAD, or with a signed URL one GET of the first byte.

        :raises RSEAccessDenied, ServiceUnavailable: if the storage does not say.
        """
        if not path or self._is_own_temporary(path):
            return False
        return objects.exists(*self.locate('read', path))

    def stat(self, path: str) -> dict[str, Any]:
        """Size and checksum of an object: one HEAD, or with a signed URL one GET of the first byte.

        After a put by a signed URL (which cannot be read from) it is what the storage confirmed.

        :returns: ``filesize`` in bytes; ``md5`` where the storage knows that of the whole content.
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
        """Store a local file; never overwrites. One PUT, or a multipart upload for large files; verified by the
        storage.

        :param source: The local file.
        :param target: The PFN; ``.rucio.upload`` at its end is not part of it.
        :param source_dir: The local directory.
        :param transfer_timeout: Bound of the whole transfer in seconds.
        :raises SourceNotFound, SourceAccessDenied: if the local file is missing or cannot be read.
        :raises FileConsistencyMismatch: if its content is not what the LFN of this PFN said, with its ``adler32`` or
            ``md5``.
        :raises FileReplicaAlreadyExists: if there is an object already, which stays as it is.
        :raises DestinationNotAccessible: if there is no such bucket.
        :raises RSEAccessDenied, ServiceUnavailable: and others, see :mod:`rucio.common.s3.errors`.
        """
        path = os.path.join(source_dir, source) if source_dir else source
        pfn = target.removesuffix(TEMPORARY)
        connection, where = self.locate('write', pfn)
        if connection.authorizer.whole_objects_only and not connection.endpoint.conditional_put:
            self._look_before(pfn)
        try:
            registered = self._registered if '?' in pfn or pfn == self._expected else Sums()
            # The cheaper of the two checksums will do.
            summing = Summing(registered, md5=not registered.adler32) if any(registered) else None
            size = transfer.upload(
                connection, path, where, _seconds(transfer_timeout), self._meter, where in self._unsure, summing
            )
        except (FileConsistencyMismatch, FileReplicaAlreadyExists):
            raise
        except RucioException:
            self._unsure.add(where)
            raise
        self._stored[pfn] = size

    def _look_before(self, pfn: str) -> None:
        """A URL that is signed for PUT does not tell whether there is an object: have one signed for GET."""
        plain = pfn.partition('?')[0]
        if self.rse.get('sign_url') and is_client() and self.exists(self._sign('read', plain)):
            raise FileReplicaAlreadyExists(
                f"RSE {self.rse['rse']}: put of '{plain}': there is already an object, and it was not changed."
            )

    def get(self, path: str, dest: str, transfer_timeout: Union[float, str, None] = None) -> None:
        """Get an object into exactly ``dest``, making its parent directories. Two requests, more (in parallel) for
        large ones.

        :param path: The PFN.
        :param dest: The local file.
        :param transfer_timeout: Bound of the whole transfer in seconds.
        :raises RSEFileNameNotSupported: if the key has ``.`` or ``..`` between slashes, from which Rucio made the local
            path.
        :raises SourceNotFound: if there is no such object.
        :raises DestinationNotAccessible: if the local file cannot be written.
        :raises FileConsistencyMismatch: if what came is not what was stored.
        :raises RSEAccessDenied, ServiceUnavailable: and others, see :mod:`rucio.common.s3.errors`.
        """
        try:
            connection, target = self.locate('read', path)
            if address.leaves_directory(target.key):
                raise RSEFileNameNotSupported(
                    f'RSE {target.rse}: get of {target}: Rucio takes names for paths, and this one would leave the '
                    'directory of the download. '
                    'Get it with another S3 client, and tell the owner of the file.'
                )
            transfer.download(connection, target, dest, _seconds(transfer_timeout), self._meter)
        except RucioException as error:
            # Rucio's download says why a try failed at level DEBUG only.
            self.logger(logging.WARNING, '%s', error.args[0] if error.args else error)
            raise

    def _meter(self, name: str, size: int) -> AbstractContextManager[Optional[transfer.Progress]]:
        """A progress bar for people, none in daemons."""
        wanted = self._endpoint.progress if self._endpoint and is_client() else 'off'
        return progress.meter(wanted, name, size)

    def delete(self, path: str) -> None:
        """Delete an object: a HEAD and a DELETE; with a signed URL only the DELETE, which does not tell of missing
        objects.

        When there is no connection, or two objects in a row got no answer on it, further ones fail without a request
        for half a minute: Rucio's reaper has up to thousands of them in hand, would wait for each as long as all
        attempts take, and only then leave the RSE alone.

        Where one bucket of many refuses keys that the storage takes, that is no reason to leave the others alone, as
        Rucio's reaper does after some RSEAccessDenied. A few more requests tell which it is, once in half a minute.

        :raises SourceNotFound: if there is no such object.
        :raises SourceAccessDenied: if its bucket alone refuses; the reaper goes on with others.
        :raises RSEAccessDenied, ServiceUnavailable: and others, see :mod:`rucio.common.s3.errors`.
        """
        connection, target = self.locate('delete', path)
        if time.monotonic() < self._silent_until:
            raise ServiceUnavailable(
                f'RSE {target.rse}: delete of {target}: not tried, as the storage did not answer a moment ago.'
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
                f'{error.args[0]} The storage takes the keys, so it is a policy of this bucket that refuses: an admin '
                'of Rucio can remove it '
                '(rucio s3 policy SCOPE --remove).'
            ) from error.__cause__

    def _refuses_alone(self, connection: clients.Connection, bucket: str, error: RSEAccessDenied) -> bool:
        """Whether it is one bucket that refuses, by its policy, and not the storage. A few requests at most, once in a
        while.
        """
        cause = error.__cause__
        code = cause.response.get('Error', {}).get('Code') if isinstance(cause, ClientError) else None
        # A HEAD that is refused has no other code than its status.
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
        """Delete many objects, one request for each 1000 of a bucket. Needs keys. A missing object counts as deleted.

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
        """Rename an object: a copy inside the storage and a delete, four requests and more. Never overwrites. Needs
        keys.

        After a ``put`` to a temporary name there is nothing to do.

        :raises SourceNotFound: if there is no such object.
        :raises FileReplicaAlreadyExists: if there is an object at ``new_path``.
        """
        pfn = self._final(path)
        if pfn == new_path:
            return
        connection, source = self.locate('write', pfn)
        self._need_keys(connection, 'rename')
        _, target = self.locate('write', new_path)
        transfer.copy(connection, source, target)
        with translated('delete', source):
            connection.client.delete_object(Bucket=source.bucket, Key=source.key)

    def ls(self, path: str) -> list[str]:
        """What lies directly below a PFN (a bucket, or a key as a folder): PFNs, those of folders end in a slash.

        One request for each 1000. Needs keys.

        :raises SourceNotFound: if there is no such bucket.
        """
        url = address.parse_url(path, key_required=False)
        connection, target = self.locate('read', path if url.key else f'{path.rstrip("/")}/-')
        self._need_keys(connection, 'ls')
        prefix = url.key if not url.key or url.key.endswith('/') else f'{url.key}/'
        return [
            f'{url.endpoint}/{address.encode_path(f"{target.bucket}/{each}")}'
            for each in objects.list_prefix(connection.client, target._replace(key=prefix))
        ]

    def get_space_usage(self) -> tuple[int, int]:
        """Size and free space in bytes. S3 knows neither: the size is the setting ``capacity``, what is used is listed.

        One request for each 1000 objects.

        :returns: Total and unused bytes.
        :raises RSEOperationNotSupported: if there is no ``capacity``, or no keys.
        """
        endpoint = self._connected()
        if endpoint.capacity is None:
            raise RSEOperationNotSupported(
                f"RSE {self.rse['rse']}: S3 does not tell how large a storage is. Set 'capacity' in the RSE's 's3' "
                'settings.'
            )
        connection = self.connection()
        self._need_keys(connection, 'get_space_usage')
        used = sum(
            size
            for bucket, prefix in self._places(connection)
            for _, size in objects.list_objects(connection.client, Target(connection.endpoint.rse, bucket, prefix))
        )
        return endpoint.capacity, max(0, endpoint.capacity - used)

    def _places(self, connection: clients.Connection) -> list[tuple[str, str]]:
        """Buckets and key prefixes that belong to this RSE."""
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
                f'RSE {self.rse["rse"]}: {operation} needs keys, signed URLs cannot do it. Set them in rucio.cfg '
                f'[s3:{self.rse["rse"]}].'
            )

    # Temporary names

    def _final(self, path: str) -> str:
        """The PFN that is meant by a temporary name under which this object put something."""
        pfn = path.removesuffix(TEMPORARY)
        return pfn if pfn in self._stored else path

    def _is_own_temporary(self, path: str) -> bool:
        """Whether this is the temporary name of the upload that is about to begin: such an object is never written.

        Other names that end so are looked up: they may be files, or what another protocol class left.
        """
        if not path.endswith(TEMPORARY):
            return False
        # Behind a signature it can be nothing else: no object has such a name.
        return '?' in path or path.removesuffix(TEMPORARY) == self._expected


class FTS(_Names):
    """The same storage as FTS sees it: URLs are ``s3s://host:port/bucket/key``, or ``s3://`` where the storage speaks
    http.

    For an entry of its own among the RSE's protocols, with scheme davs (which Rucio pairs with https and davs) and for
    third-party copy alone. Where files lie is what the RSE's other entry of this module says; this one says how FTS
    reaches the storage.
    """

    def __init__(
        self, protocol_attr: dict[str, Any], rse_settings: 'RSESettingsDict', logger: 'LoggerFunction' = logging.log
    ) -> None:
        own = dict(protocol_attr)
        protocol_attr.pop('auth_token', None)  # as any protocol does: Rucio keeps the entry
        ours = main_entries(rse_settings.get('protocols', []))
        main = ours[0] if ours else own
        super().__init__(
            {**own, 'prefix': main['prefix'], 'extended_attributes': main.get('extended_attributes')},
            rse_settings,
            logger=logger,
        )
        # Another entry may have the host and port by which FTS reaches the storage: then its scheme is known.
        same = [each for each in ours if (each['hostname'], each['port']) == (own['hostname'], own['port'])]
        self._fts_scheme = 's3' if (same or [main])[0]['scheme'] == 'http' else 's3s'
        rse = str(self.rse['rse'])
        if rse not in _warned and not is_client() and not of_server('fts'):
            _warned.add(rse)
            logger(
                logging.WARNING,
                'RSE %s has a protocol for FTS, but rucio.cfg does not say [s3] fts = True: no buckets are made for '
                'FTS, and Rucio may change its URLs.',
                rse,
            )

    @property
    def wants_push(self) -> bool:
        """Whether a WebDAV storage has to send its files here by itself, as S3 fetches none: the setting
        ``fts_push``.
        """
        try:
            given = self.attributes['extended_attributes']['s3']['fts_push']
            return bool(SETTINGS['fts_push'].parse(given))
        except (KeyError, TypeError, ValueError):  # not set; or wrong, which all that speak to the storage say
            return True

    def lfns2pfns(self, lfns: Union[list['LFNDict'], 'LFNDict']) -> dict[str, str]:
        """The URLs of LFNs, for FTS."""
        return {did: self._for_fts(pfn) for did, pfn in super().lfns2pfns(lfns).items()}

    def _for_fts(self, pfn: str) -> str:
        return f'{self._fts_scheme}://{pfn.partition("://")[2]}'

    def _parse(self, pfn: str) -> dict[str, Any]:
        """Rucio asks with a URL of FTS where a file has been written to."""
        scheme, _, rest = pfn.partition('://')
        own = self.attributes['scheme'] if scheme in ('s3s', 's3') else scheme
        return {**super()._parse(f'{own}://{rest}'), 'scheme': scheme}

    def _refuse(self, *_: Any, **__: Any) -> Any:
        """Nothing can be done with it but to make URLs."""
        raise RSEOperationNotSupported(
            f'RSE {self.rse["rse"]}: its {self.attributes["scheme"]} protocol, {self.attributes["impl"]}, only makes '
            'URLs for FTS. Take read, write and delete out of its domains, and leave them to the https protocol.'
        )

    connect = exists = stat = get = put = delete = rename = _refuse

    def close(self) -> None:
        """Nothing to do."""


def _server(token: Optional[str]) -> Optional[authorizer.RucioServer]:
    """The Rucio server as its clients see it, for each login; None on a server or daemon, and where no server is
    configured.
    """
    if not is_client():
        return None
    try:
        from rucio.client.s3client import S3Client  # noqa: PLC0415 - servers have no clients
    except ImportError:
        return None
    with _servers_lock:
        key = (os.getpid(), token)  # a fork must not use our sockets
        if key not in _servers:
            try:
                _servers[key] = S3Client()
            except (ConfigNotFound, MissingClientParameter):  # the client was configured by its arguments alone
                return None
        return _servers[key]


def _origin(pfn: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(pfn)
        return parts.scheme, parts.hostname or '', parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        raise RSEFileNameNotSupported(
            f"'{pfn.partition('?')[0]}' is no URL: its host or port cannot be read."
        ) from None


def _path_style(pfn: str) -> address.ObjectURL:
    """A signed URL taken apart. It may be host-style with a short key: it is used as it is, and only named in
    messages.
    """
    if pfn.partition('?')[0].count('/') == 3:
        scheme, _, rest = pfn.partition('://')
        return address.parse_url(
            f'{scheme}://{rest.partition("/")[0]}/{rest.partition(".")[0]}/{rest.partition("/")[2]}'
        )
    return address.parse_url(pfn)


def _seconds(timeout: Union[float, str, None]) -> Optional[float]:
    """Rucio passes numbers and strings; 0 and nothing mean no bound."""
    try:
        return float(timeout or 0) or None
    except ValueError:
        raise InputValidationError(f"transfer_timeout is '{timeout}', but must be a number of seconds.") from None
