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

"""A part of the seeded runs of `operations`: on SeaweedFS and on Ceph. docs/reliability.md has the long ones.

RUCIO_S3_TEST_SEEDS=40-44 takes other seeds than the first.
"""

import contextlib
import os

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from faults.operations import failure, play, seeds
from faults.seeded_site import Site
from servers.ceph import missing

SEEDS = os.environ.get('RUCIO_S3_TEST_SEEDS', '1')
OPERATIONS = 80

pytestmark = pytest.mark.long
no_ceph = pytest.mark.skipif(bool(missing()), reason=f'no Ceph: {missing()}')


@pytest.fixture(scope='module', params=['seaweedfs', pytest.param('ceph', marks=no_ceph)])
def site(request, tmp_path_factory):
    with contextlib.ExitStack() as stack:
        yield request.param, Site.make(stack, tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize('seed', list(seeds([SEEDS])))
def test_what_was_reported_is_so(site, seed):
    """Uploads that succeeded are there, what failed can be tried again, no wrong byte is delivered, and nothing is left behind."""
    storage, made = site
    run, _ = play(made, seed, OPERATIONS)
    assert not run.wrong, failure(run, storage, OPERATIONS)
