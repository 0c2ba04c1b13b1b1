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

"""Whether vended keys can become more: what is tried, what counts as a refusal, who is told, how long it holds. A database in memory, a fake STS."""

import base64
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

import sqlalchemy
import sqlalchemy.orm
from botocore.credentials import ReadOnlyCredentials

from rucio.common.exception import RSEAccessDenied, RSEOperationNotSupported
from rucio.common.s3 import api
from rucio.common.s3 import sts as sts_module
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.settings import Secrets as Keys
from rucio.core.s3 import storages
from rucio.core.s3.auth import chaining, vending
from rucio.db.sqla import models
from rucio.gateway import s3 as gateway
from servers.fake_s3 import error
from servers.fake_sts import FakeSTS

ROLE, SECOND = 'arn:aws:iam:::role/RucioVending', 'arn:aws:iam:::role/Second'


@pytest.fixture
def sts(monkeypatch):
    for name in ('_slots', '_clients'):
        monkeypatch.setattr(vending, name, type(getattr(vending, name))())
    for name in ('_slots', '_roles'):
        monkeypatch.setattr(chaining, name, {})
    with FakeSTS() as server:
        yield server


@pytest.fixture
def database(monkeypatch):
    """How many transactions are open, and how many statements were made."""
    engine = sqlalchemy.create_engine('sqlite://', poolclass=sqlalchemy.pool.StaticPool, connect_args={'check_same_thread': False})
    models.BASE.metadata.create_all(engine, tables=[each.__table__ for each in (models.Config, models.RSE)])
    seen = SimpleNamespace(open=0, statements=0, session=lambda: sqlalchemy.orm.Session(engine))
    sqlalchemy.event.listen(engine, 'before_cursor_execute', lambda *_: setattr(seen, 'statements', seen.statements + 1))

    @contextmanager
    def db_session(_):
        seen.open += 1
        with sqlalchemy.orm.Session(engine) as session, session.begin():
            yield session
        seen.open -= 1

    monkeypatch.setattr(chaining, 'db_session', db_session)
    return seen


@pytest.fixture
def beside(monkeypatch):
    """The other RSEs that the server knows."""
    found = []
    monkeypatch.setattr(storages, 'list_storages', lambda vo, session: found)  # noqa: ARG005 - as it is called
    monkeypatch.setattr(chaining, '_vos', lambda _: ['def'])
    return found


@pytest.fixture
def storage(sts, database, beside):
    """Call it for an RSE whose STS is the fake."""

    def make(rse='X', key='SERVERKEY', **settings):
        usual = {'sts_endpoint': sts.url, 'role_arn': ROLE, 'max_attempts': 1, 'secrets': Keys(key, 'hidden-key')}
        endpoint = Endpoint(rse, f'id of {rse}', **{'url': 'http://127.0.0.1:9'} | usual | settings)
        protocol = {'prefix': '/', 'impl': 'rucio.rse.protocols.s3.Default'}
        return storages.Storage(rse, f'id of {rse}', 'def', endpoint, {'deterministic': True, 'lfn2pfn_algorithm': 's3_bucket'}, protocol)

    return make


@pytest.fixture
def clock(monkeypatch):
    """Seconds by which all clocks are ahead."""
    real = chaining.time
    made = SimpleNamespace(ahead=0.0)
    made.time = lambda: real.time() + made.ahead
    made.monotonic = lambda: real.monotonic() + made.ahead
    monkeypatch.setattr(chaining, 'time', made)
    return made


def actions(sts):
    return [each['Action'] for each in sts.requests]


def of_another_worker(storage):
    """The verdict as another process finds it."""
    chaining._slots.clear()
    return chaining.verdict(storage)


# What is tried


def test_it_is_tried_with_keys_as_they_are_vended_without_a_policy_and_for_900_seconds(storage, sts):
    """More than an hour is a ValidationError on AWS, and would look like a refusal."""
    assert chaining.verdict(storage()).safe
    first, *tried = sts.requests
    assert (first['Action'], first['DurationSeconds']) == ('AssumeRole', '900')
    assert [statement['Effect'] for statement in json.loads(first['Policy'])['Statement']] == ['Allow'] * 3
    assert [each['Action'] for each in tried] == ['AssumeRole', 'AssumeRoleWithWebIdentity', 'GetFederationToken', 'GetSessionToken']
    assert not any('Policy' in each for each in tried)
    assert {each['DurationSeconds'] for each in tried} == {'900'}
    assert all('Credential=KEY1/' in each['authorization'] for each in tried if each['Action'] != 'AssumeRoleWithWebIdentity')


