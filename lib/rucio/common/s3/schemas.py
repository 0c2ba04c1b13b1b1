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

"""Rucio's JSON schemas of scopes and names, checked many times."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ['explain', 'matcher']

_SIMPLE = {'type', 'pattern', 'maxLength', 'description'}


def matcher(schema: 'Mapping[str, Any]') -> 'Callable[[str], bool]':
    """Return a function that says whether a text is valid.

    Rucio's own schemas have a pattern and a length, which take a microsecond; jsonschema takes 20, and a twentieth of a
    second to be imported. So it is used for those of policy packages that have more than that.

    :param schema: The JSON schema of a text.
    """
    if schema.get('type') != 'string' or not schema.keys() <= _SIMPLE:
        validator = _validator(schema)
        return lambda text: bool(validator.is_valid(text))
    search, longest = re.compile(schema.get('pattern', '')).search, schema.get('maxLength')
    return lambda text: search(text) is not None and (longest is None or len(text) <= longest)


def explain(schema: 'Mapping[str, Any]', value: Any) -> str:
    """Return what is wrong with an invalid value, as jsonschema says it.

    :param schema: The JSON schema.
    :param value: The value.
    """
    from jsonschema.exceptions import best_match  # type: ignore[import-untyped]  # noqa: PLC0415

    error = best_match(_validator(schema).iter_errors(value))
    return error.message if error else ''


def _validator(schema: 'Mapping[str, Any]') -> Any:
    """Return the validator that rucio.common.schema.validate_schema uses."""
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]  # noqa: PLC0415 - slow, see above

    return validator_for(schema)(schema)
