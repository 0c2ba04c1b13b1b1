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

"""A disk that is full: a tmpfs, which only root can mount."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Make the folder a disk of so many bytes; what is on it at the end is in the folder afterwards.

    :returns: Whether it is one. It is not without root's privileges, as in most containers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() or _does('mount', '-t', 'tmpfs', '-o', f'size={size}', 'tests', str(folder)):
        yield False
        return
    aside = folder.with_name(f'{folder.name}.aside')
    try:
        yield True
        shutil.copytree(folder, aside)
    finally:
        _does('umount', '-l', str(folder))  # also if somebody still looks at it
        if aside.exists():
            folder.rmdir()
            aside.rename(folder)


def _does(*words: str) -> int:
    """Its exit code."""
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode
    except OSError:  # there is no such command
        return 1
