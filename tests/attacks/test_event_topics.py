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

"""Who was vended keys for reading one folder wants to own the topics and the notifications of all buckets. On Ceph.

The gateways, and the role, are those of docs/operators.md, word for word: `ceph` is the gateway that users reach, `ceph.private` the one that
only the server should reach, with the API for topics and notifications.
"""

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from servers import documented
from servers.ceph import CephRGW
from servers.cli import RucioCli, RucioError, add_s3_rse, add_user
from servers.events import EVENTS_TOKEN
from servers.rucio_server import RECONCILER
from servers.team import ok, s3_call

from .keys import Keys, client, filled, got

TOPIC = 'rucio-s3-ATTACKED'
EVENTS = ['s3:ObjectCreated:*', 's3:ObjectRemoved:*']


class Receiver(http.server.ThreadingHTTPServer):
    """Takes events, as the Rucio server does."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        super().__init__(('127.0.0.1', 0), self._Handler)
        self.url = f'http://127.0.0.1:{self.server_port}/events'

    class _Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers['Content-Length']))
            self.server.keys += [each['s3']['object']['key'] for each in json.loads(body)['Records']]  # type: ignore[attr-defined]
            self.send_response(200)
            self.send_header('Content-Length', '0')
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass


@pytest.fixture(scope='module')
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


def make_topic(ceph: CephRGW, url: str = 'http://127.0.0.1:1') -> str:
    # Not persistent: it works at once.
    return str(ceph.private.client('sns').create_topic(Name=TOPIC, Attributes={'push-endpoint': url, 'OpaqueData': EVENTS_TOKEN})['TopicArn'])


def subscribe(s3: Any, bucket: str, topic: str) -> None:
    configuration = {'TopicConfigurations': [{'Id': 'rucio-s3', 'TopicArn': topic, 'Events': EVENTS}]}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)


def sabotage(gateway: CephRGW, keys: Credentials, bucket: str) -> Any:
    """Have a bucket tell of its events by a topic that is then deleted.

    :raises ClientError: if the storage refuses.
    """
    sns, s3 = client(gateway, keys, 'sns'), client(gateway, keys, 's3')
    attributes = {'push-endpoint': 'http://127.0.0.1:1', 'persistent': 'true'}  # so that writing needs its queue
    topic = sns.create_topic(Name=f'mine-{bucket}', Attributes=attributes)['TopicArn']
    subscribe(s3, bucket, topic)
    return sns.delete_topic(TopicArn=topic)


def calls(sns: Any, topic: str) -> list[str]:
    """What may be done with the topic."""
    tried = {
        'see': (sns.get_topic_attributes, {'TopicArn': topic}),
        'redirect': (sns.create_topic, {'Name': TOPIC, 'Attributes': {'push-endpoint': 'http://127.0.0.1:2'}}),
        'change': (sns.set_topic_attributes, {'TopicArn': topic, 'AttributeName': 'OpaqueData', 'AttributeValue': 'x'}),
        'make': (sns.create_topic, {'Name': 'mine'}),
        'delete': (sns.delete_topic, {'TopicArn': topic}),
    }
    may = [what for what, (call, parameters) in tried.items() if got(call, **parameters)]
    with suppress(ClientError):  # Ceph 20 leaves out what these keys may not see
        may += ['list'] * bool(sns.list_topics().get('Topics'))
    return may


def test_the_attack_works_where_users_reach_the_api(ceph: CephRGW) -> None:
    """Keys for reading one folder show the token, send the events elsewhere, and delete the topic: until Ceph 18 all who write are refused then."""
    bucket = filled(ceph, 'topics-open')
    topic = make_topic(ceph)
    subscribe(ceph.private.client(), bucket, topic)
    sns = client(ceph.private, Keys(ceph, bucket, 'shared/').credentials, 'sns')
    assert EVENTS_TOKEN in str(sns.get_topic_attributes(TopicArn=topic)['Attributes'])
    assert {'see', 'redirect', 'delete'} <= set(calls(sns, topic))
    with pytest.raises(ClientError):
        ceph.private.client('sns').get_topic_attributes(TopicArn=topic)


def test_the_attack_on_any_bucket_works_where_users_reach_the_api(ceph: CephRGW) -> None:
    """Keys for reading one folder stop all writing to a bucket of somebody else, where nobody uses events. From Ceph 18 on it is refused."""
    keys, victim = Keys(ceph, filled(ceph, 'topics-granted'), 'shared/').credentials, filled(ceph, 'topics-victim')
    if not got(sabotage, gateway=ceph.private, keys=keys, bucket=victim):
        pytest.skip('this Ceph asks who changes notifications')
    with pytest.raises(ClientError, match='InvalidArgument'):
        ceph.client().put_object(Bucket=victim, Key='file', Body=b'x')


@pytest.mark.parametrize('write', [False, True])
def test_topics_at_the_gateway_that_users_reach(ceph: CephRGW, receiver: Receiver, write: bool) -> None:
    """The same there: none of it, and the events of what is written there go where they went."""
    bucket = filled(ceph, f'topics-closed-{write}'.lower())
    topic = make_topic(ceph, receiver.url)
    subscribe(ceph.private.client(), bucket, topic)
    keys = Keys(ceph, bucket, 'shared/', write=write)
    assert keys.s3.get_object(Bucket=bucket, Key='shared/file')['Body'].read()
    assert calls(client(ceph, keys.credentials, 'sns'), topic) == []
    for action in ('CreateTopic', 'DeleteTopic', 'GetTopic', 'ListTopics'):
        assert keys.ask('sns', Action=action, Name=TOPIC, TopicArn=topic)[0] in (403, 405)
        assert keys.send('POST', f'/?Action={action}&Name={TOPIC}&TopicArn={topic}')[0] in (400, 403, 405)
    for each in (bucket, filled(ceph, 'topics-foreign')):
        for configuration in ({}, {'TopicConfigurations': [{'Id': 'x', 'TopicArn': topic, 'Events': EVENTS}]}):
            assert not got(keys.s3.put_bucket_notification_configuration, Bucket=each, NotificationConfiguration=configuration)
        assert not got(keys.s3.get_bucket_notification_configuration, Bucket=each)
        assert keys.send('DELETE', f'/{each}?notification=')[0] == 403
    ceph.client().put_object(Bucket=bucket, Key=f'{write}/told', Body=b'x')
    assert f'{write}/told' in receiver.keys


def test_the_policy_of_the_role(ceph: CephRGW) -> None:
    """The other way, from Ceph 20 on: the role denies sns:*. Ceph 16 and 18 refuse such a policy, and would not obey it."""
    iam, name = ceph.client('iam'), 'RucioDenied'
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=documented.ceph_policies()[0], MaxSessionDuration=43200)
    if not got(iam.put_role_policy, RoleName=name, PolicyName='all', PolicyDocument=documented.ceph_topics()[1]):
        pytest.skip('this Ceph knows no sns:* in policies')
    bucket, topic = filled(ceph, 'topics-denied'), make_topic(ceph)
    keys = Keys(ceph.private, bucket, 'shared/', role=ceph.role_arn.replace('RucioVending', name))
    assert keys.s3.get_object(Bucket=bucket, Key='shared/file')['Body'].read()
    assert calls(client(ceph.private, keys.credentials, 'sns'), topic) == []


# What the server does about it


@dataclass
class Site:
    """An account with a scope on an RSE with a role."""

    root: RucioCli
    owner: RucioCli
    rse: str
    storage: CephRGW

    @property
    def scope(self) -> str:
        return f'user.{self.owner.account}'

    @property
    def bucket(self) -> str:
        return prefix_of(self.rse) + self.scope

    @property
    def topic(self) -> str:
        return f'arn:aws:sns:default::rucio-s3-{self.rse}'


def prefix_of(rse: str) -> str:
    """Of the RSE's buckets: the reconciler meets no bucket of another test, whose objects may be hidden from it."""
    return rse.lower().replace('_', '-') + '-'


