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
from contextlib import contextmanager, suppress
from unittest import mock

import pytest
from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError
from botocore.httpsession import URLLib3Session

from rucio.common.exception import RSEAccessDenied, ServiceUnavailable
from rucio.common.s3 import breaker, clients, credentials, factory
from rucio.common.s3.endpoint import DAEMON, PERSON, SERVER, Endpoint
from rucio.common.s3.errors import StorageSilentError, Target, is_unreachable, translated
from servers.fake_s3 import Answer, FakeS3, Lost, Stalled
from servers.process import until

KEYS = credentials.Static('AKID', 'secret')
PATIENT = SERVER._replace(connect_timeout=60, read_timeout=60, answer_timeout=120)  # of who gets an answer, however busy the machine is


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


def client_of(fake, patience=PATIENT):
    return clients.connect(Endpoint('X', 'x', fake.url), KEYS, patience).client


def hasty(fake):
    """Of who gets none."""
    return client_of(fake, SERVER._replace(connect_timeout=1, read_timeout=0.2))


def refuses(client):
    try:
        client.list_buckets()
    except StorageSilentError:
        return True
    return False


@contextmanager
def waiting(s3, client, count):
    """So many threads whose requests the storage does not answer within the block."""

    def ask():
        with suppress(BotoCoreError, ClientError):
            client.head_bucket(Bucket='b')

    s3.fail('HeadBucket', *[Stalled()] * count)
    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    until(lambda: s3.operations().count('HeadBucket') == count)
    yield
    s3.stopping.set()
    for thread in threads:
        thread.join()


@pytest.mark.usefixtures('back')
def test_one_that_does_not_answer_is_asked_once(s3):
    s3.fail('ListBuckets', *[Stalled()] * 9)
    for _ in range(3):
        with pytest.raises(StorageSilentError):
            hasty(s3).list_buckets()
    assert s3.operations() == ['ListBuckets']


def test_and_again_when_it_answers(s3, back):
    s3.fail('ListBuckets', Stalled())
    assert refuses(hasty(s3))
    back.set()
    until(lambda: not refuses(client_of(s3)))


@pytest.mark.usefixtures('back')
def test_all_clients_of_the_storage_know(s3):
    s3.fail('ListBuckets', Stalled())
    assert refuses(hasty(s3))
    other = clients.connect(Endpoint('Y', 'y', s3.url), credentials.Static('OTHER', 'secret'), PATIENT).client
    assert refuses(other)


@pytest.mark.usefixtures('back')
def test_other_storages_and_people_go_on(s3):
    s3.fail('ListBuckets', Stalled())
    assert refuses(hasty(s3))
    assert not refuses(client_of(s3, PERSON))
    with FakeS3() as healthy:
        assert not refuses(client_of(healthy))


@pytest.mark.usefixtures('back')
def test_errors_are_answers(s3, monkeypatch):
    monkeypatch.setattr(breaker, 'SLOW_FAILURE', 60)
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
        hasty(s3).list_buckets()
    assert 'RSE X: ls of bucket' in str(caught.value)
    assert f'the storage at {s3.url} does not answer' in str(caught.value)
    assert is_unreachable(caught.value.__cause__)


def test_it_is_asked_whether_it_is_back(s3, monkeypatch):
    monkeypatch.setattr(breaker, 'PAUSE', 0.01)
    client = client_of(s3)
    session = client._endpoint.http_session
    while '_session' in vars(session):
        session = session._session
    send, silences = session.send, [ReadTimeoutError(endpoint_url=s3.url)] * 3

    def sent(request):
        if silences:
            raise silences.pop()
        return send(request)

    monkeypatch.setattr(session, 'send', sent)
    s3.fail('ListBuckets', Answer(403))
    assert refuses(client)
    until(lambda: not refuses(client))
    assert not silences
    assert s3.operations() == ['ListBuckets'] * 2


@pytest.mark.parametrize(('answer', 'is_back'), [(Answer(405), True), (Answer(200, b'<html>a proxy</html>'), True), (Answer(500), True), (Stalled(), False)])
def test_any_answer_counts(s3, answer, is_back):
    client = client_of(s3, PERSON._replace(read_timeout=30 if is_back else 0.2, max_attempts=1))
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
    s3.fail('ListBuckets', Stalled(), Stalled())
    assert [refuses(hasty(s3)), refuses(hasty(s3)), refuses(client_of(s3))] == [True, True, False]


