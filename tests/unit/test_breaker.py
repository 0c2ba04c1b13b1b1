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

import threading

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from rucio.common.exception import ServiceUnavailable
from rucio.common.s3 import breaker, clients, credentials, factory
from rucio.common.s3.endpoint import PERSON, SERVER, Endpoint
from rucio.common.s3.errors import StorageSilentError, Target, is_unreachable, translated
from servers.fake_s3 import Answer, FakeS3, Stalled
from servers.process import until

KEYS = credentials.Static('AKID', 'secret')


@pytest.fixture
def s3():
    with FakeS3() as fake:
        yield fake


@pytest.fixture
def back(monkeypatch):
    """The storage answers again as soon as it is set."""
    made = threading.Event()
    monkeypatch.setattr(breaker, 'PAUSE', 0.01)
    monkeypatch.setattr(breaker, '_answers', lambda _: made.is_set())
    yield made
    made.set()  # the thread that waits for it ends


def client_of(fake, patience=SERVER):
    return clients.connect(Endpoint('X', 'x', fake.url), KEYS, patience._replace(connect_timeout=1, read_timeout=0.2)).client


def refuses(client):
    try:
        client.list_buckets()
    except StorageSilentError:
        return True
    return False


@pytest.mark.usefixtures('back')
def test_one_that_does_not_answer_is_asked_once(s3):
    s3.fail('ListBuckets', *[Stalled()] * 9)
    for _ in range(3):
        with pytest.raises(StorageSilentError):
            client_of(s3).list_buckets()
    assert s3.operations() == ['ListBuckets']


def test_and_again_when_it_answers(s3, back):
    s3.fail('ListBuckets', Stalled())
    assert refuses(client_of(s3))
    back.set()
    until(lambda: not refuses(client_of(s3)))


@pytest.mark.usefixtures('back')
def test_all_clients_of_the_storage_know(s3):
    s3.fail('ListBuckets', Stalled())
    assert refuses(client_of(s3))
    other = clients.connect(Endpoint('Y', 'y', s3.url), credentials.Static('OTHER', 'secret'), SERVER).client
    assert refuses(other)


@pytest.mark.usefixtures('back')
def test_other_storages_and_people_go_on(s3):
    s3.fail('ListBuckets', Stalled())
    assert refuses(client_of(s3))
    assert not refuses(client_of(s3, PERSON))
    with FakeS3() as healthy:
        assert not refuses(client_of(healthy))


@pytest.mark.usefixtures('back')
def test_errors_are_answers(s3):
    s3.fail('ListBuckets', *map(Answer, (500, 503, 403)))
    with pytest.raises(ClientError):
        client_of(s3).list_buckets()
    with pytest.raises(ClientError):
        client_of(s3).list_buckets()
    assert not refuses(client_of(s3))


@pytest.mark.usefixtures('back')
def test_who_refuses_connections_costs_no_time_and_is_asked_again():
    client = clients.connect(Endpoint('X', 'x', 'http://127.0.0.1:9'), KEYS, SERVER._replace(max_attempts=1)).client
    for _ in range(2):
        with pytest.raises(BotoCoreError) as caught:
            client.list_buckets()
        assert not isinstance(caught.value, StorageSilentError)


@pytest.mark.usefixtures('back')
def test_what_a_user_reads(s3):
    s3.fail('ListBuckets', Stalled())
    with pytest.raises(ServiceUnavailable) as caught, translated('ls', Target('X', 'bucket')):
        client_of(s3).list_buckets()
    assert 'RSE X: ls of bucket' in str(caught.value)
    assert f'the storage at {s3.url} does not answer' in str(caught.value)
    assert is_unreachable(caught.value.__cause__)


def test_it_is_asked_whether_it_is_back(s3, monkeypatch):
    monkeypatch.setattr(breaker, 'PAUSE', 0.01)
    s3.fail('ListBuckets', *[Stalled()] * 3, Answer(403))
    client = client_of(s3)
    assert refuses(client)
    until(lambda: not refuses(client))
    assert s3.operations() == ['ListBuckets'] * 5


@pytest.mark.parametrize(('answer', 'is_back'), [(Answer(405), True), (Answer(200, b'<html>a proxy</html>'), True), (Answer(500), True), (Stalled(), False)])
def test_any_answer_counts(s3, answer, is_back):
    client = clients.connect(Endpoint('X', 'x', s3.url), KEYS, PERSON._replace(read_timeout=0.2, max_attempts=1)).client
    s3.fail('ListBuckets', answer)
    assert breaker._answers(client.list_buckets) == is_back


def test_whoever_refuses_connections_takes_no_time():
    client = clients.connect(Endpoint('X', 'x', 'http://127.0.0.1:9'), KEYS, PERSON._replace(max_attempts=1)).client
    assert breaker._answers(client.list_buckets)


@pytest.mark.usefixtures('back')
def test_without_room_for_a_thread_the_storage_is_asked_again(s3, monkeypatch):
    start = threading.Thread.start

    def refuse(thread):
        if thread.name == 'rucio-s3-breaker':
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, 'start', refuse)
    s3.fail('ListBuckets', Stalled())
    client = client_of(s3)
    assert [refuses(client), refuses(client)] == [True, False]


def test_an_sts_at_the_same_address_is_another_service(s3):
    sts = factory.client('sts', factory.bare_session(KEYS.credentials()), s3.url, region='x', patience=SERVER)
    assert {service for _, service, url in breaker._breakers if url == sts.meta.endpoint_url} == {'sts'}
    client_of(s3)
    assert {service for _, service, url in breaker._breakers if url == sts.meta.endpoint_url} == {'s3', 'sts'}
