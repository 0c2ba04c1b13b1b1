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

"""Which bucket policies are let through: everything that an owner could gain by another spelling. No server, no database."""

from types import SimpleNamespace
from unittest import mock

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.exception import InvalidObject, UnsupportedOperation
from rucio.core.s3.buckets import bucket_policies

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
    with pytest.raises(InvalidObject):
        check(policy(denial), admin=True)
    named = principal.get('Principal') in ({'AWS': ['arn:aws:iam:::user/rucio']}, {'AWS': ['arn:aws:iam:::role/RucioVending']})
    assert bool(bucket_policies.warnings(policy(denial))) is not named


def test_what_is_shared_may_be_in_a_policy_that_was_read():
    assert check(policy(PUBLIC, allow()), kept=[PUBLIC]) == [allow()]
    # As a storage gives it back, or anybody writes it.
    assert check(policy(PUBLIC | {'Action': ['s3:GetObject'], 'Resource': [OBJECTS], 'Principal': {'AWS': '*'}}), kept=[PUBLIC]) == []
    for changed in ({'Resource': f'arn:aws:s3:::{BUCKET}/*'}, {'Action': ['s3:GetObject', 's3:PutObject']}, {'Principal': '*'}):
        with pytest.raises(InvalidObject):
            check(policy(PUBLIC | changed), kept=[PUBLIC])
    assert bucket_policies.warnings(policy(PUBLIC, allow())) == bucket_policies.warnings(None) == bucket_policies.warnings({}) == []


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
