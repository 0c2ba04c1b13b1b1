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


"""What can be asked of objects without moving them: the answers, and what they cost."""

import boto3
import moto
import pytest
from botocore.exceptions import ClientError

from rucio.common.exception import (
    AccessDenied,
    DestinationNotAccessible,
    ResourceTemporaryUnavailable,
    RSEAccessDenied,
    RSEFileNameNotSupported,
    RucioException,
    ServiceUnavailable,
    SourceNotFound,
)
from rucio.common.s3 import clients, credentials, objects
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from rucio.common.s3.parsing import UnreadableAnswerError
from servers.fake_s3 import Answer, Lost, error

BUCKET = 'user.alice'
KEYS = credentials.Static('AKIDOFTHETESTS', 'secret')
MD5_OF_X = '9dd4e461268c8034f5c8564e155c67a6'
HARD = ['a b', 'a+b', '100%', 'a%20b', 'größe/日本語', 'a//b', 'a?b&c=d', 'a#b', '<a>&amp;']


@pytest.fixture
def connection(s3):
    def make(authorizer=KEYS, **settings):
        return clients.connect(Endpoint(**{'rse': 'X', 'rse_id': '1', 'url': s3.url, 'max_attempts': 1, 'checksum': 'crc32'} | settings), authorizer)

    return make


@pytest.fixture
def signed(connection, s3):
    """Call it with an operation and a key for a connection that has a signed URL for them."""

    def make(operation, key):
        made = connection(None)
        made.authorizer.offer(operation, at(key), f'{s3.url}/{BUCKET}/{key}?X-Amz-Signature=1')
        return made

    return make


def at(key, bucket=BUCKET):
    return Target('X', bucket, key)


# stat


def test_stat_tells_size_and_checksums_for_one_head(connection, s3):
    s3.store(BUCKET, 'k', b'x')
    assert objects.stat(connection(), at('k')) == objects.ObjectInfo(1, f'"{MD5_OF_X}"', MD5_OF_X, 'jNwWgw==')
    assert s3.operations() == ['HeadObject']


def test_the_etag_of_a_multipart_object_is_no_md5(connection, s3):
    s3.store(BUCKET, 'k', b'x', etag=f'{MD5_OF_X}-2')
    assert objects.stat(connection(), at('k')).md5 is None


@pytest.mark.parametrize(
    ('headers', 'md5'),
    [
        ({'x-amz-server-side-encryption': 'AES256'}, MD5_OF_X),
        ({'x-amz-server-side-encryption': 'aws:kms'}, None),
        ({'x-amz-server-side-encryption-customer-algorithm': 'AES256'}, None),
        ({'ETag': '"not-an-md5"'}, None),
        ({'ETag': f'"X{MD5_OF_X}"'}, None),
    ],
    ids=str,
)
def test_the_etag_is_an_md5_only_where_s3_says_so(connection, s3, headers, md5):
    s3.fail('HeadObject', Answer(200, b'x', tuple(({'ETag': f'"{MD5_OF_X}"'} | headers).items())))
    assert objects.stat(connection(), at('k')).md5 == md5


@pytest.mark.parametrize('headers', [{'x-amz-checksum-type': 'COMPOSITE'}, {'x-amz-checksum-crc32': 'jNwWgw==-2'}, {'x-amz-checksum-crc32': ''}], ids=str)
def test_a_checksum_of_checksums_is_none_of_the_content(connection, s3, headers):
    s3.fail('HeadObject', Answer(200, b'x', tuple(({'x-amz-checksum-crc32': 'jNwWgw=='} | headers).items())))
    assert objects.stat(connection(), at('k')).crc32 is None


@pytest.mark.parametrize('size', [None, -1, '1', 1.0])
def test_an_object_has_a_size(size):
    assert objects.info({'ContentLength': 0, 'ETag': '"e"'}) == objects.ObjectInfo(0, '"e"')
    assert objects.info({'ContentLength': 1}) == objects.ObjectInfo(1, '')
    with pytest.raises(UnreadableAnswerError, match=f'the size of the object is {size}'):
        objects.info({'ContentLength': size})


@pytest.mark.parametrize(('etag', 'condition'), [('"Xe"', '"Xe"'), ('W/"Xe"', ''), ('', '')])
def test_a_weak_etag_is_equal_to_none(etag, condition):
    assert objects.ObjectInfo(1, etag).condition == condition
    assert objects.bare_etag(etag) == ('Xe' if etag else '')


