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

"""What storages tell: which records are understood, who may tell, and what comes back. No storage, no database."""

import base64
import json
from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace
from unittest import mock

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

import flask
from hypothesis import given
from hypothesis import strategies as st

from rucio.common.exception import CannotAuthenticate, DatabaseException, InputValidationError, RSEAccessDenied, RSENotFound, ServiceUnavailable
from rucio.common.s3.endpoint import SERVER, Endpoint
from rucio.core.s3 import storages
from rucio.core.s3.events import events
from rucio.core.s3.rate_limiter import RateLimiter
from rucio.core.s3.reconciler.summary import Summary
from rucio.gateway import s3events as gateway
from rucio.web.rest.flaskapi.v1 import s3events

pytestmark = pytest.mark.usefixtures('alone')

TOKEN = 'the-token-that-nobody-else-has'

# As they came: from Ceph 16.2.15 and SeaweedFS 4.48, and as AWS's and MinIO's documentation has them.
CEPH = {
    'eventVersion': '2.2',
    'eventSource': 'ceph:s3',
    'awsRegion': '',
    'eventTime': '2026-11-23T03:56:13.220590Z',
    'eventName': 'ObjectCreated:Put',
    'userIdentity': {'principalId': 'rucio'},
    'requestParameters': {'sourceIPAddress': ''},
    'responseElements': {'x-amz-request-id': 'acaf17dc.4119.8326514386164206581', 'x-amz-id-2': '1017-default-default'},
    's3': {
        's3SchemaVersion': '1.0',
        'configurationId': 'rucio-s3',
        'bucket': {'name': 'user.alice', 'ownerIdentity': {'principalId': 'rucio'}, 'arn': 'arn:aws:s3:::user.alice', 'id': 'acaf17dc.4121.2'},
        'object': {'key': 'run1/a+b', 'size': 3, 'eTag': '900150983cd24fb0d6963f7d28e17f72', 'versionId': '', 'sequencer': '5DB9036B9DE6320D', 'tags': []},
    },
    'eventId': '1795406173.221439.900150983cd24fb0d6963f7d28e17f72',
    'opaqueData': TOKEN,
}
AWS = {
    'eventVersion': '2.1',
    'eventSource': 'aws:s3',
    'awsRegion': 'us-west-2',
    'eventTime': '1970-01-01T00:00:00.000Z',
    'eventName': 'ObjectCreated:Put',
    'userIdentity': {'principalId': 'AIDAJDPLRKLG7UEXAMPLE'},
    'requestParameters': {'sourceIPAddress': '127.0.0.1'},
    'responseElements': {'x-amz-request-id': 'C3D13FE58DE4C810', 'x-amz-id-2': 'FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S'},
    's3': {
        's3SchemaVersion': '1.0',
        'configurationId': 'testConfigRule',
        'bucket': {'name': 'user.alice', 'ownerIdentity': {'principalId': 'A3NL1KOZZKExample'}, 'arn': 'arn:aws:s3:::user.alice'},
        'object': {'key': 'run1/a+b%2Bc', 'size': 1024, 'eTag': 'd41d8cd98f00b204e9800998ecf8427e', 'sequencer': '0055AED6DCD90281E5'},
    },
}
MINIO = {
    'EventName': 's3:ObjectCreated:Put',
    'Key': 'user.alice/run1/hello world.jpg',
    'Records': [
        {
            'eventVersion': '2.0',
            'eventSource': 'minio:s3',
            'awsRegion': '',
            'eventTime': '2019-10-22T09:27:27Z',
            'eventName': 's3:ObjectCreated:Put',
            's3': {
                's3SchemaVersion': '1.0',
                'configurationId': 'Config',
                'bucket': {'name': 'user.alice', 'ownerIdentity': {'principalId': 'AKIAIOSFODNN7EXAMPLE'}, 'arn': 'arn:aws:s3:::user.alice'},
                'object': {'key': 'run1%2Fhello+world.jpg', 'size': 224662, 'eTag': '5fc7298143efe1276d39a3466d4e255f-1', 'sequencer': '15CFEDF8D5304D1A'},
            },
        }
    ],
}
EVENTBRIDGE = {
    'version': '0',
    'id': '17793124-05d4-b198-2fde-7ededc63b103',
    'detail-type': 'Object Created',
    'source': 'aws.s3',
    'account': '111122223333',
    'region': 'ca-central-1',
    'resources': ['arn:aws:s3:::user.alice'],
    'detail': {
        'version': '0',
        'bucket': {'name': 'user.alice'},
        'object': {'key': 'run1/a+b', 'size': 5, 'etag': 'b1946ac92492d2347c6235b4d2611184', 'sequencer': '00617F08299329D189'},
        'reason': 'PutObject',
    },
}
SEAWEEDFS = {
    'event_type': 'create',
    'key': '/buckets/user.alice/run1/a+b',
    'message': {
        'new_entry': {'name': 'a+b', 'attributes': {'file_size': 3, 'mtime': 1795406179, 'md5': 'kAFQmDzST7DWlj99KOF/cg=='}},
        'new_parent_path': '/buckets/user.alice/run1',
        'signatures': [168660835],
    },
}


