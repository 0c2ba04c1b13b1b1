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

"""docs/backends.md: written from what was measured, and read again to compare with.

The document is the only place where the answers are kept. A storage that is not installed keeps its column.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from .behaviours import BEHAVIOURS, SECTIONS, Behaviour
from .storage import KINDS, Kind

PATH = Path(__file__).parents[2] / 'docs' / 'backends.md'
UNKNOWN = 'not measured'

_INTRODUCTION = """\
# What the storages really do

This file is written by `make backends` from what its tests measured, and tests/backends compares it with the storages again: do not
edit it by hand. One row is one behaviour, one column one storage, in the version that was measured. A number is the HTTP status that
a request was refused with. The last column says what it is to rucio-s3; a word in `code` there is a [setting](settings.md), whose defaults
for each provider are in [`providers.toml`](../lib/rucio/common/s3/providers.toml). tests/backends compares those, too. No code asks
which provider it is.

Each of these storages also goes through the conformance suite, other people's clients (aws, mc, rclone, s3cmd, s5cmd), and Rucio's data
flow (upload, download, a rule to it and one from it by `rucio-s3-copier`, the reaper): tests/backends. The suite has the settings of
`provider`, and on Ceph Tentacle also `conditional_multipart = true`, as `rucio s3 check` suggests there; on Swift, versitygw and Garage,
which vend no keys, it runs once more with requests that the server signs.

- An empty file that mc sends by http is refused by Ceph Pacific and Tentacle, and by rclone.
- On Swift, mc was left out (its variable cannot hold tempauth's access keys, which have a colon), and on a busy machine a listing once
  lacked what had just been written. Swift 2.33 was measured by `rucio s3 check` alone: it verifies no CRC32.
- MinIO does not list `a/b` while there is an object `a`, although both can be read: its buckets are emptied until nothing appears any more.
- Garage keeps names in LMDB here, which has no room for keys of more than 479 bytes: it then says that it is busy (503). Of uploads in
  parts to one name it ends those that began before the one that is completed.

The continuous integration measures the storages without a date every fourth day. `make ceph` unpacks the newer versions of Ceph,
`make swift` installs Swift; programs that no package brings are taken from the folder that `RUCIO_S3_TEST_SERVERS` names, such as
`versitygw-1.8.0`.

| storage | `provider` | measured | as it was started |
|---|---|---|---|
"""

_LUCK = """\
Races have luck in them: "one wins" is what was seen in all of some hundred tries, "several win" is a proof. Another storage, or another
version: `python -m backends` with it, or the conformance suite against any endpoint (CONTRIBUTING.md).
"""


@dataclass
class Column:
    """What one storage answered, and in which version."""

    version: str = ''
    measured: str = ''  # the day, where the continuous integration does not measure it again
    answers: dict[str, str] = field(default_factory=dict)  # first cell of the row -> answer


def read(path: Path = PATH) -> dict[str, Column]:
    """The columns of the document, by the name of the storage; none where there is no document."""
    columns: dict[str, Column] = {kind.name: Column() for kind in KINDS}
    heads: list[str] = []
    for line in path.read_text(encoding='utf-8').splitlines() if path.exists() else ():
        cells = [cell.strip().replace('\\|', '|') for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
        if not cells:
            heads = []
        elif cells[0] == 'behaviour':
            heads = cells[1:-1]
        elif not heads and (kind := _kind(cells[0])):
            columns[kind.name].measured = cells[2]
        elif heads and not cells[0].startswith('---'):
            for head, answer in zip(heads, cells[1:-1], strict=True):
                kind = next(kind for kind in KINDS if kind == _kind(head))
                columns[kind.name].version = head.removeprefix(kind.name).strip()
                columns[kind.name].answers[cells[0]] = answer
    return columns


def _kind(head: str) -> Kind | None:
    return next((kind for kind in KINDS if head.startswith(f'{kind.name} ')), None)


def text(columns: Mapping[str, Column]) -> str:
    """The document of these columns. What a behaviour that was taken out has answered is left out."""
    lines = [_row([f'{kind.name} {columns[kind.name].version}', f'`{kind.provider}`', columns[kind.name].measured, kind.started]) for kind in KINDS]
    parts = [_INTRODUCTION + '\n'.join(lines)]
    for section in SECTIONS:
        head = ['behaviour', *(f'{kind.name} {columns[kind.name].version}'.strip() for kind in KINDS), 'what it is to rucio-s3']
        rows = [_row(head), '|' + '---|' * len(head)]
        for each in BEHAVIOURS:
            if each.section == section:
                answers = [columns[kind.name].answers.get(each.text, UNKNOWN) for kind in KINDS]
                rows.append(_row([each.text, *answers, each.meaning]))
        parts.append(f'## {section}\n\n' + '\n'.join(rows))
    return '\n\n'.join([*parts, _LUCK])


def _row(cells: list[str]) -> str:
    return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


def differs(kind: Kind, each: Behaviour, measured: str, column: Column) -> str:
    """Why what was measured is not what the document says, or nothing."""
    written = column.answers.get(each.text, UNKNOWN)
    if measured == written or (measured in each.lucky and written not in (UNKNOWN, *each.lucky)):
        return ''
    return (
        f'{kind.name} {kind.version()}: "{each.text}" is now "{measured}"; docs/backends.md says "{written}" of {kind.name} {column.version}. '
        'Run `make backends`, and see whether providers.toml and the code still fit.'
    )


def merged(kind: Kind, measured: Mapping[str, str], column: Column) -> Column:
    """The column after a measurement. Luck does not wipe out what the same version was once seen to do."""
    answers = dict(measured)
    for each in BEHAVIOURS:
        if measured[each.text] in each.lucky:
            before = column.answers.get(each.text, UNKNOWN) if column.version == kind.version() else UNKNOWN
            answers[each.text] = kind.proven.get(str(each)) or (measured[each.text] if before == UNKNOWN else before)
    return Column(kind.version(), datetime.now(timezone.utc).date().isoformat() if kind.dated else '', answers)