def test_each_role_that_the_server_knows_there_is_tried(storage, sts, beside):
    beside += [
        storage('Y', role_arn=SECOND),
        storage('Z', web_identity_role_arn='arn:aws:iam:::role/Web'),
        storage('ELSEWHERE', sts_endpoint='http://127.0.0.1:1', role_arn='x'),
    ]
    assert chaining.verdict(storage()).safe
    assert [each['RoleArn'] for each in sts.requests[1:] if each['Action'] == 'AssumeRole'] == [ROLE, SECOND, 'arn:aws:iam:::role/Web']


@pytest.mark.parametrize('action', [f'AssumeRole {ROLE}', f'AssumeRole {SECOND}', f'AssumeRoleWithWebIdentity {ROLE}', 'GetFederationToken', 'GetSessionToken'])
def test_whatever_is_granted_ends_vending(storage, sts, beside, action):
    beside.append(storage('Y', role_arn=SECOND))
    sts.chained[action] = None
    found = chaining.verdict(storage())
    assert not found.safe
    assert action.split()[0] in found.reason
    assert action.split()[-1] in found.reason
    assert 'docs/operators.md' in found.reason
    with pytest.raises(RSEOperationNotSupported, match='signs requests'):
        gateway._vended(storage(), 'user.alice', '', False, None, 'alice')


@pytest.mark.parametrize(
    'refusal',
    [
        (400, 'ValidationError'),
        (400, 'InvalidParameterValue'),
        (403, 'SignatureDoesNotMatch'),
        (403, 'InvalidAccessKeyId'),
        (403, 'ExpiredToken'),
        (404, 'NoSuchEntity'),
        (405, 'MethodNotAllowed'),
        (429, 'Throttling'),
        (500, 'InternalFailure'),
        (503, 'ServiceUnavailable'),
    ],
)
def test_only_access_denied_is_a_refusal_to_take_the_role(storage, sts, refusal):
    sts.chained['AssumeRole'] = refusal
    found = chaining.verdict(storage())
    assert not found.safe
    assert 'it is unknown whether' in found.reason


@pytest.mark.parametrize('code', ['AccessDenied', 'NoSuchEntity'])
def test_a_role_that_is_not_there_nobody_can_take(storage, sts, beside, code):
    beside.append(storage('Y', role_arn=SECOND))
    sts.chained[f'AssumeRole {SECOND}'] = (404, code)
    assert chaining.verdict(storage()).safe


@pytest.mark.parametrize('refusal', [(400, 'InvalidAction'), (405, 'MethodNotAllowed'), (501, 'NotImplemented')])
def test_a_storage_need_not_have_the_other_calls(storage, sts, refusal):
    sts.chained.update(dict.fromkeys(('GetFederationToken', 'GetSessionToken', 'AssumeRoleWithWebIdentity'), refusal))
    assert chaining.verdict(storage()).safe


@pytest.mark.parametrize('answer', [(200, ''), (200, '<html>'), (403, '<html>denied</html>'), (403, '')])
def test_what_cannot_be_read_is_no_refusal(storage, sts, monkeypatch, answer):
    stock = FakeSTS.answer
    monkeypatch.setattr(FakeSTS, 'answer', lambda self, asked: stock(self, asked) if 'SERVERKEY' in asked['authorization'] else answer)
    assert not chaining.verdict(storage()).safe


def test_a_storage_that_stops_answering_has_refused_nothing(storage, sts, monkeypatch):
    monkeypatch.setattr(sts_module, 'refusal', lambda *_, **__: 'ReadTimeoutError')
    assert not chaining.verdict(storage()).safe


def test_without_keys_to_try_with_it_is_said_why(storage, sts):
    sts.failures = [(403, 'AccessDenied')]
    found = chaining.verdict(storage())
    assert not found.safe
    assert found.reason.startswith('RSE X: ')
    assert 'role_arn' in found.reason


