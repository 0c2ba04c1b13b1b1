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

"""`rucio s3 serve`: boto3 and raw requests to an endpoint in this process, with a fake S3 behind it."""

import asyncio
import base64
import hashlib
import http.client
import logging
import random
import re
import socket
import threading
import urllib.request
import zlib
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from queue import Queue
from xml.etree import ElementTree

import boto3
import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError

from rucio.client.s3serve import answers, asked, crcs, places
from rucio.client.s3serve.bodies import Body
from rucio.client.s3serve.crcs import Crc
from rucio.client.s3serve.gateway import Options
from rucio.client.s3serve.places import Place
from rucio.client.s3serve.refusals import Refusal, of_rucio
from rucio.client.s3serve.registrar import Registrar
from rucio.client.s3serve.server import listening
from rucio.client.s3serve.signatures import LocalKeys, verify
from rucio.client.s3serve.sums import Parts, Sum
from rucio.common.exception import AccessDenied, InputValidationError, InsufficientAccountLimit, RSENotFound, ServerConnectionException
from rucio.common.s3.credentials import Static
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.settings import Secrets
from servers.fake_s3 import Answer, Cut, FakeS3, Object, error

BUCKET = 'user.alice'


class Rucio:
    """What the endpoint wants of an S3Client."""

    account = 'alice'
    auth_type = 'userpass'
    auth_token = ''
    identity = 'the tests'

    def __init__(self, url, base='', shared=None, **settings):
        self.asked = []
        self.missing = []  # RSEs that cannot be asked
        self.elsewhere = {}  # name -> RSEs and keys
        self.base = base
        self.shared = shared  # only this collection is shared
        self.told = []  # of the catalogue: RSE, names, what is known of them, and what is to be done
        self.refuses = None
        self.settings = {'conditional_put': True, 'conditional_multipart': True} | settings
        self.url = url

    def best_place(self, scope, name, rse=None, read=False):
        self.asked.append((scope, name))
        if scope != BUCKET:
            raise RSENotFound(f'{scope} is not on any S3 storage.')
        if self.shared and name.partition('/')[0] != self.shared:
            raise AccessDenied(f'Account bob may not read {name}.')
        return {'rse': 'X', 'bucket': 'storage.bucket' if self.base else BUCKET, 'key': self.base + name, 'url': ''}

    def locate(self, scope, name):
        self.asked.append(('locate', name))
        return [{'rse': rse, 'bucket': 'elsewhere', 'key': key, 'did_type': 'FILE'} for rse, key in self.elsewhere.get(name, [('X', name)])]

    def endpoint(self, rse):
        secrets = Secrets(access_key='AKID', secret_key='upstream-secret')
        return Endpoint(rse=rse, rse_id='', url=self.url, region='us-east-1', secrets=secrets, **self.settings)

    def reconcile_files(self, scope, rse, files, on_changed=None, on_missing=None):
        if self.refuses:
            raise self.refuses
        self.told.append((scope, rse, files, on_changed, on_missing))
        return {'problems': []}

    def list_usable(self, places=False):
        self.asked.append(('usable', ''))
        told = [
            (BUCKET, self.shared, 'account', False),
            ('user.other', 'old', 'account', True),
            ('user.other', '', 'own', False),
            ('public', 'a/b', 'world', False),
        ]
        return {'shares': [{'scope': s, 'name': n, 'kind': k, 'ended': e, 'places': [{'rse': 'X'}]} for s, n, k, e in told if n is not None]}

    def list_buckets(self, rse=None, missing=None):
        missing += self.missing
        return [{'rse': 'X', 'bucket': BUCKET, 'scope': BUCKET, 'created': '2026-11-23T01:46:27Z'}, {'rse': 'X', 'bucket': 'b', 'scope': None, 'created': None}]


@contextmanager
def serving(client, **options):
    """The endpoint, in a thread of its own."""
    started, ended = Queue(), Queue()

    async def run():
        async with listening(client, options=Options(**options)) as here:
            started.put(here)
            await asyncio.get_running_loop().run_in_executor(None, ended.get)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        yield started.get(timeout=30)
    finally:
        ended.put(None)
        thread.join()


def boto(here, **config):
    keys = {'aws_access_key_id': here.keys.access_key, 'aws_secret_access_key': here.keys.secret_key, 'aws_session_token': here.keys.session_token}
    return boto3.client(
        's3', endpoint_url=here.url, region_name='us-east-1', config=Config(signature_version='s3v4', retries={'total_max_attempts': 1}, **config), **keys
    )


def code_of(call, *arguments, **keywords):
    with pytest.raises(ClientError) as refused:
        call(*arguments, **keywords)
    return refused.value.response['Error']['Code']


@pytest.fixture
def storage(s3):
    s3.buckets.update({BUCKET: {}, 'storage.bucket': {}})
    return s3


# The catalogue


def test_the_catalogue_is_told_of_what_is_written_and_deleted(storage):
    rucio, parts = Rucio(storage.url), [b'1' * 5_000_000, b'22']
    with serving(rucio, overwrite=True) as here:
        client = boto(here)
        client.put_object(Bucket=BUCKET, Key='run/a', Body=b'0123')
        client.copy_object(Bucket=BUCKET, Key='run/b', CopySource=f'{BUCKET}/run/a')
        upload = client.create_multipart_upload(Bucket=BUCKET, Key='run/c')['UploadId']
        of = {'Bucket': BUCKET, 'Key': 'run/c', 'UploadId': upload}
        etags = [client.upload_part(**of, PartNumber=number, Body=part)['ETag'] for number, part in enumerate([*parts, b'not used'], 1)]
        client.complete_multipart_upload(**of, MultipartUpload={'Parts': [{'PartNumber': n, 'ETag': etags[n - 1]} for n in (1, 2)]})
        client.delete_object(Bucket=BUCKET, Key='run/a')
        client.delete_objects(Bucket=BUCKET, Delete={'Objects': [{'Key': 'run/b'}]})
        client.get_object(Bucket=BUCKET, Key='run/c')['Body'].read()
    whole = {'bytes': 5_000_002, 'etag': f'"{storage.buckets[BUCKET]["run/c"].etag}"', 'adler32': f'{zlib.adler32(b"".join(parts)):08x}'}
    a = {'name': 'run/a', 'bytes': 4, 'etag': f'"{hashlib.md5(b"0123").hexdigest()}"', 'adler32': f'{zlib.adler32(b"0123"):08x}'}
    written = [[a], [{'name': 'run/b'}], [{'name': 'run/c', **whole}]]
    assert rucio.told == [
        *((BUCKET, 'X', files, 'replace', None) for files in written),
        *((BUCKET, 'X', [{'name': name}], 'replace', 'forget') for name in ('run/a', 'run/b')),
    ]


@pytest.mark.parametrize(('refusal', 'asked_again'), [(AccessDenied('no'), False), (ServerConnectionException('gone'), True), (OSError(), True)])
def test_a_catalogue_that_refuses_loses_no_object(storage, caplog, refusal, asked_again):
    rucio = Rucio(storage.url)
    rucio.refuses = refusal
    with serving(rucio) as here:
        boto(here).put_object(Bucket=BUCKET, Key='a', Body=b'0123')
        rucio.refuses = None
        boto(here).put_object(Bucket=BUCKET, Key='b', Body=b'0123')
    assert storage.buckets[BUCKET]['a'].body == b'0123'
    assert len(rucio.told) == asked_again
    assert len([each for each in caplog.messages if 'does not know of 1 written' in each]) == 1


