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

"""Creation of buckets, and of datasets in them with the rules that keep them there.

Functions that query the database take a session; those that send requests to a storage take none, and must be called
while no session is open.
"""

from typing import TYPE_CHECKING, Any, Optional

from botocore.exceptions import BotoCoreError, ClientError
from sqlalchemy import and_, or_, select

from rucio.common.exception import (
    DataIdentifierAlreadyExists,
    DestinationNotAccessible,
    InsufficientAccountLimit,
    RucioException,
)
from rucio.common.s3 import objects
from rucio.common.s3.answers import line_logger
from rucio.common.s3.endpoint import SERVER_WORK
from rucio.common.s3.errors import Target
from rucio.core.did import set_metadata
from rucio.core.rse_selector import RSESelector
from rucio.core.s3.auth import quotas
from rucio.db.sqla import models

from . import cors, lookup, public_acls, subscriptions

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount, InternalScope
    from rucio.core.s3.storages import Storage

__all__ = ['cancel_expiry', 'make_bucket', 'need_room', 'own_rules']

_LOGGER = line_logger(__name__)

ABORT_DAYS = 7  # after which an incomplete multipart upload is aborted
RULE_ID = 'rucio-s3-abort-incomplete-uploads'


def own_rules(
    account: 'InternalAccount', scope: 'InternalScope', name: str, storage: 'Storage', *, session: 'Session'
) -> list[str]:
    """Return the ids of the rules of an account that keep a DID on an RSE. One query."""
    rule, lock = models.ReplicationRule, models.DatasetLock
    here = or_(
        rule.rse_expression == storage.rse,
        rule.id.in_(select(lock.rule_id).where(and_(lock.scope == scope, lock.rse_id == storage.rse_id))),
    )
    return list(
        session.execute(
            select(rule.id).where(and_(rule.account == account, rule.scope == scope, rule.name == name, here))
        ).scalars()
    )


def need_room(
    account: 'InternalAccount', scope: 'InternalScope', name: str, storage: 'Storage', *, session: 'Session'
) -> None:
    """Check that a dataset can be created and kept on an RSE.

    :raises DataIdentifierAlreadyExists: if the name is used by a file.
    :raises InsufficientAccountLimit: if the account has no quota for the rule.
    """
    if lookup.is_file(scope, name, session=session):
        raise DataIdentifierAlreadyExists(
            f'{scope}:{name} is a file, so it cannot be a collection: choose another name.'
        )
    if own_rules(account, scope, name, storage, session=session):
        return
    rse = {'id': storage.rse_id, 'rse': storage.rse, 'staging_area': storage.settings['staging_area']}
    try:
        RSESelector(account, [rse], None, 1, session=session)
    except InsufficientAccountLimit:
        room = quotas.room(account, storage, session=session)
        raise InsufficientAccountLimit(
            f'Account {account} has no quota left on RSE {storage.rse}, so no rule can keep {scope}:{name} there'
            f'{f": {room.state}" if room else ""}. Ask the operator for quota (rucio account limit), or use another '
            'RSE.'
        ) from None


def cancel_expiry(scope: 'InternalScope', name: str, *, session: 'Session') -> None:
    """Clear the expiry date of a collection that was removed before. One query, rarely two."""
    did = models.DataIdentifier
    if session.execute(select(did.expired_at).where(and_(did.scope == scope, did.name == name))).scalar() is not None:
        set_metadata(scope=scope, name=name, key='lifetime', value=None, session=session)


def make_bucket(storage: 'Storage', scope: str, warnings: Optional[list[str]] = None) -> dict[str, bool]:
    """Create the bucket of a scope, with a lifecycle rule that aborts incomplete multipart uploads.

    What exists is not changed.

    One request if there is nothing to do and the storage has no lifecycle rules; four for a new bucket; and those of
    :func:`.public_acls.ignore`, :func:`.subscriptions.subscribe` and :func:`.cors.allow_origins`.

    :param storage: The RSE.
    :param scope: The scope.
    :param warnings: A list to which failures are added that users notice, but that the bucket works without.
    :returns: What was created: ``bucket``, ``lifecycle``, ``events``, ``cors``; ``dataset`` and ``rule`` are False.
    :raises AccessDenied: if the bucket belongs to another account.
    :raises DestinationNotAccessible: if the RSE has one bucket for all scopes, and it does not exist.
    :raises RSEFileNameNotSupported: if the name is reserved by the storage.
    """
    bucket = storage.layout.bucket_of(scope)
    storage.need_name(bucket)
    made = {'bucket': False, 'dataset': False, 'rule': False, 'lifecycle': False, 'cors': False}
    if not lookup.exists(storage, bucket):
        if storage.layout.common_bucket:
            raise DestinationNotAccessible(
                f"RSE {storage.rse} keeps all scopes in one bucket, '{bucket}', which does not exist: the operator has "
                'to create it.'
            )
        # False: it was created by another process at the same time.
        made['bucket'] = objects.make_bucket(storage.connection(SERVER_WORK), Target(storage.rse, bucket))
    _ignore_public_acls(storage, bucket)
    if storage.endpoint.lifecycle and not storage.layout.common_bucket:
        made['lifecycle'] = _end_forgotten_uploads(storage, bucket)
    made['events'] = subscriptions.subscribe(storage, bucket)
    try:
        made['cors'] = cors.allow_origins(storage, bucket)
    except RucioException as error:
        failed = f'Pages in browsers cannot use the bucket: no CORS rule could be set. {error.args[0]}'
        _LOGGER.warning('S3: %s', failed)
        if warnings is not None:
            warnings.append(failed)
    return made


def _ignore_public_acls(storage: 'Storage', bucket: str) -> None:
    """Ignore public ACLs, without failing: vending keys for writing checks it again, and the rest works without."""
    try:
        public_acls.ignore(storage, bucket)
    except RucioException as error:
        _LOGGER.warning('S3: %s', error.args[0] if error.args else error)


def _end_forgotten_uploads(storage: 'Storage', bucket: str) -> bool:
    """Add the lifecycle rule. A bucket works without it, so a refusal is only logged."""
    client = storage.connection(SERVER_WORK).client
    try:
        try:
            rules: list[Any] = list(client.get_bucket_lifecycle_configuration(Bucket=bucket).get('Rules', []))
        except ClientError as error:
            if error.response.get('Error', {}).get('Code') != 'NoSuchLifecycleConfiguration':
                raise
            rules = []
        if any(
            rule.get('Status') == 'Enabled' and rule.get('AbortIncompleteMultipartUpload') and not _is_partial(rule)
            for rule in rules
        ):
            return False
        ours: Any = {
            'ID': RULE_ID,
            'Status': 'Enabled',
            'Filter': {'Prefix': ''},
            'AbortIncompleteMultipartUpload': {'DaysAfterInitiation': ABORT_DAYS},
        }
        kept = [rule for rule in rules if rule.get('ID') != RULE_ID]
        client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={'Rules': [*kept, ours]})
    except (BotoCoreError, ClientError) as error:
        _LOGGER.warning('RSE %s, bucket %s: no lifecycle rule could be set: %s', storage.rse, bucket, error)
        return False
    return True


def _is_partial(rule: dict[str, Any]) -> bool:
    """Return whether a lifecycle rule applies to a part of the bucket only."""
    where = rule.get('Filter') or {}
    return bool(rule.get('Prefix') or where.get('Prefix') or any(name != 'Prefix' for name in where))
