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


"""What a storage does, asked of one in this process, and what that means for the settings.

integration/test_probes.py asks real ones, and tests/backends compares with docs/backends.md.
"""

import contextlib
import io
import re
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unicodedata import normalize
from urllib.parse import unquote

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError, UnknownKeyError

from rucio.common.exception import InputValidationError, RSEAccessDenied
from rucio.common.s3 import clients, credentials, probes
from rucio.common.s3.endpoint import SERVER
from rucio.common.s3.errors import Target
from rucio.common.s3.probes import verdicts
from rucio.common.s3.probes.behaviour import Behaviour, code_of, race
from rucio.common.s3.probes.place import ProbeBucket
from rucio.common.s3.probes.writing import WRITERS
from rucio.core.s3.buckets import probing
from servers.fake_s3 import Answer, crc32, error

BUCKET = 'user.alice'
KEYS = credentials.Static('AKIDOFTHETESTS', 'a-secret')


@pytest.fixture
def asked(endpoint, s3):
    """Call it with the names of behaviours, and it returns their answers, from a bucket of its own."""

    def ask(*names):
        with probes.in_bucket_of_its_own(clients.connect(endpoint(), KEYS)) as place:
            place.races = 1
            found = {str(each): each.measure(place) for each in probes.ALL if str(each) in names}
        assert (place.left, list(s3.buckets), s3.uploads) == ('', [BUCKET], {})
        return found

    return ask


def test_each_behaviour_is_a_row_of_docs_backends():
    """In the section of its name, with its text and its meaning."""
    page = Path(__file__).parents[2].joinpath('docs', 'backends.md').read_text(encoding='utf-8')
    sections = {part.partition('\n')[0]: part for part in page.split('\n## ')}
    for each in probes.ALL:
        rows = [[cell.strip() for cell in row.split('|')[1:-1]] for row in sections[each.section].splitlines() if row.startswith('|')]
        assert [row[-1] for row in rows if row[0] == each.text] == [each.meaning]


def test_each_behaviour_has_a_name_and_a_text_of_its_own():
    assert len({each.text for each in probes.ALL}) == len({str(each) for each in probes.ALL}) == len(probes.ALL) > 30
    assert all(each.meaning and each.section for each in probes.ALL)


CONDITIONS = ('put_if_none_match', 'put_new', 'put_race', 'complete_if_none_match', 'complete_new', 'copy_if_none_match', 'copy_new')
GOOD = ['412 PreconditionFailed', 'yes', 'one wins', '412 PreconditionFailed', 'yes', '412', 'yes']


@pytest.mark.parametrize(
    ('faults', 'answers', 'settings'),
    [
        ({}, {}, {'conditional_put': True, 'conditional_multipart': True, 'if_none_match': ('put', 'multipart', 'copy')}),
        (
            {'conditional_put': False, 'conditional_multipart': False},
            {'put_if_none_match': 'overwritten', 'put_race': 'several win', 'complete_if_none_match': 'overwritten', 'copy_if_none_match': 'overwritten'},
            {'conditional_put': False, 'conditional_multipart': False, 'if_none_match': ('put', 'multipart', 'copy')},
        ),
        (
            {'lacks': {'PutObject': 'if-none-match', 'CompleteMultipartUpload': 'if-none-match'}},
            {
                **dict.fromkeys(('put_if_none_match', 'put_new', 'complete_if_none_match', 'complete_new'), '501 NotImplemented'),
                'put_race': 'none wins',
            },
            {'conditional_put': False, 'conditional_multipart': False, 'if_none_match': ('copy',)},
        ),
        (
            {'copy_condition_of_source': True},
            {'copy_new': '412 PreconditionFailed'},
            {'conditional_put': True, 'conditional_multipart': True, 'if_none_match': ('put', 'multipart')},
        ),
    ],
)
def test_what_a_storage_does_with_if_none_match(asked, s3, faults, answers, settings):
    for name, value in faults.items():
        setattr(s3, name, value)
    found = asked(*CONDITIONS)
    assert found == dict(zip(CONDITIONS, GOOD, strict=True)) | answers
    assert verdicts.earned(found) == settings


def test_a_storage_that_wants_content_md5(asked, s3):
    s3.wants_md5 = True
    assert asked('without_md5', 'without_crc32', 'delete_objects', 'lifecycle', 'other_body') == {
        'without_md5': '400 InvalidRequest',
        'without_crc32': 'yes',
        'delete_objects': 'yes',
        'lifecycle': 'yes',
        'other_body': 'deleted',
    }


def test_what_is_sent_is_what_s3_allows(asked, s3):
    """A refusal would be taken for what the storage does with something else."""
    asked('long_segment', 'part_copy', 'full_object', 'lifecycle')
    (key,) = {each.key for each in s3.requests if each.operation == 'PutObject' and len(each.key) > 100}
    assert 255 < len(key) <= 1024
    numbers = [each.query['partNumber'] for each in s3.requests if each.operation in ('UploadPart', 'UploadPartCopy')]
    assert numbers == ['1', '2'] * 3
    (rule,) = [each.body for each in s3.requests if each.operation == 'PutBucketLifecycle']
    assert b'<Status>Enabled</Status>' in rule
    assert b'<Prefix />' in rule  # of all keys
    s3.requests.clear()
    asked('wrong_crc32_of_a_part', 'crc32_as_sent', 'full_object')
    kinds = [each.headers['x-amz-checksum-algorithm'] for each in s3.requests if each.operation == 'CreateMultipartUpload']
    assert kinds == ['CRC32'] * 4
    assert [each.query['partNumber'] for each in s3.requests if each.operation == 'UploadPart'] == ['1', '1', *['1', '2'] * 2]


@pytest.mark.parametrize(('verifies', 'answer', 'earned'), [(True, '400 XAmzContentSHA256Mismatch', True), (False, 'deleted', False)])
def test_another_body_than_the_one_that_was_signed(asked, s3, verifies, answer, earned):
    s3.verifies_body = verifies
    found = asked('other_body')
    assert (found['other_body'], verdicts.earned(found)) == (answer, {'verifies_body': earned})


# What is not 'yes' of the S3 in this process.
OTHERS = {
    **{name: answer for name, answer in zip(CONDITIONS, GOOD, strict=True) if answer != 'yes'},
    'complete_race': 'one wins',
    'full_object': 'kept, not verified',
    'other_body': 'deleted',
    'bucket_again': '200',
    **dict.fromkeys(('wrong_crc32', 'wrong_crc32_of_a_part', 'wrong_md5', 'wrong_md5_of_a_part'), '400 BadDigest'),
    **dict.fromkeys(('guard_copy', 'guard_acl', 'guard_prefix'), 'heeded'),
    'guard_lock': 'ignored',
    'guard_host': 'host not verified',
}


