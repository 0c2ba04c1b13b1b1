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

"""One S3 storage: its URL, its region, and how it wants to be spoken to.

The settings of an RSE come, each overriding the one before, from the provider's defaults (``providers.toml``), the
protocol's ``extended_attributes`` (``{"s3": {...}}``, which reach every client with the RSE's definition), and
rucio.cfg's sections ``[s3]`` and ``[s3:RSE]``. Reading them costs no request.
"""

import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping
from configparser import InterpolationError
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from rucio.common.config import get_config
from rucio.common.exception import ConfigNotFound, ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from configparser import ConfigParser

__all__ = [
    'GUARDS',
    'ON_CHANGED',
    'ON_MISSING',
    'PERSON',
    'SERVER',
    'SETTINGS',
    'Endpoint',
    'Patience',
    'Secrets',
    'Setting',
]

# What `rucio s3 sync` and the daemons may do about an object that is not what the catalogue says, and about one that is
# gone.
ON_CHANGED = ('report', 'replace', 'bad')
ON_MISSING = ('report', 'forget', 'lost')

# What a signature may have to be guarded against: see providers.toml.
GUARDS = ('copy', 'prefix', 'host', 'acl', 'attributes', 'lock')

# Options of [s3] that are of the Rucio server, not of a storage.
_OF_THE_SERVER = ('default_rse', 'fts', 'signatures_per_second', 'vends_per_second')

MiB = 1024**2
_SIZE = re.compile(r'(\d+)\s*([KMGT]i?B?)?', re.IGNORECASE)
_HOST = r'(?:(?:[A-Za-z0-9._-]|\{region\})+|\[[0-9A-Fa-f:.]+\])'  # a name or an address
_UNITS = {'': 1, 'K': 1024, 'M': MiB, 'G': 1024**3, 'T': 1024**4}


class Setting(NamedTuple):
    """How the value of a setting is read, what is allowed, and where it may stand."""

    parse: Callable[[Any], Any]
    allowed: str
    where: str = 'anywhere'  # or 'rucio.cfg' (secret, or of this machine) or 'RSE' (clients and server must agree)


def _choice(*allowed: str) -> Setting:
    def parse(value: Any) -> str:
        if value not in allowed:
            raise ValueError
        return str(value)

    return Setting(parse, 'one of ' + ', '.join(allowed))


def _boolean(value: Any) -> bool:
    named = {'true': True, 'yes': True, 'on': True, '1': True, 'false': False, 'no': False, 'off': False, '0': False}
    return named[str(value).strip().lower()]


def _size(value: Any) -> int:
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError
    return int(match[1]) * _UNITS[(match[2] or '')[:1].upper()]


def _positive(value: Any) -> float:
    if not 0 < float(value) < 1e6:
        raise ValueError
    return float(value)


def _count(value: Any) -> int:
    if not 1 <= int(value) <= 1000:
        raise ValueError
    return int(value)


def _part_size(value: Any) -> int:
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
    if not 5 * MiB <= (size := _size(value)) <= 1024 * MiB:
        raise ValueError
    return size


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def _region(value: Any) -> str:
    # It stands in signatures, in URLs and in the files of other tools.
    if not re.fullmatch('[A-Za-z0-9][A-Za-z0-9._-]{0,62}', text := _text(value)):
        raise ValueError
    return text


def _url_text(value: Any) -> str:
    # Clients read the settings of an RSE: no password in it. {region} is the region.
    if not re.fullmatch(f'https?://{_HOST}(:[0-9]{{1,5}})?', text := _text(value).rstrip('/')):
        raise ValueError
    return text


def _events_url(value: Any) -> str:
    # Clients read the settings of an RSE, and servers log URLs: no password in it.
    if not re.fullmatch(r'https?://[^/\s?#@]+/[^\s#@]+', text := _text(value)):
        raise ValueError
    return text


def _events_topic(value: Any) -> str:
    if not re.fullmatch(r'arn:[^\s:]+:(sns|sqs|lambda):\S+|eventbridge', text := _text(value)):
        raise ValueError
    return text


def _events_token(value: Any) -> str:
    # Nothing that has to be encoded in a header, in JSON, in a URL or in rucio.cfg.
    if not re.fullmatch(r'[A-Za-z0-9._~-]{16,256}', text := _text(value)):
        raise ValueError
    return text


