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

"""Read and verify the body of a tool's request, as it comes, and without keeping it.

The last piece is withheld until everything is right: a storage that lacks bytes stores nothing. aws-chunked bodies are
decoded: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and sigv4-streaming-trailers.html. All
checksums in headers and trailers are verified.
"""

import base64
import hashlib
import re
import tempfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from hmac import compare_digest
from typing import IO, Any, Optional

from . import crcs
from .refusals import Refusal
from .signatures import Verified

__all__ = ['UNSIGNED', 'Body', 'Decoder', 'Streamed', 'spooled']

UNSIGNED = 'UNSIGNED-PAYLOAD'
_SIGNED_CHUNKS = ('STREAMING-AWS4-HMAC-SHA256-PAYLOAD', 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER')
_CHUNKED = (*_SIGNED_CHUNKS, 'STREAMING-UNSIGNED-PAYLOAD-TRAILER')
_SHA256 = re.compile('[0-9a-f]{64}')
_SIZE = re.compile(rb'([0-9a-fA-F]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?\r\n')
_LONGEST_LINE = 512  # bytes
_LONGEST_TRAILER = 4096
_PIECE = 256 * 1024
_LARGEST = 5 * 1024**4  # bytes; more than S3 takes in one request
_NOTHING = hashlib.sha256(b'').hexdigest()
_SIGNATURE = 'x-amz-trailer-signature'
_CHECKSUMS = {f'x-amz-checksum-{kind}': kind for kind in ('crc32', 'crc32c', 'crc64nvme', 'sha1', 'sha256')}
_KINDS = {'content-md5': 'md5'} | _CHECKSUMS


class Streamed(ABC):
    """A body that comes in pieces: ``length`` in bytes, ``payload`` for X-Amz-Content-SHA256.

    ``failure`` says why it ended early; ``adler32`` is the checksum of what was read of it.
    """

    length: int
    payload: str
    failure: Optional[Refusal] = None
    adler32: int = 1

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces, once."""


class Body(Streamed):
    """The body of a request.

    :param headers: The headers of the request.
    :param verified: What its signature says about the body.
    :param source: The bytes as they come.
    :raises Refusal: if its length or its kind is not known.
    """

    def __init__(self, headers: Mapping[str, str], verified: Verified, source: AsyncIterable[bytes]) -> None:
        kind = verified.payload
        self.is_chunked = kind in _CHUNKED
        if not self.is_chunked and kind != UNSIGNED and not _SHA256.fullmatch(kind):
            raise Refusal('NotImplemented', f"Bodies of the kind '{kind[:100]}' are not supported.")
        self.length = _length(headers, 'x-amz-decoded-content-length' if self.is_chunked else 'content-length')
        # The digest goes on to the storage, so that it is compared from end to end.
        self.payload = UNSIGNED if self.is_chunked else kind
        self._source = source
        self._begun = False
        self._sums: dict[str, tuple[_Sum, str]] = {}
        self._decoder = Decoder(self.length, headers, verified) if self.is_chunked else _Plain(kind)

    def expect(self, headers: Mapping[str, str]) -> None:
        """Have the body compared with the checksums in the headers of a request, where they are those of the body.

        :param headers: The headers.
        :raises Refusal: if there are several of S3's own, also in the trailer, or one is not possible.
        """
        trailer = self._decoder.names if isinstance(self._decoder, Decoder) else set()
        if len([name for name in _CHECKSUMS if name in headers or name in trailer]) > 1:
            raise Refusal('InvalidRequest', 'There are several x-amz-checksum- headers or trailers: send one.')
        self._sums = {name: (_Sum(kind), headers[name]) for name, kind in _KINDS.items() if name in headers}
        for name, (found, expected) in self._sums.items():
            found.need_possible(name, expected)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the verified body. It can be read once.

        :raises Refusal: if it is not right; ``failure`` is then set.
        """
        if self._begun:
            raise Refusal('ServiceUnavailable', 'The storage closed the connection: try again.')
        self._begun, held = True, b''
        try:
            async for data in self._source:
                for piece in self._decoder.feed(data):
                    self.adler32 = zlib.adler32(piece, self.adler32)
                    for each, _ in self._sums.values():
                        each.update(piece)
                    if held:
                        yield held
                    held = piece
            self._decoder.finish()
            for name, (found, expected) in self._sums.items():
                found.need(name, expected)
        except Refusal as refusal:
            self.failure = refusal
            raise
        if held:
            yield held

    async def whole(self, most: int) -> bytes:
        """Return the whole verified body.

        :param most: How many bytes it may have.
        :raises Refusal: if it has more, or is not right.
        """
        if self.length > most:
            raise Refusal('EntityTooLarge', f'The body has {self.length} bytes, but may have {most}.')
        return b''.join([piece async for piece in self])


def _length(headers: Mapping[str, str], name: str) -> int:
    given = headers.get(name)
    if given is None and name == 'content-length' and 'transfer-encoding' not in headers:
        return 0
    if given is None:
        raise Refusal('MissingContentLength', f'The header {name} is missing.')
    if not re.fullmatch('[0-9]{1,15}', given) or int(given) > _LARGEST:
        raise Refusal('InvalidArgument', f'The header {name} is not a possible length.')
    return int(given)


class _Spooled(Streamed):
    """A body in a temporary file, with its digest."""

    def __init__(self, file: IO[bytes], length: int, payload: str, adler32: int) -> None:
        self._file = file
        self.adler32 = adler32
        self.length = length
        self.payload = payload

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._file.seek(0)
        while piece := self._file.read(_PIECE):
            yield piece


@asynccontextmanager
async def spooled(body: Streamed) -> AsyncIterator[Streamed]:
    """Keep a body in a temporary file until the end of the block, to know its digest before it is sent.

    :param body: The body.
    :raises Refusal: if it is not right.
    """
    digest = hashlib.sha256()
    with tempfile.TemporaryFile() as file:
        async for piece in body:
            digest.update(piece)
            file.write(piece)
        yield _Spooled(file, body.length, digest.hexdigest(), body.adler32)


class _Plain:
    """A body as it is, whose digest is known or not."""

    def __init__(self, kind: str) -> None:
        self._expected = None if kind == UNSIGNED else kind
        self._digest = hashlib.sha256()

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._expected is not None:
            self._digest.update(data)
        yield data

    def finish(self) -> None:
        if self._expected is not None and not compare_digest(self._digest.hexdigest(), self._expected):
            raise Refusal('XAmzContentSHA256Mismatch', 'The body is not the one that was signed.')


class _Signatures:
    """The signatures of chunks, each of which depends on the one before."""

    def __init__(self, verified: Verified) -> None:
        self._scope = verified.scope
        self._recomputed = verified.recomputed
        self._before = verified.signature
        self._claimed = ''
        self._digest = hashlib.sha256()

    def begin(self, claimed: str) -> None:
        self._claimed, self._digest = claimed, hashlib.sha256()

    def update(self, piece: bytes) -> None:
        self._digest.update(piece)

    def end(self) -> None:
        self._compare('PAYLOAD', [_NOTHING, self._digest.hexdigest()], self._claimed)
        self._before = self._claimed

    def trailer(self, lines: str, claimed: str) -> None:
        self._compare('TRAILER', [hashlib.sha256(lines.encode()).hexdigest()], claimed)

    def _compare(self, kind: str, digests: list[str], claimed: str) -> None:
        text = '\n'.join([f'AWS4-HMAC-SHA256-{kind}', self._scope, self._before, *digests])
        if not compare_digest(self._recomputed.of_text(text).encode(), claimed.encode()):
            raise Refusal('SignatureDoesNotMatch', 'The signature of a chunk of the body is not right.')


class Decoder:
    """Decode an aws-chunked body, and verify the signatures of its chunks and the checksum behind them.

    :param length: The length of the decoded body in bytes.
    :param headers: The headers of the request.
    :param verified: Its signature.
    """

    def __init__(self, length: int, headers: Mapping[str, str], verified: Verified) -> None:
        self._length = length
        self._signatures = _Signatures(verified) if verified.payload in _SIGNED_CHUNKS else None
        self.names = {each.strip().lower() for each in headers.get('x-amz-trailer', '').split(',') if each.strip()}
        self._sums = _sums(self.names)
        self._line = bytearray()
        self._trailer = bytearray()
        self._left = self._total = 0
        self._expects = 'size'

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded content of the next bytes.

        :param data: The bytes as they come.
        :raises Refusal: if they are not what the protocol prescribes, or a signature is wrong.
        """
        while data:
            if self._expects == 'data':
                piece, data = data[: self._left], data[self._left :]
                yield self._content(piece)
            elif self._expects == 'trailer':
                self._trailer += data
                if len(self._trailer) > _LONGEST_TRAILER:
                    raise Refusal('InvalidRequest', 'The trailer of the body is too long.')
                return
            else:
                end = data.find(b'\n') + 1 or len(data)
                self._line += data[:end]
                data = data[end:]
                if len(self._line) > _LONGEST_LINE:
                    raise Refusal('InvalidRequest', 'The size of a chunk is too long.')
                if self._line.endswith(b'\n'):
                    self._begin(bytes(self._line))
                    self._line.clear()

    def finish(self) -> None:
        """Verify that the body is complete, with the trailer that was announced.

        :raises Refusal: if it is not.
        """
        if self._expects != 'trailer' or self._total != self._length:
            raise Refusal('IncompleteBody', f'The body has {self._total} bytes instead of {self._length}.')
        found = self._read_trailer()
        claimed = found.pop(_SIGNATURE, None)
        if found.keys() != self.names:
            raise Refusal('InvalidRequest', 'The trailer of the body is not the one that x-amz-trailer announces.')
        if self._signatures and self.names:
            self._signatures.trailer(''.join(f'{name}:{found[name]}\n' for name in sorted(found)), claimed or '')
        for name, value in self._sums.items():
            value.need(name, found[name])

    def _begin(self, line: bytes) -> None:
        """Begin what a line is before: a chunk, or the trailer."""
        if self._expects == 'end':
            if line != b'\r\n':
                raise Refusal('InvalidRequest', 'A chunk is longer than its size.')
            self._expects = 'size'
            return
        found = _SIZE.fullmatch(line)
        if found is None or bool(found[2]) != bool(self._signatures):
            raise Refusal('InvalidRequest', 'The size of a chunk is not HEX, with a signature if chunks are signed.')
        self._left = int(found[1], 16)
        if self._total + self._left > self._length:
            raise Refusal('InvalidRequest', 'The chunks are longer than x-amz-decoded-content-length.')
        if self._signatures:
            self._signatures.begin(found[2].decode())
        self._expects = 'data'
        if not self._left:
            self._end_chunk('trailer')

    def _content(self, piece: bytes) -> bytes:
        self._left -= len(piece)
        self._total += len(piece)
        if self._signatures:
            self._signatures.update(piece)
        for each in self._sums.values():
            each.update(piece)
        if not self._left:
            self._end_chunk('end')
        return piece

    def _end_chunk(self, expects: str) -> None:
        if self._signatures:
            self._signatures.end()
        self._expects = expects

    def _read_trailer(self) -> dict[str, str]:
        lines = self._trailer.decode('ascii', errors='replace').split('\n')
        pairs = [line.strip().partition(':') for line in lines if line.strip()]
        found = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if len(found) != len(pairs):
            raise Refusal('InvalidRequest', 'A line of the trailer is repeated.')
        return found


class _Crc32:
    def __init__(self) -> None:
        self._crc = 0

    def update(self, piece: bytes) -> None:
        self._crc = zlib.crc32(piece, self._crc)

    def digest(self) -> bytes:
        return self._crc.to_bytes(4, 'big')


class _Sum:
    """A checksum of the decoded body, in base64."""

    def __init__(self, kind: str) -> None:
        self._digest: Any
        if kind == 'crc32':
            self._digest = _Crc32()
        else:
            self._digest = crcs.Crc(kind) if kind in crcs.KINDS else hashlib.new(kind, usedforsecurity=False)
        self.update = self._digest.update

    def need_possible(self, name: str, expected: str) -> None:
        try:
            size = len(base64.b64decode(expected, validate=True))
        except ValueError:
            size = 0
        if size != len(self._digest.digest()):
            code = 'InvalidDigest' if name == 'content-md5' else 'InvalidRequest'
            raise Refusal(code, f'The header {name} is not a checksum of its kind in base64.')

    def need(self, name: str, expected: str) -> None:
        if not compare_digest(base64.b64encode(self._digest.digest()), expected.encode()):
            raise Refusal('BadDigest', f'The body does not have the {name} that was sent with it.')


def _sums(names: set[str]) -> dict[str, _Sum]:
    return {name: _Sum(kind) for name, kind in _KINDS.items() if name in names}
