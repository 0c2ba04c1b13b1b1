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

"""The conformance suite over the storages that every developer has: SeaweedFS by http, by https and with signed URLs, and moto."""

import pytest
from moto.server import ThreadedMotoServer

from conformance.rig import Backend
from conformance.suite import PresignedConformance, ProtocolConformance
from servers.seaweedfs import SeaweedFS

pytestmark = pytest.mark.integration

SEAWEEDFS_CANNOT = {
    # Measured with 4.48: in 4 of 40 races of 16 more than one was told that it had won. PUT is atomic, in 40 of 40.
    'conditional_multipart': 'SeaweedFS looks before it completes an upload, without a lock',
    'dot_segments': 'SeaweedFS answers 400: its keys are paths',
    'long_segments': 'SeaweedFS answers KeyTooLongError: a path segment has 255 bytes at most',
}
MOTO_CANNOT = {
    'conditional_put': 'moto looks and then writes, without a lock',
    'conditional_multipart': 'moto looks and then writes, without a lock',
    'access_control': 'moto checks no keys unless told to',
    'public_objects': 'moto refuses HEAD of a public object',
}


def _backend(server: SeaweedFS) -> Backend:
    return Backend(
        server.scheme,
        server.hostname,
        server.port,
        provider='seaweedfs',
        access_key=server.access_key,
        secret_key=server.secret_key,
        region=server.region,
        ca_bundle=str(server.ca_bundle) if server.ca_bundle else None,
        cannot=SEAWEEDFS_CANNOT,
    )


class TestSeaweedFS(ProtocolConformance):
    @pytest.fixture(scope='class')
    @classmethod
    def backend(cls, plain):
        return _backend(plain)


class TestSeaweedFSOverTLS(ProtocolConformance):
    @pytest.fixture(scope='class')
    @classmethod
    def backend(cls, tls):
        return _backend(tls)


class TestSeaweedFSPresigned(PresignedConformance):
    """By https, as Rucio signs for nothing else."""

    @pytest.fixture(scope='class')
    @classmethod
    def backend(cls, tls):
        return _backend(tls)


class TestMoto(ProtocolConformance):
    @pytest.fixture(scope='class')
    @classmethod
    def backend(cls):
        server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
        server.start()
        try:
            hostname, port = server.get_host_and_port()
            yield Backend(
                'http', hostname, port, provider='aws', access_key='tests', secret_key='secretofthetests', settings={'addressing': 'path'}, cannot=MOTO_CANNOT
            )
        finally:
            server.stop()
