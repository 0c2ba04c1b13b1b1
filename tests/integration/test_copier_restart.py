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

"""Rules between S3 RSEs without FTS, with a storage or the copier killed and started again in the middle."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.conveyor import Conveyor, MiB, Place
from servers.process import TIMEOUT, until
from servers.seaweedfs import SeaweedFS

A, B, B2 = 'KILLED_A', 'KILLED_B', 'KILLED_B2'  # the last two are on one storage
SIZES = (1024, 0, 1024 * MiB)

pytestmark = pytest.mark.long


@pytest.fixture(scope='module')
def conveyor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conveyor]:
    with contextlib.ExitStack() as stack:
        here, there = (stack.enter_context(SeaweedFS(tmp_path_factory.mktemp(name))) for name in ('here', 'there'))
        places = {A: Place(here), B: Place(there), B2: Place(there, settings={'bucket_prefix': 'second-'})}
        yield Conveyor.make(stack, tmp_path_factory.mktemp, places)


@pytest.fixture(scope='module')
def names(conveyor: Conveyor) -> list[str]:
    """The files of the dataset `killed`."""
    return conveyor.upload('killed', *SIZES)


@pytest.mark.parametrize(('killed', 'destination'), [(B, B), (A, B2)], ids=['destination', 'source'])
def test_a_storage_is_killed_in_the_middle(conveyor: Conveyor, names: list[str], tmp_path: Path, killed: str, destination: str) -> None:
    rule = conveyor.add_rule('killed', destination, source_replica_expression=A)
    storage = conveyor.places[killed].storage
    with conveyor.copier(tmp_path / 'log') as process:
        conveyor.submit()
        assert until(lambda: conveyor.parts(destination, 'killed') > 10, process)
        storage.kill()
        storage.start()

        def has_arrived() -> bool:
            """By what Rucio's own daemons do next."""
            conveyor.finish()
            conveyor.submit()
            return conveyor.rule_state(rule) == 'OK'

        until(has_arrived, process)
        until(lambda: not conveyor.uploads(destination, 'killed'), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
    assert conveyor.is_complete(destination, names)
    assert not conveyor.requests('killed')
    said = (tmp_path / 'log').read_text()
    assert 'Traceback' not in said
    assert said.count(': relayed, ') == len(names)


def test_a_copier_is_killed_in_the_middle(conveyor: Conveyor, tmp_path: Path) -> None:
    """Another one takes over what it had claimed, as soon as the claims are stale."""
    names = conveyor.upload('orphaned', *SIZES)
    rule = conveyor.add_rule('orphaned', B, source_replica_expression=A)
    with conveyor.copier(tmp_path / 'first') as process:
        conveyor.submit()
        assert until(lambda: conveyor.parts(B, 'orphaned') > 10, process)
        process.kill()
        process.wait(TIMEOUT)
    with conveyor.copier(tmp_path / 'second') as process:

        def has_arrived() -> bool:
            conveyor.finish()
            return conveyor.rule_state(rule) == 'OK'

        until(has_arrived, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
    assert conveyor.is_complete(B, names)
    assert not conveyor.requests('orphaned')
    assert 'Traceback' not in (tmp_path / 'second').read_text()
