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

"""The bucket that is tried: whether it can be reached, its policy, lifecycle and ACLs."""

import secrets
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from rucio.common.exception import RucioException
from rucio.common.s3 import clients, objects
from rucio.common.s3.address import bucket_to_scope, is_bucket_name, scope_to_bucket
from rucio.common.s3.credentials import Anonymous
from rucio.common.s3.errors import Target, status_of, translated

from .scratch import Scratch
from .trial import change, compared, failed, hint, skipped

if TYPE_CHECKING:
    from .subject import Subject


def bucket(subject: 'Subject') -> str:
    target = subject.target
    if target.bucket:
        subject.scratch = _reached(subject, target)
        return f"'{target.bucket}'"
    refused = ''
    for scope in subject.scopes:
        try:
            name = scope_to_bucket(scope, subject.endpoint.bucket_prefix)
            subject.scratch = _reached(subject, Target(subject.rse, name))
        except RucioException as error:
            refused = str(error.args[0])
        else:
            return f"'{name}', of the scope {scope}"
    return _make_bucket(subject, refused)


def _reached(subject: 'Subject', target: Target) -> Scratch:
    scratch = Scratch(subject.connection, target)
    with translated('ls', target._replace(key='')):
        # Not HeadBucket, whose refusal does not say why.
        subject.connection.client.list_objects_v2(Bucket=target.bucket, Prefix=scratch.folder, MaxKeys=1)
    return scratch


def _make_bucket(subject: 'Subject', refused: str) -> str:
    """Only for those who have keys of their own: others may make buckets of their scopes alone."""
    connection = subject.connection
    name = f'{connection.endpoint.bucket_prefix}rucio-s3-check-{secrets.token_hex(6)}'
    if connection.authorizer.name != 'static' or not is_bucket_name(name):
        raise failed(
            f'no scope of {subject.client.account} has a bucket. {refused}'.strip(),
            'rucio s3 make-bucket SCOPE; or name one: --bucket',
        )
    target = Target(subject.rse, name)
    objects.make_bucket(connection, target)
    subject.scratch = Scratch(connection, target, made_bucket=True)
    return f"'{name}', made for this check"


def bucket_policy(subject: 'Subject') -> str:
    """One that other tools have set may keep the server and its daemons out."""
    scratch = subject.scratch
    own = not subject.own[0] and not scratch.made_bucket
    scope = bucket_to_scope(scratch.bucket, subject.endpoint.bucket_prefix) if own else None
    if scope is None:
        raise skipped('it is not the bucket of a scope')
    try:
        warnings = subject.plugin.list_policy_warnings(scope, subject.rse)
    except RucioException:  # it is not the account's to see, or the server has no keys: another trial tells
        raise skipped('the Rucio server does not show it') from None
    if warnings:
        raise hint(warnings[0], 'rucio s3 policy SCOPE --remove, by an admin of Rucio')
    return 'denies nothing to the Rucio server'


def lifecycle(subject: 'Subject') -> str:
    scratch, what = subject.written, 'a lifecycle of buckets'
    try:
        rules = scratch.connection.client.get_bucket_lifecycle_configuration(Bucket=scratch.bucket).get('Rules', [])
    except ClientError as error:
        if error.response['Error'].get('Code') != 'NoSuchLifecycleConfiguration':
            if status_of(error) == 403:
                raise skipped('these credentials may not ask') from None
            return compared(subject.endpoint, 'lifecycle', False, what, 'the storage keeps parts of broken-off uploads')
        rules = []
    except RucioException:
        raise skipped('these credentials may not ask') from None
    compared(subject.endpoint, 'lifecycle', True, what, '')
    if any('AbortIncompleteMultipartUpload' in each for each in rules):
        return 'ends interrupted multipart uploads'
    if scratch.made_bucket:
        return 'is there; rucio s3 make-bucket sets a rule'
    raise hint(
        f"the bucket '{scratch.bucket}' has no rule that ends interrupted multipart uploads",
        'rucio s3 make-bucket SCOPE sets it, also for a bucket that is there.',
    )


def public_acls(subject: 'Subject') -> str:
    """Whether those who may write can make an object public, by a copy: that is what Ceph lets pass longest."""
    scratch = subject.written
    if scratch.connection.authorizer.name != 'vended':
        raise skipped('is for keys that the server vends')
    public: Any = {'Bucket': scratch.bucket, 'Key': scratch.target('public').key}
    source: Any = {'Bucket': scratch.bucket, 'Key': scratch.target('small').key}
    try:
        scratch.bare.client.copy_object(**public, CopySource=source, ACL='public-read')
        clients.connect(subject.endpoint, Anonymous()).client.get_object(**public)
    except (ClientError, RucioException):
        return 'an object cannot be made public by an ACL'
    raise failed('whoever may write makes objects public, by an ACL', change('ignore_public_acls', 'true'))
