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

"""Where the buckets that a tool sees are: which RSE, which bucket there, and how requests to it are authorised."""

import threading
import time
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Optional

from rucio.common.exception import AccessDenied, RSENotFound, RSEOperationNotSupported, RucioException
from rucio.common.s3 import credentials
from rucio.common.s3.address import bucket_to_scope, encode_path, scope_to_bucket
from rucio.common.s3.answers import line_logger

from .refusals import Refusal

if TYPE_CHECKING:
    from rucio.client.s3client import S3Client
    from rucio.common.s3 import api
    from rucio.common.s3.authorizer import Authorizer
    from rucio.common.s3.endpoint import Endpoint

__all__ = ['Place', 'Places']

_logger = line_logger('rucio.s3.serve')


class Place(NamedTuple):
    """The part of a storage that a tool sees as a bucket.

    :param scope: The scope.
    :param endpoint: The storage.
    :param authorizer: How requests are authorised there.
    :param bucket: The bucket on the storage.
    :param base: What the keys there begin with, before the name.
    """

    scope: str
    endpoint: 'Endpoint'
    authorizer: 'Authorizer'
    bucket: str
    base: str

    def url(self, key: str, query: str) -> str:
        """Return the URL of an object on the storage: always on the host of the RSE, whatever the tool sent.

        :param key: The key there; empty for the bucket.
        :param query: The encoded query.
        """
        scheme, _, host = self.endpoint.url.partition('://')
        path = encode_path(key)
        if self.endpoint.addressing == 'virtual':
            host = f'{self.bucket}.{host}'
        else:
            path = encode_path(self.bucket) + (f'/{path}' if path else '')
        return f'{scheme}://{host}/{path}' + (f'?{query}' if query else '')


