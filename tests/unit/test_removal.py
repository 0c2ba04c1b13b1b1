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

"""Removing what is in a bucket: where it ends."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.exception import ServiceUnavailable, UnsupportedOperation
from rucio.core.s3.buckets import removal
from rucio.core.s3.subtrees import Subtree


@pytest.fixture
def empty(monkeypatch):
    """Empty a bucket that answers each listing with the next of these lists."""
    deleted, refused = [], ['refused']
    monkeypatch.setattr(removal, 'db_session', lambda _: nullcontext())
    for name in ('_abort_uploads', '_mark'):
        monkeypatch.setattr(removal, name, lambda *_: None)
    monkeypatch.setattr(
        removal, '_delete_objects', lambda _, keys: deleted.append(keys) or {each: ServiceUnavailable(each) for each in keys if each in refused}
    )
    monkeypatch.setattr(removal, '_delete_replicas', lambda *_: 0)

    def run(*listings):
        answers = iter(listings)
        monkeypatch.setattr(removal, '_first_keys', lambda _: next(answers))
        subtree = Subtree(SimpleNamespace(rse='SITE_S3'), 'user.alice', 'user.alice', '', '')
        return removal._empty(subtree), deleted

    return run


def test_a_key_that_the_storage_refuses_stops_no_other_and_is_named(empty):
    with pytest.raises(ServiceUnavailable, match='refused'):
        empty(['a', 'refused'], ['b', 'refused'], ['refused'])


def test_until_nothing_is_listed(empty):
    assert empty(['a', 'b'], ['b', 'c'], []) == ((4, 0, True), [['a', 'b'], ['b', 'c']])


@pytest.mark.parametrize('last', [['b'], ['c', 'b'], ['b', 'b']])
def test_keys_that_cannot_be_deleted(empty, last):
    """Ceph RGW 16 lists a key for ever that was once written with ?versionId=: deleting it again and again would never end."""
    with pytest.raises(UnsupportedOperation) as refused:
        empty(['a', 'b', 'c'], last)
    assert f"still lists '{last[0]}' in bucket 'user.alice'" in str(refused.value)


class Uploads:
    """A storage with so many unfinished uploads, which lists two at once, and some without a key or an id."""

    exceptions = SimpleNamespace(NoSuchUpload=KeyError)

    def __init__(self, count, more=()):
        self.listed = [{'Key': f'run1/{number}', 'UploadId': 'u'} for number in range(count)] + list(more)
        self.requests = 0

    def list_multipart_uploads(self, Bucket, Prefix, KeyMarker='', UploadIdMarker=''):  # noqa: N803 - boto3's names
        assert (Bucket, Prefix) == ('user.alice', 'run1/')
        self.requests += 1
        start = int(UploadIdMarker or 0)
        return {
            'Uploads': self.listed[start : start + 2],
            'IsTruncated': start + 2 < len(self.listed),
            'NextKeyMarker': 'k',
            'NextUploadIdMarker': str(start + 2),
        }


def test_all_unfinished_uploads_are_aborted_however_many():
    subtree = Subtree(SimpleNamespace(rse='SITE_S3'), 'user.alice', 'user.alice', 'run1/', 'run1/')
    storage = Uploads(5, [{'Key': 'run1/x'}, {'UploadId': 'u'}, {'Key': 'run2/x', 'UploadId': 'u'}])
    assert list(removal._uploads(storage, subtree)) == [(f'run1/{number}', 'u') for number in range(5)]
    assert storage.requests == 4


def test_a_storage_that_lists_the_same_uploads_for_ever():
    storage = Uploads(5)
    storage.list_multipart_uploads = lambda **_: {'Uploads': [{'Key': 'run1/a', 'UploadId': 'u'}], 'IsTruncated': True, 'NextKeyMarker': 'k'}
    subtree = Subtree(SimpleNamespace(rse='SITE_S3'), 'user.alice', 'user.alice', 'run1/', 'run1/')
    assert list(removal._uploads(storage, subtree)) == [('run1/a', 'u')] * 2
