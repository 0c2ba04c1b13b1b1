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

"""`rucio s3 serve`: an S3 endpoint on the user's own machine, which passes requests on to the storages.

``asked`` reads a request, ``signatures`` verifies it, ``bodies`` verifies its body; ``places`` knows the bucket on a
storage, ``upstream`` sends the request there; ``operations`` is what is done for each kind of request, ``answers`` what
the tool gets, ``refusals`` the errors. ``server`` listens.
"""
