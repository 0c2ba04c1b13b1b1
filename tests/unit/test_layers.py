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
"""Imports go one way, as docs/design.md has it, and never in a circle. Read from the source, imports in functions included."""

import ast
from pathlib import Path

import pytest

LIB = Path(__file__).parents[2] / 'lib'
# From the top down: each room imports only from rooms below it, and from itself.
ROOMS = (
    'rucio_s3_plugin',
    'rucio_s3_seams',
    'rucio_s3_database',
    'rucio.daemons',
    'rucio.cli',
    'rucio.web',
    'rucio.gateway',
    'rucio.core.s3.transfers',
    'rucio.core.s3.events',
    'rucio.core.s3.reconciler',
    'rucio.core.s3.catalogue',
    'rucio.core.s3.buckets',
    'rucio.core.s3.auth',
    'rucio.core.s3',
    'rucio.transfertool',
    'rucio.client',
    'rucio.rse',
    'rucio.db',
    'rucio_s3_policy',
    'rucio.common',
)
# The two sides meet by REST alone.
CLIENTS = ('rucio.cli', 'rucio.client')
SERVERS = ('rucio.web', 'rucio.gateway', 'rucio.core', 'rucio.db', 'rucio.daemons')
# What these import from above, when they are called, and why.
UPWARDS = {
    ('rucio.rse.protocols.s3', 'rucio.client.s3client'): "as Rucio's own protocols reach the Rucio server",
    ('rucio.cli.s3.serve', 'rucio_s3_plugin'): 'the same',
    ('rucio.cli.s3.presign', 'rucio_s3_plugin'): 'the same',
    ('rucio.cli.s3.access', 'rucio_s3_plugin'): 'what the mode of the output was before anything else ran',
}


def name_of(path):
    parts = path.relative_to(LIB).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {name_of(path): path for path in LIB.rglob('*.py')}


def is_for_types(node):
    return isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test)


def imported(node, package):
    """The names that a node imports, as far as they are modules of ours."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom):
            base = package.split('.')[: len(package.split('.')) - child.level + 1] if child.level else []
            module = '.'.join([*base, *([child.module] if child.module else [])])
            for alias in child.names:
                yield next((each for each in (f'{module}.{alias.name}', module) if each in MODULES), None)
        elif isinstance(child, ast.Import):
            yield from (alias.name if alias.name in MODULES else None for alias in child.names)
        elif not is_for_types(child):
            yield from imported(child, package)


IMPORTS = {
    name: {each for each in imported(ast.parse(path.read_text()), name if path.stem == '__init__' else name.rpartition('.')[0]) if each} - {name}
    for name, path in MODULES.items()
}


def room_of(module):
    return max((room for room in ROOMS if f'{module}.'.startswith(f'{room}.')), key=len)


def circles():
    """Modules that import themselves by way of others."""
    left = {name: others - {other for module, other in UPWARDS if module == name} for name, others in IMPORTS.items()}
    while free := [name for name, others in left.items() if not others & set(left)]:
        for name in free:
            del left[name]
    return left


def test_the_whole_house_is_read():
    assert len(MODULES) > 100
    assert sum(len(others) for others in IMPORTS.values()) > 300


@pytest.mark.parametrize('module', sorted(MODULES))
def test_imports_go_down(module):
    for other in IMPORTS[module]:
        up = ROOMS.index(room_of(module)) > ROOMS.index(room_of(other))
        assert not up or (module, other) in UPWARDS, f'{module} imports {other}, which docs/design.md has above it'


def test_clients_and_servers_meet_by_rest_alone():
    for module, others in IMPORTS.items():
        for other in others:
            assert not (module.startswith(CLIENTS) and other.startswith(SERVERS)), f'{module} imports {other}'
            assert not (module.startswith(SERVERS) and other.startswith(CLIENTS)), f'{module} imports {other}'


def test_no_circle():
    assert not circles()


def test_each_exception_is_one():
    for module, other in UPWARDS:
        assert other in IMPORTS[module]
