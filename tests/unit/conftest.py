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


"""What every unit test has: an environment of its own, and an S3 in this process where it asks for one."""

import configparser
import logging
import os
import shutil
import sys
from itertools import count

import botocore.session
import hypothesis
import pytest
from botocore.retries.standard import ExponentialBackoff

import rucio.cli.command  # noqa: F401
from rucio.common import config
from rucio.common.s3 import direct, secrecy
from rucio.common.s3.endpoint import Endpoint
from rucio.rse import rsemanager
from servers import postgres
from servers.fake_s3 import FakeS3
from servers.fixtures import empty_home, load_once

botocore.session.create_loader = load_once

# No directory of examples is left behind, and a busy machine is no failure. The same code is tried with the same examples:
# RUCIO_S3_TEST_RANDOM=1 looks for others.
random = os.environ.get('RUCIO_S3_TEST_RANDOM') == '1'
hypothesis.settings.register_profile('rucio-s3', database=None, deadline=None, derandomize=not random)
hypothesis.settings.load_profile('rucio-s3')

DATABASE = os.environ.get('RUCIO_S3_TEST_DATABASE', 'sqlite')
BUCKET = 'user.alice'
KEYS = {'access_key': 'AKIDOFTHETESTS', 'secret_key': 'a-secret/that+nobody%may=see'}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home directory and nothing of the developer's environment; Rucio's configuration is below it, and empty."""
    with empty_home(tmp_path / 'home', monkeypatch) as folder:
        yield folder
    for name in secrecy._TALKATIVE:
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """Between the attempts of a request."""
    monkeypatch.setattr(ExponentialBackoff, 'delay_amount', lambda *_: 0)
    monkeypatch.setattr(direct, '_pause', lambda _: 0.0)


@pytest.fixture(autouse=True)
def _fresh_process():
    """Each test has a catalogue of its own, with the same names."""
    if recent := sys.modules.get('rucio.core.s3.recent'):
        recent.forget_all()


@pytest.fixture
def rucio_cfg(home):
    """Call it with sections to write rucio.cfg: ``rucio_cfg({'s3:X': {...}})``. A "%" is written as "%%", as Rucio wants it."""

    def write(sections):
        parser = configparser.ConfigParser()
        for name, options in ({'client': {}} | sections).items():
            parser[name] = {option: value.replace('%', '%%') for option, value in options.items()}
        with home.joinpath('rucio', 'etc', 'rucio.cfg').open('w') as file:
            parser.write(file)
        config.clean_cached_config()

    return write


@pytest.fixture
def s3():
    """An S3 with the bucket `user.alice`, to be counted and broken."""
    with FakeS3() as server:
        server.make_bucket(BUCKET)
        yield server


@pytest.fixture
def rse():
    """Call it for an RSE's settings as the Rucio server describes them."""

    def make(url='https://s3.example.org:9000', prefix='/', s3=None, **settings):
        scheme, _, host = url.partition('://')
        name, _, port = host.partition(':')
        operations = {'read': 1, 'write': 1, 'delete': 1}
        protocol = {
            'scheme': scheme,
            'hostname': name,
            'port': int(port or 0),
            'prefix': prefix,
            'impl': 'rucio.rse.protocols.s3.Default',
            'domains': {'lan': operations, 'wan': operations},
            'extended_attributes': {'s3': {'provider': 'seaweedfs'} if s3 is None else s3},
        }
        usual = {'rse': 'X', 'id': 'abc123', 'deterministic': True, 'lfn2pfn_algorithm': 's3_bucket', 'sign_url': None}
        return usual | {'verify_checksum': True, 'domain': ['lan', 'wan'], 'protocols': [protocol]} | settings

    return make


@pytest.fixture
def protocol(rse, s3, rucio_cfg):
    """Call it for a protocol object, connected to `s3` with keys of rucio.cfg; arguments are those of `rse`."""

    def make(keys=KEYS, **arguments):
        settings = rse(**({'url': s3.url} | arguments))
        rucio_cfg({f's3:{settings["rse"]}': keys} if keys else {})
        made = rsemanager.create_protocol(settings, 'write')
        made.connect()
        return made

    return make


@pytest.fixture
def endpoint(s3):
    """Call it for the fake S3 as a storage, with other settings where a test wants them."""

    def make(**settings):
        usual = {'rse': 'X', 'rse_id': 'abc123', 'url': s3.url, 'max_attempts': 1, 'checksum': 'crc32', 'conditional_put': True, 'conditional_multipart': True}
        return Endpoint(**usual | settings)

    return make


