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

"""The reconciler in random runs in which everything fails: see `reconciler_runs`, which says how one of them is replayed.

Twenty runs are for every day; `make test-long` makes 120. RUCIO_S3_TEST_SEEDS=1000-1400 takes other seeds than the first.
"""

import os

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from faults import seeds
from servers.rucio_server import RucioServer

LONG = bool(os.environ.get('RUCIO_S3_TEST_LONG'))
GROUPS = 5 if LONG else 1  # of each half
FIRST, LAST = map(int, os.environ.get('RUCIO_S3_TEST_SEEDS', '0-120' if LONG else '0-20').split('-'))

pytestmark = [pytest.mark.slow, *([pytest.mark.long] if LONG else [])]


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    """The directory of a Rucio server that nobody started, with its database."""
    server = RucioServer(tmp_path_factory.mktemp('rucio'), {'s3:SITE_S3': {'access_key': 'AKIDOFTHETESTS', 'secret_key': 'a-secret'}})
    server.prepare()
    return server


class Runs:
    """Names, sizes, MD5, datasets, locks, counters; nothing wrongly bad or lost; no byte of a user destroyed."""

    half: int

    @pytest.mark.parametrize('group', range(GROUPS))
    def test_the_catalogue_is_what_the_bucket_is(self, home, group):
        number = GROUPS * self.half + group
        first, last = (FIRST + (LAST - FIRST) * each // (2 * GROUPS) for each in (number, number + 1))
        seeds.check(home, first, last)


# Two classes: pytest-xdist is told to keep a class together, and two workers shall share them.
class TestFirstHalf(Runs):
    half = 0


class TestSecondHalf(Runs):
    half = 1
