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

"""The conformance suite for who holds no key, and has a Rucio server to ask."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from rucio.common.s3.endpoint import Endpoint
from rucio.rse.protocols import s3 as protocol_module

from .rig import Backend, Rig
from .suite import ProtocolConformance


class KeylessConformance(ProtocolConformance):
    """``make_server`` gives what the protocol class takes for its Rucio server."""

    make_server: ClassVar[Callable[[Endpoint, Backend], Any]]

    @pytest.fixture(scope='class')
    @classmethod
    def rig(cls, backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
        rig = Rig(backend, tmp_path_factory.mktemp('rucio'))
        with pytest.MonkeyPatch.context() as patch, rig.installed(), rig.configured():
            server = cls.make_server(Endpoint.load(rig.rse(), rig.rse()['protocols'][0]), backend)
            patch.setattr(protocol_module, '_server', lambda _token: server)
            yield rig

    def test_no_keys(self, rig: Rig, name: str) -> None:
        """There are none: that is what all of this is about."""
        rig.store(rig.key(name))
        assert rig.protocol('read').exists(rig.pfn(name)) is True
