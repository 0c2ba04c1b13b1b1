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
"""What botocore does not promise, and this project relies on: each test fails when that changes."""

import re
from contextlib import nullcontext
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from io import BytesIO
from types import SimpleNamespace

import botocore.session
import pytest
from botocore import UNSIGNED, handlers
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config
from botocore.credentials import Credentials, DeferredRefreshableCredentials
from botocore.exceptions import ClientError, ReadTimeoutError, UnknownServiceError
from botocore.hooks import HierarchicalEmitter
from botocore.loaders import JSONFileLoader

from rucio.common.s3 import botocore_internals as internals
from servers.fake_s3 import Answer, Stalled, error

BUCKET = 'user.alice'
KEYS = Credentials('AKID', 'secret', 'token')


@pytest.fixture
def client(s3):
    """A client of botocore's own, with nothing of this project's but what a test adds."""
    session = internals.isolated_session(KEYS)
    config = Config(s3={'addressing_style': 'path'}, retries={'mode': 'standard', 'total_max_attempts': 2})
    return session.create_client('s3', 'mars', endpoint_url=s3.url, config=config)


# Sessions and keys


def test_a_session_without_variables_reads_none(monkeypatch):
    monkeypatch.setenv('AWS_PROFILE', 'of-the-user')
    monkeypatch.setenv('AWS_CONFIG_FILE', '/of/the/user')
    session = botocore.session.Session(session_vars=internals.no_variables())
    assert [session.get_config_variable(name) for name in ('profile', 'config_file', 'credentials_file')] == [None, '/dev/null', '/dev/null']


def test_the_table_of_variables_has_what_is_taken_out_of_it():
    for name, row in internals.BOTOCORE_DEFAUT_SESSION_VARIABLES.items():
        assert len(row) == 4, name
    assert {'config_file', 'credentials_file', 'profile', 'region', 'ca_bundle'} <= set(internals.BOTOCORE_DEFAUT_SESSION_VARIABLES)


def test_a_service_is_found_without_a_look_at_all_of_them(monkeypatch):
    session, looked, exists = internals.isolated_session(KEYS), [], JSONFileLoader.exists
    internals.know_all_services(session)
    monkeypatch.setattr(JSONFileLoader, 'exists', lambda self, path: looked.append(path) or exists(self, path))
    client = session.create_client('s3', 'mars', endpoint_url='http://127.0.0.1:1')
    assert client.meta.service_model.service_name == 's3'
    assert len(looked) < 50  # of some thousand
    with pytest.raises(UnknownServiceError):
        session.create_client('s4', 'mars')


@pytest.mark.parametrize(
    'region', ['us-east-1', 'mars', 'eu-central-1', None, 'cn-north-1', 'us-gov-west-1', 'eusc-de-east-1', 'us-iso-east-1', 'aws-global', 'eu']
)
@pytest.mark.parametrize('signature', ['s3v4', UNSIGNED], ids=['version 4', 'unsigned'])
def test_a_client_is_the_same_without_the_list_of_endpoints(region, signature):
    def client(few):
        session = internals.isolated_session(KEYS)
        with internals.few_endpoints(session, region) if few else nullcontext():
            made = session.create_client('s3', region, endpoint_url='https://s3.example.org:9000', config=Config(signature_version=signature))
        url = made.generate_presigned_url('get_object', {'Bucket': BUCKET, 'Key': 'k'})
        config = {name: value for name, value in vars(made.meta.config).items() if not name.startswith('_')}
        signer = [getattr(made._request_signer, f'_{name}') for name in ('region_name', 'signature_version', 'signing_name')]
        return made.meta.region_name, made.meta.partition, made.meta.endpoint_url, config, signer, re.sub('(Date|Signature|Expires)=[^&]*', '', url)

    assert client(few=True) == client(few=False)


def test_a_session_has_its_list_of_endpoints_again():
    session, used = internals.isolated_session(KEYS), internals.isolated_session(KEYS)
    assert used.get_available_regions('ec2')
    for each in (session, used):
        with internals.few_endpoints(each, 'mars'):
            assert each.get_available_regions('ec2') == []
        assert 'eu-central-1' in each.get_available_regions('ec2')


