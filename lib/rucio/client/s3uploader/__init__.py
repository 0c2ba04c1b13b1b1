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

"""Upload a directory of files to an S3 RSE: in parallel, registered in bulk, and resumable.

A file is stored, verified by the storage, then registered as AVAILABLE and attached, in chunks of files. A run that is
interrupted, even by kill -9, may leave objects that are not registered yet. The next run finds those, and uploads only
what is missing.

directory.py finds the files, destination.py stores them on the RSE, dataset.py registers them, and upload.py decides
what to do with each.
"""

from .tally import Summary
from .upload import DirectoryUpload

__all__ = ['DirectoryUpload', 'Summary']
