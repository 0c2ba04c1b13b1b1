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

"""The policy package, asked as Rucio's gateway asks it: with requests of the REST endpoint, well-meant and hostile."""

import importlib.util
import json
from contextlib import contextmanager
from unittest import mock

import pytest

if importlib.util.find_spec('rucio.core.scope') is None:
    pytest.skip('rucio-clients has no permissions', allow_module_level=True)

import flask
import sqlalchemy
import sqlalchemy.orm
from jsonschema import Draft7Validator

from rucio.common import config, plugins
from rucio.common.types import InternalAccount, InternalScope
from rucio.common.utils import generate_uuid
from rucio.core import permission as core_permission
from rucio.core.permission import PermissionResult, generic, generic_multi_vo
from rucio.db.sqla import models
from rucio.db.sqla.constants import AccountType
from rucio.web.rest.flaskapi.v1 import replicas
from rucio_s3_policy import permission, schema

S3 = 'rucio.rse.protocols.s3.Default'
GFAL = 'rucio.rse.protocols.gfal.Default'


@pytest.fixture(params=['def', 'abc'], ids=['one VO', 'many VOs'])
def vo(request, monkeypatch):
    monkeypatch.setattr(permission, '_base', generic if request.param == 'def' else generic_multi_vo)
    return request.param


@pytest.fixture
def session():
    """A database with no more than the policy asks for."""
    engine = sqlalchemy.create_engine('sqlite://')
    tables = [each.__table__ for each in (models.Account, models.AccountAttrAssociation, models.Scope, models.RSE, models.RSEProtocol)]
    models.BASE.metadata.create_all(engine, tables=tables)
    with sqlalchemy.orm.Session(engine) as session:
        session.queries = []
        sqlalchemy.event.listen(engine, 'before_cursor_execute', lambda *args: session.queries.append(args[2]))
        yield session
    engine.dispose()


class Rucio:
    """Alice owns two scopes, bob one; what she may do by a request."""

    def __init__(self, vo, session):
        self.vo = vo
        self.session = session
        self.alice = InternalAccount('alice', vo=vo)
        self.rses = {}
        for account in ('alice', 'bob', 'root'):
            session.add(models.Account(account=InternalAccount(account, vo=vo), account_type=AccountType.USER, status='ACTIVE'))
        for scope, owner in (('user.alice', 'alice'), ('alice2', 'alice'), ('user.bob', 'bob')):
            session.add(models.Scope(scope=InternalScope(scope, vo=vo), account=InternalAccount(owner, vo=vo)))
        self.add_rse('SITE_S3', S3)
        self.add_rse('SITE_DISK', GFAL)
        session.commit()
        self.app = flask.Flask('rucio')
        self.app.register_blueprint(replicas.blueprint())

    def add_rse(self, rse, *impls, **settings):
        self.rses[rse] = generate_uuid()
        self.session.add(models.RSE(id=self.rses[rse], rse=rse, **{'vo': self.vo, **settings}))
        for port, impl in enumerate(impls):
            self.session.add(models.RSEProtocol(rse_id=self.rses[rse], scheme='https', hostname='s3', port=port, impl=impl))
        self.session.flush()

    @contextmanager
    def request(self, body, method='POST', path='/replicas', issuer='alice', vo=None):
        data = body if isinstance(body, (str, bytes)) else json.dumps(body)
        with self.app.test_request_context(path, method=method, data=data) as context:
            context.request.environ.update(issuer=issuer, vo=vo or self.vo)
            yield

    def may(self, action, rse='SITE_S3', account='alice', rse_id=None):
        kwargs = {'rse': rse, 'rse_id': rse_id or self.rses[rse]}
        return permission.has_permission(InternalAccount(account, vo=self.vo), action, kwargs, session=self.session)

    def may_add(self, *files, rse='SITE_S3', body=None, **options):
        with self.request(body if body is not None else {'rse': rse, 'files': files, 'ignore_availability': True}, **options):
            return self.may('add_replicas', rse)

    def may_attach(self, action, *files, account='alice', **named):
        """As Rucio's gateway asks: only for the first of these it does not pass what is attached."""
        named = named or {'rse': 'SITE_S3'}
        own = {'scope': InternalScope('user.alice', vo=self.vo), 'name': 'run1'}
        attached = {'dids': list(files), **named}
        kwargs = {
            'add_did': {**own, 'type': 'DATASET'},
            'add_dids': {'dids': [{**own, **attached}]},
            'attach_dids': {**own, 'attachment': attached},
            'attach_dids_to_dids': {'attachments': [{**own, **attached}]},
        }[action]
        with self.request({'type': 'DATASET', **attached}, path='/dids/user.alice/run1'):
            return permission.has_permission(InternalAccount(account, vo=self.vo), action, kwargs, session=self.session)

    def may_update(self, *files, rse='SITE_S3', **options):
        with self.request({'rse': rse, 'files': files}, **{'method': 'PUT', **options}):
            return self.may('update_replicas_states', rse)


