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

"""The CORS rule of a bucket: set once, beside those of others, and only if the operator named origins."""

import re
from dataclasses import replace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.exception import ConfigurationError, RSEOperationNotSupported
from rucio.common.s3.settings import SETTINGS
from rucio.core.s3.buckets import cors, creation
from servers.fake_s3 import error

BUCKET = 'user.alice'
ORIGIN = 'https://notebooks.example.org'
THEIRS = b'<CORSRule><ID>theirs</ID><AllowedMethod>GET</AllowedMethod><AllowedOrigin>https://x.example.org</AllowedOrigin></CORSRule>'


@pytest.fixture
def storage(twins):
    """Call it for an RSE with these origins."""

    def make(*origins):
        known = twins.of().storage
        return replace(known, endpoint=replace(known.endpoint, cors_origins=origins))

    return make


def test_a_rule_is_set_once_and_follows_the_setting(storage, s3):
    assert cors.allow_origins(storage(ORIGIN), BUCKET)
    assert s3.cors[BUCKET].count(b'<CORSRule>') == 1
    assert f'<AllowedOrigin>{ORIGIN}</AllowedOrigin>'.encode() in s3.cors[BUCKET]
    assert not cors.allow_origins(storage(ORIGIN), BUCKET)
    assert s3.operations().count('PutBucketCors') == 1
    assert cors.allow_origins(storage('https://*.example.org'), BUCKET)
    assert ORIGIN.encode() not in s3.cors[BUCKET]
    assert s3.cors[BUCKET].count(b'rucio-s3-origins') == 1


def test_what_a_page_may_do(storage, s3):
    """As much as any client with the same keys; an upload in parts needs the ETags of these."""
    cors.allow_origins(storage(ORIGIN), BUCKET)

    def values(element):
        return re.findall(f'<{element}>(.*?)</{element}>', s3.cors[BUCKET].decode())

    assert sorted(values('AllowedMethod')) == ['DELETE', 'GET', 'HEAD', 'POST', 'PUT']
    assert sorted(values('ExposeHeader')) == ['Accept-Ranges', 'Content-Range', 'ETag']
    assert values('AllowedHeader') == ['*']
    assert 60 <= int(values('MaxAgeSeconds')[0]) <= 7200


def test_a_rule_of_ours_that_allows_less_is_replaced(storage, s3):
    """As one of an earlier version, or that somebody changed. One of others that allows as much is theirs."""
    less = THEIRS.replace(b'theirs', b'rucio-s3-origins').replace(b'https://x.example.org', ORIGIN.encode())
    s3.cors[BUCKET] = b'<CORSConfiguration>' + less + b'</CORSConfiguration>'
    assert cors.allow_origins(storage(ORIGIN), BUCKET)
    assert s3.cors[BUCKET].count(b'<CORSRule>') == 1
    s3.cors[BUCKET] = s3.cors[BUCKET].replace(b'rucio-s3-origins', b'theirs')
    assert cors.allow_origins(storage(ORIGIN), BUCKET)
    assert s3.cors[BUCKET].count(b'<CORSRule>') == 2


def test_rules_of_others_are_kept(storage, s3):
    s3.cors[BUCKET] = b'<CORSConfiguration>' + THEIRS + b'</CORSConfiguration>'
    assert cors.allow_origins(storage(ORIGIN), BUCKET)
    assert b'<ID>theirs</ID>' in s3.cors[BUCKET]
    assert b'https://x.example.org' in s3.cors[BUCKET]


def test_without_origins_nothing_is_asked(storage, s3):
    assert not cors.allow_origins(storage(), BUCKET)
    assert not [each for each in s3.operations() if 'Cors' in each]


def test_a_bucket_of_all_scopes_belongs_to_the_operator(storage, s3, monkeypatch):
    there = storage(ORIGIN)
    monkeypatch.setattr(type(there.layout), 'common_bucket', BUCKET)
    assert not cors.allow_origins(there, BUCKET)
    assert not s3.cors


def test_a_storage_without_it_is_told_and_the_bucket_is_made(storage, s3):
    s3.fail('GetBucketCors', error(501, 'NotImplemented'), error(501, 'NotImplemented'))
    with pytest.raises(RSEOperationNotSupported, match='RSE TWIN_A: cors of bucket'):
        cors.allow_origins(storage(ORIGIN), BUCKET)
    warnings = []
    assert not creation.make_bucket(storage(ORIGIN), BUCKET, warnings)['cors']
    assert len(warnings) == 1
    assert 'no CORS rule could be set. RSE TWIN_A' in warnings[0]


@pytest.mark.parametrize('good', [ORIGIN, 'http://localhost:8888', 'https://*.example.org', '*', 'https://a.org, https://b.org:1', ['https://a.org']])
def test_origins(good):
    assert SETTINGS['cors_origins'].read('RSE X', 'cors_origins', good)


@pytest.mark.parametrize('bad', ['https://a.org/', 'a.org', 'https://a.org/path', 'https://*', 'https://a*.org', 'https://u@a.org', 'null', 'https://a.org\nX'])
def test_other_texts_would_never_match(bad):
    with pytest.raises(ConfigurationError, match="'cors_origins' is"):
        SETTINGS['cors_origins'].read('RSE X', 'cors_origins', bad)
