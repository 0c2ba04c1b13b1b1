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

"""Transfers at the limits of S3: a storage that only counts, so that an object may have 50 TB.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html: parts of 5 MiB to 5 GiB, the last may be smaller, at most 10,000 of them;
5 GiB in one PUT or copy.
"""

import threading
import tracemalloc
from types import SimpleNamespace

import pytest

from rucio.common.exception import RSEOperationNotSupported
from rucio.common.s3 import checksums, clients, credentials, objects, ranges, s3transfer_internals, transfer
from rucio.common.s3.content import Beginning
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target

MiB, GiB, TB = 1024**2, 1024**3, 10**12
MAX_PARTS, MIN_PART, MAX_PART = 10_000, 5 * MiB, 5 * GiB
LARGEST = MAX_PARTS * MAX_PART
SOURCE, TARGET = Target('X', 'user.alice', 'source'), Target('X', 'user.alice', 'dir/f')


class Sink:
    """A boto3 client for a storage that keeps nothing but the sizes, and refuses what S3 refuses."""

    def __init__(self):
        self.single = self.completed = None  # bytes
        self.parts, self.sources = {}, {}
        self._lock = threading.Lock()
        events = SimpleNamespace(register=lambda *_, **__: None, register_first=lambda *_, **__: None, register_last=lambda *_, **__: None)
        self.meta = SimpleNamespace(config=SimpleNamespace(request_checksum_calculation='when_required'), events=events)

    def put_object(self, Body, **_):  # noqa: N803 - boto3's names
        self.single = len(Body)
        assert self.single <= MAX_PART
        return {'ETag': '"e"'}

    def copy_object(self, **_):
        self.single = 'copied'
        return {'CopyObjectResult': {'ETag': '"e"'}}

    def create_multipart_upload(self, **_):
        return {'UploadId': 'u'}

    def upload_part(self, Body, PartNumber, **_):  # noqa: N803
        with self._lock:
            self.parts[PartNumber] = len(Body)
        return {'ETag': '"e"'}

    def upload_part_copy(self, CopySourceRange, PartNumber, **_):  # noqa: N803
        first, last = map(int, CopySourceRange.removeprefix('bytes=').split('-'))
        with self._lock:
            self.sources[PartNumber] = first
            self.parts[PartNumber] = last - first + 1
        return {'CopyPartResult': {'ETag': '"e"'}}

    def abort_multipart_upload(self, **_):
        self.parts.clear()

    def complete_multipart_upload(self, MultipartUpload, **_):  # noqa: N803
        numbers = [each['PartNumber'] for each in MultipartUpload['Parts']]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) <= MAX_PARTS
        sizes = [self.parts[number] for number in numbers]
        assert all(MIN_PART <= size <= MAX_PART for size in sizes[:-1])
        assert 0 < sizes[-1] <= MAX_PART
        self.completed = sum(sizes)
        return {'ETag': '"e"', 'Key': 'k'}


class Zeros:
    """A stream of so many bytes, which all are the same object in memory."""

    def __init__(self, size):
        self.left = size
        self._block = b''

    def read(self, amount=-1):
        given = self.left if amount < 0 else min(amount, self.left)
        self.left -= given
        if len(self._block) != given:
            self._block = bytes(given)
        return self._block


@pytest.fixture
def sink():
    return Sink()


@pytest.fixture
def connection(sink):
    def make(**settings):
        endpoint = Endpoint(**{'rse': 'X', 'rse_id': '1', 'url': 'http://127.0.0.1:1', 'checksum': 'md5'} | settings)
        return clients.Connection(endpoint, credentials.Static('AKIDOFTHETESTS', 'secret'), sink)

    return make


def sparse(tmp_path, size):
    path = tmp_path / 'sparse'
    with open(path, 'wb') as file:
        file.truncate(size)
    return str(path)


