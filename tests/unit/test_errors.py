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


"""What is made of an error of botocore or s3transfer: the exception that Rucio knows, and a message that helps."""

import traceback

import botocore.exceptions as boto
import pytest
import s3transfer.exceptions

from rucio.common import exception as rucio
from rucio.common.s3.errors import (
    StorageSilentError,
    Target,
    TransferTimeout,
    describe,
    ids_of,
    is_ambiguous,
    is_unanswered,
    is_unreachable,
    local_error,
    status_of,
    translate,
    translated,
)
from rucio.common.s3.parsing import UnreadableAnswerError

TARGET = Target('SITE_S3', 'user.alice', 'dir/file.root')
SIGNED = 'https://h:9000/user.alice/f?X-Amz-Credential=AKIDHIDDEN&X-Amz-Signature=f00d'


def refused(status=0, code='', message='', attempts=0):
    response = {'Error': {'Code': code, 'Message': message}, 'ResponseMetadata': {'HTTPStatusCode': status, 'RetryAttempts': attempts}}
    return boto.ClientError(response, 'PutObject')


@pytest.mark.parametrize(
    ('status', 'code', 'expected', 'remedy'),
    [
        (404, 'NoSuchKey', rucio.SourceNotFound, 'no such object'),
        (404, 'NoSuchBucket', rucio.DestinationNotAccessible, 'Make it first: rucio s3 make-bucket'),
        (404, 'NoSuchUpload', rucio.ServiceUnavailable, 'try again'),
        (403, 'AllAccessDisabled', rucio.RSEAccessDenied, 'owner of the bucket'),
        (403, 'AccountProblem', rucio.RSEAccessDenied, 'owner of the bucket'),
        (400, 'TokenRefreshRequired', rucio.RSEAccessDenied, 'expired'),
        (403, 'InvalidObjectState', rucio.ResourceTemporaryUnavailable, 'restore it first'),
        (403, 'ObjectNotInActiveTierError', rucio.ResourceTemporaryUnavailable, 'restore it first'),
        (409, 'RestoreAlreadyInProgress', rucio.ResourceTemporaryUnavailable, 'is being restored'),
        (400, 'IllegalLocationConstraintException', rucio.RSEAccessDenied, "'region'"),
        (400, 'XAmzContentSHA256Mismatch', rucio.FileConsistencyMismatch, 'nothing was stored'),
        (400, 'EntityTooSmall', rucio.RSEOperationNotSupported, "'multipart_chunksize'"),
        (400, 'InvalidURI', rucio.RSEFileNameNotSupported, 'another'),
        (507, 'InsufficientStorage', rucio.RSEOverQuota, 'full'),
        (400, 'TooManyRequests', rucio.ResourceTemporaryUnavailable, 'later'),
        (400, 'SlowDown', rucio.ResourceTemporaryUnavailable, 'later'),
        (401, '401', rucio.RSEAccessDenied, 'owner of the bucket'),
        (409, '409', rucio.ResourceTemporaryUnavailable, 'try again'),
        (411, '411', rucio.RSEOperationNotSupported, "'checksum' to md5"),
        (501, '501', rucio.RSEOperationNotSupported, "'provider'"),
        (403, 'NeverHeardOf', rucio.RSEAccessDenied, 'cannot list the bucket'),
        (403, 'InvalidAccessKeyId', rucio.RSEAccessDenied, 'rucio.cfg [s3:SITE_S3]'),
        (403, 'SignatureDoesNotMatch', rucio.RSEAccessDenied, 'rucio.cfg [s3:SITE_S3]'),
        (404, 'XAdminUserNotFound', rucio.RSEAccessDenied, 'rucio.cfg [s3:SITE_S3]'),
        (400, 'ExpiredToken', rucio.RSEAccessDenied, 'expired'),
        (400, 'InvalidToken', rucio.RSEAccessDenied, 'expired'),
        (403, 'AccessDenied', rucio.RSEAccessDenied, 'owner of the bucket'),
        (403, 'RequestTimeTooSkewed', rucio.RSEAccessDenied, 'clock'),
        (301, 'PermanentRedirect', rucio.RSEAccessDenied, "'region'"),
        (400, 'AuthorizationHeaderMalformed', rucio.RSEAccessDenied, "'region'"),
        (412, 'PreconditionFailed', rucio.FileReplicaAlreadyExists, 'was not changed'),
        (409, 'ConditionalRequestConflict', rucio.ResourceTemporaryUnavailable, 'try again'),
        (400, 'BadDigest', rucio.FileConsistencyMismatch, 'nothing was stored'),
        (400, 'InvalidDigest', rucio.FileConsistencyMismatch, 'nothing was stored'),
        (400, 'XAmzContentChecksumMismatch', rucio.FileConsistencyMismatch, 'nothing was stored'),
        (411, 'MissingContentLength', rucio.RSEOperationNotSupported, "'checksum' to md5"),
        (501, 'NotImplemented', rucio.RSEOperationNotSupported, "'provider'"),
        (400, 'EntityTooLarge', rucio.RSEOperationNotSupported, 'keys instead of signed URLs'),
        (400, 'KeyTooLongError', rucio.RSEFileNameNotSupported, 'shorter'),
        (400, 'InvalidBucketName', rucio.RSEFileNameNotSupported, 'bucket name'),
        (400, 'InvalidObjectName', rucio.RSEFileNameNotSupported, 'another'),
        (403, 'QuotaExceeded', rucio.RSEOverQuota, 'more space'),
        (507, 'XMinioStorageFull', rucio.RSEOverQuota, 'full'),
        (503, 'SlowDown', rucio.ResourceTemporaryUnavailable, 'later'),
        (503, 'ServiceUnavailable', rucio.ResourceTemporaryUnavailable, 'later'),
        (400, 'RequestTimeout', rucio.ResourceTemporaryUnavailable, 'later'),
        (500, 'InternalError', rucio.ServiceUnavailable, 'operator'),
        (400, 'NeverHeardOf', rucio.ServiceUnavailable, 'operator'),
        # A HEAD has no body: botocore takes the status for the code.
        (301, '301', rucio.RSEAccessDenied, "'region'"),
        (403, '403', rucio.RSEAccessDenied, 'not allowed'),
        (404, '404', rucio.SourceNotFound, 'no such object'),
        (412, '412', rucio.FileReplicaAlreadyExists, 'was not changed'),
        (429, '429', rucio.ResourceTemporaryUnavailable, 'later'),
        (503, '503', rucio.ResourceTemporaryUnavailable, 'later'),
        (507, '507', rucio.RSEOverQuota, 'full'),
        (500, '500', rucio.ServiceUnavailable, 'operator'),
    ],
)
def test_an_answer_of_the_storage_becomes_what_rucio_knows(status, code, expected, remedy):
    error = translate(refused(status, code, 'the words of the storage'), 'put', TARGET)
    assert type(error) is expected
    said = str(error)
    for word in ('RSE SITE_S3', 'put', "bucket 'user.alice'", "key 'dir/file.root'", str(status), code, 'the words of the storage', remedy):
        assert word in said
    assert '[s3:RSE]' not in said


