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

"""The conformance suite over any S3 storage, as environment variables name it::

    RUCIO_S3_TEST_ENDPOINT=https://s3.example.org:9000 RUCIO_S3_TEST_ACCESS_KEY=... RUCIO_S3_TEST_SECRET_KEY=... \\
        tox run -e rucio41 -- tests/conformance

It makes a bucket with a name of its own, needs about 100 MB in it for a minute, and removes it. Nothing else is touched.

RUCIO_S3_TEST_ENDPOINT    scheme://host:port
RUCIO_S3_TEST_ACCESS_KEY  and RUCIO_S3_TEST_SECRET_KEY: keys that may make buckets
RUCIO_S3_TEST_PROVIDER    the setting `provider` (generic)
RUCIO_S3_TEST_REGION      the setting `region` (us-east-1)
RUCIO_S3_TEST_CA_BUNDLE   the PEM file of the CA, where the system does not trust it
RUCIO_S3_TEST_CANNOT      what the storage is known to be unable to do, with commas in between: names of conformance.rig.LIMITS
"""

import os
from typing import Any
from urllib.parse import urlsplit

import pytest

from conformance.rig import Backend
from conformance.suite import PresignedConformance, ProtocolConformance

ENDPOINT = os.environ.get('RUCIO_S3_TEST_ENDPOINT', '')

if not ENDPOINT:
    pytest.skip('RUCIO_S3_TEST_ENDPOINT names no storage to be tested', allow_module_level=True)


def _create_bucket(client: Any, name: str) -> None:
    region = client.meta.region_name
    # What AWS wants everywhere but there, where it refuses it.
    where = {} if region == 'us-east-1' else {'CreateBucketConfiguration': {'LocationConstraint': region}}
    client.create_bucket(Bucket=name, **where)


def _backend() -> Backend:
    def variable(name: str, default: str | None = None) -> str:
        value = os.environ.get(f'RUCIO_S3_TEST_{name}', default)
        if value is None:
            pytest.fail(f'RUCIO_S3_TEST_{name} is not set')
        return value

    provider, url = variable('PROVIDER', 'generic'), urlsplit(ENDPOINT)
    return Backend(
        url.scheme,
        url.hostname or '',
        url.port or {'http': 80}.get(url.scheme, 443),
        provider=provider,
        access_key=variable('ACCESS_KEY'),
        secret_key=variable('SECRET_KEY'),
        region=variable('REGION', 'us-east-1'),
        ca_bundle=variable('CA_BUNDLE', '') or None,
        cannot={limit.strip(): 'RUCIO_S3_TEST_CANNOT says so' for limit in variable('CANNOT', '').split(',') if limit.strip()},
        create_bucket=_create_bucket if provider == 'aws' else Backend.create_bucket,
    )


class TestAnyEndpoint(ProtocolConformance):
    @pytest.fixture(scope='class')
    @classmethod
    def backend(cls):
        return _backend()


if ENDPOINT.startswith('https:'):  # Rucio signs no others

    class TestAnyEndpointPresigned(PresignedConformance):
        @pytest.fixture(scope='class')
        @classmethod
        def backend(cls):
            return _backend()
