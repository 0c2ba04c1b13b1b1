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

"""Which bucket policies are let through: everything that an owner could gain by another spelling. No database."""

import hashlib
import json
from types import SimpleNamespace
from unittest import mock

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.exception import (
    AccessDenied,
    DestinationNotAccessible,
    InvalidObject,
    RSEAccessDenied,
    RSEOperationNotSupported,
    ServiceUnavailable,
    UnsupportedOperation,
)
from rucio.common.s3 import clients, credentials
from rucio.core.s3.buckets import bucket_policies
from servers.fake_s3 import Answer, error

BUCKET = 'user.alice'
BOB = 'arn:aws:iam::123456789012:user/bob'
OBJECTS = f'arn:aws:s3:::{BUCKET}/run1/*'
OWN = frozenset({'rucio', 'ruciovending'})
DENY = {'Effect': 'Deny', 'Principal': {'AWS': [BOB]}, 'Action': ['s3:*'], 'Resource': [OBJECTS]}
PUBLIC = {'Sid': 'RucioPublic0123456789abcdef', 'Effect': 'Allow', 'Principal': {'AWS': ['*']}, 'Action': 's3:GetObject', 'Resource': OBJECTS}


def policy(*statements, **more):
    return {'Version': '2012-10-17', 'Statement': list(statements)} | more


def allow(**changed):
    statement = {'Effect': 'Allow', 'Principal': {'AWS': [BOB]}, 'Action': ['s3:GetObject'], 'Resource': [OBJECTS]}
    return {key: value for key, value in (statement | changed).items() if value is not None}


def check(wanted, admin=False, kept=()):
    return bucket_policies.check(wanted, BUCKET, admin, OWN, kept)


@pytest.mark.parametrize(
    'statement',
    [
        allow(),
        allow(Sid='bob reads'),
        allow(Principal={'AWS': BOB}, Action='s3:GetObject', Resource=OBJECTS),
        allow(Principal={'AWS': ['arn:aws:iam:::user/bob', 'arn:aws:iam::tenant:user/bob', 'arn:aws-cn:iam::1:role/some/path/Reader']}),
        allow(Action=['s3:ListBucket', 's3:GetBucketLocation'], Resource=[f'arn:aws:s3:::{BUCKET}']),
        allow(Action=['s3:GetObject', 's3:GetObjectTagging'], Resource=[f'arn:aws:s3:::{BUCKET}/*', f'arn:aws:s3:::{BUCKET}/one file']),
    ],
)
def test_owners_may_let_named_ones_read(statement):
    assert check(policy(statement)) == [statement]
    assert check(policy(statement, Id='x')) == [statement]
    assert check({'Version': '2012-10-17', 'Statement': statement}) == [statement]


