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

"""Imports: what is one, where it comes from, of which DIDs its objects are, and the RSE that is made for it. A database in memory, no server."""

import json
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

import sqlalchemy
import sqlalchemy.orm

from rucio.common.exception import (
    DataIdentifierAlreadyExists,
    InputValidationError,
    InvalidObject,
    RSEAccessDenied,
    RSEFileNameNotSupported,
    UnsupportedOperation,
)
from rucio.common.s3 import api
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.sts import TemporaryKeys
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import config, permission
from rucio.core.s3 import imports, storages
from rucio.core.s3.auth import access, grants, objects, vending
from rucio.db.sqla import models, s3
from rucio.db.sqla.constants import AccountStatus, AccountType, DIDType, ReplicaState
from rucio.gateway import s3 as gateway
from rucio.rse import rsemanager

pytestmark = pytest.mark.usefixtures('alone')

RSE_ID = 'a' * 32
SCOPE = InternalScope('user.alice')
ALICE, BOB, ROOT = (InternalAccount(name) for name in ('alice', 'bob', 'root'))
NEVER = datetime(9999, 1, 1, tzinfo=timezone.utc)
LANDSAT = imports.Import('landsat', 'L8/', 'user.alice', 'scenes')


def storage(prefix='/landsat/', deterministic=False, **endpoint):
    domain = {'read': 1, 'write': 0, 'delete': 0}
    protocol = {
        'scheme': 'https',
        'hostname': 's3.example.org',
        'port': 443,
        'prefix': prefix,
        'impl': 'rucio.rse.protocols.s3.Default',
        'domains': {'wan': domain, 'lan': domain},
        'extended_attributes': {},
    }
    rse = {'rse': 'LANDSAT', 'id': RSE_ID, 'deterministic': deterministic, 'lfn2pfn_algorithm': 's3_bucket', 'protocols': [protocol]}
    return storages.Storage('LANDSAT', RSE_ID, 'def', Endpoint('LANDSAT', RSE_ID, 'https://s3.example.org', **endpoint), rse, protocol)


@pytest.fixture
def session(monkeypatch):
    """Alice's scope, with a dataset and a file in it; nothing in a cache."""
    engine = sqlalchemy.create_engine('sqlite://')
    accounts = (models.Account, models.AccountAttrAssociation, models.Scope)
    kinds = (*accounts, models.DataIdentifier, models.DidMeta, models.Config, models.ConfigHistory, models.RSEFileAssociation)
    models.BASE.metadata.create_all(engine, tables=[kind.__table__ for kind in kinds])
    s3.S3Base.metadata.create_all(engine)
    monkeypatch.setattr(permission, 'permission_modules', {'def': SimpleNamespace(GUARDS_REPLICAS=True)})
    with sqlalchemy.orm.Session(engine) as session:
        for account in (ALICE, BOB, ROOT):
            session.add(models.Account(account=account, account_type=AccountType.USER, status=AccountStatus.ACTIVE))
        session.add(models.Scope(scope=SCOPE, account=ALICE))
        for name, kind in (('scenes', DIDType.DATASET), ('file', DIDType.FILE), ('many', DIDType.CONTAINER)):
            session.add(models.DataIdentifier(scope=SCOPE, name=name, account=ALICE, did_type=kind))
        session.flush()
        yield session


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch):
    for name in ('write_to_cache', 'delete_from_cache'):
        monkeypatch.setattr(config, name, lambda *_, **__: None)
    monkeypatch.setattr(config, 'has_section', lambda **_: False)  # Rucio 38 asks in a session of its own


def add_replica(session, name, path, rse_id=RSE_ID):
    replica = models.RSEFileAssociation(rse_id=rse_id, scope=SCOPE, name=name, bytes=1, state=ReplicaState.AVAILABLE, lock_cnt=0, path=path)
    session.add(replica)
    session.flush()


# Where it comes from


