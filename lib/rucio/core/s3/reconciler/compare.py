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

"""Comparison of a bucket listing with the catalogue: new, changed and missing objects.

Nothing here sends a request, queries the database or writes.
"""

import re
import time
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from rucio.common.s3 import address, schemas
from rucio.common.s3.content import Checksums
from rucio.common.schema import get_schema_value

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Iterator

    from rucio.core.s3.subtrees import Subtree

    from .listings import Entry, Replica

__all__ = ['REPORT_ONLY', 'Finding', 'Kind', 'compare', 'is_valid_name']

DAY = 86400
MAX_PATH_LENGTH = 1024  # bytes, Rucio's column
MAX_SIZE = 2**50  # bytes; no storage has larger objects, and Rucio's columns have to hold sums of sizes
TEMPORARY = '.rucio.upload'  # suffix that Rucio's other protocols use before they rename
_MD5 = re.compile(r'[0-9a-f]{32}')


class Kind(str, Enum):
    """The state of a name."""

    new = 'new'
    same = 'same'
    changed = 'changed'
    unproven = 'unproven'  # same size; the content can only be verified by a HEAD or by reading
    unnoted = 'unnoted'  # the same, but its ETag, which is not an MD5, is not stored yet
    no_checksum = 'no-checksum'  # the catalogue has no checksum
    missing = 'missing'
    completed = 'completed'  # an upload by Rucio that arrived, but was not confirmed
    busy = 'busy'  # Rucio is uploading or deleting it, or it is declared bad
    leftover = 'leftover'  # a temporary object of an upload by Rucio
    marker = 'marker'  # an empty object that stands for a directory
    unnameable = 'unnameable'  # no DID can have this name
    unreadable = 'unreadable'  # the listing lacks its size or its date
    oversized = 'oversized'  # larger than any object: the storage is wrong


# No action is taken on these.
REPORT_ONLY = (Kind.marker, Kind.leftover, Kind.busy, Kind.unnameable, Kind.oversized, Kind.unreadable)


class Finding(NamedTuple):
    """A difference. Missing objects have no entry, new ones no replica."""

    kind: Kind
    name: str
    entry: 'Optional[Entry]'
    replica: 'Optional[Replica]'


def compare(
    subtree: 'Subtree', entries: 'Iterable[Entry]', replicas: 'Iterable[Replica]', counts: 'Counter[str]'
) -> 'Iterator[Finding]':
    """Merge two streams sorted by bytes, and yield their differences. Constant memory.

    A replica is missing as soon as a later key, or the end, is reached. If ``entries`` raises, nothing after the last
    entry is reported as missing.

    :param entries: The objects in the bucket.
    :param replicas: The replicas in the catalogue.
    :param counts: Objects that agree are only counted, as ``same``; all objects as ``listed``.
    """
    cut, prefix, etag_is_md5 = len(subtree.key_prefix), subtree.name_prefix, subtree.storage.endpoint.etag_is_md5
    rename = subtree.key_prefix != prefix
    known = iter(replicas)
    replica = next(known, None)
    listed = same = 0
    try:
        for entry in entries:
            key, size, etag, _, _ = entry
            name = prefix + key[cut:] if rename else key
            listed += 1
            while replica is not None and replica[0] < name:
                yield _without_object(replica)
                replica = next(known, None)
            if replica is None or replica[0] != name:
                yield Finding(_without_replica(subtree, name, entry), name, entry, None)
                continue
            _, known_size, md5, adler32, state, noted, _ = replica
            # The usual case first.
            as_known = (
                state == 'A' and size == known_size and etag and (etag == md5 or (etag == noted and (md5 or adler32)))
            )
            if as_known or (kind := _compare_both(entry, replica, etag_is_md5)) is Kind.same:
                same += 1
            else:
                yield Finding(kind, name, entry, replica)
            replica = next(known, None)
    finally:
        counts['listed'] += listed
        counts['same'] += same
    while replica is not None:
        yield _without_object(replica)
        replica = next(known, None)


def _without_object(replica: 'Replica') -> Finding:
    return Finding(Kind.missing if replica.state == 'A' else Kind.busy, replica.name, None, replica)


def _without_replica(subtree: 'Subtree', name: str, entry: 'Entry') -> Kind:
    if name.endswith(TEMPORARY):
        return Kind.leftover
    if entry.size < 0:
        return Kind.unreadable
    if entry.size > MAX_SIZE:
        return Kind.oversized
    if name.endswith('/'):
        return Kind.unnameable if entry.size else Kind.marker
    path = subtree.path_of(entry.key) or ''
    return Kind.new if is_valid_name(name, subtree.storage.vo) and len(path) <= MAX_PATH_LENGTH else Kind.unnameable


def _compare_both(entry: 'Entry', replica: 'Replica', etag_is_md5: bool) -> Kind:
    if entry.size < 0:
        return Kind.unreadable
    if entry.size > MAX_SIZE:
        return Kind.oversized
    if replica.state == 'A':
        return Kind.changed if entry.size != replica.bytes else _compare_content(entry, replica, etag_is_md5)
    if replica.state != 'C':
        return Kind.busy
    if _has_arrived(entry, replica, etag_is_md5):
        return Kind.completed
    # An upload that was abandoned long ago, or that found an object of another client.
    return Kind.changed if max(entry.modified, replica.updated) < time.time() - DAY else Kind.busy


def _compare_content(entry: 'Entry', replica: 'Replica', etag_is_md5: bool) -> Kind:
    etag, same, has_checksum = entry.etag, _is_md5_of(entry, replica), bool(replica.md5 or replica.adler32)
    if same or (etag and etag == replica.etag):
        return Kind.same if has_checksum else Kind.no_checksum
    if same is False and etag_is_md5:
        return Kind.changed
    if not has_checksum:
        # Nothing can prove that it is the same.
        return Kind.changed if replica.etag else Kind.no_checksum
    # Rucio's own multipart uploads are verified, so an object that was not written since is the same.
    return Kind.unproven if replica.etag or entry.modified > replica.updated else Kind.unnoted


def _is_md5_of(entry: 'Entry', replica: 'Replica') -> Optional[bool]:
    """Return whether an ETag that may be an MD5 is the MD5 in the catalogue; None: unknown."""
    return Checksums(entry.etag if _MD5.fullmatch(entry.etag) else None).compare(Checksums(replica.md5))


def _has_arrived(entry: 'Entry', replica: 'Replica', etag_is_md5: bool) -> bool:
    """Return whether an unconfirmed upload has arrived. It may still be in progress."""
    if entry.size != replica.bytes:
        return False
    same = _is_md5_of(entry, replica)
    if same:
        return True
    differs = same is False and etag_is_md5
    return not differs and entry.modified < time.time() - DAY


def is_valid_name(name: str, vo: str) -> bool:
    """Return whether a DID can have this name, by the schema of the VO's policy, and can be downloaded. No request.

    Rucio's download command joins a name to its directory unchanged: with `..` between slashes, or a slash at the
    beginning, whoever writes to the bucket could write anywhere on the machines of those who download.

    :param name: The name.
    """
    if name.startswith('/') or address.leaves_directory(name):
        return False
    return _matcher(vo)(name) and not name.endswith('\n')  # "$" in a pattern matches before it


@cache
def _matcher(vo: str) -> 'Callable[[str], bool]':
    schema: Any = get_schema_value('SCHEMAS', vo).get('name') or get_schema_value('NAME', vo)
    return schemas.matcher(schema)
