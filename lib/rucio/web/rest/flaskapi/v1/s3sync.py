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


"""REST interface of S3 storages: the catalogue follows a bucket. A part of :mod:`rucio.web.rest.flaskapi.v1.s3`, which has the routes."""

from typing import TYPE_CHECKING

from flask import abort, request

from rucio.gateway import s3sync as gateway
from rucio.web.rest.flaskapi.v1.s3base import REQUIRED, S3View, answer, get_rse, get_text, get_value, json_body, refusal

if TYPE_CHECKING:
    from typing import Any

    from flask.typing import ResponseReturnValue

__all__ = ['Changes', 'Settings', 'Sync', 'wish_of']

LONGEST_KEY = 1024


def wish_of(body: 'dict[str, Any]') -> gateway.Wish:
    """How a bucket is to be reconciled, as the body of a request says."""
    on_changed, on_missing = get_text(body, 'on_changed', None), get_text(body, 'on_missing', None)
    after = get_value(body, 'after', str, '')  # a key, which may hold anything that is text
    if len(after.encode(errors='replace')) > LONGEST_KEY or after != after.encode(errors='replace').decode():
        abort(
            refusal(
                400,
                'InputValidationError',
                f"'after' may have {LONGEST_KEY} bytes of text: it is what the answer before said.",
            )
        )
    return gateway.Wish(get_value(body, 'dry_run', bool, False), on_changed, on_missing, after)


class Sync(S3View):
    """A bucket and the catalogue."""

    def post(self) -> 'ResponseReturnValue':
        """
        ---
        summary: Reconcile a bucket
        description: |
          Compares the bucket of a scope, or what is below a collection, with the catalogue, and registers what the catalogue does not know.
          What is done about changed and missing objects is set for the bucket, or said here. One request works 20 seconds at most:
          it is repeated with the `after` of its answer until that is null.
        tags:
          - S3
        requestBody:
          content:
            'application/json':
              schema:
                type: object
                required:
                - scope
                properties:
                  scope:
                    description: "The scope."
                    type: string
                  name:
                    description: "The name of a collection or file."
                    type: string
                  rse:
                    description: "The RSE, where the server cannot know."
                    type: string
                  dry_run:
                    description: "Write nothing."
                    type: boolean
                  on_changed:
                    description: "What is done about objects that are not what the catalogue says."
                    type: string
                    enum: ['report', 'replace', 'bad']
                  on_missing:
                    description: "What is done about replicas without an object."
                    type: string
                    enum: ['report', 'forget', 'lost']
                  after:
                    description: "Where to go on."
                    type: string
        responses:
          200:
            description: "OK"
            content:
              application/json:
                schema:
                  type: object
                  properties:
                    rse:
                      type: string
                    bucket:
                      type: string
                    scope:
                      type: string
                    name:
                      type: string
                    after:
                      description: "Null: the end was reached. Else repeat the request with it."
                      type: string
                    counts:
                      description: "What was found and done -> how many."
                      type: object
                    problems:
                      type: array
                      items:
                        type: object
                        properties:
                          kind:
                            type: string
                          did:
                            type: string
                          key:
                            type: string
                          found:
                            description: "What was seen."
                            type: string
                          remedy:
                            description: "What can be done."
                            type: string
          400:
            description: "Invalid parameters, or several RSEs would do"
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account does not own the scope"
          404:
            description: "There is no such RSE or bucket"
          501:
            description: "The RSE has no place of its own for all names that begin alike"
          503:
            description: "The storage does not answer"
        """
        body = json_body()
        scope, name = get_text(body, 'scope'), get_text(body, 'name', '')
        return answer(gateway.sync(scope, self.issuer, name=name, rse=get_rse(body), wish=wish_of(body), vo=self.vo))


class Settings(S3View):
    """What is done in a bucket about objects that others changed or removed."""

    def get(self) -> 'ResponseReturnValue':
        """
        ---
        summary: Get the settings of a bucket
        description: "What is done about objects that others changed or removed."
        tags:
          - S3
        parameters:
        - name: scope
          in: query
          description: "The scope."
          schema:
            type: string
          required: true
        - name: rse
          in: query
          description: "The RSE, where the server cannot know."
          schema:
            type: string
          required: false
        responses:
          200:
            description: "OK"
            content:
              application/json:
                schema:
                  type: object
                  properties:
                    rse:
                      type: string
                    bucket:
                      type: string
                    scope:
                      type: string
                    on_changed:
                      type: string
                    on_missing:
                      type: string
                    own:
                      description: "Which of them were set for this bucket, and not for all of the RSE."
                      type: array
                      items:
                        type: string
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account does not own the scope"
          404:
            description: "There is no such RSE"
        """
        return answer(
            gateway.get_settings(get_text(request.args, 'scope'), self.issuer, rse=get_rse(request.args), vo=self.vo)
        )

    def put(self) -> 'ResponseReturnValue':
        """
        ---
        summary: Set the settings of a bucket
        description: "Sets what is done about objects that others changed or removed. What is left out stays as it is."
        tags:
          - S3
        requestBody:
          content:
            'application/json':
              schema:
                type: object
                required:
                - scope
                properties:
                  scope:
                    type: string
                  rse:
                    description: "The RSE, where the server cannot know."
                    type: string
                  on_changed:
                    type: string
                    enum: ['report', 'replace', 'bad', 'default']
                  on_missing:
                    type: string
                    enum: ['report', 'forget', 'lost', 'default']
        responses:
          200:
            description: "OK: as GET answers"
          400:
            description: "There is no such way to act"
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account does not own the scope"
          404:
            description: "There is no such RSE"
        """
        body = json_body()
        wanted = {name: get_text(body, name, None) for name in ('on_changed', 'on_missing')}
        return answer(
            gateway.set_settings(get_text(body, 'scope'), self.issuer, rse=get_rse(body), vo=self.vo, **wanted)
        )


class Changes(S3View):
    """What changed of late."""

    def get(self) -> 'ResponseReturnValue':
        """
        ---
        summary: List changes
        description: "What changed in the catalogue below a collection since then. Some changes become visible seconds after their time."
        tags:
          - S3
        parameters:
        - name: scope
          in: query
          description: "The scope."
          schema:
            type: string
          required: true
        - name: name
          in: query
          description: "The name of a collection; without it all of the scope."
          schema:
            type: string
          required: false
        - name: rse
          in: query
          description: "The RSE, where the server cannot know."
          schema:
            type: string
          required: false
        - name: since
          in: query
          description: "The `now` of an answer; without it there are no changes in the answer."
          schema:
            type: string
          required: false
        responses:
          200:
            description: "OK"
            content:
              application/json:
                schema:
                  type: object
                  properties:
                    rse:
                      type: string
                    now:
                      description: "The time of the answer (UTC)."
                      type: string
                    more:
                      description: "There were so many that the last ones are missing; `now` is the time of the last one that is told."
                      type: boolean
                    changes:
                      type: array
                      items:
                        type: object
                        properties:
                          time:
                            type: string
                          change:
                            type: string
                            enum: ['registered', 'updated', 'bad', 'removed']
                          scope:
                            type: string
                          name:
                            type: string
                          bytes:
                            type: integer
          400:
            description: "Invalid parameters, or several RSEs would do"
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account does not own the scope"
          404:
            description: "There is no such RSE"
        """
        scope, name, since = (
            get_text(request.args, each, default)
            for each, default in (('scope', REQUIRED), ('name', ''), ('since', None))
        )
        return answer(
            gateway.list_changes(scope, name, self.issuer, rse=get_rse(request.args), since=since, vo=self.vo)
        )