@pytest.fixture
def rucio(vo, session):
    return Rucio(vo, session)


def file(scope='user.alice', name='run1/file.root', **more):
    """As UploadClient writes it."""
    return {'scope': scope, 'name': name, 'bytes': 1, 'adler32': '00000001', 'md5': 'd4', 'meta': {'guid': None}, 'state': 'C', **more}


def test_owner_may_add_and_update_on_an_s3_rse(rucio):
    assert rucio.may_add(file())
    assert rucio.may_add(file(), file('alice2'), path='/replicas/')
    assert rucio.may_add({'scope': 'user.alice', 'name': 'x', 'bytes': 1, 'adler32': '00000001'})
    assert rucio.may_add(file(type='FILE'))
    assert rucio.may_add(file(pfn='https://s3:443/user.alice/run1/file.root', state='A'))
    assert rucio.may_update(file(state='A'))
    assert rucio.may_update({'scope': 'user.alice', 'name': 'x', 'state': 'A'})


def test_urls_are_signed_for_the_account_of_the_token(rucio):
    """Not for the one that Rucio 39 and 40 read in a header."""
    for account, good in (('root', True), ('alice', False)):
        with rucio.request('', method='GET', path='/credentials/signurl', issuer='root'):
            assert bool(rucio.may('get_signed_url', account=account)) is good
    with rucio.request('', method='GET', path='/credentials/signurl', issuer='alice'):
        refusal = rucio.may('get_signed_url', account='root')
    assert (bool(refusal), refusal.message) == (False, 'The request is of another account.')
    assert rucio.may('get_signed_url', account='root')  # a daemon


def test_not_of_a_foreign_scope(rucio):
    for files in ([file('user.bob')], [file(), file('user.bob')], [file('user.bob'), file()], [file('nobodys')], [file('USER.ALICE')]):
        assert not rucio.may_add(*files)
        assert not rucio.may_update(*[each | {'state': 'A'} for each in files])
    assert 'user.bob' in rucio.may_add(file(), file('user.bob')).message


def test_a_scope_that_is_not_there_is_refused_as_one_of_another_account(rucio):
    foreign, missing = rucio.may_add(file('user.bob')).message, rucio.may_add(file('user.eve')).message
    assert foreign.replace('bob', 'eve') == missing


def test_not_on_another_rse(rucio):
    assert not rucio.may_add(file(), rse='SITE_DISK')
    assert not rucio.may_update(file(state='A'), rse='SITE_DISK')


@pytest.mark.parametrize(
    'impl', ['rucio.rse.protocols.s3boto.Default', 'rucio.rse.protocols.s3es.Default', 'rucio.rse.protocols.s3', 'x.rucio.rse.protocols.s3.X']
)
def test_another_protocol_class_is_no_s3_rse(rucio, impl):
    rucio.add_rse('OTHER', impl)
    assert not rucio.may_add(file(), rse='OTHER')


def test_any_class_of_ours_will_do(rucio):
    rucio.add_rse('MIXED', GFAL, 'rucio.rse.protocols.s3.FTS')
    assert rucio.may_add(file(), rse='MIXED')


