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

"""Where every botocore session and client is made: whom it trusts, how long it waits, and what it keeps to itself."""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials

from . import botocore_internals, breaker
from .parsing import bound, strict
from .secrecy import hide_in_logs, is_private, need_private

if TYPE_CHECKING:
    from .endpoint import Patience

__all__ = ['bare_session', 'client', 'trusted', 'user_session']

# Their requests or answers hold tokens and keys.
_SECRET = ('sts', 'sns')


def bare_session(credentials: Optional[Credentials]) -> botocore.session.Session:
    """A session with these credentials, and nothing of the user's own AWS settings: neither those in ``~/.aws`` nor
    those in ``AWS_...`` variables, as they are for other storages. Only ``AWS_CA_BUNDLE`` counts: see :func:`trusted`.
    """
    return _careful(botocore_internals.isolated_session(credentials))


def user_session(profile: Optional[str] = None) -> botocore.session.Session:
    """A session with the user's own AWS settings, and all that AWS tools do for them (assumed roles,
    credential_process, refreshing).

    :param profile: The name of a profile; None: what the environment says.
    :raises botocore.exceptions.ProfileNotFound: if there is no such profile.
    """
    return _careful(botocore.session.Session(profile=profile))


def _careful(session: botocore.session.Session) -> botocore.session.Session:
    # Also for the clients that botocore makes by itself, to assume roles.
    session.set_config_variable('ca_bundle', trusted(session=session))
    for service in _SECRET:
        session.register(f'before-send.{service}', _refuse_unencrypted)
    return strict(session)


def _refuse_unencrypted(**event: Any) -> None:
    need_private(str(event['request'].url), 'A token or a key', 'Use https there.')


def trusted(ca_bundle: Optional[str] = None, session: Optional[botocore.session.Session] = None) -> Union[str, bool]:
    """Whose certificates are believed. To botocore an empty value, which a variable may easily have, means that
    anybody's are.

    :param ca_bundle: The path of a PEM file: the setting of the RSE. The others may also be directories, as ``openssl
        rehash`` makes them.
    :param session: Whose AWS configuration may name one.
    :returns: The first that is there and not empty of these, ``AWS_CA_BUNDLE``, the AWS configuration's ``ca_bundle``
        and ``REQUESTS_CA_BUNDLE``; or True, which stands for the usual authorities. Never False, None or empty.
    """
    configured: Union[str, bool, None] = session.get_config_variable('ca_bundle') if session else None
    found = ca_bundle or os.environ.get('AWS_CA_BUNDLE') or configured or os.environ.get('REQUESTS_CA_BUNDLE') or True
    return _joined(found) if isinstance(found, str) and os.path.isdir(found) else found


@functools.cache
def _joined(directory: str) -> str:
    """A directory of certificates, which OpenSSL and requests take, as the one file that botocore needs. Nothing is
    left on disk.
    """
    if not hasattr(os, 'memfd_create'):
        return directory  # then nobody is believed
    certificates = {
        path.read_bytes()
        for path in Path(directory).iterdir()
        if path.is_file() and b'-----BEGIN CERTIFICATE-----' in path.read_bytes()
    }
    file = os.memfd_create('rucio-s3-ca')
    with os.fdopen(os.dup(file), 'wb') as writer:
        writer.write(b'\n'.join(sorted(certificates)))
    return f'/proc/self/fd/{file}'


def client(
    service: str,
    session: botocore.session.Session,
    url: Optional[str],
    *,
    region: Optional[str] = None,
    ca_bundle: Optional[str] = None,
    patience: 'Optional[Patience]' = None,
    config: Optional[Config] = None,
) -> Any:
    """A boto3 client. Takes 100 ms; no request is made.

    :param service: s3, sts or sns.
    :param session: Whose it is: :func:`bare_session` or :func:`user_session`.
    :param url: The service's address; None: where AWS has it.
    :param region: The region that signatures name.
    :param ca_bundle: The CA of the storage, a PEM file; without it see :func:`trusted`.
    :param patience: How long it waits and how often it tries; None: as botocore does.
    :param config: What else is special about it; overrides the rest.
    """
    hide_in_logs()
    options: dict[str, Any] = {'user_agent_extra': 'rucio-s3'}
    if patience is not None:
        options |= {'connect_timeout': patience.connect_timeout, 'read_timeout': patience.read_timeout}
        options['retries'] = {'mode': 'standard', 'total_max_attempts': patience.max_attempts}
    if service in _SECRET and url and url.startswith('http:') and is_private(url):
        options['proxies'] = {}  # what is for this machine is not for a proxy elsewhere
    made = boto3.session.Session(botocore_session=session, region_name=region).client(
        service,  # type: ignore[call-overload]
        endpoint_url=url,
        verify=trusted(ca_bundle, session),
        config=Config(**options).merge(config or Config()),
    )
    bound(made)
    if service == 's3':
        botocore_internals.stop_redirects(made, _leads_nowhere)
    if patience is not None and patience.breaks:
        breaker.watch(made, service)
    return made


def _leads_nowhere(operation: str, bucket: str, told: bool) -> bool:
    """Of an answer that redirects, botocore asks HeadBucket for the region: without end where that is redirected, too,
    and of no bucket.
    """
    return not bucket or (operation == 'HeadBucket' and not told)