def add_site(root: RucioCli, directory: Any, rse: str, storage: CephRGW, **settings: str) -> Site:
    name = rse.lower().replace('_', '')
    owner = add_user(root, directory, name, scopes=[f'user.{name}'], attributes=())
    settings |= {'provider': 'ceph', 'role_arn': storage.role_arn, 'bucket_prefix': prefix_of(rse)}
    rse_id = add_s3_rse(root, rse, storage, accounts=(name,), settings=settings)
    root.server.set_rse_keys(rse_id, storage.access_key, storage.secret_key)
    return Site(root, owner, rse, storage)


def events_url(root: RucioCli, rse: str) -> str:
    return f'{root.server.url}/s3/{rse}/events'


def vended(site: Site) -> Credentials:
    answer = s3_call(site.owner, 'get_s3_credentials', site.rse, site.bucket)
    return Credentials(answer['access_key'], answer['secret_key'], answer['session_token'])


@pytest.fixture(scope='module')
def closed(team_root: RucioCli, ceph: CephRGW, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """As documented."""
    settings = {'events_url': events_url(team_root, 'TOPICS_S3'), 'events_endpoint': ceph.private.url}
    site = add_site(team_root, tmp_path_factory.mktemp('closed'), 'TOPICS_S3', ceph, **settings)
    assert 'Subscribed to its events' in ok(site.owner.rucio('s3', 'make-bucket', site.scope, '--rse', site.rse))
    return site


def test_a_storage_that_is_set_up_as_documented(closed: Site, ceph: CephRGW) -> None:
    """The server subscribes the bucket by its own gateway, and vends keys, which cannot touch the topic."""
    found = ceph.private.client().get_bucket_notification_configuration(Bucket=closed.bucket)['TopicConfigurations']
    assert [each['TopicArn'] for each in found] == [closed.topic]
    assert calls(client(ceph, vended(closed), 'sns'), closed.topic) == []


def test_the_server_makes_a_topic_again_that_somebody_deleted(closed: Site, ceph: CephRGW) -> None:
    """Somebody with keys of the tenant deletes the topic, or redirects it: everybody's writes fail, or the events go to him."""
    sns = ceph.private.client('sns')
    for attack in (lambda: sns.delete_topic(TopicArn=closed.topic), lambda: sns.create_topic(Name=f'rucio-s3-{closed.rse}', Attributes={})):
        attack()
        said = closed.root.server.run_daemon(*RECONCILER, '--run-once', '--rses', closed.rse)
        assert f'the topic rucio-s3-{closed.rse}' in said
        assert EVENTS_TOKEN in str(sns.get_topic_attributes(TopicArn=closed.topic)['Attributes'])
    closed.storage.client().put_object(Bucket=closed.bucket, Key='after/file', Body=b'x')


@pytest.mark.parametrize('events', [True, False], ids=['events', 'no events'])
def test_the_server_vends_no_keys_that_reach_topics(team_root: RucioCli, ceph: CephRGW, tmp_path: Path, events: bool) -> None:
    """The gateway of users has the API for topics, and somebody else has a bucket. The server tries it, signs instead, and says what to change."""
    rse = 'OPEN_TOPICS_S3' if events else 'OPEN_S3'
    site = add_site(team_root, tmp_path, rse, ceph.private, **({'events_url': events_url(team_root, rse)} if events else {}))
    ok(site.owner.rucio('s3', 'make-bucket', site.scope, '--rse', site.rse))
    victim = filled(ceph, f'{rse}-victim'.lower().replace('_', '-'))
    with pytest.raises(RucioError, match=r'read, replace and delete topics.*rgw_enable_apis.*events_endpoint'):
        sabotage(ceph.private, vended(site), victim)
    assert s3_call(site.owner, 'get_s3_rse', site.rse)['auth'] == ['remote']
    ceph.client().put_object(Bucket=victim, Key='file', Body=b'x')
    assert not any('probe' in each['TopicArn'] for each in ceph.private.client('sns').list_topics()['Topics'])  # what was made to try it


def test_signatures_for_topics(closed: Site) -> None:
    """The server's own gateway takes what the server's keys have signed. Got: a signature for a call of SNS."""
    form = {'Content-Type': ['application/x-www-form-urlencoded']}
    asked = f'Action=DeleteTopic&TopicArn={closed.topic}'
    for method, path in (('POST', f'/?{asked}'), ('PUT', f'/{closed.bucket}?notification')):
        request = {
            'method': method,
            'uri': closed.storage.url + path,
            'region': 'us-east-1',
            'headers': form,
            'body': base64.b64encode(asked.encode()).decode(),
        }
        with pytest.raises(RucioError, match=r'AccessDenied|not signed|signs'):
            s3_call(closed.owner, 'sign_s3_requests', closed.rse, [request])


@pytest.mark.slow
def test_check_tells_of_it(closed: Site) -> None:
    told = closed.owner.rucio('s3', '--robot', 'check', closed.rse).stdout
    results = {line.split('\t')[0]: line.split('\t')[1:] for line in told.splitlines()}
    assert results['event topics'][:2] == ['ok', 'vended keys cannot access topics']
