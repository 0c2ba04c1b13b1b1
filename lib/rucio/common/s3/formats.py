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

"""What other S3 tools are given: short-lived keys in the form that each tool reads, and the names by which it calls an
object.

Pure functions: no request, no file. A new tool is a subclass of :class:`Format` and a line in :data:`FORMATS`.

An *alias* is what mc and rclone call a storage with its keys. It follows from whose bucket it is and nothing else, so
that ``rucio s3 url`` knows what ``rucio s3 credentials`` called it: see :func:`alias_of`.
"""

import hashlib
import json
import os
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Optional

from rucio.common.exception import InputValidationError

from .address import encode_path
from .answers import checked

if TYPE_CHECKING:
    from . import api

__all__ = ['FORMATS', 'TOOLS', 'Access', 'alias_of', 'environment', 'name_for', 'tool_environment']

_LONGEST_SLUG = 40


@dataclass(frozen=True)
class Access:
    """Keys for a bucket or a part of it, and what a tool must know to use them.

    :param alias: What :func:`alias_of` gives.
    :param keys: As the Rucio server gave them.
    :param url: The storage, ``scheme://host[:port]``, as this client knows it.
    :param only_md5: Whether the storage refuses the CRC-32 trailers that the newer AWS tools send.
    :raises ServiceUnavailable: if one of them cannot be what it is called: no format is given a line feed.
    """

    alias: str
    keys: 'api.Credentials' = field(repr=False)
    url: str
    region: str
    addressing: str
    ca_bundle: Optional[str] = None
    only_md5: bool = False

    def __post_init__(self) -> None:
        used = {**self.keys, 'region': self.region, 'url': self.url}
        for name in ('access_key', 'secret_key', 'session_token', 'region', 'expiration', 'url'):
            checked(f'RSE {self.keys["rse"]}: the Rucio server', name, used[name])

    @property
    def host(self) -> str:
        """``host[:port]``."""
        return self.url.partition('://')[2]

    @property
    def scheme(self) -> str:
        """``https`` or ``http``."""
        return self.url.partition('://')[0]


def alias_of(rse: str, scope: str, bucket: str, prefix: str, account: str) -> str:
    """What mc and rclone call these keys: letters, digits and ``_``, beginning with a letter, as a variable of a shell
    may be called.

    The RSE's name for the account's own scope (``user.ACCOUNT``); for others the bucket's behind it, and behind that
    the part of the bucket that was shared: ``site_s3``, ``site_s3__user_bob``, ``site_s3__user_bob__run7``. RSEs or
    buckets whose names differ in nothing but ``-``, ``.`` and ``_`` get the same.

    :param prefix: What the keys are for; empty: the whole bucket.
    """
    parts = [_slug(rse)]
    if scope != f'user.{account}':
        parts.append(_slug(bucket))
        if prefix:
            parts.append(_prefix_slug(prefix))
    alias = '__'.join(parts)
    return alias if re.match('[a-z].', alias) else f's3_{alias}'


def _slug(name: str) -> str:
    return re.sub('[^a-z0-9]', '_', name.lower())


def _prefix_slug(prefix: str) -> str:
    """Keys are longer and freer than names of buckets: where something is lost, a hash tells two prefixes apart."""
    name = prefix.rstrip('/')
    slug = _slug(name)
    if len(slug) <= _LONGEST_SLUG and re.fullmatch('[a-z0-9]+([._-][a-z0-9]+)*', name):
        return slug
    return f'{slug[:_LONGEST_SLUG]}_{hashlib.sha256(name.encode()).hexdigest()[:6]}'


def name_for(tool: str, alias: str, url: str, bucket: str, key: str) -> str:
    """What a tool calls an object, or a bucket where ``key`` is empty. A key that ends in ``/`` stands for all that
    begin so.

    :param tool: One of :data:`TOOLS`.
    :param alias: What :func:`alias_of` gives.
    :param url: The storage, ``scheme://host[:port]``.
    """
    return TOOLS[tool].format(
        alias=alias,
        url=url,
        path=f'{bucket}/{key}',
        encoded=encode_path(f'{bucket}/{key}'),
    )


