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


"""What the views of the S3 plugin stand on: bounded bodies, checked parameters, and for each refusal its own status."""

import json
import re
from typing import TYPE_CHECKING, Any, Optional, Union

from flask import abort, jsonify, request
from flask.views import MethodView
from werkzeug.exceptions import HTTPException

from rucio.common import exception
from rucio.common.s3.answers import line_logger
from rucio.core.s3.auth.rates import TooManyRequests
from rucio.web.rest.flaskapi.v1.common import ErrorHandlingMethodView, generate_http_error_flask, response_headers

if TYPE_CHECKING:
    from flask import Response
    from flask.typing import ResponseReturnValue

__all__ = ['REQUIRED', 'S3View', 'answer', 'get_rse', 'get_text', 'get_value', 'json_body', 'never_cached', 'refusal']

_LOGGER = line_logger(__name__)

MAX_BODY = 1024 * 1024
_CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f]')
REQUIRED: Any = object()

# The first that fits: subclasses before their bases.
_STATUSES: tuple[tuple[type[BaseException], int], ...] = (
    (exception.AccessDenied, 403),
    (exception.RSENotFound, 404),
    (exception.ScopeNotFound, 404),
    (exception.AccountNotFound, 404),
    (exception.DataIdentifierNotFound, 404),
    (exception.SourceNotFound, 404),
    (exception.DestinationNotAccessible, 404),
    (exception.InvalidObject, 400),
    (exception.InputValidationError, 400),
    (exception.InvalidRSEExpression, 400),
    (exception.RSEFileNameNotSupported, 400),
    (exception.UnsupportedOperation, 409),
    (exception.DataIdentifierAlreadyExists, 409),
    (exception.FileAlreadyExists, 409),
    (exception.Duplicate, 409),
    (exception.DuplicateRule, 409),
    (exception.InsufficientAccountLimit, 409),
    (exception.InsufficientTargetRSEs, 409),
    (exception.RuleReplaceFailed, 409),
    (exception.RSEOperationNotSupported, 501),
    (exception.ResourceTemporaryUnavailable, 503),
    (exception.ServiceUnavailable, 503),
)


def refusal(status: int, name: str, message: str) -> 'Response':
    """An answer as Rucio makes them of exceptions."""
    return generate_http_error_flask(status_code=status, exc=name, exc_msg=message)


class S3View(ErrorHandlingMethodView):
    """Bounded bodies, and for each refusal its own status."""

    def dispatch_request(self, *args: Any, **kwargs: Any) -> 'ResponseReturnValue':
        try:
            return MethodView.dispatch_request(self, *args, **kwargs)
        except HTTPException:
            raise
        except exception.DatabaseException:
            _LOGGER.exception('S3: %s %s', request.method, request.path)
            return refusal(
                503,
                'DatabaseException',
                'The database of the Rucio server did not answer as it should: try again in a few minutes.',
            )
        except TooManyRequests as error:
            response = refusal(429, 'ResourceTemporaryUnavailable', str(error.args[0]))
            response.headers['Retry-After'] = str(error.seconds)
            return response
        except exception.RucioException as error:
            status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
            return generate_http_error_flask(
                status_code=status, exc=error, exc_msg=str(error.args[0]) if error.args else None
            )
        except Exception:
            # What an unforeseen exception says might be a secret: it stays in the log of the server.
            _LOGGER.exception('S3: %s %s', request.method, request.path)
            return refusal(500, 'RucioException', 'The Rucio server failed. Its log says more; tell its operator.')

    @property
    def issuer(self) -> str:
        """The account that asks."""
        return str(request.environ['issuer'])

    @property
    def vo(self) -> str:
        """Its VO."""
        return str(request.environ['vo'])


def answer(content: Any, status: int = 200) -> 'Response':
    """An answer in JSON that nobody keeps."""
    response = jsonify(content)
    response.status_code = status
    response.headers['Cache-Control'] = 'no-store'
    return response


def json_body() -> dict[str, Any]:
    """The JSON object that the request carries."""
    length = request.content_length
    if length is None:
        abort(refusal(411, 'InputValidationError', 'The request must say how long its body is (Content-Length).'))
    if length > MAX_BODY:
        abort(refusal(413, 'InputValidationError', f'The body of a request may have {MAX_BODY} bytes, not {length}.'))
    try:
        body = json.loads(request.get_data(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        abort(refusal(400, 'InputValidationError', 'The body must be a JSON object, in which no name is given twice.'))
    return body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values of one name others may take the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def get_value(parameters: 'Union[dict[str, Any], Any]', name: str, kind: type, default: Any) -> Any:
    """A parameter of a query or of a body, None or missing for the default.

    :param kind: What JSON has to have made of it.
    :param default: REQUIRED: without it the request is refused.
    """
    value = parameters.get(name)
    if value is None:
        if default is REQUIRED:
            abort(refusal(400, 'InputValidationError', f"'{name}' is missing."))
        return default
    if type(value) is not kind:
        abort(refusal(400, 'InputValidationError', f"'{name}' must be of the JSON type {_JSON_TYPES[kind]}."))
    return value


_JSON_TYPES = {str: 'string', bool: 'boolean', int: 'number (whole)', list: 'array', dict: 'object'}


def get_text(parameters: Any, name: str, default: Any = REQUIRED, longest: int = 250) -> Any:
    """As :func:`get_value`, for text that a person may have written."""
    value = get_value(parameters, name, str, default)
    if isinstance(value, str) and (len(value) > longest or not value.isprintable()):
        abort(refusal(400, 'InputValidationError', f"'{name}' may have {longest} characters, all of them printable."))
    if default is REQUIRED and not value:
        abort(refusal(400, 'InputValidationError', f"'{name}' is empty."))
    return value


def get_rse(parameters: Any) -> Optional[str]:
    """The RSE that is named, or None."""
    return get_text(parameters, 'rse', None) or None


def never_cached(response: 'Response') -> 'Response':
    """Rucio's, which allow a GET to be cached; nothing here may be."""
    response = response_headers(response)
    response.headers['Cache-Control'] = 'no-store'
    if message := response.headers.get('ExceptionMessage'):
        # Names may have other characters than headers, of which servers and terminals make something else; the body has them as they are.
        response.headers['ExceptionMessage'] = _CONTROL.sub(
            _escaped, message.encode('latin-1', 'backslashreplace').decode('latin-1')
        )
    return response


def _escaped(found: 're.Match[str]') -> str:
    return f'\\x{ord(found[0]):02x}'
