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

"""Write the tables of docs/rest-api.md and docs/settings.md from what the code is made of (make reference). What stands around them is written by hand.

A table is between the comments ``<!-- NAME -->`` and ``<!-- end -->``.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from rucio.common.s3.api import ROUTES
from rucio.common.s3.contract import Request, documentation, schema
from rucio.common.s3.endpoint import PERSON, SERVER, Patience
from rucio.common.s3.settings import SERVER_SETTINGS, SETTINGS, Secrets, ServerSettings, StorageSettings, providers

DOCS = Path(__file__).resolve().parents[1] / 'docs'
_BLOCK = re.compile('<!-- (?!end)([^\n]*) -->\n.*?<!-- end -->', re.DOTALL)


def main() -> None:
    """Write the tables anew."""
    for page in pages():
        page.write_text(filled(page), encoding='utf-8')
        sys.stdout.write(f'{page}\n')


def pages() -> list[Path]:
    """The pages that have such tables."""
    return [DOCS / 'rest-api.md', DOCS / 'settings.md']


def filled(page: Path) -> str:
    """The text of a page with its tables as they have to be.

    :raises KeyError: if a comment names no table.
    """
    text = page.read_text(encoding='utf-8')
    tables = {name_of(route): ''.join(f'{line}\n' for line in described(route)) for route in ROUTES}
    if page.name == 'rest-api.md':
        tables['routes'] = ''.join(f'{line}\n' for line in overview(text))
    tables['settings'] = ''.join(f'{line}\n' for line in settings())
    return _BLOCK.sub(lambda block: f'<!-- {block[1]} -->\n\n{tables[block[1]]}\n<!-- end -->', text)


def name_of(route: type[Request[Any]]) -> str:
    """A route as people write it: ``GET /s3/rses/RSE``."""
    return f'{route.method} /s3' + re.sub(r'\{(\w+)\}', lambda found: found[1].upper(), route.path)


def overview(text: str) -> Iterator[str]:
    """All routes, each with a link to the heading above its table."""
    yield from ('| request | what it does | operation |', '|---|---|---|')
    for route in ROUTES:
        heading = re.findall('^## (.*)$', text[: text.index(f'<!-- {name_of(route)} -->')], re.MULTILINE)[-1]
        anchor = re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
        yield f'| [`{name_of(route)}`](#{anchor}) | {documentation(route).summary} | `{route.operation()}` |'


def described(route: type[Request[Any]]) -> Iterator[str]:
    """What a route is for, takes, answers and refuses."""
    told = documentation(route)
    yield f'`{name_of(route)}`: {" ".join(told.description.split())}'
    if route.parameters:
        yield from ('', '| parameter | type | |', '|---|---|---|')
        for name, each in route.parameters.items():
            said = schema(each.hint)
            required = ', required' if each.default is MISSING else ''
            yield f'| `{name}` | {_type(said)}{required} | {_text(said)} |'
    said = schema(route.answer)
    yield from ('', f'| answer {route.status}{": a list of" if said["type"] == "array" else ""} | type | |', '|---|---|---|')
    yield from _members(said, '')
    if told.refusals:
        yield from ('', '| status | refused |', '|---|---|', *(f'| {status} | {why} |' for status, why in told.refusals.items()))


def _members(said: dict[str, Any], inside: str) -> Iterator[str]:
    if 'items' in said:
        yield from _members(said['items'], f'{inside[:-1]}[].' if inside else '')
    for name, each in said.get('properties', {}).items():
        yield f'| `{inside}{name}` | {_type(each)} | {_text(each)} |'
        yield from _members(each, f'{inside}{name}.')


def _type(said: dict[str, Any]) -> str:
    kind = said.get('type', 'anything')
    if 'items' in said:
        kind = f'array of {said["items"].get("type", "anything")}s'
    return f'{kind} or null' if said.get('nullable') else str(kind)


def _text(said: dict[str, Any]) -> str:
    choices = ', '.join(f'`{each}`' for each in said.get('enum', ()))
    text = said.get('description', '')
    return f'{text} One of {choices}.' if text and choices else text or (f'One of {choices}.' if choices else '')


# Settings


_WHERE = {
    'anywhere': 'any',
    'rucio.cfg': 'rucio.cfg only',
    'RSE': 'RSE only',
    'server': "the server's rucio.cfg, `[s3]`",
    'server or user': 'rucio.cfg, `[s3]`',
}


def settings() -> Iterator[str]:
    """A row for each setting: what is allowed, its default, where it may stand, what it is for."""
    yield from ('| setting | values | default | where | what it is |', '|---|---|---|---|---|')
    for table in (StorageSettings, Secrets, ServerSettings):
        told = dict(re.findall(r'^:param (\w+): (.*(?:\n .*)*)', inspect.getdoc(table) or '', re.MULTILINE))
        for each in fields(table):
            setting = (SETTINGS | SERVER_SETTINGS)[each.name]
            about = ' '.join(told[each.name].split())
            yield f'| `{each.name}` | {setting.allowed} | {_default(each)} | {_WHERE[setting.where]} | {about} |'


def _default(setting: 'Field[Any]') -> str:
    if setting.name in Patience._fields:
        return f'{getattr(PERSON, setting.name)}; {getattr(SERVER, setting.name)}'
    usual = _written(providers()['default'].get(setting.name, setting.default))
    by_value: dict[str, list[str]] = {}
    for provider, defaults in sorted(providers().items()):
        if (value := _written(defaults.get(setting.name, usual))) != usual and provider != 'default':
            by_value.setdefault(value, []).append(f'`{provider}`')
    others = '; '.join(f'{", ".join(names)}: {value}' for value, names in by_value.items())
    return f'{usual} ({others})' if others else usual


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value and not value % 1024**2:
        return f'{value // 1024**2} MiB'
    if isinstance(value, (list, tuple)):
        return ', '.join(value) or 'none'
    return str(value or 'none')


if __name__ == '__main__':
    main()
