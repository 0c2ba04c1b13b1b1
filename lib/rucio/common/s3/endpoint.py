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

"""The settings of one S3 storage: its URL, its region, and how to access it.

They are merged from (the later ones override the earlier ones) the provider's defaults (``providers.toml``), the
protocol's ``extended_attributes`` (``{"s3": {...}}``, which every client gets with the RSE), and the sections ``[s3]``
and ``[s3:RSE]`` of rucio.cfg. Reading them sends no request.
"""

import difflib
from collections.abc import Mapping
from configparser import InterpolationError
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from rucio.common.config import get_config
from rucio.common.exception import ConfigNotFound, ConfigurationError

from .monitoring import RSE
from .settings import SERVER_SETTINGS, SETTINGS, Secrets, StorageSettings, is_host, providers

if TYPE_CHECKING:
    from configparser import ConfigParser

__all__ = ['DAEMON', 'PERSON', 'SERVER', 'SERVER_WORK', 'Endpoint', 'Patience', 'wanted_progress']


class Patience(NamedTuple):
    """The time-outs of a client in seconds, and its maximal number of attempts."""

    connect_timeout: float
    read_timeout: float  # without receiving a byte
    max_attempts: int
    answer_timeout: float = 900  # for a whole answer: AWS sends blanks for minutes while it completes an upload
    breaks: bool = False  # whether requests to a silent storage are refused: see :mod:`.breaker`
    unattended: bool = False  # whether nobody waits for the answers


MAX_PORT = 65535
PERSON = Patience(10, 60, 4)  # for users who wait for their files
DAEMON = Patience(10, 60, 4, breaks=True, unattended=True)
SERVER = Patience(3, 5, 2, 10, breaks=True)  # for the Rucio server, where each request blocks a worker
SERVER_WORK = Patience(3, 20, 2, 30, breaks=True)  # the same for large requests: to list, to read, to delete many


@dataclass(frozen=True)
class _Storage:
    rse: str
    rse_id: str
    url: str


@dataclass(frozen=True)
class Endpoint(StorageSettings, _Storage):
    """One S3 storage, as used by one RSE."""

    default_region: str = 'us-east-1'
    unlock: str = ''
    reserved_buckets: tuple[str, ...] = ()
    reserved_keys: tuple[str, ...] = ()
    secrets: Secrets = field(default_factory=Secrets)

    def patience(self, usual: Patience = PERSON) -> Patience:
        """Return time-outs and attempts: those that are set, the others from ``usual``.

        :param usual: The default.
        """
        read_timeout = self.read_timeout or usual.read_timeout
        return Patience(
            self.connect_timeout or usual.connect_timeout,
            read_timeout,
            self.max_attempts or usual.max_attempts,
            max(usual.answer_timeout, read_timeout),
            usual.breaks,
            usual.unattended,
        )

    @property
    def observed(self) -> RSE:
        """The RSE whose requests are counted."""
        return RSE(self.rse, self.rse_id)

    @cached_property
    def shared(self) -> 'Endpoint':
        """The same without what makes no difference to a client: RSEs that only differ in that share one."""
        return replace(self, rse='', rse_id='', bucket_prefix='', capacity=None, events_token=None, secrets=Secrets())

    @property
    def sts_url(self) -> str:
        """The URL of the Security Token Service. ``{region}`` in the provider's default is replaced by the region."""
        return (self.sts_endpoint or self.url).replace('{region}', self.signing_region())

    def signing_region(self, known: Optional[str] = None) -> str:
        """Return the region that signatures name: the setting, else the known one, else the provider's default.

        :param known: The region that the way of being authorised or the Rucio server knows.
        """
        return self.region or known or self.default_region

    @classmethod
    def load(cls, rse_settings: Mapping[str, Any], protocol: Mapping[str, Any]) -> 'Endpoint':
        """Read and validate the settings of an RSE.

        :param rse_settings: The RSE as in ``get_rse_info``; ``rse`` and ``id`` are used.
        :param protocol: The protocol entry: ``scheme``, ``hostname``, ``port``, ``extended_attributes``.
        :raises ConfigurationError: if a setting is unknown, invalid, or in a place where it is not allowed.
        """
        rse = str(rse_settings['rse'])
        given = _from_protocol(rse, protocol) | _override(_from_config('s3'), _from_config(f's3:{rse}'))
        provider = given.get('provider', 'generic')
        defaults = providers()['default'] | providers()[provider]
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


