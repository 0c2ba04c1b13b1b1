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

"""A proxy between a client and a storage that adds a round trip's time, or counts requests; a program of its own.

    python bench/proxy.py --listen 7000 --to 127.0.0.1:8333 --delay 0.1
    python bench/proxy.py --listen 7000 --to 127.0.0.1:8333 --count requests.log --certificate server.pem --key server-key.pem --ca ca.pem

To delay, it passes bytes on, half of the time later each way, however many there are: latency without a limit of the bandwidth, also of https,
of which it understands nothing. To count, it ends https itself, as it has to read the requests; nobody should measure time through that.
"""

import argparse
import asyncio
import contextlib
import ssl
from pathlib import Path

PIECE = 256 * 1024
WINDOW = 64 * 1024**2  # bytes on the way; a sender waits when it is full


class Line:
    """One direction of a connection: what goes in comes out after a time."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(WINDOW // PIECE)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sending = asyncio.ensure_future(self._send(writer))
        try:
            while piece := await reader.read(PIECE):
                await self._queue.put((self._due(), piece))
        finally:
            await self._queue.put((self._due(), b''))
            await sending

    def _due(self) -> float:
        return asyncio.get_running_loop().time() + self._delay

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        broken = False
        while True:
            due, piece = await self._queue.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            if not piece:
                break
            if not broken:
                writer.write(piece)
                try:
                    await writer.drain()
                except OSError:
                    broken = True  # goes on emptying the queue, for whoever fills it
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof() if writer.can_write_eof() else writer.close()


class Counter:
    """Passes requests on, and writes a line of each to a file before the storage sees it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open('ab', buffering=0)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b'\r\n\r\n')
                self._file.write(b' '.join(head.split(b'\r\n', 1)[0].split(b' ')[:2]) + b'\n')
                writer.write(head)
                await self._body(head.lower(), reader, writer)
                await writer.drain()
        writer.close()

    async def _body(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers = dict(line.split(b':', 1) for line in head.split(b'\r\n')[1:] if b':' in line)
        if b'chunked' in headers.get(b'transfer-encoding', b''):
            size = -1
            while size:
                line = await reader.readuntil(b'\r\n')
                size = int(line.split(b';')[0], 16)
                writer.write(line)
                await copy(size + 2, reader, writer)
        else:
            await copy(int(headers.get(b'content-length', 0)), reader, writer)


async def copy(size: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while size:
        piece = await reader.read(min(size, PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b'', size)
        writer.write(piece)
        await writer.drain()
        size -= len(piece)


async def plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description='a proxy that delays or counts')
    parser.add_argument('--listen', type=int, required=True)
    parser.add_argument('--to', required=True)
    parser.add_argument('--delay', type=float, default=0, help='a round trip, in seconds')
    parser.add_argument('--count', type=Path, help='the file that gets a line for each request')
    for name in ('certificate', 'key', 'ca'):
        parser.add_argument(f'--{name}', type=Path)
    options = parser.parse_args()
    host, _, port = options.to.partition(':')
    client = ssl.create_default_context(cafile=options.ca) if options.ca else None
    counter = Counter(options.count) if options.count else None

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The handshake of TCP, which the kernel has had with us already.
        await asyncio.sleep(options.delay)
        answers, requests = await asyncio.open_connection(host, int(port), ssl=client, limit=PIECE)
        there, back = (counter.carry, plainly) if counter else (Line(options.delay / 2).carry, Line(options.delay / 2).carry)
        with contextlib.suppress(OSError):
            await asyncio.gather(there(reader, requests), back(answers, writer), return_exceptions=True)
        for each in (requests, writer):
            each.close()

    server = None
    if options.certificate:
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(options.certificate, options.key)
    async with await asyncio.start_server(connected, '127.0.0.1', options.listen, ssl=server, limit=PIECE, backlog=1024) as listening:
        await listening.serve_forever()


if __name__ == '__main__':
    asyncio.run(main())
