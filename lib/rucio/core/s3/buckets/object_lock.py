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

"""Detects buckets with object lock: where storages obey unsigned lock headers, no PutObject is signed for them."""

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from rucio.common.s3.endpoint import SERVER
from rucio.common.s3.errors import Target, status_of, translated

if TYPE_CHECKING:
    from rucio.core.s3.storages import Storage

__all__ = ['CACHE_SECONDS', 'forget', 'is_enabled']

CACHE_SECONDS = 600  # object lock is usually enabled when a bucket is created
MAX_CACHED = 10_000  # buckets

# Errors of storages and buckets without object lock.
_NOT_ENABLED = (
    'ObjectLockConfigurationNotFoundError',
    'NoSuchObjectLockConfiguration',
    'NoSuchBucket',
    'NotImplemented',
    'MethodNotAllowed',
)

_known: OrderedDict[tuple[str, str], tuple[float, bool]] = OrderedDict()
_lock = threading.Lock()


def is_enabled(storage: 'Storage', bucket: str) -> bool:
    """Return whether a bucket has object lock. One request per :data:`CACHE_SECONDS`.

    :param storage: The storage.
    :param bucket: The bucket.
    :raises RSEAccessDenied: if the server's keys have no permission to ask.
    :raises ServiceUnavailable, ResourceTemporaryUnavailable: if the storage does not answer.
    """
    key, now = (storage.rse_id, bucket), time.monotonic()
    with _lock:
        known = _known.get(key)
        if known and now - known[0] < CACHE_SECONDS:
            return known[1]
    enabled = _ask(storage, bucket)
    with _lock:
        _known[key] = now, enabled
        while len(_known) > MAX_CACHED:
            _known.popitem(last=False)
    return enabled


def _ask(storage: 'Storage', bucket: str) -> bool:
    with translated('sign', Target(storage.rse, bucket)):
        try:
            found = storage.connection(SERVER).client.get_object_lock_configuration(Bucket=bucket)
        except ClientError as error:
            if error.response.get('Error', {}).get('Code') in _NOT_ENABLED or status_of(error) in (404, 405, 501):
                return False
            raise
    return found.get('ObjectLockConfiguration', {}).get('ObjectLockEnabled') == 'Enabled'


def forget() -> None:
    """Clear the cache."""
    with _lock:
        _known.clear()
