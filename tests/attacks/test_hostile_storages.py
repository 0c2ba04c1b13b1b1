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

"""The attacker owns the storage: it answers ls, du, downloads and the reconciler with what is no answer, or with too much of it.

What would be got is the memory of a server, a listing that never ends, a traceback, or something done to objects that were not asked for.
"""

import contextlib
import gzip
import socketserver
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rucio.common.exception import FileConsistencyMismatch, RSEOperationNotSupported, RucioException, ServiceUnavailable
from rucio.common.s3 import clients, content, deadlines, objects, parsing, transfer
from rucio.common.s3.credentials import Static
from rucio.common.s3.endpoint import PERSON, SERVER, Endpoint
from rucio.common.s3.errors import Target
from servers.fake_s3 import Answer, FakeS3, error

PLACE = Target('X', 'user.alice', 'run1/')
OBJECT = Target('X', 'user.alice', 'run1/file')
DATE = '2026-11-28T00:00:00Z'


@pytest.fixture
def storage():
    with FakeS3() as server:
        server.make_bucket('user.alice')
        yield server


@pytest.fixture
def connect():
    """Call it with a URL for a client that tries once."""

    def make(url, patience=PERSON):
        return clients.connect(Endpoint(rse='X', rse_id='', url=url, max_attempts=1, provider='seaweedfs'), Static(f'AKID{url}', 'secret'), patience)

    return make


def xml(body):
    return Answer(200, body.encode() if isinstance(body, str) else body, (('Content-Type', 'application/xml'),))


def page(*contents, token='', folders=()):
    more = f'<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>' if token else '<IsTruncated>false</IsTruncated>'
    common = ''.join(f'<CommonPrefixes><Prefix>{each}</Prefix></CommonPrefixes>' for each in folders)
    return xml(f'<ListBucketResult>{more}{"".join(contents)}{common}</ListBucketResult>')


def entry(key='run1/a', size='1', date=DATE):
    return f'<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>{date}</LastModified><ETag>&quot;e&quot;</ETag></Contents>'


@contextlib.contextmanager
def stream(status, piece, pause=0.0, headers=()):
    """A server whose every answer has no end. `with` it; gives its URL."""
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def do_GET(self):
            self.send_response(status)
            for name, value in (('Transfer-Encoding', 'chunked'), *headers):
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                while not stop.wait(pause):
                    self.wfile.write(b'%x\r\n%s\r\n' % (len(piece), piece))

        do_POST = do_PUT = do_GET

        def log_message(self, *_):
            """Quiet."""

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.server_port}'
    finally:
        stop.set()
        server.shutdown()
        server.server_close()


def listed(connection, **options):
    return list(objects.list_pages(connection.client, PLACE, **options))


# Listings


@pytest.mark.parametrize(
    'answer',
    [
        page('<Contents><Size>1</Size></Contents>'),
        page(entry('other/secret')),
        page(entry('')),
        page(entry('run1')),
        page(folders=['other/']),
        page(folders=['']),
        page(entry(), token='same'),
        xml('<ListBucketResult/>'),
        xml(''),
        xml('no XML'),
        xml('<html><body>Log in</body></html>'),
        xml('<ListBucketResult>' * 50_000),
        xml('<a>' * 50_000 + '</a>' * 50_000),
        xml(b'\xff\xfe<\0a\0/\0>\0'),
        xml('{"Contents": []}'),
    ],
    ids=lambda answer: answer.body[:60].decode('latin-1'),
)
def test_a_listing_that_is_none_is_an_error_and_not_the_end(storage, connect, answer):
    """Would be got: the files of a user taken for deleted; a key of somebody else among those that are to be removed; a traceback."""
    storage.fail('ListObjectsV2', answer, answer)
    with pytest.raises(RucioException) as caught:
        listed(connect(storage.url))
    assert str(caught.value.args[0]).isprintable()
    assert len(str(caught.value.args[0])) < 1000


ODD = {
    'negative': entry(size='-1'),
    'words': entry(size='many'),
    'no integer': entry(size='1e3'),
    'empty': entry(size=''),
    'two sizes': entry(size='1</Size><Size>2'),
    'bare': '<Contents><Key>run1/a</Key></Contents>',
    'no size': f'<Contents><Key>run1/a</Key><LastModified>{DATE}</LastModified></Contents>',
    'no date': '<Contents><Key>run1/a</Key><Size>1</Size></Contents>',
    'no such date': entry(date='yesterday-ish'),
    'far': entry(date='9999999999999999999999'),
    'empty date': entry(date=''),
}


