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

import pytest

from rucio.common.exception import FileConsistencyMismatch, FileReplicaAlreadyExists, RucioException, ServiceUnavailable
from rucio.common.s3 import clients, credentials, objects, transfer
from rucio.common.s3.content import Checksums, Verified, hash_object
from rucio.common.s3.errors import Target
from servers.fake_s3 import Cut, NoRanges, error

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
