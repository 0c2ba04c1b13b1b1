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

"""Register the lfn2pfn algorithm ``s3_bucket`` with Rucio.

The protocol class imports this module, so that clients need no configuration. A server on which other classes or
daemons make PFNs of such an RSE names it in rucio.cfg: ``[policy] lfn2pfn_module = rucio.rse.s3translation``. It is
separate from the protocol class, because it is imported while ``rucio.rse.translation`` is being imported.
"""

from rucio.common.s3.address import s3_bucket
from rucio.rse.translation import RSEDeterministicTranslation

RSEDeterministicTranslation.register(s3_bucket, 's3_bucket')
