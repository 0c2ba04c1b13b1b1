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

"""References to files in other tables of the catalogue, which keep Rucio from deleting the files."""

from typing import TYPE_CHECKING

from sqlalchemy import and_, delete, select

from rucio.db.sqla import models

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.orm import Session

    from .subtrees import Subtree

__all__ = ['delete_references']


def delete_references(subtree: 'Subtree', names: 'Collection[str]', *, session: 'Session') -> None:
    """Delete who follows files, and virtual placements, before their replicas on an RSE are deleted.

    With its last replica, Rucio deletes a file, which fails while other rows refer to it. Files that have replicas on
    other RSEs are kept as they are. One query and two statements.

    :param names: The names of the files, at most 1000.
    """
    replica = models.RSEFileAssociation
    elsewhere = and_(replica.scope == subtree.scope, replica.name.in_(names), replica.rse_id != subtree.storage.rse_id)
    last = set(names) - set(session.execute(select(replica.name).where(elsewhere)).scalars())
    for model in (models.DidFollowed, models.VirtualPlacements):
        these = and_(model.scope == subtree.scope, model.name.in_(last))
        session.execute(delete(model).where(these).execution_options(synchronize_session=False))