@pytest.mark.parametrize(
    ('raised', 'expected', 'remedy'),
    [
        (TransferTimeout(7), rucio.ServiceUnavailable, 'transfer_timeout'),
        (boto.SSLError(endpoint_url='https://h', error='self-signed certificate'), rucio.ServiceUnavailable, "'ca_bundle'"),
        (boto.ProxyConnectionError(proxy_url='http://p', error='x'), rucio.ServiceUnavailable, 'https_proxy'),
        (boto.EndpointConnectionError(endpoint_url='https://h'), rucio.ServiceUnavailable, 'host name and port'),
        (boto.ConnectTimeoutError(endpoint_url='https://h'), rucio.ServiceUnavailable, 'later'),
        (boto.ReadTimeoutError(endpoint_url='https://h'), rucio.ServiceUnavailable, 'later'),
        (boto.ConnectionClosedError(endpoint_url='https://h'), rucio.ServiceUnavailable, 'later'),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), rucio.ServiceUnavailable, 'later'),
        (boto.FlexibleChecksumError(error_msg='x'), rucio.FileConsistencyMismatch, 'another replica'),
        (boto.NoCredentialsError(), rucio.RSEAccessDenied, 'keys in rucio.cfg'),
        (boto.PartialCredentialsError(provider='x', cred_var='y'), rucio.RSEAccessDenied, 'keys in rucio.cfg'),
        (boto.ProfileNotFound(profile='p'), rucio.RSEAccessDenied, 'AWS profile'),
        (boto.CredentialRetrievalError(provider='x', error_msg='y'), rucio.RSEAccessDenied, 'AWS profile'),
        (boto.SSOTokenLoadError(error_msg='x'), rucio.RSEAccessDenied, 'AWS profile'),
        (boto.TokenRetrievalError(provider='x', error_msg='y'), rucio.RSEAccessDenied, 'AWS profile'),
        (UnreadableAnswerError(reason='x'), rucio.ServiceUnavailable, 'later'),
        (boto.ParamValidationError(report='x'), rucio.RSEFileNameNotSupported, 'name that S3 allows'),
        (boto.BotoCoreError(), rucio.ServiceUnavailable, 'later'),
        (s3transfer.exceptions.CancelledError('x'), rucio.ServiceUnavailable, 'stopped'),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_on_this_side_becomes_what_rucio_knows(raised, expected, remedy):
    with pytest.raises(rucio.RucioException) as caught, translated('get', TARGET):
        raise raised
    assert type(caught.value) is expected
    for word in ('RSE SITE_S3', 'get', "bucket 'user.alice'", "key 'dir/file.root'", remedy):
        assert word in str(caught.value)


