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


"""Vended keys on the client: which requests get which keys, how often the Rucio server is asked, and who comes first."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from rucio.common.exception import (
    AccessDenied,
    InputValidationError,
    InsufficientAccountLimit,
    RSEAccessDenied,
    RSENotFound,
    RSEOperationNotSupported,
    ServerConnectionException,
    SourceNotFound,
)
from rucio.common.s3 import clients, credentials, objects, transfer, vended
from rucio.common.s3.authorizer import Request
from rucio.common.s3.errors import Target
from rucio.common.s3.remote import Remote
from rucio.common.s3.settings import Secrets
from rucio.common.s3.vended import Vended
from rucio.common.s3.webidentity import WebIdentity
from rucio.rse import rsemanager
from rucio.rse.protocols import s3 as protocol_module
from servers.fake_s3 import Answer, error

BUCKET = 'user.alice'
TOKEN = 'eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2kiLCJzdWIiOiJhbGljZSJ9.c2ln'


class FakeServer:
    """A Rucio server's S3 plugin: vends keys for all of a bucket, or for the parts that are shared."""

    def __init__(self, ways=('vended', 'remote')):
        self.identity = 'https://rucio alice'
        self.ways = ways
        self.shared = None  # prefixes, where the account is not the owner
        self.lifetime = 3600
        self.asked = []
        self.offers = 0
        self.failure = None
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()

    def get_s3_rse(self, rse):
        self.offers += 1
        if self.failure:
            raise self.failure
        return {'rse': rse, 'auth': list(self.ways), 'region': 'mars'}

    def get_s3_credentials(self, rse, bucket, prefix, write):
        self.asked.append((rse, bucket, prefix, write))
        number = len(self.asked)
        self.reached.set()
        self.gate.wait(30)
        if self.failure:
            raise self.failure
        covered = '' if self.shared is None else next((each for each in self.shared if prefix.startswith(each)), None)
        if covered is None:
            raise AccessDenied(f'Account alice may not read {bucket}. The owner of the scope can share it (rucio s3 share).')
        ends = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() + self.lifetime))
        keys = {'access_key': f'KEY{number}', 'secret_key': 'hidden-key', 'session_token': f'hidden-token-{number}'}
        return {'bucket': bucket, 'prefix': covered, 'write': write, 'expiration': ends, **keys}


@pytest.fixture
def vendor(monkeypatch):
    monkeypatch.setattr(credentials, '_offers', {})
    return FakeServer()


@pytest.fixture
def connection(endpoint, vendor):
    return clients.connect(endpoint(), Vended(endpoint(), vendor))


@pytest.fixture
def clock(monkeypatch):
    """The time of the authoriser; `ahead` seconds are added."""
    made = SimpleNamespace(ahead=0.0)
    made.monotonic = lambda: time.monotonic() + made.ahead
    made.time = lambda: time.time() + made.ahead
    made.strptime = time.strptime
    monkeypatch.setattr(vended, 'time', made)
    return made


def used(s3):
    """The access keys that the requests were signed with, in their order."""
    return [request.headers.get('authorization', '').partition('Credential=')[2].partition('/')[0] for request in s3.requests]


# Who comes first


def test_the_order_is_keys_then_signed_urls_then_vended_then_remote_then_web_identity(endpoint, vendor):
    everything = {'secrets': Secrets('A', 'b'), 'web_identity_role_arn': 'arn:aws:iam::1:role/x'}
    assert isinstance(credentials.choose(endpoint(**everything), vendor, TOKEN, True), credentials.Static)
    without = endpoint(web_identity_role_arn='arn:aws:iam::1:role/x')
    assert credentials.choose(without, vendor, TOKEN, True) is None
    assert vendor.offers == 0  # nobody was asked so far
    assert isinstance(credentials.choose(without, vendor, TOKEN), Vended)
    vendor.ways, credentials._offers = ('remote',), {}
    assert isinstance(credentials.choose(without, vendor, TOKEN), Remote)
    vendor.ways, credentials._offers = (), {}
    assert isinstance(credentials.choose(without, vendor, TOKEN), WebIdentity)
    assert credentials.choose(without, vendor, 'alice-x.y-z.unknown') is None  # no JSON web token
    assert credentials.choose(endpoint(), vendor, TOKEN) is None
    assert credentials.choose(endpoint()) is None