def test_checksums_are_not_asked_of_a_storage_that_has_none(connection, s3):
    s3.store(BUCKET, 'k', b'x')
    objects.stat(connection(checksum='md5'), at('k'))
    assert 'x-amz-checksum-mode' not in s3.requests[0].headers


@pytest.mark.parametrize('target', [at('missing'), at('k', 'no.such.bucket')], ids=str)
def test_stat_of_what_is_missing_names_it(connection, target):
    with pytest.raises(SourceNotFound, match=f"bucket '{target.bucket}', key '{target.key}'"):
        objects.stat(connection(), target)


@pytest.mark.parametrize('body', [b'x', b'x' * 1000, b''], ids=len)
def test_stat_by_a_signed_url_gets_the_first_byte_as_head_is_refused(signed, s3, body):
    s3.store(BUCKET, 'k', body)
    found = objects.stat(signed('read', 'k'), at('k'))
    assert found.size == len(body)
    assert found.etag == (f'"{s3.buckets[BUCKET]["k"].etag}"' if body else '')
    assert s3.operations() == ['GetObject']
    assert s3.requests[0].headers['range'] == 'bytes=0-0'


def test_stat_by_a_signed_url_copes_with_a_storage_that_ignores_ranges(signed, s3):
    s3.fail('GetObject', Answer(200, b'x' * 9, (('ETag', '"e"'),)))
    assert objects.stat(signed('read', 'k'), at('k')).size == 9


# exists


def test_exists_costs_one_head(connection, s3):
    s3.store(BUCKET, 'k', b'')
    assert objects.exists(connection(), at('k')) is True
    assert objects.exists(connection(), at('missing')) is False
    assert s3.operations() == ['HeadObject', 'HeadObject']


def test_nothing_exists_in_a_missing_bucket(connection):
    assert objects.exists(connection(), at('k', 'no.such.bucket')) is False


@pytest.mark.parametrize(('answer', 'expected'), [(error(403, 'AccessDenied'), RSEAccessDenied), (error(503, 'SlowDown'), ResourceTemporaryUnavailable)])
def test_a_storage_that_does_not_say_is_not_taken_for_no(connection, s3, answer, expected):
    s3.fail('HeadObject', answer)
    s3.fail('GetObject', answer)
    with pytest.raises(expected, match='RSE X: exists of'):
        objects.exists(connection(), at('k'))


@pytest.mark.parametrize('status', [301, 400, 403])
def test_a_refused_head_which_has_no_body_is_followed_by_a_get_that_says_why(connection, s3, status):
    s3.store(BUCKET, 'k', b'x' * 100)
    s3.fail('HeadObject', error(status, 'RequestTimeTooSkewed'))
    s3.fail('GetObject', error(status, 'RequestTimeTooSkewed'))
    with pytest.raises(RSEAccessDenied, match='clock'):
        objects.stat(connection(), at('k'))
    assert [each for each in s3.operations() if each != 'HeadBucket'] == ['HeadObject', 'GetObject']


