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

"""A Rucio server, an S3 server with an STS, two users who hold no key, and other people's clients.

The clients are looked for in the directory that RUCIO_S3_TOOLS names, else on the PATH; requirements.txt says which. A test
whose client is not there is skipped.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interop.world import Tools, World, new_world
from servers.ca import CA
from servers.ceph import CephRGW
from servers.ceph import missing as missing_ceph
from servers.seaweedfs import SeaweedFS


@pytest.fixture(scope='session')
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """SeaweedFS over https, with a certificate of our own CA."""
    ca = CA(tmp_path_factory.mktemp('ca'))
    with SeaweedFS(tmp_path_factory.mktemp('storage'), tls=ca, sts=True) as storage:
        yield from new_world(tmp_path_factory, storage, {'s3': {'ca_bundle': ca.bundle}}, {})


@pytest.fixture(scope='session')
def ceph_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Ceph's gateway over http, where it is installed."""
    if reason := missing_ceph():
        pytest.skip(reason)
    with CephRGW(tmp_path_factory.mktemp('ceph')) as storage:
        yield from new_world(tmp_path_factory, storage, {}, {'provider': 'ceph'})


@pytest.fixture(params=['SeaweedFS', pytest.param('Ceph', marks=pytest.mark.long)])
def any_world(request: pytest.FixtureRequest) -> World:
    return request.getfixturevalue({'SeaweedFS': 'world', 'Ceph': 'ceph_world'}[request.param])


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(tmp_path, os.environ.get('RUCIO_S3_TOOLS') or os.environ.get('PATH', os.defpath))


@pytest.fixture
def large(tmp_path: Path) -> Callable[[], Path]:
    """A file that clients send in parts."""

    def make() -> Path:
        path = tmp_path / 'large'
        path.write_bytes(os.urandom(1024 * 1024) * 20)
        return path

    return make
