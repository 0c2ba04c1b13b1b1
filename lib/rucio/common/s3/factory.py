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

"""Create all sessions and clients of botocore: which CAs they trust, how long they wait, which secrets they protect."""

import functools
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union
from urllib.parse import urlsplit
from weakref import WeakSet

import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials
from requests.utils import get_environ_proxies, select_proxy  # type: ignore[import-untyped]

from . import botocore_internals, breaker, monitoring, request_ids
from .endpoint import PERSON
from .garbage import uncollected
from .parsing import bound, strict
from .secrecy import hide_in_logs, is_private, need_private

if TYPE_CHECKING:
    from .endpoint import Patience

__all__ = ['bare_session', 'client', 'proxies', 'trusted', 'user_session', 'with_boto3']

# Their requests or answers contain tokens and keys.
_SECRET = ('sts', 'sns')
# Sessions that only make the clients they are asked for, not also some to get their keys.
_bare: 'WeakSet[botocore.session.Session]' = WeakSet()
_BLOCK = 256 * 1024  # bytes of a body that are sent at once


def bare_session(credentials: Optional[Credentials]) -> botocore.session.Session:
    """Make a session with these credentials, without the user's AWS settings, which are for other storages.

    It reads neither ``~/.aws`` nor ``AWS_...`` variables, but for ``AWS_CA_BUNDLE``: see :func:`trusted`.

    :param credentials: The keys; None for anonymous access.
    """
    with uncollected():
        session = _careful(botocore_internals.isolated_session(credentials))
    _bare.add(session)
    return session


def user_session(profile: Optional[str] = None) -> botocore.session.Session:
    """Make a session with the user's AWS settings, as AWS tools do: assumed roles, credential_process, renewal.

    :param profile: The name of a profile; None for that of the environment.
    :raises botocore.exceptions.ProfileNotFound: if there is no such profile.
    """
    return _careful(botocore.session.Session(profile=profile))


def _careful(session: botocore.session.Session) -> botocore.session.Session:
    # Also for the clients that botocore makes itself, to assume roles.
    session.set_config_variable('ca_bundle', trusted(session=session))
    botocore_internals.know_all_services(session)
    for service in _SECRET:
        session.register(f'before-send.{service}', _refuse_unencrypted)
    return strict(session)


def with_boto3(session: botocore.session.Session) -> botocore.session.Session:
    """Let the clients of a session have the methods that boto3 adds to those of botocore, such as ``upload_file``.

    :param session: The session, which is returned.
    """
    import boto3  # noqa: PLC0415 - rucio-s3 itself does not need it

    boto3.session.Session(botocore_session=session)  # registers itself for the clients of the session
    return session


def _refuse_unencrypted(**event: Any) -> None:
    need_private(str(event['request'].url), 'A token or a key', 'Use https.')


def trusted(ca_bundle: Optional[str] = None, session: Optional[botocore.session.Session] = None) -> Union[str, bool]:
    """Return the certificate authorities to trust.

    botocore disables verification if the setting is empty, as a variable may easily be.

    :param ca_bundle: The path of a PEM file: the setting of the RSE. The other settings may also be directories that
        ``openssl rehash`` made.
    :param session: A session whose AWS configuration may name a CA bundle.
    :returns: The first of these that exists and is not empty: ``ca_bundle``, ``AWS_CA_BUNDLE``, the AWS configuration's
        ``ca_bundle``, ``REQUESTS_CA_BUNDLE``; or True for the default authorities. Never False, None or empty.
    """
    configured: Union[str, bool, None] = session.get_config_variable('ca_bundle') if session else None
    found = ca_bundle or os.environ.get('AWS_CA_BUNDLE') or configured or os.environ.get('REQUESTS_CA_BUNDLE') or True
    return _joined(found) if isinstance(found, str) and os.path.isdir(found) else found


@functools.cache
def _joined(directory: str) -> str:
    """Return a directory of certificates, as OpenSSL and requests take it, as the one file that botocore needs.

    The file does not stay on disk.
    """
    if not hasattr(os, 'memfd_create'):
        return directory  # then no certificate is trusted
    certificates = {
        path.read_bytes()
        for path in Path(directory).iterdir()
        if path.is_file() and b'-----BEGIN CERTIFICATE-----' in path.read_bytes()
    }
    file = os.memfd_create('rucio-s3-ca')
    with os.fdopen(os.dup(file), 'wb') as writer:
        writer.write(b'\n'.join(sorted(certificates)))
    return f'/proc/self/fd/{file}'


def proxies(url: str) -> dict[str, str]:
    """Return the proxy for requests to a storage: the same as for Rucio's own requests.

    requests reads the environment in another way than botocore: it takes networks in ``no_proxy`` (``10.0.0.0/8``), and
    ``all_proxy``. SOCKS is left to it, as botocore does not have it.

    :param url: The URL of the service.
    :returns: Scheme -> URL of the proxy; empty if requests go to the service directly.
    """
    proxy = select_proxy(url, get_environ_proxies(url))
    return {urlsplit(url).scheme: proxy} if proxy and not proxy.lower().startswith('socks') else {}


def client(
    service: str,
    session: botocore.session.Session,
    url: Optional[str],
    *,
    region: Optional[str] = None,
    ca_bundle: Optional[str] = None,
    patience: 'Optional[Patience]' = None,
    config: Optional[Config] = None,
    rse: Optional[monitoring.RSE] = None,
) -> Any:
    """Make a client as boto3 does, but without its own methods: see :func:`with_boto3`. Takes 50 ms. No request.

    :param service: s3, sts or sns.
    :param session: A session of :func:`bare_session` or :func:`user_session`.
    :param url: The URL of the service; None for that of AWS.
    :param region: The region to sign for.
    :param ca_bundle: The CA of the storage, a PEM file; for the default see :func:`trusted`.
    :param patience: Time-outs and attempts; None for those of botocore.
    :param config: More configuration, which overrides the rest.
    :param rse: The RSE to count requests for, on servers and daemons.
    """
    hide_in_logs()
    options: dict[str, Any] = {'user_agent_extra': 'rucio-s3'}
    if url:
        options['proxies'] = proxies(url)
    if patience is not None:
        options |= {'connect_timeout': patience.connect_timeout, 'read_timeout': patience.read_timeout}
        options['retries'] = {'mode': 'standard', 'total_max_attempts': patience.max_attempts}
    if service in _SECRET and url and url.startswith('http:') and is_private(url):
        options['proxies'] = {}  # requests to this machine must not go to a proxy
    # Without a signature version, botocore looks for the one with which it signs URLs.
    is_plain = service == 's3' and url and session in _bare and bool(getattr(config, 'signature_version', None))
    few = botocore_internals.few_endpoints(session, region) if is_plain else nullcontext()
    with uncollected(), few:
        made: Any = session.create_client(
            service,
            region_name=region,
            endpoint_url=url,
            verify=trusted(ca_bundle, session),
            config=Config(**options).merge(config or Config()),
        )
    botocore_internals.send_blocks_of(made, _BLOCK)
    bound(made, (patience or PERSON).answer_timeout)
    if service == 's3':
        botocore_internals.stop_redirects(made, _leads_nowhere)
    if patience is not None and patience.breaks:
        breaker.watch(made, service, rse, patience.unattended)
    monitoring.observe(made, service, rse)
    request_ids.mark(made)
    return made


def _leads_nowhere(operation: str, bucket: str, told: bool) -> bool:
    """Return whether a redirect cannot be followed.

    botocore asks HeadBucket for the region: in an endless loop if that is redirected as well, and without a bucket.
    """
    return not bucket or (operation == 'HeadBucket' and not told)