@pytest.mark.parametrize('odd', ODD.values(), ids=ODD)
def test_one_odd_object_of_a_listing_stops_no_other(storage, connect, odd):
    """Would be got: no listing, no reconciler, no upload of a directory, for one object. It is there, and nothing is known of it."""
    storage.fail('ListObjectsV2', page(odd, entry('run1/b', size='7')))
    assert list(objects.list_objects(connect(storage.url).client, PLACE)) == [('run1/a', None, ''), ('run1/b', 7, '')]


@pytest.mark.parametrize('repeated', [page(entry(), token='{}'), page(token='{}')], ids=['the same keys', 'no keys'])
def test_a_listing_without_an_end_ends(storage, connect, repeated):
    """Would be got: a worker of the server for ever, with a new token on each page."""
    storage.fail('ListObjectsV2', *(xml(repeated.body.replace(b'{}', b'%d' % number)) for number in range(200)))
    with pytest.raises(ServiceUnavailable, match='makes no progress'):
        listed(connect(storage.url))


def test_a_million_keys_in_a_page(storage, connect, monkeypatch):
    """Would be got: gigabytes of a server's memory."""
    monkeypatch.setattr(parsing, 'LONGEST_ANSWER', 1024**2)
    storage.fail('ListObjectsV2', page(*(entry(f'run1/{number}') for number in range(10_000))))
    with pytest.raises(ServiceUnavailable, match='longer than'):
        listed(connect(storage.url))


@pytest.mark.parametrize(
    'body',
    [
        '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><ListBucketResult><IsTruncated>false</IsTruncated>&c;</ListBucketResult>',
        '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><ListBucketResult><IsTruncated>false</IsTruncated><Name>&b;</Name></ListBucketResult>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1:1/dtd"><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>',
        '<?xml version="1.0" encoding="cp037"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>',
        '<?xml version="1.0" encoding="UTF-16"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'.encode('utf-16'),
    ],
    ids=['bomb', 'file', 'url', 'encoding', 'wide'],
)
def test_entities_and_encodings_are_not_read(storage, connect, body):
    """Would be got: a hundred bytes of memory for each that is sent; expat reads no files, but others may."""
    storage.fail('ListObjectsV2', xml(body))
    with pytest.raises(ServiceUnavailable, match='cannot be read'):
        listed(connect(storage.url))


def test_a_gzip_bomb_stays_packed(storage, connect):
    """Would be got: a thousand bytes of memory for each that is sent. Nothing is unpacked that was not asked to be packed."""
    storage.fail('ListObjectsV2', Answer(200, gzip.compress(b'<a>' + b' ' * 10**7), (('Content-Encoding', 'gzip'), ('Content-Type', 'application/xml'))))
    with pytest.raises(ServiceUnavailable):
        listed(connect(storage.url))


@pytest.mark.parametrize('status', [200, 403, 500])
def test_an_answer_without_an_end(connect, monkeypatch, status):
    """Would be got: the memory of whoever asks."""
    monkeypatch.setattr(parsing, 'LONGEST_ANSWER', 1024**2)
    with stream(status, b' ' * 65536) as url, pytest.raises(ServiceUnavailable, match='longer than'):
        listed(connect(url))


def test_an_error_without_an_end_instead_of_an_object(connect, monkeypatch):
    """Would be got: the same, by an answer to GET, which botocore reads to its end where it is an error."""
    monkeypatch.setattr(parsing, 'LONGEST_ANSWER', 1024**2)
    with stream(500, b' ' * 65536) as url:
        connection = connect(url)
        with pytest.raises(Exception, match='longer than'):
            connection.client.get_object(Bucket='b', Key='k')


@contextlib.contextmanager
def trickle(start, pause=0.01):
    """A server that answers each request with these bytes, and then with one more now and then. `with` it; gives its URL."""
    stop = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(65536)
            with contextlib.suppress(OSError):
                self.request.sendall(start)
                while not stop.wait(pause):
                    self.request.sendall(b'x')

    server = socketserver.ThreadingTCPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.server_address[1]}'
    finally:
        stop.set()
        server.shutdown()
        server.server_close()


HEAD = b'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nETag: "e"\r\n'


@pytest.mark.parametrize('start', [b'', b'HTTP/1.1 200 OK\r\n', HEAD + b'\r\n'], ids=['status', 'header', 'body'])
def test_an_answer_that_comes_byte_by_byte(connect, start):
    """Would be got: a worker of the server for hours; each byte comes before the time-out of a read. The breaker has to see a time-out."""
    with trickle(start) as url, pytest.raises(ServiceUnavailable, match='does not answer'):
        listed(connect(url, SERVER._replace(read_timeout=0.1, answer_timeout=0.2)))