@pytest.mark.parametrize('operation', ['get', 'stat', 'ls'])
def test_a_missing_bucket_is_a_missing_source_for_who_reads(operation):
    assert type(translate(refused(404, 'NoSuchBucket'), operation, TARGET)) is rucio.SourceNotFound


@pytest.mark.parametrize(
    ('operation', 'expected', 'remedy'),
    [
        ('put', rucio.DestinationNotAccessible, 'rucio s3 make-bucket SCOPE --rse SITE_S3'),
        ('ls', rucio.SourceNotFound, 'rucio s3 make-bucket SCOPE --rse SITE_S3'),
        ('get', rucio.SourceNotFound, 'prefix or bucket_prefix is wrong'),
        ('stat', rucio.SourceNotFound, 'prefix or bucket_prefix is wrong'),
        ('delete', rucio.ServiceUnavailable, 'make an empty one, and Rucio removes its files'),
    ],
)
def test_a_missing_bucket_is_never_a_file_that_was_deleted(operation, expected, remedy):
    """The reaper takes a missing source for a file that is gone."""
    error = translate(refused(404, 'NoSuchBucket'), operation, TARGET)
    assert type(error) is expected
    assert remedy in str(error)


@pytest.mark.parametrize('operation', ['put', 'get', 'stat', 'ls', 'delete', 'copy'])
@pytest.mark.parametrize(
    ('status', 'code', 'expected', 'remedy'),
    [
        (404, 'NoSuchKey', rucio.SourceNotFound, 'There is no such object.'),
        (404, '404', rucio.SourceNotFound, 'There is no such object.'),
        (403, 'AccessDenied', rucio.RSEAccessDenied, 'owner of the bucket'),
        (503, 'SlowDown', rucio.ResourceTemporaryUnavailable, 'busy'),
        (500, 'InternalError', rucio.ServiceUnavailable, 'Try again later'),
    ],
)
def test_other_answers_mean_the_same_for_all(operation, status, code, expected, remedy):
    error = translate(refused(status, code), operation, TARGET)
    assert type(error) is expected
    assert remedy in str(error)


@pytest.mark.parametrize('code', ['PreconditionFailed', '412'])
def test_an_object_that_changes_while_it_is_read_does_not_exist_already(code):
    error = translate(refused(412, code), 'get', TARGET)
    assert type(error) is rucio.ServiceUnavailable
    assert 'object was changed' in str(error)


def test_a_bucket_is_named_without_a_key():
    assert "key ''" not in str(translate(refused(403, 'AccessDenied'), 'ls', Target('X', 'b')))


def test_rucios_own_exceptions_pass_as_they_are():
    original = rucio.SourceNotFound('x')
    with pytest.raises(rucio.SourceNotFound) as caught, translated('get', TARGET):
        raise original
    assert caught.value is original


@pytest.mark.parametrize('raised', [KeyboardInterrupt(), SystemExit(1), ZeroDivisionError()], ids=lambda value: type(value).__name__)
def test_what_is_no_error_of_the_storage_passes_as_it_is(raised):
    with pytest.raises(type(raised)), translated('get', TARGET):
        raise raised


def test_the_cause_is_kept_for_debugging():
    cause = refused(403, 'AccessDenied')
    with pytest.raises(rucio.RSEAccessDenied) as caught, translated('put', TARGET):
        raise cause
    assert caught.value.__cause__ is cause


# Signatures

