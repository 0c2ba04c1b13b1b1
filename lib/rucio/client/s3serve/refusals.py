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

"""The errors that a tool gets, as S3 has them: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html."""

import secrets
from typing import Optional
from xml.sax.saxutils import escape

from rucio.common.exception import (
    AccessDenied,
    CannotAuthenticate,
    InputValidationError,
    InsufficientAccountLimit,
    InvalidObject,
    ResourceTemporaryUnavailable,
    RSEAccessDenied,
    RSEFileNameNotSupported,
    RSENotFound,
    RSEOperationNotSupported,
    RucioException,
    ScopeNotFound,
    ServerConnectionException,
    ServiceUnavailable,
)
from rucio.common.s3.answers import printable

__all__ = ['Refusal', 'of_rucio']

_LONGEST = 1000  # characters of a message
_HOST_ID = 'rucio-s3-serve'
_OF_RUCIO: 'tuple[tuple[type[RucioException], str], ...]' = (
    (AccessDenied, 'AccessDenied'),
    (RSEAccessDenied, 'AccessDenied'),
    (CannotAuthenticate, 'AccessDenied'),
    (RSENotFound, 'NoSuchBucket'),
    (ScopeNotFound, 'NoSuchBucket'),
    (InsufficientAccountLimit, 'QuotaExceeded'),
    (InvalidObject, 'InvalidRequest'),
    (RSEOperationNotSupported, 'NotImplemented'),
    (RSEFileNameNotSupported, 'InvalidArgument'),
    (InputValidationError, 'InvalidArgument'),
    (ResourceTemporaryUnavailable, 'SlowDown'),
    (ServerConnectionException, 'ServiceUnavailable'),
    (ServiceUnavailable, 'ServiceUnavailable'),
)
_STATUS = {
    'AccessDenied': 403,
    'AuthorizationHeaderMalformed': 400,
    'AuthorizationQueryParametersError': 400,
    'BadDigest': 400,
    'EntityTooLarge': 400,
    'IncompleteBody': 400,
    'InternalError': 500,
    'InvalidAccessKeyId': 403,
    'InvalidArgument': 400,
    'InvalidDigest': 400,
    'InvalidRequest': 400,
    'InvalidURI': 400,
    'MalformedXML': 400,
    'MissingContentLength': 411,
    'NoSuchBucket': 404,
    'NoSuchKey': 404,
    'NotImplemented': 501,
    'PreconditionFailed': 412,
    'QuotaExceeded': 403,
    'RequestTimeTooSkewed': 403,
    'ServiceUnavailable': 503,
    'SignatureDoesNotMatch': 403,
    'SlowDown': 503,
    'XAmzContentSHA256Mismatch': 400,
}


class Refusal(Exception):
    """A request is answered with an error of S3.

    :param code: S3's error code.
    :param message: The sentence for the user.
    :param status: The HTTP status; None for that of the code.
    """

    def __init__(self, code: str, message: str, status: Optional[int] = None) -> None:
        super().__init__(f'{code}: {message}')
        self.code = code
        self.message = printable(message, _LONGEST)
        self.status = status or _STATUS[code]
        self.request_id = secrets.token_hex(8).upper()  # what a user who asks for help quotes, and the log has

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer: tools show these ids, also where an answer has no body."""
        return {'x-amz-request-id': self.request_id, 'x-amz-id-2': _HOST_ID}

    def xml(self) -> bytes:
        """Return the body of the answer."""
        # printable() leaves no character that XML 1.0 does not have.
        text = (
            f'<Code>{escape(self.code)}</Code><Message>{escape(self.message)}</Message>'
            f'<RequestId>{self.request_id}</RequestId><HostId>{_HOST_ID}</HostId>'
        )
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{text}</Error>'.encode(errors='replace')


def of_rucio(error: RucioException) -> Refusal:
    """Return what a tool gets for an exception of the Rucio server or of the client library.

    :param error: The exception.
    """
    code = next((code for kind, code in _OF_RUCIO if isinstance(error, kind)), 'InternalError')
    said = str(error.args[0]) if error.args else str(error)
    return Refusal(code, said.strip() or type(error).__name__)
