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

"""Other people's clients on each storage: they read what the protocol class wrote, it reads what they wrote, in one piece and in parts.

With the environment that `rucio s3 exec` gives them; tests/interop has the keys that are vended.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.storage import Kind
from conformance.rig import Backend, MiB, Rig
from interop.test_clients import CLIENTS
from interop.world import Tools
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.formats import Access, tool_environment
from servers.process import until

pytestmark = pytest.mark.long

COLON = 'COLON'  # stands for one in an access key, as Swift's have it, while the variable of mc is made, which cannot hold it
NO_TOKEN = 'none'  # these keys have none: what would name it is taken out of the environment
ALIAS = 'site_s3'
PATH = os.environ.get('RUCIO_S3_TOOLS') or os.environ.get('PATH', os.defpath)
SIZES = {'empty': 0, 'in_parts': 20 * MiB}
LATE = {'swift'}  # once, on a busy machine, a listing lacked what had just been written
# mc sends an empty file by http as chunks, which these refuse: XAmzContentSHA256Mismatch, AccessDenied and MissingContentLength. Ceph Reef takes it.
NO_EMPTY_FILES = {('mc', 'Ceph Pacific'), ('mc', 'Ceph Tentacle'), ('mc', 'rclone')}


@pytest.fixture(scope='class')
def rig(kind: Kind, server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    backend = Backend(
        server.scheme, server.hostname, server.port, provider=kind.provider, access_key=server.access_key, secret_key=server.secret_key, region=server.region
    )
    with Rig(backend, tmp_path_factory.mktemp('rucio')).installed() as rig:
        yield rig


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(tmp_path, PATH)


def run(rig: Rig, tools: Tools, client: str, verb: str, **names: Any) -> str:
    """A client's command, with keys for the bucket; what it printed."""
    endpoint = Endpoint.load(rig.rse(), rig.rse()['protocols'][0])
    keys: Any = {
        'rse': 'SITE_S3',
        'access_key': rig.backend.access_key.replace(':', COLON),
        'secret_key': rig.backend.secret_key,
        'session_token': NO_TOKEN,
        'expiration': '2099-01-01T00:00:00Z',
    }
    access = Access(ALIAS, keys, rig.backend.url, rig.backend.region, 'path', only_md5=endpoint.checksum != 'crc32')
    words = CLIENTS[client][verb].format(bucket=rig.bucket, alias=ALIAS, **names).split()
    # mc has the token in its URL.
    env = {
        name: value.replace(f':{NO_TOKEN}@', '@').replace(COLON, ':') for name, value in tool_environment({}, [access]).items() if value not in ('', NO_TOKEN)
    }
    done = tools.run([tools.find(words[0]), *words[1:]], env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize('client', CLIENTS)
class TestClients:
    def test_there_and_back(self, kind: Kind, rig: Rig, tools: Tools, unique: str, client: str) -> None:
        tools.find(client)
        if client == 'mc' and ':' in rig.backend.access_key:
            pytest.skip('the variable of mc cannot hold an access key with a colon')
        sizes = {name: size for name, size in SIZES.items() if size or (client, kind.name) not in NO_EMPTY_FILES}
        for name, size in sizes.items():
            file, copy = tools.home / name, tools.home / f'{name} copy'.replace(' ', '.')
            content = os.urandom(size)
            file.write_bytes(content)
            run(rig, tools, client, 'put', file=file, name=f'{unique}/theirs.{name}')
            self.is_read_by_us(rig, f'{unique}/theirs.{name}', content, copy)
            rig.protocol('write').put(str(file), rig.pfn(f'{unique}/ours.{name}'))
            run(rig, tools, client, 'get', name=f'{unique}/ours.{name}', copy=copy)
            assert copy.read_bytes() == content
        wanted = {f'{whose}.{name}' for name in sizes for whose in ('ours', 'theirs')}

        def is_listed() -> bool:
            return wanted <= set(run(rig, tools, client, 'ls', folder=unique).replace('/', ' ').split())

        assert until(is_listed) if rig.backend.provider in LATE else is_listed()

    def is_read_by_us(self, rig: Rig, name: str, content: bytes, copy: Path) -> None:
        assert rig.stored(name) == content
        protocol, md5 = rig.protocol('read'), hashlib.md5(content).hexdigest()
        stat = protocol.stat(rig.pfn(name))
        assert (stat['filesize'], stat.get('md5', md5)) == (len(content), md5)
        protocol.get(rig.pfn(name), str(copy))
        assert copy.read_bytes() == content
        copy.unlink()
