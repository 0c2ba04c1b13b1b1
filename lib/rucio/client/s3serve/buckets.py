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

"""Answers about buckets that no storage gives: which there are, and those of which only parts are shared."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Optional

from aiohttp import web

from . import answers
from .refusals import Refusal

if TYPE_CHECKING:
    from rucio.common.s3.operations import Operation

    from .asked import Asked
    from .places import Places
    from .upstream import Upstream

__all__ = ['LISTINGS', 'XML', 'Buckets', 'head', 'xml']

XML = {'Content-Type': 'application/xml'}
LISTINGS = ('ListObjects', 'ListObjectsV2')


def xml(content: bytes, headers: Optional[Mapping[str, str]] = None) -> web.Response:
    """Return an answer in XML.

    :param content: The XML.
    :param headers: More headers.
    """
    return web.Response(body=content, headers={**XML, **(headers or {})})


def head() -> web.Response:
    """Return the answer to HeadBucket for a bucket that is there."""
    return web.Response(status=200, headers={'x-amz-bucket-region': 'us-east-1'})


class Buckets:
    """The buckets as a tool sees them.

    :param upstream: The threads that wait for the Rucio server.
    :param places: Where the buckets are.
    :param account: The account, which owns all buckets in the eyes of a tool.
    """

    def __init__(self, upstream: 'Upstream', places: 'Places', account: str) -> None:
        self._upstream = upstream
        self._places = places
        self._account = account

    async def list(self, asked: 'Asked') -> web.StreamResponse:
        """List the buckets that the account may use. Two requests to the Rucio server, none to a storage from here.

        :param asked: The request.
        :raises Refusal: if it is not for the list of buckets.
        """
        if asked.method != 'GET':
            raise Refusal('NotImplemented', f'{asked.method} of / is not supported by rucio s3 serve.')
        return xml(answers.buckets(await self._upstream.blocking(self._places.buckets), self._account, asked.query))

    async def shared(self, asked: 'Asked', operation: 'Operation', refusal: Refusal) -> web.StreamResponse:
        """Show a bucket of which only collections are shared with the account: these are folders in it.

        At most one request to the Rucio server.

        :param asked: The request.
        :param operation: Its operation.
        :param refusal: Why the bucket itself may not be used.
        :raises Refusal: the one that led here, if it is about something else, or nothing is shared.
        """
        if asked.key or refusal.code != 'AccessDenied':
            raise refusal
        prefix = asked.query.get('prefix', '')
        shared = await self._upstream.blocking(self._places.shared, asked.bucket)
        names = [name for name in shared if f'{name}/'.startswith(prefix) and f'{name}/' != prefix]
        if operation.name not in (*LISTINGS, 'HeadBucket', 'GetBucketLocation') or not names:
            raise refusal
        if operation.name == 'HeadBucket':
            return head()
        if operation.name == 'GetBucketLocation':
            return xml(answers.location())
        if asked.query.get('delimiter') != '/':
            raise Refusal(
                'AccessDenied',
                f'Only parts of {asked.bucket} are shared with {self._account}. List each of them: '
                f'{", ".join(f"{name}/" for name in names[:10])}{" ..." if names[10:] else ""}',
            )
        return xml(answers.shared(asked.bucket, asked.query, names))
