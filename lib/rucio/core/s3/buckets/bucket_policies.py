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

"""Bucket policies on the storages: which ones may be set, and the statements that `rucio s3 share` writes.

A Deny also applies to the Rucio server, which Ceph and SeaweedFS then do not even let remove the policy. So owners can
only allow reading: everything else is refused. Admins can set everything that the storage accepts, except for a Deny
that could match the server.

No function here takes a database session. Each one documents how many requests it sends to a storage.
"""

import hashlib
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from botocore.exceptions import BotoCoreError, ClientError

from rucio.common.exception import (
    AccessDenied,
    DestinationNotAccessible,
    InvalidObject,
    RSEAccessDenied,
    RSEFileNameNotSupported,
    RSEOperationNotSupported,
    RucioException,
    ServiceUnavailable,
    SourceNotFound,
    UnsupportedOperation,
)
from rucio.common.s3 import sts
from rucio.common.s3.endpoint import SERVER_WORK
from rucio.common.s3.errors import Target, status_of, translated

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from contextlib import AbstractContextManager

    from rucio.core.s3.storages import Storage

__all__ = [
    'change',
    'check',
    'dangers',
    'get',
    'lift',
    'locked_out',
    'nothing_to_revoke',
    'public_prefixes',
    'remove',
    'set_public',
    'set_public_prefixes',
    'set_users',
    'unpublish',
    'user_prefixes',
    'warnings',
    'with_users',
]

MAX_BYTES = 20 * 1024  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-policies.html
# The actions that an owner may allow. `aws s3 cp` between buckets needs GetObjectTagging.
OWNER_ACTIONS = ('s3:GetObject', 's3:GetObjectTagging', 's3:ListBucket', 's3:GetBucketLocation')

_VERSION = '2012-10-17'
_DOCUMENT = {'Version', 'Id', 'Statement'}
_STATEMENT = {'Sid', 'Effect', 'Principal', 'Action', 'Resource'}
_PUBLIC = 'RucioPublic'  # prefix of the Sid of statements by `rucio s3 share --public`
_SHARED = 'RucioShared'  # ... by `rucio s3 share --with`, for users of the storage
_LIST = 'List'  # suffix of the Sid of the second statement of these
_PRINCIPAL = re.compile(
    r'arn:aws(-cn|-us-gov)?:iam::[A-Za-z0-9_-]*:(user|role)/([A-Za-z0-9_+=,.@-]+/)*(?P<name>[A-Za-z0-9_+=,.@-]+)'
)
_RESOURCE = re.compile(r'arn:aws(-cn|-us-gov)?:s3:::(?P<bucket>[^/*?$]+)(/(?P<key>[^*?$]*)\*?)?')


# Validation


def check(
    policy: Any, bucket: str, admin: bool, own: 'AbstractSet[str]' = frozenset(), kept: 'Sequence[Any]' = ()
) -> list[dict[str, Any]]:
    """Return the statements of a policy if it may be set for a bucket. No request.

    :param policy: The policy to set.
    :param bucket: The bucket.
    :param admin: Whether it is set by an admin; else, by the owner of the bucket's scope.
    :param own: Names of the server's own identities at the storage, in lower case.
    :param kept: Statements that are kept: they may be in the policy, and are left out of the result.
    :raises InvalidObject: if it may not be set; the message says what is allowed.
    """
    stays = [_plain(each) for each in kept]
    statements = [each for each in _statements(policy) if _plain(each) not in stays]
    for each in statements:
        _check_statement(each, bucket, admin, own)
    return statements


def _statements(policy: Any) -> list[dict[str, Any]]:
    """Return the statements of a policy.

    :raises InvalidObject: if it is malformed.
    """
    if not isinstance(policy, dict) or len(json.dumps(policy)) > MAX_BYTES:
        _refuse(f'it must be a JSON object of at most {MAX_BYTES} bytes')
    if more := set(policy) - _DOCUMENT:
        _refuse(f"it contains the element '{_short(min(more))}', but only Version, Id and Statement are allowed")
    if policy.get('Version') != _VERSION or not isinstance(policy.get('Id', ''), str):
        _refuse(f"its Version must be '{_VERSION}', and its Id a string")
    statements = _as_list(policy.get('Statement'))
    if not statements or not all(isinstance(each, dict) for each in statements):
        _refuse('its Statement must be a list of objects')
    return statements


