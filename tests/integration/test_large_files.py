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

"""What the user sees of the progress, and what a large file costs in memory."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from servers.cli import RucioCli
from servers.process import TIMEOUT
from servers.site import SCOPE, Site
from servers.team import Team, ok

MiB = 1024**2


def on_a_terminal(site: Site, *words: str) -> str:
    """What the stock command writes to stderr, where that is a terminal."""
    ours, theirs = pty.openpty()
    command = subprocess.Popen(
        [str(Path(sys.executable).with_name('rucio')), *words],
        env={**site.alice.environment, 'TERM': 'xterm', 'COLUMNS': '120'},
        cwd=site.alice.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    text = b''
    try:
        while block := os.read(ours, 65536):
            text += block
    except OSError:
        pass  # the other end was closed: the command has ended
    os.close(ours)
    assert command.wait(TIMEOUT) == 0
    return text.decode()


def test_a_bar_on_a_terminal_and_none_elsewhere(site: Site, unique: str, tmp_path: Path) -> None:
    file = tmp_path / f'{unique}.root'
    file.write_bytes(os.urandom(64 * MiB))

    shown = on_a_terminal(site, 'upload', '--rse', 'PLAIN_S3', '--scope', SCOPE, str(file))
    for_robots = on_a_terminal(site, '--robot', 'download', '--dir', str(tmp_path / 'one'), f'{SCOPE}:{file.name}')
    in_a_pipe = site.alice.rucio('download', '--dir', str(tmp_path / 'two'), f'{SCOPE}:{file.name}')

    assert '/67.1 MB' in shown
    assert '/67.1 MB' not in for_robots
    assert '/67.1 MB' not in in_a_pipe.stderr
    assert (tmp_path / 'one' / SCOPE / file.name).stat().st_size == 64 * MiB


# What the kernel notes for a child includes the parent of which it was a copy at first: that has to be a small one.
_PEAK = """
import os, subprocess, sys
with open('output', 'w') as output:
    command = subprocess.Popen(sys.argv[1:], stdout=output, stderr=output)
    print(os.wait4(command.pid, 0)[2].ru_maxrss * 1024)
"""


def peak_memory(user: RucioCli, *words: str) -> int:
    """Of the stock command, in bytes."""
    command = Path(sys.executable).with_name('rucio')
    return int(user.run('python', '-c', _PEAK, str(command), *words, timeout=1500, check=True).stdout)


@pytest.mark.long
@pytest.mark.slow
def test_a_file_of_6_gib(signed_team: Team, unique: str, tmp_path: Path) -> None:
    """More than the 5 GiB of one request or one copy, and each part is signed by the server."""
    user, scope, rse, storage = signed_team.owner, signed_team.scope, signed_team.rse, signed_team.storage
    ok(user.rucio('s3', 'make-bucket', scope))
    file, back = tmp_path / f'{unique}.root', tmp_path / 'back' / scope / f'{unique}.root'
    with file.open('wb') as sparse:
        for number in range(7):  # each GiB is another one
            sparse.seek(min(number * 1024 * MiB, 6 * 1024 * MiB - 1))
            sparse.write(bytes([number + 1]))
    words = ('--transfer-timeout', '1200')

    up = peak_memory(user, 'upload', *words, '--rse', rse, '--scope', scope, str(file))
    stored = {each['Key']: each['Size'] for each in storage.client().list_objects_v2(Bucket=scope, Prefix=unique).get('Contents', [])}
    file.unlink()
    down = peak_memory(user, 'download', *words, '--dir', str(tmp_path / 'back'), f'{scope}:{file.name}')
    storage.client().delete_object(Bucket=scope, Key=file.name)

    assert stored == {file.name: 6 * 1024 * MiB}, (user.directory / 'output').read_text()
    # Rucio has compared its checksum with the catalogue's before it gave the file its name.
    assert back.stat().st_size == 6 * 1024 * MiB, (user.directory / 'output').read_text()
    back.unlink()
    assert up < 300 * MiB
    assert down < 300 * MiB
