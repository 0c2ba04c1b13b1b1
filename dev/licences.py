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

"""Write docs/licences.md: what rucio-s3 requires, and under which licence it is, from what is installed here (make licences)."""

import re
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

DOCUMENT = Path(__file__).resolve().parents[1] / 'docs' / 'licences.md'
OWN = ('aiohttp', 'boto3', 'botocore', 'cryptography', 'rich', 's3transfer', 'tomli', 'typing-extensions')  # as pyproject.toml has them
ELSEWHERE = {'async-timeout': 'Apache 2', 'tomli': 'MIT'}  # for Python 3.10 only, so that they may be missing here
RUCIO = ('rucio', 'rucio-clients')

_TEXT = """\
# Licences

rucio-s3 is under the Apache License 2.0 ([LICENSE](../LICENSE)). It ships no code of others. What it needs when it runs is installed by pip, and is
under these licences, as each package says of itself. `make licences` writes this page; a test fails where a package is missing in the first table.

## What rucio-s3 requires

{own}

## What Rucio brings

Its server, version {rucio}. Clients have less of it.

{rucio_table}
"""


def main() -> None:
    """Write the page."""
    own, all_of_it = closure(OWN), closure((*OWN, *RUCIO))
    version = next((each.version for name, each in all_of_it.items() if name in RUCIO), 'none')
    more = {name: each for name, each in all_of_it.items() if name not in own}
    DOCUMENT.write_text(_TEXT.format(own=_table(own), rucio=version, rucio_table=_table(more)), encoding='utf-8')
    sys.stdout.write(f'{DOCUMENT}: {len(all_of_it)} packages\n')


def normal(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r'[-_.]+', '-', name).lower()


def closure(names: Iterable[str]) -> dict[str, metadata.Distribution]:
    """These packages and all that they require, as far as they are installed here, by name."""
    found: dict[str, metadata.Distribution] = {}
    left = [(normal(name), ()) for name in names]
    while left:
        name, extras = left.pop()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        left += _required(found[name], extras)
    return dict(sorted(found.items()))


def _required(package: metadata.Distribution, extras: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for text in package.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({'extra': extra}) for extra in (*extras, '')):
            yield normal(requirement.name), tuple(requirement.extras)


def licence(package: metadata.Distribution) -> str:
    """What a package says of its licence: the expression, else the classifiers, else the first line of the text."""
    about = package.metadata
    classified = [each.rpartition('::')[2].strip() for each in about.get_all('Classifier') or [] if each.startswith('License :: OSI Approved ::')]
    said = (about.get('License') or '').strip().partition('\n')[0]
    return about.get('License-Expression') or ', '.join(classified) or said or 'it does not say'


def _table(packages: dict[str, metadata.Distribution]) -> str:
    rows = [f'| {name} | {licence(package)} |' for name, package in packages.items()]
    if 'boto3' in packages:
        rows += [f'| {name} | {said} |' for name, said in ELSEWHERE.items() if name not in packages]
    return '\n'.join(['| package | licence |', '|---|---|', *rows])


if __name__ == '__main__':
    main()
