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

"""Files to be moved: so many of such a size, by names like 1000x1MiB."""

import re
import secrets
from dataclasses import dataclass
from pathlib import Path

UNITS = {'B': 1, 'kB': 1000, 'KiB': 1024, 'MiB': 1024**2, 'GiB': 1024**3}
DEFAULT = ('1x1KiB', '10000x1kB', '1000x1MiB', '1x1GiB')
SMOKE = ('12x1kB',)
_NAME = re.compile(r'(\d+)x(\d+)(B|kB|KiB|MiB|GiB)')
_PIECE = 8 * 1024**2


@dataclass(frozen=True)
class Workload:
    """:param size: Of each file, in bytes."""

    name: str
    files: int
    size: int

    @classmethod
    def parse(cls, name: str) -> 'Workload':
        """:raises ValueError: if this is not the name of a workload."""
        match = _NAME.fullmatch(name)
        if not match or not int(match[1]):
            raise ValueError(f'{name!r} is not a workload: write the number and the size of the files, like 1000x1MiB ({", ".join(UNITS)})')
        return cls(name, int(match[1]), int(match[2]) * UNITS[match[3]])

    @property
    def bytes(self) -> int:
        return self.files * self.size

    def at_most(self, files: int | None) -> 'Workload':
        """A part of it, for what is slow."""
        return self if files is None or files >= self.files else Workload(self.name, files, self.size)

    def make(self, folder: Path) -> Path:
        """Write the files: one in the folder itself, many in ten directories."""
        for index in range(self.files):
            path = folder / 'file' if self.files == 1 else folder / f'{index % 10}' / f'{index:06}'
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open('wb') as file:
                for start in range(0, self.size, _PIECE):
                    file.write(secrets.token_bytes(min(_PIECE, self.size - start)))
        return folder


@dataclass(frozen=True)
class Task:
    """One turn of one contestant with a workload.

    :param data: The directory with the files.
    :param name: Of the dataset or the folder. No other turn has it.
    :param target: The directory for what comes back. It does not exist yet.
    """

    workload: Workload
    data: Path
    name: str
    target: Path

    @property
    def source(self) -> Path:
        """The file, if it is one; else the directory."""
        return self.data / 'file' if self.workload.files == 1 else self.data

    def flat(self) -> Path:
        """A directory of the same files with names that nobody else has: the stock client takes names from files."""
        folder = self.data.with_name(f'flat-{self.name}')
        folder.mkdir(exist_ok=True)
        for path in [each for each in self.data.rglob('*') if each.is_file()]:
            link = folder / f'{self.name}-{path.name}'
            if not link.exists():
                link.hardlink_to(path)
        return folder
