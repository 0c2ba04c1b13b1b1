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

"""Get temporary keys for a role from the Security Token Service of a storage."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Optional

import botocore.exceptions as boto
from botocore.config import Config

from rucio.common.exception import (
    InputValidationError,
    ResourceTemporaryUnavailable,
    RSEAccessDenied,
    RucioException,
    ServiceUnavailable,
)

from . import botocore_internals, factory
from .answers import checked
from .endpoint import PERSON, Patience
from .errors import describe, ids_of, status_of
from .secrecy import need_private

if TYPE_CHECKING:
    import botocore.session

    from .endpoint import Endpoint

__all__ = ['STS_BY_HTTPS', 'TemporaryKeys', 'assume_role', 'assume_role_with_web_identity', 'client', 'refusal']


@dataclass(frozen=True)
class TemporaryKeys:
    """Keys, and when they expire (UTC)."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expiration: datetime


_KEYS = "Check the Rucio server's keys for this RSE (its rse-accounts.cfg)."
_LOGIN = 'Log in again; if that does not help, the storage does not trust the issuer of the token: tell its operator.'

# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html, and the errors of Ceph, MinIO and SeaweedFS.
_REMEDIES = {
    'AccessDenied': (
        "Check the setting role_arn, that the role's trust policy allows these keys or tokens to assume it "
        '(sts:AssumeRole), and the keys themselves.'
    ),
    'NoSuchEntity': 'There is no such role: check the setting role_arn, or create the role.',
    'ExpiredToken': _LOGIN,
    'ExpiredTokenException': _LOGIN,
    'InvalidIdentityToken': _LOGIN,
    'IDPRejectedClaim': _LOGIN,
    'InvalidParameterValue': _LOGIN,  # SeaweedFS
    'InvalidAccessKeyId': _KEYS,
    'InvalidClientTokenId': _KEYS,
    'SignatureDoesNotMatch': _KEYS,
    'ValidationError': (
        'The maximum session duration of the role may be less than the setting credentials_lifetime: compare them.'
    ),
    'MalformedPolicyDocument': 'The storage does not accept the session policy: report it.',
    'PackedPolicyTooLarge': 'Use a shorter name.',
    'RegionDisabledException': "Set the RSE's 's3' setting 'sts_endpoint' to a region whose STS is enabled.",
    'NotImplemented': (
        "There is no STS at this address: set 'sts_endpoint', or remove role_arn from the RSE's settings."
    ),
}
_S3_ERROR = re.compile(rb'\s*(?:<\?xml[^>]*\?>)?\s*(<Error>.*</Error>)\s*', re.DOTALL)
STS_BY_HTTPS = "Set the RSE's 's3' setting 'sts_endpoint' to an https URL."
_NO_STS = "Check the RSE's 's3' setting 'sts_endpoint', and that the STS is running."


def client(
    endpoint: 'Endpoint',
    session: 'botocore.session.Session',
    region: str,
    patience: Patience = PERSON,
    counted: bool = True,
) -> Any:
    """Make a client of the storage's STS, authorised by a session, with the settings of the storage.

    :param endpoint: The storage.
    :param session: The session.
    :param region: The region to sign for.
    :param patience: Time-outs and attempts, unless they are set.
    :param counted: Whether its requests are counted: not those that should be refused.
    :raises ConfigurationError: if the STS is not reached by https.
    """
    need_private(endpoint.sts_url, f'RSE {endpoint.rse}: the keys from its STS', STS_BY_HTTPS)
    config = Config(signature_version='v4')
    made: Any = factory.client(
        'sts',
        session,
        endpoint.sts_url,
        region=region,
        ca_bundle=endpoint.ca_bundle,
        patience=endpoint.patience(patience),
        config=config,
        rse=endpoint.observed if counted else None,
    )
    botocore_internals.before_parsing(made, 'sts', _as_an_sts_error)
    return made


def assume_role(endpoint: 'Endpoint', sts: Any, role: str, name: str, policy: str, seconds: int) -> TemporaryKeys:
    """Get keys for a role, limited by a session policy. One request.

    :param endpoint: The storage.
    :param sts: A client from :func:`client`.
    :param role: The ARN of the role.
    :param name: The name of the session, which the storage's logs show.
    :param policy: The session policy, compact JSON.
    :param seconds: The lifetime of the keys in seconds.
    :raises RSEAccessDenied: if the storage refuses.
    :raises ServiceUnavailable, ResourceTemporaryUnavailable: if it does not answer.
    """
    with _translated(endpoint, role):
        return _keys(
            endpoint, sts.assume_role(RoleArn=role, RoleSessionName=name, Policy=policy, DurationSeconds=seconds)
        )


