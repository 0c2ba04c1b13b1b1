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

"""The plugin's table, the command that makes it, and grants of earlier versions."""

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy import Column, Integer, MetaData, Table, create_engine, inspect, select
from sqlalchemy.dialects import mysql, oracle, postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

import rucio_s3_database
from rucio.common.exception import ConfigurationError
from rucio.common.types import InternalAccount, InternalScope
from rucio.core.s3 import metadata as stored_metadata
from rucio.core.s3.auth import access, grants
from rucio.db.sqla import models, s3
from rucio.db.sqla import session as rucio_session
from rucio.db.sqla.constants import AccountStatus, AccountType, DatabaseOperationType, DIDType, RequestState, RequestType

SCOPE, MOCK = InternalScope('user.alice'), InternalScope('mock')
ALICE, BOB, ROOT = (InternalAccount(name) for name in ('alice', 'bob', 'root'))


# The table


@pytest.mark.parametrize(
    ('dialect', 'has'),
    [
        (sqlite, ('scope VARCHAR(25) NOT NULL', 'CHECK (can_write IN (0, 1))')),
        (postgresql, ('did_created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL', 'can_write BOOLEAN NOT NULL')),
        (mysql, ('ENGINE=InnoDB', 'name VARCHAR(250) NOT NULL')),
        (oracle, ('name VARCHAR2(250 CHAR) NOT NULL', 'can_write NUMBER(1) NOT NULL')),
    ],
)
def test_all_databases_of_rucio_can_make_it(dialect, has):
    table = str(CreateTable(s3.Grant.__table__).compile(dialect=dialect.dialect()))
    for each in (*has, 'PRIMARY KEY (scope, name, grantee_type, grantee)', "grantee_type IN ('A', 'G', 'T', 'E', 'W')"):
        assert each in table
    (index,) = s3.Grant.__table__.indexes
    assert str(CreateIndex(index).compile(dialect=dialect.dialect())).endswith('ON s3_grants (grantee_type, grantee)')
    # Oracle up to 12.1 takes 30 characters; MySQL's indexes 3,072 bytes, with names of 500 characters as some policies have them.
    constraints = [each.name for each in s3.Grant.__table__.constraints]
    assert all(len(name) <= 30 for name in (*constraints, index.name))
    assert 4 * (25 + 500 + 1 + s3.GRANTEE_LENGTH) <= 3072


def test_it_is_no_table_of_rucio():
    """A stock build_database() does not make it, a stock purge finds no model of it, and Rucio's migrations do not know it."""
    assert not models.BASE.metadata.tables.keys() & s3.S3Base.metadata.tables.keys()
    assert s3.S3Base.metadata.schema == models.BASE.metadata.schema


def test_it_is_made_once(monkeypatch):
    engine = create_engine('sqlite://')
    monkeypatch.setattr(s3, 'get_engine', lambda: engine)
    with engine.connect() as connection:
        assert s3.missing(connection) == 'the tables s3_grants and s3_pending'
    s3.make()
    s3.make()
    with engine.begin() as connection:
        assert s3.missing(connection) == ''
        connection.exec_driver_sql('DROP INDEX "S3_GRANTS_GRANTEE_IDX"')  # as if the first attempt had ended before it
    s3.make()
    assert [index['name'] for index in inspect(engine).get_indexes('s3_grants')] == ['S3_GRANTS_GRANTEE_IDX']
    s3.drop()
    s3.drop()
    assert inspect(engine).get_table_names() == []


def test_two_make_it_at_once(monkeypatch):
    """The second one finds that it is there when it makes it."""
    engine = create_engine('sqlite://')
    monkeypatch.setattr(s3, 'get_engine', lambda: engine)
    s3.make()
    create_all = s3.S3Base.metadata.create_all
    monkeypatch.setattr(s3.S3Base.metadata, 'create_all', lambda connection: create_all(connection, checkfirst=False))
    s3.make()


def test_another_table_of_that_name(monkeypatch):
    engine = create_engine('sqlite://')
    monkeypatch.setattr(s3, 'get_engine', lambda: engine)
    other = MetaData()
    Table('s3_grants', other, Column('id', Integer))
    other.create_all(engine)
    with pytest.raises(ConfigurationError, match=r'lacks columns of the table s3_grants \(can_write, .*Rename it'):
        s3.make()


