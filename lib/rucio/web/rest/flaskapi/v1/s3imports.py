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

"""REST interface of S3 storages: imports. A part of :mod:`rucio.web.rest.flaskapi.v1.s3`, which has the routes."""

from typing import TYPE_CHECKING

from rucio.gateway import s3imports as gateway
from rucio.web.rest.flaskapi.v1.s3base import S3View, answer, get_text, json_body
from rucio.web.rest.flaskapi.v1.s3sync import wish_of

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

__all__ = ['Imports']


class Imports(S3View):
    """Buckets of others, as files of a dataset."""

    def post(self) -> 'ResponseReturnValue':
        """
        ---
        summary: Import a bucket
        description: |
          Registers what lies in a bucket of somebody else as files of a dataset, with a replica on a non-deterministic RSE, and without a rule;
          again only what is new. The reconciler's daemon repeats it. One request works 20 seconds at most: it is repeated with the
          `after` of its answer until that is null.
        tags:
          - S3
        requestBody:
          content:
            'application/json':
              schema:
                type: object
                required:
                - rse
                - scope
                - name
                properties:
                  rse:
                    description: "A non-deterministic RSE."
                    type: string
                  scope:
                    description: "The scope of the files."
                    type: string
                  name:
                    description: "The dataset. A key below the prefix becomes this name, a slash, and the rest of the key."
                    type: string
                  bucket:
                    description: "The bucket, where the RSE is not for one bucket only."
                    type: string
                  prefix:
                    description: "A folder in it. Without it all of the RSE."
                    type: string
                  dry_run:
                    description: "Write nothing."
                    type: boolean
                  on_changed:
                    description: "What is done about objects that changed since."
                    type: string
                    enum: ['report', 'replace', 'bad']
                  on_missing:
                    description: "What is done about objects that went."
                    type: string
                    enum: ['report', 'forget', 'lost']
                  after:
                    description: "Where to go on."
                    type: string
        responses:
          200:
            description: "OK: as /sync answers, with the prefix"
          400:
            description: "Invalid parameters, or files of that dataset come from elsewhere"
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account may not import into this scope, or not from this RSE"
          404:
            description: "There is no such RSE, scope or bucket"
          409:
            description: "The RSE is deterministic, or the name is not that of a dataset"
          503:
            description: "The storage does not answer"
        """
        body = json_body()
        bucket, prefix = get_text(body, 'bucket', None) or None, get_text(body, 'prefix', '', longest=1024)
        rse, scope, name = (get_text(body, each) for each in ('rse', 'scope', 'name'))
        return answer(gateway.import_bucket(rse, scope, name, self.issuer, bucket, prefix, wish_of(body), vo=self.vo))