def test_a_catalogue_that_does_not_answer_is_not_waited_for_again(storage, monkeypatch, caplog):
    rucio, answers = Rucio(storage.url), threading.Event()
    monkeypatch.setattr(Registrar, 'PATIENCE', 0.1)
    monkeypatch.setattr(Registrar, 'CLOSING', 0.1)
    monkeypatch.setattr(rucio, 'reconcile_files', lambda *_, **__: answers.wait(30))
    with serving(rucio) as here:
        for name in ('a', 'b', 'c'):
            boto(here).put_object(Bucket=BUCKET, Key=name, Body=b'0123')
    answers.set()
    assert 'does not know of 3 written' in caplog.text


async def told_at_once(rucio, number):
    registrar = Registrar(rucio, overwrite=False)
    place = Place(BUCKET, rucio.endpoint('X'), None, BUCKET, '')
    await asyncio.gather(*(registrar.written(place, f'run/{index}', '', None) for index in range(number)))
    await registrar.close()


def test_many_files_are_told_together(storage, monkeypatch, caplog):
    rucio = Rucio(storage.url)
    asyncio.run(told_at_once(rucio, 500))
    assert [len(files) for _, _, files, _, _ in rucio.told] == [200, 200, 100]
    monkeypatch.setattr(Registrar, 'MOST', 100)
    asyncio.run(told_at_once(rucio, 500))
    assert sum(len(files) for _, _, files, _, _ in rucio.told) == 600
    assert caplog.text.count('100 files wait already') == 1


def test_sums_of_parts_are_forgotten(monkeypatch):
    monkeypatch.setattr(Parts, 'MOST', 3)
    parts = Parts()
    for upload in ('a', 'b'):
        parts.note(upload, '1', '"e"', Sum(1, zlib.adler32(b'x')))
        parts.note(upload, '2', '"f"', Sum(1, zlib.adler32(b'y')))
    assert parts.whole('a', [('1', 'e')]) is None
    assert parts.whole('b', [('1', 'e'), ('2', '"f"')]) == Sum(2, zlib.adler32(b'xy'))
    assert parts.whole('b', [('1', 'of another part')]) is None
    parts.forget('b')
    assert parts.whole('b', [('1', 'e')]) is None


# Operations


@pytest.mark.parametrize('base', ['', 'folder/user.alice/'])
def test_objects_go_both_ways(storage, base):
    bucket, name = ('storage.bucket' if base else BUCKET), 'run 1/a+b(é)'
    with serving(Rucio(storage.url, base)) as here:
        client = boto(here)
        client.put_object(Bucket=BUCKET, Key=name, Body=b'0123456789', Metadata={'of': 'mine'})
        assert storage.buckets[bucket][base + name].body == b'0123456789'
        assert client.head_object(Bucket=BUCKET, Key=name)['ContentLength'] == 10
        assert client.get_object(Bucket=BUCKET, Key=name, Range='bytes=2-4')['Body'].read() == b'234'
        found = client.list_objects_v2(Bucket=BUCKET, Prefix='run 1/')
        assert (found['Name'], [each['Key'] for each in found['Contents']]) == (BUCKET, [name])
        assert [each['Key'] for each in client.list_objects(Bucket=BUCKET)['Contents']] == [name]
        assert [each['Prefix'] for each in client.list_objects_v2(Bucket=BUCKET, Delimiter='/')['CommonPrefixes']] == ['run 1/']
        client.copy_object(Bucket=BUCKET, Key='copy', CopySource={'Bucket': BUCKET, 'Key': name})
        assert storage.buckets[bucket][f'{base}copy'].body == b'0123456789'
        gone = client.delete_objects(Bucket=BUCKET, Delete={'Objects': [{'Key': name}, {'Key': 'copy'}]})
        assert [each['Key'] for each in gone['Deleted']] == [name, 'copy']
        assert storage.buckets[bucket] == {}
        assert code_of(client.get_object, Bucket=BUCKET, Key=name) == 'NoSuchKey'
        assert code_of(client.head_object, Bucket=BUCKET, Key=name) == '404'
    assert 'DeleteObjects' not in [each.operation for each in storage.requests]


def test_multipart(storage):
    with serving(Rucio(storage.url, 'folder/')) as here:
        client = boto(here)
        upload = client.create_multipart_upload(Bucket=BUCKET, Key='large')
        assert (upload['Bucket'], upload['Key']) == (BUCKET, 'large')
        part = {'Bucket': BUCKET, 'Key': 'large', 'UploadId': upload['UploadId']}
        etag = client.upload_part(**part, PartNumber=1, Body=b'x' * 3_000_000)['ETag']
        done = client.complete_multipart_upload(**part, MultipartUpload={'Parts': [{'PartNumber': 1, 'ETag': etag}]})
        assert (done['Bucket'], done['Key'], done['Location']) == (BUCKET, 'large', f'{here.url}/{BUCKET}/large')
        assert client.get_object(Bucket=BUCKET, Key='large')['Body'].read() == b'x' * 3_000_000
        other = client.create_multipart_upload(Bucket=BUCKET, Key='other')['UploadId']
        client.abort_multipart_upload(Bucket=BUCKET, Key='other', UploadId=other)
    assert storage.uploads == {}


def test_rses_that_are_missing_from_a_list_are_told(storage, caplog):
    client = Rucio(storage.url)
    with serving(client) as here:
        s3 = boto(here)
        s3.list_buckets()
        assert here.missing == set()
        client.missing = [{'rse': 'DEAD', 'why': 'It does not answer.'}]
        assert s3.list_buckets()['Buckets'] == s3.list_buckets()['Buckets'] != []
        assert here.missing == {'DEAD'}
    assert [each.getMessage() for each in caplog.records if 'incomplete' in each.getMessage()] == [
        'The list of buckets is incomplete: DEAD is missing. It does not answer.'
    ]


def test_buckets_are_scopes(storage):
    with serving(Rucio(storage.url)) as here:
        client = boto(here)
        assert [each['Name'] for each in client.list_buckets()['Buckets']] == ['public', BUCKET]
        assert client.get_bucket_location(Bucket=BUCKET)['LocationConstraint'] is None
        assert client.head_bucket(Bucket=BUCKET)['ResponseMetadata']['HTTPStatusCode'] == 200
        assert code_of(client.list_objects_v2, Bucket='user.nobody') == 'NoSuchBucket'
        pages = list(client.get_paginator('list_buckets').paginate(PaginationConfig={'PageSize': 1}))
        assert [[each['Name'] for each in page['Buckets']] for page in pages] == [['public'], [BUCKET]]
        assert 'ContinuationToken' not in pages[1]
        named = client.list_buckets(Prefix='user.')
        assert ([each['Name'] for each in named['Buckets']], named['Prefix']) == ([BUCKET], 'user.')
        assert code_in(fetch(f'{here.url}/?max-buckets=0', headers=signed(here, 'GET', '/?max-buckets=0'))) == 'InvalidArgument'


def test_signed_urls(storage):
    with serving(Rucio(storage.url)) as here:
        client = boto(here)
        url = client.generate_presigned_url('put_object', Params={'Bucket': BUCKET, 'Key': 'a b'})
        assert fetch(url, 'PUT', b'content')[0] == 200
        url = client.generate_presigned_url('get_object', Params={'Bucket': BUCKET, 'Key': 'a b'})
        assert fetch(url) == (200, b'content')
        assert fetch(url.replace('a%20b', 'other'))[0] == 403
        assert fetch(url.replace('X-Amz-Expires=3600', 'X-Amz-Expires=7200'))[0] == 403
        for part in ('Algorithm=AWS4', 'Expires=', 'Expires=3600', 'Credential=', 'Date=2', 'SignedHeaders=', 'Signature='):
            status, body = fetch(url.replace(f'X-Amz-{part}', f'x-{part}' if part.endswith('=') else f'X-Amz-{part}x'))
            assert (status, b'<Code>AuthorizationQueryParametersError</Code>' in body) == (400, True)