# Grants of earlier versions


def write_metadata(scope, name, meta):
    with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
        session.add(models.DataIdentifier(scope=scope, name=name, account=ALICE, did_type=DIDType.DATASET))
        session.flush()
        session.add(models.DidMeta(scope=scope, name=name, meta=stored_metadata.as_column(meta, session)))


def old(write=False, by='alice'):
    return {'write': write, 'by': by, 'at': '2026-01-02T03:04:05Z'}


@pytest.fixture
def catalogue(database, monkeypatch):
    """Alice's, with grants of an earlier version, and what strangers wrote into the scope mock. No table yet."""
    s3.S3Base.metadata.drop_all(database)
    monkeypatch.setattr(rucio_session, 'get_engine', lambda: database)
    monkeypatch.setattr(s3, 'get_engine', lambda: database)
    monkeypatch.setattr(rucio_s3_database, 'get_engine', lambda: database)
    with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
        session.add(models.VO(vo='def', description='', email=''))
        for account in (ALICE, BOB, ROOT):
            session.add(models.Account(account=account, account_type=AccountType.USER, status=AccountStatus.ACTIVE))
        session.flush()
        session.add(models.Scope(scope=SCOPE, account=ALICE))
        session.add(models.Scope(scope=MOCK, account=ROOT))
    write_metadata(SCOPE, 'run1', {'campaign': 'mc23', 's3_grants': {'bob': old(), '*': old(True), 'ghost': old()}})
    write_metadata(SCOPE, 'run2', {'s3_grants': {'bob': old(True, by='bob')}})
    write_metadata(SCOPE, 'run3', {'s3_grants': ['bob'], 'note': 'no "s3_grants" of ours'})
    write_metadata(MOCK, 'x', {'s3_grants': {'bob': old(by='root\x1b[2J')}})
    return database


def run(capsys, *words, code=0):
    if code:
        with pytest.raises(SystemExit) as ended:
            rucio_s3_database.main(words)
        assert ended.value.code == code or code in str(ended.value.code)
    else:
        rucio_s3_database.main(words)
    return capsys.readouterr().out


def listed(scope=SCOPE, name='run1'):
    with rucio_session.db_session(DatabaseOperationType.READ) as session:
        return [(each.account, each.write, each.by, each.ended) for each in grants.list_grants(scope, name, session=session)]


def metadata(name):
    with rucio_session.db_session(DatabaseOperationType.READ) as session:
        return stored_metadata.as_dict(session.execute(select(models.DidMeta.meta).where(models.DidMeta.name == name)).scalar_one())


LISTED = """\
Grants of an earlier version in the metadata of collections, which are not valid:
  mock:x   bob   read   by root\\x1b[2J, 2026-01-02T03:04:05Z   doubtful: every account may write metadata in the scope mock
  user.alice:run1   everybody   read   by alice, 2026-01-02T03:04:05Z
  user.alice:run1   bob   read   by alice, 2026-01-02T03:04:05Z
  user.alice:run1   ghost   read   by alice, 2026-01-02T03:04:05Z   doubtful: there is no account 'ghost'
  user.alice:run2   bob   read, write   by bob, 2026-01-02T03:04:05Z   doubtful: 'bob' neither owns the scope nor is an admin
"""


def test_another_database(monkeypatch, capsys):
    engine = create_engine('sqlite://')
    monkeypatch.setattr(rucio_s3_database, 'get_engine', lambda: engine)
    assert run(capsys, code="names a database without Rucio's tables: this command needs") == ''
    assert inspect(engine).get_table_names() == []


def test_old_grants_are_listed_and_do_not_count(catalogue, capsys):
    said = run(capsys, '--dry-run')
    assert said.startswith(f'The database lacks the tables s3_grants and s3_pending: they would be created.\n{LISTED}')
    assert not inspect(catalogue).has_table('s3_grants')
    assert run(capsys).startswith(f'Created the tables s3_grants and s3_pending.\n{LISTED}')
    assert run(capsys).startswith(f'The tables s3_grants and s3_pending exist.\n{LISTED}')
    assert listed() == []
    with rucio_session.db_session(DatabaseOperationType.READ) as session:
        assert not access.may(BOB, SCOPE, 'run1/file', False, session=session)