def wanted_progress() -> str:
    """Return the setting ``progress`` of rucio.cfg for transfers from several storages: that of ``[s3]``."""
    return str(_from_config('s3').get('progress', 'auto'))


def _url(rse: str, protocol: Mapping[str, Any]) -> str:
    scheme, host, port = protocol['scheme'], str(protocol['hostname']), int(protocol.get('port') or 0)
    if scheme not in ('https', 'http'):
        raise ConfigurationError(
            f"RSE {rse}: the protocol's scheme is '{scheme}', but rucio.rse.protocols.s3 only supports https and http. "
            'Other schemes are not offered to clients.'
        )
    if not is_host(host):
        raise ConfigurationError(
            f"RSE {rse}: the protocol's hostname is {ascii(host)[:200]}, but must be the name of a host (letters, "
            "digits and '-', at most 63 between two dots, no '_') or an IP address, IPv6 in brackets, without a user "
            'or path. Change the protocol.'
        )
    if not 0 <= port <= MAX_PORT:
        raise ConfigurationError(f"RSE {rse}: the protocol's port is {port}, but must be at most {MAX_PORT}.")
    # Signatures cover the Host header, in which HTTP clients omit the default port.
    return f'{scheme}://{host}' if port in (0, {'https': 443, 'http': 80}[scheme]) else f'{scheme}://{host}:{port}'


def _from_protocol(rse: str, protocol: Mapping[str, Any]) -> dict[str, Any]:
    attributes = protocol.get('extended_attributes') or {}
    settings = (attributes.get('s3') or {}) if isinstance(attributes, Mapping) else attributes
    place = f'RSE {rse}, extended_attributes of the {protocol["scheme"]} protocol'
    if not isinstance(settings, Mapping):
        raise ConfigurationError(
            f'{place}: "s3" is {type(settings).__name__}, but must be an object such as {{"provider": "ceph"}}.'
        )
    for name in settings:
        if name in SETTINGS and SETTINGS[name].where == 'rucio.cfg':
            raise ConfigurationError(
                f"{place}: '{name}' is only allowed in rucio.cfg ([s3:{rse}]), "
                'as every client reads these attributes. Remove it, and change it if it was a secret.'
            )
    return _checked(place, settings)


def _from_config(section: str) -> dict[str, Any]:
    try:
        config: ConfigParser = get_config()
    except (ConfigNotFound, RuntimeError):
        return {}  # a client may be configured by its arguments only
    if not config.has_section(section):
        return {}
    try:
        # Options of [DEFAULT] are not settings of this section.
        settings = {
            name: value
            for name, value in config.items(section)
            if name not in config.defaults() and name not in SERVER_SETTINGS
        }
    except InterpolationError:
        # Its message contains the value, which may be a secret.
        raise ConfigurationError(
            f"rucio.cfg [{section}]: a value has a single '%'. As everywhere in rucio.cfg, write '%%' instead."
        ) from None
    for name in settings:
        if name in SETTINGS and SETTINGS[name].where == 'RSE':
            raise ConfigurationError(
                f"rucio.cfg [{section}]: '{name}' belongs to the RSE's protocol (extended_attributes): "
                'server and clients must agree on it.'
            )
    return _checked(f'rucio.cfg [{section}]', settings)


def _override(general: dict[str, Any], special: dict[str, Any]) -> dict[str, Any]:
    """Merge [s3] and [s3:RSE]. Keys and profile go together: all of them are from one section."""
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
        checked[name] = setting.read(place, name, value)
    return checked
