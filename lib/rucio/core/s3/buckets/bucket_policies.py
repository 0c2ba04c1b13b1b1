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

"""The storages' own policies of buckets: which ones are let through, and those that `rucio s3 share --public` writes.

A Deny also holds for the Rucio server, and Ceph and SeaweedFS then refuse it the removal of the policy, too. So owners
may allow, and only to read: everything that is not known to do just that is refused. Admins may set what the storage
takes, except for a Deny that could match the server.

Nothing here takes a database session. What makes requests to a storage says how many.
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
from rucio.common.s3.endpoint import SERVER
from rucio.common.s3.errors import Target, status_of, translated

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from collections.abc import Set as AbstractSet

    from rucio.core.s3.storages import Storage

__all__ = [
    'change',
    'check',
    'dangers',
    'get',
    'lift',
    'locked_out',
    'public_prefixes',
    'remove',
    'set_public',
    'set_public_prefixes',
    'unpublish',
    'warnings',
]

MAX_BYTES = 20 * 1024  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-policies.html
# What an owner may let others do. GetObjectTagging: `aws s3 cp` from bucket to bucket asks for it.
OWNER_ACTIONS = ('s3:GetObject', 's3:GetObjectTagging', 's3:ListBucket', 's3:GetBucketLocation')

_VERSION = '2012-10-17'
_DOCUMENT = {'Version', 'Id', 'Statement'}
_STATEMENT = {'Sid', 'Effect', 'Principal', 'Action', 'Resource'}
_PUBLIC = 'RucioPublic'  # how the Sid of a statement of `rucio s3 share --public` begins
_PRINCIPAL = re.compile(
    r'arn:aws(-cn|-us-gov)?:iam::[A-Za-z0-9_-]*:(user|role)/([A-Za-z0-9_+=,.@-]+/)*(?P<name>[A-Za-z0-9_+=,.@-]+)'
)
_RESOURCE = re.compile(r'arn:aws(-cn|-us-gov)?:s3:::(?P<bucket>[^/*?$]+)(/(?P<key>[^*?$]*)\*?)?')


# What may be set


def check(
    policy: Any, bucket: str, admin: bool, own: 'AbstractSet[str]' = frozenset(), kept: 'Sequence[Any]' = ()
) -> list[dict[str, Any]]:
    """The statements of a policy, if it may be set for a bucket. No request.

    :param policy: What was asked for.
    :param bucket: The bucket.
    :param admin: Whether an admin asks for it, or else the owner of the bucket's scope.
    :param own: Names of the server's own identities at the storage, in lower case.
    :param kept: Statements that stay anyway: they may be in the policy, and are left out of the result.
    :raises InvalidObject: if it may not be set; the message says what could be.
    """
    stays = [_plain(each) for each in kept]
    statements = [each for each in _statements(policy) if _plain(each) not in stays]
    for each in statements:
        _check_statement(each, bucket, admin, own)
    return statements


def _statements(policy: Any) -> list[dict[str, Any]]:
    """:raises InvalidObject: if it does not have the form of a policy."""
    if not isinstance(policy, dict) or len(json.dumps(policy)) > MAX_BYTES:
        _refuse(f'it has to be a JSON object of at most {MAX_BYTES} bytes')
    if more := set(policy) - _DOCUMENT:
        _refuse(f"it has the element '{_short(min(more))}'; a policy has Version, Id and Statement")
    if policy.get('Version') != _VERSION or not isinstance(policy.get('Id', ''), str):
        _refuse(f"its Version has to be '{_VERSION}', and its Id text")
    statements = _as_list(policy.get('Statement'))
    if not statements or not all(isinstance(each, dict) for each in statements):
        _refuse('its Statement has to be a list of objects')
    return statements


def _check_statement(statement: dict[str, Any], bucket: str, admin: bool, own: 'AbstractSet[str]') -> None:
    if not isinstance(statement.get('Sid', ''), str) or _is_public(statement):
        _refuse(f"a Sid has to be text that does not begin with '{_PUBLIC}', as those of `rucio s3 share --public` do")
    if statement.get('Effect') not in ('Allow', 'Deny'):
        _refuse("the Effect of a statement has to be 'Allow' or 'Deny'")
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
                f"only an admin may set the action '{_short(action)}'. Owners can allow {', '.join(OWNER_ACTIONS)}, "
                'spelled like this'
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
    """Whoever denies has to say to whom: what is denied to all others, or to a whole account, is denied
    to the server.
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
            _refuse(f"'{_short(each)}' is an identity of the Rucio server itself. Name the one who shall be let in")


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
        _refuse(f"'{name}' has to be text or a list of texts, and not to be empty")
    return values