TOOLS = {
    'mc': '{alias}/{path}',
    'aws': 's3://{path}',
    's5cmd': 's3://{path}',
    's3cmd': 's3://{path}',
    'rclone': '{alias}:{path}',
    'https': '{url}/{encoded}',
}


# Environments

_CA_VARIABLES = (
    'AWS_CA_BUNDLE',
    'REQUESTS_CA_BUNDLE',
    'CURL_CA_BUNDLE',
    'SSL_CERT_FILE',
    'SSL_CERT_DIR',
    'RCLONE_CA_CERT',
)


def environment(accesses: Sequence[Access]) -> dict[str, str]:
    """The variables that tell the tools of these keys.

    aws, s5cmd and what is made with an AWS SDK know one pair of keys: with several accesses only mc's and rclone's are
    set.
    """
    variables: dict[str, str] = {}
    for access in accesses:
        variables |= _mc_variables(access) | _rclone_variables(access)
    if len(accesses) == 1:
        variables |= _aws_variables(accesses[0])
    bundles = {access.ca_bundle for access in accesses}
    if len(bundles) == 1 and (bundle := bundles.pop()):
        # AWS's tools; mc, s5cmd and minio-py; rclone.
        variables |= dict.fromkeys(('AWS_CA_BUNDLE', 'SSL_CERT_FILE', 'RCLONE_CA_CERT'), bundle)
    return variables


def tool_environment(inherited: Mapping[str, str], accesses: Sequence[Access]) -> dict[str, str]:
    """The whole environment of a tool that is to use these keys and no others.

    :param inherited: The environment that it would have. All that it says of AWS but ``AWS_CA_BUNDLE`` is left out, and
        ``~/.aws`` is out of sight: a profile there is for another storage, and would win over keys in variables.
    """
    kept = {
        name: value for name, value in inherited.items() if not name.startswith('AWS_') and name != 'S3_ENDPOINT_URL'
    }
    # An empty one makes aws, and what is made with botocore or requests, believe any certificate.
    trusted = {name: inherited[name] for name in _CA_VARIABLES if inherited.get(name)}
    kept = {name: value for name, value in kept.items() if name not in _CA_VARIABLES} | trusted
    nothing = {
        'AWS_CONFIG_FILE': os.devnull,
        'AWS_SHARED_CREDENTIALS_FILE': os.devnull,
        'AWS_EC2_METADATA_DISABLED': 'true',
    }
    return kept | nothing | environment(accesses)


def _aws_variables(access: Access) -> dict[str, str]:
    variables = {
        'AWS_ACCESS_KEY_ID': access.keys['access_key'],
        'AWS_SECRET_ACCESS_KEY': access.keys['secret_key'],
        'AWS_SESSION_TOKEN': access.keys['session_token'],
        'AWS_CREDENTIAL_EXPIRATION': access.keys['expiration'],
        'AWS_REGION': access.region,
        'AWS_DEFAULT_REGION': access.region,
        'AWS_ENDPOINT_URL_S3': access.url,
        'S3_ENDPOINT_URL': access.url,  # s5cmd
        'S3CMD_CONFIG': str(files('rucio.common.s3').joinpath('s3cmd.cfg')),
        'RUCIO_S3_HOST': access.host,
        'RUCIO_S3_HOST_BUCKET': _host_bucket(access),
        'RUCIO_S3_HTTPS': str(access.scheme == 'https'),
    }
    if access.only_md5:
        # Only for what is sent: with AWS_RESPONSE_CHECKSUM_VALIDATION, too, aws 1.46 fails on empty objects of Ceph.
        variables['AWS_REQUEST_CHECKSUM_CALCULATION'] = 'when_required'
    return variables


