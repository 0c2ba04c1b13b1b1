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


"""A small S3 in this process, for what no real one does on demand: count its requests, and fail in a chosen way at a chosen one.

It knows no credentials. It can lack what others have: see ``lacks``. It verifies Content-MD5 and x-amz-checksum-crc32, honours If-None-Match (unless told not to) and
If-Match, and gives ETags and checksums as S3 does.
"""

import base64
import hashlib
import http.server
import json
import secrets
import socket
import threading
import time
import zlib
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from email.utils import formatdate
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from .ports import listen

PAGE = 1000  # keys in a listing
ARCHIVES = ('GLACIER', 'DEEP_ARCHIVE')
RESTORING, RESTORED = 'ongoing-request="true"', 'ongoing-request="false", expiry-date="Fri, 21 Dec 2040 00:00:00 GMT"'


class Request(NamedTuple):
    """One request as it came."""

    operation: str  # as boto3 names it
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes
    url: str  # as it stood in the request: path and query


@dataclass(frozen=True)
class Object:
    body: bytes
    etag: str
    crc32: str = ''
    modified: float = field(default_factory=time.time)
    headers: tuple[tuple[str, str], ...] = ()  # more of an answer to HEAD and GET: metadata, encryption
    storage_class: str = ''
    tier: str = ''  # the archive of an object in INTELLIGENT_TIERING, which no listing tells
    restored: str = ''  # x-amz-restore

    @property
    def archived(self):
        return bool(self.storage_class in ARCHIVES or self.tier) and 'ongoing-request="false"' not in self.restored


@dataclass
class Upload:
    """A multipart upload under way."""

    bucket: str
    key: str
    full_object: bool
    parts: dict[int, bytes] = field(default_factory=dict)


class Answer(NamedTuple):
    """What the server says; as a fault, instead of doing anything."""

    status: int
    body: bytes = b''
    headers: tuple[tuple[str, str], ...] = ()


class Lost(NamedTuple):
    """A fault: do it, then say this (None: close the connection without a word)."""

    answer: Answer | None = None


class Stalled:
    """A fault: say nothing until the server is stopped."""


class Cut:
    """A fault: half of the answer's body, then the end."""


class Flipped:
    """A fault: one bit of the answer's body is another."""


class Longer:
    """A fault: the answer's body has more than was asked for, and says so."""


class NoRanges:
    """A fault: the whole object, whatever range was asked for."""


Fault = Answer | Lost | Stalled | Cut | Flipped | Longer | NoRanges


def error(status, code, message='as the test wants'):
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>'
    return Answer(status, body.encode(), (('Content-Type', 'application/xml'),))


def crc32(body):
    return base64.b64encode(zlib.crc32(body).to_bytes(4, 'big')).decode()


