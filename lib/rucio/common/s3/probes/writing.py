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

"""Behaviours: whether an upload or a copy can be kept from overwriting."""

from .behaviour import behaviour, race, said
from .place import ProbeBucket

WRITERS = 16


@behaviour(
    'Writing',
    'PUT with `If-None-Match: *` onto an object',
    '`conditional_put`; where it is not 412, a HEAD comes before each PUT',
)
def put_if_none_match(place: ProbeBucket) -> str:
    key = place.put(b'first')
    answer = said(lambda: place.put(b'second', key, IfNoneMatch='*'), 'overwritten')
    return answer if answer != 'overwritten' or place.get(key) == b'second' else 'ignored, not stored'


@behaviour(
    'Writing',
    'PUT with `If-None-Match: *` of a new object',
    '`if_none_match`: where it is refused (501), a HEAD comes instead of the header',
)
def put_new(place: ProbeBucket) -> str:
    return said(lambda: place.put(b'first', IfNoneMatch='*'))


@behaviour(
    'Writing',
    f'{WRITERS} such PUTs at the same moment',
    '`conditional_put` is true only where one wins',
    lucky=['one wins'],
)
def put_race(place: ProbeBucket) -> str:
    for _ in range(place.races):
        key = place.key()
        won = race(WRITERS, lambda number, key=key: place.put(b'%d' % number * 1000, key, IfNoneMatch='*'))  # type: ignore[misc]
        if won != 1:
            return 'several win' if won else 'none wins'
    return 'one wins'


@behaviour(
    'Writing',
    'CompleteMultipartUpload with `If-None-Match: *` onto an object',
    '`conditional_multipart`; where it is not 412, a HEAD comes before the last step',
)
def complete_if_none_match(place: ProbeBucket) -> str:
    key = place.put(b'first')
    begun = place.begin(key, b'second')
    return said(lambda: place.complete(key, begun, IfNoneMatch='*'), 'overwritten')


@behaviour('Writing', 'CompleteMultipartUpload with `If-None-Match: *` of a new object', '`if_none_match`, as above')
def complete_new(place: ProbeBucket) -> str:
    key = place.key()
    begun = place.begin(key, b'first')
    return said(lambda: place.complete(key, begun, IfNoneMatch='*'))


@behaviour(
    'Writing',
    f'{WRITERS} such CompleteMultipartUploads at the same moment',
    'where several win, two uploads of one name at the same moment may both be told that they have succeeded',
    lucky=['one wins'],
)
def complete_race(place: ProbeBucket) -> str:
    for _ in range(2 * place.races):
        won = _race_of_parts(place)
        if won != 1:
            return 'several win' if won else 'none wins'
    return 'one wins'


def _race_of_parts(place: ProbeBucket) -> int:
    key, begun = place.key(), {}

    def begin(number: int) -> None:
        begun[number] = place.begin(key, b'%d' % number * 1000)

    race(WRITERS, begin)
    return race(WRITERS, lambda number: place.complete(key, begun[number], IfNoneMatch='*'))


def _copied(place: ProbeBucket, source: str, key: str) -> str:
    def add(request: object) -> None:
        request.headers['If-None-Match'] = '*'  # type: ignore[attr-defined]

    # Older versions of boto3 do not have it.
    with place.before_signing('CopyObject', add):
        return said(lambda: place.copy(source, key))


@behaviour(
    'Writing',
    'CopyObject with `If-None-Match: *` onto an object',
    'a HEAD comes before each copy, whatever the storage does',
)
def copy_if_none_match(place: ProbeBucket) -> str:
    source, key = place.put(b'second'), place.put(b'first')
    answer = _copied(place, source, key)
    return 'overwritten' if place.get(key) == b'second' else answer.partition(' ')[0]


@behaviour(
    'Writing',
    'CopyObject with `If-None-Match: *` of a new object',
    '`if_none_match`: where it is 412, the storage compares the header with the source',
)
def copy_new(place: ProbeBucket) -> str:
    source, key = place.put(b'content'), place.key()
    return _copied(place, source, key)
