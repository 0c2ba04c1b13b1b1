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

"""Permissions on buckets, and the means to use them.

Grants, vended keys and signatures, and the guards that keep these from being used for more.

Nothing here changes a bucket or the files in the catalogue. The modules query the database and the STS of the storage,
and send test requests to the storage to find out whether vended keys are safe.
"""
