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

"""The plugin's own rows in Rucio's tables, to be removed before it is uninstalled.

DIDs, replicas, rules and locks belong to their accounts, whoever registered them: nothing here touches them.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, delete, false, func, select

from rucio.core.s3 import configs, metadata, storages
from rucio.core.s3.auth import old_grants
from rucio.core.s3.catalogue.records import ETAGS_KEY
from rucio.core.s3.reconciler import usage
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

from . import copier, reconciler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

__all__ = ['Rows', 'list_rses', 'remove']


class Rows(NamedTuple):
    """Rows of one table that the plugin wrote for itself."""

    table: str
    number: int
    content: str


def remove(dry_run: bool) -> list[Rows]:
    """Remove the plugin's rows from Rucio's tables. A few statements, and one for each file with a stored ETag.

    :param dry_run: Only count them.
    :returns: What was removed, table by table, without those that had nothing.
    """
    with db_session(DatabaseOperationType.READ if dry_run else DatabaseOperationType.WRITE) as session:
        found = [_of_table(model, where, content, dry_run, session) for model, where, content in _tables(session)]
    files = sum(_stripped(dry_run))
    found.append(Rows(models.DidMeta.__tablename__, files, 'ETags of files, and grants of earlier versions'))
    return [rows for rows in found if rows.number]


def _tables(session: 'Session') -> 'Iterator[tuple[Any, Any, str]]':
    settings, history, space, beats = models.Config, models.ConfigHistory, models.RSEUsage, models.Heartbeat
    # First: it is recognised by what the settings say.
    stored = and_(space.rse_id.in_(usage.list_stored(session=session)), space.source == usage.SOURCE)
    yield space, stored, 'usage of RSEs, as the reconciler found it'
    yield settings, configs.is_ours(settings), 'settings of buckets, imports and progress'
    yield history, configs.is_ours(history), 'earlier settings of buckets'
    yield beats, beats.readable.in_([copier.DAEMON_NAME, reconciler.DAEMON_NAME]), 'heartbeats of the daemons'


def _of_table(model: Any, where: Any, content: str, dry_run: bool, session: 'Session') -> Rows:
    count = session.execute(select(func.count()).select_from(model).where(where)).scalar_one()
    if count and not dry_run:
        session.execute(delete(model).where(where).execution_options(synchronize_session=False))
    return Rows(model.__tablename__, count, content)


def _stripped(dry_run: bool) -> 'Iterator[int]':
    """Yield how many DIDs of each thousand had metadata of the plugin. Each thousand is a transaction."""
    after, keys = None, (ETAGS_KEY, old_grants.KEY)
    while True:
        with db_session(DatabaseOperationType.READ if dry_run else DatabaseOperationType.WRITE) as session:
            count, after = metadata.strip(keys, after, dry_run=dry_run, session=session)
        yield count
        if after is None:
            return


def list_rses(*, session: 'Session') -> list[str]:
    """List the RSEs, of all VOs, whose protocols name a class of the plugin. One query."""
    rse, protocol = models.RSE, models.RSEProtocol
    stmt = select(rse.rse).join(protocol, protocol.rse_id == rse.id).where(rse.deleted == false(), storages.speaks_s3())
    return sorted(set(session.execute(stmt).scalars()))