def _check_statement(statement: dict[str, Any], bucket: str, admin: bool, own: 'AbstractSet[str]') -> None:
    if not isinstance(statement.get('Sid', ''), str) or _is_ours(statement):
        _refuse(
            f"a Sid must be a string that does not begin with '{_PUBLIC}' or '{_SHARED}', which `rucio s3 share` uses"
        )
    if statement.get('Effect') not in ('Allow', 'Deny'):
        _refuse("the Effect of a statement must be 'Allow' or 'Deny'")
    if not admin:
        _check_owners(statement, bucket, own)
    elif statement['Effect'] == 'Deny':
        _check_deny(statement, own)


def _check_owners(statement: dict[str, Any], bucket: str, own: 'AbstractSet[str]') -> None:
    if statement['Effect'] != 'Allow':
        _refuse("only an admin may set a 'Deny': it could lock out the Rucio server")
    if more := set(statement) - _STATEMENT:
        _refuse(f"only an admin may set a statement with '{_short(min(more))}'")
    for action in _texts(statement, 'Action'):
        if action not in OWNER_ACTIONS:
            _refuse(
                f"only an admin may set the action '{_short(action)}'. Owners can allow exactly "
                f'{", ".join(OWNER_ACTIONS)}'
            )
    for resource in _texts(statement, 'Resource'):
        found = _RESOURCE.fullmatch(resource)
        segments = (found['key'] or '').split('/') if found else []
        if found is None or found['bucket'] != bucket or not resource.isprintable() or {'.', '..'} & set(segments):
            _refuse(
                f"'{_short(resource)}' is not arn:aws:s3:::{bucket} or arn:aws:s3:::{bucket}/KEY, where '*' may be the "
                'last character of KEY'
            )
    _check_named(statement, own)


def _check_deny(statement: dict[str, Any], own: 'AbstractSet[str]') -> None:
    """Check a Deny, which must name its principals.

    Denied to all others, or to a whole account, it applies to the server.
    """
    if 'NotPrincipal' in statement or 'Principal' not in statement:
        _refuse("a 'Deny' needs a Principal that names users or roles: it could lock out the Rucio server")
    _check_named(statement, own)


def _check_named(statement: dict[str, Any], own: 'AbstractSet[str]') -> None:
    principal = statement.get('Principal')
    if not isinstance(principal, dict) or set(principal) != {'AWS'}:
        _refuse(f'{_named(principal)}. To let everybody read a collection, use: rucio s3 share SCOPE:NAME --public')
    for each in _texts(principal, 'AWS'):
        found = _PRINCIPAL.fullmatch(each)
        if found is None:
            _refuse(f'{_named(each)}. To let everybody read a collection, use: rucio s3 share SCOPE:NAME --public')
        if found['name'].lower() in own:
            _refuse(f"'{_short(each)}' is an identity of the Rucio server itself. Name the users or roles to allow")


def _named(principal: Any) -> str:
    wanted = '{"AWS": ["arn:aws:iam::ACCOUNT:user/NAME", ...]}'
    return f"the Principal '{_short(principal)}' is not {wanted} with the full names of users or roles"


def _refuse(why: str) -> NoReturn:
    raise InvalidObject(f'The policy is not set: {why}.')


def _short(value: Any) -> str:
    return ascii(value)[:100].strip("'")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _texts(of: dict[str, Any], name: str) -> list[str]:
    values = _as_list(of.get(name))
    if not values or not all(isinstance(each, str) for each in values):
        _refuse(f"'{name}' must be a string or a list of strings, and must not be empty")
    return values


