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

"""Where the contestants meet: one storage, one Rucio server, one user; and the doors by which the storage is reached."""

import json
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from measuring import Failed

from faults.proxy import Request
from servers.boto import plain_client
from servers.ca import CA
from servers.cli import RucioCli, add_s3_rse, add_user, s3_keys
from servers.files import clean_environment
from servers.ports import free_port
from servers.process import Process
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS

SCOPE = BUCKET = 'user.bench'
GFAL = 'rucio.rse.protocols.gfal.NoRename'
GFAL_BUCKET = 'bench-gfal'
_PROXY = Path(__file__).with_name('proxy.py')


@dataclass
class Door:
    """An address of the storage: its own, or that of a proxy before it. It has RSEs of its own.

    :param log: The file in which its requests are counted.
    """

    name: str
    scheme: str
    port: int
    access_key: str
    secret_key: str
    ca_bundle: Path | None
    log: Path | None = None
    hostname: str = '127.0.0.1'
    region: str = 'us-east-1'
    rses: dict[str, str] = field(default_factory=dict)  # way -> RSE

    @property
    def url(self) -> str:
        return f'{self.scheme}://{self.hostname}:{self.port}'

    def requests(self) -> Counter[str]:
        """The requests so far, by their operations."""
        lines = self.log.read_text(encoding='utf-8').splitlines() if self.log and self.log.exists() else []
        return Counter(Request(method, path, {}, b'').operation for method, _, path in (line.partition(' ') for line in lines))


@dataclass
class Served:
    """The endpoint of a `rucio s3 serve`."""

    pid: int
    url: str
    access_key: str
    secret_key: str
    session_token: str
    region: str
    ca_bundle: Path | None


class Stage:
    """Started by `with`.

    :param scheme: https or http, of the storage.
    """

    def __init__(self, folder: Path, scheme: str) -> None:
        self.folder, self.scheme = folder / scheme, scheme
        self.folder.mkdir()
        self._stack = ExitStack()
        self._doors: dict[str, Door] = {}
        self._tls = CA(self.folder / 'ca') if scheme == 'https' else None
        self._trust = {'s3': {'ca_bundle': self._tls.bundle}} if self._tls else {}
        self.storage = SeaweedFS(self.folder / 'seaweedfs', tls=self._tls, sts=True)
        self.server = RucioServer(self.folder / 'rucio', {**self._trust, 'policy': {'package': 'rucio_s3_policy'}})

    def __enter__(self) -> 'Stage':
        with ExitStack() as stack:
            stack.enter_context(self.storage)
            stack.enter_context(self.server)
            self._stack = stack.pop_all()
        self.root = RucioCli.root(self.folder / 'root', self.server, self._trust)
        self.user = add_user(self.root, self.folder / 'user', 'bench', scopes=[SCOPE], attributes=('sign-url',), config=self._trust)
        for bucket in (BUCKET, GFAL_BUCKET):
            self.storage.client().create_bucket(Bucket=bucket)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def door(self, delay: int = 0, *, counting: bool = False) -> Door:
        """:param delay: Of a round trip, in milliseconds."""
        name = 'COUNTED' if counting else f'DELAYED_{delay}' if delay else 'DIRECT'
        if name not in self._doors:
            storage = self.storage
            door = Door(name, self.scheme, storage.port, storage.access_key, storage.secret_key, storage.ca_bundle)
            if name != 'DIRECT':
                door.port = free_port()
                door.log = self.folder / 'requests.log' if counting else None
                self._start_proxy(door, delay)
            self._doors[name] = door
        return self._doors[name]

    def _start_proxy(self, door: Door, delay: int) -> None:
        words = ['--listen', str(door.port), '--to', f'127.0.0.1:{self.storage.port}', '--delay', str(delay / 1000)]
        if door.log:
            words += ['--count', str(door.log)]
            if self._tls:
                words += ['--certificate', str(self._tls.certificate), '--key', str(self._tls.key), '--ca', str(self._tls.bundle)]
        log = self.folder / f'{door.name}.log'
        proxy = Process('the proxy', [sys.executable, str(_PROXY), *words], env=clean_environment(self.folder), cwd=self.folder, log=log)
        proxy.start()
        self._stack.callback(proxy.kill)
        proxy.wait(lambda: listens(door.port), 60)

    def rse(self, door: Door, way: str) -> str:
        """The RSE by which a way of access (static, vended, signed, gfal2) uses a door."""
        if way not in door.rses:
            rse, place = f'{door.name}_{way.upper()}', cast('SeaweedFS', door)
            accounts = ('root', 'bench')
            if way == 'gfal2':
                attributes = {'lfn2pfn_algorithm': 'identity', 'sign_url': 's3'}
                rse_id = add_s3_rse(self.root, rse, place, attributes=attributes, accounts=accounts, prefix=f'/{GFAL_BUCKET}/', impl=GFAL)
            else:
                rse_id = add_s3_rse(self.root, rse, place, accounts=accounts, settings={'role_arn': self.storage.role_arn} if way == 'vended' else {})
            self.server.set_rse_keys(rse_id, door.access_key, door.secret_key)
            if way == 'static':
                self.user.configure(s3_keys(rse, place))
            door.rses[way] = rse
        return door.rses[way]

    @contextmanager
    def serving(self, rse: str) -> Iterator[Served]:
        """`rucio s3 serve`, until the end of the block."""
        keys = self.folder / f'serve-{rse}.json'
        command = self.user.popen('rucio', 's3', 'serve', '--rse', rse, '--overwrite', '--format', 'json', '--file', str(keys), stderr=subprocess.PIPE)
        try:
            if not any('Serving' in line for line in command.stderr or ()):
                raise Failed('rucio s3 serve did not start')
            (here,) = json.loads(keys.read_text(encoding='utf-8'))
            trust = Path(here['ca_bundle']) if here['ca_bundle'] else None
            yield Served(command.pid, here['url'], here['access_key'], here['secret_key'], here['session_token'], here['region'], trust)
        finally:
            command.send_signal(signal.SIGTERM)
            command.communicate(timeout=60)


def stored(door: Door, bucket: str, prefix: str) -> list[tuple[str, int]]:
    """What another client sees: keys and sizes."""
    pages = plain_client(door).get_paginator('list_objects_v2').paginate(Bucket=bucket, Prefix=prefix)
    return [(each['Key'], each['Size']) for page in pages for each in page.get('Contents', [])]


def empty(door: Door, bucket: str, prefix: str) -> None:
    """Make room for the next, who also finds no fuller storage than the one before."""
    client, keys = plain_client(door), [key for key, _ in stored(door, bucket, prefix)]
    for start in range(0, len(keys), 1000):
        objects = [{'Key': key} for key in keys[start : start + 1000]]
        client.delete_objects(Bucket=bucket, Delete={'Objects': objects, 'Quiet': True})


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0
