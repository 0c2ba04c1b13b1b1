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

"""Make a directory and a collection equal, one way: transfer what differs, and delete what the source does not have.

Only files are deleted that the other direction would transfer, and that the filters let through. If anything failed
before, nothing is deleted, as the source may have more than was seen.
"""

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Optional

from rucio.common.exception import UnsupportedOperation

from .directory import walk
from .download import Download
from .options import Options
from .paths import WILDCARD
from .tally import Synced
from .upload import Upload

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from rucio.client.client import Client
    from rucio.client.s3client import S3Client

    from .filters import Filter

__all__ = ['is_did', 'sync_from', 'sync_to']


def is_did(text: str) -> bool:
    """Return whether this is a DID, and not a directory.

    :param text: The DID or the directory.
    """
    return ':' in text and not text.startswith(('.', '/')) and not os.path.exists(text)


def sync_to(
    client: 'Client',
    server: 'S3Client',
    directory: str,
    scope: str,
    name: str,
    rse: str,
    options: Options,
    delete: bool = False,
) -> Synced:
    """Make a collection equal to a directory. Cost: an upload, and for ``delete`` one request for each 200 files.

    :param client: The Rucio client.
    :param server: The S3 client, which deletes as :class:`.Deletion` does.
    :param directory: The directory.
    :param scope: The scope of the collection.
    :param name: Its name.
    :param rse: The RSE.
    :param options: As for an upload.
    :param delete: Whether to delete the files below ``scope:name/`` that the directory does not have.
    :raises RucioException: as :meth:`.Upload.run`.
    """
    upload = Upload(client, [directory], scope, name, rse, options, server)
    synced = Synced(upload.run())
    if not delete or synced.transferred.failures:
        return synced
    kept = set(upload.files.paths())
    registered = client.list_dids(scope, [{'name': f'{name}/{WILDCARD}'}], did_type='file')
    below = [str(each).removeprefix(f'{name}/') for each in registered]
    surplus = [f'{name}/{path}' for path in sorted(below) if path not in kept and options.chosen.takes(path)]
    if surplus and not options.dry_run:
        answer = server.remove_files(scope, surplus, rse)
        synced.failures += [(f'{scope}:{each["name"]}', each['found']) for each in answer['kept']]
    failed = {did for did, _ in synced.failures}
    synced.deleted += [did for did in (f'{scope}:{each}' for each in surplus) if did not in failed]
    return synced


def sync_from(
    client: 'Client',
    server: 'Optional[S3Client]',
    scope: str,
    name: str,
    directory: str,
    rse_expression: Optional[str],
    options: Options,
    delete: bool = False,
) -> Synced:
    """Make a directory equal to a collection. Cost: a download.

    :param client: The Rucio client.
    :param server: The S3 client, by which a server with the plugin is asked.
    :param scope: The scope of the collection.
    :param name: Its name.
    :param directory: The directory.
    :param rse_expression: Only use replicas on these RSEs.
    :param options: As for a download.
    :param delete: Whether to delete the local files that the collection does not have. Links to directories are left
        alone.
    :raises UnsupportedOperation: if it is a file, or a wildcard.
    """
    if WILDCARD in name or client.get_did(scope, name)['type'] == 'FILE':
        raise UnsupportedOperation(f'{scope}:{name} is not a dataset or container: use rucio s3 download.')
    download = Download(client, [(scope, name)], directory, rse_expression, options, server)
    synced = Synced(download.run())
    if not delete or synced.transferred.failures or not os.path.isdir(directory):
        return synced
    if not download.paths and options.chosen.is_open:  # it would empty the directory, as an expired dataset may
        synced.failures.append((f'{scope}:{name}', f"has no files, so nothing was deleted in '{directory}'"))
    else:
        _delete_others(directory, download.paths, options.chosen, options.dry_run, synced)
    return synced


def _delete_others(directory: str, kept: 'AbstractSet[str]', chosen: 'Filter', dry_run: bool, synced: Synced) -> None:
    """Delete the files of a directory that are not among those to keep, and the directories that become empty."""
    surplus = [
        (whole, path) for whole, path in walk(directory, lambda *_: None) if path not in kept and chosen.takes(path)
    ]
    for whole, path in surplus:
        try:
            if not dry_run:
                os.unlink(whole)
                _remove_empty(directory, os.path.dirname(path))
            synced.deleted.append(os.path.join(directory, path))
        except OSError as error:
            synced.failures.append((whole, f'cannot be deleted: {error.strerror}'))


def _remove_empty(directory: str, path: str) -> None:
    """Remove a directory below another one, and those above it, as far as they are empty."""
    with suppress(OSError):  # it is not empty
        while path:
            os.rmdir(os.path.join(directory, path))
            path = os.path.dirname(path)