@pytest.mark.parametrize(
    ('of', 'bucket', 'prefix', 'place'),
    [
        (storage(), None, '', ('landsat', '')),
        (storage(), None, 'L8', ('landsat', 'L8/')),
        (storage(), 'landsat', 'L 8+%2F/ü/', ('landsat', 'L 8+%2F/ü/')),
        (storage('/landsat/open/'), None, '', ('landsat', 'open/')),
        (storage('/landsat/open/'), None, 'open/L8', ('landsat', 'open/L8/')),
        (storage('/'), 'Old_Bucket', '', ('Old_Bucket', '')),
    ],
)
def test_place(of, bucket, prefix, place):
    assert imports.resolve_prefix(of, bucket, prefix) == place


@pytest.mark.parametrize(
    ('of', 'bucket', 'prefix', 'error', 'said'),
    [
        (storage('/'), None, '', InputValidationError, '--bucket'),
        (storage(), 'other', '', RSEFileNameNotSupported, "prefix '/landsat/'"),
        (storage('/landsat/open/'), None, 'closed', RSEFileNameNotSupported, "prefix '/landsat/open/'"),
        (storage(deterministic=True), None, '', UnsupportedOperation, '--read-only'),
        (storage('/'), 'arn:aws:s3::123456789012:accesspoint:mfzwi23gnjvgw.mrap', '', InputValidationError, 'not a valid bucket name'),
        (storage('/'), 'a/b', '', InputValidationError, 'not a valid bucket name'),
        (storage('/'), '..', '', InputValidationError, 'not a valid bucket name'),
        (storage('/'), 'b' * 128, '', InputValidationError, '63 characters'),
    ],
)
def test_a_wrong_place_is_named(of, bucket, prefix, error, said):
    with pytest.raises(error) as caught:
        imports.resolve_prefix(of, bucket, prefix)
    assert said in str(caught.value)


@pytest.mark.parametrize('key', ['L8/a', 'L8/a//b', 'L8/x y+%41é#?', 'L8//'])
def test_names_and_keys(key):
    name = LANDSAT.name_of(key)
    assert name == 'scenes/' + key.removeprefix('L8/')
    assert LANDSAT.key_of(name) == key
    assert LANDSAT.name_of('L7/a') is None
    assert LANDSAT.name_of('L8') is None
    assert LANDSAT.key_of('scenes2/a') is None
    assert LANDSAT.key_of('scenes') is None


@pytest.mark.parametrize(
    ('prefix', 'key', 'path'),
    [
        ('/landsat/', 'a/b', '/a/b'),
        ('/landsat/', 'a b+c/%41/é', '/a%20b%2Bc/%2541/%C3%A9'),
        ('/landsat/', '/a//b', '//a//b'),
        ('/landsat/my%20data/', 'my data/a', '/a'),
        ('/', 'a', '/landsat/a'),
    ],
)
def test_path_is_what_the_pfn_is_made_of(prefix, key, path, monkeypatch):
    monkeypatch.setattr(rsemanager, 'CLIENT_MODE', False)  # a client asks the server
    of = storage(prefix)
    assert of.layout.path_of('landsat', key) == path
    assert of.layout.place_of('user.alice', 'whatever', path) == ('landsat', key)


# What is remembered


def remember(of, new, session, account='alice', limited=True):
    return imports.save(of, new, account, limited, session=session)


def test_remember(session):
    of = storage()
    assert imports.list_imports(of, session=session) == []
    assert remember(of, LANDSAT, session)
    assert not remember(of, LANDSAT, session)
    more = LANDSAT._replace(prefix='L7/', dataset='old')
    assert remember(of, more, session)
    assert imports.list_imports(of, session=session) == imports.list_imports(of, 'landsat', session=session) == [more, LANDSAT]
    assert imports.list_imports(of, 'land', session=session) == []
    rows = session.execute(sqlalchemy.select(models.Config.section, models.Config.opt, models.Config.value)).all()
    assert {row.section for row in rows} == {'s3-bucket:LANDSAT:landsat'}
    assert all(row.opt.startswith('import-') for row in rows)
    assert {'scope': 'user.alice', 'dataset': 'scenes', 'prefix': 'L8/', 'account': 'alice'} in [json.loads(row.value) for row in rows]