def test_only_what_is_shared(storage):
    storage_of = Rucio(storage.url, shared='run1')
    with serving(storage_of) as here:
        client = boto(here)
        for number in range(3):
            client.put_object(Bucket=BUCKET, Key=f'run1/{number}', Body=b'')
        assert len(client.list_objects_v2(Bucket=BUCKET, Prefix='run1/')['Contents']) == 3
        assert code_of(client.list_objects_v2, Bucket=BUCKET) == 'AccessDenied'
        assert code_of(client.get_object, Bucket=BUCKET, Key='run2/x') == 'AccessDenied'
    assert [name for _, name in storage_of.asked].count('run1/0') == 1
    assert 'run1/1' not in [name for _, name in storage_of.asked]


def test_a_bucket_of_which_parts_are_shared_has_these_as_folders(storage):
    storage.buckets[BUCKET] = {'run1/a': Object(b'1', 'e')}
    rucio = Rucio(storage.url, shared='run1')
    with serving(rucio) as here:
        client = boto(here)
        client.head_bucket(Bucket=BUCKET)
        client.get_bucket_location(Bucket=BUCKET)
        for prefix, expected in (('', ['run1/']), ('ru', ['run1/'])):
            for call in (client.list_objects, client.list_objects_v2):
                assert [each['Prefix'] for each in call(Bucket=BUCKET, Delimiter='/', Prefix=prefix)['CommonPrefixes']] == expected
        assert [each['Key'] for each in client.list_objects_v2(Bucket=BUCKET, Delimiter='/', Prefix='run1/')['Contents']] == ['run1/a']
        assert code_of(client.list_objects_v2, Bucket=BUCKET, Delimiter='/', Prefix='run2/') == 'AccessDenied'
        with pytest.raises(ClientError, match=r'Only parts of user.alice are shared with alice\. List each of them: run1/'):
            client.list_objects_v2(Bucket=BUCKET)
        assert code_of(client.get_object, Bucket=BUCKET, Key='run2') == 'AccessDenied'
        (refused,) = client.delete_objects(Bucket=BUCKET, Delete={'Objects': [{'Key': 'run1/a'}, {'Key': 'run2/a'}]})['Errors']
        assert (refused['Key'], refused['Code']) == ('run2/a', 'AccessDenied')
        assert rucio.asked.count(('usable', '')) == 1


def test_pages_of_shared_folders():
    names = ['a/b', 'a/c', 'b', 'c', 'd e']

    def page(**query):
        root = ElementTree.fromstring(answers.shared('b', {name.replace('_', '-'): value for name, value in query.items()}, names))
        return (
            [each.text for each in root.iter(f'{{{answers._NAMESPACE}}}Prefix')][1:],
            root.findtext(f'{{{answers._NAMESPACE}}}NextContinuationToken'),
            root.findtext(f'{{{answers._NAMESPACE}}}NextMarker'),
        )

    assert page(list_type='2') == (['a/', 'b/', 'c/', 'd e/'], None, None)
    assert page(list_type='2', max_keys='2') == (['a/', 'b/'], 'b/', None)
    assert page(list_type='2', max_keys='2', continuation_token='b/', encoding_type='url') == (['c/', 'd%20e/'], None, None)
    assert page(max_keys='1', marker='a/') == (['b/'], None, 'b/')
    assert page(max_keys='0') == ([], None, None)
    names[:] = ['a/b', 'a/c']
    assert page(prefix='a/') == (['a/b/', 'a/c/'], None, None)


def test_attributes_of_an_object_by_a_head(storage):
    """Whatever the storage makes of the operation: Ceph 16 answers it with the content."""
    every = ['ETag', 'Checksum', 'ObjectParts', 'StorageClass', 'ObjectSize']
    storage.store(BUCKET, 'a b', b'content')
    with serving(Rucio(storage.url)) as here:
        client = boto(here)
        found = client.get_object_attributes(Bucket=BUCKET, Key='a b', ObjectAttributes=every)
        etag = client.head_object(Bucket=BUCKET, Key='a b')['ETag'].strip('"')
        assert (found['ETag'], found['ObjectSize'], found['StorageClass']) == (etag, 7, 'STANDARD')
        assert found.keys() - {'ResponseMetadata', 'LastModified'} == {'Checksum', 'ETag', 'ObjectSize', 'StorageClass'}
        assert found['Checksum']['ChecksumCRC32'] == base64.b64encode(zlib.crc32(b'content').to_bytes(4, 'big')).decode()
        found = client.get_object_attributes(Bucket=BUCKET, Key='a b', ObjectAttributes=['ObjectSize'])
        assert found.keys() - {'ResponseMetadata', 'LastModified'} == {'ObjectSize'}
        assert code_of(client.get_object_attributes, Bucket=BUCKET, Key='a b', ObjectAttributes=['Owner']) == 'InvalidArgument'
        assert code_of(client.get_object_attributes, Bucket=BUCKET, Key='missing', ObjectAttributes=every) == 'NoSuchKey'
        assert code_of(client.get_object_attributes, Bucket=BUCKET, Key='a b', VersionId='1', ObjectAttributes=every) == 'NotImplemented'
        assert code_of(client.get_object_attributes, Bucket=BUCKET, Key='a b', SSECustomerKey='k' * 32, ObjectAttributes=every) == 'NotImplemented'
    assert not [each for each in storage.requests if 'attributes' in str(each)]


def test_the_checksums_among_the_attributes():
    given = {'ETag': '"x-2"', 'X-Amz-Checksum-Crc32': 'AAAAAA==', 'x-amz-checksum-type': 'COMPOSITE', 'x-amz-storage-class': 'GLACIER', 'Content-Length': '5'}
    root = answers.root_of(answers.attributes(given, ['Checksum', 'StorageClass', 'ETag']))
    assert [(each.tag, each.text) for each in root.iter() if each.text] == [
        ('ETag', 'x-2'),
        ('ChecksumCRC32', 'AAAAAA=='),
        ('ChecksumType', 'COMPOSITE'),
        ('StorageClass', 'GLACIER'),
    ]


def test_an_error_has_the_id_that_its_header_and_the_log_have(storage, caplog):
    caplog.set_level(logging.DEBUG, 'rucio.s3.serve')
    with serving(Rucio(storage.url)) as here, pytest.raises(ClientError) as refused:
        boto(here).get_object(Bucket=BUCKET, Key='missing')
    told = refused.value.response
    request_id = told['ResponseMetadata']['HTTPHeaders']['x-amz-request-id']
    assert re.fullmatch('[0-9A-F]{16}', request_id)
    assert (told['ResponseMetadata']['RequestId'], told['ResponseMetadata']['HostId']) == (request_id, 'rucio-s3-serve')
    refusal = Refusal('NoSuchKey', 'a')
    root = answers.root_of(refusal.xml())
    assert [each.tag for each in root] == ['Code', 'Message', 'RequestId', 'HostId']
    assert refusal.headers == {'x-amz-request-id': root.findtext('RequestId'), 'x-amz-id-2': root.findtext('HostId')}
    assert Refusal('NoSuchKey', 'a').request_id != refusal.request_id
    assert f'{request_id}: NoSuchKey' in caplog.text


def test_what_is_not_supported_says_so(storage):
    with serving(Rucio(storage.url)) as here:
        client = boto(here)
        assert code_of(client.create_bucket, Bucket='user.new') == 'NotImplemented'
        assert code_of(client.get_bucket_acl, Bucket=BUCKET) == 'NotImplemented'
        assert code_of(client.put_object, Bucket=BUCKET, Key='x', ACL='public-read') == 'NotImplemented'
        assert code_of(client.put_object, Bucket=BUCKET, Key='x', Tagging='a=b') == 'NotImplemented'
        assert code_of(client.get_object, Bucket=BUCKET, Key='x', VersionId='1') == 'NotImplemented'
        client.put_object(Bucket=BUCKET, Key='x', ACL='private', StorageClass='STANDARD')
    assert storage.buckets[BUCKET].keys() == {'x'}


