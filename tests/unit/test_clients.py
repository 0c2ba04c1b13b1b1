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


"""Shared clients: how many there are, and what they say and send."""

import base64
import hashlib
import io
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import botocore.session
import pytest
from botocore import UNSIGNED
from s3transfer.exceptions import CancelledError

from rucio.common.exception import ConfigurationError, RSEAccessDenied
from rucio.common.s3 import clients, credentials, objects, transfer
from rucio.common.s3.errors import Target, translated
from rucio.common.s3.settings import Secrets
from servers.fake_s3 import Answer, error

BUCKET = 'user.alice'
KEYS = credentials.Static('AKIDOFTHETESTS', 'a-secret/that+nobody%may=see', 'a-token-that-nobody-may-see')


@pytest.fixture
def made(monkeypatch):
    """The names of the services for which a client was made."""
    names = []
    make = botocore.session.Session.create_client

    def record(self, service, *args, **kwargs):
        names.append(service)
        return make(self, service, *args, **kwargs)

    monkeypatch.setattr(botocore.session.Session, 'create_client', record)
    return names


# How many


def test_a_hundred_connections_of_sixteen_threads_make_one_client(endpoint, made):
    with ThreadPoolExecutor(16) as pool:
        connections = list(pool.map(lambda _: clients.connect(endpoint(), credentials.Static('A', 'b')), range(100)))
    assert made == ['s3']
    assert len({id(connection.client) for connection in connections}) == 1


def test_signed_urls_of_all_threads_share_one_client_too(endpoint, made):
    connections = [clients.connect(endpoint(), None) for _ in range(10)]
    assert made == ['s3']
    assert len({id(connection.authorizer) for connection in connections}) == 1


def test_rses_on_one_storage_share_a_client_but_each_keeps_its_settings(endpoint, made, monkeypatch):
    monkeypatch.setattr(clients.monitoring, 'is_on', lambda: False)
    one = clients.connect(endpoint(rse='A', rse_id='1', bucket_prefix='a-', capacity=1, secrets=Secrets('A', 'b')), KEYS)
    other = clients.connect(endpoint(rse='B', rse_id='2', bucket_prefix='b-'), KEYS)
    assert made == ['s3']
    assert one.client is other.client
    assert (one.endpoint.rse, other.endpoint.rse) == ('A', 'B')
    assert (one.endpoint.bucket_prefix, other.endpoint.bucket_prefix) == ('a-', 'b-')


def test_another_identity_has_another_client(endpoint, made):
    ways = [credentials.Static('A', 'b'), credentials.Static('A', 'c'), credentials.Static('A', 'b', 't'), credentials.Anonymous(), None]
    assert len({id(clients.connect(endpoint(), way).client) for way in ways}) == len(made) == 5


@pytest.mark.parametrize('change', [{'url': 'http://127.0.0.1:9'}, {'region': 'mars'}, {'read_timeout': 1}, {'checksum': 'md5'}, {'conditional_put': False}])
def test_another_storage_has_another_client(endpoint, change):
    assert clients.connect(endpoint(), KEYS).client is not clients.connect(endpoint(**change), KEYS).client


def test_a_forked_process_does_not_use_the_sockets_of_its_parent(endpoint, monkeypatch):
    parent = clients.connect(endpoint(), KEYS).client
    monkeypatch.setattr(os, 'getpid', lambda: -1)
    assert clients.connect(endpoint(), KEYS).client is not parent


def test_a_client_that_could_not_be_made_is_tried_again(endpoint, home):
    profile = credentials.Profile('site')
    with pytest.raises(RSEAccessDenied, match=r"RSE X: connect of bucket '\*': .*site"):
        clients.connect(endpoint(rse='X'), profile)
    home.joinpath('.aws').mkdir()
    home.joinpath('.aws', 'credentials').write_text('[site]\naws_access_key_id = A\naws_secret_access_key = b\n')
    assert clients.connect(endpoint(), profile).client


def test_connecting_makes_no_request(endpoint, s3):
    clients.connect(endpoint(), KEYS)
    assert not s3.requests


# What they say