@pytest.mark.usefixtures('back')
def test_few_threads_wait_for_the_same_storage(s3, monkeypatch):
    """A worker process of 20 threads: two are held, the others are refused before anybody's time-out."""
    monkeypatch.setattr(breaker, 'MAX_WAIT', 0.05)
    monkeypatch.setattr(breaker, '_answers', lambda _: threading.Event().wait(9))
    client = client_of(s3)
    with waiting(s3, client, breaker.MAX_UNANSWERED):
        assert [refuses(client) for _ in range(3)] == [True] * 3
        assert 'ListBuckets' not in s3.operations()


def test_slow_requests_keep_no_others_from_a_storage_that_is_well(s3, monkeypatch):
    """Two large deletions take their time; the storage answers something simple, so that others may ask, too."""
    monkeypatch.setattr(breaker, 'MAX_WAIT', 30)
    client = client_of(s3)
    s3.make_bucket('b')
    with waiting(s3, client, breaker.MAX_UNANSWERED):
        assert [refuses(client) for _ in range(5)] == [False] * 5
        assert s3.operations().count('ListBuckets') == 6  # one of the breaker's


@pytest.mark.usefixtures('back')
@pytest.mark.parametrize(
    'fault', [Answer(504), Answer(500), Lost()], ids=['a gateway whose servers hang', 'a server that fails', 'a connection that is closed at last']
)
def test_a_failure_that_takes_long_is_silence(s3, monkeypatch, fault):
    """Neither is a time-out to botocore, and each would hold a worker nearly as long: so would a resolver that hangs."""
    monkeypatch.setattr(breaker, 'SLOW_FAILURE', 0)
    client = client_of(s3, PATIENT._replace(max_attempts=1))
    s3.fail('ListBuckets', fault)
    with pytest.raises((ClientError, BotoCoreError)):
        client.list_buckets()
    assert refuses(client)
    assert s3.operations() == ['ListBuckets']


@pytest.mark.parametrize('fault', [Answer(504), Lost()])
def test_nor_does_one_close_the_breaker(s3, monkeypatch, fault):
    monkeypatch.setattr(breaker, 'SLOW_FAILURE', 0)
    client = client_of(s3, PERSON._replace(max_attempts=1))
    s3.fail('ListBuckets', fault)
    assert not breaker._answers(client.list_buckets)
    assert breaker._answers(client.list_buckets)


def test_whoever_cannot_ask_leaves_it_to_the_next_request():
    """The keys of the server were taken away meanwhile: its thread would end with a traceback in the log."""
    assert breaker._answers(mock.Mock(side_effect=RSEAccessDenied('no keys')))


@pytest.mark.usefixtures('back')
def test_an_interrupted_request_is_none(s3, monkeypatch):
    client = client_of(s3)
    with monkeypatch.context() as patch:
        patch.setattr(URLLib3Session, 'send', mock.Mock(side_effect=KeyboardInterrupt))
        for _ in range(2 * breaker.MAX_UNANSWERED):
            with pytest.raises(KeyboardInterrupt):
                client.list_buckets()
    assert not refuses(client)


def test_an_sts_at_the_same_address_is_another_service(s3):
    sts = factory.client('sts', factory.bare_session(KEYS.credentials()), s3.url, region='x', patience=SERVER)
    assert {service for _, service, url in breaker._breakers if url == sts.meta.endpoint_url} == {'sts'}
    client_of(s3)
    assert {service for _, service, url in breaker._breakers if url == sts.meta.endpoint_url} == {'s3', 'sts'}


# Daemons


def daemon_of(fake, **more):
    patience = DAEMON._replace(**{'connect_timeout': 1, 'read_timeout': 0.2, 'max_attempts': 2} | more)
    return clients.connect(Endpoint('X', 'x', fake.url), KEYS, patience).client


@pytest.fixture
def doubts_little(monkeypatch):
    monkeypatch.setattr(breaker, 'MAX_DOUBT', 0.05)
    monkeypatch.setattr('botocore.retries.standard.ExponentialBackoff.delay_amount', lambda *_: 0)


@pytest.mark.usefixtures('back', 'doubts_little')
def test_a_daemon_asks_a_silent_storage_once(s3):
    s3.fail('ListObjectsV2', *[Stalled()] * 9)
    for _ in range(3):
        with pytest.raises(StorageSilentError):
            daemon_of(s3).list_objects_v2(Bucket='b')
    assert s3.operations() == ['ListObjectsV2']
    assert breaker.is_silent(s3.url)


