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

from faults import plans
from faults.invariants import check
from faults.operations import failure, play, seeds
from faults.seeded_run import Run
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


def test_what_is_wrong_is_found(site):
    """A test of the other test: what it looks for is made, and found."""
    storage, made = site
    if storage != 'seaweedfs':
        pytest.skip('the checks are the same')
    run = Run(made, plans.draw(9000, 12))
    run.prepare()
    run.play()
    changed, lost = [file for file in run.files.values() if file.state == 'stored' and file.single and not file.copy and len(run.plan.content(file.name))][:2]
    place = {'Bucket': run.bucket(changed)}
    run.s3.put_object(**place, Key=changed.name, Body=b'x' * len(run.plan.content(changed.name)))
    run.s3.delete_object(Bucket=run.bucket(lost), Key=lost.name)
    run.s3.put_object(**place, Key='stray', Body=b'')
    run.s3.create_multipart_upload(**place, Key='half')
    check(run)
    wanted = (
        f'{changed.name} (stored): the object',
        f'{lost.name} (stored): there is no object',
        '/stray: nobody wrote it',
        '/half: its multipart upload was left behind',
    )
    assert [what for what in wanted if not any(what in wrong for wrong in run.wrong)] == []


@pytest.mark.parametrize('seed', list(seeds([SEEDS])))
def test_what_was_reported_is_so(site, seed):
    """Uploads that succeeded are there, what failed can be tried again, no wrong byte is delivered, and nothing is left behind."""
    storage, made = site
    run, _ = play(made, seed, OPERATIONS)
    assert not run.wrong, failure(run, storage, OPERATIONS)
