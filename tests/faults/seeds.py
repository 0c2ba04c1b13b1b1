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

"""Runs of `reconciler_runs`, in a process of their own: it takes the configuration of a Rucio server."""

import subprocess
import sys
from pathlib import Path

from servers.rucio_server import RucioServer

TESTS = Path(__file__).parent.parent


def check(server: RucioServer, first: int, last: int) -> None:
    """Make the runs of the seeds from `first` to before `last`; a failure shows the steps of the first three that failed."""
    done = subprocess.run(
        [sys.executable, '-m', 'faults.reconciler_runs', str(server.directory), str(first), str(last)],
        env={**server.environment, 'PYTHONPATH': str(TESTS)},
        cwd=server.directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    failed = [each for each in done.stdout.split('\n\n') if '\n--' in each]
    assert done.returncode == 0, '\n\n'.join([*failed[:3], done.stderr[-3000:]])
    assert done.stdout.count('seed ') == last - first
