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

"""The catalogue in the order of its names' bytes, on PostgreSQL, whatever order of text that has."""

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import sessionmaker

from rucio.common.s3.endpoint import Endpoint
from rucio.common.types import InternalScope
from rucio.core.s3 import storages
from rucio.core.s3.reconciler import listings
from rucio.core.s3.subtrees import Subtree
from rucio.db.sqla import session as rucio_session
from servers import postgres

REASON = postgres.missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=REASON or '')]

RSE_ID = 32 * 'a'
# Language comes in another order: a letter's case is of no account at first, nor is punctuation.
NAMES = sorted(f'{head}{tail}' for head in ('A', 'a', 'Z', 'run1', 'RUN1', '0') for tail in ('', '-', '.', '/', '/x', '/X', '/_', '/-b', '/b', '_', '0'))
INDEX = 'CREATE INDEX replicas_byte_order_idx ON replicas (scope, rse_id, name COLLATE "C")'


def replica_table(engine, collation):
    """Only the tables and columns that are read, without what they hang on."""
    with engine.begin() as connection:
        name = f'VARCHAR(250){collation}'
        connection.execute(text(f'CREATE TABLE dids (scope VARCHAR(25), name {name}, bytes BIGINT, md5 TEXT, adler32 TEXT, availability TEXT)'))
        connection.execute(text(f'CREATE TABLE did_meta (scope VARCHAR(25), name {name}, meta JSONB)'))
        columns = 'bytes BIGINT, md5 TEXT, adler32 TEXT, state TEXT, path TEXT, created_at TIMESTAMP, updated_at TIMESTAMP, PRIMARY KEY (scope, name, rse_id)'
        connection.execute(text(f'CREATE TABLE replicas (scope VARCHAR(25), name {name}, rse_id UUID, {columns})'))
        rows = [{'name': name, 'rse': RSE_ID} for name in NAMES]
        connection.execute(text("INSERT INTO dids (scope, name, bytes, md5, availability) VALUES ('user.alice', :name, 7, 'm', 'A')"), rows)
        connection.execute(
            text("INSERT INTO replicas VALUES ('user.alice', :name, CAST(:rse AS UUID), 3, NULL, 'a', 'A', NULL, '1970-01-02', '1970-01-02')"), rows
        )
        meta = '{"s3_etags": {"' + RSE_ID + '": "x-2"}}'
        connection.execute(text("INSERT INTO did_meta VALUES ('user.alice', 'run1/x', CAST(:meta AS JSONB))"), {'meta': meta})


@pytest.fixture(scope='module', params=[None, 'en-US'], ids=['bytes', 'language'])
def backend(request, tmp_path_factory):
    with postgres.PostgreSQL(tmp_path_factory.mktemp('postgres'), request.param) as database:
        yield request.param, database.url


@pytest.fixture
def engine(backend, monkeypatch):
    made = create_engine(backend[1])
    monkeypatch.setattr(rucio_session, '_ENGINE', made)
    monkeypatch.setattr(rucio_session, '_MAKER', sessionmaker(bind=made))
    yield made
    with made.begin() as connection:
        connection.execute(text('DROP TABLE IF EXISTS dids, did_meta, replicas'))
    made.dispose()


@pytest.fixture
def statements(engine):
    seen = []
    event.listen(engine, 'before_cursor_execute', lambda *arguments: seen.append(arguments[2]))
    return seen


@pytest.fixture
def subtree():
    """Call it for what lies below a name of user.alice."""
    settings = {'deterministic': True, 'lfn2pfn_algorithm': 's3_bucket', 'rse': 'X', 'id': RSE_ID, 'protocols': []}
    storage = storages.Storage('X', RSE_ID, 'def', Endpoint('X', RSE_ID, 'https://s3.example.org'), settings, {'prefix': '/'})
    return lambda name='': Subtree(storage, InternalScope('user.alice'), 'user.alice', f'{name}/' if name else '', f'{name}/' if name else '')


def names(subtree, *span, **options):
    return [replica.name for replica in listings.replicas(subtree, *span, **options)]


@pytest.mark.parametrize('collation', ['', ' COLLATE "C"', ' COLLATE "und-x-icu"'], ids=['database', 'C', 'ICU'])
def test_order(backend, engine, statements, subtree, collation):
    replica_table(engine, collation)
    ordered = sorted(NAMES, key=str.encode)
    assert names(subtree(), page=7) == ordered
    assert names(subtree(), 'RUN1/x', 'run1/b', page=7) == [name for name in ordered if 'RUN1/x' < name <= 'run1/b']
    assert names(subtree('run1'), page=2) == ['run1/', 'run1/-b', 'run1/X', 'run1/_', 'run1/b', 'run1/x'][1:]
    # A database that has this order anyway need not sort, nor be asked more than once.
    by_bytes = collation == ' COLLATE "C"' or (not collation and backend[0] is None)
    pages = [statement for statement in statements if 'ORDER BY' in statement]
    assert len(pages) > 10
    assert any('COLLATE "C"' in statement for statement in pages) is not by_bytes
    assert sum('pg_collation' in statement for statement in statements) == 1


def test_what_is_read(engine, subtree):
    replica_table(engine, '')
    found = {replica.name: replica for replica in listings.replicas(subtree())}
    assert found['run1/x'] == ('run1/x', 7, 'm', 'a', 'A', 'x-2', 86400)
    assert found['run1/X'].etag is None
    assert listings.known(subtree(), ['run1/x', 'none']) == {'run1/x': found['run1/x']}


def test_an_index_spares_the_sort(backend, engine, statements, subtree):
    """The one that the documentation names."""
    replica_table(engine, '' if backend[0] else ' COLLATE "und-x-icu"')
    names(subtree())
    (page,) = [statement for statement in statements if 'ORDER BY' in statement]

    def plan():
        with engine.begin() as connection:
            connection.exec_driver_sql('SET LOCAL enable_seqscan = off')
            values = {'scope_1': 'user.alice', 'rse_id_1': RSE_ID, 'param_1': '', 'param_2': 10}
            return '\n'.join(connection.exec_driver_sql(f'EXPLAIN {page}', values).scalars())

    assert 'Sort' in plan()
    with engine.begin() as connection:
        connection.execute(text(INDEX))
    assert 'replicas_byte_order_idx' in plan()
    assert 'Sort' not in plan()
