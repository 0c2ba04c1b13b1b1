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

import base64
import hashlib
import io
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio.common.s3.checksums import combine_adler32, combine_crc32, crc32_of, etag_of


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_the_crc32_of_two_pieces_is_that_of_the_whole(first, second):
    assert combine_crc32(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_the_adler32_of_two_pieces_is_that_of_the_whole(first, second):
    assert combine_adler32(zlib.adler32(first), zlib.adler32(second), len(second)) == zlib.adler32(first + second)


def test_the_adler32_of_a_large_second_piece():
    second = b'\xff' * 70_000
    assert combine_adler32(zlib.adler32(b'x'), zlib.adler32(second), len(second)) == zlib.adler32(b'x' + second)


def test_the_crc32_of_a_large_second_piece():
    second = bytes(16 * 1024**2 + 3)
    assert combine_crc32(zlib.crc32(b'x'), zlib.crc32(second), len(second)) == zlib.crc32(second, zlib.crc32(b'x'))


def base64_of(content):
    return base64.b64encode(zlib.crc32(content).to_bytes(4, 'big')).decode()


def test_the_checksums_of_a_file_are_those_of_s3():
    file = io.BytesIO(b'x' * 25)
    assert crc32_of(file) == base64_of(b'x' * 25)
    assert etag_of(file, 0) == hashlib.md5(b'x' * 25).hexdigest()
    parts = [hashlib.md5(b'x' * size).digest() for size in (10, 10, 5)]
    assert etag_of(file, 10) == f'{hashlib.md5(b"".join(parts)).hexdigest()}-3'


MiB = 1024**2


@pytest.mark.parametrize('size', [0, 1, MiB - 1, MiB, MiB + 1, 3 * MiB])
def test_a_file_of_any_size_is_read_from_its_beginning(size):
    content = random.Random(size).randbytes(size)
    file = io.BytesIO(content)
    file.seek(0, io.SEEK_END)
    assert crc32_of(file) == base64_of(content)
    assert etag_of(file, 0) == hashlib.md5(content).hexdigest()


@pytest.mark.parametrize('part', [MiB // 2, MiB - 1, MiB, MiB + 1, 3 * MiB // 2, 4 * MiB])
@pytest.mark.parametrize('size', [1, 3 * MiB - 1, 3 * MiB, 3 * MiB + 1])
def test_parts_of_more_or_less_than_is_read_at_once(size, part):
    content = random.Random(size).randbytes(size)
    parts = [hashlib.md5(content[start : start + part]).digest() for start in range(0, size, part)]
    file = io.BytesIO(content)
    file.seek(0, io.SEEK_END)
    assert etag_of(file, part) == f'{hashlib.md5(b"".join(parts)).hexdigest()}-{len(parts)}'