def test_a_head_that_alone_is_refused_is_a_refusal(connection, s3):
    s3.store(BUCKET, 'k', b'x' * 100)
    s3.fail('HeadObject', error(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied, match='RSE X: stat of'):
        objects.stat(connection(), at('k'))
    assert s3.operations() == ['HeadObject', 'GetObject']


@pytest.mark.parametrize(('key', 'body', 'expected'), [('k', b'x', True), ('k', b'', True), ('missing', b'x', False)])
def test_exists_by_a_signed_url(signed, s3, key, body, expected):
    s3.store(BUCKET, 'k', body)
    assert objects.exists(signed('read', key), at(key)) is expected
    assert s3.operations() == ['GetObject']


def test_wrong_keys_are_not_taken_for_no(signed, connection, s3):
    """versitygw answers 404 to a key that nobody has."""
    s3.store(BUCKET, 'k', b'x')
    s3.fail('GetObject', error(404, 'XAdminUserNotFound'))
    with pytest.raises(RSEAccessDenied, match=r'\[s3:X\]'):
        objects.exists(signed('read', 'k'), at('k'))
    s3.fail('DeleteObjects', error(404, 'XAdminUserNotFound'))
    (result,) = objects.delete_many(connection(), [at('k')]).values()
    assert isinstance(result, RSEAccessDenied)


# delete


def test_delete_deletes(connection, s3):
    s3.store(BUCKET, 'k', b'x')
    objects.delete(connection(), at('k'))
    assert not s3.buckets[BUCKET]
    assert s3.operations() == ['HeadObject', 'DeleteObject']


def test_delete_of_what_is_missing_is_told(connection):
    with pytest.raises(SourceNotFound, match='delete of'):
        objects.delete(connection(), at('missing'))


def test_a_missing_bucket_does_not_count_as_a_deleted_file(connection):
    """With a mistyped prefix the reaper would forget all files of an RSE."""
    with pytest.raises(ServiceUnavailable, match=r'RSE X: delete of .* 404 NoSuchBucket.*check the RSE'):
        objects.delete(connection(), at('k', 'no.such.bucket'))


@pytest.mark.parametrize('answer', [error(503, 'SlowDown'), error(500, 'InternalError'), error(404, ''), Lost()], ids=str)
def test_a_file_counts_as_missing_only_where_the_storage_has_the_bucket(connection, s3, answer):
    s3.fail('HeadBucket', answer)
    with pytest.raises((ServiceUnavailable, ResourceTemporaryUnavailable)):
        objects.delete(connection(), at('missing'))
    assert s3.operations() == ['HeadObject', 'HeadBucket']


@pytest.mark.parametrize('status', [400, 403])
def test_an_object_that_its_owner_has_hidden_is_deleted(connection, s3, status):
    """By an access list, or by the key that it is encrypted with."""
    s3.store(BUCKET, 'k', b'x')
    s3.fail('HeadObject', error(status, 'AccessDenied'))
    s3.fail('GetObject', error(status, 'AccessDenied'))
    objects.delete(connection(), at('k'))
    assert not s3.buckets[BUCKET]


@pytest.mark.parametrize('status', [405, 500, 503])
def test_an_object_that_cannot_be_looked_at_is_not_deleted(connection, s3, status):
    s3.store(BUCKET, 'k', b'x')
    s3.fail('HeadObject', error(status, 'Whatever'))
    with pytest.raises(RucioException):
        objects.delete(connection(), at('k'))
    assert s3.operations() == ['HeadObject']


@pytest.mark.parametrize('status', [401, 403, 405, 501])
def test_keys_that_may_not_ask_for_the_bucket_delete_all_the_same(connection, s3, status):
    s3.fail('HeadBucket', error(status, ''))
    with pytest.raises(SourceNotFound, match='delete of'):
        objects.delete(connection(), at('missing'))


def test_delete_asks_for_no_checksum_which_may_need_the_key_of_a_kms(connection, s3):
    s3.store(BUCKET, 'k', b'x')
    objects.delete(connection(), at('k'))
    assert 'x-amz-checksum-mode' not in s3.requests[0].headers


def test_delete_by_a_signed_url_is_one_request(signed, s3):
    s3.store(BUCKET, 'k', b'x')
    objects.delete(signed('delete', 'k'), at('k'))
    assert not s3.buckets[BUCKET]
    assert s3.operations() == ['DeleteObject']


# delete_many


def test_keys_that_xml_cannot_hold_are_deleted_one_by_one(connection, s3):
    keys = ['a\x01b', 'a\x1fb', 'a\ufffeb', 'a\tb', 'a\x7fb', 'plain']
    for key in keys:
        s3.store(BUCKET, key, b'')
    assert objects.delete_many(connection(), [at(key) for key in keys]) == {at(key): None for key in keys}
    assert not s3.buckets[BUCKET]
    assert s3.operations() == ['DeleteObject'] * 3 + ['DeleteObjects']


def test_a_key_that_cannot_be_deleted_alone_is_told(connection, s3):
    s3.fail('DeleteObject', error(403, 'AccessDenied'))
    result = objects.delete_many(connection(), [at('a\x01b'), at('plain')])
    assert [type(each).__name__ for each in result.values()] == ['RSEAccessDenied', 'NoneType']
    assert 'RSE X: delete of' in str(result[at('a\x01b')])


@pytest.mark.parametrize('said', ['<Error><Code>AccessDenied</Code></Error>', '<Error><Key>another</Key><Code>AccessDenied</Code></Error>'])
def test_an_error_that_names_none_of_the_keys_may_be_of_each(connection, s3, said):
    s3.fail('DeleteObjects', Answer(200, f'<DeleteResult>{said}</DeleteResult>'.encode()))
    result = objects.delete_many(connection(), map(at, 'abc'))
    assert [type(each) for each in result.values()] == [RSEAccessDenied] * 3
    assert [f"key '{key}'" in str(each) for key, each in zip('abc', result.values(), strict=True)] == [True] * 3


def test_an_error_without_a_code_is_one(connection, s3):
    s3.fail('DeleteObjects', Answer(200, b'<DeleteResult><Error><Key>a</Key></Error></DeleteResult>'))
    result = objects.delete_many(connection(), map(at, 'ab'))
    assert result[at('b')] is None
    assert "delete of bucket 'user.alice', key 'a': the storage answered an error without a code. Try again later" in str(result[at('a')])


def test_only_failures_are_asked_for_and_the_refusal_of_all_names_the_bucket(connection, s3):
    s3.fail('DeleteObjects', error(403, 'AccessDenied'))
    result = objects.delete_many(connection(), map(at, 'ab'))
    assert b'<Quiet>true</Quiet>' in s3.requests[0].body
    assert {str(each).partition("delete of bucket 'user.alice'")[2][:1] for each in result.values()} == {':'}


@pytest.fixture
def strict(s3, monkeypatch):
    """A storage that refuses a whole DeleteObjects for one key, which it may delete alone; any other code may be set."""
    monkeypatch.setattr(s3, 'code', 'MalformedXML', raising=False)
    delete = s3.DeleteObjects
    monkeypatch.setattr(s3, 'DeleteObjects', lambda request: error(400, s3.code) if b'odd' in request.body else delete(request))
    return s3


@pytest.mark.parametrize('code', ['MalformedXML', 'InvalidRequest', 'KeyTooLongError', ''])
def test_one_refused_key_of_a_batch_stops_no_other(connection, strict, code):
    strict.code = code
    keys = [f'k{number}' for number in range(20)]
    keys[7] = 'odd'
    for key in keys:
        strict.store(BUCKET, key, b'')
    assert set(objects.delete_many(connection(), map(at, keys)).values()) == {None}
    assert not strict.buckets[BUCKET]
    assert len(strict.requests) <= 12


def test_a_key_that_cannot_be_deleted_at_all_is_the_only_one_that_is_told(connection, strict):
    for key in ('a', 'odd', 'b'):
        strict.store(BUCKET, key, b'')
    strict.fail('DeleteObject', error(400, 'InvalidURI'))
    result = objects.delete_many(connection(), map(at, ['a', 'odd', 'b']))
    assert (result[at('a')], result[at('b')], type(result[at('odd')])) == (None, None, RSEFileNameNotSupported)
    assert list(strict.buckets[BUCKET]) == ['odd']


@pytest.mark.parametrize('answer', [error(501, 'NotImplemented'), error(405, 'MethodNotAllowed'), error(400, 'NotImplemented')])
def test_a_storage_without_deleteobjects_deletes_one_by_one(connection, s3, answer):
    for key in 'abc':
        s3.store(BUCKET, key, b'')
    s3.fail('DeleteObjects', answer)
    assert objects.delete_many(connection(), map(at, 'abc')) == dict.fromkeys(map(at, 'abc'))
    assert not s3.buckets[BUCKET]
    assert s3.operations() == ['DeleteObjects', *['DeleteObject'] * 3]


def test_a_key_that_botocore_refuses_stops_no_other(connection, s3):
    s3.store(BUCKET, 'a', b'')
    result = objects.delete_many(connection(), [at(''), at('a')])
    assert (type(result[at('')]), result[at('a')]) == (RSEFileNameNotSupported, None)
    assert not s3.buckets[BUCKET]


@pytest.mark.parametrize(
    'answer', [error(400, 'ExpiredToken'), error(400, 'BadDigest'), error(403, 'AccessDenied'), error(503, 'SlowDown'), error(400, 'InvalidBucketName')]
)
def test_what_holds_for_a_whole_request_is_not_asked_again(connection, s3, answer):
    s3.fail('DeleteObjects', answer)
    result = objects.delete_many(connection(), map(at, 'abc'))
    assert None not in result.values()
    assert s3.operations() == ['DeleteObjects']


def test_2001_objects_are_deleted_by_three_requests(connection, s3):
    for number in range(2001):
        s3.store(BUCKET, f'k{number}', b'')
    result = objects.delete_many(connection(), [at(f'k{number}') for number in range(2001)])
    assert not s3.buckets[BUCKET]
    assert s3.operations() == ['DeleteObjects'] * 3
    assert [request.body.count(b'<Key>') for request in s3.requests] == [1000, 1000, 1]
    assert len(result) == 2001
    assert set(result.values()) == {None}


def test_many_are_deleted_by_bucket_and_under_hard_names(connection, s3):
    s3.make_bucket('mc23')
    targets = [at(key, bucket) for key in HARD for bucket in (BUCKET, 'mc23')]
    for target in targets:
        s3.store(target.bucket, target.key, b'')
    s3.store(BUCKET, 'other', b'')
    assert objects.delete_many(connection(), iter(targets)) == dict.fromkeys(targets)
    assert s3.operations() == ['DeleteObjects'] * 2
    assert (list(s3.buckets[BUCKET]), list(s3.buckets['mc23'])) == (['other'], [])


def test_the_same_object_twice_is_sent_once(connection, s3):
    s3.store(BUCKET, 'k', b'')
    assert objects.delete_many(connection(), [at('k'), at('k')]) == {at('k'): None}
    assert s3.requests[0].body.count(b'<Key>') == 1


def test_nothing_to_delete_costs_nothing(connection, s3):
    assert objects.delete_many(connection(), []) == {}
    assert not s3.requests


def test_each_object_that_could_not_be_deleted_has_its_own_error(connection, s3):
    denied = '<Error><Key>b</Key><Code>AccessDenied</Code><Message>locked</Message></Error><Error><Key>c</Key><Code>NoSuchKey</Code></Error>'
    s3.fail('DeleteObjects', Answer(200, f'<DeleteResult>{denied}</DeleteResult>'.encode()))
    result = objects.delete_many(connection(), map(at, 'abc'))
    assert result[at('a')] is result[at('c')] is None
    assert isinstance(result[at('b')], RSEAccessDenied)
    assert "RSE X: delete of bucket 'user.alice', key 'b'" in str(result[at('b')])
    assert 'locked' in str(result[at('b')])


def test_a_request_that_fails_as_a_whole_fails_for_its_objects_only(connection, s3):
    s3.store('mc23', 'k', b'')
    result = objects.delete_many(connection(), [at('a', 'no.such.bucket'), at('b', 'no.such.bucket'), at('k', 'mc23')])
    assert isinstance(result[at('a', 'no.such.bucket')], ServiceUnavailable)
    assert isinstance(result[at('b', 'no.such.bucket')], ServiceUnavailable)
    assert result[at('k', 'mc23')] is None


@pytest.mark.parametrize('body', [b'', b'<html/>', b'{}'])
def test_a_200_that_says_nothing_deletes_nothing(connection, s3, body):
    s3.fail('DeleteObjects', Answer(200, body))
    result = objects.delete_many(connection(), [at('a'), at('b')])
    assert [type(each) for each in result.values()] == [ServiceUnavailable] * 2


@pytest.mark.parametrize('body', [b'', b'<html/>'])
def test_a_200_that_says_nothing_is_no_list_of_buckets(connection, s3, body):
    s3.fail('ListBuckets', Answer(200, body))
    with pytest.raises(ServiceUnavailable, match='no ListAllMyBucketsResult'):
        objects.list_buckets(connection())


# Listings


def test_a_listing_of_2001_objects_is_three_requests_and_complete(connection, s3):
    names = sorted(f'k{number}' for number in range(2001))
    for name in names:
        s3.store(BUCKET, name, b'xy')
    assert list(objects.list_objects(connection().client, Target('X', BUCKET))) == [(name, 2, '') for name in names]
    assert s3.operations() == ['ListObjectsV2'] * 3


def test_a_listing_begins_before_it_is_complete(connection, s3):
    for number in range(1500):
        s3.store(BUCKET, f'k{number}', b'')
    next(objects.list_objects(connection().client, Target('X', BUCKET)))
    assert s3.operations() == ['ListObjectsV2']


def test_a_listing_has_hard_names_as_they_are(connection, s3):
    for key in HARD:
        s3.store(BUCKET, key, b'')
    assert sorted(each.key for each in objects.list_objects(connection().client, Target('X', BUCKET))) == sorted(HARD)


def test_a_listing_may_begin_with_a_prefix(connection, s3):
    for key in ('a/1', 'a/b/2', 'c'):
        s3.store(BUCKET, key, b'')
    assert [each.key for each in objects.list_objects(connection().client, Target('X', BUCKET, 'a/'))] == ['a/1', 'a/b/2']
    assert sorted(objects.list_prefix(connection().client, Target('X', BUCKET, 'a/'))) == ['a/1', 'a/b/']
    assert sorted(objects.list_prefix(connection().client, Target('X', BUCKET))) == ['a/', 'c']


@pytest.mark.parametrize('more', ['', '<IsTruncated>true</IsTruncated>', '<IsTruncated>true</IsTruncated><NextContinuationToken/>'])
def test_a_listing_that_ends_too_early_is_no_listing(connection, s3, more):
    """What it does not have would look deleted."""
    s3.fail('ListObjectsV2', Answer(200, f'<ListBucketResult>{more}</ListBucketResult>'.encode()))
    with pytest.raises(ServiceUnavailable, match=r"RSE X: ls of bucket 'user\.alice'.* an incomplete listing that cannot be continued"):
        list(objects.list_objects(connection().client, Target('X', BUCKET)))


def test_a_listing_that_goes_on_at_the_same_place_is_none(connection, s3):
    page = b'<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken></ListBucketResult>'
    s3.fail('ListObjectsV2', *[Answer(200, page)] * 9)
    with pytest.raises(ServiceUnavailable, match='cannot be continued'):
        list(objects.list_objects(connection().client, Target('X', BUCKET)))
    assert len(s3.requests) == 2


def test_an_object_without_size_or_date_is_listed_without_a_size(connection, s3):
    date = '<LastModified>2026-11-22T00:00:00Z</LastModified>'
    said = ''.join(
        f'<Contents><Key>{key}</Key>{rest}</Contents>'
        for key, rest in (('a', date), ('b', '<Size>1</Size>'), ('c', f'{date}<Size>-7</Size>'), ('d', f'{date}<Size>0</Size>'))
    )
    s3.fail('ListObjectsV2', Answer(200, f'<ListBucketResult><IsTruncated>false</IsTruncated>{said}</ListBucketResult>'.encode()))
    assert list(objects.list_objects(connection().client, Target('X', BUCKET))) == [('a', None, ''), ('b', None, ''), ('c', None, ''), ('d', 0, '')]


def test_an_object_without_a_key_is_none(connection, s3):
    said = '<Contents><LastModified>2026-11-22T00:00:00Z</LastModified><Size>1</Size></Contents>'
    s3.fail('ListObjectsV2', Answer(200, f'<ListBucketResult><IsTruncated>false</IsTruncated>{said}</ListBucketResult>'.encode()))
    with pytest.raises(ServiceUnavailable, match='keys that do not begin with the prefix'):
        list(objects.list_objects(connection().client, Target('X', BUCKET)))


def test_whether_archived_objects_were_restored_is_asked_for_objects_only(connection, s3):
    s3.store(BUCKET, 'k', b'x', storage_class='GLACIER')
    assert list(objects.list_prefix(connection().client, Target('X', BUCKET))) == ['k']
    assert len(s3.requests) == 1
    assert list(objects.list_objects(connection().client, Target('X', BUCKET))) == [('k', 1, 'GLACIER')]
    assert ['x-amz-optional-object-attributes' in each.headers for each in s3.requests] == [False, False, True]


def test_each_page_has_the_delimiter_and_the_first_one_alone_where_to_begin(connection, s3):
    s3.page = 2
    for key in ('a/1', 'b', 'c', 'd/1', 'e'):
        s3.store(BUCKET, key, b'')
    assert list(objects.list_prefix(connection().client, Target('X', BUCKET))) == ['a/', 'b', 'd/', 'c', 'e']
    assert [each.query.get('delimiter') for each in s3.requests] == ['/'] * 3
    s3.requests.clear()
    pages = list(objects.list_pages(connection().client, Target('X', BUCKET), StartAfter='a/1'))
    assert [each['Key'] for page in pages for each in page['Contents']] == ['b', 'c', 'd/1', 'e']
    assert [(each.query.get('start-after'), 'continuation-token' in each.query) for each in s3.requests] == [('a/1', False), (None, True)]


def test_a_listing_that_only_goes_on_ends(connection, s3, monkeypatch):
    """Pages without a key in them, or the same one again and again; a few that are empty are usual."""
    monkeypatch.setattr(objects, '_EMPTY_PAGES', 3)
    served, tokens = s3.ListObjectsV2, iter(range(100))

    def page(key):
        found = f'<Contents><Key>{key}</Key><LastModified>2026-11-22T00:00:00Z</LastModified><ETag>"x"</ETag><Size>1</Size></Contents>' if key else ''
        more = f'<IsTruncated>true</IsTruncated><NextContinuationToken>{next(tokens)}</NextContinuationToken>'
        return Answer(200, f'<ListBucketResult>{more}{found}</ListBucketResult>'.encode())

    for keys, ends in (('   a   ', False), ('    ', True), ('a   b  ', False), ('aa', True), ('a a', True)):
        pages = [page(key.strip()) for key in keys]
        s3.ListObjectsV2 = lambda request, pages=pages: pages.pop(0) if pages else served(request)
        found = objects.list_objects(connection().client, Target('X', BUCKET))
        if ends:
            with pytest.raises(ServiceUnavailable, match='makes no progress'):
                list(found)
        else:
            assert [each.key for each in found] == list(keys.replace(' ', ''))


def test_a_listing_of_a_missing_bucket_names_it(connection):
    with pytest.raises((SourceNotFound, DestinationNotAccessible), match=r"RSE X: ls of bucket 'no\.such\.bucket'"):
        list(objects.list_objects(connection().client, Target('X', 'no.such.bucket')))


def test_buckets_are_listed(connection, s3):
    s3.make_bucket('mc23')
    assert objects.list_buckets(connection()) == ['mc23', BUCKET]
    s3.fail('ListBuckets', error(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied, match=r"RSE X: ls of bucket '\*': the storage answered 403"):
        objects.list_buckets(connection())


# Another implementation of S3 than that of these tests


@pytest.fixture
def amazon():
    with moto.mock_aws():
        boto3.client('s3', 'us-east-1', aws_access_key_id='A', aws_secret_access_key='b').create_bucket(Bucket=BUCKET)
        yield clients.connect(Endpoint('X', '1', 'https://s3.us-east-1.amazonaws.com', provider='aws', addressing='auto', checksum='crc32'), KEYS)


def test_all_of_it_agrees_with_moto(amazon):
    for key in HARD:
        amazon.client.put_object(Bucket=BUCKET, Key=key, Body=b'x')
        info = objects.stat(amazon, at(key))
        assert (info.size, info.md5, info.crc32) == (1, MD5_OF_X, 'jNwWgw==')
    assert objects.exists(amazon, at('missing')) is False
    assert sorted(each.key for each in objects.list_objects(amazon.client, Target('X', BUCKET))) == sorted(HARD)
    assert 'größe/' in objects.list_prefix(amazon.client, Target('X', BUCKET))
    objects.delete(amazon, at(HARD[0]))
    with pytest.raises(SourceNotFound):
        objects.delete(amazon, at(HARD[0]))
    assert set(objects.delete_many(amazon, map(at, HARD)).values()) == {None}
    assert list(objects.list_objects(amazon.client, Target('X', BUCKET))) == []


@moto.mock_aws
def test_a_bucket_is_made_where_its_region_has_to_be_named():
    connection = clients.connect(Endpoint('X', '1', 'https://s3.eu-west-1.amazonaws.com', region='eu-west-1'), KEYS)
    assert objects.make_bucket(connection, Target('X', BUCKET))
    assert connection.client.get_bucket_location(Bucket=BUCKET)['LocationConstraint'] == 'eu-west-1'
    assert not objects.make_bucket(connection, Target('X', BUCKET))


@pytest.mark.parametrize('code', ['IllegalLocationConstraintException', 'InvalidLocationConstraint'])
def test_a_storage_is_told_the_region_once_it_wants_it(connection, s3, code):
    s3.fail('CreateBucket', error(400, code))
    assert objects.make_bucket(connection(region='mars'), Target('X', 'new')) is True
    assert ['mars' in each.body.decode() for each in s3.requests] == [False, True]
    s3.fail('CreateBucket', error(400, 'InvalidBucketName'))
    with pytest.raises(RucioException, match='RSE X: make-bucket of'):
        objects.make_bucket(connection(region='mars'), Target('X', 'another'))
    assert 'another' not in s3.buckets


@pytest.mark.parametrize(('code', 'made'), [('BucketAlreadyOwnedByYou', False), ('BucketAlreadyExists', False)])
def test_a_bucket_of_our_own_is_not_made_again(connection, s3, code, made):
    s3.fail('CreateBucket', error(409, code))
    assert objects.make_bucket(connection(), Target('X', BUCKET)) is made
    assert ('ListBuckets' in s3.operations()) is (code == 'BucketAlreadyExists')


def test_a_bucket_of_somebody_else_is_named(connection, s3):
    s3.fail('CreateBucket', error(409, 'BucketAlreadyExists'))
    with pytest.raises(AccessDenied, match="the bucket 'theirs' belongs to somebody else"):
        objects.make_bucket(connection(), Target('X', 'theirs'))


def test_a_bucket_of_our_own_is_not_somebody_elses(connection, s3):
    """`rclone serve s3` says the same of both."""
    s3.fail('CreateBucket', error(409, 'BucketAlreadyExists'))
    assert objects.make_bucket(connection(), Target('X', BUCKET)) is False


@pytest.mark.parametrize('listed', ['user.alice', 'a', ''])
def test_buckets_that_no_request_can_name_are_left_out(connection, s3, caplog, listed):
    s3.buckets = {'user.alice': {}, 'b/c': {}, 'a b': {}} | ({listed: {}} if listed else {})
    assert [each['Name'] for each in objects.buckets(connection())] == sorted({'user.alice', listed} - {''})
    assert 'RSE X: the storage listed 2 buckets without a valid name' in caplog.text
    with pytest.raises(ServiceUnavailable, match='invalid bucket'):
        objects.list_buckets(connection())


def test_a_storage_whose_buckets_all_have_names_is_not_complained_of(connection, caplog):
    assert [each['Name'] for each in objects.buckets(connection())] == [BUCKET]
    assert not caplog.text


def test_a_listing_of_other_keys_is_refused(connection, s3):
    """What is done with these keys would concern others."""
    s3.store(BUCKET, 'b/1', b'')
    listing = s3.ListObjectsV2
    s3.ListObjectsV2 = lambda request: listing(request._replace(query={**request.query, 'prefix': ''}))
    with pytest.raises(ServiceUnavailable, match='keys that do not begin with the prefix'):
        list(objects.list_objects(connection().client, Target('X', BUCKET, 'a/')))
    with pytest.raises(ServiceUnavailable, match='keys that do not begin with the prefix'):
        list(objects.list_prefix(connection().client, Target('X', BUCKET, 'a/')))


def test_whose_a_bucket_is_cannot_be_told_without_a_listing(connection, s3):
    s3.fail('CreateBucket', error(409, 'BucketAlreadyExists'))
    s3.fail('ListBuckets', error(403, 'AccessDenied'))
    with pytest.raises(AccessDenied, match='belongs to somebody else'):
        objects.make_bucket(connection(), Target('X', BUCKET))


DENY = {'Statement': [{'Effect': 'Allow'}, {'Effect': 'Deny'}]}


@pytest.mark.parametrize(
    ('policy', 'closed'),
    [
        (DENY, True),
        ({'Statement': {'Effect': 'Deny'}}, True),
        ({'Statement': {'Effect': 'Allow'}}, False),
        ({'Statement': [{'Effect': 'Allow'}]}, False),
        ({'Statement': []}, False),
        ({'Statement': ['Deny']}, False),
        ({'Version': '2012-10-17'}, False),
        ([], False),
        (None, False),
    ],
)
def test_a_bucket_may_close_itself_by_its_policy(connection, s3, policy, closed):
    if policy is not None:
        s3.policies[BUCKET] = policy
    assert objects.closes_itself(connection().client, 'X', BUCKET, ['other']) is closed
    assert s3.operations() == ['GetBucketPolicy']


def test_a_policy_that_is_no_json_denies_nothing(connection, s3):
    s3.fail('GetBucketPolicy', Answer(200, b'no JSON'))
    assert objects.closes_itself(connection().client, 'X', BUCKET, []) is False


@pytest.mark.parametrize(('others', 'closed'), [([], False), (['readable'], True), (['closed', 'readable'], True), (['closed'], False)])
def test_a_policy_that_cannot_be_read_closes_a_bucket_if_others_can_be(connection, s3, others, closed):
    s3.make_bucket('readable')
    s3.make_bucket('closed')
    read = s3.GetBucketPolicy
    s3.GetBucketPolicy = lambda request: read(request) if request.bucket == 'readable' else error(403, 'AccessDenied')
    assert objects.closes_itself(connection().client, 'X', BUCKET, others) is closed


def test_a_storage_that_does_not_tell_a_policy_is_an_error(connection, s3):
    s3.fail('GetBucketPolicy', error(500, 'InternalError'))
    with pytest.raises((ServiceUnavailable, ResourceTemporaryUnavailable), match='RSE X: policy of'):
        objects.closes_itself(connection().client, 'X', BUCKET, [])


class Body:
    closed = False

    def close(self):
        self.closed = True


def test_another_version_than_was_asked_for_is_not_taken():
    """Where the storage does not heed If-Match."""
    answer = {'ETag': '"new"', 'Body': Body()}
    assert objects.need_version(answer, 'new') is objects.need_version(answer, '"new"') is objects.need_version(answer, '') is answer
    assert objects.need_version({'Body': Body()}, '"new"')
    with pytest.raises(ClientError, match='PreconditionFailed') as changed:
        objects.need_version(answer, '"old"')
    assert changed.value.response == {
        'Error': {'Code': 'PreconditionFailed', 'Message': 'found by its ETag'},
        'ResponseMetadata': {'HTTPStatusCode': 412},
    }
    assert changed.value.operation_name == 'GetObject'
    assert answer['Body'].closed
