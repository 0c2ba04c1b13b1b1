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

"""The content of a file, block by block."""

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Optional

from rucio.common.exception import FileConsistencyMismatch, RucioException, UnsupportedOperation
from rucio.common.s3 import objects
from rucio.common.s3.content import BLOCK, Checksums, Verified
from rucio.common.s3.errors import translated

from .paths import RemoteFile
from .pipeline import message
from .sources import Sources
from .tally import Refused

if TYPE_CHECKING:
    from rucio.client.client import Client
    from rucio.rse.protocols.s3 import Default

__all__ = ['stream']


def stream(
    client: 'Client', scope: str, name: str, write: Callable[[bytes], object], rse_expression: Optional[str] = None
) -> None:
    """Read a file from the first replica that works, in order, and compare it with the catalogue.

    If its checksum is wrong, the last bytes are missing. Two requests to the Rucio server, one for the RSE, and two to
    the storage. Memory: 2 MiB.

    :param client: The Rucio client.
    :param scope: The scope of the file.
    :param name: The name of the file.
    :param write: Called with each block.
    :param rse_expression: Only use replicas on these RSEs.
    :raises UnsupportedOperation: if it is not a file.
    :raises Refused: if reading fails after something was written.
    :raises FileConsistencyMismatch: if the content is not that of the catalogue, and nothing was written.
    :raises RucioException: if no replica works.
    """
    kind = client.get_did(scope, name)['type']
    if kind != 'FILE':
        raise UnsupportedOperation(f'{scope}:{name} is a {kind.lower()}: name one of its files.')
    sources = Sources(client, rse_expression)
    file = RemoteFile(scope, name, Checksums(), name)
    replicas = sources.look_up([file])[file.did]

    def get(protocol: 'Default', pfn: str) -> None:
        written = False
        connection, target = protocol.locate('read', pfn)
        try:
            with translated('get', target):
                info = objects.stat(connection, target, 'get')
            if replicas.checksums.size not in (None, info.size):
                raise FileConsistencyMismatch(
                    f'RSE {target.rse}: get of {target}: it has {info.size} bytes, but the catalogue says '
                    f'{replicas.checksums.size}. Use another replica, or declare it bad.'
                )
            with closing(Verified(connection, target, info, replicas.checksums)) as content:
                while block := content.read(BLOCK):
                    written = True
                    write(block)
        except RucioException as error:
            if written:
                raise Refused(f'{file.did} was not read completely. {message(error)}') from error
            raise

    sources.attempt(replicas, get)