def test_what_was_remembered_in_one_list(session):
    value = json.dumps([{'scope': 'user.alice', 'dataset': name, 'prefix': 'L8/'} for name in ('scenes', 'other')])
    session.add(models.Config(section='s3-bucket:LANDSAT:landsat', opt='import', value=value))
    session.flush()
    assert imports.list_imports(storage(), session=session) == [LANDSAT._replace(dataset='other'), LANDSAT]
    assert not remember(storage(), LANDSAT, session)


def test_where_a_dataset_was_imported_from(session):
    of = storage()
    remember(of, LANDSAT, session)
    assert imports.known(of, 'user.alice', 'scenes', session=session) == LANDSAT
    assert imports.known(of, 'user.alice', 'scenes/2026', session=session) is None
    assert imports.known(of, 'user.bob', 'scenes', session=session) is None


def test_the_imports_of_one_account_leave_room_for_others(session):
    """All of a bucket stood in 4,000 characters once: fifteen imports of one account filled them, and the operator's was refused."""
    of = storage()
    for number in range(imports.MAX_IMPORTS):
        remember(of, LANDSAT._replace(prefix=f'{number:0500d}/', dataset=f'scenes{number}'), session)
    for bucket in ('landsat', 'another'):
        with pytest.raises(InvalidObject, match='account alice already has 20 imports there'):
            remember(of, LANDSAT._replace(bucket=bucket, dataset='one-more'), session)
    assert not remember(of, LANDSAT._replace(prefix=f'{0:0500d}/', dataset='scenes0'), session), 'what is there may be repeated'
    assert remember(of, LANDSAT._replace(dataset='bobs'), session, account='bob')
    assert remember(of, LANDSAT._replace(dataset='operators'), session, account='alice', limited=False)
    assert len(imports.list_imports(of, session=session)) == imports.MAX_IMPORTS + 2


def test_a_prefix_that_is_too_long_to_be_remembered(session):
    with pytest.raises(InvalidObject, match='too long'):
        remember(storage(), LANDSAT._replace(prefix='\u00e9' * 1000), session)
    assert imports.list_imports(storage(), session=session) == []


@pytest.mark.parametrize('value', ['', 'nonsense', '{}', '[1]', '[{"scope": "user.alice"}]', '[{"scope": 1, "dataset": "x", "prefix": ""}]', None])
def test_what_somebody_else_wrote_is_nothing(session, value):
    session.add(models.Config(section='s3-bucket:LANDSAT:landsat', opt='import', value=value))
    session.flush()
    assert imports.list_imports(storage(), session=session) == []


@pytest.mark.parametrize('dataset', ['scenes', 'scenes/2026', 'scenes/2026/01'])
def test_a_dataset_comes_from_one_place(session, dataset):
    of = storage('/')
    remember(of, LANDSAT._replace(dataset='scenes/2026'), session)
    with pytest.raises(InvalidObject) as caught:
        imports.check(of, LANDSAT._replace(bucket='sentinel', dataset=dataset), session=session)
    assert "bucket 'landsat', prefix 'L8/'" in str(caught.value)
    imports.check(of, LANDSAT._replace(dataset='scenes/2026'), session=session)  # again
    imports.check(of, LANDSAT._replace(dataset='scenes/2027'), session=session)
    imports.check(of, LANDSAT._replace(scope='user.bob', dataset=dataset), session=session)


@pytest.mark.parametrize('name', ['file', 'many'])
def test_only_a_dataset_takes_files(session, name):
    with pytest.raises(DataIdentifierAlreadyExists) as caught:
        imports.check(storage(), LANDSAT._replace(dataset=name), session=session)
    assert 'not a dataset' in str(caught.value)
    imports.check(storage(), LANDSAT, session=session)


# Whose it is


def test_dids_of_a_key_are_those_with_its_path(session):
    of = storage()
    add_replica(session, 'scenes/a', '/L8/a%20b')
    add_replica(session, 'elsewhere', 'L8/plain')  # as other software writes it
    add_replica(session, 'otherwhere', '/L8/a%20b', rse_id='b' * 32)
    assert imports.dids_of(of, 'landsat', 'L8/a b', session=session) == [(SCOPE, 'scenes/a')]
    assert imports.dids_of(of, 'landsat', 'L8/plain', session=session) == [(SCOPE, 'elsewhere')]
    assert imports.dids_of(of, 'landsat', 'L8/A b', session=session) == []


