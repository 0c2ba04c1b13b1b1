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

"""Bytes from one storage to another: read once, compared, and nothing appears that is not what it shall be."""

import hashlib
import os
import threading
import zlib
from contextlib import closing

import pytest
from botocore.exceptions import ClientError, HTTPClientError, ResponseStreamingError
from botocore.response import StreamingBody
from s3transfer.exceptions import CancelledError
from urllib3.exceptions import ProtocolError

from rucio.common.exception import FileConsistencyMismatch, FileReplicaAlreadyExists, RSEOperationNotSupported, RucioException, ServiceUnavailable
from rucio.common.s3 import clients, credentials, deadlines, objects, transfer
from rucio.common.s3.content import BROKEN, Checksums, Hasher, Reader, Verified, hash_object
from rucio.common.s3.errors import Target
from servers.fake_s3 import RESTORING, Answer, Cut, Longer, Lost, NoRanges, error

MiB = 1024**2
BUCKET = 'user.alice'
FROM, TO = Target('X', BUCKET, 'from'), Target('X', BUCKET, 'to')


@pytest.fixture
def connection(endpoint):
    return clients.connect(endpoint(), credentials.Static('AKID', 'a-secret'))


def stored(s3, size):
    body = os.urandom(size)
    s3.store(BUCKET, 'from', body)
    return body, Checksums(hashlib.md5(body).hexdigest(), f'{zlib.adler32(body):08x}')


def relay(connection, checksums, stop=None):
    info = objects.stat(connection, FROM)
    transfer.upload_stream(connection, Verified(connection, FROM, info, checksums, stop), info.size, TO, stop=stop)


@pytest.mark.parametrize('size', [0, 1, MiB, 16 * MiB - 1, 16 * MiB, 40 * MiB + 1])
def test_all_bytes_arrive(s3, connection, size):
    body, checksums = stored(s3, size)
    relay(connection, checksums)
    assert s3.content(BUCKET, 'to') == body
    assert hash_object(connection, TO, objects.stat(connection, TO)) == checksums._replace(size=size)


@pytest.mark.parametrize('size', [1, 20 * MiB])
@pytest.mark.parametrize('wrong', [Checksums('0' * 32), Checksums(None, '00000000')])
def test_what_is_not_the_file_is_not_stored(s3, connection, size, wrong):
    stored(s3, size)
    with pytest.raises(FileConsistencyMismatch, match=r'RSE X: get of .*but the catalogue says'):
        relay(connection, wrong)
    with pytest.raises(KeyError):
        s3.content(BUCKET, 'to')
    assert not s3.uploads


def test_an_empty_object_is_compared_too(s3, connection):
    stored(s3, 0)
    with pytest.raises(FileConsistencyMismatch):
        relay(connection, Checksums('0' * 32))
    assert 'PutObject' not in s3.operations()


def test_what_is_there_stays(s3, connection):
    _, checksums = stored(s3, 20 * MiB)
    s3.store(BUCKET, 'to', b'mine')
    with pytest.raises(FileReplicaAlreadyExists):
        relay(connection, checksums)
    assert s3.content(BUCKET, 'to') == b'mine'


def test_an_answer_that_breaks_off_is_gone_on_with(s3, connection):
    body, checksums = stored(s3, 20 * MiB)
    s3.fail('GetObject', Cut(), Cut())
    relay(connection, checksums)
    assert s3.content(BUCKET, 'to') == body


def test_a_storage_without_ranges_is_told_apart(s3, connection):
    _, checksums = stored(s3, 20 * MiB)
    s3.fail('GetObject', Cut(), NoRanges())
    with pytest.raises(RucioException, match='but got the whole object'):
        relay(connection, checksums)
    assert not s3.uploads


def test_a_source_that_changes_is_not_mixed(s3, connection):
    _, checksums = stored(s3, 20 * MiB)
    s3.fail('GetObject', Cut())
    info = objects.stat(connection, FROM)
    stream = Verified(connection, FROM, info, checksums)
    stream.read(MiB)
    s3.store(BUCKET, 'from', b'other' * 4 * MiB)
    with pytest.raises(ServiceUnavailable, match='The object was changed while it was read'):
        stream.read()


