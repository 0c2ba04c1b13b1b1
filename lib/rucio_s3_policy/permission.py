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

"""Rucio's generic permissions, but for replicas on S3 RSEs: the owner of a scope may add those of it, and say that they
are there.

Rucio asks this module before the replicas of a request are added or updated, but does not pass them. They are read
where its REST endpoint has them from: the body of the request. What cannot be decided is left to the generic
permissions, which refuse it.

Rucio also adds replicas where files are attached to a dataset and an RSE is named, and asks only whose the
dataset is. Whoever could add a replica of any name, or at any path, could have it deleted by a rule that ends. So
the same holds there.
"""

import importlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Union

import flask
from sqlalchemy import and_, or_, select

from rucio.common.config import config_get_bool
from rucio.common.constants import DEFAULT_VO
from rucio.common.policy import get_policy
from rucio.common.s3.address import leaves_directory
from rucio.common.s3.layout import IMPL
from rucio.common.types import InternalScope
from rucio.core.account import has_account_attribute
from rucio.core.scope import is_scope_owner
from rucio.db.sqla import models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

    from sqlalchemy.orm import Session

    from rucio.common.types import InternalAccount
    from rucio.core.permission import PermissionResult

__all__ = ['GUARDS_REPLICAS', 'has_permission']

# For rucio.core.s3.policy_package: on S3 RSEs nobody but an admin decides where a replica is, so its path says whose
# object it is.
GUARDS_REPLICAS = True

# The view class Replicas, in rucio/web/rest/flaskapi/v1/replicas.py.
_ENDPOINT = 'replicas.replicas'
# 1000 files, the most that Rucio takes in a request, have far less.
_MAX_BODY = 16 * 1024**2
_FILE_KEYS = frozenset({'scope', 'name', 'type', 'bytes', 'adler32', 'md5', 'meta', 'state', 'pfn'})


class _Rule(NamedTuple):
    """When a request is one of the two that an upload makes."""

    method: str
    states: frozenset[Optional[str]]


# Other states are for daemons and administrators: with BEING_DELETED the reaper deletes the object.
_RULES = {
    'add_replicas': _Rule('POST', frozenset({None, 'A', 'C'})),
    'update_replicas_states': _Rule('PUT', frozenset({'A'})),
}


# They add replicas, too, where an RSE is named.
_ATTACHING = frozenset({'add_did', 'add_dids', 'attach_dids', 'attach_dids_to_dids'})


class _UndecidedError(Exception):
    """It is not for the owner of a scope to do; the message says why."""


def has_permission(
    issuer: 'InternalAccount', action: str, kwargs: dict[str, Any], session: 'Session'
) -> 'Union[bool, PermissionResult]':
    """
    Checks if an account has the specified permission to execute an action with parameters.

    One query for the RSE and one for each scope in the request, for accounts that the generic permissions refuse.

    :param issuer: Account identifier which issues the command.
    :param action: The action (API call) called by the account.
    :param kwargs: List of arguments for the action.
    :param session: The DB session to use.
    :returns: True if the account is allowed, otherwise False; with the reason where that is for this module to say.
    """
    # Never None: with many VOs Rucio would then ask the permissions of one VO, by which a VO's admin may add VOs.
    allowed: bool = _base.has_permission(issuer, action, kwargs, session=session)
    if action in _ATTACHING:
        return _answer(lambda: _attaches(issuer, action, kwargs, session)) if allowed else False
    # By the generic permissions anybody may add replicas where the RSE's name ends in USERDISK and the like.
    if action not in _RULES or (allowed and (action != 'add_replicas' or not _is_others(issuer, kwargs, session))):
        return allowed
    return _answer(lambda: _adds(issuer, _RULES[action], kwargs, session))


def _answer(decide: 'Callable[[], bool]') -> 'Union[bool, PermissionResult]':
    """What is decided, or a refusal with its reason."""
    from rucio.core.permission import PermissionResult  # noqa: PLC0415 - imports this module

    try:
        return decide()
    except _UndecidedError as error:
        return PermissionResult(False, str(error))


def _is_others(issuer: 'InternalAccount', kwargs: dict[str, Any], session: 'Session') -> bool:
    """Whether it is about an S3 RSE, and the account is no admin."""
    return not _is_admin(issuer, session) and _s3_rse(models.RSE.id == kwargs.get('rse_id'), session) is not None


def _is_admin(issuer: 'InternalAccount', session: 'Session') -> bool:
    return issuer.external == 'root' or bool(has_account_attribute(account=issuer, key='admin', session=session))


def _adds(issuer: 'InternalAccount', rule: _Rule, kwargs: dict[str, Any], session: 'Session') -> bool:
    """:raises _UndecidedError: if it is not for this account to do."""
    named = (models.RSE.id == kwargs.get('rse_id'), models.RSE.rse == kwargs.get('rse'), models.RSE.vo == issuer.vo)
    if not _s3_rse(and_(*named), session):
        return False
    _need_scopes(issuer, _scopes_of_request(issuer, rule, kwargs['rse']), session)
    return True


