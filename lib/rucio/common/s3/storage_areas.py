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

"""Find out which part of a storage belongs to an RSE, and whether two RSEs can use the same object for different DIDs.

Deleting a file on one of them would delete it on the other, and readers of a scope on one could read a scope on the
other. No configuration and no requests to storages; if one host is an IP address, the names of others are resolved
once.
"""

import ipaddress
import socket
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Optional

from .address import bucket_to_scope, split_prefix

__all__ = ['Overlap', 'StorageArea', 'is_same_storage']


class Overlap(NamedTuple):
    """The reason why two RSEs can have the same key.

    :param why: A part of a sentence.
    :param scope: The scope for which it holds, if it exists; empty for any scope.
    """

    why: str
    scope: str = ''


class StorageArea(NamedTuple):
    """The part of a storage that belongs to an RSE.

    :param bucket: The bucket that all scopes share; empty if each has its own.
    :param folder: The folder in it, with a slash at its end; empty for the whole bucket.
    :param algorithm: The lfn2pfn algorithm; None if each replica has its own path.
    """

    rse: str
    host: str
    port: Optional[int]
    bucket: str
    folder: str
    bucket_prefix: str
    algorithm: Optional[str]

    @classmethod
    def of(cls, rse: str, protocol: Mapping[str, Any], algorithm: Optional[str]) -> 'StorageArea':
        """Return the area of an RSE from the protocol entry that clients use.

        :param rse: The name of the RSE.
        :param protocol: Its ``hostname``, ``port``, ``prefix`` and ``extended_attributes``.
        :param algorithm: The RSE's lfn2pfn algorithm.
        """
        bucket, folder = split_prefix(protocol['prefix'])
        settings = (protocol.get('extended_attributes') or {}).get('s3') or {}
        port = int(protocol.get('port') or 0)
        # On the default ports, http and https lead to the same storage.
        return cls(
            rse,
            _host(protocol['hostname']),
            None if port in (0, 80, 443) else port,
            bucket,
            folder,
            str(settings.get('bucket_prefix') or ''),
            algorithm,
        )

    def is_same_storage(self, other: 'StorageArea') -> bool:
        """Return whether both have the same host and port, however they are spelled.

        :param other: The area of another RSE.
        """
        return is_same_storage((self.host, self.port), (other.host, other.port))

    def overlap(self, other: 'StorageArea') -> Optional[Overlap]:
        """Return why a file of one RSE can have the key of a file of another RSE at the same storage, or None.

        RSEs with a path for each replica (imports) are ignored: they do not define where files are.

        :param other: The area of the other RSE.
        """
        if self.algorithm is None or other.algorithm is None or not self.is_same_storage(other):
            return None
        if bool(self.bucket) != bool(other.bucket):
            common, own = (self, other) if self.bucket else (other, self)
            scope = bucket_to_scope(common.bucket, own.bucket_prefix)
            return (
                None
                if scope is None
                else Overlap(
                    f"the bucket '{common.bucket}' belongs to scope {scope} on {own.rse}, "
                    f'and to all scopes on {common.rse}',
                    scope,
                )
            )
        one, two = (
            (f'{self.bucket}/{self.folder}', f'{other.bucket}/{other.folder}')
            if self.bucket
            else (self.bucket_prefix, other.bucket_prefix)
        )
        if one == two and self.algorithm == other.algorithm:
            return Overlap(f'{other.rse} uses the same keys for all files')
        if one.startswith(two) or two.startswith(one):
            what = 'is in' if self.bucket else 'begins like the bucket_prefix'
            return Overlap(f"'{one}' {what} '{two}' of {other.rse}, or vice versa")
        return None


def is_same_storage(one: tuple[str, Optional[int]], other: tuple[str, Optional[int]]) -> bool:
    """Return whether two hosts, as in :attr:`StorageArea.host`, and their ports are the same.

    Two names with the same address are different storages: there may be many behind one proxy.

    :param one: A host and its port.
    :param other: Another host and its port.
    """
    if one[1] != other[1]:
        return False
    if one[0] == other[0]:
        return True
    if _is_address(one[0]) == _is_address(other[0]):
        return False
    address, name = (one[0], other[0]) if _is_address(one[0]) else (other[0], one[0])
    return address in _addresses(name)


def _host(name: str) -> str:
    host = name.strip().strip('[]').rstrip('.').lower()
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def _is_address(host: str) -> bool:
    return ':' in host or host.replace('.', '').isdigit()


@lru_cache(maxsize=1024)
def _addresses(name: str) -> frozenset[str]:
    try:
        return frozenset(_host(str(each[4][0])) for each in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):  # the latter for a name that cannot be one
        return frozenset()
