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

"""Everything that a working S3 RSE needs, tried one thing after the other: what works, and what to change where it does
not.

What is measured is compared with what the RSE's settings say: a storage that does less than they promise is a failure,
one that does more is a hint. All objects are written below a key of their own and removed again.
"""

import base64
import contextlib
import hashlib
import os
import secrets
import socket
import ssl
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Optional
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import URLLib3Session, get_cert_path

from rucio.common.exception import AccessDenied, RSEAccessDenied, RSENotFound, RSEOperationNotSupported, RucioException
from rucio.common.s3 import clients, credentials, factory, objects, transfer
from rucio.common.s3.address import bucket_to_scope, encode_path, is_bucket_name, scope_to_bucket
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target, status_of, translate, translated
from rucio.common.s3.secrecy import is_private
from rucio.rse import rsemanager
from rucio.rse.protocols.s3 import FTS, Default

if TYPE_CHECKING:
    from rucio.client.client import Client
    from rucio.client.s3client import S3Client
    from rucio.common.s3 import api

__all__ = ['FAILED', 'HINT', 'OK', 'SKIPPED', 'Check', 'Result']

OK, HINT, SKIPPED, FAILED = 'ok', 'hint', 'skipped', 'FAILED'
FOLDER = '.rucio-s3-check'
_MiB = 1024**2
_SKEW = 15 * 60  # seconds: what S3 allows
_EXPIRES_SOON = 14 * 86400


class Result(NamedTuple):
    """What came of one check, and what to change where it is not right."""

    name: str
    status: str
    found: str
    remedy: str = ''


class _Outcome(Exception):
    """What ends a check otherwise than well."""

    def __init__(self, status: str, found: str, remedy: str = '') -> None:
        super().__init__(found)
        self.status, self.found, self.remedy = status, found, remedy


def _failed(found: str, remedy: str) -> _Outcome:
    return _Outcome(FAILED, found, remedy)


def _hint(found: str, remedy: str) -> _Outcome:
    return _Outcome(HINT, found, remedy)


def _skipped(why: str) -> _Outcome:
    return _Outcome(SKIPPED, why)


