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

"""Try whether the storage verifies what it receives: checksums of bodies, and their signed hash."""

import base64
import contextlib
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from rucio.common.exception import RSEAccessDenied, RucioException
from rucio.common.s3 import botocore_internals, objects
from rucio.common.s3.checksums import base64_of
from rucio.common.s3.errors import status_of

from .trial import change, compared, failed, hint, skipped

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest

    from .subject import Subject


_REFUSED = 'a wrong one is rejected'
_INSTEAD = {
    'md5': "Set checksum = crc32 in extended_attributes if that works (below), else 'none'.",
    'crc32': change('checksum', 'md5'),
}


def content_md5(subject: 'Subject') -> str:
    """Send an object with a wrong Content-MD5."""
    return _refuses_wrong(subject, 'md5', ContentMD5=_md5(b'wrong'))


def crc32(subject: 'Subject') -> str:
    """Send an object with a wrong CRC32."""
    found = _refuses_wrong(subject, 'crc32', ChecksumCRC32=base64_of(zlib.crc32(b'wrong')))
    if found == _REFUSED and subject.endpoint.checksum == 'none':
        raise hint('is verified by the storage, but checksum is none', change('checksum', 'crc32'))
    return found


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _refuses_wrong(subject: 'Subject', checksum: str, **header: Any) -> str:
    scratch, used = subject.written, subject.endpoint.checksum
    try:
        scratch.put(f'wrong-{checksum}', b'right', **header)
    except ClientError as error:
        if status_of(error) == 400:
            return _REFUSED
        if status_of(error) not in (411, 501):  # the storage does not know it
            raise
    if used == checksum:
        raise failed('a wrong one is accepted: uploads are not verified', _INSTEAD[checksum])
    return f'a wrong one is accepted; checksum = {used} does not use it'


def full_object(subject: 'Subject') -> str:
    """Upload an object in parts with a CRC32 of the whole."""
    scratch, body = subject.written, b'whole'
    connection = scratch.connect(checksum='crc32', full_object_checksum=True, multipart_threshold=1)
    try:
        target = scratch.upload(connection, 'whole', body)
        measured = objects.stat(connection, target).crc32 == base64_of(zlib.crc32(body))
    except RucioException:
        measured = False
    used = subject.endpoint.full_object_checksum and subject.endpoint.checksum == 'crc32'
    return compared(
        replace(subject.endpoint, full_object_checksum=used),
        'full_object_checksum',
        measured,
        'ChecksumType FULL_OBJECT of multipart uploads',
        'the storage keeps no CRC32 of the whole object',
        'with checksum = crc32 verifies downloads of large files',
    )


def signed_body(subject: 'Subject') -> str:
    """Sign DeleteObjects for the key of one object, and send it with the key of another."""
    scratch = subject.written
    authorizer, client = scratch.connection.authorizer, scratch.bare.client
    if not (authorizer.signed or authorizer.name == 'remote'):
        raise skipped('there are no keys to sign with')
    signed, sent = (scratch.put(name, b'') for name in ('signed', 'sent'))
    with _another_body(client, f'<Delete><Object><Key>{sent}</Key></Object></Delete>'.encode()):
        try:
            client.delete_objects(Bucket=scratch.bucket, Delete={'Objects': [{'Key': signed}]})
        except RSEAccessDenied:
            raise skipped('the server does not sign DeleteObjects for this account') from None
        except ClientError as error:
            if status_of(error) >= 500:
                raise
    return compared(
        subject.endpoint,
        'verifies_body',
        objects.exists(scratch.bare, scratch.target('sent')),
        'the signed hash of a body',
        'DeleteObjects is accepted with other keys than those that were signed, '
        'so anybody who can write to a folder could delete the whole bucket',
        'saves requests',
    )


@contextlib.contextmanager
def _another_body(client: Any, body: bytes) -> Iterator[None]:
    """Replace the body of DeleteObjects after it was signed. Other checksums of the body are removed before."""

    def strip(request: 'AWSRequest') -> None:
        for name in list(request.headers):
            if name.lower() == 'content-md5' or name.lower().startswith(('x-amz-checksum-', 'x-amz-sdk-')):
                del request.headers[name]

    def swap(request: Any, **_: Any) -> None:
        request.body = body
        request.headers['Content-Length'] = str(len(body))
        request.headers['Content-MD5'] = _md5(body)

    events = client.meta.events
    events.register_last('before-send.s3.DeleteObjects', swap)
    try:
        with botocore_internals.before_signing(client, 'DeleteObjects', strip):
            yield
    finally:
        events.unregister('before-send.s3.DeleteObjects', swap)