def test_an_object_that_comes_byte_by_byte(connect):
    """Would be got: the same, by an object whose checksum is read while a request to the Rucio server waits."""
    with trickle(HEAD + b'\r\n') as url, pytest.raises(ServiceUnavailable, match='ReadTimeoutError'):
        content.hash_object(connect(url, SERVER), OBJECT, objects.ObjectInfo(1_000_000, 'e'), seconds=2)


def test_a_slow_object_is_no_silent_storage(connect, storage):
    """The time for an answer is not that for an object, and does not end with it."""
    storage.store('user.alice', 'run1/file', b'x' * 1000)
    connection = connect(storage.url, SERVER._replace(read_timeout=60, answer_timeout=60))
    body = connection.client.get_object(Bucket='user.alice', Key='run1/file')['Body']
    with deadlines.within(0):
        assert deadlines.is_over()
    assert deadlines.seconds_left() is None
    assert body.read() == b'x' * 1000
    assert listed(connection)


# Redirects


@pytest.mark.parametrize('status', [301, 302, 303, 307, 308, 400])
def test_a_redirect_does_not_take_the_keys_elsewhere(storage, connect, status):
    """Would be got: a request with Authorization, and a session token, at the attacker's own server; or signed for a region that he names."""
    with FakeS3() as evil:
        evil.make_bucket('user.alice')
        headers = (('Location', f'{evil.url}/user.alice/'), ('x-amz-bucket-region', f'x.{evil.url[7:]}/'), ('Content-Type', 'application/xml'))
        codes = {301: 'PermanentRedirect', 307: 'TemporaryRedirect', 400: 'AuthorizationHeaderMalformed'}
        body = f'<Error><Code>{codes.get(status, "Found")}</Code><Endpoint>{evil.url[7:]}</Endpoint><Region>evil/{evil.url[7:]}#</Region></Error>'
        for operation in ('ListObjectsV2', 'HeadBucket', 'GetObject', 'HeadObject'):
            storage.fail(operation, *[Answer(status, body.encode(), headers)] * 3)
        connection = connect(storage.url)
        with pytest.raises(RucioException):
            listed(connection)
        with pytest.raises(RucioException):
            objects.stat(connection, OBJECT)
        assert evil.requests == []


@pytest.mark.parametrize('status', [200, 403])
def test_a_chunk_whose_size_has_no_end(connect, status):
    """Would be got: all memory. urllib3 before 2.8, which Rucio's server has, reads it to the next line feed (CVE-2026-97689)."""
    sent, most = [0], 64 * 1024**2

    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def do_GET(self):
            self.send_response(status)
            self.send_header('Transfer-Encoding', 'chunked')
            self.end_headers()
            self.connection.settimeout(10)
            with contextlib.suppress(OSError):
                while sent[0] < most:
                    sent[0] += self.connection.send(b'0' * 65536)

        def log_message(self, *_):
            """Quiet."""

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        with pytest.raises(RucioException):
            listed(connect(f'http://127.0.0.1:{server.server_port}'))
    finally:
        server.shutdown()
        server.server_close()  # waits for the handler
    assert sent[0] < most


# Objects


