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
"""What urllib3 does not promise, and this project relies on: the test fails when that changes."""

import io
from http.client import HTTPResponse
from types import SimpleNamespace

import urllib3

from rucio.common.s3 import urllib3_internals as internals

CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ncontent\r\n0\r\n\r\n'


def test_the_lines_between_chunks_are_read_from_the_file_that_was_put_there():
    lines = []

    class File:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def readline(self, *size):
            lines.append(self.file.readline(*size))
            return lines[-1]

    raw = HTTPResponse(SimpleNamespace(makefile=lambda *_: io.BytesIO(CHUNKED)))
    raw.begin()
    answer = urllib3.HTTPResponse(raw, headers=dict(raw.headers), preload_content=False)
    internals.replace_file(answer, File)
    assert b''.join(answer.stream()) == b'content'
    assert lines[:2] == [b'7\r\n', b'0\r\n']


def test_an_answer_without_a_connection_is_left_alone():
    answer = urllib3.HTTPResponse(b'x', preload_content=False)
    internals.replace_file(answer, lambda _: 1 / 0)
    internals.replace_file(object(), lambda _: 1 / 0)