@pytest.mark.parametrize(
    'statement',
    [
        DENY,
        allow(Effect='Deny'),
        allow(Effect='deny'),
        allow(Effect=['Allow', 'Deny']),
        allow(Effect=None),
        # Others than those who are named.
        allow(Principal='*'),
        allow(Principal=BOB),
        allow(Principal={'AWS': '*'}),
        allow(Principal={'AWS': ['*']}),
        allow(Principal={'AWS': [BOB, '*']}),
        allow(Principal={'AWS': []}),
        allow(Principal={'AWS': [[BOB]]}),
        allow(Principal={'AWS': {'x': BOB}}),
        allow(Principal={'AWS': ['arn:aws:iam::123456789012:user/*']}),
        allow(Principal={'AWS': ['arn:aws:iam::123456789012:user/bo?']}),
        allow(Principal={'AWS': ['arn:aws:iam::123456789012:user/${aws:username}']}),
        allow(Principal={'AWS': ['arn:aws:iam::123456789012:root']}),
        allow(Principal={'AWS': ['arn:aws:iam:::root']}),
        allow(Principal={'AWS': ['123456789012']}),
        allow(Principal={'AWS': ['arn:aws:sts::123456789012:assumed-role/RucioVending/rucio-bob']}),
        allow(Principal={'AWS': [f'{BOB}\n']}),
        allow(Principal={'aws': [BOB]}),
        allow(Principal={'AWS': [BOB], 'CanonicalUser': 'abc'}),
        allow(Principal={'Federated': 'tests'}),
        allow(Principal={'Service': 'logging.s3.amazonaws.com'}),
        allow(Principal=None),
        allow(Principal=None, NotPrincipal={'AWS': [BOB]}),
        allow(NotPrincipal={'AWS': [BOB]}),
        # The server itself.
        allow(Principal={'AWS': ['arn:aws:iam:::user/rucio']}),
        allow(Principal={'AWS': ['arn:aws:iam:::role/RucioVending']}),
        allow(Principal={'AWS': ['arn:aws:iam::1:role/path/ruciovending']}),
        # More than reading.
        allow(Action=['s3:PutObject']),
        allow(Action='s3:*'),
        allow(Action='*'),
        allow(Action='s3:Get*'),
        allow(Action='s3:GetObjec?'),
        allow(Action='S3:GetObject'),
        allow(Action='s3:getobject'),
        allow(Action=' s3:GetObject'),
        allow(Action=['s3:GetObject', 's3:DeleteObject']),
        allow(Action=['s3:GetObject', None]),
        allow(Action=[]),
        allow(Action='sts:AssumeRole'),
        allow(Action=None, NotAction=['s3:PutObject']),
        allow(NotAction=['s3:PutObject']),
        allow(action=['s3:*']),
        # Elsewhere.
        allow(Resource='*'),
        allow(Resource='arn:aws:s3:::*'),
        allow(Resource='arn:aws:s3:::user.bob/*'),
        allow(Resource=f'arn:aws:s3:::{BUCKET}*'),
        allow(Resource=f'arn:aws:s3:::{BUCKET}.other/*'),
        allow(Resource='arn:aws:s3:::user.?lice/*'),
        allow(Resource=f'arn:aws:s3:::{BUCKET}/run*/secret'),
        allow(Resource=f'arn:aws:s3:::{BUCKET}/run?'),
        allow(Resource=f'arn:aws:s3:::{BUCKET}/${{aws:username}}/*'),
        allow(Resource=f'arn:aws:s3:::{BUCKET}/../user.bob/*'),
        allow(Resource=f'arn:aws:s3:::{BUCKET}/./run1/*'),
        allow(Resource=[OBJECTS, 1]),
        allow(Resource=f'arn:aws:s3:::{BUCKET}/run1/*\n'),
        allow(Resource=f'arn:aws:s3:::{BUCKET}/run\u202e1/*'),
        allow(Resource=f'ARN:aws:s3:::{BUCKET}/*'),
        allow(Resource=f'{BUCKET}/*'),
        allow(Resource=[OBJECTS, 'arn:aws:s3:::user.bob']),
        allow(Resource=[]),
        allow(Resource=None),
        allow(Resource=None, NotResource=[OBJECTS]),
        allow(NotResource=[OBJECTS]),
        # Conditions, in whatever form.
        allow(Condition={}),
        allow(Condition={'StringNotEquals': {'aws:username': 'x'}}),
        allow(Condition={'ForAllValues:StringLike': {'aws:PrincipalArn': '*'}}),
        # A name of share --public.
        PUBLIC,
        allow(Sid='RucioPublic0123456789abcdef'),
        allow(Sid='ruciopublic'),
        allow(Sid=1),
    ],
)
def test_owners_may_set_nothing_else(statement):
    with pytest.raises(InvalidObject, match='The policy is not set') as refused:
        check(policy(allow(), statement))
    assert len(refused.value.args[0]) < 500
    assert refused.value.args[0].isprintable()