@pytest.mark.parametrize('size', ['-5', 'x', '', '99999999999999999999999999'])
def test_a_size_that_is_none(connect, size):
    """Would be got: a file of no bytes that counts as complete, or a traceback."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.send_header('Content-Length', size)
            self.send_header('ETag', '"e"')
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()

        def log_message(self, *_):
            """Quiet."""

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        connection = connect(f'http://127.0.0.1:{server.server_port}')
        with contextlib.suppress(RucioException):
            assert objects.stat(connection, OBJECT).size >= 10**20  # what is then asked for never comes, and nothing is allocated for it
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize('more', [b'x' * 10, b'x' * 10_000_000])
def test_an_object_that_is_longer_than_it_says(storage, connect, tmp_path, more):
    """Would be got: the disk of whoever downloads; the length of a HEAD is what is written at most."""
    storage.store('user.alice', 'run1/file', b'12345')
    storage.fail('GetObject', Answer(200, b'12345' + more, (('ETag', '"827ccb0eea8a706c4c34a16891f84e7b"'),)))
    with pytest.raises((FileConsistencyMismatch, ServiceUnavailable)):
        transfer.download(connect(storage.url), OBJECT, str(tmp_path / 'file'))
    assert list(tmp_path.iterdir()) == []


def test_a_range_of_something_else(storage, connect, tmp_path):
    """Would be got: another part of the file, or of another file, in the place of the one that was asked for."""
    storage.store('user.alice', 'run1/file', b'1' * 20_000_000)
    wrong = Answer(206, b'2' * 8, (('Content-Range', 'bytes 100-107/20000000'),))
    storage.fail('GetObject', *[wrong] * 4)
    with pytest.raises(RSEOperationNotSupported):
        transfer.download(connect(storage.url), OBJECT, str(tmp_path / 'file'))
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_asked_for_is_not_deleted_well(storage, connect):
    """Would be got: files taken for deleted, as the error names a key that nobody asked for; or a KeyError."""
    for name in ('<Key>other</Key>', ''):
        storage.fail('DeleteObjects', xml(f'<DeleteResult><Error>{name}<Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>'))
        targets = [OBJECT, OBJECT._replace(key='run1/b')]
        found = objects.delete_many(connect(storage.url), targets)
        assert all(isinstance(found[each], RucioException) for each in targets)


def test_buckets_without_names(storage, connect):
    """Would be got: a bucket `../x` or one of two lines in a table, or a traceback."""
    for name in ('', '<Name/>', '<Name>a\nb</Name>', '<Name>../x</Name>', '<Name>a/b</Name>'):
        storage.fail('ListBuckets', xml(f'<ListAllMyBucketsResult><Buckets><Bucket>{name}</Bucket></Buckets></ListAllMyBucketsResult>'))
        with pytest.raises(ServiceUnavailable):
            objects.list_buckets(connect(storage.url))


def test_a_bucket_without_a_name_stops_no_other(storage, connect):
    """Would be got: no `ls` for anybody, as one bucket of the storage has no name; nothing could be asked about it."""
    odd = '<Bucket/><Bucket><Name>../x</Name></Bucket><Bucket><Name>user.alice</Name></Bucket>'
    storage.fail('ListBuckets', xml(f'<ListAllMyBucketsResult><Buckets>{odd}</Buckets></ListAllMyBucketsResult>'))
    assert [each['Name'] for each in objects.buckets(connect(storage.url))] == ['user.alice']


ASKED = {
    'get_bucket_lifecycle_configuration': 'the rules of the owner are written over',
    'get_bucket_notification_configuration': 'the subscriptions of others are written over',
    'get_object_lock_configuration': 'uploads are signed whose objects nobody can delete',
    'get_public_access_block': 'the blocks of the owner are written over',
    'list_multipart_uploads': 'a bucket is removed that parts keep alive',
    'list_object_versions': 'a bucket is removed with its old versions',
    'list_objects_v2': 'a bucket is removed with its objects, or an object counts as missing',
}


@pytest.mark.parametrize('operation', ASKED)
def test_a_200_without_a_body_is_no_answer(storage, connect, operation):
    """Would be got: what ASKED says, as nothing at all reads like `there is none`."""
    for name in ('ListObjectsV2', 'GetBucketLifecycle', 'ListMultipartUploads', 'ListObjectVersions'):  # as the fake S3 calls them
        storage.fail(name, xml(''))
    with pytest.raises(parsing.UnreadableAnswerError):
        getattr(connect(storage.url).client, operation)(Bucket='user.alice')


def test_headers_are_no_place_for_tricks(storage, connect):
    """Would be got: an ETag of two lines in the catalogue, a metadata that is evaluated. What comes is text, and is compared, not run."""
    storage.store('user.alice', 'run1/file', b'x', headers=(('x-amz-meta-a', '$(id)'), ('x-amz-version-id', '../..'), ('x-amz-expiration', '\u00e9' * 100)))
    assert objects.stat(connect(storage.url), OBJECT).size == 1


def test_the_dates_of_a_listing_are_dates(storage, connect):
    """What the reconciler compares: an object of the year 1 or 9999 is old or new, and no more than that."""
    storage.fail('ListObjectsV2', page(entry(date='0001-01-01T00:00:00Z'), entry('run1/b', date='9999-12-31T23:59:59Z')))
    (answer,) = listed(connect(storage.url))
    dates = [each['LastModified'] for each in answer['Contents']]
    assert dates == [datetime(1, 1, 1, tzinfo=timezone.utc), datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)]
    assert all(abs(each.timestamp()) < 1e12 for each in dates)
    assert time.time() > 0


def test_an_error_that_is_none(storage, connect):
    """Would be got: a traceback, or a page of HTML on the terminal."""
    for body in ('', 'x' * 100_000, '<Error/>', '<Error><Code/></Error>', '<html>' + 'a' * 10_000 + '</html>', '<Error><Code>a</Code><Code>b</Code></Error>'):
        storage.fail('ListObjectsV2', Answer(418, body.encode(), (('Content-Type', 'application/xml'),)))
        with pytest.raises(RucioException) as caught:
            listed(connect(storage.url))
        assert len(str(caught.value.args[0])) < 1000
    storage.fail('ListObjectsV2', error(503, 'SlowDown'))
    with pytest.raises(RucioException):
        listed(connect(storage.url))
