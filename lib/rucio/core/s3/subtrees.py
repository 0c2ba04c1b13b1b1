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

"""The keys below a prefix of a bucket, and the names in the catalogue that they have."""

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
    """All keys of a bucket that begin with ``key_prefix``, and all names of a scope that begin with ``name_prefix``:
    one is the other.

    A prefix is empty or ends in a slash. Behind it key and name are the same, byte for byte, and so is their order.

    :param dataset: The one dataset for all new files (imports); None: each goes to the collection that it lies below.
    """

    storage: 'Storage'
    scope: 'InternalScope'
    bucket: str
    key_prefix: str
    name_prefix: str
    dataset: Optional[str] = None

    @classmethod
    def of(cls, storage: 'Storage', scope: 'InternalScope', name: str = '') -> 'Subtree':
        """What lies below a collection, or (no name) all of the scope's bucket. No request.

        :raises RSEOperationNotSupported: if the RSE's algorithm scatters what lies below a name.
        :raises RSEFileNameNotSupported: if the scope can have no bucket.
        """
        name_prefix = f'{name}/' if name else ''
        bucket, key_prefix = storage.layout.place_of(str(scope), name_prefix)
        return cls(storage, scope, bucket, key_prefix, name_prefix)

    @classmethod
    def imported(
        cls, storage: 'Storage', scope: 'InternalScope', dataset: str, bucket: str, key_prefix: str
    ) -> 'Subtree':
        """Somebody else's keys, as files of one dataset: the name is the dataset, a slash, and the key behind
        ``key_prefix``. No request.

        :param key_prefix: Only keys below it; a slash at its end may be left out.
        :raises RSEOperationNotSupported: if the RSE is deterministic.
        :raises RSEFileNameNotSupported: if the bucket does not lie below the protocol's prefix.
        """
        if storage.layout.deterministic:
            raise RSEOperationNotSupported(
                f'RSE {storage.rse} is deterministic: it has a place of its own for each name. Import into an RSE that '
                'is not (rucio s3 rse add NAME --read-only).'
            )
        if key_prefix and not key_prefix.endswith('/'):
            key_prefix += '/'
        storage.layout.path_of(bucket, key_prefix)
        return cls(storage, scope, bucket, key_prefix, f'{dataset}/', dataset)

    @property
    def is_whole(self) -> bool:
        """Whether it is all that the scope, or the dataset of an import, has in the bucket."""
        return not self.name_prefix or self.dataset is not None

    def name_of(self, key: str) -> str:
        """The name of a key of this part."""
        return self.name_prefix + key[len(self.key_prefix) :]

    def key_of(self, name: str) -> str:
        """The key of a name of this part."""
        return self.key_prefix + name[len(self.name_prefix) :]

    def path_of(self, key: str) -> Optional[str]:
        """What Rucio stores with the replica: a path on a non-deterministic RSE, else None."""
        return None if self.storage.layout.deterministic else self.storage.layout.path_of(self.bucket, key)

    def target(self, name: str) -> Target:
        """What a message about a name is about."""
        return Target(self.storage.rse, self.bucket, self.key_of(name))
