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

"""Behaviours: which keys the storage takes, and how it lists them."""

from .behaviour import KEPT, Behaviour, behaviour, said, yes
from .place import ProbeBucket


def _kept(place: ProbeBucket, key: str) -> str:
    """Put, list, get and delete an object, and return whether it has this key all along."""
    before = set(place.listed())
    answer = said(lambda: place.put(key.encode(), key))
    after = set(place.listed()) - before
    if answer != 'yes':
        return answer if not after else f'{answer}, but stored'
    if after != {key}:
        return 'not listed' if not after else 'another key'
    if said(lambda: place.get(key)) != 'yes' or place.get(key) != key.encode():
        return 'not read'
    place.s3.delete_object(Bucket=place.bucket, Key=key)
    return KEPT if set(place.listed()) == before else 'not deleted'


def key_behaviour(name: str, text: str, pattern: str, meaning: str, *needs: str) -> Behaviour:
    """Return the behaviour of an object with such a key: whether it is written, listed, read and deleted under it.

    :param name: Its name.
    :param text: The first cell of its row.
    :param pattern: The key; {} is replaced by something that no other key has.
    :param meaning: The last cell of its row.
    :param needs: What the place must have.
    """

    def run(place: ProbeBucket) -> str:
        return _kept(place, place.key(pattern))

    run.__name__ = name
    return Behaviour('Keys', text, meaning, run, needs=needs)


space_plus_percent = key_behaviour(
    'space_plus_percent',
    'blanks, `+`, `%41`, `#`, `?`, `&` in a key',
    '{}/ a  b +%41#?&=<>"\'',
    'encoded in URLs, kept byte for byte in the key',
)
unicode_key = key_behaviour(
    'unicode_key',
    'letters beyond ASCII in a key',
    '{}/\u03a9\u03bc\u03ad\u03b3\u03b1/\u65e5\u672c\u8a9e/e\u0301/\U0001f600',
    'not composed or decomposed',
)
double_slash = key_behaviour(
    'double_slash', '`a//b`', '{}//b', 'where it is another key (`a/b`), two names are one object'
)
leading_slash = key_behaviour('leading_slash', 'a key that begins with `/`', '/{}', "Rucio's names may", 'own')
dot_dot = key_behaviour(
    'dot_dot', '`a/../b`', '{}/../b', 'uploads fail where it is refused. The reconciler leaves such keys out'
)
dot = key_behaviour('dot', '`a/./b`', '{}/./b', 'as above')
long_segment = key_behaviour(
    'long_segment', 'more than 255 bytes between two slashes', '{}' + 'n' * 300, 'uploads fail where it is refused'
)


@behaviour(
    'Keys',
    '`a` and `a/b` at once',
    'where it is refused, such a pair of names fails with the second upload; what is not listed gets a HEAD before the '
    'reconciler calls it missing',
)
def below_another(place: ProbeBucket) -> str:
    key = place.put(b'first')
    answer = said(lambda: place.put(b'second', f'{key}/below'))
    if answer != 'yes':
        return answer if place.get(key) == b'first' else f'{answer}, and the first is gone'
    both = said(lambda: place.get(key)), said(lambda: place.get(f'{key}/below'))
    if both != ('yes', 'yes') or place.get(key) != b'first':
        return 'no'
    return 'yes' if {key, f'{key}/below'} <= set(place.listed()) else 'not both listed'


@behaviour('Keys', '`a` and `A` are two keys', 'names of Rucio are')
def case(place: ProbeBucket) -> str:
    key = place.key('{}/a')
    capital = f'{key[:-1]}A'
    place.put(b'small', key)
    place.put(b'capital', capital)
    return yes(place.get(key) == b'small' and place.get(capital) == b'capital')


@behaviour(
    'Listing',
    'ListObjectsV2 in the order of bytes',
    '`sorted_listing`; where it is false, the reconciler sorts on disk',
)
def sorted_listing(place: ProbeBucket) -> str:
    base = place.key()
    keys = [f'{base}{key}' for key in ('!', '-', '.', '/a', '/b-', '/b/x', '/b0', '0', '_')]
    for key in reversed(keys):
        place.put(b'x', key)
    return yes(place.listed(Prefix=base) == keys)


@behaviour('Listing', 'order of bytes also beyond ASCII', 'as above: UTF-8, not UTF-16')
def sorted_unicode(place: ProbeBucket) -> str:
    base = place.key()
    keys = [f'{base}{letter}' for letter in ('z', '\u00e9', '\uffee', '\U0001f600')]
    for key in reversed(keys):
        place.put(b'x', key)
    return yes(place.listed(Prefix=base) == keys)


@behaviour(
    'Listing',
    '`StartAfter` any key',
    'as above: the reconciler goes on from a key, and shares a bucket between processes',
    needs=['own'],
)
def start_after(place: ProbeBucket) -> str:
    bucket = place.new_bucket()
    keys = ['run-', 'run.', 'run/a', 'run/b', 'run0']
    for key in keys:
        place.put(b'x', key, Bucket=bucket)
    return yes(
        all(
            sorted(place.listed(Bucket=bucket, StartAfter=after)) == [key for key in keys if key > after]
            for after in [*keys, 'run', 'run/']
        )
    )


@behaviour('Listing', 'pages: `MaxKeys`, and where to go on', 'all listings')
def pages(place: ProbeBucket) -> str:
    base = place.key()
    keys = [f'{base}/{number}' for number in range(5)]
    for key in keys:
        place.put(b'x', key)
    answer = place.s3.list_objects_v2(Bucket=place.bucket, Prefix=base, MaxKeys=2)
    if len(answer['Contents']) != 2 or not answer['IsTruncated']:
        return 'no'
    return yes(place.listed(Prefix=base, PaginationConfig={'PageSize': 2}) == keys)