def warnings(policy: Any) -> list[str]:
    """Return what may lock the Rucio server out in an existing policy, set by other tools. No request.

    :param policy: The policy, as the storage returns it.
    """
    statements = _as_list(policy.get('Statement')) if isinstance(policy, dict) else []
    found = []
    for each in statements:
        if isinstance(each, dict) and each.get('Effect') != 'Allow':
            try:
                _check_deny(each, frozenset())
            except InvalidObject:
                actions = ', '.join(str(action) for action in _as_list(each.get('Action'))) or 'other actions'
                found.append(
                    f'The policy of the bucket also denies {_short(actions)} to the Rucio server: ask an admin to '
                    'remove it (rucio s3 policy SCOPE --remove).'
                )
    return found


# Policies on the storage


def dangers(storage: 'Storage', bucket: str) -> list[str]:
    """Return what may lock the Rucio server out in the current policy of a bucket. One request."""
    try:
        return warnings(get(storage, bucket))
    except UnsupportedOperation as error:
        return [str(error.args[0])]
    except RucioException:  # it has no policies
        return []


def get(storage: 'Storage', bucket: str) -> Optional[dict[str, Any]]:
    """Return the policy of a bucket, or None. One request.

    :raises UnsupportedOperation: if the server has no permission to read it.
    :raises ServiceUnavailable: if the storage does not answer, or its answer is not a policy.
    """
    try:
        with translated('policy', Target(storage.rse, bucket)):
            text = storage.connection(SERVER_WORK).client.get_bucket_policy(Bucket=bucket)['Policy']
    except RSEAccessDenied as error:
        _refuse_if_locked(storage, bucket, error)
    except SourceNotFound:
        return None
    try:
        policy = json.loads(text)
    except (ValueError, RecursionError):
        raise ServiceUnavailable(
            f"RSE {storage.rse}: the policy of bucket '{bucket}' that the storage returned is not JSON."
        ) from None
    return policy if isinstance(policy, dict) and policy else None


def _put(storage: 'Storage', bucket: str, policy: Optional[dict[str, Any]]) -> None:
    """Set the policy of a bucket; None: delete it. One request.

    :raises InvalidObject: if the storage rejects the policy.
    :raises UnsupportedOperation: if the server has no permission to set it.
    """
    client = storage.connection(SERVER_WORK).client
    try:
        with translated('policy', Target(storage.rse, bucket)):
            try:
                if policy is None:
                    client.delete_bucket_policy(Bucket=bucket)
                else:
                    # Ceph requires compact JSON.
                    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy, separators=(',', ':')))
            except ClientError as error:
                said = error.response.get('Error', {})
                if status_of(error) == 400:
                    raise InvalidObject(
                        f"RSE {storage.rse}: the storage rejected this policy for the bucket '{bucket}': "
                        f'{said.get("Message")}'
                    ) from None
                if said.get('Code') != 'NoSuchBucketPolicy':
                    raise
    except RSEAccessDenied as error:
        _refuse_if_locked(storage, bucket, error)


def change(storage: 'Storage', bucket: str, policy: Any, admin: bool) -> dict[str, Any]:
    """Replace the policy of a bucket, but keep the statements of `rucio s3 share`. Up to four requests.

    :param policy: The new policy.
    :param admin: Whether the account is an admin, who may set more.
    :returns: The new policy.
    :raises InvalidObject: if the policy may not be set, or the storage rejects it.
    :raises AccessDenied: if it would remove a Deny that an admin has set.
    """
    current = _as_list((get(storage, bucket) or {}).get('Statement'))
    ours = [each for each in current if _is_ours(each)]
    # A policy that was read and changed contains these.
    statements = check(policy, bucket, admin, _own_names(storage), ours)
    _keep_denials(current, admin)
    new = {**policy, 'Statement': [*statements, *ours]}
    _put(storage, bucket, new)
    return new


