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

"""Reading through writing: copies from where one may not read, into where one may write. And uploads in parts that are somebody else's."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from servers.ceph import CephRGW
from servers.granted import FOREIGN, SECRET, Granted

SOURCES = ('private/secret', 'desk2/neighbour', 'open2/neighbour')


def refused(call: Any, **parameters: Any) -> None:
    with pytest.raises(ClientError) as error:
        call(**parameters)
    assert error.value.response['ResponseMetadata']['HTTPStatusCode'] in (400, 403, 404), error.value


def test_an_object_is_copied_to_where_it_may_be_read(granted: Granted) -> None:
    """CopyObject from what is not granted: another folder, another bucket. Its content would lie where the attacker reads."""
    client, keys = granted.writer(), granted.keys('desk', write=True)
    for bucket, key in [*((granted.bucket, key) for key in SOURCES), (FOREIGN, 'private/secret')]:
        refused(client.copy_object, Bucket=granted.bucket, Key='desk/stolen', CopySource={'Bucket': bucket, 'Key': key})
        for value in (f'/{bucket}/{key}', f'{bucket}%2F{key}', f'{granted.bucket}/desk/../../{bucket}/{key}'):
            assert granted.send(keys, 'PUT', f'/{granted.bucket}/desk/stolen', **{'x-amz-copy-source': value})[0] >= 400
            assert granted.sign('PUT', f'/{granted.bucket}/desk/stolen', **{'x-amz-copy-source': value}).status in (400, 403)
    assert granted.content('desk/stolen') is None


def test_a_part_is_copied_to_where_it_may_be_read(granted: Granted) -> None:
    """The same in parts: UploadPartCopy, also of a range."""
    if isinstance(granted.storage, CephRGW) and granted.storage.release == 18:
        pytest.skip('it works on Ceph 18, where the server therefore vends no keys: tests/backends/test_ceph_roles.py')
    client, where = granted.writer(), {'Bucket': granted.bucket, 'Key': 'desk/stolen'}
    upload = client.create_multipart_upload(**where)['UploadId']
    for bucket, key in [*((granted.bucket, key) for key in SOURCES), (FOREIGN, 'private/secret')]:
        for more in ({}, {'CopySourceRange': 'bytes=0-2'}):
            refused(client.upload_part_copy, **where, UploadId=upload, PartNumber=1, CopySource={'Bucket': bucket, 'Key': key}, **more)
        path = f'/{granted.bucket}/desk/stolen?partNumber=1&uploadId={upload}'
        assert granted.sign('PUT', path, **{'x-amz-copy-source': f'/{bucket}/{key}'}).status == 403
    assert not client.list_parts(**where, UploadId=upload).get('Parts')
    client.abort_multipart_upload(**where, UploadId=upload)


def test_a_copy_tells_what_is_there(granted: Granted) -> None:
    """Conditions as a question: whether an object has this ETag, or is there at all, by whether a copy fails in one way or the other."""
    etag = granted.operator.head_object(Bucket=granted.bucket, Key='private/secret')['ETag']
    for condition in ('if-match', 'if-none-match'):
        said = set()
        for key, value in (('private/secret', etag), ('private/secret', '"0"'), ('private/none', etag)):
            asked = granted.sign(
                'PUT', f'/{granted.bucket}/desk/x', **{'x-amz-copy-source': f'/{granted.bucket}/{key}', f'x-amz-copy-source-{condition}': value}
            )
            said.add((asked.status, asked.text.replace(key, 'KEY')))
        assert len(said) == 1
        assert said.pop()[0] == 403


def test_an_upload_of_somebody_else(granted: Granted) -> None:
    """With the id of an upload of the owner's (a log, a proxy): add a part, list, complete or abort it, also by a key of one's own with that id."""
    key = 'private/large'
    upload = granted.operator.create_multipart_upload(Bucket=granted.bucket, Key=key)['UploadId']
    granted.operator.upload_part(Bucket=granted.bucket, Key=key, UploadId=upload, PartNumber=1, Body=SECRET)
    keys = granted.keys('desk', write=True)
    complete = b'<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"x"</ETag></Part></CompleteMultipartUpload>'
    for where in (key, 'desk/large'):
        for method, query, body in (
            ('PUT', f'partNumber=1&uploadId={upload}', b'planted'),
            ('PUT', f'partNumber=2&uploadId={upload}', b'planted'),
            ('GET', f'uploadId={upload}', b''),
            ('POST', f'uploadId={upload}', complete),
            ('DELETE', f'uploadId={upload}', b''),
        ):
            status, said = granted.send(keys, method, f'/{granted.bucket}/{where}?{query}', body)
            assert status >= 400 or method == 'DELETE', (method, where, query, said)
            if where == key:
                assert granted.sign(method, f'/{granted.bucket}/{where}?{query}').status == 403
    for query in ('uploads=', 'uploads=&prefix=desk%2F', 'uploads=&key-marker=private'):
        assert granted.send(keys, 'GET', f'/{granted.bucket}?{query}')[0] == 403
        assert granted.sign('GET', f'/{granted.bucket}?{query}').status == 403
    parts = granted.operator.list_parts(Bucket=granted.bucket, Key=key, UploadId=upload)['Parts']
    assert [(each['PartNumber'], each['Size']) for each in parts] == [(1, len(SECRET))]
    granted.operator.abort_multipart_upload(Bucket=granted.bucket, Key=key, UploadId=upload)
    assert granted.content('desk/large') is None


def test_many_keys_in_one_deletion(granted: Granted) -> None:
    """DeleteObjects by vended keys, with a key beside the grant among those below it. What the server signs of it: test_delete_bodies."""
    objects = [{'Key': 'desk/none'}, {'Key': 'private/secret'}, {'Key': 'open/a'}]
    if isinstance(granted.storage, CephRGW) and granted.storage.release < 20:  # refuses it to the keys of roles
        refused(granted.writer().delete_objects, Bucket=granted.bucket, Delete={'Objects': objects})
    else:
        answer = granted.writer().delete_objects(Bucket=granted.bucket, Delete={'Objects': objects})
        assert {each['Key'] for each in answer['Errors']} == {'private/secret', 'open/a'}
    assert granted.content('private/secret') == granted.content('open/a') == SECRET


def test_an_object_that_nobody_can_delete(on_ceph: Granted, unique: str) -> None:
    """Ceph 16 takes ``PUT ?versionId=x`` in a bucket without versions, and then lists that key for ever. The owner's removal of the bucket would
    never end, and keep a worker of the server busy; nor can Rucio mend it. It says what to do instead, and the same is not signed."""
    scope, path = f'user.{on_ceph.name}', f'{unique}/undead'
    mine = {'rse': on_ceph.rse, 'scope': scope, 'name': ''}
    assert on_ceph.attacker('POST', '/s3/buckets', mine).status == 201
    answer = on_ceph.attacker('POST', '/s3/credentials', {**mine, 'write': True})
    keys = type('Keys', (), {**answer.content, 'region': on_ceph.storage.region})
    assert on_ceph.sign('PUT', f'/{scope}/{path}?versionId=x').status == 403
    assert on_ceph.send(keys, 'PUT', f'/{scope}/{path}?versionId=x', b'x')[0] == 200
    removed = on_ceph.attacker('DELETE', '/s3/buckets', {**mine, 'force': True})
    assert (removed.status, f"still lists '{path}'" in removed.text) == (409, True), removed
