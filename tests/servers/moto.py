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

"""moto's server, as a process of its own: it keeps all in memory, and asks nobody for keys."""

import importlib.metadata
import os
import secrets
from pathlib import Path
from typing import Any

from .boto import plain_client, works
from .files import clean_environment, command_path
from .ports import free_port
from .process import Process

START_TIMEOUT = 120


def missing() -> str:
    """Why there can be no such server here, or nothing."""
    try:
        command_path('moto_server')
    except FileNotFoundError:
        return 'moto_server is not installed (pip install "moto[s3,server]")'
    return ''


def version() -> str:
    """Of the package."""
    return importlib.metadata.version('moto')


class Moto:
    """moto's S3 on a free port of 127.0.0.1; use it in a `with`, or start() and stop() it."""

    region = 'us-east-1'
    hostname = '127.0.0.1'
    scheme = 'http'
    ca_bundle = None
    role_arn = 'arn:aws:iam::123456789012:role/RucioVending'

    def __init__(self, directory: 'str | os.PathLike[str]') -> None:
        self.directory = Path(directory).absolute()
        self.access_key = 'admin'
        self.secret_key = secrets.token_hex(20)
        self.port = free_port()
        self.url = f'{self.scheme}://{self.hostname}:{self.port}'
        self._process: Process | None = None

    def __enter__(self) -> 'Moto':
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when it lists its buckets."""
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [command_path('moto_server'), '-H', self.hostname, '-p', str(self.port)]
        self._process = Process('moto', command, env=clean_environment(self.directory), cwd=self.directory, log=self.directory / 'moto.log')
        self._process.start()
        client = self.client(connect_timeout=1, read_timeout=10, retries={'total_max_attempts': 1})
        self._process.wait(lambda: works(client), START_TIMEOUT)

    def stop(self) -> None:
        """End it; nobody needs its data."""
        if self._process:
            self._process.kill()
            self._process = None

    def client(self, service: str = 's3', **config: Any) -> Any:
        """A boto3 client that reads nobody's ~/.aws or AWS_PROFILE. The keywords are botocore.config.Config's."""
        return plain_client(self, service, **config)
