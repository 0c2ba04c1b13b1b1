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

"""The REST interface of the server's plugin: each route once, with what it takes and what it answers.

The server checks requests by it, makes its documentation of it, and says which of these routes it has; ``S3Client``
asks and answers in these types. How a route is stated: :mod:`rucio.common.s3.contract`.
"""

from dataclasses import dataclass
from importlib import metadata
from typing import Annotated, Any, Literal, Optional

from typing_extensions import NotRequired, TypedDict

from rucio.common.s3.contract import Field, Request
from rucio.common.s3.settings import ON_CHANGED, ON_MISSING

MAX_REQUESTS = 1000  # to be signed in one call
DEFAULT = 'default'  # takes back what was set for a bucket: the RSE's own holds again

# Parameters of several routes

Scope = Annotated[str, Field('The scope.')]
Name = Annotated[str, Field('The name of a collection or file; without it all of the scope.')]
Dataset = Annotated[str, Field('The name of a dataset; without it only the bucket.')]
Collection = Annotated[str, Field('The name of the collection.')]
RSE = Annotated[Optional[str], Field('The RSE, where the server cannot know.')]
Grantee = Annotated[str, Field('The account, or * for everybody.')]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How a bucket shall be reconciled."""

    dry_run: Annotated[bool, Field('Write nothing.')] = False
    on_changed: Annotated[
        Optional[str], Field('What is done about objects that others changed.', choices=ON_CHANGED)
    ] = None
    on_missing: Annotated[Optional[str], Field('What is done about objects that are gone.', choices=ON_MISSING)] = None
    after: Annotated[str, Field('Where to go on: the `after` of the answer before.', is_key=True)] = ''


# Version


class Version(TypedDict):
    """What the server's plugin is."""

    version: Annotated[str, 'The version of rucio-s3 on the server.']
    capabilities: Annotated[list[str], 'What it can do: the operations of these routes.']


class GetVersion(Request[Version], route='GET /version'):
    """Get version and capabilities.

    Which version of the plugin the server has, and which operations it knows: for clients that are older or newer.
    """


# RSEs


class RoleChaining(TypedDict):
    """Whether vended keys can obtain more permissions than they were vended with."""

    refused: Annotated[bool, 'The storage refused all attempts. Otherwise the server vends no keys.']
    reason: Annotated[str, 'What the operator must change; empty if nothing.']
    tried_at: Annotated[str, 'When: YYYY-MM-DDTHH:MM:SSZ.']


class ListedRSE(TypedDict):
    """An S3 RSE, and how clients reach it."""

    rse: Annotated[str, 'The name of the RSE.']
    url: Annotated[str, 'The endpoint: scheme, host and port.']
    provider: Annotated[str, 'What kind of storage it is.']
    region: Annotated[str, 'The region that signatures name.']
    addressing: Annotated[Literal['path', 'virtual', 'auto'], 'How requests name the bucket.']
    bucket_prefix: Annotated[str, 'What stands before the scope in the name of its bucket.']
    verifies_body: Annotated[bool, 'Whether the storage compares bodies with what was signed.']
    ca: Annotated[Optional[str], 'Reserved; always null.']
    auth: Annotated[list[str], 'What the server offers: credentials (vended), signatures (remote); or anonymous.']
    sts_url: Annotated[str, "Where the storage's Security Token Service is."]
    web_identity_role_arn: Annotated[Optional[str], 'The role for those who bring an OIDC token.']
    role_chaining: Annotated[
        Optional[RoleChaining], 'What came of trying to make more of vended keys; null: not tried.'
    ]


class Overlap(TypedDict):
    """Another RSE that can have the same keys."""

    rse: Annotated[Optional[str], 'The RSE; null: one of another VO.']
    why: Annotated[str, 'Why.']


class DescribedRSE(ListedRSE):
    """An S3 RSE, how clients reach it, and what else is known of it."""

    overlaps: Annotated[list[Overlap], 'The RSEs that can have the same keys for other DIDs.']
    sharing: Annotated[bool, 'The operator has made the table of grants.']


