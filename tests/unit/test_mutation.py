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

"""The mutants that `make mutants` tries: what is changed, and what is not."""

import sys
from importlib import util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / 'dev' / 'mutation'


def load(name):
    spec = util.spec_from_file_location(f'mutation_{name}', FOLDER / f'{name}.py')
    module = sys.modules[spec.name] = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mutants, processes = load('mutants'), load('processes')


@pytest.mark.parametrize(
    ('source', 'expected'),
    [
        ('if a == b:\n    c()', {'if (a != b):\n    c()', 'if a == b:\n    pass'}),
        ('x = a and b', {'x = (a or b)', 'x = (a)', 'x = (b)'}),
        ('x = not a', {'x = (a)'}),
        ('if a:\n    raise E', {'if (not (a)):\n    raise E', 'if a:\n    pass'}),
        ('q = q.where(a < b)', {'q = q.where((a <= b))', 'q = q'}),
        ('q = and_(a, b)', {'q = and_(b)', 'q = and_(a)'}),
        ('def f():\n    return a, b', {'def f():\n    return b, a'}),
        ('def f():\n    return a', {'def f():\n    return None'}),
        ('x = [a for a in b if a]', {'x = [a for a in b if True]'}),
        ('LIMIT = 3', {'LIMIT = 300'}),
        ('limit = 3', {'limit = 4'}),
        ('limit = 30', {'limit = 3000'}),
        ('x = True', {'x = False'}),
        ("x = 'key'", {"x = 'XXkey'"}),
        ('x += 1', {'pass', 'x += 2'}),
        ('x.y = z', {'pass'}),
        ('for a in b:\n    continue', {'for a in b:\n    break'}),
        ("_LOGGER.warning('x: %s', 1)", set()),
        ('"""Text."""', set()),
        ("raise E('some words', f'{a}')", {'pass'}),
        ("if TYPE_CHECKING:\n    x = 'y'", set()),
        ("def f(a: 'X') -> 'Y':\n    ...", set()),
        ("__all__ = ['f']", set()),
        ('zip(a, b, strict=True)', {'pass'}),
        ('x = q.limit(1)', set()),
        ('x = q.limit(2)', {'x = q.limit(3)'}),
        ("x = any('é' in a for a in b)", {"x = all('é' in a for a in b)", "x = any(('é' not in a) for a in b)", "x = any('XXé' in a for a in b)"}),
    ],
)
def test_what_is_changed(tmp_path, source, expected):
    path = tmp_path / 'module.py'
    path.write_text(source, encoding='utf-8')
    found = [each for each in mutants.mutants_of(path, 'module.py') if mutants.is_valid(each)]
    assert {each.source for each in found} == expected


def test_the_lines_of_a_mutant_are_those_of_its_statement(tmp_path):
    path = tmp_path / 'module.py'
    path.write_text('def f():\n    return g(\n        1,\n        2 if a else 3,\n    )\n\n\nif (\n    a == 1\n):\n    b()\n')
    by_change = {each.changed: (each.start, each.end, each.function) for each in mutants.mutants_of(path, 'module.py')}
    assert by_change['-1,\n+2,'] == (2, 5, 'f')
    assert by_change['-a == 1\n+(a != 1)'] == (8, 10, '')
    assert by_change['-b()\n+pass'] == (11, 11, '')


def test_a_mutant_is_recognised_when_other_lines_have_moved(tmp_path):
    path = tmp_path / 'module.py'
    keys = set()
    for before in ('', '# more\n\n'):
        path.write_text(f'{before}def f():\n    return a + b\n')
        keys.add(tuple(each.key for each in mutants.mutants_of(path, 'module.py')))
    assert len(keys) == 1


@pytest.mark.parametrize(
    ('original', 'changed', 'expected'),
    [
        ('def f(a):\n    return lambda: a', 'def f(a):\n    return lambda: not a', True),
        ('def f(a, b):\n    return lambda: a or b', 'def f(a, b):\n    return lambda: a', False),
        ('class A:\n    def f(self):\n        super().f()', 'class A:\n    def f(self):\n        pass', False),
    ],
    ids=['the same variables', 'a variable less', 'no super'],
)
def test_functions_are_closures_over_the_same_variables_or_are_imported_anew(original, changed, expected):
    assert processes.are_exchangeable(original, changed) is expected
