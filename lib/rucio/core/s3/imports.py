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

"""Imports: the objects of a foreign bucket as files of a dataset on a non-deterministic RSE.

Nothing is ever written to the bucket.

The objects below a prefix of the bucket are the files below the name of a dataset, and each replica has its path. The
dataset gets no rule: there is nothing to keep, and without a rule no account is charged. An import is stored in Rucio's
table ``configs``, section ``s3-bucket:RSE:BUCKET``, with an option ``import-...`` each, so that the reconciler daemon
repeats it.
"""

import hashlib
import json
import re
from typing import TYPE_CHECKING, NamedTuple, Optional

from sqlalchemy import and_, select

from rucio.common.exception import (
    DataIdentifierAlreadyExists,
    InputValidationError,
    InvalidObject,
    UnsupportedOperation,
)
from rucio.common.s3 import address
from rucio.common.types import InternalScope
from rucio.core import config
from rucio.db.sqla import models
from rucio.db.sqla.constants import DIDType

from . import configs, policy_package
from .subtrees import Subtree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from rucio.core.s3.storages import Storage

__all__ = [
    'Import',
    'check',
    'covering',
    'dids_of',
    'known',
    'list_imports',
    'resolve_prefix',
    'save',
    'source_of',
    'subtree_of',
]

OPTION_PREFIX = 'import'
MAX_IMPORTS = 20  # imports per RSE, for accounts that are not admins
MAX_VALUE_LENGTH = 4000  # characters of a value in Rucio's table
MAX_SECTION_LENGTH = 128  # characters of a section
_BUCKET = re.compile(r'(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]*')


class Import(NamedTuple):
    """An import: the keys below ``prefix`` (empty, or ending with a slash) are the names below ``dataset``."""

    bucket: str
    prefix: str
    scope: str  # without a VO
    dataset: str

    def name_of(self, key: str) -> Optional[str]:
        """Return the name of a key or key prefix; None: it is not part of the import."""
        return f'{self.dataset}/{key[len(self.prefix) :]}' if key.startswith(self.prefix) else None

    def key_of(self, name: str) -> Optional[str]:
        """Return the key of a name; for a collection and a slash, its key prefix.

        None: it is not part of the import.
        """
        return self.prefix + name[len(self.dataset) + 1 :] if name.startswith(f'{self.dataset}/') else None


def resolve_prefix(storage: 'Storage', bucket: Optional[str], prefix: str) -> tuple[str, str]:
    """Return the bucket and key prefix to import from. No request.

    :param bucket: The bucket; None: the one in the prefix of the RSE's protocol.
    :param prefix: A key prefix; empty: everything on the RSE.
    :returns: The bucket and the prefix, which is empty or ends with a slash.
    :raises UnsupportedOperation: if the RSE is deterministic.
    :raises InputValidationError: if no bucket is given, or its name is invalid.
    :raises RSEFileNameNotSupported: if it is outside the prefix of the RSE's protocol.
    """
    if storage.layout.deterministic:
        raise UnsupportedOperation(
            f'RSE {storage.rse} is deterministic: the name of a file determines where it is stored, so nothing can be '
            'imported. Add a read-only RSE for the bucket (rucio s3 rse add NAME --read-only), or register new objects '
            'with rucio s3 reconcile.'
        )
    own, folder = address.split_prefix(storage.protocol['prefix'])
    if not (bucket := bucket or own):
        raise InputValidationError(
            f'RSE {storage.rse} is not limited to one bucket: name the bucket to import (--bucket).'
        )
    # For an ARN, botocore would send the request to another host.
    if not _BUCKET.fullmatch(bucket) or len(configs.bucket_section(storage, bucket)) > MAX_SECTION_LENGTH:
        raise InputValidationError(
            f"'{bucket}' is not a valid bucket name: use letters, digits, '.', '-' and '_', usually up to 63 "
            'characters.'
        )
    prefix = prefix or folder
    prefix = f'{prefix}/' if prefix and not prefix.endswith('/') else prefix
    storage.layout.path_of(bucket, f'{prefix}file')
    return bucket, prefix


# What was imported


def list_imports(storage: 'Storage', bucket: Optional[str] = None, *, session: 'Session') -> list[Import]:
    """List the imports of an RSE, or of one bucket: one query."""
    return [each for each, _ in _list_with_accounts(storage, bucket, session)]


def _list_with_accounts(
    storage: 'Storage', bucket: Optional[str], session: 'Session'
) -> list[tuple[Import, Optional[str]]]:
    """Return the imports, and the accounts that requested them."""
    rows = configs.list_rows(storage, (OPTION_PREFIX,), bucket, session=session)
    return sorted((each for row in rows for each in _parse(row.bucket, row.value)), key=_by_name)


def _by_name(row: tuple[Import, Optional[str]]) -> tuple[str, str, str]:
    return row[0].bucket, row[0].scope, row[0].dataset


def _parse(bucket: str, value: Optional[str]) -> 'Iterator[tuple[Import, Optional[str]]]':
    """Parse the value of an option; anything but imports is ignored."""
    try:
        found = json.loads(value or '[]')
    except ValueError:
        found = []
    # A list: earlier versions stored all imports of a bucket in one option.
    for each in found if isinstance(found, list) else [found]:
        if (
            isinstance(each, dict)
            and all(isinstance(each.get(key), str) for key in ('scope', 'dataset', 'prefix'))
            and each['scope']
            and each['dataset']
        ):
            yield Import(bucket, each['prefix'], each['scope'], each['dataset']), each.get('account')


