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

"""This project's commands, the stock ones with its class and with gfal2's, and the class itself."""

import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import sink
from measuring import Command
from stage import BUCKET, GFAL_BUCKET, SCOPE, Door, Served, Stage
from tools import TOOLS, Tool, found
from workloads import Task

from servers.files import clean_environment, command_path, config_text, write_private

PROGRAM = Path(__file__).with_name('program.py')
_GFAL2 = sorted(Path('/usr/lib/python3/dist-packages').glob(f'gfal2.cpython-{sys.version_info.major}{sys.version_info.minor}-*.so'))


class Contestant(ABC):
    """Somebody who can move files.

    :ivar verbs: What it can do; ``idle`` is to start and do nothing.
    :ivar slow: It takes a part of many files only.
    :ivar beside: The process that works for it and is not its child, or 0.
    """

    name = ''
    verbs: tuple[str, ...] = ('idle', 'up', 'down', 'delete')
    slow = False
    beside = 0

    @abstractmethod
    def command(self, verb: str, task: Task) -> Command:
        """What is run."""

    def place(self, task: Task) -> tuple[str, str]:
        """The bucket and the beginning of the keys of what it uploads."""
        return BUCKET, task.name


class Bulk(Contestant):
    """`rucio s3 upload`, `rucio s3 download`, `rucio s3 rm`."""

    verbs = ('idle', 'up', 'up again', 'down', 'down again', 'delete')

    def __init__(self, name: str, stage: Stage, door: Door, way: str) -> None:
        self.name, self._user, self._rse = name, stage.user, stage.rse(door, way)

    def command(self, verb: str, task: Task) -> Command:
        did = f'{SCOPE}:{task.name}'
        words = {
            'idle': ['s3', '--help'],
            'up': ['s3', '--robot', 'upload', str(task.data), did, '--rse', self._rse],
            'down': ['s3', '--robot', 'download', did, str(task.target), '--rse', self._rse],
            'delete': ['s3', 'rm', '--recursive', '--yes', did, '--rse', self._rse],
        }[verb.removesuffix(' again')]
        return Command([command_path('rucio'), *words], self._user.environment, self._user.directory)


class Stock(Contestant):
    """`rucio upload` and `rucio download`. Their files are deleted by the reaper: see bench/reaper.py."""

    verbs = ('idle', 'up', 'down')
    slow = True

    def __init__(self, name: str, stage: Stage, door: Door, way: str) -> None:
        self.name, self._rse, self._gfal = name, stage.rse(door, way), way == 'gfal2'
        # Only root and admins may fill an RSE that is not of rucio-s3, by the policy of the server.
        self._user = stage.root if self._gfal else stage.user
        self._environment = {**self._user.environment, **(gfal2_environment(stage) if self._gfal else {})}

    def command(self, verb: str, task: Task) -> Command:
        did = f'{SCOPE}:{task.name}'
        words = {
            'idle': lambda: ['--version'],
            'up': lambda: ['upload', '--rse', self._rse, '--scope', SCOPE, did, str(task.flat())],
            'down': lambda: ['download', '--ndownloader', '8', '--rses', self._rse, '--dir', str(task.target), did],
        }[verb]()
        return Command([command_path('rucio'), *words], self._environment, self._user.directory)

    def place(self, task: Task) -> tuple[str, str]:
        return (GFAL_BUCKET, f'{SCOPE.replace(".", "/")}/{task.name}') if self._gfal else (BUCKET, task.name)


