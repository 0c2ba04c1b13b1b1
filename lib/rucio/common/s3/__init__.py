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

"""S3 storages, for Rucio's clients and servers. Imports nothing but the check below."""

__all__ = ['UNTESTED']

_OLDEST, _NEWEST = 38, 41  # the releases of Rucio with which this version was tested

# pip cannot require the right Rucio (`rucio` on a server, `rucio-clients` on a client), so this module does.
try:
    from rucio.version import version_string
except ImportError:
    raise ImportError(
        f'rucio-s3 needs Rucio {_OLDEST} or newer, but none is installed: '
        "pip install 'rucio-s3[client]', or 'rucio-s3[server]' on a server."
    ) from None

_release = int(_major) if (_major := version_string().partition('.')[0]).isdigit() else _NEWEST
if _release < _OLDEST:
    raise ImportError(
        f'rucio-s3 needs Rucio {_OLDEST} or newer, but Rucio {version_string()} is installed: '
        'upgrade it, or uninstall rucio-s3.'
    )

# A warning for `rucio s3`, the server and the daemons; empty: this Rucio was tested.
UNTESTED = (
    f'This rucio-s3 was tested with Rucio {_OLDEST} to {_NEWEST}, not with {version_string()}. '
    'If something fails: pip install --upgrade rucio-s3'
    if _release > _NEWEST
    else ''
)
