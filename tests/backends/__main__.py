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

"""``python -m backends``: measure the storages that are installed, and write docs/backends.md. ``make backends`` calls it.

``--only seaweedfs`` leaves out the others; their columns stay.
"""

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import document
from .behaviours import BEHAVIOURS
from .storage import KINDS, Kind, Probe


def measure(kind: Kind) -> dict[str, str]:
    """All behaviours of a storage that is started for it: the row's first cell -> what it answered."""
    with tempfile.TemporaryDirectory(prefix='rucio-s3-backends-') as directory, kind.start(Path(directory)) as server:
        probe = Probe(server)
        return {each.text: each.measure(probe) for each in BEHAVIOURS}


def main() -> int:
    parser = argparse.ArgumentParser(description='Measure S3 storages, and write docs/backends.md.')
    parser.add_argument('--only', action='append', choices=[kind.word for kind in KINDS], help='this storage; the others keep their columns')
    parser.add_argument('--output', type=Path, default=document.PATH, help='another file than docs/backends.md')
    arguments = parser.parse_args()
    columns = document.read()
    wanted = [kind for kind in KINDS if not arguments.only or kind.word in arguments.only]
    here = [kind for kind in wanted if not kind.missing()]
    for kind in wanted:
        if reason := kind.missing():
            print(f'{kind}: left as it is: {reason}')  # noqa: T201 - it is a command
    with ThreadPoolExecutor(2) as pool:
        for kind, measured in zip(here, pool.map(measure, here), strict=True):
            before = columns[kind.name]
            columns[kind.name] = document.merged(kind, measured, before)
            changes = [each for each in BEHAVIOURS if columns[kind.name].answers[each.text] != before.answers.get(each.text)]
            print(f'{kind} {kind.version()}: {len(measured)} behaviours measured, {len(changes)} changed')  # noqa: T201 - it is a command
            for each in changes if before.version else ():
                print(f'  {each.text}: {before.answers.get(each.text, document.UNKNOWN)} -> {columns[kind.name].answers[each.text]}')  # noqa: T201 - it is a command
    arguments.output.write_text(document.text(columns), encoding='utf-8')
    print(f'written: {arguments.output}')  # noqa: T201 - it is a command
    return 0


if __name__ == '__main__':
    sys.exit(main())