def test_read_only(storage):
    with serving(Rucio(storage.url), read_only=True) as here:
        client = boto(here)
        assert code_of(client.put_object, Bucket=BUCKET, Key='x') == 'AccessDenied'
        assert code_of(client.delete_object, Bucket=BUCKET, Key='x') == 'AccessDenied'
        assert code_of(client.delete_objects, Bucket=BUCKET, Delete={'Objects': [{'Key': 'x'}]}) == 'AccessDenied'
        client.list_objects_v2(Bucket=BUCKET)


@pytest.mark.parametrize('honoured', [True, False])
def test_nothing_is_overwritten_unless_the_user_wants_it(storage, honoured):
    storage.conditional_put = storage.conditional_multipart = honoured
    rucio = Rucio(storage.url, conditional_put=honoured, conditional_multipart=honoured)
    with serving(rucio) as here:
        client = boto(here)
        client.put_object(Bucket=BUCKET, Key='x', Body=b'first')
        client.put_object(Bucket=BUCKET, Key='y', Body=b'other')
        assert code_of(client.put_object, Bucket=BUCKET, Key='x', Body=b'second') == 'PreconditionFailed'
        assert code_of(client.create_multipart_upload, Bucket=BUCKET, Key='x') == 'PreconditionFailed'
        assert code_of(client.copy_object, Bucket=BUCKET, Key='x', CopySource=f'{BUCKET}/y') == 'PreconditionFailed'
        late = client.create_multipart_upload(Bucket=BUCKET, Key='z')['UploadId']
        etag = client.upload_part(Bucket=BUCKET, Key='z', UploadId=late, PartNumber=1, Body=b'late')['ETag']
        client.put_object(Bucket=BUCKET, Key='z', Body=b'first')
        parts = {'Parts': [{'PartNumber': 1, 'ETag': etag}]}
        assert code_of(client.complete_multipart_upload, Bucket=BUCKET, Key='z', UploadId=late, MultipartUpload=parts) == 'PreconditionFailed'
        assert storage.buckets[BUCKET]['x'].body == storage.buckets[BUCKET]['z'].body == b'first'
    with serving(rucio, overwrite=True) as here:
        boto(here).put_object(Bucket=BUCKET, Key='x', Body=b'second')
        assert code_of(boto(here).put_object, Bucket=BUCKET, Key='x', Body=b'third', IfNoneMatch='*') == 'PreconditionFailed'
    assert storage.buckets[BUCKET]['x'].body == b'second'


def test_empty_objects_for_folders_may_be_there(storage):
    with serving(Rucio(storage.url)) as here:
        client = boto(here)
        for _ in range(2):
            assert client.put_object(Bucket=BUCKET, Key='run/', Body=b'')['ETag'] == f'"{hashlib.md5(b"").hexdigest()}"'
        assert code_of(client.put_object, Bucket=BUCKET, Key='run/', Body=b'', IfNoneMatch='*') == 'PreconditionFailed'
        assert code_of(client.put_object, Bucket=BUCKET, Key='run/', Body=b'content') == 'PreconditionFailed'
        storage.buckets[BUCKET]['run/'] = Object(b'content', 'e')
        assert code_of(client.put_object, Bucket=BUCKET, Key='run/', Body=b'') == 'PreconditionFailed'
        assert storage.buckets[BUCKET]['run/'].body == b'content'


def test_errors_of_the_storage_are_passed_on_without_those_of_its_keys(storage):
    with serving(Rucio(storage.url)) as here:
        client = boto(here)
        storage.fail('PutObject', error(503, 'SlowDown'))
        assert code_of(client.put_object, Bucket=BUCKET, Key='x') == 'SlowDown'
        for status, code in ((403, 'InvalidAccessKeyId'), (404, 'XAdminUserNotFound')):
            storage.fail('PutObject', error(status, code))
            assert code_of(client.put_object, Bucket=BUCKET, Key='x') == 'AccessDenied'


def test_copies_from_one_storage_to_another(storage):
    with FakeS3() as other:
        other.make_bucket(BUCKET)
        content = b'0123456789'
        other.buckets[BUCKET]['x'] = Object(content, hashlib.md5(content).hexdigest(), headers=(('Content-Type', 'text/x'), ('x-amz-meta-of', 'bob')))
        rucio = Rucio(storage.url)
        rucio.best_place = lambda scope, name, _: {'rse': scope, 'bucket': BUCKET, 'key': name, 'url': ''}
        endpoint = rucio.endpoint
        rucio.endpoint = lambda rse: endpoint(rse) if rse == BUCKET else replace(endpoint(rse), url=other.url)
        with serving(rucio) as here:
            client = boto(here)
            source = {'Bucket': 'user.bob', 'Key': 'x'}
            assert (
                client.copy_object(Bucket=BUCKET, Key='x', CopySource=source)['CopyObjectResult']['ETag'].strip('"') == hashlib.md5(b'0123456789').hexdigest()
            )
            assert storage.buckets[BUCKET]['x'].body == b'0123456789'
            sent = next(each for each in storage.requests if each.operation == 'PutObject')
            assert (sent.headers['content-type'], sent.headers['x-amz-meta-of']) == ('text/x', 'bob')
            assert sent.headers['x-amz-content-sha256'] == hashlib.sha256(b'0123456789').hexdigest()  # as it goes by http
            assert code_of(client.copy_object, Bucket=BUCKET, Key='x', CopySource=source) == 'PreconditionFailed'
            assert code_of(client.copy_object, Bucket=BUCKET, Key='y', CopySource=source, CopySourceIfMatch='"x"') == 'PreconditionFailed'
            assert code_of(client.copy_object, Bucket=BUCKET, Key='y', CopySource={'Bucket': 'user.bob', 'Key': 'none'}) == 'NoSuchKey'
            part = {'Bucket': BUCKET, 'Key': 'z', 'UploadId': client.create_multipart_upload(Bucket=BUCKET, Key='z')['UploadId']}
            etag = client.upload_part_copy(**part, PartNumber=1, CopySource=source, CopySourceRange='bytes=2-4')['CopyPartResult']['ETag']
            client.complete_multipart_upload(**part, MultipartUpload={'Parts': [{'PartNumber': 1, 'ETag': etag}]})
            assert storage.buckets[BUCKET]['z'].body == b'234'
            other.fail('GetObject', Cut())
            assert code_of(client.copy_object, Bucket=BUCKET, Key='y', CopySource=source) == 'ServiceUnavailable'
            assert storage.buckets[BUCKET].keys() == {'x', 'z'}


def test_a_copy_that_the_storage_refuses_goes_through_this_machine(storage):
    with serving(Rucio(storage.url)) as here:
        client = boto(here)
        client.put_object(Bucket=BUCKET, Key='x', Body=b'content')
        storage.fail('CopyObject', error(403, 'AccessDenied'))
        client.copy_object(Bucket=BUCKET, Key='y', CopySource={'Bucket': BUCKET, 'Key': 'x'})
        assert storage.buckets[BUCKET]['y'].body == b'content'


def test_a_replica_on_another_rse_is_read(storage):
    with FakeS3() as other:
        other.make_bucket('elsewhere')
        other.buckets['elsewhere']['ab/cd/x'] = Object(b'content', 'etag')
        rucio = Rucio(storage.url)
        rucio.elsewhere['x'] = [('X', 'x'), ('DOWN', 'x'), ('Y', 'ab/cd/x')]
        endpoint = rucio.endpoint
        rucio.endpoint = lambda rse: replace(endpoint(rse), url={'Y': other.url, 'X': storage.url}.get(rse, 'http://127.0.0.1:1'))
        with serving(rucio) as here:
            client = boto(here)
            assert client.get_object(Bucket=BUCKET, Key='x')['Body'].read() == b'content'
            assert client.head_object(Bucket=BUCKET, Key='x')['ContentLength'] == 7
            client.put_object(Bucket=BUCKET, Key='x', Body=b'nearer')
            storage.fail('GetObject', error(503, 'SlowDown'))
            assert client.get_object(Bucket=BUCKET, Key='x')['Body'].read() == b'content'
            assert client.get_object(Bucket=BUCKET, Key='x')['Body'].read() == b'nearer'
            assert code_of(client.get_object, Bucket=BUCKET, Key='none') == 'NoSuchKey'
            client.delete_object(Bucket=BUCKET, Key='x')
        assert other.buckets['elsewhere'].keys() == {'ab/cd/x'}
        assert {each.operation for each in other.requests} == {'GetObject', 'HeadObject'}