def test_not_where_the_client_says_where_the_file_is(rucio):
    rucio.add_rse('FREE', S3, deterministic=False)
    assert not rucio.may_add(file(pfn='https://s3:443/user.bob/secret'), rse='FREE')
    assert not rucio.may_update(file(state='A'), rse='FREE')


def test_not_on_the_rse_of_another_vo(rucio):
    rucio.add_rse('FOREIGN', S3, vo='xyz')
    assert not rucio.may_add(file(), rse='FOREIGN')


def test_not_where_body_and_call_name_different_rses(rucio):
    rucio.add_rse('OTHER_S3', S3)
    with rucio.request({'rse': 'OTHER_S3', 'files': [file()]}):
        assert not rucio.may('add_replicas', 'SITE_S3')
        assert not rucio.may('add_replicas', 'SITE_S3', rse_id=rucio.rses['OTHER_S3'])
        assert not rucio.may('add_replicas', 'SITE_S3', rse_id=generate_uuid())
    with rucio.request({'rse': ['SITE_S3'], 'files': [file()]}):
        assert not rucio.may('add_replicas')


@pytest.mark.parametrize(
    'more',
    [
        {'path': '/user.bob/secret'},
        {'account': 'bob'},
        {'tombstone': 'Thu, 01 Jan 1970 00:00:00 UTC'},
        {'lock_cnt': 7},
        {'rse_id': 'x'},
        {'error_message': 'x'},
        {'broken_rule_id': 'x'},
    ],
)
def test_not_what_an_upload_does_not_say(rucio, more):
    assert not rucio.may_add(file(**more))
    assert not rucio.may_update(file(state='A', **more))


ATTACHING = pytest.mark.parametrize('action', ['add_did', 'add_dids', 'attach_dids', 'attach_dids_to_dids'])


@ATTACHING
def test_what_is_attached_without_an_rse_is_not_looked_at(rucio, action):
    assert rucio.may_attach(action, {'scope': 'user.bob', 'name': 'x'}, rse=None)
    assert rucio.may_attach(action, rse='SITE_S3')
    assert rucio.may_attach(action, {'scope': 'user.bob', 'name': 'x'}, rse='SITE_DISK')
    assert rucio.may_attach(action, {'scope': 'user.bob', 'name': 'x'}, rse='NO_SUCH_RSE')


@ATTACHING
def test_files_are_attached_with_an_rse_by_the_rules_for_replicas(rucio, action):
    assert rucio.may_attach(action, file(), file('alice2'))
    assert rucio.may_attach(action, file(pfn='https://s3:443/user.alice/run1/file.root'), rse_id=rucio.rses['SITE_S3'])
    for more in ({'path': '/user.bob/secret'}, {'tombstone': 'x'}, {'state': 'B'}, {'lock_cnt': 1}, {'account': 'bob'}):
        assert not rucio.may_attach(action, file(), file(**more))
    for named in ({'rse': 'SITE_S3'}, {'rse_id': rucio.rses['SITE_S3']}, {'rse': 'SITE_DISK', 'rse_id': rucio.rses['SITE_S3']}):
        refused = rucio.may_attach(action, file(), file('user.bob'), **named)
        assert 'user.bob' in refused.message
    assert not rucio.may_attach(action, 'user.alice:x')


@ATTACHING
def test_only_an_admin_attaches_a_path(rucio, action, session):
    rucio.add_rse('FREE', S3, deterministic=False)
    stolen = file(pfn='https://s3:443/user.bob/secret')
    assert 'only an admin' in rucio.may_attach(action, stolen, rse='FREE').message
    assert not rucio.may_attach(action, stolen, rse_id=rucio.rses['FREE'])
    assert rucio.may_attach(action, stolen, rse='FREE', account='root')
    session.add(models.AccountAttrAssociation(account=rucio.alice, key='admin', value=True))
    assert rucio.may_attach(action, stolen, rse='FREE')


