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

"""Where the DIDs of an RSE are; with Rucio's own algorithms: test_core_storages.py."""

import pytest

from rucio.common.exception import RSEFileNameNotSupported
from rucio.common.s3.layout import Layout, speaks_s3


def layout(prefix='/', algorithm='s3_bucket', deterministic=True, bucket_prefix=''):
    return Layout('X', prefix, bucket_prefix, algorithm, deterministic, lambda lfn: {'': f'https://h/{lfn["scope"]}/{lfn["name"]}'})


@pytest.mark.parametrize(
    ('prefix', 'bucket', 'key', 'path'),
    [
        ('/', 'b', 'k', '/b/k'),
        ('', 'b', 'a b%', '/b/a%20b%25'),
        ('/b/', 'b', 'k', '/k'),
        ('/b/folder/', 'b', 'folder/k', '/k'),
        ('/b/folder', 'b', 'folder/a/k', '/a/k'),
        ('/b/a%20b/', 'b', 'a b/k', '/k'),
    ],
)
def test_a_replica_has_a_path_below_the_prefix(prefix, bucket, key, path):
    assert layout(prefix, deterministic=False).path_of(bucket, key) == path


@pytest.mark.parametrize(
    ('prefix', 'bucket', 'key'), [('/b/', 'c', 'k'), ('/b/', 'bc', 'k'), ('/b/folder/', 'b', 'folders/k'), ('/b/folder/', 'b', 'folder'), ('/b/x', 'b', 'k')]
)
def test_an_object_beside_the_prefix_has_no_path(prefix, bucket, key):
    with pytest.raises(RSEFileNameNotSupported, match=f"RSE X: bucket '{bucket}', key '{key}' is not below the protocol's prefix '{prefix.rstrip('/')}/'"):
        layout(prefix, deterministic=False).path_of(bucket, key)


@pytest.mark.parametrize(
    ('of', 'bucket', 'key', 'dids'),
    [
        (layout(), 'user.alice', 'run/f', [('user.alice', 'run/f')]),
        (layout(), 'user.alice', 'run/', [('user.alice', 'run/')]),
        (layout(), 'user.alice', '', [('user.alice', '')]),
        (layout(deterministic=False), 'user.alice', 'run/f', []),
        (layout(algorithm='mine'), 'user.alice', 'run/f', []),
        (layout(algorithm=None), 'user.alice', 'run/f', []),
        (layout('/common/'), 'user.alice', 'run/f', []),
        (layout(bucket_prefix='vo-'), 'user.alice', 'run/f', []),
    ],
)
def test_whose_a_key_is(of, bucket, key, dids):
    assert of.dids_of(bucket, key) == dids


@pytest.mark.parametrize(
    ('of', 'bucket', 'may'),
    [
        (layout('/common/a/'), 'common', True),
        (layout('/common/a/'), 'common2', False),
        (layout(), 'anything', True),
        (layout(bucket_prefix='vo-'), 'vo-x', True),
        (layout(bucket_prefix='vo-'), 'x-vo-', False),
    ],
)
def test_which_buckets_may_be_its_own(of, bucket, may):
    assert of.may_have(bucket) is may


@pytest.mark.parametrize(
    ('of', 'apart', 'together'),
    [
        (layout(), True, True),
        (layout('/common/'), False, True),
        (layout(deterministic=False), False, False),
        (layout(algorithm='identity'), False, True),
        (layout(algorithm='hash'), False, False),
    ],
)
def test_what_an_algorithm_means(of, apart, together):
    assert (of.has_bucket_for_each_scope, of.keeps_together) == (apart, together)


@pytest.mark.parametrize(
    ('impl', 'does'), [('rucio.rse.protocols.s3.Default', True), ('rucio.rse.protocols.s3boto.Default', False), ('x.rucio.rse.protocols.s3.Default', False)]
)
def test_which_entries_are_of_this_project(impl, does):
    assert speaks_s3({'impl': impl}) is does