class Places:
    """The buckets of an account. Thread-safe; what was found is kept for :attr:`SECONDS`.

    :param client: The Rucio server.
    :param rse: The RSE; None for the one that Rucio chooses for each scope.
    :param only: Scope and name of the only DID that there is for tools, without a name all of the scope; None for all.
    """

    SECONDS: ClassVar[float] = 300
    SHARES_SECONDS: ClassVar[float] = 30
    REMEMBERED: ClassVar[int] = 1000

    def __init__(self, client: 'S3Client', rse: Optional[str] = None, only: Optional[tuple[str, str]] = None) -> None:
        self._client = client
        self._rse = rse
        self._only = only
        self._found: OrderedDict[tuple[str, str], tuple[float, Place]] = OrderedDict()
        self._storages: dict[str, tuple[Endpoint, Authorizer]] = {}
        self._usable: tuple[float, dict[str, set[str]]] = (0.0, {})
        self._lock = threading.Lock()
        self.missing: set[str] = set()  # RSEs whose buckets a list did not have

    def need_rse(self) -> None:
        """Find the storage of the RSE, if there is only one. One request, which is not needed later.

        :raises RSENotFound: if there is no such RSE, or it cannot be used.
        """
        if self._rse:
            with self._lock:
                self._storage(self._rse)

    def buckets(self) -> list[tuple[str, Optional[str]]]:
        """Return the names of the buckets of which the account may use something, and when its own were created.

        Two requests. RSEs that cannot be asked are left out, and told once.
        """
        missing: list[api.MissingRSE] = []
        found = self._client.list_buckets(self._rse, missing)
        for each in missing:
            if each['rse'] not in self.missing:
                self.missing.add(each['rse'])
                _logger.warning(
                    'The list of buckets is incomplete: %s is missing. %s', each['rse'], each['why'].strip()
                )
        named: dict[str, Optional[str]] = {scope_to_bucket(scope): None for scope in self._shares()}
        named |= {scope_to_bucket(each['scope']): each['created'] for each in found if each['scope']}
        if self._only:
            bucket = scope_to_bucket(self._only[0])
            return [(bucket, named.get(bucket))]
        return sorted(named.items())

    def shared(self, bucket: str) -> list[str]:
        """Return the collections in a bucket that are there for a tool, if not all of it is. At most one request.

        :param bucket: The bucket, as the tool names it.
        """
        scope = bucket_to_scope(bucket)
        if self._only and self._only[1]:
            return [self._only[1]] if scope == self._only[0] else []
        return sorted(self._shares().get(scope or '', ()))

    def _shares(self) -> dict[str, set[str]]:
        """Return what others share with the account: scope -> collections. One request, then none for a while."""
        with self._lock:
            until, shares = self._usable
            if time.monotonic() < until:
                return shares
        shares = {}
        with suppress(RSEOperationNotSupported):  # an older server cannot tell
            for each in self._client.list_usable(places=bool(self._rse))['shares']:
                here = not self._rse or self._rse in [place['rse'] for place in each['places']]
                if here and each['kind'] != 'own' and not each['ended']:
                    shares.setdefault(each['scope'], set()).add(each['name'])
        with self._lock:
            self._usable = (time.monotonic() + self.SHARES_SECONDS, shares)
        return shares

    def of(self, bucket: str, name: str, listing: bool = False) -> Place:
        """Return where a bucket is. Up to three requests the first time, then none for :attr:`SECONDS`.

        :param bucket: The bucket, as the tool names it.
        :param name: The name in it that the tool wants, or the beginning of names: if only a collection is shared with
            the account, Rucio is asked for that.
        :param listing: Whether it is the beginning of names.
        :raises Refusal: if there is no such bucket.
        :raises RucioException: if the server refuses, or does not answer.
        """
        scope = bucket_to_scope(bucket)
        if scope is None:
            raise Refusal('NoSuchBucket', f"The bucket '{bucket}' does not belong to a scope.")
        self._need_allowed(scope, name, listing)
        with self._lock:
            collection = name.partition('/')[0]
            known = self._known(scope, '') or self._known(scope, collection)
            return known or self._ask(scope, collection, name.rstrip('/'))

    def _need_allowed(self, scope: str, name: str, listing: bool) -> None:
        if self._only is None or (scope == self._only[0] and not self._only[1]):
            return
        allowed = self._only[1]
        if scope != self._only[0] or not (name.startswith(f'{allowed}/') or (name == allowed and not listing)):
            what = ':'.join(filter(None, self._only))
            raise Refusal('AccessDenied', f'This endpoint is for {what} only: names begin with {what}/.')

    def others(self, place: Place, name: str) -> list[tuple[Place, str]]:
        """Return where else the catalogue has a file, with its key there, the best first. One request.

        :param place: Where it could not be read.
        :param name: The name of the file.
        """
        if self._rse:
            return []
        found = self._client.locate(place.scope, name)
        others = []
        for each in found:
            if each['did_type'] and each['rse'] != place.endpoint.rse:
                with self._lock, suppress(RucioException):  # the next may do
                    others.append((Place(place.scope, *self._storage(each['rse']), each['bucket'], ''), each['key']))
        return others

    def forget(self, place: Place) -> None:
        """Forget where a bucket is, as it is not there.

        :param place: The answer of :meth:`of`.
        """
        with self._lock:
            for key in [key for key, (_, known) in self._found.items() if known is place]:
                del self._found[key]

    def _known(self, scope: str, collection: str) -> Optional[Place]:
        until, place = self._found.get((scope, collection), (0.0, None))
        return place if time.monotonic() < until else None

    def _ask(self, scope: str, collection: str, name: str) -> Place:
        try:
            found, collection = self._client.best_place(scope, '', self._rse), ''
            base = found['key']
        except AccessDenied:
            if not name:
                raise
            found = self._client.best_place(scope, name, self._rse)
            base = found['key'].removesuffix(name)
            if base == found['key']:
                raise RSEOperationNotSupported(
                    f'RSE {found["rse"]}: the keys of scope {scope} do not end with the names.'
                ) from None
        endpoint, authorizer = self._storage(found['rse'])
        place = Place(scope, endpoint, authorizer, found['bucket'], base)
        self._found[scope, collection] = (time.monotonic() + self.SECONDS, place)
        while len(self._found) > self.REMEMBERED:
            self._found.popitem(last=False)
        return place

    def _storage(self, rse: str) -> 'tuple[Endpoint, Authorizer]':
        if rse not in self._storages:
            endpoint = self._client.endpoint(rse)
            token = self._client.auth_token if self._client.auth_type == 'oidc' else None
            authorizer = credentials.choose(endpoint, self._client, token)
            if authorizer is None or authorizer.whole_objects_only:
                raise RSENotFound(f'RSE {rse}: the Rucio server offers neither keys nor signatures for this storage.')
            self._storages[rse] = (endpoint, authorizer)
        return self._storages[rse]
