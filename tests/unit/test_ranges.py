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

"""One object into a file, in ranges and with several threads; test_transfer.py downloads by it."""

import threading

import pytest
from botocore.exceptions import ClientError
from s3transfer.exceptions import CancelledError

from rucio.common.s3 import clients, credentials, objects
from rucio.common.s3.errors import Target
from rucio.common.s3.ranges import Fetch
from servers.fake_s3 import Cut, Stalled, crc32, error
from servers.process import until

BUCKET = 'user.alice'
TARGET = Target('X', BUCKET, 'k')
CONTENT = bytes(range(250)) * 400  # 100,000 bytes


@pytest.fixture
def fetch(endpoint, s3, tmp_path):
    """Call it for a download that is not started; the file is `fetch.file`."""
    client = clients.connect(endpoint(read_timeout=30), credentials.Static('AKID', 'a-secret')).client
    made = []

    def make(content, piece, progress=None):
        s3.store(BUCKET, 'k', content)
        info = objects.info(client.head_object(Bucket=BUCKET, Key='k'))
        s3.requests.clear()
        made.append(Fetch(client, TARGET, info, str(make.file), piece, progress))
        return made[-1]

    make.file = tmp_path / 'f'
    make.file.write_bytes(b'')
    yield make
    s3.stopping.set()
    for each in made:
        each.end(5)


def threads():
    return [each for each in threading.enumerate() if each.name == 'rucio-s3-get']


@pytest.mark.parametrize(
    ('piece', 'asked'),
    [
        (100_000, [None]),
        (200_000, [None]),
        (99_999, ['bytes=0-99998', 'bytes=99999-99999']),
        (50_000, ['bytes=0-49999', 'bytes=50000-99999']),
        (40_000, ['bytes=0-39999', 'bytes=40000-79999', 'bytes=80000-99999']),
    ],
)
def test_an_object_is_read_in_ranges(fetch, s3, piece, asked):
    seen = []
    download = fetch(CONTENT, piece, seen.append)
    download.start(2)
    assert download.done.wait(30)
    download.end(5)
    assert fetch.file.read_bytes() == CONTENT
    assert download.crc32() == crc32(CONTENT)
    assert sorted(each.headers.get('range') or '' for each in s3.requests) == sorted(each or '' for each in asked)
    assert (sum(seen), min(seen) > 0) == (len(CONTENT), True)
    assert {each.headers['if-match'] for each in s3.requests} == {f'"{s3.buckets[BUCKET]["k"].etag}"'}


def test_of_an_empty_object_nothing_is_asked(fetch, s3):
    download = fetch(b'', 1)
    download.start(8)
    assert download.done.is_set()
    assert (download.crc32(), s3.requests) == (crc32(b''), [])


@pytest.mark.parametrize(('piece', 'most', 'expected'), [(20_000, 3, 3), (20_000, 5, 5), (20_000, 9, 5), (100_000, 9, 1)])
def test_as_many_threads_as_are_allowed_and_useful(fetch, s3, piece, most, expected):
    s3.fail('GetObject', *[Stalled()] * 9)
    download = fetch(CONTENT, piece)
    download.start(most)
    until(lambda: len(s3.requests) == expected)
    assert len(threads()) == expected
    assert not download.done.is_set()


def test_the_first_failure_is_the_one_that_is_told(fetch, s3):
    s3.fail('GetObject', error(403, 'AccessDenied'))
    download = fetch(CONTENT, 20_000)
    download.start(1)
    assert download.done.wait(30)
    download.end(5)
    with pytest.raises(ClientError, match='AccessDenied'):
        download.crc32()
    assert len(s3.requests) == 1


def test_a_failure_takes_the_place_of_no_earlier_one(fetch, s3):
    s3.fail('GetObject', error(403, 'AccessDenied'))
    download = fetch(CONTENT, 20_000)
    download._failure = ValueError('the first one')
    download.start(1)
    assert download.done.wait(30)
    with pytest.raises(ValueError, match='the first one'):
        download.crc32()


def test_what_is_ended_asks_for_nothing_more(fetch, s3):
    download = fetch(CONTENT, 1000)
    download._progress = lambda _: download._stop.set()
    download.start(1)
    assert download.done.wait(30)
    download.end(5)
    assert threads() == []
    assert len(s3.requests) <= 2
    with pytest.raises(CancelledError):
        download.crc32()


def test_an_end_does_not_wait_for_a_storage_that_hangs(fetch, s3):
    s3.fail('GetObject', *[Stalled()] * 2)
    download = fetch(CONTENT, 50_000)
    download.start(2)
    until(lambda: len(s3.requests) == 2)
    download.end(0)
    assert len(threads()) == 2


def test_the_progress_of_what_is_repeated_is_taken_back(fetch, s3):
    """A whole object begins anew, a range goes on."""
    s3.fail('GetObject', Cut())
    seen = []
    download = fetch(CONTENT, 100_000, seen.append)
    download.start(1)
    assert download.done.wait(30)
    assert fetch.file.read_bytes() == CONTENT
    assert sum(seen) == len(CONTENT)
    assert [each for each in seen if each < 0] == [-50_000] or not [each for each in seen if each < 0]
    assert download.crc32() == crc32(CONTENT)
    assert len(s3.requests) == 2
