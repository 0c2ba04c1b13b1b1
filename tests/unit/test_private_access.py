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
"""What libraries keep to themselves is used in one module for each library, and nowhere else in lib.

ruff's SLF001 sees ``other._private``. The rest is here: imports of what is not documented, undocumented events of botocore,
private names in strings, and those that a class inherits.
"""

import ast
import inspect
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
LIB = ROOT / 'lib'
INTERNALS = {name: f'rucio/common/s3/{name}_internals.py' for name in ('botocore', 's3transfer', 'urllib3', 'rucio')}
ALLOWED = {*INTERNALS.values(), 'rucio_s3_seams.py'}  # docs/upstream.md has what is in the last
SOURCES = {str(path.relative_to(LIB)): path.read_text() for path in LIB.rglob('*.py')}
TREES = {name: ast.parse(text) for name, text in SOURCES.items() if name not in ALLOWED}

# What these libraries document, or keep for boto3 and the AWS CLI. None: all of a module.
PUBLIC = {
    'boto3': None,
    'botocore': {'UNSIGNED'},
    'botocore.awsrequest': {'AWSPreparedRequest', 'AWSRequest', 'AWSResponse'},
    'botocore.config': {'Config'},
    'botocore.credentials': {'Credentials', 'ReadOnlyCredentials'},
    'botocore.exceptions': None,
    'botocore.session': {'Session'},
    's3transfer.exceptions': None,
    's3transfer.futures': {'TransferFuture'},
    's3transfer.manager': {'TransferConfig', 'TransferManager'},
    's3transfer.subscribers': {'BaseSubscriber'},
    'urllib3.exceptions': None,
}
LIBRARIES = ('boto3', 'botocore', 's3transfer', 'urllib3')
# Of botocore's events, before-send is documented.
EVENTS = re.compile(
    r'(after-call|before-call|before-parameter-build|before-parse|before-sign|choose-signer|creating-|needs-retry|provide-client|request-created|response-received)'
)
# Public names of what Rucio sets at run time, and of entries of botocore's contexts.
KEPT = {
    'CLIENT_MODE',
    'RichUtils',
    'SERVER_MODE',
    'load_permission_for_vo',
    'permission_modules',
    'provide_transfer_size',
    'request_credentials',
    's3_redirect',
}
PRIVATE = re.compile(r'_[A-Za-z]\w*')


def undocumented(tree):
    """The names that are imported of a library without being public."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition('.')[0] in LIBRARIES:
            public = PUBLIC.get(node.module, set())
            yield from (f'{node.module}.{alias.name}' for alias in node.names if public is not None and alias.name not in public)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition('.')[0] in LIBRARIES and alias.name not in PUBLIC)


def in_strings(tree):
    """Undocumented events, and private names that are looked up as text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') in ('delattr', 'getattr', 'hasattr', 'setattr'):
            name = node.args[1]
            if isinstance(name, ast.Constant) and PRIVATE.fullmatch(name.value):
                yield name.value
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and EVENTS.match(node.value) and ' ' not in node.value:
            yield node.value


def kept(tree):
    """What libraries keep in places that are public, but nowhere documented."""
    for node in ast.walk(tree):
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, 'value', '') if isinstance(node, ast.Constant) else ''
        if isinstance(name, str) and name in KEPT | {'get_component', 'register_component'}:
            yield name


@pytest.mark.parametrize('find', [undocumented, in_strings, kept])
def test_nothing_of_it_is_elsewhere(find):
    assert {name: found for name, tree in TREES.items() if (found := list(find(tree)))} == {}


def test_each_module_of_internals_has_something_of_its_library():
    for library, name in INTERNALS.items():
        tree = ast.parse(SOURCES[name])
        assert [*undocumented(tree), *in_strings(tree), *kept(tree), *re.findall('SLF001|import_module', SOURCES[name])], library


def test_each_function_there_says_what_it_uses():
    """And for which versions it was tried; the test of the same name has a test for each."""
    for library, name in INTERNALS.items():
        tree, tests = ast.parse(SOURCES[name]), ROOT.joinpath('tests', 'unit', f'test_{library}_internals.py').read_text()
        assert re.search(r'Checked\s+with', ast.get_docstring(tree)), name
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith('_'):
                assert (ast.get_docstring(node) or '').count('\n\n') >= 1, f'{node.name} does not say what is private, and why it is used'
                assert re.search(rf'internals\.{node.name}\b', tests), f'{node.name} has no test'


