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

import pytest

from rucio.client.s3files.deletion import Deletion
from rucio.common.exception import DataIdentifierNotFound, InputValidationError
from rucio.common.s3 import clients, credentials

SCOPE = 'user.alice'


class Catalogue:
    def __init__(self):
        self.dids = {'run': 'DATASET', 'run/a': 'FILE', 'run/sub/b': 'FILE', 'runner': 'FILE'}

    def get_did(self, scope, name):
        if name not in self.dids:
            raise DataIdentifierNotFound
        return {'type': self.dids[name]}

    def list_dids(self, scope, filters, did_type):
        assert did_type == 'file'
        return (name for name, kind in self.dids.items() if kind == 'FILE' and name.startswith(filters[0]['name'].removesuffix('*')))


class Server:
    """The Rucio server, and a bucket of X that has run/, and something else in its folder."""

    def __init__(self, s3, base=''):
        self.base, self.client = base, s3
        self.asked = []

    def best_place(self, scope, name, rse):
        self.asked.append((name, rse))
        return {'rse': 'X', 'bucket': scope, 'key': self.base + name}

    def bucket_client(self, rse, bucket, prefix):
        assert (rse, bucket, prefix[: len(self.base)]) == ('X', SCOPE, self.base)
        return self.client

    def remove_files(self, scope, names, rse):
        self.asked.append((scope, names, rse))
        return {'rse': 'X', 'bucket': scope, 'removed': len(names), 'kept': []}


@pytest.fixture
def server(s3, endpoint):
    for name in ('run/a', 'run/new', 'run/sub/', 'run/sub/tmp.x', 'running'):
        s3.store(SCOPE, f'base/{name}', b'1')
    s3.store(SCOPE, 'other/run/a', b'1')
    return Server(clients.connect(endpoint(), credentials.Static('AKIDOFTHETESTS', 'secret')).client, 'base/')


def find(server, *names, **options):
    return Deletion(Catalogue(), server, [(SCOPE, name) for name in names], **options).names[SCOPE]


def test_which_files_are_meant(server):
    assert find(server, 'run/a', 'not/registered') == ['run/a', 'not/registered']
    assert find(server, 'run/sub', recursive=True) == ['run/sub/b', 'run/sub/tmp.x']
    assert find(server, 'run*') == ['run/a', 'run/sub/b', 'runner', 'run/new', 'run/sub/tmp.x', 'running']
    assert find(server, '*.x') == ['run/sub/tmp.x']


def test_objects_that_are_not_in_the_catalogue_are_deleted_or_named(server):
    deletion = Deletion(Catalogue(), server, [(SCOPE, 'run')], recursive=True)
    assert deletion.names[SCOPE] == ['run/a', 'run/sub/b', 'run/new', 'run/sub/tmp.x']
    assert deletion.unregistered == {(SCOPE, 'run/new'), (SCOPE, 'run/sub/tmp.x')}
    (answer,) = deletion.run()
    assert server.asked == [('run/a', None), (SCOPE, deletion.names[SCOPE], 'X')]  # the RSE that was listed
    assert [each['name'] for each in answer['kept']] == ['run/sub/']  # Rucio would take it for run/sub


@pytest.mark.parametrize(('name', 'told'), [('run', 'a collection of 2 files'), ('run/sub', 'a folder of 1 file:'), ('nothing*', 'matches no file')])
def test_what_needs_another_word_is_refused(server, name, told):
    with pytest.raises(InputValidationError, match=told):
        find(server, 'run/a', name)


def test_each_scope_is_a_request(server):
    deletion = Deletion(Catalogue(), server, [(SCOPE, 'run/a'), ('user.bob', 'run/a'), (SCOPE, 'runner')], 'X')
    deletion.run()

    assert server.asked == [(SCOPE, ['run/a', 'runner'], 'X'), ('user.bob', ['run/a'], 'X')]
    assert deletion.number == 3