def test_old_grants_are_taken_over_when_the_operator_says_so(catalogue, capsys):
    assert '2 of 2 grants were moved into the table.' in run(capsys, '--move-grants')
    assert listed() == [('bob', False, 'alice', False), ('*', False, 'alice', False)]
    assert listed(name='run2') == listed(MOCK, 'x') == []
    assert metadata('run1') == {'campaign': 'mc23', 's3_grants': {'ghost': old()}}
    assert 'ghost' in run(capsys, '--move-grants')
    # What he has looked at; the root's name is no account's.
    assert '1 of 1 grants were moved' in run(capsys, '--move-grants', 'mock:x')
    assert listed(MOCK, 'x') == [('bob', False, 'root', False)]
    assert metadata('x') == {}
    assert "user.alice:run1, ghost: There is no account 'ghost'." in run(capsys, '--move-grants', 'user.alice:run1', code=1)
    run(capsys, '--move-grants', 'user.alice:run9', code='There are no old grants of user.alice:run9')


def test_old_grants_do_not_replace_newer_ones(catalogue, capsys):
    run(capsys)
    with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
        grants.add_grant(SCOPE, 'run1', 'bob', True, 'root', session=session)
    run(capsys, '--move-grants')
    assert listed()[0] == ('bob', True, 'root', False)


def test_old_grants_are_dropped(catalogue, capsys):
    assert '5 of 5 grants were dropped.' in run(capsys, '--drop-grants')
    assert [metadata(name) for name in ('run1', 'run2', 'x')] == [{'campaign': 'mc23'}, {}, {}]
    assert listed() == [('*', False, 'alice', True)]  # until the storages were told
    assert 'earlier version' not in run(capsys)


def test_the_table_is_removed(catalogue, capsys):
    run(capsys, '--move-grants')
    assert 'user.alice:run1' in run(capsys, '--remove', '--dry-run')
    assert inspect(catalogue).has_table('s3_grants')
    assert run(capsys, '--remove', code='Revoke the public access').endswith('(rucio s3 unshare DID --public):\n  user.alice:run1\n')
    assert inspect(catalogue).has_table('s3_grants')
    run(capsys, '--remove', '--force')
    assert not inspect(catalogue).has_table('s3_grants')
    assert run(capsys, '--remove') == 'There is no table s3_grants.\n'


# Rows in Rucio's own tables


RSE_ID, OTHER_RSE, SECTION = 'a' * 32, 'b' * 32, 's3-bucket:SITE_S3:user.alice'


@pytest.fixture
def used(catalogue, capsys):
    """After some use of the plugin, and of others."""
    run(capsys)
    protocol = {'scheme': 'https', 'hostname': 's3', 'port': 443, 'prefix': '/', 'impl': 'rucio.rse.protocols.s3.Default'}
    rows = [
        models.RSE(id=RSE_ID, rse='SITE_S3', vo='def', rse_type='DISK'),
        models.RSE(id=OTHER_RSE, rse='OTHER', vo='def', rse_type='DISK'),
    ]
    more = [
        models.RSEProtocol(rse_id=RSE_ID, **protocol),
        models.RSEProtocol(rse_id=OTHER_RSE, **{**protocol, 'impl': 'rucio.rse.protocols.webdav.Default'}),
        models.Config(section=SECTION, opt='on_changed', value='replace'),
        models.Config(section='s3-bucket:SITE_S3:', opt='usage', value='[3, 30, null, null]'),
        models.Config(section='s3-bucket:OTHER:', opt='usage', value='[3, 30, null, null]'),
        models.Config(section='s3-vending:SITE_S3', opt='chaining', value='no'),
        models.ConfigHistory(section=SECTION, opt='on_changed', value='report'),
        models.RSEUsage(rse_id=RSE_ID, source='storage', files=3, used=30),
        models.Heartbeat(executable='1', readable='s3-copier', hostname='h', pid=1, thread_id=1),
    ]
    of_others = [
        models.Config(section='S3-BUCKET:SITE_S3:user.alice', opt='x', value='1'),
        models.Config(section='s3-buckets', opt='x', value='1'),
        models.Config(section='conveyor', opt='x', value='1'),
        models.ConfigHistory(section='conveyor', opt='x', value='0'),
        models.RSEUsage(rse_id=RSE_ID, source='rucio', files=3, used=30),
        models.RSEUsage(rse_id=OTHER_RSE, source='storage', files=4, used=40),  # a probe of the site has written it since
        models.Heartbeat(executable='2', readable='reaper', hostname='h', pid=1, thread_id=1),
    ]
    with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
        session.add_all(rows)
        session.flush()
        session.add_all(more + of_others)
    write_metadata(SCOPE, 'f1', {'s3_etags': {RSE_ID: 'x-1'}})
    write_metadata(SCOPE, 'f2', {'s3_etags': {RSE_ID: 'x-1'}, 'events': 3})
    write_metadata(SCOPE, 'f3', {'s3_etags': 'of somebody else', 'note': ['s3_etags']})
    return catalogue


