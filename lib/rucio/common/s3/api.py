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

"""The REST interface of the server's plugin: each route with its parameters and its answer.

The server validates requests with it, generates its documentation from it, and reports which of these routes it has;
``S3Client`` uses the same types. :mod:`rucio.common.s3.contract` defines how a route is stated.
"""

from dataclasses import dataclass
from importlib import metadata
from typing import Annotated, Any, Literal, Optional

from typing_extensions import NotRequired, TypedDict

from rucio.common.s3.contract import Field, Request
from rucio.common.s3.settings import ON_CHANGED, ON_MISSING

MAX_REQUESTS = 1000  # per call of POST /sign
MAX_FILES = 200  # per call of POST /reconcile/files
MAX_NAMES = 1000  # per call of POST and PUT /files
PROBES = ('writing', 'integrity', 'names', 'objects', 'signatures')  # the parts of rucio.common.s3.probes
GRANTEES = ('account', 'attribute', 'everybody', 'world')
DEFAULT = 'default'  # removes the setting of a bucket, so that the RSE's applies

# Parameters of several routes

Scope = Annotated[str, Field('The scope.')]
Name = Annotated[str, Field('The name of a collection or file; by default the whole scope.')]
Dataset = Annotated[str, Field('The name of a dataset; by default only the bucket.')]
Collection = Annotated[str, Field('The name of the collection.')]
RSE = Annotated[Optional[str], Field('The RSE. Only needed if there are several.')]
Grantee = Annotated[str, Field('The account; KEY=VALUE of an attribute; or * for everybody.')]
GranteeKind = Annotated[
    Optional[str],
    Field('The kind of the grantee. By default * is world, anything else an account.', choices=GRANTEES),
]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The options of a reconciliation."""

    dry_run: Annotated[bool, Field('Change nothing.')] = False
    on_changed: Annotated[Optional[str], Field('What to do about objects that others changed.', choices=ON_CHANGED)] = (
        None
    )
    on_missing: Annotated[Optional[str], Field('What to do about missing objects.', choices=ON_MISSING)] = None
    after: Annotated[str, Field('Where to continue: the `after` of the previous answer.', is_key=True)] = ''


# Version


class Version(TypedDict):
    """Version and capabilities of the server's plugin."""

    version: Annotated[str, 'The version of rucio-s3 on the server.']
    capabilities: Annotated[list[str], 'The operations that it supports.']


class GetVersion(Request[Version], route='GET /version'):
    """Get version and capabilities.

    Returns the version of the plugin on the server, and the operations that it supports, for older and newer clients.
    """


# Health

_LAST = 'YYYY-MM-DDTHH:MM:SSZ; null: none yet.'


class StorageHealth(TypedDict):
    """What the process that answers last observed of the storage of an RSE."""

    rse: Annotated[str, 'The name of the RSE.']
    state: Annotated[
        Literal['ok', 'unknown', 'failing', 'silent', 'invalid'],
        'ok or failing: its last answer; unknown: it was not asked yet; silent: it gets no requests, as it did not '
        'answer; invalid: the settings of the RSE are.',
    ]
    silent: Annotated[list[str], 'The services that did not answer: s3, sts, sns.']
    answered: Annotated[Optional[str], f'When it last answered: {_LAST}']
    failed: Annotated[Optional[str], f'When a request to it last failed: {_LAST}']
    failure: Annotated[str, 'The outcome, the service and the status of that; if the settings are invalid, why.']
    failure_id: Annotated[str, "The storage's id of that request; empty: none."]
    vended: Annotated[Optional[str], f'When keys for it were last vended: {_LAST}']
    waiting_since: Annotated[
        Optional[str],
        'Since when a bucket waits for the end of a round of the reconciler, the longest: since the last one ended, or '
        f'the running one began; of all processes. {_LAST}',
    ]


class Health(TypedDict):
    """The state of the server's plugin."""

    status: Annotated[Literal['ok', 'degraded'], 'degraded: a storage is silent.']
    version: Annotated[str, 'The version of rucio-s3 on the server.']
    storages: NotRequired[Annotated[list[StorageHealth], 'The S3 RSEs; for admins only.']]


