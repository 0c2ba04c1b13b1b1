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

"""The test objects of one check."""

import secrets
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from rucio.common.exception import RucioException
from rucio.common.s3 import clients, transfer
from rucio.common.s3.address import encode_path
from rucio.common.s3.errors import Target

from .trial import failed


class Scratch:
    """A folder of a bucket for test objects, which :meth:`remove` deletes.

    :param connection: The storage.
    :param target: The bucket, and the prefix of the folder.
    :param made_bucket: Whether the bucket was made for the check: then it is removed as well.
    """

    def __init__(self, connection: clients.Connection, target: Target, made_bucket: bool = False) -> None:
        self.connection = connection
        self.rse, self.bucket = target[:2]
        self.folder = target.key + new_folder()
        self.made_bucket = made_bucket
        self._keys: set[str] = set()

    def target(self, name: str) -> Target:
        """Return an object of this check.

        :param name: Its name in the folder.
        """
        self._keys.add(self.folder + name)
        return Target(self.rse, self.bucket, self.folder + name)

    def connect(self, **settings: Any) -> clients.Connection:
        """Connect with other settings.

        :param settings: The settings to change.
        """
        return clients.connect(replace(self.connection.endpoint, **settings), self.connection.authorizer)

    @property
    def bare(self) -> clients.Connection:
        """A connection that adds nothing to requests."""
        return clients.bare(self.connection.endpoint, self.connection.authorizer)

    def round_trip(self, connection: clients.Connection, name: str, content: bytes) -> None:
        """Write and read an object as Rucio's clients do.

        :param connection: The connection.
        :param name: Its name in the folder.
        :param content: Its content.
        :raises Outcome: if the content read differs.
        """
        target = self.target(name)
        round_trip(
            content,
            lambda path: transfer.upload(connection, path, target),
            lambda path: transfer.download(connection, target, path),
        )

    def remove(self) -> str:
        """Remove the test objects.

        :returns: What could not be removed, or an empty string.
        """
        client, left = self.connection.client, []
        for key in sorted(self._keys):
            try:
                client.delete_object(Bucket=self.bucket, Key=key)
            except (ClientError, BotoCoreError, RucioException):
                left.append(f'{self.bucket}/{encode_path(key)}')
        if self.made_bucket:
            try:
                client.delete_bucket(Bucket=self.bucket)
            except (ClientError, BotoCoreError):
                left.append(f'the bucket {self.bucket}')
        return ', '.join(left)


def new_folder() -> str:
    """Return a name that nothing else has."""
    return f'.rucio-s3-check/{secrets.token_hex(8)}/'


def round_trip(content: bytes, put: Callable[[str], object], get: Callable[[str], object]) -> None:
    """Upload a local file, download it to another one, and compare the two.

    :param content: The content of the file.
    :param put: Uploads the file with this path.
    :param get: Downloads to this path.
    :raises Outcome: if they differ.
    """
    with tempfile.TemporaryDirectory(prefix='rucio-s3-check-') as folder:
        sent, got = Path(folder) / 'sent', Path(folder) / 'got'
        sent.write_bytes(content)
        put(str(sent))
        get(str(got))
        if got.read_bytes() != content:
            raise failed(
                'the content read differs from what was written', 'Do not use this storage; tell its operator.'
            )
