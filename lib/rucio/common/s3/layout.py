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
"""Where the DIDs of an RSE lie on its storage: which entry of its protocols says so, in which bucket, below which
folder, and with which names. One rule, for server, clients and daemons.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional
from urllib.parse import unquote

from rucio.common.exception import RSEFileNameNotSupported, RSEOperationNotSupported, RucioException

from .address import bucket_to_scope, encode_path, parse_url, split_prefix

__all__ = ['IMPL', 'SCHEMES', 'Layout', 'main_entries', 'speaks_s3']

IMPL = 'rucio.rse.protocols.s3.'  # what the protocol classes of this project begin with
SCHEMES = ('https', 'http')  # of the entries that clients use; others are for FTS
_MOST_DOTS = 30  # in a scope
_LAST = 1000  # of the preferences of Rucio's protocols, where nothing is said


def speaks_s3(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of an RSE's protocols is a class of this project."""
    return str(entry['impl']).startswith(IMPL)


def main_entries(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The entries of an RSE's protocols that clients use. The first says where files lie: it is Rucio's first for
    reading over the WAN; https where that says nothing. Empty: the RSE speaks no S3.
    """
    return sorted((each for each in entries if speaks_s3(each) and each['scheme'] in SCHEMES), key=_rank)


def _rank(entry: Mapping[str, Any]) -> tuple[int, int]:
    return (entry.get('domains') or {}).get('wan', {}).get('read') or _LAST, SCHEMES.index(entry['scheme'])


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the DIDs of one RSE lie. Makes no request and no query.

    :param rse: The RSE, for messages.
    :param prefix: That of the protocol.
    :param bucket_prefix: What the names of the scopes' buckets begin with.
    :param algorithm: The RSE's lfn2pfn algorithm.
    :param deterministic: Whether it is used; else each replica has a path.
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
        """The bucket that all scopes share, where the protocol's prefix names one; empty: each scope has its own."""
        return split_prefix(self.prefix)[0]

    @property
    def has_bucket_for_each_scope(self) -> bool:
        """Whether a scope's bucket can be made where it is missing; all other buckets are the operator's to make."""
        return self.deterministic and self.algorithm == 's3_bucket' and not self.common_bucket

    @property
    def keeps_together(self) -> bool:
        """Whether the names of a scope that begin alike are keys that begin alike."""
        return self.deterministic and self.algorithm in ('s3_bucket', 'identity')

    def _is_apart(self, scope: str) -> bool:
        """Whether all keys below the scope's own are its own: with ``identity`` those of ``user.alice.x`` lie below
        those of ``user.alice``.
        """
        return self.keeps_together and not (self.algorithm == 'identity' and scope.startswith(('user', 'group')))

    def bucket_of(self, scope: str) -> str:
        """The bucket of a scope, or the one that all share.

        :raises RSEFileNameNotSupported: if the scope can have none.
        """
        return self.common_bucket or self.place_of(scope, '')[0]

    def place_of(self, scope: str, name: str, path: Optional[str] = None) -> tuple[str, str]:
        """Bucket and key of a DID, by the RSE's own lfn2pfn algorithm. Whether there is such an object is not asked.

        :param scope: The scope, without a VO.
        :param name: The name; with a slash at its end all that lies below it, and the key is a prefix; empty: all of
            the scope.
        :param path: The path that Rucio has stored with the replica, if any.
        :raises RSEFileNameNotSupported: if the DID has no place on this RSE.
        :raises RSEOperationNotSupported: if the RSE's algorithm scatters what lies below a name, or it has none.
        """
        if not self.deterministic and path is None:
            raise RSEOperationNotSupported(
                f'RSE {self.rse} is not deterministic: nobody can say where a new file of it lies.'
            )
        if path is None and (not name or name.endswith('/')) and not self._is_apart(scope):
            raise RSEOperationNotSupported(
                f"RSE {self.rse}: its lfn2pfn algorithm '{self.algorithm}' has no place of its own "
                f'for all names of scope {scope} that begin alike.'
            )
        lfn: Any = {'scope': scope, 'name': name, 'path': path}
        url = parse_url(next(iter(self.pfns_of(lfn).values())), key_required=bool(name))
        return url.bucket, url.key

    def path_of(self, bucket: str, key: str) -> str:
        """What Rucio stores with the replica of this object on a non-deterministic RSE: the path below the protocol's
        prefix, percent-encoded.

        :raises RSEFileNameNotSupported: if the object does not lie below the prefix: it could have no PFN.
        """
        path = self._below_prefix(bucket, key)
        if path is None:
            raise RSEFileNameNotSupported(
                f"RSE {self.rse}: bucket '{bucket}', key '{key}' does not lie below the protocol's prefix "
                f"'/{unquote(self.prefix.strip('/'))}/'."
            )
        return '/' + encode_path(path)

    def _below_prefix(self, bucket: str, key: str) -> Optional[str]:
        prefix, path = unquote(self.prefix.strip('/')), f'{bucket}/{key}'
        if not prefix:
            return path
        return path[len(prefix) + 1 :] if path.startswith(f'{prefix}/') else None

    def dids_of(self, bucket: str, key: str) -> list[tuple[str, str]]:
        """The DIDs whose place this is: one or none with ``s3_bucket``; of the others some make the same key of several
        DIDs. No look-up.

        :param bucket: The bucket.
        :param key: A key, or a prefix of keys where the algorithm keeps names together (``s3_bucket``, ``identity``).
        :returns: Scope and name of each. The name is empty for the bucket (or the part of it) of a scope.
        """
        path = self._below_prefix(bucket, key)
        if not self.deterministic or path is None:
            return []
        # What only looks like the DID's place is nobody's.
        return [(scope, name) for scope, name in self._candidates(path) if self._fits(scope, name, bucket, key)]

    def may_have(self, bucket: str) -> bool:
        """Whether a bucket is the one that all scopes share, or begins with the ``bucket_prefix``. Others may be those
        of other VOs.
        """
        return bucket == self.common_bucket if self.common_bucket else bucket.startswith(self.bucket_prefix)

    def _candidates(self, path: str) -> list[tuple[str, str]]:
        if self.algorithm == 's3_bucket':
            bucket, _, name = path.partition('/')
            scope = bucket_to_scope(bucket, self.bucket_prefix)
            return [] if scope is None else [(scope, name)]
        if self.algorithm not in ('identity', 'hash', 'def'):
            return []
        # Rucio makes slashes of the dots in scopes that begin with user or group; hash has two directories before the
        # name.
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
