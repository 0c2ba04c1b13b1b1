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

"""The tables of the plugin, in the same database and schema as Rucio's.

They are not in the metadata of Rucio's ``BASE``: a stock ``build_database()`` would create them depending on what was
imported before, and Rucio's migrations would find tables that they do not know. ``rucio-s3-database`` creates them.
"""

import enum
import math
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Optional
from weakref import WeakKeyDictionary

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Enum,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    String,
    inspect,
)
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from rucio.common.exception import ConfigurationError
from rucio.common.s3.answers import line_logger
from rucio.common.schema import get_schema_value
from rucio.common.types import InternalAccount, InternalScope
from rucio.common.utils import generate_uuid
from rucio.db.sqla.models import ModelBase
from rucio.db.sqla.session import BASE, get_engine
from rucio.db.sqla.types import GUID, InternalAccountString, InternalScopeString

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Session

__all__ = [
    'COMMAND',
    'GRANTEE_LENGTH',
    'Grant',
    'GranteeType',
    'Pending',
    'S3Base',
    'drop',
    'is_ready',
    'make',
    'missing',
    'tables',
]

_LOGGER = line_logger(__name__)

COMMAND = 'rucio-s3-database'
SECONDS = 10  # between checks for missing tables
GRANTEE_LENGTH = 200  # an index of MySQL has 3,072 bytes, 4 for each character: names of 500 characters still fit


class S3Base(DeclarativeBase):
    """The base of the plugin's tables."""

    metadata = MetaData(schema=BASE.metadata.schema)


class GranteeType(enum.Enum):
    """The kind of a grantee."""

    ACCOUNT = 'A'
    GROUP = 'G'
    ATTRIBUTE = 'T'  # all accounts with this attribute
    EVERYBODY = 'E'  # everybody with an account
    WORLD = 'W'  # also people without an account: the storage is updated as well


class Grant(S3Base, ModelBase):
    """The access that the owner of a scope gives to others below a collection.

    A grant is for the DID that was created at ``did_created_at``, not for a later one with the same name. There is no
    foreign key to the DIDs: it would keep Rucio's undertaker from erasing them or, with ON DELETE CASCADE, remove a
    public grant before the storage is updated.
    """

    __tablename__ = 's3_grants'
    scope: Mapped[InternalScope] = mapped_column(InternalScopeString(get_schema_value('SCOPE_LENGTH')))
    name: Mapped[str] = mapped_column(String(get_schema_value('NAME_LENGTH')))
    grantee_type: Mapped[GranteeType] = mapped_column(
        # Not an enum of the database, which would need a migration for each new kind.
        Enum(
            GranteeType,
            name='S3_GRANTS_TYPE_CHK',
            native_enum=False,
            create_constraint=True,
            values_callable=lambda kinds: [kind.value for kind in kinds],
        )
    )
    grantee: Mapped[str] = mapped_column(String(GRANTEE_LENGTH))  # without a VO, as it is that of the scope
    can_write: Mapped[bool] = mapped_column(Boolean(name='S3_GRANTS_WRITE_CHK', create_constraint=True))
    granted_by: Mapped[InternalAccount] = mapped_column(InternalAccountString(get_schema_value('ACCOUNT_LENGTH')))
    did_created_at: Mapped[datetime] = mapped_column(DateTime)
    expired_at: Mapped[Optional[datetime]] = mapped_column(DateTime)
    # For public grants: the ids of the RSEs that were updated, separated by commas; NULL: not known.
    published_on: Mapped[Optional[str]] = mapped_column(String(1000))
    # As Rucio's own tables have them: what it makes of their private _table_args.
    __table_args__ = (
        PrimaryKeyConstraint('scope', 'name', 'grantee_type', 'grantee', name='S3_GRANTS_PK'),
        Index('S3_GRANTS_GRANTEE_IDX', 'grantee_type', 'grantee'),
        CheckConstraint('CREATED_AT IS NOT NULL', name='S3_GRANTS_CREATED_NN'),
        CheckConstraint('UPDATED_AT IS NOT NULL', name='S3_GRANTS_UPDATED_NN'),
        {'mysql_engine': 'InnoDB'},
    )


