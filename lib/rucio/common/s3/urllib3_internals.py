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
"""Everything that is used of urllib3 beyond its documented API.

tests/unit/test_urllib3_internals.py fails if it changes. Checked with urllib3 1.26.19 and 2.8.0.
"""

from collections.abc import Callable
from typing import Any

__all__ = ['replace_file']


def replace_file(response: Any, made: Callable[[Any], Any]) -> None:
    """Let the connection of a response read from ``made(its file)``.

    Uses ``_fp``, the http.client.HTTPResponse, and its ``fp``: urllib3 reads the lines between chunks from it, and has
    no public limit for their length. A response without a file is not changed.

    :param response: The response of urllib3.
    :param made: Makes the new file from the old one.
    """
    connection: Any = getattr(response, '_fp', None)
    if getattr(connection, 'fp', None) is not None:
        connection.fp = made(connection.fp)
