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
"""Hooks in the permission module of the policy package of a VO.

The module may define ``perm_s3_access(issuer, kwargs, *, session)``, with ``scope``, ``name`` and ``write`` in
``kwargs``, whose answer is final unless it is None, and ``GUARDS_REPLICAS``.
"""

from typing import TYPE_CHECKING, Optional

from rucio.common.s3.rucio_internals import permission_module

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount, InternalScope

__all__ = ['decide', 'guards_replicas']


def decide(
    issuer: 'InternalAccount', scope: 'InternalScope', name: str, write: bool, *, session: 'Session'
) -> Optional[bool]:
    """Return whether the policy package allows an account to access a name; None: it does not decide."""
    function = getattr(permission_module(issuer.vo), 'perm_s3_access', None)
    answer = (
        function(issuer=issuer, kwargs={'scope': scope, 'name': name, 'write': write}, session=session)
        if function
        else None
    )
    return None if answer is None else bool(answer)


def guards_replicas(vo: str) -> bool:
    """Whether only admins can set the path of a replica on a non-deterministic RSE.

    The path then shows who owns an object.

    With Rucio's generic permissions, the owner of any scope can set it, by attaching files to a dataset and
    naming an RSE. A policy package that refuses this, like ``rucio_s3_policy``, has ``GUARDS_REPLICAS = True`` in
    its permission module.
    """
    return getattr(permission_module(vo), 'GUARDS_REPLICAS', False) is True
