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
from hypothesis import given
from hypothesis import strategies as st

from rucio.client.s3files import Filter
from rucio.common.exception import InputValidationError


@pytest.mark.parametrize(
    ('pattern', 'taken', 'left'),
    [
        ('*.root', ['a.root', 'sub/a.root'], ['a.root.txt', 'a.root/b']),
        ('/*.root', ['a.root'], ['sub/a.root']),
        ('sub/*', ['sub/a', 'x/sub/a'], ['sub/a/b', 'xsub/a']),
        ('sub/**', ['sub/a', 'sub/a/b'], ['sub']),
        ('sub/', ['sub/a', 'x/sub/a/b'], ['sub', 'xsub/a']),
        ('/sub/', ['sub/a'], ['x/sub/a']),
        ('a?c', ['abc', 'x/abc'], ['a/c', 'ac', 'xabc']),
        ('[ab].x', ['a.x'], ['c.x']),
        ('[!ab].x', ['c.x'], ['a.x', '/.x']),
        ('[0-9]', ['5'], ['a']),
        ('a+(b)', ['a+(b)'], ['aab']),
        ('[', ['['], ['a']),
        ('[^a]', ['^', 'a'], ['b']),
        ('[]]', [']'], ['a']),
        ('[\\d]', ['\\', 'd'], ['1']),
    ],
)
def test_patterns(pattern, taken, left):
    for path in taken + left:
        assert Filter(include=[pattern]).takes(path) == (path in taken), path
        assert Filter(exclude=[pattern]).takes(path) == (path in left), path


def test_one_include_is_enough_and_an_exclude_wins():
    chosen = Filter(['*.root', '*.txt'], ['/tmp/'])
    assert [path for path in ('a.root', 'b.txt', 'c.dat', 'tmp/a.root') if chosen.takes(path)] == ['a.root', 'b.txt']
    assert Filter().takes('anything')
    assert Filter().is_open


@given(st.text(max_size=8), st.text(max_size=8))
def test_a_pattern_is_valid_or_refused(pattern, path):
    try:
        Filter([pattern]).takes(path)
    except InputValidationError:
        assert '[' in pattern
