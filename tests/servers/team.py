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


"""Two users of a Rucio server who hold no key, as a test of `rucio s3` sees them."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cli import RucioCli, RucioError, add_s3_rse, add_user
from .seaweedfs import SeaweedFS


@dataclass
class Team:
    """An owner with a scope, and another account. Nobody is an admin, and the server has the keys."""

    root: RucioCli
    owner: RucioCli
    other: RucioCli
    rse: str
    storage: SeaweedFS

    @classmethod
    def make(cls, root: RucioCli, directory: Callable[[str], Path], names: tuple[str, str], rse: str, storage: SeaweedFS) -> 'Team':
        """The accounts can store on this RSE only. The server gives out keys where the storage has STS, else it signs."""
        users = [add_user(root, directory(name), name, scopes=[f'user.{name}'], attributes=()) for name in names]
        settings = {'role_arn': storage.role_arn} if storage.sts else {}
        rse_id = add_s3_rse(root, rse, storage, accounts=names, settings=settings)
        root.server.set_rse_keys(rse_id, storage.access_key, storage.secret_key)
        return cls(root, users[0], users[1], rse, storage)

    @property
    def scope(self) -> str:
        """The owner's, and the name of its bucket."""
        return f'user.{self.owner.account}'

    def upload(self, name: str, content: bytes, dataset: str = '') -> None:
        """As the owner, by the stock command."""
        file = self.owner.directory / 'file'
        file.write_bytes(content)
        did = [f'{self.scope}:{dataset}'] if dataset else []
        done = self.owner.rucio('upload', '--rse', self.rse, '--scope', self.scope, '--lfn', name, *did, str(file))
        assert 'Successfully uploaded file' in done.stderr + done.stdout, done.stdout + done.stderr

    def objects(self) -> dict[str, int]:
        """What another S3 client sees in the owner's bucket: key -> size."""
        pages = self.storage.client().get_paginator('list_objects_v2').paginate(Bucket=self.scope)
        return {each['Key']: each['Size'] for page in pages for each in page.get('Contents', [])}

    def buckets(self) -> set[str]:
        return {each['Name'] for each in self.storage.client().list_buckets()['Buckets']}


def ok(done: 'subprocess.CompletedProcess[str]') -> str:
    """What a command said that has to work."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'Traceback' not in done.stdout + done.stderr
    return done.stdout


def refused(done: 'subprocess.CompletedProcess[str]', code: int = 1) -> str:
    """What a command said that must not work."""
    assert done.returncode == code, done.stdout + done.stderr
    assert 'Traceback' not in done.stdout + done.stderr
    return done.stdout + done.stderr


def rows(done: 'subprocess.CompletedProcess[str]') -> list[list[str]]:
    """What --robot printed."""
    return [line.split('\t') for line in ok(done).splitlines()]


def as_json(done: 'subprocess.CompletedProcess[str]') -> object:
    """What --robot printed, where that is JSON."""
    return json.loads(ok(done))


_CALL = 'import json, sys\nfrom rucio.client.s3client import S3Client\nm, a, k = json.load(sys.stdin)\njson.dump(getattr(S3Client(), m)(*a, **k), sys.stdout)'


def s3_call(user: RucioCli, method: str, *arguments: Any, **keywords: Any) -> Any:
    """Call one method of the S3Client as a user, in a process of its own.

    :raises RucioError: with what it wrote.
    """
    done = user.python(_CALL, text=json.dumps([method, arguments, keywords]))
    if done.returncode:
        raise RucioError(done.stderr)
    return json.loads(done.stdout)