def warnings(policy: Any) -> list[str]:
    """What in a policy that is there already may keep the Rucio server out: nobody may set this here, but other tools
    can. No request.
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
                    f'The policy of the bucket denies {_short(actions)} to the Rucio server, too: have an admin remove '
                    'it (rucio s3 policy SCOPE --remove).'
                )
    return found


# What is set


def dangers(storage: 'Storage', bucket: str) -> list[str]:
    """What in the policy of a bucket may keep the Rucio server out, as far as the storage tells: one request."""
    try:
        return warnings(get(storage, bucket))
    except UnsupportedOperation as error:
        return [str(error.args[0])]
    except RucioException:  # it has no policies
        return []


def get(storage: 'Storage', bucket: str) -> Optional[dict[str, Any]]:
    """The storage's own policy of a bucket, or None: one request.

    :raises UnsupportedOperation: if the storage does not let the server see it.
    :raises ServiceUnavailable: if the storage does not answer, or with something else.
    """
    try:
        with translated('policy', Target(storage.rse, bucket)):
            text = storage.connection(SERVER).client.get_bucket_policy(Bucket=bucket)['Policy']
    except RSEAccessDenied as error:
        _refuse_if_locked(storage, bucket, error)
    except SourceNotFound:
        return None
    try:
        policy = json.loads(text)
    except (ValueError, RecursionError):
        raise ServiceUnavailable(
            f"RSE {storage.rse}: what the storage gives as the policy of bucket '{bucket}' is no JSON."
        ) from None
    return policy if isinstance(policy, dict) and policy else None


def _put(storage: 'Storage', bucket: str, policy: Optional[dict[str, Any]]) -> None:
    """Set it, or with None delete it: one request.

    :raises InvalidObject: if the storage does not take it.
    :raises UnsupportedOperation: if the storage does not let the server do so.
    """
    client = storage.connection(SERVER).client
    try:
        with translated('policy', Target(storage.rse, bucket)):
            try:
                if policy is None:
                    client.delete_bucket_policy(Bucket=bucket)
                else:
                    # Ceph wants it compact.
                    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy, separators=(',', ':')))
            except ClientError as error:
                said = error.response.get('Error', {})
                if status_of(error) == 400:
                    raise InvalidObject(
                        f"RSE {storage.rse}: the storage does not take this policy for the bucket '{bucket}': "
                        f'{said.get("Message")}'
                    ) from None
                if said.get('Code') != 'NoSuchBucketPolicy':
                    raise
    except RSEAccessDenied as error:
        _refuse_if_locked(storage, bucket, error)


def change(storage: 'Storage', bucket: str, policy: Any, admin: bool) -> dict[str, Any]:
    """Set a policy in place of the one that there is, except for what `rucio s3 share --public` gave. Up to
    four requests.

    :returns: What is set now.
    :raises InvalidObject: if this may not be set, or the storage does not take it.
    :raises AccessDenied: if an admin's Deny would get lost.
    """
    current = _as_list((get(storage, bucket) or {}).get('Statement'))
    public = [each for each in current if _is_public(each)]
    # Who reads the policy, changes it and sets it has these in it.
    statements = check(policy, bucket, admin, _own_names(storage), public)
    _keep_denials(current, admin)
    new = {**policy, 'Statement': [*statements, *public]}
    _put(storage, bucket, new)
    return new


def remove(storage: 'Storage', bucket: str, admin: bool) -> Optional[dict[str, Any]]:
    """Remove a policy, except for what `rucio s3 share --public` gave. Two requests.

    :returns: What is left.
    :raises AccessDenied: if it has a Deny, for others than admins.
    """
    try:
        current = _as_list((get(storage, bucket) or {}).get('Statement'))
    except UnsupportedOperation:
        if not admin:
            raise
        current = []  # Who may not read it may still be allowed to remove it.
    _keep_denials(current, admin)
    public = [each for each in current if _is_public(each)]
    left = {'Version': _VERSION, 'Statement': public} if public else None
    _put(storage, bucket, left)
    return left


def lift(storage: 'Storage', bucket: str) -> None:
    """Take all of a policy away that keeps the server out of its own bucket. One request.

    :raises UnsupportedOperation: if the storage refuses this, too.
    """
    _put(storage, bucket, None)


def _keep_denials(current: list[Any], admin: bool) -> None:
    if not admin and any(isinstance(each, dict) and each.get('Effect') != 'Allow' for each in current):
        raise AccessDenied("The policy of the bucket has a 'Deny' in it: only an admin may change or remove it.")


def _plain(statement: Any) -> Any:
    """A statement in one form: storages make lists of texts and texts of lists."""
    if not isinstance(statement, dict):
        return statement
    plain = {key: sorted(map(str, _as_list(value))) for key, value in statement.items() if key != 'Principal'}
    principal = statement.get('Principal')
    return {
        **plain,
        'Principal': {key: _as_list(value) for key, value in principal.items()}
        if isinstance(principal, dict)
        else principal,
    }


def _own_names(storage: 'Storage') -> frozenset[str]:
    """Names that the server has at the storage, in lower case, as far as it tells: two requests."""
    names = {
        str(arn).rpartition('/')[2]
        for arn in (storage.endpoint.role_arn, storage.endpoint.web_identity_role_arn)
        if arn
    }
    connection = storage.connection(SERVER)
    with suppress(ClientError, BotoCoreError):
        owner = connection.client.list_buckets(MaxBuckets=1).get('Owner', {})
        names |= {str(owner[key]) for key in ('ID', 'DisplayName') if owner.get(key)}
    if storage.endpoint.role_arn:  # it has an STS
        with suppress(ClientError, BotoCoreError):
            client = sts.client(storage.endpoint, connection.authorizer.session(), storage.region, SERVER)
            kind, *path = str(client.get_caller_identity()['Arn']).rpartition(':')[2].split('/')
            names |= set(path) if kind == 'assumed-role' else set(path[-1:])
    return frozenset(each.lower() for each in names)


# A policy that keeps the server out


def locked_out(storage: 'Storage', bucket: str) -> UnsupportedOperation:
    """What to say, and what the storage's operator can do, when the server may not enter its own bucket."""
    return UnsupportedOperation(
        f"RSE {storage.rse}: the storage refuses the Rucio server the bucket '{bucket}', as the bucket's policy denies "
        "it, or it is somebody else's. " + storage.endpoint.unlock.replace('BUCKET', bucket)
    )


