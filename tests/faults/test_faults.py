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

# ruff: noqa: PLR0913, PLR0917 - fixtures are arguments
"""What the protocol class makes of a storage and a network that fail."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from conformance.rig import RSE, THRESHOLD, Backend, Rig
from faults.proxy import Exchange, FaultProxy, Stall, after, answer, break_after, break_before, corrupt_request, corrupt_response, delay, forward, truncate
from rucio.client.s3files import Download, Options
from rucio.common.exception import (
    FileConsistencyMismatch,
    FileReplicaAlreadyExists,
    ResourceTemporaryUnavailable,
    RSEAccessDenied,
    RucioException,
    ServiceUnavailable,
)
from rucio.common.s3 import transfer
from servers.files import clean_environment
from servers.process import TIMEOUT
from servers.seaweedfs import SeaweedFS

pytestmark = pytest.mark.integration

SMALL, LARGE = 1000, 2 * THRESHOLD + 1000
ATTEMPTS = 3
BOUND = 30  # seconds: far more than what must end by itself takes, also on a busy machine, less than a read_timeout


@pytest.fixture(scope='module')
def rig(tmp_path_factory):
    with SeaweedFS(tmp_path_factory.mktemp('seaweedfs')) as server:
        keys = {'access_key': server.access_key, 'secret_key': server.secret_key}
        backend = Backend('http', server.hostname, server.port, provider='seaweedfs', settings={'max_attempts': ATTEMPTS}, **keys)
        with Rig(backend, tmp_path_factory.mktemp('rucio')).installed() as rig:
            yield rig


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Retries come at once."""
    monkeypatch.setattr('botocore.retries.standard.ExponentialBackoff.delay_amount', lambda *_: 0)


@pytest.fixture
def proxy(rig):
    with FaultProxy(rig.backend.hostname, rig.backend.port) as proxy:
        yield proxy


@pytest.fixture
def rse(rig, proxy):
    """Call it for the RSE behind the proxy; arguments are settings."""
    return lambda **settings: rig.rse(host='127.0.0.1', port=proxy.port, **settings)


@pytest.fixture
def protocol(rig, rse):
    return rig.protocol('write', rse())


@pytest.fixture
def name(request):
    return f'{request.node.name}/{os.urandom(3).hex()}'


@pytest.fixture
def pfn(rig, rse, name):
    return rig.pfn(name, rse=rse())


@pytest.fixture
def local(tmp_path):
    """Call it for the path of a file of so many random bytes."""

    def make(size, name='local'):
        path = tmp_path / name
        path.write_bytes(os.urandom(size))
        return path

    return make


@pytest.fixture
def dest(tmp_path):
    return tmp_path / 'destination'


@pytest.fixture(autouse=True)
def nothing_left_behind(rig, tmp_path):
    """No failure leaves a multipart upload in the bucket, or a part of a file."""
    yield
    assert rig.uploads() == []
    assert list(tmp_path.rglob('.rucio-s3-*')) == []


both_sizes = pytest.mark.parametrize(('size', 'last_step'), [(SMALL, 'PutObject'), (LARGE, 'CompleteMultipartUpload')], ids=['single', 'multipart'])


def said(error: pytest.ExceptionInfo) -> str:
    """What Rucio shows of an error, which is short and has no traces of Python in it."""
    text = str(error.value)
    assert 'Traceback' not in text
    assert 'object at 0x' not in text
    assert len(text) < 600
    return text


# A storage that is busy or broken


@pytest.mark.parametrize(('status', 'code'), [(503, 'SlowDown'), (500, 'InternalError'), (503, '')])
@pytest.mark.parametrize('operation', ['PutObject', 'HeadObject', 'GetObject'])
def test_a_storage_that_recovers(rig, proxy, protocol, pfn, name, local, dest, operation, status, code):
    file = local(SMALL)
    proxy.on(operation, answer(status, code), times=ATTEMPTS - 1)
    protocol.put(str(file), pfn)
    assert protocol.stat(pfn)['filesize'] == SMALL
    protocol.get(pfn, str(dest))
    assert rig.stored(name) == dest.read_bytes() == file.read_bytes()
    assert proxy.operations().count(operation) == ATTEMPTS


@pytest.mark.parametrize('operation', ['CreateMultipartUpload', 'UploadPart', 'CompleteMultipartUpload'])
@pytest.mark.parametrize('fault', [answer(503, 'SlowDown'), break_before], ids=['503', 'break'])
def test_a_storage_that_recovers_within_a_multipart_upload(rig, proxy, protocol, pfn, name, local, operation, fault):
    file = local(LARGE)
    proxy.on(operation, fault)
    protocol.put(str(file), pfn)
    assert rig.stored(name) == file.read_bytes()