# Attacks


def fetch(url, method='GET', body=None, headers=None):
    host, _, path = url.partition('://')[2].partition('/')
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request(method, f'/{path}', body, headers or {})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def raw(here, lines, body=b''):
    """Send bytes as they are, and return the status of the answer, or 400 if there is none."""
    host, _, port = here.url.partition('://')[2].partition(':')
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall('\r\n'.join([*lines, '', '']).encode() + body)
        answer = connection.makefile('rb').readline()
        return int(answer.split()[1]) if answer else 400


NO_BODY = hashlib.sha256(b'').hexdigest()


def signed(here, method, path, payload=NO_BODY, secret=None, **headers):
    """The headers of a signed request."""
    request = AWSRequest(method, f'{here.url}{path}', {name.replace('_', '-'): value for name, value in headers.items()})
    auth = S3SigV4Auth(ReadOnlyCredentials(here.keys.access_key, secret or here.keys.secret_key, here.keys.session_token), 's3', 'us-east-1')
    auth.payload = lambda _: payload
    auth.add_auth(request)
    return {'Host': here.url.partition('://')[2], **dict(request.headers)}


def code_in(answer):
    return ElementTree.fromstring(answer[1]).findtext('Code')


@pytest.fixture
def here(storage):
    storage.buckets[BUCKET].clear()
    with serving(Rucio(storage.url)) as here:
        yield here


def test_another_user_of_the_machine_has_no_keys(here, storage):
    """Anybody on this machine can connect: without a signature, with a guessed secret, or with other keys."""
    url = f'{here.url}/{BUCKET}'
    assert code_in(fetch(url)) == 'AccessDenied'
    assert code_in(fetch(url, headers=signed(here, 'GET', f'/{BUCKET}', secret='guessed'))) == 'SignatureDoesNotMatch'
    keys = LocalKeys.make()
    assert code_in(fetch(url, headers=signed(here._replace(keys=keys), 'GET', f'/{BUCKET}'))) == 'InvalidAccessKeyId'
    other = here._replace(keys=here.keys._replace(session_token='guessed'))
    assert code_in(fetch(url, headers=signed(other, 'GET', f'/{BUCKET}'))) == 'SignatureDoesNotMatch'
    assert storage.requests == []


def test_a_signature_is_for_one_request(here, storage):
    """Who has seen a signed request sends it with another path, method, query, host, header or body."""
    headers = signed(here, 'GET', f'/{BUCKET}/x', Range='bytes=0-1')
    assert fetch(f'{here.url}/{BUCKET}/x', headers=headers)[0] == 404
    assert code_in(fetch(f'{here.url}/{BUCKET}/y', headers=headers)) == 'SignatureDoesNotMatch'
    assert code_in(fetch(f'{here.url}/{BUCKET}/x', 'DELETE', headers=headers)) == 'SignatureDoesNotMatch'
    assert code_in(fetch(f'{here.url}/{BUCKET}/x?uploads', headers=headers)) == 'SignatureDoesNotMatch'
    assert code_in(fetch(f'{here.url}/{BUCKET}/x', headers={**headers, 'Range': 'bytes=0-9'})) == 'SignatureDoesNotMatch'
    assert code_in(fetch(f'{here.url}/{BUCKET}/x', headers={**headers, 'Host': 's3.example.org'})) == 'InvalidRequest'
    assert code_in(fetch(f'{here.url}/{BUCKET}/x', headers={**headers, 'x-amz-copy-source': f'/{BUCKET}/y'})) == 'AccessDenied'
    put = signed(here, 'PUT', f'/{BUCKET}/x', hashlib.sha256(b'mine').hexdigest())
    assert code_in(fetch(f'{here.url}/{BUCKET}/x', 'PUT', b'evil', put)) == 'XAmzContentSHA256Mismatch'
    assert storage.buckets[BUCKET] == {}


def test_signatures_of_another_time():
    keys, now = LocalKeys.make(), datetime(2026, 11, 28, 12, tzinfo=timezone.utc)

    def request(auth, when, **query):
        made = AWSRequest('GET', f'http://127.0.0.1:1/{BUCKET}/x', {'Host': '127.0.0.1:1'})
        made.context['timestamp'] = f'{when:%Y%m%dT%H%M%SZ}'
        auth._modify_request_before_signing(made)
        auth._inject_signature_to_request(made, auth.signature(auth.string_to_sign(made, auth.canonical_request(made)), made))
        return asked.read('GET', made.url.partition(':1')[2], list(made.headers.items()))

    credentials = ReadOnlyCredentials(*keys)
    for minutes, is_right in ((14, True), (-14, True), (16, False), (-16, False)):
        made = request(S3SigV4Auth(credentials, 's3', 'anywhere'), now + timedelta(minutes=minutes))
        if is_right:
            verify(made, keys, now)
        else:
            with pytest.raises(Refusal, match='RequestTimeTooSkewed'):
                verify(made, keys, now)
    for hours, said in ((1, ''), (3, 'expired'), (-1, 'not valid yet')):
        made = request(S3SigV4QueryAuth(credentials, 's3', 'anywhere', expires=7200), now)
        if not said:
            verify(made, keys, now + timedelta(hours=hours))
        else:
            with pytest.raises(Refusal, match=f'AccessDenied.*{said}'):
                verify(made, keys, now + timedelta(hours=hours))


@pytest.mark.parametrize(
    'lines',
    [
        ['Content-Length: 5', 'Transfer-Encoding: chunked'],
        ['Transfer-Encoding: chunked', 'Content-Length: 5'],
        ['Content-Length: 5', 'Content-Length: 6'],
        ['Content-Length: 5, 6'],
        ['Content-Length: +5'],
        ['Transfer-Encoding: xchunked'],
        ['Transfer-Encoding : chunked'],
        ['Content-Length: 5', 'X: y\n Transfer-Encoding: chunked'],
    ],
)
def test_request_smuggling(here, storage, lines):
    """A second request is hidden in the body of one that is read in two ways."""
    headers = signed(here, 'PUT', f'/{BUCKET}/x', 'UNSIGNED-PAYLOAD')
    hidden = f'0\r\n\r\nGET /{BUCKET}/y HTTP/1.1\r\n\r\n'.encode()
    assert raw(here, [f'PUT /{BUCKET}/x HTTP/1.1', *(f'{name}: {value}' for name, value in headers.items()), *lines], hidden) >= 400
    assert storage.requests == []


@pytest.mark.parametrize(
    'path',
    [
        f'/{BUCKET}/a/../../other/x',
        f'/{BUCKET}/%2e%2e/x',
        f'/{BUCKET}/./x',
        '/../x',
        f'//{BUCKET}/x',
        '/%00/x',
        f'/{BUCKET}/%ff',
        f'/{BUCKET}//a',
        '/..%2f/x',
        f'/{BUCKET}/x#y',
        '/a%3fb/x',
        '/x' * 3000,
    ],
)
def test_paths_that_lead_elsewhere(here, storage, path):
    lines = [f'GET {path} HTTP/1.1', *(f'{name}: {value}' for name, value in signed(here, 'GET', f'/{BUCKET}/x').items())]
    assert 400 <= raw(here, lines) < 500
    assert storage.requests == []