@pytest.mark.parametrize('admin', [True, False])
@pytest.mark.parametrize(
    'document',
    [
        None,
        [],
        {},
        {'Statement': [allow()]},
        policy(),
        policy('text'),
        policy(allow(), 'text'),
        policy([allow()]),
        policy(allow(), version='x'),
        policy(allow(), Statements=[]),
        policy(allow(), Id=1),
        policy(allow(), Version='2008-10-17'),
        policy(allow(), Version=['2012-10-17']),
        policy(allow(Sid='x' * 30_000)),
        policy(*[allow()] * 1000),
    ],
)
def test_what_is_no_policy(document, admin):
    with pytest.raises(InvalidObject):
        check(document, admin)


def test_a_policy_may_be_as_large_as_aws_takes_it():
    largest = policy(allow(Sid=''))
    largest['Statement'][0]['Sid'] = 'x' * (20 * 1024 - len(json.dumps(largest)))
    assert check(largest) == largest['Statement']
    largest['Statement'][0]['Sid'] += 'x'
    with pytest.raises(InvalidObject, match='at most 20480 bytes'):
        check(largest)


@pytest.mark.parametrize(
    ('statement', 'said'),
    [
        (allow(Action='XX'), "the action 'XX'. Owners can allow exactly s3:GetObject, "),
        (allow(Principal={'AWS': BOB + '/*'}), f"the Principal '{BOB}/*' is not "),
        (allow(Principal={'AWS': '*'}), 'the full names of users or roles. To let everybody read a collection, use: rucio s3 share'),
        (allow(Action='y' * 1000), f"the action '{'y' * 99}'. Owners"),
    ],
)
def test_what_is_refused_is_named_and_cut_where_it_is_long(statement, said):
    with pytest.raises(InvalidObject) as refused:
        check(policy(statement))
    assert said in refused.value.args[0]


@pytest.mark.parametrize(
    'statement',
    [
        DENY,
        DENY | {'Condition': {'Bool': {'aws:SecureTransport': 'false'}}},
        allow(Principal='*', Action='s3:*'),
        allow(Condition={'IpAddress': {'aws:SourceIp': '192.0.2.0/24'}}),
        allow(Action=None, NotAction='s3:PutObject'),
    ],
)
def test_admins_may_more(statement):
    assert check(policy(statement), admin=True) == [statement]


@pytest.mark.parametrize(
    'principal',
    [
        {'Principal': '*'},
        {'Principal': {'AWS': '*'}},
        {'Principal': {'AWS': [BOB, '*']}},
        {'Principal': {'AWS': ['arn:aws:iam::123456789012:root']}},
        {'Principal': {'AWS': ['arn:aws:iam:::user/rucio']}},
        {'Principal': {'AWS': ['arn:aws:iam:::role/RucioVending']}},
        {'Principal': {'AWS': ['arn:aws:iam:::user/ruci?']}},
        {'NotPrincipal': {'AWS': [BOB]}},
        {'NotPrincipal': {'AWS': [BOB]}, 'Principal': {'AWS': [BOB]}},
        {},
    ],
)
def test_nobody_locks_the_server_out(principal):
    denial = {key: value for key, value in DENY.items() if key != 'Principal'} | principal
    with pytest.raises(InvalidObject) as refused:
        check(policy(denial), admin=True)
    assert ('needs a Principal that names users or roles' in refused.value.args[0]) == ('NotPrincipal' in principal or not principal)
    named = principal.get('Principal') in ({'AWS': ['arn:aws:iam:::user/rucio']}, {'AWS': ['arn:aws:iam:::role/RucioVending']})
    assert bool(bucket_policies.warnings(policy(denial))) is not named


def test_what_is_shared_may_be_in_a_policy_that_was_read():
    assert check(policy(PUBLIC, allow()), kept=[PUBLIC]) == [allow()]
    # As a storage gives it back, or anybody writes it.
    assert check(policy(PUBLIC | {'Action': ['s3:GetObject'], 'Resource': [OBJECTS], 'Principal': {'AWS': '*'}}), kept=[PUBLIC]) == []
    for changed in ({'Resource': f'arn:aws:s3:::{BUCKET}/*'}, {'Action': ['s3:GetObject', 's3:PutObject']}, {'Principal': '*'}):
        with pytest.raises(InvalidObject):
            check(policy(PUBLIC | changed), kept=[PUBLIC])
    assert bucket_policies.warnings(policy(PUBLIC, allow(), 'odd')) == bucket_policies.warnings(None) == bucket_policies.warnings({}) == []


