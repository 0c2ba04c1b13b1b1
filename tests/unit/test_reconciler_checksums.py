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

"""Where checksums of objects come from, what that costs, and what happens when an object changes meanwhile."""

import base64
import hashlib
import threading
import time
import zlib
from types import SimpleNamespace
from unittest import mock

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.exception import (
    FileConsistencyMismatch,
    ResourceTemporaryUnavailable,
    RSEAccessDenied,
    RSEOperationNotSupported,
    ServiceUnavailable,
    SourceNotFound,
)
from rucio.common.s3 import clients, content, credentials
from rucio.common.s3.endpoint import DAEMON, SERVER_WORK
from rucio.common.types import InternalScope
from rucio.core.s3.catalogue.records import NewFile
from rucio.core.s3.reconciler import checksums
from rucio.core.s3.reconciler.listings import Entry
from rucio.core.s3.subtrees import Subtree
from servers import fake_s3

BUCKET = 'user.alice'
MULTI = 'f' * 32 + '-2'  # the ETag of an upload in parts
BODY = b'some content' * 1000
MD5, ADLER32 = hashlib.md5(BODY).hexdigest(), f'{zlib.adler32(BODY):08x}'
OTHER = 'a' * 32


@pytest.fixture
def subtree(s3, endpoint):
    """Call it for all of alice's bucket, with other settings of the storage where a test wants them."""

    def make(**settings):
        storage = endpoint(**{'etag_is_md5': True} | settings)
        connection = clients.connect(storage, credentials.Static('KEY', 'hidden-key'))
        known = SimpleNamespace(
            rse='X', rse_id='abc', endpoint=storage, layout=SimpleNamespace(deterministic=True), patience=DAEMON, connection=lambda: connection
        )
        return Subtree(known, InternalScope('user.alice'), BUCKET, 'run1/', 'set/')

    return make


def entry(s3, key):
    found = s3.buckets[BUCKET][key]
    return Entry(key, len(found.body), found.etag, found.modified)


def computed(subtree, entries, readers=2, read=True, stop=None):
    return dict(checksums.compute_checksums(subtree, entries, readers, read, stop or threading.Event()))


def one(s3, subtree, key='run1/file', **options):
    given = entry(s3, key)
    return computed(subtree, [given], **options)[given]


def test_the_listing_says_it(s3, subtree):
    s3.store(BUCKET, 'run1/file', BODY)
    assert one(s3, subtree()) == NewFile('set/file', len(BODY), MD5, None, None, None)
    assert s3.operations() == []


def test_an_empty_object_is_known(s3, subtree):
    s3.store(BUCKET, 'run1/file', b'', etag=MULTI)
    assert one(s3, subtree()) == NewFile('set/file', 0, 'd41d8cd98f00b204e9800998ecf8427e', '00000001', MULTI, None)
    assert s3.operations() == []
    without_etag = Entry('run1/file', 0, '', 0)
    assert computed(subtree(), [without_etag])[without_etag].etag is None


def test_an_upload_in_parts_is_read_once(s3, subtree):
    s3.store(BUCKET, 'run1/file', BODY, etag=MULTI)
    assert one(s3, subtree()) == NewFile('set/file', len(BODY), MD5, ADLER32, MULTI, None)
    assert s3.operations() == ['HeadObject', 'GetObject']
    assert s3.requests[1].headers['if-match'].strip('"') == MULTI


def test_or_not_at_all(s3, subtree):
    s3.store(BUCKET, 'run1/file', BODY, etag=MULTI)
    assert one(s3, subtree(), read=False) == NewFile('set/file', len(BODY), None, None, MULTI, None)
    assert s3.operations() == ['HeadObject']


@pytest.mark.parametrize(
    'kind', [{'storage_class': 'GLACIER'}, {'storage_class': 'INTELLIGENT_TIERING', 'tier': 'ARCHIVE_ACCESS'}, {'restored': fake_s3.RESTORING}]
)
def test_an_archived_object_has_no_checksum_and_is_no_failure(s3, subtree, kind):
    s3.store(BUCKET, 'run1/file', BODY, etag=MULTI, **kind)
    assert one(s3, subtree()) == NewFile('set/file', len(BODY), None, None, MULTI, None)


@pytest.mark.parametrize(
    ('header', 'value', 'md5'),
    [
        ('x-amz-meta-md5chksum', base64.b64encode(bytes.fromhex(OTHER)).decode(), OTHER),
        ('X-Amz-Meta-Md5chksum', base64.b64encode(bytes.fromhex(OTHER)).decode(), OTHER),
        ('x-amz-meta-md5chksum', 'no base64!', None),
        ('x-amz-meta-md5chksum', base64.b64encode(b'short').decode(), None),
        ('x-amz-meta-s3cmd-attrs', f'atime:1/ctime:1/gid:0/gname:root/md5:{OTHER}/mode:33188/mtime:1/uid:0/uname:root', OTHER),
        ('x-amz-meta-s3cmd-attrs', 'atime:1/md5:short', None),
        ('x-amz-meta-s3cmd-attrs', f'atime:1/sha:{OTHER}', None),
        ('x-amz-meta-other', OTHER, None),
    ],
)
def test_what_clients_note(s3, subtree, header, value, md5):
    s3.store(BUCKET, 'run1/file', BODY, etag=MULTI, headers=((header, value),))
    assert one(s3, subtree(), read=False).md5 == md5