@pytest.mark.parametrize('target', ['http://storage.example.org/user.alice/x', 'storage.example.org:443', '*'])
def test_it_is_no_proxy(here, storage, target):
    lines = [f'GET {target} HTTP/1.1', *(f'{name}: {value}' for name, value in signed(here, 'GET', f'/{BUCKET}/x').items())]
    assert 400 <= raw(here, lines) < 500
    assert storage.requests == []


def test_storages_are_reached_as_rucio_reaches_them(storage, monkeypatch):
    """A network in no_proxy, which requests knows."""
    for name in ('http_proxy', 'HTTP_PROXY'):
        monkeypatch.setenv(name, 'http://127.0.0.1:9')
    for name in ('no_proxy', 'NO_PROXY'):
        monkeypatch.setenv(name, '127.0.0.0/8')
    storage.store(BUCKET, 'x', b'content')
    with serving(Rucio(storage.url)) as here:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(f'{here.url}/{BUCKET}/x', headers=signed(here, 'GET', f'/{BUCKET}/x'))
        with opener.open(request) as answer:
            assert answer.read() == b'content'


def test_hop_by_hop_headers_and_cookies_end_here(storage):
    """The storage never sees the tool's connection headers or its local signature, and the tool none of its cookies."""
    storage.buckets[BUCKET].clear()
    with serving(Rucio(storage.url)) as here:
        headers = signed(here, 'PUT', f'/{BUCKET}/x', 'UNSIGNED-PAYLOAD')
        more = {'Connection': 'x-secret', 'X-Secret': '1', 'Cookie': 'a=b', 'X-Forwarded-Prefix': '/other', 'Upgrade': 'h2c', 'Proxy-Authorization': 'x'}
        assert fetch(f'{here.url}/{BUCKET}/x', 'PUT', b'content', {**headers, **more})[0] == 200
    (sent,) = storage.requests
    assert not {'x-secret', 'cookie', 'x-forwarded-prefix', 'upgrade', 'proxy-authorization'} & sent.headers.keys()
    assert here.keys.access_key not in str(sent.headers)
    assert here.keys.session_token not in str(sent.headers)
    assert answers.headers({'Set-Cookie': 'a', 'Location': 'b', 'Connection': 'c', 'Keep-Alive': 'd', 'ETag': 'e', 'X-Amz-Meta-F': 'f'}) == {
        'ETag': 'e',
        'X-Amz-Meta-F': 'f',
    }


# aws-chunked


EXAMPLE = LocalKeys('AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', '')
THEN = datetime(2013, 5, 24, tzinfo=timezone.utc)


def example(trailer=False):
    """The examples of AWS: sigv4-streaming.html and sigv4-streaming-trailers.html. Returns the request and the signatures of its chunks."""
    kind = 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD' + ('-TRAILER' if trailer else '')
    names = 'content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class'
    seed = '4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9'
    chunks = (
        'ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648',
        '0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497',
        'b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9',
    )
    if trailer:
        names = 'content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer'
        seed = '106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e'
        chunks = (
            'b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2',
            '1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7',
            '2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992',
        )
    headers = {
        'Host': 's3.amazonaws.com',
        'x-amz-date': '20130524T000000Z',
        'x-amz-storage-class': 'REDUCED_REDUNDANCY',
        'Authorization': f'AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders={names},Signature={seed}',
        'x-amz-content-sha256': kind,
        'Content-Encoding': 'aws-chunked',
        'x-amz-decoded-content-length': '66560',
        **({'x-amz-trailer': 'x-amz-checksum-crc32c'} if trailer else {'Content-Length': '66824'}),
    }
    return asked.read('PUT', '/examplebucket/chunkObject.txt', headers.items()), chunks


def chunked(signatures, sizes=(65536, 1024), trailer=b'\r\n', content=b'a'):
    lines = [
        f'{size:x};chunk-signature={signature}\r\n'.encode() + content * size + (b'\r\n' if size else b'')
        for size, signature in zip((*sizes, 0), signatures, strict=True)
    ]
    return b''.join(lines) + trailer


def decoded(request, verified, stream, step=1000):
    async def pieces():
        for start in range(0, len(stream), step):
            yield stream[start : start + step]

    async def read():
        return [piece async for piece in Body(request.headers, verified, pieces())]

    return asyncio.run(read())


@pytest.mark.parametrize('step', [1, 1000, 100_000])
def test_the_examples_of_aws(step):
    request, chunks = example()
    assert b''.join(decoded(request, verify(request, EXAMPLE, THEN), chunked(chunks), step)) == b'a' * 66560
    request, chunks = example(trailer=True)
    trailer = b'x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n'
    assert b''.join(decoded(request, verify(request, EXAMPLE, THEN), chunked(chunks, trailer=trailer), step)) == b'a' * 66560
    with pytest.raises(Refusal, match='SignatureDoesNotMatch'):
        decoded(request, verify(request, EXAMPLE, THEN), chunked(chunks, trailer=trailer.replace(b'sOO8', b'sOO9')), step)


@pytest.mark.parametrize(
    ('stream', 'said'),
    [
        (lambda chunks: chunked(chunks, content=b'b'), 'SignatureDoesNotMatch'),
        (lambda chunks: chunked((chunks[0], chunks[1], chunks[0])), 'SignatureDoesNotMatch'),
        (lambda chunks: chunked((chunks[0], chunks[2]), sizes=(65536,)), 'SignatureDoesNotMatch'),
        (lambda chunks: chunked(chunks)[:-90], 'IncompleteBody'),
        (lambda chunks: chunked(chunks)[:1000], 'IncompleteBody'),
        (lambda _: b'', 'IncompleteBody'),
        (lambda _: b'0' * 100_000, 'too long'),
        (lambda _: b'1' * 100 + b'\r\n', 'not HEX'),
        (lambda chunks: f'ffffffffffffffff;chunk-signature={chunks[0]}\r\n'.encode(), 'longer than'),
        (lambda chunks: f'-1;chunk-signature={chunks[0]}\r\n'.encode(), 'not HEX'),
        (lambda chunks: f'10001;chunk-signature={chunks[0]}\r\n'.encode() + b'a' * 65536 + b'\r\n', 'not|SignatureDoesNotMatch'),
        (lambda _: b'10000\r\n' + b'a' * 65536, 'not HEX'),
        (lambda chunks: chunked(chunks).replace(b'a\r\n', b'aX\r\n', 1), 'longer than its size'),
        (lambda chunks: chunked(chunks, trailer=b'x-amz-meta-more:1\r\n\r\n'), 'not the one that'),
        (lambda chunks: chunked(chunks, trailer=b'x' * 5000), 'too long'),
    ],
)
def test_chunks_that_lie(stream, said):
    """What the storage would get of such a body is never all of it: the last piece is withheld."""
    request, chunks = example()
    got = []

    async def pieces():
        yield stream(chunks)

    async def read():
        async for piece in Body(request.headers, verify(request, EXAMPLE, THEN), pieces()):
            got.append(piece)  # noqa: PERF401 - what there is when it fails

    with pytest.raises(Refusal, match=said):
        asyncio.run(read())
    assert len(b''.join(got)) < 66560


def unsigned(here, content, crc, name='x-amz-checksum-crc32', **headers):
    more = {
        'x_amz_decoded_content_length': str(len(content)),
        'x_amz_api_version': '2006-03-01',
        'x_amz_trailer': name,
        'Content_Encoding': 'gzip,aws-chunked',
        **headers,
    }
    body = b'%x\r\n%s\r\n0\r\n%s:%s\r\n\r\n' % (len(content), content, name.encode(), crc)
    return fetch(f'{here.url}/{BUCKET}/x', 'PUT', body, signed(here, 'PUT', f'/{BUCKET}/x', 'STREAMING-UNSIGNED-PAYLOAD-TRAILER', **more))