def test_a_path_tells_nothing_where_accounts_may_write_it(session, monkeypatch):
    of = storage()
    add_replica(session, 'mine', '/L8/of-another')
    for permissions in (object(), SimpleNamespace(GUARDS_REPLICAS='yes')):
        monkeypatch.setattr(permission, 'permission_modules', {'def': permissions})
        assert imports.dids_of(of, 'landsat', 'L8/of-another', session=session) == []
    remember(of, LANDSAT, session)
    assert imports.dids_of(of, 'landsat', 'L8/of-another', session=session) == [(SCOPE, 'scenes/of-another')]


def test_dids_of_prefixes_and_new_keys_are_those_of_the_import(session):
    of = storage()
    remember(of, LANDSAT, session)
    for key, name in (('L8/', 'scenes/'), ('L8/a/', 'scenes/a/'), ('L8/new', 'scenes/new')):
        assert imports.dids_of(of, 'landsat', key, session=session) == [(SCOPE, name)]
    for key in ('', 'L7/', 'L8', 'L7/new'):
        assert imports.dids_of(of, 'landsat', key, session=session) == []
    assert imports.source_of(of, SCOPE, 'scenes', session=session) == ('landsat', 'L8')
    assert imports.source_of(of, SCOPE, 'scenes/a', session=session) == ('landsat', 'L8/a')
    assert imports.source_of(of, SCOPE, 'scene', session=session) is None
    assert imports.source_of(of, InternalScope('user.bob'), 'scenes', session=session) is None


def test_who_may_read(session):
    of = storage()
    remember(of, LANDSAT, session)
    add_replica(session, 'scenes/a', '/L8/a')

    def may(account, bucket, key, write=False):
        return objects.may(of, account, bucket, key, write, session=session)

    for key in ('L8/a', 'L8/', 'L8/sub/'):
        assert may(ALICE, 'landsat', key)
        assert may(ROOT, 'landsat', key)
        assert not may(BOB, 'landsat', key)
    assert not may(ALICE, 'landsat', 'L8/a', write=True)  # not even the owner of the scope
    assert may(ROOT, 'landsat', 'L8/a', write=True)  # the storage decides
    for bucket, key in (('landsat', 'L7/a'), ('landsat', ''), ('landsat', 'L8'), ('landsat', 'L8/../L7/a'), ('other', 'L8/a')):
        assert not may(ALICE, bucket, key)
    grants.add_grant(SCOPE, 'scenes', '*', False, 'alice', session=session)
    assert may(BOB, 'landsat', 'L8/a')
    assert may(BOB, 'landsat', 'L8/')
    assert not may(BOB, 'landsat', 'L8/a', write=True)


def test_one_of_several_dids_is_enough_to_read(session):
    of = storage()
    add_replica(session, 'scenes/a', '/L8/a')
    add_replica(session, 'public/a', '/L8/a')
    session.add(models.DataIdentifier(scope=SCOPE, name='public', account=ALICE, did_type=DIDType.DATASET))
    session.flush()
    grants.add_grant(SCOPE, 'public', 'bob', False, 'alice', session=session)
    assert not access.may(BOB, SCOPE, 'scenes/a', False, session=session)
    assert objects.may(of, BOB, 'landsat', 'L8/a', False, session=session)
    # For as long as one of them can be read.
    ends = [datetime(year, 12, 31) for year in (2090, 2091)]  # noqa: DTZ001 - as Rucio's tables have times
    for name, end in zip(('public', 'scenes'), ends, strict=True):
        grants.add_grant(SCOPE, name, 'bob', False, 'alice', end, session=session)
        assert objects.until(of, BOB, 'landsat', 'L8/a', False, session=session) == end
        assert objects.covering(of, BOB, 'landsat', 'L8/a', False, session=session) == ('L8/a', end)