def check(storage: 'Storage', new: Import, *, session: 'Session') -> None:
    """Check that an import is possible. Two queries.

    :param new: The import.
    :raises InvalidObject: if the dataset is already imported from elsewhere: its files would be reported as missing.
    :raises DataIdentifierAlreadyExists: if the name is already used, but not by a dataset.
    """
    for old in list_imports(storage, session=session):
        same = (
            new.dataset == old.dataset
            or new.dataset in address.ancestors(old.dataset)
            or old.dataset in address.ancestors(new.dataset)
        )
        if old != new and old.scope == new.scope and same:
            raise InvalidObject(
                f"RSE {storage.rse}: {old.scope}:{old.dataset} is already imported from bucket '{old.bucket}', prefix "
                f"'{old.prefix}'. Use another dataset, which is neither above nor below that one."
            )
    did = models.DataIdentifier
    scope = InternalScope(new.scope, vo=storage.vo)
    kind = session.execute(select(did.did_type).where(and_(did.scope == scope, did.name == new.dataset))).scalar()
    if kind not in (None, DIDType.DATASET):
        raise DataIdentifierAlreadyExists(
            f'{scope}:{new.dataset} is a {kind.name.lower()}, not a dataset: choose another name.'
        )


def known(storage: 'Storage', scope: str, dataset: str, *, session: 'Session') -> Optional[Import]:
    """Return the import of a dataset on this RSE. One query.

    :param dataset: The name of the dataset.
    """
    return next(
        (each for each in list_imports(storage, session=session) if (each.scope, each.dataset) == (scope, dataset)),
        None,
    )


def save(storage: 'Storage', new: Import, account: str, limited: bool, *, session: 'Session') -> bool:
    """Store an import, so that the daemon repeats it. One query, or three for a new one.

    :param account: The account that requested it.
    :param limited: Whether the number of imports is limited (accounts that are not admins).
    :param new: The import.
    :returns: Whether it is new.
    :raises InvalidObject: if the account has too many on this RSE, or the names are too long.
    """
    known = _list_with_accounts(storage, None, session)
    if new in [each for each, _ in known]:
        return False
    if limited and sum(by == account for _, by in known) >= MAX_IMPORTS:
        raise InvalidObject(
            f'RSE {storage.rse}: account {account} already has {MAX_IMPORTS} imports there, which the reconciler '
            'repeats. Import a larger prefix instead, or ask an admin.'
        )
    value = json.dumps(
        {'scope': new.scope, 'dataset': new.dataset, 'prefix': new.prefix, 'account': account}, separators=(',', ':')
    )
    if len(value) > MAX_VALUE_LENGTH:
        raise InvalidObject(
            f"RSE {storage.rse}: the prefix '{new.prefix[:50]}...' is too long to be stored. Import a shorter prefix."
        )
    # One row per import: concurrent changes do not overwrite each other.
    name = hashlib.sha256(f'{new.scope}:{new.dataset}'.encode()).hexdigest()[:32]
    config.set(configs.bucket_section(storage, new.bucket), f'{OPTION_PREFIX}-{name}', value, session=session)
    return True


# Locations


def dids_of(storage: 'Storage', bucket: str, key: str, *, session: 'Session') -> list[tuple[InternalScope, str]]:
    """Return the DIDs of an object on a non-deterministic RSE: of the replicas with its path, else of the imports.

    At most two queries.

    Paths are used only if none but admins can set them: see :func:`.policy_package.guards_replicas`.

    :param key: A key; or a key prefix (empty, or ending with a slash), whose names are those below a DID.
    """
    replica = models.RSEFileAssociation
    if key and not key.endswith('/') and policy_package.guards_replicas(storage.vo):
        path = storage.layout.path_of(bucket, key)
        stmt = select(replica.scope, replica.name, replica.path).where(
            and_(replica.rse_id == storage.rse_id, replica.path.in_((path, path[1:])))
        )
        # Some databases take A and a for the same.
        if found := [(row.scope, row.name) for row in session.execute(stmt) if row.path in (path, path[1:])]:
            return found
    imports = list_imports(storage, bucket, session=session)
    return [(InternalScope(each.scope, vo=storage.vo), name) for each in imports if (name := each.name_of(key))]


def covering(storage: 'Storage', bucket: str, key: str, *, session: 'Session') -> list[tuple[InternalScope, str, str]]:
    """Return scope, dataset and prefix of the imports that contain a key. One query."""
    imports = list_imports(storage, bucket, session=session)
    return [
        (InternalScope(each.scope, vo=storage.vo), each.dataset, each.prefix)
        for each in imports
        if key.startswith(each.prefix)
    ]


def source_of(storage: 'Storage', scope: InternalScope, name: str, *, session: 'Session') -> Optional[tuple[str, str]]:
    """Return bucket and key (without a slash at its end) of a collection that is imported, or is below an import.

    One query.
    """
    for each in list_imports(storage, session=session):
        if each.scope == scope.external and (key := each.key_of(f'{name}/')) is not None:
            return each.bucket, key.removesuffix('/')
    return None


# Importing


def subtree_of(storage: 'Storage', new: Import) -> Subtree:
    """Return the subtree that the reconciler has to compare. No request.

    :param new: The import.
    :raises RSEOperationNotSupported: if the RSE is deterministic.
    """
    return Subtree.imported(storage, InternalScope(new.scope, vo=storage.vo), new.dataset, new.bucket, new.prefix)
