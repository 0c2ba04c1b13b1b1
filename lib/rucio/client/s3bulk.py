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

"""Many files at once, for :class:`rucio.client.s3client.S3Client`: upload, download, synchronisation and deletion."""

from functools import cached_property
from typing import TYPE_CHECKING, Optional, Union, cast

from rucio.client.baseclient import BaseClient
from rucio.common.exception import InputValidationError
from rucio.common.s3.address import parse_did

from .s3session import same_login

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rucio.client.client import Client
    from rucio.client.s3client import S3Client
    from rucio.client.s3files import Downloaded, Options, Synced, Uploaded
    from rucio.common.s3 import api

__all__ = ['BulkClient']

Texts = Union[str, 'Iterable[str]']


class BulkClient(BaseClient):
    """The methods of ``S3Client`` for many files. They call nothing that is not in :mod:`rucio.client.s3files`.

    The storages are those that rucio.cfg on this machine describes, with the access of its account, as for the stock
    ``rucio upload`` and ``rucio download``.
    """

    def upload(
        self,
        sources: Texts,
        did: str,
        rse: Optional[str] = None,
        *,
        include: 'Iterable[str]' = (),
        exclude: 'Iterable[str]' = (),
        dry_run: bool = False,
        jobs: Optional[int] = None,
        progress: 'Optional[Callable[[int], None]]' = None,
    ) -> 'Uploaded':
        """Upload files and directories into a dataset, as ``rucio s3 upload`` does: what is missing, and in parallel.

        For each 500 files two requests to the Rucio server (one if nothing is missing) and one or two listings of the
        storage, and one request to it for each missing file. Memory: ``multipart_threshold`` bytes for each job.

        Parameters
        ----------
        sources :
            Local files and directories, or one of them. Of a directory alone, ``directory/a`` becomes ``did/a``.
        did :
            The dataset, such as ``user.jdoe:run7``. It is made if it is missing, with a rule on the RSE.
        rse :
            The RSE. Only needed if there are several.
        include :
            Only upload files that match one of these patterns: ``*.root`` in any directory, ``/*.root`` in the first,
            ``**`` across directories.
        exclude :
            Do not upload files that match one of these.
        dry_run :
            Change nothing.
        jobs :
            The number of files to upload at once. By default 16 to 128, by the latency of the storage.
        progress :
            Called by any thread with the number of bytes of each step. Without it, a terminal shows a progress bar.

        Returns
        -------
            sent, sent_bytes, there, found, made, planned (in a dry run), and failures and warnings: (path, reason).

        Raises
        ------
        InputValidationError
            If there is nothing to upload, or Rucio refuses a name. Nothing is uploaded then.

        Examples
        --------
        ??? Example

            ```python
            from rucio.client.s3client import S3Client
            uploaded = S3Client().upload('run7', 'user.jdoe:run7', include=['*.root'])
            print(uploaded.sent, uploaded.failures)
            ```
        """
        from rucio.client.s3files import Upload  # noqa: PLC0415 - not needed by most

        scope, name = _parsed(did)
        options = _options(include, exclude, dry_run, jobs, progress)
        place = self._rse(scope, name, rse)
        return Upload(self._stock, _listed(sources), scope, name, place, options, self._server).run()

    def download(
        self,
        dids: Texts,
        directory: str,
        rse: Optional[str] = None,
        *,
        include: 'Iterable[str]' = (),
        exclude: 'Iterable[str]' = (),
        dry_run: bool = False,
        jobs: Optional[int] = None,
        progress: 'Optional[Callable[[int], None]]' = None,
    ) -> 'Downloaded':
        """Download files and collections, as ``rucio s3 download`` does: what is missing or differs, and in parallel.

        Two requests to the Rucio server for each DID, one for each 500 missing files, and one request to a storage for
        each of those (more for large ones). Local files of the right size are read. Memory: about 500 bytes for each
        file.

        Parameters
        ----------
        dids :
            The DIDs, or one of them; ``*`` in a name matches anything.
        directory :
            The local directory. Of one collection alone, ``did/a`` becomes ``directory/a``.
        rse :
            Only use replicas on this RSE, or on those of an RSE expression.
        include, exclude, dry_run, jobs, progress :
            As in :meth:`upload`; ``progress`` also gets negative numbers, if bytes have to be repeated.

        Returns
        -------
            received, received_bytes, there, planned (in a dry run), and failures: (DID, reason).
        """
        from rucio.client.s3files import Download  # noqa: PLC0415

        options = _options(include, exclude, dry_run, jobs, progress)
        return Download(self._stock, map(_parsed, _listed(dids)), directory, rse, options, self._server).run()

    def sync(  # noqa: PLR0913 - what the command takes
        self,
        source: str,
        destination: str,
        rse: Optional[str] = None,
        *,
        delete: bool = False,
        include: 'Iterable[str]' = (),
        exclude: 'Iterable[str]' = (),
        dry_run: bool = False,
        jobs: Optional[int] = None,
        progress: 'Optional[Callable[[int], None]]' = None,
    ) -> 'Synced':
        """Make a directory and a collection equal, one way. Costs an upload or a download.

        Parameters
        ----------
        source :
            The directory, or the DID of a collection.
        destination :
            The other one. The one with a colon is the DID: begin the name of such a directory with ``./``.
        rse :
            As in :meth:`upload` and :meth:`download`.
        delete :
            Delete the files of the destination that the source does not have, unless anything failed; in the catalogue
            as :meth:`rm` does, one request for each 200 files.
        include, exclude, dry_run, jobs, progress :
            As in :meth:`upload`. What they leave out is not deleted.

        Returns
        -------
            transferred (as from :meth:`upload` or :meth:`download`), deleted, and failures: what could not be deleted.

        Raises
        ------
        InputValidationError
            If none of them is a DID, or both.
        """
        from rucio.client.s3files.sync import is_did, sync_from, sync_to  # noqa: PLC0415

        options = _options(include, exclude, dry_run, jobs, progress)
        if is_did(source) == is_did(destination):
            raise InputValidationError('One of source and destination must be a local directory, the other a DID.')
        if is_did(source):
            return sync_from(self._stock, self._server, *_parsed(source), destination, rse, options, delete)
        scope, name = _parsed(destination)
        return sync_to(self._stock, self._server, source, scope, name, self._rse(scope, name, rse), options, delete)

    def rm(self, dids: Texts, rse: Optional[str] = None, *, recursive: bool = False) -> 'list[api.RemovedFiles]':
        """Delete files: their objects and what the catalogue has of them, as ``rucio s3 rm`` does. It does not ask.

        Two requests for each DID, and one for each 200 files; for collections and wildcards a listing of the bucket, as
        objects are deleted that the catalogue does not have, too.

        Parameters
        ----------
        dids :
            The DIDs, or one of them; ``*`` in a name matches anything.
        rse :
            The RSE. Only needed if there are several.
        recursive :
            Also take collections, and delete all files whose names begin with theirs and a slash.

        Returns
        -------
            For each scope rse, bucket, removed (the number of files), and kept: name and reason (found) of the others.

        Raises
        ------
        InputValidationError
            If one is a collection, and ``recursive`` is not given, or a wildcard matches nothing. Nothing is deleted
            then.
        """
        from rucio.client.s3files.deletion import Deletion  # noqa: PLC0415

        return Deletion(self._stock, self._server, map(_parsed, _listed(dids)), rse, recursive).run()

    @property
    def _server(self) -> 'S3Client':
        return cast('S3Client', self)  # which is the only one with these methods

    @cached_property
    def _stock(self) -> 'Client':
        """The stock client for the same server and account. It has the same token."""
        from rucio.client.client import Client  # noqa: PLC0415 - all of Rucio's clients

        return Client(**same_login(self))

    def _rse(self, scope: str, name: str, rse: Optional[str]) -> str:
        return rse or str(self._server.best_place(scope, name)['rse'])


def _options(
    include: 'Iterable[str]',
    exclude: 'Iterable[str]',
    dry_run: bool,
    jobs: Optional[int],
    progress: 'Optional[Callable[[int], None]]',
) -> 'Options':
    from rucio.client.s3files import Filter, Options  # noqa: PLC0415

    return Options(jobs=jobs, chosen=Filter(include, exclude), dry_run=dry_run, on_progress=progress)


def _listed(given: Texts) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _parsed(did: str) -> tuple[str, str]:
    return parse_did(did, need_name=True)