def _lifetime(value: Any) -> int:
    # https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
    if not 900 <= int(value) <= 43200:
        raise ValueError
    return int(value)


def _minio_release(value: Any) -> str:
    if not re.fullmatch(r'RELEASE\.\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ', text := _text(value)):
        raise ValueError
    return text


def _provider(value: Any) -> str:
    if value == 'default' or value not in _providers():
        raise ValueError
    return str(value)


def _bucket_prefix(value: Any) -> str:
    if not re.fullmatch(r'([a-z0-9][a-z0-9.-]{0,30})?', str(value)):
        raise ValueError
    return str(value)


def _guards(value: Any) -> tuple[str, ...]:
    names = tuple(value.replace(',', ' ').split() if isinstance(value, str) else value)
    if not set(names) <= set(GUARDS):
        raise ValueError
    return names


def _readable_file(value: Any) -> str:
    path = os.path.expanduser(_text(value))
    if not os.path.isfile(path):
        raise ValueError
    return path


_SECRET = 'rucio.cfg'  # noqa: S105 - a place, not a password

SETTINGS: dict[str, Setting] = {
    'provider': Setting(_provider, 'one of the names in providers.toml'),
    'region': Setting(_region, 'a name such as us-east-1'),
    'addressing': _choice('path', 'virtual', 'auto'),
    'auth': _choice('auto', 'static', 'presigned', 'vended', 'remote', 'web-identity', 'anonymous'),
    'ca_bundle': Setting(_readable_file, 'the path of a readable PEM file', 'rucio.cfg'),
    'checksum': _choice('crc32', 'md5', 'none'),
    'full_object_checksum': Setting(_boolean, 'true or false'),
    'conditional_put': Setting(_boolean, 'true or false'),
    'conditional_multipart': Setting(_boolean, 'true or false'),
    'multipart_threshold': Setting(_part_size, 'a size from 5 MiB to 1 GiB'),
    'multipart_chunksize': Setting(_part_size, 'a size from 5 MiB to 1 GiB'),
    'max_concurrency': Setting(_count, 'a number from 1 to 1000'),
    'connect_timeout': Setting(_positive, 'a number of seconds'),
    'read_timeout': Setting(_positive, 'a number of seconds'),
    'max_attempts': Setting(_count, 'a number from 1 to 1000'),
    'bucket_prefix': Setting(_bucket_prefix, 'up to 31 of a-z, 0-9, "." and "-"', 'RSE'),
    'lifecycle': Setting(_boolean, 'true or false'),
    'ignore_public_acls': Setting(_boolean, 'true or false'),
    'verifies_body': Setting(_boolean, 'true or false', 'RSE'),
    'signature_guards': Setting(_guards, f'any of {", ".join(GUARDS)}, or nothing'),
    'sts_endpoint': Setting(_url_text, 'a URL such as https://sts.example.org'),
    'role_arn': Setting(_text, 'the ARN of a role'),
    'web_identity_role_arn': Setting(_text, 'the ARN of a role'),
    'minio_release': Setting(_minio_release, 'a release such as RELEASE.2025-10-15T17-29-55Z'),
    'credentials_lifetime': Setting(_lifetime, 'a number of seconds from 900 to 43200'),
    'capacity': Setting(_size, 'a size such as 100 TiB'),
    'on_changed': _choice(*ON_CHANGED),
    'on_missing': _choice(*ON_MISSING),
    'read_checksums': Setting(_boolean, 'true or false'),
    'etag_is_md5': Setting(_boolean, 'true or false'),
    'sorted_listing': Setting(_boolean, 'true or false'),
    'policy_capitals': Setting(_boolean, 'true or false'),
    'checksum_readers': Setting(_count, 'a number from 1 to 1000'),
    'events_url': Setting(
        _events_url, "the URL of the Rucio server's endpoint, such as https://rucio.example.org/s3/SITE_S3/events"
    ),
    'events_topic': Setting(_events_topic, 'an ARN, such as arn:minio:sqs::RUCIO:webhook, or eventbridge'),
    'events_endpoint': Setting(_url_text, 'a URL such as https://private-gateway.example.org'),
    'event_topics': Setting(_boolean, 'true or false'),
    'fts_push': Setting(_boolean, 'true or false', 'RSE'),
    'events_token': Setting(
        _events_token, '16 to 256 letters, digits, ".", "_", "~" and "-", as `openssl rand -hex 32` makes them', _SECRET
    ),
    'progress': _choice('auto', 'on', 'off')._replace(where='rucio.cfg'),
    'access_key': Setting(_text, 'a key', _SECRET),
    'secret_key': Setting(_text, 'a key', _SECRET),
    'session_token': Setting(_text, 'a token', _SECRET),
    'profile': Setting(_text, 'the name of an AWS profile', _SECRET),
}


