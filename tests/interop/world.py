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

"""Two users who hold no key, and other people's clients: what the tests here work with."""

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from servers.ceph import CephRGW
from servers.cli import RucioCli, add_s3_rse, add_user
from servers.files import Sections, clean_environment
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS

RSE = 'SITE-1_S3'
ALIAS = 'site_1_s3'
WITHOUT_STS = 'NOSTS_S3'


@dataclass
class Tools:
    """Clients of S3. Each is run with an environment that has nothing of the caller's."""

    home: Path
    path: str

    def find(self, name: str) -> str:
        """The path of a client, or a skipped test."""
        found = shutil.which(name, path=self.path)
        if found is None and name == 'mc':
            found = shutil.which('minio-client', path='/usr/local/bin:/usr/bin')  # Debian's name of it
        if found is None or not self._works(found):
            how = (
                'the package minio-client of Debian'
                if name == 'mc'
                else 'pip install -r tests/interop/requirements.txt into an environment, and RUCIO_S3_TOOLS=its bin directory'
            )
            pytest.skip(f'{name} is not installed: {how}')
        return found

    def _works(self, path: str) -> bool:
        """A version manager's shim may stand for nothing, and Debian's mc is another program."""
        if path.endswith(('/s5cmd', '/python')):  # they have no such option, or need none
            return True
        done = self.run([path, '--version'])
        return done.returncode == 0 and 'Midnight' not in done.stdout

    @property
    def environment(self) -> dict[str, str]:
        return {**clean_environment(self.home), 'PATH': f'{self.path}:/usr/bin:/bin'}

    def python(self, *modules: str) -> str:
        """A Python that has these modules."""
        python = self.find('python')
        done = subprocess.run([python, '-c', f'import {", ".join(modules)}'], env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f'{python} has not all of {", ".join(modules)}: see tests/interop/requirements.txt')
        return python

    def run(self, command: list[str], env: dict[str, str] | None = None, **options: Any) -> 'subprocess.CompletedProcess[str]':
        return subprocess.run(
            command,
            env={**self.environment, **(env or {})},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **options,
        )


@dataclass
class World:
    """alice has a bucket on RSE, where keys are vended, and shares a part of it with bob, whose own is on WITHOUT_STS."""

    root: RucioCli
    alice: RucioCli
    bob: RucioCli
    storage: 'SeaweedFS | CephRGW'

    def put(self, key: str, content: bytes, bucket: str = 'user.alice') -> None:
        """As the storage's owner."""
        self.storage.client().put_object(Bucket=bucket, Key=key, Body=content)

    def get(self, key: str, bucket: str = 'user.alice') -> bytes:
        return self.storage.client().get_object(Bucket=bucket, Key=key)['Body'].read()

    def s3(self, user: RucioCli, *arguments: str, **options: Any) -> str:
        """What `rucio s3 ARGUMENTS` prints."""
        return user.rucio('s3', *arguments, check=True, **options).stdout

    def exec(
        self, user: RucioCli, tools: Tools, arguments: list[str], command: list[str], cwd: Path | None = None, **env: str
    ) -> 'subprocess.CompletedProcess[str]':
        """Run a client by `rucio s3 exec ARGUMENTS -- COMMAND`."""
        return user.rucio('s3', 'exec', *arguments, '--', *command, cwd=cwd, env={'PATH': f'{user.environment["PATH"]}:{tools.path}', **env})

    def with_keys(self, user: RucioCli, tools: Tools, arguments: list[str], command: list[str]) -> 'subprocess.CompletedProcess[str]':
        """Run a client with the keys of `rucio s3 credentials ARGUMENTS`, directly at the storage."""
        keys = f'eval "$(rucio s3 credentials {shlex.join(arguments)} --format env)"'
        env = {**tools.environment, **user.environment, 'PATH': f'{user.environment["PATH"]}:{tools.path}'}
        return tools.run(['sh', '-c', f'{keys}; exec {shlex.join(command)}'], env=env)


def new_world(factory: pytest.TempPathFactory, storage: 'SeaweedFS | CephRGW', trust: Sections, settings: dict[str, str]) -> Iterator[World]:
    """
    Start a Rucio server beside a storage.

    :param trust: sections of the server's and the users' rucio.cfg.
    :param settings: of both RSEs.
    """
    with RucioServer(factory.mktemp('rucio'), {**trust, 'policy': {'package': 'rucio_s3_policy'}}) as server:
        root = RucioCli.root(factory.mktemp('root'), server, trust)
        for rse, more in ((RSE, {'role_arn': storage.role_arn}), (WITHOUT_STS, {'bucket_prefix': 'nosts-'})):
            server.set_rse_keys(add_s3_rse(root, rse, storage, settings={**settings, **more}), storage.access_key, storage.secret_key)
        alice, bob = (
            add_user(root, factory.mktemp(name), name, scopes=[f'user.{name}'], attributes=(), rses=[rse], config=trust)
            for name, rse in (('alice', RSE), ('bob', WITHOUT_STS))
        )
        bob.rucio('s3', 'make-bucket', 'user.bob', check=True)
        alice.rucio('s3', 'make-bucket', 'user.alice:shared', check=True)
        alice.rucio('s3', 'share', 'user.alice:shared', '--with', 'bob', check=True)
        yield World(root, alice, bob, storage)
