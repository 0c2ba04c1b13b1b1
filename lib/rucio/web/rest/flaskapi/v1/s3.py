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

"""REST interface of S3 storages. It is switched on by ``[api] endpoints_add = s3`` in the server's rucio.cfg."""

from typing import TYPE_CHECKING

from flask import Flask, abort, request

from rucio.core.s3.auth.signing import MAX_REQUESTS
from rucio.gateway import s3 as gateway
from rucio.web.rest.flaskapi.authenticated_bp import AuthenticatedBlueprint
from rucio.web.rest.flaskapi.v1 import s3imports, s3sync
from rucio.web.rest.flaskapi.v1.s3base import (
    REQUIRED,
    S3View,
    answer,
    get_rse,
    get_text,
    get_value,
    json_body,
    never_cached,
    refusal,
)

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue


class RSEs(S3View):
    """The S3 RSEs."""

    def get(self) -> 'ResponseReturnValue':
        """
        ---
        summary: List S3 RSEs
        description: "The RSEs that are S3 storages, and how clients reach them and are authorised there."
        tags:
          - S3
        responses:
          200:
            description: "OK"
            content:
              application/json:
                schema:
                  type: array
                  items:
                    type: object
                    description: "As GET /s3/rses/RSE answers."
          401:
            description: "Invalid Auth Token"
        """
        return answer(gateway.list_rses(vo=self.vo))


class RSE(S3View):
    """One S3 RSE."""

    def get(self, rse: str) -> 'ResponseReturnValue':
        """
        ---
        summary: Get an S3 RSE
        description: "How clients reach this S3 storage and are authorised there."
        tags:
          - S3
        parameters:
        - name: rse
          in: path
          description: "The name of the RSE."
          schema:
            type: string
          style: simple
        responses:
          200:
            description: "OK"
            content:
              application/json:
                schema:
                  type: object
                  properties:
                    rse:
                      description: "The name of the RSE."
                      type: string
                    url:
                      description: "The endpoint: scheme, host and port."
                      type: string
                    provider:
                      description: "What kind of storage it is."
                      type: string
                    region:
                      description: "The region that signatures name."
                      type: string
                    addressing:
                      description: "How requests name the bucket."
                      type: string
                      enum: ['path', 'virtual', 'auto']
                    bucket_prefix:
                      description: "What stands before the scope in the name of its bucket."
                      type: string
                    verifies_body:
                      description: "Whether the storage compares bodies with what was signed; else DeleteObjects is signed only for who may write all of a bucket."
                      type: boolean
                    ca:
                      description: "Reserved; always null."
                      type: string
                    auth:
                      description: "What the server offers: credentials (vended), signatures (remote)."
                      type: array
                      items:
                        type: string
                        enum: ['vended', 'remote']
                    sts_url:
                      description: "Where the storage's Security Token Service is."
                      type: string
                    web_identity_role_arn:
                      description: "The role for those who bring an OIDC token, or null."
                      type: string
                    role_chaining:
                      description: "What came of trying to make more of vended keys; null where there are none."
                      type: object
                      properties:
                        refused:
                          description: "Nothing can be made of them. Otherwise no keys are vended."
                          type: boolean
                        said:
                          description: "What the operator must change."
                          type: string
                        tried_at:
                          description: "When: YYYY-MM-DDTHH:MM:SSZ."
                          type: string
          401:
            description: "Invalid Auth Token"
          404:
            description: "There is no such S3 RSE"
        """
        return answer(gateway.get_rse(rse, vo=self.vo))


