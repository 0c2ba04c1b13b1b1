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

"""A storage that costs nearly nothing (sink.c), instead of a real one: what is left is the client's own time. No Rucio server is there."""

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from stage import Door, listens

from servers.files import clean_environment
from servers.ports import free_port
from servers.process import Process

if TYPE_CHECKING:
    from typing_extensions import Self

SCHEME = 'sink'  # in the place of https and http
_SOURCE = Path(__file__).with_name('sink.c')


def missing() -> str:
    """Why there can be no sink here, or nothing."""
    return '' if shutil.which('cc') else 'there is no C compiler, cc'


class Sink:
    """Started by `with`. Only contestants that need no Rucio server can use it."""

    scheme = SCHEME

    def __init__(self, folder: Path) -> None:
        self.folder = folder / SCHEME
        self.folder.mkdir()
        self._door = Door('SINK', 'http', free_port(), 'access', 'secret', None)

    def __enter__(self) -> 'Self':
        program = self.folder / 'sink'
        subprocess.run(['cc', '-O2', '-pthread', '-o', str(program), str(_SOURCE)], check=True)
        words, environment = [str(program), str(self._door.port)], clean_environment(self.folder)
        self._process = Process('the sink', words, env=environment, cwd=self.folder, log=self.folder / 'sink.log')
        self._process.start()
        self._process.wait(lambda: listens(self._door.port), 60)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()

    def door(self, delay: int = 0) -> Door:
        """:raises ValueError: if it has to delay."""
        if delay:
            raise ValueError('the sink has no proxy')
        return self._door
