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

"""A storage under test, and RSEs on it, without a Rucio server."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.handlers import add_expect_header

from rucio.common import config as rucio_config
from rucio.common.s3.address import encode_path
from rucio.rse import rsemanager
from servers.files import config_text, write_private

MiB = 1024**2
THRESHOLD = 5 * MiB  # the least that S3 takes as a part, so that a multipart upload is cheap
CAPACITY = 1024 * MiB
RSE, PUBLIC_RSE = 'CONFORMANCE', 'CONFORMANCE_PUBLIC'

# What of the environment could reach Rucio, boto3 or HTTP: none of it is meant for these tests.
FOREIGN_VARIABLES = ('AWS_', 'RUCIO_', 'X509_', 'VIRTUAL_ENV', 'CONDA_PREFIX', 'REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE', 'SSL_CERT_')
PROXY_VARIABLES = ('http_proxy', 'https_proxy', 'all_proxy', 'no_proxy')

# What a storage may be unable to do; `Backend.cannot` gives the reason. The suite then tests what has to happen instead.
LIMITS = {
    'dot_segments': 'keys with a path segment "." or ".."',
    'empty_segments': 'keys with nothing between two slashes: a//b',
    'leading_slash': 'keys that begin with a slash: /a',
    'etag_of_parts': 'to tell by the ETag that an object came in parts',
    'below_another': 'objects a and a/b at once',
    'long_keys': 'keys of 1024 bytes',
    'long_segments': 'path segments of more than 255 bytes',
    'access_control': 'to refuse wrong keys, and anonymous writing',
    'missing_bucket': 'to refuse an upload into a bucket that is not there (it makes the bucket)',
    'public_objects': 'an object that anybody may read, by a bucket policy',
    'conditional_put': 'to refuse all but one of several PUTs at the same time',
    'conditional_multipart': 'to refuse all but one of several CompleteMultipartUploads at the same time',
}


@dataclass(frozen=True)
class Backend:
    """An S3 storage to be put under the suite.

    :param provider: The setting ``provider``; ``settings`` are further ones of the RSE.
    :param cannot: What it cannot do (of :data:`LIMITS`) -> why.
    :param create_bucket: What makes a bucket, where CreateBucket without further arguments does not: ``f(client, name)``.
    """

    scheme: str
    hostname: str
    port: int
    provider: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = 'us-east-1'
    ca_bundle: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    cannot: Mapping[str, str] = field(default_factory=dict)
    create_bucket: Callable[[Any, str], None] = lambda client, name: client.create_bucket(Bucket=name)

    def __post_init__(self) -> None:
        if unknown := self.cannot.keys() - LIMITS.keys():
            raise ValueError(f'unknown limits {sorted(unknown)}: allowed are {sorted(LIMITS)}')

    @property
    def url(self) -> str:
        return f'{self.scheme}://{self.hostname}:{self.port}'

    def client(self, **options: Any) -> Any:
        """A boto3 client with nothing of ours and nobody's ~/.aws: it sees what is really stored."""
        session = botocore.session.Session()
        for variable in ('config_file', 'credentials_file'):
            session.set_config_variable(variable, os.devnull)
        integrity = {'request_checksum_calculation': 'when_required', 'response_checksum_validation': 'when_required'}
        config = Config(proxies={}, s3={'addressing_style': 'path'}, max_pool_connections=16, **integrity, **options)
        client = boto3.Session(
            aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key, region_name=self.region, botocore_session=session
        ).client('s3', endpoint_url=self.url, verify=self.ca_bundle, config=config)
        # Where a server answers an empty PUT at once, botocore takes that answer for the one to the next request, and waits for ever.
        client.meta.events.unregister('before-call.s3', add_expect_header)
        return client


