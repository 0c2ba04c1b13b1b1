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
"""The interface of the ways of being authorised by a storage, and of a Rucio server that takes part in some of them."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Optional, Protocol

import botocore.session

from rucio.common.exception import InputValidationError

from . import botocore_internals
from .factory import bare_session
from .sigv4 import Signer

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    from mypy_boto3_s3 import S3Client

    from . import api

__all__ = [
    'Authorizer',
    'Request',
    'RucioServer',
    'WithKeys',
    'headers_to_sign',
    'payload_of',
    'signed',
    'without_signature',
]

# Besides x-amz-...: other headers need no signature, and some of them are added later.
_SIGNED = frozenset(('content-encoding', 'content-md5', 'content-type', 'if-match', 'if-none-match', 'range'))
# Made for each request, or by the HTTP client.
_OF_A_SIGNATURE = frozenset(('authorization', 'host', 'x-amz-content-sha256', 'x-amz-date', 'x-amz-security-token'))
_UNSIGNED, _NO_BODY = 'UNSIGNED-PAYLOAD', hashlib.sha256(b'').hexdigest()


class Request(NamedTuple):
    """A request to a storage, before and after it is authorised.

    :param method: The HTTP method.
    :param url: The URL, percent-encoded as S3 prescribes, with the host of the storage.
    :param headers: The headers, each name once. An existing signature is replaced. Hop-by-hop headers, such as
        ``Connection``, are up to the sender. The Rucio server may only sign a PUT if it has its ``Content-Length``.
    :param region: The region to sign for.
    :param payload: The value of X-Amz-Content-SHA256. None for that of the header; without it the hash of ``body``, or
        UNSIGNED-PAYLOAD if the request may have a body that is not given here.
    :param body: The body. Only DeleteObjects needs it, as it contains the keys.
    """

    method: str
    url: str
    headers: Mapping[str, str] = {}
    region: str = ''
    payload: Optional[str] = None
    body: bytes = b''

    def __repr__(self) -> str:
        return f'<Request {self.method} {self.url.partition("?")[0]}>'  # the rest may be secret


class Authorizer(ABC):
    """One way of being authorised. ``identity`` is equal for those that can share a client, and contains no secret.

    :meth:`authorise` is the only way to use it: clients of boto3 (:meth:`attach`) and programs that forward requests
    both call it. Several threads may call it at once.
    """

    name: ClassVar[str]
    signed: ClassVar[bool] = True  # this process has keys, so clients can also sign URLs
    covers_bodies: ClassVar[bool] = True  # the authorisation depends on the body
    whole_objects_only: ClassVar[bool] = False  # only GET, PUT and DELETE of one object: no HEAD, listing, multipart
    identity: str
    region: Optional[str] = None  # if this way knows it

    def __repr__(self) -> str:
        return f'<{type(self).__name__} {self.identity}>'

    @abstractmethod
    def authorise(self, request: Request) -> Request:
        """Authorise a request. Call this for each attempt, and send what it returns unchanged.

        Sends nothing to the storage. Reads no files and no environment variables, unless the keys are stored there (an
        AWS profile, rse-accounts.cfg). Vended keys and signatures cost a request to the Rucio server, as the classes
        say.

        :param request: The request as the sender has it.
        :returns: The request with the URL and the headers to send.
        :raises RSEAccessDenied: if the Rucio server refuses, or there are no keys.
        :raises RSEOperationNotSupported: if this way cannot authorise such a request.
        :raises InputValidationError: if only its first sender can sign the request.
        """

    def refused(self, sent: Request, code: str) -> bool:
        """Return whether to authorise and send a request once more after the storage refused it.

        :param sent: The request that :meth:`authorise` returned.
        :param code: The storage's error code, such as ExpiredToken.
        """
        return False

    def hides_missing(self, sent: Request) -> bool:
        """Return whether a 403 for an object may mean that it is missing, and a listing of its key would tell.

        :param sent: The request that :meth:`authorise` returned.
        """
        return False

    @abstractmethod
    def session(self) -> botocore.session.Session:
        """Make a botocore session.

        Clients of S3 that are made from it need :meth:`attach`; those of other services sign with its credentials.

        :raises botocore.exceptions.ProfileNotFound: or similar errors, if there are none.
        """

    def attach(self, client: 'S3Client') -> None:
        """Authorise the requests of a client.

        :param client: A client that was made from :meth:`session`.
        """
        botocore_internals.authorise_requests(client, self._send, self._keys_for_url, signed=self.signed)
        botocore_internals.before_retry(client, self._again)

    def _send(self, request: 'AWSRequest', region: str) -> None:
        """Authorise what botocore is about to send. It calls this for each attempt."""
        payload = botocore_internals.payload_hash(request) if self.covers_bodies else None
        sent = self.authorise(_of_botocore(request, region)._replace(payload=payload))
        request.context['rucio_s3_sent'] = sent
        request.url = sent.url
        for name, value in sent.headers.items():
            del request.headers[name]
            request.headers[name] = value

    def _again(self, _operation: str, attempts: int, answer: Any, request: dict[str, Any]) -> Optional[float]:
        """Retry once, without a pause, what a new authorisation may cure."""
        code, sent = (answer or {}).get('Error', {}).get('Code'), request['context'].get('rucio_s3_sent')
        return 0 if code and sent and attempts == 1 and self.refused(sent, code) else None

    def _keys_for_url(self, request: 'AWSRequest') -> 'Optional[Credentials]':
        """Return the keys to sign a URL with, if the session has none."""
        return None


class WithKeys(Authorizer):
    """A way of being authorised that signs with keys of its own."""

    @abstractmethod
    def credentials(self) -> 'Credentials':
        """Return the keys, which may renew themselves.

        :raises RSEAccessDenied: if there are none.
        """

    def session(self) -> botocore.session.Session:
        """Make a botocore session with the keys."""
        return bare_session(self.credentials())

    def authorise(self, request: Request) -> Request:
        """Sign a request with the keys.

        :param request: The request.
        :returns: The signed request.
        """
        return signed(request, self.credentials())


def signed(request: Request, credentials: 'Credentials') -> Request:
    """Sign a request with keys: AWS Signature Version 4 in headers.

    :param request: The request.
    :param credentials: The keys.
    :returns: The signed request.
    :raises InputValidationError: if the parts of its body have signatures of their own.
    """
    headers = without_signature(request.headers)
    signer = Signer(credentials.get_frozen_credentials(), request.region)
    added = signer.added(request.method, request.url, headers_to_sign(headers), payload_of(request))
    return request._replace(headers={**headers, **added})


def without_signature(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a request without those of a signature, and without the host.

    :param headers: The headers.
    """
    return {name: value for name, value in headers.items() if name.lower() not in _OF_A_SIGNATURE}


