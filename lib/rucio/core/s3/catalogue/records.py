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

"""Common parts of the registration and update of files: parameters and results, transactions, and stored ETags."""

import json
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, TypeVar

from sqlalchemy import (
    String,
    and_,
    any_,
    bindparam,
    cast,
    column,
    false,
    func,
    insert,
    literal,
    null,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError, InterfaceError, InternalError, OperationalError

from rucio.common.exception import DatabaseException, RucioException
from rucio.common.types import InternalType
from rucio.core.s3.metadata import as_column, as_dict
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, ReplicaState
from rucio.db.sqla.session import db_session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalScope
    from rucio.core.s3.subtrees import Subtree

__all__ = [
    'ETAGS_KEY',
    'Collision',
    'NewFile',
    'Refusal',
    'batches',
    'error_text',
    'insert_rows',
    'look_up',
    'readable',
    'run_transaction',
    'select_named',
    'store_etags',
    'stored_etag',
    'utcnow',
]

ETAGS_KEY = 's3_etags'  # in the metadata of a file: RSE id -> its ETag there when its content was last verified
MAX_TRIES = 3  # attempts of a transaction that conflicts with another one
MAX_IN_LIST = 1000  # limit of Oracle for one IN

_Result = TypeVar('_Result')
_Item = TypeVar('_Item')


class NewFile(NamedTuple):
    """A new object, as it is registered in the catalogue.

    :param bytes: Its size.
    :param etag: Only if it is not an MD5.
    :param path: Only on a non-deterministic RSE: the path of the replica.
    :param guid: As the uploader of stock Rucio gives one to each file.
    """

    name: str
    bytes: int
    md5: Optional[str] = None
    adler32: Optional[str] = None
    etag: Optional[str] = None
    path: Optional[str] = None
    guid: Optional[str] = None


class Refusal(NamedTuple):
    """An action that was refused; or, if ``kind`` is ``over-limit`` or ``no-rule``, done with a warning.

    :param kind: ``conflict``, ``closed``, ``over-limit``, ``no-rule``, ``changed``, ``gone``, ``busy``, ``copies``,
        ``locked``, ``empty`` or ``failed``.
    :param name: The name of the file, or of its dataset.
    :param found: What was found, and what to do.
    """

    kind: str
    name: str
    found: str


# Transactions


class Collision(Exception):
    """Another transaction wrote the same rows at the same time, or refers to a row to delete."""


@contextmanager
def _write_transaction() -> 'Iterator[Session]':
    with db_session(DatabaseOperationType.WRITE) as session:
        if session.get_bind().dialect.name == 'sqlite':
            # SQLite has no FOR UPDATE: a write takes the only write lock, so that what is read afterwards does not
            # change.
            replica = models.RSEFileAssociation
            session.execute(
                update(replica).where(false()).values(lock_cnt=0).execution_options(synchronize_session=False)
            )
        try:
            yield session
            session.flush()
        except IntegrityError as error:
            raise Collision(str(error.orig)) from error
        except RucioException as error:
            # add_did raises any error of the database as a RucioException, like one about the DID.
            if isinstance(error.__context__, (InterfaceError, InternalError, OperationalError)):
                raise DatabaseException(str(error.__context__)) from error
            raise


def run_transaction(work: 'Callable[[Session], _Result]') -> _Result:
    """Run work in a new transaction, and repeat it after a conflict: at most :data:`MAX_TRIES` times.

    :param work: Reads what it needs itself, so that a repetition sees what the other transaction wrote.
    :raises Collision: if all attempts fail.
    :raises DatabaseException: if the database fails.
    """
    for _ in range(MAX_TRIES - 1):
        with suppress(Collision, DatabaseException), _write_transaction() as session:
            return work(session)
    with _write_transaction() as session:
        return work(session)


def batches(items: 'Sequence[_Item]', size: int) -> 'Iterator[Sequence[_Item]]':
    """Split a list.

    :param items: The list.
    :param size: The length of each part but the last.
    """
    for start in range(0, len(items), size):
        yield items[start : start + size]


def select_named(statement: Any, key: Any, names: 'Collection[str]', session: 'Session') -> list[Any]:
    """Return the rows of a SELECT for some names, in batches that every database accepts.

    PostgreSQL gets all of them as one array: a parameter for each name takes longer than to look for it.

    :param statement: The SELECT.
    :param key: The column of the names.
    :param names: The names.
    """
    if not names:
        return []
    if _is_postgresql(session):
        return list(session.execute(statement.where(key == any_(_array(list(names), key)))))
    return [
        row for piece in batches(list(names), MAX_IN_LIST) for row in session.execute(statement.where(key.in_(piece)))
    ]


def look_up(
    rse_id: Optional[str], scope: 'InternalScope', names: 'Collection[str]', *, session: 'Session'
) -> list[Any]:
    """Return what is registered under some names, and what an RSE has of it.

    A row has name, did_type, bytes, md5, adler32 and availability of the DID, and state, path and rse_id of the
    replica: None if there is none.

    :param rse_id: The RSE; None: only the DIDs are meant.
    :param scope: The scope.
    :param names: The names.
    """
    did, replica = models.DataIdentifier, models.RSEFileAssociation
    columns = (did.name, did.did_type, did.bytes, did.md5, did.adler32, did.availability)
    if rse_id is None:  # without a join: SQLite would look through all replicas for each name
        stmt = select(*columns, *(null().label(name) for name in ('state', 'path', 'rse_id')))
    else:
        joined = and_(replica.scope == did.scope, replica.name == did.name, replica.rse_id == rse_id)
        stmt = select(*columns, replica.state, replica.path, replica.rse_id).outerjoin(replica, joined)
    return select_named(stmt.where(did.scope == scope), did.name, names, session)


def readable(scope: 'InternalScope', names: 'Collection[str]', *, session: 'Session') -> dict[str, list[str]]:
    """Return the RSEs from which files can be read, by their names: of available replicas, where reading is allowed.

    :param scope: The scope.
    :param names: The names of the files.
    """
    replica, rse = models.RSEFileAssociation, models.RSE
    stmt = select(replica.name, replica.state, rse.rse).join(rse, rse.id == replica.rse_id)
    open_ones = and_(rse.deleted == false(), rse.availability_read == true())
    found: dict[str, list[str]] = {}
    for row in select_named(stmt.where(replica.scope == scope, open_ones), replica.name, names, session):
        if row.state == ReplicaState.AVAILABLE:  # in the WHERE clause, it would make SQLite scan all available ones
            found.setdefault(row.name, []).append(row.rse)
    return found


def _is_postgresql(session: 'Session') -> bool:
    return session.get_bind().dialect.name == 'postgresql'


def utcnow() -> datetime:
    """Return the time as Rucio stores it: UTC, without a time zone."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


def error_text(error: Exception) -> str:
    """Return the first line of an error message, to be embedded in a sentence.

    :param error: The exception.
    """
    return str(error.args[0] if error.args else error).partition('\n')[0].rstrip('.')


def insert_rows(
    model: Any, common: 'Mapping[str, Any]', columns: 'Mapping[str, Sequence[Any]]', session: 'Session'
) -> None:
    """Insert rows in one statement, without an object for each. What the table has a default for can be left out.

    PostgreSQL gets an array for each column: its driver would send a statement for each row, which takes twice as long.

    :param model: The table.
    :param common: The values that all rows have, by the name of their column.
    :param columns: Those that differ: for each column, the value of each row.
    """
    table = model.__table__
    count = len(next(iter(columns.values())))
    ids = {
        each.name: [each.default.arg(None) for _ in range(count)]
        for each in table.primary_key
        if each.default is not None and each.name not in columns
    }
    columns = {**columns, **ids}
    if not count:
        return
    if _is_postgresql(session):
        session.execute(_insert_arrays(table, common, columns))
    else:
        rows = [{**common, **dict(zip(columns, values, strict=True))} for values in zip(*columns.values(), strict=True)]
        session.connection().execute(table.insert(), rows)


def _insert_arrays(table: Any, common: 'Mapping[str, Any]', columns: 'Mapping[str, Sequence[Any]]') -> Any:
    empty = [name for name, values in columns.items() if values.count(None) == len(values)]
    common = {**common, **dict.fromkeys(empty)}
    columns = {name: values for name, values in columns.items() if name not in common}
    arrays = (_array(values, table.c[name]) for name, values in columns.items())
    rows = func.unnest(*arrays).table_valued(*(column(name, table.c[name].type) for name in columns))
    same = (literal(value, table.c[name].type) for name, value in common.items())
    return insert(table).from_select([*common, *columns], select(*same, *rows.render_derived().c))


def _array(values: 'Sequence[Any]', of: Any) -> Any:
    """Return values as a PostgreSQL array, written as text, as the driver takes five times as long to adapt a list.

    The syntax: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
    """
    # PostgreSQL would cut what is too long for an array of VARCHAR(n), and refuses it for a column.
    kind = String() if type(of.type) is String else of.type
    return cast(bindparam(None, '{' + ','.join(map(_element, values)) + '}', type_=String()), ARRAY(kind))


def _element(value: Any) -> str:
    if value is None:
        return 'NULL'
    if isinstance(value, InternalType):
        text = str(value.internal)
    elif isinstance(value, dict):
        text = json.dumps(value)
    elif type(value) in (str, int):
        text = str(value)
    else:  # an enum, say: only the type of its column knows how it is stored
        raise TypeError(f'{type(value).__name__} cannot be written into an array')
    return '"' + text.replace('\\', '\\\\').replace('"', '\\"') + '"'


# ETags


def store_etags(subtree: 'Subtree', etags: 'Mapping[str, Optional[str]]', *, session: 'Session') -> None:
    """Store the ETags of files in their metadata, in the format of Rucio's JSON metadata plugin.

    Two queries, and one for each change.

    :param etags: Name -> ETag; None: delete the stored one. Names that are not in the catalogue are ignored.
    """
    did, table, rse_id = models.DataIdentifier, models.DidMeta, subtree.storage.rse_id
    if not etags:
        return
    names = {
        row.name for row in select_named(select(did.name).where(did.scope == subtree.scope), did.name, etags, session)
    }
    stmt = select(table.name, table.meta).where(table.scope == subtree.scope).with_for_update()
    kept = {row.name: as_dict(row.meta) for row in select_named(stmt, table.name, names, session)}
    added: dict[str, Any] = {}
    for name in sorted(names):
        meta = _with_etag(kept.get(name, {}), rse_id, etags[name])
        if meta == kept.get(name, {}):
            continue
        stored = as_column(meta, session)
        if name in kept:
            here = and_(table.scope == subtree.scope, table.name == name)
            session.execute(update(table).where(here).values(meta=stored).execution_options(synchronize_session=False))
        else:
            added[name] = stored
    insert_rows(table, {'scope': subtree.scope}, {'name': [*added], 'meta': [*added.values()]}, session)


def stored_etag(meta: Any, rse_id: str) -> Optional[str]:
    """Return the ETag in the metadata of a file for an RSE. Whoever may write the metadata can write anything there.

    :param meta: The metadata, as the column has them.
    :param rse_id: The id of the RSE.
    """
    etags = as_dict(meta).get(ETAGS_KEY)
    etag = etags.get(rse_id) if isinstance(etags, dict) else None
    return etag if isinstance(etag, str) else None


def _with_etag(meta: dict[str, Any], rse_id: str, etag: Optional[str]) -> dict[str, Any]:
    etags = meta.get(ETAGS_KEY)
    others = {key: value for key, value in (etags.items() if isinstance(etags, dict) else ()) if key != rse_id}
    ours = others | ({rse_id: etag} if etag else {})
    rest = {key: value for key, value in meta.items() if key != ETAGS_KEY}
    return rest | ({ETAGS_KEY: ours} if ours else {})