@pytest.mark.parametrize('threshold', [5 * MiB, 16 * MiB])
@pytest.mark.parametrize('chunk', [5 * MiB, 8 * MiB, 16 * MiB])
@pytest.mark.parametrize('more', [-1, 0, 1])
@pytest.mark.parametrize('of', ['threshold', 'part', '3 parts'])
def test_uploads_at_the_threshold_and_at_the_edges_of_parts(connection, sink, tmp_path, threshold, chunk, more, of):
    size = {'threshold': threshold, 'part': chunk, '3 parts': 3 * chunk}[of] + more
    made = connection(multipart_threshold=threshold, multipart_chunksize=chunk)
    assert transfer.upload(made, sparse(tmp_path, size), TARGET) == size
    if size < threshold:
        assert (sink.single, sink.parts) == (size, {})
    else:
        assert (sink.single, sink.completed) == (None, size)
        assert len(sink.parts) == -(-size // chunk)


def test_10_000_parts(connection, sink):
    size = MAX_PARTS * MIN_PART
    transfer.upload_stream(connection(multipart_threshold=MIN_PART, multipart_chunksize=MIN_PART), Zeros(size), size, TARGET)
    assert sink.completed == size
    assert set(sink.parts.values()) == {MIN_PART}
    assert len(sink.parts) == MAX_PARTS


@pytest.mark.parametrize('wanted', [1, MIN_PART, 16 * MiB, 256 * MiB, GiB])
@pytest.mark.parametrize(
    'size', [0, 1, MIN_PART, 10_000 * 16 * MiB, 10_000 * 16 * MiB + 1, 5 * TB, 10_000 * GiB - 1, 10_000 * GiB + 1, 50 * TB, LARGEST - 1, LARGEST]
)
def test_parts_fit_and_are_not_larger_than_needed(wanted, size):
    """They are in memory: s3transfer doubles the size of parts, 5 GiB for a file of 30 TB."""
    part = s3transfer_internals.part_size(wanted, size)
    assert MIN_PART <= part <= MAX_PART
    assert -(-size // part) <= MAX_PARTS
    assert part == max(wanted, MIN_PART) or part - size / MAX_PARTS < MiB


@pytest.mark.parametrize('size', [GiB - 1, GiB, GiB + 1, MAX_PART - 1, MAX_PART, MAX_PART + 1, 50 * TB])
def test_copies(connection, sink, size):
    """Ranges that follow each other from the first byte to the last."""
    transfer.copy(connection(), SOURCE, TARGET, info=objects.ObjectInfo(size, '"e"'))
    if size < GiB:
        assert sink.single == 'copied'
        return
    assert sink.completed == size
    end = 0
    for number in sorted(sink.sources):
        assert sink.sources[number] == end
        end += sink.parts[number]
    assert end == size


def test_more_than_s3_allows_is_refused_before_anything_is_sent(connection, sink):
    info = objects.ObjectInfo(LARGEST + 1, '"e"')
    for operation, act in (
        ('copy', lambda: transfer.copy(connection(), SOURCE, TARGET, info=info)),
        ('put', lambda: transfer.upload_stream(connection(), Zeros(info.size), info.size, TARGET)),
    ):
        with pytest.raises(RSEOperationNotSupported, match=f'RSE X: {operation} of .*10,000 parts of 5 GiB'):
            act()
    assert (sink.single, sink.parts) == (None, {})


def test_more_than_s3_allows_is_refused_of_a_file_too(connection, sink, tmp_path, monkeypatch):
    monkeypatch.setattr(s3transfer_internals, 'MAX_SIZE', 10)
    with pytest.raises(RSEOperationNotSupported, match=r'put of .*: 11 bytes are more than S3 allows'):
        transfer.upload(connection(), sparse(tmp_path, 11), TARGET)
    assert (sink.single, sink.parts) == (None, {})
    transfer.upload(connection(), sparse(tmp_path, 10), TARGET)


@pytest.fixture
def configured(monkeypatch):
    """What s3transfer is configured with; nothing is sent then."""
    made = []

    def config(**given):
        made.append(given)
        raise AssertionError

    monkeypatch.setattr('s3transfer.manager.TransferConfig', config)
    return made


@pytest.mark.parametrize(
    ('size', 'memory', 'part', 'at_once'),
    [
        (100 * MiB, 64 * MiB, 8 * MiB, 4),  # an eighth of the memory
        (100 * MiB, 512 * MiB, 16 * MiB, 4),  # the settings
        (100 * MiB, 20 * MiB, 5 * MiB, 2),  # two of the four parts are those that are read next
        (100 * MiB, 1 * MiB, 5 * MiB, 1),
        (640 * GiB, 512 * MiB, 66 * MiB, 4),  # S3 allows no more parts
        (5 * TB, 512 * MiB, 477 * MiB, 1),
    ],
)
def test_the_parts_of_a_stream_and_how_many_are_held(connection, configured, size, memory, part, at_once):
    with pytest.raises(AssertionError):
        transfer.upload_stream(connection(multipart_chunksize=16 * MiB, multipart_threshold=16 * MiB), Zeros(size), size, TARGET, memory)
    assert configured == [
        {
            'multipart_threshold': 16 * MiB,
            'multipart_chunksize': part,
            'max_request_concurrency': at_once,
            'max_in_memory_upload_chunks': at_once,
            'max_submission_concurrency': 1,
        }
    ]


@pytest.mark.parametrize(('size', 'at_once'), [(100 * MiB, 4), (640 * GiB, 4), (5 * TB, 1)])
def test_how_many_parts_of_a_file_are_held(connection, configured, tmp_path, size, at_once):
    with pytest.raises(AssertionError):
        transfer.upload(connection(), sparse(tmp_path, size), TARGET)
    assert (configured[0]['max_request_concurrency'], configured[0]['max_in_memory_upload_chunks']) == (at_once, at_once)


@pytest.mark.parametrize(('size', 'refused'), [(5 * GiB, False), (5 * GiB + 1, True)])
def test_5_gib_with_a_signed_url(connection, sink, tmp_path, size, refused):
    made = clients.Connection(connection().endpoint, credentials.Presigned(), sink)
    if refused:
        with pytest.raises(RSEOperationNotSupported, match='at most 5 GiB with a signed URL'):
            transfer.upload(made, sparse(tmp_path, size), TARGET)
    else:
        transfer.upload(made, sparse(tmp_path, size), TARGET)
    assert (sink.single, sink.parts) == (None if refused else size, {})


@pytest.mark.parametrize('size', [16 * MiB - 1, 16 * MiB, 16 * MiB + 1, 160 * GiB, 50 * TB, LARGEST])
def test_downloads_have_few_ranges_however_large_the_object_is(connection, tmp_path, monkeypatch, size):
    """Each has an entry in memory: 3 million of 16 MiB were 350 MB."""
    made = []

    class Fetch(ranges.Fetch):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)
            self._failure = InterruptedError()
            self.done.set()

        def start(self, _threads):
            """Nothing is read."""

    monkeypatch.setattr(transfer, 'Fetch', Fetch)
    with pytest.raises(InterruptedError):
        transfer._download(connection(), SOURCE, str(tmp_path / 'f'), Beginning(objects.ObjectInfo(size, '"e"')), transfer._Deadline(None), None, None)
    starts = made[0]._starts
    assert len(starts) <= MAX_PARTS
    assert (len(starts) == 1) == (size <= 16 * MiB)
    assert starts[-1] < size <= starts[-1] + starts.step


def test_the_etag_of_large_parts_is_computed_in_small_pieces(tmp_path):
    """Parts of a file of 5 TB have 500 MiB."""
    with open(sparse(tmp_path, 50 * MiB), 'rb') as file:
        tracemalloc.start()
        try:
            found = checksums.etag_of(file, 40 * MiB)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert found.endswith('-2')
    assert peak < 10 * MiB