class Buckets(S3View):
    """Buckets, and the datasets in them."""

    def get(self) -> 'ResponseReturnValue':
        """
        ---
        summary: List buckets
        description: "The buckets of the scopes that the account owns; for admins all. Storages that cannot be asked are left out, unless named."
        tags:
          - S3
        parameters:
        - name: rse
          in: query
          description: "Only the buckets of this RSE."
          schema:
            type: string
          required: false
        responses:
          200:
            description: "OK"
            content:
              application/json:
                schema:
                  type: array
                  items:
                    type: object
                    properties:
                      rse:
                        type: string
                      bucket:
                        type: string
                      scope:
                        description: "The scope whose bucket it is, or null."
                        type: string
                      created:
                        description: "When it was made (UTC)."
                        type: string
          401:
            description: "Invalid Auth Token"
          404:
            description: "There is no such S3 RSE"
          503:
            description: "The storage does not answer"
        """
        return answer(gateway.list_buckets(self.issuer, rse=get_rse(request.args), vo=self.vo))

    def post(self) -> 'ResponseReturnValue':
        """
        ---
        summary: Make a bucket
        description: |
          Makes the bucket of a scope. With a name also a dataset with a rule of the account that keeps it on this RSE.
          What is there already is left as it is: the request may be repeated.
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
                    description: "The name of a dataset."
                    type: string
                  rse:
                    description: "The RSE, where the server cannot know."
                    type: string
        responses:
          201:
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
                    url:
                      type: string
                    made:
                      description: "What was not there before."
                      type: object
                      properties:
                        bucket:
                          type: boolean
                        dataset:
                          type: boolean
                        rule:
                          type: boolean
                        lifecycle:
                          description: "A rule that ends forgotten multipart uploads."
                          type: boolean
                        events:
                          description: "A subscription to the bucket's events."
                          type: boolean
          400:
            description: "Invalid scope, name or JSON, or several RSEs would do"
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account does not own the scope"
          404:
            description: "There is no such S3 RSE"
          409:
            description: "No quota, the bucket belongs to somebody else, or the name is that of a file"
        """
        body = json_body()
        made = gateway.make_bucket(
            get_text(body, 'scope'), self.issuer, name=get_text(body, 'name', ''), rse=get_rse(body), vo=self.vo
        )
        return answer(made, 201)

    def delete(self) -> 'ResponseReturnValue':
        """
        ---
        summary: Remove a bucket
        description: |
          With a name: deletes the account's rules on this dataset on this RSE, ends the lifetime of the empty dataset, and removes the
          bucket if it is not used any more. Without: the same for the whole bucket of the scope.
          Refuses while there are objects or files, unless forced: then these are deleted, too, with their replicas on this RSE.
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
                    description: "The name of a dataset."
                    type: string
                  rse:
                    description: "The RSE, where the server cannot know."
                    type: string
                  force:
                    description: "Delete what is in it."
                    type: boolean
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
                    finished:
                      description: "False: there is more to delete, repeat the request."
                      type: boolean
                    removed:
                      type: object
                      properties:
                        rules:
                          type: integer
                        objects:
                          type: integer
                        replicas:
                          type: integer
                        datasets:
                          type: integer
                        bucket:
                          type: boolean
          400:
            description: "Invalid scope, name or JSON"
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account does not own the scope"
          404:
            description: "There is no such S3 RSE"
          409:
            description: "It is not empty, or somebody else's rule protects a file in it"
        """
        body = json_body()
        force = get_value(body, 'force', bool, False)
        return answer(
            gateway.remove_bucket(
                get_text(body, 'scope'),
                self.issuer,
                name=get_text(body, 'name', ''),
                rse=get_rse(body),
                force=force,
                vo=self.vo,
            )
        )


class Locate(S3View):
    """Where DIDs lie."""

    def get(self) -> 'ResponseReturnValue':
        """
        ---
        summary: Locate a DID
        description: "Where a DID lies on S3 RSEs, or would lie: the best place first."
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
          description: "The name; without it the bucket of the scope."
          schema:
            type: string
          required: false
        responses:
          200:
            description: "OK"
            content:
              application/json:
                schema:
                  type: array
                  items:
                    type: object
                    properties:
                      rse:
                        type: string
                      bucket:
                        type: string
                      key:
                        type: string
                      url:
                        type: string
                      did_type:
                        description: "FILE, DATASET or CONTAINER, or null: the catalogue does not know it."
                        type: string
          400:
            description: "Invalid scope or name"
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account may not read it"
        """
        return answer(
            gateway.locate(get_text(request.args, 'scope'), get_text(request.args, 'name', ''), self.issuer, vo=self.vo)
        )


