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

"""The two sorted streams that are compared: the objects in a bucket, and the replicas in the catalogue.

Both are sorted by their UTF-8 bytes, which is the order of Python's strings, as S3 keys contain no surrogates.
"""

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Optional
from weakref import WeakKeyDictionary

from botocore.exceptions import ClientError
from sqlalchemy import BINARY, String, and_, cast, collate, func, select, text, type_coerce

from rucio.common.exception import RucioException
from rucio.common.s3 import archives, objects
from rucio.common.s3.errors import status_of, translated
from rucio.common.s3.parsing import UnreadableAnswerError
from rucio.core.s3.catalogue.records import stored_etag
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

from .compare import MAX_SIZE

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from rucio.core.s3.subtrees import Subtree

__all__ = [
    'Entry',
    'Lister',
    'Replica',
    'Unsorted',
    'entries',
    'entry_of',
    'etag_of',
    'known',
    'need_bucket',
    'replicas',
    'sorted_entries',
    'stat',
    'unordered',
]

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - Rucio's times are UTC without saying so
UNKNOWN_DATE = EPOCH.replace(tzinfo=timezone.utc)
DIRECTORY_BUCKET = '--x-s3'  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/directory-bucket-naming-rules.html
MAX_UPLOAD_TIME = timedelta(days=1)
MAX_ETAG_LENGTH = 128  # characters; those of storages have 32 to 70


class Entry(NamedTuple):
    """An object, from a listing or a HEAD."""

    key: str
    size: int  # bytes
    etag: str  # without quotes
    modified: float  # POSIX seconds
    archived: bool = False  # by its storage class: it may have to be restored before it can be read


class Replica(NamedTuple):
    """A replica in the catalogue. Size and checksums are those of the DID; if it has none, of the replica."""

    name: str
    bytes: int
    md5: Optional[str]
    adler32: Optional[str]
    # As in the database: A available, U unavailable, C copying, B being deleted, D bad, T temporarily unavailable
    state: str
    etag: Optional[str]  # stored for this RSE, if it is not an MD5
    updated: float  # POSIX seconds: when Rucio last wrote its row, at most a day after it was created


# Called like :func:`entries`: with a subtree, `after` and `until`.
Lister = Callable[['Subtree', str, Optional[str]], Iterator[Entry]]


class Unsorted(Exception):
    """The storage does not list keys in the order of their bytes, as AWS does not for directory buckets.

    :param everything: Lists the whole subtree, in any order.
    """

    def __init__(self, everything: Callable[[], Iterator[Entry]]) -> None:
        super().__init__('the storage lists its keys out of order')
        self.everything = everything


# The bucket


def is_sorted(subtree: 'Subtree') -> bool:
    """Return whether the storage lists keys in the order of their bytes, starting at any key. No request."""
    return subtree.storage.endpoint.sorted_listing and not subtree.bucket.endswith(DIRECTORY_BUCKET)


def entries(subtree: 'Subtree', after: str = '', until: Optional[str] = None) -> Iterator[Entry]:
    """Yield the objects of a subtree, sorted by the bytes of their keys.

    One request for each 1000 objects, with one page in memory.

    :param after: Only keys after this one.
    :param until: Only keys up to this one.
    :raises Unsorted: before anything of an unsorted page is yielded; immediately, if the storage does not sort.
    :raises SourceNotFound: if the bucket does not exist.
    :raises RucioException: if the storage does not answer, or a page is truncated without a token: the objects yielded
        so far are then incomplete.
    """
    if not is_sorted(subtree):
        raise Unsorted(partial(unordered, subtree))
    last = ''
    for page in _pages(subtree, after):
        for entry in page:
            if entry.key < last:
                raise Unsorted(partial(unordered, subtree))
            last = entry.key
        for entry in page:
            if until is not None and entry.key > until:
                return
            if entry.key > after:  # a storage may not know StartAfter, or list a key twice
                after = entry.key
                yield entry


def unordered(subtree: 'Subtree') -> Iterator[Entry]:
    """Yield all objects of a subtree in the order of the storage. Cost and exceptions as for :func:`entries`."""
    for page in _pages(subtree, ''):
        yield from page


def _pages(subtree: 'Subtree', after: str) -> Iterator[list[Entry]]:
    where = {'StartAfter': after} if after else {}
    try:
        for answer in objects.list_pages(
            subtree.storage.connection().client, subtree.target(subtree.name_prefix), restores=True, **where
        ):
            yield [
                entry_of(
                    each['Key'],
                    each['Size'],
                    each.get('ETag', ''),
                    each.get('LastModified') or UNKNOWN_DATE,
                    bool(archives.listed_class(each)),
                )
                for each in answer.get('Contents', [])
            ]
    except RucioException as error:
        cause = error.__cause__
        if where and isinstance(cause, ClientError) and cause.response['Error'].get('Code') == 'NotImplemented':
            raise Unsorted(partial(unordered, subtree)) from error
        raise


