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

"""The settings: type, default, allowed values, allowed places and purpose of each, stated once.

How values are read, the error messages and the table in docs/settings.md (``make reference``) are derived from the
dataclasses below. ``:param name:`` is the text in the table, in Markdown.
"""

import ipaddress
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, NamedTuple, Optional, get_origin, get_type_hints

from rucio.common.config import config_get
from rucio.common.exception import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    'CONDITIONS',
    'GUARDS',
    'ON_CHANGED',
    'ON_MISSING',
    'SERVER_SETTINGS',
    'SETTINGS',
    'Secrets',
    'ServerSettings',
    'Setting',
    'StorageSettings',
    'of_server',
    'providers',
]

# What `rucio s3 reconcile` and the daemons can do about an object that differs from the catalogue, and about a missing
# one.
ON_CHANGED = ('report', 'replace', 'bad')
ON_MISSING = ('report', 'forget', 'lost')

# The requests that can have If-None-Match: PutObject, CompleteMultipartUpload and CopyObject.
CONDITIONS = ('put', 'multipart', 'copy')

# The guards that a signature may need: see providers.toml.
GUARDS = ('copy', 'prefix', 'host', 'acl', 'attributes', 'lock')

MiB = 1024**2
_LABEL = '(?!-)[A-Za-z0-9-]{1,63}(?<!-)'  # between the dots of a host name; botocore takes no other characters
_UNITS = {'': 1, 'K': 1024, 'M': MiB, 'G': 1024**3, 'T': 1024**4}


class Setting(NamedTuple):
    """How to read the value of a setting, which values are allowed, and where it may be set."""

    parse: Callable[[Any], Any]
    allowed: str
    # 'anywhere', 'rucio.cfg' (secret, or of this machine), 'RSE' (clients and server must agree), 'server',
    # 'server or user'
    where: str = 'anywhere'
    secret: bool = False

    def read(self, place: str, name: str, value: Any) -> Any:
        """Read and validate a value.

        :param place: Where it is set, for the error message.
        :param name: The name of the setting.
        :param value: The value, as text or as JSON has it.
        :returns: The value in the type of the setting.
        :raises ConfigurationError: if it is not allowed. The message does not contain secrets.
        """
        try:
            return self.parse(value)
        except (ValueError, TypeError, KeyError):
            seen = ' is not shown' if self.secret else f" is '{value}'"
            raise ConfigurationError(f"{place}: '{name}'{seen}, but must be {self.allowed}.") from None


@cache
def providers() -> dict[str, dict[str, Any]]:
    """Return the defaults of each provider's settings."""
    return tomllib.loads(files('rucio.common.s3').joinpath('providers.toml').read_text())


def is_host(text: str) -> bool:
    """Return whether botocore takes this as the host of an endpoint: a name, or an IP address, IPv6 in brackets.

    An underscore, which Docker allows, is not part of a host name, and names with other letters need their ASCII form.
    """
    if text.startswith('[') and text.endswith(']'):
        try:
            return bool(ipaddress.IPv6Address(text[1:-1])) and '%' not in text
        except ValueError:
            return False
    return len(text) <= 255 and bool(re.fullmatch(rf'({_LABEL}\.)*{_LABEL}\.?', text))


# Parsers of values, which raise ValueError, TypeError or KeyError


def _choice(*allowed: str) -> Setting:
    def parse(value: Any) -> str:
        if value not in allowed:
            raise ValueError
        return str(value)

    return Setting(parse, 'one of ' + ', '.join(allowed))


def _within(least: float, most: float, read: Callable[[Any], Any] = int) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if not least <= (number := read(value)) <= most:
            raise ValueError
        return number

    return parse


