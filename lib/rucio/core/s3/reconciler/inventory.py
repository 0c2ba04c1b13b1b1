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

"""S3 Inventory reports instead of listings: a storage writes them once a day or week for all objects of a bucket.

A report costs one request for each of its files, not one for each 1000 objects. It is outdated when it arrives: objects
may have been written or deleted since, so each object that differs from the catalogue is checked at the storage.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html
"""

import csv
import gzip
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Optional
from urllib.parse import unquote_plus

from rucio.common.exception import ConfigurationError, FileConsistencyMismatch, RSEOperationNotSupported
from rucio.common.s3 import archives, transfer
from rucio.common.s3.content import BLOCK
from rucio.common.s3.dates import from_text
from rucio.common.s3.errors import Target

from .listings import Entry, entry_of, sorted_entries

if TYPE_CHECKING:
    from rucio.core.s3.subtrees import Subtree

__all__ = ['Inventory', 'NamedInventory']

_NEEDED = ('Key', 'Size', 'LastModifiedDate', 'ETag')


class _Report(NamedTuple):
    """The content of the manifest."""

    columns: dict[str, int]
    files: list[tuple[str, str]]  # key and MD5 of each data file


class Inventory:
    """Lists a bucket for the reconciler by reading one report.

    :param manifest: ``s3://bucket/path/manifest.json``, on the RSE's storage; the server's keys must be allowed to read
        it.
    :raises ConfigurationError: if it is not such a URL.
    """

    old = True  # the reconciler also checks new objects at the storage

    def __init__(self, manifest: str) -> None:
        bucket, _, self._key = manifest.removeprefix('s3://').partition('/')
        if not manifest.startswith('s3://') or not bucket or not self._key.endswith('manifest.json'):
            raise ConfigurationError(
                f"The inventory '{manifest}' is not a manifest: use s3://bucket/path/manifest.json."
            )
        self._bucket = bucket

    def __call__(self, subtree: 'Subtree', after: str = '', until: Optional[str] = None) -> Iterator[Entry]:
        """Yield the entries of a subtree, sorted by the bytes of their keys.

        All of the report is read and sorted on disk before the first entry: one request for each of its files, about
        150 bytes on disk for each object, constant memory.

        :param subtree: The subtree.
        :param after: Only keys after this one.
        :param until: Only keys up to this one.
        :raises SourceNotFound: if a file of the report does not exist.
        :raises FileConsistencyMismatch: if a file is damaged.
        :raises ConfigurationError: if the report is of another bucket, or lacks a field.
        :raises RSEOperationNotSupported: if its format is not CSV.
        :raises RucioException: if the storage fails otherwise, as :mod:`rucio.common.s3.errors` translates it.
        """
        yield from sorted_entries(subtree, self._entries(subtree), after, until)

    def _entries(self, subtree: 'Subtree') -> Iterator[Entry]:
        """Yield the entries below the subtree's prefix, in the order of the report."""
        with tempfile.TemporaryDirectory(prefix='rucio-s3-inventory-') as folder:
            path = os.path.join(folder, 'file')
            self._get(subtree, self._key, path)
            with open(path, 'rb') as file:
                report = self._report(subtree, file.read())
            for key, md5 in report.files:
                self._get(subtree, key, path, md5)
                yield from self._rows(subtree, key, path, report.columns)

    def _get(self, subtree: 'Subtree', key: str, path: str, md5: str = '') -> None:
        transfer.download(subtree.storage.connection(), Target(subtree.storage.rse, self._bucket, key), path)
        if md5 and _md5_of(path) != md5:
            raise FileConsistencyMismatch(
                f'{self._named(subtree, key)} does not match the MD5 in its manifest: it is damaged. Use the inventory '
                'of another day.'
            )

    def _named(self, subtree: 'Subtree', key: str) -> str:
        return f"RSE {subtree.storage.rse}: the inventory file 's3://{self._bucket}/{key}'"

    def _report(self, subtree: 'Subtree', text: bytes) -> _Report:
        try:
            manifest: dict[str, Any] = json.loads(text)
            columns = {name.strip(): number for number, name in enumerate(manifest['fileSchema'].split(','))}
            files = [(str(each['key']), str(each.get('MD5checksum') or '')) for each in manifest['files']]
            source, kind = manifest['sourceBucket'], manifest['fileFormat']
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigurationError(
                f'{self._named(subtree, self._key)} is not the manifest of an S3 Inventory: name the manifest.json of '
                'one.'
            ) from None
        if source != subtree.bucket:
            raise ConfigurationError(
                f"{self._named(subtree, self._key)} is of the bucket '{source}', not of '{subtree.bucket}': use the "
                'inventory of that bucket.'
            )
        if kind != 'CSV':
            raise RSEOperationNotSupported(
                f'{self._named(subtree, self._key)}: its format is {kind}, but only CSV is supported. Configure the '
                'inventory as CSV.'
            )
        if lacking := [name for name in _NEEDED if name not in columns]:
            raise ConfigurationError(
                f'{self._named(subtree, self._key)} lacks {", ".join(lacking)}: configure the inventory with these '
                'fields.'
            )
        return _Report(columns, files)

    def _rows(self, subtree: 'Subtree', key: str, path: str, columns: dict[str, int]) -> Iterator[Entry]:
        name, size, modified, etag = (columns[each] for each in _NEEDED)
        latest, marker, kind = (columns.get(each) for each in ('IsLatest', 'IsDeleteMarker', 'StorageClass'))
        try:
            with gzip.open(path, 'rt', encoding='utf-8', newline='') as file:
                for row in csv.reader(file):
                    # For a versioned bucket, the report may have all versions, and markers for deleted objects.
                    if (latest is not None and row[latest] == 'false') or (
                        marker is not None and row[marker] == 'true'
                    ):
                        continue
                    found = unquote_plus(row[name], errors='strict')
                    if found.startswith(subtree.key_prefix):
                        date = from_text(row[modified])
                        archived = kind is not None and bool(archives.listed_class({'StorageClass': row[kind]}))
                        yield entry_of(found, int(row[size]), row[etag], date, archived)
        except (ValueError, IndexError, EOFError, OSError, csv.Error) as error:
            raise FileConsistencyMismatch(
                f'{self._named(subtree, key)} cannot be read: {error}. Use the inventory of another day.'
            ) from error


class NamedInventory(NamedTuple):
    """An inventory, with the bucket that it lists."""

    rse: str
    bucket: str
    inventory: Inventory

    @classmethod
    def parse(cls, text: str) -> 'NamedInventory':
        """Parse an argument of the command line: ``RSE/BUCKET=s3://bucket/path/manifest.json``.

        :param text: The argument.
        :raises ConfigurationError: if it has another form.
        """
        place, _, manifest = text.partition('=')
        rse, _, bucket = place.partition('/')
        if not rse or not bucket or not manifest:
            raise ConfigurationError(f"'{text}' is not an inventory: use RSE/BUCKET=s3://bucket/path/manifest.json.")
        return cls(rse, bucket, Inventory(manifest))


def _md5_of(path: str) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, 'rb') as file:
        while some := file.read(BLOCK):
            digest.update(some)
    return digest.hexdigest()