class ListRSEs(Request[list[ListedRSE]], route='GET /rses'):
    """List S3 RSEs.

    The RSEs that are S3 storages, and how clients reach them and are authorised there.
    """


class GetRSE(Request[DescribedRSE], route='GET /rses/{rse}'):
    """Get an S3 RSE.

    How clients reach this S3 storage and are authorised there.

    404: There is no such S3 RSE
    """

    rse: Annotated[str, Field('The name of the RSE.')]


# Buckets


class Bucket(TypedDict):
    """A bucket on an RSE."""

    rse: str
    bucket: str
    scope: Annotated[Optional[str], 'The scope whose bucket it is.']
    created: Annotated[Optional[str], 'When it was made (UTC).']


class Made(TypedDict):
    """What was not there before."""

    bucket: bool
    dataset: bool
    rule: bool
    lifecycle: Annotated[bool, 'A rule that ends forgotten multipart uploads.']
    events: Annotated[bool, "A subscription to the bucket's events."]


class MadeBucket(TypedDict):
    """A bucket, and what was made for it."""

    rse: str
    bucket: str
    scope: str
    name: str
    url: str
    made: Annotated[Made, 'What was not there before.']
    warnings: Annotated[list[str], 'What in the policy of a bucket that was there may keep the Rucio server out.']


class Removed(TypedDict):
    """How much was removed."""

    rules: int
    objects: int
    replicas: int
    datasets: int
    bucket: bool


class RemovedBucket(TypedDict):
    """What was removed of a bucket."""

    rse: str
    bucket: str
    finished: Annotated[bool, 'False: there is more to delete, repeat the request.']
    removed: Removed


class MakeBucket(Request[MadeBucket], route='POST /buckets', status=201):
    """Make a bucket.

    Makes the bucket of a scope. With a name also a dataset with a rule of the account that keeps it on this RSE.
    What is there already is left as it is: the request may be repeated.

    400: Invalid scope, name or JSON, or several RSEs would do
    403: The account does not own the scope
    404: There is no such S3 RSE or scope
    409: No quota, the bucket belongs to somebody else, or the name is that of a file
    """

    scope: Scope
    name: Dataset = ''
    rse: RSE = None


class ListBuckets(Request[list[Bucket]], route='GET /buckets'):
    """List buckets.

    The buckets of the scopes that the account owns; for admins all. Storages that cannot be asked are left out, unless
    named.

    404: There is no such S3 RSE or scope
    503: The storage does not answer
    """

    rse: Annotated[Optional[str], Field('Only the buckets of this RSE.')] = None


class RemoveBucket(Request[RemovedBucket], route='DELETE /buckets'):
    """Remove a bucket.

    With a name: deletes the account's rules on this dataset on this RSE, ends the lifetime of the empty dataset, and
    removes the bucket if it is not used any more. Without: the same for the whole bucket of the scope.
    Refuses while there are objects or files, unless forced: then these are deleted, too, with their replicas on this
    RSE.

    400: Invalid scope, name or JSON
    403: The account does not own the scope
    404: There is no such S3 RSE or scope
    409: It is not empty, or somebody else's rule protects a file in it
    """

    scope: Scope
    name: Dataset = ''
    rse: RSE = None
    force: Annotated[bool, Field('Delete what is in it.')] = False


# Where DIDs lie


class Location(TypedDict):
    """Where a DID lies, or would lie."""

    rse: str
    bucket: str
    key: str
    url: str
    did_type: Annotated[Optional[str], 'FILE, DATASET or CONTAINER; null: the catalogue does not know it.']
    prefix: Annotated[
        Optional[str],
        'What the keys in the bucket begin with that the account may read, around this one: vended keys are for that. '
        'null: no keys are vended.',
    ]


class Locate(Request[list[Location]], route='GET /locate'):
    """Locate a DID.

    Where a DID lies on S3 RSEs, or would lie: the best place first.

    400: Invalid scope or name
    403: The account may not read it
    404: There is no such scope
    """

    scope: Scope
    name: Annotated[str, Field('The name; without it the bucket of the scope.')] = ''


# Being authorised


