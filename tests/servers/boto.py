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

"""What the S3 servers here have in common: a process with keys and a port, and boto3 clients that take nothing of the caller's own."""

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.configprovider import ConstantProvider
from botocore.exceptions import BotoCoreError, ClientError

from .ports import free_port
from .process import TIMEOUT, Process

if TYPE_CHECKING:
    from typing_extensions import Self


def plain_client(server: Any, service: str = 's3', **config: Any) -> Any:
    """A boto3 client that reads nobody's ~/.aws or AWS_PROFILE. The keywords are botocore.config.Config's."""
    session = botocore.session.Session()
    for variable in ('config_file', 'credentials_file'):
        session.set_config_variable(variable, os.devnull)
    session.get_component('config_store').set_config_provider('profile', ConstantProvider(None))
    usual: dict[str, Any] = {'proxies': {}, 's3': {'addressing_style': 'path'}}
    return boto3.Session(
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        aws_session_token=getattr(server, 'session_token', None),
        region_name=server.region,
        botocore_session=session,
    ).client(service, endpoint_url=server.url, verify=str(server.ca_bundle) if server.ca_bundle else None, config=Config(**{**usual, **config}))


def copies_conditionally() -> bool:
    """Whether boto3 knows If-None-Match of CopyObject: that of Rucio 38 does not."""
    model = botocore.session.Session().get_service_model('s3').operation_model('CopyObject')
    return 'IfNoneMatch' in model.input_shape.members


class S3Server:
    """
    An S3 server on a free port of 127.0.0.1; use it in a `with`, or start() and stop() it.

    A subclass has :meth:`_process_to_start`, and `works` if it takes more than listing buckets to see that it is up.
    """

    region = 'us-east-1'
    hostname = '127.0.0.1'
    scheme = 'http'
    _twin = False  # whether the port 10000 above has to be free, too

    def __init__(self, directory: 'str | os.PathLike[str]') -> None:
        self.directory = Path(directory).absolute()
        self.access_key = 'admin'
        self.secret_key = secrets.token_hex(20)
        self.port = free_port(twin=self._twin)
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f'{self.scheme}://{self.hostname}:{self.port}'

    @property
    def ca_bundle(self) -> Path | None:
        """What a client verifies the server with."""
        return None

    def __enter__(self) -> 'Self':
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when it works."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._process = self._process_to_start()
        self._process.start()
        client = self.client(connect_timeout=1, read_timeout=10, retries={'total_max_attempts': 1})
        self._process.wait(lambda: self.works(client), TIMEOUT)

    def _process_to_start(self) -> Process:
        raise NotImplementedError

    def works(self, client: Any) -> bool:
        """Whether it answers by now."""
        try:
            client.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True

    def stop(self) -> None:
        """End it: nobody needs its data to be flushed to the disk."""
        self.kill()

    def kill(self) -> None:
        """SIGKILL, as when the machine fails."""
        if self._process:
            self._process.kill()
            self._process = None

    def restart(self) -> None:
        """SIGKILL, and return when it works again: with the same data, at the same address."""
        self.kill()
        self.start()

    def client(self, service: str = 's3', **config: Any) -> Any:
        """A boto3 client that reads nobody's ~/.aws or AWS_PROFILE. The keywords are botocore.config.Config's."""
        return plain_client(self, service, **config)