@dataclass(frozen=True)
class Secrets:
    """What rucio.cfg says of keys. Never shown: neither repr nor str has them."""

    access_key: Optional[str] = field(default=None, repr=False)
    secret_key: Optional[str] = field(default=None, repr=False)
    session_token: Optional[str] = field(default=None, repr=False)
    profile: Optional[str] = None


class Patience(NamedTuple):
    """How long a client waits for a storage, in seconds, and how often it tries."""

    connect_timeout: float
    read_timeout: float  # without a byte
    max_attempts: int


PERSON = Patience(10, 60, 4)  # somebody waits for his files; so does a daemon that reads them
SERVER = Patience(3, 20, 2)  # somebody waits for the Rucio server, and others for this worker of it


@dataclass(frozen=True)
class Endpoint:
    """One S3 storage as one RSE uses it. Sizes are in bytes, times in seconds."""

    rse: str
    rse_id: str
    url: str
    provider: str = 'generic'
    region: Optional[str] = None
    default_region: str = 'us-east-1'
    addressing: str = 'path'
    auth: str = 'auto'
    ca_bundle: Optional[str] = None
    checksum: str = 'md5'
    full_object_checksum: bool = False
    conditional_put: bool = False
    conditional_multipart: bool = False
    multipart_threshold: int = 16 * MiB
    multipart_chunksize: int = 16 * MiB
    max_concurrency: int = 4
    connect_timeout: Optional[float] = None
    read_timeout: Optional[float] = None
    max_attempts: Optional[int] = None
    bucket_prefix: str = ''
    lifecycle: bool = False
    ignore_public_acls: bool = False
    verifies_body: bool = False
    signature_guards: tuple[str, ...] = ()
    sts_endpoint: Optional[str] = None
    role_arn: Optional[str] = None
    web_identity_role_arn: Optional[str] = None
    minio_release: Optional[str] = None
    credentials_lifetime: int = 3600
    capacity: Optional[int] = None
    on_changed: str = 'report'
    on_missing: str = 'report'
    read_checksums: bool = True
    etag_is_md5: bool = False
    sorted_listing: bool = False
    policy_capitals: bool = False
    checksum_readers: int = 4
    events_url: Optional[str] = None
    events_topic: Optional[str] = None
    events_endpoint: Optional[str] = None
    event_topics: bool = False
    fts_push: bool = True
    events_token: Optional[str] = field(default=None, repr=False)
    progress: str = 'auto'
    unlock: str = ''
    reserved_buckets: tuple[str, ...] = ()
    reserved_keys: tuple[str, ...] = ()
    secrets: Secrets = field(default_factory=Secrets)

    def patience(self, usual: Patience = PERSON) -> Patience:
        """How long to wait for it and how often to try: what the settings say, and ``usual`` where they say nothing."""
        return Patience(
            self.connect_timeout or usual.connect_timeout,
            self.read_timeout or usual.read_timeout,
            self.max_attempts or usual.max_attempts,
        )

    @property
    def sts_url(self) -> str:
        """Where its Security Token Service is. ``{region}`` in the provider's default stands for the region."""
        return (self.sts_endpoint or self.url).replace('{region}', self.region or self.default_region)

    @classmethod
    def load(cls, rse_settings: Mapping[str, Any], protocol: Mapping[str, Any]) -> 'Endpoint':
        """The storage of an RSE.

        :param rse_settings: The RSE as ``get_rse_info`` describes it; ``rse`` and ``id`` are used.
        :param protocol: The protocol entry: ``scheme``, ``hostname``, ``port``, ``extended_attributes``.
        :raises ConfigurationError: if a setting is unknown, its value is not allowed, or it stands where it may not.
        """
        rse = str(rse_settings['rse'])
        given = _from_protocol(rse, protocol) | _override(_from_config('s3'), _from_config(f's3:{rse}'))
        provider = given.get('provider', 'generic')
        defaults = _providers()['default'] | _providers()[provider]
        values = {'default_region': defaults.pop('region')} | defaults | given
        values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}  # TOML has lists
        secrets = {each.name: values.pop(each.name) for each in fields(Secrets) if each.name in values}
        return cls(
            rse=rse,
            rse_id=str(rse_settings.get('id', '')),
            url=_url(rse, protocol),
            secrets=Secrets(**secrets),
            **{'provider': provider, **values},
        )