def content():
    """All rows of all tables of Rucio."""
    with rucio_session.db_session(DatabaseOperationType.READ) as session:
        return {table.name: sorted(map(str, session.execute(select(table)))) for table in models.BASE.metadata.sorted_tables}


REMOVED = """\
Of Rucio's table rse_usage {0} removed: 1 (usage of RSEs, as the reconciler found it).
Of Rucio's table configs {0} removed: 4 (settings of buckets, imports and progress).
Of Rucio's table configs_history {0} removed: 1 (earlier settings of buckets).
Of Rucio's table heartbeats {0} removed: 1 (heartbeats of the daemons).
Of Rucio's table did_meta {0} removed: 5 (ETags of files, and grants of earlier versions).
The tables s3_grants and s3_pending {0} removed, with all grants.
Before `pip uninstall rucio-s3`, change the impl of the protocols of SITE_S3.
"""
OLD_GRANTS = '5 grants of an earlier version are in metadata: remove them with --drop-grants.'


def test_what_would_be_removed_is_counted_and_stays(used, capsys):
    before = content()
    assert run(capsys, '--remove', '--dry-run') == f'{OLD_GRANTS}\n{REMOVED.format("would be")}'
    run(capsys, '--remove', code=OLD_GRANTS)
    assert content() == before


def test_only_what_is_the_plugins_is_removed(used, capsys, monkeypatch):
    monkeypatch.setattr(stored_metadata, '_ROWS_AT_ONCE', 2)
    before = content()
    assert run(capsys, '--remove', '--force').endswith(REMOVED.format('were'))
    after = content()
    changed = {name: (len(before[name]), len(rows)) for name, rows in after.items() if rows != before[name]}
    assert changed == {'configs': (7, 3), 'configs_history': (2, 1), 'rse_usage': (3, 2), 'heartbeats': (2, 1), 'did_meta': (7, 4)}
    assert all(set(after[name]) < set(before[name]) for name in changed if name != 'did_meta')
    assert [metadata(name) for name in ('run1', 'run3', 'f2', 'f3')] == [
        {'campaign': 'mc23'},
        {'s3_grants': ['bob'], 'note': 'no "s3_grants" of ours'},
        {'events': 3},
        {'s3_etags': 'of somebody else', 'note': ['s3_etags']},
    ]
    assert run(capsys, '--remove').startswith('There is no table s3_grants.\n')


def test_transfers_that_wait_for_the_copier_are_not_left_behind_in_silence(catalogue, capsys):
    run(capsys, '--drop-grants')
    with rucio_session.db_session(DatabaseOperationType.WRITE) as session:
        session.add(models.RSE(id=RSE_ID, rse='SITE_S3', vo='def', rse_type='DISK'))
        session.flush()
        tool = {'transfertool': 's3', 'external_host': 'rucio-s3-copier', 'external_id': 'e'}
        kinds = {'request_type': RequestType.TRANSFER, 'state': RequestState.SUBMITTED, 'did_type': DIDType.FILE}
        session.add(models.Request(id='c' * 32, scope=SCOPE, name='run1', dest_rse_id=RSE_ID, attributes='{}', **tool, **kinds))
    run(capsys, '--remove', code='1 transfers wait for rucio-s3-copier')
    run(capsys, '--remove', '--force')
    assert len(content()['requests']) == 1
