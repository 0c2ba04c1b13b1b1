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

"""Send requests to the storages: authorised, with their own CAs, and streaming both ways."""

import asyncio
import functools
import hashlib
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Optional, TypeVar, Union
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from rucio.common.exception import RucioException
from rucio.common.s3.authorizer import Request
from rucio.common.s3.botocore_internals import authorities
from rucio.common.s3.endpoint import PERSON
from rucio.common.s3.factory import proxies, trusted
from rucio.common.s3.parsing import LONGEST_ANSWER

from .answers import root_of
from .bodies import UNSIGNED, Streamed, spooled
from .refusals import Refusal, of_rucio

if TYPE_CHECKING:
    from .places import Place

__all__ = ['Answer', 'Relayed', 'Upstream']

_Answer = TypeVar('_Answer')
THREADS = 32  # that wait for the Rucio server
PIECE = 256 * 1024  # bytes that are read ahead on a connection
_AUTOMATIC = ('Accept', 'Accept-Encoding', 'Content-Type', 'User-Agent')


class Upstream:
    """The connections to the storages. To be made, used and closed in one event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, 'rucio-s3-serve')
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the number of requests is limited where they come in
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_AUTOMATIC,
            read_bufsize=PIECE,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def blocking(self, call: Callable[..., _Answer], *arguments: object) -> _Answer:
        """Call a function of the client library in a thread, as it may wait for the Rucio server.

        :param call: The function.
        :param arguments: Its arguments.
        :raises Refusal: if it raises an exception of Rucio.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(call, *arguments))
        except RucioException as error:
            raise of_rucio(error) from None

    async def send(
        self,
        place: 'Place',
        method: str,
        key: str,
        query: str = '',
        headers: Optional[Mapping[str, str]] = None,
        body: Union[bytes, Streamed] = b'',
    ) -> 'Answer':
        """Send a request to a storage, once more if a new authorisation may help.

        By http, each body is signed with its digest. If that is not known, it goes to a temporary file first.

        :param place: The storage and the bucket.
        :param method: The HTTP method.
        :param key: The key on the storage; empty for the bucket.
        :param query: The encoded query.
        :param headers: The headers that the storage gets, without signature and length.
        :param body: The body.
        :returns: The answer, whose body is unread unless it is an error.
        :raises Refusal: if the request is not authorised, the body is not right, or the storage does not answer.
        """
        if isinstance(body, Streamed) and body.payload == UNSIGNED and not place.endpoint.url.startswith('https:'):
            async with spooled(body) as kept:
                return await self._attempts(place, method, key, query, headers, kept)
        return await self._attempts(place, method, key, query, headers, body)

    async def _attempts(
        self,
        place: 'Place',
        method: str,
        key: str,
        query: str,
        headers: Optional[Mapping[str, str]],
        body: Union[bytes, Streamed],
    ) -> 'Answer':
        region = place.endpoint.signing_region(place.authorizer.region)
        request = Request(method, place.url(key, query), dict(headers or {}), region)
        if method == 'PUT':
            length = body.length if isinstance(body, Streamed) else len(body)
            request = request._replace(headers={**request.headers, 'Content-Length': str(length)})
        if isinstance(body, Streamed):
            request = request._replace(payload=body.payload)
        else:
            request = request._replace(payload=hashlib.sha256(body).hexdigest(), body=body)
        sent = await self.blocking(place.authorizer.authorise, request)
        answer = await self._once(place, sent, body)
        code = _code(answer.error)
        if answer.status < 400 or not code or not await self.blocking(place.authorizer.refused, sent, code):
            return answer
        if isinstance(body, Streamed):  # it is gone, but the tool has it
            raise Refusal('ServiceUnavailable', f'RSE {place.endpoint.rse}: the keys were renewed: try again.')
        return await self._once(place, await self.blocking(place.authorizer.authorise, request), body)

    async def _once(self, place: 'Place', sent: Request, body: Union[bytes, Streamed]) -> 'Answer':
        length = body.length if isinstance(body, Streamed) else len(body)
        headers = dict(sent.headers)
        if length or sent.method in ('PUT', 'POST'):
            headers['Content-Length'] = str(length)
        patience = place.endpoint.patience()
        try:
            response = await self._session.request(
                sent.method,
                URL(sent.url, encoded=True),  # as it was signed
                headers=headers,
                data=(body if length else None),
                allow_redirects=False,
                ssl=self._context(place),
                proxy=proxies(sent.url).get(urlsplit(sent.url).scheme),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=patience.connect_timeout, sock_read=patience.read_timeout
                ),
            )
            content = await self.read(response) if response.status >= 300 else b''
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            if isinstance(body, Streamed) and body.failure:
                raise body.failure from None
            why = type(error).__name__
            raise Refusal(
                'ServiceUnavailable', f'RSE {place.endpoint.rse} does not answer ({why}): try again.'
            ) from None
        return Answer(response.status, response.headers, content, response, sent)

    async def read(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the whole body of an answer that is not an object.

        :param response: The answer.
        :raises Refusal: if it is too long, or does not end.
        """

        async def content() -> bytes:
            found = bytearray()
            async for piece in response.content.iter_any():
                found += piece
                if len(found) > LONGEST_ANSWER:
                    response.close()
                    raise Refusal('InternalError', 'The answer of the storage is too long.')
            return bytes(found)

        try:
            return await asyncio.wait_for(content(), PERSON.answer_timeout)
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
            raise Refusal('ServiceUnavailable', 'The storage closed the connection: try again.') from None

    def _context(self, place: 'Place') -> ssl.SSLContext:
        """Return what verifies the certificate of a storage: with the CA of the RSE, if it has its own."""
        found = trusted(place.endpoint.ca_bundle)
        file = found if isinstance(found, str) else authorities()
        if file not in self._contexts:
            try:
                self._contexts[file] = ssl.create_default_context(cafile=file)
            except OSError as error:
                raise Refusal(
                    'InternalError', f"RSE {place.endpoint.rse}: the CA file '{file}' cannot be read: {error.strerror}."
                ) from None
        return self._contexts[file]


class Relayed(Streamed):
    """The object in an answer, as the body of another request.

    :param answer: The answer.
    :raises Refusal: if its length is not known.
    """

    payload = UNSIGNED

    def __init__(self, answer: 'Answer') -> None:
        length = answer.headers.get('Content-Length', '')
        if not length.isascii() or not length.isdigit():
            raise Refusal('InternalError', 'The storage did not say how long the object is.')
        self.length = int(length)
        self._response = answer.response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.content.iter_any():
                self.adler32 = zlib.adler32(piece, self.adler32)
                yield piece
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
            self.failure = Refusal('ServiceUnavailable', 'The storage of the source closed the connection: try again.')
            raise self.failure from None


class Answer(NamedTuple):
    """The answer of a storage.

    :param status: The HTTP status.
    :param headers: The headers.
    :param error: The body, if the status is 300 or more.
    :param response: The rest.
    :param sent: The request.
    """

    status: int
    headers: Mapping[str, str]
    error: bytes
    response: aiohttp.ClientResponse
    sent: Request


def _code(error: bytes) -> str:
    try:
        return root_of(error).findtext('Code') or ''
    except ValueError:
        return ''