@pytest.mark.parametrize('part', probes.PARTS)
def test_all_that_is_asked(asked, part):
    names = [str(each) for each in probes.PARTS[part] if str(each) != 'guard_attributes']  # of which this S3 knows nothing
    assert asked(*names) == {name: OTHERS.get(name, 'yes') for name in names}


def test_a_storage_that_does_not_sort(asked, s3):
    s3.unsorted, s3.page = True, 2
    assert asked('sorted_listing', 'start_after', 'pages', 'delete_objects') == {
        'sorted_listing': 'no',
        'start_after': '501 NotImplemented',
        'pages': 'no',
        'delete_objects': 'yes',
    }


# Storages that misbehave: what each operation does instead of what it should


def does(s3, **operations):
    """Let operations be ``how(request, serve)``, where ``serve`` is what this S3 would do."""
    for operation, how in operations.items():
        serve = getattr(s3, operation, None)
        setattr(s3, operation, lambda request, how=how, serve=serve: how(request, serve))


def says(status, code):
    return lambda *_: error(status, code)


def ignores(*names):
    """As if these headers were not there."""
    return lambda request, serve: serve(request._replace(headers={name: value for name, value in request.headers.items() if name not in names}))


def needs(header):
    return lambda request, serve: serve(request) if header in request.headers else error(400, 'InvalidRequest')


def refuses(header, status=501, code='NotImplemented'):
    return lambda request, serve: error(status, code) if header in request.headers else serve(request)


def refuses_keys(has, status=400, code='InvalidURI'):
    return lambda request, serve: error(status, code) if has in request.key else serve(request)


def lies(*_):
    """It says yes, and does nothing."""
    return Answer(200, b'<Result/>', (('ETag', '"0123"'),))


def deletes_nothing(*_):
    return Answer(200, b'<DeleteResult/>')


def keeps_no_second(request, serve):
    """It says yes to a conditional PUT, whether it stores it or not."""
    answer = serve(request)
    return lies() if answer.status == 412 else answer


def after(number, how):
    """How it serves after so many requests."""
    seen = []

    def served(request, serve):
        seen.append(request)
        return how(request, serve) if len(seen) > number else serve(request)

    return served


def after_the_first_key(how):
    """How it serves all keys but the first that it is asked for."""
    seen = []

    def served(request, serve):
        seen.append(request.key)
        return serve(request) if request.key == seen[0] else how(request, serve)

    return served


def only(number, how):
    """How it serves the one request of this number."""
    seen = []

    def served(request, serve):
        seen.append(request)
        return how(request, serve) if len(seen) == number else serve(request)

    return served


def writes_to(change):
    """Under another key."""
    return lambda request, serve: serve(request._replace(key=change(request.key)))


def writes(change):
    return lambda request, serve: serve(request._replace(body=change(request.body)))


def heads(**changes):
    """HEAD says something else; a header that is None is left out."""

    def served(request, serve):
        answer = serve(request)
        new = {name.replace('_', '-'): value for name, value in changes.items()}
        kept = tuple((name, value) for name, value in answer.headers if name.lower() not in new)
        return answer._replace(headers=(*kept, *((name, value) for name, value in new.items() if value is not None)))

    return served


def tells_what_was_sent(s3):
    """It neither verifies CRC32s, nor computes any: it tells what came with the PUT."""

    def put(request, serve):
        answer = ignores('x-amz-checksum-crc32')(request, serve)
        objects = s3.buckets[request.bucket]
        objects[request.key] = replace(objects[request.key], crc32=request.headers.get('x-amz-checksum-crc32', ''))
        return answer

    does(s3, PutObject=put)


def tells_its_own(s3):
    """It does not verify CRC32s, and computes them."""

    def put(request, serve):
        answer = ignores('x-amz-checksum-crc32')(request, serve)
        objects = s3.buckets[request.bucket]
        objects[request.key] = replace(objects[request.key], crc32=crc32(request.body))
        return answer

    does(s3, PutObject=put)


def verifies_the_whole(s3):
    def complete(request, serve):
        upload = s3.uploads[request.query['uploadId']]
        parts = [upload.parts[number] for number in sorted(upload.parts)]
        if any(len(part) < 5 * 1024**2 for part in parts[:-1]):
            return error(400, 'EntityTooSmall')
        if upload.full_object and request.headers['x-amz-checksum-type'] == 'FULL_OBJECT':
            whole = crc32(b''.join(parts))
            return error(400, 'BadDigest') if request.headers.get('x-amz-checksum-crc32', whole) != whole else serve(request)
        return serve(request)

    does(s3, CompleteMultipartUpload=complete)


def lists(key=str, **changes):
    """Listings in another order, or with other query parameters; None: left out."""

    def served(request, serve):
        query = {name: value for name, value in (request.query | changes).items() if value is not None}
        answer = serve(request._replace(query=query))
        head, *entries = answer.body.decode().removesuffix('</ListBucketResult>').split('<Contents>')
        ordered = [f'<Contents>{entry}' for entry in sorted(entries, key=lambda entry: key(key_of(entry)))]
        return answer._replace(body=(head + ''.join(ordered) + '</ListBucketResult>').encode())

    return served


def key_of(entry):
    return unquote(entry.partition('<Key>')[2].partition('</Key>')[0])


def hides(hidden):
    """A listing in which keys are missing."""

    def served(request, serve):
        answer = serve(request)
        head, *entries = answer.body.decode().removesuffix('</ListBucketResult>').split('<Contents>')
        kept = [f'<Contents>{entry}' for entry in entries if not hidden(key_of(entry))]
        return answer._replace(body=(head + ''.join(kept) + '</ListBucketResult>').encode())

    return served


def includes_the_start(request, serve):
    """StartAfter a key, and with it."""
    start = request.query.get('start-after', '')
    return serve(request._replace(query=request.query | {'start-after': start[:-1] + chr(ord(start[-1]) - 1) + '~'})) if start else serve(request)


def joins_slashes(key):
    return key.replace('//', '/')


def not_the_last(request, serve):
    return Answer(200, serve(request).body.replace(b'<IsTruncated>true', b'<IsTruncated>false'), (('Content-Type', 'application/xml'),))


def loses_metadata(s3):
    def copy(request, serve):
        answer = serve(request)
        objects = s3.buckets[request.bucket]
        objects[request.key] = replace(objects[request.key], headers=())
        return answer

    does(s3, CopyObject=copy)