def test_an_isolated_session_reads_nothing_of_the_user(home, monkeypatch):
    home.joinpath('.aws').mkdir()
    home.joinpath('.aws', 'credentials').write_text('[default]\naws_access_key_id = FILE\naws_secret_access_key = f\n')
    home.joinpath('.aws', 'config').write_text('[default]\nregion = file\nca_bundle = /file.pem\nendpoint_url = https://file\n')
    for name, value in {'ACCESS_KEY_ID': 'ENV', 'SECRET_ACCESS_KEY': 'e', 'DEFAULT_REGION': 'env', 'PROFILE': 'none', 'ENDPOINT_URL': 'https://env'}.items():
        monkeypatch.setenv(f'AWS_{name}', value)
    assert botocore.session.Session(profile='default').get_config_variable('region') == 'env'  # who reads them sees them
    session = internals.isolated_session(None)
    assert (session.get_credentials(), session.get_config_variable('region'), session.get_config_variable('ca_bundle')) == (None, None, None)
    assert internals.isolated_session(KEYS).get_credentials() is KEYS
    assert 'amazonaws.com' in internals.isolated_session(KEYS).create_client('s3', 'us-east-1').meta.endpoint_url


def test_keys_are_renewed_as_early_as_is_asked_for():
    made = []

    def fetch():
        made.append(timedelta(seconds=250))
        return {'access_key': f'KEY{len(made)}', 'secret_key': 's', 'token': 't', 'expiry_time': (datetime.now(timezone.utc) + made[-1]).isoformat()}

    long, short = internals.renewed_keys(fetch, 200, 100), internals.renewed_keys(fetch, 300, 100)
    assert made == []  # not before they are needed
    assert [long.get_frozen_credentials().access_key for _ in range(2)] == ['KEY1', 'KEY1']
    assert [short.get_frozen_credentials().access_key for _ in range(2)] == ['KEY2', 'KEY3']
    assert {'_advisory_refresh_timeout', '_mandatory_refresh_timeout'} <= set(dir(DeferredRefreshableCredentials))


# Answers


def test_dates_are_read_with_the_given_function_or_else_by_botocore(s3):
    session = internals.isolated_session(KEYS)
    seen = []
    internals.read_dates(session, seen.append)
    client = session.create_client('s3', 'mars', endpoint_url=s3.url, config=Config(s3={'addressing_style': 'path'}))
    s3.store(BUCKET, 'k', b'')
    (entry,) = client.list_objects_v2(Bucket=BUCKET)['Contents']
    assert len(seen) == 1
    assert isinstance(entry['LastModified'], datetime)
    s3.fail('ListObjectsV2', Answer(200, s3.ListObjectsV2(s3.requests[-1]).body.replace(b'<LastModified>20', b'<LastModified>no date')))
    (entry,) = client.list_objects_v2(Bucket=BUCKET)['Contents']
    assert (entry['LastModified'], entry['Key']) == (None, 'k')


def test_answers_are_read_by_the_given_function(s3):
    session = internals.isolated_session(KEYS)
    seen = []

    def parse(read, response, name):
        assert name == 'ListObjectsV2Output'
        seen.append((response['status_code'], sorted(response)))
        return read()

    internals.check_answers(session, parse)
    client = session.create_client('s3', 'mars', endpoint_url=s3.url, config=Config(s3={'addressing_style': 'path'}))
    s3.store(BUCKET, 'k', b'abc')
    answer = client.list_objects_v2(Bucket=BUCKET)
    assert (answer['IsTruncated'], answer['Contents'][0]['Size']) == (False, 3)
    ((status, names),) = seen
    assert status == 200
    assert {'body', 'headers', 'status_code'} <= set(names)
    s3.fail('ListObjectsV2', Answer(200, s3.ListObjectsV2(s3.requests[-1]).body.replace(b'<Size>3', b'<Size>many')))
    (entry,) = client.list_objects_v2(Bucket=BUCKET)['Contents']
    assert (entry['Size'], entry['Key']) == (None, 'k')


def test_an_answer_without_a_content_has_no_name(s3):
    session, seen = internals.isolated_session(KEYS), []
    internals.check_answers(session, lambda read, _, name: seen.append(name) or read())
    client = session.create_client('s3', 'mars', endpoint_url=s3.url, config=Config(s3={'addressing_style': 'path'}))
    client.put_bucket_policy(Bucket=BUCKET, Policy='{}')
    assert seen == ['']