def remove(storage: 'Storage', bucket: str, admin: bool) -> Optional[dict[str, Any]]:
    """Remove the policy of a bucket, but keep the statements of `rucio s3 share`. Two requests.

    :param admin: Whether the account is an admin, who may remove a Deny.
    :returns: The remaining policy.
    :raises AccessDenied: if it contains a Deny, and the account is not an admin.
    """
    try:
        current = _as_list((get(storage, bucket) or {}).get('Statement'))
    except UnsupportedOperation:
        if not admin:
            raise
        current = []  # Removing it may be allowed even if reading it is not.
    _keep_denials(current, admin)
    ours = [each for each in current if _is_ours(each)]
    left = {'Version': _VERSION, 'Statement': ours} if ours else None
    _put(storage, bucket, left)
    return left


def lift(storage: 'Storage', bucket: str) -> None:
    """Delete a policy that locks the server out of its own bucket. One request.

    :raises UnsupportedOperation: if the storage refuses this, too.
    """
    _put(storage, bucket, None)


def _keep_denials(current: list[Any], admin: bool) -> None:
    if not admin and any(isinstance(each, dict) and each.get('Effect') != 'Allow' for each in current):
        raise AccessDenied("The policy of the bucket contains a 'Deny': only an admin may change or remove it.")


def _plain(statement: dict[str, Any]) -> dict[str, Any]:
    """Return a normalised statement: storages turn strings into lists and lists into strings."""
    plain = {key: sorted(map(str, _as_list(value))) for key, value in statement.items()}
    principal = statement.get('Principal')
    return {
        **plain,
        'Principal': {key: _as_list(value) for key, value in principal.items()}
        if isinstance(principal, dict)
        else principal,
    }


def _own_names(storage: 'Storage') -> frozenset[str]:
    """Return the names of the server's identities at the storage, in lower case, as far as known. Two requests."""
    names = {
        str(arn).rpartition('/')[2]
        for arn in (storage.endpoint.role_arn, storage.endpoint.web_identity_role_arn)
        if arn
    }
    connection = storage.connection(SERVER_WORK)
    with suppress(ClientError, BotoCoreError):
        owner = connection.client.list_buckets(MaxBuckets=1).get('Owner', {})
        names |= {str(owner[key]) for key in ('ID', 'DisplayName') if owner.get(key)}
    if storage.endpoint.role_arn:  # the storage has an STS
        with suppress(ClientError, BotoCoreError):
            client = sts.client(storage.endpoint, connection.authorizer.session(), storage.region, SERVER_WORK)
            kind, *path = str(client.get_caller_identity()['Arn']).rpartition(':')[2].split('/')
            names |= set(path) if kind == 'assumed-role' else set(path[-1:])
    return frozenset(each.lower() for each in names)


# Policies that lock the server out


def locked_out(storage: 'Storage', bucket: str) -> UnsupportedOperation:
    """Return the exception for a bucket that the server may not access, and how its operator can solve it."""
    return UnsupportedOperation(
        f"RSE {storage.rse}: the storage denies the Rucio server access to the bucket '{bucket}': the policy of the "
        'bucket denies it, or the bucket belongs to another account. '
        + storage.endpoint.unlock.replace('BUCKET', bucket)
    )


def _refuse_if_locked(storage: 'Storage', bucket: str, error: RSEAccessDenied) -> NoReturn:
    """Raise :func:`locked_out` if access was denied, else the error itself, such as invalid keys."""
    cause: Any = error.__cause__
    code = cause.response.get('Error', {}).get('Code') if isinstance(cause, ClientError) else None
    raise (locked_out(storage, bucket) if code in ('AccessDenied', '403') else error) from None


# What is shared


def _is_ours(statement: Any) -> bool:
    sid = str(statement.get('Sid', '')).lower() if isinstance(statement, dict) else ''
    return sid.startswith((_PUBLIC.lower(), _SHARED.lower()))


def _is_public(statement: Any) -> bool:
    return isinstance(statement, dict) and str(statement.get('Sid', '')).lower().startswith(_PUBLIC.lower())


def set_public(storage: 'Storage', scope: str, name: str, public: bool) -> None:
    """Allow everybody, even without an account, to read the objects below a collection, or revoke it.

    Two requests; the rest of the policy is kept.

    :param public: True: allow it; False: revoke it.
    """
    bucket, prefix = storage.layout.place_of(scope, f'{name}/')
    policy = get(storage, bucket)
    if public:
        set_public_prefixes(storage, bucket, policy, add=[prefix])
    elif _sid_of(prefix) in public_prefixes(policy, bucket):
        set_public_prefixes(storage, bucket, policy, drop=[_sid_of(prefix)])