def test_no_secret_is_logged_even_when_everything_is_logged(endpoint, s3, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    source = tmp_path / 'f'
    source.write_bytes(b'x' * 100)
    target = Target('X', BUCKET, 'k')
    transfer.upload(clients.connect(endpoint(), KEYS), str(source), target)
    s3.fail('HeadObject', error(403, 'AccessDenied'))
    with pytest.raises(Exception, match='403'):
        objects.stat(clients.connect(endpoint(), KEYS), target)
    signed = clients.connect(endpoint(), None)
    signed.authorizer.offer('read', target, f'{s3.url}/{BUCKET}/k?X-Amz-Credential=AKIDOFTHETESTS&X-Amz-Signature=signature-that-nobody-may-see')
    transfer.download(signed, target, str(tmp_path / 'g'))
    logging.getLogger('rucio').debug('%r %r %r', signed, clients.connect(endpoint(), KEYS), s3.operations())
    assert 'GetObject' in caplog.text  # what was logged is looked at
    assert 'nobody' not in caplog.text
    assert 'AKIDOFTHETESTS' not in caplog.text


def test_who_asks_for_the_logs_of_botocore_keeps_the_level_he_set(endpoint):
    logging.getLogger('botocore').setLevel(logging.DEBUG)
    clients.connect(endpoint(), KEYS)
    assert logging.getLogger('botocore').level == logging.DEBUG


# What they send


def put(connection, key='k', body=b'content'):
    with translated('put', Target('X', BUCKET, key)):
        connection.client.put_object(Bucket=BUCKET, Key=key, Body=body)


def test_crc32_is_sent_where_the_storage_verifies_it(endpoint, s3):
    put(clients.connect(endpoint(checksum='crc32'), KEYS))
    assert s3.requests[0].headers['x-amz-checksum-crc32']


@pytest.mark.parametrize('body', [b'content', bytearray(b'content'), io.BytesIO(b'content')], ids=lambda body: type(body).__name__)
def test_content_md5_is_sent_where_that_is_verified_and_nothing_that_older_storages_refuse(endpoint, s3, body):
    put(clients.connect(endpoint(checksum='md5'), KEYS), body=body)
    headers = s3.requests[0].headers
    assert headers['content-md5'] == base64.b64encode(hashlib.md5(b'content').digest()).decode()
    assert not [name for name in headers if name.startswith(('x-amz-checksum', 'x-amz-sdk-checksum', 'x-amz-trailer'))]
    assert s3.content(BUCKET, 'k') == b'content'


@pytest.mark.parametrize('checksum', ['crc32', 'md5', 'none'])
def test_requests_that_need_a_checksum_have_the_one_that_all_storages_know(endpoint, s3, checksum):
    s3.wants_md5 = True
    s3.store(BUCKET, 'k', b'content')
    client = clients.connect(endpoint(checksum=checksum), KEYS).client
    client.delete_objects(Bucket=BUCKET, Delete={'Objects': [{'Key': 'k'}]})
    client.put_bucket_policy(Bucket=BUCKET, Policy='{}')
    client.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={'Rules': [{'Status': 'Enabled', 'Prefix': ''}]})
    client.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration={})
    client.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration={'IgnorePublicAcls': True})
    assert len(s3.operations()) == 5
    # Storages that do not know others may refuse them.
    others = [name for request in s3.requests for name in request.headers if name.startswith(('x-amz-checksum', 'x-amz-sdk-checksum'))]
    assert bool(others) == (checksum == 'crc32')


def test_no_checksum_is_sent_where_none_is_wanted(endpoint, s3):
    put(clients.connect(endpoint(checksum='none'), KEYS))
    assert not [name for name in s3.requests[0].headers if 'checksum' in name or name == 'content-md5']


def test_a_signed_put_is_verified_by_md5_as_other_headers_would_have_to_be_signed(endpoint, s3):
    connection = clients.connect(endpoint(checksum='crc32'), None)
    connection.authorizer.offer('write', Target('X', BUCKET, 'k'), f'{s3.url}/{BUCKET}/k?X-Amz-Signature=1')
    put(connection)
    headers = s3.requests[0].headers
    assert headers['content-md5']
    # x-amz-content-sha256 and the like are refused by the storage if the signature does not cover them.
    assert not [name for name in headers if name.startswith('x-amz-')]


