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
"""Everything that is used of s3transfer beyond its manager, configuration, futures, subscribers and exceptions.

boto3 and the AWS CLI use those as well. tests/unit/test_s3transfer_internals.py fails if anything else changes. Checked
with s3transfer 0.11.3, 0.14.0, 0.16.1 and 0.19.3.
"""

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from s3transfer.futures import TransferFuture
    from s3transfer.manager import TransferManager
    from s3transfer.subscribers import BaseSubscriber

__all__ = ['MAX_SIZE', 'begin_to_stop', 'manager', 'part_size', 'subscriber', 'tell_of_source']

MiB = 1024**2
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_MAX_PARTS, _MIN_PART, _MAX_PART = 10_000, 5 * MiB, 5120 * MiB
MAX_SIZE = _MAX_PARTS * _MAX_PART  # bytes of an object


def part_size(wanted: int, size: int) -> int:
    """Return the size in bytes of the parts in which s3transfer sends or copies a file.

    It is larger than wanted, by whole MiB, if S3's limits (10,000 parts of at least 5 MiB) require it.

    Relies on ``utils.ChunksizeAdjuster``, which does not change a size that fits. Otherwise it would double it, without
    reporting it; but ETags depend on it, and parts are held in memory.

    :param wanted: The wanted size of a part in bytes.
    :param size: The size of the file in bytes, at most :data:`MAX_SIZE`.
    """
    least = -(-size // (_MAX_PARTS * MiB)) * MiB
    return max(wanted, least, _MIN_PART)


def manager(client: Any, **config: int) -> 'TransferManager':
    """Make a manager of transfers. Public API, but small files do without s3transfer, which takes 20 ms to import.

    :param client: The client, or what stands in for it.
    :param config: The parameters of ``TransferConfig``.
    """
    from s3transfer.manager import TransferConfig, TransferManager  # noqa: PLC0415

    return TransferManager(client, TransferConfig(**config))


def tell_of_source(future: 'TransferFuture', size: int, etag: str) -> None:
    """Save s3transfer the HEAD with which it would get the properties of the source.

    Uses ``future.meta.provide_transfer_size``, and ``provide_object_etag`` if it exists: 0.12 needs no ETag.

    :param future: The transfer.
    :param size: The size of the source in bytes.
    :param etag: The ETag of the source.
    """
    future.meta.provide_transfer_size(size)
    if hasattr(future.meta, 'provide_object_etag'):
        future.meta.provide_object_etag(etag)


def subscriber(watcher: object) -> 'BaseSubscriber':
    """Return an object as a subscriber of a transfer, without the import of its class.

    Relies on s3transfer calling the methods ``on_queued``, ``on_progress`` and ``on_done`` of any object that has them.

    :param watcher: Has such methods.
    """
    return cast('BaseSubscriber', watcher)


def begin_to_stop(manager: 'TransferManager') -> threading.Thread:
    """Cancel all transfers. The thread ends when their requests have ended and multipart uploads are aborted.

    ``shutdown(cancel=True)`` passes ``cancel`` on as the message, whose type is then wrong, and cancels nothing.
    Leaving the manager's context by an exception does. Relies on that waiting for the clean-up of cancelled transfers.

    :param manager: The manager.
    """

    def stop() -> None:
        with suppress(KeyboardInterrupt), manager:
            raise KeyboardInterrupt  # with any other exception it would be FatalError

    cleanup = threading.Thread(target=stop, name='rucio-s3-cleanup')
    cleanup.start()
    return cleanup
