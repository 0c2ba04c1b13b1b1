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

"""Credentials and names for other S3 tools: short-lived keys in the format of each tool, and its names of objects.

Pure functions, without requests and files. A new tool is a subclass of :class:`Format` and a line in :data:`FORMATS`.

An *alias* is the name by which mc and rclone know a storage with its keys. It only depends on the bucket's owner, so
that ``rucio s3 url`` and ``rucio s3 credentials`` use the same: see :func:`alias_of`.
"""

import hashlib
import json
import os
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Optional

from rucio.common.exception import InputValidationError

from .address import encode_path
from .answers import checked

if TYPE_CHECKING:
    from . import api

__all__ = [
    'ALIAS',
    'FORMATS',
    'TOOLS',
    'Access',
    'alias_in',
    'alias_of',
    'aliases_of_user',
    'environment',
    'headings',
    'is_alias_on',
    'name_for',
    'tool_environment',
]

ALIAS = 'rucio'  # of the endpoint of `rucio s3 serve`; the AWS profile as well
_LONGEST_SLUG = 40


@dataclass(frozen=True)
class Access:
    """Keys for a bucket or a part of it, and what a tool needs to use them.

    :param alias: The alias from :func:`alias_of`.
    :param keys: The answer of the Rucio server.
    :param url: The storage, ``scheme://host[:port]``, as this client knows it.
    :param region: The region to sign for.
    :param addressing: path or virtual.
    :param ca_bundle: The CA of the storage, a PEM file.
    :param only_md5: Whether the storage refuses the CRC-32 trailers that newer AWS tools send.
    :raises ServiceUnavailable: if a value is invalid: no format gets a line feed.
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
    """Return the alias of keys for mc and rclone: letters, digits and ``_``, like a variable of a shell.

    For the account's own scope (``user.ACCOUNT``) it is the name of the RSE. For others the name of the bucket is
    appended, and the prefix that was shared: ``site_s3``, ``site_s3__user_bob``, ``site_s3__user_bob__run7``. RSEs or
    buckets whose names only differ in ``-``, ``.`` and ``_`` have the same alias.

    :param rse: The name of the RSE.
    :param scope: The scope of the bucket.
    :param bucket: The bucket.
    :param prefix: The prefix that the keys are for; empty for the whole bucket.
    :param account: The account.
    """
    parts = [_slug(rse)]
    if scope != f'user.{account}':
        parts.append(_slug(bucket))
        if prefix:
            parts.append(_prefix_slug(prefix))
    alias = '__'.join(parts)
    return alias if re.match('[a-z].', alias) else f's3_{alias}'


def alias_in(name: str) -> str:
    """Return what mc or rclone would take for an alias in an argument; empty if that is none of :func:`alias_of`.

    :param name: The argument, such as ``site_s3/bucket/key`` or ``site_s3:bucket/key``.
    """
    found = re.match('([a-z][a-z0-9_]+)[/:]', name)
    return found[1] if found else ''


def is_alias_on(alias: str, rse: str) -> bool:
    """Return whether :func:`alias_of` could have made this alias for an RSE.

    :param alias: The alias.
    :param rse: The name of the RSE.
    """
    own = alias_of(rse, 'user.x', '', '', 'x')
    return alias == own or alias.startswith(f'{own}__')


def aliases_of_user(environ: Mapping[str, str]) -> set[str]:
    """Return the aliases that mc knows by itself: from variables and its configuration.

    :param environ: The environment.
    """
    known = {name.removeprefix('MC_HOST_') for name in environ if name.startswith('MC_HOST_')}
    for place in _mc_files(environ):
        with suppress(OSError, ValueError, AttributeError):
            written = json.loads(Path(place).expanduser().read_text(encoding='utf-8'))
            known |= set(written.get('aliases') or ())
    return known


_MC_PROGRAMS = ('mc', 'minio-client', 'mcli')  # the names that MinIO's client has: it looks in ~/.NAME


def _mc_files(environ: Mapping[str, str], programs: Iterable[str] = _MC_PROGRAMS) -> list[str]:
    if folder := environ.get('MC_CONFIG_DIR'):
        return [os.path.join(folder, 'config.json')]
    return [f'~/.{program}/config.json' for program in programs]


def _slug(name: str) -> str:
    return re.sub('[^a-z0-9]', '_', name.lower())


def _prefix_slug(prefix: str) -> str:
    """Convert a prefix. If that loses characters, a hash is added that tells prefixes apart."""
    name = prefix.rstrip('/')
    slug = _slug(name)
    if len(slug) <= _LONGEST_SLUG and re.fullmatch('[a-z0-9]+([._-][a-z0-9]+)*', name):
        return slug
    return f'{slug[:_LONGEST_SLUG]}_{hashlib.sha256(name.encode()).hexdigest()[:6]}'


def name_for(tool: str, alias: str, url: str, bucket: str, key: str) -> str:
    """Return a tool's name for an object, for a bucket if ``key`` is empty, or for a prefix if it ends in ``/``.

    :param tool: One of :data:`TOOLS`.
    :param alias: The alias from :func:`alias_of`.
    :param url: The storage, ``scheme://host[:port]``.
    :param bucket: The bucket.
    :param key: The key, decoded.
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
    """Return the environment variables for the tools.

    aws, s5cmd and programs based on an AWS SDK only know one pair of keys: for several accesses only the variables of
    mc and rclone are set.

    :param accesses: The keys.
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
    """Return the whole environment of a tool that is to use only these keys.

    :param inherited: The current environment. All of its AWS variables but ``AWS_CA_BUNDLE`` are removed, and
        ``~/.aws`` is hidden: a profile there is for another storage, and would take precedence over variables.
    :param accesses: The keys.
    """
    kept = {
        name: value for name, value in inherited.items() if not name.startswith('AWS_') and name != 'S3_ENDPOINT_URL'
    }
    # If it is empty, aws and programs based on botocore or requests accept any certificate.
    trusted = {name: inherited[name] for name in _CA_VARIABLES if inherited.get(name)}
    kept = {name: value for name, value in kept.items() if name not in _CA_VARIABLES} | trusted
    nothing = {
        'AWS_CONFIG_FILE': str(files('rucio.common.s3').joinpath('aws.cfg')),
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
        # Only for uploads: with AWS_RESPONSE_CHECKSUM_VALIDATION as well, aws 1.46 fails on empty objects of Ceph.
        variables['AWS_REQUEST_CHECKSUM_CALCULATION'] = 'when_required'
    return variables


def _mc_variables(access: Access) -> dict[str, str]:
    # Not percent-encoded: mc splits it at the first and second ":" and the last "@".
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
        # With keys for a part of a bucket, rclone cannot check whether the bucket exists; and it must not make buckets.
        'no_check_bucket': 'true',
    }


# Formats


class Format(ABC):
    """The way in which a tool reads its keys: from ``file``, or from the file that the variable ``variable`` names.

    ``single``: there can be only one pair. ``ca``: what to do about the storage's own CA, FILE, if the format cannot
    hold it.
    """

    single: ClassVar[bool] = False
    ca: ClassVar[str] = ''
    file: ClassVar[str] = ''  # empty if it has no default
    variable: ClassVar[str] = ''

    def location(self, environ: Mapping[str, str]) -> str:
        """Return the path of the tool's configuration; empty if there is no default.

        :param environ: The environment.
        """
        return environ.get(self.variable) or self.file

    def locations(self, environ: Mapping[str, str], find: Callable[[str], Optional[str]]) -> list[str]:
        """Return the paths of all configurations that the tool may read here.

        :param environ: The environment.
        :param find: Returns the path of a program; None if it is not there.
        """
        return [place] if (place := self.location(environ)) else []

    def text(self, accesses: Sequence[Access]) -> str:
        """Return the text to print: a whole file.

        :param accesses: The keys.
        """
        return self.merged('', accesses)

    @abstractmethod
    def merged(self, text: str, accesses: Sequence[Access]) -> str:
        """Return the text of the tool's file with these keys added, and everything else unchanged.

        :param text: The current text.
        :param accesses: The keys.
        :raises InputValidationError: if it is not a file of this tool, or would lose keys of the user. The message does
            not contain keys.
        """


class WholeFormat(Format):
    """A file that only contains keys. ``mark`` is in each that was made here."""

    mark: ClassVar[str]

    def merged(self, text: str, accesses: Sequence[Access]) -> str:
        if text.strip() and self.mark not in text:
            raise InputValidationError('It has other content, which would be lost. Choose another file with --file.')
        return self.text(accesses)

    @abstractmethod
    def text(self, accesses: Sequence[Access]) -> str:
        """Return the text to print: a whole file.

        :param accesses: The keys.
        """


def _cannot_hold(what: str, character: str) -> NoReturn:
    raise InputValidationError(
        f'The keys of this storage cannot be written to {what}, as they contain {character}. Use another --format.'
    )


def _refuse_to_replace(what: str) -> NoReturn:
    raise InputValidationError(
        f'{what} exists already, with keys that do not expire: it was not made by rucio s3. '
        'Rename or remove it, or choose another file.'
    )


class Mc(Format):
    """MinIO's client: https://github.com/minio/mc, cmd/config-v10.go."""

    ca = 'mc needs it in its own directory: cp FILE ~/.mc/certs/CAs/ (or use rucio s3 exec).'
    file = '~/.mc/config.json'
    variable = 'MC_CONFIG_DIR'
    _PATH: ClassVar[dict[str, str]] = {'path': 'on', 'virtual': 'off'}

    def location(self, environ: Mapping[str, str]) -> str:
        return _mc_files(environ)[0]

    def locations(self, environ: Mapping[str, str], find: Callable[[str], Optional[str]]) -> list[str]:
        return _mc_files(environ, [name for name in _MC_PROGRAMS if name == 'mc' or find(name)])

    def merged(self, text: str, accesses: Sequence[Access]) -> str:
        config: Any = {'version': '10', 'aliases': {}}
        if text.strip():
            try:
                config = json.loads(text)
            except ValueError:
                raise InputValidationError('It is not JSON, so not a configuration of mc.') from None
            if (
                not isinstance(config, dict)
                or config.get('version') != '10'
                or not isinstance(config.setdefault('aliases', {}), dict)
            ):
                raise InputValidationError(
                    'It is not a configuration of mc, or of another version than "10": run mc once to upgrade it.'
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
    """Profiles of the AWS tools and SDKs, ``rucio-ALIAS``; ``rucio`` for `rucio s3 serve`."""

    file = '~/.aws/credentials'
    variable = 'AWS_SHARED_CREDENTIALS_FILE'

    def merged(self, text: str, accesses: Sequence[Access]) -> str:
        for access in accesses:
            profile = access.alias if access.alias == ALIAS else f'rucio-{access.alias}'
            text = _with_section(text, profile, self._lines(access), 'aws_session_token')
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
    """The output of a ``credential_process``; tools call it again before the keys expire."""

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
        # A profile would take precedence over the keys.
        lines = [f'export {name}={shlex.quote(value)}' for name, value in environment(accesses).items()]
        return self.mark + '\n'.join(lines) + '\n'


class Rclone(Format):
    """Remotes of rclone, by alias."""

    ca = 'Old versions of rclone need it in a variable: export RCLONE_CA_CERT=FILE (or use rucio s3 exec).'
    file = '~/.config/rclone/rclone.conf'
    variable = 'RCLONE_CONFIG'

    def merged(self, text: str, accesses: Sequence[Access]) -> str:
        if 'RCLONE_ENCRYPT_V' in text:
            raise InputValidationError(
                'It is encrypted: use rucio s3 exec, which needs no file, or choose another file.'
            )
        for access in accesses:
            options = _rclone_options(access)
            if access.ca_bundle:
                options['override.ca_cert'] = access.ca_bundle
            lines = [_line(name, value) for name, value in options.items()]
            text = _with_section(text, access.alias, lines, 'session_token')
        return text


def _host_bucket(access: Access) -> str:
    """Return the option host_bucket. Without %(bucket)s in it, s3cmd puts the bucket into the path."""
    return f'%(bucket)s.{access.host}' if access.addressing == 'virtual' else access.host


class S3cmd(Format):
    """The configuration of s3cmd, which is only one. Options that do not concern the storage are kept."""

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
    """A list with everything that is known of each pair of keys, for programs."""

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


# INI files. They are edited by lines, as configparser would lose the user's comments.


def _line(name: str, value: str) -> str:
    """Return the line of an option, if all tools read back the same value.

    rclone interpolates "%(...)s", s3cmd "$..."; and some tools remove quotes around a value, comments behind it or
    blanks at its ends.

    :raises InputValidationError: if a tool would read another value.
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
            'a quote, a control character, or the start of a variable or comment',
        )
    if '%(' in (value.removeprefix('%(bucket)s.') if name == 'host_bucket' else value):
        _cannot_hold(f'the option {name} of a configuration file', '"%("')
    return f'{name} = {value}'


def _with_section(text: str, name: str, lines: list[str], token: str) -> str:
    """Return ``text`` with a section replaced or added at its end.

    :param token: The option of keys that expire: a section without it belongs to the user, and is not replaced.
    """
    old = text.splitlines()
    start = next((number for number, line in enumerate(old) if _heading(line) == name), None)
    if start is None:
        gap = [''] if old and old[-1].strip() else []
        return '\n'.join([*old, *gap, f'[{name}]', *lines]) + '\n'
    end = next(
        (number for number, line in enumerate(old[start + 1 :], start + 1) if _heading(line) is not None), len(old)
    )
    # Comments before the next heading belong to that.
    while old[end - 1].strip() == '' or old[end - 1].lstrip().startswith(('#', ';')):
        end -= 1
    if token not in _options(old[start:end]):
        _refuse_to_replace(f"The section '{name}'")
    return '\n'.join([*old[:start], f'[{name}]', *lines, *old[end:]]) + '\n'


def _with_options(text: str, section: str, options: Mapping[str, str]) -> str:
    """Return ``text``, which has at most one section, with these options. Existing ones are changed in place."""
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


def headings(text: str) -> set[str]:
    """Return the names of the sections of an INI file.

    :param text: The text.
    """
    return {name for line in text.splitlines() if (name := _heading(line))}


def _options(lines: Iterable[str]) -> dict[str, str]:
    """Return the options that have a value."""
    pairs = (line.partition('=') for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs if value.strip()}
