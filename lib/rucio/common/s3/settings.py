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

"""The settings: each once, with its type, its default, what is allowed, where it may stand, and what it is for.

How values are read, the messages about wrong ones and the table in docs/settings.md (``make reference``) come from
the dataclasses below: ``:param name:`` is what the table says, in Markdown.
"""

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

# What `rucio s3 reconcile` and the daemons may do about an object that is not what the catalogue says, and about one
# that is gone.
ON_CHANGED = ('report', 'replace', 'bad')
ON_MISSING = ('report', 'forget', 'lost')

# What a signature may have to be guarded against: see providers.toml.
GUARDS = ('copy', 'prefix', 'host', 'acl', 'attributes', 'lock')

MiB = 1024**2
HOST = r'(?:(?:[A-Za-z0-9._-]|\{region\})+|\[[0-9A-Fa-f:.]+\])'  # a name or an address
_UNITS = {'': 1, 'K': 1024, 'M': MiB, 'G': 1024**3, 'T': 1024**4}


class Setting(NamedTuple):
    """How the value of a setting is read, what is allowed, and where it may stand."""

    parse: Callable[[Any], Any]
    allowed: str
    # 'anywhere', 'rucio.cfg' (secret, or of this machine), 'RSE' (clients and server must agree), 'server'
    where: str = 'anywhere'
    secret: bool = False

    def read(self, place: str, name: str, value: Any) -> Any:
        """The value that stands somewhere.

        :param place: Where, as the message says it.
        :raises ConfigurationError: if it is not allowed, with what is. A secret is not shown.
        """
        try:
            return self.parse(value)
        except (ValueError, TypeError, KeyError):
            seen = ' is not shown' if self.secret else f" is '{value}'"
            raise ConfigurationError(f"{place}: '{name}'{seen}, but must be {self.allowed}.") from None


@cache
def providers() -> dict[str, dict[str, Any]]:
    """What each provider does differently: the defaults of its settings."""
    return tomllib.loads(files('rucio.common.s3').joinpath('providers.toml').read_text())


# How values are read: ValueError, TypeError or KeyError where they are none


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


def _matching(pattern: str, trailing: str = '') -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not re.fullmatch(pattern, text := _text(value).rstrip(trailing)):
            raise ValueError
        return text

    return parse


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


_SWITCH = Setting(_boolean, 'true or false')
_COUNT = Setting(_within(1, 1000), 'a number from 1 to 1000')
_SECONDS = Setting(_within(0.001, 1e6, float), 'a number of seconds')
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_PART = Setting(_within(5 * MiB, 1024 * MiB, _size), 'a size from 5 MiB to 1 GiB')
_ROLE = Setting(_text, 'the ARN of a role')
_KEY = Setting(_text, 'a key', 'rucio.cfg', secret=True)
_RATE = Setting(_within(0, 1e9, float), 'a number of at least 0 (0: no limit)', 'server')
_RELEASE = r'RELEASE\.\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ'
# Clients read the settings of an RSE, and servers log URLs: no password in one. {region} is the region.
_URL = f'https?://{HOST}(:[0-9]{{1,5}})?'
_EVENTS_URL = Setting(
    _matching(r'https?://[^/\s?#@]+/[^\s#@]+'),
    "the URL of the Rucio server's endpoint, such as https://rucio.example.org/s3/SITE_S3/events",
)
_EVENTS_TOPIC = Setting(
    _matching(r'arn:[^\s:]+:(sns|sqs|lambda):\S+|eventbridge'),
    'an ARN, such as arn:minio:sqs::RUCIO:webhook, or eventbridge',
)
# Nothing that has to be encoded in a header, in JSON, in a URL or in rucio.cfg.
_EVENTS_TOKEN = Setting(
    _matching('[A-Za-z0-9._~-]{16,256}'),
    '16 to 256 letters, digits, ".", "_", "~" and "-", as `openssl rand -hex 32` makes them',
    'rucio.cfg',
    secret=True,
)


