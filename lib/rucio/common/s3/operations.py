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

"""The S3 operations that the Rucio server signs and `rucio s3 serve` takes: an allow-list. Pure functions."""

from collections.abc import Collection
from typing import NamedTuple, Optional

__all__ = ['OPERATIONS', 'Operation', 'find']


class Operation(NamedTuple):
    """An S3 operation: its method, whether it is on a key or bucket, and its required and optional query parameters."""

    name: str
    method: str
    on: str
    write: bool = False
    needs: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    copies: bool = False


def _fields(names: str) -> frozenset[str]:
    return frozenset(names.split())


_LISTING = 'prefix delimiter max-keys encoding-type'
OPERATIONS = (
    Operation('HeadObject', 'HEAD', 'key', may=_fields('partNumber')),
    Operation('GetObject', 'GET', 'key', may=_fields('partNumber')),
    Operation('PutObject', 'PUT', 'key', write=True),
    Operation('CopyObject', 'PUT', 'key', write=True, copies=True),
    Operation('DeleteObject', 'DELETE', 'key', write=True),
    Operation('CreateMultipartUpload', 'POST', 'key', write=True, needs=_fields('uploads')),
    Operation('UploadPart', 'PUT', 'key', write=True, needs=_fields('partNumber uploadId')),
    Operation('UploadPartCopy', 'PUT', 'key', write=True, needs=_fields('partNumber uploadId'), copies=True),
    Operation('CompleteMultipartUpload', 'POST', 'key', write=True, needs=_fields('uploadId')),
    Operation('AbortMultipartUpload', 'DELETE', 'key', write=True, needs=_fields('uploadId')),
    Operation(
        'ListParts',
        'GET',
        'key',
        write=True,
        needs=_fields('uploadId'),
        may=_fields('max-parts part-number-marker encoding-type'),
    ),
    Operation('HeadBucket', 'HEAD', 'bucket'),
    Operation('GetBucketLocation', 'GET', 'bucket', needs=_fields('location')),
    Operation(
        'ListObjectsV2',
        'GET',
        'bucket',
        needs=_fields('list-type'),
        may=_fields(f'{_LISTING} continuation-token start-after fetch-owner'),
    ),
    Operation('ListObjects', 'GET', 'bucket', may=_fields(f'{_LISTING} marker')),
    Operation(
        'ListMultipartUploads',
        'GET',
        'bucket',
        write=True,
        needs=_fields('uploads'),
        may=_fields('prefix delimiter max-uploads encoding-type key-marker upload-id-marker'),
    ),
    Operation('DeleteObjects', 'POST', 'bucket', write=True, needs=_fields('delete')),
)


def find(method: str, on: str, query: Collection[str], copies: bool) -> Optional[Operation]:
    """Return the operation of a request, or None if it is not in the list.

    :param method: The HTTP method.
    :param on: Whether it names a key or only a bucket: ``key`` or ``bucket``.
    :param query: The names of its query parameters.
    :param copies: Whether it has the header ``x-amz-copy-source``.
    """
    fields = frozenset(query)
    for each in OPERATIONS:
        same = (each.method, each.on, each.copies) == (method, on, copies)
        if same and each.needs <= fields <= each.needs | each.may:
            return each
    return None