@pytest.mark.parametrize(('authorizer', 'setting', 'expected'), [(KEYS, True, 'requester'), (KEYS, False, None), (None, True, None)])
def test_the_requester_pays_where_that_is_set(endpoint, s3, authorizer, setting, expected):
    s3.store(BUCKET, 'k', b'abc')
    connection = clients.connect(endpoint(requester_pays=setting), authorizer)
    if authorizer is None:
        connection.authorizer.offer('read', Target('X', BUCKET, 'k'), f'{s3.url}/{BUCKET}/k?X-Amz-Signature=x')
        connection.client.get_object(Bucket=BUCKET, Key='k')
    else:
        for call in (connection.client.head_object, connection.client.get_object):
            call(Bucket=BUCKET, Key='k')
        connection.client.list_objects_v2(Bucket=BUCKET)
        connection.client.head_bucket(Bucket=BUCKET)  # has no such header
    asked = [request.headers.get('x-amz-request-payer') for request in s3.requests if request.operation != 'HeadBucket']
    assert set(asked) == {expected}


def test_requests_name_their_software(endpoint, s3):
    put(clients.connect(endpoint(), KEYS))
    assert 'rucio-s3' in s3.requests[0].headers['user-agent']


def test_a_busy_storage_is_asked_again_as_often_as_configured(endpoint, s3):
    s3.fail('PutObject', error(503, 'SlowDown'), error(503, 'SlowDown'))
    put(clients.connect(endpoint(max_attempts=3), KEYS))
    assert s3.operations() == ['PutObject'] * 3


# Stopped


def test_a_client_that_is_stopped_sends_nothing_but_aborts(endpoint, s3):
    made = clients.connect(endpoint(), KEYS).client
    stop, other = threading.Event(), threading.Event()
    stopped, going_on = clients.Stoppable.of(made, stop), clients.Stoppable.of(made, other)
    upload = stopped.create_multipart_upload(Bucket=BUCKET, Key='k')['UploadId']
    stop.set()
    s3.requests.clear()
    with pytest.raises(CancelledError):
        stopped.put_object(Bucket=BUCKET, Key='k', Body=b'x')
    assert s3.requests == []
    stopped.abort_multipart_upload(Bucket=BUCKET, Key='k', UploadId=upload)
    going_on.put_object(Bucket=BUCKET, Key='k', Body=b'x')  # in the same thread
    made.put_object(Bucket=BUCKET, Key='k2', Body=b'x')
    assert s3.operations() == ['AbortMultipartUpload', 'PutObject', 'PutObject']
    assert stopped.meta is made.meta


def test_a_body_is_hashed_from_where_it_stands():
    body = io.BytesIO(b'skipped' + bytes(3 * 1024**2))
    body.seek(7)
    assert clients._md5(body) == base64.b64encode(hashlib.md5(bytes(3 * 1024**2)).digest()).decode()
    assert body.tell() == 7
    assert clients._md5(bytearray(b'x')) == clients._md5(b'x') == clients._md5(io.BytesIO(b'x'))


# How they are configured


@pytest.mark.parametrize(
    ('authorizer', 'settings', 'expected'),
    [
        (KEYS, {'checksum': 'md5'}, ('s3v4', 'path', 128, 'when_required', 'when_supported')),
        (KEYS, {'checksum': 'crc32', 'addressing': 'virtual', 'max_concurrency': 1}, ('s3v4', 'virtual', 128, 'when_supported', 'when_supported')),
        (KEYS, {'checksum': 'none', 'addressing': 'auto', 'max_concurrency': 50}, ('s3v4', 'auto', 200, 'when_required', 'when_supported')),
        (credentials.Anonymous(), {'checksum': 'crc32'}, (UNSIGNED, 'path', 128, 'when_supported', 'when_supported')),
        (None, {'checksum': 'crc32', 'addressing': 'virtual'}, (UNSIGNED, 'path', 128, 'when_required', 'when_required')),
    ],
)
def test_a_client_is_configured_for_its_storage(endpoint, authorizer, settings, expected):
    config = clients.connect(endpoint(**{'max_concurrency': 5} | settings), authorizer).client.meta.config
    found = config.signature_version, config.s3['addressing_style'], config.max_pool_connections
    assert (*found, config.request_checksum_calculation, config.response_checksum_validation) == expected