def _matching(pattern: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not re.fullmatch(pattern, text := _text(value)):
            raise ValueError
        return text

    return parse


def _url(value: Any) -> str:
    """Clients read the settings, and servers log URLs: they must not contain passwords. {region} is replaced."""
    text = _text(value).rstrip('/')
    match = re.fullmatch(r'https?://([^/?#@]+?)(:[0-9]{1,5})?', text)
    if match is None or not is_host(match[1].replace('{region}', 'region')):
        raise ValueError
    return text


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def _boolean(value: Any) -> bool:
    named = {'true': True, 'yes': True, 'on': True, '1': True, 'false': False, 'no': False, 'off': False, '0': False}
    return named[str(value).strip().lower()]


def _size(value: Any) -> int:
    match = re.fullmatch(r'(\d+)\s*([KMGT]i?B?)?', str(value).strip(), re.IGNORECASE)
    if match is None:
        raise ValueError
    return int(match[1]) * _UNITS[(match[2] or '')[:1].upper()]


def _bucket_prefix(value: Any) -> str:
    if not re.fullmatch(r'([a-z0-9][a-z0-9.-]{0,30})?', str(value)):
        raise ValueError
    return str(value)


def _any_of(*allowed: str) -> Setting:
    def parse(value: Any) -> tuple[str, ...]:
        names = tuple(value.replace(',', ' ').split() if isinstance(value, str) else value)
        if not set(names) <= set(allowed):
            raise ValueError
        return names

    return Setting(parse, f'any of {", ".join(allowed)}, or nothing')


_ORIGIN = re.compile(rf'\*|https?://(\*\.)?({_LABEL}\.)*{_LABEL}(:[0-9]{{1,5}})?')


def _origins(value: Any) -> tuple[str, ...]:
    """Browsers compare the text: no path, not even a slash at the end."""
    names = tuple(value.replace(',', ' ').split() if isinstance(value, str) else value)
    if not all(_ORIGIN.fullmatch(name) for name in names):
        raise ValueError
    return names


def _readable_file(value: Any) -> str:
    path = os.path.expanduser(_text(value))
    if not os.path.isfile(path):
        raise ValueError
    return path


_SWITCH = Setting(_boolean, 'true or false')
_COUNT = Setting(_within(1, 1000), 'a number from 1 to 1000')
_SECONDS = Setting(_within(0.001, 1e6, float), 'a number of seconds')
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_PART = Setting(_within(5 * MiB, 1024 * MiB, _size), 'a size from 5 MiB to 1 GiB')
_ROLE = Setting(_text, 'the ARN of a role')
_USER = Setting(
    _matching(r'arn:aws(-cn|-us-gov)?:iam::[A-Za-z0-9_-]*:user/([A-Za-z0-9_+=,.@-]+/)*\{[a-zA-Z0-9_.-]{1,30}\}'),
    'an ARN such as arn:aws:iam:::user/{s3-user}, in which {s3-user} is an attribute of accounts',
)
_KEY = Setting(_text, 'a key', 'rucio.cfg', secret=True)
_RATE = Setting(_within(0, 1e9, float), 'a number of at least 0 (0: no limit)', 'server')
_RELEASE = r'RELEASE\.\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ'
_EVENTS_URL = Setting(
    _matching(r'https?://[^/\s?#@]+/[^\s#@]+'),
    "the URL of the Rucio server's endpoint, such as https://rucio.example.org/s3/SITE_S3/events",
)
_EVENTS_TOPIC = Setting(
    _matching(r'arn:[^\s:]+:(sns|sqs|lambda):\S+|eventbridge'),
    'an ARN, such as arn:minio:sqs::RUCIO:webhook, or eventbridge',
)
# Only characters that need no encoding in a header, in JSON, in a URL and in rucio.cfg.
_EVENTS_TOKEN = Setting(
    _matching('[A-Za-z0-9._~-]{16,256}'),
    '16 to 256 letters, digits, ".", "_", "~" and "-", as `openssl rand -hex 32` makes them',
    'rucio.cfg',
    secret=True,
)


@dataclass(frozen=True)
class StorageSettings:
    """The settings of a storage. Sizes are in bytes, times in seconds.

    :param provider: which defaults to use; `generic` has the safest ones. It also defines reserved names: buckets
        `admin`, `auth` or `swift` (ceph), `minio` (minio), `healthcheck` (swift), or all of these (generic) are not
        created, vended or signed for
    :param region: the region to sign requests for
    :param addressing: `https://host/bucket/key` or `https://bucket.host/key` in requests. PFNs are always path-style
    :param auth: see [Being authorised](#being-authorised)
    :param checksum: the checksum that the storage verifies on uploads: `x-amz-checksum-crc32`, `Content-MD5`, or none
    :param full_object_checksum: whether a multipart object gets a checksum of the whole content
        (`ChecksumType=FULL_OBJECT`), which downloads then verify
    :param conditional_put: whether PutObject supports `If-None-Match: *`; otherwise a HEAD is sent before it
    :param conditional_multipart: the same for CompleteMultipartUpload
    :param if_none_match: which uploads and copies have `If-None-Match: *`, [whatever the storage does with
        it](behaviour.md#storages-without-if-none-match): PutObject (`put`), CompleteMultipartUpload (`multipart`),
        CopyObject (`copy`). Leave out those that the storage refuses for it; a HEAD is then sent before
    :param multipart_threshold: files of at least this size are uploaded in parts and downloaded in ranges
    :param multipart_chunksize: the size of a part; it is larger for files that would have more than 10,000 parts
    :param max_concurrency: concurrent parts of each file. Memory of an upload: (this + 1) parts
    :param connect_timeout: how long to wait for a connection
    :param read_timeout: how long to wait for the next byte
    :param max_attempts: attempts of each request; an interrupted download is resumed once
    :param requester_pays: whether requests say that the requester pays (`x-amz-request-payer: requester`), as AWS
        demands for buckets with Requester Pays. If the Rucio server signs, the owner of its keys pays
    :param lifecycle: whether buckets support a rule that removes unfinished multipart uploads; `rucio s3 make-bucket`
        sets one
    :param cors_origins: the origins of web pages that may use buckets in browsers, such as
        `https://notebooks.example.org` or `https://*.example.org`: `rucio s3 make-bucket` sets a CORS rule for them,
        also for a bucket that exists. The pages need keys or signed URLs nevertheless. Other rules are kept, and ours
        (`rucio-s3-origins`) stays when the setting is removed
    :param ignore_public_acls: whether the server lets a bucket ignore public ACLs (its public access block) when it
        creates the bucket, and before it vends keys for writing to it: on Ceph, anybody who can write could otherwise
        make objects public. `rucio s3 share --public`, which uses a policy, still works
    :param verifies_body: whether the storage compares the body of a request with the `x-amz-content-sha256` that was
        signed, see below. `rucio s3 check` measures it
    :param signature_guards: what the Rucio server prevents when it signs for others (`remote`), see below
    :param role_arn: the role that the Rucio server assumes to get short-lived keys. With it the server vends
        credentials for this RSE, once it has verified that [they cannot gain more
        access](operators.md#roles-for-vending)
    :param minio_release: the release of MinIO, which cannot be queried: without this one or a later one the server
        vends no keys for it ([why](operators.md#minio))
    :param sts_endpoint: the URL of the storage's Security Token Service; the default is that of the storage. `{region}`
        is replaced by the region
    :param credentials_lifetime: the maximum lifetime of vended keys, in seconds
    :param web_identity_role_arn: the role that the storage gives to users with an OIDC token
    :param user_arn: the ARN of an account's own user at the storage, where accounts have one, such as
        `arn:aws:iam:::user/{s3-user}`, in which the attribute `s3-user` of the account is the user's name. Then
        `rucio s3 share --with` also lets the user [read with keys of its own](operators.md#users-of-the-storage)
    :param capacity: the size of the storage, which S3 does not report: it is needed for `get_space_usage`, and for the
        [free space](consistency.md#how-much-lies-there) that Rucio gets, which is this less the size of all objects.
        Set it before the RSE's limit `MinFreeSpace`
    :param on_changed: what to do about an object that differs from the catalogue. `report`: nothing. `replace`: update
        size and checksum in the catalogue. `bad`: declare the replica bad; Rucio's daemons then overwrite the object
        from another replica, or, if there is none, the file is lost permanently and they delete the object. A bucket
        can have its own setting (`rucio s3 settings`)
    :param on_missing: what to do about a replica whose object is missing. `report`: nothing. `forget`: remove it from
        the catalogue, which frees the name. `lost`: declare it lost; Rucio's daemons then copy the file again from
        another replica, or, if there is none, its name can never be used again and they delete any object under its
        key. A bucket can have its own setting
    :param read_checksums: whether to read new objects of other tools if there is no other way to get their checksum.
        Stock `rucio download` refuses a file without one, unless `--ignore-checksum` is given
    :param etag_is_md5: whether an ETag without `-` is the MD5 of the object. On AWS it is not if objects are encrypted
        with SSE-KMS or SSE-C; if a bucket has none of them, true saves a HEAD for each new object
    :param sorted_listing: whether the storage lists keys in the order of their bytes, and starting from any key, as S3
        does. If not (SeaweedFS lists `run1/x` before `run1-`; AWS's directory buckets have no order), each run of the
        reconciler first lists the whole bucket and sorts it in a temporary file, about 150 bytes per object; parts of a
        bucket are then not reconciled in parallel
    :param policy_capitals: whether the storage's policies are case-sensitive for keys. If not (SeaweedFS), vended keys
        for `run1/` would also be valid for `RUN1/`: the server searches for such a name first, one request for each
        slash, and if there is one it signs requests instead of vending keys
    :param checksum_readers: objects to read concurrently for their checksums
    :param fts_push: with the protocol [for FTS](transfers.md#with-fts): whether WebDAV storages are asked to push their
        files here (`?copy_mode=push`), as S3 cannot pull. False: FTS decides, for example if it is configured to stream
        the data itself
    :param event_topics: whether the storage creates topics with SNS's CreateTopic at its own endpoint
    :param events_url: the URL of this server's [endpoint for events](events.md), as the storage reaches it:
        `https://rucio.example.org/s3/NAME/events`. With `event_topics`, `rucio s3 make-bucket` subscribes each bucket
    :param events_topic: a topic or queue for events that the operator created: `rucio s3 make-bucket` subscribes each
        bucket to it
    :param events_endpoint: a gateway with the API for topics and notifications that only the server can reach, for
        Ceph: [why](operators.md#topics-and-vended-keys). The default is the RSE's own endpoint
    :param events_token: a secret that the storage must send with [events](events.md). Without it they are refused.
        `openssl rand -hex 32` makes one
    :param bucket_prefix: the prefix of the bucket of each scope: bucket names are global on AWS, and VOs and RSEs that
        share an endpoint need different ones. Two RSEs with the same buckets use one object for two replicas, and
        [deleting it on one](deletion.md#two-rses-in-one-place) deletes it on both. Set it before the first replica
    :param ca_bundle: the CA that signed the storage's certificate. By default boto3's own list is used, or
        `AWS_CA_BUNDLE` or `REQUESTS_CA_BUNDLE` of the environment, unless they are empty. Verification cannot be
        disabled
    :param progress: progress bars; `auto`: on a terminal, not with `rucio --robot`. Daemons never show them
    """

    provider: Annotated[str, _choice(*sorted(providers().keys() - {'default'}))] = 'generic'
    region: Annotated[
        Optional[str], Setting(_matching(rf'(?![0-9]+$){_LABEL}'), 'a name such as us-east-1: letters, digits and "-"')
    ] = None
    addressing: Annotated[str, _choice('path', 'virtual', 'auto')] = 'path'
    auth: Annotated[str, _choice('auto', 'static', 'presigned', 'vended', 'remote', 'web-identity', 'anonymous')] = (
        'auto'
    )
    checksum: Annotated[str, _choice('crc32', 'md5', 'none')] = 'md5'
    full_object_checksum: Annotated[bool, _SWITCH] = False
    conditional_put: Annotated[bool, _SWITCH] = False
    conditional_multipart: Annotated[bool, _SWITCH] = False
    if_none_match: Annotated[tuple[str, ...], _any_of(*CONDITIONS)] = CONDITIONS
    multipart_threshold: Annotated[int, _PART] = 16 * MiB
    multipart_chunksize: Annotated[int, _PART] = 16 * MiB
    max_concurrency: Annotated[int, _COUNT] = 4
    connect_timeout: Annotated[Optional[float], _SECONDS] = None
    read_timeout: Annotated[Optional[float], _SECONDS] = None
    max_attempts: Annotated[Optional[int], _COUNT] = None
    requester_pays: Annotated[bool, _SWITCH] = False
    lifecycle: Annotated[bool, _SWITCH] = False
    cors_origins: Annotated[
        tuple[str, ...],
        Setting(_origins, 'origins such as https://notebooks.example.org or https://*.example.org, or *'),
    ] = ()
    ignore_public_acls: Annotated[bool, _SWITCH] = False
    verifies_body: Annotated[bool, _SWITCH._replace(where='RSE')] = False
    signature_guards: Annotated[tuple[str, ...], _any_of(*GUARDS)] = ()
    role_arn: Annotated[Optional[str], _ROLE] = None
    minio_release: Annotated[
        Optional[str], Setting(_matching(_RELEASE), 'a release such as RELEASE.2025-10-15T17-29-55Z')
    ] = None
    sts_endpoint: Annotated[Optional[str], Setting(_url, 'a URL such as https://sts.example.org')] = None
    credentials_lifetime: Annotated[int, Setting(_within(900, 43200), 'a number of seconds from 900 to 43200')] = 3600
    web_identity_role_arn: Annotated[Optional[str], _ROLE] = None
    user_arn: Annotated[Optional[str], _USER] = None
    capacity: Annotated[Optional[int], Setting(_size, 'a size such as 100 TiB')] = None
    on_changed: Annotated[str, _choice(*ON_CHANGED)] = 'report'
    on_missing: Annotated[str, _choice(*ON_MISSING)] = 'report'
    read_checksums: Annotated[bool, _SWITCH] = True
    etag_is_md5: Annotated[bool, _SWITCH] = False
    sorted_listing: Annotated[bool, _SWITCH] = False
    policy_capitals: Annotated[bool, _SWITCH] = False
    checksum_readers: Annotated[int, _COUNT] = 4
    fts_push: Annotated[bool, _SWITCH._replace(where='RSE')] = True
    event_topics: Annotated[bool, _SWITCH] = False
    events_url: Annotated[Optional[str], _EVENTS_URL] = None
    events_topic: Annotated[Optional[str], _EVENTS_TOPIC] = None
    events_endpoint: Annotated[Optional[str], Setting(_url, 'a URL such as https://private-gateway.example.org')] = None
    events_token: Annotated[Optional[str], _EVENTS_TOKEN] = field(default=None, repr=False)
    bucket_prefix: Annotated[str, Setting(_bucket_prefix, 'up to 31 of a-z, 0-9, "." and "-"', 'RSE')] = ''
    ca_bundle: Annotated[Optional[str], Setting(_readable_file, 'the path of a readable PEM file', 'rucio.cfg')] = None
    progress: Annotated[str, _choice('auto', 'on', 'off')._replace(where='rucio.cfg')] = 'auto'


@dataclass(frozen=True)
class Secrets:
    """The keys in rucio.cfg. Neither repr nor str shows them.

    :param access_key: the access key to use instead of keys from the server; see [Being authorised](#being-authorised).
        Keys and `profile` are one setting: those in `[s3:NAME]` replace all of `[s3]`
    :param secret_key: the secret key
    :param session_token: the session token of keys that expire
    :param profile: a profile of `~/.aws`, used as AWS tools do
    """

    access_key: Annotated[Optional[str], _KEY] = field(default=None, repr=False)
    secret_key: Annotated[Optional[str], _KEY] = field(default=None, repr=False)
    session_token: Annotated[Optional[str], _KEY._replace(allowed='a token')] = field(default=None, repr=False)
    profile: Annotated[Optional[str], Setting(_text, 'the name of an AWS profile', 'rucio.cfg')] = None


@dataclass(frozen=True)
class ServerSettings:
    """Options of ``[s3]`` for the Rucio server (``default_rse`` for users, too), not for a storage.

    :param default_rse: the RSE to use if there are several and the user names none; the user's own comes before that of
        the server: see [Which RSE](behaviour.md#which-rse)
    :param fts: whether FTS transfers files to and from S3 RSEs: see [transfers](transfers.md); the daemons' rucio.cfg
        needs it, too
    :param signatures_per_second: the number of signatures that an account can get per second, including those for keys
        in the bodies of DeleteObjects, see [Limits](#limits)
    :param vends_per_second: the number of new keys that an account can get per second; keys that the server has already
        are not counted
    """

    default_rse: Annotated[str, Setting(_text, 'the name of an RSE', 'server or user')] = ''
    fts: Annotated[bool, _SWITCH._replace(where='server')] = False
    signatures_per_second: Annotated[float, _RATE] = 2000
    vends_per_second: Annotated[float, _RATE] = 10


def _stated(*tables: type) -> dict[str, Setting]:
    hints = {name: hint for each in tables for name, hint in get_type_hints(each, include_extras=True).items()}
    return {name: hint.__metadata__[0] for name, hint in hints.items() if get_origin(hint) is Annotated}


SETTINGS = _stated(StorageSettings, Secrets)
SERVER_SETTINGS = _stated(ServerSettings)


def of_server(name: str) -> Any:
    """Return one of the :class:`ServerSettings` from the Rucio server's rucio.cfg, or its default.

    :param name: The name of the setting.
    :raises ConfigurationError: if its value is not allowed.
    """
    given = config_get('s3', name, raise_exception=False, default=None, check_config_table=False)
    if given is None:
        return next(each.default for each in fields(ServerSettings) if each.name == name)
    return SERVER_SETTINGS[name].read('rucio.cfg [s3]', name, given)