def test_a_client_sends_by_what_was_put_around_it(client, s3):
    sent = []

    def through(send, request):
        sent.append((request.method, request.stream_output))
        with internals.unread(request):
            answer = send(request)
        assert answer._content is None  # nothing was read
        assert request.stream_output == sent[-1][1]  # and the request is as it was
        if not request.stream_output:
            internals.set_content(answer, answer.raw.read())
        return answer

    internals.wrap_send(client, through)
    s3.store(BUCKET, 'k', b'x')
    assert len(client.list_objects_v2(Bucket=BUCKET)['Contents']) == 1
    assert client.get_object(Bucket=BUCKET, Key='k')['Body'].read() == b'x'
    assert sent == [('GET', False), ('GET', True)]
    client.close()  # reaches the session inside


def test_reads_have_a_limit_together_and_connections_keep_their_own(client, s3):
    left = [None]
    internals.limit_reads(client, lambda: left[0])
    s3.store(BUCKET, 'k', b'x')
    for left[0] in (None, 30, 30):
        assert client.get_object(Bucket=BUCKET, Key='k')['Body'].read() == b'x'
    assert client.get_object(Bucket=BUCKET, Key='k')['Body']._raw_stream.fileno() > 2
    left[0] = 0
    with pytest.raises(ReadTimeoutError):
        client.head_object(Bucket=BUCKET, Key='k')
    left[0] = 0.05
    s3.fail('HeadObject', *[Stalled()] * 9)
    with pytest.raises(ReadTimeoutError):
        client.head_object(Bucket=BUCKET, Key='k')


def test_a_read_ends_when_somebody_stops_it(client, s3):
    asked = []

    def is_stopped():
        asked.append(len(asked))
        return len(asked) > 2

    internals.limit_reads(client, lambda: None, is_stopped)
    s3.fail('HeadObject', *[Stalled()] * 2)
    with pytest.raises(ReadTimeoutError):
        client.head_object(Bucket=BUCKET, Key='k')
    assert len(asked) > 2


class Body(BytesIO):
    """Notes how much is read at once."""

    def __init__(self, content):
        super().__init__(content)
        self.asked = set()

    def read(self, amount=-1):
        self.asked.add(amount)
        return super().read(amount)


@pytest.mark.parametrize('size', [None, 100_000])
def test_a_body_goes_in_larger_blocks_than_those_of_http_client(client, s3, size):
    s3.store(BUCKET, 'k', b'')
    if size:
        internals.send_blocks_of(client, size)
    body = Body(bytes(250_000))
    client.put_object(Bucket=BUCKET, Key='k', Body=body)
    assert s3.content(BUCKET, 'k') == bytes(250_000)
    assert (100_000 in body.asked) is bool(size)
    assert not size or not {8192, 16384} & body.asked


class Socket:
    """Notes its time-outs."""

    def __init__(self, usual):
        self.usual, self.set = usual, []

    def makefile(self, mode, buffering):
        assert (mode, buffering) == ('rb', 0)
        return BytesIO(b'content')

    def gettimeout(self):
        return self.usual

    def settimeout(self, seconds):
        self.set.append(seconds)


@pytest.mark.parametrize(
    ('usual', 'left', 'timeouts'),
    [(5, None, []), (5, 6, []), (5, 5, []), (5, 4, [4, 5]), (5, 0.5, [0.5, 5]), (None, 9, [9, None]), (None, None, [])],
)
def test_a_read_waits_for_the_shorter_of_both_limits(usual, left, timeouts):
    sock, buffer = Socket(usual), bytearray(4)
    file = internals._TimedFile(sock, lambda: left)
    assert (file.readable(), file.readinto(buffer), bytes(buffer)) == (True, 4, b'cont')
    assert sock.set == timeouts  # the last one is that of the next request of the connection
    file.close()
    assert file._file.closed


@pytest.mark.parametrize('left', [0, -1])
def test_nothing_is_read_when_the_time_is_over(left):
    sock = Socket(5)
    with pytest.raises(TimeoutError):
        internals._TimedFile(sock, lambda: left).readinto(bytearray(4))
    assert sock.set == []


# The steps of a call