def sorted_entries(
    subtree: 'Subtree', entries: Iterable[Entry], after: str = '', until: Optional[str] = None
) -> Iterator[Entry]:
    """Sort a listing on disk, in a temporary file of about 150 bytes for each object. Constant memory.

    All entries are read before the first one is yielded.

    :param entries: The whole subtree; if a key is repeated, its last entry counts.
    :param after: Only keys after this one.
    :param until: Only keys up to this one.
    """
    with (
        tempfile.TemporaryDirectory(prefix='rucio-s3-') as folder,
        closing(sqlite3.connect(os.path.join(folder, 'listing'), isolation_level=None)) as file,
    ):
        # The file is not needed after a crash.
        file.executescript(
            'PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; CREATE TABLE listing (key TEXT PRIMARY KEY, size, etag, '
            'modified, archived) WITHOUT ROWID'
        )
        kept = (entry for entry in entries if entry.key > after and (until is None or entry.key <= until))
        file.execute('BEGIN')
        file.executemany('INSERT OR REPLACE INTO listing VALUES (?, ?, ?, ?, ?)', kept)
        file.execute('COMMIT')
        rows = file.execute('SELECT key, size, etag, modified, archived FROM listing ORDER BY key')
        yield from map(Entry._make, rows)


def entry_of(key: str, size: int, etag: str, modified: datetime, archived: bool = False) -> Entry:
    """Return an object as an entry that databases can hold: with a bounded size and a short ETag.

    :param key: The key.
    :param size: Bytes.
    :param etag: As the storage sent it.
    :param modified: When it was last written, with a time zone.
    :param archived: Whether its storage class is that of an archive, and it was not restored.
    """
    return Entry(key, min(size, MAX_SIZE + 1), etag_of(etag), modified.timestamp(), archived)


def etag_of(header: str) -> str:
    """Return an ETag without quotes and the prefix of a weak one; if it is too long, its digest.

    :param header: As the storage sent it.
    """
    etag = objects.bare_etag(header)
    return etag if len(etag) <= MAX_ETAG_LENGTH else hashlib.sha256(etag.encode(errors='replace')).hexdigest()


def stat(subtree: 'Subtree', key: str) -> Optional[Entry]:
    """Return an object, or None if it does not exist.

    One HEAD; if the object does not exist, another one of the bucket, so that a missing or inaccessible bucket is not
    treated as empty.

    :raises SourceNotFound: if the bucket does not exist.
    :raises RucioException: if it is unknown whether the object exists, or the answer lacks its date
        (UnreadableAnswerError).
    """
    connection, target = subtree.storage.connection(), subtree.target(subtree.name_of(key))
    with translated('stat', target):
        try:
            found = objects.head(connection, target)
        except ClientError as error:
            if status_of(error) != 404:
                raise
            need_bucket(subtree)
            return None
        size, modified = objects.info(found).size, found.get('LastModified')
        if modified is None:
            raise UnreadableAnswerError(reason='the object has no date')
    return entry_of(key, size, found.get('ETag', ''), modified, bool(archives.class_of(found)))


def need_bucket(subtree: 'Subtree') -> None:
    """Check that the bucket of a subtree exists. One HEAD.

    :raises SourceNotFound: if it does not.
    :raises RucioException: if it is unknown whether it exists.
    """
    with translated('ls', subtree.target(subtree.name_prefix)._replace(key='')):
        try:
            subtree.storage.connection().client.head_bucket(Bucket=subtree.bucket)
        except ClientError as error:
            if status_of(error) == 404:  # a HEAD has no body that says what is missing
                error.response['Error']['Code'] = 'NoSuchBucket'
            raise


# The catalogue


def replicas(subtree: 'Subtree', after: str = '', until: Optional[str] = None, page: int = 20_000) -> Iterator[Replica]:
    """Yield the files that the catalogue has on the RSE, sorted by the bytes of their names.

    One query and one short transaction for each page, whose rows are in memory. On PostgreSQL with a collation other
    than C, each page sorts all rows after it, unless there is an index: ``CREATE INDEX ... ON replicas (scope, rse_id,
    name COLLATE "C")``. On MySQL, each page always does.

    :param after: Only names after this one.
    :param until: Only names up to this one.
    :param page: The number of files in a page.
    """
    # Keys may contain a NUL, names never do, and PostgreSQL accepts none: the names after such a key are those after
    # its part before the NUL.
    last = max(after, subtree.name_prefix).partition('\0')[0]
    until = None if until is None else until.partition('\0')[0]
    while True:
        with db_session(DatabaseOperationType.READ) as session:
            # On SQLite, a writer waits for an open reader.
            rows = session.execute(_page(subtree, last, until, page, session)).all()
        yield from _as_replicas(subtree, rows)
        if len(rows) < page:
            return
        last = rows[-1].name