@pytest.mark.parametrize(
    ('headers', 'md5'),
    [
        ((), MD5),
        ((('x-amz-server-side-encryption', 'AES256'),), MD5),
        ((('x-amz-server-side-encryption', 'aws:kms'),), None),
        ((('x-amz-server-side-encryption-customer-algorithm', 'AES256'),), None),
    ],
)
def test_where_a_listing_does_not_say_what_its_etags_are(s3, subtree, headers, md5):
    s3.store(BUCKET, 'run1/file', BODY, headers=headers)
    assert one(s3, subtree(etag_is_md5=False), read=False) == NewFile('set/file', len(BODY), md5, None, MD5, None)


def test_it_changed_since_it_was_listed(s3, subtree):
    s3.store(BUCKET, 'run1/file', BODY, etag=MULTI)
    listed = entry(s3, 'run1/file')
    s3.store(BUCKET, 'run1/file', BODY + b'more', etag=MULTI)
    found = computed(subtree(), [listed])[listed]
    assert isinstance(found, ServiceUnavailable)
    assert "bucket 'user.alice', key 'run1/file': the object was changed" in str(found.args[0])


def test_it_changed_while_it_was_read(s3, subtree):
    s3.store(BUCKET, 'run1/file', BODY, etag=MULTI)
    s3.fail('GetObject', fake_s3.error(412, 'PreconditionFailed'))
    found = one(s3, subtree())
    assert isinstance(found, ServiceUnavailable)
    assert 'The object was changed while it was read' in str(found.args[0])


@pytest.mark.parametrize(
    ('operation', 'fault', 'kind'),
    [
        ('HeadObject', fake_s3.error(404, 'NoSuchKey'), SourceNotFound),
        ('GetObject', fake_s3.error(403, 'AccessDenied'), RSEAccessDenied),
        ('GetObject', fake_s3.Longer(), FileConsistencyMismatch),
        ('GetObject', fake_s3.error(503, 'SlowDown'), ResourceTemporaryUnavailable),
        ('GetObject', fake_s3.error(500, 'InternalError'), ServiceUnavailable),
    ],
)
def test_one_that_fails_does_not_stop_the_others(s3, subtree, operation, fault, kind):
    for key in ('run1/a', 'run1/b'):
        s3.store(BUCKET, key, BODY, etag=MULTI)
    s3.fail(operation, fault)
    found = list(computed(subtree(), [entry(s3, 'run1/a'), entry(s3, 'run1/b')], readers=1).values())
    assert [type(each) for each in found] == [kind, NewFile]
    assert str(found[0].args[0]).startswith({'HeadObject': 'RSE X: stat of ', 'GetObject': 'RSE X: get of '}[operation])


@pytest.mark.parametrize(('patience', 'seconds'), [(DAEMON, 600 + 3000 / 1024**2), (SERVER_WORK, 60)])
def test_a_daemon_has_time_for_large_objects_and_a_request_a_minute(s3, subtree, monkeypatch, patience, seconds):
    given = []

    def hash_object(*arguments):
        given.append(arguments[-1])
        return checksums.Checksums(OTHER)

    monkeypatch.setattr(checksums, 'hash_object', hash_object)
    s3.store(BUCKET, 'run1/file', b'x' * 3000, etag=MULTI)
    made = subtree()
    made.storage.patience = patience
    assert one(s3, made).md5 == OTHER
    assert given == [seconds]


@pytest.mark.parametrize('patience', [DAEMON, SERVER_WORK])
def test_one_that_never_ends_does_not_stop_the_others(s3, subtree, monkeypatch, patience):
    """Its storage sends a byte now and then: a daemon would read it for years, and a worker of the server as well."""
    stock, seconds = checksums.hash_object, iter((0.2, 60))  # the other one is read, however busy the machine is
    monkeypatch.setattr(checksums, 'hash_object', lambda *arguments: stock(*arguments[:-1], next(seconds)))
    for name in ('run1/a', 'run1/b'):
        s3.store(BUCKET, name, BODY, etag=MULTI)
    s3.fail('GetObject', fake_s3.Stalled())
    made = subtree(max_attempts=1)
    made.storage.patience = patience
    found = computed(made, [entry(s3, 'run1/a'), entry(s3, 'run1/b')], readers=1)
    assert sorted(type(each).__name__ for each in found.values()) == ['NewFile', 'ServiceUnavailable']


