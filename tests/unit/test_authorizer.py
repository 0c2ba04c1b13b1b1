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
"""Requests that are authorised without boto3, and that boto3's go the same way.

Of vended keys and of the server's signatures: test_vended.py and test_remote.py.
"""

import builtins
import hashlib
from types import SimpleNamespace

import boto3
import botocore.session
import pytest
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import ClientError, NoCredentialsError
from botocore.hooks import HierarchicalEmitter
from botocore.signers import RequestSigner

from rucio.common.exception import InputValidationError, RSEAccessDenied, RSEOperationNotSupported
from rucio.common.s3 import clients, credentials
from rucio.common.s3.authorizer import Request, WithKeys, headers_to_sign, payload_of
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from rucio.common.s3.settings import Secrets
from servers.fake_s3 import Answer, error

URL = 'https://s3.example.org:9000/user.alice/run1/a%20b'
KEYS = credentials.Static('AKID', 'hidden-key', 'hidden-token')


def signed_names(request):
    return request.headers['Authorization'].partition('SignedHeaders=')[2].partition(',')[0].split(';')


@pytest.fixture
def bare(monkeypatch):
    """Nobody makes a client or a session, opens a file or reads a variable."""

    def refuse(*_, **__):
        pytest.fail('it is not bare')

    monkeypatch.setattr(botocore.session.Session, '__init__', refuse)
    monkeypatch.setattr(boto3.session.Session, '__init__', refuse)
    monkeypatch.setattr(builtins, 'open', refuse)
    monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'ENV')
    monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', 'e')


def test_a_request_is_signed_with_its_own_keys(bare):
    sent = KEYS.authorise(Request('GET', URL, {'Range': 'bytes=0-9', 'Accept': '*/*'}, 'mars'))
    assert sent.url == URL
    assert '/mars/s3/aws4_request' in sent.headers['Authorization']
    assert 'Credential=AKID/' in sent.headers['Authorization']
    assert signed_names(sent) == ['host', 'range', 'x-amz-content-sha256', 'x-amz-date', 'x-amz-security-token']
    assert (sent.headers['X-Amz-Security-Token'], sent.headers['Accept']) == ('hidden-token', '*/*')


def test_of_the_headers_of_who_forwards_a_request_only_those_of_s3_are_signed():
    """The others may be changed on the way, and a signature of somebody else is replaced."""
    given = {
        'host': 'localhost:8000',
        'authorization': 'AWS4-HMAC-SHA256 Credential=LOCAL/1',
        'x-amz-date': '20000101T000000Z',
        'x-amz-security-token': 'local',
        'x-amz-content-sha256': hashlib.sha256(b'x').hexdigest(),
        'x-amz-meta-a': 'b',
        'Content-Type': 'text/plain',
        'Accept-Encoding': 'identity',
        'Content-Length': '1',
    }
    sent = KEYS.authorise(Request('PUT', URL, given, 'mars'))
    assert signed_names(sent) == ['content-type', 'host', 'x-amz-content-sha256', 'x-amz-date', 'x-amz-meta-a', 'x-amz-security-token']
    assert len({name.lower() for name in sent.headers}) == len(sent.headers)
    assert 'LOCAL' not in str(sent.headers)
    assert {name.lower() for name in sent.headers} == {name.lower() for name in given} - {'host'}
    assert sent.headers['X-Amz-Content-SHA256'] == given['x-amz-content-sha256']


@pytest.mark.parametrize(
    ('request_', 'expected'),
    [
        (Request('GET', URL), hashlib.sha256(b'').hexdigest()),
        (Request('PUT', URL), 'UNSIGNED-PAYLOAD'),
        (Request('POST', URL, body=b'x'), hashlib.sha256(b'x').hexdigest()),
        (Request('PUT', URL, {'x-amz-content-SHA256': 'abc'}, body=b'x'), 'abc'),
        (Request('PUT', URL, {'X-Amz-Content-SHA256': 'abc'}, payload='def'), 'def'),
        (Request('PUT', URL, {'X-Amz-Content-SHA256': 'STREAMING-UNSIGNED-PAYLOAD-TRAILER'}), 'STREAMING-UNSIGNED-PAYLOAD-TRAILER'),
    ],
)
def test_what_a_signature_says_of_the_body(request_, expected):
    assert payload_of(request_) == expected