def copies(change, *, body=None, etag=None):
    """CopyObject of another source, or with another result."""

    def make(s3):
        def copy(request, serve):
            answer = serve(request._replace(headers=request.headers | {'x-amz-copy-source': change(request.headers['x-amz-copy-source'])}))
            objects = s3.buckets[request.bucket]
            if answer.status == 200:
                old = objects[request.key]
                objects[request.key] = replace(old, body=old.body if body is None else body, etag=etag or old.etag)
            return answer

        does(s3, CopyObject=copy)

    return make


def same(each):
    return each


def another_rule(s3):
    def put(request, serve):
        return serve(request._replace(body=request.body.replace(b'<DaysAfterInitiation>7<', b'<DaysAfterInitiation>8<')))

    does(s3, PutBucketLifecycle=put)


def ignores_the_source(s3):
    s3.CopyObject = s3.PutObject


def signs(s3):
    """Nobody without keys reads what is not public."""
    public = set()

    def put(request, serve):
        public.update({request.key} if request.headers.get('x-amz-acl') == 'public-read' else ())
        return serve(request)

    def get(request, serve):
        return serve(request) if 'authorization' in request.headers or request.key in public else error(403, 'AccessDenied')

    does(s3, PutObject=put, GetObject=get)


def signs_and_gives_nothing_away(s3):
    signs(s3)
    does(s3, PutObject=ignores('x-amz-acl'))


def tags(header):
    """Tags of an object, if it heeds the header."""

    def make(s3):
        tagged = set()

        def put(request, serve):
            tagged.update({request.key} if header in request.headers else ())
            return serve(request)

        def get(request, serve):
            if 'tagging' not in request.query:
                return serve(request)
            tag = '<Tag><Key>a</Key><Value>b</Value></Tag>' if request.key in tagged else ''
            return Answer(200, f'<Tagging><TagSet>{tag}</TagSet></Tagging>'.encode())

        does(s3, PutObject=put, GetObject=get)

    return make


def holds(header):
    """Legal holds of objects in buckets with object lock, if it heeds the header. What is held is not deleted."""

    def make(s3):
        locked, held = set(), set()

        def create(request, serve):
            locked.update({request.bucket} if request.headers.get('x-amz-bucket-object-lock-enabled') == 'true' else ())
            return serve(request)

        def put(request, serve):
            if 'legal-hold' in request.query:
                held.clear() if b'>OFF<' in request.body else held.add(request.key)
                return Answer(200)
            held.update({request.key} if request.headers.get(header) == 'ON' and request.bucket in locked else ())
            return serve(request)

        def get(request, serve):
            if 'legal-hold' in request.query:
                return Answer(200, f'<LegalHold><Status>{"ON" if request.key in held else "OFF"}</Status></LegalHold>'.encode())
            return serve(request)

        def delete(request, serve):
            return error(403, 'AccessDenied') if request.key in held else serve(request)

        does(s3, CreateBucket=create, PutObject=put, GetObject=get, DeleteObject=delete)

    return make


def knows_its_host(header):
    """Signatures are for the host of the request, or for what such a header says."""

    def make(s3):
        def get(request, serve):
            said = request.headers.get(header, request.headers['host'])
            # The signature of a request that was signed for another host differs; here it is told by what came before.
            return serve(request) if said == 'elsewhere.example.org' else error(403, 'SignatureDoesNotMatch')

        does(s3, GetObject=get)

    return make