@pytest.mark.parametrize('failure', [RSEOperationNotSupported('no plugin'), RSENotFound('not served')])
def test_a_server_without_the_plugin_is_as_before_and_asked_once(endpoint, vendor, failure):
    vendor.failure = failure
    assert [credentials.choose(endpoint(), vendor) for _ in range(3)] == [None] * 3
    assert vendor.offers == 1


def test_a_server_that_does_not_answer_is_an_error_and_asked_again(endpoint, vendor):
    vendor.failure = ServerConnectionException('down')
    with pytest.raises(ServerConnectionException):
        credentials.choose(endpoint(), vendor)
    vendor.failure = None
    assert isinstance(credentials.choose(endpoint(), vendor), Vended)


def test_a_way_can_be_named(endpoint, vendor):
    assert isinstance(credentials.choose(endpoint(auth='remote'), vendor), Remote)
    assert isinstance(credentials.choose(endpoint(auth='vended'), vendor), Vended)
    assert isinstance(credentials.choose(endpoint(auth='web-identity', web_identity_role_arn='arn:aws:iam::1:role/x'), None, TOKEN), WebIdentity)


@pytest.mark.parametrize(
    ('settings', 'token', 'words'),
    [
        ({'auth': 'vended'}, None, 'rse-accounts.cfg'),
        ({'auth': 'remote'}, None, 'rse-accounts.cfg'),
        ({'auth': 'web-identity', 'web_identity_role_arn': 'x'}, None, 'auth_type = oidc'),
        ({'auth': 'web-identity'}, TOKEN, 'web_identity_role_arn'),
    ],
)
def test_a_way_that_is_named_and_cannot_be_is_refused_with_what_is_missing(endpoint, settings, token, words):
    with pytest.raises(RSEAccessDenied, match=words):
        credentials.choose(endpoint(**settings), None, token)


def test_the_server_is_made_only_when_it_is_needed(endpoint, vendor):
    made = []

    def make():
        made.append(1)
        return vendor

    credentials.choose(endpoint(secrets=Secrets('A', 'b')), make)
    credentials.choose(endpoint(auth='anonymous'), make)
    credentials.choose(endpoint(), make, sign_url=True)
    assert not made
    assert isinstance(credentials.choose(endpoint(), make), Vended)
    assert credentials.choose(endpoint(), lambda: None) is None


def test_the_region_is_what_the_server_says_unless_a_setting_says_another(endpoint, vendor, s3):
    s3.store(BUCKET, 'k', b'x')
    objects.stat(clients.connect(endpoint(), credentials.choose(endpoint(), vendor)), Target('X', BUCKET, 'k'))
    assert '/mars/s3/' in s3.requests[-1].headers['authorization']


def test_the_protocol_asks_the_server_in_a_client_only(protocol, vendor, s3, monkeypatch):
    monkeypatch.setattr(protocol_module, '_servers', {})
    monkeypatch.setattr('rucio.client.s3client.S3Client', lambda: vendor)
    s3.store(BUCKET, 'k', b'x')
    assert protocol(keys=None).exists(f'{s3.url}/{BUCKET}/k')
    assert used(s3) == ['KEY1']
    monkeypatch.setattr(rsemanager, 'CLIENT_MODE', False)
    assert protocol_module._server(None) is None


def test_a_client_without_a_server_in_its_configuration_is_as_before(protocol, s3):
    with pytest.raises(RSEAccessDenied, match=r'rse-accounts\.cfg'):
        protocol(keys=None).exists(f'{s3.url}/{BUCKET}/k')


# Which keys


def test_one_pair_of_keys_serves_many_files_of_a_bucket_and_another_those_that_are_written(connection, vendor, s3, tmp_path):
    (tmp_path / 'f').write_bytes(b'content')
    for key in ('a', 'b', 'c/d'):
        assert not objects.exists(connection, Target('X', BUCKET, key))
        transfer.upload(connection, str(tmp_path / 'f'), Target('X', BUCKET, key))
        transfer.download(connection, Target('X', BUCKET, key), str(tmp_path / 'g'))
    assert vendor.asked == [('X', BUCKET, 'a', False), ('X', BUCKET, 'a', True)]
    assert set(used(s3)) == {'KEY1', 'KEY2'}
    assert s3.requests[-1].headers['x-amz-security-token'].startswith('hidden-token-')


def test_keys_for_writing_do_for_reading(connection, vendor):
    connection.client.put_object(Bucket=BUCKET, Key='a', Body=b'x')
    connection.client.get_object(Bucket=BUCKET, Key='a')
    connection.client.list_objects_v2(Bucket=BUCKET)
    assert len(vendor.asked) == 1


