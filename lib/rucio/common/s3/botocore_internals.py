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
"""Everything that is used of botocore beyond its documented API, and may change in any release.

botocore documents sessions, clients, their configuration, requests, exceptions and the event ``before-send``.
Everything else that this project needs is here, in a function of its own: a release that changes something only affects
this module. tests/unit/test_botocore_internals.py tests each function with the installed version. Checked with botocore
1.37.0, 1.40.64, 1.42.97 and 1.44.8.
"""

import io
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any, Optional

import botocore.session
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.credentials import (
    CredentialProvider,
    CredentialResolver,
    Credentials,
    DeferredRefreshableCredentials,
    ReadOnlyCredentials,
)
from botocore.endpoint import convert_to_response_dict
from botocore.handlers import add_expect_header
from botocore.httpsession import URLLib3Session, get_cert_path
from botocore.parsers import ResponseParserFactory
from botocore.regions import EndpointResolver
from botocore.utils import determine_content_length, parse_timestamp
from urllib3.util import wait_for_read  # type: ignore[import-untyped,unused-ignore] # only urllib3 2 is typed

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    'after_call',
    'authorise_requests',
    'authorities',
    'before_call',
    'before_parameters',
    'before_parsing',
    'before_retry',
    'before_signing',
    'bucket_url',
    'check_answers',
    'few_endpoints',
    'instead_of_a_call',
    'isolated_session',
    'know_all_services',
    'limit_reads',
    'max_attempts',
    'no_variables',
    'operations_with_checksum',
    'parsed',
    'payload_hash',
    'read_dates',
    'renewed_keys',
    'send',
    'send_blocks_of',
    'send_unsigned',
    'set_content',
    'stop_redirects',
    'unread',
    'without_checksum',
    'without_expect',
    'wrap_send',
]

_NOBODY = ReadOnlyCredentials('', '', None)

_OTHER_PARTITIONS = ('cn-', 'eu-iso', 'eusc-', 'us-gov-', 'us-iso')  # of AWS
_SIGNATURES = ['s3', 's3v4']
_TICK = 0.5  # seconds after which a read looks whether it was stopped
_ENDPOINTS: dict[str, Any] = {  # what botocore/data/endpoints.json has of S3, but for names of hosts
    'version': 3,
    'partitions': [
        {
            'partition': 'aws',
            'dnsSuffix': 'amazonaws.com',
            'regionRegex': r'^[a-z]{2}\-\w+\-\d+$',
            'defaults': {'hostname': '{service}.{region}.{dnsSuffix}', 'signatureVersions': ['v4']},
            'regions': {},
            'services': {
                's3': {
                    'defaults': {'protocols': ['http', 'https'], 'signatureVersions': ['s3v4']},
                    'partitionEndpoint': 'aws-global',
                    'isRegionalized': True,
                    'endpoints': {
                        'aws-global': {
                            'credentialScope': {'region': 'us-east-1'},
                            'signatureVersions': _SIGNATURES,
                        },
                        'us-east-1': {'signatureVersions': _SIGNATURES},
                    },
                }
            },
        }
    ],
}


# Sessions and keys


class _Fixed(CredentialProvider):
    METHOD = 'rucio-s3'
    CANONICAL_NAME = 'rucio-s3'

    def __init__(self, credentials: Optional[Credentials]) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> Optional[Credentials]:
        return self._credentials


def isolated_session(credentials: Optional[Credentials]) -> botocore.session.Session:
    """Make a session with these credentials, which reads neither ``~/.aws`` nor any ``AWS_...`` variable.

    Uses the component ``credential_provider``: the public ``set_credentials`` only takes fixed keys.

    :param credentials: The keys; None for anonymous access.
    """
    session = botocore.session.Session(session_vars=no_variables())
    session.set_config_variable('ignore_configured_endpoint_urls', True)  # AWS_ENDPOINT_URL
    session.register_component('credential_provider', CredentialResolver([_Fixed(credentials)]))
    return session


