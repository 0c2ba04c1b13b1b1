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

"""The storages that are measured, each started once for each worker."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backends.storage import KINDS, Kind


@pytest.fixture(scope='session')
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Kind], Any]]:
    """Call it for a storage's server; one that is not installed skips the test."""
    servers: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:

        def get(kind: Kind) -> Any:
            if reason := kind.missing():
                pytest.skip(f'no {kind.name}: {reason}')
            if kind.name not in servers:
                servers[kind.name] = stack.enter_context(kind.start(tmp_path_factory.mktemp(kind.provider)))
            return servers[kind.name]

        yield get


@pytest.fixture(scope='class', params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope='class')
def server(kind: Kind, start: Callable[[Kind], Any]) -> Any:
    """A storage of this kind."""
    return start(kind)
