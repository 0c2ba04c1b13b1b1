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

"""The gateway of the REST interface for imports of buckets that belong to others.

One transaction for each step, as in :mod:`rucio.gateway.s3`.
"""

from typing import Any

from rucio.common.constants import DEFAULT_VO
from rucio.common.exception import AccessDenied, ScopeNotFound
from rucio.common.s3 import api
from rucio.core.s3 import imports, storages
from rucio.core.s3.auth import access, shared_keys
from rucio.core.s3.buckets import lookup
from rucio.core.s3.reconciler import listings, requested
from rucio.core.scope import check_scope
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
from rucio.gateway.s3names import names

__all__ = ['import_bucket']


def import_bucket(asked: api.ImportBucket, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Register the objects in a bucket of somebody else as files of a dataset; if it is repeated, only new ones.

    Takes 20 seconds at most; the answer says where to continue. Without a bucket and a prefix, the dataset is imported
    from where it was before. Admins may import everything, owners of a scope only what can be read anonymously.

    :raises AccessDenied: if the issuer may not import it.
    :raises ScopeNotFound: if the scope does not exist.
    :raises UnsupportedOperation: if the RSE is deterministic.
    :raises InvalidObject: if the dataset has files from elsewhere.
    """
    rse, scope, name = asked.rse, asked.scope, asked.name
    account, internal = names(issuer, scope, name, vo)
    with db_session(DatabaseOperationType.READ) as session:
        access.need(account, internal, '', True, session=session)
        storage = storages.get_storage(rse, vo, session=session).with_short_timeouts
        # Files in a scope of one's own can be read with the server's keys.
        admin = access.is_admin(account, session=session)
        if storage.endpoint.auth != 'anonymous' and not admin:
            raise AccessDenied(
                f'RSE {rse} is read with the keys of the Rucio server: only an admin may import into a scope what they '
                'reach.'
            )
        if not check_scope(internal, session=session):
            raise ScopeNotFound(f"There is no scope '{scope}': create it first (rucio scope add).")
        known = None if asked.bucket or asked.prefix else imports.known(storage, scope, name, session=session)
        new = known or imports.Import(
            *imports.resolve_prefix(storage, asked.bucket, asked.prefix), scope=scope, dataset=name
        )
        imports.check(storage, new, session=session)
        shared_keys.need(storage, account, new.bucket, new.prefix, False, session=session)
    subtree = imports.subtree_of(storage, new)
    lookup.need_answer(storage)
    # An empty import is not stored: the daemon would list it again and again, and a mistyped prefix would overlap with
    # the correct one.
    if not asked.dry_run and not asked.after and next(listings.unordered(subtree), None) is not None:
        with db_session(DatabaseOperationType.WRITE) as session:
            imports.save(storage, new, issuer, not admin, session=session)
    answer = requested.reconcile(subtree, asked)
    return {'rse': storage.rse, 'bucket': new.bucket, 'prefix': new.prefix, 'scope': scope, 'name': name} | answer
