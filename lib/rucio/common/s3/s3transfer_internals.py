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
"""What is used of s3transfer beyond the manager, its configuration, futures, subscribers and exceptions, which boto3
and the AWS CLI use, too.

tests/unit/test_s3transfer_internals.py fails when it changes. Checked with s3transfer 0.11.3, 0.14.0, 0.16.1 and
0.19.3.
"""

import threading
from typing import TYPE_CHECKING

from s3transfer.utils import ChunksizeAdjuster

if TYPE_CHECKING:
    from s3transfer.futures import TransferFuture
    from s3transfer.manager import TransferManager

__all__ = ['begin_to_stop', 'is_missing_etag', 'part_size', 'tell_of_source']


def part_size(wanted: int, size: int) -> int:
    """The size in bytes of the parts in which s3transfer sends ``size`` bytes: as wanted, or larger where S3's limits
    (10,000 parts, of 5 MiB at least) ask for it.

    Uses ``utils.ChunksizeAdjuster``: the manager adjusts by itself and says nothing, but ETags are made of its parts.
    """
    return ChunksizeAdjuster().adjust_chunksize(wanted, size)


def tell_of_source(future: 'TransferFuture', size: int, etag: str) -> None:
    """Spare s3transfer the HEAD by which it asks for what is known of the source.

    Uses ``future.meta.provide_transfer_size``, and ``provide_object_etag`` where there is one: 0.12 asked for no ETag.
    """
    future.meta.provide_transfer_size(size)
    if hasattr(future.meta, 'provide_object_etag'):
        future.meta.provide_object_etag(etag)


def begin_to_stop(manager: 'TransferManager', future: 'TransferFuture') -> threading.Thread:
    """Cancel a transfer. The thread ends when its requests have ended and a multipart upload is aborted.

    Not by ``shutdown(cancel=True)``: that hands ``cancel`` on as the message, whose type is then wrong, and cancels
    nothing. Relies on ``shutdown`` waiting for the clean-up of what was cancelled.
    """
    future.cancel()
    cleanup = threading.Thread(target=manager.shutdown, name='rucio-s3-cleanup')
    cleanup.start()
    return cleanup


def is_missing_etag(error: KeyError) -> bool:
    """Whether this is what s3transfer raises where a storage answers UploadPartCopy, but not with the ETag of the part.

    It has no exception of its own for that.
    """
    return error.args in (('CopyPartResult',), ('ETag',))