class FakeS3:
    """``with FakeS3() as s3``: serves at ``s3.url`` until the end of the block."""

    def __init__(self):
        self.buckets: dict[str, dict[str, Object]] = {}
        self.uploads: dict[str, Upload] = {}
        self.policies: dict[str, dict[str, object]] = {}
        self.lifecycles: dict[str, bytes] = {}
        self.cors: dict[str, bytes] = {}
        self.versions = ''  # in XML, of every bucket
        self.requests: list[Request] = []
        self.conditional_put = True
        self.conditional_multipart = True
        self.verifies_body = False  # of DeleteObjects
        self.lacks: dict[str, str] = {}  # operation -> a header that it answers 501 to
        self.copy_condition_of_source = False  # If-None-Match of CopyObject, as OpenStack Swift does it
        self.wants_md5 = False  # of DeleteObjects and the settings of buckets, and knows no other checksum
        self.page = PAGE
        self.unsorted = False  # lists as AWS's directory buckets do: in no order, and not from a key on
        self._faults: list[tuple[str, Fault]] = []
        self._lock = threading.RLock()
        self.stopping = threading.Event()
        self.reached = threading.Event()  # a stalled request is here

    def __enter__(self):
        self._server = listen(lambda address: _Server(address, _Handler))
        self._server.s3 = self
        self.port = self._server.server_address[1]
        self.url = f'http://127.0.0.1:{self.port}'
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()

    # For tests

    def make_bucket(self, name):
        self.buckets[name] = {}

    def store(self, bucket, key, body, **changes):
        """An object that is there, with the ETag and checksum of a single PUT, or with what `changes` says."""
        values = {'etag': hashlib.md5(body).hexdigest(), 'crc32': crc32(body)} | changes
        self.buckets.setdefault(bucket, {})[key] = Object(body, **values)

    def content(self, bucket, key):
        return self.buckets[bucket][key].body

    def fail(self, operation, *faults):
        """The next requests for this operation meet these faults, one each; later ones are served."""
        with self._lock:
            self._faults += [(operation, fault) for fault in faults]

    def operations(self):
        return [request.operation for request in self.requests]

    # For the handler

    def fault_for(self, operation):
        with self._lock:
            for index, (wanted, fault) in enumerate(self._faults):
                if wanted == operation:
                    del self._faults[index]
                    return fault
        return None

    def serve(self, request):
        with self._lock:
            if request.bucket not in self.buckets and request.operation not in ('ListBuckets', 'CreateBucket'):
                return error(404, 'NoSuchBucket')
            if self.lacks.get(request.operation) in request.headers:
                return error(501, 'NotImplemented', 'A header you provided implies functionality that is not implemented')
            if self.wants_md5 and request.operation.startswith(('DeleteObjects', 'PutBucket')):
                md5 = base64.b64encode(hashlib.md5(request.body).digest()).decode()
                if request.headers.get('content-md5') != md5:
                    return error(400, 'InvalidRequest', 'Missing required header for this request: Content-MD5')
            return getattr(self, request.operation)(request)

    # Operations

    def ListBuckets(self, request):  # noqa: N802 - as boto3 names it; also the others
        names = ''.join(f'<Bucket><Name>{name}</Name></Bucket>' for name in sorted(self.buckets))
        return _xml(f'<ListAllMyBucketsResult><Buckets>{names}</Buckets></ListAllMyBucketsResult>')

    def CreateBucket(self, request):  # noqa: N802
        self.make_bucket(request.bucket)
        return Answer(200)

    def ListObjectsV2(self, request):  # noqa: N802
        prefix, delimiter = request.query.get('prefix', ''), request.query.get('delimiter', '')
        after = request.query.get('continuation-token') or request.query.get('start-after', '')
        order = _scattered if self.unsorted else str
        if self.unsorted and 'start-after' in request.query:
            return error(501, 'NotImplemented')
        entries = {}
        for key, each in self.buckets[request.bucket].items():
            if key.startswith(prefix):
                folder, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ('', '', '')
                entries[prefix + folder + delimiter if found else key] = None if found else each
        names = sorted((name for name in entries if not after or order(name) > order(after)), key=order)
        page = min(self.page, int(request.query.get('max-keys', PAGE)))
        restores = request.headers.get('x-amz-optional-object-attributes') == 'RestoreStatus'
        found = ''.join(_entry(name, entries[name], restores) for name in names[:page])
        more = f'<NextContinuationToken>{escape(names[page - 1])}</NextContinuationToken>' if len(names) > page else ''
        truncated = str(bool(more)).lower()
        named = f'<Name>{request.bucket}</Name><Prefix>{quote(prefix)}</Prefix>'
        return _xml(f'<ListBucketResult>{named}<EncodingType>url</EncodingType><IsTruncated>{truncated}</IsTruncated>{more}{found}</ListBucketResult>')

    def GetBucketPolicy(self, request):  # noqa: N802
        policy = self.policies.get(request.bucket)
        return Answer(200, json.dumps(policy).encode()) if policy else error(404, 'NoSuchBucketPolicy')

    def PutBucketPolicy(self, request):  # noqa: N802
        self.policies[request.bucket] = json.loads(request.body)
        return Answer(204)

    def DeleteBucketPolicy(self, request):  # noqa: N802
        self.policies.pop(request.bucket, None)
        return Answer(204)

    def GetBucketLifecycle(self, request):  # noqa: N802
        found = self.lifecycles.get(request.bucket)
        return Answer(200, found) if found else error(404, 'NoSuchLifecycleConfiguration')

    def PutBucketLifecycle(self, request):  # noqa: N802
        self.lifecycles[request.bucket] = request.body
        return Answer(200)

    def GetBucketCors(self, request):  # noqa: N802
        found = self.cors.get(request.bucket)
        return Answer(200, found) if found else error(404, 'NoSuchCORSConfiguration')

    def PutBucketCors(self, request):  # noqa: N802
        self.cors[request.bucket] = request.body
        return Answer(200)

    def ListMultipartUploads(self, request):  # noqa: N802
        prefix = request.query.get('prefix', '')
        found = ((name, each.key) for name, each in self.uploads.items() if each.bucket == request.bucket and each.key.startswith(prefix))
        uploads = ''.join(f'<Upload><Key>{escape(key)}</Key><UploadId>{name}</UploadId></Upload>' for name, key in found)
        return _xml(f'<ListMultipartUploadsResult>{uploads}</ListMultipartUploadsResult>')

    def ListObjectVersions(self, request):  # noqa: N802
        return _xml(f'<ListVersionsResult>{self.versions}</ListVersionsResult>')

    def DeleteObjects(self, request):  # noqa: N802
        if self.verifies_body and request.headers['x-amz-content-sha256'] != hashlib.sha256(request.body).hexdigest():
            return error(400, 'XAmzContentSHA256Mismatch')
        if refused := self._refused(request, honoured=False):
            return refused
        keys = [each.text for each in ElementTree.fromstring(request.body).iter() if each.tag.endswith('Key')]
        if len(keys) > PAGE:
            return error(400, 'MalformedXML')
        for key in keys:
            self.buckets[request.bucket].pop(key, None)
        return _xml('<DeleteResult/>')

    def PutBucketSetting(self, request):  # noqa: N802
        return Answer(204)

    def HeadBucket(self, request):  # noqa: N802
        return _xml('')

    def HeadObject(self, request):  # noqa: N802
        return self.GetObject(request)

    def GetObject(self, request):  # noqa: N802
        found = self.buckets[request.bucket].get(request.key)
        if found is None:
            return error(404, 'NoSuchKey')
        if request.headers.get('if-match', f'"{found.etag}"').strip('"') != found.etag:
            return error(412, 'PreconditionFailed')
        headers = [('ETag', f'"{found.etag}"'), ('Last-Modified', formatdate(found.modified, usegmt=True)), *found.headers]
        kinds = {'x-amz-storage-class': found.storage_class, 'x-amz-archive-status': found.tier, 'x-amz-restore': found.restored}
        headers += [(name, value) for name, value in kinds.items() if value]
        if found.archived and request.operation != 'HeadObject':
            return error(403, 'InvalidObjectState', "The operation is not valid for the object's storage class")
        if found.crc32 and request.headers.get('x-amz-checksum-mode') == 'ENABLED' and 'range' not in request.headers:
            headers += [('x-amz-checksum-crc32', found.crc32), ('x-amz-checksum-type', 'FULL_OBJECT')]
        if 'range' not in request.headers:
            return Answer(200, found.body, tuple(headers))
        first, _, last = request.headers['range'].removeprefix('bytes=').partition('-')
        start, end = int(first), min(int(last or len(found.body)), len(found.body) - 1)
        if start >= len(found.body):
            return error(416, 'InvalidRange')
        headers.append(('Content-Range', f'bytes {start}-{end}/{len(found.body)}'))
        return Answer(206, found.body[start : end + 1], tuple(headers))

    def PutObject(self, request):  # noqa: N802
        refused = self._refused(request, honoured=self.conditional_put)
        if refused:
            return refused
        body = request.body
        checked = request.headers.get('x-amz-checksum-crc32', '')
        metadata = tuple((name, value) for name, value in request.headers.items() if name.startswith('x-amz-meta-'))
        self.buckets[request.bucket][request.key] = Object(body, hashlib.md5(body).hexdigest(), checked, headers=metadata)
        return Answer(200, headers=(('ETag', f'"{hashlib.md5(body).hexdigest()}"'),))

    def CopyObject(self, request):  # noqa: N802
        bucket, _, key = unquote(request.headers['x-amz-copy-source']).removeprefix('/').partition('/')
        source = self.buckets[bucket].get(key)
        if source is None:
            return error(404, 'NoSuchKey')
        if request.headers.get('x-amz-copy-source-if-match', f'"{source.etag}"').strip('"') != source.etag:
            return error(412, 'PreconditionFailed')
        if self.copy_condition_of_source and 'if-none-match' in request.headers:
            return error(412, 'PreconditionFailed')
        if source.archived:
            return error(403, 'ObjectNotInActiveTierError', 'The source object of the COPY operation is not in the active tier')
        if refused := self._refused(request, honoured=self.conditional_put):
            return refused
        self.buckets[request.bucket][request.key] = replace(source, modified=time.time())
        return _xml(f'<CopyObjectResult><ETag>"{source.etag}"</ETag></CopyObjectResult>')

    def DeleteBucket(self, request):  # noqa: N802
        if self.buckets[request.bucket]:
            return error(409, 'BucketNotEmpty')
        del self.buckets[request.bucket]
        return Answer(204)

    def DeleteObject(self, request):  # noqa: N802
        self.buckets[request.bucket].pop(request.key, None)
        return Answer(204)

    def CreateMultipartUpload(self, request):  # noqa: N802
        name = secrets.token_hex(8)
        full = request.headers.get('x-amz-checksum-type') == 'FULL_OBJECT'
        self.uploads[name] = Upload(request.bucket, request.key, full)
        named = f'<Bucket>{request.bucket}</Bucket><Key>{escape(request.key)}</Key>'
        return _xml(f'<InitiateMultipartUploadResult>{named}<UploadId>{name}</UploadId></InitiateMultipartUploadResult>')

    def UploadPart(self, request):  # noqa: N802
        upload = self.uploads.get(request.query['uploadId'])
        if upload is None:
            return error(404, 'NoSuchUpload')
        if refused := self._refused(request, honoured=False):
            return refused
        if source := unquote(request.headers.get('x-amz-copy-source', '')):
            bucket, _, key = source.removeprefix('/').partition('/')
            first, _, last = request.headers['x-amz-copy-source-range'].removeprefix('bytes=').partition('-')
            part = self.buckets[bucket][key].body[int(first) : int(last) + 1]
            upload.parts[int(request.query['partNumber'])] = part
            return _xml(f'<CopyPartResult><ETag>"{hashlib.md5(part).hexdigest()}"</ETag></CopyPartResult>')
        upload.parts[int(request.query['partNumber'])] = request.body
        return Answer(200, headers=(('ETag', f'"{hashlib.md5(request.body).hexdigest()}"'),))

    def UploadPartCopy(self, request):  # noqa: N802
        bucket, _, key = unquote(request.headers['x-amz-copy-source']).removeprefix('/').partition('/')
        first, _, last = request.headers.get('x-amz-copy-source-range', 'bytes=0-').removeprefix('bytes=').partition('-')
        body = self.buckets[bucket][key].body[int(first) : int(last) + 1 if last else None]
        self.uploads[request.query['uploadId']].parts[int(request.query['partNumber'])] = body
        return _xml(f'<CopyPartResult><ETag>"{hashlib.md5(body).hexdigest()}"</ETag></CopyPartResult>')

    def CompleteMultipartUpload(self, request):  # noqa: N802
        upload = self.uploads.get(request.query['uploadId'])
        if upload is None:
            return error(404, 'NoSuchUpload')
        named = _etags(request.body)  # parts that are not named are not in the object
        if any(etag != hashlib.md5(upload.parts.get(number, b'')).hexdigest() for number, etag in named.items()):
            return error(400, 'InvalidPart')
        if self.conditional_multipart and request.headers.get('if-none-match') == '*' and request.key in self.buckets[request.bucket]:
            return error(412, 'PreconditionFailed')
        parts = [upload.parts[number] for number in sorted(named)]
        etag = f'{hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()}-{len(parts)}'
        body = b''.join(parts)
        self.buckets[request.bucket][request.key] = Object(body, etag, crc32(body) if upload.full_object else '')
        del self.uploads[request.query['uploadId']]
        named = f'<Location>{self.url}/</Location><Bucket>{request.bucket}</Bucket><Key>{escape(request.key)}</Key>'
        return _xml(f'<CompleteMultipartUploadResult>{named}<ETag>"{etag}"</ETag></CompleteMultipartUploadResult>')

    def ListParts(self, request):  # noqa: N802
        upload = self.uploads.get(request.query['uploadId'])
        if upload is None:
            return error(404, 'NoSuchUpload')
        parts = ''.join(f'<Part><PartNumber>{number}</PartNumber></Part>' for number in sorted(upload.parts))
        return _xml(f'<ListPartsResult>{parts}</ListPartsResult>')

    def AbortMultipartUpload(self, request):  # noqa: N802
        return Answer(204) if self.uploads.pop(request.query['uploadId'], None) else error(404, 'NoSuchUpload')

    def _refused(self, request, *, honoured):
        """Why these bytes are not taken, or None."""
        md5, crc = request.headers.get('content-md5'), request.headers.get('x-amz-checksum-crc32')
        if (md5 and md5 != base64.b64encode(hashlib.md5(request.body).digest()).decode()) or (crc and crc != crc32(request.body)):
            return error(400, 'BadDigest')
        if honoured and request.headers.get('if-none-match') == '*' and request.key in self.buckets[request.bucket]:
            return error(412, 'PreconditionFailed')
        return None