MISBEHAVING = [
    ('put_if_none_match', {'PutObject': keeps_no_second}, 'ignored, not stored'),
    ('complete_if_none_match', {'CompleteMultipartUpload': says(500, 'InternalError')}, '500 InternalError'),
    ('complete_race', {'CompleteMultipartUpload': says(501, 'NotImplemented')}, 'none wins'),
    ('complete_race', {'CompleteMultipartUpload': ignores('if-none-match')}, 'several win'),
    ('copy_if_none_match', {'CopyObject': refuses('if-none-match')}, '501'),
    ('wrong_crc32', {'PutObject': ignores('x-amz-checksum-crc32')}, 'accepted'),
    ('wrong_crc32_of_a_part', {'UploadPart': ignores('x-amz-checksum-crc32')}, 'accepted'),
    ('wrong_crc32_of_a_part', {'CreateMultipartUpload': refuses('x-amz-checksum-algorithm')}, '501 NotImplemented'),
    ('wrong_md5', {'PutObject': ignores('content-md5')}, 'accepted'),
    ('wrong_md5_of_a_part', {'UploadPart': ignores('content-md5')}, 'accepted'),
    ('wrong_md5_of_a_part', {'CreateMultipartUpload': refuses('x-amz-checksum-algorithm')}, '400 BadDigest'),
    ('crc32_as_sent', {'PutObject': refuses('x-amz-checksum-crc32', 411, 'MissingContentLength')}, '411 MissingContentLength'),
    ('crc32_as_sent', {'UploadPart': refuses('x-amz-checksum-crc32', 411, 'MissingContentLength')}, '411 MissingContentLength'),
    ('crc32_as_sent', {'CreateMultipartUpload': refuses('x-amz-checksum-algorithm')}, '501 NotImplemented'),
    ('crc32_as_sent', {'PutObject': lambda request, serve: serve(request._replace(body=b'7;' + request.body, headers={}))}, 'no'),
    ('crc32_is_told', {'HeadObject': ignores('x-amz-checksum-mode')}, 'no'),
    ('crc32_is_told', {'HeadObject': heads(x_amz_checksum_crc32='AAAAAA==')}, 'no'),
    ('crc32_is_told', tells_what_was_sent, 'yes, and a wrong one'),
    ('crc32_is_told', tells_its_own, 'yes'),
    ('without_md5', {'DeleteObjects': refuses('x-amz-checksum-crc32')}, '501 NotImplemented'),
    ('without_md5', {'DeleteObjects': refuses('content-md5')}, 'yes'),
    ('without_md5', {'DeleteObjects': deletes_nothing}, 'not deleted'),
    ('without_crc32', {'DeleteObjects': refuses('content-md5')}, '501 NotImplemented'),
    ('without_crc32', {'DeleteObjects': refuses('x-amz-checksum-crc32')}, 'yes'),
    ('without_crc32', {'DeleteObjects': refuses('x-amz-sdk-checksum-algorithm')}, 'yes'),
    ('without_crc32', {'DeleteObjects': deletes_nothing}, 'not deleted'),
    ('full_object', verifies_the_whole, 'yes'),
    ('full_object', {'HeadObject': ignores('x-amz-checksum-mode')}, 'no'),
    ('full_object', {'CreateMultipartUpload': ignores('x-amz-checksum-type')}, 'no'),
    ('full_object', {'UploadPart': refuses('x-amz-checksum-crc32')}, '501 NotImplemented'),
    ('full_object', {'CompleteMultipartUpload': needs('x-amz-checksum-crc32')}, '400 InvalidRequest'),
    ('etag_is_md5', {'HeadObject': heads(etag='"0123"')}, 'no'),
    ('etag_of_a_copy', {'HeadObject': heads(etag='"0123"')}, 'no'),
    ('etag_of_a_copy', copies(same, etag='0123-1'), 'no'),
    ('other_body', {'DeleteObjects': deletes_nothing}, 'yes'),
    ('other_body', {'DeleteObjects': refuses('x-amz-checksum-crc32', 400, 'BadDigest')}, 'deleted'),
    ('dot', {'PutObject': refuses_keys('/./')}, '400 InvalidURI'),
    (
        'dot',
        {'PutObject': lambda request, serve: (serve(request), error(400, 'InvalidURI'))[1] if '/./' in request.key else serve(request)},
        '400 InvalidURI, but stored',
    ),
    ('dot_dot', {'PutObject': refuses_keys('/../')}, '400 InvalidURI'),
    ('double_slash', {'PutObject': writes_to(joins_slashes)}, 'another key'),
    ('double_slash', {'PutObject': refuses_keys('//')}, '400 InvalidURI'),
    ('double_slash', {'PutObject': lambda request, serve: lies() if '//' in request.key else serve(request)}, 'not listed'),
    ('double_slash', {'GetObject': says(404, 'NoSuchKey')}, 'not read'),
    ('double_slash', {'GetObject': lambda request, serve: serve(request)._replace(body=b'another')}, 'not read'),
    ('double_slash', {'DeleteObject': only(1, lies)}, 'not deleted'),
    ('leading_slash', {'PutObject': writes_to(lambda key: key.removeprefix('/'))}, 'another key'),
    ('space_plus_percent', {'PutObject': writes_to(lambda key: key.replace('+', ' '))}, 'another key'),
    ('space_plus_percent', {'PutObject': writes_to(unquote)}, 'another key'),
    ('unicode_key', {'PutObject': writes_to(lambda key: normalize('NFC', key))}, 'another key'),
    ('long_segment', {'PutObject': lambda request, serve: error(400, 'KeyTooLong') if len(request.key) > 255 else serve(request)}, '400 KeyTooLong'),
    ('below_another', {'PutObject': refuses_keys('/below', 409, 'Conflict')}, '409 Conflict'),
    ('below_another', {'PutObject': lambda request, serve: serve(request._replace(key=request.key.removesuffix('/below')))}, 'no'),
    ('below_another', {'GetObject': refuses_keys('/below', 404, 'NoSuchKey')}, 'no'),
    ('below_another', {'ListObjectsV2': hides(lambda key: key.endswith('/below'))}, 'not both listed'),
    (
        'below_another',
        {'PutObject': lambda request, serve: (serve(request._replace(key=request.key.removesuffix('/below'))), serve(request))[1]},
        'no',
    ),
    ('below_another', {'GetObject': lambda request, serve: serve(request) if '/below' in request.key else error(404, 'NoSuchKey')}, 'no'),
    (
        'below_another',
        {
            'PutObject': lambda request, serve: (
                (serve(request._replace(key=request.key.removesuffix('/below'))), error(409, 'Conflict'))[1] if '/below' in request.key else serve(request)
            )
        },
        '409 Conflict, and the first is gone',
    ),
    ('case', {'PutObject': writes_to(str.lower), 'GetObject': writes_to(str.lower)}, 'no'),
    ('case', {'PutObject': writes_to(lambda key: key[:-1] + key[-1].upper()), 'GetObject': writes_to(lambda key: key[:-1] + key[-1].upper())}, 'no'),
    ('sorted_listing', {'ListObjectsV2': lists(lambda key: key.split('/'))}, 'no'),
    ('sorted_listing', {'ListObjectsV2': lists(lambda key: key.encode('utf-16-be'))}, 'yes'),
    ('sorted_unicode', {'ListObjectsV2': lists(lambda key: key.split('/'))}, 'yes'),
    ('sorted_unicode', {'ListObjectsV2': lists(lambda key: key.encode('utf-16-be'))}, 'no'),
    ('start_after', {'ListObjectsV2': lists(**{'start-after': None})}, 'no'),
    ('start_after', {'ListObjectsV2': includes_the_start}, 'no'),
    ('start_after', {'ListObjectsV2': lists(lambda key: key[::-1])}, 'yes'),
    ('pages', {'ListObjectsV2': lists(**{'max-keys': None})}, 'no'),
    ('pages', {'ListObjectsV2': not_the_last}, 'no'),
    ('pages', {'ListObjectsV2': lambda request, serve: lists(**{'max-keys': str(int(request.query.get('max-keys', 9)) + 1)})(request, serve)}, 'no'),
    ('pages', {'ListObjectsV2': hides(lambda key: key.endswith('/4'))}, 'no'),
    ('copy', loses_metadata, 'without metadata'),
    ('copy', copies(same, body=b'another'), 'no'),
    ('copy_odd', copies(lambda source: source.replace('%2B', '%20')), '404 NoSuchKey'),
    ('copy_odd', copies(unquote), '404 NoSuchKey'),
    ('copy_odd', copies(same, body=b'another'), 'no'),
    ('part_copy', {'UploadPartCopy': says(501, 'NotImplemented')}, '501 NotImplemented'),
    ('part_copy', {'UploadPartCopy': lambda request, serve: serve(request._replace(headers=request.headers | {'x-amz-copy-source-range': 'bytes=0-9'}))}, 'no'),
    ('delete_objects', {'DeleteObjects': deletes_nothing}, 'no'),
    (
        'delete_objects',
        {
            'DeleteObjects': lambda *_: Answer(
                200,
                b'<DeleteResult>'
                + b''.join(b'<Error><Code>%s</Code></Error>' % code for code in (b'NoSuchKey', b'AccessDenied', b'NoSuchKey'))
                + b'</DeleteResult>',
            )
        },
        'AccessDenied, NoSuchKey',
    ),
    ('lifecycle', another_rule, 'no'),
    ('lifecycle', {'PutBucketLifecycle': says(501, 'NotImplemented')}, '501 NotImplemented'),
    ('bucket_again', {'CreateBucket': after(1, says(409, 'BucketAlreadyOwnedByYou'))}, '409 BucketAlreadyOwnedByYou'),
    ('guard_copy', {'CopyObject': says(403, 'SignatureDoesNotMatch')}, '403 SignatureDoesNotMatch'),
    ('guard_copy', ignores_the_source, 'ignored'),
    ('guard_acl', signs, 'heeded'),
    ('guard_acl', signs_and_gives_nothing_away, 'ignored'),
    ('guard_acl', {'PutObject': refuses('x-amz-acl', 403, 'SignatureDoesNotMatch')}, '403 SignatureDoesNotMatch'),
    ('guard_attributes', tags('x-amz-tagging'), 'heeded'),
    ('guard_attributes', tags('none'), 'ignored'),
    ('guard_attributes', {'PutObject': refuses('x-amz-tagging', 403, 'SignatureDoesNotMatch')}, '403 SignatureDoesNotMatch'),
    ('guard_lock', holds('x-amz-object-lock-legal-hold'), 'heeded'),
    ('guard_lock', holds('none'), 'ignored'),
    ('guard_lock', {'PutObject': refuses('x-amz-object-lock-legal-hold', 403, 'SignatureDoesNotMatch')}, '403 SignatureDoesNotMatch'),
    ('guard_prefix', {'GetObject': refuses('x-forwarded-prefix', 403, 'SignatureDoesNotMatch')}, 'ignored'),
    ('guard_prefix', {'GetObject': lambda request, serve: serve(request)._replace(body=b'public')}, '200'),
    ('guard_host', knows_its_host('x-forwarded-host'), 'heeded'),
    ('guard_host', knows_its_host('none'), 'ignored'),
]


