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

"""What holds for all tests, and a small site, made once for each worker: S3 servers, a Rucio server, its users."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

# Rucio reads its configuration when it is imported, and decides then, once, whether it is a client or a server, which asks
# its database for settings. Here it is a client without a configuration; each test that needs one makes its own.
os.environ['RUCIO_CLIENT_MODE'] = '1'
os.environ['RUCIO_CONFIG'] = os.devnull

from servers import built
from servers.ca import CA
from servers.ceph import CephRGW, missing
from servers.cli import RucioCli, add_user, s3_keys
from servers.fixtures import teams
from servers.postgres import PostgreSQL
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS
from servers.site import SCOPE, PostgresSite, Site

LONG = bool(os.environ.get('RUCIO_S3_TEST_LONG'))
REAL = [Path(__file__).parent / name for name in ('attacks', 'backends', 'integration', 'interop')]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(folder in item.path.parents for folder in REAL):
            item.add_marker('integration')
        if item.get_closest_marker('long') and not LONG:
            item.add_marker(pytest.mark.skip(reason='takes minutes: make test-long'))


def pytest_collection_finish() -> None:
    """What was imported and collected stays: looking for garbage there took 8 % of the CPU time of the unit tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope='session')
def ca(tmp_path_factory: pytest.TempPathFactory) -> CA:
    return CA(tmp_path_factory.mktemp('ca'))


@pytest.fixture(scope='session')
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """An S3 server that speaks http."""
    with SeaweedFS(tmp_path_factory.mktemp('plain')) as server:
        server.client().create_bucket(Bucket=SCOPE)
        yield server


@pytest.fixture(scope='session')
def tls(tmp_path_factory: pytest.TempPathFactory, ca: CA) -> Iterator[SeaweedFS]:
    """An S3 server that speaks https, with a certificate of our own CA."""
    with SeaweedFS(tmp_path_factory.mktemp('tls'), tls=ca) as server:
        server.client().create_bucket(Bucket=SCOPE)
        yield server


@pytest.fixture(scope='session')
def sts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """An S3 server with a Security Token Service (http)."""
    with SeaweedFS(tmp_path_factory.mktemp('sts'), sts=True) as server:
        yield server


@pytest.fixture(scope='session')
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephRGW]:
    """Ceph's S3 gateway with its STS, where Debian's packages are installed."""
    if reason := missing():
        pytest.skip(f'no Ceph: {reason}')
    with CephRGW(tmp_path_factory.mktemp('ceph')) as server:
        yield server


@pytest.fixture(scope='session')
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[built.MinIO]:
    """MinIO, and the user of docs/operators.md, where there are such a program and its client."""
    if reason := built.minio_user_missing():
        pytest.skip(f'no MinIO: {reason}')
    with built.MinIO(tmp_path_factory.mktemp('minio')) as server:
        server.make_user()
        yield server


@pytest.fixture(scope='session')
def rucio_server(tmp_path_factory: pytest.TempPathFactory, ca: CA) -> Iterator[RucioServer]:
    with RucioServer(tmp_path_factory.mktemp('rucio'), {'s3': {'ca_bundle': ca.bundle}}) as server:
        yield server


@pytest.fixture(scope='session')
def root(tmp_path_factory: pytest.TempPathFactory, rucio_server: RucioServer) -> RucioCli:
    return RucioCli.root(tmp_path_factory.mktemp('root'), rucio_server)


@pytest.fixture(scope='session')
def site(tmp_path_factory: pytest.TempPathFactory, root: RucioCli, plain: SeaweedFS, tls: SeaweedFS) -> Site:
    alice = add_user(root, tmp_path_factory.mktemp('alice'), 'alice', scopes=[SCOPE], config={**s3_keys('PLAIN_S3', plain), **s3_keys('TLS_S3', tls)})
    made = Site(root, alice, {}, {})
    made.add_rse('PLAIN_S3', plain)
    made.add_rse('TLS_S3', tls)
    return made


team_root, vended_team, signed_team = teams({'api': {'endpoints_add': 's3, metrics'}}, ('carol', 'dave'), ('erin', 'frank'))


@pytest.fixture(scope='session')
def postgres_site(tmp_path_factory: pytest.TempPathFactory, plain: SeaweedFS) -> Iterator[PostgresSite]:
    """The same kind of server on PostgreSQL."""
    config = {'policy': {'package': 'rucio_s3_policy'}}
    with PostgreSQL(tmp_path_factory.mktemp('postgres')) as database, RucioServer(tmp_path_factory.mktemp('rucio'), config, database) as server:
        yield PostgresSite.make(RucioCli.root(tmp_path_factory.mktemp('root'), server), tmp_path_factory.mktemp, plain)


@pytest.fixture
def unique() -> str:
    """A name that no other test has."""
    return f't{uuid4().hex[:12]}'
