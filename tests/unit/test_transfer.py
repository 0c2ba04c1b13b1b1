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


"""Upload, download and copy: what is stored, what it costs, and that nothing is left after a failure."""

import hashlib
import io
import os
import signal
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import pytest
from s3transfer.futures import TransferCoordinator
from s3transfer.manager import TransferManager

from rucio.common.exception import (
    DestinationNotAccessible,
    FileConsistencyMismatch,
    FileReplicaAlreadyExists,
    RSEAccessDenied,
    RSEFileNameNotSupported,
    RSEOperationNotSupported,
    RucioException,
    ServiceUnavailable,
    SourceNotFound,
)
from rucio.common.s3 import clients, credentials, deadlines, interrupts, multipart, partial_files, ranges, transfer
from rucio.common.s3.checksums import etag_of
from rucio.common.s3.content import Checksums, Hasher
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from servers.fake_s3 import Answer, Cut, Flipped, Longer, Lost, NoRanges, Stalled, error

MiB = 1024**2
BUCKET = 'user.alice'
KEYS = credentials.Static('AKIDOFTHETESTS', 'secret')
TARGET = Target('X', BUCKET, 'dir/f')
SMALL = b'content of a small file'
# Two parts of 5 MiB and a bit: large enough for every way through multipart.
LARGE = bytes(range(256)) * (10 * MiB // 256) + b'end'


@pytest.fixture
def connection(s3):
    def make(authorizer=KEYS, **settings):
        usual = {
            'rse': 'X',
            'rse_id': '1',
            'url': s3.url,
            'checksum': 'crc32',
            'full_object_checksum': True,
            'conditional_put': True,
            'conditional_multipart': True,
            'multipart_threshold': 5 * MiB,
            'multipart_chunksize': 5 * MiB,
            'max_attempts': 1,
        }
        return clients.connect(Endpoint(**usual | settings), authorizer)

    return make


@pytest.fixture
def signed(connection, s3):
    """Call it with an operation for a connection that has a signed URL for the object."""

    def make(operation, **settings):
        made = connection(None, **settings)
        made.authorizer.offer(operation, TARGET, f'{s3.url}/{BUCKET}/{TARGET.key}?X-Amz-Signature=1')
        return made

    return make


@pytest.fixture
def source(tmp_path):
    def make(content):
        path = tmp_path / 'source'
        path.write_bytes(content)
        return str(path)

    return make


@pytest.fixture
def dest(tmp_path):
    """Where to download, in a directory that is made first."""
    tmp_path.joinpath('dest').mkdir()
    return tmp_path / 'dest' / 'f'


@pytest.fixture
def short_grace(monkeypatch):
    """On a storage that hangs, the caller goes on quickly."""
    monkeypatch.setattr(transfer, '_GRACE', 0.05)


def wait_for_cleanup(s3):
    """Let the requests that hang end, and wait for what goes on behind the caller's back."""
    s3.stopping.set()
    for thread in threading.enumerate():
        if thread.name in ('rucio-s3-cleanup', 'rucio-s3-get'):
            thread.join(30)
            assert not thread.is_alive()


def nothing_stored(s3):
    return not s3.buckets[BUCKET] and not s3.uploads


# Upload


@pytest.mark.parametrize('content', [b'', b'x', SMALL, b'x' * (5 * MiB - 1)], ids=len)
def test_a_small_file_is_one_request(connection, s3, source, content):
    assert transfer.upload(connection(), source(content), TARGET) == len(content)
    assert s3.content(BUCKET, TARGET.key) == content
    assert s3.operations() == ['PutObject']


@pytest.mark.parametrize('content', [b'x' * 5 * MiB, LARGE], ids=len)
def test_a_large_file_is_stored_in_parts_and_nothing_is_left_of_them(connection, s3, source, content):
    assert transfer.upload(connection(), source(content), TARGET) == len(content)
    assert s3.content(BUCKET, TARGET.key) == content
    parts = -(-len(content) // (5 * MiB))
    assert s3.operations() == ['CreateMultipartUpload', *['UploadPart'] * parts, 'CompleteMultipartUpload']
    assert not s3.uploads


def test_a_large_object_has_one_checksum_where_the_storage_can(connection, s3, source):
    transfer.upload(connection(full_object_checksum=True), source(LARGE), TARGET)
    assert s3.buckets[BUCKET][TARGET.key].crc32
    transfer.upload(connection(full_object_checksum=False), source(LARGE), TARGET._replace(key='other'))
    assert not s3.buckets[BUCKET]['other'].crc32


@pytest.mark.parametrize('content', [SMALL, LARGE], ids=['one PUT', 'multipart'])
@pytest.mark.parametrize(('checksum', 'header'), [('crc32', 'x-amz-checksum-crc32'), ('md5', 'content-md5')])
def test_every_byte_is_covered_by_a_check_of_the_storage(connection, s3, source, content, checksum, header):
    transfer.upload(connection(checksum=checksum, full_object_checksum=False), source(content), TARGET)
    bodies = [request for request in s3.requests if request.operation in ('PutObject', 'UploadPart')]
    assert sum(len(request.body) for request in bodies) == len(content)
    assert all(header in request.headers for request in bodies)


@pytest.mark.parametrize('content', [SMALL, LARGE], ids=['one PUT', 'multipart'])
def test_a_file_is_read_once(connection, source, monkeypatch, content):
    path, opened = source(content), []

    class Counting:
        def __init__(self, file):
            self.file, self.read_bytes = file, 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def read(self, *args):
            data = self.file.read(*args)
            self.read_bytes += len(data)
            return data

    def counting_open(*args):
        opened.append(Counting(open(*args)))  # noqa: SIM115 - closed by who asked for it
        return opened[-1]

    monkeypatch.setattr(transfer, 'open', counting_open, raising=False)
    transfer.upload(connection(), path, TARGET)
    assert [file.read_bytes for file in opened] == [len(content)]


@pytest.mark.parametrize('content', [SMALL, LARGE], ids=['one PUT', 'multipart'])
@pytest.mark.parametrize('honoured', [True, False])
def test_an_object_is_never_overwritten(connection, s3, source, content, honoured):
    s3.conditional_put = s3.conditional_multipart = honoured
    s3.store(BUCKET, TARGET.key, b'first')
    with pytest.raises(FileReplicaAlreadyExists, match=r"RSE X: put of bucket 'user\.alice', key 'dir/f'"):
        transfer.upload(connection(conditional_put=honoured, conditional_multipart=honoured), source(content), TARGET)
    assert s3.content(BUCKET, TARGET.key) == b'first'
    assert not s3.uploads


def test_of_sixteen_writers_exactly_one_wins(connection, s3, tmp_path):
    connection()
    start = threading.Barrier(16)

    def write(number):
        path = tmp_path / str(number)
        path.write_bytes(b'%d' % number)
        start.wait(30)
        try:
            transfer.upload(connection(), str(path), TARGET)
        except FileReplicaAlreadyExists:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        winners = [number for number in pool.map(write, range(16)) if number is not None]
    assert len(winners) == 1
    assert s3.content(BUCKET, TARGET.key) == b'%d' % winners[0]


def test_a_missing_bucket_is_named_with_the_remedy(connection, source):
    with pytest.raises(DestinationNotAccessible, match='Make it first: rucio s3 make-bucket'):
        transfer.upload(connection(), source(SMALL), Target('X', 'no.such.bucket', 'k'))


# Local files that cannot be uploaded


def test_a_missing_file_is_named(connection, s3, tmp_path):
    with pytest.raises(SourceNotFound, match='nowhere'):
        transfer.upload(connection(), str(tmp_path / 'nowhere'), TARGET)
    assert not s3.requests


def test_a_directory_is_refused(connection, s3, tmp_path):
    with pytest.raises(SourceNotFound, match='directory'):
        transfer.upload(connection(), str(tmp_path), TARGET)
    assert not s3.requests


def test_a_device_is_refused(connection, s3):
    with pytest.raises(SourceNotFound, match='not a regular file'):
        transfer.upload(connection(), os.devnull, TARGET)
    assert not s3.requests


@pytest.mark.timeout(60)
def test_a_pipe_is_refused_without_waiting_for_its_writer(connection, s3, tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(SourceNotFound, match='not a regular file'):
        transfer.upload(connection(), str(tmp_path / 'pipe'), TARGET)
    assert not s3.requests


def changing(path, change):
    """A meter that changes the file after its size was measured and before it is read."""

    @contextmanager
    def meter(name, size):
        with open(path, 'r+b') as file:
            change(file)
        yield

    return meter


def grow(file):
    file.seek(0, os.SEEK_END)
    file.write(b'more')


def shrink(file):
    file.truncate(os.fstat(file.fileno()).st_size - 1)


@pytest.mark.parametrize('content', [SMALL, LARGE], ids=['one PUT', 'multipart'])
@pytest.mark.parametrize('change', [grow, shrink])
def test_a_file_that_changes_while_it_is_read_fails_and_nothing_is_stored(connection, s3, source, content, change):
    path = source(content)
    with pytest.raises(SourceNotFound, match=f'changed while it was read: it had {len(content)} bytes'):
        transfer.upload(connection(), path, TARGET, meter=changing(path, change))
    assert nothing_stored(s3)


@pytest.mark.parametrize('change', [grow, shrink])
@pytest.mark.parametrize('content', [b'x', b'x' * 5 * MiB])
def test_a_file_that_changes_to_another_number_of_parts_fails_too(connection, s3, source, content, change):
    path = source(content)
    with pytest.raises(SourceNotFound, match='changed while it was read'):
        transfer.upload(connection(), path, TARGET, meter=changing(path, change))
    assert nothing_stored(s3)


@pytest.mark.parametrize('change', [grow, shrink])
def test_a_file_that_changes_before_it_goes_to_a_signed_url_fails_and_nothing_is_stored(signed, s3, source, change):
    path = source(SMALL)
    with pytest.raises(RucioException):
        transfer.upload(signed('write', read_timeout=0.5), path, TARGET, meter=changing(path, change), timeout=5)
    assert nothing_stored(s3)


def overwrite(file):
    file.write(b'other')


CHECKSUMS = {'adler32': lambda body: f'{zlib.adler32(body):08x}', 'md5': lambda body: hashlib.md5(body).hexdigest()}


@pytest.mark.parametrize('content', [SMALL, LARGE, b''], ids=['one PUT', 'multipart', 'empty'])
@pytest.mark.parametrize('checksum', CHECKSUMS)
@pytest.mark.parametrize('by', ['keys', 'signature'])
def test_a_file_that_is_not_what_was_registered_is_not_stored(connection, signed, s3, source, content, checksum, by):
    to, path = connection() if by == 'keys' else signed('write'), source(content)
    with pytest.raises(FileConsistencyMismatch, match=r'changed after its checksums were computed.*Nothing was stored'):
        transfer.upload(to, path, TARGET, hasher=Hasher(Checksums(**{checksum: CHECKSUMS[checksum](b'another')})))
    assert nothing_stored(s3)
    transfer.upload(to, path, TARGET, hasher=Hasher(Checksums(**{checksum: CHECKSUMS[checksum](content).upper().lstrip('0')})))
    assert s3.content(BUCKET, TARGET.key) == content


def test_a_file_that_is_overwritten_while_it_is_sent_is_not_stored(connection, s3, source):
    path = source(LARGE)
    with pytest.raises(FileConsistencyMismatch):
        transfer.upload(connection(), path, TARGET, meter=changing(path, overwrite), hasher=Hasher(Checksums(adler32=CHECKSUMS['adler32'](LARGE))))
    assert nothing_stored(s3)


# Uploads that fail on their way


@pytest.mark.parametrize(
    ('operation', 'answer', 'expected'),
    [
        ('CreateMultipartUpload', error(403, 'AccessDenied'), RSEAccessDenied),
        ('UploadPart', error(400, 'BadDigest'), FileConsistencyMismatch),
        ('UploadPart', error(500, 'InternalError'), ServiceUnavailable),
        ('UploadPart', error(403, 'ExpiredToken'), RSEAccessDenied),
        ('CompleteMultipartUpload', error(403, 'AccessDenied'), RSEAccessDenied),
        ('CompleteMultipartUpload', error(412, 'PreconditionFailed'), FileReplicaAlreadyExists),
    ],
)
def test_no_part_is_left_of_a_multipart_upload_that_fails(connection, s3, source, operation, answer, expected):
    s3.fail(operation, answer)
    with pytest.raises(expected, match=r"RSE X: put of bucket 'user\.alice', key 'dir/f'"):
        transfer.upload(connection(), source(LARGE), TARGET)
    assert nothing_stored(s3)


def test_no_part_is_left_where_the_last_step_says_with_200_that_it_failed(connection, s3, source):
    s3.fail('CompleteMultipartUpload', Answer(200, error(200, 'InternalError').body))
    with pytest.raises(ServiceUnavailable):
        transfer.upload(connection(), source(LARGE), TARGET)
    assert nothing_stored(s3)


def test_a_part_that_fails_once_is_sent_again(connection, s3, source):
    s3.fail('UploadPart', error(503, 'SlowDown'), Lost(None))
    transfer.upload(connection(max_attempts=3), source(LARGE), TARGET)
    assert s3.content(BUCKET, TARGET.key) == LARGE


@pytest.mark.parametrize('checksum', ['crc32', 'md5'])
def test_data_that_are_damaged_on_their_way_are_refused_by_the_storage(connection, s3, source, checksum):
    """The fake S3 verifies, so a client that would send no checksum fails this test."""
    damaged = connection(checksum=checksum)

    def damage(request, **_):
        request.body = b'!' + request.body[1:]

    damaged.client.meta.events.register_last('before-send.s3.PutObject', damage)
    with pytest.raises(FileConsistencyMismatch, match='BadDigest'):
        transfer.upload(damaged, source(SMALL), TARGET)
    assert nothing_stored(s3)


# Answers that are lost


@pytest.mark.parametrize('attempts', [1, 2])
@pytest.mark.parametrize('answer', [None, error(500, 'InternalError'), error(503, 'SlowDown')], ids=['none', '500', '503'])
@pytest.mark.parametrize('settings', [{}, {'checksum': 'md5', 'full_object_checksum': False}], ids=['crc32', 'etag'])
@pytest.mark.parametrize('content', [b'', SMALL, LARGE], ids=['empty', 'one PUT', 'multipart'])
def test_an_upload_whose_answer_was_lost_is_a_success(connection, s3, source, attempts, answer, settings, content):
    s3.fail('CompleteMultipartUpload' if content is LARGE else 'PutObject', Lost(answer))
    transfer.upload(connection(max_attempts=attempts, **settings), source(content), TARGET)
    assert s3.content(BUCKET, TARGET.key) == content
    assert not s3.uploads


TAKEN, NO_UPLOAD = error(412, 'PreconditionFailed'), error(404, 'NoSuchUpload')


@pytest.fixture(params=['upload', 'stream', 'copy'])
def send_large(request, connection, s3, source, monkeypatch):
    """Store LARGE by a multipart upload."""
    if request.param == 'upload':
        return lambda **settings: transfer.upload(connection(**settings), source(LARGE), TARGET)
    if request.param == 'stream':
        return lambda **settings: transfer.upload_stream(connection(**settings), io.BytesIO(LARGE), len(LARGE), TARGET)
    monkeypatch.setattr(transfer, 'COPY_THRESHOLD', 5 * MiB)
    monkeypatch.setattr(transfer, 'COPY_PART', 5 * MiB)
    s3.store(BUCKET, 'source', LARGE)
    return lambda **settings: transfer.copy(connection(**settings), TARGET._replace(key='source'), TARGET)


@pytest.mark.parametrize('answer', [TAKEN, NO_UPLOAD], ids=['412', '404'])
@pytest.mark.parametrize('settings', [{}, {'checksum': 'md5', 'full_object_checksum': False}], ids=['crc32', 'etag'])
def test_a_completion_that_a_proxy_sends_twice_is_a_success(s3, send_large, settings, answer):
    """The answer to the second one comes: botocore sent only one, and has not tried again."""
    s3.fail('CompleteMultipartUpload', Lost(answer))
    send_large(**settings)
    assert s3.content(BUCKET, TARGET.key) == LARGE
    assert s3.operations()[-1] == 'HeadObject'
    assert not s3.uploads


@pytest.mark.parametrize('content', [LARGE, LARGE[::-1]], ids=['same', 'other'])
def test_an_object_of_somebody_else_is_not_taken_for_a_completed_upload(s3, send_large, content):
    """It was written at the same moment, of the same parts perhaps: but our upload is still there."""
    s3.store(BUCKET, TARGET.key, content, etag=etag_of(io.BytesIO(content), 5 * MiB))
    with pytest.raises(FileReplicaAlreadyExists):
        send_large()
    assert s3.content(BUCKET, TARGET.key) == content
    assert not s3.uploads


def test_nor_is_one_where_the_upload_is_gone(s3, send_large):
    s3.store(BUCKET, TARGET.key, LARGE[::-1])
    s3.fail('CompleteMultipartUpload', NO_UPLOAD)
    with pytest.raises(ServiceUnavailable, match='aborted by somebody else'):
        send_large()
    assert s3.content(BUCKET, TARGET.key) == LARGE[::-1]


@pytest.mark.parametrize('answer', [TAKEN, NO_UPLOAD], ids=['412', '404'])
def test_nor_one_that_cannot_be_looked_at(s3, send_large, answer):
    s3.fail('CompleteMultipartUpload', Lost(answer))
    s3.fail('HeadObject', *[error(403, 'AccessDenied')] * 9)
    with pytest.raises(RucioException):
        send_large()


@pytest.mark.parametrize('answer', [TAKEN, NO_UPLOAD], ids=['412', '404'])
def test_without_etags_to_compare_the_content_is(connection, s3, source, monkeypatch, answer):
    """Those of encrypted objects are no MD5s."""
    monkeypatch.setattr(multipart, '_etag_of_parts', lambda _: None)
    s3.fail('CompleteMultipartUpload', Lost(answer))
    transfer.upload(connection(), source(LARGE), TARGET)
    assert s3.content(BUCKET, TARGET.key) == LARGE


@pytest.mark.parametrize('other', [b'X' + SMALL[1:], b'short'], ids=['same size', 'other size'])
@pytest.mark.parametrize('checksum', ['crc32', 'md5'])
def test_an_object_of_other_content_is_not_taken_for_an_upload_whose_answer_was_lost(connection, s3, source, other, checksum):
    s3.store(BUCKET, TARGET.key, other, crc32='' if checksum == 'md5' else 'xxxxxx==')
    s3.fail('PutObject', Lost(None))
    with pytest.raises(FileReplicaAlreadyExists):
        transfer.upload(connection(max_attempts=2, checksum=checksum), source(SMALL), TARGET)
    assert s3.content(BUCKET, TARGET.key) == other


def test_the_same_content_is_no_success_where_nothing_was_lost(connection, s3, source):
    """Somebody else's object: Rucio is to know."""
    s3.store(BUCKET, TARGET.key, SMALL)
    with pytest.raises(FileReplicaAlreadyExists):
        transfer.upload(connection(), source(SMALL), TARGET)


def test_the_same_content_is_a_success_where_an_earlier_try_may_have_arrived(connection, s3, source):
    s3.store(BUCKET, TARGET.key, SMALL)
    assert transfer.upload(connection(), source(SMALL), TARGET, tried_before=True) == len(SMALL)
    s3.store(BUCKET, TARGET.key, b'other')
    with pytest.raises(FileReplicaAlreadyExists):
        transfer.upload(connection(), source(SMALL), TARGET, tried_before=True)


def test_a_refusal_is_none_that_tells_of_an_earlier_try(connection, s3, source):
    s3.store(BUCKET, TARGET.key, SMALL)
    s3.fail('PutObject', error(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied):
        transfer.upload(connection(), source(SMALL), TARGET, tried_before=True)


@pytest.mark.parametrize('etag', ['of the parts', 'of the content'])
@pytest.mark.parametrize('content', [b'x' * 5 * MiB, LARGE], ids=['one part', 'parts'])
def test_a_large_upload_whose_answer_was_lost_is_recognised_by_its_etag(connection, s3, source, content, etag):
    """Some storages take the MD5 of the content for the ETag, of multipart uploads too."""
    complete = s3.CompleteMultipartUpload

    def completed(request):
        answer = complete(request)
        if etag == 'of the content':
            s3.store(BUCKET, TARGET.key, content, crc32='')
        return answer

    s3.CompleteMultipartUpload = completed
    s3.fail('CompleteMultipartUpload', Lost(None))
    assert transfer.upload(connection(checksum='md5', full_object_checksum=False), source(content), TARGET) == len(content)


def test_no_thread_is_left_of_an_upload_and_a_copy(connection, s3, source):
    made = connection()
    before = {thread for thread in threading.enumerate() if thread.name.startswith('ThreadPool')}
    transfer.upload(made, source(LARGE), TARGET, timeout=60, stop=threading.Event())
    transfer.copy(made, TARGET, OTHER, stop=threading.Event())
    assert {thread for thread in threading.enumerate() if thread.name.startswith('ThreadPool')} <= before


@pytest.mark.parametrize('act', ['upload', 'stream', 'copy', 'download'])
def test_what_is_stopped_begins_nothing(connection, s3, source, dest, act):
    s3.store(BUCKET, 'stored', SMALL)
    stop, made, stored = threading.Event(), connection(), TARGET._replace(key='stored')
    stop.set()
    acts = {
        'upload': lambda: transfer.upload(made, source(LARGE), TARGET, stop=stop),
        'stream': lambda: transfer.upload_stream(made, io.BytesIO(LARGE), len(LARGE), TARGET, stop=stop),
        'copy': lambda: transfer.copy(made, stored, TARGET, stop=stop),
        'download': lambda: transfer.download(made, stored, str(dest), timeout=60, stop=stop),
    }
    with pytest.raises(ServiceUnavailable):
        acts[act]()
    assert list(s3.buckets[BUCKET]) == ['stored']
    assert not {'PutObject', 'CreateMultipartUpload', 'CopyObject', 'GetObject'} & set(s3.operations())
    assert not os.listdir(dest.parent)
    wait_for_cleanup(s3)


@pytest.mark.parametrize('act', ['upload', 'stream', 'copy'])
def test_what_is_interrupted_while_it_begins_is_stopped_too(connection, s3, source, monkeypatch, act):
    """It went on to its end, and the process with it."""
    s3.store(BUCKET, 'stored', LARGE)
    made = connection()
    name = 'copy' if act == 'copy' else 'upload'
    part = 'UploadPartCopy' if act == 'copy' else 'UploadPart'
    begin, cancel, take = getattr(TransferManager, name), TransferCoordinator.cancel, getattr(s3, part)
    reached, cancelled = threading.Event(), threading.Event()

    def interrupted(*arguments):
        begin(*arguments)
        assert reached.wait(30)
        raise KeyboardInterrupt

    def taken(request):
        reached.set()
        cancelled.wait(30)
        return take(request)

    def cancel_all(*arguments):
        cancel(*arguments)
        cancelled.set()

    setattr(s3, part, taken)
    monkeypatch.setattr(TransferManager, name, interrupted)
    monkeypatch.setattr(TransferCoordinator, 'cancel', cancel_all)
    monkeypatch.setattr(transfer, 'COPY_THRESHOLD', 5 * MiB)
    acts = {
        'upload': lambda: transfer.upload(made, source(LARGE), TARGET),
        'stream': lambda: transfer.upload_stream(made, io.BytesIO(LARGE), len(LARGE), TARGET),
        'copy': lambda: transfer.copy(made, TARGET._replace(key='stored'), TARGET),
    }
    with pytest.raises(KeyboardInterrupt):
        acts[act]()
    wait_for_cleanup(s3)
    assert list(s3.buckets[BUCKET]) == ['stored']
    assert not s3.uploads


def test_what_is_stopped_while_the_storage_begins_it_is_aborted(connection, s3, source, monkeypatch):
    """Without the answer nobody knew the id of the multipart upload, and it stayed."""
    stop, looked = threading.Event(), threading.Event()
    create, is_stopped = s3.CreateMultipartUpload, deadlines.is_stopped

    def created(request):
        answer = create(request)
        stop.set()
        looked.wait(30)
        return answer

    def look():
        found = is_stopped()
        if stop.is_set():
            looked.set()
        return found

    s3.CreateMultipartUpload = created
    monkeypatch.setattr(deadlines, 'is_stopped', look)
    with pytest.raises(ServiceUnavailable):
        transfer.upload(connection(), source(LARGE), TARGET, stop=stop)
    wait_for_cleanup(s3)
    assert looked.is_set()
    assert s3.operations() == ['CreateMultipartUpload', 'AbortMultipartUpload']
    assert nothing_stored(s3)


def test_a_deadline_is_waited_for_in_small_steps():
    """A signal for another thread is only heard between two of them."""
    assert 0 < transfer._Deadline(0.05)._tick() <= 0.05
    assert transfer._Deadline(1000)._tick() == transfer._Deadline(None)._tick() == transfer._Deadline(0)._tick() == interrupts.TICK


def test_a_storage_that_fails_for_good_is_not_taken_for_a_success(connection, s3, source):
    s3.fail('PutObject', error(500, 'InternalError'), error(500, 'InternalError'))
    with pytest.raises(ServiceUnavailable):
        transfer.upload(connection(max_attempts=2), source(SMALL), TARGET)
    assert nothing_stored(s3)


# Answers that say "done" and nothing else


EMPTY, PAGE = Answer(200), Answer(200, b'<html><body>Log in</body></html>', (('Content-Type', 'text/html'),))


@pytest.mark.parametrize('said', [EMPTY, PAGE], ids=['empty', 'HTML'])
@pytest.mark.parametrize('operation', ['PutObject', 'CreateMultipartUpload', 'UploadPart', 'CompleteMultipartUpload'])
def test_a_200_that_says_nothing_is_no_upload(connection, s3, source, said, operation):
    """A proxy, or a page for logging in, says 200, too. For UploadPart s3transfer raised a KeyError."""
    s3.fail(operation, said)
    with pytest.raises(ServiceUnavailable, match='cannot be read'):
        transfer.upload(connection(), source(SMALL if operation == 'PutObject' else LARGE), TARGET)
    assert nothing_stored(s3)


@pytest.mark.parametrize('operation', ['PutObject', 'CompleteMultipartUpload'])
def test_a_200_that_says_nothing_is_an_upload_where_the_object_is_there(connection, s3, source, operation):
    content = SMALL if operation == 'PutObject' else LARGE
    s3.fail(operation, Lost(EMPTY))
    assert transfer.upload(connection(), source(content), TARGET) == len(content)
    assert s3.content(BUCKET, TARGET.key) == content


def test_an_etag_that_is_empty_says_enough_beside_the_key(connection, s3, source):
    """Ceph 16 sends an empty one with the key, the bucket and the location."""
    said = b'<CompleteMultipartUploadResult><Key>dir/f</Key><ETag></ETag></CompleteMultipartUploadResult>'
    s3.fail('CompleteMultipartUpload', Lost(Answer(200, said)))
    transfer.upload(connection(), source(LARGE), TARGET)
    assert 'HeadObject' not in s3.operations()


@pytest.mark.parametrize('said', [EMPTY, PAGE, Answer(200, b'<CopyObjectResult/>')], ids=['empty', 'HTML', 'no field'])
def test_a_200_that_says_nothing_is_no_copy(connection, s3, said):
    s3.store(BUCKET, TARGET.key, SMALL)
    s3.fail('CopyObject', said)
    with pytest.raises(RSEOperationNotSupported, match='did not confirm that it copied'):
        transfer.copy(connection(), TARGET, OTHER)
    assert OTHER.key not in s3.buckets[BUCKET]


@pytest.mark.parametrize('said', [EMPTY, Answer(200, b'<CopyPartResult/>')], ids=['empty', 'no field'])
def test_a_200_that_says_nothing_is_no_copy_of_a_part(connection, s3, monkeypatch, said):
    monkeypatch.setattr(transfer, 'COPY_THRESHOLD', 5 * MiB)
    s3.store(BUCKET, TARGET.key, LARGE)
    s3.fail('UploadPartCopy', *[said] * 3)
    with pytest.raises(RSEOperationNotSupported, match=r'no CopyPartResult\.ETag'):
        transfer.copy(connection(), TARGET, OTHER)
    assert list(s3.buckets[BUCKET]) == [TARGET.key]
    assert not s3.uploads


# Time-outs and Ctrl-C


@pytest.mark.parametrize(
    ('content', 'operation'), [(SMALL, 'PutObject'), (LARGE, 'CreateMultipartUpload'), (LARGE, 'UploadPart'), (LARGE, 'CompleteMultipartUpload')]
)
@pytest.mark.usefixtures('short_grace')
def test_a_timeout_bounds_an_upload_to_a_storage_that_hangs(connection, s3, source, content, operation):
    s3.fail(operation, Stalled())
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable, match=r'not finished after 0\.5 s.*transfer_timeout'):
        transfer.upload(connection(), source(content), TARGET, timeout=0.5)
    assert time.monotonic() - began < 30  # not a read_timeout
    wait_for_cleanup(s3)
    assert nothing_stored(s3)


@pytest.mark.parametrize('operation', ['HeadObject', 'CopyObject'])
@pytest.mark.usefixtures('short_grace')
def test_a_timeout_bounds_a_copy_in_a_storage_that_hangs(connection, s3, operation):
    s3.store(BUCKET, TARGET.key, SMALL)
    s3.fail(operation, Stalled())
    with pytest.raises(ServiceUnavailable, match=r'RSE X: copy of .*not finished after 0\.1 s'):
        transfer.copy(connection(), TARGET, OTHER, timeout=0.1)
    wait_for_cleanup(s3)
    assert list(s3.buckets[BUCKET]) == [TARGET.key]


@pytest.mark.usefixtures('short_grace')
def test_an_upload_that_was_stopped_makes_no_further_attempt(connection, s3, source):
    s3.fail('PutObject', *[Stalled()] * 9)
    with pytest.raises(ServiceUnavailable, match='not finished'):
        transfer.upload(connection(max_attempts=5), source(SMALL), TARGET, timeout=1)
    wait_for_cleanup(s3)
    assert s3.operations() == ['PutObject']


class After:
    """An event that is set after so many looks at it."""

    def __init__(self, looks):
        self.looks = looks

    def wait(self, seconds):
        assert seconds <= interrupts.TICK
        self.looks -= 1
        return self.is_set()

    def is_set(self):
        return self.looks <= 0


def test_how_long_is_waited():
    """Until it is done, until it is late, or until somebody stops it."""
    stop = threading.Event()
    for deadline in (transfer._Deadline(None), transfer._Deadline(None, stop), transfer._Deadline(60, stop)):
        deadline.wait(After(5))
    with pytest.raises(transfer.TransferTimeout, match='1e-09'):
        transfer._Deadline(1e-9, stop).wait(After(5))
    stop.set()
    with pytest.raises(transfer.CancelledError):
        transfer._Deadline(None, stop).wait(done := After(5))
    assert done.looks == 4


def test_a_transfer_that_is_fast_enough_meets_no_timeout(connection, s3, source, dest):
    transfer.upload(connection(), source(LARGE), TARGET, timeout=60)
    transfer.download(connection(), TARGET, str(dest), timeout=60)
    assert dest.read_bytes() == LARGE


def interrupting(signum, exception):
    """A meter that sends a signal at the first progress, and holds the transfer until the main thread has heard of it."""
    heard, once = threading.Event(), threading.Lock()

    def handler(*_):
        heard.set()
        raise exception

    def step(_):
        if once.acquire(blocking=False):
            signal.pthread_kill(threading.main_thread().ident, signum)
            heard.wait(30)

    @contextmanager
    def meter(name, size):
        before = signal.signal(signum, handler)
        try:
            yield step
        finally:
            signal.signal(signum, before)

    return meter


# Ctrl-C, and how daemons and batch systems end a process.
@pytest.mark.parametrize(('signum', 'exception'), [(signal.SIGINT, KeyboardInterrupt()), (signal.SIGTERM, SystemExit(143))], ids=['Ctrl-C', 'exit'])
@pytest.mark.usefixtures('short_grace')
def test_a_signal_leaves_nothing_of_an_upload(connection, s3, source, signum, exception):
    s3.fail('CompleteMultipartUpload', Stalled())  # the upload cannot win the race
    with pytest.raises(type(exception)):
        transfer.upload(connection(), source(LARGE), TARGET, meter=interrupting(signum, exception))
    wait_for_cleanup(s3)
    assert nothing_stored(s3)


@pytest.mark.usefixtures('short_grace')
def test_a_signal_handler_that_fails_is_an_interrupt(connection, s3, source):
    """That of Rucio's command line does, and its uploader repeats what an Exception ends."""
    s3.fail('CompleteMultipartUpload', Stalled())
    with pytest.raises(KeyboardInterrupt):
        transfer.upload(connection(), source(LARGE), TARGET, meter=interrupting(signal.SIGINT, TypeError('a bytes-like object is required')))
    wait_for_cleanup(s3)
    assert nothing_stored(s3)


@pytest.mark.usefixtures('short_grace')
def test_a_second_ctrl_c_does_not_end_the_clean_up(connection, s3, source, monkeypatch):
    """Rucio's uploader would take the error of its handler for a failed try, and send the file again."""
    shutdown = TransferManager.shutdown

    def press_again(manager):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        shutdown(manager)

    monkeypatch.setattr(TransferManager, 'shutdown', press_again)
    s3.fail('CompleteMultipartUpload', Stalled())
    with pytest.raises(KeyboardInterrupt):
        transfer.upload(connection(), source(LARGE), TARGET, meter=interrupting(signal.SIGINT, TypeError('a bytes-like object is required')))
    wait_for_cleanup(s3)
    assert nothing_stored(s3)


@pytest.mark.parametrize(('signum', 'exception'), [(signal.SIGINT, KeyboardInterrupt()), (signal.SIGTERM, SystemExit(143))], ids=['Ctrl-C', 'exit'])
def test_a_signal_leaves_nothing_of_a_download(connection, s3, dest, signum, exception):
    s3.store(BUCKET, TARGET.key, LARGE)
    dest.write_bytes(b'old')
    with pytest.raises(type(exception)):
        transfer.download(connection(), TARGET, str(dest), meter=interrupting(signum, exception))
    assert dest.read_bytes() == b'old'
    assert os.listdir(dest.parent) == ['f']


# Signed URLs


@pytest.mark.parametrize('content', [b'', SMALL, LARGE], ids=len)
def test_with_a_signed_url_a_file_of_any_size_is_one_request(signed, s3, source, content):
    transfer.upload(signed('write'), source(content), TARGET)
    assert s3.content(BUCKET, TARGET.key) == content
    assert s3.operations() == ['PutObject']


def test_more_than_5_gib_with_a_signed_url_fail_before_the_first_byte_and_say_what_to_do(signed, s3, source):
    path = source(b'')
    os.truncate(path, 5 * 1024**3 + 1)
    with pytest.raises(RSEOperationNotSupported, match=r'RSE X.*5 GiB.*\[s3:X\]'):
        transfer.upload(signed('write'), path, TARGET)
    assert not s3.requests


def test_one_put_is_limited_with_a_signed_url_only(connection, signed, s3, source, monkeypatch):
    monkeypatch.setattr(transfer, 'SINGLE_PUT_LIMIT', len(SMALL))
    transfer.upload(signed('write'), source(SMALL), TARGET)
    with pytest.raises(RSEOperationNotSupported):
        transfer.upload(signed('write'), source(SMALL + b'x'), TARGET)
    other = Target('X', BUCKET, 'with-keys')
    transfer.upload(connection(), source(SMALL + b'x'), other)
    assert s3.content(BUCKET, other.key) == SMALL + b'x'


def test_a_lost_answer_of_a_signed_url_is_no_success(signed, s3, source):
    """It cannot be used to look."""
    s3.fail('PutObject', *[Lost(None)] * 9)
    with pytest.raises(RucioException):
        transfer.upload(signed('write'), source(SMALL), TARGET)
    assert set(s3.operations()) == {'PutObject'}


@pytest.mark.parametrize('content', [b'', SMALL, LARGE], ids=len)
def test_a_download_by_a_signed_url(signed, s3, dest, content):
    s3.store(BUCKET, TARGET.key, content)
    assert transfer.download(signed('read'), TARGET, str(dest)) == len(content)
    assert dest.read_bytes() == content


# Download


@pytest.mark.parametrize('content', [b'', b'x', SMALL, b'x' * 5 * MiB, LARGE], ids=len)
def test_what_was_stored_comes_back(connection, s3, dest, content):
    s3.store(BUCKET, TARGET.key, content)
    assert transfer.download(connection(), TARGET, str(dest)) == len(content)
    assert dest.read_bytes() == content
    assert os.listdir(dest.parent) == ['f']


@pytest.mark.parametrize(('content', 'heads', 'gets'), [(b'', 1, 1), (SMALL, 0, 1), (LARGE, 1, 3)], ids=['empty', 'one GET', 'ranges'])
def test_a_small_download_costs_one_request_and_others_a_head(connection, s3, dest, content, heads, gets):
    s3.store(BUCKET, TARGET.key, content)
    transfer.download(connection(), TARGET, str(dest))
    assert s3.operations() == ['GetObject', *['HeadObject'] * heads, *['GetObject'] * (gets - 1)]


MD5_OF_SMALL = hashlib.md5(SMALL).hexdigest()


@pytest.mark.parametrize(
    ('content', 'changes', 'expected', 'asked'),
    [
        (SMALL, {}, None, False),
        (SMALL, {}, Checksums(None, None, len(SMALL)), False),
        (SMALL, {'etag': f'{"1" * 32}-2'}, None, True),  # nothing to verify it by
        (SMALL, {'etag': f'{"1" * 32}-2'}, Checksums(None, None, len(SMALL)), True),
        (SMALL, {'etag': f'{"1" * 32}-2'}, Checksums(MD5_OF_SMALL, None, len(SMALL)), False),
        (SMALL, {'etag': f'{"1" * 32}-2'}, Checksums(None, f'{zlib.adler32(SMALL):08x}', None), False),
        (b'', {}, Checksums(hashlib.md5(b'').hexdigest(), None, 0), True),
        (b'x' * (5 * MiB - 1), {}, None, False),
        (b'x' * (5 * MiB + 1), {}, None, True),
        (b'x' * (5 * MiB + 1), {}, Checksums(hashlib.md5(b'x' * (5 * MiB + 1)).hexdigest(), None, None), False),
    ],
    ids=str,
)
def test_checksums_are_asked_for_where_nothing_else_verifies_the_content(connection, s3, dest, content, changes, expected, asked):
    s3.store(BUCKET, TARGET.key, content, **changes)
    assert transfer.download(connection(), TARGET, str(dest), expected=expected) == len(content)
    assert dest.read_bytes() == content
    assert ('HeadObject' in s3.operations()) is asked


@pytest.mark.parametrize('crc32', [None, ''], ids=['CRC-32', 'none'])
def test_only_botocore_verifies_an_object_that_has_no_md5_and_no_crc32(connection, s3, dest, crc32):
    """It may have another checksum, which comes with the whole object."""
    s3.store(BUCKET, TARGET.key, SMALL, etag=f'{"1" * 32}-2', **({} if crc32 is None else {'crc32': crc32}))
    transfer.download(connection(), TARGET, str(dest))
    gets = [request.headers.get('range') for request in s3.requests if request.operation == 'GetObject']
    assert gets == ([f'bytes=0-{5 * MiB - 1}'] if crc32 is None else [f'bytes=0-{5 * MiB - 1}', None])


def test_what_is_replaced_between_the_first_answer_and_the_head_is_not_mixed(connection, s3, dest):
    s3.store(BUCKET, TARGET.key, LARGE)
    s3.fail('GetObject', Answer(206, LARGE[: 5 * MiB][::-1], (('ETag', '"other"'), ('Content-Range', f'bytes 0-{5 * MiB - 1}/{len(LARGE)}'))))
    transfer.download(connection(), TARGET, str(dest))
    assert dest.read_bytes() == LARGE


def test_ranges_that_are_not_as_long_as_the_first_answer_do_without_it(connection, s3, dest):
    s3.store(BUCKET, TARGET.key, LARGE)
    transfer.download(connection(multipart_chunksize=6 * MiB), TARGET, str(dest))
    assert dest.read_bytes() == LARGE


@pytest.mark.parametrize(
    ('expected', 'words'),
    [
        (Checksums(MD5_OF_SMALL, None, 7), f'it has {len(SMALL)} bytes, but the catalogue says 7'),
        (Checksums('0' * 32, None, None), f'its MD5 is {MD5_OF_SMALL}, but the catalogue says {"0" * 32}'),
        (Checksums(None, '00000000', len(SMALL)), f'its Adler-32 is {zlib.adler32(SMALL):08x}, but the catalogue says 00000000'),
        (Checksums(MD5_OF_SMALL, '00000000', len(SMALL)), 'its Adler-32 is'),
    ],
    ids=str,
)
def test_another_content_than_the_catalogue_knows_is_not_taken(connection, s3, dest, expected, words):
    s3.store(BUCKET, TARGET.key, SMALL)
    dest.write_bytes(b'old')
    begun = []
    with pytest.raises(FileConsistencyMismatch, match=words):
        transfer.download(connection(), TARGET, str(dest), expected=expected, meter=lambda *_: nullcontext(begun.append))
    assert dest.read_bytes() == b'old'
    assert bool(begun) is (expected.size in (None, len(SMALL)))  # before its bytes fill the disk


@pytest.mark.parametrize(('size', 'gets'), [(10 * MiB - 1, 1), (10 * MiB, 3)])  # the first answer is longer than a range
def test_ranges_begin_with_the_threshold(connection, s3, dest, size, gets):
    s3.store(BUCKET, TARGET.key, bytes(size))
    transfer.download(connection(multipart_threshold=10 * MiB), TARGET, str(dest))
    assert s3.operations().count('GetObject') == gets


def test_the_parents_of_the_file_are_made(connection, s3, tmp_path):
    s3.store(BUCKET, TARGET.key, SMALL)
    transfer.download(connection(), TARGET, str(tmp_path / 'a' / 'b' / 'f'))
    assert (tmp_path / 'a' / 'b' / 'f').read_bytes() == SMALL


def test_a_relative_path_is_one_of_the_working_directory(connection, s3, tmp_path, monkeypatch):
    s3.store(BUCKET, TARGET.key, SMALL)
    monkeypatch.chdir(tmp_path)
    transfer.download(connection(), TARGET, 'f')
    assert (tmp_path / 'f').read_bytes() == SMALL


def test_a_name_of_full_length_is_taken(connection, s3, tmp_path):
    s3.store(BUCKET, TARGET.key, SMALL)
    transfer.download(connection(), TARGET, str(tmp_path / ('n' * 255)))
    assert (tmp_path / ('n' * 255)).read_bytes() == SMALL


def test_a_new_file_has_the_permissions_that_the_user_wants(connection, s3, dest):
    s3.store(BUCKET, TARGET.key, SMALL)
    mask = os.umask(0o027)
    try:
        transfer.download(connection(), TARGET, str(dest))
    finally:
        os.umask(mask)
    assert dest.stat().st_mode & 0o777 == 0o640


def test_a_file_that_was_there_is_replaced(connection, s3, dest):
    s3.store(BUCKET, TARGET.key, SMALL)
    dest.write_bytes(b'old and longer than what comes now')
    transfer.download(connection(), TARGET, str(dest))
    assert dest.read_bytes() == SMALL


def make_pipe(path):
    os.mkfifo(path)


def make_broken_link(path):
    path.symlink_to('nowhere')


@pytest.mark.parametrize('make', [os.mkdir, make_pipe, make_broken_link])
def test_a_destination_that_is_no_regular_file_is_refused_before_any_request(connection, s3, dest, make):
    make(dest)
    with pytest.raises(DestinationNotAccessible, match='not a regular file'):
        transfer.download(connection(), TARGET, str(dest))
    assert not s3.requests


def test_a_parent_that_is_a_file_is_named(connection, s3, dest):
    s3.store(BUCKET, TARGET.key, SMALL)
    dest.write_bytes(b'')
    with pytest.raises(DestinationNotAccessible, match='cannot be written'):
        transfer.download(connection(), TARGET, str(dest / 'f'))


def test_a_missing_object_is_told_and_makes_no_directory(connection, tmp_path):
    with pytest.raises(SourceNotFound, match=r"RSE X: get of bucket 'user\.alice', key 'dir/f'"):
        transfer.download(connection(), TARGET, str(tmp_path / 'a' / 'f'))
    assert not (tmp_path / 'a').exists()


# Downloads that fail on their way


def swapping(s3, content):
    """A meter that replaces the object after it was looked at."""

    @contextmanager
    def meter(name, size):
        s3.store(BUCKET, TARGET.key, content)
        yield

    return meter


@pytest.mark.parametrize(
    ('content', 'faults', 'expected'),
    [
        (SMALL, [Flipped()], FileConsistencyMismatch),
        (LARGE, [Flipped()], FileConsistencyMismatch),
        (SMALL, [Cut()] * 9, ServiceUnavailable),
        (LARGE, [Cut()] * 30, ServiceUnavailable),
        (SMALL, [Longer()], FileConsistencyMismatch),
        (LARGE, [Longer()] * 3, FileConsistencyMismatch),
        (LARGE, [None, NoRanges()], RSEOperationNotSupported),
        (LARGE, [NoRanges()] * 3, RSEOperationNotSupported),
        (SMALL, [error(500, 'InternalError')], ServiceUnavailable),
        (LARGE, [error(403, 'AccessDenied')], RSEAccessDenied),
        (SMALL, [error(404, 'NoSuchKey')], SourceNotFound),
    ],
    ids=['damaged', 'damaged range', 'cut', 'cut range', 'longer', 'longer range', 'one without range', 'no ranges', '500', '403', 'gone meanwhile'],
)
def test_the_old_file_stays_when_a_download_fails(connection, s3, dest, content, faults, expected):
    s3.store(BUCKET, TARGET.key, content)
    s3.fail('GetObject', *faults)
    dest.write_bytes(b'old')
    with pytest.raises(expected, match=r"RSE X: get of bucket 'user\.alice', key 'dir/f'"):
        transfer.download(connection(), TARGET, str(dest))
    assert dest.read_bytes() == b'old'
    assert os.listdir(dest.parent) == ['f']


@pytest.mark.parametrize('content', [SMALL, LARGE], ids=['one GET', 'ranges'])
def test_an_object_that_is_damaged_in_the_storage_is_not_taken_for_good(connection, s3, dest, content):
    s3.store(BUCKET, TARGET.key, content, crc32='AAAAAA==', etag='0' * 32)
    with pytest.raises(FileConsistencyMismatch, match='another replica'):
        transfer.download(connection(), TARGET, str(dest))
    assert not os.listdir(dest.parent)


@pytest.mark.parametrize('content', [SMALL, LARGE], ids=['one GET', 'ranges'])
def test_a_connection_that_breaks_once_is_made_again(connection, s3, dest, content):
    s3.store(BUCKET, TARGET.key, content)
    s3.fail('GetObject', Cut())
    transfer.download(connection(), TARGET, str(dest))
    assert dest.read_bytes() == content


@pytest.mark.parametrize(('content', 'gets'), [(SMALL, 3), (LARGE, 5)], ids=['one GET', 'ranges'])
def test_a_body_that_breaks_off_twice_comes_the_third_time(connection, s3, dest, content, gets):
    steps = []

    @contextmanager
    def meter(name, size):
        yield steps.append

    s3.store(BUCKET, TARGET.key, content)
    s3.fail('GetObject', Cut(), Cut())
    transfer.download(connection(max_concurrency=1), TARGET, str(dest), meter=meter)
    assert dest.read_bytes() == content
    assert sum(steps) == len(content)
    assert s3.operations().count('GetObject') == gets


def test_a_range_goes_on_from_where_its_body_broke_off(connection, s3, dest):
    s3.store(BUCKET, TARGET.key, LARGE)
    s3.fail('GetObject', Cut())
    transfer.download(connection(max_concurrency=1), TARGET, str(dest))
    assert dest.read_bytes() == LARGE
    asked = [request.headers['range'] for request in s3.requests if request.operation == 'GetObject']
    assert asked[:2] == [f'bytes=0-{5 * MiB - 1}', f'bytes={5 * MiB // 2}-{5 * MiB - 1}']


def test_one_body_is_begun_anew_as_botocore_verifies_only_a_whole_one(connection, s3, dest):
    s3.store(BUCKET, TARGET.key, SMALL)
    s3.fail('GetObject', Cut(), Flipped())
    with pytest.raises(FileConsistencyMismatch):
        transfer.download(connection(checksum='md5'), TARGET, str(dest))
    assert ['range' in request.headers for request in s3.requests] == [True, False]


def test_the_first_failure_ends_a_download_also_where_another_range_hangs(connection, s3, dest, short_grace):
    s3.store(BUCKET, TARGET.key, LARGE)
    s3.fail('GetObject', None, Stalled(), error(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied):
        transfer.download(connection(max_concurrency=3), TARGET, str(dest))
    wait_for_cleanup(s3)
    assert not os.listdir(dest.parent)


def test_a_disk_that_is_full_is_told(connection, s3, dest, monkeypatch):
    """The file that is written to is /dev/full; what is looked after is the usual one."""
    s3.store(BUCKET, TARGET.key, LARGE)
    monkeypatch.setattr(ranges, 'open', lambda _, *mode, **options: open('/dev/full', *mode, **options), raising=False)  # noqa: SIM115 - closed by who asked
    with pytest.raises(DestinationNotAccessible, match=r'No space left.*free space'):
        transfer.download(connection(), TARGET, str(dest))
    assert not os.listdir(dest.parent)


def test_an_object_of_more_ranges_than_threads_is_whole(connection, s3, dest):
    content = os.urandom(31 * MiB + 7)
    s3.store(BUCKET, TARGET.key, content)
    transfer.download(connection(max_concurrency=3), TARGET, str(dest))
    assert dest.read_bytes() == content


@pytest.mark.parametrize('content', [SMALL, LARGE], ids=['one GET', 'ranges'])
def test_an_object_that_is_replaced_while_it_is_read_is_never_mixed(connection, s3, dest, content):
    s3.store(BUCKET, TARGET.key, content)
    if content == SMALL:  # it came in one answer
        transfer.download(connection(), TARGET, str(dest), meter=swapping(s3, content[::-1]))
        assert dest.read_bytes() == content
        return
    with pytest.raises(ServiceUnavailable, match='object was changed'):
        transfer.download(connection(), TARGET, str(dest), meter=swapping(s3, content[::-1]))
    assert not os.listdir(dest.parent)


@pytest.mark.parametrize(('content', 'operation'), [(LARGE, 'HeadObject'), (SMALL, 'GetObject'), (LARGE, 'GetObject')])
@pytest.mark.usefixtures('short_grace')
def test_a_timeout_bounds_a_download_from_a_storage_that_hangs(connection, s3, dest, content, operation):
    s3.store(BUCKET, TARGET.key, content)
    s3.fail(operation, *[Stalled()] * 3)
    dest.write_bytes(b'old')
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable, match=r'RSE X: get of .*not finished after 0\.5 s'):
        transfer.download(connection(), TARGET, str(dest), timeout=0.5)
    assert time.monotonic() - began < 30  # not a read_timeout
    wait_for_cleanup(s3)
    assert dest.read_bytes() == b'old'
    assert os.listdir(dest.parent) == ['f']


@pytest.mark.parametrize('content', [SMALL, LARGE], ids=['one GET', 'ranges'])
@pytest.mark.usefixtures('short_grace')
def test_a_download_that_was_stopped_makes_no_further_attempt(connection, s3, dest, content):
    s3.store(BUCKET, TARGET.key, content)
    s3.fail('GetObject', *[Stalled()] * 50)
    with pytest.raises(ServiceUnavailable, match='not finished'):
        transfer.download(connection(max_attempts=5, read_timeout=1), TARGET, str(dest), timeout=0.5)
    wait_for_cleanup(s3)
    # Each range was asked for once at most: those that had not begun before the time was up are not asked for.
    assert s3.operations().count('GetObject') <= -(-len(content) // (5 * MiB))


def test_an_interrupted_download_is_continued_on_request(connection, s3, dest):
    s3.store(BUCKET, TARGET.key, LARGE)
    made = connection(max_concurrency=1)
    for resume, left, ranges_before in ((False, 0, 1), (True, 1, 1), (True, 1, 2)):
        s3.fail('GetObject', *[None] * ranges_before, error(403, 'AccessDenied'))
        with pytest.raises(RSEAccessDenied):
            transfer.download(made, TARGET, str(dest), resume=resume)
        assert len(os.listdir(dest.parent)) == left
    s3.requests.clear()
    assert transfer.download(made, TARGET, str(dest), resume=True) == len(LARGE)
    assert [each.headers.get('range') for each in s3.requests[2:]] == [f'bytes={10 * MiB}-{10 * MiB + 2}']
    assert os.listdir(dest.parent) == ['f']
    assert dest.read_bytes() == LARGE


def test_what_is_not_the_expected_content_is_not_continued(connection, s3, dest):
    s3.store(BUCKET, TARGET.key, LARGE)
    with pytest.raises(FileConsistencyMismatch):
        transfer.download(connection(), TARGET, str(dest), resume=True, expected=Checksums(md5='0' * 32, size=len(LARGE)))
    assert os.listdir(dest.parent) == []


def test_a_folder_is_no_object(connection, s3, source):
    with pytest.raises(RSEFileNameNotSupported, match="a key that ends in '/' is a folder"):
        transfer.upload(connection(), source(SMALL), TARGET._replace(key='dir/'))
    assert s3.requests == []


def test_a_file_that_is_read_twice_is_compared_each_time(tmp_path):
    path = tmp_path / 'f'
    path.write_bytes(SMALL)
    hasher = Hasher(Checksums(md5=hashlib.md5(SMALL).hexdigest(), size=len(SMALL)))
    with path.open('rb') as file:
        body = transfer._Seekable(file, len(SMALL), threading.Event(), hasher)
        assert body.read() == SMALL
        body.seek(0)
        path.write_bytes(SMALL[::-1])
        with pytest.raises(FileConsistencyMismatch):
            body.read()


def test_a_small_object_is_not_continued(connection, s3, dest, monkeypatch):
    """Its file is then removed also when Python ends before its thread."""
    keeps = []

    def partial_file(folder, name, keep):
        keeps.append(keep)
        return partial_files.partial_file(folder, name, keep)

    monkeypatch.setattr(transfer, 'partial_file', partial_file)
    s3.store(BUCKET, TARGET.key, SMALL)
    s3.fail('GetObject', Cut(), error(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied):
        transfer.download(connection(), TARGET, str(dest), resume=True)
    assert (os.listdir(dest.parent), keeps) == ([], [None])


def half_of_another_version(connection, s3, dest):
    """A download of twice the bytes was interrupted, and has kept them."""
    s3.store(BUCKET, TARGET.key, LARGE * 2)
    s3.fail('GetObject', None, error(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied):
        transfer.download(connection(max_concurrency=1), TARGET, str(dest), resume=True)
    assert len(os.listdir(dest.parent)) == 1


def test_a_large_object_in_one_range_replaces_what_was_kept(connection, s3, dest):
    """Seen: the bytes of the other version followed it."""
    half_of_another_version(connection, s3, dest)
    s3.store(BUCKET, TARGET.key, LARGE)
    transfer.download(connection(multipart_chunksize=64 * MiB), TARGET, str(dest), resume=True)
    assert dest.read_bytes() == LARGE
    assert os.listdir(dest.parent) == ['f']


def test_an_empty_object_replaces_what_was_kept(connection, s3, dest):
    half_of_another_version(connection, s3, dest)
    s3.store(BUCKET, TARGET.key, b'')
    transfer.download(connection(), TARGET, str(dest), resume=True)
    assert dest.read_bytes() == b''
    assert os.listdir(dest.parent) == ['f']


def test_with_a_weak_etag_nothing_is_continued(connection, s3, dest, monkeypatch):
    """It does not tell versions apart."""
    half_of_another_version(connection, s3, dest)
    s3.store(BUCKET, TARGET.key, LARGE)
    weak(s3, monkeypatch)
    s3.fail('GetObject', None, error(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied):
        transfer.download(connection(max_concurrency=1), TARGET, str(dest), resume=True)
    assert os.listdir(dest.parent) == []
    transfer.download(connection(), TARGET, str(dest), resume=True)
    assert dest.read_bytes() == LARGE


@pytest.mark.parametrize('checksum', ['md5', 'none'])
def test_a_checksum_of_the_whole_is_asked_for_with_crc32_only(connection, s3, source, checksum):
    transfer.upload(connection(checksum=checksum), source(LARGE), TARGET)
    assert 'x-amz-checksum-type' not in s3.requests[0].headers


# Progress


@pytest.mark.parametrize('content', [SMALL, LARGE], ids=['one request', 'parts'])
def test_progress_adds_up_to_the_size_both_ways(connection, s3, source, dest, content):
    seen = []

    @contextmanager
    def meter(name, size):
        steps = []
        seen.append((name, size, steps))
        yield steps.append

    transfer.upload(connection(), source(content), TARGET, meter=meter)
    transfer.download(connection(), TARGET, str(dest), meter=meter)
    assert [(name, size, sum(steps)) for name, size, steps in seen] == [('source', len(content), len(content)), ('f', len(content), len(content))]


def test_a_meter_that_shows_nothing_is_fine(connection, s3, source, dest):
    @contextmanager
    def meter(name, size):
        yield None

    transfer.upload(connection(), source(LARGE), TARGET, meter=meter)
    transfer.download(connection(), TARGET, str(dest), meter=meter)
    assert dest.read_bytes() == LARGE


# Copy

OTHER = TARGET._replace(key='other dir/ä+f')


@pytest.mark.parametrize('source_key', ['a', 'a b+%/ä'])
def test_a_copy_has_the_same_content_and_no_byte_comes_here(connection, s3, source_key):
    s3.store(BUCKET, source_key, SMALL)
    transfer.copy(connection(), TARGET._replace(key=source_key), OTHER)
    assert s3.content(BUCKET, OTHER.key) == s3.content(BUCKET, source_key) == SMALL
    assert 'GetObject' not in s3.operations()


def test_a_copy_never_overwrites(connection, s3):
    s3.store(BUCKET, TARGET.key, SMALL)
    s3.store(BUCKET, OTHER.key, b'first')
    with pytest.raises(FileReplicaAlreadyExists, match=r"RSE X: copy of bucket 'user\.alice', key 'other dir"):
        transfer.copy(connection(), TARGET, OTHER)
    assert s3.content(BUCKET, OTHER.key) == b'first'


def test_a_copy_of_what_is_missing_is_told(connection):
    for act in (transfer.copy, transfer.move):
        with pytest.raises(SourceNotFound, match=r"RSE X: copy of bucket 'user\.alice', key 'dir/f'"):
            act(connection(), TARGET, OTHER)


@pytest.mark.parametrize(
    ('answer', 'raised', 'words'),
    [
        (error(400, 'InvalidRequest'), RSEOperationNotSupported, 'InvalidRequest.* It may not support CopyObject or UploadPartCopy'),
        (error(405, 'MethodNotAllowed'), RSEOperationNotSupported, 'MethodNotAllowed'),
        (error(400, 'ExpiredToken'), RSEAccessDenied, 'ExpiredToken'),
        (error(403, 'AccessDenied'), RSEAccessDenied, 'AccessDenied'),
        (error(500, 'InternalError'), ServiceUnavailable, 'InternalError'),
        (error(412, 'PreconditionFailed'), RSEOperationNotSupported, r"compares If-None-Match with the source\. Leave 'copy' out"),
        (Answer(304), RSEOperationNotSupported, r"compares If-None-Match with the source\. Leave 'copy' out"),
    ],
)
def test_a_storage_that_cannot_copy_is_told_from_one_that_refuses(connection, s3, answer, raised, words):
    s3.store(BUCKET, TARGET.key, SMALL)
    s3.fail('CopyObject', answer)
    with pytest.raises(raised, match=words) as told:
        transfer.copy(connection(), TARGET, OTHER)
    assert type(told.value) is raised


def test_a_copy_without_the_header_is_not_told_to_leave_it_out(connection, s3):
    s3.store(BUCKET, TARGET.key, SMALL)
    s3.fail('CopyObject', error(412, 'PreconditionFailed'))
    with pytest.raises(RSEOperationNotSupported, match=r'compares If-None-Match with the source\.$'):
        transfer.copy(connection(if_none_match=('put',)), TARGET, OTHER)


@pytest.mark.parametrize('head', [None, error(403, 'AccessDenied')], ids=['the source changed', 'nothing is said'])
def test_a_copy_that_is_refused_as_the_source_changed_is_none_that_cannot_be_made(connection, s3, head):
    made = connection()
    s3.store(BUCKET, TARGET.key, SMALL)
    info = transfer.objects.stat(made, TARGET)
    if head is None:
        s3.store(BUCKET, TARGET.key, b'another')
    else:
        s3.fail('CopyObject', error(412, 'PreconditionFailed'))
        s3.fail('HeadObject', *[head] * 2)
        s3.fail('GetObject', *[head] * 2)
    with pytest.raises(RucioException) as told:
        transfer.copy(made, TARGET, OTHER, info=info)
    assert not isinstance(told.value, RSEOperationNotSupported)
    assert OTHER.key not in s3.buckets[BUCKET]


# Rename


@pytest.mark.parametrize('content', [SMALL, LARGE], ids=['one PUT', 'multipart'])
@pytest.mark.parametrize('can_copy', [True, False])
def test_an_object_is_renamed(connection, s3, content, can_copy, monkeypatch):
    closed, close = [], transfer.Verified.close
    monkeypatch.setattr(transfer.Verified, 'close', lambda self: closed.append(self) or close(self))
    s3.store(BUCKET, TARGET.key, content)
    if not can_copy:
        s3.fail('CopyObject', *[error(501, 'NotImplemented')] * 2)  # without If-None-Match, too
    transfer.move(connection(), TARGET, OTHER)
    assert {key: each.body for key, each in s3.buckets[BUCKET].items()} == {OTHER.key: content}
    assert ('GetObject' in s3.operations()) is not can_copy
    assert bool(closed) is not can_copy


@pytest.mark.parametrize('can_copy', [True, False])
def test_what_cannot_be_renamed_stays_as_it_is(connection, s3, can_copy):
    s3.store(BUCKET, TARGET.key, SMALL)
    s3.store(BUCKET, OTHER.key, b'first')
    if not can_copy:
        s3.fail('CopyObject', *[error(501, 'NotImplemented')] * 2)  # without If-None-Match, too
    with pytest.raises(FileReplicaAlreadyExists):
        transfer.move(connection(), TARGET, OTHER)
    assert {key: each.body for key, each in s3.buckets[BUCKET].items()} == {TARGET.key: SMALL, OTHER.key: b'first'}


def test_what_could_not_be_deleted_is_told(connection, s3):
    s3.store(BUCKET, TARGET.key, SMALL)
    s3.fail('DeleteObject', error(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied, match=r"RSE X: delete of bucket 'user\.alice', key 'dir/f'"):
        transfer.move(connection(), TARGET, OTHER)
    assert len(s3.buckets[BUCKET]) == 2


def test_what_is_not_what_was_stored_is_not_renamed(connection, s3):
    s3.store(BUCKET, TARGET.key, SMALL)
    s3.fail('CopyObject', *[error(501, 'NotImplemented')] * 2)  # without If-None-Match, too
    s3.fail('GetObject', *[Flipped()] * 3)
    with pytest.raises(FileConsistencyMismatch):
        transfer.move(connection(checksum='md5'), TARGET, OTHER)
    assert {key: each.body for key, each in s3.buckets[BUCKET].items()} == {TARGET.key: SMALL}


@pytest.mark.parametrize(('answer', 'told'), [(error(500, 'InternalError'), True), (error(403, 'AccessDenied'), True), (error(404, 'NoSuchUpload'), False)])
def test_a_multipart_upload_that_could_not_be_aborted_is_told(connection, s3, answer, told):
    left = []
    s3.fail('UploadPart', *[error(403, 'AccessDenied')] * 3)
    s3.fail('AbortMultipartUpload', *[answer] * 3)
    with pytest.raises(RSEAccessDenied, match=r"RSE X: put of bucket 'user\.alice', key 'dir/f'"):
        transfer.upload_stream(connection(), io.BytesIO(LARGE), len(LARGE), TARGET, left_over=lambda *of: left.append(of))
    assert left == ([(BUCKET, TARGET.key, name) for name in s3.uploads] if told else [])


def weak(s3, monkeypatch):
    """A proxy in front of the storage, such as nginx that compresses, marks each ETag as a weak one; those are equal to nothing."""
    serve = s3.serve

    def served(request):
        if any(request.headers.get(name, '').startswith('W/') for name in ('if-match', 'x-amz-copy-source-if-match')):
            return error(412, 'PreconditionFailed')
        answer = serve(request)
        return answer._replace(headers=tuple((name, f'W/{value}' if name == 'ETag' else value) for name, value in answer.headers))

    monkeypatch.setattr(s3, 'serve', served)


@pytest.mark.parametrize('content', [SMALL, LARGE], ids=['one GET', 'ranges'])
def test_a_weak_etag_is_no_condition(connection, s3, dest, monkeypatch, content):
    """412, "somebody changed the object: try again", for ever."""
    s3.store(BUCKET, TARGET.key, content)
    weak(s3, monkeypatch)
    transfer.download(connection(), TARGET, str(dest))
    assert dest.read_bytes() == content
    assert all('if-match' not in each.headers for each in s3.requests)


def test_a_weak_etag_still_tells_that_an_object_was_replaced(connection, s3, dest, monkeypatch):
    s3.store(BUCKET, TARGET.key, LARGE, crc32='')
    weak(s3, monkeypatch)
    answer = Answer(206, LARGE[5 * MiB : 10 * MiB], (('ETag', 'W/"other"'), ('Content-Range', f'bytes {5 * MiB}-{10 * MiB - 1}/{len(LARGE)}')))
    s3.fail('GetObject', None, answer)
    with pytest.raises(ServiceUnavailable, match='changed while it was read'):
        transfer.download(connection(max_concurrency=1), TARGET, str(dest))


@pytest.mark.parametrize('threshold', [5 * MiB, 50 * MiB], ids=['parts', 'whole'])
def test_an_object_with_a_weak_etag_is_copied(connection, s3, monkeypatch, threshold):
    monkeypatch.setattr(transfer, 'COPY_THRESHOLD', threshold)
    s3.store(BUCKET, TARGET.key, LARGE)
    weak(s3, monkeypatch)
    s3.fail('UploadPart', *[Answer(200, b'<CopyPartResult><ETag>"e"</ETag></CopyPartResult>')])
    transfer.copy(connection(), TARGET, OTHER)
    assert all('x-amz-copy-source-if-match' not in each.headers for each in s3.requests)


def test_an_upload_is_recognised_by_a_weak_etag(connection, s3, source, monkeypatch):
    weak(s3, monkeypatch)
    s3.fail('PutObject', Lost(error(500, 'InternalError')))
    transfer.upload(connection(checksum='md5'), source(SMALL), TARGET)


@pytest.mark.parametrize('content', [b'', SMALL, LARGE], ids=['empty', 'one GET', 'ranges'])
def test_an_object_without_an_etag_or_a_date_is_downloaded(connection, s3, dest, monkeypatch, content):
    s3.store(BUCKET, TARGET.key, content)
    serve = s3.serve
    monkeypatch.setattr(
        s3,
        'serve',
        lambda request: (answer := serve(request))._replace(headers=tuple(each for each in answer.headers if each[0] not in ('ETag', 'Last-Modified'))),
    )
    transfer.download(connection(), TARGET, str(dest))
    assert dest.read_bytes() == content


@pytest.mark.parametrize('seconds', [None, 100])
def test_a_signal_that_another_thread_gets_ends_the_wait(seconds):
    """Python runs its handler in the main thread, which does not wake up for that."""

    def interrupted(*_):
        raise KeyboardInterrupt

    done, stock = threading.Event(), signal.signal(signal.SIGUSR1, interrupted)
    late = threading.Timer(120, done.set)
    late.start()
    threading.Timer(0.1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            transfer._Deadline(seconds).wait(done)
        assert not done.is_set()
    finally:
        signal.signal(signal.SIGUSR1, stock)
        late.cancel()