class Check:
    """All checks of one RSE, as this account on this machine sees it: ``for result in Check(client, s3_client,
    rse).run(): ...``

    About 40 requests to the storage and ten to the Rucio server; 5 MiB are sent twice.

    :param client: The Rucio client.
    :param plugin: The client of the server's S3 plugin.
    :param rse: The RSE.
    :param bucket: Where to write; without it, the RSE's own bucket, or that of one of the account's scopes.
    """

    def __init__(self, client: 'Client', plugin: 'S3Client', rse: str, bucket: Optional[str] = None) -> None:
        self._client = client
        self._plugin = plugin
        self._rse = rse
        self._wanted_bucket = bucket
        self._settings: Any = {}
        self._protocol: Optional[Default] = None
        self._endpoint: Optional[Endpoint] = None
        self._bucket: Optional[str] = None
        self._made_bucket = False
        self._written = False
        self._folder = f'{FOLDER}/{secrets.token_hex(8)}/'
        self._connection: Optional[clients.Connection] = None
        self._keys: set[str] = set()
        self._uploads: set[tuple[str, str]] = set()

    def run(self) -> Iterator[Result]:
        """The results, each as soon as it is known. What was written is removed at the end, also if nobody asks for the
        rest.

        :raises RSENotFound: if there is no such RSE.
        """
        self._settings = dict(self._client.get_rse(self._rse))
        try:
            for name, check in self._checks():
                yield self._tried(name, check)
        finally:
            left = self._clean_up()
        if left:
            yield Result('clean-up', FAILED, f'could not be removed: {left}', 'Remove it by hand.')

    @property
    def _is_read_only(self) -> bool:
        """Whether it is for what others keep in a bucket (rucio s3 rse add --read-only): nothing must be written there,
        also not for a check.
        """
        domains = [operations for each in self._settings['protocols'] for operations in each['domains'].values()]
        return (
            not self._settings['deterministic']
            and bool(domains)
            and not any(operations.get('write') for operations in domains)
        )

    def _checks(self) -> list[tuple[str, Callable[[], str]]]:
        catalogue = [('protocol', self._check_protocol), ('settings', self._check_settings)]
        way = [
            ('DNS', self._check_dns),
            ('connection', self._check_tcp),
            ('TLS', self._check_tls),
            ('clock', self._check_clock),
            ('server plugin', self._check_plugin),
            ('sharing', self._check_sharing),
            ('credentials', self._check_credentials),
        ]
        if self._is_read_only:
            return [*catalogue, *way, ('list and read', self._check_reading)]
        return [
            *catalogue,
            ('path algorithm', self._check_algorithm),
            ('place', self._check_place),
            ('attributes', self._check_attributes),
            ('domains', self._check_domains),
            ('availability', self._check_availability),
            *way,
            ('bucket', self._check_bucket),
            ('bucket policy', self._check_policy),
            ('write and read', self._check_write),
            ('multipart', self._check_multipart),
            ('conditional write', self._check_conditional_put),
            ('conditional multipart', self._check_conditional_multipart),
            ('Content-MD5', self._check_md5),
            ('CRC32', self._check_crc32),
            ('bodies of requests', self._check_body),
            ('checksum of large files', self._check_full_object),
            ('presigned URL', self._check_presigned),
            ('lifecycle', self._check_lifecycle),
            ('public ACLs', self._check_public_acls),
            ('role chaining', self._check_chaining),
            ('event topics', self._check_topics),
            ('vended keys (STS)', lambda: self._check_way('vended')),
            ('remote signing', lambda: self._check_way('remote')),
        ]

    def _tried(self, name: str, check: Callable[[], str]) -> Result:
        try:
            return Result(name, OK, check())
        except _Outcome as outcome:
            return Result(name, outcome.status, outcome.found, outcome.remedy)
        except RucioException as error:
            return Result(name, FAILED, *_split(str(error.args[0]) if error.args else str(error)))
        except (ClientError, BotoCoreError) as error:
            told = translate(error, name, Target(self._rse, self._bucket or '*'))
            return Result(name, FAILED, *_split(str(told.args[0])))
        except OSError as error:
            return Result(
                name,
                FAILED,
                str(error.strerror or error),
                "Check the RSE's host name and port, the network, and that the storage is up.",
            )

    # What the catalogue says

    def _check_protocol(self) -> str:
        protocols = self._settings['protocols']
        if not protocols:
            raise _failed('the RSE has no protocol', f'rucio s3 rse add {self._rse} --provider ... --endpoint ...')
        foreign = []
        for each in protocols:
            try:
                protocol = rsemanager.create_protocol(
                    self._settings, _operation(each), protocol_attr=each, domain=_domain(each)
                )
            except Exception as error:  # noqa: BLE001 - another class may fail to be imported in any way
                foreign.append(
                    f'{each["impl"]} ({error})' if each['impl'].startswith('rucio.rse.protocols.s3') else each['impl']
                )
                continue
            if isinstance(protocol, FTS):
                continue  # FTS's own view of the storage
            if isinstance(protocol, Default):
                self._protocol = protocol
                return '{scheme}://{hostname}:{port}{prefix}'.format(**each)
            foreign.append(each['impl'])
        raise _failed(
            f'no protocol is of rucio.rse.protocols.s3: {", ".join(foreign)}',
            "Change it: Client().update_protocols(RSE, scheme, hostname=..., port=..., data={'impl': 'rucio.rse.protocols.s3.Default'})",
        )

    def _check_settings(self) -> str:
        protocol = self._need_protocol()
        self._endpoint = endpoint = Endpoint.load(self._settings, protocol.attributes)
        if endpoint.provider == 'generic':
            raise _hint(
                'provider generic: nothing is known of the storage',
                "Set 'provider' in extended_attributes, if it is one of those in docs/settings.md.",
            )
        return f'provider {endpoint.provider}, region {endpoint.region or endpoint.default_region}, addressing {endpoint.addressing}'

    def _check_algorithm(self) -> str:
        prefix = self._need_protocol().attributes['prefix'].strip('/')
        if not self._settings['deterministic']:
            raise _hint(
                'the RSE is not deterministic: uploads need a PFN for each file',
                'Make a deterministic RSE, unless you know why.',
            )
        algorithm = self._settings.get('lfn2pfn_algorithm') or 'default'
        if algorithm == 's3_bucket':
            return (
                f"s3_bucket: a folder for each scope in '/{prefix}/'"
                if prefix
                else 's3_bucket: a bucket for each scope'
            )
        if not prefix:
            raise _failed(
                f"'{algorithm}' with the prefix '/': the first part of each path would be the bucket",
                f'Before the first replica: rucio-admin rse set-attribute --rse {self._rse} --key lfn2pfn_algorithm --value s3_bucket; or the prefix /BUCKET/',
            )
        return f"{algorithm} in the bucket '{prefix.partition('/')[0]}'"

    def _check_place(self) -> str:
        """Whether a key can be that of two scopes: what is deleted as the one is gone as the other."""
        algorithm = self._settings.get('lfn2pfn_algorithm') or 'hash'
        pair = (
            _nested(map(str, self._client.list_scopes()))
            if algorithm in ('identity', 'hash') and self._settings['deterministic']
            else None
        )
        if pair:
            raise _hint(
                f"'{algorithm}' makes folders of the dots in scopes such as {pair[1]}: files of {pair[0]} can have the same keys",
                'The Rucio server helps nobody to such keys who may not have both scopes. For a new RSE take s3_bucket (rucio s3 rse add).',
            )
        try:
            overlaps = self._plugin.get_s3_rse(self._rse).get('overlaps') or []
        except (RSEOperationNotSupported, RSENotFound):
            raise _skipped('the Rucio server cannot tell: it has no S3 plugin, or does not serve this RSE') from None
        if overlaps:
            found = '; '.join(each['why'] for each in overlaps)
            raise _failed(
                found,
                'Give each RSE a bucket_prefix, or a bucket and prefix, that is not the beginning of that of another.',
            )
        return 'no other RSE can have the same keys'

    def _check_attributes(self) -> str:
        attributes = self._client.list_rse_attributes(self._rse)
        if str(attributes.get('skip_upload_stat')).lower() not in ('true', '1'):
            raise _hint(
                'skip_upload_stat is not set: a request more for each upload, and a minute for each empty file',
                f'rucio-admin rse set-attribute --rse {self._rse} --key skip_upload_stat --value True',
            )
        if attributes.get('sign_url') not in (None, 's3'):
            raise _failed(
                f"sign_url is '{attributes['sign_url']}': the server cannot sign for that",
                f'rucio-admin rse set-attribute --rse {self._rse} --key sign_url --value s3',
            )
        if (
            attributes.get('sign_url')
            and self._endpoint
            and credentials.choose(replace(self._endpoint, auth='auto'), None, None, True)
        ):
            raise _hint(
                'sign_url is set, but this client has keys: Rucio asks for signatures that nobody needs',
                'Remove the attribute where clients have keys.',
            )
        return 'skip_upload_stat' + (', sign_url' if attributes.get('sign_url') else '')

    def _check_domains(self) -> str:
        domains = self._need_protocol().attributes['domains']
        missing = [
            f'{domain} {operation}'
            for domain in ('lan', 'wan')
            for operation in ('read', 'write', 'delete')
            if not domains.get(domain, {}).get(operation)
        ]
        if missing:
            raise _hint(
                f'not offered: {", ".join(missing)}',
                "Set them to 1 in the protocol's domains, unless they are left out on purpose (by null: from Rucio 39 on 0 comes before 1).",
            )
        names = ('third_party_copy_read', 'third_party_copy_write')
        by = [
            each['scheme']
            for each in self._settings['protocols']
            if all(each['domains'].get('wan', {}).get(name) for name in names)
        ]
        return 'read, write, delete' + (
            f' and third party copies ({", ".join(by)})' if by else '; no third party copies'
        )

    def _check_availability(self) -> str:
        missing = [
            operation
            for operation in ('read', 'write', 'delete')
            if not self._settings.get(f'availability_{operation}', True)
        ]
        if missing:
            raise _hint(
                f'switched off: {", ".join(missing)}',
                f'rucio-admin rse update --rse {self._rse} --setting availability_{missing[0]} --value True',
            )
        return 'read, write, delete'

    # The way there

    def _check_dns(self) -> str:
        url = urlsplit(self._need_endpoint().url)
        if proxy := _proxy(url.scheme, str(url.hostname)):
            raise _skipped(f'the proxy {proxy} asks')
        try:
            found = socket.getaddrinfo(url.hostname, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise _failed(
                f'{url.hostname}: {error.strerror or error}', "Check the protocol's hostname, and this machine's DNS."
            ) from None
        return f'{url.hostname}: {", ".join(dict.fromkeys(str(each[4][0]) for each in found))}'

    def _check_tcp(self) -> str:
        endpoint = self._need_endpoint()
        url = urlsplit(endpoint.url)
        if proxy := _proxy(url.scheme, str(url.hostname)):
            raise _skipped(f'goes through the proxy {proxy}')
        start = time.monotonic()
        with socket.create_connection(
            (url.hostname, url.port or (443 if url.scheme == 'https' else 80)), endpoint.patience().connect_timeout
        ):
            return f'{(time.monotonic() - start) * 1000:.1f} ms'

    def _check_tls(self) -> str:
        endpoint = self._need_endpoint()
        url = urlsplit(endpoint.url)
        if url.scheme != 'https':
            raise _hint('http: keys are not sent, but data go in the clear', 'Use https outside a closed network.')
        if proxy := _proxy(url.scheme, str(url.hostname)):
            raise _skipped(f'goes through the proxy {proxy}')
        context = ssl.create_default_context(cafile=_ca_bundle(endpoint))
        try:
            with (
                socket.create_connection(
                    (url.hostname, url.port or 443), endpoint.patience().connect_timeout
                ) as connection,
                context.wrap_socket(connection, server_hostname=url.hostname) as tls,
            ):
                certificate, version = tls.getpeercert() or {}, tls.version()
        except ssl.SSLError as error:
            said = getattr(error, 'verify_message', '') or error.reason or str(error)
            raise _failed(
                f'the certificate is not trusted: {said}',
                "Set 'ca_bundle' in rucio.cfg [s3] to the CA's PEM file, or check the host name.",
            ) from None
        left = ssl.cert_time_to_seconds(str(certificate['notAfter'])) - time.time()
        if left < _EXPIRES_SOON:
            raise _hint(f'the certificate ends in {left / 86400:.0f} days', 'Renew it.')
        return f'{version}, certificate for {left / 86400:.0f} more days'

    def _check_clock(self) -> str:
        endpoint = self._need_endpoint()
        answer = _http_get(endpoint, endpoint.url + '/')
        if 'Date' not in answer.headers:
            raise _skipped('the storage does not say what time it is')
        skew = parsedate_to_datetime(answer.headers['Date']).timestamp() - time.time()
        found = f'differs by {abs(skew):.0f} s from the storage'
        if abs(skew) > _SKEW:
            raise _failed(
                found, "Set this machine's clock, or the storage's (NTP): signatures are good for 15 minutes."
            )
        if abs(skew) > 60:
            raise _hint(found, "Set this machine's clock, or the storage's (NTP).")
        return found

    # Being authorised

    def _check_plugin(self) -> str:
        try:
            ways = self._plugin.get_s3_rse(self._rse).get('auth') or []
        except RSEOperationNotSupported:
            raise _hint(
                'the Rucio server has no S3 plugin: clients need keys',
                '[api] endpoints_add = s3 in the rucio.cfg of the server, with rucio-s3 installed there.',
            ) from None
        except RSENotFound:
            raise _hint(
                'the plugin does not serve this RSE', "Check the server's log, and its settings of this RSE."
            ) from None
        if not ways:
            raise _hint(
                'the server has no keys for this RSE',
                f"Put them into the server's rse-accounts.cfg, by the RSE id {self._settings['id']}.",
            )
        if not is_private(self._plugin.host):
            raise _hint(
                'the Rucio server is not reached by https: who listens has your Rucio token',
                'Set rucio_host and auth_host in rucio.cfg to https URLs.',
            )
        return f'offers {", ".join(ways)}'

    def _check_sharing(self) -> str:
        """Whether the operator has made the table of grants: without it none counts."""
        try:
            sharing = self._plugin.get_s3_rse(self._rse).get('sharing')
        except RucioException:
            raise _skipped('needs the S3 plugin of the server') from None
        if sharing is None:
            raise _skipped('the server is of an earlier version')
        if not sharing:
            raise _hint(
                'the database of the Rucio server lacks the table of grants: nothing can be shared, and no grant counts',
                'Run rucio-s3-database where the Rucio server runs.',
            )
        return 'collections can be shared'

    def _check_credentials(self) -> str:
        protocol = self._need_protocol()
        protocol.connect()
        self._endpoint = protocol._connected()  # noqa: SLF001 - the same house
        authorizer = protocol._authorizer  # noqa: SLF001
        if authorizer is None:
            if not self._settings.get('sign_url'):
                raise _failed(
                    'there are none',
                    f'Keys in rucio.cfg [s3:{self._rse}]; or keys in the rse-accounts.cfg of a server with the S3 plugin; or the RSE attribute sign_url = s3.',
                )
            return 'signed URLs (attribute sign_url): only GET, PUT and DELETE of one object can be tried'
        self._connection = clients.connect(self._endpoint, authorizer)
        return {
            'static': 'keys of this machine',
            'vended': 'keys vended by the Rucio server',
            'remote': 'requests signed by the Rucio server',
        }.get(authorizer.name, authorizer.name)

    def _check_bucket(self) -> str:
        if self._connection is None:
            raise _skipped('needs more than signed URLs' if self._settings.get('sign_url') else 'no credentials')
        prefix = unquote(self._need_protocol().attributes['prefix'].strip('/'))
        own, _, path = prefix.partition('/')
        if bucket := self._wanted_bucket or own:
            self._head(bucket)
            self._bucket = bucket
            self._folder = f'{path}/{self._folder}' if path and bucket == own else self._folder
            return f"'{bucket}'"
        refused = ''
        for scope in self._scopes():
            try:
                bucket = scope_to_bucket(scope, self._need_endpoint().bucket_prefix)
                self._head(bucket)
            except RucioException as error:
                refused = str(error.args[0])
                continue
            self._bucket = bucket
            return f"'{bucket}', of the scope {scope}"
        return self._make_bucket(refused)

    def _check_policy(self) -> str:
        """One that other tools have set may keep the server and its daemons out."""
        common = self._need_protocol().attributes['prefix'].strip('/')
        scope = (
            None
            if common or self._made_bucket or not self._bucket
            else bucket_to_scope(self._bucket, self._need_endpoint().bucket_prefix)
        )
        if scope is None:
            raise _skipped('it is not the bucket of a scope')
        try:
            warnings = self._plugin.list_policy_warnings(scope, self._rse)
        except RucioException:  # it is not the account's to see, or the server has no keys: another check tells
            raise _skipped('the Rucio server does not show it') from None
        if warnings:
            raise _hint(warnings[0], 'rucio s3 policy SCOPE --remove, by an admin of Rucio')
        return 'denies nothing to the Rucio server'

    def _scopes(self) -> list[str]:
        try:
            return sorted(self._client.list_scopes_for_account(str(self._client.account)))
        except RucioException:
            return []  # the account has none

    def _head(self, bucket: str) -> None:
        with translated('ls', Target(self._rse, bucket)):
            # Not HeadBucket, whose refusal does not say why.
            self._need_connection().client.list_objects_v2(Bucket=bucket, Prefix=self._folder, MaxKeys=1)

    def _make_bucket(self, refused: str) -> str:
        """Only for who has keys of their own: nobody else may make any bucket."""
        connection = self._need_connection()
        name = f'{connection.endpoint.bucket_prefix}rucio-s3-check-{secrets.token_hex(6)}'
        if connection.authorizer.name != 'static' or not is_bucket_name(name):
            raise _failed(
                f'no scope of {self._client.account} has a bucket. {refused}'.strip(),
                'rucio s3 make-bucket SCOPE; or name one: --bucket',
            )
        objects.make_bucket(connection, Target(self._rse, name))
        self._bucket, self._made_bucket = name, True
        return f"'{name}', made for this check"

    # Objects

    def _check_reading(self) -> str:
        """One page of the listing, and the first byte of what is first."""
        connection = self._need_connection()
        own, _, path = unquote(self._need_protocol().attributes['prefix'].strip('/')).partition('/')
        bucket = self._wanted_bucket or own
        if not bucket:
            raise _skipped('the RSE is not for one bucket only: name one (--bucket)')
        prefix = f'{path}/' if path and bucket == own else ''
        with translated('ls', Target(self._rse, bucket, prefix)):
            found = connection.client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=10).get('Contents', [])
        full = next((each['Key'] for each in found if each['Size']), None)
        if full is None:
            raise _hint(
                f"there is nothing to read in '{bucket}/{prefix}'", 'Check the bucket and the prefix of the protocol.'
            )
        with translated('get', Target(self._rse, bucket, full)):
            connection.client.get_object(Bucket=bucket, Key=full, Range='bytes=0-0')['Body'].close()
        return f"'{bucket}'"

    def _check_write(self) -> str:
        if self._connection is None and self._settings.get('sign_url') and self._protocol:
            return self._write_signed(self._protocol)
        connection, bucket = self._need_bucket()
        content = os.urandom(1000)
        self._round_trip(connection, bucket, 'small', content)
        self._round_trip(connection, bucket, 'empty', b'')
        self._written = True
        return 'a small object and an empty one'

    def _round_trip(self, connection: clients.Connection, bucket: str, name: str, content: bytes) -> None:
        key = self._key(name)
        target = Target(self._rse, bucket, key)
        with tempfile.TemporaryDirectory(prefix='rucio-s3-check-') as folder:
            sent, got = Path(folder) / 'sent', Path(folder) / 'got'
            sent.write_bytes(content)
            transfer.upload(connection, str(sent), target)
            transfer.download(connection, target, str(got))
            if got.read_bytes() != content:
                raise _failed('what comes back is not what was written', 'Do not use this storage; tell its operator.')

    def _write_signed(self, protocol: Default) -> str:
        scopes = self._scopes()
        if not scopes:
            raise _skipped(f'{self._client.account} has no scope')
        pfn = next(iter(protocol.lfns2pfns({'scope': scopes[0], 'name': self._folder + 'signed'}).values()))
        with tempfile.TemporaryDirectory(prefix='rucio-s3-check-') as folder:
            sent, got = Path(folder) / 'sent', Path(folder) / 'got'
            sent.write_bytes(b'rucio s3 check')
            protocol.put(str(sent), pfn)
            try:
                protocol.get(pfn, str(got))
            finally:
                protocol.delete(pfn)
        return 'with signed URLs'

    def _check_multipart(self) -> str:
        connection, bucket = self._need_written()
        first, last = os.urandom(5 * _MiB), b'!'
        key = self._multipart(connection, bucket, 'parts', [first, last])
        content = connection.client.get_object(Bucket=bucket, Key=key)['Body'].read()
        if content != first + last:
            raise _failed('what comes back is not what was written', 'Do not use this storage; tell its operator.')
        return 'two parts'

    def _multipart(
        self, connection: clients.Connection, bucket: str, name: str, parts: list[bytes], **options: Any
    ) -> str:
        client, key = connection.client, self._key(name)
        upload = client.create_multipart_upload(Bucket=bucket, Key=key, **options)['UploadId']
        self._uploads.add((key, upload))
        done: list[Any] = []
        algorithm: dict[str, Any] = {'ChecksumAlgorithm': 'CRC32'} if 'ChecksumAlgorithm' in options else {}
        for number, content in enumerate(parts, 1):
            answer: Any = client.upload_part(
                Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=content, **algorithm
            )
            done.append(
                {name: answer[name] for name in ('ETag', 'ChecksumCRC32') if name in answer} | {'PartNumber': number}
            )
        more: Any = {'ChecksumType': 'FULL_OBJECT'} if 'ChecksumType' in options else {}
        client.complete_multipart_upload(
            Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={'Parts': done}, **more
        )
        self._uploads.discard((key, upload))
        return key

    def _bare(self, connection: clients.Connection) -> clients.Connection:
        """A connection that lets us see what the storage does by itself: no look before, no checksums of our own."""
        endpoint = replace(
            connection.endpoint, conditional_put=True, conditional_multipart=True, verifies_body=True, checksum='none'
        )
        return clients.connect(endpoint, connection.authorizer)

    def _check_conditional_put(self) -> str:
        connection, bucket = self._need_written()
        bare, key = self._bare(connection), self._key('twice')
        bare.client.put_object(Bucket=bucket, Key=key, Body=b'1')
        honoured = _refused(lambda: bare.client.put_object(Bucket=bucket, Key=key, Body=b'2'), 412)
        return self._compared('conditional_put', honoured, 'If-None-Match of PutObject', 'overwrites')

    def _check_conditional_multipart(self) -> str:
        connection, bucket = self._need_written()
        bare = self._bare(connection)
        bare.client.put_object(Bucket=bucket, Key=self._key('parts-twice'), Body=b'1')
        honoured = _refused(lambda: self._multipart(bare, bucket, 'parts-twice', [b'2']), 412)
        return self._compared(
            'conditional_multipart', honoured, 'If-None-Match of CompleteMultipartUpload', 'overwrites'
        )

    def _compared(self, setting: str, measured: bool, what: str, otherwise: str) -> str:
        configured = getattr(self._need_endpoint(), setting)
        if configured and not measured:
            raise _failed(
                f'{what} is not honoured: the storage {otherwise}', f'Set {setting} = false in extended_attributes.'
            )
        if measured and not configured:
            raise _hint(
                f'{what} is honoured, but {setting} is false',
                f'{setting} = true in extended_attributes saves a request.',
            )
        return f'{what} is honoured' if measured else f'{what} is not honoured, as {setting} = false says'

    def _check_md5(self) -> str:
        verified = self._wrong_is_refused(
            'md5', ContentMD5=base64.b64encode(hashlib.md5(b'wrong', usedforsecurity=False).digest()).decode()
        )
        if not verified and self._need_endpoint().checksum == 'md5':
            raise _failed(
                'a wrong one is accepted',
                "Set checksum = crc32 in extended_attributes if that works (below), else 'none'.",
            )
        return 'a wrong one is refused' if verified else 'a wrong one is accepted'

    def _check_crc32(self) -> str:
        verified = self._wrong_is_refused(
            'crc32', ChecksumCRC32=base64.b64encode(zlib.crc32(b'wrong').to_bytes(4, 'big')).decode()
        )
        configured = self._need_endpoint().checksum
        if configured == 'crc32' and not verified:
            raise _failed(
                'a wrong x-amz-checksum-crc32 is accepted: uploads are not verified',
                'Set checksum = md5 in extended_attributes.',
            )
        if configured == 'none' and verified:
            raise _hint(
                'is verified by the storage, but checksum is none', 'Set checksum = crc32 in extended_attributes.'
            )
        return (
            'a wrong one is refused'
            if verified
            else f'a wrong one is accepted; checksum = {configured} does not use it'
        )

    def _wrong_is_refused(self, name: str, **header: Any) -> bool:
        connection, bucket = self._need_written()
        bare, key = self._bare(connection), self._key(f'wrong-{name}')
        try:
            return _refused(lambda: bare.client.put_object(Bucket=bucket, Key=key, Body=b'right', **header), 400)
        except ClientError as error:
            if status_of(error) in (411, 501):  # not known to it
                return False
            raise

    def _check_body(self) -> str:
        """One of two objects is deleted by DeleteObjects, which is sent with the key of the other."""
        connection, bucket = self._need_written()
        authorizer = connection.authorizer
        if not (authorizer.signed or authorizer.name == 'remote'):
            raise _skipped('there are no keys to sign with')
        bare, (signed, sent) = self._bare(connection), (self._key('signed'), self._key('sent'))
        for key in (signed, sent):
            bare.client.put_object(Bucket=bucket, Key=key, Body=b'')
        with _another_body(bare.client, f'<Delete><Object><Key>{sent}</Key></Object></Delete>'.encode()):
            try:
                bare.client.delete_objects(Bucket=bucket, Delete={'Objects': [{'Key': signed}]})
            except RSEAccessDenied:
                raise _skipped('the server does not sign DeleteObjects for this account') from None
            except ClientError as error:
                if status_of(error) >= 500:
                    raise
        verified = objects.exists(bare, Target(self._rse, bucket, sent))
        if self._need_endpoint().verifies_body and not verified:
            raise _failed(
                'DeleteObjects is accepted with other keys than those that were signed: who may write to a folder could delete all of its bucket',
                'Set verifies_body = false in extended_attributes.',
            )
        if verified and not self._need_endpoint().verifies_body:
            raise _hint(
                'are refused unless they are what was signed, but verifies_body is false',
                'verifies_body = true in extended_attributes saves requests.',
            )
        return (
            'are refused unless they are what was signed'
            if verified
            else 'are not compared with what was signed, as verifies_body = false says'
        )

    def _check_full_object(self) -> str:
        connection, bucket = self._need_written()
        bare = self._bare(connection)
        try:
            key = self._multipart(
                bare, bucket, 'whole', [b'whole'], ChecksumAlgorithm='CRC32', ChecksumType='FULL_OBJECT'
            )
            head: Any = bare.client.head_object(Bucket=bucket, Key=key, ChecksumMode='ENABLED')
            measured = head.get('ChecksumCRC32') == base64.b64encode(zlib.crc32(b'whole').to_bytes(4, 'big')).decode()
        except (ClientError, BotoCoreError):
            measured = False
        what = 'one CRC32 over a multipart object'
        configured = connection.endpoint.full_object_checksum and connection.endpoint.checksum == 'crc32'
        if configured and not measured:
            raise _failed(f'{what} is not kept', 'Set full_object_checksum = false in extended_attributes.')
        if measured and not configured:
            raise _hint(
                f'{what} is kept, but the settings do not use it',
                'Set checksum = crc32 and full_object_checksum = true in extended_attributes.',
            )
        return (
            f'{what} is kept'
            if measured
            else f'{what} is not kept: downloads of large files are verified by Rucio only'
        )

    def _check_presigned(self) -> str:
        connection, bucket = self._need_written()
        if connection.authorizer.name == 'remote':
            raise _skipped('the server signs requests as they are made')
        if not connection.authorizer.signed:
            raise _skipped('there are no keys to sign with')
        url = connection.client.generate_presigned_url(
            'get_object', Params={'Bucket': bucket, 'Key': self._key('small')}, ExpiresIn=60
        )
        status = _http_get(connection.endpoint, url).status_code
        if status != 200:
            raise _hint(f'a signed URL was answered with {status}', 'Do not use sign_url and `rucio s3 presign` here.')
        return 'GET by a signed URL'

    def _check_lifecycle(self) -> str:
        connection, bucket = self._need_written()
        try:
            rules: Any = connection.client.get_bucket_lifecycle_configuration(Bucket=bucket).get('Rules', [])
        except ClientError as error:
            if error.response['Error'].get('Code') != 'NoSuchLifecycleConfiguration':
                if status_of(error) == 403:
                    raise _skipped('these credentials may not ask') from None
                return self._compared(
                    'lifecycle', False, 'a lifecycle of buckets', 'keeps parts of interrupted uploads'
                )
            rules = []
        except RucioException:
            raise _skipped('these credentials may not ask') from None
        self._compared('lifecycle', True, 'a lifecycle of buckets', '')
        if any('AbortIncompleteMultipartUpload' in each for each in rules):
            return 'ends interrupted multipart uploads'
        if self._made_bucket:
            return 'is there; rucio s3 make-bucket sets a rule'
        raise _hint(
            f"the bucket '{bucket}' has no rule that ends interrupted multipart uploads",
            'rucio s3 make-bucket SCOPE sets it, also for a bucket that is there.',
        )

    def _check_public_acls(self) -> str:
        """Whether whoever may write makes an object public, by a copy: that is what Ceph lets pass longest."""
        connection, bucket = self._need_written()
        if connection.authorizer.name != 'vended':
            raise _skipped('is for keys that the server vends')
        key = self._key('public')
        try:
            self._bare(connection).client.copy_object(
                Bucket=bucket, Key=key, CopySource={'Bucket': bucket, 'Key': self._key('small')}, ACL='public-read'
            )
            clients.connect(connection.endpoint, credentials.Anonymous()).client.get_object(Bucket=bucket, Key=key)
        except (ClientError, RucioException):
            return 'an object cannot be made public by an ACL'
        raise _failed(
            'whoever may write makes objects public, by an ACL', 'Set ignore_public_acls = true in extended_attributes.'
        )

    def _check_chaining(self) -> str:
        """What the server found when it tried to make more of the keys that it vends."""
        try:
            told = self._plugin.get_s3_rse(self._rse).get('role_chaining')
        except RucioException:
            raise _skipped('needs the S3 plugin of the server') from None
        if not told:
            raise _skipped('the server vends no keys')
        if not told['refused']:
            raise _failed(*_split(told['said']))
        return f'vended keys cannot become more than they are for (tried at {told["tried_at"]})'

    def _check_topics(self) -> str:
        """Whether vended keys reach the topics of the storage, of which one may tell the server of events. What is made
        for it is deleted.
        """
        endpoint = self._need_endpoint()
        if not endpoint.event_topics:
            raise _skipped('the storage makes no topics')
        _, bucket = self._need_bucket()
        try:
            if 'vended' not in (self._plugin.get_s3_rse(self._rse).get('auth') or []):
                raise _skipped('the server vends no keys')
            keys = self._plugin.get_s3_credentials(self._rse, bucket, self._folder)
        except (RSEOperationNotSupported, AccessDenied):
            raise _skipped('no keys are vended for this bucket') from None
        may, own = _topic_calls(endpoint, keys)
        if not may:
            return 'vended keys cannot reach the topics'
        found = f'vended keys may {", ".join(may)} topics'
        remedy = 'See "Topics and vended keys" in docs/operators.md.'
        raise _failed(f'{found}: also {own}' if own else found, remedy)

    def _check_way(self, way: str) -> str:
        """A way that the server's plugin offers, from its answer to an object that was written and read with it."""
        endpoint = self._need_endpoint()
        try:
            told = self._plugin.get_s3_rse(self._rse)
        except RucioException:
            raise _skipped('needs the S3 plugin of the server') from None
        if way not in (told.get('auth') or []):
            if way == 'vended' and told.get('role_chaining'):
                raise _skipped('the server vends none: see role chaining')
            if way == 'vended':
                raise _skipped(
                    f'the server offers none: no role_arn in its rucio.cfg [s3:{self._rse}], or the way to it or to its STS is not https'
                )
            raise _skipped('the server does not offer it')
        _, bucket = self._need_written()
        if self._made_bucket:
            raise _skipped('the bucket of this check is of no scope')
        connection = clients.connect(
            replace(endpoint, auth=way), credentials.choose(replace(endpoint, auth=way), self._plugin)
        )
        self._round_trip(connection, bucket, f'by-{way}', way.encode())
        return 'an object was written and read'

    # What the checks stand on

    def _need_protocol(self) -> Default:
        if self._protocol is None:
            raise _skipped('no protocol')
        return self._protocol

    def _need_endpoint(self) -> Endpoint:
        if self._endpoint is None:
            raise _skipped('no valid settings')
        return self._endpoint

    def _need_connection(self) -> clients.Connection:
        if self._connection is None:
            raise _skipped('no credentials')
        return self._connection

    def _need_bucket(self) -> tuple[clients.Connection, str]:
        connection = self._need_connection()
        if self._bucket is None:
            raise _skipped('no bucket')
        return connection, self._bucket

    def _need_written(self) -> tuple[clients.Connection, str]:
        place = self._need_bucket()
        if not self._written:
            raise _skipped('nothing can be written')
        return place

    def _key(self, name: str) -> str:
        """A key below this check's folder, which is removed at its end."""
        key = self._folder + name
        self._keys.add(key)
        return key

    def _clean_up(self) -> str:
        """:returns: What could not be removed."""
        if self._connection is None or self._bucket is None:
            return ''
        client, left = self._connection.client, []
        for key, upload in self._uploads:
            with contextlib.suppress(ClientError, BotoCoreError, RucioException):
                client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)
        for key in sorted(self._keys):
            try:
                client.delete_object(Bucket=self._bucket, Key=key)
            except (ClientError, BotoCoreError, RucioException):
                left.append(f'{self._bucket}/{encode_path(key)}')
        if self._made_bucket:
            try:
                client.delete_bucket(Bucket=self._bucket)
            except (ClientError, BotoCoreError):
                left.append(f'the bucket {self._bucket}')
        return ', '.join(left)


