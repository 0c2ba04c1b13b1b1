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


def find(*names, **options):
    return Deletion(Catalogue(), [(SCOPE, name) for name in names], **options).names[SCOPE]


def test_which_files_are_meant():
    assert find('run/a', 'not/registered') == ['run/a', 'not/registered']
    assert find('run', recursive=True) == ['run/a', 'run/sub/b']
    assert find('run/sub', recursive=True) == ['run/sub/b']
    assert find('run*') == ['run/a', 'run/sub/b', 'runner']


@pytest.mark.parametrize(('name', 'told'), [('run', 'a collection of 2 files'), ('run/sub', 'a folder of 1 files'), ('nothing*', 'matches no file')])
def test_what_needs_another_word_is_refused(name, told):
    with pytest.raises(InputValidationError, match=told):
        find('run/a', name)


def test_each_scope_is_a_request():
    asked = []
    deletion = Deletion(Catalogue(), [(SCOPE, 'run/a'), ('user.bob', 'run/a'), (SCOPE, 'runner')])

    class Server:
        def remove_files(self, *arguments):
            asked.append(arguments)

    deletion.run(Server(), 'X')

    assert asked == [(SCOPE, ['run/a', 'runner'], 'X'), ('user.bob', ['run/a'], 'X')]
    assert deletion.number == 3