class Credentials(S3View):
    """Short-lived keys."""

    def post(self) -> 'ResponseReturnValue':
        """
        ---
        summary: Get credentials
        description: |
          Short-lived keys for an S3 storage, limited to one bucket or one prefix. Asked for with rse, bucket and prefix, they are for the
          largest part of the bucket around the prefix that the account may use; with scope and name for just this collection.
        tags:
          - S3
        requestBody:
          content:
            'application/json':
              schema:
                type: object
                properties:
                  rse:
                    description: "The RSE; may be left out beside a scope."
                    type: string
                  bucket:
                    description: "The bucket."
                    type: string
                  prefix:
                    description: "A key or a prefix of keys; empty for the whole bucket."
                    type: string
                  scope:
                    description: "The scope, in place of bucket and prefix."
                    type: string
                  name:
                    description: "The name; empty for the whole bucket of the scope."
                    type: string
                  write:
                    description: "Whether the keys are for writing and deleting, too."
                    type: boolean
                  lifetime:
                    description: "In seconds; the server may give less."
                    type: integer
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
                    url:
                      type: string
                    region:
                      type: string
                    addressing:
                      type: string
                    bucket:
                      type: string
                    prefix:
                      type: string
                    write:
                      type: boolean
                    access_key:
                      type: string
                    secret_key:
                      type: string
                    session_token:
                      type: string
                    expiration:
                      description: "YYYY-MM-DDTHH:MM:SSZ"
                      type: string
          400:
            description: "Invalid JSON or parameters"
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account may not use it, whether it exists or not"
          404:
            description: "There is no such S3 RSE"
          429:
            description: "The account got too many new keys of late: again after Retry-After seconds"
          501:
            description: "The server has no role at this storage"
          503:
            description: "The storage's STS does not answer"
        """
        body = json_body()
        write = get_value(body, 'write', bool, False)
        lifetime = get_value(body, 'lifetime', int, None)
        if lifetime is not None and not 1 <= lifetime <= 604800:
            abort(refusal(400, 'InputValidationError', "'lifetime' must be a number of seconds from 1 to 604800."))
        if body.get('scope') is not None:
            found = gateway.get_did_credentials(
                get_text(body, 'scope'),
                get_text(body, 'name', ''),
                write,
                self.issuer,
                rse=get_rse(body),
                lifetime=lifetime,
                vo=self.vo,
            )
        else:
            bucket, prefix = get_text(body, 'bucket', longest=63), get_text(body, 'prefix', '', longest=1024)
            found = gateway.get_credentials(
                get_text(body, 'rse'), bucket, prefix, write, self.issuer, lifetime=lifetime, vo=self.vo
            )
        return answer(found)


class Sign(S3View):
    """Requests signed by the server."""

    def post(self) -> 'ResponseReturnValue':
        """
        ---
        summary: Sign requests
        description: "Signs up to 1000 S3 requests with the server's keys (AWS Signature Version 4): all of them or none."
        tags:
          - S3
        requestBody:
          content:
            'application/json':
              schema:
                type: object
                required:
                - rse
                - requests
                properties:
                  rse:
                    description: "The RSE."
                    type: string
                  requests:
                    type: array
                    items:
                      type: object
                      required:
                      - method
                      - uri
                      - headers
                      properties:
                        method:
                          type: string
                        uri:
                          type: string
                        region:
                          type: string
                        headers:
                          description: "Name -> values"
                          type: object
                        body:
                          description: "Base64; of DeleteObjects only."
                          type: string
        responses:
          200:
            description: "OK"
            content:
              application/json:
                schema:
                  type: object
                  properties:
                    responses:
                      type: array
                      items:
                        type: object
                        properties:
                          uri:
                            type: string
                          headers:
                            description: "Name -> values, to be added to those of the request"
                            type: object
          400:
            description: "A request is not understood"
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account may not do this, whether the object exists or not"
          404:
            description: "There is no such S3 RSE"
          413:
            description: "More than 1 MiB"
          429:
            description: "The account had too many signed of late: again after Retry-After seconds"
        """
        body = json_body()
        requests = get_value(body, 'requests', list, REQUIRED)
        if not 1 <= len(requests) <= MAX_REQUESTS:
            abort(refusal(400, 'InputValidationError', f"'requests' must have 1 to {MAX_REQUESTS} elements."))
        return answer({'responses': gateway.sign(get_text(body, 'rse'), requests, self.issuer, vo=self.vo)})