@dataclass(frozen=True)
class StorageSettings:
    """What can be set for a storage. Sizes are in bytes, times in seconds.

    :param provider: which defaults to take; `generic` is the careful choice. It also says which names a storage keeps
        for itself: no bucket `admin`, `auth` or `swift` (ceph), `minio` (minio), or any of these (generic) is made,
        vended or signed for
    :param region: the region that signatures name
    :param addressing: `https://host/bucket/key` or `https://bucket.host/key` in requests. PFNs are always path-style
    :param auth: see [Being authorised](#being-authorised)
    :param checksum: what the storage verifies when it receives data: `x-amz-checksum-crc32`, `Content-MD5`, or nothing
    :param full_object_checksum: whether a multipart object gets one checksum over all of it
        (`ChecksumType=FULL_OBJECT`), which downloads then verify
    :param conditional_put: whether PutObject honours `If-None-Match: *`; where not, a HEAD before it has to do
    :param conditional_multipart: the same for CompleteMultipartUpload
    :param multipart_threshold: from this size on a file is uploaded in parts and downloaded in ranges
    :param multipart_chunksize: the size of a part; it grows for files of more than 10,000 parts
    :param max_concurrency: parts under way at once, for each file. Memory of an upload: (this + 1) parts
    :param connect_timeout: how long a connection may take to be made
    :param read_timeout: how long the storage may send nothing
    :param max_attempts: tries of each request; a download that breaks off is resumed once
    :param lifecycle: whether buckets take a rule that ends forgotten multipart uploads; `rucio s3 make-bucket` sets one
    :param ignore_public_acls: whether the server has public ACLs ignored in a bucket (its public access block), when it
        makes it and before it vends keys for writing there: on Ceph whoever may write could make objects public. `rucio
        s3 share --public`, a policy, goes on working
    :param verifies_body: whether the storage compares the body of a request with the `x-amz-content-sha256` that was
        signed, see below. `rucio s3 check` measures it
    :param signature_guards: what the Rucio server signs against when it signs for others (`remote`), see below
    :param role_arn: the role that the Rucio server assumes to make short-lived keys. With it the server vends
        credentials for this RSE, once it has found that [nobody can make more of them](operators.md#roles-for-vending)
    :param minio_release: MinIO's release, as it does not tell it: without this one or a later one the server vends no
        keys of it ([why](operators.md#minio))
    :param sts_endpoint: where the storage's Security Token Service is; without it, where the buckets are. `{region}`
        stands for the region
    :param credentials_lifetime: how long vended keys are valid, in seconds: the server's upper bound
    :param web_identity_role_arn: the role that the storage gives to those who bring an OIDC token
    :param capacity: what the storage offers, as S3 does not tell: `get_space_usage` needs it, and the [free
        space](consistency.md#how-much-lies-there) that Rucio is told is this less what lies there. Set it before the
        RSE's limit `MinFreeSpace`
    :param on_changed: what is done about an object that is not what the catalogue says: nothing; the catalogue takes
        over the new size and checksum; the replica is declared bad: Rucio's daemons then write the file anew from
        another replica, or, if there is none, it is lost for ever and they delete the object. A bucket may have its own
        (`rucio s3 settings`)
    :param on_missing: what is done about a replica whose object is gone: nothing; the catalogue forgets it and the name
        is free; it is declared lost: Rucio's daemons copy the file here again from another replica, or, if there is
        none, its name is never used again and they delete what lies under its key. A bucket may have its own
    :param read_checksums: whether an object that others put is read where nothing else tells its checksum. Stock `rucio
        download` refuses a file without one, unless it is given `--ignore-checksum`
    :param etag_is_md5: whether an ETag without `-` is the MD5 of the object. On AWS it is not where objects are
        encrypted with SSE-KMS or SSE-C; where a bucket has none of them, true saves a HEAD for each new object
    :param sorted_listing: whether the storage lists keys in the order of their bytes, and from any key on, as S3 does.
        Where it does not (SeaweedFS lists `run1/x` before `run1-`; AWS's directory buckets have no order), each run of
        the reconciler lists all of the bucket first and sorts it in a temporary file, about 150 bytes an object; parts
        of a bucket are then not reconciled in parallel
    :param policy_capitals: whether the storage's policies tell capitals in keys. Where they do not (SeaweedFS), vended
        keys for `run1/` would also be good for `RUN1/`: the server looks for such a name first, one request for each
        slash, and signs requests instead of vending keys where there is one
    :param checksum_readers: objects that are read for their checksum at once
    :param fts_push: with the protocol [for FTS](transfers.md#with-fts): whether a WebDAV storage is asked to send its
        files here by itself (`?copy_mode=push`), as S3 fetches none. False: FTS decides, as where it is set to carry
        the bytes
    :param event_topics: whether the storage makes topics itself, by SNS's CreateTopic at its own endpoint
    :param events_url: this server's [endpoint for events](events.md), as the storage reaches it:
        `https://rucio.example.org/s3/NAME/events`. With `event_topics`, `rucio s3 make-bucket` subscribes each bucket
    :param events_topic: a topic or queue that the operator made for events: `rucio s3 make-bucket` subscribes each
        bucket to it
    :param events_endpoint: a gateway with the API for topics and notifications that only the server reaches, for Ceph:
        [why](operators.md#topics-and-vended-keys). Without it the RSE's own address
    :param events_token: a secret: what the storage has to bring with [events](events.md). Without it they are refused.
        `openssl rand -hex 32` makes one
    :param bucket_prefix: put before the bucket of each scope: bucket names are global on AWS, and VOs and RSEs that
        share an endpoint need different ones: two RSEs with the same buckets have one object for two replicas, and
        [what is deleted from one](deletion.md#two-rses-in-one-place) is gone from both. Set it before the first replica
    :param ca_bundle: the CA that signed the storage's certificate. boto3 has its own list, or takes `AWS_CA_BUNDLE` or
        `REQUESTS_CA_BUNDLE` of the environment, unless they are empty. Verification cannot be switched off
    :param progress: progress bars; `auto`: on a terminal, not with `rucio --robot`. Daemons never show them
    """

    provider: Annotated[str, _choice(*sorted(providers().keys() - {'default'}))] = 'generic'
    region: Annotated[
        Optional[str], Setting(_matching('[A-Za-z0-9][A-Za-z0-9._-]{0,62}'), 'a name such as us-east-1')
    ] = None
    addressing: Annotated[str, _choice('path', 'virtual', 'auto')] = 'path'
    auth: Annotated[str, _choice('auto', 'static', 'presigned', 'vended', 'remote', 'web-identity', 'anonymous')] = (
        'auto'
    )
    checksum: Annotated[str, _choice('crc32', 'md5', 'none')] = 'md5'
    full_object_checksum: Annotated[bool, _SWITCH] = False
    conditional_put: Annotated[bool, _SWITCH] = False
    conditional_multipart: Annotated[bool, _SWITCH] = False
    multipart_threshold: Annotated[int, _PART] = 16 * MiB
    multipart_chunksize: Annotated[int, _PART] = 16 * MiB
    max_concurrency: Annotated[int, _COUNT] = 4
    connect_timeout: Annotated[Optional[float], _SECONDS] = None
    read_timeout: Annotated[Optional[float], _SECONDS] = None
    max_attempts: Annotated[Optional[int], _COUNT] = None
    lifecycle: Annotated[bool, _SWITCH] = False
    ignore_public_acls: Annotated[bool, _SWITCH] = False
    verifies_body: Annotated[bool, _SWITCH._replace(where='RSE')] = False
    signature_guards: Annotated[tuple[str, ...], Setting(_guards, f'any of {", ".join(GUARDS)}, or nothing')] = ()
    role_arn: Annotated[Optional[str], _ROLE] = None
    minio_release: Annotated[
        Optional[str], Setting(_matching(_RELEASE), 'a release such as RELEASE.2025-10-15T17-29-55Z')
    ] = None
    sts_endpoint: Annotated[Optional[str], Setting(_matching(_URL, '/'), 'a URL such as https://sts.example.org')] = (
        None
    )
    credentials_lifetime: Annotated[int, Setting(_within(900, 43200), 'a number of seconds from 900 to 43200')] = 3600
    web_identity_role_arn: Annotated[Optional[str], _ROLE] = None
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
    events_endpoint: Annotated[
        Optional[str], Setting(_matching(_URL, '/'), 'a URL such as https://private-gateway.example.org')
    ] = None
    events_token: Annotated[Optional[str], _EVENTS_TOKEN] = field(default=None, repr=False)
    bucket_prefix: Annotated[str, Setting(_bucket_prefix, 'up to 31 of a-z, 0-9, "." and "-"', 'RSE')] = ''
    ca_bundle: Annotated[Optional[str], Setting(_readable_file, 'the path of a readable PEM file', 'rucio.cfg')] = None
    progress: Annotated[str, _choice('auto', 'on', 'off')._replace(where='rucio.cfg')] = 'auto'