class GetHealth(Request[Health], route='GET /health'):
    """Get the health of the plugin.

    Returns whether the process of the server that answers can reach the storages, without sending them a request. It
    needs no token. For the token of an admin, the answer contains the state of each S3 RSE.
    """


# RSEs


class RoleChaining(TypedDict):
    """Whether vended keys can obtain more permissions than they were vended with."""

    refused: Annotated[bool, 'The storage refused all attempts. Otherwise the server vends no keys.']
    reason: Annotated[str, 'What the operator must change; empty if nothing.']
    tried_at: Annotated[str, 'The time of the attempts: YYYY-MM-DDTHH:MM:SSZ.']


class ListedRSE(TypedDict):
    """An S3 RSE, and how clients reach it."""

    rse: Annotated[str, 'The name of the RSE.']
    url: Annotated[str, 'The endpoint: scheme, host and port.']
    provider: Annotated[str, 'The kind of storage.']
    region: Annotated[str, 'The region to sign requests for.']
    addressing: Annotated[Literal['path', 'virtual', 'auto'], 'How requests name the bucket.']
    bucket_prefix: Annotated[str, "The prefix of the names of the scopes' buckets."]
    verifies_body: Annotated[bool, 'Whether the storage compares bodies with their signed hash.']
    ca: Annotated[Optional[str], 'Reserved; always null.']
    auth: Annotated[list[str], 'What the server offers: credentials (vended), signatures (remote); or anonymous.']
    sts_url: Annotated[str, "The URL of the storage's Security Token Service."]
    web_identity_role_arn: Annotated[Optional[str], 'The role for users with an OIDC token.']
    role_chaining: Annotated[
        Optional[RoleChaining], 'The result of trying to gain more access with vended keys; null: not tried.'
    ]


class Overlap(TypedDict):
    """Another RSE that can have the same keys."""

    rse: Annotated[Optional[str], 'The RSE; null if it belongs to another VO.']
    why: Annotated[str, 'The reason.']


class DescribedRSE(ListedRSE):
    """An S3 RSE, how clients reach it, and its state."""

    overlaps: Annotated[list[Overlap], 'The RSEs that can have the same keys for other DIDs.']
    sharing: Annotated[bool, 'Whether the operator has created the table of grants.']


class ListRSEs(Request[list[ListedRSE]], route='GET /rses'):
    """List S3 RSEs.

    Returns the S3 RSEs, and how clients reach them and are authorised there.
    """


class GetRSE(Request[DescribedRSE], route='GET /rses/{rse}'):
    """Get an S3 RSE.

    Returns how clients reach this S3 storage and are authorised there.

    404: There is no such S3 RSE
    """

    rse: Annotated[str, Field('The name of the RSE.')]


class Measured(TypedDict):
    """What a storage does in one case."""

    behaviour: Annotated[str, 'The name of the behaviour.']
    answer: Annotated[str, 'What the storage does: yes, no, status and error code, or a few words.']


class Probed(TypedDict):
    """What a storage does, as far as it was tried."""

    bucket: Annotated[str, 'The bucket where it was tried.']
    left: Annotated[str, 'What could not be removed; empty if nothing.']
    answers: list[Measured]


class ProbeRSE(Request[Probed], route='POST /rses/{rse}/probe'):
    """Find out what the storage of an RSE does.

    The server tries it with its own keys, in a bucket that it makes and removes. Only for admins of Rucio.

    404: There is no such S3 RSE
    """

    rse: Annotated[str, Field('The name of the RSE.')]
    part: Annotated[str, Field('What to try.', choices=PROBES)]


# Buckets


class Bucket(TypedDict):
    """A bucket on an RSE."""

    rse: str
    bucket: str
    scope: Annotated[Optional[str], 'The scope whose bucket it is.']
    created: Annotated[Optional[str], 'When it was created (UTC).']


class MissingRSE(TypedDict):
    """An RSE that could not be asked."""

    rse: str
    why: Annotated[str, 'Why it could not be asked.']