@ATTACHING
def test_where_name_and_id_are_of_two_rses_both_must_be_deterministic(rucio, action):
    rucio.add_rse('FREE', S3, deterministic=False)
    assert 'only an admin' in rucio.may_attach(action, file(), rse='SITE_S3', rse_id=rucio.rses['FREE']).message


@ATTACHING
def test_whose_the_dataset_is_is_asked_first(rucio, action):
    assert rucio.may_attach(action, file('user.bob'), account='bob') is False


def test_an_s3_rse_by_whose_name_anybody_could_add_replicas(rucio):
    rucio.add_rse('SITE_SCRATCHDISK', S3)
    assert not rucio.may_add(file('user.bob'), rse='SITE_SCRATCHDISK')
    assert not rucio.may_add(file(path='/user.bob/secret'), rse='SITE_SCRATCHDISK')
    assert rucio.may_add(file(), rse='SITE_SCRATCHDISK')
    assert rucio.may('add_replicas', 'SITE_SCRATCHDISK', account='root') is True


@pytest.mark.parametrize('state', ['B', 'D', 'T', 'U', 'S', 'BEING_DELETED', 'AVAILABLE', 'a', '', 0, ['A'], {'A': 1}])
def test_not_in_states_that_are_for_daemons(rucio, state):
    assert not rucio.may_add(file(state=state))
    assert not rucio.may_update(file(state=state))
    assert not rucio.may_update(file(state='A'), file(name='y', state=state))


def test_update_needs_a_state_and_does_not_take_back_that_a_file_is_there(rucio):
    assert not rucio.may_update({'scope': 'user.alice', 'name': 'x'})
    assert not rucio.may_update(file(state='C'))


@pytest.mark.parametrize(
    'body',
    [
        '',
        'null',
        '[]',
        '"x"',
        '{',
        '{"rse": "SITE_S3"}',
        '{"rse": "SITE_S3", "files": []}',
        '{"rse": "SITE_S3", "files": {}}',
        '{"rse": "SITE_S3", "files": {"scope": "user.alice", "name": "x"}}',
        '{"rse": "SITE_S3", "files": "user.alice"}',
        '{"rse": "SITE_S3", "files": null}',
        '{"rse": "SITE_S3", "files": 5}',
        '{"rse": "SITE_S3", "files": true}',
        '{"rse": "SITE_S3", "files": ["user.alice"]}',
        '{"rse": "SITE_S3", "files": [{"name": "x"}]}',
        '{"rse": "SITE_S3", "files": [{"scope": "user.alice"}]}',
        '{"rse": "SITE_S3", "files": [{"scope": ["user.alice"], "name": "x"}]}',
        '{"rse": "SITE_S3", "files": [{"scope": null, "name": "x"}]}',
        # Twice the same key: the first and the last of them.
        '{"rse": "SITE_S3", "files": [{"scope": "user.bob", "scope": "user.alice", "name": "x"}]}',
        '{"rse": "SITE_S3", "files": [{"scope": "user.alice", "scope": "user.bob", "name": "x"}]}',
        '{"rse": "SITE_S3", "files": [{"scope": "user.bob", "name": "x"}], "files": [{"scope": "user.alice", "name": "x"}]}',
        '{"rse": "SITE_DISK", "rse": "SITE_S3", "files": [{"scope": "user.alice", "name": "x"}]}',
        b'{"rse": "SITE_S3", "files": [{"scope": "user.alice\xff", "name": "x"}]}',
        '[' * 100_000,
        '{"rse": "SITE_S3", "files": ' + '[' * 100_000,
        '{"rse": "SITE_S3", "files": [{"scope": "user.alice", "name": "x", "bytes": ' + '9' * 10_000 + '}]}',
    ],
    ids=range(26),
)
def test_not_by_a_body_that_cannot_be_read(rucio, body):
    assert not rucio.may_add(body=body)