def public_prefixes(policy: Any, bucket: str) -> dict[str, str]:
    """Return the statements of `rucio s3 share --public`. No request.

    By Sid, the prefix of the keys that everybody may read; empty if it is unknown.

    :param policy: The policy, as the storage returns it.
    """
    found = {}
    for each in _as_list(policy.get('Statement')) if isinstance(policy, dict) else []:
        if _is_public(each):
            literals = [
                str(resource).removeprefix(f'arn:aws:s3:::{bucket}/').removesuffix('*')
                for resource in _as_list(each.get('Resource'))
            ]
            prefixes = [re.sub(r'\$\{([$*?])\}', r'\1', literal) for literal in literals]
            found[each['Sid']] = prefixes[0] if [_sid_of(prefix) for prefix in prefixes] == [each['Sid']] else ''
    return found


def set_public_prefixes(
    storage: 'Storage',
    bucket: str,
    policy: Optional[dict[str, Any]],
    add: 'Collection[str]' = (),
    drop: 'Collection[str]' = (),
    users: 'Optional[Mapping[str, Collection[str]]]' = None,
) -> None:
    """Update the public prefixes in a policy that was just read. One request.

    :param add: Key prefixes that everybody may read.
    :param drop: Sids of statements to remove.
    :param users: Key prefixes, and the ARNs of exactly those users who may read them.
    :param policy: The current policy, or None.
    """
    new = _replaced(policy, bucket, {*drop}, [_public_statement(bucket, prefix) for prefix in add])
    for prefix, named in (users or {}).items():
        new = with_users(new, bucket, prefix, named)
    _put(storage, bucket, new)


def _replaced(
    policy: Optional[dict[str, Any]], bucket: str, drop: set[str], add: list[dict[str, Any]]
) -> Optional[dict[str, Any]]:
    """Return a policy without some statements and with others; None if nothing is left.

    :raises InvalidObject: if it would be larger than storages allow.
    """
    policy = policy or {'Version': _VERSION}
    gone = drop | {each['Sid'] for each in add}
    kept = [
        each for each in _as_list(policy.get('Statement')) if not (isinstance(each, dict) and each.get('Sid') in gone)
    ]
    new = {**policy, 'Statement': kept + add}
    if add and len(json.dumps(new, separators=(',', ':')).encode()) > MAX_BYTES:
        raise InvalidObject(
            f"The policy of bucket '{bucket}' has no room left: it would be larger than {MAX_BYTES} bytes. Revoke what "
            'is no longer needed (rucio s3 ls --shared, rucio s3 unshare), or share a collection that contains several.'
        )
    return new if kept or add else None


def _sid_of(prefix: str) -> str:
    return f'{_PUBLIC}{hashlib.sha256(prefix.encode()).hexdigest()[:16]}'


def _public_statement(bucket: str, prefix: str) -> dict[str, Any]:
    return _statement(_sid_of(prefix), ['*'], 's3:GetObject', f'{bucket}/{_pattern(prefix)}')


def _statement(sid: str, principals: list[str], action: str, resource: str) -> dict[str, Any]:
    return {
        'Sid': sid,
        'Effect': 'Allow',
        'Principal': {'AWS': principals},
        'Action': [action],
        'Resource': [f'arn:aws:s3:::{resource}'],
    }


def _pattern(prefix: str) -> str:
    return re.sub(r'[$*?]', lambda found: f'${{{found[0]}}}', prefix) + '*'


def unpublish(storage: 'Storage', scope: str, name: str) -> None:
    """Remove a collection from the policy of its bucket, so that it is no longer public.

    Without a bucket or policies, it is not public anyway.
    """
    with nothing_to_revoke():
        set_public(storage, scope, name, False)