class Buckets(TypedDict):
    """Buckets, and the RSEs that may have more."""

    buckets: list[Bucket]
    missing: Annotated[list[MissingRSE], 'The RSEs that could not be asked, and may have more.']


class Made(TypedDict):
    """What was created, and did not exist before."""

    bucket: bool
    dataset: bool
    rule: bool
    lifecycle: Annotated[bool, 'A rule that removes unfinished multipart uploads.']
    events: Annotated[bool, "A subscription to the bucket's events."]
    cors: Annotated[bool, 'A rule for browsers, by the setting `cors_origins`.']


class MadeBucket(TypedDict):
    """A bucket, and what was created for it."""

    rse: str
    bucket: str
    scope: str
    name: str
    url: str
    made: Annotated[Made, 'What did not exist before.']
    warnings: Annotated[
        list[str],
        'Parts of the policy of an existing bucket that may lock out the Rucio server; and what could not be set.',
    ]


class Removed(TypedDict):
    """How much was removed."""

    rules: int
    objects: int
    replicas: int
    datasets: int
    bucket: bool


class RemovedBucket(TypedDict):
    """What was removed from a bucket."""

    rse: str
    bucket: str
    finished: Annotated[bool, 'False if there is more to delete: repeat the request.']
    removed: Removed


class MakeBucket(Request[MadeBucket], route='POST /buckets', status=201):
    """Make a bucket.

    Makes the bucket of a scope; with a name also a dataset, with a rule of the account that keeps it on this RSE.
    Existing ones are not changed: the request can be repeated.

    400: Invalid scope, name or JSON, or there are several RSEs
    403: The account does not own the scope
    404: There is no such S3 RSE or scope
    409: No quota, the bucket belongs to somebody else, or the name is that of a file
    """

    scope: Scope
    name: Dataset = ''
    rse: RSE = None


class ListBuckets(Request[Buckets], route='GET /buckets'):
    """List buckets.

    The buckets of the scopes that the account owns; for admins all. `missing` names the RSEs that could not be asked
    (of those on which the account has a quota, or its scopes have data).

    404: There is no such S3 RSE or scope
    503: The storage of the RSE that was named does not answer
    """

    rse: Annotated[Optional[str], Field('Return only the buckets of this RSE.')] = None


class RemoveBucket(Request[RemovedBucket], route='DELETE /buckets'):
    """Remove a bucket.

    With a name: deletes the account's rules for this dataset on this RSE, lets the empty dataset expire, and removes
    the bucket if it is no longer used. Without: the same for the whole bucket of the scope. Refused if there are
    objects or files, unless forced: then these are deleted as well, with their replicas on this RSE.

    400: Invalid scope, name or JSON
    403: The account does not own the scope
    404: There is no such S3 RSE or scope
    409: It is not empty, or somebody else's rule protects a file in it
    """

    scope: Scope
    name: Dataset = ''
    rse: RSE = None
    force: Annotated[bool, Field('Delete the content as well.')] = False


# Locations of DIDs


class Location(TypedDict):
    """The location of a DID, even if it does not exist yet."""

    rse: str
    bucket: str
    key: str
    url: str
    did_type: Annotated[Optional[str], 'FILE, DATASET or CONTAINER; null: it is not in the catalogue.']
    prefix: Annotated[
        Optional[str],
        'The prefix around this key that the account may read, for which keys are vended; null: no keys are vended.',
    ]


class Locate(Request[list[Location]], route='GET /locate'):
    """Locate a DID.

    Returns the locations of a DID on S3 RSEs, even if it does not exist yet, the best one first.

    400: Invalid scope or name
    403: The account may not read it
    404: There is no such scope
    """

    scope: Scope
    name: Annotated[str, Field('The name; by default the bucket of the scope.')] = ''


class Choose(Request[Location], route='GET /place'):
    """Choose the RSE of a DID.

    The one place of a DID that is meant where there are several: see [Which RSE](#which-rse).

    400: Invalid scope or name, or several RSEs would do
    403: The account may not read it
    404: There is no such S3 RSE, or the DID is not there
    """

    scope: Scope
    name: Annotated[str, Field('The name; without it the bucket of the scope.')] = ''
    rse: RSE = None
    default_rse: Annotated[Optional[str], Field("The user's own default, used before the server's.")] = None
    reading: Annotated[bool, Field('It is only read: any RSE that has it will do.')] = False


