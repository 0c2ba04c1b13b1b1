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


"""Base of the views of the S3 plugin: bounded bodies, validated parameters, and a status for each exception.

The methods of the views, and their OpenAPI descriptions, are generated from the routes in :mod:`rucio.common.s3.api`.
"""

import json
import re
import time
from typing import TYPE_CHECKING, Any, Optional, Union

from flask import abort, jsonify, make_response, request
from flask.views import MethodView
from werkzeug.exceptions import HTTPException

from rucio.common import exception
from rucio.common.s3 import monitoring, request_ids
from rucio.common.s3.answers import line_logger
from rucio.common.s3.contract import openapi
from rucio.common.utils import generate_uuid
from rucio.core.s3.auth import tokens
from rucio.core.s3.auth.rates import TooManyRequests
from rucio.web.rest.flaskapi.v1.common import (
    ErrorHandlingMethodView,
    generate_http_error_flask,
    request_auth_env,
    response_headers,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Blueprint, Response
    from flask.typing import ResponseReturnValue

    from rucio.common.s3.contract import Request

    Handler = Callable[..., Any]

__all__ = [
    'S3View',
    'add_routes',
    'answer',
    'authenticate',
    'body_bytes',
    'json_body',
    'never_cached',
    'refusal',
    'view',
]

_LOGGER = line_logger(__name__)

MAX_BODY = 1024 * 1024
_CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f]')

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


def authenticate() -> 'Optional[ResponseReturnValue]':
    """Find out which account sent the request, as ``AuthenticatedBlueprint`` does; cheaper if Rucio knows the token.

    :returns: None, or the answer to a request without a valid token.
    """
    token = request.headers.get('X-Rucio-Auth-Token')
    owner = token and request.method != 'OPTIONS' and tokens.remembered(token)
    if not owner:
        return request_auth_env()
    known = {'issuer': owner.account, 'vo': owner.vo, 'identity': owner.identity}
    request.environ.update(known, request_id=generate_uuid(), start_time=time.time())
    return None


def refusal(status: int, name: str, message: str) -> 'Response':
    """Return an error in the format of Rucio's exceptions.

    :param status: The HTTP status.
    :param name: The name of the exception that Rucio's clients raise.
    :param message: Its message.
    """
    return generate_http_error_flask(status_code=status, exc=name, exc_msg=message)


class S3View(ErrorHandlingMethodView):
    """A view with bounded bodies, and a status for each exception. Each request is logged and counted."""

    operation = 'other'

    def dispatch_request(self, *args: Any, **kwargs: Any) -> 'ResponseReturnValue':
        """Answer a request, with an HTTP status for each exception.

        :param args: From Flask.
        :param kwargs: The parts of the path.
        """
        began, request_id = time.monotonic(), request_ids.accepted(request.headers.get(request_ids.HEADER))
        with request_ids.use(request_id):
            try:
                response = make_response(self._dispatch(*args, **kwargs))
            except HTTPException as error:
                response = make_response(error.get_response())
        response.headers[request_ids.HEADER] = request_id
        self._note(request_id, response.status_code, time.monotonic() - began)
        return response

    def _note(self, request_id: str, status: int, seconds: float) -> None:
        who, what = request.environ.get('issuer') or 'nobody', f'{request.method} {request.path}'
        _LOGGER.info('S3: request %s of %s: %s: %d in %.3f s', request_id, who, what, status, seconds)
        labels = {'operation': self.operation, 'status': str(status)}
        monitoring.time_of('rest_seconds', 'Seconds that a request to the S3 plugin took', seconds, **labels)

    def _dispatch(self, *args: Any, **kwargs: Any) -> 'ResponseReturnValue':
        try:
            return MethodView.dispatch_request(self, *args, **kwargs)
        except HTTPException:
            raise
        except exception.DatabaseException:
            _LOGGER.exception('S3: %s %s', request.method, request.path)
            return self.refused(
                503,
                'DatabaseException',
                'The database of the Rucio server did not answer as it should: try again in a few minutes.',
            )
        except TooManyRequests as error:
            response = self.refused(429, 'ResourceTemporaryUnavailable', str(error.args[0]))
            response.headers['Retry-After'] = str(error.seconds)
            return response
        except exception.RucioException as error:
            status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
            return self.refused(status, error, str(error.args[0]) if error.args else None)
        except Exception:
            # The message of an unexpected exception may contain a secret, so it is only in the server's log.
            _LOGGER.exception('S3: %s %s', request.method, request.path)
            return self.refused(500, 'RucioException', 'The Rucio server failed. Its log says more; tell its operator.')

    def refused(self, status: int, error: Union[str, BaseException], message: Optional[str]) -> 'Response':
        """Return an error in the format of this view: here that of Rucio's exceptions.

        :param status: The HTTP status.
        :param error: The exception, or its name.
        :param message: Its message.
        """
        return generate_http_error_flask(status_code=status, exc=error, exc_msg=message)

    @property
    def issuer(self) -> str:
        """Return the account that sent the request."""
        return str(request.environ['issuer'])

    @property
    def vo(self) -> str:
        """Return the VO of the account."""
        return str(request.environ['vo'])