def known(subtree: 'Subtree', names: Iterable[str]) -> dict[str, Replica]:
    """Return the current replicas of some files, by name. One query for each 500, in one short transaction.

    :param names: The names.
    """
    wanted = list(names)
    found: list[Any] = []
    with db_session(DatabaseOperationType.READ) as session:
        for first in range(0, len(wanted), 500):
            stmt = _rows(subtree).where(models.RSEFileAssociation.name.in_(wanted[first : first + 500]))
            found += session.execute(stmt).all()
    asked = set(wanted)  # some databases also return `a` for `A`, whose object was not checked
    return {replica.name: replica for replica in _as_replicas(subtree, found) if replica.name in asked}


def _rows(subtree: 'Subtree') -> Any:
    replica, did, meta = models.RSEFileAssociation, models.DataIdentifier, models.DidMeta
    return (
        select(
            replica.name,
            func.coalesce(did.bytes, replica.bytes),
            func.coalesce(did.md5, replica.md5),
            func.coalesce(did.adler32, replica.adler32),
            type_coerce(replica.state, String),  # an Enum takes longer than everything else
            replica.created_at,
            replica.updated_at,
            replica.path,
            meta.meta,
        )
        .outerjoin(did, and_(did.scope == replica.scope, did.name == replica.name))
        .outerjoin(meta, and_(meta.scope == replica.scope, meta.name == replica.name))
        .where(replica.scope == subtree.scope, replica.rse_id == subtree.storage.rse_id)
    )


def _page(subtree: 'Subtree', last: str, until: Optional[str], count: int, session: 'Session') -> Any:
    order = _byte_order(session)
    name = order(models.RSEFileAssociation.name)
    stmt = _rows(subtree).where(name > order.value(last)).order_by(name).limit(count)
    if subtree.name_prefix:
        # "0" is the character after "/", so this is the first name after all that begin with the prefix.
        stmt = stmt.where(name < order.value(f'{subtree.name_prefix[:-1]}0'))
    return stmt if until is None else stmt.where(name <= order.value(until))


def _as_replicas(subtree: 'Subtree', rows: Iterable[Any]) -> Iterator[Replica]:
    deterministic, rse_id = subtree.storage.layout.deterministic, subtree.storage.rse_id
    for name, size, md5, adler32, state, created, updated, path, meta in rows:
        if not deterministic and path != subtree.path_of(subtree.key_of(name)):
            continue  # registered by somebody else, at another place
        etag = stored_etag(meta, rse_id) if meta else None
        # A row is also written for each lock that is added or removed, which says nothing about the content. An upload
        # may take a while.
        proven = min(updated, created + MAX_UPLOAD_TIME)
        yield Replica(name, size, md5, adler32, state, etag, (proven - EPOCH).total_seconds())


class _Order:
    """How a database compares names by their bytes."""

    def __init__(self, expression: Callable[[Any], Any], value: Callable[[str], Any]) -> None:
        self._expression = expression
        self.value = value

    def __call__(self, column: Any) -> Any:
        return self._expression(column)


# SQLite and Oracle compare bytes, unless configured otherwise.
_PLAIN = _Order(lambda column: column, str)
_POSTGRESQL = _Order(lambda column: collate(column, 'C'), str)
_MYSQL = _Order(lambda column: cast(column, BINARY), str.encode)

_orders: 'WeakKeyDictionary[Any, _Order]' = WeakKeyDictionary()  # by engine


def _byte_order(session: 'Session') -> _Order:
    """Return how this database compares names by their bytes. At most three queries, once for each engine."""
    engine = session.get_bind()
    if engine not in _orders:
        dialect = engine.dialect.name
        _orders[engine] = (
            _MYSQL if dialect == 'mysql' else _POSTGRESQL if dialect == 'postgresql' and not _is_c(session) else _PLAIN
        )
    return _orders[engine]


def _is_c(session: 'Session') -> bool:
    """Return whether PostgreSQL compares names by their bytes."""
    collation = text(
        'SELECT to_jsonb(c) FROM pg_attribute a JOIN pg_collation c ON c.oid = a.attcollation WHERE a.attrelid = '
        'CAST(:table AS regclass) AND a.attname = :name'
    )
    table = models.RSEFileAssociation.__table__
    found = session.execute(collation, {'table': str(table), 'name': 'name'}).scalar_one()
    kind, provider = 'coll', found['collprovider']
    if provider == 'd':  # the database's
        kind, found = (
            'dat',
            session.execute(
                text('SELECT to_jsonb(d) FROM pg_database d WHERE d.datname = current_database()')
            ).scalar_one(),
        )
        provider = found.get('datlocprovider', 'c')  # not before version 15
    if provider == 'b':  # built in: all of them (C, C.UTF-8, PG_UNICODE_FAST) compare code points
        return True
    return provider == 'c' and found[f'{kind}collate'].upper().replace('-', '') in ('C', 'POSIX', 'C.UTF8')
