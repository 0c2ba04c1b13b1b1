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

"""`rucio s3 serve` and `rucio s3 exec` for longer than vended keys, and Rucio's tokens, are valid.

RUCIO_S3_TEST_MINUTES=65 .venv/dev/bin/python -m pytest tests/interop/test_hours.py
"""

import os
import subprocess
import time
from contextlib import ExitStack, suppress

import pytest

from interop.test_serve import serving
from interop.world import new_world
from servers.ca import CA
from servers.seaweedfs import SeaweedFS

MINUTES = float(os.environ.get('RUCIO_S3_TEST_MINUTES') or 0)
pytestmark = [pytest.mark.skipif(not MINUTES, reason='RUCIO_S3_TEST_MINUTES=65 runs it'), pytest.mark.timeout(MINUTES * 60 + 600)]


@pytest.fixture
def strict_world(tmp_path_factory):
    """Keys are valid for 15 minutes, the shortest time that STS allows."""
    ca = CA(tmp_path_factory.mktemp('ca'))
    with SeaweedFS(tmp_path_factory.mktemp('storage'), tls=ca, sts=True) as storage:
        yield from new_world(tmp_path_factory, storage, {'s3': {'ca_bundle': ca.bundle}}, {'credentials_lifetime': '900'})


LOOP = """
i=0
while [ $(date +%s) -lt END ]
do
    i=$((i+1))
    echo $i > file
    MC cp -q file rucio/BUCKET/exec-$i
    [ $(MC cat rucio/BUCKET/exec-$i) = $i ]
    sleep 30
done
"""


def test_mc_works_on_and_on(strict_world, tools):
    """alice's keys are vended, bob's storage has no STS, and both have the site's own CA."""
    mc, end, number = tools.find('mc'), time.time() + MINUTES * 60, 0
    users = [strict_world.alice, strict_world.bob]
    file = tools.home / 'file'
    with ExitStack() as stack:
        running = []
        for user in users:
            strict_world.s3(user, 'serve', '--install', 'mc')
            stack.enter_context(serving(user))
            script = LOOP.replace('BUCKET', f'user.{user.account}').replace('MC', mc).replace('END', f'{end:.0f}')
            running.append(stack.enter_context(user.popen('rucio', 's3', 'exec', '--', 'sh', '-ec', script)))
        while time.time() < end:
            number += 1
            file.write_text(str(number))
            for user in users:
                name = f'rucio/user.{user.account}/serve-{number}'
                done = [tools.run([mc, *command], env={'HOME': str(user.directory)}) for command in (['cp', '-q', str(file), name], ['cat', name])]
                assert [each.returncode for each in done] == [0, 0], (number, done)
                assert done[1].stdout == str(number)
            with suppress(subprocess.TimeoutExpired):  # the pause, unless a tool ends too early
                assert running[number % 2].wait(30) == 0
        assert [each.wait(120) for each in running] == [0, 0]