class Credentials(TypedDict):
    """Short-lived keys, and what they are for."""

    rse: str
    url: str
    region: str
    addressing: str
    bucket: str
    prefix: Annotated[str, 'What the keys that may be used begin with.']
    write: bool
    access_key: str
    secret_key: str
    session_token: str
    expiration: Annotated[str, 'YYYY-MM-DDTHH:MM:SSZ']


class Signed(TypedDict):
    """A request that was signed."""

    uri: str
    headers: Annotated[dict[str, list[str]], 'Name -> values, to be added to those of the request.']


class Signatures(TypedDict):
    """Requests that were signed, in the order in which they were sent."""

    responses: list[Signed]


class Unsigned(TypedDict):
    """A request to be signed."""

    method: str
    uri: str
    headers: Annotated[dict[str, list[str]], 'Name -> values']
    region: NotRequired[Annotated[str, 'Accepted, and not used.']]
    body: NotRequired[Annotated[str, 'Base64; of DeleteObjects only.']]


class GetCredentials(Request[Credentials], route='POST /credentials'):
    """Get credentials.

    Short-lived keys for an S3 storage, limited to one bucket or one prefix. Asked for with rse, bucket and prefix, they
    are for the largest part of the bucket around the prefix that the account may use; with scope and name for just this
    collection.

    400: Invalid JSON or parameters
    403: The account may not use it, whether it exists or not
    404: There is no such S3 RSE or scope
    429: The account got too many new keys of late: again after Retry-After seconds
    501: The server has no role at this storage
    503: The storage's STS does not answer
    """

    rse: Annotated[Optional[str], Field('The RSE; may be left out beside a scope.')] = None
    bucket: Annotated[Optional[str], Field('The bucket.', 63)] = None
    prefix: Annotated[str, Field('A key or a prefix of keys; empty for the whole bucket.', 1024)] = ''
    scope: Annotated[Optional[str], Field('The scope, in place of bucket and prefix.')] = None
    name: Annotated[str, Field('The name; empty for the whole bucket of the scope.')] = ''
    write: Annotated[bool, Field('Whether the keys are for writing and deleting, too.')] = False
    lifetime: Annotated[Optional[int], Field('In seconds; the server may give less.', 604800)] = None


class Sign(Request[Signatures], route='POST /sign'):
    """Sign requests.

    Signs up to 1000 S3 requests with the server's keys (AWS Signature Version 4): all of them or none.

    400: A request is not understood
    403: The account may not do this, whether the object exists or not
    404: There is no such S3 RSE
    413: More than 1 MiB
    429: The account had too many signed of late: again after Retry-After seconds
    """

    rse: Annotated[str, Field('The RSE.')]
    requests: Annotated[list[Unsigned], Field('The requests.', MAX_REQUESTS)]


# Sharing


class Grant(TypedDict):
    """What somebody may do below a collection."""

    kind: Annotated[str, 'account, or world: also those without an account.']
    account: Annotated[str, 'An account, or * for everybody.']
    write: bool
    by: Annotated[str, 'Who granted it.']
    at: Annotated[str, 'When (UTC).']
    until: Annotated[Optional[str], 'When it ends (UTC); null: never.']
    ended: Annotated[bool, 'It has expired. A grant to everybody stays listed until its storages have been updated.']


class AddedGrant(TypedDict):
    """What was granted."""

    account: str
    write: bool
    changed: Annotated[bool, 'False: it was granted before.']


class DeletedGrant(TypedDict):
    """Whether a grant was deleted."""

    removed: Annotated[bool, 'False: there was none.']


class ListGrants(Request[list[Grant]], route='GET /grants'):
    """List grants.

    Who may do what below a collection, besides the owner of its scope.

    400: Invalid scope or name
    403: The account does not own the scope
    404: There is no such scope
    409: The operator of the server has not made the table of grants
    """

    scope: Scope
    name: Collection


class AddGrant(Request[AddedGrant], route='POST /grants', status=201):
    """Add a grant.

    Lets another account read, or read and write, below a collection. For everybody (*) the bucket gets a policy, too.

    400: Invalid parameters
    403: The account does not own the scope
    404: There is no such scope, collection or account
    409: It is a file; or the operator of the server has not made the table of grants
    """

    scope: Scope
    name: Collection
    account: Grantee
    write: Annotated[bool, Field('Whether it may write and delete, too.')] = False


