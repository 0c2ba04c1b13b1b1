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

"""Imports: what others keep in a bucket, as files of a dataset on a non-deterministic RSE. Nothing is ever
written there.

The objects below a prefix of the bucket are the files below a dataset's name, and each replica has its path. The
dataset gets no rule: there is nothing to be kept, and without one no account is charged. An import is remembered in
Rucio's own table ``configs``, section ``s3-bucket:RSE:BUCKET``, an option ``import-...`` for each, so that the
reconciler's daemon repeats it.
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
MAX_IMPORTS = 20  # imports of an account that is not an admin, on an RSE
MAX_VALUE_LENGTH = 4000  # characters; of a value in Rucio's table
MAX_SECTION_LENGTH = 128  # the same of a section
_BUCKET = re.compile(r'(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]*')


class Import(NamedTuple):
    """What is imported of a bucket: the keys below ``prefix`` (empty, or with a slash at its end) are the names
    below ``dataset``.
    """

    bucket: str
    prefix: str
    scope: str  # without a VO
    dataset: str

    def name_of(self, key: str) -> Optional[str]:
        """The name of a key or of a prefix of keys; None where it lies outside."""
        return f'{self.dataset}/{key[len(self.prefix) :]}' if key.startswith(self.prefix) else None

    def key_of(self, name: str) -> Optional[str]:
        """The key of a name; of a collection and a slash the prefix of its keys. None where it lies outside."""
        return self.prefix + name[len(self.dataset) + 1 :] if name.startswith(f'{self.dataset}/') else None


def resolve_prefix(storage: 'Storage', bucket: Optional[str], prefix: str) -> tuple[str, str]:
    """The bucket, and what the keys in it begin with, that an import is of. No request.

    :param bucket: The bucket; None: the one in the prefix of the RSE's protocol.
    :param prefix: A folder in it; empty: all of the RSE.
    :returns: The bucket and the prefix, which is empty or ends in a slash.
    :raises UnsupportedOperation: if the RSE is deterministic: its files lie where their names say.
    :raises InputValidationError: if no bucket is known, or its name is none.
    :raises RSEFileNameNotSupported: if it lies outside of what the RSE is for.
    """
    if storage.layout.deterministic:
        raise UnsupportedOperation(
            f'RSE {storage.rse} is deterministic: its files lie where their names say, so nothing can be imported into '
            'it. Make a read-only RSE for the bucket (rucio s3 rse add NAME --read-only), or look for what is new in '
            'it with rucio s3 reconcile.'
        )
    own, folder = address.split_prefix(storage.protocol['prefix'])
    if not (bucket := bucket or own):
        raise InputValidationError(f'RSE {storage.rse} is not for one bucket: say which one to import (--bucket).')
    # botocore would take an ARN to another host than the RSE's.
    if not _BUCKET.fullmatch(bucket) or len(configs.bucket_section(storage, bucket)) > MAX_SECTION_LENGTH:
        raise InputValidationError(
            f"'{bucket}' is no name of a bucket: it has letters, digits, '.', '-' and '_', and 63 characters as a rule."
        )
    prefix = prefix or folder
    prefix = f'{prefix}/' if prefix and not prefix.endswith('/') else prefix
    storage.layout.path_of(bucket, f'{prefix}file')
    return bucket, prefix


# What was imported


def list_imports(storage: 'Storage', bucket: Optional[str] = None, *, session: 'Session') -> list[Import]:
    """What is imported on an RSE, or of one bucket: one query."""
    return [each for each, _ in _list_with_accounts(storage, bucket, session)]


def _list_with_accounts(
    storage: 'Storage', bucket: Optional[str], session: 'Session'
) -> list[tuple[Import, Optional[str]]]:
    """Imports, and who asked for them."""
    rows = configs.list_rows(storage, (OPTION_PREFIX,), bucket, session=session)
    return sorted((each for row in rows for each in _parse(row.bucket, row.value)), key=_by_name)


def _by_name(row: tuple[Import, Optional[str]]) -> tuple[str, str, str]:
    return row[0].bucket, row[0].scope, row[0].dataset


def _parse(bucket: str, value: Optional[str]) -> 'Iterator[tuple[Import, Optional[str]]]':
    """What somebody else wrote there is nothing."""
    try:
        found = json.loads(value or '[]')
    except ValueError:
        found = []
    # A list: all of a bucket stood in one option once.
    for each in found if isinstance(found, list) else [found]:
        if (
            isinstance(each, dict)
            and all(isinstance(each.get(key), str) for key in ('scope', 'dataset', 'prefix'))
            and each['scope']
            and each['dataset']
        ):
            yield Import(bucket, each['prefix'], each['scope'], each['dataset']), each.get('account')


def check(storage: 'Storage', new: Import, *, session: 'Session') -> None:
    """Whether there can be such an import. Two queries.

    :raises InvalidObject: if files of that dataset come from elsewhere: what is missing here would be taken for gone.
    :raises DataIdentifierAlreadyExists: if the name is not that of a dataset.
    """
    for old in list_imports(storage, session=session):
        same = (
            new.dataset == old.dataset
            or new.dataset in address.ancestors(old.dataset)
            or old.dataset in address.ancestors(new.dataset)
        )
        if old != new and old.scope == new.scope and same:
            raise InvalidObject(
                f"RSE {storage.rse}: {old.scope}:{old.dataset} is an import of bucket '{old.bucket}', prefix "
                f"'{old.prefix}' already. Import this into a dataset with a name of its own, which is neither above "
                'nor below that one.'
            )
    did = models.DataIdentifier
    scope = InternalScope(new.scope, vo=storage.vo)
    kind = session.execute(select(did.did_type).where(and_(did.scope == scope, did.name == new.dataset))).scalar()
    if kind not in (None, DIDType.DATASET):
        raise DataIdentifierAlreadyExists(
            f'{scope}:{new.dataset} is a {kind.name.lower()}, not a dataset: choose another name.'
        )


def known(storage: 'Storage', scope: str, dataset: str, *, session: 'Session') -> Optional[Import]:
    """The import that a dataset is of on this RSE. One query."""
    return next(
        (each for each in list_imports(storage, session=session) if (each.scope, each.dataset) == (scope, dataset)),
        None,
    )


def save(storage: 'Storage', new: Import, account: str, limited: bool, *, session: 'Session') -> bool:
    """Have the daemon repeat an import. One query, three where it is new.

    :param account: Who asks for it.
    :param limited: Whether there is a limit: for who is not an admin.
    :returns: Whether it was new.
    :raises InvalidObject: if the account has too many on this RSE, or the names are too long.
    """
    known = _list_with_accounts(storage, None, session)
    if new in [each for each, _ in known]:
        return False
    if limited and sum(by == account for _, by in known) >= MAX_IMPORTS:
        raise InvalidObject(
            f'RSE {storage.rse}: account {account} has {MAX_IMPORTS} imports there already, which are repeated by and '
            'by. Import a larger prefix instead, or ask an admin.'
        )
    value = json.dumps(
        {'scope': new.scope, 'dataset': new.dataset, 'prefix': new.prefix, 'account': account}, separators=(',', ':')
    )
    if len(value) > MAX_VALUE_LENGTH:
        raise InvalidObject(
            f"RSE {storage.rse}: the prefix '{new.prefix[:50]}...' is too long to be remembered. Import a larger part."
        )
    # A row for each: nobody's imports are in the way of others'.
    name = hashlib.sha256(f'{new.scope}:{new.dataset}'.encode()).hexdigest()[:32]
    config.set(configs.bucket_section(storage, new.bucket), f'{OPTION_PREFIX}-{name}', value, session=session)
    return True


# Where things are


def dids_of(storage: 'Storage', bucket: str, key: str, *, session: 'Session') -> list[tuple[InternalScope, str]]:
    """The DIDs of an object of a non-deterministic RSE: of the replicas with its path, else by what is imported. Two
    queries at most.

    Paths count only where none but admins can have written them: see :func:`.policy_package.guards_replicas`.

    :param key: A key; or with a slash at its end, or empty, a prefix of keys, whose names are those below a DID.
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
    """Scope, dataset and prefix of the imports that a key lies in. One query."""
    imports = list_imports(storage, bucket, session=session)
    return [
        (InternalScope(each.scope, vo=storage.vo), each.dataset, each.prefix)
        for each in imports
        if key.startswith(each.prefix)
    ]


def source_of(storage: 'Storage', scope: InternalScope, name: str, *, session: 'Session') -> Optional[tuple[str, str]]:
    """Bucket and key (without a slash at its end) of a collection that is imported, or lies in one that is.
    One query.
    """
    for each in list_imports(storage, session=session):
        if each.scope == scope.external and (key := each.key_of(f'{name}/')) is not None:
            return each.bucket, key.removesuffix('/')
    return None


# Importing


def subtree_of(storage: 'Storage', new: Import) -> Subtree:
    """What the reconciler has to compare. No request.

    :raises RSEOperationNotSupported: if the RSE is for other files, or deterministic.
    """
    return Subtree.imported(storage, InternalScope(new.scope, vo=storage.vo), new.dataset, new.bucket, new.prefix)
