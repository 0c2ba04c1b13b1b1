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

"""What the catalogue is told about the objects of a bucket: new ones, changed ones and those that are gone.

Each call opens its own transactions, a short one for each chunk: call it without a session being open.
"""

from .registration import register
from .retirement import complete, declare_bad, declare_lost, forget, note_etags, replace, set_checksums, shield
from .rows import NewFile, Refusal

__all__ = [
    'NewFile',
    'Refusal',
    'complete',
    'declare_bad',
    'declare_lost',
    'forget',
    'note_etags',
    'register',
    'replace',
    'set_checksums',
    'shield',
]
