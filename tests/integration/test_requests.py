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

"""What an upload and a download cost, counted where they arrive: at the S3 server and at the Rucio server."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from faults.proxy import FaultProxy
from servers.cli import s3_keys
from servers.seaweedfs import SeaweedFS
from servers.site import SCOPE, Site

S3, POSIX = 'COUNTED_S3', 'COUNTED_POSIX'


@pytest.fixture(scope='module')
def counter(site: Site, plain: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """In front of the S3 server; and an RSE with a protocol of Rucio's own to compare with."""
    with FaultProxy(plain.hostname, plain.port) as proxy:
        storage = SimpleNamespace(scheme='http', hostname='127.0.0.1', port=proxy.port, region=plain.region)
        site.add_rse(S3, storage)
        site.alice.configure(s3_keys(S3, plain))
        site.add_rse(POSIX, storage, impl='rucio.rse.protocols.posix.Default', attributes={'lfn2pfn_algorithm': 'hash'})
        folder = tmp_path_factory.mktemp('posix')
        every = {'read': 1, 'write': 1, 'delete': 1}
        file = {'scheme': 'file', 'hostname': 'localhost', 'port': 0, 'prefix': f'{folder}/', 'impl': 'rucio.rse.protocols.posix.Default'}
        site.root.call('delete_protocols', POSIX, 'http')
        site.root.call('add_protocol', POSIX, {**file, 'domains': {'lan': every, 'wan': every}})
        yield proxy


def cost(site: Site, proxy: FaultProxy, *words: str) -> tuple[Counter[str], Counter[str]]:
    """The requests that a command makes: to S3 and to Rucio."""
    s3, rucio = len(proxy.operations()), len(site.root.server.requests())
    done = site.alice.rucio(*words)
    assert 'ERROR' not in done.stderr, done.stderr
    asked = (f'{request.method} /{request.uri.split("/")[1]}' for request in site.root.server.requests()[rucio:])
    return Counter(proxy.operations()[s3:]), Counter(asked)


def test_a_small_file_costs_two_requests_up_and_one_down(site: Site, counter: FaultProxy, unique: str, tmp_path: Path) -> None:
    file = tmp_path / 'file'
    file.write_bytes(b'content')

    def there_and_back(rse: str, name: str) -> tuple[Counter[str], Counter[str], Counter[str], Counter[str]]:
        up = cost(site, counter, 'upload', '--rse', rse, '--scope', SCOPE, '--lfn', name, str(file))
        down = cost(site, counter, 'download', '--dir', str(tmp_path / rse), f'{SCOPE}:{name}')
        assert (tmp_path / rse / SCOPE / name).read_bytes() == b'content'
        return *up, *down

    there_and_back(S3, f'{unique}.first')  # the first of all gets a token from the Rucio server
    s3_up, rucio_up, s3_down, rucio_down = there_and_back(S3, f'{unique}.s3')
    _, posix_up, _, posix_down = there_and_back(POSIX, f'{unique}.posix')

    assert s3_up == {'HeadObject': 1, 'PutObject': 1}
    assert s3_down == {'GetObject': 1}
    assert rucio_up == posix_up
    assert rucio_down == posix_down