class Pending(S3Base, ModelBase):
    """Bytes that an account may store by a signature, and that may not be in the catalogue yet.

    Rows are only added, and deleted when the signature has expired: see :mod:`rucio.core.s3.auth.quotas`.
    """

    __tablename__ = 's3_pending'
    id: Mapped[str] = mapped_column(GUID(), default=generate_uuid)
    account: Mapped[InternalAccount] = mapped_column(InternalAccountString(get_schema_value('ACCOUNT_LENGTH')))
    rse_id: Mapped[str] = mapped_column(GUID())
    scope: Mapped[InternalScope] = mapped_column(InternalScopeString(get_schema_value('SCOPE_LENGTH')))
    name: Mapped[Optional[str]] = mapped_column(String(get_schema_value('NAME_LENGTH')))  # NULL: of several objects
    part: Mapped[Optional[str]] = mapped_column(String(64))  # which part of which upload; NULL: the object
    bytes: Mapped[int] = mapped_column(BigInteger)
    signed_at: Mapped[datetime] = mapped_column(DateTime)
    __table_args__ = (
        PrimaryKeyConstraint('id', name='S3_PENDING_PK'),
        Index('S3_PENDING_ACCOUNT_IDX', 'account', 'rse_id'),
        CheckConstraint('CREATED_AT IS NOT NULL', name='S3_PENDING_CREATED_NN'),
        CheckConstraint('UPDATED_AT IS NOT NULL', name='S3_PENDING_UPDATED_NN'),
        {'mysql_engine': 'InnoDB'},
    )


# engine -> table -> time of the next check
_looked: 'WeakKeyDictionary[Any, dict[str, float]]' = WeakKeyDictionary()
_WITHOUT = {
    Grant.__tablename__: 'nothing can be shared, and no grant is valid',
    Pending.__tablename__: 'account limits do not include what was signed and is not in the catalogue yet',
}


def is_ready(model: type[S3Base] = Grant, *, session: 'Session') -> bool:
    """Return whether a table exists. No query after it was found; before, a few every :data:`SECONDS`.

    :param model: The table.
    :param session: The session of the database.
    """
    looked, now = _looked.setdefault(session.get_bind().engine, {}), time.monotonic()
    name = model.__tablename__
    again = looked.get(name)
    if again is not None and now < again:
        return again == math.inf
    lacking = missing(session.connection(), [name])
    if lacking and again is None:
        _LOGGER.warning('S3: %s: the database lacks %s. Run %s on the Rucio server.', _WITHOUT[name], lacking, COMMAND)
    looked[name] = now + SECONDS if lacking else math.inf
    return not lacking


def tables(names: 'Iterable[str]' = _WITHOUT) -> str:
    """Return the names of tables for a message: by default, of all.

    :param names: The names of the tables.
    """
    listed = ' and '.join(names)
    return f'table{"s" if " and " in listed else ""} {listed}'


def missing(connection: 'Connection', names: 'Container[str]' = _WITHOUT) -> str:
    """Describe what is missing in the database, as ``the table s3_grants``; empty if nothing is. A few queries.

    :param connection: The connection to the database.
    :param names: The tables to look for; by default all.
    """
    found = inspect(connection)
    wanted = [table for table in S3Base.metadata.sorted_tables if table.name in names]
    if absent := [table.name for table in wanted if not found.has_table(table.name, schema=table.schema)]:
        return f'the {tables(absent)}'
    for table in wanted:
        columns = {column['name'].lower() for column in found.get_columns(table.name, schema=table.schema)}
        if lacking := {column.name for column in table.columns} - columns:
            return f'columns of the table {table.name} ({", ".join(sorted(lacking))})'
    return ''


def make() -> None:
    """Create missing tables and indexes. Existing ones are not changed; several processes may do this at once.

    :raises ConfigurationError: if there is another table with the same name.
    :raises DatabaseError: if the database refuses, for example because its account cannot create tables.
    """
    engine, failure = get_engine(), None
    try:
        with engine.begin() as connection:
            S3Base.metadata.create_all(connection)
            for table in S3Base.metadata.sorted_tables:
                for index in table.indexes:  # an earlier attempt may have failed before them
                    index.create(connection, checkfirst=True)
    except DatabaseError as error:  # also if another process created them at the same moment
        failure = error
    with engine.connect() as connection:
        lacking = missing(connection)
    if lacking.startswith('columns'):
        raise ConfigurationError(
            f'The database lacks {lacking}: the table is not from this version of rucio-s3. Rename it and try again.'
        )
    if lacking and failure:
        raise failure


def drop() -> None:
    """Remove the tables and all of their content."""
    S3Base.metadata.drop_all(get_engine())
