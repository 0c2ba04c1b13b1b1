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

"""No class has more than 15 methods or 12 fields without a reason."""

import ast
from pathlib import Path

LIB = Path(__file__).parents[2] / 'lib'
METHODS, FIELDS = 15, 12
LARGE = {
    'Default': "the methods of Rucio's RSEProtocol, and small ones behind them",
    'ProbeBucket': 'the requests of all probes, so that each of these fits a few lines',
    'S3Client': 'a method for each call of the REST interface',
    'StorageSettings': 'a field for each setting',
}


def fields_of(node):
    """What is assigned to self, and what is declared."""
    stores = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store) and ast.unparse(each.value) == 'self'}
    return stores | {ast.unparse(each.target) for each in node.body if isinstance(each, ast.AnnAssign) and 'ClassVar' not in ast.unparse(each.annotation)}


def test_classes_are_small():
    large = set()
    for path in LIB.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            methods = (
                [each for each in getattr(node, 'body', ()) if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))]
                if isinstance(node, ast.ClassDef)
                else []
            )
            if len(methods) > METHODS or (isinstance(node, ast.ClassDef) and len(fields_of(node)) > FIELDS):
                large.add(node.name)
    assert large == set(LARGE)