def parsed(document):
    return events.parse(json.dumps(document).encode())


def places(document):
    return sorted((change.bucket, change.key) for change in parsed(document).changes)


def record(key, name='ObjectCreated:Put', size=1, bucket='user.alice', source='aws:s3', **more):
    return {'eventSource': source, 'eventName': name, 's3': {'bucket': {'name': bucket}, 'object': {'key': key, 'size': size}}, **more}


# What is understood


@pytest.mark.parametrize(
    ('document', 'keys'),
    [
        ({'Records': [AWS]}, ['run1/a b+c']),
        (MINIO, ['run1/hello world.jpg']),
        ({'Records': [CEPH]}, ['run1/a b', 'run1/a+b']),
        (EVENTBRIDGE, ['run1/a+b']),
        ([EVENTBRIDGE, EVENTBRIDGE], ['run1/a+b']),
        (SEAWEEDFS, ['run1/a+b']),
        ({'Type': 'Notification', 'TopicArn': 'arn:aws:sns:us-west-2:1:T', 'Message': json.dumps({'Records': [AWS]})}, ['run1/a b+c']),
        ([{'messageId': '1', 'body': json.dumps({'Records': [AWS]})}], ['run1/a b+c']),
        ({'Records': [{'eventSource': 'aws:sqs', 'body': json.dumps({'Type': 'Notification', 'Message': json.dumps({'Records': [AWS]})})}]}, ['run1/a b+c']),
    ],
    ids=['AWS', 'MinIO', 'Ceph', 'EventBridge', 'EventBridge twice', 'SeaweedFS', 'SNS', 'SQS', 'SQS of SNS'],
)
def test_records_of_all_storages(document, keys):
    assert places(document) == [('user.alice', key) for key in keys]


@pytest.mark.parametrize(
    'name',
    [
        'ObjectCreated:CompleteMultipartUpload',
        's3:ObjectCreated:Copy',
        'ObjectRemoved:Delete',
        's3:ObjectRemoved:DeleteMarkerCreated',
        'ObjectRestore:Completed',
    ],
)
def test_all_that_makes_or_removes_an_object(name):
    assert places({'Records': [record('key', name)]}) == [('user.alice', 'key')]


@pytest.mark.parametrize(
    'other',
    [
        record('key', 'ObjectAccessed:Get'),
        record('key', 'ObjectTagging:Put'),
        record(''),
        record('a%00b'),
        record('key', bucket=''),
        record(7),
        {'s3': 'what'},
        {'Service': 'Amazon S3', 'Event': 's3:TestEvent', 'Bucket': 'user.alice'},
        {**EVENTBRIDGE, 'detail-type': 'Object Tags Added'},
        {**EVENTBRIDGE, 'detail': None},
        {**SEAWEEDFS, 'key': '/etc/iam/identity.json'},
        {**SEAWEEDFS, 'key': '/buckets/.system/owners/admin'},
        {**SEAWEEDFS, 'key': '/buckets/user.alice/.uploads/1_2/0001.part'},
        {**SEAWEEDFS, 'message': {'new_entry': {'name': 'run1', 'is_directory': True}}},
        {'Type': 'Notification', 'Message': 'hello'},
        'hello',
        None,
    ],
)
def test_what_is_not_understood_is_counted(other):
    batch = parsed([other, record('key')])
    assert batch.counts == {'records': 2, 'skipped': 1}
    assert batch.changes == [events.Change('user.alice', 'key')]


