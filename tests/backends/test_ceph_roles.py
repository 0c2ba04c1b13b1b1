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

"""The roles that docs/operators.md tells operators of Ceph to make, on each version: word for word as they stand there."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from attacks.keys import Keys, client, filled, got
from backends.storage import Kind
from backends.test_conformance import CEPHS, named
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.settings import Secrets
from rucio.core.s3.auth import part_copies
from rucio.core.s3.storages import Storage
from servers import documented
from servers.boto import plain_client

pytestmark = pytest.mark.long

HOLDERS = 'arn:aws:iam::{account}:root'  # all who have keys of the account


def gain_nothing(keys: Keys, bucket: str, other: str) -> None:
    """Keys for the folder ``shared`` of a bucket read that, and nothing else, and assume their role no second time."""
    assert got(keys.s3.get_object, Bucket=bucket, Key='shared/file')
    for where in (bucket, other):
        assert not got(keys.s3.get_object, Bucket=where, Key='private/secret')
    with pytest.raises(ClientError) as refusal:
        keys.take(keys.role)
    assert refusal.value.response['ResponseMetadata']['HTTPStatusCode'] == 403


class TestRole:
    @pytest.fixture(scope='class', params=CEPHS)
    @classmethod
    def ceph(cls, request: pytest.FixtureRequest, start: Callable[[Kind], Any]) -> Any:
        return start(named(f'Ceph {request.param}'))

    def test_the_servers_user_can_make_the_role(self, ceph: Any) -> None:
        """With the capabilities that the page gives him."""
        user, role = 'rucio2', 'RucioOfAnother'
        (keys,) = json.loads(ceph.admin(*(word.replace('=rucio', f'={user}') for word in documented.ceph_user())))['keys']
        own = SimpleNamespace(url=ceph.url, region=ceph.region, ca_bundle=None, access_key=keys['access_key'], secret_key=keys['secret_key'])
        trust, may = (each.replace('user/rucio', f'user/{user}').replace('RucioVending', role) for each in documented.ceph_policies())
        iam = plain_client(own, 'iam')
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust, MaxSessionDuration=43200)
        iam.put_role_policy(RoleName=role, PolicyName='all', PolicyDocument=may)
        assert got(plain_client(own, 'sts').assume_role, RoleArn=ceph.role_arn.replace('RucioVending', role), RoleSessionName='rucio')

    def test_vended_keys_gain_nothing(self, ceph: Any) -> None:
        bucket = filled(ceph, 'roles-one')
        gain_nothing(Keys(ceph, bucket, 'shared/'), bucket, filled(ceph, 'roles-two'))

    def test_a_part_that_is_copied_from_elsewhere(self, ceph: Any) -> None:
        """Why Ceph 18 must not vend keys: of the source of a part it asks the policy of the role, and not that of the session."""
        bucket, other = filled(ceph, 'roles-one'), filled(ceph, 'roles-two')
        writer, place = Keys(ceph, bucket, 'shared/', write=True).s3, {'Bucket': bucket, 'Key': 'shared/stolen'}
        upload = writer.create_multipart_upload(**place)['UploadId']
        for where in (bucket, other):
            source = {'Bucket': where, 'Key': 'private/secret'}
            assert not got(writer.copy_object, **place, CopySource=source)
            assert got(writer.upload_part_copy, **place, UploadId=upload, PartNumber=1, CopySource=source) is (ceph.release == 18)
        writer.abort_multipart_upload(**place, UploadId=upload)

    def test_the_server_finds_that_out(self, ceph: Any) -> None:
        """And leaves nothing behind."""
        secrets = Secrets(ceph.access_key, ceph.secret_key)
        endpoint = Endpoint('CEPH', 'its id', ceph.url, provider='ceph', region=ceph.region, role_arn=ceph.role_arn, secrets=secrets)
        settings = {'deterministic': True, 'lfn2pfn_algorithm': 's3_bucket'}
        storage = Storage('CEPH', 'its id', 'def', endpoint, settings, {'prefix': '/', 'impl': 'rucio.rse.protocols.s3.Default'})
        before = storage.connection().client.list_buckets()['Buckets']
        found = part_copies.find_exposure(storage)
        assert ('could read every object' in found) is (ceph.release == 18), found
        assert storage.connection().client.list_buckets()['Buckets'] == before

    def test_deleting_in_bulk(self, ceph: Any) -> None:
        bucket = filled(ceph, 'roles-one')
        writer = Keys(ceph, bucket, 'shared/', write=True).s3
        assert got(writer.put_object, Bucket=bucket, Key='shared/more', Body=b'x')
        assert got(writer.delete_objects, Bucket=bucket, Delete={'Objects': [{'Key': 'shared/more'}]}) is (ceph.release >= 20)

    def test_a_role_that_is_there_is_changed(self, ceph: Any) -> None:
        """Keys of a role that trusts its own keys take it, until its policy is changed."""
        iam, trust = ceph.client('iam'), documented.ceph_policies()[0]
        name, role = 'RucioChanged', ceph.role_arn.replace('RucioVending', 'RucioChanged')
        alone = {**json.loads(trust), 'Statement': json.loads(trust)['Statement'][:1]}
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(alone, separators=(',', ':')), MaxSessionDuration=43200)
        keys = Keys(ceph, filled(ceph, 'roles-one'), 'shared/', role=role)
        assert keys.take(role)
        ceph.admin(
            'role' if ceph.release < 18 else 'role-trust-policy',
            'modify',
            f'--role-name={name}',
            f'--assume-role-policy-doc={trust.replace("RucioVending", name)}',
        )
        assert not got(keys.sts.assume_role, RoleArn=role, RoleSessionName='mallory')


class Account:
    """An account with its user ``rucio``, who is the Rucio server, and the role that he assumes; reached by a gateway that has the API for topics."""

    def __init__(self, ceph: Any) -> None:
        self.url, self.region, self.ca_bundle = ceph.private.url, ceph.region, ceph.ca_bundle
        (create, add_root), self.policies = documented.ceph_account()
        self.id = json.loads(ceph.admin(*create))['id']
        (keys,) = json.loads(ceph.admin(*(self.said(word) for word in add_root)))['keys']
        self.access_key, self.secret_key = keys['access_key'], keys['secret_key']
        self.iam = self.client('iam')
        self.iam.create_user(UserName='rucio')
        keys = self.iam.create_access_key(UserName='rucio')['AccessKey']
        self.access_key, self.secret_key = keys['AccessKeyId'], keys['SecretAccessKey']
        self.iam.put_user_policy(UserName='rucio', PolicyName='all', PolicyDocument=self.policies[0])
        self.role_arn = self.add_role('RucioVending', self.said(self.policies[1]))

    def said(self, words: str) -> str:
        """What stands in the page, for this account."""
        return words.replace('RGW11111111111111111', self.id)

    def client(self, service: str = 's3') -> Any:
        return plain_client(SimpleNamespace(**vars(self)), service, request_checksum_calculation='when_required')

    def add_role(self, name: str, trust: str) -> str:
        arn = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, MaxSessionDuration=43200)['Role']['Arn']
        self.iam.put_role_policy(RoleName=name, PolicyName='all', PolicyDocument=self.policies[2])
        return str(arn)


class TestAccount:
    @pytest.fixture(scope='class')
    @classmethod
    def account(cls, start: Callable[[Kind], Any]) -> Any:
        return Account(start(named('Ceph Tentacle')))

    def test_vended_keys_gain_nothing(self, account: Any) -> None:
        bucket = filled(account, 'account-one')
        gain_nothing(Keys(account, bucket, 'shared/'), bucket, filled(account, 'account-two'))

    def test_vended_keys_reach_no_topics(self, account: Any) -> None:
        server = account.client('sns')
        topic = server.create_topic(Name='events', Attributes={'push-endpoint': 'http://127.0.0.1:1'})['TopicArn']
        sns = client(account, Keys(account, filled(account, 'account-one'), 'shared/', write=True).credentials, 'sns')
        assert not got(sns.list_topics)
        assert not got(sns.get_topic_attributes, TopicArn=topic)
        assert not got(sns.create_topic, Name='events', Attributes={'push-endpoint': 'http://127.0.0.1:2'})
        assert not got(sns.delete_topic, TopicArn=topic)
        server.delete_topic(TopicArn=topic)

    def test_the_attack_works_where_a_role_trusts_the_account(self, account: Any) -> None:
        """What the page warns of: keys of a folder are good for all buckets then."""
        trust = account.said(account.policies[1]).replace(f'arn:aws:iam::{account.id}:user/rucio', HOLDERS.format(account=account.id))
        role, secret = account.add_role('OfTheAccount', trust), filled(account, 'account-two')
        keys = Keys(account, filled(account, 'account-one'), 'shared/')
        assert got(keys.take(role).get_object, Bucket=secret, Key='private/secret')