@pytest.mark.parametrize(
    ('arn', 'names'),
    [
        ('arn:aws:iam::123456789012:user/division/Server', {'server'}),
        ('arn:aws:sts::123456789012:assumed-role/ServerRole/i-0123', {'serverrole', 'i-0123'}),
        ('arn:aws:iam::123456789012:root', set()),
        ('Server', set()),
        ('', set()),
    ],
)
def test_what_the_server_is_called_at_a_storage(monkeypatch, arn, names):
    """By whatever the storage tells: its roles, who owns its buckets, and whom its STS sees."""
    client = mock.Mock(**{'list_buckets.return_value': {'Owner': {'ID': 'RUCIO', 'DisplayName': 'The server'}}})
    connection = SimpleNamespace(client=client, authorizer=mock.Mock())
    endpoint = SimpleNamespace(role_arn='arn:aws:iam:::role/Vending', web_identity_role_arn='arn:aws:iam:::role/path/Users')
    storage = SimpleNamespace(endpoint=endpoint, region='x', connection=lambda _: connection)
    monkeypatch.setattr(bucket_policies.sts, 'client', lambda *_: mock.Mock(**{'get_caller_identity.return_value': {'Arn': arn}}))
    assert bucket_policies._own_names(storage) == {'vending', 'users', 'rucio', 'the server'} | names
    endpoint.role_arn = endpoint.web_identity_role_arn = None  # without an STS, it is not asked
    client.list_buckets.return_value = {'Owner': {'ID': 'RUCIO', 'DisplayName': ''}}
    assert bucket_policies._own_names(storage) == {'rucio'}
    client.list_buckets.return_value = {}
    assert bucket_policies._own_names(storage) == set()


def test_an_admin_removes_what_the_server_may_not_see(monkeypatch):
    """Who may not read a policy may still be allowed to delete it."""
    put = mock.Mock()
    monkeypatch.setattr(bucket_policies, 'get', mock.Mock(side_effect=UnsupportedOperation('it is refused')))
    monkeypatch.setattr(bucket_policies, '_put', put)
    with pytest.raises(UnsupportedOperation):
        bucket_policies.remove('storage', BUCKET, False)
    assert not put.called
    assert bucket_policies.remove('storage', BUCKET, True) is None
    assert put.call_args_list == [mock.call('storage', BUCKET, None)]


# On a storage


@pytest.fixture
def storage(s3, endpoint):
    made = endpoint(unlock='Ask about BUCKET.')
    connection = clients.connect(made, credentials.Static('AKID', 'secret'))
    return SimpleNamespace(
        rse='X', endpoint=made, region='x', connection=lambda _: connection, layout=SimpleNamespace(place_of=lambda scope, name: (scope, name))
    )


@pytest.mark.parametrize(
    ('answer', 'found'),
    [
        (Answer(200, b'{"Version": "1"}'), {'Version': '1'}),
        (Answer(200, b'{}'), None),
        (Answer(200, b'[1]'), None),
        (error(404, 'NoSuchBucketPolicy'), None),
        (Answer(200, b'<html>'), ServiceUnavailable),
        (Answer(200, b'[' * 100_000), ServiceUnavailable),
        (error(403, 'AccessDenied'), UnsupportedOperation),
        (error(403, '403'), UnsupportedOperation),
        (error(403, 'InvalidAccessKeyId'), RSEAccessDenied),
        (error(403, 'SignatureDoesNotMatch'), RSEAccessDenied),
        (error(501, 'NotImplemented'), RSEOperationNotSupported),
    ],
)
def test_what_the_policy_is(storage, s3, answer, found):
    s3.fail('GetBucketPolicy', answer)
    if isinstance(found, type):
        with pytest.raises(found) as refused:
            bucket_policies.get(storage, BUCKET)
        assert type(refused.value) is found
        assert ('Ask about user.alice.' in str(refused.value)) == (found is UnsupportedOperation)
        assert refused.value.args[0].startswith(('RSE X: policy of bucket', 'RSE X: the policy of bucket', 'RSE X: the storage denies'))
    else:
        assert bucket_policies.get(storage, BUCKET) == found


