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

"""Archived objects: seen in listings, never read, and told as what they are."""

import pytest
from botocore.exceptions import ClientError

from rucio.common.exception import ResourceTemporaryUnavailable
from rucio.common.s3 import archives, clients, credentials, objects, transfer
from rucio.common.s3.errors import Target, status_of
from servers.fake_s3 import RESTORED, RESTORING, error

BUCKET = 'user.alice'
PLACE, FILE = Target('X', BUCKET), Target('X', BUCKET, 'file')
GLACIER = {'storage_class': 'GLACIER', 'etag': 'a-2'}


@pytest.fixture
def connection(endpoint):
    return clients.connect(endpoint(), credentials.Static('KEY', 'hidden-key'))


@pytest.mark.parametrize(
    ('answer', 'found'),
    [
        ({}, ''),
        ({'StorageClass': 'STANDARD_IA'}, ''),
        ({'StorageClass': 'GLACIER_IR'}, ''),
        ({'StorageClass': 'GLACIER'}, 'GLACIER'),
        ({'StorageClass': 'DEEP_ARCHIVE', 'Restore': RESTORING}, 'DEEP_ARCHIVE'),
        ({'StorageClass': 'DEEP_ARCHIVE', 'Restore': RESTORED}, ''),
        ({'StorageClass': 'INTELLIGENT_TIERING'}, ''),
        ({'StorageClass': 'INTELLIGENT_TIERING', 'ArchiveStatus': 'ARCHIVE_ACCESS'}, 'ARCHIVE_ACCESS'),
    ],
)
def test_what_a_head_says(answer, found):
    assert archives.class_of(answer) == found


@pytest.mark.parametrize(('restored', 'message'), [('', 'restore it first'), (RESTORING, 'is being restored')])
@pytest.mark.parametrize('size', [5, 20 * 1024**2], ids=['whole', 'ranges'])
def test_a_download_says_what_to_do(s3, connection, tmp_path, restored, message, size):
    """It was: `not allowed to do this`."""
    s3.store(BUCKET, 'file', bytes(size), restored=restored, **GLACIER)
    with pytest.raises(ResourceTemporaryUnavailable, match=message):
        transfer.download(connection, FILE, str(tmp_path / 'file'))
    assert not (tmp_path / 'file').exists()
    assert not list(tmp_path.glob('.rucio-s3-*'))
    s3.store(BUCKET, 'file', bytes(size), restored=RESTORED, **GLACIER)
    assert transfer.download(connection, FILE, str(tmp_path / 'file')) == size


@pytest.mark.parametrize(('restored', 'message'), [('', 'restore it first'), (RESTORING, 'is being restored')])
def test_a_copy_says_what_to_do(s3, connection, restored, message):
    s3.store(BUCKET, 'file', b'12345', restored=restored, **GLACIER)
    with pytest.raises(ResourceTemporaryUnavailable, match=message):
        transfer.copy(connection, FILE, FILE._replace(key='copy'))
    assert set(s3.buckets[BUCKET]) == {'file'}


def test_an_archived_object_exists_for_who_has_only_a_signed_url(s3, endpoint):
    """Its GET is refused, but not as to somebody who may not know."""
    s3.store(BUCKET, 'file', b'12345', **GLACIER)
    signed = clients.connect(endpoint(), None)
    signed.authorizer.offer('read', FILE, f'{s3.url}/{BUCKET}/file?X-Amz-Signature=1')
    assert objects.exists(signed, FILE)
    s3.fail('GetObject', error(403, 'AccessDenied'))
    with pytest.raises(Exception, match='AccessDenied'):
        objects.exists(signed, FILE)


def test_a_listing_knows_what_was_restored(s3, connection):
    s3.store(BUCKET, 'a', b'1')
    s3.store(BUCKET, 'b', b'1', **GLACIER)
    s3.store(BUCKET, 'c', b'1', restored=RESTORED, **GLACIER)
    s3.store(BUCKET, 'd', b'1', restored=RESTORING, **GLACIER)
    s3.page = 3
    assert [each.archive for each in objects.list_objects(connection.client, PLACE)] == ['', 'GLACIER', '', 'GLACIER']
    assert s3.operations() == ['ListObjectsV2'] * 3  # the first page twice


def test_without_archived_objects_nothing_more_is_asked(s3, connection):
    s3.store(BUCKET, 'a', b'1', storage_class='STANDARD_IA')
    assert [each.archive for each in objects.list_objects(connection.client, PLACE)] == ['']
    assert [request.headers.get('x-amz-optional-object-attributes') for request in s3.requests] == [None]


def test_a_storage_that_does_not_know_restores(s3, connection, monkeypatch):
    """The listing goes on as without."""
    serve = s3.ListObjectsV2
    s3.ListObjectsV2 = lambda request: error(501, 'NotImplemented') if 'x-amz-optional-object-attributes' in request.headers else serve(request)
    for name in 'abc':
        s3.store(BUCKET, name, b'1', restored=RESTORED, **GLACIER)
    s3.page = 2
    assert [each.archive for each in objects.list_objects(connection.client, PLACE)] == ['GLACIER'] * 3
    assert s3.operations() == ['ListObjectsV2'] * 3


@pytest.mark.parametrize(
    ('entry', 'found'),
    [
        ({}, ''),
        ({'StorageClass': 'STANDARD'}, ''),
        ({'StorageClass': 'GLACIER_IR'}, ''),
        ({'StorageClass': 'GLACIER'}, 'GLACIER'),
        ({'StorageClass': 'DEEP_ARCHIVE', 'RestoreStatus': None}, 'DEEP_ARCHIVE'),
        ({'StorageClass': 'GLACIER', 'RestoreStatus': {'IsRestoreInProgress': True}}, 'GLACIER'),
        ({'StorageClass': 'GLACIER', 'RestoreStatus': {'IsRestoreInProgress': False, 'RestoreExpiryDate': 'a day'}}, ''),
    ],
)
def test_what_a_listing_says(entry, found):
    assert archives.listed_class(entry) == found


@pytest.mark.parametrize(('answer', 'restoring'), [({}, False), ({'Restore': RESTORING}, True), ({'Restore': RESTORED}, False)])
def test_an_object_is_being_restored(answer, restoring):
    assert archives.is_being_restored(answer) is restoring


@pytest.mark.parametrize(
    ('refusal', 'is_one'),
    [
        *[(ClientError({'Error': {'Code': code}}, 'X'), True) for code in ('InvalidObjectState', 'ObjectNotInActiveTierError', 'RestoreAlreadyInProgress')],
        (ClientError({'Error': {'Code': 'AccessDenied'}}, 'X'), False),
        (ClientError({'Error': {}}, 'X'), False),
        (ClientError({}, 'X'), False),
        (ValueError('InvalidObjectState'), False),
        (None, False),
    ],
)
def test_a_read_was_refused_as_the_object_is_archived(refusal, is_one):
    assert archives.is_refusal(refusal) is is_one


def test_an_object_that_is_being_restored_is_refused_as_by_the_storage():
    refused = archives.restoring()
    assert (status_of(refused), refused.operation_name, archives.is_refusal(refused)) == (409, 'GetObject', True)
    assert 'found by a HEAD' in str(refused)