def test_each_shared_part_has_its_own_keys(connection, vendor, s3):
    vendor.shared = ['run1/', 'run2/']
    for key in ('run1/a', 'run1/b', 'run2/a', 'run1/c'):
        s3.store(BUCKET, key, b'x')
        connection.client.get_object(Bucket=BUCKET, Key=key)
    assert used(s3) == ['KEY1', 'KEY1', 'KEY2', 'KEY1']
    with pytest.raises(RSEAccessDenied, match=r"RSE X.*'user.alice', key 'run3/a'.*share"):
        connection.client.get_object(Bucket=BUCKET, Key='run3/a')
    assert len(s3.requests) == 4


@pytest.mark.parametrize(
    ('operation', 'arguments', 'need'),
    [
        ('head_object', {'Key': 'a/b'}, ('a/b', False)),
        ('list_objects_v2', {'Prefix': 'a/'}, ('a/', False)),
        ('head_bucket', {}, ('', False)),
        ('delete_object', {'Key': 'a/b'}, ('a/b', True)),
        ('delete_objects', {'Delete': {'Objects': [{'Key': 'a/b/1'}, {'Key': 'a/b/2'}, {'Key': 'a/bc'}]}}, ('a/', True)),
        ('delete_objects', {'Delete': {'Objects': [{'Key': 'a/b'}]}}, ('a/b', True)),
        ('delete_objects', {'Delete': {'Objects': [{'Key': 'a/b'}, {'Key': 'c'}]}}, ('', True)),
        ('create_multipart_upload', {'Key': 'a/b'}, ('a/b', True)),
        ('copy_object', {'Key': 'a/c', 'CopySource': {'Bucket': BUCKET, 'Key': 'a/b'}}, ('a/c', True)),
    ],
)
def test_what_a_request_needs_is_read_from_its_operation(connection, vendor, s3, operation, arguments, need):
    s3.store(BUCKET, 'a/b', b'x')
    getattr(connection.client, operation)(Bucket=BUCKET, **arguments)
    assert vendor.asked[-1] == ('X', BUCKET, *need)


def test_asking_about_a_bucket_takes_any_keys_for_a_part_of_it(connection, vendor, s3):
    vendor.shared = ['run1/']
    s3.store(BUCKET, 'run1/a', b'x')
    connection.client.get_object(Bucket=BUCKET, Key='run1/a')
    connection.client.head_bucket(Bucket=BUCKET)
    assert len(vendor.asked) == 1


def test_a_listing_takes_keys_for_all_that_it_lists(connection, vendor, s3):
    vendor.shared = ['run1/']
    s3.store(BUCKET, 'run1/a', b'x')
    connection.client.get_object(Bucket=BUCKET, Key='run1/a')
    connection.client.list_objects_v2(Bucket=BUCKET, Prefix='run1/')
    connection.client.get_bucket_location(Bucket=BUCKET)
    assert len(vendor.asked) == 1
    for prefix in ('', 'run1', 'run'):
        with pytest.raises(RSEAccessDenied, match='issues no keys to read'):
            connection.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    assert [asked[2] for asked in vendor.asked[1:]] == ['', 'run1', 'run']


def test_keys_for_reading_do_not_write(connection, vendor, s3):
    s3.store(BUCKET, 'k', b'x')
    connection.client.get_object(Bucket=BUCKET, Key='k')
    connection.client.delete_object(Bucket=BUCKET, Key='k')
    assert vendor.asked == [('X', BUCKET, 'k', False), ('X', BUCKET, 'k', True)]
    vendor.get_s3_credentials = lambda *asked: FakeServer().get_s3_credentials(*asked[:3], False)
    connection.authorizer._keys.clear()
    with pytest.raises(RSEAccessDenied, match='do not cover'):
        connection.client.put_object(Bucket=BUCKET, Key='k', Body=b'x')
    assert used(s3) == ['KEY1', 'KEY2']


def test_keys_of_one_bucket_are_not_used_for_another(connection, vendor, s3):
    for bucket in (BUCKET, 'user.bob', BUCKET, 'user.bob'):
        s3.store(bucket, 'k', b'x')
        connection.client.get_object(Bucket=bucket, Key='k')
    assert used(s3) == ['KEY1', 'KEY2', 'KEY1', 'KEY2']