def test_not_by_a_huge_body(rucio, monkeypatch):
    monkeypatch.setattr(permission, '_MAX_BODY', 10_000)
    assert rucio.may_add(*[file(name=str(number)) for number in range(10)])
    assert 'fewer' in rucio.may_add(*[file(name=str(number)) for number in range(1000)]).message


@pytest.mark.parametrize(
    ('method', 'path'),
    [
        ('PUT', '/replicas'),
        ('DELETE', '/replicas'),
        ('GET', '/replicas/user.alice/x'),
        ('POST', '/replicas/dids'),
        ('POST', '/replicas/tombstone'),
        ('POST', '/replicas/bad'),
        ('POST', '/replicas/quarantine'),
        ('POST', '/dirac/addfiles'),
        ('POST', '/s3/buckets'),
    ],
)
def test_not_by_another_request(rucio, method, path):
    assert not rucio.may_add(file(), method=method, path=path)


@pytest.mark.parametrize(('method', 'path'), [('POST', '/replicas'), ('DELETE', '/replicas'), ('PATCH', '/replicas'), ('PUT', '/replicas/tombstone')])
def test_no_update_by_another_request(rucio, method, path):
    assert not rucio.may_update(file(state='A'), method=method, path=path)


def test_not_outside_a_request(rucio):
    assert not rucio.may('add_replicas')
    assert not rucio.may('update_replicas_states')


def test_not_by_the_request_of_another_account(rucio):
    assert not rucio.may_add(file(), issuer='bob')
    assert not rucio.may_add(file(), vo='xyz')
    with rucio.request({'rse': 'SITE_S3', 'files': [file()]}, issuer='bob'):
        assert not rucio.may('add_replicas', account='bob')


@pytest.mark.parametrize('action', ['delete_replicas', 'skip_availability_check', 'set_tombstone', 'declare_bad_file_replicas', 'add_rse', 'no_such_action'])
def test_nothing_else_is_allowed(rucio, action):
    with rucio.request({'rse': 'SITE_S3', 'files': [file()]}):
        assert rucio.may(action) is False
        assert rucio.may(action, account='root') is permission._base.has_permission(
            InternalAccount('root', vo=rucio.vo), action, {'rse': 'SITE_S3', 'rse_id': rucio.rses['SITE_S3']}, session=rucio.session
        )


def test_what_the_generic_permissions_allow_is_allowed_without_a_look(rucio):
    rucio.add_rse('SITE_USERDISK', GFAL)
    assert rucio.may('add_replicas', 'SITE_USERDISK') is True
    assert rucio.may('add_replicas', account='root') is True
    assert rucio.may('update_replicas_states', account='root') is True


def test_updates_that_a_site_allows_are_allowed_without_a_look(rucio, monkeypatch):
    """Rucio's own permissions let admins alone; those of a site may let others."""
    monkeypatch.setattr(permission, '_base', mock.Mock(**{'has_permission.return_value': True}))
    assert rucio.may('update_replicas_states') is True
    assert rucio.may('add_replicas') is not True


def test_a_vo_admin_may_not_add_vos(rucio, session):
    session.add(models.AccountAttrAssociation(account=rucio.alice, key='admin', value=True))
    session.commit()
    assert rucio.may('add_replicas') is True
    if rucio.vo != 'def':
        assert rucio.may('add_vo') is False


def test_a_thousand_files_cost_one_query_for_each_scope(rucio, session):
    files = [file(('user.alice', 'alice2')[number % 2], f'run/{number}') for number in range(1000)]
    with rucio.request({'rse': 'SITE_S3', 'files': files}):
        session.queries.clear()
        assert rucio.may('add_replicas')
    assert len([query for query in session.queries if 'FROM scopes' in query]) == 2
    assert len([query for query in session.queries if 'FROM rse_protocols' in query]) == 1


def test_foreign_scopes_cost_one_query(rucio, session):
    with rucio.request({'rse': 'SITE_S3', 'files': [file(f'user.{number}') for number in range(1000)]}):
        session.queries.clear()
        assert not rucio.may('add_replicas')
    assert len([query for query in session.queries if 'FROM scopes' in query]) == 1


