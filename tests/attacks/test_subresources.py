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

"""What else S3 can do with a bucket or an object: settings, access lists, versions. None of it is for those who were granted a folder.

With ``PUT ?lifecycle`` of one day everything is gone tomorrow; ``PUT ?policy``, ``?acl`` and ``?publicAccessBlock`` open the bucket;
``PUT ?cors`` and ``?website`` show it to browsers; ``PUT ?object-lock`` and ``?retention`` make objects that nobody can delete.
"""

import pytest

from servers.ceph import CephRGW
from servers.granted import FOREIGN, SECRET, Granted

OF_BUCKETS = [
    'acl',
    'accelerate',
    'analytics',
    'cors',
    'encryption',
    'intelligent-tiering',
    'inventory',
    'lifecycle',
    'logging',
    'metrics',
    'object-lock',
    'ownershipControls',
    'policy',
    'policyStatus',
    'publicAccessBlock',
    'replication',
    'requestPayment',
    'tagging',
    'uploads',
    'versioning',
    'versions',
    'website',
]
OF_OBJECTS = ['acl', 'legal-hold', 'retention', 'tagging', 'restore', 'attributes']
LIFECYCLE = (
    b'<LifecycleConfiguration><Rule><ID>gone</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter>'
    b'<Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>'
)
OPEN = b'{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::*"}]}'
LOGGING = b'<BucketLoggingStatus xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>'
BODIES = {
    'lifecycle': LIFECYCLE,
    'logging': LOGGING,
    'policy': OPEN,
    'versioning': b'<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>',
}


@pytest.mark.parametrize('write', [False, True], ids=['reading', 'writing'])
def test_settings_of_a_bucket_by_vended_keys(granted: Granted, write: bool) -> None:
    """Read, set and delete each setting of the owner's bucket and of one that is nobody's business."""
    keys = granted.keys('desk' if write else 'open', write=write)
    for bucket in (granted.bucket, FOREIGN):
        for setting in OF_BUCKETS:
            for method in ('GET', 'PUT', 'DELETE'):
                body = BODIES.get(setting, b'<x/>') if method == 'PUT' else b''
                status, said = granted.send(keys, method, f'/{bucket}?{setting}=', body)
                # 405: Ceph has no such setting.
                assert status in (403, 405), (method, bucket, setting, said)


def test_settings_of_a_bucket_by_signatures(granted: Granted) -> None:
    """Have the server sign the same."""
    for setting in [*OF_BUCKETS, 'notification']:
        for method in ('GET', 'PUT', 'DELETE', 'POST'):
            assert granted.sign(method, f'/{granted.bucket}?{setting}=').status == 403, (method, setting)
            assert granted.sign(method, f'/{granted.bucket}?{setting}').status in (400, 403), (method, setting)


def test_buckets_are_not_made_or_removed(granted: Granted) -> None:
    """Make a bucket with the rights of the server, and remove the owner's."""
    keys = granted.keys('desk', write=True)
    for method, bucket in (('PUT', 'bucket-of-an-attacker'), ('DELETE', granted.bucket), ('DELETE', FOREIGN)):
        assert granted.send(keys, method, f'/{bucket}')[0] in (403, 404)
        assert granted.sign(method, f'/{bucket}').status == 403
    assert {granted.bucket, FOREIGN} <= {each['Name'] for each in granted.operator.list_buckets()['Buckets']}


def test_settings_of_objects(granted: Granted) -> None:
    """The same for objects: below the grant, where reading and writing is allowed, and beside it."""
    for key in ('desk/mine', 'private/secret'):
        for setting in OF_OBJECTS:
            for method in ('GET', 'PUT', 'DELETE', 'POST'):
                assert granted.sign(method, f'/{granted.bucket}/{key}?{setting}').status in (400, 403), (method, key, setting)
                assert granted.sign(method, f'/{granted.bucket}/{key}?{setting}=').status in (400, 403), (method, key, setting)
    keys = granted.keys('desk', write=True)
    for setting in OF_OBJECTS:
        for method in ('GET', 'PUT', 'DELETE'):
            assert granted.send(keys, method, f'/{granted.bucket}/private/secret?{setting}=')[0] in (403, 404, 405), (method, setting)
    for setting in ('acl', 'legal-hold', 'retention'):
        if isinstance(granted.storage, CephRGW) and setting != 'acl':
            continue  # without object lock it answers that there is none
        assert granted.send(keys, 'PUT', f'/{granted.bucket}/desk/mine?{setting}=', b'<x/>')[0] == 403, setting
    assert granted.content('private/secret') == SECRET