@pytest.mark.parametrize('arguments', [(), ('',), ('the storage is broken',)])
def test_an_error_is_never_taken_for_a_refusal(storage, monkeypatch, arguments):
    """Whether or not it says what is wrong."""
    monkeypatch.setattr(chaining.vending, 'assume', mock.Mock(side_effect=RSEAccessDenied(*arguments)))
    found = chaining.verdict(storage())
    assert not found.safe
    assert found.reason.startswith((arguments and arguments[0]) or 'Referenced RSE not reachable.')


@pytest.mark.parametrize(
    ('fault', 'told'), [(None, 'could read every object that the role may read'), (error(403, 'AccessDenied'), ''), (error(500, 'InternalError'), 'is unknown')]
)
def test_on_ceph_a_part_is_copied_that_keys_for_writing_must_not_read(storage, sts, s3, fault, told):
    """Ceph 18 does not refuse it. What is made for the test is removed."""
    if fault:
        s3.fail('UploadPartCopy', fault)
    found = chaining.verdict(storage(url=s3.url, provider='ceph'))
    assert found.safe is not bool(told)
    assert told in found.reason
    assert s3.operations() == [
        'CreateBucket',
        'HeadObject',
        'PutObject',
        'CreateMultipartUpload',
        'UploadPartCopy',
        'AbortMultipartUpload',
        'DeleteObject',
        'DeleteBucket',
    ]
    assert set(s3.buckets) == {'user.alice'}
    policy = json.loads(sts.requests[-1]['Policy'])
    assert '/source' not in json.dumps(policy)
    assert '/shared/*' in json.dumps(policy)


def test_where_ceph_takes_no_bucket_of_the_server_nothing_is_vended(storage, s3):
    s3.fail('CreateBucket', error(403, 'AccessDenied'))
    found = chaining.verdict(storage(url=s3.url, provider='ceph'))
    assert not found.safe
    assert 'is unknown whether vended keys can copy' in found.reason


def test_on_other_storages_no_part_is_copied(storage, s3):
    assert chaining.verdict(storage(url=s3.url)).safe
    assert s3.operations() == []


def test_what_anybody_could_do_to_topics_ends_vending(storage, sts, monkeypatch):
    seen = []
    monkeypatch.setattr(chaining.topics, 'find_exposure', lambda _, keys: seen.append(keys.get_credentials().access_key) or 'topics can be deleted')
    found = chaining.verdict(storage())
    assert (found.safe, found.reason) == (False, 'topics can be deleted')
    assert seen == ['KEY1'], 'by keys as they are vended'
    assert actions(sts)[-1] == 'GetSessionToken', 'the last of what is tried'


@pytest.mark.parametrize(
    ('release', 'held'),
    [(None, False), ('RELEASE.2025-09-07T16-13-09Z', False), ('RELEASE.2025-10-15T17-29-55Z', True), ('RELEASE.2026-01-01T00-00-00Z', True)],
)
def test_minio_vends_once_its_release_is_said(storage, sts, release, held):
    found = chaining.verdict(storage(provider='minio', minio_release=release))
    assert found.safe == held
    assert held or 'minio_release' in found.reason
    assert bool(sts.requests) == held


# How long it holds, and for whom


def test_a_worker_asks_the_table_and_no_storage_where_another_one_has_tried(storage, sts, database, beside):
    chaining.verdict(storage())
    tried, database.statements = len(sts.requests), 0
    assert of_another_worker(storage()).safe
    assert database.statements == 1
    assert chaining.verdict(storage()).safe
    assert database.statements == 1
    assert len(sts.requests) == tried


@pytest.mark.parametrize(('granted', 'lasts'), [(False, chaining.SAFE_SECONDS), (True, chaining.UNSAFE_SECONDS)])
def test_it_is_tried_again_after_hours_and_where_something_was_wrong_after_minutes(storage, sts, clock, granted, lasts):
    if granted:
        sts.chained['AssumeRole'] = None
    for clock.ahead, count in ((0, 1), (lasts - 5, 1), (lasts + 15, 2)):
        assert chaining.verdict(storage()).safe is not granted
        assert sum('Policy' in each for each in sts.requests) == count


