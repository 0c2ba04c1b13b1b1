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

"""Signatures are those of the documentation, and those that botocore makes."""

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from rucio.common.s3.sigv4 import Signer

# GET Object of https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.
KEYS = ReadOnlyCredentials('AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', None)
URL, TIME = 'https://examplebucket.s3.amazonaws.com/test.txt', '20130524T000000Z'
EMPTY = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
EXPECTED = 'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41'


def test_a_signature_is_that_of_the_example_in_the_documentation():
    added = Signer(KEYS, 'us-east-1', TIME).added('GET', URL, {'Range': 'bytes=0-9'}, EMPTY)
    assert added['Authorization'].endswith(f'SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature={EXPECTED}')
    assert added['Authorization'].startswith('AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, ')
    assert set(added) == {'Authorization', 'X-Amz-Date', 'X-Amz-Content-SHA256'}


def test_a_signature_takes_the_hash_that_it_is_given_and_has_the_token():
    added = Signer(ReadOnlyCredentials('A', 's', 'token'), 'mars').added('PUT', 'https://s3/b/k', {}, 'UNSIGNED-PAYLOAD')
    assert (added['X-Amz-Content-SHA256'], added['X-Amz-Security-Token']) == ('UNSIGNED-PAYLOAD', 'token')
    assert '/mars/s3/aws4_request' in added['Authorization']


def test_a_signature_is_recomputed_for_its_own_time():
    """The same example: its request, and its string to sign."""
    made = Signer(KEYS, 'us-east-1', TIME)
    headers = {'Host': 'examplebucket.s3.amazonaws.com', 'Range': 'bytes=0-9', 'x-amz-content-sha256': EMPTY, 'X-Amz-Date': TIME}
    assert made.of_request('GET', URL, headers, EMPTY) == EXPECTED
    text = f'AWS4-HMAC-SHA256\n{TIME}\n20130524/us-east-1/s3/aws4_request\n7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972'
    assert made.of_text(text) == EXPECTED
    others = [
        made.of_request('PUT', URL, headers, EMPTY),
        made.of_request('GET', URL + '2', headers, EMPTY),
        made.of_request('GET', URL, headers | {'Range': 'bytes=0-8'}, EMPTY),
        made.of_request('GET', URL, {'host': headers['Host']}, EMPTY),
        made.of_request('GET', URL, {'host': headers['Host']}, 'UNSIGNED-PAYLOAD'),
        Signer(KEYS, 'eu-west-1', TIME).of_request('GET', URL, headers, EMPTY),
        Signer(KEYS, 'us-east-1', '20130525T000000Z').of_request('GET', URL, headers, EMPTY),
    ]
    assert len({EXPECTED, *others}) == 8


@pytest.mark.parametrize('token', [None, 'a token'])
@pytest.mark.parametrize('region', ['us-east-1', '', 'a/b'])
@pytest.mark.parametrize(
    ('method', 'url', 'headers'),
    [
        ('GET', 'https://s3.example.org/b/k', {}),
        ('get', 'HTTP://S3.Example.org:80/b/a%20b//c', {'Range': 'bytes=0-1'}),
        ('PUT', 'https://s3.example.org:443/b/%C3%A9?uploadId=u%2B1&partNumber=2', {'Content-MD5': '  x   y ', 'x-amz-meta-a': ''}),
        ('PUT', 'https://user@s3.example.org:9000/b/k?uploads', {'Content-Type': 'text/plain;\tcharset=utf-8', 'X-Amz-Meta-B': 'caf\u00e9'}),
        ('GET', 'http://[::1]:8333/b?prefix=b&list-type=2&prefix=a&delimiter=', {'HOST': 'elsewhere'}),
        ('DELETE', 'http://[2001:db8::1]/b/k?', {'if-match': '"x"'}),
        ('HEAD', 'https://127.0.0.1', {}),
    ],
)
def test_a_signature_is_that_of_botocore(method, url, headers, region, token):
    keys = ReadOnlyCredentials('AKID', 'secret+/', token)
    added = Signer(keys, region, TIME).added(method, url, headers, 'UNSIGNED-PAYLOAD')

    class Auth(S3SigV4Auth):
        def payload(self, request):
            return 'UNSIGNED-PAYLOAD'

    asked, auth = AWSRequest(method, url, headers=headers), Auth(keys, 's3', region)
    asked.context['timestamp'] = TIME
    auth._modify_request_before_signing(asked)
    auth._inject_signature_to_request(asked, auth.signature(auth.string_to_sign(asked, auth.canonical_request(asked)), asked))
    assert added == {name: value for name, value in asked.headers.items() if name not in headers}
