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

"""The conformance suite over each storage of docs/backends.md. tests/integration/test_conformance.py has SeaweedFS and moto."""

from collections.abc import Callable
from typing import Any

import pytest

from backends.storage import KINDS, Kind
from conformance.keyless import KeylessConformance
from conformance.rig import Backend, Rig
from conformance.suite import Local, ProtocolConformance
from rucio.common.exception import FileReplicaAlreadyExists, RucioException, ServiceUnavailable
from servers.signer import Signer

pytestmark = pytest.mark.long

# As docs/backends.md has it, which test_behaviours.py compares with the storage.
CEPH_CANNOT = {'conditional_multipart': 'before Tentacle, Ceph ignores If-None-Match when an upload is completed'}
# With the settings that `rucio s3 check` suggests for each version.
CEPHS: dict[str, tuple[dict[str, str], dict[str, bool]]] = {
    'Pacific': (CEPH_CANNOT, {}),
    'Reef': (CEPH_CANNOT, {}),
    'Tentacle': ({}, {'conditional_multipart': True}),
}
RCLONE_CANNOT = {
    'conditional_put': 'rclone ignores If-None-Match',
    'conditional_multipart': 'rclone ignores If-None-Match',
    'dot_segments': 'rclone answers 400: its keys are paths',
    'empty_segments': 'rclone answers 400: its keys are paths',
    'leading_slash': 'rclone answers 400: its keys are paths',
    'long_segments': 'a name in a file system has 255 bytes at most',
    'etag_of_parts': 'the ETag is the MD5 of the object',
    'below_another': 'a directory cannot have the name of a file',
    'public_objects': 'rclone has no bucket policies',
}
VERSITYGW_CANNOT = {
    'dot_segments': 'its keys are paths: a/../b is b',
    'long_segments': 'a name in a file system has 255 bytes at most',
    'below_another': 'a directory cannot have the name of a file',
}
MINIO_CANNOT = {
    'dot_segments': 'MinIO answers 400: XMinioInvalidResourceName',
    'empty_segments': 'MinIO answers 400: XMinioInvalidObjectName',
    'long_segments': 'a name in a file system has 255 bytes at most',
}
GARAGE_CANNOT = {
    'conditional_put': 'Garage ignores If-None-Match',
    'conditional_multipart': 'Garage ignores If-None-Match',
    'long_keys': 'LMDB has no room for them',
    'long_segments': 'LMDB has no room for them',
    'public_objects': 'Garage has no bucket policies',
}
SWIFT_CANNOT = {
    'conditional_put': 'Swift looks and then writes, without a lock',
    'conditional_multipart': 'Swift looks and then writes, without a lock',
    'public_objects': 'Swift has no bucket policies',
}
SIGNED_CANNOT = {
    'access_control': 'the client has no keys that could be wrong',
    'dot_segments': 'not signed: some storages follow them',
}


def backend_of(kind: Kind, server: Any, cannot: dict[str, str], settings: dict[str, Any] | None = None) -> Backend:
    return Backend(
        server.scheme,
        server.hostname,
        server.port,
        provider=kind.provider,
        access_key=server.access_key,
        secret_key=server.secret_key,
        region=server.region,
        cannot=cannot,
        settings=settings or {},
    )


def named(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


class TestCeph(ProtocolConformance):
    @pytest.fixture(scope='class', params=CEPHS)
    @classmethod
    def backend(cls, request: pytest.FixtureRequest, start: Callable[[Kind], Any]) -> Backend:
        kind = named(f'Ceph {request.param}')
        return backend_of(kind, start(kind), *CEPHS[request.param])


class OfOneKind(ProtocolConformance):
    kind: str
    cannot: dict[str, str]
    auth = ''

    @pytest.fixture(scope='class')
    @classmethod
    def backend(cls, start: Callable[[Kind], Any]) -> Backend:
        kind = named(cls.kind)
        return backend_of(kind, start(kind), cls.cannot, {'auth': cls.auth} if cls.auth else {})


class TestSwift(OfOneKind):
    kind = 'Swift'
    cannot = SWIFT_CANNOT


class TestVersitygw(OfOneKind):
    kind = 'versitygw'
    cannot = VERSITYGW_CANNOT


class TestMinIO(OfOneKind):
    kind = 'MinIO'
    cannot = MINIO_CANNOT


class TestGarage(OfOneKind):
    kind = 'Garage'
    cannot = GARAGE_CANNOT
    losers = (FileReplicaAlreadyExists, ServiceUnavailable)  # an upload in parts ends when one that began later is completed: NoSuchUpload


class TestRclone(OfOneKind):
    kind = 'rclone'
    cannot = RCLONE_CANNOT

    def refuses_name(self, rig: Rig, name: str, file: Local) -> None:
        """What it could not store it lists all the same, until its directory cache ends after 5 minutes, and refuses to remove the bucket."""
        if len(name) > 255:
            other = f'{rig.bucket}.other'
            rig.backend.create_bucket(rig.client, other)
            with pytest.raises(RucioException) as error:
                rig.protocol('write').put(str(file.path), rig.pfn(name, 'write', scope=other))
            self.is_clear(rig, error.value, name[:30])
        else:
            super().refuses_name(rig, name, file)


# These vend no keys: the Rucio server signs.


class Signed(OfOneKind, KeylessConformance):
    auth = 'remote'
    make_server = Signer


class TestSwiftSigned(Signed):
    kind = 'Swift'
    cannot = SWIFT_CANNOT | SIGNED_CANNOT


class TestVersitygwSigned(Signed):
    kind = 'versitygw'
    cannot = VERSITYGW_CANNOT | SIGNED_CANNOT


class TestGarageSigned(Signed):
    kind = 'Garage'
    cannot = GARAGE_CANNOT | SIGNED_CANNOT
    losers = TestGarage.losers
