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

"""How often an account may have something signed, or new keys."""

import threading
from contextlib import nullcontext
from types import SimpleNamespace
from unittest import mock

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

import flask

from rucio.common.exception import ConfigurationError
from rucio.common.s3 import api
from rucio.core.s3.auth import rates
from rucio.core.s3.rate_limiter import RateLimiter
from rucio.gateway import s3 as gateway
from rucio.web.rest.flaskapi.v1.s3base import S3View

OPTION = 'signatures_per_second'


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The time, in seconds: ``clock[0]``."""
    now = [1000.0]
    monkeypatch.setattr(rates, 'monotonic', lambda: now[0])
    rates.reset()
    yield now
    rates.reset()


@pytest.fixture(autouse=True)
def limits(rucio_cfg):
    rucio_cfg({'s3': {OPTION: '10', 'vends_per_second': '1'}})


def spent(count=1, account='alice', vo='def', option=OPTION):
    """How many calls of this size are served until one is not, and when it would be."""
    for number in range(1000):
        try:
            rates.spend(option, account, vo, count)
        except rates.TooManyRequests as error:
            return number, error.seconds
    return None


def test_bursts_and_then_the_rate(clock):
    assert spent() == (50, 1)
    clock[0] += 2
    assert spent() == (20, 1)
    clock[0] += 3600
    assert spent() == (50, 1)


def test_a_large_call_is_served_and_paid_for_afterwards(clock):
    rates.spend(OPTION, 'alice', 'def', 100)
    assert spent() == (0, 5)
    with pytest.raises(rates.TooManyRequests, match=r'Account alice exceeded its rate limit: the limit of signatures is 10 per second\.'):
        rates.spend(OPTION, 'alice', 'def')
    clock[0] += 4
    assert spent() == (0, 1)
    clock[0] += 2
    assert spent() == (10, 1)


def test_what_is_refused_costs_nothing(clock):
    spent()
    for _ in range(100):
        spent()
    clock[0] += 1
    assert spent() == (10, 1)


def test_each_account_vo_and_kind_has_its_own():
    assert spent() == (50, 1)
    assert spent(account='bob') == spent(vo='other') == (50, 1)
    assert spent(option='vends_per_second') == (5, 1)


def test_zero_is_no_limit(rucio_cfg):
    rucio_cfg({'s3': {OPTION: '0'}})
    assert spent() is None


def test_without_a_setting_it_is_what_the_documentation_says(rucio_cfg):
    rucio_cfg({})
    assert spent(1000) == (10, 1)
    assert spent(option='vends_per_second') == (50, 1)


@pytest.mark.parametrize('value', ['many', '-1', 'nan'])
def test_a_wrong_setting_is_named(rucio_cfg, value):
    rucio_cfg({'s3': {OPTION: value}})
    with pytest.raises(ConfigurationError, match=rf"rucio.cfg \[s3\]: '{OPTION}'"):
        spent()


def test_threads_share_what_there_is():
    served = []

    def ask():
        served.append(spent()[0])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(served) == 50


def test_a_storage_s_settings_are_not_disturbed(rse, rucio_cfg):
    """They stand in the same section of rucio.cfg."""
    from rucio.common.s3.endpoint import Endpoint  # noqa: PLC0415

    settings = rse()
    assert Endpoint.load(settings, settings['protocols'][0]).provider


def test_who_asks_too_often_is_refused_before_anything_is_looked_up(monkeypatch):
    def lookup(*_):
        raise AssertionError('the database was asked')

    monkeypatch.setattr(gateway, 'db_session', lookup)
    monkeypatch.setattr(gateway, 'read_if_needed', lookup)
    rates.spend(OPTION, 'alice', 'def', 51)
    with pytest.raises(rates.TooManyRequests):
        gateway.sign(api.Sign(rse='X', requests=[{}] * 1000), 'alice')


def test_the_keys_in_bodies_count_as_signatures(monkeypatch):
    monkeypatch.setattr(gateway, 'db_session', lambda _: nullcontext())
    monkeypatch.setattr(gateway.storages, 'get_storage', mock.Mock())
    monkeypatch.setattr(gateway.shared_keys, 'neighbours', lambda *_, **__: [])
    deletion = SimpleNamespace(keys=60, touches=(), lockable='', any_body=False, stores=False)
    monkeypatch.setattr(gateway, 'signing', mock.Mock(**{'check.return_value': [deletion]}))
    gateway.sign(api.Sign(rse='X', requests=[{}]), 'alice')
    with pytest.raises(rates.TooManyRequests):
        gateway.sign(api.Sign(rse='X', requests=[{}]), 'alice')


def test_a_call_that_takes_more_than_is_left_is_served(monkeypatch):
    """It was refused, and charged, as the keys in its bodies came after: none."""
    monkeypatch.setattr(gateway.storages, 'get_storage', mock.Mock())
    monkeypatch.setattr(gateway.shared_keys, 'neighbours', lambda *_, **__: [])
    reading = SimpleNamespace(keys=0, touches=(), lockable='', any_body=False, stores=False)
    monkeypatch.setattr(gateway, 'signing', mock.Mock(**{'check.return_value': [reading] * 100, 'sign.return_value': ['signed']}))
    assert gateway.sign(api.Sign(rse='X', requests=[{}] * 100), 'alice') == {'responses': ['signed']}
    with pytest.raises(rates.TooManyRequests):
        gateway.sign(api.Sign(rse='X', requests=[{}]), 'alice')


def test_who_asked_longest_ago_is_forgotten():
    limiter = RateLimiter(at_once=10, per_second=0, remembered=3)
    for who in 'abcad':
        limiter.take(who, 1)
    assert {who: limiter.available(who) for who in 'abcd'} == {'a': 8, 'b': 10, 'c': 9, 'd': 9}


def test_the_answer_says_when_it_may_be_asked_again():
    class View(S3View):
        def get(self):
            raise rates.TooManyRequests('Account alice asked too often', 7)

    app = flask.Flask(__name__)
    app.add_url_rule('/', view_func=View.as_view('view'))
    answer = app.test_client().get('/')
    assert (answer.status_code, answer.headers['Retry-After']) == (429, '7')
    assert answer.headers['ExceptionClass'] == 'ResourceTemporaryUnavailable'
    assert 'alice asked too often' in answer.text