def test_a_broken_connection_goes_on_where_it_broke(s3, subtree, monkeypatch):
    monkeypatch.setattr(content, 'BLOCK', 1000)
    s3.store(BUCKET, 'run1/file', BODY, etag=MULTI)
    s3.fail('GetObject', fake_s3.Cut(), fake_s3.Cut())
    assert one(s3, subtree(max_attempts=2)) == NewFile('set/file', len(BODY), MD5, ADLER32, MULTI, None)
    ranges = [request.headers.get('range') for request in s3.requests if request.operation == 'GetObject']
    assert ranges[0] is None
    assert all(each.startswith('bytes=') for each in ranges[1:])


def test_a_storage_that_knows_no_ranges_makes_no_wrong_checksum(s3, subtree, monkeypatch):
    monkeypatch.setattr(content, 'BLOCK', 1000)
    s3.store(BUCKET, 'run1/file', BODY, etag=MULTI)
    s3.fail('GetObject', fake_s3.Cut(), fake_s3.NoRanges())
    assert isinstance(one(s3, subtree(max_attempts=2)), RSEOperationNotSupported)


def test_all_are_summed_and_few_at_a_time(s3, subtree):
    for number in range(50):
        s3.store(BUCKET, f'run1/{number}', str(number).encode(), **({} if number % 2 else {'etag': MULTI}))
    asked, yielded = [], []

    def entries():
        for number in range(50):
            asked.append(number)
            assert len(asked) - len(yielded) <= 2 * 3
            yield entry(s3, f'run1/{number}')

    for each, file in checksums.compute_checksums(subtree(), entries(), 3, True, threading.Event()):
        yielded.append(each)
        assert file.md5 == hashlib.md5(s3.content(BUCKET, each.key)).hexdigest()
    assert len(set(yielded)) == 50


def test_stopped_while_reading(s3, subtree, monkeypatch):
    monkeypatch.setattr(content, 'BLOCK', 1000)
    s3.store(BUCKET, 'run1/file', BODY, etag=MULTI)
    stop = threading.Event()
    with mock.patch.object(content.Hasher, 'add', side_effect=lambda _: stop.set()):
        assert computed(subtree(), [entry(s3, 'run1/file')] * 5, readers=1, stop=stop) == {}
    assert s3.operations().count('HeadObject') == 1, 'no other one is begun'
    entries = iter([entry(s3, 'run1/file')] * 2)
    assert computed(subtree(), entries, stop=stop) == {}
    assert next(entries), 'no more are looked for'


def test_what_is_read_for_somebody_who_has_gone_is_ended(s3, subtree, monkeypatch):
    ended_in_time = []

    def slow(where, given, read, ended):
        if given.key == 'run1/0':
            return NewFile('set/0', 0, MD5)
        deadline = time.monotonic() + 10
        while not ended.is_set() and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        ended_in_time.append(ended.is_set())
        raise checksums.Stopped

    monkeypatch.setattr(checksums, '_from_object', slow)
    found = checksums.compute_checksums(subtree(), [Entry(f'run1/{number}', 1, MULTI, 0) for number in range(4)], 2, True, threading.Event())
    next(found)
    found.close()
    assert ended_in_time
    assert all(ended_in_time)


def test_the_end_of_the_process_is_no_failure_of_an_object(s3, subtree, monkeypatch):
    monkeypatch.setattr(checksums, '_from_object', mock.Mock(side_effect=SystemExit))
    with pytest.raises(SystemExit):
        computed(subtree(), [Entry('run1/a', 1, MULTI, 0)])


def test_who_wants_no_more_leaves_no_thread_behind(s3, subtree):
    for number in range(10):
        s3.store(BUCKET, f'run1/{number}', BODY, etag=MULTI)
    found = checksums.compute_checksums(subtree(), [entry(s3, f'run1/{number}') for number in range(10)], 2, True, threading.Event())
    next(found)
    found.close()
    assert not [each for each in threading.enumerate() if each.name.startswith('rucio-s3-checksums')]


@pytest.mark.parametrize(('size', 'etag', 'counts'), [(len(BODY), f'"{MULTI}"', True), (len(BODY) + 1, MULTI, False), (len(BODY), OTHER, False)])
def test_a_checksum_that_was_told_counts_only_for_the_object_it_is_of(s3, subtree, size, etag, counts):
    s3.buckets[BUCKET] = {'run1/file': fake_s3.Object(BODY, MULTI)}
    told = {'run1/file': checksums.Told(size, etag, '0123abcd')}
    ((_, file),) = checksums.compute_checksums(subtree(), [entry(s3, 'run1/file')], 2, True, threading.Event(), told)
    assert (file.adler32, file.etag) == ('0123abcd' if counts else ADLER32, MULTI)
    assert any(each.operation == 'GetObject' for each in s3.requests) is not counts