LEAKS = [
    boto.EndpointConnectionError(endpoint_url=SIGNED),
    boto.ReadTimeoutError(endpoint_url=SIGNED),
    boto.SSLError(endpoint_url=SIGNED, error=f'cannot reach {SIGNED}'),
    refused(403, 'AccessDenied', f'Request {SIGNED} has expired'),
    refused(403, 'AccessDenied', f'Request <{SIGNED.lower()}> has expired'),
]


@pytest.mark.parametrize('raised', LEAKS, ids=lambda value: type(value).__name__)
def test_no_signature_is_shown_neither_in_the_message_nor_in_the_traceback(raised):
    with pytest.raises(rucio.RucioException) as caught, translated('put', TARGET):
        raise raised
    shown = str(caught.value) + repr(caught.value) + ''.join(traceback.format_exception(caught.value))
    assert 'f00d' not in shown.replace('found', '')
    assert 'hidden' not in shown.lower()


def test_a_cause_whose_own_cause_has_a_signature_is_not_shown():
    error = boto.ReadTimeoutError(endpoint_url='https://h')
    error.__cause__ = ValueError(SIGNED)
    with pytest.raises(rucio.ServiceUnavailable) as caught, translated('put', TARGET):
        raise error
    assert 'f00d' not in ''.join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        (refused(403, 'AccessDenied', 'no'), 'the storage answered 403 AccessDenied (no).'),
        (refused(403, 'AccessDenied', 'AccessDenied'), 'the storage answered 403 AccessDenied.'),
        (refused(404, '404', 'Not Found'), 'the storage answered 404 (Not Found).'),
        (refused(404, '404'), 'the storage answered 404.'),
        (refused(0, 'NoSuchKey'), 'the storage answered NoSuchKey.'),
        (refused(400, 'C' * 65, 'm' * 501), f'the storage answered 400 {"C" * 64}... ({"m" * 500}...).'),
        (refused(400, 'C' * 64, 'm' * 500), f'the storage answered 400 {"C" * 64} ({"m" * 500}).'),
        (refused(400, 'a\nb', 'two\n lines\x1b'), 'the storage answered 400 a\\nb (two lines\\x1b).'),
        (boto.ClientError({'ResponseMetadata': {'HTTPStatusCode': 500}}, 'X'), 'the storage answered 500.'),
        (
            refused(403, 'AccessDenied', 'Request https://h/f?X-Amz-Signature=1 has expired'),
            'the storage answered 403 AccessDenied (Request https://h/f has expired).',
        ),
        (ValueError('it ends.'), 'ValueError: it ends.'),
        (ValueError(), 'ValueError: no details.'),
    ],
)
def test_an_error_is_described_in_a_sentence(error, said):
    assert describe(error) == said


@pytest.mark.parametrize(
    ('error', 'unreachable', 'unanswered'),
    [
        (boto.EndpointConnectionError(endpoint_url='x'), True, False),
        (boto.ConnectTimeoutError(endpoint_url='x'), True, None),
        (boto.SSLError(endpoint_url='x', error='x'), True, None),
        (StorageSilentError(url='x'), True, False),
        (boto.ReadTimeoutError(endpoint_url='x'), False, True),
        (boto.ConnectionClosedError(endpoint_url='x'), False, True),
        (refused(503, 'SlowDown'), False, False),
        (None, False, False),
    ],
    ids=str,
)
def test_a_storage_is_away_or_says_nothing(error, unreachable, unanswered):
    assert is_unreachable(error) is unreachable
    assert unanswered in (None, is_unanswered(error))


# Ambiguous errors


@pytest.mark.parametrize(
    ('error', 'ambiguous'),
    [
        (refused(412, 'PreconditionFailed'), False),
        (refused(412, 'PreconditionFailed', attempts=1), True),
        (refused(403, 'AccessDenied'), False),
        (refused(404, 'NoSuchUpload', attempts=2), True),
        (refused(500, 'InternalError'), True),
        (refused(503, 'SlowDown'), True),
        (boto.ReadTimeoutError(endpoint_url='x'), True),
        (boto.ConnectionClosedError(endpoint_url='x'), True),
        (TransferTimeout(1), True),
        (UnreadableAnswerError(reason='x'), True),
        (refused(499, 'x'), False),
        (boto.ClientError({}, 'X'), False),
        (refused(499, 'x', attempts=1), True),
        (s3transfer.exceptions.CancelledError(''), True),
        (boto.NoCredentialsError(), False),
        (boto.ParamValidationError(report='x'), False),
        (ValueError(), False),
    ],
    ids=str,
)
def test_an_error_is_ambiguous_where_the_storage_may_have_done_it(error, ambiguous):
    assert is_ambiguous(error) is ambiguous