@pytest.mark.parametrize('size', [2 * MiB + 1, 40 * MiB])
def test_it_is_stopped_in_the_middle_of_a_body(s3, connection, size):
    """Whoever reads it, and whoever relays it: nothing is left, and nothing more is asked for."""
    _, checksums = stored(s3, size)
    stop = threading.Event()
    stream = Verified(connection, FROM, objects.stat(connection, FROM), checksums, stop)
    assert len(stream.read(MiB)) == MiB
    stop.set()
    with pytest.raises(ServiceUnavailable):
        stream.read(MiB)
    stop.clear()
    stream = Verified(connection, FROM, objects.stat(connection, FROM), checksums, stop)
    read = stream.read

    def read_some(*size):
        data = read(*size)
        stop.set()
        return data

    stream.read = read_some
    with pytest.raises(ServiceUnavailable):
        transfer.upload_stream(connection, stream, size, TO, stop=stop)
    assert 'to' not in s3.buckets[BUCKET]
    assert not s3.uploads
    assert s3.operations().count('GetObject') == 2


def test_it_is_stopped(s3, connection):
    _, checksums = stored(s3, 40 * MiB)
    stop = threading.Event()
    stop.set()
    with pytest.raises(ServiceUnavailable):
        relay(connection, checksums, stop)
    assert not s3.uploads
    assert 'UploadPart' not in s3.operations()


def test_a_refusal_names_the_storage_that_refused(s3, connection):
    _, checksums = stored(s3, 20 * MiB)
    s3.fail('GetObject', error(403, 'AccessDenied'))
    with pytest.raises(RucioException, match=r'RSE X: get of .*403 AccessDenied'):
        relay(connection, checksums)
    assert not s3.uploads


MD5, ADLER32 = 'd3b07384d113edec49eaa6238ad5ff00', '0a1b2c3d'


@pytest.mark.parametrize(
    ('one', 'other', 'same'),
    [
        (Checksums(MD5, ADLER32), Checksums(MD5.upper(), ADLER32), True),
        (Checksums(MD5, ADLER32), Checksums(MD5, ADLER32.upper().lstrip('0')), True),
        (Checksums(None, ADLER32), Checksums(None, 'a1b2c3d'), True),
        (Checksums(MD5), Checksums(MD5, ADLER32), True),
        (Checksums(MD5, size=1), Checksums(MD5), True),
        (Checksums(MD5, size=1), Checksums(MD5, size=2), False),
        (Checksums(MD5, '0a1b2c3e'), Checksums(MD5, ADLER32), False),
        (Checksums(None, '0a1b2c3e'), Checksums(MD5, ADLER32), False),
        (Checksums(), Checksums(MD5, ADLER32), None),
        (Checksums(MD5), Checksums(None, ADLER32), None),
        (Checksums('', ''), Checksums(MD5, ADLER32), None),
        (Checksums(size=1), Checksums(size=1), None),
        (Checksums(size=1), Checksums(size=0), False),
    ],
)
def test_contents_are_compared_by_what_is_known_of_both(one, other, same):
    assert one.compare(other) is other.compare(one) is same
    assert one.agrees(other) is (same is not False)


def test_a_hasher_begins_again():
    hasher = Hasher(Checksums(size=3))
    hasher.add(b'once')
    assert not hasher.is_expected
    hasher.restart()
    assert hasher.checksums == Checksums(hashlib.md5(b'').hexdigest(), '00000001', 0)
    hasher.add(b'on')
    hasher.add(b'e')
    assert hasher.checksums == Checksums(hashlib.md5(b'one').hexdigest(), f'{zlib.adler32(b"one"):08x}', 3)
    assert hasher.is_expected


def test_an_md5_is_not_computed_where_nobody_wants_it():
    hasher = Hasher(md5=False)
    hasher.add(b'one')
    assert hasher.checksums == Checksums(None, f'{zlib.adler32(b"one"):08x}', 3)


# One reader


@pytest.fixture
def reading(s3, connection):
    """Call it for a reader of an object with 100 bytes, all different."""

    def make(*span, stop=None, changes=None, **more):
        s3.store(BUCKET, 'from', bytes(range(100)), **(changes or {}))
        info = objects.stat(connection, FROM)
        s3.requests.clear()
        return Reader(connection.client, FROM, info, stop or threading.Event(), *span, **more)

    return make


def all_of(reader, most=1024):
    return b''.join(iter(lambda: reader.read(most), b''))


def ranges_of(s3):
    return [each.headers.get('range') for each in s3.requests]