def assume_role_with_web_identity(
    endpoint: 'Endpoint', sts: Any, role: str, name: str, token: str, seconds: int
) -> TemporaryKeys:
    """Get keys for a role with an OIDC token. One request, which needs no keys.

    :param endpoint: The storage.
    :param sts: A client from :func:`client`.
    :param role: The ARN of the role.
    :param name: The name of the session, which the storage's logs show.
    :param token: The token.
    :param seconds: The lifetime of the keys in seconds.
    :raises RSEAccessDenied: if the storage refuses.
    :raises ServiceUnavailable, ResourceTemporaryUnavailable: if it does not answer.
    """
    with _translated(endpoint, role):
        return _keys(
            endpoint,
            sts.assume_role_with_web_identity(
                RoleArn=role, RoleSessionName=name, WebIdentityToken=token, DurationSeconds=seconds
            ),
        )


def refusal(call: Callable[..., Any], **parameters: Any) -> Optional[str]:
    """Return the error code with which an STS refuses a call, or None if it does not. One request.

    :param call: A method of a client from :func:`client`.
    :param parameters: Its parameters.
    :returns: A code such as ``AccessDenied``; the name of the exception if there was no valid answer.
    """
    try:
        call(**parameters)
    except boto.ClientError as error:
        return str(error.response.get('Error', {}).get('Code') or status_of(error))
    except Exception as error:  # noqa: BLE001 - no other answer is a refusal, and botocore's parser may raise anything
        return type(error).__name__
    return None


def _keys(endpoint: 'Endpoint', answer: Any) -> TemporaryKeys:
    """Validate the keys of an answer: a line feed in one would add a line to the files of tools.

    :raises ServiceUnavailable: if they are invalid.
    """
    who = f'RSE {endpoint.rse}: the STS at {endpoint.sts_url}'
    keys = answer.get('Credentials') or {}
    ends = keys.get('Expiration')
    if not isinstance(ends, datetime):
        raise ServiceUnavailable(f'{who} returned keys without their expiration: tell the operator of the storage.')
    return TemporaryKeys(
        access_key=checked(who, 'access_key', keys.get('AccessKeyId')),
        secret_key=checked(who, 'secret_key', keys.get('SecretAccessKey')),
        session_token=checked(who, 'session_token', keys.get('SessionToken')),
        expiration=ends.astimezone(timezone.utc),
    )


def _as_an_sts_error(response: dict[str, Any]) -> None:
    """Convert an error in the format of S3, as Ceph's STS sends it, and SeaweedFS for wrong keys.

    botocore would find no code in it.
    """
    if response['status_code'] >= 300 and (found := _S3_ERROR.fullmatch(response['body'])):
        response['body'] = b'<ErrorResponse>' + found[1] + b'</ErrorResponse>'


@contextmanager
def _translated(endpoint: 'Endpoint', role: str) -> Iterator[None]:
    try:
        yield
    except (boto.ClientError, boto.BotoCoreError) as error:
        kind, remedy = _judged(error)
        # Without its cause: a storage's answer to a token or policy does not belong into a log.
        raise kind(
            f"RSE {endpoint.rse}: no keys for the role '{role}' from {endpoint.sts_url}: {describe(error)} {remedy}"
            f'{ids_of(error)}'
        ) from None


def _judged(error: Exception) -> tuple[type[RucioException], str]:
    if not isinstance(error, boto.ClientError):
        return (
            (InputValidationError, 'Check the setting role_arn.')
            if isinstance(error, boto.ParamValidationError)
            else (ServiceUnavailable, _NO_STS)
        )
    status = status_of(error)
    code = str(error.response.get('Error', {}).get('Code', ''))
    if status in (429, 503) or code in ('Throttling', 'ThrottlingException', 'SlowDown'):
        return ResourceTemporaryUnavailable, 'The storage is busy: try again later.'
    if status >= 500 and code not in _REMEDIES:
        return ServiceUnavailable, _NO_STS
    return RSEAccessDenied, _REMEDIES.get(code, _REMEDIES['AccessDenied'] if status == 403 else _NO_STS)
