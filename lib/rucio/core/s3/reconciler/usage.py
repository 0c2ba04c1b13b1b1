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

"""What the catalogue says of the space of an RSE (``source=storage``), as the reconciler's rounds have seen it.

Others act on it: Rucio's reaper deletes replicas that nobody needs any more where less is free than the RSE's limit
``MinFreeSpace``, and takes a free space that is not known for none at all. So of an RSE that has this limit nothing is
said unless the operator has said how large it is (``capacity``): a quota that is told need not be in force.

The table has no author of its rows, so what was told stands in Rucio's table ``configs``, too (``usage`` in the
section ``s3-bucket:RSE:``).
"""

import json
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from sqlalchemy import and_, delete, not_, or_, select, true, update
from sqlalchemy.exc import IntegrityError

from rucio.common.exception import RSEAccessDenied, RSEOperationNotSupported, SourceNotFound
from rucio.common.s3.errors import Target, translated
from rucio.core.rse import set_rse_usage
from rucio.core.s3 import configs
from rucio.db.sqla import models

from .progress import STORED, round_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.orm import Session

    from rucio.core.s3.storages import Storage
    from rucio.core.s3.subtrees import Subtree

    from .progress import Round

__all__ = ['FREE_SPACE_LIMIT', 'SOURCE', 'Usage', 'free_space', 'store', 'sum_usage', 'withdraw']

SOURCE = 'storage'
FREE_SPACE_LIMIT = 'MinFreeSpace'
_OPTION = 'usage'
# Bytes, in the answer to a HEAD of a bucket, and negative where there is no quota; the same whether it is enabled or
# not (Ceph 16): https://docs.ceph.com/en/latest/radosgw/s3/bucketops/
_OWNERS_QUOTA, _OWN_QUOTA = 'x-rgw-quota-user-size', 'x-rgw-quota-bucket-size'


class Usage(NamedTuple):
    """What lies on a storage, whether the catalogue knows it or not."""

    files: int
    used: int  # bytes


def sum_usage(subtrees: 'Sequence[Subtree]', known: 'Mapping[tuple[str, str], Round]') -> Optional[Usage]:
    """What the last round of each part has seen. No request, no query.

    :param subtrees: All parts of a storage.
    :param known: Its rounds, by bucket and mark.
    :returns: None while one of them has not had its first round.
    """
    files = used = 0
    for subtree in _outermost(subtrees):
        last = known.get((subtree.bucket, round_id(subtree)))
        if last is None or STORED not in last.counts:
            return None
        files += last.counts.get('listed', 0)
        used += last.counts[STORED]
    return Usage(files, used) if subtrees else None


def _outermost(subtrees: 'Sequence[Subtree]') -> 'list[Subtree]':
    """Imports may lie in each other, and their objects are there once."""
    kept: list[Subtree] = []
    for subtree in sorted(subtrees, key=lambda subtree: (subtree.bucket, subtree.key_prefix)):
        if not kept or kept[-1].bucket != subtree.bucket or not subtree.key_prefix.startswith(kept[-1].key_prefix):
            kept.append(subtree)
    return kept


def free_space(storage: 'Storage', used: int, bucket: str) -> Optional[int]:
    """Bytes that are left: of the setting ``capacity``, or of the quota that the storage tells in the answer to one
    HEAD (Ceph); None: nobody says.

    The quota is that of the owner of the buckets, and that of the one bucket where all scopes share it.

    :param used: What lies there, in bytes.
    :param bucket: One of its buckets.
    :raises RucioException: if the storage does not answer.
    """
    if storage.endpoint.capacity is not None:
        return max(0, storage.endpoint.capacity - used)
    try:
        with translated('stat', Target(storage.rse, bucket)):
            answer = storage.connection().client.head_bucket(Bucket=bucket)
    except (RSEAccessDenied, RSEOperationNotSupported, SourceNotFound):
        return None  # keys that may list need not be allowed to ask this
    headers = answer['ResponseMetadata']['HTTPHeaders']
    told = [headers.get(_OWNERS_QUOTA, ''), headers.get(_OWN_QUOTA, '') if storage.layout.common_bucket else '']
    quotas = [int(each) for each in told if each.isdecimal()]  # "-1" is not
    return max(0, min(quotas) - used) if quotas else None


def store(storage: 'Storage', usage: Usage, free: Optional[int], *, session: 'Session') -> bool:
    """Tell the catalogue. A few queries.

    :param free: Bytes, or None where they are not known. Unless they are those of the setting ``capacity``, nothing is
        stored for an RSE with the limit ``MinFreeSpace``, nor over a free space that somebody else has told.
    :returns: Whether it was stored.
    """
    if storage.endpoint.capacity is None:
        withdraw(storage, session=session)
        if _has_limit(storage, session) or _is_set_by_others(storage, session):
            return False
    told = _StoredUsage(usage.files, usage.used, free, storage.endpoint.capacity)
    if not configs.put(configs.bucket_section(storage, ''), _OPTION, json.dumps(told), session=session):
        return True  # another worker has just done it
    try:
        set_rse_usage(storage.rse_id, SOURCE, usage.used, free, files=usage.files, session=session)
    except IntegrityError:
        session.rollback()  # the same
        return True
    # Figures that are as they were would keep their old date.
    session.execute(
        update(models.RSEUsage)
        .where(_row(storage))
        .values(files=usage.files)
        .execution_options(synchronize_session=False)
    )
    return True


def withdraw(storage: 'Storage', *, session: 'Session') -> bool:
    """Take back what was said of an RSE that has the limit ``MinFreeSpace`` now, if that was not by its ``capacity``. A
    query, or two and a statement.

    :returns: Whether there was anything.
    """
    if not _has_limit(storage, session):
        return False
    last, capacity = _last(storage, session), storage.endpoint.capacity
    doubtful: Any = models.RSEUsage.free.is_(None)
    if last and (capacity is None or last.capacity != capacity):
        doubtful = or_(doubtful, _usage_is(last))
    stmt = delete(models.RSEUsage).where(_row(storage), doubtful)
    return bool(session.execute(stmt.execution_options(synchronize_session=False)).rowcount)  # type: ignore[attr-defined]


def _row(storage: 'Storage') -> Any:
    return and_(models.RSEUsage.rse_id == storage.rse_id, models.RSEUsage.source == SOURCE)


class _StoredUsage(NamedTuple):
    """What was stored here last. Only what is still that was not told by somebody else since."""

    files: int
    used: int
    free: Optional[int]
    capacity: Optional[int]


def _last(storage: 'Storage', session: 'Session') -> Optional[_StoredUsage]:
    value = configs.get(configs.bucket_section(storage, ''), _OPTION, session=session)
    try:
        return _StoredUsage(*(None if each is None else int(each) for each in json.loads(value or '')))  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return None


def _usage_is(told: _StoredUsage) -> Any:
    row = models.RSEUsage
    return and_(row.files == told.files, row.used == told.used, row.free == told.free)


def _has_limit(storage: 'Storage', session: 'Session') -> bool:
    limit = models.RSELimit
    stmt = select(limit.value).where(limit.rse_id == storage.rse_id, limit.name == FREE_SPACE_LIMIT, limit.value > 0)
    return session.execute(stmt).first() is not None


def _is_set_by_others(storage: 'Storage', session: 'Session') -> bool:
    """Whether some probe of the site tells how much is free."""
    last, row = _last(storage, session), models.RSEUsage
    stmt = select(row.rse_id).where(_row(storage), row.free.is_not(None), not_(_usage_is(last)) if last else true())
    return session.execute(stmt).first() is not None