def test_what_may_lock_the_server_out(storage, s3):
    assert bucket_policies.dangers(storage, BUCKET) == []
    s3.policies[BUCKET] = policy({'Effect': 'Deny', 'NotPrincipal': {'AWS': [BOB]}, 'Action': 's3:*', 'Resource': OBJECTS}, DENY)
    (found,) = bucket_policies.dangers(storage, BUCKET)
    assert 'also denies s3:* to the Rucio server' in found
    s3.policies[BUCKET] = policy({'Effect': 'Deny', 'Principal': '*'}, allow())
    assert 'also denies other actions' in bucket_policies.dangers(storage, BUCKET)[0]
    s3.fail('GetBucketPolicy', error(403, 'AccessDenied'), error(403, 'InvalidAccessKeyId'))
    assert 'the storage denies the Rucio server access' in bucket_policies.dangers(storage, BUCKET)[0]
    assert bucket_policies.dangers(storage, BUCKET) == []


def test_a_bucket_without_a_policy_gets_one_and_has_none_to_remove(storage, s3):
    assert bucket_policies.remove(storage, BUCKET, False) is None
    assert bucket_policies.change(storage, BUCKET, policy(allow()), False) == s3.policies[BUCKET] == policy(allow())


def test_an_owners_policy_replaces_another_but_not_what_is_public(storage, s3):
    s3.policies[BUCKET] = policy(PUBLIC, 'odd', allow(Sid='old'))
    new = bucket_policies.change(storage, BUCKET, policy(allow(Sid='new'), {**PUBLIC, 'Action': ['s3:GetObject']}, Id='mine'), False)
    assert new == s3.policies[BUCKET] == policy(allow(Sid='new'), PUBLIC, Id='mine')
    assert b': ' not in s3.requests[-1].body, 'Ceph wants compact JSON'
    with pytest.raises(InvalidObject):
        bucket_policies.change(storage, BUCKET, policy(DENY), False)
    assert s3.policies[BUCKET] == new


@pytest.mark.parametrize('act', [lambda *given: bucket_policies.change(*given[:2], policy(allow()), given[2]), bucket_policies.remove])
def test_a_deny_is_an_admins(storage, s3, act):
    s3.policies[BUCKET] = policy(DENY, PUBLIC)
    with pytest.raises(AccessDenied, match='only an admin may change or remove it'):
        act(storage, BUCKET, False)
    assert s3.policies[BUCKET] == policy(DENY, PUBLIC)
    act(storage, BUCKET, True)
    assert DENY not in s3.policies[BUCKET]['Statement']
    assert PUBLIC in s3.policies[BUCKET]['Statement']
    s3.policies[BUCKET] = policy(allow())
    act(storage, BUCKET, False)


def test_a_policy_is_removed_but_for_what_is_public(storage, s3):
    s3.policies[BUCKET] = policy(allow(), PUBLIC, Id='mine')
    assert bucket_policies.remove(storage, BUCKET, False) == s3.policies[BUCKET] == policy(PUBLIC)
    s3.policies[BUCKET] = policy(allow())
    assert bucket_policies.remove(storage, BUCKET, False) is None
    assert BUCKET not in s3.policies
    s3.fail('DeleteBucketPolicy', error(404, 'NoSuchBucketPolicy'))
    bucket_policies.lift(storage, BUCKET)
    s3.policies[BUCKET] = policy(DENY)
    bucket_policies.lift(storage, BUCKET)
    assert BUCKET not in s3.policies