def test_what_an_operator_put_right_takes_effect(storage, sts, clock, caplog):
    sts.chained['AssumeRole'] = None
    found = chaining.verdict(storage())
    assert not found.safe
    sts.chained.clear()
    clock.ahead = chaining.UNSAFE_SECONDS + 1
    assert chaining.verdict(storage()).safe
    assert [each for each in caplog.messages if 'no keys are vended' in each] == [f'S3: no keys are vended. {found.reason}']


def test_another_role_key_or_sts_is_another_verdict(storage, sts, beside):
    assert chaining.verdict(storage()).safe
    sts.chained['AssumeRole'] = None
    for changed in (storage(role_arn=SECOND), storage(key='ANOTHERKEY'), storage(sts_endpoint=f'{sts.url}/')):
        assert not chaining.verdict(changed).safe
    assert not chaining.verdict(storage()).safe  # that of the other key has taken its row
    beside.append(storage('Y', role_arn='arn:aws:iam:::role/Third'))
    chaining._roles.clear()
    sts.chained.clear()
    assert chaining.verdict(storage()).safe


def test_a_row_that_cannot_be_read_counts_for_nothing(storage, sts, database):
    chaining.verdict(storage())
    with database.session() as session, session.begin():
        session.execute(sqlalchemy.update(models.Config).values(value='{"held": true}'))
    sts.chained['AssumeRole'] = None
    assert not of_another_worker(storage()).safe


def test_sixteen_who_ask_at_once_cause_one_trial_and_no_transaction_is_open_meanwhile(storage, sts, database):
    chaining._roles[sts.url, ROLE] = (float('inf'), [])
    sts.gate.clear()
    there, arrived = storage(), threading.Barrier(17)

    def ask():
        arrived.wait()
        return chaining.verdict(there)

    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask) for _ in range(16)]
        arrived.wait()
        sts.reached.wait(30)
        assert database.open == 0
        sts.gate.set()
        assert len({each.result() for each in asked}) == 1
    assert len(sts.requests) == 5


def test_nothing_secret_is_kept(storage, sts, database):
    chaining.verdict(storage())
    with database.session() as session:
        kept = session.execute(sqlalchemy.select(models.Config.section, models.Config.value)).one()
    assert kept.section == 's3-vending:X'
    assert not any(each in kept.value for each in ('hidden', 'SERVERKEY', 'KEY1'))


# Who is told


def test_an_rse_is_described_with_what_holds(storage, sts, database, monkeypatch):
    monkeypatch.setattr(gateway, 'db_session', chaining.db_session)
    monkeypatch.setattr(storages, 'get_storage', lambda *_, **__: storage())
    monkeypatch.setattr(gateway.shared_keys, 'overlaps', lambda *_, **__: [])
    described = gateway.get_rse(api.GetRSE(rse='X'), 'alice')
    assert described['auth'] == ['vended', 'remote']
    assert described['role_chaining']['refused'] is True
    sts.chained['AssumeRole'] = None
    chaining._slots.clear()
    monkeypatch.setattr(storages, 'get_storage', lambda *_, **__: storage(role_arn=SECOND))
    described = gateway.get_rse(api.GetRSE(rse='X'), 'alice')
    assert described['auth'] == ['remote']
    assert SECOND in described['role_chaining']['reason']


def test_a_list_of_rses_tries_nothing(storage, sts, database, beside, monkeypatch):
    monkeypatch.setattr(gateway, 'db_session', chaining.db_session)
    beside.append(storage())
    assert [each['role_chaining'] for each in gateway.list_rses(api.ListRSEs(), 'alice')] == [None]
    assert not sts.requests
    sts.chained['AssumeRole'] = None
    chaining.verdict(storage())
    assert [each['auth'] for each in gateway.list_rses(api.ListRSEs(), 'alice')] == [['remote']]


# The trial, to the letter


def test_the_keys_to_try_with_are_for_nothing_that_anybody_has(storage, sts):
    """If they were lost: they read a folder in a bucket that does not exist."""
    chaining.verdict(storage(bucket_prefix='exp-'))
    objects, listing, location = json.loads(sts.requests[0]['Policy'])['Statement']
    bucket = listing['Resource'][0].removeprefix('arn:aws:s3:::')
    assert re.fullmatch('exp-rucio-s3-[0-9a-f]{8}', bucket)
    assert (objects['Action'], objects['Resource']) == (['s3:GetObject', 's3:GetObjectTagging'], [f'arn:aws:s3:::{bucket}/chaining/*'])
    assert (listing['Action'], listing['Condition']) == (['s3:ListBucket'], {'StringLike': {'s3:prefix': ['chaining/*']}})
    assert location['Action'] == ['s3:GetBucketLocation']


