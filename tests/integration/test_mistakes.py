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

"""The table of mistakes in docs/behaviour.md is what `rucio` says: each of them is made again. `make record` writes it."""

from importlib.metadata import version

import pytest

from servers import mistakes
from servers.cli import RucioCli
from servers.mistakes import MISTAKES, Mistake, Scene
from servers.seaweedfs import SeaweedFS


@pytest.fixture(scope='module')
def scene(team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory, sts: SeaweedFS, tls: SeaweedFS) -> Scene:
    return Scene.make(team_root, tmp_path_factory.mktemp, sts, tls)


def test_the_table_has_each_mistake_once():
    assert [row.partition(' | ')[0] for row in mistakes.rows()] == [f'| {each.what}' for each in MISTAKES]
    assert len(MISTAKES) >= 50


CASES = [pytest.param(*each, id=each[1].line) for each in enumerate(MISTAKES)]


@pytest.mark.long
@pytest.mark.skipif(not version('rucio').startswith('41.'), reason='stock Rucio says some of it in other words')
@pytest.mark.parametrize(('number', 'mistake'), CASES)
def test_a_mistake(scene: Scene, number: int, mistake: Mistake):
    row = scene.row(mistake)
    assert 'Traceback' not in row.said
    assert 'unexpected/unknown error' not in row.said
    assert mistakes.settled(mistakes.written(row)) == mistakes.settled(mistakes.rows()[number])