def _xml(text):
    return Answer(200, f'<?xml version="1.0"?>{text}'.encode(), (('Content-Type', 'application/xml'),))


def _etags(complete):
    """The ETags by the numbers of the parts, of the body of CompleteMultipartUpload."""
    parts = [{each.tag.rpartition('}')[2]: each.text for each in part} for part in ElementTree.fromstring(complete)]
    return {int(part['PartNumber']): part['ETag'].strip('"') for part in parts}


def _entry(name, found, restores=False):
    if found is None:
        return f'<CommonPrefixes><Prefix>{quote(name)}</Prefix></CommonPrefixes>'
    modified = datetime.fromtimestamp(found.modified, timezone.utc).strftime('%Y-%m-%dT%H:%M:%S.%fZ')
    said = f'<LastModified>{modified}</LastModified><ETag>&quot;{found.etag}&quot;</ETag><Size>{len(found.body)}</Size>'
    if found.storage_class:
        said += f'<StorageClass>{found.storage_class}</StorageClass>'
    if restores and found.restored:
        done = found.restored == RESTORED
        expiry = '<RestoreExpiryDate>2040-12-21T00:00:00Z</RestoreExpiryDate>' if done else ''
        said += f'<RestoreStatus><IsRestoreInProgress>{str(not done).lower()}</IsRestoreInProgress>{expiry}</RestoreStatus>'
    return f'<Contents><Key>{quote(name)}</Key>{said}</Contents>'