@pytest.mark.usefixtures('doubts_little')
def test_a_slow_listing_of_a_storage_that_is_well_is_tried_again(s3, monkeypatch):
    """The storage answers something simple: the server of people would refuse all until then."""
    monkeypatch.setattr(breaker, 'MAX_DOUBT', 60)
    s3.make_bucket('b')
    s3.fail('ListObjectsV2', Stalled())
    daemon_of(s3).list_objects_v2(Bucket='b')
    assert s3.operations() == ['ListObjectsV2', 'ListBuckets', 'ListObjectsV2']
    assert not breaker.is_silent(s3.url)


@pytest.mark.usefixtures('back')
def test_a_daemon_may_have_any_number_of_large_requests(s3):
    """A copier has 4 files with 10 parts each under way, and none of them waits for the others."""
    client, count = daemon_of(s3, read_timeout=5), 4 * breaker.MAX_UNANSWERED
    with waiting(s3, client, count):
        assert s3.operations().count('HeadBucket') == count


@pytest.mark.usefixtures('back', 'doubts_little')
@pytest.mark.parametrize('fault', [Answer(504), Lost()])
def test_a_daemon_takes_a_failure_that_takes_long_for_silence(s3, monkeypatch, fault):
    monkeypatch.setattr(breaker, 'SLOW_FAILURE_UNATTENDED', 0)
    client = client_of(s3, DAEMON._replace(max_attempts=1))
    s3.fail('ListBuckets', fault)
    with pytest.raises((ClientError, BotoCoreError)):
        client.list_buckets()
    assert refuses(client)


@pytest.mark.usefixtures('back')
def test_nobody_is_known_to_be_silent_who_was_not_asked(s3):
    assert not breaker.is_silent(s3.url)


# What counts, and for how long


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(breaker, 'time', made)
    return made


@pytest.mark.usefixtures('back')
@pytest.mark.parametrize(('unattended', 'seconds', 'is_silent'), [(False, 3, False), (False, 3.1, True), (True, 30, False), (True, 30.1, True)])
def test_how_long_a_failure_may_take(monkeypatch, clock, unattended, seconds, is_silent):
    monkeypatch.setattr(breaker, 'MAX_DOUBT', 0.01)
    made = breaker._Breaker('https://s3', 's3')
    with made.turn(None, unattended) as failed:
        clock.now += seconds
        failed[:] = [True]
    assert made.is_silent is is_silent


@pytest.mark.usefixtures('back')
def test_an_answer_may_take_any_time(clock):
    made = breaker._Breaker('https://s3', 's3')
    for failed_at_last in ([False], []):
        with made.turn(None, False) as failed:
            clock.now += 100
            failed[:] = failed_at_last
    assert not made.is_silent


@pytest.mark.parametrize(
    ('raised', 'seconds', 'is_answer'),
    [
        (None, 100, True),
        (ClientError({'ResponseMetadata': {'HTTPStatusCode': 500}}, 'X'), 3, True),
        (ClientError({'ResponseMetadata': {'HTTPStatusCode': 500}}, 'X'), 3.1, False),
        (ClientError({'ResponseMetadata': {'HTTPStatusCode': 499}}, 'X'), 100, True),
        (OSError(), 3, True),
        (OSError(), 3.1, False),
        (ReadTimeoutError(endpoint_url='x'), 0, False),
        (StorageSilentError(url='x'), 0, False),
    ],
)
def test_what_shows_that_a_storage_answers_again(clock, raised, seconds, is_answer):
    def question():
        clock.now += seconds
        if raised:
            raise raised

    assert breaker._answers(question) is is_answer


@pytest.fixture
def never(monkeypatch):
    """A question that is answered at the end of the test."""
    ended = threading.Event()
    monkeypatch.setattr(breaker, 'MAX_WAIT', 0.01)
    yield lambda: ended.wait(30)
    ended.set()


def test_an_interrupted_request_is_not_counted_twice(never):
    """Another one was answered meanwhile: from then on, two may be unanswered, as ever."""
    made = breaker._Breaker('https://s3', 's3')

    def interrupted():
        with made.turn(never, False):
            with made.turn(never, False):
                pass
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with made.turn(never, False), made.turn(never, False), pytest.raises(StorageSilentError), made.turn(never, False):
        pytest.fail('a third one was sent')


def test_an_answer_to_anybody_shows_that_a_storage_is_well(never):
    made = breaker._Breaker('https://s3', 's3')

    def answered():
        until(lambda: made._asking)
        with made.turn(never, True):
            pass

    other = threading.Thread(target=answered)
    other.start()
    with pytest.raises(ReadTimeoutError), made.turn(never, True):
        raise ReadTimeoutError(endpoint_url='https://s3')
    other.join()
    assert not made.is_silent
    assert made._asking.daemon  # it does not keep the process