class Rig:
    """RSEs on one bucket of a backend, an independent client, and nothing of the caller's environment.

    :param signed: Clients have no keys: PFNs are signed as a stock Rucio server with ``sign_url = s3`` does.
    """

    def __init__(self, backend: Backend, directory: Path, *, signed: bool = False) -> None:
        self.backend = backend
        self.signed = signed
        self.client = backend.client()
        token = secrets.token_hex(4)
        self.scope = f'conformance.{token}'
        self.bucket = self.scope
        self.missing_scope = f'missing.{token}'
        self._directory = directory

    @contextlib.contextmanager
    def installed(self) -> Iterator['Rig']:
        """Make the bucket and let Rucio, in this process, know of the RSE; undo both."""
        self.backend.create_bucket(self.client, self.bucket)
        try:
            keys = {} if self.signed else {'access_key': self.backend.access_key, 'secret_key': self.backend.secret_key}
            with pytest.MonkeyPatch.context() as patch:
                self._isolate(patch)
                with self.configured(**keys):
                    yield self
        finally:
            self.remove_bucket()

    def _isolate(self, patch: pytest.MonkeyPatch) -> None:
        for name in list(os.environ):
            if name.startswith(FOREIGN_VARIABLES) or name.lower() in PROXY_VARIABLES:
                patch.delenv(name)
        patch.setenv('HOME', str(self._directory))
        # The last of them is /opt/rucio/etc, whatever the environment says: rse-accounts.cfg is looked for there.
        patch.setattr(rucio_config, 'get_config_dirs', lambda: [str(self._directory)])
        patch.setattr(rsemanager, 'CLIENT_MODE', True, raising=False)
        patch.setattr(rsemanager, 'SERVER_MODE', False, raising=False)
        if self.signed:
            signer = _StockSigner(self.backend.client(signature_version='s3v4'))
            patch.setattr(rsemanager, '__get_signed_url', signer.get_signed_url, raising=False)
            patch.setattr('rucio.client.credentialclient.CredentialClient', lambda *_args, **_kwargs: signer)

    @contextlib.contextmanager
    def configured(self, **settings: str) -> Iterator[None]:
        """A rucio.cfg with these settings of the RSE, for as long as this lasts; without any, clients have no keys."""
        sections: dict[str, dict[str, object]] = {
            'client': {'rucio_host': 'http://127.0.0.1:9', 'auth_host': 'http://127.0.0.1:9', 'protocol_stat_retries': 1},
            's3': {'ca_bundle': self.backend.ca_bundle} if self.backend.ca_bundle else {},
            f's3:{RSE}': dict(settings),
        }
        path = self._directory / f'rucio-{secrets.token_hex(4)}.cfg'
        write_private(path, config_text(sections))
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv('RUCIO_CONFIG', str(path))
                rucio_config.clean_cached_config()
                yield
        finally:
            rucio_config.clean_cached_config()

    def remove_bucket(self) -> None:
        """Remove the bucket with all that is in it."""
        for upload in self.uploads():
            self.client.abort_multipart_upload(Bucket=self.bucket, **upload)
        before: list[str] = []
        while (keys := self.listing()) and keys != before:  # again: MinIO lists a/b only when a is gone
            for start in range(0, len(keys), 1000):
                batch = [{'Key': key} for key in keys[start : start + 1000]]
                self.client.delete_objects(Bucket=self.bucket, Delete={'Objects': batch, 'Quiet': True})
            before = keys
        self.client.delete_bucket(Bucket=self.bucket)

    # RSEs

    def rse(self, layout: str = 's3_bucket', host: str | None = None, port: int | None = None, **settings: Any) -> dict[str, Any]:
        """The RSE as Rucio's ``get_rse_info`` describes it.

        :param layout: ``s3_bucket``: one bucket for each scope; another lfn2pfn algorithm: all in a folder of one bucket.
        :param settings: Further ``s3`` settings; ``capacity=None`` takes one away.
        """
        common = {'provider': self.backend.provider, 'region': self.backend.region, 'capacity': CAPACITY}
        sizes = {'multipart_threshold': THRESHOLD, 'multipart_chunksize': THRESHOLD}
        merged = {**common, **sizes, **self.backend.settings, **settings}
        anonymous = merged.get('auth') == 'anonymous'
        operations = dict.fromkeys(('read', 'write', 'delete'), 1)
        protocol = {
            'scheme': self.backend.scheme,
            'hostname': host or self.backend.hostname,
            'port': port or self.backend.port,
            'prefix': '/' if layout == 's3_bucket' else f'/{self.bucket}/some/path/',
            'impl': 'rucio.rse.protocols.s3.Default',
            'domains': {'wan': dict(operations), 'lan': dict(operations)},
            'extended_attributes': {'s3': {name: value for name, value in merged.items() if value is not None}},
        }
        return {
            'rse': PUBLIC_RSE if anonymous else RSE,
            'id': '0' * 32,
            'deterministic': True,
            'lfn2pfn_algorithm': layout,
            'sign_url': 's3' if self.signed and not anonymous else None,
            'verify_checksum': True,
            'domain': ['lan', 'wan'],
            'protocols': [protocol],
        }

    def protocol(self, operation: str, rse: dict[str, Any] | None = None) -> Any:
        """A connected protocol object, as Rucio makes it for one operation: read, write or delete."""
        protocol = rsemanager.create_protocol(rse or self.rse(), operation)
        protocol.connect()
        return protocol

    def lfn(self, name: str, scope: str | None = None, **more: Any) -> dict[str, Any]:
        return {'scope': scope or self.scope, 'name': name, **more}

    def pfn(self, name: str, operation: str | None = None, scope: str | None = None, rse: dict[str, Any] | None = None) -> str:
        """The PFN of a name; where clients have no keys and an operation is named, signed for it."""
        settings = rse or self.rse()
        (pfn,) = self.protocol('read', settings).lfns2pfns(self.lfn(name, scope)).values()
        if operation and settings['sign_url']:
            return getattr(rsemanager, '__get_signed_url')(settings['rse'], 's3', operation, pfn)
        return pfn

    # What is really there

    def key(self, name: str) -> str:
        """The key of a name with the layout ``s3_bucket``. The stock signer takes a PFN's percent-encoding for part of it."""
        return encode_path(name) if self.signed else name

    def stored(self, key: str) -> bytes | None:
        """The content of an object, or None."""
        try:
            with self.client.get_object(Bucket=self.bucket, Key=key)['Body'] as body:
                return body.read()
        except ClientError as error:
            if error.response['ResponseMetadata']['HTTPStatusCode'] == 404:
                return None
            raise

    def store(self, key: str, content: bytes = b'content') -> None:
        """An object that another client wrote."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content)

    def store_many(self, keys: list[str]) -> None:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(self.store, keys))

    def listing(self, prefix: str = '') -> list[str]:
        pages = self.client.get_paginator('list_objects_v2').paginate(Bucket=self.bucket, Prefix=prefix)
        return [each['Key'] for page in pages for each in page.get('Contents', [])]

    def uploads(self) -> list[dict[str, str]]:
        """Multipart uploads that were begun and neither completed nor aborted."""
        try:
            found = self.client.list_multipart_uploads(Bucket=self.bucket).get('Uploads') or []
        except self.client.exceptions.NoSuchUpload:  # what rclone answers where there are none
            return []
        return [{'Key': each['Key'], 'UploadId': each['UploadId']} for each in found]


class _StockSigner:
    """Signs as rucio.core.credential.get_signed_url does for an RSE with ``sign_url = s3``: the path is not decoded."""

    OPERATIONS = {'read': 'get_object', 'write': 'put_object', 'delete': 'delete_object'}  # noqa: RUF012 - never changed

    def __init__(self, client: Any) -> None:
        self._client = client

    def get_signed_url(self, rse: str, service: str, operation: str, url: str, vo: str | None = None) -> str:
        bucket, key = urlparse(url).path.split('/', 2)[1:]
        return self._client.generate_presigned_url(self.OPERATIONS[operation], Params={'Bucket': bucket, 'Key': key}, ExpiresIn=600)
