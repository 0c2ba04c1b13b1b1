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

"""Other people's S3 clients: how each is called. All have their own defaults, and no configuration but keys, endpoint and CA."""

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from workloads import Task

_PATH = f'{os.environ["RUCIO_S3_TOOLS"]}:{os.environ["PATH"]}' if os.environ.get('RUCIO_S3_TOOLS') else os.environ.get('PATH', os.defpath)
ROOT = Path(__file__).resolve().parents[1]


class Tool(ABC):
    """:ivar path: Where it is."""

    def __init__(self, path: str) -> None:
        self.path = path

    def environment(self, door: Any) -> dict[str, str]:
        """Keys, region and CA, by the variables of the AWS CLI."""
        token = getattr(door, 'session_token', '')
        trust = {'AWS_CA_BUNDLE': str(door.ca_bundle), 'SSL_CERT_FILE': str(door.ca_bundle)} if door.ca_bundle else {}
        keys = {'AWS_ACCESS_KEY_ID': door.access_key, 'AWS_SECRET_ACCESS_KEY': door.secret_key, 'AWS_DEFAULT_REGION': door.region, 'AWS_REGION': door.region}
        return {**keys, **trust, **({'AWS_SESSION_TOKEN': token} if token else {})}

    @abstractmethod
    def words(self, verb: str, task: Task, place: str, url: str) -> list[str]:
        """Its arguments."""


def _version(path: str) -> 'subprocess.CompletedProcess[str]':
    word = 'version' if Path(path).name in ('s5cmd', 'rclone') else '--version'
    return subprocess.run([path, word], capture_output=True, text=True, check=False)


def found(name: str) -> str:
    """The path of a tool that works, or nothing."""
    places = os.pathsep.join([*(str(ROOT / '.venv' / each / 'bin') for each in ('interop', 'dev')), _PATH])
    names = {'mc': ('mc', 'minio-client')}.get(name, (name,))
    for path in filter(None, (shutil.which(each, path=places) for each in names)):
        said = _version(path)
        if not said.returncode and 'Midnight' not in said.stdout:  # a version manager's shim may stand for nothing
            return path
    return ''


def version(path: str) -> str:
    """The first line of what a tool says of itself."""
    return _version(path).stdout.partition('\n')[0].strip()


class S5cmd(Tool):
    def words(self, verb: str, task: Task, place: str, url: str) -> list[str]:
        one = task.workload.files == 1
        words = {
            'up': ['cp', str(task.source), f's3://{place}/file'] if one else ['cp', f'{task.data}/', f's3://{place}/'],
            'down': ['cp', f's3://{place}/file', f'{task.target}/file'] if one else ['cp', f's3://{place}/*', f'{task.target}/'],
            'delete': ['rm', f's3://{place}/file' if one else f's3://{place}/*'],
        }
        return ['version'] if verb == 'idle' else ['--endpoint-url', url, *words[verb]]


class Rclone(Tool):
    def environment(self, door: Any) -> dict[str, str]:
        settings = {'TYPE': 's3', 'PROVIDER': 'SeaweedFS', 'ENV_AUTH': 'true', 'ENDPOINT': door.url, 'NO_CHECK_BUCKET': 'true'}
        trust = {'RCLONE_CA_CERT': str(door.ca_bundle)} if door.ca_bundle else {}
        return {**super().environment(door), **{f'RCLONE_CONFIG_BENCH_{name}': value for name, value in settings.items()}, **trust}

    def words(self, verb: str, task: Task, place: str, url: str) -> list[str]:
        one = task.workload.files == 1
        return {
            'idle': ['version'],
            'up': ['copyto', str(task.source), f'bench:{place}/file'] if one else ['copy', str(task.data), f'bench:{place}'],
            'down': ['copyto', f'bench:{place}/file', f'{task.target}/file'] if one else ['copy', f'bench:{place}', str(task.target)],
            'delete': ['deletefile', f'bench:{place}/file'] if one else ['delete', f'bench:{place}'],
        }[verb]


class Mc(Tool):
    def environment(self, door: Any) -> dict[str, str]:
        scheme, _, host = door.url.partition('://')
        trust = {'SSL_CERT_FILE': str(door.ca_bundle)} if door.ca_bundle else {}
        return {'MC_HOST_bench': f'{scheme}://{door.access_key}:{door.secret_key}@{host}', 'MC_DISABLE_PAGER': '1', **trust}

    def words(self, verb: str, task: Task, place: str, url: str) -> list[str]:
        one = task.workload.files == 1
        words = {
            'idle': ['--version'],
            'up': ['cp', str(task.source), f'bench/{place}/file'] if one else ['cp', '--recursive', f'{task.data}/', f'bench/{place}/'],
            'down': ['cp', f'bench/{place}/file', f'{task.target}/file'] if one else ['cp', '--recursive', f'bench/{place}/', f'{task.target}/'],
            'delete': ['rm', f'bench/{place}/file'] if one else ['rm', '--recursive', '--force', f'bench/{place}/'],
        }
        return ['--quiet', *words[verb]] if verb != 'idle' else words[verb]


class Aws(Tool):
    def words(self, verb: str, task: Task, place: str, url: str) -> list[str]:
        one = task.workload.files == 1
        many = [] if one else ['--recursive']
        there = f's3://{place}/file' if one else f's3://{place}/'
        here = {'up': str(task.source), 'down': f'{task.target}/file' if one else str(task.target)}
        words = {'up': ['cp', here['up'], there], 'down': ['cp', there, here['down']], 'delete': ['rm', there]}
        return ['--version'] if verb == 'idle' else ['--endpoint-url', url, 's3', *words[verb], '--only-show-errors', *many]


TOOLS: dict[str, type[Tool]] = {'s5cmd': S5cmd, 'rclone': Rclone, 'mc': Mc, 'aws': Aws}