def test_a_key_that_is_told_of_often_is_looked_at_once():
    told = [record('key', size=5), record('other'), record('key', 'ObjectRemoved:Delete', size=None), record('key', size=3)]
    batch = parsed({'Records': told})
    assert batch.changes == [events.Change('user.alice', 'key'), events.Change('user.alice', 'other')]
    assert batch.counts['records'] == 4


def test_a_rename_tells_of_both_names():
    moved = {'old_entry': {'name': 'a+b'}, 'new_entry': {'name': 'c', 'attributes': {'file_size': 3}}, 'new_parent_path': '/buckets/user.bob/run2'}
    assert places({**SEAWEEDFS, 'event_type': 'rename', 'message': moved}) == [('user.alice', 'run1/a+b'), ('user.bob', 'run2/c')]


@pytest.mark.parametrize('body', [b'', b'garbage', b'\xff\xfe', b'{"Records": [', b'[' * 30_000, b'9' * 100_000])
def test_garbage(body):
    with pytest.raises(InputValidationError, match='JSON'):
        events.parse(body)


def test_wrappers_have_a_bottom():
    document = {'Records': [AWS]}
    for _ in range(9):
        document = {'Type': 'Notification', 'Message': json.dumps(document)}
    with pytest.raises(InputValidationError, match='too deep'):
        parsed(document)


def test_too_many_records():
    assert len(parsed({'Records': [record(f'key{number}') for number in range(1000)]}).changes) == 1000
    with pytest.raises(InputValidationError, match=r'more than 1000 records'):
        parsed({'Records': [record('key')] * 1001})
    for many in ([[]] * 30_000, [[[]] * 499] * 50, [0] * 100_000):
        with pytest.raises(InputValidationError, match=r'more than 1000 records'):
            parsed(many)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: (
        st.lists(inside) | st.dictionaries(st.sampled_from(['Records', 's3', 'bucket', 'object', 'name', 'key', 'size', 'eventName', 'message']), inside)
    ),
)


@given(_json)
def test_no_json_is_an_error(document):
    batch = parsed(document)
    assert batch.counts['skipped'] <= batch.counts['records']
    json.dumps([batch.counts, batch.changes])


@given(st.text(st.characters(codec='utf-8', categories=['L', 'N', 'P', 'S']), min_size=1))
def test_every_key_is_looked_at_however_it_was_encoded(key):
    raw = {'Records': [record(key, source='ceph:s3')]}
    encoded = json.loads(json.dumps(raw).replace('ceph:s3', 'aws:s3'))
    encoded['Records'][0]['s3']['object']['key'] = ''.join(f'%{byte:02X}' for byte in key.encode())
    assert ('user.alice', key) in places(raw)
    assert places(encoded) == [('user.alice', key)]


@pytest.mark.parametrize(
    ('url', 'told'),
    [
        ('https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:us-west-2:1:T&Token=2336412f', True),
        ('https://sns.cn-north-1.amazonaws.com.cn/?Action=ConfirmSubscription', True),
        ('http://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription', False),
        ('https://sns.us-west-2.amazonaws.com.example.org/', False),
        ('https://sns.us-west-2.amazonaws.com@127.0.0.1/', False),
        ('http://169.254.169.254/latest/meta-data', False),
        (None, False),
    ],
)
def test_only_a_url_of_aws_is_shown_to_the_operator(url, told):
    batch = parsed({'Type': 'SubscriptionConfirmation', 'TopicArn': 'arn:aws:sns:us-west-2:1:T', 'SubscribeURL': url})
    assert batch.confirmations == ([url] if told else [])
    assert batch.counts == {'records': 1, 'skipped': 1}


