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

"""Public functions of lib document their parameters, and what they raise."""

import ast
from pathlib import Path

import pytest

LIB = Path(__file__).parents[2] / 'lib'
# Of trials in client/s3check, click's commands and callbacks: the same in each of them.
SELF_EXPLANATORY = {'self', 'cls', 'subject', 'ctx', '_'}
# Explained once: in rucio/core/s3/__init__.py for the server and its daemons, and in rucio/gateway/s3.py.
SERVER = {'storage', 'account', 'issuer', 'vo', 'scope', 'name', 'rse', 'bucket', 'key', 'prefix', 'subtree', 'write', 'session'}
COMMON = {'core': SERVER, 'daemons': SERVER, 'gateway': {'asked', 'issuer', 'vo'}}
FILES = sorted(LIB.rglob('*.py'))


def public_names(module):
    """What is in ``__all__``; without it, what does not begin with an underscore."""
    for node in module.body:
        if isinstance(node, ast.Assign) and any(isinstance(each, ast.Name) and each.id == '__all__' for each in node.targets):
            return set(ast.literal_eval(node.value))
    return {node.name for node in module.body if hasattr(node, 'name') and not node.name.startswith('_')}


def public_functions(module):
    """Public functions, and the public methods of public classes. Commands have their parameters in click's options, overrides
    where the method was defined first."""
    public = public_names(module)
    for node in module.body:
        if getattr(node, 'name', None) not in public:
            continue
        for each in node.body if isinstance(node, ast.ClassDef) else [node]:
            decorators = {ast.unparse(decorator) for decorator in getattr(each, 'decorator_list', ())}
            is_documented_elsewhere = any(
                name.startswith('behaviour(') or 'command(' in name or 'group(' in name or name.endswith('.setter') or name == 'override' for name in decorators
            )
            if isinstance(each, ast.FunctionDef) and not each.name.startswith('_') and not is_documented_elsewhere:
                yield each


def parameters(function):
    given = function.args
    extra = [each for each in (given.vararg, given.kwarg) if each]
    return {each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs, *extra)} - SELF_EXPLANATORY


def documented(docstring):
    """The names in ``:param name:`` and, as Rucio's clients have it, in lines of numpydoc: ``name, name :``."""
    named = set()
    for line in docstring.splitlines():
        if line.lstrip().startswith(':param '):
            named.add(line.split(':')[1].removeprefix('param ').strip('* '))
        elif line.endswith(' :'):
            named |= {name.strip() for name in line[:-2].split(',')}
    return named


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.relative_to(LIB).as_posix())
def test_public_functions_document_their_parameters(path):
    common = next((COMMON[part] for part in path.parts if part in COMMON), set())
    missing = {
        f'{function.name}: {", ".join(sorted(lacking))}'
        for function in public_functions(ast.parse(path.read_text()))
        if (lacking := parameters(function) - documented(ast.get_docstring(function) or '') - common)
    }
    assert not missing


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.relative_to(LIB).as_posix())
def test_every_documented_parameter_exists(path):
    """It may have been renamed."""
    wrong = {
        f'{function.name}: {", ".join(sorted(unknown))}'
        for function in public_functions(ast.parse(path.read_text()))
        if (unknown := documented(ast.get_docstring(function) or '') - parameters(function) - SELF_EXPLANATORY)
    }
    assert not wrong


def raised(function):
    """The exceptions that a function raises in its own body: ``raise Name(...)``. A bare ``raise`` is somebody else's."""
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name) and node.exc.func.id[0].isupper():
            yield node.exc.func.id


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.relative_to(LIB).as_posix())
def test_public_functions_document_what_they_raise(path):
    missing = {
        f'{function.name}: {name}'
        for function in public_functions(ast.parse(path.read_text()))
        for name in raised(function)
        if name not in (ast.get_docstring(function) or '')
    }
    assert not missing