def _topic_calls(endpoint: Endpoint, keys: 'api.Credentials') -> tuple[list[str], str]:
    """The calls for topics that keys may make, and a topic of the Rucio server that they see, or nothing. Four requests
    at most.
    """
    session = factory.bare_session(Credentials(keys['access_key'], keys['secret_key'], keys['session_token']))
    client = factory.client(
        'sns', session, endpoint.url, region=keys['region'], ca_bundle=endpoint.ca_bundle, patience=endpoint.patience()
    )
    name, may = f'rucio-s3-check-{secrets.token_hex(8)}', []

    def granted(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except ClientError as error:
            if status_of(error) in (401, 403, 405, 501):
                return None
            raise

    if granted(lambda: client.delete_topic(TopicArn=f'arn:aws:sns:default::{name}')):
        may.append('delete')
    if made := granted(lambda: client.create_topic(Name=name)):
        may.append('make')
        client.delete_topic(TopicArn=made['TopicArn'])
    if seen := (granted(client.list_topics) or {}).get('Topics', []):
        may.append('see')
    names = sorted(each['TopicArn'].rpartition(':')[2] for each in seen)
    return may, next((each for each in names if each.startswith('rucio-s3-')), '')


def _operation(protocol: dict[str, Any]) -> str:
    """One that a protocol entry is for: Rucio makes no object of it for others."""
    offered = protocol['domains'].get(_domain(protocol), {})
    return next(
        (
            each
            for each in ('write', 'read', 'delete', 'third_party_copy_read', 'third_party_copy_write')
            if offered.get(each)
        ),
        'read',
    )


def _domain(protocol: dict[str, Any]) -> str:
    domains = protocol['domains']
    return 'wan' if any(domains.get('wan', {}).values()) else 'lan'


def _refused(request: Callable[[], object], status: int) -> bool:
    """Whether a request is refused with this status. Another refusal is an error."""
    try:
        request()
    except ClientError as error:
        if status_of(error) == status:
            return True
        raise
    return False


@contextlib.contextmanager
def _another_body(client: Any, body: bytes) -> Iterator[None]:
    """DeleteObjects is signed for the body that it has, and sent with this one. What else would tell them apart is not
    signed.
    """

    def strip(request: AWSRequest, **_: Any) -> None:
        for name in [
            name
            for name in request.headers
            if name.lower() == 'content-md5' or name.lower().startswith(('x-amz-checksum-', 'x-amz-sdk-'))
        ]:
            del request.headers[name]

    def swap(request: Any, **_: Any) -> None:
        request.body = body
        request.headers['Content-Length'] = str(len(body))
        request.headers['Content-MD5'] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()

    events = client.meta.events
    events.register_first('before-sign.s3.DeleteObjects', strip)
    events.register_last('before-send.s3.DeleteObjects', swap)
    try:
        yield
    finally:
        events.unregister('before-sign.s3.DeleteObjects', strip)
        events.unregister('before-send.s3.DeleteObjects', swap)


def _proxy(scheme: str, host: str) -> str:
    """The proxy that requests to a host go through, without its password; or nothing."""
    proxy = getproxies().get(scheme, '')
    return urlsplit(proxy).netloc.rpartition('@')[2] or proxy if proxy and not proxy_bypass(host) else ''


def _ca_bundle(endpoint: Endpoint) -> str:
    """Whom boto3 trusts."""
    trusted = factory.trusted(endpoint.ca_bundle)
    return trusted if isinstance(trusted, str) else str(get_cert_path(True))


def _http_get(endpoint: Endpoint, url: str) -> Any:
    """A request without authorisation, but as boto3 makes it: the same CA, proxy and time-outs."""
    parts = urlsplit(url)
    proxies = {parts.scheme: getproxies()[parts.scheme]} if _proxy(parts.scheme, str(parts.hostname)) else None
    trusted: Any = _ca_bundle(endpoint)  # its stubs say bool
    return URLLib3Session(verify=trusted, proxies=proxies, timeout=int(endpoint.patience().connect_timeout) or 1).send(
        AWSRequest('GET', url).prepare()
    )


def _split(message: str) -> tuple[str, str]:
    """The messages of rucio.common.s3 end with what to do: the last sentence."""
    found, dot, remedy = message.rstrip().rpartition('. ')
    return (f'{found}.', remedy) if dot else (message, '')


def _nested(scopes: Iterable[str]) -> Optional[tuple[str, str]]:
    """Two scopes of which one lies in the folder of the other, where Rucio makes folders of dots."""
    folders = {scope for scope in scopes if scope.startswith(('user', 'group'))}
    for scope in sorted(folders):
        parts = scope.split('.')
        for count in range(1, len(parts)):
            if (above := '.'.join(parts[:count])) in folders:
                return above, scope
    return None