@pytest.mark.parametrize(('name', 'how', 'answer'), MISBEHAVING, ids=[f'{name}-{answer}' for name, _, answer in MISBEHAVING])
def test_what_a_storage_does_otherwise(asked, s3, name, how, answer):
    how(s3) if callable(how) else does(s3, **how)
    assert asked(name) == {name: answer}


def test_the_writers_of_a_race_are_many_and_write_different_things(endpoint, s3):
    with probes.in_bucket_of_its_own(clients.connect(endpoint(), KEYS)) as place:
        answers = {str(each): each.measure(place) for each in probes.ALL if str(each).endswith('_race')}
        assert answers == {'put_race': 'one wins', 'complete_race': 'one wins'}
        assert place.races == 2
    conditional = [each for each in s3.requests if each.headers.get('if-none-match') == '*']
    by_key = Counter((each.operation, each.key) for each in conditional)
    assert sorted((operation, number) for (operation, _), number in by_key.items()) == [('CompleteMultipartUpload', 16)] * 4 + [('PutObject', 16)] * 2
    sent = Counter((each.operation, each.key, each.body) for each in s3.requests if each.operation in ('PutObject', 'UploadPart') and len(each.body) > 100)
    assert set(sent.values()) == {1}
    assert len(sent) == 16 * 6


@pytest.mark.parametrize(('name', 'operation'), [('put_race', 'PutObject'), ('complete_race', 'CompleteMultipartUpload')])
@pytest.mark.parametrize(('how', 'answer'), [(ignores('if-none-match'), 'several win'), (says(503, 'SlowDown'), 'none wins')])
def test_one_race_with_another_end_is_enough(endpoint, s3, name, operation, how, answer):
    with probes.in_bucket_of_its_own(clients.connect(endpoint(), KEYS)) as place:
        does(s3, **{operation: after_the_first_key(how)})
        assert next(each for each in probes.ALL if str(each) == name).measure(place) == answer


# What is asked, and how answers are told


@pytest.mark.parametrize(
    ('raised', 'answer'),
    [
        (ClientError({'ResponseMetadata': {'HTTPStatusCode': 412}, 'Error': {'Code': 'PreconditionFailed'}}, 'PutObject'), '412 PreconditionFailed'),
        (ReadTimeoutError(endpoint_url='http://s3'), 'breaks off'),
        (RSEAccessDenied('no'), 'not allowed'),
        (UnknownKeyError(value='v', param='p', choices=[]), 'unreadable (UnknownKeyError)'),
    ],
)
def test_refusals_nonsense_and_silence_are_answers(raised, answer):
    def fails(_):
        raise raised

    assert Behaviour('section', 'text', 'meaning', fails).measure(None) == answer
    assert str(Behaviour('section', 'text', 'meaning', fails)) == 'fails'


@pytest.mark.parametrize(
    ('response', 'told'),
    [
        ({'ResponseMetadata': {'HTTPStatusCode': 404}, 'Error': {'Code': '404'}}, '404'),
        ({'ResponseMetadata': {'HTTPStatusCode': 404}, 'Error': {'Code': 'NoSuchKey'}}, '404 NoSuchKey'),
        ({'ResponseMetadata': {'HTTPStatusCode': 500}}, '500'),
        ({'ResponseMetadata': {}, 'Error': {'Code': 'NoSuchKey'}}, 'NoSuchKey'),
        ({'Error': {}}, ''),
    ],
)
def test_the_status_and_the_code_of_a_refusal(response, told):
    assert code_of(ClientError(response, 'GetObject')) == told


def test_all_of_a_race_start_together_and_the_winners_are_counted():
    before, seen = threading.active_count(), []
    failures = [ClientError({}, 'PutObject'), ReadTimeoutError(endpoint_url='http://s3'), RSEAccessDenied('no'), KeyError(4)]

    def write(number):
        seen.append(threading.active_count() - before)
        if number < len(failures):
            raise failures[number]

    assert race(10, write) == 6
    assert (max(seen), len(seen)) == (10, 10)
    assert threading.active_count() == before


def test_a_part_is_measured_alone(endpoint, s3):
    with probes.in_folder(clients.connect(endpoint(), KEYS), Target('X', BUCKET)) as place:
        found = probes.measure(place, 'names')
        assert set(found) == {str(each) for each in probes.PARTS['names']} - {'leading_slash', 'start_after'}
        assert place.allows(next(each for each in probes.ALL if str(each) == 'guard_copy'))
        place._has.clear()  # keys of the server's: it signs nothing else
        assert not place.allows(next(each for each in probes.ALL if str(each) == 'guard_copy'))
    allowed = []
    assert probes.measure(SimpleNamespace(allows=allowed.append)) == {}
    assert allowed == list(probes.ALL)
    assert list(probes.PARTS) == ['writing', 'integrity', 'names', 'objects', 'signatures']


# The place


def test_nothing_remains_even_of_what_no_listing_shows(endpoint, s3):
    s3.versions = '<Version><Key>v</Key><VersionId>1</VersionId></Version><DeleteMarker><Key>m</Key><VersionId>2</VersionId></DeleteMarker>'
    with probes.in_bucket_of_its_own(clients.connect(endpoint(bucket_prefix='mine-'), KEYS)) as place:
        assert place.bucket.startswith('mine-rucio-s3-check-')
        other = place.new_bucket()
        assert other.startswith('mine-rucio-s3-check-')
        place.put(key='a')
        place.put(key='b', Bucket=other)
        place.copy('a', 'c', Bucket=other)
        place.begin('d', b'part')
        s3.store(place.bucket, 'stranger', b'')
    assert (place.left, list(s3.buckets), s3.uploads) == ('', [BUCKET], {})
    of_versions = [(each.bucket, each.key, each.query['versionId']) for each in s3.requests if each.operation == 'DeleteObject' and each.query]
    assert of_versions == [(bucket, *version) for bucket in (other, place.bucket) for version in (('v', '1'), ('m', '2'))]


