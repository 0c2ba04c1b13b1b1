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

"""Try the way to the storage: DNS, connection, TLS, and the clocks."""

import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from rucio.common.s3 import botocore_internals, factory

from .trial import failed, hint, skipped

if TYPE_CHECKING:
    from rucio.common.s3.endpoint import Endpoint

    from .subject import Subject

_SKEW = 15 * 60  # seconds that S3 allows
_EXPIRES_SOON = 14 * 86400  # seconds


def dns(subject: 'Subject') -> str:
    """Resolve the host name of the storage."""
    url = _direct(subject.endpoint)
    try:
        found = socket.getaddrinfo(url.hostname, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise failed(
            f'{url.hostname}: {error.strerror or error}', "Check the protocol's hostname, and this machine's DNS."
        ) from None
    return f'{url.hostname}: {", ".join(dict.fromkeys(str(each[4][0]) for each in found))}'


def connection(subject: 'Subject') -> str:
    """Open a TCP connection to the storage."""
    start = time.monotonic()
    with _connect(subject.endpoint):
        return f'{(time.monotonic() - start) * 1000:.1f} ms'


def tls(subject: 'Subject') -> str:
    """Verify the storage's certificate, and when it expires."""
    url = urlsplit(subject.endpoint.url)
    if url.scheme != 'https':
        raise hint('http: keys are not sent, but data is not encrypted', 'Use https unless the network is closed.')
    context = ssl.create_default_context(cafile=_ca_bundle(subject.endpoint))
    try:
        with _connect(subject.endpoint) as plain, context.wrap_socket(plain, server_hostname=url.hostname) as encrypted:
            certificate, version = encrypted.getpeercert() or {}, encrypted.version()
    except ssl.SSLError as error:
        said = getattr(error, 'verify_message', '') or error.reason or str(error)
        raise failed(
            f'the certificate is not trusted: {said}',
            "Set 'ca_bundle' in rucio.cfg [s3] to the PEM file of the CA (also on the server), or check the host name. "
            'With `rucio s3 exec`, tools need none.',
        ) from None
    left = ssl.cert_time_to_seconds(str(certificate['notAfter'])) - time.time()
    if left < _EXPIRES_SOON:
        raise hint(f'the certificate expires in {left / 86400:.0f} days', 'Renew it.')
    own = f', by the CA in {subject.endpoint.ca_bundle}' if subject.endpoint.ca_bundle else ''
    return f'{version}, certificate valid for {left / 86400:.0f} more days{own}'


def clock(subject: 'Subject') -> str:
    """Compare the clock of this machine with the storage's."""
    answer = http_get(subject.endpoint, subject.endpoint.url + '/')
    if 'Date' not in answer.headers:
        raise skipped('the storage does not return its time')
    skew = abs(parsedate_to_datetime(answer.headers['Date']).timestamp() - time.time())
    found, remedy = f'differs by {skew:.0f} s from the storage', 'Synchronise the clocks of both by NTP'
    if skew > _SKEW:
        raise failed(found, f'{remedy}: signatures are only valid for 15 minutes.')
    if skew > 60:
        raise hint(found, f'{remedy}.')
    return found


def _proxy(url: SplitResult) -> str:
    """Return the proxy for requests to a URL, without its password, or an empty string."""
    proxy = factory.proxies(url.geturl()).get(url.scheme, '')
    return urlsplit(proxy).netloc.rpartition('@')[2] or proxy


def _direct(endpoint: 'Endpoint') -> SplitResult:
    """Return the URL of the storage.

    :raises Outcome: if requests go through a proxy.
    """
    url = urlsplit(endpoint.url)
    if proxy := _proxy(url):
        raise skipped(f'goes through the proxy {proxy}')
    return url


def _connect(endpoint: 'Endpoint') -> socket.socket:
    url = _direct(endpoint)
    port = url.port or (443 if url.scheme == 'https' else 80)
    return socket.create_connection((url.hostname, port), endpoint.patience().connect_timeout)


def _ca_bundle(endpoint: 'Endpoint') -> str:
    """Return the certificates that boto3 trusts."""
    trusted = factory.trusted(endpoint.ca_bundle)
    return trusted if isinstance(trusted, str) else botocore_internals.authorities()


def http_get(endpoint: 'Endpoint', url: str) -> Any:
    """Send a GET without authorisation, with the CA, proxy and time-outs of boto3.

    :param endpoint: The storage.
    :param url: The URL.
    :returns: The response of botocore.
    """
    timeout = int(endpoint.patience().connect_timeout) or 1
    return botocore_internals.send_unsigned(url, _ca_bundle(endpoint), factory.proxies(url), timeout)