def test_ruff_looks_for_private_access_everywhere_else():
    rules = tomllib.loads(ROOT.joinpath('pyproject.toml').read_text())['tool']['ruff']['lint']
    assert rules['select'] == ['ALL']
    assert not [rule for rule in rules['ignore'] if 'SLF001'.startswith(rule)]
    off = [files for files, ignored in rules['per-file-ignores'].items() if any('SLF001'.startswith(rule) for rule in ignored)]
    assert off == ['tests/**']
    assert [name for name, text in SOURCES.items() if 'noqa: SLF001' in text and name not in ALLOWED] == []
    assert not re.search(r'ruff: noqa(?!:)|flake8: noqa', ''.join(SOURCES.values()))


# Inherited


def bases_of(node, tree, package):
    """The classes of other projects that a class of this module inherits, as far as they can be imported."""
    imports = {}
    for each in ast.walk(tree):
        if isinstance(each, ast.ImportFrom) and each.module and not each.level:
            imports.update({alias.asname or alias.name: (each.module, alias.name) for alias in each.names})
    for base in node.bases:
        module, name = imports.get(ast.unparse(base).partition('[')[0], ('', ''))
        path = f'{module.replace(".", "/")}'
        if module and f'{path}.py' not in SOURCES and f'{path}/__init__.py' not in SOURCES:
            try:
                yield getattr(import_module(module), name)
            except ImportError:
                continue  # rucio-clients has no server


def private_names(kind):
    """What a class and those above it keep to themselves: in the class, and in its instances."""
    names = set()
    for each in kind.__mro__:
        if each.__module__ not in ('abc', 'builtins', 'enum', 'threading', 'typing'):
            names |= {name for name in vars(each) if PRIVATE.fullmatch(name)}
            names |= set(re.findall(r'(?:self|cls)\.(_[a-z]\w*)', inspect.getsource(each)))
    return {name for name in names if not name.startswith(f'_{kind.__name__}__')}


def inherited(tree):
    """Private names of the classes of others that classes of this module use, or define anew."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            theirs = {name for base in bases_of(node, tree, '') if inspect.isclass(base) for name in private_names(base)}
            own = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute) and ast.unparse(each.value) in ('self', 'cls', 'super()')}
            own |= {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
            own |= {target.id for each in node.body if isinstance(each, ast.Assign) for target in each.targets if isinstance(target, ast.Name)}
            yield from sorted(f'{node.name}.{name}' for name in own & theirs)


def test_no_class_uses_what_its_bases_keep_to_themselves():
    assert {name: found for name, tree in TREES.items() if (found := list(inherited(tree)))} == {}


@pytest.mark.parametrize(
    ('find', 'text', 'expected'),
    [
        (undocumented, 'from botocore.auth import S3SigV4Auth', ['botocore.auth.S3SigV4Auth']),
        (undocumented, 'from botocore import UNSIGNED\nimport botocore.hooks', ['botocore.hooks']),
        (in_strings, "client.meta.events.register('needs-retry.s3', f)", ['needs-retry.s3']),
        (in_strings, "client.meta.events.register('before-send.s3', f)", []),
        (in_strings, "getattr(raw, '_fp', None)", ['_fp']),
        (kept, "session.get_component('x')", ['get_component']),
        (kept, "getattr(rsemanager, 'CLIENT_MODE') or permission.permission_modules", ['permission_modules', 'CLIENT_MODE']),
        (inherited, 'from rucio.client.baseclient import BaseClient\nclass A(BaseClient):\n def f(self): self._send_request()', ['A._send_request']),
        (inherited, 'from rucio.rse.protocols.protocol import RSEProtocol\nclass A(RSEProtocol):\n def _get_path(self): pass', ['A._get_path']),
        (
            inherited,
            'from botocore.credentials import RefreshableCredentials as R\nclass A(R):\n _advisory_refresh_timeout = 1',
            ['A._advisory_refresh_timeout'],
        ),
        (inherited, 'from requests import Session\nclass A(Session):\n def _own(self): self._own()', []),
    ],
)
def test_they_are_found(find, text, expected):
    assert list(find(ast.parse(text))) == expected