@pytest.mark.parametrize(
    ('span', 'found', 'asked'),
    [
        ((), range(100), None),
        ((0, 100), range(100), None),
        ((0, 10), range(10), 'bytes=0-9'),
        ((10,), range(10, 100), 'bytes=10-99'),
        ((10, 20), range(10, 30), 'bytes=10-29'),
        ((99, 1), range(99, 100), 'bytes=99-99'),
    ],
)
def test_a_range_is_read(s3, reading, span, found, asked):
    reader = reading(*span)
    assert reader.left == len(found)
    first = reader.read(7)
    assert (len(first), reader.left) == (min(7, len(found)), len(found) - len(first))
    assert first + all_of(reader) == bytes(found)
    assert (reader.left, ranges_of(s3)) == (0, [asked])
    reader.close()


def test_nothing_is_asked_for_no_bytes(s3, reading):
    assert reading(10, 0).read() == b''
    assert s3.requests == []


def test_at_most_a_mib_is_read_at_once(s3, connection):
    s3.store(BUCKET, 'from', bytes(3 * MiB))
    reader = Reader(connection.client, FROM, objects.stat(connection, FROM), threading.Event())
    assert [len(reader.read(2 * MiB)), len(reader.read()), len(reader.read(MiB))] == [MiB] * 3


def test_three_answers_in_a_row_without_data_are_too_many(s3, reading):
    s3.fail('GetObject', Lost(), Lost())
    assert all_of(reading()) == bytes(range(100))
    assert len(s3.requests) == 3
    s3.fail('GetObject', *[Lost()] * 3)
    with pytest.raises(HTTPClientError):
        reading().read()
    assert len(s3.requests) == 3


def test_answers_that_bring_data_are_not_counted(s3, reading):
    """100 bytes: 50, 25, 12, ... until one is left, which comes whole or not at all."""
    s3.fail('GetObject', *[Cut()] * 6)
    assert all_of(reading(), 1) == bytes(range(100))
    assert ranges_of(s3) == [None, *(f'bytes={start}-99' for start in (50, 75, 87, 93, 96, 98))]


@pytest.mark.parametrize(('far', 'goes_on'), [(20, True), (25, True), (26, False)])
def test_answers_that_bring_too_little_are_counted(s3, reading, far, goes_on):
    """Two without a byte, one with 25, and one more without."""
    reader = reading(0, 50, far=far)
    s3.fail('GetObject', Lost(), Lost(), Cut(), Lost())
    if goes_on:
        assert all_of(reader, 1) == bytes(range(50))
        return
    with pytest.raises((HTTPClientError, *BROKEN)):
        all_of(reader, 1)
    assert len(s3.requests) == 3


def test_who_does_not_resume_is_told_of_the_first_interruption(s3, reading):
    s3.fail('GetObject', Lost())
    with pytest.raises(HTTPClientError):
        reading(resumes=False).read()
    assert len(s3.requests) == 1


def test_nothing_is_resumed_when_the_time_is_over(s3, reading):
    reader = reading()
    s3.fail('GetObject', Lost())
    with deadlines.within(0), pytest.raises(HTTPClientError):
        reader.read()
    assert len(s3.requests) <= 1


def test_an_interruption_when_the_time_is_over_is_the_last(s3, reading, monkeypatch):
    monkeypatch.setattr(deadlines, 'is_over', lambda: True)
    s3.fail('GetObject', Lost())
    with pytest.raises(HTTPClientError):
        reading().read()
    assert len(s3.requests) == 1


def test_a_stopped_reader_asks_for_nothing(s3, reading):
    stop = threading.Event()
    reader = reading(stop=stop)
    stop.set()
    with pytest.raises(CancelledError):
        reader.read()
    assert s3.requests == []


def test_an_answer_that_ends_early_and_says_so_is_gone_on_with(s3, reading):
    reader = reading()
    s3.fail('GetObject', Answer(200, bytes(range(40))))
    assert all_of(reader) == bytes(range(100))
    assert ranges_of(s3) == [None, 'bytes=40-99']


@pytest.mark.parametrize('span', [(), (0, 10)])
def test_more_bytes_than_the_object_has_are_refused(s3, reading, span):
    reader = reading(*span)
    s3.fail('GetObject', Longer())
    with pytest.raises(FileConsistencyMismatch, match=r'RSE X: get of .*more bytes than requested'):
        all_of(reader)