def test_parameters_may_be_changed_and_the_context_stays(client, s3):
    seen = []

    def handler(operation, parameters, context):
        context['rucio_s3_test'] = operation
        parameters['Key'] += '2'

    internals.before_parameters(client, '', handler)
    internals.before_call(client, 'PutObject', lambda request, context: seen.append((request['method'], context['rucio_s3_test'])))
    internals.after_call(client, 'PutObject', lambda status, _, context: seen.append((status, context['rucio_s3_test'])))
    client.put_object(Bucket=BUCKET, Key='k', Body=b'x')
    assert seen == [('PUT', 'PutObject'), (200, 'PutObject')]
    assert list(s3.buckets[BUCKET]) == ['k2']


def test_of_one_operation_the_handler_is_called_for_that_alone(client):
    seen = []
    internals.before_parameters(client, 'HeadBucket', lambda operation, *_: seen.append(operation))
    client.list_objects_v2(Bucket=BUCKET)
    client.head_bucket(Bucket=BUCKET)
    assert seen == ['HeadBucket']


def test_a_call_may_be_answered_without_a_request(client, s3):
    parsed = {'Deleted': [{'Key': 'k'}]}
    internals.before_call(client, 'DeleteObjects', lambda request, _: internals.instead_of_a_call(dict(parsed)) if b'<Key>k</Key>' in request['body'] else None)
    answer = client.delete_objects(Bucket=BUCKET, Delete={'Objects': [{'Key': 'k'}]})
    assert (answer['Deleted'], answer['ResponseMetadata']['HTTPStatusCode'], s3.requests) == (parsed['Deleted'], 200, [])
    client.delete_objects(Bucket=BUCKET, Delete={'Objects': [{'Key': 'other'}]})
    assert s3.operations() == ['DeleteObjects']


def test_an_answer_without_a_request_looks_like_the_first_of_a_storage():
    response, parsed = internals.instead_of_a_call({'Deleted': []})
    assert (response.status_code, response.url, dict(response.headers), response.raw) == (200, '', {}, None)
    assert parsed == {'Deleted': [], 'ResponseMetadata': {'HTTPStatusCode': 200, 'HTTPHeaders': {}, 'RetryAttempts': 0}}


@pytest.mark.parametrize(
    ('before', 'after'),
    [
        ({}, {}),
        ({'checksum': {}}, {'checksum': {}}),
        ({'checksum': {'request_algorithm': 'conditional-md5'}}, {'checksum': {'request_algorithm': 'conditional-md5'}}),
        ({'checksum': {'request_algorithm': {'in': 'query', 'a': 1}}}, {'checksum': {'request_algorithm': {'in': 'query', 'a': 1}}}),
        ({'checksum': {'request_algorithm': {'in': 'trailer', 'a': 1}, 'b': 2}}, {'checksum': {'request_algorithm': {'in': 'header', 'a': 1}, 'b': 2}}),
    ],
)
def test_only_a_checksum_in_a_trailer_is_moved(before, after):
    internals.checksum_in_header({}, before)
    assert before == after


def test_a_model_has_two_ways_to_need_a_checksum():
    models = {
        'Old': SimpleNamespace(name='Old', http_checksum_required=True, http_checksum={}),
        'New': SimpleNamespace(name='New', http_checksum_required=False, http_checksum={'requestChecksumRequired': True}),
        'None': SimpleNamespace(name='None', http_checksum_required=False, http_checksum={'requestAlgorithmMember': 'X'}),
    }
    service = SimpleNamespace(operation_names=list(models), operation_model=models.__getitem__)
    assert internals.operations_with_checksum(SimpleNamespace(meta=SimpleNamespace(service_model=service))) == ['Old', 'New']


def test_a_header_may_be_added_before_the_call(client, s3):
    internals.before_call(client, 'PutObject', lambda request, _: request['headers'].update({'Content-MD5': 'wrong'}))
    with pytest.raises(ClientError, match='BadDigest'):
        client.put_object(Bucket=BUCKET, Key='k', Body=b'x')


def test_botocore_expects_100_and_can_be_kept_from_it(client, s3, tmp_path):
    tmp_path.joinpath('f').write_bytes(b'x')
    for key, expected in (('before', True), ('after', False)):
        with tmp_path.joinpath('f').open('rb') as body:
            client.put_object(Bucket=BUCKET, Key=key, Body=body)
        assert ('expect' in s3.requests[-1].headers) == expected
        internals.without_expect(client)
    assert ('before-call.s3', handlers.add_expect_header) in [each[:2] for each in handlers.BUILTIN_HANDLERS]


