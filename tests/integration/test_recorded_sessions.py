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

"""The terminal sessions in README and docs/ are what the commands print: dev/record.py runs them again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = os.environ.get('RUCIO_S3_TOOLS', '')


@pytest.mark.long
@pytest.mark.skipif(not shutil.which('aws', path=TOOLS), reason='other S3 clients are not installed: make test-long does')
@pytest.mark.skipif(not shutil.which('minio-client'), reason='mc is not installed: the package minio-client of Debian')
def test_recorded_sessions_are_what_commands_print():
    done = subprocess.run([sys.executable, str(ROOT / 'dev' / 'record.py'), '--check'], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
