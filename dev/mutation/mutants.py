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

"""The mutants of a module: small changes, each of which a test should notice.

A mutant is text: the source with one expression or statement replaced. What is not changed: docstrings, annotations, the words of messages
(exceptions, logs, f-strings), what is logged, and what only type checkers read.
"""

import ast
import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

LOGGERS = ('_LOGGER', 'logger', '_logger', 'logging', 'warnings')
JOINED = ('and_', 'or_', 'where', 'filter', 'filter_by')
OPPOSITE: dict[type, type] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip
NAMES = {'any': 'all', 'all': 'any', 'min': 'max', 'max': 'min', 'startswith': 'endswith', 'endswith': 'startswith'}


@dataclass(frozen=True)
class Mutant:
    """One change of a module.

    :param path: Relative to lib/.
    :param start, end: The first and the last line of the statement that is changed; of one with a body, of what is before that.
    :param function: The name of the function that the change is in; empty: what runs at import.
    :param source: All of the module, changed.
    """

    path: str
    start: int
    end: int
    function: str
    original: str
    source: str

    @cached_property
    def diff(self) -> str:
        lines = difflib.unified_diff(self.original.splitlines(), self.source.splitlines(), f'lib/{self.path}', f'lib/{self.path}', n=1, lineterm='')
        return '\n'.join(lines)

    @cached_property
    def changed(self) -> str:
        """What is removed and added, without line numbers: by this, a mutant is recognised when other lines have moved."""
        lines = self.diff.splitlines()[3:]
        return '\n'.join(line[0] + line[1:].strip() for line in lines if line[:1] in '+-')

    @property
    def removed(self) -> str:
        return '\n'.join(line for line in self.changed.splitlines() if line.startswith('-'))

    @cached_property
    def key(self) -> str:
        return hashlib.sha256(f'{self.path}\n{self.function}\n{self.changed}'.encode()).hexdigest()[:12]


class _Source:
    """The text of a module, and where the nodes of its syntax tree are."""

    def __init__(self, path: Path, name: str) -> None:
        self.name, self.text = name, path.read_text(encoding='utf-8')
        self.lines = [line.encode() for line in self.text.splitlines(keepends=True)]
        self.tree = ast.parse(self.text)
        self.statements = [node for node in ast.walk(self.tree) if isinstance(node, ast.stmt)]
        self.functions = [node for node in ast.walk(self.tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]

    def replaced(self, node: ast.AST, new: str) -> Mutant:
        """The text with another one in the place of a node."""
        first, last = node.lineno - 1, node.end_lineno - 1
        before = b''.join(self.lines[:first]) + self.lines[first][: node.col_offset]
        after = self.lines[last][node.end_col_offset :] + b''.join(self.lines[last + 1 :])
        return Mutant(self.name, *self._statement(node), self._function(node.lineno), self.text, (before + new.encode() + after).decode())

    def _statement(self, node: ast.AST) -> tuple[int, int]:
        around = max((each for each in self.statements if each.lineno <= node.lineno and node.end_lineno <= each.end_lineno), key=lambda each: each.lineno)
        body = getattr(around, 'body', None)
        return around.lineno, max(around.lineno, body[0].lineno - 1) if body else around.end_lineno

    def _function(self, line: int) -> str:
        around = [node for node in self.functions if node.lineno <= line <= node.end_lineno]
        return max(around, key=lambda node: node.lineno).name if around else ''


def mutants_of(path: Path, name: str) -> list[Mutant]:
    """All mutants of a module, in the order of the text. A few cannot be compiled, or change nothing: see is_valid()."""
    source = _Source(path, name)
    found = {mutant.source: mutant for mutant in (source.replaced(node, new) for node, new in _walk(source.tree)) if mutant.source != source.text}
    return sorted(found.values(), key=lambda each: (each.start, each.end, each.source))


def is_valid(mutant: Mutant) -> bool:
    """Whether it is a program, and another one."""
    try:
        return ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(mutant.original))
    except SyntaxError:
        return False


def _walk(node: ast.AST, is_limit: bool = False) -> Iterator[tuple[ast.AST, str]]:
    """What is to be put in whose place, for a node and all below it.

    :param is_limit: It is in the value of a constant of the module.
    """
    if _is_left_out(node):
        return
    is_limit = is_limit or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper())
    yield from _statement(node) if isinstance(node, ast.stmt) else _expression(node, is_limit)
    for child in _children(node):
        yield from _walk(child, is_limit)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    left_out: tuple[object, ...] = ()
    if _called(node) == 'cast':  # the type, which only type checkers read
        left_out = (node.args[0],)
    elif _called(node).endswith('.limit'):  # whether there is a row: more are not looked at
        left_out = tuple(each for each in node.args if ast.unparse(each) == '1')
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        left_out = (getattr(node, 'returns', None), *node.decorator_list)
    elif isinstance(node, (ast.AnnAssign, ast.arg)):
        left_out = (node.annotation,)
    yield from (child for child in ast.iter_child_nodes(node) if child not in left_out)


