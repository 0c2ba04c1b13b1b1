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

"""Whether vended keys for writing read what their session policy does not allow, by copying it as a part of an upload.

Ceph 18 asks only the policy of the role about the source of UploadPartCopy: whoever may write to one folder reads
every object that the role may read. No statement of a session policy prevents that, so the server tries it before it
vends keys.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from rucio.common.exception import RucioException, ServiceUnavailable
from rucio.common.s3 import clients, objects
from rucio.common.s3.credentials import Static
from rucio.common.s3.endpoint import SERVER
from rucio.common.s3.errors import Target, describe, status_of

from . import vending

if TYPE_CHECKING:
    from rucio.core.s3.storages import Storage

__all__ = ['find_exposure', 'is_tried']

_SESSION_NAME = 'copies'
_REFUSED = 403
_REMEDY = "Leave out 'role_arn': the server then signs requests (docs/operators.md, Ceph)."


class _Scratch(NamedTuple):
    """A place for a test, with an object that the keys must not read."""

    bucket: str
    prefix: str

    @property
    def source(self) -> str:
        return f'{self.prefix}source'

    @property
    def folder(self) -> str:
        return f'{self.prefix}shared/'


def is_tried(storage: 'Storage') -> bool:
    """Return whether the storage is of a kind that was seen to allow it. Makes no request."""
    return storage.endpoint.provider == 'ceph'


def find_exposure(storage: 'Storage') -> str:
    """Return what vended keys could read, and what to change; empty if nothing.

    No request on storages that were never seen to allow it; else ten, among them one to the STS: a bucket with an
    object is made and removed (where all scopes share a bucket, only an object).

    :param storage: An RSE with a role, and keys of the server.
    :raises ServiceUnavailable: if it cannot be determined.
    """
    if not is_tried(storage):
        return ''
    try:
        with _scratch(storage) as place:
            is_copied = _is_copied(storage, place)
    except (ClientError, BotoCoreError, RucioException) as error:
        said = error.args[0] if isinstance(error, RucioException) and error.args else describe(error)
        raise ServiceUnavailable(
            f'RSE {storage.rse}: it is unknown whether vended keys can copy what they cannot read, as the test failed: '
            f'{said} Let the server make a bucket and an object, or leave out role_arn.'
        ) from None
    if not is_copied:
        return ''
    return (
        f'RSE {storage.rse}: vended keys for writing could read every object that the role may read, by '
        f'UploadPartCopy, as Ceph 18 allows it. {_REMEDY}'
    )


@contextmanager
def _scratch(storage: 'Storage') -> Iterator[_Scratch]:
    """Make a bucket with an object, by the server's keys."""
    connection, label = storage.connection(SERVER), f'rucio-s3-{secrets.token_hex(8)}'
    common = storage.layout.common_bucket
    place = _Scratch(common, f'{label}/') if common else _Scratch(f'{storage.endpoint.bucket_prefix}{label}', '')
    if not common:
        objects.make_bucket(connection, Target(storage.rse, place.bucket))
    try:
        connection.client.put_object(Bucket=place.bucket, Key=place.source, Body=b'source')
        yield place
    finally:
        with suppress(ClientError, BotoCoreError):
            connection.client.delete_object(Bucket=place.bucket, Key=place.source)
            if not common:
                connection.client.delete_bucket(Bucket=place.bucket)


def _is_copied(storage: 'Storage', place: _Scratch) -> bool:
    """Try it with keys for the folder. The upload is aborted, so that nothing is stored.

    :raises ClientError: if the storage answers anything else than success or 403.
    """
    policy = vending.session_policy(storage.rse, place.bucket, place.folder, True)
    keys = vending.assume(storage, policy, vending.MIN_LIFETIME, _SESSION_NAME)
    theirs = Static(keys.access_key, keys.secret_key, keys.session_token)
    client, target = clients.bare(storage.endpoint, theirs, SERVER).client, f'{place.folder}part'
    upload = client.create_multipart_upload(Bucket=place.bucket, Key=target)['UploadId']
    try:
        client.upload_part_copy(
            Bucket=place.bucket,
            Key=target,
            UploadId=upload,
            PartNumber=1,
            CopySource={'Bucket': place.bucket, 'Key': place.source},
        )
    except ClientError as error:
        if status_of(error) == _REFUSED:
            return False
        raise
    else:
        return True
    finally:
        with suppress(ClientError, BotoCoreError):
            client.abort_multipart_upload(Bucket=place.bucket, Key=target, UploadId=upload)