def _url(rse: str, protocol: Mapping[str, Any]) -> str:
    scheme, host, port = protocol['scheme'], protocol['hostname'], int(protocol.get('port') or 0)
    if scheme not in ('https', 'http'):
        raise ConfigurationError(
            f"RSE {rse}: the protocol's scheme is '{scheme}', but rucio.rse.protocols.s3 speaks https and http. Clients are offered no others."
        )
    if not re.fullmatch(_HOST, str(host)):
        raise ConfigurationError(
            f"RSE {rse}: the protocol's hostname is {ascii(host)[:200]}, but must be the name or the address of a host, without a user or a path."
        )
    # Signatures cover the Host header, and HTTP clients leave the default port out of it.
    return f'{scheme}://{host}' if port in (0, {'https': 443, 'http': 80}[scheme]) else f'{scheme}://{host}:{port}'


@cache
def _providers() -> dict[str, dict[str, Any]]:
    return tomllib.loads(files('rucio.common.s3').joinpath('providers.toml').read_text())


def _from_protocol(rse: str, protocol: Mapping[str, Any]) -> dict[str, Any]:
    settings = (protocol.get('extended_attributes') or {}).get('s3') or {}
    place = f'RSE {rse}, extended_attributes of the {protocol["scheme"]} protocol'
    if not isinstance(settings, Mapping):
        raise ConfigurationError(
            f'{place}: "s3" is {type(settings).__name__}, but must be an object such as {{"provider": "ceph"}}.'
        )
    for name in settings:
        if name in SETTINGS and SETTINGS[name].where == 'rucio.cfg':
            raise ConfigurationError(
                f"{place}: '{name}' may stand in rucio.cfg only ([s3:{rse}]), as every client reads these attributes. Take it out; change it if it was a secret."
            )
    return _checked(place, settings)


def _from_config(section: str) -> dict[str, Any]:
    try:
        config: ConfigParser = get_config()
    except (ConfigNotFound, RuntimeError):
        return {}  # a client may be configured by its arguments alone
    if not config.has_section(section):
        return {}
    try:
        # [DEFAULT]'s options belong to no section in particular.
        settings = {
            name: value
            for name, value in config.items(section)
            if name not in config.defaults() and name not in _OF_THE_SERVER
        }
    except InterpolationError:
        # Its text has the value in it, which may be a secret.
        raise ConfigurationError(
            f"rucio.cfg [{section}]: a value has a single '%'. As everywhere in rucio.cfg, write '%%' for it."
        ) from None
    for name in settings:
        if name in SETTINGS and SETTINGS[name].where == 'RSE':
            raise ConfigurationError(
                f"rucio.cfg [{section}]: '{name}' belongs to the RSE's protocol (extended_attributes): server and clients must agree on it."
            )
    return _checked(f'rucio.cfg [{section}]', settings)


def _override(general: dict[str, Any], special: dict[str, Any]) -> dict[str, Any]:
    """[s3] overridden by [s3:RSE]; keys and profile go together, never half from here and half from there."""
    keys = {each.name for each in fields(Secrets)}
    if keys & special.keys():
        general = {name: value for name, value in general.items() if name not in keys}
    return general | special


def _checked(place: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    checked = {}
    for name, value in settings.items():
        setting = SETTINGS.get(name)
        if setting is None:
            near = difflib.get_close_matches(name, SETTINGS, 1)
            hint = f"Did you mean '{near[0]}'?" if near else 'Allowed are ' + ', '.join(sorted(SETTINGS)) + '.'
            raise ConfigurationError(f"{place}: there is no setting '{name}'. {hint}")
        try:
            checked[name] = setting.parse(value)
        except (ValueError, TypeError, KeyError):
            allowed = (
                'one of ' + ', '.join(sorted(set(_providers()) - {'default'}))
                if name == 'provider'
                else setting.allowed
            )
            seen = '' if name in ('access_key', 'secret_key', 'session_token', 'events_token') else f" is '{value}'"
            raise ConfigurationError(f"{place}: '{name}'{seen}, but must be {allowed}.") from None
    return checked
