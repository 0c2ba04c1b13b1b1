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

"""S3 servers that no package brings: built once by whoever has them, and found as NAME-VERSION in the folder that RUCIO_S3_TEST_SERVERS names."""

import os
import secrets
import shlex
import shutil
import subprocess
from pathlib import Path

from . import documented
from .boto import S3Server
from .files import clean_environment, write_private
from .ports import free_port
from .process import TIMEOUT, Process, ServerError

FOLDER = Path(os.environ.get('RUCIO_S3_TEST_SERVERS') or '/nonexistent')  # now, as tests take RUCIO_... out of the environment


def path(name: str) -> Path | None:
    """The program, such as versitygw-1.8.0; where there are several, the last by name."""
    return max((file for file in FOLDER.glob(f'{name}-*') if os.access(file, os.X_OK)), default=None)


def missing(name: str) -> str:
    """Why there can be no such server here, or nothing."""
    return '' if path(name) else f'there is no {name}-VERSION in the folder that RUCIO_S3_TEST_SERVERS names'


def version(name: str) -> str:
    """As the file's name says it."""
    found = path(name)
    return found.name.removeprefix(f'{name}-') if found else ''


class Versitygw(S3Server):
    """versitygw over a directory of a file system with extended attributes. After kill() or stop(), start() finds the same data at the same address."""

    def _process_to_start(self) -> Process:
        data = self.directory / 'data'
        data.mkdir(exist_ok=True)
        environment = clean_environment(self.directory, ROOT_ACCESS_KEY=self.access_key, ROOT_SECRET_KEY=self.secret_key)
        command = [str(path('versitygw')), '--quiet', '--port', f'{self.hostname}:{self.port}', 'posix', str(data)]
        return Process('versitygw', command, env=environment, cwd=self.directory, log=self.directory / 'versitygw.log')


def minio_client() -> str | None:
    """MinIO's own client: Debian's name of it, as another program is called mc there."""
    return shutil.which('minio-client', path='/usr/local/bin:/usr/bin')


def minio_user_missing() -> str:
    """Why there can be no MinIO with a user here, or nothing."""
    return missing('minio') or ('' if minio_client() else 'there is no minio-client')


class MinIO(S3Server):
    """MinIO over a directory. After kill() or stop(), start() finds the same data at the same address.

    Its keys are those of the root user until make_user(); from then on those of the user that docs/operators.md makes.
    """

    provider = 'minio'
    chainable_role_arn = ''  # it has no roles

    def __init__(self, directory: 'str | os.PathLike[str]') -> None:
        super().__init__(directory)
        self._root = {'MINIO_ROOT_USER': self.access_key, 'MINIO_ROOT_PASSWORD': self.secret_key}

    @property
    def role_arn(self) -> str:
        return documented.minio_settings()['role_arn']

    def make_user(self) -> None:
        """Make the user, by the commands of the page."""
        self.access_key, self.secret_key = 'rucio', secrets.token_hex(20)
        for command in documented.minio_commands():
            done = self.mc(*shlex.split(command)[1:], keys=':'.join(self._root.values()), answers=f'{self.access_key}\n{self.secret_key}\n')
            if done.returncode:
                raise ServerError(f'{command}: {done.stderr}')

    def mc(self, *words: str, keys: str, answers: str = '') -> 'subprocess.CompletedProcess[str]':
        """A command of its client, in which it is called `site`.

        :param keys: ACCESS:SECRET or ACCESS:SECRET:TOKEN.
        """
        environment = clean_environment(self.directory, MC_HOST_site=f'{self.scheme}://{keys}@{self.hostname}:{self.port}')
        command = [str(minio_client()), *words]
        return subprocess.run(command, env=environment, cwd=self.directory, input=answers, capture_output=True, text=True, timeout=TIMEOUT, check=False)

    def _process_to_start(self) -> Process:
        environment = clean_environment(self.directory, **self._root, MINIO_BROWSER='off', MINIO_UPDATE='off')
        command = [str(path('minio')), 'server', '--quiet', '--address', f'{self.hostname}:{self.port}', str(self.directory / 'data')]
        return Process('MinIO', command, env=environment, cwd=self.directory, log=self.directory / 'minio.log')


class Garage(S3Server):
    """Garage (`cargo install garage`) as one node, which makes its layout and a key at the start. After kill() or stop(), start() finds the same data at the same address."""

    region = 'garage'  # as in its documentation's examples

    def __init__(self, directory: 'str | os.PathLike[str]') -> None:
        super().__init__(directory)
        self.access_key, self.secret_key = f'GK{secrets.token_hex(12)}', secrets.token_hex(32)
        self._rpc = f'{self.hostname}:{free_port()}'

    def _process_to_start(self) -> Process:
        conf = self.directory / 'garage.toml'
        common = {'metadata_dir': self.directory / 'meta', 'data_dir': self.directory / 'data', 'db_engine': 'lmdb', 'rpc_bind_addr': self._rpc}
        s3 = {'s3_region': self.region, 'api_bind_addr': f'{self.hostname}:{self.port}'}
        lines = [f'{name} = "{value}"' for name, value in {**common, 'rpc_public_addr': self._rpc, 'rpc_secret': self.secret_key}.items()]
        lines += ['replication_factor = 1', '[s3_api]', *(f'{name} = "{value}"' for name, value in s3.items())]
        write_private(conf, '\n'.join(lines))
        environment = clean_environment(self.directory, GARAGE_DEFAULT_ACCESS_KEY=self.access_key, GARAGE_DEFAULT_SECRET_KEY=self.secret_key)
        command = [str(path('garage')), '-c', str(conf), 'server', '--single-node', '--default-access-key']
        return Process('Garage', command, env=environment, cwd=self.directory, log=self.directory / 'garage.log')
