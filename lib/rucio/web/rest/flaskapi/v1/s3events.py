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

"""The REST interface for event notifications of storages.

Enabled by ``[api] endpoints_add = s3, s3events`` in the server's rucio.cfg. The client is a storage, not an account, so
this is not one of Rucio's authenticated blueprints: each RSE has a token of its own.
"""

from typing import TYPE_CHECKING, Any, Optional

from flask import Blueprint, Flask, request
from flask.views import MethodView
from werkzeug.exceptions import HTTPException

from rucio.common import exception
from rucio.common.constants import DEFAULT_VO
from rucio.common.s3 import api
from rucio.common.s3.answers import line_logger
from rucio.common.s3.contract import openapi
from rucio.gateway import s3events as gateway
from rucio.web.rest.flaskapi.v1.s3base import add_routes, answer, body_bytes, refusal

if TYPE_CHECKING:
    from flask import Response
    from flask.typing import ResponseReturnValue

_LOGGER = line_logger(__name__)


def _refusal(status: int, name: str, message: str) -> 'Response':
    response = refusal(status, name, message)
    if status == 401:
        # SNS sends the password in its URL only after this header.
        response.headers['WWW-Authenticate'] = 'Basic realm="S3 events"'
    return response


def _token() -> Optional[str]:
    """Return the token in the header: a bearer token, or a Basic password with any user name. None: no such header."""
    header = request.headers.get('Authorization')
    if not header:
        return None
    given = request.authorization
    if given is not None and given.type == 'basic':
        return given.password or ''
    return header.rpartition(' ')[2] if header.lower().startswith('bearer ') or ' ' not in header else ''


class Events(MethodView):
    """Event notifications for an RSE."""

    def dispatch_request(self, *args: Any, **kwargs: Any) -> 'ResponseReturnValue':
        """Answer a request, with an HTTP status for each exception, by which storages decide whether to send it again.

        :param args: From Flask.
        :param kwargs: The parts of the path.
        """
        try:
            return super().dispatch_request(*args, **kwargs)
        except HTTPException:
            raise
        except exception.CannotAuthenticate as error:
            return _refusal(401, 'CannotAuthenticate', str(error.args[0]))
        except exception.InputValidationError as error:
            return _refusal(400, 'InputValidationError', str(error.args[0]))
        except gateway.RETRY_LATER as error:
            gateway.complain((request.path, 'later'), f'S3 events: {request.path}: {error}')
            return _refusal(
                503, type(error).__name__, 'The storage or the database does not answer: send it again later.'
            )
        except Exception:
            # The message of an unexpected exception may contain a secret, so it is only in the server's log.
            _LOGGER.exception('S3 events: %s', request.path)
            return _refusal(500, 'RucioException', 'The Rucio server failed. Its log says more; tell its operator.')

    def post(self, rse: str) -> 'ResponseReturnValue':
        """Process the records in the body.

        :param rse: The RSE.
        """
        body = body_bytes(gateway.MAX_BODY)
        return answer(gateway.take_events(rse, body, _token(), vo=request.args.get('vo') or DEFAULT_VO))

    post.__doc__ = openapi(api.TakeEvents)  # for the REST documentation


def blueprint(with_doc: bool = False) -> Blueprint:
    """Return the blueprint of the route.

    :param with_doc: For the documentation: without the route that ends with a slash.
    """
    bp = Blueprint('s3events', __name__, url_prefix='/s3')
    add_routes(bp, api.TakeEvents.path, Events, with_doc)
    return bp


def make_doc() -> Flask:
    """Return an application for Rucio's script that generates the REST documentation."""
    doc_app = Flask(__name__)
    doc_app.register_blueprint(blueprint(with_doc=True))
    return doc_app
