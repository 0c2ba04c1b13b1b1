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
"""What is used of botocore that it does not document, and may change in any release.

botocore documents sessions, clients, their configuration, requests, exceptions and one event, ``before-send``. All else
that this project needs of it is here, a function for each thing, so that a release that changes one is met in one
place: tests/unit/test_botocore_internals.py has a test for each, and runs with whatever version is installed. Checked
with botocore 1.37.0, 1.40.64, 1.42.97 and 1.44.8.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Optional

import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.credentials import (
    CredentialProvider,
    CredentialResolver,
    Credentials,
    DeferredRefreshableCredentials,
    ReadOnlyCredentials,
)
from botocore.handlers import add_expect_header
from botocore.httpsession import URLLib3Session, get_cert_path
from botocore.parsers import ResponseParserFactory
from botocore.utils import parse_timestamp

if TYPE_CHECKING:
    from datetime import datetime

    from botocore.awsrequest import AWSPreparedRequest

__all__ = [
    'after_attempt',
    'after_call',
    'authorities',
    'before_call',
    'before_parameters',
    'before_parsing',
    'before_retry',
    'before_signing',
    'check_answers',
    'instead_of_a_call',
    'isolated_session',
    'payload_hash',
    'read_dates',
    'renewed_keys',
    'replace_http_session',
    'send_unsigned',
    'set_content',
    'signature',
    'stop_redirects',
    'unread',
    'without_expect',
]

_NOBODY = ReadOnlyCredentials('', '', None)


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
    """A session with these credentials, which reads neither ``~/.aws`` nor any ``AWS_...`` variable.

    Uses the table of the variables of a session (BOTOCORE_DEFAUT_SESSION_VARIABLES: name -> name in the file, variable,
    default, conversion) and the component ``credential_provider``. The public ``set_config_variable`` overrides one
    setting at a time, and ``set_credentials`` takes only fixed keys.
    """
    files = {'config_file': os.devnull, 'credentials_file': os.devnull}
    nothing: dict[str, Any] = {
        name: (config, None, files.get(name, default), convert)
        for name, (config, _, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
    session = botocore.session.Session(session_vars=nothing)
    session.set_config_variable('ignore_configured_endpoint_urls', True)  # AWS_ENDPOINT_URL
    session.register_component('credential_provider', CredentialResolver([_Fixed(credentials)]))
    return session


def renewed_keys(fetch: Callable[[], Mapping[str, str]], early: int, late: int) -> Credentials:
    """Keys that are fetched when they are first needed, and again before they end, by one thread at a time.

    Uses DeferredRefreshableCredentials and its ``_advisory_refresh_timeout`` and ``_mandatory_refresh_timeout``: its
    constructor takes no times, and its own 15 and 10 minutes may be all the life that keys have.

    :param fetch: Returns access_key, secret_key, token and expiry_time (ISO 8601).
    :param early: Seconds before their end at which new ones are fetched; the old ones serve if that fails.
    :param late: Seconds before their end at which that failure is raised.
    """
    keys: Any = DeferredRefreshableCredentials(fetch, 'rucio-s3')
    keys._advisory_refresh_timeout, keys._mandatory_refresh_timeout = early, late  # noqa: SLF001
    return keys  # type: ignore[no-any-return]


# Answers


def read_dates(session: botocore.session.Session, read: 'Callable[[Any], Optional[datetime]]') -> None:
    """Have the clients of a session read dates in answers with ``read``, and with botocore's function where that
    returns None.

    Uses the component ``response_parser_factory``, its ``set_parser_defaults`` and ``utils.parse_timestamp``: that
    takes three quarters of the time in which a listing is read, and nothing public replaces it.
    """

    def parse(value: Any) -> 'datetime':
        found: datetime = read(value) or parse_timestamp(value)
        return found

    session.get_component('response_parser_factory').set_parser_defaults(timestamp_parser=parse)


def check_answers(
    session: botocore.session.Session, parse: Callable[[Callable[[], Any], Mapping[str, Any]], Any]
) -> None:
    """Have the clients of a session read answers with ``parse(read, response)``: ``read()`` is what botocore makes of
    the response, a dictionary with status_code, headers and body.

    Replaces the component ``response_parser_factory`` and the ``parse`` of the parsers that it makes. The event
    ``before-parse`` sees an answer before it is parsed, but no exception of the parser.
    """

    class Parsers(ResponseParserFactory):
        def create_parser(self, protocol_name: str) -> Any:
            parser: Any = super().create_parser(protocol_name)
            own = parser.parse
            parser.parse = lambda response, shape: parse(lambda: own(response, shape), response)
            return parser

    session.register_component('response_parser_factory', Parsers())


def replace_http_session(client: Any, made: Callable[[Any], Any]) -> None:
    """Have a client send its requests through ``made(its HTTP session)``, which has ``send(request)``.

    Uses ``client._endpoint.http_session``: botocore reads a whole answer in there, and the event ``before-send`` would
    have to send the request itself.
    """
    inner = client._endpoint  # noqa: SLF001
    inner.http_session = made(inner.http_session)


@contextmanager
def unread(request: 'AWSPreparedRequest') -> Iterator[None]:
    """Inside the block botocore's HTTP session does not read the body of the answer to this request.

    Relies on the session reading ``answer.content`` itself unless ``request.stream_output`` is set.
    """
    before, request.stream_output = request.stream_output, True
    try:
        yield
    finally:
        request.stream_output = before


def set_content(answer: Any, content: bytes) -> None:
    """Give an AWSResponse the body that was read of it.

    Sets ``_content``, which ``content`` returns without reading: that property has no setter.
    """
    answer._content = content  # noqa: SLF001


# The steps of a call. All but before-send are undocumented events. In the order in which they come:


def before_parameters(
    client: Any, operation: str, handler: Callable[[str, dict[str, Any], dict[str, Any]], object]
) -> None:
    """Call ``handler(operation, parameters, context)`` before a request is built of the parameters, which it may
    change. The context is that of the later steps of the same call.

    The event ``before-parameter-build``; the documented ``provide-client-params`` comes without the context of some
    releases.

    :param operation: Of S3; empty: each.
    """
    client.meta.events.register(
        _of('before-parameter-build', operation),
        lambda params, model, context, **_: handler(model.name, params, context),
    )


def before_call(
    client: Any, operation: str, handler: Callable[[dict[str, Any], dict[str, Any]], Optional[tuple[Any, Any]]]
) -> None:
    """Call ``handler(request, context)`` when a request of S3 is built and not yet signed: a dictionary with method,
    url, headers and body. If it returns something, which has to be :func:`instead_of_a_call`, nothing is sent.

    The event ``before-call``, after all other handlers of the operation. ``before-send`` comes after the signature.
    """
    client.meta.events.register_last(
        f'before-call.s3.{operation}', lambda params, context, **_: handler(params, context)
    )


def instead_of_a_call(parsed: dict[str, Any]) -> tuple[AWSResponse, dict[str, Any]]:
    """What a handler of :func:`before_call` returns for a call to be answered with ``parsed``, without a request."""
    parsed['ResponseMetadata'] = {'HTTPStatusCode': 200, 'HTTPHeaders': {}, 'RetryAttempts': 0}
    return AWSResponse('', 200, HTTPHeaders(), None), parsed


def without_expect(client: Any) -> None:
    """Have a client of S3 send its bodies without ``Expect: 100-continue``.

    Unregisters ``handlers.add_expect_header``: no setting does. Where a server answers before it has the body, botocore
    takes that answer for the one to the next request, too.
    """
    client.meta.events.unregister('before-call.s3', add_expect_header)


@contextmanager
def before_signing(client: Any, operation: str, handler: Callable[[AWSRequest], object]) -> Iterator[None]:
    """Inside the block ``handler(request)`` is called before each attempt of an operation is signed: the event
    ``before-sign``.
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
    """Call ``handler(operation, attempts, answer, context)`` after each attempt. The answer is what was parsed, or None
    where none came. If it returns a number, botocore tries again after so many seconds.

    The event ``needs-retry``, after botocore's own handlers; retry modes know only fixed lists of errors.
    """
    client.meta.events.register_last(
        'needs-retry.s3',
        lambda operation, attempts, response, request_dict, **_: handler(
            operation.name, attempts, response[1] if response else None, request_dict.get('context', {})
        ),
    )


