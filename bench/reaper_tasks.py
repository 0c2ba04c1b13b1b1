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

"""What ``reaper.py`` does in Rucio's database: ``reaper_tasks.py TASK JSON``, with the configuration of a Rucio server.

The last line of the output is the answer, as JSON.
"""

import json
import sys
from typing import Any

from sqlalchemy import delete, func, select

from rucio.common.types import InternalAccount, InternalScope
from rucio.core.replica import add_replicas
from rucio.core.rse import add_protocol, add_rse, add_rse_attribute, get_rse_id
from rucio.core.scope import add_scope
from rucio.db.sqla import models
from rucio.db.sqla.constants import OBSOLETE, DatabaseOperationType
from rucio.db.sqla.session import db_session

SCOPE, ROOT = InternalScope('bench'), InternalAccount('root')
_AT_ONCE = 400  # SQLite takes no more in one add_replicas


def set_up(rses: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The RSEs, each with its attributes and its protocol; their ids."""
    ids = {}
    with db_session(DatabaseOperationType.WRITE) as session:
        add_scope(SCOPE, ROOT, session=session)
        for rse, wanted in rses.items():
            ids[rse] = add_rse(rse, session=session)
            for key, value in wanted['attributes'].items():
                add_rse_attribute(ids[rse], key, value, session=session)
            add_protocol(ids[rse], wanted['protocol'], session=session)
    return ids


def register(rse: str, names: list[str]) -> int:
    """Files of one byte that Rucio may delete at once."""
    files = [{'scope': SCOPE, 'name': name, 'bytes': 1, 'tombstone': OBSOLETE} for name in names]
    for begin in range(0, len(files), _AT_ONCE):
        with db_session(DatabaseOperationType.WRITE) as session:
            add_replicas(get_rse_id(rse, session=session), files[begin : begin + _AT_ONCE], ROOT, session=session)
    return len(files)


def outcome(rse: str) -> dict[str, Any]:
    """What the reaper told in its messages, which are removed, and how many replicas it has left."""
    result: dict[str, Any] = {'durations': [], 'others': []}
    with db_session(DatabaseOperationType.WRITE) as session:
        for message in session.execute(select(models.Message)).scalars():
            payload = json.loads(message.payload_nolimit or message.payload)
            if message.event_type == 'deletion-done':
                result['durations'].append(payload['duration'])
            else:
                result['others'].append(f'{message.event_type}: {payload.get("reason", "")}')
        session.execute(delete(models.Message))
        of_rse = select(func.count()).select_from(models.RSEFileAssociation).where(models.RSEFileAssociation.rse_id == get_rse_id(rse, session=session))
        result['left'] = session.execute(of_rse).scalar()
    return result


if __name__ == '__main__':
    task = {'set_up': set_up, 'register': register, 'outcome': outcome}[sys.argv[1]]
    print(json.dumps(task(**json.load(sys.stdin))))  # type: ignore[operator]
