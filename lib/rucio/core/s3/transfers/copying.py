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
"""Execution of a transfer: a copy inside the storage, or a relay of the bytes through this machine."""

import threading
from collections import deque
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple, Optional

from botocore.exceptions import BotoCoreError, ClientError
from sqlalchemy.exc import SQLAlchemyError

from rucio.common.exception import (
    ConfigurationError,
    DatabaseException,
    DestinationNotAccessible,
    FileConsistencyMismatch,
    FileReplicaAlreadyExists,
    ResourceTemporaryUnavailable,
    RSEAccessDenied,
    RSEOperationNotSupported,
    RucioException,
    ServiceUnavailable,
    SourceNotFound,
)
from rucio.common.s3 import address, objects, transfer
from rucio.common.s3.answers import line_logger
from rucio.common.s3.content import Checksums, Verified, hash_object
from rucio.common.s3.errors import Target, status_of
from rucio.core.rse import get_rse_name
from rucio.core.s3 import storages
from rucio.core.s3.buckets import creation, lookup
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

from .claims import NoKeys, need_keys
from .requests import Outcome, Source, Transfer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.orm import Session

    from rucio.common.s3.clients import Connection
    from rucio.common.s3.multipart import LeftOver
    from rucio.common.s3.objects import ObjectInfo
    from rucio.core.s3.storages import Storage

__all__ = ['RELAY_MEMORY', 'abort_leftovers', 'carry_out', 'count_leftovers']

_LOGGER = line_logger(__name__)

RELAY_MEMORY = 128 * 1024**2  # bytes in memory per relay
_MAX_ERROR_LENGTH = 3900  # characters of an error message in the requests table

_made: set[tuple[str, str]] = set()  # RSE ids and buckets that this process has created or checked


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


def carry_out(wanted: Transfer, stop: threading.Event) -> Optional[Outcome]:
    """Copy a file, unless it already exists.

    If one endpoint and one identity have both buckets, the storage copies it, in parts if it is large; otherwise its
    bytes pass this machine once, and are compared with the catalogue's checksums before the object is completed. An
    existing object is never overwritten: if it is the file, the transfer is done; if not, it fails.

    Requests: a HEAD of the destination, those of :func:`rucio.core.s3.buckets.creation.make_bucket` for the first file
    of a bucket, and four for a copy; or a HEAD and a GET of the source and those of the upload. Memory:
    :data:`RELAY_MEMORY` for a relay (two parts of a file above 640 GB, as S3 allows 10,000), none for a copy.

    :param wanted: The transfer.
    :param stop: Set it to stop the transfer soon.
    :returns: The outcome, also of a failure. None if the transfer has to be repeated: it was stopped, the database did
        not answer, or there are no keys any more.
    """
    started = _now()
    try:
        source, how = _Copy(wanted, stop).run()
        return Outcome(started, _now(), source, how=how)
    except (DatabaseException, SQLAlchemyError) as error:
        _LOGGER.warning('%s: not started, as the database does not answer: %s', wanted, error)
        return None
    except NoKeys as error:  # another instance may have them, once the claim has expired
        _LOGGER.warning('%s: not started. %s', wanted, error.args[0])
        return None
    except Exception as error:  # without an outcome, the transfer would be repeated forever
        if stop.is_set():
            return None
        text = str(
            error.args[0] if isinstance(error, RucioException) and error.args else f'{type(error).__name__}: {error}'
        )
        if not isinstance(error, RucioException):
            _LOGGER.exception('%s', wanted)
        return Outcome(started, _now(), wanted.sources[0], error=text[:_MAX_ERROR_LENGTH])


class _ObjectLocation(NamedTuple):
    """An object, or the location of a new one."""

    storage: 'Storage'
    target: Target

    @property
    def connection(self) -> 'Connection':
        return self.storage.connection()