def _mc_variables(access: Access) -> dict[str, str]:
    # Not percent-encoded: mc takes it raw, up to the first and second ":" and the last "@".
    if ':' in access.keys['access_key'] + access.keys['secret_key'] or '@' in access.host:
        _cannot_hold('a variable of mc', 'a colon')
    keys = '{access_key}:{secret_key}:{session_token}'.format(**access.keys)
    return {f'MC_HOST_{access.alias}': f'{access.scheme}://{keys}@{access.host}'}


def _rclone_variables(access: Access) -> dict[str, str]:
    return {
        f'RCLONE_CONFIG_{access.alias.upper()}_{name.upper()}': value for name, value in _rclone_options(access).items()
    }


def _rclone_options(access: Access) -> dict[str, str]:
    return {
        'type': 's3',
        'provider': 'Other',
        'env_auth': 'false',
        'access_key_id': access.keys['access_key'],
        'secret_access_key': access.keys['secret_key'],
        'session_token': access.keys['session_token'],
        'region': access.region,
        'endpoint': access.url,
        'force_path_style': 'false' if access.addressing == 'virtual' else 'true',
        # Whether a bucket is there cannot be asked with keys for a part of it; and it is not rclone that makes buckets
        # here.
        'no_check_bucket': 'true',
    }


# Formats


class Format(ABC):
    """How a tool reads its keys: from ``file``, or from where the environment's ``variable`` says. ``single``: there
    can be only one pair.
    """

    single: ClassVar[bool] = False
    file: ClassVar[str] = ''  # empty: it has none of its own
    variable: ClassVar[str] = ''

    def location(self, environ: Mapping[str, str]) -> str:
        """Where the tool looks for its keys; empty: nowhere in particular."""
        return environ.get(self.variable) or self.file

    def text(self, accesses: Sequence[Access]) -> str:
        """What is to be printed: a whole file."""
        return self.merged('', accesses)

    @abstractmethod
    def merged(self, text: str, accesses: Sequence[Access]) -> str:
        """The tool's file ``text`` with these keys in it, and all else as it was.

        :raises InputValidationError: if that is no file of this tool, or keys of the user's own would be lost. The
            message has none.
        """


class WholeFormat(Format):
    """What a file holds nothing beside. ``mark`` is in each that was made here."""

    mark: ClassVar[str]

    def merged(self, text: str, accesses: Sequence[Access]) -> str:
        if text.strip() and self.mark not in text:
            raise InputValidationError('Something else is in it, which would be lost. Name another file: --file.')
        return self.text(accesses)

    @abstractmethod
    def text(self, accesses: Sequence[Access]) -> str:
        """What is to be printed: a whole file."""


def _cannot_hold(what: str, character: str) -> NoReturn:
    raise InputValidationError(
        f'The storage made keys that {what} cannot hold: {character} is in one. Use another --format.'
    )


def _refuse_to_replace(what: str) -> NoReturn:
    raise InputValidationError(
        f'{what} is there already, with keys that do not end: it was not made by rucio s3. '
        'Rename or remove it, or name another file.'
    )


class Mc(Format):
    """MinIO's client: https://github.com/minio/mc, cmd/config-v10.go."""

    file = '~/.mc/config.json'
    variable = 'MC_CONFIG_DIR'
    _PATH: ClassVar[dict[str, str]] = {'path': 'on', 'virtual': 'off'}

    def location(self, environ: Mapping[str, str]) -> str:
        folder = environ.get(self.variable)
        return os.path.join(folder, 'config.json') if folder else self.file

    def merged(self, text: str, accesses: Sequence[Access]) -> str:
        config: Any = {'version': '10', 'aliases': {}}
        if text.strip():
            try:
                config = json.loads(text)
            except ValueError:
                raise InputValidationError('It is no JSON: no configuration of mc.') from None
            if (
                not isinstance(config, dict)
                or config.get('version') != '10'
                or not isinstance(config.setdefault('aliases', {}), dict)
            ):
                raise InputValidationError(
                    'It is no configuration of mc, or of another version than "10": '
                    'run mc once, which brings it up to date.'
                )
        for access in accesses:
            old = config['aliases'].get(access.alias)
            if old is not None and not (isinstance(old, dict) and old.get('sessionToken')):
                _refuse_to_replace(f"The alias '{access.alias}'")
            config['aliases'][access.alias] = {
                'url': access.url,
                'accessKey': access.keys['access_key'],
                'secretKey': access.keys['secret_key'],
                'sessionToken': access.keys['session_token'],
                'api': 'S3v4',
                'path': self._PATH.get(access.addressing, 'auto'),
            }
        return json.dumps(config, indent='\t') + '\n'