class DeleteGrant(Request[DeletedGrant], route='DELETE /grants'):
    """Delete a grant.

    Takes a grant back. Keys that were given before are good until they end.

    400: Invalid parameters
    403: The account does not own the scope
    404: There is no such scope
    409: The operator of the server has not made the table of grants
    """

    scope: Scope
    name: Collection
    account: Grantee


# The storage's own policy


class ChangedPolicy(TypedDict):
    """The policy that a bucket has now."""

    rse: str
    bucket: str
    policy: Annotated[Optional[dict[str, Any]], 'The policy; null: there is none.']


class BucketPolicy(ChangedPolicy):
    """The policy of a bucket, and what is dangerous in it."""

    warnings: Annotated[list[str], 'What in it may keep the Rucio server out.']


class GetBucketPolicy(Request[BucketPolicy], route='GET /policy'):
    """Get a bucket policy.

    The storage's own policy of the bucket of a scope.

    403: The account does not own the scope
    404: There is no such RSE, scope or bucket
    501: The storage has no policies
    """

    scope: Scope
    rse: RSE = None


class SetBucketPolicy(Request[ChangedPolicy], route='PUT /policy'):
    """Set a bucket policy.

    Sets the storage's own policy of the bucket of a scope, in place of the one that it has.

    400: This may not be set, or the storage does not take it
    403: The account does not own the scope, or an admin's Deny would get lost
    404: There is no such RSE, scope or bucket
    409: The storage does not let the server set it
    501: The storage has no policies
    """

    scope: Scope
    policy: Annotated[dict[str, Any], Field('The policy.')]
    rse: RSE = None


class DeleteBucketPolicy(Request[ChangedPolicy], route='DELETE /policy'):
    """Delete a bucket policy.

    Deletes the storage's own policy of the bucket of a scope.

    403: The account does not own the scope, or the policy has a Deny and it is no admin
    404: There is no such RSE, scope or bucket
    409: The storage does not let the server delete it
    """

    scope: Scope
    rse: RSE = None


# The catalogue follows a bucket


class Problem(TypedDict):
    """What a person has to decide about, or to know."""

    kind: str
    did: str
    key: str
    found: Annotated[str, 'What was seen.']
    remedy: Annotated[str, 'What can be done.']


class Reconciled(TypedDict):
    """What was found and done."""

    rse: str
    bucket: str
    scope: str
    name: str
    after: Annotated[Optional[str], 'Null: the end was reached. Else repeat the request with it.']
    counts: Annotated[dict[str, int], 'What was found and done -> how many.']
    problems: list[Problem]


class Imported(Reconciled):
    """What was found and done in a bucket of somebody else."""

    prefix: Annotated[str, 'The folder that was imported.']


class BucketSettings(TypedDict):
    """What is done in a bucket about objects that others changed or removed."""

    rse: str
    bucket: str
    scope: str
    on_changed: str
    on_missing: str
    own: Annotated[list[str], 'Which of them were set for this bucket, and not for all of the RSE.']


class Change(TypedDict):
    """What happened to a file."""

    time: str
    change: Literal['registered', 'updated', 'bad', 'removed']
    scope: str
    name: str
    bytes: Optional[int]


class Changes(TypedDict):
    """What happened below a collection."""

    rse: str
    now: Annotated[str, 'The time of the answer (UTC).']
    more: Annotated[bool, 'There were too many; `now` is the time of the last one that is told.']
    changes: list[Change]


class Reconcile(Wish, Request[Reconciled], route='POST /reconcile'):
    """Reconcile a bucket.

    Compares the bucket of a scope, or what is below a collection, with the catalogue, and registers what the catalogue
    does not know. What is done about changed and missing objects is set for the bucket, or said here. One request works
    20 seconds at most: it is repeated with the `after` of its answer until that is null.

    400: Invalid parameters, or several RSEs would do
    403: The account does not own the scope
    404: There is no such RSE, scope or bucket
    501: The RSE has no place of its own for all names that begin alike
    503: The storage does not answer
    """

    scope: Scope
    name: Name = ''
    rse: RSE = None