@pytest.mark.parametrize(
    ('text', 'module'),
    [
        ('', generic),
        ('[policy]\npermission = generic\n', generic),
        ('[common]\nmulti_vo = False\n', generic),
        ('[common]\nmulti_vo = True\n', generic_multi_vo),
        ('[common]\nmulti_vo = True\n[policy]\npermission = generic\n', generic_multi_vo),
    ],
)
def test_it_stands_on_what_rucio_would_ask_without_it(home, monkeypatch, text, module):
    monkeypatch.setattr('rucio.common.policy.REGION', mock.Mock(get=lambda _: __import__('dogpile.cache.api').cache.api.NO_VALUE))
    home.joinpath('rucio', 'etc', 'rucio.cfg').write_text(text)
    config.clean_cached_config()
    assert permission._base_module() is module


@pytest.mark.parametrize(
    ('text', 'module'), [('', 'generic'), ('[common]\nmulti_vo = False\n', 'generic'), ('[common]\nmulti_vo = True\n', 'generic_multi_vo')]
)
def test_the_schema_is_rucios_with_another_name_and_no_database_is_asked(home, monkeypatch, text, module):
    """When it is imported, there may be none yet."""
    home.joinpath('rucio', 'etc', 'rucio.cfg').write_text(text)
    config.clean_cached_config()
    monkeypatch.setattr(config, 'is_client', lambda: False)
    monkeypatch.setattr(config, '__config_get_table', mock.Mock(side_effect=AssertionError('the database was asked')))
    spec = importlib.util.spec_from_file_location('schema_anew', schema.__file__)
    anew = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(anew)
    own = importlib.import_module(f'rucio.common.schema.{module}')
    assert anew.SCHEMAS.keys() == own.SCHEMAS.keys()
    assert (anew.SCOPE_LENGTH, anew.ACCOUNT) == (own.SCOPE_LENGTH, own.ACCOUNT)
    assert own.NAME | {'pattern': anew.NAME['pattern']} == anew.NAME
    assert own.NAME['pattern'] != anew.NAME['pattern'], "Rucio's own is as it was"
    assert permission._base_module() is importlib.import_module(f'rucio.core.permission.{module}')


def test_this_rucio_is_supported():
    import rucio_s3_policy  # noqa: PLC0415

    plugins.check_policy_module_version(rucio_s3_policy)


def test_rucio_takes_the_answers(rucio, monkeypatch):
    monkeypatch.setitem(core_permission.permission_modules, rucio.vo, permission)
    kwargs = {'rse': 'SITE_S3', 'rse_id': rucio.rses['SITE_S3']}
    for files, allowed in (([file()], True), ([file('user.bob')], False)):
        with rucio.request({'rse': 'SITE_S3', 'files': files}):
            answer = core_permission.has_permission(rucio.alice, 'add_replicas', kwargs, session=rucio.session)
        assert isinstance(answer, PermissionResult)
        assert answer.allowed is allowed


def test_the_schema_refuses_names_that_leave_the_directory_of_a_download():
    """A dataset's name becomes a directory, a file's the path in it."""
    valid = Draft7Validator({'type': 'string', 'pattern': schema.NAME['pattern']}).is_valid
    escapes = ('../x', 'ds/../../../../x', 'a/..', 'a/../b', '..', '.', './x', 'a/./b', 'a/.', '//etc/x', '..//x', 'a\n', 'a\0')
    assert [name for name in escapes if valid(name)] == []
    assert all(valid(name) for name in ('a', 'a/b', 'a/...', 'a/.hidden/b', 'a..', 'a/..b', '/a', 'a//b', 'a.b/c'))
    assert schema.SCHEMAS['name'] is schema.NAME


SEVERAL = pytest.mark.parametrize(('action', 'key'), [('add_dids', 'dids'), ('attach_dids_to_dids', 'attachments')])