class Aws(Format):
    """Profiles of the AWS tools and SDKs, ``rucio-ALIAS``."""

    file = '~/.aws/credentials'
    variable = 'AWS_SHARED_CREDENTIALS_FILE'

    def merged(self, text: str, accesses: Sequence[Access]) -> str:
        for access in accesses:
            text = _with_section(text, f'rucio-{access.alias}', self._lines(access), 'aws_session_token')
        return text

    @staticmethod
    def _lines(access: Access) -> list[str]:
        options = {
            'aws_access_key_id': access.keys['access_key'],
            'aws_secret_access_key': access.keys['secret_key'],
            'aws_session_token': access.keys['session_token'],
            'region': access.region,
            'endpoint_url': access.url,
        }
        if access.ca_bundle:
            options['ca_bundle'] = access.ca_bundle
        if access.only_md5:
            options['request_checksum_calculation'] = 'when_required'
        lines = [_line(name, value) for name, value in options.items()]
        if access.addressing == 'virtual':
            lines += ['s3 =', '  addressing_style = virtual']
        return lines


class Process(WholeFormat):
    """What a ``credential_process`` prints; who asks will ask again before the keys end."""

    single = True
    mark = '"SessionToken"'

    def text(self, accesses: Sequence[Access]) -> str:
        (access,) = accesses
        answer = {
            'Version': 1,
            'AccessKeyId': access.keys['access_key'],
            'SecretAccessKey': access.keys['secret_key'],
            'SessionToken': access.keys['session_token'],
            'Expiration': access.keys['expiration'],
        }
        return json.dumps(answer) + '\n'


class Env(WholeFormat):
    """Lines for a POSIX shell: ``eval "$(rucio s3 credentials DID --format env)"``."""

    mark = 'unset AWS_PROFILE AWS_DEFAULT_PROFILE AWS_ENDPOINT_URL\n'

    def text(self, accesses: Sequence[Access]) -> str:
        # A profile would win over the keys.
        lines = [f'export {name}={shlex.quote(value)}' for name, value in environment(accesses).items()]
        return self.mark + '\n'.join(lines) + '\n'


class Rclone(Format):
    """Remotes of rclone, by alias."""

    file = '~/.config/rclone/rclone.conf'
    variable = 'RCLONE_CONFIG'

    def merged(self, text: str, accesses: Sequence[Access]) -> str:
        if 'RCLONE_ENCRYPT_V' in text:
            raise InputValidationError('It is encrypted: use rucio s3 exec, which needs no file, or name another file.')
        for access in accesses:
            lines = [_line(name, value) for name, value in _rclone_options(access).items()]
            text = _with_section(text, access.alias, lines, 'session_token')
        return text


def _host_bucket(access: Access) -> str:
    """Without %(bucket)s in it s3cmd puts the bucket into the path."""
    return f'%(bucket)s.{access.host}' if access.addressing == 'virtual' else access.host


class S3cmd(Format):
    """The one configuration of s3cmd. Options that have nothing to do with the storage stay as they are."""

    file = '~/.s3cfg'
    variable = 'S3CMD_CONFIG'
    single = True

    def merged(self, text: str, accesses: Sequence[Access]) -> str:
        (access,) = accesses
        present = _options(text.splitlines())
        if 'access_key' in present and 'access_token' not in present:
            _refuse_to_replace('A configuration of s3cmd')
        return _with_options(text, 'default', self._options(access))

    @staticmethod
    def _options(access: Access) -> dict[str, str]:
        options = {
            'access_key': access.keys['access_key'],
            'secret_key': access.keys['secret_key'],
            'access_token': access.keys['session_token'],
            'host_base': access.host,
            'host_bucket': _host_bucket(access),
            'bucket_location': access.region,
            'use_https': str(access.scheme == 'https'),
        }
        return options | ({'ca_certs_file': access.ca_bundle} if access.ca_bundle else {})