class Program(Contestant):
    """The protocol class without Rucio's commands, or boto3, in a program of some lines."""

    def __init__(self, name: str, folder: Path, door: 'Door | Served') -> None:
        self.name = name
        config = {'client': {'rucio_host': 'http://127.0.0.1:9'}, 's3': {'access_key': door.access_key, 'secret_key': door.secret_key, 'progress': 'off'}}
        if door.ca_bundle:
            config['s3']['ca_bundle'] = str(door.ca_bundle)
        self._home = folder / f'program-{urlsplit(door.url).port}'
        write_private(self._home / 'rucio.cfg', config_text(config))
        keys = {'RUCIO_CONFIG': str(self._home / 'rucio.cfg'), 'AWS_ACCESS_KEY_ID': door.access_key, 'AWS_SECRET_ACCESS_KEY': door.secret_key}
        trust = {'AWS_CA_BUNDLE': str(door.ca_bundle)} if door.ca_bundle else {}
        self._environment = clean_environment(self._home, **keys, **trust, AWS_DEFAULT_REGION=door.region)
        self._url = door.url

    def command(self, verb: str, task: Task) -> Command:
        folder = task.target if verb == 'down' else task.data
        words = [sys.executable, str(PROGRAM), self.name, verb, str(folder), self._url, BUCKET, task.name]
        return Command(words, self._environment, self._home)


class Other(Contestant):
    """Somebody else's command, straight to the storage or through `rucio s3 serve`."""

    def __init__(self, name: str, tool: Tool, folder: Path, door: 'Door | Served') -> None:
        self.name, self._tool, self._door = name, tool, door
        self.beside = door.pid if isinstance(door, Served) else 0
        self._home = folder / f'home-{name.replace(":", "-")}'
        self._environment = {**clean_environment(self._home), **tool.environment(door)}

    def command(self, verb: str, task: Task) -> Command:
        words = self._tool.words(verb, task, f'{BUCKET}/{task.name}', self._door.url)
        return Command([self._tool.path, *words], self._environment, self._home)


NAMES = (
    *(f'{command}:{way}' for command in ('rucio-s3', 'rucio') for way in ('static', 'vended', 'signed')),
    'rucio:gfal2',
    'class',
    *TOOLS,
    *(f's5cmd:serve-{way}' for way in ('vended', 'signed')),
    'boto3',
)
WITHOUT_RUCIO = ('class', *TOOLS, 'boto3')


def missing(name: str, scheme: str) -> str:
    """Why a contestant cannot take part, or nothing."""
    if scheme == sink.SCHEME and name not in WITHOUT_RUCIO:
        return 'it needs a Rucio server, and the sink has none'
    if name == 'rucio:gfal2':
        if not _GFAL2:
            version = f'{sys.version_info.major}.{sys.version_info.minor}'
            return f'no gfal2 for Python {version} (Debian: apt-get install --no-install-recommends python3-gfal2 gfal2-plugin-http)'
        return '' if scheme == 'https' else 'Rucio signs URLs of https only'
    tool = name.partition(':')[0]
    return '' if tool not in TOOLS or found(tool) else f'{tool} is not on the PATH, and not in the directory that RUCIO_S3_TOOLS names'


def contestant(name: str, stage: Stage, door: Door, served: Mapping[str, Served]) -> Contestant:
    """:param served: By RSE, for those that go through `rucio s3 serve`."""
    kind, _, way = name.partition(':')
    if kind in ('rucio-s3', 'rucio'):
        return (Bulk if kind == 'rucio-s3' else Stock)(name, stage, door, way)
    return alone(name, stage.folder, served[stage.rse(door, way.removeprefix('serve-'))] if way else door)


def alone(name: str, folder: Path, door: 'Door | Served') -> Contestant:
    """A contestant that needs no Rucio server.

    :param folder: For its home directory.
    """
    kind = name.partition(':')[0]
    return Other(name, TOOLS[kind](found(kind)), folder, door) if kind in TOOLS else Program(name, folder, door)


def gfal2_environment(stage: Stage) -> dict[str, str]:
    """Debian's gfal2 and nothing else of Debian's Python; the CA as it wants it, named by the hash of its subject."""
    private = stage.folder / 'gfal2'
    private.mkdir(exist_ok=True)
    done = subprocess.run(['openssl', 'x509', '-subject_hash', '-noout', '-in', str(stage.storage.ca_bundle)], capture_output=True, text=True, check=True)
    for link, target in ((private / _GFAL2[0].name, _GFAL2[0]), (private / f'{done.stdout.strip()}.0', stage.storage.ca_bundle)):
        if target and not link.exists():
            link.symlink_to(target)
    return {'PYTHONPATH': str(private), 'X509_CERT_DIR': str(private)}
