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

"""OpenStack Swift with s3api and tempauth, from PyPI: proxy, account, container and object server, one process each, one copy of all data."""

import getpass
import os
import subprocess
from pathlib import Path

from .boto import S3Server
from .files import clean_environment, write_private
from .ports import free_port
from .process import TIMEOUT, Process, ServerError

PYTHON = Path(os.environ.get('RUCIO_S3_TEST_SWIFT') or '/nonexistent', 'bin', 'python')  # now, as tests take RUCIO_... out of the environment
BACKENDS = ('account', 'container', 'object')

# Long timeouts, as a busy machine is no failure: what the object server does not tell the container server in time is not listed.
_DEFAULT = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {directory}
devices = {directory}
mount_check = false
workers = 0
log_name = {name}
log_address = {directory}/no.log
db_preallocation = off
"""
_BACKEND = """
[pipeline:main]
pipeline = {name}-server

[app:{name}-server]
use = egg:swift#{name}
conn_timeout = 20
node_timeout = 60
container_update_timeout = 60
"""
_PROXY = """
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth copy slo dlo versioned_writes symlink proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 20
node_timeout = 60

[filter:s3api]
use = egg:swift#s3api
location = {region}
max_upload_part_num = 10000

[filter:tempauth]
use = egg:swift#tempauth
user_rucio_admin = {secret_key} .admin

[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
"""
_OTHERS = ('catch_errors', 'gatekeeper', 'healthcheck', 'listing_formats', 'bulk', 'copy', 'slo', 'dlo', 'symlink')
_RINGS = """
import sys
from swift.common.ring import RingBuilder
for name, port in zip(('account', 'container', 'object'), sys.argv[1:]):
    builder = RingBuilder(2, 1, 1)
    builder.add_dev({'region': 1, 'zone': 1, 'ip': '127.0.0.1', 'port': int(port), 'device': 'disk', 'weight': 1})
    builder.rebalance()
    builder.get_ring().save(f'{name}.ring.gz')
"""


def missing() -> str:
    """Why there can be no Swift here, or nothing."""
    return '' if PYTHON.exists() else 'there is no Swift (`make swift` installs it; RUCIO_S3_TEST_SWIFT names the folder)'


def version() -> str:
    """Of the package."""
    said = subprocess.run([PYTHON, '-c', 'import swift; print(swift.__version__)'], capture_output=True, text=True, check=True)
    return said.stdout.strip()


class Swift(S3Server):
    """Its data are in a directory of a file system with extended attributes. After kill() or stop(), start() finds them at the same address."""

    def __init__(self, directory: 'str | os.PathLike[str]') -> None:
        super().__init__(directory)
        self.access_key = 'rucio:admin'  # of tempauth: account and user
        self._ports = {name: free_port() for name in BACKENDS}
        self._backends: list[Process] = []

    def _process_to_start(self) -> Process:
        (self.directory / 'disk').mkdir(exist_ok=True)
        write_private(self.directory / 'swift.conf', f'[swift-hash]\nswift_hash_path_suffix = {self.port}\n[storage-policy:0]\nname = one\ndefault = yes\n')
        rings = [str(PYTHON), '-c', _RINGS, *map(str, self._ports.values())]
        done = subprocess.run(rings, cwd=self.directory, env=self._environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        if done.returncode:
            raise ServerError(f'Swift makes no rings: {done.stderr}')
        for name, port in self._ports.items():
            self._backends.append(self._server(name, port, _BACKEND))
            self._backends[-1].start()
        return self._server('proxy', self.port, _PROXY + ''.join(f'\n[filter:{name}]\nuse = egg:swift#{name}\n' for name in _OTHERS))

    def _server(self, name: str, port: int, text: str) -> Process:
        conf = self.directory / f'{name}.conf'
        values = {'name': name, 'port': port, 'directory': self.directory, 'user': getpass.getuser(), 'region': self.region, 'secret_key': self.secret_key}
        write_private(conf, (_DEFAULT + text).format(**values))
        command = [str(PYTHON.with_name(f'swift-{name}-server')), '--verbose', str(conf)]
        return Process(f'Swift: {name}', command, env=self._environment, cwd=self.directory, log=self.directory / f'{name}.log')

    @property
    def _environment(self) -> dict[str, str]:
        return clean_environment(self.directory)

    def start(self) -> None:
        """Return when it works; where it does not, nothing of it is left."""
        try:
            super().start()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL to all of them."""
        super().kill()
        for process in self._backends:
            process.kill()
        self._backends.clear()
