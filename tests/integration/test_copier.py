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

"""Rules between S3 RSEs without FTS: the stock submitter, `rucio-s3-copier`, the stock poller and finisher, on real storages."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.proxy import FaultProxy, Stall, after, break_before, corrupt_response, truncate
from servers.conveyor import SCOPE, Conveyor, MiB, Place
from servers.process import TIMEOUT, until
from servers.seaweedfs import SeaweedFS

A, A2, B = 'COPY_A', 'COPY_A2', 'COPY_B'  # the first two are on one storage
SMALL, LARGE = 1024, 64 * MiB

pytestmark = pytest.mark.long


@pytest.fixture(scope='module')
def conveyor(tmp_path_factory: pytest.TempPathFactory, plain: SeaweedFS) -> Iterator[Conveyor]:
    """All requests pass a proxy that counts, and fails on demand."""
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(SeaweedFS(tmp_path_factory.mktemp('other')))
        near, far = (stack.enter_context(FaultProxy(each.hostname, each.port)) for each in (plain, other))
        places = {A: Place(plain, near), A2: Place(plain, near, {'bucket_prefix': 'second-'}), B: Place(other, far)}
        yield Conveyor.make(stack, tmp_path_factory.mktemp, places)


@pytest.fixture(autouse=True)
def _no_faults(conveyor: Conveyor) -> Iterator[None]:
    yield
    for proxy in conveyor.proxies.values():
        proxy.forget()


def test_a_rule_brings_a_dataset_to_another_storage(conveyor: Conveyor, unique: str) -> None:
    names = conveyor.upload(unique, SMALL, 0, LARGE)
    rule = conveyor.add_rule(unique, B)
    conveyor.submit()
    assert {row[:2] for row in conveyor.requests(unique)} == {('S', 's3')}
    assert conveyor.keys(B).isdisjoint(names)
    conveyor.poll()  # it has nothing to do, before and after
    said = conveyor.copy()
    assert said.count(f' {A} -> {B}: relayed, ') == 3
    conveyor.poll()
    conveyor.finish()
    assert conveyor.is_complete(B, names)
    assert conveyor.rule_state(rule) == 'OK'
    assert not conveyor.requests(unique)
    assert not conveyor.uploads(B, unique)


def test_no_byte_leaves_a_storage_that_holds_both(conveyor: Conveyor, unique: str) -> None:
    names = conveyor.upload(unique, SMALL, 0, LARGE)
    rule = conveyor.add_rule(unique, A2)
    conveyor.submit()
    before = len(conveyor.proxies[A].operations())
    said = conveyor.copy()
    asked = [each for each in conveyor.proxies[A].operations()[before:] if 'bucket' not in each]
    # A third request that has waited for a second behind two slow copies asks first whether the storage still answers.
    asked = [each for each in asked if each != 'ListBuckets']
    conveyor.finish()
    assert said.count(': copied, ') == 3, said
    assert (asked.count('CopyObject'), asked.count('HeadObject')) == (3, 4 * 3)
    assert set(asked) == {'CopyObject', 'HeadObject'}
    assert conveyor.is_complete(A2, names)
    assert conveyor.rule_state(rule) == 'OK'


def test_what_is_somebody_elses_is_not_overwritten(conveyor: Conveyor, unique: str) -> None:
    other, same = conveyor.upload(unique, SMALL, SMALL)
    client = conveyor.client(B)
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=SCOPE)
    client.put_object(Bucket=SCOPE, Key=other, Body=b'x' * SMALL)
    content = conveyor.client(A).get_object(Bucket=SCOPE, Key=same)['Body'].read()
    client.put_object(Bucket=SCOPE, Key=same, Body=content)
    rule = conveyor.add_rule(unique, B)
    said = conveyor.bring()
    assert said.count(': found, ') == 1  # what is the file itself is taken for it
    [error] = conveyor.errors(unique)
    assert f"key '{other}': there is an object of {SMALL} bytes already" in error
    assert 'Move it away (or remove it) before you delete the rule' in error
    assert client.get_object(Bucket=SCOPE, Key=other)['Body'].read() == b'x' * SMALL
    assert conveyor.is_complete(B, [same])
    # When the owner has seen to it, Rucio's next try succeeds.
    client.delete_object(Bucket=SCOPE, Key=other)
    conveyor.bring()
    assert conveyor.is_complete(B, [other])
    assert conveyor.rule_state(rule) == 'OK'


def test_a_rule_that_is_deleted_stops_the_copy(conveyor: Conveyor, unique: str, tmp_path: Path) -> None:
    [name] = conveyor.upload(unique, LARGE)
    rule = conveyor.add_rule(unique, B)
    conveyor.submit()
    stall = conveyor.proxies[B].on('UploadPart', Stall())
    with conveyor.copier(tmp_path / 'log') as process:
        stall.wait()
        conveyor.mia.call('update_replication_rule', rule, {'priority': 5})  # stock Rucio asks FTS to do it, for whatever was submitted
        assert conveyor.rows('SELECT priority FROM requests WHERE name = :name', name=name) == [(5,)]
        conveyor.mia.call('update_replication_rule', rule, {'lifetime': -1})
        said = conveyor.daemon('rucio-judge-cleaner', '--run-once')
        assert 'Could not cancel' not in said
        assert not conveyor.requests(unique)
        until(lambda: 'cancelled, or claimed by another instance' in (tmp_path / 'log').read_text(), process)
        stall.release()
        until(lambda: not conveyor.uploads(B, unique), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
    assert name not in conveyor.keys(B)
    assert 'Traceback' not in (tmp_path / 'log').read_text()


def test_a_daemon_that_is_told_to_stop_leaves_the_transfer_to_the_next(conveyor: Conveyor, unique: str, tmp_path: Path) -> None:
    names = conveyor.upload(unique, LARGE)
    rule = conveyor.add_rule(unique, B)
    conveyor.submit()
    stall = conveyor.proxies[B].on('UploadPart', Stall())
    with conveyor.copier(tmp_path / 'log') as process:
        stall.wait()
        [(state, _, claim)] = conveyor.requests(unique)
        assert (state, claim[:16]) == ('S', 'rucio-s3-copier/')
        process.send_signal(signal.SIGTERM)
        stall.release()
        assert process.wait(TIMEOUT) == 0
    assert conveyor.requests(unique) == [('S', 's3', 'rucio-s3-copier')]
    assert not conveyor.uploads(B, unique)
    assert not conveyor.keys(B).intersection(names)
    assert conveyor.copy().count(': relayed, ') == 1
    conveyor.finish()
    assert conveyor.is_complete(B, names)
    assert conveyor.rule_state(rule) == 'OK'


def test_the_destination_fails_and_comes_back(conveyor: Conveyor, unique: str) -> None:
    names = conveyor.upload(unique, SMALL, LARGE)
    rule = conveyor.add_rule(unique, B)
    conveyor.submit()
    conveyor.proxies[B].on('UploadPart', after(conveyor.places[B].storage.kill, break_before))
    try:
        said = conveyor.copy()
    finally:
        conveyor.places[B].storage.kill()
        conveyor.places[B].storage.start()
    assert ': failed. RSE COPY_B: ' in said
    conveyor.finish()
    assert {row[0] for row in conveyor.requests(unique)} == {'Q'}  # Rucio tries again
    assert conveyor.rule_state(rule) == 'REPLICATING'
    conveyor.bring()
    assert conveyor.is_complete(B, names)
    assert conveyor.rule_state(rule) == 'OK'


def test_a_source_that_breaks_off_is_read_on(conveyor: Conveyor, unique: str) -> None:
    names = conveyor.upload(unique, LARGE)
    conveyor.add_rule(unique, B)
    conveyor.submit()
    for keep in (20 * MiB, 3 * MiB, 7):
        conveyor.proxies[A].on('GetObject', truncate(keep))
    before = len(conveyor.proxies[A].seen)
    assert conveyor.copy().count(': relayed, ') == 1
    ranges = [each.headers.get('Range', '').partition('-')[0] for each in conveyor.proxies[A].seen[before:] if each.operation == 'GetObject']
    assert ranges == ['', f'bytes={20 * MiB}', f'bytes={23 * MiB}', f'bytes={23 * MiB + 7}']
    conveyor.finish()
    assert conveyor.is_complete(B, names)


def test_damaged_bytes_do_not_appear_at_the_destination(conveyor: Conveyor, unique: str) -> None:
    names = conveyor.upload(unique, LARGE)
    rule = conveyor.add_rule(unique, B)
    conveyor.submit()
    conveyor.proxies[A].on('GetObject', corrupt_response)
    assert ': failed. RSE COPY_A: get of' in conveyor.copy()
    assert conveyor.keys(B).isdisjoint(names)
    assert not conveyor.uploads(B, unique)
    conveyor.finish()
    conveyor.bring()
    assert conveyor.is_complete(B, names)
    assert conveyor.rule_state(rule) == 'OK'


def test_two_daemons_share_the_work(conveyor: Conveyor, unique: str, tmp_path: Path) -> None:
    names = conveyor.upload(unique, *[SMALL] * 6)
    conveyor.add_rule(unique, B)
    conveyor.submit()
    stalls = [conveyor.proxies[B].on('PutObject', Stall()) for _ in range(2)]
    with conveyor.copier(tmp_path / 'one', '--copies', '1') as one, conveyor.copier(tmp_path / 'two', '--copies', '1') as two:
        for stall in stalls:  # each has one, as neither may have two
            stall.wait()
            stall.release()
        until(lambda: {row[0] for row in conveyor.requests(unique)} == {'D'}, one)
        for process in (one, two):
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
    said = [(tmp_path / log).read_text().count(': relayed, ') for log in ('one', 'two')]
    assert sum(said) == len(names)
    assert min(said) > 0
    conveyor.finish()
    assert conveyor.is_complete(B, names)