@pytest.mark.usefixtures('back')
def test_each_rse_of_a_storage_is_told(monkeypatch):
    told = []
    monkeypatch.setattr(breaker.monitoring, 'silence', lambda *said: told.append(said))
    made, one, other = breaker._Breaker('https://s3', 'sts'), breaker.RSE('X', '1'), breaker.RSE('Y', '2')
    for rse in (one, None, one):
        made.tell(rse)
    assert told == [(one, 'sts', False)]
    made.tell(other)
    with pytest.raises(StorageSilentError), made.turn(None, False):
        raise ReadTimeoutError(endpoint_url='https://s3')
    assert set(told[2:]) == {(one, 'sts', True), (other, 'sts', True)}
    assert len(told) == 4
    made.tell(breaker.RSE('Z', '3'))
    assert told[4:] == [(breaker.RSE('Z', '3'), 'sts', True)]


@pytest.mark.usefixtures('back')
def test_a_refusal_that_takes_long_is_an_answer(s3, monkeypatch):
    monkeypatch.setattr(breaker, 'SLOW_FAILURE', 0)
    s3.fail('ListBuckets', Answer(499))
    client = client_of(s3, PATIENT._replace(max_attempts=1))
    with pytest.raises(ClientError):
        client.list_buckets()
    assert not refuses(client)


@pytest.fixture
def third(monkeypatch, never):
    """Call it while two requests of a breaker are unanswered: it returns when a third one waits; and what became of that, at last."""
    monkeypatch.setattr(breaker, 'MAX_WAIT', 60)
    made, outcome = breaker._Breaker('https://s3', 's3'), []

    def ask():
        try:
            with made.turn(never, False):
                outcome.append('sent')
        except StorageSilentError:
            outcome.append('refused')

    thread = threading.Thread(target=ask)

    def wait():
        thread.start()
        until(lambda: made._asking)

    return made, wait, lambda: thread.join() or outcome


def test_who_waits_goes_on_with_the_first_answer(third, never):
    made, wait, outcome = third
    with made.turn(never, False):
        with made.turn(never, False):
            wait()
        assert outcome() == ['sent']


def test_who_waits_is_refused_with_the_first_time_out(third, never):
    made, wait, outcome = third

    def timed_out():
        with made.turn(never, False):
            wait()
            raise ReadTimeoutError(endpoint_url='https://s3')

    with made.turn(never, False):
        with pytest.raises(StorageSilentError):
            timed_out()
        assert outcome() == ['refused']


@pytest.mark.usefixtures('back')
def test_a_doubt_ends_when_the_storage_is_known_to_be_silent(monkeypatch):
    monkeypatch.setattr(breaker, 'MAX_DOUBT', 60)
    made = breaker._Breaker('https://s3', 's3')
    with pytest.raises(StorageSilentError), made.turn(None, True):
        raise ReadTimeoutError(endpoint_url='https://s3')
    assert made.is_silent


def test_the_rse_of_a_client_is_told(s3, monkeypatch):
    told = []
    monkeypatch.setattr(breaker.monitoring, 'silence', lambda *said: told.append(said))
    factory.client('s3', factory.bare_session(None), s3.url, region='x', patience=SERVER, rse=breaker.RSE('X', '1'))
    assert told == [(breaker.RSE('X', '1'), 's3', False)]


def test_for_a_waiting_user_one_time_out_is_enough():
    """Even if the storage would answer something simple: its worker is held as long as that takes."""
    for unattended, raised in ((False, StorageSilentError), (True, ReadTimeoutError)):
        with pytest.raises(raised), breaker._Breaker('https://s3', 's3').turn(lambda: None, unattended):
            raise ReadTimeoutError(endpoint_url='https://s3')


@pytest.mark.parametrize('unattended', [False, True])
def test_after_a_slow_failure_only_a_daemon_asks_something_simple(monkeypatch, clock, never, unattended):
    monkeypatch.setattr(breaker._Breaker, '_answers_soon', lambda *_: True)
    made = breaker._Breaker('https://s3', 's3')
    with made.turn(never, unattended) as failed:
        clock.now += 31
        failed[:] = [True]
    assert made.is_silent is not unattended


def test_a_storage_that_answers_nobody_in_time_is_silent(monkeypatch, never):
    monkeypatch.setattr(breaker, 'MAX_DOUBT', 0.01)
    made = breaker._Breaker('https://s3', 's3')
    with pytest.raises(StorageSilentError), made.turn(never, True):
        raise ReadTimeoutError(endpoint_url='https://s3')
    assert made.is_silent