class Json(WholeFormat):
    """All that is known of each pair of keys, for programs: a list."""

    mark = '"session_token"'

    def text(self, accesses: Sequence[Access]) -> str:
        own = ('url', 'region', 'addressing', 'ca_bundle')
        known = [
            {'alias': access.alias, **access.keys, **{name: getattr(access, name) for name in own}}
            for access in accesses
        ]
        return json.dumps(known, indent=2) + '\n'


FORMATS: dict[str, Format] = {
    'mc': Mc(),
    'aws': Aws(),
    'process': Process(),
    'env': Env(),
    'rclone': Rclone(),
    's3cmd': S3cmd(),
    'json': Json(),
}


# INI files. Line by line: configparser would lose the user's comments.


def _line(name: str, value: str) -> str:
    """An option. All tools read back what went in: rclone takes "%(...)s" for another option, s3cmd "$..." for a
    variable of the environment, and quotes around a value, comments behind it and blanks at its ends are lost on one
    tool or another.

    :raises InputValidationError: if it is no line that all of them read as it is meant.
    """
    if (
        not value.isprintable()
        or value != value.strip()
        or value.startswith(('"', "'", '`', '$', '#', ';'))
        or ' #' in value
        or ' ;' in value
    ):
        _cannot_hold(
            f'the option {name} of a configuration file',
            'a quote, a control character, or what begins a variable or a comment',
        )
    if '%(' in value.replace('%(bucket)s.', '', 1 if name == 'host_bucket' else 0):
        _cannot_hold(f'the option {name} of a configuration file', '"%("')
    return f'{name} = {value}'


def _with_section(text: str, name: str, lines: list[str], token: str) -> str:
    """``text`` with this section in the place of the one of that name, or at its end.

    :param token: The option that keys which end have: a section without it is the user's own.
    """
    old = text.splitlines()
    start = next((number for number, line in enumerate(old) if _heading(line) == name), None)
    if start is None:
        gap = [''] if old and old[-1].strip() else []
        return '\n'.join([*old, *gap, f'[{name}]', *lines]) + '\n'
    end = next(
        (number for number, line in enumerate(old[start + 1 :], start + 1) if _heading(line) is not None), len(old)
    )
    # A comment before the next heading belongs to that.
    while old[end - 1].strip() == '' or old[end - 1].lstrip().startswith(('#', ';')):
        end -= 1
    if token not in _options(old[start:end]):
        _refuse_to_replace(f"The section '{name}'")
    return '\n'.join([*old[:start], f'[{name}]', *lines, *old[end:]]) + '\n'


def _with_options(text: str, section: str, options: Mapping[str, str]) -> str:
    """``text``, which has one section or none, with these options in it; those that it has change where they stand."""
    lines, missing = [], dict(options)
    for line in text.splitlines():
        name = line.partition('=')[0].strip()
        lines.append(_line(name, options[name]) if '=' in line and name in options else line)
        if '=' in line:
            missing.pop(name, None)
    heading = next((number for number, line in enumerate(lines) if _heading(line) == section), None)
    if heading is None:
        lines.insert(0, f'[{section}]')
        heading = 0
    lines[heading + 1 : heading + 1] = [_line(name, value) for name, value in missing.items()]
    return '\n'.join(lines) + '\n'


def _heading(line: str) -> Optional[str]:
    line = line.strip()
    return line[1:-1].strip() if line.startswith('[') and line.endswith(']') else None


def _options(lines: Iterable[str]) -> dict[str, str]:
    """The options that have a value."""
    pairs = (line.partition('=') for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs if value.strip()}
