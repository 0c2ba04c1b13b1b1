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

"""Where behaviours are tried: a bucket of its own, or a folder of another one; and the requests for it."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from rucio.common.exception import InputValidationError, RucioException
from rucio.common.s3 import botocore_internals, clients, objects
from rucio.common.s3.address import encode_path
from rucio.common.s3.credentials import Anonymous
from rucio.common.s3.endpoint import PERSON, Patience
from rucio.common.s3.errors import Target, status_of, translated

if TYPE_CHECKING:
    from .behaviour import Behaviour

__all__ = ['ProbeBucket', 'in_bucket_of_its_own', 'in_folder', 'new_name']


class ProbeBucket:
    """A bucket, or a folder of one, whose content :meth:`remove` deletes.

    :param client: A client that adds nothing to requests: no conditions, no checksums, no further attempts.
    :param anonymous: Makes a client without keys.
    :param bucket: The bucket.
    :param folder: The prefix of all keys; empty if the bucket was made for it.
    :param signed: Whether the client signs with keys of its own.
    :param bucket_prefix: The prefix of the names of more buckets.
    :param races: How often a race is run.
    """

    left: str  # what could not be removed, once that was tried

    def __init__(
        self,
        client: Any,
        anonymous: Callable[[], Any],
        bucket: str,
        folder: str = '',
        *,
        signed: bool,
        bucket_prefix: str,
        races: int,
    ) -> None:
        self.s3 = client
        self.anonymous = anonymous
        self.bucket = bucket
        self.folder = folder
        self.races = races
        self._has = {'signed'} if signed else set()
        self._has |= set() if folder else {'own'}
        self._bucket_prefix = bucket_prefix
        self._keys: set[tuple[str, str]] = set()
        self._uploads: set[tuple[str, str]] = set()
        self._buckets: list[str] = []

    def allows(self, each: 'Behaviour') -> bool:
        """Return whether a behaviour can be tried here.

        :param each: The behaviour.
        """
        return set(each.needs) <= self._has

    def key(self, pattern: str = '{}') -> str:
        """Return a key that nobody has.

        :param pattern: What to put it into.
        """
        return self._known(self.folder + pattern.format(f'k{secrets.token_hex(6)}'))

    def _known(self, key: str, bucket: str = '') -> str:
        self._keys.add((bucket or self.bucket, key))
        return key

    def put(self, content: bytes = b'content', key: str = '', **more: Any) -> str:
        """Write an object, and return its key.

        :param content: Its content.
        :param key: Its key.
        :param more: More parameters of PutObject.
        """
        key = key or self.key()
        parameters = {'Bucket': self.bucket, 'Key': key, 'Body': content} | more
        self._known(key, parameters['Bucket'])
        self.s3.put_object(**parameters)
        return key

    def get(self, key: str, **more: Any) -> bytes:
        """Read an object.

        :param key: Its key.
        :param more: More parameters of GetObject.
        """
        with self.s3.get_object(**{'Bucket': self.bucket, 'Key': key, **more})['Body'] as body:
            return bytes(body.read())

    def copy(self, source: str, key: str, **more: Any) -> None:
        """Copy an object.

        :param source: The key of the object.
        :param key: The key of the copy.
        :param more: More parameters of CopyObject.
        """
        parameters = {'Bucket': self.bucket, 'Key': key, 'CopySource': {'Bucket': self.bucket, 'Key': source}} | more
        self._known(key, parameters['Bucket'])
        self.s3.copy_object(**parameters)

    def etag(self, key: str) -> str:
        """Return the ETag of an object, without quotes.

        :param key: Its key.
        """
        return str(self.s3.head_object(Bucket=self.bucket, Key=key)['ETag']).strip('"')

    def listed(self, **more: Any) -> list[str]:
        """List the keys here.

        :param more: More parameters of the paginator.
        """
        where = {'Bucket': self.bucket, **({'Prefix': self.folder} if self.folder else {}), **more}
        pages = self.s3.get_paginator('list_objects_v2').paginate(**where)
        return [each['Key'] for page in pages for each in page.get('Contents', [])]

    def begin(self, key: str, *parts: bytes, **more: Any) -> tuple[str, list[dict[str, Any]]]:
        """Begin a multipart upload, and return its id and what completes it.

        :param key: The key of the object.
        :param parts: The parts to upload.
        :param more: More parameters of CreateMultipartUpload.
        """
        upload = self.s3.create_multipart_upload(Bucket=self.bucket, Key=key, **more)['UploadId']
        self._known(key)
        self._uploads.add((key, upload))
        done = []
        for number, part in enumerate(parts, 1):
            sent = self.s3.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=part)
            done.append({'PartNumber': number, 'ETag': sent['ETag']})
        return upload, done

    def complete(self, key: str, begun: tuple[str, list[dict[str, Any]]], **more: Any) -> None:
        """Complete a multipart upload.

        :param key: The key of the object.
        :param begun: What :meth:`begin` returned.
        :param more: More parameters of CompleteMultipartUpload.
        """
        upload, parts = begun
        self.s3.complete_multipart_upload(
            Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={'Parts': parts}, **more
        )
        self._uploads.discard((key, upload))

    def new_bucket(self, **more: Any) -> str:
        """Make one more bucket, which must be allowed here.

        :param more: More parameters of CreateBucket.
        """
        name = new_name(self._bucket_prefix)
        self.s3.create_bucket(Bucket=name, **more)
        self._buckets.append(name)
        return name

    @contextmanager
    def before_signing(self, operation: str, change: Callable[[Any], object]) -> Iterator[None]:
        """Change the requests of an operation before they are signed, within a block.

        :param operation: The operation.
        :param change: Changes a request of botocore.
        """
        with botocore_internals.before_signing(self.s3, operation, change):
            yield

    @contextmanager
    def after_signing(self, operation: str, change: Callable[[Any], object]) -> Iterator[None]:
        """Change the requests of an operation after they were signed, within a block.

        :param operation: The operation.
        :param change: Changes a prepared request of botocore.
        """
        event = f'before-send.s3.{operation}'

        def changed(request: Any, **_: Any) -> None:
            change(request)

        self.s3.meta.events.register_last(event, changed)
        try:
            yield
        finally:
            self.s3.meta.events.unregister(event, changed)

    def unsigned(self, operation: str, headers: Mapping[str, str]) -> Any:
        """Add headers to the requests of an operation after they were signed, within a block.

        :param operation: The operation.
        :param headers: The headers.
        """

        def add(request: Any) -> None:
            for name, value in headers.items():
                request.headers[name] = value

        return self.after_signing(operation, add)

    def remove(self) -> str:
        """Delete everything that was made here.

        :returns: What could not be deleted, or an empty string.
        """
        for key, upload in self._uploads:
            with suppress(ClientError, BotoCoreError, RucioException):
                self.s3.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
        with suppress(ClientError, BotoCoreError, RucioException):
            self._keys |= {(self.bucket, key) for key in self.listed()}
        left = [f'{bucket}/{encode_path(key)}' for bucket, key in sorted(self._keys) if not self._gone(bucket, key)]
        for bucket in [*self._buckets, *([] if self.folder else [self.bucket])]:
            try:
                self._remove_versions(bucket)
                self.s3.delete_bucket(Bucket=bucket)
            except (ClientError, BotoCoreError, RucioException):
                left.append(f'the bucket {bucket}')
        return ', '.join(left)

    def _gone(self, bucket: str, key: str) -> bool:
        try:
            self.s3.delete_object(Bucket=bucket, Key=key)
        except ClientError as error:
            return status_of(error) in (400, 404)  # the storage does not have such keys
        except InputValidationError:
            return True  # the server does not sign for such keys
        except (BotoCoreError, RucioException):
            return False
        return True

    def _remove_versions(self, bucket: str) -> None:
        """Remove what a bucket with object lock, and so with versions, keeps."""
        with suppress(ClientError, BotoCoreError):
            found = self.s3.list_object_versions(Bucket=bucket)
            for each in [*found.get('Versions', []), *found.get('DeleteMarkers', [])]:
                self.s3.delete_object(Bucket=bucket, Key=each['Key'], VersionId=each['VersionId'])

    @classmethod
    def at(
        cls, connection: clients.Connection, bucket: str, folder: str = '', patience: Patience = PERSON
    ) -> 'ProbeBucket':
        """Return a place at a storage. Sends no request.

        :param connection: The storage.
        :param bucket: The bucket.
        :param folder: The prefix of all keys; empty if the bucket was made for it.
        :param patience: Time-outs, unless they are set.
        """
        endpoint = replace(connection.endpoint, addressing='path', max_concurrency=8)

        def anonymous() -> Any:
            return clients.bare(endpoint, Anonymous(), patience).client

        signed = connection.authorizer.signed
        client = clients.bare(endpoint, connection.authorizer, patience).client
        more: Any = {'bucket_prefix': endpoint.bucket_prefix, 'races': 2 if signed else 1}
        return cls(client, anonymous, bucket, folder, signed=signed, **more)


@contextmanager
def in_bucket_of_its_own(connection: clients.Connection, patience: Patience = PERSON) -> Iterator[ProbeBucket]:
    """Make a bucket, and remove it with all that is in it at the end of the block.

    :param connection: The storage.
    :param patience: Time-outs, unless they are set.
    :raises RucioException: if it cannot be made, or nothing can be written to it.
    """
    bucket = new_name(connection.endpoint.bucket_prefix)
    objects.make_bucket(connection, Target(connection.endpoint.rse, bucket))
    with _removed(ProbeBucket.at(connection, bucket, patience=patience), connection.endpoint.rse) as place:
        yield place


@contextmanager
def in_folder(connection: clients.Connection, target: Target, patience: Patience = PERSON) -> Iterator[ProbeBucket]:
    """Use a folder of a bucket, and remove what was written at the end of the block.

    :param connection: The storage.
    :param target: The bucket, and the prefix of the folder as its key.
    :param patience: Time-outs, unless they are set.
    :raises RucioException: if nothing can be written to it.
    """
    folder = f'{target.key}.rucio-s3-check/{secrets.token_hex(8)}/'
    with _removed(ProbeBucket.at(connection, target.bucket, folder, patience), target.rse) as place:
        yield place


@contextmanager
def _removed(place: ProbeBucket, rse: str) -> Iterator[ProbeBucket]:
    try:
        with translated('put', Target(rse, place.bucket, place.folder)):
            place.put()
        yield place
    finally:
        place.left = place.remove()


def new_name(prefix: str) -> str:
    """Return the name of a bucket that nothing else has.

    :param prefix: Its prefix.
    """
    return f'{prefix}rucio-s3-check-{secrets.token_hex(6)}'