@pytest.fixture(scope='session')
def empty_catalogue(tmp_path_factory):
    """The file of a database of Rucio with all tables and no rows."""
    sqlalchemy = pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')
    from rucio.db.sqla import models, s3  # noqa: PLC0415 - a server's

    path = tmp_path_factory.mktemp('catalogue') / 'rucio.db'
    engine = sqlalchemy.create_engine(f'sqlite:///{path}')
    models.BASE.metadata.create_all(engine)
    s3.S3Base.metadata.create_all(engine)
    engine.dispose()
    return path


@pytest.fixture(scope='session')
def empty_postgres(tmp_path_factory):
    """A PostgreSQL with a database of Rucio with all tables and no rows. Call it for a copy of it, as an engine."""
    from sqlalchemy import create_engine, event, text  # noqa: PLC0415
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

    from rucio.db.sqla import models, s3  # noqa: PLC0415 - a server's
    from rucio.db.sqla import session as rucio_session  # noqa: PLC0415

    numbers = count()
    with postgres.PostgreSQL(tmp_path_factory.mktemp('postgres')) as server:
        template = create_engine(server.url, poolclass=NullPool)
        for metadata in (models.BASE.metadata, s3.S3Base.metadata):
            metadata.create_all(template)
        admin = create_engine(server.url.rpartition('/')[0] + '/template1', poolclass=NullPool, isolation_level='AUTOCOMMIT')

        def copy():
            name = f'copy{next(numbers)}'
            with admin.connect() as connection:
                connection.execute(text(f'CREATE DATABASE {name} TEMPLATE postgres'))
            engine = create_engine(server.url.rpartition('/')[0] + f'/{name}')
            event.listen(engine, 'connect', rucio_session.psql_convert_decimal_to_float)
            return engine

        yield copy


def _sqlite(file, path):
    from sqlalchemy import create_engine, event  # noqa: PLC0415

    shutil.copy(file, path)
    engine = create_engine(f'sqlite:///{path}?timeout=60')
    event.listen(engine, 'connect', lambda connection, _: connection.executescript('PRAGMA foreign_keys=ON; PRAGMA synchronous=OFF'))
    return engine


@pytest.fixture
def database(request, empty_catalogue, tmp_path, monkeypatch, rucio_cfg):
    """An empty catalogue that Rucio's own code takes for that of this server: SQLite, or PostgreSQL for tests that are marked ``ON_BOTH``.

    RUCIO_S3_TEST_DATABASE=postgres takes PostgreSQL for all tests.
    """
    from sqlalchemy.orm import sessionmaker  # noqa: PLC0415

    from rucio.db.sqla import session as rucio_session  # noqa: PLC0415 - a server's

    rucio_cfg({'policy': {'permission': 'generic', 'schema': 'generic'}, 'cache': {'url': '127.0.0.1:1'}})
    kind = getattr(request, 'param', DATABASE)
    engine = request.getfixturevalue('empty_postgres')() if kind == 'postgres' else _sqlite(empty_catalogue, tmp_path / 'rucio.db')
    monkeypatch.setattr(rucio_session, '_ENGINE', engine)
    monkeypatch.setattr(rucio_session, '_MAKER', sessionmaker(bind=engine))
    yield engine
    engine.dispose()


@pytest.fixture(scope='session')
def twins_built(tmp_path_factory):
    """The file of the catalogue of twins, when the first test that wants it has made it."""
    return tmp_path_factory.mktemp('twins') / 'rucio.db'


@pytest.fixture
def twins(database, twins_built, s3, rucio_cfg, tmp_path, monkeypatch):
    """Two VOs, RSEs and scopes with the same names, and their buckets in `s3`."""
    from rucio.core.s3 import storages  # noqa: PLC0415 - a server's
    from rucio.core.s3.auth import shared_keys  # noqa: PLC0415
    from servers import twins as world  # noqa: PLC0415

    rucio_cfg({'policy': {'permission': 'generic', 'schema': 'generic'}, 'cache': {'url': '127.0.0.1:1'}} | world.SECTIONS)
    monkeypatch.setattr(storages, '_storages', {})
    monkeypatch.setattr(shared_keys, '_neighbours', {})
    if twins_built.is_file():
        shutil.copy(twins_built, tmp_path / 'rucio.db')
    else:
        world.build()
        database.dispose()
        shutil.copy(tmp_path / 'rucio.db', twins_built)
        storages._storages.clear()
    return world.move_in(s3)


@pytest.fixture
def alone(monkeypatch):
    """No other RSE is on the same storage: nobody looks for one in the catalogue."""
    from rucio.core.s3.auth import shared_keys  # noqa: PLC0415

    monkeypatch.setattr(shared_keys, 'neighbours', lambda *_, **__: [])
