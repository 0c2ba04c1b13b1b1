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
"""Metadata of DIDs in the table of Rucio's own JSON metadata plugin (``did_meta``).

Whoever may write the metadata of a DID can write anything there, so what is read is validated.
"""

import json
from typing import TYPE_CHECKING, Any, Optional

from sqlalchemy import String, and_, cast, delete, or_, select, type_coerce, update

from rucio.db.sqla import models

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalScope

__all__ = ['as_column', 'as_dict', 'as_text', 'strip']

_ROWS_AT_ONCE = 1000


def as_dict(meta: Any) -> dict[str, Any]:
    """Parse the metadata of a row: Oracle and SQLite store JSON as text.

    Anything but a JSON object gives an empty dict.

    :param meta: The value of the column.
    """
    try:
        found = json.loads(meta) if isinstance(meta, str) else meta
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def as_column(meta: dict[str, Any], session: 'Session') -> Any:
    """Return metadata as the column expects it.

    :param meta: The metadata.
    """
    return json.dumps(meta) if _is_text(session) else meta


def as_text(session: 'Session') -> Any:
    """Return the column as a text expression, for searches."""
    column = models.DidMeta.meta
    return type_coerce(column, String) if _is_text(session) else cast(column, String)


def strip(
    keys: 'Collection[str]',
    after: 'Optional[tuple[InternalScope, str]]' = None,
    *,
    dry_run: bool = False,
    session: 'Session',
) -> 'tuple[int, Optional[tuple[InternalScope, str]]]':
    """Remove keys whose values are JSON objects from the metadata of up to 1000 DIDs. Other metadata are kept.

    One query over all metadata, and a statement for each change.

    :param keys: The keys.
    :param after: Begin after this DID.
    :param dry_run: Only count.
    :returns: How many DIDs had one of them, and the DID to go on after; None: there are no more.
    """
    table, found = models.DidMeta, 0
    stmt = select(table.scope, table.name, table.meta).where(
        or_(*(as_text(session).like(f'%"{key}"%') for key in keys))
    )
    if after:
        stmt = stmt.where(or_(table.scope > after[0], and_(table.scope == after[0], table.name > after[1])))
    stmt = stmt.order_by(table.scope, table.name).limit(_ROWS_AT_ONCE)
    rows = session.execute(stmt if dry_run else stmt.with_for_update()).all()
    for row in rows:
        meta = as_dict(row.meta)
        rest = {key: value for key, value in meta.items() if key not in keys or not isinstance(value, dict)}
        if rest != meta:
            found += 1
            if not dry_run:
                _write(row.scope, row.name, rest, session)
    return found, (rows[-1].scope, rows[-1].name) if len(rows) == _ROWS_AT_ONCE else None


def _write(scope: 'InternalScope', name: str, meta: dict[str, Any], session: 'Session') -> None:
    """Replace the metadata of a DID; without any, delete their row."""
    table: Any = models.DidMeta
    stmt = update(table).values(meta=as_column(meta, session)) if meta else delete(table)
    here = and_(table.scope == scope, table.name == name)
    session.execute(stmt.where(here).execution_options(synchronize_session=False))


def _is_text(session: 'Session') -> bool:
    return session.get_bind().dialect.name in ('oracle', 'sqlite')