@pytest.mark.parametrize(('algorithm', 'prefix'), [('identity', None), ('s3_bucket', '')])
def test_where_a_name_lies_is_told_also_where_no_keys_can_be_vended_for_it(session, monkeypatch, algorithm, prefix):
    """With `identity` the keys of a scope do not lie apart from those of others."""
    of = storage(prefix='/' if algorithm == 's3_bucket' else '/common/', deterministic=True, role_arn='arn:aws:iam:::role/x')
    of.settings['lfn2pfn_algorithm'] = algorithm
    monkeypatch.setattr(gateway.storages, 'get_storage', lambda *_, **__: of)
    monkeypatch.setattr(storages.Storage, 'ways', ['vended', 'remote'])
    bucket, key = of.layout.place_of('user.alice', 'run1/file')
    assert gateway._readable({'rse': of.rse, 'bucket': bucket, 'key': key}, ALICE, 'def', session) == prefix


def test_keys_are_for_the_part_that_is_imported(session):
    of = storage()
    remember(of, LANDSAT, session)
    assert objects.covering(of, ALICE, 'landsat', 'L8/a/b', False, session=session).prefix == 'L8/'
    with pytest.raises(gateway.AccessDenied):
        objects.covering(of, BOB, 'landsat', 'L8/a/b', False, session=session)
    with pytest.raises(gateway.AccessDenied):
        objects.covering(of, ALICE, 'landsat', 'L8/a/b', True, session=session)
    with pytest.raises(gateway.AccessDenied):
        objects.covering(of, ALICE, 'landsat', 'L7/a', False, session=session)
    grants.add_grant(SCOPE, 'scenes', 'bob', False, 'alice', session=session)
    assert objects.covering(of, BOB, 'landsat', 'L8/a/b', False, session=session).prefix == 'L8/'


def test_of_several_dids_that_a_key_may_have_those_count_whose_scope_is_there(session):
    """With `identity`, the first directories may be one scope or another one, and a name."""
    of = storage(prefix='/common/', deterministic=True)
    of.settings['lfn2pfn_algorithm'] = 'identity'
    for key in ('user/alice/file', 'user/alice/run1/file'):
        assert objects.may(of, ALICE, 'common', key, True, session=session)
        assert not objects.may(of, BOB, 'common', key, True, session=session)


RUN1 = api.GetCredentials(rse='LANDSAT', bucket='landsat', prefix='L7/run1')


def test_keys_for_a_replica_with_a_path_are_not_for_what_begins_like_it(session, monkeypatch):
    of = storage(role_arn='arn:aws:iam:::role/x', policy_capitals=True)
    add_replica(session, 'scenes/a', '/L7/run1')
    policies = []
    monkeypatch.setattr(storages.Storage, 'ways', ['vended', 'remote'])
    monkeypatch.setattr(gateway.chaining, 'verdict', lambda _: gateway.chaining.Verdict(True, '', 0))
    monkeypatch.setattr(vending, 'assume', lambda _, policy, *__: policies.append(policy) or TemporaryKeys('K', 'hidden', 'hidden', NEVER))
    monkeypatch.setattr(gateway, 'db_session', lambda _: nullcontext(session))
    monkeypatch.setattr(gateway, 'read_if_needed', lambda: nullcontext(session))
    monkeypatch.setattr(gateway.storages, 'get_storage', lambda *_, **__: of)
    assert gateway.get_credentials(RUN1, 'alice')['prefix'] == 'L7/run1'
    with pytest.raises(gateway.AccessDenied):
        gateway.get_credentials(replace(RUN1, prefix='L7/run'), 'alice')
    assert gateway.get_credentials(RUN1, 'root')['prefix'] == 'L7/'
    alice, root = policies
    assert '"arn:aws:s3:::landsat/L7/run1"' in alice
    assert '*' not in alice
    assert '"arn:aws:s3:::landsat/L7/*"' in root


# Anonymous storages


def test_an_anonymous_storage_is_read_without_keys(monkeypatch):
    of = storage(auth='anonymous')
    assert of.connection().authorizer.name == 'anonymous'
    assert of.ways == []
    with pytest.raises(RSEAccessDenied) as caught:
        of.credentials()
    assert 'nothing to sign with' in str(caught.value)


# For which part of a bucket keys are vended