# Authorisation


class Credentials(TypedDict):
    """Short-lived keys, and what they are for."""

    rse: str
    url: str
    region: str
    addressing: str
    bucket: str
    prefix: Annotated[str, 'The prefix of the objects that they give access to.']
    write: bool
    access_key: str
    secret_key: str
    session_token: str
    expiration: Annotated[str, 'YYYY-MM-DDTHH:MM:SSZ']


class Signed(TypedDict):
    """A signed request."""

    uri: str
    headers: Annotated[dict[str, list[str]], 'Name -> values, to add to those of the request.']


class Signatures(TypedDict):
    """The signed requests, in the order in which they were sent."""

    responses: list[Signed]


class Unsigned(TypedDict):
    """A request to sign."""

    method: str
    uri: str
    headers: Annotated[dict[str, list[str]], 'Name -> values']
    region: NotRequired[Annotated[str, 'Accepted, but not used.']]
    body: NotRequired[Annotated[str, 'Base64; only for DeleteObjects.']]


class GetCredentials(Request[Credentials], route='POST /credentials'):
    """Get credentials.

    Returns short-lived keys for an S3 storage, limited to one bucket or one prefix. For rse, bucket and prefix, they
    are for the largest part of the bucket around the prefix that the account may use; for scope and name, only for this
    collection.

    400: Invalid JSON or parameters
    403: The account is not allowed to use it, whether it exists or not
    404: There is no such S3 RSE or scope
    429: The account got too many new keys: repeat the request after Retry-After seconds
    501: The server has no role at this storage
    503: The storage's STS does not answer
    """

    rse: Annotated[Optional[str], Field('The RSE; optional with a scope.')] = None
    bucket: Annotated[Optional[str], Field('The bucket.', 63)] = None
    prefix: Annotated[str, Field('A key or a prefix of keys; empty for the whole bucket.', 1024)] = ''
    scope: Annotated[Optional[str], Field('The scope, instead of bucket and prefix.')] = None
    name: Annotated[str, Field('The name; empty for the whole bucket of the scope.')] = ''
    write: Annotated[bool, Field('Whether the keys allow writing and deleting.')] = False
    lifetime: Annotated[Optional[int], Field('The lifetime in seconds; the server may limit it.', 604800)] = None


class Sign(Request[Signatures], route='POST /sign'):
    """Sign requests.

    Signs up to 1000 S3 requests with the server's keys (AWS Signature Version 4): all of them or none.

    400: A request is not supported
    403: The account is not allowed to do this, whether the object exists or not
    404: There is no such S3 RSE
    409: What the requests store is more than the account limit of the owner of the scope allows
    413: More than 1 MiB
    429: The account requested too many signatures: repeat the request after Retry-After seconds
    """

    rse: Annotated[str, Field('The RSE.')]
    requests: Annotated[list[Unsigned], Field('The requests.', MAX_REQUESTS)]


# Sharing


class Grant(TypedDict):
    """The access that somebody has below a collection."""

    kind: Annotated[
        str,
        'account; attribute: all accounts with it; everybody: all accounts; world: also people without an account.',
    ]
    account: Annotated[str, 'An account; KEY=VALUE of an attribute; or * for everybody.']
    write: bool
    by: Annotated[str, 'The account that granted it.']
    at: Annotated[str, 'When it was granted (UTC).']
    until: Annotated[Optional[str], 'When it ends (UTC); null: never.']
    ended: Annotated[bool, 'It has expired. A grant to everybody stays listed until its storages have been updated.']


class OwnKeys(TypedDict):
    """Whether a grantee can read a collection on a storage without Rucio, with keys of its own."""

    rse: str
    user: Annotated[Optional[str], 'The ARN of its user at the storage; null: it cannot.']
    why: Annotated[Optional[str], 'Why it cannot.']


