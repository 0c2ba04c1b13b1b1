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

import errno
import threading
import zlib

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

    def make(content, piece, progress=None, resume=False):
        s3.store(BUCKET, 'k', content)
        info = objects.info(client.head_object(Bucket=BUCKET, Key='k'))
        s3.requests.clear()
        made.append(Fetch(client, TARGET, info, str(make.file), piece, progress, resume))
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


# What an earlier download has completed


def broken_off(fetch, s3, content=CONTENT, ranges=2):
    """A download in pieces of 20,000 bytes, of which the first ones are complete."""
    s3.fail('GetObject', *[None] * ranges, error(403, 'AccessDenied'))
    download = fetch(content, 20_000, resume=True)
    download.start(1)
    assert download.done.wait(30)
    download.end(5)
    assert download.can_continue()


def gone_on(fetch, s3, content=CONTENT, piece=20_000, threads=2):
    """The ranges that a download has asked for that goes on."""
    seen = []
    download = fetch(content, piece, seen.append, resume=True)
    download.start(threads)
    assert download.done.wait(30)
    download.end(5)
    assert download.crc32() == crc32(content)
    assert fetch.file.read_bytes() == content
    assert sum(seen) == len(content)
    assert not download.can_continue()
    return sorted(int(each.headers['range'].removeprefix('bytes=').split('-')[0]) // piece for each in s3.requests)


def test_only_ranges_that_are_not_complete_are_asked_for(fetch, s3):
    broken_off(fetch, s3)
    assert gone_on(fetch, s3) == [2, 3, 4]


def test_a_range_that_was_changed_on_the_disk_is_asked_for_again(fetch, s3):
    broken_off(fetch, s3)
    with fetch.file.open('r+b') as file:
        file.seek(20_001)
        file.write(b'-')
    assert gone_on(fetch, s3) == [1, 2, 3, 4]


@pytest.mark.parametrize('kept', [0, 20_000, 100_000, 100_031, 100_036])
def test_a_file_without_a_whole_record_begins_again(fetch, s3, kept):
    broken_off(fetch, s3)
    with fetch.file.open('r+b') as file:
        file.truncate(kept)
    assert gone_on(fetch, s3) == [0, 1, 2, 3, 4]


def test_another_version_begins_again(fetch, s3):
    broken_off(fetch, s3)
    assert gone_on(fetch, s3, CONTENT[::-1]) == [0, 1, 2, 3, 4]


def test_other_ranges_begin_again(fetch, s3):
    broken_off(fetch, s3)
    assert gone_on(fetch, s3, piece=25_000) == [0, 1, 2, 3]


def test_everything_is_there(fetch, s3):
    """The process was killed before the file got its name."""
    broken_off(fetch, s3, ranges=4)
    last = CONTENT[80_000:]
    with fetch.file.open('r+b') as file:
        file.seek(80_000)
        file.write(last)
        file.seek(100_000 + 32 + 4 * 5)
        file.write(b'\1' + zlib.crc32(last).to_bytes(4, 'big'))
    assert gone_on(fetch, s3) == []


def test_no_record_is_kept_unless_it_is_asked_for(fetch):
    download = fetch(CONTENT, 20_000)
    download.start(0)
    download._crcs[0] = 0
    assert fetch.file.read_bytes() == b''
    assert not download.can_continue()


def test_what_could_not_be_written_is_not_continued(fetch, s3):
    broken_off(fetch, s3)
    download = fetch(CONTENT, 20_000, resume=True)
    download.start(0)
    download._crcs[0] = 0
    assert download.can_continue()
    download._failure = OSError(errno.ENOSPC, 'No space left on device')
    assert not download.can_continue()


def test_a_file_to_which_a_late_thread_may_write_is_not_continued(fetch, s3):
    s3.fail('GetObject', None, Stalled())
    download = fetch(CONTENT, 20_000, resume=True)
    download.start(1)
    until(lambda: len(s3.requests) == 2)
    download.end(0)
    assert not download.can_continue()
