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

"""The view of the Security Token Service: AWS's call ``AssumeRoleWithWebIdentity``, with a Rucio token.

Tools that take AWS_ENDPOINT_URL_STS and AWS_WEB_IDENTITY_TOKEN_FILE need nothing of Rucio. Form and errors are those of
https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html. A token is only taken from the
body: URLs are in the access logs of servers and proxies.
"""

from typing import TYPE_CHECKING, Any, Optional, Union
from urllib.parse import parse_qsl
from xml.etree import ElementTree as ET

from flask import Response, request

from rucio.common import exception
from rucio.common.s3 import request_ids
from rucio.common.s3.answers import printable
from rucio.gateway import s3sts as gateway
from rucio.web.rest.flaskapi.v1.s3base import S3View

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

__all__ = ['STS']

ACTION = 'AssumeRoleWithWebIdentity'
VERSION = '2011-06-15'
MAX_BODY = 64 * 1024  # bytes
MAX_PARAMETERS = 20

# A parameter that would limit the keys must not be ignored; these have no meaning here.
_IGNORED = frozenset(
    {'RoleSessionName', 'WebIdentityRefreshToken', 'WebIdentityAccessToken', 'ProviderId', 'TokenRevokeType'}
)
_KNOWN = frozenset({'Action', 'Version', 'RoleArn', 'WebIdentityToken', 'DurationSeconds', *_IGNORED})
_NO_URL = f'Send {ACTION} by POST, with all parameters in its body: URLs are logged, and would show the token.'

# By Rucio's exception, else by the status that Rucio's own interface has for it.
_BY_NAME = {'ExpiredToken': 'ExpiredTokenException', 'CannotAuthenticate': 'InvalidIdentityToken'}
_CODES = {
    403: (403, 'AccessDenied'),
    429: (400, 'Throttling'),
    500: (500, 'InternalFailure'),
    501: (501, 'NotImplemented'),
    503: (503, 'ServiceUnavailable'),
}


class STS(S3View):
    """``AssumeRoleWithWebIdentity``."""

    operation = 'assume_role_with_web_identity'

    def get(self) -> 'ResponseReturnValue':
        """Refuse a query: it would be in the logs."""
        raise exception.InputValidationError(_NO_URL)

    def post(self) -> 'ResponseReturnValue':
        """Return keys for a token and a role."""
        asked = _parameters()
        for name in ('WebIdentityToken', 'RoleArn'):
            if not asked.get(name):
                raise exception.InputValidationError(f"'{name}' is missing.")
        issuer, vo = gateway.authenticate(asked['WebIdentityToken'])
        request.environ['issuer'], request.environ['vo'] = issuer, vo
        keys = gateway.assume_role(asked['RoleArn'], _seconds(asked.get('DurationSeconds')), issuer, vo)
        credentials = {
            'AccessKeyId': keys['access_key'],
            'SecretAccessKey': keys['secret_key'],
            'SessionToken': keys['session_token'],
            'Expiration': keys['expiration'],
        }
        return _xml(
            200,
            f'{ACTION}Response',
            {
                f'{ACTION}Result': {'Credentials': credentials, 'SubjectFromWebIdentityToken': issuer},
                'ResponseMetadata': {'RequestId': request_ids.current()},
            },
        )

    def refused(self, status: int, error: Union[str, BaseException], message: Optional[str]) -> Response:
        """Return an error as STS has it.

        :param status: The HTTP status in Rucio's own interface.
        :param error: The exception, or its name.
        :param message: Its message.
        """
        name = error if isinstance(error, str) else type(error).__name__
        status, code = (400, _BY_NAME[name]) if name in _BY_NAME else _CODES.get(status, (400, 'ValidationError'))
        kind = 'Sender' if status < 500 else 'Receiver'
        return _xml(
            status,
            'ErrorResponse',
            {
                'Error': {'Type': kind, 'Code': code, 'Message': printable(str(message))},
                'RequestId': request_ids.current(),
            },
        )


def _parameters() -> dict[str, str]:
    """Return the parameters in the body.

    :raises InputValidationError: if there are others, or the body is not a form.
    """
    if request.query_string:
        raise exception.InputValidationError(_NO_URL)
    if not request.content_length or request.content_length > MAX_BODY:
        raise exception.InputValidationError(
            f'The request must have a body of at most {MAX_BODY} bytes, and its length.'
        )
    try:
        pairs = parse_qsl(
            request.get_data().decode('ascii'),
            keep_blank_values=True,
            strict_parsing=True,
            errors='strict',
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:  # without it: it has the body
        raise exception.InputValidationError('The body is not a form.') from None
    asked = dict(pairs)
    if asked.get('Action') != ACTION or asked.get('Version', VERSION) != VERSION:
        raise exception.InputValidationError(
            f'The Action must be {ACTION} of Version {VERSION}: there is no other here.'
        )
    if unknown := sorted(asked.keys() - _KNOWN):
        raise exception.InputValidationError(f'{unknown[0][:64]!a} is not supported: the role limits the keys.')
    if len(asked) != len(pairs):
        raise exception.InputValidationError('A parameter stands twice in the body.')
    return asked


def _seconds(text: Optional[str]) -> Optional[int]:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise exception.InputValidationError("'DurationSeconds' is not a number of seconds.")
    return int(text)


def _xml(status: int, name: str, content: dict[str, Any]) -> Response:
    root = ET.Element(name, xmlns=f'https://sts.amazonaws.com/doc/{VERSION}/')
    _fill(root, content)
    return Response(ET.tostring(root, encoding='utf-8', xml_declaration=True), status, content_type='text/xml')


def _fill(parent: ET.Element, content: dict[str, Any]) -> None:
    for name, value in content.items():
        element = ET.SubElement(parent, name)
        if isinstance(value, dict):
            _fill(element, value)
        else:
            element.text = value
