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

"""Make buckets ignore public ACLs.

The owner decides what is public (``rucio s3 share --public``), not anybody who may write.

An upload can set an ACL. AWS refuses a public one from keys without PutObjectAcl, such as vended keys; Ceph
accepts it, and conditions in a session policy do not prevent it for copies and multipart uploads. The public
access block of the bucket does, with IgnorePublicAcls only: bucket policies keep working. (BlockPublicAcls makes
Ceph 16 refuse every upload.)
"""

import os
import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from rucio.common.exception import DestinationNotAccessible, RSEAccessDenied, RSEOperationNotSupported
from rucio.common.s3.endpoint import SERVER_WORK
from rucio.common.s3.errors import Target, translated

if TYPE_CHECKING:
    from rucio.core.s3.storages import Storage

__all__ = ['ignore']

CACHE_SECONDS = 3600  # until it is checked again: the bucket may have been replaced
MAX_CACHED = 10_000  # buckets

_done: dict[tuple[int, str, str], float] = {}


def ignore(storage: 'Storage', bucket: str) -> None:
    """Make a storage ignore public ACLs in a bucket, if it obeys them (setting ``ignore_public_acls``).

    Other settings of the public access block are kept.

    One request per bucket, process and hour; a second one the first time.

    :raises RSEOperationNotSupported: if the storage refuses: no keys for writing may be vended.
    :raises ServiceUnavailable: if the storage does not answer.
    """
    key = (os.getpid(), storage.rse_id, bucket)
    if not storage.endpoint.ignore_public_acls or time.monotonic() < _done.get(key, 0):
        return
    try:
        with translated('public_access_block', Target(storage.rse, bucket)):
            _ignore(storage.connection(SERVER_WORK).client, bucket)
    except DestinationNotAccessible:  # the bucket does not exist: this is called again when it is created
        return
    except (RSEAccessDenied, RSEOperationNotSupported) as error:
        raise RSEOperationNotSupported(
            f"RSE {storage.rse}, bucket '{bucket}': no keys for writing are vended, as the server cannot make the "
            f'storage ignore public ACLs: {error.args[0] if error.args else error} Allow PutBucketPublicAccessBlock '
            "and GetBucketPublicAccessBlock for the server's keys."
        ) from None
    _done.pop(key, None)
    _done[key] = time.monotonic() + CACHE_SECONDS
    while len(_done) > MAX_CACHED:  # the first one was checked longest ago
        _done.pop(next(iter(_done)), None)


def _ignore(client: Any, bucket: str) -> None:
    try:
        block = client.get_public_access_block(Bucket=bucket)['PublicAccessBlockConfiguration']
    except ClientError as error:
        if error.response.get('Error', {}).get('Code') != 'NoSuchPublicAccessBlockConfiguration':
            raise
        block = {}
    if not block.get('IgnorePublicAcls'):
        names = ('BlockPublicAcls', 'BlockPublicPolicy', 'RestrictPublicBuckets')
        wanted = {name: bool(block.get(name)) for name in names} | {'IgnorePublicAcls': True}
        client.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=wanted)
