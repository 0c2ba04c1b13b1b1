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

"""Files of a directory by the protocol class or by boto3; a program of its own, so that all contestants are processes.

python bench/program.py class|boto3 up|down|delete|idle DIRECTORY URL BUCKET PREFIX
"""

import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

THREADS = 8  # as `rucio s3 upload` has


class ProtocolClass:
    """rucio.rse.protocols.s3.Default, as Rucio's clients use it: a new protocol object for each transfer."""

    def __init__(self, url: str, bucket: str) -> None:
        from rucio.rse import rsemanager  # noqa: PLC0415 - boto3's program has none of it

        self._manager, self._place = rsemanager, f'{url}/{bucket}'
        address, every = urlsplit(url), {'read': 1, 'write': 1, 'delete': 1}
        self._protocol: dict[str, Any] = {
            'scheme': address.scheme,
            'hostname': address.hostname,
            'port': address.port,
            'prefix': '/',
            'impl': 'rucio.rse.protocols.s3.Default',
            'domains': {'lan': every, 'wan': every},
            'extended_attributes': {'s3': {'provider': 'seaweedfs'}},
        }

    def _connected(self, operation: str) -> Any:
        rse: Any = {
            'rse': 'BENCH',
            'id': 'bench',
            'deterministic': True,
            'lfn2pfn_algorithm': 's3_bucket',
            'sign_url': None,
            'protocols': [dict(self._protocol)],
        }
        protocol = self._manager.create_protocol(rse, operation)
        protocol.connect()
        return protocol

    def idle(self) -> None:
        self._connected('read')

    def up(self, path: Path, key: str) -> None:
        self._connected('write').put(str(path), f'{self._place}/{key}')

    def down(self, key: str, path: Path) -> None:
        self._connected('read').get(f'{self._place}/{key}', str(path))

    def delete(self, key: str) -> None:
        self._connected('delete').delete(f'{self._place}/{key}')


class Boto3:
    def __init__(self, url: str, bucket: str) -> None:
        import boto3  # noqa: PLC0415 - after the time that all contestants need to start Python
        from botocore.config import Config  # noqa: PLC0415

        self._bucket = bucket
        self._client = boto3.client('s3', endpoint_url=url, config=Config(s3={'addressing_style': 'path'}, max_pool_connections=64))

    def idle(self) -> None:
        pass

    def up(self, path: Path, key: str) -> None:
        self._client.upload_file(str(path), self._bucket, key)

    def down(self, key: str, path: Path) -> None:
        self._client.download_file(self._bucket, key, str(path))

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=key)


def main() -> None:
    name, verb, directory, url, bucket, prefix = sys.argv[1:]
    tool: Any = {'class': ProtocolClass, 'boto3': Boto3}[name](url, bucket)
    root = Path(directory)
    if verb == 'idle':
        tool.idle()
        return
    # Which files there are is told by a list, as nobody measures who lists fastest.
    names = [line for line in (root.parent / 'names').read_text(encoding='utf-8').splitlines() if line]
    actions = {
        'up': lambda each: tool.up(root / each, f'{prefix}/{each}'),
        'down': lambda each: tool.down(f'{prefix}/{each}', root / each),
        'delete': lambda each: tool.delete(f'{prefix}/{each}'),
    }
    if verb == 'down':
        for folder in {(root / each).parent for each in names}:
            folder.mkdir(parents=True, exist_ok=True)
    in_threads(actions[verb], names)


def in_threads(action: Any, names: Iterable[str]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(action, names):
            pass


if __name__ == '__main__':
    main()
