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

"""Grantees: to whom the owner of a scope can give access to a collection.

To an account, to all accounts with an attribute (``experiment=atlas``), to all accounts, or to the world, which
includes people without an account. Only admins can set attributes of accounts; they are read each time when access is
decided.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from sqlalchemy import String, and_, not_, or_, select, type_coerce

from rucio.common.constants import DEFAULT_VO
from rucio.common.exception import AccountNotFound, InvalidObject
from rucio.common.types import InternalAccount
from rucio.core.account import account_exists
from rucio.db.sqla import models, s3
from rucio.db.sqla.s3 import GranteeType

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ['EVERYBODY', 'KINDS', 'AskingAccount', 'Grantee', 'check', 'in_vo']

EVERYBODY = '*'
# By their names in the REST interface. GROUP is unused: an account of the type GROUP is an account.
KINDS = {
    'account': GranteeType.ACCOUNT,
    'attribute': GranteeType.ATTRIBUTE,
    'everybody': GranteeType.EVERYBODY,
    'world': GranteeType.WORLD,
}
_READERS = (GranteeType.EVERYBODY, GranteeType.WORLD)


class Grantee(NamedTuple):
    """Somebody to whom access can be given."""

    kind: GranteeType
    name: str  # of the account; KEY=VALUE; or *

    @classmethod
    def of(cls, name: str, kind: Optional[str] = None) -> 'Grantee':
        """Return the grantee that a request names.

        :param name: The name.
        :param kind: One of :data:`KINDS`; by default, ``*`` is the world, and everything else an account.
        :raises InvalidObject: if a grantee of this kind cannot have the name.
        """
        found = KINDS[kind] if kind else GranteeType.WORLD if name == EVERYBODY else GranteeType.ACCOUNT
        if (name == EVERYBODY) != (found in _READERS):
            raise InvalidObject(f"A grantee of the kind '{kind}' cannot have the name '{name}'.")
        key, _, value = name.partition('=')
        if found is GranteeType.ATTRIBUTE and not (key and value):
            raise InvalidObject(f"'{name}' is not an attribute of accounts: give its key and value, as KEY=VALUE.")
        # Rucio stores these in lower case.
        return cls(found, f'{key}={value.lower()}' if value.lower() in ('true', 'false') else name)


def check(grantee: Grantee, write: bool, vo: str, *, session: 'Session') -> None:
    """Check that access can be granted to somebody. One query at most.

    :param grantee: To whom.
    :param write: Whether it is access to write.
    :param vo: The VO of the collection.
    :raises AccountNotFound: if there is no such account.
    :raises InvalidObject: if no account has such an attribute, or write access is for everybody.
    """
    if grantee.kind in _READERS:
        if write:
            raise InvalidObject('Everybody can get read access only: name the accounts that need write access.')
    elif grantee.kind is GranteeType.ATTRIBUTE:
        _check_attribute(grantee.name, vo, session)
    elif not account_exists(InternalAccount(grantee.name, vo=vo), session=session):
        raise AccountNotFound(f"There is no account '{grantee.name}'.")


def _check_attribute(attribute: str, vo: str, session: 'Session') -> None:
    if len(attribute) > s3.GRANTEE_LENGTH:
        raise InvalidObject(f'An attribute to share with has {s3.GRANTEE_LENGTH} characters at most.')
    key, _, value = attribute.partition('=')
    table = models.AccountAttrAssociation
    stmt = select(table.key, table.value).where(table.key == key, table.value == value, in_vo(table.account, vo))
    # Some databases take A and a for the same: DISTINCT would drop one of them.
    if not any(_text(*row) == attribute for row in session.execute(stmt)):
        raise InvalidObject(
            f"No account has the attribute '{attribute}': check its spelling (rucio account attribute list ACCOUNT). "
            'Admins of Rucio set attributes.'
        )


def _text(key: str, value: Any) -> str:
    """Return an attribute of an account as it is granted to. Rucio reads ``true`` and ``false`` as booleans."""
    return f'{key}={str(value).lower() if isinstance(value, bool) else value}'


def in_vo(column: Any, vo: str) -> Any:
    """Return the condition that the scope or account of a row is of a VO.

    :param column: The column of the scopes or accounts.
    :param vo: The VO.
    """
    stored = type_coerce(column, String)  # neither has an @ in its name
    return not_(stored.contains('@')) if vo == DEFAULT_VO else stored.endswith(f'@{vo}', autoescape=True)


class AskingAccount:
    """An account that asks for access, with its attributes.

    :param account: The account.
    :param session: The session of the database.
    """

    def __init__(self, account: InternalAccount, session: 'Session') -> None:
        self._account, self._session = account, session

    @cached_property
    def attributes(self) -> frozenset[str]:
        """The attributes of the account, as ``key=value``. One query, when they are first needed."""
        table = models.AccountAttrAssociation
        stmt = select(table.account, table.key, table.value).where(table.account == self._account)
        return frozenset(
            _text(key, value) for account, key, value in self._session.execute(stmt) if account == self._account
        )

    def may_be_meant(self, narrow: bool = False) -> Any:
        """Return the condition for rows of the table of grants that may be for the account; :meth:`is_meant` decides.

        :param narrow: Leave out other attributes. One query, for the attributes of the account.
        """
        kind, name = s3.Grant.grantee_type, s3.Grant.grantee
        by_attribute = kind == GranteeType.ATTRIBUTE
        if narrow:
            by_attribute = and_(by_attribute, name.in_(self.attributes))
        own = and_(kind == GranteeType.ACCOUNT, name == self._account.external)
        return or_(own, by_attribute, kind.in_(_READERS))

    def is_meant(self, kind: GranteeType, grantee: str, write: bool) -> bool:
        """Return whether a grant is for the account. One query at most, for the first grant to an attribute.

        :param kind: The kind of the grantee.
        :param grantee: The name of the grantee.
        :param write: Whether the account wants to write.
        """
        if kind is GranteeType.ACCOUNT:
            return grantee == self._account.external  # some databases take A and a for the same
        if kind is GranteeType.ATTRIBUTE:
            return grantee in self.attributes
        return kind in _READERS and not write
