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

"""A Rucio policy package: the owner of a scope may upload to S3 RSEs. For sites without their own policy package.

In the server's rucio.cfg: ``[policy] package = rucio_s3_policy``; with several VOs, ``package-abc = rucio_s3_policy``
for the VO ``abc``.

Imports nothing, as a client may share the server's rucio.cfg.
"""

SUPPORTED_VERSION = ['>=38', '<42']
