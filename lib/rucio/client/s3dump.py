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

"""Dump the paths of an S3 RSE to a text file, for Rucio's auditor and other consistency tools.

Each line is one path: relative to the RSE's prefix and percent-encoded, as in PFNs. The buckets are listed with keys of
this machine; the Rucio server only gets two requests, for the RSE and the scopes.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from rucio.common.exception import InputValidationError, RSEAccessDenied, RSENotFound, SourceNotFound
from rucio.common.s3 import address, authorizer, clients, credentials, objects
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target, local_error
from rucio.common.s3.layout import IMPL, main_entries

if TYPE_CHECKING:
    from rucio.client.client import Client
    from rucio.common.s3.credentials import Server

__all__ = ['StorageDump']

# The auditor removes empty parts between slashes, and slashes at both ends: the key would be another one.
_LOST_SLASHES = re.compile('^/+|/+$|(?<=/)/+')


class _ListedPrefix(NamedTuple):
    """A bucket, the prefix of its keys, and the prefix of its paths."""

    bucket: str
    key_prefix: str
    path_prefix: str


class StorageDump:
    """A dump of one RSE: ``StorageDump(client, rse).write(path)``. Afterwards it has the number of objects and bytes.

    One request per 1000 objects, constant memory. Directory markers (empty objects whose key ends in a slash) are left
    out, as in the reconciler.

    :param client: The Rucio client.
    :param rse: The RSE.
    :param scopes: Only dump the buckets of these scopes; by default those of all scopes that the keys can list.
    :param server: The client of the server's plugin, or a function that makes it, for machines without keys.
    :raises RSENotFound: if there is no such RSE, or it is not an S3 storage.
    :raises RSENotFound: if there is no such RSE, or none that speaks S3.
    :raises RSEAccessDenied: if there are no keys.
    :raises ConfigurationError: if a setting is wrong.
    """

    def __init__(self, client: 'Client', rse: str, scopes: Sequence[str] = (), server: 'Server' = None) -> None:
        self._client = client
        self._rse = rse
        self._scopes = scopes
        self._settings: Any = dict(client.get_rse(rse))
        self._protocol = _protocol_of(self._settings)
        endpoint = Endpoint.load(self._settings, self._protocol)
        self._connection = clients.connect(endpoint, _authorizer(endpoint, server))
        self._heads: dict[str, str] = {}
        self.objects = self.bytes = 0
        self.buckets: list[str] = []
        self.others: list[str] = []  # buckets that belong to no scope

    # Lines

    def lines(self) -> Iterator[str]:
        """Yield the paths without line ends: bucket by bucket by name, keys in the order of the storage's listing.

        :raises SourceNotFound: if there is no bucket or no object: all files would be declared lost.
        :raises RucioException: if a bucket cannot be listed completely. The paths so far are not the whole dump.
        """
        for place in self._places():
            self.buckets.append(place.bucket)
            for key, size, _ in self._objects(place):
                if key.endswith('/') and size == 0:
                    continue
                self.objects += 1
                self.bytes += size or 0
                yield self._line(place.path_prefix + key[len(place.key_prefix) :])
        if not self.objects:
            raise SourceNotFound(
                f'RSE {self._rse}: there are no objects in {", ".join(self.buckets)}. '
                'No dump was written, because an empty dump would let all files of the RSE be declared lost.'
            )

    def _objects(self, place: _ListedPrefix) -> 'Iterator[objects.Listed]':
        try:
            yield from objects.list_objects(self._connection.client, Target(self._rse, place.bucket, place.key_prefix))
        except SourceNotFound:
            remedy = (
                "the scope's name (--scope); a scope to which nothing was ever written may have no bucket"
                if self._scopes
                else 'whether it was removed'
            )
            raise SourceNotFound(
                f"RSE {self._rse}: the storage has no bucket '{place.bucket}', so no dump was written. Check {remedy}."
            ) from None

    def write(self, path: str) -> None:
        """Write all lines to a file, which is replaced only when the dump is complete.

        :param path: The file.
        :raises InputValidationError: if it is a device or a pipe, which a file would replace.
        :raises RucioException: as :meth:`lines`.
        """
        real = os.path.realpath(path)
        if os.path.exists(real) and not os.path.isfile(real):
            raise InputValidationError(f'\'{path}\' is not a regular file: use "-o -" and redirect the output.')
        try:
            self._write(real)
        except OSError as error:
            if error.errno is None:  # it is from the Rucio client
                raise
            raise local_error(error, path, reading=False) from error

    def _write(self, path: str) -> None:
        with tempfile.NamedTemporaryFile(
            'w', dir=os.path.dirname(path), prefix='.rucio-s3-dump-', delete=False, encoding='ascii'
        ) as file:
            try:
                file.writelines(f'{line}\n' for line in self.lines())
                file.flush()
                mask = os.umask(0)
                os.umask(mask)
                os.chmod(file.name, 0o666 & ~mask)  # the auditor may be another user
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise

    def _line(self, path: str) -> str:
        encoded = _LOST_SLASHES.sub(lambda match: '%2F' * len(match[0]), address.encode_path(path))
        first = encoded.partition('/')[0]
        return f'{self._heads[first]}{encoded}' if first in self._heads else encoded

    def _note_heads(self) -> None:
        """Prepare for the auditor, which removes the first ``rucio`` of a path, and the beginning of the RSE's URL.

        Paths that begin so are written in full, after the ``rucio`` that it removes.
        """
        prefix = [each for each in self._protocol['prefix'].split('/') if each]
        kept = prefix[:-1] if prefix[-1:] == ['rucio'] else prefix
        self._heads = dict.fromkeys([*kept, 'rucio'], '/' + '/'.join([*kept, 'rucio']) + '/')

    # Buckets

    def _places(self) -> list[_ListedPrefix]:
        self._note_heads()
        bucket, folder = address.split_prefix(self._protocol['prefix'])
        if bucket:
            if self._scopes:
                raise InputValidationError(
                    f"RSE {self._rse}: all scopes are in the bucket '{bucket}': dump the whole RSE, without --scope."
                )
            return [_ListedPrefix(bucket, folder, '')]
        names = self._named() if self._scopes else self._listed()
        # In the order of the paths, where "a.b/" comes before "a/".
        return [_ListedPrefix(name, '', f'{name}/') for name in sorted(names, key=lambda name: f'{name}/')]

    @property
    def _has_scopes(self) -> bool:
        return bool(self._settings['deterministic']) and self._settings.get('lfn2pfn_algorithm') == 's3_bucket'

    def _named(self) -> set[str]:
        if not self._has_scopes:
            raise InputValidationError(
                f'RSE {self._rse} does not have a bucket for each scope: dump the whole RSE, without --scope.'
            )
        return {address.scope_to_bucket(scope, self._connection.endpoint.bucket_prefix) for scope in self._scopes}

    def _listed(self) -> set[str]:
        listed = set(objects.list_buckets(self._connection))
        ours = listed
        if self._has_scopes:
            known = set(self._client.list_scopes())
            ours = {
                name
                for name in listed
                if address.bucket_to_scope(name, self._connection.endpoint.bucket_prefix) in known
            }
            self.others = sorted(listed - ours)
        if not ours:
            raise SourceNotFound(
                f'RSE {self._rse}: the keys of this machine cannot list the bucket of any scope. '
                'No dump was written, because all files of the RSE would be declared lost. '
                'Use the keys of the owner of the buckets, or give the scopes with --scope.'
            )
        return ours


def _protocol_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the protocol by which clients read."""
    found = main_entries(settings['protocols'])
    if not found:
        raise RSENotFound(
            f'RSE {settings["rse"]} is not an S3 RSE: it has no protocol of {IMPL[:-1]} with scheme https or http.'
        )
    return dict(found[0])


def _authorizer(endpoint: Endpoint, server: 'Server') -> authorizer.Authorizer:
    """Return the keys of this machine, whatever way of authorisation is configured."""
    found: Optional[authorizer.Authorizer] = None
    if endpoint.auth != 'anonymous':
        with suppress(RSEAccessDenied):
            found = credentials.choose(replace(endpoint, auth='static'))
    found = found or credentials.choose(endpoint, server)
    if found is None:
        raise RSEAccessDenied(
            f'RSE {endpoint.rse}: a dump needs keys that can list buckets, and this machine has none. '
            f"Put them into rucio.cfg [s3:{endpoint.rse}], or run it on a machine with the server's rse-accounts.cfg."
        )
    return found
