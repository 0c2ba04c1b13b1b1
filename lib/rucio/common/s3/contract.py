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

"""Describe routes of the REST interface: a dataclass for the parameters, and a type for the answer.

Derived from them are the validation of requests (:meth:`Request.read`), the requests of clients
(:meth:`Request.parts`), and the documentation (:func:`openapi`). The routes are in :mod:`rucio.common.s3.api`. Pure
functions, without requests.
"""

import difflib
import inspect
import json
import re
from dataclasses import MISSING, dataclass, fields
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Optional,
    TypeVar,
    Union,
    get_args,
    get_origin,
)
from urllib.parse import quote

from typing_extensions import (
    NotRequired,
    Self,
    dataclass_transform,
    get_type_hints,
    is_typeddict,
)

from rucio.common.exception import InputValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ['Documentation', 'Field', 'Request', 'documentation', 'openapi', 'schema']

Answer = TypeVar('Answer')

LONGEST_TEXT = 250  # characters
LONGEST_KEY = 1024  # bytes
_TYPES = {
    str: 'string',
    bool: 'boolean',
    int: 'integer',
    float: 'number',
    list: 'array',
    dict: 'object',
    type(None): 'null',
}


class Field(NamedTuple):
    """The purpose of a parameter, and its allowed values."""

    description: str
    most: int = LONGEST_TEXT  # characters, elements, or the number itself
    least: int = 1
    choices: tuple[str, ...] = ()
    is_key: bool = False  # any text of up to LONGEST_KEY bytes, not only printable text

    def check(self, name: str, value: Any) -> None:
        """Refuse a value of the right type that is not allowed.

        :param name: The name of the parameter.
        :param value: Its value.
        :raises InputValidationError: if it is not allowed; the message names the allowed values.
        """
        flaw = self._flaw_of_text(value) if isinstance(value, str) else self._flaw(value)
        if flaw:
            raise InputValidationError(f"'{name}' {flaw}.")

    def _flaw(self, value: Any) -> Optional[str]:
        if isinstance(value, list):
            if not self.least <= len(value) <= self.most:
                return f'has {len(value)} elements, but may have {self.least} to {self.most}'
            flaws = (_flaw_of_name(each) for each in value if isinstance(each, str))
            return next((f'has an element that {flaw}' for flaw in flaws if flaw), None)
        if type(value) is int and not self.least <= value <= self.most:
            return f'is not a number from {self.least} to {self.most}'
        return None

    def _flaw_of_text(self, value: str) -> Optional[str]:
        if self.is_key:
            return _flaw_of_key(value)
        if len(value) > self.most:
            return f'has {len(value)} characters, but may have {self.most}'
        strange = next((each for each in value if not each.isprintable()), None)
        if strange is not None:
            return f'has the character U+{ord(strange):04X}, but may have printable characters only'
        if self.choices and value not in self.choices:
            return f"is '{value}', but must be one of {', '.join(self.choices)}"
        return None


def _flaw_of_key(value: str) -> Optional[str]:
    encoded = value.encode(errors='replace')
    if value != encoded.decode():
        return 'must be text in Unicode'
    return f'has {len(encoded)} bytes, but may have {LONGEST_KEY}' if len(encoded) > LONGEST_KEY else None


def _flaw_of_name(value: str) -> Optional[str]:
    return 'has the character U+0000' if '\0' in value else _flaw_of_key(value)  # PostgreSQL refuses it


_FROM_QUERY: dict[Any, bool] = {'true': True, 'false': False}


class Parameter(NamedTuple):
    """A parameter of a route."""

    hint: Any
    kind: type
    field: Field
    default: Any  # MISSING: it is required

    @classmethod
    def of(cls, hint: Any, default: Any) -> 'Parameter':
        """Return the parameter for a field of a dataclass.

        :param hint: The annotation of the field.
        :param default: Its default.
        """
        inner = _without_none(hint.__origin__)
        return cls(hint, get_origin(inner) or inner, hint.__metadata__[0], default)

    def read(self, name: str, value: Any) -> Any:
        """Validate a value that was sent, and return it or the default.

        :param name: The name of the parameter.
        :param value: The value, or None.
        :raises InputValidationError: if it is missing, of another type or not allowed.
        """
        if value is None or (value == '' and self.default is not MISSING):
            if self.default is MISSING:
                raise InputValidationError(f"'{name}' is missing.")
            return self.default
        if type(value) is not self.kind:
            seen = _TYPES.get(type(value), 'another')
            raise InputValidationError(f"'{name}' is of the JSON type {seen}, but must be {_TYPES[self.kind]}.")
        if value == '':
            raise InputValidationError(f"'{name}' is empty.")
        self.field.check(name, value)
        return value


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Request(Generic[Answer]):
    """One request to the server's plugin.

    A subclass describes a route, and becomes a dataclass: its fields are the parameters, including ``{...}`` in the
    path; ``Answer`` is the type of the JSON document in the answer; its docstring has a summary, a description, and a
    line for each error status: ``404: There is no such S3 RSE``.
    """

    method: ClassVar[str]
    path: ClassVar[str]
    status: ClassVar[int]
    answer: ClassVar[Any]
    query: ClassVar[tuple[str, ...]]
    parameters: ClassVar[dict[str, Parameter]]

    def __init_subclass__(cls, *, route: str, status: int = 200, query: tuple[str, ...] = ()) -> None:
        """Describe a route.

        :param route: The method, and the path below ``/s3``.
        :param status: The status of success.
        :param query: The parameters in the query; for GET these are all.
        """
        cls.method, cls.path = route.split()
        cls.status, cls.query = status, query
        cls.answer = next(get_args(base)[0] for base in cls.__dict__['__orig_bases__'] if get_origin(base) is Request)
        made: Any = dataclass(frozen=True, kw_only=True)(cls)
        hints = get_type_hints(cls, include_extras=True)
        cls.parameters = {each.name: Parameter.of(hints[each.name], each.default) for each in fields(made)}

    @classmethod
    def operation(cls) -> str:
        """Return the name of the operation in the server's list of capabilities: ``make_bucket``."""
        return re.sub('(?<=[a-z])(?=[A-Z])', '_', cls.__name__).lower()

    @classmethod
    def read(cls, given: 'Mapping[str, Any]') -> Self:
        """Validate a request that was received.

        :param given: The parameters from JSON or the query. None and empty text stand for the default.
        :returns: The request.
        :raises InputValidationError: if one is missing, unknown, of another type or not allowed.
        """
        if unknown := sorted(given.keys() - cls.parameters.keys()):
            close = difflib.get_close_matches(unknown[0], cls.parameters, 1)
            meant = f" Did you mean '{close[0]}'?" if close else ''
            raise InputValidationError(f'{cls.method} /s3{cls.path} has no parameter {unknown[0][:64]!a}.{meant}')
        if cls.method == 'GET':  # a query has no types
            switches = {name for name in given if cls.parameters[name].kind is bool}
            given = {
                name: _FROM_QUERY.get(value, value) if name in switches else value for name, value in given.items()
            }
        return cls(**{name: each.read(name, given.get(name)) for name, each in cls.parameters.items()})

    def parts(self) -> tuple[str, dict[str, Any], Optional[dict[str, Any]]]:
        """Return what a client sends: path, query and body.

        Parameters with their default value are left out, as an older server may not know them.
        """
        given = {name: value for name, value in vars(self).items() if value != self.parameters[name].default}
        path = re.sub(r'\{(\w+)\}', lambda found: quote(str(given.pop(found[1])), safe=''), self.path)
        query = {name: given.pop(name) for name in list(given) if self.method == 'GET' or name in self.query}
        query = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
        return path, query, None if self.method == 'GET' else given