def test_a_bare_client_adds_nothing(endpoint, s3):
    bare = clients.bare(endpoint(checksum='crc32', conditional_put=True, max_attempts=5), KEYS)
    assert bare.endpoint.checksum == 'none'
    put(bare)
    assert not [name for name in s3.requests[0].headers if 'checksum' in name or name in ('content-md5', 'if-none-match')]
    assert s3.requests[0].headers['authorization']
    s3.fail('HeadBucket', error(503, 'SlowDown'))
    with pytest.raises(Exception, match='503'):
        bare.client.head_bucket(Bucket=BUCKET)
    assert s3.operations() == ['PutObject', 'HeadBucket']
    assert clients.bare(endpoint(), KEYS).client is not clients.bare(endpoint(), KEYS).client


@pytest.mark.parametrize('make', [clients.connect, clients.bare])
def test_what_botocore_does_not_accept_is_named(endpoint, make):
    with pytest.raises(ConfigurationError, match="RSE X: botocore does not accept http://h with the region 'a/b'"):
        make(endpoint(rse='X', url='http://h', region='a/b'), KEYS)


def test_where_requests_are_counted_each_rse_has_its_client(endpoint, monkeypatch):
    for on in (True, False):
        monkeypatch.setattr(clients.monitoring, 'is_on', lambda on=on: on)
        made = {id(clients.connect(endpoint(rse=name, rse_id=name, events_token=name), KEYS).client) for name in ('A', 'B')}
        assert len(made) == (2 if on else 1)


def test_a_url_with_an_older_signature_gets_no_header_more(endpoint, s3):
    connection = clients.connect(endpoint(), None)
    connection.authorizer.offer('write', Target('X', BUCKET, 'k'), f'{s3.url}/{BUCKET}/k?AWSAccessKeyId=A&Signature=1')
    put(connection)
    assert 'content-md5' not in s3.requests[0].headers


@pytest.mark.parametrize('checksum', ['md5', 'none'])
def test_a_part_is_verified_as_an_object_is(endpoint, s3, checksum):
    client = clients.connect(endpoint(checksum=checksum), KEYS).client
    upload = client.create_multipart_upload(Bucket=BUCKET, Key='k')['UploadId']
    client.upload_part(Bucket=BUCKET, Key='k', UploadId=upload, PartNumber=1, Body=b'content')
    md5 = base64.b64encode(hashlib.md5(b'content').digest()).decode()
    assert s3.requests[-1].headers.get('content-md5') == (md5 if checksum == 'md5' else None)


def test_a_storage_with_odd_dates_is_read_nevertheless(endpoint, s3, monkeypatch):
    s3.store(BUCKET, 'k', b'x')
    client = clients.connect(endpoint(), KEYS).client
    with monkeypatch.context() as patch:
        patch.setattr('rucio.common.s3.botocore_internals.parse_timestamp', lambda _: pytest.fail('it is slow'))
        (entry,) = client.list_objects_v2(Bucket=BUCKET)['Contents']
    assert entry['LastModified'].tzinfo is not None
    s3.fail('ListObjectsV2', Answer(200, s3.ListObjectsV2(s3.requests[-1]).body.replace(b'<LastModified>20', b'<LastModified>xx')))
    (entry,) = client.list_objects_v2(Bucket=BUCKET)['Contents']
    assert (entry['Key'], entry['LastModified']) == ('k', None)


def test_a_profile_that_is_missing_is_named_by_a_bare_client_too(endpoint):
    with pytest.raises(RSEAccessDenied, match=r"RSE X: connect of bucket '\*': .*nowhere"):
        clients.bare(endpoint(rse='X'), credentials.Profile('nowhere'))


@pytest.mark.parametrize('make', [clients.connect, clients.bare])
def test_a_body_is_sent_without_asking_before(endpoint, s3, tmp_path, make):
    tmp_path.joinpath('f').write_bytes(b'content')
    with tmp_path.joinpath('f').open('rb') as body:
        put(make(endpoint(), KEYS), body=body)
    assert 'expect' not in s3.requests[-1].headers


def test_a_body_is_not_read_into_the_memory():
    sizes = []

    class Body(io.BytesIO):
        def read(self, size):
            sizes.append(size)
            return super().read(size)

    clients._md5(Body(bytes(3 * 1024**2)))
    assert all(64 * 1024 <= size <= 8 * 1024**2 for size in sizes)