@pytest.mark.parametrize('way', [KEYS, credentials.Anonymous()], ids=lambda way: way.name)
def test_parts_of_a_body_that_somebody_else_signs_are_refused(way):
    """Their signatures hang on that of the request, which is replaced: the storage would refuse it less clearly."""
    with pytest.raises(InputValidationError, match='aws-chunked'):
        way.authorise(Request('PUT', URL, {'x-amz-content-sha256': 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD'}, 'mars'))


def test_without_authorisation_no_signature_goes_on(bare):
    sent = credentials.Anonymous().authorise(Request('GET', URL, {'Authorization': 'x', 'x-amz-security-token': 'y', 'Range': 'bytes=0-1'}))
    assert sent.headers == {'Range': 'bytes=0-1'}
    trailer = {'x-amz-content-sha256': 'STREAMING-UNSIGNED-PAYLOAD-TRAILER'}
    assert credentials.Anonymous().authorise(Request('PUT', URL, trailer)).headers == {'X-Amz-Content-SHA256': trailer['x-amz-content-sha256']}


def test_a_signed_url_is_sent_instead(bare):
    way = credentials.Presigned()
    way.offer('read', Target('X', 'user.alice', 'run1/a b'), f'{URL}?X-Amz-Signature=1')
    assert way.authorise(Request('GET', URL, {'Range': 'bytes=0-1'})) == Request('GET', f'{URL}?X-Amz-Signature=1', {'Range': 'bytes=0-1'})
    for method, url in (('HEAD', URL), ('PUT', URL), ('GET', f'{URL}?acl'), ('GET', URL.rpartition('/')[0])):
        with pytest.raises(RSEOperationNotSupported, match='no signed URL'):
            way.authorise(Request(method, url))


def test_rotated_keys_sign_the_next_request(home, rucio_cfg):
    class Rotated(WithKeys):
        name = identity = 'rotated'

        def __init__(self):
            self.count = 0

        def credentials(self):
            self.count += 1
            return credentials.Static(f'KEY{self.count}', 's').credentials()

    way = Rotated()
    assert ['KEY1' in way.authorise(Request('GET', URL)).headers['Authorization'], 'KEY2' in way.authorise(Request('GET', URL)).headers['Authorization']] == [
        True,
        True,
    ]


def test_a_profile_without_keys_is_refused_with_a_remedy(home):
    home.joinpath('.aws').mkdir()
    home.joinpath('.aws', 'config').write_text('[profile empty]\nregion = venus\n')
    way = credentials.Profile('empty')
    with pytest.raises(RSEAccessDenied, match='has no keys'):
        way.authorise(Request('GET', URL, region='mars'))


def test_a_profile_s_region_is_known_before_there_is_a_client(home):
    home.joinpath('.aws').mkdir()
    home.joinpath('.aws', 'config').write_text('[profile mine]\nregion = venus\n')
    assert Endpoint('X', 'x', 'https://s3.example.org').signing_region(credentials.Profile('mine').region) == 'venus'
    assert Endpoint('X', 'x', 'https://s3.example.org', region='mars').signing_region(credentials.Profile('mine').region) == 'mars'
    assert Endpoint('X', 'x', 'https://s3.example.org').signing_region(credentials.Profile('missing').region) == 'us-east-1'


def test_a_profile_signs_with_its_keys(home):
    home.joinpath('.aws').mkdir()
    home.joinpath('.aws', 'credentials').write_text('[mine]\naws_access_key_id = PROFILE\naws_secret_access_key = p\n')
    assert 'Credential=PROFILE/' in credentials.Profile('mine').authorise(Request('GET', URL, region='mars')).headers['Authorization']


@pytest.mark.parametrize('way', [credentials.Static('AKID', 'secret'), credentials.Anonymous(), credentials.Presigned()])
def test_what_was_refused_is_not_sent_again_with_the_same_keys(way):
    request = Request('GET', 'https://s3.example.org/b/k')
    assert way.refused(request, 'ExpiredToken') is False
    assert way.hides_missing(request) is False


def test_nothing_of_a_request_shows_a_secret():
    sent = KEYS.authorise(Request('GET', f'{URL}?X-Amz-Signature=hidden', {'X-Amz-Security-Token': 'hidden'}, 'mars', body=b'hidden'))
    assert 'hidden' not in f'{sent!r} {sent} {[sent]}'
    assert 'AKID' not in repr(sent)


# boto3 goes the same way


@pytest.mark.parametrize('way', [KEYS, credentials.Anonymous(), credentials.Presigned()], ids=lambda way: way.name)
def test_a_client_sends_what_the_way_answers_and_signs_nothing_itself(s3, endpoint, monkeypatch, way):
    monkeypatch.setattr(RequestSigner, 'get_auth_instance', lambda *_, **__: pytest.fail('botocore signs'))
    asked = []
    monkeypatch.setattr(
        type(way), 'authorise', lambda _, request: asked.append(request) or request._replace(headers={**request.headers, 'Authorization': 'ours'})
    )
    s3.store('user.alice', 'k', b'x')
    connection = clients.connect(endpoint(), way)
    assert connection.client.get_object(Bucket='user.alice', Key='k')['Body'].read() == b'x'
    assert [(request.method, request.url) for request in asked] == [('GET', f'{s3.url}/user.alice/k')]
    assert s3.requests[-1].headers['authorization'] == 'ours'


def test_a_client_without_keys_says_so(s3):
    class Nobody(WithKeys):
        name = identity = 'nobody'

        def credentials(self):
            raise RSEAccessDenied('there are none')

        def session(self):
            return credentials.Anonymous().session()

    connection = clients.connect(Endpoint(rse='X', rse_id='', url=s3.url), Nobody())
    with pytest.raises(RSEAccessDenied, match='there are none'):
        connection.client.list_buckets()
    with pytest.raises(NoCredentialsError):
        connection.client.generate_presigned_url('get_object', Params={'Bucket': 'b', 'Key': 'k'})
    assert not s3.requests


def test_urls_are_still_signed_by_botocore(endpoint):
    url = clients.connect(endpoint(), KEYS).client.generate_presigned_url('get_object', Params={'Bucket': 'b', 'Key': 'k'})
    assert 'X-Amz-Signature=' in url
    assert 'X-Amz-Credential=AKID%2F' in url


def test_an_older_signature_that_was_configured_is_left_to_botocore(s3):
    session = KEYS.session()
    client = session.create_client('s3', 'mars', endpoint_url=s3.url, config=Config(signature_version='s3', s3={'addressing_style': 'path'}))
    KEYS.attach(client)
    client.head_bucket(Bucket='user.alice')
    assert s3.requests[-1].headers['authorization'].startswith('AWS AKID:')


def test_a_redirect_s_region_is_what_is_signed(s3, endpoint):
    s3.store('user.alice', 'k', b'x')
    s3.fail('GetObject', Answer(301, error(301, 'PermanentRedirect').body, (('x-amz-bucket-region', 'venus'),)))
    connection = clients.connect(endpoint(secrets=Secrets()), KEYS)
    connection.client.get_object(Bucket='user.alice', Key='k')
    assert '/venus/s3/' in s3.requests[-1].headers['authorization']


class Renewing(WithKeys):
    """Its keys may be others for the second attempt."""

    name = identity = 'renewing'

    def __init__(self):
        self.asked = []

    def credentials(self):
        return credentials.Static('KEY', 's').credentials()

    def refused(self, sent, code):
        self.asked.append((sent.method, 'Authorization' in sent.headers, code))
        return code == 'ExpiredToken'


@pytest.mark.parametrize(
    ('codes', 'asked'),
    [
        (['ExpiredToken'], ['ExpiredToken']),
        (['ExpiredToken', 'ExpiredToken'], ['ExpiredToken']),
        (['AccessDenied'], ['AccessDenied']),
        ([], []),
    ],
)
def test_a_refusal_is_tried_again_once_if_that_may_help(s3, endpoint, codes, asked):
    way = Renewing()
    client = clients.connect(endpoint(), way).client
    s3.store('user.alice', 'k', b'x')
    s3.fail('GetObject', *(error(400, code) for code in codes))
    if codes in ([], ['ExpiredToken']):
        client.get_object(Bucket='user.alice', Key='k')
    else:
        with pytest.raises(ClientError, match=codes[0]):
            client.get_object(Bucket='user.alice', Key='k')
    assert way.asked == [('GET', True, code) for code in asked]
    assert len(s3.requests) == 1 + (codes[:1] == ['ExpiredToken'])


def test_a_signature_covers_what_storages_heed():
    heeded = {'Content-Encoding', 'Content-MD5', 'Content-Type', 'If-Match', 'If-None-Match', 'Range', 'X-Amz-Acl', 'x-amz-meta-a'}
    assert headers_to_sign(dict.fromkeys(heeded | {'Accept', 'Content-Length', 'If-Modified-Since', 'User-Agent', 'X-Amzn-Trace'}, 'x')).keys() == heeded


@pytest.mark.parametrize('method', ['GET', 'HEAD', 'DELETE', 'PUT', 'POST'])
def test_only_some_requests_have_no_body(method):
    nothing = hashlib.sha256(b'').hexdigest()
    assert payload_of(Request(method, URL)) == (nothing if method in ('GET', 'HEAD', 'DELETE') else 'UNSIGNED-PAYLOAD')
    assert payload_of(Request(method, URL, body=b'x')) == hashlib.sha256(b'x').hexdigest()


def test_what_a_client_is_about_to_send_is_what_is_authorised(s3, endpoint, monkeypatch):
    asked = []
    monkeypatch.setattr(credentials.Static, 'authorise', lambda _, request: asked.append(request) or request)
    client = clients.connect(endpoint(region='mars', checksum='none'), KEYS).client
    client.put_object(Bucket='user.alice', Key='k', Body=b'abc')
    client.delete_objects(Bucket='user.alice', Delete={'Objects': [{'Key': 'k'}]})
    put, delete = asked
    assert (put.method, put.region, put.headers['Content-Length'], put.payload, put.body) == ('PUT', 'mars', '3', hashlib.sha256(b'abc').hexdigest(), b'')
    assert [name.lower() for name in put.headers].count('content-length') == 1
    assert all(isinstance(value, str) for each in asked for value in each.headers.values())
    assert (delete.method, b'<Key>k</Key>' in delete.body, 'Content-Length' in delete.headers) == ('POST', True, False)


def test_a_way_that_does_not_cover_bodies_hashes_none(s3, endpoint, monkeypatch):
    asked = []
    monkeypatch.setattr(credentials.Anonymous, 'authorise', lambda _, request: asked.append(request) or request)
    clients.connect(endpoint(), credentials.Anonymous()).client.list_buckets()
    assert [each.payload for each in asked] == [None]


def test_a_new_authorisation_is_sent_at_once(s3, endpoint, monkeypatch):
    pauses = []
    monkeypatch.setattr('botocore.endpoint.time', SimpleNamespace(sleep=pauses.append))
    s3.fail('HeadBucket', error(403, 'ExpiredToken'), error(400, 'ExpiredToken'))
    s3.fail('ListObjectsV2', error(400, 'ExpiredToken'))
    clients.connect(endpoint(), Renewing()).client.list_objects_v2(Bucket='user.alice')
    assert pauses == [0]


# Each step of a client


@pytest.fixture
def attached():
    """Call it with a way: the events of a client on which nothing else is registered."""

    def make(way):
        events = HierarchicalEmitter()
        way.attach(SimpleNamespace(meta=SimpleNamespace(events=events)))
        return events

    return make


class Moving(Renewing):
    """Sends requests elsewhere, with another condition."""

    def authorise(self, request):
        self.asked.append(request)
        return request._replace(url='https://other/x', headers={'if-match': 'new', 'x-new': '1'})


@pytest.mark.parametrize(('method', 'length'), [('PUT', 'Content-Length'), ('POST', 'content-length')])
def test_what_is_authorised_replaces_what_was_to_be_sent(attached, method, length):
    way = Moving()
    events = attached(way)
    given = {'If-Match': 'old', 'content-length': '3', 'X-Other': b'y'}
    request = AWSRequest(method, 'https://s3/b/k', headers=given, data=b'abc')
    events.emit('choose-signer.s3.X', signature_version='s3v4', context=request.context)
    events.emit('before-sign.s3.X', request=request, region_name='mars', signature_version='s3v4')
    (asked,) = way.asked
    assert (asked.method, asked.url, asked.region, asked.body) == (method, 'https://s3/b/k', 'mars', b'abc')
    assert asked.headers == {'If-Match': 'old', length: '3', 'X-Other': 'y'}
    assert (request.url, request.headers.get_all('If-Match'), request.headers['X-New']) == ('https://other/x', ['new'], '1')


@pytest.mark.parametrize(
    ('attempts', 'answer', 'known', 'result', 'asked'),
    [
        (1, {'Error': {'Code': 'ExpiredToken'}}, True, 0, ['ExpiredToken']),
        (2, {'Error': {'Code': 'ExpiredToken'}}, True, None, []),
        (1, {'Error': {'Code': 'Other'}}, True, None, ['Other']),
        (1, {'Error': {'Code': 'ExpiredToken'}}, False, None, []),
        (1, {'Error': {}}, True, None, []),
        (1, {}, True, None, []),
        (1, None, True, None, []),
    ],
)
def test_what_is_tried_again(attached, attempts, answer, known, result, asked):
    way = Renewing()
    context = {'rucio_s3_sent': Request('GET', URL, {'Authorization': 'x'})} if known else {}
    response = None if answer is None else (None, answer)
    operation = SimpleNamespace(name='X')
    ((_, found),) = attached(way).emit('needs-retry.s3.X', operation=operation, attempts=attempts, response=response, request_dict={'context': context})
    assert (found, [code for _, _, code in way.asked]) == (result, asked)


def test_a_way_is_shown_by_its_identity():
    assert repr(credentials.Anonymous()) == '<Anonymous anonymous>'
    assert repr(KEYS) == f'<Static {KEYS.identity}>'