@pytest.mark.parametrize(('error', 'status'), [(refused(412), 412), (refused(), 0), (boto.ClientError({}, 'X'), 0), (ValueError(), 0)])
def test_the_status_is_found_where_there_is_one(error, status):
    assert status_of(error) == status


# Local files


@pytest.mark.parametrize(
    ('error', 'reading', 'expected'),
    [
        (FileNotFoundError(2, 'No such file'), True, rucio.SourceNotFound),
        (IsADirectoryError(21, 'Is a directory'), True, rucio.SourceNotFound),
        (NotADirectoryError(20, 'Not a directory'), True, rucio.SourceNotFound),
        (PermissionError(13, 'Permission denied'), True, rucio.SourceAccessDenied),
        (OSError(5, 'I/O error'), True, rucio.SourceAccessDenied),
        (PermissionError(13, 'Permission denied'), False, rucio.DestinationNotAccessible),
        (OSError(28, 'No space left on device'), False, rucio.DestinationNotAccessible),
        (OSError(36, 'File name too long'), False, rucio.DestinationNotAccessible),
    ],
)
def test_a_local_file_that_cannot_be_used_is_named_with_the_reason(error, reading, expected):
    made = local_error(error, '/data/file', reading)
    assert type(made) is expected
    assert "'/data/file'" in str(made)
    assert error.strerror in str(made)
    assert ('cannot be read' if reading else 'cannot be written') in str(made)


def test_the_name_of_a_local_file_adds_no_line():
    assert '\n' not in str(local_error(OSError(5, 'I/O error'), 'a\nb', True).args[0])


def test_the_ids_of_a_request_are_told():
    by_header = boto.ClientError({'ResponseMetadata': {'HTTPHeaders': {'x-amz-request-id': 'FROMHEADER'}}}, 'X')
    by_body = boto.ClientError({'ResponseMetadata': {'RequestId': 'FROMBODY', 'HTTPHeaders': {'x-amz-request-id': 'FROMHEADER'}}}, 'X')
    assert ', of the storage FROMHEADER]' in ids_of(by_header)
    assert ', of the storage FROMBODY]' in ids_of(by_body)
    assert 'FROMBODY]' in str(translate(by_body, 'get', TARGET))
    for without in (boto.ClientError({}, 'X'), ValueError(), boto.ClientError({'ResponseMetadata': {}}, 'X')):
        assert ids_of(without) == ''


def test_a_cause_adds_no_line_to_a_log():
    cause = boto.ReadTimeoutError(endpoint_url='https://h')
    cause.args = ('a\nb',)
    cause.__context__ = ValueError('c\nd')
    cause.__context__.__cause__ = ValueError('e\n', 'f\n')
    cause.__context__.__cause__.__cause__ = ValueError(5)
    with pytest.raises(rucio.ServiceUnavailable) as caught, translated('put', TARGET):
        raise cause
    assert caught.value.__cause__ is cause
    assert (cause.args, cause.__context__.args, cause.__context__.__cause__.args) == (('a\\nb',), ('c\\nd',), ('e\n', 'f\n'))


def test_a_signature_in_what_came_before_is_not_shown():
    cause = boto.ReadTimeoutError(endpoint_url='https://h')
    cause.__context__ = ValueError('https://h/?x-amz-signature=f00d')
    with pytest.raises(rucio.ServiceUnavailable) as caught, translated('put', TARGET):
        raise cause
    assert caught.value.__cause__ is None


def test_a_target_is_named_in_printable_characters():
    assert str(Target('X', 'b', 'a\nb')) == "bucket 'b', key 'a\\nb'"
    assert str(Target('X', 'b\n')) == "bucket 'b\\n'"
    assert str(TransferTimeout(7.0)) == 'not finished after 7 s'
    assert TransferTimeout(7.5).seconds == 7.5


def test_a_local_error_without_words_is_told_nevertheless():
    assert 'cannot be read: an odd one. Check its permissions.' in str(local_error(OSError('an odd one'), '/data/file', True))
    assert 'Check the path, the permissions and the free space.' in str(local_error(OSError(28, 'full'), '/data/file', False))
    assert str(local_error(FileNotFoundError(2, 'gone'), '/data/file', True)).endswith('gone. Check the path.')