def headers_to_sign(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that a signature must cover, and others that no proxy changes.

    :param headers: The headers.
    """
    return {
        name: value for name, value in headers.items() if name.lower() in _SIGNED or name.lower().startswith('x-amz-')
    }


def payload_of(request: Request) -> str:
    """Return the payload hash to sign for a request.

    :param request: The request.
    :raises InputValidationError: if the parts of the body have signatures of their own.
    """
    given = {name.lower(): value for name, value in request.headers.items()}.get('x-amz-content-sha256')
    payload = request.payload or given
    if payload is None and (request.body or request.method in ('GET', 'HEAD', 'DELETE')):
        payload = hashlib.sha256(request.body).hexdigest() if request.body else _NO_BODY
    if payload and payload.startswith('STREAMING-AWS4-'):
        raise InputValidationError(
            f'{request.method} of {request.url.partition("?")[0]}: its body is aws-chunked, and each chunk is signed '
            f'with the keys of its first sender. Decode the body, and send it with {_UNSIGNED}.'
        )
    return payload or _UNSIGNED


def _of_botocore(request: 'AWSRequest', region: str) -> Request:
    headers = {
        name: value.decode() if isinstance(value, bytes) else str(value) for name, value in request.headers.items()
    }
    if request.method == 'PUT' and (length := botocore_internals.content_length(request)) is not None:
        headers = {name: value for name, value in headers.items() if name.lower() != 'content-length'}
        headers['Content-Length'] = str(length)
    body = request.data if isinstance(request.data, bytes) else b''
    return Request(str(request.method), str(request.url), headers, region, body=body)


class RucioServer(Protocol):
    """The part of a Rucio server with the S3 plugin that clients need: ``rucio.client.s3client.S3Client``.

    Implementations are thread-safe.
    """

    @property
    def identity(self) -> str:
        """Server, VO and account: equal for clients with equal access. It contains no secret."""

    def get_s3_rse(self, rse: str) -> 'api.DescribedRSE':
        """Describe how to reach an RSE. One request.

        :param rse: The name of the RSE.
        :returns: ``auth`` lists the ways that the server offers (vended, remote); ``region`` may be None.
        :raises RSEOperationNotSupported: if the server does not have the plugin.
        :raises RSENotFound: if the plugin does not serve this RSE.
        """

    def get_s3_credentials(self, rse: str, bucket: str, prefix: str, write: bool) -> 'api.Credentials':
        """Get short-lived keys for at least ``prefix``. One request.

        :param rse: The name of the RSE.
        :param bucket: The bucket.
        :param prefix: A prefix or a key.
        :param write: Whether the keys allow writing and deleting.
        :returns: bucket, prefix, write, access_key, secret_key, session_token, expiration (``YYYY-MM-DDTHH:MM:SSZ``).
        :raises AccessDenied: if the account is not allowed to do this.
        """

    def sign_s3_requests(self, rse: str, requests: 'list[api.Unsigned]') -> 'list[api.Signed]':
        """Sign requests, which the caller then sends: see :mod:`.remote`. One request.

        :param rse: The name of the RSE.
        :param requests: The requests.
        :raises AccessDenied: if the account is not allowed to do one of them.
        """
