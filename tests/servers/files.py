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

"""What every server and command here is given: a clean environment, and files that only the user can read."""

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

Sections = Mapping[str, Mapping[str, object]]


def clean_environment(home: 'str | os.PathLike[str]', **extra: str) -> dict[str, str]:
    """
    The whole environment of a child process: nothing of the caller's own (AWS_*, RUCIO_*, X509_*, proxies, VIRTUAL_ENV) is in it.

    :param home: stands in for the home directory, so that ~/.aws, ~/.rucio, ~/.mc are not those of the caller.
    """
    temporary = Path(home) / 'tmp'
    temporary.mkdir(parents=True, exist_ok=True)
    scripts = sysconfig.get_path('scripts')
    return {
        'PATH': os.pathsep.join([scripts, '/usr/local/bin', '/usr/bin', '/bin']),
        'HOME': str(home),
        'TMPDIR': str(temporary),
        'LANG': 'C.UTF-8',
        **extra,
    }


def command_path(name: str) -> str:
    """Where a command of this Python environment is (`rucio`, `weed`): the environment need not be activated."""
    path = Path(sysconfig.get_path('scripts')) / name
    if not path.exists():
        raise FileNotFoundError(f'{path} is missing: install the package that brings the command {name} into this Python environment')
    return str(path)


def write_private(path: Path, text: str) -> None:
    """Write a file that holds secrets: only the user may read it, from the first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A new file in its place, so that a server never reads half of one.
    new = path.with_name(path.name + '.new')
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'w', encoding='utf-8') as file:
        file.write(text)
    new.replace(path)


def config_text(sections: Sections) -> str:
    """The text of a rucio.cfg."""
    lines = []
    for section, options in sections.items():
        lines.append(f'[{section}]')
        # Rucio reads it with interpolation: a % must be doubled.
        lines += [f'{key} = {value}'.replace('%', '%%') for key, value in options.items()]
        lines.append('')
    return '\n'.join(lines)


def merged(*layers: Sections) -> dict[str, dict[str, object]]:
    """Sections of several configurations; a later one wins, option by option."""
    result: dict[str, dict[str, object]] = {}
    for layer in layers:
        for section, options in layer.items():
            result.setdefault(section, {}).update(options)
    return result