class Grants(S3View):
    """Who may do what with a collection of somebody else."""

    def get(self) -> 'ResponseReturnValue':
        """
        ---
        summary: List grants
        description: "Who may do what below a collection, besides the owner of its scope."
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
          description: "The name of the collection."
          schema:
            type: string
          required: true
        responses:
          200:
            description: "OK"
            content:
              application/json:
                schema:
                  type: array
                  items:
                    type: object
                    properties:
                      account:
                        description: "An account, or * for everybody."
                        type: string
                      write:
                        type: boolean
                      by:
                        description: "Who granted it."
                        type: string
                      at:
                        description: "When (UTC)."
                        type: string
                      kind:
                        description: "account, or world: also those without an account."
                        type: string
                      until:
                        description: "When it ends (UTC); null: never."
                        type: string
                        nullable: true
                      ended:
                        description: "It holds no longer. One of everybody is listed until its storages were told."
                        type: boolean
          400:
            description: "Invalid scope or name"
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account does not own the scope"
        """
        return answer(
            gateway.list_grants(
                get_text(request.args, 'scope'), get_text(request.args, 'name'), self.issuer, vo=self.vo
            )
        )

    def post(self) -> 'ResponseReturnValue':
        """
        ---
        summary: Add a grant
        description: "Lets another account read, or read and write, below a collection. For everybody (*) the bucket gets a policy, too."
        tags:
          - S3
        requestBody:
          content:
            'application/json':
              schema:
                type: object
                required:
                - scope
                - name
                - account
                properties:
                  scope:
                    type: string
                  name:
                    description: "The name of the collection."
                    type: string
                  account:
                    description: "The account, or * for everybody."
                    type: string
                  write:
                    description: "Whether it may write and delete, too."
                    type: boolean
        responses:
          201:
            description: "OK"
            content:
              application/json:
                schema:
                  type: object
                  properties:
                    account:
                      type: string
                    write:
                      type: boolean
                    changed:
                      description: "False: it was granted before."
                      type: boolean
          400:
            description: "Invalid parameters"
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account does not own the scope"
          404:
            description: "There is no such collection, or no such account"
          409:
            description: "It is a file; or the operator of the server has not made the table of grants"
        """
        body = json_body()
        write = get_value(body, 'write', bool, False)
        return answer(
            gateway.add_grant(
                get_text(body, 'scope'),
                get_text(body, 'name'),
                get_text(body, 'account'),
                write,
                self.issuer,
                vo=self.vo,
            ),
            201,
        )

    def delete(self) -> 'ResponseReturnValue':
        """
        ---
        summary: Delete a grant
        description: "Takes a grant back. Keys that were given before are good until they end."
        tags:
          - S3
        requestBody:
          content:
            'application/json':
              schema:
                type: object
                required:
                - scope
                - name
                - account
                properties:
                  scope:
                    type: string
                  name:
                    description: "The name of the collection."
                    type: string
                  account:
                    description: "The account, or * for everybody."
                    type: string
        responses:
          200:
            description: "OK"
            content:
              application/json:
                schema:
                  type: object
                  properties:
                    removed:
                      description: "False: there was none."
                      type: boolean
          400:
            description: "Invalid parameters"
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account does not own the scope"
        """
        body = json_body()
        removed = gateway.delete_grant(
            get_text(body, 'scope'), get_text(body, 'name'), get_text(body, 'account'), self.issuer, vo=self.vo
        )
        return answer({'removed': removed})


