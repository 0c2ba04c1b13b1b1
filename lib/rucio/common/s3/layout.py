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
"""Where the DIDs of an RSE are on its storage: protocol entry, bucket, folder and key.

One rule for server, clients and daemons.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional
from urllib.parse import unquote

from rucio.common.exception import RSEFileNameNotSupported, RSEOperationNotSupported, RucioException

from .address import bucket_to_scope, encode_path, parse_url, split_prefix

__all__ = ['IMPL', 'SCHEMES', 'Layout', 'main_entries', 'speaks_s3']

IMPL = 'rucio.rse.protocols.s3.'  # the prefix of this project's protocol classes
SCHEMES = ('https', 'http')  # of the entries that clients use; FTS uses others
_MOST_DOTS = 30  # in a scope
_LAST = 1000  # the priority in Rucio's protocols if none is set


def speaks_s3(entry: Mapping[str, Any]) -> bool:
    """Return whether an entry of an RSE's protocols has a class of this project.

    :param entry: The entry.
    """
    return str(entry['impl']).startswith(IMPL)


def main_entries(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the entries of an RSE's protocols that clients use.

    The first entry determines where files are: it has the highest priority for reading over the WAN, and https if there
    are equal ones.

    :param entries: The RSE's protocols.
    :returns: The entries; empty if the RSE is not an S3 RSE.
    """
    return sorted((each for each in entries if speaks_s3(each) and each['scheme'] in SCHEMES), key=_rank)


def _rank(entry: Mapping[str, Any]) -> tuple[int, int]:
    return (entry.get('domains') or {}).get('wan', {}).get('read') or _LAST, SCHEMES.index(entry['scheme'])


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the DIDs of one RSE are. Sends no request and no query.

    :param rse: The name of the RSE, for messages.
    :param prefix: The prefix of the protocol.
    :param bucket_prefix: The prefix of the scopes' buckets.
    :param algorithm: The RSE's lfn2pfn algorithm.
    :param deterministic: Whether the algorithm is used; otherwise each replica has a path.
    :param pfns_of: The protocol's ``lfns2pfns``.
    """

    rse: str
    prefix: str
    bucket_prefix: str
    algorithm: Optional[str]
    deterministic: bool
    pfns_of: Callable[[Any], Mapping[str, str]]

    @property
    def common_bucket(self) -> str:
        """The bucket that all scopes share, if the protocol's prefix names one; empty if each scope has its own."""
        return split_prefix(self.prefix)[0]

    @property
    def has_bucket_for_each_scope(self) -> bool:
        """Whether the bucket of a scope can be created on demand. All other buckets must be made by the operator."""
        return self.deterministic and self.algorithm == 's3_bucket' and not self.common_bucket

    @property
    def keeps_together(self) -> bool:
        """Whether names of a scope with a common prefix have keys with a common prefix."""
        return self.deterministic and self.algorithm in ('s3_bucket', 'identity')

    def _is_apart(self, scope: str) -> bool:
        """Return whether all keys below the scope's prefix belong to the scope.

        With ``identity``, the keys of ``user.alice.x`` are below those of ``user.alice``.
        """
        return self.keeps_together and not (self.algorithm == 'identity' and scope.startswith(('user', 'group')))

    def bucket_of(self, scope: str) -> str:
        """Return the bucket of a scope, or the one that all scopes share.

        :param scope: The scope, without a VO.
        :raises RSEFileNameNotSupported: if the scope cannot have a bucket.
        """
        return self.common_bucket or self.place_of(scope, '')[0]

    def place_of(self, scope: str, name: str, path: Optional[str] = None) -> tuple[str, str]:
        """Return bucket and key of a DID, by the RSE's lfn2pfn algorithm. The object need not exist.

        :param scope: The scope, without a VO.
        :param name: The name. With a slash at its end, the key is the prefix of everything below the name; empty for
            the whole scope.
        :param path: The path that Rucio has stored with the replica, if any.
        :raises RSEFileNameNotSupported: if the DID cannot be on this RSE.
        :raises RSEOperationNotSupported: if the RSE's algorithm has no common prefix for the name, or it has none.
        """
        if not self.deterministic and path is None:
            raise RSEOperationNotSupported(
                f'RSE {self.rse} is not deterministic: the location of a new file is not defined.'
            )
        if path is None and (not name or name.endswith('/')) and not self._is_apart(scope):
            raise RSEOperationNotSupported(
                f"RSE {self.rse}: its lfn2pfn algorithm '{self.algorithm}' has no common prefix "
                f'for the names of scope {scope} that begin alike.'
            )
        lfn: Any = {'scope': scope, 'name': name, 'path': path}
        url = parse_url(next(iter(self.pfns_of(lfn).values())), key_required=bool(name))
        return url.bucket, url.key

    def path_of(self, bucket: str, key: str) -> str:
        """Return the path of a replica on a non-deterministic RSE, as Rucio stores it.

        It is relative to the protocol's prefix, and percent-encoded.

        :param bucket: The bucket.
        :param key: The key.
        :raises RSEFileNameNotSupported: if the object is not below the prefix, and so cannot have a PFN.
        """
        path = self._below_prefix(bucket, key)
        if path is None:
            raise RSEFileNameNotSupported(
                f"RSE {self.rse}: bucket '{bucket}', key '{key}' is not below the protocol's prefix "
                f"'/{unquote(self.prefix.strip('/'))}/'."
            )
        return '/' + encode_path(path)

    def _below_prefix(self, bucket: str, key: str) -> Optional[str]:
        prefix, path = unquote(self.prefix.strip('/')), f'{bucket}/{key}'
        if not prefix:
            return path
        return path[len(prefix) + 1 :] if path.startswith(f'{prefix}/') else None

    def dids_of(self, bucket: str, key: str) -> list[tuple[str, str]]:
        """Return the DIDs that have this key. No query.

        With ``s3_bucket`` there is at most one; other algorithms may map several DIDs to the same key.

        :param bucket: The bucket.
        :param key: A key, or a prefix of keys where the algorithm keeps names together (``s3_bucket``, ``identity``).
        :returns: Scope and name of each. The name is empty for the bucket (or the part of it) of a scope.
        """
        path = self._below_prefix(bucket, key)
        if not self.deterministic or path is None:
            return []
        # A key that only looks like that of a DID belongs to none.
        return [(scope, name) for scope, name in self._candidates(path) if self._fits(scope, name, bucket, key)]

    def may_have(self, bucket: str) -> bool:
        """Return whether a bucket may belong to the RSE: it is the shared one, or begins with the ``bucket_prefix``.

        Other buckets may belong to other VOs.

        :param bucket: The bucket.
        """
        return bucket == self.common_bucket if self.common_bucket else bucket.startswith(self.bucket_prefix)

    def _candidates(self, path: str) -> list[tuple[str, str]]:
        if self.algorithm == 's3_bucket':
            bucket, _, name = path.partition('/')
            scope = bucket_to_scope(bucket, self.bucket_prefix)
            return [] if scope is None else [(scope, name)]
        if self.algorithm not in ('identity', 'hash', 'def'):
            return []
        # Rucio replaces the dots in scopes that begin with user or group by slashes; hash adds two directories before
        # the name.
        parts, skipped = path.split('/'), 0 if self.algorithm == 'identity' else 2
        return [
            ('.'.join(parts[:count]), '/'.join(parts[count + skipped :]))
            for count in range(1, min(len(parts) - skipped, _MOST_DOTS))
        ]

    def _fits(self, scope: str, name: str, bucket: str, key: str) -> bool:
        try:
            return self.place_of(scope, name) == (bucket, key)
        except RucioException:
            return False
