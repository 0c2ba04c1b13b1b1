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

"""Which key is which name, and where each lies."""

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from hypothesis import given
from hypothesis import strategies as st

from rucio.common.exception import RSEFileNameNotSupported, RSEOperationNotSupported
from rucio.common.s3.endpoint import Endpoint
from rucio.common.types import InternalScope
from rucio.core.s3 import storages
from rucio.core.s3.subtrees import Subtree

SCOPE = InternalScope('user.alice')


@pytest.fixture
def storage(rse):
    """Call it for a storage; arguments are those of `rse`."""

    def make(**arguments):
        settings = rse(**arguments)
        return storages.Storage('X', 'abc123', 'def', Endpoint('X', 'abc123', 'https://s3.example.org:9000'), settings, settings['protocols'][0])

    return make


def test_the_whole_bucket(storage):
    subtree = Subtree.of(storage(), SCOPE)
    assert (subtree.bucket, subtree.key_prefix, subtree.name_prefix, subtree.is_whole) == ('user.alice', '', '', True)
    assert subtree.name_of('run1/file') == subtree.key_of('run1/file') == 'run1/file'
    assert subtree.path_of('run1/file') is None


def test_a_collection(storage):
    subtree = Subtree.of(storage(), SCOPE, 'run1/sub')
    assert (subtree.bucket, subtree.key_prefix, subtree.name_prefix, subtree.is_whole) == ('user.alice', 'run1/sub/', 'run1/sub/', False)
    assert subtree.name_of('run1/sub/file') == subtree.key_of('run1/sub/file') == 'run1/sub/file'
    assert str(subtree.target('run1/sub/file')) == "bucket 'user.alice', key 'run1/sub/file'"


def test_one_bucket_for_all_scopes(storage):
    subtree = Subtree.of(storage(prefix='/shared/rucio/'), SCOPE, 'run1')
    assert (subtree.bucket, subtree.key_prefix, subtree.name_prefix) == ('shared', 'rucio/user.alice/run1/', 'run1/')
    assert subtree.name_of('rucio/user.alice/run1/file') == 'run1/file'
    assert subtree.key_of('run1/file') == 'rucio/user.alice/run1/file'
    assert Subtree.of(storage(prefix='/shared/rucio/'), SCOPE).key_prefix == 'rucio/user.alice/'


def test_an_algorithm_that_scatters_names(storage):
    with pytest.raises(RSEOperationNotSupported, match="'hash' has no common prefix"):
        Subtree.of(storage(lfn2pfn_algorithm='hash'), SCOPE)


@pytest.mark.parametrize('folder', ['scenes', 'scenes/'])
def test_an_import(storage, folder):
    subtree = Subtree.imported(storage(deterministic=False), SCOPE, 'landsat', 'usgs-landsat', folder)
    assert (subtree.key_prefix, subtree.name_prefix, subtree.dataset, subtree.is_whole) == ('scenes/', 'landsat/', 'landsat', True)
    assert subtree.name_of('scenes/a/b') == 'landsat/a/b'
    assert subtree.key_of('landsat/a/b') == 'scenes/a/b'
    assert subtree.path_of('scenes/a b') == '/usgs-landsat/scenes/a%20b'


def test_an_import_below_a_prefix(storage):
    below = storage(deterministic=False, prefix='/usgs-landsat/')
    assert Subtree.imported(below, SCOPE, 'landsat', 'usgs-landsat', '').path_of('a/b') == '/a/b'
    with pytest.raises(RSEFileNameNotSupported, match="bucket 'other'"):
        Subtree.imported(below, SCOPE, 'landsat', 'other', '')


def test_no_import_into_a_deterministic_rse(storage):
    with pytest.raises(RSEOperationNotSupported, match='RSE X is deterministic'):
        Subtree.imported(storage(), SCOPE, 'landsat', 'usgs-landsat', '')


@given(st.lists(st.text(st.characters(exclude_categories=['Cs']))))
def test_order_is_that_of_bytes(texts):
    """Strings are compared where S3 compares bytes."""
    assert sorted(texts) == sorted(texts, key=str.encode)
