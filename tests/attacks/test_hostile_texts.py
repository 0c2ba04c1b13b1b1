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

"""The attacker owns a storage, a server or a key: what it says reaches a terminal, a log or a script of somebody else.

What would be got: a terminal that is written to (its title, its clipboard, what the user is shown), a line in a log that never happened, a row of a
table that a script believes.
"""

import logging

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from rucio.common.exception import RucioException
from rucio.common.s3.answers import line_logger, one_line, printable
from rucio.common.s3.errors import Target, describe, local_error, translate, translated
from servers.cli import RucioCli
from servers.fake_rucio import FakeRucio
from servers.fake_s3 import FakeS3

TRICKS = [
    '\x1b[2J\x1b[H',
    '\x1b]0;title\x07',
    '\x1b]52;c;ZXZpbA==\x07',
    '\x9b2J',
    '\x90q\x9c',
    '\u202egnp.exe',
    '\u2066x\u2069',
    '\u200b\u200e',
    'a\nERROR forged line',
    'a\r\nforged',
    'a\x0b\x0c\x1c\x1d\x1e\x85b',
    '\u2028forged\u2029',
    'a\tb',
    '\b\b\b\x7f',
    '\0',
    '\ud800',
    '\U000e0041',
]


def answer(code, message, status=403):
    return ClientError({'Error': {'Code': code, 'Message': message}, 'ResponseMetadata': {'HTTPStatusCode': status}}, 'GetObject')


@pytest.mark.parametrize('trick', TRICKS, ids=ascii)
def test_what_a_storage_says_is_one_printable_line(trick):
    """Was got: U+009B, U+202E and line feeds of an error message on the terminal (any storage)."""
    target = Target('X', f'b{trick}', f'k{trick}')
    for error in (answer(trick, 'm'), answer('AccessDenied', trick), answer(trick, trick, 500), EndpointConnectionError(endpoint_url=trick, error=trick)):
        assert describe(error).isprintable()
        assert str(translate(error, 'get', target).args[0]).isprintable()
        with pytest.raises(RucioException) as caught, translated('get', target):
            raise error
        assert caught.value.__cause__ is None or str(caught.value.__cause__).isprintable()
    assert str(local_error(OSError(2, 'no such file'), f'/tmp/{trick}', reading=True).args[0]).isprintable()


def test_what_a_storage_says_is_short():
    """Would be got: pages of text on a terminal, gigabytes in a log."""
    assert len(describe(answer('C' * 10**6, 'M' * 10**6))) < 1000
    assert len(describe(EndpointConnectionError(endpoint_url='https://h', error='x' * 10**6))) < 1000


@pytest.mark.parametrize('trick', TRICKS, ids=ascii)
def test_a_log_has_no_line_of_somebody_elses(caplog, trick):
    """Was got: `GET /s3/locate%0a2026-11-28 ERROR ...` wrote a line of its own into the server's log; so did a key in the reconciler's."""
    logger = line_logger('rucio.core.s3.attacked')
    with caplog.at_level(logging.INFO):
        logger.warning('S3: %s %s', 'GET', trick)
        logger.warning('%s', f'S3: {trick}')
    assert [record.getMessage().isprintable() for record in caplog.records] == [True, True]
    record = logging.LogRecord('root', 20, '', 1, 'of a heartbeat: %s', (trick,), None)
    assert one_line(record)
    assert record.getMessage().isprintable()


def test_escaped_text_is_still_told_apart():
    assert printable('größe 日本語') == 'größe 日本語'
    assert printable('a\nb') == r'a\nb'
    assert printable('x' * 10, 4) == 'xxxx...'


def test_names_of_a_hostile_server_stay_in_their_row(tmp_path):
    """Would be got: the user reads that a bucket is his which is not; a script takes a second row for another bucket. With --robot a backslash is
    doubled, so that a program tells an escaped line feed from the two characters."""
    rows = [{'scope': f'user.alice{each}', 'bucket': f'b{each}', 'rse': 'X', 'created': each} for each in TRICKS if each != '\ud800']
    rows.append({'scope': r'a\nb', 'bucket': 'b', 'rse': 'X', 'created': None})
    shares = [
        {'kind': 'account', 'scope': 'user.bob', 'name': f'run{each}', 'places': [{'rse': 'X', 'bucket': f'b{each}'}]} for each in TRICKS if each != '\ud800'
    ]
    answers = {'/s3/buckets': {'buckets': rows, 'missing': []}, '/s3/usable': {'shares': shares, 'more': False}}
    refusal = {'ExceptionClass': 'AccessDenied', 'ExceptionMessage': 'no\n\x1b[2Jforged'}
    with FakeRucio(lambda asked: (200, answers[asked.path], {}) if asked.path in answers else (403, refusal, {})) as server:
        alice = RucioCli(tmp_path / 'alice', server, 'alice', 'alice', 'p')
        shown, robot, refused = alice.rucio('s3', 'ls'), alice.rucio('s3', '--robot', 'ls'), alice.rucio('s3', 'make-bucket', 'user.alice')
    assert len(robot.stdout.splitlines()) == len(rows) + len(shares)
    assert {line.count('\t') for line in robot.stdout.splitlines()} == {3}
    assert robot.stdout.splitlines()[len(rows) - 1].startswith(r'a\\nb')
    assert all(line.isprintable() for line in shown.stdout.splitlines())
    assert len(shown.stdout.splitlines()) == len(rows) + len(shares) + 4
    assert '\x1b[2J' not in refused.stderr
    assert not any(line.startswith('forged') for line in refused.stderr.splitlines())


def test_keys_of_a_hostile_bucket_stay_in_their_row(tmp_path):
    """Would be got: another tool puts an object whose key is an escape sequence, and its owner runs `rucio s3 ls` or `du`."""
    with FakeS3() as storage:
        storage.store('user.alice', 'run1/a\x1b[2J\nforged', b'x')
        place = {'rse': 'X', 'bucket': 'user.alice', 'key': '', 'url': f'{storage.url}/user.alice/'}
        answers = {
            '/s3/locate': [place],
            '/s3/place': place,
            '/s3/buckets': {'buckets': [], 'missing': []},
            '/s3/rses/X': {'rse': 'X', 'url': storage.url, 'provider': 'seaweedfs', 'auth': ['anonymous']},
        }
        with FakeRucio(lambda asked: (200, answers[asked.path], {}) if asked.path in answers else (404, None, {})) as server:
            alice = RucioCli(tmp_path / 'alice', server, 'alice', 'alice', 'p')
            place['key'] = 'run1'
            done = alice.rucio('s3', 'du', 'user.alice:run1')
    assert done.returncode == 0, done.stderr
    assert r'run1/a\x1b[2J\nforged' in done.stdout
    assert not any(line.startswith('forged') or '\x1b' in line for line in done.stdout.splitlines())