@SEVERAL
@pytest.mark.parametrize(
    'harmless',
    [{'dids': [file('user.bob')]}, {'dids': [file('user.bob')], 'rse': 'SITE_DISK'}, {'dids': [], 'rse': 'SITE_S3'}, {'rse': 'SITE_S3'}, {'rse': 'FREE'}, {}],
)
def test_each_of_several_attachments_is_looked_at(rucio, action, key, harmless):
    """Also behind one that adds no replica on S3."""
    rucio.add_rse('FREE', S3, deterministic=False)
    own = {'scope': InternalScope('user.alice', vo=rucio.vo), 'name': 'run1'}

    def may(*attachments):
        return permission.has_permission(rucio.alice, action, {key: [own | each for each in attachments]}, session=rucio.session)

    stolen = {'dids': [file('user.bob')], 'rse': 'SITE_S3'}
    assert 'user.bob' in may({'dids': [file()], 'rse': 'SITE_S3'}, harmless, stolen).message
    assert may({'dids': [file()], 'rse': 'SITE_S3'}, {'dids': [file('alice2')], 'rse': 'SITE_S3'})


@ATTACHING
def test_the_rse_of_another_vo_with_the_same_name_is_another(rucio, action):
    own = rucio.rses['SITE_DISK']
    rucio.add_rse('SITE_DISK', S3, vo='xyz', deterministic=False)
    assert rucio.may_attach(action, file('user.bob'), rse='SITE_DISK')
    assert rucio.may_attach(action, file('user.bob'), rse_id=own)
    assert 'only an admin' in rucio.may_attach(action, file(), rse_id=rucio.rses['SITE_DISK']).message


def test_the_name_and_the_id_of_an_rse_are_of_one_rse(rucio):
    rucio.add_rse('OTHER_S3', S3)
    with rucio.request({'rse': 'SITE_S3', 'files': [file()]}):
        assert rucio.may('add_replicas', 'SITE_S3')
        assert not rucio.may('add_replicas', 'SITE_S3', rse_id=rucio.rses['OTHER_S3'])


def test_a_body_that_is_just_not_too_long(rucio, monkeypatch):
    body = json.dumps({'rse': 'SITE_S3', 'files': [file()]})
    for limit, fits in ((len(body), True), (len(body) - 1, False)):
        monkeypatch.setattr(permission, '_MAX_BODY', limit)
        assert bool(rucio.may_add(body=body)) is fits


def test_a_dataset_is_added_where_no_request_or_no_json_names_files(rucio):
    """What cannot be parsed is refused by the endpoint."""
    kwargs = {'scope': InternalScope('user.alice', vo=rucio.vo), 'name': 'run1', 'type': 'DATASET'}

    def may():
        return permission.has_permission(rucio.alice, 'add_did', kwargs, session=rucio.session)

    assert may()
    for body in ('', '{', '[]', 'null', '[' * 100_000):
        with rucio.request(body, path='/dids/user.alice/run1'):
            assert may()


def test_a_body_is_read_as_the_endpoint_reads_it(rucio):
    """Which replaces what is not UTF-8."""
    kwargs = {'scope': InternalScope('user.alice', vo=rucio.vo), 'name': 'run1', 'type': 'DATASET'}
    body = b'{"rse": "SITE_S3", "dids": [{"scope": "user.bob", "name": "x\xff"}], "files": [{"scope": "user.alice", "name": "x\xff"}]}'
    with rucio.request(body, path='/dids/user.alice/run1'):
        assert 'user.bob' in permission.has_permission(rucio.alice, 'add_did', kwargs, session=rucio.session).message
    assert rucio.may_add(body=body)


def test_a_refusal_is_short_and_names_the_reason(rucio):
    for files, said in (
        ([file('s' * 1000)], 'is not yours'),
        ([file(**{'k' * 1000: 1})], 'may not set'),
        ([file(name='a/../b')], 'leave the directory'),
    ):
        message = rucio.may_add(*files).message
        assert said in message
        assert len(message) < 300


def test_the_plugin_may_rely_on_paths_as_this_module_guards_them():
    assert permission.GUARDS_REPLICAS is True
