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

"""Buckets at the destinations of FTS transfers.

If each scope has its own bucket, FTS would fail where it is missing, or create it with default settings.
"""

import logging
import time
from typing import TYPE_CHECKING

from rucio.common.exception import RucioException, ServiceUnavailable
from rucio.core.rse import get_rse_name
from rucio.core.s3 import storages
from rucio.core.s3.buckets import creation
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

if TYPE_CHECKING:
    from rucio.common.types import InternalScope, LoggerFunction

__all__ = ['prepare_bucket']

_CACHE_SECONDS = 3600  # seconds until an existing bucket is checked again
_RETRY_SECONDS = 300  # seconds without requests after a failure
_known: dict[tuple[str, str], float] = {}  # RSE id and scope (empty: all scopes) -> until when


def prepare_bucket(rse_id: str, scope: 'InternalScope', *, logger: 'LoggerFunction' = logging.log) -> None:
    """Create the bucket of a scope before a transfer, if the RSE has a bucket for each scope.

    Errors are only logged: FTS reports them as well, and Rucio repeats the transfer.

    No cost if this process did it within the last hour; else one or two queries, and the requests of
    :func:`rucio.core.s3.buckets.creation.make_bucket`.

    :param rse_id: The id of the destination.
    :param scope: The scope of the file.
    :param logger: Where a failure is logged.
    """
    key = rse_id, str(scope)
    now = time.monotonic()
    if max(_known.get(key, 0), _known.get((rse_id, ''), 0)) > now:
        return
    _known[key] = now + _CACHE_SECONDS
    try:
        _make(rse_id, scope)
    except Exception as error:  # noqa: BLE001 - it must not fail the transfer
        # If the storage does not answer, do not try its other scopes: the submitter waits for it.
        _known[(rse_id, '') if isinstance(error, ServiceUnavailable) else key] = now + _RETRY_SECONDS
        said = error.args[0] if isinstance(error, RucioException) and error.args else f'{type(error).__name__}: {error}'
        logger(logging.WARNING, 'The bucket of scope %s could not be created before a transfer: %s', scope, said)


def _make(rse_id: str, scope: 'InternalScope') -> None:
    with db_session(DatabaseOperationType.READ) as session:
        storage = storages.get_storage(get_rse_name(rse_id, session=session), scope.vo, session=session)
    if storage.layout.has_bucket_for_each_scope:
        creation.make_bucket(storage, str(scope))