def _scattered(name):
    """What a listing that is not sorted goes by. The same names below another random folder come in the same order."""
    return hashlib.md5(name.rpartition('/')[2].encode()).hexdigest(), name


_PARTS = {
    'policy': {'GET': 'GetBucketPolicy', 'PUT': 'PutBucketPolicy', 'DELETE': 'DeleteBucketPolicy'},
    'lifecycle': {'GET': 'GetBucketLifecycle', 'PUT': 'PutBucketLifecycle'},
    'cors': {'GET': 'GetBucketCors', 'PUT': 'PutBucketCors'},
    'uploads': {'GET': 'ListMultipartUploads'},
    'versions': {'GET': 'ListObjectVersions'},
}


def _operation(method, bucket, key, query, headers):
    if not bucket:
        return 'ListBuckets'
    if not key:
        if part := next((part for part in _PARTS if part in query), None):
            return _PARTS[part].get(method, 'ListObjectsV2')
        return {
            'GET': 'ListObjectsV2',
            'HEAD': 'HeadBucket',
            'PUT': 'PutBucketSetting' if query else 'CreateBucket',
            'POST': 'DeleteObjects',
            'DELETE': 'DeleteBucket',
        }[method]
    if 'uploadId' in query:
        named = {'GET': 'ListParts', 'HEAD': 'HeadObject', 'PUT': 'UploadPart', 'POST': 'CompleteMultipartUpload', 'DELETE': 'AbortMultipartUpload'}
        return 'UploadPartCopy' if method == 'PUT' and 'x-amz-copy-source' in headers else named[method]
    if method == 'PUT' and 'x-amz-copy-source' in headers:
        return 'CopyObject'
    return {'GET': 'GetObject', 'HEAD': 'HeadObject', 'PUT': 'PutObject', 'POST': 'CreateMultipartUpload', 'DELETE': 'DeleteObject'}[method]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *args):
        super().__init__(*args)
        self.connections = set()

    def process_request(self, request, client_address):
        self.connections.add(request)
        super().process_request(request, client_address)

    def close_connections(self):
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the client was first

    def handle_error(self, request, client_address):
        """A client that goes away in the middle is what some tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    wbufsize = 65536

    def handle_expect_100(self):
        done = super().handle_expect_100()
        self.wfile.flush()
        return done

    def log_message(self, *_):
        """Quiet."""

    def _handle(self):
        s3 = self.server.s3
        path, _, query = self.path.partition('?')
        bucket, _, key = path.removeprefix('/').partition('/')
        headers = {name.lower(): value for name, value in self.headers.items()}
        fields = dict(parse_qsl(query, keep_blank_values=True))
        operation = _operation(self.command, bucket, key, fields, headers)
        body = self.rfile.read(int(headers.get('content-length', 0)))
        if len(body) < int(headers.get('content-length', 0)):
            self.close_connection = True  # the client has gone in the middle
            return
        request = Request(operation, unquote(bucket), unquote(key), fields, headers, body, self.path)
        s3.requests.append(request)
        fault = s3.fault_for(operation)
        if isinstance(fault, Answer):
            self._say(fault)
        elif isinstance(fault, Stalled):
            s3.reached.set()
            s3.stopping.wait()
            self.close_connection = True
        elif isinstance(fault, NoRanges):
            request.headers.pop('range', None)
            self._say(s3.serve(request))
        elif isinstance(fault, Lost):
            s3.serve(request)
            self._say(fault.answer)
        else:
            answer = s3.serve(request)
            self._say(answer._replace(body=answer.body + b'more') if isinstance(fault, Longer) else answer, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

    def _say(self, answer, fault=None):
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(answer.body)))
        self.end_headers()
        if self.command == 'HEAD':
            return
        body = answer.body
        if isinstance(fault, Cut):
            body, self.close_connection = body[: len(body) // 2], True
        elif isinstance(fault, Flipped):
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.wfile.write(body)