@pytest.mark.parametrize(
    ('answer', 'raised', 'said'),
    [
        (error(400, 'MalformedPolicy', 'no such user'), InvalidObject, "X: the storage rejected this policy for the bucket 'user.alice': no such user"),
        (error(403, 'AccessDenied'), UnsupportedOperation, 'Ask about user.alice.'),
        (error(403, 'InvalidAccessKeyId'), RSEAccessDenied, ''),
        (error(501, 'NotImplemented'), RSEOperationNotSupported, 'RSE X: policy of bucket'),
        (error(404, 'NoSuchBucket'), DestinationNotAccessible, 'RSE X: policy of bucket'),
    ],
)
def test_why_a_policy_is_not_set(storage, s3, answer, raised, said):
    s3.fail('PutBucketPolicy', answer)
    with pytest.raises(raised) as refused:
        bucket_policies._put(storage, BUCKET, policy(allow()))
    assert (type(refused.value), said in str(refused.value)) == (raised, True)


@pytest.mark.parametrize('name', ['run1', 'a$b', 'a*b?', 'ü'])
def test_what_is_public_is_below_one_collection(storage, s3, name):
    bucket_policies.set_public(storage, BUCKET, 'other', True)
    other = s3.policies[BUCKET]['Statement']
    assert s3.policies[BUCKET] == policy(bucket_policies._public_statement(BUCKET, 'other/'))
    bucket_policies.set_public(storage, BUCKET, name, True)
    found = bucket_policies.public_prefixes(s3.policies[BUCKET], BUCKET)
    assert list(found.values()) == ['other/', f'{name}/']
    bucket_policies.set_public(storage, BUCKET, name, True)
    assert bucket_policies.public_prefixes(s3.policies[BUCKET], BUCKET) == found, 'once'
    bucket_policies.unpublish(storage, BUCKET, name)
    assert s3.policies[BUCKET]['Statement'] == other
    count = len(s3.requests)
    bucket_policies.unpublish(storage, BUCKET, name)
    assert [request.operation for request in s3.requests[count:]] == ['GetBucketPolicy']
    s3.policies[BUCKET]['Statement'].insert(0, 'odd')
    bucket_policies.unpublish(storage, BUCKET, 'other')
    assert s3.policies[BUCKET]['Statement'] == ['odd']
    s3.policies[BUCKET] = policy(other[0])
    bucket_policies.unpublish(storage, BUCKET, 'other')
    assert BUCKET not in s3.policies
    bucket_policies.unpublish(storage, 'no.bucket', name)


def test_public_statements_that_somebody_changed_have_no_prefix():
    own = bucket_policies._public_statement(BUCKET, 'run1/')
    wider = own | {'Resource': ['arn:aws:s3:::user.alice/*']}
    two = own | {'Resource': [*own['Resource'], 'arn:aws:s3:::user.alice/x/*']}
    another = own | {'Resource': ['arn:aws:s3:::user.alice/run2/*']}
    for changed in (wider, two, another, own | {'Resource': []}):
        assert bucket_policies.public_prefixes(policy(changed), BUCKET) == {own['Sid']: ''}
    assert bucket_policies.public_prefixes(policy(own, allow(Sid='Other'), 'odd'), BUCKET) == {own['Sid']: 'run1/'}
    assert bucket_policies.public_prefixes(None, BUCKET) == {}
    assert bucket_policies._public_statement(BUCKET, 'a*b$c?/')['Resource'] == ['arn:aws:s3:::user.alice/a${*}b${$}c${?}/*'], 'no patterns'
    assert own == {
        'Sid': f'RucioPublic{hashlib.sha256(b"run1/").hexdigest()[:16]}',  # as earlier versions have set it
        'Effect': 'Allow',
        'Principal': {'AWS': ['*']},
        'Action': ['s3:GetObject'],
        'Resource': ['arn:aws:s3:::user.alice/run1/*'],
    }
