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

"""Which objects there are below a name in a bucket, whether or not the catalogue knows them."""

import re
from typing import TYPE_CHECKING, NamedTuple, Optional

from rucio.common.exception import DestinationNotAccessible, SourceNotFound

from .paths import WILDCARD

if TYPE_CHECKING:
    from rucio.client.s3client import S3Client

__all__ = ['Stored', 'find_stored']


class Stored(NamedTuple):
    """What is in a bucket.

    :param rse: The RSE.
    :param bucket: The bucket.
    :param names: The names of the objects.
    """

    rse: str
    bucket: str
    names: list[str]


def find_stored(
    server: 'S3Client', scope: str, pattern: str, rse: Optional[str] = None, known: Optional[str] = None
) -> Stored:
    """List the objects whose names match a pattern. Two or three requests to the Rucio server, a listing of the bucket.

    :param server: The S3 client.
    :param scope: The scope.
    :param pattern: The pattern: ``*`` stands for anything, as in Rucio.
    :param rse: The RSE. Only needed if there are several.
    :param known: A name that the catalogue has, to find the same RSE as a deletion of this file does.
    :raises RucioException: if there are several RSEs, or the bucket cannot be listed.
    """
    from rucio.common.s3 import objects  # noqa: PLC0415 - boto3 takes its time
    from rucio.common.s3.errors import Target  # noqa: PLC0415

    folder = pattern.partition(WILDCARD)[0].rpartition('/')[0]
    anchor = known or folder
    place = server.best_place(scope, anchor, rse)
    base = place['key'].rstrip('/').removesuffix(anchor) if anchor else place['key']
    if base and not base.endswith('/'):
        base += '/'
    prefix = base + (f'{folder}/' if folder else '')
    client = server.bucket_client(place['rse'], place['bucket'], prefix)
    matches = re.compile('.*'.join(map(re.escape, pattern.split(WILDCARD))), re.DOTALL)
    try:
        listed = objects.list_objects(client, Target(place['rse'], place['bucket'], prefix))
        names = [each.key[len(base) :] for each in listed]
    except (DestinationNotAccessible, SourceNotFound):  # no such bucket
        names = []
    return Stored(place['rse'], place['bucket'], [name for name in names if matches.fullmatch(name)])