def test_what_has_too_many_brackets_is_not_even_read(monkeypatch):
    monkeypatch.setattr(events.json, 'loads', mock.Mock(side_effect=AssertionError))
    for body in (b'[' + b'[],' * 300_000 + b'[]]', b'[' + b'{},' * 300_000 + b'{}]'):
        with pytest.raises(InputValidationError, match=r'more than 1000 records'):
            events.parse(body)


# Who may tell


def storage(token=TOKEN, **settings):
    return SimpleNamespace(rse='X', rse_id='a' * 32, endpoint=Endpoint('X', 'a' * 32, 'https://s3.example.org', events_token=token, **settings))


def test_the_token_of_the_rse():
    events.need_token(storage(), [TOKEN])
    events.need_token(storage(), {TOKEN})


@pytest.mark.parametrize(
    ('of', 'offered'),
    [
        (storage(), []),
        (storage(), ['']),
        (storage(), [TOKEN[:-1]]),
        (storage(), [TOKEN, '']),
        (storage(), ['\ud800', TOKEN]),
        (storage(None), []),
        (storage(None), ['']),
        (storage(None), ['None']),
        (None, [TOKEN]),
        (None, ['']),
    ],
)
def test_others_are_refused_and_the_log_has_no_token(of, offered, caplog):
    with pytest.raises(CannotAuthenticate) as refused:
        events.need_token(of, offered)
    assert bool(caplog.messages) == bool(of)  # where there is none, that was logged before
    assert TOKEN[:-1] not in caplog.text + str(refused.value)


def test_nobody_sees_the_token():
    assert TOKEN not in repr(storage().endpoint)


