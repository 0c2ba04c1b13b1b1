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
from typing import TYPE_CHECKING, Any

from sqlalchemy import String, cast, type_coerce

from rucio.db.sqla import models

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ['as_column', 'as_dict', 'as_text']


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


def _is_text(session: 'Session') -> bool:
    return session.get_bind().dialect.name in ('oracle', 'sqlite')
