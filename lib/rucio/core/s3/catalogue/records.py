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

"""What registration and updates of files have in common: what they are given and answer, their transactions, and the
ETags that are noted.
"""

from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, TypeVar

from sqlalchemy import and_, false, select, update
from sqlalchemy.exc import IntegrityError

from rucio.common.exception import DatabaseException
from rucio.core.s3.metadata import as_column, as_dict
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from sqlalchemy.orm import Session

    from rucio.core.s3.subtrees import Subtree

__all__ = [
    'ETAGS_KEY',
    'Collision',
    'NewFile',
    'Refusal',
    'batches',
    'error_text',
    'insert_rows',
    'run_transaction',
    'select_named',
    'store_etags',
    'stored_etag',
    'utcnow',
]

ETAGS_KEY = 's3_etags'  # in a file's metadata: RSE id -> the ETag that its content had there when it was last proven
MAX_TRIES = 3  # of a transaction that meets another one
MAX_IN_LIST = 1000  # Oracle takes no more in one IN

_Result = TypeVar('_Result')
_Item = TypeVar('_Item')


class NewFile(NamedTuple):
    """An object as the catalogue shall know it.

    :param bytes: Its size.
    :param etag: Only if it is no MD5.
    :param path: Only on an RSE that is not deterministic: what Rucio stores with the replica.
    """

    name: str
    bytes: int
    md5: Optional[str] = None
    adler32: Optional[str] = None
    etag: Optional[str] = None
    path: Optional[str] = None


class Refusal(NamedTuple):
    """What was not done; or, if ``kind`` is ``over-limit`` or ``no-rule``, was done with a warning.

    :param kind: ``conflict``, ``closed``, ``over-limit``, ``no-rule``, ``changed``, ``gone``, ``busy``, ``copies``,
        ``locked``, ``empty`` or ``failed``.
    :param name: Of the file, or of its dataset.
    :param found: What was seen, and what to do.
    """

    kind: str
    name: str
    found: str


# Transactions


class Collision(Exception):
    """Somebody else wrote the same rows in the same moment, or refers to what is to go."""


@contextmanager
def _write_transaction() -> 'Iterator[Session]':
    with db_session(DatabaseOperationType.WRITE) as session:
        if session.get_bind().dialect.name == 'sqlite':
            # It knows no FOR UPDATE: who writes first is the only one who writes, and what is read then stays so.
            replica = models.RSEFileAssociation
            session.execute(
                update(replica).where(false()).values(lock_cnt=0).execution_options(synchronize_session=False)
            )
        try:
            yield session
            session.flush()
        except IntegrityError as error:
            raise Collision(str(error.orig)) from error


def run_transaction(work: 'Callable[[Session], _Result]') -> _Result:
    """Do it in a transaction of its own, and anew if that met another one: at most :data:`MAX_TRIES` times.

    :param work: Reads what it needs by itself, so that a second time it finds what the other one wrote.
    :raises Collision: if that was no accident.
    :raises DatabaseException: if the database does not work.
    """
    for _ in range(MAX_TRIES - 1):
        with suppress(Collision, DatabaseException), _write_transaction() as session:
            return work(session)
    with _write_transaction() as session:
        return work(session)


def batches(items: 'Sequence[_Item]', size: int) -> 'Iterator[Sequence[_Item]]':
    """Pieces of a list."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def select_named(statement: Any, column: Any, names: 'Collection[str]', session: 'Session') -> list[Any]:
    """The rows of a SELECT whose column has one of these names, asked for in pieces that every database takes."""
    return [
        row
        for piece in batches(list(names), MAX_IN_LIST)
        for row in session.execute(statement.where(column.in_(piece)))
    ]


def utcnow() -> datetime:
    """As Rucio writes it: UTC, without saying so."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


def error_text(error: Exception) -> str:
    """The first line of a message, for the middle of a sentence."""
    return str(error.args[0] if error.args else error).partition('\n')[0].rstrip('.')


def insert_rows(model: Any, rows: list[dict[str, Any]], session: 'Session') -> None:
    """Without an object for each row."""
    if rows:
        session.connection().execute(model.__table__.insert(), rows)


# ETags


def store_etags(subtree: 'Subtree', etags: 'Mapping[str, Optional[str]]', *, session: 'Session') -> None:
    """Note the ETags of files in their metadata, in the format of Rucio's own plugin for JSON metadata. Two queries,
    and one for each change.

    :param etags: Name -> ETag; None: take back what was noted. Names that are in no catalogue are left out.
    """
    did, table, rse_id = models.DataIdentifier, models.DidMeta, subtree.storage.rse_id
    if not etags:
        return
    names = {
        row.name for row in select_named(select(did.name).where(did.scope == subtree.scope), did.name, etags, session)
    }
    stmt = select(table.name, table.meta).where(table.scope == subtree.scope).with_for_update()
    kept = {row.name: as_dict(row.meta) for row in select_named(stmt, table.name, names, session)}
    added = []
    for name in sorted(names):
        meta = _with_etag(kept.get(name, {}), rse_id, etags[name])
        if meta == kept.get(name, {}):
            continue
        column = as_column(meta, session)
        if name in kept:
            here = and_(table.scope == subtree.scope, table.name == name)
            session.execute(update(table).where(here).values(meta=column).execution_options(synchronize_session=False))
        else:
            added.append(
                {'scope': subtree.scope, 'name': name, 'meta': column, 'created_at': utcnow(), 'updated_at': utcnow()}
            )
    insert_rows(table, added, session)


def stored_etag(meta: Any, rse_id: str) -> Optional[str]:
    """The ETag that a file's metadata have for an RSE. Whoever may write the file's metadata may write
    anything there.
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