def test_an_error_inside_a_good_answer(rig, proxy, protocol, pfn, name, local):
    """S3 begins to answer CompleteMultipartUpload before it knows how it ends."""
    file = local(LARGE)
    proxy.on('CompleteMultipartUpload', answer(200, 'InternalError'))
    protocol.put(str(file), pfn)
    assert rig.stored(name) == file.read_bytes()


@pytest.mark.parametrize(
    ('status', 'code', 'exception'),
    [
        (503, 'SlowDown', ResourceTemporaryUnavailable),
        (500, 'InternalError', ServiceUnavailable),
        (503, '', ResourceTemporaryUnavailable),
        (502, '', ServiceUnavailable),
        (429, '', ResourceTemporaryUnavailable),
    ],
)
@pytest.mark.parametrize(('size', 'operation'), [(SMALL, 'PutObject'), (LARGE, 'UploadPart'), (LARGE, 'CompleteMultipartUpload')])
def test_a_storage_that_does_not_recover(rig, proxy, protocol, pfn, name, local, size, operation, status, code, exception):
    proxy.on(operation, answer(status, code), times=4 * ATTEMPTS)
    with pytest.raises(exception) as error:
        protocol.put(str(local(size)), pfn)
    assert all(word in said(error) for word in (RSE, rig.bucket, name, str(status)))
    assert rig.stored(name) is None


