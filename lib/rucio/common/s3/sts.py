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

"""A storage's Security Token Service: keys that end, for a role."""

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
from .errors import said, status_of
from .secrecy import need_private

if TYPE_CHECKING:
    import botocore.session

    from .endpoint import Endpoint

__all__ = ['STS_BY_HTTPS', 'TemporaryKeys', 'assume_role', 'assume_role_with_web_identity', 'client', 'refusal']


@dataclass(frozen=True)
class TemporaryKeys:
    """Keys and when they end (UTC)."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expiration: datetime


_KEYS = "Check the Rucio server's keys for this RSE (its rse-accounts.cfg)."
_LOGIN = 'Log in again; if that does not help, the storage does not trust the issuer of the token: tell its operator.'

# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html, and what Ceph, MinIO and SeaweedFS answer.
_REMEDIES = {
    'AccessDenied': (
        "Check the setting role_arn, that the role's trust policy lets these keys or tokens assume it "
        '(sts:AssumeRole), and the keys themselves.'
    ),
    'NoSuchEntity': 'There is no such role: check the setting role_arn, or make the role.',
    'ExpiredToken': _LOGIN,
    'ExpiredTokenException': _LOGIN,
    'InvalidIdentityToken': _LOGIN,
    'IDPRejectedClaim': _LOGIN,
    'InvalidParameterValue': _LOGIN,  # SeaweedFS
    'InvalidAccessKeyId': _KEYS,
    'InvalidClientTokenId': _KEYS,
    'SignatureDoesNotMatch': _KEYS,
    'ValidationError': (
        'The role may allow less time than the setting credentials_lifetime: compare with its longest session duration.'
    ),
    'MalformedPolicyDocument': 'The storage does not take the session policy: report it.',
    'PackedPolicyTooLarge': 'Use a shorter name.',
    'RegionDisabledException': "Set the RSE's 's3' setting 'sts_endpoint' to a region whose STS is enabled.",
    'NotImplemented': (
        "There is no STS at this address: set 'sts_endpoint', or take role_arn out of the RSE's settings."
    ),
}
_S3_ERROR = re.compile(rb'\s*(?:<\?xml[^>]*\?>)?\s*(<Error>.*</Error>)\s*', re.DOTALL)
STS_BY_HTTPS = "Set the RSE's 's3' setting 'sts_endpoint' to an https URL."
_NO_STS = "Check the RSE's 's3' setting 'sts_endpoint', and that the STS is up."


def client(endpoint: 'Endpoint', session: 'botocore.session.Session', region: str, patience: Patience = PERSON) -> Any:
    """A client of the storage's STS, authorised by a session, with the settings of the storage.

    :param patience: How long it waits and how often it tries, where the settings do not say.
    :raises ConfigurationError: if the STS is not reached by https.
    """
    need_private(endpoint.sts_url, f'RSE {endpoint.rse}: the keys that its STS gives', STS_BY_HTTPS)
    config = Config(signature_version='v4')
    made: Any = factory.client(
        'sts',
        session,
        endpoint.sts_url,
        region=region,
        ca_bundle=endpoint.ca_bundle,
        patience=endpoint.patience(patience),
        config=config,
    )
    botocore_internals.before_parsing(made, 'sts', _as_an_sts_error)
    return made


def assume_role(endpoint: 'Endpoint', sts: Any, role: str, name: str, policy: str, seconds: int) -> TemporaryKeys:
    """Keys for a role, limited by a session policy: one request.

    :param sts: What :func:`client` gives.
    :param name: Who they are for; the storage's logs show it.
    :param policy: The session policy, compact JSON.
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
    """The same for who brings an OIDC token: one request, without keys."""
    with _translated(endpoint, role):
        return _keys(
            endpoint,
            sts.assume_role_with_web_identity(
                RoleArn=role, RoleSessionName=name, WebIdentityToken=token, DurationSeconds=seconds
            ),
        )


def refusal(call: Callable[..., Any], **parameters: Any) -> Optional[str]:
    """The code of the error with which an STS refuses a call; None if it does not refuse it. One request.

    :param call: A method of what :func:`client` gives.
    :param parameters: Its parameters.
    :returns: Such as ``AccessDenied``; the name of the exception where there was no answer, or none that can be read.
    """
    try:
        call(**parameters)
    except boto.ClientError as error:
        return str(error.response.get('Error', {}).get('Code') or status_of(error))
    except Exception as error:  # noqa: BLE001 - whatever else a storage answers is no refusal; botocore's parser has exceptions of its own
        return type(error).__name__
    return None


def _keys(endpoint: 'Endpoint', answer: Any) -> TemporaryKeys:
    """:raises ServiceUnavailable: if these are no keys: a line feed in one would be a line of its own in the files of
    tools.
    """
    who = f'RSE {endpoint.rse}: the STS at {endpoint.sts_url}'
    keys = answer.get('Credentials') or {}
    ends = keys.get('Expiration')
    if not isinstance(ends, datetime):
        raise ServiceUnavailable(
            f'{who} answered with keys, but not with when they end: tell the operator of the storage.'
        )
    return TemporaryKeys(
        access_key=checked(who, 'access_key', keys.get('AccessKeyId')),
        secret_key=checked(who, 'secret_key', keys.get('SecretAccessKey')),
        session_token=checked(who, 'session_token', keys.get('SessionToken')),
        expiration=ends.astimezone(timezone.utc),
    )


def _as_an_sts_error(response: dict[str, Any]) -> None:
    """Ceph's STS answers errors as S3 has them, and so does SeaweedFS where keys are wrong: botocore would read no code
    there.
    """
    if response['status_code'] >= 300 and (found := _S3_ERROR.fullmatch(response['body'])):
        response['body'] = b'<ErrorResponse>' + found[1] + b'</ErrorResponse>'


@contextmanager
def _translated(endpoint: 'Endpoint', role: str) -> Iterator[None]:
    try:
        yield
    except (boto.ClientError, boto.BotoCoreError) as error:
        kind, remedy = _judged(error)
        # Without its cause: what a storage answers to a token or a policy is for nobody's log.
        raise kind(
            f"RSE {endpoint.rse}: no keys for the role '{role}' from {endpoint.sts_url}: {said(error)} {remedy}"
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