# Following


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Nobody used anything of what he may use so far. Time stands still, unless a test makes it go."""
    made = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(events, 'time', SimpleNamespace(monotonic=lambda: made.now))
    for name, at_once, per_second in (('_STORAGE_LIMITER', 30, 0.5), ('_BUCKET_LIMITER', 15, 0.25), ('_LOG_LIMITER', 5, 1 / 60)):
        monkeypatch.setattr(events, name, RateLimiter(at_once, per_second, clock=lambda: made.now))
    return made


@pytest.fixture
def follow(monkeypatch, clock):
    """Follows changes of the RSE X, on which there are the scopes user.alice and user.bob. The reconciler only notes what it is asked."""
    made = SimpleNamespace(checked=[], storages=[], error=None, counts={'same': 1}, asked=[], down=None, seconds=0.0, read=0, unread=[])

    class Recorder:
        def __init__(self, subtree, **options):
            self.subtree, self.options, self.summary = subtree, options, Summary(Counter())

        def check(self, keys, most_read):
            clock.now += made.seconds * len(keys)
            made.unread.append(most_read)
            made.storages.append(self.subtree.storage)
            made.checked.append((str(self.subtree.scope), list(keys), self.options))
            self.summary.counts.update(made.counts)
            if made.error:
                raise made.error
            return most_read - made.read

    def exists(storage, bucket):
        made.asked.append(bucket)
        if made.down:
            raise made.down

    monkeypatch.setattr(events, 'db_session', lambda _: nullcontext())
    monkeypatch.setattr(events, '_existing', lambda _, names, __: names & {'user.alice', 'user.bob'})
    monkeypatch.setattr(events, 'Reconciler', Recorder)
    monkeypatch.setattr(events.bucket_settings, 'get', lambda *_, **__: SimpleNamespace(on_changed='replace', on_missing='forget'))
    monkeypatch.setattr(events.lookup, 'exists', exists)
    made.storage = rse()
    made.all = lambda *changes: events.process(made.storage, [events.Change(*change) for change in changes])
    return made


def counted(summary):
    return {kind: count for kind, count in summary.counts.items() if count}


def rse(**endpoint):
    domains = {'wan': {'read': 1, 'write': 1, 'delete': 1}}
    protocol = {'scheme': 'https', 'hostname': 's3.example.org', 'port': 443, 'prefix': '/', 'impl': 'rucio.rse.protocols.s3.Default', 'domains': domains}
    protocol['extended_attributes'] = {'s3': {'bucket_prefix': endpoint.get('bucket_prefix', '')}}
    settings = {'rse': 'X', 'id': 'a' * 32, 'deterministic': True, 'lfn2pfn_algorithm': 's3_bucket', 'protocols': [protocol]}
    return storages.Storage('X', 'a' * 32, 'def', Endpoint('X', 'a' * 32, 'https://s3.example.org', **endpoint), settings, protocol)


def test_each_scope_is_asked_once_with_the_settings_of_its_bucket(follow):
    summary = follow.all(('user.alice', 'a'), ('user.bob', 'b'), ('user.alice', 'c/d'), ('somebody-else', 'e'), ('Not A Bucket', 'f'))
    options = {'on_changed': 'replace', 'on_missing': 'forget', 'read_checksums': True}
    assert follow.checked == [('user.alice', ['a', 'c/d'], options), ('user.bob', ['b'], options)]
    assert summary.counts['unknown'] == 2
    assert summary.counts['same'] == 2
    assert not follow.asked


def test_a_storage_is_not_waited_for_as_long_as_by_a_daemon(follow):
    follow.all(('user.alice', 'run1/a'))
    assert follow.storages == [follow.storage.with_shortest_timeouts]
    assert follow.storage.with_shortest_timeouts.patience == SERVER


def test_what_one_request_reads_has_an_end(follow):
    follow.read = events.MAX_READ // 2
    follow.all(*(('user.alice', f'{number:03}') for number in range(3 * events.CHECK_CHUNK)))
    assert follow.unread == [events.MAX_READ, events.MAX_READ // 2, 0]


def test_a_request_ends_after_some_seconds(follow, caplog):
    """1,000 records of objects that take long to be looked at: the worker is free again, and the reconciler finds the rest."""
    follow.seconds = 0.01
    summary = follow.all(*(('user.alice', f'{number:03}') for number in range(1000)))
    looked_at = sum(len(keys) for _, keys, _ in follow.checked)
    assert looked_at == events.MAX_SECONDS / follow.seconds
    assert summary.counts['left'] == 1000 - looked_at
    assert '800 are left to the reconciler' in caplog.text


def test_the_owner_of_a_bucket_does_not_take_the_time_of_others(follow, clock):
    follow.seconds = 0.1
    for number in range(100):
        last = follow.all(*(('user.alice', f'{number}-{each}') for each in range(20)))
    assert counted(last) == {'left': 20}
    assert counted(follow.all(('user.bob', 'b'))) == {'same': 1}
    clock.now += 4
    assert follow.all(*(('user.alice', str(each)) for each in range(20))).counts['left'] == 0


def test_nor_does_a_storage(follow, monkeypatch):
    monkeypatch.setattr(events, '_BUCKET_LIMITER', RateLimiter(1000, 1))
    follow.seconds = 0.1
    for number in range(100):
        last = follow.all(*((bucket, f'{number}-{each}') for each in range(20) for bucket in ('user.alice', 'user.bob')))
    assert counted(last) == {'left': 40}


def test_a_storage_that_lets_the_server_wait_has_used_up_its_time(follow):
    follow.error, follow.seconds = ServiceUnavailable('no answer within 60 s'), 60
    with pytest.raises(ServiceUnavailable):
        follow.all(('user.alice', 'a'))
    assert counted(follow.all(('user.alice', 'a'), ('user.bob', 'b'))) == {'left': 2}


@pytest.mark.parametrize(
    'change',
    [
        ('user.carol', 'a'),  # no such scope in this VO
        ('user.alice', '../user.bob/a'),
        ('user.alice', 'run1/../../user.bob/a'),
        ('user.alice', '/a'),
        ('user.alice', 'a b'),
        ('user.alice', 'a?versionId=1'),
        ('user.alice', 'ä'),
        ('user.alice', 'k' * 2000),
        ('user.alice/../user.bob', 'a'),
        ('arn:aws:s3:::user.bob', 'a'),
        ('b' * 100_000, 'a'),
    ],
)
def test_what_can_be_none_of_ours_is_not_asked_for(follow, change):
    summary = follow.all(change)
    assert not follow.checked
    assert not follow.asked
    assert counted(summary) in ({'unknown': 1}, {'unnameable': 1})


def test_a_bucket_of_another_vo_is_not_looked_at(follow):
    follow.storage = rse(bucket_prefix='abc-')
    follow.all(('user.alice', 'a'), ('def-user.alice', 'a'), ('abc-user.alice', 'a'))
    assert [scope for scope, _, _ in follow.checked] == ['user.alice']


def test_nothing_is_read_where_the_settings_say_so(follow):
    follow.storage = rse(read_checksums=False)
    follow.all(('user.alice', 'small'))
    assert follow.checked[0][2]['read_checksums'] is False


@pytest.mark.parametrize('error', [ServiceUnavailable('down'), DatabaseException('locked')])
def test_who_is_down_is_told_of(follow, error):
    follow.error = error
    with pytest.raises(type(error)):
        follow.all(('user.alice', 'a'))


def test_a_storage_that_is_down_fails_for_each_object(follow):
    follow.counts = {'failed': 1}
    follow.down = ServiceUnavailable('no connection')
    with pytest.raises(ServiceUnavailable, match='no connection'):
        follow.all(('user.alice', 'a'))


@pytest.mark.parametrize(('counts', 'error'), [({'failed': 1}, None), ({}, RSEAccessDenied('not yours')), ({}, KeyError('a mistake of ours'))])
@pytest.mark.parametrize('down', [None, RSEAccessDenied('not yours either')])
def test_what_fails_for_itself_is_not_told_again_for_ever(follow, caplog, counts, error, down):
    follow.counts, follow.error, follow.down = counts, error, down
    summary = follow.all(('user.alice', 'a'), ('user.bob', 'b'))
    assert summary.counts['failed'] == 2
    assert follow.asked == ['user.alice', 'user.bob']
    assert bool(caplog.text) == bool(error)


def test_the_log_is_not_flooded(caplog, clock):
    for _ in range(1000):
        with pytest.raises(CannotAuthenticate):
            events.need_token(storage(), ['wrong'])
    assert len(caplog.messages) == 5
    assert caplog.messages[-1].endswith('limited to one per minute.)')
    clock.now += 61
    with pytest.raises(CannotAuthenticate):
        events.need_token(storage(), ['wrong'])
    assert len(caplog.messages) == 6


@pytest.mark.parametrize(
    ('body', 'tokens'),
    [
        (json.dumps({'Records': [{'opaqueData': TOKEN}]}).encode(), [TOKEN]),
        (json.dumps({'body': json.dumps({'Records': [{'opaqueData': TOKEN}]})}).encode(), [TOKEN]),
        (b'{"opaqueData" : "one", "opaqueData": "two"}', ['one']),
        (b'{"opaqueData": ""}', []),
        (b'{"opaqueData": 7}', []),
        (b'opaqueData' * 100_000, []),
        (b'opaqueData"' + b' ' * 1_000_000, []),
        (b'opaqueData' + b'\\' * 1_000_000, []),
        (b'', []),
    ],
)
def test_the_token_of_a_body_is_found_before_it_is_read(body, tokens):
    assert events.find_token(body) == tokens


# By HTTP


@pytest.fixture
def listener(monkeypatch):
    """A server with the RSE X; `follow` is what it does with what it was told."""
    app = flask.Flask('test')
    app.register_blueprint(s3events.blueprint())
    monkeypatch.setattr(gateway, 'db_session', lambda _: nullcontext())

    def get_storage(rse, vo, session):
        if (rse, vo) != ('X', 'def'):
            raise RSENotFound(f"There is no S3 RSE '{rse}'.")
        return storage()

    monkeypatch.setattr(storages, 'get_storage', get_storage)
    follow = mock.Mock(return_value=Summary(Counter(registered=1)))
    monkeypatch.setattr(events, 'process', follow)
    return SimpleNamespace(client=app.test_client(), follow=follow)


def post(listener, document, authorization=None, path='/s3/X/events'):
    headers = {'Authorization': authorization} if authorization else {}
    return listener.client.post(path, data=document if isinstance(document, bytes) else json.dumps(document), headers=headers)


def basic(password):
    return 'Basic ' + base64.b64encode(f'rucio:{password}'.encode()).decode()


@pytest.mark.parametrize('authorization', [f'Bearer {TOKEN}', f'bearer {TOKEN}', TOKEN, basic(TOKEN)])
def test_the_token_in_the_header(listener, authorization):
    answer = post(listener, {'Records': [AWS]}, authorization)
    assert answer.status_code == 200
    assert answer.json == {'records': 1, 'skipped': 0, 'counts': {'registered': 1}}
    assert listener.follow.call_args.args[1] == [events.Change('user.alice', 'run1/a b+c')]


def test_the_token_in_each_record(listener):
    assert post(listener, {'Records': [CEPH, CEPH]}).status_code == 200
    listener.follow.reset_mock()
    assert post(listener, {'Records': [CEPH, {**CEPH, 'opaqueData': ''}]}).status_code == 401
    assert post(listener, {'Records': [CEPH, AWS]}).status_code == 401
    assert post(listener, {'Records': []}).status_code == 401
    # What is in the header counts.
    assert post(listener, {'Records': [CEPH]}, 'Bearer another-token-altogether').status_code == 401
    assert not listener.follow.called


@pytest.mark.parametrize('authorization', [None, 'Bearer', 'Bearer ', f'Digest {TOKEN}', f'Bearer {TOKEN}x', basic('wrong'), 'Basic !', f'Bearer {TOKEN} x'])
@pytest.mark.parametrize('body', [{'Records': [AWS]}, b'garbage', {'Type': 'SubscriptionConfirmation', 'SubscribeURL': 'https://sns.us-west-2.amazonaws.com/'}])
def test_without_the_token(listener, authorization, body):
    answer = post(listener, body, authorization)
    assert answer.status_code == 401
    assert answer.headers['WWW-Authenticate'].startswith('Basic')
    assert not listener.follow.called


def test_json_is_read_of_those_only_who_know_a_token(listener, monkeypatch):
    monkeypatch.setattr(events, 'parse', mock.Mock(side_effect=AssertionError))
    assert post(listener, {'Records': [CEPH | {'opaqueData': 'wrong'}]}).status_code == 401
    assert post(listener, b'[' * 1_000_000).status_code == 401
    assert post(listener, b'[' * 1_000_000, 'Bearer wrong').status_code == 401


@pytest.mark.parametrize('path', ['/s3/Y/events', '/s3/X/events?vo=abc', '/s3/X%0Aforged/events', '/s3/X/events?vo=a%0Ab'])
def test_an_rse_that_is_not_there_has_no_token(listener, path, caplog):
    assert post(listener, {'Records': [AWS]}, f'Bearer {TOKEN}', path).status_code == 401
    assert not any('\n' in message for message in caplog.messages)


def test_bodies(listener):
    assert post(listener, b'garbage', f'Bearer {TOKEN}').status_code == 400
    assert post(listener, b' ' * (1024 * 1024 + 1), f'Bearer {TOKEN}').status_code == 413
    assert post(listener, b'[' + b' ' * (1024 * 1024 - 2) + b']', f'Bearer {TOKEN}').status_code == 200
    chunked = listener.client.post('/s3/X/events', headers={'Authorization': f'Bearer {TOKEN}', 'Transfer-Encoding': 'chunked'})
    assert chunked.status_code == 411
    assert listener.client.get('/s3/X/events').status_code == 405


@pytest.mark.parametrize(
    ('error', 'status'),
    [(ServiceUnavailable('down'), 503), (DatabaseException('locked'), 503), (RSEAccessDenied('no hidden-keys'), 500), (KeyError('hidden'), 500)],
)
def test_what_is_down_is_to_be_told_again(listener, error, status):
    listener.follow.side_effect = error
    answer = post(listener, {'Records': [AWS]}, f'Bearer {TOKEN}')
    assert answer.status_code == status
    assert 'hidden' not in answer.text


def test_a_confirmation_is_for_the_operator(listener, caplog):
    url = 'https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&Token=2336412f'
    answer = post(listener, {'Type': 'SubscriptionConfirmation', 'SubscribeURL': url}, basic(TOKEN))
    assert answer.status_code == 200
    assert url in caplog.text