@dataclass(frozen=True)
class Secrets:
    """What rucio.cfg says of keys. Never shown: neither repr nor str has them.

    :param access_key: the key that is used, in place of one from the server; see [Being authorised](#being-authorised).
        Keys and `profile` are one setting: those in `[s3:NAME]` replace all of `[s3]`
    :param secret_key: the secret that belongs to it
    :param session_token: the token that belongs to keys that end
    :param profile: a profile of `~/.aws`, with all that AWS tools do for it
    """

    access_key: Annotated[Optional[str], _KEY] = field(default=None, repr=False)
    secret_key: Annotated[Optional[str], _KEY] = field(default=None, repr=False)
    session_token: Annotated[Optional[str], _KEY._replace(allowed='a token')] = field(default=None, repr=False)
    profile: Annotated[Optional[str], Setting(_text, 'the name of an AWS profile', 'rucio.cfg')] = None


@dataclass(frozen=True)
class ServerSettings:
    """Options of ``[s3]`` that are of the Rucio server, not of a storage.

    :param default_rse: the one that is meant where several could be and the user names none
    :param fts: FTS moves files to and from S3 RSEs: see [transfers](transfers.md); the daemons' rucio.cfg needs it, too
    :param signatures_per_second: how many requests an account may have signed a second, and keys in the bodies of
        DeleteObjects, see [Limits](#limits)
    :param vends_per_second: how many new keys an account may get a second; keys that the server has already do not
        count
    """

    default_rse: Annotated[str, Setting(_text, 'the name of an RSE', 'server')] = ''
    fts: Annotated[bool, _SWITCH._replace(where='server')] = False
    signatures_per_second: Annotated[float, _RATE] = 2000
    vends_per_second: Annotated[float, _RATE] = 10


def _stated(*tables: type) -> dict[str, Setting]:
    hints = {name: hint for each in tables for name, hint in get_type_hints(each, include_extras=True).items()}
    return {name: hint.__metadata__[0] for name, hint in hints.items() if get_origin(hint) is Annotated}


SETTINGS = _stated(StorageSettings, Secrets)
SERVER_SETTINGS = _stated(ServerSettings)


def of_server(name: str) -> Any:
    """What the Rucio server's rucio.cfg says of one of :class:`ServerSettings`, or its default.

    :raises ConfigurationError: if its value is not allowed.
    """
    given = config_get('s3', name, raise_exception=False, default=None, check_config_table=False)
    if given is None:
        return next(each.default for each in fields(ServerSettings) if each.name == name)
    return SERVER_SETTINGS[name].read('rucio.cfg [s3]', name, given)