def after_attempt(client: Any, handler: Callable[[Optional[BaseException]], object]) -> None:
    """Call ``handler(exception)`` after each attempt, of any service; None: there was an answer. What it raises ends
    the call: no other attempt is made.

    The event ``response-received``; what a handler of ``needs-retry`` answers can only add attempts.
    """
    client.meta.events.register_first('response-received', lambda exception, **_: handler(exception))


def stop_redirects(client: Any, is_enough: Callable[[str, str, bool], bool]) -> None:
    """Have a client of S3 follow no redirect for which ``is_enough(operation, bucket, region is told)``.

    Uses the event ``needs-retry`` and, of the request's context, ``s3_redirect`` with its ``bucket`` and
    ``redirected``: by these botocore's redirector knows that it has followed one, and no setting switches it off.
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
    """Call ``handler(response)`` before an answer is parsed: a dictionary with status_code, headers and body, which it
    may change. The event ``before-parse``.
    """
    client.meta.events.register(f'before-parse.{service}', lambda response_dict, **_: handler(response_dict))


def after_call(client: Any, operation: str, handler: Callable[[int, dict[str, Any], dict[str, Any]], object]) -> None:
    """Call ``handler(status, parsed answer, context)`` after a call, before botocore raises what it makes of an error:
    the event ``after-call``.
    """
    client.meta.events.register(
        f'after-call.s3.{operation}',
        lambda http_response, parsed, context, **_: handler(http_response.status_code, parsed, context),
    )


def _of(event: str, operation: str) -> str:
    return f'{event}.s3.{operation}' if operation else f'{event}.s3'


# Signatures


class _Auth(S3SigV4Auth):
    """Signs what it is told of a body that it does not have."""

    def payload(self, request: AWSRequest) -> str:
        return str(request.context['payload'])


def signature(
    method: str, url: str, headers: Mapping[str, str], payload: str, region: str, credentials: ReadOnlyCredentials
) -> dict[str, str]:
    """Sign a request, AWS Signature Version 4 in headers. All of ``headers`` and the host are signed.

    Uses ``auth.S3SigV4Auth`` and overrides its ``payload``. Public API signs requests only while it sends them.

    :param payload: What ``X-Amz-Content-SHA256`` says: a SHA-256, UNSIGNED-PAYLOAD...
    :returns: The headers to be added: Authorization, X-Amz-Date, X-Amz-Content-SHA256, X-Amz-Security-Token.
    """
    request = AWSRequest(method=method, url=url, headers=dict(headers))
    request.context['payload'] = payload
    _Auth(credentials, 's3', region).add_auth(request)
    added = ('Authorization', 'X-Amz-Date', 'X-Amz-Content-SHA256', 'X-Amz-Security-Token')
    return {name: request.headers[name] for name in added if name in request.headers}


def payload_hash(request: AWSRequest) -> str:
    """What botocore would sign of the body of a request: its SHA-256, or over https less, where a checksum of it is
    sent.

    Uses ``auth.S3SigV4Auth.payload``, which goes by undocumented entries of the request's context.
    """
    return str(S3SigV4Auth(_NOBODY, 's3', '').payload(request))


# Without a client


def authorities() -> str:
    """The file of certificates that botocore trusts where nothing is configured.

    Uses ``httpsession.get_cert_path``; only botocore knows whether that is certifi's or its own.
    """
    return str(get_cert_path(True))


def send_unsigned(url: str, ca_bundle: str, proxies: Optional[dict[str, str]], timeout: int) -> AWSResponse:
    """GET a URL without authorisation, but as botocore's clients do it.

    Uses ``httpsession.URLLib3Session``.

    :param ca_bundle: The path of a PEM file.
    :param proxies: Scheme -> URL.
    :param timeout: In seconds, for the connection and for each read.
    """
    trusted: Any = ca_bundle  # its stubs say bool
    session = URLLib3Session(verify=trusted, proxies=proxies, timeout=timeout)
    return session.send(AWSRequest('GET', url).prepare())