def test_what_is_hidden_is_removed_nevertheless(endpoint, s3):
    with probes.in_folder(clients.connect(endpoint(), KEYS), Target('X', BUCKET, 'folder/')) as place:
        keys = [place.put(), place.put(b'', place.key('{}/ a'))]
        for key in ('folder/of-parts', 'folder/of-parts/too'):
            place.complete(key, place.begin(key, b'part', b'more'))
            keys.append(key)
        does(s3, ListObjectsV2=says(500, 'InternalError'))
        assert set(keys) < set(s3.buckets[BUCKET])
    assert (place.left, s3.buckets) == ('', {BUCKET: {}})
    assert 'AbortMultipartUpload' not in s3.operations()
    assert [each.query['partNumber'] for each in s3.requests if each.operation == 'UploadPart'] == ['1', '2'] * 2


class Calls:
    """A client of boto3 that only notes what it is asked for."""

    def __init__(self, fails=''):
        self.made, self.fails = [], fails

    def __getattr__(self, name):
        def call(**given):
            self.made.append((name, given))
            if name == self.fails:
                raise ClientError({'ResponseMetadata': {'HTTPStatusCode': 500}}, name)
            return {
                'create_multipart_upload': {'UploadId': 'u'},
                'upload_part': {'ETag': f'"{given.get("PartNumber")}"'},
                'head_object': {'ETag': '"Xe"'},
                'get_object': {'Body': io.BytesIO(b'content')},
                'list_object_versions': {
                    'Versions': [{'Key': 'v', 'VersionId': '1'}],
                    'DeleteMarkers': [{'Key': 'm', 'VersionId': '2'}],
                },
            }.get(name, {})

        return call

    def get_paginator(self, name):
        def paginate(**where):
            self.made.append((name, where))
            return [{'Contents': [{'Key': 'a'}, {'Key': 'b c'}]}, {}]

        return SimpleNamespace(paginate=paginate)

    def said(self):
        made, self.made = self.made, []
        return made


def place_at(client, folder='', *, signed=True):
    return ProbeBucket(client, lambda: 'without keys', 'bucket', folder, signed=signed, bucket_prefix='vo-', races=7)


@pytest.mark.parametrize(
    ('folder', 'signed', 'allowed'),
    [('', True, ['', 'signed', 'own', 'signed own']), ('', False, ['', 'own']), ('a/', True, ['', 'signed']), ('a/', False, [''])],
)
def test_what_can_be_tried_in_a_place(folder, signed, allowed):
    place = place_at(Calls(), folder, signed=signed)
    behaviours = [Behaviour('section', 'text', 'meaning', str, needs=needs.split()) for needs in ('', 'signed', 'own', 'signed own')]
    assert [' '.join(each.needs) for each in behaviours if place.allows(each)] == allowed
    assert (place.bucket, place.folder, place.races, place.anonymous()) == ('bucket', folder, 7, 'without keys')


def test_objects_are_written_and_read_in_a_place():
    client = Calls()
    place = place_at(client, 'folder/')
    key = place.key('{}/x')
    assert re.fullmatch('folder/k[0-9a-f]{12}/x', key)
    assert place.put(b'1', key, Metadata={}) == key
    made = place.put()
    assert re.fullmatch('folder/k[0-9a-f]{12}', made)
    assert (place.get(key, Range='r'), place.etag(key)) == (b'content', 'Xe')
    place.copy(key, 'other', Bucket='elsewhere')
    assert place.listed() == place.listed(Prefix='p') == ['a', 'b c']
    assert client.said() == [
        ('put_object', {'Bucket': 'bucket', 'Key': key, 'Body': b'1', 'Metadata': {}}),
        ('put_object', {'Bucket': 'bucket', 'Key': made, 'Body': b'content'}),
        ('get_object', {'Bucket': 'bucket', 'Key': key, 'Range': 'r'}),
        ('head_object', {'Bucket': 'bucket', 'Key': key}),
        ('copy_object', {'Bucket': 'elsewhere', 'Key': 'other', 'CopySource': {'Bucket': 'bucket', 'Key': key}}),
        ('list_objects_v2', {'Bucket': 'bucket', 'Prefix': 'folder/'}),
        ('list_objects_v2', {'Bucket': 'bucket', 'Prefix': 'p'}),
    ]
    assert place.remove() == ''
    deleted = sorted([('bucket', 'a'), ('bucket', 'b c'), ('bucket', key), ('bucket', made), ('elsewhere', 'other')])
    listing = ('list_objects_v2', {'Bucket': 'bucket', 'Prefix': 'folder/'})
    assert client.said() == [listing, *(('delete_object', {'Bucket': bucket, 'Key': key}) for bucket, key in deleted)]


def test_uploads_are_begun_completed_and_aborted_in_a_place():
    client = Calls()
    place = place_at(client)
    begun = place.begin('k', b'1', b'2', ChecksumType='t')
    assert begun == ('u', [{'PartNumber': 1, 'ETag': '"1"'}, {'PartNumber': 2, 'ETag': '"2"'}])
    upload = {'Bucket': 'bucket', 'Key': 'k', 'UploadId': 'u'}
    assert client.said() == [
        ('create_multipart_upload', {'Bucket': 'bucket', 'Key': 'k', 'ChecksumType': 't'}),
        ('upload_part', {**upload, 'PartNumber': 1, 'Body': b'1'}),
        ('upload_part', {**upload, 'PartNumber': 2, 'Body': b'2'}),
    ]
    place.remove()
    assert client.said()[0] == ('abort_multipart_upload', upload)
    place.complete('k', begun, IfNoneMatch='*')
    assert client.said() == [('complete_multipart_upload', {**upload, 'MultipartUpload': {'Parts': begun[1]}, 'IfNoneMatch': '*'})]
    place.remove()
    said = client.said()
    assert 'abort_multipart_upload' not in [name for name, _ in said]
    assert said[-4:] == [
        ('list_object_versions', {'Bucket': 'bucket'}),
        ('delete_object', {'Bucket': 'bucket', 'Key': 'v', 'VersionId': '1'}),
        ('delete_object', {'Bucket': 'bucket', 'Key': 'm', 'VersionId': '2'}),
        ('delete_bucket', {'Bucket': 'bucket'}),
    ]


