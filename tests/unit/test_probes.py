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

import pytest

from rucio.common.exception import RSEAccessDenied
from rucio.common.s3 import clients, credentials, probes
from rucio.common.s3.errors import Target
from rucio.common.s3.probes import verdicts
from rucio.core.s3.buckets import probing
from servers.fake_s3 import error

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
    assert asked('without_md5', 'without_crc32', 'delete_objects') == {
        'without_md5': '400 InvalidRequest',
        'without_crc32': 'yes',
        'delete_objects': 'yes',
    }


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
    'copy': 'without metadata',
    **dict.fromkeys(('wrong_crc32', 'wrong_crc32_of_a_part', 'wrong_md5', 'wrong_md5_of_a_part'), '400 BadDigest'),
    **dict.fromkeys(('guard_copy', 'guard_acl', 'guard_prefix'), 'heeded'),
    'guard_lock': 'ignored',
    'guard_host': 'host not verified',
}


def test_all_that_is_asked(asked, s3):
    names = [str(each) for each in probes.ALL if str(each) not in ('guard_attributes', 'part_copy')]  # of which this S3 knows nothing
    assert asked(*names) == {name: OTHERS.get(name, 'yes') for name in names}
    s3.unsorted, s3.page = True, 2
    assert asked('sorted_listing', 'start_after', 'pages', 'delete_objects') == {
        'sorted_listing': 'no',
        'start_after': '501 NotImplemented',
        'pages': 'no',
        'delete_objects': 'yes',
    }


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
