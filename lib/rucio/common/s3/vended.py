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

"""Short-lived keys that the Rucio server vends: one client for each RSE, which chooses the keys for each request."""

import functools
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Optional
from xml.etree import ElementTree

import botocore.session
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError

from rucio.common.exception import (
    AccessDenied,
    InputValidationError,
    InsufficientAccountLimit,
    RSEAccessDenied,
    RSEOperationNotSupported,
    RucioException,
)

from . import address, botocore_internals
from .authorizer import Authorizer, Request, signed
from .dates import from_text
from .errors import without_query
from .factory import bare_session
from .remote import Remote

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest
    from mypy_boto3_s3 import S3Client

    from .authorizer import RucioServer
    from .endpoint import Endpoint

__all__ = ['Vended']

_ASKING = ('GET', 'HEAD')
# These read, but about unfinished uploads, which keys for reading do not cover.
_OF_UPLOADS = frozenset(('uploads', 'uploadId'))
_REFUSED = ('ExpiredToken', 'InvalidToken', 'InvalidAccessKeyId', 'TokenRefreshRequired')


class _Need(NamedTuple):
    """The access that a request needs."""

    bucket: str
    key: str
    write: bool
    anywhere: bool = False  # any part of the bucket is enough


@dataclass(frozen=True)
class _Keys:
    """Vended keys, and what they are for. Times are of this machine's monotonic clock."""

    bucket: str
    prefix: str
    write: bool
    refresh_at: float
    ends_at: float
    credentials: Credentials = field(repr=False)

    def cover(self, need: _Need) -> bool:
        # Without a slash at its end, the prefix may be the key of a single object.
        inside = (
            need.key.startswith(self.prefix)
            if self.prefix.endswith('/') or not self.prefix
            else need.key == self.prefix
        )
        return self.bucket == need.bucket and self.write >= need.write and (need.anywhere or inside)


