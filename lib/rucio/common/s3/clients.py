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

"""Shared boto3 clients: one for each storage and identity, not for each file.

A client costs 100 to 200 ms of CPU, and Rucio makes three protocol objects for each file. Clients are thread-safe.
"""

import base64
import hashlib
import os
import threading
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Optional, cast

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import InvalidRegionError

from rucio.common.exception import ConfigurationError

from . import botocore_internals, deadlines, factory, monitoring
from .authorizer import Authorizer
from .conditions import NeverOverwrite, OptionalHeaders
from .credentials import Presigned
from .dates import from_text
from .direct import Direct
from .endpoint import PERSON, Endpoint, Patience
from .errors import Target, translated
from .garbage import uncollected

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest
    from mypy_boto3_s3 import S3Client

__all__ = ['Connection', 'Stoppable', 'bare', 'connect']

CONNECTIONS = 128  # that are kept open: as many as `rucio s3 upload` uses at once
_shared: dict[tuple[Any, ...], tuple[Authorizer, 'S3Client', Optional[Direct]]] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Connection:
    """A client, with the storage and the way of authorisation that it was made for.

    ``direct`` is a shorter way for small objects, if there is one.
    """

    endpoint: Endpoint
    authorizer: Authorizer
    client: 'S3Client'
    direct: Optional[Direct] = None

    @property
    def latency(self) -> float:
        """The seconds in which the storage answers a small request, as far as is known; else 0."""
        return self.direct.latency if self.direct else 0.0


def connect(endpoint: Endpoint, authorizer: Optional[Authorizer], patience: Patience = PERSON) -> Connection:
    """Return the connection for a storage and an identity: the same one for equal parameters, in all threads.

    Sends no request.

    :param endpoint: The storage.
    :param authorizer: The way of authorisation; None for signed URLs.
    :param patience: Time-outs and attempts, unless they are set.
    :returns: The connection.
    :raises RSEAccessDenied: if the AWS profile does not exist.
    :raises ConfigurationError: if botocore does not accept the endpoint or the region.
    """
    authorizer = authorizer or Presigned()
    patience = endpoint.patience(patience)
    # Shared, unless the requests of each RSE are counted. A forked process must not use our sockets: it starts anew.
    counted = endpoint.observed if monitoring.is_on() else None
    key = (os.getpid(), authorizer.identity, patience, endpoint.shared, counted)
    with _lock, translated('connect', Target(endpoint.rse, '*')):
        if key not in _shared:
            with uncollected():
                client = _make(endpoint, authorizer, patience)
            direct = None if authorizer.whole_objects_only else Direct(client, endpoint, authorizer)
            _shared[key] = (authorizer, client, direct)
        authorizer, client, direct = _shared[key]
    return Connection(endpoint, authorizer, client, direct)


def bare(endpoint: Endpoint, authorizer: Authorizer, patience: Patience = PERSON) -> Connection:
    """Return a connection of its own that adds nothing to requests: no conditions, no checksums, no second attempt.

    It shows what the storage does by itself. Sends no request.

    :param endpoint: The storage.
    :param authorizer: The way of authorisation.
    :param patience: Time-outs, unless they are set.
    :raises ConfigurationError: if botocore does not accept the endpoint or the region.
    """
    endpoint = replace(endpoint, checksum='none', max_attempts=1)
    with translated('connect', Target(endpoint.rse, '*')):
        return Connection(endpoint, authorizer, _make_bare(endpoint, authorizer, endpoint.patience(patience)))


def _make_bare(endpoint: Endpoint, authorizer: Authorizer, patience: Patience) -> 'S3Client':
    session = authorizer.session()
    region = endpoint.signing_region(authorizer.region)
    botocore_internals.read_dates(session, _date)
    config = _config(endpoint, authorizer)
    try:
        client: S3Client = factory.client(
            's3',
            session,
            endpoint.url,
            region=region,
            ca_bundle=endpoint.ca_bundle,
            patience=patience,
            config=config,
            rse=endpoint.observed,
        )
    except (ValueError, InvalidRegionError) as error:
        raise ConfigurationError(
            f"RSE {endpoint.rse}: botocore does not accept {endpoint.url} with the region '{region}': {error}. "
            "Correct the hostname of the RSE's protocol, or the setting 'region'."
        ) from None
    authorizer.attach(client)
    if endpoint.requester_pays and not authorizer.whole_objects_only:
        botocore_internals.before_parameters(client, '', partial(_pay, client))
    botocore_internals.without_expect(client)
    client.meta.events.register_first('before-send.s3', Stoppable.refuse_if_stopped)
    return client


