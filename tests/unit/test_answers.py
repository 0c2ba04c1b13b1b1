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

"""What a Rucio server may answer: see also tests/attacks/test_hostile_sts.py."""

import logging

import pytest

from rucio.common.exception import ServiceUnavailable
from rucio.common.s3 import answers


def test_signatures_with_an_empty_header():
    """The server signs headers with no value, which storages would heed if they came unsigned."""
    signed = {'uri': 'https://s3:443/b/k', 'headers': {'Authorization': ['AWS4-HMAC-SHA256 x'], 'x-forwarded-prefix': ['']}}
    assert answers.checked_signatures('The server', {'responses': [signed]}) == [signed]


@pytest.mark.parametrize('value', ['a\r\nx-amz-acl: public-read', 'a\n', '\x00', 'ü', 7, None])
def test_signatures_with_more_than_a_line(value):
    signed = {'uri': 'https://s3:443/b/k', 'headers': {'Authorization': [value]}}
    with pytest.raises(ServiceUnavailable, match='invalid signatures'):
        answers.checked_signatures('The server', {'responses': [signed]})


KEYS = {
    'rse': 'X', 'bucket': 'user.alice', 'prefix': 'run1/', 'write': False, 'access_key': 'A', 'secret_key': 'b', 'session_token': 't',
    'expiration': '2026-01-01T00:00:00Z', 'region': 'eu-1',
}  # fmt: skip


@pytest.mark.parametrize('change', [{}, {'region': None}, {'prefix': ''}, {'prefix': 'x' * 1024}, {'write': True}, {'extra': 7}, {'prefix': '\ud800'}])
def test_keys_that_are_complete(change):
    assert answers.checked_keys('The server', KEYS | change) == KEYS | change


@pytest.mark.parametrize(
    ('change', 'found'),
    [
        *[({name: None}, f'invalid {name}') for name in ('rse', 'bucket', 'access_key', 'secret_key', 'session_token', 'expiration')],
        ({'access_key': None}, 'invalid access_key: it is missing'),
        ({'access_key': 7}, 'invalid access_key: it is not text, but int'),
        ({'access_key': ''}, 'invalid access_key: it is empty'),
        ({'access_key': '!~' * 200}, 'invalid access_key: it has the wrong format'),
        ({'access_key': 'a b'}, r'invalid access_key: it contains the character U\+0020'),
        ({'secret_key': 'a\n'}, r'invalid secret_key: it contains the character U\+000A'),
        ({'session_token': 'x' * (16 * 1024 + 1)}, 'invalid session_token: it has 16385 characters'),
        ({'expiration': '2026-13-01T00:00:00Z'}, 'invalid expiration: it has the wrong format'),
        ({'expiration': 'tomorrow'}, 'invalid expiration'),
        ({'region': 'a b'}, 'invalid region'),
        ({'prefix': None}, 'without saying what they are for'),
        ({'prefix': 'x' * 1025}, 'without saying what they are for'),
        ({'prefix': 'é' * 513}, 'without saying what they are for'),
        ({'write': 1}, 'without saying what they are for'),
    ],
)
def test_keys_that_are_not(change, found):
    with pytest.raises(ServiceUnavailable, match=f'^(.|\n)*The server returned (.|\n)*{found}') as error:
        answers.checked_keys('The server', KEYS | change)
    assert not any(isinstance(value, str) and len(value) > 1 and value in str(error.value) for value in change.values()), 'it may be a secret'


@pytest.mark.parametrize(
    ('name', 'longest'),
    [
        *(('access_key', 256), ('secret_key', 1024), ('session_token', 16 * 1024), ('region', 63), ('bucket', 255), ('rse', 255), ('signed_url', 16 * 1024)),
    ],
)
def test_how_long_a_value_may_be(name, longest):
    assert answers.is_valid(name, 'a')
    assert answers.is_valid(name, 'a' * longest)
    assert not answers.is_valid(name, 'a' * (longest + 1))
    assert answers.is_valid(name, '') is (name == 'region')
    assert not answers.is_valid(name, 'a\n')
    assert not answers.is_valid(name, 7)