def test_buckets_cannot_be_listed(connection, vendor, s3):
    with pytest.raises(RSEOperationNotSupported, match='rucio s3 ls'):
        connection.client.list_buckets()
    assert not vendor.asked
    assert not s3.requests


def test_keys_for_one_object_are_not_used_for_those_that_begin_like_it(connection, vendor, s3):
    vendor.shared = ['run10', 'run1']
    for key in ('run1', 'run10', 'run1'):
        s3.store(BUCKET, key, b'x')
        connection.client.get_object(Bucket=BUCKET, Key=key)
    assert used(s3) == ['KEY1', 'KEY2', 'KEY1']


def test_keys_for_something_else_are_not_used(connection, vendor, s3):
    vendor.get_s3_credentials = lambda *_: {**FakeServer().get_s3_credentials('X', 'user.bob', '', False)}  # the keys of another bucket
    with pytest.raises(RSEAccessDenied, match='do not cover'):
        connection.client.get_object(Bucket=BUCKET, Key='a')
    assert not s3.requests


def test_a_url_can_be_presigned(connection, vendor):
    url = connection.client.generate_presigned_url('get_object', Params={'Bucket': BUCKET, 'Key': 'a b'}, ExpiresIn=60)
    assert 'X-Amz-Credential=KEY1%2F' in url
    assert 'X-Amz-Security-Token=hidden-token-1' in url
    assert vendor.asked == [('X', BUCKET, 'a b', False)]


