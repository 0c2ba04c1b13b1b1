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

"""Subtrees of buckets: the keys below a prefix, and the names that they have in the catalogue."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from rucio.common.exception import RSEOperationNotSupported
from rucio.common.s3.errors import Target

if TYPE_CHECKING:
    from rucio.common.types import InternalScope

    from .storages import Storage

__all__ = ['Subtree']


@dataclass(frozen=True, eq=False)
class Subtree:
    """The keys of a bucket that begin with ``key_prefix``, and the names of a scope that begin with ``name_prefix``.

    They map to each other. A prefix is empty or ends with a slash; after it, key and name are the same bytes, and sort
    in the same order.

    :param dataset: The dataset that all new files are added to (imports); None: each file is added to the collection
        that it is below.
    """

    storage: 'Storage'
    scope: 'InternalScope'
    bucket: str
    key_prefix: str
    name_prefix: str
    dataset: Optional[str] = None

    @classmethod
    def of(cls, storage: 'Storage', scope: 'InternalScope', name: str = '') -> 'Subtree':
        """Return the subtree of a collection, or (no name) of the whole bucket of the scope. No request.

        :raises RSEOperationNotSupported: if the lfn2pfn algorithm of the RSE does not keep the files of a collection
            below one prefix.
        :raises RSEFileNameNotSupported: if the scope cannot have a bucket.
        """
        name_prefix = f'{name}/' if name else ''
        bucket, key_prefix = storage.layout.place_of(str(scope), name_prefix)
        return cls(storage, scope, bucket, key_prefix, name_prefix)

    @classmethod
    def imported(
        cls, storage: 'Storage', scope: 'InternalScope', dataset: str, bucket: str, key_prefix: str
    ) -> 'Subtree':
        """Return the subtree of an import: keys of another owner, as files of one dataset. No request.

        The name of a file is the dataset, a slash, and the key without ``key_prefix``.

        :param key_prefix: Import only the keys below this prefix; the slash at its end may be omitted.
        :param dataset: The name of the dataset.
        :raises RSEOperationNotSupported: if the RSE is deterministic.
        :raises RSEFileNameNotSupported: if the bucket is not below the prefix of the protocol.
        """
        if storage.layout.deterministic:
            raise RSEOperationNotSupported(
                f'RSE {storage.rse} is deterministic: the name of a file determines where it is stored. Import into a '
                'non-deterministic RSE (rucio s3 rse add NAME --read-only).'
            )
        if key_prefix and not key_prefix.endswith('/'):
            key_prefix += '/'
        storage.layout.path_of(bucket, key_prefix)
        return cls(storage, scope, bucket, key_prefix, f'{dataset}/', dataset)

    @property
    def is_whole(self) -> bool:
        """Whether this is everything that the scope, or the dataset of an import, has in the bucket."""
        return not self.name_prefix or self.dataset is not None

    def name_of(self, key: str) -> str:
        """Return the name of a key of this subtree."""
        return self.name_prefix + key[len(self.key_prefix) :]

    def key_of(self, name: str) -> str:
        """Return the key of a name of this subtree."""
        return self.key_prefix + name[len(self.name_prefix) :]

    def path_of(self, key: str) -> Optional[str]:
        """Return the path that Rucio stores with a replica on a non-deterministic RSE; None on others."""
        return None if self.storage.layout.deterministic else self.storage.layout.path_of(self.bucket, key)

    def target(self, name: str) -> Target:
        """Return what messages about a name refer to."""
        return Target(self.storage.rse, self.bucket, self.key_of(name))