class AddedGrant(TypedDict):
    """What was granted."""

    account: str
    write: bool
    until: Annotated[Optional[str], 'When it ends (UTC); null: never.']
    changed: Annotated[bool, 'False if it had been granted before.']
    own_keys: NotRequired[
        Annotated[
            list[OwnKeys], 'The storages of the collection at which accounts have users of their own (`user_arn`).'
        ]
    ]


class DeletedGrant(TypedDict):
    """Whether a grant was deleted."""

    removed: Annotated[bool, 'False if there was none.']


class ListGrants(Request[list[Grant]], route='GET /grants'):
    """List grants.

    Returns the access that others than the owner of the scope have below a collection.

    400: Invalid scope or name
    403: The account does not own the scope
    404: There is no such scope
    409: The operator of the server has not created the table of grants
    """

    scope: Scope
    name: Collection


class AddGrant(Request[AddedGrant], route='POST /grants', status=201):
    """Add a grant.

    Lets another account, all accounts with an attribute, or everybody read below a collection, or read and write; only
    read for everybody. For the world, the bucket gets a policy as well, and for accounts that have users of their own
    at a storage (`user_arn`). Attributes are read at the time of access.

    400: Invalid parameters
    403: The account does not own the scope
    404: There is no such scope, collection or account
    409: It is a file; or the operator of the server has not created the table of grants
    """

    scope: Scope
    name: Collection
    account: Grantee
    write: Annotated[bool, Field('Whether it may also write and delete.')] = False
    kind: GranteeKind = None
    until: Annotated[Optional[str], Field('When it ends (UTC): YYYY-MM-DDTHH:MM:SSZ. By default never.')] = None


class DeleteGrant(Request[DeletedGrant], route='DELETE /grants'):
    """Delete a grant.

    Revokes a grant. Keys that were issued before remain valid until they expire.

    400: Invalid parameters
    403: The account does not own the scope
    404: There is no such scope
    409: The operator of the server has not created the table of grants
    """

    scope: Scope
    name: Collection
    account: Grantee
    kind: GranteeKind = None


class Place(TypedDict):
    """Where a collection is."""

    rse: str
    bucket: str
    key: Annotated[str, 'The key of the collection, without a slash at its end; empty for the whole bucket.']
    url: str


class Share(TypedDict):
    """A collection, and with whom it is shared; or a scope of the account."""

    scope: str
    name: Annotated[str, 'The collection; empty: the whole scope.']
    kind: Annotated[
        str,
        'own: a scope of the account. Else the kind of the grantee: account; attribute: all accounts with it; '
        'everybody: all accounts; world: also people without an account.',
    ]
    account: Annotated[str, 'An account; KEY=VALUE of an attribute; or * for everybody.']
    write: bool
    by: Annotated[Optional[str], 'The account that granted it.']
    at: Annotated[Optional[str], 'When it was granted (UTC).']
    until: Annotated[Optional[str], 'When it ends (UTC); null: never.']
    ended: Annotated[bool, 'It has expired, or the collection was erased.']
    places: Annotated[
        list[Place],
        'Where it is; empty if this was not asked for, or no rule keeps it on an RSE and there are over 100 such ones.',
    ]


class Shares(TypedDict):
    """What is shared."""

    shares: list[Share]
    more: Annotated[bool, 'There are more than 1000.']


class ListUsable(Request[Shares], route='GET /usable'):
    """List what the account may use.

    The scopes that it owns, then what others share with it, with all accounts, with one of its attributes, and with
    the world. A collection that is shared in several ways is listed several times. What only admins or the
    policy of the site give access to is not listed.
    """

    places: Annotated[bool, Field('Return also where each of them is.')] = False


class ListShared(Request[Shares], route='GET /shared'):
    """List what the account shares.

    The grants of all collections in the scopes that it owns.

    409: The operator of the server has not created the table of grants
    """

    places: Annotated[bool, Field('Return also where each of them is.')] = False


# Bucket policies


class ChangedPolicy(TypedDict):
    """The new policy of a bucket."""

    rse: str
    bucket: str
    policy: Annotated[Optional[dict[str, Any]], 'The policy; null if there is none.']