@pytest.mark.parametrize(
    ('came', 'taken'),
    [('bytes 10-29/100', True), ('bytes 10-29/*', True), ('bytes 10-29/101', False), ('bytes 0-19/100', False), ('bytes 10-28/100', False), ('', False)],
)
def test_another_range_than_was_asked_for_is_refused(s3, reading, came, taken):
    reader = reading(10, 20)
    found = s3.buckets[BUCKET]['from']
    s3.fail('GetObject', Answer(206, bytes(20), (('ETag', f'"{found.etag}"'), *((('Content-Range', came),) if came else ()))))
    if taken:
        assert reader.read() == bytes(20)
    else:
        with pytest.raises(RSEOperationNotSupported, match=f'requested bytes 10-29/100, but got {came or "the whole object"}'):
            reader.read()


def test_one_version_is_read(s3, reading):
    reader = reading(0, 10)
    reader.read()
    (request,) = s3.requests
    assert request.headers['if-match'].strip('"') == s3.buckets[BUCKET]['from'].etag


def test_an_object_that_is_being_restored_is_not_asked_for(s3, reading):
    reader = reading(changes={'storage_class': 'GLACIER', 'restored': RESTORING})
    with pytest.raises(ClientError, match='RestoreAlreadyInProgress'):
        reader.read()
    assert s3.requests == []


@pytest.fixture
def closed(monkeypatch):
    """The bodies that were closed."""
    made, close = [], StreamingBody.close
    monkeypatch.setattr(StreamingBody, 'close', lambda body: made.append(body) or close(body))
    return made


def test_a_connection_that_breaks_within_a_body_is_an_interruption(reading, monkeypatch, closed):
    def broken(*_, **__):
        raise ProtocolError('broken')

    reader = reading(resumes=False)
    monkeypatch.setattr(StreamingBody, 'read', broken)
    with pytest.raises(ResponseStreamingError, match='broken'):
        reader.read()
    assert len(closed) == 1


def test_a_body_with_more_than_was_read_of_it_is_refused(reading, monkeypatch):
    reader = reading(0, 10)
    monkeypatch.setattr(StreamingBody, 'read', lambda *_, **__: bytes(11))
    with pytest.raises(FileConsistencyMismatch, match='more bytes than requested'):
        reader.read()


def test_a_connection_is_given_back(s3, reading, closed):
    reader = reading()
    reader.read(7)
    for _ in range(2):
        reader.close()
    assert len(closed) == 1
    s3.fail('GetObject', NoRanges())
    with pytest.raises(RSEOperationNotSupported):
        reading(10, 20).read()
    assert len(closed) == 2


# All of an object, compared


@pytest.mark.parametrize('amounts', [(-1,), (100, 1), (40, 60, 1), (40, 40, 40), (0, 200)])
def test_as_much_is_read_as_was_asked_for(s3, connection, amounts):
    content = bytes(range(100))
    s3.store(BUCKET, 'from', content)
    with closing(Verified(connection, FROM, objects.stat(connection, FROM), Checksums(hashlib.md5(content).hexdigest()))) as stream:
        read = [stream.read(amount) for amount in amounts]
    assert b''.join(read) == content
    assert all(len(block) == amount or block is read[-1] or stream.checksums.size == 100 for amount, block in zip(amounts, read, strict=True))
    assert stream.checksums == Checksums(hashlib.md5(content).hexdigest(), f'{zlib.adler32(content):08x}', 100)


def test_the_last_bytes_of_what_is_wrong_are_not_given(s3, connection):
    s3.store(BUCKET, 'from', bytes(range(100)))
    stream = Verified(connection, FROM, objects.stat(connection, FROM), Checksums('0' * 32))
    assert len(stream.read(99)) == 99
    with pytest.raises(FileConsistencyMismatch, match=f'its MD5 is .* the catalogue says {"0" * 32} and None'):
        stream.read(1)


def test_hashing_has_its_time(s3, connection):
    s3.store(BUCKET, 'from', bytes(range(100)))
    info = objects.stat(connection, FROM)
    with pytest.raises(RucioException):
        hash_object(connection, FROM, info, seconds=0)
    assert hash_object(connection, FROM, info, seconds=60) == Checksums(
        hashlib.md5(bytes(range(100))).hexdigest(), f'{zlib.adler32(bytes(range(100))):08x}', 100
    )
    stop = threading.Event()
    stop.set()
    with pytest.raises(ServiceUnavailable):
        hash_object(connection, FROM, info, stop)
