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


from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from rucio.common.exception import RSEAccessDenied
from rucio.common.s3 import clients, request_ids
from rucio.common.s3.credentials import Static
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target, translated
from servers.fake_s3 import Answer, FakeS3

KEYS = Static('AKID', 'secret')
MINE = '0123456789abcdef'


@pytest.fixture
def s3():
    with FakeS3() as fake:
        yield fake


def client_of(s3):
    return clients.connect(Endpoint('X', 'x', s3.url, max_attempts=2), KEYS).client


def agents(s3):
    return [request.headers['user-agent'] for request in s3.requests]


def test_a_storage_can_log_the_request_that_is_served(s3):
    """Each attempt has it once, and the signature does not cover it."""
    s3.fail('ListBuckets', Answer(500))
    with request_ids.use(MINE):
        client_of(s3).list_buckets()
    assert [agent.count('rucio-s3-request/') for agent in agents(s3)] == [1, 1]
    assert all(agent.endswith(f' rucio-s3-request/{MINE}') for agent in agents(s3))
    assert 'user-agent' not in s3.requests[0].headers['authorization']


def test_a_command_has_one_in_all_its_threads(s3):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: client_of(s3).list_buckets(), range(3)))
    assert {agent.rpartition('/')[2] for agent in agents(s3)} == {request_ids.current()}
    assert len(request_ids.current()) == 16


def test_threads_that_ask_at_the_same_moment_get_the_same(monkeypatch):
    monkeypatch.setattr(request_ids, '_of_processes', {})
    make, others = request_ids.secrets.token_hex, []

    def make_slowly(size):
        monkeypatch.setattr(request_ids.secrets, 'token_hex', make)
        with ThreadPoolExecutor(1) as pool:
            others.append(pool.submit(request_ids.current).result())
        return make(size)

    monkeypatch.setattr(request_ids.secrets, 'token_hex', make_slowly)
    assert [request_ids.current()] == others


def test_threads_that_serve_a_request_have_its_id():
    with request_ids.use(MINE), ThreadPoolExecutor(1) as pool:
        assert pool.submit(request_ids.carried(request_ids.current)).result() == MINE
        assert pool.submit(request_ids.current).result() != MINE
    assert request_ids.current() != MINE


@pytest.mark.parametrize('text', [MINE, '1b4e28ba-2fa1-11d2-883f-0016d3cca427', 'A' * 64])
def test_an_id_of_a_client_is_taken(text):
    assert request_ids.accepted(text) == text


@pytest.mark.parametrize(
    'text',
    [None, '', 'short', 'A' * 65, f'{MINE}\n', f'{MINE} x-amz-acl/public', f'{MINE}\r\nHost: x', '\x1b[31mabcdefgh', 'é' * 16, '../../etc/passwd', '%s%s%s%s'],
)
def test_what_is_no_id_is_replaced(text):
    """Whatever the client sends goes into the log of the server and the headers of its requests to storages."""
    assert text != request_ids.accepted(text)
    assert len(request_ids.accepted(text)) == 16


def refused(s3, storage_id):
    s3.fail('ListBuckets', Answer(403, b'<Error><Code>AccessDenied</Code></Error>', (('x-amz-request-id', storage_id),)))
    with pytest.raises(RSEAccessDenied) as caught, translated('ls', Target('X', 'b')), request_ids.use(MINE):
        client_of(s3).list_buckets()
    return str(caught.value)


def test_an_error_names_both(s3):
    with request_ids.use(MINE):
        assert refused(s3, 'tx000001-0065-default').endswith(f' [request {MINE}, of the storage tx000001-0065-default]')


@pytest.mark.parametrize('storage_id', ['x' * 129, '\x1b[31m', ']', 'a b', ''])
def test_what_is_no_id_of_a_storage_is_not_shown(s3, storage_id):
    assert 'of the storage' not in refused(s3, storage_id)


def test_messages_that_differ_in_ids_alone_are_the_same(s3):
    """Or a daemon would log the same trouble each time, and not once in an interval."""
    one, other = refused(s3, 'tx1'), refused(s3, 'tx2')
    assert one != other
    assert request_ids.without(one) == request_ids.without(other)
    assert one.startswith(request_ids.without(one))
    assert 'AccessDenied' in request_ids.without(one)


@pytest.mark.parametrize(('given', 'shown'), [(None, ''), ('', ''), (b'tx1', 'tx1'), ('tx1', 'tx1'), (7, '7'), ('\xe9', ''), (b'\xe9', '')])
def test_the_id_of_a_storage_may_be_bytes(given, shown):
    assert request_ids.of_storage(given) == shown
    with request_ids.use(MINE):
        assert request_ids.told(given) == (f' [request {MINE}, of the storage {shown}]' if shown else '')


@pytest.mark.parametrize(
    ('agent', 'sent'), [(b'aws', f'aws rucio-s3-request/{MINE}'), ('aws', f'aws rucio-s3-request/{MINE}'), (None, f'rucio-s3-request/{MINE}')]
)
def test_the_id_is_added_to_whatever_the_client_says_of_itself(agent, sent):
    added = {}
    client = SimpleNamespace(meta=SimpleNamespace(events=SimpleNamespace(register_first=added.__setitem__)))
    request_ids.mark(client)
    request = SimpleNamespace(headers={} if agent is None else {'User-Agent': agent})
    with request_ids.use(MINE):
        added['before-send'](request=request)
    assert request.headers['User-Agent'] == sent


def test_a_forked_process_has_an_id_of_its_own(monkeypatch):
    mine = request_ids.current()
    monkeypatch.setattr(request_ids.os, 'getpid', lambda: 1)
    assert request_ids.current() != mine