class BucketPolicy(ChangedPolicy):
    """The policy of a bucket, and its dangerous parts."""

    warnings: Annotated[list[str], 'Parts of it that may lock out the Rucio server.']


class GetBucketPolicy(Request[BucketPolicy], route='GET /policy'):
    """Get a bucket policy.

    Returns the bucket policy of the bucket of a scope.

    403: The account does not own the scope
    404: There is no such RSE, scope or bucket
    501: The storage has no policies
    """

    scope: Scope
    rse: RSE = None


class SetBucketPolicy(Request[ChangedPolicy], route='PUT /policy'):
    """Set a bucket policy.

    Sets the bucket policy of the bucket of a scope, replacing the current one.

    400: The policy is not allowed, or the storage does not accept it
    403: The account does not own the scope, or an admin's Deny would be lost
    404: There is no such RSE, scope or bucket
    409: The storage does not let the server set it
    501: The storage has no policies
    """

    scope: Scope
    policy: Annotated[dict[str, Any], Field('The policy.')]
    rse: RSE = None


class DeleteBucketPolicy(Request[ChangedPolicy], route='DELETE /policy'):
    """Delete a bucket policy.

    Deletes the bucket policy of the bucket of a scope.

    403: The account does not own the scope, or the policy has a Deny and the account is not an admin
    404: There is no such RSE, scope or bucket
    409: The storage does not let the server delete it
    """

    scope: Scope
    rse: RSE = None


# Reconciliation


class Problem(TypedDict):
    """A problem that needs a decision, or should be known."""

    kind: str
    did: str
    key: str
    found: Annotated[str, 'What was seen.']
    remedy: Annotated[str, 'How to solve it.']


class Reconciled(TypedDict):
    """What was found and done."""

    rse: str
    bucket: str
    scope: str
    name: str
    after: Annotated[Optional[str], 'Null at the end; otherwise repeat the request with it.']
    counts: Annotated[dict[str, int], 'Kind -> number of objects.']
    problems: list[Problem]


class Imported(Reconciled):
    """What was found and done in a foreign bucket."""

    prefix: Annotated[str, 'The prefix that was imported.']


class BucketSettings(TypedDict):
    """What is done in a bucket about objects that others changed or removed."""

    rse: str
    bucket: str
    scope: str
    on_changed: str
    on_missing: str
    own: Annotated[list[str], 'The settings that were set for this bucket, and not for the whole RSE.']


class Change(TypedDict):
    """A change of a file in the catalogue."""

    time: str
    change: Literal['registered', 'updated', 'bad', 'removed']
    scope: str
    name: str
    bytes: Optional[int]


class Changes(TypedDict):
    """The changes below a collection."""

    rse: str
    now: Annotated[str, 'The time of the answer (UTC).']
    more: Annotated[bool, 'True if there were too many; `now` is then the time of the last one returned.']
    changes: list[Change]


class Reconcile(Wish, Request[Reconciled], route='POST /reconcile'):
    """Reconcile a bucket.

    Compares the bucket of a scope, or the objects below a collection, with the catalogue, and registers new objects.
    What to do about changed and missing objects is a setting of the bucket, or a parameter. A request works for at most
    20 seconds: repeat it with the `after` of its answer until that is null.

    400: Invalid parameters, or there are several RSEs
    403: The account does not own the scope
    404: There is no such RSE, scope or bucket
    501: The RSE has no common prefix for the names below a collection
    503: The storage does not answer
    """

    scope: Scope
    name: Name = ''
    rse: RSE = None


class WrittenFile(TypedDict):
    """A file whose object an account has just written or deleted, and what is known of its content."""

    name: str
    bytes: NotRequired[Annotated[int, 'The size of the object. The checksum counts only with size and ETag.']]
    etag: NotRequired[Annotated[str, 'Its ETag, as the storage returned it.']]
    adler32: NotRequired[Annotated[str, 'Its Adler-32, as 8 hexadecimal digits.']]