class _Copy:
    """The copy of one file."""

    def __init__(self, wanted: Transfer, stop: threading.Event) -> None:
        self._wanted = wanted
        self._stop = stop

    def run(self) -> tuple[Source, str]:
        """Copy the file, from the first source that works.

        :returns: The source, and how it was copied.
        """
        wanted = self._wanted
        with db_session(DatabaseOperationType.READ) as session:
            destination = self._locate(wanted.dest_rse_id, wanted.dest_url, session)
            sources = self._sources(session)
        _need_different_objects(sources, destination)
        sources.sort(key=lambda each: not _is_same_storage(each[1], destination))  # copies inside the storage first
        if self._is_there(destination, [place for _, place in sources]):
            return wanted.sources[0], 'found'
        self._make_bucket(destination)
        failure: Optional[RucioException] = None
        for source, place in sources:
            try:
                return source, self._copy(place, destination)
            except RucioException as error:
                _made.discard((destination.storage.rse_id, destination.target.bucket))  # it may have been deleted
                if self._stop.is_set():
                    raise
                # The answer may have been lost, or another instance copied it. If the destination does not answer,
                # another source does not help.
                if self._is_there(destination, [place], error):
                    return source, 'found'
                failure = failure or _explained(error, destination)
        raise failure or SourceNotFound(f'There is no source for {wanted}.')

    def _sources(self, session: 'Session') -> list[tuple[Source, _ObjectLocation]]:
        """Return the sources on S3 storages for which there are keys.

        :raises RucioException: why a source cannot be used, if there are none.
        """
        found, failure = [], None
        for source in self._wanted.sources:
            try:
                found.append((source, self._locate(source.rse_id, source.url, session)))
            except RucioException as error:
                failure = error if failure is None or isinstance(error, NoKeys) else failure
        if failure and not found:
            raise failure
        return found

    def _locate(self, rse_id: str, url: str, session: 'Session') -> _ObjectLocation:
        """Locate an object.

        On deterministic RSEs, the name decides, as stock Rucio may have rewritten the URL (``sign_url``).
        """
        wanted = self._wanted
        storage = storages.get_storage(get_rse_name(rse_id, session=session), wanted.scope.vo, session=session)
        need_keys(storage)
        if storage.layout.deterministic:
            bucket, key = storage.layout.place_of(str(wanted.scope), wanted.name)
        else:
            _, bucket, key, _ = address.parse_url(url)
        return _ObjectLocation(storage, Target(storage.rse, bucket, key))

    def _make_bucket(self, destination: _ObjectLocation) -> None:
        storage, scope = destination.storage, str(self._wanted.scope)
        key = storage.rse_id, destination.target.bucket
        if storage.layout.has_bucket_for_each_scope and key not in _made:
            creation.make_bucket(storage, scope)
            _made.add(key)

    def _is_there(
        self,
        destination: _ObjectLocation,
        sources: 'Sequence[_ObjectLocation]',
        reason: Optional[RucioException] = None,
    ) -> bool:
        """Return whether the destination has the file. One HEAD; if the ETag is not an MD5, the object is read.

        :param reason: The exception to raise if the storage does not answer.
        :raises FileReplicaAlreadyExists: if another object exists there.
        """
        try:
            info = objects.stat(destination.connection, destination.target)
        except SourceNotFound:
            return False
        except RucioException:
            if reason is not None:
                raise reason from None
            raise
        if info.size == self._wanted.bytes and self._has_content(destination, info, sources):
            return True
        raise FileReplicaAlreadyExists(
            f'RSE {destination.target.rse}: {destination.target}: there is an object of {info.size} bytes already, and '
            f'it is not the file ({self._wanted.bytes} bytes). Move it away (or remove it) before you delete the rule: '
            "otherwise, Rucio's reaper deletes this object."
        )

    def _has_content(self, place: _ObjectLocation, info: 'ObjectInfo', sources: 'Sequence[_ObjectLocation]') -> bool:
        expected = self._wanted.checksums
        if not any(expected) and info.size:  # no checksums in the catalogue: use those of the source
            source = sources[0]
            expected = hash_object(
                source.connection, source.target, objects.stat(source.connection, source.target), self._stop
            )
        if not info.size or Checksums(info.md5).compare(expected):
            return True
        return expected.agrees(hash_object(place.connection, place.target, info, self._stop))

    def _copy(self, source: _ObjectLocation, destination: _ObjectLocation) -> str:
        wanted = self._wanted
        info = objects.stat(source.connection, source.target, 'get')
        if info.size != wanted.bytes:
            raise FileConsistencyMismatch(
                f'RSE {source.target.rse}: get of {source.target}: it has {info.size} bytes, but the catalogue says '
                f'{wanted.bytes}. The object was modified: use another replica, or declare it bad.'
            )
        if _is_same_storage(source, destination) and self._is_copied(source, info, destination):
            return 'copied'
        stream = Verified(source.connection, source.target, info, wanted.checksums, self._stop)
        try:
            transfer.upload_stream(
                destination.connection,
                stream,
                info.size,
                destination.target,
                RELAY_MEMORY,
                self._stop,
                self._left_over(destination),
            )
        finally:
            stream.close()
        return 'relayed'

    def _is_copied(self, source: _ObjectLocation, info: 'ObjectInfo', destination: _ObjectLocation) -> bool:
        """Copy the object inside the storage.

        :returns: False if the storage does not support it.
        """
        self._need_md5(source, info)
        try:
            transfer.copy(
                destination.connection,
                source.target,
                destination.target,
                stop=self._stop,
                info=info,
                left_over=self._left_over(destination),
            )
            return objects.stat(destination.connection, destination.target).size == info.size
        except RSEOperationNotSupported as error:
            _LOGGER.info('%s: %s Its bytes are relayed through this machine.', self._wanted, error.args[0])
        except SourceNotFound:  # of the copy: check the source itself
            objects.stat(source.connection, source.target, 'get')
        return False

    @staticmethod
    def _left_over(destination: _ObjectLocation) -> 'LeftOver':
        return lambda bucket, key, upload: _leftovers.append(
            _LeftoverUpload(destination.connection, bucket, key, upload)
        )

    def _need_md5(self, source: _ObjectLocation, info: 'ObjectInfo') -> None:
        """Check the ETag, if it is an MD5: a copy inside the storage is not read."""
        md5 = self._wanted.checksums.md5
        if info.size and not Checksums(info.md5).agrees(Checksums(md5)) and source.storage.endpoint.etag_is_md5:
            raise FileConsistencyMismatch(
                f'RSE {source.target.rse}: copy of {source.target}: its MD5 is {info.md5}, but the catalogue says '
                f'{md5}. The object was modified: use another replica, or declare it bad.'
            )


