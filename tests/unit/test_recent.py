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

"""What was found out is known for some seconds, and not too much of it."""

import threading

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.core.s3 import recent
from rucio.core.s3.recent import Recent


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(recent, 'monotonic', lambda: now[0])
    return now


def test_a_fact_counts_from_when_it_was_asked_for(clock):
    facts = Recent(5)
    asked = clock[0]
    clock[0] += 2  # the database took so long
    facts.add('a', asked)
    for seconds, known in ((2.9, True), (0.1, False)):
        clock[0] += seconds
        assert facts.has('a') is known
    assert not facts.has('b')


def test_what_is_asked_again_counts_for_longer(clock):
    facts = Recent(5)
    for _ in range(2):
        facts.add('a', clock[0])
        clock[0] += 4
    assert facts.has('a')


def test_the_oldest_are_forgotten_first(clock):
    facts = Recent(5, most=3)
    for name in 'abcad':
        facts.add(name, clock[0])
    assert [name for name in 'abcd' if facts.has(name)] == ['a', 'c', 'd']


def test_threads_that_add_at_once(clock):
    facts = Recent(5, most=10)
    threads = [threading.Thread(target=lambda each=each: [facts.add((each, number), clock[0]) for number in range(500)]) for each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(facts) == 10


def test_all_is_forgotten(clock):
    facts = Recent(5)
    facts.add('a', clock[0])
    recent.forget_all()
    assert not facts.has('a')
