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

"""Archived objects (S3 Glacier and the like): they can be listed and deleted, but not read before they are restored.

Storage classes are only a hint: SeaweedFS keeps any name, and the object can be read. What counts is the answer to a
GET. Functions without requests.
"""

from typing import Any, Optional

from botocore.exceptions import ClientError

__all__ = ['class_of', 'is_being_restored', 'is_refusal', 'listed_class', 'restoring']

_CLASSES = ('GLACIER', 'DEEP_ARCHIVE')  # not GLACIER_IR: objects in it can be read at once
_CODES = ('InvalidObjectState', 'ObjectNotInActiveTierError', 'RestoreAlreadyInProgress')  # the second: of copies


def listed_class(each: Any) -> str:
    """Return the storage class of an object in a listing if it is archived; empty if it can be read, or was restored.

    :param each: An entry of botocore's answer to ListObjectsV2. Only with OptionalObjectAttributes it says what was
        restored.
    """
    name: str = each.get('StorageClass', '')
    restored = (each.get('RestoreStatus') or {}).get('RestoreExpiryDate') is not None
    return name if name in _CLASSES and not restored else ''


def class_of(answer: Any) -> str:
    """Return the archive that an object is in; empty if it can be read, or was restored.

    :param answer: botocore's answer to a HEAD.
    """
    if 'ongoing-request="false"' in answer.get('Restore', ''):
        return ''
    name = answer.get('StorageClass')
    return answer.get('ArchiveStatus') or (name if name in _CLASSES else '')


def is_being_restored(answer: Any) -> bool:
    """Return whether the restore of an object has begun, and not ended.

    :param answer: botocore's answer to a HEAD.
    """
    return 'ongoing-request="true"' in answer.get('Restore', '')


def is_refusal(error: Optional[BaseException]) -> bool:
    """Return whether a storage refused to read an object because it is archived.

    :param error: Any exception.
    """
    return isinstance(error, ClientError) and error.response.get('Error', {}).get('Code') in _CODES


def restoring() -> ClientError:
    """Return the error for an object that is being restored, as a storage refuses a second restore."""
    answer: Any = {
        'Error': {'Code': 'RestoreAlreadyInProgress', 'Message': 'found by a HEAD'},
        'ResponseMetadata': {'HTTPStatusCode': 409},
    }
    return ClientError(answer, 'GetObject')