class Policy(S3View):
    """The storage's own policy of a bucket."""

    def get(self) -> 'ResponseReturnValue':
        """
        ---
        summary: Get a bucket policy
        description: "The storage's own policy of the bucket of a scope."
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
                    policy:
                      description: "The policy, or null: there is none."
                      type: object
                    warnings:
                      description: "What in it may keep the Rucio server out."
                      type: array
                      items:
                        type: string
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account does not own the scope"
          404:
            description: "There is no such RSE or bucket"
          501:
            description: "The storage has no policies"
        """
        return answer(
            gateway.get_bucket_policy(
                get_text(request.args, 'scope'), self.issuer, rse=get_rse(request.args), vo=self.vo
            )
        )

    def put(self) -> 'ResponseReturnValue':
        """
        ---
        summary: Set a bucket policy
        description: "Sets the storage's own policy of the bucket of a scope, in place of the one that it has."
        tags:
          - S3
        requestBody:
          content:
            'application/json':
              schema:
                type: object
                required:
                - scope
                - policy
                properties:
                  scope:
                    type: string
                  rse:
                    description: "The RSE, where the server cannot know."
                    type: string
                  policy:
                    description: "The policy."
                    type: object
        responses:
          200:
            description: "OK"
          400:
            description: "This may not be set, or the storage does not take it"
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account does not own the scope, or an admin's Deny would get lost"
          404:
            description: "There is no such RSE or bucket"
          409:
            description: "The storage does not let the server set it"
          501:
            description: "The storage has no policies"
        """
        body = json_body()
        policy = get_value(body, 'policy', dict, REQUIRED)
        return answer(
            gateway.set_bucket_policy(get_text(body, 'scope'), policy, self.issuer, rse=get_rse(body), vo=self.vo)
        )

    def delete(self) -> 'ResponseReturnValue':
        """
        ---
        summary: Delete a bucket policy
        description: "Deletes the storage's own policy of the bucket of a scope."
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
        responses:
          200:
            description: "OK"
          401:
            description: "Invalid Auth Token"
          403:
            description: "The account does not own the scope, or the policy has a Deny and it is no admin"
          404:
            description: "There is no such RSE or bucket"
          409:
            description: "The storage does not let the server delete it"
        """
        body = json_body()
        return answer(gateway.delete_bucket_policy(get_text(body, 'scope'), self.issuer, rse=get_rse(body), vo=self.vo))


def blueprint(with_doc: bool = False) -> AuthenticatedBlueprint:
    """The routes, for Rucio's server.

    :param with_doc: For the documentation: without the routes that end in a slash.
    """
    bp = AuthenticatedBlueprint('s3', __name__, url_prefix='/s3')
    get, post, put, delete = 'GET', 'POST', 'PUT', 'DELETE'
    routes: tuple[tuple[str, type[S3View], list[str]], ...] = (
        ('/rses', RSEs, [get]),
        ('/rses/<rse>', RSE, [get]),
        ('/buckets', Buckets, [get, post, delete]),
        ('/locate', Locate, [get]),
        ('/credentials', Credentials, [post]),
        ('/sign', Sign, [post]),
        ('/grants', Grants, [get, post, delete]),
        ('/policy', Policy, [get, put, delete]),
        ('/sync', s3sync.Sync, [post]),
        ('/import', s3imports.Imports, [post]),
        ('/settings', s3sync.Settings, [get, put]),
        ('/changes', s3sync.Changes, [get]),
    )
    for path, view, methods in routes:
        function = view.as_view(view.__name__.lower())
        bp.add_url_rule(path, view_func=function, methods=methods)
        if not with_doc:
            bp.add_url_rule(f'{path}/', view_func=function, methods=methods)
    bp.after_request(never_cached)
    return bp


def make_doc() -> Flask:
    """Only used for sphinx documentation"""
    doc_app = Flask(__name__)
    doc_app.register_blueprint(blueprint(with_doc=True))
    return doc_app