def _make(endpoint: Endpoint, authorizer: Authorizer, patience: Patience) -> 'S3Client':
    client = _make_bare(endpoint, authorizer, patience)
    NeverOverwrite(client, endpoint, can_look=not authorizer.whole_objects_only)
    OptionalHeaders(client)
    if authorizer.whole_objects_only:
        client.meta.events.register('before-send.s3.PutObject', _add_md5_to_signed)
    else:
        for operation in ('PutObject', 'UploadPart') if endpoint.checksum == 'md5' else ():
            botocore_internals.before_call(client, operation, _add_md5)
        # The model of botocore does not have it, but some storages want it for all settings of a bucket.
        botocore_internals.before_call(client, 'PutBucketNotificationConfiguration', _add_md5)
        for operation in botocore_internals.operations_with_checksum(client):
            botocore_internals.before_call(client, operation, _add_md5)
            if endpoint.checksum != 'crc32':
                botocore_internals.before_call(client, operation, botocore_internals.without_checksum)
    return client


def _pay(client: 'S3Client', operation: str, params: dict[str, Any], _: dict[str, Any]) -> None:
    """Let the requester pay.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/RequesterPaysBuckets.html
    """
    shape = client.meta.service_model.operation_model(operation).input_shape
    if shape is not None and 'RequestPayer' in shape.members:
        params.setdefault('RequestPayer', 'requester')


def _config(endpoint: Endpoint, authorizer: Authorizer) -> Config:
    # On a signed URL, an unsigned x-amz-... header is refused.
    integrity: Literal['when_supported', 'when_required'] = (
        'when_supported' if endpoint.checksum == 'crc32' and not authorizer.whole_objects_only else 'when_required'
    )
    style: Any = {'addressing_style': 'path' if authorizer.whole_objects_only else endpoint.addressing}
    return Config(
        signature_version='s3v4' if authorizer.signed else UNSIGNED,
        s3=style,
        max_pool_connections=max(CONNECTIONS, 4 * endpoint.max_concurrency),
        request_checksum_calculation=integrity,
        response_checksum_validation='when_required' if authorizer.whole_objects_only else 'when_supported',
    )


def _date(value: Any) -> Optional[datetime]:
    """Parse a date in a listing; return None for a date in another format."""
    try:
        return from_text(value)
    except (TypeError, ValueError):
        return None


class Stoppable:
    """A client for one transfer that can be stopped: then it waits for no answer, and sends no more requests.

    Only a multipart upload can still be aborted.
    """

    def __init__(self, client: 'S3Client', stop: threading.Event) -> None:
        self._client = client
        self._stop = stop

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if not callable(attribute) or name == 'abort_multipart_upload':
            return attribute

        def call(*arguments: Any, **keywords: Any) -> Any:
            with deadlines.ended_by(self._stop):
                return attribute(*arguments, **keywords)

        return call

    @classmethod
    def of(cls, client: 'S3Client', stop: threading.Event, *more: Any) -> 'S3Client':
        """Wrap a client, and type the result as one.

        :param client: The client.
        :param stop: Stops it when it is set.
        :param more: More arguments of the class.
        """
        return cast('S3Client', cls(client, stop, *more))

    @classmethod
    def refuse_if_stopped(cls, **_: Any) -> None:
        """Refuse a request of a transfer that was stopped.

        :raises CancelledError: if it was stopped.
        """
        if deadlines.is_stopped():
            raise CancelledError


def _add_md5(request: dict[str, Any], _context: dict[str, Any]) -> None:
    """Add Content-MD5, the only check of uploads that all storages support. The body is in memory or small.

    Requests that need a checksum (DeleteObjects, PutBucketPolicy, ...) always have it: boto3 since 1.36 sends CRC32,
    which is not enough for storages that know no other checksum than the MD5.
    """
    request['headers']['Content-MD5'] = _md5(request['body'])


def _add_md5_to_signed(request: 'AWSPreparedRequest', **_: Any) -> None:
    """Add Content-MD5 to a signed URL. Version 4 allows unsigned headers; older signatures cover this one."""
    if 'X-Amz-Signature=' in str(request.url):
        request.headers['Content-MD5'] = _md5(request.body)


def _md5(body: Any) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    if isinstance(body, (bytes, bytearray)):
        digest.update(body)
    else:
        start = body.tell()
        while block := body.read(1024 * 1024):
            digest.update(block)
        body.seek(start)
    return base64.b64encode(digest.digest()).decode()
