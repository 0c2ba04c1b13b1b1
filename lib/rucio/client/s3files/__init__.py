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

"""Files in bulk, from a directory to an S3 RSE and back: in parallel, and only what is missing.

An upload stores a file, verified by the storage, then registers it as AVAILABLE and attaches it, in chunks of files. A
run that is interrupted, even by kill -9, may leave objects that are not registered yet. The next run finds those, and
uploads only what is missing. A download compares each file with the catalogue before it gets its name.

- Both ways: options.py and filters.py have the user's wishes, tally.py counts, pipeline.py chains chunks.
- Upload: directory.py finds the files, destination.py stores them on the RSE, dataset.py registers them, upload.py
  decides what to do with each.
- Both: sync.py. deletion.py finds the files to delete; stored.py lists a bucket.
- Download: selection.py finds the files of DIDs, paths.py says where they go, sources.py gets them from a replica,
  download.py decides what to do with each.
"""

from .download import Download
from .filters import Filter
from .options import Options
from .tally import Downloaded, Synced, Uploaded
from .upload import Upload

__all__ = ['Download', 'Downloaded', 'Filter', 'Options', 'Synced', 'Upload', 'Uploaded']
