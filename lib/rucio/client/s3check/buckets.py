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

"""Try the bucket: whether it can be reached, its policy, lifecycle and ACLs."""

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
    """Find a bucket for the test objects, or make one."""
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
        # Not HeadBucket: an error of it has no reason.
        subject.connection.client.list_objects_v2(Bucket=target.bucket, Prefix=scratch.folder, MaxKeys=1)
    return scratch


def _make_bucket(subject: 'Subject', refused: str) -> str:
    """Make a bucket, if this machine has keys: others may only make the buckets of their scopes."""
    connection = subject.connection
    name = f'{connection.endpoint.bucket_prefix}rucio-s3-check-{secrets.token_hex(6)}'
    if connection.authorizer.name != 'static' or not is_bucket_name(name):
        raise failed(
            f'no scope of {subject.client.account} has a bucket. {refused}'.strip(),
            'Make one with rucio s3 make-bucket SCOPE, or choose one with --bucket',
        )
    target = Target(subject.rse, name)
    objects.make_bucket(connection, target)
    subject.scratch = Scratch(connection, target, made_bucket=True)
    return f"'{name}', made for this check"


def bucket_policy(subject: 'Subject') -> str:
    """Ask the server whether the bucket policy may lock out the server and its daemons."""
    scratch = subject.scratch
    own = not subject.own[0] and not scratch.made_bucket
    scope = bucket_to_scope(scratch.bucket, subject.endpoint.bucket_prefix) if own else None
    if scope is None:
        raise skipped('the bucket does not belong to a scope')
    try:
        warnings = subject.plugin.list_policy_warnings(scope, subject.rse)
    except RucioException:  # the account may not see it, or the server has no keys: another trial reports that
        raise skipped('the Rucio server does not show it') from None
    if warnings:
        raise hint(warnings[0], 'An admin of Rucio can remove it: rucio s3 policy SCOPE --remove')
    return 'denies nothing to the Rucio server'


def lifecycle(subject: 'Subject') -> str:
    """Look for a lifecycle rule that removes unfinished multipart uploads."""
    scratch, what = subject.written, 'a lifecycle of buckets'
    try:
        rules = scratch.connection.client.get_bucket_lifecycle_configuration(Bucket=scratch.bucket).get('Rules', [])
    except ClientError as error:
        if error.response['Error'].get('Code') != 'NoSuchLifecycleConfiguration':
            if status_of(error) == 403:
                raise skipped('these credentials are not allowed to read it') from None
            return compared(
                subject.endpoint, 'lifecycle', False, what, 'the storage keeps the parts of interrupted uploads'
            )
        rules = []
    except RucioException:
        raise skipped('these credentials are not allowed to read it') from None
    compared(subject.endpoint, 'lifecycle', True, what, '')
    if any('AbortIncompleteMultipartUpload' in each for each in rules):
        return 'removes unfinished multipart uploads'
    if scratch.made_bucket:
        return 'is supported; rucio s3 make-bucket sets a rule'
    raise hint(
        f"the bucket '{scratch.bucket}' has no rule that removes unfinished multipart uploads",
        'rucio s3 make-bucket SCOPE sets one, also for an existing bucket.',
    )


def public_acls(subject: 'Subject') -> str:
    """Try to make an object public by a copy, which is the longest way that Ceph leaves open."""
    scratch = subject.written
    if scratch.connection.authorizer.name != 'vended':
        raise skipped('only concerns keys that the server vends')
    public: Any = {'Bucket': scratch.bucket, 'Key': scratch.target('public').key}
    source: Any = {'Bucket': scratch.bucket, 'Key': scratch.target('small').key}
    try:
        scratch.bare.client.copy_object(**public, CopySource=source, ACL='public-read')
        clients.connect(subject.endpoint, Anonymous()).client.get_object(**public)
    except (ClientError, RucioException):
        return 'an object cannot be made public by an ACL'
    raise failed('anybody who can write can make objects public with an ACL', change('ignore_public_acls', 'true'))