def no_variables() -> dict[str, Any]:
    """Return the ``session_vars`` of a session that reads no file and no variable.

    Uses the table of the variables of a session (BOTOCORE_DEFAUT_SESSION_VARIABLES: name -> name in the file, variable,
    default, conversion). The public ``set_config_variable`` overrides one setting at a time.
    """
    files = {'config_file': os.devnull, 'credentials_file': os.devnull}
    return {
        name: (config, None, files.get(name, default), convert)
        for name, (config, _, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }


def know_all_services(session: botocore.session.Session) -> None:
    """Let a session make clients without looking for the models of all services.

    Replaces ``list_available_services`` of the component ``data_loader``, by which it finds out whether there is the
    one that it is asked for: it looks for 2,700 files, in a fifth of the time that it takes to make a client. Whether
    there is a model of the right type is then seen when it is loaded.

    :param session: The session.
    """
    loader = session.get_component('data_loader')

    def names(type_name: str) -> list[str]:
        found = {entry.name for path in loader.search_paths if os.path.isdir(path) for entry in os.scandir(path)}
        return sorted(found)

    loader.list_available_services = names


@contextmanager
def few_endpoints(session: botocore.session.Session, region: Optional[str]) -> Iterator[None]:
    """Let a session make a client of S3 whose URL and signature are given, without AWS's list of all its endpoints.

    Within a block.

    Replaces the internal component ``endpoint_resolver`` by one that has of this list, 1.2 MB of JSON, what then still
    matters: the versions of signatures, and that no region is us-east-1. Does nothing for a region of AWS that is in
    another partition.

    :param session: The session.
    :param region: The region of the client.
    """
    components: Any = session._internal_components  # type: ignore[attr-defined] # noqa: SLF001
    made, deferred = dict(components._components), dict(components._deferred)  # noqa: SLF001
    if not (region or '').startswith(_OTHER_PARTITIONS):
        components.register_component('endpoint_resolver', EndpointResolver(_ENDPOINTS))
    try:
        yield
    finally:
        components._components, components._deferred = made, deferred  # noqa: SLF001


def renewed_keys(fetch: Callable[[], Mapping[str, str]], early: int, late: int) -> Credentials:
    """Make credentials that are fetched when first needed, and again before they expire, by one thread at a time.

    Uses DeferredRefreshableCredentials with its ``_advisory_refresh_timeout`` and ``_mandatory_refresh_timeout``: the
    constructor has no parameters for them, and the defaults of 15 and 10 minutes may exceed the lifetime of keys.

    :param fetch: Returns access_key, secret_key, token and expiry_time (ISO 8601).
    :param early: Fetch new ones so many seconds before they expire; if that fails, the old ones are used.
    :param late: Raise a failure from so many seconds before they expire.
    """
    keys: Any = DeferredRefreshableCredentials(fetch, 'rucio-s3')
    keys._advisory_refresh_timeout, keys._mandatory_refresh_timeout = early, late  # noqa: SLF001
    return keys  # type: ignore[no-any-return]


# Answers


def read_dates(session: botocore.session.Session, read: 'Callable[[Any], Optional[datetime]]') -> None:
    """Let the clients of a session parse dates in answers with ``read``.

    Uses the component ``response_parser_factory``, its ``set_parser_defaults`` and ``utils.parse_timestamp``, which
    takes three quarters of the time for reading a listing and cannot be replaced by public API.

    :param session: The session.
    :param read: Returns a datetime, or None to use botocore's function. A date that neither can parse is None, and does
        not make the rest of the answer unreadable.
    """

    def parse(value: Any) -> 'Optional[datetime]':
        try:
            found: datetime = read(value) or parse_timestamp(value)
        except (ValueError, TypeError, OverflowError, OSError, RuntimeError):
            return None
        return found

    session.get_component('response_parser_factory').set_parser_defaults(timestamp_parser=parse)


def check_answers(
    session: botocore.session.Session, parse: Callable[[Callable[[], Any], Mapping[str, Any], str], Any]
) -> None:
    """Let the clients of a session parse answers with ``parse(read, response, name)``.

    A number that cannot be parsed is None, and does not make the rest of the answer unreadable.

    Replaces the component ``response_parser_factory``, and the ``parse``, ``_handle_integer`` and ``_handle_long`` of
    its parsers. The event ``before-parse`` comes before an answer is parsed, but cannot see exceptions of the parser.

    :param session: The session.
    :param parse: Gets a function that returns what botocore parses, the response (a dictionary with status_code,
        headers and body), and the name of the answer in botocore's model, such as ``PutObjectOutput``.
    """

    class Parsers(ResponseParserFactory):
        def create_parser(self, protocol_name: str) -> Any:
            parser: Any = super().create_parser(protocol_name)
            own, number = parser.parse, parser._handle_integer  # noqa: SLF001
            parser._handle_integer = parser._handle_long = lambda shape, node: _number(number, shape, node)  # noqa: SLF001
            parser.parse = lambda response, shape: parse(
                lambda: own(response, shape), response, shape.name if shape is not None else ''
            )
            return parser

    session.register_component('response_parser_factory', Parsers())


def _number(read: Callable[[Any, Any], Any], shape: Any, node: Any) -> Optional[int]:
    try:
        found: int = read(shape, node)
    except (ValueError, TypeError):  # no digits, or the element twice
        return None
    return found


def wrap_send(client: Any, handler: Callable[[Callable[[Any], Any], Any], Any]) -> None:
    """Let a client send each request by ``handler(send, request)``, which calls ``send(request)`` for the answer.

    Uses ``client._endpoint.http_session``, in which botocore reads the whole answer; a handler of ``before-send`` would
    have to send the request itself.

    :param client: The client.
    :param handler: The function to call. Of several, the last one is the outermost.
    """
    inner = client._endpoint  # noqa: SLF001
    inner.http_session = _Wrapped(inner.http_session, handler)


def send(
    client: Any, operation: str, method: str, url: str, headers: Mapping[str, str], body: Optional[bytes]
) -> AWSResponse:
    """Send a request that is complete and signed through the connections of a client, once, with all that wraps them.

    Emits the event ``before-send``, and uses ``client._endpoint.http_session``: in all public ways botocore builds the
    request itself.

    :param client: A client of S3.
    :param operation: The operation.
    :param method: The HTTP method.
    :param url: The URL.
    :param headers: The headers.
    :param body: The body. Without one, the body of a successful answer is left to the caller.
    """
    # A dict: botocore's own, which ignores case, takes a tenth of the CPU time of a small request.
    made: Any = {'User-Agent': client.meta.config.user_agent, **headers}
    request = AWSPreparedRequest(method, url, made, body, stream_output=body is None)
    client.meta.events.emit(f'before-send.s3.{operation}', request=request)
    answer: AWSResponse = client._endpoint.http_session.send(request)  # noqa: SLF001
    return answer


class _Wrapped:
    """An HTTP session around another one."""

    def __init__(self, session: Any, handler: Callable[[Callable[[Any], Any], Any], Any]) -> None:
        self._session = session
        self._handler = handler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def send(self, request: Any) -> Any:
        return self._handler(self._session.send, request)


def limit_reads(
    client: Any,
    seconds_left: Callable[[], Optional[float]],
    is_stopped: Callable[[], Optional[bool]] = lambda: None,
) -> None:
    """Let no read of an answer of a client wait longer than ``seconds_left()``, and fail when that is 0 or less.

    Replaces the connection classes in ``_pool_classes_by_scheme`` of its HTTP session by some whose
    ``response_class`` reads from a file that sets the time-out of the socket before each read. The time-outs of
    botocore and urllib3 are for each read, and begin again with each byte.

    :param client: The client, whose HTTP session was not replaced yet.
    :param seconds_left: Called before each read, in the thread that reads; None means no limit.
    :param is_stopped: Called during each read, in the same thread: True ends it within a second. None if it is before
        the read: nobody will stop it.
    """

    class Response(HTTPResponse):
        def __init__(self, sock: Any, *arguments: Any, **keywords: Any) -> None:
            super().__init__(sock, *arguments, **keywords)
            self.fp.close()
            self.fp = io.BufferedReader(_TimedFile(sock, seconds_left, is_stopped))

    pools = client._endpoint.http_session._pool_classes_by_scheme  # noqa: SLF001
    for scheme, pool in pools.items():
        connection = type(pool.ConnectionCls.__name__, (pool.ConnectionCls,), {'response_class': Response})
        pools[scheme] = type(pool.__name__, (pool,), {'ConnectionCls': connection})


def send_blocks_of(client: Any, size: int) -> None:
    """Let a client read and send bodies in blocks of this size.

    Fixes ``blocksize`` of the connection classes in ``_pool_classes_by_scheme`` of its HTTP session, which http.client
    takes for each read and send. It is 8 or 16 KiB, and botocore has no setting for it: a GiB then is 131,072 rounds
    through botocore's and s3transfer's wrappers of a body, with a third of the CPU time.

    :param client: The client, whose HTTP session was not replaced yet.
    :param size: The size in bytes.
    """
    pools = client._endpoint.http_session._pool_classes_by_scheme  # noqa: SLF001
    for scheme, pool in pools.items():
        fixed = {'blocksize': property(lambda _: size, lambda *_: None)}
        connection = type(pool.ConnectionCls.__name__, (pool.ConnectionCls,), fixed)
        pools[scheme] = type(pool.__name__, (pool,), {'ConnectionCls': connection})


class _TimedFile(io.RawIOBase):
    """What is read from a socket, with a limit in time, and until somebody stops it."""

    def __init__(
        self,
        sock: Any,
        seconds_left: Callable[[], Optional[float]],
        is_stopped: Callable[[], Optional[bool]] = lambda: None,
    ) -> None:
        self._sock = sock
        self._is_stopped = is_stopped
        self._file: io.RawIOBase = sock.makefile('rb', buffering=0)
        self._usual = sock.gettimeout()
        self._seconds_left = seconds_left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        if self._is_stopped() is not None:
            self._wait()
        left = self._seconds_left()
        if left is None or (self._usual is not None and left >= self._usual):
            return self._file.readinto(buffer)
        if left <= 0:
            raise TimeoutError('timed out')
        self._sock.settimeout(left)
        try:
            return self._file.readinto(buffer)
        finally:
            self._sock.settimeout(self._usual)  # the connection may be used again

    def _wait(self) -> None:
        limits = [seconds for seconds in (self._usual, self._seconds_left()) if seconds is not None]
        end = time.monotonic() + min(limits, default=math.inf)
        while not self._is_readable(min(_TICK, end - time.monotonic())):
            if self._is_stopped() or time.monotonic() >= end:
                raise TimeoutError('timed out')

    def _is_readable(self, seconds: float) -> bool:
        # TLS may have decrypted more than was read.
        has_more = getattr(self._sock, 'pending', int)()
        return bool(has_more) or wait_for_read(self._sock, timeout=max(0.0, seconds))

    def fileno(self) -> int:
        return int(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def unread(request: 'AWSPreparedRequest') -> Iterator[None]:
    """Keep botocore's HTTP session from reading the body of the answer to this request, within a block.

    Relies on the session reading ``answer.content`` itself unless ``request.stream_output`` is set.

    :param request: The request.
    """
    before, request.stream_output = request.stream_output, True
    try:
        yield
    finally:
        request.stream_output = before


def set_content(answer: Any, content: bytes) -> None:
    """Set the body of an AWSResponse.

    Sets ``_content``, which ``content`` returns without reading: that property has no setter.

    :param answer: The response.
    :param content: The body.
    """
    answer._content = content  # noqa: SLF001


# The steps of a call, in their order. All but before-send are undocumented events.


def before_parameters(
    client: Any, operation: str, handler: Callable[[str, dict[str, Any], dict[str, Any]], object]
) -> None:
    """Call ``handler(operation, parameters, context)`` before a request is built from the parameters.

    The handler may change the parameters. The context is that of the later steps of the same call.

    Uses the event ``before-parameter-build``: of the documented ``provide-client-params`` no context is documented.

    :param client: The client.
    :param operation: An operation of S3; empty for all.
    :param handler: The function to call.
    """
    client.meta.events.register(
        _of('before-parameter-build', operation),
        lambda params, model, context, **_: handler(model.name, params, context),
    )


def before_call(
    client: Any, operation: str, handler: Callable[[dict[str, Any], dict[str, Any]], Optional[tuple[Any, Any]]]
) -> None:
    """Call ``handler(request, context)`` when a request of S3 is built and not yet signed.

    The request is a dictionary with method, url, headers and body. If the handler returns something, which has to be
    from :func:`instead_of_a_call`, nothing is sent.

    Uses the event ``before-call``, after all other handlers of the operation. ``before-send`` comes after signing.

    :param client: The client.
    :param operation: An operation of S3; empty for all.
    :param handler: The function to call.
    """
    client.meta.events.register_last(
        _of('before-call', operation), lambda params, context, **_: handler(params, context)
    )


def instead_of_a_call(parsed: dict[str, Any]) -> tuple[AWSResponse, dict[str, Any]]:
    """Build the result of a handler of :func:`before_call` that answers the call with ``parsed``, without a request.

    Relies on botocore taking a response and what is parsed of it from there, as if they came from the storage.

    :param parsed: The answer.
    """
    parsed['ResponseMetadata'] = {'HTTPStatusCode': 200, 'HTTPHeaders': {}, 'RetryAttempts': 0}
    return AWSResponse('', 200, HTTPHeaders(), None), parsed


def bucket_url(client: Any, bucket: str) -> str:
    """Return the URL to which a client appends a slash and the key, as its ``addressing_style`` and AWS's rules say.

    Uses ``_resolve_endpoint_ruleset``: botocore has no public function for it.

    :param client: A client of S3.
    :param bucket: The bucket.
    """
    model = client.meta.service_model.operation_model('GetObject')
    url, _, _ = client._resolve_endpoint_ruleset(model, {'Bucket': bucket, 'Key': 'key'}, {})  # noqa: SLF001
    return str(url)


def max_attempts(client: Any) -> int:
    """Return how often a client sends a request at most; 1 if it was not told.

    :param client: The client.
    """
    return int((client.meta.config.retries or {}).get('total_max_attempts', 1))


def parsed(client: Any, operation: str, answer: AWSResponse) -> dict[str, Any]:
    """Parse an answer whose body was read as a client does, with what :func:`check_answers` added.

    Uses ``endpoint.convert_to_response_dict`` and ``client._endpoint._response_parser_factory``.

    :param client: A client of S3.
    :param operation: The operation.
    :param answer: The answer.
    """
    model = client.meta.service_model.operation_model(operation)
    parser = client._endpoint._response_parser_factory.create_parser('rest-xml')  # noqa: SLF001
    found: dict[str, Any] = parser.parse(convert_to_response_dict(answer, model), model.output_shape)
    return found


def operations_with_checksum(client: Any) -> list[str]:
    """Return the operations of a client's service whose requests need a checksum of the body.

    Uses ``http_checksum`` and ``http_checksum_required`` of the models of operations.

    :param client: The client.
    """
    service = client.meta.service_model
    models = [service.operation_model(name) for name in service.operation_names]
    return [
        each.name for each in models if each.http_checksum_required or each.http_checksum.get('requestChecksumRequired')
    ]


def without_checksum(_request: dict[str, Any], context: dict[str, Any]) -> None:
    """Send no ``x-amz-checksum-...`` that the user of the client did not ask for: a handler of :func:`before_call`.

    Uses ``checksum`` in the context of the request, which botocore applies after the handlers. No setting of botocore
    prevents a checksum of requests that need one.

    :param _request: The request.
    :param context: Its context.
    """
    context.pop('checksum', None)


def checksum_in_header(_request: dict[str, Any], context: dict[str, Any]) -> None:
    """Send the checksum of a body in a header, not in a trailer, which needs aws-chunked encoding and has no length.

    A handler of :func:`before_call`. Uses ``checksum`` in the context of the request, as :func:`without_checksum` does:
    botocore sends a trailer for every stream over https.

    :param _request: The request.
    :param context: Its context.
    """
    algorithm = context.get('checksum', {}).get('request_algorithm')
    if isinstance(algorithm, dict) and algorithm.get('in') == 'trailer':
        context['checksum']['request_algorithm'] = {**algorithm, 'in': 'header'}


def content_length(request: AWSRequest) -> Optional[int]:
    """Return the Content-Length that botocore will send; None if it will send none.

    Uses ``utils.determine_content_length``, as ``AWSRequest.prepare`` does, which comes after signing.

    :param request: The request.
    """
    if 'Transfer-Encoding' in request.headers:
        return None
    if (given := request.headers.get('Content-Length')) is not None:
        return int(given)
    length: Optional[int] = determine_content_length(request.data)
    return length


def without_expect(client: Any) -> None:
    """Let a client of S3 send bodies without ``Expect: 100-continue``.

    Unregisters ``handlers.add_expect_header``, for which there is no setting. If a server answers before it received
    the body, botocore uses that answer for the next request as well.

    :param client: The client.
    """
    client.meta.events.unregister('before-call.s3', add_expect_header)


def authorise_requests(
    client: Any,
    authorise: Callable[[AWSRequest, str], object],
    keys_for_url: Callable[[AWSRequest], Optional[Credentials]],
    *,
    signed: bool,
) -> None:
    """Call ``authorise(request, region)`` for each attempt of a request of S3, instead of signing it.

    botocore still signs URLs (``generate_presigned_url``).

    Uses the events ``choose-signer`` and ``before-sign``, the names of signatures for URLs, which end in ``-query``,
    and ``signing`` in the request's context: its ``region``, which a redirect sets, and its ``request_credentials``.
    botocore documents no way to sign with anything but the session's keys.

    :param client: The client.
    :param authorise: The function to call; it changes the request.
    :param keys_for_url: Returns the keys to sign a URL with, or None to use those of the session.
    :param signed: False for a client made with ``signature_version`` UNSIGNED, which is authorised nevertheless. True:
        botocore signs if the user of the client configured another signature than version 4.
    """

    def choose(signature_version: Any, context: dict[str, Any], **_: Any) -> Any:
        context['rucio_s3_authorise'] = not signed or signature_version in ('s3v4', 'v4')
        return UNSIGNED if context['rucio_s3_authorise'] else None

    def called(request: AWSRequest, region_name: str, signature_version: Any, **_: Any) -> None:
        signing = request.context.setdefault('signing', {})
        if request.context['rucio_s3_authorise']:
            authorise(request, signing.get('region') or region_name)
        elif str(signature_version).endswith('-query') and (keys := keys_for_url(request)):
            signing['request_credentials'] = keys

    client.meta.events.register_first('choose-signer.s3', choose)
    client.meta.events.register_last('before-sign.s3', called)


@contextmanager
def before_signing(client: Any, operation: str, handler: Callable[[AWSRequest], object]) -> Iterator[None]:
    """Call ``handler(request)`` before each attempt of an operation is signed, within a block.

    The event ``before-sign``.

    :param client: The client.
    :param operation: An operation of S3.
    :param handler: The function to call.
    """
    event = f'before-sign.s3.{operation}'

    def called(request: AWSRequest, **_: Any) -> None:
        handler(request)

    client.meta.events.register_first(event, called)
    try:
        yield
    finally:
        client.meta.events.unregister(event, called)


def before_retry(client: Any, handler: Callable[[str, int, Any, dict[str, Any]], Optional[float]]) -> None:
    """Call ``handler(operation, attempts, answer, request)`` after each attempt.

    If the handler returns a number, botocore tries again after so many seconds. The answer is parsed, or None if there
    was none. The request is a dictionary with headers and context, of which the next attempt is made.

    The event ``needs-retry``, after botocore's own handlers; its retry modes only support fixed lists of errors.

    :param client: The client.
    :param handler: The function to call.
    """
    client.meta.events.register_last(
        'needs-retry.s3',
        lambda operation, attempts, response, request_dict, **_: handler(
            operation.name, attempts, response[1] if response else None, request_dict
        ),
    )


def stop_redirects(client: Any, is_enough: Callable[[str, str, bool], bool]) -> None:
    """Stop a client of S3 from following redirects for which ``is_enough(operation, bucket, region is known)``.

    Uses the event ``needs-retry`` and ``s3_redirect`` in the context of the request, with its ``bucket`` and
    ``redirected``, by which botocore's redirector remembers that it followed one; no setting disables it.

    :param client: The client.
    :param is_enough: Returns whether to stop.
    """

    def handler(request_dict: dict[str, Any], response: Any, operation: Any, **_: Any) -> None:
        redirect = request_dict.get('context', {}).get('s3_redirect')
        if not redirect or response is None:
            return
        told = 'x-amz-bucket-region' in response[1].get('ResponseMetadata', {}).get('HTTPHeaders', {})
        if is_enough(operation.name, redirect.get('bucket') or '', told):
            redirect['redirected'] = True

    client.meta.events.register_first('needs-retry.s3', handler)


def before_parsing(client: Any, service: str, handler: Callable[[dict[str, Any]], object]) -> None:
    """Call ``handler(response)`` before an answer is parsed.

    The response is a dictionary with status_code, headers and body, which the handler may change. The event
    ``before-parse``.

    :param client: The client.
    :param service: The service.
    :param handler: The function to call.
    """
    client.meta.events.register(f'before-parse.{service}', lambda response_dict, **_: handler(response_dict))


def after_call(client: Any, operation: str, handler: Callable[[int, dict[str, Any], dict[str, Any]], object]) -> None:
    """Call ``handler(status, parsed answer, context)`` after a call, before botocore raises an exception for an error.

    The event ``after-call``.

    :param client: The client.
    :param operation: An operation of S3; empty for all.
    :param handler: The function to call.
    """
    client.meta.events.register(
        f'after-call.s3.{operation}',
        lambda http_response, parsed, context, **_: handler(http_response.status_code, parsed, context),
    )


def _of(event: str, operation: str) -> str:
    return f'{event}.s3.{operation}' if operation else f'{event}.s3'


# Signatures


def payload_hash(request: AWSRequest) -> str:
    """Return the payload hash that botocore would sign: the body's SHA-256, or less over https if it has a checksum.

    Uses ``auth.S3SigV4Auth.payload``, which depends on undocumented entries of the request's context.

    :param request: The request.
    """
    return str(S3SigV4Auth(_NOBODY, 's3', '').payload(request))


# Without a client


def authorities() -> str:
    """Return the file of certificates that botocore trusts by default.

    Uses ``httpsession.get_cert_path``; only botocore knows whether that is certifi's or its own.
    """
    return str(get_cert_path(True))


def send_unsigned(url: str, ca_bundle: str, proxies: Optional[dict[str, str]], timeout: int) -> AWSResponse:
    """GET a URL without authorisation, in the same way as botocore's clients.

    Uses ``httpsession.URLLib3Session``.

    :param url: The URL.
    :param ca_bundle: The path of a PEM file.
    :param proxies: Scheme -> URL.
    :param timeout: In seconds, for the connection and for each read.
    """
    trusted: Any = ca_bundle  # the type stubs only allow bool
    session = URLLib3Session(verify=trusted, proxies=proxies, timeout=timeout)
    return session.send(AWSRequest('GET', url).prepare())
