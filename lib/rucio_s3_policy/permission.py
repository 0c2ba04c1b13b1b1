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

"""Rucio's generic permissions; in addition, the owner of a scope may add and confirm its replicas on S3 RSEs.

Before the replicas of a request are added or updated, Rucio asks this module, but does not pass them. They are read
from where the REST endpoint reads them: the body of the request. What cannot be decided is left to the generic
permissions, which refuse it.

Rucio also adds replicas when files are attached to a dataset with an RSE, and only checks who owns the dataset. Whoever
could add a replica with any name, or at any path, could have its object deleted by a rule that ends. So the same
conditions apply there.

Rucio 39 and 40 take the account that wants a signed URL from a header, which anybody can set: here, it has to be that
of the token.
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
    """The method and the states of one of the two requests that an upload sends."""

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
    """The owner of a scope may not do this; the message has the reason."""


def has_permission(
    issuer: 'InternalAccount', action: str, kwargs: dict[str, Any], session: 'Session'
) -> 'Union[bool, PermissionResult]':
    """Return whether an account may execute an action.

    One query for the RSE and one for each scope in the request, for accounts that the generic permissions refuse.

    :param issuer: The account.
    :param action: The name of the action, as in :mod:`rucio.core.permission`.
    :param kwargs: The arguments of the action.
    :param session: The session of the database.
    :returns: Whether it may; a refusal by this module has the reason.
    """
    # Never None: with several VOs, Rucio would then use the permissions of a single one, which let its admin add VOs.
    allowed: bool = _base.has_permission(issuer, action, kwargs, session=session)
    if action == 'get_signed_url' and allowed:
        return _answer(lambda: _asks_itself(issuer))
    if action in _ATTACHING:
        return _answer(lambda: _attaches(issuer, action, kwargs, session)) if allowed else False
    # The generic permissions let everybody add replicas to RSEs whose names end in USERDISK and the like.
    if action not in _RULES or (allowed and (action != 'add_replicas' or not _is_others(issuer, kwargs, session))):
        return allowed
    return _answer(lambda: _adds(issuer, _RULES[action], kwargs, session))


def _answer(decide: 'Callable[[], bool]') -> 'Union[bool, PermissionResult]':
    """Return the decision, or a refusal with its reason."""
    from rucio.core.permission import PermissionResult  # noqa: PLC0415 - imports this module

    try:
        return decide()
    except _UndecidedError as error:
        return PermissionResult(False, str(error))


def _asks_itself(issuer: 'InternalAccount') -> bool:
    """Return True if the current request, if any, has a token of this account.

    :raises _UndecidedError: if it has not.
    """
    if flask.has_request_context():
        _need_issuer(flask.request, issuer)
    return True


def _need_issuer(request: flask.Request, issuer: 'InternalAccount') -> None:
    if (request.environ.get('issuer'), request.environ.get('vo')) != (issuer.external, issuer.vo):
        raise _UndecidedError('The request is of another account.')


def _is_others(issuer: 'InternalAccount', kwargs: dict[str, Any], session: 'Session') -> bool:
    """Return whether the action is on an S3 RSE, and the account is not an admin."""
    return not _is_admin(issuer, session) and _s3_rse(models.RSE.id == kwargs.get('rse_id'), session) is not None


def _is_admin(issuer: 'InternalAccount', session: 'Session') -> bool:
    return issuer.external == 'root' or bool(has_account_attribute(account=issuer, key='admin', session=session))


def _adds(issuer: 'InternalAccount', rule: _Rule, kwargs: dict[str, Any], session: 'Session') -> bool:
    """Return whether the replicas in the request may be added or updated.

    :raises _UndecidedError: if this account may not do it.
    """
    named = (models.RSE.id == kwargs.get('rse_id'), models.RSE.rse == kwargs.get('rse'), models.RSE.vo == issuer.vo)
    if not _s3_rse(and_(*named), session):
        return False
    _need_scopes(issuer, _scopes_of_request(issuer, rule, kwargs['rse']), session)
    return True


def _attaches(issuer: 'InternalAccount', action: str, kwargs: dict[str, Any], session: 'Session') -> bool:
    """Return whether files may be attached.

    :raises _UndecidedError: if it would add replicas on an S3 RSE that this account may not add.
    """
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
            raise _UndecidedError('Whoever adds a replica to this RSE sets its path: only an admin may do that.')
        _need_scopes(
            issuer, dict.fromkeys(_scope_of_file(file, _RULES['add_replicas']) for file in each['dids']), session
        )
    return True


def _attachments(action: str, kwargs: dict[str, Any]) -> list[Any]:
    """Return the attachments of an action: objects with ``dids`` and perhaps ``rse``."""
    if action == 'attach_dids':
        return [kwargs['attachment']]
    if action != 'add_did':
        return list(kwargs['attachments' if action == 'attach_dids_to_dids' else 'dids'])
    # Rucio does not pass the attachments. The endpoint refuses a body that cannot be parsed.
    try:
        body = json.loads(flask.request.get_data(as_text=True)) if flask.has_request_context() else None
    except (ValueError, RecursionError):
        body = None
    return [body]


def _need_scopes(issuer: 'InternalAccount', scopes: 'Iterable[str]', session: 'Session') -> None:
    """Check that an account owns scopes.

    :raises _UndecidedError: if one of them belongs to another account.
    """
    for scope in scopes:
        if not is_scope_owner(scope=InternalScope(scope, vo=issuer.vo), account=issuer, session=session):
            raise _UndecidedError(f"The scope '{scope[:100]}' is not yours.")


def _base_module() -> 'ModuleType':
    """Return the module with the permissions that Rucio would use without this package."""
    name = 'generic'
    if config_get_bool('common', 'multi_vo', default=False, check_config_table=False):
        name = 'generic_multi_vo'
    elif get_policy() != DEFAULT_VO:
        name = get_policy().lower()
    return importlib.import_module(f'rucio.core.permission.{name}')


_base = _base_module()


def _s3_rse(which: Any, session: 'Session') -> Optional[bool]:
    """Return whether an S3 RSE is deterministic; None: none of its protocols is one of ours. One query.

    On a non-deterministic RSE, the client sets the path of a file: it could be an object of another scope, which would
    then be deleted.

    :param which: The SQL condition for the RSE; if several match, all must be deterministic.
    """
    stmt = (
        select(models.RSEProtocol.impl, models.RSE.deterministic)
        .join(models.RSE, models.RSE.id == models.RSEProtocol.rse_id)
        .where(which)
    )
    found = [bool(row.deterministic) for row in session.execute(stmt) if row.impl.startswith(IMPL)]
    return all(found) if found else None


def _scopes_of_request(issuer: 'InternalAccount', rule: _Rule, rse: str) -> list[str]:
    """Return the scopes of all files in the body of the current request, as the endpoint reads it.

    :raises _UndecidedError: if it is not a request that an upload sends.
    """
    request = flask.request if flask.has_request_context() else None
    if request is None or request.endpoint != _ENDPOINT or request.method != rule.method:
        raise _UndecidedError('The owner of a scope may do this only with a request to /replicas.')
    _need_issuer(request, issuer)
    body = request.get_data(as_text=True)
    if len(body) > _MAX_BODY:
        raise _UndecidedError(f'The request has more than {_MAX_BODY} characters: send fewer files at once.')
    try:
        parameters = json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise _UndecidedError('The body of the request is not JSON, or repeats a key.') from None
    if not isinstance(parameters, dict) or parameters.get('rse') != rse:
        raise _UndecidedError('The body of the request names another RSE.')
    files = parameters.get('files')
    if not isinstance(files, list) or not files:
        raise _UndecidedError('The request has no files.')
    # In their order, without duplicates.
    return list(dict.fromkeys(_scope_of_file(file, rule) for file in files))


def _scope_of_file(file: Any, rule: _Rule) -> str:
    """Return the scope of a file in a request.

    :raises _UndecidedError: if the file has values that an upload does not send.
    """
    if not isinstance(file, dict) or not isinstance(file.get('scope'), str) or not isinstance(file.get('name'), str):
        raise _UndecidedError('A file has no scope or no name.')
    if leaves_directory(file['name']):
        raise _UndecidedError(
            'A name may not have . or .. between slashes, nor begin with //: it would leave the directory into which '
            'it is downloaded.'
        )
    # Rucio would accept a path or an account unchecked.
    if unknown := sorted(file.keys() - _FILE_KEYS):
        raise _UndecidedError(f"The owner of a scope may not set '{unknown[0][:100]}' of a replica.")
    state = file.get('state')
    if not isinstance(state, (str, type(None))) or state not in rule.states:
        raise _UndecidedError('The owner of a scope may only add replicas in the states A and C, and set A.')
    return str(file['scope'])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse repeated keys in JSON objects, which parsers interpret differently.

    :raises ValueError: if a key is repeated.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError('a key is repeated')
    return found
