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
"""Reconciliation by REST: limited in time and size, and continued by the next request."""

import re
from typing import Any, Optional

from rucio.common.exception import InputValidationError
from rucio.common.s3 import api
from rucio.common.s3.api import Wish
from rucio.core.s3.buckets import bucket_settings
from rucio.core.s3.subtrees import Subtree
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

from .checksums import Told
from .compare import is_valid_name
from .walk import Reconciler

__all__ = ['MAX_SECONDS', 'reconcile', 'reconcile_files']

MAX_SECONDS = 20  # limit of one request; the next one continues
MAX_READ = 4 * 1024**3  # bytes to read for checksums in one request: the daemon reads larger objects
MAX_SORTED = 200_000  # objects on storages that do not sort, where each request lists all of them


def reconcile(subtree: Subtree, wish: Wish, file: Optional[str] = None) -> dict[str, Any]:
    """Reconcile a subtree for :data:`MAX_SECONDS`, or one file in it.

    :param subtree: The subtree.
    :param wish: The options of the request.
    :param file: The name of a file; None: the whole subtree.
    :returns: after, counts, problems.
    """
    with db_session(DatabaseOperationType.READ) as session:
        settings = bucket_settings.get(subtree.storage, subtree.bucket, session=session)
    reconciler = Reconciler(
        subtree,
        on_changed=wish.on_changed or settings.on_changed,
        on_missing=wish.on_missing or settings.on_missing,
        dry_run=wish.dry_run,
        read_checksums=subtree.storage.endpoint.read_checksums,
        # An import has nothing to lose: what comes back is imported again. Still somebody has to want it.
        even_if_empty=subtree.dataset is not None and wish.on_missing is not None,
    )
    reached = None
    if file is None:
        reached = reconciler.run(after=wish.after, seconds=MAX_SECONDS, most_read=MAX_READ, most_sorted=MAX_SORTED)
    else:
        reconciler.check([subtree.key_of(file)], MAX_READ)
    return {'after': reached, **reconciler.summary.as_dict()}


def reconcile_files(subtree: Subtree, asked: api.ReconcileFiles) -> dict[str, Any]:
    """Reconcile the files that somebody has just written or deleted. Costs as :meth:`.Reconciler.check`.

    :param subtree: The bucket.
    :param asked: The request.
    :returns: after (None), counts, problems.
    :raises InputValidationError: if a file is not described as the REST interface prescribes.
    """
    told = dict(_told(each) for each in asked.files)
    named = {name: each for name, each in told.items() if is_valid_name(name, subtree.storage.vo)}
    with db_session(DatabaseOperationType.READ) as session:
        settings = bucket_settings.get(subtree.storage, subtree.bucket, session=session)
    reconciler = Reconciler(
        subtree,
        on_changed=asked.on_changed or settings.on_changed,
        on_missing=asked.on_missing or settings.on_missing,
        read_checksums=subtree.storage.endpoint.read_checksums,
    )
    sums = {subtree.key_of(name): each for name, each in named.items() if each}
    reconciler.check([subtree.key_of(name) for name in named], MAX_READ, sums)
    reconciler.summary.counts['unnameable'] += len(told) - len(named)
    return {'after': None, **reconciler.summary.as_dict()}


def _told(file: Any) -> tuple[str, Optional[Told]]:
    """Return the name of a file, and its checksum if the request has it with size and ETag."""
    name = file.get('name') if isinstance(file, dict) else None
    if not isinstance(name, str) or not name:
        raise InputValidationError("'files' must be objects with a 'name'.")
    size, etag, adler32 = (file.get(each) for each in ('bytes', 'etag', 'adler32'))
    if adler32 is None:
        return name, None
    if type(size) is not int or not isinstance(etag, str) or not re.fullmatch('[0-9a-f]{8}', str(adler32)):
        raise InputValidationError(
            "'files': an 'adler32' has 8 hexadecimal digits, and needs 'bytes' (a number) and 'etag' (text)."
        )
    return name, Told(size, etag, adler32)