def test_where_all_scopes_are_in_one_bucket_it_is_tried_there(storage, sts):
    there = storage()
    there.protocol['prefix'] = '/common/'
    chaining.verdict(there)
    assert json.loads(sts.requests[0]['Policy'])['Statement'][1]['Resource'] == ['arn:aws:s3:::common']


def test_each_call_of_the_trial_is_one_that_a_storage_would_take(storage, sts):
    """A call that is wrong in itself would be refused by any storage."""
    chaining.verdict(storage())
    assert {each.get('RoleSessionName') for each in sts.requests[1:3]} == {'chaining'}
    assert [each.get('RoleArn') for each in sts.requests[1:]] == [ROLE, ROLE, None, None]
    assert sts.requests[3]['Name'] == 'chaining'
    header, claims, signature = (base64.urlsafe_b64decode(f'{part}==') for part in sts.requests[2]['WebIdentityToken'].split('.'))
    assert (json.loads(header), signature) == ({'alg': 'none'}, b'')
    assert json.loads(claims) == {'iss': 'https://rucio.invalid', 'sub': 'rucio', 'aud': 'rucio'}


def test_what_is_tried_is_not_counted_as_a_failure_of_the_storage(storage, sts, monkeypatch):
    seen, real = [], sts_module.client
    monkeypatch.setattr(sts_module, 'client', lambda *arguments, **options: seen.append(options.get('counted', True)) or real(*arguments, **options))
    chaining.verdict(storage())
    assert seen == [True, False], 'the keys are got as those of anybody'


@pytest.mark.parametrize('code', sorted(chaining._UNKNOWN | chaining._NOT_THE_TOKEN | {'NoSuchEntity'}))
def test_which_codes_are_refusals_of_which_call(storage, sts, code):
    """That a call is unknown, the token not one of the storage's, or that there is no such role."""
    for action, refused in (
        ('AssumeRole', False),
        ('AssumeRoleWithWebIdentity', True),
        ('GetFederationToken', code in UNKNOWN),
        ('GetSessionToken', code in UNKNOWN),
    ):
        sts.chained = {action: (400, code)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chaining, '_slots', {})
            patch.setattr(chaining, '_read', lambda *_: None)
            assert chaining.verdict(storage()).safe is refused, action


UNKNOWN = ('BadRequest', 'InvalidAction', 'InvalidParameterValue', 'MethodNotAllowed', 'NotImplemented', 'UnknownOperation', 'UnsupportedOperation')


def test_no_other_codes_are_refusals():
    assert sorted(chaining._UNKNOWN) == list(UNKNOWN)
    assert sorted(chaining._NOT_THE_TOKEN) == ['ExpiredTokenException', 'IDPRejectedClaim', 'InvalidIdentityToken']


@pytest.mark.parametrize(('own', 'other', 'tried'), [('aws', 'aws', True), ('aws', 'ceph', False), ('ceph', 'aws', False), ('ceph', 'ceph', False)])
def test_aws_has_the_same_roles_in_each_region(storage, sts, beside, own, other, tried):
    beside.append(storage('Y', provider=other, sts_endpoint='http://127.0.0.1:1', role_arn=SECOND))
    chaining.verdict(storage(provider=own))
    assert (SECOND in [each.get('RoleArn') for each in sts.requests]) is tried


def test_the_roles_of_other_rses_are_read_again_after_minutes(storage, sts, beside, clock):
    there = storage()
    for clock.ahead, known in ((0, [ROLE]), (chaining.ROLES_SECONDS - 1, [ROLE]), (chaining.ROLES_SECONDS + 1, [ROLE, SECOND])):
        assert chaining._known_roles(there) == known
        beside[:] = [storage('Y', role_arn=SECOND)]


# What is kept of it


