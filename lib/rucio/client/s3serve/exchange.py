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

"""Requests to storages, each of which answers one of a tool: their headers, conditions and errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Optional, Union

from aiohttp import web

from rucio.common.s3 import operations

from . import answers
from .asked import Asked, encoded
from .bodies import Body, Streamed
from .places import Place, Places
from .refusals import Refusal
from .upstream import Answer, Upstream

__all__ = ['READING', 'Exchange', 'Options', 'Task']

READING = ('HeadObject', 'GetObject')
_HEADERS = frozenset(
    [
        'cache-control',
        'content-disposition',
        'content-encoding',
        'content-language',
        'content-md5',
        'content-type',
        'expires',
        'range',
        'if-match',
        'if-none-match',
        'if-modified-since',
        'if-unmodified-since',
        'x-amz-mp-object-size',
        'x-amz-metadata-directive',
        'x-amz-copy-source-range',
        'x-amz-copy-source-if-match',
        'x-amz-copy-source-if-none-match',
        'x-amz-copy-source-if-modified-since',
        'x-amz-copy-source-if-unmodified-since',
    ]
)
_FAMILIES = ('x-amz-meta-', 'x-amz-checksum-')
# About the way to this endpoint only, or without effect. Some tools send the default values of these with each upload.
_SPENT = frozenset(
    [
        'x-amz-api-version',
        'x-amz-content-sha256',
        'x-amz-copy-source',
        'x-amz-date',
        'x-amz-decoded-content-length',
        'x-amz-request-payer',
        'x-amz-sdk-checksum-algorithm',
        'x-amz-security-token',
        'x-amz-trailer',
        'x-amz-user-agent',
    ]
)
_DEFAULTS = {'x-amz-acl': ('private',), 'x-amz-storage-class': ('STANDARD',), 'x-amz-tagging-directive': ('COPY',)}
_CONDITIONAL = ('PutObject', 'CopyObject', 'CompleteMultipartUpload')


@dataclass(frozen=True)
class Options:
    """What the user allows.

    :param read_only: Nothing is written or deleted.
    :param overwrite: Existing objects may be overwritten.
    :param only: Scope and name of the only DID that there is for tools, without a name all of the scope; None for all.
    """

    read_only: bool = False
    overwrite: bool = False
    only: Optional[tuple[str, str]] = None


class Task(NamedTuple):
    """A verified request, and where it goes."""

    asked: Asked
    operation: operations.Operation
    place: Place
    key: str  # on the storage
    body: Body
    request: web.BaseRequest


class Exchange:
    """Sends requests to storages, and has their errors in the tool's words.

    :param upstream: The connections to the storages.
    :param places: Where the buckets are.
    :param options: What is allowed.
    """

    def __init__(self, upstream: Upstream, places: Places, options: Options) -> None:
        self._upstream = upstream
        self._places = places
        self._options = options

    async def send(self, task: Task, query: str, body: Union[bytes, Streamed], headers: Mapping[str, str]) -> Answer:
        """Send a request to the storage. Two more requests where 403 may mean that the object is missing.

        :param task: The request of the tool.
        :param query: The query, with the names of the storage.
        :param body: The body.
        :param headers: The headers.
        :raises Refusal: if the storage answers with an error.
        """
        answer = await self._upstream.send(task.place, task.asked.method, task.key, query, headers, body)
        if answer.status < 300 or answer.status == 304:
            return answer
        if answer.status == 412 and self._guards(task):
            raise self._exists(task)
        if answer.status == 403 and await self._is_missing(task, answer):
            raise Refusal('NoSuchKey', f'{task.asked.shown} does not exist.')
        refusal = answers.refusal(answer.status, answer.error, task.place, task.asked.shown)
        if refusal.code == 'NoSuchBucket':
            self._places.forget(task.place)
        raise refusal

    async def _is_missing(self, task: Task, answer: Answer) -> bool:
        """Return whether an object that could not be read is not there. One request, if that may be the reason."""
        if task.operation.name not in READING:
            return False
        if not await self._upstream.blocking(task.place.authorizer.hides_missing, answer.sent):
            return False
        listed = await self._upstream.send(task.place, 'GET', '', f'list-type=2&max-keys=1&prefix={encoded(task.key)}')
        try:
            root = answers.root_of(listed.error or await self._upstream.read(listed.response))
        except ValueError:
            return False
        return root.tag == 'ListBucketResult' and task.key not in [each.text for each in root.iter('Key')]

    def headers(self, task: Task) -> dict[str, str]:
        """Return the headers of the tool that the storage gets.

        :param task: The request of the tool.
        :raises Refusal: if one of them asks for something that is not supported.
        """
        kept = {}
        for name, value in task.asked.headers.items():
            if name in _HEADERS or name.startswith(_FAMILIES):
                kept[name] = value
            elif name.startswith('x-amz-') and name not in _SPENT and value not in _DEFAULTS.get(name, ()):
                raise Refusal('NotImplemented', f"The header '{name}' is not supported by rucio s3 serve.")
        if task.body.is_chunked:
            coded = [each.strip() for each in kept.pop('content-encoding', '').split(',')]
            if rest := ','.join(each for each in coded if each and each != 'aws-chunked'):
                kept['content-encoding'] = rest
        if self._guards(task):
            kept['if-none-match'] = '*'
        if task.place.endpoint.requester_pays:
            kept['x-amz-request-payer'] = 'requester'
        return kept

    async def need_absent(self, task: Task, is_enough: bool) -> None:
        """Refuse to overwrite an object: by a HEAD, unless the storage honours the condition of the request.

        :param task: The request of the tool.
        :param is_enough: Whether it does.
        :raises Refusal: 412 if it exists.
        """
        wanted = not self._options.overwrite or task.asked.headers.get('if-none-match') == '*'
        if not wanted or is_enough:
            return
        answer = await self._upstream.send(task.place, 'HEAD', task.key)
        answer.response.release()
        if answer.status < 300:
            raise self._exists(task)

    def _exists(self, task: Task) -> Refusal:
        remedy = (
            ''
            if self._options.overwrite
            else ' To overwrite objects, start `rucio s3 exec` or `serve` with --overwrite.'
        )
        return Refusal('PreconditionFailed', f'{task.asked.shown} exists.{remedy}')

    def _guards(self, task: Task) -> bool:
        return task.operation.name in _CONDITIONAL and not self._options.overwrite