def test_before_signing_headers_can_still_be_changed_and_afterwards_nobody_is_called(client, s3):
    def handler(request):
        request.headers['x-amz-meta-test'] = 'yes'

    with internals.before_signing(client, 'ListObjectsV2', handler):
        client.list_objects_v2(Bucket=BUCKET)
    client.list_objects_v2(Bucket=BUCKET)
    first, second = (request.headers['authorization'] for request in s3.requests)
    assert 'x-amz-meta-test' in first
    assert 'x-amz-meta-test' not in second


def test_a_refusal_can_be_tried_again(client, s3):
    seen = []

    def handler(operation, attempts, answer, request):
        seen.append((operation, attempts, answer and answer.get('Error', {}).get('Code'), 'client_config' in request['context']))
        request['headers']['X-Attempt'] = f'after {attempts}'
        return 0 if attempts == 1 else None

    internals.before_retry(client, handler)
    s3.fail('HeadBucket', error(403, 'ExpiredToken'))
    client.head_bucket(Bucket=BUCKET)
    assert len(s3.requests) == 2
    assert [(operation, attempts, known) for operation, attempts, _, known in seen] == [('HeadBucket', 1, True), ('HeadBucket', 2, True)]
    assert [request.headers.get('x-attempt') for request in s3.requests] == [None, 'after 1']


def test_the_operations_that_need_a_checksum_can_do_without_that_of_botocore(client, s3):
    found = internals.operations_with_checksum(client)
    assert {'DeleteObjects', 'PutBucketPolicy', 'PutBucketLifecycleConfiguration', 'PutPublicAccessBlock'} <= set(found)
    assert not {'PutObject', 'UploadPart', 'GetObject'} & set(found)
    internals.before_call(client, 'DeleteObjects', internals.without_checksum)
    client.delete_objects(Bucket=BUCKET, Delete={'Objects': [{'Key': 'k'}]})
    assert not [name for name in s3.requests[-1].headers if 'checksum' in name]


@pytest.mark.parametrize('in_header', [True, False])
def test_a_body_over_https_has_a_length_only_if_its_checksum_is_in_a_header(in_header):
    client = internals.isolated_session(KEYS).create_client('s3', 'mars', endpoint_url='https://127.0.0.1:9')
    if in_header:
        internals.before_call(client, 'PutObject', internals.checksum_in_header)
    lengths, sent = [], []
    internals.authorise_requests(client, lambda request, _: lengths.append(internals.content_length(request)), lambda _: None, signed=True)

    def send(request, **_):
        sent.append(request)
        answer = AWSResponse(request.url, 200, {}, None)
        internals.set_content(answer, b'')
        return answer

    client.meta.events.register('before-send.s3.PutObject', send)
    client.put_object(Bucket=BUCKET, Key='k', Body=BytesIO(b'content'))
    assert lengths == [7 if in_header else None]
    assert sent[0].headers.get('Content-Length') == ('7' if in_header else None)
    assert ('x-amz-checksum-crc32' in sent[0].headers) is in_header


def test_each_attempt_is_authorised_by_the_given_function_and_a_url_by_the_given_keys(client, s3, monkeypatch):
    asked = []

    def authorise(request, region):
        asked.append((request.method, request.url, region))
        request.headers['Authorization'] = f'number {len(asked)}'

    internals.authorise_requests(client, authorise, lambda request: Credentials(request.method, 's'), signed=True)
    s3.fail('ListObjectsV2', error(503, 'SlowDown'))
    client.list_objects_v2(Bucket=BUCKET)
    assert asked == [('GET', f'{s3.url}/{BUCKET}?list-type=2&encoding-type=url', 'mars')] * 2
    assert [request.headers['authorization'] for request in s3.requests] == ['number 1', 'number 2']
    url = client.generate_presigned_url('put_object', Params={'Bucket': BUCKET, 'Key': 'k'})
    assert ('X-Amz-Credential=PUT%2F' in url, len(asked)) == (True, 2)


