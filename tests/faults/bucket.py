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

"""The S3 of these tests behind boto3's own client, but without a socket: it can be killed with its client, and goes on after that.

What a child process does to it is written into a journal, from which its parent learns it, also if the child is killed.
"""

import hashlib
import io
import json
import math
import os
import time
from urllib.parse import parse_qsl, unquote, urlsplit

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from urllib3.response import HTTPResponse

from servers.fake_s3 import FakeS3, Object, Request, _operation


def content(size, seed):
    """Bytes that are the same whenever they are asked for."""
    return (hashlib.sha256(str(seed).encode()).digest() * (size // 32 + 1))[:size]


def etag(body, parts):
    """As S3 gives it to an object that was written at once, or as one part."""
    if not parts:
        return hashlib.md5(body).hexdigest()
    return f'{hashlib.md5(hashlib.md5(body).digest()).hexdigest()}-1'


def _soon():
    """A HEAD tells whole seconds: an object that is written in the same second as a row of Rucio's does not look newer. Users are not so fast."""
    return math.ceil(time.time())


class Bucket(FakeS3):
    """One bucket. ``before(operation, key)`` is called before each request, and may answer with what does something else instead."""

    def __init__(self, name, journal):
        super().__init__()
        self.name = name
        self.page = 7
        self.make_bucket(name)
        self.before = lambda *_: None
        self.written = {}  # what others wrote and did not delete since
        self.removed = set()  # what was not there all the time
        self._journal = journal
        self._owner = os.getpid()

    @property
    def objects(self):
        return self.buckets[self.name]

    def begin(self, objects):
        """These are there, and nothing else."""
        self.buckets[self.name] = dict(objects)
        self.removed = set()

    def wrong(self):
        """What is there and should not, or the other way round."""
        return []

    # What others do

    def put(self, key, size, seed, *, parts=False, age=0):
        """Another client writes an object, some seconds ago."""
        self._do(['put', key, size, str(seed), parts, _soon() - age])

    def remove(self, key):
        self._do(['remove', key])

    def rename(self, key, other):
        """As clients do it: a copy, and then a delete."""
        self._do(['copy', key, other, _soon()])
        self._do(['remove', key])

    def _do(self, act):
        if os.getpid() != self._owner:
            with open(self._journal, 'a') as journal:
                journal.write(json.dumps(act) + '\n')
        self._apply(act)

    def _apply(self, act):
        if act[0] == 'put':
            _, key, size, seed, parts, modified = act
            body = content(size, seed)
            self.objects[key] = Object(body, etag(body, parts), modified=modified)
            self.written[key] = body
        elif act[0] == 'copy':
            source = self.objects[act[1]]
            self.objects[act[2]] = Object(source.body, source.etag, modified=act[3])
            self.written[act[2]] = source.body
        else:
            self.objects.pop(act[1], None)
            self.removed.add(act[1])
            if act[0] == 'remove':
                self.written.pop(act[1], None)

    def replay(self):
        """What a child process did to the bucket, now in this process, too."""
        if os.path.exists(self._journal):
            with open(self._journal) as journal:
                for line in journal:
                    self._apply(json.loads(line))
            os.remove(self._journal)

    def DeleteObject(self, request):  # noqa: N802
        self._do(['deleted by Rucio', request.key])
        return super().DeleteObject(request)

    # As boto3 reaches it

    def attach(self, client):
        """Answer this client's requests."""
        client.meta.events.register('before-send.s3', self._send)

    def _send(self, request, **_):
        address = urlsplit(request.url)
        bucket, _, key = unquote(address.path).removeprefix('/').partition('/')
        headers = {str(name).lower(): value if isinstance(value, str) else value.decode() for name, value in request.headers.items()}
        query = dict(parse_qsl(address.query, keep_blank_values=True))
        body = request.body or b''
        operation = _operation(request.method, bucket, key, query, headers)
        wanted = Request(operation, bucket, key, query, headers, body if isinstance(body, bytes) else body.read(), request.url)
        fault = self.before(operation, key)
        answer = fault(self, wanted) if fault else self.answer(wanted)
        return None if answer is None else _response(request, answer, method=request.method)

    def answer(self, request):
        """What the storage says; None: it has to be asked."""
        return self.serve(request)


def _response(request, answer, method):
    if isinstance(answer, str):
        kinds = {'time-out': ReadTimeoutError(endpoint_url=request.url, error='on demand')}
        raise kinds.get(answer) or ConnectionClosedError(endpoint_url=request.url, error='on demand', request=request)
    headers = {**dict(answer.headers), 'Content-Length': str(len(answer.body))}
    body = b'' if method == 'HEAD' else answer.body
    raw = HTTPResponse(io.BytesIO(body), headers=headers, status=answer.status, preload_content=False, request_method=method)
    return AWSResponse(request.url, answer.status, raw.headers, raw)


class RealBucket(Bucket):
    """The same in front of a real S3 server. What should be there is remembered here."""

    def __init__(self, name, journal, connect):
        super().__init__(name, journal)
        self.page = 1000  # pages of one are not continued by the other
        self._connect, self._clients = connect, {}
        self._s3.create_bucket(Bucket=name)

    @property
    def _s3(self):
        """No connection may live in two processes."""
        if os.getpid() not in self._clients:
            self._clients[os.getpid()] = self._connect()
        return self._clients[os.getpid()]

    def begin(self, objects):
        for key in self._really():
            self._s3.delete_object(Bucket=self.name, Key=key)
        for key, each in objects.items():
            self._write(key, each.body, parts='-' in each.etag)
        super().begin(objects)

    def wrong(self):
        # SeaweedFS makes a directory of a key with a slash at its end.
        there, remembered = ({key: body for key, body in each.items() if not key.endswith('/')} for each in (self._really(), self._remembered()))
        return sorted(f'{key}: is not in the bucket as it should be' for key, _ in there.items() ^ remembered.items())

    def _remembered(self):
        return {key: each.body for key, each in self.objects.items()}

    def put(self, key, size, seed, *, parts=False, age=0):
        # Within a second nothing but its size would tell it from what Rucio knows.
        known = self.objects.get(key)
        super().put(key, size, seed, parts=parts and size > 0 and (known is None or len(known.body) != size), age=age)

    def _do(self, act):
        if act[0] == 'put':
            self._write(act[1], content(act[2], act[3]), parts=act[4])
        elif act[0] == 'copy':
            self._s3.copy_object(Bucket=self.name, Key=act[2], CopySource={'Bucket': self.name, 'Key': act[1]})
        elif act[0] == 'remove':
            self._s3.delete_object(Bucket=self.name, Key=act[1])
        super()._do(act)

    def answer(self, request):
        if request.operation == 'DeleteObject' and request.bucket == self.name:
            self._do(['deleted by Rucio', request.key])

    def _write(self, key, body, *, parts):
        place = {'Bucket': self.name, 'Key': key}
        if not parts:
            self._s3.put_object(**place, Body=body)
            return
        upload = {**place, 'UploadId': self._s3.create_multipart_upload(**place)['UploadId']}
        part = self._s3.upload_part(**upload, PartNumber=1, Body=body)
        self._s3.complete_multipart_upload(**upload, MultipartUpload={'Parts': [{'PartNumber': 1, 'ETag': part['ETag']}]})

    def _really(self):
        keys = [each['Key'] for each in self._s3.list_objects_v2(Bucket=self.name).get('Contents', [])]
        return {key: self._s3.get_object(Bucket=self.name, Key=key)['Body'].read() for key in keys}