def _need_different_objects(sources: 'Iterable[tuple[Source, _ObjectLocation]]', destination: _ObjectLocation) -> None:
    """Check that no source is the object of the destination.

    An object with two replicas would be lost as soon as one of them is deleted.
    """
    here, target = destination.storage.endpoint.url, destination.target
    for _, place in sources:
        if (place.storage.endpoint.url, place.target.bucket, place.target.key) == (here, target.bucket, target.key):
            raise ConfigurationError(
                f'RSE {target.rse} and RSE {place.target.rse} store it as the same object, {target}: it cannot have a '
                f'replica on each of them. Disable deletion before any rule ends (rucio rse update {target.rse} --key '
                f'availability_delete --value False), or the reaper of RSE {target.rse} deletes the only one; then '
                'change its bucket_prefix or the prefix of its protocol.'
            )


def _explained(error: RucioException, destination: _ObjectLocation) -> RucioException:
    """Return the reason of a failure.

    For a missing bucket, SeaweedFS only returns InternalError: one HEAD of the bucket tells.
    """
    if not isinstance(error, (ServiceUnavailable, ResourceTemporaryUnavailable)):
        return error
    target = destination.target
    try:
        if lookup.exists(destination.storage, target.bucket):
            return error
    except RucioException:
        return error
    return DestinationNotAccessible(
        f'RSE {target.rse}: copy of {target}: the bucket does not exist. The operator of the RSE has to create it, or '
        'correct the prefix of its protocol.'
    )


def _is_same_storage(source: _ObjectLocation, destination: _ObjectLocation) -> bool:
    """Return whether the keys of the destination can read the source, at the same endpoint."""
    here, there = source.storage, destination.storage
    return (
        here.endpoint.url == there.endpoint.url
        and _access_key(here) is not None
        and _access_key(here) == _access_key(there)
    )


def _access_key(storage: 'Storage') -> Optional[str]:
    try:
        return str(storage.credentials().access_key)
    except RSEAccessDenied:  # anonymous access
        return None


class _LeftoverUpload(NamedTuple):
    connection: 'Connection'
    bucket: str
    key: str
    upload: str


_leftovers: deque[_LeftoverUpload] = deque(maxlen=10_000)


def count_leftovers() -> int:
    """Return the number of multipart uploads that this process could not abort yet.

    The storage was down or busy. Their parts use space.
    """
    return len(_leftovers)


def abort_leftovers() -> None:
    """Abort the multipart uploads that could not be aborted before. One request for each.

    Those that fail again are kept for the next time. If the storage is down, this takes until its time-out for each of
    them.
    """
    for _ in range(len(_leftovers)):
        each = _leftovers.popleft()
        try:
            each.connection.client.abort_multipart_upload(Bucket=each.bucket, Key=each.key, UploadId=each.upload)
        except (ClientError, BotoCoreError) as error:
            if status_of(error) != 404:
                _leftovers.append(each)
