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

"""Several copiers on PostgreSQL, beside Rucio's own daemons, which write into the same rows; and a catalogue that is away for a while."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from faults.proxy import FaultProxy, Stall
from servers import postgres
from servers.conveyor import Conveyor, MiB, Place
from servers.process import TIMEOUT, until
from servers.seaweedfs import SeaweedFS

A, B = 'POSTGRES_A', 'POSTGRES_B'
SMALL, LARGE = 1024, 40 * MiB
REASON = postgres.missing()
pytestmark = [pytest.mark.long, pytest.mark.skipif(REASON is not None, reason=REASON or '')]


@pytest.fixture(scope='module')
def conveyor(tmp_path_factory: pytest.TempPathFactory, plain: SeaweedFS) -> Iterator[Conveyor]:
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(postgres.PostgreSQL(tmp_path_factory.mktemp('postgres')))
        other = stack.enter_context(SeaweedFS(tmp_path_factory.mktemp('other')))
        proxy = stack.enter_context(FaultProxy(other.hostname, other.port))
        places = {A: Place(plain, settings={'bucket_prefix': 'postgres-'}), B: Place(other, proxy)}
        yield Conveyor.make(stack, tmp_path_factory.mktemp, places, database)


def ended(*processes: object) -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


def test_no_file_is_copied_twice(conveyor: Conveyor, unique: str, tmp_path: Path) -> None:
    names = conveyor.upload(unique, *[SMALL] * 30, LARGE)
    rule = conveyor.add_rule(unique, B)
    conveyor.submit()
    stall = conveyor.proxies[B].on('UploadPart', Stall())
    logs = [tmp_path / f'{number}' for number in range(3)]
    claims = 'SELECT external_host, last_processed_by FROM requests WHERE name = :name'
    with contextlib.ExitStack() as stack:
        copiers = [stack.enter_context(conveyor.copier(log, '--copies', '4')) for log in logs]
        others = [
            stack.enter_context(conveyor.server.running(tmp_path / daemon, f'rucio-conveyor-{daemon}', '--sleep-time', '1', *options))
            for daemon, options in (('poller', ('--older-than', '0')), ('finisher', ()))
        ]
        stall.wait()
        # The poller notes its name in the row of the copy that goes on. All the others have come and gone then.
        until(lambda: (conveyor.rows(claims, name=names[-1])[0][1] or '').startswith('conveyor-poller'), others[0])
        until(lambda: len(conveyor.requests(unique)) == 1, others[1])
        [(host, _)] = conveyor.rows(claims, name=names[-1])
        assert host.startswith('rucio-s3-copier/')
        stall.release()
        until(lambda: conveyor.rule_state(rule) == 'OK', others[1])
        ended(*copiers)
    said = ''.join(log.read_text() for log in logs)
    assert (said.count(': relayed, '), said.count(': found, '), said.count(': started')) == (len(names), 0, len(names))
    assert 'Traceback' not in said
    assert conveyor.proxies[B].operations().count('CreateMultipartUpload') == 1
    assert conveyor.is_complete(B, names)


def test_the_catalogue_is_away_for_a_while(conveyor: Conveyor, unique: str, tmp_path: Path) -> None:
    names = conveyor.upload(unique, LARGE)
    rule = conveyor.add_rule(unique, B)
    conveyor.submit()
    stall = conveyor.proxies[B].on('UploadPart', Stall())
    log = tmp_path / 'log'
    with conveyor.copier(log) as process:
        stall.wait()
        with away(conveyor.server.database_url):
            until(lambda: 'The database does not answer' in log.read_text(), process)
            stall.release()
            until(lambda: ': relayed, ' in log.read_text(), process)
        until(lambda: conveyor.requests(unique)[0][0] == 'D', process)
        ended(process)
    said = log.read_text()
    assert (said.count(': started'), said.count(': relayed, '), said.count(': found, ')) == (1, 1, 0)
    conveyor.finish()
    conveyor.server.stop()  # it does not get over it
    conveyor.server.start()
    assert conveyor.rule_state(rule) == 'OK'
    assert conveyor.is_complete(B, names)


@contextlib.contextmanager
def away(url: str) -> Iterator[None]:
    """The database takes no connections, and those that there were have broken."""
    engine = create_engine(url.rpartition('/')[0] + '/template1', isolation_level='AUTOCOMMIT')
    try:
        with engine.connect() as connection:
            connection.execute(text('ALTER DATABASE postgres ALLOW_CONNECTIONS false'))
            connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres'"))
            try:
                yield
            finally:
                connection.execute(text('ALTER DATABASE postgres ALLOW_CONNECTIONS true'))
    finally:
        engine.dispose()