@pytest.mark.parametrize(
    ('fails', 'left'),
    [
        ('delete_object', ['bucket/a', 'bucket/b%20c']),
        ('delete_bucket', ['the bucket NEW', 'the bucket bucket']),
        ('list_object_versions', []),
        ('list_objects_v2', []),
        ('abort_multipart_upload', []),
    ],
)
def test_what_is_left_of_a_place_is_told(fails, left):
    client = Calls(fails)
    place = place_at(client)
    new = place.new_bucket(ObjectLockEnabledForBucket=True)
    assert re.fullmatch('vo-rucio-s3-check-[0-9a-f]{12}', new)
    assert client.said() == [('create_bucket', {'Bucket': new, 'ObjectLockEnabledForBucket': True})]
    place._uploads.add(('k', 'u'))
    assert place.remove().replace(new, 'NEW') == ', '.join(left)
    assert [given['Bucket'] for name, given in client.said() if name == 'delete_bucket'] == [new, 'bucket']


@pytest.mark.parametrize('signed', [True, False])
def test_a_place_at_a_storage_has_the_bare_clients_of_it(endpoint, monkeypatch, signed):
    made = []
    monkeypatch.setattr(clients, 'bare', lambda *given: made.append(given) or SimpleNamespace(client=f'client {len(made)}'))
    way = SimpleNamespace(signed=signed)
    place = ProbeBucket.at(SimpleNamespace(endpoint=endpoint(addressing='auto', bucket_prefix='vo-'), authorizer=way), 'bucket', 'folder/', SERVER)
    assert (place.s3, place.anonymous()) == ('client 1', 'client 2')
    assert (place.bucket, place.folder, place.races, place._bucket_prefix) == ('bucket', 'folder/', 2 if signed else 1, 'vo-')
    assert place.allows(Behaviour('section', 'text', 'meaning', str, needs=['signed'])) is signed
    assert [(each[1] is way, each[2]) for each in made] == [(True, SERVER), (False, SERVER)]
    assert {each[0].addressing for each in made} == {'path'}
    assert 4 * made[0][0].max_concurrency >= WRITERS  # connections: all write at the same moment
    assert ProbeBucket.at(SimpleNamespace(endpoint=endpoint(), authorizer=way), 'bucket').folder == ''


@pytest.mark.parametrize('own', [True, False])
@pytest.mark.parametrize('fails', [False, True])
def test_a_place_is_removed_at_the_end_of_the_block(endpoint, monkeypatch, own, fails):
    steps, connection = [], SimpleNamespace(endpoint=endpoint(bucket_prefix='vo-'))
    place = SimpleNamespace(bucket='b', folder='', put=lambda: steps.append('put'), remove=lambda: steps.append('remove') or 'something')
    monkeypatch.setattr(ProbeBucket, 'at', lambda *given, **named: steps.append((*given, *named.values())) or place)
    monkeypatch.setattr(probes.place.objects, 'make_bucket', lambda _, target: steps.append(('make', target)))
    where = probes.in_bucket_of_its_own(connection, SERVER) if own else probes.in_folder(connection, Target('X', 'b', 'mine/'), SERVER)
    with pytest.raises(KeyError) if fails else contextlib.nullcontext(), where as found:
        assert found is place
        steps.append('block')
        if fails:
            raise KeyError
    made, rest = (steps[:2], steps[2:]) if own else (steps[:1], steps[1:])
    assert rest == ['put', 'block', 'remove']
    assert place.left == 'something'
    if own:
        assert re.fullmatch('vo-rucio-s3-check-[0-9a-f]{12}', made[0][1].bucket)
        assert made == [('make', Target('X', made[0][1].bucket)), (connection, made[0][1].bucket, SERVER)]
    else:
        assert made[0][:2] + made[0][3:] == (connection, 'b', SERVER)
        assert re.fullmatch('mine/.rucio-s3-check/[0-9a-f]{16}/', made[0][2])


def test_requests_are_changed_within_a_block_only(endpoint, s3):
    with probes.in_bucket_of_its_own(clients.connect(endpoint(), KEYS)) as place:
        with (
            place.unsigned('PutObject', {'x-amz-meta-a': 'b'}),
            place.before_signing('PutObject', lambda request: request.headers.add_header('x-amz-meta-c', 'd')),
        ):
            place.put(key='changed')
        place.put(key='usual')
    changed, usual = (each.headers for each in s3.requests if each.key in ('changed', 'usual') and each.operation == 'PutObject')
    signed = changed['authorization'].partition('SignedHeaders=')[2].partition(',')[0].split(';')
    assert (changed['x-amz-meta-a'], 'x-amz-meta-a' in signed) == ('b', False)
    assert (changed['x-amz-meta-c'], 'x-amz-meta-c' in signed) == ('d', True)
    assert not [name for name in usual if name.startswith('x-amz-meta-')]


@pytest.mark.parametrize(('status', 'left'), [(204, False), (400, False), (404, False), (403, True), (500, True)])
def test_whether_a_key_is_left(endpoint, s3, status, left):
    with probes.in_folder(clients.connect(endpoint(), KEYS), Target('X', BUCKET)) as place:
        key = place.key('{}/ a')
        does(s3, DeleteObject=lambda request, serve: Answer(status) if request.key == key else serve(request))
    assert place.left == (f'{BUCKET}/{key.replace(" ", "%20")}' if left else '')


@pytest.mark.parametrize(
    ('raised', 'left'),
    [(InputValidationError('the server does not sign for this key'), False), (RSEAccessDenied('no'), True), (ReadTimeoutError(endpoint_url='http://s3'), True)],
)
def test_whether_a_key_is_left_that_could_not_be_asked_for(endpoint, monkeypatch, raised, left):
    def fails(**_):
        raise raised

    with probes.in_folder(clients.connect(endpoint(), KEYS), Target('X', BUCKET)) as place:
        monkeypatch.setattr(place.s3, 'delete_object', fails)
    assert bool(place.left) == left


def test_what_is_left_is_told_of_buckets_too(endpoint, s3):
    with probes.in_bucket_of_its_own(clients.connect(endpoint(), KEYS)) as place:
        other = place.new_bucket()
        does(s3, DeleteBucket=says(409, 'BucketNotEmpty'))
    assert place.left == f'the bucket {other}, the bucket {place.bucket}'


@pytest.mark.parametrize('bucket', [True, False])
def test_where_nothing_can_be_written_nothing_is_tried(endpoint, s3, bucket):
    connection = clients.connect(endpoint(), KEYS)
    does(s3, PutObject=says(403, 'AccessDenied'))
    with (
        pytest.raises(RSEAccessDenied, match=r'RSE X: put of bucket .*403 AccessDenied'),
        probes.in_bucket_of_its_own(connection) if bucket else probes.in_folder(connection, Target('X', BUCKET)),
    ):
        raise AssertionError
    assert s3.buckets == {BUCKET: {}}