def test_tags_are_read_with_the_object_and_not_written(granted: Granted) -> None:
    """Tag an object that may be written, so that a policy or a lifecycle rule of the owner takes it for public, or for old. Reading tags is what
    `aws s3 cp` between buckets needs: of the objects that may be read, and of no others."""
    tags = {'TagSet': [{'Key': 'class', 'Value': 'internal'}]}
    for key in ('open/a', 'desk/mine', 'private/secret'):
        granted.operator.put_object_tagging(Bucket=granted.bucket, Key=key, Tagging=tags)
    try:
        for name, key, write in (('open', 'open/a', False), ('desk', 'desk/mine', True)):
            assert granted.client(name, write=write).get_object_tagging(Bucket=granted.bucket, Key=key)['TagSet'] == tags['TagSet']
            assert granted.send(granted.keys(name, write=write), 'GET', f'/{granted.bucket}/private/secret?tagging=')[0] == 403
        body = b'<Tagging><TagSet><Tag><Key>class</Key><Value>public</Value></Tag></TagSet></Tagging>'
        for name, key, write in (('open', 'open/a', False), ('desk', 'desk/mine', True)):
            for method, sent in (('PUT', body), ('DELETE', b'')):
                assert granted.send(granted.keys(name, write=write), method, f'/{granted.bucket}/{key}?tagging=', sent)[0] == 403, (method, key)
                assert granted.operator.get_object_tagging(Bucket=granted.bucket, Key=key)['TagSet'] == tags['TagSet']
    finally:
        for key in ('open/a', 'desk/mine', 'private/secret'):
            granted.operator.delete_object_tagging(Bucket=granted.bucket, Key=key)


def test_bucket_notifications(granted: Granted) -> None:
    """Have the storage tell of every object that anybody writes to any bucket, or stop it telling the Rucio server."""
    for bucket in (granted.bucket, FOREIGN):
        for method in ('GET', 'PUT', 'DELETE'):
            assert granted.send(granted.keys('open'), method, f'/{bucket}?notification=')[0] == 403


def test_old_versions(granted: Granted, unique: str) -> None:
    """The bucket keeps versions, and the owner overwrote or deleted something: read what it was, or take the deletion back."""
    bucket = granted.bucket
    granted.operator.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={'Status': 'Enabled'})
    try:
        for key in (f'desk/{unique}', f'private/{unique}'):
            old = granted.operator.put_object(Bucket=bucket, Key=key, Body=SECRET)['VersionId']
            marker = granted.operator.delete_object(Bucket=bucket, Key=key)['VersionId']
            for method, version in (('GET', old), ('DELETE', marker), ('DELETE', old), ('HEAD', old)):
                path = f'/{bucket}/{key}?versionId={version}'
                status, body = granted.send(granted.keys('desk', write=True), method, path)
                assert status >= 400, (method, key, version)
                assert SECRET not in body
                assert granted.sign(method, path).status == 403, (method, key)
            for value in (f'{bucket}/{key}?versionId={old}', f'{bucket}/{key}%3FversionId%3D{old}'):
                assert granted.send(granted.keys('desk', write=True), 'PUT', f'/{bucket}/desk/{unique}-copy', **{'x-amz-copy-source': value})[0] >= 400
            assert granted.send(granted.keys('desk', write=True), 'GET', f'/{bucket}?versions=&prefix=desk%2F')[0] == 403
    finally:
        granted.operator.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={'Status': 'Suspended'})
    assert granted.content(f'desk/{unique}-copy') is None