def test_a_missing_object_is_missing_also_for_who_may_list_a_part_only(connection, vendor, s3):
    vendor.shared = ['run1/']
    s3.store(BUCKET, 'run1/ab', b'x')
    s3.fail('HeadObject', error(403, 'AccessDenied'))
    with pytest.raises(ClientError) as missing:
        connection.client.head_object(Bucket=BUCKET, Key='run1/a')
    assert missing.value.response['Error'] == {'Code': '404', 'Message': 'Not Found'}
    s3.fail('HeadObject', error(403, 'AccessDenied'))
    assert not objects.exists(connection, Target('X', BUCKET, 'run1/a'))
    s3.fail('HeadObject', error(403, 'AccessDenied'))
    s3.fail('GetObject', error(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied):  # it is there
        objects.exists(connection, Target('X', BUCKET, 'run1/ab'))
    vendor.shared = None


def test_a_listing_is_asked_for_only_where_it_can_tell_that_an_object_is_missing(connection, vendor, s3):
    vendor.shared = ['run1/']
    s3.store(BUCKET, 'run1/a', b'x')
    connection.client.head_object(Bucket=BUCKET, Key='run1/a')
    with pytest.raises(ClientError, match='404'):
        connection.client.head_object(Bucket=BUCKET, Key='run1/b')
    assert s3.operations() == ['HeadObject', 'HeadObject']
    s3.fail('HeadObject', error(403, 'AccessDenied'))
    with pytest.raises(ClientError) as missing:
        connection.client.head_object(Bucket=BUCKET, Key='run1/b')
    assert missing.value.response['ResponseMetadata']['HTTPStatusCode'] == 404
    assert (s3.requests[-1].query['prefix'], s3.requests[-1].query['max-keys']) == ('run1/b', '1')


@pytest.mark.parametrize('body', [b'', b'<ListBucketResult/>', b'<ListBucketResult><IsTruncated>false</IsTruncated><Contents/></ListBucketResult>'])
def test_a_listing_that_is_none_is_no_proof_that_an_object_is_missing(connection, vendor, s3, body):
    vendor.shared = ['run1/']
    s3.fail('HeadObject', error(403, 'AccessDenied'))
    s3.fail('GetObject', error(403, 'AccessDenied'))
    s3.fail('ListObjectsV2', Answer(200, body), Answer(200, body))
    with contextlib.nullcontext() if b'<Contents/>' in body else pytest.raises(RSEAccessDenied):
        assert not objects.exists(connection, Target('X', BUCKET, 'run1/ab'))
    vendor.shared = None


def test_a_refusal_is_one_where_the_whole_bucket_may_be_listed(connection, s3):
    s3.fail('HeadObject', error(403, 'AccessDenied'))
    s3.fail('GetObject', error(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied):
        objects.exists(connection, Target('X', BUCKET, 'a'))
    assert 'ListObjectsV2' not in s3.operations()


def test_deleting_what_is_not_there_says_so(connection, vendor):
    vendor.shared = ['run1/']
    with pytest.raises(SourceNotFound):
        objects.delete(connection, Target('X', BUCKET, 'run1/a'))


# Where the server does not vend any more


@pytest.fixture
def signing(vendor):
    """The server signs, and says why it does not vend."""
    vendor.ways, vendor.signed = ('remote',), []
    vendor.failure = RSEOperationNotSupported('RSE X: keys that this server would vend could obtain more permissions.')
    vendor.get_s3_rse = lambda _: {'auth': list(vendor.ways)}

    def sign(rse, requests):
        vendor.signed += [(each['method'], each['uri']) for each in requests]
        return [{'uri': each['uri'], 'headers': {'Authorization': ['as the server signs'], 'X-Amz-Date': ['now']}} for each in requests]

    vendor.sign_s3_requests = sign
    return vendor


def test_the_server_signs_what_it_does_not_vend_keys_for(connection, signing, s3, tmp_path):
    (tmp_path / 'f').write_bytes(b'content')
    transfer.upload(connection, str(tmp_path / 'f'), Target('X', BUCKET, 'a'))
    transfer.download(connection, Target('X', BUCKET, 'a'), str(tmp_path / 'g'))
    assert (tmp_path / 'g').read_bytes() == b'content'
    assert {request.headers['authorization'] for request in s3.requests} == {'as the server signs'}
    assert len(signing.signed) == len(s3.requests)
    assert len(signing.asked) == 1  # keys, once in some minutes


@pytest.mark.parametrize(('signs', 'sent'), [(False, ['DeleteObjects']), (True, ['DeleteObject', 'DeleteObject'])])
def test_objects_are_deleted_one_by_one_where_the_server_signs_and_the_storage_verifies_no_bodies(endpoint, signing, s3, signs, sent):
    if not signs:
        signing.failure = None
    connection = clients.connect(endpoint(verifies_body=False), Vended(endpoint(verifies_body=False), signing))
    s3.store(BUCKET, 'k', b'x')
    connection.client.delete_objects(Bucket=BUCKET, Delete={'Objects': [{'Key': 'k'}, {'Key': 'l'}]})
    assert s3.operations() == sent
    assert s3.buckets[BUCKET] == {}


def test_who_is_over_a_limit_deletes_by_signatures(connection, signing, s3):
    signing.failure = InsufficientAccountLimit('Account alice: 10.000 GB of 10.000 GB allowed at RSE X are used.')
    s3.store(BUCKET, 'k', b'x')
    connection.client.delete_object(Bucket=BUCKET, Key='k')
    assert s3.requests[-1].headers['authorization'] == 'as the server signs'


def test_keys_are_used_again_once_the_server_vends_them(connection, signing, s3, clock):
    s3.store(BUCKET, 'k', b'x')
    connection.client.get_object(Bucket=BUCKET, Key='k')
    signing.failure = None
    clock.ahead = 301
    connection.client.get_object(Bucket=BUCKET, Key='k')
    assert used(s3)[-1] == 'KEY2'


def test_what_takes_keys_fails_with_what_the_server_said(connection, signing):
    with pytest.raises(RSEOperationNotSupported, match='could obtain more permissions'):
        connection.client.generate_presigned_url('get_object', Params={'Bucket': BUCKET, 'Key': 'k'})


@pytest.mark.parametrize('offer', [{'auth': []}, {'auth': None}, {}])
def test_a_server_that_neither_vends_nor_signs_says_why(connection, signing, s3, offer):
    signing.get_s3_rse = lambda _: offer
    with pytest.raises(RSEOperationNotSupported, match='could obtain more permissions'):
        connection.client.get_object(Bucket=BUCKET, Key='k')
    assert not s3.requests


# How often the server is asked


def test_keys_are_renewed_before_they_end(connection, vendor, s3, clock):
    s3.store(BUCKET, 'k', b'x')

    def get():
        connection.client.get_object(Bucket=BUCKET, Key='k')
        return used(s3)[-1]

    assert get() == 'KEY1'
    clock.ahead = 3600 - 310
    assert get() == 'KEY1'
    clock.ahead = 3600 - 290
    assert get() == 'KEY2'


def test_keys_that_live_shortly_are_used_for_two_thirds_of_that(connection, vendor, s3, clock):
    vendor.lifetime = 90
    s3.store(BUCKET, 'k', b'x')
    for clock.ahead in (0, 58, 62):
        connection.client.get_object(Bucket=BUCKET, Key='k')
    assert used(s3) == ['KEY1', 'KEY1', 'KEY2']


def test_the_old_keys_are_used_to_their_end_while_the_server_is_away(connection, vendor, s3, clock):
    s3.store(BUCKET, 'k', b'x')
    connection.client.get_object(Bucket=BUCKET, Key='k')
    vendor.failure = ServerConnectionException('down')
    clock.ahead = 3500
    connection.client.get_object(Bucket=BUCKET, Key='k')
    clock.ahead = 3601
    with pytest.raises(ServerConnectionException):
        connection.client.get_object(Bucket=BUCKET, Key='k')
    assert used(s3) == ['KEY1', 'KEY1']


def test_keys_that_ended_while_the_server_was_asked_are_not_used(connection, vendor, s3, clock):
    s3.store(BUCKET, 'k', b'x')
    connection.client.get_object(Bucket=BUCKET, Key='k')

    def fail(*_):
        clock.ahead = 3601
        raise ServerConnectionException('down')

    clock.ahead, vendor.get_s3_credentials = 3500, fail
    with pytest.raises(ServerConnectionException):
        connection.client.get_object(Bucket=BUCKET, Key='k')
    assert used(s3) == ['KEY1']


def test_sixteen_threads_cause_one_request(connection, vendor, s3):
    s3.store(BUCKET, 'k', b'x')
    vendor.gate.clear()
    with ThreadPoolExecutor(16) as pool:
        done = [pool.submit(connection.client.get_object, Bucket=BUCKET, Key='k') for _ in range(16)]
        vendor.reached.wait(30)
        vendor.gate.set()
        assert all(each.result()['ContentLength'] == 1 for each in done)
    assert len(vendor.asked) == 1


def test_who_has_valid_keys_does_not_wait_for_those_who_renew_them(connection, vendor, s3, clock):
    s3.store(BUCKET, 'k', b'x')
    connection.client.get_object(Bucket=BUCKET, Key='k')
    clock.ahead = 3500
    vendor.reached.clear()
    vendor.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(connection.client.get_object, Bucket=BUCKET, Key='k')
        vendor.reached.wait(30)
        connection.client.get_object(Bucket=BUCKET, Key='k')  # with the old ones
        assert not renewing.done()
        vendor.gate.set()
        renewing.result()
    assert used(s3) == ['KEY1', 'KEY1', 'KEY2']


def test_who_has_only_keys_that_have_ended_waits_for_those_who_renew_them(connection, vendor, s3, clock):
    s3.store(BUCKET, 'k', b'x')
    connection.client.get_object(Bucket=BUCKET, Key='k')
    clock.ahead, vendor.lifetime = 3601, 9999
    vendor.reached.clear()
    vendor.gate.clear()
    connection.authorizer._asking = OpensWhenWaitedFor(vendor.gate)
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(connection.client.get_object, Bucket=BUCKET, Key='k')
        vendor.reached.wait(30)
        connection.client.get_object(Bucket=BUCKET, Key='k')
        vendor.gate.set()
        renewing.result()
    assert used(s3) == ['KEY1', 'KEY2', 'KEY2']


class OpensWhenWaitedFor:
    """A lock whose holder goes on as soon as another thread wants it."""

    def __init__(self, gate):
        self._lock, self._gate = threading.Lock(), gate
        self.release = self._lock.release

    def acquire(self, blocking):
        if self._lock.acquire(blocking=False):
            return True
        self._gate.set()
        return blocking and self._lock.acquire()


def test_a_retried_request_is_signed_with_the_keys_of_now(endpoint, vendor, s3, clock):
    connection = clients.connect(endpoint(max_attempts=3), Vended(endpoint(), vendor))
    s3.store(BUCKET, 'k', b'x')
    s3.fail('GetObject', error(503, 'SlowDown'))
    connection.client.meta.events.register('needs-retry.s3', lambda **_: setattr(clock, 'ahead', 3600))
    connection.client.get_object(Bucket=BUCKET, Key='k')
    assert used(s3) == ['KEY1', 'KEY2']


def test_of_several_keys_those_are_used_that_live_longest(connection, vendor, s3):
    """Those for all of the bucket end before those for writing to it."""
    s3.store(BUCKET, 'k', b'x')
    vendor.lifetime = 900
    connection.client.get_object(Bucket=BUCKET, Key='k')
    vendor.lifetime = 3600
    connection.client.delete_object(Bucket=BUCKET, Key='other')
    connection.client.get_object(Bucket=BUCKET, Key='k')
    assert used(s3) == ['KEY1', 'KEY2', 'KEY2']


@pytest.mark.parametrize('code', ['ExpiredToken', 'InvalidAccessKeyId', 'InvalidToken', 'TokenRefreshRequired'])
def test_keys_that_the_storage_has_forgotten_are_replaced_once(connection, vendor, s3, code):
    connection.client.put_object(Bucket=BUCKET, Key='k', Body=b'x')
    s3.fail('GetObject', error(403, code))
    assert connection.client.get_object(Bucket=BUCKET, Key='k')['ContentLength'] == 1
    assert used(s3) == ['KEY1', 'KEY1', 'KEY2']
    s3.fail('GetObject', error(403, code), error(403, code))
    with pytest.raises(Exception, match=code):
        connection.client.get_object(Bucket=BUCKET, Key='k')
    assert len(s3.requests) == 5


def test_what_is_remembered_is_bounded(connection, vendor, s3, monkeypatch):
    assert 100 <= Vended.REMEMBERED <= 10_000
    monkeypatch.setattr(Vended, 'REMEMBERED', 2)
    for bucket in ('b1', 'b2', 'b3'):
        s3.store(bucket, 'k', b'x')
        connection.client.get_object(Bucket=bucket, Key='k')
    assert len(connection.authorizer._keys) == 2
    for bucket in ('b2', 'b3', 'b2', 'b4', 'b2', 'b3'):
        s3.store(bucket, 'k', b'x')
        connection.client.get_object(Bucket=bucket, Key='k')
    assert used(s3) == ['KEY1', 'KEY2', 'KEY3', 'KEY2', 'KEY3', 'KEY2', 'KEY4', 'KEY2', 'KEY5']  # the one that was not used for the longest time goes


# Without boto3


@pytest.fixture
def way(endpoint, vendor):
    return Vended(endpoint(url='https://s3.example.org'), vendor)


def ask(way, method, path, host='s3.example.org', **more):
    """The access key that a request is signed with."""
    sent = way.authorise(Request(method, f'https://{host}{path}', region='mars', **more))
    return sent.headers['Authorization'].partition('Credential=')[2].partition('/')[0]


@pytest.mark.parametrize(
    ('method', 'path', 'need'),
    [
        ('GET', f'/{BUCKET}/a%20b/c', ('a b/c', False)),
        ('HEAD', f'/{BUCKET}/a', ('a', False)),
        ('PUT', f'/{BUCKET}/a?partNumber=1&uploadId=u', ('a', True)),
        ('GET', f'/{BUCKET}/a?uploadId=u', ('a', True)),
        ('GET', f'/{BUCKET}?uploads', ('', True)),
        ('GET', f'/{BUCKET}?list-type=2&prefix=a%2Fb', ('a/b', False)),
        ('GET', f'/{BUCKET}/?list-type=2&delimiter=%2F', ('', False)),
        ('DELETE', f'/{BUCKET}/a', ('a', True)),
        ('HEAD', f'/{BUCKET}', ('', False)),
        ('POST', f'/{BUCKET}', ('', True)),  # a form of a browser
        ('PUT', f'/{BUCKET}?delete', ('', True)),
    ],
)
def test_what_a_request_needs_is_read_from_its_url(way, vendor, method, path, need):
    ask(way, method, path)
    assert vendor.asked == [('X', BUCKET, *need)]


def test_keys_for_a_part_say_where_a_bucket_is_but_do_not_change_that(way, vendor):
    vendor.shared = ['run1/']
    assert ask(way, 'PUT', f'/{BUCKET}/run1/a') == 'KEY1'
    assert ask(way, 'GET', f'/{BUCKET}?location') == 'KEY1'
    for method, path in (('PUT', f'/{BUCKET}?location'), ('POST', f'/{BUCKET}'), ('GET', f'/{BUCKET}?acl')):
        with pytest.raises(RSEAccessDenied, match='issues no keys'):
            ask(way, method, path)


def test_whether_the_storage_hides_what_is_missing_depends_on_the_keys_of_the_request(way, vendor):
    whole = way.authorise(Request('GET', f'https://s3.example.org/{BUCKET}/a', region='mars'))
    vendor.shared = ['run1/']
    part = way.authorise(Request('GET', 'https://s3.example.org/other/run1/a', region='mars'))
    unknown = Request('GET', f'https://s3.example.org/{BUCKET}/a', {'Authorization': 'AWS4-HMAC-SHA256 Credential=ANOTHER/'})
    assert [way.hides_missing(each) for each in (whole, part, unknown, unknown._replace(headers={}))] == [False, True, False, False]


def test_the_bucket_may_stand_before_the_host(way, vendor):
    ask(way, 'GET', '/a/b', host=f'{BUCKET}.s3.example.org')
    ask(way, 'GET', '/other/a/b', host='S3.Example.org')
    assert [asked[1:3] for asked in vendor.asked] == [(BUCKET, 'a/b'), ('other', 'a/b')]


@pytest.mark.parametrize(
    'url',
    [
        'https://elsewhere.org/b/k',
        'http://s3.example.org/b/k',
        'https://s3.example.org.elsewhere.org/b/k',
        'https://s3.example.org@elsewhere.org/b/k',
        'https://elsewhere.org\\.s3.example.org/b/k',
        'https://elsewhere.org#.s3.example.org/b/k',
        'https://s3.example.org:8000/b/k',
        'https://s3-example.org/b/k',
        's3.example.org/b/k',
    ],
)
def test_keys_go_to_no_other_host(way, vendor, url):
    """A program that forwards requests is made to send one elsewhere: its session token would go there."""
    with pytest.raises(RSEOperationNotSupported, match='is not at this storage'):
        way.authorise(Request('GET', url, region='mars'))
    assert not vendor.asked


def test_a_deletion_s_keys_are_read_from_its_body(way, vendor):
    body = b'<?xml version="1.0"?><Delete xmlns="x"><Object><Key>a/b&amp;1</Key></Object><Object><Key>a/b&amp;2</Key></Object></Delete>'
    ask(way, 'POST', f'/{BUCKET}?delete', body=body)
    assert vendor.asked == [('X', BUCKET, 'a/', True)]
    ask(way, 'POST', '/other?delete', body=b'<Delete><Object><Key/></Object></Delete>')
    assert vendor.asked[1:] == [('X', 'other', '', True)]
    for bad in (b'<!DOCTYPE x [<!ENTITY a "b">]><Delete/>', b'no XML', b''):
        with pytest.raises(InputValidationError, match='body of DeleteObjects'):
            ask(way, 'POST', f'/{BUCKET}?delete', body=bad)


def test_requests_are_signed_with_keys_that_are_renewed(way, vendor, clock):
    found = []
    for clock.ahead in (0, 3600 - 310, 3600 - 290):
        found.append(ask(way, 'GET', f'/{BUCKET}/k'))
    assert found == ['KEY1', 'KEY1', 'KEY2']


def test_keys_that_the_storage_refuses_are_replaced(way, vendor):
    sent = way.authorise(Request('GET', f'https://s3.example.org/{BUCKET}/k', region='mars'))
    assert not way.refused(sent, 'AccessDenied')
    assert ask(way, 'GET', f'/{BUCKET}/k') == 'KEY1'
    assert way.refused(sent, 'ExpiredToken')
    assert ask(way, 'GET', f'/{BUCKET}/k') == 'KEY2'
    assert way.refused(sent, 'ExpiredToken')  # of who was slower
    assert ask(way, 'GET', f'/{BUCKET}/k') == 'KEY2'  # is not forgotten for it


def test_what_the_server_does_not_vend_for_it_signs(way, signing):
    sent = way.authorise(Request('PUT', f'https://s3.example.org/{BUCKET}/k', {'Content-Type': 'text/plain'}, 'mars'))
    assert sent.headers == {'Content-Type': 'text/plain', 'Authorization': 'as the server signs', 'X-Amz-Date': 'now'}
    assert signing.signed == [('PUT', f'https://s3.example.org/{BUCKET}/k')]


def test_buckets_are_not_listed_without_boto3_either(way, vendor):
    with pytest.raises(RSEOperationNotSupported, match='rucio s3 ls'):
        ask(way, 'GET', '/')


# Secrets and identity


def test_nothing_of_it_shows_a_secret(connection, vendor):
    connection.client.list_objects_v2(Bucket=BUCKET)
    assert 'hidden' not in f'{connection!r} {connection.authorizer._keys!r} {connection.authorizer.identity}'


def test_accounts_and_rses_have_clients_of_their_own(endpoint, vendor):
    other = FakeServer()
    other.identity = 'https://rucio bob'
    ways = [Vended(endpoint(), vendor), Vended(endpoint(), other), Vended(endpoint(rse='Y'), vendor), Vended(endpoint(), vendor)]
    assert len({id(clients.connect(endpoint(), way).client) for way in ways}) == 3