def test_a_client_adds_nothing_and_tries_once(endpoint, s3):
    with probes.in_bucket_of_its_own(clients.connect(endpoint(max_attempts=5), KEYS)) as place:
        s3.requests.clear()
        s3.fail('PutObject', error(503, 'SlowDown'))
        with pytest.raises(ClientError):
            place.put()
        place.put()
        one, two = s3.requests
        assert {name for each in (one, two) for name in each.headers if name.startswith(('if-', 'x-amz-checksum', 'content-md5'))} == set()
        assert 'authorization' in one.headers
        place.anonymous().get_object(Bucket=place.bucket, Key=two.key)['Body'].close()
        assert 'authorization' not in s3.requests[-1].headers
        assert s3.requests[-1].url.startswith(f'/{place.bucket}/')


def test_in_a_folder_nothing_else_is_touched(endpoint, s3):
    s3.store(BUCKET, 'folder/mine', b'content')
    with probes.in_folder(clients.connect(endpoint(), KEYS), Target('X', BUCKET, 'folder/')) as place:
        assert not [each for each in probes.ALL if 'own' in each.needs and place.allows(each)]
        for each in probes.PARTS['names'] + probes.PARTS['objects']:
            if place.allows(each):
                each.measure(place)
        assert all(key.startswith(('folder/.rucio-s3-check/', 'folder/mine')) for key in s3.buckets[BUCKET])
    assert list(s3.buckets[BUCKET]) == ['folder/mine']
    assert place.left == ''


def test_what_could_not_be_removed_is_told(endpoint, s3):
    with probes.in_folder(clients.connect(endpoint(), KEYS), Target('X', BUCKET)) as place:
        s3.fail('DeleteObject', error(500, 'InternalError'))
    assert place.left.startswith(f'{BUCKET}/.rucio-s3-check/')


@pytest.mark.parametrize(
    ('answers', 'known'),
    [
        ({}, {}),
        ({'put_if_none_match': '412 PreconditionFailed'}, {}),  # the race was not tried
        ({'put_if_none_match': 'overwritten'}, {'conditional_put': False}),
        ({'put_if_none_match': '403 AccessDenied', 'put_race': 'one wins'}, {}),
        *[({'put_if_none_match': no, 'put_race': 'one wins'}, {}) for no in ('breaks off', 'not allowed', '401', '429 x', '500 x', '503 SlowDown')],
        ({'put_if_none_match': '400 NotImplemented', 'put_race': 'none wins'}, {'conditional_put': False}),
        ({'put_new': 'yes', 'complete_new': 'yes'}, {}),
        ({'put_new': 'yes', 'complete_new': 'yes', 'copy_new': '304'}, {'if_none_match': ('put', 'multipart')}),
        ({'guard_copy': 'heeded'}, {}),
        ({'sorted_listing': 'yes', 'sorted_unicode': 'yes', 'start_after': 'yes'}, {'sorted_listing': True}),
        *[
            ({'sorted_listing': 'yes', 'sorted_unicode': 'yes', 'start_after': 'yes', no: 'no'}, {'sorted_listing': False})
            for no in ('sorted_listing', 'sorted_unicode', 'start_after')
        ],
    ],
)
def test_what_was_not_measured_is_not_judged(answers, known):
    assert verdicts.earned(answers) == known


CHECKSUMS = dict.fromkeys(('wrong_crc32', 'wrong_crc32_of_a_part', 'wrong_md5', 'wrong_md5_of_a_part'), '400 BadDigest') | {'crc32_as_sent': 'yes'}


@pytest.mark.parametrize(
    ('seen', 'checksum'),
    [
        ({}, 'crc32'),
        ({'wrong_crc32_of_a_part': 'accepted'}, 'md5'),
        ({'crc32_as_sent': '411 MissingContentLength'}, 'md5'),
        ({'wrong_crc32': 'accepted', 'wrong_md5': 'accepted'}, 'none'),
        ({'wrong_crc32': 'breaks off'}, None),
    ],
)
def test_the_strongest_checksum_that_is_verified(seen, checksum):
    assert verdicts.earned(CHECKSUMS | seen).get('checksum') == checksum


def test_what_is_loosened_is_told_from_what_is_tightened(endpoint):
    answers = CHECKSUMS | {f'guard_{name}': 'ignored' for name in ('copy', 'prefix', 'host', 'acl', 'attributes', 'lock')}
    answers |= {'put_if_none_match': 'overwritten', 'put_new': 'yes', 'complete_new': '501', 'copy_new': 'yes', 'guard_acl': 'heeded', 'lifecycle': 'yes'}
    found = verdicts.differences(endpoint(checksum='none', signature_guards=('host',)), answers)
    assert {each.setting: (each.measured, each.tightens) for each in found} == {
        'conditional_put': (False, True),
        'checksum': ('crc32', True),
        'signature_guards': (('host', 'acl'), True),
        'if_none_match': (('put', 'copy'), False),
        'lifecycle': (True, False),
    }


class Storage:
    """As the server has it."""

    def __init__(self, connection, prefix, deterministic=True):
        self.rse, self.with_short_timeouts, self.layout = 'X', self, self
        self.protocol, self.deterministic = {'prefix': prefix}, deterministic
        self.connection = lambda: connection


def test_the_server_uses_a_folder_where_it_may_make_no_bucket(endpoint, s3):
    connection = clients.connect(endpoint(), KEYS)
    told = probing.probe(Storage(connection, '/'), 'names')
    assert told['bucket'].startswith('rucio-s3-check-')
    assert {'behaviour': 'dot', 'answer': 'yes'} in told['answers']

    s3.fail('CreateBucket', *(error(403, 'AccessDenied') for _ in range(3)))
    assert probing.probe(Storage(connection, f'/{BUCKET}/a/'), 'names')['bucket'] == BUCKET
    for storage in (Storage(connection, '/'), Storage(connection, f'/{BUCKET}/a/', deterministic=False)):
        with pytest.raises(RSEAccessDenied, match='403 AccessDenied'):
            probing.probe(storage, 'names')
    assert s3.buckets == {BUCKET: {}}


def test_who_interrupts_a_race_lets_all_others_go(monkeypatch):
    """They waited for those that were not started, and the process for them."""
    start, started = threading.Thread.start, []

    def interrupted(thread):
        if len(started) == 2:
            raise KeyboardInterrupt
        start(thread)
        started.append(thread)

    monkeypatch.setattr(threading.Thread, 'start', interrupted)
    written = []
    with pytest.raises(KeyboardInterrupt):
        race(3, written.append)
    for thread in started:
        thread.join(30)
        assert not thread.is_alive()
    assert written == []
