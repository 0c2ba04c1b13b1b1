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

"""What the REST interface asks for where a bucket of somebody else is imported. A transaction for each step, as in
:mod:`rucio.gateway.s3`.
"""

from typing import Any, Optional

from rucio.common.constants import DEFAULT_VO
from rucio.common.exception import AccessDenied, ScopeNotFound
from rucio.common.s3.api import Wish
from rucio.core.s3 import imports, storages
from rucio.core.s3.auth import access, shared_keys
from rucio.core.s3.reconciler import listings, requested
from rucio.core.scope import check_scope
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
from rucio.gateway.s3names import names

__all__ = ['import_bucket']


def import_bucket(
    rse: str,
    scope: str,
    name: str,
    issuer: str,
    bucket: Optional[str] = None,
    prefix: str = '',
    wish: Optional[Wish] = None,
    vo: str = DEFAULT_VO,
) -> dict[str, Any]:
    """Register what lies in a bucket of somebody else as files of a dataset, again only what is new: 20 seconds at
    most.

    :param rse: A non-deterministic RSE, to which nothing is written.
    :param scope: The scope of the files.
    :param name: The dataset: a key below the prefix becomes this name, a slash, and the rest of the key.
    :param issuer: The issuing account: an admin; the owner of the scope where anybody may read the storage anyway.
    :param bucket: The bucket; None: that of the RSE.
    :param prefix: A folder in it; empty: all of the RSE. Without both: where the dataset was imported from, if it was.
    :param wish: How it is reconciled, and where to go on.
    :param vo: The VO to act on.
    :returns: rse, bucket, prefix, scope, name, counts, problems, and ``after``: None where the end was reached.
    :raises AccessDenied: if the issuer may not.
    :raises ScopeNotFound: if there is no such scope (told to admins only).
    :raises UnsupportedOperation: if the RSE is deterministic.
    :raises InvalidObject: if files of that dataset come from elsewhere.
    """
    wish = wish or Wish()
    account, internal = names(issuer, scope, name, vo)
    with db_session(DatabaseOperationType.READ) as session:
        access.need(account, internal, '', True, session=session)
        storage = storages.get_storage(rse, vo, session=session)
        # Who has it in a scope of their own may read it with the server's keys.
        admin = access.is_admin(account, session=session)
        if storage.endpoint.auth != 'anonymous' and not admin:
            raise AccessDenied(
                f'RSE {rse} is read with the keys of the Rucio server: only an admin may import into a scope what they reach.'
            )
        if not check_scope(internal, session=session):
            raise ScopeNotFound(f"There is no scope '{scope}': make it first (rucio scope add).")
        known = None if bucket or prefix else imports.known(storage, scope, name, session=session)
        new = known or imports.Import(*imports.place(storage, bucket, prefix), scope=scope, dataset=name)
        imports.check(storage, new, session=session)
        shared_keys.need(storage, account, new.bucket, new.prefix, False, session=session)
    part = imports.part_of(storage, new)
    # What is not there shall not be looked for again and again by the daemon, and a mistyped prefix not be in the way
    # of the right one.
    if not wish.dry_run and not wish.after and next(listings.unordered(part), None) is not None:
        with db_session(DatabaseOperationType.WRITE) as session:
            imports.remember(storage, new, issuer, not admin, session=session)
    answer = requested.reconcile(part, wish)
    return {'rse': storage.rse, 'bucket': new.bucket, 'prefix': new.prefix, 'scope': scope, 'name': name} | answer