def _is_left_out(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or (isinstance(node.value, ast.Call) and _called(node.value).startswith(LOGGERS))
    if isinstance(node, ast.keyword):
        return node.arg in ('strict', 'usedforsecurity')  # of zip(): it asserts what is so; of hashes: for FIPS only
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in ('TYPE_CHECKING', 'sys.version_info >= (3, 11)')
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) in ('__all__', '_LOGGER') or _called(node.value).endswith(('TypeVar', 'getLogger', 'line_logger'))
    return isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal))


def _called(node: ast.AST) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ''


def _statement(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    if isinstance(node, (ast.If, ast.While)):
        yield from _negated(node.test)
    elif (
        isinstance(node, (ast.Raise, ast.Delete, ast.AugAssign))
        or (isinstance(node, ast.Expr) and not isinstance(node.value, (ast.Yield, ast.YieldFrom)))
        or (isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Attribute, ast.Subscript)))
    ):
        yield node, 'pass'
    elif isinstance(node, ast.Continue):
        yield node, 'break'
    elif isinstance(node, ast.Break):
        yield node, 'continue'
    elif isinstance(node, ast.Return) and node.value is not None:
        yield from _returned(node.value)


def _returned(value: ast.expr) -> Iterator[tuple[ast.AST, str]]:
    if isinstance(value, ast.Tuple) and len(value.elts) == 2:
        yield value, f'{ast.unparse(value.elts[1])}, {ast.unparse(value.elts[0])}'
    elif not isinstance(value, ast.Constant):
        yield value, 'None'


def _expression(node: ast.AST, is_limit: bool) -> Iterator[tuple[ast.AST, str]]:
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            operators = [*node.ops[:place], OPPOSITE[type(operator)](), *node.ops[place + 1 :]]
            yield node, f'({ast.unparse(ast.Compare(node.left, operators, node.comparators))})'
    elif isinstance(node, ast.BoolOp):
        yield node, f'({ast.unparse(ast.BoolOp(OPPOSITE[type(node.op)](), node.values))})'
        yield from ((node, _joined(node.op, node.values, place)) for place in range(len(node.values)))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, f'({ast.unparse(node.operand)})'
    elif isinstance(node, ast.IfExp):
        yield from _negated(node.test)
    elif isinstance(node, ast.comprehension):
        yield from ((condition, 'True') for condition in node.ifs)
    elif isinstance(node, ast.BinOp):
        yield from _operator(node)
    elif isinstance(node, ast.Call):
        yield from _call(node)
    elif isinstance(node, ast.Constant):
        yield from _constant(node, is_limit)


def _negated(test: ast.expr) -> Iterator[tuple[ast.AST, str]]:
    if not isinstance(test, (ast.Compare, ast.UnaryOp)):  # they have mutants of their own, which are the same
        yield test, f'(not ({ast.unparse(test)}))'


def _joined(operator: ast.boolop, values: list[ast.expr], without: int) -> str:
    left = [value for place, value in enumerate(values) if place != without]
    return f'({ast.unparse(ast.BoolOp(operator, left) if len(left) > 1 else left[0])})'


def _operator(node: ast.BinOp) -> Iterator[tuple[ast.AST, str]]:
    if isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        yield from ((node, f'({ast.unparse(side)})') for side in (node.left, node.right))
    elif type(node.op) in OPPOSITE and not any(isinstance(side, ast.JoinedStr) for side in (node.left, node.right)):
        yield node, f'({ast.unparse(ast.BinOp(node.left, OPPOSITE[type(node.op)](), node.right))})'


def _call(node: ast.Call) -> Iterator[tuple[ast.AST, str]]:
    name = _called(node).rpartition('.')[2]
    if name in NAMES:
        new = NAMES[name]
        yield node.func, f'{ast.unparse(node.func.value)}.{new}' if isinstance(node.func, ast.Attribute) else new
    if name in JOINED and len(node.args) > 1:
        for place in range(len(node.args)):
            yield node, ast.unparse(ast.Call(node.func, node.args[:place] + node.args[place + 1 :], node.keywords))
    elif (name == 'where' and node.args and isinstance(node.func, ast.Attribute)) or (
        isinstance(node.func, ast.Attribute) and name in ('distinct', 'order_by')
    ):
        yield node, ast.unparse(node.func.value)


def _constant(node: ast.Constant, is_limit: bool) -> Iterator[tuple[ast.AST, str]]:
    if isinstance(node.value, bool):
        yield node, str(not node.value)
    elif isinstance(node.value, (int, float)):
        # A limit of 60 seconds or 1,000 keys may be 61 or 1,001: what matters is that there is one.
        yield node, str(node.value * 100 if abs(node.value) >= 10 or (is_limit and node.value) else node.value + 1)
    elif isinstance(node.value, str) and (not node.value or not _is_text(node.value)):
        yield node, repr('XX' + node.value)
    elif isinstance(node.value, bytes):
        yield node, repr(b'XX' + node.value)


def _is_text(value: str) -> bool:
    """Words for people, or a part of them."""
    return ' ' in value.strip() or value != value.strip()