def nothing_to_revoke() -> 'AbstractContextManager[None]':
    """Ignore that there is no bucket, or that the storage has no policies: then nobody is let in by one."""
    return suppress(SourceNotFound, DestinationNotAccessible, RSEOperationNotSupported, RSEFileNameNotSupported)


# What users of the storage may read


def set_users(
    storage: 'Storage', bucket: str, policy: Optional[dict[str, Any]], prefix: str, users: 'Collection[str]'
) -> None:
    """Let exactly these users of the storage read and list the keys with a prefix, in a policy that was just read.

    One request; none if the policy says so already. The rest of the policy is kept.

    :param policy: The current policy, or None.
    :param users: Their ARNs.
    :raises InvalidObject: if the policy would be too large, or the storage rejects it.
    """
    new = with_users(policy, bucket, prefix, users)
    if new != policy:
        _put(storage, bucket, new)


def with_users(
    policy: Optional[dict[str, Any]], bucket: str, prefix: str, users: 'Collection[str]'
) -> Optional[dict[str, Any]]:
    """Return a policy in which exactly these users may read the keys with a prefix. No request.

    Never to write: on Ceph, an object that a user writes with keys of its own belongs to that user, and the server
    cannot read it. And neither account limits nor If-None-Match would be enforced.

    :param policy: The current policy, or None.
    :param users: Their ARNs.
    :returns: The same policy if it says so already; None: without statements.
    :raises InvalidObject: if it would be too large.
    """
    there = {sid for sid, found in user_prefixes(policy, bucket).items() if found == prefix}
    wanted = _user_statements(bucket, prefix, users) if users else []
    if there == {each['Sid'] for each in wanted}:
        return policy
    return _replaced(policy, bucket, there, wanted)


def user_prefixes(policy: Any, bucket: str) -> dict[str, str]:
    """Return the statements of `rucio s3 share` for users of the storage. No request.

    By Sid, the prefix of the keys that they may read or list; empty if somebody changed the statement.

    :param policy: The policy, as the storage returns it.
    """
    found = {}
    for each in _as_list(policy.get('Statement')) if isinstance(policy, dict) else []:
        if _is_ours(each) and not _is_public(each):
            prefix, users = _prefix_of(each, bucket), _users_of(each)
            good = map(_normal, _user_statements(bucket, prefix, users))
            found[str(each['Sid'])] = prefix if _normal(each) in good else ''
    return found


def _normal(value: Any) -> Any:
    """Return a statement, or a part of it, in one form: storages turn strings into lists and lists into strings."""
    if isinstance(value, dict):
        return {key: _normal(each) for key, each in value.items()}
    return sorted(map(str, _as_list(value)))


def _users_of(statement: dict[str, Any]) -> list[str]:
    principal = statement.get('Principal')
    return [str(each) for each in _as_list(principal.get('AWS'))] if isinstance(principal, dict) else []


def _prefix_of(statement: dict[str, Any], bucket: str) -> str:
    condition = statement.get('Condition')
    like = condition.get('StringLike') if isinstance(condition, dict) else None
    patterns = _as_list(like.get('s3:prefix') if isinstance(like, dict) else statement.get('Resource'))
    pattern = str(patterns[0]) if len(patterns) == 1 else ''
    literal = pattern.removeprefix(f'arn:aws:s3:::{bucket}/').removesuffix('*')
    return re.sub(r'\$\{([$*?])\}', r'\1', literal)


def _sid_of_users(prefix: str, users: 'Collection[str]') -> str:
    return f'{_SHARED}{hashlib.sha256(chr(10).join([prefix, *sorted(users)]).encode()).hexdigest()[:16]}'


def _user_statements(bucket: str, prefix: str, users: 'Collection[str]') -> list[dict[str, Any]]:
    sid, pattern, principals = _sid_of_users(prefix, users), _pattern(prefix), sorted(users)
    return [
        _statement(sid, principals, 's3:GetObject', f'{bucket}/{pattern}'),
        _statement(sid + _LIST, principals, 's3:ListBucket', bucket)
        | {'Condition': {'StringLike': {'s3:prefix': [pattern]}}},
    ]
