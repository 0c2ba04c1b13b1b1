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

"""The multipart upload of one transfer: completed although an answer says otherwise, and aborted on a failure."""

import hashlib
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Optional

from botocore.exceptions import BotoCoreError, ClientError

from rucio.common.exception import RucioException

from . import deadlines, objects
from .answers import line_logger
from .clients import Stoppable
from .errors import Target, status_of

if TYPE_CHECKING:
    from .clients import Connection

__all__ = ['LeftOver', 'Multipart']

_PATIENCE = 3.0  # seconds
_LOGGER = line_logger(__name__)
LeftOver = Callable[[str, str, str], None]  # bucket, key and upload id


class _Later(threading.Event):
    """A stop that counts some seconds after it was seen to be set."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self._stop = stop
        self._end = math.inf

    def is_set(self) -> bool:
        if self._end == math.inf and self._stop.is_set():
            self._end = time.monotonic() + _PATIENCE
        return time.monotonic() >= self._end


class Multipart(Stoppable):
    """A client for one transfer that takes a completed multipart upload for completed, and reports what is not aborted.

    A CompleteMultipartUpload can be carried out twice: by a proxy that sends it again, or because its answer was lost.
    The answer to the second one is 404 (there is no such upload) or 412 (there is an object).

    :param connection: The storage.
    :param stop: Stops it when it is set.
    :param target: The object.
    :param size: Its size in bytes.
    :param left_over: Called for a multipart upload that could not be aborted.
    """

    def __init__(
        self,
        connection: 'Connection',
        stop: threading.Event,
        target: Target,
        size: int,
        left_over: Optional[LeftOver] = None,
    ) -> None:
        super().__init__(connection.client, stop)
        self._connection = connection
        self._target = target
        self._size = size
        self._left_over = left_over
        self.is_gone = False  # the upload, although nobody was told that it was completed

    def create_multipart_upload(self, **arguments: Any) -> Any:
        """Begin an upload. A stop lets the answer come for some seconds: without its id, the upload cannot be aborted.

        :param arguments: As for boto3.
        :raises CancelledError: if it was stopped before.
        """
        if self._stop.is_set():
            raise CancelledError
        with deadlines.ended_by(_Later(self._stop)):
            return self._client.create_multipart_upload(**arguments)

    def complete_multipart_upload(self, **arguments: Any) -> Any:
        """Complete an upload. After 404 or 412, up to two more requests find out whether that was done before.

        :param arguments: As for boto3.
        """
        try:
            return self.__getattr__('complete_multipart_upload')(**arguments)
        except ClientError as error:
            status = status_of(error)
            self.is_gone = status == 404 or (status == 412 and self._has_no_parts(arguments['UploadId']))
            if not self.is_gone or not self._is_stored(arguments['MultipartUpload']['Parts']):
                raise
            _LOGGER.info('RSE %s: %s was complete already: %s', self._target.rse, self._target, error)
            return {}

    def _has_no_parts(self, upload: str) -> bool:
        """Return whether the upload no longer exists. The object of somebody else leaves it as it is."""
        try:
            self.__getattr__('list_parts')(
                Bucket=self._target.bucket, Key=self._target.key, UploadId=upload, MaxParts=1
            )
        except (ClientError, BotoCoreError) as error:
            return status_of(error) == 404
        return False

    def _is_stored(self, parts: list[dict[str, Any]]) -> bool:
        """Return whether the object is made of these parts. One HEAD."""
        etag = _etag_of_parts([objects.bare_etag(part['ETag']) for part in parts])
        try:
            found = objects.stat(self._connection, self._target)
        except RucioException:
            return False
        return found.size == self._size and objects.bare_etag(found.etag) == etag

    def upload_part_copy(self, **arguments: Any) -> Any:
        """Copy a part. s3transfer sends the ETag of the source as a condition even if it is empty.

        :param arguments: As for boto3.
        """
        if not arguments.get('CopySourceIfMatch'):
            arguments.pop('CopySourceIfMatch', None)
        return self.__getattr__('upload_part_copy')(**arguments)

    def abort_multipart_upload(self, **arguments: Any) -> None:
        """Abort an upload, or report that it could not be aborted.

        :param arguments: As for boto3.
        """
        try:
            self._client.abort_multipart_upload(**arguments)
        except (ClientError, BotoCoreError) as error:
            if self._left_over is not None and status_of(error) != 404:
                self._left_over(arguments['Bucket'], arguments['Key'], arguments['UploadId'])
            raise


def _etag_of_parts(etags: list[str]) -> Optional[str]:
    """Return the ETag of an object whose parts have these ETags; None if they are no MD5s."""
    try:
        digests = b''.join(map(bytes.fromhex, etags))
    except ValueError:
        return None
    return f'{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}'