class Vended(Authorizer):
    """Keys that the Rucio server vends for a bucket or a part of it. Fetched on demand, and again before they expire.

    Cost: one request to the Rucio server for each bucket (or part) that is read, and one for each that is written to,
    repeated after most of their lifetime. Threads that need the same keys at the same time share a request. If the
    server stops vending (because it found that keys could gain more access), it signs the requests instead, as for
    :class:`.remote.Remote`.

    :param endpoint: The storage.
    :param server: The Rucio server; it need not be thread-safe.
    :param region: The region of the storage, if the server knows it.
    """

    name = 'vended'
    REMEMBERED: ClassVar[int] = 1000  # keys, the most recently used
    SIGNING: ClassVar[float] = 300  # seconds to use signatures of a server that vends no keys before asking again
    # The seconds before they expire when new ones are fetched, at most a third of their lifetime.
    MARGIN: ClassVar[float] = 300

    def __init__(self, endpoint: 'Endpoint', server: 'RucioServer', region: Optional[str] = None) -> None:
        self._rse = endpoint.rse
        self._endpoint = endpoint
        self._server = server
        self._keys: OrderedDict[tuple[str, str, bool], _Keys] = OrderedDict()
        self._lock = threading.Lock()  # protects the above
        self._asking = threading.Lock()
        self.identity = f'vended:{server.identity}:{endpoint.rse}'
        self.region = region
        self._remote = Remote(endpoint, server, region)
        self._signs_until = 0.0  # of time.monotonic

    def session(self) -> botocore.session.Session:
        """Make a botocore session without keys."""
        return bare_session(None)

    def attach(self, client: 'S3Client') -> None:
        """Authorise the requests of a client.

        :param client: The client.
        """
        super().attach(client)
        self._remote.delete_one_by_one(client, lambda request: self._keys_or_none(self._need(request)) is None)
        botocore_internals.after_call(client, 'HeadObject', functools.partial(self._tell_of_missing, client))

    def authorise(self, request: Request) -> Request:
        """Sign a request with keys that cover it, or have the server sign it. At most two requests to the Rucio server.

        :param request: The request.
        :returns: The signed request.
        :raises RSEAccessDenied: if the server refuses.
        """
        keys = self._keys_or_none(self._need(request))
        return signed(request, keys.credentials) if keys else self._remote.authorise(request)

    def refused(self, sent: Request, code: str) -> bool:
        """Forget the keys, as a storage may forget them before they expire.

        :param sent: The request that :meth:`authorise` returned.
        :param code: The storage's error code.
        :returns: Whether to try again with new keys.
        """
        if code not in _REFUSED:
            return False
        with self._lock:
            if keys := self._used(sent):
                del self._keys[keys.bucket, keys.prefix, keys.write]
        return True

    def hides_missing(self, sent: Request) -> bool:
        """Return whether the keys can only list a part of the bucket: AWS then returns 403 for a missing object.

        :param sent: The request that :meth:`authorise` returned.
        """
        with self._lock:
            keys = self._used(sent)
        return bool(keys and keys.prefix)

    def _used(self, sent: Request) -> Optional[_Keys]:
        """Return the keys that a request was signed with, if they are still known. The caller holds the lock."""
        access_key = sent.headers.get('Authorization', '').partition('Credential=')[2].partition('/')[0]
        return next((keys for keys in self._keys.values() if keys.credentials.access_key == access_key), None)

    def _need(self, request: Request) -> _Need:
        if not address.is_request_to(request.url, self._endpoint.url):
            raise RSEOperationNotSupported(
                f"RSE {self._rse}: '{without_query(request.url)}' is not at this storage, {self._endpoint.url}: its "
                'keys are sent nowhere else.'
            )
        need = _need_of(request, self._endpoint)
        if not need.bucket:
            raise RSEOperationNotSupported(
                f'RSE {self._rse}: the keys that Rucio vends are for one bucket each, and cannot list all buckets: '
                'use rucio s3 ls.'
            )
        return need

    def _keys_for_url(self, request: 'AWSRequest') -> Credentials:
        return self._keys_for(self._need(Request(str(request.method), str(request.url)))).credentials

    def _keys_or_none(self, need: _Need) -> Optional[_Keys]:
        """Return the keys, or None if the server signs instead: who gets no keys may still get signatures."""
        if time.monotonic() < self._signs_until:
            return None
        try:
            return self._keys_for(need)
        except (RSEOperationNotSupported, InsufficientAccountLimit):  # signatures delete, and say what is too much
            if 'remote' not in (self._server.get_s3_rse(self._rse).get('auth') or ()):
                raise
            self._signs_until = time.monotonic() + self.SIGNING
            return None

    def _tell_of_missing(
        self, client: 'S3Client', status: int, parsed: dict[str, Any], context: dict[str, Any]
    ) -> None:
        """Report a missing object as 404 if a listing of its part of the bucket does not have it."""
        sent: Request = context['rucio_s3_sent']
        if status != 403 or not self.hides_missing(sent):
            return
        need = self._need(sent)
        with suppress(ClientError, BotoCoreError):  # the original error is kept
            answer = client.list_objects_v2(Bucket=need.bucket, Prefix=need.key, MaxKeys=1)
            listed = [each.get('Key') for each in answer.get('Contents', [])]
            if 'IsTruncated' in answer and need.key not in listed:
                parsed['Error'] = {'Code': '404', 'Message': 'Not Found'}
                parsed['ResponseMetadata']['HTTPStatusCode'] = 404

    def _keys_for(self, need: _Need) -> _Keys:
        known = self._known(need)
        if known and time.monotonic() < known.refresh_at:
            return known
        # One thread asks. Those with keys that are still valid need not wait for it.
        if not self._asking.acquire(blocking=known is None) and known:
            return known
        try:
            again = self._known(need)
            if again and time.monotonic() < again.refresh_at:
                return again  # another thread was faster
            return self._got(need)
        except RucioException:
            if known and time.monotonic() < known.ends_at:
                return known  # the server may be back before they expire
            raise
        finally:
            self._asking.release()

    def _known(self, need: _Need) -> Optional[_Keys]:
        """Return the keys that cover a need and are valid for the longest time."""
        now = time.monotonic()
        with self._lock:
            found = [
                (keys.ends_at, name) for name, keys in self._keys.items() if keys.cover(need) and now < keys.ends_at
            ]
            if not found:
                return None
            name = max(found)[1]
            self._keys.move_to_end(name)
            return self._keys[name]

    def _got(self, need: _Need) -> _Keys:
        try:
            answer = self._server.get_s3_credentials(self._rse, need.bucket, need.key, need.write)
        except AccessDenied as error:
            raise RSEAccessDenied(
                f'RSE {self._rse}: Rucio issues no keys to {"write to" if need.write else "read"} bucket '
                f"'{need.bucket}', key '{need.key}': "
                f'{error.args[0] if error.args else error}'
            ) from None
        now, left = time.monotonic(), from_text(answer['expiration']).timestamp() - time.time()
        keys = _Keys(
            bucket=answer['bucket'],
            prefix=answer['prefix'],
            write=bool(answer['write']),
            refresh_at=now + left - min(self.MARGIN, left / 3),
            ends_at=now + left,
            credentials=Credentials(answer['access_key'], answer['secret_key'], answer['session_token']),
        )
        if not keys.cover(need):
            raise RSEAccessDenied(
                f"RSE {self._rse}: the Rucio server vended keys that do not cover bucket '{need.bucket}', "
                f"key '{need.key}'."
            )
        with self._lock:
            self._keys[keys.bucket, keys.prefix, keys.write] = keys
            while len(self._keys) > self.REMEMBERED:
                self._keys.popitem(last=False)
        return keys


def _need_of(request: Request, endpoint: 'Endpoint') -> _Need:
    bucket, key, query = address.parse_request(request.url, endpoint.url)
    asks = request.method in _ASKING
    write = not asks or not _OF_UPLOADS.isdisjoint(query)
    if key:
        return _Need(bucket, key, write)
    if request.method == 'POST' and 'delete' in query:
        return _Need(bucket, address.common_folder(_keys_in(request.body)), write)
    about = request.method == 'HEAD' or (asks and 'location' in query)
    return _Need(bucket, query.get('prefix', ''), write, anywhere=about)


def _keys_in(body: bytes) -> list[str]:
    """Return the keys in the body of DeleteObjects."""
    if b'<!' in body:
        raise InputValidationError('The body of DeleteObjects has more than elements in it.')
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - without <! there are no entities
    except (ElementTree.ParseError, ValueError):
        raise InputValidationError('The body of DeleteObjects is no XML.') from None
    return [each.text or '' for each in root.iter() if each.tag.rpartition('}')[2] == 'Key']
