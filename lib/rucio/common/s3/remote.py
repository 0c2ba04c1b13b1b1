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

"""Requests that the Rucio server signs: no key ever comes here."""

import base64
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Optional

import botocore.session
from botocore.exceptions import ClientError

from rucio.common.exception import (
    AccessDenied,
    InputValidationError,
    RSEAccessDenied,
    RSEOperationNotSupported,
    ServiceUnavailable,
)

from . import address, botocore_internals
from .authorizer import Authorizer, Request, headers_to_sign, payload_of, without_signature
from .factory import bare_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client

    from . import api
    from .authorizer import RucioServer
    from .endpoint import Endpoint

__all__ = ['Remote']


class Remote(Authorizer):
    """Signatures of the Rucio server, one for each request and each attempt.

    Cost: one request to the Rucio server per request to the storage. The clock of the server counts, not of this
    machine.

    If a storage does not verify the bodies of requests (setting ``verifies_body``), a signature for DeleteObjects could
    be used with other keys, so the server only signs it for the owner of the bucket. For others, ``delete_objects``
    deletes the objects one by one, several at a time.

    :param endpoint: The storage.
    :param server: The Rucio server; it renews its own token.
    :param region: The region of the storage, if the server knows it.
    """

    name = 'remote'
    signed = False

    def __init__(self, endpoint: 'Endpoint', server: 'RucioServer', region: Optional[str] = None) -> None:
        self._server = server
        self._rse = endpoint.rse
        self._verifies_body = endpoint.verifies_body
        self._threads = endpoint.max_concurrency
        self.identity = f'remote:{server.identity}:{endpoint.rse}'
        self.region = region

    def session(self) -> botocore.session.Session:
        """Make a botocore session without keys."""
        return bare_session(None)

    def attach(self, client: 'S3Client') -> None:
        """Authorise the requests of a client.

        :param client: The client.
        """
        super().attach(client)
        self.delete_one_by_one(client, lambda _: True)
        for operation in ('PutObject', 'UploadPart'):  # a body with a trailer has no Content-Length to sign
            botocore_internals.before_call(client, operation, botocore_internals.checksum_in_header)

    def delete_one_by_one(self, client: 'S3Client', signs: 'Callable[[Request], bool]') -> None:
        """Let a client delete objects one by one if the server would not sign DeleteObjects.

        :param client: The client.
        :param signs: Returns whether the server signs a request.
        """
        if not self._verifies_body:
            botocore_internals.before_parameters(client, 'DeleteObjects', _note)
            botocore_internals.before_call(client, 'DeleteObjects', functools.partial(self._delete_each, client, signs))

    def _delete_each(
        self, client: 'S3Client', signs: 'Callable[[Request], bool]', request: dict[str, Any], context: dict[str, Any]
    ) -> Optional[tuple[Any, Any]]:
        """Send a DeleteObject for each key, and return the answer of DeleteObjects."""
        if not signs(Request(request['method'], request['url'], body=request['body'])):
            return None
        bucket, deletion = context['rucio_s3_deletion']

        def delete(each: Any) -> Optional[dict[str, str]]:
            try:
                client.delete_object(Bucket=bucket, **each)
            except ClientError as error:
                said = error.response.get('Error', {})
                return {**each, 'Code': said.get('Code', ''), 'Message': said.get('Message', '')}
            except RSEAccessDenied as error:
                return {**each, 'Code': 'AccessDenied', 'Message': str(error.args[0])}
            except InputValidationError as error:
                return {**each, 'Code': 'InvalidURI', 'Message': str(error.args[0])}
            return None

        with ThreadPoolExecutor(self._threads) as pool:
            failures = [failure for failure in pool.map(delete, deletion['Objects']) if failure]
        failed = {each['Key'] for each in failures}
        deleted = [] if deletion.get('Quiet') else [each for each in deletion['Objects'] if each['Key'] not in failed]
        return botocore_internals.instead_of_a_call({'Deleted': deleted, 'Errors': failures})

    def authorise(self, request: Request) -> Request:
        """Have a request signed. One request to the Rucio server.

        :param request: The request.
        :returns: The signed request.
        :raises RSEAccessDenied: if the server refuses.
        :raises InputValidationError: if the server finds the request ambiguous for storages.
        :raises InsufficientAccountLimit: if more would be stored than the owner of the scope may store.
        :raises ServiceUnavailable: if the server cannot be reached; other exceptions of Rucio are passed on.
        """
        headers = without_signature(request.headers)
        covered = headers_to_sign(headers) | {'X-Amz-Content-SHA256': payload_of(request)}
        if request.method == 'PUT':  # what is stored counts towards a limit
            covered |= {name: value for name, value in headers.items() if name.lower() == 'content-length'}
        asked: api.Unsigned = {
            'method': request.method,
            'uri': request.url,
            'region': request.region,
            'headers': {name: [value] for name, value in covered.items()},
        }
        _, _, query = address.parse_request(request.url, '')
        if request.method == 'POST' and 'delete' in query:  # its body contains the keys
            asked['body'] = base64.b64encode(request.body).decode()
        signed = {name: values[0] for name, values in self._ask(asked)['headers'].items()}
        replaced = {name.lower() for name in signed}
        kept = {name: value for name, value in headers.items() if name.lower() not in replaced}
        return request._replace(headers=kept | signed)

    def _ask(self, asked: 'api.Unsigned') -> 'api.Signed':
        try:
            (answer,) = self._server.sign_s3_requests(self._rse, [asked])
        except AccessDenied as error:
            raise RSEAccessDenied(f'RSE {self._rse}: {error.args[0] if error.args else error}') from None
        except InputValidationError as error:
            raise InputValidationError(f'RSE {self._rse}: {error.args[0] if error.args else error}') from None
        except OSError as error:  # the base of all exceptions of requests
            raise ServiceUnavailable(
                f'RSE {self._rse}: the Rucio server, which has to sign the requests, cannot be reached: {error}. '
                'Try again later.'
            ) from None
        if answer['uri'] != asked['uri']:
            raise RSEOperationNotSupported(
                f'RSE {self._rse}: the Rucio server signed a different request. Tell its operator.'
            )
        return answer


def _note(_operation: str, params: dict[str, Any], context: dict[str, Any]) -> None:
    """Remember the keys of a DeleteObjects until it is sent."""
    context['rucio_s3_deletion'] = params['Bucket'], params['Delete']