def test_a_refusal_is_not_repeated(rig, proxy, protocol, pfn, name, local, dest):
    rig.store(name)
    proxy.on('PutObject', answer(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied, match='AccessDenied'):
        protocol.put(str(local(SMALL)), f'{pfn}2')
    proxy.on('HeadObject', answer(403))
    with pytest.raises(RSEAccessDenied, match='403'):
        protocol.stat(pfn)
    proxy.on('GetObject', answer(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied, match='AccessDenied'):
        protocol.get(pfn, str(dest))
    assert proxy.operations() == ['PutObject', 'HeadObject', 'GetObject', 'GetObject']  # the first GET asks why HEAD was refused


@pytest.mark.parametrize(('status', 'code'), [(200, ''), (403, 'AccessDenied'), (412, 'PreconditionFailed')])
def test_an_answer_before_the_body_is_not_that_of_the_next_request(rig, rse, proxy, name, local, status, code):
    """A storage may answer a request that says Expect: 100-continue at once. Only that request is answered then.

    If none says so, both come through."""
    file = local(SMALL)
    protocol = rig.protocol('write', rse(read_timeout=2, max_attempts=1))
    proxy.early('PutObject', status, code)
    with contextlib.suppress(RucioException):
        protocol.put(str(local(SMALL, 'first')), rig.pfn(f'{name} first', rse=rse()))
    proxy.on('PutObject', answer(400, 'BadDigest'))
    with pytest.raises(FileConsistencyMismatch):
        protocol.put(str(file), rig.pfn(f'{name} second', rse=rse()))
    protocol.put(str(file), rig.pfn(f'{name} third', rse=rse()))
    assert rig.stored(f'{name} second') is None
    assert rig.stored(f'{name} third') == file.read_bytes()


def test_a_refused_part_ends_the_upload(rig, proxy, protocol, pfn, name, local):
    proxy.on('UploadPart', answer(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied, match='AccessDenied'):
        protocol.put(str(local(LARGE)), pfn)
    assert rig.stored(name) is None
    assert 'AbortMultipartUpload' in proxy.operations()


def test_an_abort_that_fails_at_first(rig, proxy, protocol, pfn, local):
    proxy.on('UploadPart', answer(403, 'AccessDenied'))
    proxy.on('AbortMultipartUpload', answer(503, 'SlowDown'))
    with pytest.raises(RSEAccessDenied):
        protocol.put(str(local(LARGE)), pfn)
    assert proxy.operations().count('AbortMultipartUpload') >= 2


def test_a_slow_answer_is_waited_for(rig, proxy, protocol, pfn, name, local):
    file = local(SMALL)
    proxy.on('PutObject', delay(0.3))
    protocol.put(str(file), pfn, transfer_timeout=30)
    assert rig.stored(name) == file.read_bytes()
    assert proxy.operations() == ['PutObject']


# Answers that are lost


@both_sizes
@pytest.mark.parametrize('fault', [break_before, break_after])
def test_a_lost_answer(rig, proxy, protocol, pfn, name, local, size, last_step, fault):
    file = local(size)
    proxy.on(last_step, fault)
    protocol.put(str(file), pfn)
    assert rig.stored(name) == file.read_bytes()
    assert protocol.stat(pfn)['filesize'] == size


@both_sizes
def test_all_answers_are_lost(rig, proxy, protocol, pfn, name, local, size, last_step):
    file = local(size)
    proxy.on(last_step, break_after, times=ATTEMPTS)
    protocol.put(str(file), pfn)
    assert rig.stored(name) == file.read_bytes()


@both_sizes
def test_lost_answers_and_nobody_to_ask(rig, proxy, protocol, pfn, name, local, size, last_step):
    """The put fails, although its object arrived; Rucio tries again with the same protocol object, and that succeeds."""
    file = local(size)
    proxy.on(last_step, break_after, times=ATTEMPTS)
    proxy.on('HeadObject', break_before, times=ATTEMPTS)
    with pytest.raises(ServiceUnavailable):
        protocol.put(str(file), pfn)
    protocol.put(str(file), pfn)
    assert rig.stored(name) == file.read_bytes()


@both_sizes
def test_a_lost_answer_and_the_object_of_somebody_else(rig, proxy, protocol, pfn, name, local, size, last_step):
    """Of the same size, and written in the moment between the two attempts: it is not ours, and it stays."""
    other = os.urandom(size)
    proxy.on(last_step, after(lambda: rig.store(name, other), break_before))
    with pytest.raises(FileReplicaAlreadyExists) as error:
        protocol.put(str(local(size)), pfn)
    assert name in said(error)
    assert rig.stored(name) == other


@both_sizes
def test_another_file_after_a_failed_put(rig, proxy, protocol, pfn, name, local, size, last_step):
    """What a failed put may have stored is not taken for another file's content."""
    first, second = local(size, 'first'), local(size, 'second')
    proxy.on(last_step, break_after, times=ATTEMPTS)
    proxy.on('HeadObject', break_before, times=ATTEMPTS)
    with pytest.raises(ServiceUnavailable):
        protocol.put(str(first), pfn)
    with pytest.raises(FileReplicaAlreadyExists):
        protocol.put(str(second), pfn)
    assert rig.stored(name) == first.read_bytes()


def test_a_lost_answer_of_delete(rig, proxy, protocol, pfn, name):
    rig.store(name)
    proxy.on('DeleteObject', break_after)
    protocol.delete(pfn)
    assert rig.stored(name) is None


# No answer


@both_sizes
def test_no_answer_within_the_time_that_a_transfer_has(rig, proxy, protocol, pfn, name, local, monkeypatch, size, last_step):
    monkeypatch.setattr(transfer, '_GRACE', 0.2)
    stall = proxy.on('PutObject' if size == SMALL else 'UploadPart', Stall(break_before))
    start = time.monotonic()
    with pytest.raises(ServiceUnavailable, match='transfer_timeout') as error:
        protocol.put(str(local(size)), pfn, transfer_timeout=2)
    assert 2 <= time.monotonic() - start < BOUND
    assert all(word in said(error) for word in (RSE, rig.bucket, name, '2 s'))
    stall.release()
    if size == LARGE and stall.reached.is_set():  # otherwise the time ran out before a part was sent
        proxy.wait_for('AbortMultipartUpload')
    assert rig.stored(name) is None


def test_no_answer_to_a_download(rig, proxy, protocol, pfn, name, dest, monkeypatch):
    monkeypatch.setattr(transfer, '_GRACE', 0.2)
    rig.store(name, os.urandom(SMALL))
    stall = proxy.on('GetObject', Stall())
    start = time.monotonic()
    with pytest.raises(ServiceUnavailable, match='transfer_timeout'):
        protocol.get(pfn, str(dest), transfer_timeout='0.5')
    assert time.monotonic() - start < BOUND
    assert not dest.exists()
    stall.release()
    if stall.reached.is_set():  # otherwise the time ran out before it was sent
        proxy.wait_for('GetObject')
    assert not dest.exists()


@both_sizes
def test_a_request_that_comes_through_when_nobody_waits_any_more(rig, rse, proxy, pfn, name, local, size, last_step):
    """After read_timeout the next attempt stores the object. What had got stuck then arrives, and changes nothing."""
    file = local(size)
    stall = proxy.on(last_step, Stall())
    protocol = rig.protocol('write', rse(read_timeout=3))
    protocol.put(str(file), pfn)
    stored = rig.client.head_object(Bucket=rig.bucket, Key=name)['LastModified']
    stall.release()
    proxy.wait_for(last_step, 2)
    assert rig.stored(name) == file.read_bytes()
    assert rig.client.head_object(Bucket=rig.bucket, Key=name)['LastModified'] == stored


# Damage on the way


@pytest.mark.parametrize('checksum', ['crc32', 'md5'])
@pytest.mark.parametrize(('size', 'operation'), [(SMALL, 'PutObject'), (LARGE, 'UploadPart')], ids=['single', 'multipart'])
def test_an_upload_that_is_damaged(rig, rse, proxy, pfn, name, local, size, operation, checksum):
    proxy.on(operation, corrupt_request)
    with pytest.raises(FileConsistencyMismatch) as error:
        rig.protocol('write', rse(checksum=checksum)).put(str(local(size)), pfn)
    assert name in said(error)
    assert rig.stored(name) is None


@pytest.mark.parametrize('size', [SMALL, LARGE])
def test_a_download_that_is_damaged(proxy, protocol, pfn, local, dest, size):
    file = local(size)
    protocol.put(str(file), pfn)
    dest.write_bytes(b'the older one')
    proxy.on('GetObject', corrupt_response)
    try:
        protocol.get(pfn, str(dest))
    except FileConsistencyMismatch:
        assert dest.read_bytes() == b'the older one'
        protocol.get(pfn, str(dest))
    assert dest.read_bytes() == file.read_bytes()


@pytest.mark.parametrize('size', [SMALL, LARGE])
@pytest.mark.parametrize('keep', [0, 500])
def test_a_download_that_breaks_off(proxy, protocol, pfn, local, dest, size, keep):
    file = local(size)
    protocol.put(str(file), pfn)
    proxy.on('GetObject', truncate(keep))
    protocol.get(pfn, str(dest))
    assert dest.read_bytes() == file.read_bytes()


def test_a_download_that_always_breaks_off(proxy, protocol, pfn, local, dest):
    protocol.put(str(local(SMALL)), pfn)
    proxy.on('GetObject', truncate(500), times=20)
    with pytest.raises(ServiceUnavailable) as error:
        protocol.get(pfn, str(dest))
    assert RSE in said(error)
    assert not dest.exists()


@pytest.mark.parametrize('size', [SMALL, LARGE])
def test_an_object_that_changes_while_it_is_read(rig, proxy, protocol, pfn, name, local, dest, size):
    """Never half of one and half of the other."""
    protocol.put(str(local(size)), pfn)

    def change_and_cut(exchange: Exchange) -> None:
        response = exchange.forward()
        rig.store(name, os.urandom(size))
        exchange.respond(response, len(response.body) // 2)

    if size == LARGE:  # when the first range is cut, nothing is there yet that would not fit
        proxy.on('GetObject', forward)
    proxy.on('GetObject', change_and_cut)
    with pytest.raises(RucioException, match='changed'):
        protocol.get(pfn, str(dest))
    assert not dest.exists()


@pytest.mark.parametrize('size', [SMALL, LARGE])
def test_an_object_that_changes_before_it_is_read(rig, proxy, protocol, pfn, name, local, dest, size):
    """Nothing of the old one has come: the new one is downloaded."""
    protocol.put(str(local(size)), pfn)
    other = os.urandom(size)
    proxy.on('GetObject', after(lambda: rig.store(name, other), break_before))
    protocol.get(pfn, str(dest))
    assert dest.read_bytes() == other


# A storage that is not there


def test_the_server_is_gone(rig, proxy, protocol, pfn, name, local, dest):
    proxy.stop()
    calls = {
        'put': lambda: protocol.put(str(local(SMALL)), pfn),
        'put large': lambda: protocol.put(str(local(LARGE)), pfn),
        'get': lambda: protocol.get(pfn, str(dest)),
        'stat': lambda: protocol.stat(pfn),
        'exists': lambda: protocol.exists(pfn),
        'delete': lambda: protocol.delete(pfn),
        'ls': lambda: protocol.ls(pfn),
        'rename': lambda: protocol.rename(pfn, f'{pfn}2'),
    }
    for what, call in calls.items():
        with pytest.raises(ServiceUnavailable) as error:
            call()
        assert all(word in said(error) for word in (RSE, rig.bucket, f'127.0.0.1:{proxy.port}', 'host name and port')), what
    assert isinstance(protocol.bulk_delete([pfn])[pfn], ServiceUnavailable)
    assert not dest.exists()


def test_the_server_goes_away_within_an_upload(rig, proxy, protocol, pfn, name, local):
    stall = proxy.on('UploadPart', Stall(break_before))
    proxy.on('CompleteMultipartUpload', after(proxy.stop, break_before))
    stall.release()
    with pytest.raises(ServiceUnavailable):
        protocol.put(str(local(LARGE)), pfn)
    assert rig.stored(name) is None
    # Nobody could tell the server that the upload was given up: what it is cleaned up by is a lifecycle rule of the bucket.
    for upload in rig.uploads():
        rig.client.abort_multipart_upload(Bucket=rig.bucket, **upload)


# A process that is interrupted or killed


@pytest.fixture
def putting(rig, rse, pfn, tmp_path):
    """Call it with a file for a process that puts it."""
    settings, children = tmp_path / 'rse.json', []
    settings.write_text(json.dumps(rse()))

    def start(file, on_interrupt='raise'):
        with tmp_path.joinpath('putting.log').open('w') as log:
            child = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name('put_one.py')), str(settings), str(file), pfn, on_interrupt],
                env=clean_environment(tmp_path, RUCIO_CONFIG=os.environ['RUCIO_CONFIG']),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.parametrize(
    ('number', 'on_interrupt', 'code'),
    [(signal.SIGINT, 'raise', -signal.SIGINT), (signal.SIGINT, 'exit', 3), (signal.SIGTERM, 'default', 143), (signal.SIGHUP, 'default', 129)],
)
def test_a_signal_within_a_multipart_upload(rig, proxy, putting, name, local, number, on_interrupt, code):
    stall = proxy.on('UploadPart', Stall())
    child = putting(local(LARGE), on_interrupt)
    stall.wait()
    child.send_signal(number)
    assert child.stdout.readline() == 'interrupted\n'
    # The answer comes only now: what was under way is waited for, and then the upload is aborted.
    stall.release()
    assert child.wait(TIMEOUT) == code
    assert 'AbortMultipartUpload' in proxy.operations()
    assert rig.uploads() == []
    assert rig.stored(name) is None


@both_sizes
def test_kill_within_a_put(rig, proxy, protocol, putting, pfn, name, local, size, last_step):
    """No object under its key, and the next put works. The parts that arrived stay until a lifecycle rule removes them."""
    file = local(size)
    stall = proxy.on(last_step, Stall(break_before))
    child = putting(file)
    stall.wait()
    child.kill()
    child.wait()
    stall.release()
    proxy.wait_for(last_step)
    assert rig.stored(name) is None
    for upload in rig.uploads():
        rig.client.abort_multipart_upload(Bucket=rig.bucket, **upload)
    protocol.put(str(file), pfn)
    assert rig.stored(name) == file.read_bytes()


# Many files


class Catalogue:
    """What `rucio s3 download` asks of Rucio's client: a dataset `run` of files on one RSE."""

    vo, auth_token = 'def', None

    def __init__(self, rig, rse, files):
        self._rig, self._rse, self._files = rig, rse, files

    def get_did(self, scope, name):
        return {'type': 'DATASET'}

    def get_rse(self, name):
        return self._rse

    def list_files(self, scope, name):
        return iter(self._files)

    def list_replicas(self, dids, **_):
        wanted = {did['name'] for did in dids}
        for file in self._files:
            if file['name'] in wanted:
                yield {**file, 'md5': None, 'pfns': {self._rig.pfn(file['name'], rse=self._rse): {'rse': RSE, 'priority': 1}}}


def test_many_files_over_a_bad_network(rig, proxy, protocol, rse, local, tmp_path):
    """What cannot be mended is told, what comes is right, and the next run completes it."""
    contents = {f'run/{number}': local(LARGE if number == 3 else SMALL, str(number)).read_bytes() for number in range(8)}
    for name in contents:
        protocol.put(str(tmp_path / name.rpartition('/')[2]), rig.pfn(name, rse=rse()))
    sums = [(name, len(content), f'{zlib.adler32(content):08x}') for name, content in contents.items()]
    files = [{'scope': rig.scope, 'name': name, 'bytes': size, 'adler32': adler32} for name, size, adler32 in sums]
    download = Download(Catalogue(rig, rse(), files), [(rig.scope, 'run')], str(tmp_path / 'to'), options=Options(jobs=2))
    for fault in (answer(503, 'SlowDown'), truncate(10), break_before, corrupt_response, *[answer(500, 'InternalError')] * (ATTEMPTS + 1)):
        proxy.on('GetObject', fault)

    def come():
        return {f'run/{path.name}': path.read_bytes() for path in (tmp_path / 'to').iterdir()}

    first = download.run()
    assert come() == {name: contents[name] for name in come()}
    assert {did for did, _ in first.failures} == {f'{rig.scope}:{name}' for name in contents.keys() - come().keys()}
    assert first.received == len(come())
    proxy.forget()
    assert Download(Catalogue(rig, rse(), files), [(rig.scope, 'run')], str(tmp_path / 'to')).run().there == first.received
    assert come() == contents