class ReconcileFiles(Request[Reconciled], route='POST /reconcile/files'):
    """Reconcile some files.

    Compares the objects of files that the account has just written or deleted with the catalogue, as POST /reconcile
    does. An object that still has the given size and ETag is not read: the given checksum is registered.

    400: Invalid parameters
    403: The account does not own the scope
    404: There is no such RSE, scope or bucket
    501: The RSE has no common prefix for the names of a scope
    503: The storage does not answer
    """

    scope: Scope
    rse: Annotated[str, Field('The RSE.')]
    files: Annotated[list[WrittenFile], Field('The files.', MAX_FILES)]
    on_changed: Annotated[
        Optional[str], Field('What to do about objects that differ from the catalogue.', choices=ON_CHANGED)
    ] = None
    on_missing: Annotated[Optional[str], Field('What to do about missing objects.', choices=ON_MISSING)] = None


class KnownFile(TypedDict):
    """What the catalogue has of a name: the DID, and the state of its replica on an RSE."""

    name: str
    did_type: Annotated[str, 'FILE, DATASET or CONTAINER.']
    lost: Annotated[bool, 'Whether the file was declared lost.']
    bytes: Optional[int]
    adler32: Optional[str]
    md5: Optional[str]
    state: Annotated[Optional[str], 'The state of the replica, such as AVAILABLE; null if there is none.']
    rses: Annotated[list[str], 'The RSEs from which it can be read; without `rse` only.']


class LookUpFiles(Request[list[KnownFile]], route='POST /files'):
    """Look files up in the catalogue.

    Returns what is registered under some names of a scope, and the states of the replicas on one RSE; without `rse`, on
    which RSEs they can be read instead. Names that are not registered are left out.

    400: Invalid parameters
    404: There is no such RSE
    """

    scope: Scope
    names: Annotated[list[str], Field('The names.', MAX_NAMES)]
    rse: Annotated[Optional[str], Field('The RSE whose replicas are meant.')] = None


class UploadedFile(TypedDict):
    """A file that an account has uploaded, and its content."""

    name: str
    bytes: Annotated[int, 'Its size.']
    adler32: Annotated[str, 'Its Adler-32, as 8 hexadecimal digits.']
    md5: NotRequired[Annotated[Optional[str], 'Its MD5, as 32 hexadecimal digits.']]


class RegisteredFiles(TypedDict):
    """The outcome of a registration."""

    known: Annotated[list[str], 'The names that were registered already. They are left as they are.']


class RegisterFiles(Request[RegisteredFiles], route='PUT /files'):
    """Register uploaded files.

    Registers files that the account has uploaded to one RSE, and attaches them to a dataset: the same rows as by
    Rucio's POST /replicas and POST /dids/attachments, of all that are new or of none.

    400: Invalid parameters
    403: The account does not own the scope
    404: There is no such RSE or scope
    409: The dataset is closed, or the RSE takes no files
    501: The RSE has no common prefix for the names of a scope
    """

    scope: Scope
    name: Annotated[str, Field('The name of the dataset.')]
    rse: Annotated[str, Field('The RSE.')]
    files: Annotated[list[UploadedFile], Field('The files. Their names begin with that of the dataset.', MAX_NAMES)]


class KeptFile(TypedDict):
    """A file that was not deleted."""

    name: str
    found: Annotated[str, 'Why, and what to do.']


class RemovedFiles(TypedDict):
    """The outcome of a deletion."""

    rse: str
    bucket: str
    removed: Annotated[int, 'The number of files whose object was deleted.']
    kept: Annotated[list[KeptFile], 'The files that were not deleted, or are still in the catalogue.']


class RemoveFiles(Request[RemovedFiles], route='DELETE /files'):
    """Delete files.

    Deletes the objects of files on one RSE, and then their replicas from the catalogue; with the last replica also the
    file's own rules, its attachments and its DID. Files that a rule or a dataset of somebody else needs are kept.

    400: Invalid parameters, or there are several RSEs
    403: The account does not own the scope
    404: There is no such RSE, scope or bucket
    501: The RSE has no common prefix for the names of a scope
    503: The storage does not answer
    """

    scope: Scope
    names: Annotated[list[str], Field('The names of the files.', MAX_FILES)]
    rse: RSE = None