@pytest.mark.parametrize(
    ('age', 'safe', 'fresh'),
    [
        (0, True, True),
        (-60, True, True),
        (-61, True, False),
        (chaining.SAFE_SECONDS - 1, True, True),
        (chaining.SAFE_SECONDS, True, False),
        (chaining.UNSAFE_SECONDS - 1, False, True),
        (chaining.UNSAFE_SECONDS, False, False),
    ],
)
def test_for_how_long_a_verdict_holds(monkeypatch, age, safe, fresh):
    monkeypatch.setattr(chaining, 'time', SimpleNamespace(time=lambda: 1_000_000))
    assert chaining.Verdict(safe, '', 1_000_000 - age).fresh is fresh


def test_a_verdict_for_the_rest_interface():
    assert chaining.Verdict(False, 'it was granted', 86400).as_dict() == {'refused': False, 'reason': 'it was granted', 'tried_at': '1970-01-02T00:00:00Z'}


def test_a_process_asks_the_table_again_after_some_seconds(storage, sts, database, clock):
    """Another server may have found something in the meantime."""
    chaining.verdict(storage())
    for clock.ahead, count in ((storages.CACHE_SECONDS - 1, 0), (storages.CACHE_SECONDS + 1, 1)):
        database.statements = 0
        assert chaining.verdict(storage()).safe
        assert database.statements == count


@pytest.mark.parametrize(('changed', 'safe'), [({}, True), ({'safe': 1}, False), ({'safe': 'yes'}, False), ({'safe': None}, False)])
def test_only_what_is_said_to_be_safe_is(storage, sts, database, changed, safe):
    chaining.verdict(storage())
    with database.session() as session, session.begin():
        row = session.execute(sqlalchemy.select(models.Config)).scalar_one()
        row.value = json.dumps(json.loads(row.value) | changed)
    tried = len(sts.requests)
    assert of_another_worker(storage()).safe is safe
    assert len(sts.requests) == tried


def test_the_last_verdict_is_read_and_nothing_is_tried(storage, sts, database, clock):
    def last(**settings):
        with database.session() as session:
            return chaining.last_verdict(storage(**settings), session=session)

    assert last() is None
    assert not sts.requests
    found, tried = chaining.verdict(storage()), len(sts.requests)
    assert last() == found
    assert last(role_arn=SECOND) is None
    database.statements = 0
    assert last() == found
    assert database.statements == 0, 'it is remembered'
    chaining._slots.clear()
    assert last() == found
    clock.ahead = chaining.SAFE_SECONDS + 1
    assert last() is None
    assert len(sts.requests) == tried


def test_a_long_story_fits_into_rucios_table(storage, sts, database):
    sts.chained['AssumeRole'] = None
    chaining.verdict(storage(role_arn=f'arn:aws:iam:::role/{"x" * 1900}'))
    with database.session() as session:
        kept = session.execute(sqlalchemy.select(models.Config.value)).scalar_one()
    assert len(kept) <= 4000
    assert [len(json.loads(kept)[name]) for name in ('role', 'reason')] == [500, 2000]


def test_temporary_keys_of_the_server_differ_between_processes(storage, beside, monkeypatch):
    """A verdict holds for all of them, while other keys have one of their own."""
    there, marks = storage(), {}
    for token in ('token', None):
        for key in ('KEY1', 'KEY2'):
            monkeypatch.setattr(storages.Storage, 'credentials', lambda _, key=key, token=token: ReadOnlyCredentials(key, 'secret', token))
            marks.setdefault(token, set()).add(chaining._mark(there))
    assert [len(each) for each in marks.values()] == [1, 2]


def test_a_verdict_is_for_the_gateways_and_the_release_that_were_tried(storage, beside):
    """Topics are on a gateway of their own, on storages that create them."""

    def marks(*every):
        return len({chaining._mark(storage(**each)) for each in every})

    usual, other, events = {}, {'url': 'http://127.0.0.1:10'}, {'events_endpoint': 'https://private.example.org'}
    assert marks(usual, {'minio_release': 'RELEASE.2026-01-01T00-00-00Z'}) == 2
    assert marks(*({'event_topics': True} | each for each in (usual, other, events))) == 3
    assert marks(usual, {'event_topics': True}) == 2
    assert marks(usual, events) == 1
    assert marks({'provider': 'ceph'}, {'provider': 'ceph'} | other) == 2