def test_trailers_without_signatures(here, storage):
    crc = base64.b64encode(zlib.crc32(b'content').to_bytes(4, 'big'))
    assert code_in(unsigned(here, b'content', b'AAAAAA==')) == 'BadDigest'
    assert storage.buckets[BUCKET] == {}
    assert unsigned(here, b'content', crc)[0] == 200
    assert storage.buckets[BUCKET]['x'].body == b'content'
    assert storage.requests[-1].headers['content-encoding'] == 'gzip'
    assert storage.requests[-1].headers['content-length'] == '7'


@pytest.mark.parametrize(('kind', 'check'), [('crc32c', 'e3069283'), ('crc64nvme', 'ae8b14860a799888')])
def test_checksums_that_python_lacks(kind, check):
    """The check values are those of the catalogue of parametrised CRC algorithms; a loop over the bits says the rest."""
    crc = Crc(kind)
    crc.update(b'123456789')
    assert crc.digest().hex() == check
    width, polynomial = crcs.KINDS[kind]
    content = random.Random(7).randbytes(5000)

    def slow(end):
        register = (1 << width) - 1
        for byte in content[:end]:
            register ^= int(f'{byte:08b}'[::-1], 2) << (width - 8)
            for _ in range(8):
                register = (register << 1 ^ (polynomial if register >> (width - 1) else 0)) & ((1 << width) - 1)
        return int(f'{register ^ ((1 << width) - 1):0{width}b}'[::-1], 2).to_bytes(width // 8, 'big')

    for end in (0, 1, 127, 128, 129, 130, 191, 192, 300, 1000, 5000):
        crc = Crc(kind)
        crc.update(content[: end // 3])
        crc.update(content[end // 3 : end])
        assert crc.digest() == slow(end)
    whole, parts = Crc(kind), Crc(kind)
    content *= 60  # more than one piece
    whole.update(content)
    for at in range(0, len(content), 100):
        parts.update(content[at : at + 100])
    assert whole.digest() == parts.digest()


def digest(kind, content):
    if kind in ('md5', 'sha1', 'sha256'):
        return base64.b64encode(hashlib.new(kind, content).digest())
    if kind == 'crc32':
        return base64.b64encode(zlib.crc32(content).to_bytes(4, 'big'))
    crc = Crc(kind)
    crc.update(content)
    return base64.b64encode(crc.digest())


@pytest.mark.parametrize('kind', ['crc32c', 'crc64nvme', 'sha1', 'sha256'])
def test_trailers_of_each_kind(here, storage, kind):
    assert code_in(unsigned(here, b'content', digest(kind, b'another'), f'x-amz-checksum-{kind}')) == 'BadDigest'
    assert storage.buckets[BUCKET] == {}
    assert unsigned(here, b'content', digest(kind, b'content'), f'x-amz-checksum-{kind}')[0] == 200


@pytest.mark.parametrize('kind', ['md5', 'crc32', 'crc32c', 'crc64nvme', 'sha1', 'sha256'])
def test_checksums_in_headers(here, storage, kind):
    def put(content, *kinds, value=None):
        headers = {'Content_MD5' if each == 'md5' else f'x_amz_checksum_{each}': value or digest(each, b'content').decode() for each in kinds}
        return fetch(f'{here.url}/{BUCKET}/x', 'PUT', content, signed(here, 'PUT', f'/{BUCKET}/x', 'UNSIGNED-PAYLOAD', **headers))

    assert code_in(put(b'another', kind)) == 'BadDigest'
    for odd in ('no', 'AAAA', 'Y29udGVudA'):
        assert code_in(put(b'content', kind, value=odd)) == ('InvalidDigest' if kind == 'md5' else 'InvalidRequest')
    assert storage.buckets[BUCKET] == {}
    assert put(b'content', kind, 'md5')[0] == 200


def test_there_is_one_checksum(here, storage):
    more = {'x_amz_checksum_sha1': digest('sha1', b'content').decode()}
    for kind in ('crc32', 'crc32c'):
        assert code_in(unsigned(here, b'content', digest(kind, b'content'), f'x-amz-checksum-{kind}', **more)) == 'InvalidRequest'
    more['x_amz_checksum_sha256'] = digest('sha256', b'content').decode()
    headers = signed(here, 'PUT', f'/{BUCKET}/x', 'UNSIGNED-PAYLOAD', **more)
    assert code_in(fetch(f'{here.url}/{BUCKET}/x', 'PUT', b'content', headers)) == 'InvalidRequest'
    assert storage.buckets[BUCKET] == {}


def test_the_body_of_delete_objects_is_compared_with_its_checksum(here, storage):
    storage.store(BUCKET, 'x', b'1')
    body = b'<Delete><Object><Key>x</Key></Object></Delete>'

    def delete(content):
        headers = signed(here, 'POST', f'/{BUCKET}?delete=', 'UNSIGNED-PAYLOAD', Content_MD5=digest('md5', body).decode())
        return fetch(f'{here.url}/{BUCKET}?delete=', 'POST', content, headers)

    assert code_in(delete(body.replace(b'>x<', b'>y<'))) == 'BadDigest'
    assert delete(body)[0] == 200
    assert storage.buckets[BUCKET] == {}


# Parts


def test_names_of_a_storage_that_are_not_in_the_place():
    place = Place(BUCKET, Endpoint(rse='X', rse_id='', url='https://s3.example.org'), None, 'b', 'mine/')
    with pytest.raises(ValueError, match=r'^$'):
        answers.renamed(answers.root_of(b'<ListBucketResult><Contents><Key>theirs/x</Key></Contents></ListBucketResult>'), place, BUCKET, '')
    with pytest.raises(ValueError, match=r'^$'):
        answers.root_of(b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')


@pytest.mark.parametrize(
    'body',
    [
        b'',
        b'<Delete/>',
        b'<!DOCTYPE x><Delete/>',
        b'<Delete><Object><Key>x</Key><VersionId>1</VersionId></Object></Delete>',
        b'<Delete>' + b'<Object><Key>x</Key></Object>' * 1001 + b'</Delete>',
    ],
)
def test_bodies_of_delete_objects(body):
    with pytest.raises(Refusal):
        answers.keys_to_delete(body)


def test_requests_only_go_to_the_host_of_the_rse():
    endpoint = Endpoint(rse='X', rse_id='', url='https://s3.example.org:9000')
    place = Place(BUCKET, endpoint, None, 'b', '')
    for key in ('@evil.org/x', '//evil.org', '?a', '#b', 'a b\r\nHost: evil.org'):
        url = place.url(key, '')
        assert url.startswith('https://s3.example.org:9000/b/')
        assert not set('?#\r\n @') & set(url.removeprefix('https://s3.example.org:9000/b/'))
    assert place._replace(endpoint=Endpoint(rse='X', rse_id='', url='https://h', addressing='virtual')).url('a', '') == 'https://b.h/a'


def test_a_storage_without_keys_and_signatures(monkeypatch):
    monkeypatch.setattr(places.credentials, 'choose', lambda *_: None)
    with pytest.raises(RSENotFound, match='neither keys nor signatures'):
        places.Places(Rucio('http://127.0.0.1:1')).of(BUCKET, '')


def test_keys_are_not_shown():
    keys = LocalKeys.make()
    assert keys.secret_key not in repr(keys)
    request = asked.read('GET', '/user.alice/x?X-Amz-Signature=abc', [('Host', 'h')])
    assert 'abc' not in repr(request)


@pytest.mark.parametrize(
    ('bucket', 'name', 'listing', 'allowed'),
    [
        (BUCKET, 'run7/a', False, True),
        (BUCKET, 'run7/', True, True),
        (BUCKET, 'run7', False, True),  # a file of that name
        (BUCKET, 'run7', True, False),  # the names that begin so
        (BUCKET, 'run70/a', False, False),
        (BUCKET, 'run70/', True, False),
        (BUCKET, '', True, False),
        (BUCKET, 'a', False, False),
        ('user.carol', 'run7/a', False, False),
    ],
)
def test_only_one_collection(bucket, name, listing, allowed):
    """`rucio s3 exec user.bob:run7 -- ./analysis.sh`."""
    rucio = Rucio('http://127.0.0.1:1')
    here = places.Places(rucio, only=(BUCKET, 'run7'))
    if allowed:
        assert here.of(bucket, name, listing).scope == BUCKET
    else:
        with pytest.raises(Refusal, match=r'is for .*:run7 only'):
            here.of(bucket, name, listing)
        assert rucio.asked == []
    assert here.shared(BUCKET) == ['run7']
    assert here.shared('user.carol') == []


def test_a_mistyped_rse_is_refused_before_anybody_is_served(storage):
    class Server(Rucio):
        def endpoint(self, rse):
            raise RSENotFound(f"There is no RSE '{rse}'.")

    async def serve():
        async with listening(Server(storage.url), rse='Y'):
            pass

    with pytest.raises(RSENotFound, match="'Y'"):
        asyncio.run(serve())


def test_a_port_in_use():
    async def run(port):
        async with listening(Rucio('http://127.0.0.1:1'), port=port):
            pass

    with socket.create_server(('127.0.0.1', 0)) as other, pytest.raises(InputValidationError, match='another `rucio s3 serve`'):
        asyncio.run(run(other.getsockname()[1]))


def test_missing_objects_that_the_storage_does_not_tell_of(storage, monkeypatch):
    """With keys for a part of a bucket, AWS answers 403 where there is nothing."""
    monkeypatch.setattr(Static, 'hides_missing', lambda *_: True)
    with serving(Rucio(storage.url)) as here:
        client = boto(here)
        client.put_object(Bucket=BUCKET, Key='there', Body=b'')
        storage.fail('HeadObject', *[error(403, 'AccessDenied')] * 2)
        assert code_of(client.head_object, Bucket=BUCKET, Key='there') == '403'
        assert code_of(client.head_object, Bucket=BUCKET, Key='missing') == '404'
        storage.fail('GetObject', error(403, 'AccessDenied'))
        storage.fail('ListObjectsV2', error(403, 'AccessDenied'))
        assert code_of(client.get_object, Bucket=BUCKET, Key='missing') == 'AccessDenied'


def test_keys_that_end_early_are_renewed(storage, monkeypatch):
    """Of a body that is gone, the tool has the rest: it is told to try again."""
    monkeypatch.setattr(Static, 'refused', lambda _self, _sent, code: code == 'ExpiredToken')
    with serving(Rucio(storage.url)) as here:
        client = boto(here)
        storage.fail('PutObject', error(400, 'ExpiredToken'))
        assert code_of(client.put_object, Bucket=BUCKET, Key='x', Body=b'content') == 'ServiceUnavailable'
        client.put_object(Bucket=BUCKET, Key='x', Body=b'content')
        storage.fail('GetObject', error(400, 'ExpiredToken'))
        assert client.get_object(Bucket=BUCKET, Key='x')['Body'].read() == b'content'
        storage.fail('GetObject', *[error(400, 'ExpiredToken')] * 2)
        assert code_of(client.get_object, Bucket=BUCKET, Key='x') == 'AccessDenied'


@pytest.mark.parametrize(
    'answer',
    [
        Answer(307, b'', (('Location', 'http://127.0.0.1:1/evil'),)),
        Answer(301, b'<Error><Code>PermanentRedirect</Code><Endpoint>evil</Endpoint></Error>', (('Location', 'http://127.0.0.1:1/evil'),)),
        Answer(200, b'<!DOCTYPE a [<!ENTITY b "c">]><ListBucketResult>&b;</ListBucketResult>'),
        Answer(200, b'<html>log in</html>'),
        Answer(200, b'<ListBucketResult><Contents><Key>theirs</Key></Contents></ListBucketResult>'),
        Answer(200, b'<Error><Code>InternalError</Code></Error>'),
        Cut(),
    ],
)
def test_a_hostile_storage(storage, answer):
    """It redirects the tool, sends entities or a login page, names the objects of others, or ends in the middle."""
    with serving(Rucio(storage.url, 'mine/')) as here:
        client = boto(here)
        for _ in range(3):  # mc and others ask again
            storage.fail('ListObjectsV2', answer)
        with pytest.raises(ClientError) as refused:
            client.list_objects_v2(Bucket=BUCKET)
        assert refused.value.response['ResponseMetadata']['HTTPStatusCode'] >= 500
        assert 'evil' not in str(refused.value.response)


def test_a_200_that_stored_nothing(storage):
    with serving(Rucio(storage.url)) as here:
        storage.fail('PutObject', Answer(200, b'<html>log in</html>'))
        assert code_of(boto(here).put_object, Bucket=BUCKET, Key='x', Body=b'content') == 'InternalError'


def test_an_object_that_ends_in_the_middle(storage):
    with serving(Rucio(storage.url)) as here:
        client = boto(here)
        client.put_object(Bucket=BUCKET, Key='x', Body=b'x' * 1000)
        storage.fail('GetObject', Cut())
        with pytest.raises(BotoCoreError):
            client.get_object(Bucket=BUCKET, Key='x')['Body'].read()


@pytest.mark.parametrize(
    'target',
    [
        'http://storage.example.org/b/x',
        '*',
        '',
        '/bucket/a b',
        '/bucket/x#y',
        '/bucket/\u00e9',
        f'/bucket/{"x" * 9000}',
        '/bucket/a/../b',
        '/bucket/%2e%2e/b',
        '/bucket/.',
        '/bucket///b',
        '/bucket/%00',
        '/bucket/%ff',
        f'/bucket/{"x" * 1025}',
        '//bucket/x',
        '/..%2fb/x',
        '/a..b/x',
        '/a%3fb/x',
        '/@evil.org:1/x',
        '/bucket/x?a=1&a=2',
        '/bucket/x?%61=1&a=2',
    ],
)
def test_targets_that_are_refused_whoever_signs_them(target):
    with pytest.raises(Refusal):
        asked.read('GET', target, [('Host', 'h')])


@pytest.mark.parametrize(
    'headers',
    [
        [('Content-Length', '5'), ('Transfer-Encoding', 'chunked')],
        [('Content-Length', '5'), ('content-length', '5')],
        [('Host', 'a'), ('host', 'b')],
        [('Range', 'a\r\nb')],
        [('x-amz-meta-a', 'caf\u00e9')],
        [('x-amz-meta-a', 'x' * 9000)],
    ],
)
def test_headers_that_are_refused_whoever_signs_them(headers):
    with pytest.raises(Refusal):
        asked.read('GET', '/bucket/x', headers)


def test_redirections_of_a_storage_are_not_followed(storage):
    """A storage could send the request, with its signature, to another host or to another object."""
    with serving(Rucio(storage.url)) as here:
        client = boto(here)
        client.put_object(Bucket=BUCKET, Key='other', Body=b'other')
        storage.fail('GetObject', Answer(307, b'', (('Location', f'{storage.url}/{BUCKET}/other'),)))
        assert code_of(client.get_object, Bucket=BUCKET, Key='x') == 'InternalError'
    assert [each.key for each in storage.requests if each.operation == 'GetObject'] == ['x']


def test_who_is_over_an_account_limit_is_told_by_how_much():
    told = 'Account alice: 9.700 GB of 10.000 GB allowed at RSE X are used, 10.200 GB with this.'
    refusal = of_rucio(InsufficientAccountLimit(told))
    assert (refusal.code, refusal.status, refusal.message) == ('QuotaExceeded', 403, told)