class ImportBucket(Wish, Request[Imported], route='POST /import'):
    """Import a bucket.

    Registers the objects of a foreign bucket as files of a dataset, with a replica on a non-deterministic RSE and
    without a rule; repeated requests add new objects. The reconciler's daemon repeats it. A request works for at most
    20 seconds: repeat it with the `after` of its answer until that is null.

    400: Invalid parameters, or files of that dataset come from elsewhere
    403: The account is not allowed to import into this scope, or from this RSE
    404: There is no such RSE, scope or bucket
    409: The RSE is deterministic, or the name is not that of a dataset
    503: The storage does not answer
    """

    rse: Annotated[str, Field('A non-deterministic RSE.')]
    scope: Annotated[str, Field('The scope of the files.')]
    name: Annotated[
        str, Field('The dataset. The name of a file is this name, a slash, and its key relative to the prefix.')
    ]
    bucket: Annotated[Optional[str], Field('The bucket, if the RSE does not name one.')] = None
    prefix: Annotated[str, Field('Only import objects below this prefix. By default everything on the RSE.', 1024)] = ''


class GetBucketSettings(Request[BucketSettings], route='GET /settings'):
    """Get the settings of a bucket.

    Returns what is done about objects that others changed or removed.

    403: The account does not own the scope
    404: There is no such RSE or scope
    """

    scope: Scope
    rse: RSE = None


class SetBucketSettings(Request[BucketSettings], route='PUT /settings'):
    """Set the settings of a bucket.

    Sets what is done about objects that others changed or removed. Parameters that are left out are not changed.

    400: Invalid parameters
    403: The account does not own the scope
    404: There is no such RSE or scope
    """

    scope: Scope
    rse: RSE = None
    on_changed: Annotated[Optional[str], Field('What to do about changed objects.', choices=(*ON_CHANGED, DEFAULT))] = (
        None
    )
    on_missing: Annotated[Optional[str], Field('What to do about missing objects.', choices=(*ON_MISSING, DEFAULT))] = (
        None
    )


class ListChanges(Request[Changes], route='GET /changes'):
    """List changes.

    Returns the changes in the catalogue below a collection since a time. Some become visible seconds after their time.

    400: Invalid parameters, or there are several RSEs
    403: The account does not own the scope
    404: There is no such RSE or scope
    """

    scope: Scope
    name: Annotated[str, Field('The name of a collection; by default the whole scope.')] = ''
    rse: RSE = None
    since: Annotated[Optional[str], Field('The `now` of an earlier answer; without it only the time is returned.')] = (
        None
    )


# Events


class TakenEvents(TypedDict):
    """The result of event records."""

    records: Annotated[int, 'The number of records.']
    skipped: Annotated[int, 'The number of records that were irrelevant or not understood.']
    counts: Annotated[dict[str, int], 'Kind -> number of objects; unknown: keys that belong to no scope.']


class TakeEvents(Request[TakenEvents], route='POST /{rse}/events', query=('vo',)):
    """Take S3 events.

    Receives the event records of an S3 storage (AWS, also wrapped by SNS, SQS or EventBridge; MinIO; Ceph; SeaweedFS's
    filer), checks the objects in them, and updates the catalogue. Records may come twice and in any order; those about
    objects that this server does not know are answered with 200 as well, and must not be sent again. The storage sends
    the RSE's token (events_token) as a bearer token, as the password of Basic authentication, or as the opaqueData of
    each record.

    400: Invalid JSON, or too many records
    401: The token is missing, or is not that of the RSE
    411: No Content-Length
    413: The body is too large
    503: The storage or the database does not answer: send it again later
    """

    rse: Annotated[str, Field('The name of the RSE.')]
    vo: Annotated[Optional[str], Field('The VO of the RSE, if the server has several.')] = None


ROUTES: list[type[Request[Any]]] = Request.__subclasses__()


def version() -> str:
    """Return the version of rucio-s3 that is installed here."""
    try:
        return metadata.version('rucio-s3')
    except metadata.PackageNotFoundError:  # linked into Rucio by `make dev`
        return 'unknown'
