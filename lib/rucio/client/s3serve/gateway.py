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

"""Answer the requests of a tool: verify them, find the storage, pass them on, and translate the names.

Each operation costs one request to the storage, and the requests of the way of being authorised; where more are needed,
the function says so.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import ClassVar, Optional
from urllib.parse import unquote

from aiohttp import ClientError, web

from rucio.common.s3 import operations
from rucio.common.s3.answers import line_logger

from . import answers
from .asked import Asked, encoded, read
from .bodies import Body
from .buckets import LISTINGS, XML, Buckets, head, xml
from .exchange import READING, Exchange, Options, Task
from .places import Place, Places
from .refusals import Refusal
from .registrar import Registrar
from .signatures import LocalKeys, verify
from .sums import Parts, Sum, listed_parts
from .upstream import Answer, Relayed, Upstream

__all__ = ['Gateway']

EMPTY_ETAG = '"d41d8cd98f00b204e9800998ecf8427e"'
MOST_AT_ONCE = 64  # requests; each has at most about 1 MiB in memory, unless it is a listing
DELETES_AT_ONCE = 16  # of a DeleteObjects
LONGEST_LIST = 4 * 1024**2  # bytes of the bodies of DeleteObjects and CompleteMultipartUpload
_SOURCE = 'x-amz-copy-source-'
_METADATA = frozenset(
    ['cache-control', 'content-disposition', 'content-encoding', 'content-language', 'content-type', 'expires']
)
_STORING = ('PutObject', 'UploadPart')
_ROOTS = {
    'CompleteMultipartUpload': 'CompleteMultipartUploadResult',
    'CopyObject': 'CopyObjectResult',
    'CreateMultipartUpload': 'InitiateMultipartUploadResult',
    'ListMultipartUploads': 'ListMultipartUploadsResult',
    'ListObjects': 'ListBucketResult',
    'ListObjectsV2': 'ListBucketResult',
    'ListParts': 'ListPartsResult',
    'UploadPartCopy': 'CopyPartResult',
}
_ELSEWHERE = ('NoSuchBucket', 'NoSuchKey', 'ServiceUnavailable', 'SlowDown', 'InternalError')
# Not among those that the server signs: it is a HEAD for the storage.
_ATTRIBUTES = operations.Operation('GetObjectAttributes', 'GET', 'key', needs=frozenset(['attributes']))
_HEAD = next(each for each in operations.OPERATIONS if each.name == 'HeadObject')
_OF_ATTRIBUTES = ('x-amz-object-attributes', 'x-amz-max-parts', 'x-amz-part-number-marker')
_NAMES_IN_QUERY = ('prefix', 'marker', 'start-after', 'key-marker')

_logger = line_logger('rucio.s3.serve')


async def _location(_gateway: 'Gateway', _task: Task) -> web.StreamResponse:
    """Answer without a request to the storage: signatures for any region are right here."""
    return xml(answers.location())


class Gateway:
    """The endpoint. To be made and used in one event loop.

    :param keys: The keys that tools sign with.
    :param places: Where the buckets are.
    :param upstream: The connections to the storages.
    :param hosts: The values of the header Host that lead here.
    :param account: The account, which owns all buckets in the eyes of a tool.
    :param options: What is allowed.
    :param registrar: Tells the Rucio server what is written and deleted.
    """

    def __init__(
        self,
        keys: LocalKeys,
        places: Places,
        upstream: Upstream,
        hosts: tuple[str, ...],
        account: str,
        options: Options,
        registrar: Registrar,
    ) -> None:
        self._keys = keys
        self._places = places
        self._upstream = upstream
        self._hosts = hosts
        self._buckets = Buckets(upstream, places, account)
        self._options = options
        self._exchange = Exchange(upstream, places, options)
        self._registrar = registrar
        self._parts = Parts()
        self._free = asyncio.Semaphore(MOST_AT_ONCE)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request.

        :param request: The request.
        """
        try:
            async with self._free:
                answer = await self._answer(request)
        except Refusal as refusal:
            answer = _refused(refusal)
            _logger.debug('%s: %s', refusal.request_id, refusal)
        except (ClientError, ConnectionError):  # in the middle of an object: the tool must notice
            raise
        except Exception as error:
            _logger.warning('%s %s failed', request.method, request.path, exc_info=True)
            answer = _refused(Refusal('InternalError', f'rucio s3 serve failed: {type(error).__name__}.'))
        if not request.content.at_eof() and not answer.prepared:
            answer.force_close()  # what comes next may be the rest of the body, or a request, and nobody can tell
        _logger.debug('%s %s: %d', request.method, request.path, answer.status)
        return answer

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        pairs = [(name.decode('latin-1'), value.decode('latin-1')) for name, value in request.raw_headers]
        asked = read(request.method, request.raw_path, pairs)
        if asked.headers.get('host', '').lower() not in self._hosts:
            raise Refusal('InvalidRequest', f'This endpoint is {self._hosts[0]}, with the bucket in the path.')
        verified = verify(asked, self._keys)
        body = Body(asked.headers, verified, _content(request))
        if not asked.bucket:
            return await self._buckets.list(asked)
        operation = operations.find(
            asked.method, 'key' if asked.key else 'bucket', asked.query, 'x-amz-copy-source' in asked.headers
        )
        if asked.method == 'GET' and asked.key and {*asked.query} == _ATTRIBUTES.needs:
            operation = _ATTRIBUTES
        if operation is None:
            what = f' with {", ".join(sorted(asked.query))[:200]}' if asked.query else ''
            raise Refusal(
                'NotImplemented', f'{asked.method} of {asked.shown}{what} is not supported by rucio s3 serve.'
            )
        if operation.write and self._options.read_only:
            raise Refusal('AccessDenied', f'{operation.name} is not allowed, as this endpoint is read-only.')
        if operation.name == 'DeleteObjects':
            return await self._delete_each(asked, body)
        wanted = asked.key or asked.query.get('prefix', '')
        try:
            place = await self._upstream.blocking(self._places.of, asked.bucket, wanted, not asked.key)
        except Refusal as refusal:
            return await self._buckets.shared(asked, operation, refusal)
        task = Task(asked, operation, place, place.base + asked.key if asked.key else '', body, request)
        return await self._ways.get(operation.name, Gateway._pass_on)(self, task)

    # Objects

    async def _pass_on(self, task: Task) -> web.StreamResponse:
        """Pass a request on with its body, and the answer as it is."""
        if task.operation.name in _STORING:
            task.body.expect(task.asked.headers)
        # Without a body, it can be sent once more.
        body = task.body if task.body.length else await task.body.whole(0)
        try:
            answer = await self._exchange.send(task, _query(task.asked.query), body, self._exchange.headers(task))
        except Refusal as refusal:
            answer = await self._read_elsewhere(task, refusal)
        if task.operation.name in _STORING and 'ETag' not in answer.headers:
            raise _strange(task)  # a login page, for example, has stored nothing
        await self._noted(task, answer.headers.get('ETag', ''), Sum(task.body.length, task.body.adler32))
        response = web.StreamResponse(status=answer.status, headers=answers.headers(answer.headers))
        try:
            await response.prepare(task.request)
            if task.asked.method != 'HEAD':
                async for piece in answer.response.content.iter_any():
                    await response.write(piece)
            await response.write_eof()
        finally:
            answer.response.release()
        return response

    async def _read_elsewhere(self, task: Task, refusal: Refusal) -> Answer:
        """Read an object from another RSE, if the catalogue has it there. One request to the Rucio server.

        :raises Refusal: the one that led here, if no other RSE has it, or it is of another kind.
        """
        if task.operation.name not in READING or refusal.code not in _ELSEWHERE:
            raise refusal
        try:
            others = await self._upstream.blocking(self._places.others, task.place, task.asked.key)
        except Refusal:
            raise refusal from None
        for place, key in others:
            try:
                return await self._exchange.send(
                    task._replace(place=place, key=key), _query(task.asked.query), b'', self._exchange.headers(task)
                )
            except Refusal as another:
                _logger.debug('%s is not on %s: %s', task.asked.shown, place.endpoint.rse, another.code)
        raise refusal

    async def _attributes(self, task: Task) -> web.StreamResponse:
        """Answer GetObjectAttributes by a HEAD: Ceph 16 answers that operation with the content of the object."""
        wanted = answers.attributes_asked(task.asked.headers.get('x-amz-object-attributes', ''))
        headers = {name: value for name, value in task.asked.headers.items() if name not in _OF_ATTRIBUTES}
        asked = task.asked._replace(method='HEAD', query={}, headers={**headers, 'x-amz-checksum-mode': 'ENABLED'})
        task = task._replace(asked=asked, operation=_HEAD)
        try:
            answer = await self._exchange.send(task, '', b'', self._exchange.headers(task))
        except Refusal as refusal:
            answer = await self._read_elsewhere(task, refusal)
        answer.response.release()
        kept = {name: value for name, value in answer.headers.items() if name.lower() == 'last-modified'}
        return xml(answers.attributes(answer.headers, wanted), kept)

    async def _put(self, task: Task) -> web.StreamResponse:
        """Write an object: after a HEAD if it must not exist, and the storage ignores the condition."""
        try:
            await self._exchange.need_absent(task, task.place.endpoint.conditional_put)
            return await self._pass_on(task)
        except Refusal as refusal:
            is_folder = task.asked.key.endswith('/') and not task.body.length
            if refusal.code != 'PreconditionFailed' or not is_folder or 'if-none-match' in task.asked.headers:
                raise
            return await self._folder(task, refusal)

    async def _folder(self, task: Task, refusal: Refusal) -> web.StreamResponse:
        """Answer that an empty object for a folder was written, as it is there. One HEAD.

        pyarrow and others write one for each folder above what they write or delete, whether it is there or not.

        :raises Refusal: the one that led here, if what is there is not empty.
        """
        found = await self._upstream.send(task.place, 'HEAD', task.key)
        found.response.release()
        if found.status != 200 or found.headers.get('Content-Length') != '0':
            raise refusal
        return web.Response(headers={'ETag': found.headers.get('ETag', EMPTY_ETAG)})

    async def _copy(self, task: Task) -> web.StreamResponse:
        """Copy an object: inside a storage if it can be; else through this machine.

        Vended keys for one part of a bucket cannot read another one, and on Ceph 16 they copy no parts.
        """
        if task.operation.name == 'CopyObject':
            await self._exchange.need_absent(task, is_enough=False)
        given = task.asked.headers['x-amz-copy-source'].removeprefix('/')
        bucket, _, key = unquote(given, errors='replace').partition('/')
        if '?' in given or not key:
            raise Refusal('NotImplemented', 'x-amz-copy-source must be BUCKET/KEY: versions are not supported.')
        read('GET', f'/{encoded(bucket)}/{encoded(key, "/")}', ())  # checks the names
        there = await self._upstream.blocking(self._places.of, bucket, key)
        if there.endpoint.rse == task.place.endpoint.rse:
            try:
                return await self._xml(task, {'x-amz-copy-source': encoded(f'{there.bucket}/{there.base}{key}', '/')})
            except Refusal as refusal:
                if refusal.code != 'AccessDenied':
                    raise
        return await self._relay(task, there, there.base + key)

    async def _relay(self, task: Task, there: Place, key: str) -> web.StreamResponse:
        """Copy an object by a GET and a PUT, each of which is authorised by itself."""
        asked = task.asked.headers
        wanted = {
            name.removeprefix(_SOURCE): value for name, value in asked.items() if name.startswith(f'{_SOURCE}if-')
        }
        if span := asked.get(f'{_SOURCE}range'):
            wanted['range'] = span
        found = await self._upstream.send(there, 'GET', key, headers=wanted)
        if found.status != (206 if span else 200):
            status = 412 if found.status == 304 else found.status
            raise answers.refusal(status, found.error, there, asked['x-amz-copy-source'])
        try:
            more = self._exchange.headers(task)
            if task.operation.name == 'CopyObject' and asked.get('x-amz-metadata-directive') != 'REPLACE':
                more = {name: value for name, value in more.items() if not _is_metadata(name)}
                more |= {name.lower(): value for name, value in found.headers.items() if _is_metadata(name.lower())}
            kept = {name: value for name, value in more.items() if not name.startswith((_SOURCE, 'x-amz-metadata-'))}
            body = Relayed(found)
            stored = await self._exchange.send(task, _query(task.asked.query), body, kept)
        finally:
            found.response.close()
        stored.response.release()
        if 'ETag' not in stored.headers:
            raise _strange(task)
        await self._noted(task, stored.headers['ETag'], Sum(body.length, body.adler32))
        return xml(answers.copied(_ROOTS[task.operation.name], stored.headers['ETag']))

    async def _noted(self, task: Task, etag: str, content: Optional[Sum]) -> None:
        """Note what an operation did to an object: a part for its whole, everything else for the catalogue."""
        name, upload = task.asked.key, task.asked.query.get('uploadId', '')
        if task.operation.name in ('UploadPart', 'UploadPartCopy') and content:
            self._parts.note(upload, task.asked.query['partNumber'], etag, content)
        elif task.operation.name in ('PutObject', 'CopyObject', 'CompleteMultipartUpload'):
            await self._registrar.written(task.place, name, etag, content)
        elif task.operation.name == 'DeleteObject':
            await self._registrar.deleted(task.place, name)
        if task.operation.name in ('CompleteMultipartUpload', 'AbortMultipartUpload'):
            self._parts.forget(upload)

    async def _delete_each(self, asked: Asked, body: Body) -> web.StreamResponse:
        """Delete the objects of a DeleteObjects one by one: one request each.

        Vended keys may not do it together on Ceph before 20, and signatures are for the owner of the bucket only.
        """
        body.expect(asked.headers)
        keys, quiet = answers.keys_to_delete(await body.whole(LONGEST_LIST))
        limit = asyncio.Semaphore(DELETES_AT_ONCE)

        async def delete(key: str) -> answers.Deleted:
            try:
                read('DELETE', f'/{encoded(asked.bucket)}/{encoded(key, "/")}', ())  # checks the name
                async with limit:
                    place = await self._upstream.blocking(self._places.of, asked.bucket, key)
                    answer = await self._upstream.send(place, 'DELETE', place.base + key)
                    answer.response.release()
                if answer.status >= 300:
                    shown = f'{asked.bucket}/{key}'
                    return answers.Deleted(key, answers.refusal(answer.status, answer.error, place, shown))
                await self._registrar.deleted(place, key)
                return answers.Deleted(key, None)
            except Refusal as refusal:
                return answers.Deleted(key, refusal)

        return xml(answers.deleted(await asyncio.gather(*(delete(key) for key in keys)), quiet))

    # Answers in XML

    async def _xml(self, task: Task, more: Optional[Mapping[str, str]] = None) -> web.StreamResponse:
        """Pass a request with a small body on, and translate the names in the answer."""
        body = await task.body.whole(LONGEST_LIST)
        if task.operation.name in ('CreateMultipartUpload', 'CompleteMultipartUpload'):
            honoured = task.operation.name[:2] == 'Co' and task.place.endpoint.conditional_multipart
            await self._exchange.need_absent(task, honoured)
        answer = await self._exchange.send(task, _listed(task), body, {**self._exchange.headers(task), **(more or {})})
        content = await self._upstream.read(answer.response)
        url = f'http://{self._hosts[0]}{task.asked.signed_path}'
        try:
            root = answers.root_of(content)
            if root.tag == 'Error':  # S3 also sends errors with the status 200
                raise answers.refusal(500, content, task.place, task.asked.shown)
            if root.tag != _ROOTS[task.operation.name]:
                raise _strange(task)
            named = answers.renamed(root, task.place, task.asked.bucket, url)
        except ValueError:
            raise _strange(task) from None
        etag = root.findtext('ETag') or ''
        await self._noted(task, etag, self._parts.whole(task.asked.query.get('uploadId', ''), listed_parts(body)))
        kept = {name: value for name, value in answers.headers(answer.headers).items() if name.lower() == 'etag'}
        return xml(named, kept)

    async def _list(self, task: Task) -> web.StreamResponse:
        """List objects, or the parts of the bucket that are shared if it may not be listed itself."""
        try:
            return await self._xml(task)
        except Refusal as refusal:
            return await self._buckets.shared(task.asked, task.operation, refusal)

    async def _head_bucket(self, task: Task) -> web.StreamResponse:
        answer = await self._exchange.send(task, '', b'', self._exchange.headers(task))
        answer.response.release()
        return head()

    _ways: ClassVar[dict[str, Callable[['Gateway', Task], Awaitable[web.StreamResponse]]]] = {
        'PutObject': _put,
        'CopyObject': _copy,
        'UploadPartCopy': _copy,
        'CreateMultipartUpload': _xml,
        'CompleteMultipartUpload': _xml,
        'ListParts': _xml,
        'ListMultipartUploads': _xml,
        'ListObjects': _list,
        'ListObjectsV2': _list,
        'HeadBucket': _head_bucket,
        'GetObjectAttributes': _attributes,
        'GetBucketLocation': _location,
    }