def test_an_admin_gets_the_folder_of_what_was_asked_for(session):
    of = storage()
    remember(of, LANDSAT, session)
    session.add(models.AccountAttrAssociation(account=BOB, key='admin', value=True))
    for account in (ROOT, BOB):
        for prefix, write, part in (('L7/a/b', False, 'L7/a/'), ('L7', False, ''), ('L8/a/b', True, 'L8/a/'), ('L8/a/b', False, 'L8/')):
            assert objects.covering(of, account, 'landsat', prefix, write, session=session) == (part, grants.FOREVER)
        for write in (False, True):
            with pytest.raises(gateway.AccessDenied, match="bucket 'other', prefix 'L8/'"):
                objects.covering(of, account, 'other', 'L8/', write, session=session)


def test_access_to_an_import_ends_with_its_grant(session):
    of, end = storage(), datetime(2090, 12, 31)  # noqa: DTZ001 - as Rucio's tables have times
    remember(of, LANDSAT, session)
    grants.add_grant(SCOPE, 'scenes', 'bob', False, 'alice', end, session=session)
    assert objects.covering(of, BOB, 'landsat', 'L8/a/b', False, session=session) == ('L8/', end)
    assert objects.until(of, BOB, 'landsat', 'L8/a/b', False, session=session) == end


def test_a_key_of_no_scope_is_for_admins_in_the_buckets_of_the_rse(session):
    of = storage(prefix='/common/', deterministic=True)
    of.settings['lfn2pfn_algorithm'] = 'identity'
    for write in (False, True):
        for bucket, key in (('common', 'user/nobody/x/file'), ('common', ''), ('other', 'user/alice/run1/file')):
            ends = [objects.until(of, account, bucket, key, write, session=session) for account in (ALICE, BOB, ROOT)]
            assert ends == [None, None, grants.FOREVER if bucket == 'common' else None]
            if bucket == 'other':
                with pytest.raises(gateway.AccessDenied, match="bucket 'other', prefix"):
                    objects.covering(of, ROOT, bucket, key, write, session=session)


def test_keys_are_never_for_more_than_may_be_accessed(session, monkeypatch):
    """Whatever other RSEs mean by it."""
    of = storage()
    add_replica(session, 'scenes/a', '/L7/run1')
    monkeypatch.setattr(objects.shared_keys, 'may', lambda *_, **__: False)
    monkeypatch.setattr(objects.shared_keys, 'need', lambda *_, **__: grants.FOREVER)
    assert objects.covering(of, ALICE, 'landsat', 'L7/run1', False, session=session) == ('L7/run1', grants.FOREVER)


def test_a_key_that_may_be_of_two_scopes_needs_both(session):
    """With `identity`; for as long as both allow it."""
    of = storage(prefix='/common/', deterministic=True)
    of.settings['lfn2pfn_algorithm'] = 'identity'
    other, key = InternalScope('user'), 'user/alice/run1/file'
    session.add(models.Scope(scope=other, account=BOB))
    for scope, name in ((other, 'alice'), (SCOPE, 'run1')):
        session.add(models.DataIdentifier(scope=scope, name=name, account=ALICE, did_type=DIDType.DATASET))
    session.flush()

    def ends():
        return [objects.until(of, account, 'common', key, False, session=session) for account in (ALICE, BOB, ROOT)]

    assert ends() == [None, None, grants.FOREVER]
    early, late = (datetime(year, 12, 31) for year in (2090, 2091))  # noqa: DTZ001 - as Rucio's tables have times
    grants.add_grant(other, 'alice', 'alice', False, 'bob', late, session=session)
    assert ends() == [late, None, grants.FOREVER]
    grants.add_grant(SCOPE, 'run1', 'bob', False, 'alice', early, session=session)
    assert ends() == [late, early, grants.FOREVER]
    assert objects.covering(of, ROOT, 'common', key, False, session=session) == (key, grants.FOREVER)
    for account in (ALICE, BOB):
        with pytest.raises(gateway.AccessDenied, match=f"bucket 'common', prefix '{key}'"):
            objects.covering(of, account, 'common', key, False, session=session)
