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

"""``rucio s3 check``: try everything that a working S3 RSE needs, and say how to fix what does not work.

The measurements are compared with the settings of the RSE. If the storage does less than they promise, that is a
failure; if it does more, a hint.

runner.py has the table of all trials, and each module has one kind: rse.py (the RSE in the catalogue), network.py (DNS
to clock), access.py (the server's plugin, credentials), buckets.py, objects.py, vending.py, and measured.py
(what the storage does, see rucio.common.s3.probes).
"""

from .runner import check
from .trial import FAILED, HINT, OK, SKIPPED, Result

__all__ = ['FAILED', 'HINT', 'OK', 'SKIPPED', 'Result', 'check']
