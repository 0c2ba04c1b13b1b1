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

"""Try objects: write and read them, in parts and by signed URLs."""

import os
from typing import TYPE_CHECKING, Any

from rucio.common.s3.errors import translated

from .network import http_get
from .scratch import new_folder, round_trip
from .trial import hint, skipped

if TYPE_CHECKING:
    from .subject import Subject


def list_and_read(subject: 'Subject') -> str:
    """Read one page of the listing, and the first byte of the first object that is not empty."""
    client, target = subject.connection.client, subject.target
    if not target.bucket:
        raise skipped('the RSE does not name a bucket: choose one with --bucket')
    where: Any = {'Bucket': target.bucket}
    with translated('ls', target):
        found = client.list_objects_v2(**where, Prefix=target.key, MaxKeys=10).get('Contents', [])
    full = next((each['Key'] for each in found if each['Size']), None)
    if full is None:
        raise hint(
            f"there are no objects to read in '{target.bucket}/{target.key}'",
            'Check the bucket and the prefix of the protocol.',
        )
    with translated('get', target._replace(key=full)):
        client.get_object(**where, Key=full, Range='bytes=0-0')['Body'].close()
    return f"'{target.bucket}'"


def write_and_read(subject: 'Subject') -> str:
    """Write and read a small object and an empty one."""
    if subject.signed_urls:
        return _by_signed_urls(subject)
    scratch = subject.scratch
    scratch.round_trip(scratch.connection, 'small', os.urandom(1000))
    scratch.round_trip(scratch.connection, 'empty', b'')
    subject.written = scratch
    return 'a small object and an empty one'


def _by_signed_urls(subject: 'Subject') -> str:
    if not subject.scopes:
        raise skipped(f'{subject.client.account} has no scope')
    protocol, name = subject.protocol, f'{new_folder()}signed'
    pfn = next(iter(protocol.lfns2pfns({'scope': subject.scopes[0], 'name': name}).values()))

    def get(path: str) -> None:
        try:
            protocol.get(pfn, path)
        finally:
            protocol.delete(pfn)

    round_trip(b'rucio s3 check', lambda path: protocol.put(path, pfn), get)
    return 'with signed URLs'


def multipart(subject: 'Subject') -> str:
    """Write and read an object in two parts."""
    scratch, part = subject.written, 5 * 1024**2
    connection = scratch.connect(multipart_threshold=part, multipart_chunksize=part)
    scratch.round_trip(connection, 'parts', os.urandom(part + 1))
    return 'two parts'


def presigned_url(subject: 'Subject') -> str:
    """Read an object by a presigned URL."""
    scratch = subject.written
    authorizer = scratch.connection.authorizer
    if authorizer.name == 'remote':
        raise skipped('the server signs each request when it is sent')
    if not authorizer.signed:
        raise skipped('there are no keys to sign with')
    small = {'Bucket': scratch.bucket, 'Key': scratch.target('small').key}
    url = scratch.connection.client.generate_presigned_url('get_object', Params=small, ExpiresIn=60)
    status = http_get(subject.endpoint, url).status_code
    if status != 200:
        raise hint(f'a signed URL returned {status}', 'Do not use sign_url and `rucio s3 presign` here.')
    return 'GET by a signed URL'
