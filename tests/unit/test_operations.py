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

"""The S3 operations that are signed and served: no other one, and none with another parameter."""

import pytest

from rucio.common.s3.operations import OPERATIONS, find

# https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html: what a request needs, and what it may have.
LISTING = 'prefix delimiter max-keys encoding-type'
ALLOWED = [
    ('HeadObject', 'HEAD', 'key', False, '', 'partNumber'),
    ('GetObject', 'GET', 'key', False, '', 'partNumber'),
    ('PutObject', 'PUT', 'key', True, '', ''),
    ('CopyObject', 'PUT', 'key', True, '', ''),
    ('DeleteObject', 'DELETE', 'key', True, '', ''),
    ('CreateMultipartUpload', 'POST', 'key', True, 'uploads', ''),
    ('UploadPart', 'PUT', 'key', True, 'partNumber uploadId', ''),
    ('UploadPartCopy', 'PUT', 'key', True, 'partNumber uploadId', ''),
    ('CompleteMultipartUpload', 'POST', 'key', True, 'uploadId', ''),
    ('AbortMultipartUpload', 'DELETE', 'key', True, 'uploadId', ''),
    ('ListParts', 'GET', 'key', True, 'uploadId', 'max-parts part-number-marker encoding-type'),  # of uploads only who writes has to know
    ('HeadBucket', 'HEAD', 'bucket', False, '', ''),
    ('GetBucketLocation', 'GET', 'bucket', False, 'location', ''),
    ('ListObjectsV2', 'GET', 'bucket', False, 'list-type', f'{LISTING} continuation-token start-after fetch-owner'),
    ('ListObjects', 'GET', 'bucket', False, '', f'{LISTING} marker'),
    ('ListMultipartUploads', 'GET', 'bucket', True, 'uploads', 'prefix delimiter max-uploads encoding-type key-marker upload-id-marker'),
    ('DeleteObjects', 'POST', 'bucket', True, 'delete', ''),
]
COPIES = ('CopyObject', 'UploadPartCopy')


@pytest.mark.parametrize(('name', 'method', 'on', 'write', 'needs', 'may'), ALLOWED, ids=[each[0] for each in ALLOWED])
def test_an_operation_is_known_by_its_request(name, method, on, write, needs, may):
    copies = name in COPIES
    for query in (needs.split(), [*needs.split(), *may.split()]):
        found = find(method, on, query, copies)
        assert (found.name, found.write, found.copies) == (name, write, copies)
    assert find(method, on, [*needs.split(), 'versionId'], copies) is None
    for field in needs.split():
        without = find(method, on, [each for each in needs.split() if each != field], copies)
        assert without is None or without.name != name


@pytest.mark.parametrize(
    ('method', 'on', 'query', 'copies'),
    [
        ('POST', 'key', (), False),
        ('PUT', 'bucket', (), False),  # CreateBucket
        ('DELETE', 'bucket', (), False),
        ('GET', 'key', ('acl',), False),
        ('PUT', 'key', ('tagging',), False),
        ('PUT', 'key', ('uploadId',), False),
        ('GET', 'bucket', ('policy',), False),
        ('POST', 'key', ('select', 'select-type'), False),
        ('GET', 'key', (), True),
        ('DELETE', 'key', (), True),
        ('PATCH', 'key', (), False),
    ],
)
def test_no_other_request_is_an_operation(method, on, query, copies):
    assert find(method, on, query, copies) is None


def test_there_are_no_other_operations():
    assert [each.name for each in OPERATIONS] == [each[0] for each in ALLOWED]