def _without_none(hint: Any) -> Any:
    return next(each for each in get_args(hint) if each is not type(None)) if get_origin(hint) is Union else hint


def schema(hint: Any) -> dict[str, Any]:
    """Return the schema of a type for OpenAPI 3.0.

    :param hint: text, a number, a boolean, a list, a dict, a TypedDict; Optional, Literal or Annotated of these.
    """
    origin, args = get_origin(hint), get_args(hint)
    found: dict[str, Any] = {}
    if origin is Annotated:
        about = args[1] if isinstance(args[1], Field) else Field(args[1])
        choices = {'enum': list(about.choices)} if about.choices else {}
        found = schema(args[0]) | choices | {'description': about.description}
    elif origin is NotRequired:
        found = schema(args[0])
    elif origin is Union:
        found = schema(_without_none(hint)) | {'nullable': True}
    elif origin is Literal:
        found = {'type': 'string', 'enum': list(args)}
    elif origin is list:
        found = {'type': 'array', 'items': schema(args[0])}
    elif origin is dict:
        found = {'type': 'object', 'additionalProperties': schema(args[1])}
    elif is_typeddict(hint):
        members = {name: schema(each) for name, each in get_type_hints(hint, include_extras=True).items()}
        found = {'type': 'object', 'properties': members, 'required': sorted(hint.__required_keys__)}
    elif hint is not Any:
        found = {'type': _TYPES[hint]}
    return found


class Documentation(NamedTuple):
    """The documentation of a route."""

    summary: str
    description: str
    refusals: dict[int, str]


def documentation(request: type[Request[Any]]) -> Documentation:
    """Return the documentation in the docstring of a route.

    :param request: The class of the route.
    """
    text = inspect.getdoc(request) or ''
    summary, _, rest = text.partition('\n\n')
    refusals = {int(status): said for status, said in re.findall(r'^(\d{3}): (.*)$', rest, re.MULTILINE)}
    return Documentation(summary.rstrip('.'), re.sub(r'^\d{3}: .*$\n?', '', rest, flags=re.MULTILINE).strip(), refusals)


def openapi(request: type[Request[Any]]) -> str:
    """Return the docstring for a view's method: OpenAPI below a line of hyphens, for apispec in Rucio's tools.

    :param request: The class of the route.
    """
    told, names = documentation(request), request.parameters
    in_path = re.findall(r'\{(\w+)\}', request.path)
    outside = [name for name in names if request.method == 'GET' or name in (*in_path, *request.query)]
    described = [
        {
            'name': name,
            'in': 'path' if name in in_path else 'query',
            'required': names[name].default is MISSING,
            'description': names[name].field.description,
            'schema': schema(names[name].hint.__origin__),
        }
        for name in outside
    ]
    document = {
        'summary': told.summary,
        'description': told.description or told.summary,
        'operationId': f's3_{request.operation()}',
        'tags': ['S3'],
        'parameters': described,
        'responses': {
            str(request.status): {'description': 'OK', 'content': _json(schema(request.answer))},
            '401': {'description': 'Invalid Auth Token'},
            **{str(status): {'description': said} for status, said in told.refusals.items()},
        },
    }
    if request.method != 'GET':
        inside = {name: each for name, each in names.items() if name not in outside}
        required = [name for name, each in inside.items() if each.default is MISSING]
        body = {'type': 'object', 'properties': {name: schema(each.hint) for name, each in inside.items()}}
        document['requestBody'] = {'content': _json(body | ({'required': required} if required else {}))}
    return f'{told.summary}\n---\n{json.dumps(document, indent=1)}\n'


def _json(content: dict[str, Any]) -> dict[str, Any]:
    return {'application/json': {'schema': content}}