def test_a_client_that_does_not_sign_is_authorised_if_that_is_asked_for(s3):
    for signed in (False, True):
        config = Config(signature_version=UNSIGNED, s3={'addressing_style': 'path'})
        client = internals.isolated_session(None).create_client('s3', 'mars', endpoint_url=s3.url, config=config)
        internals.authorise_requests(client, lambda request, _: request.headers.add_header('Authorization', 'ours'), lambda _: None, signed=signed)
        client.head_bucket(Bucket=BUCKET)
        assert ('authorization' in s3.requests[-1].headers) is not signed


@pytest.fixture
def events():
    """Those of a client on which nothing else is registered."""
    return HierarchicalEmitter()


@pytest.mark.parametrize(
    ('signed', 'version', 'signing', 'region'),
    [
        (True, 's3v4', {}, 'mars'),
        (True, 'v4', {}, 'mars'),
        (True, 's3v4', {'region': 'venus'}, 'venus'),  # of a redirect
        (True, 's3', {}, None),
        (True, 's3v4-query', {}, None),
        (False, UNSIGNED, {}, 'mars'),
        (False, 's3v4-query', {}, 'mars'),
    ],
)
@pytest.mark.parametrize('keys', [KEYS, None])
def test_what_is_authorised_and_what_botocore_signs(events, signed, version, signing, region, keys):
    authorised, for_urls = [], []
    client, request = SimpleNamespace(meta=SimpleNamespace(events=events)), SimpleNamespace(context={'signing': dict(signing)} if signing else {})
    internals.authorise_requests(client, lambda _, where: authorised.append(where), lambda asked: for_urls.append(asked) or keys, signed=signed)
    ((_, chosen),) = events.emit('choose-signer.s3.GetObject', signature_version=version, context=request.context, region_name='mars', signing_name='s3')
    events.emit('before-sign.s3.GetObject', request=request, region_name='mars', signature_version=version, signing_name='s3', operation_name='GetObject')
    assert authorised == ([region] if region else [])
    assert chosen is (UNSIGNED if region else None)
    assert for_urls == ([request] if signed and version == 's3v4-query' else [])
    assert request.context['signing'] == signing | ({'request_credentials': KEYS} if for_urls and keys else {})


@pytest.mark.parametrize(
    ('context', 'answer', 'asked'),
    [
        ({}, {}, None),
        ({'s3_redirect': {}}, {}, None),
        ({'s3_redirect': {'bucket': 'b'}}, None, None),
        ({'s3_redirect': {'bucket': 'b'}}, {}, ('GetObject', 'b', False)),
        ({'s3_redirect': {'bucket': None, 'a': 1}}, {'ResponseMetadata': {}}, ('GetObject', '', False)),
        ({'s3_redirect': {'a': 1}}, {'ResponseMetadata': {'HTTPHeaders': {'x-amz-bucket-region': 'venus'}}}, ('GetObject', '', True)),
    ],
)
@pytest.mark.parametrize('enough', [True, False])
def test_a_redirect_is_judged_by_what_is_known_of_it(events, context, answer, asked, enough):
    seen, context = [], deepcopy(context)
    internals.stop_redirects(SimpleNamespace(meta=SimpleNamespace(events=events)), lambda *known: seen.append(known) or enough)
    response = None if answer is None else (None, answer)
    events.emit(
        'needs-retry.s3.GetObject', request_dict={'context': context} if context else {}, response=response, operation=SimpleNamespace(name='GetObject')
    )
    assert seen == ([asked] if asked else [])
    assert context.get('s3_redirect', {}).get('redirected', False) is (enough and bool(asked))


@pytest.mark.parametrize('enough', [True, False])
def test_redirects_are_followed_unless_there_are_enough(client, s3, enough):
    asked = []

    def is_enough(operation, bucket, told):
        asked.append((operation, bucket, told))
        return enough

    internals.stop_redirects(client, is_enough)
    s3.fail('GetObject', Answer(301, error(301, 'PermanentRedirect').body, (('x-amz-bucket-region', 'venus'),)))
    s3.store(BUCKET, 'k', b'x')
    if enough:
        with pytest.raises(ClientError, match='PermanentRedirect'):
            client.get_object(Bucket=BUCKET, Key='k')
    else:
        client.get_object(Bucket=BUCKET, Key='k')
        assert '/venus/s3/' in s3.requests[-1].headers['authorization']
    assert asked[0] == ('GetObject', BUCKET, True)