def answer(content: Any, status: int = 200) -> 'Response':
    """Return a JSON answer that must not be cached.

    :param content: What is sent as JSON.
    :param status: The HTTP status.
    """
    response = jsonify(content)
    response.status_code = status
    response.headers['Cache-Control'] = 'no-store'
    return response


def body_bytes(most: int = MAX_BODY) -> bytes:
    """Return the body of the request; a longer one is refused before it is read.

    :param most: The maximum length in bytes.
    :raises HTTPException: 411 if the length is not given, 413 if the body is too long.
    """
    length = request.content_length
    if length is None:
        abort(refusal(411, 'InputValidationError', 'The request must have the length of its body (Content-Length).'))
    if length > most:
        abort(refusal(413, 'InputValidationError', f'The body of a request may have {most} bytes, not {length}.'))
    return request.get_data()


def json_body() -> dict[str, Any]:
    """Return the JSON object in the body of the request.

    :raises HTTPException: 400 if the body is something else, or a name is repeated in an object; as :func:`body_bytes`.
    """
    try:
        body = _DECODER.decode(body_bytes().decode())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        abort(refusal(400, 'InputValidationError', 'The body must be a JSON object, in which no name is given twice.'))
    return body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse repeated names in JSON objects, which parsers interpret differently."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def view(handlers: 'dict[type[Request[Any]], Handler]') -> type[S3View]:
    """Create the view of a path, which parses requests and returns the answers of handlers.

    :param handlers: The routes of this path and their handlers, which are called with the request, the account and its
        VO.
    """
    methods = {route.method.lower(): _method(route, handler) for route, handler in handlers.items()}
    return type(next(iter(handlers)).__name__, (S3View,), methods)


def _method(route: 'type[Request[Any]]', handler: 'Handler') -> 'Callable[..., ResponseReturnValue]':
    operation = route.operation()

    def method(self: S3View, **in_path: str) -> 'ResponseReturnValue':
        self.operation = operation
        if doubled := [name for name, values in request.args.lists() if len(values) > 1]:
            raise exception.InputValidationError(f'{doubled[0][:64]!a} stands twice in the query.')
        sent = request.args.to_dict() if route.method == 'GET' else json_body()
        asked = route.read(sent | in_path)
        return answer(handler(asked, self.issuer, self.vo), route.status)

    method.__doc__ = openapi(route)
    return method


def add_routes(bp: 'Blueprint', path: str, kind: 'type[MethodView]', with_doc: bool) -> None:
    """Add a path to a blueprint and, unless it is for the documentation, also with a slash at its end.

    :param bp: The blueprint.
    :param path: The path below the prefix of the blueprint; ``{name}`` is a parameter.
    :param kind: The view of the path.
    :param with_doc: Whether it is for the documentation.
    """
    function = kind.as_view(kind.__name__.lower())
    for each in (path,) if with_doc else (path, f'{path}/'):
        bp.add_url_rule(
            each.replace('{', '<').replace('}', '>'), view_func=function, methods=sorted(kind.methods or ())
        )


def never_cached(response: 'Response') -> 'Response':
    """Add Rucio's headers, but do not allow caching, as Rucio does for GET.

    :param response: The answer, which is modified.
    """
    response = response_headers(response)
    response.headers['Cache-Control'] = 'no-store'
    if message := response.headers.get('ExceptionMessage'):
        # Names may have characters that are not allowed in headers, or that terminals interpret; the body has them
        # unchanged.
        response.headers['ExceptionMessage'] = _CONTROL.sub(
            _escaped, message.encode('latin-1', 'backslashreplace').decode('latin-1')
        )
    return response


def _escaped(found: 're.Match[str]') -> str:
    return f'\\x{ord(found[0]):02x}'