class ImportBucket(Wish, Request[Imported], route='POST /import'):
    """Import a bucket.

    Registers what lies in a bucket of somebody else as files of a dataset, with a replica on a non-deterministic RSE,
    and without a rule; again only what is new. The reconciler's daemon repeats it. One request works 20 seconds at
    most: it is repeated with the `after` of its answer until that is null.

    400: Invalid parameters, or files of that dataset come from elsewhere
    403: The account may not import into this scope, or not from this RSE
    404: There is no such RSE, scope or bucket
    409: The RSE is deterministic, or the name is not that of a dataset
    503: The storage does not answer
    """

    rse: Annotated[str, Field('A non-deterministic RSE.')]
    scope: Annotated[str, Field('The scope of the files.')]
    name: Annotated[str, Field('The dataset: a key below the prefix becomes this name, a slash, the rest of the key.')]
    bucket: Annotated[Optional[str], Field('The bucket, where the RSE is not for one bucket only.')] = None
    prefix: Annotated[str, Field('A folder in it. Without it all of the RSE.', 1024)] = ''


class GetBucketSettings(Request[BucketSettings], route='GET /settings'):
    """Get the settings of a bucket.

    What is done about objects that others changed or removed.

    403: The account does not own the scope
    404: There is no such RSE or scope
    """

    scope: Scope
    rse: RSE = None


class SetBucketSettings(Request[BucketSettings], route='PUT /settings'):
    """Set the settings of a bucket.

    Sets what is done about objects that others changed or removed. What is left out stays as it is.

    400: There is no such way to act
    403: The account does not own the scope
    404: There is no such RSE or scope
    """

    scope: Scope
    rse: RSE = None
    on_changed: Annotated[Optional[str], Field('About changed objects.', choices=(*ON_CHANGED, DEFAULT))] = None
    on_missing: Annotated[Optional[str], Field('About objects that are gone.', choices=(*ON_MISSING, DEFAULT))] = None


class ListChanges(Request[Changes], route='GET /changes'):
    """List changes.

    What changed in the catalogue below a collection since then. Some changes become visible seconds after their time.

    400: Invalid parameters, or several RSEs would do
    403: The account does not own the scope
    404: There is no such RSE or scope
    """

    scope: Scope
    name: Annotated[str, Field('The name of a collection; without it all of the scope.')] = ''
    rse: RSE = None
    since: Annotated[Optional[str], Field('The `now` of an answer; without it no changes are told.')] = None


# Events


class TakenEvents(TypedDict):
    """What came of event records."""

    records: Annotated[int, 'How many there were.']
    skipped: Annotated[int, 'How many of them tell of nothing that matters here, or are not understood.']
    counts: Annotated[dict[str, int], 'What was found and done; unknown: keys that belong to no scope.']


class TakeEvents(Request[TakenEvents], route='POST /{rse}/events', query=('vo',)):
    """Take S3 events.

    Takes the event records of an S3 storage (AWS, also wrapped by SNS, SQS or EventBridge; MinIO; Ceph; SeaweedFS's
    filer), looks at the objects that they tell of, and brings the catalogue up to date. Records may come twice and in
    any order; those that tell of nothing that this server knows are answered with 200, too, and must not be sent again.
    The storage brings the RSE's token (events_token): as a bearer's token, as the password of Basic authentication, or
    as the opaqueData of each record.

    400: No JSON, or too many records
    401: The token is missing, or it is not that of the RSE
    411: No Content-Length
    413: The body is too large
    503: The storage or the database does not answer: send it again later
    """

    rse: Annotated[str, Field('The name of the RSE.')]
    vo: Annotated[Optional[str], Field('The VO of the RSE, where the server has several.')] = None


ROUTES: list[type[Request[Any]]] = Request.__subclasses__()


def version() -> str:
    """The version of rucio-s3 that is installed here."""
    try:
        return metadata.version('rucio-s3')
    except metadata.PackageNotFoundError:  # linked into Rucio, as `make dev` does it
        return 'unknown'