def _refuse_if_locked(storage: 'Storage', bucket: str, error: RSEAccessDenied) -> NoReturn:
    """Keys that are wrong are another matter."""
    cause: Any = error.__cause__
    code = cause.response.get('Error', {}).get('Code') if isinstance(cause, ClientError) else None
    raise (locked_out(storage, bucket) if code in ('AccessDenied', '403') else error) from None


# Everybody


def _is_public(statement: Any) -> bool:
    return isinstance(statement, dict) and str(statement.get('Sid', '')).lower().startswith(_PUBLIC.lower())


def set_public(storage: 'Storage', scope: str, name: str, public: bool) -> None:
    """Let everybody, also without an account, read the objects below a collection, or no longer. Two requests; the rest
    of the policy stays.
    """
    bucket, prefix = storage.layout.place_of(scope, f'{name}/')
    policy = get(storage, bucket)
    if public:
        set_public_prefixes(storage, bucket, policy, add=[prefix])
    elif _sid_of(prefix) in public_prefixes(policy, bucket):
        set_public_prefixes(storage, bucket, policy, drop=[_sid_of(prefix)])


def public_prefixes(policy: Any, bucket: str) -> dict[str, str]:
    """What `rucio s3 share --public` gave: the Sid of each statement, and the prefix of the keys that everybody may
    read; empty where it cannot be told. No request.
    """
    found = {}
    for each in _as_list(policy.get('Statement')) if isinstance(policy, dict) else []:
        if _is_public(each):
            resources = [str(resource) for resource in _as_list(each.get('Resource'))]
            literal = resources[0].removeprefix(f'arn:aws:s3:::{bucket}/').removesuffix('*') if resources else ''
            prefix = re.sub(r'\$\{([$*?])\}', r'\1', literal)
            found[each['Sid']] = prefix if len(resources) == 1 and _sid_of(prefix) == each['Sid'] else ''
    return found


def set_public_prefixes(
    storage: 'Storage',
    bucket: str,
    policy: Optional[dict[str, Any]],
    add: 'Collection[str]' = (),
    drop: 'Collection[str]' = (),
) -> None:
    """Set a policy that was read a moment ago, and let everybody read more or less. One request.

    :param add: Prefixes of keys that everybody may read.
    :param drop: Sids of statements that have to go.
    """
    policy = policy or {'Version': _VERSION, 'Statement': []}
    gone = {*drop, *map(_sid_of, add)}
    kept = [
        each for each in _as_list(policy.get('Statement')) if not (isinstance(each, dict) and each.get('Sid') in gone)
    ]
    statements = kept + [_public_statement(bucket, prefix) for prefix in add]
    _put(storage, bucket, {**policy, 'Statement': statements} if statements else None)


def _sid_of(prefix: str) -> str:
    return f'{_PUBLIC}{hashlib.sha256(prefix.encode()).hexdigest()[:16]}'


def _public_statement(bucket: str, prefix: str) -> dict[str, Any]:
    literal = re.sub(r'[$*?]', lambda found: f'${{{found[0]}}}', prefix)
    return {
        'Sid': _sid_of(prefix),
        'Effect': 'Allow',
        'Principal': {'AWS': ['*']},
        'Action': ['s3:GetObject'],
        'Resource': [f'arn:aws:s3:::{bucket}/{literal}*'],
    }


def unpublish(storage: 'Storage', scope: str, name: str) -> None:
    """Take a collection out of the bucket's policy: what is there shall not be public. No bucket, no policies or no
    place there: it is not.
    """
    with suppress(SourceNotFound, DestinationNotAccessible, RSEOperationNotSupported, RSEFileNameNotSupported):
        set_public(storage, scope, name, False)
