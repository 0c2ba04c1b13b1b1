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

"""Behaviours: copies and deletions inside a storage, and what it removes by itself."""

from typing import Any

from .behaviour import KEPT, behaviour, md5, said, yes
from .integrity import PART
from .place import ProbeBucket


@behaviour(
    'Copies',
    'CopyObject, also from another bucket',
    'rules between two RSEs on one storage move no byte over the network',
    needs=['own'],
)
def copy(place: ProbeBucket) -> str:
    source, other = place.put(b'content', Metadata={'a': 'b'}), place.new_bucket()
    place.copy(source, source, Bucket=other)
    if place.get(source, Bucket=other) != b'content':
        return 'no'
    kept = place.s3.head_object(Bucket=other, Key=source)['Metadata'] == {'a': 'b'}
    return KEPT if kept else 'without metadata'


@behaviour('Copies', 'CopyObject of a key with blanks, `+`, `%41`', 'as above')
def copy_odd(place: ProbeBucket) -> str:
    source, key = place.put(b'content', place.key('{}/ a+b%41\u00e9')), place.key()
    place.copy(source, key)
    return yes(place.get(key) == b'content')


@behaviour(
    'Copies',
    'UploadPartCopy',
    'copies inside of a storage of more than 1 GiB are made in parts; where it is refused the bytes are relayed',
)
def part_copy(place: ProbeBucket) -> str:
    content = b'a' * PART + b'b' * 10
    source, key = place.put(content), place.key()
    upload, parts = place.begin(key)
    for number, span in enumerate((f'bytes=0-{PART - 1}', f'bytes={PART}-{PART + 9}'), 1):
        named: dict[str, Any] = {'Bucket': place.bucket, 'Key': key, 'UploadId': upload, 'PartNumber': number}
        named['CopySource'] = {'Bucket': place.bucket, 'Key': source}
        sent = place.s3.upload_part_copy(**named, CopySourceRange=span)
        parts.append({'PartNumber': number, 'ETag': sent.get('CopyPartResult', {}).get('ETag', '')})
    place.complete(key, (upload, parts))
    return yes(place.get(key) == content)


@behaviour(
    'Deleting',
    'DeleteObjects, with keys that are not there among them',
    '`bulk_delete`, and the removal of buckets',
    needs=['signed'],
)
def delete_objects(place: ProbeBucket) -> str:
    keys = [place.put(), place.put(b'x', place.key('{}/<&>"\' +%41\u00e9')), place.key()]

    def add(request: Any) -> None:
        request.headers['Content-MD5'] = md5(request.body)

    with place.before_signing('DeleteObjects', add):
        answer = place.s3.delete_objects(Bucket=place.bucket, Delete={'Objects': [{'Key': key} for key in keys]})
    if errors := answer.get('Errors'):
        return ', '.join(sorted({each['Code'] for each in errors}))
    return yes(not set(keys) & set(place.listed()))


@behaviour(
    'Buckets',
    'a lifecycle rule that ends forgotten uploads',
    '`lifecycle`: `rucio s3 make-bucket` sets one',
    needs=['own'],
)
def lifecycle(place: ProbeBucket) -> str:
    bucket = place.new_bucket()
    rule: dict[str, Any] = {'ID': 'uploads', 'Status': 'Enabled', 'Filter': {'Prefix': ''}}
    rule['AbortIncompleteMultipartUpload'] = {'DaysAfterInitiation': 7}

    def add(request: Any) -> None:
        request.headers['Content-MD5'] = md5(request.body)

    with place.before_signing('PutBucketLifecycleConfiguration', add):
        place.s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={'Rules': [rule]})
    (found,) = place.s3.get_bucket_lifecycle_configuration(Bucket=bucket)['Rules']
    return yes(found['AbortIncompleteMultipartUpload'] == {'DaysAfterInitiation': 7})


@behaviour(
    'Buckets',
    'CreateBucket of one that is there, by its owner',
    'taken for "it is there"; after BucketAlreadyExists only where the bucket is among one\'s own',
    needs=['own'],
)
def bucket_again(place: ProbeBucket) -> str:
    return said(lambda: place.s3.create_bucket(Bucket=place.bucket), '200')
