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

"""The usage of RSEs in the catalogue (``source=storage``), as found by the rounds of the reconciler.

Rucio's reaper acts on it: it deletes unneeded replicas when less than the RSE's limit ``MinFreeSpace`` is free, and
treats an unknown free space as 0. So nothing is stored for an RSE with this limit unless the operator has set its size
(``capacity``): a quota that the storage reports need not be enabled.

The rows of the table have no author, so the stored values are also kept in Rucio's table ``configs`` (``usage`` in the
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

__all__ = ['FREE_SPACE_LIMIT', 'SOURCE', 'Usage', 'free_space', 'list_stored', 'store', 'sum_usage', 'withdraw']

SOURCE = 'storage'
FREE_SPACE_LIMIT = 'MinFreeSpace'
_OPTION = 'usage'
# Bytes, in the answer to a HEAD of a bucket, and negative where there is no quota; the same whether it is enabled or
# not (Ceph 16): https://docs.ceph.com/en/latest/radosgw/s3/bucketops/
_OWNERS_QUOTA, _OWN_QUOTA = 'x-rgw-quota-user-size', 'x-rgw-quota-bucket-size'


class Usage(NamedTuple):
    """The objects on a storage, whether or not they are in the catalogue."""

    files: int
    used: int  # bytes


def sum_usage(subtrees: 'Sequence[Subtree]', known: 'Mapping[tuple[str, str], Round]') -> Optional[Usage]:
    """Return the sum over the last rounds of all subtrees. No request, no query.

    :param subtrees: All subtrees of a storage.
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
    """Return the subtrees that are not inside others: imports may overlap."""
    kept: list[Subtree] = []
    for subtree in sorted(subtrees, key=lambda subtree: (subtree.bucket, subtree.key_prefix)):
        if not kept or kept[-1].bucket != subtree.bucket or not subtree.key_prefix.startswith(kept[-1].key_prefix):
            kept.append(subtree)
    return kept


def free_space(storage: 'Storage', used: int, bucket: str) -> Optional[int]:
    """Return the free bytes on a storage; None: unknown.

    They are derived from the setting ``capacity``, or from the quota in the answer to one HEAD (Ceph): that of the
    owner of the buckets and, if all scopes share one bucket, that of the bucket.

    :param used: The used bytes.
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
    """Store the usage in the catalogue. A few queries.

    :param usage: The usage.
    :param free: The free bytes; None: unknown. Unless they are derived from the setting ``capacity``, nothing is stored
        for an RSE with the limit ``MinFreeSpace``, nor if another program reports a free space.
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
    """Delete the usage of an RSE that now has the limit ``MinFreeSpace``, unless it is derived from ``capacity``.

    One query, or two and a statement.

    :returns: Whether anything was deleted.
    """
    if not _has_limit(storage, session):
        return False
    last, capacity = _last(storage, session), storage.endpoint.capacity
    doubtful: Any = models.RSEUsage.free.is_(None)
    if last and (capacity is None or last.capacity != capacity):
        doubtful = or_(doubtful, _usage_is(last))
    stmt = delete(models.RSEUsage).where(_row(storage), doubtful)
    return bool(session.execute(stmt.execution_options(synchronize_session=False)).rowcount)  # type: ignore[attr-defined]


def list_stored(*, session: 'Session') -> list[str]:
    """List the ids of the RSEs with the usage that was stored last: others are of another program.

    One query, and one for each RSE that has a usage.
    """
    row, rse = models.RSEUsage, models.RSE
    stmt = select(rse.id, rse.rse, rse.vo, row.files, row.used, row.free).join(row, row.rse_id == rse.id)
    rows: list[Any] = list(session.execute(stmt.where(row.source == SOURCE)))
    return [
        each.id
        for each in rows
        if (last := _last(each, session)) and (last.files, last.used, last.free) == (each.files, each.used, each.free)
    ]


def _row(storage: 'Storage') -> Any:
    return and_(models.RSEUsage.rse_id == storage.rse_id, models.RSEUsage.source == SOURCE)


class _StoredUsage(NamedTuple):
    """The values that were stored last; if the row differs, another program has written it."""

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
    """Return whether another program reports the free space."""
    last, row = _last(storage, session), models.RSEUsage
    stmt = select(row.rse_id).where(_row(storage), row.free.is_not(None), not_(_usage_is(last)) if last else true())
    return session.execute(stmt).first() is not None