def test_an_answer_may_be_changed_before_it_is_parsed(client, s3):
    def handler(response):
        assert {'status_code', 'body', 'headers'} <= set(response)
        response['body'] = response['body'].replace(b'>false</IsTruncated>', b'>true</IsTruncated>')

    internals.before_parsing(client, 's3', handler)
    assert client.list_objects_v2(Bucket=BUCKET)['IsTruncated'] is True


def test_the_answer_of_a_call_may_be_changed_before_it_is_raised(client, s3):
    def handler(status, parsed, _):
        parsed['Error']['Code'] = f'seen {status}'

    internals.after_call(client, 'HeadObject', handler)
    with pytest.raises(ClientError, match='seen 404'):
        client.head_object(Bucket=BUCKET, Key='missing')


# Signatures


@pytest.mark.parametrize(
    ('url', 'context', 'expected'),
    [
        ('http://s3/b/k', {'has_streaming_input': True}, '2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881'),
        ('https://s3/b/k', {}, '2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881'),
        ('https://s3/b/k', {'has_streaming_input': True}, 'UNSIGNED-PAYLOAD'),
        ('https://s3/b/k', {'checksum': {'request_algorithm': {'in': 'trailer'}}}, 'STREAMING-UNSIGNED-PAYLOAD-TRAILER'),
    ],
)
def test_of_a_body_less_is_signed_over_https(url, context, expected):
    request = AWSRequest('PUT', url, headers={'Content-MD5': 'x'}, data=b'x')
    request.context.update(context)
    assert internals.payload_hash(request) == expected


@pytest.mark.parametrize(
    ('headers', 'data', 'length'),
    [
        ({}, b'', 0),
        ({}, b'abc', 3),
        ({'Content-Length': '7'}, b'abc', 7),
        ({'Content-Length': '0'}, b'abc', 0),
        ({'Transfer-Encoding': 'chunked', 'Content-Length': '7'}, b'abc', None),
        ({}, iter([b'abc']), None),
    ],
)
def test_the_length_of_a_body_is_known_before_it_is_signed(headers, data, length):
    assert internals.content_length(AWSRequest('PUT', 'https://s3/b/k', headers=headers, data=data)) == length


# Without a client


def test_there_is_a_file_of_authorities():
    with open(internals.authorities(), 'rb') as file:
        assert b'-----BEGIN CERTIFICATE-----' in file.read(100_000)


def test_an_unsigned_request_is_sent(s3):
    s3.store(BUCKET, 'k', b'x')
    answer = internals.send_unsigned(f'{s3.url}/{BUCKET}/k', internals.authorities(), None, 5)
    assert (answer.status_code, answer.content) == (200, b'x')
    assert 'authorization' not in s3.requests[-1].headers


def test_a_complete_request_passes_what_is_put_around_a_client(client, s3):
    s3.make_bucket('b')
    seen = []
    client.meta.events.register('before-send.s3.PutObject', lambda request, **_: seen.append(request.url))
    internals.wrap_send(client, lambda send, request: seen.append(request.method) or send(request))
    answer = internals.send(client, 'PutObject', 'PUT', f'{s3.url}/b/k', {'Content-Length': '1'}, b'x')
    assert (answer.status_code, s3.content('b', 'k')) == (200, b'x')
    assert seen == [f'{s3.url}/b/k', 'PUT']
    read = internals.send(client, 'GetObject', 'GET', f'{s3.url}/b/k', {}, None)
    assert read.raw.read() == b'x'


def test_an_answer_is_parsed_as_by_the_client(client, s3):
    answer = internals.send(client, 'GetObject', 'GET', f'{s3.url}/nothing/k', {}, b'')
    found = internals.parsed(client, 'GetObject', answer)
    assert (found['Error']['Code'], found['ResponseMetadata']['HTTPStatusCode']) == ('NoSuchBucket', 404)


def test_the_url_of_a_bucket_is_what_a_client_would_take(client, s3):
    assert internals.bucket_url(client, 'user.alice') == f'{s3.url}/user.alice'


@pytest.mark.parametrize(('retries', 'expected'), [({'total_max_attempts': 3}, 3), ({}, 1)])
def test_the_number_of_attempts_is_known(retries, expected):
    made = internals.isolated_session(KEYS).create_client('s3', 'mars', config=Config(retries=retries))
    assert internals.max_attempts(made) == expected