def _listed(task: Task) -> str:
    """Return the query of a listing with the names of the storage; that of others as it is."""
    query = dict(task.asked.query)
    if task.operation.name in (*LISTINGS, 'ListMultipartUploads') and task.place.base:
        query = {'prefix': '', **query}
        query |= {name: task.place.base + query[name] for name in _NAMES_IN_QUERY if name in query}
    return _query(query)


def _query(query: Mapping[str, str]) -> str:
    return '&'.join(f'{encoded(name)}={encoded(value)}' for name, value in query.items())


def _is_metadata(name: str) -> bool:
    return name in _METADATA or name.startswith('x-amz-meta-')


def _strange(task: Task) -> Refusal:
    return Refusal(
        'InternalError', f'RSE {task.place.endpoint.rse} answered something that is not of S3: tell its operator.'
    )


def _refused(refusal: Refusal) -> web.Response:
    return web.Response(status=refusal.status, body=refusal.xml(), headers={**XML, **refusal.headers})


async def _content(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """Yield the body of a request, after telling a tool that waits for it to send it."""
    if request.headers.get('Expect', '').lower() == '100-continue':
        await request.writer.write(b'HTTP/1.1 100 Continue\r\n\r\n')
        request.writer.output_size = 0
    async for piece in request.content.iter_any():
        yield piece