@pytest.mark.parametrize(
    ('name', 'value', 'valid'),
    [
        ('url', 'https://h', True),
        ('url', 'http://h:1/x?y', True),
        ('url', 'https://' + 'h' * 1024, True),
        ('url', 'https://' + 'h' * 1025, False),
        ('url', 'https://', False),
        ('url', 'ftp://h', False),
        ('url', 'file:///etc/passwd', False),
        ('url', ' https://h', False),
        ('url', 'https://h h', False),
        ('region', '-a', False),
        ('region', 'eu-west-1', True),
        ('region', 'a/b', False),
        ('bucket', 'User.alice_1-', True),
        ('bucket', 'a/b', False),
        ('rse', 'SITE_S3', True),
        ('rse', '../x', False),
        ('expiration', '2026-01-01T00:00:00Z', True),
        ('expiration', '2026-01-01T00:00:00', False),
        ('expiration', '2026-01-01T24:61:00Z', False),
        ('access_key', 'a=b!~', True),
        ('access_key', 'a\x7f', False),
    ],
)
def test_what_a_value_may_be(name, value, valid):
    assert answers.is_valid(name, value) is valid
    if valid:
        assert answers.checked('The server', name, value) == value
    else:
        with pytest.raises(ServiceUnavailable, match=f'The server returned an invalid {name}'):
            answers.checked('The server', name, value)


@pytest.mark.parametrize(
    'signed',
    [
        {'uri': 'https://s3/b/k\r\nX: y', 'headers': {'Authorization': ['x']}},
        {'uri': 'https://s3/b/k', 'headers': {'Authorization\r\nX': ['x']}},
        {'uri': 'https://s3/b/k', 'headers': {'Authorization': ['x', 'a\nb']}},
        {'uri': 'https://s3/b/k', 'headers': {'Authorization': ['x'], 'Other': 'y'}},
        {'uri': 'https://s3/b/k', 'headers': {'Authorization': ['x' * 65537]}},
        {'uri': None, 'headers': {}},
    ],
)
def test_no_part_of_a_signature_has_another_line(signed):
    good = {'uri': 'https://s3:443/b/k', 'headers': {'Authorization': ['x' * 65536]}}
    assert answers.checked_signatures('The server', {'responses': [good, good]}) == [good, good]
    with pytest.raises(ServiceUnavailable, match='The server returned invalid signatures'):
        answers.checked_signatures('The server', {'responses': [good, signed]})


def test_a_record_of_a_log_is_one_line(caplog):
    logger = answers.line_logger('rucio.test.lines')
    logger.warning('key %s: %d', 'a\nFORGED\x1b', 7)
    logger.warning('plain %s', 'é')
    assert caplog.messages == ['key a\\nFORGED\\x1b: 7', 'plain é']
    record = logging.LogRecord('x', logging.INFO, '', 0, 'plain %s', ('b',), None)
    assert answers.one_line(record) is True
    assert record.args == ('b',)


def test_what_is_no_answer_at_all():
    with pytest.raises(ServiceUnavailable, match='The server returned list instead of keys'):
        answers.checked_keys('The server', [KEYS])
    for answer in (
        {},
        None,
        {'responses': [{'uri': 'x'}]},
        {'responses': [{'uri': 'x', 'headers': {'a': 'b'}}]},
        {'responses': [{'uri': 'x', 'headers': {'a': []}}]},
    ):
        with pytest.raises(ServiceUnavailable, match='invalid signatures'):
            answers.checked_signatures('The server', answer)


@pytest.mark.parametrize(
    ('text', 'longest', 'shown'),
    [('abc', None, 'abc'), ('abc', 3, 'abc'), ('abcd', 3, 'abc...'), ('a\x07\u2028é', None, 'a\\x07\\u2028é'), ('a\n' * 2, 3, 'a\\na...')],
)
def test_what_is_printed_is_one_line(text, longest, shown):
    assert answers.printable(text, longest) == shown
