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

"""What holds for all tests."""

import os
from pathlib import Path

import pytest

LONG = bool(os.environ.get('RUCIO_S3_TEST_LONG'))
REAL = [Path(__file__).parent / name for name in ('backends', 'integration', 'interop')]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(folder in item.path.parents for folder in REAL):
            item.add_marker('integration')
        if item.get_closest_marker('long') and not LONG:
            item.add_marker(pytest.mark.skip(reason='takes minutes: make test-long'))