def _attaches(issuer: 'InternalAccount', action: str, kwargs: dict[str, Any], session: 'Session') -> bool:
    """:raises _UndecidedError: if it would add replicas on an S3 RSE that are not this account's to add."""
    for each in _attachments(action, kwargs):
        if not isinstance(each, dict) or not each.get('dids') or not (each.get('rse') or each.get('rse_id')):
            continue
        deterministic = _s3_rse(
            or_(
                and_(models.RSE.rse == each.get('rse'), models.RSE.vo == issuer.vo), models.RSE.id == each.get('rse_id')
            ),
            session,
        )
        if deterministic is None or _is_admin(issuer, session):
            continue
        if not deterministic:
            raise _UndecidedError('On this RSE the one who adds a replica says where it is: only an admin may do that.')
        _need_scopes(
            issuer, dict.fromkeys(_scope_of_file(file, _RULES['add_replicas']) for file in each['dids']), session
        )
    return True


def _attachments(action: str, kwargs: dict[str, Any]) -> list[Any]:
    """What is attached: objects with ``dids`` and perhaps ``rse``."""
    if action == 'attach_dids':
        return [kwargs['attachment']]
    if action != 'add_did':
        return list(kwargs['attachments' if action == 'attach_dids_to_dids' else 'dids'])
    # Rucio does not pass it. Read as its endpoint does; what cannot be read is refused there.
    try:
        body = json.loads(flask.request.get_data(as_text=True)) if flask.has_request_context() else None
    except (ValueError, RecursionError):
        body = None
    return [body]


def _need_scopes(issuer: 'InternalAccount', scopes: 'Iterable[str]', session: 'Session') -> None:
    """:raises _UndecidedError: if one of them is not the account's."""
    for scope in scopes:
        if not is_scope_owner(scope=InternalScope(scope, vo=issuer.vo), account=issuer, session=session):
            raise _UndecidedError(f"The scope '{scope[:100]}' is not yours.")


def _base_module() -> 'ModuleType':
    """What Rucio would ask without this package."""
    name = 'generic'
    if config_get_bool('common', 'multi_vo', raise_exception=False, default=False, check_config_table=False):
        name = 'generic_multi_vo'
    elif get_policy() != DEFAULT_VO:
        name = get_policy().lower()
    return importlib.import_module(f'rucio.core.permission.{name}')


_base = _base_module()


def _s3_rse(which: Any, session: 'Session') -> Optional[bool]:
    """
    Whether paths are made of names on an RSE, one of whose protocols is ours; None: none is. One query.

    On a non-deterministic RSE the client says where the file is: it could name another scope's object, and have
    it deleted.

    :param which: The condition for an RSE; where it fits several, one that is not deterministic counts.
    """
    stmt = (
        select(models.RSEProtocol.impl, models.RSE.deterministic)
        .join(models.RSE, models.RSE.id == models.RSEProtocol.rse_id)
        .where(which)
    )
    found = [bool(row.deterministic) for row in session.execute(stmt) if row.impl.startswith(IMPL)]
    return all(found) if found else None


def _scopes_of_request(issuer: 'InternalAccount', rule: _Rule, rse: str) -> list[str]:
    """
    The scopes of all files in the body of the request that is being answered, as the endpoint reads it.

    :raises _UndecidedError: if it is another request, or one that says more than an upload does.
    """
    request = flask.request if flask.has_request_context() else None
    if request is None or request.endpoint != _ENDPOINT or request.method != rule.method:
        raise _UndecidedError('The owner of a scope may do this only with a request to /replicas.')
    if (request.environ.get('issuer'), request.environ.get('vo')) != (issuer.external, issuer.vo):
        raise _UndecidedError('The request is of another account.')
    body = request.get_data(as_text=True)
    if len(body) > _MAX_BODY:
        raise _UndecidedError(f'The request has more than {_MAX_BODY} characters: send fewer files at once.')
    try:
        parameters = json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise _UndecidedError('The body of the request cannot be read, or says the same thing twice.') from None
    if not isinstance(parameters, dict) or parameters.get('rse') != rse:
        raise _UndecidedError('The body of the request names another RSE.')
    files = parameters.get('files')
    if not isinstance(files, list) or not files:
        raise _UndecidedError('The request has no files.')
    # In their order, without duplicates.
    return list(dict.fromkeys(_scope_of_file(file, rule) for file in files))


def _scope_of_file(file: Any, rule: _Rule) -> str:
    """:raises _UndecidedError: if it says more of the file than an upload does."""
    if not isinstance(file, dict) or not isinstance(file.get('scope'), str) or not isinstance(file.get('name'), str):
        raise _UndecidedError('A file has no scope or no name.')
    if leaves_directory(file['name']):
        raise _UndecidedError(
            'A name may not have . or .. between slashes, nor begin with //: it would leave the directory into which '
            'it is downloaded.'
        )
    # A path or an account would be taken as they are.
    if unknown := sorted(file.keys() - _FILE_KEYS):
        raise _UndecidedError(f"The owner of a scope may not set '{unknown[0][:100]}' of a replica.")
    state = file.get('state')
    if not isinstance(state, (str, type(None))) or state not in rule.states:
        raise _UndecidedError('The owner of a scope may only add replicas in the states A and C, and set A.')
    return str(file['scope'])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """:raises ValueError: if a key is there twice: which one is meant depends on who reads it."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError('a key is there twice')
    return found
