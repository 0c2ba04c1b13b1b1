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
"""Access to the plugin's rows in Rucio's table ``configs``.

Settings, verdicts, imports and progress, as ``rucio config show`` lists them.

The sections are ``s3-bucket:RSE:BUCKET`` and ``s3-vending:RSE``; in a VO other than the default one, with ``RSE@VO``. A
value has at most 4,000 characters, a section 128. Internal state of the server is written here, without
:mod:`rucio.core.config`, which keeps a history of each value; user settings go through it.
"""

from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from sqlalchemy import and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from rucio.common.constants import DEFAULT_VO
from rucio.db.sqla import models

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy.orm import Session

    from rucio.core.s3.storages import Storage

__all__ = ['Row', 'add', 'bucket_section', 'change', 'drop', 'get', 'is_ours', 'list_rows', 'put', 'vending_section']

_TABLE = models.Config
_BUCKET, _VENDING = 's3-bucket:', 's3-vending:'  # what the plugin's sections begin with


class Row(NamedTuple):
    """An option of a bucket or RSE."""

    bucket: str
    option: str
    value: str


def bucket_section(storage: 'Storage', bucket: str) -> str:
    """Return the section of a bucket; if it is empty, of the RSE itself."""
    return f'{_BUCKET}{_rse_label(storage)}:{bucket}'


def vending_section(storage: 'Storage') -> str:
    """Return the section for the verdicts on the keys that the server vends."""
    return f'{_VENDING}{_rse_label(storage)}'


def _rse_label(storage: 'Storage') -> str:
    return storage.rse if storage.vo == DEFAULT_VO else f'{storage.rse}@{storage.vo}'


def is_ours(table: Any = _TABLE) -> Any:
    """Return the condition for the plugin's rows of all RSEs. No query.

    :param table: The table, or that of its history.
    """
    # Not LIKE, which is case-insensitive in SQLite.
    return or_(*(func.substr(table.section, 1, len(begin)) == begin for begin in (_BUCKET, _VENDING)))


def list_rows(
    storage: 'Storage', beginnings: 'Iterable[str]', bucket: Optional[str] = None, *, session: 'Session'
) -> list[Row]:
    """List the options of the buckets of an RSE: one query.

    :param beginnings: List only options that begin with one of these.
    :param bucket: List only the options of this bucket.
    """
    begin = bucket_section(storage, '')
    where = _TABLE.section == f'{begin}{bucket}' if bucket else _TABLE.section.startswith(begin, autoescape=True)
    wanted = f'{begin}{bucket}' if bucket else None
    options = or_(*(_TABLE.opt.startswith(each, autoescape=True) for each in beginnings))
    rows = session.execute(select(_TABLE.section, _TABLE.opt, _TABLE.value).where(and_(where, options)))
    # The collation of some databases is case-insensitive.
    return [
        Row(row.section[len(begin) :], row.opt, row.value)
        for row in rows
        if (row.section == wanted if wanted else row.section.startswith(begin))
    ]


def get(section: str, option: str, *, session: 'Session') -> Optional[str]:
    """Return a value; None: it is not set. One query.

    :param section: The section.
    :param option: The option.
    """
    return session.execute(select(_TABLE.value).where(_row_is(section, option))).scalar()


def put(section: str, option: str, value: str, *, session: 'Session') -> bool:
    """Insert or update a value. One or two statements.

    :param section: The section.
    :param option: The option.
    :param value: The value.
    :returns: False, with the transaction rolled back, if another process inserted a value at the same time.
    """
    changed = _changed(update(_TABLE).where(_row_is(section, option)).values(value=value), session)
    return changed or add(section, {option: value}, session=session)


def change(section: str, option: str, old: str, new: str, *, session: 'Session') -> bool:
    """Update a value unless it was changed since it was read. One statement.

    :param section: The section.
    :param option: The option.
    :param old: The value that was read.
    :param new: The new value.
    :returns: Whether it was updated.
    """
    return _changed(update(_TABLE).where(_row_is(section, option), _TABLE.value == old).values(value=new), session)


def add(section: str, rows: 'Mapping[str, str]', *, session: 'Session') -> bool:
    """Insert values. One statement.

    :param section: The section.
    :param rows: Option -> value.
    :returns: False, with the transaction rolled back, if one of the options exists.
    """
    try:
        session.execute(
            insert(_TABLE), [{'section': section, 'opt': option, 'value': value} for option, value in rows.items()]
        )
    except IntegrityError:
        session.rollback()
        return False
    return True


def drop(section: str, option: str, *, below: bool = False, session: 'Session') -> None:
    """Delete an option, or (``below``) all options that begin with it. One statement.

    :param section: The section.
    :param option: The option, or what the options begin with.
    :param below: Whether to delete all options that begin with ``option``.
    """
    where = _TABLE.opt.startswith(option, autoescape=True) if below else _TABLE.opt == option
    _changed(delete(_TABLE).where(_TABLE.section == section, where), session)


def _row_is(section: str, option: str) -> Any:
    return and_(_TABLE.section == section, _TABLE.opt == option)


def _changed(stmt: Any, session: 'Session') -> bool:
    return bool(session.execute(stmt.execution_options(synchronize_session=False)).rowcount)  # type: ignore[attr-defined]
